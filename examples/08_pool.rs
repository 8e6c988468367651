//! **New here**: a pool dials trunks, and leases each to one client at a time. It awaits nobody: who
//! wants a lease brings the way back, and a task dials. `Down` tells that a trunk was lost, and another
//! is dialled. A dial that fails is tried again, later each time: the backoff spares the backend.
//!
//! **Still wrong**: a lease may be kept for ever, and the queue has no end: `09_limits_and_drain`. And
//! nobody watches a trunk that is free: it may be lost before it is leased.
//!
//! **Run**: `cargo run --example 08_pool`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use async_channel::{Receiver, Sender, WeakSender, bounded};
use async_std::net::{SocketAddr, TcpListener, TcpStream};
use async_std::task::{block_on, sleep, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future, stream};
use socket2::{Domain, Socket, Type};
use std::{collections::VecDeque, error::Error, io, pin::pin, time::Duration};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

enum Message {
    Lease(Sender<TcpStream>), // The trunk itself is the lease: who has it, has it alone.
    GiveBack(TcpStream),
    Down,
    Dialed(TcpStream),
}

/// Where to dial, and whom to tell how long each dial waits.
type Place = (SocketAddr, Sender<Duration>);

async fn pool(mailbox: Receiver<Message>, me: WeakSender<Message>, place: Place) {
    let (mut free, mut waiting, mut count) = (Vec::new(), VecDeque::new(), 0);
    while let Ok(message) = mailbox.recv().await {
        match message {
            Message::Lease(reply) => waiting.push_back(reply),
            Message::GiveBack(trunk) | Message::Dialed(trunk) => free.push(trunk),
            Message::Down => count -= 1,
        }
        while let (false, Some(reply)) = (free.is_empty(), waiting.front()) {
            // Closed: who asked has left, and the next one gets it.
            let refused = free.pop().and_then(|trunk| reply.try_send(trunk).err());
            free.extend(refused.map(async_channel::TrySendError::into_inner));
            waiting.pop_front();
        }
        // Two trunks at most, and one that is being dialled is counted already.
        if !waiting.is_empty() && count < 2 {
            count += 1;
            drop(spawn(dial(me.clone(), place.clone())));
        }
    }
}

async fn dial(pool: WeakSender<Message>, (backend, told): Place) -> Result {
    let mut wait = Duration::ZERO;
    loop {
        told.send(wait).await?;
        sleep(wait).await;
        let (dialed, pool) = (TcpStream::connect(backend).await, pool.upgrade().ok_or("no pool")?);
        if let Ok(trunk) = dialed {
            return Ok(pool.send(Message::Dialed(trunk)).await?);
        }
        wait = (2 * wait).clamp(Duration::from_millis(1), Duration::from_secs(1));
    }
}

async fn lease(pool: Sender<Message>) -> Result<TcpStream> {
    let (reply, lease) = bounded(1);
    pool.send(Message::Lease(reply)).await?;
    Ok(lease.recv().await?)
}

async fn ask(trunk: &mut TcpStream, request: u8) -> io::Result<u8> {
    let mut byte = [request];
    trunk.write_all(&byte).await?;
    trunk.read_exact(&mut byte).await.map(|()| byte[0])
}

/// Replies to each byte by one, the number of the connection, which it closes at a `!`.
async fn backend(listener: TcpListener) {
    let mut numbered = listener.incoming().zip(stream::iter(1..));
    while let Some((Ok(mut socket), number)) = numbered.next().await {
        drop(spawn(async move {
            let mut request = [0];
            while socket.read_exact(&mut request).await.is_ok() && request != *b"!" {
                let _ = socket.write_all(&[number]).await;
            }
        }));
    }
}

fn main() -> Result {
    block_on(async {
        // Bound, but not listening yet: it refuses, and nobody else can take its port.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let place = socket.local_addr()?.as_socket().ok_or("no address")?;
        let ((address, mailbox), (dials, told)) = (bounded(8), bounded(64));
        let pool = spawn(pool(mailbox, address.downgrade(), (place, dials)));
        let one = spawn(lease(address.clone()));
        let waits: Vec<_> = told.clone().take(4).map(|wait| wait.as_millis()).collect().await;
        assert_eq!(waits, [0, 1, 2, 4]);
        socket.listen(8)?;
        drop(spawn(backend(std::net::TcpListener::from(socket).into())));
        let mut one = one.await?;
        assert_eq!(ask(&mut one, b'?').await?, 1);
        println!("one: was refused three times, and dialled later each time");
        let mut two = lease(address.clone()).await?;
        assert_eq!(ask(&mut two, b'?').await?, 2);
        let mut three = pin!(lease(address.clone()));
        assert!(future::poll_once(&mut three).await.is_none(), "both trunks are leased");
        address.send(Message::GiveBack(one)).await?;
        assert_eq!(ask(&mut three.await?, b'?').await?, 1);
        assert!(ask(&mut two, b'!').await.is_err());
        address.send(Message::Down).await?;
        assert_eq!(ask(&mut lease(address.clone()).await?, b'?').await?, 3);
        println!("three: had the trunk of one; four: one dialled in place of what was lost");
        drop(address);
        pool.await;
        Ok(())
    })
}
