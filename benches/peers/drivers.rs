//! Clients and servers of our own, for what the usual programs do not measure. Blocking, and the same for every proxy.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    // Nobody waits for ever for a proxy that has lost something.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)
}

/// Connects, asks and closes, so many times, one after the other.
pub(crate) fn short(port: u16, count: u32) -> io::Result<()> {
    (0..count).try_for_each(|_| ping(&mut connect(port)?))
}

/// The median of the times of so many requests by one connection, in microseconds.
pub(crate) fn alone(port: u16, count: u32) -> io::Result<f64> {
    let mut stream = connect(port)?;
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        ping(&mut stream)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    crate::measure::median(&times).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Connections that have asked once, and are silent now.
pub(crate) fn idle(port: u16, count: u32) -> io::Result<Vec<TcpStream>> {
    let open = |_| {
        let mut stream = connect(port)?;
        ping(&mut stream)?;
        Ok(stream)
    };
    (0..count).map(open).collect()
}

/// How long it takes from now until a request is answered, though nobody may listen yet.
pub(crate) fn first_answer(port: u16) -> io::Result<Duration> {
    let began = Instant::now();
    let answered = until(|| Ok(connect(port).and_then(|mut stream| ping(&mut stream)).ok()))?;
    answered.map(|()| began.elapsed()).ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Looks again and again, for at most five seconds, at what tells nobody when it changes.
#[expect(clippy::disallowed_methods, reason = "a process tells nobody that it listens")]
pub(crate) fn until<T>(mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let seen = look()?;
        if seen.is_some() || Instant::now() > deadline {
            return Ok(seen);
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Serves bytes for as long as the program runs: each connection says how many it wants.
pub(crate) fn serve_bulk(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever leaves early is seen by whoever counts.
            thread::spawn(move || give(stream));
        }
    });
    Ok(())
}

fn give(mut stream: TcpStream) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = usize::try_from(u64::from_be_bytes(wanted)).unwrap_or(0);
    let bytes = vec![b'x'; 256 << 10];
    while left > 0 {
        let part = left.min(bytes.len());
        stream.write_all(&bytes[..part])?;
        left -= part;
    }
    Ok(())
}

/// Takes so many bytes by each of so many connections at once.
pub(crate) fn bulk(port: u16, streams: u32, bytes: u64) -> io::Result<()> {
    let takers: Vec<_> = (0..streams).map(|_| thread::spawn(move || take(port, bytes))).collect();
    takers.into_iter().try_for_each(|taker| match taker.join() {
        Ok(taken) => taken,
        Err(_) => Err(io::Error::other("a client has panicked")),
    })
}

fn take(port: u16, bytes: u64) -> io::Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0; 256 << 10];
    let mut taken = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if taken == bytes => return Ok(()),
            0 => return Err(io::Error::other(format!("{taken} bytes came instead of {bytes}"))),
            count => taken += count as u64,
        }
    }
}
