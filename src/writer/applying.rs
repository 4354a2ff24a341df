//! What steps do to a table, in their order: those that come, and those that were staged.

use std::sync::Arc;

use lakeward_connectors::batch::Batch;
use lakeward_connectors::key::key_texts;
use lakeward_connectors::schema::{Evolution, Identity, TableSchema};
use lakeward_connectors::source::KeyText;
use lakeward_connectors::{Error, Result};

use super::cadence::Cadence;
use crate::collapse::collapse;
use crate::delta::{Lake, Origin, Table};
use crate::planted::{self, Bug};
use crate::shape::{Changes, Mode, Shape, mark_deleted};
use crate::staged::{Holds, Reader, Staged};

/// So many changes of a staged file are decoded at once.
const CHANGES: usize = 16 * 1024;

/// What applying changes found.
#[derive(Default)]
pub(super) struct Found {
    /// Keys whose row must be read again (S5).
    pub(super) missing: Vec<KeyText>,
    /// Whether keys that were missing before need not be read any more: all rows are gone.
    pub(super) forgets: bool,
    /// Bytes of files that were written again, and of those that came.
    pub(super) copied: u64,
    pub(super) brought: u64,
    /// Rows that came.
    pub(super) rows: u64,
}

impl Found {
    pub(super) fn add(&mut self, later: Self) {
        if later.forgets {
            self.missing.clear();
            self.forgets = true;
        }
        self.missing.extend(later.missing);
        self.copied += later.copied;
        self.brought += later.brought;
        self.rows += later.rows;
    }
}

/// Steps being applied to a table. Rows wait until [`settle`](Self::settle), or until others come that
/// are not of their schema: those of one schema are collapsed together.
pub(super) struct Applying<'a> {
    pub(super) table: &'a mut Table,
    shape: &'a Shape,
    run: Vec<Batch>,
    size: usize,
    /// No more bytes than this are collapsed together.
    most: usize,
    found: Found,
}

impl<'a> Applying<'a> {
    pub(super) fn new(table: &'a mut Table, shape: &'a Shape, most: usize) -> Self {
        Self { table, shape, run: Vec::new(), size: 0, most, found: Found::default() }
    }

    /// Rows come, change and go.
    pub(super) async fn rows(&mut self, batch: Batch) -> Result<()> {
        let other = self.run.first().is_some_and(|first| first.schema != batch.schema);
        if other || self.size >= self.most {
            self.settle().await?;
        }
        self.size += batch.size;
        self.run.push(batch);
        Ok(())
    }

    /// All rows are gone, by a transaction that was committed at `micros` of Unix time.
    pub(super) async fn truncate(&mut self, micros: Option<i64>) -> Result<()> {
        if self.shape.mode == Mode::SoftDelete {
            self.settle().await?;
            return self.table.remake(&|rows| mark_deleted(rows, micros)).await;
        }
        self.table.truncate().await?;
        self.forget();
        Ok(())
    }

    /// Columns came or went. Says why the table has to be read again, if they can't in place.
    pub(super) async fn columns(&mut self, schema: &Arc<TableSchema>) -> Result<Option<String>> {
        self.settle().await?;
        let known = self.table.schema();
        if self.shape.changes == Changes::Stop && known.is_some_and(|known| known != schema) {
            return Err(Error::table(schema.id.clone(), "its columns changed")
                .remedy("schema_changes is \"stop\": a restart takes the table as it is"));
        }
        let removes = self.shape.removes_dropped;
        let evolution = match self.table.evolve(schema)? {
            Evolution::Convert => self.table.convert(schema, removes).await?,
            Evolution::InPlace if removes && self.table.has_dropped() => {
                self.table.convert(schema, true).await?
            }
            evolution => evolution,
        };
        match evolution {
            Evolution::Snapshot(reason) => Ok(Some(reason)),
            _ => Ok(None),
        }
    }

    /// A table begins, or its next generation.
    pub(super) async fn begin(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        begin(self.table, schema, self.shape).await?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.run.clear();
        self.size = 0;
        self.found.add(Found { forgets: true, ..Found::default() });
    }

