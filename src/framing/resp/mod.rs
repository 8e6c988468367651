//! Redis' protocol, RESP, in versions 2 and 3, as Redis, Valkey and their kin speak it.
//!
//! Requests are arrays of bulk strings, or inline: a line of words, perhaps in quotes. What a request means for the trunk
//! follows from its command; `commands.rs` has the tables and the state of the client. A reply is one value of any type,
//! with all that is in it and with the attributes before it; a push (`>`) comes between replies, and is none.
//!
//! # Whole or in pieces
//! As `pieces.rs` has it. What a request means is decided by its end, or by its first [`WHOLE`](super::WHOLE) bytes if it
//! is long; an option that is not complete there is unknown, and what is unknown is taken for the worst that it may be;
//! an inline request of which not even the command is known there is malformed.
//!
//! A long frame can turn out to be malformed in one of its later pieces. The other side has the first ones then, and
//! cannot be used any more.
//!
//! # Sources
//! The protocol specification at `redis.io/docs/latest/develop/reference/protocol-spec`, the RESP3 specification at
//! `github.com/antirez/RESP3`, and for what they leave open `networking.c` and `sds.c` of Redis 7.

mod commands;
mod replies;
mod requests;

use super::{Framing, ResetQuery, Shape, Trouble};

/// A request is an array of bulk strings or an inline line; a reply is any value of RESP2 or RESP3.
///
/// # Limits
/// Those of Redis: a bulk string as [`Resp::max_frame`] says; a request, all of it, twice that; an array 2<sup>31</sup> - 1
/// elements; a line 64 KiB, be it an inline request or a simple string. There is none for how deep arrays are nested, since
/// nothing is remembered for each level.
///
/// # What requests mean
/// | Commands | Meaning |
/// |---|---|
/// | any that is not named below, known or not | one reply; shared; idempotent if it is a well-known read |
/// | BLPOP and its like, WAIT, WAITAOF, XREAD and XREADGROUP with BLOCK | exclusive: they make the trunk wait |
/// | DEBUG, CLIENT KILL | exclusive: they may end the connection that they came by |
/// | MULTI, WATCH | pinned until EXEC or DISCARD, for WATCH also UNWATCH |
/// | SELECT | pinned, but for `0` when that is the database already; `0` releases |
/// | ASKING | pinned, and released by the next request |
/// | AUTH, HELLO, READONLY, READWRITE | pinned until RESET |
/// | CLIENT, but for what is named elsewhere | pinned until RESET: it changes the connection, or tells what is true of no other |
/// | RESET | released; if nothing is pinned, answered here, for what has no state needs none of it taken away |
/// | SUBSCRIBE, UNSUBSCRIBE and their like | tunnel: an error is one reply, success is one for each channel, and in RESP3 both are pushes, so that nobody can count |
/// | MONITOR, SYNC, PSYNC, REPLCONF, CLUSTER SYNCSLOTS, SCRIPT DEBUG | tunnel: what follows are no replies |
/// | CLIENT LIST, PAUSE, UNPAUSE, UNBLOCK, HELP, REPLY ON | one reply; shared: they are about the server, or change nothing |
/// | CLIENT REPLY OFF, CLIENT REPLY SKIP | refused: replies that do not come cannot be counted |
/// | SHUTDOWN | refused: the server is not this client's alone |
/// | QUIT | answered here, and the client is closed |
/// | POST, HOST: | answered by an error here, and the client is closed: it speaks HTTP, and Redis would close the trunk |
/// | `*0`, `*-1`, an empty line | skipped: Redis does not answer either |
///
/// All of a pin is released at once: EXEC behind `SELECT 3` releases nothing. Between MULTI and EXEC a refused command goes
/// out as one that the server does not know, for that makes EXEC fail, as Redis itself would have it.
///
/// Releasing at RESET rests on a server that has it: Redis 6.2 or newer. Commands that the server renames are not
/// recognised. WAIT counts only what came by its own connection: what its client wrote while nothing was pinned may have
/// gone another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resp {
    /// The longest bulk string in bytes, in requests and in replies: what Redis calls `proto-max-bulk-len`.
    /// The server should not have a lower one: it closes the connection by which a longer string comes, whoever shares it.
    pub max_frame: usize,
}

impl Default for Resp {
    fn default() -> Self {
        Resp { max_frame: 512 << 20 }
    }
}

impl Framing for Resp {
    fn name(&self) -> &'static str {
        "resp"
    }

    fn requests(&self) -> Box<dyn super::Requests> {
        Box::new(requests::Requests::new(self.max_frame as u64))
    }

    fn replies(&self) -> Box<dyn super::Replies> {
        Box::new(replies::Replies::new(self.max_frame as u64))
    }

    fn error(&self, trouble: Trouble, _: Shape) -> Vec<u8> {
        format!("-ERR trunkline: {}\r\n", trouble.words()).into_bytes()
    }

    /// RESET, of Redis 6.2. It ends MULTI, WATCH, tracking and subscriptions, and goes back to RESP2, to database 0 and to
    /// the default user. Pushes may come before its reply.
    fn reset_query(&self) -> Option<ResetQuery> {
        Some(ResetQuery {
            request: b"*1\r\n$5\r\nRESET\r\n".to_vec(),
            reply: b"+RESET\r\n".to_vec(),
        })
    }

    fn counts_replies(&self) -> bool {
        true
    }
}

/// The longest line, its end included: an inline request or a simple string.
const MAX_LINE: usize = 64 << 10;

/// The most elements that an array can have.
const MAX_COUNT: i64 = i32::MAX as i64;

/// A decimal number and its CR LF, byte by byte. Only as Redis writes it: no plus, no leading zero, no space. Redis reads
/// no other either.
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    value: i64,
    negative: bool,
    digits: bool,
    cr: bool,
}

impl Number {
    /// Reads on: how many bytes were taken, and the number, if they ended it.
    ///
    /// # Errors
    /// This is no number.
    fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<i64>), ()> {
        for (place, byte) in bytes.iter().enumerate() {
            if let Some(number) = self.push(*byte)? {
                return Ok((place + 1, Some(number)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// The number, if this byte ended it.
    ///
    /// # Errors
    /// This is no number.
    fn push(&mut self, byte: u8) -> Result<Option<i64>, ()> {
        let sign = if self.negative { -1 } else { 1 };
        match byte {
            _ if self.cr => return if byte == b'\n' { Ok(Some(self.value)) } else { Err(()) },
            b'-' if !self.digits && !self.negative => self.negative = true,
            b'0'..=b'9' if self.digits && self.value == 0 => return Err(()),
            b'0'..=b'9' => {
                let next = self.value.checked_mul(10);
                let digit = i64::from(byte - b'0') * sign;
                self.value = next.and_then(|next| next.checked_add(digit)).ok_or(())?;
                self.digits = true;
            }
            b'\r' if self.digits && !(self.negative && self.value == 0) => self.cr = true,
            _ => return Err(()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
