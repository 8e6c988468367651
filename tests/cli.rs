//! The binary as its user meets it: flags, exit codes, log, signals.

use crate::binary::{Binary, PATIENCE, PROGRAM, eventually, free_address, run};
use crate::folder::Folder;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use trunkline::Io;
use trunkline::testing::FakeBackend;

/// Sends `text` through a proxy to an echo backend, and gets it back.
fn echo(mut socket: impl Read + Write, text: &str) {
    socket.write_all(text.as_bytes()).expect("the proxy takes it");
    let mut reply = vec![0; text.len()];
    socket.read_exact(&mut reply).expect("the reply comes");
    assert_eq!(reply, text.as_bytes());
}

fn connect(binary: &Binary) -> TcpStream {
    let socket = TcpStream::connect(binary.address()).expect("the proxy listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
}

#[test]
fn what_is_typed_wrong_is_told_in_one_line_with_exit_code_2() {
    let check = |flags: &[&str], part: &str| {
        let output = run(flags);
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.starts_with("trunkline: ") && stderr.contains(part), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{flags:?}");
    };
    check(&["--lisen", "127.0.0.1:1"], "Did you mean \"--listen\"");
    check(&["--tick", "1s", "check"], "\"check\" comes first");
    check(&["--listen", "0.0.0.0:1", "--backend", "localhost:1"], "connect to itself");
    check(&["start"], "unknown command \"start\"; the commands are demo, check, fake and faults");
    check(&["--listen"], "No value provided for option '--listen'");
    check(&["--listen", "9509"], "write HOST:PORT");
    check(&["--listen=::1:80"], "[::1]:80");
    check(&["--tick", "10"], "write 10ms, 10s, 10m or 10h");
    check(&["--max-conn", "0"], "use 1 or more");
    check(&["--idle-timeout", "300ms"], "use a tick of 300ms or less");
    check(&["--backend", "127.0.0.1:9509"], "the proxy would connect to itself");
    check(&["check", "--threads", "two"], "not a whole number");
    check(&["--trunks", "3"], "--trunks is for --mode pool");
    check(&["--mode", "mix"], "\"mix\" is not a mode; use tunnel, pool or mux");
    check(&["--mode", "mux", "--framing", "http"], "mode mux is not for framing http");
    check(&["--mode", "mux"], "--mode mux has to know where a request ends");
    check(&["--mode", "pool"], "add --framing (line, eof, length, resp");
    let pool = |more: &[&'static str]| [&["--mode", "pool", "--framing"], more].concat();
    check(&pool(&["lime"]), "\"lime\" is not a framing; use line");
    check(&pool(&["line"]), "add --one-reply-per-request");
    check(&pool(&["resp", "--eof", "x"]), "--eof is for --framing eof");
    check(&pool(&["resp", "--trunks", "0"]), "trunks 0 would serve nobody");
    check(&pool(&["resp", "--credit", "9"]), "--credit is for --mode mux");
    check(&pool(&["resp", "--min-trunks", "9"]), "min-trunks 9 is more than trunks 8");
    check(&pool(&["resp", "--reply-timeout", "0s"]), "reply-timeout 0s is too short");
    check(&pool(&["eof", "--one-reply-per-request", "--eof", "\\q"]), "no escape");
    check(&["demo", "--twice"], "`trunkline demo --help`");
}

#[test]
fn what_the_system_refuses_is_told_in_one_line_with_exit_code_1() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("bound").to_string();
    let folder = Folder::new();
    let check = |flags: &[&str], part: &str| {
        let output = run(flags);
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {stderr}");
        assert!(stderr.starts_with("trunkline: ") && stderr.contains(part), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
    };
    check(&["--listen", &taken], "address already in use; stop the program");
    check(&["--listen", "192.0.2.1:80"], "this machine has no such address");
    check(&["--listen", "no-such-name.invalid:80"], "cannot listen on no-such-name.invalid:80");
    check(&["--log-file", &folder.path("none/log")], "choose another --log-file");
    let file = folder.path("file");
    std::fs::write(&file, "kept").expect("written");
    check(&["--listen", &format!("unix:{file}")], "is not a socket");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "kept");
}

#[test]
fn help_and_version_are_asked_for_and_so_no_error() {
    for (flags, part) in [
        (&["--help"][..], "--half-close-timeout"),
        (&["-h"], "--half-close-timeout"),
        (&["demo", "--help"], "--once"),
        (&["check", "--help"], "--max-conn"),
        (&["fake", "--help"], "half-close"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(flags);
        assert!(output.status.success(), "{flags:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{flags:?}");
    }
}

#[test]
fn check_prints_the_settings_and_the_bound_and_opens_no_socket() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = held.local_addr().expect("bound").to_string();
    // The address is taken: to open a socket there would fail.
    let output = run(&["check", "--listen", &listen, "--idle-timeout", "90s", "--max-conn", "10"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    for line in [
        &format!("listen               {listen}"),
        "idle-timeout         90s",
        "connect-timeout      200ms",
        "at most 448k per connection",
        "at most 8.4 MiB for 10 connections",
        "the settings are valid",
    ] {
        assert!(text.lines().any(|have| have.contains(line)), "{line:?} in {text}");
    }
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let script = format!("\"{PROGRAM}\" check | true; \"{PROGRAM}\" --help | head -1");
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output();
    let output = output.expect("bash is there");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_demo_shows_every_actor_and_ends() {
    let output = run(&["demo", "--once"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    let actors = "listener client_reader backend_writer backend_reader client_writer connection";
    for actor in actors.split(' ') {
        assert!(text.contains(&format!("\n    {actor:<15} ")), "{actor} in {text}");
    }
    assert!(text.contains("3 connections ended cleanly and 0 were aborted"), "{text}");
}

#[test]
fn the_demo_stays_up_until_it_is_told_to_stop() {
    let mut child =
        Command::new(PROGRAM).arg("demo").stdout(Stdio::piped()).spawn().expect("starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while !text.contains("ctrl-c ends the demo") {
        let count = stdout.read(&mut bytes).expect("readable");
        assert_ne!(count, 0, "the demo ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let port = text.split("nc 127.0.0.1 ").nth(1).and_then(|rest| rest.split(' ').next());
    let port: u16 = port.and_then(|port| port.parse().ok()).expect("a port to try");
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    client.write_all(b"GET name\r\n").expect("sent");
    let mut reply = [0; 15];
    client.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"$9\r\ntrunkline\r\n");
    drop(client);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("it lives");
    assert!(child.wait().expect("our child").success());
}

#[test]
fn the_log_says_at_debug_how_sockets_are_waited_for() {
    for (flags, expected) in [
        (vec![], Io::Auto.here(1)),
        (vec!["--threads", "2"], Io::Auto.here(2)),
        (vec!["--io", "epoll"], Io::Epoll),
    ] {
        let stopped = Binary::start(&[&["--log-level", "debug"][..], &flags].concat()).stop();
        let word = if expected == Io::Uring { "by io_uring" } else { "by an epoll" };
        let said = |line: &Value| line["msg"].as_str().is_some_and(|text| text.contains(word));
        assert!(stopped.log.iter().any(said), "{flags:?}: {:?}", stopped.log);
    }
}

#[test]
fn the_access_log_has_a_line_for_each_connection() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place]);
    let client = connect(&binary);
    let from = client.local_addr().expect("connected").to_string();
    echo(&client, "hello");
    drop(client);
    let line = binary.closed();
    assert_eq!(line["conn"], 1);
    assert_eq!(line["client"], from.as_str());
    assert_eq!(line["backend"], place.as_str());
    assert_eq!(
        (&line["to_backend"], &line["to_client"], &line["lost"]),
        (&5.into(), &5.into(), &0.into())
    );
    assert_eq!((&line["end"], &line["clean"]), (&"client/data".into(), &true.into()));
    for time in ["lasted", "connect"] {
        assert!(line[time].as_str().is_some_and(|time| time.ends_with("ms")), "{line}");
    }
    let stopped = binary.stop();
    assert!(stopped.status.success());
    assert_eq!(stopped.stderr, "");
}

#[test]
fn a_backend_that_refuses_is_named_in_one_line_and_the_client_is_closed_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let binary = Binary::start(&["--backend", &place]);
    let mut client = connect(&binary);
    let error = client.read(&mut [0; 1]).expect_err("no clean end without a backend");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let stopped = binary.stop();
    let lines: Vec<_> = stopped.log.iter().filter(|line| line["conn"] == 1).collect();
    assert_eq!(lines.len(), 1, "{:#?}", stopped.log);
    assert_eq!(lines[0]["cause"], format!("{place}: connection refused"));
    assert_eq!((&lines[0]["end"], &lines[0]["level"]), (&"backend/connect".into(), &40.into()));
}

#[test]
fn a_second_signal_aborts_at_once_and_the_exit_code_says_so() {
    let backend = FakeBackend::echo().listen();
    let mut binary = Binary::start(&["--backend", &backend.address().to_string()]);
    let mut client = connect(&binary);
    echo(&client, "hello");
    binary.signal(Signal::INT);
    binary.wait_for("stopping");
    // The first signal has left it alone.
    echo(&client, "still here");
    binary.signal(Signal::INT);
    let error = client.read(&mut [0; 1]).expect_err("an abort is no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let stopped = binary.wait();
    assert_eq!(stopped.status.code(), Some(1));
    assert_eq!(stopped.lines("closed")[0]["end"], "proxy/drain");
    let last = stopped.log.last().expect("a last line");
    assert_eq!(last["msg"], "stopped: 0 connections ended cleanly and 1 were aborted");
}

#[test]
fn the_drain_timeout_aborts_what_is_left() {
    let backend = FakeBackend::echo().listen();
    let flags = ["--backend", &backend.address().to_string(), "--drain-timeout", "50ms"];
    let binary = Binary::start(&flags);
    let client = connect(&binary);
    echo(&client, "hello");
    let stopped = binary.stop();
    assert_eq!(stopped.status.code(), Some(1));
    assert_eq!(stopped.lines("closed")[0]["end"], "timeout/drain");
}

#[test]
fn the_log_file_is_reopened_on_sighup() {
    let backend = FakeBackend::echo().listen();
    let folder = Folder::new();
    let (now, old) = (folder.path("log"), folder.path("log.1"));
    let place = backend.address().to_string();
    let address = free_address();
    let listen = address.to_string();
    let flags =
        ["--backend", &place, "--listen", &listen, "--log-file", &now, "--log-format", "pretty"];
    let mut child = Command::new(PROGRAM).args(flags).spawn().expect("starts");
    let pid = rustix::process::Pid::from_child(&child);
    wait_for_text(&now, "listening");
    echo(TcpStream::connect(address).expect("it listens"), "before");
    wait_for_text(&now, "closed conn=1");
    std::fs::rename(&now, &old).expect("rotated");
    rustix::process::kill_process(pid, Signal::HUP).expect("it lives");
    wait_for_text(&now, "reopened");
    echo(TcpStream::connect(address).expect("it listens"), "after");
    wait_for_text(&now, "closed conn=2");
    assert!(!std::fs::read_to_string(&old).expect("kept").contains("conn=2"));
    rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
    assert!(child.wait().expect("our child").success());
    let text = std::fs::read_to_string(&now).expect("there");
    assert!(text.ends_with("all_clean=2 all_aborted=0\n"), "{text}");
}

/// Waits until a file has a text in it.
fn wait_for_text(path: &str, text: &str) {
    eventually(&format!("{text:?} in {path}"), || {
        std::fs::read_to_string(path).unwrap_or_default().contains(text)
    });
}

#[test]
fn a_log_that_cannot_be_written_hurts_no_connection() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let address = free_address();
    let listen = address.to_string();
    let flags = ["--backend", &place, "--listen", &listen, "--log-file", "/dev/full"];
    let mut child =
        Command::new(PROGRAM).args(flags).stderr(Stdio::piped()).spawn().expect("starts");
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut served = 0;
    while served < 20 {
        match TcpStream::connect(address) {
            Ok(client) => {
                echo(client, "hello");
                served += 1;
            }
            Err(error) => {
                assert!(std::time::Instant::now() < deadline, "it does not listen: {error}")
            }
        }
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
        .expect("it lives");
    assert!(child.wait().expect("our child").success());
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert!(stderr.contains("cannot write the log: no space left on device"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "said once: {stderr}");
}

#[test]
fn a_reader_of_the_log_that_stands_still_stops_neither_traffic_nor_the_end() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let address = free_address();
    let flags = ["--backend", &place, "--listen", &address.to_string(), "--log-level", "trace"];
    let mut command = Command::new(PROGRAM);
    let mut child =
        command.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // One line shows that it listens; then nobody reads any more.
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 100]).expect("it logs");
    for _ in 0..1500 {
        let client = TcpStream::connect(address).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        echo(client, "hello");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
        .expect("it lives");
    assert!(child.wait().expect("our child").success());
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    assert!(stderr.contains("cannot write the log: nobody reads it"), "{stderr}");
}

#[test]
fn a_hangup_without_a_log_file_is_a_stop() {
    let backend = FakeBackend::echo().listen();
    let binary = Binary::start(&["--backend", &backend.address().to_string()]);
    binary.signal(Signal::HUP);
    assert!(binary.wait().status.success());
}

#[test]
fn unix_sockets_are_listened_on_and_connected_to() {
    let folder = Folder::new();
    let (front, back) = (folder.path("front"), folder.path("back"));
    let backend = UnixListener::bind(&back).expect("a path of ours");
    std::thread::spawn(move || {
        for socket in backend.incoming().flatten() {
            let mut from = &socket;
            let mut to = &socket;
            let _ = std::io::copy(&mut from, &mut to);
        }
    });
    let (listen, place) = (format!("unix:{front}"), format!("unix:{back}"));
    let flags = ["--listen", &listen, "--backend", &place, "--unix-mode", "660"];
    let mut binary = Binary::start(&flags);
    let mode = std::fs::metadata(&front).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    echo(UnixStream::connect(&front).expect("it listens"), "hello");
    assert_eq!(binary.closed()["client"], listen.as_str());

    // A live one is not taken over.
    let second = run(&["--listen", &listen, "--backend", &place]);
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("address already in use"), "{stderr}");
    echo(UnixStream::connect(&front).expect("it still listens"), "hello");

    // A stale one is: kill -9 leaves the file behind.
    binary.signal(Signal::KILL);
    binary.wait();
    assert!(Path::new(&front).exists());
    let binary = Binary::start(&flags);
    echo(UnixStream::connect(&front).expect("it listens again"), "hello");
    assert!(binary.stop().status.success());
    assert!(!Path::new(&front).exists(), "its own socket file is removed");
}

#[test]
fn the_report_has_the_figures() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--report", "20ms", "--tick", "10ms"]);
    let client = connect(&binary);
    echo(&client, "hello");
    let line = loop {
        let line = binary.wait_for("report");
        if line["to_client"] == 5 {
            break line;
        }
    };
    assert_eq!(
        (&line["open"], &line["accepted"], &line["refused"]),
        (&1.into(), &1.into(), &0.into())
    );
    assert_eq!((&line["to_backend"], &line["backend_writer_high_water"]), (&5.into(), &1.into()));
}

#[test]
fn several_addresses_are_listened_on_and_backends_are_taken_in_turn() {
    let (one, two) = (FakeBackend::echo().listen(), FakeBackend::echo().listen());
    let (first, second) = (one.address().to_string(), two.address().to_string());
    let listen = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let mut binary =
        Binary::start(&[&listen[..], &["--backend", &first, "--backend", &second]].concat());
    let mut seen = Vec::new();
    for listen in binary.listening.clone() {
        echo(TcpStream::connect(&listen).expect("it listens"), "hello");
        seen.push(binary.closed()["backend"].as_str().expect("served").to_string());
    }
    assert_eq!(seen, [first, second]);
}
