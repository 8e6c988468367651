//! Proxies and toxics as Toxiproxy writes them.

use super::super::Failure;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;
use trunkline::testing::faults::{Changes, Fault, New, Proxied, Toxic};
use trunkline::units::show_error;
use trunkline::{Endpoint, Side};

/// A proxy that is asked for; a member of the configuration file.
#[derive(Deserialize)]
pub(super) struct NewProxy {
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    rest: ProxyBody,
}

/// What may be said of a proxy.
#[derive(Deserialize)]
pub(super) struct ProxyBody {
    listen: Option<String>,
    upstream: Option<String>,
    enabled: Option<bool>,
}

/// A toxic that is asked for, or what is to change of one.
#[derive(Deserialize)]
pub(super) struct ToxicBody {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    stream: Option<String>,
    toxicity: Option<f64>,
    attributes: Option<Object<Attributes>>,
    on: Option<Object<On>>,
}

/// The attributes of all toxics; each has its own, and the others are ignored, as Toxiproxy does.
#[derive(Deserialize)]
struct Attributes {
    latency: Option<i64>,
    jitter: Option<i64>,
    rate: Option<i64>,
    delay: Option<i64>,
    timeout: Option<i64>,
    average_size: Option<i64>,
    size_variation: Option<i64>,
    bytes: Option<i64>,
}

/// Which connection, and where in it; Toxiproxy has nothing like it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct On {
    /// Null takes it back; without it, it stays.
    #[serde(default, deserialize_with = "given_or_null")]
    connection: Option<Option<u64>>,
    after_bytes: Option<u64>,
}

fn given_or_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// A JSON object, and not a list of its values, which serde takes as well.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(value)?;
        T::deserialize(Value::Object(map)).map(Object).map_err(D::Error::custom)
    }
}

/// Why a body is no toxic.
pub(super) enum Wrong {
    /// Toxiproxy has words for it.
    Said(&'static str),
    Body(String),
}

/// The first JSON value of a body; what follows it is ignored, as Toxiproxy does.
pub(super) fn first_value<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body))
}

/// The proxies of the configuration file.
pub(super) fn read_file(path: &Path) -> Result<Vec<New>, Failure> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| {
        let error = show_error(&error);
        Failure::Runtime(format!("cannot read {shown}: {error}; choose another --config"))
    })?;
    let list: Vec<Object<NewProxy>> = serde_json::from_slice(&text).map_err(|error| {
        Failure::Usage(format!(
            "{shown}: {error}; write [{{\"name\": \"redis\", \"listen\": \"127.0.0.1:26379\", \"upstream\": \"127.0.0.1:6379\"}}]"
        ))
    })?;
    let list: Vec<NewProxy> = list.into_iter().map(|Object(new)| new).collect();
    for (place, new) in list.iter().enumerate() {
        if let Some(field) = new.missing() {
            return Err(Failure::Usage(format!("{shown}: proxy {} has no {field}", place + 1)));
        }
        if list[..place].iter().any(|other| other.name == new.name) {
            return Err(Failure::Usage(format!("{shown}: there are two proxies {:?}", new.name)));
        }
    }
    let new = |new: NewProxy| {
        let name = new.name.clone();
        new.into_new().map_err(|words| Failure::Usage(format!("{shown}: proxy {name:?}: {words}")))
    };
    list.into_iter().map(new).collect()
}

impl NewProxy {
    /// The first field that it cannot be without and that it has not.
    pub(super) fn missing(&self) -> Option<&'static str> {
        if self.name.is_empty() {
            return Some("name");
        }
        self.rest.upstream.as_deref().unwrap_or_default().is_empty().then_some("upstream")
    }

    pub(super) fn into_new(self) -> Result<New, String> {
        let ProxyBody { listen, upstream, enabled } = self.rest;
        Ok(New {
            name: self.name,
            listen: listen_place(&listen.unwrap_or_default())?,
            backend: place("upstream", &upstream.unwrap_or_default())?,
            enabled: enabled.unwrap_or(true),
        })
    }
}

impl ProxyBody {
    pub(super) fn into_changes(self) -> Result<Changes, String> {
        Ok(Changes {
            listen: self.listen.as_deref().map(listen_place).transpose()?,
            backend: self.upstream.map(|upstream| place("upstream", &upstream)).transpose()?,
            enabled: self.enabled,
        })
    }
}

/// As Go has it: without a host it is every address, without anything a free port of every address.
fn listen_place(text: &str) -> Result<Endpoint, String> {
    let any = format!("[{}]", Ipv6Addr::UNSPECIFIED);
    match text {
        "" => place("listen", &format!("{any}:0")),
        text if text.starts_with(':') => place("listen", &format!("{any}{text}")),
        text => place("listen", text),
    }
}

