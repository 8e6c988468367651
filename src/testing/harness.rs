//! A whole proxy between fake peers.

use super::behaviours::Behaviour;
use super::client;
use super::deadline::{DEADLINE, late, within};
use super::memory::door::Door;
use super::{FakeClient, HarnessBuilder, Oracle, Peer, RunningBackend, Seen, block_on};
use crate::runtime::{Either, race};
use crate::{Ended, Endpoint, Handle, Proxy, Report};
use async_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::Location;
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
    oracle: Oracle,
    door: Option<Door>,
    clients: AtomicU64,
    /// Never sent on. Closing it, or closing `abort`, ends the proxy: by a drain, or at once.
    shutdown: Sender<Infallible>,
    abort: Sender<Infallible>,
    report: Receiver<Report>,
}

impl Harness {
    /// Ends that wait for the test to ask; more are forgotten.
    pub(super) const WAITING: usize = 4096;

    /// One listener on a free port, over sockets, without a backend yet.
    pub fn builder() -> HarnessBuilder {
        HarnessBuilder::new()
    }

    /// Runs what the builder has bound.
    pub(super) fn launch(
        proxy: Proxy,
        backends: Vec<RunningBackend>,
        ended: Receiver<Ended>,
        oracle: Oracle,
        door: Option<Door>,
    ) -> Harness {
        let (shutdown, shut) = async_channel::bounded(1);
        let (abort, aborted) = async_channel::bounded(1);
        let (report_sender, report) = async_channel::bounded(1);
        let harness = Harness {
            endpoints: proxy.endpoints().to_vec(),
            handle: proxy.handle(),
            backends,
            ended,
            oracle,
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
    ///
    /// # Panics
    /// If the proxy has broken a promise: see [`Oracle`].
    #[track_caller]
    pub fn stop(&self) -> impl Future<Output = Report> + Send + '_ {
        let place = Location::caller();
        self.shutdown.close();
        async move {
            match within(Some(DEADLINE), self.report.recv()).await {
                Some(Ok(report)) => {
                    let verdict = self.oracle.verdict(&report);
                    assert_eq!(
                        verdict,
                        Ok(()),
                        "the proxy that was stopped at {place} broke its promises"
                    );
                    report
                }
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
