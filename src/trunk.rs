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
//! 4. **Lost on reading**, or not understood. The same, but the backend is reset.
//! 5. **Lost on writing.** The backend_reader goes on: what the backend had sent, an error above all, is passed on first.
//! 6. **Nothing comes for too long** though something is owed, **a panic**: both are cancelled, and the backend is reset.

use crate::actor;
use crate::framed::{Message, Owed, read_replies, write_requests};
use crate::framing::Framing;
use crate::mailbox::{Address, Mailbox, WeakAddress, mailbox};
use crate::proxy::Route;
use crate::runtime::timeout;
use crate::socket::Socket;
use crate::tunnel::Exit;
use crate::{Endpoint, backend_reader, backend_writer, pool};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAME: &str = "trunk";

/// Replies that may be owed at once by one trunk.
const OWED: usize = 128;

/// How long a backend may take to end its sending behind ours.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to a trunk. Whoever holds the last one has it in his hand: dropped, the trunk is reset.
pub(crate) struct Trunk {
    pub(crate) address: Address<Message>,
}

struct Supervisor {
    id: u64,
    backend: Endpoint,
    socket: Arc<dyn Socket>,
    requests: Mailbox<Message>,
    framing: Arc<dyn Framing>,
    pool: WeakAddress<pool::Message>,
    route: Arc<Route>,
}

/// Starts a trunk on a socket that a backend has accepted.
pub(crate) fn start(
    id: u64,
    backend: Endpoint,
    socket: Arc<dyn Socket>,
    framing: Arc<dyn Framing>,
    pool: WeakAddress<pool::Message>,
    route: &Arc<Route>,
) -> Trunk {
    let (address, requests) = mailbox(route.config.limits.mailbox);
    let route = Arc::clone(route);
    let runtime = Arc::clone(&route.runtime);
    let supervisor = Supervisor { id, backend, socket, requests, framing, pool, route };
    actor::spawn(&*runtime, NAME, None, supervisor.run()).detach();
    Trunk { address }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
}

impl Supervisor {
    async fn run(self) {
        let Supervisor { id, backend, socket, requests, framing, pool, route } = self;
        let runtime = &*route.runtime;
        log::debug!(actor = NAME, trunk = id, backend:% = backend; "connected");
        let (expected, owed) = mailbox::<Owed>(OWED);
        let writer = write_requests(backend_writer::NAME, requests, expected, Arc::clone(&socket));
        let reader =
            read_replies(backend_reader::NAME, owed, Arc::clone(&socket), framing.replies());
        let mut crew = vec![
            (Role::Writer, actor::spawn(runtime, backend_writer::NAME, None, writer)),
            (Role::Reader, actor::spawn(runtime, backend_reader::NAME, None, reader)),
        ];
        let clean = match actor::first(&mut crew).await {
            (Role::Reader, Ok(Exit::Finished)) => true,
            (Role::Writer, Ok(Exit::Finished | Exit::Failed(_))) => {
                let rest = timeout(runtime, PATIENCE, actor::first(&mut crew)).await;
                matches!(rest, Some((_, Ok(Exit::Finished))))
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
        log::debug!(actor = NAME, trunk = id, backend:% = backend, clean; "ended");
        if let Some(pool) = pool.upgrade() {
            // Gone means that the proxy is being dropped.
            let _ = pool.send(pool::Message::Down).await;
        }
    }
}
