//! A table's columns as Delta describes them, and as Arrow carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use lakeward_connectors::{Column, Error, Result, TableSchema, Type};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::log::fault;
use super::partition;

/// The columns of a table's files: every column the table has or has had since it was last written
/// whole, in a fixed order.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    fields: Vec<DeltaField>,
    arrow: SchemaRef,
    /// The places of the columns that the table is partitioned by.
    partition: Vec<usize>,
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
        Self::with_columns(Vec::new(), Vec::new(), schema)
    }

    /// These columns and those of `schema` that are not among them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn extended(&self, schema: &TableSchema) -> Result<Self> {
        Self::with_columns(self.fields.clone(), self.partition.clone(), schema)
    }

    fn with_columns(
        mut fields: Vec<DeltaField>,
        partition: Vec<usize>,
        schema: &TableSchema,
    ) -> Result<Self> {
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
        let layout = Self { fields, arrow, partition };
        layout.check_types(schema)?;
        Ok(layout)
    }

    /// A column that is already there must have the type that its rows come in.
    fn check_types(&self, schema: &TableSchema) -> Result<()> {
        for column in &schema.columns {
            let at = self.position(&column.name);
            if at.map(|at| self.arrow.field(at).data_type()) != Some(&column.kind.arrow()) {
                let found = at.and_then(|at| self.fields.get(at)).map(|field| &field.kind);
                return Err(Error::table(
                    schema.id.clone(),
                    "a column of the Delta table has another type than its rows come in",
                )
                .with("column", &column.name)
                .with("type there", found.unwrap_or(&Value::Null))
                .with("type of its rows", delta_type(&column.kind))
                .remedy("`lakeward snapshot` reads the table again"));
            }
        }
        Ok(())
    }

    /// The columns that the log of the table at `path` describes.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when one is of a kind that this writer
    /// can't keep.
    pub(crate) fn parse(path: &str, schema_string: &str, partition: &[String]) -> Result<Self> {
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
        let arrow = Arc::new(Schema::new(arrow));
        Self { fields: parsed.fields, arrow, partition: Vec::new() }.partitioned(partition).map_err(
            |column| {
                fault(path, "the table is partitioned by a column of a type that is not supported")
                    .with("column", column)
                    .remedy("write to another table")
            },
        )
    }

    /// These columns, those in `renamed` by the name and type there, and then the other ones of
    /// `schema`; and the names, old and new, of those in `renamed`. `remove`: without those that
    /// `schema` hasn't. `None` when two columns would have one name.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[allow(clippy::type_complexity)]
    pub(crate) fn converted(
        &self,
        renamed: &BTreeMap<String, &Column>,
        schema: &TableSchema,
        remove: bool,
    ) -> Result<Option<(Self, BTreeMap<String, String>)>> {
        let (mut fields, mut names) = (self.fields.clone(), BTreeMap::new());
        for field in &mut fields {
            if let Some(column) = renamed.get(&field.name) {
                names.insert(field.name.clone(), column.name.clone());
                *field = DeltaField::new(column);
            }
        }
        let mut places = self.partition.clone();
        if remove {
            let by = self.partition.iter().filter_map(|at| fields.get(*at)).map(|f| f.name.clone());
            let by: Vec<_> = by.collect();
            fields.retain(|field| schema.column(&field.name).is_some());
            places = by.iter().filter_map(|n| fields.iter().position(|f| f.name == *n)).collect();
        }
        let mut seen = BTreeSet::new();
        let come =
            schema.columns.iter().filter(|column| !names.values().any(|n| *n == column.name));
        let all = fields.iter().map(|field| &field.name).chain(come.map(|column| &column.name));
        if !all.map(|name| name.to_lowercase()).all(|name| seen.insert(name)) {
            return Ok(None);
        }
        let next = Self::with_columns(fields, places, schema)?;
        Ok(Some((next, names)))
    }

    /// These columns, partitioned by those of the names `columns`; or the first of them that is not
    /// there, or of a type that can't be.
    pub(crate) fn partitioned(mut self, columns: &[String]) -> Result<Self, String> {
        let place = |name: &String| {
            let place = self.position(name).ok_or_else(|| name.clone())?;
            match partition::is_possible(self.arrow.field(place).data_type()) {
                true => Ok(place),
                false => Err(name.clone()),
            }
        };
        self.partition = columns.iter().map(place).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// The places of the columns that the table is partitioned by.
    pub(crate) fn partition(&self) -> &[usize] {
        &self.partition
    }

    /// The names of the columns that the table is partitioned by.
    pub(crate) fn partition_columns(&self) -> Vec<String> {
        self.partition.iter().map(|at| self.arrow.field(*at).name().clone()).collect()
    }

    /// The places of the columns that files hold.
    pub(crate) fn stored(&self) -> Vec<usize> {
        (0..self.fields.len()).filter(|at| !self.partition.contains(at)).collect()
    }

    /// The columns of those places only.
    pub(crate) fn project(&self, places: &[usize]) -> Self {
        let fields = places.iter().filter_map(|at| self.fields.get(*at)).cloned().collect();
        let arrow = places.iter().map(|at| self.arrow.field(*at).clone());
        let arrow = Arc::new(Schema::new(arrow.collect::<Vec<_>>()));
        Self { fields, arrow, partition: Vec::new() }
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
