//! Windows: how a chunk of existing rows meets the stream (DESIGN §5, S2–S6).
//!
//! Every change that the stream delivers is applied at once, whether or not its key has been read
//! yet. A chunk remembers the keys that were touched since its window opened; when the stream has
//! reached the chunk's high mark, its rows join the table's steps, except those whose key was
//! touched by a transaction that the chunk's view is not known to see: for them the stream's own
//! row is the newer one. Keys are only ever compared for equality here (S10).
//!
//! Two things make this equal to "skip what is not read yet, apply the rest in order":
//! a view sees every transaction delivered before its window opened (S4), so a row of the chunk is
//! never older than what the stream applied before; and a partial change (unchanged TOAST) that
//! finds no base in the lake puts its key among those to read again (S5).

use lakeward_connectors::batch::{Batch, Builder};
use lakeward_connectors::source::{KeyText, Position, Range, View};
use rustc_hash::FxHashMap;

use crate::buffer::Step;
use crate::planted::{self, Bug};

/// The keys touched by the stream while windows of a table are open.
#[derive(Debug, Default)]
pub struct Touched {
    keys: FxHashMap<Box<[u8]>, Vec<u64>>,
    truncates: Vec<u64>,
    size: usize,
}

impl Touched {
    /// Notes the keys of `builder`'s changes from number `from` on.
    pub fn note(&mut self, builder: &Builder, from: usize) {
        let keys = builder.keys();
        for (index, change) in builder.changes().iter().enumerate().skip(from) {
            let Some(serial) = builder.transaction_of(index) else { continue };
            self.touch(keys.get(change.key), serial);
            if let Some(old) = change.old_key {
                self.touch(keys.get(old), serial);
            }
        }
    }

    fn touch(&mut self, key: &[u8], serial: u64) {
        match self.keys.get_mut(key) {
            Some(serials) if serials.last() == Some(&serial) => {}
            Some(serials) => {
                serials.push(serial);
                self.size += size_of::<u64>();
            }
            None => {
                self.size += key.len() + 96;
                self.keys.insert(key.into(), vec![serial]);
            }
        }
    }

    /// Notes that the transaction numbered `serial` emptied the table (S6).
    pub fn truncate(&mut self, serial: u64) {
        self.truncates.push(serial);
    }

    /// What it takes of memory, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// What a window reads, so that it can be read again.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// A part of a range.
    Range(Range),
    /// These keys.
    Keys(Vec<KeyText>),
    /// The whole table.
    All,
}

/// One chunk from the moment it is asked for until its rows are in the table's steps.
#[derive(Debug)]
pub struct Window<P, V> {
    /// What it reads.
    pub scope: Scope,
    /// The serial number of the first transaction delivered after it was asked for.
    pub since: u64,
    /// What its view sees; `None` until the view was taken.
    pub view: Option<V>,
    /// The rows so far.
    pub rows: Vec<Batch>,
    /// Its high mark (S3); `None` until it has been read.
    pub high: Option<P>,
    /// What was left of its range.
    pub rest: Option<Range>,
}

impl<P: Position, V: View<P::Transaction>> Window<P, V> {
    /// A window asked for before the transaction numbered `since`.
    pub fn new(scope: Scope, since: u64) -> Self {
        Self { scope, since, view: None, rows: Vec::new(), high: None, rest: None }
    }

    /// Whether the stream has delivered everything that the view saw (S3).
    pub fn is_closed_at(&self, position: &P) -> bool {
        let reached = |high: &P| position.covers(high) || planted::is(Bug::NoHighMark);
        self.high.as_ref().is_some_and(reached)
    }

    /// The bytes of its rows.
    pub fn size(&self) -> usize {
        self.rows.iter().map(|batch| batch.size).sum()
    }

    /// The rows that join the table's steps. `delivered` names the transactions by serial number.
    pub fn resolve(
        self,
        touched: Option<&Touched>,
        delivered: &[Delivered<P::Transaction>],
    ) -> Vec<Batch> {
        let (Some(touched), Some(view)) = (touched, &self.view) else { return self.rows };
        let newer = |serials: &[u64]| {
            serials.iter().any(|&serial| serial >= self.since && !is_seen(serial, delivered, view))
        };
        if planted::is(Bug::ChunkWins) {
            return self.rows;
        }
        if newer(&touched.truncates) {
            return Vec::new();
        }
        let mut rows = self.rows;
        for batch in &mut rows {
            let keys = &batch.keys;
            batch.changes.retain(|change| {
                !touched.keys.get(keys.get(change.key)).is_some_and(|serials| newer(serials))
            });
        }
        rows.retain(|batch| !batch.changes.is_empty());
        rows
    }
}

/// A transaction that the stream delivered and that some view may not see yet (S4).
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered<T> {
    /// Its serial number; 0 when an earlier run delivered it.
    pub serial: u64,
    /// What the log calls it.
    pub transaction: T,
    /// Whether some view has seen it, and so every later one does.
    pub seen: bool,
}

/// Whether `view` sees the transaction numbered `serial`. The daemon keeps every transaction that
/// came after the oldest open window, so one that is not there is older than the window.
pub fn is_seen<T, V: View<T>>(serial: u64, delivered: &[Delivered<T>], view: &V) -> bool {
    match delivered.binary_search_by_key(&serial, |known| known.serial) {
        Ok(at) => view.sees(&delivered[at].transaction),
        Err(_) => true,
    }
}

/// Of the steps that the stream delivered for a table without a key while it was read in one view,
/// those that the view does not see: what follows its rows (S11).
pub fn unseen_steps<T, V: View<T>>(
    steps: Vec<Step>,
    delivered: &[Delivered<T>],
    view: &V,
) -> Vec<Step> {
    let newer = |serial: u64| !is_seen(serial, delivered, view);
    steps
        .into_iter()
        .filter_map(|step| match step {
            Step::Truncate { serial, trace } => {
                newer(serial).then_some(Step::Truncate { serial, trace })
            }
            Step::Rows(mut batch) => {
                batch.retain(|serial| serial.is_none_or(newer));
                (!batch.changes.is_empty()).then_some(Step::Rows(batch))
            }
            other => Some(other),
        })
        .collect()
}
