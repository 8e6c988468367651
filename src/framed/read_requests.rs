//! What the client_reader does where its requests are looked at: it sees to it that each ends in one reply or one error.
//!
//! A lease begins with a request. One of the client's own ends when nothing is owed any more: requests that come meanwhile
//! go to the same trunk, so that their replies keep their order. One that is shared lasts, for as long as its trunk.
//!
//! # When a trunk is lost
//! What it owed to this client is a row of requests without a gap, for a trunk answers in order. They are taken up again one
//! by one, in that order: what the trunk had not begun to write is sent to another; what it had may be sent again once, if it
//! is idempotent and nothing of its reply was passed on; all others end in an error.

use super::{Message, Outcome, Owed, Piece, Rest, Stamp, Tab, reset};
use crate::actor::{self, Budget};
use crate::credit::{Credit, Credits};
use crate::directory;
use crate::framing::{
    self, Action, Binding, Count, Framing, Malformed, Request, Requests, Trouble, WHOLE,
};
use crate::mailbox::Address;
use crate::pool::{Lease, Pool, Share, Window};
use crate::runtime::{Either, race, until};
use crate::socket::{Chunk, Socket, recv};
use crate::tunnel::{self, Cut, Exit, Post};
use crate::{Boxed, Side};
use async_channel::Receiver;
use futures_lite::future::pending;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Reads requests until the client ends its sending, cannot be understood, or is lost.
pub(crate) struct RequestReader {
    pub(crate) name: &'static str,
    pub(crate) socket: Arc<dyn Socket>,
    /// There is room in it for as many replies as there are credits, and for the end.
    pub(crate) to_client: Address<tunnel::Message>,
    pub(crate) credits: Credits,
    pub(crate) pool: Pool,
    /// Hears why the client has a trunk for itself.
    pub(crate) directory: Address<directory::Message>,
    /// Closes when the proxy is told to stop.
    pub(crate) drain: Receiver<Infallible>,
    pub(crate) post: Post,
}

impl RequestReader {
    pub(crate) async fn run(self) -> Exit {
        let framing = self.pool.framing();
        let requests = framing.requests();
        let most_held = self.pool.config().reply_buffer;
        let (to_client, drain) = (self.to_client.clone(), self.drain.clone());
        let buffers = self.pool.buffers().clone();
        let tab = Tab::new(to_client.clone(), self.credits.clone(), buffers, most_held);
        let mut reading = Reading {
            reader: self,
            framing,
            requests,
            tab,
            gone: Box::pin(async move { to_client.closed().await }),
            draining: Box::pin(async move {
                // Nothing is ever sent.
                until(|| drain.is_closed(), drain.recv()).await;
            }),
            asked: VecDeque::new(),
            pruned: 0,
            again: VecDeque::new(),
            orphaned: false,
            number: 0,
            bytes: Vec::new(),
            taken: 0,
            ahead: None,
            window: None,
            lease: None,
            pinned: None,
            pinned_by: 0,
            last: false,
            retired: false,
            doubtful: false,
            way: None,
            rest: None,
            fin: false,
            budget: Budget::default(),
        };
        match reading.run().await {
            Ok(()) => match reading.reader.to_client.send(tunnel::Message::Fin).await {
                Ok(()) => Exit::Finished,
                Err(_) => Exit::Deserted,
            },
            Err(exit) => {
                // What shared trunks still owe to it is for nobody.
                reading.reader.to_client.close();
                exit
            }
        }
    }
}

