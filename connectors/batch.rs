//! Changes of one table as Arrow columns: what a decoder fills and the lake consumes.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use self::column::{ColumnBuilder, Room, about};
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::key::{Keys, encode_key, key_columns};
use crate::schema::{Column, Identity, TableSchema, Type};

mod column;

/// One change of a [`Batch`]: which row it is about, and what the row is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// The row's key after the change ([`Batch::keys`]); of a delete, the deleted row's.
    pub key: u32,
    /// The row's key before an update that changed it: that row is gone. Of an insert, the key of a
    /// row that stays, and from which come the values that were left out.
    pub old_key: Option<u32>,
    /// The row's values in [`Batch::columns`]. Those of a delete, if it has any, are what is left of
    /// the row, if there was one (soft delete).
    pub row: Option<u32>,
}

/// A transaction, as a table tells of it that lists changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Which one, in the source's own words.
    pub transaction: String,
    /// When it was committed, by the source's clock: microseconds of Unix time.
    pub micros: i64,
}

/// Where a change stands in the source's log.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The transaction that made it.
    pub committed: Arc<Committed>,
    /// Its number among the transaction's changes of the table, from 0.
    pub ordinal: u64,
}

/// Changes of one table under one schema, in the order of the source's commits (E1).
#[derive(Debug, Clone)]
pub struct Batch {
    /// The schema under which all of them were decoded.
    pub schema: Arc<TableSchema>,
    /// The changes in order.
    pub changes: Vec<Change>,
    /// The keys they name.
    pub keys: Keys,
    /// The rows they name; null where [`Batch::unchanged`] lists the row, and a
    /// [patch](crate::patch) where [`Batch::patched`] does.
    pub columns: RecordBatch,
    /// For each column, the rows (ascending) whose value the source did not send.
    pub unchanged: Vec<Vec<u32>>,
    /// For each column, the rows (ascending) of whose value the source sent what changed.
    pub patched: Vec<Vec<u32>>,
    /// The serial numbers of the transactions, each with the index of its first change.
    pub transactions: Vec<(usize, u64)>,
    /// For each change where it stands in the log, if that was asked for; empty otherwise, and for
    /// the rows of a chunk.
    pub traces: Vec<Trace>,
    /// What the batch takes of the memory budget, in bytes.
    pub size: usize,
}

impl Batch {
    /// Whether the source left out the value of `column` in `row`.
    pub fn is_unchanged(&self, column: usize, row: u32) -> bool {
        self.unchanged.get(column).is_some_and(|rows| rows.binary_search(&row).is_ok())
    }

    /// Whether the source sent only what changed in the value of `column` in `row`.
    pub fn is_patched(&self, column: usize, row: u32) -> bool {
        self.patched.get(column).is_some_and(|rows| rows.binary_search(&row).is_ok())
    }

    /// Whether any value of `row` was left out, in whole or in part.
    pub fn is_partial(&self, row: u32) -> bool {
        let columns = 0..self.unchanged.len();
        columns.into_iter().any(|at| self.is_unchanged(at, row) || self.is_patched(at, row))
    }

    /// Drops the changes for whose transaction `keep` says no; it is asked with the transaction's
    /// serial number, or `None` for a row that no transaction changed (a chunk's).
    pub fn retain(&mut self, keep: impl Fn(Option<u64>) -> bool) {
        let mut kept = Vec::with_capacity(self.changes.len());
        let (mut transactions, mut traces) = (Vec::new(), Vec::new());
        for (index, change) in self.changes.iter().enumerate() {
            let serial = transaction_at(&self.transactions, index);
            if keep(serial) {
                traces.extend(self.traces.get(index).cloned());
                if let Some(serial) = serial {
                    start_transaction(&mut transactions, kept.len(), serial);
                }
                kept.push(*change);
            }
        }
        self.changes = kept;
        self.transactions = transactions;
        self.traces = traces;
    }
}

