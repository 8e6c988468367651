use super::{Behaviour, listen_to_end};
use crate::Boxed;
use crate::testing::{Peer, Seen};

/// Speaks, ends its sending first, and goes on reading: a client with one request, or a server that pushes.
#[derive(Clone, Debug)]
pub struct HalfClose(pub Vec<u8>);

impl Behaviour for HalfClose {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            // If nobody can hear it any more, listening says so.
            let _ = peer.try_send(&self.0).await;
            peer.fin();
            let seen = peer.seen();
            listen_to_end(peer, seen).await
        })
    }
}
