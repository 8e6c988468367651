//! Requests.

use super::body::Body;
use super::chunked::Chunked;
use super::head::{Head, Length, Passed, complete};
use super::messages::{Message, Messages};
use super::{CONNECT, EXPECTS, Fault, HEAD, Http, LAST, OLD, UPGRADE};
use crate::framing::{Action, Binding, Count, Malformed, Piece, Request, Requests, Shape};

/// Why a client keeps its trunk.
const NTLM: &str = "NTLM";

/// One client.
pub(super) struct HttpRequests {
    limits: Http,
    messages: Messages<Request>,
    /// Whether an empty line was skipped before this request.
    skipped: bool,
    /// Whether the trunk knows by now who this client is.
    pinned: bool,
}

impl HttpRequests {
    pub(super) fn new(limits: &Http) -> HttpRequests {
        let messages = Messages::new(limits);
        HttpRequests { limits: limits.clone(), messages, skipped: false, pinned: false }
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Fault> {
        // The empty line that some clients send behind a body (RFC 9112, 2.2).
        if self.messages.in_head() && !self.skipped && matches!(bytes, [b'\r'] | [b'\r', b'\n', ..])
        {
            self.skipped = bytes.len() > 1;
            return Ok(self.skipped.then(|| Piece::whole(2, empty_line())));
        }
        let (limits, pinned) = (&self.limits, &mut self.pinned);
        let piece =
            self.messages.next(bytes, |head, lines| understand(head, lines, limits, pinned))?;
        if piece.is_some() {
            self.skipped = false;
        }
        Ok(piece)
    }
}

impl Requests for HttpRequests {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        self.piece(bytes).map_err(Fault::of_a_request)
    }
}

fn empty_line() -> Request {
    Request {
        action: Action::Skip,
        replies: Count::Exactly(0),
        shape: Shape::default(),
        binding: Binding::Shared,
        idempotent: true,
        last: false,
        waits: false,
    }
}

fn understand(
    bytes: &[u8],
    lines: usize,
    limits: &Http,
    pinned: &mut bool,
) -> Result<Message<Request>, Fault> {
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut parsed = httparse::Request::new(&mut fields);
    complete(parsed.parse(bytes), bytes)?;
    let (Some(method), Some(version)) = (parsed.method, parsed.version) else {
        return Err(Fault::bad("no request line"));
    };
    let head = Head::new(bytes, version == 0, parsed.headers);
    check_host(&head)?;
    let options = head.options()?;
    let body = match head.length()? {
        Length::Untold => Body::None, // RFC 9112, 6.3, 7: a request has no body unless it says so
        Length::Sized(length) => Body::sized(length),
        Length::Chunked => Body::Chunked(Chunked::new(limits)),
    };
    let has_body = !body.is_none();

    let connect = method == "CONNECT";
    if connect && has_body {
        return Err(Fault::bad("a CONNECT with a body")); // it would be taken for the tunnel's first bytes
    }
    // In HTTP/1.0 both mean nothing (RFC 9110, 7.8 and 10.1.1).
    let upgrade = !head.old && !connect && options.has("upgrade") && head.has("upgrade");
    let expects = !head.old && has_body && head.has("expect");
    let last = !options.stays(head.old);
    *pinned |= names_the_connection(&head);

    // RFC 9110, 9.2.2. A method that is not known here may do anything.
    let method_is = matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE");
    let binding = match () {
        // The trunk is the client's already, and no reply decides whether the other protocol begins.
        () if *pinned && (connect || upgrade) => Binding::Tunnel(NTLM),
        () if *pinned => Binding::Pinned(NTLM),
        () if connect => Binding::Exclusive("CONNECT"),
        () if upgrade => Binding::Exclusive("upgrade"),
        () if !method_is => Binding::Exclusive("not idempotent"),
        // It may be long in coming; and a backend that does not read it takes it for a request, whose reply must find
        // nobody waiting.
        () if has_body => Binding::Exclusive("a body"),
        () => Binding::Shared,
    };
    let flags = [
        (method == "HEAD", HEAD),
        (connect, CONNECT),
        (upgrade, UPGRADE),
        (head.old, OLD),
        (last, LAST),
        (expects, EXPECTS),
    ];
    let shape = flags.iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag);

    let te = !head.old && head.says("te", "trailers");
    let mut connection = Vec::new();
    connection.extend(head.old.then_some("keep-alive"));
    connection.extend(upgrade.then_some("Upgrade"));
    connection.extend(te.then_some("TE")); // RFC 9110, 10.1.4: nobody may send it without
    let instead = head.passed_on(&options, Passed { upgrade, te, connection: &connection });
    let meaning = Request {
        action: Action::Forward,
        replies: Count::Exactly(1),
        shape: Shape(shape),
        binding,
        // A body is gone when the first trunk is; another trunk does not know who the client is.
        idempotent: method_is && !has_body && !upgrade && !*pinned,
        last,
        waits: false,
    };
    Ok(Message { meaning, instead, body, at_once: expects })
}

/// One `Host`, and one that can be one (RFC 9112, 3.2). HTTP/1.0 needs none.
fn check_host(head: &Head<'_>) -> Result<(), Fault> {
    let mut hosts = head.all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::bad("several Host fields"));
    }
    let Some(host) = host else {
        return if head.old { Ok(()) } else { Err(Fault::bad("no Host field")) };
    };
    // RFC 3986, 3.2.2 and 3.2.3, but for the comma: a list of hosts is no host.
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    if host.iter().all(may) { Ok(()) } else { Err(Fault::bad("Host is no host")) }
}

/// Whether it proves who its connection belongs to, not itself (RFC 4559, 6): against the rule that every request stands
/// alone (RFC 9110, 3.3).
fn names_the_connection(head: &Head<'_>) -> bool {
    let is = |value: &[u8]| {
        let scheme = value.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
        ["ntlm", "negotiate"].iter().any(|one| scheme.eq_ignore_ascii_case(one.as_bytes()))
    };
    head.all("authorization").chain(head.all("proxy-authorization")).any(is)
}
