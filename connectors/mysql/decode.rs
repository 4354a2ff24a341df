//! Events of the log → calls of a [`Sink`]. No I/O: bytes and known schemas in, values out.
//!
//! A table is known by its name; each of its rows comes behind a table map of the same transaction,
//! which must agree with the table's schema in the number and types of its columns (and in their
//! names, where the log has them). Where it doesn't, and where a statement changes a table's
//! definition, [`Decoded::Unresolved`] asks the caller to look at the catalog.
//!
//! An image of a row may leave columns out (`binlog_row_image`): what an update leaves out of the
//! row afterwards it has not changed, and what an insert leaves out has its default, which the lake
//! reads again from the source (S5). Of a JSON value it may have what changed
//! (`binlog_row_value_options = PARTIAL_JSON`): that is applied to the value before where the image of
//! the row before has it, and is a [patch](crate::patch) of the lake's otherwise.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::charset::Charsets;
use super::event::{Event, Query, Rows, Said, TableMap, Unit, kind};
use super::image::Logged;
use super::position::{Gtid, Place};
use super::statement::{self, Action, Effect};
use super::values::Field;
use super::xa::{Held, Prepared, Xid};
use crate::error::{Error, Reason, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{Decoded, Position, Sink};

mod rows;
#[cfg(test)]
mod tests;

use rows::{Fault, append};

/// A table as the decoder knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it looks like.
    pub schema: Arc<TableSchema>,
    /// How its values are read.
    pub fields: Vec<Field>,
}

impl Known {
    /// The table that `schema` describes.
    ///
    /// # Errors
    /// When the schema isn't one that this connector makes.
    pub fn new(schema: Arc<TableSchema>, charsets: &Charsets) -> Result<Self> {
        Ok(Self { fields: Field::all(&schema, charsets)?, schema })
    }

    /// Whether rows behind a table map of these columns are rows of this schema.
    pub fn fits(&self, columns: &[Logged], names: Option<&[String]>) -> bool {
        let named = |names: &[String]| {
            let known = self.schema.columns.iter();
            known.zip(names).all(|(known, name)| known.name == *name)
        };
        columns.len() == self.fields.len()
            && names.is_none_or(|names| names.len() == columns.len() && named(names))
            && self.fields.iter().zip(columns).all(|(field, logged)| logged.is_of(&field.kind))
    }
}

/// What the catalog has to be asked about.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Rows of a table come that looks otherwise.
    Shape {
        /// Which.
        table: TableId,
        /// Its columns in the log.
        columns: Vec<Logged>,
        /// Their names, where the log has them.
        names: Option<Vec<String>>,
    },
    /// A table's definition was changed.
    Altered(TableId, Vec<Action>),
    /// These tables have another content.
    Replaced(Vec<TableId>, String),
    /// These names are no table's any more, or another's.
    Dropped(Vec<TableId>),
    /// A statement changed rows, which of them only the server can tell.
    Statement {
        /// Tables that it names and that are kept.
        kept: Vec<TableId>,
        /// Everything in it that could be a table's name.
        names: Vec<TableId>,
    },
    /// All tables may have changed.
    Everything(String),
}

/// A table map that has been read.
#[derive(Debug)]
struct Mapped {
    /// The table's place, while its map fits it.
    table: usize,
    columns: Vec<Logged>,
}

/// A transaction being read.
#[derive(Debug)]
struct Open {
    gtid: Gtid,
    unit: Unit,
    /// The tables it has changed.
    touched: Vec<TableId>,
    /// Whether it had been read before: only what is prepared in it counts.
    known: bool,
    /// What has come of it while it is being prepared.
    held: Option<Held>,
}

/// Decodes the log of one connection.
#[derive(Debug)]
pub struct Decoder {
    tables: Vec<Known>,
    by_id: HashMap<TableId, usize>,
    mapped: FxHashMap<u64, Mapped>,
    /// Everything read between transactions.
    position: Place,
    open: Option<Open>,
    question: Option<Question>,
    /// The question about the message that comes next has been answered.
    answered: bool,
    /// Distributed transactions whose outcome is not known.
    prepared: Prepared,
    /// Events that come before all others: those of a prepared transaction that is committed.
    replay: Vec<Event>,
    /// Why what the tables need next is not in the log, if so.
    lost: Option<String>,
}

