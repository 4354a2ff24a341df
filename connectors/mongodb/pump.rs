//! The task that reads a change stream, and makes messages of its events.
//!
//! Events of one cluster time belong together ([`position`](super::position)): the task says where
//! they begin, and where they end as soon as an event of another time follows, or a reply comes back
//! empty. An empty reply also says how far the log has been read: before each wait that may end
//! empty, the primary is asked for the time up to which majority reads see everything; whatever was
//! asked for up to then has been sent when the reply is empty. That holds for the member that has the
//! cursor, which is the one that was the primary when it was opened: after another election the
//! source starts over.
//!
//! An update carries its document only where the collection keeps post-images
//! (`changeStreamPreAndPostImages`), and otherwise what changed. Where the server does not tell that
//! without doubt (before MongoDB 6.1) the task looks documents up, all of a reply at a time, by reads
//! that see at least the events they are for. Such a document may be newer than its event: later
//! events bring it again, so the table converges to the collection, but between two positions it may
//! be ahead. A document that is not found is gone by a change that follows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use ::mongodb::bson::{Bson, Document, Timestamp, doc};
use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::connection::{Cursor, Reply, Server, owned, read_concern};
use super::decode::{Event, Found, Message, Parts};
use super::element::{Elements, Malformed, find};
use super::json;
use super::namespaces::Namespaces;
use super::position::{Position, Time};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::TableFilter;
use crate::schema::TableId;

/// How long the server waits for an event before it replies with none.
const WAIT: Duration = Duration::from_millis(200);
/// About how many events a reply holds.
const BATCH: u32 = 2_000;
/// How many documents are looked up in one command.
const LOOKED_UP: usize = 500;

/// How a change stream is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What part of the log is asked for.
    pub namespaces: Namespaces,
    /// Whether updates of collections with post-images bring them.
    pub post_images: bool,
}

impl Opening {
    /// Opens the log just after `from`.
    ///
    /// # Errors
    /// [`Gap`](ErrorKind::Gap) when the server no longer has it.
    pub async fn open(&self, server: &Server, from: &Position) -> Result<Opened> {
        let before = server.primary().await?;
        let cursor = self.cursor(server, from).await?;
        match server.primary().await?.election == before.election {
            true => Ok(Opened { cursor, election: before.election }),
            false => Err(Error::unavailable("another member became the primary")),
        }
    }

    async fn cursor(&self, server: &Server, from: &Position) -> Result<Cursor> {
        let mut stream = Document::new();
        match &from.token {
            // `startAfter` goes on after an invalidate, too, as `resumeAfter` doesn't.
            Some(token) => stream.insert("startAfter", token_document(token)?),
            None => stream.insert("startAtOperationTime", Timestamp::from(from.time.next())),
        };
        if self.post_images {
            stream.insert("fullDocument", "whenAvailable");
        }
        if self.namespaces.database.is_none() {
            stream.insert("allChangesForCluster", true);
        }
        if server.has_clear_paths() {
            stream.insert("showExpandedEvents", true);
        }
        let mut pipeline = vec![Bson::from(doc! { "$changeStream": stream })];
        pipeline.extend(self.namespaces.stage.clone().map(Bson::from));
        if server.splits_events() {
            pipeline.push(doc! { "$changeStreamSplitLargeEvent": {} }.into());
        }
        let command = doc! {
            "aggregate": 1,
            "pipeline": pipeline,
            "cursor": { "batchSize": i64::from(BATCH) },
            "readConcern": { "level": "majority" },
            "comment": "lakeward",
        };
        let database = self.namespaces.database.as_deref().unwrap_or("admin");
        let doing = "reading the change stream";
        let opened = server.cursor(doing, database, command, BATCH, Some(WAIT)).await;
        opened.map_err(|error| match error.kind() {
            // The command is the same for every token: it is the token that is refused.
            ErrorKind::Internal if from.token.is_some() => {
                Error::gap("the server does not take the resume token").caused_by(error)
            }
            _ => error,
        })
    }
}

/// A change stream, and the election that made its member the primary.
pub struct Opened {
    cursor: Cursor,
    election: String,
}

/// The document of a token as [`Position::token`] writes it.
fn token_document(token: &str) -> Result<Document> {
    match super::identity::IdKind::Any.bson(token)? {
        Bson::Document(document) => Ok(document),
        _ => Err(Error::internal("a stored resume token is none")),
    }
}

