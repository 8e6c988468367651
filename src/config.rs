//! Every setting of a proxy, with its default, and the memory that follows from them.

use crate::Endpoint;
use crate::units::{show_duration, show_size};
use std::fmt;
use std::time::Duration;

/// The settings of a proxy. The defaults are those of the command line.
///
/// ```
/// let config = trunkline::Config::default();
/// assert_eq!(config.max_conn, 10_000);
/// assert_eq!(config.check(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<Endpoint>,
    /// Where their bytes go: the first of these, counted round-robin, that accepts.
    pub backends: Vec<Endpoint>,
    /// How long one address of a backend may take to accept, and a name to resolve.
    pub connect_timeout: Duration,
    /// How many clients the kernel keeps waiting for each listener (listen(2)).
    pub backlog: u32,
    /// How many connections are carried at once; further clients wait in the backlog.
    pub max_conn: usize,
    /// How often deadlines are looked at. A deadline may be met up to two ticks late.
    pub tick: Duration,
    /// How long a connection may stand without a byte in either direction.
    pub idle_timeout: Duration,
    /// The same once one side has ended its sending (or can no longer be written to).
    pub half_close_timeout: Duration,
    /// How long connections may go on after the proxy was told to stop.
    pub drain_timeout: Duration,
    /// How sockets are waited for.
    pub io: Io,
    /// Keepalive probes on every TCP socket; `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// How often [`Events::on_timer`](crate::Events::on_timer) is called and a report is logged.
    pub report: Option<Duration>,
    /// The permissions of a unix socket's file; `None` leaves them to the umask.
    pub unix_mode: Option<u32>,
    /// How much memory a connection may hold.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| Endpoint::Ip(([127, 0, 0, 1], port).into());
        Config {
            listen: vec![local(9509)],
            backends: vec![local(9501)],
            connect_timeout: Duration::from_millis(200),
            backlog: 128,
            max_conn: 10_000,
            tick: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3600),
            half_close_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            io: Io::Auto,
            keepalive: None,
            report: None,
            unix_mode: None,
            limits: Limits::default(),
        }
    }
}

/// More connections, messages or bytes of a chunk than this are a slip, not a wish.
const MOST: usize = 1 << 24;

impl Config {
    /// Says whether these settings make sense together.
    ///
    /// # Errors
    /// One sentence that names the setting (as its flag is called), what is wrong and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err("no listen address; name at least one".into());
        }
        if self.backends.is_empty() {
            return Err("no backend; name at least one".into());
        }
        for (place, listen) in self.listen.iter().enumerate() {
            let port_0 = matches!(listen, Endpoint::Ip(address) if address.port() == 0);
            if self.listen[..place].contains(listen) && !port_0 {
                return Err(format!("listen {listen} is given twice; once is enough"));
            }
        }
        for backend in &self.backends {
            if backend.port() == Some(0) {
                return Err(format!("backend {backend} has port 0; name a real port"));
            }
            if let Some(listen) = self.listen.iter().find(|listen| backend.reaches(listen)) {
                return Err(format!(
                    "backend {backend} is where {listen} listens; the proxy would connect to itself"
                ));
            }
        }
        let counts = [
            ("max-conn", self.max_conn),
            ("backlog", self.backlog as usize),
            ("chunk", self.limits.chunk),
            ("mailbox", self.limits.mailbox),
        ];
        for (name, value) in counts {
            if value == 0 {
                return Err(format!("{name} 0 would serve nobody; use 1 or more"));
            }
        }
        for (name, value) in counts.into_iter().chain([("spare", self.limits.spare)]) {
            // Room for this many is made at the start.
            if value > MOST {
                return Err(format!(
                    "{name} {value} is more than this program carries; use at most {MOST}"
                ));
            }
        }
        self.io.check()?;
        for (name, value) in [
            ("tick", self.tick),
            ("connect-timeout", self.connect_timeout),
            ("report", self.report.unwrap_or(self.tick)),
        ] {
            if value < Duration::from_millis(1) {
                let value = show_duration(value);
                return Err(format!("{name} {value} is too short; use 1ms or more"));
            }
        }
        for (name, value) in
            [("idle-timeout", self.idle_timeout), ("half-close-timeout", self.half_close_timeout)]
        {
            if value < self.tick {
                return Err(format!(
                    "{name} {} is shorter than the tick of {} by which it is looked at; use a tick of {} or less",
                    show_duration(value),
                    show_duration(self.tick),
                    show_duration(value.max(Duration::from_millis(1))),
                ));
            }
        }
        Ok(())
    }
}

/// How sockets are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// By io_uring where the kernel allows it and one thread carries the tasks; else by epoll; else as `Std`.
    Auto,
    /// By io_uring (Linux 6.1), which also receives and sends what is small, many by one call.
    Uring,
    /// By an epoll of this program's own, which is Linux's.
    Epoll,
    /// By async-std's reactor, which asks the kernel anew for each wait.
    Std,
}

