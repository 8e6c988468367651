//! Accepts clients, and starts a connection for each.
//!
//! - **Owns** one listening socket.
//! - **Receives** nothing; its mailbox of an empty type closes when it is to stop.
//! - **Sends to** the [`directory`](crate::directory): `Opened`. Spawns [`connection`](crate::connection).
//! - **Ends when** its mailbox closes; it then takes in the clients that the kernel had already accepted.
//! - **Never** dials, never accepts without a slot, and never ends or spins because accepting fails.

use crate::connect::is_out_of_fds;
use crate::connection::{self, Connection};
use crate::error::describe;
use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::proxy::Route;
use crate::runtime::{Either, Listen, race};
use crate::slots::{Slot, Slots};
use crate::socket::Socket;
use crate::{Endpoint, actor, directory};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "listener";

/// No message is ever sent.
pub(crate) type Message = Infallible;

pub(crate) struct Listener {
    pub(crate) socket: Box<dyn Listen>,
    pub(crate) stop: Mailbox<Message>,
    pub(crate) slots: Slots,
    pub(crate) directory: Address<directory::Message>,
    pub(crate) route: Arc<Route>,
}

impl Listener {
    /// How long accepting rests when the system is out of something; a client that waits does not notice.
    const PAUSE: Duration = Duration::from_millis(100);
    /// How often the same trouble is logged.
    const LOG_PAUSE: Duration = Duration::from_secs(10);

    pub(crate) async fn run(mut self) {
        let mut logged = None;
        loop {
            let slot = match race(self.stop.recv(), self.slots.take()).await {
                Either::A(_) => break,
                Either::B(slot) => slot,
            };
            match self.socket.try_accept() {
                Ok((socket, client)) => self.open(socket, client, slot).await,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Another listener may need the slot meanwhile.
                    drop(slot);
                    let waiting = poll_fn(|cx| self.socket.poll_waiting(cx));
                    if let Either::A(_) = race(self.stop.recv(), waiting).await {
                        break;
                    }
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    drop(slot);
                    self.log_trouble(&error, &mut logged);
                    let rest = self.route.runtime.sleep(Self::PAUSE);
                    if let Either::A(_) = race(self.stop.recv(), rest).await {
                        break;
                    }
                }
            }
        }
        self.empty_backlog().await;
    }

    /// The kernel has told these clients that they are connected. Closing the socket would reset them.
    async fn empty_backlog(&self) {
        while let Some(slot) = self.slots.try_take()
            && let Ok((socket, client)) = self.socket.try_accept()
        {
            self.open(socket, client, slot).await;
        }
    }

    async fn open(&self, socket: Arc<dyn Socket>, client: Endpoint, slot: Slot) {
        let conn = self.route.ids.next();
        log::trace!(actor = NAME, conn = conn.number(); "accepted {client}: a connection is started");
        let (address, mailbox) = mailbox(connection::MAILBOX);
        let gauges = Arc::new(Gauges::default());
        let opened = directory::Opened {
            conn,
            client: client.clone(),
            address,
            gauges: Arc::clone(&gauges),
        };
        // Before the start, so that the directory cannot hear of the end first.
        if self.directory.send(directory::Message::Opened(opened)).await.is_err() {
            return;
        }
        let connection = Connection {
            conn,
            client,
            socket,
            mailbox,
            directory: self.directory.clone(),
            gauges,
            route: Arc::clone(&self.route),
            slot,
        };
        actor::spawn(&*self.route.runtime, connection::NAME, Some(conn), connection.run()).detach();
    }

    fn log_trouble(&self, error: &io::Error, logged: &mut Option<Instant>) {
        let now = self.route.runtime.now();
        if logged.is_some_and(|last| now - last < Self::LOG_PAUSE) {
            return;
        }
        *logged = Some(now);
        let listen = self.socket.endpoint();
        if is_out_of_fds(error) {
            log::warn!(actor = NAME, listen:% = listen; "no file descriptor is left; new clients wait until a connection ends");
        } else {
            log::warn!(actor = NAME, listen:% = listen; "accepting failed, and is tried again: {}", describe(error));
        }
    }
}

/// The client has gone while it waited (accept(2)); the next one is none the worse for it.
fn is_of_one_client(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut
    )
}
