//! `trunkline faults`: puts faults on real traffic, by order of any client of Toxiproxy.

mod api;
mod json;
mod metrics;
mod server;

use super::logging::Format;
use super::signals::{Order, Orders};
use super::{Done, Failure, fd_limit, flags, logging, proxy};
use api::Api;
use argh::FromArgs;
use futures_lite::future::{block_on, or};
use log::LevelFilter;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use trunkline::testing::faults::{Faults, New, Refused};
use trunkline::{Endpoint, Error};

/// Puts faults on real traffic: Toxiproxy's HTTP API, clients, toxics and configuration file, with a seed that works.
#[derive(FromArgs)]
#[argh(
    note = "Toxics: latency {{latency, jitter}} ms; bandwidth {{rate}} kB/s; slow_close {{delay}} ms; timeout {{timeout}} ms;\nreset_peer {{timeout}} ms; slicer {{average_size, size_variation}} bytes, {{delay}} us; limit_data {{bytes}}.\nEach has name, type, stream (downstream or upstream), toxicity (0 to 1), and besides Toxiproxy's own fields\n\"on\": {{\"connection\": 3, \"after_bytes\": 1000}}: only on the third connection, only behind its thousandth byte.",
    note = "ADDR is HOST:PORT or [IPV6]:PORT. The file is a JSON list of proxies: name, listen, upstream, enabled.\nSIGTERM and SIGINT stop; SIGHUP reopens the log file, or stops if there is none.",
    example = "Before Redis, with replies half a second late:\n$ {command_name} --seed 7 &\n$ curl 127.0.0.1:8474/proxies -d '{{\"name\": \"redis\", \"listen\": \"127.0.0.1:26379\", \"upstream\": \"127.0.0.1:6379\"}}'\n$ curl 127.0.0.1:8474/proxies/redis/toxics -d '{{\"type\": \"latency\", \"attributes\": {{\"latency\": 500}}}}'",
    error_code(0, "It was told to stop."),
    error_code(1, "The system did not allow it."),
    error_code(2, "A flag or the file is wrong.")
)]
pub(crate) struct Flags {
    /// where the HTTP API listens (default 127.0.0.1:8474)
    #[argh(option, arg_name = "ADDR", default = "SocketAddr::from(([127, 0, 0, 1], 8474)).into()")]
    api: Endpoint,

    /// proxies to begin with, as POST /populate takes them
    #[argh(option, arg_name = "FILE")]
    config: Option<PathBuf>,

    /// the number from which every random draw comes (default: another one each time, which is logged)
    #[argh(option, arg_name = "N", from_str_fn(flags::whole))]
    seed: Option<u64>,

    /// threads that carry connections (default 1)
    #[argh(option, arg_name = "N", from_str_fn(flags::carriers), default = "1")]
    threads: usize,

    /// write the log here instead of to stdout; reopened on SIGHUP
    #[argh(option, arg_name = "PATH")]
    log_file: Option<PathBuf>,

    /// error, warn, info, debug or trace (default info)
    #[argh(option, arg_name = "LEVEL", from_str_fn(flags::level), default = "LevelFilter::Info")]
    log_level: LevelFilter,

    /// pretty or json (default pretty on a terminal, else json)
    #[argh(option, arg_name = "FORMAT", from_str_fn(flags::format))]
    log_format: Option<Format>,
}

/// Serves until it is told to stop.
pub(crate) fn run(flags: Flags) -> Done {
    let config = flags.config.as_deref().map(json::read_file).transpose()?;
    fd_limit::raise();
    let format = flags::format_for(flags.log_format, flags.log_file.as_deref());
    let log = logging::start(flags.log_level, format, flags.log_file, None)?;
    proxy::quiet_panics();
    trunkline::set_threads(flags.threads);
    let seed = flags.seed.unwrap_or_else(any_seed);
    let done = block_on(serve(&flags.api, seed, config.unwrap_or_default(), &log));
    log.finish();
    done
}

async fn serve(place: &Endpoint, seed: u64, config: Vec<New>, log: &logging::Log) -> Done {
    let mut orders = Orders::new()?;
    let listener = server::bind(place).await.map_err(|source| listen_failure(place, source))?;
    let faults = Faults::start(seed);
    for new in config {
        let name = new.name.clone();
        let refused = |refused: Refused| Failure::Runtime(format!("proxy {name:?}: {refused}"));
        let proxy = faults.put(new).await.map_err(refused)?;
        api::log_proxy(&proxy, "listening");
    }
    let api = listener.get_ref().local_addr().map_err(|source| listen_failure(place, source))?;
    log::info!(actor = "faults", api:% = api, seed; "the API listens");
    let obey = async { while orders.next().await == Order::Hangup && log.reopen() {} };
    or(server::serve(listener, Api::new(faults)), obey).await;
    log::info!(actor = "faults"; "stopped");
    Ok(ExitCode::SUCCESS)
}

fn listen_failure(place: &Endpoint, source: io::Error) -> Failure {
    let error = Error::Listen { endpoint: place.clone(), source };
    Failure::Runtime(proxy::advice(&error).replace("--listen", "--api"))
}

/// Not the same twice; nobody has to guess it, for it is logged.
fn any_seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Short enough to be typed.
    (time.as_nanos() as u64 ^ u64::from(std::process::id())) % 1_000_000_000
}
