//! The log: femme writes the lines, and a thread takes them to where they belong.
//!
//! ```text
//!   actors ──log::info!──> femme ──JSON──> stdout, which is a pipe ──> log_writer ──> terminal or file
//! ```
//!
//! femme writes to stdout and panics when that fails; what it writes is fixed when it is compiled. So it gets a stdout
//! that does not fail: the full disk and the closed terminal are met by a thread of their own, which reports the loss
//! and goes on. That thread also renders the pretty format and reopens the file. A reader of the log that stands still
//! loses lines, which are counted, and holds up nobody; only a disk that blocks its writer can, once it is a mebibyte
//! of log behind.

use super::Failure;
use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::stdio::dup2_stdout;
use serde_json::{Map, Value};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};
use trunkline::units::show_error;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Pretty,
    /// One JSON object a line, as femme writes it; `level` is 10 for trace to 50 for error.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Pretty => "pretty",
            Format::Json => "json",
        })
    }
}

/// The running log.
pub(crate) struct Log {
    stdout: OwnedFd,
    is_file: bool,
    writer: JoinHandle<()>,
    reopen: Arc<AtomicBool>,
}

/// Bytes of log that may wait before whoever logs has to.
const PIPE: usize = 1 << 20;

/// Starts the log of this process; once only.
pub(crate) fn start(
    level: LevelFilter,
    format: Format,
    file: Option<PathBuf>,
    worker: Option<usize>,
) -> Result<Log, Failure> {
    let failed = |error: io::Error| {
        Failure::Runtime(format!("cannot start the log: {}", show_error(&error)))
    };
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    let place = match file {
        Some(path) => Place::File { out: open(&path)?, path },
        None => Place::Stdout(File::from(stdout.try_clone().map_err(failed)?)),
    };
    let is_file = matches!(&place, Place::File { .. });
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    // A system that allows less leaves the default of 64 KiB, which works too.
    let _ = fcntl_setpipe_size(&write, PIPE);
    dup2_stdout(&write).map_err(|error| failed(error.into()))?;
    drop(write);
    femme::with_level(level);

    let reopen = Arc::new(AtomicBool::new(false));
    let colour = matches!(&place, Place::Stdout(out) if out.is_terminal())
        && std::env::var_os("NO_COLOR").is_none();
    let writer = LogWriter {
        place,
        format,
        colour,
        worker,
        reopen: Arc::clone(&reopen),
        lost: 0,
        stuck: false,
        cut: false,
    };
    let writer = thread::Builder::new()
        .name("log_writer".into())
        .spawn(move || writer.run(BufReader::new(File::from(read))))
        .map_err(failed)?;
    Ok(Log { stdout, is_file, writer, reopen })
}

impl Log {
    /// Opens the log file anew, so that a renamed one can be compressed; false if the log is not in a file.
    pub(crate) fn reopen(&self) -> bool {
        if self.is_file {
            self.reopen.store(true, Ordering::SeqCst);
            // An empty line makes the writer look, at any log level. It is not written.
            let _ = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
        }
        self.is_file
    }

    /// Where the lines go in the end, for a process that is to write there as well.
    pub(crate) fn stdout(&self) -> io::Result<OwnedFd> {
        self.stdout.try_clone()
    }

    /// Writes what is left.
    pub(crate) fn finish(self) {
        // Nothing can be done about a last line that fails.
        let _ = io::stdout().flush();
        if dup2_stdout(&self.stdout).is_ok() {
            // The pipe has lost its only writer, so the thread comes to its end.
            let _ = self.writer.join();
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| {
        let (path, error) = (path.display(), show_error(&error));
        Failure::Runtime(format!(
            "cannot open the log file '{path}': {error}; choose another --log-file"
        ))
    })
}

enum Place {
    Stdout(File),
    File { out: File, path: PathBuf },
}

struct LogWriter {
    place: Place,
    format: Format,
    colour: bool,
    /// Which of several processes writes here.
    worker: Option<usize>,
    reopen: Arc<AtomicBool>,
    /// Lines that could not be written since the last one that could.
    lost: u64,
    /// Whoever should read the log has stopped: do not wait for it again until it goes on.
    stuck: bool,
    /// The last write ended in the middle of a line.
    cut: bool,
}

impl LogWriter {
    fn run(mut self, mut lines: BufReader<File>) {
        let (mut line, mut text) = (Vec::new(), Vec::new());
        let mut count = 0;
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if self.reopen.swap(false, Ordering::SeqCst) {
                self.write(&mut text, &mut count);
                self.open_anew();
            }
            if self.render(&line, &mut text) {
                count += 1;
            }
            if lines.buffer().is_empty() {
                self.write(&mut text, &mut count);
            }
        }
        self.write(&mut text, &mut count);
    }

