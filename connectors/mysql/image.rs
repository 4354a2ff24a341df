//! Values as the log's row images hold them (MySQL source documentation, "Rows_event" and
//! "Table_map_event": types and their metadata).

use std::borrow::Cow;

use super::input::Input;
use super::json;
use super::types::Kind;
use super::values::{self, Date, Field, Misfit, Time, moment};
use crate::change::Value;
use crate::schema::Type;

/// The type numbers of a table map (`enum_field_types`).
pub mod code {
    #![allow(missing_docs, reason = "each is the type of its name")]
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// A column's type in the log, with its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Its number; of a STRING that is an ENUM or SET, theirs.
    pub code: u8,
    /// Two numbers whose meaning the type gives: lengths, precision and scale, digits.
    pub meta: [u8; 2],
}

impl Logged {
    /// Reads the metadata of a column of type `code`.
    pub fn read(code: u8, metadata: &mut Input<'_>) -> Option<Self> {
        use code::{
            BIT, BLOB, DATETIME2, DOUBLE, ENUM, FLOAT, GEOMETRY, JSON, NEWDECIMAL, SET, STRING,
            TIME2, TIMESTAMP2, VAR_STRING, VARCHAR, VECTOR,
        };
        let meta = match code {
            FLOAT | DOUBLE | BLOB | GEOMETRY | JSON | VECTOR | TIMESTAMP2 | DATETIME2 | TIME2 => {
                [metadata.u8()?, 0]
            }
            VARCHAR | BIT | NEWDECIMAL | VAR_STRING | STRING | ENUM | SET => metadata.array()?,
            _ => [0, 0],
        };
        if code != STRING {
            return Some(Self { code, meta });
        }
        // The greatest length of a CHAR of more than 255 bytes hides two bits in the type's byte.
        let [kind, length] = meta;
        Some(match kind & 0x30 {
            0x30 if matches!(kind, ENUM | SET) => Self { code: kind, meta: [length, 0] },
            0x30 => Self { code, meta: [length, 0] },
            high => Self { code, meta: [length, (high ^ 0x30) >> 4] },
        })
    }

    /// Whether a column of the catalog's type `kind` is logged like this.
    pub fn is_of(self, kind: &Kind) -> bool {
        use code::{
            BIT, BLOB, DATE, DATETIME, DATETIME2, DOUBLE, ENUM, FLOAT, GEOMETRY, INT24, JSON, LONG,
            LONGLONG, NEWDATE, NEWDECIMAL, SET, SHORT, STRING, TIME, TIME2, TIMESTAMP, TIMESTAMP2,
            TINY, VAR_STRING, VARCHAR, VECTOR, YEAR,
        };
        let [low, high] = self.meta;
        match (kind, self.code) {
            (Kind::Int { bytes, .. }, code) => {
                matches!(
                    (code, bytes),
                    (TINY, 1) | (SHORT, 2) | (INT24, 3) | (LONG, 4) | (LONGLONG, 8)
                )
            }
            (Kind::Decimal { precision, scale }, NEWDECIMAL) => (low, high) == (*precision, *scale),
            (Kind::Float, FLOAT) | (Kind::Double, DOUBLE) | (Kind::Year, YEAR) => true,
            (Kind::Bit(bits), BIT) => u16::from(high) * 8 + u16::from(low) == u16::from(*bits),
            (Kind::Date, DATE | NEWDATE) => true,
            (Kind::Time(digits), TIME2)
            | (Kind::DateTime(digits), DATETIME2)
            | (Kind::Timestamp(digits), TIMESTAMP2) => low == *digits,
            (Kind::Time(0), TIME)
            | (Kind::DateTime(0), DATETIME)
            | (Kind::Timestamp(0), TIMESTAMP) => true,
            (Kind::Text, VARCHAR | VAR_STRING | STRING | BLOB) => true,
            (Kind::FixedBinary(length), STRING) => self.length() == usize::from(*length),
            (Kind::Binary, VARCHAR | VAR_STRING | BLOB | GEOMETRY | VECTOR) => true,
            (Kind::Enum(labels), ENUM) => low == if labels.len() < 256 { 1 } else { 2 },
            (Kind::Set(labels), SET) => {
                let bytes = labels.len().div_ceil(8);
                usize::from(low) == if bytes > 4 { 8 } else { bytes }
            }
            (Kind::Json, JSON) => true,
            (Kind::Uuid | Kind::Inet6, STRING) => self.length() == 16,
            (Kind::Inet4, STRING) => self.length() == 4,
            _ => false,
        }
    }

