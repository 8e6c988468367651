//! memcached's text protocol and its meta commands, by `doc/protocol.txt` of memcached.
//!
//! Clients can share a trunk only if every request has exactly one reply. So whatever makes memcached leave a reply out
//! is taken off the request, and the reply is then kept from the client: `noreply`, for which nothing is ever shown, and
//! the meta flag `q`, for which only the reply that says nothing new is left out. For the same reason a line goes on only
//! if every memcached will read it as it was read here: with one space between words, with the words that its command
//! has, and without a key whose name is `noreply` where that could be taken for the word. (Its versions do not agree on
//! when they skip the data of a line that they refuse, and on where they look for `noreply`.)
//!
//! Not carried: the binary protocol, logging in (`-Y` lets in whole connections, not their requests), and the commands
//! that only some builds have (`extstore`, `refresh_certs`, `misbehave`, `debugtime`). `--mode tunnel` carries all of it.

use super::{
    Action, Binding, Count, Framing, Malformed, Piece, Replies, Reply, Request, Requests, Shape,
    Trouble, WHOLE,
};
use std::str::FromStr;

/// memcached's text and meta commands.
///
/// ```
/// use trunkline::framing::{Framing, Memcached};
///
/// let mut requests = Memcached::default().requests();
/// let piece = requests.next(b"set a 0 0 1 noreply\r\nx\r\nget a\r\n").unwrap().unwrap();
/// assert_eq!(piece.bytes, 24);
/// assert_eq!(piece.instead.as_deref(), Some(&b"set a 0 0 1\r\nx\r\n"[..]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memcached {
    /// The longest block of data, in bytes, in a request or in a reply.
    pub max_frame: usize,
}

impl Default for Memcached {
    /// 1 GiB, beyond which memcached's own limit (`-I`) cannot be set. Long data is passed on as it comes, so this costs
    /// no memory.
    fn default() -> Self {
        Memcached { max_frame: 1 << 30 }
    }
}

impl Framing for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(Commands { max_frame: self.max_frame, searched: 0, command: None, left: 0 })
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(Answers::new(self.max_frame))
    }

    /// Nothing for `noreply`, whose client would take it for the reply to its next request.
    fn error(&self, trouble: Trouble, shape: Shape) -> Vec<u8> {
        match Asked::of(shape) {
            Ok(Asked { told: Told::Nothing, .. }) => Vec::new(),
            _ => format!("SERVER_ERROR trunkline: {}\r\n", trouble.words()).into_bytes(),
        }
    }

    fn counts_replies(&self) -> bool {
        true
    }
}

/// protocol.txt, "Keys".
const KEY: usize = 250;
/// A longer line memcached takes for junk, unless it is a `get` or a `gets`.
const LINE: usize = 2048;
/// A `get` or `gets` of many keys.
const LINE_OF_KEYS: usize = 64 << 10;
/// memcached makes its lines in a buffer of 1 KiB, or a little more.
const REPLY_LINE: usize = 8 << 10;
/// memcached counts the name, the key and a terminator among what it reads of a meta command, and stops at 20.
const META_WORDS: usize = 19;

const UNKNOWN: &[u8] = b"ERROR\r\n";
const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_DATA: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const TOO_LONG: &[u8] = b"CLIENT_ERROR line is too long\r\n";
const NO_SHUTDOWN: &[u8] = b"SERVER_ERROR trunkline: shutdown is refused\r\n";
const NO_BINARY: &[u8] = b"SERVER_ERROR trunkline: the binary protocol is not spoken here\r\n";

/// Behind these a trunk is not used: memcached closes it, or has thrown away the replies to what came before.
const FAREWELLS: [&[u8]; 3] = [
    b"ERROR Too many open connections",
    b"SERVER_ERROR out of memory reading request",
    b"SERVER_ERROR out of memory writing get response",
];

/// What a shape says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    kind: Kind,
    told: Told,
}

/// Which replies a command may have, besides an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `VALUE`s and their data; `END`.
    Values,
    Stored,
    Deleted,
    Touched,
    /// What `incr` and `decr` have made of it.
    Number,
    Version,
    /// One line, of the commands for operators.
    Done,
    /// `STAT`s and `END`; or one line.
    Stats,
    /// A line for every item, then `END` or, of `mgdump`, `EN`; or one line.
    Dump,
    MetaGet,
    MetaSet,
    MetaDelete,
    MetaArithmetic,
    MetaDebug,
    MetaNoop,
}

const KINDS: [Kind; 15] = [
    Kind::Values,
    Kind::Stored,
    Kind::Deleted,
    Kind::Touched,
    Kind::Number,
    Kind::Version,
    Kind::Done,
    Kind::Stats,
    Kind::Dump,
    Kind::MetaGet,
    Kind::MetaSet,
    Kind::MetaDelete,
    Kind::MetaArithmetic,
    Kind::MetaDebug,
    Kind::MetaNoop,
];

/// How much of the reply is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    All,
    /// All but the nominal reply: the client has said `q`.
    News,
    /// It has said `noreply`.
    Nothing,
}

const TOLD: [Told; 3] = [Told::All, Told::News, Told::Nothing];

impl Asked {
    fn shape(self) -> Shape {
        Shape(self.kind as u32 | (self.told as u32) << 8)
    }

    fn of(shape: Shape) -> Result<Asked, Malformed> {
        let [kind, told, ..] = shape.0.to_le_bytes();
        match (KINDS.get(usize::from(kind)), TOLD.get(usize::from(told))) {
            (Some(kind), Some(told)) => Ok(Asked { kind: *kind, told: *told }),
            _ => Err(Malformed::new("a reply is due to a request of another protocol")),
        }
    }
}

/// Requests of one client.
struct Commands {
    max_frame: usize,
    /// There is no LF before this place.
    searched: usize,
    /// The command whose line has come, while its data has not.
    command: Option<Command>,
    /// Bytes of data that are still to come of a command that was given in part, its CRLF included.
    left: usize,
}

struct Command {
    request: Request,
    /// The length of its line.
    line: usize,
    /// What goes on instead of the line.
    instead: Option<Vec<u8>>,
    /// The length of its data, with its CRLF.
    data: usize,
}

impl Requests for Commands {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        if self.left > 0 {
            return self.data(bytes);
        }
        if self.command.is_none() {
            let Some(line) = self.line(bytes)? else { return Ok(None) };
            self.command = Some(command(line, self.max_frame)?);
        }
        let whole = self.command.as_ref().map_or(0, |command| command.line + command.data);
        if whole <= WHOLE && bytes.len() < whole {
            return Ok(None);
        }
        let Some(command) = self.command.take() else { return Ok(None) };
        let Command { request, line, mut instead, data } = command;
        // What a line means is known when all of it has come: so a long one without data is given whole.
        let ends = whole <= WHOLE || data == 0;
        let bytes = if ends { &bytes[..whole] } else { &bytes[..line] };
        if ends && data > 0 {
            check_data(bytes)?;
            if let Some(instead) = &mut instead {
                instead.extend_from_slice(&bytes[line..]);
            }
        }
        self.left = if ends { 0 } else { data };
        Ok(Some(Piece { bytes: bytes.len(), begins: Some(request), ends, instead }))
    }
}

