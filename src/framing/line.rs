//! A frame is a line: bytes up to a LF, which belongs to it, as does a CR before it.

use super::plain::{Marked, Plain};
use super::{Framing, Replies, Requests, Shape, Trouble};

/// One line, one request; one line, one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The longest line, its end included, in bytes.
    pub max_frame: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { max_frame: 2 << 20 }
    }
}

impl Framing for Line {
    fn name(&self) -> &'static str {
        "line"
    }

    fn requests(&self) -> Box<dyn Requests> {
        Box::new(Plain(Marked::new(b"\n", self.max_frame)))
    }

    fn replies(&self) -> Box<dyn Replies> {
        Box::new(Plain(Marked::new(b"\n", self.max_frame)))
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
    use super::super::Reply;
    use super::super::splits::{every_split, replies, requests};
    use super::*;

    #[test]
    fn a_line_ends_at_its_lf_however_it_comes() {
        let line = Line { max_frame: 6 };
        let check = |bytes: &[u8], frames: &[&str], rest: &str, error: &str| {
            let read = every_split(bytes, |bytes, lengths| requests(&line, bytes, lengths));
            let seen: Vec<_> = read.frames.iter().map(|(frame, _)| frame.as_slice()).collect();
            let frames: Vec<_> = frames.iter().map(|frame| frame.as_bytes()).collect();
            assert_eq!(seen, frames, "{bytes:?}");
            let said = read.error.map(|error| error.why).unwrap_or_default();
            assert!(said.contains(error) && said.is_empty() == error.is_empty(), "{said}");
            if error.is_empty() {
                assert_eq!(read.rest, rest.as_bytes());
            }
        };
        check(b"", &[], "", "");
        check(b"a\nbc\r\n\n\r\n", &["a\n", "bc\r\n", "\n", "\r\n"], "", "");
        check(b"a\nbc\r", &["a\n"], "bc\r", "");
        check(b"12345\n123456", &["12345\n"], "123456", "");
        check(b"12345\n1234567", &["12345\n"], "", "longer than 6");
        check(b"123456\n", &[], "", "longer than 6");
    }

    #[test]
    fn a_reply_comes_only_where_one_is_due() {
        let line = Line::default();
        let read = replies(&line, b"one\ntwo\n", &[], &[Shape::default()]);
        assert_eq!(read.frames, [(b"one\n".to_vec(), Reply::PLAIN)]);
        assert_eq!(
            read.error.map(|error| error.why).as_deref(),
            Some("something came that nobody asked for")
        );
    }
}
