//! Grants trunks to clients, and dials them.
//!
//! - **Owns** the trunks that nobody uses, and the queue of those who wait for one.
//! - **Receives** `Lease` and `Back` from client_readers, `Dialed` from its dial tasks, `Down` from trunks.
//! - **Sends to** nobody; answers `Lease`.
//! - **Ends when** its last address is dropped.
//! - **Never** awaits another mailbox, and never sees a payload byte.

use crate::actor;
use crate::framed::Message as ToTrunk;
use crate::framing::{Framing, Trouble};
use crate::mailbox::{Address, Gone, Mailbox, WeakAddress, mailbox};
use crate::proxy::{Route, ask};
use crate::runtime::{Either, Runtime, race, timeout};
use crate::trunk::{self, Trunk};
use async_channel::Sender;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "pool";

/// Messages that may wait. Nobody on the data path waits for this mailbox while a reply is on its way.
const MAILBOX: usize = 64;

pub(crate) enum Message {
    /// Asks for a trunk; dropping the other end of `reply` takes that back.
    Lease { reply: Sender<Result<Lease, Trouble>> },
    /// Nothing is owed on it any more.
    Back(Lease),
    /// A backend has accepted, or none would.
    Dialed(Result<Trunk, String>),
    /// A trunk has ended.
    Down,
}

/// A trunk in the hands of one client.
pub(crate) struct Lease(Trunk);

impl Lease {
    pub(crate) async fn send(&self, message: ToTrunk) -> Result<(), Gone> {
        self.0.address.send(message).await
    }

    /// The trunk has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.address.is_closed()
    }

    /// Waits for that.
    pub(crate) async fn ended(&self) {
        self.0.address.closed().await;
    }
}

/// Settings of a pool of trunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Trunks at most.
    pub trunks: usize,
    /// How long a request may wait for one.
    pub queue_timeout: Duration,
    /// How many requests may wait.
    pub max_queue: usize,
    /// A trunk that nobody has used for so long is closed.
    pub trunk_idle: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            trunks: 8,
            queue_timeout: Duration::from_secs(5),
            max_queue: 1024,
            trunk_idle: Duration::from_secs(60),
        }
    }
}

/// The way to the pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    address: Address<Message>,
    framing: Arc<dyn Framing>,
    queue_timeout: Duration,
    runtime: Arc<dyn Runtime>,
}

impl Pool {
    pub(crate) fn framing(&self) -> Arc<dyn Framing> {
        Arc::clone(&self.framing)
    }

    /// Waits for a trunk, first come first served.
    pub(crate) async fn lease(&self) -> Result<Lease, Trouble> {
        let asked = ask(&self.address, |reply| Message::Lease { reply });
        match timeout(&*self.runtime, self.queue_timeout, asked).await {
            None => Err(Trouble::QueueTimeout),
            // The pool has ended, and with it the proxy.
            Some(None) => Err(Trouble::NoBackend),
            Some(Some(granted)) => granted,
        }
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
}

/// A pool that does not run yet.
pub(crate) fn pool(
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    runtime: Arc<dyn Runtime>,
) -> (Pool, Pooling) {
    let (address, mailbox) = mailbox(MAILBOX);
    let weak = address.downgrade();
    let queue_timeout = config.queue_timeout;
    let pool = Pool { address, framing: Arc::clone(&framing), queue_timeout, runtime };
    (pool, Pooling { mailbox, address: weak, framing, config })
}

impl Pooling {
    pub(crate) async fn run(self, route: Arc<Route>) {
        let Pooling { mailbox, address, framing, config } = self;
        let state = State {
            address,
            framing,
            config,
            route,
            idle: Vec::new(),
            alive: 0,
            dialing: 0,
            next_id: 1,
            waiting: VecDeque::new(),
            failures: 0,
            rest_until: None,
        };
        state.run(mailbox).await;
    }
}

struct State {
    address: WeakAddress<Message>,
    framing: Arc<dyn Framing>,
    config: PoolConfig,
    route: Arc<Route>,
    /// The one used last is used first, so that the others can grow old.
    idle: Vec<(Instant, Lease)>,
    /// Trunks that have not ended, idle or not, and those that are being dialled: `Down` may come before `Dialed`.
    alive: usize,
    dialing: usize,
    next_id: u64,
    waiting: VecDeque<Sender<Result<Lease, Trouble>>>,
    /// Dials that failed one after the other.
    failures: u32,
    rest_until: Option<Instant>,
}

impl State {
    /// The rest behind the first dial that failed; each further one doubles it.
    const REST: Duration = Duration::from_millis(50);
    const LONGEST_REST: Duration = Duration::from_secs(2);

