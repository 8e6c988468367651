//! Accepts clients, and starts a connection for each.
//!
//! - **Owns** one listening socket.
//! - **Receives** nothing; its mailbox of an empty type closes when it is to stop.
//! - **Sends to** the `directory`: `Opened`. Spawns `connection`.
//! - **Ends when** its mailbox closes; it then takes in the clients that the kernel had already accepted.
//! - **Never** dials, never accepts without a slot, and never ends or spins because accepting fails.

use crate::connect::is_out_of_fds;
use crate::connection::{self, Connection};
use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::proxy::Route;
use crate::runtime::{Either, Listen, race};
use crate::slots::{Slot, Slots};
use crate::socket::Socket;
use crate::units::show_error;
use crate::{Endpoint, actor, directory};
use futures_lite::future::yield_now;
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
                Ok((socket, client)) => {
                    if !self.open(socket, client, slot).await {
                        break;
                    }
                    // The client's first bytes may have come with it; and another process that accepts here has its turn.
                    yield_now().await;
                }
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
        // There were no more than this; whoever comes meanwhile is a new one.
        for _ in 0..self.route.config.backlog {
            let Some(slot) = self.slots.try_take() else { return };
            match self.socket.try_accept() {
                Ok((socket, client)) => {
                    self.open(socket, client, slot).await;
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Starts a connection; false if the directory has gone, and with it the proxy.
    async fn open(&self, socket: Arc<dyn Socket>, client: Endpoint, slot: Slot) -> bool {
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
            return false;
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
        true
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
            log::warn!(actor = NAME, listen:% = listen; "accepting failed, and is tried again: {}", show_error(error));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use crate::testing::memory::clock::Clock;
    use crate::testing::{FakeBackend, RunningBackend, pair};
    use crate::{Boxed, Config};
    use async_channel::{Receiver, Sender};
    use futures_lite::future::{block_on, poll_once};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    type Accepted = io::Result<(Arc<dyn Socket>, Endpoint)>;

    /// Gives what the test has put in, and counts how often it is asked.
    struct Script {
        endpoint: Endpoint,
        next: Receiver<Accepted>,
        asked: Arc<AtomicUsize>,
    }

    impl Listen for Script {
        fn endpoint(&self) -> &Endpoint {
            &self.endpoint
        }

        fn try_accept(&self) -> Accepted {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.next.try_recv().unwrap_or_else(|_| Err(ErrorKind::WouldBlock.into()))
        }

        fn poll_waiting(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            // The test polls the listener itself, so nobody needs to be woken.
            if self.next.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
        }
    }

    /// A listener, and all that is around it.
    struct Stage {
        clock: Clock,
        script: Sender<Accepted>,
        asked: Arc<AtomicUsize>,
        stop: Address<Message>,
        slots: Slots,
        directory: Mailbox<directory::Message>,
        run: Boxed<'static, ()>,
        /// They stay: a client that leaves gives its slot back.
        clients: Vec<Arc<dyn Socket>>,
        _backend: RunningBackend,
    }

    impl Stage {
        fn new(slots: usize) -> Stage {
            let clock = Clock::new();
            let backend = FakeBackend::by_hand().in_memory();
            let route = clock.route(Config::default(), Silent, backend.connect());
            let (script, next) = async_channel::bounded(16);
            let asked = Arc::new(AtomicUsize::new(0));
            let (stop, stopped) = mailbox(1);
            let (address, directory) = mailbox(directory::MAILBOX);
            let slots = Slots::new(slots);
            let endpoint = Endpoint::Ip(([127, 0, 0, 1], 1).into());
            let listener = Listener {
                socket: Box::new(Script { endpoint, next, asked: Arc::clone(&asked) }),
                stop: stopped,
                slots: slots.clone(),
                directory: address,
                route,
            };
            let run = Box::pin(listener.run());
            Stage {
                clock,
                script,
                asked,
                stop,
                slots,
                directory,
                run,
                clients: Vec::new(),
                _backend: backend,
            }
        }

        fn put(&self, accepted: Accepted) {
            self.script.try_send(accepted).expect("there is room in the script");
        }

        fn put_client(&mut self) {
            let (ours, theirs) = pair(8);
            self.clients.push(theirs);
            self.put(Ok((ours, Endpoint::Name { host: "client".into(), port: 1 })));
        }

        /// Lets the listener run until it waits; says whether it has ended.
        async fn turn(&mut self) -> bool {
            // It yields after each client.
            for _ in 0..4 {
                if poll_once(&mut self.run).await.is_some() {
                    return true;
                }
            }
            false
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        /// How many connections have been opened since the last look.
        fn opened(&mut self) -> usize {
            let messages = std::iter::from_fn(|| self.directory.try_recv());
            messages.filter(|message| matches!(message, directory::Message::Opened(_))).count()
        }
    }

    #[test]
    fn without_file_descriptors_it_rests_and_tries_again() {
        block_on(async {
            let mut stage = Stage::new(8);
            stage.put(Err(io::Error::from_raw_os_error(24)));
            stage.put_client();
            for _ in 0..5 {
                assert!(!stage.turn().await);
                assert_eq!((stage.asked(), stage.opened()), (1, 0), "it rests");
            }
            assert!(stage.slots.try_take().is_some(), "it holds no slot while it rests");
            stage.clock.advance(Listener::PAUSE);
            assert!(!stage.turn().await);
            assert_eq!((stage.asked(), stage.opened()), (3, 1), "one accepted, then none waits");
        });
    }

    #[test]
    fn trouble_that_lasts_is_asked_about_once_a_pause() {
        block_on(async {
            let mut stage = Stage::new(8);
            for round in 1..=5 {
                stage.put(Err(io::Error::other("no memory")));
                assert!(!stage.turn().await);
                assert!(!stage.turn().await);
                assert_eq!(stage.asked(), round);
                stage.clock.advance(Listener::PAUSE);
            }
            stage.put(Err(io::Error::other("no memory")));
            assert!(!stage.turn().await);
            drop(stage.stop);
            assert!(poll_once(&mut stage.run).await.is_some(), "a stop ends the rest too");
        });
    }

    #[test]
    fn a_client_that_has_gone_again_is_passed_over() {
        block_on(async {
            let mut stage = Stage::new(8);
            stage.put(Err(ErrorKind::ConnectionAborted.into()));
            stage.put(Err(ErrorKind::ConnectionReset.into()));
            stage.put_client();
            assert!(!stage.turn().await);
            assert_eq!(stage.opened(), 1);
        });
    }

    #[test]
    fn without_a_slot_nobody_is_accepted() {
        block_on(async {
            let mut stage = Stage::new(1);
            let slot = stage.slots.try_take().expect("it is free");
            stage.put_client();
            assert!(!stage.turn().await);
            assert_eq!(stage.asked(), 0);
            drop(slot);
            assert!(!stage.turn().await);
            assert_eq!(stage.opened(), 1);
            assert_eq!(stage.asked(), 1, "the slot went with the client");
        });
    }

    #[test]
    fn waiting_for_a_client_takes_no_slot_from_another_listener() {
        block_on(async {
            let mut stage = Stage::new(1);
            assert!(!stage.turn().await);
            assert_eq!(stage.asked(), 1);
            assert!(stage.slots.try_take().is_some());
        });
    }

    #[test]
    fn when_it_is_stopped_it_takes_in_who_was_waiting_as_far_as_there_are_slots() {
        for (slots, expected) in [(8, 3), (2, 2)] {
            block_on(async {
                let mut stage = Stage::new(slots);
                assert!(!stage.turn().await);
                for _ in 0..3 {
                    stage.put_client();
                }
                let (closed, _) = mailbox(1);
                drop(std::mem::replace(&mut stage.stop, closed));
                assert!(stage.turn().await);
                assert_eq!(stage.opened(), expected);
            });
        }
    }

    #[test]
    fn a_client_that_comes_while_it_waits_is_accepted_at_once() {
        block_on(async {
            let mut stage = Stage::new(8);
            assert!(!stage.turn().await);
            stage.put_client();
            assert!(!stage.turn().await);
            assert_eq!((stage.asked(), stage.opened()), (3, 1), "the clock stands");
        });
    }

    #[test]
    fn when_it_is_stopped_it_passes_over_who_has_gone_and_no_other_trouble() {
        for (trouble, expected) in [(ErrorKind::ConnectionAborted, 1), (ErrorKind::OutOfMemory, 0)]
        {
            block_on(async {
                let mut stage = Stage::new(8);
                assert!(!stage.turn().await);
                stage.put(Err(trouble.into()));
                stage.put_client();
                let (closed, _) = mailbox(1);
                drop(std::mem::replace(&mut stage.stop, closed));
                assert!(stage.turn().await);
                assert_eq!(stage.opened(), expected, "{trouble}");
            });
        }
    }

    #[test]
    fn it_ends_when_the_directory_has_gone() {
        block_on(async {
            let mut stage = Stage::new(8);
            assert!(!stage.turn().await);
            let (_, closed) = mailbox(1);
            drop(std::mem::replace(&mut stage.directory, closed));
            stage.put_client();
            assert!(stage.turn().await);
        });
    }

    /// A listener that nobody runs.
    fn idle(clock: &Clock, config: Config, next: Receiver<Accepted>) -> Listener {
        let endpoint = Endpoint::Ip(([127, 0, 0, 1], 1).into());
        let backend = FakeBackend::by_hand().in_memory();
        Listener {
            socket: Box::new(Script { endpoint, next, asked: Arc::default() }),
            stop: mailbox(1).1,
            slots: Slots::new(8),
            directory: mailbox(1).0,
            route: clock.route(config, Silent, backend.connect()),
        }
    }

    #[test]
    fn trouble_that_lasts_is_logged_once_in_a_longer_pause() {
        let (_script, next) = async_channel::bounded(1);
        let clock = Clock::new();
        let listener = idle(&clock, Config::default(), next);
        let mut logged = None;
        let mut check = |pause: Duration, expected: bool| {
            clock.advance(pause);
            let before = logged;
            listener.log_trouble(&io::Error::other("no memory"), &mut logged);
            assert_eq!(logged != before, expected, "{pause:?}");
        };
        check(Duration::ZERO, true);
        check(Listener::PAUSE, false);
        check(Listener::LOG_PAUSE - 2 * Listener::PAUSE, false);
        check(Listener::PAUSE, true);
        check(Listener::PAUSE, false);
    }

    #[test]
    fn who_comes_after_the_stop_is_not_taken_in() {
        block_on(async {
            let (script, next) = async_channel::bounded(4);
            let config = Config { backlog: 2, ..Config::default() };
            let listener = idle(&Clock::new(), config, next);
            for _ in 0..3 {
                let gone = ErrorKind::ConnectionAborted;
                script.try_send(Err(gone.into())).expect("there is room in the script");
            }
            listener.empty_backlog().await;
            assert_eq!(script.len(), 1, "no more can have waited than the backlog holds");
        });
    }

    #[test]
    fn which_errors_are_of_one_client() {
        let check = |kind: ErrorKind, expected: bool| {
            assert_eq!(is_of_one_client(&kind.into()), expected, "{kind}");
        };
        check(ErrorKind::ConnectionAborted, true);
        check(ErrorKind::ConnectionRefused, true);
        check(ErrorKind::ConnectionReset, true);
        check(ErrorKind::Interrupted, true);
        check(ErrorKind::TimedOut, true);
        check(ErrorKind::WouldBlock, false);
        check(ErrorKind::QuotaExceeded, false);
        check(ErrorKind::OutOfMemory, false);
    }
}
