//! Postgres' binary output of one value → [`Value`], for the snapshot: the same values that
//! [`values`](super::values) reads from texts, at a fraction of the work on both ends.
//!
//! Which types have a binary form here, and what it is, stands in the `…send` functions of
//! `src/backend/utils/adt`; it has not changed since 2003, and integer timestamps are the only ones
//! from version 10 on. All other types come as the text of their output function.

use std::borrow::Cow;

use crate::change::Value;
use crate::key::{date_text, timestamp_text};
use crate::postgres::types::{Types, base, oid};
use crate::postgres::values::{Misfit, parse, power_of_ten, utf8};
use crate::schema::Type;

/// 2000-01-01, from which Postgres counts, counted from 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 10_957 * 86_400_000_000;

/// How the values of a column come in a binary COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the form of their lake type's own kind.
    Native,
    /// As text, which is the type's binary form, too.
    Text,
    /// As text behind a version, which is 1.
    Jsonb,
    /// 16 bytes.
    Uuid,
    /// As text, because the statement asks for that ([`Form::select`]).
    Printed,
}

impl Form {
    /// The form of a column of type `oid` with modifier `typmod` that is `kind` in the lake.
    pub(super) fn of(types: &Types, oid: u32, typmod: i32, kind: &Type) -> Self {
        match kind {
            Type::Text => match base(types, oid, typmod).0 {
                oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON => Self::Text,
                oid::JSONB => Self::Jsonb,
                oid::UUID => Self::Uuid,
                oid if types.get(&oid).is_some_and(|kind| kind.class == 'e') => Self::Text,
                _ => Self::Printed,
            },
            Type::Numeric | Type::List(_) => Self::Printed,
            _ => Self::Native,
        }
    }

    /// What a statement selects to get `column` in this form. `concat` prints by the type's output
    /// function, as the log does; a cast to text doesn't for all types. A row is not null because
    /// its fields are.
    pub(super) fn select(self, column: &str) -> String {
        match self {
            Self::Printed => format!(
                "case when pg_catalog.num_nulls({column}) = 0 then pg_catalog.concat({column}) end"
            ),
            _ => column.to_owned(),
        }
    }

    /// The value that `bytes` stand for in a column of type `kind`.
    #[inline]
    pub(super) fn parse<'a>(self, kind: &Type, bytes: &'a [u8]) -> Result<Value<'a>, Misfit> {
        match self {
            Self::Native => native(kind, bytes),
            Self::Text => utf8(bytes).map(Value::Text),
            Self::Jsonb => match bytes.split_first() {
                Some((1, text)) => utf8(text).map(Value::Text),
                _ => Err(Misfit::Form),
            },
            Self::Uuid => bytes
                .try_into()
                .map(|bytes| Value::OwnedText(uuid(bytes)))
                .map_err(|_| Misfit::Form),
            Self::Printed => parse(kind, bytes),
        }
    }

    /// A value that doesn't fit, as the user may know it.
    pub(super) fn show<'a>(self, kind: &Type, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let infinite = |negative| if negative { "-infinity" } else { "infinity" };
        let moment = |zone: &str| {
            let Ok(micros) = int64(bytes) else { return String::new() };
            match micros {
                i64::MAX | i64::MIN => infinite(micros < 0).to_owned(),
                _ => {
                    let text = timestamp_text(i128::from(micros) + i128::from(EPOCH_MICROS), "");
                    let text = text.trim_end_matches('0').trim_end_matches('.');
                    format!("{text}{zone}")
                }
            }
        };
        let text = match (self, kind) {
            (Self::Native, Type::Date) => match int32(bytes) {
                Ok(days @ (i32::MAX | i32::MIN)) => infinite(days < 0).to_owned(),
                Ok(days) => date_text(i64::from(days) + i64::from(EPOCH_DAYS), ""),
                Err(_) => String::new(),
            },
            (Self::Native, Type::Timestamp) => moment("+00"),
            (Self::Native, Type::LocalTimestamp) => moment(""),
            (Self::Native, Type::Decimal { .. }) => match decimal(bytes, 38, 0) {
                Err(Misfit::NotANumber) => "NaN".to_owned(),
                Err(Misfit::Infinite) => "Infinity".to_owned(),
                _ => "a number".to_owned(),
            },
            (Self::Jsonb, _) => return Cow::Borrowed(bytes.get(1..).unwrap_or_default()),
            _ => return Cow::Borrowed(bytes),
        };
        Cow::Owned(text.into_bytes())
    }
}

