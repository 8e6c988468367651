//! Knows all proxies and their toxics, and changes them.
//!
//! - **Owns** the proxies, their toxics, and the addresses of the links that live.
//! - **Receives** orders from its owner's [`Faults`](super::Faults); `Attach` from each `link` that starts.
//! - **Sends to** `link`: what has changed, and waits until all have changed it.
//! - **Ends when** its last address is dropped; it takes its proxies with it.
//! - **Never** waits for a peer: a link makes a change at once, whatever its bytes wait for.

use super::link::{self, Change, Link};
use super::toxic::Toxic;
use crate::actor::{self, Running};
use crate::mailbox::{Address, Mailbox, WeakAddress, mailbox};
use crate::runtime::Runtime;
use crate::tunnel::{self, Detour, Exit};
use crate::units::show_error;
use crate::{Boxed, Config, ConnId, Endpoint, Handle, Proxy, Report, Side};
use async_channel::Sender;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(super) const NAME: &str = "registry";

/// Orders and links that may wait their turn.
pub(super) const MAILBOX: usize = 64;

pub(super) enum Message {
    /// A direction of a connection has begun, and asks which toxics it meets.
    Attach {
        id: u64,
        conn: ConnId,
        towards: Side,
        link: Address<link::Message>,
        reply: Sender<Met>,
    },
    Order {
        order: Order,
        reply: Sender<Result<Vec<Proxied>, Refused>>,
    },
    /// Asks for the way through a proxy's toxics, for a proxy that somebody else runs.
    Detour {
        proxy: String,
        reply: Sender<Arc<dyn Detour>>,
    },
}

/// What a link is told when it begins.
pub(super) struct Met {
    /// The connection's number in its proxy.
    pub(super) number: ConnId,
    pub(super) seed: u64,
    pub(super) toxics: Vec<Arc<Toxic>>,
}

/// A proxy, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its name, by which it is asked for.
    pub name: String,
    /// Where it listens; of a name's addresses one is taken, an IPv4 address if there is one.
    pub listen: Endpoint,
    /// Where the bytes go.
    pub backend: Endpoint,
    /// Whether it listens at all.
    pub enabled: bool,
}

/// What is to be another way with a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// See [`New::listen`]. A change ends all connections.
    pub listen: Option<Endpoint>,
    /// See [`New::backend`]. A change ends all connections.
    pub backend: Option<Endpoint>,
    /// See [`New::enabled`]. False ends all connections.
    pub enabled: Option<bool>,
}

/// A proxy, as it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Proxied {
    /// Its name.
    pub name: String,
    /// Where it listens, or would, with the port that the system chose.
    pub listen: Endpoint,
    /// Where the bytes go.
    pub backend: Endpoint,
    /// Whether it listens.
    pub enabled: bool,
    /// Its toxics, in the order in which the bytes of a direction meet them; those towards the backend come first.
    pub toxics: Vec<Toxic>,
    /// What it has done since it was made.
    pub report: Report,
}

/// Makes a changed toxic of one, or says why that cannot be.
pub(super) type Edit = Box<dyn FnOnce(&Toxic) -> Result<Toxic, String> + Send>;

pub(super) enum Order {
    List,
    Create(New),
    /// Makes it unless there is one just like it; one of the same name that is not goes.
    Put(New),
    Update(String, Changes),
    Delete(String),
    Add(String, Toxic),
    Edit(String, String, Edit),
    Remove(String, String),
    Reset,
    Stop,
}

/// Why an order was not carried out. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There is no proxy of that name.
    ProxyNotFound,
    /// There is one already.
    ProxyExists,
    /// The proxy has no toxic of that name.
    ToxicNotFound,
    /// It has one already.
    ToxicExists,
    /// The order makes no sense; in words.
    Invalid(String),
    /// The system did not allow it; in words.
    Failed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::ProxyNotFound => "proxy not found",
            Refused::ProxyExists => "proxy already exists",
            Refused::ToxicNotFound => "toxic not found",
            Refused::ToxicExists => "toxic already exists",
            Refused::Invalid(words) | Refused::Failed(words) => words,
        })
    }
}

