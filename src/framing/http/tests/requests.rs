//! What a request is, and what is passed on of it.

use super::*;
use crate::framing::{Action, Binding, Count};

#[test]
fn a_request_says_who_may_share_its_trunk() {
    let exclusive = |request: &str, why: &'static str, shape| {
        check(request, Binding::Exclusive(why), shape, false);
    };
    let shared = |request, shape| check(request, Binding::Shared, shape, true);
    let pinned = |request, shape| check(request, Binding::Pinned("NTLM"), shape, false);
    let tunnel = |request, shape| check(request, Binding::Tunnel("NTLM"), shape, false);
    fn check(request: &str, binding: Binding, shape: u32, idempotent: bool) {
        // FIRST|FIELD|FIELD!BODY
        let (head, body) = request.split_once('!').unwrap_or((request, ""));
        let (first, fields) = head.split_once('|').unwrap_or((head, "X: y"));
        let (fields, body) = (fields.replace('|', "\r\n"), body.replace('|', "\r\n"));
        let version = if shape & OLD == 0 { "1.1" } else { "1.0" };
        let text = format!("{first} HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n{body}");
        let (_, seen) = super::request(&text);
        assert_eq!(seen.action, Action::Forward, "{text}");
        assert_eq!(seen.replies, Count::Exactly(1), "{text}");
        assert_eq!((seen.binding, seen.idempotent), (binding, idempotent), "{text}");
        assert_eq!(seen.shape, Shape(shape), "{text}");
        assert_eq!(seen.last, shape & LAST != 0, "{text}");
    }
    shared("GET /", 0);
    shared("HEAD /", HEAD);
    shared("OPTIONS *", 0);
    shared("TRACE /", 0);
    shared("PUT /", 0);
    shared("DELETE /|Content-Length: 0", 0);
    shared("GET http://a/b", 0);
    shared("GET /|Connection: close", LAST);
    shared("GET /|Connection: Keep-Alive", 0);
    shared("GET /|Connection: keep-alive|Connection: x,Close ,", LAST);
    shared("GET /|Expect: 100-continue", 0); // there is nothing to wait for
    shared("GET /|Authorization: Basic bnRsbQ==", 0);
    shared("GET /|Authorization: NTLMv3", 0);
    // An upgrade takes both fields.
    shared("GET /|Upgrade: websocket", 0);
    shared("GET /|Connection: upgrade", 0);
    // RFC 9110, 9.2.2.
    for method in ["POST", "PATCH", "PROPFIND", "get", "Head", "QUERY"] {
        exclusive(&format!("{method} /"), "not idempotent", 0);
    }
    exclusive("POST /|Content-Length: 3!abc", "not idempotent", 0);
    exclusive("PUT /|Content-Length: 3!abc", "a body", 0);
    exclusive("GET /|Content-Length: 3!abc", "a body", 0);
    exclusive("HEAD /|Transfer-Encoding: chunked!0||", "a body", HEAD);
    exclusive("PUT /|Expect: 100-continue|Content-Length: 1!x", "a body", EXPECTS);
    exclusive("PUT /|Expect: 200-ok|Content-Length: 1!x", "a body", EXPECTS);
    exclusive("CONNECT a:1", "CONNECT", CONNECT);
    exclusive("CONNECT a:1|Connection: upgrade|Upgrade: x", "CONNECT", CONNECT);
    exclusive("GET /|Connection: x, Upgrade|Upgrade: websocket", "upgrade", UPGRADE);
    exclusive("POST /|Connection: upgrade|Upgrade: a|Content-Length: 1!x", "upgrade", UPGRADE);
    // The connection is somebody's.
    pinned("GET /|Authorization: NTLM TlRM", 0);
    pinned("POST /|Authorization: negotiate", 0);
    pinned("GET /|Authorization: Basic x|Proxy-Authorization: Negotiate\tx", 0);
    tunnel("GET /|Authorization: NTLM x|Connection: upgrade|Upgrade: websocket", UPGRADE);
    tunnel("CONNECT a:1|Proxy-Authorization: NTLM x", CONNECT);
    // HTTP/1.0 ends, unless it is asked not to.
    shared("GET /", OLD | LAST);
    shared("GET /|Connection: Keep-Alive", OLD);
    shared("GET /|Connection: keep-alive, close", OLD | LAST);
    shared("GET /|Connection: upgrade|Upgrade: x", OLD | LAST);
    exclusive("PUT /|Expect: 100-continue|Content-Length: 1!x", "a body", OLD | LAST);
}

