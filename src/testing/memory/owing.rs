//! A socket that owes its peer: in memory nothing is ever pending, and some decisions depend on it.

use crate::socket::{Chunk, Socket};
use crate::{Boxed, Connect, Endpoint};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A socket, or a way to sockets, whose peer's system has always so many bytes still to acknowledge.
pub(crate) struct Owing<S>(pub(crate) S, pub(crate) usize);

impl Socket for Owing<Arc<dyn Socket>> {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.0.poll_recv(cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, chunks)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.0.shutdown_write()
    }

    fn pending(&self) -> usize {
        self.1
    }

    fn disarm(&self) {
        self.0.disarm();
    }
}

impl<C: Connect> Connect for Owing<C> {
    fn connect<'a>(&'a self, place: &'a Endpoint) -> Boxed<'a, io::Result<Arc<dyn Socket>>> {
        Box::pin(async move {
            let socket = self.0.connect(place).await?;
            Ok(Arc::new(Owing(socket, self.1)) as Arc<dyn Socket>)
        })
    }
}
