//! What becomes of a table that the source has no more.
//!
//! A table is dropped at a place in the log, and what it held there is known only once the log has
//! been read up to it: a table that the catalog doesn't list any more *leaves* when the stream is
//! past that look. Then its last changes are flushed with the state
//! [`Dropped`](crate::epoch::State::Dropped), so its rows are exactly those it had at the end.

use lakeward_connectors::Result;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{Position, Sink, Source, Stream};
use tracing::info;

use super::{Pipeline, look};
use crate::buffer::Step;
use crate::epoch::State;
use crate::planted::{self, Bug};

/// What becomes of the lake's rows of a table that the source has no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DroppedTables {
    /// They stay. When there is another table of that name, its rows take their place.
    #[default]
    Keep,
    /// They go, in a commit as any other.
    Follow,
    /// They stay, and another table of that name is taken up only when somebody asks for it.
    Stop,
}

impl DroppedTables {
    /// As it is written in the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "keep" => Some(Self::Keep),
            "follow" => Some(Self::Follow),
            "stop" => Some(Self::Stop),
            _ => None,
        }
    }

    /// What people are told of a table in this state.
    pub fn shown(self, state: State) -> State {
        match state {
            State::Dropped if self == Self::Stop => State::Stopped,
            state => state,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Keep => {
                "it was dropped or renamed in the source; its rows stay as they were then"
            }
            Self::Follow => "it was dropped or renamed in the source, and its rows went with it",
            Self::Stop => {
                "it was dropped or renamed in the source, and dropped_tables is \"stop\"; its rows \
                 stay as they were then"
            }
        }
    }
}

/// Why a table that was dropped is not taken up when there is another of its name.
const ANOTHER: &str = "it was dropped, another table has its name, and dropped_tables is \"stop\"; \
                       `lakeward snapshot` takes that one up";
/// The same where its last changes could not be followed.
const ANOTHER_SOONER: &str = "it was dropped, another table has its name, and dropped_tables is \
                              \"stop\"; its rows are those of its last commit here; `lakeward \
                              snapshot` takes the other one up";

/// What is said before there is another one.
const SOONER: &str = "it was dropped or renamed in the source, and dropped_tables is \"stop\"; its \
                      rows are those of its last commit here";

/// Whether a table of which this is said was followed to its end: its rows are those that it had
/// then.
pub fn was_followed(reason: &str) -> bool {
    ![SOONER, ANOTHER_SOONER].contains(&reason)
}

/// Why a table that was dropped is not taken up, as there is another of its name now; `before` is
/// what was said of it until now.
pub(crate) fn another(before: Option<&str>) -> String {
    match before.is_none_or(was_followed) {
        true => ANOTHER.to_owned(),
        false => ANOTHER_SOONER.to_owned(),
    }
}

const HIDDEN: &str = "it is not in the source any more, or this user may not see it; its rows stay \
                      as they are";

impl<S: Source> Pipeline<S> {
    /// The catalog doesn't list a table that is kept, and the log will have said why at `high`.
    pub(super) fn miss(&mut self, table: &TableId, high: &S::Position) {
        if self.snapshots.progress(table).is_some() {
            self.stop_gone(table, S::FINDS_ALL);
        } else if let Some(tracked) = self.tables.get_mut(table) {
            tracked.leaves.get_or_insert_with(|| high.clone());
        }
    }

