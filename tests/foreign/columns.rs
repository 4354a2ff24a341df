//! Random tables: what their columns, keys and partitions are, and values up to the ends of their types.

use std::sync::Arc;

use fastrand::Rng;
use lakeward_connectors::schema::{Column, Compare, Identity, TableId, TableSchema, Type};
use lakeward_connectors::{Op, Value};
use serde_json::json;

use lakeward_connectors::batch::{Batch, Builder};

use crate::support::{Context, Res};

/// A value as `delta_rs.py` writes it.
pub type Cell = Option<String>;
pub type Row = Vec<Value<'static>>;

/// So many keys a table's rows have at most.
const KEYS: i64 = 30;
/// The first and the last day of dates and times: 4713 BC, as in Postgres, and before the last that
/// delta-rs can write.
const DAYS: (i32, i32) = (-2_440_588, 90_000_000);
/// The last day of the year 9999: that of a partition has four digits to its year.
const PART_DAYS: i32 = 2_932_896;
const DAY: i64 = 86_400_000_000;

/// The column of numbers that every table has.
pub const NUMBER: &str = "n";
/// The column that a table may be partitioned by.
const PART: &str = "part";

/// A kind of table.
pub struct Columns {
    pub schema: Arc<TableSchema>,
    pub partition: Vec<String>,
    /// The place of [`NUMBER`].
    pub number: usize,
}

impl Columns {
    pub fn random(rng: &mut Rng) -> Self {
        let partition = (rng.u8(..100) < 35).then(|| {
            rng.choice([Type::Bool, Type::Int16, Type::Int32, Type::Int64, Type::Date])
                .expect("there are some")
        });
        let keyless = rng.u8(..100) < 15;
        let mut kinds: Vec<(String, Type)> = match (keyless, rng.u8(..10)) {
            (true, _) => vec![("id".to_owned(), Type::Int32)],
            (false, 0..=6) => vec![("id".to_owned(), key_type(rng))],
            (false, _) => vec![("id".to_owned(), key_type(rng)), ("Nr".to_owned(), key_type(rng))],
        };
        let key = kinds.len();
        kinds.push((NUMBER.to_owned(), Type::Int32));
        kinds.extend(partition.iter().map(|kind| (PART.to_owned(), kind.clone())));
        for at in 0..rng.usize(1..5) {
            // One with a name that has to be quoted.
            let name = if at == 0 { "Größe".to_owned() } else { format!("c{at}") };
            let plain = [Type::Text, Type::Bool, Type::Int64];
            let kind = if keyless { rng.choice(plain) } else { Some(any_type(rng)) };
            kinds.push((name, kind.expect("there are some")));
        }
        let columns = (1..).zip(&kinds).map(|(id, (name, kind))| Column {
            id,
            name: name.clone(),
            source_type: String::new(),
            kind: kind.clone(),
            missing: None,
            compare: Compare::EXACT,
        });
        let identity = match keyless {
            // Rows that are only added, as where a table lists changes.
            true if rng.u8(..3) == 0 => Identity::None,
            true => Identity::FullRow,
            false => Identity::Key((0..key).collect()),
        };
        let (id, storage) = (TableId::new("public", "t"), String::new());
        let columns = columns.collect();
        let schema = Arc::new(TableSchema { id, columns, identity, storage, lasting_ids: true });
        let partition = partition.map(|_| PART.to_owned()).into_iter().collect();
        Self { schema, partition, number: key }
    }

    pub fn is_keyed(&self) -> bool {
        !self.schema.key().is_empty()
    }

    /// Whether rows only ever come.
    pub fn only_grows(&self) -> bool {
        self.schema.identity == Identity::None
    }

