//! The compaction of a table, beside the stream.

use std::time::Duration;

use lakeward_connectors::{Error, Result};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::delta::{Compacted, Table, Worth};

/// After a compaction there is none of any table for so many times as long as it took: they take no more
/// than a fifth of the time.
const REST: u32 = 4;
/// After one that failed there is none for so long, however soon it failed.
const RETRY: Duration = Duration::from_secs(60);

/// The compaction of one table.
#[derive(Default)]
pub(super) struct Compacting {
    work: Option<AbortOnDropHandle<(Result<Compacted>, Duration)>>,
    /// Not before then is there another one, of any table. `None` before the first.
    rest: Option<Instant>,
    /// Whether the table has been committed since it was last looked at.
    changed: bool,
}

impl Compacting {
    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.work.is_some()
    }

    /// Whether one has ended and waits to be [taken in](Self::take_in).
    pub(super) fn is_done(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.is_finished())
    }

    /// Whether the table may have something to compact.
    pub(super) fn is_due(&self) -> bool {
        self.changed && !self.is_under_way()
    }

    /// Until when there is to be no other compaction.
    pub(super) fn rest(&self) -> Option<Instant> {
        self.rest
    }

    /// The table has been committed.
    pub(super) fn committed(&mut self) {
        self.changed = true;
    }

    /// Starts one, if anything is worth it.
    pub(super) fn start(&mut self, table: &mut Table, worth: Worth) {
        if !self.is_due() || table.has_pending() {
            return;
        }
        self.changed = false;
        let Some(compaction) = table.compaction(worth) else { return };
        let work = tokio::spawn(async move {
            let began = Instant::now();
            (compaction.run().await, began.elapsed())
        });
        self.work = Some(AbortOnDropHandle::new(work));
    }

    /// Takes one in that has ended, for the table's next commit. Returns how many bytes were written
    /// again. One that failed is tried again later: nobody waits for it.
    ///
    /// # Errors
    /// When the outcome of a commit must be known first.
    pub(super) async fn take_in(&mut self, table: &mut Table) -> Result<u64> {
        let Some(work) = self.work.take_if(|work| work.is_finished()) else { return Ok(0) };
        let ended =
            work.await.map_err(|error| Error::internal("a compaction ended").caused_by(error));
        let (made, took) = match ended {
            Ok((made, took)) => (made, took),
            Err(error) => (Err(error), Duration::ZERO),
        };
        let least = if made.is_err() { RETRY } else { Duration::ZERO };
        self.rest = Some(Instant::now() + (took * REST).max(least));
        self.changed = true;
        match made {
            Ok(made) => table.compacted(made).await,
            Err(error) => {
                tracing::warn!(
                    table = table.path(),
                    error = error.full(),
                    "files could not be compacted"
                );
                Ok(0)
            }
        }
    }
}
