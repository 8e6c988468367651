//! The place of one toxic in the line: takes from the left, passes on to the right, and can be led past, changed or
//! taken out while the line is in use.
//!
//! - **Owns** its mailbox, and whatever its toxic holds back.
//! - **Receives** `Chunk`, then `Fin`, from the left; orders from its `link`.
//! - **Sends to** the place on its right, or to the writer: what it received, as its toxic would have it.
//! - **Ends when** it has passed on `Fin`, its mailbox closes, nobody is left on the right, or its toxic cuts.
//! - **Never** loses a byte when it is changed or taken out, and never makes an order wait for a peer.

use super::toxic::{Dice, Fault};
use super::toxics;
use crate::actor::Budget;
use crate::mailbox::{Address, Mailbox};
use crate::runtime::{Either, Runtime, race};
use crate::socket::Chunk;
use crate::tunnel::{Cut, Exit, Message};
use async_channel::{Receiver, Sender};
use futures_lite::future::pending;
use std::convert::Infallible;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Orders that may wait; they are taken at once, whatever the toxic waits for.
pub(super) const ORDERS: usize = 4;

pub(super) enum Order {
    /// Send there from now on; but not before whoever stood between has passed on all that it had, and ended. Asks for
    /// the offset of the first byte that will be sent there.
    Turn { to: Address<Message>, after: Option<Gone>, reply: Sender<u64> },
    /// These are the toxic's settings from now on.
    Change(Fault),
    /// Pass everything on at once. The mailbox is about to close, and that is no abort.
    Leave,
}

/// Closes when an actor has ended; nothing is ever sent.
pub(super) type Gone = Receiver<Infallible>;

/// What a toxic hears of next.
pub(super) enum Next {
    Chunk(Chunk),
    Fin,
    /// The stream broke off on the left.
    Lost,
    /// It is as late as the toxic wanted to wait.
    Time,
    /// The settings have changed.
    Changed,
    /// The toxic is to let go of everything and to stop.
    Leave,
}

/// Why a toxic stops.
pub(super) enum Stop {
    /// This place in the line has ended.
    Over(Exit),
    /// It was told to leave, and holds nothing back any more.
    Left,
}

/// What a toxic plays ends only by stopping.
pub(super) type Played = Result<Infallible, Stop>;

pub(super) struct Stage {
    pub(super) mailbox: Mailbox<Message>,
    pub(super) to: Address<Message>,
    pub(super) orders: Mailbox<Order>,
    pub(super) runtime: Arc<dyn Runtime>,
    toxic: Option<Placed>,
    /// The offset of the next byte to come, counted from the connection's first in this direction.
    came: u64,
    /// The offset of the next byte to go on.
    went: u64,
    /// Those who stood between here and `to`, and may still have something to pass on.
    between: Vec<Gone>,
    /// What has come and is still to be looked at.
    waiting: Option<Chunk>,
    changed: bool,
    leave: bool,
    budget: Budget,
}

/// A toxic as one connection meets it.
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) fault: Fault,
    pub(super) after_bytes: u64,
    pub(super) dice: Dice,
}

impl Stage {
    /// Without a toxic it is the head of the line, which is always there so that others can be put behind it.
    pub(super) fn new(
        toxic: Option<Placed>,
        mailbox: Mailbox<Message>,
        to: Address<Message>,
        orders: Mailbox<Order>,
        runtime: Arc<dyn Runtime>,
        offset: u64,
    ) -> Stage {
        Stage {
            mailbox,
            to,
            orders,
            runtime,
            toxic,
            came: offset,
            went: offset,
            between: Vec::new(),
            waiting: None,
            changed: false,
            leave: false,
            budget: Budget::default(),
        }
    }

    pub(super) async fn run(mut self) -> Exit {
        loop {
            let Err(stop) = self.play().await;
            match stop {
                Stop::Over(exit) => return exit,
                // From now on it lets everything through, until its neighbour on the left has turned past it.
                Stop::Left => self.toxic = None,
            }
        }
    }

    async fn play(&mut self) -> Played {
        let Some(Placed { fault, after_bytes, .. }) = self.toxic else {
            return toxics::pass_all(self).await;
        };
        toxics::pass_until(self, after_bytes).await?;
        match fault {
            Fault::Latency { .. } => toxics::latency::play(self).await,
            Fault::Bandwidth { .. } => toxics::bandwidth::play(self).await,
            Fault::SlowClose { .. } => toxics::slow_close::play(self).await,
            Fault::Timeout { .. } => toxics::timeout::play(self).await,
            Fault::ResetPeer { .. } => toxics::reset_peer::play(self, after_bytes > 0).await,
            Fault::Slicer { .. } => toxics::slicer::play(self).await,
            Fault::LimitData { .. } => toxics::limit_data::play(self).await,
            Fault::Noop => toxics::pass_all(self).await,
        }
    }

