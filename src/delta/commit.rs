//! Commits: everything pending becomes one entry of the log, or nothing does.
//!
//! An entry is created with put-if-absent, so a version has one winner. Whoever finds a version
//! taken reads the winner, decides whether its own changes still stand on top of it, and tries the
//! next version. An answer that got lost is looked up: a commit carries a name nobody else has.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lakeward_connectors::{Error, Result, TableSchema};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::actions::{self, Action, Add, Format, Metadata, Remove, Txn};
use super::checkpoint;
use super::clock::{now_millis, unique};
use super::log::{self, CLEANED_UP, commit_path, parse_commit};
use super::merge::Merge;
use super::protocol;
use super::schema::Layout;
use super::snapshot::{Snapshot, State};
use super::store::Created;
use super::table::{Pending, SCHEMA_PROPERTY, SHAPE_PROPERTY, SOURCE_PROPERTY, Table};
use crate::planted::{self, Bug};

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
    actions: Arc<Vec<Action>>,
    bytes: Bytes,
}

/// Who got a version.
enum Slot {
    Mine,
    Theirs(Vec<Action>),
    /// Nobody can have it any more: the log has gone on and was cleaned up.
    Past,
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
        if again.is_none() {
            self.write_vectors().await?;
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
                Slot::Past => return Ok(Commit::Conflict(CLEANED_UP.to_owned())),
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
        // A logical file is a path and a deletion vector: with another one, it is another file.
        let same = |a: &Add, b: &Add| a.deletion_vector == b.deletion_vector;
        let base = self.base.iter().flat_map(|base| base.state.files());
        let stays = |add: &Add| self.view.at(&add.path).is_some_and(|file| same(&file.add, add));
        actions.extend(base.filter(|add| !stays(add)).map(|add| removal(add, now).into()));
        let known = |add: &Add| {
            let state = self.base.as_ref().map(|base| &base.state);
            state.and_then(|state| state.file(&add.path)).is_some_and(|found| same(found, add))
        };
        let new = self.view.files().filter(|(_, file)| !known(&file.add));
        actions.extend(new.map(|(_, file)| Action::from(file.add.clone())));
        let bytes = actions::serialise(&actions)?.into();
        let version = self.version().map_or(0, |version| version + 1);
        Ok(Attempt { version, name, txns: txns.to_vec(), actions: Arc::new(actions), bytes })
    }

    /// Protocol and metadata, where they are new.
    fn new_metadata(&self, now: i64) -> Result<Vec<Action>> {
        let layout = self.known_layout()?;
        let Some(base) = &self.base else {
            let schema = self.known_schema()?;
            let mut metadata = Metadata {
                id: unique(),
                name: Some(schema.id.name.clone()),
                description: None,
                format: Format::default(),
                schema_string: layout.schema_string()?,
                partition_columns: layout.partition_columns(),
                configuration: BTreeMap::new(),
                created_time: Some(now),
            };
            self.describe(&mut metadata.configuration)?;
            self.merge.declare(&mut metadata.configuration);
            return Ok(vec![protocol::needed(&self.features(&layout)).into(), metadata.into()]);
        };
        let mut metadata = base.metadata.clone();
        self.merge.declare(&mut metadata.configuration);
        if !self.pending.metadata && metadata == base.metadata {
            return Ok(Vec::new());
        }
        if self.pending.metadata {
            metadata.schema_string = layout.schema_string()?;
            metadata.partition_columns = layout.partition_columns();
            self.describe(&mut metadata.configuration)?;
        }
        let raised = protocol::raised(&base.protocol, &self.features(&layout));
        Ok(raised.map(Action::from).into_iter().chain([metadata.into()]).collect())
    }

