use super::{Behaviour, listen_to_end};
use crate::Boxed;
use crate::testing::{Peer, Seen};
use async_channel::{Receiver, Sender};
use std::convert::Infallible;

/// Never reads, until it is told to; then it reads to the end. Clones are told together.
#[derive(Clone, Debug)]
pub struct Stall {
    told: Sender<Infallible>,
    wait: Receiver<Infallible>,
}

impl Stall {
    /// One that has not been told yet.
    #[expect(clippy::new_without_default, reason = "a stall is made on purpose")]
    pub fn new() -> Stall {
        let (told, wait) = async_channel::bounded(1);
        Stall { told, wait }
    }

    /// Lets it read, on the connections that it has and on all that come.
    pub fn release(&self) {
        self.told.close();
    }
}

impl Behaviour for Stall {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            // Nothing is ever sent: this ends when the channel closes.
            let _ = self.wait.recv().await;
            let seen = peer.seen();
            listen_to_end(peer, seen).await
        })
    }
}
