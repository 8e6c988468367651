//! Fake servers, whole, over connections in memory.

use super::*;
use crate::Connect;
use crate::framing::Line;
use crate::testing::{Ending, FakeBackend, Peer, RunningBackend, block_on};
use std::time::Duration;

/// A client of it.
async fn client(backend: &RunningBackend) -> Peer {
    let socket = backend.connect().connect(backend.endpoint()).await;
    Peer::new("the client", socket.expect("it accepts"))
}

/// What comes of these bytes, however they are cut, when the client ends its sending behind them.
fn talk(serve: impl Fn() -> Serve, said: &str) -> (String, Ending) {
    let [whole, bytes] = [said.len(), 1].map(|length| {
        block_on(async {
            let backend = FakeBackend::new(serve()).in_memory();
            let mut client = client(&backend).await;
            for part in said.as_bytes().chunks(length) {
                // It may have been closed before it has read all.
                if client.try_send(part).await.is_err() {
                    break;
                }
            }
            client.fin();
            let seen = client.recv_to_end().await;
            (String::from_utf8(seen.bytes).expect("text"), seen.ending)
        })
    });
    assert_eq!(whole.0, bytes.0, "{said:?}");
    whole
}

/// One line, one reply, which is the line; the fault is on the second.
fn lines(fault: ReplyFault) -> (String, Ending) {
    let echo = || Serve::new(Line::default(), |line: &[u8]| line.to_vec());
    talk(|| echo().on_reply(2, fault.clone()), "one\ntwo\nthree\nfour\n")
}

#[test]
fn each_fault_does_to_a_reply_what_it_says() {
    let check = |fault: ReplyFault, said: &str| {
        let (heard, ending) = lines(fault.clone());
        assert_eq!(heard, said, "{fault}");
        assert_eq!(ending.is_reset(), matches!(fault, ReplyFault::Reset { .. }), "{fault}");
    };
    let pause = Duration::from_millis(1);
    check(ReplyFault::Drop, "one\nthree\nfour\n");
    check(ReplyFault::Delay(pause), "one\ntwo\nthree\nfour\n");
    check(ReplyFault::Duplicate, "one\ntwo\ntwo\nthree\nfour\n");
    check(ReplyFault::Swap, "one\nthree\ntwo\nfour\n");
    check(ReplyFault::Split { after: 1, pause }, "one\ntwo\nthree\nfour\n");
    check(ReplyFault::Split { after: 9, pause }, "one\ntwo\nthree\nfour\n");
    check(ReplyFault::Cut { after: 2 }, "one\ntw");
    check(ReplyFault::Cut { after: 9 }, "one\ntwo\n");
    check(ReplyFault::Reset { after: 2 }, "one\ntw");
    // These lines have no error.
    check(ReplyFault::Error, "one\nthree\nfour\n");
}

#[test]
fn the_first_rule_that_fits_is_applied_and_replies_are_counted_for_each_connection() {
    let serve = Serve::new(Line::default(), |line: &[u8]| line.to_vec())
        .on_reply(2, ReplyFault::Duplicate)
        .on_every_reply(2, ReplyFault::Drop);
    let backend = FakeBackend::new(serve).in_memory();
    block_on(async {
        for _ in 0..2 {
            let mut client = client(&backend).await;
            client.send(b"1\n2\n3\n4\n5\n6\n7\n").await;
            client.fin();
            assert_eq!(client.recv_to_end().await.bytes, b"1\n2\n2\n3\n5\n7\n");
        }
    });
}

#[test]
fn swapped_replies_change_places_in_pairs_and_the_last_comes_at_the_end() {
    let serve = || {
        Serve::new(Line::default(), |line: &[u8]| line.to_vec()).on_every_reply(1, ReplyFault::Swap)
    };
    assert_eq!(talk(serve, "1\n2\n3\n4\n5\n").0, "2\n1\n4\n3\n5\n");
}

#[test]
fn a_split_reply_comes_in_two_parts() {
    let pause = Duration::from_secs(3600);
    let serve = Serve::resp().on_reply(2, ReplyFault::Split { after: 2, pause });
    let backend = FakeBackend::new(serve).in_memory();
    block_on(async {
        let mut client = client(&backend).await;
        client.send(b"SET a hello\r\nGET a\r\n").await;
        // The rest comes in an hour.
        assert_eq!(client.recv().await.as_deref(), Some(&b"+OK\r\n$5"[..]));
    });
}

