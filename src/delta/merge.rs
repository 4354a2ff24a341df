//! How a table takes up changed rows: what becomes of the files that hold the old ones.

use std::collections::BTreeMap;

use lakeward_connectors::Result;

use super::deletes::VectorFile;
use super::partition::Values;
use super::rewrite::Plan;
use super::stats;
use super::table::Table;
use super::view::{DataFile, FileId};

/// A file below this size is small: it is worth rewriting together with others. Small files are of
/// one of several classes, each of files up to [`FOLD`] times as large as the one before, so that
/// a row is rewritten once a class on its way into a large file (a size-tiered merge).
const SMALL: i64 = 16 << 20;
/// So many files of a class are one too many.
pub(super) const FOLD: usize = 8;
/// The number of classes.
const CLASSES: usize = 4;
/// In tables that are merged by deletion vectors, files of this class and above are not rewritten within
/// a merge, which nobody should wait for, but [beside it](super::compact).
pub(super) const COMPACTED: usize = 3;
/// A file is rewritten without its deleted rows when there are more than so many of them, and they
/// are more than so many of a hundred.
pub(super) const DELETED_ROWS: u64 = 4096;
const DELETED_PERCENT: u64 = 30;

/// The property that tells other engines to delete by vectors, too.
const ENABLED: &str = "delta.enableDeletionVectors";
/// The property by which this writer knows that it has set [`ENABLED`].
const MODE: &str = "lakeward.merge";

/// How a table takes up changes of rows that it holds. Both ways lead to the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Merge {
    /// Files that hold a changed row are written again without it. Any reader reads the table.
    #[default]
    Rewrite,
    /// Changed rows are marked in a deletion vector beside their file, at a cost that doesn't
    /// depend on how large the table is. Readers must know the feature `deletionVectors`
    /// (protocol: reader 3, writer 7).
    DeletionVectors,
}

impl Merge {
    /// The mode by its name in the configuration: `rewrite` or `deletion-vectors`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "rewrite" => Some(Self::Rewrite),
            "deletion-vectors" => Some(Self::DeletionVectors),
            _ => None,
        }
    }

    /// Puts the mode into a table's properties. What another engine has enabled is left alone:
    /// only what this mode itself turned on is turned off.
    pub(super) fn declare(self, configuration: &mut BTreeMap<String, Option<String>>) {
        match self {
            Self::Rewrite => {
                if configuration.remove(MODE).is_some() {
                    configuration.insert(ENABLED.to_owned(), Some("false".to_owned()));
                }
            }
            Self::DeletionVectors => {
                configuration.insert(ENABLED.to_owned(), Some("true".to_owned()));
                configuration.insert(MODE.to_owned(), Some("deletion-vectors".to_owned()));
            }
        }
    }
}

/// The files to rewrite.
#[derive(Default)]
pub(super) struct Choice {
    /// Those that share a new file with the new rows.
    pub(super) together: Vec<FileId>,
    /// Those that get a new file each.
    pub(super) alone: Vec<FileId>,
}

/// The class of a small file of `size` bytes; `None` when it is a large one.
pub(super) fn class(size: i64) -> Option<usize> {
    let limit = |class: usize| SMALL / (FOLD as i64).pow((CLASSES - 1 - class) as u32);
    (0..CLASSES).find(|class| size < limit(*class))
}

impl Table {
    /// Goes over to another way of merging, from the next change on. The next commit says so in the
    /// log.
    ///
    /// To [`Merge::DeletionVectors`] it raises the table's protocol. That is not taken back on the
    /// way back to [`Merge::Rewrite`]: deletion vectors that exist stay valid, and vanish one by
    /// one as their files are rewritten.
    pub fn set_merge(&mut self, merge: Merge) {
        self.merge = merge;
    }

    /// Decides which files are rewritten. Other files that lose rows lose all of them or, when
    /// merging by deletion vectors, are marked.
    pub(super) fn choose(&self, plan: &Plan) -> Choice {
        let (mut choice, mut left) = (Choice::default(), Vec::new());
        for (id, file) in self.view.files() {
            let doomed = plan.doomed.get(&id).map_or(0, Vec::len) as u64;
            if doomed == file.left() {
                continue;
            }
            let touched = doomed > 0 && self.is_rewritten(file, doomed);
            match class(file.add.size) {
                None | Some(COMPACTED..) if self.merge == Merge::DeletionVectors => {}
                None if touched => choice.alone.push(id),
                None => {}
                Some(_) if touched => choice.together.push(id),
                Some(class) => left.push((id, class, &file.add.partition_values)),
            }
        }
        // The smaller ones go along with a class that is full.
        let mut counts: BTreeMap<&Values, [usize; CLASSES]> = BTreeMap::new();
        left.iter().for_each(|(_, class, of)| counts.entry(of).or_default()[*class] += 1);
        for (id, class, of) in left {
            let counts = counts.get(of).into_iter().flatten();
            let full = counts.zip(0..).filter(|(count, _)| **count >= FOLD).map(|(_, at)| at).max();
            if full.is_some_and(|full| class <= full) {
                choice.together.push(id);
            }
        }
        choice.together.sort_unstable();
        choice
    }

    /// Whether a file that loses `doomed` rows is rewritten for that reason.
    fn is_rewritten(&self, file: &DataFile, doomed: u64) -> bool {
        let deleted = file.deleted().len() + doomed;
        match self.merge {
            Merge::Rewrite => true,
            Merge::DeletionVectors => {
                deleted > DELETED_ROWS && deleted * 100 > file.rows * DELETED_PERCENT
            }
        }
    }

    /// Writes the deletion vectors of all files that lost rows, as one file, and puts them into the
    /// files' entries. Nothing names them before the commit.
    ///
    /// # Errors
    /// When the store doesn't answer. Called again, it starts over.
    pub(super) async fn write_vectors(&mut self) -> Result<()> {
        let mut file = VectorFile::new();
        let vectors = self.view.marked().map(|marked| file.push(marked.deleted()));
        let vectors = vectors.collect::<Result<Vec<_>>>()?;
        if vectors.is_empty() {
            return Ok(());
        }
        let path = self.own_path(&file.name());
        self.pending.vectors.push(path.clone());
        self.lake.put(&path, file.into_bytes()).await?;
        for (marked, vector) in self.view.marked().zip(vectors) {
            marked.add.deletion_vector = Some(vector);
            marked.add.stats = Some(stats::loosened(marked.add.stats.as_deref(), marked.rows));
            marked.add.data_change = true;
        }
        self.view.marked().for_each(|marked| marked.marked = false);
        Ok(())
    }
}
