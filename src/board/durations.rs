//! How long something took, over and over: counts by upper bound, as histograms are.

use std::time::Duration;

/// Upper bounds in seconds; what took longer is counted behind the last.
pub const BOUNDS: [f64; 11] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How long something took, over and over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Durations {
    /// It took so long this time.
    pub fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[at] += 1;
        self.seconds += seconds;
    }

    /// How often each bound was the least that held it, the last for those beyond all bounds.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How often it was done.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of it took, in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_as_long_as_a_bound_is_within_it() {
        let mut took = Durations::default();
        for millis in [0, 25, 26, 60_000, 60_001] {
            took.note(Duration::from_millis(millis));
        }
        assert_eq!((took.count(), took.counts()[0], took.counts()[1]), (5, 2, 1));
        assert_eq!((took.counts()[10], took.counts()[11]), (1, 1));
        assert!((took.seconds() - 120.052).abs() < 1e-9);
    }
}
