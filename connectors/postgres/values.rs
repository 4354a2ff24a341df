//! Postgres' text output of one value → [`Value`]: all of the stream, and of the snapshot what has no
//! form in [`binary`](super::binary).
//!
//! The forms are those of a session with `DateStyle=ISO`, `TimeZone=UTC`, `extra_float_digits=3`,
//! `bytea_output=hex` and `client_encoding=UTF8`; every connection pins them. A value that the
//! column's type can't hold is a [`Misfit`], never another value (P5).

use std::borrow::Cow;
use std::fmt;

use crate::change::Value;
use crate::error::Reason;
use crate::key::days;
use crate::schema::{TableSchema, Type};

#[cfg(test)]
mod tests;

/// Why a value doesn't fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It isn't in the form that the server writes for the type.
    Form,
    /// Its bytes are not UTF-8 (a database of encoding SQL_ASCII).
    Encoding,
    /// It is infinite, and the type holds only finite values.
    Infinite,
    /// It is NaN, and the type holds only numbers.
    NotANumber,
    /// It has more digits than the type.
    Digits,
    /// It lies after 294247-01-10, where microseconds from 1970 end. Postgres, which counts from
    /// 2000, goes on for 30 years.
    Late,
    /// It is an array of several dimensions, or one that doesn't begin at 1.
    Dimensions,
}

impl Misfit {
    /// Whether keeping the column as text keeps the value.
    fn fits_text(self) -> bool {
        self != Misfit::Encoding
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misfit::Form => "it isn't in the form of its type",
            Misfit::Encoding => "its bytes are not UTF-8",
            Misfit::Infinite => "it is infinite",
            Misfit::NotANumber => "it isn't a number",
            Misfit::Digits => "it has too many digits",
            Misfit::Late => "it lies after the year 294246",
            Misfit::Dimensions => "its array has several dimensions or doesn't begin at 1",
        })
    }
}

/// The value that `text` stands for in a column of type `kind`.
pub fn parse<'a>(kind: &Type, text: &'a [u8]) -> Result<Value<'a>, Misfit> {
    Ok(match kind {
        Type::Bool => Value::Bool(boolean(text)?),
        Type::Int16 | Type::Int32 | Type::Int64 => Value::Int(integer(text)?),
        Type::Float32 => Value::Float32(float(text)?),
        Type::Float64 => Value::Float64(float(text)?),
        Type::Decimal { precision, scale } => Value::Decimal(decimal(text, *precision, *scale)?),
        Type::Numeric | Type::Text => Value::Text(utf8(text)?),
        Type::Binary => Value::Binary(Cow::Owned(bytea(text)?)),
        Type::Date => Value::Date(date(text)?),
        Type::Timestamp | Type::LocalTimestamp => Value::Timestamp(timestamp(text)?),
        Type::List(item) => Value::List(list(item, text)?),
    })
}

/// Like [`parse`], of a text that doesn't outlive the call.
pub fn parse_owned(kind: &Type, text: Vec<u8>) -> Result<Value<'static>, Misfit> {
    match kind {
        Type::Numeric | Type::Text => {
            String::from_utf8(text).map(Value::OwnedText).map_err(|_| Misfit::Encoding)
        }
        _ => parse(kind, &text).map(into_owned),
    }
}

fn into_owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Unchanged => Value::Unchanged,
        Value::Bool(value) => Value::Bool(value),
        Value::Int(value) => Value::Int(value),
        Value::Float32(value) => Value::Float32(value),
        Value::Float64(value) => Value::Float64(value),
        Value::Decimal(value) => Value::Decimal(value),
        Value::Text(text) => Value::OwnedText(text.to_owned()),
        Value::Binary(bytes) => Value::Binary(Cow::Owned(bytes.into_owned())),
        Value::Date(days) => Value::Date(days),
        Value::Timestamp(micros) => Value::Timestamp(micros),
        Value::List(items) => Value::List(items.into_iter().map(into_owned).collect()),
        Value::OwnedText(text) => Value::OwnedText(text),
        Value::Patch(patch) => Value::Patch(Cow::Owned(patch.into_owned())),
    }
}

pub(super) fn utf8(text: &[u8]) -> Result<&str, Misfit> {
    std::str::from_utf8(text).map_err(|_| Misfit::Encoding)
}

fn boolean(text: &[u8]) -> Result<bool, Misfit> {
    match text {
        b"t" | b"true" => Ok(true),
        b"f" | b"false" => Ok(false),
        _ => Err(Misfit::Form),
    }
}

/// The digits of `text` as a number; empty or longer than 18 digits is no number here.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let mut value = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    }
}

