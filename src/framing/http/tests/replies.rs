//! What a reply is, and what is passed on of it.

use super::*;

const CHUNKS: &str = "3\r\nabc\r\n0\r\n\r\n";

#[test]
fn a_reply_says_what_becomes_of_the_trunk_and_the_client() {
    let gone = Reply { reusable: false, closes: true, ..Reply::PLAIN };
    let last = Reply { last: true, ..Reply::PLAIN };
    let end = Reply { reusable: false, last: true, ..Reply::PLAIN };
    let tunnel = Reply { reusable: false, tunnels: true, ..Reply::PLAIN };
    // Lines by `|`, the body behind `!`; then how they are passed on.
    let check = |shape, came: &str, expected: Reply, passed: &str| {
        let text = |lines: &str| {
            let (head, body) = lines.split_once('!').unwrap_or((lines, ""));
            format!("{}\r\n\r\n{body}", head.replace('|', "\r\n"))
        };
        assert_eq!(reply(&text(came), shape), (text(passed), expected), "{came}");
    };
    let same = |shape, came: &str, expected| check(shape, came, expected, came);

    same(0, "HTTP/1.1 200 OK|Content-Length: 3!abc", Reply::PLAIN);
    same(0, "HTTP/1.1 200|Content-Length: 0", Reply::PLAIN);
    same(0, "HTTP/1.1 999 \u{fc}|Content-Length: 0", Reply::PLAIN);
    same(0, &format!("HTTP/1.1 200 OK|Transfer-Encoding: CHUNKED!{CHUNKS}"), Reply::PLAIN);
    check(
        0,
        "HTTP/1.1 200 OK|Content-Length: 3|X: y|Content-Length: 3!abc",
        Reply::PLAIN,
        "HTTP/1.1 200 OK|Content-Length: 3|X: y!abc",
    );
    // No body, whatever it says of its length.
    same(HEAD, "HTTP/1.1 200 OK|Content-Length: 3", Reply::PLAIN);
    same(HEAD, "HTTP/1.1 200 OK|Transfer-Encoding: chunked", Reply::PLAIN);
    same(HEAD, "HTTP/1.1 200 OK", Reply::PLAIN);
    same(0, "HTTP/1.1 304 Not Modified|Content-Length: 3", Reply::PLAIN);
    same(0, "HTTP/1.1 304 Not Modified|Transfer-Encoding: chunked", Reply::PLAIN);
    same(0, "HTTP/1.1 204 No Content", Reply::PLAIN);
    same(0, "HTTP/1.1 204 No Content|Content-Length: 0", Reply::PLAIN);
    // The trunk goes, the client stays.
    check(
        0,
        "HTTP/1.1 200 OK|Connection: close, X-A|X-A: b|Content-Length: 0",
        gone,
        "HTTP/1.1 200 OK|Content-Length: 0",
    );
    check(
        0,
        "HTTP/1.0 200 OK|Content-Length: 0",
        gone,
        "HTTP/1.0 200 OK|Content-Length: 0|Connection: keep-alive",
    );
    check(
        0,
        "HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: 0",
        Reply::PLAIN,
        "HTTP/1.0 200 OK|Content-Length: 0|Connection: keep-alive",
    );
    // The client goes, the trunk stays.
    check(
        LAST,
        "HTTP/1.1 200 OK|Connection: keep-alive|Keep-Alive: max=9|Content-Length: 3!abc",
        last,
        "HTTP/1.1 200 OK|Content-Length: 3|Connection: close!abc",
    );
    check(
        OLD | LAST,
        "HTTP/1.1 200 OK|Connection: Keep-Alive|Content-Length: 0",
        last,
        "HTTP/1.1 200 OK|Content-Length: 0|Connection: close",
    );
    // A client of HTTP/1.0 that stays; its trunk does only if the backend says so.
    check(
        OLD,
        "HTTP/1.1 200 OK|Content-Length: 0",
        gone,
        "HTTP/1.1 200 OK|Content-Length: 0|Connection: keep-alive",
    );
    check(
        OLD,
        "HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: 0",
        Reply::PLAIN,
        "HTTP/1.0 200 OK|Content-Length: 0|Connection: keep-alive",
    );
    // Nobody knows whether the body still comes.
    check(
        EXPECTS,
        "HTTP/1.1 413 Too Large|Content-Length: 0",
        end,
        "HTTP/1.1 413 Too Large|Content-Length: 0|Connection: close",
    );
    // Tunnels.
    same(CONNECT, "HTTP/1.1 200 Connected", tunnel);
    same(CONNECT, "HTTP/1.1 299 |Content-Length: 3|Transfer-Encoding: chunked", tunnel);
    same(CONNECT | OLD, "HTTP/1.0 200 Connected", tunnel);
    same(CONNECT, "HTTP/1.1 403 Forbidden|Content-Length: 2!no", Reply::PLAIN);
    same(UPGRADE, "HTTP/1.1 101 |Upgrade: websocket|Connection: Upgrade", tunnel);
    check(
        UPGRADE,
        "HTTP/1.1 101 |Connection: keep-alive, upgrade|Upgrade: websocket",
        tunnel,
        "HTTP/1.1 101 |Upgrade: websocket|Connection: Upgrade",
    );
    same(UPGRADE, "HTTP/1.1 200 OK|Content-Length: 2!no", Reply::PLAIN);
    // An offer to this proxy, which it does not take; and one that the client must know of.
    check(
        0,
        "HTTP/1.1 200 OK|Upgrade: h2,h2c|Connection: Upgrade|TE: x|Content-Length: 0",
        Reply::PLAIN,
        "HTTP/1.1 200 OK|Content-Length: 0",
    );
    check(
        LAST,
        "HTTP/1.1 426 Upgrade|Upgrade: TLS/1.0|Connection: upgrade|Content-Length: 0",
        last,
        "HTTP/1.1 426 Upgrade|Upgrade: TLS/1.0|Content-Length: 0|Connection: Upgrade, close",
    );
}

