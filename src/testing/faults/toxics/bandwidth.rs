//! Passes so many bytes in a second.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use super::split;
use std::time::{Duration, Instant};

/// The longest rest between two parts of a chunk.
const REST: Duration = Duration::from_millis(100);

/// A timer is late, never early: this much lateness is made good, so that the rate comes out right.
const LATENESS: Duration = Duration::from_millis(10);

pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let mut free = stage.now();
    loop {
        match stage.next().await? {
            Next::Chunk(mut chunk) => {
                while !chunk.is_empty() {
                    let rate = rate(stage);
                    let most = rate.saturating_mul(REST.as_millis() as u64).max(1);
                    let part = most.min(chunk.len() as u64);
                    // 0 passes nothing, until that changes.
                    let due = (rate > 0).then(|| since(free, stage.now()) + cost(part, rate));
                    match stage.wait_until(due).await? {
                        Next::Time => {
                            free = due.unwrap_or(free);
                            stage.pass(split(&mut chunk, part)).await?;
                        }
                        Next::Leave => {
                            stage.pass(chunk).await?;
                            return Err(Stop::Left);
                        }
                        _ => {}
                    }
                }
            }
            Next::Changed | Next::Time => {}
            Next::Leave => return Err(Stop::Left),
            end @ (Next::Fin | Next::Lost) => return Err(stage.end(end).await),
        }
    }
}

/// From when on the next part is paid for: a line that was idle has saved nothing.
fn since(free: Instant, now: Instant) -> Instant {
    free.max(now.checked_sub(LATENESS).unwrap_or(now))
}

fn cost(bytes: u64, rate: u64) -> Duration {
    // `rate` is in bytes per millisecond; a part takes a tenth of a second at the most.
    Duration::from_nanos(bytes.saturating_mul(1_000_000) / rate)
}

fn rate(stage: &Stage) -> u64 {
    match stage.fault() {
        Some(Fault::Bandwidth { rate }) => rate,
        _ => 0,
    }
}
