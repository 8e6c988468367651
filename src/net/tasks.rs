//! Tasks that are ready, and the threads that run them.
//!
//! A task that is woken on one of the threads is run by that one: so a message and whoever it is for stay on one core, and
//! neither a lock nor an allocation is needed. Others are shared. They are run in turn; but the one that a task has woken last
//! is next, while what it was woken for is in the cache (4 % of a request through the tunnel).

use super::edge::Edge;
use async_task::{Runnable, ScheduleInfo, Task, WithInfo};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Polls after which the sockets are looked at, though tasks are ready.
const POLLS: usize = 256;

/// Looks at the sockets for one that lingers, where a look that finds nothing costs no call. Where it costs one, there is one.
pub(super) const LOOKS: u32 = 8;

/// With more than this, a thread gives some away to one that has nothing to do.
const MANY: usize = 16;

/// So many at most are next one after the other: two that wake each other must not keep the others from their turn.
const ROW: u32 = 4;

pub(super) struct Tasks {
    /// What the first thread sleeps in.
    edge: Arc<Edge>,
    /// How often the sockets are looked at for one that lingers.
    looks: u32,
    shared: Mutex<VecDeque<Runnable>>,
    /// How many these are, to be seen without the lock.
    count: AtomicUsize,
    /// Helpers that have nothing to do, and what they wait for.
    idle: AtomicUsize,
    help: Condvar,
}

thread_local! {
    static HERE: Here = const {
        Here {
            whose: Cell::new(ptr::null()),
            running: Cell::new(false),
            next: Cell::new(None),
            row: Cell::new(0),
            ready: RefCell::new(VecDeque::new()),
            looks: Cell::new(1),
            lingering: RefCell::new(Vec::new()),
            last: RefCell::new(Vec::new()),
        }
    };
}

/// What a thread has of its own.
struct Here {
    /// Whose thread this is.
    whose: Cell<*const Tasks>,
    running: Cell<bool>,
    /// Whom the running task has woken last.
    next: Cell<Option<Runnable>>,
    /// How many were next one after the other.
    row: Cell<u32>,
    /// The others, in turn.
    ready: RefCell<VecDeque<Runnable>>,
    /// How often its sockets are looked at for one that lingers.
    looks: Cell<u32>,
    /// Those who linger until its sockets have been looked at.
    lingering: RefCell<Vec<Waker>>,
    /// Those who did: it is their turn when nobody else is ready.
    last: RefCell<Vec<Waker>>,
}

impl Here {
    fn take(&self) -> Option<Runnable> {
        let (next, row) = (self.next.take(), self.row.get());
        let mut ready = self.ready.borrow_mut();
        if ready.is_empty() || (next.is_some() && row < ROW) {
            self.row.set(row.saturating_add(1));
            return next;
        }
        self.row.set(0);
        if let Some(next) = next {
            ready.push_back(next);
        }
        ready.pop_front()
    }
}

impl Tasks {
    pub(super) fn new(edge: Arc<Edge>, looks: u32) -> Tasks {
        let (shared, count, idle, help) = Default::default();
        Tasks { edge, looks, shared, count, idle, help }
    }

    pub(super) fn spawn(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Task<()> {
        let tasks = Arc::clone(self);
        // One that wakes itself yields to the others.
        let schedule = move |runnable, info: ScheduleInfo| {
            tasks.schedule(runnable, info.woken_while_running);
        };
        let (runnable, task) = async_task::spawn(task, WithInfo(schedule));
        // In turn: whoever came first begins first.
        self.schedule(runnable, true);
        task
    }

    /// Says that this thread runs them from now on.
    pub(super) fn adopt(&self) {
        HERE.with(|here| {
            here.whose.set(self);
            here.looks.set(self.looks);
        });
    }

    /// Makes a task ready; `in_turn`, though it was woken by the one that is running.
    fn schedule(&self, runnable: Runnable, in_turn: bool) {
        let mut runnable = Some(runnable);
        // It fails at a thread's very end.
        let _ = HERE.try_with(|here| {
            if !ptr::eq(here.whose.get(), self) {
                return;
            }
            if here.running.get() && !in_turn {
                runnable = here.next.replace(runnable.take());
                if runnable.is_none() {
                    return;
                }
            }
            let mut ready = here.ready.borrow_mut();
            if (ready.len() < MANY || self.idle.load(Relaxed) == 0)
                && let Some(runnable) = runnable.take()
            {
                ready.push_back(runnable);
                self.edge.keep_awake();
            }
        });
        if let Some(runnable) = runnable {
            self.share(runnable);
        }
    }

    fn share(&self, runnable: Runnable) {
        {
            let mut shared = self.shared();
            shared.push_back(runnable);
            self.count.store(shared.len(), SeqCst);
        }
        if self.idle.load(SeqCst) > 0 {
            self.help.notify_one();
        } else {
            self.edge.call();
        }
    }

    fn shared(&self) -> MutexGuard<'_, VecDeque<Runnable>> {
        super::lock(&self.shared)
    }

