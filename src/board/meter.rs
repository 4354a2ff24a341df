//! The pen of the board: through it one source's pipeline and keeper put up their facts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakeward_connectors::Error;
use lakeward_connectors::schema::TableId;
use lakeward_connectors::source::Listed;

use super::{
    COMMITS, Lag, Memory, Problem, Reading, SourceFacts, Standing, TableCommit, TableFacts,
};
use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::verify::{Found, Verified};
use crate::writer::{Committed, Size};

/// Puts up what one source does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meter {
    facts: Arc<Mutex<SourceFacts>>,
}

/// What a pipeline sees of its source, about once a second.
#[derive(Debug, Default)]
pub struct Sight {
    /// Up to where the log has been read.
    pub read: String,
    /// Changes decoded since the pipeline's start.
    pub changes: u64,
    /// What the source takes of memory.
    pub memory: Memory,
    /// How far the lake is behind the source, in milliseconds.
    pub lag_ms: i64,
    /// The same in bytes of the log, where the source can say.
    pub lag_bytes: Option<u64>,
    /// What the server keeps of its log because of this source, in bytes.
    pub log_retained: Option<u64>,
    /// By how many seconds what is durable is younger than the beginning of the log.
    pub log_window_s: Option<u64>,
}

/// What a pipeline sees of a table.
#[derive(Debug)]
pub struct TableSight<'a> {
    /// Which one.
    pub id: &'a TableId,
    /// What it is doing.
    pub state: State,
    /// Why it is stopped, or read again.
    pub reason: Option<&'a str>,
    /// Changes decoded since the pipeline's start.
    pub changes: u64,
    /// How far what is durable is behind the source, in milliseconds; `None` if that can't be said.
    pub lag_ms: Option<i64>,
    /// How far reading its rows has got, while they are read.
    pub reading: Option<Reading>,
    /// Rows read by snapshots since the pipeline's start.
    pub rows_read: u64,
}

/// An epoch that is closed.
#[derive(Debug)]
pub struct Flushed {
    /// Its number.
    pub epoch: u64,
    /// Up to where everything is durable.
    pub durable: String,
    /// How long it took.
    pub took: Duration,
    /// The tables committed, and what each commit did.
    pub committed: Vec<(TableId, Committed)>,
}

