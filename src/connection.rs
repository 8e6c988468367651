//! Supervises one connection: starts its four actors, connects its backend, and decides how it ends.
//!
//! - **Owns** its mailbox, its slot, and (with the actors) both sockets.
//! - **Receives** orders from the `directory`: `Drain`, `End`.
//! - **Sends to** the directory: `Ended`. Its actors tell it nothing; it waits for the values that they return.
//! - **Ends when** all four actors have ended.
//! - **Never** touches a payload byte.
//!
//! ```text
//!   client socket ──> client_reader ──Chunk, Fin──> backend_writer ──> backend socket
//!   client socket <── client_writer <──Chunk, Fin── backend_reader <── backend socket
//! ```
//!
//! # How this ends
//! Both sockets are armed (see [`Socket`]): unless the last line of `carry` disarms them, dropping them
//! resets both peers.
//!
//! 1. **Client EOF.** client_reader sends `Fin` and has finished; backend_writer writes all, ends its sending and has
//!    finished. The other direction goes on. When it has finished too, the end is clean.
//! 2. **Backend EOF.** The same, mirrored.
//! 3. **Client lost on reading.** client_reader has failed. Nothing can reach the client: client_writer is cancelled,
//!    and backend_reader sees that and ends. backend_writer delivers what the client had sent, finds no `Fin`, and ends.
//!    Both peers are reset.
//! 4. **Backend lost on reading.** The same, mirrored: the client gets all that the backend had sent, then the reset.
//! 5. **Client or backend lost on writing.** That writer has failed, and the reader that fed it ends. The reader of the
//!    lost socket goes on: what that peer had already sent is delivered first. Its socket then reports the loss (3, 4).
//!    A direction that was complete before, `Fin` and all, is waited for too: a reset would destroy what its peer's
//!    system does not have yet.
//! 6. **No backend.** client_reader is cancelled and the client is reset.
//! 7. **An order, a deadline, a panic.** All four are cancelled and both peers are reset.
//! 8. **A cut**, which only a fault that was ordered makes: its direction ends as ordered, what the other peer had sent
//!    until then is delivered too, and both peers see the end that was ordered: a clean one, or a reset.

use crate::actor::{self, Panicked, Running};
use crate::backend_reader::BackendReader;
use crate::backend_writer::BackendWriter;
use crate::client_reader::ClientReader;
use crate::client_writer::ClientWriter;
use crate::credit::Credits;
use crate::framed::RequestReader;
use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::pool::Pool;
use crate::proxy::Route;
use crate::runtime::{Either, race};
use crate::slots::Slot;
use crate::socket::Socket;
use crate::tunnel::{self, Cut, Exit, Post};
use crate::units::show_error;
use crate::{
    Boxed, By, ConnId, Ended, Endpoint, Phase, Side, backend_reader, backend_writer, client_reader,
    client_writer, directory,
};
use async_channel::Sender;
use futures_lite::future::pending;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "connection";

/// Orders pending at most: one `Drain` and one `End`; a second `End` says nothing new.
pub(crate) const MAILBOX: usize = 2;

#[derive(Debug)]
pub(crate) enum Message {
    /// The proxy was told to stop: go on, but remember it.
    Drain,
    /// Abort now.
    End { by: By, cause: &'static str },
}

pub(crate) struct Connection {
    pub(crate) conn: ConnId,
    pub(crate) client: Endpoint,
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) mailbox: Mailbox<Message>,
    pub(crate) directory: Address<directory::Message>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) route: Arc<Route>,
    pub(crate) slot: Slot,
}

