//! Verifications of a source's tables, one after the other, beside the running stream.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lakeward_connectors::Result;
use lakeward_connectors::schema::{Identity, TableId, TableSchema};
use lakeward_connectors::source::{KeyText, Position, Range, Source};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{CHUNK_LEAST, CHUNK_MOST, Pipeline, now_ms};
use crate::buffer::Step;
use crate::epoch::Progress;
use crate::planted::{self, Bug};
use crate::shape::Mode;
use crate::snapshot::{Event, Snapshots};
use crate::verify::{
    Findings, Found, INTERRUPTED, Kind, Outcome, Request, Skip, Task, UNSEEN, Verified,
};

/// A table that changes its columns, or is compacted by somebody else, is begun again so often.
const ATTEMPTS: u32 = 5;
/// A table with more differences than this is read again as a whole.
const REPAIRED_BY_KEY: usize = 100_000;

/// Where the results of a request go: one for each table.
pub type Answers = UnboundedSender<(TableId, Verified)>;

/// The verifications of one source.
pub(super) struct Verifications<S: Source> {
    /// Reads the source's rows, one chunk at a time.
    pub(super) reading: Snapshots<S>,
    queue: VecDeque<Wanted>,
    current: Option<Current>,
    /// The newest result of every table.
    pub(super) results: Found,
    /// The next chunk is not read before (the rate limit).
    due: Instant,
    /// The bytes that `due` accounts for.
    counted: u64,
    number: u64,
}

#[derive(Clone)]
struct Wanted {
    table: TableId,
    repair: bool,
    attempts: u32,
    answers: Option<Answers>,
}

/// The table that is being compared.
struct Current {
    wanted: Wanted,
    schema: Arc<TableSchema>,
    /// Which comparison of this pipeline it is.
    number: u64,
    phase: Phase,
    began: Instant,
    bytes: u64,
    result: Verified,
    /// Keys of rows that differ, as long as nobody has looked a second time (V4).
    doubts: BTreeSet<KeyText>,
    repairs: Vec<KeyText>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The source's rows are read and compared.
    Rows,
    /// All have been; the writer says which of the lake's rows were not among them.
    Unseen,
    /// Those are looked for in the source, and rows that differed are read once more.
    Keys,
    /// They have been; the writer says which are still unseen.
    End,
}

impl<S: Source> Verifications<S> {
    pub(super) fn new() -> Self {
        Self {
            reading: Snapshots::comparing(1),
            queue: VecDeque::new(),
            current: None,
            results: Found::new(),
            due: Instant::now(),
            counted: 0,
            number: 0,
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.current.is_none()
    }
}

/// Nobody who waits for an answer takes none for a good one.
impl<S: Source> Drop for Verifications<S> {
    fn drop(&mut self) {
        let current = self.current.take().map(|current| current.wanted);
        for wanted in current.into_iter().chain(self.queue.drain(..)) {
            if let Some(answers) = &wanted.answers {
                // Whoever asked may be gone.
                let _ =
                    answers.send((wanted.table, Verified::skipped(now_ms(), INTERRUPTED.into())));
            }
        }
    }
}

impl<S: Source> Pipeline<S> {
    /// Takes up a request.
    pub(super) fn want_verified(&mut self, request: &Request, answers: Option<&Answers>) {
        let named = request.table.as_deref();
        let ids: Vec<_> = match named.map(|name| TableId::try_from(name.to_owned())) {
            None => self.tables.keys().chain(self.refused.keys()).cloned().collect(),
            Some(Ok(id)) => vec![id],
            Some(Err(_)) => Vec::new(),
        };
        for table in ids {
            let (repair, answers) = (request.repair, answers.cloned());
            self.verifying.queue.push_back(Wanted { table, repair, attempts: 0, answers });
        }
    }

    /// Goes on with verifications: one step of each kind that can be done now.
    pub(super) async fn verify(&mut self) -> Result<()> {
        if self.verifying.is_idle() {
            return Ok(());
        }
        self.begin_verification();
        let read = self.verifying.current.as_ref().map(|current| &current.wanted.table);
        let twice = read.is_some_and(|table| self.snapshots.reads(table));
        debug_assert!(!twice || planted::is(Bug::ReadTwice), "V3");
        for _ in self.verifying.reading.close_windows(&mut self.changes) {
            self.all_read();
        }
        let reading = &mut self.verifying.reading;
        let (now, bytes) = (Instant::now(), reading.bytes());
        let spent = (bytes - self.verifying.counted) as f64 / self.settings.verify_rate as f64;
        self.verifying.due = self.verifying.due.max(now) + Duration::from_secs_f64(spent);
        self.verifying.counted = bytes;
        if spent > 0.0 || now < self.verifying.due {
            return Ok(());
        }
        if reading.wants_reader(self.changes.position()) {
            // A chunk's keys may stand in all of the lake's files: few large chunks look into them
            // less often than many small ones.
            let chunk = (self.settings.memory.bytes() / 32).clamp(CHUNK_LEAST, CHUNK_MOST / 2);
            reading.add_reader(self.source.reader(chunk).await?);
        }
        reading.dispatch(&mut self.changes);
        Ok(())
    }