#[test]
fn a_client_that_proved_who_it_is_keeps_its_trunk() {
    let read = requests(
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\
          GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM x\r\n\r\n\
          GET / HTTP/1.1\r\nHost: a\r\n\r\n\
          GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    );
    let bindings: Vec<_> = read.frames.iter().map(|(_, request)| request.binding).collect();
    let pinned = Binding::Pinned("NTLM");
    assert_eq!(bindings, [Binding::Shared, pinned, pinned, Binding::Tunnel("NTLM")]);
}

#[test]
fn fields_of_one_connection_are_not_passed_on() {
    // Each line of a head; `-` before one that is not passed on, `+` before one that is put in.
    let check = |lines: &str| {
        let (mut came, mut gone) = (String::new(), String::new());
        for line in lines.split('|') {
            let (came_so, gone_so) = match line.split_at(line.len().min(1)) {
                ("-", line) => (Some(line), None),
                ("+", line) => (None, Some(line)),
                _ => (Some(line), Some(line)),
            };
            let write = |text: &mut String, line: Option<&str>| {
                text.extend(line.into_iter().flat_map(|line| [line, "\r\n"]));
            };
            write(&mut came, came_so);
            write(&mut gone, gone_so);
        }
        came.push_str("\r\n");
        gone.push_str("\r\n");
        if came.contains("Content-Length: 4") {
            came.push_str("body");
            gone.push_str("body");
        }
        assert_eq!(request(&came).0, gone);
        // Nothing is rewritten that need not be.
        let piece = Http::default().requests().next(came.as_bytes());
        let instead = piece.expect("well-formed").expect("complete").instead;
        assert_eq!(instead.is_some(), came != gone);
    };
    check("GET / HTTP/1.1|Host: a");
    check("GET /%00?a=b&c HTTP/1.1|hOST:a|X-A:  b  |x-a:|X_B: \u{fc}\t\"");
    check(
        "GET / HTTP/1.1|-Connection: keep-alive|Host: a|-Keep-Alive: timeout=5|-PROXY-CONNECTION: x",
    );
    check("GET / HTTP/1.1|Host: a|-connection: close, X-A ,, x-c|-X-A: 1|X-B: 2|-x-a: 3|-X-C:");
    check("GET / HTTP/1.1|Host: a|-Connection:|-X-A: 1|-Connection: x-a");
    check("GET / HTTP/1.1|Host: a|-TE: gzip|-TE: trailers, deflate");
    check("GET / HTTP/1.1|Host: a|te: Trailers|-TE: gzip|-Connection: TE|+Connection: TE");
    check("GET / HTTP/1.1|Host: a|-Upgrade: h2c|-Connection: HTTP2-Settings|-HTTP2-Settings: AAM");
    check(
        "GET / HTTP/1.1|Host: a|-Connection: keep-alive, upgrade|UPGRADE: websocket|+Connection: Upgrade",
    );
    check("POST / HTTP/1.1|Host: a|-Connection: close|Content-Length: 4");
    check(
        "POST / HTTP/1.1|Host: a|Content-Length: 4|-content-length:  4 |X: y|-Content-Length: 04",
    );
    // HTTP/1.0 stays what it is, and asks for what it may not get.
    check("GET / HTTP/1.0|+Connection: keep-alive");
    check(
        "GET / HTTP/1.0|-Connection: close|-TE: trailers|-Upgrade: x|X: y|+Connection: keep-alive",
    );
    check("POST / HTTP/1.0|Content-Length: 4|+Connection: keep-alive");
}

