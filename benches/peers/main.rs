//! `cargo bench --bench peers`: this proxy beside others, with the same clients and the same servers.
//!
//! Machines differ, and so does one machine from minute to minute. So nothing here is a figure of its own: the proxies take
//! turns, round after round, and what counts is the ratio within a round. CPU is that of the proxy's process, by the kernel.
//! Two starts of one program differ too, by where its memory happens to lie: so each is started anew for each round, and has
//! a tenth of the work first, which is not measured.
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

/// What part of its work each has before it is measured.
const WARM: u32 = 10;

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
    let (report, troubles) = Bench::new(flags).run();
    println!("{}", report.table());
    eprintln!("it took {} s", began.elapsed().as_secs());
    for trouble in &troubles {
        eprintln!("broken off, and its other rows are missing: {trouble}");
    }
    if !troubles.is_empty() {
        return ExitCode::FAILURE;
    }
    if write && let Err(error) = report.write() {
        eprintln!("the report cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Bench {
    flags: Flags,
    stage: Stage,
    report: Report,
}

/// Who takes part in a piece of work.
struct Subject {
    name: &'static str,
    start: Start,
}

type Start = Box<dyn Fn(&mut Stage) -> io::Result<Running>>;

fn subject(
    name: &'static str,
    start: impl Fn(&mut Stage) -> io::Result<Running> + 'static,
) -> Subject {
    Subject { name, start: Box::new(start) }
}

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

    /// With what could not be measured, for which the rest does not wait.
    fn run(mut self) -> (Report, Vec<io::Error>) {
        let mut done = Vec::new();
        let redis = self.stage.has("redis-server") && self.stage.has("redis-benchmark");
        if redis
            && self.wants_any(&["tunnel", "pool", "mux", "workers", "threads", "many", "calls"])
        {
            done.push(self.redis());
        }
        if redis && self.wants_any(&["idle", "short", "alone", "start"]) {
            done.push(self.connections());
        }
        if self.wants("http") && self.stage.has("nginx") && self.stage.has("wrk") {
            done.push(self.http());
        }
        if self.wants("bulk") {
            done.push(self.bulk());
        }
        (self.report, done.into_iter().filter_map(Result::err).collect())
    }

    /// Has each in turn do its work, round after round. `drive` does one part in so many of it, and returns how much was done a
    /// second, and how much in all.
    #[expect(clippy::print_stderr, reason = "it is a program")]
    fn take_turns(
        &mut self,
        work: &str,
        subjects: &[Subject],
        drive: impl Fn(u16, u32) -> io::Result<(f64, f64)>,
    ) -> io::Result<Samples> {
        let mut samples = Samples::default();
        for round in 1..=self.flags.rounds {
            for Subject { name, start } in subjects {
                let running = start(&mut self.stage)?;
                let drive = |part| {
                    drive(running.port, part)
                        .map_err(|error| io::Error::other(format!("{work}, {name}: {error}")))
                };
                drive(WARM)?;
                let before = running.cpu();
                let (rate, done) = drive(1)?;
                let cpu = (running.cpu() - before) / done;
                eprintln!("{work}, round {round}: {name} {rate:.0}/s, {:.2} us each", cpu * 1e6);
                samples.add(name, rate, cpu);
            }
        }
        Ok(samples)
    }

    fn redis(&mut self) -> io::Result<()> {
        let redis = self.stage.redis()?;
        let port = redis.port;
        let mut subjects = self.tunnels(port);
        if self.stage.has("nutcracker") {
            subjects.push(subject("twemproxy", move |stage| stage.twemproxy(port)));
        }
        let ours: &[(&str, &'static str, &[&str])] = &[
            ("tunnel", "tunnel", &[]),
            ("tunnel", "tunnel, epoll", &["--io", "epoll"]),
            ("workers", "tunnel, 2 workers", &["--workers", "2"]),
            ("threads", "tunnel, 2 threads", &["--threads", "2"]),
            ("pool", "pool", &["--mode", "pool", "--framing", "resp", "--trunks", "8"]),
            ("mux", "mux", &["--mode", "mux", "--framing", "resp"]),
        ];
        for &(group, name, flags) in ours {
            if self.wants(group)
                || (group == "tunnel" && self.wants_any(&["workers", "threads", "calls"]))
            {
                subjects.push(subject(name, move |stage| stage.trunkline(port, flags)));
            }
        }
        if self.wants_any(&["tunnel", "pool", "mux", "workers", "threads"]) {
            let count = self.count(80_000);
            subjects.insert(0, subject("no proxy", Stage::redis));
            let work = "redis, 50 connections";
            let samples = self.take_turns(work, &subjects, |port, part| {
                redis_benchmark(port, 50, count / part, &[])
            })?;
            self.report.redis(&samples);
            let count = self.count(600_000);
            let work = "redis, 50 connections, 16 commands at once";
            let samples = self.take_turns(work, &subjects, |port, part| {
                redis_benchmark(port, 50, count / part, &["-P", "16"])
            })?;
            self.report.pipelined(&samples);
            subjects.remove(0);
        }
        if self.wants("many") {
            let ratios = self.many(port)?;
            let work = "8,000 active connections: CPU per request";
            self.report.add(Row::new(work, "50", "<= 1.3", ratios));
        }
        if self.wants("calls") && self.stage.has("strace") {
            // Of workers it would see the one that carries nothing.
            for Subject { name, start } in
                subjects.iter().filter(|it| !it.name.ends_with("workers"))
            {
                let count = self.count(20_000);
                let running = start(&mut self.stage)?;
                redis_benchmark(running.port, 50, count / WARM, &[])?;
                let calls = system_calls(&running, || {
                    redis_benchmark(running.port, 50, count, &[]).map(|_| ())
                })?;
                self.report.calls(name, &calls, f64::from(count));
            }
        }
        Ok(())
    }

    /// What a request costs by 8,000 connections, by what it costs by 50. To open them is not counted: it is in both of two runs,
    /// of which one has four times the requests.
    fn many(&mut self, backend: u16) -> io::Result<Vec<f64>> {
        let count = self.count(24_000);
        let mut ratios = Vec::new();
        for _ in 0..self.flags.rounds {
            let running = self.stage.trunkline(backend, &[])?;
            let cpu = |connections: u32, count: u32| -> io::Result<f64> {
                let before = running.cpu();
                redis_benchmark(running.port, connections, count, &[])?;
                Ok(running.cpu() - before)
            };
            let few = cpu(50, 2 * count)? / f64::from(2 * count);
            let opened = cpu(8000, count)?;
            let each = (cpu(8000, 4 * count)? - opened) / f64::from(3 * count);
            ratios.push(each / few);
        }
        Ok(ratios)
    }

    /// The rivals that lead each client to a connection of its own, as far as they are installed.
    fn tunnels(&self, backend: u16) -> Vec<Subject> {
        let mut subjects = Vec::new();
        if self.stage.has("haproxy") {
            subjects.push(subject("HAProxy", move |stage| stage.haproxy(backend, " mode tcp")));
        }
        if self.stage.has("nginx") {
            subjects.push(subject("nginx", move |stage| stage.nginx_stream(backend)));
        }
        subjects
    }

    fn connections(&mut self) -> io::Result<()> {
        let redis = self.stage.redis()?;
        let port = redis.port;
        let mut subjects = self.tunnels(port);
        subjects.push(subject("tunnel", move |stage| stage.trunkline(port, &[])));
        if self.wants("idle") {
            let pairs = self.count(4000);
            let mut each = Samples::default();
            for Subject { name, start } in &subjects {
                let running = start(&mut self.stage)?;
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
            let samples = self.take_turns("connect, PING, close", &subjects, |port, part| {
                let (began, count) = (Instant::now(), count / part);
                drivers::short(port, count)?;
                Ok((f64::from(count) / began.elapsed().as_secs_f64(), f64::from(count)))
            })?;
            self.report.short(&samples);
        }
        if self.wants("alone") {
            let count = self.count(10_000);
            // As a rate, so that more is better as everywhere.
            let samples = self.take_turns("one connection alone", &subjects, |port, part| {
                Ok((1e6 / drivers::alone(port, count / part)?, f64::from(count / part)))
            })?;
            self.report.alone(&samples);
        }
        if self.wants("start") {
            let mut times = Vec::new();
            for _ in 0..self.flags.rounds {
                let running = self.stage.trunkline_at_once(port)?;
                times.push(drivers::first_answer(running.port)?.as_secs_f64() * 1e3);
            }
            self.report.add(Row::new("start to first byte served, ms", "", "<= 30", times));
        }
        Ok(())
    }

    fn http(&mut self) -> io::Result<()> {
        let origin = self.stage.nginx_file()?;
        let port = origin.port;
        let mut subjects = vec![subject("nginx", move |stage| stage.nginx_http(port))];
        if self.stage.has("haproxy") {
            let options = " mode http\n http-reuse always";
            subjects.push(subject("HAProxy", move |stage| stage.haproxy(port, options)));
        }
        let flags = ["--mode", "pool", "--framing", "http", "--trunks", "50"];
        subjects.push(subject("pool", move |stage| stage.trunkline(port, &flags)));
        let full = if self.flags.quick { "1s" } else { "2s" };
        let samples = self.take_turns("http, 50 connections", &subjects, |port, part| {
            // wrk knows no part of a second.
            let time = if part > 1 { "1s" } else { full };
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
        let mut subjects = Vec::new();
        if self.stage.has("haproxy") {
            let options = " mode tcp\n option splice-auto";
            subjects.push(subject("HAProxy", move |stage| stage.haproxy(origin, options)));
        }
        subjects.push(subject("tunnel", move |stage| stage.trunkline(origin, &[])));
        for streams in [1, 4] {
            let bytes = u64::from(self.count(2048)) << 20;
            let work = format!("bulk, streams: {streams}");
            let samples = self.take_turns(&work, &subjects, |port, part| {
                let (began, bytes) = (Instant::now(), bytes / u64::from(part));
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
