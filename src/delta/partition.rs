//! Tables whose files hold rows of one partition each: the values of some columns stand in the log,
//! and not in the files (Delta protocol, "Partition Value Serialization").
//!
//! Only columns of few kinds can be those, free text is none of them: an empty text would come back
//! as null.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    UInt32Array, new_null_array,
};
use arrow_schema::DataType;
use arrow_select::take::take_record_batch;
use lakeward_connectors::key::{civil, days};
use lakeward_connectors::{Error, Result};

use super::gather::arrow_fault;
use super::schema::Layout;

/// The values of one partition, by column, as the log has them; empty for a table without.
pub(crate) type Values = BTreeMap<String, Option<String>>;

/// The folder of a partition within the table, as Hive names it: readers that take the values from
/// there find those of the log. Empty for a table without partitions, and where a column has a name
/// that would have to be escaped.
pub(crate) fn folder(values: &Values) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !values.keys().all(|name| name.chars().all(is_plain)) {
        return String::new();
    }
    let folder = |(name, value): (&String, &Option<String>)| {
        let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
        format!("{name}={value}/")
    };
    values.iter().map(folder).collect()
}

/// Rows of one partition.
pub(crate) struct Part {
    pub(crate) values: Values,
    pub(crate) rows: RecordBatch,
    /// Which rows of the batch they are; `None`: all.
    pub(crate) picked: Option<Vec<u32>>,
}

/// Whether a table can be partitioned by a column of that type.
pub(crate) fn is_possible(kind: &DataType) -> bool {
    use DataType::{Boolean, Date32, Int16, Int32, Int64};
    matches!(kind, Boolean | Int16 | Int32 | Int64 | Date32)
}

/// The rows of a batch by partition, each in their order.
///
/// # Errors
/// When a column is of a type that can't be.
pub(crate) fn split(layout: &Layout, batch: &RecordBatch) -> Result<Vec<Part>> {
    if layout.partition().is_empty() {
        let (values, rows) = (Values::new(), batch.clone());
        return Ok(vec![Part { values, rows, picked: None }]);
    }
    let columns: Vec<&ArrayRef> =
        layout.partition().iter().filter_map(|at| batch.columns().get(*at)).collect();
    let mut numbers: HashMap<Vec<Option<i64>>, usize> = HashMap::new();
    let mut parts: Vec<Vec<u32>> = Vec::new();
    for row in 0..batch.num_rows() {
        let key = columns.iter().map(|column| number(column.as_ref(), row));
        let key = key.collect::<Result<Vec<_>>>()?;
        let part = *numbers.entry(key).or_insert_with(|| {
            parts.push(Vec::new());
            parts.len() - 1
        });
        parts[part].push(row as u32);
    }
    let mut split: Vec<Option<Part>> = parts.iter().map(|_| None).collect();
    for (key, part) in numbers {
        let picked = std::mem::take(&mut parts[part]);
        let names = layout.partition().iter().map(|at| layout.arrow().field(*at));
        let values = names.zip(&key).map(|(field, value)| {
            (field.name().clone(), value.map(|value| text(field.data_type(), value)))
        });
        let whole = picked.len() == batch.num_rows();
        let rows = match whole {
            true => batch.clone(),
            false => {
                let picked = UInt32Array::from(picked.clone());
                take_record_batch(batch, &picked).map_err(arrow_fault)?
            }
        };
        split[part] = Some(Part { values: values.collect(), rows, picked: Some(picked) });
    }
    Ok(split.into_iter().flatten().collect())
}

/// A value as a number; `None` for null.
fn number(column: &dyn Array, row: usize) -> Result<Option<i64>> {
    if column.is_null(row) {
        return Ok(None);
    }
    let found = match column.data_type() {
        DataType::Boolean => column.as_boolean_opt().map(|c| i64::from(c.value(row))),
        DataType::Int16 => column.as_primitive_opt::<Int16Type>().map(|c| c.value(row).into()),
        DataType::Int32 => column.as_primitive_opt::<Int32Type>().map(|c| c.value(row).into()),
        DataType::Int64 => column.as_primitive_opt::<Int64Type>().map(|c| c.value(row)),
        DataType::Date32 => column.as_primitive_opt::<Date32Type>().map(|c| c.value(row).into()),
        _ => None,
    };
    found.map(Some).ok_or_else(|| Error::internal("a table can't be partitioned by such a column"))
}

fn text(kind: &DataType, value: i64) -> String {
    match kind {
        DataType::Boolean => (value != 0).to_string(),
        DataType::Date32 => {
            let (year, month, day) = civil(value);
            format!("{year:04}-{month:02}-{day:02}")
        }
        _ => value.to_string(),
    }
}

/// So many times the value that `text` spells; `None` when it is none of that type.
pub(crate) fn constant(kind: &DataType, text: Option<&str>, rows: usize) -> Option<ArrayRef> {
    // An empty text is null, whatever the type.
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Some(new_null_array(kind, rows));
    };
    Some(match kind {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![text.parse::<bool>().ok()?; rows])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![text.parse::<i16>().ok()?; rows])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![text.parse::<i32>().ok()?; rows])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![text.parse::<i64>().ok()?; rows])),
        DataType::Date32 => Arc::new(Date32Array::from(vec![date(text)?; rows])),
        _ => return None,
    })
}

/// The day of a text such as `2024-02-29`, or `-0044-03-15`.
fn date(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let mut parts = digits.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day);
    i32::try_from(sound.then(|| days(sign * i64::from(year), month, day))?).ok()
}
