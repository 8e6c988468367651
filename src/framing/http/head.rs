//! Heads: where one ends, how long the body behind it is, and what of it is passed on.

use super::{Fault, Http};

/// The most names in the `Connection` fields of a head.
const MAX_OPTIONS: usize = 32;

/// Room for what is put behind the fields of a head, in bytes; if that is longer, more is made.
const MORE: usize = 64;

/// Looks for the empty line at the end of a head, at each byte once. What no head can have is refused on the way: a line
/// that ends with LF alone (RFC 9112, 2.2, lets a reader accept it), a CR that ends no line, a control character.
#[derive(Debug)]
pub(super) struct Search {
    max_head: usize,
    max_fields: usize,
    /// Bytes that were looked at.
    seen: usize,
    /// Lines that were complete there, and where the next begins.
    lines: usize,
    line: usize,
}

impl Search {
    pub(super) fn new(limits: &Http) -> Search {
        let (max_head, max_fields) = (limits.max_head, limits.max_fields);
        Search { max_head, max_fields, seen: 0, lines: 0, line: 0 }
    }

    /// The length of the head at the beginning of `bytes`, and its lines without the empty one, once it is complete.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
        let come = bytes.len().min(self.max_head);
        let mut at = self.seen;
        while at < come {
            let behind_cr = at > self.line && bytes[at - 1] == b'\r';
            match bytes[at] {
                b'\n' if !behind_cr => return Err(Fault::bad("a line ends with LF alone")),
                b'\n' if at - self.line == 1 => {
                    let lines = self.lines;
                    (self.seen, self.lines, self.line) = (0, 0, 0);
                    return match lines {
                        0 => Err(Fault::bad("an empty line where a head begins")),
                        _ => Ok(Some((at + 1, lines))),
                    };
                }
                b'\n' => {
                    self.lines += 1;
                    self.line = at + 1;
                    // The first is no field.
                    if self.lines > self.max_fields.saturating_add(1) {
                        return Err(Fault::large("the head has too many fields"));
                    }
                }
                _ if behind_cr => return Err(Fault::bad("a CR that ends no line")),
                b'\r' | b'\t' => {}
                byte if byte.is_ascii_control() => {
                    return Err(Fault::bad("a control character in the head"));
                }
                _ => at += plain(&bytes[at + 1..come]),
            }
            at += 1;
        }
        if bytes.len() >= self.max_head {
            return Err(Fault::large("the head is too long"));
        }
        self.seen = self.seen.max(come);
        Ok(None)
    }
}

/// How many bytes these begin with of which none is a control character. Eight are looked at at once: in a word, of those
/// that borrow when something is taken from each, the lowest is one that had less.
fn plain(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, rest) = bytes.as_chunks();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is_delete = word ^ (EACH * 0x7f);
        let below_blank = word.wrapping_sub(EACH * 0x20) & !word;
        let controls = (is_delete.wrapping_sub(EACH) & !is_delete | below_blank) & (EACH * 0x80);
        if controls != 0 {
            return place * size_of::<u64>() + controls.trailing_zeros() as usize / 8;
        }
    }
    let controls = rest.iter().position(u8::is_ascii_control);
    bytes.len() - rest.len() + controls.unwrap_or(rest.len())
}

/// One field, and the line that it is.
struct Field<'a> {
    name: &'a str,
    /// Without the blanks around it.
    value: &'a [u8],
    line: &'a [u8],
}

impl Field<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn says(&self, value: &str) -> bool {
        self.value.eq_ignore_ascii_case(value.as_bytes())
    }
}

/// What a head says of the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Untold,
    Sized(u64),
    Chunked,
}

/// A head whose form is right.
pub(super) struct Head<'a> {
    /// Whether it is of HTTP/1.0.
    pub(super) old: bool,
    /// In bytes.
    size: usize,
    first: &'a [u8],
    fields: Vec<Field<'a>>,
}

/// What is passed on of the fields that concern one connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Passed<'a> {
    /// `Upgrade`.
    pub(super) upgrade: bool,
    /// `TE: trailers`.
    pub(super) te: bool,
    /// The options of a `Connection` field that is put behind the others.
    pub(super) connection: &'a [&'a str],
}

/// What httparse made of a head that [`Search`] has found the end of.
pub(super) fn complete(parsed: httparse::Result<usize>, head: &[u8]) -> Result<(), Fault> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == head.len() => Ok(()),
        Ok(_) => Err(Fault::bad("the head is not complete")),
        Err(error) => Err(Fault::bad(error.to_string())),
    }
}

