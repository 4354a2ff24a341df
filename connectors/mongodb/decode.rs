//! Change events → calls of a [`Sink`]. No I/O: bytes and known schemas in, values out.
//!
//! Inserts and replacements carry their document whole (MongoDB manual, "Change Events"), and so do
//! updates where the collection keeps post-images. Other updates say what changed
//! ([`update`](super::update)), or come with the document as the pump has looked it up where the
//! server is too old to say that without doubt.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::element::{DOCUMENT, Elements, Malformed};
use super::layout::{Layout, Misfit, Room};
use super::position::{Position, Time};
use super::shape::Limits;
use super::update::Update;
use crate::change::Op;
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{Decoded, Sink};

/// One message of the log.
#[derive(Debug, Clone)]
pub enum Message {
    /// The events of this cluster time begin.
    Begin(Time),
    /// One of them.
    Event(Event),
    /// They end; the time of the commit in microseconds of Unix time.
    End(Position, i64),
    /// Everything up to here has been read.
    Progress(Position),
    /// The log had a hole before what comes next, for this reason.
    Lost(String),
}

/// A change event.
#[derive(Debug, Clone)]
pub struct Event {
    /// As the server sent it.
    pub bytes: Bytes,
    /// For an update without its document: what a look at the collection found.
    pub found: Option<Found>,
}

/// What a look at the collection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The document as it was then: what this update left, or a later change.
    Document(Bytes),
    /// No such document: it is gone since, by a change that follows.
    Gone,
}

/// The parts of an event that matter here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// `operationType`.
    pub operation: &'a str,
    /// `ns`: database and collection.
    pub namespace: (&'a str, &'a str),
    /// `to`, of a rename.
    pub to: Option<(&'a str, &'a str)>,
    /// `documentKey`.
    pub key: Option<&'a [u8]>,
    /// `fullDocument`, where there is one.
    pub document: Option<&'a [u8]>,
    /// `updateDescription`, of an update.
    pub update: Option<&'a [u8]>,
    /// `clusterTime`.
    pub time: Time,
    /// `_id`: the resume token.
    pub token: &'a [u8],
    /// `wallTime`, in milliseconds.
    pub wall: Option<i64>,
    /// `splitEvent`: which fragment this is, and of how many.
    pub fragment: Option<(i32, i32)>,
}

impl<'a> Parts<'a> {
    /// Takes an event apart.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn of(event: &'a [u8]) -> Result<Self, Malformed> {
        let mut parts = Self::default();
        for element in Elements::new(event)? {
            let element = element?;
            match element.name {
                "_id" => parts.token = element.value,
                "operationType" => parts.operation = element.text()?,
                "ns" => parts.namespace = namespace(element.value)?,
                "to" => parts.to = Some(namespace(element.value)?),
                "documentKey" => parts.key = element.document(),
                "fullDocument" if element.kind == DOCUMENT => parts.document = Some(element.value),
                "updateDescription" => parts.update = element.document(),
                "clusterTime" => {
                    let (seconds, ordinal) = element.timestamp().unwrap_or_default();
                    parts.time = Time { seconds, ordinal };
                }
                "wallTime" => parts.wall = element.date(),
                "splitEvent" => parts.fragment = fragment(element.value)?,
                _ => {}
            }
        }
        match parts.time == Time::default() || parts.token.is_empty() {
            true => Err(Malformed("an event has no cluster time or no token")),
            false => Ok(parts),
        }
    }

    /// Whether the event is an update that doesn't say what the document is afterwards.
    pub fn lacks_document(&self) -> bool {
        self.operation == "update" && self.document.is_none()
    }

    /// The document, or what an update says of it: what a shape can be learned from.
    pub fn sample(&self) -> Option<Cow<'a, [u8]>> {
        match (self.document, self.update.zip(self.key)) {
            (Some(document), _) => Some(Cow::Borrowed(document)),
            (None, Some((update, key))) => Update::sample(update, key).ok().map(Cow::Owned),
            (None, None) => None,
        }
    }
}

