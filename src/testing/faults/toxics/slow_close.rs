//! Holds back the end of the stream.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use std::time::Duration;

pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let end = loop {
        match stage.next().await? {
            Next::Chunk(chunk) => stage.pass(chunk).await?,
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
            end @ (Next::Fin | Next::Lost) => break end,
        }
    };
    let ended = stage.now();
    loop {
        let due = Stage::after(ended, delay(stage));
        if let Next::Time | Next::Leave = stage.wait_until(due).await? {
            return Err(stage.end(end).await);
        }
    }
}

fn delay(stage: &Stage) -> Duration {
    match stage.fault() {
        Some(Fault::SlowClose { delay }) => delay,
        _ => Duration::ZERO,
    }
}
