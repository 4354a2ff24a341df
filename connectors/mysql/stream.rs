//! The log: a task that owns the connection, and the [`Stream`] that decodes what it has read.
//!
//! Between the two lies a queue bounded in bytes; while that is full nothing is read, so the server
//! waits. Nothing is ever told to the server: it keeps its log for as long as it is set to.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::catalog::Shared;
use super::connection::Connection;
use super::decode::{Decoder, Known};
use super::event::Event;
use super::position::Place;
use super::pump::Pump;
use super::replication::Dump;
use super::server::Server;
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{Decoded, Resolved, Sink};

/// What the task has read at one go.
pub(super) struct Batch {
    pub events: VecDeque<Event>,
    /// Its place in the queue, given back when the next batch is asked for.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The log of a MySQL or MariaDB server, being read. The connection closes when it is dropped.
pub struct Stream {
    batch: Batch,
    queue: mpsc::UnboundedReceiver<Result<Batch>>,
    task: JoinHandle<()>,
    decoder: Decoder,
    /// A table that could not be set, told by the next event.
    unset: Option<Error>,
    server: Server,
    shared: Arc<Shared>,
    control: Option<Connection>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    /// Reads on from `from` over a connection that has been told to send the log. `lost` says why
    /// the log lacks what the tables need, if so.
    ///
    /// # Errors
    /// When a table was not written by this connector.
    pub(super) fn new(
        dump: Dump,
        from: Place,
        tables: &[Arc<TableSchema>],
        server: Server,
        shared: Arc<Shared>,
        lost: Option<String>,
    ) -> Result<Self> {
        let charsets = shared.charsets();
        let known = tables.iter().map(|schema| Known::new(schema.clone(), &charsets));
        let known = known.collect::<Result<Vec<_>>>()?;
        let (sender, queue) = mpsc::unbounded_channel();
        let mut decoder = Decoder::new(from, known);
        if let Some(why) = lost {
            decoder.lose(why);
        }
        Ok(Self {
            batch: Batch { events: VecDeque::new(), room: None },
            queue,
            task: tokio::spawn(Pump::new(dump, sender).run()),
            decoder,
            unset: None,
            server,
            shared,
            control: None,
        })
    }
}

impl crate::source::Stream for Stream {
    type Position = Place;
    type Message = Event;

    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.batch.events.pop_front() {
                return Ok(event);
            }
            self.batch.room = None;
            match self.queue.recv().await {
                Some(batch) => self.batch = batch?,
                None => return Err(Error::unavailable("the stream has ended")),
            }
        }
    }

    fn decode<S: Sink<Place>>(&mut self, event: &Event, sink: &mut S) -> Result<Decoded> {
        let decoded = self.decoder.decode(event, sink)?;
        for event in self.decoder.take_replay().into_iter().rev() {
            self.batch.events.push_front(event);
        }
        match self.unset.take_if(|_| decoded == Decoded::Done) {
            Some(error) => Err(error),
            None => Ok(decoded),
        }
    }

    async fn resolve(&mut self) -> Result<Vec<Resolved>> {
        let Some(question) = self.decoder.question().cloned() else {
            return Ok(Vec::new());
        };
        let mut control = match self.control.take() {
            Some(control) if !control.is_busy() => control,
            _ => self.server.connect().await?,
        };
        let all: Vec<TableId> = self.decoder.tables().cloned().collect();
        let known = |id: &TableId| self.decoder.known(id).map(|known| known.schema.clone());
        let answers = self.shared.resolve(&mut control, &question, known, &all).await?;
        // Only a connection whose answer came well is used again.
        self.control = Some(control);
        for answer in &answers {
            match answer {
                Resolved::Schema(schema) => {
                    self.decoder.set(Known::new(schema.clone(), &self.shared.charsets())?);
                }
                Resolved::Lost(table, _) | Resolved::Dropped { table, .. } => {
                    self.decoder.remove(table);
                }
            }
        }
        self.decoder.settle();
        Ok(answers)
    }

    fn set_table(&mut self, schema: Arc<TableSchema>) {
        let id = schema.id.clone();
        match Known::new(schema, &self.shared.charsets()) {
            Ok(known) => self.decoder.set(known),
            Err(error) => {
                self.decoder.remove(&id);
                self.unset = Some(Error::table(id, "its log can't be read").caused_by(error));
            }
        }
    }

    fn remove_table(&mut self, table: &TableId) {
        self.decoder.remove(table);
    }

    /// The server is told nothing: its log is kept by time, not by who has read it.
    fn acknowledge(&mut self, _position: &Place) {}

    /// The server sends what it has as soon as it has it; nothing has to be asked for.
    fn nudge(&mut self) {}
}
