//! A table's log: which files it consists of, and the state they replay to.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use lakeward_connectors::error::Reason;
use lakeward_connectors::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::actions::{self, Action};
use super::checkpoint;
use super::snapshot::{Snapshot, State};
use super::store::{Lake, Listed};

/// How many commits are read at once.
const READ_AHEAD: usize = 8;

/// Why changes can't stand on a log whose commits nobody can read any more.
pub(crate) const CLEANED_UP: &str = "the log went on and was cleaned up meanwhile";

/// The path of a table's log directory.
pub(crate) fn directory(table: &str) -> String {
    format!("{table}/_delta_log")
}

/// The path of the commit of `version`.
pub(crate) fn commit_path(table: &str, version: i64) -> String {
    format!("{table}/_delta_log/{version:020}.json")
}

/// The path of the file that names the last checkpoint.
pub(crate) fn hint_path(table: &str) -> String {
    format!("{table}/_delta_log/_last_checkpoint")
}

/// An error that stops the table at `path`.
pub(crate) fn fault(path: &str, message: impl Into<Reason>) -> Error {
    Error::new(ErrorKind::Table, message).with("Delta table", path)
}

/// What a file of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFile {
    /// The commit of a version.
    Commit(i64),
    /// A part (from 1) of the checkpoint of a version.
    Checkpoint {
        /// The version.
        version: i64,
        /// Which part.
        part: u32,
        /// Of how many.
        parts: u32,
    },
}

impl LogFile {
    /// What the file at `path` is, if it is of a kind that replay needs.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let (digits, rest) = name.split_at_checked(20)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let version = digits.parse().ok()?;
        match rest {
            ".json" => Some(Self::Commit(version)),
            ".checkpoint.parquet" => Some(Self::Checkpoint { version, part: 1, parts: 1 }),
            _ => {
                let middle = rest.strip_prefix(".checkpoint.")?.strip_suffix(".parquet")?;
                let (part, parts) = middle.split_once('.')?;
                let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
                Some(Self::Checkpoint { version, part, parts })
            }
        }
    }
}

/// The files of a log, as listed.
#[derive(Debug, Default)]
struct Files {
    commits: BTreeMap<i64, String>,
    /// Version and number of parts → part → path.
    checkpoints: BTreeMap<(i64, u32), BTreeMap<u32, String>>,
}

impl Files {
    fn new(listed: Vec<Listed>) -> Self {
        let mut files = Self::default();
        for Listed { path, .. } in listed {
            match LogFile::of(&path) {
                Some(LogFile::Commit(version)) => drop(files.commits.insert(version, path)),
                Some(LogFile::Checkpoint { version, part, parts }) => {
                    files.checkpoints.entry((version, parts)).or_default().insert(part, path);
                }
                None => {}
            }
        }
        files
    }

    /// Complete checkpoints, the newest first.
    fn complete(&self) -> impl Iterator<Item = (i64, Vec<&str>)> {
        self.checkpoints.iter().rev().filter_map(|((version, parts), found)| {
            let whole = (1..=*parts).all(|part| found.contains_key(&part));
            (whole && *parts > 0).then(|| (*version, found.values().map(String::as_str).collect()))
        })
    }
}

/// The newest version of the table at `table`; `None` when it has no log.
///
/// # Errors
/// [`ErrorKind::Table`] when the log has a hole or can't be understood.
pub(crate) async fn load(lake: &Lake, table: &str) -> Result<Option<Snapshot>> {
    // The hint only shortens the listing: it may be missing, garbage or older than the newest
    // checkpoint.
    if let Some(version) = hint(lake, table).await? {
        let after = format!("{}/{version:020}", directory(table));
        let files = Files::new(lake.list_after(&directory(table), Some(&after)).await?);
        if let Some((version, state)) = newest_checkpoint(lake, &files).await? {
            return replay(lake, table, version, state, &files).await.map(Some);
        }
    }
    let files = Files::new(lake.list(&directory(table)).await?);
    match newest_checkpoint(lake, &files).await? {
        Some((version, state)) => replay(lake, table, version, state, &files).await.map(Some),
        None if files.commits.is_empty() && files.checkpoints.is_empty() => Ok(None),
        None => replay(lake, table, -1, State::new(lake.retention()), &files).await.map(Some),
    }
}

