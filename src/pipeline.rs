//! One source, from its log to its tables.
//!
//! ```text
//!   stream ─ decode ─► changes ─ take ─► writer ─ collapse, index, files ─► commit
//!      ▲                 ▲  rows of closed windows                             │
//!      │              snapshots ◄─ keys to read again ─────────────────────────┤
//!      └───────────────────────── durable position ◄───────────────────────────┘
//! ```
//!
//! One loop drives everything; the writer works beside it, one operation at a time, so that
//! decoding goes on while files are written and the source is never kept waiting for an answer.
//!
//! Invariants, asserted here and named in tests:
//! I1 a flush closes between two transactions (E2); I2 the acknowledged position is a completed
//! epoch's (P3); I3 held positions never go down (E5); I4 a table whose changes were dropped is
//! never live again without a snapshot (P2, P8); I5 no chunk is read under a view that misses a
//! delivered transaction (S4); I6 what waits stays within the memory budget (P7).

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::schema::TableId;
use lakeward_connectors::source::{Catalog, Decoded, Position, Source, Stream};
use lakeward_connectors::{Error, Result};
use serde::Serialize;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::board::{Flushed, Meter};
use crate::budget::Budget;
use crate::buffer::Changes;
use crate::delta::Lake;
use crate::epoch::{Member, Roster, State};
use crate::planted::{self, Bug};
use crate::snapshot::{Event, Snapshots};
use crate::start::{SnapshotMode, Start, open_writer, plan_starts};
use crate::verify::{Found, Request};
use crate::writer::{Merging, Plan, Report, Size, Writer};

mod act;
mod dropped;
mod sight;
mod tables;
mod tracked;
mod verify;

use act::Waiting;
pub use act::{Act, Answer};
pub(crate) use dropped::another;
pub use dropped::{DroppedTables, was_followed};
use tracked::Tracked;
pub use verify::Answers;
use verify::Verifications;

/// How the daemon treats a source; from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source's name.
    pub source: String,
    /// The longest a change waits before it is committed.
    pub flush_interval: Duration,
    /// The budget for buffers.
    pub memory: Budget,
    /// How many chunks are read at a time.
    pub snapshot_connections: usize,
    /// Tables whose rows are not simply read when they are first kept.
    pub snapshot_modes: BTreeMap<TableId, SnapshotMode>,
    /// What becomes of tables that the source has no more.
    pub dropped_tables: DroppedTables,
    /// How and when changed rows are merged.
    pub merging: Merging,
    /// How often the catalog is looked at for what the log doesn't show.
    pub catalog_interval: Duration,
    /// How often a source on which nothing happens gets an empty epoch.
    pub idle_interval: Duration,
    /// End when everything that was committed at the start is in the lake, and verified if that is
    /// asked for.
    pub until_current: bool,
    /// How many bytes a second verifications read of the source.
    pub verify_rate: u64,
    /// How often every table is verified.
    pub verify_every: Option<Duration>,
    /// Which start of which process this is.
    pub nonce: String,
}

/// How a source ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Tables that stopped, each with the reason.
    pub stopped: BTreeMap<TableId, String>,
    /// What verifications found.
    pub verified: Found,
    /// What was done to each table that was kept to the end.
    pub tables: BTreeMap<TableId, Summary>,
}

/// What a run did to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The rows that it has now.
    pub rows: u64,
    /// The rows that snapshots read.
    pub read: u64,
    /// The changes that the log brought.
    pub changes: u64,
}

/// What is asked of a source while it is kept.
#[derive(Debug)]
pub enum Order {
    /// Lake and source are to be compared.
    Verify(Request, Option<Answers>),
    /// Something is asked of a table.
    Table(Act, TableId, oneshot::Sender<Answer>),
}

/// The bounds of what a chunk of existing rows holds, in bytes as the source sends them.
const CHUNK_LEAST: usize = 1 << 20;
const CHUNK_MOST: usize = 16 << 20;

/// How often the writer may look after its tables, one at a time.
const MAINTAIN: Duration = Duration::from_secs(10);

/// How often the board is told what is seen.
const SIGHT: Duration = Duration::from_secs(1);

