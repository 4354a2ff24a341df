//! Decoded changes on their way to a flush: per table an ordered list of steps, cut only between
//! transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lakeward_connectors::batch::{Batch, Builder, Committed, Trace};
use lakeward_connectors::error::Reason;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{Position, View};

use crate::planted::{self, Bug};
use crate::verify::Task;
use crate::window::{Delivered, Touched, Window};

mod sink;

/// A batch of changes takes about this many bytes: growing larger ones costs more than it saves.
const BATCH_BYTES: usize = 4 << 20;

/// One step of what a table has to do, in the order of the source's commits (E1).
#[derive(Debug)]
pub enum Step {
    /// Rows come, change and go.
    Rows(Batch),
    /// All rows are gone.
    Truncate {
        /// By the transaction of this serial number.
        serial: u64,
        /// Where it stands in the log, if the table asks for it.
        trace: Option<Trace>,
    },
    /// Columns came or went in place.
    Evolve(Arc<TableSchema>),
    /// The table begins, of this schema, with the rows that the lake has of it.
    Adopt(Arc<TableSchema>),
    /// A new generation begins beside the visible rows, under this schema (S9).
    Generation(Arc<TableSchema>),
    /// Everything since the last commit is dropped: the table has lost its place.
    Discard,
    /// Lake and source are compared, as both are at this place in the order.
    Verify(Task),
}

impl Step {
    /// What the step takes of the memory budget, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Step::Rows(batch) => batch.size,
            Step::Verify(Task::Compare(batch)) => batch.size,
            _ => 0,
        }
    }
}

/// The steps of every table that has any.
pub type Work = BTreeMap<TableId, Vec<Step>>;

/// Where a stream's changes gather: the [`Sink`](lakeward_connectors::source::Sink) of the
/// pipeline.
#[derive(Debug)]
pub struct Changes<P: Position> {
    tables: Vec<(TableId, Table<P>)>,
    by_id: HashMap<TableId, usize>,
    /// Tables that ask where their changes stand in the log.
    traced: BTreeSet<TableId>,
    /// The table of the last change: most changes are of the table of the one before.
    last: Option<(Arc<TableSchema>, usize)>,
    /// Where the log has been read up to, between transactions.
    position: P,
    /// The open transaction and its serial number.
    open: Option<(P::Transaction, u64)>,
    /// What traced tables are told of it.
    committed: Option<Arc<Committed>>,
    open_micros: i64,
    /// Whether the open transaction has changed a table that is kept.
    relevant: bool,
    /// Whether every transaction counts as relevant: a table is about to join whose changes are
    /// not shown yet (S4).
    track_all: bool,
    /// The serial number of the next transaction.
    serial: u64,
    /// Transactions that some view may not see, or that an open window may ask for, in order (S4).
    delivered: Vec<Delivered<P::Transaction>>,
    /// Tables that stopped while decoding, with the reason; taken by the pipeline.
    pub stopped: Vec<(TableId, Reason)>,
    /// The source's time of the last commit, microseconds of Unix time.
    pub committed_micros: i64,
    /// Changes decoded since the start.
    pub count: u64,
}

#[derive(Debug)]
struct Table<P> {
    builder: Option<Builder>,
    steps: Vec<Step>,
    size: usize,
    /// Steps that come before `steps` and may be taken while those are held back.
    ahead: Vec<Step>,
    ahead_size: usize,
    /// What the table holds already: transactions in it are skipped (E6). Cleared once the stream
    /// is past it.
    held: Option<P>,
    /// The keys touched since the oldest open window, while any window is open.
    touched: Option<Touched>,
    /// How many of the builder's changes `touched` knows.
    noted: usize,
    /// Whether changes are dropped: the table has stopped.
    stopped: bool,
    /// Where the next change stands in the log, if the table asks for it.
    trace: Option<Trace>,
    /// Changes in closed batches, since the table was added.
    count: u64,
    /// When the oldest change that waits was committed, and the oldest that the writer has and that
    /// is not durable; microseconds of Unix time.
    waits_since: Option<i64>,
    taken_since: Option<i64>,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self {
            builder: None,
            steps: Vec::new(),
            size: 0,
            ahead: Vec::new(),
            ahead_size: 0,
            held: None,
            touched: None,
            noted: 0,
            stopped: false,
            trace: None,
            count: 0,
            waits_since: None,
            taken_since: None,
        }
    }
}

