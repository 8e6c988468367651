//! What the bench found: the rows with their targets, as text, and as a picture.

use super::measure::{Samples, median, spread};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{fs, io};
use trunkline::Io;

/// A measured ratio or figure beside what it should be.
pub(crate) struct Row {
    work: String,
    against: String,
    /// `<= 0.9`, or nothing where there is none.
    target: String,
    rounds: Vec<f64>,
}

impl Row {
    pub(crate) fn new(work: &str, against: &str, target: &str, rounds: Vec<f64>) -> Row {
        Row { work: work.into(), against: against.into(), target: target.into(), rounds }
    }

    /// `None` without a target, or without a figure.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let middle = median(&self.rounds)?;
        let limit = |words: &str| words.trim().parse::<f64>().ok();
        match self.target.split_at_checked(2)? {
            ("<=", most) => Some(middle <= limit(most)?),
            (">=", least) => Some(middle >= limit(least)?),
            _ => None,
        }
    }

    pub(crate) fn line(&self) -> String {
        let Row { work, against, target, rounds } = self;
        let Some(middle) = median(rounds) else {
            return format!("| {work} | {against} | {target} | not measured | | |\n");
        };
        let (least, most) = spread(rounds);
        let met = self.is_met().map_or("", |met| if met { "met" } else { "**not met**" });
        format!(
            "| {work} | {against} | {target} | {middle:.2} | {least:.2} to {most:.2} | {met} |\n"
        )
    }
}

pub(crate) struct Report {
    missing: Vec<(&'static str, &'static str)>,
    round_count: u32,
    rows: Vec<Row>,
    /// Of each piece of work: what each did a second, and what one cost, in the middle of its rounds.
    figures: String,
    calls: String,
}

const BOTH: &[&str] = &["HAProxy", "nginx"];

