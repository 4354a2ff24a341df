//! What the daemon says of itself: Prometheus metrics and the progress that a terminal shows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lakeward_connectors::schema::TableId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::pipeline::now_ms;
use crate::verify::{Outcome, Verified};
use crate::writer::Size;

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

/// All metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    families: Families,
    sources: Arc<Mutex<Vec<Meter>>>,
}

#[derive(Clone, Default)]
struct Families {
    changes: Family<OfSource, Counter>,
    flushes: Family<OfSource, Counter>,
    commits: Family<OfSource, Counter>,
    restarts: Family<OfSource, Counter>,
    up: Family<OfSource, Gauge>,
    lag_milliseconds: Family<OfSource, Gauge>,
    buffered_bytes: Family<OfSource, Gauge>,
    stopped_tables: Family<OfSource, Gauge>,
    snapshot_rows: Family<OfTable, Gauge>,
    rows: Family<OfTable, Gauge>,
    files: Family<OfTable, Gauge>,
    staged_changes: Family<OfTable, Gauge>,
    copied_bytes: Family<OfTable, Gauge>,
    new_bytes: Family<OfTable, Gauge>,
    verified_rows: Family<OfTable, Gauge>,
    verified_differences: Family<OfTable, Gauge>,
    verified_seconds: Family<OfTable, Gauge>,
    positions: Family<OfPosition, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lakeward");
        let families = Families::default();
        let f = families.clone();
        registry.register("changes", "Changes decoded from the log", f.changes);
        registry.register("flushes", "Epochs closed", f.flushes);
        registry.register("commits", "Delta commits", f.commits);
        registry.register("restarts", "Times a source started over after an error", f.restarts);
        registry.register("source_up", "1 while a source is being followed", f.up);
        registry.register(
            "lag_milliseconds",
            "Age of the newest source commit that is not durable in the lake; 0 when all is",
            f.lag_milliseconds,
        );
        registry.register("buffered_bytes", "What waits to be written", f.buffered_bytes);
        registry.register("stopped_tables", "Tables that can't go on", f.stopped_tables);
        registry.register("snapshot_rows", "Rows read by a running snapshot", f.snapshot_rows);
        registry.register("rows", "Rows of the lake's table", f.rows);
        registry.register("files", "Data files of the lake's table", f.files);
        registry.register(
            "staged_changes",
            "Changes that are durable and that readers don't see yet",
            f.staged_changes,
        );
        registry.register(
            "copied_bytes",
            "Bytes of data files written again since the source started, for rows in them that changed",
            f.copied_bytes,
        );
        registry.register("new_bytes", "Bytes of new rows since the source started", f.new_bytes);
        registry.register(
            "verified_rows",
            "Rows that the newest verification compared",
            f.verified_rows,
        );
        registry.register(
            "verified_differences",
            "Rows in which the newest verification found lake and source to differ",
            f.verified_differences,
        );
        registry.register(
            "verified_timestamp_seconds",
            "When the newest verification ended, seconds of Unix time",
            f.verified_seconds,
        );
        registry.register(
            "position",
            "Always 1; the labels hold the position that was read, made durable and acknowledged",
            f.positions,
        );
        Self { registry: Arc::new(registry), families, sources: Arc::default() }
    }
}

impl Metrics {
    /// The meter of one source.
    pub fn source(&self, name: &str) -> Meter {
        let meter = Meter {
            source: name.to_owned(),
            families: self.families.clone(),
            state: Arc::default(),
        };
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(meter.clone());
        meter
    }

    /// The metrics in the text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String doesn't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// The running snapshots, with the rows read so far.
    pub fn snapshots(&self) -> Vec<(String, TableId, u64)> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |meter: &Meter| {
            let running = meter.state.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            let rows =
                running.iter().map(|(table, rows)| (meter.source.clone(), table.clone(), *rows));
            rows.collect::<Vec<_>>()
        };
        sources.iter().flat_map(of).collect()
    }

    /// Whether every source is being followed, and those that are not.
    pub fn health(&self) -> Result<(), Vec<String>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let down = |meter: &&Meter| meter.state.up.load(Ordering::Relaxed) == 0;
        let down: Vec<_> = sources.iter().filter(down).map(|meter| meter.source.clone()).collect();
        if down.is_empty() { Ok(()) } else { Err(down) }
    }
}

/// Counts what one source does.
#[derive(Clone)]
pub struct Meter {
    source: String,
    families: Families,
    state: Arc<MeterState>,
}

