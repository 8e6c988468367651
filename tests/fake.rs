//! `trunkline fake` as its user meets it: each behaviour, through the real binary.

use crate::binary::{Binary, PATIENCE, PROGRAM, run};
use crate::folder::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

/// A running fake. Dropping it kills it.
struct Fake {
    child: Child,
    lines: Receiver<String>,
    /// Its first line.
    hello: String,
}

impl Fake {
    /// Starts it on a free port of 127.0.0.1.
    fn start(flags: &[&str]) -> Fake {
        Self::at("127.0.0.1:0", flags)
    }

    fn at(listen: &str, flags: &[&str]) -> Fake {
        let mut command = Command::new(PROGRAM);
        command.args(["fake", "--listen", listen]).args(flags);
        let pipes = command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = pipes.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut fake = Fake { child, lines, hello: String::new() };
        fake.hello = fake.line();
        fake
    }

    /// With a script in a file.
    fn script(text: &str) -> Fake {
        let folder = Folder::new();
        let file = folder.path("script");
        std::fs::write(&file, text).expect("written");
        // It has read the file when it says that it listens.
        Self::start(&["--behaviour", &format!("script:{file}")])
    }

    fn address(&self) -> SocketAddr {
        let place = self.hello.split(' ').nth(2).and_then(|place| place.strip_suffix(':'));
        place.and_then(|place| place.parse().ok()).expect("it says where it listens")
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address()).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client.set_write_timeout(Some(PATIENCE)).expect("a socket");
        client
    }

    /// The next line that it prints.
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// Sends a signal; it must end with exit code 0, after this line.
    fn stop(mut self, signal: Signal, last: &str) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
        assert_eq!(self.line(), last);
        // Its stdout closes when it ends.
        assert_eq!(self.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(self.child.wait().expect("our child").code(), Some(0));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that still comes, and how it ends.
fn rest(client: &mut TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let ending = client.read_to_end(&mut bytes).map(|_| ()).map_err(|error| error.kind());
    (String::from_utf8(bytes).expect("text"), ending)
}

fn says(mut client: &TcpStream, words: &str) {
    client.write_all(words.as_bytes()).expect("it takes it");
}

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn echo_is_the_default_and_serves_on_whatever_a_client_does() {
    let fake = Fake::start(&[]);
    assert!(fake.hello.ends_with(": echo sends back what comes"), "{}", fake.hello);
    for number in 1..=2 {
        let mut client = fake.connect();
        says(&client, "hello");
        client.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(rest(&mut client), ("hello".into(), Ok(())));
        let expected = format!("connection {number}: 5 bytes came; the client ended its sending");
        assert_eq!(fake.line(), expected);
    }
    // This one breaks off.
    let client = fake.connect();
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
    drop(client);
    assert_eq!(fake.line(), "connection 3: 0 bytes came; the client broke off: connection reset");
    let _open = fake.connect();
    let mut last = fake.connect();
    says(&last, "still there?");
    last.read_exact(&mut [0; 12]).expect("it still echoes");
    fake.stop(Signal::INT, "stopped after 5 connections");
}

#[test]
fn sigterm_ends_it_too() {
    Fake::start(&["--behaviour", "stall"]).stop(Signal::TERM, "stopped after 0 connections");
}

#[test]
fn cut_closes_and_reset_breaks_off() {
    for (name, ending) in [("cut", Ok(())), ("reset", RESET)] {
        let fake = Fake::start(&["--behaviour", name, "--after", "5b"]);
        let mut client = fake.connect();
        says(&client, "hello");
        assert_eq!(rest(&mut client), (String::new(), ending), "{name}");
        assert_eq!(fake.line(), "connection 1: 5 bytes came; ended here first", "{name}");
    }
}

#[test]
fn babble_speaks_first_and_half_close_ends_its_sending_too() {
    let fake = Fake::start(&["--behaviour", "babble", "--say", "220 ready"]);
    let mut client = fake.connect();
    let mut words = [0; 9];
    client.read_exact(&mut words).expect("it speaks first");
    assert_eq!(&words, b"220 ready");
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(rest(&mut client), (String::new(), Ok(())));

    let fake = Fake::start(&["--behaviour=half-close", "--say=fake"]);
    let mut client = fake.connect();
    assert_eq!(rest(&mut client), ("fake".into(), Ok(())));
    says(&client, "I heard");
    drop(client);
    assert_eq!(fake.line(), "connection 1: 7 bytes came; the client ended its sending");
}

#[test]
fn drip_speaks_a_little_at_a_time() {
    let flags = ["--behaviour", "drip", "--size", "2b", "--every", "1ms", "--times", "3"];
    let fake = Fake::start(&flags);
    assert!(fake.hello.ends_with(": drip says 2b each 1ms, 3 times"), "{}", fake.hello);
    assert_eq!(rest(&mut fake.connect()), ("......".into(), Ok(())));
}

#[test]
fn refuse_accepts_nobody_and_keeps_the_port() {
    let fake = Fake::start(&["--behaviour", "refuse"]);
    assert!(fake.hello.starts_with("refusing on 127.0.0.1:"), "{}", fake.hello);
    let error = TcpStream::connect(fake.address()).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let error = TcpListener::bind(fake.address()).expect_err("the port is held");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_script_is_played_for_every_client_and_what_is_not_met_is_told() {
    let fake = Fake::script(
        "# The beginning of a conversation.\nexpect \"PING\\r\\n\"\nsend \"+PONG\\r\\n\"\ndrain\n",
    );
    let mut client = fake.connect();
    says(&client, "PING\r\n");
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(rest(&mut client), ("+PONG\r\n".into(), Ok(())));
    assert_eq!(fake.line(), "connection 1: 6 bytes came; the client ended its sending");

    let mut client = fake.connect();
    says(&client, "QUIT\r\n");
    assert_eq!(rest(&mut client), (String::new(), RESET));
    let line = fake.line();
    assert!(line.starts_with("connection 2: 6 bytes came; reset here, for /"), "{line}");
    let told = "script line 2: expected \"PING\\r\\n\", got \"QUIT\\r\\n\"";
    assert!(line.ends_with(told), "{line}");

    // And the next is served as if nothing had happened.
    let mut client = fake.connect();
    says(&client, "PING\r\n");
    client.read_exact(&mut [0; 7]).expect("it answers");
}

#[test]
fn a_protocol_answers_all_clients_from_the_same_keys() {
    let fake = Fake::start(&["--protocol", "resp"]);
    assert!(fake.hello.ends_with(": resp keeps what it is told"), "{}", fake.hello);
    let mut client = fake.connect();
    says(&client, "SET a 1\r\nINCR a\r\nQUIT\r\n");
    assert_eq!(rest(&mut client), ("+OK\r\n:2\r\n+OK\r\n".into(), Ok(())));
    assert_eq!(fake.line(), "connection 1: 23 bytes came; ended here first");
    let mut client = fake.connect();
    says(&client, "GET a\r\n");
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(rest(&mut client), ("$1\r\n2\r\n".into(), Ok(())));
    assert_eq!(fake.line(), "connection 2: 7 bytes came; the client ended its sending");

    let fake = Fake::start(&["--protocol", "memcached"]);
    let mut client = fake.connect();
    says(&client, "set a 0 0 1 noreply\r\n1\r\nget a\r\nquit\r\n");
    assert_eq!(rest(&mut client), ("VALUE a 0 1\r\n1\r\nEND\r\n".into(), Ok(())));

    let fake = Fake::start(&["--protocol", "line"]);
    assert!(fake.hello.ends_with(": line sends each frame back"), "{}", fake.hello);
    let mut client = fake.connect();
    says(&client, "one\ntwo\nthr");
    client.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(rest(&mut client), ("one\ntwo\n".into(), Ok(())));
}

#[cfg(feature = "http")]
#[test]
fn http_keeps_a_connection_until_it_is_told() {
    let fake = Fake::start(&["--protocol", "http"]);
    let mut client = fake.connect();
    let put = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none";
    says(&client, &format!("{put}GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let (heard, ending) = rest(&mut client);
    assert!(heard.starts_with("HTTP/1.1 201 Created\r\n") && heard.ends_with("\r\n\r\none"));
    assert_eq!(ending, Ok(()));
}

#[test]
fn replies_go_wrong_where_they_are_told_to() {
    let heard = |fault: &str| {
        let fake = Fake::start(&["--protocol=resp", "--reply", fault]);
        let mut client = fake.connect();
        says(&client, "PING 1\r\nPING 2\r\nPING 3\r\n");
        // It may have been broken off already.
        let _ = client.shutdown(Shutdown::Write);
        rest(&mut client)
    };
    let [one, two, three] = [1, 2, 3].map(|n| format!("$1\r\n{n}\r\n"));
    assert_eq!(heard("2:drop"), (format!("{one}{three}"), Ok(())));
    assert_eq!(heard("2:duplicate"), (format!("{one}{two}{two}{three}"), Ok(())));
    assert_eq!(heard("2:swap"), (format!("{one}{three}{two}"), Ok(())));
    assert_eq!(heard("every-1:split=2b,1ms"), (format!("{one}{two}{three}"), Ok(())));
    assert_eq!(heard("every-1:delay=1ms"), (format!("{one}{two}{three}"), Ok(())));
    assert_eq!(heard("2:cut=2b"), (format!("{one}$1"), Ok(())));
    assert_eq!(heard("2:reset=2b"), (format!("{one}$1"), RESET));
    let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(heard("2:error"), (format!("{one}{error}{three}"), Ok(())));
    // Both are told, and the first that fits is applied.
    let fake = Fake::start(&["--protocol=resp", "--reply=2:swap", "--reply=every-2:drop"]);
    let told = ": resp keeps what it is told; replies 2:swap every-2:drop";
    assert!(fake.hello.ends_with(told), "{}", fake.hello);
}

#[test]
fn the_faults_of_the_readme_are_understood() {
    let readme = std::fs::read_to_string("README.md").expect("it is there");
    let (_, rest) = readme.split_once("    trunkline fake --protocol ").expect("the command");
    let flags: Vec<_> = rest.lines().next().expect("the command").split(' ').collect();
    let fake = Fake::start(&[&["--protocol"], &flags[..]].concat());
    let told = ": resp keeps what it is told; replies 3:drop 5:delay=200ms every-7:split=2b,100ms";
    assert!(fake.hello.ends_with(told), "{}", fake.hello);
}

#[test]
fn the_script_of_the_readme_works() {
    let readme = std::fs::read_to_string("README.md").expect("it is there");
    let (_, rest) = readme.split_once("    # redis.script\n").expect("the script");
    let lines = rest.lines().map_while(|line| line.strip_prefix("    "));
    let fake = Fake::script(&lines.collect::<Vec<_>>().join("\n"));
    let mut client = fake.connect();
    says(&client, "PING\r\n");
    assert_eq!(self::rest(&mut client), ("+PONG\r\n-LOADING in".into(), RESET));
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("bound").to_string();
    let folder = Folder::new();
    let file = folder.path("script");
    let played = format!("script:{file}");
    let check = |flags: &[&str], code: i32, part: &str| {
        let output = run(&[&["fake"], flags].concat());
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
        assert!(stderr.starts_with("trunkline: ") && stderr.contains(part), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{flags:?}");
    };
    check(&["--behaviour", "ecko"], 2, "use echo, stall, drip");
    check(&["--after", "5b"], 2, "--after is for cut and reset");
    check(&["--protocol", "smtp"], 2, "use resp, memcached, http, line, eof or length");
    check(&["--protocol", "resp", "--behaviour", "cut"], 2, "are two backends; remove one");
    check(&["--reply", "3:drop"], 2, "--reply is for --protocol; add that");
    check(&["--protocol=resp", "--reply=0:drop"], 2, "counted from 1");
    check(&["--protocol=resp", "--reply=3:delay=200"], 2, "write 200ms");
    check(&["--behavior", "echo"], 2, "Did you mean \"--behaviour\"");
    check(&["--listen", &taken], 1, "address already in use; stop the program");
    check(&["--behaviour", "refuse", "--listen", &taken], 1, "address already in use");
    let unix = format!("unix:{}", folder.0.display());
    check(&["--behaviour", "refuse", "--listen", &unix], 1, "the path exists");
    check(&["--listen", "no-such-name.invalid:80"], 1, "cannot listen on no-such-name.invalid:80");
    check(&["--behaviour", &played], 1, &format!("cannot read the script {file}: no such file"));
    std::fs::write(&file, "send \"x\"\nsnd\n").expect("written");
    check(&["--behaviour", &played], 2, &format!("{file} line 2: unknown step \"snd\""));
    std::fs::write(&file, b"drain\n\nsend \"\xff\"").expect("written");
    check(&["--behaviour", &played], 2, &format!("{file} line 3: not UTF-8; write such a byte"));
    check(&["--behaviour", "script:/dev/zero"], 2, "/dev/zero is longer than 1m");
}

#[test]
fn it_listens_on_a_unix_path_and_removes_it() {
    let folder = Folder::new();
    let path = folder.path("fake");
    let fake = Fake::at(&format!("unix:{path}"), &[]);
    let mut client = UnixStream::connect(&path).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.write_all(b"hello").expect("it takes it");
    client.read_exact(&mut [0; 5]).expect("it comes back");
    fake.stop(Signal::INT, "stopped after 1 connections");
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn the_proxy_carries_what_a_fake_says_and_how_it_ends() {
    let fake = Fake::script("expect \"GET\"\nsend \"half an ans\"\nreset");
    let mut binary = Binary::start(&["--backend", &fake.address().to_string()]);
    let mut client = TcpStream::connect(binary.address()).expect("the proxy listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    says(&client, "GET");
    assert_eq!(rest(&mut client), ("half an ans".into(), RESET));
    let line = binary.closed();
    assert_eq!((&line["end"], &line["clean"]), (&"backend/data".into(), &false.into()));
    assert_eq!(fake.line(), "connection 1: 3 bytes came; ended here first");
}
