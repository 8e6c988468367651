//! Reads from the client's socket and passes the bytes to the backend_writer.
//!
//! - **Owns** the reading half of the client's socket.
//! - **Receives** nothing: it waits for its socket.
//! - **Sends to** `backend_writer`: `Chunk`, then `Fin`. The wait for room is the back-pressure.
//! - **Ends when** the client ends its sending, the socket fails, or the backend_writer has gone.
//! - **Never** writes, and never sends `Fin` for a stream that broke off.

use crate::mailbox::Address;
use crate::socket::Socket;
use crate::tunnel::{self, Exit, Post};
use crate::{Side, backend_writer};
use std::sync::Arc;

pub(crate) const NAME: &str = "client_reader";

pub(crate) struct ClientReader {
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) to: Address<backend_writer::Message>,
    pub(crate) post: Post,
}

impl ClientReader {
    pub(crate) fn run(self) -> impl Future<Output = Exit> {
        tunnel::read(NAME, Side::Client, self.socket, self.to, self.post)
    }
}
