//! The reply that a trunk has to give next.

use super::{Outcome, Owed};
use crate::credit::Credit;
use crate::framing::WHOLE;
use crate::socket::Chunk;
use std::sync::Arc;

/// What is owed first, and what has come of it.
pub(super) struct Due {
    pub(super) owed: Owed,
    /// Bytes that have come and were not left at the client yet; they are held on the credit.
    gathered: Chunk,
    /// The replies that are complete in there, and how many of the bytes are theirs.
    complete: usize,
    complete_bytes: usize,
}

impl From<Owed> for Due {
    fn from(owed: Owed) -> Due {
        Due { owed, gathered: Chunk::default(), complete: 0, complete_bytes: 0 }
    }
}

impl Due {
    /// Passes on a part of what is owed. On a trunk that clients share it never waits.
    pub(super) async fn pass(&mut self, bytes: &[u8]) {
        if let Some(stamp) = &mut self.owed.stamp {
            stamp.first.get_or_insert_with(|| stamp.runtime.now());
        }
        if self.owed.share.is_none() {
            // Gone: the client has left, and the rest is read for nobody.
            let _ = self.owed.tab.send(self.owed.tab.buffers.copy(bytes)).await;
            return;
        }
        if self.owed.is_deserted() || self.owed.tab.was_told(Outcome::Behind) {
            return;
        }
        if let Some(credit) = &mut self.owed.credit {
            credit.hold(bytes.len());
        }
        if self.gathered.is_empty() {
            // The others of a row are about as long.
            let all = bytes.len().saturating_mul(self.owed.requests).min(WHOLE);
            self.gathered = self.owed.tab.buffers.room(all.max(bytes.len()));
        }
        self.gathered.append(bytes);
        if self.owed.tab.credits.held() > self.owed.tab.most_held {
            self.owed.tab.tell(Outcome::Behind);
            self.owed.tab.ring();
            self.gathered = Chunk::default();
            (self.complete, self.complete_bytes) = (0, 0);
        }
    }

    /// A part has been passed on, and more is to come: what was gathered goes now, if there is room besides.
    pub(super) fn go_on(&mut self) {
        if self.owed.share.is_none() {
            return self.owed.tab.tell(Outcome::Begun);
        }
        if self.gathered.is_empty() {
            return;
        }
        if self.complete > 0 {
            self.pause();
        } else if let Some(mut part) = self.owed.tab.credits.try_take_for_part() {
            // Its own is kept for the end.
            if let Some(credit) = &mut self.owed.credit {
                part.take_over(credit);
            }
            self.flush(part);
        } else {
            return;
        }
        self.owed.tab.tell(Outcome::Begun);
    }

    /// Nothing more has come for now: the client gets the replies of a row that are complete, on the room that was theirs.
    pub(super) fn pause(&mut self) {
        let complete = std::mem::take(&mut self.complete);
        if complete > 0
            && let Some(credit) = &mut self.owed.credit
        {
            let credit = credit.split(complete);
            self.complete_bytes = 0;
            self.flush(credit);
        }
    }

    /// What came was not the reply, and is complete.
    pub(super) fn go_on_unbegun(&mut self) {
        self.go_on();
        self.owed.tab.take_told(Outcome::Begun);
    }

    /// Leaves what was gathered, if anything was, on this credit.
    fn flush(&mut self, credit: Credit) {
        let chunk = std::mem::take(&mut self.gathered);
        if chunk.is_empty() {
            return;
        }
        // Gone: the client has left.
        let _ = self.owed.tab.leave(chunk, credit);
    }

    /// A reply has come and is complete; true if nothing is owed any more.
    pub(super) fn replied(&mut self) -> bool {
        self.owed.count = self.owed.count.map(|count| count.saturating_sub(1));
        if self.owed.count != Some(0) {
            self.go_on();
            return false;
        }
        self.done()
    }

    /// All that will ever come for a request has come; true if nothing is owed any more.
    pub(super) fn done(&mut self) -> bool {
        if self.owed.rest.as_ref().is_some_and(|rest| Arc::strong_count(rest) > 1) {
            // What the backend will take the rest for, only the backend knows.
            self.owed.tab.tell(Outcome::Doubtful);
        }
        self.owed.requests -= 1;
        self.owed.answered += 1;
        (self.complete, self.complete_bytes) = (self.complete + 1, self.gathered.len());
        let last = self.owed.requests == 0;
        self.owed.count = Some(u32::from(!last));
        if last {
            self.deliver();
        }
        self.owed.tab.take_told(Outcome::Begun);
        last
    }

    /// Leaves the replies that are complete at the client, for no more will come.
    fn deliver(&mut self) {
        self.gathered.truncate(self.complete_bytes);
        if let Some(credit) = self.owed.credit.take() {
            self.flush(credit);
        }
    }

    /// From here on bytes go through as they are.
    pub(super) fn tunnels(&mut self) {
        self.owed.count = None;
        self.owed.tab.tell(Outcome::Tunnels);
        self.owed.tab.ring();
    }
}

impl Drop for Due {
    /// Some of a row may have their replies, though the trunk is lost.
    fn drop(&mut self) {
        self.deliver();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::Credits;
    use crate::framed::Tab;
    use crate::framed::owed::Progress;
    use crate::framing::Shape;
    use crate::mailbox::{Mailbox, mailbox};
    use crate::pool::Share;
    use crate::socket::Buffers;
    use crate::tunnel;
    use futures_lite::future::{block_on, poll_once};

    /// One that may await so many replies, and for whom so many bytes may wait.
    fn client(replies: usize, most_held: usize) -> (Credits, Arc<Tab>, Mailbox<tunnel::Message>) {
        let credits = Credits::new(replies);
        let (address, mailbox) = mailbox(replies + 2);
        let buffers = Buffers::new(64, 4);
        (credits.clone(), Tab::new(address, credits, buffers, most_held), mailbox)
    }

    /// Of a trunk that is shared.
    fn one_reply(tab: &Arc<Tab>, room: Credit) -> Due {
        let room = Some((room, Share::default()));
        Owed::new(tab, Shape::default(), Some(1), false, room, None).into()
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
            assert!(row.owed.try_add() && row.owed.try_add());
            assert!(!row.owed.try_add(), "there is no room for a fourth reply");
            row.owed.is_written();
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
            assert!(row.owed.try_add());
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
