//! The metrics in the text format of Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Family, Value, families};
use crate::board::{BOUNDS, Board};

/// The metrics of `board`.
pub fn text(board: &Board) -> String {
    let mut registry = Registry::with_prefix("lakeward");
    registry.register_collector(Box::new(Scrape(board.clone())));
    let mut text = String::new();
    // Writing to a String doesn't fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Scrape(Board);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families(&self.0).iter().try_for_each(|family| encode(family, &mut encoder))
    }
}

fn kind(family: &Family) -> MetricType {
    match family.series.first().map(|series| &series.value) {
        Some(Value::Durations(_)) => MetricType::Histogram,
        _ if family.is_counter => MetricType::Counter,
        _ => MetricType::Gauge,
    }
}

fn encode(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let kind = kind(family);
    let mut described = encoder.encode_descriptor(family.name, family.help, None, kind)?;
    for series in &family.series {
        let mut one = described.encode_family(&series.labels)?;
        match (&series.value, kind) {
            (Value::Number(value), MetricType::Counter) => {
                ConstCounter::new(value.unsigned_abs()).encode(one)?;
            }
            (Value::Number(value), _) => ConstGauge::new(*value).encode(one)?,
            (Value::Durations(took), _) => {
                let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(took.counts().iter().copied()).collect();
                let (sum, count) = (took.seconds(), took.count());
                one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::board::Flushed;

    #[test]
    fn names_stay_what_dashboards_know() {
        let board = Board::default();
        let meter = board.source("shop", "postgres");
        let (durable, took) = ("0/1".to_owned(), Duration::from_millis(300));
        meter.flushed(Flushed { epoch: 1, durable, took, committed: Vec::new() }, [].into_iter());
        let text = text(&board);
        for line in [
            "# TYPE lakeward_changes counter",
            "lakeward_changes_total{source=\"shop\"} 0",
            "lakeward_flushes_total{source=\"shop\"} 1",
            "lakeward_source_up{source=\"shop\"} 0",
            "lakeward_stopped_tables{source=\"shop\"} 0",
            "# TYPE lakeward_flush_seconds histogram",
            "lakeward_flush_seconds_bucket{le=\"0.25\",source=\"shop\"} 0",
            "lakeward_flush_seconds_bucket{le=\"0.5\",source=\"shop\"} 1",
            "lakeward_flush_seconds_bucket{le=\"+Inf\",source=\"shop\"} 1",
            "lakeward_flush_seconds_count{source=\"shop\"} 1",
            "lakeward_memory_bytes{source=\"shop\",part=\"changes\"} 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
