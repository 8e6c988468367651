//! A whole proxy between fake peers.

use super::backend::{FakeBackend, MemoryConnect, RunningBackend};
use super::behaviours::Behaviour;
use super::client;
use super::deadline::{DEADLINE, late, within};
use super::memory::door::{Door, Indoors};
use super::witness::Witness;
use super::{FakeClient, Peer, Seen, block_on};
use crate::runtime::{Either, race};
use crate::socket::Socket;
use crate::{Boxed, Config, Connect, Ended, Endpoint, Events, Handle, Proxy, Report};
use async_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A proxy that runs on a thread of its own, between clients and backends of the test.
///
/// ```
/// use trunkline::testing::{FakeBackend, Harness, block_on};
///
/// for builder in [Harness::builder().over_sockets(), Harness::builder().in_memory()] {
///     let harness = builder.backend(FakeBackend::echo()).start();
///     block_on(async {
///         let mut client = harness.client().await;
///         client.send(b"hello").await;
///         assert_eq!(client.recv_exact(5).await, b"hello");
///         client.fin();
///         assert!(client.recv().await.is_none());
///         client.close();
///         assert!(harness.ended().await.clean);
///         assert_eq!(harness.stop().await.to_client, 5);
///     });
/// }
/// ```
pub struct Harness {
    endpoints: Vec<Endpoint>,
    handle: Handle,
    backends: Vec<RunningBackend>,
    ended: Receiver<Ended>,
    door: Option<Door>,
    clients: AtomicU64,
    /// Never sent on. Closing it, or closing `abort`, ends the proxy: by a drain, or at once.
    shutdown: Sender<Infallible>,
    abort: Sender<Infallible>,
    report: Receiver<Report>,
}

/// Sets a [`Harness`] up. Made by [`Harness::builder`].
pub struct HarnessBuilder {
    config: Config,
    backends: Vec<FakeBackend>,
    events: Vec<Box<dyn Events>>,
    connect: Option<Box<dyn Connect>>,
    world: World,
}

enum World {
    Sockets,
    Memory { capacity: usize },
    MemoryBackends { capacity: usize },
}

/// What a connection in memory holds each way, unless the test says otherwise.
const CAPACITY: usize = 64 << 10;

impl Harness {
    /// Ends that wait for the test to ask; more are forgotten.
    const WAITING: usize = 4096;

    /// One listener on a free port, over sockets, without a backend yet.
    pub fn builder() -> HarnessBuilder {
        let listen = vec![Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))];
        let config = Config { listen, backends: Vec::new(), ..Config::default() };
        HarnessBuilder {
            config,
            backends: Vec::new(),
            events: Vec::new(),
            connect: None,
            world: World::Sockets,
        }
    }

    /// Where clients connect.
    ///
    /// # Panics
    /// If that is a unix path, or the harness is in memory.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match &self.endpoints[0] {
            Endpoint::Ip(address) if self.door.is_none() => *address,
            other => panic!("the harness listens on {other}, not on an address; ask for a client"),
        }
    }

    /// Everything that it listens on.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Looks into the proxy.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The backend that was named first, second, ...
    ///
    /// # Panics
    /// If there are not so many.
    #[track_caller]
    pub fn backend(&self, place: usize) -> &RunningBackend {
        &self.backends[place]
    }

    /// Connects a client to the first address.
    #[track_caller]
    pub fn client(&self) -> impl Future<Output = Peer> + Send + '_ {
        let place = Location::caller();
        async move { self.connect(place, 16 << 10).await }
    }

    /// Connects a client that behaves like this to the end, and says what came.
    #[track_caller]
    pub fn run<'a>(
        &'a self,
        behaviour: &'a dyn Behaviour,
    ) -> impl Future<Output = Seen> + Send + 'a {
        let place = Location::caller();
        async move {
            if self.door.is_none() {
                return FakeClient::run(self.endpoints[0].clone(), behaviour).await;
            }
            client::run(behaviour, self.connect(place, behaviour.reads()).await, place).await
        }
    }

    async fn connect(&self, place: &Location<'_>, reads: usize) -> Peer {
        let Some(door) = &self.door else {
            return FakeClient::connect(self.endpoints[0].clone()).await;
        };
        let number = self.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let who = Endpoint::Name { host: format!("client-{number}"), port: 1 };
        let socket = door.connect(who.clone(), reads);
        let socket =
            socket.unwrap_or_else(|error| panic!("{who} cannot connect at {place}: {error}"));
        Peer::new(who.to_string(), socket)
    }

    /// The next connection that ended, behind the test's own `on_close`.
    #[track_caller]
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + '_ {
        let place = Location::caller();
        async move {
            match within(Some(DEADLINE), self.ended.recv()).await {
                Some(Ok(ended)) => ended,
                _ => {
                    let open = within(Some(DEADLINE), self.handle.list()).await;
                    late("the test", "a connection to end", place, format!("open are {open:?}"))
                }
            }
        }
    }

    /// Tells the proxy to stop, waits for the drain, and gives its totals. The backends go on until the harness is
    /// dropped.
    #[track_caller]
    pub fn stop(&self) -> impl Future<Output = Report> + Send + '_ {
        let place = Location::caller();
        self.shutdown.close();
        async move {
            match within(Some(DEADLINE), self.report.recv()).await {
                Some(Ok(report)) => report,
                Some(Err(_)) => panic!("the proxy panicked, or was stopped twice, at {place}"),
                None => {
                    let open = within(Some(DEADLINE), self.handle.list()).await;
                    late("the test", "the proxy to stop", place, format!("open are {open:?}"))
                }
            }
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        // The thread drops the proxy, which aborts everything. Nobody waits for it: this may be a panic's unwinding.
        self.abort.close();
    }
}

