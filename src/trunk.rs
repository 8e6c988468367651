//! Supervises one trunk: starts its backend_writer and its backend_reader, and decides how it ends.
//!
//! - **Owns** the trunk's socket, with its two actors.
//! - **Receives** nothing; it waits for the exits of the two.
//! - **Sends to** the `pool`: `Down`.
//! - **Ends when** both have ended.
//! - **Never** touches a payload byte.
//!
//! # How this ends
//! The socket is armed: unless it is disarmed here, dropping it resets the backend.
//!
//! 1. **Told to end** (`Fin`). The backend_writer has finished; the backend_reader goes on until the backend ends too.
//!    The end is clean.
//! 2. **Nobody has its address any more**, as when a client is lost in the middle of a request. Both are cancelled, and
//!    the backend is reset: it must not take the part that it has for the whole.
//! 3. **The backend ends its sending**, or the trunk cannot be used behind a reply. The backend_writer is cancelled, and
//!    whoever waits in its mailbox is told. The end is clean.
//! 4. **Lost on reading**, not understood, or silent for too long while it owes a reply. The same, but the backend is reset.
//! 5. **Lost on writing.** The backend_reader goes on: what the backend had sent, an error above all, is passed on first.
//! 6. **A panic**, or a backend that does not read while nobody has the trunk any more: both are cancelled, and the backend
//!    is reset.
//!
//! In each case the backend_reader closes the mailbox of requests before it drops what is owed.

use crate::actor;
use crate::framed::{BATCH, Message, Owed, Patience, ReplyReader, Written, write_requests};
use crate::framing::Framing;
use crate::mailbox::{Address, Mailbox, WeakAddress, mailbox};
use crate::proxy::Route;
use crate::runtime::{Either, race, timeout};
use crate::socket::Socket;
use crate::tunnel::Exit;
use crate::{Endpoint, backend_reader, backend_writer, pool};
use async_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

pub(crate) const NAME: &str = "trunk";

/// Replies that may be owed at once by one trunk: more than the requests that go out in one write.
const OWED: usize = 2 * BATCH;

/// The same of a trunk that clients share, and the pieces of requests that may wait for it.
const OWED_SHARED: usize = 8 * BATCH;
const MAILBOX_SHARED: usize = BATCH;

/// How long a backend may take to end its sending behind ours, or to forget what a client left there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A backend that ends a trunk so soon, and has answered nothing, might as well not have accepted it.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The way to a trunk. Whoever holds it has it in his hand: dropped, the trunk is reset, unless it has been told to end.
pub(crate) struct Trunk {
    pub(crate) id: u64,
    pub(crate) address: Address<Message>,
    /// Never sent on; closes when nobody has the trunk any more, though its backend_writer may be stuck.
    _held: Sender<Infallible>,
}

/// What a trunk is made of.
pub(crate) struct Setup {
    pub(crate) id: u64,
    /// Clients share it.
    pub(crate) shared: bool,
    pub(crate) backend: Endpoint,
    /// A backend has accepted it.
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) reply_timeout: Option<Duration>,
    pub(crate) pool: WeakAddress<pool::Message>,
}

struct Supervisor {
    setup: Setup,
    address: WeakAddress<Message>,
    requests: Mailbox<Message>,
    held: Receiver<Infallible>,
    route: Arc<Route>,
}

/// Starts a trunk.
pub(crate) fn start(setup: Setup, route: &Arc<Route>) -> Trunk {
    // Requests are smaller than chunks: no frame of more than half a chunk is held as a whole, by default.
    let own = route.config.limits.mailbox.saturating_mul(2);
    let (address, requests) = mailbox(if setup.shared { MAILBOX_SHARED } else { own });
    let route = Arc::clone(route);
    let runtime = Arc::clone(&route.runtime);
    let (holding, held) = async_channel::bounded(1);
    let id = setup.id;
    let weak = address.downgrade();
    let supervisor = Supervisor { setup, address: weak, requests, held, route };
    actor::spawn(&*runtime, NAME, None, supervisor.run()).detach();
    Trunk { id, address, _held: holding }
}

enum Ended {
    Writer(Written),
    Reader(Exit),
}

impl Supervisor {
    async fn run(self) {
        let (id, shared, route) = (self.setup.id, self.setup.shared, Arc::clone(&self.route));
        let (pool, runtime) = (self.setup.pool.clone(), &route.runtime);
        let began = runtime.now();
        // A panic must not keep the pool from hearing of the end.
        let wanted = actor::guard(NAME, None, self.carry()).await.unwrap_or(true);
        let useless = !wanted && runtime.now() - began < AT_ONCE;
        if let Some(pool) = pool.upgrade() {
            // Gone means that the proxy is being dropped.
            let _ = pool.send(pool::Message::Down { id, shared, useless }).await;
        }
    }

    /// False if the backend ended it without having answered anything.
    async fn carry(self) -> bool {
        let Supervisor { setup, address, requests, held, route } = self;
        let Setup { id, shared, backend, socket, framing, reply_timeout, .. } = setup;
        let runtime = &*route.runtime;
        log::debug!(actor = NAME, trunk = id, backend:% = backend, shared; "trunk {id} is connected");
        let (expected, owed) = mailbox::<Owed>(if shared { OWED_SHARED } else { OWED });
        let to = Arc::clone(&socket);
        let writer = write_requests(backend_writer::NAME, id, requests, expected, to, shared);
        let answered = Arc::<AtomicBool>::default();
        let reader = ReplyReader {
            name: backend_reader::NAME,
            trunk: id,
            expected: owed,
            socket: Arc::clone(&socket),
            replies: framing.replies(),
            patience: Patience::new(Arc::clone(&route.runtime), reply_timeout),
            requests: address,
            answered: Arc::clone(&answered),
        };
        let writer = async { Ended::Writer(writer.await) };
        let reader = async { Ended::Reader(reader.run().await) };
        let mut crew = vec![
            ((), actor::spawn(runtime, backend_writer::NAME, None, writer)),
            ((), actor::spawn(runtime, backend_reader::NAME, None, reader)),
        ];
        let first = match race(actor::first(&mut crew), held.recv()).await {
            Either::A(((), first)) => Some(first),
            // The writer hears of it too, unless its backend does not read.
            Either::B(_) => {
                timeout(runtime, PATIENCE, actor::first(&mut crew)).await.map(|((), first)| first)
            }
        };
        let by_backend =
            matches!(first, Some(Ok(Ended::Reader(_) | Ended::Writer(Written::Failed))));
        let clean = match first {
            Some(Ok(Ended::Reader(Exit::Finished))) => true,
            // What is owed is worth any time, and whoever it is owed to may end it by leaving.
            Some(Ok(Ended::Writer(Written::Fin { owed: true }))) => {
                matches!(actor::first(&mut crew).await.1, Ok(Ended::Reader(Exit::Finished)))
            }
            Some(Ok(Ended::Writer(Written::Fin { owed: false } | Written::Failed))) => {
                let rest = timeout(runtime, PATIENCE, actor::first(&mut crew)).await;
                matches!(rest, Some((_, Ok(Ended::Reader(Exit::Finished)))))
            }
            _ => false,
        };
        for (_, actor) in crew {
            actor.cancel().await;
        }
        if clean {
            socket.disarm();
        }
        drop(socket);
        log::debug!(actor = NAME, trunk = id, backend:% = backend, clean; "trunk {id} has ended");
        !by_backend || answered.load(Relaxed)
    }
}
