//! Random lives of a source's table in the lake, in every shape: whatever is staged, merged,
//! compacted by others or lost in a crash, the rows that the log leads to are the model's.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use lakeward_connectors::batch::{Builder, Committed, Trace};
use lakeward_connectors::schema::{Column, Compare, Identity, TableId, TableSchema, Type};
use lakeward_connectors::{Op, Value};
use proptest::prelude::*;
use serde_json::Map;

use super::cadence::Cadence;
use super::slot::Slot;
use crate::buffer::Step;
use crate::delta::tests::foreign::optimize;
use crate::delta::tests::read_batches;
use crate::delta::{Cache, Commit, Lake, Merge, Table, Worth};
use crate::shape::{ColumnFilter, Filter, Mask, MaskKey, Mode, PartitionBy, Shape};
use crate::staged::Staged;

const PATH: &str = "s/t";
const FOLDER: &str = "_lakeward/s/staged";

/// What the source's row holds besides its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    region: u8,
    note: String,
    secret: String,
}

/// What happens to the source.
#[derive(Debug, Clone)]
enum Event {
    Put(u8, Row),
    /// Everything but the note is sent.
    Partial(u8, u8),
    Move(u8, u8),
    Delete(u8),
    Truncate,
}

#[derive(Debug, Clone)]
enum Act {
    Events(Vec<Event>),
    Flush,
    Crash,
    Optimize,
    /// Another way to merge, and another cadence.
    Merging(Merge, bool),
    /// What is staged is merged.
    Settle,
    /// The table is read again.
    Generation,
}