impl std::error::Error for Refused {}

pub(super) struct Registry {
    mailbox: Mailbox<Message>,
    address: WeakAddress<Message>,
    runtime: Arc<dyn Runtime>,
    seed: u64,
    ids: u64,
    proxies: BTreeMap<String, Entry>,
}

struct Entry {
    which: Arc<Which>,
    listen: Endpoint,
    backend: Endpoint,
    toxics: Vec<Arc<Toxic>>,
    links: Vec<(Side, Address<link::Message>)>,
    /// Links that lived when those that had ended were last forgotten.
    living: usize,
    running: Option<Runs>,
    /// What was done before it was last enabled.
    before: Report,
    /// Connections before the one that is number 1.
    base: u64,
}

/// One proxy, for as long as it is not replaced.
pub(super) struct Which {
    pub(super) id: u64,
    pub(super) name: String,
}

/// A proxy at work.
struct Runs {
    handle: Handle,
    /// Never sent on; dropping it stops the proxy.
    stop: Sender<Infallible>,
    run: Running<Report>,
}

impl Registry {
    pub(super) fn new(seed: u64, runtime: Arc<dyn Runtime>) -> (Address<Message>, Registry) {
        let (address, mailbox) = mailbox(MAILBOX);
        let weak = address.downgrade();
        let proxies = BTreeMap::new();
        (address, Registry { mailbox, address: weak, runtime, seed, ids: 0, proxies })
    }

    pub(super) async fn run(mut self) {
        while let Some(message) = self.mailbox.recv().await {
            match message {
                Message::Attach { id, conn, towards, link, reply } => {
                    self.attach(id, conn, towards, link, &reply);
                }
                Message::Order { order, reply } => {
                    let done = self.obey(order).await;
                    // Whoever asked may have gone; there is room for the one answer.
                    let _ = reply.try_send(done);
                }
                Message::Detour { proxy, reply } => {
                    if let Some(detour) = self.proxies.get(&proxy).map(|entry| self.detour(entry)) {
                        let _ = reply.try_send(detour);
                    }
                }
            }
        }
    }

    fn attach(
        &mut self,
        id: u64,
        conn: ConnId,
        towards: Side,
        link: Address<link::Message>,
        reply: &Sender<Met>,
    ) {
        // Of a proxy that is gone; its connections are being ended.
        let Some(entry) = self.proxies.values_mut().find(|entry| entry.which.id == id) else {
            return;
        };
        let number = entry.before.accepted + conn.number();
        let toxics = entry.toxics.iter().filter(|toxic| toxic.towards == towards);
        let met = Met {
            number: ConnId::from(number.saturating_sub(entry.base)),
            seed: self.seed,
            toxics: toxics.cloned().collect(),
        };
        if reply.try_send(met).is_ok() {
            entry.links.push((towards, link));
        }
        if entry.links.len() > 2 * entry.living + 16 {
            entry.links.retain(|(_, link)| !link.is_closed());
            entry.living = entry.links.len();
        }
    }