    /// Lets tables go that the stream is past; that ends a pause.
    pub(super) fn settle_leaving(&mut self) {
        if !self.changes.at_boundary() {
            return;
        }
        let position = self.changes.position();
        let due = self.tables.iter().filter(|(_, tracked)| {
            let past = |leaves| position.covers(leaves) || planted::is(Bug::LeaveAtOnce);
            tracked.leaves.as_ref().is_some_and(past)
        });
        for id in due.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            match (self.refused.get(&id).cloned(), S::FINDS_ALL) {
                (Some(reason), _) => self.stop_absent(&id, reason),
                (None, true) => self.leave(&id),
                // The log would have said that it was dropped.
                (None, false) => self.stop_absent(&id, HIDDEN.to_owned()),
            }
        }
    }

    /// The log says that the table was dropped at this place.
    pub(super) async fn dropped(&mut self, table: &TableId, shows_next: bool) -> Result<()> {
        let Some(tracked) = self.tables.get(table) else { return Ok(()) };
        let schema = tracked.schema.clone();
        let (catalog, look) = look(&mut self.source).await?;
        let next = catalog.tables.iter().find(|listed| listed.schema.id == *table);
        match next.filter(|_| self.settings.dropped_tables != DroppedTables::Stop) {
            Some(_) if shows_next => {
                self.changes.truncate(table);
                self.stream.set_table(schema);
            }
            Some(next) => {
                let reason = "it was dropped or exchanged, and another table has its name";
                self.read_again(next.schema.clone(), &look, reason.to_owned());
            }
            None if self.snapshots.progress(table).is_some() => self.stop_gone(table, true),
            None => self.leave(table),
        }
        Ok(())
    }

    /// The table ends here, with the rows that it has.
    pub(super) fn leave(&mut self, table: &TableId) {
        self.interrupt_verification(table, "it was dropped while it was compared");
        if self.settings.dropped_tables == DroppedTables::Follow {
            match self.changes.at_boundary() {
                false => self.changes.truncate(table),
                true => {
                    let serial = self.changes.next_serial();
                    self.changes.push(table, Step::Truncate { serial, trace: None });
                }
            }
        }
        self.stream.remove_table(table);
        self.note_dropped(table);
    }

    fn note_dropped(&mut self, table: &TableId) {
        let Some(tracked) = self.tables.get_mut(table) else { return };
        let reason = self.settings.dropped_tables.reason();
        info!(%table, "{reason}");
        tracked.dropped = Some(reason.to_owned());
        tracked.absent = true;
        (tracked.stopped, tracked.reason) = (None, None);
        (tracked.leaves, tracked.joins, tracked.drift) = (None, None, None);
        tracked.paused = false;
        self.dirty = true;
    }

    /// The table is gone, and what it held at the end can't be told; `proved`: it is known to be
    /// gone, and not only hidden.
    pub(super) fn stop_gone(&mut self, table: &TableId, proved: bool) {
        let reason = match proved {
            true => {
                "it was dropped or renamed while its rows were being read, or its changes could \
                 not be followed; its rows stay as they are"
            }
            false => HIDDEN,
        };
        self.stop_absent(table, reason.to_owned());
        if proved {
            self.end_stopped(table);
        }
    }

    /// A table that has stopped is known to be gone.
    pub(super) fn end_stopped(&mut self, table: &TableId) {
        match self.settings.dropped_tables {
            DroppedTables::Keep => {}
            DroppedTables::Follow => self.empty(table),
            DroppedTables::Stop => self.stay_sooner(table, SOONER),
        }
    }

    /// The table stops until the source has it again.
    pub(super) fn stop_absent(&mut self, table: &TableId, reason: String) {
        self.stop_table(table, reason);
        if let Some(tracked) = self.tables.get_mut(table) {
            tracked.absent = true;
            tracked.leaves = None;
        }
    }

    /// A table that is gone, and of whose rows nothing is known, gets a generation without rows.
    fn empty(&mut self, table: &TableId) {
        let Some(tracked) = self.tables.get(table) else { return };
        let schema = tracked.schema.clone();
        self.changes.restart(table);
        self.changes.push_ahead(table, Step::Generation(schema));
        self.note_dropped(table);
    }

    /// Whether another table than the one that is followed has this name, and nobody has asked for
    /// it.
    pub(super) fn is_replaced(&self, next: &TableSchema) -> bool {
        let known = self.tables.get(&next.id);
        // One that is being read has no rows yet that anybody wants to keep.
        let whole = self.snapshots.progress(&next.id).is_none();
        self.settings.dropped_tables == DroppedTables::Stop
            && whole
            && known.is_some_and(|known| known.schema.is_another(next))
    }

    /// It has been replaced, and its last changes can't be followed.
    pub(super) fn stop_replaced(&mut self, table: &TableId) {
        self.stop_table(table, ANOTHER_SOONER.to_owned());
        self.stay_sooner(table, ANOTHER_SOONER);
        if let Some(tracked) = self.tables.get_mut(table) {
            tracked.absent = false;
        }
    }

    /// A table that has stopped stays as it is, whatever comes.
    fn stay_sooner(&mut self, table: &TableId, reason: &str) {
        self.note_dropped(table);
        if let Some(tracked) = self.tables.get_mut(table) {
            tracked.dropped = Some(reason.to_owned());
        }
    }

    /// Another table has the name of one that was dropped, and nobody has asked for it.
    pub(super) fn stay_dropped(&mut self, table: &TableId) {
        let Some(tracked) = self.tables.get_mut(table) else { return };
        tracked.dropped = Some(another(tracked.dropped.as_deref()));
        tracked.absent = false;
        self.dirty = true;
    }
}
