//! What each toxic does with the bytes: one toxic, one file, one loop.
//!
//! Each loop ends only by [`Stop`]: it waits for what happens next, and passes on what it will. When it hears `Leave`
//! it lets go of all that it holds. The place in the line around it ([`Stage`]) sees to everything else.

pub(super) mod bandwidth;
pub(super) mod latency;
pub(super) mod limit_data;
pub(super) mod reset_peer;
pub(super) mod slicer;
pub(super) mod slow_close;
pub(super) mod timeout;

use super::stage::{Next, Played, Stage, Stop};
use crate::socket::Chunk;

/// No toxic: passes everything on.
pub(super) async fn pass_all(stage: &mut Stage) -> Played {
    pass_until(stage, u64::MAX).await?;
    Err(Stop::Left)
}

/// Passes everything on, up to the byte at `offset`.
pub(super) async fn pass_until(stage: &mut Stage, offset: u64) -> Result<(), Stop> {
    while stage.offset() < offset {
        match stage.next().await? {
            Next::Chunk(mut chunk) => {
                let first = split(&mut chunk, offset - stage.offset());
                if !chunk.is_empty() {
                    stage.put_back(chunk);
                }
                stage.pass(first).await?;
            }
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
            end @ (Next::Fin | Next::Lost) => return Err(stage.end(end).await),
        }
    }
    Ok(())
}

/// Takes the first bytes off a chunk, `most` of them.
fn split(chunk: &mut Chunk, most: u64) -> Chunk {
    match usize::try_from(most) {
        Ok(most) if most < chunk.len() => {
            let first = chunk.part(0..most);
            chunk.advance(most);
            first
        }
        _ => std::mem::take(chunk),
    }
}
