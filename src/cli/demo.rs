//! `trunkline demo`: a backend, the proxy, and a few clients in one process, and what each actor did for one request.

use super::signals::Orders;
use super::{Done, Failure, demo_backend};
use argh::FromArgs;
use futures_lite::future::block_on;
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use trunkline::{Ended, Endpoint, Error, Events, Proxy};

/// Show the proxy at work: an embedded backend, a few clients, and what each actor did for one request.
#[derive(FromArgs)]
pub(crate) struct Flags {
    /// end after the clients have been served, instead of staying up until ctrl-c
    #[argh(switch)]
    once: bool,
}

/// The port that the README names; another is taken if it is in use.
const PORT: u16 = 9509;

/// How long one of the demo's clients waits for a reply before the demo calls itself broken.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(flags: Flags) -> Done {
    let failed = |what: &str| {
        let what = what.to_string();
        move |error: io::Error| Failure::Runtime(format!("{what}: {error}"))
    };
    log::set_logger(&WATCH).map_err(|_| Failure::Runtime("a log is running already".into()))?;
    let backend = demo_backend::start().map_err(failed("cannot start the demo's backend"))?;
    let mut orders = Orders::new()?;
    let (closing, closed) = mpsc::sync_channel(1);
    let proxy = block_on(bind(backend, Closing(closing)))
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    let [Endpoint::Ip(address)] = *proxy.endpoints() else {
        return Err(Failure::Runtime("the demo listens on no IP address".into()));
    };
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let running = thread::spawn(move || {
        block_on(proxy.run(async move {
            // Nothing is ever sent: the channel closes when the demo is over.
            let _ = stopped.recv().await;
        }))
    });

    print(&format!("a backend listens on {backend}, and trunkline before it on {address}\n\n"))?;
    clients(address, &closed).map_err(failed("a client of the demo was not served"))?;
    if !flags.once {
        let port = address.port();
        print(&format!(
            "\nTry it by hand, in another terminal:\n\
             \x20   nc 127.0.0.1 {port}            then type PING, or SET name you, or GET name\n\
             \x20   redis-cli -p {port} get name\n\
             ctrl-c ends the demo.\n"
        ))?;
        // Whatever it is: a demo whose terminal has gone is over too.
        block_on(orders.next());
    }
    drop(stop);
    let report = running.join().map_err(|_| Failure::Runtime("the proxy panicked".into()))?;
    print(&format!(
        "\nstopped: {} connections ended cleanly and {} were aborted; {} bytes went to the backend and {} came back\n",
        report.clean, report.aborted, report.to_backend, report.to_client
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn bind(backend: SocketAddr, closing: Closing) -> Result<Proxy, Error> {
    let on = |port| {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Whoever types at the proxy by hand should not keep ctrl-c waiting.
        let drain = Duration::from_secs(1);
        Proxy::builder()
            .listen(listen)
            .backend(backend)
            .events(closing.clone())
            .with(|config| config.drain_timeout = drain)
    };
    match on(PORT).bind().await {
        Ok(proxy) => Ok(proxy),
        Err(_) => on(0).bind().await,
    }
}

/// Drives three clients through the proxy, and shows what the actors did for the first.
fn clients(proxy: SocketAddr, closed: &Receiver<()>) -> io::Result<()> {
    log::set_max_level(LevelFilter::Trace);
    let reply = talk(proxy, "PING\r\n")?;
    // The client has its reply before the actors have said all.
    let ended = closed.recv_timeout(PATIENCE);
    log::set_max_level(LevelFilter::Off);
    ended.map_err(|_| io::Error::other("its connection did not end"))?;
    let mut text = format!(
        "client 1 sent \"PING\" and ended its sending; it got {reply:?}. What each actor did for it:\n"
    );
    for (actor, step) in WATCH.take() {
        let _ = writeln!(text, "    {actor:<15} {step}");
    }
    for (number, request) in
        [(2, "SET name trunkline\r\n"), (3, "GET name\r\nECHO two-at-once\r\n")]
    {
        let reply = talk(proxy, request)?;
        let _ = writeln!(text, "client {number} sent {request:?} and got {reply:?}");
    }
    print(&text).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Tells the demo that a connection is over.
#[derive(Clone)]
struct Closing(SyncSender<()>);

impl Events for Closing {
    fn on_close(&self, _: &Ended) {
        // Full means that the demo has not looked at the last one; it waits for the first alone.
        let _ = self.0.try_send(());
    }
}

/// One connection: a request, the end of our sending, and all that comes back.
fn talk(proxy: SocketAddr, request: &str) -> io::Result<String> {
    let mut client = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(request.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    client.read_to_string(&mut reply)?;
    Ok(reply)
}

fn print(text: &str) -> Result<(), Failure> {
    super::say(text).map(|_| ())
}

/// The demo's logger: keeps what the actors say at trace level.
struct Watch(Mutex<Vec<(String, String)>>);

static WATCH: Watch = Watch(Mutex::new(Vec::new()));

impl Watch {
    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log for Watch {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Some(actor) = record.key_values().get(Key::from_str("actor")) else { return };
        let mut details = Details(String::new());
        if record.level() < log::Level::Debug {
            // The access log says all that it knows in its key-values.
            let _ = record.key_values().visit(&mut details);
        }
        let step = format!("{}{}", record.args(), details.0);
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push((actor.to_string(), step));
    }

    fn flush(&self) {}
}

struct Details(String);

impl VisitSource<'_> for Details {
    fn visit_pair(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), kv::Error> {
        let value = value.to_string();
        if key.as_str() != "actor" && !value.is_empty() {
            let _ = write!(self.0, " {key}={value}");
        }
        Ok(())
    }
}
