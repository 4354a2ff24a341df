//! Changes of one table as Arrow columns: what a decoder fills and the lake consumes.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, ListArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::key::Keys;
use crate::schema::{Column, Identity, TableSchema, Type};

/// One change of a [`Batch`]: which row it is about, and what the row is afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// The row's key after the change ([`Batch::keys`]); of a delete, the deleted row's.
    pub key: u32,
    /// The row's key before an update that changed it.
    pub old_key: Option<u32>,
    /// The row's values in [`Batch::columns`]; a delete has none.
    pub row: Option<u32>,
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
    /// The rows they name; null where [`Batch::unchanged`] lists the row.
    pub columns: RecordBatch,
    /// For each column, the rows (ascending) whose value the source did not send.
    pub unchanged: Vec<Vec<u32>>,
    /// The serial numbers of the transactions, each with the index of its first change.
    pub transactions: Vec<(usize, u64)>,
    /// What the batch takes of the memory budget, in bytes.
    pub size: usize,
}

impl Batch {
    /// Whether the source left out the value of `column` in `row`.
    pub fn is_unchanged(&self, column: usize, row: u32) -> bool {
        self.unchanged.get(column).is_some_and(|rows| rows.binary_search(&row).is_ok())
    }

    /// Whether any value of `row` was left out.
    pub fn is_partial(&self, row: u32) -> bool {
        (0..self.unchanged.len()).any(|column| self.is_unchanged(column, row))
    }

    /// Drops the changes for whose transaction `keep` says no; it is asked with the transaction's
    /// serial number, or `None` for a row that no transaction changed (a chunk's).
    pub fn retain(&mut self, keep: impl Fn(Option<u64>) -> bool) {
        let mut kept = Vec::with_capacity(self.changes.len());
        let mut transactions = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let serial = transaction_at(&self.transactions, index);
            if keep(serial) {
                if let Some(serial) = serial {
                    start_transaction(&mut transactions, kept.len(), serial);
                }
                kept.push(*change);
            }
        }
        self.changes = kept;
        self.transactions = transactions;
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
    transactions: Vec<(usize, u64)>,
    rows: u32,
    size: usize,
}

impl Builder {
    /// An empty batch of `schema`.
    pub fn new(schema: Arc<TableSchema>) -> Self {
        let columns: Vec<_> =
            schema.columns.iter().map(|column| ColumnBuilder::new(&column.kind)).collect();
        Self {
            unchanged: vec![Vec::new(); columns.len()],
            columns,
            changes: Vec::new(),
            keys: Keys::default(),
            transactions: Vec::new(),
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
            (Op::Delete, Some(old), _) => {
                let key = self.keys.push(&self.schema, old)?;
                self.note(Op::Delete, key, None, None);
            }
            (Op::Update, Some(old), Some(row)) if full => {
                let key = self.keys.push(&self.schema, old)?;
                self.note(Op::Delete, key, None, None);
                let filled: Vec<_> = row
                    .iter()
                    .zip(old)
                    .map(|(new, old)| if *new == Value::Unchanged { old } else { new }.clone())
                    .collect();
                self.append(Op::Insert, None, &filled)?;
            }
            (_, old, Some(row)) => self.append(op, old, row)?,
            (_, _, None) => return Err(self.fault("a change has no row")),
        }
        Ok(())
    }

    fn append(&mut self, op: Op, old: Option<&[Value<'_>]>, row: &[Value<'_>]) -> Result<()> {
        if row.len() != self.columns.len() {
            return Err(self.fault("a row has another number of values than its table columns"));
        }
        let fits = self.columns.iter().zip(row).all(|(column, value)| column.fits(value));
        if !fits {
            return Err(self.fault("a value is of another type than its column"));
        }
        let old_key = old.map(|old| self.keys.push(&self.schema, old)).transpose()?;
        let key = self.keys.push(&self.schema, row)?;
        let moved = old_key.filter(|&old| self.keys.get(old) != self.keys.get(key));
        for (index, value) in row.iter().enumerate() {
            self.size += value.size();
            if *value == Value::Unchanged {
                self.unchanged[index].push(self.rows);
            }
            self.columns[index].append(value);
        }
        let number = self.rows;
        self.rows += 1;
        self.note(op, key, moved, Some(number));
        Ok(())
    }

    fn note(&mut self, op: Op, key: u32, old_key: Option<u32>, row: Option<u32>) {
        self.size += size_of::<Change>() + self.keys.get(key).len() + size_of::<usize>();
        self.changes.push(Change { op, key, old_key, row });
    }

    fn fault(&self, what: &str) -> Error {
        Error::internal(what).with("table", &self.schema.id)
    }

