//! A clock that stands until the test moves it, and a route that runs by it.

use crate::connect::Backends;
use crate::ids::ConnIds;
use crate::proxy::Route;
use crate::runtime::{Listen, Listening, Options, Runtime};
use crate::socket::{Buffers, Socket};
use crate::{Boxed, Config, Connect, Endpoint, Events};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// A runtime with virtual time and without sockets. Clones show the same time.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<Face>>);

struct Face {
    now: Instant,
    sleepers: Vec<Waker>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock(Arc::new(Mutex::new(Face { now: Instant::now(), sleepers: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        let mut face = self.lock();
        face.now += time;
        let sleepers = std::mem::take(&mut face.sleepers);
        drop(face);
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// What the actors of a proxy with these settings are given.
    pub(crate) fn route(
        &self,
        config: Config,
        events: impl Events,
        connect: impl Connect,
    ) -> Arc<Route> {
        let runtime: Arc<dyn Runtime> = Arc::new(self.clone());
        let (list, timeout) = (config.backends.clone(), config.connect_timeout);
        Arc::new(Route {
            backends: Backends::new(Arc::clone(&runtime), Arc::new(connect), list, timeout),
            config,
            events: Arc::new(events),
            runtime,
            ids: ConnIds::default(),
            options: Options { keepalive: None, buffers: Buffers::new(16, 1), io: crate::Io::Auto },
            detour: None,
            pool: None,
        })
    }
}

impl Runtime for Clock {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn sleep(&self, time: Duration) -> Boxed<'static, ()> {
        let clock = self.clone();
        let end = self.now() + time;
        Box::pin(poll_fn(move |cx| {
            let mut face = clock.lock();
            if face.now >= end {
                return Poll::Ready(());
            }
            face.sleepers.push(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn random(&self) -> u32 {
        0
    }

    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _endpoint: &Endpoint, _options: &Listening) -> io::Result<Box<dyn Listen>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn dial<'a>(
        &'a self,
        _endpoint: &'a Endpoint,
        _options: &'a Options,
    ) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }
}