impl HarnessBuilder {
    /// Adds a backend.
    #[must_use]
    pub fn backend(mut self, backend: FakeBackend) -> Self {
        self.backends.push(backend);
        self
    }

    /// Real sockets on this machine; the default.
    #[must_use]
    pub fn over_sockets(mut self) -> Self {
        self.world = World::Sockets;
        self
    }

    /// No socket at all, neither for clients nor for backends. Each connection holds 64 KiB each way.
    #[must_use]
    pub fn in_memory(self) -> Self {
        self.in_memory_holding(CAPACITY)
    }

    /// The same, with room for `capacity` bytes each way.
    #[must_use]
    pub fn in_memory_holding(mut self, capacity: usize) -> Self {
        self.world = World::Memory { capacity };
        self
    }

    /// Clients over sockets, and backends in memory.
    #[must_use]
    pub fn backends_in_memory(mut self) -> Self {
        self.world = World::MemoryBackends { capacity: CAPACITY };
        self
    }

    /// Changes the proxy's settings. Backends are added to those that are named here.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Tells these callbacks too.
    #[must_use]
    pub fn events(mut self, events: impl Events) -> Self {
        self.events.push(Box::new(events));
        self
    }

    /// Reaches the backends in the test's own way. It must know those of the harness too, if there are any.
    #[must_use]
    pub fn connect(mut self, connect: impl Connect) -> Self {
        self.connect = Some(Box::new(connect));
        self
    }

    /// Starts the backends and the proxy.
    ///
    /// # Panics
    /// If the settings make no sense, or nothing can be listened on.
    #[track_caller]
    pub fn start(self) -> Harness {
        let HarnessBuilder { mut config, backends, events, connect, world } = self;
        let (ended_sender, ended) = async_channel::bounded(Harness::WAITING);
        let builder = Proxy::builder().events(Witness { ended: ended_sender, others: events });
        let reads = config.limits.chunk;
        let running = start_backends(backends, &world, reads);
        let (door, builder) = match world {
            World::Sockets => (None, builder),
            World::MemoryBackends { .. } => (None, builder.connect(Ways::to(&running))),
            World::Memory { capacity } => {
                let door = Door::new(capacity, reads);
                let runtime = Arc::new(Indoors(door.clone()));
                (Some(door), builder.connect(Ways::to(&running)).runtime(runtime))
            }
        };
        let builder = match connect {
            Some(connect) => builder.connect(Own(connect)),
            None => builder,
        };
        config.backends.extend(running.iter().map(|backend| backend.endpoint().clone()));
        let bound = block_on(builder.config(config).bind());
        let proxy = bound.unwrap_or_else(|error| panic!("the harness cannot start: {error}"));
        let (shutdown, shut) = async_channel::bounded(1);
        let (abort, aborted) = async_channel::bounded(1);
        let (report_sender, report) = async_channel::bounded(1);
        let harness = Harness {
            endpoints: proxy.endpoints().to_vec(),
            handle: proxy.handle(),
            backends: running,
            ended,
            door,
            clients: AtomicU64::new(0),
            shutdown,
            abort,
            report,
        };
        thread::spawn(move || {
            block_on(run(proxy, shut, aborted, report_sender));
        });
        harness
    }
}

fn start_backends(backends: Vec<FakeBackend>, world: &World, reads: usize) -> Vec<RunningBackend> {
    let (World::Memory { capacity } | World::MemoryBackends { capacity }) = *world else {
        return backends.into_iter().map(FakeBackend::listen).collect();
    };
    let start = |(number, backend): (usize, FakeBackend)| {
        backend.capacity(capacity).proxy_reads(reads).in_memory_as(&format!("backend-{number}"))
    };
    (1..).zip(backends).map(start).collect()
}

async fn run(
    proxy: Proxy,
    shutdown: Receiver<Infallible>,
    abort: Receiver<Infallible>,
    report: Sender<Report>,
) {
    let running = proxy.run(async {
        // Nothing is ever sent: this is ready when the channel closes.
        let _ = shutdown.recv().await;
    });
    let aborted = async {
        let _ = abort.recv().await;
    };
    if let Either::A(totals) = race(running, aborted).await {
        // Closed: the harness has been dropped meanwhile.
        let _ = report.try_send(totals);
    }
}

/// The way of the test itself.
struct Own(Box<dyn Connect>);

impl Connect for Own {
    fn resolve<'a>(&'a self, backend: &'a Endpoint) -> Boxed<'a, io::Result<Vec<Endpoint>>> {
        self.0.resolve(backend)
    }

    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        self.0.connect(place)
    }
}

/// The ways to several backends in memory.
struct Ways(Vec<(Endpoint, MemoryConnect)>);

impl Ways {
    fn to(backends: &[RunningBackend]) -> Ways {
        let way = |backend: &RunningBackend| (backend.endpoint().clone(), backend.connect());
        Ways(backends.iter().map(way).collect())
    }
}

impl Connect for Ways {
    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        match self.0.iter().find(|(endpoint, _)| endpoint == place) {
            Some((_, way)) => way.connect(place),
            None => Box::pin(async { Err(ErrorKind::AddrNotAvailable.into()) }),
        }
    }
}
