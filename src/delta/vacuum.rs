//! Deleting files that no version within the retention names: data files that commits have removed, those
//! that never got into a commit (of a daemon that was killed), and files of the log behind a checkpoint.

use std::collections::HashSet;
use std::time::Duration;

use lakeward_connectors::Result;

use super::checkpoint::{self, file_retention};
use super::clock::now_millis;
use super::deletes;
use super::read::file_path;
use super::snapshot::brief;
use super::table::Table;

/// Files that may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unused {
    /// Their paths, relative to the lake.
    pub paths: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
}

impl Table {
    /// The files that nobody needs any more: data files that are no part of the table, neither removed nor
    /// written within `retention` (or the table's own `delta.deletedFileRetentionDuration`), and files of
    /// the log of that age (or of `delta.logRetentionDuration`) behind a checkpoint of that age. What an
    /// engine reads that began within the retention stays, and so does what another writer is about to
    /// commit.
    ///
    /// Takes up what others have committed first. Tells nothing while changes are pending.
    ///
    /// # Errors
    /// When the lake can't be listed, or as [`refresh`](Self::refresh).
    pub async fn unused(&mut self, retention: Duration) -> Result<Unused> {
        if self.has_pending() || self.in_doubt() || self.version().is_none() {
            return Ok(Unused::default());
        }
        self.refresh().await?;
        let Some(base) = &self.base else { return Ok(Unused::default()) };
        let horizon = now_millis().saturating_sub(file_retention(&base.metadata, retention));
        let recent = base.state.tombstones.values();
        let recent =
            recent.filter(|remove| remove.deletion_timestamp.unwrap_or(i64::MAX) > horizon);
        let active = base.state.files().map(|add| (&add.path, &add.deletion_vector));
        let removed = recent.map(|remove| (&remove.path, &remove.deletion_vector));
        let mut needed = HashSet::new();
        for (path, vector) in active.chain(removed) {
            // A path outside the table's directory is not listed below.
            needed.extend(file_path(&self.path, path).ok());
            let vector =
                vector.as_ref().map(|vector| deletes::path(&self.lake, &self.path, vector));
            needed.extend(vector.transpose()?.flatten());
        }
        let mut unused = Unused::default();
        let log_horizon = checkpoint::horizon(base, retention);
        let listed = self.lake.list_old(&self.path, horizon.max(log_horizon)).await?;
        for file in checkpoint::expired(&listed, &self.path, base, log_horizon) {
            unused.bytes += file.size;
            unused.paths.push(file.path.clone());
        }
        // What left no tombstone was there that much longer than it was removed.
        let horizon = horizon.saturating_sub(brief(&base.metadata, retention));
        for file in listed {
            if file.modified < horizon && self.is_data(&file.path) && !needed.contains(&file.path) {
                unused.bytes += file.size;
                unused.paths.push(file.path);
            }
        }
        Ok(unused)
    }

    /// Whether a path in the table's directory is that of a data file or of deletion vectors. Names that begin with `_` or
    /// `.` are hidden (the log among them): Delta leaves them alone (PROTOCOL.md, "Data Files").
    fn is_data(&self, path: &str) -> bool {
        let inside = path.strip_prefix(&self.path).map(|rest| rest.trim_start_matches('/'));
        inside.is_some_and(|inside| {
            let hidden = inside.split('/').any(|name| name.starts_with(['_', '.']));
            let vectors = inside.ends_with(".bin") && inside.contains("deletion_vector_");
            !hidden && (vectors || inside.ends_with(".parquet"))
        })
    }
}
