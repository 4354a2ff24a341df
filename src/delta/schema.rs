//! A table's columns as Delta describes them, and as Arrow carries them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use lakeward_connectors::{Column, Error, Result, TableSchema, Type};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::log::fault;

/// The columns of a table's files: every column the table has or has had since it was last written
/// whole, in a fixed order.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    fields: Vec<DeltaField>,
    arrow: SchemaRef,
}

/// A column in Delta's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DeltaField {
    name: String,
    #[serde(rename = "type")]
    kind: Value,
    nullable: bool,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct DeltaStruct {
    #[serde(rename = "type")]
    kind: String,
    fields: Vec<DeltaField>,
}

impl Layout {
    /// The columns of `schema` and no other.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when a Delta table can't have them.
    pub(crate) fn new(schema: &TableSchema) -> Result<Self> {
        Self::with_columns(Vec::new(), schema)
    }

    /// These columns and those of `schema` that are not among them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn extended(&self, schema: &TableSchema) -> Result<Self> {
        Self::with_columns(self.fields.clone(), schema)
    }

    fn with_columns(mut fields: Vec<DeltaField>, schema: &TableSchema) -> Result<Self> {
        for column in &schema.columns {
            if !fields.iter().any(|field| field.name == column.name) {
                fields.push(DeltaField::new(column));
            }
        }
        if fields.is_empty() {
            return Err(Error::table(schema.id.clone(), "a table without columns can't be kept")
                .remedy("add a column, or leave the table out"));
        }
        let mut seen = BTreeMap::new();
        for field in &fields {
            if let Some(other) = seen.insert(field.name.to_lowercase(), &field.name) {
                let message = "two columns have names that differ in case only, which Delta \
                               tables can't have";
                return Err(Error::table(schema.id.clone(), message)
                    .with("columns", format!("{other}, {}", field.name))
                    .remedy("rename one of them or leave it out"));
            }
        }
        let arrow = fields.iter().map(|field| field.arrow().ok_or(&field.name));
        let arrow: Result<Vec<_>, &String> = arrow.collect();
        let arrow = arrow.map_err(|name| {
            Error::table(schema.id.clone(), "a column has a type that can't be kept")
                .with("column", name)
        })?;
        let arrow = Arc::new(Schema::new(arrow));
        let layout = Self { fields, arrow };
        layout.check_types(schema)?;
        Ok(layout)
    }

    /// A column that is already there must have the type that its rows come in.
    fn check_types(&self, schema: &TableSchema) -> Result<()> {
        for column in &schema.columns {
            let found = self.position(&column.name).map(|at| self.arrow.field(at).data_type());
            if found != Some(&column.kind.arrow()) {
                return Err(Error::table(
                    schema.id.clone(),
                    "a column of the Delta table has another type than its rows come in",
                )
                .with("column", &column.name)
                .remedy("take a new snapshot of the table"));
            }
        }
        Ok(())
    }

    /// The columns that the log of the table at `path` describes.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when one is of a kind that this writer
    /// can't keep.
    pub(crate) fn parse(path: &str, schema_string: &str) -> Result<Self> {
        let parsed: DeltaStruct = serde_json::from_str(schema_string).map_err(|error| {
            fault(path, "the table's schema can't be understood").caused_by(error)
        })?;
        let mut arrow = Vec::with_capacity(parsed.fields.len());
        for field in &parsed.fields {
            let refuse = |what: &str| {
                fault(path, format!("a column of the Delta table {what}"))
                    .with("column", &field.name)
                    .remedy("drop it from the Delta table, or write to another table")
            };
            if !field.nullable {
                return Err(refuse("may not be null, which is not supported"));
            }
            let held = ["delta.invariants", "delta.generationExpression"];
            let identity = field.metadata.keys().any(|key| key.starts_with("delta.identity."));
            if identity || held.iter().any(|key| field.metadata.contains_key(*key)) {
                return Err(refuse("is generated or constrained, which is not supported"));
            }
            arrow.push(field.arrow().ok_or_else(|| refuse("has a type that is not supported"))?);
        }
        Ok(Self { fields: parsed.fields, arrow: Arc::new(Schema::new(arrow)) })
    }

    /// The schema as it stands in the log.
    pub(crate) fn schema_string(&self) -> Result<String> {
        let parsed = DeltaStruct { kind: "struct".to_owned(), fields: self.fields.clone() };
        serde_json::to_string(&parsed)
            .map_err(|error| Error::internal("a schema can't be written as JSON").caused_by(error))
    }

    /// The columns as Arrow carries them and Parquet files hold them.
    pub(crate) fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The place of the column called `name`.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// A column whose name differs from `name` in case only, or not at all.
    pub(crate) fn similar(&self, name: &str) -> Option<&str> {
        let name = name.to_lowercase();
        let found = self.fields.iter().find(|field| field.name.to_lowercase() == name)?;
        Some(&found.name)
    }

    /// Whether a column, or what a list holds, has no time zone.
    pub(crate) fn without_zone(&self) -> bool {
        self.fields.iter().any(|field| field.kind.to_string().contains("\"timestamp_ntz\""))
    }
}

impl DeltaField {
    fn new(column: &Column) -> Self {
        let (name, kind) = (column.name.clone(), delta_type(&column.kind));
        Self { name, kind, nullable: true, metadata: Map::new() }
    }

    fn arrow(&self) -> Option<Field> {
        Some(Field::new(&self.name, arrow_type(&self.kind)?, true))
    }
}

/// A type in Delta's words.
fn delta_type(kind: &Type) -> Value {
    match kind {
        Type::Bool => "boolean".into(),
        Type::Int16 => "short".into(),
        Type::Int32 => "integer".into(),
        Type::Int64 => "long".into(),
        Type::Float32 => "float".into(),
        Type::Float64 => "double".into(),
        Type::Decimal { precision, scale } => format!("decimal({precision},{scale})").into(),
        Type::Numeric | Type::Text => "string".into(),
        Type::Binary => "binary".into(),
        Type::Date => "date".into(),
        Type::Timestamp => "timestamp".into(),
        Type::LocalTimestamp => "timestamp_ntz".into(),
        Type::List(item) => json!({
            "type": "array",
            "elementType": delta_type(item),
            "containsNull": true,
        }),
    }
}

/// The Arrow type of a Delta type; `None` for maps, structs and what is not known.
fn arrow_type(kind: &Value) -> Option<DataType> {
    let Some(name) = kind.as_str() else {
        if kind.get("type")?.as_str()? != "array" {
            return None;
        }
        let item = arrow_type(kind.get("elementType")?)?;
        return Some(DataType::List(Arc::new(Field::new("element", item, true))));
    };
    Some(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "string" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => {
            let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inner.split_once(',')?;
            DataType::Decimal128(precision.trim().parse().ok()?, scale.trim().parse().ok()?)
        }
    })
}
