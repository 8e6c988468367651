//! A run in which clients share trunks. Every request and every reply carries its client and its number, so that a reply
//! that reaches somebody else, comes twice, or in another order, shows at once.
//!
//! In every other run the peers speak lines, as they do where nothing is known of a protocol; in the rest they speak the
//! dialect, which has all that a framing can say.
//!
//! What a backend says unasked is never like a reply here: if such bytes are on their way when the next request is,
//! nobody can tell them from its reply. (`tests/tunnel/pool.rs` has the case in which they can be told.)

mod backends;
mod clients;
mod lines;
mod talk;

use super::dialect::{Asked, Dialect};
use super::net;
use super::world::World;
use crate::framing::{Framing, Line, Trouble};
use crate::runtime::Runtime;
use crate::socket::Socket;
use crate::testing::Oracle;
use crate::{Config, Endpoint, Limits, PoolConfig, Proxy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was seen of requests and replies. Clones are the same.
#[derive(Clone)]
pub(super) struct Ledger {
    pages: Arc<Mutex<Pages>>,
    oracle: Oracle,
    /// Requests of more than one client may be on their way on a trunk.
    shared: bool,
}

#[derive(Default)]
struct Pages {
    /// How often a backend has carried out a request.
    carried_out: BTreeMap<(usize, usize), u32>,
    /// What the clients want, and whether they have said before that nothing more would come.
    asked: BTreeMap<(u8, u8), (Asked, bool)>,
    /// Requests that a backend has answered before it had all of them.
    early: BTreeSet<(u8, u8)>,
    /// Clients of whom a backend, in the middle of what has no other end, has taken leave by an end that looks like any.
    cut_short: BTreeSet<u8>,
    /// Clients that have left in the middle of it.
    left: BTreeSet<usize>,
    broken: Option<String>,
    /// The proxy was told to stop.
    stopping: bool,
    /// Whoever waits for a trunk may wait for longer than all the others need.
    patient: bool,
}

impl Ledger {
    pub(super) fn new(world: &World, shared: bool) -> Ledger {
        let oracle = if speaks_lines(world) { Oracle::default() } else { Oracle::framed() };
        Ledger { pages: Arc::default(), oracle, shared }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaks(&self, promise: String) {
        self.pages().broken.get_or_insert(promise);
    }

    fn carries_out(&self, client: usize, number: usize, most: u32) {
        let mut pages = self.pages();
        let times = pages.carried_out.entry((client, number)).or_default();
        *times += 1;
        if *times > most {
            let promise =
                format!("client {client}'s request {number} was carried out {times} times");
            pages.broken.get_or_insert(promise);
        }
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.pages().broken.clone().or_else(|| self.oracle.broken())
    }

    pub(super) fn endings(&self) -> Vec<(String, bool)> {
        self.oracle.ended().iter().map(|ended| (ended.code(), ended.clean)).collect()
    }
}

/// Owns the proxy from its start to its end.
pub(super) async fn own(world: World, ledger: Ledger, clients: usize) {
    let backends = 1 + world.roll(2);
    let place = |number: usize| Endpoint::Ip(([10, 0, 0, number as u8], 1).into());
    let config = Config {
        listen: vec![Endpoint::Ip(([127, 0, 0, 1], 1).into())],
        backends: (0..backends).map(place).collect(),
        tick: Duration::from_secs(5),
        // On a trunk that all share, slow peers add up.
        half_close_timeout: SECOND * 3600,
        limits: Limits {
            chunk: 1 + world.roll(400),
            mailbox: 1 + world.roll(4),
            spare: world.roll(20),
        },
        ..Config::default()
    };
    let early = world.chance(40);
    if early {
        world.count("fault: stopped early");
    }
    let (trunks, shared) = (1 + world.roll(4), if ledger.shared { 1 + world.roll(3) } else { 0 });
    let most = if shared > 0 { shared } else { trunks };
    let scarce = !all_behave(&world) && world.chance(30);
    let patient = !world.chance(20);
    ledger.pages().patient = patient;
    let pool = PoolConfig {
        trunks,
        queue_timeout: if patient {
            SECOND * 3600
        } else {
            SECOND / 1000 + world.while_up_to(SECOND)
        },
        max_queue: if world.chance(20) { 1 + world.roll(4) } else { 1000 },
        trunk_idle: world.while_up_to(SECOND * 20),
        shared,
        // A run without a stop lasts for a day, in which they would be dialled over and over.
        min_trunks: if early { world.roll(most + 1) } else { 0 },
        max_pinned: if scarce { 1 + world.roll(3) } else { 1000 },
        reply_buffer: if scarce { 1 + world.roll(3000) } else { 16 << 20 },
        trunk_lifetime: world.chance(50).then(|| SECOND / 10 + world.while_up_to(SECOND * 20)),
        // A stall on the wire may be as long as it takes to lose patience, and no backend is to blame then.
        reply_timeout: (world.chance(30) && !all_behave(&world))
            .then(|| SECOND + world.while_up_to(SECOND * 5)),
        credit: 1 + world.roll(6),
        ..PoolConfig::default()
    };
    // Two for each client, and those of the trunks.
    world.lobby(|lobby| lobby.fd_limit = 1000);
    let lines = speaks_lines(&world);
    world.count(if lines { "run: line" } else { "run: dialect" });
    for backend in &config.backends {
        let (inner, ledger) = (world.clone(), ledger.clone());
        let serve = move |socket: Arc<net::End>| {
            let (world, ledger) = (inner.clone(), ledger.clone());
            inner.start("backend", async move {
                match lines {
                    true => lines::backend(&world, &ledger, socket).await,
                    false => backends::backend(&world, &ledger, socket).await,
                }
            });
        };
        world.lobby(|lobby| lobby.add_backend(backend, Arc::new(serve)));
    }
    let runtime: Arc<dyn Runtime> = Arc::new(world.clone());
    let building = Proxy::builder().config(config).events(ledger.oracle.clone());
    let framing: Box<dyn Framing> = match lines {
        true => Box::new(Line { max_frame: 4000 }),
        false => Box::new(Dialect),
    };
    let building = building.pool(framing, pool).runtime(runtime);
    let proxy = match building.bind().await {
        Ok(proxy) => proxy,
        Err(error) => return ledger.breaks(format!("the proxy does not start: {error}")),
    };
    for number in 0..clients {
        let (inner, ledger) = (world.clone(), ledger.clone());
        world.start("client", async move {
            match lines {
                true => lines::client(&inner, &ledger, number).await,
                false => clients::client(&inner, &ledger, number).await,
            }
        });
    }
    if !early && !lines {
        let (inner, ledger) = (world.clone(), ledger.clone());
        world.start("latecomer", async move {
            clients::latecomer(&inner, &ledger, clients).await;
        });
    }
    let stop = if early { world.while_up_to(SECOND * 30) } else { SECOND * 24 * 3600 };
    let (sleep, stopping) = (world.sleep(stop), ledger.clone());
    let stopped = async move {
        sleep.await;
        stopping.pages().stopping = true;
    };
    let report = proxy.run(stopped).await;
    if all_behave(&world) {
        let left: Vec<_> = ledger.pages().left.iter().map(|number| place_of(*number)).collect();
        for ended in ledger.oracle.ended() {
            if LOST.contains(&ended.cause.as_str()) && !left.contains(&ended.client) {
                ledger.breaks(format!("no backend left, and a reply was lost: {ended:?}"));
            }
        }
    }
    for ended in ledger.oracle.ended() {
        if ended.cause.contains("panicked") {
            ledger.breaks(format!("connection {} ended by a panic: {ended:?}", ended.conn));
        }
        if patient && ended.cause == Trouble::QueueTimeout.words() {
            ledger
                .breaks(format!("connection {} waited in vain for a trunk: {ended:?}", ended.conn));
        }
        // Peers dawdle for seconds at the most: who stands still for longer waits for what never comes.
        if ended.cause.contains("too long") {
            ledger.breaks(format!("connection {} stood still: {ended:?}", ended.conn));
        }
    }
    if let Err(promises) = ledger.oracle.verdict(&report) {
        promises.into_iter().for_each(|promise| ledger.breaks(promise));
    }
}

/// The causes of the end of a client that was cut off because of its trunk.
const LOST: [&str; 2] = ["a reply was lost", "the trunk it was pinned to was lost"];

const SECOND: Duration = Duration::from_secs(1);

/// When whoever came before has gone, even if it had to wait for as long as anybody may.
const LATE: Duration = Duration::from_secs(12 * 3600);

/// The longest that a peer dawdles.
const DAWDLE: Duration = Duration::from_secs(2);

/// Where only the end of a frame is known, and where all is known.
fn speaks_lines(world: &World) -> bool {
    world.seed().is_multiple_of(2)
}

/// In every third run all backends are well-behaved, so that whatever is lost was lost by the proxy.
fn all_behave(world: &World) -> bool {
    world.seed().is_multiple_of(3)
}

fn place_of(client: usize) -> Endpoint {
    Endpoint::Name { host: format!("client-{client}"), port: 1 }
}

/// A client comes after a while.
async fn meet(world: &World, me: usize) -> Option<Arc<dyn Socket>> {
    let delay = world.while_up_to(SECOND * 20);
    world.sleep(delay).await;
    let met = net::connect(world, place_of(me)).ok();
    if met.is_none() {
        world.count("client finds nobody");
    }
    met
}

/// Leaves in the middle of it.
fn leave(world: &World, socket: Arc<dyn Socket>, who: &str, closes: bool) {
    if closes {
        world.count(&format!("fault: {who} closes"));
        socket.disarm();
    } else {
        world.count(&format!("fault: {who} resets"));
    }
}
