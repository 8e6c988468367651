//! `trunkline` without a command: runs the proxy until it is told to stop.

use super::flags::Flags;
use super::pooling::Pooling;
use super::signals::{Order, Orders};
use super::worker::{Link, Supervisor};
use super::{Done, Failure, fd_limit, logging, supervisor};
use futures_lite::future::{block_on, or, pending};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use trunkline::{By, Config, Ended, Endpoint, Error, Events, Proxy, Report};

/// Runs the proxy; returns after the drain.
pub(crate) fn run(flags: Flags) -> Done {
    match flags.worker {
        Some(number) => carry(flags, Some(Link::take(number)?)),
        None if flags.workers > 1 => supervisor::run(&flags),
        None => carry(flags, None),
    }
}

/// Carries connections in this process, which is one of several if it has a link to their supervisor.
fn carry(flags: Flags, link: Option<Link>) -> Done {
    let mut config = flags.config()?;
    let pooling = flags.pooling()?;
    let fds = fd_limit::raise();
    let log = logging::start(flags.log_level, flags.format(), flags.log_file, flags.worker)?;
    quiet_panics();
    let asked = config.max_conn;
    config.max_conn = asked.min(fd_limit::fitting(fds));
    let warning = (config.max_conn < asked).then(|| fd_limit::warning(asked, fds));
    trunkline::set_threads(flags.threads);
    // Not async-std's own block_on, which would make this thread one more worker.
    let done = block_on(serve(config, pooling, link, &log, warning));
    log.finish();
    done
}

async fn serve(
    config: Config,
    pooling: Option<Pooling>,
    link: Option<Link>,
    log: &logging::Log,
    warning: Option<String>,
) -> Done {
    let mut orders = Orders::new()?;
    let (sockets, supervisor) = link.map(Link::split).unzip();
    let drained = Arc::new(Drained { supervisor, ..Drained::default() });
    let backends: Vec<String> = config.backends.iter().map(ToString::to_string).collect();
    let mut builder = Proxy::builder().config(config).events(Arc::clone(&drained));
    if let Some((framing, pool)) = pooling {
        builder = builder.pool(framing, pool);
    }
    let builder = builder.inherit(sockets.unwrap_or_default());
    let proxy = builder.bind().await.map_err(|error| Failure::Runtime(advice(&error)))?;
    if let Some(warning) = warning {
        log::warn!(actor = "limits"; "{warning}");
    }
    match &drained.supervisor {
        Some(supervisor) => supervisor.tell(&Report::default()),
        None => log_listening(proxy.endpoints(), &backends.join(" ")),
    }

    let handle = proxy.handle();
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let obey = async {
        let mut stop = Some(stop);
        loop {
            let order = or(orders.next(), drained.orphaned(stop.is_none())).await;
            if order == Order::Hangup && log.reopen() {
                continue;
            }
            match stop.take() {
                Some(_first) => {
                    drained.stopping.store(true, Ordering::Relaxed);
                    log::info!(actor = "signals"; "{STOPPING}");
                }
                None => handle.abort().await,
            }
        }
    };
    let shutdown = async {
        // Nothing is ever sent: the channel closes when the first signal drops its sender.
        let _ = stopped.recv().await;
    };
    let report = or(proxy.run(shutdown), obey).await;
    drained.tell(&report);
    Ok(drained.conclude(&report))
}

/// What is said when the first signal has come.
pub(crate) const STOPPING: &str =
    "stopping: no new connections; a second signal aborts those that are left";

/// Says where clients can connect.
pub(crate) fn log_listening(endpoints: &[Endpoint], backends: &str) {
    for endpoint in endpoints {
        log::info!(actor = "listener", listen:% = endpoint, backends; "listening");
    }
}

/// What went wrong at the start, with the flag that mends it.
pub(crate) fn advice(error: &Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let mend = match error {
        Error::Listen { source, .. } => match source.kind() {
            AddrInUse => "; stop the program that listens there, or choose another --listen",
            AddrNotAvailable => "; this machine has no such address: choose another --listen",
            PermissionDenied => {
                "; ports below 1024 and other users' folders need privileges: choose another --listen"
            }
            _ => "; choose another --listen",
        },
        Error::Config(_) | Error::Inherited(_) => "",
    };
    format!("{error}{mend}")
}

/// How the connections ended that were open when the proxy was told to stop.
#[derive(Default)]
struct Drained {
    /// Of one of several processes.
    supervisor: Option<Supervisor>,
    stopping: AtomicBool,
    clean: AtomicU64,
    aborted: AtomicU64,
    /// Those of the aborted that we ended: the drain was not a clean one.
    by_us: AtomicU64,
}

impl Events for Drained {
    fn on_timer(&self, report: &Report) {
        self.tell(report);
    }

    fn on_close(&self, ended: &Ended) {
        if !self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let add = |count: &AtomicU64, one: bool| count.fetch_add(u64::from(one), Ordering::Relaxed);
        add(&self.clean, ended.clean);
        add(&self.aborted, !ended.clean);
        add(&self.by_us, !ended.clean && matches!(ended.by, By::Proxy | By::Timeout));
    }
}

impl Drained {
    fn tell(&self, report: &Report) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.tell(report);
        }
    }

    /// Waits until the supervisor has gone, unless that is `known`: nobody would give orders any more.
    async fn orphaned(&self, known: bool) -> Order {
        match &self.supervisor {
            Some(supervisor) if !known => supervisor.gone().await,
            _ => pending().await,
        }
        Order::Stop
    }

    fn conclude(&self, report: &Report) -> ExitCode {
        let clean = self.clean.load(Ordering::Relaxed);
        let aborted = self.aborted.load(Ordering::Relaxed);
        log::info!(
            actor = "proxy",
            clean,
            aborted,
            all_clean = report.clean,
            all_aborted = report.aborted;
            "stopped: {clean} connections ended cleanly and {aborted} were aborted"
        );
        ExitCode::from(u8::from(self.by_us.load(Ordering::Relaxed) > 0))
    }
}

/// A panic in an actor is logged once, by whoever catches it, and not by the runtime on stderr besides.
pub(crate) fn quiet_panics() {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some("main") {
            return loud(info);
        }
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        log::debug!(actor = "panic", place = place.as_str(); "the next line says whose");
    }));
}