struct Reading {
    reader: RequestReader,
    framing: Arc<dyn Framing>,
    requests: Box<dyn Requests>,
    /// What the client awaits.
    tab: Arc<Tab>,
    /// Waits for the end of the client_writer, and for the order to stop: one wait each for all rounds.
    gone: Boxed<'static, ()>,
    draining: Boxed<'static, ()>,
    /// Requests that went to the trunk, and were not answered when that was last looked at; `pruned` were before.
    asked: VecDeque<Asked>,
    pruned: usize,
    /// Requests whose trunk was lost, which are to be taken up again in this order.
    again: VecDeque<Asked>,
    /// What the client was pinned to is lost.
    orphaned: bool,
    /// How many requests have begun.
    number: u64,
    /// What has come; the first `taken` bytes of it were understood.
    bytes: Vec<u8>,
    taken: usize,
    /// What was found behind them, and could not go along with the request before it.
    ahead: Option<Result<RequestPiece, Malformed>>,
    window: Option<Window>,
    lease: Option<Lease>,
    /// Why the lease is not given back when nothing is owed.
    pinned: Option<&'static str>,
    /// The request that began that.
    pinned_by: u64,
    /// The client is closed behind the replies that it awaits.
    last: bool,
    /// The trunk of the lease is of no use any more.
    retired: bool,
    /// Bytes came behind the last reply: the trunk is for nobody else.
    doubtful: bool,
    /// The request of which a piece has been looked at and another is to come.
    way: Option<Way>,
    /// Of that request.
    rest: Option<Rest>,
    /// The client has ended its sending.
    fin: bool,
    budget: Budget,
}

type RequestPiece = framing::Piece<Request>;

/// A request that went to a trunk.
struct Asked {
    request: Request,
    /// Which of the client's requests; and when it was understood, if that is logged.
    number: u64,
    began: Option<Instant>,
    /// How long it is; known if it went as a whole.
    length: usize,
    /// Its bytes, if it may be sent again.
    copy: Option<Chunk>,
    /// How often it was sent, or was to be.
    tries: u32,
    /// A trunk took it: its bytes are counted.
    counted: bool,
    /// What became of it, once its trunk is lost.
    trouble: Trouble,
    /// What its client is told, whose rest was none.
    malformed: Option<Vec<u8>>,
    /// A trunk may have carried it out.
    written: bool,
    /// It was sent again though one might have.
    repeated: bool,
}

impl Asked {
    /// More trunks in a row that end before they have looked at it are no accident.
    const TRIES: u32 = 8;

    fn new(request: Request, number: u64, began: Option<Instant>, length: usize) -> Asked {
        Asked {
            request,
            number,
            began,
            length,
            copy: None,
            tries: 1,
            counted: false,
            trouble: Trouble::BackendLost,
            malformed: None,
            written: false,
            repeated: false,
        }
    }

    /// RFC 9110, 9.2.2, says it for HTTP: a request may be repeated if that is the same as asking once.
    fn may_go_again(&self) -> bool {
        let once = self.request.idempotent && !self.repeated;
        let harmless = !self.written || once;
        let lost = self.trouble == Trouble::BackendLost;
        self.copy.is_some() && lost && harmless && self.tries < Self::TRIES
    }
}

/// More than this is not read ahead while a reply is waited for.
const AHEAD: usize = 16 << 10;

/// Behind so many bytes of requests of one client, no further one is kept for a lost trunk.
const COPIES: usize = 64 << 10;

/// The cause of the end of a client whose protocol has no words for that.
const LOST: &str = "a reply was lost";

const PIN_LOST: &str = "the trunk it was pinned to was lost";

/// The client must be shown a reset.
fn cut(cause: impl Into<String>) -> Exit {
    Exit::Cut(Cut::Reset(cause.into()))
}

/// What a client_reader waits for.
enum Happens {
    /// There is something to look at in the tab.
    Told,
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
        /// It has a reply.
        owes: bool,
    },
    /// It was answered here, or cannot be.
    Drop,
}

