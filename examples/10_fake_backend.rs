//! **New here**: a test of another program, here a small Redis client, with a fault at an exact byte, every time.
//! A `FakeBackend` plays a script and resets where it says; `Faults` puts the same reset before a backend that is well.
//! The client is blocking code: the fakes run in threads of their own, and to wait for them `block_on` is enough.
//!
//! **Still wrong**: no client overlooks a reset. Silence, delay and small pieces are other faults, and not tried here.
//!
//! **Run**: `cargo run --example 10_fake_backend`; it needs the feature `testing`, which the default features have.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{error::Error, mem, time::Duration};
use trunkline::testing::faults::{Fault, Faults, Toxic};
use trunkline::testing::{Behaviour, FakeBackend, Peer, Seen, behaviours::Script, block_on};
use trunkline::{Boxed, Endpoint};

/// What is tested. For each connection that broke, it remembers how much of a reply had come.
struct Client {
    server: SocketAddr,
    connection: Option<TcpStream>,
    broke_behind: Vec<usize>,
}

impl Client {
    /// The reply as text. What only reads is sent once more when the connection breaks.
    fn command(&mut self, name: &str, key: &str) -> Result<String, Box<dyn Error>> {
        let request = format!("*2\r\n${}\r\n{name}\r\n${}\r\n{key}\r\n", name.len(), key.len());
        let mut again = name == "GET";
        loop {
            let old = self.connection.take();
            let mut socket = old.map_or_else(|| TcpStream::connect(self.server), Ok)?;
            let mut came = Vec::new();
            let Err(error) = exchange(&mut socket, &request, &mut came) else {
                // Kept only now: behind half a reply the other half may come, and not the next one.
                self.connection = Some(socket);
                return Ok(text(&came).unwrap_or_default());
            };
            self.broke_behind.push(came.len());
            if !mem::take(&mut again) {
                let how = format!("{} behind byte {} of the reply", error.kind(), came.len());
                return Err(format!("{name} {key} may or may not have been done: {how}").into());
            }
        }
    }
}

/// Returns when `came` is a whole reply. If the connection breaks, it is what had come of one.
fn exchange(socket: &mut TcpStream, request: &str, came: &mut Vec<u8>) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(request.as_bytes())?;
    while text(came).is_none() {
        // One at a time is slow, but takes nothing of the next reply.
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        came.extend(byte);
    }
    Ok(())
}

/// The five bytes behind `$5`, or else the one line as it came; None before all of it has come.
fn text(came: &[u8]) -> Option<String> {
    let came = String::from_utf8_lossy(came);
    let (line, rest) = came.split_once("\r\n")?;
    let Some(Ok(size)) = line.strip_prefix('$').map(str::parse) else { return Some(line.into()) };
    rest.strip_suffix("\r\n").filter(|text| text.len() == size).map(String::from)
}

/// Plays the first script on the first connection, the second on the second, and so on.
struct InTurn([Script; 2], AtomicUsize);

impl Behaviour for InTurn {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        self.0[self.1.fetch_add(1, Ordering::Relaxed) % 2].run(peer)
    }
}

const REPLY: &str = r#"
    expect "*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n"
    send "$5\r\nhello\r\n"
    drain"#;
const HALF_A_REPLY: &str = r#"
    expect "*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n"
    send "$5\r\nhel"
    reset"#;
const HALF_A_NUMBER: &str = r#"
    expect "*2\r\n$4\r\nINCR\r\n$4\r\nhits\r\n"
    send ":1"
    reset"#;

fn main() -> Result<(), Box<dyn Error>> {
    let new = |server| Client { server, connection: None, broke_behind: Vec::new() };
    let scripts = [HALF_A_REPLY.parse()?, REPLY.parse()?];
    let backend = FakeBackend::new(InTurn(scripts, AtomicUsize::new(0))).listen();
    let mut client = new(backend.address());
    assert_eq!(client.command("GET", "greeting")?, "hello");
    assert_eq!((client.broke_behind, backend.accepted()), (vec![7], 2));

    let backend = FakeBackend::script(HALF_A_NUMBER).listen();
    let error = new(backend.address()).command("INCR", "hits").expect_err("`:1` is no reply");
    assert!(error.to_string().ends_with("done: connection reset behind byte 2 of the reply"));
    block_on(backend.seen()); // Panics if what came is not what the script expects.
    assert_eq!(backend.accepted(), 1, "it was not sent again");

    // The same reset from outside, behind each byte in turn, and the backend knows nothing of it.
    let backend = FakeBackend::script(REPLY).listen();
    let faults = Faults::start(1); // The seed; a reset draws nothing, so any will do.
    let proxy = block_on(faults.proxy("redis", backend.address()))?;
    let Endpoint::Ip(address) = proxy.listen else { return Err("no IP address".into()) };
    for byte in 0.."$5\r\nhello\r\n".len() {
        block_on(faults.reset())?; // No toxics, and the next connection is number 1 again.
        let reset = Toxic::new(Fault::ResetPeer { timeout: Duration::ZERO });
        block_on(faults.add("redis", reset.on_connection(1).after_bytes(byte as u64)))?;
        let mut client = new(address);
        assert_eq!(client.command("GET", "greeting")?, "hello");
        assert_eq!(client.broke_behind, [byte]);
        println!("client: the connection broke behind byte {byte}, and the next one answered");
    }
    Ok(())
}
