//! Framings: where a protocol's requests and replies end, and what each of them means for whoever shares a trunk.
//!
//! Pure: no I/O, no clock, no allocation that a peer decides. A framing is fed the bytes that have come, in whatever
//! pieces they came, and says how many of them are its next piece. It never panics, whatever it is fed: hostile input is
//! a [`Malformed`], and every length has a limit.
//!
//! ```text
//!   client ──bytes──> Requests ──Piece<Request>──> trunk      what it is, how many replies, may it share the trunk?
//!   client <──────── Piece<Reply> <── Replies <──bytes── trunk      whose it is follows from the order of requests
//! ```
//!
//! Which byte ends a reply often depends on its request (HTTP's `HEAD`, Redis' `SUBSCRIBE a b`). So a request comes with
//! a [`Shape`], which travels in the queue of what the trunk still owes, and is shown to [`Replies`] when its turn comes.
//!
//! ```
//! use trunkline::framing::{Framing, Line};
//!
//! let line = Line::default();
//! let mut requests = line.requests();
//! assert_eq!(requests.next(b"GET a").unwrap(), None);
//! let piece = requests.next(b"GET a\r\nGET b\r\n").unwrap().unwrap();
//! assert_eq!((piece.bytes, piece.ends), (7, true));
//! ```

mod line;
mod eof;
mod length;
#[cfg(feature = "http")]
mod http;
mod memcached;
mod resp;
mod plain;
mod pieces;

pub use eof::Eof;
#[cfg(feature = "http")]
pub use http::Http;
pub use length::{Length, LengthType};
pub use line::Line;
pub use memcached::Memcached;
pub use resp::Resp;

use std::fmt;

/// A protocol.
pub trait Framing: fmt::Debug + Send + Sync + 'static {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Reads the requests of one client, from its first byte.
    fn requests(&self) -> Box<dyn Requests>;

    /// Reads the replies of one trunk, from its first byte.
    fn replies(&self) -> Box<dyn Replies>;

    /// What a client is told, in the protocol's own form, when its request of this shape cannot be answered; empty where
    /// the protocol has no such form, and the client is then closed.
    fn error(&self, trouble: Trouble, shape: Shape) -> Vec<u8>;

    /// What puts a trunk back into the state of a new one, and the reply that says so: asked before a trunk that was
    /// pinned is given back. None: there is nothing like it, and such a trunk is closed.
    fn reset_query(&self) -> Option<ResetQuery> {
        None
    }

    /// Whether the requests of several clients may be in flight on one trunk at the same time.
    fn multiplexes(&self) -> bool {
        true
    }

    /// Whether it knows how many replies a request has. If not, whoever pools or multiplexes must promise that it is one.
    fn counts_replies(&self) -> bool;
}

/// For whoever does not know which it is.
impl Framing for Box<dyn Framing> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn requests(&self) -> Box<dyn Requests> {
        (**self).requests()
    }

    fn replies(&self) -> Box<dyn Replies> {
        (**self).replies()
    }

    fn error(&self, trouble: Trouble, shape: Shape) -> Vec<u8> {
        (**self).error(trouble, shape)
    }

    fn reset_query(&self) -> Option<ResetQuery> {
        (**self).reset_query()
    }

    fn multiplexes(&self) -> bool {
        (**self).multiplexes()
    }

    fn counts_replies(&self) -> bool {
        (**self).counts_replies()
    }
}

/// Reads requests. One for each client: it may remember what the client said before.
pub trait Requests: Send {
    /// The next piece of what has come. `bytes` begins where the last piece ended, and is at least as long as when `None`
    /// was last returned for it; `None` asks for more.
    ///
    /// It does not look at the same byte again and again: what it has looked at it remembers until a piece is given.
    ///
    /// # Errors
    /// This is no request; nothing of this client can be understood any more.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed>;
}

/// Reads replies. One for each trunk.
pub trait Replies: Send {
    /// The same for replies. `due` is the shape of the oldest request whose reply has not ended; without one, the only
    /// thing that may come is what [`Reply::pops`] nothing.
    ///
    /// # Errors
    /// This is no reply, or none is due: the trunk cannot be used any more.
    fn next(&mut self, bytes: &[u8], due: Option<Shape>)
    -> Result<Option<Piece<Reply>>, Malformed>;

    /// The trunk has ended its sending, and no byte is left that `next` did not take. Whether that ends the reply that
    /// is due, as it does for one that lasts until the close.
    fn ends_with_the_trunk(&self) -> bool {
        false
    }
}

/// Bytes of one frame: all of it, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// How many; at least one.
    pub bytes: usize,
    /// What the frame is, if this is its first piece.
    pub begins: Option<T>,
    /// Whether the frame ends with it.
    pub ends: bool,
    /// What is passed on in its place; `None` is the bytes as they are.
    pub instead: Option<Vec<u8>>,
}

impl<T> Piece<T> {
    /// A frame in one piece, passed on as it is.
    pub fn whole(bytes: usize, meaning: T) -> Piece<T> {
        Piece { bytes, begins: Some(meaning), ends: true, instead: None }
    }
}

