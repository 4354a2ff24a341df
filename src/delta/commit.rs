//! Commits: everything pending becomes one entry of the log, or nothing does.
//!
//! An entry is created with put-if-absent, so a version has one winner. Whoever finds a version
//! taken reads the winner, decides whether its own changes still stand on top of it, and tries the
//! next version. An answer that got lost is looked up: a commit carries a name nobody else has.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lakeward_connectors::{Error, Result};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::actions::{self, Action, Add, Format, Metadata, Remove, Txn};
use super::checkpoint;
use super::clock::{now_millis, unique};
use super::index::{Loc, fingerprint};
use super::log::{commit_path, fault, parse_commit, since};
use super::lookup::{FileKeys, has_key};
use super::protocol;
use super::read::FileReader;
use super::snapshot::{Snapshot, State};
use super::store::Created;
use super::table::{Pending, SCHEMA_PROPERTY, Table};

/// How many versions a commit is tried at before it gives up for now.
const VERSIONS: usize = 100;
/// How often one version is tried.
const TRIES: u32 = 3;
/// After this time without a look at the log, it may have been cleaned up to behind our back, and
/// a version that was taken would look free.
const STALE: Duration = Duration::from_secs(600);

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// It is in the log.
    Done {
        /// At this version.
        version: i64,
    },
    /// Somebody has committed, under the same name, what this commit may not follow (E7). `found`
    /// may be this very epoch, landed earlier.
    Fenced {
        /// The name: the commit's own, or its fence's.
        app_id: String,
        /// How far it has got.
        found: i64,
    },
    /// Another writer has changed what this commit changes. Says how. The pending changes are
    /// worth nothing any more: [`Table::discard`], and start over from the lake.
    Conflict(String),
}

/// A commit as it was sent.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    version: i64,
    name: String,
    txns: Vec<(String, i64)>,
    actions: Vec<Action>,
    bytes: Bytes,
}

/// Who got a version.
enum Slot {
    Mine,
    Theirs(Vec<Action>),
}

impl Table {
    /// Commits everything pending, and that `txns` have come so far, as one entry of the log.
    /// `info` goes into the entry's commitInfo, for people.
    ///
    /// # Errors
    /// [`Unavailable`](lakeward_connectors::ErrorKind::Unavailable) when the store doesn't answer:
    /// then the outcome may be [in doubt](Table::in_doubt), and calling again with the same `txns`
    /// finds it out.
    pub async fn commit(
        &mut self,
        txns: &[(String, i64)],
        info: Map<String, Value>,
        operation: &str,
    ) -> Result<Commit> {
        let mut again = self.pending.doubt.clone();
        if again.as_ref().is_some_and(|attempt| attempt.txns != txns) {
            return Err(
                Error::internal("another commit is still in doubt").with("Delta table", &self.path)
            );
        }
        if again.is_none()
            && self.base.is_some()
            && self.seen.elapsed() > STALE
            && let Some(conflict) = self.catch_up().await?
        {
            return Ok(Commit::Conflict(conflict));
        }
        for _ in 0..VERSIONS {
            let attempt = match again.take() {
                Some(attempt) => attempt,
                None => {
                    if let Some((app_id, found)) = self.fenced(txns) {
                        return Ok(Commit::Fenced { app_id, found });
                    }
                    self.attempt(txns, &info, operation)?
                }
            };
            let version = attempt.version;
            match self.send(attempt).await? {
                Slot::Mine => return Ok(Commit::Done { version }),
                Slot::Theirs(actions) => {
                    if let Some(conflict) = self.fold(version, actions, txns).await? {
                        return Ok(Commit::Conflict(conflict));
                    }
                }
            }
        }
        Err(Error::unavailable("other writers were faster at every version tried")
            .with("Delta table", &self.path))
    }

    /// Makes sure that nobody commits less than `version` under `app_id` from here on (E6), and
    /// says how far it has come: `version`, or more.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); and when there are pending changes.
    pub async fn fence(&mut self, app_id: &str, version: i64) -> Result<i64> {
        if self.has_pending() && !self.in_doubt() && self.base.is_some() {
            return Err(Error::internal("a table with pending changes can't be fenced")
                .with("Delta table", &self.path));
        }
        loop {
            if let Some(found) = self.txn(app_id).filter(|found| *found >= version) {
                return Ok(found);
            }
            match self.commit(&[(app_id.to_owned(), version)], Map::new(), "FENCE").await? {
                Commit::Done { .. } => return Ok(version),
                Commit::Fenced { found, .. } => return Ok(found),
                // Somebody was first to begin the table.
                Commit::Conflict(_) => self.discard().await?,
            }
        }
    }

