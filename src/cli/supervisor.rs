//! `trunkline --workers N`: listens, starts as many processes, and keeps them running.
//!
//! ```text
//!   supervisor ──listening sockets, signals──> worker 1, worker 2, ... ──figures──> supervisor
//! ```
//!
//! It carries nothing itself. All accept on the same sockets, which it keeps open: while a worker is started again, clients
//! wait for another one, and none is refused. What a worker has, trunks above all, it has for itself.

use super::flags::Flags;
use super::proxy::{STOPPING, advice, log_listening};
use super::signals::{Order, Orders};
use super::{Done, Failure, fd_limit, logging, worker};
use async_channel::{Receiver, Sender};
use async_io::Timer;
use futures_lite::future::{block_on, or, pending};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};
use trunkline::units::{show_duration, show_error};
use trunkline::{Io, Proxy, Report};

/// Before a worker is started again that has ended soon after its start; twice as long each time.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A worker that has lived so long may be started again at once.
const LONG: Duration = Duration::from_secs(10);

/// Runs the workers; returns when all have ended, after they were told to stop.
pub(crate) fn run(flags: &Flags) -> Done {
    let mut config = flags.config()?;
    flags.pooling()?;
    fd_limit::raise();
    let file = flags.log_file.clone();
    let log = logging::start(flags.log_level, flags.format(), file, None)?;
    // It only holds the sockets.
    config.io = Io::Std;
    let every = config.report;
    let backends: Vec<String> = config.backends.iter().map(ToString::to_string).collect();
    let done = block_on(async {
        let orders = Orders::new()?;
        let proxy = Proxy::builder().config(config).bind().await;
        let proxy = proxy.map_err(|error| Failure::Runtime(advice(&error)))?;
        let sockets = proxy.sockets().map_err(|error| cannot("share the sockets", &error))?;
        if sockets.len() > worker::SOCKETS {
            let most = worker::SOCKETS;
            return Err(Failure::Usage(format!(
                "workers share at most {most} addresses; use fewer --listen"
            )));
        }
        log_listening(proxy.endpoints(), &backends.join(" "));
        let stdout = log.stdout().map_err(|error| cannot("share stdout", &error))?;
        let (events, happened) = async_channel::bounded(64);
        let held = Some((proxy, sockets));
        let workers = (1..=flags.workers).map(|_| Worker::default()).collect();
        let supervisor = Supervisor { held, stdout, events, workers, stops: 0, failed: false };
        supervisor.run(orders, happened, every, &log).await
    });
    log.finish();
    done
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::Runtime(format!("cannot {what}: {}", show_error(error)))
}

struct Supervisor {
    /// The proxy that listens and does not run, and its sockets; until the stop.
    held: Option<(Proxy, Vec<OwnedFd>)>,
    stdout: OwnedFd,
    events: Sender<(usize, Event)>,
    workers: Vec<Worker>,
    /// How often it was told to stop.
    stops: u32,
    /// A worker did not end as it should, behind the stop.
    failed: bool,
}

#[derive(Default)]
struct Worker {
    running: Option<(Pid, Instant)>,
    /// It has said so, by its first report.
    accepts: bool,
    /// When it is to be started.
    due: Option<Instant>,
    pause: Duration,
    /// Of the processes before it.
    past: Report,
    /// What it has told last.
    told: Report,
}

/// What is heard of a worker.
enum Event {
    Told(Report),
    Ended(io::Result<ExitStatus>),
}

enum Happens {
    Order(Order),
    Event(usize, Event),
    Due,
    Report,
}

impl Supervisor {
    async fn run(
        mut self,
        mut orders: Orders,
        happened: Receiver<(usize, Event)>,
        every: Option<Duration>,
        log: &logging::Log,
    ) -> Done {
        for number in 0..self.workers.len() {
            if let Err(error) = self.start(number) {
                self.signal(Signal::TERM);
                return Err(cannot("start a worker", &error));
            }
        }
        // Behind those of the workers, which tell of them then.
        let first = |every| Timer::interval_at(Instant::now() + every + every / 8, every);
        let mut report = every.map(first);
        while self.stops == 0 || self.workers.iter().any(|worker| worker.running.is_some()) {
            let order = async { Happens::Order(orders.next().await) };
            let event = async {
                match happened.recv().await {
                    Ok((number, event)) => Happens::Event(number, event),
                    // It has the other end itself.
                    Err(_) => pending().await,
                }
            };
            let next = self.workers.iter().filter_map(|worker| worker.due).min();
            let due = async {
                match next {
                    Some(next) => Timer::at(next).await,
                    None => pending().await,
                };
                Happens::Due
            };
            let tick = async {
                match &mut report {
                    Some(timer) => timer.await,
                    None => pending().await,
                };
                Happens::Report
            };
            match or(or(order, event), or(due, tick)).await {
                Happens::Order(Order::Hangup) if log.reopen() => self.signal(Signal::HUP),
                Happens::Order(_) => self.stop(),
                Happens::Event(number, Event::Told(report)) => self.told(number, report),
                Happens::Event(number, Event::Ended(status)) => self.ended(number, status),
                Happens::Due => self.start_those_due(),
                Happens::Report => self.total().log(every.unwrap_or_default()),
            }
        }
        let total = self.total();
        log::info!(
            actor = "supervisor",
            all_clean = total.clean,
            all_aborted = total.aborted;
            "stopped: all workers have ended"
        );
        Ok(ExitCode::from(u8::from(self.failed)))
    }