fn place(field: &str, text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

impl ToxicBody {
    pub(super) fn into_toxic(self) -> Result<Toxic, Wrong> {
        let side = match self.stream.as_deref().map(str::to_lowercase).as_deref() {
            None | Some("downstream") => Side::Client,
            Some("upstream") => Side::Backend,
            Some(_) => {
                return Err(Wrong::Said(
                    "stream was invalid, can be either upstream or downstream",
                ));
            }
        };
        let kind = self.kind.as_deref().unwrap_or_default();
        let fault = plain(kind).ok_or(Wrong::Said("invalid toxic type"))?;
        let mut toxic = Toxic::new(fault).towards(side);
        if let Some(name) = &self.name
            && !name.is_empty()
        {
            toxic.name.clone_from(name);
        }
        self.change(&toxic).map_err(Wrong::Body)
    }

    /// The toxic with what is said here; what is not said stays.
    pub(super) fn change(self, toxic: &Toxic) -> Result<Toxic, String> {
        let mut toxic = toxic.clone();
        if let Some(toxicity) = self.toxicity {
            if toxicity.abs() > f64::from(f32::MAX) {
                return Err(format!("toxicity {toxicity} is out of range; use 0 to 1"));
            }
            toxic.toxicity = toxicity;
        }
        if let Some(Object(On { connection, after_bytes })) = self.on {
            if connection == Some(Some(0)) {
                return Err("on.connection 0 is none; connections count from 1".into());
            }
            toxic.on_connection = connection.unwrap_or(toxic.on_connection);
            toxic.after_bytes = after_bytes.unwrap_or(toxic.after_bytes);
        }
        if let Some(Object(attributes)) = self.attributes {
            toxic.fault = attributes.change(toxic.fault)?;
        }
        Ok(toxic)
    }
}

/// A toxic whose attributes are all 0, as Toxiproxy begins.
fn plain(kind: &str) -> Option<Fault> {
    let zero = Duration::ZERO;
    Some(match kind {
        "latency" => Fault::Latency { latency: zero, jitter: zero },
        "bandwidth" => Fault::Bandwidth { rate: 0 },
        "slow_close" => Fault::SlowClose { delay: zero },
        "timeout" => Fault::Timeout { timeout: zero },
        "reset_peer" => Fault::ResetPeer { timeout: zero },
        "slicer" => Fault::Slicer { average_size: 0, size_variation: 0, delay: zero },
        "limit_data" => Fault::LimitData { bytes: 0 },
        "noop" => Fault::Noop,
        _ => return None,
    })
}

impl Attributes {
    fn change(self, fault: Fault) -> Result<Fault, String> {
        let millis = Duration::from_millis;
        Ok(match fault {
            Fault::Latency { latency, jitter } => Fault::Latency {
                latency: given("latency", self.latency)?.map_or(latency, millis),
                jitter: given("jitter", self.jitter)?.map_or(jitter, millis),
            },
            Fault::Bandwidth { rate } => {
                Fault::Bandwidth { rate: given("rate", self.rate)?.unwrap_or(rate) }
            }
            Fault::SlowClose { delay } => {
                Fault::SlowClose { delay: given("delay", self.delay)?.map_or(delay, millis) }
            }
            Fault::Timeout { timeout } => {
                Fault::Timeout { timeout: given("timeout", self.timeout)?.map_or(timeout, millis) }
            }
            Fault::ResetPeer { timeout } => Fault::ResetPeer {
                timeout: given("timeout", self.timeout)?.map_or(timeout, millis),
            },
            Fault::Slicer { average_size, size_variation, delay } => Fault::Slicer {
                average_size: given("average_size", self.average_size)?.unwrap_or(average_size),
                size_variation: given("size_variation", self.size_variation)?
                    .unwrap_or(size_variation),
                delay: given("delay", self.delay)?.map_or(delay, Duration::from_micros),
            },
            Fault::LimitData { bytes } => {
                Fault::LimitData { bytes: given("bytes", self.bytes)?.unwrap_or(bytes) }
            }
            Fault::Noop => Fault::Noop,
        })
    }
}

fn given(name: &str, value: Option<i64>) -> Result<Option<u64>, String> {
    match value.map(u64::try_from) {
        Some(Err(_)) => Err(format!("{name} is below 0; use 0 or more")),
        Some(Ok(value)) => Ok(Some(value)),
        None => Ok(None),
    }
}

/// A proxy, with its toxics.
pub(super) fn proxy(proxy: &Proxied) -> Value {
    json!({
        "name": proxy.name,
        "listen": proxy.listen.to_string(),
        "upstream": proxy.backend.to_string(),
        "enabled": proxy.enabled,
        "toxics": proxy.toxics.iter().map(toxic).collect::<Value>(),
    })
}

/// Toxiproxy's word for the direction of a toxic.
pub(super) fn stream(towards: Side) -> &'static str {
    match towards {
        Side::Backend => "upstream",
        Side::Client => "downstream",
    }
}

/// A toxic; `on` is there only where it says something.
pub(super) fn toxic(toxic: &Toxic) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let attributes = match toxic.fault {
        Fault::Latency { latency, jitter } => {
            json!({"latency": millis(latency), "jitter": millis(jitter)})
        }
        Fault::Bandwidth { rate } => json!({"rate": rate}),
        Fault::SlowClose { delay } => json!({"delay": millis(delay)}),
        Fault::Timeout { timeout } | Fault::ResetPeer { timeout } => {
            json!({"timeout": millis(timeout)})
        }
        Fault::Slicer { average_size, size_variation, delay } => json!({
            "average_size": average_size,
            "size_variation": size_variation,
            "delay": u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
        }),
        Fault::LimitData { bytes } => json!({"bytes": bytes}),
        Fault::Noop => json!({}),
    };
    let mut value = json!({
        "attributes": attributes,
        "name": toxic.name,
        "type": toxic.fault.name(),
        "stream": stream(toxic.towards),
        "toxicity": toxic.toxicity,
    });
    if toxic.on_connection.is_some() || toxic.after_bytes > 0 {
        value["on"] = json!({"connection": toxic.on_connection, "after_bytes": toxic.after_bytes});
    }
    value
}
