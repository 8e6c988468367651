//! What is answered, and the actor that owns it.

use crate::actor;
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::runtime::AsyncStd;
use async_channel::Sender;

/// What a fake server answers. One for all connections, each of which has a number.
///
/// A function from a request to its reply is one too.
pub trait Server: Send + 'static {
    /// The reply to a request; empty is none. Both are as the framing passes them on: a memcached request without
    /// `noreply`, say, whose reply is then kept from the client.
    ///
    /// What is no reply of the framing goes out as it is, and no rule is applied to it.
    fn answer(&mut self, client: u64, request: &[u8]) -> Vec<u8>;

    /// Only the beginning of a request has come, of one that is long or held back: what is said meanwhile, such as
    /// `100 Continue`.
    fn begun(&mut self, _request: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// The protocol's error for a request that is too large; empty where it has none.
    fn refusal(&self) -> Vec<u8> {
        Vec::new()
    }

    /// This connection has ended.
    fn left(&mut self, _client: u64) {}
}

impl<F: FnMut(&[u8]) -> Vec<u8> + Send + 'static> Server for F {
    fn answer(&mut self, _: u64, request: &[u8]) -> Vec<u8> {
        self(request)
    }
}

/// Requests that may wait; each connection has one at most.
const WAITING: usize = 64;

enum Message {
    Request { client: u64, request: Vec<u8>, reply: Sender<Vec<u8>> },
    Begun { request: Vec<u8>, reply: Sender<Vec<u8>> },
    Refusal { reply: Sender<Vec<u8>> },
    Left { client: u64 },
}

/// The way to a server that runs. It ends when this is dropped.
pub(super) struct Asked(Address<Message>);

impl Asked {
    pub(super) fn start(server: impl Server) -> Asked {
        let (address, mailbox) = mailbox(WAITING);
        actor::spawn(&AsyncStd, "fake_server", None, run(server, mailbox)).detach();
        Asked(address)
    }

    /// `None` is a server that has panicked.
    pub(super) async fn answer(&self, client: u64, request: Vec<u8>) -> Option<Vec<u8>> {
        self.ask(|reply| Message::Request { client, request, reply }).await
    }

    pub(super) async fn begun(&self, request: Vec<u8>) -> Option<Vec<u8>> {
        self.ask(|reply| Message::Begun { request, reply }).await
    }

    pub(super) async fn refusal(&self) -> Option<Vec<u8>> {
        self.ask(|reply| Message::Refusal { reply }).await
    }

    pub(super) async fn left(&self, client: u64) {
        // Gone: it has panicked, and there is nobody to tell.
        let _ = self.0.send(Message::Left { client }).await;
    }

    async fn ask(&self, question: impl FnOnce(Sender<Vec<u8>>) -> Message) -> Option<Vec<u8>> {
        let (reply, answer) = async_channel::bounded(1);
        self.0.send(question(reply)).await.ok()?;
        answer.recv().await.ok()
    }
}

async fn run(mut server: impl Server, mut mailbox: Mailbox<Message>) {
    while let Some(message) = mailbox.recv().await {
        let (reply, answer) = match message {
            Message::Request { client, request, reply } => (reply, server.answer(client, &request)),
            Message::Begun { request, reply } => (reply, server.begun(&request)),
            Message::Refusal { reply } => (reply, server.refusal()),
            Message::Left { client } => {
                server.left(client);
                continue;
            }
        };
        // Whoever asked may have gone; the reply's channel has room for the one answer.
        let _ = reply.try_send(answer);
    }
}
