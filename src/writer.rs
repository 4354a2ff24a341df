//! The lake's side of a source: applies steps to its tables, and closes epochs (E2).
//!
//! Order of a flush, on which exactly-once rests: the tables' files are written; the epoch file is
//! created; each table with changes gets its one commit; only then the flush is reported, and the
//! source acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lakeward_connectors::batch::Batch;
use lakeward_connectors::key::key_texts;
use lakeward_connectors::schema::{Evolution, Identity, TableId, TableSchema};
use lakeward_connectors::source::{KeyText, Position};
use lakeward_connectors::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::buffer::{Step, Work};
use crate::collapse::collapse;
use crate::delta::{Commit, Lake, Merge, Table, table_path};
use crate::epoch::{Before, Entry, EpochFile, Ledger, Member, Progress, Roster, State};
use crate::planted::{self, Bug};

mod maintain;

/// How many tables commit at a time.
const COMMITS_AT_ONCE: usize = 8;

/// How many tables are opened at a time.
const OPENS_AT_ONCE: usize = 16;

/// The tables of one source.
pub struct Writer<P: Position> {
    lake: Lake,
    source: String,
    /// In order, so that the same events always make the same requests.
    tables: BTreeMap<TableId, Slot>,
    /// How tables merge, where it is not the default.
    merge: BTreeMap<TableId, Merge>,
    members: Roster<P>,
    ledger: Ledger<P>,
}

struct Slot {
    table: Table,
    /// Keys whose row must be read again, found since the last epoch (S5).
    missing: Vec<KeyText>,
    /// Why the table can't go on, found since the last epoch: it stops, or it is read again.
    fault: Option<(State, String)>,
    /// When it was last looked through for files that nobody needs.
    maintained: Instant,
}

/// What a flush closes.
#[derive(Debug)]
pub struct Plan<P: Position> {
    /// The source's identity.
    pub identity: String,
    /// Where the flush closes.
    pub to: P,
    /// What every table holds once it has taken up `work`, `held` filled in.
    pub members: Roster<P>,
    /// Tables whose files are not committed yet: their new generation is not complete.
    pub staged: BTreeSet<TableId>,
    /// Steps up to `to`.
    pub work: Work,
    /// The list of S4.
    pub unseen: Vec<P::Transaction>,
    /// Milliseconds of Unix time.
    pub now_ms: i64,
}

/// What became of a flush.
#[derive(Debug)]
pub struct Report<P> {
    /// Its number.
    pub epoch: u64,
    /// Up to where everything is durable.
    pub to: P,
    /// Keys whose row must be read again (S5).
    pub missing: BTreeMap<TableId, Vec<KeyText>>,
    /// Tables that lost their place: they are stopped, or to be read again ([`State::Gap`]).
    pub lost: Vec<(TableId, State, String)>,
    /// The tables committed.
    pub commits: usize,
}

/// What the lake says a source holds.
#[derive(Debug)]
pub struct Standing<P: Position> {
    /// The source's identity as of the newest epoch.
    pub identity: String,
    /// The newest epoch's `to`.
    pub to: P,
    /// What each table holds, `held` filled in, and its schema there.
    pub members: BTreeMap<TableId, (Member<P>, Option<Arc<TableSchema>>)>,
    /// The list of S4 as of the newest epoch.
    pub unseen: Vec<P::Transaction>,
}

impl<P: Position> Writer<P> {
    /// Opens the tables of `source` and takes them over from whoever wrote them before (E6).
    /// Tables are merged as `merge` says.
    ///
    /// # Errors
    /// When the lake can't be read or written, or another daemon is ahead.
    pub async fn open(
        lake: Lake,
        source: &str,
        nonce: String,
        merge: BTreeMap<TableId, Merge>,
    ) -> Result<(Self, Option<Standing<P>>)> {
        let ledger = Ledger::<P>::open(lake.clone(), source, nonce).await?;
        let mut writer = Self {
            lake,
            source: source.to_owned(),
            tables: BTreeMap::new(),
            merge,
            members: Roster::new(),
            ledger,
        };
        let Some(file) = writer.ledger.newest().cloned() else { return Ok((writer, None)) };
        let standing = writer.take_over(&file).await?;
        Ok((writer, Some(standing)))
    }