    /// Takes up what others have committed since.
    ///
    /// # Errors
    /// When there are pending changes; [`Table`](lakeward_connectors::ErrorKind::Table) when the
    /// table has become one that can't be written to.
    pub async fn refresh(&mut self) -> Result<()> {
        if self.has_pending() {
            return Err(Error::internal("a table with pending changes can't be refreshed")
                .with("Delta table", &self.path));
        }
        match self.catch_up().await? {
            None => Ok(()),
            Some(_) => self.reload().await,
        }
    }

    /// Folds in everything that is in the log beyond the base, or says what stands against it.
    async fn catch_up(&mut self) -> Result<Option<String>> {
        let Some(version) = self.version() else {
            return match self.pending.changed {
                true => Ok(None),
                false => self.reload().await.map(|()| None),
            };
        };
        match since(&self.lake, &self.path, version).await? {
            Some(commits) => {
                for (version, actions) in commits {
                    if let Some(conflict) = self.fold(version, actions, &[]).await? {
                        return Ok(Some(conflict));
                    }
                }
            }
            None if self.pending.changed => {
                return Ok(Some("the log went on and was cleaned up meanwhile".to_owned()));
            }
            None => self.reload().await?,
        }
        self.seen = Instant::now();
        Ok(None)
    }

    /// Who stands in the way of a commit of `txns`, as far as the base tells.
    fn fenced(&self, txns: &[(String, i64)]) -> Option<(String, i64)> {
        txns.iter().find_map(|(app_id, version)| {
            let own = self.txn(app_id).filter(|found| found >= version);
            let fence = format!("{app_id}/fence");
            let fenced = self.txn(&fence).filter(|found| found > version);
            own.map(|found| (app_id.clone(), found)).or(fenced.map(|found| (fence, found)))
        })
    }

    /// The next entry of the log.
    fn attempt(
        &self,
        txns: &[(String, i64)],
        info: &Map<String, Value>,
        operation: &str,
    ) -> Result<Attempt> {
        let (now, name) = (now_millis(), unique());
        let mut commit_info = info.clone();
        for (key, value) in [
            ("timestamp", json!(now)),
            ("operation", json!(operation)),
            ("operationParameters", json!({})),
            ("isBlindAppend", json!(false)),
            ("engineInfo", json!(super::ENGINE)),
            ("txnId", json!(name)),
        ] {
            commit_info.insert(key.to_owned(), value);
        }
        let mut actions = vec![Action { commit_info: Some(commit_info), ..Action::default() }];
        actions.extend(self.new_metadata(now)?);
        actions.extend(txns.iter().map(|(app_id, version)| {
            Txn { app_id: app_id.clone(), version: *version, last_updated: Some(now) }.into()
        }));
        let base = self.base.iter().flat_map(|base| base.state.files());
        let gone = base.filter(|add| !self.view.has(&add.path));
        actions.extend(gone.map(|add| removal(add, now).into()));
        let new = self.view.files().filter(|(_, file)| !file.committed);
        actions.extend(new.map(|(_, file)| Action::from(file.add.clone())));
        let bytes = actions::serialise(&actions)?.into();
        let version = self.version().map_or(0, |version| version + 1);
        Ok(Attempt { version, name, txns: txns.to_vec(), actions, bytes })
    }

    /// Protocol and metadata, where they are new.
    fn new_metadata(&self, now: i64) -> Result<Vec<Action>> {
        let layout = self.known_layout()?;
        let Some(base) = &self.base else {
            let schema = self.known_schema()?;
            let metadata = Metadata {
                id: unique(),
                name: Some(schema.id.name.clone()),
                description: None,
                format: Format::default(),
                schema_string: layout.schema_string()?,
                partition_columns: Vec::new(),
                configuration: BTreeMap::from([self.schema_property()?]),
                created_time: Some(now),
            };
            return Ok(vec![protocol::needed(layout.without_zone()).into(), metadata.into()]);
        };
        if !self.pending.metadata {
            return Ok(Vec::new());
        }
        let mut metadata = base.metadata.clone();
        metadata.schema_string = layout.schema_string()?;
        metadata.configuration.extend([self.schema_property()?]);
        let raised = protocol::raised(&base.protocol, layout.without_zone());
        Ok(raised.map(Action::from).into_iter().chain([metadata.into()]).collect())
    }

