//! The seam to the world: tasks, time, sockets, names. The only file that names async-std, and so the way out of it.
//!
//! Everything else asks a [`Runtime`]; a test or a simulator can be one.

use crate::config::{Io, Keepalive};
use crate::net::{self, Watcher};
use crate::socket::{Buffers, Socket};
use crate::{Boxed, ConnId, Endpoint};
use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// What the actors need of the world; as it stands here, of the real one, by async-std.
pub(crate) trait Runtime: Send + Sync + 'static {
    /// Starts a task, which works for `conn` if for any. Only [`actor::spawn`](crate::actor::spawn) calls this.
    fn spawn(&self, _: &'static str, _: Option<ConnId>, task: Boxed<'static, ()>) -> Task {
        Task::new(async_std::task::spawn(task))
    }

    /// The time. It may cost a system call: never asked per message.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits. Each wait takes a lock in the reactor: never one per message.
    fn sleep(&self, time: Duration) -> Boxed<'static, ()> {
        Box::pin(async_std::task::sleep(time))
    }

    /// A number by chance, so that what was started together does not go on together. Nothing is kept secret by it.
    fn random(&self) -> u32 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // Each has keys of its own; std has no other source.
        RandomState::new().build_hasher().finish() as u32
    }

    /// The addresses of a host name, in the order in which they should be tried.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        use async_std::net::ToSocketAddrs;
        Box::pin(async move {
            let found: Vec<_> = (host, port).to_socket_addrs().await?.collect();
            if found.is_empty() {
                return Err(io::Error::other("the name has no address"));
            }
            Ok(found)
        })
    }

    /// Listens on an address or a path, not on a name.
    fn listen(&self, endpoint: &Endpoint, options: &Listening) -> io::Result<Box<dyn Listen>> {
        Ok(Box::new(net::Listener::bind(endpoint, options, watcher(options.socket.io))?))
    }

    /// Accepts on a socket that listens already.
    fn adopt(&self, socket: OwnedFd, options: &Listening) -> io::Result<Box<dyn Listen>> {
        Ok(Box::new(net::Listener::adopt(socket, options, watcher(options.socket.io))?))
    }

    /// Connects to an address or a path, not to a name.
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        options: &'a Options,
    ) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async move {
            let stream = net::Stream::dial(endpoint, options, &watcher(options.io)).await?;
            Ok(Arc::new(stream) as Arc<dyn Socket>)
        })
    }
}

/// A running task. Dropping it cancels the task, as in smol; async-std's own handle would let it go on.
pub(crate) struct Task(Option<Box<dyn Running>>);

/// What a runtime can do with a task that it has started.
pub(crate) trait Running: Send + Sync {
    /// Has it dropped where it waits; soon, not at once.
    fn cancel(self: Box<Self>);

    /// Lets it go on without a handle.
    fn detach(self: Box<Self>);
}

/// A socket that clients connect to.
pub(crate) trait Listen: Send + Sync + 'static {
    /// Where it listens, with the port that the system chose.
    fn endpoint(&self) -> &Endpoint;

    /// Takes a client that waits, and says where it comes from; `WouldBlock` if none waits.
    fn try_accept(&self) -> io::Result<(Arc<dyn Socket>, Endpoint)>;

    /// The same socket, for another process to accept on.
    fn share(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ready when a client may be waiting.
    fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// What every socket of a proxy is given.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) buffers: Buffers,
    pub(crate) io: Io,
}

/// What a listening socket is given besides; the sockets that it accepts inherit the [`Options`].
pub(crate) struct Listening {
    pub(crate) socket: Options,
    pub(crate) backlog: u32,
    pub(crate) unix_mode: Option<u32>,
    /// `[::]` takes IPv4 clients as well.
    pub(crate) dual_stack: bool,
}

/// The real world, by async-std. Its executor and reactor are global, so this holds nothing.
pub(crate) struct AsyncStd;

impl Runtime for AsyncStd {}

/// The same, with threads of our own for the tasks.
#[cfg(target_os = "linux")]
struct Own(Arc<net::Threads>);

#[cfg(target_os = "linux")]
impl Runtime for Own {
    fn spawn(&self, _: &'static str, _: Option<ConnId>, task: Boxed<'static, ()>) -> Task {
        Task::new(self.0.spawn(task))
    }
}