fn native<'a>(kind: &Type, bytes: &'a [u8]) -> Result<Value<'a>, Misfit> {
    Ok(match kind {
        Type::Int64 => Value::Int(match bytes.len() {
            // `oid` and `xid` have no sign.
            4 => i64::from(int32(bytes)? as u32),
            _ => int64(bytes)?,
        }),
        Type::Int32 => Value::Int(i64::from(int32(bytes)?)),
        Type::Int16 => Value::Int(i64::from(i16::from_be_bytes(exactly(bytes)?))),
        Type::Timestamp | Type::LocalTimestamp => Value::Timestamp(match int64(bytes)? {
            i64::MAX | i64::MIN => return Err(Misfit::Infinite),
            micros => micros.checked_add(EPOCH_MICROS).ok_or(Misfit::Late)?,
        }),
        Type::Decimal { precision, scale } => Value::Decimal(decimal(bytes, *precision, *scale)?),
        Type::Date => Value::Date(match int32(bytes)? {
            i32::MAX | i32::MIN => return Err(Misfit::Infinite),
            days => days.checked_add(EPOCH_DAYS).ok_or(Misfit::Form)?,
        }),
        Type::Bool => match bytes {
            [value @ (0 | 1)] => Value::Bool(*value == 1),
            _ => return Err(Misfit::Form),
        },
        // Every NaN is the one that the text "NaN" is read as.
        Type::Float32 => match f32::from_be_bytes(exactly(bytes)?) {
            value if value.is_nan() => Value::Float32(f32::NAN),
            value => Value::Float32(value),
        },
        Type::Float64 => match f64::from_be_bytes(exactly(bytes)?) {
            value if value.is_nan() => Value::Float64(f64::NAN),
            value => Value::Float64(value),
        },
        Type::Binary => Value::Binary(Cow::Borrowed(bytes)),
        Type::Numeric | Type::Text | Type::List(_) => return Err(Misfit::Form),
    })
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    bytes.try_into().map_err(|_| Misfit::Form)
}

fn int32(bytes: &[u8]) -> Result<i32, Misfit> {
    exactly(bytes).map(i32::from_be_bytes)
}

fn int64(bytes: &[u8]) -> Result<i64, Misfit> {
    exactly(bytes).map(i64::from_be_bytes)
}

