//! The start of a source: from what the lake holds and the catalog says to what each table does.

use std::sync::Arc;
use std::time::Duration;

use lakeward_connectors::Result;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{Catalog, Established, Position};
use tracing::{info, warn};

use crate::delta::Lake;
use crate::epoch::{Progress, State};
use crate::pipeline::{Settings, now_ms};
use crate::planted::{self, Bug};
use crate::writer::{Standing, Writer};

/// The longest a start waits for the daemon that may still be writing (E9).
const LEASE_MAX: Duration = Duration::from_secs(5);

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
    /// The source has it no more.
    Gone {
        /// Which table.
        id: TableId,
        /// Its last schema.
        schema: Option<Arc<TableSchema>>,
    },
}

impl<P> Start<P> {
    /// The schema of a table that goes on.
    pub fn kept(&self) -> Option<&Arc<TableSchema>> {
        match self {
            Start::Keep { schema, .. } => Some(schema),
            _ => None,
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

/// Decides what each table does (E5, E6, P9).
pub fn plan_starts<P: Position>(
    standing: Option<Standing<P>>,
    catalog: &Catalog<P>,
    established: &Established<P>,
) -> Starts<P> {
    let mut starts = Starts { tables: Vec::new(), resume: None, unseen: Vec::new() };
    let Some(standing) = standing else {
        let new = catalog.tables.iter().map(|listed| &listed.schema.id);
        starts.tables.extend(new.map(|id| Start::Read { id: id.clone(), reason: None }));
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
        let Some((member, schema)) = members.remove(&id) else {
            starts.tables.push(Start::Read { id, reason: None });
            continue;
        };
        let held = member.held.unwrap_or_else(|| standing.to.clone());
        let reason = match (&schema, member.state) {
            (_, State::Stopped | State::Gap) => {
                Some(format!("it was stopped: {}", member.reason.unwrap_or_default()))
            }
            (None, _) => Some("gap: the lake has no such table any more".to_owned()),
            (Some(_), _) if replaced => {
                Some("gap: the database, publication or slot is another one now".to_owned())
            }
            (Some(_), _) if newest.is_some_and(|newest| !newest.covers(&held)) => Some(format!(
                "gap: the source has lost changes that the lake holds, in a fail-over or a restore: \
                 its log lacks some of {held}"
            )),
            (Some(_), _) if !held.covers(&established.oldest) => Some(format!(
                "gap: the log no longer holds what follows {held}; it starts at {}",
                established.oldest
            )),
            (Some(_), _) if member.progress.staged => {
                Some(member.reason.unwrap_or_else(|| "it was being read".to_owned()))
            }
            _ => None,
        };
        match (schema, reason) {
            (Some(schema), None) => {
                starts.resume = Some(match starts.resume.take() {
                    _ if planted::is(Bug::ResumeAtEnd) => standing.to.clone(),
                    Some(resume) => resume.meet(&held),
                    None => held.clone(),
                });
                let (progress, paused) = (member.progress, member.state == State::Paused);
                starts.tables.push(Start::Keep { schema, held, progress, paused });
            }
            (_, reason) => starts.tables.push(Start::Read { id, reason }),
        }
    }
    let refused = |id: &TableId| catalog.refused.iter().any(|(refused, _)| refused == id);
    for (id, (_, schema)) in members.into_iter().filter(|(id, _)| !refused(id)) {
        starts.tables.push(Start::Gone { id, schema });
    }
    starts
}