fn namespace(value: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut database, mut collection) = ("", "");
    for element in Elements::new(value)? {
        let element = element?;
        match element.name {
            "db" => database = element.text()?,
            "coll" => collection = element.text()?,
            _ => {}
        }
    }
    Ok((database, collection))
}

fn fragment(value: &[u8]) -> Result<Option<(i32, i32)>, Malformed> {
    let (mut number, mut of) = (None, None);
    for element in Elements::new(value)? {
        let element = element?;
        match element.name {
            "fragment" => number = element.integer(),
            "of" => of = element.integer(),
            _ => {}
        }
    }
    let small = |value: Option<i64>| value.and_then(|value| i32::try_from(value).ok());
    Ok(small(number).zip(small(of)))
}

/// Why a message could not be decoded yet.
#[derive(Debug, Clone)]
pub enum Unresolved {
    /// A document of this table doesn't fit its schema.
    Shape(TableId, Bytes),
    /// A collection took this table's name, and its documents are not in the log.
    Replaced(TableId, String),
    /// The collection was dropped or renamed.
    Gone(TableId),
    /// The log had a hole.
    Lost(String),
}

/// Decodes the log of one change stream.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// By database and collection.
    tables: HashMap<String, HashMap<String, Layout>>,
    unresolved: Option<Unresolved>,
    /// The table of which it has been said that its collection is gone, by this message.
    said_gone: Option<TableId>,
    room: Room,
}

impl Decoder {
    /// A decoder for no tables yet.
    pub fn new(limits: Limits) -> Self {
        let (tables, room) = (HashMap::new(), Room::default());
        Self { limits, tables, unresolved: None, said_gone: None, room }
    }

    /// Adds a table, or gives a known one another schema.
    ///
    /// # Errors
    /// When the schema isn't one that this connector makes; then the table is skipped.
    pub fn set_table(&mut self, schema: Arc<TableSchema>) -> Result<()> {
        let id = schema.id.clone();
        match Layout::new(schema, self.limits) {
            Ok(layout) => {
                self.tables.entry(id.schema).or_default().insert(id.name, layout);
                Ok(())
            }
            Err(error) => {
                self.remove_table(&id);
                Err(Error::table(id, "its log can't be read").caused_by(error))
            }
        }
    }

    /// Skips changes of a table from here on.
    pub fn remove_table(&mut self, id: &TableId) {
        if let Some(tables) = self.tables.get_mut(&id.schema) {
            tables.remove(&id.name);
        }
    }

    /// The schema of a table that isn't skipped.
    pub fn schema(&self, id: &TableId) -> Option<&Arc<TableSchema>> {
        self.table((&id.schema, &id.name)).map(Layout::schema)
    }

    /// All tables that are not skipped.
    pub fn tables(&self) -> Vec<TableId> {
        let all = self.tables.values().flat_map(HashMap::values);
        all.map(|layout| layout.schema().id.clone()).collect()
    }

    fn table(&self, (database, collection): (&str, &str)) -> Option<&Layout> {
        self.tables.get(database)?.get(collection)
    }

    /// What the last message needs, after [`Decoded::Unresolved`].
    pub fn unresolved(&self) -> Option<&Unresolved> {
        self.unresolved.as_ref()
    }

    /// Decodes a message into `sink`.
    ///
    /// # Errors
    /// When an event is malformed.
    pub fn decode<S: Sink<Position>>(
        &mut self,
        message: &Message,
        sink: &mut S,
    ) -> Result<Decoded> {
        self.unresolved = None;
        match message {
            Message::Begin(time) => {
                sink.begin(*time);
                sink.committed_at(i64::from(time.seconds) * 1_000_000);
            }
            Message::Event(event) => return self.event(event, sink),
            Message::End(position, micros) => sink.commit(position.clone(), *micros),
            Message::Progress(position) => sink.progress(position.clone()),
            Message::Lost(reason) => {
                if self.tables.values().any(|tables| !tables.is_empty()) {
                    return Ok(self.unresolvable(Unresolved::Lost(reason.clone())));
                }
            }
        }
        Ok(Decoded::Done)
    }

