//! One Delta table: what its log says, and what waits to be committed to it.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use lakeward_connectors::schema::Evolution;
use lakeward_connectors::{Error, Result, TableSchema};
use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::actions::Add;
use super::commit::Attempt;
use super::deletes::{self, Rows};
use super::index::Index;
use super::log;
use super::merge::Merge;
use super::protocol;
use super::read::FileReader;
use super::schema::Layout;
use super::snapshot::Snapshot;
use super::store::Lake;
use super::view::View;

/// The property of a table that holds its [`TableSchema`].
pub(crate) const SCHEMA_PROPERTY: &str = "lakeward.schema";
/// The properties that hold its [`Origin`].
pub(crate) const SOURCE_PROPERTY: &str = "lakeward.source";
pub(crate) const SHAPE_PROPERTY: &str = "lakeward.shape";
/// How many files are looked into at once when a table is opened.
const READS_AT_ONCE: usize = 8;
/// How many touched keys are remembered one by one.
const TOUCHED: usize = 1_000_000;

/// A Delta table with this writer's uncommitted changes to it.
///
/// Every method leaves the table as it was when it fails or its future is dropped, apart from
/// files in the store that nothing names; only [`commit`](Self::commit) may leave a commit
/// [in doubt](Self::in_doubt).
#[derive(Debug)]
pub struct Table {
    pub(super) lake: Lake,
    pub(super) path: String,
    /// As committed; `None` until there is a log.
    pub(super) base: Option<Snapshot>,
    pub(super) schema: Option<Arc<TableSchema>>,
    pub(super) origin: Option<Origin>,
    pub(super) layout: Option<Arc<Layout>>,
    /// The columns that the next generation is partitioned by.
    partition: Vec<String>,
    /// The files of the committed table with the uncommitted changes on top.
    pub(super) view: View,
    /// Where each row of the view is; `None` until somebody has to know.
    pub(super) index: Option<Index>,
    pub(super) pending: Pending,
    /// How changed rows are merged.
    pub(super) merge: Merge,
    /// When the log was last known to end with `base`.
    pub(super) seen: Instant,
}

/// What the rows of a table were made from, where they are not the source's as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The schema of the source's rows.
    pub source: Arc<TableSchema>,
    /// The text of the shape that they were given ([`Shape::text`](crate::shape::Shape::text)).
    pub shape: String,
}

/// What a commit would change.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Anything at all.
    pub(super) changed: bool,
    /// Schema or properties.
    pub(super) metadata: bool,
    /// All rows that are committed go, whichever they are.
    pub(super) replaced: bool,
    /// The keys of rows that went.
    pub(super) touched: Touched,
    /// The paths of files of deletion vectors that were written for it.
    pub(super) vectors: Vec<String>,
    /// A commit whose answer is missing.
    pub(super) doubt: Option<Attempt>,
}

/// A set of keys that may hold more than was put into it.
#[derive(Debug, Default)]
pub(super) struct Touched {
    keys: FxHashSet<u64>,
    all: bool,
}

impl Touched {
    pub(super) fn add(&mut self, fingerprint: u64) {
        if self.all || self.keys.len() >= TOUCHED {
            self.all = true;
            self.keys = FxHashSet::default();
        } else {
            self.keys.insert(fingerprint);
        }
    }

    pub(super) fn has(&self, fingerprint: u64) -> bool {
        self.all || self.keys.contains(&fingerprint)
    }
}

impl Table {
    /// The table at `path` of the lake; `None` when there is no log.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when it is one that can't be written to.
    pub async fn open(lake: &Lake, path: &str) -> Result<Option<Self>> {
        let mut table = Self::create(lake, path);
        table.reload().await?;
        Ok(table.base.is_some().then_some(table))
    }

