//! Faults on real traffic, by seed: proxies whose connections meet [`Toxic`]s.
//!
//! ```text
//!   client ──> reader ──> head ──> toxic ──> toxic ──> writer ──> backend       and the same the other way round
//!                           ╰── link ──╯  puts them in and takes them out while bytes are on their way
//!                                ^
//!                             registry  <── orders ── Faults, the hand of whoever tests
//! ```
//!
//! Every random draw depends on nothing but the seed, the names of proxy and toxic, the connection's number and the
//! place in the stream. So whoever connects in the same order and sends the same bytes meets the same faults again.
//! (Jitter is drawn where a read begins: bytes that the system cuts into other reads are late by other times, and are
//! the same bytes in the same order.)
//!
//! ```
//! use std::time::Duration;
//! use trunkline::testing::faults::{Fault, Faults, Toxic};
//! use trunkline::testing::{FakeBackend, FakeClient, block_on};
//!
//! let backend = FakeBackend::echo().listen();
//! block_on(async {
//!     let faults = Faults::start(7);
//!     let proxy = faults.proxy("echo", backend.address()).await?;
//!     let reset = Fault::ResetPeer { timeout: Duration::ZERO };
//!     faults.add("echo", Toxic::new(reset).after_bytes(4)).await?;
//!
//!     let mut client = FakeClient::connect(proxy.listen.clone()).await;
//!     client.send(b"hello").await;
//!     let seen = client.recv_to_end().await;
//!     assert_eq!(seen.bytes, b"hell");
//!     assert!(seen.ending.is_reset());
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod toxic;
mod registry;
mod link;
mod stage;
mod toxics;
#[cfg(test)]
mod tests;

pub use registry::{Changes, New, Proxied, Refused};
pub use toxic::{Fault, Toxic};

use crate::Endpoint;
use crate::Io;
use crate::actor::{self, Running};
use crate::mailbox::Address;
use crate::proxy::ask;
use crate::runtime::{self, Runtime};
use crate::tunnel::Detour;
use registry::{Message, Order, Registry};
use std::net::SocketAddr;
use std::sync::Arc;

/// Proxies with toxics. They run in threads of their own, whatever runtime the test uses; dropping this stops them.
pub struct Faults {
    registry: Address<Message>,
    _run: Running<()>,
}

impl Faults {
    /// No proxies yet. The same seed means the same draws.
    pub fn start(seed: u64) -> Faults {
        Faults::start_in(seed, runtime::real(Io::Auto))
    }

    pub(crate) fn start_in(seed: u64, runtime: Arc<dyn Runtime>) -> Faults {
        let (address, registry) = Registry::new(seed, Arc::clone(&runtime));
        let run = actor::spawn(&*runtime, registry::NAME, None, registry.run());
        Faults { registry: address, _run: run }
    }

    /// A proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is one of that name, or no free port.
    pub async fn proxy(
        &self,
        name: &str,
        backend: impl Into<Endpoint>,
    ) -> Result<Proxied, Refused> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let (name, backend) = (name.to_string(), backend.into());
        self.create(New { name, listen, backend, enabled: true }).await
    }

    /// A proxy.
    ///
    /// # Errors
    /// There is one of that name, or it cannot listen there.
    pub async fn create(&self, new: New) -> Result<Proxied, Refused> {
        self.one(Order::Create(new)).await
    }

    /// The same, unless there is a proxy just like it; one of that name that differs goes, with its toxics.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn put(&self, new: New) -> Result<Proxied, Refused> {
        self.one(Order::Put(new)).await
    }

    /// Changes a proxy; its toxics stay.
    ///
    /// # Errors
    /// There is none, or it cannot listen there.
    pub async fn update(&self, proxy: &str, changes: Changes) -> Result<Proxied, Refused> {
        self.one(Order::Update(proxy.into(), changes)).await
    }

    /// Ends a proxy and its connections.
    ///
    /// # Errors
    /// There is none.
    pub async fn delete(&self, proxy: &str) -> Result<Proxied, Refused> {
        self.one(Order::Delete(proxy.into())).await
    }

    /// All proxies, by name.
    pub async fn list(&self) -> Vec<Proxied> {
        self.order(Order::List).await.unwrap_or_default()
    }

    /// Puts a toxic behind the others of its direction, on connections that live too; returns when it is there.
    ///
    /// # Errors
    /// There is no such proxy, or it has a toxic of that name.
    pub async fn add(&self, proxy: &str, toxic: Toxic) -> Result<Proxied, Refused> {
        self.one(Order::Add(proxy.into(), toxic)).await
    }

    /// Changes a toxic where it stands: all but its name, its direction and its type.
    ///
    /// # Errors
    /// There is none, or `edit` says why it cannot be.
    pub async fn edit(
        &self,
        proxy: &str,
        toxic: &str,
        edit: impl FnOnce(&Toxic) -> Result<Toxic, String> + Send + 'static,
    ) -> Result<Proxied, Refused> {
        self.one(Order::Edit(proxy.into(), toxic.into(), Box::new(edit))).await
    }

    /// Takes a toxic out, of connections that live too. What it held back goes on at once; but a
    /// [`Fault::Timeout`] closes the connections, for it has lost bytes.
    ///
    /// # Errors
    /// There is none.
    pub async fn remove(&self, proxy: &str, toxic: &str) -> Result<Proxied, Refused> {
        self.one(Order::Remove(proxy.into(), toxic.into())).await
    }

    /// Enables all proxies, takes out all toxics, and counts connections from 1 again.
    ///
    /// # Errors
    /// A proxy cannot listen where it did.
    pub async fn reset(&self) -> Result<(), Refused> {
        self.order(Order::Reset).await.map(|_| ())
    }

    /// Stops all proxies, and returns when their ports are free. (Dropping this stops them too, some time later.)
    pub async fn stop(self) {
        // No answer: it has ended already.
        let _ = self.order(Order::Stop).await;
    }

    /// The way through a proxy's toxics, for a proxy that somebody else runs.
    pub(crate) async fn detour(&self, proxy: &str) -> Option<Arc<dyn Detour>> {
        let proxy = proxy.to_string();
        ask(&self.registry, |reply| Message::Detour { proxy, reply }).await
    }

    async fn one(&self, order: Order) -> Result<Proxied, Refused> {
        self.order(order).await?.pop().ok_or(Refused::ProxyNotFound)
    }

    async fn order(&self, order: Order) -> Result<Vec<Proxied>, Refused> {
        let answer = ask(&self.registry, |reply| Message::Order { order, reply }).await;
        // Without an answer it panicked, which was logged.
        answer.unwrap_or_else(|| Err(Refused::Failed("the faults have stopped".into())))
    }
}
