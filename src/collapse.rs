//! A run of batches of one table → at most one row a key: the last write wins, in the order of the
//! source's commits, and values the source left out are carried forward along the row's identity, as
//! far as the source sent patches of them under those.

mod keyed;
mod multiset;
mod seen;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use lakeward_connectors::batch::{Batch, Change};
use lakeward_connectors::error::{Error, Result};
use lakeward_connectors::key::Keys;
use lakeward_connectors::schema::{Identity, TableSchema};

/// What a run of batches does to a table.
#[derive(Debug)]
pub struct Collapsed {
    /// The schema of all the batches.
    pub schema: Arc<TableSchema>,
    /// The batches that [`NewRow`] and [`From`] point into.
    pub batches: Vec<Batch>,
    /// The keys that the rest points into, each once.
    pub keys: Keys,
    /// The rows of the lake that go.
    pub removals: Vec<Removal>,
    /// The rows that come.
    pub rows: Vec<NewRow>,
}

/// Rows of the lake that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Their key ([`Collapsed::keys`]).
    pub key: u32,
    /// How many of the rows with this key go. With a key: 1, and it need not be there. Without one
    /// (the full row is the identity): that many must be there, or lake and source differ.
    pub rows: u32,
}

/// A row that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// Its key ([`Collapsed::keys`]).
    pub key: u32,
    /// Its values.
    pub from: Cell,
    /// For each column that the source left out, where its value is (ascending columns).
    pub carried: Vec<(u32, From)>,
    /// Whether the row comes only if the lake has the values that it carries: what a delete leaves
    /// (soft delete) of a row that may not be there.
    pub optional: bool,
    /// The patches of carried values, by column and then in order.
    pub patches: Vec<(u32, Cell)>,
}

/// A row of one of [`Collapsed::batches`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Index of the batch.
    pub batch: u32,
    /// The row in its columns.
    pub row: u32,
}

/// Where a value that the source left out is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// In an earlier row of the run.
    Run(Cell),
    /// In the row that the lake holds under this key ([`Collapsed::keys`]) before the run; when the
    /// lake holds none, the row must be read from the source again (S5).
    Lake(u32),
    /// Nowhere: the run itself deleted the row before (S5 again).
    Nowhere,
}

/// Collapses `batches`, all of one schema and in the order of the source's commits (E1).
///
/// With a key every key that any change touches is removed once and comes back at most once. With
/// the full row as identity, rows that the run both adds and deletes cancel out.
///
/// # Errors
/// Broken promises of the caller: no batch, batches of several schemas, a change without its row.
pub fn collapse(batches: Vec<Batch>) -> Result<Collapsed> {
    let Some(first) = batches.first() else {
        return Err(Error::internal("nothing to collapse"));
    };
    let schema = first.schema.clone();
    if !batches.iter().all(|batch| Arc::ptr_eq(&batch.schema, &schema) || batch.schema == schema) {
        return Err(
            Error::internal("batches of several schemas in one run").with("table", &schema.id)
        );
    }
    let (keys, removals, rows) = match schema.identity {
        Identity::Key(_) => keyed::run(&batches)?,
        Identity::FullRow => multiset::run(&batches)?,
        Identity::None => every_row(&batches),
    };
    Ok(Collapsed { schema, batches, keys, removals, rows })
}

/// The parts of a [`Collapsed`] that the walk produces.
type Parts = (Keys, Vec<Removal>, Vec<NewRow>);

/// Every row that any change brings, all under one key that means nothing.
fn every_row(batches: &[Batch]) -> Parts {
    let mut keys = Keys::default();
    let key = keys.push_bytes(&[]);
    let changes =
        (0..).zip(batches).flat_map(|(batch, of)| of.changes.iter().map(move |c| (batch, c)));
    let cells = changes.filter_map(|(batch, change)| Some(Cell { batch, row: change.row? }));
    let row =
        |from| NewRow { key, from, carried: Vec::new(), patches: Vec::new(), optional: false };
    (keys, Vec::new(), cells.map(row).collect())
}

/// The row that `change` brings.
fn cell_of(batch: usize, change: &Change) -> Result<Cell> {
    match change.row {
        Some(row) => Ok(Cell { batch: batch as u32, row }),
        None => Err(Error::internal("a change that brings a row has none")),
    }
}
