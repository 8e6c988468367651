//! `cargo bench --bench peers`: this proxy beside others, with the same clients and the same servers.
//!
//! Machines differ, and so does one machine from minute to minute. So nothing here is a figure of its own: the proxies take
//! turns, round after round, and what counts is the ratio within a round. CPU is that of the proxy's process, by the kernel.
//!
//! Needs Redis, HAProxy, nginx (with its stream module), twemproxy, wrk and strace; what is missing is named, and its rows
//! are left out.

mod drivers;
#[path = "../../tests/folder.rs"]
mod folder;
mod measure;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/servers/program.rs"]
mod program;
mod report;
mod rivals;

use argh::FromArgs;
use measure::Samples;
use program::{program, succeed};
use report::{Report, Row};
use rivals::{Running, Stage};
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a program of the bench may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measure this proxy beside HAProxy, nginx and twemproxy.
#[derive(FromArgs)]
struct Flags {
    /// only these, separated by commas: tunnel, pool, mux, http, bulk, idle, short, alone, many, workers, threads, start, calls
    #[argh(option)]
    only: Option<String>,
    /// how many rounds (default 5)
    #[argh(option, default = "5")]
    rounds: u32,
    /// a tenth of the requests: a try, not a measurement
    #[argh(switch)]
    quick: bool,
    /// write benches/RESULTS.md and benches/results.svg though not all was measured
    #[argh(switch)]
    write: bool,
    /// cargo says so
    #[argh(switch)]
    bench: bool,
}