impl Decoder {
    /// A decoder for a connection that reads on from `position`. Changes of other tables are
    /// skipped.
    pub fn new(position: Place, tables: Vec<Known>) -> Self {
        let mut decoder = Self {
            tables: Vec::new(),
            by_id: HashMap::new(),
            mapped: FxHashMap::default(),
            position,
            open: None,
            question: None,
            answered: false,
            prepared: Prepared::default(),
            replay: Vec::new(),
            lost: None,
        };
        tables.into_iter().for_each(|known| decoder.set(known));
        decoder
    }

    /// Decodes one event.
    ///
    /// # Errors
    /// When it isn't in its form, or not understood.
    pub fn decode<S: Sink<Place>>(&mut self, event: &Event, sink: &mut S) -> Result<Decoded> {
        let answered = std::mem::take(&mut self.answered);
        self.question = None;
        if let Some(why) = self.lost.take_if(|_| !self.tables.is_empty()) {
            return Ok(self.ask(Question::Everything(why)));
        }
        let said = event.read()?;
        if matches!(said, Said::Rows(_) | Said::TableMap(_)) && self.is_held(event, &said) {
            return Ok(Decoded::Done);
        }
        match said {
            Said::Rows(rows) => self.rows(&rows, sink)?,
            Said::TableMap(map) => return Ok(self.map(map, answered, sink)),
            Said::Begin(gtid, unit) => {
                self.begin(gtid, unit, sink);
                sink.committed_at(i64::from(event.seconds) * 1_000_000);
            }
            Said::Commit => self.end(event, sink),
            Said::Query(query) => {
                let effect = self.effect(&query);
                return Ok(match effect {
                    Effect::CommitPrepared | Effect::RollbackPrepared => {
                        self.outcome(event, &query, effect, answered, sink)
                    }
                    effect => self.statement(event, effect, answered, sink),
                });
            }
            Said::Prepare { xid, one_phase } => self.prepare(event, xid, one_phase, sink),
            Said::Incident if !answered => {
                let why = "the server lost a part of its log (an incident event)";
                return Ok(self.ask(Question::Everything(why.to_owned())));
            }
            Said::Anonymous => {
                return Err(Error::config("the log holds transactions without a GTID").remedy(
                    "turn gtid_mode ON (SET GLOBAL, step by step: OFF_PERMISSIVE, \
                             ON_PERMISSIVE, ON)",
                ));
            }
            // Numbers of tables belong to one file.
            Said::Format => self.mapped.clear(),
            Said::Alive if self.open.is_none() => sink.progress(self.position.clone()),
            Said::Incident | Said::Alive | Said::Nothing => {}
        }
        Ok(Decoded::Done)
    }

    /// What is to be asked, after [`Decoded::Unresolved`].
    pub fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    /// The question has been answered: what needed to be set or removed was.
    pub fn settle(&mut self) {
        self.answered = true;
    }

    /// What is known of a table.
    pub fn known(&self, table: &TableId) -> Option<&Known> {
        self.by_id.get(table).and_then(|&at| self.tables.get(at))
    }

    /// The names of all tables.
    pub fn tables(&self) -> impl Iterator<Item = &TableId> {
        self.tables.iter().map(|known| &known.schema.id)
    }

    /// Adds a table, or replaces what is known of it.
    pub fn set(&mut self, known: Known) {
        let id = known.schema.id.clone();
        if let Some(at) = self.by_id.get(&id) {
            self.mapped.retain(|_, mapped| mapped.table != *at);
        }
        self.tables.retain(|other| other.schema.id != id);
        self.tables.push(known);
        self.renumber();
    }

