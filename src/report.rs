//! What the commands other than `run` say: from the lake, or from the sources, never from memory.

use std::collections::BTreeMap;
use std::process::ExitCode;

use lakeward_connectors::source::{Finding, Position, Source};
use lakeward_connectors::{Error, Result, TableId};
use serde::Serialize;

use crate::config::{Config, SourceConfig};
use crate::daemon::Outcome;
use crate::delta::{Lake, Merge, Table, table_path};
use crate::epoch::Ledger;
use crate::pipeline::Summary;
use crate::{with_position, with_source};

mod act;
mod status;
mod verify;

pub use act::act;
pub use status::{status, watch};
pub use verify::verify;

/// The source of that name.
fn source<'a>(config: &'a Config, name: &str) -> Result<&'a SourceConfig> {
    config.sources.get(name).ok_or_else(|| {
        let known: Vec<_> = config.sources.keys().cloned().collect();
        Error::config("there is no such source")
            .with("source", name)
            .remedy(format!("the configuration has: {}", known.join(", ")))
    })
}

/// Prints `value` as JSON, or `text`.
fn print(json: bool, value: &impl Serialize, text: &str) -> Result<()> {
    match json {
        true => {
            let value = serde_json::to_string_pretty(value)
                .map_err(|error| Error::internal("can't be shown as JSON").caused_by(error))?;
            println!("{value}");
        }
        false => print!("{text}"),
    }
    Ok(())
}

#[derive(Serialize)]
struct EndedSource {
    error: Option<String>,
    stopped: BTreeMap<String, String>,
    tables: BTreeMap<String, Summary>,
}

/// How `run` ended. Without an error it is well, unless `--until-current` was asked for and a table
/// stopped.
///
/// # Errors
/// When a source ended with one: the first.
pub fn ended(outcome: &Outcome, until_current: bool, told: bool, json: bool) -> Result<ExitCode> {
    let mut shown = BTreeMap::new();
    let mut text = String::new();
    let mut code = ExitCode::SUCCESS;
    let mut failed = false;
    for (name, result) in outcome {
        let entry = match result {
            Ok(ended) => {
                let stopped: BTreeMap<_, _> =
                    ended.stopped.iter().map(|(id, why)| (id.to_string(), why.clone())).collect();
                for (table, why) in &stopped {
                    text.push_str(&format!("{name}: {table} is stopped: {why}\n"));
                }
                if until_current && !told && !stopped.is_empty() && !failed {
                    code = ExitCode::FAILURE;
                }
                let tables = ended.tables.iter().map(|(id, of)| (id.to_string(), *of)).collect();
                EndedSource { error: None, stopped, tables }
            }
            Err(error) => {
                text.push_str(&format!("{name}: {}\n", error.full()));
                let config = error.kind() == lakeward_connectors::ErrorKind::Config;
                if !failed {
                    code = if config { ExitCode::from(2) } else { ExitCode::FAILURE };
                }
                failed = true;
                EndedSource {
                    error: Some(error.full()),
                    stopped: BTreeMap::new(),
                    tables: BTreeMap::new(),
                }
            }
        };
        shown.insert(name.clone(), entry);
    }
    if json {
        print(true, &shown, "")?;
    } else {
        eprint!("{text}");
    }
    Ok(code)
}

