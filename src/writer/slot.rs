//! One table of a source: its steps are applied to it at once, or staged and merged later.
//!
//! A table whose merges rewrite much more than they bring, and take long, is *slow*: from then on
//! its changes are staged, and a task of its own merges what several epochs have staged, while the
//! other tables go on. The merge is committed by the next epoch after it is done (the epoch's
//! *before* names the files, its *after* doesn't). All that comes for a table that is *paused* is staged,
//! and merged once it is resumed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lakeward_connectors::batch::Batch;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::KeyText;
use lakeward_connectors::{Error, ErrorKind, Result};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::applying::{self, Applying, Found, merge, open};
use super::cadence::{Cadence, Effort};
use super::compacting::Compacting;
use super::size::{Committed, Size};
use crate::buffer::Step;
use crate::delta::{Lake, Merge, Origin, Table, Worth};
use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::planted::{self, Bug};
use crate::shape::{Mode, Shape, Shaping};
use crate::staged::{self, Columns, Holds, Staged};
use crate::verify::Task;

use super::verify::Comparison;

/// A merge rests so many times as long as it took, so that it takes no more than a fifth of the
/// time.
const REST: u32 = 4;
/// Staged changes of so many bytes are merged without a rest.
const STAGED_MOST: u64 = 256 << 20;

/// How the tables of a source are kept.
#[derive(Debug, Clone, Default)]
pub struct Merging {
    /// How changed rows are merged, where it is not the default.
    pub modes: BTreeMap<TableId, Merge>,
    /// What is other than in the source.
    pub shapes: BTreeMap<TableId, Shape>,
    /// The same of all other tables.
    pub shape: Shape,
    /// No more often than this: tables whose changes are staged in any case.
    pub intervals: BTreeMap<TableId, Duration>,
    /// When all others are merged.
    pub cadence: Cadence,
}

impl Merging {
    /// The shape of a table.
    pub fn shape_of(&self, table: &TableId) -> &Shape {
        self.shapes.get(table).unwrap_or(&self.shape)
    }

    /// The tables that ask where their changes stand in the log.
    pub fn traced(&self) -> BTreeSet<TableId> {
        let traced = self.shapes.iter().filter(|(_, shape)| shape.is_traced());
        traced.map(|(id, _)| id.clone()).collect()
    }
}

/// One table.
pub(super) struct Slot {
    /// `None` while it is being merged.
    table: Option<Table>,
    merging: Option<AbortOnDropHandle<Merged>>,
    compacting: Compacting,
    /// Changes that are durable and not merged, the oldest first.
    pub(super) staged: Vec<Staged>,
    /// How many of `staged` an epoch file names.
    named: usize,
    /// Staged files that are merged: the next epoch commits them.
    merged: Vec<Staged>,
    /// Merges are at least so far apart, if that was asked for.
    interval: Option<Duration>,
    /// Whether nothing is merged until somebody says so.
    pub(super) paused: bool,
    shape: Shape,
    /// The shape for rows of the schema that came last.
    shaping: Option<Arc<Shaping>>,
    /// How long the last merge took, when it ended, and whether it made the table a slow one.
    took: Duration,
    ended: Instant,
    slow: bool,
    effort: Effort,
    /// As of when the table was here.
    size: Size,
    /// What the next commit will have done, and the rows that the table had at the last one.
    turn: Committed,
    had: u64,
    /// Keys whose row must be read again, found since the last epoch (S5).
    pub(super) missing: Vec<KeyText>,
    /// Why the table can't go on, found since the last epoch: it stops, or it is read again.
    pub(super) fault: Option<(State, String)>,
    /// When it was last looked through for files that nobody needs.
    pub(super) maintained: Instant,
    pub(super) comparison: Comparison,
}

/// What became of a merge.
struct Merged {
    table: Table,
    outcome: Result<applying::Merge>,
    took: Duration,
}

