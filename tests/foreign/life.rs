//! One life of a table: what the source does to it, and how Lakeward takes it to the lake, whatever
//! somebody else did there before.

use std::time::Duration;

use fastrand::Rng;
use lakeward::collapse::collapse;
use lakeward::delta::{Commit, Lake, Merge, Table};
use lakeward_connectors::key::Keys;
use lakeward_connectors::{Error, ErrorKind, Op};
use serde_json::Map;

use super::Seen;
use super::columns::{Cell, Columns, Row};
use super::delta_rs::DeltaRs;
use super::folders::Folders;
use super::model::{Act, Change, Rows};
use crate::support::Res;
use crate::support::scene::check;

/// The table's path in the lake.
pub const PATH: &str = "s/t";
/// Under which name it commits.
const APP: &str = "lakeward/s";
/// How often in a row a commit may find another one in its way, while nobody else is at work.
const TRIES: usize = 4;
/// Longer than any log is kept where nobody says otherwise.
const MONTH: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// The table, what it should hold, and who else is at it.
pub struct Life<'a> {
    pub rng: Rng,
    pub columns: Columns,
    pub other: &'a mut DeltaRs,
    pub seen: &'a mut Seen,
    /// What has happened.
    pub story: Vec<String>,
    pub folders: Folders,
    lake: Lake,
    pub table: Table,
    merge: Merge,
    pub source: Rows,
    /// What the log should lead to.
    pub committed: Rows,
    /// What the source did since the last commit.
    pub waiting: Vec<Act>,
    epoch: i64,
    /// The newest epoch that is in the log.
    held: Option<i64>,
    /// Keys that somebody else wrote rows under since the table last looked.
    pub strange: Vec<Vec<Cell>>,
    /// Whether somebody else has changed rows since then.
    pub changed: bool,
    /// Whether files that the table knows may be gone.
    pub swept: bool,
    /// Whether there may be deletion vectors.
    pub marked: bool,
    /// Whether the other writer holds the table as it once was.
    pub holds: bool,
}

impl<'a> Life<'a> {
    /// A table with some rows.
    pub async fn begin(seed: u64, other: &'a mut DeltaRs, seen: &'a mut Seen) -> Res<Self> {
        let mut rng = Rng::with_seed(seed);
        let columns = Columns::random(&mut rng);
        let folders = Folders::new()?;
        let lake = folders.open(&mut rng)?;
        let table = Table::create(&lake, PATH);
        let merge = if rng.bool() { Merge::Rewrite } else { Merge::DeletionVectors };
        let mut life = Self {
            rng,
            columns,
            other,
            seen,
            story: Vec::new(),
            folders,
            lake,
            table,
            merge,
            source: Rows::default(),
            committed: Rows::default(),
            waiting: Vec::new(),
            epoch: 0,
            held: None,
            strange: Vec::new(),
            changed: false,
            swept: false,
            marked: false,
            holds: false,
        };
        life.set_up();
        let kinds: Vec<_> = life.columns.schema.columns.iter().map(|column| &column.kind).collect();
        let keys = life.columns.schema.key().len();
        life.story.push(format!("{kinds:?}, {keys} of the key, by {:?}", life.columns.partition));
        life.generation().await?;
        life.commit().await?;
        Ok(life)
    }

    pub fn url(&self) -> String {
        self.folders.table().display().to_string()
    }

    /// What the daemon tells a table that it has opened.
    fn set_up(&mut self) {
        self.table.partition_by(self.columns.partition.clone());
        self.merge_by(self.merge);
    }

    pub fn merge_by(&mut self, merge: Merge) {
        self.merge = merge;
        self.marked |= merge == Merge::DeletionVectors;
        self.table.set_merge(merge);
    }

    /// The other way to merge.
    pub fn other_merge(&self) -> Merge {
        match self.merge {
            Merge::Rewrite => Merge::DeletionVectors,
            Merge::DeletionVectors => Merge::Rewrite,
        }
    }

    /// What the table holds once everything is committed.
    pub fn expected(&self) -> Rows {
        let mut rows = self.committed.clone();
        self.waiting.iter().for_each(|act| rows.take_up(&self.columns, act));
        rows
    }

