//! More clients than there is room for: all are served in the end, and the log stays readable.

use crate::binary::{Binary, PATIENCE};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use trunkline::testing::FakeBackend;

/// Connects, exchanges a word, and leaves.
fn visit(proxy: SocketAddr) {
    let mut client = TcpStream::connect(proxy).expect("the backlog has room");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.write_all(b"hello").expect("the kernel takes it");
    let mut reply = [0; 5];
    client.read_exact(&mut reply).expect("served in the end");
    assert_eq!(&reply, b"hello");
}

#[test]
fn at_the_limit_the_next_client_waits_until_a_slot_is_free() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let mut binary = Binary::start(&["--backend", &place, "--max-conn", "10"]);
    let address = binary.address();
    let mut inside = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(address).expect("there is room");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client.write_all(b"x").expect("taken");
        client.read_exact(&mut [0; 1]).expect("served");
        inside.push(client);
    }
    let served = std::sync::Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let served = served.clone();
            thread::spawn(move || {
                visit(address);
                served.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    // Ten are carried and go on; nobody else has been let in.
    for client in &mut inside {
        client.write_all(b"y").expect("taken");
        client.read_exact(&mut [0; 1]).expect("served");
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
    assert_eq!(backend.accepted(), 10);
    inside.pop();
    for client in waiting {
        client.join().expect("served in the end");
    }
    drop(inside);
    for _ in 0..12 {
        assert_eq!(binary.closed()["clean"], true);
    }
    assert!(binary.stop().status.success());
}

#[test]
fn two_hundred_clients_below_a_limit_of_64_files_are_all_served() {
    let backend = FakeBackend::echo().listen();
    let place = backend.address().to_string();
    let flags = ["--backend", &place, "--backlog", "256", "--connect-timeout", "10s"];
    let binary = Binary::start_limited("ulimit -n 64", &flags);
    let address = binary.address();
    let (done, waiting) = sync_channel(200);
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let done = done.clone();
            thread::spawn(move || {
                visit(address);
                done.send(()).expect("the test waits");
            })
        })
        .collect();
    for _ in 0..200 {
        waiting.recv_timeout(PATIENCE).expect("all clients are served");
    }
    for client in clients {
        client.join().expect("served");
    }
    let stopped = binary.stop();
    assert!(stopped.status.success());
    assert_eq!(stopped.lines("closed").len(), 200);
    let loud: Vec<_> =
        stopped.log.iter().filter(|line| line["level"].as_u64() >= Some(40)).collect();
    assert_eq!(loud.len(), 1, "one warning, at the start: {loud:#?}");
    assert!(
        loud[0]["msg"].as_str().is_some_and(|msg| msg.contains("20 connections fit")),
        "{loud:#?}"
    );
}
