//! The flags of the proxy, and the settings that they make.

use super::Failure;
use super::logging::Format;
use super::pooling::{self, Mode};
use argh::FromArgs;
use log::LevelFilter;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trunkline::framing::LengthType;
use trunkline::units::{self, duration, show_duration};
use trunkline::{Config, Endpoint, Io, Keepalive};

/// A TCP proxy in which every socket direction is an actor.
#[derive(FromArgs)]
#[argh(
    note = "Commands: `{command_name} demo` shows the proxy at work and needs nothing else;\n`{command_name} check [flags]` prints the effective settings and the memory bound, and opens no socket;\n`{command_name} fake` is a backend that behaves, or misbehaves, in a known way;\n`{command_name} faults` puts faults on real traffic, by Toxiproxy's API.",
    note = "ADDR is HOST:PORT, [IPV6]:PORT or unix:/PATH. TIME has a unit: 200ms, 30s, 5m, 1h.\nSIGTERM and SIGINT drain, a second one aborts; SIGHUP reopens the log file, or drains if there is none.",
    example = "In front of Redis:\n$ {command_name} --listen 127.0.0.1:9509 --backend 127.0.0.1:6379",
    example = "In front of two servers, with a report every ten seconds:\n$ {command_name} --listen [::]:80 --backend 10.0.0.1:80 --backend 10.0.0.2:80 --report 10s",
    error_code(0, "Every connection ended by itself; or check: the settings are valid."),
    error_code(1, "The system did not allow it, or connections had to be aborted while draining."),
    error_code(2, "A flag is wrong.")
)]
pub(crate) struct Flags {
    /// where clients connect; repeatable (default 127.0.0.1:9509)
    #[argh(option, arg_name = "ADDR")]
    listen: Vec<Endpoint>,

    /// where their bytes go; repeatable: taken in turn, and the next one if one does not accept (default 127.0.0.1:9501)
    #[argh(option, arg_name = "ADDR")]
    backend: Vec<Endpoint>,

    /// tunnel: each client has a backend connection of its own; pool: they share a few, one request at a time on each; mux: many requests at a time (default tunnel)
    #[argh(option, arg_name = "MODE", from_str_fn(pooling::mode), default = "Mode::Tunnel")]
    pub(crate) mode: Mode,

    /// pool, mux: where a request and a reply end
    #[argh(option, arg_name = "NAME")]
    pub(crate) framing: Option<String>,

    /// pool, mux: the longest request or reply of a framing (default 2m)
    #[argh(option, arg_name = "SIZE", from_str_fn(units::size))]
    pub(crate) max_frame: Option<usize>,

    /// pool, mux: framing eof, the bytes that end a request; such as '\r\n\r\n', up to 8 (default '\r\n')
    #[argh(option, arg_name = "BYTES")]
    pub(crate) eof: Option<String>,

    /// pool, mux: framing length, the type of the length field, by its letter in PHP's pack: c C s S n N v V l L q Q J P (default N)
    #[argh(option, arg_name = "LETTER")]
    pub(crate) length_type: Option<LengthType>,

    /// pool, mux: framing length, where the length field begins (default 0)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) length_offset: Option<usize>,

    /// pool, mux: framing length, where what is counted begins (default 4)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) body_offset: Option<usize>,

    /// pool, mux: the promise that line, eof and length need
    #[argh(switch)]
    pub(crate) one_reply_per_request: bool,

    /// pool, mux: backend connections at most, apart from pinned ones; in mux those that are shared, with up to 8 besides for requests that cannot share (default pool 8, mux 1)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) trunks: Option<usize>,

    /// pool, mux: how long a request may wait for one of them (default 5s)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    pub(crate) queue_timeout: Option<Duration>,

    /// pool, mux: how many requests may wait (default 1024)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) max_queue: Option<usize>,

    /// pool, mux: how long a backend connection may be silent that owes a reply, or never (default 30s)
    #[argh(option, arg_name = "TIME", from_str_fn(limit))]
    pub(crate) reply_timeout: Option<Limit>,

    /// pool, mux: backend connections that are kept though nobody needs them (default 0)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) min_trunks: Option<usize>,

    /// pool, mux: clients at most that have a backend connection of their own, for what they left there or wait for (default 1000)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) max_pinned: Option<usize>,

    /// pool, mux: replace a backend connection that is so old, or never (default 1h)
    #[argh(option, arg_name = "TIME", from_str_fn(limit))]
    pub(crate) trunk_lifetime: Option<Limit>,

    /// mux: replies that one client may await at once (default 32)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    pub(crate) credit: Option<usize>,

    /// mux: bytes of replies that may wait for a client; one that is further behind is closed (default 16m)
    #[argh(option, arg_name = "SIZE", from_str_fn(units::size))]
    pub(crate) reply_buffer: Option<usize>,

    /// pool, mux: log a line for each request: how long it waited, was bound to a backend connection, and took
    #[argh(switch)]
    pub(crate) log_requests: bool,

