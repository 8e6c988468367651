//! What a reader and a writer do in `tunnel` mode, where nobody looks at the bytes. The four actors of a connection
//! are these two loops, once for each side.

use crate::actor::Budget;
use crate::gauges::Gauges;
use crate::mailbox::{Address, Mailbox};
use crate::runtime::{Either, race};
use crate::socket::{Chunk, Socket, finish, recv, send_all};
use crate::{Boxed, ConnId, Events, Side};
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

/// How an actor of a connection ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// A reader passed on the end of its stream, or a writer wrote it behind every byte.
    Finished,
    /// Its own socket failed.
    Failed(io::Error),
    /// Its neighbour has gone: nobody takes what the reader reads, or no `Fin` will come to the writer.
    Deserted,
    /// A detour ended its direction on purpose, with a `Fin` or without one. The connection is to end too.
    Cut(Cut),
}

/// What a detour wants both peers to see once all that was sent on is delivered.
#[derive(Debug)]
pub(crate) enum Cut {
    /// A clean end, though bytes may be missing.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only a toxic orders it"))]
    Close(String),
    /// A reset.
    Reset(String),
}

/// Leads what a reader sends another way to its writer, through actors that stand between the two.
///
/// Nobody stands there in a proxy that carries traffic; `testing::Faults` puts its toxics there.
pub(crate) trait Detour: Send + Sync + 'static {
    /// Where the reader is to send instead of to the writer towards `to`, and the actor that looks after the way. It
    /// may end with [`Exit::Cut`]; any other exit says nothing that the ends of reader and writer do not.
    fn lead(
        &self,
        conn: ConnId,
        to: Side,
        writer: Address<Message>,
    ) -> (Address<Message>, Boxed<'static, Exit>);
}

/// What the four actors share: where they are, and where they leave their figures.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) conn: ConnId,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) gauges: Arc<Gauges>,
    /// The writer, not the reader, tells what was received. A trunk's reader may outlive the connection, of which nothing
    /// may be told any more then.
    pub(crate) tells_receipt: bool,
}

/// Reads until the peer ends its sending, the socket fails, or the writer has gone.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps each argument twice")]
pub(crate) fn read(
    name: &'static str,
    from: Side,
    socket: Arc<dyn Socket>,
    to: Address<Message>,
    post: Post,
) -> impl Future<Output = Exit> {
    async move {
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
            if bytes == 0 {
                // An embedder's socket broke its contract. Nothing could be sent of it, for ever.
                budget.spend().await;
                continue;
            }
            log::trace!(actor = name, conn, bytes; "read {bytes} bytes from the {from}: Chunk");
            post.gauges.add_read(from, bytes);
            post.events.on_receive(post.conn, from, &chunk);
            if to.send(Message::Chunk(chunk)).await.is_err() {
                return Exit::Deserted;
            }
            budget.spend().await;
        }
    }
}

/// Writes until `Fin`, until the socket fails, or until the reader has gone; in the last case all that it had sent is
/// delivered first.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps each argument twice")]
pub(crate) fn write(
    name: &'static str,
    to: Side,
    mut mailbox: Mailbox<Message>,
    socket: Arc<dyn Socket>,
    post: Post,
) -> impl Future<Output = Exit> {
    async move {
        write_all(name, to, &mut mailbox, &*socket, &post).await.unwrap_or_else(|error| {
            let conn = post.conn.number();
            log::debug!(actor = name, conn; "writing to the {to} failed: {error}");
            Exit::Failed(error)
        })
    }
}