    async fn obey(&mut self, order: Order) -> Result<Vec<Proxied>, Refused> {
        let name = match order {
            Order::List => {
                let mut list = Vec::new();
                for entry in self.proxies.values() {
                    list.push(entry.show().await);
                }
                return Ok(list);
            }
            Order::Stop => {
                for (_, mut entry) in std::mem::take(&mut self.proxies) {
                    entry.stop().await;
                }
                return Ok(Vec::new());
            }
            Order::Reset => {
                self.reset().await?;
                return Ok(Vec::new());
            }
            Order::Delete(name) => {
                let mut entry = self.proxies.remove(&name).ok_or(Refused::ProxyNotFound)?;
                entry.stop().await;
                return Ok(vec![entry.show().await]);
            }
            Order::Create(new) if self.proxies.contains_key(&new.name) => {
                return Err(Refused::ProxyExists);
            }
            Order::Create(new) | Order::Put(new) => self.put(new).await?,
            Order::Update(name, changes) => {
                self.update(&name, changes).await?;
                name
            }
            Order::Add(name, toxic) => {
                check(&toxic)?;
                let entry = self.entry(&name)?;
                if entry.toxics.iter().any(|other| other.name == toxic.name) {
                    return Err(Refused::ToxicExists);
                }
                let toxic = Arc::new(toxic);
                entry.toxics.push(Arc::clone(&toxic));
                entry.tell(toxic.towards, &Change::Add(toxic)).await;
                name
            }
            Order::Edit(name, toxic, edit) => {
                let entry = self.entry(&name)?;
                let at = entry.place(&toxic)?;
                let old = &entry.toxics[at];
                // A test's own words; what panics there must not end everybody's proxies.
                let edited = catch_unwind(AssertUnwindSafe(|| edit(old)));
                let edited = edited.unwrap_or_else(|_| Err("the edit panicked".into()));
                let mut new = edited.map_err(Refused::Invalid)?;
                // Where it stands is not for change.
                (new.name, new.towards) = (old.name.clone(), old.towards);
                check(&new)?;
                if new.fault.name() != old.fault.name() {
                    let text = "a toxic's type cannot be changed; remove it and add another";
                    return Err(Refused::Invalid(text.into()));
                }
                let new = Arc::new(new);
                entry.toxics[at] = Arc::clone(&new);
                entry.tell(new.towards, &Change::Edit(new)).await;
                name
            }
            Order::Remove(name, toxic) => {
                let entry = self.entry(&name)?;
                let at = entry.place(&toxic)?;
                let toxic = entry.toxics.remove(at);
                entry.tell(toxic.towards, &Change::Remove(toxic)).await;
                name
            }
        };
        Ok(vec![self.entry(&name)?.show().await])
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, Refused> {
        self.proxies.get_mut(name).ok_or(Refused::ProxyNotFound)
    }

    async fn put(&mut self, new: New) -> Result<String, Refused> {
        let New { name, listen, backend, enabled } = new;
        let listen = one_address(&*self.runtime, &listen).await?;
        if let Some(old) = self.proxies.get(&name) {
            if old.listen != listen || old.backend != backend {
                self.swap(&name, listen, backend, enabled).await?;
                let entry = self.entry(&name)?;
                entry.toxics.clear();
                (entry.before, entry.base) = (Report::default(), 0);
            }
            return Ok(name);
        }
        self.ids += 1;
        let mut entry = Entry {
            which: Arc::new(Which { id: self.ids, name: name.clone() }),
            listen,
            backend,
            toxics: Vec::new(),
            links: Vec::new(),
            living: 0,
            running: None,
            before: Report::default(),
            base: 0,
        };
        config(&entry.listen, &entry.backend)?;
        if enabled {
            let proxy = self.bind(&entry).await?;
            entry.start(proxy, &*self.runtime);
        }
        self.proxies.insert(name.clone(), entry);
        Ok(name)
    }

    async fn update(&mut self, name: &str, changes: Changes) -> Result<(), Refused> {
        let runtime = Arc::clone(&self.runtime);
        let entry = self.entry(name)?;
        let listen = match &changes.listen {
            Some(listen) => one_address(&*runtime, listen).await?,
            None => entry.listen.clone(),
        };
        let backend = changes.backend.unwrap_or_else(|| entry.backend.clone());
        let enabled = changes.enabled.unwrap_or(entry.running.is_some());
        let same = listen == entry.listen && backend == entry.backend;
        if same && enabled == entry.running.is_some() {
            return Ok(());
        }
        self.swap(name, listen, backend, enabled).await
    }

    /// Ends a proxy's run and begins another; the old one goes on if the new one cannot be had.
    async fn swap(
        &mut self,
        name: &str,
        listen: Endpoint,
        backend: Endpoint,
        enabled: bool,
    ) -> Result<(), Refused> {
        config(&listen, &backend)?;
        let runtime = Arc::clone(&self.runtime);
        let entry = self.entry(name)?;
        let was_running = entry.running.is_some();
        // The port is free only once the old one has stopped; of another one nobody need be stopped to know.
        let in_place = entry.listen.port() == listen.port();
        if in_place {
            entry.stop().await;
        }
        let old = (entry.listen.clone(), entry.backend.clone());
        (entry.listen, entry.backend) = (listen, backend);
        let bound = match self.proxies.get(name) {
            Some(entry) if enabled => self.bind(entry).await.map(Some),
            _ => Ok(None),
        };
        let entry = self.entry(name)?;
        let refused = match bound {
            Ok(proxy) => {
                entry.stop().await;
                if let Some(proxy) = proxy {
                    entry.start(proxy, &*runtime);
                }
                return Ok(());
            }
            Err(refused) => refused,
        };
        (entry.listen, entry.backend) = old;
        if was_running && in_place {
            let again = match self.proxies.get(name) {
                Some(entry) => self.bind(entry).await,
                None => return Err(refused),
            };
            match again {
                Ok(proxy) => self.entry(name)?.start(proxy, &*runtime),
                Err(error) => {
                    log::warn!(actor = NAME, proxy = name; "it cannot go on either: {error}")
                }
            }
        }
        Err(refused)
    }

    /// Enables all proxies and removes all toxics; connections count from 1 again.
    async fn reset(&mut self) -> Result<(), Refused> {
        let names: Vec<String> = self.proxies.keys().cloned().collect();
        let enable = Changes { enabled: Some(true), ..Changes::default() };
        let mut first = Ok(());
        for name in names {
            let entry = self.entry(&name)?;
            for toxic in std::mem::take(&mut entry.toxics) {
                entry.tell(toxic.towards, &Change::Remove(toxic)).await;
            }
            for side in [Side::Client, Side::Backend] {
                entry.tell(side, &Change::Forget).await;
            }
            entry.base = entry.report().await.accepted;
            // One that cannot be enabled keeps no other from it.
            let enabled = self.update(&name, enable.clone()).await;
            first = first.and(enabled);
        }
        first
    }

    async fn bind(&self, entry: &Entry) -> Result<Proxy, Refused> {
        let config = config(&entry.listen, &entry.backend)?;
        let builder = Proxy::builder().config(config).runtime(Arc::clone(&self.runtime));
        let bound = builder.dual_stack().detour(self.detour(entry)).bind().await;
        bound.map_err(|error| Refused::Failed(error.to_string()))
    }

    fn detour(&self, entry: &Entry) -> Arc<dyn Detour> {
        let (which, runtime) = (Arc::clone(&entry.which), Arc::clone(&self.runtime));
        Arc::new(Toxics { which, faults: self.address.clone(), runtime })
    }
}

/// The settings of a proxy with toxics.
fn config(listen: &Endpoint, backend: &Endpoint) -> Result<Config, Refused> {
    let config = Config {
        listen: vec![listen.clone()],
        backends: vec![backend.clone()],
        connect_timeout: Duration::from_secs(10),
        // A test may let a connection stand for as long as it likes; it is not for us to end that.
        idle_timeout: Duration::from_secs(24 * 3600),
        half_close_timeout: Duration::from_secs(24 * 3600),
        drain_timeout: Duration::ZERO,
        ..Config::default()
    };
    config.check().map_err(Refused::Invalid)?;
    Ok(config)
}

/// What would not be a fault, but none at all.
fn check(toxic: &Toxic) -> Result<(), Refused> {
    let wrong = match toxic {
        Toxic { name, .. } if name.is_empty() => "a toxic has a name",
        Toxic { toxicity, .. } if !toxicity.is_finite() => "toxicity is a number; use 0 to 1",
        Toxic { on_connection: Some(0), .. } => "connection 0 is none; they count from 1",
        _ => return Ok(()),
    };
    Err(Refused::Invalid(wrong.into()))
}

impl Entry {
    fn place(&self, toxic: &str) -> Result<usize, Refused> {
        let place = self.toxics.iter().position(|other| other.name == toxic);
        place.ok_or(Refused::ToxicNotFound)
    }

