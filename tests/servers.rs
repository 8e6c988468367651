//! Real servers and their real clients, with the real binary between them.
//!
//! Each test starts a server of its own and a proxy of its own, on free ports and in a new folder. At its end the proxy
//! is told to stop: it must exit with 0, have aborted nothing, and have called every connection clean.
//!
//! A program that is not installed makes its tests ignored, and stderr says so. With `TRUNKLINE_REQUIRE_SERVERS=1` it
//! makes them fail.

use libtest_mimic::{Arguments, Trial};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

/// What a test is called, what it runs, and the programs that it cannot do without.
type Entry = (&'static str, fn(), &'static [&'static str]);

const TESTS: &[Entry] = &[
    ("redis::commands", redis::commands, &["redis-server", "redis-cli"]),
    ("redis::a_megabyte", redis::a_megabyte, &["redis-server", "redis-cli"]),
    ("redis::pipelined", redis::pipelined, &["redis-server", "redis-cli"]),
    ("redis::published", redis::published, &["redis-server", "redis-cli"]),
    ("redis::unix_socket", redis::unix_socket, &["redis-server", "redis-cli"]),
    ("redis::benchmark", redis::benchmark, &["redis-server", "redis-benchmark"]),
    ("nginx::download", nginx::download, &["nginx", "curl"]),
    ("nginx::upload", nginx::upload, &["nginx", "curl"]),
    ("nginx::half_closed", nginx::half_closed, &["nginx", "nc"]),
    ("nginx::load", nginx::load, &["nginx", "wrk"]),
    ("postgres::load", postgres::load, &["initdb", "postgres", "pgbench", "setpriv"]),
    ("postgres::error", postgres::error, &["initdb", "postgres", "psql", "setpriv"]),
    ("postgres::last_words", postgres::last_words, &["initdb", "postgres", "psql", "setpriv"]),
    ("postgres::cancel", postgres::cancel, &["initdb", "postgres", "psql", "setpriv"]),
];

/// Debian's package of each program.
const PACKAGES: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx"),
    ("curl", "curl"),
    ("nc", "netcat-openbsd"),
    ("wrk", "wrk"),
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("pgbench", "postgresql"),
    ("psql", "postgresql-client"),
    ("setpriv", "util-linux"),
];

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = env::var_os("TRUNKLINE_REQUIRE_SERVERS").is_some_and(|value| value == "1");
    let missing = |programs: &'static [&'static str]| {
        programs.iter().filter(|program| find(program).is_none()).map(|program| absent(program))
    };
    if !required && !arguments.list {
        let told: BTreeSet<String> = TESTS.iter().flat_map(|test| missing(test.2)).collect();
        for absent in told {
            // Stderr that is closed is a way of not wanting to know.
            let _ = writeln!(io::stderr(), "skipped: {absent}");
        }
    }
    let trial = |&(name, test, programs): &Entry| {
        let run = move || match missing(programs).next() {
            Some(absent) => Err(absent.into()),
            None => {
                test();
                Ok(())
            }
        };
        Trial::test(name, run).with_ignored_flag(!required && missing(programs).next().is_some())
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

fn absent(program: &str) -> String {
    let package = PACKAGES.iter().find(|(name, _)| *name == program);
    let (_, package) = package.expect("every program of a test has its package in the list");
    format!("{program} is not installed (Debian package {package})")
}

mod redis {
    use super::*;

    fn server() -> Server {
        Server::start("ready to accept connections", |port, folder| {
            let mut command = program("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.arg("--dir").arg(folder);
            command
        })
    }

    fn cli(proxy: &Proxy) -> Command {
        let mut command = program("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
        command
    }

    fn ask(proxy: &Proxy, words: &[&str]) -> String {
        succeed(cli(proxy).args(words), "").stdout()
    }

    pub(crate) fn commands() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        assert_eq!(ask(&proxy, &["SET", "name", "trunkline"]), "OK\n");
        assert_eq!(ask(&proxy, &["GET", "name"]), "trunkline\n");
        assert_eq!(ask(&proxy, &["INCR", "count"]), "1\n");
        assert_eq!(proxy.stop().clean(), 3);
    }

    pub(crate) fn a_megabyte() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let value = text(1 << 20);
        let set = succeed(cli(&proxy).args(["-x", "SET", "big"]), &value);
        assert_eq!(set.stdout(), "OK\n");
        let got = ask(&proxy, &["GET", "big"]);
        assert!(got.trim_end() == value, "got {} bytes that are not those set", got.len());
        assert_eq!(proxy.stop().clean(), 2);
    }

    pub(crate) fn pipelined() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let commands: String = (0..10_000).map(|n| format!("SET key{n} value{n}\r\n")).collect();
        let said = succeed(cli(&proxy).arg("--pipe"), &commands).stdout();
        assert!(said.contains("errors: 0, replies: 10000"), "redis-cli --pipe said: {said}");
        assert_eq!(ask(&proxy, &["DBSIZE"]), "10000\n");
        assert_eq!(proxy.stop().clean(), 2);
    }

    pub(crate) fn published() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let subscriber = Program::start(cli(&proxy).args(["SUBSCRIBE", "news"]), "");
        subscriber.until_it_says("subscribe\nnews\n1\n");
        assert_eq!(ask(&proxy, &["PUBLISH", "news", "a trunk is up"]), "1\n");
        subscriber.until_it_says("message\nnews\na trunk is up\n");
        // It would wait for news for ever. Its socket is closed with nothing unread, so that is a clean end too.
        subscriber.signal(Signal::INT);
        subscriber.end();
        assert_eq!(proxy.stop().clean(), 2);
    }

    pub(crate) fn unix_socket() {
        let server = Server::start("ready to accept connections", |_, folder| {
            let mut command = program("redis-server");
            command.args(["--port", "0", "--save", ""]).arg("--dir").arg(folder);
            command.arg("--unixsocket").arg(folder.join("redis.sock"));
            command
        });
        let socket = server.folder.0.join("redis.sock");
        let proxy = Proxy::before(&format!("unix:{}", socket.display()));
        let value = text(100_000);
        assert_eq!(ask(&proxy, &["SET", "name", &value]), "OK\n");
        assert_eq!(ask(&proxy, &["GET", "name"]), format!("{value}\n"));
        assert_eq!(proxy.stop().clean(), 2);
    }

    pub(crate) fn benchmark() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let mut command = program("redis-benchmark");
        command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
        command.args([
            "-n",
            "5000",
            "-c",
            "20",
            "-P",
            "16",
            "-q",
            "-t",
            "set,get,lpush,lrange_100",
        ]);
        let ended = succeed(&mut command, "");
        assert_eq!(ended.stderr(), "", "redis-benchmark complains");
        assert!(ended.stdout().contains("requests per second"), "it said: {}", ended.stdout());
        assert!(proxy.stop().clean() > 80);
    }
}

