//! Grants trunks to clients, and dials them.
//!
//! - **Owns** the trunks that nobody uses, those that clients share, and the queues of those who wait for one.
//! - **Receives** `Lease`, `Back` and `Pinned` from client_readers, `Back` from `reset`, `Dialed` from its dial tasks, `Down`
//!   from trunks, `Stop` from the proxy.
//! - **Sends to** nobody; answers `Lease`.
//! - **Ends when** it is told to stop, and its trunks have ended or have had a moment to.
//! - **Never** awaits another mailbox, and never sees a payload byte.
//!
//! A trunk is of one of two kinds: leased to one client at a time (pool), or shared by many at once (mux). Where trunks are
//! shared there are some of the first kind besides, for requests that cannot share. A client that binds its trunk by state
//! that it leaves there takes it out of their number: it holds a pin, of which there are only so many too.

use crate::actor;
use crate::framed::Message as ToTrunk;
use crate::framing::{Framing, Trouble};
use crate::mailbox::{Address, Mailbox, Sending, WeakAddress, mailbox};
use crate::proxy::Route;
use crate::runtime::{Alarm, Either, Runtime, race, timeout};
use crate::slots::{Slot, Slots};
use crate::socket::Buffers;
use crate::trunk::{self, Trunk};
use crate::units::show_duration;
use futures_lite::future::pending;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "pool";

/// Messages that may wait. Nobody on the data path waits for this mailbox while a reply is on its way.
const MAILBOX: usize = 64;

pub(crate) enum Message {
    /// Asks for a trunk.
    Lease { shared: bool, reply: Answer },
    /// Nothing is owed on it any more.
    Back(Lease),
    /// A client has pinned its trunk, which no longer counts among the others.
    Pinned,
    /// A backend has accepted, or none would.
    Dialed { shared: bool, dialed: Result<Trunk, String> },
    /// A trunk has ended; `useless`, the backend ended it at once.
    Down { id: u64, shared: bool, useless: bool },
    /// The proxy stops: trunks are to end cleanly, and then the pool.
    Stop,
}

/// Where a client is told what has come of its asking for a trunk. It has one for as long as it lasts, for it may ask for each
/// request; dropped while it waits, it takes that back.
pub(crate) struct Window {
    address: Address<Granted>,
    mailbox: Mailbox<Granted>,
}

type Granted = Result<Lease, Trouble>;

/// Owed to a window. Dropped, it says that there is no trunk: so whoever asks hears of the end of the pool.
pub(crate) struct Answer(Option<Address<Granted>>);

impl Answer {
    /// What it was, if nobody waits for it any more.
    fn give(mut self, granted: Granted) -> Option<Lease> {
        let left = self.0.take()?.try_send(granted);
        left.err().and_then(|error| error.into_inner().ok())
    }

    /// Nobody waits for it any more.
    fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(Address::is_closed)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(window) = self.0.take() {
            // Closed: nobody waits for it any more.
            let _ = window.try_send(Err(Trouble::NoBackend));
        }
    }
}

/// A trunk in the hands of a client: its own for a while, or one that others have too.
pub(crate) struct Lease(Hold);

enum Hold {
    Own {
        trunk: Trunk,
        /// When it is old.
        until: Instant,
        pin: Option<Slot>,
    },
    Shared {
        id: u64,
        address: Address<ToTrunk>,
        mark: Arc<Mark>,
    },
}

/// Held with each reply that a shared trunk owes.
#[derive(Clone, Default)]
pub(crate) struct Share(Arc<()>);

/// What the pool and the clients know of a trunk that they share. Each client has a hold on it.
#[derive(Default)]
struct Mark {
    owed: Share,
    /// It is old: clients are to leave it when nothing is owed to them.
    retired: AtomicBool,
}

impl Lease {
    fn address(&self) -> &Address<ToTrunk> {
        match &self.0 {
            Hold::Own { trunk, .. } => &trunk.address,
            Hold::Shared { address, .. } => address,
        }
    }

    /// Which trunk it is.
    pub(crate) fn trunk(&self) -> u64 {
        match &self.0 {
            Hold::Own { trunk, .. } => trunk.id,
            Hold::Shared { id, .. } => *id,
        }
    }

