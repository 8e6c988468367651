//! Replies.

use super::body::Body;
use super::chunked::Chunked;
use super::head::{Head, Length, Passed, complete};
use super::messages::{Message, Messages};
use super::{CONNECT, EXPECTS, Fault, HEAD, Http, LAST, OLD, UPGRADE, has};
use crate::framing::{Malformed, Piece, Replies, Reply, Shape};

/// One trunk.
pub(super) struct HttpReplies {
    limits: Http,
    messages: Messages<Reply>,
    /// Whether the body of the request that is due was asked for.
    continued: bool,
}

impl HttpReplies {
    pub(super) fn new(limits: &Http) -> HttpReplies {
        HttpReplies { limits: limits.clone(), messages: Messages::new(limits), continued: false }
    }
}

impl Replies for HttpReplies {
    fn next(
        &mut self,
        bytes: &[u8],
        due: Option<Shape>,
    ) -> Result<Option<Piece<Reply>>, Malformed> {
        // RFC 9112, 9.3: a reply that nobody asked for answers nobody; least of all whoever asks next.
        if due.is_none() && self.messages.in_head() && !bytes.is_empty() {
            return Err(Malformed::new("bytes came that nobody asked for"));
        }
        let (limits, continued) = (&self.limits, &mut self.continued);
        let shape = due.unwrap_or_default();
        self.messages
            .next(bytes, |head, lines| understand(head, lines, limits, shape, continued))
            .map_err(Fault::of_a_reply)
    }

    fn ends_with_the_trunk(&self) -> bool {
        self.messages.until_close()
    }
}

fn understand(
    bytes: &[u8],
    lines: usize,
    limits: &Http,
    shape: Shape,
    continued: &mut bool,
) -> Result<Message<Reply>, Fault> {
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut parsed = httparse::Response::new(&mut fields);
    complete(parsed.parse(bytes), bytes)?;
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Fault::bad("no status line"));
    };
    let head = Head::new(bytes, version == 0, parsed.headers);
    let options = head.options()?;
    let bodiless = |meaning, passed| Message {
        meaning,
        instead: head.passed_on(&options, passed),
        body: Body::None,
        at_once: false,
    };
    let upgrade = head.has("upgrade");
    let tunnel = Reply { reusable: false, tunnels: true, ..Reply::PLAIN };

    if has(shape, CONNECT) && (200..300).contains(&code) {
        return Ok(bodiless(tunnel, Passed::default())); // whatever it says of a length (RFC 9112, 6.3, 2)
    }
    let length = head.length()?;
    // RFC 9112, 6.1; RFC 9110, 8.6, which forbids a length of 0 as well, but that is common and cannot be misread.
    let empty = matches!(code, 100..=199 | 204);
    if empty && !matches!(length, Length::Untold | Length::Sized(0)) {
        return Err(Fault::bad("a body where the status allows none"));
    }
    match code {
        ..100 => return Err(Fault::bad("a status below 100")),
        101 if !has(shape, UPGRADE) => {
            return Err(Fault::bad("another protocol that nobody asked for")); // RFC 9110, 7.8
        }
        101 => {
            let passed = Passed { upgrade, te: false, connection: &["Upgrade"] };
            return Ok(bodiless(tunnel, passed));
        }
        100..200 => {
            *continued |= code == 100;
            // A client of HTTP/1.0 would take it for the reply (RFC 9110, 15.2).
            let besides = Reply { pops: false, silent: has(shape, OLD), ..Reply::PLAIN };
            return Ok(bodiless(besides, Passed::default()));
        }
        _ => {}
    }

    // Nobody knows whether the client still sends its body, or has thrown it away (RFC 9110, 10.1.1).
    let in_doubt = has(shape, EXPECTS) && !*continued;
    *continued = false;
    let body = match length {
        _ if empty || has(shape, HEAD) || code == 304 => Body::None,
        Length::Untold => Body::UntilClose,
        Length::Sized(length) => Body::sized(length),
        Length::Chunked if has(shape, OLD) => {
            return Err(Fault::bad("a chunked reply to a request of HTTP/1.0"));
        }
        Length::Chunked => Body::Chunked(Chunked::new(limits)),
    };
    let until_close = matches!(body, Body::UntilClose);
    let old = head.old || has(shape, OLD);
    let last = has(shape, LAST) || until_close || in_doubt;
    let closes = !options.stays(old) || until_close;
    let reusable = !closes && !in_doubt;

    let upgrade = upgrade && code == 426; // RFC 9110, 15.5.22: it says which protocol would do
    let mut connection = Vec::new();
    connection.extend(upgrade.then_some("Upgrade"));
    connection.extend(match (last, old) {
        (true, _) => Some("close"),
        (false, true) => Some("keep-alive"), // of one of HTTP/1.0 nobody would expect it
        (false, false) => None,
    });
    let instead = head.passed_on(&options, Passed { upgrade, te: false, connection: &connection });
    let meaning = Reply { reusable, closes, last, ..Reply::PLAIN };
    Ok(Message { meaning, instead, body, at_once: false })
}