impl<P: Position> Changes<P> {
    /// Nothing yet; the stream starts at `position`. The changes of `traced` tables come with where
    /// they stand in the log.
    pub fn new(position: P, traced: BTreeSet<TableId>) -> Self {
        Self {
            tables: Vec::new(),
            by_id: HashMap::new(),
            traced,
            committed: None,
            open_micros: 0,
            last: None,
            position,
            open: None,
            relevant: false,
            track_all: false,
            serial: 1,
            delivered: Vec::new(),
            stopped: Vec::new(),
            committed_micros: 0,
            count: 0,
        }
    }

    /// Where the log has been read up to.
    pub fn position(&self) -> &P {
        &self.position
    }

    /// The serial number that the next transaction will have.
    pub fn next_serial(&self) -> u64 {
        self.serial
    }

    /// Whether the stream is between two transactions: where a flush may close (E2).
    pub fn at_boundary(&self) -> bool {
        self.open.is_none()
    }

    /// What waits, in bytes of the memory budget.
    pub fn size(&self) -> usize {
        self.tables.iter().map(|(_, table)| table.size()).sum()
    }

    /// Remembers every transaction, or only those that change a table that is shown (S4).
    pub fn track_all(&mut self, on: bool) {
        self.track_all = on;
        self.relevant |= on;
    }

    /// How many changes of `table` have been decoded, and when the oldest of them that is not durable
    /// was committed, microseconds of Unix time. For people.
    pub fn tally(&self, table: &TableId) -> (u64, Option<i64>) {
        let Some(table) = self.get(table) else { return (0, None) };
        let open = table.builder.as_ref().map_or(0, Builder::len) as u64;
        let oldest = table.waits_since.into_iter().chain(table.taken_since).min();
        (table.count + open, oldest)
    }

    /// Notes that all that was [taken](Self::take) is durable.
    pub fn all_durable(&mut self) {
        self.tables.iter_mut().for_each(|(_, table)| table.taken_since = None);
    }

    /// Whether any table has a step waiting.
    pub fn has_work(&self) -> bool {
        self.tables
            .iter()
            .any(|(_, t)| !t.steps.is_empty() || !t.ahead.is_empty() || t.builder.is_some())
    }

    /// Adds transactions of an earlier run that no view was known to see (S4, from the epoch file).
    pub fn remember(&mut self, transactions: &[P::Transaction]) {
        for transaction in transactions {
            self.delivered.push(Delivered {
                serial: 0,
                transaction: transaction.clone(),
                seen: false,
            });
        }
    }

    /// Every transaction that came since the oldest open window, or that no view has seen yet.
    pub fn delivered(&self) -> &[Delivered<P::Transaction>] {
        &self.delivered
    }

    /// The transactions that a view opened now has to see (S4).
    pub fn unseen(&self) -> Vec<P::Transaction> {
        let unseen = self.delivered.iter().filter(|known| !known.seen);
        unseen.map(|known| known.transaction.clone()).collect()
    }

    /// Takes up what `view` sees, and forgets what it sees and no open window can ask for:
    /// `since` is the serial from which on windows may ask.
    pub fn seen_by(&mut self, view: &impl View<P::Transaction>, since: u64) {
        for known in &mut self.delivered {
            known.seen = known.seen || view.sees(&known.transaction);
        }
        self.delivered.retain(|known| !known.seen || known.serial >= since);
    }

    /// Starts keeping a table, which holds `held` already.
    pub fn add(&mut self, table: TableId, held: Option<P>) {
        self.set(table, Table { held, ..Table::default() });
    }

    fn set(&mut self, id: TableId, table: Table<P>) {
        match self.by_id.get(&id) {
            Some(&at) => self.tables[at].1 = table,
            None => {
                self.by_id.insert(id.clone(), self.tables.len());
                self.tables.push((id, table));
            }
        }
    }

    fn get(&self, id: &TableId) -> Option<&Table<P>> {
        self.by_id.get(id).and_then(|&at| self.tables.get(at)).map(|(_, table)| table)
    }

    fn get_mut(&mut self, id: &TableId) -> Option<&mut Table<P>> {
        find(&self.by_id, &mut self.tables, id)
    }

    /// Drops what waits for `table` and everything that comes for it.
    pub fn stop(&mut self, table: &TableId) {
        if let Some(table) = self.get_mut(table) {
            *table = Table { stopped: true, ..Table::default() };
        }
    }

    /// Keeps a stopped table again from here on.
    pub fn restart(&mut self, table: &TableId) {
        self.set(table.clone(), Table::default());
    }

    /// Appends a step after everything decoded so far.
    pub fn push(&mut self, table: &TableId, step: Step) {
        if let Some(table) = self.get_mut(table) {
            table.close();
            table.size += step.size();
            table.steps.push(step);
        }
    }

