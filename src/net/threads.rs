//! The threads that carry the tasks of this process where its sockets have an epoll of their own, or an io_uring.
//!
//! The first of them sleeps in that when no task is ready; so what arrives wakes the thread that is to read it, by the
//! call that says what has come. The others, if there are any, sleep until there is a task too many.
//!
//! ```text
//!   tasks that are ready ──> run ──> none is left ──> sleep in the epoll ──> the tasks that a change wakes ──> run
//! ```
//!
//! While a task lingers (`tasks::linger`), the sleep is only a look.
//!
//! Time and names are async-std's still: its own thread fires the timers, and calls this one.

use super::Watcher;
use super::edge::{Changed, Edge};
use super::ring::{Keeper, Ring};
use super::tasks::{LOOKS, Tasks, looked};
use async_task::Task;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

pub(crate) struct Threads {
    tasks: Arc<Tasks>,
    watcher: Watcher,
    /// What the first of them is called by.
    edge: Arc<Edge>,
}

/// What a thread does when no task is ready.
enum Rest {
    /// Sleeps in the epoll.
    Edge(Changed),
    /// Sleeps in the ring, which only the thread that made it can do.
    Ring(Box<Keeper>, Changed),
    /// Sleeps until it is called.
    Help,
}

impl Threads {
    /// Starts so many, at least one, with an epoll. They run for as long as the process does.
    ///
    /// # Errors
    /// What the system says: no epoll, or no thread.
    pub(crate) fn with_epoll(count: usize) -> io::Result<Arc<Threads>> {
        let edge = Arc::new(Edge::new()?);
        let threads = Threads::new(Watcher::Edge(Arc::clone(&edge)), edge);
        threads.start(|| Ok(Rest::Edge(Changed::new())))?;
        threads.start_helpers(count)?;
        Ok(threads)
    }

    /// The same with an io_uring.
    ///
    /// # Errors
    /// What the kernel lacks, or forbids.
    pub(crate) fn with_uring(count: usize) -> io::Result<Arc<Threads>> {
        let ring = Arc::new(Ring::new()?);
        let threads = Threads::new(Watcher::Ring(Arc::clone(&ring)), Arc::clone(ring.edge()));
        threads.start(move || Ok(Rest::Ring(Box::new(Keeper::new(&ring)?), Changed::new())))?;
        threads.start_helpers(count)?;
        Ok(threads)
    }

    fn new(watcher: Watcher, edge: Arc<Edge>) -> Arc<Threads> {
        let looks = if matches!(watcher, Watcher::Ring(_)) { LOOKS } else { 1 };
        let tasks = Arc::new(Tasks::new(Arc::clone(&edge), looks));
        Arc::new(Threads { tasks, watcher, edge })
    }

    /// Starts one, which has `rest` made on it; what that comes to, this returns.
    fn start(
        self: &Arc<Self>,
        rest: impl FnOnce() -> io::Result<Rest> + Send + 'static,
    ) -> io::Result<()> {
        let this = Arc::clone(self);
        let (told, made) = mpsc::sync_channel(1);
        let body = move || {
            let mut rest = match rest() {
                Ok(rest) => rest,
                Err(error) => return drop(told.send(Err(error))),
            };
            drop(told.send(Ok(())));
            this.tasks.adopt();
            loop {
                // A task that panics is lost, and whoever waits for it hears of that; the others go on.
                let _ = catch_unwind(AssertUnwindSafe(|| this.carry(&mut rest)));
            }
        };
        thread::Builder::new().name("trunkline".to_string()).spawn(body)?;
        made.recv().map_err(|_| io::Error::other("the thread has ended"))?
    }

    fn start_helpers(self: &Arc<Self>, count: usize) -> io::Result<()> {
        (1..count).try_for_each(|_| self.start(|| Ok(Rest::Help)))
    }

    pub(crate) fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        self.tasks.spawn(task)
    }

    fn run(&self) {
        self.edge.hear();
        self.tasks.run();
        self.tasks.stay_awake_if_any_lingers();
    }

    /// Runs tasks, and rests when none is ready. The first thread also looks at its sockets after a good many of them.
    fn carry(&self, rest: &mut Rest) {
        loop {
            match rest {
                Rest::Help => self.tasks.help(),
                Rest::Edge(changed) => {
                    self.run();
                    self.edge.sleep(changed);
                }
                Rest::Ring(keeper, changed) => {
                    self.run();
                    keeper.sleep(changed);
                }
            }
            looked();
        }
    }
}
