//! Filling the index from the key columns of data files.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use lakeward_connectors::key::{KeyReader, key_columns};
use lakeward_connectors::{Error, Identity, Result, TableSchema};

use super::actions::Add;
use super::deletes::Rows;
use super::index::{Index, Loc};
use super::read::FileReader;
use super::store::Lake;
use super::table::Table;
use super::view::DataFile;

impl Table {
    /// Makes sure that the index knows every row of the view.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when two rows have one key.
    pub(super) async fn ensure_index(&mut self) -> Result<()> {
        if self.view.is_worn() {
            self.index = None;
        }
        if self.index.is_some() {
            return Ok(());
        }
        let schema = self.known_schema()?;
        let mut index = Index::new(&schema);
        self.view.forget_slots();
        let files: Vec<_> = self.view.files().map(|(id, file)| (id, file.clone())).collect();
        for (id, file) in files {
            let DataFile { add, rows, .. } = &file;
            let slot = self.view.open_slot(id, *rows)?;
            let mut keys = FileKeys::open(&self.lake, &self.path, add, &schema, *rows).await?;
            while let Some(found) = keys.next().await? {
                for (row, key) in found.without(file.deleted()) {
                    if index.is_unique() && !index.get(key).is_empty() {
                        return Err(duplicate(&schema, &add.path));
                    }
                    index.put(key, Loc { slot, row });
                }
            }
        }
        self.index = Some(index);
        Ok(())
    }

    /// The table's schema.
    ///
    /// # Errors
    /// When it has none yet: a bug of the caller.
    pub(super) fn known_schema(&self) -> Result<Arc<TableSchema>> {
        self.schema.clone().ok_or_else(|| {
            Error::internal("the table has no schema yet").with("Delta table", &self.path)
        })
    }
}

/// Two rows of one key in the lake.
pub(super) fn duplicate(schema: &TableSchema, file: &str) -> Error {
    Error::table(schema.id.clone(), "the lake holds two rows with the same key")
        .with("file", file)
        .remedy("another writer has added rows; take a new snapshot of the table")
}

/// The keys of a data file, some at a time.
pub(super) struct FileKeys {
    batches: super::read::Batches,
    schema: Arc<TableSchema>,
    path: String,
    next: u64,
    rows: u64,
}

/// Keys of consecutive rows.
pub(super) struct Found {
    first: u32,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Found {
    /// Each key with the row of the file it belongs to, unless the row is one of `deleted`.
    pub(super) fn without(&self, deleted: &Rows) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let keys = starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]);
        (self.first..).zip(keys).filter(|(row, _)| !deleted.contains(u64::from(*row)))
    }
}

impl FileKeys {
    /// The keys of a file that has so many rows.
    pub(super) async fn open(
        lake: &Lake,
        table: &str,
        add: &Add,
        schema: &Arc<TableSchema>,
        rows: u64,
    ) -> Result<Self> {
        let wanted = key_schema(schema);
        let batches = FileReader::open(lake, table, add).await?.batches(&wanted, None)?;
        let path = add.path.clone();
        Ok(Self { batches, schema: Arc::clone(schema), path, next: 0, rows })
    }

    /// Some more keys; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Found>> {
        let Some(batch) = self.batches.try_next().await? else {
            return match self.next == self.rows {
                true => Ok(None),
                false => Err(self.fault("the log states another number of rows than a file has")),
            };
        };
        let first = u32::try_from(self.next).map_err(|_| self.fault("a file is too long"))?;
        self.next += batch.num_rows() as u64;
        let reader = KeyReader::new(&self.schema, batch.columns().iter().collect());
        let mut found = Found { first, bytes: Vec::new(), ends: Vec::new() };
        for row in 0..batch.num_rows() {
            reader.encode(row, &mut found.bytes).map_err(|cause| {
                self.fault("the lake holds a key that can't be one").caused_by(cause)
            })?;
            found.ends.push(found.bytes.len());
        }
        Ok(Some(found))
    }

    fn fault(&self, message: &str) -> Error {
        Error::table(self.schema.id.clone(), message)
            .with("file", &self.path)
            .remedy("take a new snapshot of the table")
    }
}

/// The columns that a key is made of.
fn key_schema(schema: &TableSchema) -> SchemaRef {
    let columns = key_columns(schema).into_iter().filter_map(|at| schema.columns.get(at));
    let fields = columns.map(|column| Field::new(&column.name, column.kind.arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl Index {
    /// Whether a key has at most one row.
    pub(super) fn is_unique(&self) -> bool {
        !matches!(self, Self::Rows(..))
    }
}

/// Whether rows of a table are told apart by a key.
pub(super) fn has_key(schema: &TableSchema) -> bool {
    matches!(schema.identity, Identity::Key(_))
}