#[test]
fn what_comes_besides_pops_nothing() {
    let continued = "HTTP/1.1 100 Continue\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 0\r\n\r\n";
    let done = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    let meanings = |texts: &[&str], due: &[u32]| {
        let read = replies(texts.concat().as_bytes(), due);
        assert_eq!((read.error, read.rest.len()), (None, 0));
        read.frames.into_iter().map(|(_, reply)| reply).collect::<Vec<_>>()
    };
    let besides = Reply { pops: false, ..Reply::PLAIN };
    let end = Reply { reusable: false, last: true, ..Reply::PLAIN };
    assert_eq!(meanings(&[hints, hints, done], &[0]), [besides, besides, Reply::PLAIN]);
    assert_eq!(meanings(&[continued, done], &[EXPECTS]), [besides, Reply::PLAIN]);
    assert_eq!(meanings(&[hints, refused], &[EXPECTS]), [besides, end]);
    // What was said of one request does not hold for the next.
    assert_eq!(
        meanings(&[continued, done, refused], &[EXPECTS, EXPECTS]),
        [besides, Reply::PLAIN, end]
    );
    assert_eq!(meanings(&[continued, done, refused], &[0, EXPECTS]), [besides, Reply::PLAIN, end]);
    // A client of HTTP/1.0 is not told.
    let silent = Reply { silent: true, ..besides };
    assert_eq!(meanings(&[continued], &[OLD]), [silent]);
    // Before the other protocol begins.
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let tunnel = Reply { reusable: false, tunnels: true, ..Reply::PLAIN };
    assert_eq!(meanings(&[continued, switched], &[UPGRADE | EXPECTS]), [besides, tunnel]);
}

#[test]
fn a_reply_without_a_length_lasts_until_the_close() {
    let http = Http::default();
    let check = |text: &str, shape, passed: &str, ends: bool| {
        let mut replies = http.replies();
        assert!(!replies.ends_with_the_trunk());
        let first = replies.next(text.as_bytes(), Some(Shape(shape))).expect("well-formed");
        assert_eq!(replies.ends_with_the_trunk(), ends, "{text:?}");
        if let Some(piece) = first {
            let reply = piece.begins.expect("a head");
            assert_eq!((reply.pops, reply.reusable, reply.last), (true, !ends, ends));
            assert_eq!(piece.ends, !ends);
        }
        assert_eq!(super::replies(text.as_bytes(), &[shape]).rest, passed.as_bytes());
    };
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    check("HTTP/1.1 200 OK\r\n\r\n", 0, close, true);
    check("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nabc", 0, &format!("{close}abc"), true);
    check(
        "HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        OLD,
        "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        true,
    );
    // What is cut off is not complete.
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
    check(sized, 0, sized, false);
    let mut replies = http.replies();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(replies.next(chunked, Some(Shape(0))).is_ok_and(|piece| piece.is_some()));
    assert!(!replies.ends_with_the_trunk());
}