impl Commands {
    /// The line that `bytes` begin with, with its end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        if bytes.first() == Some(&0x80) {
            return Err(Malformed {
                why: "the binary protocol is not spoken; mode tunnel carries it".to_string(),
                answer: NO_BINARY.to_vec(),
            });
        }
        let end = line_end(bytes, &mut self.searched);
        let many = bytes.starts_with(b"get ") || bytes.starts_with(b"gets ");
        let most = if many { LINE_OF_KEYS } else { LINE };
        if end.unwrap_or(bytes.len()) > most {
            let why = format!("a line is longer than {most} bytes");
            return Err(Malformed { why, answer: TOO_LONG.to_vec() });
        }
        if end.is_some() {
            self.searched = 0;
        }
        Ok(end.map(|end| &bytes[..end]))
    }

    /// The next piece of long data.
    fn data(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        let given = if bytes.len() >= self.left {
            check_data(&bytes[..self.left])?;
            self.left
        } else {
            // The last piece has the CRLF, so that it is known to be right before it goes on.
            bytes.len().min(self.left - 2)
        };
        self.left -= given;
        let ends = self.left == 0;
        Ok((given > 0).then_some(Piece { bytes: given, begins: None, ends, instead: None }))
    }
}

/// The end of the line at the beginning of `bytes`, behind its LF; no LF is before `searched`.
fn line_end(bytes: &[u8], searched: &mut usize) -> Option<usize> {
    let from = (*searched).min(bytes.len());
    let found = bytes[from..].iter().position(|byte| *byte == b'\n');
    *searched = found.map_or(bytes.len(), |place| from + place);
    found.map(|place| from + place + 1)
}

fn check_data(data: &[u8]) -> Result<(), Malformed> {
    if data.ends_with(b"\r\n") {
        return Ok(());
    }
    let why = "a block of data does not end where its line says".to_string();
    Err(Malformed { why, answer: BAD_DATA.to_vec() })
}

/// What the words of a command mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Keys, from this word on.
    Keys(usize),
    /// A key, perhaps arguments, perhaps `noreply`.
    Key,
    /// So many words, perhaps `noreply`, and data.
    Data(usize),
    /// A key and flags.
    Meta,
    /// A key, a length, flags, and data.
    MetaData,
    /// Arguments, perhaps `noreply`.
    Other,
    /// Arguments that mean nothing here.
    Opaque,
}

/// Reads a line, its end included.
fn command(line: &[u8], max_frame: usize) -> Result<Command, Malformed> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        let why = "a line has a NUL or a CR in it".to_string();
        return Err(Malformed { why, answer: BAD_LINE.to_vec() });
    }
    let mut words: Vec<&[u8]> =
        text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let local = |action| Request {
        action,
        replies: Count::Exactly(0),
        shape: Shape::default(),
        binding: Binding::Shared,
        idempotent: false,
        last: false,
        waits: false,
    };
    let here = |request, data| Ok(Command { request, line: line.len(), instead: None, data });
    let Some((kind, form, idempotent)) = known(&words) else {
        let action = match words.first() {
            Some(&b"quit") => Action::AnswerAndClose(Vec::new()),
            Some(&b"shutdown") => Action::Answer(NO_SHUTDOWN.to_vec()),
            _ => Action::Answer(UNKNOWN.to_vec()),
        };
        let last = matches!(action, Action::AnswerAndClose(_));
        return here(Request { last, ..local(action) }, 0);
    };
    let told = take_silence(&mut words, form);
    let data = match form {
        Form::Data(_) => data(words.get(4), max_frame)?,
        Form::MetaData => data(words.get(2), max_frame)?,
        _ => 0,
    };
    if !is_sound(&words, form) {
        // As memcached would answer, and its data, if it has any, is skipped.
        let action = match told {
            Told::Nothing => Action::Skip,
            Told::All | Told::News => Action::Answer(BAD_LINE.to_vec()),
        };
        return here(local(action), data);
    }
    let binding = match kind {
        Kind::Done if words[0] == b"watch" => Binding::Tunnel("watch"),
        // memcached refuses it behind a request that it is still answering.
        Kind::Dump => Binding::Exclusive("a dump"),
        _ => Binding::Shared,
    };
    let request = Request {
        action: Action::Forward,
        replies: match binding {
            Binding::Tunnel(_) => Count::Unknown,
            _ => Count::Exactly(1),
        },
        shape: Asked { kind, told }.shape(),
        binding,
        idempotent,
        last: false,
        waits: false,
    };
    let plain = words.iter().map(|word| word.len() + 1).sum::<usize>() + 1;
    let instead = (plain != line.len() || !line.ends_with(b"\r\n")).then(|| {
        let mut instead = words.join(&b' ');
        instead.extend_from_slice(b"\r\n");
        instead
    });
    Ok(Command { request, line: line.len(), instead, data })
}

/// The replies of a command that goes on, what its words mean, and whether it is idempotent.
fn known(words: &[&[u8]]) -> Option<(Kind, Form, bool)> {
    let second = words.get(1).copied().unwrap_or_default();
    Some(match *words.first()? {
        b"get" | b"gets" => (Kind::Values, Form::Keys(1), true),
        b"gat" | b"gats" => (Kind::Values, Form::Keys(2), true),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" => {
            (Kind::Stored, Form::Data(5), false)
        }
        b"cas" => (Kind::Stored, Form::Data(6), false),
        b"delete" => (Kind::Deleted, Form::Key, false),
        b"incr" | b"decr" => (Kind::Number, Form::Key, false),
        b"touch" => (Kind::Touched, Form::Key, true),
        b"mg" => {
            // A win for recaching is given once.
            let wins = words.iter().skip(2).any(|flag| matches!(flag[0], b'N' | b'R'));
            (Kind::MetaGet, Form::Meta, !wins)
        }
        b"ms" => (Kind::MetaSet, Form::MetaData, false),
        b"md" => (Kind::MetaDelete, Form::Meta, false),
        b"ma" => (Kind::MetaArithmetic, Form::Meta, false),
        b"me" => (Kind::MetaDebug, Form::Opaque, true),
        b"mn" => (Kind::MetaNoop, Form::Opaque, true),
        b"version" => (Kind::Version, Form::Opaque, true),
        b"stats" => (Kind::Stats, Form::Opaque, second != b"reset"),
        b"watch" => (Kind::Done, Form::Opaque, false),
        b"lru_crawler" => match second {
            b"metadump" | b"mgdump" => (Kind::Dump, Form::Other, false),
            b"enable" | b"disable" | b"sleep" | b"tocrawl" | b"crawl" => {
                (Kind::Done, Form::Other, false)
            }
            // Newer ones take `meta` for `metadump`, and what then comes is no single line.
            _ => return None,
        },
        b"flush_all" | b"verbosity" | b"cache_memlimit" | b"lru" | b"slabs" => {
            (Kind::Done, Form::Other, false)
        }
        _ => return None,
    })
}

