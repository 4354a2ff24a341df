//! The lake as any reader finds it: logs replayed from their JSON, rows from Parquet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::DataType;
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use futures::TryStreamExt;
use lakeward::delta::table_path;
use lakeward_connectors::scripted::{Cell, Row};
use lakeward_connectors::{TableId, TableSchema};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Context, Res};

/// A table as its log says.
#[derive(Debug, Default)]
pub struct LakeTable {
    path: String,
    pub version: Option<i64>,
    pub txns: BTreeMap<String, i64>,
    pub schema: Option<TableSchema>,
    /// Active files: path → their `add`.
    files: BTreeMap<String, Value>,
}

impl LakeTable {
    /// Replays the log of `table` of `source`.
    pub async fn load(objects: &InMemory, source: &str, table: &TableId) -> Res<Self> {
        let mut found = Self { path: table_path(source, table), ..Self::default() };
        loop {
            let version = found.version.map_or(0, |version| version + 1);
            let Some(bytes) = get(objects, &commit_path(&found.path, version)).await? else {
                return Ok(found);
            };
            found.replay(&bytes)?;
            found.version = Some(version);
        }
    }

    fn replay(&mut self, bytes: &[u8]) -> Res<()> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let actions: Vec<Value> = lines
            .map(|line| serde_json::from_slice(line).context("a line of a commit"))
            .collect::<Res<_>>()?;
        for remove in actions.iter().filter_map(|action| action.get("remove")) {
            self.files.remove(text(remove, "path")?);
        }
        for action in &actions {
            if let Some(add) = action.get("add") {
                self.files.insert(text(add, "path")?.to_owned(), add.clone());
            }
            if let Some(txn) = action.get("txn") {
                let version = txn.get("version").and_then(Value::as_i64).unwrap_or(-1);
                self.txns.insert(text(txn, "appId")?.to_owned(), version);
            }
            if let Some(metadata) = action.get("metaData") {
                let schema = metadata.pointer("/configuration/lakeward.schema");
                let schema = schema.and_then(Value::as_str).unwrap_or_default();
                self.schema = Some(serde_json::from_str(schema).context("a table's schema")?);
            }
        }
        Ok(())
    }

    /// The rows, each with the columns of `names` (a column that is not there is null), sorted.
    pub async fn rows(&self, objects: &InMemory, names: &[Option<&str>]) -> Res<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, add) in &self.files {
            let deleted = self.deleted(objects, add).await?;
            let mut next = 0_u64..;
            let path = format!("{}/{name}", self.path);
            let bytes = get(objects, &path).await?;
            let bytes = bytes.ok_or_else(|| format!("{path} is in the log and not there"))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).context(&path)?;
            for batch in reader.build().context(&path)? {
                let batch = batch.context(&path)?;
                let kept = next.by_ref().take(batch.num_rows()).map(|row| !deleted.contains(row));
                let kept: BooleanArray = kept.map(Some).collect();
                read_batch(&filter_record_batch(&batch, &kept).context(&path)?, names, &mut rows)?;
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// The rows of a file that its deletion vector deletes.
    async fn deleted(&self, objects: &InMemory, add: &Value) -> Res<RoaringTreemap> {
        let Some(vector) = add.get("deletionVector") else { return Ok(RoaringTreemap::new()) };
        let number = |field: &str| vector.get(field).and_then(Value::as_u64).unwrap_or(0) as usize;
        let id = Uuid::from_u128(base85(text(vector, "pathOrInlineDv")?)?);
        let path = format!("{}/deletion_vector_{id}.bin", self.path);
        let bytes = get(objects, &path).await?;
        let bytes = bytes.ok_or_else(|| format!("{path} is in the log and not there"))?;
        let start = number("offset");
        let data = bytes.get(start + 8..start + 4 + number("sizeInBytes"));
        let data = data.ok_or_else(|| format!("{path} is too short"))?;
        let rows = RoaringTreemap::deserialize_from(data).context(&path)?;
        match rows.len() as usize == number("cardinality") {
            true => Ok(rows),
            false => Err(format!("{path}: {} rows are deleted, not {vector}", rows.len())),
        }
    }

    /// What another engine does: commits nothing, or gives each file another name. A commit that
    /// somebody else is faster with comes to nothing.
    pub async fn meddle(&self, objects: &InMemory, optimize: bool, tag: u64) -> Res<()> {
        let Some(version) = self.version else { return Ok(()) };
        let mut lines = vec![r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#.to_owned()];
        for (name, add) in self.files.iter().filter(|_| optimize) {
            let moved = format!("moved-{tag}-{name}");
            let bytes = get(objects, &format!("{}/{name}", self.path)).await?;
            let Some(bytes) = bytes else { return Ok(()) };
            let path = Path::from(format!("{}/{moved}", self.path));
            objects.put(&path, bytes.into()).await.context("a moved file")?;
            let remove = serde_json::json!({"remove": {
                "path": name, "deletionTimestamp": 1, "dataChange": false,
                "deletionVector": add.get("deletionVector")}});
            let mut add = add.clone();
            add["path"] = moved.into();
            add["dataChange"] = false.into();
            lines.extend([remove.to_string(), serde_json::json!({ "add": add }).to_string()]);
        }
        let path = Path::from(commit_path(&self.path, version + 1));
        let options = PutOptions::from(PutMode::Create);
        // Whoever was faster has won.
        let _ = objects.put_opts(&path, lines.join("\n").into(), options).await;
        Ok(())
    }
}

fn text<'a>(action: &'a Value, field: &str) -> Res<&'a str> {
    action.get(field).and_then(Value::as_str).ok_or_else(|| format!("an action without {field}"))
}

