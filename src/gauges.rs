//! The figures of one connection, which its actors write and the directory reads.
//!
//! The one thing that actors share. Each figure has a single writer and is only ever read by others, one at a time,
//! so relaxed atomics are enough and no lock is needed; a message per chunk to somebody who counts would cost more
//! than the chunk.

use crate::{Phase, Side};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};

/// Bytes each way, the phase, and how full the mailboxes were.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    client: SideGauges,
    backend: SideGauges,
    phase: AtomicU8,
}

#[derive(Debug, Default)]
struct SideGauges {
    read: AtomicU64,
    written: AtomicU64,
    high_water: AtomicUsize,
}

impl Gauges {
    fn side(&self, side: Side) -> &SideGauges {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
        }
    }

    pub(crate) fn add_read(&self, from: Side, bytes: usize) {
        add(&self.side(from).read, bytes);
    }

    pub(crate) fn add_written(&self, to: Side, bytes: usize) {
        add(&self.side(to).written, bytes);
    }

    /// The mailbox of the writer towards `to` was this full.
    pub(crate) fn saw_high_water(&self, to: Side, messages: usize) {
        self.side(to).high_water.store(messages, Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(crate) fn read(&self, from: Side) -> u64 {
        self.side(from).read.load(Relaxed)
    }

    pub(crate) fn written(&self, to: Side) -> u64 {
        self.side(to).written.load(Relaxed)
    }

    pub(crate) fn high_water(&self, to: Side) -> usize {
        self.side(to).high_water.load(Relaxed)
    }

    pub(crate) fn phase(&self) -> Phase {
        let phases = [Phase::Connect, Phase::Data, Phase::HalfClosed, Phase::Drain];
        phases[usize::from(self.phase.load(Relaxed)) % phases.len()]
    }

    /// A number that changes whenever anything moves: whoever sees it twice the same has seen an idle connection.
    pub(crate) fn motion(&self) -> u64 {
        let moved = |side: Side| self.read(side).wrapping_add(self.written(side));
        let bytes = moved(Side::Client).wrapping_add(moved(Side::Backend));
        // There are four phases: the two parts do not overlap before 2^62 bytes.
        bytes.wrapping_mul(4).wrapping_add(self.phase() as u64)
    }
}

/// There is one writer, so a load and a store do for a locked addition.
fn add(figure: &AtomicU64, bytes: usize) {
    figure.store(figure.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_that_moves_shows() {
        let gauges = Gauges::default();
        assert_eq!(gauges.phase(), Phase::Connect);
        let mut seen = vec![gauges.motion()];
        let mut check = |what: &str, gauges: &Gauges| {
            let motion = gauges.motion();
            assert!(!seen.contains(&motion), "{what}");
            seen.push(motion);
        };
        gauges.set_phase(Phase::Data);
        check("phase", &gauges);
        for side in [Side::Client, Side::Backend] {
            gauges.add_read(side, 1);
            check("read", &gauges);
            gauges.add_written(side, 1);
            check("written", &gauges);
        }
        assert_eq!(gauges.read(Side::Client), 1);
        assert_eq!(gauges.phase(), Phase::Data);
    }
}
