//! What every framing is held to: however the bytes are cut, they are the same frames, and whatever they are, nobody
//! panics. The unit tests hold it to that with bytes that somebody has thought of, `fuzz/` with all others.

use super::{Framing, Malformed, Piece, Replies, Reply, Request, Requests, Shape};

/// What came of some bytes: each frame, as it is passed on, with its meaning; then how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// Those that have ended.
    pub frames: Vec<(Vec<u8>, T)>,
    /// Which of them came in one piece.
    pub whole: Vec<bool>,
    /// What the frame means of which a part was passed on, and whose end has not come.
    pub begun: Option<T>,
    /// Bytes of a frame that has not ended.
    pub rest: Vec<u8>,
    /// The most bytes that had come and not been passed on, while more were asked for.
    pub held: usize,
    /// What ended it.
    pub error: Option<Malformed>,
}

/// Feeds `bytes`, as if they came in these lengths (and then the rest at once).
pub fn read<T: Clone>(
    bytes: &[u8],
    lengths: &[usize],
    mut next: impl FnMut(&[u8], &[(Vec<u8>, T)]) -> Result<Option<Piece<T>>, Malformed>,
) -> Read<T> {
    let (frames, whole, rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = Read { frames, whole, begun: None, rest, held: 0, error: None };
    let (mut start, mut end) = (0, 0);
    let mut lengths = lengths.iter();
    while end < bytes.len() {
        end = lengths.next().map_or(bytes.len(), |length| (end + length).min(bytes.len()));
        while start < end {
            let piece = match next(&bytes[start..end], &read.frames) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            };
            assert!(piece.bytes > 0, "a piece has at least one byte");
            assert!(start + piece.bytes <= end, "a piece is no longer than what has come");
            assert_eq!(piece.begins.is_some(), read.begun.is_none(), "the first says what it is");
            let first = piece.begins.is_some();
            let meaning = read.begun.take().or(piece.begins);
            match piece.instead {
                Some(instead) => read.rest.extend_from_slice(&instead),
                None => read.rest.extend_from_slice(&bytes[start..start + piece.bytes]),
            }
            start += piece.bytes;
            match meaning {
                Some(meaning) if piece.ends => {
                    read.frames.push((std::mem::take(&mut read.rest), meaning));
                    read.whole.push(first);
                }
                meaning => read.begun = meaning,
            }
        }
        if start == end {
            let nothing = next(&[], &read.frames);
            assert!(matches!(nothing, Ok(None)), "of nothing there is no piece");
        }
        read.held = read.held.max(end - start);
    }
    read.rest.extend_from_slice(&bytes[start..end]);
    read
}

/// Reads the requests of one client.
pub fn requests(framing: &dyn Framing, bytes: &[u8], lengths: &[usize]) -> Read<Request> {
    let mut requests: Box<dyn Requests> = framing.requests();
    read(bytes, lengths, |bytes, _| requests.next(bytes))
}

/// Reads the replies of a trunk that owes replies of these shapes, one each.
pub fn replies(
    framing: &dyn Framing,
    bytes: &[u8],
    lengths: &[usize],
    due: &[Shape],
) -> Read<Reply> {
    let mut replies: Box<dyn Replies> = framing.replies();
    let (mut counted, mut popped) = (0, 0);
    read(bytes, lengths, |bytes, frames: &[(Vec<u8>, Reply)]| {
        popped += frames[counted..].iter().filter(|(_, reply)| reply.pops).count();
        counted = frames.len();
        replies.next(bytes, due.get(popped).copied())
    })
}

/// Whatever the lengths: the same. `how` says which they were.
pub fn same<T: PartialEq + std::fmt::Debug>(one: &Read<T>, other: &Read<T>, how: &str) {
    assert_eq!(other.frames, one.frames, "{how}");
    assert_eq!(other.whole, one.whole, "{how}");
    assert_eq!(other.begun, one.begun, "{how}");
    assert_eq!(other.error, one.error, "{how}");
    // An error may be seen before the bytes behind it have come: what is left over is not compared.
    if one.error.is_none() {
        assert_eq!(other.rest, one.rest, "{how}");
    }
}

/// Cuts the bytes in two at every place, and then into single bytes: it must all read the same.
#[cfg(test)]
pub(crate) fn every_split<T: Clone + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8], &[usize]) -> Read<T>,
) -> Read<T> {
    let whole = read(bytes, &[]);
    // A long body needs no cut at every place.
    let step = 1 + bytes.len() / 4000;
    for place in (1..bytes.len()).step_by(step) {
        same(&whole, &read(bytes, &[place]), &format!("cut at {place}"));
    }
    for length in [1, 2, 3, 7] {
        let other = read(bytes, &vec![length; bytes.len() / length]);
        same(&whole, &other, &format!("{length} at a time"));
    }
    whole
}