    /// Skips changes of a table from here on.
    pub fn remove(&mut self, table: &TableId) {
        self.tables.retain(|other| other.schema.id != *table);
        self.renumber();
    }

    /// Maps of tables that stay are still good: a table may go in the midst of a statement.
    fn renumber(&mut self) {
        let numbered = self.tables.iter().enumerate();
        let before = std::mem::take(&mut self.by_id);
        self.by_id = numbered.map(|(at, known)| (known.schema.id.clone(), at)).collect();
        let moved: HashMap<usize, usize> =
            before.iter().filter_map(|(id, at)| Some((*at, *self.by_id.get(id)?))).collect();
        self.mapped.retain(|_, mapped| match moved.get(&mapped.table) {
            Some(at) => {
                mapped.table = *at;
                true
            }
            None => false,
        });
    }

    fn ask(&mut self, question: Question) -> Decoded {
        self.question = Some(question);
        Decoded::Unresolved
    }

    /// Says that the log has lost what the tables need next, for this reason.
    pub fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// Events that have to be decoded next, in order.
    pub fn take_replay(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.replay)
    }

    fn begin<S: Sink<Place>>(&mut self, gtid: Gtid, unit: Unit, sink: &mut S) {
        let known = self.position.contains(&gtid);
        if !known {
            sink.begin(gtid.clone());
        }
        self.open = Some(Open { gtid, unit, touched: Vec::new(), known, held: None });
        if unit == Unit::Prepared {
            self.hold();
        }
    }

    /// The open transaction is being prepared: what comes of it is held.
    fn hold(&mut self) {
        if let Some(open) = self.open.as_mut() {
            let before = if open.known { self.position.resume() } else { &self.position.read };
            open.unit = Unit::Prepared;
            open.held.get_or_insert_with(|| Held::new(before.clone()));
        }
    }

    /// Whether rows are none of the sink's business now: held, or read before.
    fn is_held(&mut self, event: &Event, said: &Said<'_>) -> bool {
        let Some(open) = self.open.as_mut() else { return false };
        if let Some(held) = open.held.as_mut() {
            self.prepared.keep(held, event, said);
            return true;
        }
        open.known
    }

    /// The open transaction has been prepared.
    fn prepare<S: Sink<Place>>(&mut self, event: &Event, xid: Xid, one_phase: bool, sink: &mut S) {
        let held = self.open.as_mut().and_then(|open| open.held.take());
        match held {
            Some(held) if one_phase => self.commit_held(event, held, sink),
            Some(held) => {
                self.prepared.add(xid, held);
                self.end(event, sink);
            }
            None => self.end(event, sink),
        }
    }

    /// A prepared transaction is committed or undone.
    fn outcome<S: Sink<Place>>(
        &mut self,
        event: &Event,
        query: &Query<'_>,
        effect: Effect,
        answered: bool,
        sink: &mut S,
    ) -> Decoded {
        let xid = std::str::from_utf8(query.text).ok().and_then(Xid::of_statement);
        let known = self.open.as_ref().is_none_or(|open| open.known);
        match xid.and_then(|xid| self.prepared.take(&xid)) {
            Some(held) if effect == Effect::CommitPrepared && !known => {
                self.commit_held(event, held, sink);
                return Decoded::Done;
            }
            None if effect == Effect::CommitPrepared && !known && !answered => {
                let why = "a distributed (XA) transaction was committed that had been prepared \
                           before its log was followed";
                if !self.tables.is_empty() {
                    return self.ask(Question::Everything(why.to_owned()));
                }
            }
            _ => {}
        }
        self.end(event, sink);
        Decoded::Done
    }

    /// What was held comes next, as a part of the open transaction, and then its end.
    fn commit_held<S: Sink<Place>>(&mut self, event: &Event, held: Held, sink: &mut S) {
        let Some(open) = self.open.as_mut().filter(|open| !open.known) else {
            return self.end(event, sink);
        };
        if let Some(why) = held.spoilt {
            open.touched = held.tables;
            self.undone(why, sink);
            return self.end(event, sink);
        }
        open.unit = Unit::Open;
        self.replay = held.events;
        self.replay.push(Event { kind: kind::XID, body: Bytes::new(), ..event.clone() });
    }

    /// The transaction ends with `event`.
    fn end<S: Sink<Place>>(&mut self, event: &Event, sink: &mut S) {
        if let Some(open) = self.open.take() {
            // Until all that was known has been read again, what is prepared in it is not all held.
            if open.known {
                return;
            }
            self.position.since = self.prepared.since();
            self.position.insert(&open.gtid);
            sink.commit(self.position.clone(), i64::from(event.seconds) * 1_000_000);
        }
    }

    /// Tables that the open transaction has changed can't go on.
    fn undone<S: Sink<Place>>(&mut self, why: &str, sink: &mut S) {
        let touched = self.open.as_mut().map(|open| std::mem::take(&mut open.touched));
        let touched = touched.unwrap_or_default();
        for table in
            touched.into_iter().filter(|table| self.by_id.contains_key(table)).collect::<Vec<_>>()
        {
            self.stop(&table, why, sink);
        }
    }

    fn stop<S: Sink<Place>>(&mut self, table: &TableId, why: impl Into<Reason>, sink: &mut S) {
        sink.stop(table, why.into());
        self.remove(table);
    }

    fn map<S: Sink<Place>>(&mut self, map: TableMap<'_>, answered: bool, sink: &mut S) -> Decoded {
        let Some(&table) = self.by_id.get(&map.table) else {
            self.mapped.remove(&map.number);
            return Decoded::Done;
        };
        let names = map.names();
        let fits = |known: &Known| known.fits(&map.columns, names.as_deref());
        if self.tables.get(table).is_some_and(fits) {
            self.mapped.insert(map.number, Mapped { table, columns: map.columns });
            return Decoded::Done;
        }
        if answered {
            let reason = "its rows in the log look otherwise than the catalog says (a table made \
                          by an old server? ALTER TABLE … FORCE)";
            self.stop(&map.table, reason, sink);
            return Decoded::Done;
        }
        self.ask(Question::Shape { table: map.table, columns: map.columns, names })
    }

    fn statement<S: Sink<Place>>(
        &mut self,
        event: &Event,
        effect: Effect,
        answered: bool,
        sink: &mut S,
    ) -> Decoded {
        let Some(open) = self.open.as_mut() else { return Decoded::Done };
        let inside = matches!(open.unit, Unit::Open | Unit::Prepared);
        match effect {
            Effect::Begin | Effect::CreateWithRows => {
                open.unit = Unit::Open;
                return Decoded::Done;
            }
            Effect::BeginPrepared => {
                self.hold();
                return Decoded::Done;
            }
            effect if open.known => {
                if !inside || matches!(effect, Effect::Commit | Effect::Rollback) {
                    self.end(event, sink);
                }
                return Decoded::Done;
            }
            Effect::Commit => {
                self.end(event, sink);
                return Decoded::Done;
            }
            Effect::Rollback => {
                self.undone("a transaction that changed it was rolled back in the log", sink);
                self.end(event, sink);
                return Decoded::Done;
            }
            Effect::RollbackTo if open.held.is_some() => {
                let why = "a part of a distributed (XA) transaction was rolled back in the log";
                open.held.iter_mut().for_each(|held| held.spoil(why));
            }
            Effect::RollbackTo => {
                self.undone("a part of a transaction was rolled back in the log", sink);
            }
            Effect::Truncate(table) if self.by_id.contains_key(&table) => sink.truncate(&table),
            _ if answered => {}
            effect => {
                if let Some(question) = self.question_of(effect) {
                    return self.ask(question);
                }
            }
        }
        if !inside {
            self.end(event, sink);
        }
        Decoded::Done
    }

    /// What a statement does, by the names of tables as they are known.
    fn effect(&self, query: &Query<'_>) -> Effect {
        let (schema, text) =
            (String::from_utf8_lossy(query.schema), String::from_utf8_lossy(query.text));
        match statement::read(&schema, &text) {
            Effect::Truncate(table) if self.by_id.contains_key(&table) => Effect::Truncate(table),
            Effect::Truncate(table) => Effect::Replace(self.named(table)),
            Effect::Alter(table, actions) => match self.named(table).as_slice() {
                [table] => Effect::Alter(table.clone(), actions),
                tables => Effect::Replace(tables.to_vec()),
            },
            Effect::Drop(tables) => Effect::Drop(self.all_named(tables)),
            Effect::Replace(tables) => Effect::Replace(self.all_named(tables)),
            // In another character set than UTF-8 a name can't be told.
            Effect::Nothing if matches!(text, Cow::Owned(_)) => {
                Effect::Replace(self.all_named(vec![TableId::new("", text)]))
            }
            other => other,
        }
    }

    fn all_named(&self, tables: Vec<TableId>) -> Vec<TableId> {
        let mut named: Vec<_> = tables.into_iter().flat_map(|table| self.named(table)).collect();
        named.sort();
        named.dedup();
        named
    }

    /// The kept tables that a statement may mean by a name: the one called so, else those that
    /// differ only in case (`lower_case_table_names`), and, for a name that was not written in
    /// UTF-8, all that are not called in ASCII.
    fn named(&self, table: TableId) -> Vec<TableId> {
        if self.by_id.contains_key(&table) {
            return vec![table];
        }
        let lower = |id: &TableId| (id.schema.to_lowercase(), id.name.to_lowercase());
        let (wanted, unreadable) = (lower(&table), table.to_string().contains('\u{fffd}'));
        let meant = |id: &&TableId| {
            let ascii = id.schema.is_ascii() && id.name.is_ascii();
            lower(id) == wanted || (unreadable && !ascii)
        };
        self.tables().filter(meant).cloned().collect()
    }

    fn question_of(&self, effect: Effect) -> Option<Question> {
        let replaced = |tables: Vec<TableId>, why: &str| {
            (!tables.is_empty()).then(|| Question::Replaced(tables, why.to_owned()))
        };
        let dropped =
            |tables: Vec<TableId>| (!tables.is_empty()).then_some(Question::Dropped(tables));
        match effect {
            Effect::Alter(table, actions) if self.by_id.contains_key(&table) => {
                Some(Question::Altered(table, actions))
            }
            Effect::Drop(tables) => dropped(tables),
            Effect::DropDatabase(name) => {
                let is_of = |table: &&TableId| table.schema.eq_ignore_ascii_case(&name);
                let of_it = self.tables().filter(is_of).cloned();
                dropped(of_it.collect())
            }
            Effect::Replace(tables) => replaced(tables, "its definition was changed"),
            Effect::Rows(names) if !self.tables.is_empty() => {
                Some(Question::Statement { kept: self.all_named(names.clone()), names })
            }
            _ => None,
        }
    }

    fn rows<S: Sink<Place>>(&mut self, rows: &Rows<'_>, sink: &mut S) -> Result<()> {
        let Some(mapped) = self.mapped.get(&rows.number) else { return Ok(()) };
        let Some(known) = self.tables.get(mapped.table) else { return Ok(()) };
        let id = &known.schema.id;
        let Some(open) = self.open.as_mut() else {
            return Err(Error::unavailable("the log holds rows outside of a transaction"));
        };
        if open.touched.last() != Some(id) && !open.touched.contains(id) {
            open.touched.push(id.clone());
        }
        let fault = match sink.rows(&known.schema) {
            _ if rows.columns != mapped.columns.len() => Err(Fault::Malformed),
            Some(builder) => append(known, &mapped.columns, rows, builder),
            None => Ok(()),
        };
        match fault {
            Ok(()) => Ok(()),
            Err(Fault::Stop(reason)) => {
                let id = id.clone();
                self.stop(&id, reason, sink);
                Ok(())
            }
            Err(Fault::Malformed) => {
                Err(Error::unavailable("rows of the log are not in their form").with("table", id))
            }
        }
    }
}