mod nginx {
    use super::*;

    fn server() -> Server {
        // Its notice of the event method comes after it has bound its port.
        Server::start("event method", |port, folder| {
            let place = folder.display();
            let make = |name: &str| {
                fs::create_dir_all(folder.join(name)).expect("the test's folder can be written to");
            };
            make("www/uploaded");
            fs::write(folder.join("www/small"), "a small file\n").expect("it can be written to");
            fs::write(folder.join("www/big"), text(10 << 20)).expect("it can be written to");
            // One process, so that ending it ends nginx.
            let config = format!(
                "daemon off; master_process off; pid {place}/pid; error_log stderr notice;
                events {{ worker_connections 256; }}
                http {{
                    access_log off; client_max_body_size 20m;
                    client_body_temp_path {place}/1; proxy_temp_path {place}/2;
                    fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
                    server {{
                        listen 127.0.0.1:{port}; root {place}/www;
                        location /uploaded/ {{ dav_methods PUT; }}
                    }}
                }}"
            );
            fs::write(folder.join("conf"), config).expect("the test's folder can be written to");
            let mut command = program("nginx");
            command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf"));
            command
        })
    }

    fn curl(proxy: &Proxy, path: &str) -> Command {
        let mut command = program("curl");
        // -q: not with the settings of whoever runs this.
        command.args(["-q", "--silent", "--show-error", "--fail", "--noproxy", "*"]);
        command.arg(format!("http://127.0.0.1:{}/{path}", proxy.port));
        command
    }

    fn assert_same(one: &Path, other: &Path) {
        let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert!(read(one) == read(other), "{one:?} and {other:?} differ");
    }