impl Connection {
    pub(crate) fn run(self) -> impl Future<Output = ()> {
        let accepted = self.route.runtime.now();
        let (client, slot) = (self.socket, self.slot);
        let mut course = Course {
            conn: self.conn,
            client: self.client,
            gauges: self.gauges,
            route: self.route,
            accepted,
            mailbox: self.mailbox,
            directory: self.directory,
            draining: false,
            backend: None,
            blamed: None,
            undelivered: 0,
            grace: None,
            undisturbed: None,
        };
        async move {
            // A panic (of a callback, say) must not keep on_close and the directory from hearing of the end.
            let carried = actor::guard(NAME, Some(course.conn), course.carry(client)).await;
            let clean = carried.unwrap_or_else(|Panicked| {
                course.blame(By::Proxy, "an actor panicked");
                false
            });
            let ended = Box::new(course.ended(clean));
            ended.log();
            let told = async { course.route.events.on_close(&ended) };
            let _ = actor::guard(NAME, Some(course.conn), told).await;
            // Gone means that the proxy itself has been dropped: there is nobody left to tell.
            let _ = course.directory.send(directory::Message::Ended(ended)).await;
            // Only now may the next client come: at the limit, a test or an operator sees at most that many.
            drop(slot);
        }
    }
}

/// A connection on its way, and what is known of its end.
struct Course {
    conn: ConnId,
    client: Endpoint,
    gauges: Arc<Gauges>,
    route: Arc<Route>,
    mailbox: Mailbox<Message>,
    directory: Address<directory::Message>,
    accepted: Instant,
    draining: bool,
    /// The backend that accepted, and how long after the client was accepted.
    backend: Option<(Endpoint, Duration)>,
    blamed: Option<Blame>,
    /// Bytes that a socket took and that the reset destroyed.
    undelivered: usize,
    /// How long what is left may still take, once the connection was cut.
    grace: Option<Boxed<'static, ()>>,
    /// Dropped when the proxy is told to stop; a client_reader that looks at requests waits for that.
    undisturbed: Option<Sender<Infallible>>,
}

/// How long a connection that was cut may take to deliver what it has. A peer that does not read must not put off a fault.
const GRACE: Duration = Duration::from_secs(1);

/// Why the connection ended.
struct Blame {
    by: By,
    phase: Phase,
    cause: String,
}

impl Course {
    /// Carries the bytes; returns whether all were delivered in both directions.
    async fn carry(&mut self, client: Arc<dyn Socket>) -> bool {
        self.route.events.on_connect(self.conn, &self.client);
        self.gauges.attach(Side::Client, &client);
        let route = Arc::clone(&self.route);
        if let Some(pool) = &route.pool {
            // In a place of its own, which tunnels do not have.
            return Box::pin(self.carry_framed(client, pool.clone())).await;
        }
        let capacity = route.config.limits.mailbox;
        let (to_backend, backend_mailbox) = mailbox(capacity);
        let (to_client, client_mailbox) = mailbox(capacity);
        let (to_backend, backend_detour) = self.detour(Side::Backend, to_backend);
        let (to_client, client_detour) = self.detour(Side::Client, to_client);

        // The client is read before the backend is there: its first bytes wait in the mailbox.
        let mut crew = Crew::default();
        let reader =
            ClientReader { socket: Arc::clone(&client), to: to_backend, post: self.post() };
        crew.start(&route, self.conn, Role::ClientReader, reader.run());
        let Some(backend) = self.connect(&mut crew).await else {
            crew.cancel_all().await;
            return false;
        };
        self.gauges.attach(Side::Backend, &backend);

        let writer = BackendWriter {
            mailbox: backend_mailbox,
            socket: Arc::clone(&backend),
            post: self.post(),
        };
        crew.start(&route, self.conn, Role::BackendWriter, writer.run());
        let reader =
            BackendReader { socket: Arc::clone(&backend), to: to_client, post: self.post() };
        crew.start(&route, self.conn, Role::BackendReader, reader.run());
        let writer = ClientWriter {
            mailbox: client_mailbox,
            socket: Arc::clone(&client),
            post: self.post(),
        };
        crew.start(&route, self.conn, Role::ClientWriter, writer.run());
        for (role, detour) in
            [(Role::BackendDetour, backend_detour), (Role::ClientDetour, client_detour)]
        {
            if let Some(detour) = detour {
                crew.start(&route, self.conn, role, detour);
            }
        }

        let sockets = [&client, &backend];
        let outcome = self.supervise(&mut crew, sockets).await;
        if outcome != Outcome::Clean {
            self.undelivered = client.pending() + backend.pending();
        }
        if outcome != Outcome::Broken {
            sockets.iter().for_each(|socket| socket.disarm());
        }
        outcome == Outcome::Clean
    }

