//! The board: what the daemon knows of its sources and tables, kept in one place.
//!
//! Pipelines and the daemon put facts up through a [`Meter`] each, about once a second and at every
//! flush. `/metrics`, `/health`, the status page and the progress bars only read them, so they can't
//! disagree. Nothing here knows of a database's address, let alone of a password.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakeward_connectors::schema::TableId;

use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::verify::{Found, Verified};
use crate::writer::{Committed, Size};

mod durations;
mod history;
mod meter;
#[cfg(test)]
mod tests;

pub use durations::{BOUNDS, Durations};
pub use history::{History, Sample};
pub use meter::{Flushed, Meter, Sight, TableSight};

/// How often every source and table gets a [`Sample`].
pub const SAMPLE: Duration = Duration::from_secs(2);

/// Facts older than this have gone stale: from then on what lags lags more.
const STALE_MS: i64 = 5_000;

/// How many commits of a table are remembered.
const COMMITS: usize = 30;

/// The facts of all sources of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    sources: Arc<Mutex<BTreeMap<String, Meter>>>,
    started_ms: i64,
}

impl Default for Board {
    fn default() -> Self {
        Self { sources: Arc::default(), started_ms: now_ms() }
    }
}

impl Board {
    /// The meter of one source, of a database of that kind: the one it had, if it was there before.
    pub fn source(&self, name: &str, kind: &'static str) -> Meter {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources.remove(name).filter(|meter| meter.read(|facts| facts.kind == kind));
        let meter = known.unwrap_or_else(|| Meter::new(kind));
        sources.insert(name.to_owned(), meter.clone());
        meter
    }

    /// A source is not in the configuration any more. It stays to be seen where it has `left`
    /// something in the database: what that is, and what removes it.
    pub fn removed(&self, name: &str, left: Option<(String, String)>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match (left, sources.get(name)) {
            (Some((what, remedy)), Some(meter)) => meter.removed(what, remedy),
            _ => {
                sources.remove(name);
            }
        }
    }

    /// When the process started, milliseconds of Unix time.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Shows the facts of every source to `read`, by name.
    pub fn each(&self, mut read: impl FnMut(&str, &SourceFacts)) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, meter) in &*sources {
            meter.read(|facts| read(name, facts));
        }
    }

    /// What `read` makes of the facts of one source; `None` when there is no such source.
    pub fn one<T>(&self, name: &str, read: impl FnOnce(&SourceFacts) -> T) -> Option<T> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(name).map(|meter| meter.read(read))
    }

    /// What the newest verification of each table of a source found.
    pub fn verified(&self, name: &str) -> Found {
        let found = |facts: &SourceFacts| {
            let tables = facts.tables.iter();
            tables.filter_map(|(id, table)| Some((id.clone(), table.verified.clone()?))).collect()
        };
        self.one(name, found).unwrap_or_default()
    }

    /// What an earlier process found of tables that were not verified since.
    pub fn remember(&self, name: &str, found: &Found) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = sources.get(name) {
            meter.remember(found);
        }
    }

    /// Whether every source is being followed, and those that are not.
    ///
    /// # Errors
    /// The names of the sources that are not being followed.
    pub fn health(&self) -> Result<(), Vec<String>> {
        let mut down = Vec::new();
        self.each(|name, facts| {
            if !matches!(facts.standing, Standing::Following | Standing::Removed) {
                down.push(name.to_owned());
            }
        });
        if down.is_empty() { Ok(()) } else { Err(down) }
    }

    /// Takes a sample of every source and table; called every [`SAMPLE`].
    pub fn sample(&self) {
        let now = now_ms();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for meter in sources.values() {
            meter.sample(now);
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is being connected to, for the first time.
    #[default]
    Starting,
    /// Its log is being read.
    Following,
    /// It failed, and is tried again by itself.
    Retrying,
    /// It failed in a way that somebody has to mend.
    Failed,
    /// It is done: all was current, or the process was told to stop.
    Ended,
    /// It is not in the configuration any more.
    Removed,
}

impl Standing {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Following => "following",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Removed => "removed",
        }
    }
}