    /// For the first thread: runs what is ready, and returns when nothing is, or after a good many polls.
    pub(super) fn run(&self) {
        if self.count.load(SeqCst) > 0 {
            let shared = std::mem::take(&mut *self.shared());
            self.count.store(0, SeqCst);
            HERE.with(|here| here.ready.borrow_mut().extend(shared));
        }
        for _ in 0..POLLS {
            if !run_next() && !go_on() {
                return;
            }
        }
        // There may be no end of those who are ready.
        go_on();
        self.edge.call();
    }

    /// For the first thread: with one that lingers it is not to sleep, only to look.
    pub(super) fn stay_awake_if_any_lingers(&self) {
        if HERE.with(|here| !here.lingering.borrow().is_empty()) {
            self.edge.call();
        }
    }

    /// For the others: runs what is ready, for ever.
    pub(super) fn help(&self) {
        loop {
            while run_next() || go_on() {}
            if looked() {
                continue;
            }
            let mut shared = self.shared();
            let runnable = loop {
                if let Some(runnable) = shared.pop_front() {
                    self.count.store(shared.len(), SeqCst);
                    break runnable;
                }
                self.idle.fetch_add(1, SeqCst);
                shared = self.help.wait(shared).unwrap_or_else(PoisonError::into_inner);
                self.idle.fetch_sub(1, SeqCst);
            };
            drop(shared);
            runnable.run();
        }
    }
}

/// Lets others go first: the tasks of this thread that are ready, those whom its sockets wake when it looks at them once
/// more, and whom these wake; and so on, a few times, while `at_hand` changes by it. For whoever does better with more at
/// hand, and has something already.
///
/// To give the core to other programs as well (sched_yield) was no faster, and 40 % slower beside one that never sleeps.
pub(crate) fn linger(at_hand: impl Fn() -> usize) -> impl Future<Output = ()> {
    let (mut looks, mut had) = (HERE.with(|here| here.looks.get()), None);
    poll_fn(move |cx| {
        let has = Some(at_hand());
        if looks == 0 || had == has {
            return Poll::Ready(());
        }
        (looks, had) = (looks - 1, has);
        let waker = cx.waker().clone();
        // On any other thread it is a plain yield.
        match HERE.with(|here| here.whose.get().is_null()) {
            true => waker.wake(),
            false => HERE.with(|here| here.lingering.borrow_mut().push(waker)),
        }
        Poll::Pending
    })
}

/// The sockets of this thread have been looked at: who lingers on it has waited long enough. False if nobody does.
pub(super) fn looked() -> bool {
    HERE.with(|here| {
        let mut lingering = here.lingering.borrow_mut();
        let any = !lingering.is_empty();
        here.last.borrow_mut().append(&mut lingering);
        any
    })
}

/// It is the turn of those on this thread who let others go first; false if there are none.
fn go_on() -> bool {
    let mut any = false;
    while let Some(waker) = HERE.with(|here| here.last.borrow_mut().pop()) {
        waker.wake();
        any = true;
    }
    any
}

/// Runs the next task of this thread; false if none is ready.
fn run_next() -> bool {
    HERE.with(|here| {
        let Some(runnable) = here.take() else { return false };
        let _running = Running(&here.running);
        here.running.set(true);
        runnable.run();
        true
    })
}

