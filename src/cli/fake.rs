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
use trunkline::framing::{Eof, Framing, Length, Line};
use trunkline::testing::behaviours::{Babble, Cut, Drip, Echo, HalfClose, Reset, Script, Stall};
use trunkline::testing::serve::{ReplyFault, Rule, Serve};
use trunkline::testing::{Behaviour, Ending, FakeBackend, Peer, RunningBackend, Seen};
use trunkline::units::{self, duration, show_duration, show_error, show_size};
use trunkline::{Boxed, Endpoint, Error};

/// A backend that behaves, or misbehaves, in a known way, for any number of clients, until ctrl-c.
#[derive(FromArgs)]
#[argh(
    note = "Behaviours:\n  echo         sends back what comes\n  stall        never reads\n  drip         says --size dots each --every, --times times; reads only then\n  cut          closes once --after bytes have come\n  reset        breaks off once --after bytes have come\n  babble       speaks first, then listens\n  half-close   speaks, ends its sending, then listens\n  refuse       holds the port, and accepts nobody\n  script:FILE  does what the file says, one step a line",
    note = "Steps of a script; a # begins a comment:\n  expect \"PING\\r\\n\"  exactly these bytes come next; or else the connection is reset, and the line is told\n  skip 4k            reads so many bytes, whatever they are\n  send \"+PONG\\r\\n\"   sends these bytes (\\r \\n \\t \\0 \\\\ \\\" \\x00)\n  wait 200ms         does nothing for so long\n  fin                ends the sending; reading goes on\n  drain              reads until the client ends its sending\n  close              closes, as the end of the file does\n  reset              breaks off, once all that was sent is delivered",
    note = "Protocols, with --protocol in place of a behaviour:\n  resp         a small Redis: strings, lists, databases, MULTI; RESP2\n  memcached    a small memcached: text and meta commands; nothing expires\n  http         PUT stores a body at a path, POST puts it behind what is there; GET, HEAD, DELETE;\n               with the query ?chunked a reply has no length\n  line         sends each line back; eof (\\r\\n) and length (32 bits) so their frames",
    note = "Faults of a reply: 3:FAULT on the third of each connection, every-3:FAULT on every third; the first that fits\n  drop             it does not come\n  delay=TIME       it comes so much later, and what is behind it too\n  duplicate        it comes twice\n  swap             it comes behind the next one; a client that does not send on waits for it\n  split=SIZE[,TIME]  so much of it, a pause (100ms), the rest\n  error            the protocol's error for what is too large, in place of it; before the body has been read, if the\n                   request is longer than 16k or the body is held back by Expect\n  cut=SIZE         closes after so much of it\n  reset=SIZE       breaks off after so much of it, which is delivered",
    note = "ADDR is HOST:PORT, [IPV6]:PORT or unix:/PATH; of a name's addresses the first is taken.\nSIZE has a unit: 512b, 4k, 2m. TIME too: 200ms, 30s, 5m.",
    example = "Behind a proxy with no flags at all, a backend that answers slowly:\n$ {command_name} --behaviour drip --size 1b --every 1s",
    example = "A Redis that loses every third reply, and stops for a second within the second one of each connection:\n$ {command_name} --protocol resp --reply 2:split=2b,1s --reply every-3:drop",
    error_code(0, "It was told to stop."),
    error_code(1, "The system did not allow it."),
    error_code(2, "A flag or a script is wrong.")
)]
pub(crate) struct Flags {
    /// where clients connect (default 127.0.0.1:9501, where the proxy looks for its backend)
    #[argh(option, arg_name = "ADDR", default = "SocketAddr::from(([127, 0, 0, 1], 9501)).into()")]
    listen: Endpoint,

    /// what it does with each of them: a name below (default echo)
    #[argh(option, arg_name = "NAME")]
    behaviour: Option<Name>,

    /// answer in a protocol instead: a name below
    #[argh(option, arg_name = "NAME")]
    protocol: Option<Protocol>,

    /// protocol: what goes wrong with a reply; repeatable
    #[argh(option, arg_name = "N:FAULT")]
    reply: Vec<Rule>,

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

/// A protocol, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Resp,
    Memcached,
    #[cfg(feature = "http")]
    Http,
    Line,
    Eof,
    Length,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        Ok(match text {
            "resp" => Protocol::Resp,
            "memcached" => Protocol::Memcached,
            #[cfg(feature = "http")]
            "http" => Protocol::Http,
            #[cfg(not(feature = "http"))]
            "http" => {
                return Err(
                    "this trunkline was built without http; build it with `--features http`".into(),
                );
            }
            "line" => Protocol::Line,
            "eof" => Protocol::Eof,
            "length" => Protocol::Length,
            _ => {
                return Err(format!(
                    "{text:?} is not a protocol; use resp, memcached, http, line, eof or length"
                ));
            }
        })
    }
}

impl Protocol {
    fn serve(self) -> Serve {
        fn echo(framing: impl Framing) -> Serve {
            Serve::new(framing, |frame: &[u8]| frame.to_vec())
        }
        match self {
            Protocol::Resp => Serve::resp(),
            Protocol::Memcached => Serve::memcached(),
            #[cfg(feature = "http")]
            Protocol::Http => Serve::http(),
            Protocol::Line => echo(Line::default()),
            Protocol::Eof => echo(Eof::default()),
            Protocol::Length => echo(Length::default()),
        }
    }

