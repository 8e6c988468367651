//! Where a request ends, and the words that it begins with.

use super::super::pieces::Pieces;
use super::super::{self as framing, Malformed, Piece, Request};
use super::commands::{Client, Words};
use super::{MAX_COUNT, MAX_LINE, Number};

/// Reads the requests of one client, and remembers the state that they give to its connection.
pub(super) struct Requests {
    max_bulk: u64,
    pieces: Pieces,
    place: Place,
    /// Bytes of this request that have come or must come.
    size: u64,
    /// Arguments that have not begun.
    left: i64,
    words: Words,
    client: Client,
    /// The request is passed on as other bytes than these.
    replaced: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    Count(Number),
    Dollar,
    Length(Number),
    Bulk(u64),
    BulkCr,
    BulkLf,
    Inline(Quotes),
}

/// Where in an inline request: the rules of `sdssplitargs` in `sds.c`.
#[derive(Clone, Copy, Debug)]
enum Quotes {
    /// Between words.
    Blank,
    Plain,
    Double,
    DoubleEscape,
    /// Behind `\x`.
    Hex,
    /// Behind `\x` and a digit.
    HexDigit(u8),
    Single,
    SingleEscape,
    /// Behind the quote that ends a word: only a space may follow.
    Closed,
}

impl Requests {
    pub(super) fn new(max_bulk: u64) -> Requests {
        Requests {
            max_bulk,
            pieces: Pieces::default(),
            place: Place::Start,
            size: 0,
            left: 0,
            words: Words::default(),
            client: Client::default(),
            replaced: false,
        }
    }
}

impl framing::Requests for Requests {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let slice = pieces.next(bytes, |bytes| self.read(bytes));
        self.pieces = pieces;
        let Some(slice) = slice? else { return Ok(None) };
        let (mut begins, mut instead) = (None, None);
        if slice.begins {
            // A long line may begin with nothing but spaces. How many replies it has, nobody can say.
            if !slice.ends && !self.words.name_a_command() {
                return Err(error("too big inline request"));
            }
            let request;
            (request, instead) = self.client.request(&self.words);
            (begins, self.replaced) = (Some(request), instead.is_some());
        } else if self.replaced {
            instead = Some(Vec::new());
        }
        if slice.ends {
            (self.place, self.size, self.replaced) = (Place::Start, 0, false);
            self.words.clear();
        }
        Ok(Some(slice.piece(begins, instead)))
    }
}

impl Requests {
    /// Reads one byte, or as much of a bulk string as has come. Says how many, and whether the request ends with them.
    fn read(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        if let Place::Start = self.place
            && let Some(length) = self.read_whole(bytes)
        {
            return Ok((length, true));
        }
        let byte = bytes[0];
        if let Place::Bulk(left) = self.place {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.words.extend(&bytes[..length]);
            let left = left - length as u64;
            self.place = if left == 0 { Place::BulkCr } else { Place::Bulk(left) };
            if left > 0 || !bytes[length..].starts_with(b"\r\n") {
                return Ok((length, false));
            }
            self.words.end_word();
            self.grow(2)?;
            return Ok((length + 2, self.argument()));
        }
        // The `$` goes with the length behind it. So most arguments are two steps, not five.
        let dollar = usize::from(matches!(self.place, Place::Dollar) && bytes.starts_with(b"$"));
        if dollar > 0 {
            self.place = Place::Length(Number::default());
            self.grow(1)?;
        }
        if let Place::Start = self.place {
            self.place = match byte {
                b'*' => Place::Count(Number::default()),
                _ => Place::Inline(Quotes::Blank),
            };
        } else if let Place::Count(number) = &mut self.place {
            let read = number.read(bytes).map_err(|()| error("invalid multibulk length"))?;
            let (taken, count) = read;
            self.grow(taken as u64)?;
            let Some(count) = count else { return Ok((taken, false)) };
            if count > MAX_COUNT {
                return Err(error("invalid multibulk length"));
            }
            // Any that is not positive is no request at all.
            self.left = count.max(0);
            self.words.expect(self.left as u32);
            return Ok((taken, self.argument()));
        } else if let Place::Length(number) = &mut self.place {
            let read = number.read(&bytes[dollar..]);
            let (taken, length) = read.map_err(|()| error("invalid bulk length"))?;
            self.grow(taken as u64)?;
            let taken = dollar + taken;
            let Some(length) = length else { return Ok((taken, false)) };
            let length = u64::try_from(length).ok().filter(|most| *most <= self.max_bulk);
            let length = length.ok_or_else(|| error("invalid bulk length"))?;
            self.place = if length == 0 { Place::BulkCr } else { Place::Bulk(length) };
            self.grow(length)?;
            return Ok((taken, false));
        }
        let ends = match &mut self.place {
            Place::Start | Place::Count(_) | Place::Length(_) | Place::Bulk(_) => false,
            Place::Dollar => {
                let got = byte.escape_ascii();
                return Err(error(&format!("expected '$', got '{got}'")));
            }
            Place::BulkCr if byte == b'\r' => {
                self.place = Place::BulkLf;
                false
            }
            Place::BulkLf if byte == b'\n' => {
                self.words.end_word();
                self.argument()
            }
            Place::BulkCr | Place::BulkLf => return Err(error("expected CRLF behind a bulk")),
            Place::Inline(quotes) => {
                let ends = inline(quotes, &mut self.words, byte)?;
                if self.size + 1 >= MAX_LINE as u64 && !ends {
                    return Err(error("too big inline request"));
                }
                ends
            }
        };
        self.grow(1)?;
        Ok((1, ends))
    }

