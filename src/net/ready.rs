//! When a socket is worth reading or writing: by async-std's reactor, by the epoll of `edge.rs`, or by the ring of `ring.rs`,
//! which also does it.

#[cfg(target_os = "linux")]
use super::edge::{Edge, Watched};
#[cfg(target_os = "linux")]
use super::ring::{Arrival, Held, Ring};
use crate::socket::Chunk;
use async_io::Async;
use std::collections::VecDeque;
use std::io;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

/// Who knows when sockets are ready.
#[derive(Clone)]
pub(crate) enum Watcher {
    /// async-std's reactor.
    Reactor,
    #[cfg(target_os = "linux")]
    Edge(Arc<Edge>),
    #[cfg(target_os = "linux")]
    Ring(Arc<Ring>),
}

/// A socket, and who knows when it is ready.
pub(super) enum Ready {
    Reactor {
        io: Async<socket2::Socket>,
        /// The last read filled its buffer, so there is likely more: read first, and wait only if that was wrong.
        /// Only the reader touches it.
        eager: AtomicBool,
    },
    #[cfg(target_os = "linux")]
    Edge(Watched),
    #[cfg(target_os = "linux")]
    Ring(Held),
}

/// What there is to read.
pub(super) enum Readable {
    /// It is worth trying.
    Try(Seen),
    /// This was read.
    #[cfg(target_os = "linux")]
    Chunk(Chunk),
    /// The end of the stream was.
    #[cfg(target_os = "linux")]
    End,
}

/// Shown again when it is known what came of trying.
#[derive(Clone, Copy)]
pub(super) struct Seen(usize);

impl Seen {
    /// For whoever has tried nothing yet: whatever has come is news.
    pub(super) const NOTHING: Seen = Seen(0);
}

impl Ready {
    /// For a connection of which so many bytes may be read at once.
    pub(super) fn stream(
        socket: socket2::Socket,
        watcher: &Watcher,
        chunk: usize,
    ) -> io::Result<Ready> {
        let _chunk = chunk;
        match watcher {
            #[cfg(target_os = "linux")]
            Watcher::Ring(ring) => Ok(Ready::Ring(Held::new(ring, socket, _chunk))),
            watcher => Ready::listener(socket, watcher),
        }
    }

    /// For a socket that is only waited for. A ring would keep it open for a while after it was dropped, and its port with it.
    pub(super) fn listener(socket: socket2::Socket, watcher: &Watcher) -> io::Result<Ready> {
        match watcher {
            Watcher::Reactor => {
                let io = Async::new_nonblocking(socket)?;
                Ok(Ready::Reactor { io, eager: AtomicBool::new(false) })
            }
            #[cfg(target_os = "linux")]
            Watcher::Edge(edge) => Ok(Ready::Edge(Watched::new(edge, socket)?)),
            #[cfg(target_os = "linux")]
            Watcher::Ring(ring) => Ok(Ready::Edge(Watched::new(ring.edge(), socket)?)),
        }
    }

    pub(super) fn socket(&self) -> &socket2::Socket {
        match self {
            Ready::Reactor { io, .. } => io.get_ref(),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => &watched.socket,
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.socket(),
        }
    }

    /// It is about to be dropped, and another process may have it as well.
    pub(super) fn forget(&self) {
        match self {
            // It asks for each wait.
            Ready::Reactor { .. } => {}
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => watched.forget(),
            #[cfg(target_os = "linux")]
            // None that listens.
            Ready::Ring(_) => {}
        }
    }

    /// Waits until it is worth reading, or was read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        match self {
            Ready::Reactor { io, eager } => {
                if !eager.load(Relaxed) {
                    ready!(io.poll_readable(cx))?;
                }
                Poll::Ready(Ok(Readable::Try(Seen(0))))
            }
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => {
                watched.read().poll(cx).map(|seen| Ok(Readable::Try(Seen(seen))))
            }
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.poll_arrival(cx).map_ok(|arrival| match arrival {
                Arrival::Chunk(chunk) => Readable::Chunk(chunk),
                Arrival::End => Readable::End,
                Arrival::Call => Readable::Try(Seen(0)),
            }),
        }
    }

    /// Before a read is tried without waiting.
    pub(super) fn before_read(&self) -> Seen {
        match self {
            Ready::Reactor { .. } => Seen(0),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => Seen(watched.read().seen()),
            #[cfg(target_os = "linux")]
            Ready::Ring(_) => Seen(0),
        }
    }

    /// A read got so many bytes; `filled` if there was room for no more.
    pub(super) fn was_read(&self, seen: Seen, count: usize, filled: bool) {
        let _count = count;
        match self {
            Ready::Reactor { eager, .. } => eager.store(filled, Relaxed),
            #[cfg(target_os = "linux")]
            // Less than there was room for is all (epoll(7), question 9).
            Ready::Edge(watched) if !filled => watched.read().drained(seen.0),
            #[cfg(target_os = "linux")]
            Ready::Edge(_) => {}
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.was_read(_count, filled),
        }
    }

    /// There was nothing to read.
    pub(super) fn had_nothing(&self, seen: Seen) {
        match self {
            Ready::Reactor { eager, .. } => eager.store(false, Relaxed),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => watched.read().spent(seen.0),
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.had_nothing(),
        }
    }

    /// A read came to the end, and is to be tried again.
    pub(super) fn read_again(&self) {
        if let Ready::Reactor { eager, .. } = self {
            eager.store(true, Relaxed);
        }
    }

    /// Before a write is tried.
    pub(super) fn before_write(&self) -> Seen {
        match self {
            Ready::Reactor { .. } => Seen(0),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => Seen(watched.write().seen()),
            #[cfg(target_os = "linux")]
            Ready::Ring(_) => Seen(0),
        }
    }

    /// There was no room for it: waits until there is.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>, seen: Seen) -> Poll<io::Result<()>> {
        let Seen(_seen) = seen;
        match self {
            Ready::Reactor { io, .. } => io.poll_writable(cx),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => {
                watched.write().spent(_seen);
                watched.write().poll(cx).map(|_| Ok(()))
            }
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.poll_room(cx).map(Ok),
        }
    }

    /// Writes from the front of `chunks`, and says how much; `None` if that is to be done by a call.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Option<Poll<io::Result<usize>>> {
        match self {
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.poll_send(cx, chunks),
            _ => {
                let _ = (cx, chunks);
                None
            }
        }
    }

    /// A write is under way that is not done by a call.
    pub(super) fn is_writing(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.is_sending(),
            _ => false,
        }
    }

    /// A write that was not done by a call has failed, and whoever wrote may not know it yet.
    pub(super) fn has_failed(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.has_failed(),
            _ => false,
        }
    }

    /// Bytes that were taken to be written, and that the kernel does not have.
    pub(super) fn unsent(&self) -> usize {
        match self {
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.unsent(),
            _ => 0,
        }
    }

    /// Waits until the kernel has all that was taken to be written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            #[cfg(target_os = "linux")]
            Ready::Ring(held) => held.poll_flush(cx),
            _ => {
                let _ = cx;
                Poll::Ready(Ok(()))
            }
        }
    }
}