impl Report {
    pub(crate) fn new(missing: &[(&'static str, &'static str)], round_count: u32) -> Report {
        let missing = missing.to_vec();
        Report {
            missing,
            round_count,
            rows: Vec::new(),
            figures: String::new(),
            calls: String::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A row, unless we were not asked for it.
    fn ratio(
        &mut self,
        (ours, samples): (&str, &Samples),
        work: &str,
        against: &str,
        target: &str,
        rounds: Vec<f64>,
    ) {
        if samples.names().any(|name| name == ours) {
            self.add(Row::new(work, against, target, rounds));
        }
    }

    fn figures(&mut self, work: &str, samples: &Samples, unit: &str, scale: f64) {
        let text = &mut self.figures;
        let _ = write!(text, "\n| {work} | a second | CPU, {unit} |\n|---|---|---|\n");
        for name in samples.names() {
            let rate = median(&samples.rates(name)).unwrap_or(0.0);
            let cost = median(&samples.costs(name)).unwrap_or(0.0) * scale;
            let _ = writeln!(text, "| {name} | {rate:.1} | {cost:.2} |");
        }
    }

    pub(crate) fn redis(&mut self, samples: &Samples) {
        self.figures("Redis SET, 50 connections", samples, "us a request", 1e6);
        let both = "the better of HAProxy and nginx";
        // Where the kernel has none, it was not measured.
        let by_uring = if Io::Auto.here(1) == Io::Uring {
            samples.cost_by("tunnel", BOTH)
        } else {
            Vec::new()
        };
        self.ratio(
            ("tunnel", samples),
            "tunnel by io_uring: CPU per request",
            both,
            "<= 0.9",
            by_uring,
        );
        self.ratio(
            ("tunnel, epoll", samples),
            "tunnel by epoll: CPU per request",
            both,
            "<= 1.0",
            samples.cost_by("tunnel, epoll", BOTH),
        );
        self.ratio(
            ("tunnel", samples),
            "tunnel: requests/s",
            both,
            ">= 1.0",
            samples.rate_by("tunnel", BOTH),
        );
        self.ratio(
            ("pool", samples),
            "pool, 8 trunks: requests/s",
            "HAProxy's tunnel",
            ">= 1.0",
            samples.rate_by("pool", &["HAProxy"]),
        );
        self.ratio(
            ("mux", samples),
            "mux: requests/s",
            "no proxy",
            ">= 1.1",
            samples.rate_by("mux", &["no proxy"]),
        );
        self.ratio(
            ("mux", samples),
            "mux: CPU per request",
            "twemproxy",
            "<= 0.7",
            samples.cost_by("mux", &["twemproxy"]),
        );
        self.ratio(
            ("tunnel, 2 workers", samples),
            "tunnel, 2 workers: requests/s",
            "1 worker",
            ">= 1.0",
            samples.rate_by("tunnel, 2 workers", &["tunnel"]),
        );
        self.ratio(
            ("tunnel, 2 workers", samples),
            "tunnel, 2 workers: CPU per request",
            "1 worker",
            "<= 1.05",
            samples.cost_by("tunnel, 2 workers", &["tunnel"]),
        );
        self.ratio(
            ("tunnel, 2 threads", samples),
            "tunnel, 2 threads: requests/s",
            "1 thread",
            "",
            samples.rate_by("tunnel, 2 threads", &["tunnel"]),
        );
        self.ratio(
            ("tunnel, 2 threads", samples),
            "tunnel, 2 threads: CPU per request",
            "1 thread",
            "",
            samples.cost_by("tunnel, 2 threads", &["tunnel"]),
        );
    }

    pub(crate) fn pipelined(&mut self, samples: &Samples) {
        self.figures(
            "Redis SET, 50 connections, 16 commands at once",
            samples,
            "us a request",
            1e6,
        );
        self.ratio(
            ("mux", samples),
            "mux, 16 at once: requests/s",
            "no proxy",
            ">= 0.95",
            samples.rate_by("mux", &["no proxy"]),
        );
        self.ratio(
            ("mux", samples),
            "mux, 16 at once: requests/s",
            "HAProxy",
            ">= 1.5",
            samples.rate_by("mux", &["HAProxy"]),
        );
    }

    pub(crate) fn http(&mut self, samples: &Samples) {
        self.figures("HTTP, a small file, 50 connections", samples, "us a request", 1e6);
        let both = "the better of HAProxy and nginx";
        self.ratio(
            ("pool", samples),
            "http pool: requests/s",
            both,
            ">= 1.0",
            samples.rate_by("pool", BOTH),
        );
        self.ratio(
            ("pool", samples),
            "http pool: CPU per request",
            both,
            "<= 1.0",
            samples.cost_by("pool", BOTH),
        );
    }

    pub(crate) fn bulk(&mut self, work: &str, samples: &Samples) {
        self.figures(&format!("{work}, GB"), samples, "s a GB", 1.0);
        let row = format!("{work}: CPU per GB");
        self.ratio(
            ("tunnel", samples),
            &row,
            "HAProxy, splice-auto",
            "<= 1.0",
            samples.cost_by("tunnel", &["HAProxy"]),
        );
    }

    pub(crate) fn idle(&mut self, samples: &Samples) {
        for name in samples.names() {
            let bytes: Vec<f64> = samples.costs(name).iter().map(|bytes| bytes / 1000.0).collect();
            self.add(Row::new(&format!("{name}: kB of memory per idle pair"), "", "", bytes));
        }
        let rounds = samples.cost_by("tunnel", &["HAProxy"]);
        self.ratio(
            ("tunnel", samples),
            "memory per idle pair, after a request",
            "HAProxy",
            "<= 0.8",
            rounds,
        );
    }

    pub(crate) fn short(&mut self, samples: &Samples) {
        self.figures("connect, PING, close", samples, "us each", 1e6);
        let both = "the better of HAProxy and nginx";
        self.ratio(
            ("tunnel", samples),
            "short connections: CPU each",
            both,
            "<= 1.0",
            samples.cost_by("tunnel", BOTH),
        );
    }

    pub(crate) fn alone(&mut self, samples: &Samples) {
        self.figures("one connection alone", samples, "us a request", 1e6);
        let times = samples.rate_by("tunnel", &["nginx"]).iter().map(|ratio| 1.0 / ratio).collect();
        self.ratio(("tunnel", samples), "a lone connection: median time", "nginx", "<= 1.0", times);
    }

    pub(crate) fn calls(&mut self, name: &str, calls: &[(String, u64)], requests: f64) {
        let each = |count: &u64| *count as f64 / requests;
        let all: f64 = calls.iter().map(|(_, count)| each(count)).sum();
        let mut most: Vec<_> = calls.iter().filter(|(_, count)| each(count) >= 0.01).collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let names: Vec<_> =
            most.iter().map(|(name, count)| format!("{name} {:.2}", each(count))).collect();
        let _ = writeln!(self.calls, "| {name} | {all:.2} | {} |", names.join(", "));
        let by_uring = Io::Auto.here(1) == Io::Uring;
        let row = match name {
            "tunnel" if by_uring => ("tunnel by io_uring: system calls per request", "<= 1.0"),
            "tunnel, epoll" => ("tunnel by epoll: system calls per request", "<= 4.3"),
            _ => return,
        };
        self.add(Row::new(row.0, "", row.1, vec![all]));
    }

    /// For the terminal, and the middle of the file.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| work | against | target | measured | spread | |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            text.push_str(&row.line());
        }
        text.push_str(&self.figures);
        if !self.calls.is_empty() {
            let _ = write!(
                text,
                "\n| system calls | per request | which |\n|---|---|---|\n{}",
                self.calls
            );
        }
        for (program, package) in &self.missing {
            let _ = write!(
                text,
                "\n{program} is not installed (package {package}): its rows were not measured.\n"
            );
        }
        text
    }