/// `numeric_send`: how many digits of base 10,000, the power of the first, a sign, the scale as
/// displayed, and the digits. The unscaled number, exact or not at all.
fn decimal(bytes: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    const POSITIVE: u16 = 0;
    const NEGATIVE: u16 = 0x4000;
    const NAN: u16 = 0xc000;
    const INFINITE: [u16; 2] = [0xd000, 0xf000];
    let (&[n1, n2, w1, w2, s1, s2, _, _], digits) =
        bytes.split_first_chunk().ok_or(Misfit::Form)?;
    let count = usize::from(u16::from_be_bytes([n1, n2]));
    let weight = i32::from(i16::from_be_bytes([w1, w2]));
    let negative = match u16::from_be_bytes([s1, s2]) {
        POSITIVE => false,
        NEGATIVE => true,
        NAN => return Err(Misfit::NotANumber),
        sign if INFINITE.contains(&sign) => return Err(Misfit::Infinite),
        _ => return Err(Misfit::Form),
    };
    if digits.len() != 2 * count {
        return Err(Misfit::Form);
    }
    let (whole, &[high, low]) = match digits.split_last_chunk() {
        Some((whole, last)) => (whole, last),
        None => return Ok(0),
    };
    // Four groups fit 64 bits, which is faster than 128.
    let mut value = 0_i128;
    for some in whole.chunks(8) {
        let (mut part, mut shift) = (0_u64, 1_i128);
        for pair in some.as_chunks().0 {
            part = part * 10_000 + u64::from(u16::from_be_bytes(*pair));
            shift *= 10_000;
        }
        value = shifted(value, shift, part)?;
    }
    // Of the last group, which is not zero, only the digits down to `scale` may be other than zero.
    let last = u64::from(u16::from_be_bytes([high, low]));
    let value = match 4 * (weight + 1 - count as i32) + i32::from(scale) {
        0 => shifted(value, 10_000, last)?,
        exponent @ 1.. => {
            let power = power_of_ten(exponent as usize).ok_or(Misfit::Digits)?;
            let value = shifted(value, 10_000, last)?;
            value.checked_mul(power).ok_or(Misfit::Digits)?
        }
        -1 if last.is_multiple_of(10) => shifted(value, 1_000, last / 10)?,
        -2 if last.is_multiple_of(100) => shifted(value, 100, last / 100)?,
        -3 if last.is_multiple_of(1_000) => shifted(value, 10, last / 1_000)?,
        _ => return Err(Misfit::Digits),
    };
    match power_of_ten(usize::from(precision)) {
        Some(limit) if value >= limit => Err(Misfit::Digits),
        _ => Ok(if negative { -value } else { value }),
    }
}

fn shifted(value: i128, shift: i128, part: u64) -> Result<i128, Misfit> {
    let shifted = value.checked_mul(shift).ok_or(Misfit::Digits)?;
    shifted.checked_add(part.into()).ok_or(Misfit::Digits)
}