/// The real world, with sockets that are waited for in this way.
pub(crate) fn real(io: Io) -> Arc<dyn Runtime> {
    #[cfg(target_os = "linux")]
    if let Some(threads) = threads(io) {
        return Arc::new(Own(threads));
    }
    let _ = io;
    Arc::new(AsyncStd)
}

/// Our own threads, if sockets are waited for in this way. One set for all proxies of this process, as async-std's are.
#[cfg(target_os = "linux")]
fn threads(io: Io) -> Option<Arc<net::Threads>> {
    static BY_URING: OnceLock<Option<Arc<net::Threads>>> = OnceLock::new();
    static BY_EPOLL: OnceLock<Option<Arc<net::Threads>>> = OnceLock::new();
    let count = COUNT.load(Relaxed);
    let by_uring = || match net::Threads::with_uring(count) {
        Ok(threads) => {
            log::debug!(actor = "threads"; "sockets are waited for by io_uring");
            Some(threads)
        }
        Err(error) => {
            let level = if io == Io::Uring { log::Level::Warn } else { log::Level::Debug };
            log::log!(level, actor = "threads"; "epoll has to do, for there is no io_uring: {error}");
            None
        }
    };
    let by_epoll = || match net::Threads::with_epoll(count) {
        Ok(threads) => {
            log::debug!(actor = "threads"; "sockets are waited for by an epoll of our own");
            Some(threads)
        }
        Err(error) => {
            log::warn!(actor = "threads"; "async-std's reactor has to do, for there is no epoll of our own: {error}");
            None
        }
    };
    let uring = match io {
        Io::Std => return None,
        // Threads that share a ring cost more than it saves.
        Io::Auto if count > 1 => None,
        Io::Epoll => None,
        Io::Auto | Io::Uring => BY_URING.get_or_init(by_uring).clone(),
    };
    uring.or_else(|| BY_EPOLL.get_or_init(by_epoll).clone())
}

/// Who watches sockets.
pub(crate) fn watcher(io: Io) -> Watcher {
    #[cfg(target_os = "linux")]
    if let Some(threads) = threads(io) {
        return threads.watcher().clone();
    }
    let _ = io;
    Watcher::Reactor
}

/// Lets others go first.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn linger(_: impl Fn() -> usize) {
    futures_lite::future::yield_now().await;
}

#[cfg(target_os = "linux")]
pub(crate) use net::linger;

/// How many threads are asked for.
static COUNT: AtomicUsize = AtomicUsize::new(1);

#[cfg(target_os = "linux")]
impl Running for async_task::Task<()> {
    fn cancel(self: Box<Self>) {
        // Dropping the handle cancels.
    }

    fn detach(self: Box<Self>) {
        (*self).detach();
    }
}

impl Running for async_std::task::JoinHandle<()> {
    fn cancel(self: Box<Self>) {
        // The first poll of `cancel` marks the task; nobody needs to wait for the rest here.
        let mut cancel = Box::pin((*self).cancel());
        let waker = std::task::Waker::noop();
        let _ = cancel.as_mut().poll(&mut Context::from_waker(waker));
    }

    fn detach(self: Box<Self>) {
        // Dropping the handle is all that it takes.
    }
}

impl Task {
    pub(crate) fn new(running: impl Running + 'static) -> Task {
        Task(Some(Box::new(running)))
    }

    pub(crate) fn detach(mut self) {
        if let Some(running) = self.0.take() {
            running.detach();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.cancel();
        }
    }
}

/// Sets how many threads carry this process's proxies; has an effect only before the first one is bound. One, unless this is
/// called: more cost more for each message. Callbacks run on these threads, and hold up what they carry.
///
/// This is what `ASYNC_STD_THREAD_COUNT` does, without the environment: setting a variable is unsafe once a program
/// has threads.
pub fn set_threads(count: usize) {
    COUNT.store(count, Relaxed);
    let config = async_global_executor::GlobalExecutorConfig::default()
        // By default a variable of the environment comes before what is set here; this one nobody sets.
        .with_env_var("TRUNKLINE_HAS_NO_SUCH_VARIABLE")
        .with_min_threads(count)
        .with_max_threads(count)
        .with_thread_name_fn(|| "async-std".to_string());
    async_global_executor::init_with_config(config);
}

