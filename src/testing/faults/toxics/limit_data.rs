//! Closes the connection once so many bytes have passed.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use super::split;

pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let first = stage.offset();
    loop {
        match stage.next().await? {
            Next::Chunk(mut chunk) => {
                let room = bytes(stage).saturating_sub(stage.offset() - first);
                let last = chunk.len() as u64 >= room;
                if room > 0 {
                    stage.pass(split(&mut chunk, room)).await?;
                }
                if last {
                    return Err(stage.close().await);
                }
            }
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
            end @ (Next::Fin | Next::Lost) => return Err(stage.end(end).await),
        }
    }
}

fn bytes(stage: &Stage) -> u64 {
    match stage.fault() {
        Some(Fault::LimitData { bytes }) => bytes,
        _ => 0,
    }
}
