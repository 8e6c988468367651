//! Identity: which connection a message, a log line or a callback speaks of.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names one client connection for as long as the process lives; numbers are never used twice.
///
/// ```
/// let id = trunkline::ConnId::from(7);
/// assert_eq!(id.to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The bare number, for a log's key-values.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl From<u64> for ConnId {
    fn from(number: u64) -> Self {
        ConnId(number)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hands out connection ids, from 1 upwards, to all the listeners of a proxy.
#[derive(Debug, Default)]
pub(crate) struct ConnIds(AtomicU64);

impl ConnIds {
    pub(crate) fn next(&self) -> ConnId {
        ConnId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// One of the two peers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The peer that connected to the proxy.
    Client,
    /// The server that the proxy connected to.
    Backend,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Client => "client",
            Side::Backend => "backend",
        })
    }
}
