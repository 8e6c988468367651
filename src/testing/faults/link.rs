//! One direction of one connection of a proxy with toxics: puts them into its line, and takes them out again.
//!
//! - **Owns** the orders' addresses of all places in the line.
//! - **Receives** `Add`, `Change`, `Remove` from `faults`, whose toxics it has asked for at the start.
//! - **Sends to** its `toxic`s: `Turn`, `Change`, `Leave`.
//! - **Ends when** every place in the line has ended; it tells the connection if one of them cut it.
//! - **Never** touches a payload byte, and keeps no mailbox of the line open.
//!
//! ```text
//!   reader ──> head ──> toxic ──> toxic ──> writer       each ──> is an address that the actor before it holds
//!                │ Turn            ^
//!                └─────────────────┘                     a toxic leaves: whoever is before it turns past it
//! ```

use super::registry::{self, Which};
use super::stage::{Gone, ORDERS, Order, Placed, Stage};
use super::toxic::{Dice, Toxic};
use crate::actor::{self, Panicked, Running};
use crate::mailbox::{Address, Mailbox, WeakAddress, mailbox};
use crate::proxy::ask;
use crate::runtime::{Either, Runtime, race};
use crate::tunnel::{Cut, Exit, Message as Passed};
use crate::{ConnId, Side};
use async_channel::Sender;
use std::convert::Infallible;
use std::sync::Arc;

pub(super) const NAME: &str = "link";

/// Changes that may wait. `faults` makes one at a time.
const MAILBOX: usize = 2;

/// Messages between two places in the line. The toxics that hold bytes back do so by themselves.
const BETWEEN: usize = 1;

/// A change, with something to drop when it is made.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) change: Change,
    pub(super) done: Sender<Infallible>,
}

#[derive(Clone)]
pub(super) enum Change {
    Add(Arc<Toxic>),
    Edit(Arc<Toxic>),
    Remove(Arc<Toxic>),
    /// Connections count from 1 again: this one has no number any more.
    Forget,
}

pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) towards: Side,
    /// What the reader sends.
    pub(super) head: Mailbox<Passed>,
    pub(super) writer: Address<Passed>,
    pub(super) which: Arc<Which>,
    pub(super) faults: Address<registry::Message>,
    pub(super) runtime: Arc<dyn Runtime>,
}

impl Link {
    pub(super) async fn run(self) -> Exit {
        let (address, changes) = mailbox(MAILBOX);
        let attach = |reply| {
            let Link { conn, towards, ref which, .. } = self;
            registry::Message::Attach { id: which.id, conn, towards, link: address, reply }
        };
        // Without an answer everything is over: the proxy is about to drop this connection too.
        let Some(met) = ask(&self.faults, attach).await else { return Exit::Deserted };
        let line = Line {
            conn: self.conn,
            towards: self.towards,
            number: met.number,
            numbered: true,
            seed: met.seed,
            which: self.which,
            runtime: self.runtime,
            writer: self.writer.downgrade(),
            head: None,
            toxics: Vec::new(),
            running: Vec::new(),
        };
        line.run(self.head, self.writer, met.toxics, changes).await
    }
}

/// The line as it stands.
struct Line {
    conn: ConnId,
    towards: Side,
    number: ConnId,
    numbered: bool,
    seed: u64,
    which: Arc<Which>,
    runtime: Arc<dyn Runtime>,
    writer: WeakAddress<Passed>,
    head: Option<Address<Order>>,
    /// All toxics of this direction in their order; those that this connection does not meet have no place.
    toxics: Vec<(Arc<Toxic>, Option<Place>)>,
    running: Vec<((), Running<Exit>)>,
}

/// Where somebody stands in the line.
struct Place {
    orders: Address<Order>,
    address: WeakAddress<Passed>,
    gone: Gone,
}

impl Line {
    async fn run(
        mut self,
        head: Mailbox<Passed>,
        writer: Address<Passed>,
        toxics: Vec<Arc<Toxic>>,
        mut changes: Mailbox<Message>,
    ) -> Exit {
        // From the right to the left, for each has to know its neighbour on the right.
        let mut right = writer;
        for toxic in toxics.into_iter().rev() {
            let place = self.placed(&toxic).map(|placed| {
                let (address, came) = mailbox(BETWEEN);
                let weak = address.downgrade();
                let right = std::mem::replace(&mut right, address);
                let (orders, gone) = self.start(Some(placed), came, right, 0);
                Place { orders, address: weak, gone }
            });
            self.toxics.insert(0, (toxic, place));
        }
        self.head = Some(self.start(None, head, right, 0).0);

        let mut cut = None;
        while !self.running.is_empty() {
            let exit = match race(changes.recv(), actor::first(&mut self.running)).await {
                Either::A(Some(Message { change, done })) => {
                    self.change(change).await;
                    drop(done);
                    continue;
                }
                // Nobody changes anything any more.
                Either::A(None) => actor::first(&mut self.running).await.1,
                Either::B(((), exit)) => exit,
            };
            match exit {
                Ok(Exit::Cut(how)) => cut = Some(how),
                Ok(_) => {}
                Err(Panicked) => cut = Some(Cut::Reset("a toxic panicked".into())),
            }
        }
        cut.map_or(Exit::Deserted, Exit::Cut)
    }

