//! **New here**: two sockets, so four actors, and that is a TCP proxy. Each direction is a line
//! of two: client_reader -> backend_writer, and backend_reader -> client_writer. The client is
//! read before there is a backend: its bytes wait in the bounded mailbox of backend_writer.
//!
//! **Still wrong**: the endings. When the backend is lost, backend_reader stops, and nobody tells
//! the client. It waits for the rest of its answer for ever, or it ends its own direction, and is
//! then shown a clean end, as if the answer were complete. `05_endings` mends both.
//!
//! **Run**: `cargo run --example 04_pipe`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::net::{SocketAddr, TcpListener, TcpStream};
use async_std::task::{JoinHandle, block_on, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::error::Error;
use std::net::Shutdown;

type Result = std::result::Result<(), Box<dyn Error + Send + Sync>>;

enum Message {
    Chunk(Vec<u8>),
    Fin,
}

/// Both readers are the same: client_reader and backend_reader differ only in their two ends.
async fn reader(mut socket: TcpStream, writer: Sender<Message>) -> Result {
    let mut buffer = vec![0; 16 * 1024];
    while let read @ 1.. = socket.read(&mut buffer).await? {
        writer.send(Message::Chunk(buffer[..read].to_vec())).await?;
    }
    Ok(writer.send(Message::Fin).await?)
}

async fn writer(mut socket: TcpStream, mailbox: Receiver<Message>) -> Result {
    while let Message::Chunk(chunk) = mailbox.recv().await? {
        socket.write_all(&chunk).await?;
    }
    Ok(socket.shutdown(Shutdown::Write)?)
}

/// Messages in a mailbox. Whoever sends more has to wait, for the backend or for the client.
const CAPACITY: usize = 8;

/// The first of the four starts before anybody dials, and fills the mailbox of the second.
fn start_client_reader(client: TcpStream) -> (JoinHandle<Result>, Receiver<Message>) {
    let (backend_writer, mailbox) = bounded(CAPACITY);
    (spawn(reader(client, backend_writer)), mailbox)
}

/// Dials, which may take its time, and then starts the other three.
async fn pipe(client: TcpStream, early: Receiver<Message>, backend: SocketAddr) -> Result {
    let backend = TcpStream::connect(backend).await?;
    let (address, mailbox) = bounded(CAPACITY);
    let backend_writer = spawn(writer(backend.clone(), early));
    let backend_reader = spawn(reader(backend, address));
    let client_writer = spawn(writer(client, mailbox));
    backend_writer.await?;
    backend_reader.await?;
    client_writer.await
}

async fn listener(socket: TcpListener, backend: SocketAddr) -> Result {
    loop {
        // `01_echo` says which errors of `accept` this loop should survive.
        let (client, _) = socket.accept().await?;
        // Nobody dials in this loop, for a slow backend must not delay the next client.
        drop(spawn(async move {
            let (client_reader, early) = start_client_reader(client.clone());
            pipe(client, early, backend).await?;
            client_reader.await
        }));
    }
}

/// The backend answers in capitals, and has a last word after the end of the client's direction.
async fn upper_case(socket: TcpListener) -> Result {
    loop {
        let (mut client, mut buffer) = (socket.accept().await?.0, [0; 1024]);
        while let read @ 1.. = client.read(&mut buffer).await? {
            client.write_all(&buffer[..read].to_ascii_uppercase()).await?;
        }
        client.write_all(b" BYE").await?;
    }
}

fn main() -> Result {
    block_on(async {
        let backend = TcpListener::bind("127.0.0.1:0").await?;
        let front = TcpListener::bind("127.0.0.1:0").await?;
        let (proxy, backend_address) = (front.local_addr()?, backend.local_addr()?);
        drop(spawn(upper_case(backend)));

        // The first client shows the order of things, so its actors are started by hand. Its
        // client_reader has done all its work, and has ended, before anybody dials.
        let (mut client, mut answer) = (TcpStream::connect(proxy).await?, String::new());
        client.write_all(b"too early").await?;
        client.shutdown(Shutdown::Write)?;
        let accepted = front.accept().await?.0;
        let (client_reader, early) = start_client_reader(accepted.clone());
        client_reader.await?;
        assert_eq!(early.len(), 2, "a chunk and Fin wait for a backend that is not connected");
        println!("proxy: 2 messages waited in the mailbox of backend_writer before the dial");
        pipe(accepted, early, backend_address).await?;
        client.read_to_string(&mut answer).await?;
        assert_eq!(answer, "TOO EARLY BYE");
        println!("client: read {answer:?} through four actors");
        // From here on the listener does the same for everybody.
        drop(spawn(listener(front, backend_address)));
        let (mut client, mut answer) = (TcpStream::connect(proxy).await?, vec![0; 5]);
        client.write_all(b"hello").await?;
        client.read_exact(&mut answer).await?;
        assert_eq!(answer, b"HELLO");
        client.shutdown(Shutdown::Write)?;
        client.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"HELLO BYE", "its own end did not end the other direction");
        println!("client: was answered, and after its own end still read the last word");
        Ok(())
    })
}
