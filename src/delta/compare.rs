//! Comparing a table with the source's rows, both as they are at one position, for `lakeward verify`.
//!
//! Rows that the source has are looked up by the index and compared column by column. Rows that only
//! the lake has show in the end: each row of the lake has a place in the index, which it keeps when
//! its file is written again, and the places of rows that the source has are noted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use futures::TryStreamExt;
use lakeward_connectors::key::{KeyReader, Keys};
use lakeward_connectors::{Error, Result, TableSchema};
use roaring::RoaringTreemap;

use super::gather::{Carried, Gather, arrow_fault};
use super::index::Place;
use super::lookup::key_schema;
use super::read::FileReader;
use super::rewrite::Plan;
use super::schema::Layout;
use super::table::Table;
use super::view::{DataFile, FileId};
use crate::collapse::{Collapsed, Removal};

/// The rows of a table that the source has, as far as they have been compared.
#[derive(Debug)]
pub struct Seen {
    places: RoaringTreemap,
    /// Rows from this place on came after the comparison began.
    end: Place,
    /// Which index the places are of.
    index: u64,
}

/// A row of the source that is not in the lake as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its key.
    pub key: Vec<u8>,
    /// The columns whose values are others; `None` when the lake lacks the row.
    pub columns: Option<Vec<String>>,
}

/// The places of some rows of a run, file by file.
type Located = BTreeMap<FileId, Vec<(u64, usize)>>;

impl Table {
    /// Begins to compare.
    ///
    /// # Errors
    /// When the index can't be made.
    pub async fn begin_comparison(&mut self) -> Result<Seen> {
        self.ensure_index().await?;
        let index = self.index.as_ref().ok_or_else(|| Error::internal("the index is missing"))?;
        Ok(Seen { places: RoaringTreemap::new(), end: index.next(), index: index.number() })
    }

    /// Compares the rows that `run` brings with those of the same keys here, uncommitted ones
    /// included. `None` when the comparison has to begin again: the index is another one since.
    ///
    /// # Errors
    /// When a data file can't be read.
    pub async fn compare(
        &mut self,
        run: &Collapsed,
        seen: &mut Seen,
    ) -> Result<Option<Vec<Difference>>> {
        let found = self.find(&run.keys).await?;
        if !self.is_of(seen) || self.schema.as_ref() != Some(&run.schema) {
            return Ok(None);
        }
        let layout = self.known_layout()?;
        let (mut differences, mut located) = (Vec::new(), Vec::new());
        for (number, row) in run.rows.iter().enumerate() {
            let place = found.of(row.key).first();
            match place.and_then(|place| Some((*place, self.view.locate(*place)?))) {
                Some((place, (file, row))) => {
                    seen.places.insert(place);
                    located.push((file, row, number));
                }
                None => {
                    let key = run.keys.get(row.key).to_vec();
                    differences.push(Difference { key, columns: None });
                }
            }
        }
        // File by file, so that each is opened once or twice: the source's order leads through all.
        located.sort_unstable();
        for some in located.chunks(self.rows_at_once()) {
            let mut files = Located::new();
            for (file, row, number) in some {
                files.entry(*file).or_default().push((*row, *number));
            }
            self.compare_some(run, files, &layout, &mut differences).await?;
        }
        Ok(Some(differences))
    }

