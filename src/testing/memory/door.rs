//! Where in-memory clients come in: a listening socket without a port, and a runtime that listens on it.

use super::{pair_reading, wake};
use crate::runtime::{Listen, Listening, Options, Runtime};
use crate::socket::Socket;
use crate::{Boxed, Endpoint};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The clients' side of a listening socket. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    queue: Arc<Mutex<Queue>>,
    capacity: usize,
    reads: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Arc<dyn Socket>, Endpoint)>,
    /// The most that may wait; 0 while nobody listens.
    backlog: usize,
    listener: Option<Waker>,
}

impl Door {
    /// Nobody listens yet. The sockets hold `capacity` bytes each way, and the proxy's recv takes at most `reads`.
    pub(crate) fn new(capacity: usize, reads: usize) -> Door {
        Door { queue: Arc::default(), capacity, reads }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, as a kernel does it: whether or not anybody accepts yet. Its recv takes at most `reads` bytes.
    pub(crate) fn connect(&self, client: Endpoint, reads: usize) -> io::Result<Arc<dyn Socket>> {
        let mut queue = self.lock();
        if queue.waiting.len() >= queue.backlog {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pair_reading(self.capacity, [self.reads, reads]);
        queue.waiting.push_back((ours, client));
        let listener = queue.listener.take();
        drop(queue);
        wake(listener);
        Ok(theirs)
    }
}

/// The proxy's side.
struct Listener {
    door: Door,
    endpoint: Endpoint,
}

impl Listen for Listener {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn try_accept(&self) -> io::Result<(Arc<dyn Socket>, Endpoint)> {
        self.door.lock().waiting.pop_front().ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = self.door.lock();
        if !queue.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        queue.listener = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut queue = self.door.lock();
        queue.backlog = 0;
        let refused = std::mem::take(&mut queue.waiting);
        // Dropping a socket wakes its other end: not under this lock.
        drop(queue);
        drop(refused);
    }
}

/// Real tasks and real time, but no sockets: listening is at the door, and backends come by a `Connect`.
pub(crate) struct Indoors(pub(crate) Door);

impl Runtime for Indoors {
    fn listen(&self, endpoint: &Endpoint, options: &Listening) -> io::Result<Box<dyn Listen>> {
        self.0.lock().backlog = options.backlog as usize;
        Ok(Box::new(Listener { door: self.0.clone(), endpoint: endpoint.clone() }))
    }

    fn dial<'a>(
        &'a self,
        _endpoint: &'a Endpoint,
        _options: &'a Options,
    ) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }
}