    /// The features that the table uses.
    fn features(&self, layout: &Layout) -> Vec<&'static str> {
        let without_zone = layout.without_zone().then_some(protocol::TIMESTAMP_NTZ);
        let vectors = self.merge == Merge::DeletionVectors;
        without_zone.into_iter().chain(vectors.then_some(protocol::DELETION_VECTORS)).collect()
    }

    /// Writes the properties that say what rows the table has.
    fn describe(&self, properties: &mut BTreeMap<String, Option<String>>) -> Result<()> {
        let json = |schema: &TableSchema| {
            serde_json::to_string(schema).map_err(|error| {
                Error::internal("a schema can't be written as JSON").caused_by(error)
            })
        };
        let schema = json(&*self.known_schema()?)?;
        properties.insert(SCHEMA_PROPERTY.to_owned(), Some(schema));
        match &self.origin {
            Some(origin) => {
                properties.insert(SOURCE_PROPERTY.to_owned(), Some(json(&origin.source)?));
                properties.insert(SHAPE_PROPERTY.to_owned(), Some(origin.shape.clone()));
            }
            None => {
                properties.remove(SOURCE_PROPERTY);
                properties.remove(SHAPE_PROPERTY);
            }
        }
        Ok(())
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
                Ok(Created::Yes) => return self.arrived(attempt).await,
                Ok(Created::Exists) => {}
                Err(error) => failure = Some(error),
            }
            // An error may hide a success, and "exists" my own first attempt or nothing yet.
            let Some(bytes) = self.lake.get(&path).await? else {
                continue;
            };
            if is_mine(&attempt, &bytes) {
                return self.arrived(attempt).await;
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

    /// A commit has its version; that is worth nothing where the log has gone past it.
    async fn arrived(&mut self, attempt: Attempt) -> Result<Slot> {
        match self.log_of(&attempt).await? {
            Ordering::Equal => {
                self.landed(attempt).await;
                return Ok(Slot::Mine);
            }
            Ordering::Less => {
                self.lake.forget(vec![commit_path(&self.path, attempt.version)]).await;
            }
            // It may be that what came later stands on it.
            Ordering::Greater => {}
        }
        self.pending.doubt = None;
        Ok(Slot::Past)
    }

    /// Whether the log knows a commit that was created (`Equal`), one before it, or one after it. Other
    /// writers may keep their logs as short as they like, and a version that they have cleaned up
    /// looks free.
    async fn log_of(&self, attempt: &Attempt) -> Result<Ordering> {
        let before = commit_path(&self.path, attempt.version - 1);
        // What is cleaned up is all that is older than a checkpoint.
        if attempt.version == 0 || planted::is(Bug::TakeCleanedUp) || self.lake.has(&before).await?
        {
            return Ok(Ordering::Equal);
        }
        let log = log::load(&self.lake, &self.path).await?;
        let found = |id: &str| log.as_ref().and_then(|log| log.txn(id));
        let found = attempt.txns.iter().map(|(id, version)| found(id).cmp(&Some(*version)));
        Ok(found.max().unwrap_or(Ordering::Equal))
    }

    /// Takes note that a commit is in the log.
    async fn landed(&mut self, attempt: Attempt) {
        // It holds the actions, too, as long as it may have to be sent again.
        self.pending = Pending::default();
        let Attempt { version, actions, .. } = attempt;
        let actions = Arc::unwrap_or_clone(actions);
        match &mut self.base {
            Some(base) => base.advance(version, actions),
            None => {
                let mut state = State::new(self.lake.retention());
                state.apply(actions);
                self.base = Snapshot::new(version, state);
            }
        }
        self.view.committed();
        self.seen = Instant::now();
        self.settle_index();
        self.checkpoint_if_due().await;
    }

    async fn checkpoint_if_due(&mut self) {
        let Some(base) = &mut self.base else { return };
        if !checkpoint::is_due(base) {
            return;
        }
        // Nothing depends on it: the next one does as well.
        if let Err(error) = checkpoint::write(&self.lake, &self.path, base).await {
            tracing::warn!(table = self.path, error = error.full(), "no checkpoint was written");
        }
    }
}

fn removal(add: &Add, now: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        deletion_vector: add.deletion_vector.clone(),
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
