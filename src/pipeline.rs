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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lakeward_connectors::schema::{Evolution, Identity, TableId, TableSchema};
use lakeward_connectors::source::{Catalog, Decoded, Position, Range, Resolved, Source, Stream};
use lakeward_connectors::{Error, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::buffer::{Changes, Step};
use crate::delta::Lake;
use crate::epoch::{Member, Progress, Roster, State};
use crate::metrics::Meter;
use crate::snapshot::{Event, Snapshots};
use crate::start::{Start, open_writer, plan_starts};
use crate::writer::{Plan, Report, Writer};

/// How the daemon treats a source; from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source's name.
    pub source: String,
    /// The longest a change waits before it is committed.
    pub flush_interval: Duration,
    /// The budget for buffers, in bytes.
    pub memory: usize,
    /// How many chunks are read at a time.
    pub snapshot_connections: usize,
    /// How often the catalog is looked at for what the log doesn't show.
    pub catalog_interval: Duration,
    /// How often a source on which nothing happens gets an empty epoch.
    pub idle_interval: Duration,
    /// End when everything that was committed at the start is in the lake.
    pub until_current: bool,
    /// Which start of which process this is.
    pub nonce: String,
}

/// How a source ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Tables that stopped, each with the reason.
    pub stopped: BTreeMap<TableId, String>,
}

/// How often the loop looks around when nothing happens.
const TICK: Duration = Duration::from_millis(50);

/// The wall clock, for what people read; no decision but the advisory lease depends on it.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// A table that is kept, or that ought to be.
struct Tracked<S: Source> {
    /// The schema under which its changes are decoded; what the lake holds once they are applied.
    schema: Arc<TableSchema>,
    /// Why it is not kept.
    stopped: Option<String>,
    /// Whether it is not kept because the source doesn't offer it (any more): it joins again when
    /// it does.
    absent: bool,
    /// Why it is read again, while it is.
    reason: Option<String>,
    /// What it held at the start, until the stream is past it (E5).
    held: Option<S::Position>,
    /// The position from which on the stream shows it; set aside until the stream is there.
    joins: Option<S::Position>,
    /// What the catalog says now, and a position by which the log would have said it too.
    drift: Option<(Arc<TableSchema>, Look<S>)>,
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

enum Done<P> {
    Applied,
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
    /// `None` while it works.
    writer: Option<WriterBox<S>>,
    working: JoinSet<(WriterBox<S>, Result<Done<S::Position>>)>,
    /// What the writer works on, in bytes of the memory budget.
    in_writer: usize,
    identity: String,
    /// Up to where everything is durable.
    durable: S::Position,
    /// Where `until_current` ends.
    target: S::Position,
    /// Whether the roster changed since the last epoch.
    dirty: bool,
    /// Whether the writer has applied what no epoch has committed.
    applied: bool,
    last_flush: Instant,
    last_catalog: Instant,
    last_view: Instant,
    last_nudge: Instant,
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
    stop: CancellationToken,
) -> Result<Ended> {
    let mut pipeline = tokio::select! {
        pipeline = Pipeline::start(source, lake, settings, meter) => pipeline?,
        () = stop.cancelled() => return Ok(Ended { stopped: BTreeMap::new() }),
    };
    pipeline.run(stop).await
}

impl<S: Source> Pipeline<S> {
    /// Takes the source over (E6) and opens its log.
    async fn start(mut source: S, lake: Lake, settings: Settings, meter: Meter) -> Result<Self> {
        let (writer, standing) = open_writer(&lake, &settings).await?;
        let catalog = source.discover().await?;
        let schemas: Vec<_> = catalog.tables.iter().map(|listed| listed.schema.clone()).collect();
        let established = source.establish(&schemas).await?;
        let starts = plan_starts(standing, &catalog, &established);
        let resume = starts.resume.unwrap_or_else(|| established.oldest.clone());
        info!(source = settings.source, position = %resume, tables = schemas.len(), "following");
        let kept: Vec<_> = starts.tables.iter().filter_map(Start::kept).cloned().collect();
        let stream = source.stream(&resume, &kept).await?;
        // After the publication was brought up to date.
        let (catalog, look) = look(&mut source).await?;
        let now = Instant::now();
        let mut pipeline = Self {
            snapshots: Snapshots::new(settings.snapshot_connections),
            changes: Changes::new(resume.clone()),
            stream,
            source,
            tables: BTreeMap::new(),
            refused: catalog.refused.iter().cloned().collect(),
            writer: Some(Box::new(writer)),
            working: JoinSet::new(),
            in_writer: 0,
            identity: established.identity,
            durable: resume,
            target: look.high.clone(),
            dirty: true,
            applied: false,
            last_flush: now,
            last_catalog: now,
            last_view: now,
            last_nudge: now,
            settings,
            meter,
        };
        pipeline.changes.remember(&starts.unseen);
        for start in starts.tables {
            pipeline.take_in(start, &catalog, &look).await?;
        }
        Ok(pipeline)
    }

