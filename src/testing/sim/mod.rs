//! The whole proxy in a simulated world: one thread, no socket, no real time, and every choice from one number.
//!
//! ```text
//!   seed ──> dice ──┬── which ready task runs next
//!                   ├── the network: latency, short reads and writes, stalls, resets, refused and hanging connects
//!                   ├── the peers: what 20 to 40 clients and their backends say, and how they leave
//!                   └── the owner: limits, file descriptors, when it stops, whom it ends
//! ```
//!
//! The actors are the real ones; they run on another `Runtime`. At the end of each run, and after each of its steps,
//! the promises of the proxy are checked. The same seed gives the same run, so a failure can be looked at again.
//!
//! ```
//! use trunkline::testing::sim;
//!
//! let first = sim::run(7).expect("no promise is broken");
//! let again = sim::run(7).expect("no promise is broken");
//! assert_eq!(first, again);
//! assert_ne!(first.digest, sim::run(8).expect("no promise is broken").digest);
//! ```

mod book;
mod dialect;
mod net;
mod peers;
mod poisoner;
mod pooled;
mod trace;
mod world;

pub use trace::{Traced, traced, traced_muxed, traced_pooled};
pub use world::Tally;

use crate::config::Limits;
use crate::runtime::Runtime;
use crate::{Config, Endpoint, Proxy};
use book::Book;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use world::{Stuck, World};

/// A run in which no promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// A digest of every choice that was made.
    pub digest: u64,
    /// How often each fault and each ending happened.
    pub tally: Tally,
    /// How many clients there were.
    pub clients: usize,
    /// How long it took in the simulated world.
    pub lasted: Duration,
}

/// A run in which a promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise, and what was seen instead.
    pub promise: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.promise)
    }
}

impl std::error::Error for Broken {}

/// Simulates one run.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64) -> Result<Outcome, Broken> {
    let world = World::new(seed);
    let outcome = simulate(&world);
    world.clear();
    outcome.map_err(|promise| Broken { seed, promise })
}

/// Simulates one run in which clients lease trunks, one after the other.
///
/// # Errors
/// The first promise that was broken.
pub fn run_pooled(seed: u64) -> Result<Outcome, Broken> {
    let world = World::new(seed);
    let outcome = simulate_pooled(&world);
    world.clear();
    outcome.map_err(|promise| Broken { seed, promise })
}

/// Simulates one run in which clients share trunks at the same time.
///
/// # Errors
/// The first promise that was broken.
pub fn run_muxed(seed: u64) -> Result<Outcome, Broken> {
    let world = World::new(seed);
    let outcome = simulate_muxed(&world);
    world.clear();
    outcome.map_err(|promise| Broken { seed, promise })
}

fn simulate_pooled(world: &World) -> Result<Outcome, String> {
    simulate_n_to_1(world, false)
}

fn simulate_muxed(world: &World) -> Result<Outcome, String> {
    simulate_n_to_1(world, true)
}

fn simulate_n_to_1(world: &World, shared: bool) -> Result<Outcome, String> {
    let ledger = pooled::Ledger::new(world, shared);
    let clients = 20 + world.roll(21);
    world.start("owner", pooled::own(world.clone(), ledger.clone(), clients));
    let ran = world.run(|_| {});
    conclude(world, ran, clients, ledger.broken(), ledger.endings())
}

fn simulate(world: &World) -> Result<Outcome, String> {
    let book = Book::default();
    let config = settings(world);
    let clients = 20 + world.roll(21);
    let limits = config.limits;
    // What holds the pool of buffers while no byte is in flight; known once the proxy listens.
    let holders = Arc::new(AtomicUsize::new(usize::MAX));
    world.start("owner", own(world.clone(), book.clone(), config, clients, Arc::clone(&holders)));

    let bound = 2 * (2 * limits.mailbox + 1);
    let ran = world.run(|world| {
        let idle = holders.load(Ordering::Relaxed);
        let held = world.buffers().map_or(0, |buffers| buffers.holders()).saturating_sub(idle);
        // A peer of the test may hold one more while it looks at it.
        // Toxics hold more: that is what they are for.
        if idle != usize::MAX && !poisoner::is_at_work(world) && held > book.open() * bound + 1 {
            book.breaks(format!(
                "{held} buffers are held by {} connections of at most {bound}",
                book.open()
            ));
        }
    });
    conclude(world, ran, clients, book.broken(), book.endings())
}

