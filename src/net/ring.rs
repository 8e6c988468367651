//! Sockets whose small messages the kernel's io_uring receives and sends, many by one call.
//!
//! The thread that carries the tasks keeps the ring, alone ([`Keeper`]); it is to the sockets what an actor is to others:
//!
//! ```text
//!   reader, writer ──orders──> keeper ──> kernel          what to receive, send or wait for: by the next call
//!   reader, writer <─a place each─ keeper <── kernel      what has arrived, what has come of a send
//! ```
//!
//! Small messages only. Whoever is sent much is read and written by calls, as over epoll, and asks the ring no more than
//! when that is worth trying: so bytes wait in the kernel, whose peer hears of it, and not here.

use super::edge::{Changed, Edge};
use super::uring::{Done, GIVEN, Uring, Way};
use crate::Limits;
use crate::socket::{Buffers, Chunk};
use atomic_waker::AtomicWaker;
use concurrent_queue::{ConcurrentQueue, PushError};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

/// The most that is small, in bytes: what is received into at once, and sent at once.
const SMALL: usize = 4 << 10;

const _: () = assert!(GIVEN as usize * SMALL == Limits::AHEAD, "what is said of memory is true");

/// Small buffers that are kept while nobody uses them.
const SPARE: usize = 256;

/// Orders that wait for the end of a turn, which has 256 polls at most (`tasks.rs`).
const ORDERS: usize = 512;

/// Chunks that have arrived before a reader took the first: with these, no more are received.
const LONG: usize = 8;

/// What readers and writers have of the ring.
pub(crate) struct Ring {
    /// Watches what is not received from or sent on, and has the alarm that ends a sleep.
    edge: Arc<Edge>,
    orders: ConcurrentQueue<Order>,
    /// Places whose socket nobody has any more. Locked, as are the sources, for a socket that comes or goes.
    gone: Mutex<Vec<usize>>,
    sources: Mutex<Slab<Arc<Source>>>,
    buffers: Buffers,
}

enum Order {
    Recv(usize),
    Send(usize, Chunk),
    WaitFor(usize, Way),
}

/// A socket, and what its reader and its writer are told.
struct Source {
    socket: socket2::Socket,
    /// How it is read when little comes: [`IDLE`] or [`DRY`].
    rest: u8,
    reading: AtomicU8,
    /// One chunk; the keeper has those behind it.
    arrived: Hatch,
    /// It has some.
    behind: AtomicBool,
    /// [`OPEN`], [`ENDED`] or the number of the error, behind all chunks.
    end: AtomicI32,
    /// Whether the ring says when it ends: [`IDLE`] before it was asked to, [`ASKED`], and [`SAID`] when it has.
    watched: AtomicU8,
    reader: AtomicWaker,
    writing: AtomicU8,
    /// Bytes that the ring was given and has not sent.
    unsent: AtomicUsize,
    /// The number of the error for which a send has failed: what is read as an end is none.
    fault: AtomicI32,
    writer: AtomicWaker,
    /// For what becomes of a send.
    waits: AtomicBool,
}

/// Room for one chunk, between the keeper, who alone puts one in, and a reader, who alone takes it out.
///
/// A queue would do the same in 0.5 kB, for it keeps its ends on cache lines of their own. The lock is taken only for a chunk
/// that is there, and has nobody to wait for unless both are at it, on two threads, in the same few instructions.
#[derive(Default)]
struct Hatch {
    full: AtomicBool,
    chunk: Mutex<Option<Chunk>>,
}

impl Hatch {
    /// What comes back finds no room.
    fn put(&self, chunk: Chunk) -> Result<(), Chunk> {
        if self.full.load(SeqCst) {
            return Err(chunk);
        }
        *super::lock(&self.chunk) = Some(chunk);
        self.full.store(true, SeqCst);
        Ok(())
    }

    fn take(&self) -> Option<Chunk> {
        if !self.full.load(SeqCst) {
            return None;
        }
        let chunk = super::lock(&self.chunk).take();
        self.full.store(false, SeqCst);
        chunk
    }
}

