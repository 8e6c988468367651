//! Drops everything, and closes the connection in the end.

use super::super::stage::{Next, Played, Stage};
use super::super::toxic::Fault;
use std::time::Duration;

pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let mut began = stage.now();
    loop {
        let due = timeout(stage).and_then(|timeout| Stage::after(began, timeout));
        match stage.next_until(due).await? {
            Next::Chunk(dropped) => drop(dropped),
            Next::Changed => began = stage.now(),
            // Bytes are missing: what follows them must not pass for the rest of the stream.
            Next::Time | Next::Leave | Next::Fin => return Err(stage.close().await),
            Next::Lost => return Err(stage.end(Next::Lost).await),
        }
    }
}

/// None is never.
fn timeout(stage: &Stage) -> Option<Duration> {
    match stage.fault() {
        Some(Fault::Timeout { timeout }) if !timeout.is_zero() => Some(timeout),
        _ => None,
    }
}
