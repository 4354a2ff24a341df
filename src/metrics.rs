//! The [`Board`] as Prometheus metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::board::{Board, SourceFacts, Standing, TableFacts};
use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::verify::{Outcome, Verified};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfSource {
    source: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTable {
    source: String,
    table: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPosition {
    source: String,
    kind: String,
    position: String,
}

/// A figure of a source: its name, what it is, and where it is read.
type Figure<T> = (&'static str, &'static str, fn(&T) -> Option<i64>);

/// What only grows while the process runs.
const COUNTERS: [Figure<SourceFacts>; 4] = [
    ("changes", "Changes decoded from the log.", |of| Some(of.changes as i64)),
    ("flushes", "Epochs closed.", |of| Some(of.flushes as i64)),
    ("commits", "Delta commits.", |of| Some(of.commits as i64)),
    ("restarts", "Times a source started over after an error.", |of| Some(of.restarts as i64)),
];

const GAUGES: [Figure<SourceFacts>; 7] = [
    ("source_up", "1 while a source is being followed.", |of| {
        let up = i64::from(of.standing == Standing::Following);
        (of.standing != Standing::Removed).then_some(up)
    }),
    (
        "lag_milliseconds",
        "Age of the oldest source commit that is not durable in the lake; 0 when all is.",
        |of| of.lag.map(|lag| lag.at(now_ms())),
    ),
    (
        "lag_bytes",
        "Bytes of the source's log that are not durable in the lake, where the source can say.",
        |of| of.lag_bytes.map(|bytes| bytes as i64),
    ),
    (
        "log_retained_bytes",
        "Bytes of its log that the source's server keeps until Lakeward has acknowledged them.",
        |of| of.log_retained.map(|bytes| bytes as i64),
    ),
    (
        "log_window_seconds",
        "How much older the beginning of the source's log is than what is durable in the lake.",
        |of| of.log_window_s.map(|seconds| seconds as i64),
    ),
    ("buffered_bytes", "What waits to be written.", |of| Some(of.buffered as i64)),
    ("stopped_tables", "Tables that can't go on.", |of| {
        let stopped = |table: &&TableFacts| table.state == State::Stopped;
        Some(of.tables.values().filter(stopped).count() as i64)
    }),
];

const TABLE_GAUGES: [Figure<TableFacts>; 9] = [
    ("snapshot_rows", "Rows read by a running snapshot.", |of| {
        of.progress().map(|progress| progress.rows as i64)
    }),
    ("rows", "Rows of the lake's table.", |of| of.size.map(|size| size.rows as i64)),
    ("files", "Data files of the lake's table.", |of| of.size.map(|size| size.files as i64)),
    ("staged_changes", "Changes that are durable and that readers don't see yet.", |of| {
        of.size.map(|size| size.staged as i64)
    }),
    (
        "copied_bytes",
        "Bytes of data files written again since the source started, for rows in them that changed.",
        |of| of.size.map(|size| size.copied as i64),
    ),
    ("new_bytes", "Bytes of new rows since the source started.", |of| {
        of.size.map(|size| size.brought as i64)
    }),
    ("verified_rows", "Rows that the newest verification compared.", |of| {
        compared(of).map(|verified| verified.rows as i64)
    }),
    (
        "verified_differences",
        "Rows in which the newest verification found lake and source to differ.",
        |of| compared(of).map(|verified| verified.differing() as i64),
    ),
    (
        "verified_timestamp_seconds",
        "When the newest verification ended, seconds of Unix time.",
        |of| compared(of).map(|verified| verified.at_ms / 1_000),
    ),
];

/// The newest verification of a table that could be compared.
fn compared(of: &TableFacts) -> Option<&Verified> {
    of.verified.as_ref().filter(|verified| verified.outcome != Outcome::Skipped)
}

/// The metrics of `board` in the text format of Prometheus.
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
        for (name, help, read) in COUNTERS {
            self.family(&mut encoder, (name, help, MetricType::Counter), of_source(read))?;
        }
        for (name, help, read) in GAUGES {
            self.family(&mut encoder, (name, help, MetricType::Gauge), of_source(read))?;
        }
        for (name, help, read) in TABLE_GAUGES {
            self.family(&mut encoder, (name, help, MetricType::Gauge), of_tables(read))?;
        }
        let help =
            "Always 1; the labels hold the position that was read, made durable and acknowledged.";
        self.family(&mut encoder, ("position", help, MetricType::Gauge), positions)
    }
}

