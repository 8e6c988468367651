//! The HTTP server under the API: hyper on async-io.

use super::api::{Answer, Api};
use async_io::Async;
use futures_lite::future::or;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::convert::Infallible;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use trunkline::Endpoint;
use trunkline::units::show_error;

/// The longest body that is looked at. A list of a thousand proxies is a tenth of that.
const LONGEST: usize = 1 << 20;

/// As much of a longer one is read and dropped, so that its sender hears why; the rest is cut off.
const DROPPED: usize = 64 << 20;

/// API connections at once; more wait in the backlog.
const MOST: usize = 256;

/// How long a client may take over the head of a request, or over saying nothing between two.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take over a body; Toxiproxy's own limit.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// How long accepting rests when the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn bind(place: &Endpoint) -> io::Result<Async<TcpListener>> {
    let place = place.to_string();
    if place.starts_with("unix:") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the API is not for unix sockets"));
    }
    let listener = TcpListener::bind(&*place.to_socket_addrs()?.collect::<Vec<_>>())?;
    Async::new(listener)
}

pub(super) async fn serve(listener: Async<TcpListener>, api: Api) {
    let api = Arc::new(api);
    let (slots, taken) = async_channel::bounded(MOST);
    loop {
        // The channel is open, for both ends are here.
        let _ = slots.send(()).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (api, taken) = (Arc::clone(&api), taken.clone());
                async_global_executor::spawn(async move {
                    if let Err(error) = converse(stream, api).await {
                        log::debug!(actor = "api"; "a conversation broke off: {error}");
                    }
                    let _ = taken.try_recv();
                })
                .detach();
            }
            Err(error) => {
                let _ = taken.try_recv();
                log::warn!(actor = "api"; "accepting failed, and is tried again: {}", show_error(&error));
                async_io::Timer::after(PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one client.
async fn converse(stream: Async<TcpStream>, api: Arc<Api>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(answer(&api, request).await) }
    });
    http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(FuturesIo::new(stream), service)
        .await
}

async fn answer(api: &Api, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let agent = head.headers.get("user-agent").and_then(|agent| agent.to_str().ok());
    let path = head.uri.path();
    let late = async {
        async_io::Timer::after(BODY_PATIENCE).await;
        Err(Answer::too_slow())
    };
    let answer = match or(read(body), late).await {
        Ok(body) => api.answer(&head.method, path, agent.unwrap_or_default(), &body).await,
        Err(answer) => answer,
    };
    log::debug!(actor = "api", method = head.method.as_str(), path, status = answer.status; "answered");
    answer.into_response()
}

/// Reads a body to its end.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Answer> {
    let (mut bytes, mut length) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        // A client that breaks off hears nothing of it.
        let frame = frame.map_err(|error| Answer::bad_body(&error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= LONGEST {
            bytes.extend_from_slice(&data);
        } else if length > DROPPED {
            break;
        }
    }
    match length {
        0..=LONGEST => Ok(bytes),
        _ => Err(Answer::bad_body("it is longer than 1 MiB")),
    }
}
