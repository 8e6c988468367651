//! Credit: room at a client, taken before anything is sent to it.
//!
//! A trunk that clients share must never wait for one of them. So a client_reader takes a credit before its request goes
//! there, and the reply comes on it: there is room for it, whatever happens. The credit travels with the bytes, and is
//! back when the client's socket has taken them.
//!
//! ```text
//!   client_reader ──takes──> credit ──with what is owed──> backend_reader ──with the reply──> client_writer ──> back
//! ```

use crate::slots::{Slot, Slots};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What one client may be sent before it takes it. Clones are the same.
#[derive(Clone)]
pub(crate) struct Credits {
    slots: Slots,
    /// One more, for parts of replies alone: whoever asks for more and more leaves no other.
    spare: Slots,
    held: Arc<AtomicUsize>,
}

/// Room for one chunk or several, and the bytes of it.
pub(crate) struct Credit {
    slot: Slot,
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Credits {
    /// Room for so many chunks, and one more.
    pub(crate) fn new(chunks: usize) -> Credits {
        Credits { slots: Slots::new(chunks), spare: Slots::new(1), held: Arc::default() }
    }

    /// Waits for one.
    pub(crate) async fn take(&self) -> Credit {
        self.credit(self.slots.take().await)
    }

    pub(crate) fn try_take(&self) -> Option<Credit> {
        self.slots.try_take().map(|slot| self.credit(slot))
    }

    /// The same, for a part of a reply of which the end has a credit.
    pub(crate) fn try_take_for_part(&self) -> Option<Credit> {
        let spare = || self.spare.try_take().map(|slot| self.credit(slot));
        spare().or_else(|| self.try_take())
    }

    fn credit(&self, slot: Slot) -> Credit {
        Credit { slot, held: Arc::clone(&self.held), bytes: 0 }
    }

    /// Bytes that are on their way to the client and that its socket has not taken.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

impl Credit {
    /// Takes room for one chunk more; false if there is none.
    pub(crate) fn try_add(&mut self) -> bool {
        self.slot.try_add()
    }

    /// Room for so many of its chunks, with all the bytes that are held on it.
    ///
    /// # Panics
    /// If there is less.
    pub(crate) fn split(&mut self, chunks: usize) -> Credit {
        let (slot, held) = (self.slot.split(chunks), Arc::clone(&self.held));
        Credit { slot, held, bytes: std::mem::take(&mut self.bytes) }
    }

    /// Takes over the bytes that are held on another.
    pub(crate) fn take_over(&mut self, other: &mut Credit) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// So many more bytes are held on it.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.held.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Chunk;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_credit_comes_back_with_its_bytes_when_its_chunk_is_gone() {
        block_on(async {
            let credits = Credits::new(2);
            let mut first = credits.take().await;
            first.hold(3);
            let mut second = credits.try_take().expect("there are two");
            second.hold(4);
            assert!(credits.try_take().is_none());
            assert_eq!(credits.held(), 7);
            let chunk = Chunk::from(b"abc".to_vec()).on_credit(first);
            let mut third = Box::pin(credits.take());
            assert!(poll_once(&mut third).await.is_none());
            drop(chunk);
            assert_eq!(credits.held(), 4);
            drop(third.await);
            drop(second);
            assert_eq!(credits.held(), 0);
        });
    }
}
