//! MongoDB: one change stream beside ordinary reads.
//!
//! [`connection`] speaks to the server through the official driver and hands on bytes, which
//! [`element`] walks. `pump` reads the change stream, [`decode`] understands its events, and
//! [`layout`] makes rows of documents, for [`stream`] and [`snapshot`] alike, and [`update`] of what an
//! update says that it changed. What a row looks like
//! is learned by [`shape`] from [`values`], [`identity`] says what is one document, [`json`] writes
//! whole ones, [`names`] names columns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::filter::TableFilter;
use crate::schema::{TableId, TableSchema};
use crate::secret::Secret;
use crate::source::{Catalog, Established, Finding};

pub mod catalog;
mod check;
pub mod connection;
pub mod decode;
pub mod element;
mod fault;
pub mod identity;
pub mod json;
pub mod layout;
pub mod names;
mod namespaces;
pub mod position;
mod pump;
#[cfg(all(test, feature = "server-tests"))]
mod server_tests;
pub mod shape;
pub mod snapshot;
pub mod stream;
pub mod update;
pub mod values;

use connection::Server;
use namespaces::Namespaces;
use position::{Position, Time, Visible};
use pump::{Documents, Opening};
use shape::{Limits, Shapes};

/// How often it is looked at where the oplog begins; where that is refused, it is asked again later.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What the configuration says about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `mongodb://user:password@host:port/?replicaSet=NAME`, or `mongodb+srv://…`.
    pub url: Secret,
    /// Patterns of collections, `database.collection`.
    pub tables: Vec<String>,
    /// The most fields of a collection that get a column of their own.
    pub columns: usize,
    /// Whether each row keeps its whole document, in the column `_doc`.
    pub document: bool,
}

/// A MongoDB deployment.
pub struct Mongodb {
    options: Options,
    filter: TableFilter,
    namespaces: Namespaces,
    shapes: Shapes,
    server: Option<Server>,
    /// Whether the lake knows this source.
    known: bool,
    /// What the log held when it was looked at first: nothing is asked of that later.
    oldest: Option<Position>,
    /// Where the log began at the last look, and when the next one is due.
    begins: Option<(Option<Position>, Instant)>,
    /// Whether any collection keeps post-images.
    post_images: bool,
}

impl Mongodb {
    /// The source that `options` describe. Connects to nothing.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when they can't be right.
    pub fn new(options: Options) -> Result<Self> {
        let limits = Limits { columns: options.columns, document: options.document };
        if !options.document && options.columns == 0 {
            return Err(Error::config("neither fields nor whole documents would be kept")
                .remedy("leave document on, or set columns to more than 0"));
        }
        Ok(Self {
            filter: TableFilter::parse(&options.tables)?,
            namespaces: Namespaces::of(&options.tables),
            shapes: Shapes::new(limits),
            server: None,
            known: false,
            oldest: None,
            begins: None,
            post_images: false,
            options,
        })
    }

    /// The server; the driver makes connections anew when they are lost.
    async fn server(&mut self) -> Result<Server> {
        match &self.server {
            Some(server) => Ok(server.clone()),
            None => {
                let server = Server::open(&self.options.url).await?;
                Ok(self.server.insert(server).clone())
            }
        }
    }

    /// Where the oplog begins, as of the last look; `None` where the user may not see it.
    async fn begins(&mut self, server: &Server) -> Option<Position> {
        if let Some((begins, due)) = &self.begins
            && Instant::now() < *due
        {
            return begins.clone();
        }
        let found = check::oplog(server, 1).await.ok().map(Position::at);
        let next = if found.is_some() { LOOK } else { LOOK_AGAIN };
        self.begins = Some((found.clone(), Instant::now() + next));
        found
    }

    fn opening(&self, post_images: bool) -> Opening {
        Opening { namespaces: self.namespaces.clone(), post_images }
    }
}

impl crate::source::Source for Mongodb {
    type Position = Position;
    type View = Visible;
    type Stream = stream::Stream;
    type Reader = snapshot::Reader;

    /// `listDatabases` shows the databases that the user is authorized for (MongoDB manual).
    const FINDS_ALL: bool = false;

    fn selects(&self, table: &TableId) -> bool {
        self.filter.matches(table)
    }

    async fn discover(&mut self) -> Result<Catalog<Position>> {
        let server = self.server().await?;
        let found =
            catalog::discover(&server, &self.namespaces, &self.filter, &self.shapes).await?;
        self.post_images = !found.post_images.is_empty();
        let high = Position::at(server.majority().await?);
        Ok(Catalog { tables: found.tables, refused: found.refused, high })
    }

    fn expect(&mut self, _: &str) {
        self.known = true;
    }

    /// Makes nothing: the oplog is there, and keeps what it keeps. What it still holds is known
    /// exactly only when a token is tried ([`stream`](Self::stream)); until then the user's rights
    /// may not show more than that nothing is known to be lost.
    async fn establish(&mut self, _: &[Arc<TableSchema>]) -> Result<Established<Position>> {
        let server = self.server().await?;
        let begins = self.begins(&server).await;
        let oldest = match (self.oldest.take(), self.known) {
            (Some(oldest), _) => oldest,
            (None, true) => begins.clone().unwrap_or_default(),
            (None, false) => Position::at(server.majority().await?),
        };
        self.oldest = Some(oldest.clone());
        // What a majority has is never lost, and a member that knows less than it has is no gap.
        let (newest, identity, retained) = (None, server.set, None);
        Ok(Established { oldest, newest, identity, continues: false, retained, begins })
    }

    async fn stream(
        &mut self,
        from: &Position,
        tables: &[Arc<TableSchema>],
    ) -> Result<stream::Stream> {
        let server = self.server().await?;
        tables.iter().for_each(|schema| self.shapes.adopt(schema));
        let opening = self.opening(self.post_images);
        // Where no table needs what is past, reading begins at the present.
        let now = Position::at(server.majority().await?);
        let from = if tables.is_empty() { now.clone() } else { from.clone() };
        let (stream, from, lost) = match opening.open(&server, &from).await {
            Ok(stream) => (stream, from, None),
            Err(error) if error.kind() == ErrorKind::Gap => {
                let why = pump::hole(&from, &error);
                (opening.open(&server, &now).await?, now, Some(why))
            }
            Err(error) => return Err(error),
        };
        let documents = Documents { server, filter: self.filter.clone() };
        let source = stream::Source { documents, opening, stream, from, lost };
        stream::Stream::new(source, tables, self.shapes.clone())
    }

    async fn reader(&mut self, chunk_bytes: usize) -> Result<snapshot::Reader> {
        let server = self.server().await?;
        Ok(snapshot::Reader::new(server, self.shapes.clone(), chunk_bytes))
    }

    async fn view(&mut self) -> Result<Visible> {
        let since: Time = self.server().await?.majority().await?;
        Ok(Visible { since })
    }

    async fn check(&mut self) -> Result<Vec<Finding>> {
        check::findings(self).await
    }

    async fn remove(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
