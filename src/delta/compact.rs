//! Compaction beside the stream: files are written as one, or again without their deleted rows, while
//! changes go on being merged into the table.
//!
//! It reads files as they were when it began, and needs nothing else of the table: its rows get places
//! that were kept for them, and are noted in an index apart. Rows that were deleted meanwhile are deleted
//! in the new file, too, by a deletion vector: this is for tables that are merged by such vectors. Where
//! a file is not there any more, or is another one, the new file is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward_connectors::{Result, TableSchema};

use super::deletes::Rows;
use super::index::Index;
use super::lookup::unusable;
use super::merge::{COMPACTED, DELETED_ROWS, FOLD, Merge, class};
use super::ordered::Ordered;
use super::partition::Values;
use super::rewrite::{Draft, FULL_BYTES, FULL_ROWS, Output};
use super::schema::Layout;
use super::store::Lake;
use super::table::Table;
use super::view::{DataFile, FileId};
use crate::planted::{self, Bug};

/// What a compaction is worth its while for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// So many files of a class, from [`class`](Self::class) on.
    pub files: usize,
    /// Which classes of small files.
    pub class: usize,
    /// More deleted rows than this in one file,
    pub deleted: u64,
    /// that are at least so many of a hundred.
    pub percent: u64,
}

impl Default for Worth {
    fn default() -> Self {
        Self { files: FOLD, class: COMPACTED, deleted: DELETED_ROWS, percent: 10 }
    }
}

impl Worth {
    /// Any two files, and any deleted row.
    pub const ANYTHING: Self = Self { files: 2, class: 0, deleted: 0, percent: 0 };
}

/// Files to be written as one.
#[derive(Debug)]
pub struct Compaction {
    lake: Lake,
    path: String,
    schema: Arc<TableSchema>,
    layout: Arc<Layout>,
    values: Values,
    files: Vec<DataFile>,
    /// Of the rows of the new file.
    index: Index,
}

/// Files, and the one that holds their rows.
#[derive(Debug)]
pub struct Compacted {
    sources: Vec<Source>,
    /// `None` when no row was left.
    output: Option<Output>,
    index: Index,
}

/// A file that was compacted.
#[derive(Debug)]
struct Source {
    /// As it was read.
    file: DataFile,
    /// For each row that it had left, in order, its number in the new file.
    moved: Vec<u32>,
}

impl Compaction {
    /// Writes the new file, which nothing names yet.
    ///
    /// # Errors
    /// When the store doesn't answer, or a file is gone or damaged.
    pub async fn run(self) -> Result<Compacted> {
        let Self { lake, path, schema, layout, values, files, mut index } = self;
        let mut draft = Draft::new(&lake, &path, &layout, &values);
        let read = files.iter().map(|file| (&file.add, file.deleted().iter().collect()));
        let mut rows = Ordered::open(&lake, &path, &schema, &layout, read.collect()).await?;
        let sources = files.into_iter().map(|file| Source { file, moved: Vec::new() });
        let mut sources: Vec<Source> = sources.collect();
        let mut next = 0;
        while let Some(part) = rows.next().await? {
            draft.write(&part.rows, index.next()).await?;
            for (number, source) in (0..).zip(part.sources) {
                index.push(part.keys.get(number)).map_err(unusable)?;
                sources[source].moved.push(next);
                next += 1;
            }
        }
        Ok(Compacted { sources, output: draft.finish().await?, index })
    }
}

impl Compacted {
    /// The rows of the new file that have been deleted since, where its sources are in `table` now;
    /// `None` when they are not there, or not what they were.
    fn deleted_since(&self, table: &Table) -> Option<Rows> {
        let mut deleted = Rows::new();
        for Source { file: was, moved } in &self.sources {
            let file = table.view.at(&was.add.path)?;
            let grown = file.deleted().is_superset(was.deleted());
            if !file.committed || file.rows != was.rows || !grown {
                return None;
            }
            for row in file.deleted() - was.deleted() {
                let left = usize::try_from(row - was.deleted().rank(row)).ok()?;
                deleted.insert(u64::from(*moved.get(left)?));
            }
        }
        Some(deleted)
    }
}

