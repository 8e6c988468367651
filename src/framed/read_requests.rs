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
use futures_lite::future::pending;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Reads requests until the client ends its sending, cannot be understood, or is lost.
pub(crate) async fn read_requests(
    name: &'static str,
    socket: Arc<dyn Socket>,
    to_client: Address<tunnel::Message>,
    pool: Pool,
    drain: Receiver<Infallible>,
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
        doubtful: false,
        way: None,
        answered_early: false,
        fin: false,
        drain,
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
    /// Bytes came behind the last reply: the trunk is for nobody else.
    doubtful: bool,
    /// The request of which a piece has been looked at and another is to come.
    way: Option<Way>,
    /// A request was answered before the trunk had all of it.
    answered_early: bool,
    /// The client has ended its sending.
    fin: bool,
    /// Closes when the proxy is told to stop.
    drain: Receiver<Infallible>,
    budget: Budget,
}

struct Busy {
    sender: WeakSender<Outcome>,
    outcomes: Receiver<Outcome>,
    broken: Arc<AtomicBool>,
}

/// More than this is not read ahead while a reply is waited for.
const AHEAD: usize = 16 << 10;

/// The client must be shown a reset.
fn cut(cause: impl Into<String>) -> Exit {
    Exit::Cut(Cut::Reset(cause.into()))
}