    /// Whether it has an error of its own.
    fn has_errors(self) -> bool {
        !matches!(self, Protocol::Line | Protocol::Eof | Protocol::Length)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Resp => "resp",
            Protocol::Memcached => "memcached",
            #[cfg(feature = "http")]
            Protocol::Http => "http",
            Protocol::Line => "line",
            Protocol::Eof => "eof",
            Protocol::Length => "length",
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
    fd_limit::raise();
    trunkline::set_threads(1);
    let cast = flags.cast()?;
    let mut orders = Orders::new()?;
    let (lines, printed) = print_lines();
    let file = match &flags.behaviour {
        Some(Name::Script(file)) => format!("{file} "),
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
    let verb = if flags.refuses() { "refusing" } else { "listening" };
    let hello = format!("{verb} on {}: {} {}\n", backend.endpoint(), flags.what(), cast.does);
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
        match self.protocol {
            Some(protocol) => self.check_protocol(protocol)?,
            None if self.reply.is_empty() => {}
            None => {
                let text = "--reply is for --protocol; add that, or remove --reply";
                return Err(Failure::Usage(text.into()));
            }
        }
        let own: &[&str] = match self.name() {
            _ if self.protocol.is_some() => &[],
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
                let asked = if self.protocol.is_some() { "--protocol" } else { "--behaviour" };
                let what = self.what();
                let text = format!("{flag} is for {of}; remove it, or change {asked} {what}");
                return Err(Failure::Usage(text));
            }
        }
        Ok(())
    }

    fn check_protocol(&self, protocol: Protocol) -> Result<(), Failure> {
        if let Some(name) = &self.behaviour {
            return Err(Failure::Usage(format!(
                "--behaviour {name} and --protocol {protocol} are two backends; remove one"
            )));
        }
        for (place, rule) in self.reply.iter().enumerate() {
            let Rule { which, fault } = rule;
            if *fault == ReplyFault::Error && !protocol.has_errors() {
                return Err(Failure::Usage(format!(
                    "--reply {rule}: {protocol} has no error of its own; use drop, or another --protocol"
                )));
            }
            if let Some(first) = self.reply[..place].iter().find(|first| first.which == *which) {
                return Err(Failure::Usage(format!(
                    "--reply {rule} would never be applied, for --reply {first} comes first; remove one"
                )));
            }
        }
        Ok(())
    }

    fn name(&self) -> &Name {
        self.behaviour.as_ref().unwrap_or(&Name::Echo)
    }

    /// The behaviour or the protocol, as it was asked for.
    fn what(&self) -> String {
        self.protocol.map_or_else(|| self.name().to_string(), |protocol| protocol.to_string())
    }

    fn refuses(&self) -> bool {
        self.protocol.is_none() && *self.name() == Name::Refuse
    }

    fn cast(&self) -> Result<Cast, Failure> {
        if let Some(protocol) = self.protocol {
            let does = match protocol {
                Protocol::Line | Protocol::Eof | Protocol::Length => "sends each frame back",
                _ => "keeps what it is told",
            };
            let rules: Vec<String> = self.reply.iter().map(Rule::to_string).collect();
            let does = match rules.is_empty() {
                true => does.to_string(),
                false => format!("{does}; replies {}", rules.join(" ")),
            };
            let serve = self.reply.iter().cloned().fold(protocol.serve(), Serve::rule);
            return Ok(Cast::new(serve, does));
        }
        let words = || self.say.as_deref().unwrap_or("hello\n").as_bytes().to_vec();
        let after = self.after.unwrap_or(1);
        let cast = match self.name() {
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
        Endpoint::Unix(path) if flags.refuses() && path.exists() => {
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
            Ok(()) => Ok(flags.name().clone()),
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
        wrong(&["--protocol", "resp", "--after", "5b"], "or change --protocol resp");
    }

    #[test]
    fn a_fault_of_a_reply_belongs_to_a_protocol_and_can_happen() {
        let words = "--protocol resp --reply 3:drop --reply every-3:swap --reply 1:error";
        assert!(check(&words.split(' ').collect::<Vec<_>>()).is_ok());
        let wrong = |words: &str, part: &str| {
            let error = check(&words.split(' ').collect::<Vec<_>>()).expect_err(part);
            assert!(error.contains(part), "{words}: {error}");
        };
        wrong("--reply 3:drop", "--reply is for --protocol; add that, or remove --reply");
        wrong("--protocol resp --behaviour echo", "are two backends; remove one");
        wrong("--protocol rsp", "use resp, memcached, http, line, eof or length");
        wrong("--protocol line --reply 1:error", "line has no error of its own; use drop");
        wrong(
            "--protocol resp --reply 1:drop --reply 1:swap",
            "--reply 1:swap would never be applied, for --reply 1:drop comes first",
        );
        wrong("--protocol resp --reply drop", "write for example 3:drop");
        wrong("--protocol resp --reply 1:split=2", "write 2b");
    }
}
