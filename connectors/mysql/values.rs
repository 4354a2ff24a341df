//! One value of a column → [`Value`], from the text of a statement's row; and what the text, the
//! log ([`image`](super::image)) and JSON ([`json`](super::json)) have in common.
//!
//! A value that the column's type can't hold is a [`Misfit`], never another value (P5).

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::charset::{Charset, Charsets, of_collation};
use super::types::{Kind, collation};
use crate::change::Value;
use crate::error::{Error, Reason, Result};
use crate::key::{civil, days};
use crate::schema::{Column, TableSchema, Type};

/// Why a value doesn't fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It isn't in the form that the server writes for the type.
    Form,
    /// A part of the date is zero.
    Zero,
    /// There is no such day.
    Impossible,
    /// Its bytes stand for no text in the column's character set.
    Encoding,
    /// Its label is not known, or not exactly.
    Label,
    /// Its JSON holds a value that JSON has not, in a form that is not followed here.
    Opaque,
}

impl Misfit {
    /// Whether keeping the column as text keeps the value.
    fn fits_text(self) -> bool {
        matches!(self, Misfit::Zero | Misfit::Impossible)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misfit::Form => "it isn't in the form of its type",
            Misfit::Zero => "a part of the date is zero",
            Misfit::Impossible => "there is no such day",
            Misfit::Encoding => "it is no text in its character set",
            Misfit::Label => "its label is not known",
            Misfit::Opaque => "its JSON holds a value of a type that JSON has not",
        })
    }
}

/// What decoding the values of one column takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The type in the source.
    pub kind: Kind,
    /// The type in the lake.
    pub lake: Type,
    /// The character set of its texts.
    pub charset: Arc<Charset>,
}

impl Field {
    /// What decoding `column` takes. `charsets` has the character sets that are not UTF-8.
    ///
    /// # Errors
    /// When the column was not made by this connector.
    pub fn of(column: &Column, charsets: &Charsets) -> Result<Self> {
        let strange = || {
            Error::internal("a stored schema was not written by this connector")
                .with("column", &column.name)
        };
        let kind = Kind::parse(&column.source_type).ok_or_else(strange)?;
        let charset = match collation(&column.source_type).filter(|_| kind.has_charset()) {
            Some(collation) => {
                let known = charsets.get(of_collation(collation));
                known.cloned().ok_or_else(|| strange().with("collation", collation))?
            }
            None => Arc::new(Charset::Utf8),
        };
        Ok(Self { kind, lake: column.kind.clone(), charset })
    }

    /// All columns of a table.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn all(schema: &TableSchema, charsets: &Charsets) -> Result<Vec<Self>> {
        let fields = schema.columns.iter().map(|column| Self::of(column, charsets));
        fields.collect::<Result<_>>().map_err(|error| error.with("table", &schema.id))
    }

    fn as_text(&self) -> bool {
        self.lake == Type::Text
    }
}

/// The value that `text`, as [`snapshot`](super::snapshot) selects it, stands for in `field`.
pub fn from_text<'a>(field: &Field, text: &'a [u8]) -> Result<Value<'a>, Misfit> {
    Ok(match &field.kind {
        Kind::Int { unsigned: true, bytes: 8 } => {
            unsigned(field, ascii(text)?.parse().map_err(|_| Misfit::Form)?)
        }
        Kind::Int { .. } | Kind::Year => {
            let value: i64 = ascii(text)?.parse().map_err(|_| Misfit::Form)?;
            match (field.as_text(), &field.kind) {
                (true, Kind::Year) => Value::OwnedText(format!("{value:04}")),
                (true, _) => Value::OwnedText(value.to_string()),
                (false, _) => Value::Int(value),
            }
        }
        Kind::Decimal { scale, .. } => match field.lake {
            Type::Decimal { .. } => Value::Decimal(unscaled(text, *scale).ok_or(Misfit::Form)?),
            _ => Value::Text(ascii(text)?),
        },
        Kind::Float => {
            let value: f64 = ascii(text)?.parse().map_err(|_| Misfit::Form)?;
            let single = value as f32;
            match f64::from(single) == value {
                true => Value::Float32(single),
                false => return Err(Misfit::Form),
            }
        }
        Kind::Double => Value::Float64(ascii(text)?.parse().map_err(|_| Misfit::Form)?),
        Kind::Bit(1) => Value::Bool(text.iter().any(|byte| *byte != 0)),
        Kind::Bit(_) | Kind::Binary | Kind::FixedBinary(_) => Value::Binary(Cow::Borrowed(text)),
        Kind::Date | Kind::DateTime(_) | Kind::Timestamp(_) if field.as_text() => {
            Value::Text(ascii(text)?)
        }
        Kind::Date => {
            let (date, rest) = date_of(text).ok_or(Misfit::Form)?;
            if !rest.is_empty() {
                return Err(Misfit::Form);
            }
            Value::Date(date.day()? as i32)
        }
        Kind::DateTime(_) | Kind::Timestamp(_) => {
            let (date, rest) = date_of(text).ok_or(Misfit::Form)?;
            let time = time_of(rest).ok_or(Misfit::Form)?;
            moment(date, time)?
        }
        Kind::Time(_) => Value::Text(ascii(text)?),
        Kind::Text | Kind::Enum(_) | Kind::Set(_) => decoded(field, text)?,
        Kind::Json => Value::Text(std::str::from_utf8(text).map_err(|_| Misfit::Encoding)?),
        Kind::Uuid => uuid(text)?,
        Kind::Inet4 => inet4(text)?,
        Kind::Inet6 => inet6(text)?,
    })
}