    pub(crate) fn send(&self, message: ToTrunk) -> Sending<'_, ToTrunk> {
        self.address().send(message)
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.0, Hold::Shared { .. })
    }

    /// The trunk has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.address().is_closed()
    }

    /// It is shared, and should be left as soon as nothing is owed.
    pub(crate) fn is_retired(&self) -> bool {
        matches!(&self.0, Hold::Shared { mark, .. } if mark.retired.load(SeqCst))
    }

    /// What a reply holds that a shared trunk owes.
    pub(crate) fn share(&self) -> Option<Share> {
        match &self.0 {
            Hold::Shared { mark, .. } => Some(mark.owed.clone()),
            Hold::Own { .. } => None,
        }
    }

    /// Waits until the trunk has ended.
    pub(crate) async fn ended(&self) {
        self.address().closed().await;
    }

    /// Ends the trunk cleanly, which is of no use to anybody else. Nothing is owed on it.
    pub(crate) async fn close(self) {
        if !self.is_shared() {
            // Gone: it has ended before.
            let _ = self.send(ToTrunk::Fin { owed: false }).await;
        }
    }

    /// The same, by the pool, to which nobody may be slow.
    fn close_now(self) {
        // Nobody uses it, so there is room; Gone: it has just ended.
        let _ = self.address().try_send(ToTrunk::Fin { owed: false });
    }

    fn is_old(&self, now: Instant) -> bool {
        matches!(&self.0, Hold::Own { until, .. } if now >= *until)
    }
}

/// Settings of a pool of trunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Trunks at most that are leased to one client at a time.
    pub trunks: usize,
    /// Trunks at most that clients share; 0 shares none, and every request waits for a trunk of its own.
    pub shared: usize,
    /// Trunks that are there though nobody needs them: shared ones, or if none are shared, the others.
    pub min_trunks: usize,
    /// Clients at most that have taken a trunk out of those for as long as their state lasts.
    pub max_pinned: usize,
    /// How long a request may wait for a trunk; by up to a quarter longer, for not each has a timer of its own.
    pub queue_timeout: Duration,
    /// How many requests may wait.
    pub max_queue: usize,
    /// How long a trunk that owes a reply may be silent. Then it is closed.
    pub reply_timeout: Option<Duration>,
    /// A trunk that nobody has used for so long is closed.
    pub trunk_idle: Duration,
    /// A trunk is closed when it is so old, or up to a tenth older, and nothing is owed on it.
    pub trunk_lifetime: Option<Duration>,
    /// Replies at most that one client may await on a shared trunk.
    pub credit: usize,
    /// Bytes of replies at most that may wait for one client on a shared trunk. A client that takes them so slowly that there
    /// are more is closed, for the others would have to wait too.
    pub reply_buffer: usize,
    /// Whether there is a line in the log for each request: how long it waited for a trunk, how long it had one, when the
    /// first byte of its reply came, and by which trunk.
    pub log_requests: bool,
}

impl Default for PoolConfig {
    /// Trunks are leased, none is shared.
    fn default() -> Self {
        PoolConfig {
            trunks: 8,
            shared: 0,
            min_trunks: 0,
            max_pinned: 1000,
            queue_timeout: Duration::from_secs(5),
            max_queue: 1024,
            reply_timeout: Some(Duration::from_secs(30)),
            trunk_idle: Duration::from_secs(60),
            trunk_lifetime: Some(Duration::from_secs(3600)),
            credit: 32,
            reply_buffer: 16 << 20,
            log_requests: false,
        }
    }
}

impl PoolConfig {
    /// Clients share one trunk, and a few more for requests that cannot share.
    pub fn mux() -> PoolConfig {
        PoolConfig { shared: 1, ..PoolConfig::default() }
    }