    /// Carries the requests of a client that shares trunks; returns whether it got every reply, and its end.
    async fn carry_framed(&mut self, client: Arc<dyn Socket>, pool: Pool) -> bool {
        self.gauges.connected();
        let route = Arc::clone(&self.route);
        let credit = pool.credit(route.config.limits.mailbox);
        let credits = Credits::new(credit);
        // Two more: for a part of a reply, and for the end.
        let (to_client, replies) = mailbox(credit.saturating_add(2));
        let (undisturbed, drain) = async_channel::bounded(1);
        if !self.draining {
            self.undisturbed = Some(undisturbed);
        }
        let mut crew = Crew::default();
        let reader = RequestReader {
            name: client_reader::NAME,
            socket: Arc::clone(&client),
            to_client,
            credits,
            pool,
            directory: self.directory.clone(),
            drain,
            post: self.post(),
        };
        crew.start(&route, self.conn, Role::ClientReader, reader.run());
        let writer =
            ClientWriter { mailbox: replies, socket: Arc::clone(&client), post: self.post() };
        crew.start(&route, self.conn, Role::ClientWriter, writer.run());
        let mut clean = false;
        while !crew.is_empty() {
            match self.event(&mut crew).await {
                Event::Exit(Role::ClientWriter, Ok(Exit::Finished)) => clean = true,
                Event::Exit(_, Ok(Exit::Finished | Exit::Deserted)) => {}
                Event::Exit(role, Ok(Exit::Failed(error))) => {
                    self.blame(By::Peer(Side::Client), &show_error(&error));
                    self.gauges.broke();
                    if role == Role::ClientReader {
                        crew.cancel(Role::ClientWriter).await;
                    }
                }
                Event::Exit(_, Ok(Exit::Cut(Cut::Close(cause) | Cut::Reset(cause)))) => {
                    self.blame(By::Proxy, &cause);
                }
                Event::Exit(_, Err(Panicked)) => {
                    self.blame(By::Proxy, "an actor panicked");
                    crew.cancel_all().await;
                }
                Event::Order(by, cause) => {
                    self.blame(by, cause);
                    crew.cancel_all().await;
                }
                Event::Late => {}
            }
        }
        if clean {
            client.disarm();
        } else {
            self.undelivered = client.pending();
        }
        clean
    }

    /// Where the reader that feeds the writer towards `to` is to send, and the detour's actor if there is one.
    fn detour(
        &self,
        to: Side,
        writer: Address<tunnel::Message>,
    ) -> (Address<tunnel::Message>, Option<Boxed<'static, Exit>>) {
        match &self.route.detour {
            None => (writer, None),
            Some(detour) => {
                let (address, looked_after) = detour.lead(self.conn, to, writer);
                (address, Some(looked_after))
            }
        }
    }

    fn post(&self) -> Post {
        Post {
            conn: self.conn,
            events: Arc::clone(&self.route.events),
            gauges: Arc::clone(&self.gauges),
            tells_receipt: self.route.pool.is_some(),
        }
    }

