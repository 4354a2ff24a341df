//! Random lives of a table, next to a model of it: whatever fails and whoever else writes, the rows
//! that the log leads to are the model's.

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::schema::Evolution;
use proptest::prelude::*;

use super::faults::{FailingStore, Fault};
use super::foreign::{delete, optimize};
use super::*;
use crate::collapse::From;
use crate::delta::actions::Metadata;
use crate::delta::log::hint_path;
use crate::delta::{Cache, Compacted, Worth};

#[derive(Debug, Clone)]
enum Step {
    /// Rows to delete, rows to write, and rows to change in a way that keeps the first value.
    Apply {
        deleted: Vec<u8>,
        written: Vec<(u8, u8)>,
        partial: Vec<u8>,
    },
    Commit(Vec<u8>),
    Evolve {
        drop: bool,
    },
    /// The last column has another name, and the key a wider type.
    Convert {
        widen: bool,
    },
    Truncate,
    Generation,
    Discard,
    Reopen,
    Refresh,
    Optimize,
    /// Somebody else deletes a row by a deletion vector.
    Delete(usize),
    /// A compaction begins, or one that has begun before is taken in.
    Compact,
    /// The mode of merging is another one from here on.
    Merge(Merge),
    LoseHint,
    /// Files that nobody needs are deleted, of the log above all.
    Vacuum,
    /// The index is saved as it is: whatever comes later it must find out when it is opened.
    SaveIndex,
    /// A byte of what is saved is another one.
    DamageIndex,
}

fn merge() -> impl Strategy<Value = Merge> {
    prop_oneof![Just(Merge::Rewrite), Just(Merge::DeletionVectors)]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..24;
    let keys = |most| prop::collection::vec(key.clone(), 0..most);
    let rows = prop::collection::vec((key.clone(), any::<u8>()), 0..12);
    prop_oneof![
        12 => (keys(6), rows, keys(4)).prop_map(|(deleted, written, partial)| {
            Step::Apply { deleted, written, partial }
        }),
        8 => prop::collection::vec(0_u8..6, 0..6).prop_map(Step::Commit),
        1 => any::<bool>().prop_map(|drop| Step::Evolve { drop }),
        1 => any::<bool>().prop_map(|widen| Step::Convert { widen }),
        1 => Just(Step::Truncate),
        1 => Just(Step::Generation),
        1 => Just(Step::Discard),
        2 => Just(Step::Reopen),
        1 => Just(Step::Refresh),
        1 => Just(Step::Optimize),
        2 => (0_usize..64).prop_map(Step::Delete),
        4 => Just(Step::Compact),
        1 => merge().prop_map(Step::Merge),
        1 => Just(Step::LoseHint),
        2 => Just(Step::Vacuum),
        2 => Just(Step::SaveIndex),
        1 => Just(Step::DamageIndex),
    ]
}

/// Column → value of a row; null where absent.
type Row = BTreeMap<String, String>;
type Rows = BTreeMap<u8, Row>;

#[derive(Debug, Clone)]
struct State {
    rows: Rows,
    schema: Arc<TableSchema>,
}

struct Life {
    store: FailingStore,
    lake: Lake,
    table: Table,
    committed: Option<State>,
    pending: State,
    /// The keys of rows that somebody else deleted since the table last looked.
    unseen: Vec<u8>,
    /// Whether the pending rows are all there will be.
    replaced: bool,
    merge: Merge,
    partitioned: bool,
    epoch: i64,
    columns: u32,
    compacted: Option<Compacted>,
}

const PATH: &str = "s/t";

/// The column that a partitioned table is partitioned by.
const PART: &str = "part";

fn initial(textual: bool, partitioned: bool) -> Arc<TableSchema> {
    let kind = if textual { Type::Text } else { Type::Int32 };
    let second = match partitioned {
        true => column(2, PART, Type::Int32),
        false => column(2, "c2", Type::Text),
    };
    let columns = vec![column(1, "id", kind), second, column(3, "c3", Type::Text)];
    table_schema(columns, Identity::Key(vec![0]))
}