    async fn compare_some(
        &self,
        run: &Collapsed,
        files: Located,
        layout: &Arc<Layout>,
        differences: &mut Vec<Difference>,
    ) -> Result<()> {
        let (mut numbers, mut parts) = (Vec::new(), Vec::new());
        for (id, mut rows) in files {
            let Some(file) = self.view.file(id) else { continue };
            rows.sort_unstable();
            numbers.extend(rows.iter().map(|(_, number)| *number));
            let rows: Vec<u64> = rows.into_iter().map(|(row, _)| row).collect();
            let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
            let read: Vec<_> = reader.batches(layout.arrow(), Some(&rows))?.try_collect().await?;
            parts.extend(read);
        }
        let here = concat_batches(layout.arrow(), &parts).map_err(arrow_fault)?;
        let (plan, carried) = (Plan::default(), Carried::default());
        let gather = Gather::new(run, &plan, layout, &carried);
        let there = gather.rows(&numbers, &Default::default())?;
        if here.num_rows() != there.num_rows() {
            return Err(Error::table(run.schema.id.clone(), "a data file has lost rows")
                .remedy("`lakeward snapshot` reads the table again"));
        }
        for (at, columns) in differing(&run.schema, &here, &there) {
            let row = numbers.get(at).and_then(|number| run.rows.get(*number));
            let key = row.map(|row| run.keys.get(row.key).to_vec()).unwrap_or_default();
            differences.push(Difference { key, columns: Some(columns) });
        }
        Ok(())
    }

    /// The keys of rows that were here when the comparison began, are here still, and have not been
    /// seen in the source: `most` of them at most. `None` as in [`compare`](Self::compare).
    ///
    /// # Errors
    /// When a data file can't be read.
    pub async fn unseen(&mut self, seen: &Seen, most: usize) -> Result<Option<Vec<Vec<u8>>>> {
        self.ensure_index().await?;
        if !self.is_of(seen) {
            return Ok(None);
        }
        let schema = self.known_schema()?;
        let wanted = key_schema(&schema);
        let mut found = Vec::new();
        for (_, file) in self.view.files() {
            let mut rows = seen.lacks(file);
            rows.truncate(most - found.len());
            if rows.is_empty() {
                continue;
            }
            let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
            let mut batches = reader.batches(&wanted, Some(&rows))?;
            while let Some(batch) = batches.try_next().await? {
                let (reader, mut keys) =
                    (KeyReader::new(&schema, batch.columns().iter().collect()), Keys::default());
                for row in 0..batch.num_rows() {
                    reader.push(row, &mut keys)?;
                }
                found.extend((0..keys.len() as u32).map(|key| keys.get(key).to_vec()));
            }
        }
        Ok(Some(found))
    }

    /// Takes rows away, by their keys.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn remove_keys(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        let mut all = Keys::default();
        let removals = keys.iter().map(|key| Removal { key: all.push_bytes(key), rows: 1 });
        let removals = removals.collect();
        let (schema, batches, rows) = (self.known_schema()?, Vec::new(), Vec::new());
        self.apply(&Collapsed { schema, batches, keys: all, removals, rows }).await.map(drop)
    }

    fn is_of(&self, seen: &Seen) -> bool {
        self.index.as_ref().is_some_and(|index| index.number() == seen.index)
    }
}

impl Seen {
    /// The rows of a file that the source has not been seen to have, by their number in it.
    fn lacks(&self, file: &DataFile) -> Vec<u64> {
        let mut rows = Vec::new();
        for segment in file.segments() {
            let known = self.end.saturating_sub(segment.place).min(segment.rows);
            for offset in 0..known {
                let row = segment.first + offset;
                if !self.places.contains(segment.place + offset) && !file.deleted().contains(row) {
                    rows.push(row);
                }
            }
        }
        rows.sort_unstable();
        rows
    }
}

/// The rows whose values differ, and in which columns. Only those of the schema count: the lake keeps
/// others that the source has no more.
fn differing(
    schema: &TableSchema,
    here: &RecordBatch,
    there: &RecordBatch,
) -> BTreeMap<usize, Vec<String>> {
    let mut rows: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for column in &schema.columns {
        let (Some(here), Some(there)) =
            (here.column_by_name(&column.name), there.column_by_name(&column.name))
        else {
            continue;
        };
        if here.as_ref() == there.as_ref() {
            continue;
        }
        for row in 0..here.len() {
            if here.slice(row, 1).as_ref() != there.slice(row, 1).as_ref() {
                rows.entry(row).or_default().push(column.name.clone());
            }
        }
    }
    rows
}
