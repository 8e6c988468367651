//! One message behind another: what requests and replies have in common.

use super::body::Body;
use super::head::Search;
use super::{Fault, Http};
use crate::framing::{Piece, WHOLE};

/// What was made of a head.
pub(super) struct Message<T> {
    pub(super) meaning: T,
    /// The head as it is passed on, if that is not how it came.
    pub(super) instead: Option<Vec<u8>>,
    pub(super) body: Body,
    /// Whether the head is passed on before the body has come, however short that is.
    pub(super) at_once: bool,
}

/// Cuts what comes into messages.
pub(super) struct Messages<T> {
    search: Search,
    /// A head that was read, and its length, while its short body has not come.
    held: Option<(Message<T>, usize)>,
    body: Body,
}

impl<T> Messages<T> {
    pub(super) fn new(limits: &Http) -> Messages<T> {
        Messages { search: Search::new(limits), held: None, body: Body::None }
    }

    /// Whether the next byte is the first of a head, or one of a head that has not ended.
    pub(super) fn in_head(&self) -> bool {
        self.body.is_none() && self.held.is_none()
    }

    /// Whether the next bytes belong to a body that only a close ends.
    pub(super) fn until_close(&self) -> bool {
        matches!(self.body, Body::UntilClose)
    }

    /// The next piece. `understand` reads a head, which has so many lines besides its last, and is asked once for each.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        understand: impl FnOnce(&[u8], usize) -> Result<Message<T>, Fault>,
    ) -> Result<Option<Piece<T>>, Fault> {
        if !self.body.is_none() {
            let (taken, ends) = self.body.take(bytes)?;
            let piece = Piece { bytes: taken, begins: None, ends, instead: None };
            return Ok((taken > 0).then_some(piece));
        }
        let (message, head) = match self.held.take() {
            Some(held) => held,
            None => match self.search.end(bytes)? {
                Some((head, lines)) => (understand(&bytes[..head], lines)?, head),
                None => return Ok(None),
            },
        };
        let whole = match message.body {
            Body::None => Some(head),
            Body::Sized(length) if !message.at_once => usize::try_from(length)
                .ok()
                .and_then(|length| head.checked_add(length))
                .filter(|whole| *whole <= WHOLE),
            _ => None,
        };
        let Some(whole) = whole else {
            self.body = message.body;
            let (begins, instead) = (Some(message.meaning), message.instead);
            return Ok(Some(Piece { bytes: head, begins, ends: false, instead }));
        };
        let Some(body) = bytes.get(head..whole) else {
            self.held = Some((message, head));
            return Ok(None);
        };
        let instead = message.instead.map(|mut head| {
            head.extend_from_slice(body);
            head
        });
        Ok(Some(Piece { bytes: whole, begins: Some(message.meaning), ends: true, instead }))
    }
}
