//! A protocol for simulated runs alone: it has all that a [`Framing`] can say, and every frame names its client and its
//! number.
//!
//! ```text
//!   request   put 3 17 1 40            verb, client, number, how many replies, length of the body; then the body
//!   reply     ok 3 17 1 120 -          kind, client, number, which of its replies, length; whose value the trunk has
//! ```
//!
//! A head ends with a LF, and so does a body, if there is one. A CR before the LF of a head is not passed on. Replies do
//! not have to be to the request that is due: that they are is for the peers of the run to check, not for the framing.

use crate::framing::{
    Action, Binding, Count, Framing, Malformed, Piece, Replies, Reply, Request, Requests,
    ResetQuery, Shape, Trouble,
};
use std::str;

/// The framing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect;

/// What takes the place of [`crate::framing::WHOLE`] here: small, so that a run meets it often.
pub(super) const WHOLE: usize = 100;

/// The longest head, with its LF.
const HEAD: usize = 48;

/// The longest body.
const BODY: usize = 2000;

/// Nobody's number: that of the proxy's own request.
const NOBODY: u8 = u8::MAX;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($(#[$doc])* $word,)* }

        impl $name {
            pub(super) fn word(self) -> &'static str {
                match self { $($name::$word => $text,)* }
            }

            fn named(word: &str) -> Option<$name> {
                match word { $($text => Some($name::$word),)* _ => None }
            }
        }
    };
}

words! {
    /// What a request asks for.
    Verb {
        /// Changes nothing.
        Get = "get",
        Put = "put",
        /// Its reply tells of a body and has none.
        Head = "head",
        /// Has no reply.
        Cast = "cast",
        /// Has a reply that its client does not get.
        Mute = "mute",
        /// Has the trunk for itself; its reply may be of any kind.
        Block = "block",
        /// Its body is sent when it has been told to go on.
        Wait = "wait",
        /// Gives the trunk its client's value.
        Set = "set",
        See = "see",
        /// Has many replies.
        Many = "many",
        Free = "free",
        /// Is answered for as long as the trunk lasts.
        Watch = "watch",
        /// Is answered by the framing.
        Ping = "ping",
        Adieu = "adieu",
        Void = "void",
        Quit = "quit",
        Tunnel = "tunnel",
        /// Becomes a tunnel if the reply says so.
        Upgrade = "upgrade",
        /// Is no request, and is told so.
        What = "what",
        /// Takes the value from the trunk. Only the proxy may ask for that.
        Reset = "reset",
    }
}

words! {
    /// What a reply is.
    Kind {
        Ok = "ok",
        /// The trunk is of no use behind it.
        Bye = "bye",
        /// The client is closed behind it.
        End = "end",
        /// It ends with the trunk.
        Rest = "rest",
        /// The reply proper is still to come.
        Hold = "hold",
        Mute = "mute",
        Switch = "switch",
        /// One of those to `watch`.
        Item = "item",
        Clean = "clean",
        /// From the framing.
        Pong = "pong",
        Adieu = "adieu",
        Bad = "bad",
        /// The trunk was lost.
        Lost = "lost",
        /// There was no trunk.
        Unserved = "unserved",
        /// The same, for too many wait or have one for themselves.
        Full = "full",
        /// The same, for none became free in time.
        Tired = "tired",
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) client: u8,
    pub(super) number: u8,
    pub(super) times: u32,
    pub(super) length: usize,
}

/// The head of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) client: u8,
    pub(super) number: u8,
    pub(super) part: u32,
    pub(super) length: usize,
    pub(super) whose: Option<u8>,
}

/// A body, which shows whose it is at every place.
pub(super) fn body(client: u8, number: u8, part: u32, length: usize) -> Vec<u8> {
    let mut body = format!("{client}.{number}.{part} ").into_bytes();
    body = body.into_iter().cycle().take(length).collect();
    if let Some(last) = body.last_mut() {
        *last = b'\n';
    }
    body
}

