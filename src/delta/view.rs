//! The files that make up a table, and which rows are where in them: the committed ones and those
//! that wait to be committed.

use std::collections::BTreeMap;

use lakeward_connectors::{Error, Result};
use rustc_hash::FxHashMap;

use super::actions::Add;
use super::deletes::Rows;
use super::index::Loc;

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
    /// The slots whose rows it holds, in order. Empty as long as there is no index.
    slots: Vec<u32>,
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
}

/// Where the rows of a slot are.
#[derive(Debug, Clone)]
struct Slot {
    /// The file; `None` when no row is left.
    file: Option<FileId>,
    /// The row of the file at which it starts.
    first: u64,
    /// How many rows it was written with.
    rows: u32,
    /// Those that are gone, ascending.
    gone: Vec<u32>,
}

impl Slot {
    fn left(&self) -> u64 {
        u64::from(self.rows) - self.gone.len() as u64
    }

    /// Some of the rows left go: ascending numbers in the file.
    fn lose(&mut self, rows: &[u64]) {
        if rows.is_empty() {
            return;
        }
        let (mut gone, mut passed) = (Vec::with_capacity(self.gone.len() + rows.len()), 0);
        for row in rows {
            // Each row that was gone before shifts those behind it.
            let mut number = (row - self.first) as u32 + passed;
            while let Some(before) = self.gone.get(passed as usize).filter(|b| **b <= number) {
                gone.push(*before);
                passed += 1;
                number += 1;
            }
            gone.push(number);
        }
        gone.extend_from_slice(self.gone.get(passed as usize..).unwrap_or_default());
        self.gone = gone;
    }
}

/// The files of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    files: BTreeMap<FileId, DataFile>,
    by_path: FxHashMap<String, FileId>,
    next: FileId,
    slots: Vec<Slot>,
    living: usize,
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
        let file = DataFile { add, rows, deleted, marked: false, committed, slots: Vec::new() };
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

    /// Takes a file away; its rows are gone unless they are [moved](Self::attach) elsewhere.
    pub(crate) fn remove(&mut self, id: FileId) -> Option<DataFile> {
        let file = self.files.remove(&id)?;
        self.by_path.remove(&file.add.path);
        for slot in &file.slots {
            if let Some(slot) = self.slots.get_mut(*slot as usize) {
                if slot.file.take().is_some() {
                    self.living -= 1;
                }
                slot.gone = Vec::new();
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

    /// Forgets which rows are where.
    pub(crate) fn forget_slots(&mut self) {
        self.slots = Vec::new();
        self.living = 0;
        self.files.values_mut().for_each(|file| file.slots = Vec::new());
    }

    /// Whether so many slots are dead that it is time to start over.
    pub(crate) fn is_worn(&self) -> bool {
        self.slots.len() > 100_000 + 4 * self.living
    }

    /// A new slot for the last `rows` rows of a file.
    ///
    /// # Errors
    /// When there are more rows or slots than can be counted.
    pub(crate) fn open_slot(&mut self, file: FileId, rows: u64) -> Result<u32> {
        let fault = || Error::internal("a data file has more rows than can be kept track of");
        let number = u32::try_from(self.slots.len()).map_err(|_| fault())?;
        let rows = u32::try_from(rows).map_err(|_| fault())?;
        let data = self.files.get_mut(&file).ok_or_else(fault)?;
        let first = data.rows.checked_sub(u64::from(rows)).ok_or_else(fault)?;
        data.slots.push(number);
        self.slots.push(Slot { file: Some(file), first, rows, gone: Vec::new() });
        self.living += 1;
        Ok(number)
    }

    /// The file and its row that a place is now; `None` when the row is gone.
    pub(crate) fn locate(&self, loc: Loc) -> Option<(FileId, u64)> {
        let slot = self.slots.get(loc.slot as usize)?;
        let file = slot.file?;
        let before = slot.gone.binary_search(&loc.row).err()?;
        let row = slot.first + u64::from(loc.row) - before as u64;
        (!self.files.get(&file)?.deleted.contains(row)).then_some((file, row))
    }

    /// What is left of a file's slots once the rows `without` (ascending numbers in the file) are
    /// gone, to be [attached](Self::attach) to the file that its other rows are copied to.
    pub(crate) fn detach(&mut self, id: FileId, without: &[u64]) -> Vec<u32> {
        let Some(file) = self.files.get(&id) else {
            return Vec::new();
        };
        let mut left = Vec::with_capacity(file.slots.len());
        for &number in &file.slots {
            let Some(slot) = self.slots.get_mut(number as usize) else {
                continue;
            };
            let start = without.partition_point(|row| *row < slot.first);
            let end = without.partition_point(|row| *row < slot.first + slot.left());
            slot.lose(&without[start..end]);
            match slot.left() {
                0 => {
                    slot.file = None;
                    slot.gone = Vec::new();
                    self.living -= 1;
                }
                _ => left.push(number),
            }
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.slots = Vec::new();
        }
        left
    }

    /// Puts slots, in order, at row `first` of a file and behind.
    pub(crate) fn attach(&mut self, id: FileId, first: u64, slots: Vec<u32>) {
        let mut next = first;
        for &number in &slots {
            if let Some(slot) = self.slots.get_mut(number as usize) {
                slot.file = Some(id);
                slot.first = next;
                next += slot.left();
            }
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.slots.extend(slots);
        }
    }
}