    /// Tells all links of that direction, and returns when they have made the change.
    async fn tell(&self, towards: Side, change: &Change) {
        let (done, all) = async_channel::bounded::<Infallible>(1);
        for (_, link) in self.links.iter().filter(|(side, _)| *side == towards) {
            // Gone: its connection is over.
            let _ = link.send(link::Message { change: change.clone(), done: done.clone() }).await;
        }
        drop(done);
        // Nothing is ever sent: it closes when the last link has dropped its end.
        let _ = all.recv().await;
    }

    fn start(&mut self, proxy: Proxy, runtime: &dyn Runtime) {
        if let [listen] = proxy.endpoints() {
            self.listen = listen.clone();
        }
        let handle = proxy.handle();
        let (stop, stopped) = async_channel::bounded::<Infallible>(1);
        let run = async move {
            let stopped = async {
                let _ = stopped.recv().await;
            };
            proxy.run(stopped).await
        };
        let run = actor::spawn(runtime, "proxy", None, run);
        self.running = Some(Runs { handle, stop, run });
    }

    /// Ends all connections, and returns when the port is free.
    async fn stop(&mut self) {
        let Some(Runs { handle, stop, run }) = self.running.take() else { return };
        handle.abort().await;
        drop(stop);
        // A panic was logged; what it had counted is lost.
        if let Ok(report) = run.await {
            self.before.add(&report);
        }
        self.links.clear();
    }

