//! The actions of a Delta log, as they stand in its JSON and Parquet files.

use std::collections::BTreeMap;

use lakeward_connectors::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One line of a commit or row of a checkpoint: exactly one of the fields, or none for an action
/// that is not known here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Add>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Remove>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain_metadata: Option<DomainMetadata>,
}

/// What a reader and a writer of the table must be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer_features: Option<Vec<String>>,
}

/// The table's schema and properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    #[serde(default)]
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
}

impl Metadata {
    /// The value of a property.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.configuration.get(name)?.as_deref()
    }
}

/// The format of the data files; always Parquet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, Option<String>>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// How far an application has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_updated: Option<i64>,
}

/// A data file that belongs to the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) partition_values: BTreeMap<String, Option<String>>,
    pub(crate) size: i64,
    #[serde(default)]
    pub(crate) modification_time: i64,
    #[serde(default)]
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_vector: Option<DeletionVector>,
}

impl Add {
    /// The number of rows by the statistics, if they tell.
    pub(crate) fn rows(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_records: u64,
        }
        serde_json::from_str::<Stats>(self.stats.as_deref()?).ok().map(|stats| stats.num_records)
    }
}

/// A data file that no longer belongs to the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<i64>,
    #[serde(default)]
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_vector: Option<DeletionVector>,
}

/// Where the set of a data file's deleted rows is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeletionVector {
    pub(crate) storage_type: String,
    pub(crate) path_or_inline_dv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<i32>,
    pub(crate) size_in_bytes: i32,
    pub(crate) cardinality: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_row_index: Option<i64>,
}

impl DeletionVector {
    /// What tells it from every other vector; with the path of a data file, what tells a logical
    /// file from every other.
    pub(crate) fn unique_id(&self) -> String {
        let Self { storage_type, path_or_inline_dv, offset, .. } = self;
        let offset = offset.map(|offset| format!("@{offset}")).unwrap_or_default();
        format!("{storage_type}{path_or_inline_dv}{offset}")
    }
}

/// A named piece of metadata of some feature; kept for whoever it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DomainMetadata {
    pub(crate) domain: String,
    pub(crate) configuration: String,
    #[serde(default)]
    pub(crate) removed: bool,
}

/// The actions of a commit file; unknown ones count for nothing.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Action>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let actions: serde_json::Result<Vec<Action>> = lines.map(serde_json::from_slice).collect();
    actions.map_err(|error| Error::internal("an entry of the log can't be read").caused_by(error))
}

/// The text of a commit file.
pub(crate) fn serialise(actions: &[Action]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut text, action).map_err(|error| {
            Error::internal("an action can't be written as JSON").caused_by(error)
        })?;
        text.push(b'\n');
    }
    Ok(text)
}

impl From<Add> for Action {
    fn from(add: Add) -> Self {
        Self { add: Some(add), ..Self::default() }
    }
}

impl From<Remove> for Action {
    fn from(remove: Remove) -> Self {
        Self { remove: Some(remove), ..Self::default() }
    }
}

impl From<Txn> for Action {
    fn from(txn: Txn) -> Self {
        Self { txn: Some(txn), ..Self::default() }
    }
}

impl From<Protocol> for Action {
    fn from(protocol: Protocol) -> Self {
        Self { protocol: Some(protocol), ..Self::default() }
    }
}

impl From<Metadata> for Action {
    fn from(metadata: Metadata) -> Self {
        Self { meta_data: Some(metadata), ..Self::default() }
    }
}

impl From<DomainMetadata> for Action {
    fn from(domain: DomainMetadata) -> Self {
        Self { domain_metadata: Some(domain), ..Self::default() }
    }
}