/// Dropped, nothing is running any more, though the task may have panicked.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_listener::Event;
    use futures_lite::future::yield_now;

    /// Runs these tasks on a thread of their own, as long as any is ready or lingers, and says what they have noted, with
    /// a 0 for each look at the sockets.
    fn noted(spawn: impl FnOnce(&dyn Fn(crate::Boxed<'static, ()>), &Notes) + Send) -> Vec<u32> {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let tasks = Arc::new(Tasks::new(Arc::new(Edge::new().expect("an epoll")), LOOKS));
                tasks.adopt();
                let notes = Notes::default();
                spawn(&|task| tasks.spawn(task).detach(), &notes);
                tasks.run();
                while looked() {
                    notes.add(0);
                    notes.looks.notify(usize::MAX);
                    tasks.run();
                }
                std::mem::take(&mut *crate::net::lock(&notes.all))
            });
            running.join().expect("no panic")
        })
    }

    #[derive(Clone, Default)]
    struct Notes {
        all: Arc<Mutex<Vec<u32>>>,
        /// What the next look wakes.
        looks: Arc<Event>,
    }

    impl Notes {
        fn is_empty(&self) -> bool {
            crate::net::lock(&self.all).is_empty()
        }

        fn add(&self, note: u32) {
            crate::net::lock(&self.all).push(note);
        }
    }

    #[test]
    fn whom_a_task_has_woken_is_next_and_one_that_yields_is_last() {
        let notes = noted(|spawn, notes| {
            let (wake, woken) = async_channel::bounded::<()>(1);
            let here = notes.clone();
            spawn(Box::pin(async move {
                woken.recv().await.expect("it is woken");
                here.add(3);
            }));
            let here = notes.clone();
            spawn(Box::pin(async move {
                here.add(1);
                yield_now().await;
                here.add(5);
            }));
            let here = notes.clone();
            spawn(Box::pin(async move {
                here.add(2);
                wake.send(()).await.expect("it waits");
            }));
            let here = notes.clone();
            spawn(Box::pin(async move { here.add(4) }));
        });
        assert_eq!(notes, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn one_that_lingers_goes_on_when_nobody_else_can() {
        let notes = noted(|spawn, notes| {
            let here = notes.clone();
            spawn(Box::pin(async move {
                here.add(1);
                linger(|| 1).await;
                here.add(4);
            }));
            let here = notes.clone();
            spawn(Box::pin(async move {
                let look = here.looks.listen();
                here.add(2);
                look.await;
                yield_now().await;
                here.add(3);
            }));
        });
        assert_eq!(notes, [1, 2, 0, 3, 4]);
    }

    #[test]
    fn one_that_lingers_does_so_while_it_has_ever_more_at_hand_but_not_for_ever() {
        for (most, looks) in [(0, 1), (2, 3), (u32::MAX, LOOKS)] {
            let notes = noted(|spawn, _| {
                let at_hand = AtomicUsize::new(0);
                spawn(Box::pin(linger(move || {
                    let more = at_hand.load(Relaxed) < most as usize;
                    at_hand.fetch_add(more.into(), Relaxed)
                })));
            });
            assert_eq!(notes.len(), looks as usize, "at most {most} at hand");
        }
    }

    #[test]
    fn two_tasks_that_wake_each_other_keep_no_other_from_its_turn() {
        let notes = noted(|spawn, notes| {
            let (ping, pong) = (async_channel::bounded(1), async_channel::bounded(1));
            ping.0.try_send(()).expect("there is room");
            for (from, to) in [(ping.1, pong.0), (pong.1, ping.0)] {
                let here = notes.clone();
                spawn(Box::pin(async move {
                    while here.is_empty() && from.recv().await.is_ok() {
                        // The other one may have ended.
                        let _ = to.send(()).await;
                    }
                }));
            }
            let notes = notes.clone();
            spawn(Box::pin(async move { notes.add(1) }));
        });
        assert_eq!(notes, [1]);
    }
}