impl Life {
    fn new(textual: bool, partitioned: bool, merge: Merge) -> Self {
        let store = FailingStore::default();
        let cache = Cache::memory().limited(600);
        let lake = Lake::with_store(Arc::new(store.clone())).with_cache(cache);
        let mut table = Table::create(&lake, PATH);
        table.set_merge(merge);
        let pending = State { rows: Rows::new(), schema: initial(textual, partitioned) };
        let (unseen, replaced, committed) = (Vec::new(), false, None);
        Self {
            store,
            lake,
            table,
            committed,
            pending,
            unseen,
            replaced,
            merge,
            partitioned,
            epoch: 0,
            columns: 3,
            compacted: None,
        }
        .partition()
    }

    fn partition(mut self) -> Self {
        let by = if self.partitioned { vec![PART.to_owned()] } else { Vec::new() };
        self.table.partition_by(by);
        self
    }

    fn key(&self, key: u8) -> Value<'static> {
        match self.pending.schema.columns[0].kind {
            Type::Text => Value::OwnedText(key.to_string()),
            _ => Value::Int(i64::from(key)),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Apply { deleted, written, partial } => {
                self.apply(&deleted, &written, &partial).await;
            }
            Step::Commit(faults) => self.commit(&faults).await,
            Step::Evolve { drop } => self.evolve(drop),
            Step::Convert { widen } => self.convert(widen).await,
            Step::Truncate => {
                self.table.truncate().await.expect("truncated");
                self.replace();
            }
            Step::Generation => {
                self.table.begin_generation(&self.pending.schema).await.expect("begun");
                self.replace();
            }
            Step::Discard => {
                self.table.discard().await.expect("discarded");
                self.go_back();
            }
            Step::Reopen => {
                self.table = match Table::open(&self.lake, PATH).await.expect("opened") {
                    Some(table) => table,
                    None => Table::create(&self.lake, PATH),
                };
                self.table.set_merge(self.merge);
                let by = if self.partitioned { vec![PART.to_owned()] } else { Vec::new() };
                self.table.partition_by(by);
                self.go_back();
            }
            Step::Refresh if !self.table.has_pending() => {
                self.table.refresh().await.expect("refreshed");
                self.see();
            }
            Step::Optimize if self.committed.is_some() => optimize(&self.lake, PATH).await,
            Step::Delete(pick) if self.committed.is_some() => self.delete(pick).await,
            Step::Compact => self.compact().await,
            Step::Merge(merge) => {
                self.merge = merge;
                self.table.set_merge(merge);
            }
            Step::LoseHint => {
                self.lake.put(&hint_path(PATH), "{garbage".into()).await.expect("put");
            }
            // What a compaction has written is in no commit yet: nobody vacuums meanwhile.
            Step::Vacuum if !self.table.has_pending() && self.compacted.is_none() => {
                let unused = self.table.unused(Duration::ZERO).await.expect("looked");
                self.see();
                self.lake.delete_all(unused.paths).await;
            }
            Step::SaveIndex => self.table.save_index(),
            Step::DamageIndex => self.lake.cache().table(PATH).damage(""),
            Step::Refresh | Step::Optimize | Step::Delete(_) | Step::Vacuum => {}
        }
        assert_eq!(self.table.rows(), self.pending.rows.len() as u64);
        self.compare().await;
    }

    /// What is deleted between the two steps must not come back.
    async fn compact(&mut self) {
        match self.compacted.take() {
            Some(compacted) => drop(self.table.compacted(compacted).await.expect("taken in")),
            None => {
                if let Some(compaction) = self.table.compaction(Worth::ANYTHING) {
                    // Another writer's OPTIMIZE deletes what it has replaced.
                    self.compacted = compaction.run().await.ok();
                }
            }
        }
    }

    async fn delete(&mut self, pick: usize) {
        let Some(key) = delete(&self.lake, PATH, pick).await else { return };
        let key = key.parse().expect("a number");
        let gone = self.committed.as_mut().and_then(|committed| committed.rows.remove(&key));
        assert!(gone.is_some(), "key {key} should not be there");
        if !self.replaced {
            self.unseen.push(key);
        }
    }

    fn replace(&mut self) {
        self.pending.rows.clear();
        self.unseen.clear();
        self.replaced = true;
    }

    /// What others deleted is seen.
    fn see(&mut self) {
        for key in self.unseen.drain(..) {
            self.pending.rows.remove(&key);
        }
    }

    fn go_back(&mut self) {
        self.unseen.clear();
        self.replaced = false;
        match &self.committed {
            Some(state) => self.pending = state.clone(),
            None => self.pending.rows.clear(),
        }
    }

    fn evolve(&mut self, drop: bool) {
        let mut schema = TableSchema::clone(&self.pending.schema);
        if drop && schema.columns.len() > 2 {
            schema.columns.pop();
        } else {
            self.columns += 1;
            let name = format!("c{}", self.columns);
            schema.columns.push(column(self.columns, &name, Type::Text));
        }
        let schema = Arc::new(schema);
        let before = self.table.schema().is_some();
        let evolution = self.table.evolve(&schema).expect("evolved");
        assert!(!before || evolution == Evolution::InPlace);
        self.pending.schema = schema;
    }

    async fn convert(&mut self, widen: bool) {
        if self.table.schema().is_none() {
            return;
        }
        let mut schema = TableSchema::clone(&self.pending.schema);
        self.columns += 1;
        let (name, last) = (format!("c{}", self.columns), schema.columns.len() - 1);
        if schema.columns[last].name != PART {
            let old = std::mem::replace(&mut schema.columns[last].name, name.clone());
            for row in self.pending.rows.values_mut() {
                row.remove(&old).map(|value| row.insert(name.clone(), value));
            }
        }
        if widen && schema.columns[0].kind == Type::Int32 {
            schema.columns[0].kind = Type::Int64;
        }
        let schema = Arc::new(schema);
        match self.table.evolve(&schema).expect("evolved") {
            Evolution::Convert => {
                let converted = self.table.convert(&schema, false).await.expect("converted");
                assert_eq!(converted, Evolution::Convert);
            }
            same => assert_eq!(same, Evolution::Same),
        }
        self.pending.schema = schema;
    }

    async fn apply(&mut self, deleted: &[u8], written: &[(u8, u8)], partial: &[u8]) {
        let schema = Arc::clone(&self.pending.schema);
        let last = schema.columns.len() - 1;
        let mut rows: BTreeMap<u8, Vec<Value<'_>>> = BTreeMap::new();
        let full = |key: u8, value: u8, schema: &TableSchema| {
            let mut row = vec![self.key(key)];
            row.resize(schema.columns.len(), Value::OwnedText(value.to_string()));
            if schema.columns[1].name == PART {
                row[1] = match value % 4 {
                    0 => Value::Null,
                    part => Value::Int(i64::from(part)),
                };
            }
            if value.is_multiple_of(3) && last > 1 {
                row[last] = Value::Null;
            }
            row
        };
        for (key, value) in written {
            rows.insert(*key, full(*key, *value, &schema));
        }
        for key in partial {
            let mut row = full(*key, 200, &schema);
            row[1] = Value::Unchanged;
            rows.insert(*key, row);
        }
        let removed: Vec<_> = deleted.iter().chain(rows.keys()).copied().collect();
        let removed: Vec<_> = removed.iter().map(|key| vec![self.key(*key)]).collect();
        let mut collapsed = run(&schema, &removed, &rows.values().cloned().collect::<Vec<_>>());
        for (new, values) in collapsed.rows.iter_mut().zip(rows.values()) {
            if values[1] == Value::Unchanged {
                new.carried.push((1, From::Lake(new.key)));
            }
        }
        let applied = self.table.apply(&collapsed).await.expect("applied");
        let mut missing = 0;
        for (key, values) in &rows {
            let old = self.pending.rows.remove(key);
            let mut row = Row::new();
            for (column, value) in schema.columns.iter().zip(values).skip(1) {
                if *value != Value::Null && *value != Value::Unchanged {
                    row.insert(column.name.clone(), text(value));
                }
            }
            if values[1] == Value::Unchanged {
                let Some(old) = old else {
                    missing += 1;
                    continue;
                };
                let name = &schema.columns[1].name;
                row.extend(old.get(name).map(|value| (name.clone(), value.clone())));
            }
            self.pending.rows.insert(*key, row);
        }
        for key in deleted.iter().filter(|key| !rows.contains_key(key)) {
            self.pending.rows.remove(key);
        }
        assert_eq!(applied.missing.len(), missing);
    }

    /// Commits although requests fail, the way the daemon does: again, or from the lake.
    async fn commit(&mut self, faults: &[u8]) {
        if self.table.schema().is_none() {
            return;
        }
        self.epoch += 1;
        let txns = [("app".to_owned(), self.epoch)];
        self.store.plan(faults.iter().map(|fault| match fault {
            0 => Fault::Before,
            1 | 2 => Fault::After,
            _ => Fault::None,
        }));
        let mut outcome = self.table.commit(&txns, Map::new(), "WRITE").await;
        if outcome.is_err() && faults.len().is_multiple_of(2) {
            outcome = self.table.commit(&txns, Map::new(), "WRITE").await;
        }
        self.store.plan([]);
        let mut state = self.pending.clone();
        // Where a pending change was about one of these, it can't have been committed.
        state.rows.retain(|key, _| !self.unseen.contains(key));
        match outcome {
            Ok(Commit::Done { .. }) => {
                self.committed = Some(state);
                self.go_back();
            }
            Ok(Commit::Conflict(_)) => {
                self.table.discard().await.expect("discarded");
                self.go_back();
            }
            Ok(fenced) => panic!("{fenced:?}"),
            Err(_) => {
                self.table.discard().await.expect("discarded");
                if self.table.txn("app") == Some(self.epoch) {
                    self.committed = Some(state);
                }
                self.go_back();
            }
        }
    }

    /// What readers see is what was committed.
    async fn compare(&self) {
        let Some(state) = &self.committed else { return };
        let mut found = Rows::new();
        for batch in read_batches(&self.lake, PATH).await.expect("read") {
            for at in 0..batch.num_rows() {
                let mut row = Row::new();
                let mut key = None;
                for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
                    let kind = match field.name().as_str() {
                        "id" => state.schema.columns[0].kind.clone(),
                        PART => Type::Int32,
                        _ => Type::Text,
                    };
                    match value_at(&kind, array.as_ref(), at).expect("its type") {
                        value if field.name() == "id" => key = Some(text(&value)),
                        Value::Null => {}
                        value => drop(row.insert(field.name().clone(), text(&value))),
                    }
                }
                let key = key.expect("a key").parse().expect("a number");
                assert!(found.insert(key, row).is_none(), "key {key} is there twice");
            }
        }
        assert_eq!(&found, &state.rows);
    }
}