    async fn run(mut self, mut mailbox: Mailbox<Message>) {
        let runtime = Arc::clone(&self.route.runtime);
        let mut tick = runtime.sleep(self.route.config.tick);
        loop {
            match race(mailbox.recv(), tick.as_mut()).await {
                Either::A(Some(message)) => self.take(message),
                Either::A(None) => return self.close(),
                Either::B(()) => {
                    self.close_old(runtime.now());
                    tick = runtime.sleep(self.route.config.tick);
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Lease { reply } => self.lease(reply),
            Message::Back(lease) => self.free(lease),
            Message::Dialed(Ok(trunk)) => {
                self.dialing -= 1;
                (self.failures, self.rest_until) = (0, None);
                self.free(Lease(trunk));
            }
            Message::Dialed(Err(cause)) => {
                self.dialing -= 1;
                self.alive -= 1;
                self.failed(&cause);
            }
            Message::Down => {
                self.alive -= 1;
                self.dial();
            }
        }
    }

    fn lease(&mut self, reply: Sender<Result<Lease, Trouble>>) {
        while let Some((_, lease)) = self.idle.pop() {
            if lease.is_over() {
                continue;
            }
            match grant(&reply, Ok(lease)) {
                None => return,
                Some(lease) => return self.free(lease),
            }
        }
        self.waiting.retain(|waiting| !waiting.is_closed());
        let resting = self.rest_until.is_some_and(|until| self.route.runtime.now() < until);
        let refusal = if resting && self.alive == 0 {
            Trouble::NoBackend
        } else if self.waiting.len() >= self.config.max_queue {
            Trouble::QueueFull
        } else {
            self.waiting.push_back(reply);
            return self.dial();
        };
        grant(&reply, Err(refusal));
    }

    /// A trunk that the next one in the queue may have, or else nobody.
    fn free(&mut self, mut lease: Lease) {
        if lease.is_over() {
            // Its `Down` may have come before it.
            return self.dial();
        }
        while let Some(reply) = self.waiting.pop_front() {
            match grant(&reply, Ok(lease)) {
                None => return,
                Some(back) => lease = back,
            }
        }
        self.idle.push((self.route.runtime.now(), lease));
    }

    fn failed(&mut self, cause: &str) {
        if self.failures == 0 {
            log::warn!(actor = NAME; "no backend accepts: {cause}");
        }
        let rest = Self::REST * 2_u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        self.rest_until = Some(self.route.runtime.now() + rest.min(Self::LONGEST_REST));
        if self.alive == 0 {
            for reply in self.waiting.drain(..) {
                grant(&reply, Err(Trouble::NoBackend));
            }
        }
    }

    /// Dials for those who wait: never more than there are, and never more trunks than are allowed.
    fn dial(&mut self) {
        while self.dialing < self.waiting.len() && self.alive < self.config.trunks {
            (self.dialing, self.alive) = (self.dialing + 1, self.alive + 1);
            let (id, address) = (self.next_id, self.address.clone());
            self.next_id += 1;
            let (framing, route) = (Arc::clone(&self.framing), Arc::clone(&self.route));
            let dialing = async move {
                let dialed = route.backends.connect().await.map(|connected| {
                    let (backend, socket) = (connected.backend, connected.socket);
                    trunk::start(id, backend, socket, framing, address.clone(), &route)
                });
                if let Some(pool) = address.upgrade() {
                    // Gone: the proxy is being dropped.
                    let _ = pool.send(Message::Dialed(dialed)).await;
                }
            };
            actor::spawn(&*self.route.runtime, "dial", None, dialing).detach();
        }
    }

    /// The proxy stops: the trunks that nobody uses end cleanly.
    fn close(self) {
        for (_, lease) in self.idle {
            // Nobody uses it, so there is room; Gone: it has just ended.
            let _ = lease.0.address.try_send(ToTrunk::Fin { owed: false });
        }
    }

    fn close_old(&mut self, now: Instant) {
        let old = |since: Instant| now.saturating_duration_since(since) >= self.config.trunk_idle;
        let (old, young) = std::mem::take(&mut self.idle)
            .into_iter()
            .filter(|(_, lease)| !lease.is_over())
            .partition(|(since, _)| old(*since));
        self.idle = young;
        let old: Vec<(Instant, Lease)> = old;
        for (_, lease) in old {
            // Nobody uses it, so there is room; Gone: it has just ended.
            let _ = lease.0.address.try_send(ToTrunk::Fin { owed: false });
        }
    }
}

/// Gives an answer; what it was if nobody waits for it any more.
fn grant(reply: &Sender<Result<Lease, Trouble>>, answer: Result<Lease, Trouble>) -> Option<Lease> {
    match reply.try_send(answer) {
        Ok(()) => None,
        Err(error) => error.into_inner().ok(),
    }
}