impl Meter {
    pub(super) fn new(kind: &'static str) -> Self {
        let facts = SourceFacts { kind, since_ms: now_ms(), ..SourceFacts::default() };
        Self { facts: Arc::new(Mutex::new(facts)) }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&SourceFacts) -> T) -> T {
        read(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut SourceFacts)) {
        write(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A pipeline starts, with nothing counted yet.
    pub fn starts(&self) {
        self.write(|facts| {
            facts.counted = 0;
            for table in facts.tables.values_mut() {
                (table.counted, table.counted_rows, table.reading) = (0, 0, None);
            }
        });
    }

    /// The source ended with an error, and is tried again after `retry`; `None`: never by itself.
    pub fn failed(&self, error: &Error, retry: Option<Duration>) {
        let now = now_ms();
        let retry_ms = retry.map(|wait| now + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        self.write(|facts| {
            facts.stand(retry.map_or(Standing::Failed, |_| Standing::Retrying), now);
            facts.restarts += u64::from(retry.is_some());
            facts.problem = Some(Problem {
                what: error.what(),
                remedy: error.remedy_text().map(str::to_owned),
                at_ms: now,
                retry_ms,
            });
        });
    }

    /// The source is not kept any more, and has left something behind.
    pub(super) fn removed(&self, what: String, remedy: String) {
        let now = now_ms();
        self.write(|facts| {
            facts.stand(Standing::Removed, now);
            facts.tables.clear();
            (facts.lag, facts.lag_bytes, facts.memory) = (None, None, Memory::default());
            (facts.log_retained, facts.log_window_s) = (None, None);
            let remedy = Some(remedy);
            facts.problem = Some(Problem { what, remedy, at_ms: now, retry_ms: None });
        });
    }

    /// The source is done.
    pub fn ended(&self) {
        self.write(|facts| facts.stand(Standing::Ended, now_ms()));
    }

    /// The catalog was looked at: how many rows tables have by the source's own estimate.
    pub fn listed(&self, tables: &[Listed]) {
        self.write(|facts| {
            for listed in tables {
                let table = facts.tables.entry(listed.schema.id.clone()).or_default();
                table.estimate = Some(listed.rows).filter(|rows| *rows > 0);
            }
        });
    }

    /// How large tables are.
    pub fn sizes<'a>(&self, sizes: impl Iterator<Item = (&'a TableId, Size)>) {
        self.write(|facts| {
            for (id, size) in sizes {
                facts.tables.entry(id.clone()).or_default().size = Some(size);
            }
        });
    }

    /// What the pipeline sees. Tables that it doesn't see any more are taken down.
    pub fn saw<'a>(&self, sight: Sight, tables: impl Iterator<Item = TableSight<'a>>) {
        let now = now_ms();
        self.write(|facts| {
            facts.stand(Standing::Following, now);
            facts.problem = None;
            facts.changes += sight.changes.saturating_sub(facts.counted);
            facts.counted = sight.changes;
            facts.memory = sight.memory;
            facts.read = sight.read;
            facts.lag = Some(Lag { ms: sight.lag_ms, seen_ms: now });
            facts.lag_bytes = sight.lag_bytes;
            (facts.log_retained, facts.log_window_s) = (sight.log_retained, sight.log_window_s);
            let mut before = std::mem::take(&mut facts.tables);
            for seen in tables {
                let mut table = before.remove(seen.id).unwrap_or_default();
                facts.rows_read += table.saw(&seen, now);
                facts.tables.insert(seen.id.clone(), table);
            }
        });
    }

    /// An epoch is closed.
    pub fn flushed<'a>(&self, flushed: Flushed, sizes: impl Iterator<Item = (&'a TableId, Size)>) {
        let now = now_ms();
        self.sizes(sizes);
        self.write(|facts| {
            facts.flushes += 1;
            facts.commits += flushed.committed.len() as u64;
            facts.epoch = flushed.epoch;
            facts.flushed_ms = Some(now);
            facts.flush_took = flushed.took;
            facts.flushes_took.note(flushed.took);
            flushed.committed.iter().for_each(|(_, did)| facts.commits_took.note(did.took));
            facts.durable = flushed.durable;
            for (id, did) in flushed.committed {
                let Some(table) = facts.tables.get_mut(&id) else { continue };
                if table.commits.len() == COMMITS {
                    table.commits.pop_front();
                }
                table.commits.push_back(TableCommit { epoch: flushed.epoch, at_ms: now, did });
            }
        });
    }

    /// A table was compared with its source.
    pub fn verified(&self, table: &TableId, verified: &Verified) {
        self.write(|facts| {
            if let Some(table) = facts.tables.get_mut(table) {
                table.verified = Some(verified.in_sum());
                facts.verifications += 1;
            }
        });
    }

    /// What an earlier process found of tables that were not verified since.
    pub(super) fn remember(&self, found: &Found) {
        self.write(|facts| {
            for (id, verified) in found {
                if let Some(table) = facts.tables.get_mut(id) {
                    table.verified.get_or_insert_with(|| verified.clone());
                }
            }
        });
    }

    pub(super) fn sample(&self, now: i64) {
        self.write(|facts| {
            for table in facts.tables.values_mut() {
                let lag = table.lag_ms(now).unwrap_or(0);
                table.history.push(table.changes, table.rows_read, lag);
            }
            let lag = facts.lag.map_or(0, |lag| lag.at(now));
            facts.history.push(facts.changes, facts.rows_read, lag);
        });
    }
}

impl SourceFacts {
    fn stand(&mut self, standing: Standing, now: i64) {
        if self.standing != standing {
            (self.standing, self.since_ms) = (standing, now);
        }
    }
}

impl TableFacts {
    /// Takes up what was seen; returns how many more rows have been read.
    fn saw(&mut self, seen: &TableSight<'_>, now: i64) -> u64 {
        if self.state != seen.state || self.since_ms == 0 {
            (self.state, self.since_ms) = (seen.state, now);
        }
        if self.reason.as_deref() != seen.reason {
            self.reason = seen.reason.map(str::to_owned);
        }
        self.changes += grown(self.counted, seen.changes);
        self.counted = seen.changes;
        let read = grown(self.counted_rows, seen.rows_read);
        self.counted_rows = seen.rows_read;
        self.rows_read += read;
        self.lag = seen.lag_ms.map(|ms| Lag { ms, seen_ms: now });
        if self.reading.is_none() && seen.reading.is_some_and(|reading| !reading.anew) {
            self.base = self.size.map_or(0, |size| size.rows);
        } else if seen.reading.is_none_or(|reading| reading.anew) {
            self.base = 0;
        }
        self.reading = seen.reading;
        read
    }
}

/// By how much a counter has grown; one that is smaller than before has begun anew.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
