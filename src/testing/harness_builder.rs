//! What a harness is made of.

use super::memory::door::{Door, Indoors};
use super::witness::Witness;
use super::{FakeBackend, Harness, MemoryConnect, Oracle, RunningBackend, block_on};
use crate::framing::Framing;
use crate::socket::Socket;
use crate::{Boxed, Config, Connect, Endpoint, Events, PoolConfig, Proxy};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

/// Sets a [`Harness`] up. Made by [`Harness::builder`].
pub struct HarnessBuilder {
    config: Config,
    backends: Vec<FakeBackend>,
    events: Vec<Box<dyn Events>>,
    connect: Option<Box<dyn Connect>>,
    pool: Option<(Box<dyn Framing>, PoolConfig)>,
    world: World,
}

enum World {
    Sockets,
    Memory { capacity: usize },
    MemoryBackends { capacity: usize },
}

/// What a connection in memory holds each way, unless the test says otherwise.
const CAPACITY: usize = 64 << 10;

impl HarnessBuilder {
    /// See [`Harness::builder`].
    pub(super) fn new() -> HarnessBuilder {
        let listen = vec![Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))];
        let config = Config { listen, backends: Vec::new(), ..Config::default() };
        HarnessBuilder {
            config,
            backends: Vec::new(),
            events: Vec::new(),
            connect: None,
            pool: None,
            world: World::Sockets,
        }
    }

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

    /// Lets the clients share trunks.
    #[must_use]
    pub fn pool(mut self, framing: impl Framing, config: PoolConfig) -> Self {
        self.pool = Some((Box::new(framing), config));
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
        let HarnessBuilder { mut config, backends, events, connect, world, pool } = self;
        let (ended_sender, ended) = async_channel::bounded(Harness::WAITING);
        let oracle = Oracle::default();
        let mut others: Vec<Box<dyn Events>> = vec![Box::new(oracle.clone())];
        others.extend(events);
        let builder = Proxy::builder().events(Witness { ended: ended_sender, others });
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
        let builder = match pool {
            Some((framing, config)) => builder.pool(framing, config),
            None => builder,
        };
        let builder = match connect {
            Some(connect) => builder.connect(Own(connect)),
            None => builder,
        };
        config.backends.extend(running.iter().map(|backend| backend.endpoint().clone()));
        let bound = block_on(builder.config(config).bind());
        let proxy = bound.unwrap_or_else(|error| panic!("the harness cannot start: {error}"));
        Harness::launch(proxy, running, ended, oracle, door)
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
