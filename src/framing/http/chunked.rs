//! A chunked body (RFC 9112, 7.1): checked, and passed on as it is.
//!
//! Strictly the grammar: a size of hexadecimal digits alone, extensions that are well-formed, CR LF at the end of every
//! line and behind every chunk. Chunks whose end two readers see in different places are how requests are smuggled.
//! A line is passed on when it is complete and was found right, the data of a chunk as it comes.

use super::{Fault, Http, head};

/// The longest line with the size of a chunk, its extensions and its end included (RFC 9112, 7.1.1, asks for a limit).
const LONGEST: usize = 4096;

/// Where in such a body the next byte is.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    at: At,
    /// Bytes of the line there that were searched for its end already.
    seen: usize,
    /// What the trailers may still have.
    bytes: usize,
    lines: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

impl Chunked {
    pub(super) fn new(limits: &Http) -> Chunked {
        Chunked { at: At::Size, seen: 0, bytes: limits.max_head, lines: limits.max_fields }
    }

    /// How many of `bytes` can be passed on, and whether the body ends with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            match self.at {
                At::Size => {
                    let long = || Fault::bad("the extensions of a chunk are too long");
                    let Some(line) = self.line(rest, LONGEST, long)? else { break };
                    taken += line.len() + 2;
                    self.at = match size(line)? {
                        0 => At::Trailers,
                        size => At::Data(size),
                    };
                }
                At::Data(left) => {
                    let come = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if come == 0 {
                        break;
                    }
                    taken += come;
                    self.at = match left - come as u64 {
                        0 => At::DataEnd,
                        left => At::Data(left),
                    };
                }
                At::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        taken += 2;
                        self.at = At::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(Fault::bad("a chunk is longer than its size")),
                },
                At::Trailers => {
                    let long = || Fault::large("the trailers are too long");
                    let Some(line) = self.line(rest, self.bytes, long)? else { break };
                    taken += line.len() + 2;
                    if line.is_empty() {
                        return Ok((taken, true));
                    }
                    trailer(line)?;
                    self.bytes -= line.len() + 2;
                    self.lines = self.lines.checked_sub(1).ok_or_else(long)?;
                }
            }
        }
        Ok((taken, false))
    }

    /// The line at the beginning of `rest`, without its end, once it is complete. With its end it has `most` bytes.
    fn line<'a>(
        &mut self,
        rest: &'a [u8],
        most: usize,
        long: impl Fn() -> Fault,
    ) -> Result<Option<&'a [u8]>, Fault> {
        let seen = self.seen.min(rest.len());
        let Some(place) = rest[seen..].iter().position(|byte| *byte == b'\n') else {
            self.seen = rest.len();
            return if rest.len() < most { Ok(None) } else { Err(long()) };
        };
        let end = seen + place;
        self.seen = 0;
        if end >= most {
            return Err(long());
        }
        let line = rest[..end].strip_suffix(b"\r");
        line.map(Some).ok_or_else(|| Fault::bad("a line of a chunked body ends with LF alone"))
    }
}

/// The size at the beginning of a line; the rest of it must be extensions.
fn size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // 15 digits are less than what any reader can count, whatever integer it does it in.
    if digits == 0 || digits > 15 {
        return Err(Fault::bad("the size of a chunk is no hexadecimal number, or too large"));
    }
    let size = line[..digits].iter().fold(0, |size, byte| {
        let digit = char::from(*byte).to_digit(16).unwrap_or_default();
        size << 4 | u64::from(digit)
    });
    if !extensions(&line[digits..]) {
        return Err(Fault::bad("something behind the size of a chunk is no extension"));
    }
    Ok(size)
}

/// Whether this is `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] )`.
fn extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(name) = blank(rest).strip_prefix(b";") else { return false };
        let Some(behind) = token(blank(name)) else { return false };
        rest = behind;
        if let Some(value) = blank(rest).strip_prefix(b"=") {
            let value = blank(value);
            let Some(behind) = quoted(value).or_else(|| token(value)) else { return false };
            rest = behind;
        }
    }
    true
}

/// What is behind spaces and tabs.
fn blank(rest: &[u8]) -> &[u8] {
    let count = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &rest[count..]
}

/// What is behind a token of at least one character.
fn token(rest: &[u8]) -> Option<&[u8]> {
    let count = rest.iter().take_while(|byte| head::is_token(**byte)).count();
    (count > 0).then(|| &rest[count..])
}

/// What is behind a quoted string (RFC 9110, 5.6.4).
fn quoted(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', byte, behind @ ..] if head::is_text(*byte) => behind,
            [byte, behind @ ..] if *byte != b'\\' && head::is_text(*byte) => behind,
            _ => return None,
        };
    }
}

/// Checks a field behind the body. What decides where a message ends, whom it is for or who sent it, has no business there
/// (RFC 9110, 6.5.1), and some reader might take it for a field of the head.
fn trailer(line: &[u8]) -> Result<(), Fault> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or_default();
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(head::is_token) {
        return Err(Fault::bad("a trailer has no name"));
    }
    if !value.iter().copied().all(head::is_text) {
        return Err(Fault::bad("a control character in a trailer"));
    }
    if head::is_guarded(name) {
        return Err(Fault::bad("a field behind the body that belongs before it"));
    }
    Ok(())
}
