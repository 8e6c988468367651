//! One end of a connection, in a test's hands.

use super::deadline::{DEADLINE, late, show, within};
use super::{Ending, Seen};
use crate::socket::{Chunk, Socket, recv, send_all};
use std::collections::VecDeque;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// A client or a backend, seen from its own side: over a real socket or in memory.
///
/// Every wait ends after a [deadline](Peer::patience) with a panic that names the line of the test, what was waited
/// for and what had arrived. The `try_` methods give an error of the socket back; the others panic on it.
///
/// Dropping a peer resets the connection, as a crash would; [`close`](Peer::close) is the clean way.
///
/// ```
/// use trunkline::testing::{Ending, Peer, block_on, pair};
///
/// let (one, other) = pair(64);
/// let (mut one, mut other) = (Peer::new("one", one), Peer::new("other", other));
/// block_on(async {
///     one.send(b"hello").await;
///     assert_eq!(other.recv_exact(5).await, b"hello");
///     one.close();
///     assert_eq!(other.recv_to_end().await.ending, Ending::Fin);
/// });
/// ```
pub struct Peer {
    sending: SendHalf,
    receiving: RecvHalf,
    keeps: usize,
}

/// The sending of a [`Peer`], for a test that sends and receives at the same time.
pub struct SendHalf {
    who: Arc<str>,
    socket: Arc<dyn Socket>,
    patience: Option<Duration>,
    sent: u64,
}

/// The receiving of a [`Peer`].
pub struct RecvHalf {
    who: Arc<str>,
    socket: Arc<dyn Socket>,
    patience: Option<Duration>,
    /// Came with the last recv and was more than was asked for.
    left: Option<Chunk>,
}

impl Peer {
    /// Takes one end of a connection; `who` is how a panic calls it.
    pub fn new(who: impl Into<String>, socket: Arc<dyn Socket>) -> Peer {
        let who: Arc<str> = who.into().into();
        Peer {
            sending: SendHalf {
                who: Arc::clone(&who),
                socket: Arc::clone(&socket),
                patience: Some(DEADLINE),
                sent: 0,
            },
            receiving: RecvHalf { who, socket, patience: Some(DEADLINE), left: None },
            keeps: Seen::KEPT,
        }
    }

    /// Sets how long each wait may last; `None` is for a behaviour, which a test waits for as a whole.
    #[must_use]
    pub fn patience(mut self, time: Option<Duration>) -> Peer {
        self.sending.patience = time;
        self.receiving.patience = time;
        self
    }

    /// Of what comes, a behaviour keeps only this many bytes; [`Seen::KEPT`] unless it is said.
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Peer {
        self.keeps = bytes;
        self
    }

    /// What a behaviour begins with.
    pub fn seen(&self) -> Seen {
        Seen::keeping(self.keeps)
    }

    /// Both directions, to be used at the same time.
    pub fn halves(&mut self) -> (&mut SendHalf, &mut RecvHalf) {
        (&mut self.sending, &mut self.receiving)
    }

    /// Sends all of `bytes`.
    #[track_caller]
    pub fn send<'a>(&'a mut self, bytes: &'a [u8]) -> impl Future<Output = ()> + Send + 'a {
        self.sending.send(bytes)
    }

    /// Sends all of `bytes`, or says why that is impossible.
    #[track_caller]
    pub fn try_send<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> impl Future<Output = io::Result<()>> + Send + 'a {
        self.sending.try_send(bytes)
    }

    /// The next bytes, as they come; `None` at the end of the stream.
    #[track_caller]
    pub fn recv(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send + '_ {
        self.receiving.recv()
    }

    /// The same, but gives a broken connection back.
    #[track_caller]
    pub fn try_recv(&mut self) -> impl Future<Output = io::Result<Option<Vec<u8>>>> + Send + '_ {
        self.receiving.try_recv()
    }

    /// Exactly `count` bytes; panics if the stream ends before.
    #[track_caller]
    pub fn recv_exact(&mut self, count: usize) -> impl Future<Output = Vec<u8>> + Send + '_ {
        self.receiving.recv_exact(count)
    }

    /// Everything that still comes, and how it ends.
    #[track_caller]
    pub fn recv_to_end(&mut self) -> impl Future<Output = Seen> + Send + '_ {
        self.receiving.recv_to_end()
    }

    /// Ends the sending and goes on receiving. On a connection that is lost already it does nothing: recv tells.
    pub fn fin(&mut self) {
        self.sending.fin();
    }

    /// Waits until the other end's system has all that was sent, so that a reset cannot destroy it.
    #[track_caller]
    pub fn delivered(&mut self) -> impl Future<Output = ()> + Send + '_ {
        self.sending.delivered()
    }

    /// Closes cleanly. If bytes for this end have not been received, the system turns that into a reset.
    pub fn close(self) {
        self.sending.socket.disarm();
    }

    /// Breaks the connection off. What was not [delivered](Peer::delivered) may be lost.
    pub fn reset(self) {
        drop(self);
    }
}

