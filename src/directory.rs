//! Knows every connection by its id: lists them, ends them, and watches their deadlines.
//!
//! - **Owns** the addresses of all connections, and the totals.
//! - **Receives** `Opened` from listeners, `Ended` from connections, `Pinned` from client_readers, questions and orders from the proxy's owner.
//! - **Sends to** `connection`: `Drain`, `End`, without ever waiting. Answers questions.
//! - **Ends when** its last address is dropped.
//! - **Never** awaits another mailbox, so that anybody may wait for this one.
//!
//! One tick serves all deadlines. A connection is idle when its gauges show the same figures at each tick, so that
//! the actors on the data path never ask for the time.

use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox};
use crate::proxy::Route;
use crate::runtime::{Either, race};
use crate::{By, ConnId, Ended, Endpoint, Listed, Phase, Report, Side, connection};
use async_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const NAME: &str = "directory";

/// Messages that may wait: a burst of connections that open and end. The senders are not on the data path.
pub(crate) const MAILBOX: usize = 64;

pub(crate) enum Message {
    Opened(Opened),
    Ended(Box<Ended>),
    /// A client has a trunk for itself, for this reason, or not any more.
    Pinned {
        conn: ConnId,
        why: Option<String>,
    },
    /// Asks for all connections, oldest first.
    List {
        reply: Sender<Vec<Listed>>,
    },
    /// Aborts one; answers whether there was one.
    End {
        conn: ConnId,
        reply: Sender<bool>,
    },
    /// Aborts all.
    EndAll {
        by: By,
        cause: &'static str,
    },
    /// The proxy was told to stop.
    Drain,
    /// Asks to be told when no connection is left.
    Empty {
        reply: Sender<()>,
    },
    /// Asks for the totals.
    Report {
        reply: Sender<Report>,
    },
}

/// A connection that is about to start.
pub(crate) struct Opened {
    pub(crate) conn: ConnId,
    pub(crate) client: Endpoint,
    pub(crate) address: Address<connection::Message>,
    pub(crate) gauges: Arc<Gauges>,
}