fn ascii(text: &[u8]) -> Result<&str, Misfit> {
    match text.is_ascii() {
        true => std::str::from_utf8(text).map_err(|_| Misfit::Form),
        false => Err(Misfit::Form),
    }
}

/// A text in the column's character set.
pub fn decoded<'a>(field: &Field, text: &'a [u8]) -> Result<Value<'a>, Misfit> {
    match field.charset.decode(text) {
        Some(Cow::Borrowed(text)) => Ok(Value::Text(text)),
        Some(Cow::Owned(text)) => Ok(Value::OwnedText(text)),
        None => Err(Misfit::Encoding),
    }
}

/// A `bigint unsigned`.
pub fn unsigned<'a>(field: &Field, value: u64) -> Value<'a> {
    match field.as_text() {
        true => Value::OwnedText(value.to_string()),
        false => Value::Decimal(value.into()),
    }
}

/// `-12.50` of scale 2 → −1250.
fn unscaled(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, body) = match text {
        [b'-', body @ ..] => (true, body),
        _ => (false, text),
    };
    let (mut value, mut fraction, mut point) = (0_i128, 0, false);
    for byte in body {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add((byte - b'0').into())?;
                fraction += u8::from(point);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    (!body.is_empty() && fraction == scale).then_some(if negative { -value } else { value })
}

/// A date as it is stored: any part may be zero, and it needn't exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// 0 to 9999.
    pub year: u32,
    /// 0 to 12.
    pub month: u32,
    /// 0 to 31.
    pub day: u32,
}

impl Date {
    /// The day counted from 1970-01-01, where there is such a day.
    pub fn day(self) -> Result<i64, Misfit> {
        let Self { year, month, day } = self;
        if month == 0 || day == 0 {
            return Err(Misfit::Zero);
        }
        if year > 9999 {
            return Err(Misfit::Impossible);
        }
        let number = days(year.into(), month, day);
        match civil(number) == (i64::from(year), month, day) {
            true => Ok(number),
            false => Err(Misfit::Impossible),
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Hours (up to 838 in a `time`), minutes, seconds, and microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Hours.
    pub hour: u32,
    /// Minutes.
    pub minute: u32,
    /// Seconds.
    pub second: u32,
    /// Microseconds.
    pub micros: u32,
}

impl Time {
    /// Microseconds since midnight.
    pub fn in_day(self) -> i64 {
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute * 60 + self.second);
        seconds * 1_000_000 + i64::from(self.micros)
    }

    /// As the server writes it with so many digits of a second's fraction.
    pub fn text(self, digits: u8) -> String {
        let mut text = format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        if digits > 0 {
            let micros = format!("{:06}", self.micros);
            text.push('.');
            text.push_str(micros.get(..usize::from(digits)).unwrap_or(&micros));
        }
        text
    }
}

/// The moment of a date and a time, for the two types that hold one.
pub fn moment<'a>(date: Date, time: Time) -> Result<Value<'a>, Misfit> {
    Ok(Value::Timestamp(date.day()? * 86_400_000_000 + time.in_day()))
}

fn date_of(text: &[u8]) -> Option<(Date, &[u8])> {
    let (&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2], rest) = text.split_first_chunk()? else {
        return None;
    };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    Some((Date { year, month: two(m1, m2)?, day: two(d1, d2)? }, rest))
}

