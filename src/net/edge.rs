//! An epoll of our own for all sockets, in which the thread that carries their actors sleeps.
//!
//! async-std's reactor asks the kernel anew for each wait of each socket: an epoll_ctl, and half a dozen other calls a turn.
//! Here a socket is registered once, for both directions and for changes only (`EPOLLET`, epoll(7)); what a turn costs is
//! the one call in which the thread sleeps (`threads.rs`).

use atomic_waker::AtomicWaker;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use slab::Slab;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Changes that are taken in at once.
const EVENTS: usize = 256;

/// What the alarm is known by; no socket is.
const ALARM: u64 = u64::MAX;

/// All sockets, and the epoll that watches them.
pub(crate) struct Edge {
    epoll: OwnedFd,
    /// Written to, it ends a sleep.
    alarm: OwnedFd,
    /// The thread sleeps, or is about to.
    asleep: AtomicBool,
    /// It is not to.
    called: AtomicBool,
    /// Locked for each socket that comes or goes, and once for all changes that are taken in together; never for a message.
    sources: Mutex<Slab<Arc<Source>>>,
}

/// Sockets, and what has changed of them.
pub(super) type Changed = Vec<(EventFlags, Arc<Source>)>;

/// What is known of a socket.
#[derive(Default)]
pub(super) struct Source {
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
    place: usize,
    source: Arc<Source>,
    pub(super) socket: socket2::Socket,
}

impl Watched {
    pub(super) fn new(edge: &Arc<Edge>, socket: socket2::Socket) -> io::Result<Watched> {
        let source = Arc::<Source>::default();
        let place = edge.sources().insert(Arc::clone(&source));
        // From here on it is taken out again when it is dropped.
        let watched = Watched { edge: Arc::clone(edge), place, source, socket };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&edge.epoll, &watched.socket, EventData::new_u64(place as u64), flags)?;
        Ok(watched)
    }

    pub(super) fn read(&self) -> &Direction {
        &self.source.read
    }

    pub(super) fn write(&self) -> &Direction {
        &self.source.write
    }

    /// Has the kernel forget it now: for a socket that another process may have as well, and keep open.
    pub(super) fn forget(&self) {
        // It is there, or its adding has failed.
        let _ = epoll::delete(&self.edge.epoll, &self.socket);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The kernel forgets it when the socket is closed.
        self.edge.sources().remove(self.place);
    }
}

impl Edge {
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> io::Result<Edge> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // A change for each write, so that nobody has to read it.
        epoll::add(&epoll, &alarm, EventData::new_u64(ALARM), EventFlags::IN | EventFlags::ET)?;
        Ok(Edge {
            epoll,
            alarm,
            asleep: AtomicBool::new(false),
            called: AtomicBool::new(false),
            sources: Mutex::default(),
        })
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Slab<Arc<Source>>> {
        super::lock(&self.sources)
    }

    /// Takes back what calls there were: what they were for is about to be looked at.
    pub(super) fn hear(&self) {
        self.called.store(false, SeqCst);
    }

    /// Sleeps until something changes, or somebody calls; not at all if somebody has called since [`Edge::hear`]. Then
    /// tells readers and writers what has changed.
    pub(super) fn sleep(&self, changed: &mut Changed) {
        self.lie_down();
        self.wait(!self.is_called(), changed);
        self.get_up();
        tell(changed);
    }

    /// The same without a sleep, for whoever sleeps elsewhere until there is something to see.
    pub(super) fn look(&self, changed: &mut Changed) {
        while self.wait(false, changed) == EVENTS {}
        tell(changed);
    }

    /// About to sleep: whoever calls from here on ends it, and whoever has called before is seen.
    pub(super) fn lie_down(&self) {
        self.asleep.store(true, SeqCst);
    }

    pub(super) fn get_up(&self) {
        self.asleep.store(false, SeqCst);
    }

    pub(super) fn is_called(&self) -> bool {
        self.called.load(SeqCst)
    }

    /// What becomes readable when there is something to see.
    pub(super) fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    fn wait(&self, sleep: bool, changed: &mut Changed) -> usize {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let limit = (!sleep).then_some(&now);
        let mut events = [MaybeUninit::uninit(); EVENTS];
        // It fails only for what is no epoll, or for a signal.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, limit) else { return 0 };
        let sources = self.sources();
        for event in &*events {
            // Gone: it was dropped meanwhile, or is the alarm. Whoever has its place now tries in vain, once.
            let place = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            if let Some(source) = sources.get(place) {
                changed.push((event.flags, Arc::clone(source)));
            }
        }
        events.len()
    }

    /// As [`Edge::call`], by the thread that sleeps here itself.
    pub(super) fn keep_awake(&self) {
        self.called.store(true, Relaxed);
    }

    /// Calls the thread that sleeps here.
    pub(super) fn call(&self) {
        self.called.store(true, SeqCst);
        self.nudge();
    }

    /// Ends its sleep, if it sleeps: for what it looks at before it does.
    pub(super) fn nudge(&self) {
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            // Full: so many calls are on their way that one is heard.
            let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
        }
    }
}

fn tell(changed: &mut Changed) {
    for (flags, source) in changed.drain(..) {
        source.change(flags);
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
        edge.sleep(&mut Vec::new());
        let seen = block_on(poll_fn(|cx| watched.read().poll(cx)));
        assert_ne!(seen, 0);
    }

    #[test]
    fn a_call_ends_the_sleep_or_keeps_it_from_beginning() {
        let edge = Arc::new(Edge::new().expect("there is an epoll"));
        let mut changed = Vec::new();
        edge.hear();
        edge.call();
        edge.sleep(&mut changed);
        edge.hear();
        let sleeper = Arc::clone(&edge);
        let sleeping = std::thread::spawn(move || sleeper.sleep(&mut Vec::new()));
        while !edge.asleep.load(SeqCst) {
            std::thread::yield_now();
        }
        edge.call();
        sleeping.join().expect("it has not panicked");
    }
}
