//! A limit: a fixed number of slots. One for each connection that a proxy carries, each client that has a pinned trunk, and
//! each chunk that a client may be sent.
//!
//! They are counted, without a lock; only whoever finds none waits in a list, in turn. (A channel of tokens would do too, and
//! costs three locks for each slot that is taken and given back.)

use event_listener::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// All the slots of a limit. Clones are the same.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Count>);

struct Count {
    most: usize,
    taken: AtomicUsize,
    /// Those who wait, or are about to.
    waiting: AtomicUsize,
    given_back: Event,
}

/// One of them, or several; dropping it gives them back.
pub(crate) struct Slot {
    of: Slots,
    count: usize,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        let (taken, waiting, given_back) = Default::default();
        Slots(Arc::new(Count { most: count.max(1), taken, waiting, given_back }))
    }

    /// Waits until a slot is free.
    pub(crate) async fn take(&self) -> Slot {
        loop {
            if let Some(slot) = self.try_take() {
                return slot;
            }
            // Counted first: whoever gives one back behind the second look sees that somebody waits.
            let _waiting = Waiting::new(&self.0.waiting);
            let given_back = self.0.given_back.listen();
            if let Some(slot) = self.try_take() {
                return slot;
            }
            given_back.await;
        }
    }

    pub(crate) fn try_take(&self) -> Option<Slot> {
        self.0.try_take().then(|| Slot { of: self.clone(), count: 1 })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.taken.load(SeqCst)
    }
}

impl Count {
    fn try_take(&self) -> bool {
        let more = |taken| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(SeqCst, SeqCst, more).is_ok()
    }
}

/// Counted among those who wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Slot {
    /// Takes one more into the same hand; false if none is free.
    pub(crate) fn try_add(&mut self) -> bool {
        let added = self.of.0.try_take();
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
        let count = &*self.of.0;
        count.taken.fetch_sub(self.count, SeqCst);
        if count.waiting.load(SeqCst) > 0 {
            // One each, though those who were told before have not looked yet.
            count.given_back.notify_additional(self.count);
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
    fn each_of_those_who_wait_gets_one_of_several_that_come_back_at_once() {
        block_on(async {
            let slots = Slots::new(2);
            let mut both = slots.take().await;
            assert!(both.try_add());
            let (mut one, mut other) = (Box::pin(slots.take()), Box::pin(slots.take()));
            assert!(poll_once(&mut one).await.is_none() && poll_once(&mut other).await.is_none());
            drop(both.split(1));
            drop(both);
            let _both = (one.await, other.await);
            assert!(slots.try_take().is_none());
        });
    }

    #[test]
    fn takers_on_several_threads_never_have_more_than_there_are_and_none_waits_for_ever() {
        let (slots, held) = (Slots::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let slot = block_on(slots.take());
                        assert!(held.fetch_add(1, SeqCst) < 2);
                        held.fetch_sub(1, SeqCst);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!((slots.taken(), slots.0.waiting.load(SeqCst)), (0, 0));
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