impl Io {
    /// What it comes to on this machine, for so many threads.
    pub fn here(self, threads: usize) -> Io {
        match self {
            Io::Auto if threads == 1 && Io::Uring.check().is_ok() => Io::Uring,
            Io::Auto if Io::Epoll.check().is_ok() => Io::Epoll,
            Io::Auto => Io::Std,
            io => io,
        }
    }

    /// Whether there is such a thing on this machine.
    fn check(self) -> Result<(), String> {
        match self {
            #[cfg(target_os = "linux")]
            Io::Uring => crate::net::probe().map_err(|error| {
                format!("this kernel has no io_uring for us ({error}); use auto or epoll")
            }),
            #[cfg(not(target_os = "linux"))]
            Io::Uring | Io::Epoll => Err(format!("this system has no {self}; use auto or std")),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Auto => "auto",
            Io::Uring => "uring",
            Io::Epoll => "epoll",
            Io::Std => "std",
        })
    }
}

/// When the kernel probes a silent TCP peer (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Between two probes; `None` leaves it to the system.
    pub interval: Option<Duration>,
    /// Probes without an answer before the peer counts as dead; `None` leaves it to the system.
    pub count: Option<u32>,
}

impl fmt::Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.idle))?;
        if let Some(interval) = self.interval {
            write!(f, ",{}", show_duration(interval))?;
        }
        if let Some(count) = self.count {
            write!(f, ",{count}")?;
        }
        Ok(())
    }
}

/// The figures that bound memory. Every mailbox on the data path takes its capacity from here.
///
/// One direction of a connection holds at most: one chunk in the reader's hand, a full mailbox, and as many in the
/// writer's hand (it empties its mailbox into one write). Two directions make
/// `2 * (2 * mailbox + 1) * chunk` bytes; the kernel's own socket buffers come on top.
///
/// ```
/// let limits = trunkline::Limits { chunk: 32 << 10, mailbox: 3, spare: 128 };
/// assert_eq!(limits.per_connection(), 2 * (2 * 3 + 1) * (32 << 10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one chunk: the most that one read takes.
    pub chunk: usize,
    /// Messages in the mailbox of a writer.
    pub mailbox: usize,
    /// Empty buffers kept for the next read, per proxy; more than these go back to the allocator.
    pub spare: usize,
}

impl Default for Limits {
    /// What costs least where much is carried: 96 kB go out in one write. Half of a chunk costs half as much again, and twice
    /// the chunk gains nothing.
    fn default() -> Self {
        Limits { chunk: 32 << 10, mailbox: 3, spare: 128 }
    }
}

impl Limits {
    /// Bytes that io_uring may receive from one peer in one turn, before it is known that it sends much.
    pub const AHEAD: usize = 256 << 10;

    /// The most payload bytes that one connection holds in this process. By io_uring it is up to [`Limits::AHEAD`] more in
    /// each direction.
    pub fn per_connection(&self) -> usize {
        let one_direction = self.mailbox.saturating_mul(2).saturating_add(1);
        one_direction.saturating_mul(2).saturating_mul(self.chunk)
    }

    /// The most payload bytes that `connections` hold at once, with the spare buffers.
    pub fn total(&self, connections: usize) -> usize {
        self.per_connection()
            .saturating_mul(connections)
            .saturating_add(self.spare.saturating_mul(self.chunk))
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} per connection = 2 directions x (1 + 2 x {} chunks) x {}",
            show_size(self.per_connection()),
            self.mailbox,
            show_size(self.chunk),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let check = |change: fn(&mut Config), part: &str| {
            let mut config = Config::default();
            change(&mut config);
            let error = config.check().expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        check(|c| c.listen.clear(), "no listen address");
        check(|c| c.backends.clear(), "no backend");
        check(|c| c.backends = c.listen.clone(), "connect to itself");
        check(|c| c.backends = vec![Endpoint::Ip(([127, 0, 0, 1], 0).into())], "port 0");
        check(|c| c.max_conn = 0, "max-conn 0");
        check(|c| c.backlog = 0, "backlog 0");
        check(|c| c.backlog = u32::MAX, "backlog 4294967295 is more than");
        check(|c| c.max_conn = usize::MAX, "use at most 16777216");
        check(|c| c.listen.extend(c.listen.clone()), "is given twice");
        check(|c| c.tick = Duration::from_micros(1), "tick 1us is too short");
        check(|c| c.limits.mailbox = 0, "mailbox");
        check(|c| c.tick = Duration::ZERO, "tick 0s");
        check(|c| c.report = Some(Duration::ZERO), "report 0s");
        check(|c| c.idle_timeout = Duration::from_millis(300), "use a tick of 300ms or less");
        check(|c| c.half_close_timeout = Duration::ZERO, "half-close-timeout 0s");
    }

    #[test]
    fn the_bound_is_printed_with_its_sum() {
        assert_eq!(
            Limits::default().to_string(),
            "448k per connection = 2 directions x (1 + 2 x 3 chunks) x 32k"
        );
        let huge = Limits { chunk: usize::MAX, mailbox: usize::MAX, spare: usize::MAX };
        assert_eq!(huge.total(usize::MAX), usize::MAX);
    }
}
