//! What a table should hold: rows by what tells them apart, and what changes do to them.

use std::collections::BTreeMap;

use lakeward_connectors::Value;

use super::columns::{Cell, Columns, Row};
use crate::support::Res;

/// Rows; of those that nothing tells apart, how many.
#[derive(Clone, Debug, Default)]
pub struct Rows(BTreeMap<Vec<Cell>, (Row, usize)>);

/// A change of the source.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Row),
    /// The row as the source has it, and the columns that it did not send.
    Partial(Row, Vec<usize>),
    Delete(Row),
}

/// What the source does at once.
#[derive(Clone, Debug)]
pub enum Act {
    Run(Vec<Change>),
    Truncate,
    /// All rows are read again.
    Generation(Rows),
}

impl Rows {
    pub fn len(&self) -> usize {
        self.0.values().map(|(_, count)| count).sum()
    }

    pub fn has(&self, key: &[Cell]) -> bool {
        self.0.contains_key(key)
    }

    pub fn get(&self, key: &[Cell]) -> Option<&Row> {
        self.0.get(key).map(|(row, _)| row)
    }

    /// Each row as often as it is there.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.0.values().flat_map(|(row, count)| std::iter::repeat_n(row, *count))
    }

    pub fn put(&mut self, columns: &Columns, row: Row) {
        let key = columns.key_of(&row);
        let before = self.0.get(&key).map_or(0, |(_, count)| *count);
        let count = if columns.is_keyed() { 1 } else { before + 1 };
        self.0.insert(key, (row, count));
    }

    pub fn take(&mut self, key: &[Cell]) {
        if let Some((_, count)) = self.0.get_mut(key) {
            *count -= 1;
        }
        self.0.retain(|_, (_, count)| *count > 0);
    }

    /// Changes rows, or lets them go where `change` says no, and tells how many it is about.
    pub fn each(&mut self, is: impl Fn(&Row) -> bool, change: impl Fn(&mut Row) -> bool) -> u64 {
        let mut about = 0;
        self.0.retain(|_, (row, _)| {
            let hit = is(row);
            about += u64::from(hit);
            !hit || change(row)
        });
        about
    }

    pub fn take_up(&mut self, columns: &Columns, act: &Act) {
        match act {
            Act::Truncate => self.0.clear(),
            Act::Generation(rows) => *self = rows.clone(),
            Act::Run(changes) => changes.iter().for_each(|change| self.change(columns, change)),
        }
    }

    fn change(&mut self, columns: &Columns, change: &Change) {
        match change {
            Change::Put(row) => self.put(columns, row.clone()),
            Change::Delete(row) => self.take(&columns.key_of(row)),
            // A row that the lake lacks is read from the source (S5).
            Change::Partial(row, left_out) => {
                let mut row = row.clone();
                if let Some(before) = self.get(&columns.key_of(&row)) {
                    left_out.iter().for_each(|at| row[*at] = before[*at].clone());
                }
                self.put(columns, row);
            }
        }
    }

    /// Says how rows that were read differ from these.
    pub fn equal(&self, columns: &Columns, mut found: Vec<Vec<Cell>>) -> Res<()> {
        let mut expected: Vec<_> = self.iter().map(|row| columns.cells(row)).collect();
        expected.sort();
        found.sort();
        if expected == found {
            return Ok(());
        }
        let only = |of: &[Vec<Cell>], other: &[Vec<Cell>]| {
            let rows = of.iter().filter(|row| !other.contains(row)).take(5);
            rows.map(|row| format!("\n    {row:?}")).collect::<String>()
        };
        Err(format!(
            "{} rows, not {}\n  lacks:{}\n  has instead:{}",
            found.len(),
            expected.len(),
            only(&expected, &found),
            only(&found, &expected)
        ))
    }
}

impl Change {
    pub fn row(&self) -> &Row {
        match self {
            Change::Put(row) | Change::Partial(row, _) | Change::Delete(row) => row,
        }
    }

    /// The row as the source sends it.
    pub fn sent(&self) -> Row {
        let mut row = self.row().clone();
        if let Change::Partial(_, left_out) = self {
            left_out.iter().for_each(|at| row[*at] = Value::Unchanged);
        }
        row
    }
}
