//! Messages of the log → calls of a [`Sink`]. No I/O: bytes and known schemas in, values out.
//!
//! A table is known by its object id and decoded only after a RELATION message that agrees with
//! its schema. When one doesn't agree, [`Decoded::Unresolved`] asks the caller to look at the
//! catalog; rows in between two schemas are skipped only where the schema comes from a look at the
//! catalog that is followed by a snapshot (whoever changed the schema held the table alone, so
//! every row written before is seen by that snapshot).
//!
//! What identifies the old row of an update or delete depends on the replica identity (§55.9,
//! TupleData): `O` carries all columns, `K` only the identity's, whose other columns are null
//! *there* and say nothing about the row. Neither comes when no column of the identity changed.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::batch::Builder;
use crate::change::{Op, Value};
use crate::error::{Error, Reason, Result};
use crate::postgres::pgoutput::{Field, Message, Old, Row, Tuple, malformed};
use crate::postgres::position::{Commit, Lsn};
use crate::postgres::storage::oid_of;
use crate::postgres::values::{Misfit, parse, stop_reason};
use crate::schema::{Identity, TableId, TableSchema};
use crate::source::{Decoded, Sink};

pub use crate::postgres::pgoutput::{RelationColumn, RelationMessage};

#[cfg(test)]
mod tests;

/// A table as the decoder knows it. Its tuples have one value a column of the schema, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its object id.
    pub oid: u32,
    /// What it looks like.
    pub schema: Arc<TableSchema>,
    /// Type and modifier of each column, as a RELATION message carries them.
    types: Vec<(u32, i32)>,
}

impl Relation {
    /// The relation that `schema`, made by this connector, speaks of.
    ///
    /// # Errors
    /// When the schema isn't one that this connector makes.
    pub fn new(schema: Arc<TableSchema>) -> Result<Self> {
        let parts = || {
            let types = schema.columns.iter().map(|column| {
                let (oid, typmod) = column.source_type.split_once('/')?;
                Some((oid.parse().ok()?, typmod.parse().ok()?))
            });
            Some((oid_of(&schema.storage)?, types.collect::<Option<_>>()?))
        };
        let Some((oid, types)) = parts() else {
            let error = Error::internal("a stored schema was not written by this connector");
            return Err(error.with("table", &schema.id));
        };
        Ok(Self { oid, schema, types })
    }

    /// Whether rows that follow `message` are rows of this schema.
    pub fn fits(&self, message: &RelationMessage) -> bool {
        let id = &self.schema.id;
        self.oid == message.oid
            && id.name == message.name
            && id.schema == message.namespace
            && self.has_columns_of(message)
            && self.identity_fits(message)
    }

    /// Whether names and types of the columns are those of `message`, in the same order.
    pub fn has_columns_of(&self, message: &RelationMessage) -> bool {
        let columns = self.schema.columns.iter().zip(&self.types);
        self.types.len() == message.columns.len()
            && columns.zip(&message.columns).all(|((column, types), sent)| {
                column.name == sent.name && *types == (sent.type_oid, sent.typmod)
            })
    }

    /// Whether changes under the replica identity of `message` name the rows that this schema's
    /// identity names.
    pub fn identity_fits(&self, message: &RelationMessage) -> bool {
        match (message.replica_identity, &self.schema.identity) {
            // Old rows come whole. Under NOTHING there are only inserts.
            (b'f' | b'n', _) => true,
            (_, Identity::FullRow | Identity::None) => false,
            (_, Identity::Key(key)) => {
                message.columns.iter().enumerate().all(|(at, sent)| sent.key == key.contains(&at))
            }
        }
    }
}

/// Decodes the log of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: Vec<Known>,
    by_oid: FxHashMap<u32, usize>,
    /// The last RELATION message of each table, wanted or not: the server sends it once, however
    /// much later the table is added.
    announced: HashMap<u32, RelationMessage>,
    unresolved: Option<RelationMessage>,
    in_transaction: bool,
    // Emptied and kept, so that a row costs no allocation.
    old_row: Vec<Value<'static>>,
    old_fields: Vec<Field<'static>>,
}

#[derive(Debug)]
struct Known {
    relation: Relation,
    /// The last RELATION message fits: rows that come are rows of this schema.
    current: bool,
}

impl Decoder {
    /// A decoder for a connection that has just been opened. Changes of other tables are skipped.
    pub fn new(relations: Vec<Relation>) -> Self {
        let mut decoder = Self::default();
        relations.into_iter().for_each(|relation| decoder.set_relation(relation));
        decoder
    }

