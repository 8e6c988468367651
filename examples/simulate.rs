//! Runs the whole proxy in the simulated world, seed after seed, and says how often what happened.
//!
//! ```text
//! cargo run --release --features testing --example simulate -- --seeds 10000
//! cargo run --release --features testing --example simulate -- --seed 7 --trace
//! ```
//!
//! A broken promise ends it with exit code 1, the seed that shows it, and the last that was said of the connection.
#![allow(clippy::print_stderr, reason = "a command talks to its user")]

use argh::FromArgs;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;
use trunkline::testing::sim::{self, Broken, Outcome, Tally, Traced};

/// Simulate the proxy: every schedule and every fault comes from one number.
#[derive(FromArgs)]
struct Flags {
    /// how many seeds (default 1000)
    #[argh(option)]
    seeds: Option<u64>,

    /// the first of them (default 1)
    #[argh(option)]
    from: Option<u64>,

    /// this one alone, twice: both runs must be the same
    #[argh(option)]
    seed: Option<u64>,

    /// tunnel, pool or mux: how clients share backend connections (default tunnel)
    #[argh(option, from_str_fn(mode), default = "TUNNEL")]
    mode: Mode,

    /// with --seed: print what every actor did
    #[argh(switch)]
    trace: bool,

    /// how many threads (default: as many as there are processors)
    #[argh(option)]
    threads: Option<usize>,
}

/// What is simulated, and which faults must happen in a long run.
#[derive(Clone, Copy)]
struct Mode {
    run: fn(u64) -> Result<Outcome, Broken>,
    traced: fn(u64) -> Traced,
    faults: &'static [&'static str],
    flag: &'static str,
}

const TUNNEL: Mode = Mode { run: sim::run, traced: sim::traced, faults: FAULTS, flag: "" };

const POOL: Mode = Mode {
    run: sim::run_pooled,
    traced: sim::traced_pooled,
    faults: POOL_FAULTS,
    flag: " --mode pool",
};

const MUX: Mode = Mode {
    run: sim::run_muxed,
    traced: sim::traced_muxed,
    faults: POOL_FAULTS,
    flag: " --mode mux",
};

fn mode(name: &str) -> Result<Mode, String> {
    match name {
        "tunnel" => Ok(TUNNEL),
        "pool" => Ok(POOL),
        "mux" => Ok(MUX),
        _ => Err(format!("{name:?} is not a mode; use tunnel, pool or mux")),
    }
}

const POOL_FAULTS: &[&str] = &[
    "dialect: adieu adieu",
    "dialect: block bye",
    "dialect: block end",
    "dialect: block rest",
    "dialect: cast",
    "dialect: free ok",
    "dialect: head ok",
    "dialect: many ok",
    "dialect: mute",
    "dialect: ping pong",
    "dialect: put lost",
    "dialect: put unserved",
    "dialect: quit ok",
    "dialect: reset",
    "dialect: see ok",
    "dialect: set ok",
    "dialect: tunnel switch",
    "dialect: upgrade ok",
    "dialect: upgrade switch",
    "dialect: wait ok",
    "dialect: watch item",
    "dialect: what bad",
    "fault: backend answers half a request",
    "fault: backend closes",
    "fault: backend resets",
    "fault: client closes",
    "fault: client ends its sending in a request",
    "fault: client gone before accept",
    "fault: client resets",
    "fault: connect hangs",
    "fault: connect refused",
    "fault: connect slow",
    "fault: short read",
    "fault: short write",
    "fault: stall on the wire",
    "fault: stopped early",
    "run: dialect",
    "run: line",
];

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
    "fault: toxic bandwidth",
    "fault: toxic latency",
    "fault: toxic limit_data",
    "fault: toxic reset_peer",
    "fault: toxic slicer",
    "fault: toxic slow_close",
    "fault: toxic timeout",
];

/// Fewer seeds than this need not show every fault.
const LONG: u64 = 200;

fn main() -> ExitCode {
    let flags: Flags = argh::from_env();
    match flags.seed {
        Some(_) if flags.seeds.is_some() || flags.from.is_some() => {
            usage("--seed is one run; leave out --seeds and --from")
        }
        Some(seed) => one(seed, flags.trace, flags.mode),
        None if flags.trace => usage("--trace needs --seed N: it prints one run"),
        None if flags.seeds == Some(0) => usage("--seeds 0 would show nothing; use 1 or more"),
        None => many(&flags),
    }
}

fn usage(text: &str) -> ExitCode {
    eprintln!("simulate: {text}");
    ExitCode::from(2)
}

/// One seed, twice.
fn one(seed: u64, trace: bool, mode: Mode) -> ExitCode {
    let (first, again) = ((mode.traced)(seed), (mode.traced)(seed));
    if trace {
        say(&first.trace);
    }
    if first.trace != again.trace || first.outcome != again.outcome {
        eprintln!("seed {seed}: two runs of it differ");
        return ExitCode::FAILURE;
    }
    match first.outcome {
        Ok(outcome) => {
            let Outcome { clients, lasted, digest, .. } = outcome;
            say(&format!(
                "seed {seed}: {clients} clients, {lasted:?} simulated, digest {digest:016x}\n"
            ));
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
    let (from, seeds) = (flags.from.unwrap_or(1), flags.seeds.unwrap_or(1000));
    // Each thread takes one number beyond the last.
    if from.checked_add(seeds).is_none_or(|end| end > u64::MAX - 10_000) {
        return usage("--from is too large for so many seeds");
    }
    let start = Instant::now();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let (next, end) = (AtomicU64::new(from), from + seeds);
    let (sender, outcomes) = sync_channel(1000);
    let (mut tally, mut digest, mut done, mut fewest) =
        (Tally::new(), 0_u64, 0_u64, [usize::MAX, usize::MAX]);
    let mut broken: BTreeMap<u64, Broken> = BTreeMap::new();
    thread::scope(|scope| {
        for _ in 0..flags.threads.unwrap_or(processors).max(1) {
            let sender = sender.clone();
            scope.spawn(|| work(&next, end, flags.mode, sender));
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
            progress(done, seeds);
        }
    });
    if let Some(first) = broken.into_values().next() {
        return explain(&first, flags.mode);
    }
    summary(&tally);
    let [connections, faults] = fewest;
    let last = end - 1;
    say(&format!(
        "seeds {from} to {last}: no promise was broken; at least {connections} connections and {faults} faults a seed; \
         digest {digest:016x}\n"
    ));
    // On stderr, for it is the one line that differs between two runs.
    eprintln!("{done} seeds in {:.1} s", start.elapsed().as_secs_f64());
    let never: Vec<_> =
        flags.mode.faults.iter().filter(|fault| !tally.contains_key(**fault)).collect();
    if seeds >= LONG && !never.is_empty() {
        eprintln!("these never happened, so they tested nothing: {never:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(next: &AtomicU64, end: u64, mode: Mode, outcomes: SyncSender<Result<Outcome, Broken>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || outcomes.send((mode.run)(seed)).is_err() {
            return;
        }
    }
}

/// What was broken, and the last that was said of it.
fn explain(broken: &Broken, mode: Mode) -> ExitCode {
    let traced = (mode.traced)(broken.seed);
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let mut named = broken.promise.split("connection ").skip(1).map(digits);
    let conn = named.find(|digits| !digits.is_empty());
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
        "again, in full: cargo run --release --features testing --example simulate --{} --seed {} --trace",
        mode.flag, broken.seed
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
        say(&format!("{times:>10}  {what}\n"));
    }
}

/// Prints; a reader that has seen enough (`| head`) is no failure.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
