//! A table as its log describes it at one version.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::actions::{
    Action, Add, DeletionVector, DomainMetadata, Metadata, Protocol, Remove, Txn,
};
use super::{ENGINE, checkpoint::file_retention};

/// A table at one version of its log.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The version.
    pub(crate) version: i64,
    /// What readers and writers must be able to do.
    pub(crate) protocol: Protocol,
    /// Schema and properties.
    pub(crate) metadata: Metadata,
    /// The rest, which commits only add to and take from.
    pub(crate) state: State,
}

/// What tells a logical file from every other: its path and, if rows of it are deleted, the
/// [identity](DeletionVector::unique_id) of the vector that says so ("Action Reconciliation").
pub(crate) type Logical = (String, Option<String>);

/// A file that was part of the table for no longer than this part of the retention leaves no
/// tombstone.
const BRIEF: i64 = 100;

/// Everything that actions accumulate into.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The newest protocol action.
    pub(crate) protocol: Option<Protocol>,
    /// The newest metadata action.
    pub(crate) metadata: Option<Metadata>,
    /// How far each application has written.
    pub(crate) txns: BTreeMap<String, Txn>,
    /// Metadata of features, by domain.
    pub(crate) domains: BTreeMap<String, DomainMetadata>,
    /// Removed files that older versions may still be read with, but for those that were there
    /// [only briefly](brief).
    pub(crate) tombstones: BTreeMap<Logical, Remove>,
    files: BTreeMap<u64, Active>,
    places: FxHashMap<String, u64>,
    next: u64,
    /// How long removed files are kept where the table doesn't say.
    retention: Duration,
}

/// A file of the table.
#[derive(Debug, Clone)]
struct Active {
    add: Add,
    /// When it was added, in milliseconds since 1970; only where this writer did that, whose
    /// vectors are written right before they are committed.
    since: Option<i64>,
}

/// For how long a file may have been part of a table, in milliseconds, to leave no tombstone when
/// it goes. A tombstone keeps a file from being deleted (by VACUUM) for the retention after it was
/// removed, and so does the file's age, for the retention after it was written. Where both are
/// nearly the same a tombstone is of no use, and of tables that change all the time there would be
/// millions, in memory and in every checkpoint.
pub(crate) fn brief(metadata: &Metadata, retention: Duration) -> i64 {
    file_retention(metadata, retention) / BRIEF
}

impl State {
    /// Nothing yet, of a lake that keeps removed files so long where a table doesn't say.
    pub(crate) fn new(retention: Duration) -> Self {
        Self { retention, ..Self::default() }
    }

    /// Takes up the actions of one commit (or of a checkpoint).
    pub(crate) fn apply(&mut self, mut actions: Vec<Action>) {
        let since = own_time(&actions);
        // A file may be removed and added again in one commit (with another deletion vector); the
        // order of the lines means nothing.
        let mut gone = Vec::new();
        for remove in actions.iter_mut().filter_map(|action| action.remove.take()) {
            // What is active may be the same file with a newer vector: a checkpoint in parts tells
            // of both in any order.
            let same = self.file(&remove.path).is_some_and(|add| is_same(add, &remove));
            let active = if same { self.take(&remove.path) } else { None };
            gone.push((remove, active));
        }
        for action in actions {
            let Action { protocol, meta_data, txn, add, domain_metadata, .. } = action;
            if let Some(add) = add {
                self.put(Active { add, since });
            }
            if let Some(txn) = txn {
                self.txns.insert(txn.app_id.clone(), txn);
            }
            match domain_metadata {
                Some(domain) if domain.removed => drop(self.domains.remove(&domain.domain)),
                Some(domain) => drop(self.domains.insert(domain.domain.clone(), domain)),
                None => {}
            }
            self.protocol = protocol.or(self.protocol.take());
            self.metadata = meta_data.or(self.metadata.take());
        }
        for (remove, active) in gone {
            let came_back = self.file(&remove.path).is_some_and(|add| is_same(add, &remove));
            if !came_back && !active.is_some_and(|active| self.was_brief(&active, &remove)) {
                let vector = remove.deletion_vector.as_ref().map(DeletionVector::unique_id);
                self.tombstones.insert((remove.path.clone(), vector), remove);
            }
        }
    }

