//! The statistics of a data file, as the log states them. A bound is exact, or wide enough, or
//! absent: readers leave out files by it.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use lakeward_connectors::key::civil;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::schema::Layout;

/// How many columns have statistics; Delta's default.
const COLUMNS: usize = 32;
/// How many characters of a text its bounds keep.
const CHARACTERS: usize = 32;
const DAY_MICROS: i64 = 86_400_000_000;

/// What is known of a file's rows beyond what Parquet itself remembers.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    rows: u64,
    /// By column; `None` where nobody has counted.
    nulls: Vec<Option<u64>>,
    nan: Vec<bool>,
}

impl Seen {
    /// Takes note of the rows of `batch`.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        self.nulls.resize(batch.num_columns(), Some(0));
        self.nan.resize(batch.num_columns(), false);
        for (index, column) in batch.columns().iter().enumerate() {
            self.nulls[index] = self.nulls[index].map(|nulls| nulls + column.null_count() as u64);
            self.nan[index] |= has_nan(column.as_ref());
        }
    }

    /// Takes note of a row group that is copied from another file, where `without_nan` tells the
    /// columns of floating point numbers none of which is a NaN.
    pub(crate) fn add_copied(
        &mut self,
        group: &RowGroupMetaData,
        layout: &Layout,
        without_nan: &(dyn Fn(&str) -> bool + Sync),
    ) {
        let fields = layout.arrow().fields();
        self.rows += u64::try_from(group.num_rows()).unwrap_or(0);
        self.nulls.resize(fields.len(), Some(0));
        self.nan.resize(fields.len(), false);
        for (index, field) in fields.iter().enumerate() {
            // Parquet counts the nulls of a list's items, too.
            let column = group.columns().get(index).filter(|_| !field.data_type().is_nested());
            let nulls = column.and_then(|column| column.statistics()?.null_count_opt());
            self.nulls[index] = self.nulls[index].zip(nulls).map(|(a, b)| a + b);
            if matches!(field.data_type(), DataType::Float32 | DataType::Float64) {
                self.nan[index] |= !without_nan(field.name());
            }
        }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The statistics in the log's JSON.
    pub(crate) fn json(&self, layout: &Layout, file: &ParquetMetaData) -> String {
        let (mut least, mut greatest, mut nulls) = (Object::new(), Object::new(), Object::new());
        for (index, field) in layout.arrow().fields().iter().enumerate().take(COLUMNS) {
            if let Some(null) = self.nulls.get(index).copied().flatten() {
                nulls.put(field.name(), &null.to_string());
            }
            if self.nan.get(index).copied().unwrap_or(true) {
                continue;
            }
            let Some((min, max)) = bounds(file, index) else {
                continue;
            };
            if let Some((min, max)) = texts(field.data_type(), min, max) {
                min.into_iter().for_each(|min| least.put(field.name(), &min));
                max.into_iter().for_each(|max| greatest.put(field.name(), &max));
            }
        }
        format!(
            r#"{{"numRecords":{},"minValues":{},"maxValues":{},"nullCount":{}}}"#,
            self.rows,
            least.close(),
            greatest.close(),
            nulls.close()
        )
    }
}

/// Statistics for a file of `rows` rows some of which are deleted: the number stays that of the
/// file, and bounds may be wider than what is left ("Per-file Statistics"). Bounds are taken over as
/// the text they are, since numbers of JSON may not survive a reading.
pub(crate) fn loosened(stats: Option<&str>, rows: u64) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Known {
        num_records: Option<u64>,
        tight_bounds: Option<bool>,
    }
    let known = stats.and_then(|text| serde_json::from_str::<Known>(text).ok());
    let bare = || format!(r#"{{"numRecords":{rows},"tightBounds":false}}"#);
    match (stats.map(str::trim), known) {
        (Some(text), Some(Known { num_records: Some(_), tight_bounds })) => match tight_bounds {
            Some(false) => text.to_owned(),
            Some(true) => untightened(text).unwrap_or_else(bare),
            None => format!(r#"{{"tightBounds":false,{}"#, &text[1..]),
        },
        _ => bare(),
    }
}

/// Whether the statistics of a file say that none of a column's floating point numbers is a NaN:
/// those of this writer give no bounds otherwise.
pub(crate) fn tells_no_nan(stats: Option<&str>) -> impl Fn(&str) -> bool {
    let stats = stats.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    move |column| stats.as_ref().is_some_and(|stats| !stats["minValues"][column].is_null())
}

/// The object `text` with its own `tightBounds` false instead of true.
fn untightened(text: &str) -> Option<String> {
    const NAME: &str = "\"tightBounds\"";
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if depth == 1 && !quoted && text[at..].starts_with(NAME) => {
                let (before, rest) = text.split_at(at + NAME.len());
                let value = rest.trim_start().strip_prefix(':')?.trim_start();
                return Some(format!("{before}:false{}", value.strip_prefix("true")?));
            }
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    None
}

fn has_nan(column: &dyn Array) -> bool {
    match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        _ => false,
    }
}

/// A JSON object of values that are JSON already.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn put(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A bound as Parquet keeps it.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Int(i64),
    Float(f64),
    Decimal(i128),
    Bytes(Vec<u8>),
}