    /// Says whether these settings make sense together, and with a framing.
    ///
    /// # Errors
    /// One sentence that names the setting (as its flag is called), what is wrong and what would be right.
    pub fn check(&self, framing: &dyn Framing) -> Result<(), String> {
        let mux = self.shared > 0;
        if mux && !framing.multiplexes() {
            return Err(format!(
                "mode mux is not for framing {}, whose servers may close behind any reply and destroy those of others; use mode pool",
                framing.name()
            ));
        }
        let trunks = if mux { self.shared } else { self.trunks };
        for (name, value, most) in [
            ("trunks", trunks.min(self.trunks), usize::MAX),
            ("max-queue", self.max_queue, usize::MAX),
            // Room for this many is made at the start, or for each client.
            ("max-pinned", self.max_pinned, MOST),
            ("credit", self.credit, MOST),
            ("reply-buffer", self.reply_buffer, usize::MAX),
        ] {
            if value == 0 {
                return Err(format!("{name} 0 would serve nobody; use 1 or more"));
            }
            if value > most {
                return Err(format!("{name} {value} is too many; use at most {most}"));
            }
        }
        let min = self.min_trunks;
        if min > trunks {
            return Err(format!(
                "min-trunks {min} is more than trunks {trunks}; raise that, or lower this"
            ));
        }
        for (name, time) in [
            ("queue-timeout", Some(self.queue_timeout)),
            ("reply-timeout", self.reply_timeout),
            ("trunk-lifetime", self.trunk_lifetime),
        ] {
            if let Some(time) = time.filter(|time| *time < Duration::from_millis(1)) {
                let time = show_duration(time);
                return Err(format!("{name} {time} is too short; use 1ms or more"));
            }
        }
        Ok(())
    }
}

/// How long the backends may take to end their trunks when the proxy stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Bytes of the buffers for requests and replies, and how many of these are kept while nobody uses them.
const SMALL: usize = 1 << 10;
const SPARE: usize = 1 << 10;

/// More pins or credits than this are a slip, not a wish.
const MOST: usize = 1 << 16;

/// The way to the pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    address: Address<Message>,
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    pins: Slots,
    buffers: Buffers,
    runtime: Arc<dyn Runtime>,
}

impl Pool {
    pub(crate) fn framing(&self) -> Arc<dyn Framing> {
        Arc::clone(&self.framing)
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Clients share trunks.
    pub(crate) fn shares(&self) -> bool {
        self.config.shared > 0
    }

    /// See [`PoolConfig::credit`]; without shared trunks, what `mailbox` allows.
    pub(crate) fn credit(&self, mailbox: usize) -> usize {
        if self.shares() { self.config.credit } else { mailbox.saturating_mul(2) }
    }

    pub(crate) fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Waits for a trunk, first come first served.
    pub(crate) async fn lease(&self, window: &mut Option<Window>, shared: bool) -> Granted {
        // In this hand while it waits, for that may be given up.
        let mut open = window.take().unwrap_or_else(|| {
            let (address, mailbox) = mailbox(1);
            Window { address, mailbox }
        });
        let reply = Answer(Some(open.address.clone()));
        // Gone: the pool has ended, and so the answer comes at once.
        let _ = self.address.send(Message::Lease { shared, reply }).await;
        let granted = open.mailbox.recv().await;
        *window = Some(open);
        granted.unwrap_or(Err(Trouble::NoBackend))
    }

    /// For the requests and replies that are small.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Takes a trunk of the client's own out of the number of the others, until it is given back.
    pub(crate) async fn pin(&self, lease: &mut Lease) -> Result<(), Trouble> {
        let Hold::Own { pin: pin @ None, .. } = &mut lease.0 else { return Ok(()) };
        *pin = Some(self.pins.try_take().ok_or(Trouble::TooManyPinned)?);
        // Somebody may be waiting for the place that it leaves. Gone: the proxy is being dropped.
        let _ = self.address.send(Message::Pinned).await;
        Ok(())
    }

    pub(crate) async fn stop(&self) {
        // Gone: it has ended.
        let _ = self.address.send(Message::Stop).await;
    }

    pub(crate) async fn give_back(&self, lease: Lease) {
        // Gone: the proxy is being dropped, and the trunk with it.
        let _ = self.address.send(Message::Back(lease)).await;
    }
}

pub(crate) struct Pooling {
    mailbox: Mailbox<Message>,
    address: WeakAddress<Message>,
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    pins: Slots,
}

/// A pool that does not run yet.
pub(crate) fn pool(
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    runtime: Arc<dyn Runtime>,
) -> (Pool, Pooling) {
    let (address, mailbox) = mailbox(MAILBOX);
    let weak = address.downgrade();
    let pins = Slots::new(config.max_pinned);
    let pool = Pool {
        address,
        framing: Arc::clone(&framing),
        config,
        pins: pins.clone(),
        buffers: Buffers::new(SMALL, SPARE),
        runtime,
    };
    (pool, Pooling { mailbox, address: weak, framing, config, pins })
}

impl Pooling {
    pub(crate) async fn run(self, route: Arc<Route>) {
        let Pooling { mailbox, address, framing, config, pins } = self;
        let now = route.runtime.now();
        let state = State {
            address,
            framing,
            config,
            pins,
            route,
            own: Kind::default(),
            shared: Kind::default(),
            idle: Vec::new(),
            open: Vec::new(),
            next_id: 1,
            failures: 0,
            rest_until: None,
            now,
            recheck: None,
            looks: 0,
        };
        state.run(mailbox).await;
    }
}

/// The trunks of one kind, and who waits for one.
#[derive(Default)]
struct Kind {
    /// Trunks that have not ended, and those that are being dialled: `Down` may come before `Dialed`.
    alive: usize,
    dialing: usize,
    waiting: VecDeque<Waiting>,
}

/// Who waits for a trunk.
struct Waiting {
    reply: Answer,
    /// How many looks there had been when it came.
    since: u64,
}

/// A trunk that clients share.
struct Open {
    trunk: Trunk,
    mark: Arc<Mark>,
    until: Instant,
    /// Since when nobody has used it, as of the last tick.
    unused: Option<Instant>,
}

impl Open {
    fn replies_owed(&self) -> usize {
        Arc::strong_count(&self.mark.owed.0) - 1
    }

