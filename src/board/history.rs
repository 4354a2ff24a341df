//! The last minutes of a source or table, for charts and rates.

use std::collections::VecDeque;

use super::SAMPLE;

/// How many samples are kept: five minutes.
const KEPT: usize = 150;

/// Rates are those of so many samples: ten seconds.
const RATE: usize = 5;

/// What happened between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Changes that came from the log.
    pub changes: u32,
    /// Rows that were read by a snapshot.
    pub rows: u32,
    /// How far the lake was behind at the end, in milliseconds.
    pub lag_ms: u32,
}

/// The newest samples, the oldest first; those before the first thing that happened are left out,
/// so that a table which rests takes no memory.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// The counters at the last sample.
    changes: u64,
    rows: u64,
}

impl History {
    /// Takes a sample of counters that only grow, or begin anew.
    pub(super) fn push(&mut self, changes: u64, rows: u64, lag_ms: i64) {
        let sample = Sample {
            changes: grown(self.changes, changes),
            rows: grown(self.rows, rows),
            lag_ms: u32::try_from(lag_ms.max(0)).unwrap_or(u32::MAX),
        };
        (self.changes, self.rows) = (changes, rows);
        if self.samples.is_empty() && sample == Sample::default() {
            return;
        }
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        if self.samples.len() == KEPT && self.samples.iter().all(|old| *old == Sample::default()) {
            self.samples = VecDeque::new();
        }
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// Changes a second, of late.
    pub fn changes_a_second(&self) -> f64 {
        let changes = self.samples.iter().rev().take(RATE).map(|sample| u64::from(sample.changes));
        a_second(changes.sum(), RATE)
    }

    /// Rows read a second, over so many samples.
    pub fn rows_a_second(&self, samples: usize) -> f64 {
        let samples = samples.min(self.samples.len());
        let rows = self.samples.iter().rev().take(samples).map(|sample| u64::from(sample.rows));
        a_second(rows.sum(), samples)
    }

    /// Rows read a second, of late.
    pub fn rows_of_late(&self) -> f64 {
        self.rows_a_second(RATE)
    }

    /// Changes and rows together, two samples a number, of the last two minutes: the oldest first.
    pub fn spark(&self) -> Vec<u64> {
        let newest: Vec<_> = self.samples.iter().rev().take(60).collect();
        let of = |sample: &&Sample| u64::from(sample.changes) + u64::from(sample.rows);
        let mut spark: Vec<u64> = newest.chunks(2).map(|pair| pair.iter().map(of).sum()).collect();
        spark.reverse();
        spark
    }
}

fn grown(before: u64, now: u64) -> u32 {
    // A counter that is smaller than before has begun anew.
    let grown = now.checked_sub(before).unwrap_or(now);
    u32::try_from(grown).unwrap_or(u32::MAX)
}

fn a_second(sum: u64, samples: usize) -> f64 {
    sum as f64 / (samples.max(1) as f64 * SAMPLE.as_secs_f64())
}
