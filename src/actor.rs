//! How an actor is started, what its end looks like, and what happens when it panics.
//!
//! An actor is a struct that owns its state and a `run(self)` that is a plain future: a test polls it on one thread,
//! and only [`spawn`] turns it into a task. Its end is the value that `run` returns; nobody is sent a message about it.

use crate::ConnId;
use crate::runtime::{Runtime, Task};
use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;
use std::any::Any;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// Starts an actor. `name` is its file, and `conn` the connection that it works for, if any.
pub(crate) fn spawn<T: Send + 'static>(
    runtime: &dyn Runtime,
    name: &'static str,
    conn: Option<ConnId>,
    run: impl Future<Output = T> + Send + 'static,
) -> Running<T> {
    let exit = Arc::<Exit<T>>::default();
    let acting = Acting { run: guard(name, conn, run), left: Left(Arc::clone(&exit)) };
    Running { task: runtime.spawn(name, conn, Box::pin(acting)), exit }
}

pin_project! {
    /// The task of an actor. It is gone when all that the actor owned is: hence the order of these two.
    struct Acting<F: Future> {
        #[pin]
        run: Guarded<F>,
        left: Left<F::Output>,
    }
}

impl<F: Future> Future for Acting<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.run.poll(cx).map(|exit| this.left.with(exit))
    }
}

/// Where an actor leaves its exit. (A channel would do the same in fifteen times the memory, five times for each connection.)
struct Exit<T> {
    /// Locked by the actor once, and by its supervisor when it is told to look.
    exit: Mutex<Option<Result<T, Panicked>>>,
    /// The task is gone, with an exit or without one.
    over: AtomicBool,
    supervisor: AtomicWaker,
}

impl<T> Default for Exit<T> {
    fn default() -> Self {
        let (exit, over, supervisor) = Default::default();
        Exit { exit, over, supervisor }
    }
}

/// In the task's hand. Dropped, the task is gone.
struct Left<T>(Arc<Exit<T>>);

impl<T> Left<T> {
    fn with(&self, exit: Result<T, Panicked>) {
        *self.0.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
    }
}

impl<T> Drop for Left<T> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
        self.0.supervisor.wake();
    }
}

