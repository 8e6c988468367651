//! `--workers`: several processes on one listening socket, and the one that keeps them.

use crate::binary::{Binary, PATIENCE, PROGRAM, eventually, free_address, run};
use crate::folder::Folder;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use trunkline::testing::FakeBackend;

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("nobody is refused");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client
}

/// A word and its echo; false if the connection was lost.
fn echo(client: &mut TcpStream, word: &[u8]) -> bool {
    let mut reply = vec![0; word.len()];
    let done = client.write_all(word).and_then(|()| client.read_exact(&mut reply));
    match done {
        Ok(()) => assert_eq!(reply, word),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            ),
            "{error}"
        ),
    }
    reply == word
}

/// Takes the line that says that a worker is there, and gives the worker's number and its process.
fn started(binary: &mut Binary) -> (u64, Pid) {
    let line = binary.wait_for("a worker accepts clients");
    let pid = line["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)).expect("a process");
    (line["worker"].as_u64().expect("a number"), pid)
}

#[test]
fn workers_that_are_killed_under_load_refuse_nobody_and_are_started_again() {
    const CLIENTS: usize = 8;
    const KILLS: usize = 6;
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--workers", "2"]);
    let address = binary.address();
    let mut living = [started(&mut binary), started(&mut binary)];
    // Either may be the first to be there.
    living.sort_by_key(|(number, _)| *number);
    assert_eq!(living.map(|(number, _)| number), [1, 2]);
    let over = Arc::new(AtomicBool::new(false));
    let (served, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (over, served, lost) = (Arc::clone(&over), Arc::clone(&served), Arc::clone(&lost));
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let count = if echo(&mut connect(address), b"hello") { &served } else { &lost };
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for kill in 0..KILLS {
        let (number, pid) = living[kill % 2];
        let before = served.load(Ordering::SeqCst);
        eventually("clients are served", || served.load(Ordering::SeqCst) >= before + 20);
        kill_process(pid, Signal::KILL).expect("it lives");
        let line = binary.wait_for("a worker has ended: signal: 9");
        assert_eq!(line["worker"], number);
        living[kill % 2] = started(&mut binary);
        assert_eq!(living[kill % 2].0, number);
    }
    over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("nobody was refused"));
    // Whom a worker carried when it was killed.
    assert!(lost.load(Ordering::SeqCst) <= KILLS * CLIENTS);
    let stopped = binary.stop();
    assert!(stopped.status.success(), "{:?}", stopped.log);
}

#[test]
fn a_stop_drains_all_workers_and_refuses_new_clients() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--workers", "3"]);
    let address = binary.address();
    (0..3).for_each(|_| {
        started(&mut binary);
    });
    let mut clients: Vec<_> = (0..12).map(|_| connect(address)).collect();
    assert!(clients.iter_mut().all(|client| echo(client, b"hello")));
    binary.signal(Signal::TERM);
    let mut stopping: Vec<_> =
        (0..4).map(|_| binary.wait_for("stopping")["worker"].as_u64()).collect();
    stopping.sort_unstable();
    assert_eq!(stopping, [None, Some(1), Some(2), Some(3)]);
    while let Ok(client) = TcpStream::connect(address) {
        // A worker takes in those that the kernel had accepted before it heard of the stop.
        drop(client);
    }
    assert!(clients.iter_mut().all(|client| echo(client, b"still here")));
    drop(clients);
    let stopped = binary.wait();
    assert!(stopped.status.success(), "{:?}", stopped.log);
    let last = stopped.log.last().expect("a last line");
    assert_eq!(last["msg"], "stopped: all workers have ended");
    assert_eq!((&last["all_aborted"], last["worker"].is_null()), (&0.into(), true), "{last}");
}

#[test]
fn a_second_stop_aborts_what_is_left() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--workers", "2"]);
    let _workers = [started(&mut binary), started(&mut binary)];
    let mut client = connect(binary.address());
    assert!(echo(&mut client, b"hello"));
    binary.signal(Signal::INT);
    for _ in 0..3 {
        binary.wait_for("stopping");
    }
    assert!(echo(&mut client, b"still here"));
    binary.signal(Signal::INT);
    let error = client.read(&mut [0; 1]).expect_err("an abort is no clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(binary.wait().status.code(), Some(1));
}

