//! What a fuzzer's bytes stand for: the settings of a framing, some bytes that a peer may send, and how they come. The
//! targets in `fuzz/` and the test below, which repeats what they have found, call the same [`check`].
//!
//! ```text
//!   byte  0      1, 2                  3          4, 5   6, 7       from 8 on
//!         how    shapes, or settings   the cuts   place  how often  what comes
//! ```
//!
//! The first bit of `how` chooses the replies, the next three the limits. With the last, the byte at `place` of what comes
//! is repeated so many times more: a fuzzer does not make inputs that are long enough to be given in pieces.

#[cfg(feature = "http")]
use super::Http;
use super::splits::{Read, replies, requests, same};
use super::{Eof, Framing, Length, Line, Memcached, Resp, Shape, WHOLE};
use std::fmt::Debug;

/// Reads what `data` says at once and cut in some ways, and panics unless that is the same, and no more is held than may
/// be. What is too short says nothing, and neither does what stands for settings that are refused.
pub fn check(name: &str, data: &[u8]) {
    let Some((&[how, one, two, cuts, place @ .., more, often], came)) =
        data.split_first_chunk::<8>()
    else {
        return;
    };
    let Some((framing, most)) = framing(name, how >> 1, one, two) else { return };
    let mut bytes = came.to_vec();
    let place = usize::from(u16::from_be_bytes(place));
    if let Some(byte) = came.get(place).filter(|_| how & 0x80 != 0) {
        let often = usize::from(u16::from_be_bytes([more, often]));
        bytes.splice(place..place, std::iter::repeat_n(*byte, often));
    }
    if how & 1 == 0 {
        compare(&bytes, cuts, most, |lengths| requests(&*framing, &bytes, lengths));
    } else {
        let due = due(name, one, two, bytes.len());
        compare(&bytes, cuts, most, |lengths| replies(&*framing, &bytes, lengths, &due));
    }
}

/// The framing with these settings, and the most bytes that somebody may have to hold for it.
fn framing(name: &str, limit: u8, one: u8, two: u8) -> Option<(Box<dyn Framing>, usize)> {
    // Short ones, those about `WHOLE`, and one that nothing here reaches.
    let limits = [1, 9, 100, WHOLE - 1, WHOLE, WHOLE + 1, 40_000, 2 << 20];
    let max_frame = limits[usize::from(limit) % limits.len()];
    Some(match name {
        "line" => (Box::new(Line { max_frame }), WHOLE),
        "eof" => {
            // All marks of two letters, so that there is none whose beginning is not in it again.
            let mark = (0..=two % 8).map(|bit| if one >> bit & 1 == 0 { b'a' } else { b'b' });
            (Box::new(Eof::new(mark.collect::<Vec<_>>(), max_frame).ok()?), WHOLE)
        }
        "length" => {
            let letter = ["c", "C", "s", "n", "v", "l", "N", "V", "q", "Q", "J", "P"];
            let kind = letter[usize::from(one) % letter.len()].parse().ok()?;
            let (offset, body) = (usize::from(two % 4), usize::from(two / 4));
            (Box::new(Length::new(kind, offset, body, max_frame).ok()?), WHOLE)
        }
        "resp" => (Box::new(Resp { max_frame }), WHOLE),
        "memcached" => (Box::new(Memcached { max_frame }), 64 << 10),
        #[cfg(feature = "http")]
        "http" if limit.is_multiple_of(2) => (Box::new(Http::default()), 64 << 10),
        #[cfg(feature = "http")]
        "http" => (Box::new(Http { max_head: 200, max_fields: 3 }), WHOLE),
        _ => return None,
    })
}

/// The shapes of what is owed: two that take turns, and as many as two bits say.
fn due(name: &str, one: u8, two: u8, bytes: usize) -> Vec<Shape> {
    let shape = |byte: u8| match name {
        "memcached" => Shape(u32::from(byte & 15) | u32::from(byte >> 4 & 3) << 8),
        _ => Shape(u32::from(byte & 63)),
    };
    let count = [0, 1, 2, bytes][usize::from(one >> 6)];
    [shape(one), shape(two)].into_iter().cycle().take(count).collect()
}

fn compare<T: PartialEq + Debug>(
    bytes: &[u8],
    cuts: u8,
    most: usize,
    read: impl Fn(&[usize]) -> Read<T>,
) {
    let whole = read(&[]);
    let mut state = u32::from(cuts);
    // Sometimes none: whoever asks again without more gets no other answer.
    let mut some = |most: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % most
    };
    // Thousands of cuts are enough, or a fuzzer would be slow. But sometimes each byte comes alone even of what is long, so
    // that whoever looks at the same bytes again and again is noticed.
    let rough = if cuts.is_multiple_of(16) { 1 } else { 1 + bytes.len() / 4000 };
    let short: Vec<_> = (0..bytes.len() / rough).map(|_| some(12 * rough)).collect();
    let long: Vec<_> = (0..bytes.len() / 1000).map(|_| some(40_000)).collect();
    for (how, lengths) in [
        ("one at a time", vec![rough; bytes.len() / rough]),
        ("in short pieces", short),
        ("in long pieces", long),
        ("in the longest that are whole", vec![WHOLE; bytes.len() / WHOLE]),
    ] {
        let cut = read(&lengths);
        same(&whole, &cut, how);
        assert!(cut.held <= most, "{how}: {} bytes are held", cut.held);
    }
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_fuzzing_has_found_stays_right() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for name in ["line", "eof", "length", "resp", "memcached", "http"] {
            let folder = corpus.join(name);
            let files = folder.read_dir().expect("a folder of the corpus");
            let mut count = 0;
            for file in files {
                let data = std::fs::read(file.expect("a file").path()).expect("a readable file");
                check(name, &data);
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }
}
