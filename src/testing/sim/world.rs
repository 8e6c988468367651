//! One thread, virtual time, and dice: which ready task runs next, when what arrives, what goes wrong.
//!
//! ```text
//!   ready tasks ──dice──> one runs ──> it wakes others, sends, sleeps
//!        ^                                          |
//!        └── none ready: the clock jumps to the next alarm
//! ```
//!
//! All of it is behind locks that are never contended, because `Runtime` is for runtimes with threads. Nothing is woken
//! while the state is locked.

use super::net::{Lobby, dial, listen};
use crate::runtime::{Listen, Listening, Options, Running, Runtime, Task};
use crate::socket::{Buffers, Socket};
use crate::{Boxed, ConnId, Endpoint};
use async_task::Runnable;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The simulated world. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Shared>);

struct Shared {
    ready: Arc<Mutex<Vec<Runnable<Label>>>>,
    state: Mutex<State>,
    /// Tasks that have not ended, by what they are.
    alive: Mutex<BTreeMap<usize, Label>>,
    next_task: AtomicUsize,
    start: Instant,
}

struct State {
    dice: fastrand::Rng,
    now: Duration,
    alarms: BTreeMap<(Duration, u64), Alarm>,
    next_alarm: u64,
    steps: u64,
    /// A digest of every choice so far: two runs that differ anywhere differ here.
    digest: u64,
    tally: Tally,
    lobby: Lobby,
    buffers: Option<Buffers>,
    current: Option<ConnId>,
}

/// What happens when its time has come.
pub(super) enum Alarm {
    Wake(Waker),
    Act(Box<dyn FnOnce(&World) + Send>),
}

/// What a task is, for whoever wants to know what a run still waits for.
#[derive(Clone, Copy)]
pub(super) struct Label {
    name: &'static str,
    conn: Option<ConnId>,
}

/// How often what happened, by name; a name is a fault or an ending.
pub type Tally = BTreeMap<String, u64>;

/// Why a run was given up.
pub(super) enum Stuck {
    /// Nobody can run and no alarm is set.
    Waiting,
    /// It goes on and on.
    Endless,
}

/// More than any run needs; a run that has come so far spins.
const STEPS: u64 = 3_000_000;

/// More than every timeout together; a run that has come so far waits for something that never comes.
const HOURS: Duration = Duration::from_secs(100 * 3600);

