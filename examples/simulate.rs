//! Runs the whole proxy in the simulated world, seed after seed, and says how often what happened.
//!
//! ```text
//! cargo run --release --features testing --example simulate -- --seeds 10000
//! cargo run --release --features testing --example simulate -- --seed 7 --trace
//! ```
//!
//! A broken promise ends it with exit code 1, the seed that shows it, and the last that was said of the connection.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

use argh::FromArgs;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;
use trunkline::testing::sim::{self, Broken, Outcome, Tally};

/// Simulate the proxy: every schedule and every fault comes from one number.
#[derive(FromArgs)]
struct Flags {
    /// how many seeds (default 1000)
    #[argh(option, default = "1000")]
    seeds: u64,

    /// the first of them (default 1)
    #[argh(option, default = "1")]
    from: u64,

    /// this one alone, twice: both runs must be the same
    #[argh(option)]
    seed: Option<u64>,

    /// with --seed: print what every actor did
    #[argh(switch)]
    trace: bool,

    /// how many threads (default: as many as there are processors)
    #[argh(option)]
    threads: Option<usize>,
}

/// What the network and the peers must have done at least once in a long run: a fault that never happens tests nothing.
const FAULTS: &[&str] = &[
    "fault: aborted by order",
    "fault: backend closes",
    "fault: backend ends its sending first",
    "fault: backend falls silent",
    "fault: backend resets",
    "fault: client closes",
    "fault: client ends its sending first",
    "fault: client falls silent",
    "fault: client gone before accept",
    "fault: client resets",
    "fault: connect hangs",
    "fault: connect refused",
    "fault: connect slow",
    "fault: ended by order",
    "fault: no file descriptor left",
    "fault: short read",
    "fault: short write",
    "fault: stall on the wire",
    "fault: stopped early",
];

/// Fewer seeds than this need not show every fault.
const LONG: u64 = 200;

fn main() -> ExitCode {
    let flags: Flags = argh::from_env();
    match flags.seed {
        Some(seed) => one(seed, flags.trace),
        None => many(&flags),
    }
}

/// One seed, twice.
fn one(seed: u64, trace: bool) -> ExitCode {
    let (first, again) = (sim::traced(seed), sim::traced(seed));
    if trace {
        print!("{}", first.trace);
    }
    if first.trace != again.trace || first.outcome != again.outcome {
        eprintln!("seed {seed}: two runs of it differ");
        return ExitCode::FAILURE;
    }
    match first.outcome {
        Ok(outcome) => {
            println!(
                "seed {seed}: {} clients, {:?} simulated, digest {:016x}",
                outcome.clients, outcome.lasted, outcome.digest
            );
            summary(&outcome.tally);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

fn many(flags: &Flags) -> ExitCode {
    let start = Instant::now();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let (next, end) = (AtomicU64::new(flags.from), flags.from.saturating_add(flags.seeds));
    let (sender, outcomes) = sync_channel(1000);
    let (mut tally, mut digest, mut done, mut fewest) =
        (Tally::new(), 0_u64, 0_u64, [usize::MAX, usize::MAX]);
    let mut broken: BTreeMap<u64, Broken> = BTreeMap::new();
    thread::scope(|scope| {
        for _ in 0..flags.threads.unwrap_or(processors).max(1) {
            let sender = sender.clone();
            scope.spawn(|| work(&next, end, sender));
        }
        drop(sender);
        for outcome in &outcomes {
            done += 1;
            match outcome {
                Ok(outcome) => {
                    // In any order the same.
                    digest = digest.wrapping_add(outcome.digest);
                    let faults: u64 = count(&outcome.tally, "fault: ");
                    fewest = [fewest[0].min(outcome.clients), fewest[1].min(faults as usize)];
                    for (what, times) in outcome.tally {
                        *tally.entry(what).or_default() += times;
                    }
                }
                Err(found) => {
                    next.store(end, Ordering::Relaxed);
                    broken.insert(found.seed, found);
                }
            }
            progress(done, flags.seeds);
        }
    });
    if let Some(first) = broken.into_values().next() {
        return explain(&first);
    }
    summary(&tally);
    println!(
        "seeds {} to {}: no promise was broken; at least {} connections and {} faults a seed; digest {digest:016x}",
        flags.from,
        end.saturating_sub(1),
        fewest[0],
        fewest[1]
    );
    // On stderr, for it is the one line that differs between two runs.
    eprintln!("{done} seeds in {:.1} s", start.elapsed().as_secs_f64());
    let never: Vec<_> = FAULTS.iter().filter(|fault| !tally.contains_key(**fault)).collect();
    if flags.seeds >= LONG && !never.is_empty() {
        eprintln!("these never happened, so they tested nothing: {never:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(next: &AtomicU64, end: u64, outcomes: SyncSender<Result<Outcome, Broken>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || outcomes.send(sim::run(seed)).is_err() {
            return;
        }
    }
}

/// What was broken, and the last that was said of it.
fn explain(broken: &Broken) -> ExitCode {
    let traced = sim::traced(broken.seed);
    let conn = broken
        .promise
        .split("connection ")
        .nth(1)
        .and_then(|rest| rest.split([':', ' ', ',']).next());
    let about = conn.map(|conn| format!(" conn {conn} "));
    let lines: Vec<_> = traced
        .trace
        .lines()
        .filter(|line| about.as_ref().is_none_or(|about| line.contains(about.as_str())))
        .collect();
    eprintln!("\nBROKEN: {broken}\nthe last that was said:");
    for line in &lines[lines.len().saturating_sub(30)..] {
        eprintln!("  {line}");
    }
    eprintln!(
        "again, in full: cargo run --release --features testing --example simulate -- --seed {} --trace",
        broken.seed
    );
    ExitCode::FAILURE
}

fn progress(done: u64, of: u64) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() && (done.is_multiple_of(50) || done == of) {
        let width = usize::try_from(done * 40 / of.max(1)).unwrap_or(40).min(40);
        let _ = write!(stderr, "\r[{:40}] {done} of {of}", "#".repeat(width));
        if done == of {
            let _ = writeln!(stderr);
        }
    }
}

fn count(tally: &Tally, prefix: &str) -> u64 {
    tally.iter().filter(|(what, _)| what.starts_with(prefix)).map(|(_, times)| times).sum()
}

fn summary(tally: &Tally) {
    for (what, times) in tally {
        println!("{times:>10}  {what}");
    }
}
