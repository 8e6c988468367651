use super::super::splits::{Read, every_split, read, replies, requests, same};
use super::super::{Action, Binding, Count, Malformed, Reply, Request, WHOLE};
use super::commands::{COMMANDS, READS};
use super::*;
use proptest::prelude::*;

const DUE: Shape = Shape(0);

/// A request as clients send it.
fn array(words: &str) -> Vec<u8> {
    let words: Vec<_> = words.split(' ').map(str::as_bytes).collect();
    array_of(&words)
}

fn array_of(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// However they are cut: what is short at every place, what is long where it matters.
fn split<T: Clone + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8], &[usize]) -> Read<T>,
) -> Read<T> {
    if bytes.len() < 4000 {
        return every_split(bytes, read);
    }
    let whole = read(bytes, &[]);
    let sizes = [1, 7, 1000, WHOLE - 1, WHOLE, WHOLE + 1];
    let chunks = sizes.iter().map(|size| vec![*size; bytes.len() / size]);
    for lengths in chunks.chain((WHOLE - 3..WHOLE + 4).map(|place| vec![place])) {
        let other = read(bytes, &lengths);
        let first = lengths.first();
        assert!(
            (&other.frames, &other.error) == (&whole.frames, &whole.error),
            "{first:?} at a time"
        );
    }
    whole
}

fn split_requests(bytes: &[u8]) -> Read<Request> {
    split(bytes, |bytes, lengths| requests(&Resp::default(), bytes, lengths))
}

/// The only one.
fn request(bytes: &[u8]) -> Request {
    let read = requests(&Resp::default(), bytes, &[]);
    assert_eq!((read.frames.len(), &read.error), (1, &None), "{}", bytes.escape_ascii());
    read.frames[0].1.clone()
}

fn split_replies(bytes: &[u8], due: usize) -> Read<Reply> {
    let due = vec![DUE; due];
    split(bytes, |bytes, lengths| replies(&Resp::default(), bytes, lengths, &due))
}

/// A letter for each meaning, so that a table is easy to read.
fn letters(request: &Request) -> String {
    let binding = match request.binding {
        Binding::Shared => String::new(),
        Binding::Exclusive(why) => format!("exclusive {why}"),
        Binding::Pinned(why) => format!("pinned {why}"),
        Binding::Release => "release".to_owned(),
        Binding::Tunnel(why) => format!("tunnel {why}"),
    };
    let count = match request.replies {
        Count::Exactly(count) => count.to_string(),
        Count::Unknown => "?".to_owned(),
    };
    let action = match &request.action {
        Action::Forward => format!("{count}{}", if request.idempotent { " again" } else { "" }),
        Action::Skip => format!("{count} skip"),
        Action::Answer(answer) => format!("{count} answer {}", answer.escape_ascii()),
        Action::AnswerAndClose(answer) => format!("{count} close {}", answer.escape_ascii()),
    };
    assert_eq!(request.last, matches!(request.action, Action::AnswerAndClose(_)));
    format!("{action} {binding}").trim_end().to_owned()
}