/// The serial number of the transaction that made change number `index`.
fn transaction_at(transactions: &[(usize, u64)], index: usize) -> Option<u64> {
    let after = transactions.partition_point(|(first, _)| *first <= index);
    Some(transactions.get(after.checked_sub(1)?)?.1)
}

fn start_transaction(transactions: &mut Vec<(usize, u64)>, first: usize, serial: u64) {
    if transactions.last().is_none_or(|(_, last)| *last != serial) {
        transactions.push((first, serial));
    }
}

/// Fills a [`Batch`]. A row is appended whole or not at all.
#[derive(Debug)]
pub struct Builder {
    schema: Arc<TableSchema>,
    changes: Vec<Change>,
    keys: Keys,
    columns: Vec<ColumnBuilder>,
    unchanged: Vec<Vec<u32>>,
    patched: Vec<Vec<u32>>,
    transactions: Vec<(usize, u64)>,
    /// Where the next change stands, if that is kept.
    trace: Option<Trace>,
    traces: Vec<Trace>,
    rows: u32,
    size: usize,
    /// For each column, its place in the key, if it is part of it.
    key_places: Vec<Option<usize>>,
    /// The parts of a key whose columns come in another order than the key's.
    key_parts: Option<Vec<Vec<u8>>>,
}

impl Builder {
    /// An empty batch of `schema`.
    pub fn new(schema: Arc<TableSchema>) -> Self {
        Self::with_room(schema, |_| Room::default())
    }

    /// An empty batch with room for about as much as this one holds.
    pub fn successor(&self) -> Self {
        let rows = self.rows as usize;
        let mut next = Self::with_room(self.schema.clone(), |at| self.columns[at].room(rows));
        next.changes.reserve_exact(about(self.changes.len()));
        next.keys.reserve(about(self.keys.len()), about(self.keys.bytes()));
        next
    }

