//! A source whose log is a list, for the simulation and the tests of the contract.
//!
//! A [`Server`] is a database in memory that a test drives: it commits transactions of
//! [`Operation`]s, decides when they become visible, breaks connections, purges the log. A
//! [`Scripted`] is a source that reads it. It is nastier than any real one: positions are sets
//! that only partially order, commits are streamed long before views see them, keys order as
//! nothing in Rust does, and anything may be late or lost. With a current-thread runtime and its
//! time paused, a seed gives the same run every time.

mod connection;
mod faults;
mod position;
mod server;
mod snapshot;
mod stream;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use faults::{Chance, Faults, SILENCE};
pub use position::{Gtid, Gtids, Seen};
pub use server::{Retention, Server, Settings, Shared, Views, Visibility, lock};
pub use snapshot::ScriptedReader;
pub use stream::{Message, ScriptedStream};
pub use table::{Cell, Definition, Kind, Operation, Row};

use crate::error::Result;
use crate::schema::{Identity, TableId, TableSchema};
use crate::source::{Catalog, Established, Finding, Listed, Source};
use connection::Connection;

/// A configured [`Server`].
#[derive(Debug, Clone)]
pub struct Scripted {
    server: Shared,
    /// The tables asked for; `None` asks for all.
    only: Option<Vec<TableId>>,
}

impl Scripted {
    /// All tables of `server`.
    pub fn new(server: &Shared) -> Self {
        Self { server: server.clone(), only: None }
    }

    /// The same source for no tables but `tables`.
    #[must_use]
    pub fn only(mut self, tables: Vec<TableId>) -> Self {
        self.only = Some(tables);
        self
    }

    /// The server it reads.
    pub fn server(&self) -> &Shared {
        &self.server
    }
}

impl Source for Scripted {
    type Position = Gtids;
    type View = Seen;
    type Stream = ScriptedStream;
    type Reader = ScriptedReader;

    const FINDS_ALL: bool = true;

    fn selects(&self, table: &TableId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(table))
    }

    async fn discover(&mut self) -> Result<Catalog<Gtids>> {
        let connection = Connection::open(&self.server).await?;
        let state = lock(&self.server).view(|id| self.selects(id));
        let listed = state.tables.into_values();
        let listed = listed.map(|table| Listed { rows: table.len() as u64, schema: table.schema });
        let tables = listed.collect();
        connection.wait().await?;
        Ok(Catalog { tables, refused: Vec::new(), high: lock(&self.server).end() })
    }

    async fn establish(&mut self, _: &[Arc<TableSchema>]) -> Result<Established<Gtids>> {
        let connection = Connection::open(&self.server).await?;
        let (oldest, identity) = lock(&self.server).establish();
        let newest = Some(lock(&self.server).end());
        // What was made stays made, though the answer may be lost.
        connection.wait().await?;
        let (retained, begins) = (None, None);
        Ok(Established { oldest, newest, identity, continues: false, retained, begins })
    }

    async fn stream(
        &mut self,
        from: &Gtids,
        tables: &[Arc<TableSchema>],
    ) -> Result<ScriptedStream> {
        let connection = Connection::open(&self.server).await?;
        let start = lock(&self.server).start(from)?;
        Ok(ScriptedStream::new(connection, start, tables))
    }

    async fn reader(&mut self, _: usize) -> Result<ScriptedReader> {
        Ok(ScriptedReader::new(Connection::open(&self.server).await?))
    }

    async fn view(&mut self) -> Result<Seen> {
        Connection::open(&self.server).await?;
        Ok(lock(&self.server).seen())
    }

    async fn check(&mut self) -> Result<Vec<Finding>> {
        let catalog = self.discover().await?;
        let keyless = catalog.tables.into_iter().map(|listed| listed.schema);
        let keyless = keyless.filter(|schema| schema.identity == Identity::FullRow);
        Ok(keyless.map(|schema| finding(&schema.id)).collect())
    }

    async fn remove(&mut self) -> Result<Vec<String>> {
        Connection::open(&self.server).await?;
        lock(&self.server).drop_slot();
        Ok(vec!["the slot".to_owned()])
    }
}

fn finding(table: &TableId) -> Finding {
    Finding {
        fatal: false,
        problem: format!("{table} has no key: it is read in one pass"),
        remedy: "give it a key".to_owned(),
    }
}
