//! The real binary, started on a free port, with its log read as it comes.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

/// How long anything may take that should take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy. Dropping it kills it.
pub(crate) struct Binary {
    child: Child,
    lines: Receiver<String>,
    /// All log lines so far.
    pub(crate) log: Vec<Value>,
    /// Where it listens, as its log says.
    pub(crate) listening: Vec<String>,
}

/// How a run ended.
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) log: Vec<Value>,
    pub(crate) stderr: String,
}

impl Binary {
    /// Starts the proxy with these flags on a free port of 127.0.0.1, unless they say where.
    pub(crate) fn start(flags: &[&str]) -> Binary {
        Self::spawn(Command::new(PROGRAM).args(flags), flags)
    }

    /// The same by a shell that sets a limit first, such as `ulimit -n 64`.
    pub(crate) fn start_limited(limit: &str, flags: &[&str]) -> Binary {
        let script = format!("{limit} && exec \"$0\" \"$@\"");
        Self::spawn(Command::new("sh").args(["-c", &script, PROGRAM]).args(flags), flags)
    }

    fn spawn(command: &mut Command, flags: &[&str]) -> Binary {
        let listens = flags.iter().filter(|flag| **flag == "--listen").count();
        if listens == 0 {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--log-format") {
            command.args(["--log-format", "json"]);
        }
        let mut binary = Self::with_its_log(command);
        for _ in 0..listens.max(1) {
            let line = binary.wait_for("listening");
            binary.listening.push(line["listen"].as_str().expect("an address").to_string());
        }
        binary
    }

    /// Starts `trunkline faults` with these flags, and its API on a free port of 127.0.0.1.
    pub(crate) fn faults(flags: &[&str]) -> Binary {
        let mut command = Command::new(PROGRAM);
        command.args(["faults", "--api", "127.0.0.1:0", "--log-format", "json"]).args(flags);
        let mut binary = Self::with_its_log(&mut command);
        let line = binary.wait_for("the API listens");
        binary.listening.push(line["api"].as_str().expect("an address").to_string());
        binary
    }

    fn with_its_log(command: &mut Command) -> Binary {
        let pipes = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = pipes.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        // More lines than any test reads late; a full channel would hold up the proxy's log.
        let (sender, lines) = sync_channel(100_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Binary { child, lines, log: Vec::new(), listening: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listening[0].parse().expect("it listens on an IP address")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its number's name in rustix.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process lives");
    }

    /// The next log line whose message starts with `message`.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    self.log.push(line.clone());
                    if line["msg"].as_str().is_some_and(|msg| msg.starts_with(message)) {
                        return line;
                    }
                }
                Err(error) => {
                    let why = match error {
                        RecvTimeoutError::Timeout => "in time",
                        RecvTimeoutError::Disconnected => "before the proxy ended",
                    };
                    let mut stderr = String::new();
                    let _ = self.child.kill();
                    let _ =
                        self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut stderr));
                    panic!(
                        "no line {message:?} came {why}; the log: {:#?} stderr: {stderr}",
                        self.log
                    );
                }
            }
        }
    }

    /// The access log's line of the next connection that ends.
    pub(crate) fn closed(&mut self) -> Value {
        self.wait_for("closed")
    }

    /// SIGTERM, and all that follows.
    pub(crate) fn stop(self) -> Stopped {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(mut self) -> Stopped {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(serde_json::from_str(&line).unwrap_or(Value::String(line)))
                }
                // Its stdout is closed: it is about to end.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the proxy did not end; its log: {:#?}", self.log)
                }
            }
        }
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().expect("stderr is a pipe");
        pipe.read_to_string(&mut stderr).expect("stderr is text");
        let status = self.child.wait().expect("it is our child");
        Stopped { status, log: std::mem::take(&mut self.log), stderr }
    }

    /// A figure in kB from /proc/PID/status, such as VmRSS.
    pub(crate) fn status_kb(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with(name)).expect("the figure is there");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

impl Stopped {
    /// The lines of the log with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<&Value> {
        let is = |line: &&Value| line["msg"].as_str().is_some_and(|msg| msg.starts_with(message));
        self.log.iter().filter(is).collect()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on which nobody listens now, for a proxy whose log is not read by the test.
pub(crate) fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0");
    socket.and_then(|socket| socket.local_addr()).expect("a free port")
}

/// Waits until it is so: of what other processes do there is no event.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Runs the binary to its end, which must come by itself.
pub(crate) fn run(flags: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(flags).stdin(Stdio::null()).output().expect("the binary starts")
}
