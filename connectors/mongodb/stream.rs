//! The log: a task that reads the change stream ([`pump`](super::pump)), and the [`Stream`] that
//! decodes what it has read.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::decode::{Decoder, Message, Parts, Unresolved};
use super::position::Position;
use super::pump::{Documents, Messages, Opened, Opening, Pump};
use super::shape::Shapes;
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{Decoded, Resolved, Sink};

/// How many replies wait between the task and the stream; the server makes them up to 16 MB.
const REPLIES_WAITING: usize = 1;

/// The log of a MongoDB deployment, being read. The cursor is closed when it is dropped.
pub struct Stream {
    messages: Messages,
    queue: mpsc::Receiver<Result<Messages>>,
    task: JoinHandle<()>,
    decoder: Decoder,
    shapes: Shapes,
    /// A table that could not be set, told by the next message.
    unset: Option<Error>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a stream is made of.
pub(super) struct Source {
    pub documents: Documents,
    pub opening: Opening,
    pub stream: Opened,
    /// Where the stream was opened.
    pub from: Position,
    /// Why what the tables need next is not in the log, if so.
    pub lost: Option<String>,
}

impl Stream {
    /// Reads on from where `source` was opened.
    ///
    /// # Errors
    /// When a schema isn't one that this connector makes.
    pub(super) fn new(source: Source, tables: &[Arc<TableSchema>], shapes: Shapes) -> Result<Self> {
        let mut decoder = Decoder::new(shapes.limits());
        tables.iter().try_for_each(|schema| decoder.set_table(schema.clone()))?;
        let (sender, queue) = mpsc::channel(REPLIES_WAITING);
        let Source { documents, opening, stream, from, lost } = source;
        let pump = Pump::new(documents, opening, stream, from, sender);
        let task = tokio::spawn(pump.run(lost));
        Ok(Self { messages: VecDeque::new(), queue, task, decoder, shapes, unset: None })
    }

    /// Grows the shape of `table` by `document` and by what is known to follow, and says what the
    /// table looks like then.
    fn grow(&self, table: &TableId, document: &[u8]) -> Result<Resolved> {
        let lost = |why: String| Ok(Resolved::Lost(table.clone(), why));
        let mut documents: Vec<Cow<'_, [u8]>> = Vec::new();
        for message in &self.messages {
            let Message::Event(event) = message else { continue };
            // A malformed event is told when its turn comes.
            let Ok(parts) = Parts::of(&event.bytes) else { continue };
            if parts.namespace == (&table.schema, &table.name) {
                documents.extend(parts.sample());
            }
        }
        // The first one is sound, or decoding had stopped the table; the others have their turn.
        let first = self.shapes.learn(table, [document]);
        if let Err(malformed) = first {
            return lost(format!("a document can't be read: {malformed}"));
        }
        for document in documents {
            let _ = self.shapes.learn(table, [&document[..]]);
        }
        let schema = Arc::new(self.shapes.schema(table));
        match self.decoder.schema(table) == Some(&schema) {
            true => lost("a document does not fit the table's own shape".to_owned()),
            false => Ok(Resolved::Schema(schema)),
        }
    }
}

impl crate::source::Stream for Stream {
    type Position = Position;
    type Message = Message;

    async fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            match self.queue.recv().await {
                Some(messages) => self.messages = messages?,
                None => return Err(Error::unavailable("the stream has ended")),
            }
        }
    }

    fn decode<S: Sink<Position>>(&mut self, message: &Message, sink: &mut S) -> Result<Decoded> {
        let decoded = self.decoder.decode(message, sink)?;
        match self.unset.take_if(|_| decoded == Decoded::Done) {
            Some(error) => Err(error),
            None => Ok(decoded),
        }
    }

    async fn resolve(&mut self) -> Result<Vec<Resolved>> {
        let resolved = match self.decoder.unresolved().cloned() {
            None => Vec::new(),
            Some(Unresolved::Shape(table, document)) => vec![self.grow(&table, &document)?],
            Some(Unresolved::Replaced(table, why)) => vec![Resolved::Lost(table, why)],
            Some(Unresolved::Gone(table)) => vec![Resolved::Dropped { table, shows_next: true }],
            Some(Unresolved::Lost(why)) => {
                let lost = |table| Resolved::Lost(table, why.clone());
                self.decoder.tables().into_iter().map(lost).collect()
            }
        };
        for resolved in &resolved {
            match resolved {
                Resolved::Schema(schema) => self.decoder.set_table(schema.clone())?,
                Resolved::Lost(table, _) => self.decoder.remove_table(table),
                Resolved::Dropped { table, .. } => self.decoder.remove_gone(table),
            }
        }
        Ok(resolved)
    }

    fn set_table(&mut self, schema: Arc<TableSchema>) {
        self.unset = self.decoder.set_table(schema).err().or(self.unset.take());
    }

    fn remove_table(&mut self, table: &TableId) {
        self.decoder.remove_table(table);
    }

    /// The server keeps its log whether or not anybody has read it.
    fn acknowledge(&mut self, _: &Position) {}

    /// The task asks for the present position several times a second as it is.
    fn nudge(&mut self) {}
}
