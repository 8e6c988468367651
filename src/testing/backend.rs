//! Fake backends, as a test describes them.

use super::behaviours::{
    Babble, Behaviour, Cut, Drip, Echo, HalfClose, LastWords, Reset, Script, Stall,
};
use super::running_backend::{Part, RunningBackend};
use super::serve::Serve;
use crate::Endpoint;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A backend that is being set up; [`listen`](FakeBackend::listen) or [`in_memory`](FakeBackend::in_memory) starts it.
///
/// ```
/// use trunkline::testing::{Ending, FakeBackend, FakeClient, block_on};
///
/// let backend = FakeBackend::echo().listen();
/// block_on(async {
///     let mut client = FakeClient::connect(backend.address()).await;
///     client.send(b"hello").await;
///     client.fin();
///     assert_eq!(client.recv_to_end().await.bytes, b"hello");
///     client.close();
///     let seen = backend.seen().await;
///     assert_eq!((seen.bytes, seen.ending), (b"hello".to_vec(), Ending::Fin));
/// });
/// assert_eq!(backend.accepted(), 1);
/// ```
pub struct FakeBackend {
    part: Part,
    capacity: usize,
    reads: usize,
}

impl FakeBackend {
    /// Behaves like this on every connection.
    pub fn new(behaviour: impl Behaviour) -> FakeBackend {
        FakeBackend::playing(Part::Behave(Arc::new(behaviour)))
    }

    /// Sends back what comes; see [`Echo`].
    pub fn echo() -> FakeBackend {
        FakeBackend::new(Echo)
    }

    /// Speaks first, then listens; see [`Babble`].
    pub fn babble(words: impl AsRef<[u8]>) -> FakeBackend {
        FakeBackend::new(Babble(words.as_ref().to_vec()))
    }

    /// Never reads, until `stall` is released; see [`Stall`].
    pub fn stall(stall: &Stall) -> FakeBackend {
        FakeBackend::new(stall.clone())
    }

    /// Speaks, ends its sending first, then listens; see [`HalfClose`].
    pub fn half_close(words: impl AsRef<[u8]>) -> FakeBackend {
        FakeBackend::new(HalfClose(words.as_ref().to_vec()))
    }

    /// Speaks a little at a time; see [`Drip`].
    pub fn drip(bytes: impl AsRef<[u8]>, every: Duration, times: usize) -> FakeBackend {
        FakeBackend::new(Drip { bytes: bytes.as_ref().to_vec(), every, times })
    }

    /// Closes after so many bytes; see [`Cut`].
    pub fn cut(after: u64) -> FakeBackend {
        FakeBackend::new(Cut { after })
    }

    /// Resets after so many bytes; see [`Reset`].
    pub fn reset(after: u64) -> FakeBackend {
        FakeBackend::new(Reset { after, words: Vec::new() })
    }

    /// Says this, waits until it is delivered, and resets; see [`Reset`].
    pub fn resets_after_saying(words: impl AsRef<[u8]>) -> FakeBackend {
        FakeBackend::new(Reset { after: 0, words: words.as_ref().to_vec() })
    }

    /// Reads so many bytes, answers, and closes with the rest unread; see [`LastWords`].
    pub fn last_words(after: u64, words: impl AsRef<[u8]>) -> FakeBackend {
        FakeBackend::new(LastWords { after, words: words.as_ref().to_vec() })
    }

    /// Does what a small text says, one step a line; see [`Script`].
    ///
    /// ```
    /// use trunkline::testing::{FakeBackend, FakeClient, block_on};
    ///
    /// let backend = FakeBackend::script(r#"
    ///     expect "PING\r\n"
    ///     send "+PONG\r\n"
    ///     reset
    /// "#).listen();
    /// block_on(async {
    ///     let mut client = FakeClient::connect(backend.address()).await;
    ///     client.send(b"PING\r\n").await;
    ///     assert_eq!(client.recv_exact(7).await, b"+PONG\r\n");
    ///     assert!(client.recv_to_end().await.ending.is_reset());
    /// });
    /// ```
    ///
    /// # Panics
    /// If the text is no script. To have the error instead, parse a [`Script`] and take
    /// [`new`](FakeBackend::new).
    #[track_caller]
    pub fn script(text: &str) -> FakeBackend {
        match text.parse::<Script>() {
            Ok(script) => FakeBackend::new(script),
            Err(error) => panic!("the script of a fake backend is wrong in {error}"),
        }
    }

    /// A small Redis; see [`Serve::resp`], also for replies that go wrong.
    pub fn resp() -> FakeBackend {
        FakeBackend::new(Serve::resp())
    }

    /// A small memcached; see [`Serve::memcached`].
    pub fn memcached() -> FakeBackend {
        FakeBackend::new(Serve::memcached())
    }

    /// A small HTTP server; see [`Serve::http`].
    #[cfg(feature = "http")]
    pub fn http() -> FakeBackend {
        FakeBackend::new(Serve::http())
    }

    /// Does nothing by itself: the test takes each connection by [`RunningBackend::accept`].
    pub fn by_hand() -> FakeBackend {
        FakeBackend::playing(Part::HandOver)
    }

    /// Refuses every connection. Over sockets it holds a port on which nobody listens.
    pub fn refuse() -> FakeBackend {
        FakeBackend::playing(Part::Refuse)
    }

    fn playing(part: Part) -> FakeBackend {
        FakeBackend { part, capacity: 64 << 10, reads: 16 << 10 }
    }

    /// In memory: how many bytes a connection holds each way. Real sockets have the system's buffers.
    #[must_use]
    pub fn capacity(mut self, bytes: usize) -> FakeBackend {
        self.capacity = bytes;
        self
    }

    /// In memory: how many bytes one recv of the proxy takes at most, which is `Limits::chunk` of a real socket.
    #[must_use]
    pub fn proxy_reads(mut self, bytes: usize) -> FakeBackend {
        self.reads = bytes;
        self
    }

    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If the system has none.
    #[track_caller]
    pub fn listen(self) -> RunningBackend {
        self.listen_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listens on this address, or on this unix path.
    ///
    /// # Panics
    /// If it cannot be had.
    #[track_caller]
    pub fn listen_at(self, endpoint: impl Into<Endpoint>) -> RunningBackend {
        let endpoint = endpoint.into();
        self.try_listen_at(endpoint.clone())
            .unwrap_or_else(|error| panic!("a fake backend cannot listen on {endpoint}: {error}"))
    }

    /// The same, but says why it was not possible.
    ///
    /// # Errors
    /// What the system says; for a name, that names are not resolved here.
    pub fn try_listen_at(self, endpoint: impl Into<Endpoint>) -> io::Result<RunningBackend> {
        RunningBackend::listening(self.part, &endpoint.into())
    }

    /// Runs without a socket, behind [`RunningBackend::connect`].
    pub fn in_memory(self) -> RunningBackend {
        self.in_memory_as("backend-1")
    }

    /// The same, by another name than the default one.
    pub(crate) fn in_memory_as(self, host: &str) -> RunningBackend {
        let endpoint = Endpoint::Name { host: host.to_string(), port: 1 };
        RunningBackend::in_memory(self.part, endpoint, self.capacity, self.reads)
    }
}
