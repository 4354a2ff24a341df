//! MySQL's and MariaDB's types → lake types.
//!
//! | MySQL, MariaDB | lake |
//! |---|---|
//! | `tinyint`, `smallint` (signed), `tinyint unsigned`, `year` | [`Type::Int16`] |
//! | `smallint unsigned`, `mediumint`, `int` (signed) | [`Type::Int32`] |
//! | `int unsigned`, `bigint` (signed) | [`Type::Int64`] |
//! | `bigint unsigned` | [`Type::Decimal`] of 20 digits |
//! | `decimal(p,s)` of at most 38 digits | [`Type::Decimal`] |
//! | any other `decimal` | [`Type::Numeric`]: its text, every digit kept |
//! | `float`, `double` | [`Type::Float32`], [`Type::Float64`] |
//! | `bit(1)` | [`Type::Bool`] |
//! | other `bit(n)`, `binary`, `varbinary`, `blob`s, geometries (SRID and WKB), `vector` | [`Type::Binary`] |
//! | `date` | [`Type::Date`] |
//! | `datetime` | [`Type::LocalTimestamp`] |
//! | `timestamp` | [`Type::Timestamp`] |
//! | `time`, `char`, `varchar`, `text`s, `enum` and `set` (labels), `json`, `uuid`, `inet4`, `inet6` | [`Type::Text`] |
//!
//! A column listed in `text_columns` is [`Type::Text`]: the text that the server writes.

use crate::schema::Type;

/// A type as the source has it, with all that decoding its values takes. Made from
/// [`Column::source_type`](crate::Column::source_type), so that it is the same wherever the column
/// comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An integer of so many bytes.
    Int {
        /// 1, 2, 3, 4 or 8.
        bytes: u8,
        /// Whether its greatest bit is a digit.
        unsigned: bool,
    },
    /// `decimal(precision,scale)`.
    Decimal {
        /// All digits, up to 65.
        precision: u8,
        /// Digits after the point, up to 38.
        scale: u8,
    },
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `bit(n)`.
    Bit(u8),
    /// `year`.
    Year,
    /// `date`.
    Date,
    /// `time(n)`.
    Time(u8),
    /// `datetime(n)`.
    DateTime(u8),
    /// `timestamp(n)`.
    Timestamp(u8),
    /// `char`, `varchar`, `text`s.
    Text,
    /// `binary(n)`, kept without the zeros at its end in the log.
    FixedBinary(u16),
    /// `varbinary`, `blob`s, geometries, `vector`.
    Binary,
    /// `enum`, by its labels.
    Enum(Vec<String>),
    /// `set`, by its labels.
    Set(Vec<String>),
    /// MySQL's `json`.
    Json,
    /// MariaDB's `uuid`.
    Uuid,
    /// MariaDB's `inet4`.
    Inet4,
    /// MariaDB's `inet6`.
    Inet6,
}

impl Kind {
    /// Reads what the catalog calls `COLUMN_TYPE`, up to where this connector adds to it.
    /// `None`: a type that is not understood.
    pub fn parse(source_type: &str) -> Option<Self> {
        let declared = declared(source_type);
        let end = declared.find(['(', ' ']).unwrap_or(declared.len());
        let (name, rest) = declared.split_at(end);
        // MariaDB compresses values of such a column, which is not undone here.
        if rest.contains("COMPRESSED") {
            return None;
        }
        let arguments = arguments(rest);
        let number = |at: usize| arguments.get(at).and_then(|text| text.trim().parse::<u8>().ok());
        let unsigned = rest.contains("unsigned");
        let int = |bytes| Kind::Int { bytes, unsigned };
        Some(match name.to_ascii_lowercase().as_str() {
            "tinyint" => int(1),
            "smallint" => int(2),
            "mediumint" => int(3),
            "int" | "integer" => int(4),
            "bigint" => int(8),
            "decimal" | "numeric" => {
                Kind::Decimal { precision: number(0).unwrap_or(10), scale: number(1).unwrap_or(0) }
            }
            "float" => Kind::Float,
            "double" | "real" => Kind::Double,
            "bit" => Kind::Bit(number(0).unwrap_or(1)),
            "year" => Kind::Year,
            "date" => Kind::Date,
            "time" => Kind::Time(number(0).unwrap_or(0)),
            "datetime" => Kind::DateTime(number(0).unwrap_or(0)),
            "timestamp" => Kind::Timestamp(number(0).unwrap_or(0)),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
            "binary" => {
                let length = arguments.first().map_or(Some(1), |text| text.trim().parse().ok());
                Kind::FixedBinary(length?)
            }
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector" => {
                Kind::Binary
            }
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Kind::Binary,
            "enum" => Kind::Enum(labels(rest)?),
            "set" => Kind::Set(labels(rest)?),
            "json" => Kind::Json,
            "uuid" => Kind::Uuid,
            "inet4" => Kind::Inet4,
            "inet6" => Kind::Inet6,
            _ => return None,
        })
    }

    /// The lake type of a column of this type.
    pub fn lake_type(&self) -> Type {
        match *self {
            Kind::Int { bytes: 1, .. } | Kind::Int { bytes: 2, unsigned: false } | Kind::Year => {
                Type::Int16
            }
            Kind::Int { bytes: 2 | 3, .. } | Kind::Int { bytes: 4, unsigned: false } => Type::Int32,
            Kind::Int { bytes: 8, unsigned: true } => Type::Decimal { precision: 20, scale: 0 },
            Kind::Int { .. } => Type::Int64,
            Kind::Decimal { precision, scale } if precision <= 38 => {
                Type::Decimal { precision, scale: scale as i8 }
            }
            Kind::Decimal { .. } => Type::Numeric,
            Kind::Float => Type::Float32,
            Kind::Double => Type::Float64,
            Kind::Bit(1) => Type::Bool,
            Kind::Bit(_) | Kind::FixedBinary(_) | Kind::Binary => Type::Binary,
            Kind::Date => Type::Date,
            Kind::DateTime(_) => Type::LocalTimestamp,
            Kind::Timestamp(_) => Type::Timestamp,
            Kind::Time(_)
            | Kind::Text
            | Kind::Enum(_)
            | Kind::Set(_)
            | Kind::Json
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6 => Type::Text,
        }
    }

    /// The lake type when the configuration wants text; `None` where the server's text can't be
    /// had from the log, or is none.
    pub fn text_type(&self) -> Option<Type> {
        match self {
            Kind::Float | Kind::Double | Kind::Bit(_) | Kind::FixedBinary(_) | Kind::Binary => None,
            Kind::Decimal { .. } => Some(Type::Numeric),
            _ => Some(Type::Text),
        }
    }

    /// Whether values are texts in a character set.
    pub fn has_charset(&self) -> bool {
        matches!(self, Kind::Text | Kind::Enum(_) | Kind::Set(_))
    }

    /// Whether two keys of this type are equal exactly when their lake values are; texts depend on
    /// their collation besides.
    pub fn is_key(&self) -> bool {
        match self {
            // A float's text is not exact; the others compare otherwise than they read.
            Kind::Float | Kind::Double | Kind::Json | Kind::Set(_) | Kind::Bit(2..) => false,
            // What was no label when it was stored reads as the empty one.
            Kind::Enum(labels) => labels.iter().all(|label| !label.is_empty()),
            _ => true,
        }
    }
}

