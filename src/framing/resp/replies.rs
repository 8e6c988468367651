//! Where a reply ends.

use super::super::pieces::Pieces;
use super::super::{self as framing, Malformed, Piece, Reply, Shape};
use super::{MAX_COUNT, MAX_LINE, Number};

/// Reads the replies of one trunk.
pub(super) struct Replies {
    max_bulk: u64,
    pieces: Pieces,
    place: Place,
    /// Values of this frame that have not ended. How they are nested is no matter: an array is replaced by its elements,
    /// and the frame ends when none is left. So there is no stack that somebody else could make grow.
    left: u64,
    /// The frame is a push.
    push: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The type of the first value.
    Start,
    /// The type of another value.
    Type,
    /// The line of a value that is a line.
    Line {
        kind: u8,
        length: usize,
    },
    LineLf,
    /// The length of a string, or the count of an aggregate.
    Header(u8, Number),
    Bulk(u64),
    BulkCr,
    BulkLf,
}

impl Replies {
    pub(super) fn new(max_bulk: u64) -> Replies {
        Replies { max_bulk, pieces: Pieces::default(), place: Place::Start, left: 0, push: false }
    }
}

impl framing::Replies for Replies {
    fn next(
        &mut self,
        bytes: &[u8],
        due: Option<Shape>,
    ) -> Result<Option<Piece<Reply>>, Malformed> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let slice = pieces.next(bytes, |bytes| self.read(bytes, due.is_some()));
        self.pieces = pieces;
        let Some(slice) = slice? else { return Ok(None) };
        let meaning = Reply { pops: !self.push, ..Reply::PLAIN };
        let begins = slice.begins.then_some(meaning);
        Ok(Some(slice.piece(begins, None)))
    }
}

impl Replies {
    /// Reads some bytes. Says how many, and whether the reply ends with them.
    fn read(&mut self, bytes: &[u8], due: bool) -> Result<(usize, bool), Malformed> {
        let byte = bytes[0];
        match &mut self.place {
            Place::Start => {
                self.push = byte == b'>';
                self.left = 1;
                self.place = place(byte)?;
                if !due && !self.push {
                    let kind = byte.escape_ascii();
                    let why = format!("unsolicited: a reply of type `{kind}` that is not due");
                    return Err(Malformed::new(why));
                }
            }
            Place::Type if byte == b'>' => return Err(Malformed::new("a push within a reply")),
            Place::Type => self.place = place(byte)?,
            Place::Line { kind, length } => {
                let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                let text = &bytes[..end.unwrap_or(bytes.len())];
                // The type before it and the CR LF behind it belong to the line too.
                let room = (MAX_LINE - 3).saturating_sub(*length);
                if !fits(*kind, *length, &text[..text.len().min(room)]) {
                    let kind = kind.escape_ascii();
                    return Err(Malformed::new(format!("this is no value of type `{kind}`")));
                }
                *length += text.len();
                if text.len() > room {
                    let why = format!("a line is longer than {MAX_LINE} bytes");
                    return Err(Malformed::new(why));
                }
                let Some(end) = end else { return Ok((text.len(), false)) };
                if bytes[end] == b'\n' {
                    return Err(Malformed::new("a LF without a CR in a line"));
                }
                if *length == 0 && matches!(kind, b':' | b'(' | b',' | b'#') {
                    let kind = kind.escape_ascii();
                    return Err(Malformed::new(format!("an empty value of type `{kind}`")));
                }
                self.place = Place::LineLf;
                return Ok((end + 1, false));
            }
            Place::LineLf if byte == b'\n' => return Ok((1, self.value())),
            Place::LineLf => return Err(Malformed::new("a CR without a LF in a line")),
            Place::Header(kind, number) => {
                let kind = *kind;
                let number = number.push(byte).map_err(|()| header(kind, byte))?;
                if let Some(number) = number {
                    return Ok((1, self.header(kind, number)?));
                }
            }
            Place::Bulk(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    self.place = Place::BulkCr;
                }
                return Ok((length, false));
            }
            Place::BulkCr if byte == b'\r' => self.place = Place::BulkLf,
            Place::BulkLf if byte == b'\n' => return Ok((1, self.value())),
            Place::BulkCr | Place::BulkLf => {
                return Err(Malformed::new("no CR LF behind a bulk string"));
            }
        }
        Ok((1, false))
    }

    /// The length of a string or the count of an aggregate has ended. Says whether the reply has.
    fn header(&mut self, kind: u8, number: i64) -> Result<bool, Malformed> {
        if number == -1 && matches!(kind, b'$' | b'*') {
            return Ok(self.value());
        }
        let wrong = |what: &str| {
            let kind = kind.escape_ascii();
            Err(Malformed::new(format!("a {what} of {number} behind `{kind}`")))
        };
        if matches!(kind, b'$' | b'!' | b'=') {
            let Some(length) = u64::try_from(number).ok().filter(|most| *most <= self.max_bulk)
            else {
                return wrong("length");
            };
            self.place = if length == 0 { Place::BulkCr } else { Place::Bulk(length) };
            return Ok(false);
        }
        // The first element of a push says what it is.
        let least = i64::from(kind == b'>');
        if !(least..=MAX_COUNT).contains(&number) {
            return wrong("count");
        }
        let elements = number as u64 * if matches!(kind, b'%' | b'|') { 2 } else { 1 };
        let Some(left) = self.left.checked_add(elements) else { return wrong("count") };
        self.left = left;
        if kind == b'|' {
            // The value that it is about follows: it belongs to the same frame.
            self.place = Place::Type;
            return Ok(false);
        }
        Ok(self.value())
    }

    /// One value has ended, or has been replaced by its elements. Says whether it was the last.
    fn value(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        let ends = self.left == 0;
        self.place = if ends { Place::Start } else { Place::Type };
        ends
    }
}

/// What follows the type of a value.
fn place(kind: u8) -> Result<Place, Malformed> {
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok(Place::Line { kind, length: 0 }),
        b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' => {
            Ok(Place::Header(kind, Number::default()))
        }
        _ => Err(Malformed::new(format!("`{}` is no type of a value", kind.escape_ascii()))),
    }
}

/// Whether a line of this type may go on like this behind so many bytes. What is looked at is what tells a stream that has
/// lost its step.
fn fits(kind: u8, before: usize, text: &[u8]) -> bool {
    let number = |(place, byte): (usize, &u8)| {
        byte.is_ascii_digit() || (before + place == 0 && matches!(byte, b'-' | b'+'))
    };
    match kind {
        b'_' => text.is_empty(),
        b'#' => text.is_empty() || (before == 0 && matches!(text, b"t" | b"f")),
        b':' | b'(' => text.iter().enumerate().all(number),
        _ => true,
    }
}

fn header(kind: u8, byte: u8) -> Malformed {
    let kind = kind.escape_ascii();
    Malformed::new(match byte {
        b'?' => format!("a streamed value of type `{kind}`, which no server sends"),
        _ => format!("no number behind `{kind}`"),
    })
}
