//! Every wait of a test ends: by what it waits for, or by a panic that says what that was.

use crate::runtime::{AsyncStd, timeout};
use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

/// How long a wait lasts unless a test says otherwise. It is no measure of speed: only a test that fails takes so long.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for at most `patience`, or for ever; `None` when that was not enough.
pub(crate) async fn within<T>(
    patience: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match patience {
        Some(time) => timeout(&AsyncStd, time, future).await,
        None => Some(future.await),
    }
}

/// The panic of a wait that was not ready in time: `who` waited for `what` at `place`, and this is how far it was.
pub(crate) fn late(who: &str, what: impl Display, place: &Location<'_>, state: impl Display) -> ! {
    panic!("{who} waited too long for {what}, at {place}; {state}")
}

/// Bytes for a person: how many, and the last of them.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let tail = &bytes[bytes.len().saturating_sub(SHOWN)..];
    let before = if tail.len() < bytes.len() { "... " } else { "" };
    format!("{} bytes: {before}\"{}\"", bytes.len(), tail.escape_ascii())
}