    // What the source does.

    /// Some rows come, change and go.
    pub async fn run(&mut self) -> Res<()> {
        let mut changes = Vec::new();
        let mut keys: Vec<Vec<Cell>> = Vec::new();
        for _ in 0..self.rng.usize(1..8) {
            let row = self.columns.row(&mut self.rng);
            let change = self.change(row);
            let key = self.columns.key_of(change.row());
            if !keys.contains(&key) {
                changes.push(change);
                keys.push(key);
            }
        }
        self.act(Act::Run(changes)).await
    }

    fn change(&mut self, row: Row) -> Change {
        let key = self.columns.key_of(&row);
        let held = match self.columns.is_keyed() {
            true => self.source.get(&key).cloned(),
            // One is as good as another.
            false => self.source.iter().nth(self.rng.usize(..self.source.len().max(1))).cloned(),
        };
        let chance = self.rng.u8(..10);
        // That a row was deleted which another writer has brought meanwhile is not followed.
        let strange = self.strange.contains(&key);
        match held {
            _ if self.columns.only_grows() => Change::Put(row),
            Some(held) if !self.columns.is_keyed() && chance < 5 => Change::Delete(held),
            _ if !self.columns.is_keyed() || strange => Change::Put(row),
            Some(_) if chance < 3 => Change::Delete(row),
            Some(held) if chance < 6 => {
                let rest = self.columns.schema.key().len()..row.len();
                let left_out: Vec<_> = rest.filter(|_| self.rng.bool()).collect();
                if left_out.is_empty() {
                    return Change::Put(row);
                }
                let mut row = row;
                left_out.iter().for_each(|at| row[*at] = held[*at].clone());
                Change::Partial(row, left_out)
            }
            None if chance < 1 => Change::Delete(row),
            _ => Change::Put(row),
        }
    }

    /// All rows are read again.
    pub async fn generation(&mut self) -> Res<()> {
        let mut rows = self.source.clone();
        for _ in 0..self.rng.usize(..20) {
            rows.put(&self.columns, self.columns.row(&mut self.rng));
        }
        self.act(Act::Generation(rows)).await
    }

    pub async fn act(&mut self, act: Act) -> Res<()> {
        self.story.push(match &act {
            Act::Run(changes) => format!("a run of {}", changes.len()),
            Act::Truncate => "truncate".to_owned(),
            Act::Generation(rows) => format!("a generation of {}", rows.len()),
        });
        self.source.take_up(&self.columns, &act);
        let before = self.expected();
        self.waiting.push(act.clone());
        match self.perform(&act, &before).await? {
            true => Ok(()),
            false => self.start_over().await,
        }
    }

    /// Takes it up in the table. Says whether it could: files that it needs may be gone.
    async fn perform(&mut self, act: &Act, before: &Rows) -> Res<bool> {
        let done = match act {
            Act::Truncate => self.table.truncate().await,
            Act::Generation(rows) => {
                match self.table.begin_generation(&self.columns.schema).await {
                    Ok(()) => {
                        let reads: Vec<_> =
                            rows.iter().map(|row| (Op::Read, None, Some(row))).collect();
                        self.apply(&reads).await.map(drop)
                    }
                    error => error,
                }
            }
            Act::Run(changes) => return self.perform_run(changes, before).await,
        };
        self.may_lack(done).map(|done| done.is_some())
    }