impl Slot {
    pub(super) fn new(table: Table, interval: Option<Duration>, shape: Shape) -> Self {
        let now = Instant::now();
        let origin = table.origin().filter(|origin| origin.shape == shape.text());
        let known = table.schema().map(Arc::as_ref);
        let shaping = origin.and_then(|origin| Shaping::new(&shape, &origin.source, known).ok());
        Self {
            interval,
            paused: false,
            shape,
            shaping: shaping.map(Arc::new),
            size: Size::default().of(&table),
            turn: Committed::default(),
            had: table.rows(),
            table: Some(table),
            merging: None,
            compacting: Compacting::default(),
            staged: Vec::new(),
            named: 0,
            merged: Vec::new(),
            took: Duration::ZERO,
            ended: now,
            slow: false,
            effort: Effort::default(),
            missing: Vec::new(),
            fault: None,
            maintained: now,
            comparison: Comparison::default(),
        }
    }

    /// Takes over changes that an epoch file names. Returns the schema of the source's rows after
    /// them, if it is another one than the table's.
    ///
    /// # Errors
    /// When the lake does not answer, or a file is gone or damaged.
    pub(super) async fn take_over(
        &mut self,
        staged: &[Staged],
        lake: &Lake,
    ) -> Result<Option<Arc<TableSchema>>> {
        self.staged = staged.to_vec();
        self.named = staged.len();
        let Some(last) = staged.iter().rfind(|file| file.holds == Holds::Columns) else {
            return Ok(None);
        };
        let schema = self.table.as_ref().and_then(Table::schema);
        let Columns { lake, source } = open(schema, last, lake).await?.columns();
        let Some(source) = source else { return Ok(Some(lake)) };
        self.shaping = Some(Arc::new(Shaping::new(&self.shape, &source, Some(&lake))?));
        Ok(Some(source))
    }

    /// The table, unless it is being merged.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// The table, unless it is being merged.
    pub(super) fn table_mut(&mut self) -> Option<&mut Table> {
        self.table.as_mut()
    }

    /// How large it is.
    pub(super) fn size(&self) -> Size {
        let staged = self.staged.iter().map(|file| file.changes).sum();
        let staged_ms = self.staged.iter().map(|file| file.at_ms).find(|at| *at > 0);
        let size = Size { staged, staged_ms, ..self.size };
        self.table.as_ref().map_or(size, |table| size.of(table))
    }

    /// What the commit did that has just been made, apart from the time that the commit itself took.
    pub(super) fn take_turn(&mut self) -> Committed {
        let Some(table) = &self.table else { return Committed::default() };
        let turn = std::mem::take(&mut self.turn);
        self.compacting.committed();
        let (had, has) = (self.had, table.rows());
        self.had = has;
        let went = (had + turn.came).saturating_sub(has);
        Committed { version: table.version().unwrap_or(-1), went, ..turn }
    }

    /// Whether nothing is staged that could be merged, and nothing merged that waits for its commit.
    pub(super) fn is_settled(&self) -> bool {
        (self.staged.is_empty() || self.paused) && self.is_at_rest()
    }

    /// Whether nothing is merged or compacted, or being so, that waits for its commit.
    pub(super) fn is_at_rest(&self) -> bool {
        self.merged.is_empty() && self.merging.is_none() && !self.is_compacting()
    }

    /// Whether a merge is under way.
    pub(super) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    /// Whether a merge has ended and waits to be [taken in](Self::take_in).
    pub(super) fn is_merged(&self) -> bool {
        self.merging.as_ref().is_some_and(|merging| merging.is_finished())
    }

    /// Whether a compaction is under way.
    pub(super) fn is_compacting(&self) -> bool {
        self.compacting.is_under_way()
    }

    /// Whether a compaction has ended and waits to be [taken in](Self::take_in_compaction).
    pub(super) fn is_compacted(&self) -> bool {
        self.compacting.is_done() && self.table.is_some()
    }

