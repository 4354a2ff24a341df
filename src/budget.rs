//! Memory that may be taken: a source's share of `lake.memory`, which changes when sources come and
//! go while the daemon runs (P7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that somebody else may change. Clones are one budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// How many bytes it is now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes it, for everybody who has it.
    pub fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl From<usize> for Budget {
    fn from(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }
}