const OPEN: i32 = 0;
const ENDED: i32 = -1;
const NONE: i32 = 0;

// What `reading`, `writing` and `watched` may be.
/// Nothing is asked of the ring.
const IDLE: u8 = 0;
/// Reading: by the ring.
const RING: u8 = 1;
/// Reading: by calls, and it is worth trying.
const CALLS: u8 = 2;
/// Reading: by calls, and there was nothing.
const DRY: u8 = 3;
/// The ring has been asked to say when there is something to read, or room to write, or when it ends.
const ASKED: u8 = 4;
/// Writing: the ring has a chunk.
const SENDING: u8 = 5;
/// Writing: by calls, and there is room again.
const ROOM: u8 = 6;
/// Watched: it has ended.
const SAID: u8 = 7;

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        Ok(Ring {
            edge: Arc::new(Edge::new()?),
            orders: ConcurrentQueue::bounded(ORDERS),
            gone: Mutex::default(),
            sources: Mutex::default(),
            buffers: Buffers::new(SMALL, SPARE),
        })
    }

    pub(super) fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    fn sources(&self) -> MutexGuard<'_, Slab<Arc<Source>>> {
        super::lock(&self.sources)
    }

    fn gone(&self) -> MutexGuard<'_, Vec<usize>> {
        super::lock(&self.gone)
    }

    /// What comes back finds no room: so many were given in this turn.
    fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.push(order).map_err(PushError::into_inner)?;
        self.edge.nudge();
        Ok(())
    }
}

/// What a reader is to do.
pub(super) enum Arrival {
    Chunk(Chunk),
    /// The end, unless [`Held::has_failed`].
    End,
    /// To read by a call.
    Call,
}

/// A socket of the ring, until this is dropped.
pub(super) struct Held {
    ring: Arc<Ring>,
    place: usize,
    source: Arc<Source>,
}

impl Held {
    /// For a socket of which so many bytes may be read at once: with fewer than the ring reads, it is read by calls.
    pub(super) fn new(ring: &Arc<Ring>, socket: socket2::Socket, chunk: usize) -> Held {
        let rest = if chunk < SMALL { DRY } else { IDLE };
        let source = Arc::new(Source {
            socket,
            rest,
            reading: AtomicU8::new(rest),
            arrived: Hatch::default(),
            behind: AtomicBool::new(false),
            end: AtomicI32::new(OPEN),
            watched: AtomicU8::new(IDLE),
            reader: AtomicWaker::new(),
            writing: AtomicU8::new(IDLE),
            unsent: AtomicUsize::new(0),
            fault: AtomicI32::new(NONE),
            waits: AtomicBool::new(false),
            writer: AtomicWaker::new(),
        });
        let place = ring.sources().insert(Arc::clone(&source));
        Held { ring: Arc::clone(ring), place, source }
    }

    pub(super) fn socket(&self) -> &socket2::Socket {
        &self.source.socket
    }

    /// A send by the ring is about to be tried.
    pub(super) fn is_sending(&self) -> bool {
        self.source.writing.load(SeqCst) == SENDING
    }