#[test]
fn what_a_command_means_for_a_new_client() {
    for (command, meaning) in [
        ("GET a", "1 again"),
        ("get a", "1 again"),
        ("GeT a", "1 again"),
        ("SET a 1", "1"),
        ("NOSUCH", "1"),
        ("FT.SEARCH i q", "1"),
        ("OBJECT ENCODING a", "1 again"),
        ("CONFIG GET port", "1 again"),
        ("CONFIG SET port 1", "1"),
        ("EVAL_RO x 0", "1 again"),
        ("EVAL x 0", "1"),
        ("SORT a", "1"),
        ("GETEX a", "1"),
        ("BLPOP a 0", "1 exclusive blocking: BLPOP"),
        ("wait 1 0", "1 exclusive blocking: WAIT"),
        ("XREAD STREAMS a 0", "1 again"),
        ("XREAD COUNT 2 STREAMS a 0", "1 again"),
        ("XREAD BLOCK 0 STREAMS a $", "1 exclusive blocking: XREAD"),
        ("XREAD COUNT 2 block 0 STREAMS a $", "1 exclusive blocking: XREAD"),
        ("XREAD COUNT BLOCK STREAMS a $", "1 again"),
        ("XREAD STREAMS BLOCK 0", "1 again"),
        ("XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a >", "1"),
        ("XREADGROUP GROUP BLOCK STREAMS STREAMS a >", "1"),
        ("XREADGROUP GROUP g c BLOCK 5 STREAMS a >", "1 exclusive blocking: XREADGROUP"),
        ("XREAD", "1 exclusive blocking: XREAD"),
        (
            "XREAD COUNT 1 COUNT 1 COUNT 1 COUNT 1 COUNT 1 COUNT 1 STREAMS a 0",
            "1 exclusive blocking: XREAD",
        ),
        ("DEBUG SLEEP 1", "1 exclusive DEBUG"),
        ("CLIENT KILL ID 3", "1 exclusive CLIENT KILL"),
        ("MULTI", "1 pinned MULTI"),
        ("MULTI x", "1"),
        ("EXEC", "1"),
        ("DISCARD", "1"),
        ("UNWATCH", "1"),
        ("WATCH a b", "1 pinned WATCH"),
        ("SELECT 0", "1"),
        ("SELECT 3", "1 pinned SELECT"),
        ("SELECT 00", "1 pinned SELECT"),
        ("SELECT", "1 pinned SELECT"),
        ("ASKING", "1 pinned ASKING"),
        ("AUTH p", "1 pinned AUTH"),
        ("HELLO 3", "1 pinned HELLO"),
        ("READONLY", "1 pinned READONLY"),
        ("CLIENT SETNAME a", "1 pinned CLIENT SETNAME"),
        ("CLIENT ID", "1 pinned CLIENT ID"),
        ("CLIENT NEWEST", "1 pinned CLIENT"),
        ("CLIENT", "1 pinned CLIENT"),
        ("CLIENT LIST", "1"),
        ("CLIENT PAUSE 1", "1"),
        ("CLIENT REPLY ON", "1"),
        (
            "CLIENT REPLY OFF",
            "0 answer -ERR trunkline: CLIENT REPLY is refused: every reply is counted\\r\\n",
        ),
        (
            "client reply skip",
            "0 answer -ERR trunkline: CLIENT REPLY is refused: every reply is counted\\r\\n",
        ),
        (
            "SHUTDOWN NOSAVE",
            "0 answer -ERR trunkline: SHUTDOWN is refused on a shared connection\\r\\n",
        ),
        ("SUBSCRIBE a b", "? tunnel SUBSCRIBE"),
        ("UNSUBSCRIBE", "? tunnel UNSUBSCRIBE"),
        ("MONITOR", "? tunnel MONITOR"),
        ("PSYNC ? -1", "? tunnel PSYNC"),
        ("SCRIPT DEBUG YES", "? tunnel SCRIPT DEBUG"),
        ("SCRIPT LOAD x", "1"),
        ("QUIT", "0 close +OK\\r\\n"),
        ("RESET", "0 answer +RESET\\r\\n"),
        ("RESET x", "1"),
        ("POST /", "0 close -ERR trunkline: this is no HTTP server\\r\\n"),
        ("host: x", "0 close -ERR trunkline: this is no HTTP server\\r\\n"),
    ] {
        assert_eq!(letters(&request(&array(command))), meaning, "{command}");
        let inline = format!("{command}\r\n");
        assert_eq!(letters(&request(inline.as_bytes())), meaning, "{inline:?}");
    }
}

