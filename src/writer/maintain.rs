//! What the daemon does for its tables beside writing them: files that nobody needs are deleted.

use std::time::Duration;

use lakeward_connectors::source::Position;
use lakeward_connectors::{ErrorKind, Result};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Writer;

/// How often a table is looked through for files that nobody needs.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How many files are deleted in one turn, so that a flush never waits long.
const AT_ONCE: usize = 500;

impl<P: Position> Writer<P> {
    /// Looks through the table whose turn it is, if it is any's, and deletes some of the files that
    /// no version within the retention needs. Says whether it did anything.
    ///
    /// # Errors
    /// When the lake doesn't answer.
    pub async fn maintain(&mut self) -> Result<bool> {
        let now = Instant::now();
        let lake = self.lake.clone();
        let due = self.tables.iter_mut().find(|(_, slot)| {
            now.saturating_duration_since(slot.maintained) >= INTERVAL && !slot.table.has_pending()
        });
        let Some((id, slot)) = due else { return Ok(false) };
        // A table that can't be looked through, or whose files can't be deleted, waits for its next
        // turn: it holds up neither the others nor the source (P8).
        slot.maintained = now;
        let mut unused = match slot.table.unused(lake.retention()).await {
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
            slot.maintained = now.checked_sub(INTERVAL).unwrap_or(now);
        }
        if deleted > 0 {
            info!(source = self.source, table = %id, files = deleted, "deleted what nobody needs");
        }
        Ok(true)
    }
}