    async fn change(&mut self, change: Change) {
        let (Change::Add(toxic) | Change::Edit(toxic) | Change::Remove(toxic)) = &change else {
            self.numbered = false;
            return;
        };
        let at = self.toxics.iter().position(|(other, _)| other.name == toxic.name);
        match (change, at) {
            (Change::Add(toxic), _) => {
                self.toxics.push((toxic, None));
                self.put(self.toxics.len() - 1).await;
            }
            (Change::Edit(toxic), Some(at)) => {
                let (fault, meets) = (toxic.fault, self.placed(&toxic).is_some());
                let moved = self.toxics[at].0.after_bytes != toxic.after_bytes;
                self.toxics[at].0 = toxic;
                match (&self.toxics[at].1, meets) {
                    (Some(_), true) if moved => {
                        // It begins anew, where the stream is now.
                        self.take_out(at).await;
                        self.put(at).await;
                    }
                    (Some(place), true) => {
                        // Gone: it has ended, with its part of the line.
                        let _ = place.orders.send(Order::Change(fault)).await;
                        let (conn, name) = (self.conn.number(), &self.toxics[at].0.name);
                        log::trace!(actor = NAME, conn; "toxic {name} has changed: {fault:?}");
                    }
                    (Some(_), false) => self.take_out(at).await,
                    (None, true) => self.put(at).await,
                    (None, false) => {}
                }
            }
            (Change::Remove(_), Some(at)) => {
                self.take_out(at).await;
                self.toxics.remove(at);
            }
            (Change::Edit(_) | Change::Remove(_), None) | (Change::Forget, _) => {}
        }
    }

    /// Puts a toxic into the line behind whoever stands before its turn.
    async fn put(&mut self, at: usize) {
        let toxic = Arc::clone(&self.toxics[at].0);
        let Some(placed) = self.placed(&toxic) else { return };
        // If the line has ended on the right or before this place, nothing will ever come here.
        let (Some(right), Some(left)) = (self.right_of(at), self.left_of(at)) else { return };
        let (address, came) = mailbox(BETWEEN);
        let weak = address.downgrade();
        let turn = |reply| Order::Turn { to: address, after: None, reply };
        let Some(offset) = ask(left, turn).await else { return };
        let (orders, gone) = self.start(Some(placed), came, right, offset);
        self.toxics[at].1 = Some(Place { orders, address: weak, gone });
    }

    /// Takes a toxic out of the line: whoever stands before it turns past it.
    async fn take_out(&mut self, at: usize) {
        let Some(place) = self.toxics[at].1.take() else { return };
        // Before the turn, for that closes its mailbox. Gone: it has ended already.
        let _ = place.orders.send(Order::Leave).await;
        let (conn, name) = (self.conn.number(), &self.toxics[at].0.name);
        log::trace!(actor = NAME, conn; "toxic {name} is taken out");
        if let (Some(right), Some(left)) = (self.right_of(at), self.left_of(at)) {
            let turn = |reply| Order::Turn { to: right, after: Some(place.gone), reply };
            // No answer: the line has ended before this place, and what came behind it is passing through.
            let _ = ask(left, turn).await;
        }
    }

    /// Whoever stands before this place.
    fn left_of(&self, at: usize) -> Option<&Address<Order>> {
        let placed = self.toxics[..at].iter().rev().find_map(|(_, place)| place.as_ref());
        placed.map(|place| &place.orders).or(self.head.as_ref())
    }

    /// Where the place at `at` sends, or would send; `None` if that has ended.
    fn right_of(&self, at: usize) -> Option<Address<Passed>> {
        let placed = self.toxics[at + 1..].iter().find_map(|(_, place)| place.as_ref());
        placed.map_or(&self.writer, |place| &place.address).upgrade()
    }

    /// The toxic as this connection meets it, if it does.
    fn placed(&self, toxic: &Toxic) -> Option<Placed> {
        let dice = Dice::new(self.seed, &self.which.name, self.number, toxic);
        let named = toxic
            .on_connection
            .is_none_or(|number| self.numbered && number == self.number.number());
        (named && dice.meets(toxic.toxicity)).then(|| Placed {
            name: toxic.name.clone(),
            fault: toxic.fault,
            after_bytes: toxic.after_bytes,
            dice,
        })
    }

    fn start(
        &mut self,
        toxic: Option<Placed>,
        came: Mailbox<Passed>,
        to: Address<Passed>,
        offset: u64,
    ) -> (Address<Order>, Gone) {
        let (orders, ordered) = mailbox(ORDERS);
        let (ending, gone) = async_channel::bounded::<Infallible>(1);
        let name = if toxic.is_some() { "toxic" } else { "head" };
        if let Some(Placed { name, fault, .. }) = &toxic {
            let (conn, towards) = (self.conn.number(), self.towards);
            log::trace!(actor = NAME, conn; "toxic {name} stands before the {towards} from byte {offset}: {fault:?}");
        }
        let stage = Stage::new(toxic, came, to, ordered, Arc::clone(&self.runtime), offset);
        let run = async move {
            // Dropped last, when the stage has let go of its addresses.
            let _ending = ending;
            stage.run().await
        };
        let running = actor::spawn(&*self.runtime, name, Some(self.conn), run);
        self.running.push(((), running));
        (orders, gone)
    }
}
