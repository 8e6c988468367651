//! How a backend is reached, and which one.

use crate::error::describe;
use crate::runtime::{Options, Runtime, timeout};
use crate::socket::Socket;
use crate::{Boxed, Endpoint};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// process has no file descriptor left: that is not the backend's fault, and the proxy tries again until there is.
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
}

/// A backend that accepted.
pub(crate) struct Connected {
    pub(crate) backend: Endpoint,
    pub(crate) socket: Arc<dyn Socket>,
}

impl Backends {
    /// How long to wait for a file descriptor before asking again. Each connection that ends frees two.
    const FD_PAUSE: Duration = Duration::from_millis(50);

    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        connect: Arc<dyn Connect>,
        list: Vec<Endpoint>,
        timeout: Duration,
    ) -> Self {
        let next = AtomicUsize::new(0);
        Backends { runtime, connect, list, timeout, next }
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
                Err(error) => causes.push(format!("{backend}: {}", describe(&error))),
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
            last = loop {
                let tried = timeout(runtime, self.timeout, self.connect.connect(place)).await;
                match tried.unwrap_or_else(|| Err(late())) {
                    Ok(socket) => return Ok(socket),
                    Err(error) if is_out_of_fds(&error) => runtime.sleep(Self::FD_PAUSE).await,
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
