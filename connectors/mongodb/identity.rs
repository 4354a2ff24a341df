//! What identifies a document: its `_id`, as a value of the column `_id` and as the text of a bound.
//!
//! MongoDB calls two `_id`s one when they compare equal: numbers by value whatever their type (the
//! int 1, the long 1, the double 1.0 and the Decimal128 1 are one), everything else by type and
//! value, documents field by field in order. A collection whose `_id`s are all of one kind gets a
//! plain column; any other one gets text: canonical Extended JSON in which equal numbers are written
//! alike, at any depth. So two documents are the same exactly when their columns are equal, which
//! is what [`key`](crate::key) compares.

use std::borrow::Cow;

use ::mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, Timestamp, oid::ObjectId, spec::BinarySubtype,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::element::{
    ARRAY, DECIMAL, DOCUMENT, DOUBLE, Element, Elements, INT32, INT64, Malformed, OBJECT_ID, STRING,
};
use super::json;
use crate::change::Value;
use crate::error::{Error, Result};
use crate::schema::Type;

/// Of which kind all `_id`s of a collection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// `objectId`: 24 hex digits.
    ObjectId,
    /// `string`: as it is.
    Text,
    /// `int` or `long`.
    Int,
    /// Anything else, or a mixture.
    Any,
}

impl IdKind {
    /// The kind of the single `_id` that `element` is.
    pub fn of(element: &Element<'_>) -> Self {
        match element.kind {
            OBJECT_ID => Self::ObjectId,
            STRING => Self::Text,
            INT32 | INT64 => Self::Int,
            _ => Self::Any,
        }
    }

    /// The least kind that holds `self` and `other`.
    pub fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }

    /// What [`Column::source_type`](crate::Column::source_type) says.
    pub fn source_type(self) -> &'static str {
        match self {
            Self::ObjectId => "objectId",
            Self::Text => "string",
            Self::Int => "long",
            Self::Any => "any",
        }
    }

    /// The kind whose [`source_type`](Self::source_type) is `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ObjectId, Self::Text, Self::Int, Self::Any]
            .into_iter()
            .find(|kind| kind.source_type() == text)
    }

    /// The lake's type of the column.
    pub fn lake_type(self) -> Type {
        match self {
            Self::Int => Type::Int64,
            _ => Type::Text,
        }
    }

    /// The column's value for `element`; `None` when it isn't of this kind.
    ///
    /// # Errors
    /// When the element is malformed.
    pub fn value<'a>(self, element: &Element<'a>) -> Result<Option<Value<'a>>, Malformed> {
        if self != Self::Any && self != Self::of(element) {
            return Ok(None);
        }
        Ok(Some(match self {
            Self::Int => Value::Int(element.integer().unwrap_or_default()),
            Self::Text => Value::Text(element.text()?),
            Self::ObjectId | Self::Any => Value::OwnedText(self.text(element)?.into_owned()),
        }))
    }

    /// The text by which `element` is named in ranges, lists of keys and errors.
    ///
    /// # Errors
    /// When the element is malformed.
    pub fn text<'a>(self, element: &Element<'a>) -> Result<Cow<'a, str>, Malformed> {
        let mut out = String::new();
        match (self, element.kind) {
            (Self::Text, STRING) => return Ok(Cow::Borrowed(element.text()?)),
            (Self::ObjectId, OBJECT_ID) => json::hex(element.value, &mut out),
            (Self::Int, INT32 | INT64) => {
                out = element.integer().unwrap_or_default().to_string();
            }
            _ => normal(element, &mut out)?,
        }
        Ok(Cow::Owned(out))
    }

    /// The value that `text`, made by [`text`](Self::text) or read from the column, stands for.
    ///
    /// # Errors
    /// When it isn't such a text.
    pub fn bson(self, text: &str) -> Result<Bson> {
        let wrong = || Error::internal(format!("'{text}' is not the text of an _id"));
        match self {
            Self::ObjectId => ObjectId::parse_str(text).map(Bson::ObjectId).map_err(|_| wrong()),
            Self::Text => Ok(Bson::String(text.to_owned())),
            Self::Int => text.parse().map(Bson::Int64).map_err(|_| wrong()),
            Self::Any => {
                let node: Node = serde_json::from_str(text).map_err(|_| wrong())?;
                node.bson().ok_or_else(wrong)
            }
        }
    }
}

/// Appends `element` as Extended JSON, equal numbers alike.
fn normal(element: &Element<'_>, out: &mut String) -> Result<(), Malformed> {
    match element.kind {
        INT32 | INT64 => {
            wrap("$numberLong", &element.integer().unwrap_or_default().to_string(), out)
        }
        DOUBLE => number(&exact(element.double().unwrap_or_default()), element, out)?,
        DECIMAL => number(&json::decimal(element.value), element, out)?,
        DOCUMENT | ARRAY => {
            let array = element.kind == ARRAY;
            out.push(if array { '[' } else { '{' });
            let mut first = true;
            for inner in Elements::new(element.value)? {
                let inner = inner?;
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                if !array {
                    json::quoted(inner.name, out);
                    out.push(':');
                }
                normal(&inner, out)?;
            }
            out.push(if array { ']' } else { '}' });
        }
        _ => json::value(element, out)?,
    }
    Ok(())
}

