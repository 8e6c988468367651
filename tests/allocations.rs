//! Once a connection runs, a message allocates nothing, in a tunnel or where frames are looked at: buffers are leased, and
//! everything else has its place.
//!
//! A crate of its own, for the allocator that counts is the whole program's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use trunkline::framing::Resp;
use trunkline::testing::block_on;
use trunkline::{Config, Endpoint, Io, PoolConfig, Proxy};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

const MESSAGES: u64 = 5000;

/// Blocks that are allocated for one request and its reply, when that has become routine.
fn blocks_per_message(io: Io, pool: Option<PoolConfig>) -> f64 {
    let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = backend.local_addr().expect("it is bound");
    // Neither this one nor the client below allocates.
    let serving = thread::spawn(move || {
        let (mut socket, _) = backend.accept().expect("the proxy dials");
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = socket.read(&mut bytes) {
            assert_eq!(&bytes[..count], b"PING\r\n");
            socket.write_all(b"+PONG\r\n").expect("the proxy reads");
        }
    });
    let config = Config {
        listen: vec![Endpoint::Ip(([127, 0, 0, 1], 0).into())],
        backends: vec![Endpoint::Ip(place)],
        io,
        // Whatever happens now and then is not what is measured.
        tick: Duration::from_secs(3600),
        idle_timeout: Duration::from_secs(3600),
        half_close_timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    let mut builder = Proxy::builder().config(config);
    if let Some(pool) = pool {
        builder = builder.pool(Resp::default(), pool);
    }
    let proxy = block_on(builder.bind()).expect("a free port");
    let address = match &proxy.endpoints()[0] {
        Endpoint::Ip(address) => *address,
        other => panic!("{other}"),
    };
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let running = thread::spawn(move || {
        block_on(proxy.run(async move {
            // This thread has nothing else to do.
            let _ = stopped.recv();
        }))
    });
    let mut client = TcpStream::connect(address).expect("it listens");
    let mut pings = |count: u64| {
        let mut reply = [0; 7];
        for _ in 0..count {
            client.write_all(b"PING\r\n").expect("the proxy reads");
            client.read_exact(&mut reply).expect("a reply");
            assert_eq!(&reply, b"+PONG\r\n");
        }
    };
    pings(MESSAGES);
    let before = dhat::HeapStats::get().total_blocks;
    pings(MESSAGES);
    let blocks = dhat::HeapStats::get().total_blocks - before;
    client.shutdown(Shutdown::Both).expect("it is connected");
    drop(stop);
    running.join().expect("the proxy has not panicked");
    serving.join().expect("the backend has not panicked");
    blocks as f64 / MESSAGES as f64
}

#[test]
fn what_a_message_allocates() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let check = |name: &str, io, pool, most: f64| {
        let blocks = blocks_per_message(io, pool);
        assert!(blocks <= most, "{name}: {blocks} blocks a message");
    };
    // A trunk's patience has a clock, which makes a timer every few seconds.
    let reply_timeout = None;
    let pool = |shared| Some(PoolConfig { shared, reply_timeout, ..PoolConfig::default() });
    // Nothing: less than one for a thousand is what happens now and then in the process.
    check("tunnel", Io::Auto, None, 0.001);
    check("tunnel, epoll", Io::Epoll, None, 0.001);
    check("mux", Io::Auto, pool(1), 0.001);
    check("pool", Io::Auto, pool(0), 0.001);
    // What comes from outside: async-std's reactor.
    check("tunnel, std", Io::Std, None, 8.0);
}
