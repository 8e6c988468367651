//! Breaks off the connection.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use std::time::Duration;

/// `met` says that the byte behind which the connection is to break off has passed already.
pub(in super::super) async fn play(stage: &mut Stage, met: bool) -> Played {
    let mut end = None;
    while !met {
        match stage.next().await? {
            Next::Chunk(chunk) => {
                stage.put_back(chunk);
                break;
            }
            Next::Fin => {
                end = Some(Next::Fin);
                break;
            }
            Next::Lost => return Err(stage.end(Next::Lost).await),
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
        }
    }
    let began = stage.now();
    loop {
        let due = began + timeout(stage);
        match stage.wait_until(Some(due)).await? {
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

fn timeout(stage: &Stage) -> Duration {
    match stage.fault() {
        Some(Fault::ResetPeer { timeout }) => timeout,
        _ => Duration::ZERO,
    }
}
