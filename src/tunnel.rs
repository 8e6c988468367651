//! What a reader and a writer do in `tunnel` mode, where nobody looks at the bytes. The four actors of a connection
//! are these two loops, once for each side.

use crate::actor::Budget;
use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox};
use crate::runtime::{Either, race};
use crate::socket::{Chunk, Socket, recv, send_all};
use crate::{ConnId, Events, Side};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;

/// From a reader to the writer on the other side.
#[derive(Debug)]
pub(crate) enum Message {
    /// Bytes, in order.
    Chunk(Chunk),
    /// The reader's peer has ended its sending; nothing follows. A mailbox that closes without this means abort.
    Fin,
}

/// How one of the four actors ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// A reader passed on the end of its stream, or a writer wrote it behind every byte.
    Finished,
    /// Its own socket failed.
    Failed(io::Error),
    /// Its neighbour has gone: nobody takes what the reader reads, or no `Fin` will come to the writer.
    Deserted,
}

/// What the four actors share: where they are, and where they leave their figures.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) conn: ConnId,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) gauges: Arc<Gauges>,
}

/// Reads until the peer ends its sending, the socket fails, or the writer has gone.
pub(crate) async fn read(
    name: &'static str,
    from: Side,
    socket: Arc<dyn Socket>,
    to: Address<Message>,
    post: Post,
) -> Exit {
    let conn = post.conn.number();
    // One wait for the writer's death serves all rounds. What is dropped with a lost race stays in the socket.
    let mut closed = pin!(to.closed());
    let mut budget = Budget::default();
    loop {
        let chunk = match race(recv(&*socket), closed.as_mut()).await {
            Either::A(Ok(Some(chunk))) => chunk,
            Either::A(Ok(None)) => {
                post.gauges.saw_fin(from);
                log::trace!(actor = name, conn; "the {from} ended its sending: Fin");
                return match to.send(Message::Fin).await {
                    Ok(()) => Exit::Finished,
                    Err(_) => Exit::Deserted,
                };
            }
            Either::A(Err(error)) => {
                log::debug!(actor = name, conn; "reading from the {from} failed: {error}");
                return Exit::Failed(error);
            }
            Either::B(()) => return Exit::Deserted,
        };
        let bytes = chunk.len();
        log::trace!(actor = name, conn, bytes; "read {bytes} bytes from the {from}: Chunk");
        post.gauges.add_read(from, bytes);
        post.events.on_receive(post.conn, from, &chunk);
        if to.send(Message::Chunk(chunk)).await.is_err() {
            return Exit::Deserted;
        }
        budget.spend().await;
    }
}

/// Writes until `Fin`, until the socket fails, or until the reader has gone; in the last case all that it had sent is
/// delivered first.
pub(crate) async fn write(
    name: &'static str,
    to: Side,
    mut mailbox: Mailbox<Message>,
    socket: Arc<dyn Socket>,
    post: Post,
) -> Exit {
    let exit = write_all(name, to, &mut mailbox, &*socket, &post).await;
    exit.unwrap_or_else(|error| {
        log::debug!(actor = name, conn = post.conn.number(); "writing to the {to} failed: {error}");
        Exit::Failed(error)
    })
}

async fn write_all(
    name: &'static str,
    to: Side,
    mailbox: &mut Mailbox<Message>,
    socket: &dyn Socket,
    post: &Post,
) -> io::Result<Exit> {
    let conn = post.conn.number();
    let mut chunks = VecDeque::new();
    let mut budget = Budget::default();
    loop {
        let mut next = mailbox.recv().await;
        post.gauges.saw_high_water(to, mailbox.high_water());
        // What has gathered meanwhile goes out in the same system call. Not more than the mailbox holds: a reader on
        // another thread fills it while it is emptied, and `Limits` promises a bound.
        while let Some(Message::Chunk(chunk)) = next {
            chunks.push_back(chunk);
            next = if chunks.len() < mailbox.capacity() { mailbox.try_recv() } else { None };
        }
        let fin = matches!(next, Some(Message::Fin));
        let gone = next.is_none() && chunks.is_empty();
        if !chunks.is_empty() {
            let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
            send_all(socket, &mut chunks, |sent| post.gauges.add_written(to, sent)).await?;
            log::trace!(actor = name, conn, bytes; "wrote {bytes} bytes to the {to}");
        }
        if fin {
            socket.shutdown_write()?;
            log::trace!(actor = name, conn; "ended the sending to the {to}");
            return Ok(Exit::Finished);
        }
        if gone {
            socket.delivered().await;
            return Ok(Exit::Deserted);
        }
        budget.spend().await;
    }
}