impl Scrape {
    /// Writes one family: the series that `read` finds in each source.
    fn family<L: EncodeLabelSet>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        read: impl Fn(&str, &SourceFacts, &mut Vec<(L, i64)>),
    ) -> fmt::Result {
        let mut series = Vec::new();
        self.0.each(|source, facts| read(source, facts, &mut series));
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (label, value) in &series {
            let one = family.encode_family(label)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value.unsigned_abs()).encode(one)?,
                _ => ConstGauge::new(*value).encode(one)?,
            }
        }
        Ok(())
    }
}

/// The one series of a source.
fn of_source(
    read: fn(&SourceFacts) -> Option<i64>,
) -> impl Fn(&str, &SourceFacts, &mut Vec<(OfSource, i64)>) {
    move |source, facts, series| {
        let label = OfSource { source: source.to_owned() };
        series.extend(read(facts).map(|value| (label, value)));
    }
}

/// A series for each of its tables.
fn of_tables(
    read: fn(&TableFacts) -> Option<i64>,
) -> impl Fn(&str, &SourceFacts, &mut Vec<(OfTable, i64)>) {
    move |source, facts, series| {
        for (id, table) in &facts.tables {
            let label = || OfTable { source: source.to_owned(), table: id.to_string() };
            series.extend(read(table).map(|value| (label(), value)));
        }
    }
}

fn positions(source: &str, facts: &SourceFacts, series: &mut Vec<(OfPosition, i64)>) {
    let places =
        [("read", &facts.read), ("durable", &facts.durable), ("acknowledged", &facts.durable)];
    for (kind, position) in places.into_iter().filter(|(_, position)| !position.is_empty()) {
        let (source, kind) = (source.to_owned(), kind.to_owned());
        series.push((OfPosition { source, kind, position: position.clone() }, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What dashboards and alerts refer to: neither the page nor the daemon has one that the other
    /// doesn't.
    #[test]
    fn the_page_has_every_metric_and_no_other() {
        let counters = COUNTERS.iter().map(|(name, ..)| format!("{name}_total"));
        let gauges = GAUGES.iter().map(|(name, ..)| (*name).to_owned());
        let tables = TABLE_GAUGES.iter().map(|(name, ..)| (*name).to_owned());
        let mut all: Vec<_> = counters.chain(gauges).chain(tables).collect();
        all.push("position".to_owned());
        let mut page: Vec<_> = include_str!("../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `lakeward_")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect();
        all.sort_unstable();
        page.sort_unstable();
        assert_eq!(all, page);
        let known = |name: &str| all.iter().any(|known| known == name);
        let used = [
            include_str!("../deploy/alerts.yml"),
            include_str!("../deploy/grafana/dashboards/lakeward.json"),
        ];
        for name in used.iter().flat_map(|text| text.split("lakeward_").skip(1)) {
            let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            let name = &name[..end.unwrap_or(name.len())];
            assert!(known(name), "lakeward_{name} is used, and there is no such metric");
        }
    }

    #[test]
    fn names_stay_what_dashboards_know() {
        let board = Board::default();
        let text = {
            let _meter = board.source("shop", "postgres");
            text(&board)
        };
        for line in [
            "# TYPE lakeward_changes counter",
            "lakeward_changes_total{source=\"shop\"} 0",
            "lakeward_flushes_total{source=\"shop\"} 0",
            "lakeward_source_up{source=\"shop\"} 0",
            "lakeward_stopped_tables{source=\"shop\"} 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
