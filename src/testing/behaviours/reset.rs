use super::{Behaviour, listen};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Breaks the connection off once so many bytes have come, with or without an answer.
#[derive(Clone, Debug)]
pub struct Reset {
    /// How many bytes; 0 resets at once.
    pub after: u64,
    /// What it says before; it is delivered.
    pub words: Vec<u8>,
}

impl Behaviour for Reset {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut seen = peer.seen();
            listen(&mut peer, &mut seen, self.after).await;
            if peer.try_send(&self.words).await.is_ok() {
                peer.delivered().await;
            }
            peer.reset();
            seen
        })
    }
}
