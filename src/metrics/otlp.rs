//! The metrics posted to an OpenTelemetry collector: OTLP over HTTP, in its JSON form
//! (OpenTelemetry Protocol Specification 1.5, "OTLP/HTTP" and "JSON Protobuf Encoding"). 64-bit
//! numbers are texts there.

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::secret::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{Family, Series, Value, families};
use crate::board::{BOUNDS, Board};
use crate::pipeline::now_ms;

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both series of a sum and of a histogram tell all since the process started
/// (`AGGREGATION_TEMPORALITY_CUMULATIVE`).
const CUMULATIVE: u8 = 2;

/// Where the metrics are posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    /// Its address, to which `/v1/metrics` is added.
    pub endpoint: Secret,
    /// How often.
    pub interval: Duration,
    /// What is sent with each request, such as a key.
    pub headers: BTreeMap<String, Secret>,
}

/// Posts the metrics of `board` to `collector`, for as long as it is polled.
pub async fn push(board: Board, collector: Collector) {
    let headers: HeaderMap = collector.headers.iter().filter_map(header).collect();
    let client = reqwest::Client::builder().timeout(PATIENCE).default_headers(headers).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return warn!(%error, "metrics are not posted: the collector can't be used"),
    };
    let address = format!("{}/v1/metrics", collector.endpoint.reveal().trim_end_matches('/'));
    let mut tick = interval(collector.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Said when it changes, not every time.
    let mut well = None;
    loop {
        tick.tick().await;
        let body = request(&families(&board), board.started_ms(), now_ms()).to_string();
        let post = client.post(&address).header("content-type", "application/json").body(body);
        match post.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) if well != Some(true) => {
                info!("the collector takes metrics");
                well = Some(true);
            }
            Err(error) if well != Some(false) => {
                // The address may be a secret.
                let error = error.without_url();
                warn!(%error, "the collector did not take metrics; they are posted again");
                well = Some(false);
            }
            _ => {}
        }
    }
}

/// A header that can be sent; the configuration has refused the others.
fn header((name, value): (&String, &Secret)) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value.reveal()).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(name).ok()?, value))
}

/// Whether a header can be sent: its name, and its value.
pub fn is_header(name: &str, value: &Secret) -> bool {
    HeaderName::try_from(name).is_ok() && HeaderValue::from_str(value.reveal()).is_ok()
}

/// An `ExportMetricsServiceRequest`; times in milliseconds of Unix time.
fn request(families: &[Family], started_ms: i64, now_ms: i64) -> Json {
    let time = Times { started: nanos(started_ms), now: nanos(now_ms) };
    let known = families.iter().filter(|family| !family.series.is_empty());
    let metrics: Vec<_> = known.map(|family| metric(family, &time)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let resource =
        [("service.name", "lakeward".to_owned()), ("service.version", version.to_owned())];
    json!({ "resourceMetrics": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeMetrics": [{
            "scope": { "name": "lakeward", "version": version },
            "metrics": metrics,
        }],
    }] })
}

/// Texts of nanoseconds of Unix time.
struct Times {
    started: String,
    now: String,
}

fn nanos(ms: i64) -> String {
    (i128::from(ms) * 1_000_000).to_string()
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<Json> {
    let one =
        |(key, value): &(&str, String)| json!({ "key": key, "value": { "stringValue": value } });
    labels.iter().map(one).collect()
}

fn metric(family: &Family, time: &Times) -> Json {
    let points: Vec<_> = family.series.iter().map(|series| point(series, time)).collect();
    let histogram = family.series.iter().any(|series| matches!(series.value, Value::Durations(_)));
    let (kind, data) = match (histogram, family.is_counter) {
        (true, _) => {
            ("histogram", json!({ "aggregationTemporality": CUMULATIVE, "dataPoints": points }))
        }
        (false, true) => (
            "sum",
            json!({
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": true,
                "dataPoints": points,
            }),
        ),
        (false, false) => ("gauge", json!({ "dataPoints": points })),
    };
    let name = format!("lakeward_{}", family.name);
    json!({ "name": name, "description": family.help, "unit": unit(family.name), kind: data })
}

/// A unit by its UCUM code, as the names of the metrics end.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("milliseconds") => "ms",
        Some("bytes") => "By",
        _ => "1",
    }
}

fn point(series: &Series, time: &Times) -> Json {
    let attributes = attributes(&series.labels);
    let Times { started, now } = time;
    match &series.value {
        Value::Number(value) => json!({
            "attributes": attributes,
            "startTimeUnixNano": started,
            "timeUnixNano": now,
            "asInt": value.to_string(),
        }),
        Value::Durations(took) => json!({
            "attributes": attributes,
            "startTimeUnixNano": started,
            "timeUnixNano": now,
            "count": took.count().to_string(),
            "sum": took.seconds(),
            "bucketCounts": took.counts().iter().map(u64::to_string).collect::<Vec<_>>(),
            "explicitBounds": BOUNDS,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_64_bits_are_texts_and_empty_families_are_left_out() {
        let labels = || vec![("source", "shop".to_owned())];
        let mut took = crate::board::Durations::default();
        took.note(Duration::from_millis(300));
        let one = |name, is_counter, value| {
            let series = vec![Series { labels: labels(), value }];
            Family { name, help: "What.", is_counter, series }
        };
        let families = [
            one("changes", true, Value::Number(i64::MAX)),
            one("lag_bytes", false, Value::Number(-1)),
            one("flush_seconds", false, Value::Durations(took)),
            Family { name: "rows", help: "None.", is_counter: false, series: Vec::new() },
        ];
        let request = request(&families, 1_700_000_000_000, 1_700_000_000_001);
        let metrics = &request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        assert_eq!(metrics.as_array().map(Vec::len), Some(3));
        let sum = &metrics[0]["sum"];
        assert_eq!(sum["dataPoints"][0]["asInt"], "9223372036854775807");
        assert_eq!(sum["dataPoints"][0]["startTimeUnixNano"], "1700000000000000000");
        assert_eq!(sum["dataPoints"][0]["attributes"][0]["value"]["stringValue"], "shop");
        assert_eq!((&sum["isMonotonic"], &metrics[1]["unit"]), (&json!(true), &json!("By")));
        let point = &metrics[2]["histogram"]["dataPoints"][0];
        assert_eq!((&point["count"], &point["bucketCounts"][4]), (&json!("1"), &json!("1")));
    }
}
