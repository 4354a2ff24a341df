//! One value and one operation, as a decoder hands them over.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What a change does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A row as a snapshot chunk read it.
    Read,
    /// A new row.
    Insert,
    /// A row with other values, its key possibly among them.
    Update,
    /// A row that is gone.
    Delete,
}

/// One value, borrowed from the message it came in.
///
/// A decoder produces the variant that belongs to the column's [`Type`](crate::Type); any other is
/// a bug of the decoder, which [`Builder`](crate::batch::Builder) reports instead of converting.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// The source did not send the value because it did not change (Postgres: unchanged TOAST).
    Unchanged,
    /// The source sent what changed in a JSON text, in a column of [`Type::Text`](crate::Type::Text):
    /// a patch ([`patch`](crate::patch)) of the value before.
    Patch(Cow<'a, str>),
    /// For [`Type::Bool`](crate::Type::Bool).
    Bool(bool),
    /// For the three integer types.
    Int(i64),
    /// For [`Type::Float32`](crate::Type::Float32).
    Float32(f32),
    /// For [`Type::Float64`](crate::Type::Float64).
    Float64(f64),
    /// The unscaled number, for [`Type::Decimal`](crate::Type::Decimal).
    Decimal(i128),
    /// For [`Type::Text`](crate::Type::Text) and [`Type::Numeric`](crate::Type::Numeric).
    Text(&'a str),
    /// For [`Type::Binary`](crate::Type::Binary).
    Binary(Cow<'a, [u8]>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 00:00, UTC or of no zone as the column's type says.
    Timestamp(i64),
    /// For [`Type::List`](crate::Type::List).
    List(Vec<Value<'a>>),
    /// Text that had to be built (an unescaped COPY field).
    OwnedText(String),
}

impl Value<'_> {
    /// The bytes the value takes in a batch, for the memory budget.
    pub fn size(&self) -> usize {
        match self {
            Value::Null | Value::Unchanged | Value::Bool(_) => 1,
            Value::Int(_) | Value::Float64(_) | Value::Timestamp(_) => 8,
            Value::Float32(_) | Value::Date(_) => 4,
            Value::Decimal(_) => 16,
            Value::Text(text) => text.len() + 4,
            Value::OwnedText(text) => text.len() + 4,
            Value::Patch(text) => text.len() + 4,
            Value::Binary(bytes) => bytes.len() + 4,
            Value::List(items) => 4 + items.iter().map(Value::size).sum::<usize>(),
        }
    }
}