    /// Whether it may have something to compact.
    pub(super) fn is_compaction_due(&self) -> bool {
        self.compacting.is_due()
    }

    /// Until when no table is to be compacted because this one was.
    pub(super) fn rest(&self) -> Option<Instant> {
        self.compacting.rest()
    }

    /// Starts a compaction, if anything is worth it.
    pub(super) fn start_compaction(&mut self, worth: Worth) {
        let free = !self.paused && self.staged.is_empty() && self.fault.is_none();
        if let Some(table) = self.table.as_mut().filter(|_| free) {
            self.compacting.start(table, worth);
        }
    }

    /// Gives up a compaction that is under way.
    pub(super) fn drop_compaction(&mut self) {
        self.compacting = Compacting::default();
    }

    /// Takes in a compaction that has ended, so that the table can be committed.
    ///
    /// # Errors
    /// When the store did not answer.
    pub(super) async fn take_in_compaction(&mut self) -> Result<()> {
        if let Some(table) = &mut self.table {
            self.size.copied += self.compacting.take_in(table).await?;
        }
        Ok(())
    }

    /// Takes up steps: applies or stages them. A table that can't go on is noted, and stops at the
    /// next flush.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn take_up(
        &mut self,
        steps: Vec<Step>,
        lake: &Lake,
        folder: &str,
        cadence: Cadence,
    ) -> Result<()> {
        if self.fault.is_some() {
            return Ok(());
        }
        let steps = match self.shaped(steps) {
            Ok(steps) => steps,
            Err(error) => return self.lose((State::Stopped, error.full())).await,
        };
        if self.is_staging() && steps.iter().all(|step| self.can_be_staged(step)) {
            return self.stage(steps, lake, folder).await;
        }
        let fault = match self.apply(steps, lake, cadence).await {
            Ok(None) => return Ok(()),
            Ok(Some(reason)) => (State::Gap, reason),
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => (State::Stopped, error.full()),
        };
        self.lose(fault).await
    }

    /// Whether all that the table holds is in the source as well: what is lost of it can be read
    /// again.
    pub(super) fn is_mirror(&self) -> bool {
        self.shape.mode == Mode::Mirror
    }

    /// Why the rows that the table has are not of the shape that is asked for, if they aren't: they
    /// are read again, where they can be.
    pub(super) fn is_of_another_shape(&self) -> Option<String> {
        let table = self.table.as_ref().filter(|table| table.schema().is_some())?;
        let was = table.origin().map_or("", |origin| origin.shape.as_str());
        let is = self.shape.text();
        (was != is).then(|| "its shape was changed in the configuration".to_owned())
    }

    /// Gives steps of the source's rows the shape of the lake's.
    fn shaped(&mut self, steps: Vec<Step>) -> Result<Vec<Step>> {
        if self.shape.is_plain() {
            return Ok(steps);
        }
        let steps = steps.into_iter().map(|step| {
            Ok(match step {
                Step::Rows(batch) => Step::Rows(self.shaping_of(&batch.schema)?.apply(batch)?),
                Step::Verify(Task::Compare(batch)) => {
                    let batch = self.shaping_of(&batch.schema)?.apply(*batch)?;
                    Step::Verify(Task::Compare(Box::new(batch)))
                }
                Step::Evolve(schema) => Step::Evolve(self.shaping_of(&schema)?.lake().clone()),
                Step::Adopt(schema) => Step::Adopt(self.shaping_of(&schema)?.lake().clone()),
                Step::Generation(schema) => {
                    Step::Generation(self.shaping_of(&schema)?.lake().clone())
                }
                Step::Truncate { trace, .. } if self.shape.mode == Mode::Append => {
                    match &self.shaping {
                        Some(shaping) => Step::Rows(shaping.truncated(trace)?),
                        None => {
                            return Err(Error::internal("a table is emptied before it is known"));
                        }
                    }
                }
                step => step,
            })
        });
        steps.collect()
    }

    fn shaping_of(&mut self, source: &Arc<TableSchema>) -> Result<Arc<Shaping>> {
        match &self.shaping {
            Some(shaping) if shaping.source() == source => Ok(Arc::clone(shaping)),
            _ => {
                // The columns of a table that is being merged, or will be, are those of the last
                // shaping.
                let last = self.shaping.as_ref().map(|shaping| Arc::clone(shaping.lake()));
                let here = self.table.as_ref().and_then(|table| table.schema().cloned());
                let changes = self.staged.iter().any(|file| file.holds == Holds::Columns);
                let known = if changes { last.or(here) } else { here.or(last) };
                let shaping = Shaping::new(&self.shape, source, known.as_deref())?;
                let shaping = Arc::new(shaping);
                Ok(Arc::clone(self.shaping.insert(shaping)))
            }
        }
    }

    /// Whether changes are staged that come now. Not where some that came before are applied and wait
    /// for their commit, such as those of a new generation: one commit makes them visible together.
    fn is_staging(&self) -> bool {
        let open = self.table.as_ref().is_some_and(Table::has_pending);
        let slow = self.slow || self.interval.is_some() || self.paused;
        self.is_merging() || !self.staged.is_empty() || (slow && !open)
    }

    /// Whether a step can wait in a file. Only where somebody asks for it do others than rows: of
    /// them there are few, and merging all that was staged before is soon done.
    fn can_be_staged(&self, step: &Step) -> bool {
        match step {
            Step::Rows(_) => true,
            Step::Evolve(_) | Step::Truncate { .. } => self.paused,
            Step::Adopt(_) | Step::Generation(_) | Step::Discard | Step::Verify(_) => false,
        }
    }

    /// The table can't go on: it drops what is not committed.
    async fn lose(&mut self, fault: (State, String)) -> Result<()> {
        self.fault = Some(fault);
        self.turn = Committed::default();
        self.comparison.void();
        self.drop_compaction();
        self.home().await?;
        self.discard().await
    }

    /// Drops what is not committed. What was staged is dropped with it where it can be read again;
    /// elsewhere it is still to be merged.
    async fn discard(&mut self) -> Result<()> {
        match self.is_mirror() {
            true => self.drop_staged(),
            false => {
                self.merged.append(&mut self.staged);
                std::mem::swap(&mut self.merged, &mut self.staged);
                self.named = 0;
            }
        }
        self.home().await?.discard().await
    }

    /// Forgets staged changes: the table has lost its place, or all its rows.
    pub(super) fn drop_staged(&mut self) {
        self.staged.clear();
        self.merged.clear();
        self.named = 0;
    }

    async fn stage(&mut self, steps: Vec<Step>, lake: &Lake, folder: &str) -> Result<()> {
        let mut batches: Vec<Batch> = Vec::new();
        for step in steps {
            let run = batches.first();
            let goes_on = match &step {
                Step::Rows(batch) => run.is_none_or(|first| first.schema == batch.schema),
                _ => false,
            };
            if !goes_on {
                self.stage_rows(&std::mem::take(&mut batches), lake, folder).await?;
            }
            let (bytes, holds) = match step {
                Step::Rows(batch) => {
                    batches.push(batch);
                    continue;
                }
                Step::Evolve(schema) => {
                    let source = self.shaping.as_ref().map(|shaping| Arc::clone(shaping.source()));
                    let columns = Columns { lake: schema, source };
                    (staged::encode_columns(&columns)?, Holds::Columns)
                }
                Step::Truncate { trace, .. } => {
                    let Some(schema) = self.home().await?.schema() else { continue };
                    let micros = trace.map(|trace| trace.committed.micros);
                    (staged::encode_truncate(schema, micros)?, Holds::Truncate)
                }
                Step::Adopt(_) | Step::Generation(_) | Step::Discard | Step::Verify(_) => {
                    return Err(Error::internal("a step was staged that can't wait"));
                }
            };
            self.put(bytes, holds, 0, lake, folder).await?;
        }
        self.stage_rows(&batches, lake, folder).await
    }

    async fn stage_rows(&mut self, batches: &[Batch], lake: &Lake, folder: &str) -> Result<()> {
        let changes = batches.iter().map(|batch| batch.changes.len() as u64).sum();
        if changes == 0 {
            return Ok(());
        }
        self.put(staged::encode(batches)?, Holds::Rows, changes, lake, folder).await
    }

    async fn put(
        &mut self,
        bytes: Bytes,
        holds: Holds,
        changes: u64,
        lake: &Lake,
        folder: &str,
    ) -> Result<()> {
        let path = format!("{folder}/{}.parquet", uuid::Uuid::new_v4());
        let file = Staged { path, bytes: bytes.len() as u64, changes, holds, at_ms: now_ms() };
        lake.put(&file.path, bytes).await?;
        self.staged.push(file);
        Ok(())
    }

    /// Starts to merge what epoch files name, if it is time, or in any case.
    pub(super) fn start_merge(&mut self, lake: &Lake, cadence: Cadence, now: bool) {
        let bytes: u64 = self.staged.iter().map(|file| file.bytes).sum();
        let rest = (self.took * REST).max(self.interval.unwrap_or_default());
        let due = now || self.ended.elapsed() >= rest || bytes >= STAGED_MOST;
        if self.named == 0 || self.fault.is_some() || self.paused || !due {
            return;
        }
        let Some(mut table) = self.table.take_if(|table| !table.has_pending()) else { return };
        self.size = self.size.of(&table);
        let files = self.staged[..self.named].to_vec();
        let (lake, shape) = (lake.clone(), self.shape.clone());
        let merging = tokio::spawn(async move {
            let began = Instant::now();
            let outcome = merge(&mut table, &shape, &files, &lake, cadence).await;
            Merged { table, outcome, took: began.elapsed() }
        });
        self.merging = Some(AbortOnDropHandle::new(merging));
    }

    /// Takes in a merge that has ended, so that the table can be committed.
    ///
    /// # Errors
    /// When the store did not answer.
    pub(super) async fn take_in(&mut self, cadence: Cadence) -> Result<()> {
        match self.is_merged() {
            true => self.end_merge(cadence).await,
            false => Ok(()),
        }
    }

    /// Waits for the end of a merge.
    async fn end_merge(&mut self, cadence: Cadence) -> Result<()> {
        let Some(merging) = self.merging.take() else { return Ok(()) };
        let merged =
            merging.await.map_err(|error| Error::internal("a merge ended").caused_by(error))?;
        let Merged { table, outcome, took } = merged;
        self.table = Some(table);
        match outcome {
            Ok(merge) => match self.take_merge(merge) {
                Ok(found) => {
                    self.note(found, took, cadence);
                    Ok(())
                }
                Err(reason) => Box::pin(self.lose((State::Gap, reason))).await,
            },
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            Err(error) => Box::pin(self.lose((State::Stopped, error.full()))).await,
        }
    }

    /// Takes up what became of staged files, the oldest ones.
    ///
    /// # Errors
    /// Why the table has to be read again. The changes from there on are dropped: reading brings what
    /// they led to.
    fn take_merge(&mut self, merge: applying::Merge) -> Result<Found, String> {
        let files = merge.files.min(self.staged.len());
        match planted::is(Bug::MergeTwice) {
            true => self.merged.extend_from_slice(&self.staged[..files]),
            false => self.merged.extend(self.staged.drain(..files)),
        }
        self.named = self.staged.len().min(self.named.saturating_sub(files));
        match merge.again {
            None => Ok(merge.found),
            Some(reason) => {
                self.staged.clear();
                self.named = 0;
                Err(reason)
            }
        }
    }

    /// The table, once it is here.
    async fn home(&mut self) -> Result<&mut Table> {
        self.end_merge(Cadence::default()).await?;
        self.table.as_mut().ok_or_else(|| Error::internal("a table was lost in a merge"))
    }

    fn note(&mut self, found: Found, took: Duration, cadence: Cadence) {
        if found.forgets {
            self.missing.clear();
        }
        self.effort.add(&found, took);
        self.missing.extend(found.missing);
        self.size.copied += found.copied;
        self.size.brought += found.brought;
        self.turn.came += found.rows;
        self.turn.took += took;
        (self.took, self.ended) = (took, Instant::now());
        self.slow = self.effort.is_slow(cadence);
    }

    /// Whether staged changes are merged that wait for the table's commit.
    pub(super) fn has_merged(&self) -> bool {
        !self.merged.is_empty()
    }

    /// The files that the table's commit has merged; nobody needs them after it.
    pub(super) fn take_merged(&mut self) -> Vec<Staged> {
        std::mem::take(&mut self.merged)
    }

    /// The files that are staged, or merged and not committed.
    pub(super) fn staged_paths(&self) -> impl Iterator<Item = &str> {
        self.staged.iter().chain(&self.merged).map(|file| file.path.as_str())
    }

    /// An epoch file names all that is staged.
    pub(super) fn name_staged(&mut self) {
        self.named = self.staged.len();
    }

    /// Applies steps in order. What was staged comes first. Says why the table has to be read again,
    /// when its columns can't change in place.
    async fn apply(
        &mut self,
        mut steps: Vec<Step>,
        lake: &Lake,
        cadence: Cadence,
    ) -> Result<Option<String>> {
        self.end_merge(cadence).await?;
        // What came before is dropped.
        let anew = |step: &Step| matches!(step, Step::Generation(_) | Step::Discard);
        if let Some(last) = steps.iter().rposition(anew) {
            steps.drain(..last);
            self.missing.clear();
            self.turn = Committed::default();
            self.discard().await?;
            if matches!(steps.as_slice(), [Step::Discard]) {
                return Ok(None);
            }
        }
        let lost = || Error::internal("a table was lost in a merge");
        let table = self.table.as_mut().ok_or_else(lost)?;
        table.partition_by(self.shape.partition_columns());
        let began = Instant::now();
        let merge = merge(table, &self.shape, &self.staged, lake, cadence).await?;
        let mut found = match self.take_merge(merge) {
            Ok(found) => found,
            Err(reason) => return Ok(Some(reason)),
        };
        self.named = 0;
        let table = self.table.as_mut().ok_or_else(lost)?;
        let mut applying = Applying::new(table, &self.shape, usize::MAX);
        for step in steps {
            match step {
                Step::Rows(batch) => applying.rows(batch).await?,
                Step::Truncate { trace, .. } => {
                    applying.truncate(trace.map(|trace| trace.committed.micros)).await?;
                }
                Step::Evolve(schema) => {
                    if let Some(reason) = applying.columns(&schema).await? {
                        return Ok(Some(reason));
                    }
                }
                Step::Verify(task) => {
                    applying.settle().await?;
                    self.comparison.perform(applying.table, task).await?;
                }
                Step::Adopt(schema) => applying.table.take_on(&schema)?,
                Step::Generation(schema) => applying.begin(&schema).await?,
                Step::Discard => {}
            }
        }
        found.add(applying.end().await?);
        let table = self.table.as_mut().ok_or_else(lost)?;
        if let Some(shaping) = self.shaping.as_ref().filter(|_| table.schema().is_some()) {
            let source = Arc::clone(shaping.source());
            table.set_origin(Some(Origin { source, shape: self.shape.text() }));
        }
        self.note(found, began.elapsed(), cadence);
        Ok(None)
    }
}
