//! Reads from the backend's socket and passes the bytes to the client_writer.
//!
//! - **Owns** the reading half of the backend's socket.
//! - **Receives** nothing: it waits for its socket.
//! - **Sends to** `client_writer`: `Chunk`, then `Fin`. The wait for room is the back-pressure.
//! - **Ends when** the backend ends its sending, the socket fails, or the client_writer has gone.
//! - **Never** writes, and never sends `Fin` for a stream that broke off.

use crate::mailbox::Address;
use crate::socket::Socket;
use crate::tunnel::{self, Exit, Post};
use crate::{Side, client_writer};
use std::sync::Arc;

pub(crate) const NAME: &str = "backend_reader";

pub(crate) struct BackendReader {
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) to: Address<client_writer::Message>,
    pub(crate) post: Post,
}

impl BackendReader {
    pub(crate) fn run(self) -> impl Future<Output = Exit> {
        tunnel::read(NAME, Side::Backend, self.socket, self.to, self.post)
    }
}
