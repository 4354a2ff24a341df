//! What a table looks like: its columns, their lake types, and what identifies a row.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A table's full name in its source: schema (Postgres), database (MySQL, MongoDB) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TableId {
    /// The schema or database.
    pub schema: String,
    /// The table or collection.
    pub name: String,
}

impl TableId {
    /// The table `name` in `schema`.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// `schema.name`; a dot or a quote inside the schema is written `\.` or `\\` so that it parses back.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.schema.chars() {
            if matches!(character, '.' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{character}")?;
        }
        write!(f, ".{}", self.name)
    }
}

impl From<TableId> for String {
    fn from(id: TableId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TableId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut schema = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => schema.extend(characters.next().map(|(_, escaped)| escaped)),
                '.' => return Ok(Self { schema, name: text[at + 1..].to_owned() }),
                _ => schema.push(character),
            }
        }
        Err(format!("'{text}' is not of the form schema.table"))
    }
}

/// The type of a column in the lake. A source's value that its type can't hold is an error, never
/// another value (P5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// `boolean`.
    Bool,
    /// `short`.
    Int16,
    /// `integer`.
    Int32,
    /// `long`.
    Int64,
    /// `float`.
    Float32,
    /// `double`.
    Float64,
    /// `decimal(precision, scale)`, at most 38 digits.
    Decimal {
        /// All digits, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// A number of any length as its text (`string`); as a key 1.0 and 1.00 are one.
    Numeric,
    /// `string`.
    Text,
    /// `binary`.
    Binary,
    /// `date`: days since 1970-01-01, proleptic Gregorian.
    Date,
    /// `timestamp`: microseconds since 1970-01-01 00:00 UTC.
    Timestamp,
    /// `timestamp_ntz`: microseconds since 1970-01-01 00:00 of no zone.
    LocalTimestamp,
    /// `array`; elements may be null.
    List(Box<Type>),
}

impl Type {
    /// Whether this is another type than `narrower`, and holds all of its values as they are.
    pub fn holds(&self, narrower: &Type) -> bool {
        match (narrower, self) {
            (Type::Int16, Type::Int32 | Type::Int64)
            | (Type::Int32, Type::Int64)
            | (Type::Float32, Type::Float64) => true,
            (
                Type::Decimal { precision, scale },
                Type::Decimal { precision: wider, scale: finer },
            ) => {
                let whole = i16::from(*precision) - i16::from(*scale);
                let room = i16::from(*wider) - i16::from(*finer);
                (precision, scale) != (wider, finer) && finer >= scale && room >= whole
            }
            _ => false,
        }
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// What the source calls this column for as long as it exists, whatever its name: Postgres'
    /// `attnum`. Tells a rename from a drop and an add, where they [last](TableSchema::lasting_ids).
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its type in the lake.
    pub kind: Type,
    /// Its type in the source, with modifiers, in the source's own words (`1700/786438`): equal
    /// exactly when nothing about the type changed.
    pub source_type: String,
    /// A value that rows written before this column existed have in the source, other than null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// When two of its texts are equal, as the source compares them in a key.
    #[serde(default, skip_serializing_if = "Compare::is_exact")]
    pub compare: Compare,
}

/// When two texts of a key are equal in the source. The default: when their bytes are.
///
/// A collation that compares otherwise than byte by byte is only followed where that can be done
/// without its tables: in printable ASCII. A key with any other character stops its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Compare {
    /// Only printable ASCII can be compared.
    pub ascii_only: bool,
    /// `a` and `A` are equal.
    pub ignores_case: bool,
    /// Blanks at the end don't count.
    pub ignores_trailing_blanks: bool,
}

impl Compare {
    /// Texts are equal when their bytes are.
    pub const EXACT: Self =
        Self { ascii_only: false, ignores_case: false, ignores_trailing_blanks: false };

    /// Whether texts are equal exactly when their bytes are.
    pub fn is_exact(&self) -> bool {
        *self == Self::EXACT
    }

    /// Whether `text` can be compared at all.
    pub fn covers(&self, text: &str) -> bool {
        !self.ascii_only || text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    }
}

/// What identifies a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The values of these columns (indices into [`TableSchema::columns`], ascending).
    Key(Vec<usize>),
    /// The whole row; equal rows are counted (REPLICA IDENTITY FULL without a usable key).
    FullRow,
    /// Nothing: rows are added, and none ever changes or goes (a table that lists changes). Never
    /// that of a source's table.
    None,
}

/// A table as it is at some position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableSchema {
    /// Which table.
    pub id: TableId,
    /// Its columns, in the order in which rows are decoded.
    pub columns: Vec<Column>,
    /// What identifies a row.
    pub identity: Identity,
    /// Everything about the table that changes rows without a trace in the log, as marks that
    /// [`rewritten`] compares.
    pub storage: String,
    /// Whether [`Column::id`] never stands for two columns, one after the other: MySQL knows only
    /// their places.
    #[serde(default)]
    pub lasting_ids: bool,
}