    /// Applies the rows that wait.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.size = 0;
        let run = std::mem::take(&mut self.run);
        let Some(first) = run.first() else { return Ok(()) };
        let schema = first.schema.clone();
        let applied = self.table.apply(&collapse(run)?).await?;
        let missing = applied.missing.iter().map(|key| texts(&schema, key));
        let missing = missing.collect::<Result<_>>()?;
        let (copied, brought, rows) = (applied.copied, applied.brought, applied.rows);
        self.found.add(Found { missing, forgets: false, copied, brought, rows });
        Ok(())
    }

    pub(super) async fn end(mut self) -> Result<Found> {
        self.settle().await?;
        Ok(self.found)
    }
}

/// Begins a table, or its next generation, under `schema`.
async fn begin(table: &mut Table, schema: &Arc<TableSchema>, shape: &Shape) -> Result<()> {
    let before = table.origin().map_or("", |origin| origin.shape.as_str());
    if table.rows() > 0 && before != shape.text() {
        shape.replaces(before).map_err(|why| Error::table(schema.id.clone(), why))?;
    } else if table.rows() > 0 && shape.mode == Mode::Append {
        // What is listed stays, whatever is read again.
        return table.extend(schema);
    } else if table.rows() > 0 && shape.mode == Mode::SoftDelete && table.takes(schema) {
        // A row that isn't read again was deleted meanwhile.
        table.extend(schema)?;
        return table.remake(&|rows| mark_deleted(rows, None)).await;
    }
    table.begin_generation(schema).await?;
    if shape.is_plain() {
        table.set_origin(None);
    }
    Ok(())
}

/// What became of staged files.
pub(super) struct Merge {
    pub(super) found: Found,
    /// How many of the files are merged.
    pub(super) files: usize,
    /// Why the table has to be read again before the next one can be, if it has to.
    pub(super) again: Option<String>,
}

/// Applies staged files, in runs of bounded size.
///
/// # Errors
/// When the lake does not answer, or a file is not as it was staged.
pub(super) async fn merge(
    table: &mut Table,
    shape: &Shape,
    files: &[Staged],
    lake: &Lake,
    cadence: Cadence,
) -> Result<Merge> {
    let mut applying = Applying::new(table, shape, cadence.bytes);
    for (at, file) in files.iter().enumerate() {
        let reader = open(applying.table.schema(), file, lake).await?;
        let again = match file.holds {
            Holds::Rows => {
                for batch in reader {
                    applying.rows(batch?).await?;
                    // A merge gives way to the daemon's other work.
                    tokio::task::yield_now().await;
                }
                None
            }
            Holds::Truncate if planted::is(Bug::ForgetTruncate) => None,
            Holds::Truncate => {
                applying.truncate(reader.committed()).await?;
                None
            }
            Holds::Columns => {
                let columns = reader.columns();
                let again = applying.columns(&columns.lake).await?;
                if let (None, Some(source)) = (&again, columns.source) {
                    let origin = Origin { source, shape: shape.text() };
                    applying.table.set_origin(Some(origin));
                }
                again
            }
        };
        if again.is_some() {
            return Ok(Merge { found: applying.end().await?, files: at, again });
        }
    }
    Ok(Merge { found: applying.end().await?, files: files.len(), again: None })
}

/// A staged file of the table that has `schema`.
///
/// # Errors
/// When the lake does not answer, or the file is gone or damaged.
pub(super) async fn open(
    schema: Option<&Arc<TableSchema>>,
    file: &Staged,
    lake: &Lake,
) -> Result<Reader> {
    let Some(bytes) = lake.get(&file.path).await? else {
        let message = "changes that were staged are gone";
        let error = match schema {
            Some(schema) => Error::table(schema.id.clone(), message),
            None => Error::config(message),
        };
        return Err(error
            .with("file", &file.path)
            .remedy("the table is read again at the next start"));
    };
    Reader::open(bytes, CHANGES)
}

/// A key as the values of its columns, by which the source is asked for the row.
pub(super) fn texts(schema: &TableSchema, key: &[u8]) -> Result<KeyText> {
    if schema.identity == Identity::FullRow {
        return Err(Error::internal("a row without a key came without its values")
            .with("table", &schema.id));
    }
    key_texts(schema, key)
        .ok_or_else(|| Error::internal("a key can't be written as text").with("table", &schema.id))
}
