//! The proxy as a whole: built, bound, run, drained.

use crate::actor::{self, Running};
use crate::connect::{Backends, Dial};
use crate::directory::{self, Directory};
use crate::events::Silent;
use crate::framing::Framing;
use crate::ids::ConnIds;
use crate::listener::{self, Listener};
use crate::mailbox::{Address, mailbox};
use crate::pool::{self, Pool, PoolConfig, Pooling};
use crate::reporter::{self, Reporter};
use crate::runtime::{self, Listen, Listening, Options, Runtime, timeout};
use crate::slots::Slots;
use crate::socket::Buffers;
use crate::tunnel::Detour;
use crate::{By, Config, ConnId, Connect, Endpoint, Error, Events, Listed, Report};
use async_channel::Sender;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A proxy that is being set up. Made by [`Proxy::builder`].
pub struct Builder {
    config: Config,
    events: Arc<dyn Events>,
    connect: Option<Arc<dyn Connect>>,
    /// The real one, unless a test has another.
    runtime: Option<Arc<dyn Runtime>>,
    detour: Option<Arc<dyn Detour>>,
    dual_stack: bool,
    inherited: Vec<OwnedFd>,
    pool: Option<(Arc<dyn Framing>, PoolConfig)>,
}

/// A proxy that listens, and accepts nobody yet: the kernel keeps early clients waiting.
pub struct Proxy {
    listening: Vec<Box<dyn Listen>>,
    endpoints: Vec<Endpoint>,
    route: Arc<Route>,
    pooling: Option<Pooling>,
    directory: Directory,
    address: Address<directory::Message>,
}

/// Looks into a running proxy, and ends connections. Cheap to clone; outlives the proxy without harm.
#[derive(Clone)]
pub struct Handle {
    directory: Address<directory::Message>,
}

/// What all actors of a proxy are given, and none changes.
pub(crate) struct Route {
    pub(crate) config: Config,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) backends: Backends,
    pub(crate) ids: ConnIds,
    pub(crate) options: Options,
    pub(crate) detour: Option<Arc<dyn Detour>>,
    /// Clients share trunks; without it each has a backend connection of its own.
    pub(crate) pool: Option<Pool>,
}

impl Proxy {
    /// Starts from the default [`Config`].
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
            events: Arc::new(Silent),
            connect: None,
            runtime: None,
            detour: None,
            dual_stack: false,
            inherited: Vec::new(),
            pool: None,
        }
    }

    /// Where it listens, with the ports that the system chose for port 0.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The sockets on which it listens, for another process to accept on ([`Builder::inherit`]): no client is refused while
    /// any process has them.
    ///
    /// # Errors
    /// What the system says: no file descriptor is left, above all.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.listening.iter().map(|socket| socket.share()).collect()
    }

    /// For looking in while [`run`](Proxy::run) has the proxy.
    pub fn handle(&self) -> Handle {
        Handle { directory: self.address.clone() }
    }

    /// Carries connections until `shutdown` is ready, then stops accepting, lets the connections end by themselves for
    /// up to [`Config::drain_timeout`], aborts the rest, and returns the totals.
    ///
    /// Dropping the returned future aborts everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Report {
        let Proxy { listening, endpoints, route, pooling, directory, address } = self;
        let runtime = &*route.runtime;
        let handle = Handle { directory: address };
        route.events.on_start(&endpoints);
        let directory = actor::spawn(runtime, directory::NAME, None, directory.run());
        let pool = pooling.map(|pooling| {
            actor::spawn(runtime, pool::NAME, None, pooling.run(Arc::clone(&route)))
        });
        let reporter = route.config.report.map(|every| {
            let reporter =
                Reporter { every, directory: handle.directory.clone(), route: Arc::clone(&route) };
            actor::spawn(runtime, reporter::NAME, None, reporter.run())
        });
        let slots = Slots::new(route.config.max_conn);
        let (stops, listeners): (Vec<_>, Vec<_>) =
            listening.into_iter().map(|socket| handle.listen(socket, &slots, &route)).unzip();

        shutdown.await;

        // Before the listeners end, for an abort that comes next must reach the last clients that they take in.
        handle.start_drain().await;
        // A listener that is waiting sees its mailbox close, and closes its socket.
        drop(stops);
        for listener in listeners {
            // A panic was logged, and that listener has ended too.
            let _ = listener.await;
        }
        handle.drain(&route).await;
        if let Some(reporter) = reporter {
            reporter.cancel().await;
        }
        if let (Some(running), Some(pool)) = (pool, &route.pool) {
            pool.stop().await;
            // A panic was logged.
            let _ = running.await;
        }
        let report = handle.report().await.unwrap_or_default();
        directory.cancel().await;
        route.events.on_shutdown();
        report
    }
}