/// The least and greatest value of column `index` over all row groups; `None` when a row group
/// with values doesn't tell.
fn bounds(file: &ParquetMetaData, index: usize) -> Option<(Bound, Bound)> {
    let mut found: Option<(Bound, Bound)> = None;
    for group in file.row_groups() {
        let statistics = group.columns().get(index)?.statistics()?;
        let values = group.num_rows() as u64;
        if statistics.null_count_opt() == Some(values) {
            continue;
        }
        let (min, max) = bound_pair(statistics)?;
        found = Some(match found {
            None => (min, max),
            Some((least, greatest)) => {
                (if min < least { min } else { least }, if max > greatest { max } else { greatest })
            }
        });
    }
    found
}

fn bound_pair(statistics: &Statistics) -> Option<(Bound, Bound)> {
    Some(match statistics {
        Statistics::Int32(s) => {
            (Bound::Int((*s.min_opt()?).into()), Bound::Int((*s.max_opt()?).into()))
        }
        Statistics::Int64(s) => (Bound::Int(*s.min_opt()?), Bound::Int(*s.max_opt()?)),
        Statistics::Float(s) => {
            (Bound::Float((*s.min_opt()?).into()), Bound::Float((*s.max_opt()?).into()))
        }
        Statistics::Double(s) => (Bound::Float(*s.min_opt()?), Bound::Float(*s.max_opt()?)),
        Statistics::ByteArray(s) => {
            let (min, max) = (s.min_opt()?.data(), s.max_opt()?.data());
            (Bound::Bytes(min.to_vec()), Bound::Bytes(max.to_vec()))
        }
        Statistics::FixedLenByteArray(s) => {
            let (min, max) = (s.min_opt()?.data(), s.max_opt()?.data());
            (Bound::Decimal(big_endian(min)?), Bound::Decimal(big_endian(max)?))
        }
        Statistics::Boolean(_) | Statistics::Int96(_) => return None,
    })
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut whole = [sign; 16];
    whole.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// The bounds in JSON, each where it can be given; `None` for types that have none.
fn texts(kind: &DataType, min: Bound, max: Bound) -> Option<(Option<String>, Option<String>)> {
    Some(match (kind, min, max) {
        (DataType::Decimal128(_, scale), min, max) => {
            // A column of one value is read from its bounds by some readers, through a float.
            if min == max {
                return None;
            }
            (decimal(*scale, &min), decimal(*scale, &max))
        }
        (DataType::Date32, Bound::Int(min), Bound::Int(max)) => {
            (date(min).map(|d| quoted(&d)), date(max).map(|d| quoted(&d)))
        }
        (DataType::Timestamp(_, zone), Bound::Int(min), Bound::Int(max)) => {
            let zone = if zone.is_some() { "Z" } else { "" };
            // Milliseconds are all that readers expect: down to one below, up to one above.
            let up = max.checked_add(999)?;
            (timestamp(min, zone), timestamp(up, zone))
        }
        (kind, Bound::Int(min), Bound::Int(max)) if kind.is_integer() => {
            (Some(min.to_string()), Some(max.to_string()))
        }
        (kind, Bound::Float(min), Bound::Float(max)) if kind.is_floating() => {
            (float(min), float(max))
        }
        (DataType::Utf8, Bound::Bytes(min), Bound::Bytes(max)) => {
            (text_below(&min).map(|t| quoted(&t)), text_above(&max).map(|t| quoted(&t)))
        }
        _ => return None,
    })
}

/// A float of 32 bits is written as the 64-bit float it is, so that it is the same to all readers.
fn float(value: f64) -> Option<String> {
    serde_json::Number::from_f64(value).map(|number| number.to_string())
}

/// All digits, however many: every reader tried takes them exactly, and one of them (deltalake's
/// dataset) takes a bound that is absent for null and finds nothing.
fn decimal(scale: i8, value: &Bound) -> Option<String> {
    let value = match value {
        Bound::Int(value) => i128::from(*value),
        Bound::Decimal(value) => *value,
        _ => return None,
    };
    let scale = usize::try_from(scale).ok()?;
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

fn date(days: i64) -> Option<String> {
    let (year, month, day) = civil(days);
    (1..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn timestamp(micros: i64, zone: &str) -> Option<String> {
    let date = date(micros.div_euclid(DAY_MICROS))?;
    let millis = micros.rem_euclid(DAY_MICROS) / 1000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("\"{date}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}{zone}\""))
}

/// A text that is not above `bytes`.
fn text_below(bytes: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
    };
    Some(text.chars().take(CHARACTERS).collect())
}

/// A text that is not below `bytes`.
fn text_above(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.chars().nth(CHARACTERS).is_none() {
        return Some(text.to_owned());
    }
    let mut kept: Vec<char> = text.chars().take(CHARACTERS).collect();
    while let Some(last) = kept.pop() {
        if let Some(next) = (u32::from(last) + 1..=0x10ffff).find_map(char::from_u32) {
            kept.push(next);
            return Some(kept.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_loosened_as_text() {
        let decimal = r#""maxValues":{"d":1234567890123456789.12}"#;
        assert_eq!(
            loosened(Some(&format!(r#"{{"numRecords":3,{decimal}}}"#)), 3),
            format!(r#"{{"tightBounds":false,"numRecords":3,{decimal}}}"#)
        );
        let nested = r#""minValues":{"tightBounds":true,"t":"\"tightBounds\":true"}"#;
        assert_eq!(
            loosened(Some(&format!(r#"{{"numRecords":3,{nested},"tightBounds" : true}}"#)), 3),
            format!(r#"{{"numRecords":3,{nested},"tightBounds":false}}"#)
        );
        let loose = r#"{"numRecords":3,"tightBounds":false}"#;
        for stats in [Some(loose), Some("{}"), Some("garbage"), None] {
            assert_eq!(loosened(stats, 3), loose);
        }
    }
}
