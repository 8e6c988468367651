use super::{Behaviour, listen};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Closes cleanly once so many bytes have come, without waiting for the other's Fin.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How many bytes; 0 closes at once.
    pub after: u64,
}

impl Behaviour for Cut {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut seen = peer.seen();
            listen(&mut peer, &mut seen, self.after).await;
            peer.close();
            seen
        })
    }
}
