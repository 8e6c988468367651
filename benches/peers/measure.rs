//! What processes cost, as the kernel counts it, and figures from what programs print.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Processes that a process has started and that have not ended.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Seconds of processor time of a process, by the scheduler's clock: all its threads that have not ended.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut nanoseconds = 0;
    for task in tasks.into_iter().flatten().flatten() {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += on_processor(&stat).unwrap_or(0);
    }
    nanoseconds as f64 / 1e9
}

/// From a line of `schedstat`: nanoseconds on a processor.
pub(crate) fn on_processor(stat: &str) -> Option<u64> {
    stat.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    resident_of(&status).unwrap_or(0)
}

pub(crate) fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// Requests a second, from what `redis-benchmark --csv` prints.
pub(crate) fn redis_benchmark(printed: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.starts_with("\"SET\""))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

/// Requests a second, and requests in all, from what wrk prints. `None` as well if any failed.
pub(crate) fn wrk(printed: &str) -> Option<(f64, f64)> {
    if printed.contains("Socket errors") || printed.contains("Non-2xx") {
        return None;
    }
    let line = |part: &str| printed.lines().find(|line| line.contains(part));
    let rate = line("Requests/sec:")?.split_whitespace().nth(1)?.parse().ok()?;
    let all = line("requests in")?.split_whitespace().next()?.parse().ok()?;
    Some((rate, all))
}

/// System calls by their names, from the table that `strace -c` prints.
pub(crate) fn strace(table: &str) -> Vec<(String, u64)> {
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, microseconds a call, calls, sometimes errors, name.
        words.first()?.parse::<f64>().ok()?;
        let calls = words.get(3)?.parse().ok()?;
        let name = *words.last()?;
        (words.len() > 4 && name != "total").then(|| (name.to_string(), calls))
    });
    rows.collect()
}

/// The one in the middle; of an even number the lower of the two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

pub(crate) fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(*value), most.max(*value))
    })
}

/// What was measured of each in each round: how much was done a second, and what one of it cost.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Vec<(f64, f64)>>);

impl Samples {
    pub(crate) fn add(&mut self, name: &'static str, rate: f64, cost: f64) {
        self.0.entry(name).or_default().push((rate, cost));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn of(&self, name: &str, pick: fn(&(f64, f64)) -> f64) -> Vec<f64> {
        self.0.get(name).map(|rounds| rounds.iter().map(pick).collect()).unwrap_or_default()
    }

    pub(crate) fn rates(&self, name: &str) -> Vec<f64> {
        self.of(name, |(rate, _)| *rate)
    }

    pub(crate) fn costs(&self, name: &str) -> Vec<f64> {
        self.of(name, |(_, cost)| *cost)
    }

    /// Ours by the best of the others, round by round; empty if any of them did not take part.
    pub(crate) fn rate_by(&self, name: &str, others: &[&str]) -> Vec<f64> {
        by(self.rates(name), others.iter().map(|other| self.rates(other)), f64::max)
    }

    /// The same of the cost, of which less is better.
    pub(crate) fn cost_by(&self, name: &str, others: &[&str]) -> Vec<f64> {
        by(self.costs(name), others.iter().map(|other| self.costs(other)), f64::min)
    }
}

fn by(
    ours: Vec<f64>,
    others: impl Iterator<Item = Vec<f64>> + Clone,
    better: fn(f64, f64) -> f64,
) -> Vec<f64> {
    let ratio = |(round, our): (usize, f64)| {
        let mut theirs = others.clone().map(|other| other.get(round).copied());
        let first = theirs.next()??;
        let best = theirs.try_fold(first, |best, their| their.map(|their| better(best, their)))?;
        Some(our / best)
    };
    ours.into_iter().enumerate().filter_map(ratio).collect()
}

/// A port on which nobody listens, and that was not given before. Not one that the system would choose: with thousands of
/// connections, one of them may have it by the time that it is used.
pub(crate) fn free_port(given: &mut BTreeSet<u16>) -> u16 {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = 20_000..32_000;
    let free = ports.find(|port| !given.contains(port) && is_free(port));
    let port = free.expect("the machine has a port");
    given.insert(port);
    port
}