    /// Fences every table that has not taken up the newest epoch, so that what it holds is final.
    async fn take_over(&mut self, file: &EpochFile<P>) -> Result<Standing<P>> {
        let ids: Vec<TableId> = file.roster.iter().flatten().map(|(id, _)| id.clone()).collect();
        for (id, table) in self.open_tables(&ids).await? {
            self.put(id, table);
        }
        let app_id = self.ledger.app_id();
        let (fence_id, next) = (self.ledger.fence_id(), self.ledger.next() as i64);
        let mut members = BTreeMap::new();
        let mut fenced = next;
        for id in ids {
            let slot = self.slot(&id)?;
            let mut txn = slot.table.txn(&app_id);
            let step = file.commits.get(&id).filter(|_| txn != Some(file.epoch as i64));
            if let Some(step) = step.filter(|_| !planted::is(Bug::NoFence)) {
                if let (None, Some(schema)) = (slot.table.version(), &step.creates) {
                    slot.table.evolve(&Arc::new(schema.clone()))?;
                }
                let found = slot.table.fence(&fence_id, next).await?;
                fenced = fenced.max(found);
                txn = slot.table.txn(&app_id);
            }
            let Some(member) = file.holds(&id, txn) else { continue };
            members.insert(id.clone(), (member.clone(), slot.table.schema().cloned()));
            self.members.insert(id, member);
        }
        if fenced > next || self.ledger.is_superseded().await? {
            return Err(self.ledger.superseded(file.epoch + 1));
        }
        Ok(Standing {
            identity: file.identity.clone(),
            to: file.to.clone(),
            members,
            unseen: file.unseen.clone(),
        })
    }

    async fn open_tables(&self, ids: &[TableId]) -> Result<Vec<(TableId, Table)>> {
        let mut opens: Vec<BoxFuture<'_, Result<(TableId, Table)>>> = Vec::new();
        for id in ids {
            let open = async move {
                let path = table_path(&self.source, id);
                let mut table = match Table::open(&self.lake, &path).await? {
                    Some(table) => table,
                    None => Table::create(&self.lake, &path),
                };
                table.set_merge(self.merge.get(id).copied().unwrap_or_default());
                Ok((id.clone(), table))
            };
            opens.push(open.boxed());
        }
        let opens = futures::stream::iter(opens).buffer_unordered(OPENS_AT_ONCE);
        let opened: Vec<_> = opens.collect().await;
        opened.into_iter().collect()
    }

    fn put(&mut self, id: TableId, table: Table) {
        let maintained = Instant::now();
        self.tables.insert(id, Slot { table, missing: Vec::new(), fault: None, maintained });
    }

    fn slot(&mut self, id: &TableId) -> Result<&mut Slot> {
        self.tables
            .get_mut(id)
            .ok_or_else(|| Error::internal("a table was never opened").with("table", id))
    }

    /// Adds a table that no epoch knows yet; says whether the lake holds rows of it all the same,
    /// which then are of unknown position (E3: a `gap`).
    ///
    /// # Errors
    /// When the table can't be opened.
    pub async fn add(&mut self, id: &TableId) -> Result<bool> {
        if !self.tables.contains_key(id) {
            for (id, table) in self.open_tables(std::slice::from_ref(id)).await? {
                self.put(id, table);
            }
        }
        Ok(self.slot(id)?.table.rows() > 0)
    }

    /// The rows and files of every table, for metrics.
    pub fn sizes(&self) -> impl Iterator<Item = (&TableId, u64, usize)> {
        self.tables.iter().map(|(id, slot)| (id, slot.table.rows(), slot.table.files()))
    }

    /// What the indexes of all tables take of memory, in bytes.
    pub fn index_size(&self) -> usize {
        self.tables.values().map(|slot| slot.table.index_size()).sum()
    }