/// What to do to go from one schema of a table to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evolution {
    /// Nothing.
    Same,
    /// Columns came (null in all older rows) or went; rows stay as they are.
    InPlace,
    /// Columns have other names, or types that hold all their older values: rows stay as they are,
    /// once they are written with them.
    Convert,
    /// Old rows differ in a way that the stream does not show: read the table again. Says why.
    Snapshot(String),
}

impl TableSchema {
    /// The index of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The indices of the key's columns; empty where there is no key.
    pub fn key(&self) -> &[usize] {
        match &self.identity {
            Identity::Key(columns) => columns,
            Identity::FullRow | Identity::None => &[],
        }
    }

    /// What it takes to turn a table of this schema into one of `next`.
    ///
    /// A column is recognised by [`Column::id`], so a name given to another column, or two names
    /// swapped, is never taken for the same column.
    pub fn evolve(&self, next: &TableSchema) -> Evolution {
        if self == next {
            return Evolution::Same;
        }
        let (lasting, mut converted) = (self.lasting_ids && next.lasting_ids, false);
        for column in &next.columns {
            match self.columns.iter().find(|old| old.id == column.id) {
                Some(old) if lasting && column.kind.holds(&old.kind) => converted = true,
                Some(old) if old.name != column.name && !lasting => {
                    let (from, to) = (&old.name, &column.name);
                    return Evolution::Snapshot(format!("column {from} was renamed to {to}"));
                }
                Some(old) if old.kind != column.kind || old.source_type != column.source_type => {
                    return Evolution::Snapshot(format!("column {} changed its type", column.name));
                }
                Some(old) => converted |= old.name != column.name,
                None if column.missing.is_some() => {
                    let name = &column.name;
                    return Evolution::Snapshot(format!("column {name} was added with a default"));
                }
                None if self
                    .column(&column.name)
                    .is_some_and(|at| !lasting || !self.keeps(at, next)) =>
                {
                    let name = &column.name;
                    return Evolution::Snapshot(format!("column {name} was dropped and added"));
                }
                _ => {}
            }
        }
        if self.key_ids() != next.key_ids() {
            return Evolution::Snapshot("what identifies a row changed".to_owned());
        }
        if rewritten(&self.storage, &next.storage) {
            return Evolution::Snapshot(
                "rows were rewritten without a trace in the log".to_owned(),
            );
        }
        if self.identity == Identity::FullRow && self.column_ids() != next.column_ids() {
            return Evolution::Snapshot("columns of a table without a key changed".to_owned());
        }
        if converted { Evolution::Convert } else { Evolution::InPlace }
    }

    /// Whether `next` is known to be another table that took this one's name: its mark `oid` is
    /// another one.
    pub fn is_another(&self, next: &TableSchema) -> bool {
        let (was, is) = (marks(&self.storage), marks(&next.storage));
        was.get("oid").zip(is.get("oid")).is_some_and(|(was, is)| !was.shares(is))
    }

    /// Whether the column at place `at` is one of `next`, by whatever name.
    fn keeps(&self, at: usize, next: &TableSchema) -> bool {
        let id = self.columns.get(at).map(|column| column.id);
        next.columns.iter().any(|column| Some(column.id) == id)
    }

    fn column_ids(&self) -> Vec<u32> {
        self.columns.iter().map(|column| column.id).collect()
    }

    fn key_ids(&self) -> Option<Vec<u32>> {
        match &self.identity {
            Identity::Key(key) => {
                Some(key.iter().filter_map(|&i| self.columns.get(i)).map(|c| c.id).collect())
            }
            Identity::FullRow | Identity::None => None,
        }
    }
}

/// Whether rows changed between two states of [`TableSchema::storage`].
///
/// A state is a list of marks, one a line: `key=value`, where the value may be several
/// alternatives separated by `|`. Rows changed when a mark that both states have shares no
/// alternative, or when one came or went; but a mark of the form `+key=value` may come, and one
/// of the form `?key=value` may come and go.
pub fn rewritten(old: &str, new: &str) -> bool {
    let (old, new) = (marks(old), marks(new));
    let changed = old.iter().any(|(key, was)| match new.get(key) {
        Some(is) => !was.shares(is),
        None => was.prefix != Some('?'),
    });
    let came = |(key, is): (&&str, &Mark<'_>)| is.prefix.is_none() && !old.contains_key(*key);
    changed || new.iter().any(came)
}

struct Mark<'a> {
    prefix: Option<char>,
    value: &'a str,
}

impl Mark<'_> {
    fn shares(&self, other: &Self) -> bool {
        self.value == other.value
            || self.value.split('|').any(|one| other.value.split('|').any(|two| one == two))
    }
}

fn marks(state: &str) -> HashMap<&str, Mark<'_>> {
    state
        .lines()
        .map(|line| {
            let prefix = line.chars().next().filter(|first| matches!(first, '+' | '?'));
            let body = line.strip_prefix(['+', '?']).unwrap_or(line);
            let (key, value) = body.split_once('=').unwrap_or((body, ""));
            (key, Mark { prefix, value })
        })
        .collect()
}
