//! **New here**: three rules end all actors, which now stand in one line: client_reader ->
//! backend_writer -> backend_reader -> client_writer. (1) A mailbox empties itself with its actor.
//! (2) An actor races its wait with `closed()` of the next: death spreads left with no message.
//! (3) A mailbox that closes without `Fin` means abort: the peers get a reset, never a clean end.
//!
//! **Still wrong**: a write that fails ends all four at once, and may throw away an answer that the
//! peer had already sent. There are no limits, and no drain: `09_limits_and_drain` has them.
//!
//! **Run**: `cargo run --example 05_endings`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{block_on, spawn};
use futures_lite::future::{or, try_zip};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::{array, error::Error, io::ErrorKind, net::Shutdown, time::Duration};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

enum Message {
    Chunk(Vec<u8>),
    Fin,
}

struct Mailbox(Receiver<Message>);

/// Rule 1. Else what nobody will read (a reply address, say) lives until the last address is gone.
impl Drop for Mailbox {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

/// Rule 2. All work is raced with this. To lose is to abort, so half a write does no harm then.
async fn gone(right: &Sender<Message>) -> Result {
    right.closed().await;
    Err("the actor on the right has ended".into())
}

/// Ends well after the end of its socket and the `Fin` from its left. Until both, that one may die.
async fn read_half(mut socket: TcpStream, left: Mailbox, right: Sender<Message>) -> Result {
    let reading = async {
        let mut buffer = [0; 4096];
        while let read @ 1.. = socket.read(&mut buffer).await? {
            right.send(Message::Chunk(buffer[..read].to_vec())).await?;
        }
        Ok(right.send(Message::Fin).await?)
    };
    try_zip(or(reading, gone(&right)), async { Ok(left.0.recv().await?) }).await.map(drop)
}

/// By rule 3 only `Fin` leads to `shutdown`. A mailbox that closes without it makes `recv` fail.
async fn write_half(mut socket: TcpStream, left: Mailbox, right: Sender<Message>) -> Result {
    let writing = async {
        while let Message::Chunk(chunk) = left.0.recv().await? {
            socket.write_all(&chunk).await?;
        }
        socket.shutdown(Shutdown::Write)?;
        Ok(right.send(Message::Fin).await?)
    };
    or(writing, gone(&right)).await
}

/// Joins all four, and returns how many have ended well. Unless all have, the peers get a reset.
async fn connection(client: TcpStream, backend: TcpStream) -> Result<usize> {
    // Each actor has an address, `.0`, and a mailbox, `.1`. The line begins and ends with nobody.
    let [client_reader, backend_writer, backend_reader, client_writer, nobody] =
        array::from_fn(|_| bounded(8));
    client_reader.0.send(Message::Fin).await?;
    let mut well = 0;
    for actor in [
        spawn(read_half(client.clone(), Mailbox(client_reader.1), backend_writer.0)),
        spawn(write_half(backend.clone(), Mailbox(backend_writer.1), backend_reader.0)),
        spawn(read_half(backend.clone(), Mailbox(backend_reader.1), client_writer.0)),
        spawn(write_half(client.clone(), Mailbox(client_writer.1), nobody.0)),
    ] {
        well += usize::from(actor.await.is_ok());
    }
    if well == 4 { Ok(4) } else { reset(client).and(reset(backend)).and(Ok(well)) }
}

/// Linger 0 makes a reset. Only a last clone converts to std's type, so no actor has one by then.
fn reset(socket: TcpStream) -> Result {
    let socket = std::net::TcpStream::try_from(socket)?;
    Ok(socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?)
}

fn main() -> Result {
    block_on(async {
        let (address, receiver) = bounded(1);
        address.send(Message::Fin).await.map(|()| drop(Mailbox(receiver)))?;
        assert!(address.is_empty(), "by rule 1, although the address is still here");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?;
        for case in ["client ends", "backend ends", "client resets", "backend resets"] {
            let (mut one, near) = (TcpStream::connect(port).await?, listener.accept().await?.0);
            let (mut other, far) = (TcpStream::connect(port).await?, listener.accept().await?.0);
            let (client, backend) = if case.contains("client") { (near, far) } else { (far, near) };
            let (proxy, mut heard) = (spawn(connection(client, backend)), vec![0; 5]);
            one.write_all(b"hello").await?;
            other.read_exact(&mut heard).await?;
            if case.contains("ends") {
                one.shutdown(Shutdown::Write)?;
                assert_eq!(other.read(&mut [0]).await?, 0);
                other.write_all(b", goodbye").await?;
                other.shutdown(Shutdown::Write)?;
                one.read_to_end(&mut heard).await?;
                assert_eq!((&heard[..], proxy.await?), (&b"hello, goodbye"[..], 4));
            } else {
                reset(one)?;
                let not_ok_0 = other.read(&mut [0]).await.map_err(|error| error.kind());
                assert_eq!((not_ok_0, proxy.await?), (Err(ErrorKind::ConnectionReset), 0));
            }
            println!("{case}: the other side sees just that, and all four actors have ended");
        }
        Ok(())
    })
}