    /// How long the request is, if it has come as a whole and all its numbers are short: nearly all have, and this takes a
    /// third less. Any other, a malformed one above all, is read from its beginning by [`Requests::read`].
    fn read_whole(&mut self, bytes: &[u8]) -> Option<usize> {
        let (count, mut end) = short(bytes, b'*').filter(|(count, _)| *count > 0)?;
        for _ in 0..count {
            let argument = short(&bytes[end..], b'$').and_then(|(length, taken)| {
                let place = end + taken..end + taken + length;
                let follows = bytes.get(place.end..)?.starts_with(b"\r\n");
                (follows && length as u64 <= self.max_bulk).then_some(place)
            });
            let Some(place) = argument else {
                self.words.clear();
                return None;
            };
            end = place.end + 2;
            self.words.extend(&bytes[place]);
            self.words.end_word();
        }
        self.words.expect(count as u32);
        Some(end)
    }

    /// The next argument begins; or the request ends, if it has no other.
    fn argument(&mut self) -> bool {
        let ends = self.left == 0;
        self.left -= i64::from(!ends);
        self.place = Place::Dollar;
        ends
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Malformed> {
        self.size = self.size.saturating_add(bytes);
        // What Redis lets a client's buffer grow to, by default; but a line of its own is never refused for that.
        let most = self.max_bulk.saturating_mul(2).max(MAX_LINE as u64);
        if self.size > most { Err(error("too big request")) } else { Ok(()) }
    }
}

/// A mark, a number of at most three digits and its CR LF: the number, and how many bytes that is.
fn short(bytes: &[u8], mark: u8) -> Option<(usize, usize)> {
    let (first, rest) = bytes.split_first()?;
    let digits = rest.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    let plain = digits == 1 || (digits > 1 && rest[0] != b'0');
    if *first != mark || !plain || !rest[digits..].starts_with(b"\r\n") {
        return None;
    }
    let number =
        rest[..digits].iter().fold(0, |number, digit| 10 * number + usize::from(digit - b'0'));
    Some((number, 1 + digits + 2))
}

/// Reads a byte of an inline request. Says whether the line ends with it.
fn inline(quotes: &mut Quotes, words: &mut Words, byte: u8) -> Result<bool, Malformed> {
    // Redis looks for the end of the line only before a NUL, and would wait for ever.
    if byte == 0 {
        return Err(error("NUL in an inline request"));
    }
    if byte == b'\n' {
        match quotes {
            Quotes::Blank => {}
            Quotes::Plain | Quotes::Closed => words.end_word(),
            _ => return Err(error("unbalanced quotes in request")),
        }
        words.end_line();
        return Ok(true);
    }
    let space = byte.is_ascii_whitespace() || byte == 0x0b;
    // These have looked one byte too far ahead if it is not what they hoped for: then it is read as what it would be
    // without them.
    match *quotes {
        Quotes::Blank if !space => *quotes = Quotes::Plain,
        Quotes::Hex if !byte.is_ascii_hexdigit() => {
            words.extend(b"x");
            *quotes = Quotes::Double;
        }
        Quotes::HexDigit(digit) if !byte.is_ascii_hexdigit() => {
            words.extend(&[b'x', digit]);
            *quotes = Quotes::Double;
        }
        Quotes::SingleEscape if byte != b'\'' => {
            words.extend(b"\\");
            *quotes = Quotes::Single;
        }
        _ => {}
    }
    let next = match (*quotes, byte) {
        (Quotes::Blank, _) => Quotes::Blank,
        (Quotes::Plain, b' ' | b'\t' | b'\r') => {
            words.end_word();
            Quotes::Blank
        }
        (Quotes::Plain, b'"') => Quotes::Double,
        (Quotes::Plain, b'\'') => Quotes::Single,
        (Quotes::Double, b'\\') => Quotes::DoubleEscape,
        (Quotes::Single, b'\\') => Quotes::SingleEscape,
        (Quotes::Double, b'"') | (Quotes::Single, b'\'') => Quotes::Closed,
        (Quotes::DoubleEscape, b'x') => Quotes::Hex,
        (Quotes::Hex, _) => Quotes::HexDigit(byte),
        (Quotes::HexDigit(digit), _) => {
            words.extend(&[hex(digit) << 4 | hex(byte)]);
            Quotes::Double
        }
        (Quotes::DoubleEscape, _) => {
            words.extend(&[match byte {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 0x08,
                b'a' => 0x07,
                other => other,
            }]);
            Quotes::Double
        }
        (Quotes::SingleEscape, _) => {
            words.extend(b"'");
            Quotes::Single
        }
        (Quotes::Closed, _) if space => {
            words.end_word();
            Quotes::Blank
        }
        (Quotes::Closed, _) => return Err(error("unbalanced quotes in request")),
        (same @ (Quotes::Plain | Quotes::Double | Quotes::Single), _) => {
            words.extend(&[byte]);
            same
        }
    };
    *quotes = next;
    Ok(false)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// What the client is told, in the words of Redis where it has some.
fn error(why: &str) -> Malformed {
    Malformed {
        why: format!("protocol error: {why}"),
        answer: format!("-ERR Protocol error: {why}\r\n").into_bytes(),
    }
}
