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
use crate::testing::waits::{self, Wait};
use crate::{Boxed, ConnId, Endpoint};
use async_task::Runnable;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The simulated world. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Shared>);

struct Shared {
    seed: u64,
    ready: Arc<Mutex<Vec<Runnable<Label>>>>,
    state: Mutex<State>,
    /// Tasks that have not ended: what they are, and what they waited for when they were last polled.
    alive: Mutex<BTreeMap<usize, (Label, Vec<Wait>)>>,
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
    number: usize,
}

/// How often what happened, by name; a name is a fault or an ending.
pub type Tally = BTreeMap<String, u64>;

/// Why a run was given up.
#[derive(Debug)]
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
        waits::read();
        World(Arc::new(Shared {
            seed,
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

    fn ready(&self) -> MutexGuard<'_, Vec<Runnable<Label>>> {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<usize, (Label, Vec<Wait>)>> {
        self.0.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seed(&self) -> u64 {
        self.0.seed
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

    /// Sets an alarm; gives what it is known by.
    pub(super) fn alarm(&self, after: Duration, alarm: Alarm) -> (Duration, u64) {
        let mut state = self.state();
        let at = state.now + after;
        state.next_alarm += 1;
        let key = (at, state.next_alarm);
        state.alarms.insert(key, alarm);
        key
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
    pub(super) fn run(&self, always: impl FnMut(&World)) -> Result<(), Stuck> {
        self.run_for(STEPS, always)
    }

    fn run_for(&self, steps: u64, mut always: impl FnMut(&World)) -> Result<(), Stuck> {
        loop {
            let next = {
                let mut ready = self.ready();
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
                        if state.steps > steps {
                            return Err(Stuck::Endless);
                        }
                        Some(ready.swap_remove(place))
                    }
                }
            };
            if let Some(runnable) = next {
                let number = runnable.metadata().number;
                waits::notes();
                runnable.run();
                if let Some((_, waits)) = self.alive().get_mut(&number) {
                    *waits = waits::notes();
                }
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

    /// Everybody who has not ended, and for whom each waits, in words.
    ///
    /// Whoever waits for a message owns the mailbox; so whoever waits for room in it, or for its closing, waits for him.
    pub(super) fn waiting(&self) -> Vec<String> {
        let alive = self.alive();
        let owner = |mailbox: u64| {
            let owns = |wait: &Wait| *wait == Wait::Message(mailbox);
            let owner = alive.values().find(|(_, waits)| waits.iter().any(owns));
            // Busy with something else, he is not seen waiting for a message.
            owner.map_or_else(
                || format!("the owner of mailbox {mailbox}"),
                |(who, _)| who.to_string(),
            )
        };
        let words = |wait: &Wait| match *wait {
            Wait::Message(mailbox) => format!("a message in mailbox {mailbox}"),
            Wait::Room(mailbox) => format!("room at {}", owner(mailbox)),
            Wait::Closing(mailbox) => format!("the end of {}", owner(mailbox)),
            Wait::Other(what) => what.to_string(),
        };
        let line = |(who, waits): &(Label, Vec<Wait>)| match &waits[..] {
            [] => who.to_string(),
            waits => {
                format!("{who} (for {})", waits.iter().map(words).collect::<Vec<_>>().join(" or "))
            }
        };
        alive.values().map(line).collect()
    }

    /// Drops what still runs, so that a run that was given up leaves nothing behind.
    ///
    /// What is dropped wakes others and sets alarms, so nothing is locked meanwhile, and it takes more than one round.
    pub(super) fn clear(&self) {
        loop {
            let ready = std::mem::take(&mut *self.ready());
            let alarms = std::mem::take(&mut self.state().alarms);
            let lobby = std::mem::take(&mut self.state().lobby);
            if ready.is_empty() && alarms.is_empty() {
                return;
            }
            drop((ready, alarms, lobby));
        }
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
        let number = self.0.next_task.fetch_add(1, Ordering::Relaxed);
        let label = Label { name, conn, number };
        self.alive().insert(number, (label, Vec::new()));
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
        Box::pin(Sleep { world: self.clone(), until: self.time() + time, alarm: None })
    }

    fn random(&self) -> u32 {
        self.roll(1 << 32) as u32
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

/// A wait for a time. Dropped, it wakes nobody any more, like a real timer: a task that is woken by accident would hide
/// that the wakeup it needs never comes.
struct Sleep {
    world: World,
    until: Duration,
    alarm: Option<((Duration, u64), Waker)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.world.time();
        if now >= self.until {
            return Poll::Ready(());
        }
        // One alarm for each waker, however often it is polled.
        if !self.alarm.as_ref().is_some_and(|(_, set)| set.will_wake(cx.waker())) {
            self.forget();
            let key = self.world.alarm(self.until - now, Alarm::Wake(cx.waker().clone()));
            self.alarm = Some((key, cx.waker().clone()));
        }
        waits::note(Wait::Other("a time"));
        Poll::Pending
    }
}

impl Sleep {
    fn forget(&mut self) {
        if let Some((key, _)) = self.alarm.take() {
            let forgotten = self.world.state().alarms.remove(&key);
            // It may hold the last of a task: dropped when nothing is locked.
            drop(forgotten);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;
    use async_channel::bounded;
    use std::future::pending;

    #[test]
    fn a_run_that_spins_is_given_up_and_leaves_nothing_behind() {
        let world = World::new(1);
        let (sender, receiver) = bounded::<()>(1);
        world.start("waits for what the other drops", async move {
            let _ = receiver.recv().await;
        });
        world.start("spins", async move {
            let _sender = sender;
            loop {
                futures_lite::future::yield_now().await;
            }
        });
        let ran = world.run_for(1000, |_| {});
        assert!(matches!(ran, Err(Stuck::Endless)));
        world.clear();
        assert!(world.waiting().is_empty(), "{:?}", world.waiting());
    }

    #[test]
    fn a_run_in_which_nobody_can_go_on_says_who_waits() {
        let world = World::new(1);
        world.start("waits for ever", pending());
        assert!(matches!(world.run(|_| {}), Err(Stuck::Waiting)));
        assert_eq!(world.waiting(), ["waits for ever"]);
        world.clear();
    }

    #[test]
    fn it_says_who_waits_for_whom() {
        let world = World::new(1);
        let (to_first, mut first) = mailbox::<()>(1);
        let (to_second, mut second) = mailbox::<()>(1);
        world.start("first", async move {
            let _ = first.recv().await;
            drop(to_second);
        });
        world.start("second", async move {
            let _ = second.recv().await;
            drop(to_first);
        });
        assert!(matches!(world.run(|_| {}), Err(Stuck::Waiting)));
        let waiting = world.waiting();
        assert!(waiting[0].starts_with("first (for a message in mailbox "), "{waiting:?}");

        let world = World::new(1);
        let (address, mut inbox) = mailbox::<()>(1);
        let stranger = address.clone();
        world.start("owner", async move {
            let _ = inbox.recv().await;
        });
        world.start("waits for his end", async move {
            stranger.closed().await;
            drop(address);
        });
        assert!(matches!(world.run(|_| {}), Err(Stuck::Waiting)));
        assert_eq!(world.waiting()[1], "waits for his end (for the end of owner)");
        world.clear();
    }

    #[test]
    fn time_passes_only_when_nobody_can_run_and_a_dropped_sleep_wakes_nobody() {
        let world = World::new(1);
        let inner = world.clone();
        world.start("sleeps", async move {
            let mut long = inner.sleep(Duration::from_secs(9));
            assert!(futures_lite::future::poll_once(&mut long).await.is_none());
            drop(long);
            inner.sleep(Duration::from_secs(2)).await;
            assert_eq!(inner.time(), Duration::from_secs(2));
        });
        assert!(world.run(|_| {}).is_ok());
        assert_eq!(world.time(), Duration::from_secs(2));
    }
}