/// What a [`source_type`] says of the declaration: what stands before the line break.
pub fn declared(source_type: &str) -> &str {
    source_type.split('\n').next().unwrap_or_default()
}

/// The collation that a source type names.
pub fn collation(source_type: &str) -> Option<&str> {
    source_type.split('\n').find_map(|line| line.strip_prefix("collate "))
}

/// How this connector writes a type: the declaration, and on lines of their own the collation and
/// the expression of a generated column, as far as it has them.
pub fn source_type(column_type: &str, collation: Option<&str>, expression: &str) -> String {
    let mut text = column_type.replace('\n', "\\n");
    if let Some(collation) = collation {
        text.push_str("\ncollate ");
        text.push_str(collation);
    }
    if !expression.is_empty() {
        text.push_str("\nas ");
        text.push_str(&expression.replace('\n', " "));
    }
    text
}

/// `(10,2) unsigned` → `10`, `2`.
fn arguments(rest: &str) -> Vec<&str> {
    let inner = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    inner.map_or(Vec::new(), |(inner, _)| inner.split(',').collect())
}

/// `('a','it''s')` → `a`, `it's`, with the escapes that the catalog writes.
fn labels(rest: &str) -> Option<Vec<String>> {
    let mut rest = rest.strip_prefix('(')?;
    let mut labels = Vec::new();
    loop {
        let mut label = String::new();
        let mut characters = rest.strip_prefix('\'')?.char_indices().peekable();
        let end = loop {
            match characters.next()? {
                (_, '\'') if characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                    characters.next();
                    label.push('\'');
                }
                (at, '\'') => break at + 2,
                (_, '\\') => label.push(match characters.next()?.1 {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                (_, character) => label.push(character),
            }
        };
        labels.push(label);
        rest = rest.get(end..)?;
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.starts_with(')').then_some(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lake(text: &str) -> Type {
        Kind::parse(text).unwrap().lake_type()
    }

    #[test]
    fn every_number_has_room() {
        assert_eq!(lake("tinyint(1)"), Type::Int16);
        assert_eq!(lake("tinyint(3) unsigned"), Type::Int16);
        assert_eq!(lake("smallint(5) unsigned zerofill"), Type::Int32);
        assert_eq!(lake("mediumint unsigned"), Type::Int32);
        assert_eq!(lake("int unsigned"), Type::Int64);
        assert_eq!(lake("bigint(20) unsigned"), Type::Decimal { precision: 20, scale: 0 });
        assert_eq!(lake("decimal(38,30)"), Type::Decimal { precision: 38, scale: 30 });
        assert_eq!(lake("decimal(65,30)"), Type::Numeric);
        assert_eq!(lake("bit(1)"), Type::Bool);
        assert_eq!(lake("year(4)"), Type::Int16);
        assert!(Kind::parse("hologram(3)").is_none());
    }

    #[test]
    fn labels_hold_any_character() {
        let kind = Kind::parse("enum('in,active','it''s','','a\\\\b',')')\ncollate x");
        let labels = ["in,active", "it's", "", "a\\b", ")"].map(str::to_owned);
        assert_eq!(kind, Some(Kind::Enum(labels.to_vec())));
        assert_eq!(Kind::parse("set('a'"), None);
    }

    #[test]
    fn a_source_type_keeps_its_parts_apart() {
        let text = source_type("varchar(20)", Some("latin1_swedish_ci"), "upper(`a`)");
        assert_eq!(declared(&text), "varchar(20)");
        assert_eq!(collation(&text), Some("latin1_swedish_ci"));
        assert_eq!(Kind::parse(&text), Some(Kind::Text));
        assert_eq!(source_type("int", None, ""), "int");
    }
}