    fn with_room(schema: Arc<TableSchema>, room: impl Fn(usize) -> Room) -> Self {
        let columns = schema.columns.iter().enumerate();
        let columns = columns.map(|(at, column)| ColumnBuilder::new(&column.kind, room(at)));
        let columns: Vec<_> = columns.collect();
        let key = key_columns(&schema);
        let place = |column| key.iter().position(|of_key| *of_key == column);
        Self {
            key_places: (0..columns.len()).map(place).collect(),
            key_parts: (!key.is_sorted()).then(|| vec![Vec::new(); key.len()]),
            unchanged: vec![Vec::new(); columns.len()],
            patched: vec![Vec::new(); columns.len()],
            columns,
            changes: Vec::new(),
            keys: Keys::default(),
            transactions: Vec::new(),
            trace: None,
            traces: Vec::new(),
            rows: 0,
            size: 0,
            schema,
        }
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What the batch takes of the memory budget, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The changes so far.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The keys that the changes name.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Says that the changes pushed from here on belong to the transaction numbered `serial`.
    pub fn transaction(&mut self, serial: u64) {
        start_transaction(&mut self.transactions, self.changes.len(), serial);
    }

    /// Keeps where the changes stand that are pushed from here on, the first of them at `trace`. A
    /// delete then comes with a row: of the values of its key, or of all where the row has no key.
    pub fn trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// Where the next change stands, if that is kept.
    pub fn next_trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// The serial number of the transaction that made change number `index`.
    pub fn transaction_of(&self, index: usize) -> Option<u64> {
        transaction_at(&self.transactions, index)
    }

    /// Appends a change.
    ///
    /// `old` is the row before the change, as far as the source sent it: its key columns must be
    /// there when the key may have changed (all columns for [`Identity::FullRow`]); the others are
    /// not looked at. `row` is the row afterwards, one value a column; `None` for a delete.
    /// An update without a key becomes a delete and an insert.
    ///
    /// # Errors
    /// When a value doesn't belong to its column's type, or a key is incomplete: bugs of a decoder.
    pub fn push(
        &mut self,
        op: Op,
        old: Option<&[Value<'_>]>,
        row: Option<&[Value<'_>]>,
    ) -> Result<()> {
        let full = self.schema.identity == Identity::FullRow;
        match (op, old, row) {
            (Op::Delete, Some(old), _) => self.delete(old)?,
            (Op::Update, Some(old), Some(row)) if full => {
                self.delete(old)?;
                let filled = row.iter().zip(old).map(|(new, old)| completed(new, old));
                let filled = filled.collect::<Option<Vec<_>>>();
                let filled = filled.ok_or_else(|| self.fault("a patch is of another value"))?;
                self.append(Op::Insert, None, &filled)?;
            }
            (_, old, Some(row)) => self.append(op, old, row)?,
            (_, _, None) => return Err(self.fault("a change has no row")),
        }
        Ok(())
    }

    fn delete(&mut self, old: &[Value<'_>]) -> Result<()> {
        if self.trace.is_none() {
            let key = self.keys.push(&self.schema, old)?;
            self.note(Op::Delete, key, None, None);
            return Ok(());
        }
        let key = key_columns(&self.schema);
        let value = |at| match (key.contains(&at), old.get(at)) {
            (true, Some(value)) => value.clone(),
            _ => Value::Null,
        };
        let row: Vec<_> = (0..self.columns.len()).map(value).collect();
        self.append(Op::Delete, None, &row)
    }

    fn append(&mut self, op: Op, old: Option<&[Value<'_>]>, row: &[Value<'_>]) -> Result<()> {
        let old_key = old.map(|old| self.key(old)).transpose()?;
        let mut appended = self.row();
        row.iter().for_each(|value| appended.push(value));
        appended.finish(op, old_key)
    }

    /// Notes the key of `row`, of which only the key's columns are looked at, and returns its number.
    ///
    /// # Errors
    /// When the key is incomplete.
    pub fn key(&mut self, row: &[Value<'_>]) -> Result<u32> {
        self.keys.push(&self.schema, row)
    }

    /// A row to be filled value by value, in the order of the columns: what a decoder uses that has
    /// the values one after the other.
    pub fn row(&mut self) -> Row<'_> {
        Row { builder: self, at: 0, fault: None }
    }

    fn note(&mut self, op: Op, key: u32, old_key: Option<u32>, row: Option<u32>) {
        self.size += size_of::<Change>() + self.keys.get(key).len() + size_of::<usize>();
        self.changes.push(Change { op, key, old_key, row });
        if let Some(trace) = &mut self.trace {
            self.size += size_of::<Trace>();
            self.traces.push(trace.clone());
            trace.ordinal += 1;
        }
    }

    fn fault(&self, what: &str) -> Error {
        Error::internal(what).with("table", &self.schema.id)
    }

    /// The finished batch.
    pub fn finish(self) -> Batch {
        let Self { schema, changes, keys, columns, unchanged, patched, traces, .. } = self;
        let (transactions, rows, size) = (self.transactions, self.rows, self.size);
        let arrays: Vec<ArrayRef> = columns.into_iter().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let arrow = Arc::new(arrow_schema(&schema));
        let columns = RecordBatch::try_new_with_options(arrow, arrays, &options)
            .unwrap_or_else(|error| unreachable!("builders follow their schema: {error}"));
        // What was reserved counts, not only what is filled.
        let reserved = columns.get_array_memory_size()
            + changes.capacity() * size_of::<Change>()
            + keys.size()
            + unchanged
                .iter()
                .chain(&patched)
                .map(|rows| rows.capacity() * size_of::<u32>())
                .sum::<usize>();
        let size = size.max(reserved);
        Batch { schema, changes, keys, columns, unchanged, patched, transactions, traces, size }
    }
}

/// What `new` is, once what it leaves out is taken from the value before.
fn completed<'a>(new: &Value<'a>, old: &Value<'a>) -> Option<Value<'a>> {
    match (new, old) {
        (Value::Unchanged, old) => Some(old.clone()),
        (Value::Patch(patch), Value::Text(old)) => patched(patch, old),
        (Value::Patch(patch), Value::OwnedText(old)) => patched(patch, old),
        (Value::Patch(_), _) => None,
        (new, _) => Some(new.clone()),
    }
}

fn patched(patch: &str, old: &str) -> Option<Value<'static>> {
    crate::patch::apply(old, [patch]).map(Value::OwnedText)
}

/// A row being appended to a [`Builder`]. Unless it is [finished](Self::finish), it was never there.
#[derive(Debug)]
pub struct Row<'b> {
    builder: &'b mut Builder,
    at: usize,
    fault: Option<&'static str>,
}

impl Row<'_> {
    /// Appends the value of the next column.
    #[inline]
    pub fn push(&mut self, value: &Value<'_>) {
        let Builder { columns, schema, keys, key_places, key_parts, .. } = &mut *self.builder;
        let Some(column) = columns.get_mut(self.at) else {
            self.fault = Some("a row has more values than its table columns");
            return;
        };
        let appended = column.append(value);
        if let Some(place) = key_places[self.at] {
            let done = match key_parts {
                None => keys.encode(schema, self.at, value),
                Some(parts) => {
                    let part = &mut parts[place];
                    part.clear();
                    encode_key(schema, self.at, value, part)
                }
            };
            if done.is_none() {
                self.fault = Some("a key column has no value, or one of another type");
            }
        }
        match appended {
            Some(size) => self.builder.size += size,
            None => self.fault = Some("a value is of another type than its column"),
        }
        match value {
            Value::Unchanged => self.builder.unchanged[self.at].push(self.builder.rows),
            Value::Patch(_) => self.builder.patched[self.at].push(self.builder.rows),
            _ => {}
        }
        self.at += 1;
    }

    /// Completes the row as what `op` left, whose key was number `old_key` before.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn finish(mut self, op: Op, old_key: Option<u32>) -> Result<()> {
        if self.at < self.builder.columns.len() {
            self.fault = Some("a row has fewer values than its table columns");
        }
        if let Some(fault) = self.fault {
            return Err(self.builder.fault(fault));
        }
        let Builder { keys, key_parts, .. } = self.builder;
        key_parts.iter().flatten().for_each(|part| keys.extend(part));
        let key = keys.close();
        let moved = old_key.filter(|&old| keys.get(old) != keys.get(key));
        let row = self.builder.rows;
        self.builder.note(op, key, moved, Some(row));
        Ok(())
    }
}