/// ` 10:30:45.123456`.
fn time_of(text: &[u8]) -> Option<Time> {
    let (&[b' ', h1, h2, b':', m1, m2, b':', s1, s2], rest) = text.split_first_chunk()? else {
        return None;
    };
    let micros = match rest {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => {
            let mut micros = 0;
            for at in 0..6 {
                let digit = digits.get(at).map_or(Some(0), |byte| char::from(*byte).to_digit(10));
                micros = micros * 10 + digit?;
            }
            micros
        }
        _ => return None,
    };
    Some(Time { hour: two(h1, h2)?, minute: two(m1, m2)?, second: two(s1, s2)?, micros })
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// Bytes of a fixed length, whose zeros at the end the log leaves out.
fn padded<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    let mut whole = [0; N];
    whole.get_mut(..bytes.len()).ok_or(Misfit::Form)?.copy_from_slice(bytes);
    Ok(whole)
}

/// A `uuid` by its sixteen bytes.
pub fn uuid<'a>(bytes: &[u8]) -> Result<Value<'a>, Misfit> {
    let origin = super::gtid::Origin { uuid: padded(bytes)?, tag: String::new() };
    Ok(Value::OwnedText(origin.to_string()))
}

/// An `inet4` by its four bytes.
pub fn inet4<'a>(bytes: &[u8]) -> Result<Value<'a>, Misfit> {
    Ok(Value::OwnedText(Ipv4Addr::from(padded::<4>(bytes)?).to_string()))
}

/// An `inet6` by its sixteen bytes. What is compatible with version 4 is written like that.
pub fn inet6<'a>(bytes: &[u8]) -> Result<Value<'a>, Misfit> {
    let bytes = padded::<16>(bytes)?;
    let text = match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a | b != 0 => {
            format!("::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => Ipv6Addr::from(bytes).to_string(),
    };
    Ok(Value::OwnedText(text))
}

/// What the user reads when a value stops its table: column, key, value and remedy.
pub fn stop_reason(
    schema: &TableSchema,
    column: usize,
    misfit: Misfit,
    value: &str,
    key_text: impl Fn(usize) -> Option<String>,
) -> Reason {
    let name = |column: usize| schema.columns.get(column).map_or("?", |c| c.name.as_str());
    let row = row_of(schema, key_text);
    let remedy = match misfit.fits_text() {
        true => format!("add \"{}\" to text_columns of table.\"{}\"", name(column), schema.id),
        false => "mend the value in the source, or leave the table out".to_owned(),
    };
    let name = name(column);
    let after = format!(", which its type can't: {misfit}; {remedy}");
    Reason::quoting(format!("column {name}{row} holds "), name, value, after)
}

/// What the user reads when a key can't be compared as its collation does.
pub fn key_reason(schema: &TableSchema, column: usize, text: &str) -> String {
    let name = schema.columns.get(column).map_or("?", |c| c.name.as_str());
    let text = shortened(text);
    format!(
        "the key {name} = '{text}' holds a character outside of printable ASCII, and its collation \
         compares such keys by tables that are not followed here; give the column a _bin collation"
    )
}

/// ` of row id=7`.
fn row_of(schema: &TableSchema, key_text: impl Fn(usize) -> Option<String>) -> String {
    let key = schema
        .key()
        .iter()
        .filter_map(|&at| Some(format!("{}={}", schema.columns.get(at)?.name, key_text(at)?)));
    let key: Vec<_> = key.collect();
    if key.is_empty() { String::new() } else { format!(" of row {}", key.join(", ")) }
}

/// At most 80 characters of a value, printable.
pub fn shortened(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

/// Whether the texts of a row's key can be compared; else the reason to stop.
pub fn comparable(schema: &TableSchema, column: usize, value: &Value<'_>) -> Result<(), String> {
    let Some(known) = schema.columns.get(column).filter(|column| column.compare.ascii_only) else {
        return Ok(());
    };
    let text = match value {
        Value::Text(text) => text,
        Value::OwnedText(text) => text.as_str(),
        _ => return Ok(()),
    };
    match known.compare.covers(text) {
        true => Ok(()),
        false => Err(key_reason(schema, column, text)),
    }
}

/// A value as people read it, for errors.
pub fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Text(text) => shortened(text),
        Value::OwnedText(text) => shortened(text),
        Value::Binary(bytes) => {
            format!("x'{}'", super::connection::hex(bytes.get(..40).unwrap_or(bytes)))
        }
        Value::Date(day) => {
            let (year, month, day) = civil((*day).into());
            format!("{year:04}-{month:02}-{day:02}")
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests;
