//! Checkpoints: the state of a log in one Parquet file, so that readers need not read all of it,
//! and what lies behind them that nobody needs.

use std::sync::Arc;
use std::time::Duration;

use arrow_json::{LineDelimitedWriter, ReaderBuilder};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use lakeward_connectors::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::SchemaDescriptor;
use serde_json::json;

use super::actions::{self, Action, Metadata};
use super::clock::now_millis;
use super::log::{LogFile, directory, hint_path};
use super::snapshot::Snapshot;
use super::store::{Lake, Listed};

const DAY: i64 = 24 * 60 * 60 * 1000;
/// A table of no more files has few: its checkpoint costs little beside 20 commits.
const FEW: usize = 1_000;
/// How many actions are turned into Arrow at once.
const CHUNK: usize = 4096;

/// Whether a checkpoint is due: at every 20th version as long as the table has few files, so that
/// readers have little to read behind it, else at every 100th, or as the table says.
pub(crate) fn is_due(snapshot: &Snapshot) -> bool {
    let interval = snapshot.metadata.property("delta.checkpointInterval");
    let interval = interval.and_then(|text| text.parse().ok()).filter(|interval| *interval > 0);
    let usual = if snapshot.state.len() <= FEW { 20 } else { 100 };
    snapshot.version > 0 && snapshot.version % interval.unwrap_or(usual) == 0
}

/// Writes the checkpoint of `snapshot`, without tombstones that have expired.
pub(crate) async fn write(lake: &Lake, table: &str, snapshot: &mut Snapshot) -> Result<()> {
    let now = now_millis();
    let retention = file_retention(&snapshot.metadata, lake.retention());
    snapshot
        .state
        .tombstones
        .retain(|_, remove| remove.deletion_timestamp.unwrap_or(0) > now.saturating_sub(retention));
    let actions = actions_of(snapshot);
    let (bytes, adds) = (encode(&actions)?, snapshot.state.files().count());
    let version = snapshot.version;
    let hint = json!({
        "version": version,
        "size": actions.len(),
        "sizeInBytes": bytes.len(),
        "numOfAddFiles": adds,
    });
    let path = format!("{}/{version:020}.checkpoint.parquet", directory(table));
    lake.put(&path, bytes.into()).await?;
    lake.put(&hint_path(table), hint.to_string().into()).await
}

/// Until when files of the log are older than its retention, in milliseconds since 1970.
pub(crate) fn horizon(snapshot: &Snapshot, retention: Duration) -> i64 {
    let retention = interval(&snapshot.metadata, "delta.logRetentionDuration", retention);
    now_millis().saturating_sub(retention)
}

/// Files of the log in `listed` that are older than `horizon` and that no version since then needs,
/// the oldest first.
pub(crate) fn expired<'a>(
    listed: &'a [Listed],
    table: &str,
    snapshot: &Snapshot,
    horizon: i64,
) -> Vec<&'a Listed> {
    if snapshot.metadata.property("delta.enableExpiredLogCleanup") == Some("false") {
        return Vec::new();
    }
    let log = directory(table);
    let files = listed.iter().filter(|file| file.path.starts_with(&log));
    let old = files.filter(|file| file.modified < horizon);
    let old: Vec<_> = old.filter_map(|file| Some((LogFile::of(&file.path)?, file))).collect();
    // Everything before a checkpoint that is itself expired can go: versions within the retention
    // replay from it or from a later one. It must be whole, hence only checkpoints of one part.
    let whole = old.iter().filter_map(|(kind, _)| match kind {
        LogFile::Checkpoint { version, parts: 1, .. } => Some(*version),
        _ => None,
    });
    let Some(keep_from) = whole.filter(|version| *version <= snapshot.version).max() else {
        return Vec::new();
    };
    let gone = old.into_iter().filter(|(kind, _)| {
        let (LogFile::Commit(version) | LogFile::Checkpoint { version, .. }) = kind;
        *version < keep_from
    });
    let mut gone: Vec<_> = gone.map(|(_, file)| file).collect();
    gone.sort_unstable_by_key(|file| &file.path);
    gone
}

/// The actions of a checkpoint file, maps without what is null in them.
///
/// # Errors
/// When the bytes are no Parquet file of actions.
pub(crate) fn read(bytes: Bytes) -> Result<Vec<Action>> {
    decode(bytes)
        .map_err(|cause| Error::internal("a checkpoint can't be understood").caused_by(cause))
}

fn decode(bytes: Bytes) -> Result<Vec<Action>, Box<dyn std::error::Error + Send + Sync>> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves(builder.parquet_schema()));
    let reader = builder.with_projection(mask).with_batch_size(CHUNK).build()?;
    let mut found = Vec::new();
    for batch in reader {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch?)?;
        writer.finish()?;
        found.extend(actions::parse(&writer.into_inner())?);
    }
    Ok(found)
}

