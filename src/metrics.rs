//! The [`Board`] as metrics: what there is to measure, whoever is told.

use crate::board::{Board, Durations, Memory, SourceFacts, Standing, TableFacts};
use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::verify::{Outcome, Verified};

pub mod otlp;
pub mod prometheus;

/// What one name stands for.
#[derive(Debug)]
pub struct Family {
    /// Its name, without the prefix `lakeward_`.
    pub name: &'static str,
    /// What it measures.
    pub help: &'static str,
    /// Whether it only grows while the process runs.
    pub is_counter: bool,
    /// One for each thing that is measured.
    pub series: Vec<Series>,
}

/// One of the things that are measured.
#[derive(Debug)]
pub struct Series {
    /// Which one it is.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: Value,
}

/// What is measured.
#[derive(Debug)]
pub enum Value {
    /// A number.
    Number(i64),
    /// How long something took each time.
    Durations(Durations),
}

/// A figure: its name, what it is, and where it is read.
type Figure<T> = (&'static str, &'static str, fn(&T) -> Option<i64>);

/// What only grows while the process runs.
const COUNTERS: [Figure<SourceFacts>; 4] = [
    ("changes", "Changes decoded from the log.", |of| Some(of.changes as i64)),
    ("flushes", "Epochs closed.", |of| Some(of.flushes as i64)),
    ("commits", "Delta commits.", |of| Some(of.commits as i64)),
    ("restarts", "Times a source started over after an error.", |of| Some(of.restarts as i64)),
];

const GAUGES: [Figure<SourceFacts>; 8] = [
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
    ("buffered_bytes", "What waits to be written.", |of| Some(of.memory.buffered() as i64)),
    ("memory_budget_bytes", "What buffers and indexes of a source may take together.", |of| {
        Some(of.memory.budget as i64).filter(|budget| *budget > 0)
    }),
    ("stopped_tables", "Tables that can't go on.", |of| {
        let stopped = |table: &&TableFacts| table.state == State::Stopped;
        Some(of.tables.values().filter(stopped).count() as i64)
    }),
];

/// A part of a source's memory: its label, and where it is read.
type Part = (&'static str, fn(&Memory) -> usize);

const MEMORY: [Part; 4] = [
    ("changes", |memory| memory.changes),
    ("writer", |memory| memory.writing),
    ("snapshots", |memory| memory.snapshots),
    ("tables", |memory| memory.tables),
];

/// How long something takes: its name, what it is, and where it is read.
type Latency = (&'static str, &'static str, fn(&SourceFacts) -> &Durations);

const LATENCIES: [Latency; 2] = [
    ("flush_seconds", "How long closing an epoch took.", |of| &of.flushes_took),
    ("commit_seconds", "How long a table's part of an epoch took.", |of| &of.commits_took),
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

/// All metrics of `board`, as of now.
pub fn families(board: &Board) -> Vec<Family> {
    let family = |(name, help), is_counter, read: &dyn Fn(&str, &SourceFacts, &mut Vec<Series>)| {
        let mut series = Vec::new();
        board.each(|source, facts| read(source, facts, &mut series));
        Family { name, help, is_counter, series }
    };
    let mut families = Vec::new();
    let counters = COUNTERS.into_iter().map(|figure| (figure, true));
    for ((name, help, read), grows) in counters.chain(GAUGES.map(|figure| (figure, false))) {
        families.push(family((name, help), grows, &|source, facts, series| {
            series.extend(read(facts).map(|value| number(vec![of(source)], value)));
        }));
    }
    for (name, help, read) in TABLE_GAUGES {
        families.push(family((name, help), false, &|source, facts, series| {
            for (id, table) in &facts.tables {
                let labels = || vec![of(source), ("table", id.to_string())];
                series.extend(read(table).map(|value| number(labels(), value)));
            }
        }));
    }
    for (name, help, read) in LATENCIES {
        families.push(family((name, help), false, &|source, facts, series| {
            let value = Value::Durations(read(facts).clone());
            series.push(Series { labels: vec![of(source)], value });
        }));
    }
    let help = "What of its budget a source takes, by part.";
    families.push(family(("memory_bytes", help), false, &|source, facts, series| {
        for (part, read) in MEMORY {
            let labels = vec![of(source), ("part", part.to_owned())];
            series.push(number(labels, read(&facts.memory) as i64));
        }
    }));
    let help =
        "Always 1; the labels hold the position that was read, made durable and acknowledged.";
    families.push(family(("position", help), false, &positions));
    families
}

fn of(source: &str) -> (&'static str, String) {
    ("source", source.to_owned())
}

fn number(labels: Vec<(&'static str, String)>, value: i64) -> Series {
    Series { labels, value: Value::Number(value) }
}

fn positions(source: &str, facts: &SourceFacts, series: &mut Vec<Series>) {
    let places =
        [("read", &facts.read), ("durable", &facts.durable), ("acknowledged", &facts.durable)];
    for (kind, position) in places.into_iter().filter(|(_, position)| !position.is_empty()) {
        let labels = vec![of(source), ("kind", kind.to_owned()), ("position", position.clone())];
        series.push(number(labels, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What dashboards and alerts refer to: neither the page nor the daemon has one that the other
    /// doesn't.
    #[test]
    fn the_page_has_every_metric_and_no_other() {
        let families = families(&Board::default());
        let name = |family: &Family| match family.is_counter {
            true => format!("{}_total", family.name),
            false => family.name.to_owned(),
        };
        let mut all: Vec<_> = families.iter().map(name).collect();
        let mut page: Vec<_> = include_str!("../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `lakeward_")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect();
        all.sort_unstable();
        page.sort_unstable();
        assert_eq!(all, page);
        let parts = ["_bucket", "_sum", "_count"];
        let known = |name: &str| {
            let base = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            all.iter().any(|known| known == name || known == base)
        };
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
}
