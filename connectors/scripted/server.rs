//! The simulated database: tables, a log, what is visible, and what goes wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::{Chance, Fate, Faults};
use super::position::{Gtid, Gtids, Seen};
use super::table::{Event, Footprint, Operation, Row, State, Table, conflict};
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::Position;

/// A server as its connections and its test share it.
pub type Shared = Arc<Mutex<Server>>;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most rows of a chunk of a range.
    pub chunk_rows: usize,
    /// The most rows of one part of a chunk.
    pub part_rows: usize,
    /// What is known of a read view.
    pub views: Views,
    /// How long the log is kept.
    pub retention: Retention,
    /// What goes wrong by chance.
    pub faults: Faults,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunk_rows: 10,
            part_rows: 4,
            views: Views::Exact,
            retention: Retention::Refuse,
            faults: Faults::default(),
        }
    }
}

/// What is known of a read view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// Exactly what it sees (Postgres).
    Exact,
    /// Only what was visible this long before it was taken (MySQL).
    AtLeast(Duration),
}

/// How long the log is kept, and what becomes of a stream from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Until [`Server::purge`], whatever is acknowledged; a stream from before is a gap.
    Keep,
    /// Until acknowledged; a stream from before is a gap.
    Refuse,
    /// Until acknowledged; a stream from before starts at what was acknowledged, and says nothing.
    SkipAhead,
}

/// When a transaction becomes visible, which is never before it is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// As soon as it is in the log.
    Now,
    /// So long afterwards.
    After(Duration),
    /// When [`Server::reveal`] says so, or a later transaction on the same rows commits.
    Held,
}

/// A committed transaction.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) gtid: Gtid,
    pub(super) events: Vec<Event>,
    /// Unix time of the commit, in microseconds.
    pub(super) micros: i64,
    footprint: Footprint,
}

#[derive(Debug, Clone)]
struct Entry {
    transaction: Arc<Logged>,
    visible_from: Option<Instant>,
}

impl Entry {
    fn visible_at(&self, moment: Instant) -> bool {
        self.visible_from.is_some_and(|from| from <= moment)
    }
}

/// A simulated database with a log. Its order of application is the log's; positions are sets.
#[derive(Debug)]
pub struct Server {
    /// How it behaves; may be changed at any time.
    pub settings: Settings,
    log: Vec<Entry>,
    /// The position and the tables of the end of the log.
    last: Gtids,
    end: State,
    /// The tables after the first `settled` transactions, all of which are visible.
    base: State,
    settled: usize,
    purged: Gtids,
    /// Transactions that were lost, whose numbers nobody gets again.
    lost: Gtids,
    /// The slot's place, once there is one.
    confirmed: Option<Gtids>,
    acknowledgements: Vec<Gtids>,
    /// Tables ever created, servers ever been, connections ever broken.
    storages: u64,
    incarnation: u64,
    generation: u64,
    down: bool,
    pub(super) chance: Chance,
    started: Instant,
    pub(super) changed: Arc<Notify>,
}

/// 2024-01-01 00:00 UTC, when every simulated server starts.
const EPOCH_MICROS: i64 = 1_704_067_200_000_000;

