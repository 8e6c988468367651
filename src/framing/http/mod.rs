//! HTTP/1.1 and HTTP/1.0 (RFC 9110 and RFC 9112), so that clients can share connections to a backend.
//!
//! Whoever shares a connection must read it exactly as the backend does: a difference of one byte in where a message ends
//! makes the rest of one client's body another client's request. So the reading is strict, and what could be read in
//! two ways is refused, also where the RFCs leave it open.
//!
//! # What is passed on
//! Byte for byte what came, but for the fields that concern one connection only (RFC 9110, 7.6.1): see
//! [`head`]. A chunked body is checked and stays chunked: see [`chunked`].
//!
//! # Pieces
//! A message without a body, or with a `Content-Length` that makes it no longer than [`WHOLE`](super::WHOLE), is one piece.
//! Of all others the head is a piece of its own, however long it is, and the body follows as it comes: a longer one, a
//! chunked one, one that lasts until the close, and one that the client holds back (`Expect`, RFC 9110, 10.1.1).
//!
//! # HTTP/1.0
//! A client that speaks 1.0 cannot read a chunked reply, so its request goes on as 1.0, and the backend knows (RFC 9110,
//! 2.5). It goes on with `Connection: keep-alive`, whatever the client said. The trunk is reused only if the reply says
//! `keep-alive` too: that a peer understood it cannot be told otherwise (RFC 9112, C.2.2).
//!
//! # What a user of it must do
//! - A final reply may come before its request has ended. What the client sends then may be the rest of the body or,
//!   wrongly, the next request; and the backend waits for the rest. So neither connection can be used again, unless the
//!   request ends first. The one common case is seen to here: a request with `Expect` whose final reply comes without a
//!   `100 Continue` before it has [`Reply::last`](super::Reply::last), and its trunk is not reusable.
//! - A reply that tunnels does so though the request was the client's last, as each `CONNECT` of HTTP/1.0 is.
//! - A request whose body turns out to be malformed has begun on its trunk already: that trunk is closed.

mod body;
mod chunked;
mod head;
mod messages;
mod replies;
mod requests;
#[cfg(test)]
mod tests;

use super::{Framing, Malformed, Replies, Requests, Shape, Trouble};

/// HTTP/1.1 and HTTP/1.0: which request may share a connection, where each message ends, and what is refused.
///
/// Requests (sections of RFC 9112 unless another RFC is named):
/// - The body's length comes from `Transfer-Encoding: chunked` or from `Content-Length` (6.3). Both at once, any other
///   coding, several `Transfer-Encoding` fields, one in HTTP/1.0 (6.1), and a length that is not one decimal number
///   (6.3; fields that repeat the same number become one) are answered by 400 and the client is closed.
/// - So are a line that ends with LF alone, a CR anywhere else, control characters (2.2; RFC 9110, 5.5), a blank before
///   a colon or at the beginning of a line (5.1, 5.2), a missing, repeated or impossible `Host` (3.2), a trailer that
///   belongs into the head (RFC 9110, 6.5.1), and a `Connection` that names a field that matters (see below).
/// - A head or trailers that are too long are answered by 431 (RFC 6585, 5).
/// - One empty line before a request is skipped (2.2).
/// - Fields for one connection are not passed on: what `Connection` names, `Connection`, `Keep-Alive`,
///   `Proxy-Connection`, `TE` and `Upgrade` (RFC 9110, 7.6.1). If it names `Host`, `Content-Length`, `Cookie`, `Forwarded`
///   or the like, that is an attempt to hide the field from the backend, and is refused.
/// - `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT` and `DELETE` without a body are idempotent (RFC 9110, 9.2.2) and share a
///   trunk; nothing is sent behind any other request before its reply (9.3.2).
/// - `CONNECT` (RFC 9110, 9.3.6) and `Upgrade` (RFC 9110, 7.8) may end in a tunnel.
/// - `Authorization: NTLM` or `Negotiate` says who the *connection* belongs to (RFC 4559, 6): from there on the client
///   keeps its trunk.
///
/// Replies:
/// - The body's length follows 6.3: none for `HEAD`, 1xx, 204 and 304; a tunnel for 2xx to `CONNECT`; chunked; by
///   `Content-Length`; else until the close. What would be refused in a request is malformed here.
/// - 1xx is not the reply that is due (RFC 9110, 15.2), but `101` is, if an upgrade was asked for.
/// - The trunk can be used again unless the reply lasts until the close, says `Connection: close`, or is of HTTP/1.0
///   and does not say `keep-alive` (9.3).
///
/// Not done: it adds no `Via`, looks at no `Max-Forwards`, compares no `Host` with a target in absolute form (3.2.2), and
/// neither adds nor takes away a transfer coding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The longest head, in bytes; and the longest trailers.
    pub max_head: usize,
    /// The most fields of a head; and of the trailers.
    pub max_fields: usize,
}