    /// Whether another daemon has written a newer epoch (E9).
    ///
    /// # Errors
    /// When it has, or the lake can't be listed.
    pub async fn look_for_others(&self) -> Result<()> {
        if self.ledger.is_superseded().await? {
            return Err(self.ledger.superseded(self.ledger.next()));
        }
        Ok(())
    }

    /// When the newest epoch was written, milliseconds of Unix time (E9).
    pub fn newest_ms(&self) -> Option<i64> {
        self.ledger.newest().map(|file| file.written_ms)
    }

    /// Writes what `work` says to files, without committing them: a part of a transaction that is
    /// larger than memory, or of a snapshot. A table that can't is noted and stops at the next
    /// flush.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn apply(&mut self, work: Work) -> Result<()> {
        for (id, steps) in work {
            let slot = self.slot(&id)?;
            if slot.fault.is_some() {
                continue;
            }
            let fault = match slot.apply(steps).await {
                Ok(None) => continue,
                Ok(Some(reason)) => (State::Gap, reason),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => (State::Stopped, error.full()),
            };
            slot.fault = Some(fault);
            slot.table.discard().await?;
        }
        Ok(())
    }

    /// Closes an epoch (E2).
    ///
    /// # Errors
    /// When the store does not answer, another daemon is ahead, or somebody else's commit got in
    /// the way: the source then starts over from the lake, which says how far it got.
    pub async fn flush(&mut self, mut plan: Plan<P>) -> Result<Report<P>> {
        self.apply(std::mem::take(&mut plan.work)).await?;
        let (missing, lost) = self.take_findings(&mut plan);
        let commits: BTreeMap<TableId, Before<P>> =
            self.pending(&plan).map(|id| (id.clone(), self.before(id, &plan.to))).collect();
        let ids: BTreeSet<TableId> = commits.keys().cloned().collect();
        let epoch = self
            .ledger
            .write(Entry {
                identity: plan.identity,
                to: plan.to.clone(),
                roster: plan.members.clone(),
                commits,
                unseen: plan.unseen,
                written_ms: plan.now_ms,
            })
            .await?;
        self.commit(epoch, &ids, &plan.to).await?;
        self.members = plan.members;
        Ok(Report { epoch, to: plan.to, missing, lost, commits: ids.len() })
    }

    /// Deletes epoch files that nobody needs.
    ///
    /// # Errors
    /// When the lake does not answer, or another daemon is ahead.
    pub async fn prune(&self) -> Result<()> {
        self.ledger.prune().await
    }

    /// Turns what applying found into members: a table that can't go on has lost its place, and one
    /// with keys to read again isn't live (S5).
    #[allow(clippy::type_complexity)]
    fn take_findings(
        &mut self,
        plan: &mut Plan<P>,
    ) -> (BTreeMap<TableId, Vec<KeyText>>, Vec<(TableId, State, String)>) {
        let (mut missing, mut lost) = (BTreeMap::new(), Vec::new());
        for (id, slot) in &mut self.tables {
            let Some(member) = plan.members.get_mut(id) else { continue };
            if let Some((state, reason)) = slot.fault.take() {
                slot.missing.clear();
                member.state = state;
                member.progress = Progress::default();
                member.reason = Some(reason.clone());
                lost.push((id.clone(), state, reason));
            } else if !slot.missing.is_empty() {
                let keys = std::mem::take(&mut slot.missing);
                member.state = State::Snapshot;
                member.progress.keys.extend(keys.iter().cloned());
                missing.insert(id.clone(), keys);
            }
        }
        (missing, lost)
    }

    /// The tables that this epoch commits.
    fn pending<'a>(&'a self, plan: &'a Plan<P>) -> impl Iterator<Item = &'a TableId> {
        let kept = |id: &TableId| {
            plan.members.get(id).is_some_and(|m| matches!(m.state, State::Live | State::Snapshot))
        };
        self.tables
            .iter()
            .filter(move |(id, slot)| {
                slot.table.has_pending() && kept(id) && !plan.staged.contains(*id)
            })
            .map(|(id, _)| id)
    }

    /// What `id` holds until it is committed.
    fn before(&self, id: &TableId, to: &P) -> Before<P> {
        let nothing = Member {
            state: State::Snapshot,
            held: Some(to.clone()),
            progress: Progress { ranges: vec![Default::default()], ..Progress::default() },
            reason: None,
        };
        let new = self.tables.get(id).filter(|slot| slot.table.version().is_none());
        let creates = new.and_then(|slot| slot.table.schema()).map(|schema| (**schema).clone());
        (self.members.get(id).cloned().unwrap_or(nothing), creates)
    }

    async fn commit(&mut self, epoch: u64, ids: &BTreeSet<TableId>, to: &P) -> Result<()> {
        let txns = [(self.ledger.app_id(), epoch as i64)];
        let mut info = serde_json::Map::new();
        info.insert("lakeward.source".to_owned(), self.source.clone().into());
        info.insert("lakeward.epoch".to_owned(), epoch.into());
        info.insert("lakeward.position".to_owned(), to.to_string().into());
        let mut commits: Vec<BoxFuture<'_, (TableId, Result<Commit>)>> = Vec::new();
        for (id, slot) in &mut self.tables {
            if ids.contains(id) {
                let (txns, info) = (&txns, info.clone());
                let commit = async move {
                    (id.clone(), slot.table.commit(txns, info, "STREAMING UPDATE").await)
                };
                commits.push(commit.boxed());
            }
        }
        let commits = futures::stream::iter(commits).buffer_unordered(COMMITS_AT_ONCE);
        let results: Vec<_> = commits.collect().await;
        let mut conflict = None;
        for (id, result) in results {
            if result.is_err() && planted::is(Bug::ErrorIsSuccess) {
                continue;
            }
            match result? {
                Commit::Done { .. } => {}
                Commit::Conflict(_) if planted::is(Bug::ConflictIsSuccess) => {}
                Commit::Fenced { found, .. } => {
                    return Err(self.ledger.superseded(found.unsigned_abs()).with("table", id));
                }
                Commit::Conflict(why) => conflict = Some((id, why)),
            }
        }
        match conflict {
            None => Ok(()),
            Some((id, why)) => Err(Error::unavailable(
                "another writer's commit got in the way; starting over from the lake",
            )
            .with("table", id)
            .with("commit", why)),
        }
    }
}