impl Reading {
    /// Returns when the client is to see the end of its stream, with all that it is owed before it.
    async fn run(&mut self) -> Result<(), Exit> {
        let mut binding = None;
        loop {
            let piece = match self.next() {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    if self.more().await? {
                        continue;
                    }
                    return self.end().await;
                }
                Err(malformed) => return self.ends_malformed(malformed).await,
            };
            let came = &self.bytes[self.taken..self.taken + piece.bytes];
            let mut chunk = match piece.instead {
                Some(instead) => instead.into(),
                None => self.reader.pool.buffers().copy(came),
            };
            self.taken += piece.bytes;
            let mut owed = None;
            if let Some(request) = piece.begins {
                binding = Some(request.binding);
                let way;
                (way, owed) = self.begin(request, chunk.len(), piece.ends).await?;
                self.way = Some(way);
                if let Some(owed) = &mut owed
                    && piece.ends
                {
                    self.take_along(&mut chunk, owed);
                    self.keep(&chunk, owed.requests());
                }
            } else if self.is_answered_early().await? && self.last {
                return self.end().await;
            }
            let rest = self.rest.take();
            self.rest = rest.clone().filter(|_| !piece.ends);
            if self.is_in_a_request() && !self.forward(chunk, owed, rest).await {
                self.way = Some(Way::Drop);
                // The request is among those that are taken up again, unless it awaits no reply.
                if self.settle().await? {
                    return self.tunnel().await;
                }
            }
            if !piece.ends {
                continue;
            }
            let done = self.way.take();
            if matches!(binding, Some(Binding::Tunnel(_))) && done != Some(Way::Drop) {
                return self.tunnel().await;
            }
            let exclusive = matches!(done, Some(Way::Forward { exclusive: true, .. }));
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

    /// The next piece of what has come.
    fn next(&mut self) -> Result<Option<RequestPiece>, Malformed> {
        match self.ahead.take() {
            Some(next) => next.map(Some),
            None => self.requests.next(&self.bytes[self.taken..]),
        }
    }

    /// Requests that came right behind the one that was asked last go along with it, in one message, if their replies are
    /// read alike, and as far as there is room for these at the client.
    fn take_along(&mut self, chunk: &mut Chunk, owed: &mut Owed) {
        let shares = self.lease.as_ref().is_some_and(Lease::is_shared);
        if !shares || !self.asked.back().is_some_and(|asked| asked.request.is_plain()) {
            return;
        }
        let (shape, first, from) = (owed.shape(), chunk.len(), self.taken);
        let joins = |request: &Request| request.is_plain() && request.shape == shape;
        loop {
            let piece = match self.requests.next(&self.bytes[self.taken..]) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(malformed) => {
                    self.ahead = Some(Err(malformed));
                    break;
                }
            };
            let fits = first + self.taken - from + piece.bytes <= WHOLE;
            let as_it_is = piece.ends && piece.instead.is_none();
            match piece.begins {
                Some(request) if fits && as_it_is && joins(&request) && owed.try_add() => {
                    self.taken += piece.bytes;
                    self.number += 1;
                    self.reader.post.gauges.add_request();
                    // Where requests are logged, none goes along.
                    self.asked.push_back(Asked::new(request, self.number, None, piece.bytes));
                }
                begins => {
                    self.ahead = Some(Ok(RequestPiece { begins, ..piece }));
                    break;
                }
            }
        }
        chunk.append(&self.bytes[from..self.taken]);
    }

    /// Keeps the bytes of as many requests, which were asked last, for the case that their trunk is lost.
    fn keep(&mut self, chunk: &Chunk, requests: usize) {
        let Some(last) = self.asked.back() else { return };
        // Of one that has no end nobody could tell when the next may follow.
        let ends = last.request.replies != Count::Unknown
            && !matches!(last.request.binding, Binding::Tunnel(_));
        // What a client has left on a trunk is of use there alone.
        let by = |number| number == self.pinned_by;
        let left = self.pinned.is_some()
            && !by(self.number)
            && !self.asked.iter().any(|asked| by(asked.number));
        if !ends || left || self.copied() >= COPIES {
            return;
        }
        let (first, mut end) = (self.asked.len() - requests, 0);
        for asked in self.asked.range_mut(first..) {
            let start = end;
            end += asked.length;
            asked.copy = Some(chunk.part(start..end));
        }
    }

    /// Nothing more of the client is looked at.
    async fn end(&mut self) -> Result<(), Exit> {
        if self.is_in_a_request() {
            // Nobody can use a trunk that has a part of a request.
            self.lease = None;
            if self.is_answered() {
                return Ok(());
            }
            return Err(cut("the client ended its sending in the middle of a request"));
        }
        self.settle().await?;
        self.let_go().await;
        if self.last || (self.left() == 0 && self.way.is_none()) {
            return Ok(());
        }
        Err(cut("the client ended its sending in the middle of a request"))
    }

