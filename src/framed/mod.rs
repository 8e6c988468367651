//! What the readers and writers do where frames are looked at, and clients share trunks.
//!
//! ```text
//!   client_reader ──Piece──> backend_writer ──> trunk's socket
//!                                 │ Owed, before the first byte of its request
//!   client_writer <──Chunk── backend_reader <── trunk's socket
//! ```
//!
//! Whose reply it is follows from the order alone: the trunk owes replies in the order of the requests. So what is owed
//! is posted before the request is written, for a server may answer (by an error) before it has read it; and a trunk
//! whose order is in doubt is closed.

mod read_replies;
mod read_requests;
mod write_requests;

pub(crate) use read_replies::read_replies;
pub(crate) use read_requests::read_requests;
pub(crate) use write_requests::{Written, write_requests};

use crate::framing::{Framing, Shape, Trouble};
use crate::mailbox::{Address, NotLeft};
use crate::socket::Chunk;
use crate::tunnel;
use async_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// From a client_reader to the backend_writer of a trunk.
pub(crate) enum Message {
    Piece(Piece),
    /// Nothing follows: the trunk is to end cleanly, once the backend ends too, for which it has little time unless
    /// something is owed.
    Fin {
        owed: bool,
    },
}

/// A part of a request.
pub(crate) struct Piece {
    pub(crate) chunk: Chunk,
    /// With the first piece: the replies that the trunk will owe; none for a request without a reply.
    pub(crate) owed: Option<Owed>,
}

/// What a trunk owes to a client. Dropped before the reply is complete, it sees to it that the client hears of that.
pub(crate) struct Owed {
    reply_to: Address<tunnel::Message>,
    shape: Shape,
    /// Replies that are still to come; `None` is all that ever comes, as it is.
    count: Option<u32>,
    framing: Arc<dyn Framing>,
    /// The client_reader's end of it closes when nothing is owed any more.
    busy: Sender<Outcome>,
    /// A reply of the same client on the same trunk was broken off: what follows would be taken for the rest of it.
    broken: Arc<AtomicBool>,
    /// A part of a reply has been passed on.
    begun: bool,
}

/// What a client_reader has to know of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is incomplete, or cannot be told: the client must be cut off.
    Broken,
    /// The client is to be closed behind it.
    Last,
    /// The trunk is of no use behind it.
    Retired,
    /// Something has come behind it already: the trunk is for nobody else.
    Doubtful,
    /// From here on bytes go through as they are.
    Tunnels,
}

impl Owed {
    pub(crate) fn new(
        reply_to: Address<tunnel::Message>,
        shape: Shape,
        count: Option<u32>,
        framing: Arc<dyn Framing>,
        busy: Sender<Outcome>,
        broken: Arc<AtomicBool>,
    ) -> Owed {
        Owed { reply_to, shape, count, framing, busy, broken, begun: false }
    }

    fn tell(&self, outcome: Outcome) {
        // Full: it has been told of something already. Closed: the client has gone.
        let _ = self.busy.try_send(outcome);
    }
}

impl Drop for Owed {
    /// Every request ends in exactly one reply or one error, or the client is cut off.
    fn drop(&mut self) {
        if self.count == Some(0) {
            return;
        }
        let whole = self.count == Some(1) && !self.begun && !self.broken.load(SeqCst);
        if !(whole && self.tell_the_client()) {
            // Before anybody behind it can say anything.
            self.broken.store(true, SeqCst);
            self.tell(Outcome::Broken);
        }
    }
}

impl Owed {
    /// Says that no reply will come; false if that is impossible.
    fn tell_the_client(&self) -> bool {
        let error = self.framing.error(Trouble::BackendLost, self.shape);
        if error.is_empty() {
            return false;
        }
        match self.reply_to.try_send(tunnel::Message::Chunk(error.into())) {
            // Gone: there is nobody to be told.
            Ok(()) | Err(NotLeft::Gone) => true,
            // A client that is so far behind is better cut off than waited for by a trunk that has ended.
            Err(NotLeft::Full) => false,
        }
    }

    /// False if nobody takes it any more.
    async fn pass(&mut self, bytes: Vec<u8>) -> bool {
        self.begun = true;
        self.reply_to.send(tunnel::Message::Chunk(bytes.into())).await.is_ok()
    }

    fn replied(&mut self) {
        self.count = self.count.map(|count| count.saturating_sub(1));
        self.begun = false;
    }
}