    fn schema_property(&self) -> Result<(String, Option<String>)> {
        let schema = self.known_schema()?;
        let text = serde_json::to_string(&*schema).map_err(|error| {
            Error::internal("a schema can't be written as JSON").caused_by(error)
        })?;
        Ok((SCHEMA_PROPERTY.to_owned(), Some(text)))
    }

    /// Sends a commit until it is known who has its version.
    async fn send(&mut self, attempt: Attempt) -> Result<Slot> {
        let path = commit_path(&self.path, attempt.version);
        // From the first byte sent until an answer, it may arrive: also when this future is
        // dropped.
        self.pending.doubt = Some(attempt.clone());
        let mut failure = None;
        for attempted in 0..TRIES {
            if attempted > 0 {
                tokio::time::sleep(Duration::from_millis(100) * attempted).await;
            }
            match self.lake.create(&path, attempt.bytes.clone()).await {
                Ok(Created::Yes) => {
                    self.landed(attempt).await;
                    return Ok(Slot::Mine);
                }
                Ok(Created::Exists) => {}
                Err(error) => failure = Some(error),
            }
            // An error may hide a success, and "exists" my own first attempt or nothing yet.
            let Some(bytes) = self.lake.get(&path).await? else {
                continue;
            };
            if is_mine(&attempt, &bytes) {
                self.landed(attempt).await;
                return Ok(Slot::Mine);
            }
            let actions = parse_commit(&self.path, attempt.version, &bytes)?;
            self.pending.doubt = None;
            return Ok(Slot::Theirs(actions));
        }
        Err(failure.unwrap_or_else(|| {
            Error::unavailable("the store says that a commit is taken, and doesn't have it")
                .with("path", path)
        }))
    }

    /// Takes note that a commit is in the log.
    async fn landed(&mut self, attempt: Attempt) {
        let Attempt { version, actions, .. } = attempt;
        match &mut self.base {
            Some(base) => base.advance(version, actions),
            None => {
                let mut state = State::default();
                state.apply(actions);
                self.base = Snapshot::new(version, state);
            }
        }
        self.view.committed();
        self.pending = Pending::default();
        self.seen = Instant::now();
        self.checkpoint_if_due(version).await;
    }

    async fn checkpoint_if_due(&mut self, version: i64) {
        let Some(base) = &mut self.base else { return };
        if !checkpoint::is_due(version, &base.metadata) {
            return;
        }
        // Nothing depends on it: the next one does as well.
        if let Err(error) = checkpoint::write(&self.lake, &self.path, base).await {
            tracing::warn!(table = self.path, error = error.full(), "no checkpoint was written");
        }
    }

    /// Takes up the commit of somebody else, or says why the pending changes can't stand on it.
    async fn fold(
        &mut self,
        version: i64,
        actions: Vec<Action>,
        txns: &[(String, i64)],
    ) -> Result<Option<String>> {
        let own =
            |txn: &Txn| txns.iter().any(|(id, mine)| *id == txn.app_id && *mine > txn.version);
        if let Some(txn) = actions.iter().filter_map(|a| a.txn.as_ref()).find(|txn| own(txn)) {
            let Txn { app_id, version: found, .. } = txn;
            return Ok(Some(format!("another writer committed {found} under {app_id}")));
        }
        let redefines = actions.iter().any(|a| a.meta_data.is_some() || a.protocol.is_some());
        if redefines || self.base.is_none() {
            if self.pending.changed {
                return Ok(Some("another writer changed schema or properties".to_owned()));
            }
            self.reload().await?;
            return Ok(None);
        }
        if let Some(path) = self.lost_source(&actions) {
            return Ok(Some(format!("another writer removed {path}")));
        }
        let mut came = Vec::new();
        for add in actions.iter().filter_map(|action| action.add.as_ref()) {
            match self.inspect(add, &actions).await? {
                Ok(file) => came.push(file),
                Err(conflict) => return Ok(Some(conflict)),
            }
        }
        self.take(version, actions, came);
        Ok(None)
    }

