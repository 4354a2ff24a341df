//! The snapshots of a source: which table reads what next, over which connections (DESIGN §5).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use lakeward_connectors::batch::Batch;
use lakeward_connectors::schema::{Identity, TableId, TableSchema};
use lakeward_connectors::source::{
    ChunkReader, KeyText, Part, Position, Range, Rows, Source, View,
};
use lakeward_connectors::{Error, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::board::Reading;
use crate::buffer::{Changes, Step};
use crate::epoch::Progress;
use crate::planted::{self, Bug};
use crate::verify::Task;
use crate::window::{Scope, Window, unseen_steps};

/// How many keys are read again in one chunk.
const KEYS_A_CHUNK: usize = 1_000;

/// How many ranges a table is split into for each connection, so that none is left with the
/// largest alone.
const RANGES_A_CONNECTION: usize = 4;

/// Parts waiting between a reader and the pipeline; each is a few megabytes.
const PARTS_WAITING: usize = 2;

/// What a reader reports.
pub enum Event<S: Source> {
    /// A part of a chunk.
    Part(Job, Part<S::Position, S::View>),
    /// The ranges of a table.
    Split(Job, Vec<Range>),
    /// A chunk failed; whatever it sent before is void.
    Failed(Job, Error),
    /// The reader is ready for the next job.
    Idle(usize),
}

/// The number of something asked of a reader.
pub type Job = u64;

enum Order<T> {
    Read { job: Job, table: Arc<TableSchema>, rows: Rows, must_see: Vec<T> },
    Split { job: Job, table: Arc<TableSchema>, parts: usize },
}

type Tx<S> = <<S as Source>::Position as Position>::Transaction;
type WindowOf<S> = Window<<S as Source>::Position, <S as Source>::View>;

/// The snapshot of one table.
struct Run<S: Source> {
    schema: Arc<TableSchema>,
    /// Nothing is read before the stream has reached this position: the catalog as of then is what
    /// `schema` was taken from.
    start: S::Position,
    /// Nothing is read before a view is past this one: transactions that were under way when the
    /// table joined the log are in the log in part only.
    horizon: Option<S::View>,
    /// Ranges nobody reads yet.
    ranges: VecDeque<Range>,
    /// Keys nobody reads again yet.
    keys: VecDeque<KeyText>,
    /// Whether rows go to a new generation beside the visible ones.
    staged: bool,
    /// Whether the table is read whole in one view (S11).
    whole: bool,
    /// Whether the table is split into ranges, as far as it can be.
    split: bool,
    /// The job that splits it, and the chunks under way.
    splitting: Option<Job>,
    windows: BTreeMap<Job, WindowOf<S>>,
    /// Rows read so far, for progress.
    rows: u64,
}

/// All snapshots of a source.
pub struct Snapshots<S: Source> {
    runs: BTreeMap<TableId, Run<S>>,
    jobs: HashMap<Job, TableId>,
    next_job: Job,
    idle: Vec<usize>,
    orders: Vec<mpsc::Sender<Order<Tx<S>>>>,
    events: mpsc::Receiver<Event<S>>,
    /// What every reader's task reports to; kept so that readers may be added late.
    report: mpsc::Sender<Event<S>>,
    readers: JoinSet<()>,
    connections: usize,
    /// Rows read of each table since the start, for people.
    read: HashMap<TableId, u64>,
    /// What the rows of a closed window become.
    step: fn(Batch) -> Step,
    /// The bytes of rows read so far.
    bytes: u64,
}

impl<S: Source> Snapshots<S> {
    /// No snapshot yet; at most `connections` chunks will be read at a time.
    pub fn new(connections: usize) -> Self {
        Self::of(connections, Step::Rows)
    }

    /// As [`new`](Self::new), for rows that are compared with the lake's.
    pub fn comparing(connections: usize) -> Self {
        Self::of(connections, |batch| Step::Verify(Task::Compare(Box::new(batch))))
    }

    fn of(connections: usize, step: fn(Batch) -> Step) -> Self {
        let (report, events) = mpsc::channel(PARTS_WAITING);
        Self {
            runs: BTreeMap::new(),
            jobs: HashMap::new(),
            next_job: 1,
            idle: Vec::new(),
            orders: Vec::new(),
            events,
            report,
            readers: JoinSet::new(),
            connections: connections.max(1),
            read: HashMap::new(),
            step,
            bytes: 0,
        }
    }

    /// The bytes of all rows read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins to read `schema`'s table: all of it, or what `progress` says is left. Nothing is
    /// read before the stream has reached `start` and a view is past `horizon`.
    pub fn begin(
        &mut self,
        schema: Arc<TableSchema>,
        start: S::Position,
        horizon: Option<S::View>,
        progress: Progress,
    ) {
        let id = schema.id.clone();
        self.cancel(&id);
        let run = Run {
            whole: schema.identity == Identity::FullRow,
            schema,
            start,
            horizon,
            ranges: progress.ranges.into(),
            keys: progress.keys.into(),
            staged: progress.staged,
            split: false,
            splitting: None,
            windows: BTreeMap::new(),
            rows: 0,
        };
        self.runs.insert(id, run);
    }

    /// Stops reading a table; chunks under way come to nothing.
    pub fn cancel(&mut self, table: &TableId) {
        if self.runs.remove(table).is_some() {
            self.jobs.retain(|_, of| of != table);
        }
    }

    /// The table's columns changed in place: chunks under way are void and read again.
    pub fn evolve(&mut self, schema: Arc<TableSchema>, start: S::Position) {
        if let Some(run) = self.runs.get_mut(&schema.id) {
            let (progress, horizon) = (run.progress(), run.horizon.take());
            self.begin(schema, start, horizon, progress);
        }
    }

    /// Puts `keys` of `table` among those to read again (S5).
    pub fn add_keys(
        &mut self,
        schema: &Arc<TableSchema>,
        start: &S::Position,
        keys: impl IntoIterator<Item = KeyText>,
    ) {
        if !self.runs.contains_key(&schema.id) {
            self.begin(schema.clone(), start.clone(), None, Progress::default());
        }
        if let Some(run) = self.runs.get_mut(&schema.id) {
            run.keys.extend(keys);
        }
    }

    /// What is left to read of `table`: what a restart has to read. `None`: nothing.
    pub fn progress(&self, table: &TableId) -> Option<Progress> {
        self.runs.get(table).map(Run::progress)
    }

    /// Whether the table's rows go to a generation beside the visible one, which is not complete.
    pub fn is_staged(&self, table: &TableId) -> bool {
        self.runs.get(table).is_some_and(|run| run.staged)
    }

    /// Whether the table's changes are held back until its one view has been read (S11).
    pub fn holds_back(&self, table: &TableId) -> bool {
        self.runs.get(table).is_some_and(|run| run.whole)
    }

    /// How many rows of `table` have been read since the start, by all its snapshots.
    pub fn rows_read(&self, table: &TableId) -> u64 {
        self.read.get(table).copied().unwrap_or_default()
    }

    /// Whether rows of `table` are being read.
    pub fn reads(&self, table: &TableId) -> bool {
        self.runs.contains_key(table)
    }

    /// Whether nothing is being read.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How far reading `table` has got, while it is read.
    pub fn reading(&self, table: &TableId) -> Option<Reading> {
        self.runs.get(table).map(Run::reading)
    }

    /// The memory that chunks under way take, in bytes.
    pub fn size(&self) -> usize {
        self.runs.values().flat_map(|run| run.windows.values()).map(Window::size).sum()
    }

    /// The serial number from which on an open window may ask what its view saw.
    pub fn oldest_window(&self) -> u64 {
        let windows = self.runs.values().flat_map(|run| run.windows.values());
        windows.map(|window| window.since).min().unwrap_or(u64::MAX)
    }

    /// Whether a chunk waits for the stream to reach its high mark, or a table for its start.
    pub fn waits_for_stream(&self, position: &S::Position) -> bool {
        self.runs.values().any(|run| {
            !position.covers(&run.start)
                || run
                    .windows
                    .values()
                    .any(|window| window.high.as_ref().is_some_and(|high| !position.covers(high)))
        })
    }

    /// Whether a table waits for a view past its horizon.
    pub fn waits_for_view(&self) -> bool {
        self.runs.values().any(|run| run.horizon.is_some())
    }

    /// Takes up a view: tables whose horizon it is past may be read.
    pub fn pass_horizons(&mut self, view: &S::View) {
        for run in self.runs.values_mut() {
            run.horizon.take_if(|horizon| view.is_past(horizon));
        }
    }

    /// Whether another connection would have something to read.
    pub fn wants_reader(&self, position: &S::Position) -> bool {
        self.idle.is_empty()
            && self.orders.len() < self.connections
            && self.runs.values().any(|run| run.is_ready(position))
    }

    /// Adds a connection.
    pub fn add_reader(&mut self, reader: S::Reader) {
        let (sender, orders) = mpsc::channel(1);
        let number = self.orders.len();
        self.orders.push(sender);
        self.idle.push(number);
        self.readers.spawn(serve::<S>(number, reader, orders, self.report.clone()));
    }

    /// Waits for the next report of a reader. Cancel safe.
    pub async fn next(&mut self) -> Option<Event<S>> {
        self.events.recv().await
    }

    /// Hands out work to idle readers.
    pub fn dispatch(&mut self, changes: &mut Changes<S::Position>) {
        // Within a transaction nobody can say yet that the view must see it (S4), nor which keys
        // it has touched.
        if !changes.at_boundary() {
            return;
        }
        while let Some(&reader) = self.idle.last() {
            let position = changes.position().clone();
            let next = self.runs.iter_mut().find(|(_, run)| run.is_ready(&position));
            let Some((id, run)) = next else { return };
            let job = self.next_job;
            self.next_job += 1;
            self.jobs.insert(job, id.clone());
            let order = run.next(job, self.connections, changes);
            self.idle.pop();
            if self.orders.get(reader).is_none_or(|orders| orders.try_send(order).is_err()) {
                return;
            }
        }
    }

    /// Takes up a report. Rows of a table that is read whole go to its steps at once.
    ///
    /// # Errors
    /// What a reader failed with, unless it is one table's own: that is returned as `Some`.
    pub fn take_up(
        &mut self,
        event: Event<S>,
        changes: &mut Changes<S::Position>,
    ) -> Result<Option<(TableId, Error)>> {
        let (job, part) = match event {
            Event::Idle(reader) => {
                self.idle.push(reader);
                return Ok(None);
            }
            Event::Split(job, ranges) => {
                if let Some(run) = self.run_of(job) {
                    run.splitting = None;
                    run.ranges = ranges.into();
                }
                self.jobs.remove(&job);
                return Ok(None);
            }
            Event::Failed(job, error) => {
                let Some(table) = self.jobs.remove(&job) else { return Ok(None) };
                return match error.stopped_table() {
                    Some(_) => Ok(Some((table, error))),
                    None => Err(error),
                };
            }
            Event::Part(job, part) => (job, part),
        };
        let Some(table) = self.jobs.get(&job) else { return Ok(None) };
        if let Part::Rows(batch) = &part {
            self.bytes += batch.size as u64;
            *self.read.entry(table.clone()).or_default() += batch.changes.len() as u64;
        }
        if let Some(run) = self.runs.get_mut(table) {
            run.part(job, part, changes);
        }
        Ok(None)
    }

    fn run_of(&mut self, job: Job) -> Option<&mut Run<S>> {
        self.runs.get_mut(self.jobs.get(&job)?)
    }

    /// Closes every window whose high mark the stream has reached: its rows join the table's steps
    /// (S3). Returns the tables that have nothing left to read (S8).
    pub fn close_windows(&mut self, changes: &mut Changes<S::Position>) -> Vec<TableId> {
        let mut complete = Vec::new();
        // Within a transaction no window knows yet whether its view saw it.
        if !changes.at_boundary() {
            return complete;
        }
        for (id, run) in &mut self.runs {
            let position = changes.position();
            let closed = run.windows.iter().filter(|(_, window)| window.is_closed_at(position));
            let closed: Vec<Job> = closed.map(|(job, _)| *job).collect();
            for job in closed {
                self.jobs.remove(&job);
                run.close(job, self.step, changes);
            }
            if run.windows.is_empty() {
                changes.watch(id, false);
                if !run.has_next() && run.splitting.is_none() {
                    complete.push(id.clone());
                }
            }
        }
        for id in &complete {
            self.runs.remove(id);
        }
        complete
    }
}

impl<S: Source> Run<S> {
    fn progress(&self) -> Progress {
        let mut progress = Progress {
            ranges: self.ranges.iter().cloned().collect(),
            keys: self.keys.iter().cloned().collect(),
            staged: self.staged,
        };
        for window in self.windows.values() {
            match &window.scope {
                Scope::Range(range) => progress.ranges.push(range.clone()),
                Scope::Keys(keys) => progress.keys.extend(keys.iter().cloned()),
                Scope::All => progress.ranges.push(Range::default()),
            }
        }
        progress
    }

    fn reading(&self) -> Reading {
        let of_keys = |window: &WindowOf<S>| matches!(window.scope, Scope::Keys(_));
        let ranges = !self.ranges.is_empty()
            || self.splitting.is_some()
            || self.windows.values().any(|window| !of_keys(window));
        Reading { rows: self.rows, ranges, keys: self.keys.len(), anew: self.staged }
    }

    fn has_next(&self) -> bool {
        self.splitting.is_none() && !(self.ranges.is_empty() && self.keys.is_empty())
    }

    fn is_ready(&self, position: &S::Position) -> bool {
        self.horizon.is_none() && position.covers(&self.start) && self.has_next()
    }

    /// The next thing to read, as `job`; there is one.
    fn next(
        &mut self,
        job: Job,
        connections: usize,
        changes: &mut Changes<S::Position>,
    ) -> Order<Tx<S>> {
        let table = self.schema.clone();
        let unsplit =
            self.keys.is_empty() && self.ranges.len() == 1 && self.ranges[0] == Range::default();
        if unsplit && !self.whole && !std::mem::replace(&mut self.split, true) {
            self.splitting = Some(job);
            let parts = connections * RANGES_A_CONNECTION;
            return Order::Split { job, table, parts };
        }
        let (scope, rows) = if !self.keys.is_empty() {
            let keys: Vec<_> = self.keys.drain(..self.keys.len().min(KEYS_A_CHUNK)).collect();
            (Scope::Keys(keys.clone()), Rows::Keys(keys))
        } else {
            let range = self.ranges.pop_front().unwrap_or_default();
            match self.whole {
                true => (Scope::All, Rows::All),
                false => (Scope::Range(range.clone()), Rows::Next(range)),
            }
        };
        if !self.whole {
            changes.watch(&table.id, true);
        }
        self.windows.insert(job, Window::new(scope, changes.next_serial()));
        let must_see = changes.unseen();
        let must_see = if planted::is(Bug::MustSeeNothing) { Vec::new() } else { must_see };
        Order::Read { job, table, rows, must_see }
    }

    fn part(
        &mut self,
        job: Job,
        part: Part<S::Position, S::View>,
        changes: &mut Changes<S::Position>,
    ) {
        let Some(window) = self.windows.get_mut(&job) else { return };
        match part {
            Part::Opened(view) => window.view = Some(view),
            Part::Rows(batch) => {
                self.rows += batch.changes.len() as u64;
                match self.whole {
                    true => changes.push_ahead(&self.schema.id, Step::Rows(batch)),
                    false => window.rows.push(batch),
                }
            }
            Part::Closed { high, rest } => {
                window.high = Some(high);
                // What is left can be read by anybody from here on; this window keeps what it read.
                if let (Scope::Range(range), Some(rest)) = (&mut window.scope, &rest) {
                    range.until = rest.after.clone();
                    self.ranges.push_front(rest.clone());
                }
                window.rest = rest;
            }
        }
    }

    fn close(&mut self, job: Job, step: fn(Batch) -> Step, changes: &mut Changes<S::Position>) {
        let Some(window) = self.windows.remove(&job) else { return };
        let id = &self.schema.id;
        if self.whole {
            if let Some(view) = &window.view {
                changes.filter_held_back(id, |steps, known| unseen_steps(steps, known, view));
            }
            self.whole = false;
            return;
        }
        for batch in changes.resolve(id, window) {
            changes.push(id, step(batch));
        }
    }
}

/// One reader's task: does what it is told until nobody tells it anything any more.
async fn serve<S: Source>(
    number: usize,
    mut reader: S::Reader,
    mut orders: mpsc::Receiver<Order<Tx<S>>>,
    report: mpsc::Sender<Event<S>>,
) {
    while let Some(order) = orders.recv().await {
        let (job, result) = match order {
            Order::Split { job, table, parts } => {
                let split = reader.split(&table, parts).await;
                (job, split.map(|ranges| Some(Event::Split(job, ranges))))
            }
            Order::Read { job, table, rows, must_see } => {
                let (send, mut parts) = mpsc::channel(PARTS_WAITING);
                let forward = async {
                    while let Some(part) = parts.recv().await {
                        if report.send(Event::Part(job, part)).await.is_err() {
                            return;
                        }
                    }
                };
                let read = async {
                    let result = reader.read(&table, rows, &must_see, &send).await;
                    drop(send);
                    result
                };
                let (result, ()) = tokio::join!(read, forward);
                (job, result.map(|()| None))
            }
        };
        let event = match result {
            Ok(event) => event,
            Err(error) => Some(Event::Failed(job, error)),
        };
        if let Some(event) = event
            && report.send(event).await.is_err()
        {
            return;
        }
        if report.send(Event::Idle(number)).await.is_err() {
            return;
        }
    }
}
