//! One connection of a fake server.

use super::server::Asked;
use super::{LONGEST, ReplyFault, Rule};
use crate::framing::{Action, Framing, Piece, Replies, Reply, Request, Requests, Shape};
use crate::runtime::{AsyncStd, Runtime};
use crate::testing::{Ending, Peer, Seen};
use std::mem;
use std::time::Duration;

/// What is gathered at most before it is sent: the replies to requests that came together go out together.
const TOGETHER: usize = 64 << 10;

pub(super) struct Talk<'a> {
    framing: &'a dyn Framing,
    server: &'a Asked,
    rules: &'a [Rule],
    client: u64,
    peer: Peer,
    seen: Seen,
    replies: Box<dyn Replies>,
    /// The request of which not all has come.
    coming: Option<Coming>,
    /// Replies so far.
    count: u64,
    /// To be sent.
    out: Vec<u8>,
    /// A reply that waits for the next one to overtake it.
    held: Option<Vec<u8>>,
}

struct Coming {
    request: Request,
    /// As it is passed on.
    bytes: Vec<u8>,
    /// The reply is given already: the rest means nothing.
    answered: bool,
}

/// How a connection ends.
enum End {
    /// The client has ended its sending, and has its replies.
    Fin,
    /// It is closed here.
    Close,
    /// It is broken off here.
    Reset,
    /// It is lost.
    Lost,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        framing: &'a dyn Framing,
        server: &'a Asked,
        rules: &'a [Rule],
        client: u64,
        peer: Peer,
    ) -> Talk<'a> {
        let (seen, replies) = (peer.seen(), framing.replies());
        Talk {
            framing,
            server,
            rules,
            client,
            peer,
            seen,
            replies,
            coming: None,
            count: 0,
            out: Vec::new(),
            held: None,
        }
    }

    pub(super) async fn run(mut self) -> Seen {
        let mut requests = self.framing.requests();
        let mut ahead = Vec::new();
        let end = loop {
            if let Err(end) = self.step(&mut *requests, &mut ahead).await {
                break end;
            }
        };
        match end {
            End::Fin | End::Close => self.out.extend(self.held.take().unwrap_or_default()),
            End::Reset | End::Lost => {}
        }
        if matches!(end, End::Lost) || self.flush().await.is_err() {
            // The peer is dropped, and so the connection is reset.
            return self.seen;
        }
        match end {
            End::Fin => {
                self.peer.fin();
                self.peer.close();
            }
            End::Close => {
                // A request that was not read makes the system reset: not before all has arrived.
                self.peer.delivered().await;
                self.peer.close();
            }
            End::Reset => {
                self.peer.delivered().await;
                self.peer.reset();
            }
            End::Lost => {}
        }
        self.seen
    }

    /// Answers what has come, and waits for more.
    async fn step(&mut self, requests: &mut dyn Requests, ahead: &mut Vec<u8>) -> Result<(), End> {
        let mut start = 0;
        while start < ahead.len() {
            match requests.next(&ahead[start..]) {
                Ok(Some(piece)) => {
                    let end = start + piece.bytes;
                    self.piece(piece, &ahead[start..end]).await?;
                    start = end;
                }
                Ok(None) => break,
                Err(malformed) => {
                    self.out.extend_from_slice(&malformed.answer);
                    return Err(End::Close);
                }
            }
        }
        ahead.drain(..start);
        self.flush().await?;
        match self.peer.try_recv().await {
            Ok(Some(bytes)) => {
                self.seen.add(&bytes);
                ahead.extend_from_slice(&bytes);
                Ok(())
            }
            Ok(None) => {
                self.seen.ending = Ending::Fin;
                Err(End::Fin)
            }
            Err(error) => {
                self.seen.ending = Ending::from(&error);
                Err(End::Lost)
            }
        }
    }

    /// Takes a piece of a request. The server is asked when it has all of it.
    async fn piece(&mut self, piece: Piece<Request>, bytes: &[u8]) -> Result<(), End> {
        let begins = piece.begins.is_some();
        let begun =
            piece.begins.map(|request| Coming { request, bytes: Vec::new(), answered: false });
        let Some(mut coming) = begun.or_else(|| self.coming.take()) else { return Ok(()) };
        let shape = coming.request.shape;
        if !coming.answered {
            coming.bytes.extend_from_slice(piece.instead.as_deref().unwrap_or(bytes));
            let forward = coming.request.action == Action::Forward;
            let too_long = coming.bytes.len() > LONGEST;
            let fault = if begins { self.fault(self.count + 1) } else { None };
            if forward && (too_long || fault == Some(&ReplyFault::Error)) {
                coming.answered = self.refuse(shape).await? || too_long;
            }
            if coming.answered {
                coming.bytes = Vec::new();
            } else if forward && begins && !piece.ends {
                let meanwhile = self.server.begun(coming.bytes.clone()).await;
                self.answer(meanwhile, shape).await?;
            }
        }
        if !piece.ends {
            self.coming = Some(coming);
            return Ok(());
        }
        if coming.answered {
            return Ok(());
        }
        match coming.request.action {
            Action::Forward => {
                let reply = self.server.answer(self.client, coming.bytes).await;
                self.answer(reply, shape).await
            }
            Action::Skip => Ok(()),
            Action::Answer(reply) => self.reply(reply, Reply::PLAIN).await,
            Action::AnswerAndClose(reply) => {
                if !reply.is_empty() {
                    self.reply(reply, Reply::PLAIN).await?;
                }
                Err(End::Close)
            }
        }
    }

    /// Gives the protocol's error. False if the client is not to see any reply to such a request.
    async fn refuse(&mut self, shape: Shape) -> Result<bool, End> {
        let refusal = self.server.refusal().await.ok_or(End::Lost)?;
        let before = self.count;
        // Without a word for it, the reply is dropped.
        self.count += u64::from(refusal.is_empty());
        self.answer(Some(refusal), shape).await?;
        Ok(self.count > before)
    }

    /// Cuts what the server says into replies. `None` is a server that has panicked.
    async fn answer(&mut self, said: Option<Vec<u8>>, shape: Shape) -> Result<(), End> {
        let said = said.ok_or(End::Lost)?;
        let (mut rest, mut frame, mut meaning) = (&said[..], Vec::new(), None);
        let mut begins = rest;
        while !rest.is_empty() {
            let Ok(Some(piece)) = self.replies.next(rest, Some(shape)) else { break };
            let (bytes, behind) = rest.split_at(piece.bytes);
            frame.extend_from_slice(piece.instead.as_deref().unwrap_or(bytes));
            rest = behind;
            meaning = meaning.or(piece.begins);
            if piece.ends {
                let meaning = meaning.take().unwrap_or(Reply::PLAIN);
                let mut frame = mem::take(&mut frame);
                if !meaning.reusable && !meaning.last {
                    // The server closes of its own accord and says so, which a proxy would not pass on.
                    frame = begins[..begins.len() - rest.len()].to_vec();
                }
                self.reply(frame, meaning).await?;
                begins = rest;
            }
        }
        if !frame.is_empty() && rest.is_empty() && self.replies.ends_with_the_trunk() {
            let last = Reply { last: true, ..meaning.unwrap_or(Reply::PLAIN) };
            return self.reply(frame, last).await;
        }
        if !frame.is_empty() || !rest.is_empty() {
            // This is no reply, or not all of one: it goes out as it is, and the next is read from its beginning.
            self.out.extend(frame);
            self.out.extend_from_slice(rest);
            self.replies = self.framing.replies();
        }
        Ok(())
    }

    /// Sends a reply, or what its rule makes of it.
    async fn reply(&mut self, frame: Vec<u8>, meaning: Reply) -> Result<(), End> {
        if meaning.silent {
            return Ok(());
        }
        if !meaning.pops {
            self.out.extend(frame);
            return Ok(());
        }
        self.count += 1;
        let overtaken = self.held.take();
        let end = |after: usize| after.min(frame.len());
        match self.fault(self.count).cloned() {
            // The error stands in its place already.
            None | Some(ReplyFault::Error) => self.out.extend(frame),
            // Only one of two that change places is held.
            Some(ReplyFault::Swap) if overtaken.is_some() => self.out.extend(frame),
            Some(ReplyFault::Swap) => self.held = Some(frame),
            Some(ReplyFault::Drop) => {}
            Some(ReplyFault::Duplicate) => {
                self.out.extend_from_slice(&frame);
                self.out.extend(frame);
            }
            Some(ReplyFault::Delay(time)) => {
                self.pause(time).await?;
                self.out.extend(frame);
            }
            Some(ReplyFault::Split { after, pause }) => {
                self.out.extend_from_slice(&frame[..end(after)]);
                self.pause(pause).await?;
                self.out.extend_from_slice(&frame[end(after)..]);
            }
            Some(ReplyFault::Cut { after }) => {
                self.out.extend_from_slice(&frame[..end(after)]);
                return Err(End::Close);
            }
            Some(ReplyFault::Reset { after }) => {
                self.out.extend_from_slice(&frame[..end(after)]);
                return Err(End::Reset);
            }
        }
        self.out.extend(overtaken.unwrap_or_default());
        if meaning.last || !meaning.reusable {
            return Err(End::Close);
        }
        if self.out.len() > TOGETHER { self.flush().await } else { Ok(()) }
    }

    /// The fault of the reply of this number.
    fn fault(&self, number: u64) -> Option<&'a ReplyFault> {
        self.rules.iter().find(|rule| rule.which.has(number)).map(|rule| &rule.fault)
    }

    async fn pause(&mut self, time: Duration) -> Result<(), End> {
        self.flush().await?;
        AsyncStd.sleep(time).await;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let out = mem::take(&mut self.out);
        self.peer.try_send(&out).await.map_err(|error| {
            self.seen.ending = Ending::from(&error);
            End::Lost
        })
    }
}