/// Nobody reads a row that no change names; it only keeps the columns of one length.
impl Drop for Row<'_> {
    fn drop(&mut self) {
        let builder = &mut *self.builder;
        if let Some(missing) = builder.columns.get_mut(self.at..) {
            missing.iter_mut().for_each(ColumnBuilder::append_null);
        }
        builder.keys.abandon();
        builder.rows += 1;
    }
}

/// The Arrow schema of a table's rows: every column nullable, names and order as in `schema`.
pub fn arrow_schema(schema: &TableSchema) -> Schema {
    Schema::new(schema.columns.iter().map(arrow_field).collect::<Vec<_>>())
}

/// The Arrow field of a column.
pub fn arrow_field(column: &Column) -> Field {
    Field::new(&column.name, column.kind.arrow(), true)
}

impl Type {
    /// The Arrow type in which values of this type travel and are written to Parquet.
    pub fn arrow(&self) -> DataType {
        match self {
            Type::Bool => DataType::Boolean,
            Type::Int16 => DataType::Int16,
            Type::Int32 => DataType::Int32,
            Type::Int64 => DataType::Int64,
            Type::Float32 => DataType::Float32,
            Type::Float64 => DataType::Float64,
            Type::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Type::Numeric | Type::Text => DataType::Utf8,
            Type::Binary => DataType::Binary,
            Type::Date => DataType::Date32,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Type::LocalTimestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::List(item) => DataType::List(Arc::new(list_field(item))),
        }
    }
}

/// The field of a list's elements, named as Delta and Parquet name it.
fn list_field(item: &Type) -> Field {
    Field::new("element", item.arrow(), true)
}
