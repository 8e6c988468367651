//! **New here**: three rules end all four actors, and show the peers how it ended. The four stand in
//! a line: client_reader -> backend_writer -> backend_reader -> client_writer. (1) A mailbox empties
//! itself when its actor ends. (2) While it waits, an actor watches `closed()` of the address that
//! it sends to: death spreads leftward with no message. (3) A mailbox that closes without `Fin`
//! means abort: death spreads rightward, and the peers get a reset, never a clean end.
//!
//! **Still wrong**: a write that fails takes the socket's error with it and ends all four, so a last
//! answer that has arrived is thrown away. Limits and draining wait for `09_limits_and_drain`.
//!
//! **Run**: `cargo run --example 05_endings`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{JoinHandle, block_on, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use std::{error::Error, io::ErrorKind, net::Shutdown, time::Duration};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

enum Message {
    Chunk(Vec<u8>),
    Fin,
}

struct Mailbox(Receiver<Message>);

/// Rule 1. Otherwise a message that nobody will read lives until the last address is dropped, and
/// so does all that it carries: its bytes, or a reply address at which somebody waits.
impl Drop for Mailbox {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

/// Rule 2. All work is raced with this, and a lost race is an abort: half a write is no loss then.
async fn gone(right: &Sender<Message>) -> Result {
    right.closed().await;
    Err("the actor on the right has ended".into())
}

/// `Ok` is a clean end, every error an abort. Besides the end of its socket a reader needs the `Fin`
/// of its left neighbour: until that has come, the neighbour may still die.
async fn read_half(mut socket: TcpStream, left: Mailbox, right: Sender<Message>) -> Result {
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        while let read @ 1.. = socket.read(&mut buffer).await? {
            right.send(Message::Chunk(buffer[..read].to_vec())).await?;
        }
        Ok(right.send(Message::Fin).await?)
    };
    // Rule 3: a neighbour that ends without `Fin`, the only message here, makes `recv` fail.
    let fin = async { Ok(drop(left.0.recv().await?)) };
    future::try_zip(future::or(reading, gone(&right)), fin).await.map(drop)
}

async fn write_half(mut socket: TcpStream, left: Mailbox, right: Sender<Message>) -> Result {
    let writing = async {
        // Rule 3 again: `recv` fails, and only `Fin` leads to the clean end of the socket.
        while let Message::Chunk(chunk) = left.0.recv().await? {
            socket.write_all(&chunk).await?;
        }
        socket.shutdown(Shutdown::Write)?;
        Ok(right.send(Message::Fin).await?)
    };
    future::or(writing, gone(&right)).await
}

fn start<F>(actor: impl FnOnce(Mailbox) -> F) -> (Sender<Message>, JoinHandle<Result>)
where
    F: Future<Output = Result> + Send + 'static,
{
    let (address, receiver) = bounded(8);
    (address, spawn(actor(Mailbox(receiver))))
}

/// Returns how many of the four have ended well.
async fn connection(client: TcpStream, backend: TcpStream) -> Result<usize> {
    // From right to left, for each needs the address of the next. The last one sends to nobody.
    let (nobody, _stays_open) = bounded(1);
    let (to_client, client_writer) = start(|left| write_half(client.clone(), left, nobody));
    let (to_reader, backend_reader) = start(|left| read_half(backend.clone(), left, to_client));
    let (to_backend, backend_writer) = start(|left| write_half(backend.clone(), left, to_reader));
    let (first, client_reader) = start(|left| read_half(client.clone(), left, to_backend));
    first.send(Message::Fin).await?;
    let mut well = 0;
    for actor in [client_reader, backend_writer, backend_reader, client_writer] {
        well += usize::from(actor.await.is_ok());
    }
    if well < 4 {
        reset(client)?;
        reset(backend)?;
    }
    Ok(well)
}

/// Closes with a linger time of zero, which the peer sees as ConnectionReset. Only the last clone
/// of a socket converts to std's type, so this also proves that no actor has one any more.
fn reset(socket: TcpStream) -> Result {
    let socket = std::net::TcpStream::try_from(socket)?;
    Ok(socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?)
}

fn main() -> Result {
    block_on(async {
        let (address, receiver) = bounded(1);
        address.send(Message::Chunk(vec![0; 1024])).await?;
        drop(Mailbox(receiver));
        assert!(address.is_empty(), "by rule 1, although the address is still here");

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?;
        for (who, clean) in
            [("client", true), ("backend", true), ("backend", false), ("client", false)]
        {
            let (mut one, near) = (TcpStream::connect(port).await?, listener.accept().await?.0);
            let (mut other, far) = (TcpStream::connect(port).await?, listener.accept().await?.0);
            let (client, backend) = if who == "client" { (near, far) } else { (far, near) };
            let proxy = spawn(connection(client, backend));
            one.write_all(b"hello").await?;
            let mut heard = vec![0; 5];
            other.read_exact(&mut heard).await?;
            if clean {
                one.shutdown(Shutdown::Write)?;
                assert_eq!(other.read(&mut [0]).await?, 0);
                other.write_all(b", goodbye").await?;
                other.shutdown(Shutdown::Write)?;
                one.read_to_end(&mut heard).await?;
                assert_eq!((&heard[..], proxy.await?), (&b"hello, goodbye"[..], 4));
                println!("{who} ends first: it still hears the other one, and 4 actors end");
            } else {
                reset(one)?;
                // `Ok(0)` would be a clean end, and would say that the bytes so far were all.
                let end = other.read(&mut [0]).await.map_err(|error| error.kind());
                assert_eq!((end, proxy.await?), (Err(ErrorKind::ConnectionReset), 0));
                println!("{who} resets: the other one is reset as well, and 4 actors abort");
            }
        }
        Ok(())
    })
}
