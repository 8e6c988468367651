//! The simulated network: what TCP does to a program, without TCP.
//!
//! ```text
//!   send ──> [ flight: in the sender's kernel and on the wire ] ──courier──> [ arrived: in the receiver's kernel ] ──> recv
//! ```
//!
//! A send takes any part of what it is given, and a recv gives any part of what has arrived. The courier comes after a
//! while, carries any part of the flight, and no more than the receiver has room for. A reset destroys the flight of
//! whoever resets, and what has arrived can still be read: so a proxy that resets too early loses bytes here, too.
//!
//! Not modelled: a backend that accepts while the proxy has given up dialling it, and sockets that seem ready and are not.

use super::world::{Alarm, World};
use crate::runtime::Listen;
use crate::socket::{Chunk, Socket, advance};
use crate::testing::waits::{Wait, note};
use crate::{Boxed, Endpoint};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Who listens, and what is to happen to whoever dials a backend.
#[derive(Default)]
pub(super) struct Lobby {
    proxy: Option<Arc<Mutex<Queue>>>,
    backends: BTreeMap<String, Backend>,
    /// How many sockets the proxy may have open, and has.
    pub(super) fd_limit: usize,
    pub(super) fds: usize,
    /// The side whose peers may wait for the other to end first.
    pub(super) polite: &'static str,
    /// Clients that the network lost while they waited to be accepted.
    pub(super) lost: BTreeSet<String>,
}

/// What a backend does with a socket that was accepted.
pub(super) type Serve = Arc<dyn Fn(Arc<End>) + Send + Sync>;

#[derive(Clone)]
struct Backend {
    serve: Serve,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Arc<End>, Endpoint)>,
    backlog: usize,
    listener: Option<Waker>,
}

/// Room in each kernel; small, so that a run meets its bounds often.
const ROOM: usize = 700;

impl Lobby {
    pub(super) fn add_backend(&mut self, endpoint: &Endpoint, serve: Serve) {
        self.backends.insert(endpoint.to_string(), Backend { serve });
    }
}

