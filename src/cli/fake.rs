//! `trunkline fake`: a backend that behaves, or misbehaves, in a known way.

use super::signals::Orders;
use super::{Done, Failure, fd_limit, proxy, say};
use argh::FromArgs;
use futures_lite::future::block_on;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;
use trunkline::testing::behaviours::{Babble, Cut, Drip, Echo, HalfClose, Reset, Script, Stall};
use trunkline::testing::{Behaviour, Ending, FakeBackend, Peer, RunningBackend, Seen};
use trunkline::units::{self, duration, show_duration, show_error, show_size};
use trunkline::{Boxed, Endpoint, Error};

/// A backend that behaves, or misbehaves, in a known way, for any number of clients, until ctrl-c.
#[derive(FromArgs)]
#[argh(
    note = "Behaviours:\n  echo         sends back what comes\n  stall        never reads\n  drip         says --size dots each --every, --times times; reads only then\n  cut          closes once --after bytes have come\n  reset        breaks off once --after bytes have come\n  babble       speaks first, then listens\n  half-close   speaks, ends its sending, then listens\n  refuse       holds the port, and accepts nobody\n  script:FILE  does what the file says, one step a line",
    note = "Steps of a script; a # begins a comment:\n  expect \"PING\\r\\n\"  exactly these bytes come next; or else the connection is reset, and the line is told\n  skip 4k            reads so many bytes, whatever they are\n  send \"+PONG\\r\\n\"   sends these bytes (\\r \\n \\t \\0 \\\\ \\\" \\x00)\n  wait 200ms         does nothing for so long\n  fin                ends the sending; reading goes on\n  drain              reads until the client ends its sending\n  close              closes, as the end of the file does\n  reset              breaks off, once all that was sent is delivered",
    note = "ADDR is HOST:PORT, [IPV6]:PORT or unix:/PATH; of a name's addresses the first is taken.\nSIZE has a unit: 512b, 4k, 2m. TIME too: 200ms, 30s, 5m.",
    example = "Behind a proxy with no flags at all, a backend that answers slowly:\n$ {command_name} --behaviour drip --size 1b --every 1s",
    error_code(0, "It was told to stop."),
    error_code(1, "The system did not allow it."),
    error_code(2, "A flag or a script is wrong.")
)]
pub(crate) struct Flags {
    /// where clients connect (default 127.0.0.1:9501, where the proxy looks for its backend)
    #[argh(option, arg_name = "ADDR", default = "SocketAddr::from(([127, 0, 0, 1], 9501)).into()")]
    listen: Endpoint,

    /// what it does with each of them: a name below (default echo)
    #[argh(option, arg_name = "NAME", default = "Name::Echo")]
    behaviour: Name,

    /// what babble and half-close say (default "hello" and a line's end)
    #[argh(option, arg_name = "TEXT")]
    say: Option<String>,

    /// how many bytes drip says at a time (default 1b)
    #[argh(option, arg_name = "SIZE", from_str_fn(drop_size))]
    size: Option<usize>,

    /// how long drip is silent before each (default 100ms)
    #[argh(option, arg_name = "TIME", from_str_fn(drip_pause))]
    every: Option<Duration>,

    /// how often drip speaks (default until the client has gone)
    #[argh(option, arg_name = "N", from_str_fn(whole))]
    times: Option<usize>,

    /// how many bytes cut and reset read first; 0b is none (default 1b)
    #[argh(option, arg_name = "SIZE", from_str_fn(units::size))]
    after: Option<usize>,
}

/// A behaviour, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Echo,
    Stall,
    Drip,
    Cut,
    Reset,
    Babble,
    Refuse,
    HalfClose,
    Script(String),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        Ok(match text {
            "echo" => Name::Echo,
            "stall" => Name::Stall,
            "drip" => Name::Drip,
            "cut" => Name::Cut,
            "reset" => Name::Reset,
            "babble" => Name::Babble,
            "refuse" => Name::Refuse,
            "half-close" => Name::HalfClose,
            _ => match text.strip_prefix("script:") {
                Some(file) if !file.is_empty() => Name::Script(file.to_string()),
                _ => {
                    return Err(format!(
                        "{text:?} is not a behaviour; use echo, stall, drip, cut, reset, babble, refuse, half-close or script:FILE"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Echo => "echo",
            Name::Stall => "stall",
            Name::Drip => "drip",
            Name::Cut => "cut",
            Name::Reset => "reset",
            Name::Babble => "babble",
            Name::Refuse => "refuse",
            Name::HalfClose => "half-close",
            Name::Script(file) => return write!(f, "script:{file}"),
        })
    }
}

fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number; write for example 10"))
}

fn drip_pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => {
            Err(format!("{text} is no pause; use 1ms or more"))
        }
        time => Ok(time),
    }
}

fn drop_size(text: &str) -> Result<usize, String> {
    match units::size(text)? {
        0 => Err("a drip of nothing says nothing; use 1b or more".into()),
        // It is held in memory, once for each client that is slow to take it.
        size if size > 64 << 20 => Err(format!("{text} is more than a drip; use at most 64m")),
        size => Ok(size),
    }
}