    /// The greatest length in bytes, of a type that has one.
    fn length(self) -> usize {
        usize::from(u16::from_le_bytes(self.meta))
    }

    /// The bytes of the next value.
    #[inline]
    pub fn take<'a>(self, input: &mut Input<'a>) -> Option<&'a [u8]> {
        use code::{
            BIT, BLOB, DATE, DATETIME, DATETIME2, DOUBLE, ENUM, FLOAT, GEOMETRY, INT24, JSON, LONG,
            LONGLONG, NEWDATE, NEWDECIMAL, SET, SHORT, STRING, TIME, TIME2, TIMESTAMP, TIMESTAMP2,
            TINY, VAR_STRING, VARCHAR, VECTOR, YEAR,
        };
        let [low, high] = self.meta.map(usize::from);
        let length = match self.code {
            TINY | YEAR => 1,
            SHORT => 2,
            INT24 | DATE | NEWDATE | TIME => 3,
            LONG | FLOAT | TIMESTAMP => 4,
            LONGLONG | DOUBLE | DATETIME => 8,
            TIMESTAMP2 => 4 + low.div_ceil(2),
            DATETIME2 => 5 + low.div_ceil(2),
            TIME2 => 3 + low.div_ceil(2),
            NEWDECIMAL => decimal_length(low, high)?,
            BIT => high + usize::from(low > 0),
            ENUM | SET => low,
            VARCHAR | VAR_STRING | STRING if self.length() > 255 => usize::from(input.u16()?),
            VARCHAR | VAR_STRING | STRING => usize::from(input.u8()?),
            BLOB | GEOMETRY | JSON | VECTOR => usize::try_from(input.unsigned(low)?).ok()?,
            _ => return None,
        };
        input.bytes(length)
    }
}

/// How many bytes a packed number of so many digits takes: nine digits in four bytes.
fn decimal_length(precision: usize, scale: usize) -> Option<usize> {
    let part = |digits: usize| Some(digits / 9 * 4 + usize::from(*SHORTER.get(digits % 9)?));
    Some(part(precision.checked_sub(scale)?)? + part(scale)?)
}

/// The bytes that fewer than nine digits take.
const SHORTER: [u8; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];

