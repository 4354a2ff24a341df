//! Events of the log → calls of a [`Sink`]. No I/O: bytes and known schemas in, values out.
//!
//! A table is known by its name; each of its rows comes behind a table map of the same transaction,
//! which must agree with the table's schema in the number and types of its columns (and in their
//! names, where the log has them). Where it doesn't, and where a statement changes a table's
//! definition, [`Decoded::Unresolved`] asks the caller to look at the catalog.
//!
//! An image of a row may leave columns out (`binlog_row_image`): what an update leaves out of the
//! row afterwards it has not changed, and what an insert leaves out has its default, which the lake
//! reads again from the source (S5).

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::charset::Charsets;
use super::event::{Deed, Event, Rows, Said, TableMap, Unit, bit};
use super::image::{self, Logged};
use super::input::Input;
use super::position::{Gtid, Place};
use super::statement::{self, Action, Effect};
use super::values::{self, Field};
use crate::batch::Builder;
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::schema::{Identity, TableId, TableSchema};
use crate::source::{Decoded, Sink};

#[cfg(test)]
mod tests;

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
    /// These tables have another content, or are gone.
    Replaced(Vec<TableId>, String),
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
        match event.read()? {
            Said::Rows(rows) => self.rows(&rows, sink)?,
            Said::TableMap(map) => return Ok(self.map(map, answered, sink)),
            Said::Begin(gtid, unit) => self.begin(gtid, unit, sink),
            Said::Commit => self.end(event, sink),
            Said::Query(query) => {
                let (schema, text) =
                    (String::from_utf8_lossy(query.schema), String::from_utf8_lossy(query.text));
                let effect = statement::read(&schema, &text);
                return Ok(self.statement(event, effect, answered, sink));
            }
            Said::Prepare => {
                self.undone(
                    "it was changed by a distributed (XA) transaction, whose outcome is in \
                             another place of the log",
                    sink,
                );
                self.end(event, sink);
            }
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

    fn begin<S: Sink<Place>>(&mut self, gtid: Gtid, unit: Unit, sink: &mut S) {
        sink.begin(gtid.clone());
        self.open = Some(Open { gtid, unit, touched: Vec::new() });
    }

    /// The transaction ends with `event`.
    fn end<S: Sink<Place>>(&mut self, event: &Event, sink: &mut S) {
        if let Some(open) = self.open.take() {
            self.position.insert(&open.gtid);
            sink.commit(self.position.clone(), i64::from(event.seconds) * 1_000_000);
        }
    }

    /// Tables that the open transaction has changed can't go on.
    fn undone<S: Sink<Place>>(&mut self, why: &str, sink: &mut S) {
        let touched = self.open.as_mut().map(|open| std::mem::take(&mut open.touched));
        for table in touched.unwrap_or_default() {
            self.stop(&table, why.to_owned(), sink);
        }
    }

    fn stop<S: Sink<Place>>(&mut self, table: &TableId, reason: String, sink: &mut S) {
        sink.stop(table, reason);
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
            self.stop(&map.table, reason.to_owned(), sink);
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
        let inside = open.unit == Unit::Open;
        match effect {
            Effect::Begin | Effect::CreateWithRows => {
                open.unit = Unit::Open;
                return Decoded::Done;
            }
            Effect::BeginPrepared => {
                open.unit = Unit::Prepared;
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

    fn question_of(&self, effect: Effect) -> Option<Question> {
        let kept = |tables: Vec<TableId>| -> Vec<TableId> {
            let mut kept: Vec<_> =
                tables.into_iter().filter(|table| self.by_id.contains_key(table)).collect();
            kept.sort();
            kept.dedup();
            kept
        };
        let replaced = |tables: Vec<TableId>, why: &str| {
            (!tables.is_empty()).then(|| Question::Replaced(tables, why.to_owned()))
        };
        match effect {
            Effect::Alter(table, actions) if self.by_id.contains_key(&table) => {
                Some(Question::Altered(table, actions))
            }
            Effect::Drop(tables) => replaced(kept(tables), "it was dropped"),
            Effect::DropDatabase(name) => {
                let of_it = self.tables().filter(|table| table.schema == name).cloned();
                replaced(of_it.collect(), "its database was dropped")
            }
            Effect::Replace(tables) => replaced(kept(tables), "its definition was changed"),
            Effect::Rows(names) if !self.tables.is_empty() => {
                Some(Question::Statement { kept: kept(names.clone()), names })
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
        let fault = match (rows.deed, open.unit) {
            _ if rows.columns != mapped.columns.len() => Err(Fault::Malformed),
            (_, Unit::Prepared) => Err(Fault::Stop(
                "it was changed by a distributed (XA) transaction, whose outcome is in another \
                 place of the log; start again when it has ended"
                    .to_owned(),
            )),
            (Deed::PartialUpdate, _) => Err(Fault::Stop(
                "the log holds only what changed inside of its JSON; \
                 SET GLOBAL binlog_row_value_options = '', and start again"
                    .to_owned(),
            )),
            _ => match sink.rows(&known.schema) {
                Some(builder) => append(known, &mapped.columns, rows, builder),
                None => Ok(()),
            },
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

enum Fault {
    Malformed,
    /// Why the table can't go on.
    Stop(String),
}

/// One value of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    /// The image leaves it out.
    Absent,
    Null,
    Bytes(&'a [u8]),
}

/// Appends all rows of an event.
fn append(
    known: &Known,
    columns: &[Logged],
    rows: &Rows<'_>,
    builder: &mut Builder,
) -> Result<(), Fault> {
    let mut input = Input(rows.images);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let table = Table { known, columns };
    while !input.0.is_empty() {
        match rows.deed {
            Deed::Write => {
                image(&mut input, columns, rows.present, &mut after).ok_or(Fault::Malformed)?;
                table.write(Op::Insert, &after, None, builder)?;
            }
            Deed::Delete => {
                image(&mut input, columns, rows.present, &mut before).ok_or(Fault::Malformed)?;
                table.delete(&before, builder)?;
            }
            Deed::Update | Deed::PartialUpdate => {
                image(&mut input, columns, rows.present, &mut before).ok_or(Fault::Malformed)?;
                image(&mut input, columns, rows.present_after, &mut after)
                    .ok_or(Fault::Malformed)?;
                table.update(&before, &mut after, builder)?;
            }
        }
    }
    Ok(())
}

/// Reads an image: one bit for each column it holds, set when that is null, then the others.
fn image<'a>(
    input: &mut Input<'a>,
    columns: &[Logged],
    present: &[u8],
    cells: &mut Vec<Cell<'a>>,
) -> Option<()> {
    let held = (0..columns.len()).filter(|at| bit(present, *at)).count();
    let nulls = input.bytes(held.div_ceil(8))?;
    cells.clear();
    let mut place = 0;
    for (at, logged) in columns.iter().enumerate() {
        cells.push(if !bit(present, at) {
            Cell::Absent
        } else {
            place += 1;
            match bit(nulls, place - 1) {
                true => Cell::Null,
                false => Cell::Bytes(logged.take(input)?),
            }
        });
    }
    Some(())
}

/// A table whose rows are being appended.
struct Table<'t> {
    known: &'t Known,
    columns: &'t [Logged],
}

impl Table<'_> {
    fn schema(&self) -> &TableSchema {
        &self.known.schema
    }

    fn is_keyed(&self) -> bool {
        self.schema().identity != Identity::FullRow
    }

    /// The value of a cell; `row` is what else is known of the row, for errors.
    #[inline]
    fn value<'a>(&self, at: usize, cell: Cell<'a>, row: &[Cell<'a>]) -> Result<Value<'a>, Fault> {
        let bytes = match cell {
            Cell::Absent => return Ok(Value::Unchanged),
            Cell::Null => return Ok(Value::Null),
            Cell::Bytes(bytes) => bytes,
        };
        let (field, logged) =
            self.known.fields.get(at).zip(self.columns.get(at)).ok_or(Fault::Malformed)?;
        let value = image::value(field, *logged, bytes).map_err(|misfit| {
            let shown = self.as_text(at, bytes);
            let key = |at: usize| match row.get(at) {
                Some(Cell::Bytes(bytes)) => Some(self.as_text(at, bytes)),
                _ => None,
            };
            Fault::Stop(values::stop_reason(self.schema(), at, misfit, &shown, key))
        })?;
        if self.schema().key().contains(&at) {
            values::comparable(self.schema(), at, &value).map_err(Fault::Stop)?;
        }
        Ok(value)
    }

    /// A value as people read it, whether or not it fits.
    fn as_text(&self, at: usize, bytes: &[u8]) -> String {
        let (Some(field), Some(logged)) = (self.known.fields.get(at), self.columns.get(at)) else {
            return String::new();
        };
        let text = field.kind.text_type().map(|lake| Field { lake, ..field.clone() });
        let value = image::value(text.as_ref().unwrap_or(field), *logged, bytes);
        value.map_or_else(|_| bytes.escape_ascii().to_string(), |value| values::shown(&value))
    }

    /// The values of an old row as far as they identify it.
    fn old<'a>(&self, row: &[Cell<'a>]) -> Result<Vec<Value<'a>>, Fault> {
        let (keyed, key) = (self.is_keyed(), self.schema().key());
        let values = row.iter().enumerate().map(|(at, cell)| match (keyed, cell) {
            (true, _) if !key.contains(&at) => Ok(Value::Unchanged),
            (_, Cell::Absent) => {
                let name = self.schema().columns.get(at).map_or("?", |c| c.name.as_str());
                Err(Fault::Stop(format!(
                    "the log leaves column {name} out of old rows, which identifies them; \
                     SET GLOBAL binlog_row_image = 'FULL', and start again"
                )))
            }
            _ => self.value(at, *cell, row),
        });
        values.collect()
    }

    fn delete(&self, before: &[Cell<'_>], builder: &mut Builder) -> Result<(), Fault> {
        let old = self.old(before)?;
        builder.push(Op::Delete, Some(&old), None).map_err(internal)
    }

    fn update<'a>(
        &self,
        before: &[Cell<'a>],
        after: &mut [Cell<'a>],
        builder: &mut Builder,
    ) -> Result<(), Fault> {
        // What the update left as it was is in the row before, as far as that has it.
        for (new, old) in after.iter_mut().zip(before) {
            if *new == Cell::Absent {
                *new = *old;
            }
        }
        if !self.is_keyed() {
            self.delete(before, builder)?;
            return self.write(Op::Insert, after, None, builder);
        }
        let moved = self.schema().key().iter().any(|&at| before.get(at) != after.get(at));
        let old_key = match moved {
            true => Some(builder.key(&self.old(before)?).map_err(internal)?),
            false => None,
        };
        self.write(Op::Update, after, old_key, builder)
    }

    fn write(
        &self,
        op: Op,
        after: &[Cell<'_>],
        old_key: Option<u32>,
        builder: &mut Builder,
    ) -> Result<(), Fault> {
        let keyed = self.is_keyed();
        if after.iter().enumerate().any(|(at, cell)| {
            *cell == Cell::Absent && (!keyed || self.schema().key().contains(&at))
        }) {
            return Err(Fault::Stop(
                "the log leaves out values that identify a row; \
                 SET GLOBAL binlog_row_image = 'FULL', and start again"
                    .to_owned(),
            ));
        }
        let mut row = builder.row();
        for (at, cell) in after.iter().enumerate() {
            row.push(&self.value(at, *cell, after)?);
        }
        row.finish(op, old_key).map_err(internal)
    }
}

fn internal(error: Error) -> Fault {
    Fault::Stop(error.full())
}
