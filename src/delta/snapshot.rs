//! A table as its log describes it at one version.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::actions::{
    Action, Add, DeletionVector, DomainMetadata, Metadata, Protocol, Remove, Txn,
};

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
    /// Removed files that older versions may still be read with.
    pub(crate) tombstones: BTreeMap<Logical, Remove>,
    files: BTreeMap<u64, Add>,
    places: FxHashMap<String, u64>,
    next: u64,
}

impl State {
    /// Takes up the actions of one commit (or of a checkpoint).
    pub(crate) fn apply(&mut self, actions: Vec<Action>) {
        // A file may be removed and added again in one commit (with another deletion vector); the
        // order of the lines means nothing.
        for remove in actions.iter().filter_map(|action| action.remove.as_ref()) {
            let vector = remove.deletion_vector.as_ref().map(DeletionVector::unique_id);
            // What is active may be the same file with a newer vector: a checkpoint in parts tells
            // of both in any order.
            if self.file(&remove.path).is_some_and(|add| vector_id(add) == vector) {
                self.take(&remove.path);
            }
            self.tombstones.insert((remove.path.clone(), vector), remove.clone());
        }
        for action in actions {
            let Action { protocol, meta_data, txn, add, domain_metadata, .. } = action;
            if let Some(add) = add {
                self.put(add);
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
    }

    /// Puts null where a file's partition has no value, which a checkpoint is read without.
    pub(crate) fn complete_partitions(&mut self) {
        let columns = self.metadata.iter().flat_map(|metadata| &metadata.partition_columns);
        let columns: Vec<&String> = columns.collect();
        if columns.is_empty() {
            return;
        }
        let added = self.files.values_mut().map(|add| &mut add.partition_values);
        let removed = self.tombstones.values_mut().filter_map(|r| r.partition_values.as_mut());
        for values in added.chain(removed) {
            for column in &columns {
                values.entry((*column).clone()).or_default();
            }
        }
    }

    /// The active files, in the order in which the log names them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Add> {
        self.files.values()
    }

    /// The active file of that path.
    pub(crate) fn file(&self, path: &str) -> Option<&Add> {
        self.files.get(self.places.get(path)?)
    }

    fn put(&mut self, add: Add) {
        self.take(&add.path);
        self.tombstones.remove(&(add.path.clone(), vector_id(&add)));
        self.places.insert(add.path.clone(), self.next);
        self.files.insert(self.next, add);
        self.next += 1;
    }

    fn take(&mut self, path: &str) {
        if let Some(place) = self.places.remove(path) {
            self.files.remove(&place);
        }
    }
}

/// The identity of a file's deletion vector.
pub(crate) fn vector_id(add: &Add) -> Option<String> {
    add.deletion_vector.as_ref().map(DeletionVector::unique_id)
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