/// What the bytes of a value stand for in `field`.
#[inline]
pub fn value<'a>(field: &Field, logged: Logged, bytes: &'a [u8]) -> Result<Value<'a>, Misfit> {
    let as_text = field.lake == Type::Text;
    Ok(match &field.kind {
        Kind::Int { bytes: 8, unsigned: true } => {
            values::unsigned(field, Input(bytes).u64().ok_or(Misfit::Form)?)
        }
        Kind::Int { unsigned, .. } => {
            let number = Input(bytes).unsigned(bytes.len()).ok_or(Misfit::Form)?;
            let unused = match bytes.len() {
                0 => return Err(Misfit::Form),
                length => 64_u32.saturating_sub(8 * length as u32),
            };
            let number = match unsigned {
                true => number as i64,
                false => (number << unused) as i64 >> unused,
            };
            if as_text { Value::OwnedText(number.to_string()) } else { Value::Int(number) }
        }
        Kind::Year => {
            let stored = i64::from(*bytes.first().ok_or(Misfit::Form)?);
            let year = if stored == 0 { 0 } else { 1900 + stored };
            if as_text { Value::OwnedText(format!("{year:04}")) } else { Value::Int(year) }
        }
        Kind::Decimal { precision, scale } => decimal(field, bytes, *precision, *scale)?,
        Kind::Float => Value::Float32(f32::from_le_bytes(exactly(bytes)?)),
        Kind::Double => Value::Float64(f64::from_le_bytes(exactly(bytes)?)),
        Kind::Bit(1) => Value::Bool(bytes.iter().any(|byte| *byte != 0)),
        Kind::Bit(_) | Kind::Binary => Value::Binary(Cow::Borrowed(bytes)),
        Kind::FixedBinary(length) => Value::Binary(padded(bytes, usize::from(*length))),
        Kind::Date => {
            let packed = Input(bytes).unsigned(3).ok_or(Misfit::Form)? as u32;
            let date = Date { year: packed >> 9, month: packed >> 5 & 15, day: packed & 31 };
            match as_text {
                true => Value::OwnedText(date.to_string()),
                false => Value::Date(date.day()? as i32),
            }
        }
        Kind::DateTime(digits) => {
            let (date, time) = date_time(logged, bytes).ok_or(Misfit::Form)?;
            match as_text {
                true => Value::OwnedText(format!("{date} {}", time.text(*digits))),
                false => moment(date, time)?,
            }
        }
        Kind::Timestamp(digits) => timestamp(logged, bytes, *digits, as_text)?,
        Kind::Time(digits) => {
            let (negative, time) = time(logged, bytes).ok_or(Misfit::Form)?;
            let sign = if negative { "-" } else { "" };
            Value::OwnedText(format!("{sign}{}", time.text(*digits)))
        }
        Kind::Text => values::decoded(field, bytes)?,
        Kind::Enum(labels) => match Input(bytes).unsigned(bytes.len()).ok_or(Misfit::Form)? {
            // What was no label when it was stored.
            0 => Value::Text(""),
            index => Value::OwnedText(label(labels, index as usize - 1)?.to_owned()),
        },
        Kind::Set(labels) => Value::OwnedText(set(labels, bytes)?),
        Kind::Json => Value::OwnedText(json::text(bytes)?),
        Kind::Uuid => values::uuid(bytes)?,
        Kind::Inet4 => values::inet4(bytes)?,
        Kind::Inet6 => values::inet6(bytes)?,
    })
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    bytes.try_into().map_err(|_| Misfit::Form)
}

fn padded(bytes: &[u8], length: usize) -> Cow<'_, [u8]> {
    if bytes.len() >= length {
        return Cow::Borrowed(bytes);
    }
    let mut whole = bytes.to_vec();
    whole.resize(length, 0);
    Cow::Owned(whole)
}

/// The catalog writes a character that it can't hold as a question mark, so such a label may be
/// another one.
fn label(labels: &[String], index: usize) -> Result<&str, Misfit> {
    let label = labels.get(index).filter(|label| !label.contains('?'));
    label.map(String::as_str).ok_or(Misfit::Label)
}

fn set(labels: &[String], bytes: &[u8]) -> Result<String, Misfit> {
    let bits = Input(bytes).unsigned(bytes.len()).ok_or(Misfit::Form)?;
    let mut text = String::new();
    for at in (0..64).filter(|at| bits >> at & 1 == 1) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(label(labels, at)?);
    }
    Ok(text)
}

/// A packed number: its sign in the first bit, inverted throughout when it is negative.
fn decimal<'a>(field: &Field, bytes: &[u8], precision: u8, scale: u8) -> Result<Value<'a>, Misfit> {
    let (whole, fraction, negative) =
        digits(bytes, usize::from(precision), usize::from(scale)).ok_or(Misfit::Form)?;
    if let Type::Decimal { .. } = field.lake {
        let mut value = 0_i128;
        for digit in whole.bytes().chain(fraction.bytes()) {
            value = value * 10 + i128::from(digit - b'0');
        }
        return Ok(Value::Decimal(if negative { -value } else { value }));
    }
    Ok(Value::OwnedText(decimal_text(&whole, &fraction, negative)))
}

/// A packed number as the server writes it.
pub fn decimal_text_of(bytes: &[u8], precision: u8, scale: u8) -> Option<String> {
    let (whole, fraction, negative) = digits(bytes, precision.into(), scale.into())?;
    Some(decimal_text(&whole, &fraction, negative))
}

