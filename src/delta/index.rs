//! Where each row of a table is: its key → the place it was written to.
//!
//! A *place* is a number that a row gets when it is written to a file, and that no other row gets.
//! [`View`](super::view::View) knows which rows of which file have which places, and which of them
//! are left. So an entry of a row that is gone does no harm: whoever finds a place asks the view
//! whether it is still there, and entries are only ever added, in [sorted runs](run). When runs are
//! merged, those that no file has any more are left out.
//!
//! The index is a cache: it is kept in the state directory ([`cache`], [`saved`]) and made again
//! from the key columns of the data files where that is lost, damaged or behind.

pub(crate) mod cache;
mod run;
mod saved;
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use lakeward_connectors::key::Keys;
use rustc_hash::FxHasher;

pub(crate) use self::cache::Damaged;
use self::cache::{Output, Shelf};
use self::run::{Builder, Cursor, Entry, Run};
pub(crate) use self::saved::{SavedFile, Segment};

/// The number of a row, given when it is written to a file.
pub(crate) type Place = u64;

/// So many new entries, or bytes of their keys, are sorted into a run.
const TAIL: usize = 256 << 10;
const TAIL_BYTES: usize = 4 << 20;
/// A run is at least so many times as large as all those after it together; or they are merged.
const RATIO: u64 = 3;
/// So many runs that were made since the last commit are merged with one another.
const UNSETTLED: usize = 24;

/// Key → places.
#[derive(Debug)]
pub(crate) struct Index {
    /// Whether a key has one row. Otherwise the whole row is the key, and equal rows are counted.
    unique: bool,
    /// Whether nothing is noted.
    blank: bool,
    shelf: Shelf,
    /// The oldest first.
    runs: Vec<Run>,
    /// How many of `runs`, from the first on, hold committed rows only.
    settled: usize,
    tail: Tail,
    /// The next row's place.
    next: Place,
    /// Entries since the index was saved.
    unsaved: u64,
    /// Which of the process's indexes this is.
    number: u64,
}

/// How many indexes there have been in this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The newest entries, in the order in which they came.
#[derive(Debug, Default)]
struct Tail {
    keys: Keys,
    places: Vec<Place>,
    bytes: usize,
}

/// The places noted under keys.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Where the places of each key begin.
    starts: Vec<u32>,
    places: Vec<Place>,
}

impl Found {
    /// The places of a key, by its number.
    pub(crate) fn of(&self, key: u32) -> &[Place] {
        let at = |key: usize| self.starts.get(key).map_or(self.places.len(), |at| *at as usize);
        &self.places[at(key as usize)..at(key as usize + 1)]
    }
}

impl Index {
    /// An empty index.
    pub(crate) fn new(shelf: Shelf, unique: bool) -> Self {
        let (runs, tail) = (Vec::new(), Tail::default());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { unique, blank: false, shelf, runs, settled: 0, tail, next: 0, unsaved: 0, number }
    }

    /// An index that notes nothing, for rows that nobody has to find again.
    pub(crate) fn blank(shelf: Shelf) -> Self {
        Self { blank: true, ..Self::new(shelf, false) }
    }

    /// Whether a key has at most one row.
    pub(crate) fn is_unique(&self) -> bool {
        self.unique
    }

    /// Which of the process's indexes this is: places mean nothing to another one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The place that the next row gets.
    pub(crate) fn next(&self) -> Place {
        self.next
    }

    /// Gives places to rows whose keys are not noted (because they are deleted).
    pub(crate) fn skip(&mut self, rows: u64) {
        self.next += rows;
    }

    /// An index of so many rows to come, for which the next places are kept: it is filled apart from
    /// this one, stays in memory, and may be [taken in](Self::take_in) or left.
    pub(crate) fn apart(&mut self, rows: u64) -> Self {
        let (shelf, next) = (self.shelf.in_memory(), self.next);
        self.next += rows;
        Self { next, number: self.number, blank: self.blank, ..Self::new(shelf, self.unique) }
    }

    /// Takes in what an index [apart](Self::apart) of this one notes; `false` when it is of another.
    ///
    /// # Errors
    /// When runs can't be merged.
    pub(crate) fn take_in(&mut self, mut part: Self) -> Result<bool, Damaged> {
        if part.number != self.number {
            return Ok(false);
        }
        self.seal()?;
        part.seal()?;
        self.unsaved += part.unsaved;
        self.runs.append(&mut part.runs);
        Ok(true)
    }

