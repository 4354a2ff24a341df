//! The start of a source: from what the lake holds and the catalog says to what each table does.

use std::sync::Arc;
use std::time::Duration;

use lakeward_connectors::Result;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{Catalog, Established, Position};
use tracing::{info, warn};

use crate::delta::Lake;
use crate::epoch::{Member, Progress, State};
use crate::pipeline::{DroppedTables, Settings, another, now_ms};
use crate::planted::{self, Bug};
use crate::writer::{Standing, Writer};

/// The longest a start waits for the daemon that may still be writing (E9).
const LEASE_MAX: Duration = Duration::from_secs(5);

/// What becomes of the rows that a table has when it is first kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SnapshotMode {
    /// They are read.
    #[default]
    Initial,
    /// They are not: the lake's table begins without rows, and follows from then on.
    Schema,
    /// They are not read either. What the lake has of the table stays: it is the table's as of this
    /// position, written as the source writes it, or of now.
    Never(Option<String>),
}

/// What one table does at the start.
#[derive(Debug)]
pub enum Start<P> {
    /// It goes on from what it holds.
    Keep {
        /// Its schema there.
        schema: Arc<TableSchema>,
        /// What it holds.
        held: P,
        /// What its snapshot still has to read.
        progress: Progress,
        /// Whether its rows stay as they are until it is resumed.
        paused: bool,
    },
    /// Its rows are read: for the first time, or again for this reason.
    Read {
        /// Which table.
        id: TableId,
        /// Why it is read again.
        reason: Option<String>,
    },
    /// It takes over the rows that the lake has of it.
    Adopt {
        /// Its schema in the source.
        schema: Arc<TableSchema>,
        /// What they hold.
        held: P,
    },
    /// It can't go on, and is not read again by itself.
    Stay {
        /// Its schema in the source.
        schema: Arc<TableSchema>,
        /// Why.
        reason: String,
    },
    /// It was dropped: its rows are as they are to be.
    Dropped {
        /// Which table.
        id: TableId,
        /// Its last schema.
        schema: Option<Arc<TableSchema>>,
        /// What there is to say of it.
        reason: String,
        /// Whether another one of its name would be taken up.
        absent: bool,
    },
    /// The source has it no more, and what it held at the end can't be told.
    Gone {
        /// Which table.
        id: TableId,
        /// Its last schema.
        schema: Option<Arc<TableSchema>>,
        /// Whether the configuration asks for it, and this is the database that had it: an empty
        /// one in its place proves nothing.
        expected: bool,
    },
}

impl<P> Start<P> {
    /// The schema of a table that goes on.
    pub fn kept(&self) -> Option<&Arc<TableSchema>> {
        match self {
            Start::Keep { schema, .. } | Start::Adopt { schema, .. } => Some(schema),
            Start::Read { .. }
            | Start::Stay { .. }
            | Start::Dropped { .. }
            | Start::Gone { .. } => None,
        }
    }
}

/// Where every table starts.
#[derive(Debug)]
pub struct Starts<P: Position> {
    /// One for each table of the catalog or the lake.
    pub tables: Vec<Start<P>>,
    /// The least position that any table which goes on holds (E6); `None` when none does.
    pub resume: Option<P>,
    /// Transactions delivered earlier that no view was known to see (S4).
    pub unseen: Vec<P::Transaction>,
}

/// Opens the lake's side of the source. While the newest epoch is younger than a flush it waits, and
/// looks whether somebody goes on writing (E9).
///
/// # Errors
/// When the lake does not answer, or another daemon writes this source.
pub async fn open_writer<P: Position>(
    lake: &Lake,
    settings: &Settings,
) -> Result<(Writer<P>, Option<Standing<P>>)> {
    let lease = settings.flush_interval.min(LEASE_MAX);
    let newest =
        crate::epoch::Ledger::<P>::open(lake.clone(), &settings.source, settings.nonce.clone())
            .await?;
    if let Some(file) = newest.newest().filter(|file| file.nonce != settings.nonce) {
        let age = Duration::from_millis(now_ms().saturating_sub(file.written_ms).max(0) as u64);
        if let Some(rest) = lease.checked_sub(age) {
            info!(source = settings.source, wait = ?rest, "the newest epoch is young: waiting");
            tokio::time::sleep(rest).await;
            if newest.is_superseded().await? {
                return Err(newest.superseded(newest.next()));
            }
        }
    }
    let (source, nonce) = (&settings.source, settings.nonce.clone());
    Writer::open(lake.clone(), source, nonce, settings.merging.clone()).await
}

/// Why the log does not lead on from what a table holds, if it doesn't.
fn lost<P: Position>(held: &P, established: &Established<P>) -> Option<String> {
    let newest = established.newest.as_ref().filter(|_| !planted::is(Bug::KeepLost));
    if newest.is_some_and(|newest| !newest.covers(held)) {
        return Some(format!(
            "gap: the source has lost changes that the lake holds, in a fail-over or a restore: its \
             log lacks some of {held}"
        ));
    }
    (!held.covers(&established.oldest)).then(|| {
        let oldest = &established.oldest;
        format!("gap: the log no longer holds what follows {held}; it starts at {oldest}")
    })
}

impl<P: Position> Starts<P> {
    /// A table goes on from what it holds.
    fn resume_at(&mut self, held: &P) {
        self.resume = Some(match self.resume.take() {
            Some(resume) => resume.meet(held),
            None => held.clone(),
        });
    }