fn wrap(name: &str, text: &str, out: &mut String) {
    out.extend(["{\"", name, "\":\"", text, "\"}"]);
}

/// A double with all its digits, of which a binary fraction may have a thousand.
fn exact(value: f64) -> String {
    match value.is_finite() {
        true if value.fract() == 0.0 => format!("{value:.0}"),
        true => format!("{value:.1074}"),
        false => json::double(value),
    }
}

/// Appends the number that `text` writes: as a long where it is one, else as a decimal of its
/// significant digits where a Decimal128 has room for them, else as it is.
fn number(text: &str, element: &Element<'_>, out: &mut String) -> Result<(), Malformed> {
    let Some((negative, digits, exponent)) = digits_of(text) else {
        // NaN and the infinities are written alike for both types.
        wrap("$numberDouble", text.trim_start_matches('+'), out);
        return Ok(());
    };
    let sign = if negative && digits != "0" { "-" } else { "" };
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if exponent >= 0 && length.saturating_add(exponent) <= 19 {
        let whole = format!("{sign}{digits}{}", "0".repeat(exponent as usize));
        if whole.parse::<i64>().is_ok() {
            wrap("$numberLong", &whole, out);
            return Ok(());
        }
    }
    match digits.len() <= 34 && (-6176..=6111).contains(&exponent) {
        true => wrap("$numberDecimal", &format!("{sign}{digits}E{exponent}"), out),
        false => json::value(element, out)?,
    }
    Ok(())
}

/// Sign, digits without zeros at either end, and exponent of a decimal number; of zero the digit 0.
fn digits_of(text: &str) -> Option<(bool, String, i64)> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match body.split_once(['E', 'e']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (body, 0_i64),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((false, "0".to_owned(), 0));
    }
    let zeros = digits.len() - trimmed.len();
    let exponent = exponent - fraction.len() as i64 + zeros as i64;
    Some((negative, trimmed.to_owned(), exponent))
}

