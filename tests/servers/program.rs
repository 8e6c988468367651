//! A process of a test: a server or one of its clients, what it prints, and how it ends.

use super::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Runs a program to its end, which must be a success.
pub(crate) fn succeed(command: &mut Command, input: &str) -> Ended {
    let ended = Program::start(command, input).end();
    assert!(ended.status.success(), "{ended}");
    ended
}

/// A process of a test and what it prints. Dropped, it is ended.
pub(crate) struct Program {
    command: String,
    child: Child,
    printed: Arc<(Mutex<Printed>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct Printed {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    /// Which of the two have come to their end.
    ended: usize,
}

pub(crate) struct Ended {
    command: String,
    pub(crate) status: ExitStatus,
    pub(crate) printed: Printed,
}

impl Program {
    pub(crate) fn start(command: &mut Command, input: &str) -> Program {
        let shown = format!("{command:?}");
        // The tests know what is said in English only.
        command.env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let printed = Arc::<(Mutex<Printed>, Condvar)>::default();
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_string();
        // One that does not want its input, or not all of it, says so by itself.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        collect(stdout, Arc::clone(&printed), |printed| &mut printed.out);
        collect(stderr, Arc::clone(&printed), |printed| &mut printed.err);
        Program { command: shown, child, printed }
    }

    /// Waits until what it has printed shows what is looked for.
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn(&Printed) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let (printed, changed) = &*self.printed;
        let mut printed = printed.lock().expect("no holder of the lock panics");
        loop {
            if let Some(found) = look(&printed) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let (said, over) = (printed.all(), printed.ended == 2);
            if over || left.is_zero() {
                drop(printed);
                let how = if over { "ended without" } else { "did not come within 60 s to" };
                panic!("{} {how} {what}; it printed:\n{said}", self.command);
            }
            printed = changed.wait_timeout(printed, left).expect("no holder of the lock panics").0;
        }
    }

    pub(crate) fn until_it_says(&self, words: &str) {
        self.until(&format!("{words:?}"), |printed| printed.all().contains(words).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our own child");
    }

    /// Waits until it has ended.
    pub(crate) fn end(mut self) -> Ended {
        self.until("its end", |printed| (printed.ended == 2).then_some(()));
        let status = poll(PATIENCE, || self.child.try_wait().transpose());
        let status = status.unwrap_or_else(|| panic!("{} did not end within 60 s", self.command));
        let status = status.expect("it is our own child");
        let printed = self.printed.0.lock().map(|mut printed| std::mem::take(&mut *printed));
        let printed = printed.expect("no holder of the lock panics");
        Ended { command: self.command.clone(), status, printed }
    }
}

/// Gathers what a process writes to a pipe.
fn collect(
    mut pipe: impl Read + Send + 'static,
    printed: Arc<(Mutex<Printed>, Condvar)>,
    place: fn(&mut Printed) -> &mut Vec<u8>,
) {
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        let (printed, changed) = &*printed;
        loop {
            let read = pipe.read(&mut bytes).unwrap_or(0);
            let mut printed = printed.lock().expect("no holder of the lock panics");
            match read {
                0 => printed.ended += 1,
                read => place(&mut printed).extend_from_slice(&bytes[..read]),
            }
            changed.notify_all();
            if read == 0 {
                return;
            }
        }
    });
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // All these servers and clients take this as an order to be quick; a killed postgres would leave its children
        // and its shared memory behind.
        self.signal(Signal::INT);
        let ended = poll(Duration::from_secs(10), || self.child.try_wait().transpose());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Printed {
    pub(crate) fn all(&self) -> String {
        [String::from_utf8_lossy(&self.out), String::from_utf8_lossy(&self.err)].concat()
    }
}

impl Ended {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.printed.out).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.printed.err).into_owned()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ended { command, status, printed } = self;
        write!(f, "{command} ended with {status}; it printed:\n{}", printed.all())
    }
}

/// Looks again and again until there is something to see: only for the end of a process, of which nobody tells us.
#[expect(clippy::disallowed_methods, reason = "std has no wait for a process with a deadline")]
fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() >= deadline {
            return seen;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What `strace -c` counts of a process, all its threads, while `work` is done.
pub(crate) fn traced<T>(pid: u32, work: impl FnOnce() -> T) -> (T, String) {
    let strace = Program::start(program("strace").args(["-f", "-c", "-p", &pid.to_string()]), "");
    strace.until_it_says("attached");
    let worked = work();
    strace.signal(Signal::INT);
    (worked, strace.end().stderr())
}

pub(crate) fn program(name: &str) -> Command {
    Command::new(find(name).expect("a test does not run without its programs"))
}

/// Where a program is: Debian keeps postgres's out of everybody's PATH, and nginx's out of most people's.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    // The newest first; and before the PATH, where Debian has scripts of the same names.
    versions.sort_by_key(|path| std::cmp::Reverse(major(path)));
    let path = env::var_os("PATH").unwrap_or_default();
    let places = versions.into_iter().chain(env::split_paths(&path));
    let mut places = places.chain([PathBuf::from("/usr/sbin")]);
    places.find_map(|place| Some(place.join(name)).filter(|path| path.is_file()))
}

/// The 15 in `/usr/lib/postgresql/15/bin`.
fn major(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}
