//! When a table is merged, and which table is a slow one.

use std::time::Duration;

use super::applying::Found;
use crate::delta::Worth;

/// An average goes by about so many merges: a single one that folds small files, as every table needs
/// now and then, makes no table slow.
const MERGES: u32 = 4;

/// When tables are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// A table whose merges take longer is slow, if they copy [`amplified`](Self::amplified) times
    /// the bytes that they bring.
    pub slow: Duration,
    /// See [`slow`](Self::slow).
    pub amplified: u64,
    /// How many bytes of changes are merged at once.
    pub bytes: usize,
    /// What files are compacted for, beside the stream.
    pub worth: Worth,
}

impl Default for Cadence {
    fn default() -> Self {
        Self {
            slow: Duration::from_secs(1),
            amplified: 4,
            bytes: 64 << 20,
            worth: Worth::default(),
        }
    }
}

impl Cadence {
    /// One by which every merge counts as slow, and anything is worth a compaction.
    pub fn every_change(bytes: usize) -> Self {
        Self { slow: Duration::ZERO, amplified: 0, bytes, worth: Worth::ANYTHING }
    }
}

/// What the merges of a table have taken of late, on the average.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort {
    took: Duration,
    copied: u64,
    brought: u64,
}

impl Effort {
    /// Counts one more merge in.
    pub(super) fn add(&mut self, found: &Found, took: Duration) {
        let bytes = |mean: u64, new: u64| {
            let merges = u64::from(MERGES);
            (mean / merges).saturating_mul(merges - 1).saturating_add(new / merges)
        };
        self.took = self.took * (MERGES - 1) / MERGES + took / MERGES;
        self.copied = bytes(self.copied, found.copied);
        self.brought = bytes(self.brought, found.brought);
    }

    /// Whether that makes the table a slow one.
    pub(super) fn is_slow(self, cadence: Cadence) -> bool {
        self.took >= cadence.slow && self.copied >= cadence.amplified.saturating_mul(self.brought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(effort: &mut Effort, took: u64, copied: u64) -> bool {
        let found = Found { copied, brought: 1000, ..Found::default() };
        effort.add(&found, Duration::from_millis(took));
        effort.is_slow(Cadence::default())
    }

    #[test]
    fn one_merge_that_folds_small_files_makes_no_table_slow() {
        let mut effort = Effort::default();
        for number in 0..200 {
            let folds = number % 8 == 7;
            let (took, copied) = if folds { (3000, 1_000_000) } else { (50, 0) };
            assert!(!merge(&mut effort, took, copied), "merge {number}");
        }
    }

    #[test]
    fn merges_that_are_all_slow_do() {
        let mut effort = Effort::default();
        assert!(merge(&mut effort, 20_000, 1_000_000), "a large table, from the first on");
        let mut effort = Effort::default();
        let slow = (0..8).position(|_| merge(&mut effort, 1500, 1_000_000));
        assert_eq!(slow, Some(3));
        assert!(!(0..8).all(|_| merge(&mut effort, 100, 1_000_000)), "it can end");
    }
}
