//! What trunks owe to a client: the one place where a request and its reply meet.

use super::{Outcome, Rest};
use crate::ConnId;
use crate::credit::{Credit, Credits};
use crate::events::millis;
use crate::framing::Shape;
use crate::mailbox::Address;
use crate::pool::Share;
use crate::runtime::Runtime;
use crate::socket::{Buffers, Chunk};
use crate::tunnel;
use async_channel::TrySendError;
use atomic_waker::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::task::Poll;
use std::time::Instant;

/// What one client awaits. Its client_reader has it together with everything that a trunk owes the client.
///
/// The client_reader alone decides what becomes of a request that gets no reply, for it alone knows the request. So a
/// trunk that ends tells nobody anything: it drops what it owes, and here it shows how far that had come.
pub(crate) struct Tab {
    to_client: Address<tunnel::Message>,
    pub(super) credits: Credits,
    /// For its replies.
    pub(super) buffers: Buffers,
    /// A client for which more bytes wait on a shared trunk is cut off.
    pub(super) most_held: usize,
    /// Requests that a trunk has not dealt with: neither answered nor dropped.
    owed: AtomicUsize,
    /// Since nothing was owed: requests that were lost though a trunk had begun to write them, and those that were answered.
    written: AtomicUsize,
    answered: AtomicUsize,
    told: AtomicU8,
    /// The client_reader wants to know when nothing is owed any more.
    awaited: AtomicBool,
    /// Says that there is something to look at here; ringing it twice says nothing new.
    /// The bell of its client_reader: whether it has rung and was not heard yet, and who listens.
    rung: AtomicBool,
    ear: AtomicWaker,
}

/// How far those requests have come that were asked since nothing was owed. They are dealt with in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Of those that were not answered; the others were not written.
    pub(crate) written: usize,
    pub(crate) answered: usize,
}

impl Tab {
    pub(crate) fn new(
        to_client: Address<tunnel::Message>,
        credits: Credits,
        buffers: Buffers,
        most_held: usize,
    ) -> Arc<Tab> {
        Arc::new(Tab {
            to_client,
            credits,
            buffers,
            most_held,
            owed: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            told: AtomicU8::new(0),
            awaited: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            ear: AtomicWaker::new(),
        })
    }

