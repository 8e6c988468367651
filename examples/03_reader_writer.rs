//! **New here**: a socket has two directions, so it gets two actors. `Reader` only reads, and sends
//! each chunk to the mailbox of `Writer`; only `Writer` writes. The end of the stream is a message
//! too, `Fin`, and stays behind the chunks. The mailbox is bounded: when the client does not
//! read, the writer waits, the mailbox fills, the reader waits, and at last the client has to.
//!
//! **Still wrong**: there is one socket only, which gets back what it sent; `04_pipe` connects two.
//! And a crash looks like a clean end: a reader that fails sends no `Fin`, but the writer then
//! just stops, and the client sees the end of the stream all the same. `05_endings` mends that.
//!
//! **Run**: `cargo run --example 03_reader_writer`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, bounded};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::convert::Infallible;
use std::error::Error;
use std::net::Shutdown;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Messages in the mailbox, and bytes in a chunk: their product is what one client can cost us.
const CAPACITY: usize = 8;
const CHUNK: usize = 16 * 1024;
/// What the client sends at least, far more than that product.
const AT_LEAST: usize = 4 * 1024 * 1024;

enum Message {
    Chunk(Vec<u8>),
    Fin,
}

struct Reader {
    socket: TcpStream,
    writer: Sender<Message>,
    /// Never carries a message, for `Infallible` has no value. It only closes.
    full: Sender<Infallible>,
}

impl Reader {
    /// Returns how many messages were in the mailbox when it held most.
    async fn run(mut self) -> Result<usize> {
        let (mut high_water, mut buffer) = (0, vec![0; CHUNK]);
        while let read @ 1.. = self.socket.read(&mut buffer).await? {
            high_water = high_water.max(self.writer.len());
            if high_water == CAPACITY {
                self.full.close();
            }
            // This wait is the back-pressure: while it lasts we do not read, so the kernel's
            // buffer fills, and the kernel tells the client's kernel to stop.
            self.writer.send(Message::Chunk(buffer[..read].to_vec())).await?;
        }
        self.writer.send(Message::Fin).await?;
        Ok(high_water)
    }
}

struct Writer {
    socket: TcpStream,
    mailbox: Receiver<Message>,
}

impl Writer {
    async fn run(mut self) -> Result<()> {
        while let Message::Chunk(chunk) = self.mailbox.recv().await? {
            self.socket.write_all(&chunk).await?;
        }
        Ok(self.socket.shutdown(Shutdown::Write)?)
    }
}

fn main() -> Result<()> {
    task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (socket, _) = listener.accept().await?;
        let ((writer, mailbox), (full, was_full)) = (bounded(CAPACITY), bounded(1));
        // A clone is a second name for the same socket, so that each actor can own one.
        let writer_task = task::spawn(Writer { socket: socket.clone(), mailbox }.run());
        let reader_task = task::spawn(Reader { socket, writer, full }.run());
        let sender = task::spawn(send(client.clone(), was_full.clone()));

        // The client reads nothing until the server's mailbox is full: that makes `recv` fail.
        // Then it reads in small sips, and finds each byte in its place.
        assert!(was_full.recv().await.is_err());
        let (mut client, mut received, mut sip) = (client, 0, [0; 4096]);
        while let read @ 1.. = client.read(&mut sip).await? {
            assert!((received..).zip(&sip[..read]).all(|(at, byte)| *byte == byte_at(at)));
            received += read;
        }
        writer_task.await?;
        let (sent, high_water) = (sender.await?, reader_task.await?);
        assert_eq!(received, sent);
        assert_eq!(high_water, CAPACITY, "it was full, and never held more");
        println!("client: read nothing until the mailbox was full, then all {sent} bytes");
        println!("mailbox: held {high_water} messages at most, {} kB", high_water * CHUNK / 1024);
        Ok(())
    })
}

/// Sends, in a task of its own, until it has been held up by a mailbox that is full. How much that
/// takes depends on the buffers of the kernel, which come on top of ours.
async fn send(mut client: TcpStream, was_full: Receiver<Infallible>) -> Result<usize> {
    let mut sent = 0;
    while sent < AT_LEAST || !was_full.is_closed() {
        let piece: Vec<u8> = (sent..sent + CHUNK).map(byte_at).collect();
        client.write_all(&piece).await?;
        sent += CHUNK;
    }
    client.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// A pattern whose length fits no buffer, so that a lost or doubled chunk would show.
fn byte_at(position: usize) -> u8 {
    (position % 251) as u8
}
