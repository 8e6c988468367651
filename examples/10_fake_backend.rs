//! A test of a small Redis client, whose connection breaks in the middle of a reply.
//!
//! **New here**: the fault happens at an exact byte, every time. A `FakeBackend` plays a script and resets where the
//! script says; `Faults` puts the same reset between the client and a backend that is well. The client is ordinary
//! blocking code: the fake peers run in threads of their own, and where the test waits for one, `block_on` is enough.
//!
//! **Still wrong**: a reset is the fault that no client overlooks. Silence, delay and small pieces are other `Fault`s,
//! and not tried here. And these faults are those that somebody thought of; `simulate` draws them by seed.
//!
//! **Run**: `cargo run --example 10_fake_backend`; it needs the feature `testing`, which the default features have.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{error::Error, time::Duration};
use trunkline::testing::behaviours::Script;
use trunkline::testing::faults::{Fault, Faults, Toxic};
use trunkline::testing::{Behaviour, FakeBackend, Peer, Seen, block_on};
use trunkline::{Boxed, Endpoint};

/// What is tested: a server, a connection to it if there is one, and all that went wrong.
struct Client(SocketAddr, Option<TcpStream>, Vec<String>);

impl Client {
    /// A reply, as text. Only a command that changes nothing is sent again when the connection breaks.
    fn command(&mut self, name: &str, key: &str) -> Result<String, Box<dyn Error>> {
        let (request, mut came) =
            (format!("*2\r\n${}\r\n{name}\r\n${}\r\n{key}\r\n", name.len(), key.len()), vec![]);
        let error = match self.attempt(&request, &mut came) {
            Ok(reply) => return Ok(reply),
            Err(error) => format!("{} behind byte {} of the reply", error.kind(), came.len()),
        };
        self.2.push(error.clone());
        match name {
            "GET" => Ok(self.attempt(&request, &mut Vec::new())?),
            _ => Err(format!("{name} {key} may have been done or not: {error}").into()),
        }
    }

    /// When the connection breaks, `came` has the beginning of the reply.
    fn attempt(&mut self, request: &str, came: &mut Vec<u8>) -> io::Result<String> {
        let Client(server, connection, _) = self;
        let mut socket = connection.take().map_or_else(|| TcpStream::connect(*server), Ok)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(request.as_bytes())?;
        loop {
            let mut buffer = [0; 1024];
            match socket.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => came.extend_from_slice(&buffer[..count]),
            }
            if let Some(text) = text(&String::from_utf8_lossy(came)) {
                // Kept only now: behind half a reply the other half may come, and not the next one.
                *connection = Some(socket);
                return Ok(text.to_string());
            }
        }
    }
}

/// The five bytes behind `$5`, or the one line as it came; None before all of it has come.
fn text(reply: &str) -> Option<&str> {
    let (line, rest) = reply.split_once("\r\n")?;
    match line.strip_prefix('$').map(str::parse::<usize>) {
        Some(Ok(size)) => rest.strip_suffix("\r\n").filter(|text| text.len() == size),
        _ => Some(line),
    }
}

/// Plays the first script on the first connection, and so on.
struct InTurn([Script; 2], AtomicUsize);

impl Behaviour for InTurn {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        self.0[self.1.fetch_add(1, Relaxed) % 2].run(peer)
    }
}

const HALF_A_REPLY: &str = r#"
    expect "*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n"
    send "$5\r\nhel"
    reset"#;
const REPLY: &str = r#"
    expect "*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n"
    send "$5\r\nhello\r\n"
    drain"#;
const MAYBE: &str = r#"
    expect "*2\r\n$4\r\nINCR\r\n$4\r\nhits\r\n"
    send ":1"
    reset"#;

fn main() -> Result<(), Box<dyn Error>> {
    let backend =
        FakeBackend::new(InTurn([HALF_A_REPLY.parse()?, REPLY.parse()?], 0.into())).listen();
    let mut client = Client(backend.address(), None, Vec::new());
    assert_eq!(client.command("GET", "greeting")?, "hello");
    assert_eq!(
        (client.2, backend.accepted()),
        (vec!["connection reset behind byte 7 of the reply".to_string()], 2)
    );
    println!();

    // `:1` is the beginning of `:1`, of `:12` and of many more, and nobody knows whether it was done.
    let backend = FakeBackend::script(MAYBE).listen();
    let mut client = Client(backend.address(), None, Vec::new());
    let error = client.command("INCR", "hits").expect_err("it must not be sent again").to_string();
    assert_eq!(
        error,
        "INCR hits may have been done or not: connection reset behind byte 2 of the reply"
    );
    assert_eq!(backend.accepted(), 1);
    println!("client: {error}");

    let backend = FakeBackend::script(REPLY).listen();
    // Nothing is drawn here, so any seed will do.
    let faults = Faults::start(1);
    let proxy = block_on(faults.proxy("redis", backend.address()))?;
    let Endpoint::Ip(address) = proxy.listen else { return Err("no IP address".into()) };
    for byte in 0.."$5\r\nhello\r\n".len() {
        block_on(faults.reset())?;
        let fault = Fault::ResetPeer { timeout: Duration::ZERO };
        let toxic = Toxic::new(fault).on_connection(1).after_bytes(byte as u64);
        block_on(faults.add("redis", toxic))?;
        let mut client = Client(address, None, Vec::new());
        assert_eq!(client.command("GET", "greeting")?, "hello");
        assert_eq!(client.2, [format!("connection reset behind byte {byte} of the reply")]);
        println!("client: {}, and the second connection answers", client.2[0]);
    }
    Ok(())
}
