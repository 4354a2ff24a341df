//! Collapsing where columns identify a row.

use lakeward_connectors::batch::{Batch, Change};
use lakeward_connectors::change::Op;
use lakeward_connectors::error::Result;

use super::seen::Seen;
use super::{Cell, From, NewRow, Parts, Removal, cell_of};
use crate::planted::{self, Bug};

/// A row as one change left it.
#[derive(Clone, Copy)]
struct Version {
    cell: Cell,
    /// For a row with values left out: the index of its [`Base`]; else [`COMPLETE`].
    base: u32,
    /// Whether a delete left it (see [`NewRow::optional`]).
    left: bool,
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
    /// Only looked at: the lake's row stays.
    Untouched,
}

pub(super) fn run(batches: &[Batch]) -> Result<Parts> {
    let seen = Seen::with_room(batches);
    let states = Vec::with_capacity(batches.iter().map(|batch| batch.keys.len()).sum());
    let out = batches.iter().map(LeftOut::of).collect();
    let mut walk = Walk { out, seen, states, ..Walk::default() };
    for (index, batch) in batches.iter().enumerate() {
        for change in &batch.changes {
            walk.apply(index, batch, change)?;
        }
    }
    Ok(walk.finish())
}

#[derive(Default)]
struct Walk {
    /// By batch.
    out: Vec<LeftOut>,
    seen: Seen,
    /// By the key's number.
    states: Vec<State>,
    bases: Vec<Base>,
}