fn event() -> impl Strategy<Value = Event> {
    let key = || 0_u8..12;
    let row = (0_u8..3, 0_u8..8).prop_map(|(region, n)| Row {
        region,
        note: format!("note {n}"),
        secret: format!("secret {n}"),
    });
    prop_oneof![
        6 => (key(), row).prop_map(|(key, row)| Event::Put(key, row)),
        3 => (key(), 0_u8..3).prop_map(|(key, region)| Event::Partial(key, region)),
        2 => (key(), key()).prop_map(|(old, new)| Event::Move(old, new)),
        3 => key().prop_map(Event::Delete),
        1 => Just(Event::Truncate),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let merge = prop_oneof![Just(Merge::Rewrite), Just(Merge::DeletionVectors)];
    prop_oneof![
        10 => prop::collection::vec(event(), 1..8).prop_map(Act::Events),
        6 => Just(Act::Flush),
        2 => Just(Act::Crash),
        1 => Just(Act::Optimize),
        1 => (merge, any::<bool>()).prop_map(|(merge, slow)| Act::Merging(merge, slow)),
        2 => Just(Act::Settle),
        1 => Just(Act::Generation),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let mode = prop_oneof![Just(Mode::Mirror), Just(Mode::SoftDelete), Just(Mode::Append)];
    (mode, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(mode, filter, columns, parts)| {
            let rows = filter.then(|| Filter::parse("region in (0, 1)").expect("a filter"));
            let mut shape = Shape { mode, rows, ..Shape::default() };
            if columns {
                let key =
                    MaskKey::new(&lakeward_connectors::secret::Secret::new("0123456789abcdef"));
                shape.columns = ColumnFilter::new(&["!note"]);
                shape.masks.insert("secret".to_owned(), Mask::Hash(key));
                shape.rename.insert("region".to_owned(), "area".to_owned());
            }
            if parts {
                shape.partition = vec![PartitionBy::parse("region").expect("a column")];
            }
            shape
        },
    )
}

fn schema() -> Arc<TableSchema> {
    let kinds = [
        ("id", Type::Int64),
        ("region", Type::Int32),
        ("note", Type::Text),
        ("secret", Type::Text),
    ];
    let columns = (1..).zip(kinds).map(|(id, (name, kind))| Column {
        id,
        name: name.to_owned(),
        source_type: format!("{kind:?}"),
        kind,
        missing: None,
        compare: Compare::EXACT,
    });
    let (columns, identity) = (columns.collect(), Identity::Key(vec![0]));
    let (id, storage) = (TableId::new("public", "t"), String::new());
    Arc::new(TableSchema { id, columns, identity, storage, lasting_ids: true })
}

fn values(key: u8, row: &Row) -> Vec<Value<'static>> {
    vec![
        Value::Int(i64::from(key)),
        Value::Int(i64::from(row.region)),
        Value::OwnedText(row.note.clone()),
        Value::OwnedText(row.secret.clone()),
    ]
}

/// What a reader should find under each key, and the changes that a table lists.
#[derive(Debug, Clone, Default)]
struct Model {
    source: BTreeMap<u8, Row>,
    /// Keys of rows that are marked as deleted, with what they held.
    deleted: BTreeMap<u8, Row>,
    /// Operation and key.
    listed: Vec<(&'static str, Option<u8>)>,
}

struct Life {
    lake: Lake,
    slot: Slot,
    shape: Shape,
    merge: Merge,
    cadence: Cadence,
    schema: Arc<TableSchema>,
    now: Model,
    /// As of the last flush, and what was staged then.
    durable: (Model, Vec<Staged>),
    /// What came since the last flush.
    since: Vec<Act>,
    transaction: u64,
    epoch: i64,
}

impl Life {
    async fn new(shape: Shape) -> Self {
        let lake = Lake::memory().with_cache(Cache::memory().limited(600));
        let slot = Slot::new(Table::create(&lake, PATH), None, shape.clone());
        let mut life = Self {
            lake,
            slot,
            shape,
            merge: Merge::default(),
            cadence: Cadence::default(),
            schema: schema(),
            now: Model::default(),
            durable: (Model::default(), Vec::new()),
            since: Vec::new(),
            transaction: 0,
            epoch: 0,
        };
        let first = Step::Evolve(Arc::clone(&life.schema));
        life.take_up(vec![first]).await;
        life.flush().await;
        life
    }

    async fn take_up(&mut self, steps: Vec<Step>) {
        self.slot.take_up(steps, &self.lake, FOLDER, self.cadence).await.expect("taken up");
        assert_eq!(self.slot.fault, None);
    }

    fn passes(&self, region: u8) -> bool {
        self.shape.rows.is_none() || region < 2
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Events(events) => {
                self.since.push(Act::Events(events.clone()));
                self.events(events).await;
            }
            Act::Flush => self.flush().await,
            Act::Crash => self.crash().await,
            Act::Optimize => optimize(&self.lake, PATH).await,
            Act::Merging(merge, slow) => {
                self.merge = merge;
                self.cadence = match slow {
                    true => Cadence::every_change(100),
                    false => Cadence::default(),
                };
                if let Some(table) = self.slot.table_mut() {
                    table.set_merge(merge);
                }
            }
            Act::Settle => self.settle().await,
            Act::Generation => {
                // A table is read again after what came before is durable, or lost.
                self.flush_all().await;
                self.since.push(Act::Generation);
                self.generation().await;
            }
        }
    }

    /// One transaction.
    async fn events(&mut self, events: Vec<Event>) {
        self.transaction += 1;
        let committed = Arc::new(Committed {
            transaction: format!("tx {}", self.transaction),
            micros: self.transaction as i64,
        });
        let mut trace = Trace { committed, ordinal: 0 };
        let mut steps = Vec::new();
        let mut builder = self.builder(&trace);
        for event in events {
            if let Event::Truncate = event {
                trace.ordinal = builder.next_trace().map_or(0, |trace| trace.ordinal);
                let full = std::mem::replace(&mut builder, self.builder(&trace));
                steps.push(Step::Rows(full.finish()));
                let trace = self.shape.is_traced().then(|| trace.clone());
                steps.push(Step::Truncate { serial: 0, trace });
            }
            self.event(event, &mut builder);
        }
        steps.push(Step::Rows(builder.finish()));
        self.take_up(steps).await;
        self.read_missing().await;
    }

    fn builder(&self, trace: &Trace) -> Builder {
        let mut builder = Builder::new(Arc::clone(&self.schema));
        if self.shape.is_traced() {
            builder.trace(trace.clone());
        }
        builder
    }

    fn event(&mut self, event: Event, builder: &mut Builder) {
        match event {
            Event::Put(key, row) => {
                let known = self.now.source.contains_key(&key);
                let op = if known { Op::Update } else { Op::Insert };
                builder.push(op, None, Some(&values(key, &row))).expect("a row");
                self.put(key, row, if known { "update" } else { "insert" });
            }
            Event::Partial(key, region) => {
                let Some(row) = self.now.source.get(&key).cloned() else { return };
                let row = Row { region, ..row };
                let mut sent = values(key, &row);
                sent[2] = Value::Unchanged;
                builder.push(Op::Update, None, Some(&sent)).expect("a row");
                self.put(key, row, "update");
            }
            Event::Move(old, new) => {
                if old == new || self.now.source.contains_key(&new) {
                    return;
                }
                let Some(row) = self.now.source.remove(&old) else { return };
                let mut sent = values(new, &row);
                sent[2] = Value::Unchanged;
                let before = values(old, &row);
                builder.push(Op::Update, Some(&before), Some(&sent)).expect("a row");
                if self.passes(row.region) {
                    self.now.deleted.insert(old, row.clone());
                }
                self.put(new, row, "update");
            }
            Event::Delete(key) => {
                let Some(row) = self.now.source.remove(&key) else { return };
                builder.push(Op::Delete, Some(&values(key, &row)), None).expect("a row");
                if self.passes(row.region) {
                    self.now.deleted.insert(key, row);
                }
                self.now.listed.push(("delete", Some(key)));
            }
            Event::Truncate => {
                let gone = std::mem::take(&mut self.now.source);
                let gone = gone.into_iter().filter(|(_, row)| self.passes(row.region));
                self.now.deleted.extend(gone.collect::<Vec<_>>());
                self.now.listed.push(("truncate", None));
            }
        }
    }

    fn put(&mut self, key: u8, row: Row, op: &'static str) {
        self.now.deleted.remove(&key);
        match self.passes(row.region) {
            true => self.now.listed.push((op, Some(key))),
            false if op == "update" => self.now.listed.push(("delete", Some(key))),
            false => {}
        }
        self.now.source.insert(key, row);
    }

    /// Rows that lack a value are read from the source (S5).
    async fn read_missing(&mut self) {
        for _ in 0..4 {
            let missing = std::mem::take(&mut self.slot.missing);
            if missing.is_empty() {
                return;
            }
            let mut builder = Builder::new(Arc::clone(&self.schema));
            for key in missing {
                let key: u8 = key[0].parse().expect("a key");
                if let Some(row) = self.now.source.get(&key) {
                    builder.push(Op::Read, None, Some(&values(key, row))).expect("a row");
                }
            }
            self.take_up(vec![Step::Rows(builder.finish())]).await;
        }
        panic!("keys go on missing");
    }

    /// All rows are read again; what was deleted before stays marked.
    async fn generation(&mut self) {
        let mut builder = Builder::new(Arc::clone(&self.schema));
        for (key, row) in &self.now.source {
            builder.push(Op::Read, None, Some(&values(*key, row))).expect("a row");
            if self.passes(row.region) {
                self.now.listed.push(("read", Some(*key)));
            }
        }
        let steps = vec![Step::Generation(Arc::clone(&self.schema)), Step::Rows(builder.finish())];
        self.take_up(steps).await;
    }

    /// What the daemon does: files, epoch file, commit.
    async fn flush(&mut self) {
        self.slot.take_in(self.cadence).await.expect("taken in");
        self.read_missing().await;
        self.slot.take_in(self.cadence).await.expect("taken in");
        self.slot.take_in_compaction().await.expect("taken in");
        self.slot.name_staged();
        let staged = self.slot.staged.clone();
        self.epoch += 1;
        let pending = self.slot.table().is_some_and(Table::has_pending);
        if let Some(table) = self.slot.table_mut().filter(|_| pending) {
            let txns = [("app".to_owned(), self.epoch)];
            match table.commit(&txns, Map::new(), "WRITE").await.expect("a commit") {
                Commit::Done { .. } => drop(self.slot.take_turn()),
                // Somebody else's commit got in the way: the source starts over.
                _ => return self.crash().await,
            }
        }
        let merged = self.slot.take_merged();
        self.lake.forget(merged.into_iter().map(|file| file.path).collect()).await;
        self.slot.start_compaction(Worth::ANYTHING);
        self.durable = (self.now.clone(), staged);
        self.since.clear();
    }

    /// Flushes until everything is durable, however often another writer gets in the way.
    async fn flush_all(&mut self) {
        self.flush().await;
        while !self.since.is_empty() {
            self.flush().await;
        }
    }

    /// Everything but the lake is lost; what came since the last flush comes again.
    async fn crash(&mut self) {
        let table = match Table::open(&self.lake, PATH).await.expect("opened") {
            Some(table) => table,
            None => Table::create(&self.lake, PATH),
        };
        self.slot = Slot::new(table, None, self.shape.clone());
        if let Some(table) = self.slot.table_mut() {
            table.set_merge(self.merge);
        }
        let taken = self.slot.take_over(&self.durable.1, &self.lake).await;
        taken.expect("what was staged is there");
        self.now = self.durable.0.clone();
        let since = self.since.clone();
        if self.slot.table().is_some_and(|table| table.schema().is_none()) {
            self.take_up(vec![Step::Evolve(Arc::clone(&self.schema))]).await;
        }
        for act in since {
            match act {
                Act::Events(events) => self.events(events).await,
                _ => self.generation().await,
            }
        }
    }

    /// Merges everything that is staged.
    async fn settle(&mut self) {
        self.flush_all().await;
        for _ in 0..20 {
            if self.slot.is_settled() {
                return self.compare().await;
            }
            self.slot.start_merge(&self.lake, self.cadence, true);
            while self.slot.is_merging() && !self.slot.is_merged() {
                tokio::task::yield_now().await;
            }
            while !self.slot.is_merging() && self.slot.is_compacting() && !self.slot.is_compacted()
            {
                tokio::task::yield_now().await;
            }
            self.flush_all().await;
        }
        panic!("staged changes are never merged");
    }

    async fn compare(&self) {
        let rows = rows(&self.lake).await;
        let area = if self.shape.rename.is_empty() { "region" } else { "area" };
        let masked = !self.shape.masks.is_empty();
        let show = |key: u8, row: &Row, end: &str| {
            let region = format!("id={key} {area}={}", row.region);
            match masked {
                // The hash is another one for another value: the tests of the shape say so.
                true => format!("{region}{end}"),
                false => format!("{region} note={} secret={}{end}", row.note, row.secret),
            }
        };
        let mut found: Vec<String> = rows
            .iter()
            .map(|row| {
                let shown = row.iter().filter(|(name, value)| {
                    let own = ["_deleted_at", "_position", "_ordinal", "_committed_at"];
                    let lists = ["_unchanged", "_old_key"];
                    let hidden = masked && name.as_str() == "secret";
                    if hidden {
                        assert_eq!(value.len(), 64, "{value} is no hash");
                    }
                    !hidden && !own.contains(&name.as_str()) && !lists.contains(&name.as_str())
                });
                let texts = shown.map(|(name, value)| format!("{name}={value}"));
                texts.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let live = self.now.source.iter().filter(|(_, row)| self.passes(row.region));
        let mut expected: Vec<String> = match self.shape.mode {
            Mode::Mirror => live.map(|(key, row)| show(*key, row, "")).collect(),
            Mode::SoftDelete => {
                let deleted = self.now.deleted.iter();
                let deleted = deleted.filter(|(key, _)| {
                    let live = self.now.source.get(key);
                    !live.is_some_and(|row| self.passes(row.region))
                });
                let deleted = deleted.map(|(key, row)| show(*key, row, " _deleted=true"));
                live.map(|(key, row)| show(*key, row, " _deleted=false")).chain(deleted).collect()
            }
            Mode::Append => {
                found = rows
                    .iter()
                    .map(|row| {
                        let of = |name: &str| {
                            let found = row.iter().find(|(column, _)| column == name);
                            found.map_or("", |(_, value)| value)
                        };
                        format!("{} {}", of("_op"), of("id"))
                    })
                    .collect();
                let listed = self.now.listed.iter();
                let key = |key: &Option<u8>| key.map_or_else(String::new, |key| key.to_string());
                listed.map(|(op, of)| format!("{op} {}", key(of))).collect()
            }
        };
        if self.shape.mode == Mode::SoftDelete && self.shape.rows.is_some() {
            // A row that came into the filter by a change of some values, and went before the others
            // were read, leaves nothing.
            let marked = |row: &String| row.ends_with("_deleted=true");
            expected.retain(|row| !marked(row) || found.contains(row));
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

/// The rows of the table: names and values of those that are not null.
async fn rows(lake: &Lake) -> Vec<Vec<(String, String)>> {
    let mut rows = Vec::new();
    for batch in read_batches(lake, PATH).await.expect("read") {
        let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        for row in 0..batch.num_rows() {
            let value = |array: &ArrayRef| {
                array.is_valid(row).then(|| match array.data_type() {
                    DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
                    DataType::Boolean => array.as_boolean().value(row).to_string(),
                    DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
                    DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
                    other => format!("{other}"),
                })
            };
            let cells = names.iter().zip(batch.columns());
            rows.push(cells.filter_map(|(name, c)| Some((name.clone(), value(c)?))).collect());
        }
    }
    rows
}

/// How many lives are lived: `LAKEWARD_MODEL_SEEDS`, or enough for everyday.
fn config() -> ProptestConfig {
    let seeds = std::env::var("LAKEWARD_MODEL_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(seeds) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_shape_shows_the_rows_of_the_model(
        shape in shape(),
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut life = Life::new(shape).await;
            for act in acts {
                life.act(act).await;
            }
            life.settle().await;
            life.crash().await;
            life.settle().await;
        });
    }
}

#[tokio::test]
async fn a_table_without_rows_has_a_shape_too() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, PATH);
    table.evolve(&schema()).expect("evolved");
    let soft = Shape { mode: Mode::SoftDelete, ..Shape::default() };
    let slot = Slot::new(table, None, soft.clone());
    assert!(slot.is_of_another_shape().is_some(), "its rows would lack the columns of the mode");
    let new = Slot::new(Table::create(&lake, PATH), None, soft);
    assert_eq!(new.is_of_another_shape(), None, "a table that is not there yet gets it at once");
}