    /// Connects a backend, unless the client or an order ends the connection first.
    async fn connect(&mut self, crew: &mut Crew) -> Option<Arc<dyn Socket>> {
        let route = Arc::clone(&self.route);
        let mut connecting = Box::pin(route.backends.connect());
        let connected = loop {
            match race(connecting.as_mut(), self.event(crew)).await {
                Either::A(connected) => break connected,
                // A client may send its request and end its sending before the backend is there.
                Either::B(Event::Exit(Role::ClientReader, Ok(Exit::Finished))) => {}
                Either::B(Event::Exit(_, Ok(Exit::Failed(error)))) => {
                    self.blame(By::Peer(Side::Client), &show_error(&error));
                    return None;
                }
                Either::B(Event::Exit(_, Err(Panicked))) => {
                    self.blame(By::Proxy, "an actor panicked");
                    return None;
                }
                // Nobody takes what the client sends: what should have led it on is being stopped.
                Either::B(Event::Exit(..) | Event::Late) => {
                    self.blame(By::Proxy, "it leads nowhere any more");
                    return None;
                }
                Either::B(Event::Order(by, cause)) => {
                    self.blame(by, cause);
                    return None;
                }
            }
        };
        match connected {
            Ok(connected) => {
                let took = route.runtime.now() - self.accepted;
                self.backend = Some((connected.backend, took));
                self.gauges.connected();
                Some(connected.socket)
            }
            Err(cause) => {
                self.blame(By::Peer(Side::Backend), &cause);
                None
            }
        }
    }

    /// Waits for all actors, and says how the connection came out.
    async fn supervise(&mut self, crew: &mut Crew, sockets: [&Arc<dyn Socket>; 2]) -> Outcome {
        let (mut finished, mut lost) = (Vec::new(), Vec::new());
        let mut cut = None;
        while !crew.is_empty() {
            match self.event(crew).await {
                Event::Exit(
                    writer @ (Role::ClientWriter | Role::BackendWriter),
                    Ok(Exit::Finished),
                ) => finished.push(writer.side()),
                Event::Exit(_, Ok(Exit::Finished)) => {}
                Event::Exit(role, Ok(Exit::Failed(error))) => {
                    self.blame(By::Peer(role.side()), &show_error(&error));
                    self.gauges.broke();
                    lost.push(role.side());
                    // What cannot be read from has been lost in both directions; what cannot be written to may still
                    // have sent something.
                    match role {
                        Role::ClientReader => crew.cancel(Role::ClientWriter).await,
                        Role::BackendReader => crew.cancel(Role::BackendWriter).await,
                        Role::ClientWriter | Role::BackendWriter => {}
                        Role::ClientDetour | Role::BackendDetour => {}
                    }
                }
                // Its neighbour's exit says why.
                Event::Exit(_, Ok(Exit::Deserted)) => {}
                Event::Exit(role, Ok(Exit::Cut(how))) => {
                    let (Cut::Close(cause) | Cut::Reset(cause)) = &how;
                    self.blame(By::Toxic, cause);
                    self.gauges.broke();
                    // The cut has spread to the reader that feeds this direction; the other one is still to hear of it.
                    let other = match role.side() {
                        Side::Backend => {
                            [Role::BackendReader, Role::ClientDetour, Role::ClientWriter]
                        }
                        Side::Client => {
                            [Role::ClientReader, Role::BackendDetour, Role::BackendWriter]
                        }
                    };
                    // Before a clean end, it delivers what it has.
                    let heard = if matches!(how, Cut::Reset(_)) { &other[..] } else { &other[..1] };
                    for role in heard {
                        crew.cancel(*role).await;
                    }
                    self.grace.get_or_insert_with(|| self.route.runtime.sleep(GRACE));
                    cut.get_or_insert(how);
                }
                Event::Late => crew.cancel_all().await,
                Event::Exit(_, Err(Panicked)) => {
                    self.blame(By::Proxy, "an actor panicked");
                    crew.cancel_all().await;
                    return Outcome::Broken;
                }
                Event::Order(by, cause) => {
                    self.blame(by, cause);
                    crew.cancel_all().await;
                    return Outcome::Broken;
                }
            }
        }
        // One direction is complete and the other is not, so there will be a reset: not before the complete one is
        // with its peer.
        if let [side] = finished[..]
            && !lost.contains(&side)
        {
            let [client, backend] = sockets;
            let socket = if side == Side::Client { client } else { backend };
            // With the crew gone, an event can only be an order, and that is not to wait.
            if let Either::B(Event::Order(by, cause)) =
                race(socket.delivered(), self.event(crew)).await
            {
                self.blame(by, cause);
            }
        }
        match cut {
            Some(Cut::Close(_)) => Outcome::Closed,
            None if finished.len() == 2 => Outcome::Clean,
            _ => Outcome::Broken,
        }
    }

