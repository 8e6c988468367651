//! What a proxy tells whoever embeds it: the callbacks of a server, as a trait.

use crate::units::show_duration;
use crate::{ConnId, Endpoint, Side};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Callbacks. Each has a default that does nothing.
///
/// **Order.** `on_start` first and `on_shutdown` last, once each. For each connection `on_connect`, then any number of
/// `on_receive`, then `on_close`, exactly once. The two sides of a connection are carried by different actors, which
/// may run on different threads: within a side, `on_receive` sees the bytes in order; between the sides there is none.
///
/// **Cost.** A callback runs inside the actor that calls it, which waits. It must not block.
///
/// **Panic.** A callback that panics aborts its connection, and no other.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl trunkline::Events for Count {
///     fn on_receive(&self, _: trunkline::ConnId, _: trunkline::Side, bytes: &[u8]) {
///         self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Events: Send + Sync + 'static {
    /// The proxy listens on these addresses, and is about to accept.
    fn on_start(&self, _listening: &[Endpoint]) {}

    /// A client was accepted. Its backend is not connected yet.
    fn on_connect(&self, _conn: ConnId, _client: &Endpoint) {}

    /// A peer sent these bytes; they are about to be passed on.
    fn on_receive(&self, _conn: ConnId, _from: Side, _bytes: &[u8]) {}

    /// The connection is over: both sockets are closed.
    fn on_close(&self, _ended: &Ended) {}

    /// [`Config::report`](crate::Config::report) has passed again.
    fn on_timer(&self, _report: &Report) {}

    /// Every connection is over, and nothing more will come.
    fn on_shutdown(&self) {}
}

/// For whoever keeps a hand on what is called.
impl<E: Events + ?Sized> Events for Arc<E> {
    fn on_start(&self, listening: &[Endpoint]) {
        (**self).on_start(listening);
    }

    fn on_connect(&self, conn: ConnId, client: &Endpoint) {
        (**self).on_connect(conn, client);
    }

    fn on_receive(&self, conn: ConnId, from: Side, bytes: &[u8]) {
        (**self).on_receive(conn, from, bytes);
    }

    fn on_close(&self, ended: &Ended) {
        (**self).on_close(ended);
    }

    fn on_timer(&self, report: &Report) {
        (**self).on_timer(report);
    }

    fn on_shutdown(&self) {
        (**self).on_shutdown();
    }
}

/// No callbacks.
pub(crate) struct Silent;

impl Events for Silent {}

/// Who made a connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// One of the peers: it closed first, it reset, or it could not be reached.
    Peer(Side),
    /// The proxy: it was stopped or told to end the connection, or an actor panicked.
    Proxy,
    /// A deadline passed.
    Timeout,
    /// A fault that was ordered: see `testing::Faults`.
    Toxic,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No backend had accepted yet.
    Connect,
    /// Bytes could flow in both directions.
    Data,
    /// One side had ended its sending, or could no longer be written to.
    HalfClosed,
    /// The proxy had been told to stop.
    Drain,
}

/// A connection that is over: one line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Which connection.
    pub conn: ConnId,
    /// Where the client came from.
    pub client: Endpoint,
    /// The backend that accepted, if one did.
    pub backend: Option<Endpoint>,
    /// Bytes that the client sent and the proxy read.
    pub from_client: u64,
    /// Those of them that the backend's socket took.
    pub to_backend: u64,
    /// Bytes that the backend sent and the proxy read.
    pub from_backend: u64,
    /// Those of them that the client's socket took.
    pub to_client: u64,
    /// Of both, the bytes that the peers' systems had not acknowledged when they were reset.
    pub undelivered: u64,
    /// What became of its requests; `None` where nobody looks at them, in a tunnel.
    pub answers: Option<Answers>,
    /// From accept to the end.
    pub lasted: Duration,
    /// From accept until a backend had accepted.
    pub connect: Option<Duration>,
    /// Who ended it.
    pub by: By,
    /// In which phase it was when that happened.
    pub phase: Phase,
    /// Both sides ended their sending, and each one's socket took every byte and the end of the other's. If not, both
    /// were shown a reset, unless it was [`By::Toxic`].
    pub clean: bool,
    /// What went wrong, in words; empty after a clean end.
    pub cause: String,
}

/// The requests of one client, where clients share trunks. Each gets one reply, or one error, or was the last: a client whose
/// protocol has no words for an error is cut off. A request that asks for no reply gets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answers {
    /// Requests that were understood.
    pub requests: u64,
    /// Those of them that got their reply, from the backend or, where the framing says so, from the proxy.
    pub replies: u64,
    /// Those that got an error, because a backend, a trunk or time was lacking.
    pub errors: u64,
}

