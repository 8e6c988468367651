//! The whole proxy between fake peers: over real sockets and in memory, with every behaviour on both sides.

mod backends; // which one, and how it is reached
mod callbacks; // what an embedder is told, and in which order
mod faults; // what goes wrong on purpose, on the way
mod client_side; // each behaviour of a client
mod backend_side; // each behaviour of a backend
mod frames; // replies of a backend that go wrong
mod pairs; // every behaviour against every other
mod mux; // clients that share a trunk at the same time
mod pool; // clients that have it one after the other
mod room; // how many connections, and how many bytes
mod stop; // drain, abort, orders, deadlines

use std::time::Instant;
use trunkline::testing::{DEADLINE, Harness, HarnessBuilder};
use trunkline::{ConnId, Io, Phase};

/// A harness of each kind: what holds over sockets, however they are waited for, holds in memory.
fn worlds() -> Vec<HarnessBuilder> {
    let over = |io| Harness::builder().over_sockets().with(move |config| config.io = io);
    let mut worlds = vec![over(Io::Epoll), over(Io::Std), Harness::builder().in_memory()];
    // Where the kernel has none, or forbids it, there is nothing to test.
    if Io::Auto.here(1) == Io::Uring {
        worlds.push(over(Io::Uring));
    }
    worlds
}

/// Waits until the one connection has come so far, and says which it is.
async fn until(harness: &Harness, phase: Phase) -> ConnId {
    until_some(harness, |now| now == phase).await
}

/// The same for several phases. Each look is a question to the directory, which answers when it gets to it.
async fn until_some(harness: &Harness, wanted: impl Fn(Phase) -> bool) -> ConnId {
    let handle = harness.handle();
    let start = Instant::now();
    loop {
        let list = handle.list().await;
        if let [one] = &list[..]
            && wanted(one.phase)
        {
            return one.conn;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "waited for a phase of one connection; there are {list:?}"
        );
    }
}