    /// The next thing that bears on the end. Dropping the wait loses nothing.
    async fn event(&mut self, crew: &mut Crew) -> Event {
        loop {
            let late = async {
                match &mut self.grace {
                    Some(grace) => grace.await,
                    None => pending().await,
                }
            };
            match race(self.mailbox.recv(), race(crew.next(), late)).await {
                Either::A(Some(Message::Drain)) => {
                    self.draining = true;
                    self.undisturbed = None;
                }
                Either::A(Some(Message::End { by, cause })) => return Event::Order(by, cause),
                Either::A(None) => return Event::Order(By::Proxy, "the proxy was dropped"),
                Either::B(Either::A((role, exit))) => return Event::Exit(role, exit),
                Either::B(Either::B(())) => {
                    self.grace = None;
                    return Event::Late;
                }
            }
        }
    }

    /// Something went wrong. The first cause stands, and what follows from it does not replace it; but an order that
    /// cut short what was still to be delivered is worth knowing.
    fn blame(&mut self, by: By, cause: &str) {
        if let Some(first) = &mut self.blamed {
            if !matches!(by, By::Peer(_)) {
                first.cause.push_str("; then ");
                first.cause.push_str(cause);
            }
        } else {
            // A toxic makes the phase that its end is in: what it cut into was the data.
            let phase = match by {
                By::Toxic if !self.draining => Phase::Data,
                _ => self.phase(),
            };
            self.blamed = Some(Blame { by, phase, cause: cause.to_string() });
        }
    }

    /// What made this connection end, if nothing went wrong: whoever ended its sending first.
    fn natural(&self) -> Blame {
        let by = self.gauges.first_fin().map_or(By::Proxy, By::Peer);
        let phase = if self.draining { Phase::Drain } else { Phase::Data };
        Blame { by, phase, cause: String::new() }
    }

    fn phase(&self) -> Phase {
        if self.draining { Phase::Drain } else { self.gauges.phase() }
    }

    fn ended(&mut self, clean: bool) -> Ended {
        let end = self.blamed.take().unwrap_or_else(|| self.natural());
        let (backend, connect) = self.backend.take().unzip();
        Ended {
            conn: self.conn,
            client: self.client.clone(),
            backend,
            from_client: self.gauges.read(Side::Client),
            to_backend: self.gauges.written(Side::Backend),
            from_backend: self.gauges.read(Side::Backend),
            to_client: self.gauges.written(Side::Client),
            undelivered: self.undelivered as u64,
            answers: self.route.pool.as_ref().map(|_| self.gauges.answers()),
            lasted: self.route.runtime.now() - self.accepted,
            connect,
            by: end.by,
            phase: end.phase,
            clean,
            cause: end.cause,
        }
    }
}

/// How a connection came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Both writers have finished.
    Clean,
    /// Cut short, and to look clean.
    Closed,
    Broken,
}

enum Event {
    Order(By, &'static str),
    Exit(Role, Result<Exit, Panicked>),
    /// The grace behind a cut is over.
    Late,
}

/// Which of the four, or the detour before a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    ClientReader,
    BackendDetour,
    BackendWriter,
    BackendReader,
    ClientDetour,
    ClientWriter,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::ClientReader => client_reader::NAME,
            Role::BackendWriter => backend_writer::NAME,
            Role::BackendReader => backend_reader::NAME,
            Role::ClientWriter => client_writer::NAME,
            Role::BackendDetour | Role::ClientDetour => "link",
        }
    }

    /// The peer whose socket it holds, or to whom its way leads.
    fn side(self) -> Side {
        match self {
            Role::ClientReader | Role::ClientWriter | Role::ClientDetour => Side::Client,
            Role::BackendReader | Role::BackendWriter | Role::BackendDetour => Side::Backend,
        }
    }
}

