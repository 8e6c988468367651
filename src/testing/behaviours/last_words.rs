use super::{Behaviour, listen};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Answers when it has read no more than the beginning, and closes with the rest unread, as a server does that
/// rejects a request. The system makes a reset of that; the words are behind it, and must arrive all the same.
///
/// It reads one byte at a time, so that the rest is left in the system.
#[derive(Clone, Debug)]
pub struct LastWords {
    /// How many bytes it reads first. With 0 it may close before anything has come, and so without a reset.
    pub after: u64,
    /// What it answers.
    pub words: Vec<u8>,
}

impl Behaviour for LastWords {
    fn reads(&self) -> usize {
        1
    }

    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut seen = peer.seen();
            listen(&mut peer, &mut seen, self.after).await;
            if peer.try_send(&self.words).await.is_ok() {
                peer.delivered().await;
            }
            peer.close();
            seen
        })
    }
}
