//! What a pipeline tells the board: about once a second, and nothing that costs it anything.

use lakeward_connectors::schema::TableId;
use lakeward_connectors::source::{Established, Position, Source, Stream};
use tokio::time::{Duration, Instant};

use super::{Pipeline, Tracked, now_ms};
use crate::board::{Memory, Sight, TableSight};
use crate::epoch::State;

/// The log's end as of a look counts as not reached only after so long: what was just written takes
/// a moment to arrive.
const ARRIVES: Duration = Duration::from_secs(3);

/// Where the log ended when the catalog was looked at, and how it is kept.
#[derive(Debug)]
pub(super) struct Newest<P> {
    /// At the last look.
    end: P,
    /// At the look that has to be reached next, and when that was.
    awaited: P,
    looked: Instant,
    looked_ms: i64,
    /// Everything that was committed up to then has been read, milliseconds of Unix time.
    complete_ms: i64,
    /// What the server keeps because of us, and where its log begins, as far as it says.
    retained: Option<u64>,
    begins: Option<P>,
}

impl<P: Position> Newest<P> {
    /// A look now has seen the log end there, and how it is kept.
    pub(super) fn new(end: P, established: &Established<P>) -> Self {
        let (looked, looked_ms) = (Instant::now(), now_ms());
        let (retained, begins) = (established.retained, established.begins.clone());
        Self { awaited: end.clone(), end, looked, looked_ms, complete_ms: 0, retained, begins }
    }

    /// Another look at how the log is kept.
    pub(super) fn kept(&mut self, established: &Established<P>) {
        self.retained = established.retained;
        self.begins.clone_from(&established.begins);
    }

    /// Another look. One before that has not been reached yet still has to be.
    pub(super) fn looked(&mut self, end: &P) {
        self.end.clone_from(end);
        if self.complete_ms >= self.looked_ms {
            self.awaited.clone_from(end);
            (self.looked, self.looked_ms) = (Instant::now(), now_ms());
        }
    }

    /// How far reading is behind the log, in milliseconds; 0 where nothing is known to be left. The
    /// last commit that was read was made at `committed_micros`.
    fn unread(&mut self, read: &P, committed_micros: i64) -> i64 {
        if read.covers(&self.awaited) {
            self.complete_ms = self.complete_ms.max(self.looked_ms);
            return 0;
        }
        let known = self.complete_ms.max(committed_micros / 1_000);
        match self.looked.elapsed() > ARRIVES && known > 0 {
            true => (now_ms() - known).max(0),
            false => 0,
        }
    }

    /// How many bytes of the log are not durable, where positions tell.
    fn left(&self, read: &P, durable: &P) -> Option<u64> {
        let end = if read.covers(&self.end) { read } else { &self.end };
        end.bytes_since(durable)
    }

    /// By how many seconds what is durable is younger than the beginning of the log.
    fn window(&self, durable: &P) -> Option<u64> {
        durable.seconds_since(self.begins.as_ref()?)
    }
}

impl<S: Source> Pipeline<S> {
    /// Puts up what is seen now.
    pub(super) fn tell(&mut self) {
        let read = self.changes.position().clone();
        if !read.covers(&self.newest.end) {
            // An idle source says where it is when it is asked.
            self.stream.nudge();
        }
        let unread = self.newest.unread(&read, self.changes.committed_micros);
        let now = now_ms();
        let (mut behind, mut tables) = (unread, Vec::new());
        for (id, tracked) in &self.tables {
            let (changes, oldest) = self.changes.tally(id);
            let waits = oldest.map_or(0, |micros| (now - micros / 1_000).max(0)).max(unread);
            let state = self.state(id, tracked);
            if !matches!(state, State::Stopped | State::Dropped) {
                behind = behind.max(waits);
            }
            tables.push(TableSight {
                id,
                state,
                reason: tracked.why(),
                changes,
                lag_ms: (state == State::Live).then_some(waits),
                reading: self.snapshots.reading(id),
                rows_read: self.snapshots.rows_read(id),
            });
        }
        let refused = self.refused.iter().filter(|(id, _)| !self.tables.contains_key(id));
        tables.extend(refused.map(|(id, reason)| TableSight {
            id,
            state: State::Stopped,
            reason: Some(reason),
            changes: 0,
            lag_ms: None,
            reading: None,
            rows_read: 0,
        }));
        let sight = Sight {
            read: read.to_string(),
            changes: self.changes.count,
            memory: Memory {
                changes: self.changes.size(),
                writing: self.in_writer,
                snapshots: self.snapshots.size() + self.verifying.reading.size(),
                tables: self.writer_size,
                budget: self.settings.memory.bytes(),
            },
            lag_ms: behind,
            lag_bytes: self.newest.left(&read, &self.durable),
            log_retained: self.newest.retained,
            log_window_s: self.newest.window(&self.durable),
        };
        self.meter.saw(sight, tables.into_iter());
    }

    fn state(&self, id: &TableId, tracked: &Tracked<S>) -> State {
        // A table is read again for several reasons; only one that lost its place says `gap`.
        let gap = tracked.reason.as_ref().is_some_and(|reason| reason.starts_with("gap:"));
        match (&tracked.stopped, self.snapshots.reading(id)) {
            (Some(_), _) => State::Stopped,
            (None, Some(_)) if gap => State::Gap,
            (None, Some(_)) => State::Snapshot,
            (None, None) if tracked.dropped.is_some() => {
                self.settings.dropped_tables.shown(State::Dropped)
            }
            (None, None) if tracked.paused => State::Paused,
            (None, None) => State::Live,
        }
    }
}