/// How often the loop looks around when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// The wall clock, for what people read; no decision but the advisory lease depends on it.
pub fn now_ms() -> i64 {
    if let Some(simulated) = planted::clock() {
        return simulated;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// A look at the catalog: what the tables are, a position by which the log has shown it, and a view
/// that later views have to be past before rows are read.
struct Look<S: Source> {
    high: S::Position,
    horizon: S::View,
}

impl<S: Source> Clone for Look<S> {
    fn clone(&self) -> Self {
        Self { high: self.high.clone(), horizon: self.horizon.clone() }
    }
}

type WriterBox<S> = Box<Writer<<S as Source>::Position>>;

/// The writer comes back with what became of its work.
type Worked<S> = (WriterBox<S>, Result<Done<<S as Source>::Position>>);

enum Done<P> {
    Applied,
    Maintained,
    Flushed(Report<P>),
}

/// One source being kept.
pub struct Pipeline<S: Source> {
    source: S,
    stream: S::Stream,
    changes: Changes<S::Position>,
    snapshots: Snapshots<S>,
    tables: BTreeMap<TableId, Tracked<S>>,
    /// Tables that match the configuration but can't be kept.
    refused: BTreeMap<TableId, String>,
    verifying: Verifications<S>,
    /// Those who have paused tables and wait for an answer.
    waiting: Vec<Waiting>,
    /// `None` while it works.
    writer: Option<WriterBox<S>>,
    working: JoinSet<Worked<S>>,
    /// What the writer works on, in bytes of the memory budget.
    in_writer: usize,
    /// What the tables' indexes and merges take of it.
    writer_size: usize,
    identity: String,
    /// Up to where everything is durable.
    durable: S::Position,
    /// Where `until_current` ends.
    target: S::Position,
    /// Where the log ended at the last look at the catalog.
    newest: sight::Newest<S::Position>,
    /// Whether the roster changed since the last epoch.
    dirty: bool,
    /// Whether the writer has applied what no epoch has committed.
    applied: bool,
    last_flush: Instant,
    last_catalog: Instant,
    last_view: Instant,
    last_nudge: Instant,
    last_maintain: Instant,
    last_sight: Instant,
    last_verify: Instant,
    settings: Settings,
    meter: Meter,
}

/// Keeps `source` in `lake` until `stop`, an error, or, with `until_current`, the end.
///
/// # Errors
/// [`Unavailable`](lakeward_connectors::ErrorKind::Unavailable): start over from the lake, later.
/// Any other kind: what its error says.
pub async fn run<S: Source>(
    source: S,
    lake: Lake,
    settings: Settings,
    meter: Meter,
    orders: &mut Receiver<Order>,
    stop: CancellationToken,
) -> Result<Ended> {
    let mut pipeline = tokio::select! {
        pipeline = Pipeline::start(source, lake, settings, meter) => pipeline?,
        () = stop.cancelled() => return Ok(Ended::default()),
    };
    pipeline.run(orders, stop).await
}

impl<S: Source> Pipeline<S> {
    /// Takes the source over (E6) and opens its log.
    async fn start(mut source: S, lake: Lake, settings: Settings, meter: Meter) -> Result<Self> {
        let (writer, standing) = open_writer(&lake, &settings).await?;
        let catalog = source.discover().await?;
        let schemas: Vec<_> = catalog.tables.iter().map(|listed| listed.schema.clone()).collect();
        if let Some(standing) = &standing {
            source.expect(&standing.identity);
        }
        let established = source.establish(&schemas).await?;
        source.expect(&established.identity);
        let selects = |id: &TableId| source.selects(id);
        let starts = plan_starts(standing, &catalog, &established, &settings, &selects);
        let resume = starts.resume.unwrap_or_else(|| established.oldest.clone());
        info!(source = settings.source, position = %resume, tables = schemas.len(), "following");
        let kept: Vec<_> = starts.tables.iter().filter_map(Start::kept).cloned().collect();
        let stream = source.stream(&resume, &kept).await?;
        // After the publication was brought up to date.
        let (catalog, look) = look(&mut source).await?;
        let now = Instant::now();
        let newest = sight::Newest::new(catalog.high.clone(), &established);
        let mut pipeline = Self {
            snapshots: Snapshots::new(settings.snapshot_connections),
            changes: Changes::new(resume.clone(), settings.merging.traced()),
            stream,
            source,
            tables: BTreeMap::new(),
            refused: catalog.refused.iter().cloned().collect(),
            verifying: Verifications::new(),
            waiting: Vec::new(),
            writer: Some(Box::new(writer)),
            working: JoinSet::new(),
            in_writer: 0,
            writer_size: 0,
            identity: established.identity,
            durable: resume,
            target: look.high.clone(),
            newest,
            dirty: true,
            applied: false,
            last_flush: now,
            last_catalog: now,
            last_view: now,
            last_nudge: now,
            last_maintain: now,
            last_sight: now,
            last_verify: now,
            settings,
            meter,
        };
        pipeline.changes.remember(&starts.unseen);
        for start in starts.tables {
            pipeline.take_in(start, &catalog, &look).await?;
        }
        pipeline.meter.starts();
        pipeline.meter.listed(&catalog.tables);
        if let Some(writer) = &pipeline.writer {
            pipeline.meter.sizes(writer.sizes());
        }
        pipeline.tell();
        Ok(pipeline)
    }

    async fn run(
        &mut self,
        orders: &mut Receiver<Order>,
        stop: CancellationToken,
    ) -> Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while let Ok(order) = orders.try_recv() {
                self.take_order(order).await?;
            }
            self.advance().await?;
            if self.settings.until_current && self.is_current() {
                return self.end().await;
            }
            // Chunks under way don't count: what they wait for is in the log. There is only as many
            // of them as fit into their own share.
            let room = self.changes.size() + self.in_writer < self.buffers() / 2;
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.end().await,
                Some(done) = self.working.join_next() => {
                    let (writer, done) = done.map_err(|error| {
                        Error::internal("the writer ended").caused_by(error)
                    })?;
                    self.came_back(writer);
                    self.done(done?).await?;
                }
                _ = tick.tick() => self.look_around().await?,
                Some(order) = orders.recv() => self.take_order(order).await?,
                Some(event) = self.snapshots.next(), if room => self.chunk(event).await?,
                Some(event) = self.verifying.reading.next(), if room => {
                    self.verified_chunk(event)?;
                }
                message = self.stream.next(), if room => self.message(message?).await?,
            }
        }
    }

    /// Decodes one message; whatever it needs to know of the catalog is asked for.
    async fn message(&mut self, message: <S::Stream as Stream>::Message) -> Result<()> {
        while self.stream.decode(&message, &mut self.changes)? == Decoded::Unresolved {
            for resolved in self.stream.resolve().await? {
                self.resolved(resolved).await?;
            }
        }
        for (table, reason) in std::mem::take(&mut self.changes.stopped) {
            let reason = reason.hide(|column| self.hides(&table, column));
            self.stop_table(&table, reason.to_string());
        }
        Ok(())
    }

    async fn take_order(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Verify(request, answers) => self.want_verified(&request, answers.as_ref()),
            Order::Table(act, table, answer) => self.act(act, table, answer).await?,
        }
        Ok(())
    }

    /// Takes up what a chunk reader reports.
    async fn chunk(&mut self, event: Event<S>) -> Result<()> {
        if let Event::Part(_, lakeward_connectors::source::Part::Opened(view)) = &event {
            self.changes.seen_by(view, self.oldest_window());
        }
        let Some((table, error)) = self.snapshots.take_up(event, &mut self.changes)? else {
            return Ok(());
        };
        let error = error.hide(|column| self.hides(&table, column));
        // Either the table changed under the chunk, and the catalog says how, or a value doesn't fit.
        let (catalog, look) = look(&mut self.source).await?;
        let listed = catalog.tables.iter().find(|listed| listed.schema.id == table);
        let known = self.tables.get(&table).map(|tracked| tracked.schema.clone());
        match (listed, known) {
            (Some(listed), Some(known)) if listed.schema != known => {
                self.read_again(listed.schema.clone(), &look, error.to_string());
            }
            (None, _) if !self.refused.contains_key(&table) => self.stop_gone(&table, S::FINDS_ALL),
            _ => self.stop_table(&table, error.full()),
        }
        Ok(())
    }

    /// Does whatever can be done now.
    async fn advance(&mut self) -> Result<()> {
        self.let_tables_join();
        for table in self.snapshots.close_windows(&mut self.changes) {
            info!(%table, "snapshot complete");
            if let Some(tracked) = self.tables.get_mut(&table) {
                tracked.reason = None;
            }
            self.dirty = true;
        }
        self.settle_drift();
        self.settle_leaving();
        let memory = self.buffers();
        if self.snapshots.size() < memory / 4 && self.changes.touched_size() < memory / 8 {
            if self.snapshots.wants_reader(self.changes.position()) {
                let connections = self.settings.snapshot_connections;
                let chunk = memory / 8 / (connections + 1);
                let chunk = chunk.clamp(CHUNK_LEAST, CHUNK_MOST);
                let reader = self.source.reader(chunk).await?;
                self.snapshots.add_reader(reader);
            }
            self.snapshots.dispatch(&mut self.changes);
            self.verify().await?;
        }
        for table in self.changes.overflowing(memory / 4) {
            if self.snapshots.holds_back(&table) {
                let reason = "it changed more while it was read whole than memory holds; give it \
                              a key, or raise lake.memory, and start again";
                self.stop_table(&table, reason.to_owned());
            }
        }
        self.write().await
    }

    /// Gives the writer its next work, when it has none.
    async fn write(&mut self) -> Result<()> {
        let caught_up = self.is_caught_up();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.start_merge(caught_up);
        self.writer_size = writer.memory();
        if self.is_flush_due() {
            return self.flush().await;
        }
        if self.changes.size() >= self.buffers() / 4 {
            let work = self.take_work();
            self.applied = true;
            self.give(move |mut writer| async move {
                let done = writer.apply(work).await.map(|()| Done::Applied);
                (writer, done)
            });
        }
        Ok(())
    }

    /// The part of the memory budget that buffers may take: what indexes and merges leave of it, and
    /// an eighth for what the allocator keeps of what was given back to it.
    fn buffers(&self) -> usize {
        let memory = self.settings.memory.bytes() / 8 * 7;
        memory.saturating_sub(self.writer_size).max(memory / 4)
    }

    fn take_work(&mut self) -> crate::buffer::Work {
        self.in_writer = self.changes.size();
        let snapshots = &self.snapshots;
        self.changes.take(|table| snapshots.holds_back(table))
    }

    fn give<F, Fut>(&mut self, operation: F)
    where
        F: FnOnce(WriterBox<S>) -> Fut,
        Fut: Future<Output = Worked<S>> + Send + 'static,
    {
        if let Some(writer) = self.writer.take() {
            self.working.spawn(operation(writer));
        }
    }

    fn came_back(&mut self, writer: WriterBox<S>) {
        self.in_writer = 0;
        self.writer_size = writer.memory();
        self.writer = Some(writer);
    }

    /// Whether everything is read that has to be before the source may end.
    fn is_caught_up(&self) -> bool {
        self.settings.until_current
            && self.changes.position().covers(&self.target)
            && self.snapshots.is_empty()
    }

    /// I1: never inside a transaction.
    fn is_flush_due(&self) -> bool {
        if !self.changes.at_boundary() && !planted::is(Bug::FlushInside) {
            return false;
        }
        let waited = self.last_flush.elapsed();
        let moved = !self.durable.covers(self.changes.position());
        let merged = self.writer.as_ref().is_some_and(|writer| writer.is_merged());
        let needed = self.changes.has_work() || self.dirty || self.applied || merged;
        if self.is_caught_up() && (needed || moved) {
            return true;
        }
        (needed && waited >= self.settings.flush_interval)
            || (moved && waited >= self.settings.idle_interval)
    }

    async fn flush(&mut self) -> Result<()> {
        debug_assert!(self.changes.at_boundary() || planted::is(Bug::FlushInside), "I1");
        if !self.changes.unseen().is_empty() {
            let view = self.source.view().await?;
            self.changes.seen_by(&view, self.oldest_window());
        }
        let to = self.changes.position().clone();
        if planted::is(Bug::AcknowledgeEarly) {
            self.stream.acknowledge(&to);
        }
        let plan = Plan {
            identity: self.identity.clone(),
            members: self.roster(&to),
            staged: self.tables.keys().filter(|t| self.snapshots.is_staged(t)).cloned().collect(),
            unseen: self.changes.unseen(),
            work: self.take_work(),
            to,
            now_ms: now_ms(),
        };
        self.tell_paused();
        (self.dirty, self.applied) = (false, false);
        self.last_flush = Instant::now();
        self.give(move |mut writer| async move {
            let done = writer.flush(plan).await.map(Done::Flushed);
            (writer, done)
        });
        Ok(())
    }

    /// What every table holds once everything up to `to` is applied.
    fn roster(&self, to: &S::Position) -> Roster<S::Position> {
        let refused = self.refused.iter().map(|(id, reason)| (id, Some(reason.clone()), None));
        let tables = self.tables.iter().map(|(id, t)| (id, t.stopped.clone(), Some(t)));
        let mut roster = Roster::new();
        for (id, stopped, tracked) in refused.chain(tables) {
            let progress = self.snapshots.progress(id).unwrap_or_default();
            let paused = tracked.is_some_and(|tracked| tracked.paused);
            let dropped = tracked.and_then(|tracked| tracked.dropped.clone());
            let state = match (&stopped, self.snapshots.progress(id).is_some()) {
                (Some(_), _) => State::Stopped,
                (None, true) => State::Snapshot,
                (None, false) if dropped.is_some() => State::Dropped,
                (None, false) if paused => State::Paused,
                (None, false) => State::Live,
            };
            let ahead = tracked.and_then(|t| t.held.as_ref()).filter(|held| !to.covers(held));
            let held = ahead.map_or_else(|| to.clone(), |held| held.join(to));
            let reason = stopped.or(dropped).or_else(|| tracked.and_then(|t| t.reason.clone()));
            let (held, staged) = (Some(held), Vec::new());
            roster.insert(
                id.clone(),
                Member { state, held, progress, reason, staged, visible: None },
            );
        }
        if planted::is(Bug::ForgetMember) {
            roster.pop_first();
        }
        roster
    }

    /// Takes up what the writer did. I2: only here the source is acknowledged.
    async fn done(&mut self, done: Done<S::Position>) -> Result<()> {
        let Done::Flushed(report) = done else { return Ok(()) };
        debug_assert!(report.to.covers(&self.durable), "I3");
        let commits = report.committed.len();
        debug!(epoch = report.epoch, to = %report.to, commits, "durable");
        for (table, state, reason) in report.lost {
            match state {
                State::Gap => self.look_again(&table, reason).await?,
                _ => self.stop_table(&table, reason),
            }
        }
        let position = self.changes.position().clone();
        for (table, keys) in report.missing {
            let Some(tracked) = self.tables.get(&table) else { continue };
            let (stopped, schema) = (tracked.stopped.is_some(), tracked.schema.clone());
            if !stopped && !planted::is(Bug::ForgetKeys) {
                if !planted::is(Bug::ReadTwice) {
                    let reason = "rows were read again while it was compared";
                    self.interrupt_verification(&table, reason);
                }
                self.snapshots.add_keys(&schema, &position, keys);
                self.dirty = true;
            }
        }
        self.found(report.findings).await?;
        self.durable = report.to;
        self.stream.acknowledge(&self.durable);
        self.answer_paused();
        self.changes.all_durable();
        if let Some(writer) = &self.writer {
            let flushed = Flushed {
                epoch: report.epoch,
                durable: self.durable.to_string(),
                took: self.last_flush.elapsed(),
                committed: report.committed,
            };
            self.meter.flushed(flushed, writer.sizes());
            if report.epoch.is_multiple_of(100) {
                writer.prune().await?;
            }
        }
        Ok(())
    }

    /// What is done now and then.
    async fn look_around(&mut self) -> Result<()> {
        let now = Instant::now();
        let behind = self.snapshots.waits_for_stream(self.changes.position())
            || self.verifying.reading.waits_for_stream(self.changes.position())
            || (self.settings.until_current && !self.changes.position().covers(&self.target))
            || self.tables.values().any(Tracked::waits);
        if behind && now - self.last_nudge >= TICK {
            self.last_nudge = now;
            self.stream.nudge();
        }
        if self.snapshots.waits_for_view() && now - self.last_view >= 4 * TICK {
            self.last_view = now;
            let view = self.source.view().await?;
            self.snapshots.pass_horizons(&view);
        }
        if now - self.last_sight >= SIGHT {
            self.last_sight = now;
            self.tell();
        }
        if now - self.last_catalog >= self.settings.catalog_interval && self.writer.is_some() {
            self.last_catalog = now;
            self.look_at_catalog().await?;
        }
        let every = self.settings.verify_every.unwrap_or(Duration::MAX);
        if now - self.last_verify >= every && self.verifying.is_idle() {
            self.last_verify = now;
            self.want_verified(&Request { table: None, repair: false }, None);
        }
        if now - self.last_maintain >= MAINTAIN && self.changes.size() < self.buffers() / 8 {
            self.last_maintain = now;
            self.give(|mut writer| async move {
                let done = writer.maintain().await.map(|_| Done::Maintained);
                (writer, done)
            });
        }
        Ok(())
    }

    /// Whether everything that was committed at the start is durable in live tables.
    fn is_current(&self) -> bool {
        self.durable.covers(&self.target)
            && self.writer.as_ref().is_some_and(|writer| writer.is_settled())
            && self.snapshots.is_empty()
            && self.verifying.is_idle()
            && !self.dirty
            && !self.tables.values().any(Tracked::waits)
    }

    /// Flushes what is complete, commits it, and ends.
    async fn end(&mut self) -> Result<Ended> {
        self.settle_writer().await?;
        // A transaction that is under way has left no complete steps to flush on its own.
        let open = self.changes.has_work() || self.dirty || self.applied;
        if self.changes.at_boundary() && open {
            self.flush().await?;
            self.settle_writer().await?;
        }
        if let Some(writer) = &mut self.writer {
            writer.save_indexes();
        }
        let stopped = self
            .tables
            .iter()
            .filter_map(|(id, tracked)| Some((id.clone(), self.fault(tracked)?.to_owned())))
            .collect();
        // The acknowledgement is on its way; the source keeps what it does not get.
        self.stream.nudge();
        let verified = std::mem::take(&mut self.verifying.results);
        Ok(Ended { stopped, verified, tables: self.summaries() })
    }

    /// Why a table is not kept that ought to be.
    fn fault<'a>(&self, tracked: &'a Tracked<S>) -> Option<&'a str> {
        let dropped = self.settings.dropped_tables == DroppedTables::Stop;
        let stopped = tracked.stopped.as_deref().filter(|_| !tracked.absent);
        stopped.or_else(|| tracked.dropped.as_deref().filter(|_| dropped))
    }

    fn summaries(&self) -> BTreeMap<TableId, Summary> {
        let sizes = self.writer.iter().flat_map(|writer| writer.sizes());
        let kept =
            sizes.filter(|(id, _)| self.tables.get(*id).is_some_and(|t| t.stopped.is_none()));
        let summary = |(id, size): (&TableId, Size)| {
            let (read, changes) = (self.snapshots.rows_read(id), self.changes.tally(id).0);
            (id.clone(), Summary { rows: size.rows, read, changes })
        };
        kept.map(summary).collect()
    }

    async fn settle_writer(&mut self) -> Result<()> {
        while let Some(done) = self.working.join_next().await {
            let (writer, done) =
                done.map_err(|error| Error::internal("the writer ended").caused_by(error))?;
            self.came_back(writer);
            self.done(done?).await?;
        }
        Ok(())
    }
}

/// Looks at the catalog.
async fn look<S: Source>(source: &mut S) -> Result<(Catalog<S::Position>, Look<S>)> {
    let catalog = source.discover().await?;
    let look = Look { high: catalog.high.clone(), horizon: source.view().await? };
    Ok((catalog, look))
}
