use super::{Behaviour, listen_to_end};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Speaks first, as a mail or database server does, then listens until the other ends its sending.
#[derive(Clone, Debug)]
pub struct Babble(pub Vec<u8>);

impl Behaviour for Babble {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            // If nobody can hear it any more, listening says so.
            let _ = peer.try_send(&self.0).await;
            let seen = peer.seen();
            listen_to_end(peer, seen).await
        })
    }
}
