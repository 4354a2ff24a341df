//! One column of a batch being filled.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, ListArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};

use super::list_field;
use crate::change::Value;
use crate::schema::Type;

/// Somewhat more than the last batch took: batches of one table are about as large as one another, and
/// one that needs a little more should not have to move to a place of twice the size.
pub(super) const fn about(last: usize) -> usize {
    last + last / 32
}

/// How much a column may take up before it has to grow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    rows: usize,
    bytes: usize,
}

/// Values of one column being gathered.
#[derive(Debug)]
pub(super) enum ColumnBuilder {
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
pub(super) struct ListColumn {
    item: Type,
    items: ColumnBuilder,
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    count: i32,
}

impl ColumnBuilder {
    /// A column of `kind` with room for so many values, of so many bytes where they are texts.
    pub(super) fn new(kind: &Type, room: Room) -> Self {
        let Room { rows, bytes } = room;
        match kind {
            Type::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Type::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            Type::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            Type::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            Type::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            Type::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            Type::Decimal { .. } => {
                let column = Decimal128Builder::with_capacity(rows);
                Self::Decimal(column.with_data_type(kind.arrow()))
            }
            Type::Numeric | Type::Text => Self::Text(StringBuilder::with_capacity(rows, bytes)),
            Type::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, bytes)),
            Type::Date => Self::Date(Date32Builder::with_capacity(rows)),
            Type::Timestamp | Type::LocalTimestamp => {
                let column = TimestampMicrosecondBuilder::with_capacity(rows);
                Self::Timestamp(column.with_data_type(kind.arrow()))
            }
            Type::List(item) => Self::List(Box::new(ListColumn {
                items: Self::new(item, Room::default()),
                item: (**item).clone(),
                ends: vec![0],
                nulls: NullBufferBuilder::new(0),
                count: 0,
            })),
        }
    }

    /// Room for about as many values as this column has.
    pub(super) fn room(&self, rows: usize) -> Room {
        let bytes = match self {
            Self::Text(column) => column.values_slice().len(),
            Self::Binary(column) => column.values_slice().len(),
            _ => 0,
        };
        Room { rows: about(rows), bytes: about(bytes) }
    }

    /// Appends a value and returns the bytes it takes; `None`, after a null in its place, when it
    /// doesn't belong to this column.
    #[inline]
    pub(super) fn append(&mut self, value: &Value<'_>) -> Option<usize> {
        match (&mut *self, value) {
            (Self::Int64(column), Value::Int(value)) => column.append_value(*value),
            (Self::Text(column), Value::Text(text)) => column.append_value(text),
            (Self::Timestamp(column), Value::Timestamp(micros)) => column.append_value(*micros),
            (Self::Decimal(column), Value::Decimal(value)) => column.append_value(*value),
            (Self::Bool(column), Value::Bool(value)) => column.append_value(*value),
            (Self::Float32(column), Value::Float32(value)) => column.append_value(*value),
            (Self::Float64(column), Value::Float64(value)) => column.append_value(*value),
            (Self::Text(column), Value::OwnedText(text)) => column.append_value(text),
            (Self::Text(column), Value::Patch(text)) => column.append_value(text),
            (Self::Binary(column), Value::Binary(bytes)) => column.append_value(bytes),
            (Self::Date(column), Value::Date(days)) => column.append_value(*days),
            (Self::Int32(column), Value::Int(value)) => match i32::try_from(*value) {
                Ok(value) => column.append_value(value),
                Err(_) => return self.misfit(),
            },
            (Self::Int16(column), Value::Int(value)) => match i16::try_from(*value) {
                Ok(value) => column.append_value(value),
                Err(_) => return self.misfit(),
            },
            (Self::List(column), Value::List(items)) => {
                let fit = items.iter().map(|item| match item {
                    Value::Unchanged | Value::Patch(_) => column.items.misfit(),
                    item => column.items.append(item),
                });
                // Every item is appended, whether or not another one fits.
                let fit = fit.fold(true, |all, one| all & one.is_some());
                column.close(items.len() as i32, fit);
                if !fit {
                    return None;
                }
            }
            (column, Value::Null | Value::Unchanged) => column.append_null(),
            (column, _) => return column.misfit(),
        }
        Some(value.size())
    }

    fn misfit(&mut self) -> Option<usize> {
        self.append_null();
        None
    }

    pub(super) fn append_null(&mut self) {
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

    pub(super) fn finish(self) -> ArrayRef {
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