impl Handle {
    /// The connections that are carried now, oldest first; none once the proxy has ended.
    pub async fn list(&self) -> Vec<Listed> {
        let list = ask(&self.directory, |reply| directory::Message::List { reply }).await;
        list.unwrap_or_default()
    }

    /// Aborts a connection; false if there is none of that id.
    pub async fn end(&self, conn: ConnId) -> bool {
        let found = ask(&self.directory, |reply| directory::Message::End { conn, reply }).await;
        found.unwrap_or(false)
    }

    /// Aborts all connections. While the proxy drains, this ends the drain.
    pub async fn abort(&self) {
        let all = directory::Message::EndAll { by: By::Proxy, cause: "aborted by order" };
        // Gone means that there is nothing left to abort.
        let _ = self.directory.send(all).await;
    }

    /// The totals; `None` once the proxy has ended.
    pub async fn report(&self) -> Option<Report> {
        ask(&self.directory, |reply| directory::Message::Report { reply }).await
    }

    fn listen(
        &self,
        socket: Box<dyn Listen>,
        slots: &Slots,
        route: &Arc<Route>,
    ) -> (Address<listener::Message>, Running<()>) {
        let (stop, stopped) = mailbox(1);
        let listener = Listener {
            socket,
            stop: stopped,
            slots: slots.clone(),
            directory: self.directory.clone(),
            route: Arc::clone(route),
        };
        let running = actor::spawn(&*route.runtime, listener::NAME, None, listener.run());
        (stop, running)
    }

    async fn start_drain(&self) {
        // Gone cannot be: the directory runs until it is cancelled, at the end of `run`.
        let _ = self.directory.send(directory::Message::Drain).await;
    }

    /// Waits until every connection is over; after the drain timeout, aborts those that are not.
    async fn drain(&self, route: &Route) {
        let runtime = &*route.runtime;
        if timeout(runtime, route.config.drain_timeout, self.empty()).await.is_none() {
            let all = directory::Message::EndAll {
                by: By::Timeout,
                cause: "not finished within the drain timeout",
            };
            let _ = self.directory.send(all).await;
            self.empty().await;
        }
    }

    async fn empty(&self) {
        let _ = ask(&self.directory, |reply| directory::Message::Empty { reply }).await;
    }
}

/// Sends a question with the place for its answer, and waits; `None` if the asked has ended.
pub(crate) async fn ask<M, T>(
    address: &Address<M>,
    question: impl FnOnce(Sender<T>) -> M,
) -> Option<T> {
    let (reply, answer) = async_channel::bounded(1);
    address.send(question(reply)).await.ok()?;
    answer.recv().await.ok()
}

impl Builder {
    /// Takes all settings from `config`.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Changes settings in place.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Listens here, and on nothing else.
    #[must_use]
    pub fn listen(self, endpoint: impl Into<Endpoint>) -> Self {
        let endpoint = endpoint.into();
        self.with(|config| config.listen = vec![endpoint])
    }