    /// What came is no request, or no rest of one: nothing behind it can be understood either.
    async fn ends_malformed(&mut self, malformed: Malformed) -> Result<(), Exit> {
        let cause = format!("what the client sends is no request: {malformed}");
        let told = !malformed.answer.is_empty();
        if self.is_in_a_request() {
            // The trunk has a part of it: nobody can use that any more.
            self.lease = None;
            let due = told && self.has_a_reply() && self.tab.owes();
            match self.asked.back_mut().filter(|_| due) {
                // In its turn, when the trunk has dropped what it owes.
                Some(asked) => asked.malformed = Some(malformed.answer),
                None => return Err(cut(cause)),
            }
            self.settle().await?;
        } else {
            self.settle().await?;
            self.let_go().await;
            self.answer(malformed.answer).await?;
        }
        if !told {
            return Err(cut(cause));
        }
        log::info!(actor = self.reader.name, conn = self.reader.post.conn.number(); "{cause}");
        Ok(())
    }

    /// How much has come that was not understood yet.
    fn left(&self) -> usize {
        self.bytes.len() - self.taken
    }

    fn take_rest(&mut self) -> Chunk {
        let rest = self.reader.pool.buffers().copy(&self.bytes[self.taken..]);
        self.bytes.clear();
        self.taken = 0;
        rest
    }

    /// The trunk has a part of a request, and is to have the rest.
    fn is_in_a_request(&self) -> bool {
        matches!(self.way, Some(Way::Forward { .. }))
    }

    /// Waits for more bytes of the client; false if nothing more of it is to be looked at. Gives the lease back when
    /// nothing is owed any more.
    async fn more(&mut self) -> Result<bool, Exit> {
        let had = self.left();
        loop {
            let stops = self.reader.drain.is_closed();
            self.tab.await_the_end(stops || self.fin);
            let mut leaves = false;
            if !self.tab.owes() {
                self.settle().await?;
                if self.is_answered_early().await? && self.last {
                    return Ok(false);
                }
                if self.left() > had {
                    // They came while lost requests were taken up again.
                    return Ok(true);
                }
                if self.way.is_none() {
                    self.give_back().await;
                }
                let idle = self.way.is_none() && self.left() == 0 && self.pinned.is_none();
                leaves = idle && stops;
            }
            self.take_told()?;
            if (self.last && self.way.is_none()) || self.fin {
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
                Happens::Came => return Ok(true),
                Happens::Told | Happens::Ended | Happens::Drain => {}
                // It had its last reply, before the trunk had all of the request.
                Happens::TrunkLost if self.last => return Ok(false),
                Happens::TrunkLost => return Err(cut(PIN_LOST)),
                Happens::Lost(error) => return Err(Exit::Failed(error)),
                Happens::Gone => return Err(Exit::Deserted),
            }
        }
    }

    /// Waits until nothing is owed; whether the last reply said that bytes go through from now on. Reads ahead a little,
    /// so that the loss of a client is noticed.
    async fn settle(&mut self) -> Result<bool, Exit> {
        self.tab.await_the_end(true);
        loop {
            if !self.tab.owes() {
                self.conclude().await?;
                match self.again.pop_front() {
                    Some(asked) => {
                        self.ask_again(asked).await?;
                        continue;
                    }
                    None if self.orphaned => return Err(cut(PIN_LOST)),
                    None => return Ok(false),
                }
            }
            self.take_told()?;
            if self.tab.take_told(Outcome::Tunnels) {
                return Ok(true);
            }
            let ahead = !self.fin && self.left() < AHEAD;
            match self.happens(ahead).await {
                Happens::Told
                | Happens::Came
                | Happens::Ended
                | Happens::Drain
                | Happens::TrunkLost => {}
                Happens::Lost(error) => return Err(Exit::Failed(error)),
                Happens::Gone => return Err(Exit::Deserted),
            }
        }
    }

