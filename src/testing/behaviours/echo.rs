use super::{Behaviour, listen_to_end};
use crate::Boxed;
use crate::testing::{Ending, Peer, Seen};

/// Sends back what comes, until the other ends its sending; then it does too.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Behaviour for Echo {
    fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let mut seen = peer.seen();
            loop {
                match peer.try_recv().await {
                    Ok(Some(bytes)) => {
                        seen.add(&bytes);
                        if peer.try_send(&bytes).await.is_err() {
                            return listen_to_end(peer, seen).await;
                        }
                    }
                    Ok(None) => {
                        seen.ending = Ending::Fin;
                        peer.fin();
                        peer.close();
                        return seen;
                    }
                    Err(error) => {
                        seen.ending = Ending::from(&error);
                        return seen;
                    }
                }
            }
        })
    }
}
