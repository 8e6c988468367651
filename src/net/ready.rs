//! When a socket is worth reading or writing: by async-std's reactor, or by the epoll of `edge.rs`.

#[cfg(target_os = "linux")]
use super::edge::{Edge, Watched};
use async_io::Async;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

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
}

/// Shown again when it is known what came of trying.
#[derive(Clone, Copy)]
pub(super) struct Seen(usize);

impl Seen {
    /// For whoever has tried nothing yet: whatever has come is news.
    pub(super) const NOTHING: Seen = Seen(0);
}

/// No epoll of our own.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Edge {}

impl Ready {
    pub(super) fn new(socket: socket2::Socket, edge: Option<&Arc<Edge>>) -> io::Result<Ready> {
        #[cfg(target_os = "linux")]
        if let Some(edge) = edge {
            return Ok(Ready::Edge(Watched::new(edge, socket)?));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = edge;
        let io = Async::new_nonblocking(socket)?;
        Ok(Ready::Reactor { io, eager: AtomicBool::new(false) })
    }

    pub(super) fn socket(&self) -> &socket2::Socket {
        match self {
            Ready::Reactor { io, .. } => io.get_ref(),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => &watched.socket,
        }
    }

    /// It is about to be dropped, and another process may have it as well.
    pub(super) fn forget(&self) {
        match self {
            // It asks for each wait.
            Ready::Reactor { .. } => {}
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => watched.forget(),
        }
    }

    /// Waits until it is worth reading.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Seen>> {
        match self {
            Ready::Reactor { io, eager } => {
                if !eager.load(Relaxed) {
                    ready!(io.poll_readable(cx))?;
                }
                Poll::Ready(Ok(Seen(0)))
            }
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => watched.read().poll(cx).map(|seen| Ok(Seen(seen))),
        }
    }

    /// Before a read is tried without waiting.
    pub(super) fn before_read(&self) -> Seen {
        match self {
            Ready::Reactor { .. } => Seen(0),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => Seen(watched.read().seen()),
        }
    }

    /// A read got something; `filled` if there was room for no more.
    pub(super) fn was_read(&self, seen: Seen, filled: bool) {
        match self {
            Ready::Reactor { eager, .. } => eager.store(filled, Relaxed),
            #[cfg(target_os = "linux")]
            // Less than there was room for is all (epoll(7), question 9).
            Ready::Edge(watched) if !filled => watched.read().drained(seen.0),
            #[cfg(target_os = "linux")]
            Ready::Edge(_) => {}
        }
    }

    /// There was nothing to read.
    pub(super) fn had_nothing(&self, seen: Seen) {
        match self {
            Ready::Reactor { eager, .. } => eager.store(false, Relaxed),
            #[cfg(target_os = "linux")]
            Ready::Edge(watched) => watched.read().spent(seen.0),
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
        }
    }
}
