//! What every framing is held to: however the bytes are cut, they are the same frames, and whatever they are, nobody
//! panics.

use super::{Framing, Malformed, Piece, Replies, Reply, Request, Requests, Shape};

/// What came of some bytes: each frame, as it is passed on, with its meaning; then how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read<T> {
    pub(crate) frames: Vec<(Vec<u8>, T)>,
    /// Bytes of a frame that has not ended.
    pub(crate) rest: Vec<u8>,
    pub(crate) error: Option<Malformed>,
}

/// Feeds `bytes`, as if they came in these lengths (and then the rest at once).
pub(crate) fn read<T: Clone>(
    bytes: &[u8],
    lengths: &[usize],
    mut next: impl FnMut(&[u8], &[(Vec<u8>, T)]) -> Result<Option<Piece<T>>, Malformed>,
) -> Read<T> {
    let mut read = Read { frames: Vec::new(), rest: Vec::new(), error: None };
    let (mut begun, mut whole): (Option<T>, Vec<u8>) = (None, Vec::new());
    let (mut start, mut end) = (0, 0);
    let mut lengths = lengths.iter();
    while end < bytes.len() {
        end = lengths.next().map_or(bytes.len(), |length| (end + length).min(bytes.len()));
        while start < end {
            let piece = match next(&bytes[start..end], &read.frames) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    read.rest = whole;
                    read.error = Some(error);
                    return read;
                }
            };
            assert!(piece.bytes > 0, "a piece has at least one byte");
            assert!(start + piece.bytes <= end, "a piece is no longer than what has come");
            assert_eq!(piece.begins.is_some(), begun.is_none(), "the first piece says what it is");
            begun = begun.or(piece.begins);
            match piece.instead {
                Some(instead) => whole.extend_from_slice(&instead),
                None => whole.extend_from_slice(&bytes[start..start + piece.bytes]),
            }
            start += piece.bytes;
            if piece.ends {
                let meaning = begun.take().expect("it has begun");
                read.frames.push((std::mem::take(&mut whole), meaning));
            }
        }
    }
    whole.extend_from_slice(&bytes[start..end]);
    read.rest = whole;
    read
}

/// Reads the requests of one client.
pub(crate) fn requests(framing: &dyn Framing, bytes: &[u8], lengths: &[usize]) -> Read<Request> {
    let mut requests: Box<dyn Requests> = framing.requests();
    read(bytes, lengths, |bytes, _| requests.next(bytes))
}

/// Reads the replies of a trunk that owes replies of these shapes, one each.
pub(crate) fn replies(
    framing: &dyn Framing,
    bytes: &[u8],
    lengths: &[usize],
    due: &[Shape],
) -> Read<Reply> {
    let mut replies: Box<dyn Replies> = framing.replies();
    read(bytes, lengths, |bytes, frames: &[(Vec<u8>, Reply)]| {
        let popped = frames.iter().filter(|(_, reply)| reply.pops).count();
        replies.next(bytes, due.get(popped).copied())
    })
}

/// Cuts the bytes in two at every place, and then into single bytes: it must all read the same.
pub(crate) fn every_split<T: Clone + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8], &[usize]) -> Read<T>,
) -> Read<T> {
    let whole = read(bytes, &[]);
    // An error may be seen before the bytes behind it have come: what is left over is not compared.
    let same = |other: Read<T>, how: &str| {
        assert_eq!(other.frames, whole.frames, "{how}");
        assert_eq!(other.error, whole.error, "{how}");
        if whole.error.is_none() {
            assert_eq!(other.rest, whole.rest, "{how}");
        }
    };
    // A long body needs no cut at every place.
    let step = 1 + bytes.len() / 4000;
    for place in (1..bytes.len()).step_by(step) {
        same(read(bytes, &[place]), &format!("cut at {place}"));
    }
    for length in [1, 2, 3, 7] {
        same(read(bytes, &vec![length; bytes.len() / length]), &format!("{length} at a time"));
    }
    whole
}