    /// A table that no epoch knows.
    fn first(&mut self, schema: &Arc<TableSchema>, from: Option<&str>, log: &Established<P>) {
        let id = schema.id.clone();
        let Some(from) = from else {
            self.tables.push(Start::Read { id, reason: None });
            return;
        };
        let schema = Arc::clone(schema);
        let held = P::try_from(from.to_owned()).map_err(|error| error.to_string());
        let held = held.and_then(|held| match lost(&held, log) {
            Some(reason) => Err(reason),
            None => Ok(held),
        });
        match held {
            Ok(held) => {
                self.resume_at(&held);
                self.tables.push(Start::Adopt { schema, held });
            }
            Err(reason) => self.tables.push(Start::Stay { schema, reason }),
        }
    }
}

/// Decides what each table does (E5, E6, P9). `selects`: whether the configuration asks for a table.
pub fn plan_starts<P: Position>(
    standing: Option<Standing<P>>,
    catalog: &Catalog<P>,
    established: &Established<P>,
    settings: &Settings,
    selects: &dyn Fn(&TableId) -> bool,
) -> Starts<P> {
    let modes = &settings.snapshot_modes;
    let mut starts = Starts { tables: Vec::new(), resume: None, unseen: Vec::new() };
    let from = |id: &TableId| match modes.get(id) {
        Some(SnapshotMode::Never(from)) => from.as_deref(),
        _ => None,
    };
    let Some(standing) = standing else {
        for listed in &catalog.tables {
            starts.first(&listed.schema, from(&listed.schema.id), established);
        }
        return starts;
    };
    let replaced = standing.identity != established.identity && !established.continues;
    if replaced {
        warn!(was = standing.identity, is = established.identity, "the log is another one");
    }
    starts.unseen = if replaced { Vec::new() } else { standing.unseen };
    let newest = established.newest.as_ref().filter(|_| !planted::is(Bug::KeepLost));
    if let Some(newest) = newest {
        // What was lost is never seen.
        starts.unseen.retain(|transaction| newest.contains(transaction));
    }
    let mut members = standing.members;
    for listed in &catalog.tables {
        let id = listed.schema.id.clone();
        // One whose rows are not read, and that stopped or crashed before it had begun.
        let begun = |(member, schema): &(Member<P>, Option<_>)| {
            let stopped = member.state == State::Stopped && schema.is_none();
            let crashed = !member.progress.ranges.is_empty() && !member.progress.staged;
            !modes.contains_key(&id) || !(stopped || crashed)
        };
        let Some((member, schema)) = members.remove(&id).filter(begun) else {
            starts.first(&listed.schema, from(&id), established);
            continue;
        };
        if member.state == State::Dropped && settings.dropped_tables == DroppedTables::Stop {
            let reason = another(member.reason.as_deref());
            starts.tables.push(Start::Dropped { id, schema, reason, absent: false });
            continue;
        }
        let held = member.held.unwrap_or_else(|| standing.to.clone());
        let stays = modes.contains_key(&id) && !member.progress.staged;
        let reason = match (&schema, member.state) {
            (_, State::Stopped | State::Gap) if stays => Some(member.reason.unwrap_or_default()),
            (_, State::Stopped | State::Gap) => {
                Some(format!("it was stopped: {}", member.reason.unwrap_or_default()))
            }
            (_, State::Dropped) => Some("it was dropped and made again".to_owned()),
            (None, _) => Some("gap: the lake has no such table any more".to_owned()),
            (Some(_), _) if replaced => {
                Some("gap: the database, publication or slot is another one now".to_owned())
            }
            (Some(_), _) if member.progress.staged => {
                let reason = member.reason.unwrap_or_else(|| "it was being read".to_owned());
                lost(&held, established).or(Some(reason))
            }
            (Some(_), _) => lost(&held, established),
        };
        match (schema, reason) {
            (Some(schema), None) => {
                match planted::is(Bug::ResumeAtEnd) {
                    true => starts.resume = Some(standing.to.clone()),
                    false => starts.resume_at(&held),
                }
                let (progress, paused) = (member.progress, member.state == State::Paused);
                starts.tables.push(Start::Keep { schema, held, progress, paused });
            }
            (_, Some(reason)) if stays => {
                let schema = Arc::clone(&listed.schema);
                starts.tables.push(Start::Stay { schema, reason });
            }
            (_, reason) => starts.tables.push(Start::Read { id, reason }),
        }
    }
    let refused = |id: &TableId| catalog.refused.iter().any(|(refused, _)| refused == id);
    for (id, (member, schema)) in members.into_iter().filter(|(id, _)| !refused(id)) {
        let held = member.held.unwrap_or_else(|| standing.to.clone());
        let whole = member.state.is_whole() && member.progress.is_done() && !replaced;
        let follows = whole && selects(&id) && lost(&held, established).is_none();
        let start = match (schema, member.state) {
            (schema, State::Dropped) => {
                let reason = member.reason.unwrap_or_default();
                Start::Dropped { id, schema, reason, absent: true }
            }
            // The log says what it held at the end.
            (Some(schema), state) if follows => {
                starts.resume_at(&held);
                let (progress, paused) = (member.progress, state == State::Paused);
                Start::Keep { schema, held, progress, paused }
            }
            (schema, _) => Start::Gone { expected: selects(&id) && !replaced, id, schema },
        };
        starts.tables.push(start);
    }
    starts
}
