//! `trunkline check`: are the settings valid, what are they in full, and how much memory may they take?

use super::flags::Flags;
use super::{Done, fd_limit, say};
use std::fmt::Write;
use trunkline::units::{show_duration, show_size};
use trunkline::{Config, Io, Keepalive, Limits, PoolConfig};

/// Prints the effective settings and the memory bound. Opens no socket.
pub(crate) fn run(flags: Flags) -> Done {
    let config = flags.config()?;
    let pooling = flags.pooling()?;
    let pool = pooling.as_ref().map(|(framing, pool)| (framing.name(), pool));
    say(&report(&flags, &config, pool, fd_limit::raise()))
}

fn report(flags: &Flags, config: &Config, pool: Option<(&str, &PoolConfig)>, fds: u64) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:20} {value}\n"));
    for listen in &config.listen {
        line("listen", listen.to_string());
    }
    for backend in &config.backends {
        line("backend", backend.to_string());
    }
    match pool {
        None => line("mode", "tunnel".into()),
        Some((framing, pool)) => {
            let mux = pool.shared > 0;
            let or_never = |time: Option<_>| time.map_or("never".into(), show_duration);
            line("mode", if mux { "mux" } else { "pool" }.into());
            line("framing", framing.into());
            line("trunks", if mux { pool.shared } else { pool.trunks }.to_string());
            line("min-trunks", pool.min_trunks.to_string());
            line("max-pinned", pool.max_pinned.to_string());
            line("queue-timeout", show_duration(pool.queue_timeout));
            line("max-queue", pool.max_queue.to_string());
            line("reply-timeout", or_never(pool.reply_timeout));
            line("trunk-idle", show_duration(pool.trunk_idle));
            line("trunk-lifetime", or_never(pool.trunk_lifetime));
            if mux {
                line("credit", pool.credit.to_string());
                line("reply-buffer", show_size(pool.reply_buffer));
            }
        }
    }
    let off = || "off".to_string();
    line("connect-timeout", show_duration(config.connect_timeout));
    line("workers", flags.workers.to_string());
    line("threads", flags.threads.to_string());
    let io = config.io.here(flags.threads);
    line("io", io.to_string());
    line("backlog", config.backlog.to_string());
    line("max-conn", config.max_conn.to_string());
    line("tick", show_duration(config.tick));
    line("idle-timeout", show_duration(config.idle_timeout));
    line("half-close-timeout", show_duration(config.half_close_timeout));
    line("drain-timeout", show_duration(config.drain_timeout));
    line("keepalive", config.keepalive.as_ref().map_or_else(off, Keepalive::to_string));
    line("unix-mode", config.unix_mode.map_or("umask".into(), |mode| format!("{mode:03o}")));
    line("report", config.report.map_or_else(off, show_duration));
    line(
        "log-file",
        flags.log_file.as_ref().map_or("stdout".into(), |file| file.display().to_string()),
    );
    line("log-level", flags.log_level.to_string().to_lowercase());
    line("log-format", flags.format().to_string());

    let fits = config.max_conn.min(fd_limit::fitting(fds));
    line("memory", format!("at most {}", config.limits));
    line("", format!("at most {} for {fits} connections", about(config.limits.total(fits))));
    if io == Io::Uring {
        let ahead = show_size(2 * Limits::AHEAD);
        line("", format!("and up to {ahead} that io_uring has received in one turn"));
    }
    if pool.is_some() {
        line("", "and up to 64k for the request and for the reply that is being read".into());
        line("", "and up to 80k of requests that go again if their trunk is lost".into());
    }
    if let Some((_, pool)) = pool.filter(|(_, pool)| pool.shared > 0) {
        let most = show_size(pool.reply_buffer);
        line("", format!("and up to {most} of replies for each client that takes them slowly"));
    }
    if flags.workers > 1 {
        line("", format!("for each of {} workers", flags.workers));
    }
    let needed = fd_limit::needed(config.max_conn);
    line("open files", format!("{needed} needed, {fds} allowed"));
    let mut text = lines.concat();
    if fits < config.max_conn {
        let _ = writeln!(text, "warning: {}", fd_limit::warning(config.max_conn, fds));
    }
    text.push_str("the settings are valid\n");
    text
}

/// A number of bytes as a person compares it with a machine's memory.
fn about(bytes: usize) -> String {
    const MIB: f64 = (1 << 20) as f64;
    match bytes as f64 / MIB {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_what_memory_is_sold_in() {
        assert_eq!(about(288 << 10), "0.3 MiB");
        assert_eq!(about(2_880_640 << 10), "2.7 GiB");
    }
}