    fn open_anew(&mut self) {
        if let Place::File { out, path } = &mut self.place {
            match open(path) {
                Ok(file) => {
                    *out = file;
                    let mut note = self.note("the log is reopened", 30);
                    self.write(&mut note, &mut 1);
                }
                Err(Failure::Usage(text) | Failure::Runtime(text)) => complain(&text),
            }
        }
    }

    fn write(&mut self, text: &mut Vec<u8>, count: &mut u64) {
        if text.is_empty() {
            return;
        }
        let mut whole = Vec::new();
        if self.cut {
            whole.push(b'\n');
        }
        if self.lost > 0 {
            whole.append(&mut self.note(&format!("{} lines of log were lost", self.lost), WARN));
        }
        whole.append(text);
        match self.put(&whole) {
            Ok(()) => (self.lost, self.cut) = (0, false),
            Err(error) => {
                if self.lost == 0 {
                    let error = show_error(&error);
                    complain(&format!(
                        "cannot write the log: {error}; its lines are lost until it can be written again"
                    ));
                }
                self.lost += *count;
            }
        }
        *count = 0;
    }

    /// Writes to the place of the log, but never waits for long: a pager that stands still, or a terminal that was
    /// stopped by ctrl-S, must not stop the proxy once the pipe is full.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let (Place::Stdout(out) | Place::File { out, .. }) = &mut self.place;
        while !bytes.is_empty() {
            let patience = if self.stuck { Duration::ZERO } else { PATIENCE };
            if !is_writable(out, patience)? {
                self.stuck = true;
                return Err(io::Error::other("nobody reads it"));
            }
            self.stuck = false;
            // A pipe that is writable takes this much without a wait (pipe(7), PIPE_BUF).
            let part = &bytes[..bytes.len().min(4096)];
            let count = match out.write(part) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            self.cut = bytes[..count].last().map_or(self.cut, |byte| *byte != b'\n');
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// A line of the log's own, rendered.
    fn note(&self, message: &str, level: u64) -> Vec<u8> {
        let time = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis());
        let line = format!(
            "{{\"level\":{level},\"time\":{time},\"msg\":\"{message}\",\"actor\":\"log_writer\"}}\n"
        );
        let mut text = Vec::new();
        self.render(line.as_bytes(), &mut text);
        text
    }

