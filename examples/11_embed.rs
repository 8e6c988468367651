//! The proxy inside another program: bound, watched, asked, ended and stopped by it.
//!
//! **New here**: the library's whole surface. `Proxy::builder` takes the settings, `bind` listens and tells the port,
//! `run` carries connections until the future that you give it is ready, `Events` tells what happens, and a `Handle`
//! looks in meanwhile. The program chooses the logger; here it is femme.
//!
//! **Still wrong**: `tunnel` is the only mode, so each client costs a backend socket of its own.
//!
//! **Run**: `cargo run --example 11_embed`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use futures_lite::future::block_on;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use trunkline::{ConnId, Ended, Endpoint, Events, Proxy, Side};

/// Counts what happens. A callback runs inside an actor, so it only counts, and never waits.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    clean: AtomicU64,
    aborted: AtomicU64,
}

impl Events for Counts {
    fn on_receive(&self, _: ConnId, from: Side, bytes: &[u8]) {
        if from == Side::Client {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            self.requests.fetch_add(lines as u64, Ordering::Relaxed);
        }
    }

    fn on_close(&self, ended: &Ended) {
        println!("connection {} ended: {}, clean: {}", ended.conn, ended.code(), ended.clean);
        let count = if ended.clean { &self.clean } else { &self.aborted };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A backend that sends everything back.
fn echo_backend() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // Each connection is copied to its end; a client that breaks off ends its thread with an error.
            thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
        }
    });
    Ok(address)
}

/// A client that has had one answer.
fn client(proxy: SocketAddr) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(proxy)?;
    client.write_all(b"hello\n")?;
    let mut answer = [0; 6];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello\n");
    Ok(client)
}

fn main() -> Result<(), Box<dyn Error>> {
    femme::with_level(femme::LevelFilter::Warn);
    let counts = Arc::new(Counts::default());
    let listen: SocketAddr = ([127, 0, 0, 1], 0).into();

    // Bind first: from here on clients may connect, although nobody is served yet.
    let building = Proxy::builder().listen(listen).backend(echo_backend()?).events(counts.clone());
    let proxy = block_on(building.with(|config| config.max_conn = 100).bind())?;
    let Endpoint::Ip(address) = proxy.endpoints()[0] else { return Err("no IP address".into()) };
    let handle = proxy.handle();

    // Then run, on a thread of this program's choice. Dropping `stop` is what stops it.
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let running = thread::spawn(move || {
        block_on(proxy.run(async move {
            let _ = stopped.recv().await;
        }))
    });

    let polite = client(address)?;
    let mut victim = client(address)?;

    // The directory lists connections by id, oldest first, and ends the one that it is told to.
    let listed = block_on(handle.list());
    assert_eq!(listed.len(), 2);
    for entry in &listed {
        println!("connection {} from {}: {} bytes back", entry.conn, entry.client, entry.to_client);
    }
    assert!(block_on(handle.end(listed[1].conn)));
    let error = victim.read(&mut [0; 1]).expect_err("ended by order is no clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // Stopping lets what is in flight finish: the polite client leaves by itself.
    drop(stop);
    drop(polite);
    let report = running.join().expect("the proxy does not panic");
    assert_eq!((report.accepted, report.clean, report.aborted), (2, 1, 1));
    assert_eq!(counts.requests.load(Ordering::Relaxed), 2);
    assert_eq!(counts.clean.load(Ordering::Relaxed), 1);
    assert_eq!(counts.aborted.load(Ordering::Relaxed), 1);
    println!("{} bytes went to the backend and {} came back", report.to_backend, report.to_client);
    Ok(())
}