/// What the task has made of one reply.
pub type Messages = VecDeque<Message>;

/// Reads a change stream and sends messages, until nobody takes them.
pub struct Pump {
    opening: Opening,
    documents: Documents,
    stream: Opened,
    sender: Sender<Result<Messages>>,
    /// The last position at which everything had been read.
    read: Position,
    /// The events sent last, whose end is not known yet.
    open: Option<Open>,
    fragments: Vec<Bytes>,
}

/// Events of one cluster time, as far as they have come.
struct Open {
    time: Time,
    token: String,
    micros: i64,
}

impl Pump {
    /// A task that reads `stream`, which `opening` has opened at `from`.
    pub fn new(
        documents: Documents,
        opening: Opening,
        stream: Opened,
        from: Position,
        sender: Sender<Result<Messages>>,
    ) -> Self {
        let fragments = Vec::new();
        Self { documents, opening, stream, sender, read: from, open: None, fragments }
    }

    /// Reads until an error, or until nobody takes messages any more. Begins with a
    /// [`Message::Lost`] when `lost` says why.
    pub async fn run(mut self, mut lost: Option<String>) {
        loop {
            let error = match self.follow(lost.take()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Gap
                && let Ok(reason) = self.restart(&error).await
            {
                lost = Some(reason);
                continue;
            }
            // Nobody there is as good as told.
            let _ = self.sender.send(Err(error)).await;
            return;
        }
    }

    /// Opens the stream at the present, for the log in between is lost.
    async fn restart(&mut self, error: &Error) -> Result<String> {
        let reason = hole(&self.read, error);
        let now = Position::at(self.documents.server.majority().await?);
        self.stream = self.opening.open(&self.documents.server, &now).await?;
        (self.read, self.open) = (now, None);
        self.fragments.clear();
        Ok(reason)
    }

    async fn follow(&mut self, lost: Option<String>) -> Result<()> {
        if let Some(reason) = lost
            && !self.send(VecDeque::from([Message::Lost(reason)])).await
        {
            return Ok(());
        }
        // The first reply comes at once and says nothing about what the log still holds.
        let (mut first, mut idle) = (true, false);
        loop {
            let mark = match idle {
                true => Some(self.mark().await?),
                false => None,
            };
            let Some(reply) = self.stream.cursor.next().await? else {
                self.reopen().await?;
                (first, idle) = (true, false);
                continue;
            };
            let empty = reply.documents().len() == 0;
            let messages = match (empty, first) {
                (true, true) => Messages::new(),
                (true, false) => self.rest(&reply, mark)?,
                (false, _) => self.events(&reply).await?,
            };
            // A reply that is not empty may have been cut short; only the next one tells.
            (first, idle) = (false, empty);
            if !messages.is_empty() && !self.send(messages).await {
                return Ok(());
            }
        }
    }

    /// The time up to which an empty reply that is asked for now has sent everything.
    async fn mark(&mut self) -> Result<Time> {
        let primary = self.documents.server.primary().await?;
        match primary.election == self.stream.election {
            true => Ok(primary.majority),
            false => Err(Error::unavailable("another member became the primary")),
        }
    }

    /// Whether anybody takes messages.
    async fn send(&mut self, messages: Messages) -> bool {
        self.sender.send(Ok(messages)).await.is_ok()
    }

    /// The server has closed the stream, as it does after an invalidate: goes on behind it.
    async fn reopen(&mut self) -> Result<()> {
        let from = match &self.open {
            Some(open) => Position { time: open.time, token: Some(open.token.clone()) },
            None => self.read.clone(),
        };
        self.stream = self.opening.open(&self.documents.server, &from).await?;
        Ok(())
    }

    /// An empty reply: what came before has ended, and the log has been read up to `mark`.
    fn rest(&mut self, reply: &Reply, mark: Option<Time>) -> Result<Messages> {
        let mut messages = Messages::new();
        self.end(&mut messages);
        let Some(mark) = mark else { return Ok(messages) };
        let token = reply.token().map(text).transpose()?.or_else(|| self.read.token.clone());
        let position = Position { time: mark.max(self.read.time), token };
        if position != self.read {
            self.read = position.clone();
            messages.push_back(Message::Progress(position));
        }
        Ok(messages)
    }

    fn end(&mut self, messages: &mut Messages) {
        if let Some(Open { time, token, micros }) = self.open.take() {
            let position = Position { time: time.max(self.read.time), token: Some(token) };
            self.read = position.clone();
            messages.push_back(Message::End(position, micros));
        }
    }

    async fn events(&mut self, reply: &Reply) -> Result<Messages> {
        let mut events = Vec::with_capacity(reply.documents().len());
        for bytes in reply.documents() {
            events.extend(self.whole(bytes)?);
        }
        let mut found = match self.documents.server.has_clear_paths() {
            true => HashMap::new(),
            false => self.documents.look_up(&events).await?,
        };
        let mut messages = Messages::new();
        for (at, bytes) in events.into_iter().enumerate() {
            let parts = Parts::of(&bytes).map_err(malformed)?;
            let (time, token) = (parts.time, text(parts.token)?);
            let micros =
                parts.wall.map_or(i64::from(time.seconds) * 1_000_000, |wall| wall * 1_000);
            if self.open.as_ref().is_none_or(|open| open.time != time) {
                self.end(&mut messages);
                messages.push_back(Message::Begin(time));
            }
            self.open = Some(Open { time, token, micros });
            let found = found.remove(&at);
            messages.push_back(Message::Event(Event { bytes, found }));
        }
        Ok(messages)
    }

    /// The event that `bytes` are, or complete; `None` for a fragment that others follow.
    fn whole(&mut self, bytes: Bytes) -> Result<Option<Bytes>> {
        let Some((number, of)) = Parts::of(&bytes).map_err(malformed)?.fragment else {
            return Ok(Some(bytes));
        };
        if of <= 1 {
            return Ok(Some(bytes));
        }
        if number != self.fragments.len() as i32 + 1 {
            return Err(Error::internal("fragments of a split event are missing")
                .with("fragment", number)
                .with("of", of));
        }
        self.fragments.push(bytes);
        if number < of {
            return Ok(None);
        }
        let fragments = std::mem::take(&mut self.fragments);
        assemble(&fragments).map(Some).map_err(malformed)
    }
}

/// Looks documents up.
pub struct Documents {
    /// Where.
    pub server: Server,
    /// Which collections' documents are wanted.
    pub filter: TableFilter,
}

impl Documents {
    /// Looks up the documents of updates that came without; by the number of the event.
    pub(super) async fn look_up(&self, events: &[Bytes]) -> Result<HashMap<usize, Found>> {
        let mut wanted: BTreeMap<TableId, Vec<(usize, Bson, Vec<u8>)>> = BTreeMap::new();
        let mut since = Time::default();
        for (at, bytes) in events.iter().enumerate() {
            let parts = Parts::of(bytes).map_err(malformed)?;
            since = since.max(parts.time);
            let (database, collection) = parts.namespace;
            let id = TableId::new(database, collection);
            if !parts.lacks_document() || !self.filter.matches(&id) {
                continue;
            }
            let key =
                parts.key.ok_or(Malformed("an update names no document")).map_err(malformed)?;
            let name = find(key, "_id").map_err(malformed)?.map(identity);
            let id_value = owned(key)?.remove("_id");
            let (Some(name), Some(value)) = (name, id_value) else {
                return Err(malformed(Malformed("an update names no _id")));
            };
            wanted.entry(id).or_default().push((at, value, name));
        }
        let mut found = HashMap::new();
        for (id, updates) in wanted {
            for some in updates.chunks(LOOKED_UP) {
                let documents = self.find(&id, some, since).await?;
                for (at, _, name) in some {
                    let document =
                        documents.get(name).cloned().map_or(Found::Gone, Found::Document);
                    found.insert(*at, document);
                }
            }
        }
        Ok(found)
    }