    /// Renders a line of femme's; false if it is not to be shown.
    fn render(&self, line: &[u8], text: &mut Vec<u8>) -> bool {
        if line == b"\n" {
            return false;
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(line) else {
            // Not femme's: somebody printed.
            text.extend_from_slice(line);
            return true;
        };
        let level = fields.get("level").and_then(Value::as_u64).unwrap_or(0);
        if !fields.contains_key("actor") && level < WARN {
            // The reactor and the executor log their inner life at trace and debug.
            return false;
        }
        if let Some(worker) = self.worker {
            fields.insert("worker".into(), worker.into());
        }
        match self.format {
            Format::Json if self.worker.is_some() => {
                text.extend_from_slice(Value::Object(fields).to_string().as_bytes());
                text.push(b'\n');
            }
            Format::Json => text.extend_from_slice(line),
            Format::Pretty => pretty(level, &mut fields, self.colour, text),
        }
        true
    }
}

const WARN: u64 = 40;

/// How long whoever reads the log may stand still before its lines are dropped instead.
const PATIENCE: Duration = Duration::from_secs(1);

fn is_writable(out: &File, patience: Duration) -> io::Result<bool> {
    let mut asked = [PollFd::new(out, PollFlags::OUT)];
    let patience = Timespec { tv_sec: patience.as_secs() as _, tv_nsec: 0 };
    // A reader that has gone counts as writable too: the write then says so. A signal begins the wait anew.
    Ok(retry_on_intr(|| poll(&mut asked, Some(&patience)))? > 0)
}

/// `2026-11-24T10:00:00.000Z INFO  connection: closed conn=1 client=127.0.0.1:5000`
fn pretty(level: u64, fields: &mut Map<String, Value>, colour: bool, text: &mut Vec<u8>) {
    let (name, tint) = match level {
        10 => ("TRACE", "2"),
        20 => ("DEBUG", "36"),
        30 => ("INFO ", "32"),
        40 => ("WARN ", "33"),
        _ => ("ERROR", "31"),
    };
    let paint = |tint: &str, words: &str| match colour {
        true => format!("\x1b[{tint}m{words}\x1b[0m"),
        false => words.to_string(),
    };
    let millis = fields.get("time").and_then(Value::as_u64).unwrap_or_default();
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis));
    let actor = fields.get("actor").and_then(Value::as_str).unwrap_or("-").to_string();
    let message = fields.get("msg").and_then(Value::as_str).unwrap_or_default().to_string();
    let mut line = format!(
        "{} {} {}: {message}",
        paint("2", &time.to_string()),
        paint(tint, name),
        paint("1", &actor)
    );
    for known in ["level", "time", "actor", "msg"] {
        fields.shift_remove(known);
    }
    for (key, value) in &*fields {
        let value = match value {
            Value::String(words) if words.is_empty() => continue,
            Value::String(word) if !word.contains([' ', '"', '=']) => word.clone(),
            value => value.to_string(),
        };
        line.push_str(&format!(" {}{value}", paint("2", &format!("{key}="))));
    }
    line.push('\n');
    text.extend_from_slice(line.as_bytes());
}

/// The log itself is in trouble: stderr is what is left.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "trunkline: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(format: Format, worker: Option<usize>, line: &str) -> String {
        let stdout = File::options().write(true).open("/dev/null").expect("/dev/null is there");
        let reopen = Arc::default();
        let writer = LogWriter {
            place: Place::Stdout(stdout),
            format,
            colour: false,
            worker,
            reopen,
            lost: 0,
            stuck: false,
            cut: false,
        };
        let mut text = Vec::new();
        writer.render(line.as_bytes(), &mut text);
        String::from_utf8(text).expect("text stays text")
    }

    #[test]
    fn lines() {
        let check =
            |format, line: &str, expected: &str| assert_eq!(render(format, None, line), expected);
        let line = "{\"level\":30,\"time\":1000,\"msg\":\"closed\",\"actor\":\"connection\",\"conn\":7,\"end\":\"a b\",\"cause\":\"\"}\n";
        let pretty = "1970-01-01T00:00:01.000Z INFO  connection: closed conn=7 end=\"a b\"\n";
        check(Format::Pretty, line, pretty);
        check(Format::Json, line, line);
        let of_a_worker = line.replace("}", ",\"worker\":2}");
        assert_eq!(render(Format::Json, Some(2), line), of_a_worker);
        assert!(render(Format::Pretty, Some(2), line).ends_with(" worker=2\n"));
        check(Format::Pretty, "printed by somebody\n", "printed by somebody\n");
        // What makes the writer look at its orders.
        check(Format::Json, "\n", "");
        // Another crate's: only when it is a warning.
        check(Format::Json, "{\"level\":10,\"time\":1,\"msg\":\"poll\"}\n", "");
        let warning = "{\"level\":40,\"time\":1,\"msg\":\"broken\"}\n";
        check(Format::Json, warning, warning);
        check(Format::Pretty, warning, "1970-01-01T00:00:00.001Z WARN  -: broken\n");
    }
}