impl World {
    pub(super) fn new(seed: u64) -> World {
        World(Arc::new(Shared {
            ready: Arc::default(),
            state: Mutex::new(State {
                dice: fastrand::Rng::with_seed(seed),
                now: Duration::ZERO,
                alarms: BTreeMap::new(),
                next_alarm: 0,
                steps: 0,
                digest: seed,
                tally: Tally::new(),
                lobby: Lobby::default(),
                buffers: None,
                current: None,
            }),
            alive: Mutex::default(),
            next_task: AtomicUsize::new(0),
            start: Instant::now(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<usize, Label>> {
        self.0.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below `below`, which is not 0.
    pub(super) fn roll(&self, below: usize) -> usize {
        let mut state = self.state();
        let rolled = state.dice.usize(..below);
        state.digest = mix(state.digest, rolled as u64);
        rolled
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    /// A time between nothing and `most`.
    pub(super) fn while_up_to(&self, most: Duration) -> Duration {
        let micros = usize::try_from(most.as_micros()).unwrap_or(usize::MAX - 1);
        Duration::from_micros(self.roll(micros + 1) as u64)
    }

    /// Counts that this happened.
    pub(super) fn count(&self, what: &str) {
        let mut state = self.state();
        match state.tally.get_mut(what) {
            Some(times) => *times += 1,
            None => {
                state.tally.insert(what.to_string(), 1);
            }
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.state().tally.clone()
    }

    pub(super) fn digest(&self) -> u64 {
        self.state().digest
    }

    /// The time since the start.
    pub(super) fn time(&self) -> Duration {
        self.state().now
    }

    /// What the network knows of who listens where.
    pub(super) fn lobby<T>(&self, look: impl FnOnce(&mut Lobby) -> T) -> T {
        look(&mut self.state().lobby)
    }

    /// The pool of the proxy's buffers, once it listens.
    pub(super) fn buffers(&self) -> Option<Buffers> {
        self.state().buffers.clone()
    }

    /// Sets an alarm.
    pub(super) fn alarm(&self, after: Duration, alarm: Alarm) {
        let mut state = self.state();
        let at = state.now + after;
        state.next_alarm += 1;
        let number = state.next_alarm;
        state.alarms.insert((at, number), alarm);
    }

    /// Starts a task that is none of the proxy's: a peer of the test.
    pub(super) fn start(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, None, Box::pin(task)).detach();
    }

    /// Runs everything until nobody is left, checking `always` after each step.
    pub(super) fn run(&self, mut always: impl FnMut(&World)) -> Result<(), Stuck> {
        loop {
            let next = {
                let mut ready = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner);
                match ready.len() {
                    0 => None,
                    count => {
                        let mut state = self.state();
                        let place = state.dice.usize(..count);
                        state.steps += 1;
                        state.current = ready[place].metadata().conn;
                        let label = *ready[place].metadata();
                        let conn = label.conn.map_or(0, ConnId::number);
                        let who =
                            label.name.len() as u64 + (u64::from(label.name.as_bytes()[0]) << 8);
                        state.digest = mix(state.digest, (place as u64) << 32 | conn << 16 | who);
                        if state.steps > STEPS {
                            return Err(Stuck::Endless);
                        }
                        Some(ready.swap_remove(place))
                    }
                }
            };
            if let Some(runnable) = next {
                runnable.run();
                always(self);
                continue;
            }
            if self.alive().is_empty() {
                return Ok(());
            }
            match self.next_alarm() {
                Some(Alarm::Wake(waker)) => waker.wake(),
                Some(Alarm::Act(act)) => act(self),
                None => return Err(Stuck::Waiting),
            }
            if self.time() > HOURS {
                return Err(Stuck::Waiting);
            }
        }
    }

    fn next_alarm(&self) -> Option<Alarm> {
        let mut state = self.state();
        let ((at, _), alarm) = state.alarms.pop_first()?;
        state.now = at;
        Some(alarm)
    }

    /// The connection whose task is running.
    pub(super) fn current(&self) -> Option<ConnId> {
        self.state().current
    }

    /// Everybody who has not ended, in words.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.alive().values().map(Label::to_string).collect()
    }

    /// Drops what still runs, so that a run that was given up leaves nothing behind.
    pub(super) fn clear(&self) {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let alarms = std::mem::take(&mut self.state().alarms);
        drop(alarms);
        let lobby = std::mem::take(&mut self.state().lobby);
        drop(lobby);
    }
}

/// One step of a digest: the mixing of SplitMix64, which leaves no bit where it was.
fn mix(digest: u64, value: u64) -> u64 {
    let mut mixed = digest ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Runtime for World {
    fn spawn(&self, name: &'static str, conn: Option<ConnId>, task: Boxed<'static, ()>) -> Task {
        let label = Label { name, conn };
        let number = self.0.next_task.fetch_add(1, Ordering::Relaxed);
        self.alive().insert(number, label);
        let left = Left { world: self.clone(), number };
        let ready = Arc::clone(&self.0.ready);
        let schedule =
            move |runnable| ready.lock().unwrap_or_else(PoisonError::into_inner).push(runnable);
        let (runnable, task) = async_task::Builder::new().metadata(label).spawn(
            move |_| async move {
                // Dropped with the task, wherever that stands.
                let _left = left;
                task.await;
            },
            schedule,
        );
        runnable.schedule();
        Task::new(task)
    }

    fn now(&self) -> Instant {
        self.0.start + self.time()
    }

    fn sleep(&self, time: Duration) -> Boxed<'static, ()> {
        let world = self.clone();
        let until = self.time() + time;
        let mut set: Option<Waker> = None;
        Box::pin(poll_fn(move |cx| {
            let now = world.time();
            if now >= until {
                return Poll::Ready(());
            }
            // One alarm for each waker, however often it is polled.
            if !set.as_ref().is_some_and(|set| set.will_wake(cx.waker())) {
                set = Some(cx.waker().clone());
                world.alarm(until - now, Alarm::Wake(cx.waker().clone()));
            }
            Poll::Pending
        }))
    }

    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, endpoint: &Endpoint, options: &Listening) -> io::Result<Box<dyn Listen>> {
        self.state().buffers = Some(options.socket.buffers.clone());
        Ok(listen(self, endpoint, options.backlog))
    }

    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        _: &'a Options,
    ) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(dial(self.clone(), endpoint.clone()))
    }
}

/// Strikes a task off the list of those alive.
struct Left {
    world: World,
    number: usize,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.world.alive().remove(&self.number);
    }
}

impl Running for async_task::Task<(), Label> {
    fn cancel(self: Box<Self>) {
        // Dropping the handle cancels.
    }

    fn detach(self: Box<Self>) {
        (*self).detach();
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.conn {
            Some(conn) => write!(f, "{} of connection {conn}", self.name),
            None => f.write_str(self.name),
        }
    }
}
