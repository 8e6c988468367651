//! What the backend_reader of a trunk does.

use super::due::Due;
use super::{Message, Outcome, Owed};
use crate::actor::Budget;
use crate::framing::{Malformed, Replies, Reply};
use crate::mailbox::{Mailbox, WeakAddress};
use crate::runtime::{Alarm, Either, Runtime, race};
use crate::socket::{Chunk, Socket, recv};
use crate::tunnel::Exit;
use futures_lite::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Reads replies from a trunk and passes each to whom it is owed, until the trunk ends, cannot be understood, cannot be
/// used any more, or is silent for too long.
pub(crate) struct ReplyReader {
    pub(crate) name: &'static str,
    pub(crate) trunk: u64,
    pub(crate) expected: Mailbox<Owed>,
    pub(crate) socket: Arc<dyn Socket>,
    pub(crate) replies: Box<dyn Replies>,
    pub(crate) patience: Patience,
    /// Of the backend_writer.
    pub(crate) requests: WeakAddress<Message>,
    /// Set once anything came that was asked for.
    pub(crate) answered: Arc<AtomicBool>,
}

impl ReplyReader {
    pub(crate) async fn run(self) -> Exit {
        let ReplyReader { name, trunk, mut expected, socket, replies, patience, .. } = self;
        let mut reading = Reading {
            name,
            trunk,
            replies,
            due: None,
            bytes: Vec::new(),
            begun: None,
            closes: false,
            patience,
            answered: self.answered,
        };
        let exit = reading.run(&mut expected, &*socket).await;
        // Before anybody is told that his reply will not come: he is not to ask for another one here.
        if let Some(requests) = self.requests.upgrade() {
            requests.close();
        }
        if reading.closes {
            while let Some(mut owed) = expected.try_recv() {
                owed.is_not_written();
            }
        }
        match exit {
            Ok(exit) => exit,
            Err(malformed) => {
                log::warn!(actor = name, trunk; "trunk {trunk} is closed, for what it sends is no reply: {malformed}");
                Exit::Failed(io::Error::new(io::ErrorKind::InvalidData, malformed.why))
            }
        }
    }
}

/// Finds out that a backend has owed something for too long without sending a byte. It asks nobody for the time: it counts
/// looks, each an eighth of the limit after the other, so that it is late by two of them at most.
pub(crate) struct Patience {
    runtime: Arc<dyn Runtime>,
    /// Between two looks; `None` never loses patience.
    every: Option<Duration>,
    look: Option<Alarm>,
    /// Looks since a byte has come, or nothing was due.
    silent: u32,
}

impl Patience {
    const LOOKS: u32 = 8;

    pub(crate) fn new(runtime: Arc<dyn Runtime>, limit: Option<Duration>) -> Patience {
        let every = limit.map(|limit| limit / Self::LOOKS);
        Patience { runtime, every, look: None, silent: 0 }
    }

    /// Waits until it is time for a look.
    async fn wait(&mut self) {
        let Some(every) = self.every else { return pending().await };
        let look = self.look.get_or_insert_with(|| Alarm::set(&*self.runtime, every));
        look.await;
        self.look = None;
    }

    /// A look: whether patience is lost.
    fn looks(&mut self, due: Option<&Due>) -> bool {
        self.silent = if due.is_some_and(|due| !due.owed.has_time()) { self.silent + 1 } else { 0 };
        // The first look may have come right behind the request.
        self.silent > Self::LOOKS
    }
}

struct Reading {
    name: &'static str,
    trunk: u64,
    replies: Box<dyn Replies>,
    due: Option<Due>,
    /// What has come and was not passed on.
    bytes: Vec<u8>,
    /// The reply of which a part has been passed on.
    begun: Option<Reply>,
    /// The backend has looked at nothing behind its last reply.
    closes: bool,
    patience: Patience,
    answered: Arc<AtomicBool>,
}

enum Happens {
    Came(io::Result<Option<Chunk>>),
    /// Whoever has the trunk for himself has left while it is silent.
    Deserted,
    Look,
}