    /// A table at `path` that has no log yet: the first commit begins it.
    pub fn create(lake: &Lake, path: &str) -> Self {
        Self {
            lake: lake.clone(),
            path: path.to_owned(),
            base: None,
            schema: None,
            origin: None,
            layout: None,
            partition: Vec::new(),
            view: View::default(),
            index: None,
            pending: Pending::default(),
            merge: Merge::default(),
            seen: Instant::now(),
        }
    }

    /// Its path in the lake.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The schema of its rows, with what is not committed yet; `None` for a new table and for one
    /// that somebody else made.
    pub fn schema(&self) -> Option<&Arc<TableSchema>> {
        self.schema.as_ref()
    }

    /// The committed version; `None` before the first commit.
    pub fn version(&self) -> Option<i64> {
        self.base.as_ref().map(|base| base.version)
    }

    /// How far `app_id` has committed.
    pub fn txn(&self, app_id: &str) -> Option<i64> {
        self.base.as_ref()?.txn(app_id)
    }

    /// The number of rows, with what is not committed yet.
    pub fn rows(&self) -> u64 {
        self.view.rows()
    }

    /// The number of data files, with what is not committed yet.
    pub fn files(&self) -> usize {
        self.view.len()
    }

    /// The bytes of the data files, with what is not committed yet.
    pub fn bytes(&self) -> u64 {
        self.view.bytes()
    }

    /// About how much memory the index of this table takes, in bytes.
    pub fn index_size(&self) -> usize {
        self.index.as_ref().map_or(0, Index::size)
    }

    /// Whether there is something to commit.
    pub fn has_pending(&self) -> bool {
        self.pending.changed
    }

    /// Whether nobody knows if the last commit succeeded. Then only [`commit`](Self::commit) again,
    /// with the same transactions, or [`discard`](Self::discard) are possible.
    pub fn in_doubt(&self) -> bool {
        self.pending.doubt.is_some()
    }

    /// Takes all rows away.
    pub async fn truncate(&mut self) -> Result<()> {
        self.settled()?;
        self.replace().await;
        Ok(())
    }

    /// The schema of the source's rows.
    pub fn source_schema(&self) -> Option<&Arc<TableSchema>> {
        self.origin.as_ref().map(|origin| &origin.source).or(self.schema.as_ref())
    }

    /// What the rows were made from, where they are not the source's as they are.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Notes what the rows are made from, from the next commit on.
    pub fn set_origin(&mut self, origin: Option<Origin>) {
        if self.origin != origin {
            self.origin = origin;
            self.pending.changed = true;
            self.pending.metadata = true;
        }
    }

    /// Goes over to `schema` as far as that is possible with all rows there are: columns that are
    /// new are null in older rows, columns that are gone are null in newer ones.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when a Delta table can't have the columns:
    /// above all when one has another type now.
    pub fn extend(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        self.settled()?;
        if self.schema.as_ref() == Some(schema) {
            return Ok(());
        }
        let layout = match &self.layout {
            Some(layout) => layout.extended(schema)?,
            None => self.first_layout(schema)?,
        };
        self.adopt(Arc::clone(schema), layout);
        Ok(())
    }

    /// Begins to keep a table of `schema` with the rows that are there, whoever wrote them.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when they lack a column of `schema`, or have
    /// it in another type.
    pub fn take_on(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        let layout = self.layout.as_ref().filter(|_| self.rows() > 0);
        let lacks = |name: &String| layout.is_some_and(|there| there.position(name).is_none());
        if let Some(column) = schema.columns.iter().map(|c| &c.name).find(|name| lacks(name)) {
            let message = "the lake's table lacks a column that the source's has";
            return Err(Error::table(schema.id.clone(), message).with("column", column).remedy(
                "add it there with its values, or leave it out: columns = [\"*\", \"!…\"]",
            ));
        }
        self.extend(schema)
    }

    /// Has the table partitioned by those columns, from the time on at which it begins anew.
    pub fn partition_by(&mut self, columns: Vec<String>) {
        self.partition = columns;
    }