    /// A send by the ring has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.source.fault.load(SeqCst) != NONE
    }

    /// Bytes that were taken to be sent, and that the kernel does not have.
    pub(super) fn unsent(&self) -> usize {
        self.source.unsent.load(SeqCst)
    }

    /// Waits for what arrives.
    pub(super) fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        if let Some(arrival) = self.arrival() {
            return Poll::Ready(arrival);
        }
        self.source.reader.register(cx.waker());
        if let Some(arrival) = self.arrival() {
            return Poll::Ready(arrival);
        }
        let (next, order) = match self.source.reading.load(SeqCst) {
            IDLE if !self.source.behind.load(SeqCst) => (RING, Order::Recv(self.place)),
            DRY => (ASKED, Order::WaitFor(self.place, Way::Read)),
            _ => return Poll::Pending,
        };
        // Only the reader leaves these two.
        let now = self.source.reading.swap(next, SeqCst);
        if self.ring.order(order).is_err() {
            self.source.reading.store(now, SeqCst);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// What there is. The order of the looks is the order of the bytes: who sees that nothing is behind, or that it has
    /// ended, finds the last chunk.
    fn arrival(&self) -> Option<io::Result<Arrival>> {
        let source = &*self.source;
        let (end, reading) = (source.end.load(SeqCst), source.reading.load(SeqCst));
        let behind = source.behind.load(SeqCst);
        if let Some(chunk) = source.arrived.take() {
            if source.behind.load(SeqCst) {
                self.ring.edge.call();
            }
            return Some(Ok(Arrival::Chunk(chunk)));
        }
        match (end, reading) {
            _ if behind => None,
            (OPEN, CALLS) => Some(Ok(Arrival::Call)),
            (OPEN, _) => None,
            (ENDED, _) => Some(Ok(Arrival::End)),
            (error, _) => Some(Err(io::Error::from_raw_os_error(error))),
        }
    }

    /// A call has read so many bytes; `filled` if there was room for no more.
    pub(super) fn was_read(&self, count: usize, filled: bool) {
        let next = match filled {
            true => CALLS,
            false if count > SMALL => DRY,
            // Small again.
            false => self.source.rest,
        };
        self.source.reading.store(next, SeqCst);
    }

    /// A call had nothing to read.
    pub(super) fn had_nothing(&self) {
        self.source.reading.store(DRY, SeqCst);
    }

    /// Takes all of `chunks`, to be sent at the end of this turn; `None` if that is to be done by a call, for it is much.
    /// As what the kernel takes to be sent, it may come to nothing still: the next one is told.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Option<Poll<io::Result<usize>>> {
        let source = &*self.source;
        match self.poll_flush(cx) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
            Poll::Ready(Ok(())) => {}
        }
        let chunk = self.small(chunks)?;
        let count = chunk.len();
        // The keeper looks at neither before it has the order.
        source.unsent.store(count, Relaxed);
        source.writing.store(SENDING, Relaxed);
        if let Err(order) = self.ring.order(Order::Send(self.place, chunk)) {
            source.writing.store(IDLE, SeqCst);
            source.unsent.store(0, SeqCst);
            if let Order::Send(_, chunk) = order {
                chunks.push_front(chunk);
            }
            cx.waker().wake_by_ref();
            return Some(Poll::Pending);
        }
        Some(Poll::Ready(Ok(count)))
    }

    /// Waits until all that was taken is sent.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let source = &*self.source;
        let is_busy = || matches!(source.writing.load(SeqCst), SENDING | ASKED);
        if is_busy() {
            source.writer.register(cx.waker());
            source.waits.store(true, SeqCst);
            if is_busy() {
                self.ring.edge.nudge();
                return Poll::Pending;
            }
        }
        source.waits.store(false, Relaxed);
        match source.fault.load(SeqCst) {
            NONE => Poll::Ready(Ok(())),
            fault => Poll::Ready(Err(io::Error::from_raw_os_error(fault))),
        }
    }

    /// All that is to be sent as one chunk, unless it is much.
    fn small(&self, chunks: &mut VecDeque<Chunk>) -> Option<Chunk> {
        let mut count = 0;
        for chunk in &*chunks {
            count += chunk.len();
            if count > SMALL {
                return None;
            }
        }
        if chunks.len() == 1 {
            return chunks.pop_front();
        }
        let mut all = self.ring.buffers.room(count);
        for chunk in chunks.drain(..) {
            all.append(&chunk);
        }
        Some(all)
    }

    /// Waits until there is room to send.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let source = &*self.source;
        source.writer.register(cx.waker());
        match source.writing.load(SeqCst) {
            ROOM => {
                source.writing.store(IDLE, SeqCst);
                return Poll::Ready(());
            }
            ASKED => return Poll::Pending,
            _ => source.writing.store(ASKED, SeqCst),
        }
        if self.ring.order(Order::WaitFor(self.place, Way::Write)).is_err() {
            source.writing.store(IDLE, SeqCst);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.source.is_idle() {
            // The kernel does nothing with it: it is closed now.
            self.ring.sources().remove(self.place);
        } else {
            self.ring.gone().push(self.place);
            self.ring.edge.nudge();
        }
    }
}

