//! A run with everything that its actors said.

use super::{Broken, Outcome, World, simulate, simulate_muxed, simulate_pooled};
use log::kv::Key;
use log::{LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Once;

/// A run and its trace.
#[non_exhaustive]
pub struct Traced {
    /// How it came out.
    pub outcome: Result<Outcome, Broken>,
    /// A line for each step of each actor, with the simulated time: the same for the same seed, to the byte.
    pub trace: String,
}

/// Simulates one run, and keeps what the actors log at trace level. Takes over the logger of the process, and its level
/// while it runs; if the process has a logger already, the trace stays empty.
pub fn traced(seed: u64) -> Traced {
    trace(seed, simulate)
}

/// The same for [`run_pooled`](super::run_pooled).
pub fn traced_pooled(seed: u64) -> Traced {
    trace(seed, simulate_pooled)
}

/// The same for [`run_muxed`](super::run_muxed).
pub fn traced_muxed(seed: u64) -> Traced {
    trace(seed, simulate_muxed)
}

fn trace(seed: u64, simulate: fn(&World) -> Result<Outcome, String>) -> Traced {
    static START: Once = Once::new();
    START.call_once(|| {
        // An error means that there is another logger.
        let _ = log::set_logger(&Tracer);
    });
    let world = World::new(seed);
    TRACE.with_borrow_mut(|trace| *trace = Some((world.clone(), String::new())));
    let level = log::max_level();
    log::set_max_level(LevelFilter::Trace);
    let outcome = simulate(&world);
    log::set_max_level(level);
    let trace = TRACE.take().map(|(_, trace)| trace).unwrap_or_default();
    world.clear();
    Traced { outcome: outcome.map_err(|promise| Broken { seed, promise }), trace }
}

thread_local! {
    static TRACE: RefCell<Option<(World, String)>> = const { RefCell::new(None) };
}

struct Tracer;

impl Log for Tracer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let values = record.key_values();
        let Some(actor) = values.get(Key::from_str("actor")) else { return };
        let conn = values.get(Key::from_str("conn"));
        TRACE.with_borrow_mut(|trace| {
            let Some((world, trace)) = trace else { return };
            let time = world.time().as_secs_f64();
            let conn = conn.map(|conn| format!("conn {conn} ")).unwrap_or_default();
            // Writing to a String does not fail.
            let _ = writeln!(trace, "{time:12.6} {conn}{actor}: {}", record.args());
        });
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_to_the_byte() {
        let (first, again) = (traced(5), traced(5));
        assert_eq!(first.outcome, again.outcome);
        assert_eq!(first.trace, again.trace);
        assert!(first.trace.contains(" backend_writer: wrote "), "{}", first.trace);
        assert_ne!(first.trace, traced(6).trace);
    }
}
