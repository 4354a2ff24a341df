//! What type a field's column has, and a field's value as that type.
//!
//! | values of the field | column |
//! | --- | --- |
//! | `bool` | `boolean` |
//! | `int`, `long` | `long` |
//! | `double`, alone or with integers up to 2^53 either way | `double` |
//! | `string` | `string` |
//! | `objectId` | `string`, 24 hex digits |
//! | `date` | `timestamp`, as far as microseconds in 64 bits reach |
//! | `decimal` | `string`, every digit and the exponent |
//! | `binData` of subtype 0 | `binary` |
//! | `binData` of subtype 4 and 16 bytes | `string`, a UUID |
//! | anything else, and any mixture | `string`, canonical Extended JSON |
//!
//! A null and a field that is not there are null in every column; the column of whole documents
//! tells them apart.

use std::borrow::Cow;

use super::element::{
    BINARY, BOOL, DATE, DECIMAL, DOUBLE, Element, INT32, INT64, Malformed, OBJECT_ID, STRING,
};
use super::json;
use crate::change::Value;
use crate::schema::Type;

/// The largest integer up to which every one is a double: 2^53.
const EXACT: u64 = 1 << 53;

/// The type of a field's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int` and `long`.
    Long,
    /// `double`, and integers that are doubles, too.
    Double,
    /// `string`.
    Text,
    /// `objectId`.
    ObjectId,
    /// `date`.
    Date,
    /// `decimal`.
    Decimal,
    /// `binData` of subtype 0.
    Binary,
    /// `binData` of subtype 4.
    Uuid,
    /// Everything, as canonical Extended JSON.
    Json,
}

/// All of them with what [`Column::source_type`](crate::Column::source_type) says.
const KINDS: [(Kind, &str); 10] = [
    (Kind::Bool, "bool"),
    (Kind::Long, "long"),
    (Kind::Double, "double"),
    (Kind::Text, "string"),
    (Kind::ObjectId, "objectId"),
    (Kind::Date, "date"),
    (Kind::Decimal, "decimal"),
    (Kind::Binary, "binData"),
    (Kind::Uuid, "uuid"),
    (Kind::Json, "json"),
];

impl Kind {
    /// The narrowest kind that holds the value of `element`, which isn't null.
    pub fn of(element: &Element<'_>) -> Self {
        let narrow = match element.kind {
            BOOL => Self::Bool,
            INT32 | INT64 => Self::Long,
            DOUBLE => Self::Double,
            STRING => Self::Text,
            OBJECT_ID => Self::ObjectId,
            DATE => Self::Date,
            DECIMAL => Self::Decimal,
            BINARY => match element.binary() {
                Some((0, _)) => Self::Binary,
                Some((4, bytes)) if bytes.len() == 16 => Self::Uuid,
                _ => Self::Json,
            },
            _ => Self::Json,
        };
        if narrow.holds(element) { narrow } else { Self::Json }
    }

    /// The least kind that holds what this one holds, and the value of `element`.
    pub fn widened(self, element: &Element<'_>) -> Self {
        if self.holds(element) {
            return self;
        }
        match (self, Self::of(element)) {
            (Self::Long, Self::Double) => Self::Double,
            _ => Self::Json,
        }
    }

    /// Whether the value of `element`, which isn't null, is one of this kind.
    pub fn holds(self, element: &Element<'_>) -> bool {
        match (self, element.kind) {
            (Self::Json, _) => true,
            (Self::Bool, BOOL)
            | (Self::Long, INT32 | INT64)
            | (Self::Text, STRING)
            | (Self::ObjectId, OBJECT_ID)
            | (Self::Double, DOUBLE | INT32)
            | (Self::Decimal, DECIMAL) => true,
            (Self::Double, INT64) => is_exact(element),
            (Self::Date, DATE) => micros(element).is_some(),
            (Self::Binary, BINARY) => matches!(element.binary(), Some((0, _))),
            (Self::Uuid, BINARY) => {
                matches!(element.binary(), Some((4, bytes)) if bytes.len() == 16)
            }
            _ => false,
        }
    }

    /// The lake's type.
    pub fn lake_type(self) -> Type {
        match self {
            Self::Bool => Type::Bool,
            Self::Long => Type::Int64,
            Self::Double => Type::Float64,
            Self::Date => Type::Timestamp,
            Self::Binary => Type::Binary,
            _ => Type::Text,
        }
    }

    /// What [`Column::source_type`](crate::Column::source_type) says.
    pub fn source_type(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("json", |(_, name)| name)
    }