fn decimal_text(whole: &str, fraction: &str, negative: bool) -> String {
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// The digits before and after the point, with leading zeros, and whether it is negative.
fn digits(bytes: &[u8], precision: usize, scale: usize) -> Option<(String, String, bool)> {
    if bytes.len() != decimal_length(precision, scale)? || precision > 65 {
        return None;
    }
    let negative = bytes.first()? & 0x80 == 0;
    let mut plain = [0; 32];
    let plain = plain.get_mut(..bytes.len())?;
    plain.copy_from_slice(bytes);
    *plain.first_mut()? ^= 0x80;
    if negative {
        plain.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut input = Input(plain);
    let mut group = |count: usize, out: &mut String| {
        let length = if count == 9 { 4 } else { usize::from(*SHORTER.get(count)?) };
        let number = input.unsigned_big(length)?.to_string();
        (0..count.checked_sub(number.len())?).for_each(|_| out.push('0'));
        out.push_str(&number);
        Some(())
    };
    let (mut whole, mut fraction) = (String::new(), String::new());
    let before = precision - scale;
    if !before.is_multiple_of(9) {
        group(before % 9, &mut whole)?;
    }
    for _ in 0..before / 9 {
        group(9, &mut whole)?;
    }
    for _ in 0..scale / 9 {
        group(9, &mut fraction)?;
    }
    if !scale.is_multiple_of(9) {
        group(scale % 9, &mut fraction)?;
    }
    // Zero has no sign.
    let zero = plain.iter().all(|byte| *byte == 0);
    Some((whole, fraction, negative && !zero))
}

/// Microseconds out of the bytes after the seconds, two digits a byte.
fn fraction(bytes: &[u8]) -> Option<u32> {
    let number = Input(bytes).unsigned_big(bytes.len())? as u32;
    Some(number * [1_000_000, 10_000, 100, 1].get(bytes.len())?)
}

fn date_time(logged: Logged, bytes: &[u8]) -> Option<(Date, Time)> {
    let mut input = Input(bytes);
    if logged.code == code::DATETIME {
        let number = input.u64()?;
        let (date, time) = ((number / 1_000_000) as u32, (number % 1_000_000) as u32);
        let date = Date { year: date / 10_000, month: date / 100 % 100, day: date % 100 };
        return Some((date, decimal_time(time)));
    }
    let packed = input.unsigned_big(5)?.checked_sub(0x80_0000_0000)?;
    let micros = fraction(input.rest())?;
    Some(unpacked(packed << 24 | u64::from(micros)))
}

/// A date and time packed as in DATETIME2 and in JSON: 17 bits of year × 13 + month, 5 of the day,
/// 5 + 6 + 6 of the time, 24 of microseconds.
pub fn unpacked(packed: u64) -> (Date, Time) {
    let bits = |from: u32, count: u32| (packed >> from & ((1 << count) - 1)) as u32;
    let months = bits(46, 17);
    let date = Date { year: months / 13, month: months % 13, day: bits(41, 5) };
    (
        date,
        Time { hour: bits(36, 5), minute: bits(30, 6), second: bits(24, 6), micros: bits(0, 24) },
    )
}

/// A time packed as in TIME2 and in JSON, without its sign.
pub fn unpacked_time(packed: u64) -> Time {
    let bits = |from: u32, count: u32| (packed >> from & ((1 << count) - 1)) as u32;
    Time { hour: bits(36, 10), minute: bits(30, 6), second: bits(24, 6), micros: bits(0, 24) }
}

/// HHMMSS.
fn decimal_time(number: u32) -> Time {
    Time { hour: number / 10_000, minute: number / 100 % 100, second: number % 100, micros: 0 }
}

fn timestamp<'a>(
    logged: Logged,
    bytes: &[u8],
    digits: u8,
    as_text: bool,
) -> Result<Value<'a>, Misfit> {
    let (seconds, micros) = (|| {
        let mut input = Input(bytes);
        if logged.code == code::TIMESTAMP {
            return Some((input.u32()?, 0));
        }
        Some((u32::from_be_bytes(input.array()?), fraction(input.rest())?))
    })()
    .ok_or(Misfit::Form)?;
    if !as_text {
        // The zero of a `timestamp` is no moment; 1970-01-01 00:00:00 itself can't be stored.
        return match (seconds, micros) {
            (0, 0) => Err(Misfit::Zero),
            _ => Ok(Value::Timestamp(i64::from(seconds) * 1_000_000 + i64::from(micros))),
        };
    }
    let (of_day, day) = (seconds % 86_400, i64::from(seconds / 86_400));
    let (year, month, day) = match (seconds, micros) {
        (0, 0) => (0, 0, 0),
        _ => crate::key::civil(day),
    };
    let time = Time { hour: of_day / 3600, minute: of_day / 60 % 60, second: of_day % 60, micros };
    Ok(Value::OwnedText(format!("{year:04}-{month:02}-{day:02} {}", time.text(digits))))
}

