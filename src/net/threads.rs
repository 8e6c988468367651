//! The threads that carry the tasks of this process where its sockets have an epoll of their own.
//!
//! The first of them sleeps in that epoll when no task is ready; so what arrives wakes the thread that is to read it, by the
//! call that says what has come. The others, if there are any, sleep until there is a task too many.
//!
//! ```text
//!   tasks that are ready ──> run ──> none is left ──> sleep in the epoll ──> the tasks that a change wakes ──> run
//! ```
//!
//! Time and names are async-std's still: its own thread fires the timers, and calls this one.

use super::edge::Edge;
use async_executor::{Executor, Task};
use futures_lite::future::{block_on, pending};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;

pub(crate) struct Threads {
    tasks: Executor<'static>,
    edge: Arc<Edge>,
}

impl Threads {
    /// Starts so many, at least one. They run for as long as the process does.
    ///
    /// # Errors
    /// What the system says: no epoll, or no thread.
    pub(crate) fn start(count: usize) -> io::Result<Arc<Threads>> {
        let edge = Arc::new(Edge::new()?);
        let threads = Arc::new(Threads { tasks: Executor::new(), edge });
        for number in 0..count.max(1) {
            let this = Arc::clone(&threads);
            let body = move || loop {
                // A task that panics is lost, and whoever waits for it hears of that; the others go on.
                let carry = || if number == 0 { this.watch() } else { this.help() };
                let _ = catch_unwind(AssertUnwindSafe(carry));
            };
            thread::Builder::new().name("trunkline".to_string()).spawn(body)?;
        }
        Ok(threads)
    }

    pub(crate) fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        self.tasks.spawn(task)
    }

    /// Runs tasks, and watches the sockets when none is ready, or after a good many of them.
    fn watch(&self) {
        let waker = Waker::from(Arc::clone(&self.edge));
        let mut run = pin!(self.tasks.run(pending::<()>()));
        let mut changed = Vec::new();
        loop {
            self.edge.hear();
            // It is never ready: it returns when no task is, or wakes itself to let us look.
            let _ = run.as_mut().poll(&mut Context::from_waker(&waker));
            self.edge.sleep(&mut changed);
        }
    }

    fn help(&self) {
        block_on(self.tasks.run(pending::<()>()));
    }
}