    /// Writes `RESULTS.md` and `results.svg` beside this bench.
    pub(crate) fn write(&self) -> io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let text = format!(
            "# Measured beside others\n\n`cargo bench --bench peers`; {} rounds, in which the proxies took turns, each started anew. A ratio is the \
             median of those within a round,\nand below it is how far they lay apart. CPU is that of the proxy's process, memory \
             what it grew by.\n\n{}\n![The ratios beside their targets](results.svg)\n\n{}\n{}\n## Where\n\n{}\n",
            self.round_count,
            "",
            self.table(),
            include_str!("../held-back.md"),
            machine()
        );
        fs::write(folder.join("RESULTS.md"), text)?;
        fs::write(folder.join("results.svg"), self.picture())
    }

    /// A bar for each ratio, with a line where its target is.
    fn picture(&self) -> String {
        let rows: Vec<_> = self.rows.iter().filter(|row| !row.against.is_empty()).collect();
        let height = 30 * rows.len() + 40;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"980\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"980\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for (place, row) in rows.iter().enumerate() {
            let top = 30 * place + 20;
            let _ = writeln!(
                svg,
                "<text x=\"520\" y=\"{}\" text-anchor=\"end\">{} / {}</text>",
                top + 14,
                escape(&row.work),
                escape(&row.against)
            );
            let Some(middle) = median(&row.rounds) else {
                let _ = writeln!(svg, "<text x=\"530\" y=\"{}\">not measured</text>", top + 14);
                continue;
            };
            let at = |ratio: f64| 530.0 + (ratio * 150.0).clamp(1.0, 380.0);
            let target = row.target.get(2..).and_then(|text| text.trim().parse().ok()).map(at);
            let colour =
                row.is_met().map_or("#8899aa", |met| if met { "#3a8f4d" } else { "#c4553b" });
            let end = at(middle);
            let _ = writeln!(
                svg,
                "<rect x=\"530\" y=\"{top}\" width=\"{:.0}\" height=\"20\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{middle:.2}</text>",
                end - 530.0,
                // Not across the line.
                6.0 + target.map_or(end, |target| target.max(end)),
                top + 15
            );
            if let Some(target) = target {
                let _ = writeln!(
                    svg,
                    "<line x1=\"{target:.0}\" x2=\"{target:.0}\" y1=\"{}\" y2=\"{}\" stroke=\"black\" stroke-width=\"2\"/>",
                    top - 3,
                    top + 23
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The machine, and the versions of all that took part.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let field = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_string());
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(field);
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut text = format!(
        "- {cores} cores, {}, Linux {}; clients, proxies and servers share them\n",
        model.unwrap_or_else(|| "of unknown make".into()),
        kernel.trim()
    );
    let programs: &[(&str, &str)] = &[
        ("redis-server", "--version"),
        ("haproxy", "-v"),
        ("nginx", "-v"),
        ("nutcracker", "--version"),
        ("wrk", "-v"),
    ];
    for (name, flag) in programs {
        let Some(path) = super::program::find(name) else { continue };
        let Ok(output) = Command::new(path).arg(flag).output() else { continue };
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        let line = printed.lines().find(|line| !line.trim().is_empty()).unwrap_or(name);
        let _ = writeln!(text, "- {}", line.trim());
    }
    text
}
