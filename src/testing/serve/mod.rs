//! Fake servers that speak a protocol, and misbehave where a reply begins or ends.
//!
//! ```text
//!   connection ──bytes──> Requests ──request──> the server, an actor (one for all connections)
//!   connection <──bytes── a Rule's fault <── Replies <──reply───────┘
//! ```
//!
//! Any [`Framing`] will do: its `Requests` say what is one request, its `Replies` what is one reply, and a [`Server`]
//! what is answered. There are three servers that keep what they are told: [`Serve::resp`], [`Serve::memcached`] and
//! `Serve::http`.
//!
//! ```
//! use trunkline::testing::serve::{ReplyFault, Serve};
//! use trunkline::testing::{FakeBackend, FakeClient, block_on};
//!
//! // The second reply of each connection comes twice.
//! let backend = FakeBackend::new(Serve::resp().on_reply(2, ReplyFault::Duplicate)).listen();
//! block_on(async {
//!     let mut client = FakeClient::connect(backend.address()).await;
//!     client.send(b"SET a 1\r\nGET a\r\n").await;
//!     assert_eq!(client.recv_exact(19).await, b"+OK\r\n$1\r\n1\r\n$1\r\n1\r\n");
//! });
//! ```

#[cfg(feature = "http")]
mod http;
mod memcached;
mod resp;
mod rule;
mod server;
mod talk;
#[cfg(test)]
mod tests;

pub use rule::{ReplyFault, Rule, Which};
pub use server::Server;

use super::behaviours::Behaviour;
use super::{Peer, Seen};
use crate::Boxed;
use crate::framing::{Framing, Memcached, Resp};
use server::Asked;
use std::sync::atomic::{AtomicU64, Ordering};
use talk::Talk;

/// The longest request that is held, in bytes; a longer one is refused.
const LONGEST: usize = 64 << 20;

/// Answers the requests of a protocol, in their order, and breaks off or delays replies where its rules say so.
///
/// Where a request has no meaning for the server itself, such as `QUIT`, the framing's own answer is given. All that
/// the server is told it keeps, and nothing expires. A request may have 64 MiB, a value of Redis' or memcached's 32.
pub struct Serve {
    framing: Box<dyn Framing>,
    server: Asked,
    rules: Vec<Rule>,
    clients: AtomicU64,
}

impl Serve {
    /// Cuts requests and replies as this framing does, and answers what this server says.
    ///
    /// The server is an actor of its own from here on: all connections ask the same one.
    pub fn new(framing: impl Framing, server: impl Server) -> Serve {
        Serve {
            framing: Box::new(framing),
            server: Asked::start(server),
            rules: Vec::new(),
            clients: AtomicU64::new(0),
        }
    }

    /// A small Redis: PING, ECHO, SET (NX, XX), GET, DEL, EXISTS, INCR, APPEND, MSET, MGET, LPUSH, RPUSH, LPOP, MULTI, EXEC,
    /// DISCARD, SELECT, HELLO (RESP2 alone), RESET, FLUSHALL. CLIENT, COMMAND and CONFIG GET are answered so that tools are
    /// content. Inline requests are split at spaces.
    pub fn resp() -> Serve {
        Serve::new(Resp { max_frame: LONGEST / 2 }, resp::Store::default())
    }

    /// A small memcached: get, gets, gat, gats, set, add, replace, append, prepend, cas, delete, incr, decr, touch,
    /// flush_all, version, verbosity, mg, ms, md, mn. Times are ignored.
    pub fn memcached() -> Serve {
        Serve::new(Memcached { max_frame: LONGEST / 2 }, memcached::Store::default())
    }

    /// A small HTTP server, whose paths are keys: PUT stores a body, POST puts it behind what is there, GET and HEAD
    /// give it back, DELETE takes it away. With the query `?chunked` the reply has no length.
    #[cfg(feature = "http")]
    pub fn http() -> Serve {
        Serve::new(crate::framing::Http::default(), http::Store::default())
    }

    /// Puts this fault on the `n`-th reply of each connection, counted from 1.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    #[track_caller]
    pub fn on_reply(self, n: u64, fault: ReplyFault) -> Serve {
        assert!(n > 0, "replies are counted from 1");
        self.rule(Rule { which: Which::Nth(n), fault })
    }

    /// Puts this fault on every `n`-th reply of each connection.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    #[track_caller]
    pub fn on_every_reply(self, n: u64, fault: ReplyFault) -> Serve {
        assert!(n > 0, "every reply is every 1");
        self.rule(Rule { which: Which::Every(n), fault })
    }

    /// Adds a rule. Of those that fit a reply, the first that was added is applied.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Serve {
        self.rules.push(rule);
        self
    }
}

impl Behaviour for Serve {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        Box::pin(async move {
            let client = self.clients.fetch_add(1, Ordering::Relaxed);
            let seen = Talk::new(&*self.framing, &self.server, &self.rules, client, peer).run();
            let seen = seen.await;
            self.server.left(client).await;
            seen
        })
    }
}
