//! The limit on open files, and how many connections fit below it.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What the process itself has open: standard streams, log, listeners, reactor, signals, name resolution.
const OWN: u64 = 24;

/// A connection has a client's and a backend's socket.
const PER_CONNECTION: u64 = 2;

/// The limit that holds now.
pub(crate) fn current() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one, as every server may; returns what holds then.
pub(crate) fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // If the system refuses, the old limit holds, and the caller is told that.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    current()
}

/// How many open files `connections` need.
pub(crate) fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_mul(PER_CONNECTION).saturating_add(OWN)
}

/// How many connections fit below a limit; at least one, for a proxy that serves nobody is of no use.
pub(crate) fn fitting(limit: u64) -> usize {
    let count = limit.saturating_sub(OWN) / PER_CONNECTION;
    usize::try_from(count).unwrap_or(usize::MAX).max(1)
}

/// What to tell an operator whose `max_conn` does not fit.
pub(crate) fn warning(max_conn: usize, limit: u64) -> String {
    format!(
        "max-conn {max_conn} needs {} open files and the limit is {limit}; {} connections fit, and no more are carried \
         at once (raise the limit with ulimit -n, or lower --max-conn)",
        needed(max_conn),
        fitting(limit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_what_is_needed_turned_round() {
        for connections in [1, 20, 10_000] {
            assert_eq!(fitting(needed(connections)), connections);
            assert_eq!(fitting(needed(connections) + 1), connections);
        }
        assert_eq!(fitting(0), 1);
        assert_eq!(fitting(64), 20);
        assert_eq!(needed(usize::MAX), u64::MAX);
    }
}
