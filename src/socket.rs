//! The seam below the actors: a socket gives and takes owned chunks.
//!
//! Owned, not borrowed: a chunk travels from a socket through a mailbox to another socket without a copy, and a kernel
//! that completes a read later (io_uring) or a network that exists only in memory fits behind the same trait.

use crate::Boxed;
use crate::credit::Credit;
use concurrent_queue::ConcurrentQueue;
use std::collections::VecDeque;
use std::fmt;
use std::future::{poll_fn, ready};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A connected byte stream. Exactly one task receives from it and one sends on it.
///
/// **A socket is armed from the start**: dropped as it is, its peer gets a reset. Only [`disarm`](Socket::disarm), which
/// the proxy calls when every byte was delivered in both directions, makes the drop a clean end. So a crash, of an
/// actor or of the whole process, is never shown as a clean end.
pub trait Socket: Send + Sync + 'static {
    /// The next bytes, never an empty chunk; `None` when the peer has ended its sending. Dropping the wait loses nothing.
    ///
    /// After a failed send this never reports `None`: it gives what had already arrived, and then an error. (Linux
    /// tells a reset once, to whichever call asks first, and shows a clean end to the other.)
    ///
    /// # Errors
    /// What the system says, a reset by the peer above all.
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>;

    /// Takes bytes from the front of `chunks`, which is not empty, and returns how many; at least one. They are with the
    /// system now, or will be in a moment: see [`poll_flush`](Socket::poll_flush).
    ///
    /// # Errors
    /// What the system says, of these or of what was taken before. The socket cannot be sent on any more.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Chunk>,
    ) -> Poll<io::Result<usize>>;

    /// Waits until the system has all that was taken.
    ///
    /// # Errors
    /// As [`poll_send`](Socket::poll_send).
    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our sending, behind what was sent and flushed; the peer sees the end of the stream, and may go on sending.
    ///
    /// # Errors
    /// What the system says; the connection is then lost, and the peer did not see a clean end.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Bytes that were sent and that the peer's system has not acknowledged: a reset now would destroy them. 0 where
    /// that cannot be.
    fn pending(&self) -> usize {
        0
    }

    /// Waits until nothing is [`pending`](Socket::pending), or never will be delivered.
    fn delivered(&self) -> Boxed<'_, ()> {
        Box::pin(ready(()))
    }

    /// From now on, dropping this socket is a clean end.
    fn disarm(&self);
}

pub(crate) async fn recv(socket: &dyn Socket) -> io::Result<Option<Chunk>> {
    poll_fn(|cx| socket.poll_recv(cx)).await
}

/// Sends all of `chunks`; `progress` hears of every part, so that a trickle counts as life.
pub(crate) async fn send_all(
    socket: &dyn Socket,
    chunks: &mut VecDeque<Chunk>,
    mut progress: impl FnMut(usize),
) -> io::Result<()> {
    while !chunks.is_empty() {
        progress(poll_fn(|cx| socket.poll_send(cx, chunks)).await?);
    }
    Ok(())
}

/// Ends the sending behind all that was taken.
pub(crate) async fn finish(socket: &dyn Socket) -> io::Result<()> {
    poll_fn(|cx| socket.poll_flush(cx)).await?;
    socket.shutdown_write()
}

/// Bytes on their way, in a buffer that goes back to its pool when the chunk is dropped.
///
/// ```
/// let mut chunk = trunkline::Chunk::from(b"+PONG\r\n".to_vec());
/// assert_eq!(&chunk[..5], b"+PONG");
/// chunk.advance(5);
/// assert_eq!(&chunk[..], b"\r\n");
/// ```
///
/// Several may be parts of one buffer, which is nobody's to change then: whoever changes a chunk has a copy of it.
pub struct Chunk {
    buffer: Arc<[u8]>,
    start: usize,
    end: usize,
    home: Option<Buffers>,
    /// Room that it takes up at the client that it is for.
    credit: Option<Credit>,
}

impl Chunk {
    /// Forgets the first `count` bytes: they were sent.
    ///
    /// # Panics
    /// If the chunk has fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "a chunk of {} advanced by {count}", self.len());
        self.start += count;
    }

    /// The credit goes back when the last byte is written, or the chunk is dropped.
    pub(crate) fn on_credit(mut self, credit: Credit) -> Chunk {
        self.credit = Some(credit);
        self
    }

    /// Keeps only the first `count` bytes: no more were read into it.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// Some of its bytes once more, without a copy.
    ///
    /// # Panics
    /// If it has not that many.
    pub(crate) fn part(&self, place: Range<usize>) -> Chunk {
        assert!(place.start <= place.end && place.end <= self.len(), "{place:?} of {}", self.len());
        let (start, end) = (self.start + place.start, self.start + place.end);
        let buffer = Arc::clone(&self.buffer);
        Chunk { buffer, start, end, home: self.home.clone(), credit: None }
    }

    /// Puts more bytes behind those that it has; if its buffer has no room for them, in one twice as large.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let length = self.len();
        if self.end + bytes.len() > self.buffer.len() {
            let room = zeros((length + bytes.len()).max(2 * length));
            let mut larger = Chunk::new(room, 0, None);
            larger.append(self);
            larger.credit = self.credit.take();
            *self = larger;
        }
        let (start, end) = (self.end, self.end + bytes.len());
        Arc::make_mut(&mut self.buffer)[start..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// The first `end` bytes of a buffer, which goes back there in the end.
    fn new(buffer: Arc<[u8]>, end: usize, home: Option<Buffers>) -> Chunk {
        Chunk { buffer, start: 0, end, home, credit: None }
    }
}