    /// Nothing is owed any more: what was not answered will not be, and its trunk is lost.
    async fn conclude(&mut self) -> Result<(), Exit> {
        self.take_told()?;
        self.prune();
        let progress = self.tab.progress();
        self.tab.start_over();
        self.pruned = 0;
        if self.asked.is_empty() {
            return Ok(());
        }
        self.lease = None;
        (self.retired, self.doubtful) = (false, false);
        if self.is_in_a_request() {
            self.way = Some(Way::Drop);
        }
        if self.tab.take_told(Outcome::Begun) {
            return Err(cut(LOST));
        }
        if self.pinned.is_some() {
            let by = self.asked.iter().position(|asked| asked.number == self.pinned_by);
            self.orphaned = by.is_none_or(|place| place < progress.written);
            if !self.orphaned {
                // It has left nothing there.
                self.tell_pinned(None, 0).await;
            }
        }
        if self.tab.take_told(Outcome::Late)
            && let Some(first) = self.asked.front_mut()
        {
            first.trouble = Trouble::ReplyTimeout;
        }
        for asked in self.asked.iter_mut().take(progress.written) {
            asked.written = true;
        }
        // In front of those that wait to be taken up already.
        self.asked.append(&mut self.again);
        std::mem::swap(&mut self.asked, &mut self.again);
        Ok(())
    }

    /// Sends a request to another trunk, if that does no harm; or else tells the client that it will not be answered.
    async fn ask_again(&mut self, mut asked: Asked) -> Result<(), Exit> {
        if let Some(answer) = asked.malformed {
            self.reader.post.gauges.add_error();
            return self.answer(answer).await;
        }
        if self.orphaned || !asked.may_go_again() {
            // What follows means something else without it.
            self.orphaned |= asked.request.binds();
            return self.refuse(asked.trouble, &asked.request).await;
        }
        let Some(copy) = &asked.copy else { return Ok(()) };
        let chunk = copy.part(0..copy.len());
        // Nothing is owed, so that it does not matter if that is not so any more.
        let has = self.has_trunk_for(&asked.request, true);
        if self.pinned.is_some() && !has {
            // What those before it have left there cannot be had elsewhere.
            return Err(cut(PIN_LOST));
        }
        let credit = self.lease_now(&asked.request, asked.number, true, has).await?;
        let credit = match credit {
            Ok(credit) => credit,
            Err(trouble) => {
                self.orphaned = asked.request.binds();
                return self.refuse(trouble, &asked.request).await;
            }
        };
        let conn = self.reader.post.conn.number();
        log::debug!(actor = self.reader.name, conn; "a request is sent again: its trunk was lost");
        asked.tries += 1;
        asked.repeated |= std::mem::take(&mut asked.written);
        let owed = self.owe(&asked, credit);
        self.asked.push_back(asked);
        // If that trunk is gone too, the request is taken up once more.
        self.forward(chunk, owed, None).await;
        Ok(())
    }

    async fn happens(&mut self, reads: bool) -> Happens {
        let idle = !self.tab.owes();
        let came = async { if reads { recv(&*self.reader.socket).await } else { pending().await } };
        let drain = async {
            if self.reader.drain.is_closed() {
                pending().await
            } else {
                self.draining.as_mut().await;
            }
        };
        let lost = async {
            match &self.lease {
                Some(lease) if idle && self.pinned.is_some() => lease.ended().await,
                _ => pending().await,
            }
        };
        let came = race(race(came, self.gone.as_mut()), race(drain, lost));
        match race(self.tab.heard(), came).await {
            Either::A(()) => Happens::Told,
            Either::B(Either::A(Either::A(Ok(Some(chunk))))) => {
                let post = &self.reader.post;
                post.gauges.add_read(Side::Client, chunk.len());
                post.events.on_receive(post.conn, Side::Client, &chunk);
                // Not for each request: there may be hundreds in a chunk.
                self.bytes.drain(..std::mem::take(&mut self.taken));
                self.bytes.extend_from_slice(&chunk);
                Happens::Came
            }
            Either::B(Either::A(Either::A(Ok(None)))) => {
                self.reader.post.gauges.saw_fin(Side::Client);
                self.fin = true;
                Happens::Ended
            }
            Either::B(Either::A(Either::A(Err(error)))) => Happens::Lost(error),
            Either::B(Either::A(Either::B(()))) => Happens::Gone,
            Either::B(Either::B(Either::A(()))) => Happens::Drain,
            Either::B(Either::B(Either::B(()))) => Happens::TrunkLost,
        }
    }

