//! How a backend is reached, and which one.

use crate::runtime::{Options, Runtime, timeout};
use crate::socket::Socket;
use crate::units::show_error;
use crate::{Boxed, Endpoint};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How a backend is reached. A test puts a fake backend here, with no socket at all.
///
/// The proxy bounds each call by [`Config::connect_timeout`](crate::Config::connect_timeout) and drops the future then.
pub trait Connect: Send + Sync + 'static {
    /// The places to try for a backend, in order: for a host name, its addresses. By default the backend itself.
    ///
    /// # Errors
    /// Why the name could not be resolved.
    fn resolve<'a>(&'a self, backend: &'a Endpoint) -> Boxed<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async { Ok(vec![backend.clone()]) })
    }

    /// Connects to one of those places.
    ///
    /// # Errors
    /// Why it did not accept. An error of kind `QuotaExceeded`, or the system's EMFILE or ENFILE, says that this
    /// process has no file descriptor left: that is not the backend's fault, and the proxy tries again for ten seconds.
    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>>;
}

/// The real way: by the runtime's sockets.
pub(crate) struct Dial {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: Options,
}

impl Connect for Dial {
    fn resolve<'a>(&'a self, backend: &'a Endpoint) -> Boxed<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async move {
            let Endpoint::Name { host, port } = backend else {
                return Ok(vec![backend.clone()]);
            };
            let found = self.runtime.resolve(host, *port).await?;
            Ok(found.into_iter().map(Endpoint::Ip).collect())
        })
    }

    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        self.runtime.dial(place, &self.options)
    }
}

/// The backends of a proxy, used in turn.
pub(crate) struct Backends {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) list: Vec<Endpoint>,
    pub(crate) timeout: Duration,
    next: AtomicUsize,
    /// The shortage of file descriptors was logged, and has not ended since.
    short: AtomicBool,
}

/// A backend that accepted.
pub(crate) struct Connected {
    pub(crate) backend: Endpoint,
    pub(crate) socket: Arc<dyn Socket>,
}

impl Backends {
    /// How long to wait for a file descriptor before asking again. Each connection that ends frees two.
    const FD_PAUSE: Duration = Duration::from_millis(50);
    /// How long to go on asking. If all that are open wait for one more, none will ever come: some must give up.
    const FD_PATIENCE: Duration = Duration::from_secs(10);

    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        connect: Arc<dyn Connect>,
        list: Vec<Endpoint>,
        timeout: Duration,
    ) -> Self {
        let next = AtomicUsize::new(0);
        Backends { runtime, connect, list, timeout, next, short: AtomicBool::new(false) }
    }

    /// Connects to the backend whose turn it is, or to the next one that accepts.
    ///
    /// Each resolution and each address gets the full timeout, so that a dead address of a name costs the others
    /// nothing. The error names every backend with its cause.
    pub(crate) async fn connect(&self) -> Result<Connected, String> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut causes = Vec::new();
        for turn in 0..self.list.len() {
            let backend = &self.list[start.wrapping_add(turn) % self.list.len()];
            match self.try_backend(backend).await {
                Ok(socket) => {
                    let backend = backend.clone();
                    return Ok(Connected { backend, socket });
                }
                Err(error) => causes.push(format!("{backend}: {}", show_error(&error))),
            }
        }
        Err(causes.join("; "))
    }

    async fn try_backend(&self, backend: &Endpoint) -> io::Result<Arc<dyn Socket>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "timed out");
        let runtime = &*self.runtime;
        let places = timeout(runtime, self.timeout, self.connect.resolve(backend))
            .await
            .unwrap_or_else(|| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "its name was not resolved in time"))
            })?;
        let mut last = io::Error::other("its name has no address");
        for place in &places {
            let mut patience = Self::FD_PATIENCE;
            last = loop {
                let tried = timeout(runtime, self.timeout, self.connect.connect(place)).await;
                match tried.unwrap_or_else(|| Err(late())) {
                    Ok(socket) => {
                        self.short.store(false, Ordering::Relaxed);
                        return Ok(socket);
                    }
                    Err(error) if is_out_of_fds(&error) && !patience.is_zero() => {
                        if !self.short.swap(true, Ordering::Relaxed) {
                            log::warn!(actor = "connect", backend:% = backend; "no file descriptor is left; clients wait until a connection ends");
                        }
                        runtime.sleep(Self::FD_PAUSE).await;
                        patience = patience.saturating_sub(Self::FD_PAUSE);
                    }
                    Err(error) => break error,
                }
            };
        }
        Err(last)
    }
}