#[test]
fn what_a_client_has_done_decides_what_the_next_command_means() {
    for conversation in [
        "MULTI: 1 pinned MULTI; GET a: 1 pinned MULTI; BLPOP a 0: 1 pinned MULTI; EXEC: 1 release; GET a: 1 again",
        "MULTI: 1 pinned MULTI; EXEC x: 1 pinned MULTI; MULTI: 1 pinned MULTI; DISCARD: 1 release",
        "MULTI: 1 pinned MULTI; UNWATCH: 1 pinned MULTI; WATCH a: 1 pinned MULTI; EXEC: 1 release; GET a: 1 again",
        "WATCH a: 1 pinned WATCH; GET a: 1 pinned WATCH; UNWATCH: 1 release; UNWATCH: 1",
        "WATCH a: 1 pinned WATCH; EXEC: 1 pinned WATCH; MULTI: 1 pinned MULTI; EXEC: 1 release",
        "WATCH a: 1 pinned WATCH; MULTI: 1 pinned MULTI; UNWATCH: 1 pinned MULTI; DISCARD: 1 release; GET a: 1 again",
        "SELECT 3: 1 pinned SELECT; MULTI: 1 pinned SELECT; EXEC: 1 pinned SELECT; SELECT 0: 1 release; GET a: 1 again",
        "SELECT 3: 1 pinned SELECT; MULTI: 1 pinned SELECT; SELECT 0: 1 pinned SELECT; EXEC: 1 pinned SELECT",
        "MULTI: 1 pinned MULTI; SELECT 0: 1 pinned MULTI; EXEC: 1 release",
        "MULTI: 1 pinned MULTI; SELECT 1: 1 pinned SELECT; EXEC: 1 pinned SELECT",
        "WATCH a: 1 pinned WATCH; SELECT 0: 1 pinned WATCH; UNWATCH: 1 release",
        "ASKING: 1 pinned ASKING; GET a: 1 release; GET a: 1 again",
        "ASKING: 1 pinned ASKING; ASKING: 1 pinned ASKING; BLPOP a 0: 1 release",
        "ASKING: 1 pinned ASKING; MULTI: 1 pinned MULTI; ASKING: 1 pinned MULTI; EXEC: 1 release",
        "ASKING: 1 pinned ASKING; SHUTDOWN: 0 answer -ERR trunkline: SHUTDOWN is refused on a shared connection\\r\\n \
         pinned ASKING; GET a: 1 release",
        "AUTH p: 1 pinned AUTH; MULTI: 1 pinned AUTH; EXEC: 1 pinned AUTH; SELECT 0: 1 pinned AUTH; RESET: 1 release; GET a: 1 again",
        "HELLO 3: 1 pinned HELLO; AUTH p: 1 pinned HELLO; RESET x: 1 pinned HELLO; QUIT: 0 close +OK\\r\\n pinned HELLO",
        "MULTI: 1 pinned MULTI; RESET: 1 release; EXEC: 1",
        "SUBSCRIBE a: ? tunnel SUBSCRIBE; RESET: ? tunnel SUBSCRIBE; GET a: ? tunnel SUBSCRIBE",
        "MULTI: 1 pinned MULTI; SUBSCRIBE a: ? tunnel SUBSCRIBE; EXEC: ? tunnel SUBSCRIBE",
    ] {
        let (mut bytes, mut meanings) = (Vec::new(), Vec::new());
        for turn in conversation.split("; ") {
            let (command, meaning) = turn.split_once(": ").expect("a command and a meaning");
            bytes.extend(array(command));
            meanings.push(meaning);
        }
        let read = split_requests(&bytes);
        let seen: Vec<_> = read.frames.iter().map(|(_, request)| letters(request)).collect();
        assert_eq!(seen, meanings, "{conversation}");
    }
}

#[test]
fn what_is_refused_within_multi_makes_exec_fail() {
    let long = "x".repeat(3 * WHOLE);
    let bytes = ["MULTI", "SHUTDOWN", &format!("CLIENT REPLY {long}"), "EXEC", "SHUTDOWN"];
    let bytes: Vec<u8> = bytes.iter().flat_map(|command| array(command)).collect();
    let read = split_requests(&bytes);
    let sent: Vec<_> = read.frames.iter().map(|(bytes, _)| bytes.clone()).collect();
    let refused = |why: &str| array_of(&[format!("trunkline: {why}").as_bytes()]);
    assert_eq!(sent[1], refused("SHUTDOWN is refused on a shared connection"));
    assert_eq!(sent[2], refused("CLIENT REPLY is refused: every reply is counted"));
    assert_eq!(sent[3..], [array("EXEC"), array("SHUTDOWN")]);
    let seen: Vec<_> = read.frames.iter().map(|(_, request)| letters(request)).collect();
    assert_eq!(seen[..4], ["1 pinned MULTI", "1 pinned MULTI", "1 pinned MULTI", "1 release"]);
}

#[test]
fn a_nul_does_not_hide_a_command() {
    let check = |words: &[&[u8]], meaning: &str| {
        assert_eq!(letters(&request(&array_of(words))), meaning);
    };
    check(&[b"SUBSCRIBE\0x473", b"a"], "? tunnel SUBSCRIBE");
    check(&[b"multi\0"], "1 pinned MULTI");
    check(&[b"CLIENT", b"REPLY\0x", b"OFF"], &letters(&request(&array("CLIENT REPLY OFF"))));
    check(&[b"XREAD", b"BLOCK\0", b"0", b"STREAMS", b"a", b"$"], "1 exclusive blocking: XREAD");
    check(&[&[b"MONITOR\0", vec![b'x'; 2 * WHOLE].as_slice()].concat()], "? tunnel MONITOR");
    assert_eq!(letters(&request(b"\"SUBSCRIBE\\x00\" a\n")), "? tunnel SUBSCRIBE");
}

#[test]
fn a_command_in_one_word_is_none() {
    assert_eq!(letters(&request(&array_of(&[b"CLIENT REPLY", b"OFF"]))), "1");
    assert_eq!(letters(&request(&array_of(&[b"CONFIG GET"]))), "1");
    assert_eq!(letters(&request(&array_of(&[b""]))), "1");
    assert_eq!(letters(&request(&array_of(&[b"", b"GET"]))), "1");
}