fn text(value: &Value<'_>) -> String {
    match value {
        Value::OwnedText(text) => text.clone(),
        other => show(other),
    }
}

fn live(textual: bool, partitioned: bool, merge: Merge, interval: u8, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut life = Life::new(textual, partitioned, merge);
        let first = Step::Apply { deleted: vec![], written: vec![(1, 1), (2, 2)], partial: vec![] };
        life.step(first).await;
        life.step(Step::Commit(vec![])).await;
        life.checkpoint_every(interval).await;
        for step in steps {
            life.step(step).await;
        }
        life.step(Step::Reopen).await;
        life.step(Step::Commit(vec![])).await;
    });
}

impl Life {
    /// Sets the table's properties as somebody else would: checkpoints every few commits, and a
    /// log that is cleaned up at once.
    async fn checkpoint_every(&mut self, interval: u8) {
        let snapshot = log::load(&self.lake, PATH).await.expect("a log").expect("a table");
        let mut metadata: Metadata = snapshot.metadata;
        let mut set = |name: &str, value: String| {
            metadata.configuration.insert(name.to_owned(), Some(value));
        };
        set("delta.checkpointInterval", interval.to_string());
        set("delta.logRetentionDuration", "interval 0 days".to_owned());
        set("delta.deletedFileRetentionDuration", "interval 1 week".to_owned());
        super::foreign::commit_foreign(&self.lake, PATH, vec![metadata.into()]).await;
        self.step(Step::Refresh).await;
    }
}