/// `lakeward check`.
///
/// # Errors
/// None of a source's own: those are findings.
pub async fn check(config: &Config, json: bool) -> Result<ExitCode> {
    let mut findings: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    let lake = match Lake::open(&config.lake.options()) {
        Ok(lake) => lake.check().await.err(),
        Err(error) => Some(error),
    };
    if let Some(error) = lake {
        findings.insert("lake".to_owned(), vec![found(&error)]);
    }
    for (name, source) in &config.sources {
        let checked = with_source!(&source.database, source => source.check().await);
        let mut found = checked.flatten().unwrap_or_else(|error| vec![found(&error)]);
        found.extend(unread_by_some(source));
        findings.insert(name.clone(), found);
    }
    let mut text = String::new();
    for (place, found) in &findings {
        for finding in found {
            let weight = if finding.fatal { "problem" } else { "note" };
            text.push_str(&format!("{place}: {weight}: {}\n", finding.problem));
            if !finding.remedy.is_empty() {
                text.push_str(&format!("    {}\n", finding.remedy.replace('\n', "\n    ")));
            }
        }
    }
    let fatal = findings.values().flatten().any(|finding| finding.fatal);
    if !fatal {
        text.push_str("nothing keeps the sources from being kept\n");
    }
    print(json, &findings, &text)?;
    Ok(if fatal { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn found(error: &Error) -> Finding {
    Finding { fatal: true, problem: error.full(), remedy: String::new() }
}

/// Tables that not every Delta reader reads: a note, since it is what their `merge` asks for.
fn unread_by_some(source: &SourceConfig) -> Option<Finding> {
    let marked =
        source.per_table.merge.iter().filter(|(_, merge)| **merge == Merge::DeletionVectors);
    let marked: Vec<_> = marked.map(|(id, _)| id.to_string()).collect();
    if marked.is_empty() {
        return None;
    }
    let problem = format!(
        "not every reader reads tables with deletion vectors: {}. pyarrow, DataFusion, daft, Presto and \
         Redshift don't, ClickHouse's count() counts deleted rows, and deltalake before 1.6.6 reads \
         wrong rows of large files",
        marked.join(", ")
    );
    let remedy = "nothing, where none of these reads them; all read merge = \"rewrite\" \
                  (docs/reading.md)";
    Some(Finding { fatal: false, problem, remedy: remedy.to_owned() })
}

/// The tables of a source that the lake knows.
async fn known_tables<P: Position>(lake: &Lake, name: &str) -> Result<Vec<TableId>> {
    let ledger = Ledger::<P>::open(lake.clone(), name, String::new()).await?;
    let roster = ledger.newest().and_then(|file| file.roster.as_ref());
    Ok(roster.into_iter().flatten().map(|(id, _)| id.clone()).collect())
}

#[derive(Serialize)]
struct Maintained {
    source: String,
    table: String,
    files: usize,
    bytes: u64,
}

/// `lakeward maintain`: deletes the files that no version within the retention needs.
///
/// # Errors
/// When the lake can't be read.
pub async fn maintain(config: &Config, json: bool) -> Result<ExitCode> {
    let lake = Lake::open(&config.lake.options())?;
    let mut done = Vec::new();
    for (name, source) in &config.sources {
        let known = with_position!(&source.database, P => known_tables::<P>(&lake, name).await?);
        for id in &known {
            let Some(mut table) = Table::open(&lake, &table_path(name, id)).await? else {
                continue;
            };
            let unused = table.unused(lake.retention()).await?;
            let (bytes, all) = (unused.bytes, unused.paths.len());
            let files = lake.delete_all(unused.paths).await;
            if files < all {
                return Err(Error::unavailable("some files could not be deleted; run it again")
                    .with("table", id)
                    .with("files left", all - files));
            }
            done.push(Maintained { source: name.clone(), table: id.to_string(), files, bytes });
        }
    }
    let text: String = done
        .iter()
        .map(|of| {
            let megabytes = of.bytes as f64 / 1e6;
            format!("{}  {:<40} {:>6} files, {megabytes:.1} MB\n", of.source, of.table, of.files)
        })
        .collect();
    print(json, &done, &text)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Listing {
    source: String,
    table: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// `lakeward tables`.
///
/// # Errors
/// When a source can't be reached.
pub async fn tables(config: &Config, json: bool) -> Result<ExitCode> {
    let mut listings = Vec::new();
    for (name, source) in &config.sources {
        let found = with_source!(&source.database, source => {
            source.discover().await.map(|catalog| {
                let kept = catalog.tables.into_iter().map(|listed| (listed.schema.id.clone(), None));
                let refused = catalog.refused.into_iter().map(|(id, why)| (id, Some(why)));
                kept.chain(refused).collect::<Vec<_>>()
            })
        });
        for (id, refused) in found.flatten()? {
            listings.push(Listing {
                source: name.clone(),
                table: id.to_string(),
                path: table_path(name, &id),
                refused,
            });
        }
    }
    let mut text = String::new();
    for of in &listings {
        text.push_str(&format!("{}  {:<40} {}\n", of.source, of.table, of.path));
        if let Some(reason) = &of.refused {
            text.push_str(&format!("    refused: {reason}\n"));
        }
    }
    print(json, &listings, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// `lakeward remove SOURCE`.
///
/// # Errors
/// When there is no such source, or the lake or, with `drop_slot`, the database can't be reached.
pub async fn remove(config: &Config, name: &str, drop_slot: bool, json: bool) -> Result<ExitCode> {
    let source = source(config, name)?;
    let mut removed = Vec::new();
    if drop_slot {
        removed.extend(with_source!(&source.database, source => source.remove().await).flatten()?);
    }
    let lake = Lake::open(&config.lake.options())?;
    for object in lake.list(&format!("_lakeward/{name}")).await? {
        lake.delete(&object.path).await?;
        removed.push(object.path);
    }
    let text: String = removed.iter().map(|what| format!("removed {what}\n")).collect();
    print(json, &removed, &text)?;
    Ok(ExitCode::SUCCESS)
}
