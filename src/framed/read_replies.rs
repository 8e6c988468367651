//! What the backend_reader of a trunk does.

use super::{Outcome, Owed};
use crate::actor::Budget;
use crate::framing::{Malformed, Replies, Reply};
use crate::mailbox::Mailbox;
use crate::runtime::{Either, race};
use crate::socket::{Socket, recv};
use crate::tunnel::Exit;
use std::io;
use std::sync::Arc;

/// Reads replies from a trunk and passes each to whom it is owed, until the trunk ends, cannot be understood, or cannot
/// be used any more.
pub(crate) async fn read_replies(
    name: &'static str,
    mut expected: Mailbox<Owed>,
    socket: Arc<dyn Socket>,
    replies: Box<dyn Replies>,
) -> Exit {
    let mut reading = Reading { replies, due: None, bytes: Vec::new(), begun: None };
    let exit = reading.run(&mut expected, &*socket).await;
    match exit {
        Ok(exit) => exit,
        Err(malformed) => {
            log::warn!(actor = name; "a trunk is closed, for what it sends is no reply: {malformed}");
            Exit::Failed(io::Error::new(io::ErrorKind::InvalidData, malformed.why))
        }
    }
}

struct Reading {
    replies: Box<dyn Replies>,
    due: Option<Owed>,
    /// What has come and was not passed on.
    bytes: Vec<u8>,
    /// The reply of which a part has been passed on.
    begun: Option<Reply>,
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
            let came = match &self.due {
                // Whoever has the trunk for himself may leave while it is silent.
                Some(due) if due.count.is_none() => {
                    match race(recv(socket), due.reply_to.closed()).await {
                        Either::A(came) => came,
                        Either::B(()) => return Ok(Exit::Deserted),
                    }
                }
                _ => recv(socket).await,
            };
            match came {
                Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk),
                Ok(None) => {
                    let raw = self.due.as_ref().is_some_and(|due| due.count.is_none());
                    let complete = self.bytes.is_empty() && self.replies.ends_with_the_trunk();
                    if (raw || complete)
                        && let Some(due) = &mut self.due
                    {
                        due.count = Some(0);
                        due.tell(Outcome::Retired);
                        due.tell(Outcome::Last);
                    }
                    return Ok(Exit::Finished);
                }
                Err(error) => return Ok(Exit::Failed(error)),
            }
            budget.spend().await;
        }
    }

    /// Passes on all that is complete; an exit if the trunk is of no use behind it.
    async fn pass_on(&mut self, expected: &mut Mailbox<Owed>) -> Result<Option<Exit>, Malformed> {
        let mut start = 0;
        let exit = loop {
            if self.due.is_none() {
                self.due = expected.try_recv();
            }
            if start == self.bytes.len() {
                break None;
            }
            if let Some(due) = &mut self.due
                && due.count.is_none()
            {
                // All that comes is the client's, as it is.
                let chunk = self.bytes.split_off(start);
                let _ = due.pass(chunk).await;
                break None;
            }
            let shape = self.due.as_ref().map(|due| due.shape);
            let Some(piece) = self.replies.next(&self.bytes[start..], shape)? else { break None };
            let end = start + piece.bytes;
            let chunk = piece.instead.unwrap_or_else(|| self.bytes[start..end].to_vec());
            start = end;
            let Some(reply) = piece.begins.or(self.begun) else {
                return Err(Malformed::new("a part of a reply that has not begun"));
            };
            self.begun = (!piece.ends).then_some(reply);
            let Some(due) = &mut self.due else { continue };
            let retired = piece.ends && reply.pops && !reply.reusable;
            // Told before the client can have the last byte, and ask for more.
            if retired {
                due.tell(Outcome::Retired);
            }
            if piece.ends && reply.last {
                due.tell(Outcome::Last);
            }
            if !reply.silent {
                // Gone: the client has left, and the rest is read for nobody.
                let _ = due.pass(chunk).await;
            }
            if !piece.ends {
                continue;
            }
            if reply.pops {
                due.replied();
            }
            if reply.tunnels {
                due.count = None;
                due.tell(Outcome::Tunnels);
                continue;
            }
            if due.count == Some(0) {
                let next = expected.try_recv();
                if next.is_none() && start < self.bytes.len() {
                    due.tell(Outcome::Doubtful);
                }
                self.due = next;
            }
            if retired {
                break Some(Exit::Finished);
            }
        };
        self.bytes.drain(..start.min(self.bytes.len()));
        Ok(exit)
    }
}