/// What a client_reader waits for.
enum Happens {
    /// Something of a reply, or that nothing is owed any more.
    Told(Option<Outcome>),
    /// Bytes of the client.
    Came,
    /// The client has ended its sending.
    Ended,
    Lost(io::Error),
    /// The client_writer has gone.
    Gone,
    Drain,
    /// The trunk of a pinned client, to which nothing is owed.
    TrunkLost,
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
        let mut binding = None;
        loop {
            let piece = match self.requests.next(&self.bytes) {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    if self.more().await? {
                        continue;
                    }
                    return self.end().await;
                }
                Err(malformed) => {
                    let cause = format!("what the client sends is no request: {malformed}");
                    if self.is_in_a_request() {
                        // The trunk has a part of it: nobody can use that any more.
                        self.lease = None;
                        return Err(cut(cause));
                    }
                    self.settle().await?;
                    self.let_go().await;
                    if malformed.answer.is_empty() {
                        return Err(cut(cause));
                    }
                    log::info!(actor = self.name, conn = self.post.conn.number(); "{cause}");
                    return self.answer(malformed.answer).await;
                }
            };
            let came: Vec<u8> = self.bytes.drain(..piece.bytes).collect();
            let chunk = piece.instead.unwrap_or(came);
            let mut owed = None;
            if let Some(request) = &piece.begins {
                let (way, owes) = self.begin(request).await?;
                (self.way, binding, owed) = (Some(way), Some(request.binding), owes);
            } else if self.is_in_a_request() && self.is_answered() {
                self.settle().await?;
                self.answered_early = true;
                return self.end().await;
            }
            if self.is_in_a_request() && !self.forward(chunk, owed).await {
                // The trunk is gone, and whoever was owed something has been told.
                self.way = Some(Way::Drop);
            }
            if !piece.ends {
                continue;
            }
            let done = self.way.take();
            if matches!(binding, Some(Binding::Tunnel(_))) && done != Some(Way::Drop) {
                return self.tunnel().await;
            }
            let exclusive = done == Some(Way::Forward { exclusive: true });
            let release = binding == Some(Binding::Release);
            if (self.last || exclusive || release) && self.settle().await? {
                return self.tunnel().await;
            }
            if self.last {
                return self.end().await;
            }
            if release {
                self.let_go().await;
            }
            self.budget.spend().await;
        }
    }

    /// Nothing more of the client is looked at.
    async fn end(&mut self) -> Result<(), Exit> {
        if self.answered_early {
            // Neither side can tell any more what is a part of what.
            self.lease = None;
            return Ok(());
        }
        if self.is_in_a_request() {
            self.lease = None;
            return Err(cut("the client ended its sending in the middle of a request"));
        }
        self.settle().await?;
        self.let_go().await;
        if self.last || (self.bytes.is_empty() && self.way.is_none()) {
            return Ok(());
        }
        Err(cut("the client ended its sending in the middle of a request"))
    }

    /// The trunk has a part of a request, and is to have the rest.
    fn is_in_a_request(&self) -> bool {
        matches!(self.way, Some(Way::Forward { .. }))
    }

    /// Waits for more bytes of the client; false if nothing more of it is to be looked at. Gives the lease back when
    /// nothing is owed any more.
    async fn more(&mut self) -> Result<bool, Exit> {
        loop {
            let mut leaves = false;
            if self.busy.is_none() {
                if self.way.is_none() {
                    self.give_back().await;
                }
                let idle = self.way.is_none() && self.bytes.is_empty() && self.pinned.is_none();
                if self.last {
                    return Ok(false);
                }
                leaves = idle && self.drain.is_closed();
            }
            if self.fin {
                return Ok(false);
            }
            let happens = if leaves {
                // What has come already is still answered.
                match race(self.happens(true), std::future::ready(())).await {
                    Either::A(happens) => happens,
                    Either::B(()) => return Ok(false),
                }
            } else {
                self.happens(true).await
            };
            match happens {
                Happens::Told(outcome) => {
                    if self.took(outcome)? {
                        self.busy = None;
                        if self.is_in_a_request() {
                            self.answered_early = true;
                            return Ok(false);
                        }
                    }
                    if self.last {
                        return Ok(false);
                    }
                }
                Happens::Came => return Ok(true),
                Happens::Ended | Happens::Drain => {}
                Happens::TrunkLost => return Err(cut("the trunk it was pinned to was lost")),
                Happens::Lost(error) => return Err(Exit::Failed(error)),
                Happens::Gone => return Err(Exit::Deserted),
            }
        }
    }

    /// Waits until nothing is owed; whether the last reply said that bytes go through from now on. Reads ahead a little,
    /// so that the loss of a client is noticed.
    async fn settle(&mut self) -> Result<bool, Exit> {
        while self.busy.is_some() {
            let ahead = !self.fin && self.bytes.len() < AHEAD;
            match self.happens(ahead).await {
                Happens::Told(Some(Outcome::Tunnels)) => return Ok(true),
                Happens::Told(outcome) => {
                    if self.took(outcome)? {
                        self.busy = None;
                    }
                }
                Happens::Came | Happens::Ended | Happens::Drain | Happens::TrunkLost => {}
                Happens::Lost(error) => return Err(Exit::Failed(error)),
                Happens::Gone => return Err(Exit::Deserted),
            }
        }
        Ok(false)
    }

    async fn happens(&mut self, reads: bool) -> Happens {
        let idle = self.busy.is_none();
        let told = async {
            match &self.busy {
                Some(busy) => busy.outcomes.recv().await.ok(),
                None => pending().await,
            }
        };
        let came = async { if reads { recv(&*self.socket).await } else { pending().await } };
        let drain = async {
            // While something is owed, or a request has begun, the end of that is waited for.
            if idle && self.way.is_none() && !self.drain.is_closed() {
                let _ = self.drain.recv().await;
            } else {
                pending().await
            }
        };
        let lost = async {
            match &self.lease {
                Some(lease) if idle && self.pinned.is_some() => lease.ended().await,
                _ => pending().await,
            }
        };
        let came = race(race(came, self.to_client.closed()), race(drain, lost));
        match race(told, came).await {
            Either::A(outcome) => Happens::Told(outcome),
            Either::B(Either::A(Either::A(Ok(Some(chunk))))) => {
                let post = &self.post;
                post.gauges.add_read(Side::Client, chunk.len());
                post.events.on_receive(post.conn, Side::Client, &chunk);
                self.bytes.extend_from_slice(&chunk);
                Happens::Came
            }
            Either::B(Either::A(Either::A(Ok(None)))) => {
                self.post.gauges.saw_fin(Side::Client);
                self.fin = true;
                Happens::Ended
            }
            Either::B(Either::A(Either::A(Err(error)))) => Happens::Lost(error),
            Either::B(Either::A(Either::B(()))) => Happens::Gone,
            Either::B(Either::B(Either::A(()))) => Happens::Drain,
            Either::B(Either::B(Either::B(()))) => Happens::TrunkLost,
        }
    }

    /// A reply broke off. It was told as well, unless there was no room for one thing more to tell.
    fn is_broken(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.broken.load(SeqCst))
    }

    /// Takes in what was told of a reply; true if nothing is owed any more.
    fn took(&mut self, outcome: Option<Outcome>) -> Result<bool, Exit> {
        match outcome {
            None if self.is_broken() => return self.took(Some(Outcome::Broken)),
            None => return Ok(true),
            Some(Outcome::Last) => self.last = true,
            Some(Outcome::Retired) => self.retired = true,
            Some(Outcome::Doubtful) => self.doubtful = true,
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
        if self.is_answered() {
            // What the last reply had to tell is heard first.
            self.settle().await?;
        }
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
            if self.pinned.is_some() {
                // What it left there cannot be had elsewhere.
                return Err(cut("the trunk it was pinned to was lost"));
            }
            (self.lease, self.retired, self.doubtful) = (None, false, false);
            let leased = match race(self.pool.lease(), self.to_client.closed()).await {
                Either::A(leased) => leased,
                Either::B(()) => return Err(Exit::Deserted),
            };
            match leased {
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
        let mut busy = None;
        if let Some(Busy { sender, broken, .. }) = &self.busy {
            busy = sender.upgrade().map(|sender| (sender, Arc::clone(broken)));
            if busy.is_none() {
                self.settle().await?;
            }
        }
        let (busy, broken) = busy.unwrap_or_else(|| {
            // Room for what one reply has to tell; the first that matters ends the client.
            let (sender, outcomes) = async_channel::bounded(4);
            let broken = Arc::default();
            let sharing = Arc::clone(&broken);
            self.busy = Some(Busy { sender: sender.downgrade(), outcomes, broken: sharing });
            (sender, broken)
        });
        let owed = Owed::new(
            self.to_client.clone(),
            request.shape,
            count,
            Arc::clone(&self.framing),
            busy,
            broken,
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
            let doubtful = std::mem::take(&mut self.doubtful);
            if self.pinned.take().is_some() || retired || doubtful {
                // Gone: it has ended before.
                let _ = lease.send(Message::Fin { owed: false }).await;
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
            let _ = lease.send(Message::Fin { owed: true }).await;
        }
        self.settle().await?;
        Ok(())
    }
}
