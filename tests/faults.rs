//! `trunkline faults` as its user meets it: its flags, its file, its end. What it does by its API is tested by
//! Toxiproxy's own clients (tests/servers/toxiproxy.rs), and what the toxics do in tests/tunnel/faults.rs.

use crate::binary::{Binary, PATIENCE, run};
use crate::folder::Folder;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use trunkline::testing::FakeBackend;

#[test]
fn what_is_typed_wrong_is_said_in_one_line_with_how_to_mend_it() {
    let folder = Folder::new();
    let check = |flags: &[&str], code: i32, part: &str| {
        let output = run(&[&["faults", "--api", "127.0.0.1:0"], flags].concat());
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{flags:?}: {said}");
    };
    let file = |text: &str| {
        let path = folder.path("proxies.json");
        std::fs::write(&path, text).expect("written");
        path
    };
    let config = |text: &str, code: i32, part: &str| check(&["--config", &file(text)], code, part);
    check(&["--sed", "7"], 2, "Did you mean \"--seed\"?");
    check(&["--seed", "seven"], 2, "\"seven\" is not a whole number");
    check(&["--config", "/nonexistent"], 1, "cannot read /nonexistent: no such file");
    config("{}", 2, "write [{\"name\": \"redis\"");
    config("[{\"upstream\": \"127.0.0.1:1\"}]", 2, "proxy 1 has no name");
    config("[{\"name\": \"a\"}]", 2, "proxy 1 has no upstream");
    config(
        "[{\"name\": \"a\", \"upstream\": \"b\"}]",
        2,
        "proxy \"a\": upstream: \"b\" has no port",
    );
    let one = "{\"name\": \"a\", \"upstream\": \"127.0.0.1:1\"}";
    config(&format!("[{one}, {one}]"), 2, "there are two proxies \"a\"");
    let held = FakeBackend::echo().listen();
    let taken = held.address();
    let there = format!("\"upstream\": \"127.0.0.1:1\", \"listen\": \"{taken}\"");
    config(&format!("[{{\"name\": \"a\", {there}}}]"), 1, "proxy \"a\": cannot listen on");
    let output = run(&["faults", "--api", &taken.to_string()]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("address already in use") && said.contains("another --api"), "{said}");
}

#[test]
fn the_proxies_of_the_file_serve_until_it_is_told_to_stop() {
    let backend = FakeBackend::echo().listen();
    let folder = Folder::new();
    let file = folder.path("proxies.json");
    let proxy = format!("\"upstream\": \"{}\", \"listen\": \"127.0.0.1:0\"", backend.address());
    std::fs::write(&file, format!("[{{\"name\": \"echo\", {proxy}}}]")).expect("written");
    let faults = Binary::faults(&["--seed", "7", "--config", &file]);
    let said = |part: &str| {
        let line = faults.log.iter().find(|line| line["msg"] == part);
        line.unwrap_or_else(|| panic!("{part:?} was not said: {:#?}", faults.log)).clone()
    };
    let (listening, api) = (said("listening"), said("the API listens"));
    assert_eq!((&listening["proxy"], &api["seed"]), (&"echo".into(), &7.into()));

    let connect = |line: &serde_json::Value, key: &str| {
        let stream =
            TcpStream::connect(line[key].as_str().expect("an address")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    };
    let mut client = connect(&listening, "listen");
    client.write_all(b"hello").expect("sent");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"hello");

    let mut asking = connect(&api, "api");
    asking
        .write_all(b"GET /proxies/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"name\":\"echo\""), "{answer}");

    // Ctrl-c, with a connection open: it is broken off, not forgotten.
    faults.signal(Signal::INT);
    let stopped = faults.wait();
    assert_eq!((stopped.status.code(), stopped.stderr.as_str()), (Some(0), ""));
    let error = client.read(&mut [0; 5]).map_err(|error| error.kind());
    assert_eq!(error, Err(std::io::ErrorKind::ConnectionReset));
}
