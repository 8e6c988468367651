//! `trunkline faults` before Redis, by Toxiproxy's own clients, unchanged; and twice with the same seed.

use super::*;
use serde_json::json;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};

pub(crate) fn python() {
    run(clients::script("toxiproxy.py"), "toxiproxy.py");
}

pub(crate) fn node() {
    run(clients::script("toxiproxy.mjs"), "toxiproxy.mjs");
}

/// Runs a script of this folder, which prints a line for each thing that it has shown.
fn run(mut command: Command, script: &str) {
    let redis = redis::server();
    let faults = Binary::faults(&["--seed", "7"]);
    let api = faults.address();
    command.args([api.ip().to_string(), api.port().to_string(), redis.port.to_string()]);
    let ended = succeed(&mut command, "");
    assert_eq!(ended.stderr(), "", "{script} complains");
    assert!(ended.stdout().lines().count() > 14, "{script} has shown only:\n{}", ended.stdout());
    stop(faults);
}

fn stop(faults: Binary) {
    let stopped = faults.stop();
    assert_eq!((stopped.status.code(), stopped.stderr.as_str()), (Some(0), ""));
}

/// What a client and the log saw of one connection.
#[derive(Debug, PartialEq)]
struct Seen {
    bytes: Vec<u8>,
    /// None is a clean end.
    error: Option<ErrorKind>,
    log: Vec<Value>,
}

pub(crate) fn same_again() {
    let redis = redis::server();
    let connections = || (1..=20).map(|number| format!("connection {number}"));
    let [first, second, other] = [7, 7, 8].map(|seed| play(seed, &redis));
    for (connection, (first, second)) in connections().zip(first.iter().zip(&second)) {
        assert_eq!(first.summary(), second.summary(), "{connection} of the two runs with seed 7");
        assert!(first == second, "{connection}: the bytes of the two runs with seed 7 differ");
    }
    assert!(first != other, "seed 8 does the same as seed 7");
    // Else this has shown little: every toxic has been met, and so has none.
    let causes = first.iter().map(|seen| seen.log[1].as_str().unwrap_or_default());
    let causes: BTreeSet<&str> = causes.collect();
    let all = ["", "limit_data_downstream", "limit_data_upstream", "reset_peer_downstream"];
    assert_eq!(causes, all.into_iter().chain(["reset_peer_upstream"]).collect(), "the causes");
}

impl Seen {
    fn summary(&self) -> String {
        format!("{} bytes, then {:?}; the log: {:?}", self.bytes.len(), self.error, self.log)
    }
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// Twenty connections, one after the other, through toxics that are a matter of chance.
fn play(seed: u64, redis: &Server) -> Vec<Seen> {
    let mut faults = Binary::faults(&["--seed", &seed.to_string()]);
    let api = faults.address();
    let new = json!({"name": "p", "listen": "127.0.0.1:0", "upstream": redis.address()});
    let proxy = post(api, "/proxies", &new);
    let proxy: SocketAddr =
        proxy["listen"].as_str().and_then(|at| at.parse().ok()).expect("a port");
    // Each breaks off in the middle of a command or of a reply, each of another one: so there is no answer to what
    // still comes through, which would race with the end.
    for (stream, kind, attributes, after_bytes) in [
        ("upstream", "reset_peer", json!({}), 3 * PING.len() + 5),
        ("upstream", "limit_data", json!({"bytes": 5 * PING.len() + 5}), 0),
        ("downstream", "reset_peer", json!({}), 4 * PONG.len() + 3),
        // Beyond the PONGs.
        ("downstream", "limit_data", json!({"bytes": 5000}), 0),
    ] {
        let toxic = json!({"type": kind, "stream": stream, "toxicity": 0.5, "attributes": attributes,
            "on": {"after_bytes": after_bytes}});
        post(api, "/proxies/p/toxics", &toxic);
    }
    for (stream, average_size) in [("upstream", 5), ("downstream", 200)] {
        let sizes =
            json!({"average_size": average_size, "size_variation": average_size - 1, "delay": 100});
        let toxic = json!({"type": "slicer", "stream": stream, "attributes": sizes});
        post(api, "/proxies/p/toxics", &toxic);
    }
    let seen = (0..20).map(|_| {
        let (bytes, error) = converse(proxy);
        let line = faults.closed();
        let log = ["end", "cause", "to_client", "to_backend"].map(|field| line[field].clone());
        Seen { bytes, error, log: log.into() }
    });
    let seen = seen.collect();
    stop(faults);
    seen
}

/// Six PINGs, each after the reply to the one before; then 10 kB come back, if it comes to that.
fn converse(proxy: SocketAddr) -> (Vec<u8>, Option<ErrorKind>) {
    let mut client = TcpStream::connect(proxy).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut bytes = Vec::new();
    let value = text(10_000);
    let echo = format!("*2\r\n$4\r\nECHO\r\n$10000\r\n{value}\r\n");
    let replies = [(PING, PONG.len()); 6].into_iter().chain([(echo.as_bytes(), 10_010)]);
    for (command, reply) in replies {
        client.write_all(command).expect("the connection is open between two commands");
        let mut read = vec![0; reply];
        let mut came = 0;
        while came < reply {
            match client.read(&mut read[came..]) {
                Ok(0) => return ([bytes, read[..came].to_vec()].concat(), None),
                Ok(more) => came += more,
                Err(error) => {
                    return ([bytes, read[..came].to_vec()].concat(), Some(error.kind()));
                }
            }
        }
        bytes.extend(read);
    }
    (bytes, None)
}

/// Asks the API for something new, which it must make; returns what it says of it.
fn post(api: SocketAddr, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {api}\r\nContent-Length: {length}\r\n");
    let mut client = TcpStream::connect(api).expect("the API listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!("{head}Connection: close\r\n\r\n{body}");
    client.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers in time, and closes");
    let (head, said) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 20"), "POST {path} {body}: {answer}");
    serde_json::from_str(said).expect("it says JSON")
}