    /// Its clients, and the replies that it owes.
    fn load(&self) -> usize {
        Arc::strong_count(&self.mark) - 1 + self.replies_owed()
    }

    fn is_retired(&self) -> bool {
        self.mark.retired.load(SeqCst)
    }

    /// Its clients are to leave it; whether they were told before.
    fn retire(&self) -> bool {
        self.mark.retired.swap(true, SeqCst)
    }

    fn lease(&self) -> Lease {
        let (address, mark) = (self.trunk.address.clone(), Arc::clone(&self.mark));
        Lease(Hold::Shared { id: self.trunk.id, address, mark })
    }
}

struct State {
    address: WeakAddress<Message>,
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    pins: Slots,
    route: Arc<Route>,
    own: Kind,
    shared: Kind,
    /// The one used last is used first, so that the others can grow old. With since when nobody has used it, as of the last
    /// tick.
    idle: Vec<(Option<Instant>, Lease)>,
    open: Vec<Open>,
    next_id: u64,
    /// Dials that failed one after the other.
    failures: u32,
    rest_until: Option<Instant>,
    /// The time of the last tick, for what need not be known more exactly: the clock is not read for each request.
    now: Instant,
    /// When to look again whether somebody waits, before the next tick.
    recheck: Option<Instant>,
    /// Looks at who waits, an eighth of the limit after each other, while anybody does.
    looks: u64,
}

impl State {
    /// Looks that anybody waits at most. Whoever comes right before one has waited for one less.
    const LOOKS: u64 = 8;

    /// The rest behind the first dial that failed; each further one doubles it. By chance it is up to half shorter.
    const REST: Duration = Duration::from_millis(50);
    const LONGEST_REST: Duration = Duration::from_secs(2);

    async fn run(mut self, mut mailbox: Mailbox<Message>) {
        let runtime = Arc::clone(&self.route.runtime);
        let set = |time| Alarm::set(&*runtime, time);
        let mut tick = set(self.route.config.tick);
        let mut look: Option<Alarm> = None;
        self.dial();
        loop {
            if look.is_none() && self.somebody_waits() {
                look = Some(set(self.config.queue_timeout / Self::LOOKS as u32));
            }
            let looking = async {
                match &mut look {
                    Some(look) => look.await,
                    None => pending().await,
                }
            };
            match race(mailbox.recv(), race(&mut tick, looking)).await {
                Either::A(Some(Message::Stop) | None) => return self.close(mailbox).await,
                Either::A(Some(message)) => {
                    self.take(message);
                    if let Some(until) = self.recheck.take() {
                        tick = set(until.saturating_duration_since(runtime.now()));
                    }
                }
                Either::B(Either::B(())) => {
                    self.look();
                    look = None;
                }
                Either::B(Either::A(())) => {
                    self.now = runtime.now();
                    self.close_old();
                    self.retire_old();
                    self.dial();
                    tick = set(self.route.config.tick);
                }
            }
        }
    }

    fn somebody_waits(&self) -> bool {
        !self.own.waiting.is_empty() || !self.shared.waiting.is_empty()
    }