    fn unresolvable(&mut self, unresolved: Unresolved) -> Decoded {
        self.unresolved = Some(unresolved);
        Decoded::Unresolved
    }

    fn event<S: Sink<Position>>(&mut self, event: &Event, sink: &mut S) -> Result<Decoded> {
        let parts = Parts::of(&event.bytes).map_err(|malformed| {
            Error::internal("a change event is malformed").caused_by(malformed)
        })?;
        match parts.operation {
            "insert" => self.change(Op::Insert, &parts, event, sink),
            "replace" | "update" => self.change(Op::Update, &parts, event, sink),
            "delete" => self.change(Op::Delete, &parts, event, sink),
            // Each collection of a database that is dropped has a drop of its own.
            "drop" => Ok(self.gone(parts.namespace)),
            "rename" => {
                if let Some(to) = parts.to.and_then(|to| self.table(to)) {
                    let (database, collection) = parts.namespace;
                    let why = format!("{database}.{collection} was renamed to it");
                    let replaced = Unresolved::Replaced(to.schema().id.clone(), why);
                    return Ok(self.unresolvable(replaced));
                }
                Ok(self.gone(parts.namespace))
            }
            _ => Ok(Decoded::Done),
        }
    }

    /// The collection's documents are gone from under this name.
    fn gone(&mut self, namespace: (&str, &str)) -> Decoded {
        let said = self.said_gone.take();
        let Some(layout) = self.table(namespace) else { return Decoded::Done };
        let id = layout.schema().id.clone();
        match said.as_ref() == Some(&id) {
            true => Decoded::Done,
            false => self.unresolvable(Unresolved::Gone(id)),
        }
    }

    /// Skips the table whose collection is gone until it is set again.
    pub fn remove_gone(&mut self, table: &TableId) {
        self.remove_table(table);
        self.said_gone = Some(table.clone());
    }