/// What a source failed with last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened, and where.
    pub what: String,
    /// What the user can do about it, where anything can be done.
    pub remedy: Option<String>,
    /// When, milliseconds of Unix time.
    pub at_ms: i64,
    /// When it is tried again; `None`: never by itself.
    pub retry_ms: Option<i64>,
}

/// How far behind something was, and when that was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Milliseconds.
    pub ms: i64,
    /// Milliseconds of Unix time.
    pub seen_ms: i64,
}

impl Lag {
    /// The lag at `now`: where nobody has looked for a while, it has grown meanwhile.
    pub fn at(self, now: i64) -> i64 {
        let ago = now - self.seen_ms;
        if ago > STALE_MS { self.ms + ago } else { self.ms }
    }
}

/// What a source takes of its memory budget, in bytes, as it is estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Changes that wait to be written.
    pub changes: usize,
    /// What is being written.
    pub writing: usize,
    /// Rows of chunks that wait for the log.
    pub snapshots: usize,
    /// Indexes, and merges that are under way.
    pub tables: usize,
    /// What all of it may take.
    pub budget: usize,
}

impl Memory {
    /// What was read from the log and waits to be written, in bytes.
    pub fn buffered(&self) -> usize {
        self.changes + self.writing
    }
}

/// What is known of a source.
#[derive(Debug, Default)]
pub struct SourceFacts {
    /// Which kind of database it is: `postgres`, `mysql`, `mongodb`.
    pub kind: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Since when, milliseconds of Unix time.
    pub since_ms: i64,
    /// What it failed with last; gone once it is followed again.
    pub problem: Option<Problem>,
    /// How often it started over after an error.
    pub restarts: u64,
    /// Changes decoded from its log since the process started.
    pub changes: u64,
    /// Epochs closed, and Delta commits made.
    pub flushes: u64,
    /// See [`flushes`](Self::flushes).
    pub commits: u64,
    /// The newest epoch's number; 0: none yet.
    pub epoch: u64,
    /// When it was closed, milliseconds of Unix time, and how long that took.
    pub flushed_ms: Option<i64>,
    /// See [`flushed_ms`](Self::flushed_ms).
    pub flush_took: Duration,
    /// How long that took each time, and each table's part of it.
    pub flushes_took: Durations,
    /// See [`flushes_took`](Self::flushes_took).
    pub commits_took: Durations,
    /// Up to where the log has been read.
    pub read: String,
    /// Up to where everything is durable, and acknowledged.
    pub durable: String,
    /// How far the lake is behind the source; `None` until the log is read.
    pub lag: Option<Lag>,
    /// What the log holds that is not durable in the lake, in bytes, where the source can say.
    pub lag_bytes: Option<u64>,
    /// What the server keeps of its log because of this source, in bytes, where it keeps any for that.
    pub log_retained: Option<u64>,
    /// By how many seconds what is durable is younger than the beginning of the log, where the server
    /// cuts it off whether or not it has been read, and says where.
    pub log_window_s: Option<u64>,
    /// What it takes of memory.
    pub memory: Memory,
    /// How often one of its tables was verified since the process started.
    pub verifications: u64,
    /// Its tables.
    pub tables: BTreeMap<TableId, TableFacts>,
    /// The last minutes.
    pub history: History,
    /// Rows that snapshots have read since the process started.
    rows_read: u64,
    /// The changes that the present run of its pipeline had counted.
    counted: u64,
}

