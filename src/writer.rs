//! The lake's side of a source: applies steps to its tables, and closes epochs (E2).
//!
//! Order of a flush, on which exactly-once rests: the tables' files are written; the epoch file is
//! created; each table with changes gets its one commit; only then the flush is reported, and the
//! source acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{KeyText, Position};
use lakeward_connectors::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::buffer::Work;
use crate::delta::{Commit, Lake, Table, table_path};
use crate::epoch::{Before, Entry, EpochFile, Ledger, Member, Progress, Roster, State};
use crate::planted::{self, Bug};
use crate::verify::Findings;

mod applying;
mod cadence;
mod compacting;
mod maintain;
mod size;
mod slot;
#[cfg(test)]
mod tests;
mod verify;

pub use cadence::Cadence;
pub use size::{Committed, Size};
pub use slot::Merging;
use slot::Slot;

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
    merging: Merging,
    members: Roster<P>,
    ledger: Ledger<P>,
    /// What the rows of tables will prove that are being merged.
    merging_to: BTreeMap<TableId, Option<P>>,
    /// When staged changes were last looked through.
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
    /// The tables committed, and what each commit did.
    pub committed: Vec<(TableId, Committed)>,
    /// What verifications found.
    pub findings: Vec<(TableId, Findings)>,
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
    /// Tables are merged as `merging` says.
    ///
    /// # Errors
    /// When the lake can't be read or written, or another daemon is ahead.
    pub async fn open(
        lake: Lake,
        source: &str,
        nonce: String,
        merging: Merging,
    ) -> Result<(Self, Option<Standing<P>>)> {
        let ledger = Ledger::<P>::open(lake.clone(), source, nonce).await?;
        let mut writer = Self {
            lake,
            source: source.to_owned(),
            tables: BTreeMap::new(),
            merging,
            members: Roster::new(),
            ledger,
            merging_to: BTreeMap::new(),
            maintained: Instant::now(),
        };
        let Some(file) = writer.ledger.newest().cloned() else { return Ok((writer, None)) };
        let standing = writer.take_over(&file).await?;
        Ok((writer, Some(standing)))
    }

    /// Where changes are staged.
    fn folder(&self) -> String {
        format!("_lakeward/{}/staged", self.source)
    }

    /// Fences every table that has not taken up the newest epoch, so that what it holds is final.
    async fn take_over(&mut self, file: &EpochFile<P>) -> Result<Standing<P>> {
        let ids: Vec<TableId> = file.roster.iter().flatten().map(|(id, _)| id.clone()).collect();
        for (id, table) in self.open_tables(&ids).await? {
            self.put(id, table);
        }
        let app_id = self.ledger.app_id();
        let (fence_id, next) = (self.ledger.fence_id(), self.ledger.next() as i64);
        let lake = self.lake.clone();
        let mut members = BTreeMap::new();
        let mut fenced = next;
        for id in ids {
            let slot = self.slot(&id)?;
            let table = slot.table_mut().ok_or_else(|| lost(&id))?;
            let mut txn = table.txn(&app_id);
            let step = file.commits.get(&id).filter(|_| txn != Some(file.epoch as i64));
            if let Some(step) = step.filter(|_| !planted::is(Bug::NoFence)) {
                if let (None, Some(schema)) = (table.version(), &step.creates) {
                    table.evolve(&Arc::new(schema.clone()))?;
                }
                let found = table.fence(&fence_id, next).await?;
                fenced = fenced.max(found);
                txn = table.txn(&app_id);
            }
            let mut schema = table.source_schema().cloned();
            let Some(member) = file.holds(&id, txn) else { continue };
            let mut start = member.clone();
            match slot.take_over(&member.staged, &lake).await {
                Ok(staged) => schema = staged.or(schema),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => (start.state, start.reason) = (State::Gap, Some(error.full())),
            }
            if let Some(reason) = slot.is_of_another_shape() {
                (start.state, start.reason) = (State::Gap, Some(reason));
            }
            slot.paused = start.state == State::Paused;
            members.insert(id.clone(), (start, schema));
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
                table.set_merge(self.merging.modes.get(id).copied().unwrap_or_default());
                Ok((id.clone(), table))
            };
            opens.push(open.boxed());
        }
        let opens = futures::stream::iter(opens).buffer_unordered(OPENS_AT_ONCE);
        let opened: Vec<_> = opens.collect().await;
        opened.into_iter().collect()
    }

    fn put(&mut self, id: TableId, table: Table) {
        let interval = self.merging.intervals.get(&id).copied();
        let shape = self.merging.shape_of(&id).clone();
        self.tables.insert(id, Slot::new(table, interval, shape));
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
        Ok(self.slot(id)?.size().rows > 0)
    }

    /// How large every table is, for metrics.
    pub fn sizes(&self) -> impl Iterator<Item = (&TableId, Size)> {
        self.tables.iter().map(|(id, slot)| (id, slot.size()))
    }

    /// What the indexes of all tables take of memory, and a merge that is under way, in bytes.
    pub fn memory(&self) -> usize {
        let merging = self.tables.values().any(|slot| slot.is_merging() || slot.is_compacting());
        self.index_size() + if merging { self.merging.cadence.bytes } else { 0 }
    }

    fn index_size(&self) -> usize {
        self.tables.values().filter_map(Slot::table).map(Table::index_size).sum()
    }

    /// Whether nothing is staged: readers see everything that is durable.
    pub fn is_settled(&self) -> bool {
        self.tables.values().all(Slot::is_settled)
    }

    /// Whether no commit of that table is to come from what was merged before.
    pub fn is_at_rest(&self, id: &TableId) -> bool {
        self.tables.get(id).is_none_or(Slot::is_at_rest)
    }

    /// Whether a merge or a compaction has ended, and waits for a flush that commits it.
    pub fn is_merged(&self) -> bool {
        self.tables.values().any(|slot| slot.is_merged() || slot.is_compacted())
    }

    /// Starts the merge of a table whose turn it is, if none is under way; of any that has staged
    /// changes, if `now`. Where there is nothing to merge, it starts a compaction.
    pub fn start_merge(&mut self, now: bool) {
        if self.tables.values().any(|slot| slot.is_merging() || slot.is_compacting()) {
            return;
        }
        for (id, slot) in &mut self.tables {
            slot.start_merge(&self.lake, self.merging.cadence, now);
            if slot.is_merging() {
                let member = self.members.get(id).filter(|member| member.state.is_whole());
                let held = member.and_then(|member| member.held.clone());
                self.merging_to.insert(id.clone(), held);
                return;
            }
        }
        self.start_compaction();
    }

    /// Starts a compaction where one is worth it: of the table whose last one is the longest ago.
    fn start_compaction(&mut self) {
        let now = Instant::now();
        if self.tables.values().any(|slot| slot.rest().is_some_and(|rest| now < rest)) {
            return;
        }
        let due = self.tables.values_mut().filter(|slot| slot.is_compaction_due());
        let mut slots: Vec<_> = due.collect();
        slots.sort_by_key(|slot| slot.rest());
        for slot in slots {
            slot.start_compaction(self.merging.cadence.worth);
            if slot.is_compacting() {
                return;
            }
        }
    }

    /// Saves the indexes of all tables, so that the next start finds them.
    pub fn save_indexes(&mut self) {
        self.tables.values_mut().filter_map(Slot::table_mut).for_each(Table::save_index);
    }

    /// Moves indexes to the state directory, the largest first, until all together take no more
    /// memory than they may (P7).
    fn bound_indexes(&mut self) {
        let limit = self.lake.cache().limit();
        let mut over = self.index_size().saturating_sub(limit);
        let mut tables: Vec<_> = self.tables.values_mut().filter_map(Slot::table_mut).collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.index_size()));
        for table in tables {
            if over == 0 {
                break;
            }
            let before = table.index_size();
            table.spill_index();
            over = over.saturating_sub(before.saturating_sub(table.index_size()));
        }
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
    /// flush, and so is one whose staged changes could not be merged.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn apply(&mut self, work: Work) -> Result<()> {
        let folder = self.folder();
        for (id, steps) in work {
            let (lake, cadence) = (self.lake.clone(), self.merging.cadence);
            self.slot(&id)?.take_up(steps, &lake, &folder, cadence).await?;
        }
        self.bound_indexes();
        Ok(())
    }

    /// Closes an epoch (E2).
    ///
    /// # Errors
    /// When the store does not answer, another daemon is ahead, or somebody else's commit got in
    /// the way: the source then starts over from the lake, which says how far it got.
    pub async fn flush(&mut self, mut plan: Plan<P>) -> Result<Report<P>> {
        for (id, slot) in &mut self.tables {
            slot.paused = plan.members.get(id).is_some_and(|m| m.state == State::Paused);
        }
        self.apply(std::mem::take(&mut plan.work)).await?;
        for (id, slot) in &mut self.tables {
            slot.take_in(self.merging.cadence).await?;
            match plan.members.get(id).is_some_and(|member| member.state.is_kept()) {
                true => slot.take_in_compaction().await?,
                false => slot.drop_compaction(),
            }
        }
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
        self.tables.values_mut().for_each(Slot::name_staged);
        let committed = self.commit(epoch, &ids, &plan.to).await?;
        self.members = plan.members;
        let merged = self.tables.values_mut().flat_map(Slot::take_merged);
        self.lake.forget(merged.map(|file| file.path).collect()).await;
        let found = |(id, slot): (&TableId, &mut Slot)| Some((id.clone(), slot.comparison.take()?));
        let findings = self.tables.iter_mut().filter_map(found).collect();
        Ok(Report { epoch, to: plan.to, missing, lost, committed, findings })
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
            if !member.state.is_kept() && slot.is_mirror() {
                slot.drop_staged();
            }
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
            member.staged.clone_from(&slot.staged);
            if planted::is(Bug::ForgetStaged) {
                member.staged.pop();
            }
            // Readers see what the table's last commit left, or what is merged now.
            let merged = self.merging_to.get(id).filter(|_| slot.has_merged()).cloned();
            if merged.is_some() {
                self.merging_to.remove(id);
            }
            if !member.staged.is_empty() {
                member.visible = match merged {
                    Some(merged) => merged.filter(|_| member.progress.keys.is_empty()),
                    None => self.members.get(id).and_then(|before| before.seen().cloned()),
                };
            }
        }
        (missing, lost)
    }

    /// The tables that this epoch commits.
    fn pending<'a>(&'a self, plan: &'a Plan<P>) -> impl Iterator<Item = &'a TableId> {
        let kept = |id: &TableId| plan.members.get(id).is_some_and(|m| m.state.is_kept());
        self.tables
            .iter()
            .filter(move |(id, slot)| {
                let pending = slot.table().is_some_and(Table::has_pending);
                pending && kept(id) && !plan.staged.contains(*id)
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
            staged: Vec::new(),
            visible: None,
        };
        let new = self.tables.get(id).and_then(Slot::table);
        let new = new.filter(|table| table.version().is_none());
        let creates = new.and_then(Table::schema).map(|schema| (**schema).clone());
        (self.members.get(id).cloned().unwrap_or(nothing), creates)
    }

    async fn commit(
        &mut self,
        epoch: u64,
        ids: &BTreeSet<TableId>,
        to: &P,
    ) -> Result<Vec<(TableId, Committed)>> {
        let txns = [(self.ledger.app_id(), epoch as i64)];
        let mut info = serde_json::Map::new();
        info.insert("lakeward.source".to_owned(), self.source.clone().into());
        info.insert("lakeward.epoch".to_owned(), epoch.into());
        info.insert("lakeward.position".to_owned(), to.to_string().into());
        let mut commits: Vec<BoxFuture<'_, (TableId, Result<Commit>, Duration)>> = Vec::new();
        for (id, slot) in &mut self.tables {
            if let Some(table) = slot.table_mut().filter(|_| ids.contains(id)) {
                let (txns, info) = (&txns, info.clone());
                let commit = async move {
                    let began = Instant::now();
                    let result = table.commit(txns, info, "STREAMING UPDATE").await;
                    (id.clone(), result, began.elapsed())
                };
                commits.push(commit.boxed());
            }
        }
        let commits = futures::stream::iter(commits).buffer_unordered(COMMITS_AT_ONCE);
        let results: Vec<_> = commits.collect().await;
        let (mut conflict, mut committed) = (None, Vec::new());
        for (id, result, took) in results {
            if result.is_err() && planted::is(Bug::ErrorIsSuccess) {
                continue;
            }
            match result? {
                Commit::Done { .. } => {
                    let mut did = self.slot(&id)?.take_turn();
                    did.took += took;
                    committed.push((id, did));
                }
                Commit::Conflict(_) if planted::is(Bug::ConflictIsSuccess) => {}
                Commit::Fenced { found, .. } => {
                    return Err(self.ledger.superseded(found.unsigned_abs()).with("table", id));
                }
                Commit::Conflict(why) => conflict = Some((id, why)),
            }
        }
        match conflict {
            None => Ok(committed),
            Some((id, why)) => Err(Error::unavailable(
                "another writer's commit got in the way; starting over from the lake",
            )
            .with("table", id)
            .with("commit", why)),
        }
    }
}

fn lost(id: &TableId) -> Error {
    Error::internal("a table is being merged already").with("table", id)
}