impl Source {
    /// The keeper knows nothing of it.
    fn is_idle(&self) -> bool {
        let (reading, writing) = (self.reading.load(SeqCst), self.writing.load(SeqCst));
        !matches!(reading, RING | ASKED)
            && !matches!(writing, SENDING | ASKED)
            && !self.behind.load(SeqCst)
            && self.watched.load(SeqCst) != ASKED
    }
}

/// What the thread that carries the tasks has of the ring.
pub(super) struct Keeper {
    ring: Arc<Ring>,
    uring: Uring,
    places: Vec<Place>,
    /// Places that keep chunks for a reader.
    behind: Vec<usize>,
    /// Places for which something is sent in the next turn.
    sends: Vec<usize>,
    /// Places whose peer has ended its sending, or is lost.
    ended: Vec<usize>,
    done: Vec<Done>,
    /// The edge is watched.
    watches: bool,
}

/// What it knows of a socket.
#[derive(Default)]
struct Place {
    /// What the kernel has to say of it still. Until then the place is not given to another socket, and the file stays.
    receives: bool,
    is_cancelled: bool,
    sends: bool,
    /// For which there was no room.
    rest: Option<Chunk>,
    waits_to_read: bool,
    waits_to_write: bool,
    waits_for_the_end: bool,
    /// It was sent much, and is to be read by calls.
    is_bulk: bool,
    /// Chunks that a reader has not had room for.
    behind: VecDeque<Chunk>,
    /// How it ended, while a send is under way that may say otherwise.
    end: Option<i32>,
    /// Nobody has it any more.
    gone: bool,
}

impl Keeper {
    /// # Errors
    /// What the kernel lacks or forbids.
    pub(super) fn new(ring: &Arc<Ring>) -> io::Result<Keeper> {
        let uring = Uring::new(ring.buffers.clone())?;
        let (places, behind, sends, ended, done) = Default::default();
        let watches = false;
        let ring = Arc::clone(ring);
        Ok(Keeper { ring, uring, places, behind, sends, ended, done, watches })
    }

    /// As [`Edge::sleep`]; and carries out what was ordered.
    pub(super) fn sleep(&mut self, changed: &mut Changed) {
        self.hand_over_what_is_behind();
        if !self.watches {
            self.watches = true;
            self.uring.watch(self.ring.edge.epoll().as_raw_fd());
        }
        self.ring.edge.lie_down();
        // From here on whoever orders something, or waits for something, rings the alarm.
        let hurry = {
            let ring = Arc::clone(&self.ring);
            let gone = std::mem::take(&mut *ring.gone());
            let mut sources = ring.sources();
            for _ in 0..ring.orders.len() {
                let Ok(order) = ring.orders.pop() else { break };
                self.carry_out(order, &sources);
            }
            for place in gone {
                self.let_go(place, &mut sources);
            }
            self.sends.iter().any(|place| {
                let gone = self.places.get(*place).is_some_and(|known| known.gone);
                gone || sources.get(*place).is_some_and(|source| source.waits.load(SeqCst))
            })
        };
        let mut done = std::mem::take(&mut self.done);
        // That all was sent goes without saying, and would not end a sleep.
        self.uring.turn(!hurry && !self.ring.edge.is_called(), &mut done);
        self.ring.edge.get_up();
        let mut look = false;
        {
            let ring = Arc::clone(&self.ring);
            let mut sources = ring.sources();
            for done in done.drain(..) {
                let (place, source) = match &done {
                    Done::Received { place, .. }
                    | Done::Sent { place, .. }
                    | Done::Ready { place, .. } => (*place, sources.get(*place)),
                    Done::Watched { last } => {
                        self.watches &= !last;
                        look = true;
                        continue;
                    }
                };
                // Both are there until the last word of the kernel.
                let Some(source) = source else { continue };
                match done {
                    Done::Received { outcome, last, .. } => {
                        self.received(place, source, outcome, last);
                    }
                    Done::Sent { chunk, outcome, .. } => self.sent(place, source, chunk, outcome),
                    Done::Ready { way, .. } => self.ready(place, source, way),
                    Done::Watched { .. } => {}
                }
                self.free(place, &mut sources);
            }
            // The kernel wakes what receives once for bytes and a reset that come together, and it may have looked at the
            // bytes alone: then it would never hear of the reset. By a call it is seen.
            for place in self.ended.drain(..) {
                if let Some(known) = self.places.get_mut(place)
                    && known.receives
                    && !known.is_cancelled
                {
                    (known.is_bulk, known.is_cancelled) = (true, true);
                    self.uring.cancel_recv(place);
                }
            }
        }
        self.done = done;
        self.sends.retain(|place| self.places.get(*place).is_some_and(|known| known.sends));
        if look {
            self.ring.edge.look(changed);
        }
    }