/// Runs `future` for at most `time`; `None` if that was not enough. A future that is ready at once costs no timer.
pub(crate) async fn timeout<T>(
    runtime: &dyn Runtime,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let late = async {
        // Made only when the future had to wait.
        runtime.sleep(time).await;
        None
    };
    futures_lite::future::or(async { Some(future.await) }, late).await
}

/// The first of two futures to be ready; the other is dropped. Only for waits that may be dropped.
pub(crate) fn race<A: Future, B: Future>(a: A, b: B) -> Race<A, B> {
    Race { a, b }
}

pin_project! {
    /// Written out: an async fn would have room for each future three times, and move them as often.
    pub(crate) struct Race<A, B> {
        #[pin]
        a: A,
        #[pin]
        b: B,
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.a.poll(cx) {
            Poll::Ready(a) => Poll::Ready(Either::A(a)),
            Poll::Pending => this.b.poll(cx).map(Either::B),
        }
    }
}

/// Waits until it is `over`, of which `wait` tells a task once. Polled over and over beside other waits, it asks `over`
/// alone: a listener would take its lock each time, to be told of the same task.
pub(crate) fn until<O: Fn() -> bool, W: Future>(over: O, wait: W) -> Until<O, W> {
    Until { over, told: None, wait }
}

pin_project! {
    pub(crate) struct Until<O, W> {
        over: O,
        // The task that is woken.
        told: Option<Waker>,
        #[pin]
        wait: W,
    }
}

impl<O: Fn() -> bool, W: Future> Future for Until<O, W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if (this.over)() {
            return Poll::Ready(());
        }
        if this.told.as_ref().is_some_and(|told| told.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        *this.told = Some(cx.waker().clone());
        this.wait.poll(cx).map(|_| ())
    }
}

/// A timer that is looked at once it has rung, not whenever what it is raced with has something to do: each look at a timer
/// reads the clock.
pub(crate) struct Alarm {
    timer: Boxed<'static, ()>,
    bell: Arc<Bell>,
}

/// What the timer wakes.
struct Bell {
    rung: AtomicBool,
    owner: AtomicWaker,
}

impl Alarm {
    /// Rings after so long.
    pub(crate) fn set(runtime: &dyn Runtime, time: Duration) -> Alarm {
        // The first look is what starts it.
        let bell = Bell { rung: AtomicBool::new(true), owner: AtomicWaker::new() };
        Alarm { timer: runtime.sleep(time), bell: Arc::new(bell) }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, SeqCst);
        self.owner.wake();
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.owner.register(cx.waker());
        if !self.bell.rung.swap(false, SeqCst) {
            return Poll::Pending;
        }
        let bell = Waker::from(Arc::clone(&self.bell));
        self.timer.as_mut().poll(&mut Context::from_waker(&bell))
    }
}

/// Which of two waits ended.
pub(crate) enum Either<A, B> {
    A(A),
    B(B),
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn, poll_once};

    /// Its timer is over when it is woken; it counts how often it was looked at.
    #[derive(Clone, Default)]
    struct Counted(Arc<(AtomicUsize, AtomicWaker)>);

    impl Runtime for Counted {
        fn sleep(&self, _: Duration) -> Boxed<'static, ()> {
            let counted = Arc::clone(&self.0);
            Box::pin(poll_fn(move |cx| {
                counted.1.register(cx.waker());
                match counted.0.fetch_add(1, SeqCst) {
                    0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            }))
        }
    }

    #[test]
    fn an_alarm_looks_at_its_timer_once_to_start_it_and_once_when_it_has_rung() {
        let counted = Counted::default();
        let mut alarm = Alarm::set(&counted, Duration::from_secs(1));
        block_on(async {
            for _ in 0..3 {
                assert!(poll_once(&mut alarm).await.is_none());
            }
            assert_eq!(counted.0.0.load(SeqCst), 1);
            counted.0.1.wake();
            assert!(poll_once(&mut alarm).await.is_some());
        });
        assert_eq!(counted.0.0.load(SeqCst), 2);
    }

    #[test]
    fn an_alarm_that_rings_wakes_whoever_waits() {
        let counted = Counted::default();
        let alarm = Alarm::set(&counted, Duration::from_secs(1));
        let timer = counted.clone();
        let ringing = std::thread::spawn(move || {
            while timer.0.0.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            timer.0.1.wake();
        });
        block_on(alarm);
        ringing.join().expect("it has not panicked");
    }
}
