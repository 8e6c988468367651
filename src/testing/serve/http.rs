//! A small HTTP server, whose paths are keys.

use super::Server;
use crate::framing::Http;
use std::collections::HashMap;

/// Bodies by path.
#[derive(Default)]
pub(super) struct Store(HashMap<String, Vec<u8>>);

/// The longest chunk of a reply without a length: short, so that a body has several.
const CHUNK: usize = 1000;

impl Server for Store {
    fn answer(&mut self, _: u64, request: &[u8]) -> Vec<u8> {
        let Some(Request { head, method, path, chunked, old, .. }) = Request::read(request) else {
            return reply("400 Bad Request", &[], b"");
        };
        let (path, query) = path.split_once('?').unwrap_or((path.as_str(), ""));
        let body = &request[head..];
        let body = if chunked { joined(body) } else { body.to_vec() };
        match method.as_str() {
            "GET" | "HEAD" => {
                let Some(body) = self.0.get(path) else { return not_found(&method) };
                match (method.as_str(), query) {
                    ("HEAD", _) => head_of("200 OK", body.len(), &[]),
                    // It cannot read chunks.
                    (_, "chunked") if !old => in_chunks(body),
                    _ => reply("200 OK", &[], body),
                }
            }
            "PUT" => match self.0.insert(path.to_string(), body) {
                None => reply("201 Created", &[], b""),
                Some(_) => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            },
            "POST" => {
                let all = self.0.entry(path.to_string()).or_default();
                all.extend(body);
                reply("200 OK", &[], format!("{}\n", all.len()).as_bytes())
            }
            "DELETE" => match self.0.remove(path) {
                None => not_found(&method),
                Some(_) => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            },
            _ => {
                let allow = ["Allow: GET, HEAD, PUT, POST, DELETE"];
                reply("405 Method Not Allowed", &allow, b"")
            }
        }
    }

    fn begun(&mut self, request: &[u8]) -> Vec<u8> {
        match Request::read(request) {
            Some(Request { expects: true, .. }) => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
            _ => Vec::new(),
        }
    }

    /// Nobody can tell whether its body will come, so the connection ends.
    fn refusal(&self) -> Vec<u8> {
        reply("413 Content Too Large", &["Connection: close"], b"the body is too large\n")
    }
}

struct Request {
    /// The length of its head.
    head: usize,
    method: String,
    path: String,
    chunked: bool,
    /// Whether the client waits before it sends the body (RFC 9110, 10.1.1).
    expects: bool,
    /// Whether it is of HTTP/1.0.
    old: bool,
}

impl Request {
    /// Reads what the framing has found to be a request.
    fn read(request: &[u8]) -> Option<Request> {
        // What the framing allows, and the one that it adds.
        let mut fields = vec![httparse::EMPTY_HEADER; Http::default().max_fields + 1];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(head)) = parsed.parse(request) else { return None };
        let has = |name: &str| parsed.headers.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        let old = parsed.version? == 0;
        Some(Request {
            head,
            method: parsed.method?.to_string(),
            path: parsed.path?.to_string(),
            chunked: has("transfer-encoding"),
            expects: has("expect") && !old,
            old,
        })
    }
}

/// The data of a chunked body, which the framing has checked.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(body) {
        let end = usize::try_from(size).ok().and_then(|size| line.checked_add(size));
        let Some(chunk) = end.and_then(|end| body.get(line..end)).filter(|it| !it.is_empty())
        else {
            break;
        };
        data.extend_from_slice(chunk);
        // CR LF is behind it.
        body = body.get(line + chunk.len() + 2..).unwrap_or_default();
    }
    data
}

/// A head of which a body of this length follows, unless it was not asked for.
fn head_of(status: &str, length: usize, fields: &[&str]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn reply(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut reply = head_of(status, body.len(), fields);
    reply.extend_from_slice(body);
    reply
}

fn not_found(method: &str) -> Vec<u8> {
    let body: &[u8] = if method == "HEAD" { b"" } else { b"not found\n" };
    reply("404 Not Found", &[], body)
}

fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(CHUNK) {
        reply.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        reply.extend_from_slice(chunk);
        reply.extend_from_slice(b"\r\n");
    }
    reply.extend_from_slice(b"0\r\n\r\n");
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(store: &mut Store, line: &str, fields: &str, body: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
        String::from_utf8(store.answer(1, request.as_bytes())).expect("text")
    }

    #[test]
    fn methods() {
        let mut store = Store::default();
        let mut check = |line: &str, body: &str, status: &str, said: &str| {
            let reply = ask(&mut store, line, "", body);
            let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {head}");
            assert_eq!(body, said, "{line}");
            let length = format!("Content-Length: {}", said.len());
            let chunked = head.contains("chunked") || status.starts_with("204");
            assert!(chunked || line.starts_with("HEAD") || head.contains(&length), "{head}");
        };
        check("GET /a", "", "404", "not found\n");
        check("HEAD /a", "", "404", "");
        check("PUT /a", "one", "201", "");
        check("GET /a", "", "200", "one");
        check("GET /a?b", "", "200", "one");
        check("GET /a?chunked", "", "200", "3\r\none\r\n0\r\n\r\n");
        check("HEAD /a", "", "200", "");
        check("PUT /a", "two", "204", "");
        check("POST /a", "!", "200", "4\n");
        check("POST /a", "!", "200", "5\n");
        check("GET /a", "", "200", "two!!");
        check("DELETE /a", "", "204", "");
        check("DELETE /a", "", "404", "not found\n");
        check("PATCH /a", "x", "405", "");
        assert!(ask(&mut store, "PATCH /", "", "").contains("Allow: GET, HEAD, PUT, POST, DELETE"));
    }

    #[test]
    fn a_chunked_body_is_joined_and_a_long_one_is_cut() {
        let mut store = Store::default();
        let chunked = "Transfer-Encoding: chunked\r\n";
        let body = "3;x=y\r\none\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        assert!(ask(&mut store, "PUT /a", chunked, body).starts_with("HTTP/1.1 201"));
        assert!(ask(&mut store, "GET /a", "", "").ends_with("\r\n\r\none0123456789"));
        let long = "x".repeat(2 * CHUNK + 1);
        ask(&mut store, "PUT /long", "", &long);
        let reply = ask(&mut store, "GET /long?chunked", "", "");
        let (_, body) = reply.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.matches("3e8\r\n").count(), 2);
        assert_eq!(joined(body.as_bytes()), long.as_bytes());
        // The head of it could not be read by a client of HTTP/1.0.
        let old = store.answer(1, b"GET /long?chunked HTTP/1.0\r\n\r\n");
        assert!(old.ends_with(long.as_bytes()));
    }

    #[test]
    fn a_body_that_is_held_back_is_asked_for() {
        let head = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n";
        let mut store = Store::default();
        let said = store.begun(format!("{head}expect: 100-Continue\r\n\r\n").as_bytes());
        assert_eq!(said, b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(store.begun(format!("{head}\r\n").as_bytes()), b"");
    }
}