    /// Decodes `payload`, the message inside XLogData.
    ///
    /// # Errors
    /// When the message is malformed.
    pub fn decode<S: Sink<Lsn>>(&mut self, payload: &[u8], sink: &mut S) -> Result<Decoded> {
        self.unresolved = None;
        match Message::parse(payload)? {
            Message::Row(row) => {
                self.change(&row, sink).map_err(|Malformed| malformed(payload))?;
            }
            Message::Relation(message) => return Ok(self.announce(message)),
            Message::Truncate(oids) => {
                let known = oids.iter().filter_map(|oid| self.tables.get(*self.by_oid.get(oid)?));
                for table in known.filter(|table| table.current) {
                    sink.truncate(&table.relation.schema.id);
                }
            }
            Message::Begin { final_lsn, micros, xid } => {
                self.in_transaction = true;
                sink.begin(Commit { lsn: Lsn(final_lsn), xid });
                sink.committed_at(micros);
            }
            Message::Commit { end_lsn, micros } => {
                self.in_transaction = false;
                sink.commit(Lsn(end_lsn), micros);
            }
            Message::Other => {}
        }
        Ok(Decoded::Done)
    }

    /// The message that differs from what is known, after [`Decoded::Unresolved`].
    pub fn unresolved(&self) -> Option<&RelationMessage> {
        self.unresolved.as_ref()
    }

    /// What is known of the table that `message` speaks of, by object id or else by name.
    pub fn known(&self, message: &RelationMessage) -> Option<&Relation> {
        self.find(message).map(|table| &table.relation)
    }

    /// Adds a table, or replaces what is known of it.
    pub fn set_relation(&mut self, relation: Relation) {
        let current = self.announced.get(&relation.oid).is_some_and(|last| relation.fits(last));
        let (id, oid) = (&relation.schema.id, relation.oid);
        self.tables.retain(|known| known.relation.oid != oid && known.relation.schema.id != *id);
        self.tables.push(Known { relation, current });
        self.number_tables();
    }

    /// Skips changes of a table from here on.
    pub fn remove_table(&mut self, table: &TableId) {
        self.tables.retain(|known| known.relation.schema.id != *table);
        self.number_tables();
    }

    /// Whether a transaction has begun and not ended.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    fn number_tables(&mut self) {
        let numbered = self.tables.iter().enumerate();
        self.by_oid = numbered.map(|(at, known)| (known.relation.oid, at)).collect();
    }

    fn find(&self, message: &RelationMessage) -> Option<&Known> {
        let by_oid = self.by_oid.get(&message.oid).and_then(|&at| self.tables.get(at));
        by_oid.or_else(|| {
            self.tables.iter().find(|known| {
                let id = &known.relation.schema.id;
                id.name == message.name && id.schema == message.namespace
            })
        })
    }

    fn announce(&mut self, message: RelationMessage) -> Decoded {
        let fits = self.find(&message).map(|known| known.relation.fits(&message));
        self.announced.insert(message.oid, message.clone());
        match fits {
            None => Decoded::Done,
            Some(true) => {
                let at = self.by_oid.get(&message.oid);
                if let Some(known) = at.and_then(|&at| self.tables.get_mut(at)) {
                    known.current = true;
                }
                Decoded::Done
            }
            Some(false) => {
                self.unresolved = Some(message);
                Decoded::Unresolved
            }
        }
    }

    fn change<S: Sink<Lsn>>(&mut self, change: &Row<'_>, sink: &mut S) -> Result<(), Malformed> {
        let table = self.by_oid.get(&change.oid).and_then(|&at| self.tables.get(at));
        let Some(known) = table.filter(|known| known.current) else { return Ok(()) };
        let schema = &known.relation.schema;
        let Some(builder) = sink.rows(schema) else { return Ok(()) };
        let result = match change.old {
            None => append(schema, change, &[], false, None, builder),
            Some(old) => {
                let mut buffers = Buffers {
                    row: recycle(std::mem::take(&mut self.old_row)),
                    fields: recycle_fields(std::mem::take(&mut self.old_fields)),
                };
                let result = append_over(schema, change, old, &mut buffers, builder);
                self.old_row = recycle(buffers.row);
                self.old_fields = recycle_fields(buffers.fields);
                result
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(Fault::Malformed) => Err(Malformed),
            Err(Fault::Stop(reason)) => {
                let id = schema.id.clone();
                sink.stop(&id, reason);
                self.remove_table(&id);
                Ok(())
            }
        }
    }
}

struct Malformed;

enum Fault {
    Malformed,
    /// Why the table can't go on.
    Stop(Reason),
}

/// An old row: its fields, and the values of those that identify it.
struct Buffers<'a> {
    row: Vec<Value<'a>>,
    fields: Vec<Field<'a>>,
}

