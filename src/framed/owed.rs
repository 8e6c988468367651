//! What trunks owe to a client: the one place where a request and its reply meet.

use super::{Outcome, Rest};
use crate::ConnId;
use crate::credit::{Credit, Credits};
use crate::events::millis;
use crate::framing::{Shape, WHOLE};
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
    credits: Credits,
    /// For its replies.
    buffers: Buffers,
    /// A client for which more bytes wait on a shared trunk is cut off.
    most_held: usize,
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

    fn tell(&self, outcome: Outcome) {
        if !self.was_told(outcome) {
            self.told.fetch_or(outcome as u8, SeqCst);
        }
    }

    fn ring(&self) {
        self.rung.store(true, SeqCst);
        self.ear.wake();
    }

    /// Waits for a credit, and leaves bytes with it.
    pub(crate) async fn send(&self, chunk: Chunk) -> Result<(), Gone> {
        let credit = self.credits.take().await;
        self.leave(chunk, credit)
    }

    fn leave(&self, chunk: Chunk, credit: Credit) -> Result<(), Gone> {
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
    tab: Arc<Tab>,
    shape: Shape,
    /// Requests that were not answered, and those that were.
    requests: usize,
    answered: usize,
    /// Replies to the first of them that are still to come; `None` is all that ever comes, as it is.
    count: Option<u32>,
    /// The backend was asked to take its time.
    waits: bool,
    /// Of a request that comes in pieces.
    rest: Option<Rest>,
    /// Of a trunk that clients share: room for the end of each reply.
    credit: Option<Credit>,
    /// Set if the trunk is shared: it is not to be closed while it owes.
    share: Option<Share>,
    /// A backend may have got it.
    written: bool,
    /// Bytes that have come and were not left at the client yet; they are held on the credit.
    gathered: Chunk,
    /// The replies that are complete in there, and how many of the bytes are theirs.
    complete: usize,
    complete_bytes: usize,
    stamp: Option<Box<Stamp>>,
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
            gathered: Chunk::default(),
            complete: 0,
            complete_bytes: 0,
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

    /// Passes on a part of what is owed. On a trunk that clients share it never waits.
    pub(super) async fn pass(&mut self, bytes: &[u8]) {
        if let Some(stamp) = &mut self.stamp {
            stamp.first.get_or_insert_with(|| stamp.runtime.now());
        }
        if self.share.is_none() {
            // Gone: the client has left, and the rest is read for nobody.
            let _ = self.tab.send(self.tab.buffers.copy(bytes)).await;
            return;
        }
        if self.is_deserted() || self.tab.was_told(Outcome::Behind) {
            return;
        }
        if let Some(credit) = &mut self.credit {
            credit.hold(bytes.len());
        }
        if self.gathered.is_empty() {
            // The others of a row are about as long.
            let all = bytes.len().saturating_mul(self.requests).min(WHOLE);
            self.gathered = self.tab.buffers.room(all.max(bytes.len()));
        }
        self.gathered.append(bytes);
        if self.tab.credits.held() > self.tab.most_held {
            self.tab.tell(Outcome::Behind);
            self.tab.ring();
            self.gathered = Chunk::default();
            (self.complete, self.complete_bytes) = (0, 0);
        }
    }

    /// A part has been passed on, and more is to come: what was gathered goes now, if there is room besides.
    pub(super) fn go_on(&mut self) {
        if self.share.is_none() {
            return self.tab.tell(Outcome::Begun);
        }
        if self.gathered.is_empty() {
            return;
        }
        if self.complete > 0 {
            self.pause();
        } else if let Some(mut part) = self.tab.credits.try_take_for_part() {
            // Its own is kept for the end.
            if let Some(credit) = &mut self.credit {
                part.take_over(credit);
            }
            self.flush(part);
        } else {
            return;
        }
        self.tab.tell(Outcome::Begun);
    }

    /// Nothing more has come for now: the client gets the replies of a row that are complete, on the room that was theirs.
    pub(super) fn pause(&mut self) {
        let complete = std::mem::take(&mut self.complete);
        if complete > 0
            && let Some(credit) = &mut self.credit
        {
            let credit = credit.split(complete);
            self.complete_bytes = 0;
            self.flush(credit);
        }
    }

    /// What came was not the reply, and is complete.
    pub(super) fn go_on_unbegun(&mut self) {
        self.go_on();
        self.tab.take_told(Outcome::Begun);
    }

    /// Leaves what was gathered, if anything was, on this credit.
    fn flush(&mut self, credit: Credit) {
        let chunk = std::mem::take(&mut self.gathered);
        if chunk.is_empty() {
            return;
        }
        // Gone: the client has left.
        let _ = self.tab.leave(chunk, credit);
    }

    /// A reply has come and is complete; true if nothing is owed any more.
    pub(super) fn replied(&mut self) -> bool {
        self.count = self.count.map(|count| count.saturating_sub(1));
        if self.count != Some(0) {
            self.go_on();
            return false;
        }
        self.done()
    }

    /// All that will ever come for a request has come; true if nothing is owed any more.
    pub(super) fn done(&mut self) -> bool {
        if self.rest.as_ref().is_some_and(|rest| Arc::strong_count(rest) > 1) {
            // What the backend will take the rest for, only the backend knows.
            self.tab.tell(Outcome::Doubtful);
        }
        self.requests -= 1;
        self.answered += 1;
        (self.complete, self.complete_bytes) = (self.complete + 1, self.gathered.len());
        let last = self.requests == 0;
        self.count = Some(u32::from(!last));
        if last {
            self.deliver();
        }
        self.tab.take_told(Outcome::Begun);
        last
    }

    /// Leaves the replies that are complete at the client, for no more will come.
    fn deliver(&mut self) {
        self.gathered.truncate(self.complete_bytes);
        if let Some(credit) = self.credit.take() {
            self.flush(credit);
        }
    }

    /// From here on bytes go through as they are.
    pub(super) fn tunnels(&mut self) {
        self.count = None;
        self.tab.tell(Outcome::Tunnels);
        self.tab.ring();
    }
}