impl<'a> Head<'a> {
    /// `fields` are those that were read from `bytes`.
    pub(super) fn new(bytes: &'a [u8], old: bool, fields: &[httparse::Header<'a>]) -> Head<'a> {
        // A field is a line and a line a field: a line that goes on in the next one was refused (RFC 9112, 5.2). So it
        // lasts from its name to the next one's; the last to the empty line.
        let size = bytes.len();
        let end = size.saturating_sub(2);
        let begin = |place: usize| {
            fields
                .get(place)
                .map_or(end, |field| field.name.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()))
        };
        let line = |from, to| bytes.get(from..to).unwrap_or_default();
        let first = line(0, begin(0));
        let field = |(place, field): (usize, &httparse::Header<'a>)| {
            let line = line(begin(place), begin(place + 1));
            Field { name: field.name, value: field.value, line }
        };
        Head { old, size, first, fields: fields.iter().enumerate().map(field).collect() }
    }

    /// The values of all fields of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether a field of this name says this.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        self.fields.iter().any(|field| field.is(name) && field.says(value))
    }

    /// RFC 9112, 6.1 to 6.3, of which the strictest is chosen: one plain "chunked", or a length, and never both.
    pub(super) fn length(&self) -> Result<Length, Fault> {
        let mut length = None;
        for value in self.all("content-length") {
            let number = decimal(value)
                .ok_or_else(|| Fault::bad("Content-Length is no decimal number, or too large"))?;
            if length.is_some_and(|length| length != number) {
                return Err(Fault::bad("Content-Length fields that differ"));
            }
            length = Some(number);
        }
        let mut codings = self.all("transfer-encoding");
        let coding = codings.next();
        if codings.next().is_some() {
            return Err(Fault::bad("several Transfer-Encoding fields"));
        }
        match (coding, length) {
            (None, None) => Ok(Length::Untold),
            (None, Some(length)) => Ok(Length::Sized(length)),
            (Some(_), Some(_)) => Err(Fault::bad("both Transfer-Encoding and Content-Length")),
            (Some(_), None) if self.old => Err(Fault::bad("Transfer-Encoding in HTTP/1.0")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
            (Some(_), None) => Err(Fault::bad("a Transfer-Encoding other than chunked")),
        }
    }

    /// What `Connection` says (RFC 9110, 7.6.1).
    pub(super) fn options(&self) -> Result<Options<'a>, Fault> {
        let mut options = Vec::new();
        for value in self.all("connection") {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if is_guarded(option) {
                    return Err(Fault::bad("Connection names a field that is for everybody"));
                }
                if options.len() == MAX_OPTIONS {
                    return Err(Fault::bad("Connection names too many fields"));
                }
                if !option.is_empty() {
                    options.push(option);
                }
            }
        }
        Ok(Options(options))
    }

    /// The head without what concerns one connection only; None if that is how it came.
    pub(super) fn passed_on(&self, options: &Options<'_>, passed: Passed<'_>) -> Option<Vec<u8>> {
        let mut lengths = 0;
        let mut is_kept = |field: &Field<'_>| {
            if field.is("content-length") {
                lengths += 1;
                return lengths == 1; // the others say the same
            }
            if field.is("upgrade") {
                return passed.upgrade;
            }
            if field.is("te") {
                return passed.te && field.says("trailers");
            }
            let of_one_connection =
                ["connection", "keep-alive", "proxy-connection"].iter().any(|name| field.is(name));
            !of_one_connection && !options.has(field.name)
        };
        let mut head = Vec::with_capacity(self.size + MORE);
        head.extend_from_slice(self.first);
        for field in &self.fields {
            if is_kept(field) {
                head.extend_from_slice(field.line);
            }
        }
        // But for the empty line.
        if head.len() + 2 == self.size && passed.connection.is_empty() {
            return None;
        }
        if !passed.connection.is_empty() {
            head.extend_from_slice(b"Connection: ");
            head.extend_from_slice(passed.connection.join(", ").as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Some(head)
    }
}

/// The options of the `Connection` fields.
pub(super) struct Options<'a>(Vec<&'a [u8]>);

impl Options<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Whether the connection stays open behind the message (RFC 9112, 9.3).
    pub(super) fn stays(&self, old: bool) -> bool {
        !self.has("close") && (!old || self.has("keep-alive"))
    }
}

/// A number of decimal digits alone, which no reader's integer is too small for.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number <= i64::MAX as u64).then_some(number)
}

/// Whether the field decides where a message ends, whom it is for or who sent it. Nobody may say that it is for one
/// connection only, and so hide it from the backend, or put it behind a body.
pub(super) fn is_guarded(name: &[u8]) -> bool {
    const NAMES: [&str; 10] = [
        "host",
        "content-length",
        "transfer-encoding",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "expect",
        "forwarded",
        "x-real-ip",
    ];
    let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
    let forwarded = b"x-forwarded-";
    NAMES.iter().any(is)
        || name.get(..forwarded.len()).is_some_and(|name| name.eq_ignore_ascii_case(forwarded))
}

/// Whether a name may have it (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a value may have it (RFC 9110, 5.5).
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
