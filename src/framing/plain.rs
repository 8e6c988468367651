//! What the framings share that know where a frame ends and nothing else: one frame, one request; one frame, one reply.

use super::pieces::Pieces;
use super::{Action, Binding, Count, Malformed, Piece, Replies, Reply, Request, Requests, Shape};

/// Says where the frames of one direction end.
pub(super) trait Cut: Send {
    /// As for [`Requests::next`].
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<()>>, Malformed>;
}

/// Reads both directions alike.
pub(super) struct Plain<C>(pub(super) C);

impl<C: Cut> Requests for Plain<C> {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<Request>>, Malformed> {
        Ok(self.0.next(bytes)?.map(|piece| meaning(piece, plain())))
    }
}

impl<C: Cut> Replies for Plain<C> {
    fn next(
        &mut self,
        bytes: &[u8],
        due: Option<Shape>,
    ) -> Result<Option<Piece<Reply>>, Malformed> {
        if due.is_none() && !bytes.is_empty() {
            return Err(Malformed::new("something came that nobody asked for"));
        }
        Ok(self.0.next(bytes)?.map(|piece| meaning(piece, Reply::PLAIN)))
    }
}

fn meaning<T>(piece: Piece<()>, meaning: T) -> Piece<T> {
    let Piece { bytes, begins, ends, instead } = piece;
    Piece { bytes, begins: begins.map(|()| meaning), ends, instead }
}

/// A request of which nothing is known but where it ends.
fn plain() -> Request {
    Request {
        action: Action::Forward,
        replies: Count::Exactly(1),
        shape: Shape::default(),
        binding: Binding::Shared,
        idempotent: false,
        last: false,
        waits: false,
    }
}

/// A frame ends with a mark, and holds none before.
pub(super) struct Marked {
    /// At least one byte.
    mark: Vec<u8>,
    max_frame: usize,
    pieces: Pieces,
    /// Bytes of the frame that were read.
    length: usize,
    /// So many bytes of the mark are the last that were read. They may have been passed on: a mark can straddle pieces.
    matched: usize,
}

impl Marked {
    /// The mark has at least one byte.
    pub(super) fn new(mark: &[u8], max_frame: usize) -> Marked {
        let mark = mark.to_vec();
        Marked { mark, max_frame, pieces: Pieces::default(), length: 0, matched: 0 }
    }

    /// Looks for the end of the frame, at each byte once. Says how many bytes it took, and whether they end the frame.
    fn read(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut taken = 0;
        while taken < bytes.len() && self.matched < self.mark.len() {
            if self.matched == 0 {
                // Quick, for most bytes are none of a mark.
                let rest = &bytes[taken..];
                taken += rest.iter().take_while(|byte| **byte != self.mark[0]).count();
            }
            let Some(byte) = bytes.get(taken) else { break };
            while self.mark[self.matched] != *byte && self.matched > 0 {
                self.matched = border(&self.mark[..self.matched]);
            }
            self.matched += usize::from(self.mark[self.matched] == *byte);
            taken += 1;
        }
        self.length += taken;
        if self.length > self.max_frame {
            let most = self.max_frame;
            return Err(Malformed::new(format!("a frame is longer than {most} bytes")));
        }
        let ends = self.matched == self.mark.len();
        if ends {
            (self.length, self.matched) = (0, 0);
        }
        Ok((taken, ends))
    }
}

/// How many of its first bytes a part of a mark ends with again, if not with all of them.
fn border(part: &[u8]) -> usize {
    (0..part.len()).rev().find(|length| part.ends_with(&part[..*length])).unwrap_or_default()
}

impl Cut for Marked {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<()>>, Malformed> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let slice = pieces.next(bytes, |bytes| self.read(bytes));
        self.pieces = pieces;
        Ok(slice?.map(|slice| {
            let begins = slice.begins.then_some(());
            slice.piece(begins, None)
        }))
    }
}
