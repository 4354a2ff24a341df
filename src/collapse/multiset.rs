//! Collapsing where the full row is the identity: equal rows are counted.

use lakeward_connectors::batch::Batch;
use lakeward_connectors::change::Op;
use lakeward_connectors::error::Result;

use super::seen::Seen;
use super::{Cell, NewRow, Parts, Removal, cell_of};

const NONE: u32 = u32::MAX;

/// What the run does to the rows that equal one another.
#[derive(Clone, Copy)]
struct Equals {
    /// How many rows of the lake go.
    removed: u32,
    /// The last row added and not cancelled ([`Walk::added`]), or [`NONE`].
    last: u32,
}

/// A row that the run adds.
struct Added {
    key: u32,
    cell: Cell,
    /// The one added before that equals it, or [`NONE`].
    before: u32,
    cancelled: bool,
}

#[derive(Default)]
struct Walk {
    seen: Seen,
    /// By the key's number.
    equals: Vec<Equals>,
    added: Vec<Added>,
}

pub(super) fn run(batches: &[Batch]) -> Result<Parts> {
    let mut walk = Walk::default();
    for (index, batch) in batches.iter().enumerate() {
        for change in &batch.changes {
            let key = batch.keys.get(change.key);
            match change.op {
                Op::Delete => walk.delete(key),
                Op::Insert | Op::Read => walk.add(key, cell_of(index, change)?),
                // A builder splits updates; one that comes whole means the same.
                Op::Update => {
                    walk.delete(change.old_key.map_or(key, |old| batch.keys.get(old)));
                    walk.add(key, cell_of(index, change)?);
                }
            }
        }
    }
    Ok(walk.finish())
}

impl Walk {
    fn number(&mut self, key: &[u8]) -> u32 {
        let (number, new) = self.seen.number(key);
        if new {
            self.equals.push(Equals { removed: 0, last: NONE });
        }
        number
    }

    fn add(&mut self, key: &[u8], cell: Cell) {
        let key = self.number(key);
        let equals = &mut self.equals[key as usize];
        let before = std::mem::replace(&mut equals.last, self.added.len() as u32);
        self.added.push(Added { key, cell, before, cancelled: false });
    }

    fn delete(&mut self, key: &[u8]) {
        let key = self.number(key);
        let equals = &mut self.equals[key as usize];
        match self.added.get_mut(equals.last as usize) {
            Some(added) => {
                added.cancelled = true;
                equals.last = added.before;
            }
            None => equals.removed += 1,
        }
    }

    fn finish(self) -> Parts {
        let Self { seen, equals, added } = self;
        let removals = equals.iter().enumerate().filter(|(_, equals)| equals.removed > 0);
        let removals = removals
            .map(|(key, equals)| Removal { key: key as u32, rows: equals.removed })
            .collect();
        let rows = added.iter().filter(|added| !added.cancelled);
        let rows = rows.map(|added| NewRow {
            key: added.key,
            from: added.cell,
            carried: Vec::new(),
            patches: Vec::new(),
            optional: false,
        });
        let rows = rows.collect();
        (seen.into_keys(), removals, rows)
    }
}
