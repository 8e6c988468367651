//! What follows a head.

use super::Fault;
use super::chunked::Chunked;

/// What is still to come of a body.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Nothing: a head is next.
    None,
    /// So many bytes, at least one.
    Sized(u64),
    Chunked(Chunked),
    /// Whatever comes until the sender closes.
    UntilClose,
}

impl Body {
    pub(super) fn sized(length: u64) -> Body {
        if length == 0 { Body::None } else { Body::Sized(length) }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Body::None)
    }

    /// How many of `bytes` belong to it and can be passed on, and whether it ends with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        let (taken, ends) = match self {
            Body::None => (0, true),
            Body::Sized(left) => {
                let come = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= come as u64;
                (come, *left == 0)
            }
            Body::Chunked(chunked) => chunked.take(bytes)?,
            Body::UntilClose => (bytes.len(), false),
        };
        if ends {
            *self = Body::None;
        }
        Ok((taken, ends))
    }
}
