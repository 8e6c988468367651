//! What the client_reader does where its requests are looked at: one lease for each run of requests.
//!
//! A lease begins with a request and ends when nothing is owed any more. Requests that come meanwhile go to the same
//! trunk, so that their replies keep their order.

use super::{Message, Outcome, Owed, Piece};
use crate::Side;
use crate::actor::Budget;
use crate::framing::{Action, Binding, Count, Framing, Request, Requests, Trouble};
use crate::mailbox::Address;
use crate::pool::{Lease, Pool};
use crate::runtime::{Either, race};
use crate::socket::{Chunk, Socket, recv};
use crate::tunnel::{self, Cut, Exit, Post};
use async_channel::{Receiver, WeakSender};
use std::sync::Arc;

/// Reads requests until the client ends its sending, cannot be understood, or is lost.
pub(crate) async fn read_requests(
    name: &'static str,
    socket: Arc<dyn Socket>,
    to_client: Address<tunnel::Message>,
    pool: Pool,
    post: Post,
) -> Exit {
    let framing = pool.framing();
    let requests = framing.requests();
    let mut reading = Reading {
        name,
        framing,
        requests,
        socket,
        to_client,
        pool,
        post,
        bytes: Vec::new(),
        lease: None,
        busy: None,
        pinned: None,
        last: false,
        retired: false,
        budget: Budget::default(),
    };
    match reading.run().await {
        Ok(()) => match reading.to_client.send(tunnel::Message::Fin).await {
            Ok(()) => Exit::Finished,
            Err(_) => Exit::Deserted,
        },
        Err(exit) => exit,
    }
}

struct Reading {
    name: &'static str,
    framing: Arc<dyn Framing>,
    requests: Box<dyn Requests>,
    socket: Arc<dyn Socket>,
    to_client: Address<tunnel::Message>,
    pool: Pool,
    post: Post,
    /// What has come and was not understood yet.
    bytes: Vec<u8>,
    lease: Option<Lease>,
    /// Open while the trunk owes something.
    busy: Option<Busy>,
    /// Why the lease is not given back when nothing is owed.
    pinned: Option<&'static str>,
    /// The client is closed behind the replies that it awaits.
    last: bool,
    /// The trunk of the lease is of no use any more.
    retired: bool,
    budget: Budget,
}

struct Busy {
    sender: WeakSender<Outcome>,
    outcomes: Receiver<Outcome>,
}

/// The client must be shown a reset.
fn cut(cause: impl Into<String>) -> Exit {
    Exit::Cut(Cut::Reset(cause.into()))
}

/// What becomes of a request, whose pieces are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward {
        /// Nothing more is looked at before its reply has ended.
        exclusive: bool,
    },
    /// It was answered here, or cannot be.
    Drop,
}

