//! Holds every chunk back for a time.

use super::super::stage::{Next, Played, Stage, Stop};
use super::super::toxic::Fault;
use crate::socket::Chunk;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Chunks that are held at most: a line has a length, and who sends more into it has to wait.
const MOST: usize = 1024;
/// The same in bytes; the last chunk may go beyond it.
const MOST_BYTES: usize = 4 << 20;

/// A chunk this small is copied out of its buffer, which may be a hundred times as long.
const SMALL: usize = 4 << 10;

struct Held {
    chunk: Chunk,
    offset: u64,
    arrived: Instant,
}

/// Whatever is held when the settings change is held by the new ones, counted from when it came.
pub(in super::super) async fn play(stage: &mut Stage) -> Played {
    let mut held: VecDeque<Held> = VecDeque::new();
    let (mut end, mut bytes) = (None, 0);
    loop {
        let due = held.front().map(|first| Stage::after(first.arrived, delay(stage, first.offset)));
        let happens = match (due, end.take()) {
            (None, Some(end)) => return Err(stage.end(end).await),
            (due, Some(ended)) => {
                end = Some(ended);
                stage.wait_until(due.flatten()).await?
            }
            (due, None) if held.len() < MOST && bytes < MOST_BYTES => {
                stage.next_until(due.flatten()).await?
            }
            (due, None) => stage.wait_until(due.flatten()).await?,
        };
        match happens {
            Next::Chunk(chunk) => {
                let (offset, arrived) = (stage.offset_of(&chunk), stage.now());
                let small = chunk.len() < SMALL;
                let chunk = if small { Chunk::from(chunk.to_vec()) } else { chunk };
                bytes += chunk.len();
                held.push_back(Held { chunk, offset, arrived });
            }
            Next::Time => {
                if let Some(first) = held.pop_front() {
                    bytes -= first.chunk.len();
                    stage.pass(first.chunk).await?;
                }
            }
            ended @ (Next::Fin | Next::Lost) => end = Some(ended),
            Next::Changed => {}
            Next::Leave => {
                for held in held {
                    stage.pass(held.chunk).await?;
                }
                return Err(match end {
                    Some(end) => stage.end(end).await,
                    None => Stop::Left,
                });
            }
        }
    }
}

fn delay(stage: &Stage, offset: u64) -> Duration {
    let Some(Fault::Latency { latency, jitter }) = stage.fault() else { return Duration::ZERO };
    let twice = u64::try_from(jitter.as_nanos().saturating_mul(2)).unwrap_or(u64::MAX);
    let more = Duration::from_nanos(stage.roll(offset, twice));
    latency.saturating_add(more).saturating_sub(jitter)
}
