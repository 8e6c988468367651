//! A run in which clients share trunks. Every request and every reply carries its client and its number, so that a reply
//! that reaches somebody else, comes twice, or in another order, shows at once.
//!
//! No backend here says what nobody asked for: if such bytes are on their way when the next request is, nobody can tell
//! them from its reply. (`tests/tunnel/pool.rs` has the case in which they can be told.)

use super::net;
use super::world::World;
use crate::framing::Line;
use crate::runtime::{Either, Runtime, race};
use crate::socket::{Chunk, Socket, recv, send_all};
use crate::testing::Oracle;
use crate::{Config, Endpoint, Limits, PoolConfig, Proxy};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was seen of requests and replies. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    pages: Arc<Mutex<Pages>>,
    oracle: Oracle,
}

#[derive(Default)]
struct Pages {
    /// Requests that a backend has carried out.
    carried_out: BTreeSet<(usize, usize)>,
    broken: Option<String>,
    /// The proxy was told to stop.
    stopping: bool,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaks(&self, promise: String) {
        self.pages().broken.get_or_insert(promise);
    }

    fn carries_out(&self, client: usize, number: usize) {
        if !self.pages().carried_out.insert((client, number)) {
            self.breaks(format!("client {client}'s request {number} was carried out twice"));
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
pub(super) async fn own(world: World, ledger: Ledger, clients: usize, shared: bool) {
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
    let pool = PoolConfig {
        trunks: 1 + world.roll(4),
        queue_timeout: if world.chance(20) { world.while_up_to(SECOND) } else { SECOND * 3600 },
        max_queue: if world.chance(20) { 1 + world.roll(4) } else { 1000 },
        trunk_idle: world.while_up_to(SECOND * 20),
        shared: if shared { 1 + world.roll(3) } else { 0 },
        // A run without a stop lasts for a day, in which they would be dialled over and over.
        min_trunks: if early { world.roll(3) } else { 0 },
        trunk_lifetime: world.chance(50).then(|| world.while_up_to(SECOND * 20)),
        // A stall on the wire may be as long as it takes to lose patience, and no backend is to blame then.
        reply_timeout: (world.chance(30) && !world.seed().is_multiple_of(3))
            .then(|| SECOND + world.while_up_to(SECOND * 5)),
        credit: 1 + world.roll(6),
        ..PoolConfig::default()
    };
    // Two for each client, and those of the trunks.
    world.lobby(|lobby| lobby.fd_limit = 1000);
    for backend in &config.backends {
        let (inner, ledger) = (world.clone(), ledger.clone());
        let serve = move |socket| {
            let (world, ledger) = (inner.clone(), ledger.clone());
            inner.start("backend", async move { backend_lives(&world, &ledger, socket).await });
        };
        world.lobby(|lobby| lobby.add_backend(backend, Arc::new(serve)));
    }
    let runtime: Arc<dyn Runtime> = Arc::new(world.clone());
    let building = Proxy::builder().config(config).events(ledger.oracle.clone());
    let building = building.pool(Line { max_frame: 4000 }, pool).runtime(runtime);
    let proxy = match building.bind().await {
        Ok(proxy) => proxy,
        Err(error) => return ledger.breaks(format!("the proxy does not start: {error}")),
    };
    for number in 0..clients {
        let (inner, ledger) = (world.clone(), ledger.clone());
        world.start("client", async move { client(&inner, &ledger, number).await });
    }
    let stop = if early { world.while_up_to(SECOND * 30) } else { SECOND * 24 * 3600 };
    let (sleep, stopping) = (world.sleep(stop), ledger.clone());
    let stopped = async move {
        sleep.await;
        stopping.pages().stopping = true;
    };
    let report = proxy.run(stopped).await;
    if world.seed().is_multiple_of(3) {
        for ended in ledger.oracle.ended() {
            if ended.cause == LOST {
                ledger.breaks(format!("no backend left, and a reply was lost: {ended:?}"));
            }
        }
    }
    // Peers dawdle for seconds at the most: who stands still for longer waits for what never comes.
    for ended in ledger.oracle.ended() {
        if ended.cause.contains("too long") {
            ledger.breaks(format!("connection {} stood still: {ended:?}", ended.conn));
        }
    }
    if let Err(promises) = ledger.oracle.verdict(&report) {
        promises.into_iter().for_each(|promise| ledger.breaks(promise));
    }
}

/// The cause of the end of a client that was cut off.
const LOST: &str = "a reply was lost";

const SECOND: Duration = Duration::from_secs(1);

/// The longest that a peer dawdles.
const DAWDLE: Duration = Duration::from_secs(2);

fn request(client: usize, number: usize) -> String {
    let filler = "x".repeat((client * 7 + number * 13) % 300);
    format!("client {client} request {number} {filler}\n")
}

fn reply(client: usize, number: usize) -> String {
    let filler = "y".repeat((client * 11 + number * 17) % 500);
    format!("reply for client {client} to request {number} {filler}\n")
}

async fn client(world: &World, ledger: &Ledger, me: usize) {
    let delay = world.while_up_to(SECOND * 20);
    world.sleep(delay).await;
    let endpoint = Endpoint::Name { host: format!("client-{me}"), port: 1 };
    let Ok(socket) = net::connect(world, endpoint) else {
        return world.count("client finds nobody");
    };
    let requests = world.roll(12);
    let speech: String = (0..requests).map(|number| request(me, number)).collect();
    let mut talk = Talk::new(speech.into_bytes());
    let (wild, waits) = (world.chance(20), world.chance(50));
    let (mut replies, mut fin) = (0, false);
    loop {
        if wild && world.chance(5) {
            return leave(world, socket, "client");
        }
        let awaits = waits && replies < talk.lines_sent();
        let speaks = !talk.done() && !awaits && world.chance(60);
        if speaks {
            talk.speak(world, &*socket).await;
        } else if talk.done() && !fin && (!waits || replies == requests) {
            fin = true;
            talk.broken |= socket.shutdown_write().is_err();
        } else if let Some(saw_fin) = talk.listen(world, &*socket).await {
            // A client that has nothing on its way is let go when the proxy stops; its next request may cross that.
            let let_go = ledger.pages().stopping && replies <= talk.lines_sent();
            if saw_fin && !(talk.heard.is_empty() && (let_go || (fin && replies == requests))) {
                ledger.breaks(format!(
                    "client {me} saw a clean end after {replies} replies to {requests} requests"
                ));
            }
            world.count(if saw_fin { "client served" } else { "client cut off" });
            break;
        }
        for line in talk.lines() {
            if line != reply(me, replies) {
                ledger.breaks(format!(
                    "client {me} got {line:?} instead of the reply to its request {replies}"
                ));
            }
            replies += 1;
        }
    }
    socket.disarm();
}

async fn backend_lives(world: &World, ledger: &Ledger, socket: Arc<dyn Socket>) {
    let mut talk = Talk::new(Vec::new());
    // In every third run all are well-behaved, so that whatever is lost was lost by the proxy.
    let wild = world.chance(40) && !world.seed().is_multiple_of(3);
    let (slow, hasty) = (world.chance(30), world.chance(30));
    let mut early = None;
    loop {
        if !talk.done() {
            if wild && world.chance(3) {
                // In the middle of a reply.
                return leave(world, socket, "backend");
            }
            talk.speak(world, &*socket).await;
            if talk.broken {
                return;
            }
            continue;
        }
        if wild && world.chance(3) {
            return leave(world, socket, "backend");
        }
        if slow && world.chance(4) {
            let pause = world.while_up_to(DAWDLE);
            world.sleep(pause).await;
        }
        if let Some(clean) = talk.listen(world, &*socket).await {
            if clean && !talk.heard.is_empty() {
                ledger.breaks("a backend saw a clean end in the middle of a request".into());
            }
            break;
        }
        for line in talk.lines() {
            let Some((client, number)) = named(&line) else {
                ledger.breaks(format!("a backend was sent {line:?}, which is no request"));
                continue;
            };
            if line != request(client, number) {
                ledger.breaks(format!("a backend was sent {line:?}, which nobody sent"));
            }
            if early.take() != Some((client, number)) {
                ledger.carries_out(client, number);
                talk.speech.extend_from_slice(reply(client, number).as_bytes());
            }
        }
        // Some answer, by an error above all, before they have the whole request.
        if hasty
            && early.is_none()
            && let Some((client, number)) = named(&String::from_utf8_lossy(&talk.heard))
        {
            world.count("fault: backend answers half a request");
            early = Some((client, number));
            ledger.carries_out(client, number);
            talk.speech.extend_from_slice(reply(client, number).as_bytes());
        }
    }
    socket.disarm();
}

/// Which request a line is, once it has said so.
fn named(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split(' ');
    let (_, client, _, number) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // Without the word behind it, the number may go on.
    words.next()?;
    Some((client.parse().ok()?, number.parse().ok()?))
}

/// What one peer says and hears.
struct Talk {
    speech: Vec<u8>,
    said: usize,
    heard: Vec<u8>,
    broken: bool,
}

impl Talk {
    fn new(speech: Vec<u8>) -> Talk {
        Talk { speech, said: 0, heard: Vec::new(), broken: false }
    }

    /// It has said everything, or cannot say any more.
    fn done(&self) -> bool {
        self.broken || self.said == self.speech.len()
    }

    fn lines_sent(&self) -> usize {
        self.speech[..self.said].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Says a part.
    async fn speak(&mut self, world: &World, socket: &dyn Socket) {
        let most = (self.speech.len() - self.said).min(1 + world.roll(600));
        let part = self.speech[self.said..self.said + most].to_vec();
        let mut chunks = VecDeque::from([Chunk::from(part)]);
        let said = &mut self.said;
        let patience = world.while_up_to(DAWDLE);
        let sending = send_all(socket, &mut chunks, |sent| *said += sent);
        if let Either::A(Err(_)) = race(sending, world.sleep(patience)).await {
            self.broken = true;
        }
    }

    /// Hears a part; at the end of the stream, whether that was a clean one.
    async fn listen(&mut self, world: &World, socket: &dyn Socket) -> Option<bool> {
        let patience = world.while_up_to(DAWDLE);
        match race(recv(socket), world.sleep(patience)).await {
            Either::A(Ok(Some(chunk))) => {
                self.heard.extend_from_slice(&chunk);
                None
            }
            Either::A(Ok(None)) => Some(true),
            Either::A(Err(_)) => Some(false),
            Either::B(()) => None,
        }
    }

    /// The lines that are complete.
    fn lines(&mut self) -> Vec<String> {
        let Some(end) = self.heard.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let complete: Vec<u8> = self.heard.drain(..=end).collect();
        let text = String::from_utf8_lossy(&complete).into_owned();
        text.split_inclusive('\n').map(str::to_string).collect()
    }
}

fn leave(world: &World, socket: Arc<dyn Socket>, who: &str) {
    if world.chance(50) {
        world.count(&format!("fault: {who} closes"));
        socket.disarm();
    } else {
        world.count(&format!("fault: {who} resets"));
    }
}