const GROUPS: &[&str] = &[
    "tunnel", "pool", "mux", "http", "bulk", "idle", "short", "alone", "many", "workers",
    "threads", "start", "calls",
];

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "it is a program")]
fn main() -> ExitCode {
    let flags: Flags = argh::from_env();
    if !flags.bench {
        // `cargo test --benches` only wants to know that it can be built.
        return ExitCode::SUCCESS;
    }
    let named = flags.only.iter().flat_map(|only| only.split(','));
    if let Some(wrong) = named.into_iter().find(|name| !GROUPS.contains(name)) {
        eprintln!("--only {wrong} is none of: {}", GROUPS.join(", "));
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let (all, quick) = (flags.only.is_none(), flags.quick);
    let write = flags.write || (all && !quick);
    match Bench::new(flags).run() {
        Ok(report) => {
            println!("{}", report.table());
            eprintln!("it took {} s", began.elapsed().as_secs());
            if write && let Err(error) = report.write() {
                eprintln!("the report cannot be written: {error}");
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the bench was broken off: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    flags: Flags,
    stage: Stage,
    report: Report,
}

/// Who takes part in a piece of work, by name.
type Subjects = Vec<(&'static str, Running)>;

impl Bench {
    fn new(flags: Flags) -> Bench {
        let stage = Stage::new();
        let report = Report::new(stage.missing(), flags.rounds);
        Bench { flags, stage, report }
    }

    fn wants(&self, group: &str) -> bool {
        self.flags.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == group))
    }

    fn wants_any(&self, groups: &[&str]) -> bool {
        groups.iter().any(|group| self.wants(group))
    }

    fn count(&self, full: u32) -> u32 {
        if self.flags.quick { full / 10 } else { full }
    }

    fn run(mut self) -> io::Result<Report> {
        let redis = self.stage.has("redis-server") && self.stage.has("redis-benchmark");
        if redis
            && self.wants_any(&["tunnel", "pool", "mux", "workers", "threads", "many", "calls"])
        {
            self.redis()?;
        }
        if redis && self.wants_any(&["idle", "short", "alone", "start"]) {
            self.connections()?;
        }
        if self.wants("http") && self.stage.has("nginx") && self.stage.has("wrk") {
            self.http()?;
        }
        if self.wants("bulk") {
            self.bulk()?;
        }
        Ok(self.report)
    }

    /// Has each in turn do its work, round after round. `drive` returns how much was done a second, and how much in all.
    #[expect(clippy::print_stderr, reason = "it is a program")]
    fn take_turns(
        &self,
        work: &str,
        subjects: &[(&'static str, &Running)],
        mut drive: impl FnMut(u16) -> io::Result<(f64, f64)>,
    ) -> io::Result<Samples> {
        let mut samples = Samples::default();
        for round in 1..=self.flags.rounds {
            for (name, running) in subjects {
                let before = running.cpu();
                let (rate, done) = drive(running.port)
                    .map_err(|error| io::Error::other(format!("{work}, {name}: {error}")))?;
                let cpu = (running.cpu() - before) / done;
                eprintln!("{work}, round {round}: {name} {rate:.0}/s, {:.2} us each", cpu * 1e6);
                samples.add(name, rate, cpu);
            }
        }
        Ok(samples)
    }

    fn redis(&mut self) -> io::Result<()> {
        let redis = self.stage.redis()?;
        let mut subjects: Subjects = Vec::new();
        if self.stage.has("haproxy") {
            subjects.push(("HAProxy", self.stage.haproxy(redis.port, " mode tcp")?));
        }
        if self.stage.has("nginx") {
            subjects.push(("nginx", self.stage.nginx_stream(redis.port)?));
        }
        if self.stage.has("nutcracker") {
            subjects.push(("twemproxy", self.stage.twemproxy(redis.port)?));
        }
        let ours: &[(&str, &'static str, &[&str])] = &[
            ("tunnel", "tunnel", &[]),
            ("tunnel", "tunnel, epoll", &["--io", "epoll"]),
            ("workers", "tunnel, 2 workers", &["--workers", "2"]),
            ("threads", "tunnel, 2 threads", &["--threads", "2"]),
            ("pool", "pool", &["--mode", "pool", "--framing", "resp", "--trunks", "8"]),
            ("mux", "mux", &["--mode", "mux", "--framing", "resp"]),
        ];
        for (group, name, flags) in ours {
            if self.wants(group)
                || (*group == "tunnel" && self.wants_any(&["workers", "threads", "many", "calls"]))
            {
                subjects.push((*name, self.stage.trunkline(redis.port, flags)?));
            }
        }
        let mut turns: Vec<(&'static str, &Running)> = vec![("no proxy", &redis)];
        turns.extend(subjects.iter().map(|(name, running)| (*name, running)));
        if self.wants_any(&["tunnel", "pool", "mux", "workers", "threads"]) {
            let count = self.count(80_000);
            let samples = self.take_turns("redis, 50 connections", &turns, |port| {
                redis_benchmark(port, 50, count, &[])
            })?;
            self.report.redis(&samples);
            let count = self.count(600_000);
            let samples =
                self.take_turns("redis, 50 connections, 16 commands at once", &turns, |port| {
                    redis_benchmark(port, 50, count, &["-P", "16"])
                })?;
            self.report.pipelined(&samples);
        }
        let tunnel = subjects.iter().find(|(name, _)| *name == "tunnel");
        if let Some((_, tunnel)) = tunnel.filter(|_| self.wants("many")) {
            let count = self.count(80_000);
            let mut few = Vec::new();
            for _ in 0..self.flags.rounds {
                let each = |connections: u32| -> io::Result<f64> {
                    let before = tunnel.cpu();
                    redis_benchmark(tunnel.port, connections, count, &[])?;
                    Ok((tunnel.cpu() - before) / f64::from(count))
                };
                few.push(each(8000)? / each(50)?);
            }
            self.report.add(Row::new(
                "8,000 active connections: CPU per request",
                "50",
                "<= 1.3",
                few,
            ));
        }
        if self.wants("calls") && self.stage.has("strace") {
            // Of workers it would see the one that carries nothing.
            for (name, running) in subjects.iter().filter(|(name, _)| !name.ends_with("workers")) {
                let count = self.count(20_000);
                let calls = system_calls(running, || {
                    redis_benchmark(running.port, 50, count, &[]).map(|_| ())
                })?;
                self.report.calls(name, &calls, f64::from(count));
            }
        }
        Ok(())
    }

    fn connections(&mut self) -> io::Result<()> {
        let redis = self.stage.redis()?;
        let mut subjects: Subjects = Vec::new();
        if self.stage.has("haproxy") {
            subjects.push(("HAProxy", self.stage.haproxy(redis.port, " mode tcp")?));
        }
        if self.stage.has("nginx") {
            subjects.push(("nginx", self.stage.nginx_stream(redis.port)?));
        }
        subjects.push(("tunnel", self.stage.trunkline(redis.port, &[])?));
        let turns: Vec<_> = subjects.iter().map(|(name, running)| (*name, running)).collect();
        if self.wants("idle") {
            // Before anything else has made a process large.
            let pairs = self.count(4000);
            let mut each = Samples::default();
            for (name, running) in &turns {
                let before = running.resident();
                let connections = drivers::idle(running.port, pairs)?;
                let grown = running.resident().saturating_sub(before);
                drop(connections);
                each.add(name, 0.0, grown as f64 / f64::from(pairs));
            }
            self.report.idle(&each);
        }
        if self.wants("short") {
            let count = self.count(3000);
            let samples = self.take_turns("connect, PING, close", &turns, |port| {
                let began = Instant::now();
                drivers::short(port, count)?;
                Ok((f64::from(count) / began.elapsed().as_secs_f64(), f64::from(count)))
            })?;
            self.report.short(&samples);
        }
        if self.wants("alone") {
            let count = self.count(10_000);
            // As a rate, so that more is better as everywhere.
            let samples = self.take_turns("one connection alone", &turns, |port| {
                Ok((1e6 / drivers::alone(port, count)?, f64::from(count)))
            })?;
            self.report.alone(&samples);
        }
        if self.wants("start") {
            let mut times = Vec::new();
            for _ in 0..self.flags.rounds {
                let running = self.stage.trunkline_at_once(redis.port)?;
                times.push(drivers::first_answer(running.port)?.as_secs_f64() * 1e3);
            }
            self.report.add(Row::new("start to first byte served, ms", "", "<= 30", times));
        }
        Ok(())
    }

    fn http(&mut self) -> io::Result<()> {
        let origin = self.stage.nginx_file()?;
        let mut subjects: Subjects = vec![("nginx", self.stage.nginx_http(origin.port)?)];
        if self.stage.has("haproxy") {
            let options = " mode http\n http-reuse always";
            subjects.push(("HAProxy", self.stage.haproxy(origin.port, options)?));
        }
        let flags = ["--mode", "pool", "--framing", "http", "--trunks", "50"];
        subjects.push(("pool", self.stage.trunkline(origin.port, &flags)?));
        let turns: Vec<_> = subjects.iter().map(|(name, running)| (*name, running)).collect();
        let time = if self.flags.quick { "1s" } else { "2s" };
        let samples = self.take_turns("http, 50 connections", &turns, |port| {
            let url = format!("http://127.0.0.1:{port}/");
            let ended = succeed(program("wrk").args(["-t", "1", "-c", "50", "-d", time, &url]), "");
            let printed = ended.stdout();
            measure::wrk(&printed).ok_or_else(|| io::Error::other(printed))
        })?;
        self.report.http(&samples);
        Ok(())
    }

    fn bulk(&mut self) -> io::Result<()> {
        let origin = self.stage.port();
        drivers::serve_bulk(origin)?;
        let mut subjects: Subjects = Vec::new();
        if self.stage.has("haproxy") {
            let options = " mode tcp\n option splice-auto";
            subjects.push(("HAProxy", self.stage.haproxy(origin, options)?));
        }
        subjects.push(("tunnel", self.stage.trunkline(origin, &[])?));
        let turns: Vec<_> = subjects.iter().map(|(name, running)| (*name, running)).collect();
        for streams in [1, 4] {
            let bytes = u64::from(self.count(2048)) << 20;
            let work = format!("bulk, streams: {streams}");
            let samples = self.take_turns(&work, &turns, |port| {
                let began = Instant::now();
                drivers::bulk(port, streams, bytes / u64::from(streams))?;
                let gigabytes = bytes as f64 / 1e9;
                Ok((gigabytes / began.elapsed().as_secs_f64(), gigabytes))
            })?;
            self.report.bulk(&work, &samples);
        }
        Ok(())
    }
}

/// Requests a second, and in all.
fn redis_benchmark(
    port: u16,
    connections: u32,
    count: u32,
    more: &[&str],
) -> io::Result<(f64, f64)> {
    let mut command = program("redis-benchmark");
    command.args(["-p", &port.to_string(), "-c", &connections.to_string()]);
    command.args(["-n", &count.to_string(), "-t", "set", "--csv"]).args(more);
    let ended = succeed(&mut command, "");
    let rate = measure::redis_benchmark(&ended.stdout());
    let rate = rate.ok_or_else(|| io::Error::other(ended.to_string()))?;
    Ok((rate, f64::from(count)))
}

/// What a process asks of the kernel meanwhile.
fn system_calls(
    running: &Running,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<(String, u64)>> {
    let (worked, table) = program::traced(running.pid(), work);
    worked?;
    Ok(measure::strace(&table))
}
