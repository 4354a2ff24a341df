//! How many rows the next chunk of a table may have.

use std::time::Duration;

/// What earlier chunks of a table taught about its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_per_row: f64,
    rows_per_second: f64,
}

impl Pace {
    /// Of the first chunk of a table: rows of about `bytes`, and a modest speed.
    pub(crate) fn first(bytes: f64) -> Self {
        Self { bytes_per_row: bytes.max(32.0), rows_per_second: 20_000.0 }
    }

    /// How many rows the next chunk may have: about a second, and not too many bytes.
    pub(crate) fn rows(self, bytes: f64) -> u64 {
        self.rows_per_second.min(bytes / self.bytes_per_row).clamp(100.0, 1_000_000.0) as u64
    }

    /// Half of what was known and half of what was seen; never more than four times as fast.
    pub(crate) fn learn(&mut self, rows: u64, bytes: u64, took: Duration) {
        if rows == 0 {
            return;
        }
        let seen = rows as f64 / took.as_secs_f64().max(0.001);
        self.rows_per_second = (self.rows_per_second + seen.min(self.rows_per_second * 7.0)) / 2.0;
        self.bytes_per_row = (self.bytes_per_row + bytes as f64 / rows as f64) / 2.0;
    }
}