#[test]
fn the_tables_are_sorted_and_do_not_overlap() {
    let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted_by(|one, other| one < other));
    assert!(READS.is_sorted_by(|one, other| one < other));
    let mut all: Vec<_> = names.iter().chain(READS).copied().collect();
    all.sort_unstable();
    assert!(all.is_sorted_by(|one, other| one < other), "a command is in both tables");
    for name in all {
        assert_eq!(name, name.to_uppercase());
        assert!(name.split(' ').all(|word| word.len() <= 24), "{name} is never found");
    }
}

#[test]
fn what_is_no_request_is_skipped() {
    let read = split_requests(b"*0\r\n\r\n\n*-1\r\n  \t\x0b \r\n*-7\r\nGET a\r\n");
    let seen: Vec<_> = read.frames.iter().map(|(_, request)| letters(request)).collect();
    assert_eq!(seen, ["0 skip", "0 skip", "0 skip", "0 skip", "0 skip", "0 skip", "1 again"]);
    assert_eq!((read.rest, read.error), (Vec::new(), None));
}

#[test]
fn quotes_in_an_inline_request_are_those_of_redis() {
    // The word after CLIENT, as it is read: which table line it finds shows what it was.
    for (line, meaning) in [
        ("CLIENT ID", "1 pinned CLIENT ID"),
        ("  CLIENT\t \x0b ID", "1 pinned CLIENT ID"),
        ("\"CLIENT\" 'ID'", "1 pinned CLIENT ID"),
        ("CL\"IENT\" I'D'", "1 pinned CLIENT ID"),
        ("\"\\x43\\x6c\\x49ENT\" \"\\x49D\"", "1 pinned CLIENT ID"),
        ("\"CLIENT\"\x0bID", "1 pinned CLIENT ID"),
        ("CLIENT\x0bID", "1"),
        ("CLIENT \"\\I\\D\"", "1 pinned CLIENT ID"),
        ("CLIENT '\\ID'", "1 pinned CLIENT"),
        ("CLIENT '\\'ID'", "1 pinned CLIENT"),
        ("CLIENT \"\\x4\\x49D\"", "1 pinned CLIENT"),
        ("CLIENT \"\\xID\"", "1 pinned CLIENT"),
        ("CLIENT \\ID", "1 pinned CLIENT"),
        ("\"\"", "1"),
        ("GET \"a\\\"b\" 'c\"d' \"e'f\"", "1 again"),
        ("GET \"\\x\" \"\\xa\" '\\\\ '", "1 again"),
        ("GET \"*3\\r\\n\"", "1 again"),
    ] {
        for end in ["\n", "\r\n"] {
            let bytes = format!("{line}{end}");
            let read = split_requests(bytes.as_bytes());
            assert_eq!(read.frames.len(), 1, "{bytes:?}: {:?}", read.error);
            assert_eq!(letters(&read.frames[0].1), meaning, "{bytes:?}");
        }
    }
    for line in [
        "\"a", "'a", "\"a\"b", "'a'b", "\"a\\", "'a\\", "\"a\\\"", "'a\\'", "'\\\\'", "\"\\x",
        "\"\\x4",
    ] {
        for end in ["\n", "\r\n"] {
            let read = split_requests(format!("PING\r\n{line}{end}PING\r\n").as_bytes());
            assert_eq!(read.frames.len(), 1, "{line:?}");
            let answer = read.error.expect("an error").answer;
            assert_eq!(
                answer, b"-ERR Protocol error: unbalanced quotes in request\r\n",
                "{line:?}"
            );
        }
    }
}

