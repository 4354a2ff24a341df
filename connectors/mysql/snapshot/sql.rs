//! The statements that read rows. Names and keys are quoted here and nowhere else.

use crate::mysql::catalog::{Table, quoted_table};
use crate::mysql::charset::of_collation;
use crate::mysql::connection::{literal, quoted};
use crate::mysql::types::{Kind, collation};
use crate::schema::Column;
use crate::source::{KeyText, Range};

/// Writes statements that read one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Select<'a>(pub &'a Table);

impl Select<'_> {
    /// The first `limit` rows of `range`.
    pub(super) fn next(&self, range: &Range, limit: u64) -> String {
        let mut conditions = Vec::new();
        if let Some(after) = &range.after {
            conditions.push(self.bound(after, ">", ">=", false));
        }
        if let Some(until) = &range.until {
            conditions.push(self.bound(until, "<", "<=", true));
        }
        let condition = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let key = self.key().map(|(_, name, _)| name).collect::<Vec<_>>().join(", ");
        let (columns, from) = (self.columns(), self.along_the_index());
        format!("SELECT {columns} FROM {from}{condition} ORDER BY {key} LIMIT {limit}")
    }

    /// The rows of `keys`.
    pub(super) fn keys(&self, keys: &[KeyText]) -> String {
        let names: Vec<_> = self.key().map(|(_, name, _)| name).collect();
        let values = |key: &KeyText| {
            let values = self.key().map(|(part, _, column)| constant(column, key.get(part)));
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        let keys: Vec<_> = keys.iter().map(values).collect();
        let (columns, from) = (self.columns(), self.along_the_index());
        let names = names.join(", ");
        format!("SELECT {columns} FROM {from} WHERE ({names}) IN ({})", keys.join(", "))
    }

    /// All rows.
    pub(super) fn all(&self) -> String {
        format!("SELECT {} FROM {}", self.columns(), quoted_table(&self.0.schema.id))
    }

    /// Nothing; but from here to the end of the transaction nobody changes the definition.
    pub(super) fn nothing(&self) -> String {
        format!("SELECT 1 FROM {} LIMIT 0", quoted_table(&self.0.schema.id))
    }

    /// The least and the greatest key of a table whose key is one column.
    pub(super) fn ends(&self) -> String {
        let key = self.key().map(|(_, name, _)| name).collect::<Vec<_>>().join(", ");
        format!("SELECT MIN({key}), MAX({key}) FROM {}", quoted_table(&self.0.schema.id))
    }

    /// The key `distance` rows behind `after`, in the key's own order: a walk along the index.
    pub(super) fn step(&self, after: Option<&KeyText>, distance: u64) -> String {
        let condition = match after {
            Some(after) => format!(" WHERE {}", self.bound(after, ">", ">=", false)),
            None => String::new(),
        };
        let (key, from) = (self.key_in_schema_order(), self.along_the_index());
        let order = self.key().map(|(_, name, _)| name).collect::<Vec<_>>().join(", ");
        format!("SELECT {key} FROM {from}{condition} ORDER BY {order} LIMIT 1 OFFSET {distance}")
    }

    fn key_in_schema_order(&self) -> String {
        let columns = self.0.schema.key().iter().filter_map(|&at| self.0.schema.columns.get(at));
        columns.map(select).collect::<Vec<_>>().join(", ")
    }

    fn along_the_index(&self) -> String {
        let index = quoted(&self.0.index);
        format!("{} FORCE INDEX ({index})", quoted_table(&self.0.schema.id))
    }

    fn columns(&self) -> String {
        self.0.schema.columns.iter().map(select).collect::<Vec<_>>().join(", ")
    }

    /// The key's columns in the order of its index, each with its place in the key.
    fn key(&self) -> impl Iterator<Item = (usize, String, &Column)> {
        let schema = &self.0.schema;
        self.0.order.iter().filter_map(|&part| {
            let column = schema.columns.get(*schema.key().get(part)?)?;
            Some((part, quoted(&column.name), column))
        })
    }

    /// A comparison of the key with a bound. The server walks its index for the first column's part
    /// of it; a comparison of rows it would work out for every row.
    fn bound(&self, key: &KeyText, beyond: &str, from: &str, inclusive: bool) -> String {
        let parts: Vec<_> = self
            .key()
            .map(|(part, name, column)| (name, constant(column, key.get(part))))
            .collect();
        let mut condition = String::new();
        for (at, (name, value)) in parts.iter().enumerate().rev() {
            let last = at + 1 == parts.len();
            condition = match last {
                true if inclusive => format!("{name} {from} {value}"),
                true => format!("{name} {beyond} {value}"),
                false => format!("{name} {beyond} {value} OR ({name} = {value} AND ({condition}))"),
            };
        }
        match parts.as_slice() {
            [_] | [] => format!("({condition})"),
            [(name, value), ..] => format!("{name} {from} {value} AND ({condition})"),
        }
    }
}

