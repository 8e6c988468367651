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
//!
//! A client has a trunk for itself while it awaits something (pool), or shares one with others whose requests stand before
//! and behind its own (mux). A client that leaves takes nothing out of that order: its replies are read for nobody.

mod due;
mod owed;
mod read_replies;
mod read_requests;
mod reset;
mod write_requests;

pub(crate) use owed::{Owed, Stamp, Tab};
pub(crate) use read_replies::{Patience, ReplyReader};
pub(crate) use read_requests::RequestReader;
pub(crate) use reset::reset;
pub(crate) use write_requests::{BATCH, Written, write_requests};

use crate::socket::Chunk;
use std::sync::Arc;

/// From a client_reader to the backend_writer of a trunk.
pub(crate) enum Message {
    Piece(Piece),
    /// Nothing follows: the trunk is to end cleanly, once the backend ends too, for which it has little time unless
    /// something is owed.
    Fin {
        owed: bool,
    },
}

/// A request, a row of requests, or a part of one.
pub(crate) struct Piece {
    pub(crate) chunk: Chunk,
    /// With the first piece of a request: the replies that the trunk will owe; none for a request without a reply.
    pub(crate) owed: Option<Owed>,
    /// Of a request that comes in pieces.
    pub(crate) rest: Option<Rest>,
}

/// Is there, in any number of hands, for as long as a part of a request has not been written.
pub(crate) type Rest = Arc<()>;

/// What a client_reader has to know of replies. Each is a bit, for several may have to be told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// A part of a reply has been passed on, and the rest has not.
    Begun = 1,
    /// The client is to be closed behind what it is owed.
    Last = 2,
    /// The trunk is of no use behind it.
    Retired = 4,
    /// Something has come behind it already, or will, for the backend has answered what it had not read yet. The trunk is for
    /// nobody else.
    Doubtful = 8,
    /// From here on bytes go through as they are.
    Tunnels = 16,
    /// The client takes its replies too slowly, and the trunk cannot wait for it.
    Behind = 32,
    /// The reply that was due did not come in time.
    Late = 64,
}