/// How many lives are lived: `LAKEWARD_MODEL_SEEDS`, or enough for everyday.
fn seeds() -> u32 {
    let seeds = std::env::var("LAKEWARD_MODEL_SEEDS").ok();
    seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000)
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(seeds()) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_log_leads_to_the_rows_of_the_model(
        textual in any::<bool>(),
        partitioned in any::<bool>(),
        merge in merge(),
        interval in 1_u8..12,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        live(textual, partitioned, merge, interval, steps);
    }

    #[test]
    fn rows_without_a_key_are_counted(
        merge in merge(),
        runs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(0_u8..4, 0..6)), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(count_rows(merge, runs));
    }
}

/// Rows of one column and no key: what goes is picked from what is there.
async fn count_rows(merge: Merge, runs: Vec<(Vec<u8>, Vec<u8>)>) {
    let lake = Lake::memory();
    let schema = table_schema(vec![column(1, "v", Type::Int32)], Identity::FullRow);
    let mut table = Table::create(&lake, PATH);
    table.set_merge(merge);
    let mut model: BTreeMap<u8, u32> = BTreeMap::new();
    for (epoch, (picks, added)) in (0_i64..).zip(runs) {
        let mut removed: BTreeMap<u8, u32> = BTreeMap::new();
        for pick in picks {
            let held: Vec<u8> = model.iter().filter(|(_, n)| **n > 0).map(|(v, _)| *v).collect();
            if let Some(value) = held.get(usize::from(pick) % held.len().max(1)) {
                *removed.entry(*value).or_default() += 1;
                *model.entry(*value).or_default() -= 1;
            }
        }
        for value in &added {
            *model.entry(*value).or_default() += 1;
        }
        let value = |v: &u8| vec![Value::Int(i64::from(*v))];
        let removals: Vec<_> = removed.keys().map(value).collect();
        let mut collapsed = run(&schema, &removals, &added.iter().map(value).collect::<Vec<_>>());
        for (removal, rows) in collapsed.removals.iter_mut().zip(removed.values()) {
            removal.rows = *rows;
        }
        table.apply(&collapsed).await.expect("applied");
        commit(&mut table, epoch).await;
        match epoch % 4 {
            1 if table.files() > 0 => {
                optimize(&lake, PATH).await;
                table.refresh().await.expect("refreshed");
            }
            3 => table.discard().await.expect("discarded"),
            _ => {}
        }
        let mut found: BTreeMap<u8, u32> = BTreeMap::new();
        for row in read_rows(&lake, PATH, &schema).await.expect("rows") {
            *found.entry(row[0].parse().expect("a number")).or_default() += 1;
        }
        model.retain(|_, rows| *rows > 0);
        assert_eq!(found, model);
    }
    let mut absent = run(&schema, &[vec![Value::Int(1000)]], &[]);
    absent.removals[0].rows = 1;
    let error = table.apply(&absent).await.expect_err("it is not there");
    assert!(error.full().contains("differ"), "{}", error.full());
}