    fn carry_out(&mut self, order: Order, sources: &Slab<Arc<Source>>) {
        let place = match order {
            Order::Recv(place) | Order::Send(place, _) | Order::WaitFor(place, _) => place,
        };
        if self.places.len() <= place {
            self.places.resize_with(place + 1, Place::default);
        }
        let known = &mut self.places[place];
        // It is there until this says that it has nothing to do with it.
        let Some(source) = sources.get(place) else { return };
        let socket = source.socket.as_raw_fd();
        match order {
            Order::Recv(_) => {
                known.receives = true;
                self.uring.recv(place, socket);
                if source.watched.load(SeqCst) == IDLE {
                    known.waits_for_the_end = true;
                    source.watched.store(ASKED, SeqCst);
                    self.uring.wait_for(place, socket, Way::End);
                }
            }
            Order::Send(_, chunk) => {
                known.sends = true;
                self.sends.push(place);
                self.uring.send(place, socket, chunk);
            }
            Order::WaitFor(_, way) => {
                *known.waits(way) = true;
                self.uring.wait_for(place, socket, way);
            }
        }
    }

    /// Nobody has the socket any more: has the kernel end what it does with it, and closes it then.
    fn let_go(&mut self, place: usize, sources: &mut Slab<Arc<Source>>) {
        if let Some(known) = self.places.get_mut(place) {
            known.gone = true;
            known.behind.clear();
            if known.receives && !known.is_cancelled {
                self.uring.cancel_recv(place);
            }
            for way in [Way::Read, Way::Write, Way::End] {
                if *known.waits(way) {
                    self.uring.cancel_wait(place, way);
                }
            }
        }
        self.free(place, sources);
    }

    /// Closes the socket and gives its place away, if nobody has it and the kernel has nothing more to say of it.
    fn free(&mut self, place: usize, sources: &mut Slab<Arc<Source>>) {
        if let Some(known) = self.places.get_mut(place) {
            let waits = known.waits_to_read || known.waits_to_write || known.waits_for_the_end;
            if known.receives || known.sends || waits || !known.gone {
                return;
            }
            *known = Place::default();
        }
        sources.try_remove(place);
    }