    /// Starts keeping one table as the lake and the catalog say.
    async fn take_in(
        &mut self,
        start: Start<S::Position>,
        catalog: &Catalog<S::Position>,
        look: &Look<S>,
    ) -> Result<()> {
        match start {
            Start::Keep { schema, held, progress } => {
                let id = schema.id.clone();
                let held = Some(held).filter(|held| !self.changes.position().covers(held));
                self.changes.add(id.clone(), held.clone());
                if !progress.is_done() {
                    // The run before may have ended before its own horizon was passed.
                    let horizon = Some(look.horizon.clone());
                    self.snapshots.begin(schema.clone(), look.high.clone(), horizon, progress);
                }
                let now = catalog.tables.iter().find(|listed| listed.schema.id == id);
                let drift = now
                    .filter(|listed| schema.evolve(&listed.schema) != Evolution::Same)
                    .map(|listed| (listed.schema.clone(), look.clone()));
                let tracked = Tracked {
                    schema,
                    absent: false,
                    stopped: None,
                    reason: None,
                    held,
                    joins: None,
                    drift,
                };
                self.tables.insert(id, tracked);
            }
            Start::Read { id, reason } => {
                let listed = catalog.tables.iter().find(|listed| listed.schema.id == id);
                let Some(listed) = listed else { return Ok(()) };
                self.join(listed.schema.clone(), look, reason).await?;
            }
            Start::Gone { id, schema } => {
                let reason = "it is not in the source any more, or not selected; \
                              its rows stay as they are"
                    .to_owned();
                let schema = schema.unwrap_or_else(|| Arc::new(unknown_schema(&id)));
                let tracked = Tracked {
                    schema,
                    stopped: Some(reason),
                    absent: true,
                    reason: None,
                    held: None,
                    joins: None,
                    drift: None,
                };
                self.tables.insert(id, tracked);
            }
        }
        Ok(())
    }

    /// Takes in a table that no epoch vouches for: a new one, or one that has lost its place.
    async fn join(
        &mut self,
        schema: Arc<TableSchema>,
        look: &Look<S>,
        reason: Option<String>,
    ) -> Result<()> {
        let id = schema.id.clone();
        let has_rows = match &mut self.writer {
            Some(writer) => writer.add(&id).await?,
            None => return Err(Error::internal("a table joins while the writer works")),
        };
        let reason = reason.or_else(|| {
            has_rows.then(|| "the lake has rows of it whose position nobody knows".to_owned())
        });
        self.tables.insert(
            id.clone(),
            Tracked {
                schema: schema.clone(),
                absent: false,
                stopped: None,
                reason: None,
                held: None,
                joins: None,
                drift: None,
            },
        );
        if has_rows || reason.is_some() {
            self.read_again(schema, look, reason.unwrap_or_default());
            return Ok(());
        }
        info!(table = %id, "new table: reading its rows");
        let staged = schema.identity == Identity::FullRow;
        let step = match staged {
            true => Step::Generation(schema.clone()),
            false => Step::Evolve(schema.clone()),
        };
        self.begin(schema, look, staged, step);
        Ok(())
    }

    /// Reads a table again from the start, into a new generation beside the visible rows (S9).
    fn read_again(&mut self, schema: Arc<TableSchema>, look: &Look<S>, reason: String) {
        warn!(table = %schema.id, reason, "reading the table again");
        self.stream.remove_table(&schema.id);
        if let Some(tracked) = self.tables.get_mut(&schema.id) {
            tracked.reason = Some(reason);
        }
        let step = Step::Generation(schema.clone());
        self.begin(schema, look, true, step);
    }