/// Whether it is negative, and how long.
fn time(logged: Logged, bytes: &[u8]) -> Option<(bool, Time)> {
    let mut input = Input(bytes);
    if logged.code == code::TIME {
        let number = (input.unsigned(3)? << 40) as i64 >> 40;
        return Some((number < 0, decimal_time(number.unsigned_abs() as u32)));
    }
    // Seconds and fraction are one number from 0x800000 on, so that they sort as bytes.
    let length = bytes.len();
    let unit = [1_000_000, 10_000, 100, 1].get(length.checked_sub(3)?)?;
    let fraction_bits = 8 * (length as u32 - 3);
    let number = input.unsigned_big(length)? as i64 - (0x80_0000 << fraction_bits);
    let negative = number < 0;
    let number = number.unsigned_abs();
    let (whole, fraction) = (number >> fraction_bits, number & ((1 << fraction_bits) - 1));
    Some((negative, unpacked_time((whole << 24) | (fraction * unit))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::charset::Charset;
    use super::*;

    fn read(source_type: &str, code: u8, meta: [u8; 2], bytes: &[u8]) -> Result<String, Misfit> {
        let kind = Kind::parse(source_type).unwrap();
        let field = Field { lake: kind.lake_type(), kind, charset: Arc::new(Charset::Utf8) };
        let logged = Logged { code, meta };
        assert!(logged.is_of(&field.kind), "{source_type}");
        let mut input = Input(bytes);
        let bytes = logged.take(&mut input).ok_or(Misfit::Form)?;
        value(&field, logged, bytes).map(|value| values::shown(&value))
    }

    fn text(source_type: &str, code: u8, meta: [u8; 2], bytes: &[u8]) -> String {
        read(source_type, code, meta, bytes).unwrap()
    }

    #[test]
    fn integers_have_the_sign_of_their_column() {
        assert_eq!(text("tinyint", code::TINY, [0, 0], &[0xff]), "-1");
        assert_eq!(text("tinyint unsigned", code::TINY, [0, 0], &[0xff]), "255");
        assert_eq!(text("mediumint", code::INT24, [0, 0], &[0, 0, 0x80]), "-8388608");
        let most = text("bigint unsigned", code::LONGLONG, [0, 0], &[0xff; 8]);
        assert_eq!(most, "18446744073709551615");
        assert_eq!(text("year", code::YEAR, [0, 0], &[0]), "0");
        assert_eq!(text("year", code::YEAR, [0, 0], &[255]), "2155");
    }

    #[test]
    fn packed_numbers_are_unpacked() {
        // The example of the server's own documentation: 1234567890.1234 of (14,4).
        let bytes = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(text("decimal(14,4)", code::NEWDECIMAL, [14, 4], &bytes), "12345678901234");
        let negative = bytes.map(|byte: u8| !byte);
        assert_eq!(text("decimal(14,4)", code::NEWDECIMAL, [14, 4], &negative), "-12345678901234");
        assert_eq!(decimal_text_of(&negative, 14, 4).as_deref(), Some("-1234567890.1234"));
        assert_eq!(decimal_text_of(&[0x80, 5], 3, 1).as_deref(), Some("0.5"));
    }

    #[test]
    fn times_may_be_negative_and_longer_than_a_day() {
        assert_eq!(text("time", code::TIME2, [0, 0], &[0x80, 0, 1]), "00:00:01");
        assert_eq!(text("time", code::TIME2, [0, 0], &[0x7f, 0xff, 0xff]), "-00:00:01");
        // -838:59:59: 838 << 12 | 59 << 6 | 59, from 0x800000 down.
        let least = (0x80_0000_u32 - (838 << 12 | 59 << 6 | 59)).to_be_bytes();
        assert_eq!(text("time", code::TIME2, [0, 0], &least[1..]), "-838:59:59");
        // -00:00:00.5 with six digits.
        let half = (0x8000_0000_0000_u64 - 500_000).to_be_bytes();
        assert_eq!(text("time(6)", code::TIME2, [6, 0], &half[2..]), "-00:00:00.500000");
        let tenth = [0x7f, 0xff, 0xff, 0xf6];
        assert_eq!(text("time(1)", code::TIME2, [1, 0], &tenth), "-00:00:00.1");
    }

    #[test]
    fn moments_are_unpacked() {
        let packed =
            0x80_0000_0000_u64 | (2024 * 13 + 2) << 22 | 29 << 17 | 23 << 12 | 59 << 6 | 58;
        let bytes = &packed.to_be_bytes()[3..];
        let moment = text("datetime", code::DATETIME2, [0, 0], bytes);
        assert_eq!(moment, "Timestamp(1709251198000000)");
        let zero = [0x80, 0, 0, 0, 0];
        assert_eq!(read("datetime", code::DATETIME2, [0, 0], &zero), Err(Misfit::Zero));
        assert_eq!(read("timestamp", code::TIMESTAMP2, [0, 0], &[0; 4]), Err(Misfit::Zero));
        let three = text("timestamp(3)", code::TIMESTAMP2, [3, 0], &[0, 0, 0, 1, 0x13, 0x88]);
        assert_eq!(three, "Timestamp(1500000)");
        let date = (2024_u32 << 9 | 2 << 5 | 29).to_le_bytes();
        assert_eq!(text("date", code::DATE, [0, 0], &date[..3]), "2024-02-29");
    }

    #[test]
    fn labels_and_lengths_follow_the_column() {
        assert_eq!(text("enum('a','b')", code::ENUM, [1, 0], &[2]), "b");
        assert_eq!(text("enum('a','b')", code::ENUM, [1, 0], &[0]), "");
        assert_eq!(read("enum('a','b')", code::ENUM, [1, 0], &[3]), Err(Misfit::Label));
        assert_eq!(read("enum('a','?')", code::ENUM, [1, 0], &[2]), Err(Misfit::Label));
        assert_eq!(text("set('a','b','c')", code::SET, [1, 0], &[5]), "a,c");
        assert_eq!(text("binary(3)", code::STRING, [3, 0], &[1, 0x41]), "x'410000'");
        assert_eq!(text("varchar(300)", code::VARCHAR, [0x2c, 1], &[1, 0, b'x']), "x");
        // CHAR(255) of four bytes a character: 1020 bytes.
        let logged = Logged::read(code::STRING, &mut Input(&[0xce, 0xfc])).unwrap();
        assert_eq!(logged.length(), 1020);
        assert_eq!(text("bit(9)", code::BIT, [1, 1], &[1, 2]), "x'0102'");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            code in any::<u8>(),
            meta in any::<[u8; 2]>(),
        ) {
            for source_type in ["int", "decimal(10,2)", "time(6)", "datetime(3)", "json", "set('a')"] {
                let kind = Kind::parse(source_type).unwrap();
                let field = Field { lake: kind.lake_type(), kind, charset: Arc::new(Charset::Utf8) };
                let logged = Logged { code, meta };
                if let Some(bytes) = logged.take(&mut Input(&bytes)) {
                    let _ = value(&field, logged, bytes);
                }
            }
        }
    }
}