impl Reading {
    async fn run(
        &mut self,
        expected: &mut Mailbox<Owed>,
        socket: &dyn Socket,
    ) -> Result<Exit, Malformed> {
        let mut budget = Budget::default();
        loop {
            if let Some(exit) = self.pass_on(expected).await? {
                return Ok(exit);
            }
            match self.happens(socket).await {
                Happens::Came(Ok(Some(chunk))) => {
                    self.patience.silent = 0;
                    let (trunk, bytes) = (self.trunk, chunk.len());
                    log::trace!(actor = self.name, trunk, bytes; "read {bytes} bytes from trunk {trunk}");
                    self.bytes.extend_from_slice(&chunk);
                }
                Happens::Came(Ok(None)) => {
                    let raw = self.due.as_ref().is_some_and(|due| due.owed.is_raw());
                    let complete = self.bytes.is_empty() && self.replies.ends_with_the_trunk();
                    if (raw || complete)
                        && let Some(due) = &mut self.due
                    {
                        due.owed.tell(Outcome::Retired);
                        due.owed.tell(Outcome::Last);
                        due.done();
                    }
                    return Ok(Exit::Finished);
                }
                Happens::Came(Err(error)) => return Ok(Exit::Failed(error)),
                Happens::Deserted => return Ok(Exit::Deserted),
                Happens::Look => {
                    if self.due.is_none() {
                        self.due = expected.try_recv().map(Due::from);
                    }
                    if self.patience.looks(self.due.as_ref()) {
                        if let Some(due) = &self.due {
                            due.owed.tell(Outcome::Late);
                        }
                        return Ok(Exit::Failed(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            budget.spend().await;
        }
    }

    async fn happens(&mut self, socket: &dyn Socket) -> Happens {
        let deserted = async {
            match &self.due {
                Some(due) if due.owed.is_raw() => due.owed.deserted().await,
                _ => pending().await,
            }
        };
        let rest = race(deserted, self.patience.wait());
        match race(recv(socket), rest).await {
            Either::A(came) => Happens::Came(came),
            Either::B(Either::A(())) => Happens::Deserted,
            Either::B(Either::B(())) => Happens::Look,
        }
    }

    /// Passes on all that is complete; an exit if the trunk is of no use behind it.
    async fn pass_on(&mut self, expected: &mut Mailbox<Owed>) -> Result<Option<Exit>, Malformed> {
        let mut start = 0;
        let exit = loop {
            if self.due.is_none() {
                self.due = expected.try_recv().map(Due::from);
            }
            if start == self.bytes.len() {
                break None;
            }
            if self.due.is_some() && !self.answered.load(Relaxed) {
                self.answered.store(true, Relaxed);
            }
            if let Some(due) = &mut self.due
                && due.owed.is_raw()
            {
                // All that comes is the client's, as it is.
                due.pass(&self.bytes[start..]).await;
                due.go_on();
                start = self.bytes.len();
                break None;
            }
            let shape = self.due.as_ref().map(|due| due.owed.shape());
            let Some(piece) = self.replies.next(&self.bytes[start..], shape)? else { break None };
            let end = start + piece.bytes;
            let bytes = piece.instead.as_deref().unwrap_or(&self.bytes[start..end]);
            start = end;
            let Some(reply) = piece.begins.or(self.begun) else {
                return Err(Malformed::new("a part of a reply that has not begun"));
            };
            self.begun = (!piece.ends).then_some(reply);
            let Some(due) = &mut self.due else { continue };
            let retired = piece.ends && reply.pops && !reply.reusable;
            // Told before the client can have the last byte, and ask for more.
            if retired {
                due.owed.tell(Outcome::Retired);
            }
            if piece.ends && reply.last {
                due.owed.tell(Outcome::Last);
            }
            if !reply.silent && !bytes.is_empty() {
                due.pass(bytes).await;
            }
            if !piece.ends {
                due.go_on();
                continue;
            }
            if reply.tunnels {
                due.go_on();
                due.tunnels();
                continue;
            }
            if !reply.pops {
                due.go_on_unbegun();
                continue;
            }
            if due.replied() {
                let next = expected.try_recv().map(Due::from);
                if next.is_none() && start < self.bytes.len() {
                    due.owed.tell(Outcome::Doubtful);
                }
                self.due = next;
            }
            if retired {
                self.closes = reply.closes;
                if let Some(due) = &mut self.due
                    && reply.closes
                {
                    due.owed.is_not_written();
                }
                break Some(Exit::Finished);
            }
        };
        if let Some(due) = &mut self.due {
            due.pause();
        }
        self.bytes.drain(..start);
        Ok(exit)
    }
}
