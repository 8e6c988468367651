//! What each task waits for, in words: for whoever finds that it waits for ever.
//!
//! A wait that is polled and not ready leaves a note on its thread. Whoever has polled the task (the simulator) reads
//! the notes; where there is none, none are taken.

use pin_project_lite::pin_project;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Something that a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A message in the mailbox of this number.
    Message(u64),
    /// Room in the mailbox of this number.
    Room(u64),
    /// That the owner of the mailbox of this number ends.
    Closing(u64),
    /// Something that no actor does.
    Other(&'static str),
}

/// More than any task races. On a thread where nobody reads them they begin again.
const KEPT: usize = 8;

thread_local! {
    static NOTES: RefCell<Vec<Wait>> = const { RefCell::new(Vec::new()) };
}

/// A number for a mailbox.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Somebody will read the notes: a simulated world. Nobody else pays for them.
static READ: AtomicBool = AtomicBool::new(false);

/// From now on notes are taken.
pub(crate) fn read() {
    READ.store(true, Ordering::Relaxed);
}

/// The polled wait is not ready.
pub(crate) fn note(wait: Wait) {
    if !READ.load(Ordering::Relaxed) {
        return;
    }
    NOTES.with_borrow_mut(|notes| {
        if notes.len() == KEPT {
            notes.clear();
        }
        notes.push(wait);
    });
}

/// The notes since this was last asked.
pub(crate) fn notes() -> Vec<Wait> {
    NOTES.take()
}

/// The same future, which notes that it is waited for.
pub(crate) fn noted<F: Future>(wait: Wait, future: F) -> Noted<F> {
    Noted { wait, future }
}

pin_project! {
    /// Written out, so that it takes up the room of its future only once.
    pub(crate) struct Noted<F> {
        wait: Wait,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Noted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        if polled.is_pending() {
            note(*this.wait);
        }
        polled
    }
}