impl Slot {
    /// Takes up steps in order; runs of rows under one schema are collapsed together.
    /// Says why the table has to be read again, when its columns can't change in place.
    async fn apply(&mut self, steps: Vec<Step>) -> Result<Option<String>> {
        let mut run: Vec<Batch> = Vec::new();
        for step in steps {
            match step {
                Step::Rows(batch) => {
                    if run.first().is_some_and(|first| first.schema != batch.schema) {
                        self.rows(std::mem::take(&mut run)).await?;
                    }
                    run.push(batch);
                    continue;
                }
                Step::Truncate(_) => {
                    run.clear();
                    self.missing.clear();
                    self.table.truncate().await?;
                }
                Step::Evolve(schema) => {
                    self.rows(std::mem::take(&mut run)).await?;
                    if let Evolution::Snapshot(reason) = self.table.evolve(&schema)? {
                        return Ok(Some(reason));
                    }
                }
                Step::Generation(schema) => {
                    run.clear();
                    self.missing.clear();
                    self.table.discard().await?;
                    self.table.begin_generation(&schema).await?;
                }
                Step::Discard => {
                    run.clear();
                    self.missing.clear();
                    self.table.discard().await?;
                }
            }
        }
        self.rows(run).await?;
        Ok(None)
    }

    async fn rows(&mut self, run: Vec<Batch>) -> Result<()> {
        let Some(first) = run.first() else { return Ok(()) };
        let schema = first.schema.clone();
        let applied = self.table.apply(&collapse(run)?).await?;
        if schema.identity == Identity::FullRow && !applied.missing.is_empty() {
            return Err(Error::internal("a row without a key came without its values")
                .with("table", &schema.id));
        }
        for key in applied.missing {
            let texts = key_texts(&schema, &key).ok_or_else(|| {
                Error::internal("a key can't be written as text").with("table", &schema.id)
            })?;
            self.missing.push(texts);
        }
        Ok(())
    }
}
