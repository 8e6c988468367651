//! A test of a small Redis client, whose connection breaks in the middle of a reply.
//!
//! **New here**: the fault happens at an exact byte, every time. A `FakeBackend` plays a script and resets where the
//! script says; `Faults` puts the same reset between the client and a backend that is well. The client is ordinary
//! blocking code: the fake peers run in threads of their own, and where the test waits for one, `block_on` is enough.
//!
//! **Still wrong**: a client overlooks no reset. Silence, delay and small pieces are harder, and are not tried here:
//! they are other `Fault`s. And these faults are those that somebody thought of; `simulate` draws them by seed.
//!
//! **Run**: `cargo run --example 10_fake_backend`; it needs the feature `testing`, which the default features have.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{error::Error, time::Duration};
use trunkline::testing::behaviours::Script;
use trunkline::testing::faults::{Fault, Faults, Toxic};
use trunkline::testing::{Behaviour, FakeBackend, Peer, Seen, block_on};
use trunkline::{Boxed, Endpoint};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What is tested. `broke_behind` has, for each connection that broke, how much of a reply had come.
struct Client {
    server: SocketAddr,
    connection: Option<TcpStream>,
    broke_behind: Vec<usize>,
}

impl Client {
    fn new(server: SocketAddr) -> Client {
        Client { server, connection: None, broke_behind: Vec::new() }
    }

    fn command(&mut self, name: &str, key: &str) -> Result<String> {
        let request = format!("*2\r\n${}\r\n{name}\r\n${}\r\n{key}\r\n", name.len(), key.len());
        let mut tries = if name == "GET" { 2 } else { 1 };
        loop {
            let old = self.connection.take();
            let mut socket = old.map_or_else(|| TcpStream::connect(self.server), Ok)?;
            let mut came = Vec::new();
            let error = match exchange(&mut socket, &request, &mut came) {
                Ok(reply) => {
                    // Kept only now: behind half a reply comes the other half, not the next one.
                    self.connection = Some(socket);
                    return Ok(reply);
                }
                Err(error) => error.kind(),
            };
            self.broke_behind.push(came.len());
            tries -= 1;
            if tries == 0 {
                let reply = format!("{error} behind byte {} of its reply", came.len());
                return Err(format!("{name} {key} may have been done or not: {reply}").into());
            }
        }
    }
}

/// If the connection breaks, `came` has what had come of the reply.
fn exchange(socket: &mut TcpStream, request: &str, came: &mut Vec<u8>) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(request.as_bytes())?;
    loop {
        let mut buffer = [0; 1024];
        match socket.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => came.extend_from_slice(&buffer[..count]),
        }
        // Either one line, which is returned as it came, or `$5` and then five bytes on a line.
        let whole = came.strip_suffix(b"\r\n").map(String::from_utf8_lossy);
        match whole.as_deref().map(|reply| reply.split_once("\r\n").ok_or(reply)) {
            Some(Ok((size, text))) if size == format!("${}", text.len()) => return Ok(text.into()),
            Some(Err(line)) if !line.starts_with('$') || line == "$-1" => return Ok(line.into()),
            _ => {}
        }
    }
}

/// Plays the first script on the first connection, and so on.
struct InTurn(Vec<Script>, AtomicUsize);

impl Behaviour for InTurn {
    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        self.0[self.1.fetch_add(1, Ordering::Relaxed) % self.0.len()].run(peer)
    }
}

const GET: &str = r#"expect "*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n""#;
