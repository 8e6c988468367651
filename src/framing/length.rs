//! A frame has its length in a field of its own: Swoole's `open_length_check`.
//!
//! ```text
//!   |<-- length_offset -->| field |          |
//!   |<------------ body_offset ------------->|<-- as many bytes as the field says -->|
//!   |<------------------------------- the frame ------------------------------------>|
//! ```
//!
//! So a field that counts the whole frame has `body_offset` 0, and one that counts what is behind a header has the length
//! of the header.

use super::plain::{Cut, Plain};
use super::{Framing, Malformed, Piece, Replies, Requests, Shape, Trouble, WHOLE};
use std::str::FromStr;

/// One frame, one request; one frame, one reply.
///
/// ```
/// use trunkline::framing::{Framing, Length};
///
/// let length = Length::new("n".parse()?, 0, 2, 2 << 20)?;
/// let piece = length.requests().next(b"\0\x03abc\0\x01d").unwrap().unwrap();
/// assert_eq!((piece.bytes, piece.ends), (5, true));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    kind: LengthType,
    length_offset: usize,
    body_offset: usize,
    max_frame: usize,
}

/// What a length field is made of: a letter of Swoole's `package_length_type`, as in PHP's `pack`, but that `l` and `L`
/// have 32 bits on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthType {
    letter: char,
    size: usize,
    order: Order,
    signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

const HOST: Order = if cfg!(target_endian = "big") { Order::Big } else { Order::Little };

/// Letter, bytes, order, signed.
#[rustfmt::skip]
const TYPES: [(char, usize, Order, bool); 14] = [
    ('c', 1, HOST, true),
    ('C', 1, HOST, false),
    ('s', 2, HOST, true),
    ('S', 2, HOST, false),
    ('n', 2, Order::Big, false),
    ('v', 2, Order::Little, false),
    ('l', 4, HOST, true),
    ('L', 4, HOST, false),
    ('N', 4, Order::Big, false),
    ('V', 4, Order::Little, false),
    ('q', 8, HOST, true),
    ('Q', 8, HOST, false),
    ('J', 8, Order::Big, false),
    ('P', 8, Order::Little, false),
];

impl FromStr for LengthType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut chars = text.chars();
        let letter = chars.next().filter(|_| chars.next().is_none());
        let found = TYPES.iter().find(|(known, ..)| Some(*known) == letter);
        let &(letter, size, order, signed) = found.ok_or_else(|| {
            format!(
                "{text:?} is no type of a length; write one letter: n, N or J (16, 32 or 64 bits, big-endian), \
                 v, V or P (little-endian), C, S, L or Q (8 to 64 bits in this machine's order), c, s, l or q (signed)"
            )
        })?;
        Ok(LengthType { letter, size, order, signed })
    }
}

impl LengthType {
    /// The letter that stands for it.
    pub fn letter(self) -> char {
        self.letter
    }

    /// How many bytes the field has: 1, 2, 4 or 8.
    pub fn size(self) -> usize {
        self.size
    }

    /// What a field of `size` bytes says.
    fn value(self, field: &[u8]) -> i128 {
        let push = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
        let value = match self.order {
            Order::Big => field.iter().fold(0, push),
            Order::Little => field.iter().rev().fold(0, push),
        };
        let above = 1_i128 << (8 * self.size);
        let negative = self.signed && i128::from(value) >= above / 2;
        i128::from(value) - if negative { above } else { 0 }
    }
}

impl Length {
    /// Frames whose length field of type `kind` begins at `length_offset` and counts the bytes from `body_offset` on;
    /// none is longer than `max_frame`. Swoole's names for the three: `package_length_offset`, `package_body_offset` and
    /// `package_max_length`.
    ///
    /// # Errors
    /// One line that says what is wrong and what would be right.
    pub fn new(
        kind: LengthType,
        length_offset: usize,
        body_offset: usize,
        max_frame: usize,
    ) -> Result<Length, String> {
        let header = length_offset.checked_add(kind.size).filter(|header| *header <= max_frame);
        if header.is_none() {
            return Err(format!(
                "the length field ends behind the longest frame, which is {max_frame} bytes long; \
                 allow longer frames, or put the field further to the front than {length_offset}"
            ));
        }
        if body_offset > max_frame {
            return Err(format!(
                "the body begins at {body_offset}, behind the longest frame of {max_frame} bytes; \
                 allow longer frames, or let the body begin further to the front"
            ));
        }
        Ok(Length { kind, length_offset, body_offset, max_frame })
    }

    fn lengths(&self) -> Plain<Lengths> {
        Plain(Lengths { length: self.clone(), left: 0 })
    }
}

impl Default for LengthType {
    /// `N`: 32 bits, unsigned, in network order.
    fn default() -> Self {
        LengthType { letter: 'N', size: 4, order: Order::Big, signed: false }
    }
}