    /// Tells those who have waited for too long.
    fn look(&mut self) {
        self.looks += 1;
        for kind in [&mut self.own, &mut self.shared] {
            let in_time = |first: &Waiting| self.looks - first.since <= Self::LOOKS;
            let late = kind.waiting.iter().position(in_time).unwrap_or(kind.waiting.len());
            for Waiting { reply, .. } in kind.waiting.drain(..late) {
                reply.give(Err(Trouble::QueueTimeout));
            }
        }
    }

    fn kind(&mut self, shared: bool) -> &mut Kind {
        if shared { &mut self.shared } else { &mut self.own }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Lease { shared: true, reply } => self.share(reply),
            Message::Lease { shared: false, reply } => self.lease(reply),
            Message::Back(mut lease) => {
                self.failures = 0;
                if let Hold::Own { pin, .. } = &mut lease.0 {
                    *pin = None;
                }
                self.free(lease);
            }
            Message::Pinned => self.dial(),
            Message::Dialed { shared, dialed: Ok(trunk) } => {
                self.kind(shared).dialing -= 1;
                self.dialed(shared, trunk);
            }
            Message::Dialed { shared, dialed: Err(cause) } => {
                let kind = self.kind(shared);
                (kind.dialing, kind.alive) = (kind.dialing - 1, kind.alive - 1);
                self.failed(&cause);
            }
            Message::Down { id, shared, useless } => {
                self.down(id, shared);
                if useless {
                    self.failed("a backend has closed at once");
                } else {
                    self.failures = 0;
                }
                self.dial();
            }
            Message::Stop => {}
        }
    }

    /// Grants a trunk of the client's own.
    fn lease(&mut self, reply: Answer) {
        while let Some((_, lease)) = self.idle.pop() {
            if lease.is_over() {
                continue;
            }
            match reply.give(Ok(lease)) {
                None => return,
                Some(lease) => return self.free(lease),
            }
        }
        self.queue(false, reply);
    }

    /// Grants the shared trunk that has the least to do.
    fn share(&mut self, reply: Answer) {
        let usable = |open: &&Open| !open.trunk.address.is_closed() && !open.is_retired();
        let Some(open) = self.open.iter().filter(usable).min_by_key(|open| open.load()) else {
            return self.queue(true, reply);
        };
        let busy = open.load() > 0;
        reply.give(Ok(open.lease()));
        // One more for those who come next, if there may be one.
        if busy && self.shared.dialing == 0 && !self.is_resting() {
            self.dial_one(true);
        }
    }

    fn queue(&mut self, shared: bool, reply: Answer) {
        let resting = self.is_resting();
        let (max_queue, since) = (self.config.max_queue, self.looks);
        let kind = self.kind(shared);
        if kind.waiting.len() >= max_queue {
            // Some may have left.
            kind.waiting.retain(|waiting| !waiting.reply.is_closed());
        }
        let refusal = if resting && kind.alive == 0 {
            Trouble::NoBackend
        } else if kind.waiting.len() >= max_queue {
            Trouble::QueueFull
        } else {
            kind.waiting.push_back(Waiting { reply, since });
            return self.dial();
        };
        reply.give(Err(refusal));
    }

    fn dialed(&mut self, shared: bool, trunk: Trunk) {
        let until = self.old_at();
        if !shared {
            return self.free(Lease(Hold::Own { trunk, until, pin: None }));
        }
        if trunk.address.is_closed() {
            // Its `Down` may have come before it.
            return self.dial();
        }
        let open = Open { trunk, mark: Arc::default(), until, unused: None };
        for Waiting { reply, .. } in std::mem::take(&mut self.shared.waiting) {
            reply.give(Ok(open.lease()));
        }
        self.open.push(open);
    }

    /// A trunk that the next one in the queue may have, or else nobody.
    fn free(&mut self, mut lease: Lease) {
        if lease.is_over() {
            // Its `Down` may have come before it.
            return self.dial();
        }
        let surplus = self.own.alive.saturating_sub(self.pins.taken()) > self.config.trunks;
        if surplus || lease.is_old(self.now) {
            return lease.close_now();
        }
        while let Some(Waiting { reply, .. }) = self.own.waiting.pop_front() {
            match reply.give(Ok(lease)) {
                None => return,
                Some(back) => lease = back,
            }
        }
        self.idle.push((None, lease));
    }

