//! Many bytes: none lost, none changed, and no memory taken for them.

use crate::binary::{Binary, PATIENCE};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use trunkline::testing::{FakeBackend, Harness, block_on};
use trunkline::{Listed, Phase};

const MIB: u64 = 1 << 20;

/// What one end of a connection sent and received.
#[derive(Debug, PartialEq, Eq)]
struct Digests {
    sent: [u8; 32],
    received: [u8; 32],
    bytes: u64,
}

/// Sends `bytes` that depend on `seed`, and reads all that comes, at the same time.
fn exchange(socket: TcpStream, seed: u64, bytes: u64) -> Digests {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
    // Odd, so that no two blocks are the same; and another for each seed.
    let factor = seed * 2 + 1;
    let mut sending = socket.try_clone().expect("a socket");
    let sender = thread::spawn(move || {
        let mut hash = Sha256::new();
        // No two blocks are the same, so that a lost or swapped one shows.
        let mut block = vec![0u8; 64 << 10];
        for (place, byte) in block.iter_mut().enumerate() {
            *byte = (place as u64).wrapping_mul(factor).to_le_bytes()[1];
        }
        let mut left = bytes;
        while left > 0 {
            block[..8].copy_from_slice(&left.wrapping_mul(factor).to_le_bytes());
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sending.write_all(&block[..part]).expect("the proxy takes it");
            hash.update(&block[..part]);
            left -= part as u64;
        }
        sending.shutdown(Shutdown::Write).expect("open");
        hash.finalize().into()
    });
    let mut hash = Sha256::new();
    let mut block = vec![0u8; 64 << 10];
    let mut bytes = 0;
    let mut receiving = socket;
    loop {
        match receiving.read(&mut block).expect("the bytes arrive") {
            0 => break,
            count => {
                hash.update(&block[..count]);
                bytes += count as u64;
            }
        }
    }
    let sent = sender.join().expect("all was sent");
    Digests { sent, received: hash.finalize().into(), bytes }
}

/// A backend that exchanges with `count` clients, and then gives all the digests.
fn exchanging_backend(count: u64, bytes: u64) -> (SocketAddr, JoinHandle<Vec<Digests>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let backend = thread::spawn(move || {
        let serve = |seed| {
            let (socket, _) = listener.accept().expect("the proxy dials");
            thread::spawn(move || exchange(socket, seed, bytes))
        };
        let serving: Vec<_> = (0..count).map(|number| serve(number + 1000)).collect();
        serving.into_iter().map(|one| one.join().expect("served")).collect()
    });
    (address, backend)
}

/// Runs `count` clients at once against such a backend; every byte must arrive on both sides.
fn exchange_through_proxy(count: u64, bytes: u64, meanwhile: impl FnOnce(Binary)) {
    let (place, backend) = exchanging_backend(count, bytes);
    let flags = ["--backend", &place.to_string(), "--connect-timeout", "10s"];
    let binary = Binary::start(&flags);
    let connect = |_| TcpStream::connect(binary.address()).expect("the proxy listens");
    let sockets: Vec<_> = (0..count).map(connect).collect();
    let start = |(seed, socket)| thread::spawn(move || exchange(socket, seed, bytes));
    let clients: Vec<_> = (0..).zip(sockets).map(start).collect();
    meanwhile(binary);
    let mut clients: Vec<_> = clients.into_iter().map(|one| one.join().expect("served")).collect();
    let mut backends = backend.join().expect("the backend ends");
    // The proxy may dial in another order than that in which it accepted.
    clients.sort_by_key(|digests| digests.sent);
    backends.sort_by_key(|digests| digests.received);
    for (client, backend) in clients.iter().zip(&backends) {
        assert_eq!((client.bytes, backend.bytes), (bytes, bytes));
        assert_eq!(client.sent, backend.received);
        assert_eq!(backend.sent, client.received);
    }
    assert_eq!((clients.len(), backends.len()), (count as usize, count as usize));
}

#[test]
fn a_gibibyte_each_way_at_the_same_time_through_one_connection() {
    exchange_through_proxy(1, 1024 * MIB, |mut binary| {
        let line = binary.closed();
        assert_eq!(
            (line["to_backend"].as_u64(), line["to_client"].as_u64()),
            (Some(1024 * MIB), Some(1024 * MIB))
        );
        assert!(binary.stop().status.success());
    });
}

#[test]
fn two_hundred_connections_at_once_five_megabytes_each_way() {
    exchange_through_proxy(200, 5 * MIB, |mut binary| {
        for _ in 0..200 {
            assert_eq!(binary.closed()["clean"], true);
        }
        assert!(binary.stop().status.success());
    });
}

#[test]
fn sigterm_during_fifty_transfers_damages_none_and_refuses_new_clients() {
    exchange_through_proxy(50, 20 * MIB, |mut binary| {
        binary.signal(Signal::TERM);
        binary.wait_for("stopping");
        let address = binary.address();
        // The listening socket closes a moment after that line.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(address) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                tried => assert!(Instant::now() < deadline, "still accepted: {tried:?}"),
            }
        }
        let stopped = binary.wait();
        assert!(stopped.status.success(), "{:#?}", stopped.log.last());
        assert_eq!(stopped.lines("closed").len(), 50 + strays(&stopped.log));
        for line in stopped.lines("closed") {
            assert!(line["clean"] == true || line["to_client"] == 0, "{line}");
        }
    });
}