/// Serves until it is told to stop.
pub(crate) fn run(flags: Flags) -> Done {
    flags.check()?;
    let cast = flags.cast()?;
    fd_limit::raise();
    trunkline::set_threads(1);
    let mut orders = Orders::new()?;
    let (lines, printed) = print_lines();
    let file = match &flags.behaviour {
        Name::Script(file) => format!("{file} "),
        _ => String::new(),
    };
    let backend = match cast.behaviour {
        Some(behaviour) => {
            let (lines, count) = (lines.clone(), AtomicU64::new(0));
            FakeBackend::new(Told { behaviour, file, lines, count })
        }
        None => FakeBackend::refuse(),
    };
    let backend = listen(backend, &flags)?;
    let verb = if flags.behaviour == Name::Refuse { "refusing" } else { "listening" };
    let hello = format!("{verb} on {}: {} {}\n", backend.endpoint(), flags.behaviour, cast.does);
    tell(&lines, hello);
    // Whatever it is: a fake whose terminal has gone is over too.
    block_on(orders.next());
    let accepted = backend.accepted();
    block_on(backend.stop());
    tell(&lines, format!("stopped after {accepted} connections\n"));
    // Full or late: nobody reads what it prints, and it ends all the same.
    let _ = lines.try_send(None);
    let _ = printed.recv_timeout(PATIENCE);
    Ok(ExitCode::SUCCESS)
}

impl Flags {
    /// A parameter of another behaviour would change nothing, in silence.
    fn check(&self) -> Result<(), Failure> {
        let own: &[&str] = match self.behaviour {
            Name::Babble | Name::HalfClose => &["--say"],
            Name::Drip => &["--size", "--every", "--times"],
            Name::Cut | Name::Reset => &["--after"],
            Name::Echo | Name::Stall | Name::Refuse | Name::Script(_) => &[],
        };
        for (flag, given, of) in [
            ("--say", self.say.is_some(), "babble and half-close"),
            ("--size", self.size.is_some(), "drip"),
            ("--every", self.every.is_some(), "drip"),
            ("--times", self.times.is_some(), "drip"),
            ("--after", self.after.is_some(), "cut and reset"),
        ] {
            if given && !own.contains(&flag) {
                let name = &self.behaviour;
                let text = format!("{flag} is for {of}; remove it, or change --behaviour {name}");
                return Err(Failure::Usage(text));
            }
        }
        Ok(())
    }

    fn cast(&self) -> Result<Cast, Failure> {
        let words = || self.say.as_deref().unwrap_or("hello\n").as_bytes().to_vec();
        let after = self.after.unwrap_or(1);
        let cast = match &self.behaviour {
            Name::Echo => Cast::new(Echo, "sends back what comes"),
            Name::Stall => Cast::new(Stall::new(), "never reads"),
            Name::Drip => {
                let bytes = vec![b'.'; self.size.unwrap_or(1)];
                let every = self.every.unwrap_or(Duration::from_millis(100));
                let each = format!("says {} each {}", show_size(bytes.len()), show_duration(every));
                let does = match self.times {
                    Some(times) => format!("{each}, {times} times"),
                    None => each,
                };
                Cast::new(Drip { bytes, every, times: self.times.unwrap_or(usize::MAX) }, does)
            }
            Name::Cut => {
                Cast::new(Cut { after: after as u64 }, format!("closes after {}", show_size(after)))
            }
            Name::Reset => {
                let reset = Reset { after: after as u64, words: Vec::new() };
                Cast::new(reset, format!("breaks off after {}", show_size(after)))
            }
            Name::Babble => Cast::new(Babble(words()), "speaks first, then listens"),
            Name::HalfClose => {
                Cast::new(HalfClose(words()), "speaks, ends its sending, then listens")
            }
            Name::Refuse => Cast { behaviour: None, does: "accepts nobody".into() },
            Name::Script(file) => Cast::new(script(file)?, "does what the file says"),
        };
        Ok(cast)
    }
}

/// Who plays the backend.
struct Cast {
    /// None if it refuses.
    behaviour: Option<Arc<dyn Behaviour>>,
    does: String,
}

impl Cast {
    fn new(behaviour: impl Behaviour, does: impl Into<String>) -> Cast {
        Cast { behaviour: Some(Arc::new(behaviour)), does: does.into() }
    }
}

/// The longest script that is read. Written by hand, it is a thousandth of that.
const LONGEST: usize = 1 << 20;

fn script(file: &str) -> Result<Script, Failure> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(LONGEST as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let error = show_error(&error);
            Failure::Runtime(format!(
                "cannot read the script {file}: {error}; choose another script:FILE"
            ))
        })?;
    if bytes.len() > LONGEST {
        let most = show_size(LONGEST);
        return Err(Failure::Usage(format!("{file} is longer than {most}; no script is")));
    }
    let text = str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::Usage(format!("{file} line {line}: not UTF-8; write such a byte as \\xff"))
    })?;
    text.parse().map_err(|error| Failure::Usage(format!("{file} {error}")))
}

