//! Collapsing where columns identify a row.

use lakeward_connectors::batch::{Batch, Change};
use lakeward_connectors::change::Op;
use lakeward_connectors::error::Result;

use super::seen::Seen;
use super::{Cell, From, NewRow, Parts, Removal, cell_of};

/// A row as one change left it.
#[derive(Clone, Copy)]
struct Version {
    cell: Cell,
    /// For a row with values left out: the index of its [`Base`]; else [`COMPLETE`].
    base: u32,
}

const COMPLETE: u32 = u32::MAX;

/// Where the values are that a version left out.
#[derive(Clone, Copy)]
enum Base {
    Run(Version),
    Lake(u32),
    Nowhere,
}

/// What the run knows of a key it has touched.
#[derive(Clone, Copy)]
enum State {
    Row(Version),
    Gone,
}

pub(super) fn run(batches: &[Batch]) -> Result<Parts> {
    let mut walk = Walk::default();
    for (index, batch) in batches.iter().enumerate() {
        let partial = PartialRows::of(batch);
        for change in &batch.changes {
            walk.apply(index, batch, &partial, change)?;
        }
    }
    Ok(walk.finish(batches))
}

#[derive(Default)]
struct Walk {
    seen: Seen,
    /// By the key's number.
    states: Vec<State>,
    bases: Vec<Base>,
}

impl Walk {
    #[inline]
    fn apply(
        &mut self,
        index: usize,
        batch: &Batch,
        partial: &PartialRows,
        change: &Change,
    ) -> Result<()> {
        let key = batch.keys.get(change.key);
        if change.op == Op::Delete {
            self.touch(key);
            return Ok(());
        }
        let cell = cell_of(index, change)?;
        // The old key goes first: a row moved onto itself stays.
        let moved = change.old_key.map(|old| self.touch(batch.keys.get(old)));
        let (number, before) = self.touch(key);
        let mut version = Version { cell, base: COMPLETE };
        if partial.contains(cell.row) {
            version.base = self.bases.len() as u32;
            self.bases.push(base(moved.unwrap_or((number, before))));
        }
        self.states[number as usize] = State::Row(version);
        Ok(())
    }

    /// Marks `key` gone. Returns its number and what it was before; `None` when it is untouched.
    #[inline]
    fn touch(&mut self, key: &[u8]) -> (u32, Option<State>) {
        let (number, new) = self.seen.number(key);
        if new {
            self.states.push(State::Gone);
            return (number, None);
        }
        let state = &mut self.states[number as usize];
        (number, Some(std::mem::replace(state, State::Gone)))
    }

    fn finish(self, batches: &[Batch]) -> Parts {
        let Self { seen, states, bases } = self;
        let removals = (0..states.len() as u32).map(|key| Removal { key, rows: 1 }).collect();
        let rows = states.iter().enumerate().filter_map(|(key, state)| match state {
            State::Row(version) => {
                let carried = carried(batches, &bases, *version);
                Some(NewRow { key: key as u32, from: version.cell, carried })
            }
            State::Gone => None,
        });
        let rows = rows.collect();
        (seen.into_keys(), removals, rows)
    }
}

fn base((number, before): (u32, Option<State>)) -> Base {
    match before {
        None => Base::Lake(number),
        Some(State::Row(version)) => Base::Run(version),
        Some(State::Gone) => Base::Nowhere,
    }
}

/// Where the values that `last` left out are, found by walking back through what the row was.
fn carried(batches: &[Batch], bases: &[Base], last: Version) -> Vec<(u32, From)> {
    let mut found = Vec::new();
    if last.base == COMPLETE {
        return found;
    }
    let left_out = |cell: Cell, column: u32| {
        batches[cell.batch as usize].is_unchanged(column as usize, cell.row)
    };
    let columns = batches[last.cell.batch as usize].unchanged.len() as u32;
    let mut missing: Vec<u32> = (0..columns).filter(|&c| left_out(last.cell, c)).collect();
    let mut version = last;
    while !missing.is_empty() {
        let base = bases.get(version.base as usize).copied();
        match base {
            Some(Base::Run(before)) => {
                missing.retain(|&column| {
                    let out = left_out(before.cell, column);
                    if !out {
                        found.push((column, From::Run(before.cell)));
                    }
                    out
                });
                version = before;
            }
            Some(Base::Lake(key)) => found.extend(missing.drain(..).map(|c| (c, From::Lake(key)))),
            Some(Base::Nowhere) | None => {
                found.extend(missing.drain(..).map(|c| (c, From::Nowhere)));
            }
        }
    }
    found.sort_unstable_by_key(|(column, _)| *column);
    found
}

/// The rows of a batch that have values left out, one bit a row; empty when none has.
struct PartialRows(Vec<u64>);

impl PartialRows {
    fn of(batch: &Batch) -> Self {
        if batch.unchanged.iter().all(Vec::is_empty) {
            return Self(Vec::new());
        }
        let mut bits = vec![0; batch.columns.num_rows().div_ceil(64)];
        for &row in batch.unchanged.iter().flatten() {
            if let Some(word) = bits.get_mut(row as usize / 64) {
                *word |= 1 << (row % 64);
            }
        }
        Self(bits)
    }

    #[inline]
    fn contains(&self, row: u32) -> bool {
        self.0.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}