impl Asked {
    pub(super) fn head(&self) -> String {
        let Asked { verb, client, number, times, length } = self;
        format!("{} {client} {number} {times} {length}", verb.word())
    }

    pub(super) fn body(&self) -> Vec<u8> {
        body(self.client, self.number, 0, self.length)
    }

    /// What a backend gets.
    pub(super) fn text(&self) -> Vec<u8> {
        [self.head().as_bytes(), b"\n", &self.body()].concat()
    }

    pub(super) fn parse(head: &str) -> Option<Asked> {
        let mut words = head.split(' ');
        let asked = Asked {
            verb: Verb::named(words.next()?)?,
            client: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            times: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok().filter(|length| *length <= BODY)?,
        };
        words.next().is_none().then_some(asked)
    }

    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.verb, Verb::Get | Verb::Head | Verb::See)
    }

    pub(super) fn binding(&self) -> Binding {
        match self.verb {
            Verb::Block | Verb::Upgrade => Binding::Exclusive(self.verb.word()),
            Verb::Set | Verb::See | Verb::Many | Verb::Watch => Binding::Pinned(self.verb.word()),
            Verb::Free => Binding::Release,
            Verb::Tunnel => Binding::Tunnel(self.verb.word()),
            _ => Binding::Shared,
        }
    }

    /// The trunk never sees it.
    pub(super) fn is_answered_here(&self) -> bool {
        matches!(self.verb, Verb::Ping | Verb::Adieu | Verb::Void | Verb::What)
    }

    /// Its client hears nothing of it.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.verb, Verb::Cast | Verb::Mute | Verb::Void)
    }

    /// What follows it is never looked at.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.verb, Verb::Adieu | Verb::Quit | Verb::What)
    }

    /// Whether it is passed on before all of it has come. (A CR may make it longer by one.)
    pub(super) fn comes_in_pieces(&self) -> bool {
        self.verb == Verb::Wait || self.text().len() + 1 > WHOLE
    }

    /// The number by which the proxy's own errors name it: such requests of a terse client have all the same shape, so that
    /// they go along with one another.
    pub(super) fn named(&self) -> u8 {
        let any = is_terse(self.client.into()) && matches!(self.verb, Verb::Get | Verb::Put);
        if any { NOBODY } else { self.number }
    }

    fn shape(&self) -> Shape {
        let flags = u32::from(self.verb == Verb::Head) | u32::from(self.verb == Verb::Mute) << 1;
        Shape(flags | u32::from(self.client) << 8 | u32::from(self.named()) << 16)
    }

    /// A reply without a body.
    pub(super) fn answer(&self, kind: Kind) -> Said {
        let Asked { client, number, .. } = *self;
        Said { kind, client, number, part: 0, length: 0, whose: None }
    }

    fn meaning(&self) -> Request {
        let action = match self.verb {
            Verb::Ping => Action::Answer(self.answer(Kind::Pong).text()),
            Verb::Adieu => Action::AnswerAndClose(self.answer(Kind::Adieu).text()),
            Verb::Void => Action::Skip,
            _ => Action::Forward,
        };
        let replies = match self.verb {
            Verb::Cast => Count::Exactly(0),
            Verb::Many => Count::Exactly(self.times),
            Verb::Watch | Verb::Tunnel => Count::Unknown,
            _ => Count::Exactly(1),
        };
        Request {
            action,
            replies,
            shape: self.shape(),
            binding: self.binding(),
            idempotent: self.is_idempotent(),
            last: self.verb == Verb::Quit,
            waits: self.verb == Verb::Watch,
        }
    }
}

impl Said {
    pub(super) fn head(&self) -> String {
        let Said { kind, client, number, part, length, whose } = self;
        let whose = whose.map_or("-".to_string(), |whose| whose.to_string());
        format!("{} {client} {number} {part} {length} {whose}", kind.word())
    }

    pub(super) fn body(&self) -> Vec<u8> {
        body(self.client, self.number, self.part, self.length)
    }