impl<T> Exit<T> {
    /// Waits until the task is gone.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Panicked>>> {
        if !self.over.load(SeqCst) {
            self.supervisor.register(cx.waker());
            if !self.over.load(SeqCst) {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.exit.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// An actor that was started. Awaiting it gives what its `run` returned.
///
/// Dropping it cancels the actor: a supervisor that panics takes its actors with it.
#[must_use = "an actor is cancelled when this is dropped"]
pub(crate) struct Running<T> {
    task: Task,
    exit: Arc<Exit<T>>,
}

impl<T> Running<T> {
    /// Lets the actor go on without anybody waiting for it.
    pub(crate) fn detach(self) {
        self.task.detach();
    }

    /// Stops the actor where it waits, and returns when all that it owned is dropped.
    pub(crate) async fn cancel(self) {
        drop(self.task);
        poll_fn(|cx| self.exit.poll(cx)).await;
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let exit = ready!(self.exit.poll(cx));
        // Without an exit the task was dropped from outside, which only the end of the runtime does.
        Poll::Ready(exit.unwrap_or(Err(Panicked)))
    }
}

/// The next of these actors to end, which is taken from the list; waits for ever if there is none.
pub(crate) async fn first<K: Copy, T>(
    running: &mut Vec<(K, Running<T>)>,
) -> (K, Result<T, Panicked>) {
    poll_fn(|cx| {
        for place in 0..running.len() {
            let (which, actor) = &mut running[place];
            let which = *which;
            if let Poll::Ready(exit) = Pin::new(actor).poll(cx) {
                drop(running.swap_remove(place));
                return Poll::Ready((which, exit));
            }
        }
        Poll::Pending
    })
    .await
}

/// The actor panicked. It was logged where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a future so that a panic in it stays in it: logged once, and told to whoever waits.
pub(crate) fn guard<F: Future>(name: &'static str, conn: Option<ConnId>, run: F) -> Guarded<F> {
    Guarded { name, conn, run }
}

pin_project! {
    pub(crate) struct Guarded<F> {
        name: &'static str,
        conn: Option<ConnId>,
        #[pin]
        run: F,
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // After a panic it is not polled again, so nobody sees the state that the panic left half-changed.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| this.run.poll(cx)));
        let actor = *this.name;
        polled.map(|polled| polled.map(Ok)).unwrap_or_else(|payload| {
            let panic = words(&*payload);
            match this.conn.map(ConnId::number) {
                Some(conn) => {
                    log::error!(actor, conn, panic; "an actor panicked; its connection is aborted")
                }
                None => log::error!(actor, panic; "an actor panicked"),
            }
            Poll::Ready(Err(Panicked))
        })
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Gives the other tasks of the thread their turn, now and then: the executor itself never takes it away.
///
/// A socket that is always ready would otherwise keep its actor running for as long as its peer likes.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: u32,
}

impl Budget {
    /// Turns between two yields. One turn moves at most a chunk, so a neighbour waits for tens of microseconds.
    const TURNS: u32 = 16;

    pub(crate) async fn spend(&mut self) {
        self.spent += 1;
        if self.spent == Self::TURNS {
            self.spent = 0;
            futures_lite::future::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;
    use crate::runtime::AsyncStd;
    use futures_lite::future::{block_on, pending, poll_once};
    use std::sync::Arc;

    #[test]
    fn an_exit_is_the_value_that_run_returns() {
        let running = spawn(&AsyncStd, "test", None, async { 7 });
        assert_eq!(block_on(running), Ok(7));
    }

    #[test]
    fn a_panic_is_told_to_whoever_waits_and_hurts_no_other() {
        let well = spawn(&AsyncStd, "test", None, async { 7 });
        let ill = spawn(&AsyncStd, "test", Some(ConnId::from(1)), async { panic!("on purpose") });
        assert_eq!(block_on(ill), Err::<(), _>(Panicked));
        assert_eq!(block_on(well), Ok(7));
    }

    #[test]
    fn cancel_returns_when_all_that_the_actor_owned_is_dropped() {
        let owned = Arc::new(());
        let inside = Arc::clone(&owned);
        let running = spawn(&AsyncStd, "test", None, async move {
            let _inside = inside;
            pending::<()>().await
        });
        block_on(running.cancel());
        assert_eq!(Arc::strong_count(&owned), 1);
    }

    #[test]
    fn dropping_cancels_and_detaching_does_not() {
        block_on(async {
            let (address, mut inbox) = mailbox::<u8>(1);
            let waiting = spawn(&AsyncStd, "test", None, async move {
                let _address = address;
                pending::<()>().await
            });
            drop(waiting);
            assert_eq!(inbox.recv().await, None, "the cancelled actor dropped its address");

            let (address, mut inbox) = mailbox(1);
            spawn(&AsyncStd, "test", None, async move { address.send(7).await }).detach();
            assert_eq!(inbox.recv().await, Some(7));
        });
    }

    #[test]
    fn a_budget_yields_once_in_so_many_turns() {
        block_on(async {
            let mut budget = Budget::default();
            for turn in 1..=3 * Budget::TURNS {
                let spent = poll_once(budget.spend()).await.is_some();
                assert_eq!(spent, turn % Budget::TURNS != 0, "turn {turn}");
            }
        });
    }

    #[test]
    fn a_panic_is_logged_in_its_own_words() {
        let check = |payload: &(dyn Any + Send), expected: &str| {
            assert_eq!(words(payload), expected);
        };
        check(&"plain", "plain");
        check(&String::from("put together"), "put together");
        check(&7, "a panic without words");
    }
}