    fn down(&mut self, id: u64, shared: bool) {
        let gone = self.open.iter().position(|open| open.trunk.id == id);
        let retired = gone.is_some_and(|place| self.open.swap_remove(place).is_retired());
        if !retired {
            self.kind(shared).alive -= 1;
        }
    }

    fn is_resting(&self) -> bool {
        self.rest_until.is_some_and(|until| self.route.runtime.now() < until)
    }

    fn failed(&mut self, cause: &str) {
        if self.failures == 0 {
            log::warn!(actor = NAME; "no backend accepts: {cause}");
        }
        let rest = Self::REST * 2_u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        let runtime = &self.route.runtime;
        // Others may have lost the same backend at the same time.
        let rest = rest.min(Self::LONGEST_REST).mul_f64(1.0 - chance(&**runtime) / 2.0);
        self.rest_until = Some(runtime.now() + rest);
        self.recheck = self.rest_until;
        for kind in [&mut self.own, &mut self.shared] {
            if kind.alive == 0 {
                for Waiting { reply, .. } in kind.waiting.drain(..) {
                    reply.give(Err(Trouble::NoBackend));
                }
            }
        }
    }

    /// Dials for those who wait: never more than there are, and never more trunks than are allowed. And for as many trunks
    /// as there shall always be, while backends accept.
    fn dial(&mut self) {
        if self.is_resting() {
            return;
        }
        while self.own.dialing < self.own.waiting.len() && self.dial_one(false) {}
        while self.shared.dialing == 0 && !self.shared.waiting.is_empty() && self.dial_one(true) {}
        let shares = self.config.shared > 0;
        let most = if shares { self.config.shared } else { self.config.trunks };
        while self.kind(shares).alive < self.config.min_trunks.min(most) && self.dial_one(shares) {}
    }

    /// False if there may be no more trunks of this kind.
    fn dial_one(&mut self, shared: bool) -> bool {
        let pinned = if shared { 0 } else { self.pins.taken() };
        let most = if shared { self.config.shared } else { self.config.trunks };
        let kind = self.kind(shared);
        if kind.alive.saturating_sub(pinned) >= most {
            return false;
        }
        (kind.dialing, kind.alive) = (kind.dialing + 1, kind.alive + 1);
        let (id, address) = (self.next_id, self.address.clone());
        self.next_id += 1;
        let (framing, route) = (Arc::clone(&self.framing), Arc::clone(&self.route));
        let reply_timeout = self.config.reply_timeout;
        let dialing = async move {
            let connecting = route.backends.connect();
            // A panic of an embedder's `Connect` must not cost the place of a trunk.
            let connected = actor::guard("dial", None, connecting).await;
            let connected = connected.unwrap_or_else(|_| Err("the dial panicked".into()));
            let dialed = connected.map(|connected| {
                let setup = trunk::Setup {
                    id,
                    shared,
                    backend: connected.backend,
                    socket: connected.socket,
                    framing,
                    reply_timeout,
                    pool: address.clone(),
                };
                trunk::start(setup, &route)
            });
            if let Some(pool) = address.upgrade() {
                // Gone: the proxy is being dropped.
                let _ = pool.send(Message::Dialed { shared, dialed }).await;
            }
        };
        actor::spawn(&*self.route.runtime, "dial", None, dialing).detach();
        true
    }

    /// The proxy stops: the trunks end cleanly, on which nothing is owed any more. Backends have a moment to end too.
    async fn close(mut self, mut mailbox: Mailbox<Message>) {
        for (_, lease) in std::mem::take(&mut self.idle) {
            lease.close_now();
        }
        let retired = self.open.iter().filter(|open| open.is_retired()).count();
        let mut left = self.own.alive + self.shared.alive + retired;
        // What is owed still is owed to nobody any more: such a trunk is dropped, and so reset.
        self.open.retain(|open| open.replies_owed() == 0);
        for open in &self.open {
            open.lease().close_now();
        }
        let runtime = Arc::clone(&self.route.runtime);
        let ending = async {
            while left > 0 {
                match mailbox.recv().await {
                    None => return,
                    Some(Message::Back(lease)) => lease.close_now(),
                    Some(Message::Dialed { dialed: Err(_), .. } | Message::Down { .. }) => {
                        left -= 1
                    }
                    // Nobody has used it.
                    Some(Message::Dialed { dialed: Ok(trunk), .. }) => drop(trunk),
                    Some(_) => {}
                }
            }
        };
        let _ = timeout(&*runtime, LAST_WORDS, ending).await;
    }