    pub(crate) fn download() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        assert_eq!(succeed(&mut curl(&proxy, "small"), "").stdout(), "a small file\n");
        let got = server.folder.0.join("got");
        succeed(curl(&proxy, "big").arg("--output").arg(&got), "");
        assert_same(&got, &server.folder.0.join("www/big"));
        assert_eq!(proxy.stop().clean(), 2);
    }

    pub(crate) fn upload() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let www = server.folder.0.join("www");
        succeed(curl(&proxy, "uploaded/big").arg("--upload-file").arg(www.join("big")), "");
        assert_same(&www.join("uploaded/big"), &www.join("big"));
        assert_eq!(proxy.stop().clean(), 1);
    }

    /// The client ends its sending behind the request. (A small one: nginx itself cuts off what it cannot send at once
    /// to such a client.)
    pub(crate) fn half_closed() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let mut nc = program("nc");
        nc.args(["-N", "127.0.0.1", &proxy.port.to_string()]);
        let reply = succeed(&mut nc, "GET /small HTTP/1.0\r\n\r\n").stdout();
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply has a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "the reply begins {head}");
        assert_eq!(body, "a small file\n");
        assert_eq!(proxy.stop().clean(), 1);
    }

    pub(crate) fn load() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let mut wrk = program("wrk");
        wrk.args(["--threads", "1", "--connections", "20", "--duration", "1s"]);
        wrk.arg(format!("http://127.0.0.1:{}/small", proxy.port));
        let said = succeed(&mut wrk, "").stdout();
        assert!(said.contains("requests in"), "wrk said: {said}");
        assert!(!said.contains("Socket errors"), "wrk said: {said}");
        assert!(!said.contains("Non-2xx"), "wrk said: {said}");
        // wrk leaves when its time is up. Replies are on their way to it then, which its kernel answers with a reset.
        proxy.stop().clean_or_left_by_the_client();
    }
}

mod postgres {
    use super::*;

    fn server() -> Server {
        Server::start("ready to accept connections", |port, folder| {
            let data = folder.join("data");
            if !data.exists() {
                if geteuid().is_root() {
                    succeed(Command::new("chown").arg("postgres").arg(folder), "");
                }
                let mut initdb = as_postgres("initdb");
                initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--locale=C"]);
                succeed(initdb.arg("--pgdata").arg(&data).current_dir(folder), "");
            }
            let mut command = as_postgres("postgres");
            command.args(["-F", "-p", &port.to_string(), "-c", "unix_socket_directories="]);
            command.args(["-c", "listen_addresses=127.0.0.1"]).arg("-D").arg(data);
            command
        })
    }

    /// It refuses to run as root.
    fn as_postgres(name: &str) -> Command {
        let wanted = program(name);
        if !geteuid().is_root() {
            return wanted;
        }
        let mut command = program("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg(wanted.get_program());
        command
    }

    fn psql(proxy: &Proxy, statement: &str) -> Command {
        let mut command = program("psql");
        // -X: not with the settings of whoever runs this.
        command.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
        command.args(["-U", "postgres", "-d", "postgres", "-c", statement]);
        command
    }

    fn fail(proxy: &Proxy, statement: &str) -> String {
        let ended = Program::start(&mut psql(proxy, statement), "").end();
        assert!(!ended.status.success(), "it was expected to fail: {ended}");
        ended.stderr()
    }

    pub(crate) fn load() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let pgbench = |words: &[&str]| {
            let mut command = program("pgbench");
            command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-U", "postgres"]);
            succeed(command.args(words).arg("postgres"), "")
        };
        pgbench(&["--initialize", "--quiet"]);
        let said = pgbench(&["--client=4", "--transactions=50"]).stdout();
        assert!(said.contains("actually processed: 200/200"), "pgbench said: {said}");
        // Version 14 and older do not count them; they abort at the first.
        let failed = said.lines().find(|line| line.contains("failed transactions"));
        assert!(failed.is_none_or(|line| line.contains(": 0 ")), "pgbench said: {said}");
        assert!(proxy.stop().clean() >= 5);
    }

