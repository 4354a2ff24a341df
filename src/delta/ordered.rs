//! The rows of several files in one order: that of their keys, as far as each file has it. Files that are
//! written so stay so as they become fewer and larger, and readers that look for a key leave most of each
//! unread.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_select::interleave::interleave;
use futures::TryStreamExt;
use lakeward_connectors::key::{KeyReader, Keys};
use lakeward_connectors::{Result, TableSchema};

use super::actions::Add;
use super::gather::arrow_fault;
use super::read::{Batches, FileReader};
use super::rewrite::{key_arrays, without};
use super::schema::Layout;
use super::store::Lake;

/// Files being read together.
pub(super) struct Ordered {
    schema: Arc<TableSchema>,
    layout: Arc<Layout>,
    sources: Vec<Source>,
}

/// A file being read.
struct Source {
    batches: Batches,
    /// Its rows that are left out, ascending.
    gone: Vec<u64>,
    /// How many of its rows were read.
    read: u64,
    /// The rows that were read last, without those that are left out, and their keys.
    rows: RecordBatch,
    keys: Keys,
    /// The next of them.
    at: usize,
    ended: bool,
}

/// Some rows, and of which file each of them is. Rows of one file keep their order.
pub(super) struct Part {
    pub(super) rows: RecordBatch,
    pub(super) sources: Vec<usize>,
    pub(super) keys: Keys,
}

impl Source {
    fn has_rows(&self) -> bool {
        self.at < self.rows.num_rows()
    }

    fn key(&self) -> &[u8] {
        self.keys.get(self.at as u32)
    }

    /// Reads on, where all rows have been taken.
    async fn refill(&mut self, schema: &TableSchema, layout: &Layout) -> Result<()> {
        while !self.has_rows() && !self.ended {
            let Some(batch) = self.batches.try_next().await? else {
                self.ended = true;
                break;
            };
            let rows = batch.num_rows() as u64;
            self.rows = without(batch, &self.gone, self.read)?;
            self.read += rows;
            self.at = 0;
            self.keys = Keys::default();
            let reader = KeyReader::new(schema, key_arrays(schema, layout, &self.rows));
            for row in 0..self.rows.num_rows() {
                reader.push(row, &mut self.keys)?;
            }
        }
        Ok(())
    }
}

impl Ordered {
    /// The rows of `files`, each without those that are gone (ascending).
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) async fn open(
        lake: &Lake,
        table: &str,
        schema: &Arc<TableSchema>,
        layout: &Arc<Layout>,
        files: Vec<(&Add, Vec<u64>)>,
    ) -> Result<Self> {
        let mut sources = Vec::with_capacity(files.len());
        for (add, gone) in files {
            let reader = FileReader::open(lake, table, add).await?;
            sources.push(Source {
                batches: reader.batches(layout.arrow(), None)?,
                gone,
                read: 0,
                rows: RecordBatch::new_empty(Arc::clone(layout.arrow())),
                keys: Keys::default(),
                at: 0,
                ended: false,
            });
        }
        Ok(Self { schema: Arc::clone(schema), layout: Arc::clone(layout), sources })
    }

    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// When a file can't be read, or holds a key that can't be one.
    pub(super) async fn next(&mut self) -> Result<Option<Part>> {
        for source in &mut self.sources {
            source.refill(&self.schema, &self.layout).await?;
        }
        let (mut picked, mut keys) = (Vec::new(), Keys::default());
        // Until the rows at hand of any file are taken: what follows them may come next.
        while let Some((least, next)) = self.two_least() {
            loop {
                let source = &mut self.sources[least];
                picked.push((least, source.at));
                keys.push_bytes(source.key());
                source.at += 1;
                if !source.has_rows() {
                    return self.part(&picked, keys).map(Some);
                }
                if next.is_some_and(|next| self.sources[next].key() < self.sources[least].key()) {
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Which file's next row has the least key, and which one's of the others. The first of equal ones.
    fn two_least(&self) -> Option<(usize, Option<usize>)> {
        let mut left = (0..self.sources.len()).filter(|at| self.sources[*at].has_rows());
        let key = |source: usize| self.sources[source].key();
        let (mut least, mut next) = (left.next()?, None);
        for source in left {
            if key(source) < key(least) {
                (least, next) = (source, Some(least));
            } else if next.is_none_or(|next| key(source) < key(next)) {
                next = Some(source);
            }
        }
        Some((least, next))
    }

    fn part(&self, picked: &[(usize, usize)], keys: Keys) -> Result<Part> {
        let sources = picked.iter().map(|(source, _)| *source).collect();
        let (first, at) = picked.first().copied().unwrap_or_default();
        if picked.iter().all(|(source, _)| *source == first) {
            let rows = self.sources[first].rows.slice(at, picked.len());
            return Ok(Part { rows, sources, keys });
        }
        let columns = (0..self.layout.arrow().fields().len()).map(|column| {
            let arrays = self.sources.iter().map(|source| source.rows.column(column).as_ref());
            interleave(&arrays.collect::<Vec<&dyn Array>>(), picked).map_err(arrow_fault)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let rows = RecordBatch::try_new(Arc::clone(self.layout.arrow()), columns);
        Ok(Part { rows: rows.map_err(arrow_fault)?, sources, keys })
    }
}
