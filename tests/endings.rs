//! The table of endings (ARCHITECTURE.md), by the real binary over real sockets: each 500 times, with one thread and
//! with two, and however sockets are waited for.

use crate::binary::{Binary, PATIENCE};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;
use trunkline::Io;

const RUNS: usize = 500;

/// The two ends of one connection through the proxy.
struct Ends {
    client: TcpStream,
    backend: TcpStream,
}

/// Plays an ending 500 times with each number of threads and each `--io` that there is; the access log must say `end` and
/// `clean` each time.
fn check(end: &str, clean: bool, play: fn(Ends)) {
    let uring: &[&str] = if Io::Auto.here(1) == Io::Uring { &["uring"] } else { &[] };
    let ways = uring.iter().chain(&["epoll", "std"]).flat_map(|io| [("1", *io), ("2", *io)]);
    for (threads, io) in ways {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = listener.local_addr().expect("bound").to_string();
        let flags =
            ["--backend", &place, "--threads", threads, "--io", io, "--connect-timeout", "10s"];
        let mut binary = Binary::start(&flags);
        for run in 0..RUNS {
            let client = TcpStream::connect(binary.address()).expect("the proxy listens");
            let (backend, _) = listener.accept().expect("the proxy dials");
            for socket in [&client, &backend] {
                socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
                socket.set_nodelay(true).expect("a socket");
            }
            play(Ends { client, backend });
            let line = binary.closed();
            let said = (line["end"].as_str(), line["clean"].as_bool());
            assert_eq!(
                said,
                (Some(end), Some(clean)),
                "run {run}, {threads} threads, io {io}: {line}"
            );
        }
        let stopped = binary.stop();
        assert!(stopped.status.success());
        let ended = if clean { "all_clean" } else { "all_aborted" };
        assert_eq!(stopped.log.last().map(|line| &line[ended]), Some(&Value::from(RUNS)));
    }
}

/// Reads exactly these bytes.
fn expect(mut from: &TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    from.read_exact(&mut got).expect("the bytes arrive");
    assert_eq!(got, bytes);
}

/// Reads the clean end of the stream.
fn expect_fin(mut from: &TcpStream) {
    assert_eq!(from.read(&mut [0; 16]).expect("a clean end"), 0);
}

