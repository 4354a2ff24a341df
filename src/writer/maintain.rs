//! What the daemon does for its tables beside writing them: files that nobody needs are deleted, of data and of
//! the log.

use std::collections::HashSet;
use std::time::Duration;

use lakeward_connectors::source::Position;
use lakeward_connectors::{ErrorKind, Result};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Writer;
use super::slot::Slot;
use crate::pipeline::now_ms;

/// How often a table is looked through for files that nobody needs, at least: four times within the
/// retention, if that is short,
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// and not more often than this.
const INTERVAL_MIN: Duration = Duration::from_secs(60);

/// How many files are deleted in one turn, so that a flush never waits long.
const AT_ONCE: usize = 500;

/// Staged changes that no epoch names are deleted once they are so old: by then no daemon that was
/// about to name them is alive.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

impl<P: Position> Writer<P> {
    /// Deletes staged changes that a daemon wrote and never named, now and then.
    ///
    /// # Errors
    /// When the lake doesn't answer.
    async fn maintain_staged(&mut self) -> Result<()> {
        let now = Instant::now();
        if now.saturating_duration_since(self.maintained) < INTERVAL {
            return Ok(());
        }
        self.maintained = now;
        let named: HashSet<&str> = self.tables.values().flat_map(Slot::staged_paths).collect();
        let horizon = now_ms() - FORGOTTEN.as_millis() as i64;
        let listed = self.lake.list(&self.folder()).await?;
        let forgotten = listed
            .into_iter()
            .filter(|file| file.modified < horizon && !named.contains(file.path.as_str()));
        let forgotten: Vec<_> = forgotten.map(|file| file.path).collect();
        self.lake.delete_all(forgotten).await;
        Ok(())
    }

    /// Looks through the table whose turn it is, if it is any's, and deletes some of the files that
    /// no version within the retention needs. Says whether it did anything.
    ///
    /// # Errors
    /// When the lake doesn't answer.
    pub async fn maintain(&mut self) -> Result<bool> {
        self.maintain_staged().await?;
        let now = Instant::now();
        let lake = self.lake.clone();
        let interval = (lake.retention() / 4).clamp(INTERVAL_MIN, INTERVAL);
        let due = self.tables.iter_mut().find(|(_, slot)| {
            let idle = slot.table().is_some_and(|table| !table.has_pending());
            let idle = idle && !slot.is_compacting();
            idle && now.saturating_duration_since(slot.maintained) >= interval
        });
        let Some((id, slot)) = due else { return Ok(false) };
        // A table that can't be looked through, or whose files can't be deleted, waits for its next
        // turn: it holds up neither the others nor the source (P8).
        slot.maintained = now;
        let Some(table) = slot.table_mut() else { return Ok(false) };
        let mut unused = match table.unused(lake.retention()).await {
            Err(error) if error.kind() != ErrorKind::Unavailable => {
                warn!(source = self.source, table = %id, error = error.full(), "not maintained");
                return Ok(true);
            }
            unused => unused?.paths,
        };
        let more = unused.len() > AT_ONCE;
        unused.truncate(AT_ONCE);
        let deleted = lake.delete_all(unused).await;
        if more && deleted == AT_ONCE {
            slot.maintained = now.checked_sub(interval).unwrap_or(now);
        }
        if deleted > 0 {
            info!(source = self.source, table = %id, files = deleted, "deleted what nobody needs");
        }
        Ok(true)
    }
}