/// Takes `noreply` or `q` off the words.
fn take_silence(words: &mut Vec<&[u8]>, form: Form) -> Told {
    let (needed, flags) = match form {
        Form::Data(needed) => (needed, None),
        Form::Key => (2, None),
        Form::Other => (1, None),
        Form::Meta => (2, Some(2)),
        Form::MetaData => (3, Some(3)),
        Form::Keys(_) | Form::Opaque => return Told::All,
    };
    let before = words.len();
    if let Some(flags) = flags {
        let mut place = 0;
        words.retain(|word| {
            place += 1;
            place <= flags || word[0] != b'q'
        });
        return if words.len() < before { Told::News } else { Told::All };
    }
    if words.len() > needed && words.last() == Some(&&b"noreply"[..]) {
        words.pop();
        return Told::Nothing;
    }
    Told::All
}

/// The length of the data that follows a line, with its CRLF.
fn data(length: Option<&&[u8]>, max_frame: usize) -> Result<usize, Malformed> {
    let Some(length) = length.and_then(|word| number::<u64>(word)) else {
        // Where its data ends, and where the next command begins, nobody knows.
        let why = "a line does not say how long its data is".to_string();
        return Err(Malformed { why, answer: BAD_LINE.to_vec() });
    };
    let most = max_frame.min(i32::MAX as usize - 2);
    match usize::try_from(length).ok().filter(|length| *length <= most) {
        Some(length) => Ok(length + 2),
        None => {
            let why = format!("data of {length} bytes is longer than {most} bytes");
            Err(Malformed { why, answer: TOO_LARGE.to_vec() })
        }
    }
}

/// Whether memcached, of whatever version, will read of this line what was read here, and answer it alone: a `get` that
/// it refuses for its key makes it throw away the replies that are still to be sent to requests before it.
fn is_sound(words: &[&[u8]], form: Form) -> bool {
    let is_key = |word: Option<&&[u8]>| word.is_some_and(|word| word.len() <= KEY);
    // What memcached would take for the word, and then not reply, or not reply if it comes to an error.
    let silent = |words: &[&[u8]]| words.contains(&&b"noreply"[..]);
    match form {
        Form::Keys(first) => {
            let Some(keys) = words.get(first..).filter(|keys| !keys.is_empty()) else {
                return false;
            };
            keys.iter().all(|key| is_key(Some(key))) && !(first == 1 && silent(keys))
        }
        Form::Key => is_key(words.get(1)) && !silent(&words[words.len() - 1..]),
        Form::Data(needed) => {
            words.len() == needed
                && is_key(words.get(1))
                && number::<u32>(words[2]).is_some()
                && number::<i32>(words[3]).is_some()
                && words[5..].iter().all(|word| number::<u64>(word).is_some())
        }
        Form::Meta => is_key(words.get(1)) && words.len() <= META_WORDS,
        Form::MetaData => {
            let flags = words.get(3..).unwrap_or_default();
            is_key(words.get(1))
                && words.len() <= META_WORDS
                && flags.iter().all(|flag| flag[0].is_ascii_alphabetic())
        }
        Form::Other => !silent(&words[words.len() - 1..]),
        Form::Opaque => true,
    }
}

/// A number as memcached reads it too: digits, and before them nothing but a minus.
fn number<T: FromStr>(word: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(word).ok().filter(|text| !text.starts_with('+'))?;
    text.parse().ok()
}

/// Replies of one trunk.
struct Answers {
    max_frame: usize,
    /// The bytes up to here were read, and belong to the reply.
    read: usize,
    /// From `read` on there is no LF before this place.
    searched: usize,
    /// Data that follows what was read, with its CRLF.
    data: usize,
    /// The reply ends behind the data.
    data_ends: bool,
    /// The reply is longer than `WHOLE`.
    long: bool,
    /// A part of it was given.
    begun: bool,
    /// What is known of it.
    meaning: Reply,
}

/// What was found next in a reply.
enum Step {
    /// Nothing: its next part has not come.
    Waits,
    Goes,
    Ends,
}

/// What a line says.
enum Line {
    /// More follows.
    Goes,
    /// So much data follows, and then the end or more lines.
    Data {
        length: usize,
        ends: bool,
    },
    Ends,
}

impl Replies for Answers {
    fn next(
        &mut self,
        bytes: &[u8],
        due: Option<Shape>,
    ) -> Result<Option<Piece<Reply>>, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(due) = due else {
            return Err(Malformed::new("something came that nobody asked for"));
        };
        let asked = Asked::of(due)?;
        let ends = loop {
            // Of a long reply something goes ahead, so that it is never one piece, even if all of it has come.
            if self.long && (self.read >= WHOLE || !self.begun && self.read > 0) {
                break false;
            }
            match self.step(bytes, asked) {
                Ok(Step::Goes) => {}
                Ok(Step::Ends) => break true,
                Ok(Step::Waits) if self.long && self.read > 0 => break false,
                Ok(Step::Waits) => return Ok(None),
                // What came before is good.
                Err(_) if self.long && self.read > 0 => break false,
                Err(malformed) => return Err(malformed),
            }
        };
        let begins = (!self.begun).then_some(self.meaning);
        let piece = Piece { bytes: self.read, begins, ends, instead: None };
        if ends {
            *self = Answers::new(self.max_frame);
        } else {
            self.begun = true;
            self.searched = self.searched.saturating_sub(self.read);
            self.read = 0;
        }
        Ok(Some(piece))
    }
}

impl Answers {
    fn new(max_frame: usize) -> Answers {
        Answers {
            max_frame,
            read: 0,
            searched: 0,
            data: 0,
            data_ends: false,
            long: false,
            begun: false,
            meaning: Reply::PLAIN,
        }
    }

