//! A frame ends with a mark that the operator chooses, which belongs to it: Swoole's `package_eof`.
//!
//! The mark is searched at every place, from left to right, as Swoole does with `open_eof_split`. Without that option
//! Swoole looks only at the end of what one read brought, so that its frames depend on how the bytes were cut; no
//! framing here does.

use super::plain::{Marked, Plain};
use super::{Framing, Replies, Requests, Shape, Trouble};
use std::ops::RangeInclusive;

/// One frame, one request; one frame, one reply.
///
/// ```
/// use trunkline::framing::{Eof, Framing};
///
/// let eof = Eof::new(Eof::mark(r"\r\n\r\n")?, 2 << 20)?;
/// let piece = eof.requests().next(b"a\r\nb\r\n\r\nc").unwrap().unwrap();
/// assert_eq!((piece.bytes, piece.ends), (8, true));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eof {
    eof: Vec<u8>,
    max_frame: usize,
}

/// How long a mark may be; Swoole has the same limit.
const MARK: RangeInclusive<usize> = 1..=8;

impl Eof {
    /// Frames that end with the bytes `eof`, 1 to 8 of them, and are no longer than `max_frame`, the mark included.
    ///
    /// # Errors
    /// One line that says what is wrong and what would be right.
    pub fn new(eof: impl Into<Vec<u8>>, max_frame: usize) -> Result<Eof, String> {
        let eof = eof.into();
        let length = eof.len();
        if !MARK.contains(&length) {
            return Err(format!("the mark is {length} bytes long; it must have 1 to 8"));
        }
        if length > max_frame {
            return Err(format!(
                "no frame can end: the mark is {length} bytes long and the frame at most {max_frame}; allow longer frames"
            ));
        }
        Ok(Eof { eof, max_frame })
    }

    /// Reads a mark as a person writes it: characters as they are, and the escapes `\r`, `\n`, `\t`, `\0`, `\\` and
    /// `\xHH`.
    ///
    /// # Errors
    /// One line that says what is wrong and shows the right form.
    ///
    /// ```
    /// # use trunkline::framing::Eof;
    /// assert_eq!(Eof::mark(r"\r\n\x00"), Ok(b"\r\n\0".to_vec()));
    /// assert!(Eof::mark(r"\q").is_err());
    /// ```
    pub fn mark(text: &str) -> Result<Vec<u8>, String> {
        const FORMS: &str = r"write \r, \n, \t, \0, \\ or \xHH with two hexadecimal digits";
        let wrong = |escape: &str| Err(format!("{text} has {escape}, which is no escape; {FORMS}"));
        let mut mark = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            mark.extend_from_slice(&rest.as_bytes()[..at]);
            let escape = &rest[at..];
            let Some(letter) = escape[1..].chars().next() else {
                return Err(format!(r"{text} ends with a single \; {FORMS}"));
            };
            let (byte, length) = match letter {
                'r' => (b'\r', 2),
                'n' => (b'\n', 2),
                't' => (b'\t', 2),
                '0' => (0, 2),
                '\\' => (b'\\', 2),
                'x' => {
                    let digits = escape.get(2..4).filter(|digits| !digits.starts_with('+'));
                    match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                        Some(byte) => (byte, 4),
                        None => return wrong(&escape.chars().take(4).collect::<String>()),
                    }
                }
                other => return wrong(&format!(r"\{other}")),
            };
            mark.push(byte);
            rest = &escape[length..];
        }
        mark.extend_from_slice(rest.as_bytes());
        let length = mark.len();
        if !MARK.contains(&length) {
            return Err(format!(
                r"{text:?} stands for {length} bytes; a mark has 1 to 8, such as \r\n or \x00"
            ));
        }
        Ok(mark)
    }
}

impl Default for Eof {
    /// A line that ends with CR and LF, and is no longer than 2 MiB: what Swoole has unless told otherwise.
    fn default() -> Self {
        Eof { eof: b"\r\n".to_vec(), max_frame: 2 << 20 }
    }
}