    /// The toxic's settings, as they are now. None only where there is no toxic.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.toxic.as_ref().map(|toxic| toxic.fault)
    }

    /// A whole number from 0 to `most`, drawn for the byte at `offset`.
    pub(super) fn roll(&self, offset: u64, most: u64) -> u64 {
        self.toxic.as_ref().map_or(0, |toxic| toxic.dice.roll(offset, most))
    }

    pub(super) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// So long after; a time that no clock shows is never.
    pub(super) fn after(time: Instant, rest: Duration) -> Option<Instant> {
        time.checked_add(rest)
    }

    /// Where the next byte to go on stands in its direction.
    pub(super) fn offset(&self) -> u64 {
        self.went
    }

    /// Where a chunk that has just come begins.
    pub(super) fn offset_of(&self, chunk: &Chunk) -> u64 {
        self.came - chunk.len() as u64
    }

    /// What comes next, or is to be done.
    pub(super) async fn next(&mut self) -> Result<Next, Stop> {
        self.happens(true, None).await
    }

    /// The same, or `Time`.
    pub(super) async fn next_until(&mut self, time: Option<Instant>) -> Result<Next, Stop> {
        self.happens(true, time).await
    }

    /// Waits, for ever without a time, and lets what comes wait as well.
    pub(super) async fn wait_until(&mut self, time: Option<Instant>) -> Result<Next, Stop> {
        self.happens(false, time).await
    }

    async fn happens(&mut self, takes: bool, time: Option<Instant>) -> Result<Next, Stop> {
        loop {
            if mem::take(&mut self.changed) {
                return Ok(Next::Changed);
            }
            if mem::take(&mut self.leave) {
                return Ok(Next::Leave);
            }
            if takes && let Some(chunk) = self.waiting.take() {
                return Ok(Next::Chunk(chunk));
            }
            let rest = time.map(|time| time.saturating_duration_since(self.runtime.now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                return Ok(Next::Time);
            }
            let late = async {
                match rest {
                    Some(rest) => self.runtime.sleep(rest).await,
                    None => pending().await,
                }
            };
            let message = async { if takes { self.mailbox.recv().await } else { pending().await } };
            // What is dropped with a lost race stays where it is.
            let moved = race(race(message, late), self.to.closed());
            match race(ordered(&mut self.orders), moved).await {
                Either::A(order) => self.take(order),
                Either::B(Either::A(Either::A(Some(Message::Chunk(chunk))))) => {
                    self.came += chunk.len() as u64;
                    return Ok(Next::Chunk(chunk));
                }
                Either::B(Either::A(Either::A(Some(Message::Fin)))) => return Ok(Next::Fin),
                Either::B(Either::A(Either::A(None))) => return Ok(Next::Lost),
                Either::B(Either::A(Either::B(()))) => return Ok(Next::Time),
                Either::B(Either::B(())) => return Err(Stop::Over(Exit::Deserted)),
            }
        }
    }

    /// The next thing to be taken is this.
    pub(super) fn put_back(&mut self, chunk: Chunk) {
        self.waiting = Some(chunk);
    }

    /// Passes bytes on to the right.
    pub(super) async fn pass(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let bytes = chunk.len() as u64;
        self.send(Message::Chunk(chunk), bytes).await?;
        self.budget.spend().await;
        Ok(())
    }

    /// Passes on how the stream has ended.
    pub(super) async fn end(&mut self, end: Next) -> Stop {
        match end {
            Next::Fin => match self.send(Message::Fin, 0).await {
                Ok(()) => Stop::Over(Exit::Finished),
                Err(stop) => stop,
            },
            _ => {
                // Whoever turns past this place waits for its end, and so for theirs.
                self.outlast().await;
                Stop::Over(Exit::Deserted)
            }
        }
    }

    /// Ends the stream, and with it the connection, as if that were the end of it all.
    pub(super) async fn close(&mut self) -> Stop {
        match self.end(Next::Fin).await {
            Stop::Over(Exit::Finished) => Stop::Over(Exit::Cut(Cut::Close(self.name()))),
            stop => stop,
        }
    }

    /// Breaks off the connection.
    pub(super) fn reset(&self) -> Stop {
        Stop::Over(Exit::Cut(Cut::Reset(self.name())))
    }

    fn name(&self) -> String {
        self.toxic.as_ref().map(|toxic| toxic.name.clone()).unwrap_or_default()
    }

    /// Waits until those who stood between have passed on all that they had.
    async fn outlast(&mut self) {
        while let Some(gone) = self.between.last().cloned() {
            match race(ordered(&mut self.orders), gone.recv()).await {
                Either::A(order) => self.take(order),
                Either::B(_) => self.between.retain(|gone| !gone.is_closed()),
            }
        }
    }

    async fn send(&mut self, message: Message, bytes: u64) -> Result<(), Stop> {
        self.outlast().await;
        // From here to the end the message belongs to this neighbour, whatever is ordered meanwhile.
        let to = self.to.clone();
        self.went += bytes;
        let mut sending = pin!(to.send(message));
        loop {
            match race(ordered(&mut self.orders), sending.as_mut()).await {
                Either::A(order) => self.take(order),
                Either::B(sent) => return sent.map_err(|_| Stop::Over(Exit::Deserted)),
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Turn { to, after, reply } => {
                // The address that is dropped here may be the last of whoever is to leave.
                self.to = to;
                self.between.retain(|gone| !gone.is_closed());
                self.between.extend(after);
                // The link waits for it, and there is room for one.
                let _ = reply.try_send(self.went);
            }
            Order::Change(fault) => {
                if let Some(toxic) = &mut self.toxic {
                    toxic.fault = fault;
                    self.changed = true;
                }
            }
            Order::Leave => self.leave = true,
        }
    }
}

/// The next order. There are no more once it was told to leave; and if the link itself has gone, this actor is about to
/// be dropped.
async fn ordered(orders: &mut Mailbox<Order>) -> Order {
    match orders.recv().await {
        Some(order) => order,
        None => pending().await,
    }
}
