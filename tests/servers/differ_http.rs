//! Random requests for nginx and for a server in Python, right ones and broken ones.

use super::differ::{Batch, Done, Talk, bytes, one, same, several};
use super::*;
use fastrand::Rng;

/// Heads of requests that are right, to both servers, without the end of the head; of some, a body follows.
const GETS: &[&str] = &[
    "GET /small HTTP/1.1\r\nHost: a\r\n",
    "GET /nothing?a=b%20c HTTP/1.1\r\nhost:a\r\nX-One:  1 \r\nX-Two:\r\n",
    "HEAD /small HTTP/1.1\r\nHost: a\r\n",
    "HEAD /nothing HTTP/1.1\r\nHost: a\r\n",
    "GET /middle HTTP/1.1\r\nHost: a:80\r\nX-Long: 0123456789012345678901234567890123456789\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nRange: bytes=2-6\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nRange: bytes=100-\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n",
    "GET http://a/small HTTP/1.1\r\nHost: a\r\nX-Space: a b\tc\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
    "GET /small HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n",
    "DELETE /small HTTP/1.1\r\nHost: a\r\n",
    "OPTIONS / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n",
];

/// Those that only the server in Python understands.
const OTHERS: &[&str] = &[
    "POST /a HTTP/1.1\r\nHost: a\r\n",
    "PATCH /a/b HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-One: 2\r\n",
    "GET /chunked/20 HTTP/1.1\r\nHost: a\r\n",
    "HEAD /chunked/20 HTTP/1.1\r\nHost: a\r\n",
    "GET /status/204 HTTP/1.1\r\nHost: a\r\n",
    "GET /status/304 HTTP/1.1\r\nHost: a\r\n",
    "GET /status/500 HTTP/1.1\r\nHost: a\r\n",
    "GET /chunked/3 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n",
];

/// Behind these the connection is closed.
const LAST: &[&str] = &[
    "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nConnection: Close, One\r\nOne: 1\r\n\r\n",
    "GET /small HTTP/1.0\r\n\r\n",
    "HEAD /small HTTP/1.0\r\n\r\n",
    "GET /nothing HTTP/1.0\r\nConnection: close\r\n\r\n",
];

/// What is wrong, could be read in two ways, or is a trick to hide one request in another. The proxy may refuse it, and it
/// must answer it once.
const BROKEN: &[&str] = &[
    "GET /small HTTP/1.1\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET /small\r\n\r\n",
    "GET /small HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET /small HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET  /small HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /small HTTP/1.1\nHost: a\n\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nX-One : 1\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\n X-One: 1\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nX-One: 1\0\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nX-One: 1\rX-Two: 2\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "GET /sm\0all HTTP/1.1\r\nHost: a\r\n\r\n",
    "G\x01T /small HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \nabc\r\n0\r\n\r\n",
    "PUT /uploaded/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n",
    "GET /small HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\nContent-Length: 3\r\n\r\nabc",
    "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    "quit\r\n\r\n",
];

struct Client<'a> {
    dice: &'a mut Rng,
    number: usize,
    nginx: bool,
}

impl Client<'_> {
    fn next(&mut self) -> Vec<u8> {
        let kind = self.dice.u32(0..4);
        let place = format!("/uploaded/{}-{}", self.number, self.dice.u32(0..3));
        let head = match kind {
            0 if self.nginx => format!("PUT {place} HTTP/1.1\r\nHost: a\r\n"),
            // The other one knows nothing of an empty line before a request.
            1 if self.nginx => format!("\r\nGET {place} HTTP/1.1\r\nHost: a\r\n"),
            0 | 1 => one(self.dice, OTHERS).to_string(),
            _ => one(self.dice, GETS).to_string(),
        };
        let uploads = ["PUT", "POST", "PATCH"].iter().any(|method| head.starts_with(method));
        let mut all = head.into_bytes();
        if !uploads {
            all.extend_from_slice(b"\r\n");
            return all;
        }
        let body = bytes(self.dice);
        let length = body.len();
        if self.dice.bool() {
            all.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
            all.extend_from_slice(&body);
            return all;
        }
        all.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let mut left = &body[..];
        while !left.is_empty() {
            let (chunk, rest) = left.split_at(self.dice.usize(1..=left.len()));
            let extension = one(self.dice, &["", "", ";a", ";a=b;c=\"d\""]);
            all.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            all.extend_from_slice(chunk);
            all.extend_from_slice(b"\r\n");
            left = rest;
        }
        let trailer = one(self.dice, &["", "", "X-Trailer: 1\r\n"]);
        all.extend(format!("{}\r\n{trailer}\r\n", one(self.dice, &["0", "000"])).bytes());
        all
    }
}

fn talk(number: usize, dice: &mut Rng, nginx: bool) -> Talk {
    let mut client = Client { dice, number, nginx };
    let mut talk: Talk = (0..client.dice.usize(1..8))
        .map(|batch| {
            let count = client.dice.usize(1..6);
            let mut bytes: Vec<u8> = several(count, || client.next());
            // The server says the path.
            let last = format!("/said/{batch}-{number}");
            bytes.extend(format!("GET {last} HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
            Batch { bytes, done: Done::Says(format!("{last}\n")) }
        })
        .collect();
    let ends = if number.is_multiple_of(2) { LAST } else { BROKEN };
    let bytes = ends[(number / 2) % ends.len()].into();
    talk.push(Batch { bytes, done: Done::Closed });
    talk
}

/// Without the fields that are about time or about one connection.
fn plain(heard: &[u8]) -> Vec<u8> {
    const NOT: &[&[u8]] =
        &[b"Date: ", b"Last-Modified: ", b"ETag: ", b"Connection: ", b"Keep-Alive: "];
    let lines = heard.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| !NOT.iter().any(|not| line.starts_with(not)));
    kept.collect::<Vec<&[u8]>>().concat()
}

/// One answer that refuses, in the proxy's own words.
fn is_refusal(asked: &[u8], _: &[u8], told: &[u8]) -> bool {
    let told = String::from_utf8_lossy(told);
    let says = |status: &str| {
        told.starts_with(&format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n"))
            && told.matches("HTTP/1.1 ").count() == 1
    };
    let asked = String::from_utf8_lossy(asked);
    BROKEN.contains(&&*asked) && says("400 Bad Request")
}

fn replies(mode: Mode, servers: [Server; 2], nginx: bool) {
    let proxy = Proxy::sharing_with(mode, "http", &servers[1].address(), &["--trunks", "3"]);
    let mut dice = Rng::with_seed(7);
    let talks: Vec<Talk> =
        (0..2 * BROKEN.len()).map(|number| talk(number, &mut dice, nginx)).collect();
    same([servers[0].port, proxy.port], &talks, 8, plain, is_refusal);
    proxy.stop();
}

pub(crate) fn of_nginx(mode: Mode) {
    replies(mode, [nginx::server(), nginx::server()], true);
}

pub(crate) fn of_another(mode: Mode) {
    replies(mode, [shared::http_server(), shared::http_server()], false);
}