/// The same allocation for values of another message: collecting from a vector of the same layout
/// happens in place.
fn recycle<'b>(mut values: Vec<Value<'_>>) -> Vec<Value<'b>> {
    values.clear();
    values.into_iter().map(|_| Value::Null).collect()
}

fn recycle_fields<'b>(mut fields: Vec<Field<'_>>) -> Vec<Field<'b>> {
    fields.clear();
    fields.into_iter().map(|_| Field::Null).collect()
}

/// Appends a change that came with its old row, or the identity of it.
fn append_over<'a>(
    schema: &TableSchema,
    change: &Row<'a>,
    old: Old<'a>,
    buffers: &mut Buffers<'a>,
    builder: &mut Builder,
) -> Result<(), Fault> {
    let Buffers { row, fields } = buffers;
    read_old(schema, old, fields, row)?;
    let full = schema.identity == Identity::FullRow;
    if full || change.new.is_none() {
        builder.push(Op::Delete, Some(row), None).map_err(internal)?;
    }
    match (change.new, full) {
        (None, _) => Ok(()),
        (Some(_), true) => {
            let insert = Row { op: Op::Insert, ..*change };
            append(schema, &insert, fields, old.whole, None, builder)
        }
        (Some(_), false) => {
            let key = builder.key(row).map_err(internal)?;
            append(schema, change, fields, old.whole, Some(key), builder)
        }
    }
}

/// Appends the new row of a change; what the update left as it was comes from the `old` row, where
/// that has it. `whole`: it has all columns.
fn append(
    schema: &TableSchema,
    change: &Row<'_>,
    old: &[Field<'_>],
    whole: bool,
    old_key: Option<u32>,
    builder: &mut Builder,
) -> Result<(), Fault> {
    let tuple = change.new.ok_or(Fault::Malformed)?;
    if usize::from(tuple.count) != schema.columns.len() {
        return Err(Fault::Malformed);
    }
    let mut fields = tuple;
    let mut row = builder.row();
    for (at, column) in schema.columns.iter().enumerate() {
        let mut field = fields.next_field().ok_or(Fault::Malformed)?;
        if field == Field::Unchanged && (whole || schema.key().contains(&at)) {
            field = old.get(at).copied().unwrap_or(Field::Unchanged);
        }
        row.push(&match field {
            Field::Text(text) => match parse(&column.kind, text) {
                Ok(value) => value,
                Err(misfit) => {
                    let mut all = Vec::new();
                    collect_fields(schema, tuple, &mut all)?;
                    return Err(stop(schema, at, text, misfit, &all));
                }
            },
            Field::Null => Value::Null,
            Field::Unchanged => Value::Unchanged,
        });
    }
    row.finish(change.op, old_key).map_err(internal)
}

fn internal(error: Error) -> Fault {
    Fault::Stop(error.full().into())
}

/// Parses those values of the old row that identify it; the others stay as they came.
fn read_old<'a>(
    schema: &TableSchema,
    old: Old<'a>,
    fields: &mut Vec<Field<'a>>,
    row: &mut Vec<Value<'a>>,
) -> Result<(), Fault> {
    collect_fields(schema, old.tuple, fields)?;
    let (all, key) = (schema.identity == Identity::FullRow, schema.key());
    if all && !old.whole {
        return Err(Fault::Stop("an old row came without all its columns".into()));
    }
    for (at, (column, field)) in schema.columns.iter().zip(fields.iter()).enumerate() {
        row.push(match field {
            Field::Text(text) if all || key.contains(&at) => {
                let fault = |misfit| stop(schema, at, text, misfit, fields);
                parse(&column.kind, text).map_err(fault)?
            }
            Field::Null if all => Value::Null,
            _ => Value::Unchanged,
        });
    }
    Ok(())
}

fn collect_fields<'a>(
    schema: &TableSchema,
    mut tuple: Tuple<'a>,
    fields: &mut Vec<Field<'a>>,
) -> Result<(), Fault> {
    if usize::from(tuple.count) != schema.columns.len() {
        return Err(Fault::Malformed);
    }
    for _ in 0..tuple.count {
        fields.push(tuple.next_field().ok_or(Fault::Malformed)?);
    }
    Ok(())
}

fn stop(
    schema: &TableSchema,
    column: usize,
    text: &[u8],
    misfit: Misfit,
    fields: &[Field<'_>],
) -> Fault {
    Fault::Stop(stop_reason(schema, column, text, misfit, |at| match fields.get(at) {
        Some(Field::Text(text)) => Some(text),
        _ => None,
    }))
}
