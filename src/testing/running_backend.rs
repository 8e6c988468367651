//! Fake backends that serve: on a real socket, or in memory behind the `Connect` seam.

use super::behaviours::Behaviour;
use super::deadline::{DEADLINE, late, within};
use super::memory::pair_reading;
use super::{Peer, Seen};
use crate::actor::{self, Running};
use crate::net;
use crate::runtime::{AsyncStd, Either, Listen, Listening, Options, Runtime, race};
use crate::socket::{Buffers, Socket};
use crate::{Boxed, Connect, Endpoint};
use async_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A fake backend that serves. Dropping it stops it: its connections are reset, and nobody can connect any more.
pub struct RunningBackend {
    endpoint: Endpoint,
    count: Arc<AtomicUsize>,
    seen: Receiver<Seen>,
    peers: Receiver<Peer>,
    /// Never sent on; dropping it stops all that runs.
    stop: Sender<Infallible>,
    serving: Option<Running<()>>,
    memory: Option<MemoryConnect>,
    /// A port on which nobody listens.
    _held: Option<socket2::Socket>,
}

impl RunningBackend {
    pub(super) fn listening(part: Part, endpoint: &Endpoint) -> io::Result<RunningBackend> {
        if matches!(part, Part::Refuse) {
            return hold_closed_port(endpoint);
        }
        let socket = Options {
            keepalive: None,
            buffers: Buffers::new(part.reads(), 16),
            io: crate::Io::Auto,
        };
        let options = Listening { socket, backlog: 1024, unix_mode: None, dual_stack: false };
        let listener = net::Listener::bind(endpoint, &options, net::Watcher::Reactor)?;
        let endpoint = listener.endpoint().clone();
        let (stage, mut running) = Stage::open(part, endpoint);
        let serving = serve(listener, stage);
        running.serving = Some(actor::spawn(&AsyncStd, "fake_backend", None, serving));
        Ok(running)
    }

    pub(super) fn in_memory(
        part: Part,
        endpoint: Endpoint,
        capacity: usize,
        reads: usize,
    ) -> RunningBackend {
        let (stage, mut running) = Stage::open(part, endpoint);
        running.memory = Some(MemoryConnect { stage: Arc::new(stage), capacity, reads });
        running
    }

    /// Where it listens, for [`Proxy::builder`](crate::Proxy::builder) or a command line.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If that is a unix path, or in memory.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match &self.endpoint {
            Endpoint::Ip(address) => *address,
            other => panic!("the fake backend {other} has no IP address; ask for its endpoint"),
        }
    }

    /// How to reach it in memory, for [`Builder::connect`](crate::Builder::connect). All backends lead here.
    ///
    /// ```
    /// use trunkline::{Connect, testing::{FakeBackend, Peer, block_on}};
    ///
    /// let backend = FakeBackend::babble("220 ready\r\n").in_memory();
    /// let connect = backend.connect();
    /// block_on(async {
    ///     let socket = connect.connect(backend.endpoint()).await.expect("it accepts");
    ///     assert_eq!(Peer::new("client", socket).recv_exact(11).await, b"220 ready\r\n");
    /// });
    /// ```
    ///
    /// # Panics
    /// If it is not in memory.
    #[track_caller]
    pub fn connect(&self) -> MemoryConnect {
        match &self.memory {
            Some(memory) => memory.clone(),
            None => panic!("the fake backend {} is on a socket; connect to that", self.endpoint),
        }
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The outcome of the next connection that is over.
    ///
    /// # Panics
    /// If none ends in time, or a [`Script`](super::behaviours::Script) was not met.
    #[track_caller]
    pub fn seen(&self) -> impl Future<Output = Seen> + Send + '_ {
        let place = Location::caller();
        async move {
            let seen = self.wait(&self.seen, "a connection to end", place).await;
            seen.met(&format!("backend {}", self.endpoint), place)
        }
    }

    /// The next connection of a backend that is [by hand](crate::testing::FakeBackend::by_hand).
    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = Peer> + Send + '_ {
        self.wait(&self.peers, "a connection to come", Location::caller())
    }

    async fn wait<T>(&self, from: &Receiver<T>, what: &str, place: &Location<'_>) -> T {
        // An error cannot be: the other end lives as long as the backend. It would end here, late.
        if let Some(Ok(value)) = within(Some(DEADLINE), from.recv()).await {
            return value;
        }
        let state = format!("{} had come in all", self.accepted());
        late(&format!("backend {}", self.endpoint), what, place, state)
    }

    /// Stops it, and returns when its port is closed. Its connections are reset.
    pub async fn stop(mut self) {
        self.stop.close();
        if let Some(serving) = self.serving.take() {
            serving.cancel().await;
        }
    }
}

