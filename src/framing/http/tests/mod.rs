//! What is read of whole conversations, what is refused, and that nothing depends on how the bytes came.

mod properties;
mod refusals;
mod replies;
mod requests;

use super::*;
use crate::framing::splits::{self, Read, every_split};
use crate::framing::{Piece, Reply, Request, WHOLE};

/// Everything that is made of the bytes of one client, however they are cut.
fn requests(bytes: &[u8]) -> Read<Request> {
    let http = Http::default();
    every_split(bytes, |bytes, lengths| splits::requests(&http, bytes, lengths))
}

/// Everything that is made of the bytes of one trunk, however they are cut.
fn replies(bytes: &[u8], due: &[u32]) -> Read<Reply> {
    let http = Http::default();
    let due: Vec<_> = due.iter().copied().map(Shape).collect();
    every_split(bytes, |bytes, lengths| splits::replies(&http, bytes, lengths, &due))
}

/// The one request that this is, as it is passed on.
fn request(text: &str) -> (String, Request) {
    let mut read = requests(text.as_bytes());
    assert_eq!(read.error, None, "{text:?}");
    assert_eq!(read.frames.len(), 1, "{text:?}");
    let (bytes, request) = read.frames.remove(0);
    (String::from_utf8(bytes).expect("text"), request)
}

/// The one reply that this is to a request of this shape, as it is passed on.
fn reply(text: &str, shape: u32) -> (String, Reply) {
    let mut read = replies(text.as_bytes(), &[shape]);
    assert_eq!(read.error, None, "{text:?}");
    assert_eq!(read.frames.len(), 1, "{text:?}");
    let (bytes, reply) = read.frames.remove(0);
    (String::from_utf8(bytes).expect("text"), reply)
}

