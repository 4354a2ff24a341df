//! Which tables this writer may write to: a feature that it can't honour is refused with the way
//! out, never ignored.

use lakeward_connectors::{Error, Result};

use super::actions::{Metadata, Protocol};
use super::log::fault;

/// Features that may be listed: either this writer honours them, or it makes sure that the table does
/// not use them, by [`check`] or by the types of its columns. delta-rs lists `variantType` when it sets
/// any property of a table of reader version 3, whatever its columns are.
const FEATURES: [&str; 13] = [
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "clustering",
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "identityColumns",
    "invariants",
    "timestampNtz",
    "vacuumProtocolCheck",
    "variantType",
];

/// The feature of columns without a time zone.
pub(crate) const TIMESTAMP_NTZ: &str = "timestampNtz";

/// The feature of files with deleted rows.
pub(crate) const DELETION_VECTORS: &str = "deletionVectors";

/// What a new table needs that uses `features`.
pub(crate) fn needed(features: &[&str]) -> Protocol {
    let list = || Some(features.iter().map(|name| (*name).to_owned()).collect());
    match features.is_empty() {
        true => Protocol {
            min_reader_version: 1,
            min_writer_version: 2,
            reader_features: None,
            writer_features: None,
        },
        false => Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: list(),
            writer_features: list(),
        },
    }
}

/// The protocol that a table of `present` gets when it comes to use `features`; `None` when it may
/// already. Everything that holds now is kept.
pub(crate) fn raised(present: &Protocol, features: &[&str]) -> Option<Protocol> {
    let lists = |listed: &Option<Vec<String>>, feature: &str| {
        listed.as_ref().is_some_and(|list| list.iter().any(|name| name == feature))
    };
    let held = |feature: &&str| {
        lists(&present.reader_features, feature) && lists(&present.writer_features, feature)
    };
    if features.iter().all(held) {
        return None;
    }
    let mut reader = present.reader_features.clone().unwrap_or_default();
    let mut writer = present.writer_features.clone().unwrap_or_default();
    // What version 2 of writers implies must be listed from version 7 on.
    if present.min_writer_version < 7 {
        let implied = [
            (2, "appendOnly"),
            (2, "invariants"),
            (3, "checkConstraints"),
            (4, "changeDataFeed"),
            (4, "generatedColumns"),
            (5, "columnMapping"),
            (6, "identityColumns"),
        ];
        let held = implied.iter().filter(|(version, _)| *version <= present.min_writer_version);
        writer.extend(held.map(|(_, name)| (*name).to_owned()));
    }
    if present.min_reader_version == 2 {
        reader.push("columnMapping".to_owned());
    }
    for listed in [&mut reader, &mut writer] {
        for feature in features {
            if !listed.iter().any(|name| name == feature) {
                listed.push((*feature).to_owned());
            }
        }
    }
    Some(Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(reader),
        writer_features: Some(writer),
    })
}

/// Makes sure that this writer may write to the table at `path`.
///
/// # Errors
/// [`Table`](lakeward_connectors::ErrorKind::Table) with what the table uses and the way out.
pub(crate) fn check(path: &str, protocol: &Protocol, metadata: &Metadata) -> Result<()> {
    let refuse = |what: &str, remedy: &str| -> Result<()> {
        Err(fault(path, format!("the table uses {what}, which is not supported")).remedy(remedy))
    };
    if protocol.min_reader_version > 3 || protocol.min_writer_version > 7 {
        return refuse("a newer protocol", "update lakeward, or write to another table");
    }
    let features = protocol.reader_features.iter().chain(&protocol.writer_features).flatten();
    if let Some(feature) = features.into_iter().find(|name| !FEATURES.contains(&name.as_str())) {
        let what = format!("the feature {feature}");
        return refuse(&what, "drop the feature from the table (ALTER TABLE … DROP FEATURE)");
    }
    if metadata.format.provider != "parquet" {
        return refuse("a data format other than Parquet", "write to another table");
    }
    check_properties(path, metadata)
}

fn check_properties(path: &str, metadata: &Metadata) -> Result<()> {
    let refuse = |name: &str, value: &str| -> Error {
        fault(path, "the table has a property that is not supported")
            .with("property", format!("{name}={value}"))
            .remedy("unset the property, or write to another table")
    };
    for (name, value) in &metadata.configuration {
        let value = value.as_deref().unwrap_or_default();
        let set = match name.as_str() {
            "delta.appendOnly"
            | "delta.enableChangeDataFeed"
            | "delta.enableRowTracking"
            | "delta.enableTypeWidening"
            | "delta.enableInCommitTimestamps" => value == "true",
            "delta.columnMapping.mode" => value != "none",
            name => name.starts_with("delta.constraints."),
        };
        if set {
            return Err(refuse(name, value));
        }
    }
    Ok(())
}