    pub(super) fn text(&self) -> Vec<u8> {
        [self.head().as_bytes(), b"\n", &self.body()].concat()
    }

    pub(super) fn parse(head: &str) -> Option<Said> {
        let mut words = head.split(' ');
        let said = Said {
            kind: Kind::named(words.next()?)?,
            client: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            part: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok().filter(|length| *length <= BODY)?,
            whose: match words.next()? {
                "-" => None,
                whose => Some(whose.parse().ok()?),
            },
        };
        words.next().is_none().then_some(said)
    }

    fn meaning(&self) -> Option<Reply> {
        Some(match self.kind {
            Kind::Ok | Kind::Clean => Reply::PLAIN,
            Kind::Bye | Kind::Rest => Reply { reusable: false, closes: true, ..Reply::PLAIN },
            Kind::End => Reply { last: true, ..Reply::PLAIN },
            Kind::Hold => Reply { pops: false, ..Reply::PLAIN },
            Kind::Mute => Reply { silent: true, ..Reply::PLAIN },
            Kind::Switch => Reply { tunnels: true, ..Reply::PLAIN },
            // What comes without being counted is not looked at, and the rest is not for a trunk to say.
            Kind::Item | Kind::Pong | Kind::Adieu | Kind::Bad => return None,
            Kind::Lost | Kind::Unserved | Kind::Full | Kind::Tired => return None,
        })
    }
}

impl Framing for Dialect {
    fn name(&self) -> &'static str {
        "dialect"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(Frames { left: Left::Nothing })
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(Frames { left: Left::Nothing })
    }

    /// Nothing for `mute`, whose client would take it for the reply to another.
    fn error(&self, trouble: Trouble, Shape(shape): Shape) -> Vec<u8> {
        if shape & 2 != 0 {
            return Vec::new();
        }
        let kind = match trouble {
            Trouble::BackendLost | Trouble::ReplyTimeout => Kind::Lost,
            Trouble::QueueFull | Trouble::TooManyPinned => Kind::Full,
            Trouble::QueueTimeout => Kind::Tired,
            _ => Kind::Unserved,
        };
        let [_, client, number, _] = shape.to_le_bytes();
        Said { kind, client, number, part: 0, length: 0, whose: None }.text()
    }

    fn reset_query(&self) -> Option<ResetQuery> {
        let reset = RESET;
        Some(ResetQuery { request: reset.text(), reply: reset.answer(Kind::Clean).text() })
    }

    fn counts_replies(&self) -> bool {
        true
    }
}

/// Some clients have little to say, so that much of it comes at once.
pub(super) fn is_terse(client: usize) -> bool {
    client % 3 == 1
}

/// The proxy's own request.
pub(super) const RESET: Asked =
    Asked { verb: Verb::Reset, client: NOBODY, number: NOBODY, times: 1, length: 0 };

/// Reads one direction.
struct Frames {
    left: Left,
}

/// What is to come of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Bytes(usize),
    /// All that comes.
    All,
}

/// What follows a head.
enum Body {
    Bytes(usize),
    /// The same, but not before something has come back.
    Awaited(usize),
    All,
}

/// The head that the bytes begin with, without its end, and its length with it.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(&str, usize)>, Malformed> {
    let most = bytes.len().min(HEAD);
    let Some(end) = bytes[..most].iter().position(|byte| *byte == b'\n') else {
        if most == HEAD {
            return Err(Malformed::new(format!("a head is longer than {HEAD} bytes")));
        }
        return Ok(None);
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let line = str::from_utf8(line).map_err(|_| Malformed::new("a head is no text"))?;
    Ok(Some((line, end + 1)))
}

