//! The identity of a row as bytes: two rows of a table are the same row exactly when these bytes
//! are equal, whether they come from a decoded value or from a column of the lake.
//!
//! The bytes say *equal*, never *before*: ordering keys is left to the database (S10).

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};

use crate::change::Value;
use crate::error::{Error, Result};
use crate::schema::{Column, Identity, TableSchema, Type};

/// Keys one after the other in one allocation.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of key number `index`; empty when there is no such key.
    pub fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends.get(index - 1).copied().unwrap_or(0) };
        let end = self.ends.get(index).copied().unwrap_or(start);
        &self.bytes[start..end]
    }

    /// The bytes of all keys together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The memory the keys take, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Appends the key of `row` and returns its number.
    ///
    /// # Errors
    /// When a key column is null, unchanged or of another type than the schema says.
    pub fn push(&mut self, schema: &TableSchema, row: &[Value<'_>]) -> Result<u32> {
        let start = self.bytes.len();
        let result = encode_row(schema, row, &mut self.bytes);
        if let Err(error) = result {
            self.bytes.truncate(start);
            return Err(error);
        }
        self.ends.push(self.bytes.len());
        Ok((self.ends.len() - 1) as u32)
    }

    /// Appends what `value` of `column` adds to a key that is not [closed](Self::close) yet; `None`
    /// when it can't be part of one.
    #[inline]
    pub(crate) fn encode(
        &mut self,
        schema: &TableSchema,
        column: usize,
        value: &Value<'_>,
    ) -> Option<()> {
        encode_key(schema, column, value, &mut self.bytes)
    }

    /// Makes room for so many keys, of so many bytes together.
    pub fn reserve(&mut self, keys: usize, bytes: usize) {
        self.bytes.reserve_exact(bytes);
        self.ends.reserve_exact(keys);
    }

    /// Appends bytes to a key that is not closed yet.
    pub(crate) fn extend(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Completes the key and returns its number.
    pub(crate) fn close(&mut self) -> u32 {
        self.ends.push(self.bytes.len());
        (self.ends.len() - 1) as u32
    }

    /// Drops what was appended since the last key was closed.
    pub(crate) fn abandon(&mut self) {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Appends a key that is already bytes and returns its number.
    pub fn push_bytes(&mut self, key: &[u8]) -> u32 {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        (self.ends.len() - 1) as u32
    }
}

fn encode_row(schema: &TableSchema, row: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
    let fault = |column: usize, what: &str| {
        let name = schema.columns.get(column).map_or("?", |c| c.name.as_str());
        Error::internal(format!("key column {name} is {what}")).with("table", &schema.id)
    };
    match &schema.identity {
        Identity::Key(columns) => {
            for &column in columns {
                let value = row.get(column).ok_or_else(|| fault(column, "missing"))?;
                if matches!(value, Value::Null | Value::Unchanged) {
                    return Err(fault(column, "null or unchanged"));
                }
                encode_part(&schema.columns[column], value, out)
                    .ok_or_else(|| fault(column, "of another type than its column"))?;
            }
        }
        Identity::FullRow => {
            for (column, field) in schema.columns.iter().enumerate() {
                let value = row.get(column).ok_or_else(|| fault(column, "missing"))?;
                if matches!(value, Value::Unchanged) {
                    return Err(fault(column, "unchanged without an old row"));
                }
                encode_nullable(&field.kind, value, out)
                    .ok_or_else(|| fault(column, "of another type than its column"))?;
            }
        }
        Identity::None => {}
    }
    Ok(())
}

/// Appends what `value` of `column` adds to the key of its row; `None` when it can't be part of one.
#[inline]
pub(crate) fn encode_key(
    schema: &TableSchema,
    column: usize,
    value: &Value<'_>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let field = schema.columns.get(column)?;
    let kind = &field.kind;
    match (kind, value) {
        (Type::Int64 | Type::Int32, Value::Int(value)) if !schema.key().is_empty() => {
            put_int(*value, out);
            Some(())
        }
        (_, Value::Unchanged) => None,
        (_, Value::Null) if !schema.key().is_empty() => None,
        _ if schema.identity == Identity::FullRow => encode_nullable(kind, value, out),
        _ => encode_part(field, value, out),
    }
}

/// Appends the bytes of a key's value; `None` when it doesn't belong to `column`, or the column
/// can't compare it.
fn encode_part(column: &Column, value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    if column.compare.is_exact() {
        return encode(&column.kind, value, out);
    }
    let text = match value {
        Value::Text(text) => text,
        Value::OwnedText(text) => text.as_str(),
        _ => return None,
    };
    if !column.compare.covers(text) {
        return None;
    }
    let text = match column.compare.ignores_trailing_blanks {
        true => text.trim_end_matches(' '),
        false => text,
    };
    let start = out.len() + size_of::<u32>();
    put_bytes(text.as_bytes(), out);
    if column.compare.ignores_case {
        out.get_mut(start..)?.make_ascii_lowercase();
    }
    Some(())
}

fn encode_nullable(kind: &Type, value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    if matches!(value, Value::Null) {
        out.push(0);
        return Some(());
    }
    out.push(1);
    encode(kind, value, out)
}

/// Appends the bytes of a value that is not null; `None` when it doesn't belong to `kind`.
fn encode(kind: &Type, value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    match (kind, value) {
        (Type::Bool, Value::Bool(value)) => out.push(u8::from(*value)),
        (Type::Int16 | Type::Int32 | Type::Int64, Value::Int(value)) => put_int(*value, out),
        (Type::Float32, Value::Float32(value)) => put_float(f64::from(*value), out),
        (Type::Float64, Value::Float64(value)) => put_float(*value, out),
        (Type::Decimal { scale, .. }, Value::Decimal(value)) => put_decimal(*value, *scale, out),
        (Type::Numeric, Value::Text(text)) => put_numeric(text, out),
        (Type::Numeric, Value::OwnedText(text)) => put_numeric(text, out),
        (Type::Text, Value::Text(text)) => put_bytes(text.as_bytes(), out),
        (Type::Text, Value::OwnedText(text)) => put_bytes(text.as_bytes(), out),
        (Type::Binary, Value::Binary(bytes)) => put_bytes(bytes, out),
        (Type::Date, Value::Date(days)) => put_int(i64::from(*days), out),
        (Type::Timestamp | Type::LocalTimestamp, Value::Timestamp(micros)) => put_int(*micros, out),
        (Type::List(item), Value::List(items)) => {
            out.extend((items.len() as u32).to_be_bytes());
            for value in items {
                encode_nullable(item, value, out)?;
            }
        }
        _ => return None,
    }
    Some(())
}

fn put_int(value: i64, out: &mut Vec<u8>) {
    out.extend(value.to_be_bytes());
}

/// −0 is 0 and every NaN is one NaN, as Postgres compares them.
fn put_float(value: f64, out: &mut Vec<u8>) {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    out.extend(value.to_bits().to_be_bytes());
}

/// 1.50 of scale 2 and 1.5 of scale 1 are one key, so a column may change its scale.
fn put_decimal(mut value: i128, mut scale: i8, out: &mut Vec<u8>) {
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    out.extend(value.to_be_bytes());
    out.push(scale as u8);
}

fn put_numeric(text: &str, out: &mut Vec<u8>) {
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    put_bytes(if text == "-0" { b"0" } else { text.as_bytes() }, out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// Reads keys from columns of the lake. Build one a record batch, then [`encode`](Self::encode)
/// row by row.
pub struct KeyReader<'a> {
    schema: &'a TableSchema,
    full: bool,
    columns: Vec<(usize, &'a ArrayRef)>,
}

impl<'a> KeyReader<'a> {
    /// A reader of `columns`: the key's columns in the order of [`key_columns`].
    pub fn new(schema: &'a TableSchema, columns: Vec<&'a ArrayRef>) -> Self {
        let full = schema.identity == Identity::FullRow;
        Self { schema, full, columns: key_columns(schema).into_iter().zip(columns).collect() }
    }

    /// Appends the key of `row` to `keys` and returns its number.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn push(&self, row: usize, keys: &mut Keys) -> Result<u32> {
        match self.encode(row, &mut keys.bytes) {
            Ok(()) => Ok(keys.close()),
            Err(error) => {
                keys.abandon();
                Err(error)
            }
        }
    }

    /// Appends the key bytes of `row` to `out`.
    ///
    /// # Errors
    /// When a key column of the lake holds a null or another type than the schema says: somebody
    /// else wrote to the table.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        for (column, array) in &self.columns {
            let field = &self.schema.columns[*column];
            let value = value_at(&field.kind, array.as_ref(), row);
            let done = match value {
                Some(value) if self.full => encode_nullable(&field.kind, &value, out),
                Some(Value::Null) | None => None,
                Some(value) => encode_part(field, &value, out),
            };
            done.ok_or_else(|| {
                Error::internal("the lake holds a key that is null or of another type")
                    .with("table", &self.schema.id)
                    .with("column", &field.name)
            })?;
        }
        Ok(())
    }
}

/// The columns (indices) that a key is made of: the key's, all for [`Identity::FullRow`], none for
/// [`Identity::None`].
pub fn key_columns(schema: &TableSchema) -> Vec<usize> {
    match &schema.identity {
        Identity::Key(columns) => columns.clone(),
        Identity::FullRow => (0..schema.columns.len()).collect(),
        Identity::None => Vec::new(),
    }
}

/// The value at `row` of a lake column of type `kind`; `None` when the array is of another type.
pub fn value_at<'a>(kind: &Type, array: &'a dyn Array, row: usize) -> Option<Value<'a>> {
    if array.is_null(row) {
        return Some(Value::Null);
    }
    Some(match kind {
        Type::Bool => Value::Bool(array.as_boolean_opt()?.value(row)),
        Type::Int16 => Value::Int(array.as_primitive_opt::<Int16Type>()?.value(row).into()),
        Type::Int32 => Value::Int(array.as_primitive_opt::<Int32Type>()?.value(row).into()),
        Type::Int64 => Value::Int(array.as_primitive_opt::<Int64Type>()?.value(row)),
        Type::Float32 => Value::Float32(array.as_primitive_opt::<Float32Type>()?.value(row)),
        Type::Float64 => Value::Float64(array.as_primitive_opt::<Float64Type>()?.value(row)),
        Type::Decimal { .. } => {
            Value::Decimal(array.as_primitive_opt::<Decimal128Type>()?.value(row))
        }
        Type::Numeric | Type::Text => Value::Text(array.as_string_opt::<i32>()?.value(row)),
        Type::Binary => Value::Binary(array.as_binary_opt::<i32>()?.value(row).into()),
        Type::Date => Value::Date(array.as_primitive_opt::<Date32Type>()?.value(row)),
        Type::Timestamp | Type::LocalTimestamp => {
            Value::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?.value(row))
        }
        Type::List(item) => {
            let list = array.as_list_opt::<i32>()?;
            let (start, end) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
            let values: Option<Vec<_>> = (start as usize..end as usize)
                .map(|at| value_at(item, list.values().as_ref(), at))
                .collect();
            Value::List(values?)
        }
    })
}