/// Reads a reset: never a clean end, and never a byte more.
fn expect_reset(mut from: &TcpStream) {
    let error = from.read(&mut [0; 16]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn send(mut to: &TcpStream, bytes: &[u8]) {
    to.write_all(bytes).expect("the bytes are taken");
}

fn reset(socket: TcpStream) {
    let linger = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    linger.expect("a socket");
}

#[test]
fn the_client_ends_its_sending_first_and_gets_its_answer() {
    check("client/data", true, |Ends { client, backend }| {
        send(&client, b"request");
        client.shutdown(Shutdown::Write).expect("open");
        expect(&backend, b"request");
        expect_fin(&backend);
        send(&backend, b"an answer after the client's end");
        drop(backend);
        expect(&client, b"an answer after the client's end");
        expect_fin(&client);
    });
}

#[test]
fn the_backend_ends_its_sending_first_and_goes_on_receiving() {
    check("backend/data", true, |Ends { client, backend }| {
        send(&backend, b"greeting");
        backend.shutdown(Shutdown::Write).expect("open");
        expect(&client, b"greeting");
        expect_fin(&client);
        send(&client, b"a request after the backend's end");
        drop(client);
        expect(&backend, b"a request after the backend's end");
        expect_fin(&backend);
    });
}

#[test]
fn a_reset_by_the_client_is_a_reset_of_the_backend() {
    check("client/data", false, |Ends { client, backend }| {
        send(&client, b"request");
        expect(&backend, b"request");
        reset(client);
        expect_reset(&backend);
    });
}

#[test]
fn a_reset_by_the_backend_is_a_reset_of_the_client() {
    check("backend/data", false, |Ends { client, backend }| {
        send(&client, b"request");
        expect(&backend, b"request");
        reset(backend);
        expect_reset(&client);
    });
}

#[test]
fn a_backend_that_resets_after_the_clients_end_resets_the_client() {
    check("backend/half-closed", false, |Ends { client, backend }| {
        client.shutdown(Shutdown::Write).expect("open");
        expect_fin(&backend);
        reset(backend);
        expect_reset(&client);
    });
}

#[test]
fn a_client_that_resets_after_the_backends_end_resets_the_backend() {
    check("client/half-closed", false, |Ends { client, backend }| {
        backend.shutdown(Shutdown::Write).expect("open");
        expect_fin(&client);
        reset(client);
        expect_reset(&backend);
    });
}

/// What a process that dies leaves to its kernel, which closes its sockets. Nothing was sent or owed, so it is an end
/// like any other; the client, told of it, closes.
#[test]
fn a_backend_that_dies_while_its_writer_is_idle_ends_the_client_too() {
    check("backend/data", true, |Ends { client, backend }| {
        send(&client, b"request");
        expect(&backend, b"request");
        send(&backend, b"answer");
        expect(&client, b"answer");
        drop(backend);
        expect_fin(&client);
        drop(client);
    });
}

#[test]
fn bytes_for_a_dead_backend_are_lost_with_a_reset_and_not_in_silence() {
    check("backend/half-closed", false, |Ends { client, backend }| {
        drop(backend);
        expect_fin(&client);
        // The first bytes meet a closed socket, whose kernel resets; the next find that out.
        let mut client = client;
        while client.write_all(b"more").is_ok() {}
    });
}

/// The answer must come whole although writing the rest of the request fails; then the reset.
#[test]
fn a_backend_that_answers_without_reading_the_request_has_its_answer_delivered() {
    check("backend/data", false, |Ends { client, mut backend }| {
        send(&client, &[b'x'; 20_000]);
        // Its kernel holds bytes of the request, so that closing resets.
        backend.read_exact(&mut [0; 1]).expect("the request arrives");
        send(&backend, b"HTTP/1.1 413 Content Too Large\r\n\r\n");
        drop(backend);
        expect(&client, b"HTTP/1.1 413 Content Too Large\r\n\r\n");
        expect_reset(&client);
    });
}

/// The same while the request still flows, so that the proxy's write is what meets the reset first.
#[test]
fn an_answer_outlives_the_failed_write_of_a_request_that_still_flows() {
    check("backend/data", false, |Ends { client, mut backend }| {
        let mut uploading = client.try_clone().expect("a socket");
        let upload = std::thread::spawn(move || {
            loop {
                if let Err(error) = uploading.write_all(&[b'x'; 16_384]) {
                    return error.kind();
                }
            }
        });
        backend.read_exact(&mut [0; 100_000]).expect("the request flows");
        send(&backend, b"enough");
        drop(backend);
        expect(&client, b"enough");
        // A kernel tells a reset once, and here two calls ask. If the upload was told, the read sees a plain end.
        let mut client = client;
        let read = client.read(&mut [0; 16]).map_err(|error| error.kind());
        let upload = upload.join().expect("the upload ends with an error");
        let told = [read.err(), Some(upload)].contains(&Some(ErrorKind::ConnectionReset));
        assert!(told, "{read:?} {upload:?}");
        assert_ne!(read, Ok(16));
    });
}

#[test]
fn a_client_that_leaves_without_reading_the_answer_has_its_last_words_delivered() {
    check("client/data", false, |Ends { mut client, backend }| {
        send(&backend, &[b'x'; 20_000]);
        client.read_exact(&mut [0; 1]).expect("the answer arrives");
        send(&client, b"stop, I have seen enough");
        drop(client);
        expect(&backend, b"stop, I have seen enough");
        expect_reset(&backend);
    });
}