/// This process (EMFILE) or machine (ENFILE) has no file descriptor left.
pub(crate) fn is_out_of_fds(error: &io::Error) -> bool {
    const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
    const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || error.kind() == io::ErrorKind::QuotaExceeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::events::Silent;
    use crate::proxy::Route;
    use crate::testing::memory::clock::Clock;
    use crate::testing::pair;
    use async_channel::{Receiver, Sender};
    use futures_lite::future::{block_on, pending, poll_once};
    use std::io::ErrorKind;

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// A world of places, named after what they do.
    struct World {
        tried: Sender<String>,
        /// How often a place without file descriptors still says so.
        short: AtomicUsize,
    }

    impl Connect for World {
        fn resolve<'a>(&'a self, backend: &'a Endpoint) -> Boxed<'a, io::Result<Vec<Endpoint>>> {
            Box::pin(async move {
                match name(backend) {
                    "nowhere" => Err(io::Error::other("no such name")),
                    "nothing" => Ok(Vec::new()),
                    "riddle" => pending().await,
                    places => Ok(places.split('+').map(place).collect()),
                }
            })
        }

        fn connect<'a>(&'a self, at: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
            Box::pin(async move {
                self.tried.try_send(name(at).to_string()).expect("there is room in the log");
                match name(at).trim_end_matches(|c: char| c.is_ascii_digit()) {
                    "good" => Ok(pair(1).0),
                    "silent" => pending().await,
                    "short" if self.short.fetch_sub(1, Ordering::SeqCst) > 0 => {
                        Err(io::Error::from_raw_os_error(24))
                    }
                    "short" => Ok(pair(1).0),
                    "starved" => Err(ErrorKind::QuotaExceeded.into()),
                    _ => Err(ErrorKind::ConnectionRefused.into()),
                }
            })
        }
    }

    fn place(host: &str) -> Endpoint {
        Endpoint::Name { host: host.to_string(), port: 1 }
    }

    fn name(place: &Endpoint) -> &str {
        match place {
            Endpoint::Name { host, .. } => host,
            _ => "",
        }
    }

    /// The backends of this list, their clock, and the places that were tried.
    fn world(list: &[&str]) -> (Arc<Route>, Clock, Receiver<String>) {
        let (tried, log) = async_channel::bounded(100);
        let clock = Clock::new();
        let config = Config {
            backends: list.iter().copied().map(place).collect(),
            connect_timeout: TIMEOUT,
            ..Config::default()
        };
        let route = clock.route(config, Silent, World { tried, short: AtomicUsize::new(2) });
        (route, clock, log)
    }

    fn taken(log: &Receiver<String>) -> Vec<String> {
        std::iter::from_fn(|| log.try_recv().ok()).collect()
    }

    #[test]
    fn each_connection_starts_with_the_next_backend() {
        block_on(async {
            let (route, _, log) = world(&["good1", "good2", "good3"]);
            for _ in 0..4 {
                assert!(route.backends.connect().await.is_ok());
            }
            assert_eq!(taken(&log), ["good1", "good2", "good3", "good1"]);
        });
    }

    #[test]
    fn the_next_one_is_tried_when_a_backend_refuses() {
        block_on(async {
            let (route, _, log) = world(&["bad", "good1", "good2"]);
            let connected = route.backends.connect().await.expect("two of them accept");
            assert_eq!(connected.backend, place("good1"));
            assert_eq!(taken(&log), ["bad", "good1"]);
        });
    }

    #[test]
    fn when_none_accepts_each_is_named_with_its_cause() {
        block_on(async {
            let (route, _, log) = world(&["bad1", "nowhere", "nothing", "bad2"]);
            let causes = route.backends.connect().await.err().expect("none accepts");
            let expected = "bad1:1: connection refused; nowhere:1: no such name; \
                 nothing:1: its name has no address; bad2:1: connection refused";
            assert_eq!(causes, expected);
            assert_eq!(taken(&log), ["bad1", "bad2"]);
        });
    }

    #[test]
    fn each_address_of_a_name_gets_the_whole_timeout() {
        block_on(async {
            let (route, clock, log) = world(&["silent1+silent2+good"]);
            let mut connecting = Box::pin(route.backends.connect());
            for number in 1..=2 {
                assert!(poll_once(&mut connecting).await.is_none());
                assert_eq!(taken(&log), [format!("silent{number}")]);
                clock.advance(TIMEOUT - Duration::from_millis(1));
                assert!(poll_once(&mut connecting).await.is_none());
                assert_eq!(taken(&log), [""; 0]);
                clock.advance(Duration::from_millis(1));
            }
            assert!(connecting.await.is_ok());
            assert_eq!(taken(&log), ["good"]);
        });
    }

    #[test]
    fn a_wait_that_was_too_long_is_named_as_such() {
        block_on(async {
            let (route, clock, _log) = world(&["riddle", "silent"]);
            let mut connecting = Box::pin(route.backends.connect());
            for _ in 0..2 {
                assert!(poll_once(&mut connecting).await.is_none());
                clock.advance(TIMEOUT);
            }
            let causes = connecting.await.err().expect("none accepts");
            let expected = "riddle:1: its name was not resolved in time; silent:1: timed out";
            assert_eq!(causes, expected);
        });
    }

    #[test]
    fn without_file_descriptors_the_same_backend_is_tried_until_there_is_one() {
        block_on(async {
            let (route, clock, log) = world(&["short", "good"]);
            let mut connecting = Box::pin(route.backends.connect());
            for _ in 0..2 {
                assert!(poll_once(&mut connecting).await.is_none());
                assert_eq!(taken(&log), ["short"]);
                assert!(poll_once(&mut connecting).await.is_none(), "it does not spin");
                assert_eq!(taken(&log), [""; 0]);
                clock.advance(Backends::FD_PAUSE);
            }
            assert_eq!(connecting.await.expect("it accepts").backend, place("short"));
            assert_eq!(taken(&log), ["short"]);
        });
    }

    #[test]
    fn without_file_descriptors_for_too_long_the_next_one_is_tried() {
        block_on(async {
            let (route, clock, log) = world(&["starved", "good"]);
            let mut connecting = Box::pin(route.backends.connect());
            let mut waited = Duration::ZERO;
            while waited < Backends::FD_PATIENCE {
                assert!(poll_once(&mut connecting).await.is_none());
                assert_eq!(taken(&log), ["starved"]);
                clock.advance(Backends::FD_PAUSE);
                waited += Backends::FD_PAUSE;
            }
            let connected = poll_once(&mut connecting).await.expect("no patience is left");
            assert_eq!(connected.expect("it accepts").backend, place("good"));
            assert_eq!(taken(&log), ["starved", "good"]);
        });
    }

    #[test]
    fn which_errors_are_a_lack_of_file_descriptors() {
        use rustix::io::Errno;
        let check = |error: io::Error, expected: bool| {
            assert_eq!(is_out_of_fds(&error), expected, "{error}");
        };
        check(Errno::MFILE.into(), true);
        check(Errno::NFILE.into(), true);
        check(ErrorKind::QuotaExceeded.into(), true);
        check(Errno::NOBUFS.into(), false);
        check(ErrorKind::ConnectionRefused.into(), false);
    }
}