/// Locks a server. A test that panicked elsewhere must not hide behind a poisoned lock.
pub fn lock(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// An empty database; `seed` decides everything that happens by chance.
    pub fn new(settings: Settings, seed: u64) -> Shared {
        Arc::new(Mutex::new(Self {
            settings,
            log: Vec::new(),
            last: Gtids::new(),
            end: State::default(),
            base: State::default(),
            settled: 0,
            purged: Gtids::new(),
            lost: Gtids::new(),
            confirmed: None,
            acknowledgements: Vec::new(),
            storages: 0,
            incarnation: 1,
            generation: 0,
            down: false,
            chance: Chance::new(seed),
            started: Instant::now(),
            changed: Arc::new(Notify::new()),
        }))
    }

    /// Commits a transaction made at `origin`, visible at once.
    ///
    /// # Errors
    /// When a statement is refused; the transaction then never was.
    pub fn commit(&mut self, origin: char, operations: Vec<Operation>) -> Result<Gtid> {
        self.commit_with(origin, operations, Visibility::Now)
    }

    /// Commits a transaction that becomes visible as `visibility` says. Transactions whose rows it
    /// touches are visible from now on: it would have waited for their locks.
    ///
    /// # Errors
    /// When a statement is refused; the transaction then never was.
    pub fn commit_with(
        &mut self,
        origin: char,
        operations: Vec<Operation>,
        visibility: Visibility,
    ) -> Result<Gtid> {
        let mut events = Vec::with_capacity(operations.len());
        for operation in operations {
            match self.end.plan(operation, &mut self.storages) {
                Ok(event) => {
                    self.end.apply(&event);
                    events.push(event);
                }
                Err(error) => {
                    self.end = self.replay(|_| true);
                    return Err(error);
                }
            }
        }
        let mut footprint = Footprint::new();
        events.iter().for_each(|event| event.touches(&mut footprint));
        self.release(&footprint);
        let gtid = Gtid { origin, number: self.last.join(&self.lost).next(origin) };
        self.last.insert(gtid);
        let visible_from = match visibility {
            Visibility::Now => Some(Instant::now()),
            Visibility::After(lag) => Some(Instant::now() + lag),
            Visibility::Held => None,
        };
        let micros = EPOCH_MICROS + self.started.elapsed().as_micros() as i64;
        let transaction = Arc::new(Logged { gtid, events, micros, footprint });
        self.log.push(Entry { transaction, visible_from });
        self.changed.notify_waiters();
        Ok(gtid)
    }

    /// Makes a transaction visible now.
    pub fn reveal(&mut self, gtid: &Gtid) {
        let now = Instant::now();
        for entry in self.log.iter_mut().filter(|entry| entry.transaction.gtid == *gtid) {
            entry.visible_from = Some(entry.visible_from.map_or(now, |from| from.min(now)));
        }
    }

    fn release(&mut self, footprint: &Footprint) {
        let now = Instant::now();
        for entry in self.log.iter_mut().skip(self.settled).filter(|entry| !entry.visible_at(now)) {
            if conflict(footprint, &entry.transaction.footprint) {
                entry.visible_from = Some(now);
            }
        }
    }

    /// The position of the log's end.
    pub fn end(&self) -> Gtids {
        self.last.clone()
    }

    /// The transactions that a view taken now sees.
    pub fn visible(&self) -> Gtids {
        self.visible_at(Instant::now())
    }

    fn visible_at(&self, moment: Instant) -> Gtids {
        let seen = self.log.iter().filter(|entry| entry.visible_at(moment));
        seen.map(|entry| entry.transaction.gtid).collect()
    }

    /// What is known of a view taken now.
    pub(super) fn seen(&self) -> Seen {
        Seen { visible: self.known_visible(), logged: self.last.clone() }
    }

    fn known_visible(&self) -> Gtids {
        match self.settings.views {
            Views::Exact => self.visible(),
            Views::AtLeast(lag) => match Instant::now().checked_sub(lag) {
                Some(moment) => self.visible_at(moment),
                None => Gtids::new(),
            },
        }
    }

    /// All transactions in the order of the log, which is the order of their application.
    pub fn history(&self) -> impl Iterator<Item = Gtid> + '_ {
        self.log.iter().map(|entry| entry.transaction.gtid)
    }

    /// The names of the tables at the end of the log.
    pub fn tables(&self) -> Vec<TableId> {
        self.end.tables.keys().cloned().collect()
    }

    /// What a table looks like at the end of the log; `None` when there is none.
    pub fn schema(&self, table: &TableId) -> Option<Arc<TableSchema>> {
        self.end.tables.get(table).map(|table| table.schema.clone())
    }

    /// The rows of a table at the end of the log, sorted; `None` when there is none.
    pub fn contents(&self, table: &TableId) -> Option<Vec<Row>> {
        self.end.tables.get(table).map(sorted)
    }

    /// The rows of a table after exactly the transactions of `position`, sorted.
    pub fn contents_at(&self, position: &Gtids, table: &TableId) -> Option<Vec<Row>> {
        let state = self.replay(|gtid| position.contains(gtid));
        state.tables.get(table).map(sorted)
    }

    /// What a table looked like, and its rows, sorted, whenever it was dropped, in the order of the
    /// log.
    pub fn drops(&self, table: &TableId) -> Vec<(Arc<TableSchema>, Vec<Row>)> {
        let (mut state, mut found) = (State::default(), Vec::new());
        for event in self.log.iter().flat_map(|entry| &entry.transaction.events) {
            if matches!(event, Event::Drop { table: dropped } if dropped == table) {
                let last = state.tables.get(table);
                found.extend(last.map(|last| (last.schema.clone(), sorted(last))));
            }
            state.apply(event);
        }
        found
    }

    /// What a table looks like after exactly the transactions of `position`.
    pub fn schema_at(&self, position: &Gtids, table: &TableId) -> Option<Arc<TableSchema>> {
        let state = self.replay(|gtid| position.contains(gtid));
        state.tables.get(table).map(|table| table.schema.clone())
    }

    fn replay(&self, mut wanted: impl FnMut(&Gtid) -> bool) -> State {
        let mut state = State::default();
        let wanted = self.log.iter().filter(|entry| wanted(&entry.transaction.gtid));
        wanted.for_each(|entry| entry.transaction.events.iter().for_each(|e| state.apply(e)));
        state
    }

    /// The tables as a view taken now sees them, for those that `wanted` picks.
    pub(super) fn view(&mut self, wanted: impl Fn(&TableId) -> bool) -> State {
        let now = Instant::now();
        while let Some(entry) = self.log.get(self.settled).filter(|entry| entry.visible_at(now)) {
            entry.transaction.events.iter().for_each(|event| self.base.apply(event));
            self.settled += 1;
        }
        let mut state = State::default();
        for (id, table) in self.base.tables.iter().filter(|(id, _)| wanted(id)) {
            state.tables.insert(id.clone(), table.clone());
        }
        for entry in self.log.iter().skip(self.settled).filter(|entry| entry.visible_at(now)) {
            let events = entry.transaction.events.iter();
            events.filter(|event| wanted(event.table())).for_each(|event| state.apply(event));
        }
        state
    }

    /// Whether the log holds a change of `table` that is not visible yet.
    pub(super) fn changing(&self, table: &TableId) -> bool {
        let now = Instant::now();
        let hidden = self.log.iter().skip(self.settled).filter(|entry| !entry.visible_at(now));
        let mut events = hidden.flat_map(|entry| entry.transaction.events.iter());
        events.any(|event| {
            let schema = matches!(event, Event::Schema { .. } | Event::Drop { .. });
            schema && event.table() == table
        })
    }

    /// Throws away the log up to `position`, acknowledged or not.
    pub fn purge(&mut self, position: &Gtids) {
        self.purged = self.purged.join(position);
    }

    /// Removes the slot; the next `establish` makes a new one at the log's end.
    pub fn drop_slot(&mut self) {
        self.confirmed = None;
        self.disconnect();
    }

    /// Becomes another database that happens to hold the same: positions mean nothing any more.
    pub fn change_identity(&mut self) {
        self.incarnation += 1;
        self.disconnect();
    }

    /// Breaks all connections.
    pub fn disconnect(&mut self) {
        self.generation += 1;
        self.changed.notify_waiters();
    }

    /// Stops the server, or starts it again.
    pub fn set_down(&mut self, down: bool) {
        self.down = down;
        self.disconnect();
    }

    /// Fails over to a replica whose log holds the same transactions in another order: neighbours
    /// that don't touch the same rows may have changed places.
    pub fn fail_over(&mut self) {
        for at in (1..self.log.len()).rev() {
            let (one, other) = (&self.log[at - 1].transaction, &self.log[at].transaction);
            if !conflict(&one.footprint, &other.footprint) && self.chance.happens(0.5) {
                self.log.swap(at - 1, at);
            }
        }
        (self.base, self.settled) = (State::default(), 0);
        self.disconnect();
    }

    /// Fails over to a replica that lacks the last `count` transactions.
    pub fn lose(&mut self, count: usize) {
        let left = self.log.len().saturating_sub(count);
        for entry in self.log.drain(left..) {
            self.lost.insert(entry.transaction.gtid);
        }
        self.last = self.log.iter().map(|entry| entry.transaction.gtid).collect();
        (self.base, self.settled) = (State::default(), 0);
        self.end = self.replay(|_| true);
        self.purged = self.purged.meet(&self.last);
        self.confirmed = self.confirmed.take().map(|confirmed| confirmed.meet(&self.last));
        for acknowledged in &mut self.acknowledgements {
            *acknowledged = acknowledged.meet(&self.last);
        }
        self.disconnect();
    }

    /// Everything that was ever acknowledged, in order.
    pub fn acknowledgements(&self) -> &[Gtids] {
        &self.acknowledgements
    }

    /// All that was acknowledged, as one position.
    pub fn acknowledged(&self) -> Gtids {
        self.acknowledgements.iter().fold(Gtids::new(), |all, position| all.join(position))
    }

    pub(super) fn acknowledge(&mut self, position: &Gtids) {
        self.acknowledgements.push(position.clone());
        if let Some(confirmed) = self.confirmed.as_mut() {
            *confirmed = confirmed.join(position);
        }
    }

    /// Makes sure that there is a slot; returns its place and the database's identity.
    pub(super) fn establish(&mut self) -> (Gtids, String) {
        let oldest = match self.settings.retention {
            Retention::Keep => self.purged.clone(),
            Retention::Refuse | Retention::SkipAhead => {
                let confirmed = self.confirmed.clone().unwrap_or_else(|| self.end());
                self.confirmed = Some(confirmed.clone());
                confirmed.join(&self.purged)
            }
        };
        (oldest, format!("scripted/{}", self.incarnation))
    }

    /// Where a stream that asks for `from` starts.
    pub(super) fn start(&self, from: &Gtids) -> Result<Gtids> {
        let slot = self.settings.retention != Retention::Keep;
        let confirmed = match &self.confirmed {
            Some(confirmed) if slot => confirmed.clone(),
            None if slot => return Err(Error::gap("there is no slot")),
            _ => Gtids::new(),
        };
        let skips = self.settings.retention == Retention::SkipAhead;
        if !from.covers(&self.purged) || !(skips || from.covers(&confirmed)) {
            return Err(Error::gap("the log is gone").with("from", from));
        }
        Ok(from.join(&confirmed))
    }

    /// The first transaction from number `at` of the log on that `position` doesn't hold, with
    /// its number.
    pub(super) fn next(&self, position: &Gtids, at: usize) -> Result<Option<(usize, Arc<Logged>)>> {
        let rest = self.log.iter().enumerate().skip(at);
        let next = rest.map(|(at, entry)| (at, &entry.transaction));
        match next.into_iter().find(|(_, logged)| !position.contains(&logged.gtid)) {
            Some((_, logged)) if self.purged.contains(&logged.gtid) => {
                Err(Error::gap("the log was purged").with("transaction", logged.gtid))
            }
            next => Ok(next.map(|(at, logged)| (at, logged.clone()))),
        }
    }

    /// The present generation of connections; an error when the server is down.
    pub(super) fn connect(&self) -> Result<u64> {
        match self.down {
            true => Err(Error::unavailable("the server is down")),
            false => Ok(self.generation),
        }
    }

    pub(super) fn fate(&mut self) -> Fate {
        self.settings.faults.fate(&mut self.chance)
    }

    pub(super) fn forgets(&mut self) -> bool {
        self.chance.happens(self.settings.faults.forget)
    }

    pub(super) fn tears(&mut self) -> bool {
        self.chance.happens(self.settings.faults.tear)
    }
}

fn sorted(table: &Table) -> Vec<Row> {
    let mut rows: Vec<Row> = table.rows().cloned().collect();
    rows.sort_unstable();
    rows
}