#[expect(clippy::manual_async_fn, reason = "an async fn keeps each argument twice")]
fn write_all<'a>(
    name: &'static str,
    to: Side,
    mailbox: &'a mut Mailbox<Message>,
    socket: &'a dyn Socket,
    post: &'a Post,
) -> impl Future<Output = io::Result<Exit>> + 'a {
    async move {
        let conn = post.conn.number();
        // More than one are rare, and room for them is made then.
        let mut chunks = VecDeque::with_capacity(1);
        let mut budget = Budget::default();
        loop {
            let mut next = mailbox.recv().await;
            post.gauges.saw_high_water(to, mailbox.high_water());
            // What has gathered meanwhile goes out in the same system call. Not more than the mailbox holds: a reader on
            // another thread fills it while it is emptied, and `Limits` promises a bound.
            while let Some(Message::Chunk(chunk)) = next {
                if post.tells_receipt {
                    post.gauges.add_read(Side::Backend, chunk.len());
                    post.events.on_receive(post.conn, Side::Backend, &chunk);
                }
                chunks.push_back(chunk);
                next = if chunks.len() < mailbox.capacity() { mailbox.try_recv() } else { None };
            }
            let (fin, gone) = match next {
                Some(Message::Fin) => (true, false),
                Some(Message::Chunk(_)) => (false, false),
                None => (false, chunks.is_empty()),
            };
            if !chunks.is_empty() {
                let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
                send_all(socket, &mut chunks, |sent| post.gauges.add_written(to, sent)).await?;
                log::trace!(actor = name, conn, bytes; "wrote {bytes} bytes to the {to}");
            }
            if fin {
                finish(socket).await?;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;
    use crate::mailbox::mailbox;
    use crate::socket::advance;
    use crate::testing::memory::pair_reading;
    use crate::testing::{Ending, Peer, pair};
    use futures_lite::future::{block_on, poll_once, zip};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    const SIDES: [Side; 2] = [Side::Client, Side::Backend];

    fn post() -> Post {
        Post {
            conn: ConnId::from(1),
            events: Arc::new(Silent),
            gauges: Arc::default(),
            tells_receipt: false,
        }
    }

    fn chunk(bytes: &[u8]) -> Message {
        Message::Chunk(bytes.to_vec().into())
    }

    /// The bytes of the next message; empty for `Fin`, `None` if the mailbox closed without one.
    async fn next(mailbox: &mut Mailbox<Message>) -> Option<Vec<u8>> {
        match mailbox.recv().await? {
            Message::Chunk(chunk) => Some(chunk.to_vec()),
            Message::Fin => Some(Vec::new()),
        }
    }

    #[test]
    fn a_reader_passes_on_what_comes_in_order_and_then_fin() {
        for side in SIDES {
            block_on(async {
                let (ours, theirs) = pair(64);
                let (to, mut mailbox) = mailbox(4);
                let post = post();
                let mut run = Box::pin(read("reader", side, ours, to, post.clone()));
                let mut peer = Peer::new("peer", theirs);
                for bytes in [&b"one"[..], b"two"] {
                    peer.send(bytes).await;
                    assert!(poll_once(&mut run).await.is_none());
                }
                peer.fin();
                assert!(matches!(run.await, Exit::Finished));
                assert_eq!(next(&mut mailbox).await.as_deref(), Some(&b"one"[..]));
                assert_eq!(next(&mut mailbox).await.as_deref(), Some(&b"two"[..]));
                assert_eq!(next(&mut mailbox).await.as_deref(), Some(&b""[..]));
                assert_eq!(next(&mut mailbox).await, None);
                assert_eq!(post.gauges.read(side), 6);
                assert_eq!(post.gauges.first_fin(), Some(side));
            });
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_no_fin() {
        block_on(async {
            let (ours, theirs) = pair(64);
            let (to, mut mailbox) = mailbox(4);
            let mut peer = Peer::new("peer", theirs);
            peer.send(b"half an ans").await;
            peer.reset();
            let exit = read("reader", Side::Backend, ours, to, post()).await;
            assert!(
                matches!(exit, Exit::Failed(error) if error.kind() == io::ErrorKind::ConnectionReset)
            );
            assert_eq!(next(&mut mailbox).await.as_deref(), Some(&b"half an ans"[..]));
            assert_eq!(next(&mut mailbox).await, None);
        });
    }

    #[test]
    fn a_reader_whose_writer_has_gone_ends_though_its_peer_is_silent() {
        block_on(async {
            let (ours, _theirs) = pair(64);
            let (to, mailbox) = mailbox(4);
            let mut run = Box::pin(read("reader", Side::Client, ours, to, post()));
            assert!(poll_once(&mut run).await.is_none());
            drop(mailbox);
            assert!(matches!(run.await, Exit::Deserted));
        });
    }

    #[test]
    fn a_reader_that_waits_for_room_ends_when_its_writer_does() {
        block_on(async {
            let (ours, theirs) = pair(1);
            let (to, mailbox) = mailbox(1);
            let mut run = Box::pin(read("reader", Side::Client, ours, to, post()));
            let mut peer = Peer::new("peer", theirs);
            for _ in 0..2 {
                peer.send(b"x").await;
                assert!(poll_once(&mut run).await.is_none());
            }
            drop(mailbox);
            assert!(matches!(run.await, Exit::Deserted));
        });
    }

    #[test]
    fn a_writer_writes_everything_and_then_ends_the_stream() {
        for side in SIDES {
            block_on(async {
                let (ours, theirs) = pair(64);
                let (to, mailbox) = mailbox(4);
                for message in [chunk(b"one"), chunk(b"two"), Message::Fin] {
                    to.send(message).await.expect("the mailbox lives");
                }
                let post = post();
                let exit = write("writer", side, mailbox, ours, post.clone()).await;
                assert!(matches!(exit, Exit::Finished));
                let seen = Peer::new("peer", theirs).recv_to_end().await;
                assert_eq!((&seen.bytes[..], seen.ending), (&b"onetwo"[..], Ending::Fin));
                assert_eq!((post.gauges.written(side), post.gauges.high_water(side)), (6, 3));
            });
        }
    }

    #[test]
    fn a_writer_without_a_reader_delivers_what_it_was_sent_and_does_not_end_the_stream() {
        block_on(async {
            let (ours, theirs) = pair(4);
            let (to, mailbox) = mailbox(4);
            for bytes in [&b"one"[..], b"two", b"three"] {
                to.send(chunk(bytes)).await.expect("the mailbox lives");
            }
            drop(to);
            let mut peer = Peer::new("peer", theirs);
            let run = write("writer", Side::Client, mailbox, ours, post());
            let (exit, seen) = zip(run, peer.recv_to_end()).await;
            assert!(matches!(exit, Exit::Deserted));
            assert_eq!(seen.bytes, b"onetwothree");
            assert!(seen.ending.is_reset(), "its socket is still armed");
        });
    }

    #[test]
    fn a_write_that_fails_ends_the_writer_and_tells_its_reader() {
        block_on(async {
            let (ours, theirs) = pair(4);
            let (to, mailbox) = mailbox(4);
            drop(theirs);
            to.send(chunk(b"lost")).await.expect("the mailbox lives");
            let post = post();
            let exit = write("writer", Side::Client, mailbox, ours, post.clone()).await;
            assert!(matches!(exit, Exit::Failed(_)));
            to.closed().await;
            assert!(to.send(Message::Fin).await.is_err());
            assert_eq!(post.gauges.written(Side::Client), 0);
        });
    }

    #[test]
    fn a_stream_that_cannot_be_ended_is_not_finished() {
        block_on(async {
            let (ours, theirs) = pair(4);
            let (to, mailbox) = mailbox(4);
            drop(theirs);
            to.send(Message::Fin).await.expect("the mailbox lives");
            let exit = write("writer", Side::Client, mailbox, ours, post()).await;
            assert!(matches!(exit, Exit::Failed(_)));
        });
    }

    /// Takes everything, and remembers how many chunks it was given at once.
    #[derive(Default)]
    struct Sink {
        calls: AtomicUsize,
        most: AtomicUsize,
    }

    impl Socket for Sink {
        fn poll_recv(&self, _: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
            Poll::Pending
        }

        fn poll_send(
            &self,
            _: &mut Context<'_>,
            chunks: &mut VecDeque<Chunk>,
        ) -> Poll<io::Result<usize>> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.most.fetch_max(chunks.len(), Ordering::SeqCst);
            let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
            advance(chunks, bytes);
            Poll::Ready(Ok(bytes))
        }

        fn shutdown_write(&self) -> io::Result<()> {
            Ok(())
        }

        fn disarm(&self) {}
    }

    #[test]
    fn what_has_gathered_goes_out_in_one_write() {
        block_on(async {
            let sink = Arc::new(Sink::default());
            let (to, mailbox) = mailbox(8);
            for _ in 0..7 {
                to.send(chunk(b"x")).await.expect("the mailbox lives");
            }
            to.send(Message::Fin).await.expect("the mailbox lives");
            write("writer", Side::Client, mailbox, Arc::clone(&sink) as _, post()).await;
            assert_eq!(sink.calls.load(Ordering::SeqCst), 1);
            assert_eq!(sink.most.load(Ordering::SeqCst), 7);
        });
    }

    #[test]
    fn a_writer_never_holds_more_than_its_mailbox_though_it_is_filled_meanwhile() {
        let sink = Arc::new(Sink::default());
        let (to, mailbox) = mailbox(2);
        let filling = std::thread::spawn(move || {
            block_on(async {
                for _ in 0..100_000 {
                    to.send(chunk(b"x")).await.expect("the mailbox lives");
                }
            });
        });
        let post = post();
        block_on(write("writer", Side::Client, mailbox, Arc::clone(&sink) as _, post.clone()));
        filling.join().expect("no panic");
        assert_eq!(post.gauges.written(Side::Client), 100_000);
        assert!(sink.most.load(Ordering::SeqCst) <= 2, "{:?} at once", sink.most);
        assert!(post.gauges.high_water(Side::Client) <= 2);
    }

    #[test]
    fn one_direction_holds_exactly_what_limits_say() {
        block_on(async {
            let limits = crate::Limits { chunk: 10, mailbox: 3, spare: 0 };
            let (source, from) = pair(limits.chunk);
            let (sink, stalled) = pair(5);
            let (to, mailbox) = mailbox(limits.mailbox);
            let post = post();
            let mut reading = Box::pin(read("reader", Side::Client, from, to, post.clone()));
            let mut source = Peer::new("source", source);
            // The most is held when the mailbox is full before the writer looks at it for the first time.
            for _ in 0..100 {
                let _ = poll_once(source.send(b"0123456789")).await;
                assert!(poll_once(&mut reading).await.is_none());
            }
            let writing = write("writer", Side::Backend, mailbox, sink, post.clone());
            let mut run = Box::pin(zip(reading, writing));
            for _ in 0..100 {
                let _ = poll_once(source.send(b"0123456789")).await;
                assert!(poll_once(&mut run).await.is_none());
            }
            let held = post.gauges.read(Side::Client) - post.gauges.written(Side::Backend);
            assert_eq!(
                post.gauges.written(Side::Backend),
                5,
                "what the stalled peer's system took"
            );
            assert_eq!(
                held,
                (limits.per_connection() / 2 - 5) as u64,
                "its first chunk went in part"
            );
            drop(stalled);
        });
    }

    #[test]
    fn a_reader_whose_fin_nobody_takes_has_not_finished() {
        block_on(async {
            let (ours, theirs) = pair(1);
            let (to, mailbox) = mailbox(1);
            let mut run = Box::pin(read("reader", Side::Client, ours, to, post()));
            let mut peer = Peer::new("peer", theirs);
            peer.send(b"x").await;
            assert!(poll_once(&mut run).await.is_none());
            peer.fin();
            assert!(poll_once(&mut run).await.is_none(), "it waits for room");
            drop(mailbox);
            assert!(matches!(run.await, Exit::Deserted));
        });
    }

    #[test]
    fn a_peer_that_always_has_more_does_not_keep_the_thread() {
        block_on(async {
            let (ours, theirs) = pair_reading(64, [1, 64]);
            let (to, _mailbox) = mailbox(64);
            let post = post();
            let mut run = Box::pin(read("reader", Side::Client, ours, to, post.clone()));
            let mut peer = Peer::new("peer", theirs);
            peer.send(&[b'x'; 64]).await;
            assert!(poll_once(&mut run).await.is_none());
            assert!(post.gauges.read(Side::Client) < 64, "its neighbours have their turn before");
        });
    }
}