    fn begin(&mut self, schema: Arc<TableSchema>, look: &Look<S>, staged: bool, step: Step) {
        let id = schema.id.clone();
        if let Some(tracked) = self.tables.get_mut(&id) {
            tracked.schema = schema.clone();
            tracked.stopped = None;
            tracked.held = None;
            tracked.drift = None;
            tracked.joins = Some(look.high.clone());
        }
        self.changes.restart(&id);
        self.changes.track_all(true);
        self.changes.push_ahead(&id, step);
        let progress = Progress { ranges: vec![Range::default()], keys: Vec::new(), staged };
        let horizon = Some(look.horizon.clone());
        self.snapshots.begin(schema, look.high.clone(), horizon, progress);
        self.dirty = true;
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.advance().await?;
            if self.settings.until_current && self.is_current() {
                return self.end().await;
            }
            let room = self.changes.size() + self.in_writer + self.snapshots.size()
                < self.settings.memory / 2;
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.end().await,
                Some(done) = self.working.join_next() => {
                    let (writer, done) = done.map_err(|error| {
                        Error::internal("the writer ended").caused_by(error)
                    })?;
                    self.writer = Some(writer);
                    self.in_writer = 0;
                    self.done(done?).await?;
                }
                _ = tick.tick() => self.look_around().await?,
                Some(event) = self.snapshots.next(), if room => self.chunk(event).await?,
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
            self.stop_table(&table, reason);
        }
        Ok(())
    }

    async fn resolved(&mut self, resolved: Resolved) -> Result<()> {
        match resolved {
            Resolved::Schema(schema) => {
                let Some(tracked) = self.tables.get(&schema.id) else { return Ok(()) };
                match tracked.schema.evolve(&schema) {
                    Evolution::Same => self.stream.set_table(schema),
                    Evolution::InPlace => self.evolve(schema),
                    Evolution::Snapshot(reason) => self.look_again(&schema.id, reason).await?,
                }
            }
            Resolved::Lost(table, reason) => self.look_again(&table, reason).await?,
        }
        Ok(())
    }

    /// Columns came or went in place.
    fn evolve(&mut self, schema: Arc<TableSchema>) {
        let Some(tracked) = self.tables.get_mut(&schema.id) else { return };
        info!(table = %schema.id, "columns changed");
        tracked.schema = schema.clone();
        self.stream.set_table(schema.clone());
        self.changes.push(&schema.id, Step::Evolve(schema.clone()));
        self.snapshots.evolve(schema, self.changes.position().clone());
        self.dirty = true;
    }

    /// Reads `table` again, as the catalog says it is now; stops it when it is gone.
    async fn look_again(&mut self, table: &TableId, reason: String) -> Result<()> {
        self.stream.remove_table(table);
        let (catalog, look) = look(&mut self.source).await?;
        match catalog.tables.iter().find(|listed| listed.schema.id == *table) {
            Some(listed) => self.read_again(listed.schema.clone(), &look, reason),
            None => self.stop_table(table, format!("{reason}; and now it is gone or refused")),
        }
        Ok(())
    }

    /// The table can't go on and loses its place (I4): it comes back by a snapshot.
    fn stop_table(&mut self, table: &TableId, reason: String) {
        let Some(tracked) = self.tables.get_mut(table) else { return };
        if tracked.stopped.is_some() {
            return;
        }
        warn!(%table, reason, "table stopped");
        tracked.stopped = Some(reason);
        tracked.reason = None;
        tracked.joins = None;
        tracked.drift = None;
        self.stream.remove_table(table);
        self.snapshots.cancel(table);
        self.changes.stop(table);
        self.changes.push_ahead(table, Step::Discard);
        self.dirty = true;
    }