    /// Connects clients to this backend, and to no other.
    #[must_use]
    pub fn backend(self, endpoint: impl Into<Endpoint>) -> Self {
        let endpoint = endpoint.into();
        self.with(|config| config.backends = vec![endpoint])
    }

    /// Lets clients share a few backend connections (n:1): each for one request at a time, or at the same time.
    #[must_use]
    pub fn pool(mut self, framing: impl Framing, config: PoolConfig) -> Self {
        self.pool = Some((Arc::new(framing), config));
        self
    }

    /// Tells these callbacks what happens.
    #[must_use]
    pub fn events(mut self, events: impl Events) -> Self {
        self.events = Arc::new(events);
        self
    }

    /// Reaches backends in another way than by a socket of this machine.
    #[must_use]
    pub fn connect(mut self, connect: impl Connect) -> Self {
        self.connect = Some(Arc::new(connect));
        self
    }

    /// Runs in another world than the real one: the harness's, in memory.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Leads every direction of every connection another way: through toxics.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn detour(mut self, detour: Arc<dyn Detour>) -> Self {
        self.detour = Some(detour);
        self
    }

    /// `[::]` takes IPv4 clients as well, as it does in Go.
    #[cfg(feature = "testing")]
    pub(crate) fn dual_stack(mut self) -> Self {
        self.dual_stack = true;
        self
    }

    /// Accepts on these sockets, which listen already, instead of listening where [`Config::listen`] says: they come from
    /// [`Proxy::sockets`] of another process, or from a service manager.
    pub fn inherit(mut self, sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.inherited.extend(sockets);
        self
    }

    /// Checks the settings and listens. From here on the kernel accepts clients; they are served by [`Proxy::run`].
    ///
    /// # Errors
    /// [`Error::Config`] for settings that make no sense, [`Error::Listen`] for an address that cannot be had,
    /// [`Error::Inherited`] for an inherited socket that does not listen.
    pub async fn bind(self) -> Result<Proxy, Error> {
        let Builder { config, events, connect, runtime, detour, dual_stack, inherited, pool } =
            self;
        config.check().map_err(Error::Config)?;
        if let Some((framing, pool)) = &pool {
            pool.check(&**framing).map_err(Error::Config)?;
        }
        let runtime = runtime.unwrap_or_else(|| runtime::real(config.io));
        let options = Options {
            keepalive: config.keepalive,
            buffers: Buffers::new(config.limits.chunk, config.limits.spare),
            io: config.io,
        };
        let connect = connect.unwrap_or_else(|| {
            Arc::new(Dial { runtime: Arc::clone(&runtime), options: options.clone() })
        });
        let (list, timeout) = (config.backends.clone(), config.connect_timeout);
        let (pool, pooling) =
            pool.map(|(framing, config)| pool::pool(framing, config, Arc::clone(&runtime))).unzip();
        let route = Arc::new(Route {
            backends: Backends::new(Arc::clone(&runtime), connect, list, timeout),
            config,
            events,
            runtime,
            ids: ConnIds::default(),
            options,
            detour,
            pool,
        });
        let options = Listening {
            socket: route.options.clone(),
            backlog: route.config.backlog,
            unix_mode: route.config.unix_mode,
            dual_stack,
        };
        let adopt = |socket| route.runtime.adopt(socket, &options).map_err(Error::Inherited);
        let adopted = !inherited.is_empty();
        let mut listening: Vec<_> = inherited.into_iter().map(adopt).collect::<Result<_, _>>()?;
        for endpoint in route.config.listen.iter().filter(|_| !adopted) {
            listening.extend(
                listen(endpoint, &route, &options)
                    .await
                    .map_err(|source| Error::Listen { endpoint: endpoint.clone(), source })?,
            );
        }
        let (address, mailbox) = mailbox(directory::MAILBOX);
        Ok(Proxy {
            endpoints: listening.iter().map(|socket| socket.endpoint().clone()).collect(),
            listening,
            pooling,
            directory: Directory::new(mailbox, Arc::clone(&route)),
            route,
            address,
        })
    }

    /// [`bind`](Builder::bind), then [`run`](Proxy::run).
    ///
    /// # Errors
    /// Those of `bind`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Report, Error> {
        Ok(self.bind().await?.run(shutdown).await)
    }
}