/// Connects a client to the proxy: at once, as a kernel does it for the backlog.
pub(super) fn connect(world: &World, client: Endpoint) -> io::Result<Arc<dyn Socket>> {
    let Some(queue) = world.lobby(|lobby| lobby.proxy.clone()) else {
        return Err(ErrorKind::ConnectionRefused.into());
    };
    let mut queue = lock(&queue);
    if queue.waiting.len() >= queue.backlog {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    let (ours, theirs) = pair(world);
    queue.waiting.push_back((ours, client));
    let listener = queue.listener.take();
    drop(queue);
    wake(listener);
    Ok(theirs)
}

pub(super) fn listen(world: &World, endpoint: &Endpoint, backlog: u32) -> Box<dyn Listen> {
    let queue = Arc::new(Mutex::new(Queue { backlog: backlog as usize, ..Queue::default() }));
    world.lobby(|lobby| lobby.proxy = Some(Arc::clone(&queue)));
    Box::new(Listener { world: world.clone(), endpoint: endpoint.clone(), queue })
}

struct Listener {
    world: World,
    endpoint: Endpoint,
    queue: Arc<Mutex<Queue>>,
}

impl Listen for Listener {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn try_accept(&self) -> io::Result<(Arc<dyn Socket>, Endpoint)> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        take_fd(&self.world)?;
        let (end, client) = queue.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        drop(queue);
        if self.world.chance(1) {
            self.world.count("fault: client gone before accept");
            self.world.lobby(|lobby| lobby.lost.insert(client.to_string()));
            let_go(&self.world);
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok((charge(end, Fd(self.world.clone())), client))
    }

    fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() {
            queue.listener = Some(cx.waker().clone());
            note(Wait::Other("a client"));
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.world.lobby(|lobby| lobby.proxy = None);
        let left = std::mem::take(&mut lock(&self.queue).waiting);
        drop(left);
    }
}

/// Connects the proxy to a backend, or not.
pub(super) async fn dial(world: World, backend: Endpoint) -> io::Result<Arc<dyn Socket>> {
    take_fd(&world)?;
    let fd = Fd(world.clone());
    let found = world.lobby(|lobby| lobby.backends.get(&backend.to_string()).cloned());
    let latency = world.while_up_to(Duration::from_millis(5));
    sleep(&world, latency).await;
    let Some(found) = found else { return Err(ErrorKind::ConnectionRefused.into()) };
    match world.roll(100) {
        0..10 => {
            world.count("fault: connect refused");
            Err(ErrorKind::ConnectionRefused.into())
        }
        10..15 => {
            world.count("fault: connect hangs");
            std::future::pending().await
        }
        15..25 => {
            world.count("fault: connect slow");
            let slow = world.while_up_to(Duration::from_millis(300));
            sleep(&world, slow).await;
            Ok(accepted(&world, &found, fd))
        }
        _ => Ok(accepted(&world, &found, fd)),
    }
}

fn accepted(world: &World, backend: &Backend, fd: Fd) -> Arc<dyn Socket> {
    let (ours, theirs) = pair(world);
    (backend.serve)(theirs);
    charge(ours, fd)
}

async fn sleep(world: &World, time: Duration) {
    use crate::runtime::Runtime;
    world.sleep(time).await;
}

/// One of the proxy's file descriptors.
struct Fd(World);

impl Drop for Fd {
    fn drop(&mut self) {
        let_go(&self.0);
    }
}

fn take_fd(world: &World) -> io::Result<()> {
    let taken = world.lobby(|lobby| {
        let free = lobby.fds < lobby.fd_limit;
        lobby.fds += usize::from(free);
        free
    });
    if taken {
        return Ok(());
    }
    world.count("fault: no file descriptor left");
    Err(rustix::io::Errno::MFILE.into())
}

fn let_go(world: &World) {
    world.lobby(|lobby| lobby.fds -= 1);
}

/// Makes an end one of the proxy's, which costs a file descriptor until it is dropped.
fn charge(end: Arc<End>, fd: Fd) -> Arc<dyn Socket> {
    // An end is handed to the proxy once.
    let _ = end.fd.set(fd);
    end
}

/// One end of a connection.
pub(super) struct End {
    world: World,
    wire: Arc<Mutex<Wire>>,
    me: usize,
    armed: AtomicBool,
    /// Set if it is the proxy's.
    fd: OnceLock<Fd>,
}

/// Both directions: what the first end sends, and what the second does.
#[derive(Default)]
struct Wire {
    lanes: [Lane; 2],
    /// The end has been told of a reset: it is dead in both directions.
    reset: [bool; 2],
    /// The end has been dropped.
    gone: [bool; 2],
    /// A send of this end has failed.
    failed: [bool; 2],
}

#[derive(Default)]
struct Lane {
    flight: VecDeque<u8>,
    arrived: VecDeque<u8>,
    fin_sent: bool,
    fin_arrived: bool,
    courier: bool,
    sender: Option<Waker>,
    delivered: Option<Waker>,
    receiver: Option<Waker>,
}

fn pair(world: &World) -> (Arc<End>, Arc<End>) {
    let wire = Arc::<Mutex<Wire>>::default();
    let end = |me| {
        let (world, wire) = (world.clone(), Arc::clone(&wire));
        Arc::new(End { world, wire, me, armed: AtomicBool::new(true), fd: OnceLock::new() })
    };
    (end(0), end(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl Lane {
    /// What is under way never arrives, an end that was behind it included.
    fn destroy(&mut self) {
        self.flight.clear();
        self.fin_sent = self.fin_arrived;
    }

    fn wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        [self.sender.take(), self.delivered.take(), self.receiver.take()].into_iter().flatten()
    }
}

impl End {
    /// Bytes that its peer has sent, and that it has not received.
    pub(super) fn coming(&self) -> usize {
        let state = lock(&self.wire);
        let lane = &state.lanes[self.other()];
        lane.flight.len() + lane.arrived.len()
    }

    fn other(&self) -> usize {
        1 - self.me
    }

    /// Sends the courier of the lane of `from` on its way, if there is anything to carry.
    fn call_courier(world: &World, wire: &Arc<Mutex<Wire>>, from: usize) {
        let mut state = lock(wire);
        let lane = &mut state.lanes[from];
        let work = !lane.flight.is_empty() || (lane.fin_sent && !lane.fin_arrived);
        if !work || lane.courier {
            return;
        }
        lane.courier = true;
        drop(state);
        let mut after = world.while_up_to(Duration::from_millis(3));
        if world.chance(1) {
            world.count("fault: stall on the wire");
            // Shorter than the half-close timeout: it is not the wire that should be timed out.
            after += world.while_up_to(Duration::from_secs(20));
        }
        let wire = Arc::clone(wire);
        world.alarm(after, Alarm::Act(Box::new(move |world| Self::carry(world, &wire, from))));
    }

    fn carry(world: &World, wire: &Arc<Mutex<Wire>>, from: usize) {
        let to = 1 - from;
        let most = world.roll(ROOM) + 1;
        let mut state = lock(wire);
        let gone = state.gone[to];
        let lane = &mut state.lanes[from];
        lane.courier = false;
        if gone && !(lane.flight.is_empty() && lane.fin_sent) {
            // Bytes for an end that has closed: its kernel answers with a reset.
            drop(state);
            return Self::tell_reset(world, wire, from);
        }
        let room = ROOM.saturating_sub(lane.arrived.len());
        let count = lane.flight.len().min(room).min(most);
        let bytes = lane.flight.drain(..count);
        lane.arrived.extend(bytes);
        if lane.flight.is_empty() && lane.fin_sent {
            lane.fin_arrived = true;
        }
        let blocked = count == 0 && !lane.flight.is_empty();
        let wakers = lane.wakers();
        drop(state);
        wake(wakers);
        if !blocked {
            Self::call_courier(world, wire, from);
        }
    }

    /// The end `who` hears of a reset: all that it had under way is lost, and what has arrived can be read.
    fn tell_reset(world: &World, wire: &Arc<Mutex<Wire>>, who: usize) {
        let mut state = lock(wire);
        state.reset[who] = true;
        state.lanes[who].destroy();
        let wakers: Vec<_> = state.lanes.iter_mut().flat_map(Lane::wakers).collect();
        drop(state);
        wake(wakers);
        world.count("reset arrives");
    }
}

impl Socket for End {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let part = self.world.roll(ROOM) + 1;
        let buffers = self.world.buffers();
        let mut state = lock(&self.wire);
        let (reset, failed) = (state.reset[self.me], state.failed[self.me]);
        let lane = &mut state.lanes[self.other()];
        if !lane.arrived.is_empty() {
            let mut chunk = match buffers {
                // Both the proxy and its peers lease here; a peer drops its chunk before it waits again.
                Some(buffers) => buffers.lease(),
                None => Chunk::from(vec![0; 64]),
            };
            let count = lane.arrived.len().min(part).min(chunk.len());
            if count < lane.arrived.len() && count < chunk.len() {
                self.world.count("fault: short read");
            }
            for (place, byte) in chunk.iter_mut().zip(lane.arrived.drain(..count)) {
                *place = byte;
            }
            chunk.truncate(count);
            drop(state);
            // There is room again.
            Self::call_courier(&self.world, &self.wire, self.other());
            return Poll::Ready(Ok(Some(chunk)));
        }
        if reset || (lane.fin_arrived && failed) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if lane.fin_arrived {
            return Poll::Ready(Ok(None));
        }
        lane.receiver = Some(cx.waker().clone());
        note(Wait::Other("bytes from its peer"));
        Poll::Pending
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Poll<io::Result<usize>> {
        let part = self.world.roll(ROOM) + 1;
        let mut state = lock(&self.wire);
        if state.reset[self.me] || state.lanes[self.me].fin_sent {
            state.failed[self.me] = true;
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let lane = &mut state.lanes[self.me];
        let room = ROOM.saturating_sub(lane.flight.len()).min(part);
        if room == 0 {
            lane.sender = Some(cx.waker().clone());
            note(Wait::Other("its peer to take bytes"));
            return Poll::Pending;
        }
        let bytes: Vec<u8> =
            chunks.iter().flat_map(|chunk| chunk.iter().copied()).take(room).collect();
        let wanted: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        if bytes.len() < wanted {
            self.world.count("fault: short write");
        }
        lane.flight.extend(&bytes);
        drop(state);
        advance(chunks, bytes.len());
        Self::call_courier(&self.world, &self.wire, self.me);
        Poll::Ready(Ok(bytes.len()))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut state = lock(&self.wire);
        if state.reset[self.me] {
            state.failed[self.me] = true;
            return Err(ErrorKind::NotConnected.into());
        }
        state.lanes[self.me].fin_sent = true;
        drop(state);
        Self::call_courier(&self.world, &self.wire, self.me);
        Ok(())
    }

    fn pending(&self) -> usize {
        lock(&self.wire).lanes[self.me].flight.len()
    }

    fn delivered(&self) -> Boxed<'_, ()> {
        Box::pin(poll_fn(|cx| {
            let mut state = lock(&self.wire);
            if state.reset[self.me] || state.lanes[self.me].flight.is_empty() {
                return Poll::Ready(());
            }
            state.lanes[self.me].delivered = Some(cx.waker().clone());
            note(Wait::Other("bytes to arrive at its peer"));
            Poll::Pending
        }))
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = lock(&self.wire);
        state.gone[self.me] = true;
        let unread = !state.lanes[self.other()].arrived.is_empty();
        // As Linux does it (tcp_close): linger 0 resets, and so does closing with bytes unread.
        let resets = (self.armed.load(Ordering::Relaxed) || unread) && !state.reset[self.me];
        if resets {
            state.lanes[self.me].destroy();
        } else {
            state.lanes[self.me].fin_sent = true;
        }
        drop(state);
        if resets {
            let (wire, who) = (Arc::clone(&self.wire), self.other());
            let after = self.world.while_up_to(Duration::from_millis(3));
            let tell = move |world: &World| Self::tell_reset(world, &wire, who);
            self.world.alarm(after, Alarm::Act(Box::new(tell)));
        } else {
            Self::call_courier(&self.world, &self.wire, self.me);
        }
        // Bytes that are on their way to this end meet nobody.
        Self::call_courier(&self.world, &self.wire, self.other());
    }
}