    /// The finished batch.
    pub fn finish(self) -> Batch {
        let Self { schema, changes, keys, columns, unchanged, transactions, rows, size } = self;
        let arrays: Vec<ArrayRef> = columns.into_iter().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let arrow = Arc::new(arrow_schema(&schema));
        let columns = RecordBatch::try_new_with_options(arrow, arrays, &options)
            .unwrap_or_else(|error| unreachable!("builders follow their schema: {error}"));
        Batch { schema, changes, keys, columns, unchanged, transactions, size }
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

#[derive(Debug)]
enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    List(Box<ListColumn>),
}

#[derive(Debug)]
struct ListColumn {
    item: Type,
    items: ColumnBuilder,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    count: i32,
}

impl ColumnBuilder {
    fn new(kind: &Type) -> Self {
        match kind {
            Type::Bool => Self::Bool(BooleanBuilder::new()),
            Type::Int16 => Self::Int16(Int16Builder::new()),
            Type::Int32 => Self::Int32(Int32Builder::new()),
            Type::Int64 => Self::Int64(Int64Builder::new()),
            Type::Float32 => Self::Float32(Float32Builder::new()),
            Type::Float64 => Self::Float64(Float64Builder::new()),
            Type::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(kind.arrow()))
            }
            Type::Numeric | Type::Text => Self::Text(StringBuilder::new()),
            Type::Binary => Self::Binary(BinaryBuilder::new()),
            Type::Date => Self::Date(Date32Builder::new()),
            Type::Timestamp | Type::LocalTimestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.arrow()))
            }
            Type::List(item) => Self::List(Box::new(ListColumn {
                items: Self::new(item),
                item: (**item).clone(),
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
                count: 0,
            })),
        }
    }

    /// Whether `value` belongs to this column; checked for a whole row before any is appended.
    fn fits(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (_, Value::Null | Value::Unchanged)
            | (Self::Bool(_), Value::Bool(_))
            | (Self::Int64(_), Value::Int(_))
            | (Self::Float32(_), Value::Float32(_))
            | (Self::Float64(_), Value::Float64(_))
            | (Self::Decimal(_), Value::Decimal(_))
            | (Self::Text(_), Value::Text(_) | Value::OwnedText(_))
            | (Self::Binary(_), Value::Binary(_))
            | (Self::Date(_), Value::Date(_))
            | (Self::Timestamp(_), Value::Timestamp(_)) => true,
            (Self::Int16(_), Value::Int(value)) => i16::try_from(*value).is_ok(),
            (Self::Int32(_), Value::Int(value)) => i32::try_from(*value).is_ok(),
            (Self::List(list), Value::List(items)) => {
                items.iter().all(|item| *item != Value::Unchanged && list.items.fits(item))
            }
            _ => false,
        }
    }

    /// Appends a value that [`fits`](Self::fits).
    fn append(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Self::Bool(column), Value::Bool(value)) => column.append_value(*value),
            (Self::Int16(column), Value::Int(value)) => column.append_value(*value as i16),
            (Self::Int32(column), Value::Int(value)) => column.append_value(*value as i32),
            (Self::Int64(column), Value::Int(value)) => column.append_value(*value),
            (Self::Float32(column), Value::Float32(value)) => column.append_value(*value),
            (Self::Float64(column), Value::Float64(value)) => column.append_value(*value),
            (Self::Decimal(column), Value::Decimal(value)) => column.append_value(*value),
            (Self::Text(column), Value::Text(text)) => column.append_value(text),
            (Self::Text(column), Value::OwnedText(text)) => column.append_value(text),
            (Self::Binary(column), Value::Binary(bytes)) => column.append_value(bytes),
            (Self::Date(column), Value::Date(days)) => column.append_value(*days),
            (Self::Timestamp(column), Value::Timestamp(micros)) => column.append_value(*micros),
            (Self::List(column), Value::List(items)) => {
                items.iter().for_each(|item| column.items.append(item));
                column.close(items.len() as i32, true);
            }
            (column, _) => column.append_null(),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(column) => column.append_null(),
            Self::Int16(column) => column.append_null(),
            Self::Int32(column) => column.append_null(),
            Self::Int64(column) => column.append_null(),
            Self::Float32(column) => column.append_null(),
            Self::Float64(column) => column.append_null(),
            Self::Decimal(column) => column.append_null(),
            Self::Text(column) => column.append_null(),
            Self::Binary(column) => column.append_null(),
            Self::Date(column) => column.append_null(),
            Self::Timestamp(column) => column.append_null(),
            Self::List(column) => column.close(0, false),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Bool(mut column) => Arc::new(column.finish()),
            Self::Int16(mut column) => Arc::new(column.finish()),
            Self::Int32(mut column) => Arc::new(column.finish()),
            Self::Int64(mut column) => Arc::new(column.finish()),
            Self::Float32(mut column) => Arc::new(column.finish()),
            Self::Float64(mut column) => Arc::new(column.finish()),
            Self::Decimal(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Binary(mut column) => Arc::new(column.finish()),
            Self::Date(mut column) => Arc::new(column.finish()),
            Self::Timestamp(mut column) => Arc::new(column.finish()),
            Self::List(mut column) => Arc::new(ListArray::new(
                Arc::new(list_field(&column.item)),
                OffsetBuffer::new(column.ends.into()),
                column.items.finish(),
                column.nulls.finish(),
            )),
        }
    }
}

impl ListColumn {
    fn close(&mut self, items: i32, valid: bool) {
        self.count += items;
        self.ends.push(self.count);
        self.nulls.append(valid);
    }
}