impl Default for Http {
    fn default() -> Self {
        Http { max_head: 64 << 10, max_fields: 128 }
    }
}

impl Framing for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(requests::HttpRequests::new(self))
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(replies::HttpReplies::new(self))
    }

    /// 502, 503 or 504 (RFC 9110, 15.6.3 to 15.6.5).
    fn error(&self, trouble: Trouble, shape: Shape) -> Vec<u8> {
        let (status, mut fields) = match trouble {
            Trouble::NoBackend | Trouble::BackendLost => ("502 Bad Gateway", vec![]),
            Trouble::QueueFull | Trouble::QueueTimeout | Trouble::TooManyPinned => {
                ("503 Service Unavailable", vec!["Retry-After: 1"])
            }
            Trouble::ReplyTimeout => ("504 Gateway Timeout", vec![]),
        };
        // A body that the client has held back may come or not: it must not go on as if nothing had been.
        if has(shape, LAST) || has(shape, EXPECTS) {
            fields.push("Connection: close");
        } else if has(shape, OLD) {
            fields.push("Connection: keep-alive");
        }
        response(status, &fields, trouble.words(), !has(shape, HEAD))
    }

    /// No. A server may close behind any reply, and if more requests have come by then, its system resets the connection and
    /// destroys what was on its way back (RFC 9112, 9.6): one client's last request would cost others half of a reply.
    fn multiplexes(&self) -> bool {
        false
    }

    fn counts_replies(&self) -> bool {
        true
    }
}

/// A [`Shape`]: the request was a `HEAD`.
const HEAD: u32 = 1;
/// It was a `CONNECT`.
const CONNECT: u32 = 2;
/// It asks for another protocol.
const UPGRADE: u32 = 4;
/// It was of HTTP/1.0.
const OLD: u32 = 8;
/// It is the client's last.
const LAST: u32 = 16;
/// It has a body that waits for a `100 Continue`.
const EXPECTS: u32 = 32;

fn has(shape: Shape, flag: u32) -> bool {
    shape.0 & flag != 0
}

/// A complete response of our own.
fn response(status: &str, fields: &[&str], text: &str, body: bool) -> Vec<u8> {
    let length = text.len() + 1;
    let mut all =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
    for field in fields {
        all.push_str(field);
        all.push_str("\r\n");
    }
    all.push_str("\r\n");
    if body {
        all.push_str(text);
        all.push('\n');
    }
    all.into_bytes()
}

/// What is wrong with a message. The words are ours alone: nothing of what a peer sent comes back in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    status: &'static str,
    why: String,
}

impl Fault {
    /// It breaks a rule.
    fn bad(why: impl Into<String>) -> Fault {
        Fault { status: "400 Bad Request", why: why.into() }
    }

    /// Its fields are too many or too long.
    fn large(why: impl Into<String>) -> Fault {
        Fault { status: "431 Request Header Fields Too Large", why: why.into() }
    }

    /// Of a request: the client is told.
    fn of_a_request(self) -> Malformed {
        let answer = response(self.status, &["Connection: close"], &self.why, true);
        Malformed { why: self.why, answer }
    }

    /// Of a reply: the client is told by [`Framing::error`].
    fn of_a_reply(self) -> Malformed {
        Malformed::new(self.why)
    }
}
