//! What is told of a table and of its commits.

use std::time::Duration;

use crate::delta::Table;

/// How large a table is, and what keeping it has cost since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Its rows, without what is staged.
    pub rows: u64,
    /// Its data files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// The version of its log; `None` before the first commit.
    pub version: Option<i64>,
    /// Changes that are durable and not merged yet.
    pub staged: u64,
    /// When the oldest of them was staged, milliseconds of Unix time.
    pub staged_ms: Option<i64>,
    /// Bytes of data files that were written again, for the sake of the rows in them that changed.
    pub copied: u64,
    /// Bytes of rows that came. (Both together, over this, is the write amplification.)
    pub brought: u64,
}

/// What a table's commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// The version it made.
    pub version: i64,
    /// Rows that came.
    pub came: u64,
    /// Rows that went, those among them that another took the place of.
    pub went: u64,
    /// How long the writer worked for it, at changes and commit together.
    pub took: Duration,
}

impl Size {
    /// The same of `table` as it is now.
    pub(super) fn of(self, table: &Table) -> Self {
        let (rows, files, bytes) = (table.rows(), table.files(), table.bytes());
        Self { rows, files, bytes, version: table.version(), ..self }
    }
}
