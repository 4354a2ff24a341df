//! Changes of a source's rows as changes of the lake's, by [`Mode`](super::Mode).

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
    UInt32Array, new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field};
use arrow_select::take::take;
use lakeward_connectors::batch::{Batch, Change, Trace, arrow_schema};
use lakeward_connectors::key::{Keys, key_texts};
use lakeward_connectors::{Error, Op, Result};

use super::{DELETED, DELETED_AT, Shaping};

/// Rows that the filter doesn't keep are gone from the lake.
pub(super) fn mirror(shaping: &Shaping, mut batch: Batch) -> Result<Batch> {
    if shaping.filter.is_some() {
        let mut changes = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            match change.row {
                Some(row) if !shaping.keeps(&batch, row) => {
                    let gone = |key| Change { op: Op::Delete, key, old_key: None, row: None };
                    changes.extend(change.old_key.map(gone));
                    changes.push(gone(change.key));
                }
                _ => changes.push(*change),
            }
        }
        batch.changes = changes;
    }
    let mut out = Lake::new(shaping);
    out.source_columns(&batch)?;
    let from = shaping.columns.iter().map(|of| of.from);
    let from = from.chain(shaping.derived.iter().map(|of| of.from));
    let of = |rows: &[Vec<u32>], from: usize| rows.get(from).cloned().unwrap_or_default();
    out.unchanged = from.clone().map(|from| of(&batch.unchanged, from)).collect();
    out.patched = from.map(|from| of(&batch.patched, from)).collect();
    let transactions = std::mem::take(&mut batch.transactions);
    out.finish(batch.changes, batch.keys, transactions, batch.columns.num_rows())
}

/// A row that is deleted stays as it was and is marked. One that the filter doesn't keep any more is
/// gone: it is still there in the source, and what the lake has of it would grow old.
pub(super) fn soft_delete(shaping: &Shaping, batch: &Batch) -> Result<Batch> {
    let from = shaping.columns.iter().map(|of| of.from);
    let from: Vec<_> = from.chain(shaping.derived.iter().map(|of| of.from)).collect();
    let mut rows = Rows::default();
    let mut deleted: Vec<(bool, Option<i64>)> = Vec::new();
    let mut unchanged_rows: Vec<Vec<u32>> = vec![Vec::new(); from.len()];
    let mut patched_rows = unchanged_rows.clone();
    let mut changes = Vec::with_capacity(batch.changes.len());
    for (index, change) in batch.changes.iter().enumerate() {
        let micros = batch.traces.get(index).map(|trace| trace.committed.micros);
        let deleted_key = match (change.op, change.row) {
            (Op::Delete, _) | (_, None) => Some(change.key),
            (_, Some(row)) if !shaping.keeps(batch, row) => {
                changes.push(Change { op: Op::Delete, key: change.key, old_key: None, row: None });
                change.old_key
            }
            _ => change.old_key,
        };
        let kept = change.row.filter(|row| change.op != Op::Delete && shaping.keeps(batch, *row));
        if let Some(row) = kept {
            let number = rows.push(Some(row));
            deleted.push((false, None));
            for (from, rows) in from.iter().zip(&mut unchanged_rows) {
                if batch.is_unchanged(*from, row) {
                    rows.push(number);
                }
            }
            for (from, rows) in from.iter().zip(&mut patched_rows) {
                if batch.is_patched(*from, row) {
                    rows.push(number);
                }
            }
            // The row of the old key stays, and is marked after its values were taken from it.
            let op = if change.old_key.is_some() { Op::Insert } else { change.op };
            changes.push(Change { op, row: Some(number), ..*change });
        }
        if let Some(key) = deleted_key {
            let number = rows.push(None);
            deleted.push((true, micros));
            unchanged_rows.iter_mut().for_each(|column| column.push(number));
            changes.push(Change { op: Op::Delete, key, old_key: None, row: Some(number) });
        }
    }
    let mut out = Lake::new(shaping);
    out.source_columns(&rows.of(batch)?)?;
    let mut marks = BooleanBuilder::with_capacity(deleted.len());
    let mut times = TimestampMicrosecondBuilder::with_capacity(deleted.len()).with_timezone("UTC");
    for (mark, micros) in deleted {
        marks.append_value(mark);
        times.append_option(micros);
    }
    out.arrays.extend([Arc::new(marks.finish()) as ArrayRef, Arc::new(times.finish())]);
    (out.unchanged, out.patched) = (unchanged_rows, patched_rows);
    out.finish(changes, batch.keys.clone(), Vec::new(), rows.0.len())
}

