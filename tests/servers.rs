//! Real servers and their real clients, with the real binary between them.
//!
//! Each test starts a server of its own and a proxy of its own, on free ports and in a new folder. At its end the proxy
//! is told to stop: it must exit with 0, have aborted nothing, and have called every connection clean.
//!
//! A program that is not installed makes its tests ignored, and stderr says so. With `TRUNKLINE_REQUIRE_SERVERS=1` it
//! makes them fail.

#[allow(dead_code, reason = "the other test crate uses the rest")]
mod binary;
#[allow(dead_code, reason = "the other test crate uses the rest")]
mod folder;
#[path = "servers/clients.rs"]
mod clients;
#[path = "servers/costs.rs"]
mod costs;
#[path = "servers/differ.rs"]
mod differ;
#[cfg(feature = "http")]
#[path = "servers/differ_http.rs"]
mod differ_http;
#[path = "servers/differ_memcached.rs"]
mod differ_memcached;
#[path = "servers/differ_redis.rs"]
mod differ_redis;
#[path = "servers/fake.rs"]
mod fake;
#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../benches/peers/measure.rs"]
mod measure;
#[path = "servers/memcached.rs"]
mod memcached;
#[path = "servers/nginx.rs"]
mod nginx;
#[path = "servers/postgres.rs"]
mod postgres;
#[path = "servers/program.rs"]
mod program;
#[path = "servers/redis.rs"]
mod redis;
#[path = "servers/shared.rs"]
mod shared;
#[cfg(feature = "faults")]
#[path = "servers/toxiproxy.rs"]
mod toxiproxy;

use binary::{Binary, PATIENCE};
use folder::Folder;
use libtest_mimic::{Arguments, Trial};
use program::{Program, find, program, succeed};
use rustix::process::{Resource, Signal, geteuid, getrlimit, setrlimit};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