    pub(crate) fn error() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let said = fail(&proxy, "select 1/0");
        assert!(said.contains("ERROR:  division by zero"), "psql said: {said}");
        assert_eq!(succeed(&mut psql(&proxy, "select 6*7"), "").stdout(), "42\n");
        assert_eq!(proxy.stop().clean(), 2);
    }

    /// The server ends the connection; why, is the last that it says.
    pub(crate) fn last_words() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let said = fail(&proxy, "select pg_terminate_backend(pg_backend_pid())");
        let expected = "terminating connection due to administrator command";
        assert!(said.contains(expected), "psql said: {said}");
        assert_eq!(proxy.stop().clean(), 1);
    }

    /// The order to cancel goes through the proxy too, on a connection of its own.
    pub(crate) fn cancel() {
        let server = server();
        let proxy = Proxy::before(&server.address());
        let statement = "do $$ begin raise notice 'begun'; perform pg_sleep(600); end $$";
        let waiting = Program::start(&mut psql(&proxy, statement), "");
        waiting.until_it_says("begun");
        waiting.signal(Signal::INT);
        let said = waiting.end().stderr();
        assert!(said.contains("canceling statement due to user request"), "psql said: {said}");
        assert_eq!(proxy.stop().clean(), 2);
    }
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
    program: Program,
    port: u16,
}

impl Proxy {
    fn before(backend: &str) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--backend", backend]);
        // A busy machine is no reason to give a backend up, nor a failed test to wait for its clients. More connections
        // than the machine allows open files for would be warned of.
        command.args(["--connect-timeout", "30s", "--drain-timeout", "5s", "--max-conn", "100"]);
        let program = Program::start(&mut command, "");
        let port = program.until("where it listens", |printed| {
            let lines = printed.log();
            let line = lines.iter().find(|line| line["msg"] == "listening")?;
            line["listen"].as_str()?.rsplit_once(':')?.1.parse().ok()
        });
        Proxy { program, port }
    }

    /// Tells it to stop, and checks that it does so in good order.
    fn stop(self) -> AccessLog {
        self.program.signal(Signal::TERM);
        let ended = self.program.end();
        assert_eq!(ended.status.code(), Some(0), "{ended}");
        assert_eq!(ended.stderr(), "", "{ended}");
        let mut lines = ended.printed.log();
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

/// Runs a program to its end, which must be a success.
fn succeed(command: &mut Command, input: &str) -> Ended {
    let ended = Program::start(command, input).end();
    assert!(ended.status.success(), "{ended}");
    ended
}

/// A process of a test and what it prints. Dropped, it is ended.
struct Program {
    command: String,
    child: Child,
    printed: Arc<(Mutex<Printed>, Condvar)>,
}

#[derive(Default)]
struct Printed {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Which of the two have come to their end.
    ended: usize,
}

struct Ended {
    command: String,
    status: ExitStatus,
    printed: Printed,
}

impl Program {
    fn start(command: &mut Command, input: &str) -> Program {
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
    fn until<T>(&self, what: &str, look: impl Fn(&Printed) -> Option<T>) -> T {
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

    fn until_it_says(&self, words: &str) {
        self.until(&format!("{words:?}"), |printed| printed.all().contains(words).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our own child");
    }

    /// Waits until it has ended.
    fn end(mut self) -> Ended {
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
    fn all(&self) -> String {
        [String::from_utf8_lossy(&self.out), String::from_utf8_lossy(&self.err)].concat()
    }

    /// The lines of the proxy's log.
    fn log(&self) -> Vec<Value> {
        let lines = self.out.split_inclusive(|byte| *byte == b'\n');
        let whole = lines.filter(|line| line.ends_with(b"\n"));
        whole.map(|line| serde_json::from_slice(line).expect("every line is JSON")).collect()
    }
}

impl Ended {
    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.printed.out).into_owned()
    }

    fn stderr(&self) -> String {
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

/// A new folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short, for the path of a unix socket may have 107 bytes; and outside the build folder, into which the user
        // postgres may not be allowed to look.
        let path = env::temp_dir().join(format!("trunkline-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans up temporary folders.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program(name: &str) -> Command {
    Command::new(find(name).expect("a test does not run without its programs"))
}

/// Where a program is: Debian keeps postgres's out of everybody's PATH, and nginx's out of most people's.
fn find(name: &str) -> Option<PathBuf> {
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

/// Text of so many bytes, in which no part is like the one before.
fn text(bytes: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    (0..bytes).map(|_| next()).collect()
}
