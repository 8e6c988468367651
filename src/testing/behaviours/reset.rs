use super::{Behaviour, listen};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Breaks the connection off once so many bytes have come.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// How many bytes; 0 resets at once.
    pub after: u64,
}

impl Behaviour for Reset {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut seen = Seen::default();
            listen(&mut peer, &mut seen, self.after).await;
            peer.reset();
            seen
        })
    }
}
