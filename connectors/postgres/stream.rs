//! The log: a task that owns the socket, and the [`Stream`] that decodes what it has read.
//!
//! The task reads frames of the Streaming Replication Protocol, answers the server's keepalives,
//! and reports what is durable, whether or not anybody waits for messages. Between it and
//! [`Stream::next`] lies a queue bounded in bytes; while that is full nothing is read, so the
//! server waits, but the connection stays alive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::catalog;
use super::connection::Server;
use super::decode::{Decoder, Relation};
use super::position::Lsn;
use super::pump::Pump;
use super::replication::CopyBoth;
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{Decoded, Resolved, Sink};

/// One message of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// XLogData: a message of pgoutput.
    Data(Bytes),
    /// Primary keepalive message: everything that ends at or below has been sent.
    Alive(Lsn),
}

/// What the task has read at one go.
pub(super) struct Batch {
    pub messages: VecDeque<Message>,
    /// Its place in the queue, given back when the next batch is asked for.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What the stream tells its task.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The position that is durable; 0 until one was acknowledged, which the server passes over.
    pub durable: AtomicU64,
    /// The server is to report its position.
    pub ask: AtomicBool,
    /// One of them changed.
    pub changed: Notify,
}

/// The log of a Postgres database, being read. The connection closes when it is dropped.
pub struct Stream {
    batch: Batch,
    queue: mpsc::UnboundedReceiver<Result<Batch>>,
    told: Arc<Told>,
    task: JoinHandle<()>,
    decoder: Decoder,
    /// A table that could not be set, told by the next message.
    unset: Option<Error>,
    read: Lsn,
    server: Server,
    options: Arc<catalog::Options>,
    control: Option<Client>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    /// Reads on from `from` over a connection that START_REPLICATION has switched.
    pub(super) fn new(
        connection: CopyBoth,
        from: Lsn,
        tables: &[Arc<TableSchema>],
        server: Server,
        options: Arc<catalog::Options>,
    ) -> Result<Self> {
        let relations = tables.iter().cloned().map(Relation::new).collect::<Result<Vec<_>>>()?;
        let told = Arc::<Told>::default();
        let (sender, queue) = mpsc::unbounded_channel();
        let pump = Pump::new(connection, server.clone(), told.clone(), sender);
        Ok(Self {
            batch: Batch { messages: VecDeque::new(), room: None },
            queue,
            told,
            task: tokio::spawn(pump.run()),
            decoder: Decoder::new(relations),
            unset: None,
            read: from,
            server,
            options,
            control: None,
        })
    }

    /// The end of the transaction that a Commit message ends ("Logical Replication Message
    /// Formats": flags, the commit's position, its end).
    fn end_of(payload: &[u8]) -> Option<Lsn> {
        let rest = payload.strip_prefix(b"C")?;
        Some(Lsn(u64::from_be_bytes(*rest.get(9..)?.first_chunk()?)))
    }

    /// Decodes for the tables that could be set.
    fn decode_set<S: Sink<Lsn>>(&mut self, message: &Message, sink: &mut S) -> Result<Decoded> {
        match message {
            Message::Data(payload) => {
                let decoded = self.decoder.decode(payload, sink);
                if let Some(end) = Self::end_of(payload) {
                    self.read = self.read.max(end);
                }
                decoded
            }
            Message::Alive(reached) => {
                if *reached > self.read && !self.decoder.in_transaction() {
                    self.read = *reached;
                    sink.progress(*reached);
                }
                Ok(Decoded::Done)
            }
        }
    }

    async fn control(&mut self) -> Result<&Client> {
        if self.control.as_ref().is_some_and(Client::is_closed) {
            self.control = None;
        }
        if self.control.is_none() {
            self.control = Some(self.server.client().await?);
        }
        self.control.as_ref().ok_or_else(|| Error::internal("a connection vanished"))
    }
}

impl crate::source::Stream for Stream {
    type Position = Lsn;
    type Message = Message;

    async fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.batch.messages.pop_front() {
                return Ok(message);
            }
            self.batch.room = None;
            match self.queue.recv().await {
                Some(batch) => self.batch = batch?,
                None => return Err(Error::unavailable("the stream has ended")),
            }
        }
    }

    fn decode<S: Sink<Lsn>>(&mut self, message: &Message, sink: &mut S) -> Result<Decoded> {
        let decoded = self.decode_set(message, sink)?;
        match self.unset.take_if(|_| decoded == Decoded::Done) {
            Some(error) => Err(error),
            None => Ok(decoded),
        }
    }

    async fn resolve(&mut self) -> Result<Vec<Resolved>> {
        let Some(message) = self.decoder.unresolved().cloned() else {
            return Ok(Vec::new());
        };
        let Some(known) = self.decoder.known(&message).cloned() else {
            return Ok(Vec::new());
        };
        let options = self.options.clone();
        let resolved = catalog::resolve(self.control().await?, &options, &message, &known).await?;
        match &resolved {
            Resolved::Schema(schema) => self.decoder.set_relation(Relation::new(schema.clone())?),
            Resolved::Lost(table, _) | Resolved::Dropped { table, .. } => {
                self.decoder.remove_table(table);
            }
        }
        Ok(vec![resolved])
    }

    fn set_table(&mut self, schema: Arc<TableSchema>) {
        let id = schema.id.clone();
        match Relation::new(schema) {
            Ok(relation) => self.decoder.set_relation(relation),
            Err(error) => {
                self.decoder.remove_table(&id);
                self.unset = Some(Error::table(id, "its log can't be read").caused_by(error));
            }
        }
    }

    fn remove_table(&mut self, table: &TableId) {
        self.decoder.remove_table(table);
    }

    fn acknowledge(&mut self, position: &Lsn) {
        if self.told.durable.fetch_max(position.0, Ordering::Relaxed) < position.0 {
            self.told.changed.notify_one();
        }
    }

    fn nudge(&mut self) {
        self.told.ask.store(true, Ordering::Relaxed);
        self.told.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_transaction_is_read_from_its_commit() {
        let mut payload = vec![b'C', 0];
        payload.extend(7u64.to_be_bytes());
        payload.extend(9u64.to_be_bytes());
        payload.extend(0u64.to_be_bytes());
        assert_eq!(Stream::end_of(&payload), Some(Lsn(9)));
        assert_eq!(Stream::end_of(&payload[..12]), None);
        assert_eq!(Stream::end_of(b"B123456789012345678901234"), None);
    }
}