impl Frames {
    fn next<T>(
        &mut self,
        bytes: &[u8],
        read: impl FnOnce(&str) -> Result<(T, Body), Malformed>,
    ) -> Result<Option<Piece<T>>, Malformed> {
        if self.left != Left::Nothing {
            if bytes.is_empty() {
                return Ok(None);
            }
            let bytes = self.goes_on(bytes)?;
            let ends = self.left == Left::Nothing;
            return Ok(Some(Piece { bytes, begins: None, ends, instead: None }));
        }
        // Looked at again for each part that comes: it is short.
        let Some((line, head)) = head(bytes)? else { return Ok(None) };
        let (meaning, body) = read(line)?;
        if let Body::Bytes(length) = body
            && head + length <= WHOLE
            && bytes.len() < head + length
        {
            return Ok(None);
        }
        self.left = match body {
            Body::Bytes(length) | Body::Awaited(length) => Left::Bytes(length),
            Body::All => Left::All,
        };
        // Of what does not come whole the head is a piece of its own, so that it does not matter how it comes.
        let whole = matches!(body, Body::Bytes(length) if head + length <= WHOLE);
        let empty = self.left == Left::Bytes(0);
        let body = if whole || empty { self.goes_on(&bytes[head..])? } else { 0 };
        // A CR was taken off.
        let instead = (line.len() + 1 < head)
            .then(|| [line.as_bytes(), b"\n", &bytes[head..head + body]].concat());
        let ends = self.left == Left::Nothing;
        Ok(Some(Piece { bytes: head + body, begins: Some(meaning), ends, instead }))
    }

    /// How many of the bytes belong to the body.
    fn goes_on(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let Left::Bytes(left) = self.left else { return Ok(bytes.len()) };
        let taken = left.min(bytes.len());
        if taken < left {
            self.left = Left::Bytes(left - taken);
            return Ok(taken);
        }
        self.left = Left::Nothing;
        match bytes[..taken].last() {
            None | Some(b'\n') => Ok(taken),
            Some(_) => Err(Malformed::new("a body does not end where it should")),
        }
    }
}

impl Requests for Frames {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        self.next(bytes, |line| match Asked::parse(line) {
            Some(Asked { verb: Verb::Reset, .. }) | None => {
                Err(Malformed::new(format!("{line:?} is no request")))
            }
            Some(asked) if asked.verb == Verb::What => {
                Err(Malformed { why: "what?".to_string(), answer: asked.answer(Kind::Bad).text() })
            }
            Some(asked) if asked.verb == Verb::Wait => {
                Ok((asked.meaning(), Body::Awaited(asked.length)))
            }
            Some(asked) => Ok((asked.meaning(), Body::Bytes(asked.length))),
        })
    }
}

impl Replies for Frames {
    fn next(
        &mut self,
        bytes: &[u8],
        due: Option<Shape>,
    ) -> Result<Option<Piece<Reply>>, Malformed> {
        self.next(bytes, |line| {
            let found = Said::parse(line).and_then(|said| Some((said, said.meaning()?)));
            let Some((said, meaning)) = found else {
                return Err(Malformed::new(format!("{line:?} is no reply")));
            };
            if meaning.pops && due.is_none() {
                return Err(Malformed::new("a reply that nobody asked for"));
            }
            let bodyless = due.is_some_and(|Shape(shape)| shape & 1 != 0);
            let body = match said.kind {
                Kind::Rest => Body::All,
                _ if bodyless => Body::Bytes(0),
                _ => Body::Bytes(said.length),
            };
            Ok((meaning, body))
        })
    }