#[test]
fn requests_that_are_none() {
    let many = format!("*{}\r\n", i64::from(i32::MAX) + 1);
    let name = |more: &str| format!("*2\r\n$3\r\nGET\r\n{more}");
    for (bytes, why) in [
        ("*\r\n", "invalid multibulk length"),
        ("*1x\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*-0\r\n", "invalid multibulk length"),
        ("*--1\r\n", "invalid multibulk length"),
        ("* 1\r\n", "invalid multibulk length"),
        ("*1\n", "invalid multibulk length"),
        ("*1\rx", "invalid multibulk length"),
        ("*1\r\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        (&many, "invalid multibulk length"),
        ("*1\r\nGET\r\n", "expected '$', got 'G'"),
        ("*1\r\n\r\n", "expected '$', got '\\r'"),
        (&name("*1\r\n"), "expected '$', got '*'"),
        (&name("$-1\r\n"), "invalid bulk length"),
        (&name("$\r\n"), "invalid bulk length"),
        (&name("$9223372036854775808\r\n"), "invalid bulk length"),
        (&name("$536870913\r\n"), "invalid bulk length"),
        (&name("$1\r\nab\r\n"), "expected CRLF behind a bulk"),
        (&name("$1\r\na\nb"), "expected CRLF behind a bulk"),
        (&name("$1\r\na\rb"), "expected CRLF behind a bulk"),
        ("PI\0NG\r\n", "NUL in an inline request"),
    ] {
        let read = split_requests(format!("PING\r\n{bytes}").as_bytes());
        assert_eq!(read.frames.len(), 1, "{bytes:?}");
        let error = read.error.expect("an error");
        assert_eq!(error.why, format!("protocol error: {why}"), "{bytes:?}");
        assert_eq!(error.answer, format!("-ERR Protocol error: {why}\r\n").as_bytes());
    }
    // What is just within the limits.
    for bytes in ["*2147483647\r\n", &name("$536870912\r\n"), &name("$0\r\n\r")] {
        let read = split_requests(bytes.as_bytes());
        assert_eq!((read.frames.len(), read.error), (0, None), "{bytes:?}");
    }
}

#[test]
fn a_request_has_a_limit_as_a_whole() {
    let resp = Resp { max_frame: 100_000 };
    let value = vec![b'x'; 100_000];
    let check = |words: &[&[u8]], fits: bool| {
        let read = requests(&resp, &array_of(words), &[]);
        assert_eq!(read.error.is_none(), fits, "{:?}", read.error);
    };
    check(&[b"SET", b"a", &value], true);
    check(&[b"MSET", b"a", &value, b"b", &value[..99_900]], true);
    check(&[b"MSET", b"a", &value, b"b", &value], false);
    // Early: the limit is exceeded as soon as the length is declared.
    let mut bytes = array_of(&[b"MSET", b"a", &value, b"b"]);
    bytes[1] = b'5';
    bytes.extend_from_slice(b"$100000\r\n");
    assert!(requests(&resp, &bytes, &[]).error.is_some());
}

#[test]
fn an_inline_request_is_no_longer_than_64_kib() {
    let line = |length: usize, end: &str| {
        let words = "ECHO a ";
        format!("{words}{}{end}", "x".repeat(length - words.len() - end.len()))
    };
    for (bytes, frames) in [
        (line(MAX_LINE, "\r\n"), 1),
        (line(MAX_LINE, "\n"), 1),
        (line(MAX_LINE + 1, "\n"), 0),
        (line(MAX_LINE, ""), 0),
        (line(WHOLE, "\n"), 1),
        (line(WHOLE + 1, "\n"), 1),
    ] {
        let read = split_requests(bytes.as_bytes());
        assert_eq!(read.frames.len(), frames);
        let why = read.error.map(|error| error.why);
        let expected = (frames == 0).then_some("protocol error: too big inline request");
        assert_eq!(why.as_deref(), expected);
    }
}

/// Spaces enough to hide the command, or that there is none, from whoever looks at the first bytes only.
#[test]
fn a_long_line_cannot_hide_what_it_is() {
    let spaces = " ".repeat(WHOLE);
    for hidden in ["", "SUBSCRIBE a", "PING"] {
        for line in [
            format!("{spaces}{hidden}\r\n"),
            format!("{}{hidden}\r\n", &spaces[..WHOLE - 2]),
            format!("SCRIPT{spaces}DEBUG YES\r\n"),
            format!("CLIENT {}REPLY OFF\r\n", &spaces[..WHOLE - 9]),
            format!("EXEC{spaces}\r\n"),
        ] {
            if line.len() <= WHOLE {
                continue;
            }
            let read = split_requests(line.as_bytes());
            let why = read.error.map(|error| error.why);
            assert_eq!(why.as_deref(), Some("protocol error: too big inline request"));
        }
    }
    let line = format!("XREAD COUNT{spaces}1 BLOCK 0 STREAMS a $\r\n");
    assert_eq!(letters(&request(line.as_bytes())), "1 exclusive blocking: XREAD");
    let line = format!("SELECT 0{spaces}\r\n");
    assert_eq!(letters(&request(line.as_bytes())), "1 pinned SELECT");
    let line = format!("ECHO {}\r\n", "x".repeat(WHOLE));
    assert_eq!(letters(&request(line.as_bytes())), "1 again");
}

/// The pieces that come of a frame when it comes in pieces of this length: their lengths.
fn pieces(bytes: &[u8], length: usize) -> Vec<(usize, bool, bool)> {
    let mut reader = Resp::default().requests();
    let mut seen = Vec::new();
    read(bytes, &vec![length; bytes.len() / length], |bytes, _| {
        let piece = reader.next(bytes)?;
        seen.extend(piece.iter().map(|piece| (piece.bytes, piece.begins.is_some(), piece.ends)));
        Ok(piece)
    });
    seen
}

#[test]
fn a_frame_is_whole_up_to_16_kib() {
    let value = |length: usize| {
        let bytes = array_of(&[b"SET", b"a", vec![b'\r'; length].as_slice()]);
        let rest = bytes.len() - length;
        (bytes, rest)
    };
    let (_, rest) = value(WHOLE - 100);
    for length in [1, 100, WHOLE, usize::MAX >> 1] {
        let (bytes, _) = value(WHOLE - rest);
        assert_eq!(pieces(&bytes, length), [(WHOLE, true, true)]);
        let (bytes, _) = value(WHOLE - rest + 1);
        assert_eq!(pieces(&bytes, length), [(WHOLE, true, false), (1, false, true)]);
    }
    let (bytes, _) = value(3 * WHOLE);
    let seen = pieces(&bytes, WHOLE);
    assert_eq!(seen[0], (WHOLE, true, false));
    assert_eq!(seen.iter().map(|(bytes, ..)| bytes).sum::<usize>(), bytes.len());
}

/// One of each type, with what is in it.
const VALUES: &[&str] = &[
    "+OK\r\n",
    "+\r\n",
    "-ERR no such thing\r\n",
    ":0\r\n",
    ":-12\r\n",
    ":+3\r\n",
    "$0\r\n\r\n",
    "$5\r\na\r\nbc\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*2\r\n$1\r\na\r\n:1\r\n",
    "*3\r\n*0\r\n*1\r\n*1\r\n*-1\r\n$-1\r\n",
    "_\r\n",
    "#t\r\n",
    "#f\r\n",
    ",1.5e3\r\n",
    ",-inf\r\n",
    ",nan\r\n",
    "(-3492890328409238509324850943850943825024385\r\n",
    "!21\r\nSYNTAX invalid syntax\r\n",
    "=15\r\ntxt:Some string\r\n",
    "%0\r\n",
    "%2\r\n+first\r\n:1\r\n+second\r\n*2\r\n:2\r\n:3\r\n",
    "~3\r\n+a\r\n#t\r\n~0\r\n",
    "|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n",
    "|0\r\n|1\r\n+a\r\n%1\r\n:1\r\n:2\r\n+OK\r\n",
    "*2\r\n:1\r\n|1\r\n+a\r\n*0\r\n:2\r\n",
    "*2\r\n-ERR in EXEC\r\n*1\r\n!3\r\nERR\r\n",
];

const PUSHES: &[&str] = &[
    ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n",
    ">2\r\n$10\r\ninvalidate\r\n_\r\n",
    ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nhi!\r\n",
];

#[test]
fn a_reply_is_one_value_and_a_push_is_none() {
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    for (place, value) in VALUES.iter().enumerate() {
        let push = PUSHES[place % PUSHES.len()];
        for (text, pops) in [(value, true), (&push, false)] {
            bytes.extend_from_slice(text.as_bytes());
            frames.push((text.as_bytes().to_vec(), Reply { pops, ..Reply::PLAIN }));
        }
    }
    let read = split_replies(&bytes, VALUES.len());
    assert_eq!((read.frames, read.error), (frames, None));
    assert!(read.rest.is_empty());
}

#[test]
fn long_replies_come_in_pieces() {
    let big = format!("${}\r\n{}\r\n", 3 * WHOLE, "\r\n".repeat(3 * WHOLE / 2));
    let small = format!("*{}\r\n{}", WHOLE, "$1\r\na\r\n".repeat(WHOLE));
    let line = format!("+{}\r\n", "x".repeat(MAX_LINE - 3));
    let push = format!(">2\r\n+a\r\n${WHOLE}\r\n{}\r\n", "y".repeat(WHOLE));
    for (frame, pops) in [(big, true), (small, true), (line, true), (push, false)] {
        let bytes = format!("+OK\r\n{frame}:1\r\n");
        let read = split_replies(bytes.as_bytes(), 3);
        assert_eq!(read.error, None);
        assert_eq!(read.frames.len(), 3);
        assert_eq!(read.frames[1], (frame.into_bytes(), Reply { pops, ..Reply::PLAIN }));
    }
}

#[test]
fn replies_that_are_none() {
    let line = format!("+{}", "x".repeat(MAX_LINE));
    let number = format!(":{}", "1".repeat(MAX_LINE));
    for (bytes, why) in [
        ("OK\r\n", "`O` is no type of a value"),
        ("\r\n", "`\\r` is no type of a value"),
        ("*1\r\n?\r\n", "`?` is no type of a value"),
        ("$?\r\n", "a streamed value of type `$`, which no server sends"),
        ("*?\r\n", "a streamed value of type `*`, which no server sends"),
        ("%?\r\n", "a streamed value of type `%`, which no server sends"),
        ("$-2\r\n", "a length of -2 behind `$`"),
        ("!-1\r\n", "a length of -1 behind `!`"),
        ("$536870913\r\n", "a length of 536870913 behind `$`"),
        ("*-2\r\n", "a count of -2 behind `*`"),
        ("%-1\r\n", "a count of -1 behind `%`"),
        (">0\r\n", "a count of 0 behind `>`"),
        ("*2147483648\r\n", "a count of 2147483648 behind `*`"),
        ("*99999999999999999999\r\n", "no number behind `*`"),
        ("$1 \r\n", "no number behind `$`"),
        ("$01\r\n", "no number behind `$`"),
        ("$\r\n", "no number behind `$`"),
        ("$1\n", "no number behind `$`"),
        ("$1\r\nab\r\n", "no CR LF behind a bulk string"),
        ("$1\r\na\n", "no CR LF behind a bulk string"),
        ("$1\r\na\rb", "no CR LF behind a bulk string"),
        ("+OK\n", "a LF without a CR in a line"),
        ("+O\rK\r\n", "a CR without a LF in a line"),
        ("_x\r\n", "this is no value of type `_`"),
        ("#x\r\n", "this is no value of type `#`"),
        ("#tt\r\n", "this is no value of type `#`"),
        ("#\r\n", "an empty value of type `#`"),
        (":\r\n", "an empty value of type `:`"),
        (":1x\r\n", "this is no value of type `:`"),
        (":1-\r\n", "this is no value of type `:`"),
        ("(1.5\r\n", "this is no value of type `(`"),
        ("*2\r\n:1\r\n>1\r\n+a\r\n:2\r\n", "a push within a reply"),
        ("|1\r\n+a\r\n+b\r\n>1\r\n+a\r\n", "a push within a reply"),
        (&line, "a line is longer than 65536 bytes"),
        (&number, "a line is longer than 65536 bytes"),
    ] {
        let read = split_replies(format!("+OK\r\n{bytes}").as_bytes(), 2);
        assert_eq!(read.frames.len(), 1, "{bytes:?}");
        assert_eq!(read.error, Some(Malformed::new(why)), "{bytes:?}");
    }
}

#[test]
fn only_a_push_comes_unasked() {
    let bytes = [PUSHES[0], "+OK\r\n", PUSHES[0], "-DENIED Redis is protected\r\n"].concat();
    let read = split_replies(bytes.as_bytes(), 1);
    assert_eq!(read.frames.len(), 3);
    let why = "unsolicited: a reply of type `-` that is not due";
    assert_eq!(read.error, Some(Malformed::new(why)));
    assert!(split_replies(b"|0\r\n+OK\r\n", 0).error.is_some());
}

#[test]
fn depth_costs_nothing() {
    let deep = format!("{}:1\r\n", "*1\r\n".repeat(100_000));
    let read = replies(&Resp::default(), deep.as_bytes(), &[], &[DUE]);
    assert_eq!((read.frames.len(), read.error), (1, None));
    // Counts that promise more than can be counted.
    let mut huge = "*2147483647\r\n".repeat(100_000);
    huge.push('x');
    let read = replies(&Resp::default(), huge.as_bytes(), &[], &[DUE]);
    assert_eq!(read.error.map(|error| error.why).as_deref(), Some("`x` is no type of a value"));
    assert!(std::mem::size_of::<replies::Replies>() <= 128);
    assert!(std::mem::size_of::<requests::Requests>() <= 1024);
}

#[test]
fn the_other_things_that_a_framing_says() {
    let resp = Resp::default();
    assert_eq!(
        resp.error(Trouble::QueueFull, DUE),
        b"-ERR trunkline: too many requests are waiting\r\n"
    );
    let query = resp.reset_query().expect("there is one");
    assert_eq!(query.request, array("RESET"));
    let read = split_replies(&query.reply, 1);
    assert_eq!((read.frames.len(), read.error), (1, None));
    assert!(resp.counts_replies());
}

/// What clients say, of all kinds.
fn conversation() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = [
        "HELLO 3",
        "CLIENT SETNAME app",
        "CLIENT TRACKING ON",
        "GET a",
        "SET a 1",
        "MGET a b c",
        "MULTI",
        "INCR a",
        "SHUTDOWN",
        "EXEC",
        "WATCH a",
        "UNWATCH",
        "SELECT 3",
        "SELECT 0",
        "XREAD BLOCK 0 STREAMS s $",
        "RESET",
        "BLPOP a 0",
        "CLIENT REPLY OFF",
        "ASKING",
        "GET a",
    ]
    .iter()
    .map(|command| array(command))
    .collect();
    all.push(b"PING\r\n".to_vec());
    all.push(b"\r\n".to_vec());
    all.push(b"*0\r\n".to_vec());
    all.push(b"SET \"a key\" 'it\\'s \"so\"'\n".to_vec());
    all.push(array_of(&[b"SET", b"big", vec![b'\n'; 2 * WHOLE].as_slice()]));
    all.push(array_of(&[b"SET", b"empty", b""]));
    all.push(array_of(&vec![b"MSET".as_slice(); 4000]));
    all.push(format!("ECHO {}\r\n", "y".repeat(WHOLE + 10)).into_bytes());
    all.push(array("SUBSCRIBE a b"));
    all.push(array("UNSUBSCRIBE"));
    all
}

