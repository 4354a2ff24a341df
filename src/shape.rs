//! How a table of the lake differs from the table of the source, where it was asked for: which
//! columns it has and under which names, which values are masked, which rows it holds, and what
//! becomes of updates and deletes.
//!
//! A shape is given to batches before anything is written, staged changes included, so that no file
//! ever holds what the shape leaves out. The text of a table's shape is kept with the table: another
//! one means that its rows are read again.

mod columns;
mod filter;
mod mask;
mod partition;
mod rows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward_connectors::batch::{Batch, Trace};
use lakeward_connectors::schema::TableSchema;
use lakeward_connectors::{Error, Identity, Result};
use serde_json::json;

pub use columns::ColumnFilter;
use columns::{Derived, Selected};
use filter::Compiled;
pub use filter::Filter;
pub use mask::{Mask, MaskKey};
pub use partition::{Part, PartitionBy};
pub use rows::mark_deleted;

/// What becomes of updates and deletes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The table equals the source's.
    #[default]
    Mirror,
    /// A row that is deleted stays, and says so in [`DELETED`] and [`DELETED_AT`].
    SoftDelete,
    /// Every change is a row, and no row ever changes; what it was is in [`OP`] and the columns
    /// after it.
    Append,
}

/// What becomes of columns that come while a table is followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Changes {
    /// They come to the lake's table.
    #[default]
    Follow,
    /// The lake's table goes on without them.
    IgnoreNew,
    /// Any change of columns stops the table.
    Stop,
}

impl Changes {
    /// The policy called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "follow" => Some(Self::Follow),
            "ignore-new" => Some(Self::IgnoreNew),
            "stop" => Some(Self::Stop),
            _ => None,
        }
    }
}

/// Whether the source has deleted the row (soft delete).
pub const DELETED: &str = "_deleted";
/// When it was committed that the row is deleted; null where only a comparison of whole tables
/// showed it.
pub const DELETED_AT: &str = "_deleted_at";
/// What happened: `read` (a row that a snapshot found), `insert`, `update`, `delete` or `truncate`.
pub const OP: &str = "_op";
/// The transaction, in the source's own words. Null for `read`, as are the next two.
pub const POSITION: &str = "_position";
/// The change's number among those of its transaction and table, from 0.
pub const ORDINAL: &str = "_ordinal";
/// When the transaction was committed, by the source's clock.
pub const COMMITTED_AT: &str = "_committed_at";
/// The columns that the source did not send because they did not change; they are null here.
pub const UNCHANGED: &str = "_unchanged";
/// The key before an update that changed it, as the source compares keys.
pub const OLD_KEY: &str = "_old_key";

impl Mode {
    /// The mode called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "mirror" => Some(Self::Mirror),
            "soft-delete" => Some(Self::SoftDelete),
            "append" => Some(Self::Append),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::SoftDelete => "soft-delete",
            Self::Append => "append",
        }
    }
}

/// The shape of a table, as it was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shape {
    /// What becomes of updates and deletes.
    pub mode: Mode,
    /// The columns that the table has.
    pub columns: ColumnFilter,
    /// Columns that have another name in the lake.
    pub rename: BTreeMap<String, String>,
    /// Columns whose values nobody may see.
    pub masks: BTreeMap<String, Mask>,
    /// The rows that the table has.
    pub rows: Option<Filter>,
    /// What its files are partitioned by.
    pub partition: Vec<PartitionBy>,
    /// What becomes of columns that come.
    pub changes: Changes,
    /// Whether a column that is dropped goes from the lake's files as well.
    pub removes_dropped: bool,
}

impl Shape {
    /// Whether the table is to be as the source's.
    pub fn is_plain(&self) -> bool {
        self.changes != Changes::IgnoreNew && self.is_whole()
    }

    /// Whether values of the source's `column` are masked or left out.
    pub fn hides(&self, column: &str) -> bool {
        self.masks.contains_key(column) || !self.columns.wants(column)
    }

    /// Whether any column is masked, or left out by its name.
    pub fn hides_by_name(&self) -> bool {
        !self.masks.is_empty() || self.columns.excludes()
    }

    fn is_whole(&self) -> bool {
        self.mode == Mode::Mirror
            && self.columns.is_empty()
            && self.rename.is_empty()
            && self.masks.is_empty()
            && self.rows.is_none()
            && self.partition.is_empty()
    }

    /// The names of the lake's columns that the table is partitioned by.
    pub fn partition_columns(&self) -> Vec<String> {
        self.partition.iter().map(|by| self.partition_column(by)).collect()
    }

    fn partition_column(&self, by: &PartitionBy) -> String {
        let name = self.rename.get(&by.column).unwrap_or(&by.column);
        by.part.suffix().map_or_else(|| name.clone(), |part| format!("{name}_{part}"))
    }

    /// Whether it needs to know where changes stand in the log.
    pub fn is_traced(&self) -> bool {
        self.mode != Mode::Mirror
    }