#[test]
fn a_short_message_is_one_piece_and_a_head_does_not_wait_for_a_long_body() {
    let cut = |text: &str| {
        let mut requests = Http::default().requests();
        pieces(text.as_bytes(), |bytes| requests.next(bytes))
    };
    let sized =
        |length: usize| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length:05}\r\n\r\n");
    let head = sized(0).len();
    let most = WHOLE - head;
    assert_eq!(cut(&(sized(3) + "abc")), [(head + 3, true, true)]);
    assert_eq!(cut(&(sized(3) + "ab")), []);
    assert_eq!(cut(&(sized(most) + &"x".repeat(most))), [(WHOLE, true, true)]);
    assert_eq!(cut(&sized(most)), []);
    assert_eq!(cut(&sized(most + 1)), [(head, true, false)]);
    let all = sized(most + 1) + &"x".repeat(most + 1);
    assert_eq!(cut(&all), [(head, true, false), (most + 1, false, true)]);
    // The body is held back until the head is answered.
    let expects = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(cut(expects), [(expects.len(), true, false)]);
    assert_eq!(cut(&format!("{expects}abc")), [(expects.len(), true, false), (3, false, true)]);
    // Nobody knows how long this will be. A line of it is passed on when it is complete.
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = (chunked.len(), true, false);
    let check = |body: &str, whole: &[(usize, bool, bool)]| {
        assert_eq!(cut(&format!("{chunked}{body}")), [&[head], whole].concat(), "{body:?}");
    };
    check("", &[]);
    check("5", &[]);
    check("5;a=b\r", &[]);
    check("5;a=b\r\n", &[(7, false, false)]);
    check("5\r\nabcde\r", &[(8, false, false)]);
    check("5\r\nabcde\r\n0\r\nA: b", &[(13, false, false)]);
    check("5\r\nabcde\r\n0\r\nA: b\r\n\r", &[(19, false, false)]);
    check("5\r\nabcde\r\n0\r\nA: b\r\n\r\n", &[(21, false, true)]);
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let read = requests(format!("\r\n{get}\r\n{get}\r\n\r").as_bytes());
    let skips: Vec<_> =
        read.frames.iter().map(|(_, request)| request.action == Action::Skip).collect();
    assert_eq!((skips, read.rest.as_slice()), (vec![true, false, true, false, true], &b"\r"[..]));
    assert_eq!(read.error, None);
    assert_eq!(read.frames[0].1.replies, Count::Exactly(0));
    for none in ["\r\n\r\n", "\n", "\rX"] {
        assert_eq!(refused(none.as_bytes()).0, "400 Bad Request", "{none:?}");
    }
}

#[test]
fn it_does_not_look_at_a_byte_again() {
    // What it has looked at is overwritten by what no message can have: whoever looks again refuses it.
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n";
    let mut requests = Http::default().requests();
    assert_eq!(requests.next(head), Ok(None));
    let mut bytes = vec![0; head.len() - 1];
    bytes.extend_from_slice(b"\nX-Long: ");
    assert_eq!(requests.next(&bytes), Ok(None));

    // A head that was read is not read again while its body comes.
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nContent-Length: 3\r\n\r\n";
    let mut requests = Http::default().requests();
    assert_eq!(requests.next(head), Ok(None));
    let mut bytes = vec![0; head.len()];
    bytes.extend_from_slice(b"abc");
    let piece = requests.next(&bytes).expect("well-formed").expect("complete");
    assert_eq!((piece.bytes, piece.ends), (bytes.len(), true));
    let instead = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(piece.instead.as_deref(), Some(&instead[..]));

    // Nor the lines of a chunked body.
    let mut requests = Http::default().requests();
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(requests.next(head).expect("well-formed").is_some());
    assert_eq!(requests.next(b"5;aaaaaaaa"), Ok(None));
    assert_eq!(requests.next(b"\n\n\n\n\n\n\n\n\n\na"), Ok(None));
}