pub(crate) struct Directory {
    mailbox: Mailbox<Message>,
    route: Arc<Route>,
    /// In order, so that what reaches them all does so in the same order whenever a simulated run is repeated.
    connections: BTreeMap<ConnId, Entry>,
    totals: Report,
    draining: bool,
    ending: Option<(By, &'static str)>,
    awaiting_empty: Vec<Sender<()>>,
}

struct Entry {
    opened: Opened,
    since: Instant,
    /// The gauges' motion at the last tick at which it had changed, and when that was.
    motion: u64,
    moved: Instant,
    /// What was pending when half of the time was over.
    pending: Option<usize>,
    pinned: Option<String>,
}

impl Directory {
    pub(crate) fn new(mailbox: Mailbox<Message>, route: Arc<Route>) -> Self {
        Directory {
            mailbox,
            route,
            connections: BTreeMap::new(),
            totals: Report::default(),
            draining: false,
            ending: None,
            awaiting_empty: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let runtime = Arc::clone(&self.route.runtime);
        let mut tick = runtime.sleep(self.route.config.tick);
        loop {
            match race(self.mailbox.recv(), tick.as_mut()).await {
                Either::A(Some(message)) => self.take(message),
                Either::A(None) => return,
                Either::B(()) => {
                    self.tick(runtime.now());
                    tick = runtime.sleep(self.route.config.tick);
                }
            }
            if self.connections.is_empty() {
                for reply in self.awaiting_empty.drain(..) {
                    answer(&reply, ());
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Opened(opened) => self.opened(opened),
            Message::Ended(ended) => self.ended(&ended),
            Message::Pinned { conn, why } => {
                if let Some(entry) = self.connections.get_mut(&conn) {
                    entry.pinned = why;
                }
            }
            Message::List { reply } => answer(&reply, self.list()),
            Message::End { conn, reply } => {
                let entry = self.connections.get(&conn);
                if let Some(entry) = entry {
                    entry.end(By::Proxy, "ended by order");
                }
                answer(&reply, entry.is_some());
            }
            Message::EndAll { by, cause } => {
                if self.draining {
                    // Listeners may still hand in clients that the kernel had accepted.
                    self.ending = Some((by, cause));
                }
                for entry in self.connections.values() {
                    entry.end(by, cause);
                }
            }
            Message::Drain => {
                self.draining = true;
                for entry in self.connections.values() {
                    entry.drain();
                }
            }
            Message::Empty { reply } => self.awaiting_empty.push(reply),
            Message::Report { reply } => answer(&reply, self.report()),
        }
    }

    fn opened(&mut self, opened: Opened) {
        let now = self.route.runtime.now();
        let motion = opened.gauges.motion();
        let entry = Entry { motion, since: now, moved: now, pending: None, pinned: None, opened };
        if self.draining {
            entry.drain();
        }
        if let Some((by, cause)) = self.ending {
            entry.end(by, cause);
        }
        self.totals.accepted += 1;
        self.connections.insert(entry.opened.conn, entry);
    }

    fn ended(&mut self, ended: &Ended) {
        if let Some(entry) = self.connections.remove(&ended.conn) {
            self.totals.saw(&entry.opened.gauges);
        }
        let totals = &mut self.totals;
        totals.from_client += ended.from_client;
        totals.to_backend += ended.to_backend;
        totals.from_backend += ended.from_backend;
        totals.to_client += ended.to_client;
        totals.clean += u64::from(ended.clean);
        totals.aborted += u64::from(!ended.clean);
        totals.refused += u64::from(ended.is_refused());
    }

    fn tick(&mut self, now: Instant) {
        let config = &self.route.config;
        for entry in self.connections.values_mut() {
            let (limit, cause) = match entry.opened.gauges.phase() {
                Phase::HalfClosed => (config.half_close_timeout, "half-closed for too long"),
                _ => (config.idle_timeout, "idle for too long"),
            };
            if entry.is_overdue(now, limit) {
                entry.end(By::Timeout, cause);
            }
        }
    }

    fn list(&self) -> Vec<Listed> {
        let now = self.route.runtime.now();
        self.connections.values().map(|entry| entry.listed(now)).collect()
    }

    fn report(&self) -> Report {
        let mut report = self.totals.clone();
        report.open = self.connections.len();
        for entry in self.connections.values() {
            let gauges = &entry.opened.gauges;
            report.from_client += gauges.read(Side::Client);
            report.to_backend += gauges.written(Side::Backend);
            report.from_backend += gauges.read(Side::Backend);
            report.to_client += gauges.written(Side::Client);
            report.saw(gauges);
        }
        report
    }
}

impl Report {
    fn saw(&mut self, gauges: &Gauges) {
        let backend = &mut self.backend_writer_high_water;
        *backend = (*backend).max(gauges.high_water(Side::Backend));
        let client = &mut self.client_writer_high_water;
        *client = (*client).max(gauges.high_water(Side::Client));
    }
}

impl Entry {
    /// Whether nothing has moved for so long: neither here, nor from our kernel to a peer's.
    ///
    /// A slow peer may take minutes over what its socket was given in a moment. The kernel is asked only when half of
    /// the time is over, and at its end.
    fn is_overdue(&mut self, now: Instant, limit: Duration) -> bool {
        let gauges = &self.opened.gauges;
        let motion = gauges.motion();
        if motion != self.motion {
            (self.motion, self.moved, self.pending) = (motion, now, None);
            return false;
        }
        let idle = now - self.moved;
        if idle >= limit {
            // Without a look at half of the time nothing was pending then, as far as anybody knows.
            if gauges.pending() == self.pending.unwrap_or(0) {
                return true;
            }
            (self.moved, self.pending) = (now, None);
        } else if idle >= limit / 2 && self.pending.is_none() {
            self.pending = Some(gauges.pending());
        }
        false
    }

    fn drain(&self) {
        self.order(connection::Message::Drain);
    }

    fn end(&self, by: By, cause: &'static str) {
        self.order(connection::Message::End { by, cause });
    }

    fn order(&self, message: connection::Message) {
        // Full means that it is being ended already; Gone, that it has ended and will say so.
        let _ = self.opened.address.try_send(message);
    }

    fn listed(&self, now: Instant) -> Listed {
        let gauges = &self.opened.gauges;
        Listed {
            conn: self.opened.conn,
            client: self.opened.client.clone(),
            phase: gauges.phase(),
            to_backend: gauges.written(Side::Backend),
            to_client: gauges.written(Side::Client),
            pinned: self.pinned.clone(),
            age: now - self.since,
            idle: now - self.moved,
        }
    }
}

fn answer<T>(reply: &Sender<T>, value: T) {
    // Whoever asked may have gone; the reply's channel has room for the one answer.
    let _ = reply.try_send(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Boxed;
    use crate::Config;
    use crate::events::Silent;
    use crate::mailbox::mailbox;
    use crate::testing::FakeBackend;
    use crate::testing::memory::clock::Clock;
    use futures_lite::future::{block_on, poll_once};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// A directory on a clock that the test moves: idle after 10 s, half-closed for too long after 3 s.
    struct Stage {
        clock: Clock,
        address: Address<Message>,
        run: Boxed<'static, ()>,
    }

    /// A connection that does nothing but receive its orders.
    struct Open {
        conn: ConnId,
        gauges: Arc<Gauges>,
        orders: Mailbox<connection::Message>,
    }

    impl Stage {
        fn new() -> Stage {
            let clock = Clock::new();
            let config = Config {
                tick: SECOND,
                idle_timeout: 10 * SECOND,
                half_close_timeout: 3 * SECOND,
                ..Config::default()
            };
            let backend = FakeBackend::refuse().in_memory();
            let route = clock.route(config, Silent, backend.connect());
            let (address, mailbox) = mailbox(MAILBOX);
            let run = Box::pin(Directory::new(mailbox, route).run());
            Stage { clock, address, run }
        }

        /// Leaves a message and lets the directory take it.
        async fn tell(&mut self, message: Message) {
            assert!(self.address.try_send(message).is_ok());
            assert!(poll_once(&mut self.run).await.is_none());
        }

        async fn ask<T>(&mut self, question: impl FnOnce(Sender<T>) -> Message) -> Option<T> {
            let (reply, answer) = async_channel::bounded(1);
            self.tell(question(reply)).await;
            answer.try_recv().ok()
        }

        async fn open(&mut self, number: u64) -> Open {
            let (address, orders) = mailbox(connection::MAILBOX);
            let (conn, gauges) = (ConnId::from(number), Arc::new(Gauges::default()));
            gauges.connected();
            let client = client();
            let shared = Arc::clone(&gauges);
            self.tell(Message::Opened(Opened { conn, client, address, gauges: shared })).await;
            Open { conn, gauges, orders }
        }

        /// Lets so many ticks pass, one by one.
        async fn ticks(&mut self, count: u32) {
            for _ in 0..count {
                self.clock.advance(SECOND);
                assert!(poll_once(&mut self.run).await.is_none());
            }
        }

        async fn list(&mut self) -> Vec<Listed> {
            self.ask(|reply| Message::List { reply }).await.expect("it answers")
        }

        async fn report(&mut self) -> Report {
            self.ask(|reply| Message::Report { reply }).await.expect("it answers")
        }
    }

    impl Open {
        /// The next order: `drain`, or the cause of an end.
        fn order(&mut self) -> Option<&'static str> {
            Some(match self.orders.try_recv()? {
                connection::Message::Drain => "drain",
                connection::Message::End { cause, .. } => cause,
            })
        }

        fn ended(&self, clean: bool, backend: Option<Endpoint>) -> Box<Ended> {
            Box::new(Ended {
                conn: self.conn,
                client: client(),
                backend,
                from_client: self.gauges.read(Side::Client),
                to_backend: self.gauges.written(Side::Backend),
                from_backend: self.gauges.read(Side::Backend),
                to_client: self.gauges.written(Side::Client),
                undelivered: 0,
                answers: None,
                lasted: SECOND,
                connect: None,
                by: By::Peer(Side::Backend),
                phase: Phase::Data,
                clean,
                cause: String::new(),
            })
        }
    }

    fn client() -> Endpoint {
        Endpoint::Name { host: "client".into(), port: 1 }
    }

    #[test]
    fn connections_are_listed_oldest_first_with_their_age_until_they_end() {
        block_on(async {
            let mut stage = Stage::new();
            let _late = stage.open(9).await;
            stage.ticks(2).await;
            let early = stage.open(2).await;
            early.gauges.add_written(Side::Client, 7);
            stage.ticks(1).await;
            let list = stage.list().await;
            assert_eq!(list.iter().map(|one| one.conn.number()).collect::<Vec<_>>(), [2, 9]);
            assert_eq!((list[0].age, list[0].idle, list[0].to_client), (SECOND, Duration::ZERO, 7));
            assert_eq!((list[1].age, list[1].idle), (3 * SECOND, 3 * SECOND));
            stage.tell(Message::Ended(early.ended(true, None))).await;
            assert_eq!(stage.list().await.len(), 1);
        });
    }

    #[test]
    fn an_abort_while_draining_reaches_those_that_still_come_in() {
        block_on(async {
            let mut stage = Stage::new();
            stage.tell(Message::EndAll { by: By::Proxy, cause: "before" }).await;
            let mut early = stage.open(1).await;
            assert_eq!(early.order(), None, "an abort is for those that are there");
            stage.tell(Message::Drain).await;
            stage.tell(Message::EndAll { by: By::Proxy, cause: "all" }).await;
            let mut late = stage.open(2).await;
            assert_eq!((early.order(), early.order()), (Some("drain"), Some("all")));
            assert_eq!((late.order(), late.order()), (Some("drain"), Some("all")));
        });
    }

    /// A socket from which so much has still to get across.
    struct Pending(std::sync::atomic::AtomicUsize);

    impl crate::Socket for Pending {
        fn poll_recv(
            &self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<Option<crate::Chunk>>> {
            std::task::Poll::Pending
        }

        fn poll_send(
            &self,
            _: &mut std::task::Context<'_>,
            _: &mut std::collections::VecDeque<crate::Chunk>,
        ) -> std::task::Poll<std::io::Result<usize>> {
            std::task::Poll::Pending
        }

        fn shutdown_write(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn pending(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }

        fn disarm(&self) {}
    }

    #[test]
    fn what_moves_in_the_kernel_alone_counts_as_motion_until_it_stands_still() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            let pending = Arc::new(Pending(100.into()));
            let socket: Arc<dyn crate::Socket> = pending.clone();
            open.gauges.attach(Side::Client, &socket);
            open.gauges.saw_fin(Side::Backend);
            for left in (1..20).rev() {
                stage.ticks(1).await;
                assert_eq!(open.order(), None, "{left} still to get across");
                pending.0.store(left, std::sync::atomic::Ordering::Relaxed);
            }
            stage.ticks(6).await;
            assert_eq!(open.order(), Some("half-closed for too long"));
        });
    }

    #[test]
    fn an_order_reaches_the_named_connection_and_no_other() {
        block_on(async {
            let mut stage = Stage::new();
            let (mut one, mut other) = (stage.open(1).await, stage.open(2).await);
            let conn = one.conn;
            assert_eq!(stage.ask(|reply| Message::End { conn, reply }).await, Some(true));
            assert_eq!((one.order(), other.order()), (Some("ended by order"), None));
            let conn = ConnId::from(3);
            assert_eq!(stage.ask(|reply| Message::End { conn, reply }).await, Some(false));
            stage.tell(Message::EndAll { by: By::Proxy, cause: "all" }).await;
            assert_eq!((one.order(), other.order()), (Some("all"), Some("all")));
        });
    }

    #[test]
    fn a_connection_is_idle_when_nothing_has_moved_for_the_whole_timeout() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            stage.ticks(9).await;
            assert_eq!(open.order(), None);
            open.gauges.add_read(Side::Backend, 1);
            stage.ticks(10).await;
            assert_eq!(open.order(), None, "a byte counts as life from the tick that saw it");
            stage.ticks(1).await;
            assert_eq!(open.order(), Some("idle for too long"));
        });
    }

