//! The files that make up a table, and which rows are where in them: the committed ones and those
//! that wait to be committed.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::actions::Add;
use super::deletes::Rows;
use super::files::Written;
use super::index::{Place, Segment};

/// The number of a file within a view, in the order in which files came.
pub(crate) type FileId = u32;

/// A data file of the table.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// Its entry in the log.
    pub(crate) add: Add,
    /// The number of rows in it, deleted ones included.
    pub(crate) rows: u64,
    /// Its deleted rows.
    deleted: Rows,
    /// Whether more rows are deleted than the entry's deletion vector says.
    pub(crate) marked: bool,
    /// Whether the log has it.
    pub(crate) committed: bool,
    /// The places of its rows. Empty as long as there is no index.
    segments: Vec<Segment>,
}

impl DataFile {
    /// The number of rows that are left.
    pub(crate) fn left(&self) -> u64 {
        self.rows - self.deleted.len()
    }

    /// The rows that are deleted, by their number in the file.
    pub(crate) fn deleted(&self) -> &Rows {
        &self.deleted
    }

    /// The places of its rows, as far as they have any.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// The files of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    files: BTreeMap<FileId, DataFile>,
    by_path: FxHashMap<String, FileId>,
    next: FileId,
    /// By the first place of each segment.
    places: BTreeMap<Place, (FileId, Segment)>,
}

impl View {
    /// The files, in the order in which they came.
    pub(crate) fn files(&self) -> impl Iterator<Item = (FileId, &DataFile)> {
        self.files.iter().map(|(id, file)| (*id, file))
    }

    /// A file.
    pub(crate) fn file(&self, id: FileId) -> Option<&DataFile> {
        self.files.get(&id)
    }

    /// The file of that path.
    pub(crate) fn at(&self, path: &str) -> Option<&DataFile> {
        self.files.get(self.by_path.get(path)?)
    }

    /// The number of files.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The number of rows that are not deleted.
    pub(crate) fn rows(&self) -> u64 {
        self.files.values().map(DataFile::left).sum()
    }

    /// The bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|file| u64::try_from(file.add.size).unwrap_or(0)).sum()
    }

    /// Adds a file of so many rows, of which `deleted` are gone.
    pub(crate) fn insert(&mut self, add: Add, rows: u64, deleted: Rows, committed: bool) -> FileId {
        let id = self.next;
        self.next += 1;
        self.by_path.insert(add.path.clone(), id);
        let file = DataFile { add, rows, deleted, marked: false, committed, segments: Vec::new() };
        self.files.insert(id, file);
        id
    }

    /// Deletes rows of a file, by their number in it, and leaves the file as it is.
    pub(crate) fn mark(&mut self, id: FileId, rows: &[u64]) {
        if let Some(file) = self.files.get_mut(&id) {
            file.deleted.extend(rows.iter().copied());
            file.marked = true;
        }
    }

    /// The files that have been [marked](Self::mark) and whose vectors have not been written.
    pub(crate) fn marked(&mut self) -> impl Iterator<Item = &mut DataFile> {
        self.files.values_mut().filter(|file| file.marked)
    }

    /// Adds a file that is made of the one numbered `old`, whose rows keep their places.
    pub(crate) fn replace(&mut self, old: FileId, written: Written, segments: Vec<Segment>) {
        let id = self.insert(written.add, written.rows, Rows::new(), false);
        // Places are held by their first row: the old file's may begin elsewhere.
        if let Some(file) = self.files.get(&old) {
            for segment in &file.segments {
                if self.places.get(&segment.place).is_some_and(|(owner, _)| *owner == old) {
                    self.places.remove(&segment.place);
                }
            }
        }
        segments.into_iter().for_each(|segment| self.number(id, segment));
    }

    /// Takes a file away, and the places of its rows with it.
    pub(crate) fn remove(&mut self, id: FileId) -> Option<DataFile> {
        let file = self.files.remove(&id)?;
        self.by_path.remove(&file.add.path);
        for segment in &file.segments {
            // Rows that were copied keep their places, and belong to another file by now.
            if self.places.get(&segment.place).is_some_and(|(owner, _)| *owner == id) {
                self.places.remove(&segment.place);
            }
        }
        Some(file)
    }

    /// Takes away the file of that path, if there is one.
    pub(crate) fn remove_path(&mut self, path: &str) -> Option<DataFile> {
        self.remove(*self.by_path.get(path)?)
    }

    /// Notes that everything so far is in the log.
    pub(crate) fn committed(&mut self) {
        self.files.values_mut().for_each(|file| file.committed = true);
    }

    /// Forgets all places.
    pub(crate) fn forget_places(&mut self) {
        self.places.clear();
        self.files.values_mut().for_each(|file| file.segments.clear());
    }

    /// Notes the places of some rows of a file.
    pub(crate) fn number(&mut self, id: FileId, segment: Segment) {
        if let Some(file) = self.files.get_mut(&id).filter(|_| segment.rows > 0) {
            file.segments.push(segment);
            self.places.insert(segment.place, (id, segment));
        }
    }

    /// The file and its row that has a place; `None` when the row is gone.
    pub(crate) fn locate(&self, place: Place) -> Option<(FileId, u64)> {
        let (_, (id, segment)) = self.places.range(..=place).next_back()?;
        let row = place - segment.place;
        let row = (row < segment.rows).then_some(segment.first + row)?;
        (!self.files.get(id)?.deleted.contains(row)).then_some((*id, row))
    }
}