fn integer(text: &[u8]) -> Result<i64, Misfit> {
    let (negative, body) = sign(text);
    match digits(body) {
        Some(value) if negative => Ok(-(value as i64)),
        Some(value) => Ok(value as i64),
        // 19 digits, one of which may be too many.
        None if body.len() == 19 => utf8(text)?.parse().map_err(|_| Misfit::Form),
        None => Err(Misfit::Form),
    }
}

fn float<F: std::str::FromStr>(text: &[u8]) -> Result<F, Misfit> {
    utf8(text)?.parse().map_err(|_| Misfit::Form)
}

/// The unscaled number, exact or not at all.
fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let (negative, body) = sign(text);
    let (whole, fraction) = match memchr::memchr(b'.', body) {
        Some(at) => (&body[..at], &body[at + 1..]),
        None => (body, &body[..0]),
    };
    let missing = (scale.max(0) as usize).checked_sub(fraction.len()).ok_or(Misfit::Digits)?;
    let whole = match whole {
        // Leading zeros are no digits of the number.
        [b'0', ..] => &whole[whole.iter().take_while(|byte| **byte == b'0').count()..],
        _ => whole,
    };
    if body.is_empty() || !body.first().is_some_and(u8::is_ascii_digit) {
        return Err(no_number(body));
    }
    if whole.len() + scale.max(0) as usize > precision as usize {
        return Err(Misfit::Digits);
    }
    let value = unscaled(whole, fraction).ok_or(Misfit::Form)?;
    let value = value * power_of_ten(missing).ok_or(Misfit::Digits)?;
    Ok(if negative { -value } else { value })
}

fn no_number(text: &[u8]) -> Misfit {
    match text {
        b"NaN" => Misfit::NotANumber,
        b"Infinity" => Misfit::Infinite,
        _ => Misfit::Form,
    }
}

/// All digits of both parts as one number; at most 38 of them, which `decimal` has checked.
fn unscaled(whole: &[u8], fraction: &[u8]) -> Option<i128> {
    if whole.len() + fraction.len() <= 18 {
        let high = if whole.is_empty() { 0 } else { digits(whole)? };
        let low = if fraction.is_empty() { 0 } else { digits(fraction)? };
        let shift = power_of_ten(fraction.len())?;
        return Some(i128::from(high) * shift + i128::from(low));
    }
    let mut value = 0_i128;
    for byte in whole.iter().chain(fraction) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    Some(value)
}

pub(super) fn power_of_ten(exponent: usize) -> Option<i128> {
    const POWERS: [i128; 39] = {
        let mut powers = [1; 39];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    POWERS.get(exponent).copied()
}

fn bytea(text: &[u8]) -> Result<Vec<u8>, Misfit> {
    let hex = text.strip_prefix(b"\\x").ok_or(Misfit::Form)?;
    if hex.len() % 2 != 0 {
        return Err(Misfit::Form);
    }
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    };
    hex.chunks_exact(2).map(pair).collect::<Option<_>>().ok_or(Misfit::Form)
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn date(text: &[u8]) -> Result<i32, Misfit> {
    let (body, before_christ) = era(text);
    match calendar(body, before_christ) {
        Some((days, [])) => i32::try_from(days).map_err(|_| Misfit::Form),
        _ => Err(no_moment(text)),
    }
}

fn timestamp(text: &[u8]) -> Result<i64, Misfit> {
    let (body, before_christ) = era(text);
    let moment = || {
        let (days, rest) = calendar(body, before_christ)?;
        let (micros, zone) = time_of_day(rest)?;
        Some((days, micros - offset(zone)?))
    };
    let (days, micros) = moment().ok_or_else(|| no_moment(text))?;
    let moment = i128::from(days) * 86_400_000_000 + i128::from(micros);
    i64::try_from(moment).map_err(|_| Misfit::Late)
}

fn no_moment(text: &[u8]) -> Misfit {
    match text {
        b"infinity" | b"-infinity" => Misfit::Infinite,
        _ => Misfit::Form,
    }
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(body) => (body, true),
        None => (text, false),
    }
}

/// `2024-02-29…` → the day counted from 1970-01-01, and what follows. Years have four digits or
/// more.
fn calendar(text: &[u8], before_christ: bool) -> Option<(i64, &[u8])> {
    let dash = if text.get(4) == Some(&b'-') { 4 } else { memchr::memchr(b'-', text)? };
    let year = i64::try_from(digits(text.get(..dash)?)?).ok()?;
    let (&[m1, m2, b'-', d1, d2], rest) = text.get(dash + 1..)?.split_first_chunk()? else {
        return None;
    };
    let (month, day) = (two_digits(m1, m2)?, two_digits(d1, d2)?);
    let known = (1..=12).contains(&month) && (1..=31).contains(&day) && year <= 10_000_000;
    let year = if before_christ { 1 - year } else { year };
    known.then(|| (days(year, month, day), rest))
}