    /// Waits until the bell rings, if it has not.
    pub(crate) async fn heard(&self) {
        poll_fn(|cx| {
            if !self.rung.load(SeqCst) {
                self.ear.register(cx.waker());
            }
            if self.rung.swap(false, SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(crate) fn owes(&self) -> bool {
        self.owed.load(SeqCst) > 0
    }

    /// Whether the bell is to ring when nothing is owed any more, though all was answered. Asked before [`Tab::owes`].
    pub(crate) fn await_the_end(&self, awaited: bool) {
        self.awaited.store(awaited, SeqCst);
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress { written: self.written.load(SeqCst), answered: self.answered.load(SeqCst) }
    }

    /// Counts anew, when nothing is owed.
    pub(crate) fn start_over(&self) {
        self.written.store(0, SeqCst);
        self.answered.store(0, SeqCst);
    }

    pub(crate) fn was_told(&self, outcome: Outcome) -> bool {
        self.told.load(SeqCst) & outcome as u8 != 0
    }

    /// The same, and it is forgotten.
    pub(crate) fn take_told(&self, outcome: Outcome) -> bool {
        let told = self.was_told(outcome);
        if told {
            self.told.fetch_and(!(outcome as u8), SeqCst);
        }
        told
    }

    pub(super) fn tell(&self, outcome: Outcome) {
        if !self.was_told(outcome) {
            self.told.fetch_or(outcome as u8, SeqCst);
        }
    }

    pub(super) fn ring(&self) {
        self.rung.store(true, SeqCst);
        self.ear.wake();
    }

    /// Waits for a credit, and leaves bytes with it.
    pub(crate) async fn send(&self, chunk: Chunk) -> Result<(), Gone> {
        let credit = self.credits.take().await;
        self.leave(chunk, credit)
    }

    pub(super) fn leave(&self, chunk: Chunk, credit: Credit) -> Result<(), Gone> {
        match self.to_client.try_send(tunnel::Message::Chunk(chunk.on_credit(credit))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Gone),
            // A reply that is lost in silence would be worse than a panic, which costs the trunk and is seen.
            Err(TrySendError::Full(_)) => unreachable!("a credit is room in the mailbox"),
        }
    }
}

/// The client takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The times of one request, for a line of the log.
pub(crate) struct Stamp {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) conn: ConnId,
    /// Which of the client's requests.
    pub(crate) number: u64,
    pub(crate) trunk: u64,
    pub(crate) pinned: Option<&'static str>,
    /// When it was understood.
    pub(crate) began: Instant,
    /// When there was a trunk for it.
    pub(crate) bound: Instant,
    /// When the first byte of its reply had come.
    pub(crate) first: Option<Instant>,
}

impl Stamp {
    fn log(&self, answered: bool) {
        let now = self.runtime.now();
        let first = self.first.map_or_else(|| "-".to_string(), |first| millis(first - self.began));
        log::info!(
            actor = "request",
            conn = self.conn.number(),
            request = self.number,
            trunk = self.trunk,
            wait = millis(self.bound - self.began).as_str(),
            bound = millis(now - self.bound).as_str(),
            first_byte = first.as_str(),
            total = millis(now - self.began).as_str(),
            pinned = self.pinned.unwrap_or("-");
            "{}", if answered { "answered" } else { "lost" }
        );
    }
}

/// What a trunk owes to a client: for one request, or for a row of them that went there together, each of which has one
/// reply of the same shape.
pub(crate) struct Owed {
    pub(super) tab: Arc<Tab>,
    shape: Shape,
    /// Requests that were not answered, and those that were.
    pub(super) requests: usize,
    pub(super) answered: usize,
    /// Replies to the first of them that are still to come; `None` is all that ever comes, as it is.
    pub(super) count: Option<u32>,
    /// The backend was asked to take its time.
    waits: bool,
    /// Of a request that comes in pieces.
    pub(super) rest: Option<Rest>,
    /// Of a trunk that clients share: room for the end of each reply.
    pub(super) credit: Option<Credit>,
    /// Set if the trunk is shared: it is not to be closed while it owes.
    pub(super) share: Option<Share>,
    /// A backend may have got it.
    written: bool,
    pub(super) stamp: Option<Box<Stamp>>,
}

impl Owed {
    /// With `room`, the trunk is shared and never waits for this client.
    pub(crate) fn new(
        tab: &Arc<Tab>,
        shape: Shape,
        count: Option<u32>,
        waits: bool,
        room: Option<(Credit, Share)>,
        stamp: Option<Box<Stamp>>,
    ) -> Owed {
        tab.owed.fetch_add(1, SeqCst);
        let (credit, share) = room.unzip();
        Owed {
            tab: Arc::clone(tab),
            shape,
            requests: 1,
            answered: 0,
            count,
            waits,
            rest: None,
            credit,
            share,
            written: false,
            stamp,
        }
    }

    /// Another request goes along, which has one reply of the same shape; false if it cannot, or there is no room for its
    /// reply. The trunk does not have it yet.
    pub(super) fn try_add(&mut self) -> bool {
        let plain = self.count == Some(1) && !self.waits && self.stamp.is_none();
        let added = plain && self.credit.as_mut().is_some_and(Credit::try_add);
        if added {
            self.requests += 1;
            self.tab.owed.fetch_add(1, SeqCst);
        }
        added
    }

    /// How many of its requests were not answered.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// The request comes in pieces.
    pub(super) fn with_rest(mut self, rest: Option<Rest>) -> Owed {
        self.rest = rest;
        self
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The trunk has no other client any more, and its bytes go through as they are.
    pub(super) fn is_raw(&self) -> bool {
        self.count.is_none()
    }

    /// Nothing may come for any time, and the backend is as it should be.
    pub(super) fn has_time(&self) -> bool {
        self.waits || self.is_raw()
    }

    /// The request is about to be written.
    pub(super) fn is_written(&mut self) {
        self.written = true;
    }

    /// It is not; or the backend has said that it looks at nothing behind its last reply (RFC 9112, 9.6).
    pub(super) fn is_not_written(&mut self) {
        self.written = false;
    }

    pub(super) fn tell(&self, outcome: Outcome) {
        self.tab.tell(outcome);
        if outcome == Outcome::Last {
            // It is to stop reading at once.
            self.tab.ring();
        }
    }

    /// The client has ended, or was cut off.
    pub(super) fn is_deserted(&self) -> bool {
        self.tab.to_client.is_closed()
    }

    /// Waits for that.
    pub(super) async fn deserted(&self) {
        self.tab.to_client.closed().await;
    }
}

impl Drop for Owed {
    /// Every request ends in exactly one reply or one error, and which of the two it is shows here.
    fn drop(&mut self) {
        let all = self.requests == 0;
        if let Some(stamp) = &self.stamp {
            stamp.log(all);
        }
        if self.answered > 0 {
            self.tab.answered.fetch_add(self.answered, SeqCst);
        }
        if !all && self.written {
            self.tab.written.fetch_add(self.requests, SeqCst);
        }
        let dealt_with = self.answered + self.requests;
        let left = self.tab.owed.fetch_sub(dealt_with, SeqCst) - dealt_with;
        // Where a client shares its trunk, its reader has nothing to do for a reply that has come.
        let waits = self.share.is_none() || self.tab.awaited.load(SeqCst);
        if left == 0 && (waits || !all) {
            self.tab.ring();
        }
    }
}