fn uuid(bytes: [u8; 16]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(HEX[usize::from(byte >> 4)].into());
        text.push(HEX[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `numeric_send` sends of `value` × 10^−`scale`.
    fn sent(value: i128, scale: u8) -> Vec<u8> {
        let mut digits = value.unsigned_abs().to_string();
        digits.extend(std::iter::repeat_n('0', (4 - usize::from(scale) % 4) % 4));
        let fraction = usize::from(scale).div_ceil(4);
        while !digits.len().is_multiple_of(4) || digits.len() < 4 * fraction {
            digits.insert(0, '0');
        }
        let groups = digits.as_bytes().chunks(4);
        let groups = groups.map(|four| std::str::from_utf8(four).unwrap().parse().unwrap());
        let mut groups: Vec<i16> = groups.collect();
        let mut weight = groups.len() as i16 - fraction as i16 - 1;
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        let weight = if groups.is_empty() { 0 } else { weight };
        let sign = if value < 0 { 0x4000 } else { 0 };
        let head = [groups.len() as i16, weight, sign, i16::from(scale)];
        head.into_iter().chain(groups).flat_map(i16::to_be_bytes).collect()
    }

    #[test]
    fn numbers_that_the_server_sends() {
        // select numeric_send(…): 1234567.89, 0.0001, 10000, -0.5, 0, NaN, Infinity
        let of = |bytes: &[i16], scale| {
            let bytes: Vec<u8> = bytes.iter().copied().flat_map(i16::to_be_bytes).collect();
            decimal(&bytes, 38, scale)
        };
        assert_eq!(of(&[3, 1, 0, 2, 123, 4567, 8900], 2), Ok(123_456_789));
        assert_eq!(of(&[1, -1, 0, 4, 1], 4), Ok(1));
        assert_eq!(of(&[1, -1, 0, 4, 1], 3), Err(Misfit::Digits));
        assert_eq!(of(&[1, 1, 0, 0, 1], 0), Ok(10_000));
        assert_eq!(of(&[1, -1, 0x4000, 1, 5000], 1), Ok(-5));
        assert_eq!(of(&[0, 0, 0, 0], 9), Ok(0));
        assert_eq!(of(&[0, 0, 0xc000_u16 as i16, 0], 9), Err(Misfit::NotANumber));
        assert_eq!(of(&[0, 0, 0xf000_u16 as i16, 0], 9), Err(Misfit::Infinite));
        assert_eq!(of(&[2, 0, 0, 0, 1], 0), Err(Misfit::Form));
        assert_eq!(of(&[1, 9, 0, 0, 1000], 0), Err(Misfit::Digits));
    }

    #[test]
    fn moments_end_where_microseconds_do() {
        let moments = [
            (0, Ok(Value::Timestamp(946_684_800_000_000))),
            (i64::MAX, Err(Misfit::Infinite)),
            (i64::MIN, Err(Misfit::Infinite)),
            (i64::MAX - 1, Err(Misfit::Late)),
            (i64::MAX - EPOCH_MICROS, Ok(Value::Timestamp(i64::MAX))),
        ];
        for (micros, expected) in moments {
            assert_eq!(native(&Type::Timestamp, &i64::to_be_bytes(micros)), expected);
        }
        for (days, expected) in [(-10_957, Ok(Value::Date(0))), (i32::MIN, Err(Misfit::Infinite))] {
            assert_eq!(native(&Type::Date, &i32::to_be_bytes(days)), expected);
        }
        let shown = |kind, bytes: &[u8]| {
            String::from_utf8(Form::Native.show(&kind, bytes).into_owned()).unwrap()
        };
        assert_eq!(shown(Type::Date, &i32::MAX.to_be_bytes()), "infinity");
        assert_eq!(shown(Type::Timestamp, &i64::MIN.to_be_bytes()), "-infinity");
        assert!(shown(Type::Timestamp, &(i64::MAX - 1).to_be_bytes()).starts_with("294277-01-0"));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for kind in [Type::Int16, Type::Int32, Type::Int64, Type::Float32, Type::Float64] {
            assert_eq!(native(&kind, &[1, 2, 3]), Err(Misfit::Form));
        }
        assert_eq!(native(&Type::Bool, &[2]), Err(Misfit::Form));
        assert_eq!(Form::Jsonb.parse(&Type::Text, b"\x02{}"), Err(Misfit::Form));
        assert_eq!(Form::Text.parse(&Type::Text, b"\xff"), Err(Misfit::Encoding));
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let bytes: Vec<u8> = (0..16).map(|at| at * 0x11).collect();
        assert_eq!(Form::Uuid.parse(&Type::Text, &bytes), Ok(Value::OwnedText(text.to_owned())));
        assert_eq!(Form::Uuid.parse(&Type::Text, &bytes[1..]), Err(Misfit::Form));
    }

    proptest! {
        #[test]
        fn decimals_are_those_of_the_text(
            value in -99_999_999_999_999_999_999_999_999_999_999_999_999_i128
                ..=99_999_999_999_999_999_999_999_999_999_999_999_999,
            narrow in 0_u32..38,
            scale in 0_u8..=38,
        ) {
            let value = value / 10_i128.pow(narrow);
            prop_assert_eq!(decimal(&sent(value, scale), 38, scale as i8), Ok(value));
            let digits = value.unsigned_abs().to_string().len() as u8;
            if value != 0 && digits > 1 {
                let narrower = decimal(&sent(value, scale), digits - 1, scale as i8);
                prop_assert_eq!(narrower, Err(Misfit::Digits));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let decimal = Type::Decimal { precision: 38, scale: 9 };
            for kind in [Type::Date, Type::Timestamp, decimal, Type::Int64, Type::Text] {
                for form in [Form::Native, Form::Jsonb, Form::Uuid, Form::Text, Form::Printed] {
                    let _ = form.parse(&kind, &bytes);
                    let _ = form.show(&kind, &bytes);
                }
            }
        }
    }
}
