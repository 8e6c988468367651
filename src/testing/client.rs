//! Fake clients: of a proxy, or of anything else that listens.

use super::deadline::{DEADLINE, late, within};
use super::{Behaviour, Peer, Seen};
use crate::Endpoint;
use crate::net;
use crate::runtime::Options;
use crate::socket::{Buffers, Socket};
use std::io;
use std::panic::Location;
use std::sync::Arc;

/// Makes connections as a client does, over real sockets.
///
/// ```
/// use trunkline::testing::{Ending, FakeBackend, FakeClient, behaviours::HalfClose, block_on};
///
/// let backend = FakeBackend::echo().listen();
/// let seen = block_on(FakeClient::run(backend.address(), &HalfClose(b"hello".to_vec())));
/// assert_eq!((seen.bytes, seen.ending), (b"hello".to_vec(), Ending::Fin));
/// ```
pub struct FakeClient;

impl FakeClient {
    /// Connects, and leaves the rest to the test.
    #[track_caller]
    pub fn connect(to: impl Into<Endpoint>) -> impl Future<Output = Peer> + Send {
        let (to, place) = (to.into(), Location::caller());
        async move {
            let peer = connect(&to, place, 16 << 10).await;
            peer.unwrap_or_else(|error| panic!("cannot connect to {to} at {place}: {error}"))
        }
    }

    /// The same, but says why it was not possible.
    ///
    /// # Errors
    /// What the system says.
    #[track_caller]
    pub fn try_connect(to: impl Into<Endpoint>) -> impl Future<Output = io::Result<Peer>> + Send {
        let (to, place) = (to.into(), Location::caller());
        async move { connect(&to, place, 16 << 10).await }
    }

    /// Connects, behaves like this to the end, and says what came.
    ///
    /// # Panics
    /// If that takes too long, or is not what a [`Script`](super::behaviours::Script) expected.
    #[track_caller]
    pub fn run<'a>(
        to: impl Into<Endpoint>,
        behaviour: &'a dyn Behaviour,
    ) -> impl Future<Output = Seen> + Send + 'a {
        let (to, place) = (to.into(), Location::caller());
        async move {
            let peer = connect(&to, place, behaviour.reads()).await;
            let peer =
                peer.unwrap_or_else(|error| panic!("cannot connect to {to} at {place}: {error}"));
            run(behaviour, peer, place).await
        }
    }
}

/// Lets a client behave; as a whole it has the time that another client has for each wait.
pub(crate) async fn run(behaviour: &dyn Behaviour, peer: Peer, place: &Location<'_>) -> Seen {
    let seen = within(Some(DEADLINE), behaviour.run(peer.patience(None))).await;
    let seen =
        seen.unwrap_or_else(|| late("a client", "the end of its behaviour", place, "it still ran"));
    seen.met("a client", place)
}

async fn connect(to: &Endpoint, place: &Location<'_>, reads: usize) -> io::Result<Peer> {
    let options = Options { keepalive: None, buffers: Buffers::new(reads, 4), io: crate::Io::Auto };
    let Some(stream) =
        within(Some(DEADLINE), net::Stream::dial(to, &options, &net::Watcher::Reactor)).await
    else {
        late("a client", format!("{to} to accept"), place, "it neither did nor refused");
    };
    let socket: Arc<dyn Socket> = Arc::new(stream?);
    Ok(Peer::new(format!("a client of {to}"), socket))
}
