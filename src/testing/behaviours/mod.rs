//! What a fake peer does, one behaviour a file. Each can be a backend's or a client's.
//!
//! | behaviour | in a few words | ends |
//! |---|---|---|
//! | [`Echo`] | sends back what comes | after the other's Fin |
//! | [`Babble`] | speaks first, then listens | after the other's Fin |
//! | [`Stall`] | never reads | when it is told, then like `Babble` |
//! | [`HalfClose`] | speaks, ends its sending, then listens | first |
//! | [`Drip`] | speaks a little at a time | first |
//! | [`Cut`] | listens to so many bytes, and closes | first |
//! | [`Reset`] | listens to so many bytes, and breaks off | first |
//! | [`LastWords`] | answers before it has read, and closes | first |
//! | [`Script`] | does what a small text says | as the text says |
//!
//! A backend that refuses has no connection to behave on: see
//! [`FakeBackend::refuse`](super::FakeBackend::refuse).

mod babble;
mod cut;
mod drip;
mod echo;
mod half_close;
mod last_words;
mod reset;
mod script;
mod stall;

pub use babble::Babble;
pub use cut::Cut;
pub use drip::Drip;
pub use echo::Echo;
pub use half_close::HalfClose;
pub use last_words::LastWords;
pub use reset::Reset;
pub use script::{Script, ScriptError, Unmet};
pub use stall::Stall;

use super::{Ending, Peer, Seen};
use crate::Boxed;
use std::sync::Arc;

/// What a fake peer does with a connection.
///
/// ```
/// use trunkline::Boxed;
/// use trunkline::testing::{Behaviour, FakeBackend, Peer, Seen};
///
/// /// Answers every connection with the same words.
/// struct Greeting;
///
/// impl Behaviour for Greeting {
///     fn run<'a>(&'a self, mut peer: Peer) -> Boxed<'a, Seen> {
///         Box::pin(async move {
///             peer.send(b"hello").await;
///             peer.fin();
///             peer.recv_to_end().await
///         })
///     }
/// }
///
/// let backend = FakeBackend::new(Greeting).listen();
/// assert!(backend.address().ip().is_loopback());
/// ```
pub trait Behaviour: Send + Sync + 'static {
    /// The most bytes that one recv of this peer takes.
    fn reads(&self) -> usize {
        16 << 10
    }

    /// Uses the connection to its end, and says what came. The peer has no deadline of its own here: whoever waits for
    /// the outcome has one.
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen>;
}

impl<B: Behaviour + ?Sized> Behaviour for Arc<B> {
    fn reads(&self) -> usize {
        (**self).reads()
    }

    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        (**self).run(peer)
    }
}

/// Receives up to `count` bytes into `seen`; false if the stream ended before.
async fn listen(peer: &mut Peer, seen: &mut Seen, count: u64) -> bool {
    while seen.count < count {
        match peer.try_recv().await {
            Ok(Some(bytes)) => seen.add(&bytes),
            Ok(None) => {
                seen.ending = Ending::Fin;
                return false;
            }
            Err(error) => {
                seen.ending = Ending::from(&error);
                return false;
            }
        }
    }
    true
}

/// Receives all that still comes, then ends this side: cleanly if the other did.
async fn listen_to_end(mut peer: Peer, mut seen: Seen) -> Seen {
    listen(&mut peer, &mut seen, u64::MAX).await;
    if seen.ending == Ending::Fin {
        peer.fin();
        peer.close();
    }
    seen
}
