use super::{Behaviour, listen_to_end};
use crate::Boxed;
use crate::runtime::{AsyncStd, Runtime};
use crate::testing::{Peer, Seen};
use futures_lite::future::yield_now;
use std::time::Duration;

/// Speaks a little at a time, then ends its sending and reads on. It reads nothing while it drips.
#[derive(Clone, Debug)]
pub struct Drip {
    /// What it says each time.
    pub bytes: Vec<u8>,
    /// How long it is silent before each.
    pub every: Duration,
    /// How often it speaks.
    pub times: usize,
}

impl Behaviour for Drip {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            for _ in 0..self.times {
                AsyncStd.sleep(self.every).await;
                if peer.try_send(&self.bytes).await.is_err() {
                    break;
                }
                // A time of nothing is over at once, and the peer may take all: the others must get their turn.
                yield_now().await;
            }
            peer.fin();
            let seen = peer.seen();
            listen_to_end(peer, seen).await
        })
    }
}