#[derive(Default)]
struct MeterState {
    changes: AtomicU64,
    up: AtomicI64,
    /// When the newest commit of the source that was read was made, microseconds of Unix time.
    committed_micros: AtomicI64,
    snapshots: Mutex<HashMap<TableId, u64>>,
    /// The positions shown, by kind.
    places: Mutex<HashMap<String, String>>,
}

impl Meter {
    fn label(&self) -> OfSource {
        OfSource { source: self.source.clone() }
    }

    fn table(&self, table: &TableId) -> OfTable {
        OfTable { source: self.source.clone(), table: table.to_string() }
    }

    /// The source is being followed, or not.
    pub fn up(&self, up: bool) {
        self.state.up.store(i64::from(up), Ordering::Relaxed);
        self.families.up.get_or_create(&self.label()).set(i64::from(up));
    }

    /// The source starts over after an error.
    pub fn restarted(&self) {
        self.families.restarts.get_or_create(&self.label()).inc();
        self.state.changes.store(0, Ordering::Relaxed);
    }

    /// So many tables can't go on.
    pub fn stopped(&self, tables: usize) {
        self.families.stopped_tables.get_or_create(&self.label()).set(tables as i64);
    }

    /// How far the log has been read, and what waits. `changes` counts since the source's start.
    pub fn position<'a>(
        &self,
        read: &impl ToString,
        committed_micros: i64,
        changes: u64,
        buffered: usize,
        snapshots: impl Iterator<Item = (&'a TableId, u64)>,
    ) {
        let label = self.label();
        let before = self.state.changes.swap(changes, Ordering::Relaxed);
        self.families.changes.get_or_create(&label).inc_by(changes.saturating_sub(before));
        self.families.buffered_bytes.get_or_create(&label).set(buffered as i64);
        self.state.committed_micros.store(committed_micros, Ordering::Relaxed);
        let lag = match buffered > 0 && committed_micros > 0 {
            true => (now_ms() - committed_micros / 1_000).max(0),
            false => 0,
        };
        self.families.lag_milliseconds.get_or_create(&label).set(lag);
        self.place("read", read);
        let mut running = self.state.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let now: HashMap<_, _> = snapshots.map(|(id, rows)| (id.clone(), rows)).collect();
        for table in running.keys().filter(|table| !now.contains_key(table)) {
            self.families.snapshot_rows.remove(&self.table(table));
        }
        for (table, rows) in &now {
            self.families.snapshot_rows.get_or_create(&self.table(table)).set(*rows as i64);
        }
        *running = now;
    }

    /// An epoch is closed.
    pub fn flushed<'a>(
        &self,
        durable: &impl ToString,
        commits: usize,
        sizes: impl Iterator<Item = (&'a TableId, Size)>,
    ) {
        self.families.flushes.get_or_create(&self.label()).inc();
        self.families.commits.get_or_create(&self.label()).inc_by(commits as u64);
        self.place("durable", durable);
        self.place("acknowledged", durable);
        for (table, size) in sizes {
            let label = self.table(table);
            self.families.rows.get_or_create(&label).set(size.rows as i64);
            self.families.files.get_or_create(&label).set(size.files as i64);
            self.families.staged_changes.get_or_create(&label).set(size.staged as i64);
            self.families.copied_bytes.get_or_create(&label).set(size.copied as i64);
            self.families.new_bytes.get_or_create(&label).set(size.brought as i64);
        }
    }

    /// A table has been compared with the source.
    pub fn verified(&self, table: &TableId, verified: &Verified) {
        if verified.outcome == Outcome::Skipped {
            return;
        }
        let label = self.table(table);
        let differences = verified.missing + verified.extra + verified.changed;
        self.families.verified_rows.get_or_create(&label).set(verified.rows as i64);
        self.families.verified_differences.get_or_create(&label).set(differences as i64);
        self.families.verified_seconds.get_or_create(&label).set(verified.at_ms / 1_000);
    }

    fn place(&self, kind: &str, position: &impl ToString) {
        let label = OfPosition {
            source: self.source.clone(),
            kind: kind.to_owned(),
            position: position.to_string(),
        };
        // One series a kind: the position before goes.
        let mut places = self.state.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = places.insert(label.kind.clone(), label.position.clone()) {
            if before == label.position {
                return;
            }
            self.families.positions.remove(&OfPosition { position: before, ..label.clone() });
        }
        self.families.positions.get_or_create(&label).set(1);
    }
}