    fn received(
        &mut self,
        place: usize,
        source: &Source,
        outcome: io::Result<Option<Chunk>>,
        last: bool,
    ) {
        let Some(known) = self.places.get_mut(place) else { return };
        match outcome {
            _ if known.gone => {}
            Ok(Some(chunk)) => {
                known.is_bulk |= chunk.len() == SMALL;
                if known.arrived(chunk, source) {
                    self.behind.push(place);
                }
            }
            // A reset is told once: if the send hears of it, this is what is left of it, and no end.
            Ok(None) if known.sends => known.end = Some(ENDED),
            Ok(None) => source.end.store(ENDED, SeqCst),
            Err(error) => match error.raw_os_error() {
                // It was to stop, or the buffers ran out in this turn. Whoever reads asks again.
                None | Some(libc::ECANCELED | libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => {}
                Some(number) => source.end.store(number, SeqCst),
            },
        }
        if last {
            known.receives = false;
            known.is_cancelled = false;
            let next = if std::mem::take(&mut known.is_bulk) { CALLS } else { IDLE };
            if known.end.is_none() {
                source.reading.store(next, SeqCst);
            }
        } else if (known.is_bulk || known.behind.len() >= LONG) && !known.is_cancelled {
            known.is_cancelled = true;
            self.uring.cancel_recv(place);
        }
        source.reader.wake();
    }

    fn sent(
        &mut self,
        place: usize,
        source: &Source,
        mut chunk: Chunk,
        outcome: io::Result<usize>,
    ) {
        let Some(known) = self.places.get_mut(place) else { return };
        known.sends = false;
        let fault = match outcome {
            Ok(count) => {
                chunk.advance(count);
                NONE
            }
            Err(error) if super::is_retry(&error) => NONE,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        if fault != NONE {
            source.fault.store(fault, SeqCst);
        }
        if let Some(end) = known.end.take() {
            source.end.store(end, SeqCst);
            source.reading.store(IDLE, SeqCst);
            source.reader.wake();
        }
        if fault == NONE && !chunk.is_empty() && !known.gone {
            source.unsent.store(chunk.len(), SeqCst);
            source.writing.store(ASKED, SeqCst);
            known.rest = Some(chunk);
            known.waits_to_write = true;
            return self.uring.wait_for(place, source.socket.as_raw_fd(), Way::Write);
        }
        source.unsent.store(0, SeqCst);
        source.writing.store(IDLE, SeqCst);
        if source.waits.load(SeqCst) {
            source.writer.wake();
        }
    }

    fn ready(&mut self, place: usize, source: &Source, way: Way) {
        let Some(known) = self.places.get_mut(place) else { return };
        *known.waits(way) = false;
        match way {
            Way::End => {
                source.watched.store(SAID, SeqCst);
                self.ended.push(place);
            }
            _ if known.gone => {}
            Way::Read => {
                source.reading.store(CALLS, SeqCst);
                source.reader.wake();
            }
            Way::Write => match known.rest.take() {
                Some(chunk) => {
                    known.sends = true;
                    self.sends.push(place);
                    source.writing.store(SENDING, SeqCst);
                    self.uring.send(place, source.socket.as_raw_fd(), chunk);
                }
                None => {
                    source.writing.store(ROOM, SeqCst);
                    source.writer.wake();
                }
            },
        }
    }

    fn hand_over_what_is_behind(&mut self) {
        if self.behind.is_empty() {
            return;
        }
        let sources = self.ring.sources();
        self.behind.retain(|place| match (self.places.get_mut(*place), sources.get(*place)) {
            (Some(known), Some(source)) => known.hand_over(source),
            _ => false,
        });
    }
}

impl Place {
    fn waits(&mut self, way: Way) -> &mut bool {
        match way {
            Way::Read => &mut self.waits_to_read,
            Way::Write => &mut self.waits_to_write,
            Way::End => &mut self.waits_for_the_end,
        }
    }

    /// Gives the reader a chunk. Says whether it is the first that has to wait.
    fn arrived(&mut self, chunk: Chunk, source: &Source) -> bool {
        if self.behind.is_empty() {
            match source.arrived.put(chunk) {
                Ok(()) => return false,
                Err(chunk) => self.behind.push_back(chunk),
            }
            return self.hand_over(source);
        }
        self.behind.push_back(chunk);
        false
    }

    /// Gives the reader what waits, for which it has room for one. Says whether some are left.
    fn hand_over(&mut self, source: &Source) -> bool {
        if self.behind.is_empty() {
            return false;
        }
        // Said before it is tried: a reader that takes one meanwhile calls for the next.
        source.behind.store(true, SeqCst);
        while let Some(chunk) = self.behind.pop_front() {
            if let Err(chunk) = source.arrived.put(chunk) {
                self.behind.push_front(chunk);
                return true;
            }
            source.reader.wake();
        }
        source.behind.store(false, SeqCst);
        // On another thread it may have taken the last one by now, and have waited for another.
        source.reader.wake();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Stream, Threads, Watcher};
    use crate::socket::{finish, recv, send_all};
    use futures_lite::future::{block_on, poll_once};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A ring with a thread of its own; none where the kernel has none.
    fn ring() -> Option<Arc<Ring>> {
        match Threads::with_uring(1).ok()?.watcher() {
            Watcher::Ring(ring) => Some(Arc::clone(ring)),
            _ => None,
        }
    }

    fn connected(ring: &Arc<Ring>) -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("there are sockets");
        ours.set_nonblocking(true).expect("a socket");
        theirs.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let socket = socket2::Socket::from(std::os::fd::OwnedFd::from(ours));
        let watcher = Watcher::Ring(Arc::clone(ring));
        (Stream::new(socket, Buffers::new(16 << 10, 4), &watcher).expect("a socket"), theirs)
    }

    #[test]
    fn a_socket_that_is_dropped_while_the_ring_has_it_hurts_nobody_and_leaves_nothing() {
        let Some(ring) = ring() else { return };
        let (kept, mut other) = connected(&ring);
        block_on(async {
            for round in 0..300_u32 {
                let (ours, mut theirs) = connected(&ring);
                // Received from, sent on, read by calls, or all of it.
                if round & 1 > 0 {
                    let _ = poll_once(recv(&ours)).await;
                }
                if round & 2 > 0 {
                    theirs.write_all(&vec![b'x'; 5000 * (round as usize & 7)]).expect("room");
                    let _ = poll_once(recv(&ours)).await;
                }
                if round & 4 > 0 {
                    let mut chunks = VecDeque::from([Chunk::from(b"last words".to_vec())]);
                    send_all(&ours, &mut chunks, |_| {}).await.expect("it is open");
                    if round & 8 > 0 {
                        finish(&ours).await.expect("it is open");
                    }
                }
                drop(ours);
                let mut words = Vec::new();
                // What was not read makes a reset of the end of a unix socket.
                let _ = theirs.read_to_end(&mut words);
                let expected: &[u8] = if round & 4 > 0 { b"last words" } else { b"" };
                assert_eq!(words, expected, "round {round}");
                let word = round.to_string();
                other.write_all(word.as_bytes()).expect("room");
                let came = recv(&kept).await.expect("it is open").expect("no end");
                assert_eq!(*came, *word.as_bytes());
            }
        });
        drop(kept);
        let since = Instant::now();
        while !ring.sources().is_empty() {
            assert!(since.elapsed() < PATIENCE, "{} are left", ring.sources().len());
            std::thread::yield_now();
        }
    }

    #[test]
    fn whoever_is_sent_much_reads_no_further_than_it_asks() {
        let Some(ring) = ring() else { return };
        let (ours, mut theirs) = connected(&ring);
        let sender = std::thread::spawn(move || {
            let block = vec![b'x'; 64 << 10];
            let mut sent = 0;
            let short = Duration::from_millis(100);
            theirs.set_write_timeout(Some(short)).expect("a socket");
            while sent < 64 << 20 {
                match theirs.write(&block) {
                    Ok(count) => sent += count,
                    // The kernel has no room, and nobody reads.
                    Err(_) => break,
                }
            }
            (theirs, sent)
        });
        let first = block_on(recv(&ours)).expect("it is open").expect("no end");
        let (theirs, sent) = sender.join().expect("no panic");
        let unread = rustix::io::ioctl_fionread(ours.socket()).expect("a socket");
        let received = sent - usize::try_from(unread).expect("it fits");
        assert!(received <= Limits::AHEAD && received < sent, "{received} of {sent}");
        drop(theirs);
        let mut came = first.len();
        block_on(async {
            while let Some(chunk) = recv(&ours).await.expect("it is open") {
                came += chunk.len();
            }
        });
        assert_eq!(came, sent);
    }
}