/// Every change is a row.
pub(super) fn append(shaping: &Shaping, batch: &Batch) -> Result<Batch> {
    let mut rows = Rows::default();
    let mut said = Said::default();
    for (index, change) in batch.changes.iter().enumerate() {
        let trace = batch.traces.get(index);
        let keeps = |row| shaping.keeps(batch, row);
        let kept = change.op == Op::Delete || change.row.is_some_and(keeps);
        let old_key = change.old_key.and_then(|key| key_texts(&batch.schema, batch.keys.get(key)));
        match (change.op, kept) {
            (Op::Read, true) => said.push("read", trace, None),
            (Op::Insert, true) => said.push("insert", trace, None),
            (Op::Update, true) => said.push("update", trace, old_key),
            (Op::Delete, true) => said.push("delete", trace, None),
            // It may have been one of the table's rows before.
            (Op::Update, false) => said.push("delete", trace, old_key),
            (_, false) => continue,
        }
        rows.push(change.row);
        let left_out = shaping.columns.iter().filter(|of| match change.row {
            Some(row) => kept && batch.is_unchanged(of.from, row),
            None => false,
        });
        said.leave_out(left_out.map(|of| of.name.as_str()).collect());
        said.hide.push(!kept);
    }
    let hidden = said.hide.clone();
    let mut out = Lake::new(shaping);
    out.source_columns(&rows.of(batch)?)?;
    out.hide_all_but_key(&hidden)?;
    out.arrays.extend(said.columns());
    out.list(rows.0.len())
}

/// One row that says that all are gone.
pub(super) fn truncated(shaping: &Shaping, trace: Option<Trace>) -> Result<Batch> {
    let mut said = Said::default();
    said.push("truncate", trace.as_ref(), None);
    said.leave_out(Vec::new());
    let mut out = Lake::new(shaping);
    for column in shaping.lake.columns.iter().take(shaping.columns.len() + shaping.derived.len()) {
        out.arrays.push(new_null_array(&column.kind.arrow(), 1));
    }
    out.arrays.extend(said.columns());
    out.list(1)
}

/// Rows of a table with soft deletes, all of them marked: at `micros`, unless they were before.
///
/// # Errors
/// When they lack the columns of the mode.
pub fn mark_deleted(rows: &RecordBatch, micros: Option<i64>) -> Result<RecordBatch> {
    let schema = rows.schema();
    let place = |name| schema.index_of(name).map_err(fault);
    let (mark, time) = (place(DELETED)?, place(DELETED_AT)?);
    let mut arrays = rows.columns().to_vec();
    let marks = arrays[mark].as_boolean_opt();
    let times = arrays[time].as_primitive_opt::<TimestampMicrosecondType>();
    let (Some(marks), Some(times)) = (marks, times) else {
        return Err(Error::internal("a table has no marks of deleted rows"));
    };
    let marked: TimestampMicrosecondArray = (0..rows.num_rows())
        .map(|row| match marks.is_valid(row) && marks.value(row) {
            true => times.is_valid(row).then(|| times.value(row)),
            false => micros,
        })
        .collect();
    arrays[mark] = Arc::new(BooleanArray::from(vec![true; rows.num_rows()]));
    arrays[time] = Arc::new(marked.with_timezone("UTC"));
    record(schema, arrays, rows.num_rows())
}

/// The rows of a batch in another order, some of them without values.
#[derive(Default)]
struct Rows(Vec<Option<u32>>);

impl Rows {
    fn push(&mut self, row: Option<u32>) -> u32 {
        self.0.push(row);
        (self.0.len() - 1) as u32
    }

    /// Those rows of `batch`. Which of its values were left out is not kept.
    fn of(&self, batch: &Batch) -> Result<Batch> {
        let same = self.0.len() == batch.columns.num_rows()
            && (0..).zip(&self.0).all(|(at, row)| *row == Some(at));
        let (unchanged, patched) = (Vec::new(), Vec::new());
        let mut out = Batch { unchanged, patched, ..batch.clone() };
        if !same {
            let numbers = UInt32Array::from(self.0.clone());
            let arrays = batch.columns.columns().iter();
            let arrays = arrays.map(|array| take(array.as_ref(), &numbers, None));
            let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(fault)?;
            out.columns = record(batch.columns.schema(), arrays, self.0.len())?;
        }
        Ok(out)
    }
}

/// A batch of the lake's rows in the making.
struct Lake<'a> {
    shaping: &'a Shaping,
    arrays: Vec<ArrayRef>,
    unchanged: Vec<Vec<u32>>,
    patched: Vec<Vec<u32>>,
}

impl<'a> Lake<'a> {
    fn new(shaping: &'a Shaping) -> Self {
        Self { shaping, arrays: Vec::new(), unchanged: Vec::new(), patched: Vec::new() }
    }