impl Walk {
    #[inline]
    fn apply(&mut self, index: usize, batch: &Batch, change: &Change) -> Result<()> {
        let key = batch.keys.get(change.key);
        let deleted = change.op == Op::Delete;
        if deleted && change.row.is_none() {
            self.touch(key);
            return Ok(());
        }
        let cell = cell_of(index, change)?;
        // The old key goes first, so a row moved onto itself stays.
        let moved = change.old_key.map(|old| match change.op {
            Op::Insert => self.look(batch.keys.get(old)),
            _ => self.touch(batch.keys.get(old)),
        });
        let (number, before) = self.touch(key);
        if deleted && matches!(before, Some(State::Gone)) {
            return Ok(());
        }
        let mut version = Version { cell, base: COMPLETE, left: deleted };
        if self.out[index].any.contains(cell.row) {
            let (number, before) = moved.unwrap_or((number, before));
            let base = self.base(cell, number, before);
            version.base = self.bases.len() as u32;
            self.bases.push(base);
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
        let state = std::mem::replace(&mut self.states[number as usize], State::Gone);
        (number, Some(state).filter(|state| !matches!(state, State::Untouched)))
    }

    /// The number of `key` and what it is; `None` when it is untouched.
    fn look(&mut self, key: &[u8]) -> (u32, Option<State>) {
        let (number, new) = self.seen.number(key);
        if new {
            self.states.push(State::Untouched);
        }
        let state = self.states[number as usize];
        (number, Some(state).filter(|state| !matches!(state, State::Untouched)))
    }

    /// Where the values are that `cell` leaves out, given the row before under key `number`.
    fn base(&self, cell: Cell, number: u32, before: Option<State>) -> Base {
        match before {
            None => Base::Lake(number),
            Some(State::Gone | State::Untouched) => Base::Nowhere,
            // The usual chain, one column left out again and again, stays one step long.
            Some(State::Row(version)) => match self.base_of(version) {
                Some(base) if self.adds_nothing(version.cell, cell) => base,
                _ => Base::Run(version),
            },
        }
    }

    fn base_of(&self, version: Version) -> Option<Base> {
        self.bases.get(version.base as usize).copied()
    }

    /// Whether the row `before` says nothing of all that `cell` leaves out.
    fn adds_nothing(&self, before: Cell, cell: Cell) -> bool {
        let out = &self.out[before.batch as usize];
        let mut columns = self.out[cell.batch as usize].columns(cell.row);
        columns.all(|column| out.leaves_out(column, before.row) && !out.patches(column, before.row))
    }

    fn finish(self) -> Parts {
        let mut removals = Vec::with_capacity(self.states.len());
        let mut rows = Vec::with_capacity(self.states.len());
        let mut missing = Vec::new();
        for (key, state) in (0..).zip(&self.states) {
            if let State::Row(version) = state {
                let (carried, patches) = self.carried(*version, &mut missing);
                let (from, optional) = (version.cell, version.left);
                rows.push(NewRow { key, from, carried, patches, optional });
            }
            if !matches!(state, State::Untouched) {
                removals.push(Removal { key, rows: 1 });
            }
        }
        (self.seen.into_keys(), removals, rows)
    }

    /// Where the values that `last` left out are, and the patches of them, found by walking back
    /// through what the row was. `missing` is empty before and after.
    fn carried(&self, last: Version, missing: &mut Vec<u32>) -> (Vec<(u32, From)>, Patches) {
        let Some(mut base) = self.base_of(last) else {
            return Default::default();
        };
        let out = &self.out[last.cell.batch as usize];
        missing.extend(out.columns(last.cell.row));
        let mut patches = Patches::new();
        out.note_patches(missing, last.cell, &mut patches);
        let mut found = Vec::with_capacity(missing.len());
        while !missing.is_empty() {
            let from = match base {
                Base::Run(version) => {
                    let out = &self.out[version.cell.batch as usize];
                    missing.retain(|&column| {
                        let still = out.leaves_out(column, version.cell.row);
                        if !still {
                            found.push((column, From::Run(version.cell)));
                        }
                        still
                    });
                    out.note_patches(missing, version.cell, &mut patches);
                    // A complete version has left nothing missing.
                    base = self.base_of(version).unwrap_or(Base::Nowhere);
                    continue;
                }
                Base::Lake(key) => From::Lake(key),
                Base::Nowhere => From::Nowhere,
            };
            found.extend(missing.drain(..).map(|column| (column, from)));
        }
        found.sort_unstable_by_key(|(column, _)| *column);
        // They were found from the last to the first.
        patches.reverse();
        patches.sort_by_key(|(column, _)| *column);
        if planted::is(Bug::OnePatch) {
            patches.dedup_by_key(|(column, _)| *column);
        }
        (found, patches)
    }
}

/// Patches of the values of a row, by column.
type Patches = Vec<(u32, Cell)>;

/// Which values the rows of a batch leave out, in whole or in part, one bit a row; nothing where
/// none does.
struct LeftOut {
    /// Rows that leave out anything.
    any: Bits,
    /// By column; only those that are left out at all.
    columns: Vec<(u32, Bits)>,
    /// By column; those of which patches were sent. They are among the others, too.
    patched: Vec<(u32, Bits)>,
}

impl LeftOut {
    fn of(batch: &Batch) -> Self {
        let rows = batch.columns.num_rows();
        let both = (0..).zip(batch.unchanged.iter().zip(&batch.patched));
        let some = both.filter(|(_, (out, patched))| !(out.is_empty() && patched.is_empty()));
        let columns = some
            .map(|(column, (out, patched))| (column, Bits::of(rows, out.iter().chain(patched))));
        let columns: Vec<_> = columns.collect();
        let any = match columns.as_slice() {
            [] => Bits(Vec::new()),
            _ => Bits::of(rows, batch.unchanged.iter().chain(&batch.patched).flatten()),
        };
        let patched = (0..).zip(&batch.patched).filter(|(_, patched)| !patched.is_empty());
        let patched = patched.map(|(column, patched)| (column, Bits::of(rows, patched)));
        Self { any, columns, patched: patched.collect() }
    }

    /// The columns that `row` leaves out, ascending.
    fn columns(&self, row: u32) -> impl Iterator<Item = u32> + '_ {
        self.columns.iter().filter(move |(_, bits)| bits.contains(row)).map(|(column, _)| *column)
    }

    fn leaves_out(&self, column: u32, row: u32) -> bool {
        self.columns.iter().any(|(of, bits)| *of == column && bits.contains(row))
    }

    fn patches(&self, column: u32, row: u32) -> bool {
        self.patched.iter().any(|(of, bits)| *of == column && bits.contains(row))
    }

    /// Appends which of `columns` the row of `cell` patches.
    fn note_patches(&self, columns: &[u32], cell: Cell, patches: &mut Patches) {
        if !self.patched.is_empty() {
            let patched = columns.iter().filter(|column| self.patches(**column, cell.row));
            patches.extend(patched.map(|column| (*column, cell)));
        }
    }
}

struct Bits(Vec<u64>);

impl Bits {
    fn of<'a>(rows: usize, set: impl IntoIterator<Item = &'a u32>) -> Self {
        let mut bits = vec![0; rows.div_ceil(64)];
        for &row in set {
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