/// Why this is no request; and the client is told so in a response that it can read.
fn refused(bytes: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let read = requests(bytes);
    let error = read.error.unwrap_or_else(|| panic!("it is accepted: {text:?}"));
    let answer = String::from_utf8(error.answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    assert_eq!(body, format!("{}\n", error.why));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(head.ends_with("\r\nConnection: close"), "{head}");
    let status = head.lines().next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.1 ").expect("a status line");
    (status.to_owned(), error.why)
}

/// Each piece of what has come at once: its length, whether it is the first of its frame, and whether the last.
fn pieces<T>(
    bytes: &[u8],
    mut next: impl FnMut(&[u8]) -> Result<Option<Piece<T>>, Malformed>,
) -> Vec<(usize, bool, bool)> {
    let (mut start, mut all) = (0, Vec::new());
    while let Some(piece) = next(&bytes[start..]).expect("well-formed") {
        start += piece.bytes;
        all.push((piece.bytes, piece.begins.is_some(), piece.ends));
    }
    all
}

/// Requests as programs send them; each of them one client's, and all of it well-formed.
fn clients() -> Vec<Vec<u8>> {
    let long = "x".repeat(WHOLE + 1000);
    let chunk = "y".repeat(0x4321);
    [
        // curl, twice on one connection.
        "GET /a HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n\
         HEAD /b?c=d HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
            .to_owned(),
        // A browser.
        "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\nCookie: a=b; c=\"d\"\r\n\
         Accept-Language: de,en;q=0.5\r\nIf-None-Match: W/\"5f\"\r\nX-Name: J\u{fc}rgen\r\n\r\n"
            .to_owned(),
        // A form, the empty line that old programs send behind it, and the next.
        "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nx=1&y=2\r\n\
         DELETE /form/1 HTTP/1.1\r\nHost: a\r\n\r\n"
            .to_owned(),
        // Pipelined, and the last says so.
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            .to_owned(),
        // A chunked upload with extensions and trailers.
        "PUT /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n\
         5\r\nhello\r\n1A;name=value ; x=\"a\\\"\t;\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0;last\r\n\
         Digest: sha-256=\r\nX-Empty:\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
            .to_owned(),
        format!(
            "POST /long HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n4321\r\n{chunk}\r\n00\r\n\r\n"
        ),
        format!("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        // A websocket as Firefox opens it.
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
        "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n".to_owned(),
        // ApacheBench, with -k and without.
        "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Negotiate TlRM\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
            .to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost:\r\nTE: trailers\r\nConnection: TE, X-Hop\r\nX-Hop: 1\r\n\r\n".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Replies as servers send them, with the shapes of the requests that they answer.
fn trunks() -> Vec<(Vec<u8>, Vec<u32>)> {
    let long = "z".repeat(WHOLE + 1000);
    [
        (
            "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\n\r\nhello\
          HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n\
          HTTP/1.1 304 Not Modified\r\nETag: \"5f\"\r\nContent-Length: 77\r\n\r\n\
          HTTP/1.1 204\r\n\r\n"
                .to_owned(),
            vec![0, HEAD, 0, 0],
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\r\n\
          5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nServer-Timing: x;dur=1\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned(),
            vec![0, 0],
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok\
          HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            vec![EXPECTS, EXPECTS],
        ),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}", long.len()), vec![LAST]),
        (format!("HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3\r\n\r\n{long}"), vec![0]),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok\
          HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .to_owned(),
            vec![OLD, OLD | LAST],
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_owned(),
            vec![UPGRADE],
        ),
        ("HTTP/1.1 200 Connection established\r\n\r\n".to_owned(), vec![CONNECT]),
        ("HTTP/1.1 407 Who are you\r\nContent-Length: 1\r\n\r\n?".to_owned(), vec![CONNECT]),
    ]
    .map(|(bytes, due)| (bytes.into_bytes(), due))
    .to_vec()
}

#[test]
fn conversations_read_the_same_however_they_are_cut() {
    for bytes in clients() {
        let read = requests(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!((read.error, read.rest.len()), (None, 0), "{text:.200}");
        // What `Skip`s is the empty line alone.
        let skipped =
            |frame: &&(Vec<u8>, Request)| frame.1.replies == crate::framing::Count::Exactly(0);
        let empty: Vec<_> = read.frames.iter().filter(skipped).collect();
        assert!(empty.iter().all(|(bytes, _)| bytes == b"\r\n"));
    }
    for (bytes, due) in trunks() {
        let read = replies(&bytes, &due);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(read.error, None, "{text:.200}");
        let popped = read.frames.iter().filter(|(_, reply)| reply.pops).count();
        assert_eq!(popped, if read.rest.is_empty() { due.len() } else { 0 }, "{text:.200}");
    }
}

#[test]
fn an_error_is_told_in_a_complete_response() {
    let http = Http::default();
    let told = |trouble, shape| String::from_utf8(http.error(trouble, Shape(shape))).expect("text");
    assert_eq!(
        told(Trouble::NoBackend, 0),
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\nno backend accepts\n"
    );
    assert_eq!(
        told(Trouble::QueueTimeout, HEAD | LAST),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n"
    );
    let check = |trouble, shape, status: &str, has: &[&str], has_not: &[&str]| {
        let told = told(trouble, shape);
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
        assert!(has.iter().all(|field| told.contains(field)), "{told}");
        assert!(!has_not.iter().any(|field| told.contains(field)), "{told}");
        // Whoever reads it finds one whole reply, and nothing behind it.
        let read = replies(told.as_bytes(), &[shape & HEAD]);
        assert_eq!((read.frames.len(), read.rest.len(), read.error), (1, 0, None));
    };
    check(Trouble::BackendLost, 0, "502", &[], &["Retry-After", "Connection"]);
    check(Trouble::QueueFull, 0, "503", &["Retry-After: 1\r\n"], &["Connection"]);
    check(Trouble::QueueTimeout, OLD, "503", &["Connection: keep-alive\r\n"], &["close"]);
    check(Trouble::ReplyTimeout, LAST, "504", &["Connection: close\r\n"], &["Retry-After"]);
    check(Trouble::ReplyTimeout, OLD | LAST, "504", &["Connection: close\r\n"], &["keep-alive"]);
    check(Trouble::NoBackend, EXPECTS, "502", &["Connection: close\r\n"], &[]);
    check(Trouble::NoBackend, HEAD, "502", &["Content-Length: 19"], &["no backend"]);
    assert_eq!(http.reset_query(), None);
    assert!(http.counts_replies());
    assert_eq!(http.name(), "http");
}