    async fn perform_run(&mut self, changes: &[Change], before: &Rows) -> Res<bool> {
        let sent: Vec<Row> = changes.iter().map(Change::sent).collect();
        let ops = changes.iter().zip(&sent).map(|(change, sent)| match change {
            Change::Put(_) if !self.columns.is_keyed() => (Op::Insert, None, Some(sent)),
            Change::Put(row) if before.has(&self.columns.key_of(row)) => {
                (Op::Update, None, Some(sent))
            }
            Change::Put(_) => (Op::Insert, None, Some(sent)),
            Change::Partial(..) => (Op::Update, None, Some(sent)),
            Change::Delete(_) => (Op::Delete, Some(sent), None),
        });
        let ops: Vec<_> = ops.collect();
        let applied = self.apply(&ops).await;
        let Some(missing) = self.may_lack(applied)? else { return Ok(false) };
        // What the lake lacks is read from the source (S5).
        let partial = changes.iter().filter(|change| matches!(change, Change::Partial(..)));
        let mut reads = Vec::new();
        for row in partial.map(Change::row) {
            let mut key = Keys::default();
            key.push(&self.columns.schema, row).map_err(|e| e.full())?;
            let is_missing = missing.iter().any(|missing| missing == key.get(0));
            let lacks = !before.has(&self.columns.key_of(row));
            check(self.changed || is_missing == lacks, || {
                format!("the row {row:?} is missing: {is_missing}, not {lacks}")
            })?;
            reads.extend(is_missing.then_some((Op::Read, None, Some(row))));
        }
        check(reads.len() == missing.len(), || format!("other keys are missing: {missing:?}"))?;
        if reads.is_empty() {
            return Ok(true);
        }
        self.seen.read_again += reads.len();
        let applied = self.apply(&reads).await;
        self.may_lack(applied).map(|missing| missing.is_some_and(|missing| missing.is_empty()))
    }