    /// A file that `actions` remove and that the pending changes were made from.
    fn lost_source<'a>(&self, actions: &'a [Action]) -> Option<&'a str> {
        let base = self.base.as_ref()?;
        let removes = actions.iter().filter_map(|action| action.remove.as_ref());
        let used = |path: &str| base.state.has(path) && !self.view.has(path);
        let lost = removes.map(|remove| remove.path.as_str()).find(|path| used(path))?;
        (!self.pending.replaced).then_some(lost)
    }

    /// Looks at a file that somebody else added: how many rows it has and, where there is an index,
    /// their keys; or why it and the pending changes don't go together.
    async fn inspect(&self, add: &Add, actions: &[Action]) -> Result<Result<Came, String>> {
        if add.deletion_vector.is_some() {
            return Err(fault(&self.path, "another writer added a deletion vector")
                .remedy("set delta.enableDeletionVectors to false and run REORG TABLE"));
        }
        let rows = match add.rows() {
            Some(rows) => rows,
            None => FileReader::open(&self.lake, &self.path, add).await?.rows(),
        };
        let mut came = Came { add: add.clone(), rows, keys: Vec::new() };
        let (Some(index), Some(schema)) = (&self.index, &self.schema) else {
            return Ok(Ok(came));
        };
        if self.pending.replaced || !has_key(schema) {
            return Ok(Ok(came));
        }
        let removed = |path: &str| {
            actions.iter().any(|action| action.remove.as_ref().is_some_and(|r| r.path == path))
        };
        let mut keys = FileKeys::open(&self.lake, &self.path, add, schema, rows).await?;
        while let Some(found) = keys.next().await? {
            for (_, key) in found.iter() {
                let place = index.get(key).first().and_then(|loc| self.view.locate(*loc));
                let held = place.and_then(|(id, _)| self.view.file(id));
                let held = held.is_some_and(|file| !removed(&file.add.path));
                if held && self.pending.changed {
                    return Ok(Err("another writer added a row that is pending".to_owned()));
                }
                if add.data_change && self.pending.touched.has(fingerprint(key)) {
                    return Ok(Err("another writer wrote a row that is pending".to_owned()));
                }
            }
            came.keys.push(found);
        }
        Ok(Ok(came))
    }

    /// Makes a commit of somebody else part of base, view and index.
    fn take(&mut self, version: i64, actions: Vec<Action>, came: Vec<Came>) {
        let keyed = self.schema.as_deref().is_some_and(has_key);
        let moved = actions.iter().any(|action| action.add.is_some() || action.remove.is_some());
        if !self.pending.replaced {
            for remove in actions.iter().filter_map(|action| action.remove.as_ref()) {
                self.view.remove_path(&remove.path);
            }
            for Came { add, rows, keys } in came {
                let id = self.view.insert(add, rows, true);
                let Some(index) = self.index.as_mut().filter(|_| keyed) else {
                    continue;
                };
                match self.view.open_slot(id, rows) {
                    Ok(slot) => {
                        for (row, key) in keys.iter().flat_map(|found| found.iter()) {
                            index.put(key, Loc { slot, row });
                        }
                    }
                    Err(_) => self.index = None,
                }
            }
            // Rows that are counted are cheaper to look up anew than to tell apart.
            if moved && !keyed {
                self.index = None;
            }
        }
        if let Some(base) = &mut self.base {
            base.advance(version, actions);
        }
    }
}

/// A file that somebody else added.
struct Came {
    add: Add,
    rows: u64,
    keys: Vec<super::lookup::Found>,
}

fn removal(add: &Add, now: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: None,
    }
}

/// Whether a log entry is this very commit.
fn is_mine(attempt: &Attempt, bytes: &Bytes) -> bool {
    if *bytes == attempt.bytes {
        return true;
    }
    let actions = actions::parse(bytes).unwrap_or_default();
    let infos = actions.iter().filter_map(|action| action.commit_info.as_ref());
    infos.filter_map(|info| info.get("txnId")?.as_str()).any(|name| name == attempt.name)
}