/// What is promised of every run, whatever it was about.
fn conclude(
    world: &World,
    ran: Result<(), Stuck>,
    clients: usize,
    broken: Option<String>,
    endings: Vec<(String, bool)>,
) -> Result<Outcome, String> {
    if let Some(promise) = broken {
        return Err(promise);
    }
    match ran {
        Ok(()) => {}
        Err(Stuck::Waiting) => {
            let waiting = world.waiting().join(", ");
            return Err(format!(
                "nothing waits for ever, but after {:?} there still wait: {waiting}",
                world.time()
            ));
        }
        Err(Stuck::Endless) => {
            return Err(format!("it goes on and on: {}", world.waiting().join(", ")));
        }
    }
    let held = world.buffers().map_or(1, |buffers| buffers.holders());
    // Ours, and the one that the world keeps to ask.
    if held != 2 {
        return Err(format!(
            "every buffer is back at the end, but {} are not",
            held.saturating_sub(2)
        ));
    }
    for (code, clean) in endings {
        world.count(&format!("ending: {code}{}", if clean { " clean" } else { "" }));
    }
    Ok(Outcome { digest: world.digest(), tally: world.tally(), clients, lasted: world.time() })
}

/// Small numbers, so that every limit is met.
fn settings(world: &World) -> Config {
    let backends = 1 + world.roll(3);
    let place = |number: usize| Endpoint::Ip(([10, 0, 0, number as u8], 1).into());
    Config {
        listen: vec![Endpoint::Ip(([127, 0, 0, 1], 1).into())],
        backends: (0..backends).map(place).collect(),
        max_conn: 3 + world.roll(30),
        // A day has as many ticks as it takes.
        tick: Duration::from_secs(5),
        limits: Limits {
            chunk: 1 + world.roll(400),
            mailbox: 1 + world.roll(4),
            spare: world.roll(20),
        },
        ..Config::default()
    }
}

/// Owns the proxy: starts it, meddles with it, and stops it at some moment.
async fn own(world: World, book: Book, config: Config, clients: usize, holders: Arc<AtomicUsize>) {
    // Scarce now and then: fewer than the connections need.
    let enough = 2 * config.max_conn + 2;
    let fds = if world.chance(30) { 4 + world.roll(enough) } else { enough };
    world.lobby(|lobby| lobby.fd_limit = fds);
    for backend in &config.backends {
        let (world_of_it, book) = (world.clone(), book.clone());
        let serve = move |socket: Arc<net::End>| {
            peers::backend(&world_of_it, &book, world_of_it.current(), socket)
        };
        world.lobby(|lobby| lobby.add_backend(backend, Arc::new(serve)));
    }
    let runtime: Arc<dyn Runtime> = Arc::new(world.clone());
    let polite = if world.chance(50) { "client" } else { "backend" };
    world.lobby(|lobby| lobby.polite = polite);
    let mut building =
        Proxy::builder().config(config).events(book.clone()).runtime(Arc::clone(&runtime));
    if poisoner::is_at_work(&world) {
        match poisoner::start(&world, &book, runtime).await {
            Some(detour) => building = building.detour(detour),
            None => return book.breaks("the faults do not start".into()),
        }
    }
    let proxy = match building.bind().await {
        Ok(proxy) => proxy,
        Err(error) => return book.breaks(format!("the proxy does not start: {error}")),
    };
    let idle = world.buffers().map_or(0, |buffers| buffers.holders());
    // Asking takes a hold of its own.
    holders.store(idle, Ordering::Relaxed);

    let within = Duration::from_secs(20);
    let early = world.chance(50);
    for number in 0..clients {
        world.start("client", peers::client(world.clone(), book.clone(), number, within, !early));
    }
    let handle = proxy.handle();
    let (meddling, aborts) = (world.chance(30), world.chance(30));
    let meddler = world.clone();
    world.start("meddler", async move {
        if meddling {
            for _ in 0..meddler.roll(4) {
                let pause = meddler.while_up_to(Duration::from_secs(10));
                meddler.sleep(pause).await;
                if let Some(listed) = handle.list().await.first() {
                    meddler.count("fault: ended by order");
                    handle.end(listed.conn).await;
                }
            }
        }
        if aborts {
            let pause = Duration::from_secs(15) + meddler.while_up_to(Duration::from_secs(30));
            meddler.sleep(pause).await;
            meddler.count("fault: aborted by order");
            handle.abort().await;
        }
    });
    // Long enough for every silent connection, each in its turn, to be timed out.
    let late = Duration::from_secs(24 * 3600);
    let stop = if early { within / 2 + world.while_up_to(within) } else { late };
    if early {
        world.count("fault: stopped early");
    }
    let report = proxy.run(world.sleep(stop)).await;
    book.check(&report);
}