impl SendHalf {
    /// See [`Peer::send`].
    #[track_caller]
    pub fn send<'a>(&'a mut self, bytes: &'a [u8]) -> impl Future<Output = ()> + Send + 'a {
        let place = Location::caller();
        async move {
            if let Err(error) = self.send_at(bytes, place).await {
                panic!("{} could not send {} at {place}: {error}", self.who, show(bytes));
            }
        }
    }

    /// See [`Peer::try_send`].
    #[track_caller]
    pub fn try_send<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> impl Future<Output = io::Result<()>> + Send + 'a {
        self.send_at(bytes, Location::caller())
    }

    async fn send_at(&mut self, bytes: &[u8], place: &Location<'_>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut chunks = VecDeque::from([Chunk::from(bytes.to_vec())]);
        let sent = &mut self.sent;
        let sending = send_all(&*self.socket, &mut chunks, |count| *sent += count as u64);
        let done = within(self.patience, sending).await;
        done.unwrap_or_else(|| {
            let what = format!("room to send {}", show(bytes));
            let left: usize = chunks.iter().map(|chunk| chunk.len()).sum();
            let state = format!("{left} of these were left; {} bytes were sent in all", self.sent);
            late(&self.who, what, place, state)
        })
    }

    /// See [`Peer::fin`].
    pub fn fin(&mut self) {
        // It fails when the connection is lost, which the receiving half reports.
        let _ = self.socket.shutdown_write();
    }

    /// See [`Peer::delivered`].
    #[track_caller]
    pub fn delivered(&mut self) -> impl Future<Output = ()> + Send + '_ {
        let place = Location::caller();
        async move {
            if within(self.patience, self.socket.delivered()).await.is_none() {
                let state = format!("{} bytes were sent in all", self.sent);
                late(&self.who, "the delivery of what it had sent", place, state);
            }
        }
    }
}

impl RecvHalf {
    /// See [`Peer::recv`].
    #[track_caller]
    pub fn recv(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send + '_ {
        let place = Location::caller();
        async move {
            self.recv_at(place).await.unwrap_or_else(|error| {
                panic!("{} could not receive at {place}: {error}", self.who)
            })
        }
    }

    /// See [`Peer::try_recv`].
    #[track_caller]
    pub fn try_recv(&mut self) -> impl Future<Output = io::Result<Option<Vec<u8>>>> + Send + '_ {
        self.recv_at(Location::caller())
    }

    async fn recv_at(&mut self, place: &Location<'_>) -> io::Result<Option<Vec<u8>>> {
        let patience = self.patience;
        let received = within(patience, self.next()).await;
        let chunk = received.unwrap_or_else(|| late(&self.who, "any bytes", place, "none came"))?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }

    /// See [`Peer::recv_exact`].
    #[track_caller]
    pub fn recv_exact(&mut self, count: usize) -> impl Future<Output = Vec<u8>> + Send + '_ {
        let place = Location::caller();
        async move {
            let mut bytes = Vec::new();
            let patience = self.patience;
            match within(patience, self.fill(&mut bytes, count)).await {
                Some(Ending::Open) => bytes,
                Some(ending) => panic!(
                    "{} wanted {count} bytes at {place}, but the stream ended ({ending:?}) after {}",
                    self.who,
                    show(&bytes)
                ),
                None => {
                    let state = format!("there were {}", show(&bytes));
                    late(&self.who, format!("{count} bytes"), place, state)
                }
            }
        }
    }

    /// See [`Peer::recv_to_end`].
    #[track_caller]
    pub fn recv_to_end(&mut self) -> impl Future<Output = Seen> + Send + '_ {
        let place = Location::caller();
        async move {
            let mut bytes = Vec::new();
            let patience = self.patience;
            match within(patience, self.fill(&mut bytes, usize::MAX)).await {
                Some(ending) => {
                    let mut seen = Seen::keeping(bytes.len());
                    (seen.count, seen.bytes, seen.ending) = (bytes.len() as u64, bytes, ending);
                    seen
                }
                None => {
                    let state = format!("there were {}", show(&bytes));
                    late(&self.who, "the end of the stream", place, state)
                }
            }
        }
    }

    /// Receives until there are `count` bytes; anything but `Open` says that the stream ended before.
    async fn fill(&mut self, bytes: &mut Vec<u8>, count: usize) -> Ending {
        while bytes.len() < count {
            let mut chunk = match self.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ending::Fin,
                Err(error) => return Ending::from(&error),
            };
            let wanted = chunk.len().min(count - bytes.len());
            bytes.extend_from_slice(&chunk[..wanted]);
            if wanted < chunk.len() {
                chunk.advance(wanted);
                self.left = Some(chunk);
            }
        }
        Ending::Open
    }

    async fn next(&mut self) -> io::Result<Option<Chunk>> {
        match self.left.take() {
            Some(chunk) => Ok(Some(chunk)),
            None => recv(&*self.socket).await,
        }
    }
}
