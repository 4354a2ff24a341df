//! An index as it is saved: its runs, and which rows of which data files have which places.
//!
//! What is saved is true for as long as the files that it names exist, since data files never
//! change and places are never given twice: whoever opens it takes over the files that the table
//! still has, reads the keys of those that it has in addition, and lets go of the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cache::{Damaged, Shelf};
use super::run::Run;
use super::{Index, Place};
use crate::delta::actions::DeletionVector;

/// The object that says what is saved.
const NAME: &str = "index.json";
/// The version of the form of what is saved.
const VERSION: u32 = 1;

/// What is saved beside the runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    /// Which table it is, and what its keys are made of.
    table: String,
    runs: Vec<String>,
    next: Place,
    /// By path.
    pub(crate) files: BTreeMap<String, SavedFile>,
}

/// A data file whose rows the index knew when it was saved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    /// All of its rows.
    pub(crate) rows: u64,
    /// The rows of which no more than this was deleted: those of others may be unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted: Option<DeletionVector>,
    /// Their places.
    pub(crate) segments: Vec<Segment>,
}

/// Consecutive rows of a file with consecutive places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// The first row's number in the file.
    pub(crate) first: u64,
    /// The first row's place.
    pub(crate) place: Place,
    /// How many rows.
    pub(crate) rows: u64,
}

impl Index {
    /// The index that was saved of `table`, with the files that it knew; an empty one when there is
    /// none that can be used.
    pub(crate) fn open(
        shelf: Shelf,
        unique: bool,
        table: &str,
    ) -> (Self, BTreeMap<String, SavedFile>) {
        match load(&shelf, table) {
            Ok(Some((saved, runs))) => {
                let settled = runs.len();
                let index = Self { runs, settled, next: saved.next, ..Self::new(shelf, unique) };
                index.tidy();
                (index, saved.files)
            }
            Ok(None) => (Self::new(shelf, unique), BTreeMap::new()),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "an index is made again from the lake");
                (Self::new(shelf, unique), BTreeMap::new())
            }
        }
    }

    /// Saves the index with the places of a table's committed `files`.
    ///
    /// # Errors
    /// When it can't be written; what was saved before stays.
    pub(crate) fn save(
        &mut self,
        table: &str,
        files: BTreeMap<String, SavedFile>,
    ) -> Result<(), Damaged> {
        self.spill()?;
        let runs = self.runs.iter().filter_map(|run| run.file().map(str::to_owned)).collect();
        let saved =
            Saved { version: VERSION, table: table.to_owned(), runs, next: self.next, files };
        let bytes = serde_json::to_vec(&saved).map_err(|_| Damaged::Content)?;
        let sum = crc32fast::hash(&bytes);
        self.shelf.replace(NAME, [&sum.to_le_bytes()[..], &bytes].concat())?;
        self.unsaved = 0;
        self.tidy();
        Ok(())
    }

    /// Deletes runs that are not part of this index.
    fn tidy(&self) {
        let names: BTreeSet<&str> = self.runs.iter().filter_map(Run::file).chain([NAME]).collect();
        self.shelf.retain(&names);
    }
}

fn load(shelf: &Shelf, table: &str) -> Result<Option<(Saved, Vec<Run>)>, Damaged> {
    let Some(blob) = shelf.open(NAME)? else { return Ok(None) };
    let bytes = blob.bytes()?;
    let (sum, body) = bytes.split_at_checked(4).ok_or(Damaged::Content)?;
    if sum != crc32fast::hash(body).to_le_bytes() {
        return Err(Damaged::Content);
    }
    let saved: Saved = serde_json::from_slice(body).map_err(|_| Damaged::Content)?;
    if saved.version != VERSION || saved.table != table {
        return Ok(None);
    }
    let mut runs = Vec::with_capacity(saved.runs.len());
    for name in &saved.runs {
        runs.push(Run::open(shelf.open(name)?.ok_or(Damaged::Content)?)?);
    }
    Ok(Some((saved, runs)))
}