    fn first_layout(&self, schema: &TableSchema) -> Result<Layout> {
        Layout::new(schema)?.partitioned(&self.partition).map_err(|column| {
            Error::table(schema.id.clone(), "a table can't be partitioned by that column")
                .with("column", column)
                .remedy(
                    "partition by a column of integers, dates or booleans, or by a part of a time",
                )
        })
    }

    /// Whether the files have columns that the schema has no more.
    pub fn has_dropped(&self) -> bool {
        let columns = |schema: &Arc<TableSchema>| schema.columns.len();
        let stored = self.layout.as_ref().map_or(0, |layout| layout.arrow().fields().len());
        self.schema.as_ref().is_some_and(|schema| stored > columns(schema))
    }

    /// Whether rows of `schema` can stand beside those that the table has: no column has another
    /// type, and the same columns are the key.
    pub fn takes(&self, schema: &TableSchema) -> bool {
        let fits = self.layout.as_ref().is_none_or(|layout| layout.extended(schema).is_ok());
        let key = |of: &TableSchema| -> Vec<String> {
            of.key().iter().filter_map(|at| of.columns.get(*at)).map(|c| c.name.clone()).collect()
        };
        fits && self.schema.as_deref().is_none_or(|has| key(has) == key(schema))
    }

    /// Goes over to `schema` without touching rows. Columns that are new are null in older rows;
    /// columns that are gone stay, null in newer rows.
    ///
    /// Says [`Evolution::Snapshot`], and does nothing, when that would show wrong values: then
    /// the table has to be read again, into [a new generation](Self::begin_generation).
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when a Delta table can't have the columns.
    pub fn evolve(&mut self, schema: &Arc<TableSchema>) -> Result<Evolution> {
        self.settled()?;
        if let Some(current) = &self.schema {
            let evolution = current.evolve(schema);
            if evolution != Evolution::InPlace {
                return Ok(evolution);
            }
            // A column of that name that went earlier still has its values in older files.
            let came = schema.columns.iter().filter(|c| current.column(&c.name).is_none());
            let layout = self.layout.as_ref();
            let held = came
                .filter_map(|column| layout.and_then(|layout| layout.similar(&column.name)))
                .next();
            if let Some(name) = held {
                let reason = format!("the lake still holds older values of a column {name}");
                return Ok(Evolution::Snapshot(reason));
            }
        }
        let layout = match &self.layout {
            Some(layout) => layout.extended(schema)?,
            None => self.first_layout(schema)?,
        };
        self.adopt(Arc::clone(schema), layout);
        Ok(Evolution::InPlace)
    }

    /// Starts from an empty table of `schema`: everything applied from here on makes up the table,
    /// and the next commit exchanges it for what readers see until then (S9).
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when a Delta table can't have the columns.
    pub async fn begin_generation(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        self.settled()?;
        let layout = self.first_layout(schema)?;
        self.replace().await;
        self.adopt(Arc::clone(schema), layout);
        Ok(())
    }

    /// Drops everything that is not committed, and goes back to what the log says.
    pub async fn discard(&mut self) -> Result<()> {
        let files = self.view.files().filter(|(_, file)| !file.committed);
        let files = files.map(|(_, file)| self.own_path(&file.add.path));
        let files: Vec<_> = files.chain(self.pending.vectors.iter().cloned()).collect();
        // As long as the commit that names them may still arrive, files must stay.
        let doubt = self.pending.doubt.is_some();
        self.reload().await?;
        if !doubt {
            self.lake.forget(files).await;
        }
        Ok(())
    }

    /// Reads the newest version of the log and drops everything else.
    pub(super) async fn reload(&mut self) -> Result<()> {
        let snapshot = log::load(&self.lake, &self.path).await?;
        let partition = std::mem::take(&mut self.partition);
        let mut fresh =
            Self { merge: self.merge, partition, ..Self::create(&self.lake, &self.path) };
        if let Some(snapshot) = snapshot {
            fresh.take_up(snapshot).await?;
        }
        *self = fresh;
        Ok(())
    }

