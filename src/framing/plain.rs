//! What the framings share that know where a frame ends and nothing else: one frame, one request; one frame, one reply.

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
    /// No mark begins before this place.
    searched: usize,
}

impl Marked {
    /// The mark has at least one byte.
    pub(super) fn new(mark: &[u8], max_frame: usize) -> Marked {
        Marked { mark: mark.to_vec(), max_frame, searched: 0 }
    }
}

impl Cut for Marked {
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece<()>>, Malformed> {
        let searched = self.searched.min(bytes.len());
        let mut places = bytes[searched..].windows(self.mark.len());
        let found = places.position(|place| place == self.mark);
        let length = found.map(|place| searched + place + self.mark.len());
        if length.unwrap_or(bytes.len()) > self.max_frame {
            let most = self.max_frame;
            return Err(Malformed::new(format!("a frame is longer than {most} bytes")));
        }
        // The mark may have begun in what has come, and end in what has not.
        let begun = self.mark.len() - 1;
        self.searched = if length.is_some() { 0 } else { bytes.len().saturating_sub(begun) };
        Ok(length.map(|length| Piece::whole(length, ())))
    }
}