/// The leaf columns that the actions are read from: statistics and partition values are also there
/// as columns of types of their own, which nobody needs here.
fn leaves(schema: &SchemaDescriptor) -> Vec<usize> {
    let wanted = |path: &[String]| match path {
        [root, field, ..] => {
            let known = ["txn", "add", "remove", "metaData", "protocol", "domainMetadata"];
            known.contains(&root.as_str()) && !field.ends_with("_parsed")
        }
        _ => false,
    };
    let columns = schema.columns().iter().enumerate();
    columns.filter(|(_, column)| wanted(column.path().parts())).map(|(index, _)| index).collect()
}

fn actions_of(snapshot: &Snapshot) -> Vec<Action> {
    let state = &snapshot.state;
    let mut actions = vec![snapshot.protocol.clone().into(), snapshot.metadata.clone().into()];
    actions.extend(state.txns.values().cloned().map(Action::from));
    actions.extend(state.domains.values().cloned().map(Action::from));
    // A checkpoint describes; the change was made by the commits before it.
    actions.extend(state.files().cloned().map(|mut add| {
        add.data_change = false;
        Action::from(add)
    }));
    actions.extend(state.tombstones.values().cloned().map(|mut remove| {
        remove.data_change = false;
        Action::from(remove)
    }));
    actions
}

fn encode(actions: &[Action]) -> Result<Vec<u8>> {
    let domains = actions.iter().any(|action| action.domain_metadata.is_some());
    let vectors = actions.iter().any(|Action { add, remove, .. }| {
        add.as_ref().is_some_and(|add| add.deletion_vector.is_some())
            || remove.as_ref().is_some_and(|remove| remove.deletion_vector.is_some())
    });
    write_parquet(actions, Arc::new(schema(domains, vectors)))
        .map_err(|cause| Error::internal("a checkpoint can't be written").caused_by(cause))
}

fn write_parquet(
    actions: &[Action],
    schema: Arc<Schema>,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(super::ENGINE.to_owned())
        .build();
    let options =
        ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?;
    let mut decoder = ReaderBuilder::new(schema).build_decoder()?;
    for chunk in actions.chunks(CHUNK) {
        decoder.serialize(chunk)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

/// The columns of a checkpoint; those of features only where the table uses them.
fn schema(domains: bool, vectors: bool) -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let list = |name: &str| {
        Field::new(
            name,
            DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
            true,
        )
    };
    let node = |name: &str, fields: Vec<Field>| {
        Field::new(name, DataType::Struct(Fields::from(fields)), true)
    };
    let vector = || {
        let fields = vec![
            text("storageType"),
            text("pathOrInlineDv"),
            int("offset"),
            int("sizeInBytes"),
            long("cardinality"),
            long("maxRowIndex"),
        ];
        vectors.then(|| node("deletionVector", fields))
    };
    let file = |name: &str, mut fields: Vec<Field>| {
        fields.extend(vector());
        node(name, fields)
    };
    let mut fields = vec![
        node("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        file(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                map("tags"),
            ],
        ),
        file(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                flag("dataChange"),
                flag("extendedFileMetadata"),
                map("partitionValues"),
                long("size"),
            ],
        ),
        node(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                node("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                list("partitionColumns"),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        node(
            "protocol",
            vec![
                int("minReaderVersion"),
                int("minWriterVersion"),
                list("readerFeatures"),
                list("writerFeatures"),
            ],
        ),
    ];
    if domains {
        let domain = vec![text("domain"), text("configuration"), flag("removed")];
        fields.push(node("domainMetadata", domain));
    }
    Schema::new(fields)
}

fn map(name: &str) -> Field {
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    let entry = Field::new("key_value", DataType::Struct(entries), false);
    Field::new(name, DataType::Map(Arc::new(entry), false), true)
}

/// For how long files that a commit removed are kept, in milliseconds: as the table's own property
/// says, else for `default`.
pub(crate) fn file_retention(metadata: &Metadata, default: Duration) -> i64 {
    interval(metadata, "delta.deletedFileRetentionDuration", default)
}

/// The milliseconds of a property like `interval 30 days`.
fn interval(metadata: &Metadata, name: &str, default: Duration) -> i64 {
    let default = || i64::try_from(default.as_millis()).unwrap_or(i64::MAX);
    metadata.property(name).and_then(parse_interval).unwrap_or_else(default)
}

fn parse_interval(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("interval"));
    let mut total = 0_i64;
    let mut any = false;
    while let Some(count) = words.next() {
        let count: i64 = count.parse().ok()?;
        let unit = words.next()?.to_ascii_lowercase();
        let millis = match unit.trim_end_matches('s') {
            "week" => 7 * DAY,
            "day" => DAY,
            "hour" => 3_600_000,
            "minute" => 60_000,
            "second" => 1000,
            "millisecond" => 1,
            _ => return None,
        };
        total = total.checked_add(count.checked_mul(millis)?)?;
        any = true;
    }
    any.then_some(total)
}