/// The parts of a key as text that the source's own input functions read back to an equal value:
/// how a key that waits to be read is kept in the epoch file and sent to the source (S5).
///
/// `None` when the bytes are not a key of `schema` (or the identity is the full row).
pub fn key_texts(schema: &TableSchema, mut key: &[u8]) -> Option<Vec<String>> {
    let Identity::Key(columns) = &schema.identity else { return None };
    let mut texts = Vec::with_capacity(columns.len());
    for &column in columns {
        let (text, rest) = part_text(&schema.columns.get(column)?.kind, key)?;
        texts.push(text);
        key = rest;
    }
    key.is_empty().then_some(texts)
}

/// A value as text that is the same for equal values, of whatever width its column is; `None` for a
/// list, and for a value of another type than `kind`.
pub fn value_text(kind: &Type, value: &Value<'_>) -> Option<String> {
    let mut bytes = Vec::new();
    encode(kind, value, &mut bytes)?;
    let (text, _) = part_text(kind, &bytes)?;
    Some(text)
}

fn part_text<'a>(kind: &Type, key: &'a [u8]) -> Option<(String, &'a [u8])> {
    let fixed = |length: usize| (key.len() >= length).then(|| key.split_at(length));
    let int =
        || fixed(8).and_then(|(b, rest)| Some((i64::from_be_bytes(b.try_into().ok()?), rest)));
    let counted = || {
        let (length, rest) = fixed(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        (rest.len() >= length).then(|| rest.split_at(length))
    };
    Some(match kind {
        Type::Bool => (key.first().map(|b| (*b == 1).to_string())?, &key[1..]),
        Type::Int16 | Type::Int32 | Type::Int64 => int().map(|(v, rest)| (v.to_string(), rest))?,
        Type::Float32 | Type::Float64 => {
            let (bits, rest) = int()?;
            let value = f64::from_bits(bits as u64);
            let text = match value.is_infinite() {
                true if value > 0.0 => "Infinity".to_owned(),
                true => "-Infinity".to_owned(),
                false if *kind == Type::Float32 => (value as f32).to_string(),
                false => value.to_string(),
            };
            (text, rest)
        }
        Type::Decimal { .. } => {
            let (bytes, rest) = fixed(17)?;
            let value = i128::from_be_bytes(bytes[..16].try_into().ok()?);
            (decimal_text(value, bytes[16]), rest)
        }
        Type::Numeric | Type::Text => {
            counted().and_then(|(b, rest)| Some((String::from_utf8(b.to_vec()).ok()?, rest)))?
        }
        Type::Binary => {
            let (bytes, rest) = counted()?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("\\x{hex}"), rest)
        }
        Type::Date => int().map(|(days, rest)| (date_text(days, ""), rest))?,
        Type::Timestamp | Type::LocalTimestamp => {
            let (micros, rest) = int()?;
            let zone = if *kind == Type::Timestamp { "+00" } else { "" };
            (timestamp_text(micros.into(), zone), rest)
        }
        Type::List(_) => return None,
    })
}

