//! The index of a table: opened from the state directory, brought up to date from the key columns
//! of data files, asked, and saved.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use lakeward_connectors::key::{KeyReader, Keys, key_columns};
use lakeward_connectors::{Error, Identity, Result, TableSchema};

use super::actions::Add;
use super::deletes::{self, Rows};
use super::index::{Damaged, Found, Index, SavedFile, Segment};
use super::read::FileReader;
use super::store::Lake;
use super::table::Table;
use super::view::{DataFile, FileId};
use crate::planted::{self, Bug};

/// From this part of all rows on, rows that the index lacks are checked for double keys all at
/// once, by merging the whole index.
const MANY: u64 = 8;

impl Table {
    /// An index without a row, for rows of `schema`.
    pub(super) fn empty_index(&self, schema: &TableSchema) -> Index {
        let shelf = self.lake.cache().table(&self.path);
        match schema.identity {
            Identity::None => Index::blank(shelf),
            _ => Index::new(shelf, has_key(schema)),
        }
    }

    /// Makes sure that the index knows every row of the view.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when two rows have one key.
    pub(super) async fn ensure_index(&mut self) -> Result<()> {
        if self.index.is_some() {
            return Ok(());
        }
        let schema = self.known_schema()?;
        if schema.identity == Identity::None {
            self.view.forget_places();
            self.index = Some(self.empty_index(&schema));
            return Ok(());
        }
        let shelf = self.lake.cache().table(&self.path);
        let (index, known) = Index::open(shelf, has_key(&schema), &self.index_name(&schema));
        let index = match self.fill(index, &known, &schema).await? {
            Ok(index) => index,
            Err(damaged) => {
                // Whatever is wrong with what was saved, the lake has it all (P1).
                self.lose_index(&damaged);
                let empty = self.empty_index(&schema);
                self.fill(empty, &BTreeMap::new(), &schema).await?.map_err(unusable)?
            }
        };
        self.index = Some(index);
        Ok(())
    }

    /// Adds the rows of all files of the view to an index that knows those of `known`.
    async fn fill(
        &mut self,
        mut index: Index,
        known: &BTreeMap<String, SavedFile>,
        schema: &Arc<TableSchema>,
    ) -> Result<Result<Index, Damaged>> {
        self.view.forget_places();
        let mut missing = Vec::new();
        let files: Vec<_> = self.view.files().map(|(id, file)| (id, file.clone())).collect();
        for (id, file) in files {
            match known.get(&file.add.path) {
                Some(saved) if self.is_covered(saved, &file).await => {
                    saved.segments.iter().for_each(|segment| self.view.number(id, *segment));
                }
                None if planted::is(Bug::StaleIndex) && !known.is_empty() => {}
                _ => missing.push((id, file)),
            }
        }
        let added = self.add_files(&mut index, missing, schema).await?;
        Ok(added.map(|()| index))
    }

