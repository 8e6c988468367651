//! Where a frame is whole, and where it comes in pieces, for whoever reads it from its first byte to its last.
//!
//! A frame that has not ended with its first [`WHOLE`] bytes is long: these are its first piece, and whatever comes behind
//! is passed on as it comes. So nothing depends on how the bytes came, and nobody holds more than [`WHOLE`].

use super::{Malformed, Piece, WHOLE};

/// How far a frame was read, and whether its first piece was given.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Bytes behind the last piece that were read already.
    seen: usize,
    /// The frame is long, and its first piece was given.
    begun: bool,
}

/// What [`Pieces::next`] cuts off.
pub(super) struct Slice {
    pub(super) bytes: usize,
    pub(super) begins: bool,
    pub(super) ends: bool,
}

impl Pieces {
    /// Lets `read` read what it has not read yet: it takes at least one byte of what it is shown, and says how many and
    /// whether they end the frame. Cuts off the frame, if it has ended, or a piece of it, if it is long.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        mut read: impl FnMut(&[u8]) -> Result<(usize, bool), Malformed>,
    ) -> Result<Option<Slice>, Malformed> {
        let most = if self.begun { bytes.len() } else { bytes.len().min(WHOLE) };
        let mut ends = false;
        while !ends && self.seen < most {
            let taken;
            (taken, ends) = read(&bytes[self.seen..most])?;
            self.seen += taken;
        }
        if ends || (self.seen > 0 && (self.begun || self.seen == WHOLE)) {
            let slice = Slice { bytes: self.seen, begins: !self.begun, ends };
            *self = Pieces { seen: 0, begun: !ends };
            return Ok(Some(slice));
        }
        Ok(None)
    }
}

impl Slice {
    pub(super) fn piece<T>(self, begins: Option<T>, instead: Option<Vec<u8>>) -> Piece<T> {
        Piece { bytes: self.bytes, begins, ends: self.ends, instead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_twice() {
        let bytes = vec![b'x'; 3 * WHOLE];
        for length in [WHOLE, bytes.len()] {
            let (mut pieces, mut read, mut given, mut count) = (Pieces::default(), 0, 0, 0);
            for end in 1..=length {
                let slice = pieces.next(&bytes[given..end], |new| {
                    read += new.len();
                    Ok((new.len(), read == length))
                });
                let Some(slice) = slice.expect("no error") else { continue };
                assert_eq!((slice.begins, slice.ends), (given == 0, end == length));
                given += slice.bytes;
                count += 1;
            }
            assert_eq!((read, given), (length, length));
            // The first piece, and then each byte as it came.
            assert_eq!(count, 1 + length - WHOLE);
        }
    }
}