    /// The kind whose [`source_type`](Self::source_type) is `text`.
    pub fn parse(text: &str) -> Option<Self> {
        KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind)
    }

    /// The value of `element` as this kind; `None` when it doesn't hold it.
    ///
    /// # Errors
    /// When the element is malformed.
    pub fn value<'a>(self, element: &Element<'a>) -> Result<Option<Value<'a>>, Malformed> {
        if element.is_null() {
            return Ok(Some(Value::Null));
        }
        if !self.holds(element) {
            return Ok(None);
        }
        Ok(Some(match self {
            Self::Bool => match element.value {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(Malformed("a bool is neither true nor false")),
            },
            Self::Long => Value::Int(element.integer().unwrap_or_default()),
            Self::Double => {
                let integer = || element.integer().unwrap_or_default() as f64;
                Value::Float64(element.double().unwrap_or_else(integer))
            }
            Self::Text => Value::Text(element.text()?),
            Self::Date => Value::Timestamp(micros(element).unwrap_or_default()),
            Self::Decimal => Value::OwnedText(json::decimal(element.value)),
            Self::Binary => Value::Binary(Cow::Borrowed(bytes(element))),
            Self::ObjectId => {
                let mut text = String::with_capacity(24);
                json::hex(element.value, &mut text);
                Value::OwnedText(text)
            }
            Self::Uuid => Value::OwnedText(uuid(bytes(element))),
            Self::Json => {
                let mut text = String::new();
                json::value(element, &mut text)?;
                Value::OwnedText(text)
            }
        }))
    }
}

/// Whether the integer is one that a double holds exactly, as every smaller one is.
pub fn is_exact(element: &Element<'_>) -> bool {
    element.integer().is_none_or(|value| value.unsigned_abs() <= EXACT)
}

fn micros(element: &Element<'_>) -> Option<i64> {
    element.date()?.checked_mul(1_000)
}

fn bytes<'a>(element: &Element<'a>) -> &'a [u8] {
    element.binary().map_or(&[], |(_, bytes)| bytes)
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        json::hex(&[*byte], &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document, text};
    use super::super::element::{ARRAY, NULL, find};
    use super::*;

    /// What `kind` makes of the value, or why it can't.
    fn value(kind: Kind, element_kind: u8, bytes: Vec<u8>) -> Option<String> {
        let bytes = document(&[(element_kind, "x", bytes)]);
        let element = find(&bytes, "x").unwrap().unwrap();
        kind.value(&element).unwrap().map(|value| format!("{value:?}"))
    }

    fn widened(kind: Kind, element_kind: u8, bytes: Vec<u8>) -> Kind {
        let bytes = document(&[(element_kind, "x", bytes)]);
        kind.widened(&find(&bytes, "x").unwrap().unwrap())
    }

    fn binary(subtype: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as i32).to_le_bytes().to_vec();
        out.push(subtype);
        out.extend(bytes);
        out
    }

    #[test]
    fn integers_become_doubles_only_where_nothing_is_lost() {
        let long = |value: i64| value.to_le_bytes().to_vec();
        assert_eq!(value(Kind::Long, INT64, long(i64::MIN)).unwrap(), format!("Int({})", i64::MIN));
        assert_eq!(
            value(Kind::Double, INT64, long(1 << 53)).unwrap(),
            "Float64(9007199254740992.0)"
        );
        assert_eq!(value(Kind::Double, INT64, long((1 << 53) + 1)), None);
        assert_eq!(widened(Kind::Long, DOUBLE, 0.5_f64.to_le_bytes().to_vec()), Kind::Double);
        assert_eq!(widened(Kind::Double, INT64, long((1 << 53) + 1)), Kind::Json);
        assert_eq!(widened(Kind::Double, INT32, vec![1, 0, 0, 0]), Kind::Double);
        assert_eq!(widened(Kind::Long, STRING, text("a")), Kind::Json);
    }

    #[test]
    fn a_date_that_microseconds_do_not_reach_is_kept_as_json() {
        let date = |millis: i64| millis.to_le_bytes().to_vec();
        assert_eq!(value(Kind::Date, DATE, date(-1)).unwrap(), "Timestamp(-1000)");
        let late = i64::MAX / 1_000 + 1;
        assert_eq!(value(Kind::Date, DATE, date(late)), None);
        assert_eq!(widened(Kind::Date, DATE, date(late)), Kind::Json);
        assert!(value(Kind::Json, DATE, date(late)).unwrap().contains(&late.to_string()));
    }

    #[test]
    fn binary_of_other_subtypes_keeps_them() {
        assert_eq!(value(Kind::Binary, BINARY, binary(0, &[1])).unwrap(), "Binary([1])");
        assert_eq!(value(Kind::Binary, BINARY, binary(5, &[1])), None);
        let uuid = value(Kind::Uuid, BINARY, binary(4, &[0x1f; 16])).unwrap();
        assert!(uuid.contains("1f1f1f1f-1f1f-1f1f-1f1f-1f1f1f1f1f1f"), "{uuid}");
        assert_eq!(value(Kind::Uuid, BINARY, binary(3, &[1; 16])), None);
    }

    #[test]
    fn null_is_null_in_every_kind() {
        for (kind, name) in KINDS {
            assert_eq!(value(kind, NULL, vec![]).unwrap(), "Null");
            assert_eq!((kind.source_type(), Kind::parse(name)), (name, Some(kind)));
        }
    }

    #[test]
    fn a_mixture_keeps_texts_apart_from_numbers() {
        assert!(value(Kind::Json, STRING, text("1")).unwrap().contains("\\\"1\\\""));
        assert!(value(Kind::Json, INT32, vec![1, 0, 0, 0]).unwrap().contains("$numberInt"));
        assert!(value(Kind::Json, ARRAY, document(&[])).unwrap().contains("[]"));
    }
}