    /// Takes up what a chunk reader reports.
    async fn chunk(&mut self, event: Event<S>) -> Result<()> {
        if let Event::Part(_, lakeward_connectors::source::Part::Opened(view)) = &event {
            self.changes.seen_by(view, self.snapshots.oldest_window());
        }
        let Some((table, error)) = self.snapshots.take_up(event, &mut self.changes)? else {
            return Ok(());
        };
        // Either the table changed under the chunk, and the catalog says how, or a value doesn't fit.
        let (catalog, look) = look(&mut self.source).await?;
        let listed = catalog.tables.iter().find(|listed| listed.schema.id == table);
        let known = self.tables.get(&table).map(|tracked| tracked.schema.clone());
        match (listed, known) {
            (Some(listed), Some(known)) if listed.schema != known => {
                self.read_again(listed.schema.clone(), &look, error.to_string());
            }
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
        let memory = self.settings.memory;
        if self.snapshots.size() < memory / 4 && self.changes.touched_size() < memory / 8 {
            if self.snapshots.wants_reader(self.changes.position()) {
                let reader = self.source.reader().await?;
                self.snapshots.add_reader(reader);
            }
            self.snapshots.dispatch(&mut self.changes);
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

    /// Tables whose catalog entry the stream has now reached are shown by it from here on.
    fn let_tables_join(&mut self) {
        if !self.changes.at_boundary() {
            return;
        }
        let position = self.changes.position().clone();
        let mut waiting = false;
        for tracked in self.tables.values_mut() {
            match tracked.joins.take_if(|joins| position.covers(joins)) {
                Some(_) => self.stream.set_table(tracked.schema.clone()),
                None => waiting |= tracked.joins.is_some(),
            }
        }
        self.changes.track_all(waiting);
    }

    /// Acts on what the catalog showed and the log, now read that far, did not.
    fn settle_drift(&mut self) {
        if !self.changes.at_boundary() {
            return;
        }
        let position = self.changes.position().clone();
        let due: Vec<_> = self
            .tables
            .values_mut()
            .filter_map(|t| {
                t.drift
                    .take_if(|(_, look)| position.covers(&look.high))
                    .map(|d| (t.schema.clone(), d))
            })
            .collect();
        for (schema, (now, look)) in due {
            match schema.evolve(&now) {
                Evolution::Same => {}
                Evolution::InPlace => self.evolve(now),
                Evolution::Snapshot(reason) => self.read_again(now, &look, reason),
            }
        }
    }

    /// Gives the writer its next work, when it has none.
    async fn write(&mut self) -> Result<()> {
        if self.writer.is_none() {
            return Ok(());
        }
        if self.is_flush_due() {
            return self.flush().await;
        }
        if self.changes.size() >= self.settings.memory / 4 {
            let work = self.take_work();
            self.applied = true;
            self.give(move |mut writer| async move {
                let done = writer.apply(work).await.map(|()| Done::Applied);
                (writer, done)
            });
        }
        Ok(())
    }

    fn take_work(&mut self) -> crate::buffer::Work {
        self.in_writer = self.changes.size();
        let snapshots = &self.snapshots;
        self.changes.take(|table| snapshots.holds_back(table))
    }

    fn give<F, Fut>(&mut self, operation: F)
    where
        F: FnOnce(WriterBox<S>) -> Fut,
        Fut: Future<Output = (WriterBox<S>, Result<Done<S::Position>>)> + Send + 'static,
    {
        if let Some(writer) = self.writer.take() {
            self.working.spawn(operation(writer));
        }
    }

    /// I1: never inside a transaction.
    fn is_flush_due(&self) -> bool {
        if !self.changes.at_boundary() {
            return false;
        }
        let waited = self.last_flush.elapsed();
        let moved = !self.durable.covers(self.changes.position());
        let needed = self.changes.has_work() || self.dirty || self.applied;
        let caught_up = self.settings.until_current
            && self.changes.position().covers(&self.target)
            && self.snapshots.is_empty();
        if caught_up && (needed || moved) {
            return true;
        }
        (needed && waited >= self.settings.flush_interval)
            || (moved && waited >= self.settings.idle_interval)
    }

    async fn flush(&mut self) -> Result<()> {
        debug_assert!(self.changes.at_boundary(), "I1");
        if !self.changes.unseen().is_empty() {
            let view = self.source.view().await?;
            self.changes.seen_by(&view, self.snapshots.oldest_window());
        }
        let to = self.changes.position().clone();
        let plan = Plan {
            identity: self.identity.clone(),
            members: self.roster(&to),
            staged: self.tables.keys().filter(|t| self.snapshots.is_staged(t)).cloned().collect(),
            unseen: self.changes.unseen(),
            work: self.take_work(),
            to,
            now_ms: now_ms(),
        };
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
            let state = match (&stopped, self.snapshots.progress(id).is_some()) {
                (Some(_), _) => State::Stopped,
                (None, true) => State::Snapshot,
                (None, false) => State::Live,
            };
            let ahead = tracked.and_then(|t| t.held.as_ref()).filter(|held| !to.covers(held));
            let held = ahead.map_or_else(|| to.clone(), |held| held.join(to));
            let reason = stopped.or_else(|| tracked.and_then(|t| t.reason.clone()));
            roster.insert(id.clone(), Member { state, held: Some(held), progress, reason });
        }
        roster
    }

    /// Takes up what the writer did. I2: only here the source is acknowledged.
    async fn done(&mut self, done: Done<S::Position>) -> Result<()> {
        let Done::Flushed(report) = done else { return Ok(()) };
        debug_assert!(report.to.covers(&self.durable), "I3");
        debug!(epoch = report.epoch, to = %report.to, commits = report.commits, "durable");
        for (table, state, reason) in report.lost {
            match state {
                State::Gap => self.look_again(&table, reason).await?,
                _ => self.stop_table(&table, reason),
            }
        }
        let position = self.changes.position().clone();
        for (table, keys) in report.missing {
            let Some(tracked) = self.tables.get(&table) else { continue };
            if tracked.stopped.is_none() {
                self.snapshots.add_keys(&tracked.schema, &position, keys);
                self.dirty = true;
            }
        }
        self.durable = report.to;
        self.stream.acknowledge(&self.durable);
        if let Some(writer) = &self.writer {
            self.meter.flushed(&self.durable, report.commits, writer.sizes());
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
            || (self.settings.until_current && !self.changes.position().covers(&self.target))
            || self.tables.values().any(|t| t.joins.is_some() || t.drift.is_some());
        if behind && now - self.last_nudge >= TICK {
            self.last_nudge = now;
            self.stream.nudge();
        }
        if self.snapshots.waits_for_view() && now - self.last_view >= 4 * TICK {
            self.last_view = now;
            let view = self.source.view().await?;
            self.snapshots.pass_horizons(&view);
        }
        self.meter.position(
            self.changes.position(),
            self.changes.committed_micros,
            self.changes.count,
            self.changes.size() + self.in_writer,
            self.snapshots.tables(),
        );
        if now - self.last_catalog >= self.settings.catalog_interval && self.writer.is_some() {
            self.last_catalog = now;
            self.look_at_catalog().await?;
        }
        Ok(())
    }

    /// Compares the catalog with what is kept: tables that came, went or changed without a trace.
    async fn look_at_catalog(&mut self) -> Result<()> {
        if let Some(writer) = &self.writer {
            writer.look_for_others().await?;
        }
        let catalog = self.source.discover().await?;
        self.refused = catalog.refused.iter().cloned().collect();
        let names: BTreeSet<_> = catalog.tables.iter().map(|listed| &listed.schema.id).collect();
        let following = self.tables.iter().filter(|(_, tracked)| tracked.stopped.is_none());
        let gone: Vec<_> = following.map(|(id, _)| id).filter(|id| !names.contains(id)).collect();
        for id in gone.into_iter().cloned().collect::<Vec<_>>() {
            let reason = self.refused.get(&id).cloned().unwrap_or_else(|| {
                "it was dropped, renamed or moved in the source; its rows stay as they are".into()
            });
            self.stop_table(&id, reason);
            if let Some(tracked) = self.tables.get_mut(&id) {
                tracked.absent = true;
            }
        }
        let schemas: Vec<_> = catalog.tables.iter().map(|listed| listed.schema.clone()).collect();
        let established = self.source.establish(&schemas).await?;
        if established.identity != self.identity {
            return Err(Error::gap("the publication or slot was replaced")
                .with("was", &self.identity)
                .with("is", established.identity));
        }
        if schemas.iter().all(|schema| !self.differs(schema)) {
            return Ok(());
        }
        // After the publication was brought up to date.
        let (catalog, look) = look(&mut self.source).await?;
        for listed in &catalog.tables {
            match self.tables.get(&listed.schema.id).is_some_and(|tracked| !tracked.absent) {
                true => self.note_drift(&listed.schema, &look),
                false => self.join(listed.schema.clone(), &look, None).await?,
            }
        }
        Ok(())
    }

    /// Whether the catalog says of a table what the stream does not show yet.
    fn differs(&self, now: &TableSchema) -> bool {
        self.tables.get(&now.id).is_none_or(|tracked| {
            let drifted = tracked.schema.evolve(now) != Evolution::Same;
            tracked.absent || (tracked.stopped.is_none() && drifted)
        })
    }

    fn note_drift(&mut self, now: &Arc<TableSchema>, look: &Look<S>) {
        let differs = self.differs(now);
        if let Some(tracked) = self.tables.get_mut(&now.id).filter(|_| differs) {
            tracked.drift = Some((now.clone(), look.clone()));
        }
    }

    /// Whether everything that was committed at the start is durable in live tables.
    fn is_current(&self) -> bool {
        self.durable.covers(&self.target)
            && self.writer.is_some()
            && self.snapshots.is_empty()
            && !self.dirty
            && self.tables.values().all(|t| t.drift.is_none() && t.joins.is_none())
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
        let stopped = self
            .tables
            .iter()
            .filter(|(_, tracked)| !tracked.absent)
            .filter_map(|(id, tracked)| Some((id.clone(), tracked.stopped.clone()?)))
            .collect();
        // The acknowledgement is on its way; the source keeps what it does not get.
        self.stream.nudge();
        Ok(Ended { stopped })
    }

    async fn settle_writer(&mut self) -> Result<()> {
        while let Some(done) = self.working.join_next().await {
            let (writer, done) =
                done.map_err(|error| Error::internal("the writer ended").caused_by(error))?;
            self.writer = Some(writer);
            self.in_writer = 0;
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

fn unknown_schema(id: &TableId) -> TableSchema {
    TableSchema {
        id: id.clone(),
        columns: Vec::new(),
        identity: Identity::FullRow,
        storage: String::new(),
    }
}
