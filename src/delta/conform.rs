//! Columns as a file holds them → columns as the table has them. Other engines write other types
//! for the same values; a value that would have to change is an error.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType,
};
use arrow_array::{
    Array, ArrayRef, GenericListArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringArray, new_null_array,
};
use arrow_schema::{DataType, FieldRef, SchemaRef, TimeUnit};
use lakeward_connectors::{Error, ErrorKind, Result};

use super::partition::{Values, constant};

/// The columns `wanted` of `batch`, by name. A column that `batch` hasn't is null, or has one of
/// `values` in all rows.
///
/// # Errors
/// [`ErrorKind::Table`] when a column's values have no place in the wanted type.
pub(crate) fn conform(
    batch: &RecordBatch,
    wanted: &SchemaRef,
    values: &Values,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = wanted.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        None => match values.get(field.name()) {
            None => Ok(new_null_array(field.data_type(), rows)),
            Some(value) => constant(field.data_type(), value.as_deref(), rows).ok_or_else(|| {
                let message = "the log holds a partition's value that its column can't take";
                Error::new(ErrorKind::Table, message)
                    .with("column", field.name())
                    .remedy("`lakeward snapshot` reads the table again")
            }),
        },
        Some(column) => cast(column, field.data_type()).ok_or_else(|| {
            let message = "a data file holds a column of a type that the table's can't take";
            Error::new(ErrorKind::Table, message)
                .with("column", field.name())
                .with("type", column.data_type())
                .remedy("`lakeward snapshot` reads the table again")
        }),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &options).map_err(|error| {
        Error::internal("columns of a data file don't fit together").caused_by(error)
    })
}

/// `array` as `wanted`; `None` when that would change a value.
fn cast(array: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    if array.data_type() == wanted {
        return Some(Arc::clone(array));
    }
    match wanted {
        DataType::Int16 => widen::<Int16Type>(array),
        DataType::Int32 => widen::<Int32Type>(array),
        DataType::Int64 => widen::<Int64Type>(array),
        DataType::Float64 => {
            let floats = array.as_primitive_opt::<Float32Type>()?;
            Some(Arc::new(floats.unary::<_, Float64Type>(f64::from)))
        }
        DataType::Decimal128(precision, scale) => decimal(array, *precision, *scale),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => timestamp(array, zone.as_deref()),
        DataType::Utf8 => text(array),
        DataType::Binary => {
            let texts = array.as_string_opt::<i32>()?;
            Some(Arc::new(arrow_array::BinaryArray::from(texts.clone())))
        }
        DataType::List(item) => list(array, item),
        _ => None,
    }
}

fn widen<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<ArrayRef>
where
    T::Native: From<i8> + TryFrom<i64>,
{
    fn each<S: ArrowPrimitiveType, T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<ArrayRef>
    where
        S::Native: Into<i64>,
        T::Native: TryFrom<i64>,
    {
        let source = array.as_primitive_opt::<S>()?;
        let narrow = |value: S::Native| T::Native::try_from(value.into()).map_err(drop);
        let cast: PrimitiveArray<T> = source.try_unary(narrow).ok()?;
        Some(Arc::new(cast))
    }
    match array.data_type() {
        DataType::Int8 => each::<Int8Type, T>(array),
        DataType::Int16 => each::<Int16Type, T>(array),
        DataType::Int32 => each::<Int32Type, T>(array),
        DataType::Int64 => each::<Int64Type, T>(array),
        _ => None,
    }
}

fn decimal(array: &ArrayRef, precision: u8, scale: i8) -> Option<ArrayRef> {
    let decimals = array.as_primitive_opt::<Decimal128Type>()?;
    let DataType::Decimal128(_, found) = array.data_type() else {
        return None;
    };
    let shift = u32::try_from(scale.checked_sub(*found)?).ok()?;
    let factor = 10_i128.checked_pow(shift)?;
    let shifted = decimals.try_unary::<_, Decimal128Type, ()>(|v| v.checked_mul(factor).ok_or(()));
    let shifted = shifted.ok()?.with_precision_and_scale(precision, scale).ok()?;
    shifted.validate_decimal_precision(precision).ok()?;
    Some(Arc::new(shifted))
}

fn timestamp(array: &ArrayRef, zone: Option<&str>) -> Option<ArrayRef> {
    let micros: PrimitiveArray<TimestampMicrosecondType> = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive_opt::<TimestampMicrosecondType>()?.clone()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let millis = array.as_primitive_opt::<TimestampMillisecondType>()?;
            millis.try_unary(|value| value.checked_mul(1000).ok_or(())).ok()?
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let nanos = array.as_primitive_opt::<TimestampNanosecondType>()?;
            let exact = |value: i64| (value % 1000 == 0).then_some(value / 1000).ok_or(());
            nanos.try_unary(exact).ok()?
        }
        DataType::Date32 => {
            let days = array.as_primitive_opt::<Date32Type>()?;
            days.unary(|value| i64::from(value) * 86_400_000_000)
        }
        _ => return None,
    };
    Some(Arc::new(micros.with_timezone_opt(zone)))
}

/// Text that a file doesn't call text.
fn text(array: &ArrayRef) -> Option<ArrayRef> {
    let values = array.as_binary_opt::<i32>()?;
    let texts = values.iter().map(|value| match value {
        Some(bytes) => std::str::from_utf8(bytes).map(Some),
        None => Ok(None),
    });
    Some(Arc::new(texts.collect::<Result<StringArray, _>>().ok()?))
}

fn list(array: &ArrayRef, item: &FieldRef) -> Option<ArrayRef> {
    let list = array.as_list_opt::<i32>()?;
    let values = cast(list.values(), item.data_type())?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    let cast = GenericListArray::<i32>::try_new(Arc::clone(item), offsets, values, nulls).ok()?;
    Some(Arc::new(cast))
}