    /// Notes a row of `key`, which gets the next place.
    ///
    /// # Errors
    /// When a run can't be merged.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8]) -> Result<(), Damaged> {
        if self.blank {
            self.next += 1;
            return Ok(());
        }
        self.tail.keys.push_bytes(key);
        self.tail.places.push(self.next);
        self.tail.bytes += key.len();
        self.next += 1;
        self.unsaved += 1;
        if self.tail.places.len() >= TAIL || self.tail.bytes >= TAIL_BYTES {
            self.seal()?;
        }
        Ok(())
    }

    /// Finds what is noted under `keys`, where `alive` says which places are left.
    ///
    /// # Errors
    /// When a run can't be read.
    pub(crate) fn find(
        &mut self,
        keys: &Keys,
        alive: impl Fn(Place) -> bool,
    ) -> Result<Found, Damaged> {
        self.seal()?;
        let mut order = sorted(keys);
        let mut hits: Vec<(u32, Place)> = Vec::new();
        for run in self.runs.iter().rev() {
            let before = hits.len();
            let hit = |key, place| {
                if alive(place) {
                    hits.push((key, place));
                }
            };
            run.find(&order, |number| keys.get(number), hit)?;
            if self.unique && hits.len() > before {
                // Hits of one run come in the order of the keys, as `order` is.
                let mut new = hits[before..].iter().map(|(key, _)| *key).peekable();
                order.retain(|number| new.next_if(|hit| hit == number).is_none());
            }
        }
        hits.sort_unstable();
        let mut found = Found { starts: Vec::with_capacity(keys.len() + 1), places: Vec::new() };
        for (key, place) in hits {
            found.starts.resize(key as usize + 1, found.places.len() as u32);
            found.places.push(place);
        }
        found.starts.resize(keys.len() + 1, found.places.len() as u32);
        Ok(found)
    }

    /// Merges runs, without the entries of rows that are gone, and says whether so much is new that
    /// it is worth [saving](Self::save). Only while nothing waits to be committed: what `alive`
    /// denies must be gone for good.
    ///
    /// # Errors
    /// When a run can't be read or written.
    pub(crate) fn settle(&mut self, alive: impl Fn(Place) -> bool) -> Result<bool, Damaged> {
        self.seal()?;
        self.merge(lopsided(&self.runs, 0), &alive)?;
        self.settled = self.runs.len();
        let entries: u64 = self.runs.iter().map(|run| run.entries).sum();
        Ok(self.unsaved >= (entries / 8).max(self.shelf.worth()))
    }

    /// Merges everything into one run without the entries of rows that are gone; says whether
    /// each key has only one row, if it should.
    ///
    /// # Errors
    /// When a run can't be read or written.
    pub(crate) fn join(&mut self, alive: impl Fn(Place) -> bool) -> Result<bool, Damaged> {
        self.seal()?;
        let single = self.merge(0, &alive)?;
        self.settled = self.runs.len();
        Ok(single || !self.unique)
    }

    /// Writes what is in memory to the state directory.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn spill(&mut self) -> Result<(), Damaged> {
        self.seal()?;
        let from = self.runs.iter().rposition(|run| run.file().is_some()).map_or(0, |at| at + 1);
        if from < self.runs.len() {
            let output = self.shelf.create()?;
            let merged = merge(&self.runs[from..], output, |_| true)?.0;
            self.put(from, merged);
        }
        Ok(())
    }

    /// About how much memory the index takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let tail = self.tail.keys.size() + self.tail.places.capacity() * size_of::<Place>();
        tail + self.runs.iter().map(Run::memory).sum::<usize>()
    }

    /// Sorts the newest entries into a run, and keeps within bounds what is in memory.
    fn seal(&mut self) -> Result<(), Damaged> {
        if self.tail.places.is_empty() {
            return Ok(());
        }
        let Tail { keys, places, .. } = std::mem::take(&mut self.tail);
        let mut builder = Builder::new(Output::memory());
        for number in sorted(&keys) {
            builder.push(keys.get(number), places[number as usize])?;
        }
        self.runs.extend(builder.finish()?);
        // What is committed stays as it is: these rows may never be.
        if self.runs.len() - self.settled >= UNSETTLED {
            self.merge(lopsided(&self.runs, self.settled), &|_| true)?;
        }
        let memory: usize =
            self.runs.iter().filter(|run| run.file().is_none()).map(Run::memory).sum();
        if memory > self.shelf.limit()
            && let Err(error) = self.spill()
        {
            tracing::warn!(error = error.to_string(), "an index stays in memory");
        }
        Ok(())
    }

    /// Merges the runs from number `from` on; says whether each key of them has only one place.
    fn merge(&mut self, from: usize, alive: &impl Fn(Place) -> bool) -> Result<bool, Damaged> {
        let group = &self.runs[from..];
        if group.is_empty() {
            return Ok(true);
        }
        let in_memory = group.iter().all(|run| run.file().is_none());
        let output = match in_memory {
            true => Output::memory(),
            false => self.shelf.create()?,
        };
        let (merged, single) = merge(group, output, alive)?;
        self.put(from, merged);
        Ok(single)
    }

    /// Puts `run` in the place of all from number `from` on.
    fn put(&mut self, from: usize, run: Option<Run>) {
        self.runs.truncate(from);
        self.runs.extend(run);
        self.settled = self.settled.min(from);
    }
}