    /// pool, mux: close a backend connection that nobody has used for so long (default 60s)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    pub(crate) trunk_idle: Option<Duration>,

    /// how long a backend may take to accept (default 200ms)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    connect_timeout: Option<Duration>,

    /// threads that carry connections (default 1; more are slower unless one is not enough)
    #[argh(option, arg_name = "N", from_str_fn(carriers), default = "1")]
    pub(crate) threads: usize,

    /// processes of one thread each that share the listening sockets; what is set above and below holds for each (default 1: this process alone)
    #[argh(option, arg_name = "N", from_str_fn(carriers), default = "1")]
    pub(crate) workers: usize,

    /// which of them this is
    #[argh(option, arg_name = "N", from_str_fn(whole), hidden_help)]
    pub(crate) worker: Option<usize>,

    /// clients that the kernel keeps waiting for accept (default 128)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    backlog: Option<u32>,

    /// connections carried at once; the next client waits in the backlog (default 10000)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    max_conn: Option<usize>,

    /// how often deadlines are looked at; one may be met two ticks late (default 1s)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    tick: Option<Duration>,

    /// end a connection on which nothing has moved for this long (default 1h)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    idle_timeout: Option<Duration>,

    /// the same after one side has ended its sending (default 60s)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    half_close_timeout: Option<Duration>,

    /// how long connections may go on after SIGTERM or SIGINT (default 30s)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    drain_timeout: Option<Duration>,

    /// how sockets are waited for: uring (io_uring; Linux 6.1), epoll (of its own; Linux), std (async-std's reactor), or auto: the first of these that there is (default auto)
    #[argh(option, arg_name = "NAME", from_str_fn(io_name))]
    io: Option<Io>,

    /// TCP keepalive probes on both sides: after this silence, this far apart, this many (default off)
    #[argh(option, arg_name = "IDLE[,INTERVAL,COUNT]", from_str_fn(keepalive))]
    keepalive: Option<Keepalive>,

    /// permissions of the file of a unix socket that is listened on, in octal (default: as the umask says)
    #[argh(option, arg_name = "MODE", from_str_fn(file_mode))]
    unix_mode: Option<u32>,

    /// log a report this often: connections, bytes, refused, mailbox high-water marks (default off)
    #[argh(option, arg_name = "TIME", from_str_fn(duration))]
    report: Option<Duration>,

    /// write the log here instead of to stdout; reopened on SIGHUP
    #[argh(option, arg_name = "PATH")]
    pub(crate) log_file: Option<PathBuf>,

    /// error, warn, info, debug or trace; trace shows every step of every actor (default info)
    #[argh(option, arg_name = "LEVEL", from_str_fn(level), default = "LevelFilter::Info")]
    pub(crate) log_level: LevelFilter,

    /// pretty or json (default pretty on a terminal, else json)
    #[argh(option, arg_name = "FORMAT", from_str_fn(format))]
    pub(crate) log_format: Option<Format>,
}

impl Flags {
    pub(crate) fn format(&self) -> Format {
        format_for(self.log_format, self.log_file.as_deref())
    }

    /// The settings, with the defaults for what was not given.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::default();
        if !self.listen.is_empty() {
            config.listen = self.listen.clone();
        }
        if !self.backend.is_empty() {
            config.backends = self.backend.clone();
        }
        let set = |setting: &mut Duration, given: Option<Duration>| {
            *setting = given.unwrap_or(*setting);
        };
        set(&mut config.connect_timeout, self.connect_timeout);
        set(&mut config.tick, self.tick);
        set(&mut config.idle_timeout, self.idle_timeout);
        set(&mut config.half_close_timeout, self.half_close_timeout);
        set(&mut config.drain_timeout, self.drain_timeout);
        config.backlog = self.backlog.unwrap_or(config.backlog);
        config.max_conn = self.max_conn.unwrap_or(config.max_conn);
        config.io = self.io.unwrap_or(config.io);
        config.keepalive = self.keepalive;
        config.unix_mode = self.unix_mode;
        config.report = self.report;
        config.check().map_err(Failure::Usage)?;
        Ok(config)
    }
}

/// The log's format, if none was asked for: a terminal has a person before it, and all else a program.
pub(crate) fn format_for(asked: Option<Format>, file: Option<&Path>) -> Format {
    let person = file.is_none() && io::stdout().is_terminal();
    asked.unwrap_or(if person { Format::Pretty } else { Format::Json })
}

pub(crate) fn whole<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number in range; write for example 128"))
}

pub(crate) fn carriers(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("0 would carry nothing; use 1 or more".into()),
        // Each has a stack; a number like this is a slip, not a wish.
        count if count > 1024 => {
            Err(format!("{count} are more than any machine needs; use at most 1024"))
        }
        count => Ok(count),
    }
}

/// A time, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == "never" { Ok(Limit(None)) } else { duration(text).map(|time| Limit(Some(time))) }
}

