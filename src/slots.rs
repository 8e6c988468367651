//! A limit: a fixed number of slots. One for each connection that a proxy carries, each client that has a pinned trunk, and
//! each chunk that a client may be sent.
//!
//! A channel used the other way round: to take a slot is to leave a token in it, which waits while it is full; to give
//! one back is to take a token out. So any number of actors share a limit, first come first served, without a lock.

use async_channel::{Receiver, Sender};
use std::sync::Arc;

/// All the slots of a limit. Clones are the same.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Tokens>);

struct Tokens {
    leave: Sender<()>,
    take_out: Receiver<()>,
}

/// One of them, or several; dropping it gives them back.
pub(crate) struct Slot {
    of: Slots,
    count: usize,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        let (leave, take_out) = async_channel::bounded(count.max(1));
        Slots(Arc::new(Tokens { leave, take_out }))
    }

    /// Waits until a slot is free.
    pub(crate) async fn take(&self) -> Slot {
        // It cannot be closed while `self` holds both ends.
        let _ = self.0.leave.send(()).await;
        Slot { of: self.clone(), count: 1 }
    }

    pub(crate) fn try_take(&self) -> Option<Slot> {
        self.0.leave.try_send(()).ok().map(|()| Slot { of: self.clone(), count: 1 })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.leave.len()
    }
}

impl Slot {
    /// Takes one more into the same hand; false if none is free.
    pub(crate) fn try_add(&mut self) -> bool {
        let added = self.of.0.leave.try_send(()).is_ok();
        self.count += usize::from(added);
        added
    }

    /// Passes so many of them on into another hand.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn split(&mut self, count: usize) -> Slot {
        assert!(count <= self.count, "{count} of {} slots", self.count);
        self.count -= count;
        Slot { of: self.of.clone(), count }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for _ in 0..self.count {
            // There is a token for each slot that is out.
            let _ = self.of.0.take_out.try_recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn the_next_taker_waits_until_a_slot_is_given_back() {
        block_on(async {
            let slots = Slots::new(2);
            let first = slots.take().await;
            let _second = slots.try_take().expect("the second is free");
            assert!(slots.try_take().is_none());
            assert_eq!(slots.taken(), 2);
            let mut third = Box::pin(slots.take());
            assert!(poll_once(&mut third).await.is_none());
            drop(first);
            let _third = third.await;
            assert!(slots.try_take().is_none());
        });
    }

    #[test]
    fn a_hand_that_holds_several_gives_all_of_them_back() {
        let slots = Slots::new(3);
        let mut several = slots.try_take().expect("all are free");
        assert!(several.try_add() && several.try_add());
        assert!(!several.try_add());
        drop(several.split(1));
        assert_eq!(slots.taken(), 2);
        drop(several);
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn a_wait_that_is_dropped_takes_no_slot() {
        block_on(async {
            let slots = Slots::new(1);
            let first = slots.take().await;
            let mut waiting = Box::pin(slots.take());
            assert!(poll_once(&mut waiting).await.is_none());
            drop(waiting);
            drop(first);
            assert!(slots.try_take().is_some());
        });
    }
}