/// What is known of a table.
#[derive(Debug)]
pub struct TableFacts {
    /// What it is doing. [`State::Gap`]: it lost its place, and is read again.
    pub state: State,
    /// Since when, milliseconds of Unix time.
    pub since_ms: i64,
    /// Why it is stopped, or read again.
    pub reason: Option<String>,
    /// Changes decoded from the log since the process started.
    pub changes: u64,
    /// How far what is durable is behind the source; `None` while that can't be said.
    pub lag: Option<Lag>,
    /// How large it is, and what keeping it has cost; `None` until it is opened.
    pub size: Option<Size>,
    /// Its last commits, the oldest first.
    pub commits: VecDeque<TableCommit>,
    /// How far reading its rows has got, while they are read.
    pub reading: Option<Reading>,
    /// Its rows by the source's own estimate.
    pub estimate: Option<u64>,
    /// What the newest verification of it found, in sum.
    pub verified: Option<Verified>,
    /// The last minutes.
    pub history: History,
    /// The rows that were in the lake when the reading began that goes on: it continues one of an
    /// earlier run.
    base: u64,
    rows_read: u64,
    /// What the present run of the pipeline had counted of changes and rows.
    counted: u64,
    counted_rows: u64,
}

impl Default for TableFacts {
    fn default() -> Self {
        Self {
            state: State::Snapshot,
            since_ms: 0,
            reason: None,
            changes: 0,
            lag: None,
            size: None,
            commits: VecDeque::new(),
            reading: None,
            estimate: None,
            verified: None,
            history: History::default(),
            base: 0,
            rows_read: 0,
            counted: 0,
            counted_rows: 0,
        }
    }
}

/// One commit of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCommit {
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// When, milliseconds of Unix time.
    pub at_ms: i64,
    /// What it did.
    pub did: Committed,
}

/// How far reading a table's rows has got, as its snapshot knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Rows read since the reading began in this process.
    pub rows: u64,
    /// Whether ranges of keys are read, and not only single rows again.
    pub ranges: bool,
    /// Single rows to read again (S5), without those under way.
    pub keys: usize,
    /// Whether the table is read from its beginning, beside its visible rows (S9).
    pub anew: bool,
}

/// The same as people ask for it, and how long it will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows that have been read.
    pub rows: u64,
    /// All rows, by the source's estimate; `None` where it has none, or one that is passed already.
    pub total: Option<u64>,
    /// Seconds that are left at the present pace.
    pub left_s: Option<u64>,
    /// Single rows that wait to be read again (S5).
    pub keys: usize,
}

impl TableFacts {
    /// What it is doing, in one word: those of the epoch file, and `staged` for a table some of
    /// whose changes are durable and not merged.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Live if self.size.is_some_and(|size| size.staged > 0) => "staged",
            State::Live => "live",
            State::Paused => "paused",
            State::Snapshot => "snapshot",
            State::Stopped => "stopped",
            State::Gap => "gap",
            State::Dropped => "dropped",
        }
    }

    /// How far what readers see is behind the source at `now`, in milliseconds; `None` while that
    /// can't be said.
    pub fn lag_ms(&self, now: i64) -> Option<i64> {
        let staged = self.size.and_then(|size| size.staged_ms).map_or(0, |at| now - at);
        self.lag.map(|lag| lag.at(now).max(staged))
    }

    /// How far reading has got, while its rows are read.
    pub fn progress(&self) -> Option<Progress> {
        let reading = self.reading?;
        let rows = self.base + reading.rows;
        let total = self.estimate.filter(|total| reading.ranges && *total > rows);
        let pace = self.history.rows_a_second(15);
        let left = total.filter(|_| pace > 0.0).map(|total| (total - rows) as f64 / pace);
        Some(Progress {
            rows,
            total,
            left_s: left.map(|left| left.ceil() as u64),
            keys: reading.keys,
        })
    }

    /// Bytes written for each byte of rows that came, since the source started.
    pub fn amplification(&self) -> Option<f64> {
        let size = self.size.filter(|size| size.brought > 0)?;
        Some((size.copied + size.brought) as f64 / size.brought as f64)
    }
}
