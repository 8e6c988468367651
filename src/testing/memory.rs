//! A connection without a kernel: two ends, and a bounded number of bytes on their way each way.
//!
//! ```text
//!   end A ──send──> [ bytes, at most `capacity` ] ──recv──> end B
//!   end A <──recv── [ bytes, at most `capacity` ] <──send── end B
//! ```
//!
//! It keeps every promise of [`Socket`], as Linux keeps them for TCP: half-close, the reset of an armed end, and the
//! reset of an end that closes while bytes for it lie unread. What was sent before a reset still arrives.
//!
//! The one place of this crate with a lock: the two ends belong to different actors, each changes what the other
//! waits for, and a socket is the very thing below the mailboxes. No lock is held while anybody waits or is woken.

#[cfg(test)]
pub(crate) mod clock;
pub(crate) mod door;
#[cfg(test)]
pub(crate) mod owing;
#[cfg(test)]
mod tests;

use crate::socket::{Chunk, Socket};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Two connected ends, with room for `capacity` bytes each way.
///
/// ```
/// use std::{future::poll_fn, io::ErrorKind};
/// use trunkline::testing::{block_on, pair};
///
/// let (ours, theirs) = pair(16);
/// drop(ours); // armed, so this is a reset
/// let end = block_on(poll_fn(|cx| theirs.poll_recv(cx)));
/// assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
/// ```
pub fn pair(capacity: usize) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
    pair_reading(capacity, [capacity, capacity])
}

/// The same, where one recv takes at most so many bytes: of the first end, and of the second.
pub(crate) fn pair_reading(
    capacity: usize,
    reads: [usize; 2],
) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
    let wire = Arc::new(Mutex::new(Wire::default()));
    let end = |me: usize| End {
        wire: Arc::clone(&wire),
        me,
        capacity: capacity.max(1),
        reads: reads[me].max(1),
        armed: AtomicBool::new(true),
    };
    (Arc::new(end(0)), Arc::new(end(1)))
}

struct End {
    wire: Arc<Mutex<Wire>>,
    me: usize,
    capacity: usize,
    reads: usize,
    armed: AtomicBool,
}

/// What the two ends have sent: the first to the second, and the second to the first.
#[derive(Default)]
struct Wire([Lane; 2]);

/// One direction.
#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    /// Its sender will send no more.
    ending: Option<Ending>,
    /// A send has failed: the sender's own recv must not show a clean end any more.
    failed: bool,
    receiver_gone: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Fin,
    Reset,
}

impl Wire {
    /// What `me` sends, and what it receives.
    fn lanes(&mut self, me: usize) -> (&mut Lane, &mut Lane) {
        let [first, second] = &mut self.0;
        if me == 0 { (first, second) } else { (second, first) }
    }
}

impl Lane {
    /// Why its sender can send no more, if so.
    fn broken(&self, back: &Lane) -> Option<ErrorKind> {
        if back.ending == Some(Ending::Reset) {
            Some(ErrorKind::ConnectionReset)
        } else if self.receiver_gone || self.ending.is_some() {
            Some(ErrorKind::BrokenPipe)
        } else {
            None
        }
    }
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        // A panic inside leaves nothing half-changed: each change is one statement.
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket for End {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let mut wire = self.lock();
        let (ours, theirs) = wire.lanes(self.me);
        if !theirs.bytes.is_empty() {
            let count = theirs.bytes.len().min(self.reads);
            let bytes: Vec<u8> = theirs.bytes.drain(..count).collect();
            let room = theirs.sender.take();
            drop(wire);
            wake(room);
            return Poll::Ready(Ok(Some(bytes.into())));
        }
        match theirs.ending {
            Some(Ending::Fin) if !ours.failed => Poll::Ready(Ok(None)),
            Some(_) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            None => {
                theirs.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.lock();
        let (ours, theirs) = wire.lanes(self.me);
        if let Some(kind) = ours.broken(theirs) {
            ours.failed = true;
            return Poll::Ready(Err(kind.into()));
        }
        let room = self.capacity - ours.bytes.len();
        if room == 0 {
            ours.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut sent = 0;
        while sent < room
            && let Some(first) = chunks.front_mut()
        {
            let count = first.len().min(room - sent);
            ours.bytes.extend(&first[..count]);
            sent += count;
            if count == first.len() {
                chunks.pop_front();
            } else {
                first.advance(count);
            }
        }
        let receiver = ours.receiver.take();
        drop(wire);
        wake(receiver);
        Poll::Ready(Ok(sent))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut wire = self.lock();
        let (ours, theirs) = wire.lanes(self.me);
        if theirs.ending == Some(Ending::Reset) {
            ours.failed = true;
            return Err(ErrorKind::NotConnected.into());
        }
        ours.ending.get_or_insert(Ending::Fin);
        let receiver = ours.receiver.take();
        drop(wire);
        wake(receiver);
        Ok(())
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut wire = self.lock();
        let (ours, theirs) = wire.lanes(self.me);
        let clean = !self.armed.load(Ordering::SeqCst) && theirs.bytes.is_empty();
        // A Fin that was sent before stays one, as in the kernel: it spoke of this direction alone, and truly.
        ours.ending.get_or_insert(if clean { Ending::Fin } else { Ending::Reset });
        theirs.receiver_gone = true;
        theirs.bytes.clear();
        let (receiver, sender) = (ours.receiver.take(), theirs.sender.take());
        drop(wire);
        wake(receiver);
        wake(sender);
    }
}

/// Only ever called without the lock: a waker may run its task at once.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