    fn change<S: Sink<Position>>(
        &mut self,
        op: Op,
        parts: &Parts<'_>,
        event: &Event,
        sink: &mut S,
    ) -> Result<Decoded> {
        let (database, collection) = parts.namespace;
        let table = self.tables.get(database).and_then(|tables| tables.get(collection));
        let Some(layout) = table else { return Ok(Decoded::Done) };
        let nothing = || {
            Error::internal("a change event says nothing of its document")
                .with("operation", parts.operation)
        };
        let document = match (parts.document, &event.found) {
            (Some(document), _) => Some(document),
            (None, Some(Found::Document(document))) => Some(&document[..]),
            // Its delete, or the drop of its collection, follows.
            (None, Some(Found::Gone)) => return Ok(Decoded::Done),
            (None, None) => None,
        };
        let schema = layout.schema().clone();
        let Some(builder) = sink.rows(&schema) else { return Ok(Decoded::Done) };
        let key = parts.key.ok_or_else(nothing);
        let appended = match (op, document, parts.update) {
            (Op::Delete, _, _) => layout.delete(key?, builder),
            (_, Some(document), _) => layout.append(op, document, builder, &mut self.room),
            (_, None, Some(update)) => layout.update(key?, update, builder),
            (_, None, None) => return Err(nothing()),
        };
        match appended {
            Ok(()) => Ok(Decoded::Done),
            Err(Misfit::Shape) => {
                let sample = match (op, document) {
                    (Op::Delete, _) => parts.key.map(Bytes::copy_from_slice),
                    (_, Some(document)) => Some(Bytes::copy_from_slice(document)),
                    (_, None) => parts.sample().map(|sample| Bytes::from(sample.into_owned())),
                };
                let sample = sample.ok_or_else(nothing)?;
                Ok(self.unresolvable(Unresolved::Shape(schema.id.clone(), sample)))
            }
            Err(Misfit::Stop(reason)) => {
                sink.stop(&schema.id, reason.into());
                self.remove_table(&schema.id);
                Ok(Decoded::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::element::tests::{document, text};
    use super::super::element::{DATE, INT32, NULL, STRING, TIMESTAMP};
    use super::super::shape::Shape;
    use super::*;
    use crate::batch::Builder;
    use crate::error::Reason;

    const LIMITS: Limits = Limits { columns: 10, document: true };

    #[derive(Default)]
    struct Seen {
        builders: BTreeMap<TableId, Builder>,
        calls: Vec<String>,
    }

    impl Sink<Position> for Seen {
        fn begin(&mut self, time: Time) {
            self.calls.push(format!("begin {time}"));
        }

        fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
            let new = || Builder::new(schema.clone());
            Some(self.builders.entry(schema.id.clone()).or_insert_with(new))
        }

        fn truncate(&mut self, table: &TableId) {
            self.calls.push(format!("truncate {table}"));
        }

        fn commit(&mut self, position: Position, micros: i64) {
            self.calls.push(format!("commit {position} {micros}"));
        }

        fn progress(&mut self, position: Position) {
            self.calls.push(format!("progress {position}"));
        }

        fn stop(&mut self, table: &TableId, reason: Reason) {
            self.calls.push(format!("stop {table}: {reason}"));
        }
    }

    fn int(value: i32) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn ns(collection: &str) -> Vec<u8> {
        document(&[(STRING, "db", text("d")), (STRING, "coll", text(collection))])
    }

    fn event(operation: &str, collection: &str, more: &[(u8, &str, Vec<u8>)]) -> Bytes {
        let token = document(&[(STRING, "_data", text("82"))]);
        let mut all = vec![
            (DOCUMENT, "_id", token),
            (STRING, "operationType", text(operation)),
            (TIMESTAMP, "clusterTime", vec![3, 0, 0, 0, 7, 0, 0, 0]),
            (DATE, "wallTime", 5_i64.to_le_bytes().to_vec()),
            (DOCUMENT, "ns", ns(collection)),
        ];
        all.extend_from_slice(more);
        Bytes::from(document(&all))
    }

    fn message(bytes: Bytes, found: Option<Found>) -> Message {
        Message::Event(Event { bytes, found })
    }

    fn decoder(names: &[&str]) -> Decoder {
        let mut decoder = Decoder::new(LIMITS);
        for name in names {
            let mut shape = Shape::new(LIMITS);
            shape.learn(&document(&[(INT32, "_id", int(1)), (INT32, "n", int(1))])).unwrap();
            decoder.set_table(Arc::new(shape.schema(&TableId::new("d", *name)))).unwrap();
        }
        decoder
    }

    #[test]
    fn changes_become_rows_of_their_table() {
        let (mut decoder, mut seen) = (decoder(&["c"]), Seen::default());
        let one = document(&[(INT32, "_id", int(1)), (INT32, "n", int(5))]);
        let key = document(&[(INT32, "_id", int(1))]);
        let messages = [
            Message::Begin(Time { seconds: 7, ordinal: 3 }),
            message(event("insert", "c", &[(DOCUMENT, "fullDocument", one.clone())]), None),
            message(event("update", "c", &[(NULL, "fullDocument", vec![])]), Some(Found::Gone)),
            message(event("update", "c", &[]), Some(Found::Document(Bytes::from(one)))),
            message(event("delete", "c", &[(DOCUMENT, "documentKey", key)]), None),
            message(event("insert", "other", &[]), None),
            message(event("createIndexes", "c", &[]), None),
            Message::End(Position::at(Time { seconds: 7, ordinal: 3 }), 5_000),
        ];
        for message in &messages {
            assert_eq!(decoder.decode(message, &mut seen).unwrap(), Decoded::Done);
        }
        assert_eq!(seen.calls, ["begin 7.3", "commit 7.3 5000"]);
        let changes = seen.builders[&TableId::new("d", "c")].changes();
        let ops: Vec<_> = changes.iter().map(|change| change.op).collect();
        assert_eq!(ops, [Op::Insert, Op::Update, Op::Delete]);
    }

    #[test]
    fn what_does_not_fit_is_unresolved_until_the_schema_has_grown() {
        let (mut decoder, mut seen) = (decoder(&["c"]), Seen::default());
        let wide = document(&[(INT32, "_id", int(1)), (STRING, "new", text("x"))]);
        let message =
            message(event("insert", "c", &[(DOCUMENT, "fullDocument", wide.clone())]), None);
        assert_eq!(decoder.decode(&message, &mut seen).unwrap(), Decoded::Unresolved);
        let Some(Unresolved::Shape(id, found)) = decoder.unresolved().cloned() else { panic!() };
        assert_eq!((id.name.as_str(), &found[..]), ("c", wide.as_slice()));
        let mut shape = Shape::new(LIMITS);
        shape.adopt(decoder.schema(&id).unwrap());
        shape.learn(&found).unwrap();
        decoder.set_table(Arc::new(shape.schema(&id))).unwrap();
        seen.builders.clear();
        assert_eq!(decoder.decode(&message, &mut seen).unwrap(), Decoded::Done);
        assert_eq!(seen.builders[&id].len(), 1);
    }

    #[test]
    fn a_drop_and_a_rename_are_told_once() {
        let (mut decoder, mut seen) = (decoder(&["a", "b"]), Seen::default());
        let to = |name: &str| [(DOCUMENT, "to", ns(name))];
        for goes in [event("drop", "a", &[]), event("rename", "a", &to("z"))] {
            let goes = message(goes, None);
            assert_eq!(decoder.decode(&goes, &mut seen).unwrap(), Decoded::Unresolved);
            let Some(Unresolved::Gone(id)) = decoder.unresolved().cloned() else { panic!() };
            let schema = decoder.schema(&id).unwrap().clone();
            decoder.remove_gone(&id);
            decoder.set_table(schema).unwrap();
            assert_eq!(decoder.decode(&goes, &mut seen).unwrap(), Decoded::Done);
        }
        let onto = message(event("rename", "a", &to("b")), None);
        assert_eq!(decoder.decode(&onto, &mut seen).unwrap(), Decoded::Unresolved);
        let Some(Unresolved::Replaced(id, why)) = decoder.unresolved().cloned() else { panic!() };
        assert!(id.name == "b" && why.contains("d.a"));
        decoder.remove_table(&id);
        assert_eq!(decoder.decode(&onto, &mut seen).unwrap(), Decoded::Unresolved);
        let Some(Unresolved::Gone(id)) = decoder.unresolved().cloned() else { panic!() };
        assert_eq!(id.name, "a");
        decoder.remove_gone(&id);
        assert_eq!(decoder.decode(&onto, &mut seen).unwrap(), Decoded::Done);
    }

    #[test]
    fn a_hole_is_every_tables() {
        let (mut decoder, mut seen) = (decoder(&["a", "b"]), Seen::default());
        let lost = Message::Lost("gap".to_owned());
        assert_eq!(decoder.decode(&lost, &mut seen).unwrap(), Decoded::Unresolved);
        assert_eq!(decoder.tables().len(), 2);
        decoder.tables().iter().for_each(|id| decoder.remove_table(id));
        assert_eq!(decoder.decode(&lost, &mut seen).unwrap(), Decoded::Done);
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let (mut decoder, mut seen) = (decoder(&["c"]), Seen::default());
        for bytes in [document(&[]), event("insert", "c", &[]).to_vec(), vec![1, 2]] {
            let decoded = decoder.decode(&message(Bytes::from(bytes), None), &mut seen);
            assert!(decoded.is_err());
        }
        assert!(Parts::of(&event("update", "c", &[])).unwrap().lacks_document());
    }
}
