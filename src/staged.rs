//! Changes that are durable before they are merged: a batch ↔ a Parquet file beside the tables.
//!
//! A table whose merge is slower than its changes doesn't hold up the others, nor the source's log:
//! its changes are written as they came, the epoch file names them (E3), and the source is
//! acknowledged. They are merged later, several epochs at once, and one commit makes all of them
//! visible.
//!
//! A file [`Holds`] rows, or one of the other steps that a table's merge takes in their order. One of
//! rows holds batches of one schema. Each change is a row: `op`; `key` and `old_key`, the bytes of
//! [`key`](lakeward_connectors::key); `unchanged`, the indices of columns that the source left out,
//! four bytes each, the highest bit set where the column holds a patch; and the columns of the table as `c0`, `c1` and so on, null for a delete.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int8Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::take::take;
use bytes::Bytes;
use lakeward_connectors::batch::{Batch, Change, arrow_schema};
use lakeward_connectors::key::Keys;
use lakeward_connectors::schema::TableSchema;
use lakeward_connectors::{Error, Op, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};

/// Marks a column that holds a patch.
const PATCHED: u32 = 1 << 31;
/// The columns before those of the table.
const OWN: usize = 4;
/// Where a file keeps the schema of its rows, or of those to come.
const SCHEMA: &str = "lakeward.schema";
/// Where a file of columns keeps what the source has, if the table has something else.
const SOURCE: &str = "lakeward.source";
/// Where a file that empties the table keeps when that was committed, microseconds of Unix time.
const COMMITTED: &str = "lakeward.committed";

/// A file of changes, as an epoch file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Its path in the lake.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many changes it holds.
    pub changes: u64,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Holds::is_rows")]
    pub holds: Holds,
    /// When it was written, milliseconds of Unix time; for people.
    #[serde(default)]
    pub at_ms: i64,
}

/// Which step a file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Rows come, change and go.
    #[default]
    Rows,
    /// Columns came or went.
    Columns,
    /// All rows are gone.
    Truncate,
}

impl Holds {
    fn is_rows(&self) -> bool {
        *self == Self::Rows
    }
}

/// The columns that a table has from a file of [`Holds::Columns`] on.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Of the lake's rows.
    pub lake: Arc<TableSchema>,
    /// Of the source's, where they are other.
    pub source: Option<Arc<TableSchema>>,
}

/// The bytes of a file with the changes of `batches`, which are all of one schema.
///
/// # Errors
/// When they are not, or a batch contradicts itself: bugs of the caller.
pub fn encode(batches: &[Batch]) -> Result<Bytes> {
    let Some(first) = batches.first() else {
        return Err(Error::internal("nothing to stage"));
    };
    file(&first.schema, Vec::new(), batches)
}

/// The bytes of a file that says which columns the table has from here on.
///
/// # Errors
/// When they can't be written: a bug.
pub fn encode_columns(columns: &Columns) -> Result<Bytes> {
    let source = columns.source.as_ref().map(|source| serde_json::to_string(&**source));
    let source = source.transpose().map_err(fault)?;
    let known = source.map(|text| KeyValue::new(SOURCE.to_owned(), text));
    file(&columns.lake, known.into_iter().collect(), &[])
}

/// The bytes of a file that says that all rows of the table are gone, by a transaction that was
/// committed at `micros` of Unix time.
///
/// # Errors
/// When they can't be written: a bug.
pub fn encode_truncate(schema: &TableSchema, micros: Option<i64>) -> Result<Bytes> {
    let known = micros.map(|micros| KeyValue::new(COMMITTED.to_owned(), micros.to_string()));
    file(schema, known.into_iter().collect(), &[])
}

fn file(of: &TableSchema, mut known: Vec<KeyValue>, batches: &[Batch]) -> Result<Bytes> {
    let schema = file_schema(of);
    known.push(KeyValue::new(SCHEMA.to_owned(), serde_json::to_string(of).map_err(fault)?));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(64 * 1024))
        .set_key_value_metadata(Some(known))
        .build();
    let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties));
    let mut writer = writer.map_err(fault)?;
    for batch in batches {
        writer.write(&rows(batch, &schema).map_err(fault)?).map_err(fault)?;
        writer.flush().map_err(fault)?;
    }
    Ok(writer.into_inner().map_err(fault)?.into())
}

fn file_schema(schema: &TableSchema) -> SchemaRef {
    let mut fields = vec![
        Field::new("op", DataType::Int8, false),
        Field::new("key", DataType::Binary, false),
        Field::new("old_key", DataType::Binary, true),
        Field::new("unchanged", DataType::Binary, true),
    ];
    let columns = schema.columns.iter().enumerate();
    fields.extend(
        columns.map(|(at, column)| Field::new(format!("c{at}"), column.kind.arrow(), true)),
    );
    Arc::new(Schema::new(fields))
}