    /// Hands out rows of a table that is read whole, ahead of the changes that wait for them (S11):
    /// they go to the steps that [`take`](Self::take) takes while the changes are held back.
    pub fn push_ahead(&mut self, table: &TableId, step: Step) {
        if let Some(table) = self.get_mut(table) {
            table.ahead_size += step.size();
            table.ahead.push(step);
        }
    }

    /// Rewrites the changes of `table` that were held back while it was read whole.
    pub fn filter_held_back(
        &mut self,
        table: &TableId,
        filter: impl FnOnce(Vec<Step>, &[Delivered<P::Transaction>]) -> Vec<Step>,
    ) {
        let delivered = &self.delivered;
        if let Some(table) = find(&self.by_id, &mut self.tables, table) {
            table.close();
            table.steps = filter(std::mem::take(&mut table.steps), delivered);
            table.size = table.steps.iter().map(Step::size).sum();
        }
    }

    /// The rows of a window that join the steps of `table`.
    pub fn resolve(
        &mut self,
        table: &TableId,
        window: Window<P, impl View<P::Transaction>>,
    ) -> Vec<Batch> {
        let Some(table) = find(&self.by_id, &mut self.tables, table) else { return Vec::new() };
        table.note();
        window.resolve(table.touched.as_ref(), &self.delivered)
    }

    /// Starts, or stops, remembering which keys of `table` are touched.
    pub fn watch(&mut self, table: &TableId, on: bool) {
        let Some(table) = self.get_mut(table) else { return };
        if on && table.touched.is_none() {
            table.touched = Some(Touched::default());
            table.noted = table.builder.as_ref().map_or(0, Builder::len);
        } else if !on {
            table.touched = None;
        }
    }

    /// Takes everything that waits, in order; of tables that hold their changes back, what is
    /// ahead of them only.
    pub fn take(&mut self, holds_back: impl Fn(&TableId) -> bool) -> Work {
        let mut work = Work::new();
        for (id, table) in &mut self.tables {
            let mut steps = std::mem::take(&mut table.ahead);
            table.ahead_size = 0;
            if !holds_back(id) {
                table.close();
                table.size = 0;
                steps.append(&mut table.steps);
                let oldest = table.waits_since.take().into_iter().chain(table.taken_since).min();
                table.taken_since = oldest;
            }
            if !steps.is_empty() {
                work.insert(id.clone(), steps);
            }
        }
        work
    }

    /// The tables whose held-back changes take more than `limit` bytes.
    pub fn overflowing(&self, limit: usize) -> Vec<TableId> {
        let held_back = |table: &Table<P>| table.size() - table.ahead_size;
        let over = self.tables.iter().filter(|(_, table)| held_back(table) > limit);
        over.map(|(id, _)| id.clone()).collect()
    }

    /// What the keys remembered for open windows take of memory, in bytes.
    pub fn touched_size(&self) -> usize {
        self.tables.iter().filter_map(|(_, table)| table.touched.as_ref()).map(Touched::size).sum()
    }

    fn advance(&mut self, position: P) {
        if position.covers(&self.position) {
            self.position = position;
        }
        let position = &self.position;
        for (_, table) in &mut self.tables {
            table.held.take_if(|held| position.covers(held));
        }
    }
}

/// The table of that id, while the rest of [`Changes`] may be looked at.
fn find<'a, P>(
    by_id: &HashMap<TableId, usize>,
    tables: &'a mut [(TableId, Table<P>)],
    id: &TableId,
) -> Option<&'a mut Table<P>> {
    by_id.get(id).and_then(|&at| tables.get_mut(at)).map(|(_, table)| table)
}

impl<P: Position> Table<P> {
    /// Whether a transaction is none of its business: it has stopped, or holds it (E6).
    fn skips(&self, transaction: &P::Transaction) -> bool {
        let holds = |held: &P| held.contains(transaction) && !planted::is(Bug::IgnoreHeld);
        self.stopped || self.held.as_ref().is_some_and(holds)
    }
}

impl<P> Table<P> {
    fn size(&self) -> usize {
        self.size + self.ahead_size + self.builder.as_ref().map_or(0, Builder::size)
    }

    /// Notes the keys of the builder's changes that are not noted yet.
    fn note(&mut self) {
        let Some(builder) = &self.builder else { return };
        if let Some(touched) = &mut self.touched {
            touched.note(builder, self.noted);
        }
        self.noted = builder.len();
    }

    fn close(&mut self) {
        self.note();
        self.noted = 0;
        let Some(builder) = self.builder.take() else { return };
        self.trace = builder.next_trace().cloned();
        if !builder.is_empty() {
            let batch = builder.finish();
            self.count += batch.changes.len() as u64;
            self.size += batch.size;
            self.steps.push(Step::Rows(batch));
        }
    }
}
