//! What is asked of one table while it is kept: to be read again, to be paused, to be resumed.

use lakeward_connectors::Result;
use lakeward_connectors::schema::TableId;
use lakeward_connectors::source::Source;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::info;

use super::{Pipeline, look};

/// What can be asked of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Its rows are read again, beside those that readers see.
    Snapshot,
    /// Its rows in the lake stay as they are; its changes are staged.
    Pause,
    /// What was staged is merged, and it follows the source again.
    Resume,
}

/// Why something can't be done, or that it is.
pub type Answer = Result<(), String>;

/// Somebody who waits until a table has come to rest.
pub(super) struct Waiting {
    table: TableId,
    answer: oneshot::Sender<Answer>,
    /// Whether an epoch that says so is under way, or written.
    told: bool,
}

impl<S: Source> Pipeline<S> {
    /// Does it, and answers when it is done: whoever has paused a table may rely on its rows.
    pub(super) async fn act(
        &mut self,
        act: Act,
        table: TableId,
        answer: oneshot::Sender<Answer>,
    ) -> Result<()> {
        let refused = match act {
            Act::Snapshot => self.snapshot(&table).await?,
            Act::Pause => self.pause(&table, true).err(),
            Act::Resume => self.pause(&table, false).err(),
        };
        match refused {
            None if act == Act::Pause => {
                self.dirty = true;
                self.waiting.push(Waiting { table, answer, told: false });
            }
            // Whoever asked may be gone.
            refused => _ = answer.send(refused.map_or(Ok(()), Err)),
        }
        Ok(())
    }

    /// An epoch is being written that says which tables are paused.
    pub(super) fn tell_paused(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.told = true);
    }

    /// Answers those whose table has come to rest.
    pub(super) fn answer_paused(&mut self) {
        let Some(writer) = &self.writer else { return };
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.told && writer.is_at_rest(&waiting.table));
        self.waiting = waiting;
        for Waiting { table, answer, .. } in done {
            let paused = self.tables.get(&table).is_some_and(|tracked| tracked.paused);
            let otherwise = || "it was resumed, read again or stopped meanwhile".to_owned();
            let _ = answer.send(paused.then_some(()).ok_or_else(otherwise));
        }
    }

    /// Reads a table again because somebody asks for it, unless that is under way; or says why it
    /// can't be.
    async fn snapshot(&mut self, table: &TableId) -> Result<Option<String>> {
        if let Some(reason) = self.refused.get(table) {
            return Ok(Some(reason.clone()));
        }
        let Some(tracked) = self.tables.get(table) else {
            return Ok(Some("this source has no such table".to_owned()));
        };
        if tracked.stopped.is_none() && self.snapshots.is_staged(table) {
            return Ok(None);
        }
        let (catalog, look) = look(&mut self.source).await?;
        let listed = catalog.tables.iter().find(|listed| listed.schema.id == *table);
        match listed {
            Some(listed) => {
                let reason = "lakeward snapshot was asked for".to_owned();
                self.read_anew(listed.schema.clone(), &look, reason);
                Ok(None)
            }
            None => Ok(Some("it is not in the source any more, or not selected".to_owned())),
        }
    }

    /// Lets a table's rows in the lake stay as they are, or follow the source again. What reads the
    /// table again ends a pause.
    ///
    /// # Errors
    /// Why it can't be paused.
    fn pause(&mut self, table: &TableId, pause: bool) -> Answer {
        if let Some(reason) = self.refused.get(table) {
            return Err(reason.clone());
        }
        let tracked = self.tables.get(table).ok_or("this source has no such table")?;
        if let Some(reason) = &tracked.stopped {
            return Err(format!("it is stopped: {reason}"));
        }
        if let Some(reason) = &tracked.dropped {
            return Err(reason.clone());
        }
        if tracked.paused == pause {
            return Ok(());
        }
        if pause && self.snapshots.reads(table) {
            return Err("its rows are being read; pause it when that is done".to_owned());
        }
        self.interrupt_verification(table, "it was paused while it was compared");
        info!(%table, "{}", if pause { "paused" } else { "resumed" });
        if let Some(tracked) = self.tables.get_mut(table) {
            tracked.paused = pause;
        }
        self.dirty = true;
        Ok(())
    }
}
