//! Tasks that are ready, and the threads that run them.
//!
//! A task that is woken on one of the threads is run by that one, after those that were ready before it: so a message and
//! whoever it is for stay on one core, and neither a lock nor an allocation is needed. Others are shared.

use super::edge::Edge;
use async_task::{Runnable, Task};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Polls after which the sockets are looked at, though tasks are ready.
const POLLS: usize = 256;

/// With more than this, a thread gives some away to one that has nothing to do.
const MANY: usize = 16;

pub(super) struct Tasks {
    /// What the first thread sleeps in.
    edge: Arc<Edge>,
    shared: Mutex<VecDeque<Runnable>>,
    /// How many these are, to be seen without the lock.
    count: AtomicUsize,
    /// Helpers that have nothing to do, and what they wait for.
    idle: AtomicUsize,
    help: Condvar,
}

thread_local! {
    static HERE: Here = const { Here { whose: Cell::new(ptr::null()), ready: RefCell::new(VecDeque::new()) } };
}

/// What a thread has of its own.
struct Here {
    /// Whose thread this is.
    whose: Cell<*const Tasks>,
    ready: RefCell<VecDeque<Runnable>>,
}

impl Tasks {
    pub(super) fn new(edge: Arc<Edge>) -> Tasks {
        let (shared, count, idle, help) = Default::default();
        Tasks { edge, shared, count, idle, help }
    }

    pub(super) fn spawn(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Task<()> {
        let tasks = Arc::clone(self);
        let (runnable, task) = async_task::spawn(task, move |runnable| tasks.schedule(runnable));
        runnable.schedule();
        task
    }

    /// Says that this thread runs them from now on.
    pub(super) fn adopt(&self) {
        HERE.with(|here| here.whose.set(self));
    }

    fn schedule(&self, runnable: Runnable) {
        let mut runnable = Some(runnable);
        // It fails at a thread's very end.
        let _ = HERE.try_with(|here| {
            if !ptr::eq(here.whose.get(), self) {
                return;
            }
            let mut ready = here.ready.borrow_mut();
            if ready.len() < MANY || self.idle.load(Relaxed) == 0 {
                ready.extend(runnable.take());
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
            let Some(runnable) = next() else { return };
            runnable.run();
        }
        self.edge.call();
    }

    /// For the others: runs what is ready, for ever.
    pub(super) fn help(&self) {
        loop {
            while let Some(runnable) = next() {
                runnable.run();
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

/// The next task of this thread.
fn next() -> Option<Runnable> {
    HERE.with(|here| here.ready.borrow_mut().pop_front())
}