impl Drop for RunningBackend {
    fn drop(&mut self) {
        // A `MemoryConnect` may outlive this; it finds the channel closed.
        self.stop.close();
    }
}

/// What a backend does with whoever connects.
pub(super) enum Part {
    Behave(Arc<dyn Behaviour>),
    HandOver,
    Refuse,
}

impl Part {
    fn reads(&self) -> usize {
        match self {
            Part::Behave(behaviour) => behaviour.reads(),
            Part::HandOver | Part::Refuse => 16 << 10,
        }
    }
}

/// What the connections of a backend have in common.
struct Stage {
    part: Part,
    name: String,
    count: Arc<AtomicUsize>,
    seen: Sender<Seen>,
    peers: Sender<Peer>,
    stopped: Receiver<Infallible>,
}

impl Stage {
    /// Outcomes and connections that wait for the test; more are forgotten.
    const WAITING: usize = 4096;

    fn open(part: Part, endpoint: Endpoint) -> (Stage, RunningBackend) {
        let (seen, to_see) = async_channel::bounded(Stage::WAITING);
        let (peers, to_accept) = async_channel::bounded(Stage::WAITING);
        let (stop, stopped) = async_channel::bounded(1);
        let count = Arc::new(AtomicUsize::new(0));
        let name = endpoint.to_string();
        let running = RunningBackend {
            endpoint,
            count: Arc::clone(&count),
            seen: to_see,
            peers: to_accept,
            stop,
            serving: None,
            memory: None,
            _held: None,
        };
        (Stage { part, name, count, seen, peers, stopped }, running)
    }

    /// Plays its part on a connection, in a task of its own.
    fn play(&self, socket: Arc<dyn Socket>) {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let peer = Peer::new(format!("connection {number} of backend {}", self.name), socket);
        match &self.part {
            Part::Refuse => {}
            Part::HandOver => {
                // Full: the test does not take them. The peer is dropped, and so reset.
                let _ = self.peers.try_send(peer);
            }
            Part::Behave(behaviour) => {
                let behaviour = Arc::clone(behaviour);
                let (seen, stopped) = (self.seen.clone(), self.stopped.clone());
                let playing = async move {
                    let run = behaviour.run(peer.patience(None));
                    if let Either::A(outcome) = race(run, stopped.recv()).await {
                        // Full: the test does not ask.
                        let _ = seen.try_send(outcome);
                    }
                };
                actor::spawn(&AsyncStd, "fake_backend", None, playing).detach();
            }
        }
    }
}

async fn serve(listener: net::Listener, stage: Stage) {
    loop {
        match listener.try_accept() {
            Ok((socket, _)) => stage.play(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // An error here comes back from accepting.
                let _ = poll_fn(|cx| listener.poll_waiting(cx)).await;
            }
            // Out of file descriptors, say: a real backend waits too.
            Err(_) => AsyncStd.sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A socket that is bound and does not listen refuses, and keeps its port from everybody else.
fn hold_closed_port(endpoint: &Endpoint) -> io::Result<RunningBackend> {
    let Endpoint::Ip(address) = endpoint else {
        // On a unix path, what does not exist refuses.
        return Ok(Stage::open(Part::Refuse, endpoint.clone()).1);
    };
    let domain = socket2::Domain::for_address(*address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&(*address).into())?;
    let local = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
    let (_, mut running) = Stage::open(Part::Refuse, local.into());
    running._held = Some(socket);
    Ok(running)
}

/// The way to a fake backend in memory. Cheap to clone.
#[derive(Clone)]
pub struct MemoryConnect {
    stage: Arc<Stage>,
    capacity: usize,
    reads: usize,
}

impl Connect for MemoryConnect {
    fn connect<'a>(&'a self, _place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async {
            if matches!(self.stage.part, Part::Refuse) || self.stage.stopped.is_closed() {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            let reads = [self.reads, self.stage.part.reads()];
            let (ours, theirs) = pair_reading(self.capacity, reads);
            self.stage.play(theirs);
            Ok(ours)
        })
    }
}