/// The number, from `from` on, of the first run that is not large enough for those after it; all
/// of them when there is none.
fn lopsided(runs: &[Run], from: usize) -> usize {
    let (mut first, mut after) = (runs.len(), 0);
    for (number, run) in runs.iter().enumerate().skip(from).rev() {
        if after > 0 && run.entries < RATIO * after {
            first = number;
        }
        after += run.entries;
    }
    first
}

/// The entries of `runs` in one, as far as `alive` says; and whether each key has only one place.
fn merge(
    runs: &[Run],
    output: Output,
    alive: impl Fn(Place) -> bool,
) -> Result<(Option<Run>, bool), Damaged> {
    let mut cursors: Vec<Cursor<'_>> = Vec::with_capacity(runs.len());
    for run in runs {
        let mut cursor = run.entries();
        if cursor.advance()? {
            cursors.push(cursor);
        }
    }
    let (mut builder, mut single) = (Builder::new(output), true);
    while let Some((least, next)) = two_least(&cursors) {
        // Rows of a snapshot come by the order of their keys, so a run often is the least for long.
        loop {
            let Entry { key, place, .. } = &cursors[least].entry;
            if alive(*place) {
                single &= builder.push(key, *place)?;
            }
            if !cursors[least].advance()? {
                cursors.swap_remove(least);
                break;
            }
            if next.is_some_and(|next| cursors[next].entry.key < cursors[least].entry.key) {
                break;
            }
        }
    }
    Ok((builder.finish()?, single))
}

/// Which cursor is at the least key, and which one of the others.
fn two_least(cursors: &[Cursor<'_>]) -> Option<(usize, Option<usize>)> {
    let key = |cursor: usize| cursors[cursor].entry.key.as_slice();
    let (mut least, mut next) = (0, None);
    for cursor in 1..cursors.len() {
        if key(cursor) < key(least) {
            (least, next) = (cursor, Some(least));
        } else if next.is_none_or(|next| key(cursor) < key(next)) {
            next = Some(cursor);
        }
    }
    (!cursors.is_empty()).then_some((least, next))
}

/// The numbers of keys in the ascending order of their bytes.
fn sorted(keys: &Keys) -> Vec<u32> {
    // Eight bytes tell most keys apart, without a look at the others.
    let prefix = |key: &[u8]| {
        let mut bytes = [0; 8];
        let length = key.len().min(8);
        bytes[..length].copy_from_slice(&key[..length]);
        u64::from_be_bytes(bytes)
    };
    let mut order: Vec<(u64, u32)> =
        (0..keys.len() as u32).map(|number| (prefix(keys.get(number)), number)).collect();
    order.sort_unstable_by(|(a, first), (b, second)| {
        a.cmp(b).then_with(|| keys.get(*first).cmp(keys.get(*second)))
    });
    order.into_iter().map(|(_, number)| number).collect()
}

/// A key as 64 bits, where taking two keys for one does no harm.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}