fn listen(backend: FakeBackend, flags: &Flags) -> Result<RunningBackend, Failure> {
    let endpoint = flags.listen.clone();
    let failed = |source| {
        let endpoint = endpoint.clone();
        Failure::Runtime(proxy::advice(&Error::Listen { endpoint, source }))
    };
    let place = match &endpoint {
        Endpoint::Name { host, port } => {
            let mut found = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
            let none = || failed(io::Error::other("the name has no address"));
            found.next().ok_or_else(none)?.into()
        }
        Endpoint::Unix(path) if flags.behaviour == Name::Refuse && path.exists() => {
            // A path refuses by not being there.
            let text = "the path exists, and may accept; remove it";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        place => place.clone(),
    };
    backend.try_listen_at(place).map_err(failed)
}

/// Tells how each connection of another behaviour has ended.
struct Told {
    behaviour: Arc<dyn Behaviour>,
    /// The script's name, for a line of it.
    file: String,
    lines: Lines,
    count: AtomicU64,
}

impl Behaviour for Told {
    fn reads(&self) -> usize {
        self.behaviour.reads()
    }

    fn run<'a>(&'a self, peer: Peer) -> Boxed<'a, Seen> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            // Nobody asks for the bytes, which would be a lot for thousands of clients.
            let seen = self.behaviour.run(peer.keeping(0)).await;
            let ending = ending(&seen, &self.file);
            tell(
                &self.lines,
                format!("connection {number}: {} bytes came; {ending}\n", seen.count),
            );
            seen
        })
    }
}

fn ending(seen: &Seen, file: &str) -> String {
    match (&seen.unmet, seen.ending) {
        (Some(unmet), _) => format!("reset here, for {file}{unmet}"),
        (None, Ending::Fin) => "the client ended its sending".into(),
        (None, Ending::Open) => "ended here first".into(),
        (None, Ending::Reset(kind)) => format!("the client broke off: {kind}"),
    }
}

type Lines = SyncSender<Option<String>>;

/// Lines that may wait for whoever reads stdout. If more come, they are lost: a reader that stands still must not
/// hold up a connection.
const WAITING: usize = 4096;

/// How long the end waits for the last line to be printed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints lines in a thread of its own, until `None`; then the other channel closes.
fn print_lines() -> (Lines, Receiver<()>) {
    let (lines, to_print) = mpsc::sync_channel::<Option<String>>(WAITING);
    let (printed, done) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let _printed = printed;
        while let Ok(Some(line)) = to_print.recv() {
            // A reader that has seen enough is no reason to stop.
            let _ = say(&line);
        }
    });
    (lines, done)
}

fn tell(lines: &Lines, line: String) {
    // Full: see WAITING. Closed cannot be, for the thread waits for `None`.
    let _ = lines.try_send(Some(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str]) -> Result<Name, String> {
        let flags = Flags::from_args(&["trunkline", "fake"], words).map_err(|exit| exit.output)?;
        match flags.check() {
            Ok(()) => Ok(flags.behaviour),
            Err(Failure::Usage(text) | Failure::Runtime(text)) => Err(text),
        }
    }

    #[test]
    fn every_name_is_shown_as_it_is_written() {
        let names = "echo stall drip cut reset babble refuse half-close script:a:b";
        for name in names.split(' ') {
            assert_eq!(check(&["--behaviour", name]).expect(name).to_string(), name);
        }
        assert_eq!(check(&[]), Ok(Name::Echo));
    }

    #[test]
    fn a_flag_belongs_to_its_behaviour() {
        for words in [
            &["--behaviour", "drip", "--size", "4k", "--every", "1s", "--times", "3"][..],
            &["--behaviour", "cut", "--after", "0b"],
            &["--behaviour", "half-close", "--say", "check"],
        ] {
            assert!(check(words).is_ok(), "{words:?}");
        }
        let wrong = |words: &[&str], part: &str| {
            let error = check(words).expect_err(part);
            assert!(error.contains(part), "{words:?}: {error}");
        };
        wrong(
            &["--after", "5b"],
            "--after is for cut and reset; remove it, or change --behaviour echo",
        );
        wrong(&["--behaviour", "cut", "--say", "x"], "--say is for babble and half-close");
        wrong(&["--behaviour", "cut", "--after", "5"], "write 5b, 5k or 5m");
        wrong(&["--behaviour", "drip", "--size", "0b"], "use 1b or more");
        wrong(&["--behaviour", "drip", "--size", "9999g"], "at most 64m");
        wrong(&["--behaviour", "drip", "--times", "often"], "not a whole number");
        wrong(&["--behaviour", "ecko"], "use echo, stall, drip");
        wrong(&["--behaviour", "script:"], "or script:FILE");
    }
}