/// A frame that is not longer than this is given in one piece. A longer one is given in pieces as soon as its meaning is
/// known, so that nobody has to hold it. Which of the two depends on its length alone, not on how it came. A shorter one may
/// be given in pieces as well, where its beginning is awaited before the rest is sent, or does not tell that it is shorter.
pub const WHOLE: usize = 16 << 10;

/// What a request means for the trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is done with it.
    pub action: Action,
    /// How many replies will come.
    pub replies: Count,
    /// How its replies are to be read.
    pub shape: Shape,
    /// Whether others may use the trunk meanwhile.
    pub binding: Binding,
    /// Whether it may be sent again to another trunk though the first may have carried it out: it changes nothing, or
    /// changes it to the same.
    pub idempotent: bool,
    /// Whether the client has said that it is its last: it is closed behind the reply.
    pub last: bool,
    /// Whether it asks the backend to wait with the reply: no silence is too long then.
    pub waits: bool,
}

impl Request {
    /// It goes to a trunk that it may share, has one reply, and makes nobody wait.
    pub(crate) fn is_plain(&self) -> bool {
        let shared = self.action == Action::Forward && self.binding == Binding::Shared;
        shared && self.replies == Count::Exactly(1) && !self.last && !self.waits
    }

    /// What follows it means something else without it.
    pub(crate) fn binds(&self) -> bool {
        matches!(self.binding, Binding::Pinned(_) | Binding::Tunnel(_))
    }
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes to the trunk.
    Forward,
    /// It has no meaning, such as an empty line, and is dropped.
    Skip,
    /// The client is answered so, behind the replies that it still awaits, and the request goes nowhere.
    Answer(Vec<u8>),
    /// The same, and then its connection is closed.
    AnswerAndClose(Vec<u8>),
}

/// How many replies a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many; 0 is none at all.
    Exactly(u32),
    /// Nobody can tell, or they never end: such a request is always [`Binding::Pinned`] or [`Binding::Tunnel`].
    Unknown,
}

/// How the replies to a request are to be read: whatever its own framing makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape(pub u32);

/// Who may use the trunk besides, and for how long it is bound. The words say why, for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Anybody; other requests may be in flight before and behind it.
    Shared,
    /// Nobody until its reply has ended, and no more of this client's requests is looked at before: it makes the trunk
    /// wait, or what follows depends on the reply.
    Exclusive(&'static str),
    /// Nobody else, from this request on until one that says `Release`, or until the client leaves: it leaves state
    /// behind that belongs to the client.
    Pinned(&'static str),
    /// The last request of a pin: behind its reply the trunk is reset and given back.
    Release,
    /// As for `Pinned`, but no more requests follow: the bytes of both sides go through as they are.
    Tunnel(&'static str),
}

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whether it is the, or one of the, replies that are due; or else something that comes besides, such as a `100
    /// Continue`: then the client gets it, and the reply is still due.
    pub pops: bool,
    /// Whether the trunk can take another request behind it.
    pub reusable: bool,
    /// Whether the backend closes behind it, and has looked at nothing that came behind its request (RFC 9112, 9.6): that may
    /// be sent again.
    pub closes: bool,
    /// Whether both sides' bytes go through as they are from here on: the `101` to an upgrade. Its request must not be
    /// [`Binding::Shared`], for nobody else can have the trunk then.
    pub tunnels: bool,
    /// Whether the client gets none of it: it had asked not to be told, and the trunk was asked to tell nevertheless, for
    /// a reply that may or may not come cannot be counted.
    pub silent: bool,
    /// Whether the client is closed behind it.
    pub last: bool,
}

impl Reply {
    /// The plain case: it is the one that was due, and the next may come.
    pub const PLAIN: Reply = Reply {
        pops: true,
        reusable: true,
        closes: false,
        tunnels: false,
        silent: false,
        last: false,
    };
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong, for the log.
    pub why: String,
    /// What the client is told before it is closed, in the protocol's own form; empty says nothing.
    pub answer: Vec<u8>,
}

impl Malformed {
    /// Says nothing to the client.
    pub fn new(why: impl Into<String>) -> Malformed {
        Malformed { why: why.into(), answer: Vec::new() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Malformed {}

/// Why a request cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No backend accepts.
    NoBackend,
    /// Too many wait already.
    QueueFull,
    /// It has waited too long for a trunk.
    QueueTimeout,
    /// The trunk was lost before the reply was complete.
    BackendLost,
    /// The reply did not come in time.
    ReplyTimeout,
    /// It needs a trunk of its own, and too many clients have one.
    TooManyPinned,
}

impl Trouble {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Trouble::NoBackend => "no backend accepts",
            Trouble::QueueFull => "too many requests are waiting",
            Trouble::QueueTimeout => "no backend connection became free in time",
            Trouble::BackendLost => "the backend connection was lost",
            Trouble::ReplyTimeout => "the backend did not reply in time",
            Trouble::TooManyPinned => "too many clients have a backend connection of their own",
        }
    }
}

/// See [`Framing::reset_query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetQuery {
    /// The request.
    pub request: Vec<u8>,
    /// The reply that says that it was done; anything else means that the trunk is closed.
    pub reply: Vec<u8>,
}

#[cfg(any(test, fuzzing))]
pub mod fuzzed;
#[cfg(any(test, fuzzing))]
pub mod splits;
