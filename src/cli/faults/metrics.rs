//! `/metrics`, with Toxiproxy's names (METRICS.md of Shopify/toxiproxy), in the text format of OpenMetrics.

use super::json::stream;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use std::fmt;
use trunkline::Side;
use trunkline::testing::faults::Proxied;

const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type and the text.
pub(super) fn text(proxies: &[Proxied]) -> (&'static str, String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Bytes(proxies.to_vec())));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    (KIND, text)
}

#[derive(Debug)]
struct Bytes(Vec<Proxied>);

impl Collector for Bytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, received) in [
            ("received", "Bytes that the proxy read of a direction", true),
            ("sent", "Bytes of a direction that the peer's socket took", false),
        ] {
            let name = format!("toxiproxy_proxy_{name}_bytes");
            let kind = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
            for proxy in &self.0 {
                let (listen, backend) = (proxy.listen.to_string(), proxy.backend.to_string());
                let report = &proxy.report;
                for (towards, read, written) in [
                    (Side::Backend, report.from_client, report.to_backend),
                    (Side::Client, report.from_backend, report.to_client),
                ] {
                    let labels = [
                        ("direction", stream(towards)),
                        ("proxy", proxy.name.as_str()),
                        ("listener", listen.as_str()),
                        ("upstream", backend.as_str()),
                    ];
                    let counter = ConstCounter::new(if received { read } else { written });
                    counter.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