    /// Takes in what was told of replies.
    fn take_told(&mut self) -> Result<(), Exit> {
        self.last |= self.tab.take_told(Outcome::Last);
        self.retired |= self.tab.take_told(Outcome::Retired);
        self.doubtful |= self.tab.take_told(Outcome::Doubtful);
        if self.tab.was_told(Outcome::Behind) {
            let text = "it takes its replies too slowly for a trunk that it shares";
            return Err(Exit::Failed(io::Error::other(text)));
        }
        Ok(())
    }

    /// Forgets the requests that were answered.
    fn prune(&mut self) {
        let answered = self.tab.progress().answered;
        let new = answered - self.pruned;
        self.asked.drain(..new);
        self.pruned = answered;
        self.reader.post.gauges.add_replies(new);
    }

    /// Bytes of requests that could be sent again.
    fn copied(&self) -> usize {
        self.asked.iter().filter_map(|asked| asked.copy.as_ref()).map(|copy| copy.len()).sum()
    }

    /// Decides what becomes of a request that begins, and gets a trunk for it.
    async fn begin(
        &mut self,
        request: Request,
        length: usize,
        whole: bool,
    ) -> Result<(Way, Option<Owed>), Exit> {
        self.last |= request.last;
        if request.action != Action::Skip {
            self.number += 1;
            self.reader.post.gauges.add_request();
        }
        let logs = self.reader.pool.config().log_requests;
        let began = logs.then(|| self.reader.pool.runtime().now());
        self.prune();
        if !self.tab.owes() {
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
            self.reader.post.gauges.add_replies(1);
            self.answer(answer.clone()).await?;
            return Ok((Way::Drop, None));
        }
        let credit = match self.lease_for(&request, whole).await? {
            Ok(credit) => credit,
            Err(trouble) => {
                // Behind what it still awaits.
                self.settle().await?;
                self.refuse(trouble, &request).await?;
                // What follows means something else without it: half of a transaction must not be carried out.
                self.last |= request.binds();
                return Ok((Way::Drop, None));
            }
        };
        let exclusive = matches!(request.binding, Binding::Exclusive(_));
        let asked = Asked::new(request, self.number, began, length);
        self.rest = (!whole).then(Rest::default);
        let owed = self.owe(&asked, credit).map(|owed| owed.with_rest(self.rest.clone()));
        if owed.is_some() {
            self.asked.push_back(asked);
        }
        Ok((Way::Forward { exclusive, owes: owed.is_some() }, owed))
    }

    /// Gets a trunk for a request, once those before it that need another one have their replies.
    async fn lease_for(
        &mut self,
        request: &Request,
        whole: bool,
    ) -> Result<Result<Option<(Credit, Share)>, Trouble>, Exit> {
        let mut has = self.has_trunk_for(request, whole);
        if !has {
            // Replies keep the order of their requests, though these go to different trunks.
            self.settle().await?;
            has = self.has_trunk_for(request, whole);
            if self.pinned.is_some() && !has {
                // What it left there cannot be had elsewhere.
                return Err(cut(PIN_LOST));
            }
        }
        self.lease_now(request, self.number, whole, has).await
    }

    /// A client that stands still in the middle of a request must not hold up those behind it, nor one that binds its trunk.
    fn shares(&self, request: &Request, whole: bool) -> bool {
        self.reader.pool.shares() && whole && request.binding == Binding::Shared
    }

    fn has_trunk_for(&self, request: &Request, whole: bool) -> bool {
        let shares = self.shares(request, whole);
        let owes = self.tab.owes();
        self.lease.as_ref().is_some_and(|lease| {
            // Of its own, one is kept only while something is owed on it.
            let kept = owes || self.pinned.is_some();
            let fits = if lease.is_shared() { shares } else { kept || !shares };
            // What is pinned has to stay with what it left there.
            let doubtful = self.doubtful && !kept;
            !lease.is_over() && !lease.is_retired() && !self.retired && !doubtful && fits
        })
    }

