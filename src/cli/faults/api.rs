//! Toxiproxy's HTTP API: which request does what, and what it is answered.
//!
//! Paths, methods, status codes and JSON are those of Toxiproxy 2 (the README of Shopify/toxiproxy, "HTTP API"), so that
//! its clients work unchanged.

use super::json::{self, NewProxy, Object, ProxyBody, ToxicBody};
use super::metrics;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trunkline::testing::faults::{Faults, Proxied, Refused, Toxic};

/// The Toxiproxy whose API this is; some clients ask.
const VERSION: &str = "2.12.0";

pub(super) struct Api {
    faults: Faults,
}

/// What a request is answered.
pub(super) struct Answer {
    pub(super) status: u16,
    kind: &'static str,
    body: String,
}

const JSON: &str = "application/json";

impl Api {
    pub(super) fn new(faults: Faults) -> Api {
        Api { faults }
    }

    /// Does what is asked, or says why not; then nothing has changed.
    pub(super) async fn answer(
        &self,
        method: &Method,
        path: &str,
        agent: &str,
        body: &[u8],
    ) -> Answer {
        // A page in a browser must not be able to break its user's test bed.
        if agent.starts_with("Mozilla/") {
            return Answer::text(403, "User agent not allowed\n");
        }
        self.route(method.as_str(), path, body).await.unwrap_or_else(|answer| answer)
    }

    async fn route(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Answer> {
        let names: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match (method, &names[..]) {
            ("GET", ["proxies"]) => Ok(self.list().await),
            ("POST", ["proxies"]) => self.create(body).await,
            ("POST", ["populate"]) => self.populate(body).await,
            ("POST", ["reset"]) => {
                self.faults.reset().await.map_err(Answer::refused)?;
                log::info!(actor = "api"; "all proxies are enabled, and all toxics removed");
                Ok(Answer::none())
            }
            ("GET", ["version"]) => Ok(Answer::json(
                200,
                &json!({"version": VERSION, "trunkline": env!("CARGO_PKG_VERSION")}),
            )),
            ("GET", ["metrics"]) => {
                let (kind, body) = metrics::text(&self.faults.list().await);
                Ok(Answer { status: 200, kind, body })
            }
            ("GET", ["proxies", proxy]) => {
                Ok(Answer::json(200, &json::proxy(&self.find(proxy).await?)))
            }
            ("POST" | "PATCH", ["proxies", proxy]) => self.update(proxy, body).await,
            ("DELETE", ["proxies", proxy]) => {
                let proxy = self.faults.delete(proxy).await.map_err(Answer::refused)?;
                log_proxy(&proxy, "deleted");
                Ok(Answer::none())
            }
            ("GET", ["proxies", proxy, "toxics"]) => {
                let toxics = self.find(proxy).await?.toxics;
                Ok(Answer::json(200, &toxics.iter().map(json::toxic).collect()))
            }
            ("POST", ["proxies", proxy, "toxics"]) => self.create_toxic(proxy, body).await,
            ("GET", ["proxies", proxy, "toxics", toxic]) => {
                let toxic = find_toxic(self.find(proxy).await?, toxic)?;
                Ok(Answer::json(200, &json::toxic(&toxic)))
            }
            ("POST" | "PATCH", ["proxies", proxy, "toxics", toxic]) => {
                self.update_toxic(proxy, toxic, body).await
            }
            ("DELETE", ["proxies", proxy, "toxics", toxic]) => {
                self.faults.remove(proxy, toxic).await.map_err(Answer::refused)?;
                log::info!(actor = "api", proxy, toxic; "toxic removed");
                Ok(Answer::none())
            }
            (_, known) if is_a_path(known) => Err(Answer::text(405, "")),
            _ => Err(Answer::text(404, "404 page not found\n")),
        }
    }

    async fn list(&self) -> Answer {
        let list = self.faults.list().await;
        let list = list.iter().map(|proxy| (proxy.name.clone(), json::proxy(proxy)));
        Answer::json(200, &Value::Object(list.collect()))
    }

    async fn find(&self, name: &str) -> Result<Proxied, Answer> {
        let list = self.faults.list().await;
        let found = list.into_iter().find(|proxy| proxy.name == name);
        found.ok_or_else(|| Answer::refused(Refused::ProxyNotFound))
    }

    async fn create(&self, body: &[u8]) -> Result<Answer, Answer> {
        let new: NewProxy = parse(body)?;
        if let Some(field) = new.missing() {
            return Err(Answer::missing(field));
        }
        let new = new.into_new().map_err(|words| Answer::bad_body(&words))?;
        let proxy = self.faults.create(new).await.map_err(Answer::refused)?;
        log_proxy(&proxy, "created");
        Ok(Answer::json(201, &json::proxy(&proxy)))
    }

    async fn populate(&self, body: &[u8]) -> Result<Answer, Answer> {
        let list: Vec<Object<NewProxy>> = read(body)?;
        let mut news = Vec::new();
        for (place, Object(new)) in list.into_iter().enumerate() {
            if let Some(field) = new.missing() {
                return Err(Answer::missing(&format!("{field} at proxy {}", place + 1)));
            }
            news.push(new.into_new().map_err(|words| Answer::bad_body(&words))?);
        }
        let (mut proxies, mut refused) = (Vec::new(), None);
        for new in news {
            match self.faults.put(new).await {
                Ok(proxy) => {
                    log_proxy(&proxy, "populated");
                    proxies.push(json::proxy(&proxy));
                }
                Err(error) => {
                    refused = Some(Answer::refused(error));
                    break;
                }
            }
        }
        // Those before the one that failed are there, and are named.
        Ok(match refused {
            None => Answer::json(201, &json!({"proxies": proxies})),
            Some(Answer { status, body, .. }) => {
                let mut answer: Value = serde_json::from_str(&body).unwrap_or_default();
                answer["proxies"] = proxies.into();
                Answer::json(status, &answer)
            }
        })
    }

    async fn update(&self, name: &str, body: &[u8]) -> Result<Answer, Answer> {
        self.find(name).await?;
        let changes = parse::<ProxyBody>(body)?.into_changes();
        let changes = changes.map_err(|words| Answer::bad_body(&words))?;
        let proxy = self.faults.update(name, changes).await.map_err(Answer::refused)?;
        log_proxy(&proxy, "updated");
        Ok(Answer::json(200, &json::proxy(&proxy)))
    }

    async fn create_toxic(&self, proxy: &str, body: &[u8]) -> Result<Answer, Answer> {
        self.find(proxy).await?;
        let toxic = parse::<ToxicBody>(body)?.into_toxic().map_err(Answer::wrong_toxic)?;
        let name = toxic.name.clone();
        let proxied = self.faults.add(proxy, toxic).await.map_err(Answer::refused)?;
        let toxic = find_toxic(proxied, &name)?;
        log_toxic(proxy, &toxic, "toxic added");
        Ok(Answer::json(200, &json::toxic(&toxic)))
    }

    async fn update_toxic(&self, proxy: &str, name: &str, body: &[u8]) -> Result<Answer, Answer> {
        find_toxic(self.find(proxy).await?, name)?;
        let body: ToxicBody = parse(body)?;
        let edited = self.faults.edit(proxy, name, move |toxic| body.change(toxic)).await;
        let proxied = edited.map_err(|refused| match refused {
            Refused::Invalid(words) => Answer::bad_body(&words),
            other => Answer::refused(other),
        })?;
        let toxic = find_toxic(proxied, name)?;
        log_toxic(proxy, &toxic, "toxic changed");
        Ok(Answer::json(200, &json::toxic(&toxic)))
    }
}

fn is_a_path(names: &[&str]) -> bool {
    matches!(
        names,
        ["proxies" | "populate" | "reset" | "version" | "metrics"]
            | ["proxies", _]
            | ["proxies", _, "toxics"]
            | ["proxies", _, "toxics", _]
    )
}

fn find_toxic(proxy: Proxied, name: &str) -> Result<Toxic, Answer> {
    let found = proxy.toxics.into_iter().find(|toxic| toxic.name == name);
    found.ok_or_else(|| Answer::refused(Refused::ToxicNotFound))
}

/// An object.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    read(body).map(|Object(value)| value)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    json::first_value(body).map_err(|error| Answer::bad_body(&error.to_string()))
}