#[test]
fn workers_end_with_their_supervisor_and_leave_the_address_free() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--workers", "2"]);
    let _workers = [started(&mut binary), started(&mut binary)];
    let listen = binary.listening[0].clone();
    assert!(echo(&mut connect(binary.address()), b"hello"));
    binary.signal(Signal::KILL);
    // Its log ends when the last process that writes there has.
    let killed = binary.wait();
    assert_eq!(killed.lines("stopping").len(), 2);
    let again = Binary::start(&["--backend", &place, "--workers", "2", "--listen", &listen]);
    assert!(echo(&mut connect(again.address()), b"hello"));
    assert!(again.stop().status.success());
}

#[test]
fn the_supervisor_reports_what_all_have_done_those_that_were_killed_as_well() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let flags = ["--backend", &place, "--workers", "2", "--report", "100ms"];
    let mut binary = Binary::start(&flags);
    let workers = [started(&mut binary), started(&mut binary)];
    let mut visited = 0;
    for (_, pid) in workers {
        for _ in 0..10 {
            assert!(echo(&mut connect(binary.address()), b"hello"));
        }
        visited += 10;
        loop {
            let line = binary.wait_for("report");
            if line["worker"].is_null() && line["accepted"] == visited && line["clean"] == visited {
                assert_eq!((&line["open"], &line["to_client"]), (&0.into(), &(visited * 5).into()));
                break;
            }
        }
        kill_process(pid, Signal::KILL).expect("it lives");
        started(&mut binary);
    }
    assert!(binary.stop().status.success());
}

#[test]
fn sighup_reopens_the_log_of_every_process() {
    let backend = FakeBackend::echo().listen();
    let folder = Folder::new();
    let (now, old) = (folder.path("log"), folder.path("log.1"));
    let place = backend.address().to_string();
    let address = free_address();
    let listen = address.to_string();
    let mut child = Command::new(PROGRAM)
        .args(["--backend", &place, "--listen", &listen, "--workers", "2", "--log-file", &now])
        .stdin(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = |file: &str, part: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter(|line| line.contains(part)).count()
    };
    eventually("it listens", || lines(&now, "listening") == 1);
    eventually("both accept", || lines(&now, "a worker accepts clients") == 2);
    std::fs::rename(&now, &old).expect("rotated");
    kill_process(Pid::from_child(&child), Signal::HUP).expect("it lives");
    eventually("all have the new file", || lines(&now, "reopened") == 3);
    assert!(echo(&mut connect(address), b"hello"));
    eventually("it is written to", || lines(&now, "closed") == 1);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it lives");
    assert!(child.wait().expect("it is ours").success());
    assert_eq!(lines(&now, "all workers have ended"), 1);
}

#[test]
fn a_unix_socket_is_shared_and_its_file_goes_with_the_supervisor() {
    let backend = FakeBackend::echo().listen();
    let folder = Folder::new();
    let path = folder.path("socket");
    let (place, listen) = (backend.address().to_string(), format!("unix:{path}"));
    let mut binary = Binary::start(&["--backend", &place, "--workers", "2", "--listen", &listen]);
    let workers = [started(&mut binary), started(&mut binary)];
    kill_process(workers[0].1, Signal::KILL).expect("it lives");
    started(&mut binary);
    let mut client = UnixStream::connect(&path).expect("nobody is refused");
    client.write_all(b"hello").expect("the proxy reads");
    let mut reply = [0; 5];
    client.read_exact(&mut reply).expect("an echo");
    assert_eq!(&reply, b"hello");
    drop(client);
    assert!(binary.stop().status.success());
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn what_is_wrong_with_workers_is_said() {
    let check = |flags: &[&str], part: &str| {
        let output = run(flags);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(part) && text.trim_end().lines().count() == 1, "{flags:?}: {text}");
    };
    check(&["--workers", "0"], "use 1 or more");
    check(&["--workers", "9999"], "use at most 1024");
    check(&["--workers", "two"], "not a whole number");
    check(&["--worker", "1"], "leave it out");
}