/// Connections of the loop above that came in before the listener had closed; they sent nothing.
fn strays(log: &[serde_json::Value]) -> usize {
    let stray = |line: &&serde_json::Value| line["msg"] == "closed" && line["to_client"] == 0;
    log.iter().filter(stray).count()
}

/// The sender goes at full speed for 20 s, the reader at 1 MB/s; what the proxy holds stays what `Limits` says.
#[test]
fn a_slow_reader_makes_no_memory_grow() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = listener.local_addr().expect("bound").to_string();
    let binary = Binary::start(&["--backend", &place]);
    let client = TcpStream::connect(binary.address()).expect("the proxy listens");
    let (mut backend, _) = listener.accept().expect("the proxy dials");
    // The pace is the reader's behaviour: a token every 100 ms lets it read 100 kB.
    let (token, pace) = sync_channel::<()>(0);
    let mut sending = client.try_clone().expect("a socket");
    let sender = thread::spawn(move || {
        let block = [7; 64 << 10];
        let mut sent = 0;
        while sending.write_all(&block).is_ok() {
            sent += block.len() as u64;
        }
        sent
    });
    let mut block = vec![0; 100_000];
    backend.read_exact(&mut block).expect("the bytes flow");
    let before = binary.status_kb("VmRSS");
    let mut most = before;
    for _ in 0..200 {
        let waited = pace.recv_timeout(Duration::from_millis(100));
        assert!(waited.is_err(), "nobody sends a token");
        backend.read_exact(&mut block).expect("the bytes flow");
        most = most.max(binary.status_kb("VmRSS"));
    }
    drop(token);
    assert!(most - before < 1024, "the proxy grew from {before} kB to {most} kB");
    client.shutdown(Shutdown::Both).expect("open");
    drop(backend);
    let sent = sender.join().expect("the sender ends");
    // Kernel buffers on both sides take some MB; had the proxy read on, the sender would have sent gigabytes.
    assert!(sent < 20 * MIB + 64 * MIB, "the sender was not held back: {sent}");
}

/// The client's kernel cannot take all of the answer at once; the reset must wait until it could.
#[test]
fn a_reset_waits_until_a_slow_client_has_the_whole_answer() {
    let answer = vec![b'a'; 8 * MIB as usize];
    let harness = Harness::builder()
        .backend(FakeBackend::resets_after_saying(&answer))
        .backends_in_memory()
        .start();
    let mut client = TcpStream::connect(harness.address()).expect("the proxy listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut got = 0;
    let mut block = [0; 32 << 10];
    let error = loop {
        match client.read(&mut block) {
            Ok(0) => panic!("a clean end after {got} bytes"),
            Ok(count) => got += count,
            Err(error) => break error,
        }
        thread::yield_now();
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(got, answer.len());
}

/// All of it was taken by the kernel in a moment, and the client takes four seconds over it: it is not idle.
#[test]
fn a_slow_download_is_not_cut_by_the_half_close_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = listener.local_addr().expect("bound").to_string();
    // The client's kernel says only now and then that it has room again: here twice a second.
    let flags = ["--backend", &place, "--half-close-timeout", "2s", "--tick", "100ms"];
    let mut binary = Binary::start(&flags);
    let mut client = TcpStream::connect(binary.address()).expect("the proxy listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut backend, _) = listener.accept().expect("the proxy dials");
    let answer = 2_000_000;
    let speaker = thread::spawn(move || backend.write_all(&vec![b'a'; answer]).expect("taken"));
    let (_token, pace) = sync_channel::<()>(0);
    let mut block = vec![0; answer / 40];
    for part in 0..40 {
        assert!(pace.recv_timeout(Duration::from_millis(100)).is_err(), "nobody sends a token");
        client.read_exact(&mut block).unwrap_or_else(|error| panic!("part {part}: {error}"));
    }
    assert_eq!(client.read(&mut block).expect("a clean end"), 0);
    drop(client);
    speaker.join().expect("the backend has said all");
    let line = binary.closed();
    assert_eq!((&line["clean"], &line["to_client"]), (&true.into(), &answer.into()), "{line}");
}

/// The answer is whole, its end included, and the client's kernel has room for a part of it, when the other direction
/// fails: the reset that must follow waits for the rest.
#[test]
fn a_whole_answer_outlives_the_failure_of_the_other_direction() {
    let answer = vec![b'a'; 400_000];
    for _ in 0..50 {
        let backends = FakeBackend::by_hand();
        let harness = Harness::builder().backend(backends).backends_in_memory().start();
        let mut client = TcpStream::connect(harness.address()).expect("the proxy listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        block_on(async {
            let mut backend = harness.backend(0).accept().await;
            backend.send(&answer).await;
            backend.fin();
            let deadline = Instant::now() + PATIENCE;
            // Until the client_writer has all of it, and the end behind it.
            let passed_on = |one: &Listed| {
                one.to_client == answer.len() as u64 && one.phase == Phase::HalfClosed
            };
            while !passed_on(&harness.handle().list().await[0]) {
                assert!(Instant::now() < deadline, "the client's kernel did not take the answer");
            }
            backend.close();
        });
        // These fail at the backend, which has gone.
        client.write_all(b"words that").expect("the proxy takes them");
        client.write_all(b"nobody reads").expect("the proxy takes them");
        let mut got = vec![0; answer.len()];
        client.read_exact(&mut got).expect("the answer arrives whole");
        assert!(got == answer, "and unchanged");
        drop(client);
        let ended = block_on(harness.ended());
        assert_eq!((ended.clean, ended.code().as_str()), (false, "backend/half-closed"));
    }
}