impl Default for Length {
    /// 32 bits in network order in front of a body of so many bytes, 2 MiB at most with these four: what Swoole has
    /// unless told otherwise.
    fn default() -> Self {
        let kind = LengthType::default();
        Length { kind, length_offset: 0, body_offset: 4, max_frame: 2 << 20 }
    }
}

impl Framing for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(self.lengths())
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(self.lengths())
    }

    fn error(&self, _: Trouble, _: Shape) -> Vec<u8> {
        Vec::new()
    }

    fn counts_replies(&self) -> bool {
        false
    }
}

struct Lengths {
    length: Length,
    /// Bytes that a frame still has of which a part was given; 0 between two frames.
    left: usize,
}

impl Cut for Lengths {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<()>>, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let begins = self.left == 0;
        if begins {
            let Some(total) = self.length.total(bytes)? else { return Ok(None) };
            if total <= WHOLE {
                return Ok((bytes.len() >= total).then(|| Piece::whole(total, ())));
            }
            self.left = total;
        }
        // No piece is longer than `WHOLE`, so that a longer frame is never one piece, even if all of it has come.
        let given = self.left.min(bytes.len()).min(WHOLE);
        self.left -= given;
        let begins = begins.then_some(());
        Ok(Some(Piece { bytes: given, begins, ends: self.left == 0, instead: None }))
    }
}