    /// Applies changes, and gives the keys of rows that the lake lacks.
    async fn apply(
        &mut self,
        changes: &[(Op, Option<&Row>, Option<&Row>)],
    ) -> Result<Vec<Vec<u8>>, Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.columns.batch(changes).map_err(Error::internal)?;
        self.table.apply(&collapse(vec![batch])?).await.map(|applied| applied.missing)
    }

    /// The outcome; `None` where it failed since another writer has deleted files that were replaced.
    fn may_lack<T>(&mut self, outcome: Result<T, Error>) -> Res<Option<T>> {
        match outcome {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) if self.swept && error.kind() == ErrorKind::Unavailable => {
                self.seen.files_gone += 1;
                self.story.push(format!("a file is gone: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.full()),
        }
    }

    // How it gets to the lake.

    /// Commits, the way the daemon does: what finds another commit in its way starts over.
    pub async fn commit(&mut self) -> Res<()> {
        for _ in 0..TRIES {
            if !self.table.has_pending() {
                // What waits changes nothing, or the rows in the lake will tell.
                self.committed = self.expected();
                self.waiting.clear();
                return Ok(());
            }
            self.epoch += 1;
            let before = self.table.version().map_or(0, |version| version + 1);
            let txns = [(APP.to_owned(), self.epoch)];
            let committed = self.table.commit(&txns, Map::new(), "STREAMING UPDATE").await;
            match self.may_lack(committed)? {
                Some(Commit::Done { version }) => {
                    self.story.push(format!("commit of {version}"));
                    self.held = Some(self.epoch);
                    self.seen.commits += 1;
                    self.seen.behind_others += usize::from(version > before);
                    self.committed = self.expected();
                    self.waiting.clear();
                    self.looked();
                    return Ok(());
                }
                Some(Commit::Conflict(why)) => {
                    self.story.push(format!("conflict: {why}"));
                    self.seen.conflicts += 1;
                }
                None => {}
                Some(fenced) => return Err(format!("{fenced:?}")),
            }
            self.start_over().await?;
        }
        Err("the commit finds another one in its way again and again".to_owned())
    }

    /// The table has seen everything there is.
    pub fn looked(&mut self) {
        self.strange.clear();
        self.changed = false;
        self.swept = false;
    }

    /// Goes back to what the lake says; what was not committed comes again.
    async fn start_over(&mut self) -> Res<()> {
        match self.rng.bool() {
            true => self.table.discard().await.map_err(|error| error.full())?,
            false => self.open_again().await?,
        }
        self.again().await
    }

    async fn again(&mut self) -> Res<()> {
        self.looked();
        let mut rows = self.committed.clone();
        for act in self.waiting.clone() {
            check(self.perform(&act, &rows).await?, || "a file is gone, of no version".to_owned())?;
            rows.take_up(&self.columns, &act);
        }
        Ok(())
    }

    /// A crash: all but the lake is lost, and the state directory may be another than it was.
    pub async fn crash(&mut self) -> Res<()> {
        // The lock of the state directory goes with the lake.
        self.lake = Lake::memory();
        self.table = Table::create(&self.lake, PATH);
        let what = self.folders.another_state(&mut self.rng)?;
        self.story.push(format!("a crash, {what} state directory"));
        self.seen.crashes += 1;
        if self.rng.bool() {
            self.age().await?;
        }
        self.open_again().await?;
        if self.rng.bool() {
            self.epoch += 1;
            let fenced = self.table.fence(&format!("{APP}/fence"), self.epoch).await;
            check(fenced.map_err(|e| e.full())? == self.epoch, || "a fence above".to_owned())?;
        }
        self.again().await
    }

    /// A month goes by in which nobody does anything, nor holds the table.
    async fn age(&mut self) -> Res<()> {
        self.folders.age(MONTH)?;
        tokio::time::advance(MONTH).await;
        self.holds = false;
        self.story.push("a month".to_owned());
        Ok(())
    }

    async fn open_again(&mut self) -> Res<()> {
        self.lake = Lake::memory();
        self.table = Table::create(&self.lake, PATH);
        self.lake = self.folders.open(&mut self.rng)?;
        let table = Table::open(&self.lake, PATH).await.map_err(|error| error.full())?;
        self.table = table.ok_or("the table is gone")?;
        let held = self.table.txn(APP);
        check(held == self.held, || format!("it holds epoch {held:?}, not {:?}", self.held))?;
        self.set_up();
        self.looked();
        Ok(())
    }

    /// Keeps the state directory as it is, for a later crash.
    pub fn keep_state(&mut self) -> Res<()> {
        self.table.save_index();
        self.folders.keep_state()
    }

    /// It looks at what others have committed.
    pub async fn refresh(&mut self) -> Res<()> {
        let refreshed = self.table.refresh().await;
        if self.may_lack(refreshed)?.is_none() {
            return self.start_over().await;
        }
        self.looked();
        Ok(())
    }

    /// What the daemon does between flushes: files that nobody needs any more go.
    pub async fn maintain(&mut self) -> Res<()> {
        let unused = self.table.unused(Duration::ZERO).await;
        let Some(unused) = self.may_lack(unused)? else { return self.start_over().await };
        self.looked();
        self.story.push(format!("{} files are not needed", unused.paths.len()));
        self.seen.own_vacuumed += self.lake.delete_all(unused.paths).await;
        Ok(())
    }

    // What it looks like.

    /// What a start finds in the lake is what was committed; and the table here knows it, unless
    /// others have changed it since.
    pub async fn check(&mut self) -> Res<()> {
        let expected = self.expected();
        check(self.changed || self.table.rows() == expected.len() as u64, || {
            format!("the table counts {} rows, not {}", self.table.rows(), expected.len())
        })?;
        if !self.columns.is_keyed() {
            // Nothing of Lakeward's compares rows without a key.
            return self.other_reads();
        }
        let found = self.differences().await.map_err(|error| error.full())?;
        check(found.is_empty(), || format!("a start finds {found:?}"))
    }

    async fn differences(&mut self) -> Result<Vec<String>, Error> {
        let opened = Table::open(&self.folders.open_alone()?, PATH).await?;
        let mut table = opened.ok_or_else(|| Error::internal("the table is gone"))?;
        let reads = self.committed.iter().map(|row| (Op::Read, None, Some(row)));
        let batch = self.columns.batch(&reads.collect::<Vec<_>>()).map_err(Error::internal)?;
        let mut seen = table.begin_comparison().await?;
        let differs = table.compare(&collapse(vec![batch])?, &mut seen).await?;
        let extra = table.unseen(&seen, 5).await?;
        let differs = differs.into_iter().flatten().map(|one| format!("{one:?}"));
        Ok(differs.chain(extra.into_iter().flatten().map(|key| format!("extra {key:?}"))).collect())
    }
}