    async fn report(&self) -> Report {
        let mut report = self.before.clone();
        if let Some(running) = &self.running
            && let Some(now) = running.handle.report().await
        {
            report.add(&now);
        }
        report
    }

    async fn show(&self) -> Proxied {
        let towards = |side| self.toxics.iter().filter(move |toxic| toxic.towards == side);
        let toxics = towards(Side::Backend).chain(towards(Side::Client));
        Proxied {
            name: self.which.name.clone(),
            listen: self.listen.clone(),
            backend: self.backend.clone(),
            enabled: self.running.is_some(),
            toxics: toxics.map(|toxic| (**toxic).clone()).collect(),
            report: self.report().await,
        }
    }
}

/// One place to listen on: with port 0, each address of a name would get a port of its own.
async fn one_address(runtime: &dyn Runtime, listen: &Endpoint) -> Result<Endpoint, Refused> {
    let Endpoint::Name { host, port } = listen else { return Ok(listen.clone()) };
    let found = runtime.resolve(host, *port).await.map_err(|error| {
        Refused::Failed(format!("cannot listen on {listen}: {}", show_error(&error)))
    })?;
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    let none = || Refused::Failed(format!("cannot listen on {listen}: the name has no address"));
    first.copied().map(Endpoint::Ip).ok_or_else(none)
}

/// Leads the connections of one proxy through its toxics.
struct Toxics {
    which: Arc<Which>,
    faults: WeakAddress<Message>,
    runtime: Arc<dyn Runtime>,
}

impl Detour for Toxics {
    fn lead(
        &self,
        conn: ConnId,
        towards: Side,
        writer: Address<tunnel::Message>,
    ) -> (Address<tunnel::Message>, Boxed<'static, Exit>) {
        let (address, head) = mailbox(1);
        let (which, runtime) = (Arc::clone(&self.which), Arc::clone(&self.runtime));
        let Some(faults) = self.faults.upgrade() else {
            // Everything is being stopped, this connection too.
            return (address, Box::pin(async { Exit::Deserted }));
        };
        let link = Link { conn, towards, head, writer, which, faults, runtime };
        (address, Box::pin(link.run()))
    }
}