#[test]
fn what_is_no_reply_to_this_request_is_malformed() {
    let check = |shape: Option<u32>, text: &str, why: &str| {
        let due: Vec<_> = shape.into_iter().collect();
        let read = replies(text.as_bytes(), &due);
        let error = read.error.unwrap_or_else(|| panic!("it is accepted: {text:?}"));
        assert!(error.why.contains(why), "{text:?}: {error}");
        assert_eq!(error.answer, b"", "the client is told by another");
    };
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    // Nobody asked.
    check(None, "H", "nobody asked");
    check(None, "\r\n", "nobody asked");
    check(None, "HTTP/1.1 408 Request Timeout\r\n\r\n", "nobody asked");
    check(None, "HTTP/1.1 100 Continue\r\n\r\n", "nobody asked");
    check(Some(0), &(ok("Content-Length: 1") + "ab"), "nobody asked");
    check(Some(HEAD), &(ok("Content-Length: 1") + "a"), "nobody asked");
    check(Some(0), "HTTP/1.1 304 x\r\nContent-Length: 1\r\n\r\na", "nobody asked");
    check(
        Some(0),
        "HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "another protocol",
    );
    check(Some(CONNECT), "HTTP/1.1 101 x\r\n\r\n", "another protocol");
    // Two lengths, or none that can be.
    check(Some(0), &ok("Transfer-Encoding: chunked\r\nContent-Length: 3"), "both");
    check(Some(HEAD), &ok("Content-Length: 3\r\nTransfer-Encoding: chunked"), "both");
    check(Some(0), &ok("Content-Length: 3\r\nContent-Length: 4"), "differ");
    check(Some(0), &ok("Content-Length: 3, 3"), "no decimal number");
    check(Some(0), &ok("Content-Length: -1"), "no decimal number");
    check(Some(0), &ok("Content-Length:"), "no decimal number");
    check(Some(0), &ok("Content-Length: 9223372036854775808"), "no decimal number");
    check(Some(0), &ok("Transfer-Encoding: gzip"), "other than chunked");
    check(Some(0), &ok("Transfer-Encoding: gzip, chunked"), "other than chunked");
    check(Some(0), &ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), "several");
    check(Some(0), "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "in HTTP/1.0");
    check(Some(OLD), &ok("Transfer-Encoding: chunked"), "to a request of HTTP/1.0");
    for status in ["100 x", "103 x", "204 x"] {
        for field in ["Transfer-Encoding: chunked", "Content-Length: 1"] {
            check(Some(0), &format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n"), "allows none");
        }
    }
    check(Some(UPGRADE), "HTTP/1.1 101 x\r\nTransfer-Encoding: chunked\r\n\r\n", "allows none");
    // Chunks.
    let chunked = ok("Transfer-Encoding: chunked");
    check(Some(0), &format!("{chunked}3\r\nabcd"), "longer than its size");
    check(Some(0), &format!("{chunked}x\r\n"), "no hexadecimal number");
    check(Some(0), &format!("{chunked}0\r\nSet-Cookie: a\r\n"), "belongs before");
    // Form.
    check(Some(0), "\r\nHTTP/1.1 200 OK\r\n\r\n", "an empty line");
    check(Some(0), "HTTP/1.1 200 OK\n", "LF alone");
    check(Some(0), "HTTP/1.1 200 OK\r\r", "a CR that");
    check(Some(0), "\u{16}\u{3}\u{1}", "a control character");
    check(Some(0), "HTTP/2.0 200 OK\r\n\r\n", "version");
    check(Some(0), "HTTP/1.1 20 OK\r\n\r\n", "status");
    check(Some(0), "HTTP/1.1 -20 OK\r\n\r\n", "status");
    check(Some(0), "HTTP/1.1 2000 OK\r\n\r\n", "status");
    check(Some(0), "HTTP/1.1 099 OK\r\n\r\n", "below 100");
    check(Some(0), "SSH-2.0-OpenSSH_9.6\r\n\r\n", "version");
    check(Some(0), &ok("A : b"), "header name");
    check(Some(0), &ok("A: b\r\n c: d"), "header name");
    check(Some(0), &ok("Connection: Content-Length\r\nContent-Length: 3"), "for everybody");
    check(Some(0), &ok(&"A:\r\n".repeat(129)), "too many fields");
}

#[test]
fn a_reply_is_passed_on_as_it_comes() {
    let mut replies = Http::default().replies();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cut = |text: &str, replies: &mut Box<dyn Replies>| {
        pieces(text.as_bytes(), |bytes| replies.next(bytes, Some(Shape(0))))
    };
    assert_eq!(cut(head, &mut replies), [(head.len(), true, false)]);
    assert_eq!(cut("6\r\nevent\n", &mut replies), [(9, false, false)]);
    assert_eq!(cut("\r\n0\r\n\r\n", &mut replies), [(7, false, true)]);
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(cut(short, &mut replies), [(short.len(), true, true)]);
}