/// The actors that still run.
#[derive(Default)]
struct Crew(Vec<(Role, Running<Exit>)>);

impl Crew {
    fn start(
        &mut self,
        route: &Route,
        conn: ConnId,
        role: Role,
        run: impl Future<Output = Exit> + Send + 'static,
    ) {
        let running = actor::spawn(&*route.runtime, role.name(), Some(conn), run);
        self.0.push((role, running));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next exit; waits for ever if nobody is left.
    async fn next(&mut self) -> (Role, Result<Exit, Panicked>) {
        actor::first(&mut self.0).await
    }

    async fn cancel(&mut self, role: Role) {
        if let Some(place) = self.0.iter().position(|(other, _)| *other == role) {
            self.0.swap_remove(place).1.cancel().await;
        }
    }

    async fn cancel_all(&mut self) {
        for (_, running) in self.0.drain(..) {
            running.cancel().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use crate::testing::DEADLINE;
    use crate::testing::deadline::within;
    use crate::testing::memory::clock::Clock;
    use crate::testing::memory::owing::Owing;
    use crate::testing::{Ending, FakeBackend, Peer, RunningBackend, pair};
    use crate::{Boxed, Config, Connect, Events};
    use async_channel::Receiver;
    use futures_lite::future::{block_on, pending, yield_now, zip};
    use std::io;

    /// A connection and its surroundings; the test is the client, the backend and the directory.
    struct Stage {
        clock: Clock,
        backend: RunningBackend,
        orders: Address<Message>,
        directory: Mailbox<directory::Message>,
        slots: Slots,
        told: Receiver<Ended>,
    }

    /// Passes `on_close` on to the test.
    struct Tell(async_channel::Sender<Ended>);

    impl Events for Tell {
        fn on_close(&self, ended: &Ended) {
            self.0.try_send(ended.clone()).expect("it is told once");
            assert!(ended.clean, "a callback that panics, on purpose");
        }
    }

    fn stage(backend: FakeBackend) -> (Stage, Connection, Peer) {
        let clock = Clock::new();
        let backend = backend.in_memory();
        let (tell, told) = async_channel::bounded(1);
        let config = Config { backends: vec![backend.endpoint().clone()], ..Config::default() };
        let route = clock.route(config, Tell(tell), backend.connect());
        let (ours, theirs) = pair(64);
        let (address, directory) = mailbox(directory::MAILBOX);
        let (orders, mailbox) = mailbox(MAILBOX);
        let slots = Slots::new(1);
        let connection = Connection {
            conn: ConnId::from(7),
            client: Endpoint::Name { host: "client".into(), port: 1 },
            socket: ours,
            mailbox,
            directory: address,
            gauges: Arc::default(),
            route,
            slot: slots.try_take().expect("it is free"),
        };
        let stage = Stage { clock, backend, orders, directory, slots, told };
        (stage, connection, Peer::new("client", theirs))
    }

    impl Stage {
        /// What the directory and `on_close` were told: the same, and once.
        fn ended(mut self) -> Ended {
            let told = self.told.try_recv().expect("on_close was called");
            let Some(directory::Message::Ended(ended)) = self.directory.try_recv() else {
                panic!("the directory was told of the end");
            };
            assert_eq!(*ended, told);
            assert!(self.directory.try_recv().is_none());
            assert!(self.slots.try_take().is_some(), "its slot is free again");
            told
        }
    }

    #[test]
    fn the_end_tells_what_was_carried_and_how_long_by_the_clock_of_the_runtime() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::by_hand());
            let playing = async {
                let mut backend = stage.backend.accept().await;
                client.send(b"hello").await;
                assert_eq!(backend.recv_exact(5).await, b"hello");
                stage.clock.advance(Duration::from_secs(90));
                backend.send(b"bye").await;
                backend.fin();
                assert_eq!(client.recv_to_end().await.bytes, b"bye");
                client.fin();
                assert_eq!(backend.recv_to_end().await.ending, Ending::Fin);
            };
            zip(connection.run(), playing).await;
            let ended = stage.ended();
            assert_eq!((ended.conn.number(), ended.lasted), (7, Duration::from_secs(90)));
            assert_eq!(ended.connect, Some(Duration::ZERO));
            assert_eq!((ended.from_client, ended.to_backend), (5, 5));
            assert_eq!((ended.from_backend, ended.to_client), (3, 3));
            assert_eq!((ended.by, ended.clean), (By::Peer(Side::Backend), true));
        });
    }

    #[test]
    fn an_order_resets_both_peers_and_an_on_close_that_panics_hides_nothing() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::by_hand());
            let playing = async {
                let mut backend = stage.backend.accept().await;
                let end = Message::End { by: By::Timeout, cause: "too long" };
                stage.orders.send(Message::Drain).await.expect("it runs");
                stage.orders.send(end).await.expect("it runs");
                assert!(client.recv_to_end().await.ending.is_reset());
                assert!(backend.recv_to_end().await.ending.is_reset());
            };
            zip(connection.run(), playing).await;
            let ended = stage.ended();
            assert_eq!((ended.by, ended.phase), (By::Timeout, Phase::Drain));
            assert_eq!((ended.clean, &ended.cause[..]), (false, "too long"));
        });
    }

    #[test]
    fn a_proxy_that_is_dropped_takes_its_connections_with_it() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::by_hand());
            let Stage { backend, orders, directory, told, .. } = stage;
            let playing = async {
                let peer = backend.accept().await;
                drop((orders, directory));
                assert!(client.recv_to_end().await.ending.is_reset());
                drop(peer);
            };
            zip(connection.run(), playing).await;
            let ended = told.try_recv().expect("on_close was called");
            assert_eq!((ended.by, &ended.cause[..]), (By::Proxy, "the proxy was dropped"));
        });
    }

    #[test]
    fn without_a_backend_the_client_is_reset_and_nobody_else_is_blamed() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::refuse());
            client.send(b"hello").await;
            connection.run().await;
            assert!(client.recv_to_end().await.ending.is_reset());
            let ended = stage.ended();
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Backend), Phase::Connect));
            assert_eq!(ended.cause, "backend-1:1: connection refused");
            assert_eq!((ended.backend, ended.connect), (None, None));
        });
    }

    #[test]
    fn what_the_reset_destroys_is_counted_for_both_peers() {
        block_on(async {
            let (mut stage, mut connection, _client) = stage(FakeBackend::by_hand());
            let (tell, told) = async_channel::bounded(1);
            let connect = Owing(stage.backend.connect(), 4);
            let config = connection.route.config.clone();
            connection.route = stage.clock.route(config, Tell(tell), connect);
            connection.socket = Arc::new(Owing(connection.socket, 3));
            stage.told = told;
            let playing = async {
                let backend = stage.backend.accept().await;
                let end = Message::End { by: By::Proxy, cause: "enough" };
                stage.orders.send(end).await.expect("it runs");
                backend
            };
            zip(connection.run(), playing).await;
            assert_eq!(stage.ended().undelivered, 7);
        });
    }

    #[test]
    fn a_clean_end_says_that_it_came_while_draining() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::by_hand());
            let playing = async {
                let mut backend = stage.backend.accept().await;
                stage.orders.send(Message::Drain).await.expect("it runs");
                client.fin();
                assert_eq!(backend.recv_to_end().await.ending, Ending::Fin);
                backend.fin();
                assert_eq!(client.recv_to_end().await.ending, Ending::Fin);
            };
            zip(connection.run(), playing).await;
            let ended = stage.ended();
            assert_eq!((ended.by, ended.phase), (By::Peer(Side::Client), Phase::Drain));
            assert!(ended.clean);
        });
    }

    #[test]
    fn the_first_cause_stands_and_what_is_not_a_peers_is_added() {
        let check = |second: By, expected: &str| {
            let (_stage, connection, _client) = stage(FakeBackend::refuse());
            let mut course = Course {
                conn: connection.conn,
                client: connection.client,
                gauges: connection.gauges,
                accepted: connection.route.runtime.now(),
                route: connection.route,
                mailbox: connection.mailbox,
                directory: mailbox(1).0,
                draining: false,
                backend: None,
                blamed: None,
                undelivered: 0,
                grace: None,
                undisturbed: None,
            };
            course.blame(By::Peer(Side::Client), "first");
            course.blame(second, "second");
            let ended = course.ended(false);
            assert_eq!((ended.by, &ended.cause[..]), (By::Peer(Side::Client), expected));
        };
        check(By::Peer(Side::Client), "first");
        check(By::Peer(Side::Backend), "first");
        check(By::Proxy, "first; then second");
        check(By::Timeout, "first; then second");
    }

    /// A backend that neither accepts nor refuses.
    struct Silent;

    impl Connect for Silent {
        fn connect<'a>(&'a self, _: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
            Box::pin(pending())
        }
    }

    #[test]
    fn whoever_ends_it_before_there_is_a_backend_is_named() {
        let check = |ordered: bool, by: By, cause: &str| {
            block_on(async {
                let (mut stage, mut connection, client) = stage(FakeBackend::refuse());
                let (tell, told) = async_channel::bounded(1);
                let config = connection.route.config.clone();
                connection.route = stage.clock.route(config, Tell(tell), Silent);
                stage.told = told;
                if ordered {
                    let end = Message::End { by: By::Timeout, cause: "too long" };
                    stage.orders.send(end).await.expect("it will run");
                } else {
                    client.reset();
                }
                connection.run().await;
                let ended = stage.ended();
                assert_eq!((ended.by, ended.phase, &ended.cause[..]), (by, Phase::Connect, cause));
            });
        };
        check(true, By::Timeout, "too long");
        check(false, By::Peer(Side::Client), "connection reset");
    }

    #[test]
    fn a_peer_that_resets_is_named_with_its_error() {
        for side in [Side::Client, Side::Backend] {
            block_on(async {
                let (stage, connection, client) = stage(FakeBackend::by_hand());
                let playing = async {
                    let backend = stage.backend.accept().await;
                    let (gone, mut other) = match side {
                        Side::Client => (client, backend),
                        Side::Backend => (backend, client),
                    };
                    gone.reset();
                    assert!(other.recv_to_end().await.ending.is_reset());
                };
                zip(connection.run(), playing).await;
                let ended = stage.ended();
                assert_eq!((ended.by, ended.phase), (By::Peer(side), Phase::Data));
                assert_eq!(ended.cause, "connection reset");
            });
        }
    }

    #[test]
    fn what_a_lost_client_has_still_to_be_delivered_is_under_the_shorter_deadline() {
        block_on(async {
            let (stage, connection, mut client) = stage(FakeBackend::by_hand().capacity(4));
            let gauges = Arc::clone(&connection.gauges);
            let playing = async {
                let mut backend = stage.backend.accept().await;
                assert_eq!(gauges.phase(), Phase::Data);
                // More than the backend's system takes, so that it is on its way when the client is lost.
                client.send(b"0123456789").await;
                client.reset();
                let half_closed = async {
                    while gauges.phase() != Phase::HalfClosed {
                        yield_now().await;
                    }
                };
                assert!(within(Some(DEADLINE), half_closed).await.is_some());
                assert_eq!(backend.recv_exact(10).await, b"0123456789");
                assert!(backend.recv_to_end().await.ending.is_reset());
            };
            zip(connection.run(), playing).await;
        });
    }
}