    /// Reads one line or what has come of its data.
    fn step(&mut self, bytes: &[u8], asked: Asked) -> Result<Step, Malformed> {
        let rest = bytes.get(self.read..).unwrap_or_default();
        if self.data > 0 {
            if rest.len() >= self.data {
                if !rest[..self.data].ends_with(b"\r\n") {
                    return Err(Malformed::new("a value does not end where its line says"));
                }
                self.read += self.data;
                self.data = 0;
                return Ok(if self.data_ends { Step::Ends } else { Step::Goes });
            }
            let part = if self.long { rest.len().min(self.data - 2) } else { 0 };
            self.read += part;
            self.data -= part;
            return Ok(if part > 0 { Step::Goes } else { Step::Waits });
        }
        self.searched = self.searched.max(self.read);
        let end = line_end(bytes, &mut self.searched);
        if end.unwrap_or(bytes.len()).saturating_sub(self.read) > REPLY_LINE {
            return Err(Malformed::new(format!(
                "a line of a reply is longer than {REPLY_LINE} bytes"
            )));
        }
        let Some(end) = end else { return Ok(Step::Waits) };
        if end > WHOLE && !self.long {
            // First what came before: there is something, for no line is so long.
            self.long = true;
            return Ok(Step::Goes);
        }
        let line = &bytes[self.read..end - 1];
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            // memcached's dumps are like that.
            None if asked.kind == Kind::Dump => line,
            None => return Err(Malformed::new("a line of a reply has no CR before its LF")),
        };
        let line = self.line(line, asked)?;
        self.read = end;
        Ok(match line {
            Line::Goes => Step::Goes,
            Line::Ends => Step::Ends,
            Line::Data { length, ends } => {
                (self.data, self.data_ends) = (length + 2, ends);
                self.long |= self.read + self.data > WHOLE;
                Step::Goes
            }
        })
    }

    /// Understands a line.
    fn line(&mut self, line: &[u8], asked: Asked) -> Result<Line, Malformed> {
        let Asked { kind, told } = asked;
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let code = words.next().unwrap_or_default();
        self.meaning.silent = told == Told::Nothing;
        // It may come in place of any reply, and of the rest of one.
        if matches!(code, b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR") {
            self.meaning.reusable = !FAREWELLS.contains(&line);
            if self.begun && !self.meaning.reusable {
                return Err(Malformed::new("a reply that had begun is broken off"));
            }
            return Ok(Line::Ends);
        }
        let nominal = match kind {
            Kind::MetaGet => code == b"EN",
            Kind::MetaSet | Kind::MetaDelete => code == b"HD",
            Kind::MetaArithmetic => matches!(code, b"HD" | b"VA"),
            _ => false,
        };
        self.meaning.silent |= told == Told::News && nominal;
        let ends = match kind {
            Kind::Values if code == b"VALUE" => {
                let length = self.length(words.nth(2))?;
                return Ok(Line::Data { length, ends: false });
            }
            Kind::MetaGet | Kind::MetaArithmetic if code == b"VA" => {
                let length = self.length(words.next())?;
                return Ok(Line::Data { length, ends: true });
            }
            Kind::Stats if matches!(code, b"STAT" | b"ITEM" | b"PREFIX") => return Ok(Line::Goes),
            // Since some version, `OK` stands in front.
            Kind::Dump if matches!(code, b"mg" | b"OK") || code.starts_with(b"key=") => {
                return Ok(Line::Goes);
            }
            Kind::Values => code == b"END",
            Kind::Stored => matches!(code, b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND"),
            Kind::Deleted => matches!(code, b"DELETED" | b"NOT_FOUND"),
            Kind::Touched => matches!(code, b"TOUCHED" | b"NOT_FOUND"),
            // Shorter than it was, it may have spaces behind it.
            Kind::Number => {
                code == b"NOT_FOUND" || number::<u64>(code).is_some() && words.next().is_none()
            }
            Kind::Version => code == b"VERSION",
            Kind::Done => {
                matches!(
                    code,
                    b"OK"
                        | b"BUSY"
                        | b"BADCLASS"
                        | b"NOSPARE"
                        | b"NOTFULL"
                        | b"UNSAFE"
                        | b"SAME"
                        | b"NOTSTARTED"
                        | b"MEMLIMIT_TOO_SMALL"
                        | b"MEMLIMIT_ADJUST_FAILED"
                )
            }
            Kind::Stats => matches!(code, b"END" | b"RESET" | b"OK"),
            Kind::Dump => matches!(code, b"END" | b"EN" | b"BUSY" | b"BADCLASS" | b"NOTSTARTED"),
            Kind::MetaGet => matches!(code, b"HD" | b"EN"),
            Kind::MetaSet => matches!(code, b"HD" | b"NS" | b"EX" | b"NF"),
            Kind::MetaDelete => matches!(code, b"HD" | b"NF" | b"EX"),
            Kind::MetaArithmetic => matches!(code, b"HD" | b"NF" | b"NS" | b"EX"),
            Kind::MetaDebug => matches!(code, b"ME" | b"EN"),
            Kind::MetaNoop => code == b"MN",
        };
        if ends {
            return Ok(Line::Ends);
        }
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
        Err(Malformed::new(format!("{shown:?} is no line of a reply to what was asked ({kind:?})")))
    }

    /// The length of a value.
    fn length(&self, word: Option<&[u8]>) -> Result<usize, Malformed> {
        let length = word.and_then(number::<u64>);
        let Some(length) = length else {
            return Err(Malformed::new("a reply does not say how long its value is"));
        };
        let most = self.max_frame.min(i32::MAX as usize);
        match usize::try_from(length).ok().filter(|length| *length <= most) {
            Some(length) => Ok(length),
            None => Err(Malformed::new(format!(
                "a value of {length} bytes is longer than {most} bytes"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::splits::{Read, every_split, replies, requests, same};
    use super::*;
    use proptest::prelude::*;

    /// What is passed on of each request, or what it is answered here.
    fn show(read: &Read<Request>) -> Vec<String> {
        let show = |(frame, request): &(Vec<u8>, Request)| match &request.action {
            Action::Forward => String::from_utf8_lossy(frame).into_owned(),
            Action::Skip => "(skip)".to_string(),
            Action::Answer(answer) => format!("= {}", String::from_utf8_lossy(answer)),
            Action::AnswerAndClose(answer) => format!("close {}", String::from_utf8_lossy(answer)),
        };
        read.frames.iter().map(show).collect()
    }

    fn read_requests(bytes: &[u8]) -> Read<Request> {
        let framing = Memcached { max_frame: 100_000 };
        every_split(bytes, |bytes, lengths| requests(&framing, bytes, lengths))
    }

    /// The one request of `line`.
    fn request(line: &str) -> Request {
        let mut read = requests(&Memcached::default(), line.as_bytes(), &[]);
        assert_eq!(read.frames.len(), 1, "{line:?}: {read:?}");
        read.frames.remove(0).1
    }

    /// The replies to these requests, as the client sees them, each with what follows from it.
    fn read_replies(asked: &[&str], bytes: &[u8]) -> Read<Reply> {
        let due: Vec<_> = asked.iter().map(|line| request(line).shape).collect();
        let framing = Memcached { max_frame: 100_000 };
        every_split(bytes, |bytes, lengths| replies(&framing, bytes, lengths, &due))
    }

    const KEY_250: [u8; 250] = [b'k'; 250];

    #[test]
    fn a_request_goes_on_in_its_plain_form() {
        let check = |line: &str, passed: &str| {
            let read = read_requests(line.as_bytes());
            assert_eq!((show(&read), read.error), (vec![passed.to_string()], None), "{line:?}");
        };
        let same = |line: &str| check(line, line);
        for line in [
            "get a\r\n",
            "get a b c\r\n",
            "gets a\r\n",
            "gat 0 a b\r\n",
            "gats -1 a\r\n",
            "set a 0 0 1\r\nx\r\n",
            "set noreply 4294967295 -1 2\r\n\r\n\r\n",
            "add a 0 0 0\r\n\r\n",
            "replace a 0 0 8\r\nget b\r\n.\r\n",
            "append a 0 0 1\r\nx\r\n",
            "prepend a 0 0 1\r\nx\r\n",
            "cas a 0 0 1 18446744073709551615\r\nx\r\n",
            "delete a\r\n",
            "delete a 0\r\n",
            "incr a 5\r\n",
            "decr a 5\r\n",
            "touch a 10\r\n",
            "touch noreply 10\r\n",
            "gat 10 noreply\r\n",
            "stats\r\n",
            "stats reset\r\n",
            "stats detail dump\r\n",
            "version\r\n",
            "verbosity 1\r\n",
            "flush_all\r\n",
            "flush_all 10\r\n",
            "watch fetchers\r\n",
            "lru_crawler enable\r\n",
            "lru_crawler metadump all\r\n",
            "lru mode flat\r\n",
            "cache_memlimit 64\r\n",
            "slabs reassign 1 2\r\n",
            "mg a\r\n",
            "mg a v t k Oqueue\r\n",
            "ms a 1\r\nx\r\n",
            "ms q 1 T60 Oq\r\nx\r\n",
            "md q\r\n",
            "ma a N0 J5 v\r\n",
            "me a\r\n",
            "mn\r\n",
        ] {
            same(line);
        }
        // However it is written.
        check("get a\n", "get a\r\n");
        check("get  a   b \r\n", "get a b\r\n");
        check("  get  a\n", "get a\r\n");
        check("set a 0 0 1\nx\r\n", "set a 0 0 1\r\nx\r\n");
        check("mn\n", "mn\r\n");
        // Without what would keep its reply back.
        check("set a 0 0 1 noreply\r\nx\r\n", "set a 0 0 1\r\nx\r\n");
        check("cas a 0 0 1 7 noreply\r\nx\r\n", "cas a 0 0 1 7\r\nx\r\n");
        check("delete a noreply\r\n", "delete a\r\n");
        check("delete a 0 noreply\r\n", "delete a 0\r\n");
        check("incr a 1 noreply\n", "incr a 1\r\n");
        check("touch a 1 noreply\r\n", "touch a 1\r\n");
        check("flush_all noreply\r\n", "flush_all\r\n");
        check("flush_all 0 noreply\r\n", "flush_all 0\r\n");
        check("verbosity 1 noreply\r\n", "verbosity 1\r\n");
        check("slabs automove 1 noreply\r\n", "slabs automove 1\r\n");
        check("mg a q v\r\n", "mg a v\r\n");
        check("mg a v q\r\n", "mg a v\r\n");
        check("ms a 1 q T0\r\nx\r\n", "ms a 1 T0\r\nx\r\n");
        check("md a q q1\r\n", "md a\r\n");
        check("ma a q\r\n", "ma a\r\n");
    }

    #[test]
    fn what_must_not_go_on_is_answered_here() {
        let check = |lines: &str, answers: &[&str]| {
            let read = read_requests(lines.as_bytes());
            assert_eq!(
                (show(&read), read.error),
                (answers.iter().map(ToString::to_string).collect(), None),
                "{lines:?}"
            );
            assert!(read.frames.iter().all(|(_, request)| request.binding == Binding::Shared));
        };
        const BAD: &str = "= CLIENT_ERROR bad command line format\r\n";
        const UNKNOWN: &str = "= ERROR\r\n";
        check("\r\n\n  \r\n", &[UNKNOWN; 3]);
        check("nonsense\r\nGET a\r\nmx a\r\ngetx a\r\n", &[UNKNOWN; 4]);
        check("lru_crawler\r\nlru_crawler m all\r\nmisbehave\r\n", &[UNKNOWN; 3]);
        check(
            "shutdown\r\nshutdown graceful\r\n",
            &["= SERVER_ERROR trunkline: shutdown is refused\r\n"; 2],
        );
        check("quit\r\n", &["close "]);
        assert!(request("quit\r\n").last);
        // What one memcached and another would read differently.
        check("get\r\ngat 1\r\ngets \r\n", &[BAD; 3]);
        check("get noreply\r\ngets a noreply b\r\n", &[BAD; 2]);
        check("delete noreply\r\n", &[BAD]);
        check("delete noreply noreply\r\n", &["(skip)"]);
        check("delete\r\nincr\r\nmg\r\n", &[BAD; 3]);
        check("incr noreply noreply\r\n", &["(skip)"]);
        check("flush_all noreply noreply\r\n", &["(skip)"]);
        // Its data is skipped.
        check("set a x 0 7\r\nget b\r\n\r\nmn\r\n", &[BAD, "mn\r\n"]);
        check("set a 0 0 1 2\r\nx\r\nmn\r\n", &[BAD, "mn\r\n"]);
        check("set a 4294967296 0 1\r\nx\r\n", &[BAD]);
        check("set a 0 2147483648 1\r\nx\r\n", &[BAD]);
        check("set a +1 0 1\r\nx\r\n", &[BAD]);
        check("set a 0 0 1 no\r\nx\r\n", &[BAD]);
        check("set a x 0 1 noreply\r\nx\r\nmn\r\n", &["(skip)", "mn\r\n"]);
        check("cas a 0 0 1\r\nx\r\n", &[BAD]);
        check("cas a 0 0 1 noreply\r\nx\r\n", &[BAD]);
        check("ms a 1 *\r\nx\r\nmn\r\n", &[BAD, "mn\r\n"]);
        check(
            "ms a 1 a b c d e f g h i j k l m n o p\r\nx\r\n",
            &["ms a 1 a b c d e f g h i j k l m n o p\r\nx\r\n"],
        );
        check("ms a 1 a b c d e f g h i j k l m n o p s\r\nx\r\n", &[BAD]);
        // Keys.
        let key = String::from_utf8_lossy(&KEY_250).into_owned();
        for line in [
            "get K\r\n",
            "get a K\r\n",
            "delete K\r\n",
            "mg K v\r\n",
            "set K 0 0 1\r\nx\r\n",
            "ms K 1\r\nx\r\n",
            "gat 1 a K\r\n",
        ] {
            let good = line.replace('K', &key);
            check(&good, &[&good]);
            check(&line.replace('K', &format!("{key}k")), &[BAD]);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_malformed() {
        let check = |bytes: &[u8], why: &str, answer: &str| {
            let read = read_requests(bytes);
            let error = read.error.unwrap_or_else(|| panic!("{bytes:?} is no error"));
            assert!(error.why.contains(why), "{error}");
            assert_eq!(String::from_utf8_lossy(&error.answer), answer);
        };
        const BAD: &str = "CLIENT_ERROR bad command line format\r\n";
        check(
            b"\x80\0\0\0",
            "mode tunnel carries it",
            "SERVER_ERROR trunkline: the binary protocol is not spoken here\r\n",
        );
        check(b"set a 0 0 1\r\nxy\r\n", "does not end", "CLIENT_ERROR bad data chunk\r\n");
        check(b"set a 0 0 1\r\nx\n\n", "does not end", "CLIENT_ERROR bad data chunk\r\n");
        check(b"mn\r\nms a 2\r\nx\r\n..", "does not end", "CLIENT_ERROR bad data chunk\r\n");
        check(b"set a 0 0 -1\r\n", "how long", BAD);
        check(b"set a 0 0\r\n", "how long", BAD);
        check(b"set a 0 0 99999999999999999999\r\n", "how long", BAD);
        check(b"ms a\r\n", "how long", BAD);
        check(b"ms a x\r\n", "how long", BAD);
        let large = "SERVER_ERROR object too large for cache\r\n";
        check(b"set a 0 0 100001\r\n", "100001 bytes is longer than 100000", large);
        check(b"ms a 18446744073709551615\r\n", "longer than", large);
        check(b"get a\0b\r\n", "NUL", BAD);
        check(b"get a\r\r\n", "CR", BAD);
        // Lines.
        let long = "CLIENT_ERROR line is too long\r\n";
        check(&[b'x'; 2049], "longer than 2048", long);
        check(&[b"mg ".as_slice(), &[b'x'; 2044], b"\r\n"].concat(), "longer than 2048", long);
        let keys = |bytes: usize| [b"gets".as_slice(), &b" a".repeat(bytes)].concat();
        check(&keys(32 << 10), "longer than 65536", long);
        let most = [keys((32 << 10) - 3), b"\r\n".to_vec()].concat();
        let read = read_requests(&most);
        assert_eq!((read.frames.len(), read.error), (1, None));
        let read = requests(&Memcached::default(), &[b' '; 2048], &[]);
        assert_eq!((read.frames.len(), read.error), (0, None));
    }

    #[test]
    fn a_long_set_comes_in_pieces_and_only_its_line_is_replaced() {
        let line =
            |noreply: &str, length: usize| format!("set a 0 0 {length}{noreply}\r\n").into_bytes();
        // 13 bytes without noreply, 17 with five digits.
        for length in [WHOLE - 19, WHOLE - 18, WHOLE - 17, 60_000] {
            let data = [vec![b'\n'; length], b"\r\n".to_vec()].concat();
            let bytes = [line("", length), data.clone()].concat();
            let read = read_requests(&[bytes.clone(), b"mn\r\n".to_vec()].concat());
            assert_eq!((read.frames.len(), read.error), (2, None));
            assert_eq!(read.frames[0].0, bytes);
            let piece =
                Memcached::default().requests().next(&bytes).expect("right").expect("a piece");
            assert_eq!(piece.ends, bytes.len() <= WHOLE, "{length}");
            let quiet = [line(" noreply", length), data].concat();
            let read = read_requests(&quiet);
            assert_eq!(read.frames[0].0, bytes);
            // Only the end of it is wrong.
            let wrong = [&bytes[..bytes.len() - 1], b"?"].concat();
            let read = read_requests(&wrong);
            assert_eq!((read.frames.len(), read.error.is_some()), (0, true));
        }
    }

    #[test]
    fn each_request_says_what_it_is() {
        let check = |line: &str, binding: Binding, idempotent: bool| {
            let request = request(line);
            let replies = match binding {
                Binding::Tunnel(_) => Count::Unknown,
                _ => Count::Exactly(1),
            };
            assert_eq!(
                (request.binding, request.idempotent, request.replies, request.last),
                (binding, idempotent, replies, false),
                "{line}"
            );
        };
        for line in [
            "get a",
            "gets a",
            "gat 0 a",
            "touch a 0",
            "mg a v",
            "me a",
            "mn",
            "version",
            "stats",
            "stats items",
        ] {
            check(&format!("{line}\r\n"), Binding::Shared, true);
        }
        for line in [
            "delete a",
            "incr a 1",
            "decr a 1",
            "mg a N30",
            "mg a v R30",
            "md a",
            "ma a",
            "stats reset",
            "flush_all",
            "lru_crawler crawl all",
            "verbosity 1",
            "cache_memlimit 9",
            "set a 0 0 0\r\n",
            "cas a 0 0 0 1\r\n",
            "ms a 0\r\n",
        ] {
            check(&format!("{line}\r\n"), Binding::Shared, false);
        }
        check("lru_crawler metadump all\r\n", Binding::Exclusive("a dump"), false);
        check("watch\r\n", Binding::Tunnel("watch"), false);
    }

    #[test]
    fn a_shape_says_what_was_asked_for() {
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            for told in TOLD {
                let asked = Asked { kind, told };
                assert_eq!(Asked::of(asked.shape()), Ok(asked));
            }
        }
        assert!(Asked::of(Shape(15)).is_err() && Asked::of(Shape(0x300)).is_err());
    }

    /// Requests, and a reply to each.
    const CONVERSATION: &[(&str, &str)] = &[
        ("get a\r\n", "END\r\n"),
        ("get a b\r\n", "VALUE a 0 5\r\nEND\r\n\r\nVALUE b 7 0\r\n\r\nEND\r\n"),
        ("gets a\r\n", "VALUE a 0 1 12\r\nx\r\nEND\r\n"),
        ("gat 0 a\r\n", "VALUE a 0 7\r\nERROR\r\n\r\nEND\r\n"),
        ("get a b\r\n", "VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n"),
        ("set a 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("cas a 0 0 1 1\r\nx\r\n", "EXISTS\r\n"),
        ("cas a 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
        ("set a 0 0 1\r\nx\r\n", "SERVER_ERROR object too large for cache\r\n"),
        ("delete a\r\n", "DELETED\r\n"),
        ("delete a\r\n", "NOT_FOUND\r\n"),
        ("incr a 1\r\n", "18446744073709551615\r\n"),
        ("decr a 1\r\n", "9 \r\n"),
        ("decr a 1\r\n", "NOT_FOUND\r\n"),
        ("incr a 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        ("touch a 1\r\n", "TOUCHED\r\n"),
        ("stats\r\n", "STAT pid 1\r\nSTAT version 1.6.18\r\nEND\r\n"),
        ("stats items\r\n", "END\r\n"),
        ("stats cachedump 1 1\r\n", "ITEM a [1 b; 0 s]\r\nEND\r\n"),
        ("stats detail dump\r\n", "PREFIX a get 1 hit 0 set 1 del 0\r\nEND\r\n"),
        ("stats detail on\r\n", "OK\r\n"),
        ("stats reset\r\n", "RESET\r\n"),
        ("version\r\n", "VERSION 1.6.18\r\n"),
        ("verbosity 1\r\n", "OK\r\n"),
        ("slabs reassign 1 2\r\n", "BUSY currently processing reassign request\r\n"),
        ("cache_memlimit 1\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"),
        ("lru_crawler crawl 99\r\n", "BADCLASS invalid class id\r\n"),
        (
            "lru_crawler metadump all\r\n",
            "OK\r\nkey=a exp=-1 la=1 cas=2 fetch=no\nkey=END exp=-1\nEND\r\n",
        ),
        ("lru_crawler mgdump all\r\n", "OK\r\nmg a\r\nmg END\r\nEN\r\n"),
        ("lru_crawler metadump all\r\n", "key=a exp=-1\nERROR locked try again later\r\n"),
        ("mg a v\r\n", "VA 4 t-1 kEN\r\nEN\r\n\r\n"),
        ("mg a t\r\n", "HD t-1\r\n"),
        ("mg a v q\r\n", "VA 0 q\r\n\r\n"),
        ("mg a k O1\r\n", "EN ka O1\r\n"),
        ("ms a 1\r\nx\r\n", "HD\r\n"),
        ("ms a 1 q\r\nx\r\n", "NS Oq\r\n"),
        ("md a q\r\n", "NF\r\n"),
        ("md a\r\n", "EX k\r\n"),
        ("ma a q\r\n", "NF\r\n"),
        ("ma a v\r\n", "VA 1\r\n1\r\n"),
        ("ma a q\r\n", "CLIENT_ERROR invalid or duplicate flag\r\n"),
        ("me a\r\n", "ME a exp=-1 la=0 cas=1 fetch=no cls=1 size=63\r\n"),
        ("me a\r\n", "EN\r\n"),
        ("mn\r\n", "MN\r\n"),
    ];

    /// The same, of which the client is told nothing.
    const SILENT: &[(&str, &str)] = &[
        ("set a 0 0 1 noreply\r\nx\r\n", "STORED\r\n"),
        ("set a 0 0 1 noreply\r\nx\r\n", "SERVER_ERROR object too large for cache\r\n"),
        ("delete a noreply\r\n", "NOT_FOUND\r\n"),
        ("incr a 1 noreply\r\n", "5\r\n"),
        ("flush_all noreply\r\n", "OK\r\n"),
        ("mg a q\r\n", "EN\r\n"),
        ("mg a q O1\r\n", "EN O1\r\n"),
        ("ms a 1 q\r\nx\r\n", "HD O1\r\n"),
        ("md a q\r\n", "HD\r\n"),
        ("ma a q\r\n", "HD\r\n"),
        ("ma a q v\r\n", "VA 2\r\n10\r\n"),
    ];

    #[test]
    fn every_reply_of_a_conversation_is_read_and_shown_as_it_was_asked_for() {
        let both = CONVERSATION.iter().map(|line| (line, false));
        let both: Vec<_> = both.chain(SILENT.iter().map(|line| (line, true))).collect();
        let asked: Vec<_> = both.iter().map(|((asked, _), _)| *asked).collect();
        let bytes: String = both.iter().map(|((_, reply), _)| *reply).collect();
        let read = read_replies(&asked, bytes.as_bytes());
        assert_eq!(read.error, None);
        assert_eq!(read.frames.len(), both.len());
        for ((frame, meaning), ((asked, reply), silent)) in read.frames.iter().zip(both) {
            assert_eq!(String::from_utf8_lossy(frame), *reply, "{asked:?}");
            assert_eq!(*meaning, Reply { silent, ..Reply::PLAIN }, "{asked:?} {reply:?}");
        }
        let read = read_requests(asked.concat().as_bytes());
        assert_eq!((read.frames.len(), read.error), (asked.len(), None));
    }

    #[test]
    fn what_is_no_reply_to_what_was_asked_is_malformed() {
        let check = |asked: &str, bytes: &str, why: &str| {
            let read = read_replies(&[asked], bytes.as_bytes());
            let error = read.error.unwrap_or_else(|| panic!("{asked:?} {bytes:?} is no error"));
            assert!(error.why.contains(why), "{error}");
            assert!(error.answer.is_empty());
        };
        for ((asked, _), wrong) in
            CONVERSATION.iter().zip(["MN!\r\n", "OK?\r\n"].into_iter().cycle())
        {
            check(asked, wrong, "is no line of a reply");
        }
        check(
            "get a\r\n",
            "STORED\r\n",
            "\"STORED\" is no line of a reply to what was asked (Values)",
        );
        check("get a\r\n", "VA 1\r\nx\r\n", "no line of a reply");
        check("set a 0 0 0\r\n\r\n", "END\r\n", "no line of a reply");
        check("mn\r\n", "HD\r\n", "no line of a reply");
        check("incr a 1\r\n", "1 2\r\n", "no line of a reply");
        check("incr a 1\r\n", "-1\r\n", "no line of a reply");
        check("incr a 1\r\n", "\r\n", "no line of a reply");
        check("get a\r\n", "END\n", "no CR");
        check("get a\r\n", "VALUE a 0 1\r\nxy\r\nEND\r\n", "does not end");
        check("get a\r\n", "VALUE a 0\r\nx\r\nEND\r\n", "how long");
        check("get a\r\n", "VALUE a 0 -1\r\nx\r\nEND\r\n", "how long");
        check("get a\r\n", "VALUE a 0 99999999999999999999\r\n", "how long");
        check("get a\r\n", "VALUE a 0 100001\r\n", "longer than 100000");
        check("mg a v\r\n", "VA 100001\r\n", "longer than 100000");
        check("get a\r\n", &"x".repeat(8193), "longer than 8192");
        check("get a\r\n", "END\r\nEND\r\n", "nobody asked for");
        let read = replies(&Memcached::default(), b"ERROR Too many open connections\r\n", &[], &[]);
        assert!(read.error.is_some());
    }

    #[test]
    fn a_trunk_is_not_used_behind_a_farewell() {
        let check = |reply: &str, reusable: bool| {
            let read = read_replies(&["get a\r\n"], reply.as_bytes());
            assert_eq!(read.frames[0].1, Reply { reusable, ..Reply::PLAIN });
        };
        check("ERROR Too many open connections\r\n", false);
        check("SERVER_ERROR out of memory reading request\r\n", false);
        check("SERVER_ERROR out of memory writing get response\r\n", false);
        check("VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory writing get response\r\n", false);
        check("SERVER_ERROR out of memory\r\n", true);
        check("ERROR\r\n", true);
    }

    #[test]
    fn a_long_reply_comes_in_pieces_by_its_length_alone() {
        let framing = Memcached { max_frame: 100_000 };
        let due = request("get a\r\n").shape;
        let value = |length: usize| {
            let head = format!("VALUE a 0 {length:05}\r\n").into_bytes();
            [head, vec![b'\n'; length], b"\r\n".to_vec()].concat()
        };
        let end = b"END\r\n".to_vec();
        let check = |reply: Vec<u8>| {
            let two = [reply.clone(), reply.clone()].concat();
            let read =
                every_split(&two, |bytes, lengths| replies(&framing, bytes, lengths, &[due; 2]));
            assert_eq!((read.frames.len(), read.error), (2, None));
            assert!(read.frames.iter().all(|(frame, _)| *frame == reply));
            let long = reply.len() > WHOLE;
            let piece = framing.replies().next(&two, Some(due)).expect("right").expect("a piece");
            assert_eq!(piece.ends, !long, "{}", reply.len());
            // Nothing is given of a short one before its end.
            let almost =
                framing.replies().next(&reply[..reply.len() - 1], Some(due)).expect("right");
            assert!(almost.is_none() || long, "{}", reply.len());
        };
        for length in [WHOLE - 25, WHOLE - 24, WHOLE - 23, WHOLE - 19, WHOLE - 18, WHOLE, 50_000] {
            check([value(length), end.clone()].concat());
            check([value(7), value(length - 26), end.clone()].concat());
        }
        check([value(0).repeat(2000), end.clone()].concat());
        // An error, even behind much.
        let broken = [value(30_000), b"SERVER_ERROR out of memory\r\n".to_vec()].concat();
        let read = every_split(&broken, |bytes, lengths| replies(&framing, bytes, lengths, &[due]));
        assert_eq!((read.frames.len(), read.error), (1, None));
        let broken = [value(30_000), b"what\r\n".to_vec()].concat();
        let read = every_split(&broken, |bytes, lengths| replies(&framing, bytes, lengths, &[due]));
        assert_eq!((read.frames.len(), read.error.is_some()), (0, true));
        let farewell = [value(30_000), b"ERROR Too many open connections\r\n".to_vec()].concat();
        let read =
            every_split(&farewell, |bytes, lengths| replies(&framing, bytes, lengths, &[due]));
        assert_eq!((read.frames.len(), read.error.is_some()), (0, true));
        // Silent to the last byte.
        let quiet = request("ma a q v\r\n").shape;
        let reply = [b"VA 20000\r\n".to_vec(), vec![b'1'; 20_000], b"\r\n".to_vec()].concat();
        let read =
            every_split(&reply, |bytes, lengths| replies(&framing, bytes, lengths, &[quiet]));
        assert_eq!(read.frames, [(reply, Reply { silent: true, ..Reply::PLAIN })]);
    }

    #[test]
    fn the_client_is_told_of_trouble_unless_it_asked_for_no_reply() {
        let check = |line: &str, error: &str| {
            let said = Memcached::default().error(Trouble::NoBackend, request(line).shape);
            assert_eq!(String::from_utf8_lossy(&said), error);
        };
        check("get a\r\n", "SERVER_ERROR trunkline: no backend accepts\r\n");
        check("mg a q\r\n", "SERVER_ERROR trunkline: no backend accepts\r\n");
        check("set a 0 0 0 noreply\r\n\r\n", "");
        assert!(
            Memcached::default().reset_query().is_none() && Memcached::default().counts_replies()
        );
    }

    /// Bytes that often mean something.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            4 => proptest::sample::select(vec![
                "get", "gets", "set", "cas", "ms", "mg", "ma", "delete", "incr", "stats", "noreply", "q", "a", "0", "1",
                "5", "-1", "VALUE", "VA", "END", "EN", "HD", "STORED", "ERROR", "20000", "quit", "lru_crawler",
                "metadump",
            ])
            .prop_map(|word| word.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        let end = proptest::sample::select(vec![" ", " ", " ", "\r\n", "\r\n", "\n", ""]);
        proptest::collection::vec((word, end), 0..60).prop_map(|words| {
            words
                .into_iter()
                .flat_map(|(word, end)| [word, end.as_bytes().to_vec()].concat())
                .collect()
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_cuts_change_nothing(
            bytes in nearly(),
            kinds in proptest::collection::vec((0..KINDS.len(), 0..TOLD.len()), 30),
            lengths in proptest::collection::vec(1usize..12, 0..60),
        ) {
            let framing = Memcached { max_frame: 30_000 };
            let (one, other) = (requests(&framing, &bytes, &lengths), requests(&framing, &bytes, &[]));
            same(&one, &other, "in these lengths");
            let due: Vec<_> = kinds
                .into_iter()
                .map(|(kind, told)| Asked { kind: KINDS[kind], told: TOLD[told] }.shape())
                .collect();
            let one = replies(&framing, &bytes, &lengths, &due);
            let other = replies(&framing, &bytes, &[], &due);
            same(&one, &other, "in these lengths");
        }

        #[test]
        fn a_conversation_reads_the_same_however_it_is_cut(
            lengths in proptest::collection::vec(1usize..40, 0..200),
        ) {
            let asked: Vec<_> = CONVERSATION.iter().map(|(asked, _)| *asked).collect();
            let due: Vec<_> = asked.iter().map(|line| request(line).shape).collect();
            let bytes: String = CONVERSATION.iter().map(|(_, reply)| *reply).collect();
            let framing = Memcached::default();
            let asked = asked.concat();
            let one = requests(&framing, asked.as_bytes(), &[]);
            same(&one, &requests(&framing, asked.as_bytes(), &lengths), "in these lengths");
            let one = replies(&framing, bytes.as_bytes(), &[], &due);
            same(&one, &replies(&framing, bytes.as_bytes(), &lengths, &due), "in these lengths");
        }
    }
}