impl Table {
    /// What should be compacted now, if anything is worth it.
    pub fn compaction(&mut self, worth: Worth) -> Option<Compaction> {
        if self.merge != Merge::DeletionVectors || self.pending.changed || self.in_doubt() {
            return None;
        }
        let files = self.worst(worth).or_else(|| self.smallest(worth))?;
        let files: Vec<_> = files.iter().filter_map(|id| self.view.file(*id)).cloned().collect();
        let values = files.first()?.add.partition_values.clone();
        let (schema, layout) = (self.schema.clone()?, self.layout.clone()?);
        let index = self.index.as_mut()?.apart(files.iter().map(DataFile::left).sum());
        let (lake, path) = (self.lake.clone(), self.path.clone());
        Some(Compaction { lake, path, schema, layout, values, files, index })
    }

    /// The file with the largest part of deleted rows.
    fn worst(&self, worth: Worth) -> Option<Vec<FileId>> {
        let compacted = |file: &DataFile| class(file.add.size).is_none_or(|at| at >= worth.class);
        let files = self.view.files().filter(|(_, file)| compacted(file)).map(|(id, file)| {
            let deleted = file.deleted().len();
            (deleted * 100 / file.rows.max(1), deleted, id)
        });
        let worst = files
            .filter(|(percent, deleted, _)| *deleted > worth.deleted && *percent >= worth.percent)
            .max();
        worst.map(|(_, _, id)| vec![id])
    }

    /// Files of the smallest class that has too many of them. A file that is half full by its rows, few
    /// bytes as they may be, is not small.
    fn smallest(&self, worth: Worth) -> Option<Vec<FileId>> {
        let mut classes: BTreeMap<(usize, &Values), Vec<(FileId, &DataFile)>> = BTreeMap::new();
        let few = |file: &DataFile| file.left() <= FULL_ROWS / 2;
        for (id, file) in self.view.files().filter(|(_, file)| few(file)) {
            if let Some(class) = class(file.add.size).filter(|class| *class >= worth.class) {
                classes.entry((class, &file.add.partition_values)).or_default().push((id, file));
            }
        }
        let files = classes.into_values().find(|files| files.len() >= worth.files)?;
        let (mut bytes, mut rows) = (0, 0);
        let fits = |(id, file): (FileId, &DataFile)| {
            bytes += usize::try_from(file.add.size).unwrap_or(0);
            rows += file.left();
            (bytes <= FULL_BYTES && rows <= FULL_ROWS).then_some(id)
        };
        let files: Vec<FileId> = files.into_iter().map_while(fits).collect();
        (files.len() > 1).then_some(files)
    }

    /// Puts a new file in the place of those that it was made of, with the next commit. Returns how
    /// many bytes it has; 0 when they are not what they were, and it was dropped.
    ///
    /// # Errors
    /// When the outcome of a commit must be known first.
    pub async fn compacted(&mut self, made: Compacted) -> Result<u64> {
        self.settled()?;
        let output = made.output.as_ref();
        let path = output.map(|output| self.own_path(&output.written.add.path));
        let deleted = made.deleted_since(self).filter(|_| self.merge == Merge::DeletionVectors);
        let Compacted { sources, output, index } = made;
        let noted = match (&deleted, &mut self.index) {
            (Some(_), Some(own)) => own.take_in(index).map_err(unusable)?,
            _ => false,
        };
        let Some(deleted) = deleted.filter(|_| noted) else {
            self.lake.forget(path.into_iter().collect()).await;
            return Ok(0);
        };
        let mut bytes = 0;
        match output {
            Some(Output { written, segments }) if deleted.len() < written.rows => {
                bytes = written.add.size.unsigned_abs();
                let id = self.view.insert(written.add, written.rows, Rows::new(), false);
                segments.into_iter().for_each(|segment| self.view.number(id, segment));
                if !deleted.is_empty() && !planted::is(Bug::Undelete) {
                    self.view.mark(id, &deleted.iter().collect::<Vec<_>>());
                }
            }
            _ => self.lake.forget(path.into_iter().collect()).await,
        }
        for source in sources {
            self.view.remove_path(&source.file.add.path);
        }
        self.pending.changed = true;
        Ok(bytes)
    }
}