#[test]
fn a_delay_holds_back_what_is_behind_it_and_nothing_before_or_elsewhere() {
    let serve = Serve::resp().on_reply(2, ReplyFault::Delay(Duration::from_secs(3600)));
    let backend = FakeBackend::new(serve).in_memory();
    block_on(async {
        let (mut late, mut other) = (client(&backend).await, client(&backend).await);
        late.send(b"SET a 1\r\nGET a\r\n").await;
        assert_eq!(late.recv().await.as_deref(), Some(&b"+OK\r\n"[..]));
        other.send(b"GET a\r\n").await;
        assert_eq!(other.recv_exact(7).await, b"$1\r\n1\r\n");
    });
}

#[test]
fn what_is_no_reply_goes_out_as_it_is_and_is_not_counted() {
    let serve = || {
        let server = |request: &[u8]| match request {
            b"bad\r\n" => b"?what\r\n".to_vec(),
            b"half\r\n" => b"$5\r\nhal".to_vec(),
            b"two\r\n" => b":1\r\n:2\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        };
        Serve::new(crate::framing::Resp::default(), server).on_reply(3, ReplyFault::Duplicate)
    };
    let (heard, _) = talk(serve, "bad\r\nhalf\r\nok\r\ntwo\r\n");
    assert_eq!(heard, "?what\r\n$5\r\nhal+OK\r\n:1\r\n:2\r\n:2\r\n");
}

#[test]
fn a_server_that_panics_resets_its_connections() {
    let server = |_: &[u8]| -> Vec<u8> { panic!("on purpose") };
    let (heard, ending) = talk(|| Serve::new(Line::default(), server), "a\nb\n");
    assert_eq!(heard, "");
    assert!(ending.is_reset());
}

#[test]
fn redis_answers_each_connection_from_the_same_keys() {
    let backend = FakeBackend::resp().in_memory();
    block_on(async {
        let (mut one, mut other) = (client(&backend).await, client(&backend).await);
        one.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n").await;
        assert_eq!(one.recv_exact(5).await, b"+OK\r\n");
        other.send(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nQUIT\r\n").await;
        let seen = other.recv_to_end().await;
        assert_eq!((&seen.bytes[..], seen.ending), (&b"$2\r\n\r\n\r\n+OK\r\n"[..], Ending::Fin));
    });
    let error = "-ERR Protocol error: invalid multibulk length\r\n";
    assert_eq!(talk(Serve::resp, "PING\r\n*x\r\n").0, format!("+PONG\r\n{error}"));
    assert_eq!(
        talk(Serve::resp, "MULTI\r\nINCR a\r\nEXEC\r\n").0,
        "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"
    );
}

#[test]
fn memcached_says_nothing_where_nothing_is_wanted_and_counts_only_what_it_says() {
    let serve = || Serve::memcached().on_reply(2, ReplyFault::Duplicate);
    let said = "set a 0 0 1 noreply\r\n1\r\nget a\r\nset b 0 0 1 noreply\r\n2\r\nmg none v q\r\nmn\r\nget b\r\n";
    let one = "VALUE a 0 1\r\n1\r\nEND\r\n";
    let heard = format!("{one}MN\r\nMN\r\nVALUE b 0 1\r\n2\r\nEND\r\n");
    assert_eq!(talk(serve, said).0, heard);
    // What is the second reply is refused, not what has none before it.
    let serve = || Serve::memcached().on_reply(2, ReplyFault::Error);
    let refused = "SERVER_ERROR object too large for cache\r\n";
    let said = "mn\r\nset a 0 0 1 noreply\r\n1\r\nset b 0 0 1\r\n2\r\nget b a\r\n";
    assert_eq!(talk(serve, said).0, format!("MN\r\n{refused}{one}"));
    assert_eq!(talk(Serve::memcached, "nonsense\r\nquit\r\nget a\r\n").0, "ERROR\r\n");
}

#[test]
fn an_error_comes_before_the_body_of_a_long_request_and_what_follows_is_answered() {
    let length = 100_000;
    for (serve, head, end, error) in [
        (
            Serve::memcached(),
            format!("set a 0 0 {length}\r\n"),
            "\r\nversion\r\nget a\r\n",
            "SERVER_ERROR object too large for cache\r\n",
        ),
        (
            Serve::resp(),
            format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${length}\r\n{}", "x".repeat(16 << 10)),
            "\r\n*1\r\n$4\r\nPING\r\n*2\r\n$6\r\nEXISTS\r\n$1\r\na\r\n",
            "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        ),
    ] {
        let backend = FakeBackend::new(serve.on_reply(1, ReplyFault::Error)).in_memory();
        block_on(async {
            let mut client = client(&backend).await;
            client.send(head.as_bytes()).await;
            // Only then the rest.
            assert_eq!(client.recv_exact(error.len()).await, error.as_bytes());
            let sent = head.bytes().filter(|byte| *byte == b'x').count();
            client.send("x".repeat(length - sent).as_bytes()).await;
            client.send(end.as_bytes()).await;
            client.fin();
            let heard = String::from_utf8(client.recv_to_end().await.bytes).expect("text");
            assert!(
                ["VERSION 1.6.0\r\nEND\r\n", "+PONG\r\n:0\r\n"].contains(&&heard[..]),
                "{heard}"
            );
        });
    }
}

#[cfg(feature = "http")]
mod http {
    use super::*;

    /// A request with these fields besides `Host`.
    fn request(line: &str, fields: &str, body: &str) -> String {
        format!("{line}\r\nHost: a\r\n{fields}\r\n{body}")
    }

    #[test]
    fn a_connection_is_kept_unless_it_is_said() {
        let put = request("PUT /a HTTP/1.1", "Content-Length: 3\r\n", "one");
        let get = request("GET /a HTTP/1.1", "", "");
        let last = request("GET /a HTTP/1.1", "Connection: close\r\n", "");
        let created = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n";
        let (heard, _) = talk(Serve::http, &format!("{put}{get}{last}{get}"));
        assert_eq!(heard, format!("{created}{ok}\r\none{ok}Connection: close\r\n\r\none"));
        let (heard, _) = talk(Serve::http, "GET /a HTTP/1.0\r\n\r\nGET /a HTTP/1.0\r\n\r\n");
        assert_eq!(heard.matches("HTTP/1.1 404").count(), 1, "{heard}");
        assert!(heard.contains("Connection: close"), "{heard}");
        let (heard, ending) = talk(Serve::http, "GET a b\r\n\r\n");
        assert!(heard.starts_with("HTTP/1.1 400 Bad Request") && !ending.is_reset(), "{heard}");
    }

    #[test]
    fn chunks_come_and_go() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        let put = request("PUT /a HTTP/1.1", chunked, "3\r\none\r\n2\r\n!!\r\n0\r\n\r\n");
        let get = request("GET /a?chunked HTTP/1.1", "", "");
        let (heard, _) = talk(Serve::http, &format!("{put}{get}{get}"));
        assert_eq!(heard.matches("\r\n\r\n5\r\none!!\r\n0\r\n\r\n").count(), 2, "{heard}");
    }

    #[test]
    fn a_body_that_is_held_back_is_asked_for_and_comes_or_is_refused_first() {
        let head = request("PUT /a HTTP/1.1", "Content-Length: 3\r\nExpect: 100-continue\r\n", "");
        let backend = FakeBackend::http().in_memory();
        block_on(async {
            let mut client = client(&backend).await;
            client.send(head.as_bytes()).await;
            assert_eq!(client.recv_exact(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
            client.send(b"one").await;
            assert_eq!(client.recv_exact(20).await, b"HTTP/1.1 201 Created");
        });
        let backend = FakeBackend::new(Serve::http().on_reply(1, ReplyFault::Error)).in_memory();
        block_on(async {
            let mut client = client(&backend).await;
            client.send(head.as_bytes()).await;
            // It ends by itself, without the body.
            let seen = client.recv_to_end().await;
            assert!(seen.bytes.starts_with(b"HTTP/1.1 413 Content Too Large"), "{seen:?}");
            assert_eq!(seen.ending, Ending::Fin);
        });
    }

    #[test]
    fn a_refused_body_that_comes_all_the_same_is_not_read() {
        let serve = Serve::http().on_reply(1, ReplyFault::Error);
        let backend = FakeBackend::new(serve).in_memory();
        block_on(async {
            let mut client = client(&backend).await;
            let head = request("PUT /a HTTP/1.1", "Content-Length: 100000\r\n", "");
            client.send(head.as_bytes()).await;
            let seen = client.recv_to_end().await;
            assert!(seen.bytes.starts_with(b"HTTP/1.1 413"), "{seen:?}");
            assert!(seen.bytes.ends_with(b"the body is too large\n"), "{seen:?}");
            let said = String::from_utf8_lossy(&seen.bytes);
            assert_eq!(said.matches("Connection: close\r\n").count(), 1, "{said}");
            assert!(client.try_send(&[b'x'; 100_000]).await.is_err());
            assert_eq!(backend.seen().await.count, head.len() as u64);
        });
    }

    #[test]
    fn what_is_longer_than_a_fake_holds_is_refused() {
        let backend = FakeBackend::http().in_memory();
        block_on(async {
            let mut client = client(&backend).await;
            let fields = format!("Content-Length: {}\r\n", 2 * LONGEST);
            client.send(request("PUT /a HTTP/1.1", &fields, "").as_bytes()).await;
            let part = vec![b'x'; 1 << 20];
            // It does not take all of it.
            let mut sent = 0;
            while client.try_send(&part).await.is_ok() {
                sent += part.len();
            }
            assert!((LONGEST - part.len()..LONGEST + part.len()).contains(&sent), "{sent}");
            assert!(client.recv_to_end().await.bytes.starts_with(b"HTTP/1.1 413"));
        });
    }

    #[test]
    fn a_continue_is_not_counted() {
        let head =
            request("PUT /a HTTP/1.1", "Content-Length: 3\r\nExpect: 100-continue\r\n", "one");
        let serve = || Serve::http().on_reply(1, ReplyFault::Duplicate);
        let (heard, _) = talk(serve, &head);
        assert_eq!(heard.matches("100 Continue").count(), 1, "{heard}");
        assert_eq!(heard.matches("201 Created").count(), 2, "{heard}");
    }
}

mod any_request {
    use super::*;
    use crate::framing::splits::{replies, requests};
    use crate::framing::{Action, Framing, Memcached, Resp};
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Whatever is asked, the answer is one reply, as whoever shares a trunk would cut it.
    fn check(framing: &dyn Framing, server: &mut dyn Server, bytes: &[u8]) {
        for (request, meaning) in requests(framing, bytes, &[]).frames {
            if meaning.action != Action::Forward {
                continue;
            }
            let answer = server.answer(1, &request);
            let read = replies(framing, &answer, &[], &[meaning.shape]);
            let shown = (request.escape_ascii().to_string(), answer.escape_ascii().to_string());
            assert_eq!(
                (read.frames.len(), read.rest.len(), &read.error),
                (1, 0, &None),
                "{shown:?}"
            );
        }
        server.refusal();
    }

    fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<String>>> {
        let word = prop_oneof![8 => select(of).prop_map(String::from), 1 => "[ -~]{0,6}"];
        proptest::collection::vec(proptest::collection::vec(word, 0..6), 0..12)
    }

    #[rustfmt::skip]
    const RESP: &[&str] = &[
        "PING", "ECHO", "SET", "GET", "MGET", "MSET", "DEL", "EXISTS", "INCR", "APPEND", "LPUSH", "RPUSH", "LPOP", "MULTI",
        "EXEC", "DISCARD", "SELECT", "HELLO", "CLIENT", "COMMAND", "CONFIG", "RESET", "FLUSHALL", "BLPOP", "a", "b", "1", "2",
    ];

    #[rustfmt::skip]
    const MEMCACHED: &[&str] = &[
        "get", "gets", "gat", "gats", "set", "add", "replace", "append", "prepend", "cas", "delete", "incr", "decr", "touch",
        "flush_all", "version", "verbosity", "stats", "mg", "ms", "md", "mn", "ma", "me", "a", "b", "1", "2", "0", "v", "k",
        "c", "f", "s", "t", "q", "O1", "ME", "MA", "C1", "F3", "noreply",
    ];

    proptest! {
        #[test]
        fn of_redis(requests in words(RESP), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut store = resp::Store::default();
            for words in requests {
                let mut bytes = format!("*{}\r\n", words.len());
                for word in &words {
                    bytes += &format!("${}\r\n{word}\r\n", word.len());
                }
                check(&Resp::default(), &mut store, bytes.as_bytes());
                check(&Resp::default(), &mut store, (words.join(" ") + "\r\n").as_bytes());
            }
            check(&Resp::default(), &mut store, &bytes);
        }

        #[test]
        fn of_memcached(requests in words(MEMCACHED), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut store = memcached::Store::default();
            for words in requests {
                // The data fits a length of 1, and the whole another command.
                check(&Memcached::default(), &mut store, (words.join(" ") + "\r\n7\r\n").as_bytes());
            }
            check(&Memcached::default(), &mut store, &bytes);
        }

        #[cfg(feature = "http")]
        #[test]
        fn of_http(
            requests in proptest::collection::vec((
                select(&["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "CONNECT"][..]),
                select(&["/a", "/a?chunked", "/b", "*", "http://a/b", "?"][..]),
                select(&["HTTP/1.1", "HTTP/1.0"][..]),
                select(&["", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n"][..]),
            ), 0..12),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let framing = crate::framing::Http::default();
            let mut store = super::super::http::Store::default();
            for (method, path, version, fields) in requests {
                let head = format!("{method} {path} {version}\r\nHost: a\r\n{fields}\r\n");
                let body = if fields.starts_with("T") { "3;a=b\r\none\r\n0\r\n\r\n" } else { "one" };
                check(&framing, &mut store, (head + body).as_bytes());
            }
            check(&framing, &mut store, &bytes);
            store.begun(&bytes);
        }
    }
}