/// A connection that is being carried, as [`Handle::list`](crate::Handle::list) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Which connection.
    pub conn: ConnId,
    /// Where the client came from.
    pub client: Endpoint,
    /// How far it has come.
    pub phase: Phase,
    /// Bytes that the backend's socket took.
    pub to_backend: u64,
    /// Bytes that the client's socket took.
    pub to_client: u64,
    /// Why it has a trunk for itself, and since which of its requests, such as `WATCH, request 17`.
    pub pinned: Option<String>,
    /// Since it was accepted.
    pub age: Duration,
    /// Since anything moved, as of the last tick.
    pub idle: Duration,
}

/// What a proxy is doing and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that are carried now.
    pub open: usize,
    /// Connections that were accepted since the start.
    pub accepted: u64,
    /// Those that ended cleanly; see [`Ended::clean`].
    pub clean: u64,
    /// Those that ended otherwise.
    pub aborted: u64,
    /// Those of the aborted for which no backend accepted.
    pub refused: u64,
    /// Bytes that clients sent and the proxy read.
    pub from_client: u64,
    /// Bytes that backends' sockets took.
    pub to_backend: u64,
    /// Bytes that backends sent and the proxy read.
    pub from_backend: u64,
    /// Bytes that clients' sockets took.
    pub to_client: u64,
    /// The most messages that ever waited in the mailbox of a backend_writer.
    pub backend_writer_high_water: usize,
    /// The most messages that ever waited in the mailbox of a client_writer.
    pub client_writer_high_water: usize,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            By::Peer(Side::Client) => "client",
            By::Peer(Side::Backend) => "backend",
            By::Proxy => "proxy",
            By::Timeout => "timeout",
            By::Toxic => "toxic",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Connect => "connect",
            Phase::Data => "data",
            Phase::HalfClosed => "half-closed",
            Phase::Drain => "drain",
        })
    }
}

impl Ended {
    /// The end in two words, after HAProxy's termination state: who, and in which phase, such as `client/data`.
    pub fn code(&self) -> String {
        format!("{}/{}", self.by, self.phase)
    }

    /// Bytes that were read from one peer and did not come to the other's system.
    pub fn lost(&self) -> u64 {
        let lost = |read: u64, sent: u64| read.saturating_sub(sent);
        let unsent =
            lost(self.from_client, self.to_backend) + lost(self.from_backend, self.to_client);
        unsent + self.undelivered
    }

    /// No backend accepted.
    pub(crate) fn is_refused(&self) -> bool {
        self.backend.is_none() && self.by == By::Peer(Side::Backend)
    }

    /// Writes the line of the access log. A client that could not be served is worth a warning.
    pub(crate) fn log(&self) {
        let level = if self.is_refused() { log::Level::Warn } else { log::Level::Info };
        let backend = self.backend.as_ref().map_or_else(|| "-".to_string(), Endpoint::to_string);
        let connect = self.connect.map_or_else(|| "-".to_string(), millis);
        let answers = self.answers.map_or_else(
            || "-".to_string(),
            |Answers { requests, replies, errors }| format!("{requests}/{replies}/{errors}"),
        );
        log::log!(
            level,
            actor = "connection",
            conn = self.conn.number(),
            client:% = self.client,
            backend = backend.as_str(),
            to_backend = self.to_backend,
            to_client = self.to_client,
            lost = self.lost(),
            answers = answers.as_str(),
            lasted = millis(self.lasted).as_str(),
            connect = connect.as_str(),
            end = self.code().as_str(),
            clean = self.clean,
            cause = self.cause.as_str();
            "closed"
        );
    }
}

/// A measured time, in milliseconds with three places: what a log is searched and sorted by.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.3}ms", time.as_secs_f64() * 1000.0)
}

impl Report {
    /// Adds what another proxy does and has done; of the marks, the higher one stands.
    pub fn add(&mut self, other: &Report) {
        self.open += other.open;
        self.accepted += other.accepted;
        self.clean += other.clean;
        self.aborted += other.aborted;
        self.refused += other.refused;
        self.from_client += other.from_client;
        self.to_backend += other.to_backend;
        self.from_backend += other.from_backend;
        self.to_client += other.to_client;
        let higher = |one: &mut usize, other: usize| *one = (*one).max(other);
        higher(&mut self.backend_writer_high_water, other.backend_writer_high_water);
        higher(&mut self.client_writer_high_water, other.client_writer_high_water);
    }

    /// Writes it to the log, as a proxy does that reports so often.
    pub fn log(&self, every: Duration) {
        log::info!(
            actor = "reporter",
            every = show_duration(every).as_str(),
            open = self.open,
            accepted = self.accepted,
            clean = self.clean,
            aborted = self.aborted,
            refused = self.refused,
            to_backend = self.to_backend,
            to_client = self.to_client,
            backend_writer_high_water = self.backend_writer_high_water,
            client_writer_high_water = self.client_writer_high_water;
            "report"
        );
    }
}