    #[test]
    fn a_half_closed_connection_has_its_own_timeout() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            stage.ticks(5).await;
            open.gauges.saw_fin(Side::Client);
            stage.ticks(3).await;
            assert_eq!(open.order(), None, "ending the sending is a motion too");
            stage.ticks(1).await;
            assert_eq!(open.order(), Some("half-closed for too long"));
        });
    }

    #[test]
    fn a_trickle_keeps_a_connection_alive() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            for _ in 0..20 {
                stage.ticks(9).await;
                open.gauges.add_written(Side::Client, 1);
            }
            assert_eq!(open.order(), None);
        });
    }

    #[test]
    fn a_connection_that_does_not_take_its_orders_holds_nobody_up() {
        block_on(async {
            let mut stage = Stage::new();
            let (_deaf, mut other) = (stage.open(1).await, stage.open(2).await);
            stage.ticks(30).await;
            assert_eq!(other.order(), Some("idle for too long"));
            assert_eq!(stage.list().await.len(), 2);
        });
    }

    #[test]
    fn the_totals_keep_what_has_ended_and_add_what_is_open() {
        block_on(async {
            let mut stage = Stage::new();
            let opens = [
                stage.open(1).await,
                stage.open(2).await,
                stage.open(3).await,
                stage.open(4).await,
            ];
            for open in &opens {
                open.gauges.add_written(Side::Client, 10);
                open.gauges.add_written(Side::Backend, 1);
            }
            opens[0].gauges.saw_high_water(Side::Client, 4);
            opens[3].gauges.saw_high_water(Side::Backend, 2);
            stage.tell(Message::Ended(opens[0].ended(true, Some(client())))).await;
            stage.tell(Message::Ended(opens[1].ended(false, Some(client())))).await;
            stage.tell(Message::Ended(opens[2].ended(false, None))).await;
            let report = stage.report().await;
            assert_eq!((report.open, report.accepted), (1, 4));
            assert_eq!((report.clean, report.aborted, report.refused), (1, 2, 1));
            assert_eq!((report.to_client, report.to_backend), (40, 4));
            let marks = (report.client_writer_high_water, report.backend_writer_high_water);
            assert_eq!(marks, (4, 2));
        });
    }

    #[test]
    fn who_asks_is_told_when_the_last_connection_has_ended() {
        block_on(async {
            let mut stage = Stage::new();
            assert_eq!(stage.ask(|reply| Message::Empty { reply }).await, Some(()));
            let open = stage.open(1).await;
            let (reply, answer) = async_channel::bounded(1);
            stage.tell(Message::Empty { reply }).await;
            assert!(answer.is_empty());
            stage.tell(Message::Ended(open.ended(true, None))).await;
            assert_eq!(answer.try_recv(), Ok(()));
        });
    }

    #[test]
    fn a_drain_is_told_to_all_and_to_those_that_come_after_it() {
        block_on(async {
            let mut stage = Stage::new();
            let mut before = stage.open(1).await;
            stage.tell(Message::Drain).await;
            let mut after = stage.open(2).await;
            assert_eq!((before.order(), after.order()), (Some("drain"), Some("drain")));
            assert_eq!(before.order(), None);
        });
    }

    #[test]
    fn it_ends_with_its_last_address() {
        block_on(async {
            let Stage { address, mut run, .. } = Stage::new();
            assert!(poll_once(&mut run).await.is_none());
            drop(address);
            run.await;
        });
    }

    #[test]
    fn what_has_moved_in_the_kernel_since_half_of_the_time_is_no_idleness() {
        // The last that the peer's system takes, at this tick, leaves so much.
        let check = |tick: u32, left: usize, expected: Option<&str>| {
            block_on(async {
                let mut stage = Stage::new();
                let mut open = stage.open(1).await;
                let pending = Arc::new(Pending(100.into()));
                let socket: Arc<dyn crate::Socket> = pending.clone();
                open.gauges.attach(Side::Client, &socket);
                stage.ticks(tick).await;
                pending.0.store(left, std::sync::atomic::Ordering::Relaxed);
                stage.ticks(10 - tick).await;
                assert_eq!(open.order(), expected, "{tick} {left}");
            });
        };
        check(4, 90, Some("idle for too long"));
        check(5, 90, None);
        check(8, 90, None);
        check(8, 0, None);
    }

    #[test]
    fn a_byte_that_moves_starts_the_look_at_the_kernel_afresh() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            let pending = Arc::new(Pending(100.into()));
            let socket: Arc<dyn crate::Socket> = pending.clone();
            open.gauges.attach(Side::Client, &socket);
            stage.ticks(5).await;
            open.gauges.add_read(Side::Client, 1);
            stage.ticks(1).await;
            pending.0.store(90, std::sync::atomic::Ordering::Relaxed);
            stage.ticks(9).await;
            assert_eq!(open.order(), None);
            stage.ticks(1).await;
            assert_eq!(open.order(), Some("idle for too long"));
        });
    }

    #[test]
    fn a_tick_that_is_late_does_not_put_a_deadline_off() {
        block_on(async {
            let mut stage = Stage::new();
            let mut open = stage.open(1).await;
            stage.clock.advance(10 * SECOND);
            assert!(poll_once(&mut stage.run).await.is_none());
            assert_eq!(open.order(), Some("idle for too long"));
        });
    }
}