pub(super) fn log_proxy(proxy: &Proxied, what: &str) {
    let Proxied { name, listen, backend, enabled, .. } = proxy;
    log::info!(actor = "api", proxy = name.as_str(), listen:% = listen, backend:% = backend, enabled = *enabled; "{what}");
}

fn log_toxic(proxy: &str, toxic: &Toxic, what: &str) {
    let shown = json::toxic(toxic).to_string();
    log::info!(actor = "api", proxy, toxic = shown.as_str(); "{what}");
}

impl Answer {
    fn json(status: u16, value: &Value) -> Answer {
        Answer { status, kind: JSON, body: value.to_string() }
    }

    fn text(status: u16, text: &str) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: text.to_string() }
    }

    fn none() -> Answer {
        Answer::text(204, "")
    }

    fn error(status: u16, words: &str) -> Answer {
        Answer::json(status, &json!({"error": words, "status": status}))
    }

    pub(super) fn bad_body(words: &str) -> Answer {
        Answer::error(400, &format!("bad request body: {words}"))
    }

    pub(super) fn too_slow() -> Answer {
        Answer::error(408, "the request's body did not come in time")
    }

    fn missing(field: &str) -> Answer {
        Answer::error(400, &format!("missing required field: {field}"))
    }

    fn wrong_toxic(wrong: json::Wrong) -> Answer {
        match wrong {
            json::Wrong::Said(words) => Answer::error(400, words),
            json::Wrong::Body(words) => Answer::bad_body(&words),
        }
    }

    fn refused(refused: Refused) -> Answer {
        let status = match refused {
            Refused::ProxyNotFound | Refused::ToxicNotFound => 404,
            Refused::ProxyExists | Refused::ToxicExists => 409,
            Refused::Invalid(_) => 400,
            _ => 500,
        };
        Answer::error(status, &refused.to_string())
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let response = Response::builder().status(self.status);
        let response =
            if self.status == 204 { response } else { response.header("Content-Type", self.kind) };
        // The status and the header are ours, and valid.
        response.body(Full::from(self.body)).unwrap_or_default()
    }
}