impl Length {
    /// The length of the frame that `bytes` begin with, once the field has come.
    fn total(&self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let header = self.length_offset + self.kind.size;
        let Some(field) = bytes.get(self.length_offset..header) else { return Ok(None) };
        let value = self.kind.value(field);
        if value < 0 {
            return Err(Malformed::new(format!("the length field is negative: {value}")));
        }
        // Neither has more than 64 bits, so the sum fits.
        let total = value + self.body_offset as i128;
        if total == 0 {
            return Err(Malformed::new("a frame of 0 bytes, by its length field"));
        }
        if total < header as i128 {
            return Err(Malformed::new(format!(
                "a frame of {total} bytes, by its length field, which itself ends at {header}"
            )));
        }
        match usize::try_from(total).ok().filter(|total| *total <= self.max_frame) {
            Some(total) => Ok(Some(total)),
            None => {
                let most = self.max_frame;
                Err(Malformed::new(format!("a frame of {total} bytes is longer than {most} bytes")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::splits::{every_split, replies, requests};
    use super::*;
    use proptest::prelude::*;

    fn length(kind: &str, length_offset: usize, body_offset: usize, max_frame: usize) -> Length {
        let kind = kind.parse().expect("a type");
        Length::new(kind, length_offset, body_offset, max_frame).expect("a framing")
    }

    #[test]
    fn every_type_is_read_as_its_letter_says() {
        let check = |letter: &str, field: &[u8], value: i128| {
            let kind: LengthType = letter.parse().expect("a type");
            assert_eq!((kind.letter().to_string().as_str(), kind.size()), (letter, field.len()));
            assert_eq!(kind.value(field), value, "{letter} {field:?}");
        };
        check("c", &[0x7f], 127);
        check("c", &[0x80], -128);
        check("C", &[0x80], 128);
        check("s", &(-2_i16).to_ne_bytes(), -2);
        check("s", &258_i16.to_ne_bytes(), 258);
        check("S", &65534_u16.to_ne_bytes(), 65534);
        check("n", &[0xff, 2], 0xff02);
        check("v", &[0xff, 2], 0x2ff);
        check("l", &i32::MIN.to_ne_bytes(), i32::MIN.into());
        check("l", &i32::MAX.to_ne_bytes(), i32::MAX.into());
        check("L", &u32::MAX.to_ne_bytes(), u32::MAX.into());
        check("N", &[0xff, 0, 0, 1], 0xff00_0001);
        check("V", &[0xff, 0, 0, 1], 0x100_00ff);
        check("q", &i64::MIN.to_ne_bytes(), i64::MIN.into());
        check("q", &(-1_i64).to_ne_bytes(), -1);
        check("Q", &u64::MAX.to_ne_bytes(), u64::MAX.into());
        check("J", &[0, 0, 0, 0, 0, 0, 1, 2], 258);
        check("P", &[2, 1, 0, 0, 0, 0, 0, 0x80], (0x80_i128 << 56) + 258);
        for wrong in ["", "x", "nn", "u32", "§"] {
            let said = wrong.parse::<LengthType>().expect_err(wrong);
            assert!(said.starts_with(&format!("{wrong:?} is no type of a length; write")));
            for (letter, ..) in TYPES {
                assert!(said.contains(letter), "{said}");
            }
        }
    }

    #[test]
    fn a_frame_is_as_long_as_its_field_says_however_it_comes() {
        let check = |length: Length, bytes: &[u8], frames: &[&[u8]], rest: &[u8], error: &str| {
            let read = every_split(bytes, |bytes, lengths| requests(&length, bytes, lengths));
            let seen: Vec<_> = read.frames.iter().map(|(frame, _)| frame.as_slice()).collect();
            assert_eq!(seen, frames, "{bytes:?}");
            let said = read.error.map(|error| error.why).unwrap_or_default();
            assert!(said.contains(error) && said.is_empty() == error.is_empty(), "{said}");
            if error.is_empty() {
                assert_eq!(read.rest, rest);
            }
            let due = [Shape::default(); 9];
            let read = every_split(bytes, |bytes, lengths| replies(&length, bytes, lengths, &due));
            let seen: Vec<_> = read.frames.iter().map(|(frame, _)| frame.as_slice()).collect();
            assert_eq!(seen, frames, "{bytes:?}");
        };
        // The field counts the body.
        let body = || length("n", 0, 2, 9);
        check(body(), b"", &[], b"", "");
        check(body(), b"\0\x03abc\0\0\0\x01d\0", &[b"\0\x03abc", b"\0\0", b"\0\x01d"], b"\0", "");
        check(body(), b"\0\x03ab", &[], b"\0\x03ab", "");
        check(body(), b"\0\x071234567", &[b"\0\x071234567"], b"", "");
        check(body(), b"\0\x08", &[], b"", "10 bytes is longer than 9");
        // It counts the whole frame.
        let frame = || length("C", 1, 0, 9);
        check(frame(), b"a\x03bc\x02", &[b"a\x03b", b"c\x02"], b"", "");
        check(frame(), b"a\x03ba\x01", &[b"a\x03b"], b"", "frame of 1 bytes");
        check(frame(), b"a\0", &[], b"", "0 bytes");
        // There are bytes between the field and the body, or the body begins before the field has ended.
        check(length("v", 1, 5, 9), b"-\x02\0..12", &[b"-\x02\0..12"], b"", "");
        check(length("N", 0, 2, 9), b"\0\0\0\x03a", &[b"\0\0\0\x03a"], b"", "");
        check(length("N", 0, 2, 9), b"\0\0\0\x01", &[], b"", "itself ends at 4");
        // What cannot be.
        check(length("c", 0, 200, 300), b"\xff", &[], b"", "negative: -1");
        check(length("q", 0, 8, 300), &i64::MIN.to_ne_bytes(), &[], b"", "negative");
        check(length("Q", 0, 300, 300), &[0xff; 8], &[], b"", "18446744073709551915 bytes");
        check(
            length("J", 0, 0, usize::MAX),
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            &[],
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            "",
        );
    }

    #[test]
    fn a_long_frame_comes_in_pieces_by_its_length_alone() {
        let framing = Length::default();
        for body in [WHOLE - 5, WHOLE - 4, WHOLE - 3, 3 * WHOLE] {
            let mut bytes = u32::try_from(body).expect("short").to_be_bytes().to_vec();
            bytes.resize(4 + body, b'x');
            let two = [bytes.as_slice(), bytes.as_slice()].concat();
            let read = every_split(&two, |bytes, lengths| requests(&framing, bytes, lengths));
            assert_eq!(read.frames.len(), 2);
            assert!(read.frames.iter().all(|(frame, _)| *frame == bytes));
            let piece = framing.requests().next(&two).expect("a frame").expect("a piece");
            assert_eq!(piece.ends, bytes.len() <= WHOLE);
            // Nobody holds a long one.
            let begun = framing.requests().next(&two[..5]).expect("a frame");
            assert_eq!(begun.is_some(), bytes.len() > WHOLE);
        }
    }

    #[test]
    fn a_reply_comes_only_where_one_is_due() {
        let read = replies(&Length::default(), &[0; 8], &[], &[Shape::default()]);
        assert_eq!(read.frames.len(), 1);
        assert!(read.error.is_some());
    }

    #[test]
    fn a_framing_that_could_not_work_is_refused() {
        let new =
            |offset, body, most| Length::new("N".parse().expect("a type"), offset, body, most);
        assert!(new(0, 4, 3).is_err_and(|said| said.contains("allow longer frames")));
        assert!(new(usize::MAX, 4, 100).is_err_and(|said| said.contains("further to the front")));
        assert!(new(0, 101, 100).is_err_and(|said| said.contains("begins at 101")));
        assert!(new(96, 100, 100).is_ok());
        assert_eq!(new(0, 4, 2 << 20), Ok(Length::default()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            kind in 0..TYPES.len(),
            length_offset in 0_usize..5,
            body_offset in 0_usize..12,
            lengths in proptest::collection::vec(1usize..9, 0..40),
        ) {
            let kind = TYPES[kind].0.to_string();
            let framing = length(&kind, length_offset, body_offset, 64);
            let due = [Shape::default(); 100];
            let read = replies(&framing, &bytes, &lengths, &due);
            prop_assert_eq!(&read.frames, &replies(&framing, &bytes, &[], &due).frames);
            let read = requests(&framing, &bytes, &lengths);
            prop_assert_eq!(&read.frames, &requests(&framing, &bytes, &[]).frames);
        }
    }
}