    /// What tells a row from others: its key, or all of it.
    pub fn key_of(&self, row: &[Value<'_>]) -> Vec<Cell> {
        let cells = self.cells(row);
        match self.is_keyed() {
            true => self.schema.key().iter().map(|at| cells[*at].clone()).collect(),
            false => cells,
        }
    }

    pub fn cells(&self, row: &[Value<'_>]) -> Vec<Cell> {
        row.iter().map(cell).collect()
    }

    /// A row under one of the keys there are, or of few values where there is no key.
    pub fn row(&self, rng: &mut Rng) -> Row {
        let mut row = self.key(rng.i64(0..KEYS));
        for column in &self.schema.columns[row.len()..] {
            let value = match self.is_keyed() {
                true => nullable(rng, &column.kind),
                false => narrow(rng, &column.kind),
            };
            row.push(match value {
                Value::Date(day) if column.name == PART => Value::Date(day % PART_DAYS),
                value => value,
            });
        }
        row
    }

    /// The values of the key columns of key number `at`, which come first in a row.
    fn key(&self, at: i64) -> Row {
        match self.schema.key() {
            [] => vec![Value::Int(at % 3)],
            [only] => vec![key_value(&self.schema.columns[*only].kind, at)],
            [first, second, ..] => vec![
                key_value(&self.schema.columns[*first].kind, at / 5),
                key_value(&self.schema.columns[*second].kind, at % 5),
            ],
        }
    }

    /// Rows as a batch of changes: operation, and the rows before and after.
    pub fn batch(&self, changes: &[(Op, Option<&Row>, Option<&Row>)]) -> Res<Batch> {
        let mut builder = Builder::new(self.schema.clone());
        for (op, before, after) in changes {
            let (before, after) = (before.map(Vec::as_slice), after.map(Vec::as_slice));
            builder.push(*op, before, after).map_err(|e| e.full()).context("a change")?;
        }
        Ok(builder.finish())
    }

    /// The columns as the log of the table must have them.
    pub fn expected(&self) -> Vec<(String, serde_json::Value)> {
        let columns = self.schema.columns.iter();
        columns.map(|column| (column.name.clone(), delta_type(&column.kind))).collect()
    }
}

fn key_type(rng: &mut Rng) -> Type {
    rng.choice([
        Type::Int16,
        Type::Int32,
        Type::Int64,
        Type::Text,
        Type::Text,
        Type::Binary,
        Type::Date,
        Type::Timestamp,
        Type::LocalTimestamp,
        Type::Decimal { precision: 12, scale: 2 },
        Type::Decimal { precision: 38, scale: 10 },
        Type::Numeric,
    ])
    .expect("there are some")
}

fn any_type(rng: &mut Rng) -> Type {
    match rng.u8(..10) {
        0 => Type::Bool,
        1 => Type::Float32,
        2 => Type::Float64,
        3 => Type::List(Box::new(key_type(rng))),
        _ => key_type(rng),
    }
}

/// Value number `at` of a column of a key; each number has another.
fn key_value(kind: &Type, at: i64) -> Value<'static> {
    let ends = |low: i64, high: i64| match at % 4 {
        0 => low + at,
        1 => high - at,
        2 => at,
        _ => -at,
    };
    match kind {
        Type::Int16 => Value::Int(ends(i16::MIN.into(), i16::MAX.into())),
        Type::Int32 => Value::Int(ends(i32::MIN.into(), i32::MAX.into())),
        Type::Date => Value::Date(ends(DAYS.0.into(), DAYS.1.into()) as i32),
        Type::Timestamp | Type::LocalTimestamp => {
            Value::Timestamp(ends(i64::from(DAYS.0) * DAY, i64::from(DAYS.1) * DAY))
        }
        Type::Decimal { precision, .. } => {
            let end = 10_i128.pow((*precision).into()) - 1;
            Value::Decimal(match at % 4 {
                0 => i128::from(at) - end,
                1 => end - i128::from(at),
                2 => at.into(),
                _ => -i128::from(at),
            })
        }
        Type::Numeric => Value::OwnedText(format!("{}.{at}5", 7 - at)),
        Type::Text => Value::OwnedText(match at % 4 {
            0 if at == 0 => String::new(),
            0 => format!("{}{at}", "x".repeat(70)),
            1 => format!("é😀{at}"),
            2 => format!("it's \"{at}\"\n"),
            _ => at.to_string(),
        }),
        Type::Binary => Value::Binary(match at % 3 {
            0 if at == 0 => Vec::new().into(),
            0 => vec![0, 0, at as u8].into(),
            1 => vec![0xff, at as u8].into(),
            _ => vec![at as u8; 80].into(),
        }),
        _ => Value::Int(ends(i64::MIN, i64::MAX)),
    }
}

fn nullable(rng: &mut Rng, kind: &Type) -> Value<'static> {
    match rng.u8(..6) {
        0 => Value::Null,
        _ => any_value(rng, kind),
    }
}

fn any_value(rng: &mut Rng, kind: &Type) -> Value<'static> {
    match kind {
        Type::Bool => Value::Bool(rng.bool()),
        Type::Float32 => {
            let some = rng.f32();
            let ends = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::MIN, f32::from_bits(1), some];
            Value::Float32(rng.choice(ends).unwrap_or_default())
        }
        Type::Float64 => {
            let some = rng.f64();
            let ends = [0.0, -0.0, f64::NAN, f64::NEG_INFINITY, f64::MAX, f64::from_bits(1), some];
            Value::Float64(rng.choice(ends).unwrap_or_default())
        }
        Type::List(item) => Value::List((0..rng.usize(..4)).map(|_| nullable(rng, item)).collect()),
        // Small ones too: predicates ask for them.
        Type::Int32 if rng.bool() => Value::Int(rng.i64(-8..40)),
        _ => key_value(kind, rng.i64(0..KEYS)),
    }
}

/// One of few values.
fn narrow(rng: &mut Rng, kind: &Type) -> Value<'static> {
    match kind {
        Type::Bool => Value::Bool(rng.bool()),
        Type::Int32 if rng.u8(..3) == 0 => Value::Null,
        _ => key_value(kind, rng.i64(0..2)),
    }
}

/// A value as `delta_rs.py` writes it.
pub fn cell(value: &Value<'_>) -> Cell {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::Timestamp(value) => value.to_string(),
        Value::Float32(value) => (value.to_bits() as i32).to_string(),
        Value::Float64(value) => (value.to_bits() as i64).to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Date(value) => value.to_string(),
        Value::Text(text) => (*text).to_owned(),
        Value::OwnedText(text) => text.clone(),
        Value::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Value::List(items) => json!(items.iter().map(cell).collect::<Vec<_>>()).to_string(),
        Value::Null | Value::Unchanged | Value::Patch(_) => return None,
    })
}

/// A value as SQL has it, where that is simple.
pub fn literal(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Int(value) => Some(value.to_string()),
        Value::OwnedText(text) => Some(format!("'{}'", text.replace('\'', "''"))),
        _ => None,
    }
}

fn delta_type(kind: &Type) -> serde_json::Value {
    json!(match kind {
        Type::Bool => "boolean",
        Type::Int16 => "short",
        Type::Int32 => "integer",
        Type::Int64 => "long",
        Type::Float32 => "float",
        Type::Float64 => "double",
        Type::Decimal { precision, scale } =>
            return json!(format!("decimal({precision},{scale})")),
        Type::Numeric | Type::Text => "string",
        Type::Binary => "binary",
        Type::Date => "date",
        Type::Timestamp => "timestamp",
        Type::LocalTimestamp => "timestamp_ntz",
        Type::List(item) => {
            let item = delta_type(item);
            return json!({"type": "array", "elementType": item, "containsNull": true});
        }
    })
}