impl Drop for Owed {
    /// Every request ends in exactly one reply or one error, and which of the two it is shows here.
    fn drop(&mut self) {
        let all = self.requests == 0;
        if let Some(stamp) = &self.stamp {
            stamp.log(all);
        }
        // Some of a row may have their replies.
        self.deliver();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Mailbox, mailbox};
    use futures_lite::future::{block_on, poll_once};

    /// One that may await so many replies, and for whom so many bytes may wait.
    fn client(replies: usize, most_held: usize) -> (Credits, Arc<Tab>, Mailbox<tunnel::Message>) {
        let credits = Credits::new(replies);
        let (address, mailbox) = mailbox(replies + 2);
        let buffers = Buffers::new(64, 4);
        (credits.clone(), Tab::new(address, credits, buffers, most_held), mailbox)
    }

    /// Of a trunk that is shared.
    fn one_reply(tab: &Arc<Tab>, room: Credit) -> Owed {
        let room = Some((room, Share::default()));
        Owed::new(tab, Shape::default(), Some(1), false, room, None)
    }

    #[test]
    fn a_client_that_takes_what_comes_gets_more_than_may_wait_though_it_awaits_all_that_it_may() {
        block_on(async {
            let (credits, tab, mut replies) = client(2, 100);
            let room = credits.take().await;
            let _other = credits.take().await;
            let mut owed = one_reply(&tab, room);
            let mut came = 0;
            for _ in 0..10 {
                owed.pass(&[b'x'; 60]).await;
                owed.go_on();
                while let Some(tunnel::Message::Chunk(chunk)) = replies.try_recv() {
                    came += chunk.len();
                }
            }
            assert_eq!(came, 600);
            assert!(owed.replied());
            drop(owed);
            assert!(!tab.was_told(Outcome::Behind) && !tab.owes());
            assert_eq!((credits.held(), tab.progress().answered), (0, 1));
        });
    }

    /// What was left at the client.
    fn left(replies: &mut Mailbox<tunnel::Message>) -> Option<Chunk> {
        match replies.try_recv()? {
            tunnel::Message::Chunk(chunk) => Some(chunk),
            tunnel::Message::Fin => panic!("a Fin"),
        }
    }

    #[test]
    fn of_a_row_the_client_has_each_reply_that_came_and_the_room_of_those_that_it_took() {
        block_on(async {
            let (credits, tab, mut replies) = client(3, 1000);
            let mut row = one_reply(&tab, credits.take().await);
            assert!(row.try_add() && row.try_add());
            assert!(!row.try_add(), "there is no room for a fourth reply");
            row.is_written();
            for reply in [b"one", b"two"] {
                row.pass(reply).await;
                assert!(!row.replied());
            }
            assert!(left(&mut replies).is_none(), "more may have come");
            row.pause();
            let both = left(&mut replies).expect("two replies");
            assert_eq!(&both[..], b"onetwo");
            assert!(credits.try_take().is_none());
            drop(both);
            let taken = [credits.try_take(), credits.try_take(), credits.try_take()];
            assert_eq!(taken.iter().flatten().count(), 2);
            row.pass(b"thr").await;
            row.go_on();
            assert!(tab.was_told(Outcome::Begun));
            drop(row);
            assert_eq!(tab.progress(), Progress { written: 1, answered: 2 });
            assert!(!tab.owes());
        });
    }

    #[test]
    fn a_row_whose_trunk_is_lost_leaves_the_replies_that_are_complete() {
        block_on(async {
            let (credits, tab, mut replies) = client(2, 1000);
            let mut row = one_reply(&tab, credits.take().await);
            assert!(row.try_add());
            row.pass(b"one").await;
            assert!(!row.replied());
            row.pass(b"tw").await;
            drop(row);
            assert_eq!(left(&mut replies).as_deref(), Some(&b"one"[..]));
            assert!(left(&mut replies).is_none() && !tab.was_told(Outcome::Begun));
            assert_eq!(tab.progress(), Progress { written: 0, answered: 1 });
            assert_eq!(credits.held(), 0);
        });
    }

    #[test]
    fn a_client_that_takes_nothing_is_behind_when_too_much_waits() {
        block_on(async {
            let (credits, tab, mut replies) = client(1, 100);
            let room = credits.take().await;
            let mut owed = one_reply(&tab, room);
            for part in 0..4 {
                assert_eq!(tab.was_told(Outcome::Behind), part > 2, "{part}");
                owed.pass(&[b'x'; 40]).await;
                owed.go_on();
            }
            assert!(poll_once(tab.heard()).await.is_some());
            drop(owed);
            assert_eq!(credits.held(), 40, "one part lies in the mailbox");
            assert!(replies.try_recv().is_some());
            assert_eq!(credits.held(), 0);
        });
    }
}
