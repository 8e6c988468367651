//! What a request and a connection cost that does not depend on how fast the machine is.

use super::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;
use trunkline::Io;

const REQUESTS: u32 = 20_000;

/// System calls a request, by name, while fifty clients ask for one thing after the other.
fn calls(place: &str, flags: &[&str]) -> BTreeMap<String, f64> {
    let proxy = Binary::start(&[&["--backend", place], flags].concat());
    let port = proxy.address().port().to_string();
    let mut benchmark = program("redis-benchmark");
    let count = REQUESTS.to_string();
    benchmark.args(["-p", &port, "-c", "50", "-t", "set", "-q", "-n", &count]);
    let (_, printed) = program::traced(proxy.pid(), || succeed(&mut benchmark, ""));
    let each = |(name, count)| (name, count as f64 / f64::from(REQUESTS));
    let calls: BTreeMap<_, _> = measure::strace(&printed).into_iter().map(each).collect();
    assert!(calls.values().sum::<f64>() > 0.0, "{printed}");
    calls
}

pub(crate) fn system_calls() {
    let redis = redis::server();
    let check = |flags: &[&str], most_all: f64, moving: [f64; 2]| {
        let calls = calls(&redis.address(), flags);
        let sum =
            |names: &[&str]| -> f64 { names.iter().filter_map(|name| calls.get(*name)).sum() };
        let moved = sum(&["recvfrom", "sendto", "sendmsg"]);
        let all: f64 = calls.values().sum();
        let [least, most] = moving;
        assert!((least..=most).contains(&moved), "{flags:?}: {moved} a request: {calls:?}");
        assert!(all <= most_all, "{flags:?}: {all} a request: {calls:?}");
    };
    let mux = ["--mode", "mux", "--framing", "resp", "--io"];
    // Two to receive, two to send; fifty clients share the waits. Connecting is among them.
    check(&["--io", "epoll"], 4.3, [3.9, 4.1]);
    // async-std's reactor asks anew for each wait.
    check(&["--io", "std"], 20.0, [3.9, 4.1]);
    // One each for the client; the trunk's are shared.
    check(&[&mux[..], &["epoll"]].concat(), 2.6, [1.9, 2.4]);
    // One call for all that fifty clients send and are sent in a turn.
    if Io::Auto.here(1) == Io::Uring {
        check(&["--io", "uring"], 1.0, [0.0, 0.1]);
        check(&[&mux[..], &["uring"]].concat(), 1.0, [0.0, 0.1]);
    }
}

pub(crate) fn memory() {
    const PAIRS: usize = 300;
    let redis = redis::server();
    let proxy = Binary::start(&["--backend", &redis.address()]);
    let connect = || {
        let mut client = TcpStream::connect(proxy.address()).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client.write_all(b"PING\r\n").expect("the proxy reads");
        client.read_exact(&mut [0; 7]).expect("a reply");
        client
    };
    let mut clients: Vec<_> = (0..50).map(|_| connect()).collect();
    let before = proxy.status_kb("VmRSS");
    clients.extend((0..PAIRS).map(|_| connect()));
    let grown = proxy.status_kb("VmRSS").saturating_sub(before);
    let each = grown as f64 / PAIRS as f64;
    assert!(each <= 24.0, "an idle pair takes {each} kB");
}