    /// Closes the trunks of one client that nobody has used for long, or that are old.
    fn close_old(&mut self) {
        let now = self.now;
        let shares = self.config.shared > 0;
        let mut spare =
            self.own.alive - if shares { 0 } else { self.config.min_trunks.min(self.own.alive) };
        for (since, lease) in std::mem::take(&mut self.idle) {
            if lease.is_over() {
                continue;
            }
            let since = since.unwrap_or(now);
            let unused = now.saturating_duration_since(since) >= self.config.trunk_idle;
            if lease.is_old(now) || (unused && spare > 0) {
                spare = spare.saturating_sub(1);
                lease.close_now();
            } else {
                self.idle.push((Some(since), lease));
            }
        }
    }

    /// Takes the shared trunks out of use that are old, and closes those that nobody uses.
    fn retire_old(&mut self) {
        let now = self.now;
        for open in &mut self.open {
            if now >= open.until && !open.retire() {
                // Another may take its place already.
                self.shared.alive -= 1;
            }
            // A client that has it still, and nothing on its way, finds out when it asks for something.
            if open.is_retired() && open.replies_owed() == 0 {
                open.lease().close_now();
                continue;
            }
            if open.load() > 0 {
                open.unused = None;
                continue;
            }
            let since = *open.unused.get_or_insert(now);
            let idle = now.saturating_duration_since(since) >= self.config.trunk_idle;
            let spare = self.shared.alive > self.config.min_trunks;
            if idle && spare && !open.retire() {
                self.shared.alive -= 1;
                open.lease().close_now();
            }
        }
    }

    /// When a trunk is old that is new now.
    fn old_at(&self) -> Instant {
        let runtime = &self.route.runtime;
        let never = Duration::from_secs(100 * 365 * 24 * 3600);
        let lifetime = self.config.trunk_lifetime.unwrap_or(never).min(never);
        // Those that were dialled together do not end together.
        runtime.now() + lifetime.mul_f64(1.0 + chance(&**runtime) / 10.0)
    }
}

/// A number from 0 to 1.
fn chance(runtime: &dyn Runtime) -> f64 {
    f64::from(runtime.random()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Line;
    use crate::runtime::AsyncStd;
    use futures_lite::future::{block_on, poll_once};

    fn shared() -> Lease {
        let (address, _) = mailbox(1);
        Lease(Hold::Shared { id: 7, address, mark: Arc::default() })
    }

    fn window() -> (Answer, Mailbox<Granted>) {
        let (address, mailbox) = mailbox(1);
        (Answer(Some(address)), mailbox)
    }

    #[test]
    fn whoever_asks_hears_of_the_end_of_the_pool_before_it_and_while_it_waits() {
        block_on(async {
            let framing = Arc::new(Line::default());
            let (pool, pooling) = pool(framing, PoolConfig::default(), Arc::new(AsyncStd));
            let mut window = None;
            {
                let mut waiting = Box::pin(pool.lease(&mut window, false));
                assert!(poll_once(&mut waiting).await.is_none());
                drop(pooling);
                let told = poll_once(&mut waiting).await.and_then(Result::err);
                assert_eq!(told, Some(Trouble::NoBackend));
            }
            assert!(window.is_some(), "it serves for the next one too");
            let asked = pool.lease(&mut window, true);
            let told = poll_once(Box::pin(asked)).await.and_then(Result::err);
            assert_eq!(told, Some(Trouble::NoBackend));
        });
    }

    #[test]
    fn an_answer_is_given_once_and_comes_back_where_nobody_waits() {
        let (answer, mut mailbox) = window();
        assert!(answer.give(Ok(shared())).is_none());
        assert_eq!(mailbox.try_recv().and_then(Result::ok).map(|lease| lease.trunk()), Some(7));
        assert!(mailbox.try_recv().is_none(), "what was given is not taken back");

        let (answer, mailbox) = window();
        assert!(!answer.is_closed());
        drop(mailbox);
        assert!(answer.is_closed());
        assert_eq!(answer.give(Ok(shared())).map(|lease| lease.trunk()), Some(7));
    }
}