/// What happened after `version`: the actions of each later commit, in order; `None` when the
/// commits in between are gone, so that the table must be loaded anew.
pub(crate) async fn since(
    lake: &Lake,
    table: &str,
    version: i64,
) -> Result<Option<Vec<(i64, Vec<Action>)>>> {
    let after = format!("{}/{version:020}.json", directory(table));
    let files = Files::new(lake.list_after(&directory(table), Some(&after)).await?);
    let newest = files.commits.keys().chain(files.checkpoints.keys().map(|(v, _)| v)).max();
    let newest = newest.copied().unwrap_or(version);
    if (version + 1..=newest).any(|version| !files.commits.contains_key(&version)) {
        return Ok(None);
    }
    let mut commits = Vec::new();
    for version in version + 1..=newest {
        match read_commit(lake, table, version).await? {
            Some(actions) => commits.push((version, actions)),
            None => return Ok(None),
        }
    }
    Ok(Some(commits))
}

/// The actions of a commit, if it is there.
pub(crate) async fn read_commit(
    lake: &Lake,
    table: &str,
    version: i64,
) -> Result<Option<Vec<Action>>> {
    match lake.get(&commit_path(table, version)).await? {
        Some(bytes) => parse_commit(table, version, &bytes).map(Some),
        None => Ok(None),
    }
}

/// The actions of a commit's bytes.
pub(crate) fn parse_commit(table: &str, version: i64, bytes: &Bytes) -> Result<Vec<Action>> {
    actions::parse(bytes).map_err(|error| {
        fault(table, "a commit of the log can't be understood")
            .with("version", version)
            .caused_by(error)
    })
}

async fn hint(lake: &Lake, table: &str) -> Result<Option<i64>> {
    #[derive(Deserialize)]
    struct Hint {
        version: i64,
    }
    let Some(bytes) = lake.get(&hint_path(table)).await? else {
        return Ok(None);
    };
    Ok(serde_json::from_slice::<Hint>(&bytes).ok().map(|hint| hint.version).filter(|v| *v >= 0))
}

/// The newest checkpoint that can be read, with its version.
async fn newest_checkpoint(lake: &Lake, files: &Files) -> Result<Option<(i64, State)>> {
    for (version, paths) in files.complete() {
        let mut state = State::new(lake.retention());
        let mut readable = true;
        for path in paths {
            let Some(bytes) = lake.get(path).await? else {
                readable = false;
                break;
            };
            match checkpoint::read(bytes) {
                Ok(actions) => state.apply(actions),
                Err(error) => {
                    tracing::warn!(path, error = error.full(), "a checkpoint can't be read");
                    readable = false;
                    break;
                }
            }
        }
        if readable && state.protocol.is_some() && state.metadata.is_some() {
            state.complete_partitions();
            return Ok(Some((version, state)));
        }
    }
    Ok(None)
}

/// A commit as it was read: its version and, unless it is gone, its bytes.
type Read = Result<(i64, Option<Bytes>)>;

async fn replay(
    lake: &Lake,
    table: &str,
    start: i64,
    mut state: State,
    files: &Files,
) -> Result<Snapshot> {
    let mut version = start;
    let reads: Vec<BoxFuture<'_, Read>> = files
        .commits
        .range(start + 1..)
        .map(|(version, path)| async move { Ok((*version, lake.get(path).await?)) }.boxed())
        .collect();
    let mut commits = futures::stream::iter(reads).buffered(READ_AHEAD);
    while let Some((found, bytes)) = commits.try_next().await? {
        if found != version + 1 {
            return Err(hole(table, version + 1));
        }
        let bytes = bytes.ok_or_else(|| {
            Error::unavailable("a log changed while it was read").with("Delta table", table)
        })?;
        state.apply(parse_commit(table, found, &bytes)?);
        version = found;
    }
    // A listing may be older than what it lists.
    while let Some(actions) = read_commit(lake, table, version + 1).await? {
        state.apply(actions);
        version += 1;
    }
    let newest = files.checkpoints.keys().map(|(version, _)| *version).max();
    match newest.filter(|newest| *newest > version) {
        Some(_) => Err(hole(table, version + 1)),
        None => Snapshot::new(version, state)
            .ok_or_else(|| fault(table, "the log never says what the table looks like")),
    }
}

fn hole(table: &str, version: i64) -> Error {
    fault(table, "the log lacks a commit that its state depends on")
        .with("version", version)
        .remedy("restore the file, or delete the table's directory and take a new snapshot")
}