    /// Those of the named documents that are there, by the bytes of their `_id`.
    async fn find(
        &self,
        id: &TableId,
        updates: &[(usize, Bson, Vec<u8>)],
        since: Time,
    ) -> Result<HashMap<Vec<u8>, Bytes>> {
        let keys: Vec<Bson> = updates.iter().map(|(_, value, _)| value.clone()).collect();
        let command = doc! {
            "find": &id.name,
            "filter": { "_id": { "$in": keys } },
            "hint": { "_id": 1 },
            "batchSize": LOOKED_UP as i64,
            "readConcern": read_concern(since),
            "comment": "lakeward",
        };
        let mut documents = HashMap::new();
        let doing = "looking up documents that were updated";
        let mut cursor =
            self.server.cursor(doing, &id.schema, command, LOOKED_UP as u32, None).await?;
        while let Some(reply) = cursor.next().await? {
            for bytes in reply.documents() {
                if let Some(key) = find(&bytes, "_id").map_err(malformed)? {
                    documents.insert(identity(key), bytes.clone());
                }
            }
        }
        Ok(documents)
    }
}

/// The bytes of an `_id`: type and value. An update never changes either.
fn identity(id: super::element::Element<'_>) -> Vec<u8> {
    let mut bytes = vec![id.kind];
    bytes.extend_from_slice(id.value);
    bytes
}

/// What is said of every table after a hole in the log (P9).
pub fn hole(read: &Position, error: &Error) -> String {
    format!("gap: the log no longer holds what follows {read}: {}", error.full())
}

fn malformed(malformed: Malformed) -> Error {
    Error::internal("a change event is malformed").caused_by(malformed)
}

/// A resume token as text.
fn text(token: &[u8]) -> Result<String> {
    let mut out = String::new();
    json::document(token, &mut out).map_err(malformed)?;
    Ok(out)
}

/// One event of its fragments, which share the fields among them ("$changeStreamSplitLargeEvent");
/// fields that several have are taken once, but for the token: the last fragment's goes on behind it.
fn assemble(fragments: &[Bytes]) -> Result<Bytes, Malformed> {
    let mut fields: Vec<(&str, &[u8])> = Vec::new();
    for fragment in fragments {
        for element in Elements::new(fragment)? {
            let element = element?;
            let start = element.at - element.name.len() - 2;
            let whole = fragment.get(start..element.at + element.value.len()).unwrap_or_default();
            match fields.iter_mut().find(|(name, _)| *name == element.name) {
                Some(known) if element.name == "_id" => known.1 = whole,
                Some(_) => {}
                None if element.name == "splitEvent" => {}
                None => fields.push((element.name, whole)),
            }
        }
    }
    let size: usize = fields.iter().map(|(_, whole)| whole.len()).sum();
    let length = i32::try_from(size + 5).map_err(|_| Malformed("an event is too large"))?;
    let mut out = Vec::with_capacity(size + 5);
    out.extend(length.to_le_bytes());
    fields.iter().for_each(|(_, whole)| out.extend_from_slice(whole));
    out.push(0);
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document, text as string};
    use super::super::element::{DOCUMENT, INT32, STRING, TIMESTAMP};
    use super::*;

