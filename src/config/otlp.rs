//! `[otlp]`: which OpenTelemetry collector gets the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeTable;

use super::lake::duration;
use super::reader::Reader;
use crate::metrics::otlp::{Collector, is_header};

/// Metrics are posted so often, unless the configuration says otherwise.
const INTERVAL: Duration = Duration::from_secs(30);
/// A collector is not posted to more often than that.
const SHORTEST: Duration = Duration::from_secs(1);

impl Reader<'_> {
    /// `None` when there is a fault.
    pub(super) fn otlp(&mut self, table: &DeTable<'_>, at: usize) -> Option<Collector> {
        self.only("[otlp]", table, &["endpoint", "interval", "headers"]);
        let wanted = "a time of one second or more, such as \"30s\"";
        let some = |text: &str| duration(text).filter(|time| *time >= SHORTEST);
        let interval = table.get("interval");
        let interval = interval.and_then(|item| self.parsed("otlp.interval", item, wanted, some));
        let mut headers = BTreeMap::new();
        if let Some(item) = table.get("headers") {
            let example = "{ authorization = \"Bearer ${TOKEN}\" }";
            for (name, value) in self.inner("otlp.headers", item, example).into_iter().flatten() {
                let (key, at) = (name.get_ref().to_string(), name.span().start);
                let place = format!("otlp.headers.{key}");
                let Some(value) = self.secret(&place, value) else { continue };
                if !is_header(&key, &value) {
                    let message = format!("{place} is no header of HTTP: its value is one line");
                    self.fault(at, message);
                }
                headers.insert(key, value);
            }
        }
        let Some(item) = table.get("endpoint") else {
            let message = "[otlp] has no endpoint; write endpoint = \"http://127.0.0.1:4318\"";
            self.fault(at, message);
            return None;
        };
        let endpoint = self.secret("otlp.endpoint", item)?;
        let url = url::Url::parse(endpoint.reveal()).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https")) {
            let message = "otlp.endpoint is no web address: write it as \"http://…\"";
            self.fault(item.span().start, message);
        }
        Some(Collector { endpoint, interval: interval.unwrap_or(INTERVAL), headers })
    }
}