/// JSON whose objects keep the order of their names.
enum Node {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("canonical Extended JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

impl Node {
    /// The value it writes; `None` when it isn't Extended JSON of a type that an `_id` may have.
    fn bson(self) -> Option<Bson> {
        match self {
            Self::Null => Some(Bson::Null),
            Self::Bool(value) => Some(Bson::Boolean(value)),
            Self::Text(text) => Some(Bson::String(text)),
            Self::Number(_) => None,
            Self::List(items) => {
                items.into_iter().map(Node::bson).collect::<Option<Vec<_>>>().map(Bson::Array)
            }
            Self::Map(mut entries) => match entries.as_mut_slice() {
                [(name, inner)] if name.starts_with('$') => {
                    wrapped(name, std::mem::replace(inner, Node::Null))
                }
                _ => {
                    let mut document = Document::new();
                    for (name, inner) in entries {
                        document.insert(name, inner.bson()?);
                    }
                    Some(Bson::Document(document))
                }
            },
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn wrapped(name: &str, inner: Node) -> Option<Bson> {
    match (name, inner) {
        ("$numberLong", inner) => inner.text()?.parse().ok().map(Bson::Int64),
        ("$numberInt", inner) => inner.text()?.parse().ok().map(Bson::Int32),
        ("$numberDouble", inner) => match inner.text()? {
            "Infinity" => Some(Bson::Double(f64::INFINITY)),
            "-Infinity" => Some(Bson::Double(f64::NEG_INFINITY)),
            text => text.parse().ok().map(Bson::Double),
        },
        ("$numberDecimal", inner) => inner.text()?.parse::<Decimal128>().ok().map(Bson::Decimal128),
        ("$oid", inner) => ObjectId::parse_str(inner.text()?).ok().map(Bson::ObjectId),
        ("$symbol", inner) => inner.text().map(|text| Bson::Symbol(text.to_owned())),
        ("$date", inner) => match inner.bson()? {
            Bson::Int64(millis) => Some(Bson::DateTime(DateTime::from_millis(millis))),
            _ => None,
        },
        ("$minKey", _) => Some(Bson::MinKey),
        ("$maxKey", _) => Some(Bson::MaxKey),
        ("$timestamp", Node::Map(parts)) => match parts.as_slice() {
            [(_, Node::Number(time)), (_, Node::Number(increment))] => {
                let (time, increment) =
                    (u32::try_from(*time).ok()?, u32::try_from(*increment).ok()?);
                Some(Bson::Timestamp(Timestamp { time, increment }))
            }
            _ => None,
        },
        ("$binary", Node::Map(parts)) => match parts.as_slice() {
            [(_, Node::Text(bytes)), (_, Node::Text(subtype))] => Some(Bson::Binary(Binary {
                subtype: BinarySubtype::from(u8::from_str_radix(subtype, 16).ok()?),
                bytes: unbase64(bytes)?,
            })),
            _ => None,
        },
        _ => None,
    }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let (mut out, mut bits, mut held) = (Vec::with_capacity(digits.len()), 0_u32, 0);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xfff_ffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document, text};
    use super::super::element::{BINARY, BOOL, DATE, MAX_KEY, MIN_KEY, TIMESTAMP, find};
    use super::*;

    fn decimal(text: &str) -> (u8, Vec<u8>) {
        (DECIMAL, text.parse::<Decimal128>().unwrap().bytes().to_vec())
    }

    fn double(value: f64) -> (u8, Vec<u8>) {
        (DOUBLE, value.to_le_bytes().to_vec())
    }

    fn int(value: i32) -> (u8, Vec<u8>) {
        (INT32, value.to_le_bytes().to_vec())
    }

    fn long(value: i64) -> (u8, Vec<u8>) {
        (INT64, value.to_le_bytes().to_vec())
    }

    fn key((kind, value): (u8, Vec<u8>)) -> String {
        let bytes = document(&[(kind, "_id", value)]);
        let element = find(&bytes, "_id").unwrap().unwrap();
        IdKind::Any.text(&element).unwrap().into_owned()
    }

    #[test]
    fn equal_numbers_are_one_key_whatever_their_type() {
        let ones = [int(1), long(1), double(1.0), decimal("1"), decimal("1.000"), decimal("10E-1")];
        assert!(ones.into_iter().all(|one| key(one) == r#"{"$numberLong":"1"}"#));
        assert_eq!(key(double(-0.0)), key(int(0)));
        assert_eq!(key(decimal("-0E+3")), key(int(0)));
        assert_eq!(key(double(0.5)), key(decimal("0.50")));
        assert_eq!(key(double(f64::NAN)), key(decimal("NaN")));
        assert_eq!(key(double(f64::NEG_INFINITY)), key(decimal("-Infinity")));
        assert_eq!(key(double(9_007_199_254_740_992.0)), key(long(9_007_199_254_740_992)));
        let nested = |one| {
            (
                DOCUMENT,
                document(&[{
                    let (kind, value) = one;
                    (kind, "a", value)
                }]),
            )
        };
        assert_eq!(key(nested(int(1))), key(nested(double(1.0))));
    }

    #[test]
    fn different_values_are_different_keys() {
        // 0.1 as a double is a little more than 0.1.
        assert_ne!(key(double(0.1)), key(decimal("0.1")));
        assert_ne!(key(long(i64::MAX)), key(double(i64::MAX as f64)));
        assert_ne!(key(int(1)), key((STRING, text("1"))));
        assert_ne!(key(int(1)), key((BOOL, vec![1])));
        let one = 1_i32.to_le_bytes().to_vec();
        let ab = document(&[(INT32, "a", one.clone()), (INT32, "b", one.clone())]);
        let ba = document(&[(INT32, "b", one.clone()), (INT32, "a", one)]);
        assert_ne!(key((DOCUMENT, ab)), key((DOCUMENT, ba)));
    }

    #[test]
    fn a_key_reads_back_to_an_equal_value() {
        let binary = vec![3, 0, 0, 0, 5, 1, 2, 3];
        let nested = document(&[(INT32, "b", vec![1, 0, 0, 0]), (STRING, "a", text("x"))]);
        let cases = [
            int(-7),
            long(i64::MIN),
            double(10.5),
            double(1e300),
            double(f64::NAN),
            decimal("1.25"),
            decimal("1E+6111"),
            (STRING, text("{\"a\"}")),
            (OBJECT_ID, vec![7; 12]),
            (BOOL, vec![0]),
            (DATE, vec![255; 8]),
            (TIMESTAMP, vec![1; 8]),
            (MIN_KEY, vec![]),
            (MAX_KEY, vec![]),
            (BINARY, binary),
            (DOCUMENT, nested),
        ];
        for case in cases {
            let text = key(case);
            let value = IdKind::Any.bson(&text).unwrap();
            let again = Document::from_iter([("_id".to_owned(), value)]);
            let bytes = ::mongodb::bson::RawDocumentBuf::try_from(&again).unwrap();
            let element = find(bytes.as_bytes(), "_id").unwrap().unwrap();
            assert_eq!(IdKind::Any.text(&element).unwrap(), text);
        }
        assert!(IdKind::Any.bson("{\"$numberLong\":\"x\"}").is_err());
        assert!(IdKind::ObjectId.bson("12").is_err());
    }

    #[test]
    fn a_plain_column_takes_only_its_own_kind() {
        let bytes = document(&[(STRING, "_id", text("507f1f77bcf86cd799439011"))]);
        let element = find(&bytes, "_id").unwrap().unwrap();
        assert_eq!(IdKind::ObjectId.value(&element), Ok(None));
        assert_eq!(IdKind::Text.value(&element), Ok(Some(Value::Text("507f1f77bcf86cd799439011"))));
        assert_eq!(IdKind::ObjectId.join(IdKind::Text), IdKind::Any);
    }
}