fn decimal_text(value: i128, scale: u8) -> String {
    let scale = scale as usize;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// `2024-02-29 10:30:45.123456` and `zone`, of microseconds of Unix time.
pub(crate) fn timestamp_text(micros: i128, zone: &str) -> String {
    const DAY: i128 = 86_400_000_000;
    let (days, in_day) = (micros.div_euclid(DAY) as i64, micros.rem_euclid(DAY));
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    date_text(days, &format!(" {hours:02}:{minutes:02}:{seconds:02}.{fraction:06}{zone}"))
}

/// `2024-02-29`, `0044-03-15 BC`, with `time` before the era.
pub(crate) fn date_text(days: i64, time: &str) -> String {
    let (year, month, day) = civil(days);
    match year > 0 {
        true => format!("{year:04}-{month:02}-{day:02}{time}"),
        false => format!("{:04}-{month:02}-{day:02}{time} BC", 1 - year),
    }
}

/// Year (astronomical: 0 is 1 BC), month and day of a day counted from 1970-01-01, in the
/// proleptic Gregorian calendar; after H. Hinnant, "chrono-compatible low-level date algorithms".
pub fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// The day, counted from 1970-01-01, of a date of the proleptic Gregorian calendar (`year`
/// astronomical); the inverse of [`civil`].
pub fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}