    /// Whether nothing of a file that was removed needs a tombstone: its data is still part of the
    /// table or was [briefly](brief), and so was its vector.
    fn was_brief(&self, active: &Active, remove: &Remove) -> bool {
        let longest = self.metadata.as_ref().map_or(0, |of| brief(of, self.retention));
        let is_young = |since: i64| {
            let end = remove.deletion_timestamp.unwrap_or(i64::MAX);
            (0..longest).contains(&end.saturating_sub(since))
        };
        let vector = remove.deletion_vector.is_none() || active.since.is_some_and(is_young);
        let data = self.places.contains_key(&remove.path) || is_young(active.add.modification_time);
        vector && data
    }

    /// Puts null where a file's partition has no value, which a checkpoint is read without.
    pub(crate) fn complete_partitions(&mut self) {
        let columns = self.metadata.iter().flat_map(|metadata| &metadata.partition_columns);
        let columns: Vec<&String> = columns.collect();
        if columns.is_empty() {
            return;
        }
        let added = self.files.values_mut().map(|active| &mut active.add.partition_values);
        let removed = self.tombstones.values_mut().filter_map(|r| r.partition_values.as_mut());
        for values in added.chain(removed) {
            for column in &columns {
                values.entry((*column).clone()).or_default();
            }
        }
    }

    /// The active files, in the order in which the log names them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Add> {
        self.files.values().map(|active| &active.add)
    }

    /// The number of active files.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The active file of that path.
    pub(crate) fn file(&self, path: &str) -> Option<&Add> {
        self.files.get(self.places.get(path)?).map(|active| &active.add)
    }

    fn put(&mut self, active: Active) {
        let path = &active.add.path;
        self.take(path);
        if !self.tombstones.is_empty() {
            let vector = active.add.deletion_vector.as_ref().map(DeletionVector::unique_id);
            self.tombstones.remove(&(path.clone(), vector));
        }
        self.places.insert(path.clone(), self.next);
        self.files.insert(self.next, active);
        self.next += 1;
    }

    fn take(&mut self, path: &str) -> Option<Active> {
        self.files.remove(&self.places.remove(path)?)
    }
}

/// Whether a file is the one that was removed, with the same rows deleted.
fn is_same(add: &Add, remove: &Remove) -> bool {
    match (&add.deletion_vector, &remove.deletion_vector) {
        (None, None) => true,
        (Some(add), Some(remove)) => add == remove || add.unique_id() == remove.unique_id(),
        _ => false,
    }
}

/// When a commit of this writer was made, in milliseconds since 1970.
fn own_time(actions: &[Action]) -> Option<i64> {
    let info = actions.iter().find_map(|action| action.commit_info.as_ref())?;
    let program = |engine: &str| engine.split('/').next().map(str::to_owned);
    let own = program(info.get("engineInfo")?.as_str()?) == program(ENGINE);
    own.then(|| info.get("timestamp")?.as_i64()).flatten()
}

impl Snapshot {
    /// A snapshot of what `state` has accumulated; `None` when it lacks protocol or metadata, with
    /// which every table begins.
    pub(crate) fn new(version: i64, state: State) -> Option<Self> {
        let (protocol, metadata) = (state.protocol.clone()?, state.metadata.clone()?);
        Some(Self { version, protocol, metadata, state })
    }

    /// The same table one commit later.
    pub(crate) fn advance(&mut self, version: i64, actions: Vec<Action>) {
        self.version = version;
        self.state.apply(actions);
        if let Some(protocol) = &self.state.protocol {
            self.protocol = protocol.clone();
        }
        if let Some(metadata) = &self.state.metadata {
            self.metadata = metadata.clone();
        }
    }

    /// How far an application has written.
    pub(crate) fn txn(&self, app_id: &str) -> Option<i64> {
        self.state.txns.get(app_id).map(|txn| txn.version)
    }
}