/// What a test is called, what it runs, and the programs that it cannot do without.
type Entry = (&'static str, fn(), &'static [&'static str]);

const TESTS: &[Entry] = &[
    ("redis::commands", redis::commands, &["redis-server", "redis-cli"]),
    ("redis::a_megabyte", redis::a_megabyte, &["redis-server", "redis-cli"]),
    ("redis::pipelined", redis::pipelined, &["redis-server", "redis-cli"]),
    ("redis::published", redis::published, &["redis-server", "redis-cli"]),
    ("redis::unix_socket", redis::unix_socket, &["redis-server", "redis-cli"]),
    ("redis::benchmark", redis::benchmark, &["redis-server", "redis-benchmark"]),
    ("costs::system_calls", costs::system_calls, &["redis-server", "redis-benchmark", "strace"]),
    ("costs::memory", costs::memory, &["redis-server"]),
    ("fake::redis", fake::redis, &["redis-cli", "redis-benchmark"]),
    #[cfg(feature = "http")]
    ("fake::http", fake::http, &["curl"]),
    ("nginx::download", nginx::download, &["nginx", "curl"]),
    ("nginx::upload", nginx::upload, &["nginx", "curl"]),
    ("nginx::half_closed", nginx::half_closed, &["nginx", "nc"]),
    ("nginx::load", nginx::load, &["nginx", "wrk"]),
    ("postgres::load", postgres::load, &["initdb", "postgres", "pgbench", "setpriv"]),
    ("postgres::error", postgres::error, &["initdb", "postgres", "psql", "setpriv"]),
    ("postgres::last_words", postgres::last_words, &["initdb", "postgres", "psql", "setpriv"]),
    ("postgres::cancel", postgres::cancel, &["initdb", "postgres", "psql", "setpriv"]),
    #[cfg(feature = "faults")]
    ("toxiproxy::python", toxiproxy::python, &["redis-server", "python3", "toxiproxy-python"]),
    #[cfg(feature = "faults")]
    ("toxiproxy::node", toxiproxy::node, &["redis-server", "node", "toxiproxy-node-client"]),
    #[cfg(feature = "faults")]
    ("toxiproxy::same_again", toxiproxy::same_again, &["redis-server"]),
];

/// How clients may share trunks: a mode, and the flags that it needs besides.
#[derive(Clone, Copy)]
struct Mode(&'static str, &'static [&'static str]);

const MODES: &[Mode] = &[Mode("pool", &[]), Mode("mux", &[])];

/// The same, of a test that runs once in each of these modes.
type SharedEntry = (&'static str, fn(Mode), &'static [&'static str]);

const SHARED: &[SharedEntry] = &[
    ("redis", shared::redis, &["redis-server", "redis-cli"]),
    ("redis_benchmark", shared::redis_benchmark, &["redis-server", "redis-cli", "redis-benchmark"]),
    ("redis_published", shared::redis_published, &["redis-server", "redis-cli"]),
    ("redis_py", shared::redis_py, &["redis-server", "python3", "redis-py"]),
    ("ioredis", shared::ioredis, &["redis-server", "node", "ioredis"]),
    ("pymemcache", shared::pymemcache, &["memcached", "python3", "pymemcache"]),
    ("memccapable", shared::memccapable, &["memcached", "memccapable"]),
    ("same_as_memcached", differ_memcached::replies, &["memcached"]),
    ("refused_before_memcached", differ_memcached::refused, &["memcached"]),
    ("refused_before_redis", differ_redis::refused, &["redis-server"]),
    ("same_as_redis", differ_redis::replies, &["redis-server"]),
    ("a_thousand_clients", shared::a_thousand_clients, &["redis-server", "redis-cli"]),
];

/// Of these, HTTP is for one client at a time on each trunk.
const LEASED: &[SharedEntry] = &[
    #[cfg(feature = "http")]
    ("curl", shared::curl, &["nginx", "curl"]),
    #[cfg(feature = "http")]
    ("upload_refused", shared::upload_refused, &["nginx", "curl"]),
    #[cfg(feature = "http")]
    ("http_load", shared::http_load, &["nginx", "wrk", "hey"]),
    #[cfg(feature = "http")]
    ("requests", shared::requests, &["nginx", "python3", "requests"]),
    #[cfg(feature = "http")]
    ("httpx", shared::httpx, &["nginx", "python3", "httpx"]),
    #[cfg(feature = "http")]
    ("websockets", shared::websockets, &["python3", "websockets"]),
    #[cfg(feature = "http")]
    ("same_as_nginx", differ_http::of_nginx, &["nginx"]),
    #[cfg(feature = "http")]
    ("same_as_another_http", differ_http::of_another, &["python3"]),
];

/// Debian's package of each program.
const PACKAGES: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("strace", "strace"),
    ("memcached", "memcached"),
    ("memccapable", "libmemcached-tools"),
    ("nginx", "nginx"),
    ("curl", "curl"),
    ("nc", "netcat-openbsd"),
    ("wrk", "wrk"),
    ("hey", "hey"),
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("pgbench", "postgresql"),
    ("psql", "postgresql-client"),
    ("setpriv", "util-linux"),
    ("python3", "python3"),
    ("node", "nodejs"),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = env::var_os("TRUNKLINE_REQUIRE_SERVERS").is_some_and(|value| value == "1");
    let mut told = BTreeSet::new();
    let mut trial = |name: String, programs: &[&str], test: Box<dyn FnOnce() + Send>| {
        let missing: Vec<String> = programs.iter().filter_map(|program| absent(program)).collect();
        let ignored = !required && !missing.is_empty();
        told.extend(missing.iter().filter(|_| ignored).cloned());
        let run = move || match missing.into_iter().next() {
            Some(absent) => Err(absent.into()),
            None => {
                test();
                Ok(())
            }
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let mut trials = Vec::new();
    for &(name, test, programs) in TESTS {
        trials.push(trial(name.to_string(), programs, Box::new(test)));
    }
    for &mode in MODES {
        let http = if mode.0 == "mux" { &[] } else { LEASED };
        for &(name, test, programs) in SHARED.iter().chain(http) {
            let test = move || test(mode);
            trials.push(trial(format!("{}::{name}", mode.0), programs, Box::new(test)));
        }
    }
    for absent in told.iter().filter(|_| !arguments.list) {
        // Stderr that is closed is a way of not wanting to know.
        let _ = writeln!(io::stderr(), "skipped: {absent}");
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What to say of a program that is not there.
fn absent(program: &str) -> Option<String> {
    if let Some((there, registry)) = clients::client(program) {
        let words = || format!("{program} is not installed (tests/run does it, from {registry})");
        return (!there).then(words);
    }
    let package = PACKAGES.iter().find(|(name, _)| *name == program);
    let (_, package) = package.expect("every program of a test has its package in the list");
    let words = || format!("{program} is not installed (Debian package {package})");
    find(program).is_none().then(words)
}

/// A server on a free port of its own, with a folder of its own.
struct Server {
    // Before the folder, so that it has ended when the folder goes.
    _program: Program,
    folder: Folder,
    port: u16,
}

impl Server {
    /// Starts what `command` makes of a port and a folder, and waits until it says that it is `ready`.
    fn start(ready: &str, command: impl Fn(u16, &Path) -> Command) -> Server {
        let folder = Folder::new();
        // Between our look for a free port and the server's, somebody else may have taken it.
        for _ in 0..10 {
            let port = free_port();
            let program = Program::start(command(port, &folder.0).current_dir(&folder.0), "");
            let is_ready = program.until(&format!("{ready:?}"), |printed| {
                let said = printed.all().to_lowercase();
                let taken = said.contains("address already in use").then_some(false);
                taken.or(said.contains(ready).then_some(true))
            });
            if is_ready {
                return Server { _program: program, folder, port };
            }
        }
        panic!("ten free ports were taken before the server could have them");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    listener.local_addr().expect("it was bound").port()
}

/// The binary that is tested.
struct Proxy {
    binary: Binary,
    port: u16,
}

impl Proxy {
    fn before(backend: &str) -> Proxy {
        Proxy::with(backend, &[])
    }

    /// Its clients share trunks.
    fn sharing(mode: Mode, framing: &str, backend: &str) -> Proxy {
        Proxy::sharing_with(mode, framing, backend, &[])
    }

    fn sharing_with(mode: Mode, framing: &str, backend: &str, more: &[&str]) -> Proxy {
        let flags = ["--mode", mode.0, "--framing", framing, "--queue-timeout", "30s"];
        Proxy::with(backend, &[&flags[..], mode.1, more].concat())
    }

    fn with(backend: &str, more: &[&str]) -> Proxy {
        // A busy machine is no reason to give a backend up, nor a failed test to wait for its clients. More connections
        // than the machine allows open files for would be warned of.
        let mut flags =
            vec!["--backend", backend, "--connect-timeout", "30s", "--drain-timeout", "5s"];
        if !more.contains(&"--max-conn") {
            flags.extend(["--max-conn", "100"]);
        }
        let binary = Binary::start(&[&flags[..], more].concat());
        let port = binary.address().port();
        Proxy { binary, port }
    }

    /// Tells it to stop, and checks that it does so in good order.
    fn stop(self) -> AccessLog {
        let stopped = self.binary.stop();
        assert_eq!((stopped.status.code(), stopped.stderr.as_str()), (Some(0), ""));
        let mut lines = stopped.log;
        let last = lines.last().cloned().expect("the proxy has logged");
        const WARN: u64 = 40;
        let complaint = lines.iter().find(|line| line["level"].as_u64() >= Some(WARN));
        assert_eq!(complaint, None, "the proxy warned");
        lines.retain(|line| line["msg"] == "closed");
        AccessLog { closed: lines, last }
    }
}

/// What the proxy says of the connections that it has carried.
struct AccessLog {
    closed: Vec<Value>,
    last: Value,
}

impl AccessLog {
    /// Checks that every connection has ended cleanly; returns how many there were.
    fn clean(&self) -> usize {
        for line in &self.closed {
            assert_eq!(line["clean"], true, "not a clean end: {line}");
        }
        let message = self.last["msg"].as_str().unwrap_or_default();
        assert!(message.ends_with(" and 0 were aborted"), "the last line is {}", self.last);
        self.closed.len()
    }

    /// Checks that no connection has ended otherwise than cleanly or by the client's reset.
    fn clean_or_left_by_the_client(&self) {
        for line in &self.closed {
            let by_client = line["end"].as_str().is_some_and(|end| end.starts_with("client/"));
            assert!(line["clean"] == true || by_client, "neither clean nor the client's: {line}");
        }
        let message = self.last["msg"].as_str().unwrap_or_default();
        assert!(message.ends_with(" were aborted"), "the last line is {}", self.last);
    }
}

/// Text of so many bytes, in which no part is like the one before.
fn text(bytes: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    (0..bytes).map(|_| next()).collect()
}