    /// What all do, and have done.
    fn total(&self) -> Report {
        let mut total = Report::default();
        for worker in &self.workers {
            total.add(&worker.past);
            total.add(&worker.told);
        }
        total
    }

    fn signal(&self, signal: Signal) {
        for (pid, _) in self.workers.iter().filter_map(|worker| worker.running) {
            // It may have ended a moment ago; nobody has waited for it, so that nobody else has its number.
            let _ = kill_process(pid, signal);
        }
    }

    fn stop(&mut self) {
        if self.stops == 0 {
            log::info!(actor = "signals"; "{STOPPING}");
            // Or else the kernel would go on accepting for workers that do not.
            self.held = None;
        }
        self.stops += 1;
        for worker in &mut self.workers {
            worker.due = None;
        }
        self.signal(Signal::TERM);
    }

    fn start_those_due(&mut self) {
        let now = Instant::now();
        for number in 0..self.workers.len() {
            if self.workers[number].due.is_some_and(|due| due <= now)
                && let Err(error) = self.start(number)
            {
                log::error!(actor = "supervisor"; "a worker cannot be started: {}", show_error(&error));
                self.workers[number].due = Some(now + LONGEST_PAUSE);
            }
        }
    }

    fn start(&mut self, number: usize) -> io::Result<()> {
        let Some((_, sockets)) = &self.held else { return Ok(()) };
        let (ours, theirs) = UnixStream::pair()?;
        worker::give(ours.as_fd(), sockets)?;
        let name = number + 1;
        let mut words = std::env::args_os();
        let mut command = Command::new(program()?);
        if let Some(word) = words.next() {
            command.arg0(word);
        }
        command.args(words).arg("--worker").arg(name.to_string());
        command.stdin(OwnedFd::from(theirs)).stdout(self.stdout.try_clone()?);
        // Ctrl-c is for the supervisor: a second signal is an order of its own.
        command.process_group(0);
        let child = command.spawn()?;
        let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return Err(io::Error::other("it has no number"));
        };
        let events = self.events.clone();
        thread::Builder::new().name(format!("worker {name}")).spawn(move || {
            let ended = follow(child, ours, |report| {
                let _ = events.send_blocking((number, Event::Told(report)));
            });
            // Gone: the supervisor ends.
            let _ = events.send_blocking((number, Event::Ended(ended)));
        })?;
        let worker = &mut self.workers[number];
        (worker.running, worker.accepts, worker.due) = (Some((pid, Instant::now())), false, None);
        Ok(())
    }

    fn told(&mut self, number: usize, report: Report) {
        let worker = &mut self.workers[number];
        worker.told = report;
        if let Some((pid, _)) = worker.running
            && !std::mem::replace(&mut worker.accepts, true)
        {
            let pid = pid.as_raw_nonzero();
            log::info!(actor = "supervisor", worker = number + 1, pid; "a worker accepts clients");
        }
    }

    fn ended(&mut self, number: usize, status: io::Result<ExitStatus>) {
        let worker = &mut self.workers[number];
        let lived = worker.running.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        worker.past.add(&std::mem::take(&mut worker.told));
        worker.past.open = 0;
        let how = status.as_ref().map_or_else(show_error, ToString::to_string);
        if self.stops > 0 {
            let term = matches!(&status, Ok(status) if status.signal() == Some(TERM));
            let early = term && !worker.accepts;
            if !matches!(&status, Ok(status) if status.success()) && !early {
                log::warn!(actor = "supervisor", worker = number + 1; "a worker has ended: {how}");
                self.failed = true;
            }
            return;
        }
        let pause = if lived < LONG { worker.pause } else { Duration::ZERO };
        worker.due = Some(Instant::now() + pause);
        worker.pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        let after = show_duration(pause);
        log::error!(actor = "supervisor", worker = number + 1; "a worker has ended: {how}; it is started again after {after}");
    }
}

/// The signal by which a worker that has not yet come to take signals ends, and loses nobody.
const TERM: i32 = Signal::TERM.as_raw();

/// Reads what a worker tells until it ends, and waits for that.
fn follow(mut child: Child, link: UnixStream, tell: impl Fn(Report)) -> io::Result<ExitStatus> {
    for line in BufReader::new(link).lines() {
        // Reset: it was killed.
        let Ok(line) = line else { break };
        if let Some(report) = worker::read(&line) {
            tell(report);
        }
    }
    child.wait()
}

/// This program, though its file may have been replaced meanwhile.
fn program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_path_buf()) } else { std::env::current_exe() }
}