impl Framing for Eof {
    fn name(&self) -> &'static str {
        "eof"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(Plain(Marked::new(&self.eof, self.max_frame)))
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(Plain(Marked::new(&self.eof, self.max_frame)))
    }

    fn error(&self, _: Trouble, _: Shape) -> Vec<u8> {
        Vec::new()
    }

    fn counts_replies(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::WHOLE;
    use super::super::splits::{self, Read, every_split, replies, requests};
    use super::*;
    use proptest::prelude::*;

    fn frames<T>(read: &Read<T>) -> Vec<&[u8]> {
        read.frames.iter().map(|(frame, _)| frame.as_slice()).collect()
    }

    #[test]
    fn a_frame_ends_at_the_first_mark_however_it_comes() {
        let check = |mark: &str, bytes: &[u8], expected: &[&[u8]], rest: &[u8], error: &str| {
            let mark = Eof::mark(mark).expect("a mark");
            let eof = Eof::new(mark, 12).expect("a framing");
            let read = every_split(bytes, |bytes, lengths| requests(&eof, bytes, lengths));
            assert_eq!(frames(&read), expected, "{bytes:?}");
            let said = read.error.map(|error| error.why).unwrap_or_default();
            assert!(said.contains(error) && said.is_empty() == error.is_empty(), "{said}");
            if error.is_empty() {
                assert_eq!(read.rest, rest);
            }
            let due = [Shape::default(); 9];
            let read = every_split(bytes, |bytes, lengths| replies(&eof, bytes, lengths, &due));
            assert_eq!(frames(&read), expected, "{bytes:?}");
        };
        check(r"\r\n", b"", &[], b"", "");
        check(r"\r\n", b"a\nb\r\n\r\nc\r", &[b"a\nb\r\n", b"\r\n"], b"c\r", "");
        check(r"\r\n", b"\r\r\n\r\r\r\n", &[b"\r\r\n", b"\r\r\r\n"], b"", "");
        // A mark whose beginning is a part of it again.
        check(r"\r\n\r\n", b"a\r\n\r\r\n\r\nb", &[b"a\r\n\r\r\n\r\n"], b"b", "");
        check(r"\r\n\r\n", b"\r\r\n\r\n\r\n\r\n", &[b"\r\r\n\r\n", b"\r\n\r\n"], b"", "");
        check("aab", b"aaabaabab", &[b"aaab", b"aab"], b"ab", "");
        // Never only at the end of what has come.
        check(r"\0", b"1\x002\x003", &[b"1\0", b"2\0"], b"3", "");
        check("12345678", b"112345678", &[b"112345678"], b"", "");
        // The limit counts the mark.
        check(r"\r\n", b"0123456789\r\n", &[b"0123456789\r\n"], b"", "");
        check(r"\r\n", b"01234567890\r\n", &[], b"", "longer than 12");
        check(r"\r\n", b"1\r\n0123456789ab", &[b"1\r\n"], b"0123456789ab", "");
        check(r"\r\n", b"1\r\n0123456789abc", &[b"1\r\n"], b"", "longer than 12");
    }

    #[test]
    fn a_long_frame_comes_in_pieces_wherever_its_mark_is() {
        let eof = |most| Eof::new("aab", most).expect("a framing");
        for length in WHOLE - 2..WHOLE + 5 {
            // The mark straddles the first piece, and so does what only looks like one.
            let long = |end: &str| [vec![b'a'; length - end.len()], end.into()].concat();
            let bytes = [long("aab"), b"aab".to_vec(), long("abab"), long("aab")].concat();
            let due = [Shape::default(); 9];
            for lengths in [vec![1; bytes.len()], vec![WHOLE; 3], vec![WHOLE - 1; 3], vec![]] {
                let read = replies(&eof(2 << 20), &bytes, &lengths, &due);
                assert_eq!(frames(&read).concat(), bytes);
                let seen: Vec<_> = read.frames.iter().map(|(frame, _)| frame.len()).collect();
                assert_eq!(seen, [length, 3, length - 2, 2 + length], "{:?}", lengths.first());
                let whole = seen.iter().map(|length| *length <= WHOLE).collect::<Vec<_>>();
                assert_eq!(read.whole, whole);
                assert!(read.held < WHOLE || lengths.is_empty());
                assert_eq!((read.rest.len(), read.error), (0, None));
            }
        }
        // The limit is that of all pieces.
        let bytes = [vec![b'x'; WHOLE + 97], b"aab".to_vec()].concat();
        for lengths in [vec![], vec![1; WHOLE], vec![1; WHOLE + 99]] {
            let read = requests(&eof(WHOLE + 100), &bytes, &lengths);
            assert_eq!((read.frames.len(), read.error), (1, None));
            let read = requests(&eof(WHOLE + 99), &bytes, &lengths);
            assert_eq!(read.frames.len(), 0);
            // A part had been passed on.
            assert!(read.begun.is_some() && read.rest.len() >= WHOLE);
            assert!(read.error.is_some_and(|error| error.why.contains("longer than 16483")));
        }
    }

    #[test]
    fn a_reply_comes_only_where_one_is_due() {
        let read = replies(&Eof::default(), b"one\r\ntwo\r\n", &[], &[Shape::default()]);
        assert_eq!(frames(&read), [b"one\r\n"]);
        assert!(read.error.is_some());
    }

    #[test]
    fn a_mark_is_read_as_it_is_written_or_it_is_said_why_not() {
        let check = |text: &str, expected: Result<&[u8], &str>| match (Eof::mark(text), expected) {
            (Ok(mark), Ok(expected)) => assert_eq!(mark, expected, "{text}"),
            (Err(said), Err(expected)) => {
                assert!(said.contains(expected), "{said}");
                assert!(!said.contains('\n'), "{said}");
            }
            (came, expected) => panic!("{text}: {came:?}, not {expected:?}"),
        };
        check(r"\r\n", Ok(b"\r\n"));
        check(r"\0\t\\", Ok(b"\0\t\\"));
        check(r"\xff\x0A", Ok(b"\xff\n"));
        check("end", Ok(b"end"));
        check("§;", Ok("§;".as_bytes()));
        check("\r\n", Ok(b"\r\n"));
        check(r"\\n", Ok(br"\n"));
        check("", Err(r"0 bytes; a mark has 1 to 8, such as \r\n"));
        check("123456789", Err("9 bytes"));
        check(r"\x41\x41\x41\x41\x41\x41\x41\x41", Ok(b"AAAAAAAA"));
        check(r"\q", Err(r"\q, which is no escape; write \r"));
        check(r"a\", Err(r"ends with a single \; write"));
        check(r"\x", Err(r"has \x, which is no escape"));
        check(r"\x4", Err(r"has \x4, which"));
        check(r"\x4g", Err(r"has \x4g, which"));
        check(r"\x+4", Err(r"has \x+4, which"));
        check(r"\x4§", Err(r"has \x4§, which"));
        check(r"\§", Err(r"has \§, which"));
    }

    #[test]
    fn a_framing_that_could_not_work_is_refused() {
        assert!(Eof::new("", 10).is_err_and(|said| said.contains("1 to 8")));
        assert!(Eof::new("123456789", 10).is_err_and(|said| said.contains("1 to 8")));
        assert!(Eof::new("123", 2).is_err_and(|said| said.contains("longer frames")));
        assert_eq!(Eof::new("\r\n", 2 << 20), Ok(Eof::default()));
    }

    proptest! {
        #[test]
        fn it_is_what_splitting_the_whole_would_give(
            bytes in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..200),
            mark in "[ab]{1,8}",
            lengths in proptest::collection::vec(1usize..9, 0..40),
        ) {
            let eof = Eof::new(mark.as_str(), 150).expect("a framing");
            let text = String::from_utf8(bytes.clone()).expect("letters");
            let read = requests(&eof, &bytes, &lengths);
            prop_assert_eq!(&read.frames, &requests(&eof, &bytes, &[]).frames);
            let expected: Vec<_> = text.split_inclusive(&*mark).map(str::as_bytes).collect();
            if expected.iter().all(|frame| frame.len() <= 150) {
                let whole = expected.iter().filter(|frame| frame.ends_with(mark.as_bytes()));
                prop_assert_eq!(frames(&read), whole.copied().collect::<Vec<_>>());
            } else {
                prop_assert!(read.error.is_some());
            }
        }

        #[test]
        fn no_text_of_a_mark_panics(text in r"[\\xrn0-9a-f§+]{0,12}|.*") {
            let _ = Eof::mark(&text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let eof = Eof::new(bytes.iter().copied().take(2).chain([b'x']).collect::<Vec<_>>(), 20);
            let eof = eof.expect("a framing");
            let due = [Shape::default(); 100];
            let _ = splits::replies(&eof, &bytes, &[1; 100], &due);
            let _ = splits::requests(&eof, &bytes, &[3; 40]);
        }
    }
}
