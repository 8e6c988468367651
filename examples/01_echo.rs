//! **New here**: a server is a loop that accepts, and one task for each connection. A TCP
//! connection has two directions, and each ends on its own: the client may say "that was all"
//! (`shutdown(Write)`) and still read the rest of its answer.
//!
//! **Still wrong**: one task both reads and writes. While it waits for a client that does not
//! read, it cannot read either, and nobody else can tell it anything: it has no mailbox.
//! `02_one_actor` gives a task a mailbox, and `03_reader_writer` cuts this task in two.
//!
//! **Run**: `cargo run --example 01_echo`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_std::net::{SocketAddr, TcpListener, TcpStream};
use async_std::task;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use std::io::{self, ErrorKind};
use std::net::Shutdown;

fn main() -> io::Result<()> {
    task::block_on(async {
        // Port 0 lets the system choose, so that two runs at the same time never collide.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        // The accept loop ends only with an error, so whichever of the two ends first has the
        // result of the program. A loop that was spawned and forgotten could fail unseen.
        future::or(accept_loop(listener), clients(server)).await
    })
}

async fn accept_loop(listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            // One task for each connection: a slow client delays only itself. Dropping the handle
            // of an async-std task does not stop the task, it only gives up the result.
            Ok((socket, peer)) => drop(task::spawn(async move {
                if let Err(error) = echo(socket).await {
                    println!("server: the connection of {peer} failed: {error}");
                }
            })),
            // This one client left between its connect and our accept. The next one is fine.
            Err(error) if concerns_one_connection(&error) => (),
            Err(error) => return Err(error),
        }
    }
}

/// `accept` also reports the troubles of the connection that it was about to return.
fn concerns_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            // Zero bytes mean that the client ended its direction. Ours is open until we end it
            // too, and everything that we wrote before still reaches the client.
            return socket.shutdown(Shutdown::Write);
        }
        // This wait is what is wrong here: until the client has read, we do not read on.
        socket.write_all(&buffer[..read]).await?;
    }
}

async fn clients(server: SocketAddr) -> io::Result<()> {
    // This client says nothing at all. It shows that nobody has to wait for it.
    let silent = TcpStream::connect(server).await?;

    let mut client = TcpStream::connect(server).await?;
    client.write_all(b"hello").await?;
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).await?;
    assert_eq!(&echoed, b"hello");
    println!("client: sent hello, and got it back while another client was silent");

    client.write_all(b"goodbye").await?;
    client.shutdown(Shutdown::Write)?;
    assert!(client.write_all(b"more").await.is_err(), "our direction has ended");
    let mut rest = String::new();
    client.read_to_string(&mut rest).await?;
    assert_eq!(rest, "goodbye");
    println!("client: ended its direction, and still read {rest:?} and then the end");

    // A client that leaves without a word ends its own task only: the loop accepts the next one.
    drop(silent);
    let mut next = TcpStream::connect(server).await?;
    next.write_all(b"still there?").await?;
    next.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    next.read_to_end(&mut answer).await?;
    assert_eq!(answer, b"still there?");
    println!("client: the server outlived a client that left");
    Ok(())
}