fn io_name(text: &str) -> Result<Io, String> {
    match text {
        "auto" => Ok(Io::Auto),
        "epoll" => Ok(Io::Epoll),
        "std" => Ok(Io::Std),
        "uring" => Ok(Io::Uring),
        _ => Err(format!("{text:?} is no way to wait for sockets; use auto, uring, epoll or std")),
    }
}

fn keepalive(text: &str) -> Result<Keepalive, String> {
    let whole_seconds = |text: &str| match duration(text)? {
        time if time.as_secs() == 0 || time.subsec_nanos() != 0 => Err(format!(
            "{} is not a whole number of seconds, which is all that the system counts",
            show_duration(time)
        )),
        // The kernel's own limit (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL).
        time if time.as_secs() > 32767 => {
            Err(format!("{} is longer than the system's limit of 32767s", show_duration(time)))
        }
        time => Ok(time),
    };
    let mut parts = text.split(',');
    let mut next = || parts.next();
    let idle = whole_seconds(next().unwrap_or_default())?;
    let interval = next().map(whole_seconds).transpose()?;
    let count = match next().map(whole::<u32>).transpose()? {
        // The kernel's own limit (MAX_TCP_KEEPCNT).
        Some(count) if !(1..=127).contains(&count) => {
            return Err(format!("{count} probes are out of range; use 1 to 127"));
        }
        count => count,
    };
    if next().is_some() {
        return Err(format!(
            "{text:?} has too many parts; write IDLE,INTERVAL,COUNT such as 60s,10s,3"
        ));
    }
    Ok(Keepalive { idle, interval, count })
}

fn file_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err(format!("{text:?} is not a file mode; write three octal digits such as 660")),
    }
}

pub(crate) fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err(format!("{text:?} is not a level; use error, warn, info, debug or trace")),
    }
}

pub(crate) fn format(text: &str) -> Result<Format, String> {
    match text {
        "pretty" => Ok(Format::Pretty),
        "json" => Ok(Format::Json),
        _ => Err(format!("{text:?} is not a format; use pretty or json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Result<Config, String> {
        let flags = Flags::from_args(&["trunkline"], words).map_err(|exit| exit.output)?;
        flags.config().map_err(|failure| match failure {
            Failure::Usage(text) | Failure::Runtime(text) => text,
        })
    }

    #[test]
    fn no_flags_are_the_defaults_of_the_library() {
        assert_eq!(config(&[]), Ok(Config::default()));
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let words = "--listen [::1]:1 --listen unix:/tmp/x --backend b:2 --backend 127.0.0.1:3 \
            --connect-timeout 1s --backlog 5 --max-conn 6 --tick 7ms --idle-timeout 8s \
            --half-close-timeout 9s --drain-timeout 10s --keepalive 11s,12s,13 --unix-mode 660 \
            --report 14s --io std";
        let words: Vec<&str> = words.split_whitespace().collect();
        let expected = Config {
            listen: vec!["[::1]:1".parse().expect("valid"), "unix:/tmp/x".parse().expect("valid")],
            backends: vec!["b:2".parse().expect("valid"), "127.0.0.1:3".parse().expect("valid")],
            connect_timeout: Duration::from_secs(1),
            backlog: 5,
            max_conn: 6,
            tick: Duration::from_millis(7),
            idle_timeout: Duration::from_secs(8),
            half_close_timeout: Duration::from_secs(9),
            drain_timeout: Duration::from_secs(10),
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(11),
                interval: Some(Duration::from_secs(12)),
                count: Some(13),
            }),
            report: Some(Duration::from_secs(14)),
            unix_mode: Some(0o660),
            io: Io::Std,
            ..Config::default()
        };
        assert_eq!(config(&words), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_right_form() {
        let check = |words: &[&str], part: &str| {
            let error = config(words).expect_err(part);
            assert!(error.contains(part), "{words:?}: {error}");
        };
        check(&["--idle-timeout", "10"], "write 10ms, 10s, 10m or 10h");
        check(&["--listen", "9509"], "has no port");
        check(&["--max-conn", "many"], "not a whole number");
        check(&["--max-conn", "-1"], "not a whole number");
        check(&["--threads", "0"], "use 1 or more");
        check(&["--threads", "9999"], "at most 1024");
        check(&["--keepalive", "1500ms"], "whole number of seconds");
        check(&["--keepalive", "1s,2s,0"], "use 1 to 127");
        check(&["--keepalive", "1s,2s,3,4"], "too many parts");
        check(&["--keepalive", "1d"], "32767s");
        check(&["--io", "poll"], "use auto, uring, epoll or std");
        check(&["--unix-mode", "999"], "three octal digits");
        check(&["--unix-mode", "+77"], "three octal digits");
        check(&["--log-level", "loud"], "error, warn, info");
        check(&["--log-format", "xml"], "pretty or json");
        check(&["--lisen", "x:1"], "--listen");
        check(&["--tick"], "No value provided");
    }
}