/// Listens on every address of an endpoint: a name may have several.
async fn listen(
    endpoint: &Endpoint,
    route: &Route,
    options: &Listening,
) -> io::Result<Vec<Box<dyn Listen>>> {
    let places = match endpoint {
        Endpoint::Name { host, port } => {
            let found = route.runtime.resolve(host, *port).await?;
            found.into_iter().map(Endpoint::Ip).collect()
        }
        place => vec![place.clone()],
    };
    places.iter().map(|place| route.runtime.listen(place, options)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeBackend, FakeClient};
    use futures_lite::future::{block_on, or, pending, poll_once, zip};
    use std::net::SocketAddr;

    fn local() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn settings_that_make_no_sense_bind_nothing() {
        let error = block_on(Proxy::builder().with(|config| config.max_conn = 0).bind()).err();
        assert!(matches!(error, Some(Error::Config(text)) if text.contains("max-conn")));
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let held = std::net::TcpListener::bind(local()).expect("a free port");
        let address = held.local_addr().expect("bound");
        let error = block_on(Proxy::builder().listen(address).bind()).err().expect("it is taken");
        let expected = format!("cannot listen on {address}: address already in use");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn it_listens_on_several_addresses_and_says_on_which() {
        let two = vec![Endpoint::Ip(local()), Endpoint::Ip(local())];
        let backend = FakeBackend::babble("x").listen();
        block_on(async {
            let builder = Proxy::builder().with(|config| config.listen = two);
            let proxy = builder.backend(backend.address()).bind().await.expect("free ports");
            let endpoints = proxy.endpoints().to_vec();
            assert_eq!(endpoints.len(), 2);
            assert_ne!(endpoints[0], endpoints[1]);
            let visits = async {
                for endpoint in endpoints {
                    assert_eq!(FakeClient::connect(endpoint).await.recv_exact(1).await, b"x");
                }
            };
            let running = async {
                let _ = proxy.run(pending()).await;
            };
            or(running, visits).await;
        });
    }

    #[test]
    fn a_client_that_comes_before_run_is_served_by_it() {
        let backend = FakeBackend::echo().listen();
        block_on(async {
            let builder = Proxy::builder().listen(local()).backend(backend.address());
            let proxy = builder.bind().await.expect("a free port");
            let mut client = FakeClient::connect(proxy.endpoints()[0].clone()).await;
            client.send(b"early").await;
            client.fin();
            // Its backlog is taken in though it is told to stop from the start.
            let (report, seen) = zip(proxy.run(async {}), client.recv_to_end()).await;
            assert_eq!((&seen.bytes[..], report.clean), (&b"early"[..], 1));
        });
    }

    #[test]
    fn a_handle_outlives_its_proxy_without_harm() {
        block_on(async {
            let proxy = Proxy::builder().listen(local()).bind().await.expect("a free port");
            let handle = proxy.handle();
            proxy.run(async {}).await;
            assert_eq!(handle.list().await, []);
            assert_eq!(handle.report().await, None);
            assert!(!handle.end(ConnId::from(1)).await);
            handle.abort().await;
        });
    }

    #[test]
    fn a_handle_that_asks_before_run_is_answered_by_it() {
        block_on(async {
            let proxy = Proxy::builder().listen(local()).bind().await.expect("a free port");
            let handle = proxy.handle();
            let mut early = Box::pin(handle.report());
            assert!(poll_once(&mut early).await.is_none());
            let report = or(async { Some(proxy.run(pending()).await) }, early).await;
            assert_eq!(report, Some(Report::default()));
        });
    }
}
