//! An epoll of our own for all sockets, nested in async-std's reactor.
//!
//! The reactor asks the kernel anew for each wait of each socket: an epoll_ctl, and half a dozen other calls a turn. Here a
//! socket is registered once, for both directions and for changes only (`EPOLLET`, epoll(7)); the epoll itself is one source
//! of the reactor. One task asks it what has changed, wakes the readers and writers that it concerns, lets them run and asks
//! again, and goes back to the reactor only when nothing has changed.
//!
//! ```text
//!   reactor ──"something has changed"──> turn ──wakes──> client_reader, backend_writer, ...
//!      ╰─ epoll of all else                ╰─ epoll of the sockets
//! ```

use async_io::Async;
use atomic_waker::AtomicWaker;
use futures_lite::future::yield_now;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// Changes that are taken in at once.
const EVENTS: usize = 256;

/// All sockets, and the epoll that watches them.
pub(crate) struct Edge {
    epoll: Async<OwnedFd>,
    /// Locked for each socket that comes or goes, and once for all changes that are taken in together; never for a message.
    sources: Mutex<HashMap<u64, Arc<Source>>>,
    next: AtomicU64,
}

/// What is known of a socket.
#[derive(Default)]
struct Source {
    read: Direction,
    write: Direction,
}

/// Whether it is worth trying.
#[derive(Default)]
pub(super) struct Direction {
    /// 0 if it is not; else how often it has become so, in units of [`CHANGE`], and [`ENDED`].
    state: AtomicUsize,
    waker: AtomicWaker,
}

/// The kernel tells of the end once, and it may be one change with the bytes before it: it stays worth trying.
const ENDED: usize = 1;
const CHANGE: usize = 2;

impl Direction {
    /// Waits until it is worth trying. What comes with it must be shown to [`Direction::spent`], so that a change that
    /// comes in between is not lost.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.seen() == 0 {
            self.waker.register(cx.waker());
        }
        match self.seen() {
            0 => Poll::Pending,
            seen => Poll::Ready(seen),
        }
    }

    pub(super) fn seen(&self) -> usize {
        self.state.load(SeqCst)
    }

    /// All that there was is taken.
    pub(super) fn drained(&self, seen: usize) {
        if seen & ENDED == 0 {
            self.spent(seen);
        }
    }

    /// The kernel has said so.
    pub(super) fn spent(&self, seen: usize) {
        // Unless it has changed since.
        let _ = self.state.compare_exchange(seen, 0, SeqCst, SeqCst);
    }

    fn change(&self, ended: bool) {
        self.state.fetch_add(CHANGE, SeqCst);
        if ended {
            self.state.fetch_or(ENDED, SeqCst);
        }
        self.waker.wake();
    }
}

/// A socket that is watched, until this is dropped.
pub(super) struct Watched {
    edge: Arc<Edge>,
    id: u64,
    source: Arc<Source>,
    pub(super) socket: socket2::Socket,
}

impl Watched {
    pub(super) fn new(edge: &Arc<Edge>, socket: socket2::Socket) -> io::Result<Watched> {
        let id = edge.next.fetch_add(1, Relaxed);
        let source = Arc::<Source>::default();
        edge.sources().insert(id, Arc::clone(&source));
        // From here on it is taken out again when it is dropped.
        let watched = Watched { edge: Arc::clone(edge), id, source, socket };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(edge.epoll.get_ref(), &watched.socket, EventData::new_u64(id), flags)?;
        Ok(watched)
    }

    pub(super) fn read(&self) -> &Direction {
        &self.source.read
    }

    pub(super) fn write(&self) -> &Direction {
        &self.source.write
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The kernel forgets it when the socket is closed.
        self.edge.sources().remove(&self.id);
    }
}

impl Edge {
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> io::Result<Edge> {
        let epoll = Async::new(epoll::create(CreateFlags::CLOEXEC)?)?;
        Ok(Edge { epoll, sources: Mutex::default(), next: AtomicU64::new(1) })
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Source>>> {
        // Whoever has panicked has left it as it was.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells readers and writers what has changed, for as long as the process runs.
    pub(crate) async fn turn(self: Arc<Self>) {
        let mut changed = Vec::with_capacity(EVENTS);
        loop {
            self.take_in(&mut changed);
            if changed.is_empty() {
                if let Err(error) = self.epoll.readable().await {
                    log::error!("the sockets cannot be watched any more: {error}");
                    return;
                }
                continue;
            }
            for (flags, source) in changed.drain(..) {
                source.change(flags);
            }
            yield_now().await;
        }
    }

    fn take_in(&self, changed: &mut Vec<(EventFlags, Arc<Source>)>) {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // It fails only for what is no epoll, or for a signal.
        let Ok((events, _)) = epoll::wait(self.epoll.get_ref(), &mut events, Some(&now)) else {
            return;
        };
        if events.is_empty() {
            return;
        }
        let sources = self.sources();
        for event in events {
            // Gone: it was dropped meanwhile.
            if let Some(source) = sources.get(&event.data.u64()) {
                changed.push((event.flags, Arc::clone(source)));
            }
        }
    }
}

impl Source {
    fn change(&self, flags: EventFlags) {
        let lost = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let ended = lost || flags.contains(EventFlags::RDHUP);
        if ended || flags.contains(EventFlags::IN) {
            self.read.change(ended);
        }
        if lost || flags.contains(EventFlags::OUT) {
            self.write.change(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn};
    use std::task::Waker;

    fn is_ready(direction: &Direction) -> Option<usize> {
        match direction.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(seen) => Some(seen),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_change_that_comes_while_it_is_tried_is_not_lost() {
        let direction = Direction::default();
        assert_eq!(is_ready(&direction), None);
        direction.change(false);
        let seen = is_ready(&direction).expect("it has changed");
        direction.change(false);
        direction.spent(seen);
        let seen = is_ready(&direction).expect("it has changed since");
        direction.spent(seen);
        assert_eq!(is_ready(&direction), None);
    }

    #[test]
    fn behind_the_end_it_is_worth_trying_until_that_was_read() {
        let direction = Direction::default();
        direction.change(true);
        let seen = is_ready(&direction).expect("it has changed");
        // The last bytes, and there was room for more.
        direction.drained(seen);
        assert!(is_ready(&direction).is_some());
    }

    #[test]
    fn a_socket_that_has_gone_is_forgotten_and_the_others_are_not() {
        let edge = Arc::new(Edge::new().expect("there is an epoll"));
        let pair = || socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let (one, _peer) = pair().expect("there are sockets");
        let (other, peer) = pair().expect("there are sockets");
        let gone = Watched::new(&edge, one).expect("it can be watched");
        let watched = Watched::new(&edge, other).expect("it can be watched");
        drop(gone);
        assert_eq!(edge.sources().len(), 1);
        assert_eq!(peer.send(b"x").expect("it is connected"), 1);
        let turning = Arc::clone(&edge).turn();
        let reading = poll_fn(|cx| watched.read().poll(cx));
        let seen = block_on(futures_lite::future::or(reading, async {
            turning.await;
            0
        }));
        assert_ne!(seen, 0);
    }
}
