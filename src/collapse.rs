//! A run of batches of one table → at most one row a key: the last write wins, in the order of the
//! source's commits, and values the source left out are carried forward along the row's identity.

use std::sync::Arc;

use lakeward_connectors::batch::Batch;
use lakeward_connectors::key::Keys;
use lakeward_connectors::schema::TableSchema;

/// What a run of batches does to a table.
#[derive(Debug)]
pub struct Collapsed {
    /// The schema of all the batches.
    pub schema: Arc<TableSchema>,
    /// The batches that [`NewRow`] and [`From`] point into.
    pub batches: Vec<Batch>,
    /// The keys that the rest points into.
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
