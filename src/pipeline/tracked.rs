//! What a pipeline knows of one of its tables.

use std::sync::Arc;

use lakeward_connectors::schema::TableSchema;
use lakeward_connectors::source::Source;

use super::Look;

/// A table that is kept, or that ought to be.
pub(super) struct Tracked<S: Source> {
    /// The schema under which its changes are decoded; what the lake holds once they are applied.
    pub(super) schema: Arc<TableSchema>,
    /// Why it is not kept.
    pub(super) stopped: Option<String>,
    /// Whether it is not kept because the source doesn't offer it (any more): it joins again when
    /// it does.
    pub(super) absent: bool,
    /// A position by which the log has said why the catalog doesn't list it any more.
    pub(super) leaves: Option<S::Position>,
    /// That it was dropped: it holds what it had then, or nothing.
    pub(super) dropped: Option<String>,
    /// Why it is read again, while it is.
    pub(super) reason: Option<String>,
    /// Whether its changes are staged until it is resumed.
    pub(super) paused: bool,
    /// What it held at the start, until the stream is past it (E5).
    pub(super) held: Option<S::Position>,
    /// The position from which on the stream shows it; set aside until the stream is there.
    pub(super) joins: Option<S::Position>,
    /// What the catalog says now, and a position by which the log would have said it too.
    pub(super) drift: Option<(Arc<TableSchema>, Look<S>)>,
}

impl<S: Source> Tracked<S> {
    /// A table of which nothing is known but its columns.
    pub(super) fn new(schema: Arc<TableSchema>) -> Self {
        Self {
            schema,
            stopped: None,
            absent: false,
            leaves: None,
            dropped: None,
            reason: None,
            paused: false,
            held: None,
            joins: None,
            drift: None,
        }
    }

    /// What there is to say of it.
    pub(super) fn why(&self) -> Option<&str> {
        let why = [&self.stopped, &self.dropped, &self.reason];
        why.into_iter().find_map(Option::as_deref)
    }

    /// Whether its changes are taken up.
    pub(super) fn is_followed(&self) -> bool {
        self.stopped.is_none() && self.dropped.is_none()
    }

    /// Whether something is to be done once the stream has come so far.
    pub(super) fn waits(&self) -> bool {
        self.joins.is_some() || self.drift.is_some() || self.leaves.is_some()
    }
}