/// The number whose big-endian bytes are written as `text` (ZeroMQ RFC 32).
fn base85(text: &str) -> Res<u128> {
    const DIGITS: &str =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let digit = |letter: char| DIGITS.find(letter).ok_or_else(|| format!("{text} is no base 85"));
    let mut number = 0;
    for word in text.chars().collect::<Vec<_>>().chunks(5) {
        let word = word
            .iter()
            .try_fold(0, |word, letter| Ok::<_, String>(word * 85 + digit(*letter)? as u128));
        number = number << 32 | word?;
    }
    Ok(number)
}

fn commit_path(table: &str, version: i64) -> String {
    format!("{table}/_delta_log/{version:020}.json")
}

async fn get(objects: &InMemory, path: &str) -> Res<Option<Bytes>> {
    match objects.get(&Path::from(path)).await {
        Ok(found) => Ok(Some(found.bytes().await.context(path)?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// The number of epoch files ever needed: the greatest number there is.
pub async fn newest_epoch(objects: &InMemory) -> Res<u64> {
    let folder = Path::from("_lakeward");
    let listed: Vec<_> = objects.list(Some(&folder)).try_collect().await.context("a listing")?;
    let number =
        |path: &Path| path.filename()?.strip_suffix(".json").and_then(|name| name.parse().ok());
    Ok(listed.iter().filter_map(|object| number(&object.location)).max().unwrap_or(0))
}

fn read_batch(batch: &RecordBatch, names: &[Option<&str>], rows: &mut Vec<Row>) -> Res<()> {
    let columns: Vec<Option<&ArrayRef>> =
        names.iter().map(|name| name.and_then(|name| batch.column_by_name(name))).collect();
    for row in 0..batch.num_rows() {
        rows.push(columns.iter().map(|column| cell(*column, row)).collect::<Res<_>>()?);
    }
    Ok(())
}

fn cell(column: Option<&ArrayRef>, row: usize) -> Res<Cell> {
    let Some(column) = column.filter(|column| !column.is_null(row)) else { return Ok(Cell::Null) };
    match column.data_type() {
        DataType::Int64 => Ok(Cell::Int(column.as_primitive::<Int64Type>().value(row))),
        DataType::Utf8 => Ok(Cell::Text(column.as_string::<i32>().value(row).to_owned())),
        DataType::Utf8View => Ok(Cell::Text(column.as_string_view().value(row).to_owned())),
        DataType::LargeUtf8 => Ok(Cell::Text(column.as_string::<i64>().value(row).to_owned())),
        other => Err(format!("a column of type {other}")),
    }
}

/// The objects as a lake, for what the daemon's own code reads.
pub fn plain(objects: &Arc<InMemory>) -> lakeward::delta::Lake {
    lakeward::delta::Lake::with_store(objects.clone())
}