/// How a column is asked for, so that its text is exact.
fn select(column: &Column) -> String {
    let name = quoted(&column.name);
    match Kind::parse(&column.source_type) {
        // The text of a `float` has six digits, that of a `double(m,d)` d behind the point; a
        // product is a double with all of them.
        Some(Kind::Float | Kind::Double) => format!("{name} * 1e0"),
        Some(Kind::Uuid | Kind::Inet6) => format!("CAST({name} AS BINARY(16))"),
        Some(Kind::Inet4) => format!("CAST({name} AS BINARY(4))"),
        _ => name,
    }
}

/// A key's value as a constant that compares as the column does.
fn constant(column: &Column, text: Option<&String>) -> String {
    let text = text.map_or("", String::as_str);
    let number = || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !digits.is_empty()
    };
    match Kind::parse(&column.source_type) {
        Some(Kind::Int { .. } | Kind::Decimal { .. } | Kind::Year) if number() => text.to_owned(),
        Some(Kind::Bit(_)) => if text == "true" { "1" } else { "0" }.to_owned(),
        Some(Kind::Binary | Kind::FixedBinary(_)) => {
            format!("x'{}'", text.strip_prefix("\\x").unwrap_or_default())
        }
        // The server orders labels by their place, and compares with a number likewise.
        Some(Kind::Enum(labels)) => {
            let place = labels.iter().position(|label| label == text);
            place.map_or(0, |place| place + 1).to_string()
        }
        Some(Kind::Timestamp(_)) => literal(text.trim_end_matches("+00")),
        Some(Kind::Text) => match collation(&column.source_type) {
            Some(collation) => {
                let (text, set) = (literal(text), of_collation(collation));
                format!("CONVERT({text} USING {set}) COLLATE {collation}")
            }
            None => literal(text),
        },
        _ => literal(text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::{Compare, Identity, TableId, TableSchema};

    fn table(types: &[(&str, &str)], order: Vec<usize>) -> Table {
        let column = |(name, source_type): &(&str, &str)| Column {
            id: 1,
            name: (*name).to_owned(),
            kind: Kind::parse(source_type).unwrap().lake_type(),
            source_type: (*source_type).to_owned(),
            missing: None,
            compare: Compare::EXACT,
        };
        let schema = TableSchema {
            id: TableId::new("s", "t`"),
            columns: types.iter().map(column).collect(),
            identity: Identity::Key((0..order.len()).collect()),
            storage: String::new(),
            lasting_ids: false,
        };
        Table { schema: Arc::new(schema), rows: 1, row_bytes: 1, index: "PRIMARY".into(), order }
    }

    fn key(parts: &[&str]) -> KeyText {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[test]
    fn a_range_walks_its_index() {
        let table = table(&[("a", "int"), ("b", "bigint unsigned"), ("v", "float")], vec![1, 0]);
        let range = Range { after: Some(key(&["5", "7"])), until: Some(key(&["-1", "9"])) };
        assert_eq!(
            Select(&table).next(&range, 10),
            "SELECT `a`, `b`, `v` * 1e0 FROM `s`.`t``` FORCE INDEX (`PRIMARY`) \
             WHERE `b` >= 7 AND (`b` > 7 OR (`b` = 7 AND (`a` > 5))) \
             AND `b` <= 9 AND (`b` < 9 OR (`b` = 9 AND (`a` <= -1))) ORDER BY `b`, `a` LIMIT 10"
        );
        assert_eq!(
            Select(&table).keys(&[key(&["5", "7"])]),
            "SELECT `a`, `b`, `v` * 1e0 FROM `s`.`t``` FORCE INDEX (`PRIMARY`) \
             WHERE (`b`, `a`) IN ((7, 5))"
        );
    }

    #[test]
    fn keys_are_constants_of_their_column() {
        let of = |source_type: &str, text: &str| {
            let table = table(&[("k", source_type)], vec![0]);
            constant(&table.schema.columns[0], Some(&text.to_owned()))
        };
        assert_eq!(of("binary(2)", "\\x00ff"), "x'00ff'");
        assert_eq!(of("enum('x','y')", "y"), "2");
        assert_eq!(of("bit(1)", "true"), "1");
        let latin = of("varchar(9)\ncollate latin1_swedish_ci", "é");
        assert_eq!(latin, "CONVERT(_utf8mb4 x'c3a9' USING latin1) COLLATE latin1_swedish_ci");
        assert_eq!(
            of("timestamp", "2024-01-01 00:00:00.000000+00").len(),
            "_utf8mb4 x''".len() + 52
        );
        // What is no number is no part of a statement.
        assert_eq!(of("int", "1 or 1"), "_utf8mb4 x'31206f722031'");
    }
}
