//! Breaks off the connection.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use std::time::Duration;

/// `met` says that the byte behind which the connection is to break off has passed already.
pub(in super::super) async fn play(stage: &mut Stage, met: bool) -> Played {
    let end = if met { None } else { first(stage).await? };
    let began = stage.now();
    loop {
        let due = Stage::after(began, timeout(stage));
        match stage.wait_until(due).await? {
            Next::Time => return Err(stage.reset()),
            Next::Leave => {
                return Err(match end {
                    Some(end) => stage.end(end).await,
                    None => Stop::Left,
                });
            }
            _ => {}
        }
    }
}

/// Waits for the first that comes, and leaves it where it is; the end of the stream is given.
async fn first(stage: &mut Stage) -> Result<Option<Next>, Stop> {
    loop {
        match stage.next().await? {
            Next::Chunk(chunk) => {
                stage.put_back(chunk);
                return Ok(None);
            }
            Next::Fin => return Ok(Some(Next::Fin)),
            Next::Lost => return Err(stage.end(Next::Lost).await),
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
        }
    }
}

fn timeout(stage: &Stage) -> Duration {
    match stage.fault() {
        Some(Fault::ResetPeer { timeout }) => timeout,
        _ => Duration::ZERO,
    }
}