#[test]
fn a_conversation_is_the_same_however_it_comes() {
    let all = conversation();
    let short: Vec<_> = all.iter().filter(|bytes| bytes.len() < 1000).cloned().collect();
    assert_eq!(split_requests(&short.concat()).frames.len(), short.len());
    let read = split_requests(&all.concat());
    assert_eq!((read.frames.len(), &read.error), (all.len(), &None));
    for (sent, (frame, _)) in all.iter().zip(&read.frames) {
        // But for the one that is refused within MULTI.
        assert!(sent == frame || *sent == array("SHUTDOWN"));
    }
}

/// Bytes that look like RESP more often than chance has it.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let values = VALUES.iter().chain(PUSHES).map(|value| value.as_bytes().to_vec());
    let tokens = [
        "*1\r\n",
        "*2\r\n",
        "*3\r\n$5\r\n",
        "$3\r\n",
        "GET",
        "\r\n",
        "\r",
        "\n",
        "$-1\r\n",
        "*-1\r\n",
        "-",
        "'",
        "\"",
        "\\x4",
        "\\",
        " ",
        "\0",
        "$99999999999999999999",
        "*2147483647\r\n",
        "%1\r\n",
        "|1\r\n",
        ">1\r\n",
    ];
    let tokens = tokens.iter().map(|token| token.as_bytes().to_vec());
    let all: Vec<_> = values.chain(tokens).collect();
    let token = prop_oneof![
        12 => proptest::sample::select(all),
        4 => proptest::sample::select(conversation()),
        3 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// Reads on whatever comes, even behind an error.
fn press_on(bytes: &[u8], mut next: impl FnMut(&[u8]) -> Result<Option<usize>, Malformed>) {
    let mut start = 0;
    for end in 1..=bytes.len().min(2000) {
        match next(&bytes[start..end]) {
            Ok(piece) => start += piece.unwrap_or(0),
            Err(_) => start = end,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_comes_nobody_panics(bytes in nearly(), due in any::<bool>()) {
        let (mut requests, mut replies) = (Resp::default().requests(), Resp::default().replies());
        press_on(&bytes, |bytes| Ok(requests.next(bytes)?.map(|piece| piece.bytes)));
        let due = due.then_some(DUE);
        press_on(&bytes, |bytes| Ok(replies.next(bytes, due)?.map(|piece| piece.bytes)));
    }

    #[test]
    fn whatever_comes_means_the_same_however_it_comes(
        bytes in nearly(),
        lengths in proptest::collection::vec(1..3000_usize, 0..40),
        due in 0..20_usize,
    ) {
        let resp = Resp::default();
        let due = vec![DUE; due];
        let one = requests(&resp, &bytes, &[]);
        let other = requests(&resp, &bytes, &lengths);
        same(&one, &other, "in these lengths");
        let one = replies(&resp, &bytes, &[], &due);
        let other = replies(&resp, &bytes, &lengths, &due);
        same(&one, &other, "in these lengths");
    }

    #[test]
    fn a_conversation_is_the_same_in_any_chunks(
        lengths in proptest::collection::vec(1..6000_usize, 0..60),
    ) {
        let bytes = conversation().concat();
        let resp = Resp::default();
        let one = requests(&resp, &bytes, &[]);
        same(&one, &requests(&resp, &bytes, &lengths), "in these lengths");
    }

    /// No buffer of this size is ever too small: nobody has to hold more to get the next piece.
    #[test]
    fn nobody_holds_more_than_16_kib(bytes in nearly()) {
        let mut requests = Resp::default().requests();
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes.len().min(start + WHOLE);
            match requests.next(&bytes[start..end]) {
                Ok(Some(piece)) => start += piece.bytes,
                Ok(None) => { prop_assert!(end - start < WHOLE); break }
                Err(_) => break,
            }
        }
    }
}
