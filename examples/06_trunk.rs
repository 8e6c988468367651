//! **New here**: two clients share one socket to a backend, a trunk. Replies carry no name: whose
//! the next one is follows from the order of the requests alone. So backend_writer posts an
//! `Expect` to backend_reader for each request, and before the write: a reply may be quick.
//!
//! **Still wrong**: backend_reader waits for the mailbox of a client. A client that does not read
//! stops the replies of all others: `07_deadlock` shows it, and mends it. A trunk that is lost
//! is lost for good: `08_pool` dials another. The endings are those of `04_pipe`.
//!
//! **Run**: `cargo run --example 06_trunk`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{block_on, spawn};
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, StreamExt};
use std::error::Error;
use std::net::Shutdown;

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A request is a line, and so is its reply, which goes to this address.
struct Request(String, Sender<String>);
type Requests = Receiver<Request>;

/// The trunk owes a reply to this address.
struct Expect(Sender<String>);

/// Each client has a reader and a writer, as before; all readers send to the one backend_writer.
async fn client_reader(socket: TcpStream, to: Sender<Request>, me: Sender<String>) -> Result {
    let mut lines = BufReader::new(socket).lines();
    while let Some(line) = lines.next().await {
        to.send(Request(line?, me.clone())).await?;
    }
    Ok(())
}

/// Its mailbox closes when client_reader has ended and no `Expect` has an address of it: when the
/// client is owed nothing any more. So no `Fin` has to be sent.
async fn client_writer(mut socket: TcpStream, mailbox: Receiver<String>) -> Result {
    while let Ok(line) = mailbox.recv().await {
        socket.write_all(format!("{line}\n").as_bytes()).await?;
    }
    Ok(socket.shutdown(Shutdown::Write)?)
}

async fn backend_writer(trunk: TcpStream, mailbox: Requests, to: Sender<Expect>) -> Result {
    while let Ok(Request(line, reply_to)) = mailbox.recv().await {
        // The other way round, a reply could arrive before anybody knows whose it is.
        to.send(Expect(reply_to)).await?;
        (&trunk).write_all(format!("{line}\n").as_bytes()).await?;
    }
    Ok(trunk.shutdown(Shutdown::Write)?)
}

async fn backend_reader(trunk: TcpStream, mailbox: Receiver<Expect>) -> Result {
    let mut lines = BufReader::new(trunk).lines();
    while let Some(line) = lines.next().await {
        // Not `recv`: the `Expect` is there before the reply can be, or nobody has asked.
        let Expect(reply_to) = mailbox.try_recv()?;
        // The client may have left. Its reply is read all the same, or the next one would get it.
        let _ = reply_to.send(line?).await;
    }
    Ok(())
}

/// Answers only when it has two requests in hand: if the clients took turns, all would wait.
async fn backend(listener: TcpListener) -> Result<usize> {
    let (mut socket, _) = listener.accept().await?;
    let (mut lines, mut count) = (BufReader::new(socket.clone()).lines(), 0);
    while let (Some(one), Some(two)) = (lines.next().await, lines.next().await) {
        let replies = format!("{}\n{}\n", one?.to_uppercase(), two?.to_uppercase());
        socket.write_all(replies.as_bytes()).await?;
        count += 2;
    }
    Ok(count)
}

async fn connect(proxy: &TcpListener, trunk: &Sender<Request>) -> Result<TcpStream> {
    let client = TcpStream::connect(proxy.local_addr()?).await?;
    let socket = proxy.accept().await?.0;
    let (reply_to, mailbox) = bounded(8);
    let reader = spawn(client_reader(socket.clone(), trunk.clone(), reply_to));
    drop((reader, spawn(client_writer(socket, mailbox))));
    Ok(client)
}

fn main() -> Result {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let socket = TcpStream::connect(listener.local_addr()?).await?;
        let backend = spawn(backend(listener));
        let ((trunk, requests), (expect, expected)) = (bounded(8), bounded(8));
        let backend_writer = spawn(backend_writer(socket.clone(), requests, expect));
        let backend_reader = spawn(backend_reader(socket, expected));

        let proxy = TcpListener::bind("127.0.0.1:0").await?;
        let (mut anna, mut ben) = (connect(&proxy, &trunk).await?, connect(&proxy, &trunk).await?);
        let mut buffer = [0; 8];
        for _ in 0..3 {
            anna.write_all(b"i, anna\n").await?;
            ben.write_all(b"me, ben\n").await?;
            anna.read_exact(&mut buffer).await?;
            assert_eq!(&buffer, b"I, ANNA\n");
            ben.read_exact(&mut buffer).await?;
            assert_eq!(&buffer, b"ME, BEN\n");
        }
        println!("anna and ben: each read its own 3 replies; the other's came by the same socket");

        connect(&proxy, &trunk).await?.write_all(b"carl, who does not stay\n").await?;
        anna.write_all(b"still i\n").await?;
        anna.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"STILL I\n");
        println!("anna: did not get the reply of a client that had left");
        drop((anna, ben, trunk));
        backend_writer.await?;
        assert_eq!(backend.await?, 8, "by one connection");
        backend_reader.await
    })
}