impl Default for Chunk {
    /// Nothing, which takes up no memory.
    fn default() -> Self {
        Chunk::new(Arc::default(), 0, None)
    }
}

fn zeros(count: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, count).collect()
}

/// Forgets the first `count` bytes of all the chunks together, and drops the chunks that are spent.
pub(crate) fn advance(chunks: &mut VecDeque<Chunk>, mut count: usize) {
    while count > 0 {
        let Some(first) = chunks.front_mut() else { return };
        if count < first.len() {
            return first.advance(count);
        }
        count -= first.len();
        chunks.pop_front();
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Chunk::new(bytes.into(), end, None)
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        let place = self.start..self.end;
        &mut Arc::make_mut(&mut self.buffer)[place]
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            // The last of its parts.
            && Arc::get_mut(&mut self.buffer).is_some()
        {
            // Full means that enough are kept already; nobody closes it.
            let _ = home.0.spare.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// The pool of empty buffers of a proxy. A buffer is leased when bytes are ready and comes back when they are written.
///
/// The free list is a queue that all threads can use without a lock.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Pool>);

struct Pool {
    spare: ConcurrentQueue<Arc<[u8]>>,
    size: usize,
}

impl Buffers {
    /// Buffers of `size` bytes, of which at most `spare` are kept while nobody uses them.
    pub(crate) fn new(size: usize, spare: usize) -> Self {
        Buffers(Arc::new(Pool { spare: ConcurrentQueue::bounded(spare.max(1)), size }))
    }

    /// Bytes in one of them.
    pub(crate) fn size(&self) -> usize {
        self.0.size
    }

    /// A chunk as long as the buffer; its bytes are whatever the last user left.
    pub(crate) fn lease(&self) -> Chunk {
        let buffer = self.0.spare.pop().unwrap_or_else(|_| zeros(self.0.size));
        let end = buffer.len();
        Chunk::new(buffer, end, Some(self.clone()))
    }

    /// Nothing yet, with room for so many bytes: in one of these buffers, if that is large enough.
    pub(crate) fn room(&self, bytes: usize) -> Chunk {
        if bytes > self.size() {
            return Chunk::new(zeros(bytes), 0, None);
        }
        let mut chunk = self.lease();
        chunk.truncate(0);
        chunk
    }

    /// The same, with these bytes.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Chunk {
        let mut chunk = self.room(bytes.len());
        chunk.append(bytes);
        chunk
    }

    /// How many hold this pool: whoever leases from it, and each chunk that has not come back.
    #[cfg(feature = "testing")]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.0.spare.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pair;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_buffer_comes_back_and_no_more_are_kept_than_asked() {
        let buffers = Buffers::new(8, 2);
        let leased = [buffers.lease(), buffers.lease(), buffers.lease()];
        assert_eq!(buffers.spare(), 0);
        drop(leased);
        assert_eq!(buffers.spare(), 2);
        assert_eq!(buffers.lease().len(), 8);
    }

    #[test]
    fn a_buffer_comes_back_behind_the_last_of_its_parts_and_none_sees_what_another_one_changes() {
        let buffers = Buffers::new(8, 2);
        let mut whole = buffers.copy(b"abcdef");
        let (mut first, second) = (whole.part(0..3), whole.part(3..6));
        whole.advance(1);
        whole[0] = b'x';
        first.append(b"!");
        drop(first.part(1..2));
        assert_eq!(
            (&whole[..], &first[..], &second[..]),
            (&b"xcdef"[..], &b"abc!"[..], &b"def"[..])
        );
        assert_eq!(buffers.spare(), 0);
        drop((whole, first, second));
        assert_eq!(buffers.spare(), 2);
    }

    #[test]
    fn what_does_not_fit_a_buffer_of_the_pool_has_one_of_its_own() {
        let buffers = Buffers::new(4, 2);
        let mut chunk = buffers.copy(b"abcd");
        chunk.advance(1);
        for more in [&b""[..], b"e", b"fghijk"] {
            chunk.append(more);
        }
        assert_eq!(&chunk[..], b"bcdefghijk");
        assert_eq!(buffers.spare(), 1, "it has come back");
        assert_eq!(&buffers.copy(b"abcde")[..], b"abcde");
        assert_eq!(buffers.spare(), 1);
    }

    #[test]
    fn advancing_crosses_chunks() {
        let chunks = || VecDeque::from([b"abc".to_vec().into(), b"de".to_vec().into()]);
        let check = |count: usize, expected: &[&[u8]]| {
            let mut chunks: VecDeque<Chunk> = chunks();
            advance(&mut chunks, count);
            let left: Vec<&[u8]> = chunks.iter().map(|chunk| &**chunk).collect();
            assert_eq!(left, expected, "{count}");
        };
        check(0, &[b"abc", b"de"]);
        check(2, &[b"c", b"de"]);
        check(3, &[b"de"]);
        check(4, &[b"e"]);
        check(5, &[]);
        check(9, &[]);
    }

    #[test]
    fn a_socket_without_a_kernel_owes_its_peer_nothing() {
        block_on(async {
            let (socket, _peer) = pair(1);
            assert_eq!(socket.pending(), 0);
            assert!(poll_once(socket.delivered()).await.is_some());
        });
    }

    #[test]
    fn a_chunk_is_cut_to_what_was_read_and_never_grows() {
        let mut chunk: Chunk = b"abcdef".to_vec().into();
        chunk.advance(1);
        for (count, expected) in [(4, &b"bcde"[..]), (2, b"bc"), (3, b"bc"), (0, b"")] {
            chunk.truncate(count);
            assert_eq!(&chunk[..], expected, "{count}");
        }
    }
}
