//! The log being read.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Connection;
use super::position::Gtids;
use super::server::{Logged, lock};
use super::snapshot::poll;
use super::table::Event;
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::schema::{Identity, TableId, TableSchema};
use crate::source::{Decoded, Resolved, Sink, Stream};

/// The log from some position on: every transaction that the position doesn't hold, in the order
/// of the log.
#[derive(Debug)]
pub struct ScriptedStream {
    connection: Connection,
    /// Everything read, and where it started.
    position: Gtids,
    /// The next place in the log to look at.
    at: usize,
    /// The transaction being read, and what of it comes next.
    open: Option<(Arc<Logged>, Next)>,
    tables: HashMap<TableId, Arc<TableSchema>>,
    /// What [`Stream::resolve`] has to find out.
    unresolved: Option<Arc<TableSchema>>,
    nudged: bool,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Event(usize),
    Commit,
}

/// What the log consists of.
#[derive(Debug, Clone)]
pub struct Message(Content);

#[derive(Debug, Clone)]
enum Content {
    Begin(Arc<Logged>),
    Event(Arc<Logged>, usize),
    Commit(Arc<Logged>, Gtids),
    Progress(Gtids),
}

impl ScriptedStream {
    pub(super) fn new(connection: Connection, position: Gtids, of: &[Arc<TableSchema>]) -> Self {
        let tables = of.iter().map(|schema| (schema.id.clone(), schema.clone())).collect();
        Self { connection, position, at: 0, open: None, tables, unresolved: None, nudged: false }
    }

    /// The next message, if there is one already.
    fn take(&mut self) -> Result<Option<Message>> {
        if let Some((logged, next)) = self.open.take() {
            return Ok(Some(Message(self.go_on(logged, next))));
        }
        let next = lock(&self.connection.server).next(&self.position, self.at)?;
        let Some((at, logged)) = next else {
            let progress = std::mem::take(&mut self.nudged);
            return Ok(progress.then(|| Message(Content::Progress(self.position.clone()))));
        };
        self.at = at + 1;
        let first = if logged.events.is_empty() { Next::Commit } else { Next::Event(0) };
        self.open = Some((logged.clone(), first));
        Ok(Some(Message(Content::Begin(logged))))
    }

    fn go_on(&mut self, logged: Arc<Logged>, next: Next) -> Content {
        match next {
            Next::Event(index) => {
                let more = index + 1 < logged.events.len();
                let next = if more { Next::Event(index + 1) } else { Next::Commit };
                self.open = Some((logged.clone(), next));
                Content::Event(logged, index)
            }
            Next::Commit => {
                self.position.insert(logged.gtid);
                Content::Commit(logged, self.position.clone())
            }
        }
    }

    fn decode_event<S: Sink<Gtids>>(&mut self, event: &Event, sink: &mut S) -> Result<Decoded> {
        let (Event::Insert { schema, .. }
        | Event::Update { schema, .. }
        | Event::Delete { schema, .. }
        | Event::Truncate { schema }) = event
        else {
            // As in Postgres, the log has no trace of it before the next change of the table.
            return Ok(Decoded::Done);
        };
        let Some(known) = self.tables.get(&schema.id) else {
            return Ok(Decoded::Done);
        };
        if known != schema {
            self.unresolved = Some(schema.clone());
            return Ok(Decoded::Unresolved);
        }
        if matches!(event, Event::Truncate { .. }) {
            sink.truncate(&schema.id);
        } else if let Some(builder) = sink.rows(known) {
            push(builder, event)?;
        }
        Ok(Decoded::Done)
    }

    fn lost(&mut self, table: &TableId, why: &str) -> Vec<Resolved> {
        self.tables.remove(table);
        vec![Resolved::Lost(table.clone(), why.to_owned())]
    }
}

/// Appends a change of rows as a log sends it: of an old row only what tells it from the others.
fn push(builder: &mut crate::batch::Builder, event: &Event) -> Result<()> {
    match event {
        Event::Insert { row, .. } => builder.push(Op::Insert, None, Some(&values(row))),
        Event::Delete { schema, old } => builder.push(Op::Delete, Some(&known(schema, old)), None),
        Event::Update { schema, old, row, unchanged, patches } => {
            let mut new = values(row);
            for (column, patch) in patches {
                new[*column] = Value::Patch(patch.into());
            }
            unchanged.iter().for_each(|&column| new[column] = Value::Unchanged);
            let full = schema.identity == Identity::FullRow;
            let moved = full || schema.key().iter().any(|&column| old[column] != row[column]);
            let old = moved.then(|| known(schema, old));
            builder.push(Op::Update, old.as_deref(), Some(&new))
        }
        Event::Truncate { .. } | Event::Schema { .. } | Event::Drop { .. } => Ok(()),
    }
}

pub(super) fn values(row: &[super::table::Cell]) -> Vec<Value<'_>> {
    row.iter().map(super::table::Cell::value).collect()
}

fn known<'a>(schema: &TableSchema, old: &'a [super::table::Cell]) -> Vec<Value<'a>> {
    let mut values = values(old);
    if let Identity::Key(key) = &schema.identity {
        let others = (0..values.len()).filter(|column| !key.contains(column));
        others.collect::<Vec<_>>().into_iter().for_each(|column| values[column] = Value::Null);
    }
    values
}

impl Stream for ScriptedStream {
    type Position = Gtids;
    type Message = Message;

    async fn next(&mut self) -> Result<Message> {
        self.connection.wait().await?;
        loop {
            let changed = lock(&self.connection.server).changed.clone();
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            self.connection.alive()?;
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            notified.await;
            self.connection.wait().await?;
        }
    }

    fn decode<S: Sink<Gtids>>(&mut self, message: &Message, sink: &mut S) -> Result<Decoded> {
        match &message.0 {
            Content::Begin(logged) => {
                sink.begin(logged.gtid);
                sink.committed_at(logged.micros);
            }
            Content::Event(logged, index) => match logged.events.get(*index) {
                Some(event) => return self.decode_event(event, sink),
                None => return Err(Error::internal("a message of no event")),
            },
            Content::Commit(logged, position) => sink.commit(position.clone(), logged.micros),
            Content::Progress(position) => sink.progress(position.clone()),
        }
        Ok(Decoded::Done)
    }

    async fn resolve(&mut self) -> Result<Vec<Resolved>> {
        let Some(asked) = self.unresolved.clone() else {
            return Ok(Vec::new());
        };
        let table = &asked.id;
        loop {
            self.connection.wait().await?;
            let (now, changing) = {
                let mut server = lock(&self.connection.server);
                let mut state = server.view(|id| id == table);
                (state.tables.remove(table).map(|table| table.schema), server.changing(table))
            };
            if now.as_ref() == Some(&asked) {
                self.unresolved = None;
                self.tables.insert(table.clone(), asked.clone());
                return Ok(vec![Resolved::Schema(asked)]);
            }
            // A change of the table that is in the log may not be in the catalog yet.
            if !changing {
                self.unresolved = None;
                return Ok(self.lost(table, "the table changed again since"));
            }
            poll().await;
        }
    }

    fn set_table(&mut self, schema: Arc<TableSchema>) {
        self.tables.insert(schema.id.clone(), schema);
    }

    fn remove_table(&mut self, table: &TableId) {
        self.tables.remove(table);
    }

    fn acknowledge(&mut self, position: &Gtids) {
        if self.connection.alive().is_err() {
            return;
        }
        let mut server = lock(&self.connection.server);
        if !server.forgets() {
            server.acknowledge(position);
        }
    }

    fn nudge(&mut self) {
        self.nudged = true;
    }
}