    /// Gets a trunk for a request, unless it `has` one; and room for its reply, if the trunk is shared. Whether it has one is
    /// asked once: one that is lost meanwhile owes what must be taken up before another is asked.
    async fn lease_now(
        &mut self,
        request: &Request,
        number: u64,
        whole: bool,
        has: bool,
    ) -> Result<Result<Option<(Credit, Share)>, Trouble>, Exit> {
        if !has {
            self.let_go().await;
            (self.lease, self.retired, self.doubtful) = (None, false, false);
            let shares = self.shares(request, whole);
            let leased = self.reader.pool.lease(&mut self.window, shares);
            let leased = match race(leased, self.gone.as_mut()).await {
                Either::A(leased) => leased,
                Either::B(()) => return Err(Exit::Deserted),
            };
            match leased {
                Ok(lease) => self.lease = Some(lease),
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
        if let Err(trouble) = self.bind(request, number).await {
            return Ok(Err(trouble));
        }
        let share = self.lease.as_ref().and_then(Lease::share);
        Ok(Ok(match share {
            Some(share) if request.replies != Count::Exactly(0) => {
                Some((self.credit().await?, share))
            }
            _ => None,
        }))
    }

    /// Waits for room at the client.
    async fn credit(&mut self) -> Result<Credit, Exit> {
        loop {
            self.take_told()?;
            if let Some(credit) = self.reader.credits.try_take() {
                return Ok(credit);
            }
            let told = self.tab.heard();
            match race(self.reader.credits.take(), race(told, self.gone.as_mut())).await {
                Either::A(credit) => return Ok(credit),
                Either::B(Either::A(())) => {}
                Either::B(Either::B(())) => return Err(Exit::Deserted),
            }
        }
    }

    /// Notes on the tab what a request will have for replies.
    fn owe(&self, asked: &Asked, room: Option<(Credit, Share)>) -> Option<Owed> {
        let request = &asked.request;
        let count = match (request.replies, request.binding) {
            (_, Binding::Tunnel(_)) | (Count::Unknown, _) => None,
            (Count::Exactly(0), _) => return None,
            (Count::Exactly(count), _) => Some(count),
        };
        let stamp = asked.began.zip(self.lease.as_ref()).map(|(began, lease)| {
            let runtime = Arc::clone(self.reader.pool.runtime());
            Box::new(Stamp {
                conn: self.reader.post.conn,
                number: asked.number,
                trunk: lease.trunk(),
                pinned: self.pinned,
                began,
                bound: runtime.now(),
                first: None,
                runtime,
            })
        });
        Some(Owed::new(&self.tab, request.shape, count, request.waits, room, stamp))
    }

    /// Whether we are in a request that has a reply.
    fn has_a_reply(&self) -> bool {
        matches!(self.way, Some(Way::Forward { owes: true, .. }))
    }

    /// Whether the request in which we are awaits nothing any more: its reply has come, or never will.
    fn is_answered(&self) -> bool {
        self.has_a_reply() && !self.tab.owes()
    }

    /// Whether it is the first of the two: by an error above all. The trunk gets the rest, for it reads on if it is to be of
    /// use behind it; if it was lost, the rest is dropped, and others may follow.
    async fn is_answered_early(&mut self) -> Result<bool, Exit> {
        if self.is_answered() {
            self.settle().await?;
        }
        Ok(self.is_answered())
    }

    /// Takes the trunk out of those that are shared one request after the other, if the request needs that.
    async fn bind(&mut self, request: &Request, number: u64) -> Result<(), Trouble> {
        let why = match request.binding {
            Binding::Pinned(why) | Binding::Tunnel(why) => {
                // The first reason stands.
                self.tell_pinned(self.pinned.or(Some(why)), number).await;
                why
            }
            Binding::Exclusive(why) if request.waits => why,
            Binding::Shared | Binding::Exclusive(_) | Binding::Release => return Ok(()),
        };
        let Some(lease) = &mut self.lease else { return Ok(()) };
        let bound = self.reader.pool.pin(lease).await;
        if bound.is_err() {
            let conn = self.reader.post.conn.number();
            log::warn!(actor = self.reader.name, conn; "too many clients have a trunk of their own: {why}");
            self.tell_pinned(None, 0).await;
        }
        bound
    }

    /// Notes why the client has a trunk for itself, or that it has none any more.
    async fn tell_pinned(&mut self, pinned: Option<&'static str>, by: u64) {
        if self.pinned == pinned {
            return;
        }
        (self.pinned, self.pinned_by) = (pinned, by);
        let conn = self.reader.post.conn;
        let why = pinned.map(|why| format!("{why}, request {by}"));
        let said = why.as_deref().unwrap_or("not any more");
        log::debug!(actor = self.reader.name, conn = conn.number(); "pinned to its trunk: {said}");
        // Gone: the proxy is being dropped.
        let _ = self.reader.directory.send(directory::Message::Pinned { conn, why }).await;
    }

    /// Sends a piece to the trunk; false if that has gone. With `owed`, it begins the request that was asked last, or is the
    /// row of those.
    async fn forward(&mut self, chunk: Chunk, owed: Option<Owed>, rest: Option<Rest>) -> bool {
        let Some(lease) = &self.lease else { return false };
        let (bytes, requests) = (chunk.len(), owed.as_ref().map_or(0, Owed::requests));
        let piece = Piece { chunk, owed, rest };
        if lease.send(Message::Piece(piece)).await.is_err() {
            return false;
        }
        let mut again = false;
        let first = self.asked.len() - requests;
        for asked in self.asked.range_mut(first..) {
            again = std::mem::replace(&mut asked.counted, true);
        }
        if !again {
            self.reader.post.gauges.add_written(Side::Backend, bytes);
        }
        true
    }

    /// Tells the client that its request cannot be answered.
    async fn refuse(&mut self, trouble: Trouble, request: &Request) -> Result<(), Exit> {
        let conn = self.reader.post.conn.number();
        log::warn!(actor = self.reader.name, conn; "a request is not answered: {}", trouble.words());
        if request.replies == Count::Exactly(0) {
            return Ok(());
        }
        let error = self.framing.error(trouble, request.shape);
        if error.is_empty() {
            // The protocol has no words for it.
            return Err(cut(if trouble == Trouble::BackendLost { LOST } else { trouble.words() }));
        }
        self.reader.post.gauges.add_error();
        self.answer(error).await
    }

    async fn answer(&mut self, bytes: Vec<u8>) -> Result<(), Exit> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.tab.send(bytes.into()).await.map_err(|_| Exit::Deserted)
    }

    /// Nothing is owed: the trunk may serve somebody else, unless the client is pinned to it. One that is shared serves
    /// others all the time.
    async fn give_back(&mut self) {
        if self.pinned.is_none() && self.lease.as_ref().is_some_and(|lease| !lease.is_shared()) {
            self.let_go().await;
        }
    }

    /// The client is done with it. A trunk to which it was pinned has to forget what the client left there.
    async fn let_go(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let retired = std::mem::take(&mut self.retired);
        let doubtful = std::mem::take(&mut self.doubtful);
        let pinned = self.pinned.is_some();
        self.tell_pinned(None, 0).await;
        if lease.is_shared() {
            return;
        }
        if retired || doubtful {
            return lease.close().await;
        }
        if !pinned {
            return self.reader.pool.give_back(lease).await;
        }
        match self.framing.reset_query() {
            None => lease.close().await,
            // The client does not wait for that.
            Some(query) => {
                let resetting = reset(lease, self.reader.pool.clone(), query);
                actor::spawn(&**self.reader.pool.runtime(), "reset", None, resetting).detach();
            }
        }
    }

    /// From here on the client has the trunk for itself, and its bytes go through as they are.
    async fn tunnel(&mut self) -> Result<(), Exit> {
        self.tell_pinned(self.pinned.or(Some("tunnel")), self.number).await;
        if let Some(lease) = &mut self.lease
            && let Err(trouble) = self.reader.pool.pin(lease).await
        {
            return Err(cut(trouble.words()));
        }
        loop {
            let rest = self.take_rest();
            if !rest.is_empty() && !self.forward(rest, None, None).await {
                break;
            }
            if !self.more().await? {
                break;
            }
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