/// The changes of a batch, a row each.
fn rows(batch: &Batch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut ops = Int8Builder::with_capacity(batch.changes.len());
    let (mut keys, mut old_keys, mut unchanged) =
        (BinaryBuilder::new(), BinaryBuilder::new(), BinaryBuilder::new());
    for change in &batch.changes {
        ops.append_value(match change.op {
            Op::Delete if change.row.is_some() => 4,
            Op::Read => 0,
            Op::Insert => 1,
            Op::Update => 2,
            Op::Delete => 3,
        });
        keys.append_value(batch.keys.get(change.key));
        old_keys.append_option(change.old_key.map(|key| batch.keys.get(key)));
        let out = change.row.filter(|row| batch.is_partial(*row));
        unchanged.append_option(out.map(|row| {
            let mark = |at: usize| match batch.is_patched(at, row) {
                true => Some(at as u32 | PATCHED),
                false => batch.is_unchanged(at, row).then_some(at as u32),
            };
            let columns = (0..batch.unchanged.len()).filter_map(mark);
            columns.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        }));
    }
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(ops.finish()),
        Arc::new(keys.finish()),
        Arc::new(old_keys.finish()),
        Arc::new(unchanged.finish()),
    ];
    let numbers: UInt32Array = batch.changes.iter().map(|change| change.row).collect();
    for column in batch.columns.columns() {
        arrays.push(take(column.as_ref(), &numbers, None)?);
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
}

/// The batches of a file, one at a time; an error where it is not what [`encode`] wrote.
pub struct Reader {
    schema: Arc<TableSchema>,
    source: Option<Arc<TableSchema>>,
    committed: Option<i64>,
    batches: parquet::arrow::arrow_reader::ParquetRecordBatchReader,
}

impl Reader {
    /// The batches of a file of these bytes, with so many changes each.
    ///
    /// # Errors
    /// When they are not such a file.
    pub fn open(bytes: Bytes, changes: usize) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(damaged)?;
        let known = builder.metadata().file_metadata().key_value_metadata();
        let value = |key: &str| {
            let entry = known.and_then(|all| all.iter().find(|entry| entry.key == key));
            entry.and_then(|entry| entry.value.as_deref())
        };
        let schema = serde_json::from_str(value(SCHEMA).unwrap_or_default()).map_err(damaged)?;
        let source = value(SOURCE).map(serde_json::from_str).transpose().map_err(damaged)?;
        let committed = value(COMMITTED).map(str::parse).transpose().map_err(damaged)?;
        let batches = builder.with_batch_size(changes).build().map_err(damaged)?;
        Ok(Self { schema: Arc::new(schema), source: source.map(Arc::new), committed, batches })
    }

    /// The schema of its rows.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// What a file of columns says.
    pub fn columns(&self) -> Columns {
        Columns { lake: Arc::clone(&self.schema), source: self.source.clone() }
    }

    /// When the rows went, in a file that says that all have; microseconds of Unix time.
    pub fn committed(&self) -> Option<i64> {
        self.committed
    }

    fn batch(&self, rows: &RecordBatch) -> Result<Batch> {
        let wrong = || damaged("its columns are others");
        let column = |at: usize| rows.columns().get(at).ok_or_else(wrong);
        let ops = column(0)?.as_primitive_opt::<Int8Type>().ok_or_else(wrong)?;
        let keys_found = column(1)?.as_binary_opt::<i32>().ok_or_else(wrong)?;
        let old_keys = column(2)?.as_binary_opt::<i32>().ok_or_else(wrong)?;
        let out = column(3)?.as_binary_opt::<i32>().ok_or_else(wrong)?;
        let width = self.schema.columns.len();
        let (mut keys, mut changes) = (Keys::default(), Vec::with_capacity(rows.num_rows()));
        let (mut unchanged, mut patched) = (vec![Vec::new(); width], vec![Vec::new(); width]);
        for row in 0..rows.num_rows() {
            let (code, number) = (ops.value(row), row as u32);
            let op = match code {
                0 => Op::Read,
                1 => Op::Insert,
                2 => Op::Update,
                3 | 4 => Op::Delete,
                _ => return Err(damaged("it has an unknown operation")),
            };
            let key = keys.push_bytes(keys_found.value(row));
            let old_key = old_keys.is_valid(row).then(|| keys.push_bytes(old_keys.value(row)));
            if out.is_valid(row) {
                for column in out.value(row).chunks_exact(4) {
                    let mark = column.try_into().map_or(u32::MAX, u32::from_le_bytes);
                    let of = if mark & PATCHED == 0 { &mut unchanged } else { &mut patched };
                    let rows = of.get_mut((mark & !PATCHED) as usize);
                    rows.ok_or_else(wrong)?.push(number);
                }
            }
            changes.push(Change { op, key, old_key, row: (code != 3).then_some(number) });
        }
        let arrays: Vec<_> = rows.columns().iter().skip(OWN).cloned().collect();
        let arrow = Arc::new(arrow_schema(&self.schema));
        let columns = RecordBatch::try_new(arrow, arrays).map_err(damaged)?;
        let size = columns.get_array_memory_size() + keys.size();
        let (schema, transactions) = (Arc::clone(&self.schema), Vec::new());
        Ok(Batch {
            schema,
            changes,
            keys,
            columns,
            unchanged,
            patched,
            transactions,
            traces: Vec::new(),
            size,
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let rows = self.batches.next()?;
        Some(rows.map_err(damaged).and_then(|rows| self.batch(&rows)))
    }
}

fn fault(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("changes can't be staged").caused_by(error)
}

fn damaged(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::config("a file of staged changes is damaged")
        .caused_by(cause)
        .remedy("the table is read again at the next start")
}