    /// Begins with the next table, if none is under way.
    fn begin_verification(&mut self) {
        while self.verifying.current.is_none() {
            let Some(wanted) = self.verifying.queue.pop_front() else { return };
            match self.can_verify(&wanted.table) {
                Ok(Some(schema)) => return self.compare(wanted, schema),
                Ok(None) => return self.verifying.queue.push_front(wanted),
                Err(why) => self.verified(&wanted, Verified::skipped(now_ms(), why)),
            }
        }
    }

    /// The table's schema; `None` while its rows are being read; or why it can't be compared.
    fn can_verify(&self, table: &TableId) -> Result<Option<Arc<TableSchema>>, Skip> {
        if let Some(reason) = self.refused.get(table) {
            return Err(reason.as_str().into());
        }
        let tracked = self.tables.get(table).ok_or("this source has no such table")?;
        if let Some(reason) = &tracked.stopped {
            return Err(Skip { reason: "it is stopped".to_owned(), cause: Some(reason.clone()) });
        }
        if tracked.dropped.is_some() {
            return Err("the source has no such table any more".into());
        }
        if tracked.paused {
            return Err("it is paused".into());
        }
        if !matches!(tracked.schema.identity, Identity::Key(_)) {
            return Err("it has no key by which rows could be compared".into());
        }
        if self.settings.merging.shape_of(table).mode == Mode::Append {
            return Err("its mode is \"append\": each change is a row of its own".into());
        }
        let position = self.changes.position();
        let ahead = tracked.held.as_ref().is_some_and(|held| !position.covers(held));
        let waits = tracked.waits() || ahead;
        let read = self.snapshots.progress(table).is_some();
        Ok((!waits && !read).then(|| tracked.schema.clone()))
    }

    fn compare(&mut self, wanted: Wanted, schema: Arc<TableSchema>) {
        info!(table = %wanted.table, "verifying");
        self.verifying.number += 1;
        let number = self.verifying.number;
        let progress = Progress { ranges: vec![Range::default()], ..Progress::default() };
        let position = self.changes.position().clone();
        self.changes.push(&wanted.table, Step::Verify(Task::Begin { number }));
        self.verifying.reading.begin(schema.clone(), position, None, progress);
        self.verifying.current = Some(Current {
            wanted,
            schema,
            number,
            phase: Phase::Rows,
            began: Instant::now(),
            bytes: self.verifying.reading.bytes(),
            result: Verified::of(Outcome::Equal, 0, Duration::ZERO),
            doubts: BTreeSet::new(),
            repairs: Vec::new(),
        });
    }

    /// All rows that were asked for have been read and are among the table's steps.
    fn all_read(&mut self) {
        let Some(current) = &mut self.verifying.current else { return };
        let shape = self.settings.merging.shape_of(&current.wanted.table);
        // Rows that were deleted in the source stay where deletes are marks.
        let repair = current.wanted.repair && shape.mode != Mode::SoftDelete;
        let task = match current.phase {
            Phase::Rows => {
                current.phase = Phase::Unseen;
                Task::Unseen
            }
            _ => {
                current.phase = Phase::End;
                Task::End { repair }
            }
        };
        self.changes.push(&current.wanted.table, Step::Verify(task));
    }

    /// Takes up what a reader reports. A row that can't be read ends the table's verification.
    pub(super) fn verified_chunk(&mut self, event: Event<S>) -> Result<()> {
        if let Event::Part(_, lakeward_connectors::source::Part::Opened(view)) = &event {
            self.changes.seen_by(view, self.oldest_window());
        }
        if let Some((table, error)) = self.verifying.reading.take_up(event, &mut self.changes)? {
            let error = error.hide(|column| self.hides(&table, column));
            let reason = "a row of it can't be read".to_owned();
            self.interrupt_verification(&table, Skip { reason, cause: Some(error.full()) });
        }
        Ok(())
    }