    fn fragment(number: i32, token: &str, more: (u8, &str, Vec<u8>)) -> Bytes {
        let token = document(&[(STRING, "_data", string(token))]);
        let split = document(&[
            (INT32, "fragment", number.to_le_bytes().to_vec()),
            (INT32, "of", 2_i32.to_le_bytes().to_vec()),
        ]);
        Bytes::from(document(&[
            (DOCUMENT, "_id", token),
            (STRING, "operationType", string("update")),
            (TIMESTAMP, "clusterTime", vec![1; 8]),
            more,
            (DOCUMENT, "splitEvent", split),
        ]))
    }

    #[test]
    fn fragments_make_one_event() {
        let full = document(&[(INT32, "_id", vec![1, 0, 0, 0])]);
        let key = full.clone();
        let fragments = [
            fragment(1, "a", (DOCUMENT, "documentKey", key.clone())),
            fragment(2, "b", (DOCUMENT, "fullDocument", full.clone())),
        ];
        let whole = assemble(&fragments).unwrap();
        let parts = Parts::of(&whole).unwrap();
        assert_eq!((parts.operation, parts.fragment), ("update", None));
        assert_eq!((parts.key, parts.document), (Some(key.as_slice()), Some(full.as_slice())));
        assert_eq!(text(parts.token).unwrap(), r#"{"_data":"b"}"#);
    }

    #[test]
    fn a_token_reads_back() {
        let token = document(&[(STRING, "_data", string("8263")), (INT32, "x", vec![1, 0, 0, 0])]);
        let written = text(&token).unwrap();
        assert_eq!(token_document(&written).unwrap(), doc! { "_data": "8263", "x": 1 });
    }
}