    fn ends_with_the_trunk(&self) -> bool {
        self.left == Left::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::splits::{Read, every_split, replies, requests};
    use proptest::prelude::*;

    fn asked(verb: Verb, length: usize) -> Asked {
        Asked { verb, client: 3, number: 17, times: 2, length }
    }

    fn said(kind: Kind, length: usize) -> Said {
        Said { kind, client: 3, number: 17, part: 1, length, whose: Some(3) }
    }

    fn read_requests(bytes: &[u8]) -> Read<Request> {
        every_split(bytes, |bytes, lengths| requests(&Dialect, bytes, lengths))
    }

    fn read_replies(bytes: &[u8], due: &[Shape]) -> Read<Reply> {
        every_split(bytes, |bytes, lengths| replies(&Dialect, bytes, lengths, due))
    }

    #[test]
    fn a_request_says_what_it_is_however_it_comes() {
        let verbs = [Verb::Put, Verb::Many, Verb::Wait, Verb::Tunnel, Verb::Ping, Verb::Cast];
        for length in [0, 1, 40, WHOLE, 300] {
            let all: Vec<_> = verbs.iter().map(|verb| asked(*verb, length)).collect();
            let bytes: Vec<u8> = all.iter().flat_map(Asked::text).collect();
            let read = read_requests(&bytes);
            let expected: Vec<_> =
                all.iter().map(|asked| (asked.text(), asked.meaning())).collect();
            assert_eq!((read.frames, read.rest, read.error), (expected, Vec::new(), None));
        }
    }

    #[test]
    fn a_short_request_comes_whole_and_a_long_one_in_pieces() {
        let check = |asked: Asked, given: usize, bytes: Option<usize>| {
            let text = asked.text();
            let piece = Dialect.requests().next(&text[..given]).expect("it is a request");
            assert_eq!(piece.map(|piece| piece.bytes), bytes, "{asked:?}");
        };
        // "put 3 17 2 84\n" is 14 bytes, and makes 98 with its body.
        check(asked(Verb::Put, 84), 97, None);
        check(asked(Verb::Put, 84), 98, Some(98));
        check(asked(Verb::Put, 86), 100, Some(100));
        check(asked(Verb::Put, 87), 13, None);
        check(asked(Verb::Put, 87), 14, Some(14));
        // The head goes first, though more has come, or however short it is.
        check(asked(Verb::Put, 87), 50, Some(14));
        check(asked(Verb::Wait, 20), 15, Some(15));
        assert!(asked(Verb::Wait, 20).comes_in_pieces() && asked(Verb::Put, 87).comes_in_pieces());
        assert!(!asked(Verb::Put, 84).comes_in_pieces());
    }

    #[test]
    fn a_cr_is_not_passed_on() {
        for length in [0, 20, 300] {
            let (asked, said) = (asked(Verb::Put, length), said(Kind::Ok, length));
            let with_cr =
                |head: String, body: Vec<u8>| [head.as_bytes(), b"\r\n", &body[..]].concat();
            let read = read_requests(&with_cr(asked.head(), asked.body()));
            assert_eq!(read.frames, [(asked.text(), asked.meaning())]);
            let read = read_replies(&with_cr(said.head(), said.body()), &[asked.shape()]);
            assert_eq!(read.frames, [(said.text(), Reply::PLAIN)]);
        }
    }

    #[test]
    fn what_is_no_request_is_told_so_or_not() {
        let check = |bytes: &[u8], why: &str, answer: &[u8]| {
            let error = read_requests(bytes).error.expect("it is no request");
            assert!(error.why.contains(why), "{error}");
            assert_eq!(error.answer, answer);
        };
        check(b"what 3 17 1 0\n", "what", b"bad 3 17 0 0 -\n");
        check(b"dance 3 17 1 0\n", "no request", b"");
        check(b"get 3 17 1\n", "no request", b"");
        check(b"get 3 17 1 0 0\n", "no request", b"");
        check(b"get 3 256 1 0\n", "no request", b"");
        check(b"get 3 17 1 2001\n", "no request", b"");
        check(b"get \xff\n", "no text", b"");
        check(&RESET.text(), "no request", b"");
        check(&[b'g'; HEAD], "longer than 48", b"");
        check(b"get 3 17 1 3\nabc", "does not end", b"");
        check(&[b"get 3 17 1 300\n", &[b'a'; 300][..]].concat(), "does not end", b"");
    }

    #[test]
    fn a_reply_says_what_it_is_and_its_request_whether_it_has_a_body() {
        let due = asked(Verb::Put, 0).shape();
        for length in [0, 20, 300] {
            let all = [Kind::Hold, Kind::Ok, Kind::Mute, Kind::Bye, Kind::End, Kind::Clean]
                .map(|kind| said(kind, length));
            let bytes: Vec<u8> = all.iter().flat_map(Said::text).collect();
            let read = read_replies(&bytes, &[due; 5]);
            let expected: Vec<_> = all
                .iter()
                .map(|said| (said.text(), said.meaning().expect("a trunk may say it")))
                .collect();
            assert_eq!((read.frames, read.error), (expected, None));
        }
        let head = said(Kind::Ok, 300).head() + "\n";
        let read = read_replies(
            &[head.as_bytes(), &said(Kind::Ok, 4).text()].concat(),
            &[asked(Verb::Head, 0).shape(), due],
        );
        assert_eq!(read.frames[0].0, head.as_bytes());
        assert_eq!((read.frames.len(), read.error), (2, None));
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let due = [asked(Verb::Put, 0).shape()];
        let check = |bytes: &[u8], why: &str| {
            let error = read_replies(bytes, &due).error.expect("it is no reply");
            assert!(error.why.contains(why), "{error}");
        };
        check(b"lost 3 17 0 0 -\n", "no reply");
        check(b"yes 3 17 0 0 -\n", "no reply");
        check(b"ok 3 17 0 0\n", "no reply");
        check(b"ok 3 17 0 3 -\nabc", "does not end");
        check(&said(Kind::Ok, 5).text().repeat(2), "nobody asked");
    }

    #[test]
    fn a_reply_may_last_as_long_as_the_trunk() {
        let mut replies = Dialect.replies();
        let text = said(Kind::Rest, 300).text();
        let due = Some(asked(Verb::Block, 0).shape());
        assert!(!replies.ends_with_the_trunk());
        let piece = replies.next(&text[..50], due).expect("it is a reply").expect("a piece");
        let head = piece.bytes;
        assert!(piece.begins.is_some() && !piece.ends && text[..head].ends_with(b"\n"));
        assert!(replies.ends_with_the_trunk());
        let piece = replies.next(&text[head..], due).expect("it is a reply").expect("a piece");
        assert_eq!((piece.begins, piece.bytes, piece.ends), (None, text.len() - head, false));
        assert_eq!(replies.next(b"", due), Ok(None));
    }

    #[test]
    fn an_error_names_the_request_and_a_mute_one_gets_none() {
        let error = |trouble, verb| Dialect.error(trouble, asked(verb, 0).shape());
        assert_eq!(error(Trouble::BackendLost, Verb::Head), b"lost 3 17 0 0 -\n");
        assert_eq!(error(Trouble::NoBackend, Verb::Put), b"unserved 3 17 0 0 -\n");
        assert_eq!(error(Trouble::QueueFull, Verb::Put), b"full 3 17 0 0 -\n");
        assert_eq!(error(Trouble::QueueTimeout, Verb::Put), b"tired 3 17 0 0 -\n");
        assert_eq!(error(Trouble::BackendLost, Verb::Mute), b"");
    }

    #[test]
    fn the_reply_to_the_reset_query_is_a_reply() {
        let query = Dialect.reset_query().expect("it has one");
        let read = read_replies(&query.reply, &[Shape::default()]);
        assert_eq!(read.frames, [(query.reply, Reply::PLAIN)]);
        let request = str::from_utf8(&query.request).expect("it is text");
        assert_eq!(Asked::parse(request.trim_end()), Some(RESET));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_every_cut_reads_the_same(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "get ", "wait ", "ok ", "rest ", "hold ", "3 ", "17 ", "1 ", "0", "20", "400", "\n", "\r\n",
                    "-\n", " ", "x", "\u{fc}",
                ]),
                0..60,
            ),
        ) {
            let bytes = words.concat();
            read_requests(bytes.as_bytes());
            read_replies(bytes.as_bytes(), &[Shape(0), Shape(1), Shape(0)]);
        }
    }
}
