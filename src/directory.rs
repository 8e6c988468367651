//! Knows every connection by its id: lists them, ends them, and watches their deadlines.
//!
//! - **Owns** the addresses of all connections, and the totals.
//! - **Receives** `Opened` from listeners, `Ended` from connections, questions and orders from the proxy's owner.
//! - **Sends to** [`connection`](crate::connection): `Drain`, `End`, without ever waiting. Answers questions.
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
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

pub(crate) const NAME: &str = "directory";

/// Messages that may wait: a burst of connections that open and end. The senders are not on the data path.
pub(crate) const MAILBOX: usize = 64;

pub(crate) enum Message {
    Opened(Opened),
    Ended(Ended),
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
    connections: HashMap<ConnId, Entry>,
    totals: Report,
    draining: bool,
    awaiting_empty: Vec<Sender<()>>,
}

struct Entry {
    opened: Opened,
    since: Instant,
    /// The gauges' motion at the last tick at which it had changed, and when that was.
    motion: u64,
    moved: Instant,
}

impl Directory {
    pub(crate) fn new(mailbox: Mailbox<Message>, route: Arc<Route>) -> Self {
        Directory {
            mailbox,
            route,
            connections: HashMap::new(),
            totals: Report::default(),
            draining: false,
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
            Message::List { reply } => answer(&reply, self.list()),
            Message::End { conn, reply } => {
                let entry = self.connections.get(&conn);
                if let Some(entry) = entry {
                    entry.end(By::Proxy, "ended by order");
                }
                answer(&reply, entry.is_some());
            }
            Message::EndAll { by, cause } => {
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
        let entry = Entry { motion: opened.gauges.motion(), since: now, moved: now, opened };
        if self.draining {
            entry.drain();
        }
        self.totals.accepted += 1;
        self.connections.insert(entry.opened.conn, entry);
    }

    fn ended(&mut self, ended: &Ended) {
        if let Some(entry) = self.connections.remove(&ended.conn) {
            self.totals.saw(&entry.opened.gauges);
        }
        let totals = &mut self.totals;
        totals.to_backend += ended.to_backend;
        totals.to_client += ended.to_client;
        totals.clean += u64::from(ended.clean);
        totals.aborted += u64::from(!ended.clean);
        let refused = ended.backend.is_none() && ended.by == By::Peer(Side::Backend);
        totals.refused += u64::from(refused);
    }

    fn tick(&mut self, now: Instant) {
        let config = &self.route.config;
        for entry in self.connections.values_mut() {
            let motion = entry.opened.gauges.motion();
            if motion != entry.motion {
                entry.motion = motion;
                entry.moved = now;
                continue;
            }
            let (limit, cause) = match entry.opened.gauges.phase() {
                Phase::HalfClosed => (config.half_close_timeout, "half-closed for too long"),
                _ => (config.idle_timeout, "idle for too long"),
            };
            if now - entry.moved >= limit {
                entry.end(By::Timeout, cause);
            }
        }
    }

    fn list(&self) -> Vec<Listed> {
        let now = self.route.runtime.now();
        let mut list: Vec<_> = self.connections.values().map(|entry| entry.listed(now)).collect();
        list.sort_by_key(|listed| listed.conn);
        list
    }

    fn report(&self) -> Report {
        let mut report = self.totals.clone();
        report.open = self.connections.len();
        for entry in self.connections.values() {
            let gauges = &entry.opened.gauges;
            report.to_backend += gauges.written(Side::Backend);
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
            age: now - self.since,
            idle: now - self.moved,
        }
    }
}

fn answer<T>(reply: &Sender<T>, value: T) {
    // Whoever asked may have gone; the reply's channel has room for the one answer.
    let _ = reply.try_send(value);
}
