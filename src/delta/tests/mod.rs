//! Tests of the lake writer, with what they share: runs built by hand, tables read back through
//! the log, and a store that fails.

mod deletes;
mod faults;
pub(crate) mod foreign;
mod model;
mod table;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use lakeward_connectors::batch::Builder;
use lakeward_connectors::key::{Keys, value_at};
use lakeward_connectors::schema::Compare;
use lakeward_connectors::{Column, Identity, Op, Result, TableId, TableSchema, Type, Value};
use serde_json::Map;

use super::actions::Add;
use super::deletes::Rows;
use super::log;
use super::read::FileReader;
use super::schema::Layout;
use super::{Commit, Lake, Merge, Table};
use crate::collapse::{Cell, Collapsed, NewRow, Removal};

/// A column without anything particular about it.
pub(super) fn column(id: u32, name: &str, kind: Type) -> Column {
    Column {
        id,
        name: name.to_owned(),
        source_type: format!("{kind:?}"),
        kind,
        missing: None,
        compare: Compare::EXACT,
    }
}

/// A table of those columns.
pub(super) fn table_schema(columns: Vec<Column>, identity: Identity) -> Arc<TableSchema> {
    let id = TableId::new("public", "t");
    Arc::new(TableSchema { id, columns, identity, storage: String::new(), lasting_ids: true })
}

/// `id bigint primary key, v text`.
pub(super) fn pairs() -> Arc<TableSchema> {
    let columns = vec![column(1, "id", Type::Int64), column(2, "v", Type::Text)];
    table_schema(columns, Identity::Key(vec![0]))
}

/// A run that removes the rows of some keys (given as rows) and adds rows.
pub(super) fn run(
    schema: &Arc<TableSchema>,
    remove: &[Vec<Value<'_>>],
    add: &[Vec<Value<'_>>],
) -> Collapsed {
    let mut keys = Keys::default();
    let mut numbers = BTreeMap::new();
    // Each key has one number.
    let mut number = |row: &[Value<'_>]| {
        let mut one = Keys::default();
        one.push(schema, row).expect("a key");
        *numbers.entry(one.get(0).to_vec()).or_insert_with(|| keys.push_bytes(one.get(0)))
    };
    let mut builder = Builder::new(Arc::clone(schema));
    let mut removals = Vec::new();
    for row in remove {
        let key = number(row);
        removals.push(Removal { key, rows: 1 });
    }
    let mut rows = Vec::new();
    for (at, row) in (0..).zip(add) {
        let key = number(row);
        builder.push(Op::Insert, None, Some(row)).expect("a row");
        rows.push(NewRow {
            key,
            from: Cell { batch: 0, row: at },
            carried: Vec::new(),
            patches: Vec::new(),
            optional: false,
        });
    }
    let batches = vec![builder.finish()];
    Collapsed { schema: Arc::clone(schema), batches, keys, removals, rows }
}

/// A run of `id, v` rows.
pub(super) fn pairs_run(remove: &[i64], add: &[(i64, &str)]) -> Collapsed {
    let remove: Vec<_> = remove.iter().map(|id| vec![Value::Int(*id), Value::Null]).collect();
    let add: Vec<_> = add.iter().map(|(id, v)| vec![Value::Int(*id), Value::Text(v)]).collect();
    run(&pairs(), &remove, &add)
}

/// Commits as epoch `version` of the application `app`, and expects that to succeed.
pub(super) async fn commit(table: &mut Table, version: i64) -> i64 {
    let txns = [("app".to_owned(), version)];
    match table.commit(&txns, Map::new(), "WRITE").await.expect("a commit") {
        Commit::Done { version } => version,
        other => panic!("{other:?}"),
    }
}

/// The deleted rows of a file.
pub(super) async fn deleted(lake: &Lake, path: &str, add: &Add) -> Result<Rows> {
    match &add.deletion_vector {
        Some(vector) => super::deletes::read(lake, path, vector).await,
        None => Ok(Rows::new()),
    }
}

/// All rows of the table at `path` as the log tells, in the order of the files.
pub(crate) async fn read_batches(lake: &Lake, path: &str) -> Result<Vec<RecordBatch>> {
    let Some(snapshot) = log::load(lake, path).await? else {
        return Ok(Vec::new());
    };
    let metadata = &snapshot.metadata;
    let layout = Layout::parse(path, &metadata.schema_string, &metadata.partition_columns)?;
    let mut found = Vec::new();
    for add in snapshot.state.files() {
        let file = FileReader::open(lake, path, add).await?;
        assert_eq!(Some(file.rows()), add.rows(), "the statistics tell the number of rows");
        let deleted = deleted(lake, path, add).await?;
        let mut first = 0;
        for batch in file.batches(layout.arrow(), None)?.try_collect::<Vec<_>>().await? {
            let rows = (first..).take(batch.num_rows());
            let kept: Vec<_> = rows.map(|row| !deleted.contains(row)).collect();
            first += batch.num_rows() as u64;
            found.push(filter_record_batch(&batch, &kept.into()).expect("as many flags as rows"));
        }
    }
    Ok(found)
}

/// All rows of a table, each as the text of the values of `schema`, sorted.
pub(super) async fn read_rows(
    lake: &Lake,
    path: &str,
    schema: &TableSchema,
) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for batch in read_batches(lake, path).await? {
        for row in 0..batch.num_rows() {
            let cells = schema.columns.iter().map(|column| {
                let array = batch.column_by_name(&column.name).expect("the column");
                show(&value_at(&column.kind, array.as_ref(), row).expect("its type"))
            });
            rows.push(cells.collect());
        }
    }
    rows.sort();
    Ok(rows)
}

/// A value as text.
pub(super) fn show(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => (*text).to_owned(),
        Value::OwnedText(text) => text.clone(),
        Value::List(items) => format!("{:?}", items.iter().map(show).collect::<Vec<_>>()),
        Value::Int(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

/// The rows of a table of [`pairs`].
pub(super) async fn read_pairs(lake: &Lake, path: &str) -> Vec<(i64, String)> {
    let rows = read_rows(lake, path, &pairs()).await.expect("rows");
    let mut rows: Vec<_> =
        rows.into_iter().map(|row| (row[0].parse().expect("an id"), row[1].clone())).collect();
    rows.sort();
    rows
}
