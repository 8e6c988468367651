//! Writes to the backend's socket what the client_reader sends.
//!
//! - **Owns** the writing half of the backend's socket, and its mailbox.
//! - **Receives** `Chunk`, then `Fin`, from the `client_reader`.
//! - **Sends to** nobody.
//! - **Ends when** it has written `Fin`, the socket fails, or its mailbox closes without `Fin`: then it first delivers
//!   what it was sent.
//! - **Never** reads, and never ends the backend's stream cleanly without `Fin`.

use crate::Side;
use crate::mailbox::Mailbox;
use crate::socket::Socket;
use crate::tunnel::{self, Exit, Post};
use std::sync::Arc;

pub(crate) use crate::tunnel::Message;

pub(crate) const NAME: &str = "backend_writer";

pub(crate) struct BackendWriter {
    pub(crate) mailbox: Mailbox<Message>,
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) post: Post,
}

impl BackendWriter {
    pub(crate) fn run(self) -> impl Future<Output = Exit> {
        tunnel::write(NAME, Side::Backend, self.mailbox, self.socket, self.post)
    }
}