    /// Adds the rows of files to an index that lacks them.
    async fn add_files(
        &mut self,
        index: &mut Index,
        files: Vec<(FileId, DataFile)>,
        schema: &Arc<TableSchema>,
    ) -> Result<Result<(), Damaged>> {
        let rows: u64 = files.iter().map(|(_, file)| file.rows).sum();
        let many = rows >= (self.view.rows() / MANY).max(1);
        for (id, file) in files {
            let DataFile { add, rows, .. } = &file;
            let (mut next, start) = (0, index.next());
            self.view.number(id, Segment { first: 0, place: start, rows: *rows });
            let mut keys = FileKeys::open(&self.lake, &self.path, add, schema, *rows).await?;
            while let Some(found) = keys.next().await? {
                if !many {
                    match self.holds_any(index, &found, file.deleted()) {
                        Ok(false) => {}
                        Ok(true) => return Err(duplicate(schema, &add.path)),
                        Err(damaged) => return Ok(Err(damaged)),
                    }
                }
                for (row, key) in found.without(file.deleted()) {
                    index.skip(row - next);
                    if let Err(damaged) = index.push(key) {
                        return Ok(Err(damaged));
                    }
                    next = row + 1;
                }
            }
            index.skip(*rows - next);
        }
        // Runs are merged for good here: what the view doesn't have was of files that are gone, or
        // of rows that the view, which has all that is committed, says are deleted.
        if !many || rows == 0 {
            return Ok(Ok(()));
        }
        match index.join(|place| self.view.locate(place).is_some()) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Err(duplicate(schema, "one of several")),
            Err(damaged) => Ok(Err(damaged)),
        }
    }

    /// Whether `index` holds any of those rows, or they hold a key twice.
    fn holds_any(
        &self,
        index: &mut Index,
        found: &FoundKeys,
        deleted: &Rows,
    ) -> Result<bool, Damaged> {
        if !index.is_unique() {
            return Ok(false);
        }
        let (keys, twice) = found.distinct(deleted);
        let places = index.find(&keys, |place| self.view.locate(place).is_some())?;
        Ok(twice || (0..keys.len() as u32).any(|key| !places.of(key).is_empty()))
    }

    /// Whether what was saved of a file tells the places of all rows that the file has now.
    async fn is_covered(&self, saved: &SavedFile, file: &DataFile) -> bool {
        if saved.rows != file.rows {
            return false;
        }
        // A row that was deleted then, and isn't now, is one that the index may not know.
        match &saved.deleted {
            None => true,
            same if *same == file.add.deletion_vector => true,
            Some(vector) => match deletes::read(&self.lake, &self.path, vector).await {
                Ok(deleted) => deleted.is_subset(file.deleted()),
                Err(_) => false,
            },
        }
    }

    /// Finds the rows that have one of `keys`. An index that turns out to be damaged is made again.
    ///
    /// # Errors
    /// As [`ensure_index`](Self::ensure_index).
    pub(super) async fn find(&mut self, keys: &Keys) -> Result<Found> {
        for _ in 0..2 {
            self.ensure_index().await?;
            let Some(index) = &mut self.index else { break };
            match index.find(keys, |place| self.view.locate(place).is_some()) {
                Ok(found) => return Ok(found),
                Err(damaged) => self.lose_index(&damaged),
            }
        }
        Err(Error::unavailable("the index of a table can't be read")
            .with("Delta table", &self.path)
            .remedy("see to the disk of lake.state_dir"))
    }

    /// Lets go of an index that is of no use, and of what is saved of it.
    pub(super) fn lose_index(&mut self, damaged: &Damaged) {
        tracing::warn!(table = self.path, error = damaged.to_string(), "an index is made again");
        self.index = None;
        self.view.forget_places();
        self.lake.cache().table(&self.path).forget();
    }

    /// Merges and saves the index after a commit, as far as it is worth it.
    pub(super) fn settle_index(&mut self) {
        let Some(index) = &mut self.index else { return };
        match index.settle(|place| self.view.locate(place).is_some()) {
            Ok(false) => {}
            Ok(true) => self.save_index(),
            Err(damaged) => self.lose_index(&damaged),
        }
    }

    /// Saves the index, so that the next start need not read what it knows. Does nothing while
    /// there are changes that are not committed.
    pub fn save_index(&mut self) {
        if self.has_pending() || self.in_doubt() || self.base.is_none() {
            return;
        }
        let Some(schema) = self.schema.clone() else { return };
        let (name, mut files) = (self.index_name(&schema), BTreeMap::new());
        for (_, file) in self.view.files() {
            let segments = file.segments().to_vec();
            let deleted = file.add.deletion_vector.clone();
            files.insert(file.add.path.clone(), SavedFile { rows: file.rows, deleted, segments });
        }
        if let Some(index) = &mut self.index
            && let Err(damaged) = index.save(&name, files)
        {
            tracing::warn!(
                table = self.path,
                error = damaged.to_string(),
                "an index was not saved"
            );
        }
    }

    /// Moves what the index has in memory to the state directory.
    pub fn spill_index(&mut self) {
        if let Some(index) = &mut self.index
            && let Err(damaged) = index.spill()
        {
            tracing::warn!(
                table = self.path,
                error = damaged.to_string(),
                "an index stays in memory"
            );
        }
    }

    /// What an index must be of to be this table's.
    fn index_name(&self, schema: &TableSchema) -> String {
        let keys = key_columns(schema).into_iter().filter_map(|at| schema.columns.get(at));
        let keys: Vec<_> = keys.map(|column| (&column.name, &column.kind)).collect();
        let table = self.base.as_ref().map_or("", |base| &base.metadata.id);
        format!("{table} {:?} {keys:?}", has_key(schema))
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

/// An index that can't go on; whoever sees it tries again without what was saved.
pub(super) fn unusable(damaged: Damaged) -> Error {
    Error::unavailable("the index of a table can't be kept")
        .caused_by(damaged)
        .remedy("it is made again from the lake; see to the disk of lake.state_dir if this stays")
}

/// Two rows of one key in the lake.
pub(super) fn duplicate(schema: &TableSchema, file: &str) -> Error {
    Error::table(schema.id.clone(), "the lake holds two rows with the same key")
        .with("file", file)
        .remedy("another writer has added rows; `lakeward snapshot` reads the table again")
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
pub(super) struct FoundKeys {
    first: u64,
    keys: Keys,
}

impl FoundKeys {
    /// Each key with the row of the file it belongs to, unless the row is one of `deleted`.
    pub(super) fn without(&self, deleted: &Rows) -> impl Iterator<Item = (u64, &[u8])> {
        let keys = (0..self.keys.len() as u32).map(|number| self.keys.get(number));
        (self.first..).zip(keys).filter(|(row, _)| !deleted.contains(*row))
    }

    /// Each of those keys once; and whether one was there twice.
    pub(super) fn distinct(&self, deleted: &Rows) -> (Keys, bool) {
        let (mut keys, mut seen) = (Keys::default(), rustc_hash::FxHashSet::default());
        let mut twice = false;
        for (_, key) in self.without(deleted) {
            match seen.insert(key) {
                true => drop(keys.push_bytes(key)),
                false => twice = true,
            }
        }
        (keys, twice)
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
    pub(super) async fn next(&mut self) -> Result<Option<FoundKeys>> {
        let Some(batch) = self.batches.try_next().await? else {
            return match self.next == self.rows {
                true => Ok(None),
                false => Err(self.fault("the log states another number of rows than a file has")),
            };
        };
        let first = self.next;
        self.next += batch.num_rows() as u64;
        let reader = KeyReader::new(&self.schema, batch.columns().iter().collect());
        let mut keys = Keys::default();
        for row in 0..batch.num_rows() {
            reader.push(row, &mut keys).map_err(|cause| {
                self.fault("the lake holds a key that can't be one").caused_by(cause)
            })?;
        }
        Ok(Some(FoundKeys { first, keys }))
    }

    fn fault(&self, message: &str) -> Error {
        Error::table(self.schema.id.clone(), message)
            .with("file", &self.path)
            .remedy("`lakeward snapshot` reads the table again")
    }
}

/// The columns that a key is made of.
pub(super) fn key_schema(schema: &TableSchema) -> SchemaRef {
    let columns = key_columns(schema).into_iter().filter_map(|at| schema.columns.get(at));
    let fields = columns.map(|column| Field::new(&column.name, column.kind.arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Whether rows of a table are told apart by a key.
pub(super) fn has_key(schema: &TableSchema) -> bool {
    matches!(schema.identity, Identity::Key(_))
}
