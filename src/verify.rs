//! Verification: lake and source compared, chunk by chunk, beside the running stream.
//!
//! A chunk of the source's rows meets the stream as a snapshot's does ([`window`](crate::window)):
//! once its window closes, its rows are what the source holds at the position that the stream has
//! reached, except those touched by transactions that its view may not have seen, which are left
//! out. They go among the table's steps at just that place, and are compared with the rows that the
//! lake holds there. So a difference is one, however busy the table is (V1).
//!
//! A row that only the lake has is one that no chunk brought though it was there before the first
//! and is there after the last. It is looked for in the source once more, by its key, before it
//! counts (V2). In the same way a row that differs is read once more before it counts (V4): a source
//! whose views do not always see what they say does not raise an alarm.

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::TableId;
use lakeward_connectors::batch::Batch;
use lakeward_connectors::source::KeyText;
use serde::{Deserialize, Serialize};

pub mod saved;

/// So many differences of a table are told one by one; the others are counted.
pub const TOLD: usize = 100;

/// Why a table is not compared whose source started over meanwhile; whoever asks may ask again.
pub const INTERRUPTED: &str = "the source started over, or ended, before it was compared";

/// So many rows that only the lake has are looked for at a time; there may be more then.
pub const UNSEEN: usize = 10_000;

/// One step of a verification, in the order of a table's changes.
#[derive(Debug)]
pub enum Task {
    /// From here on rows are compared.
    Begin {
        /// Which comparison it is.
        number: u64,
    },
    /// These rows are the source's, as of this place in the order.
    Compare(Box<Batch>),
    /// The rows are asked for that only the lake seems to have.
    Unseen,
    /// What is still unseen only the lake has: it goes, if it is to be repaired.
    End {
        /// Whether it goes.
        repair: bool,
    },
}

/// What the steps of a verification found, since the flush before.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Findings {
    /// Which comparison it was.
    pub number: u64,
    /// How many rows were compared.
    pub rows: u64,
    /// Rows of the source that the lake lacks, or has with other values in these columns.
    pub different: Vec<(KeyText, Option<Vec<String>>)>,
    /// What [`Task::Unseen`] found.
    pub unseen: Option<Vec<KeyText>>,
    /// What [`Task::End`] found.
    pub extra: Option<Vec<KeyText>>,
    /// Whether the comparison has to begin again.
    pub void: bool,
}

/// What `lakeward verify` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The table, as `schema.name`; all live tables when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Whether rows that differ are read again, and rows that only the lake has are removed.
    #[serde(default)]
    pub repair: bool,
}

/// How a table was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Lake and source were equal.
    Equal,
    /// They were not.
    Different,
    /// It could not be compared; the reason says why.
    Skipped,
}

/// How a difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The source has the row, the lake doesn't.
    Missing,
    /// The lake has the row, the source doesn't.
    Extra,
    /// Both have it, with other values.
    Changed,
}

/// One difference. Values are never told, only where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How it shows.
    pub kind: Kind,
    /// The row's key, one text for each column of it.
    pub key: KeyText,
    /// The columns whose values are others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// Why a table is not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// In words that hold neither keys nor values.
    pub reason: String,
    /// What is behind it, which may hold both.
    pub cause: Option<String>,
}

impl From<&str> for Skip {
    fn from(reason: &str) -> Self {
        Self { reason: reason.to_owned(), cause: None }
    }
}

/// What verifications found, by table.
pub type Found = BTreeMap<TableId, Verified>;

/// What a verification of one table found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether lake and source were equal.
    pub outcome: Outcome,
    /// Why the table could not be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is behind the reason: it may hold a key and a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it ended, milliseconds of Unix time.
    pub at_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many of the source's rows were compared, and the bytes read for it.
    pub rows: u64,
    /// Bytes read from the source for it.
    pub bytes: u64,
    /// Rows that the lake lacked.
    pub missing: u64,
    /// Rows that only the lake had.
    pub extra: u64,
    /// Whether the lake may have more rows of its own: no more than [`UNSEEN`] are looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Rows with other values.
    pub changed: u64,
    /// Whether the differences were repaired.
    pub repaired: bool,
    /// The first [`TOLD`] differences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Told>,
}

impl Verified {
    /// A table that is not compared, and why.
    pub fn skipped(at_ms: i64, why: Skip) -> Self {
        let Skip { reason, cause } = why;
        let skipped = Self::of(Outcome::Skipped, at_ms, Duration::ZERO);
        Self { reason: Some(reason), cause, ..skipped }
    }

    /// Nothing found yet.
    pub fn of(outcome: Outcome, at_ms: i64, took: Duration) -> Self {
        Self {
            outcome,
            reason: None,
            cause: None,
            at_ms,
            took_ms: took.as_millis() as u64,
            rows: 0,
            bytes: 0,
            missing: 0,
            extra: 0,
            more: false,
            changed: 0,
            repaired: false,
            differences: Vec::new(),
        }
    }

    /// The same without what tells of single rows, their keys and values.
    #[must_use]
    pub fn in_sum(&self) -> Self {
        Self { cause: None, differences: Vec::new(), ..self.clone() }
    }

    /// How many rows differ, as far as they are known.
    pub fn differing(&self) -> u64 {
        self.missing + self.extra + self.changed
    }

    /// Counts a difference, and tells it if it is among the first.
    pub fn note(&mut self, kind: Kind, key: KeyText, columns: Vec<String>) {
        self.outcome = Outcome::Different;
        match kind {
            Kind::Missing => self.missing += 1,
            Kind::Extra => self.extra += 1,
            Kind::Changed => self.changed += 1,
        }
        if self.differences.len() < TOLD {
            self.differences.push(Told { kind, key, columns });
        }
    }
}
