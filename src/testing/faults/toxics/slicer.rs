//! Passes the bytes in small pieces.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use super::split;
use futures_lite::future::yield_now;
use std::time::Duration;

/// Where the pieces end depends on their offsets alone. What has come is not held back to complete a piece: its rest
/// goes on in a piece of its own, up to the same end.
pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let mut end_of_piece = stage.offset();
    loop {
        match stage.next().await? {
            Next::Chunk(mut chunk) => {
                while !chunk.is_empty() {
                    if stage.offset() >= end_of_piece {
                        let length = length(stage, stage.offset());
                        end_of_piece = stage.offset().saturating_add(length);
                    }
                    let piece = split(&mut chunk, end_of_piece - stage.offset());
                    stage.pass(piece).await?;
                    // The writer puts what has gathered into one write, so it is given its turn first.
                    yield_now().await;
                    let due = Stage::after(stage.now(), delay(stage));
                    if let Next::Leave = stage.wait_until(due).await? {
                        if !chunk.is_empty() {
                            stage.pass(chunk).await?;
                        }
                        return Err(Stop::Left);
                    }
                }
            }
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
            end @ (Next::Fin | Next::Lost) => return Err(stage.end(end).await),
        }
    }
}

fn length(stage: &Stage, offset: u64) -> u64 {
    let Some(Fault::Slicer { average_size, size_variation, .. }) = stage.fault() else { return 1 };
    let more = stage.roll(offset, size_variation.saturating_mul(2));
    average_size.saturating_add(more).saturating_sub(size_variation).max(1)
}

fn delay(stage: &Stage) -> Duration {
    match stage.fault() {
        Some(Fault::Slicer { delay, .. }) => delay,
        _ => Duration::ZERO,
    }
}