    /// The table is not what it was when its verification began: it begins again, some time.
    pub(super) fn interrupt_verification(&mut self, table: &TableId, why: impl Into<Skip>) {
        let of = |current: &mut Current| current.wanted.table == *table;
        let Some(current) = self.verifying.current.take_if(of) else { return };
        self.verifying.reading.cancel(table);
        if !self.snapshots.reads(table) {
            self.changes.watch(table, false);
        }
        let wanted = Wanted { attempts: current.wanted.attempts + 1, ..current.wanted };
        match wanted.attempts < ATTEMPTS {
            true => self.verifying.queue.push_back(wanted),
            false => self.verified(&wanted, Verified::skipped(now_ms(), why.into())),
        }
    }

    /// Takes up what the writer found.
    pub(super) async fn found(&mut self, findings: Vec<(TableId, Findings)>) -> Result<()> {
        for (table, findings) in findings {
            let Some(current) = &mut self.verifying.current else { return Ok(()) };
            if current.wanted.table != table || current.number != findings.number {
                continue;
            }
            let first = matches!(current.phase, Phase::Rows | Phase::Unseen);
            current.result.rows += if first { findings.rows } else { 0 };
            for (key, columns) in findings.different {
                if first && current.doubts.len() < UNSEEN {
                    current.doubts.insert(key);
                    continue;
                }
                let kind = if columns.is_none() { Kind::Missing } else { Kind::Changed };
                current.repairs.push(key.clone());
                current.repairs.truncate(REPAIRED_BY_KEY);
                current.result.note(kind, key, columns.unwrap_or_default());
            }
            if findings.void {
                let reason = "the files of the table were exchanged while it was compared";
                self.interrupt_verification(&table, reason);
                continue;
            }
            if let Some(keys) = findings.unseen {
                self.look_for(keys);
            }
            if let Some(keys) = findings.extra {
                self.end_verification(keys).await?;
            }
        }
        Ok(())
    }

    /// Looks in the source for rows that only the lake seems to have (V2), and once more at those that
    /// differ (V4).
    fn look_for(&mut self, unseen: Vec<KeyText>) {
        let Some(current) = &mut self.verifying.current else { return };
        let shape = self.settings.merging.shape_of(&current.wanted.table);
        let mut keys: Vec<_> = std::mem::take(&mut current.doubts).into_iter().collect();
        // Rows that were deleted in the source stay where deletes are marks.
        if shape.mode != Mode::SoftDelete {
            current.result.more = unseen.len() >= UNSEEN;
            keys.extend(unseen);
        }
        if keys.is_empty() {
            return self.all_read();
        }
        current.phase = Phase::Keys;
        let position = self.changes.position().clone();
        self.verifying.reading.add_keys(&current.schema, &position, keys);
    }

    /// The comparison is complete: `extra` are the rows that only the lake had.
    async fn end_verification(&mut self, extra: Vec<KeyText>) -> Result<()> {
        let Some(mut current) = self.verifying.current.take() else { return Ok(()) };
        let table = current.wanted.table.clone();
        let shape = self.settings.merging.shape_of(&table);
        if shape.mode != Mode::SoftDelete {
            for key in extra {
                current.result.note(Kind::Extra, key, Vec::new());
            }
        }
        let mut result = current.result;
        result.at_ms = now_ms();
        result.took_ms = current.began.elapsed().as_millis() as u64;
        result.bytes = self.verifying.reading.bytes() - current.bytes;
        if current.wanted.repair && result.outcome == Outcome::Different {
            result.repaired = true;
            if current.repairs.len() >= REPAIRED_BY_KEY {
                let reason = "verification found it to differ from the source".to_owned();
                self.look_again(&table, reason).await?;
            } else if !current.repairs.is_empty() {
                let position = self.changes.position().clone();
                self.snapshots.add_keys(&current.schema, &position, current.repairs);
                self.dirty = true;
            }
        }
        self.verified(&current.wanted, result);
        Ok(())
    }

    fn verified(&mut self, wanted: &Wanted, result: Verified) {
        let (table, rows) = (&wanted.table, result.rows);
        match result.outcome {
            Outcome::Equal => info!(%table, rows, "lake and source are equal"),
            Outcome::Skipped => {
                info!(%table, reason = result.reason.as_deref().unwrap_or_default(), "not verified");
            }
            Outcome::Different => {
                let Verified { missing, extra, changed, repaired, .. } = result;
                warn!(%table, rows, missing, extra, changed, repaired, "lake and source differ");
            }
        }
        self.meter.verified(table, &result);
        if let Some(answers) = &wanted.answers {
            // Whoever asked may be gone.
            let _ = answers.send((table.clone(), result.clone()));
        }
        self.verifying.results.insert(table.clone(), result);
    }

    /// The serial number from which on an open window may ask what its view saw.
    pub(super) fn oldest_window(&self) -> u64 {
        self.snapshots.oldest_window().min(self.verifying.reading.oldest_window())
    }
}