/// ` 10:30:45.123456…` → microseconds of the day, and what follows.
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (&[b' ', h1, h2, b':', m1, m2, b':', s1, s2], mut rest) = text.split_first_chunk()? else {
        return None;
    };
    let (hours, minutes, seconds) = (two_digits(h1, h2)?, two_digits(m1, m2)?, two_digits(s1, s2)?);
    let mut micros = i64::from(hours * 3600 + minutes * 60 + seconds) * 1_000_000;
    if let [b'.', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let unit = 10_i64.pow(6_usize.checked_sub(length)? as u32);
        micros += digits(&fraction[..length])? as i64 * unit;
        rest = &fraction[length..];
    }
    Some((micros, rest))
}

/// `+00`, `+05:30`, `-01:12:12` or nothing → microseconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (west, body) = match zone {
        [] => return Some(0),
        [b'+', body @ ..] => (false, body),
        [b'-', body @ ..] => (true, body),
        _ => return None,
    };
    let (hours, minutes, seconds) = match *body {
        [h1, h2] => (two_digits(h1, h2)?, 0, 0),
        [h1, h2, b':', m1, m2] => (two_digits(h1, h2)?, two_digits(m1, m2)?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            (two_digits(h1, h2)?, two_digits(m1, m2)?, two_digits(s1, s2)?)
        }
        _ => return None,
    };
    let micros = i64::from(hours * 3600 + minutes * 60 + seconds) * 1_000_000;
    Some(if west { -micros } else { micros })
}

fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// The elements of an array literal of one dimension (PostgreSQL docs §8.15.6).
fn list<'a>(item: &Type, text: &'a [u8]) -> Result<Vec<Value<'a>>, Misfit> {
    let mut rest = match text {
        b"{}" => return Ok(Vec::new()),
        [b'{', rest @ ..] => rest,
        [b'[', ..] => return Err(Misfit::Dimensions),
        _ => return Err(Misfit::Form),
    };
    let mut items = Vec::new();
    loop {
        let (value, after) = element(item, rest)?;
        items.push(value);
        rest = match after {
            [b',', rest @ ..] => rest,
            [b'}'] => return Ok(items),
            _ => return Err(Misfit::Form),
        };
    }
}

fn element<'a>(item: &Type, text: &'a [u8]) -> Result<(Value<'a>, &'a [u8]), Misfit> {
    match text {
        [b'{', ..] => Err(Misfit::Dimensions),
        [b'"', body @ ..] => {
            let (raw, rest) = quoted(body).ok_or(Misfit::Form)?;
            let value = match memchr::memchr(b'\\', raw) {
                None => parse(item, raw)?,
                Some(_) => parse_owned(item, without_backslashes(raw))?,
            };
            Ok((value, rest))
        }
        _ => {
            let end = memchr::memchr2(b',', b'}', text).ok_or(Misfit::Form)?;
            let (raw, rest) = text.split_at(end);
            let null = raw.eq_ignore_ascii_case(b"NULL");
            Ok((if null { Value::Null } else { parse(item, raw)? }, rest))
        }
    }
}

/// What stands before the closing quote, and what after it.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(found) == Some(&b'"') {
            return Some((text.get(..found)?, text.get(found + 1..)?));
        }
        at = found + 2;
    }
}

fn without_backslashes(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        out.extend(if byte == b'\\' { bytes.next().copied() } else { Some(byte) });
    }
    out
}

/// What the user reads when a value stops its table: column, key, value and remedy. `text_of`
/// gives the text of a column of the same row, where the row has it.
pub fn stop_reason<'a>(
    schema: &TableSchema,
    column: usize,
    text: &[u8],
    misfit: Misfit,
    text_of: impl Fn(usize) -> Option<&'a [u8]>,
) -> Reason {
    let name = |column: usize| schema.columns.get(column).map_or("?", |c| c.name.as_str());
    let key: Vec<_> = schema
        .key()
        .iter()
        .filter_map(|&key| Some(format!("{}={}", name(key), shortened(text_of(key)?))))
        .collect();
    let row = if key.is_empty() { String::new() } else { format!(" of row {}", key.join(", ")) };
    let remedy = if misfit.fits_text() {
        format!("add \"{}\" to text_columns of table.\"{}\"", name(column), schema.id)
    } else {
        "mend the value in the source, or leave the table out".to_owned()
    };
    let before = format!("column {}{row} holds ", name(column));
    let after = format!(", which its type can't: {misfit}; {remedy}");
    Reason::quoting(before, name(column), shortened(text), after)
}

/// At most 80 characters of a value, printable.
fn shortened(text: &[u8]) -> String {
    let text = match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(text.get(..320).unwrap_or(text).escape_ascii().to_string()),
    };
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