    async fn take_up(&mut self, snapshot: Snapshot) -> Result<()> {
        let (protocol, metadata) = (&snapshot.protocol, &snapshot.metadata);
        protocol::check(&self.path, protocol, metadata)?;
        let partition = &metadata.partition_columns;
        let layout = Layout::parse(&self.path, &metadata.schema_string, partition)?;
        self.layout = Some(Arc::new(layout));
        let schema = metadata.property(SCHEMA_PROPERTY);
        self.schema = schema.and_then(|text| serde_json::from_str(text).ok()).map(Arc::new);
        let source = metadata.property(SOURCE_PROPERTY);
        let source = source.and_then(|text| serde_json::from_str(text).ok()).map(Arc::new);
        let shape = metadata.property(SHAPE_PROPERTY).map(str::to_owned);
        self.origin = source.zip(shape).map(|(source, shape)| Origin { source, shape });
        let rows: Vec<BoxFuture<'_, Result<(u64, Rows)>>> =
            snapshot.state.files().map(|add| self.rows_of(add).boxed()).collect();
        let rows: Vec<_> =
            futures::stream::iter(rows).buffered(READS_AT_ONCE).try_collect().await?;
        for (add, (rows, deleted)) in snapshot.state.files().zip(rows) {
            self.view.insert(add.clone(), rows, deleted, true);
        }
        self.base = Some(snapshot);
        Ok(())
    }

    /// How many rows a file has, and which of them are deleted.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when its deletion vector can't be honoured.
    pub(super) async fn rows_of(&self, add: &Add) -> Result<(u64, Rows)> {
        let rows = match add.rows() {
            Some(rows) => rows,
            None => FileReader::open(&self.lake, &self.path, add).await?.rows(),
        };
        let Some(vector) = &add.deletion_vector else {
            return Ok((rows, Rows::new()));
        };
        let deleted = deletes::read(&self.lake, &self.path, vector).await?;
        match deleted.max().is_none_or(|last| last < rows) {
            true => Ok((rows, deleted)),
            false => {
                Err(log::fault(&self.path, "a deletion vector deletes rows that a file lacks")
                    .with("file", &add.path)
                    .remedy("`lakeward snapshot` reads the table again"))
            }
        }
    }

    /// Empties the view and deletes the files that no commit has named.
    async fn replace(&mut self) {
        let ids: Vec<_> = self.view.files().map(|(id, _)| id).collect();
        let removed = ids.into_iter().filter_map(|id| self.view.remove(id));
        let own: Vec<_> = removed.filter(|file| !file.committed).collect();
        let mut own: Vec<_> = own.iter().map(|file| self.own_path(&file.add.path)).collect();
        own.append(&mut self.pending.vectors);
        self.view.forget_places();
        self.index = self.schema.as_deref().map(|schema| self.empty_index(schema));
        self.pending.changed = true;
        self.pending.replaced = true;
        self.lake.forget(own).await;
    }

    /// Makes `schema` the table's, with the columns of `layout`.
    pub(super) fn adopt(&mut self, schema: Arc<TableSchema>, layout: Layout) {
        if self.view.len() == 0 {
            self.view.forget_places();
            self.index = Some(self.empty_index(&schema));
        }
        self.schema = Some(schema);
        self.layout = Some(Arc::new(layout));
        self.pending.changed = true;
        self.pending.metadata = true;
    }

    /// The path, in the lake, of a file that this writer wrote.
    pub(super) fn own_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// # Errors
    /// When a commit is in doubt.
    pub(super) fn settled(&self) -> Result<()> {
        match self.pending.doubt {
            None => Ok(()),
            Some(_) => Err(Error::internal("the outcome of a commit must be known first")
                .with("Delta table", &self.path)),
        }
    }
}