impl Reading {
    /// Returns when the client is to see the end of its stream, with all that it is owed before it.
    async fn run(&mut self) -> Result<(), Exit> {
        let (mut way, mut binding) = (None, None);
        loop {
            let piece = match self.requests.next(&self.bytes) {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    if self.more().await? {
                        continue;
                    }
                    self.settle().await?;
                    self.let_go().await;
                    if self.bytes.is_empty() && way.is_none() {
                        return Ok(());
                    }
                    return Err(cut("the client ended its sending in the middle of a request"));
                }
                Err(malformed) => {
                    // Of a request that has begun the trunk has a part: nobody can use it any more.
                    let begun = way.is_some();
                    if begun {
                        self.lease = None;
                    }
                    self.settle().await?;
                    self.let_go().await;
                    let cause = format!("what the client sends is no request: {malformed}");
                    if malformed.answer.is_empty() || begun {
                        return Err(cut(cause));
                    }
                    log::info!(actor = self.name, conn = self.post.conn.number(); "{cause}");
                    return self.answer(malformed.answer).await;
                }
            };
            let came: Vec<u8> = self.bytes.drain(..piece.bytes).collect();
            let chunk = piece.instead.unwrap_or(came);
            let owed = match &piece.begins {
                Some(request) => {
                    let (begun, owed) = self.begin(request).await?;
                    way = Some(begun);
                    binding = Some(request.binding);
                    owed
                }
                None => None,
            };
            if piece.begins.is_none() && way != Some(Way::Drop) && self.is_answered() {
                // Before it had the whole request. Neither side can tell what is a part of what from here on.
                self.settle().await?;
                self.lease = None;
                return Ok(());
            }
            if let Some(Way::Forward { .. }) = way
                && !self.forward(chunk, owed).await
            {
                // The trunk is gone, and whoever was owed something has been told.
                way = Some(Way::Drop);
            }
            if !piece.ends {
                continue;
            }
            let done = way.take();
            let release = binding == Some(Binding::Release);
            let tunnels = matches!(binding, Some(Binding::Tunnel(_)));
            if tunnels && done != Some(Way::Drop) {
                return self.tunnel().await;
            }
            if self.last || done == Some(Way::Forward { exclusive: true }) {
                let tunnels = self.settle().await?;
                if tunnels {
                    return self.tunnel().await;
                }
            }
            if self.last {
                self.let_go().await;
                return Ok(());
            }
            if release {
                self.settle().await?;
                self.let_go().await;
            }
            self.budget.spend().await;
        }
    }

    /// Waits for more bytes of the client; false at their end. Gives the lease back when nothing is owed any more.
    async fn more(&mut self) -> Result<bool, Exit> {
        loop {
            let came = {
                let outcome = async {
                    match &self.busy {
                        Some(busy) => busy.outcomes.recv().await.ok(),
                        None => std::future::pending().await,
                    }
                };
                let came = race(recv(&*self.socket), self.to_client.closed());
                race(outcome, came).await
            };
            match came {
                Either::A(outcome) => {
                    if self.took(outcome)? {
                        self.busy = None;
                        self.give_back().await;
                    }
                    if self.last {
                        return Ok(false);
                    }
                }
                Either::B(Either::A(Ok(Some(chunk)))) => {
                    let post = &self.post;
                    post.gauges.add_read(Side::Client, chunk.len());
                    post.events.on_receive(post.conn, Side::Client, &chunk);
                    self.bytes.extend_from_slice(&chunk);
                    return Ok(true);
                }
                Either::B(Either::A(Ok(None))) => {
                    self.post.gauges.saw_fin(Side::Client);
                    return Ok(false);
                }
                Either::B(Either::A(Err(error))) => return Err(Exit::Failed(error)),
                Either::B(Either::B(())) => return Err(Exit::Deserted),
            }
        }
    }

    /// Waits until nothing is owed; whether the last reply said that bytes go through from now on.
    async fn settle(&mut self) -> Result<bool, Exit> {
        while let Some(busy) = &self.busy {
            let outcome = match race(busy.outcomes.recv(), self.to_client.closed()).await {
                Either::A(outcome) => outcome.ok(),
                Either::B(()) => return Err(Exit::Deserted),
            };
            if outcome == Some(Outcome::Tunnels) {
                return Ok(true);
            }
            if self.took(outcome)? {
                self.busy = None;
            }
        }
        Ok(false)
    }

    /// Takes in what was told of a reply; true if nothing is owed any more.
    fn took(&mut self, outcome: Option<Outcome>) -> Result<bool, Exit> {
        match outcome {
            None => return Ok(true),
            Some(Outcome::Last) => self.last = true,
            Some(Outcome::Retired) => self.retired = true,
            Some(Outcome::Broken) => {
                self.lease = None;
                return Err(cut("a reply was lost"));
            }
            // Only an exclusive request is answered so, and that is waited for by `settle`.
            Some(Outcome::Tunnels) => {}
        }
        Ok(false)
    }

    /// Decides what becomes of a request that begins, and gets a trunk for it.
    async fn begin(&mut self, request: &Request) -> Result<(Way, Option<Owed>), Exit> {
        self.last |= request.last;
        let answer = match &request.action {
            Action::Forward => None,
            Action::Skip => return Ok((Way::Drop, None)),
            Action::Answer(answer) => Some(answer),
            Action::AnswerAndClose(answer) => {
                self.last = true;
                Some(answer)
            }
        };
        if let Some(answer) = answer {
            self.settle().await?;
            self.answer(answer.clone()).await?;
            return Ok((Way::Drop, None));
        }
        if self.retired || self.lease.as_ref().is_none_or(Lease::is_over) {
            // What the old one owed was told to the client as an error, which comes first.
            self.settle().await?;
            (self.lease, self.retired) = (None, false);
            match self.pool.lease().await {
                Ok(lease) => self.lease = Some(lease),
                Err(trouble) => {
                    self.refuse(trouble, request).await?;
                    return Ok((Way::Drop, None));
                }
            }
        }
        match request.binding {
            Binding::Pinned(why) | Binding::Tunnel(why) => self.pin(why),
            Binding::Shared | Binding::Exclusive(_) | Binding::Release => {}
        }
        let exclusive = matches!(request.binding, Binding::Exclusive(_));
        let count = match (request.replies, request.binding) {
            (_, Binding::Tunnel(_)) | (Count::Unknown, _) => None,
            (Count::Exactly(0), _) => return Ok((Way::Forward { exclusive }, None)),
            (Count::Exactly(count), _) => Some(count),
        };
        let mut busy = self.busy.as_ref().and_then(|busy| busy.sender.upgrade());
        if busy.is_none() {
            // What the last reply had to tell is heard first.
            self.settle().await?;
        }
        let busy = busy.take().unwrap_or_else(|| {
            // Room for what one reply has to tell; the first that matters ends the client.
            let (sender, outcomes) = async_channel::bounded(4);
            self.busy = Some(Busy { sender: sender.downgrade(), outcomes });
            sender
        });
        let owed = Owed::new(
            self.to_client.clone(),
            request.shape,
            count,
            Arc::clone(&self.framing),
            busy,
        );
        Ok((Way::Forward { exclusive }, Some(owed)))
    }

    /// Whether what was owed has come, if anything was.
    fn is_answered(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.sender.upgrade().is_none())
    }

    fn pin(&mut self, why: &'static str) {
        if self.pinned.is_none() {
            log::debug!(actor = self.name, conn = self.post.conn.number(); "pinned to its trunk: {why}");
        }
        self.pinned.get_or_insert(why);
    }

    /// Sends a piece to the trunk; false if that has gone.
    async fn forward(&mut self, chunk: Vec<u8>, owed: Option<Owed>) -> bool {
        let Some(lease) = &self.lease else { return false };
        let bytes = chunk.len();
        let piece = Piece { chunk: Chunk::from(chunk), owed };
        if lease.send(Message::Piece(piece)).await.is_err() {
            return false;
        }
        self.post.gauges.add_written(Side::Backend, bytes);
        true
    }

    /// Tells the client that its request cannot be answered.
    async fn refuse(&mut self, trouble: Trouble, request: &Request) -> Result<(), Exit> {
        let conn = self.post.conn.number();
        log::warn!(actor = self.name, conn; "a request is not answered: {}", trouble.words());
        if request.replies == Count::Exactly(0) {
            return Ok(());
        }
        let error = self.framing.error(trouble, request.shape);
        if error.is_empty() {
            // The protocol has no words for it.
            return Err(cut(trouble.words()));
        }
        self.answer(error).await
    }

    async fn answer(&mut self, bytes: Vec<u8>) -> Result<(), Exit> {
        if bytes.is_empty() {
            return Ok(());
        }
        let chunk = tunnel::Message::Chunk(bytes.into());
        self.to_client.send(chunk).await.map_err(|_| Exit::Deserted)
    }

    /// Nothing is owed: the trunk may serve somebody else, unless the client is pinned to it.
    async fn give_back(&mut self) {
        if self.pinned.is_none() {
            self.let_go().await;
        }
    }

    /// The client is done with it. A trunk to which it was pinned is closed, for it holds what the client left there.
    async fn let_go(&mut self) {
        if let Some(lease) = self.lease.take() {
            let retired = std::mem::take(&mut self.retired);
            if self.pinned.take().is_some() || retired {
                // Gone: it has ended before.
                let _ = lease.send(Message::Fin).await;
            } else {
                self.pool.give_back(lease).await;
            }
        }
    }

    /// From here on the client has the trunk for itself, and its bytes go through as they are.
    async fn tunnel(&mut self) -> Result<(), Exit> {
        self.pinned.get_or_insert("tunnel");
        let mut rest = std::mem::take(&mut self.bytes);
        loop {
            if !rest.is_empty() && !self.forward(std::mem::take(&mut rest), None).await {
                break;
            }
            if !self.more().await? {
                break;
            }
            rest = std::mem::take(&mut self.bytes);
        }
        // What the trunk still sends is the client's.
        if let Some(lease) = &self.lease {
            // Gone: it has ended before.
            let _ = lease.send(Message::Fin).await;
        }
        self.settle().await?;
        Ok(())
    }
}