    /// The columns that come from the source's, masked.
    fn source_columns(&mut self, batch: &Batch) -> Result<()> {
        for column in &self.shaping.columns {
            let array = batch.columns.columns().get(column.from);
            let source = self.shaping.source.columns.get(column.from);
            let (Some(array), Some(source)) = (array, source) else {
                return Err(Error::internal("a batch lacks a column of its schema"));
            };
            self.arrays.push(match &column.mask {
                Some(mask) => mask.apply(&source.kind, array)?,
                None => Arc::clone(array),
            });
        }
        for column in &self.shaping.derived {
            let array = batch.columns.columns().get(column.from);
            let array = array.ok_or_else(|| Error::internal("a batch lacks a column"))?;
            self.arrays.push(column.part.of(array)?);
        }
        Ok(())
    }

    /// Leaves of some rows only the values of their keys.
    fn hide_all_but_key(&mut self, hidden: &[bool]) -> Result<()> {
        if !hidden.contains(&true) {
            return Ok(());
        }
        let shown = (0..).zip(hidden).map(|(row, hidden): (u32, _)| (!hidden).then_some(row));
        let shown: UInt32Array = shown.collect();
        let key = self.shaping.source.key();
        let from = self.shaping.columns.iter().map(|column| column.from);
        let from = from.chain(self.shaping.derived.iter().map(|column| column.from));
        for (from, array) in from.zip(&mut self.arrays) {
            if !key.contains(&from) {
                *array = take(array.as_ref(), &shown, None).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// A batch that adds all of so many rows.
    fn list(self, rows: usize) -> Result<Batch> {
        let mut keys = Keys::default();
        let key = keys.push_bytes(&[]);
        let row = |row| Change { op: Op::Insert, key, old_key: None, row: Some(row) };
        let changes = (0..rows as u32).map(row).collect();
        self.finish(changes, keys, Vec::new(), rows)
    }

    fn finish(
        self,
        changes: Vec<Change>,
        keys: Keys,
        transactions: Vec<(usize, u64)>,
        rows: usize,
    ) -> Result<Batch> {
        let Self { shaping, arrays, mut unchanged, mut patched } = self;
        let schema = Arc::clone(&shaping.lake);
        unchanged.resize(schema.columns.len(), Vec::new());
        patched.resize(schema.columns.len(), Vec::new());
        let columns = record(Arc::new(arrow_schema(&schema)), arrays, rows)?;
        let size = columns.get_array_memory_size() + size_of_val(changes.as_slice()) + keys.size();
        let traces = Vec::new();
        Ok(Batch { schema, changes, keys, columns, unchanged, patched, transactions, traces, size })
    }
}

/// The columns of a table that lists changes which say what each was.
#[derive(Default)]
struct Said {
    ops: StringBuilder,
    positions: StringBuilder,
    ordinals: Int64Builder,
    times: TimestampMicrosecondBuilder,
    unchanged: Vec<Vec<String>>,
    old_keys: Vec<Vec<String>>,
    /// Rows of which only the key is shown.
    hide: Vec<bool>,
}

impl Said {
    fn push(&mut self, op: &str, trace: Option<&Trace>, old_key: Option<Vec<String>>) {
        self.ops.append_value(op);
        self.positions.append_option(trace.map(|trace| &trace.committed.transaction));
        let ordinal = trace.and_then(|trace| i64::try_from(trace.ordinal).ok());
        self.ordinals.append_option(ordinal);
        self.times.append_option(trace.map(|trace| trace.committed.micros));
        self.old_keys.push(old_key.unwrap_or_default());
    }

    fn leave_out(&mut self, columns: Vec<&str>) {
        self.unchanged.push(columns.into_iter().map(str::to_owned).collect());
    }

    fn columns(mut self) -> [ArrayRef; 6] {
        [
            Arc::new(self.ops.finish()),
            Arc::new(self.positions.finish()),
            Arc::new(self.ordinals.finish()),
            Arc::new(self.times.finish().with_timezone("UTC")),
            texts(self.unchanged),
            texts(self.old_keys),
        ]
    }
}

/// A list of texts a row; never null, which ClickHouse doesn't know.
fn texts(lists: Vec<Vec<String>>) -> ArrayRef {
    let field = Field::new("element", DataType::Utf8, true);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(field);
    for list in lists {
        list.into_iter().for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn record(
    schema: arrow_schema::SchemaRef,
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(fault)
}

fn fault(error: ArrowError) -> Error {
    Error::internal("rows can't be given the shape of the lake's").caused_by(error)
}