    /// A text that is another one when rows would come out otherwise; it tells no secret. Empty for
    /// a table that is as the source's.
    pub fn text(&self) -> String {
        if self.is_whole() {
            return String::new();
        }
        let masks: BTreeMap<_, _> =
            self.masks.iter().map(|(column, mask)| (column, mask.text())).collect();
        json!({
            "mode": self.mode.name(),
            "columns": self.columns.patterns(),
            "rename": self.rename,
            "mask": masks,
            "rows": self.rows.as_ref().map(Filter::text),
            "partition": self.partition.iter().map(PartitionBy::text).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Whether rows of this shape may take the place of those of another one, with the text
    /// `before`.
    ///
    /// # Errors
    /// Why not: the changes that a table lists are not in the source any more.
    pub fn replaces(&self, before: &str) -> Result<(), String> {
        let was_append = before.contains(r#""mode":"append""#);
        match was_append || self.mode == Mode::Append {
            true => Err(format!(
                "its shape was {before:?} and is {:?} now, and an append table keeps the rows that \
                 it has: give it its shape back, or move the Delta table away",
                self.text()
            )),
            false => Ok(()),
        }
    }
}

/// A [`Shape`] for rows of one schema.
#[derive(Debug, Clone)]
pub struct Shaping {
    mode: Mode,
    source: Arc<TableSchema>,
    lake: Arc<TableSchema>,
    columns: Vec<Selected>,
    derived: Vec<Derived>,
    filter: Option<Compiled>,
}

impl Shaping {
    /// What `shape` makes of a table of the schema `source`, where the lake's table may have columns
    /// already: `known`.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when the shape doesn't fit the table: every
    /// column that it names must be there, and what identifies a row must stay as it is.
    pub fn new(
        shape: &Shape,
        source: &Arc<TableSchema>,
        known: Option<&TableSchema>,
    ) -> Result<Self> {
        let known = known.filter(|_| shape.changes == Changes::IgnoreNew);
        let columns = columns::select(shape, source, known)?;
        let derived = columns::derive(shape, source)?;
        let filter = shape.rows.as_ref().map(|rows| rows.compile(source)).transpose()?;
        let keyless = source.identity == Identity::FullRow;
        let partial = columns.len() < source.columns.len()
            || columns.iter().any(|column| column.mask.is_some())
            || !derived.is_empty()
            || filter.is_some();
        let refused = match shape.mode {
            Mode::SoftDelete if keyless => Some("soft-delete"),
            Mode::Mirror if keyless && partial => Some("columns, mask, rows and parts of times"),
            _ => None,
        };
        if let Some(what) = refused {
            let message = format!(
                "the table has no key, its rows are told apart by all of their values: {what} \
                 can't be had"
            );
            return Err(Error::table(source.id.clone(), message)
                .remedy("give the table a primary key, or set mode = \"append\""));
        }
        let lake = Arc::new(columns::schema(shape.mode, source, &columns, &derived)?);
        Ok(Self { mode: shape.mode, source: Arc::clone(source), lake, columns, derived, filter })
    }

    /// The schema of the source's rows.
    pub fn source(&self) -> &Arc<TableSchema> {
        &self.source
    }

    /// The schema of the lake's rows.
    pub fn lake(&self) -> &Arc<TableSchema> {
        &self.lake
    }

    /// The first column that has to be known whole, and of which a batch has a part only.
    fn first_patched(&self, batch: &Batch) -> Option<usize> {
        let patched = (0..).zip(&batch.patched).filter(|(_, rows)| !rows.is_empty());
        patched.map(|(column, _)| column).find(|column| {
            let is_whole = self.mode != Mode::Append;
            let selected = self.columns.iter().find(|of| of.from == *column);
            let hidden = selected.is_some_and(|of| !is_whole || of.mask.is_some());
            let derived = self.derived.iter().any(|of| of.from == *column);
            hidden || derived || self.filter.as_ref().is_some_and(|filter| filter.reads(*column))
        })
    }

    /// Whether the filter keeps a row.
    fn keeps(&self, batch: &Batch, row: u32) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.keeps(batch, row))
    }

    /// Changes of the source as changes of the lake.
    ///
    /// # Errors
    /// When a batch contradicts itself, or a value can't be masked: bugs.
    pub fn apply(&self, batch: Batch) -> Result<Batch> {
        if let Some(column) = self.first_patched(&batch) {
            let name = self.source.columns.get(column).map_or("?", |column| &column.name);
            let message = format!(
                "the source sends only what changed of a value of column {name}, which is masked, \
                 filtered by or listed"
            );
            return Err(Error::table(self.source.id.clone(), message).remedy(
                "have the source send whole values (MongoDB: changeStreamPreAndPostImages; MySQL: \
                 binlog_row_value_options = ''), or leave the column out",
            ));
        }
        match self.mode {
            Mode::Append => rows::append(self, &batch),
            Mode::SoftDelete => rows::soft_delete(self, &batch),
            Mode::Mirror => rows::mirror(self, batch),
        }
    }

    /// The row of a table that lists changes which says that all rows are gone.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn truncated(&self, trace: Option<Trace>) -> Result<Batch> {
        rows::truncated(self, trace)
    }
}
