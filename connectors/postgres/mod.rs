//! Postgres: logical replication by pgoutput beside ordinary reads.
//!
//! [`connection`] makes connections, `replication` speaks the protocol of a walsender, [`stream`]
//! reads the log and [`decode`] understands it, [`catalog`] and [`snapshot`] read tables by
//! ordinary statements, `publication` and `slot` keep the log.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result};
use crate::filter::TableFilter;
use crate::schema::{TableId, TableSchema};
use crate::secret::Secret;
use crate::source::{Catalog, Established, Finding, Listed, Position};

mod binary;
pub mod catalog;
mod check;
pub mod connection;
pub mod decode;
mod fault;
mod pgoutput;
pub mod position;
mod publication;
mod pump;
mod replication;
#[cfg(all(test, feature = "server-tests"))]
mod server_tests;
mod slot;
pub mod snapshot;
mod storage;
pub mod stream;
mod timeline;
mod types;
mod values;

use connection::Server;
use position::{Lsn, Visible};
use replication::{CopyBoth, Replication, literal, quote};
use slot::Slot;

/// The oldest server that is understood.
const OLDEST: i32 = 140_000;

/// What the configuration says about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What the source is called.
    pub source_name: String,
    /// `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// Patterns of tables, `schema.table`.
    pub tables: Vec<String>,
    /// The publication.
    pub publication: String,
    /// The replication slot.
    pub slot: String,
    /// Authorities that vouch for the server, as PEM.
    pub ssl_root_cert: Option<PathBuf>,
    /// Columns to keep as text whatever their type.
    pub text_columns: HashMap<TableId, Vec<String>>,
}

/// A Postgres database.
pub struct Postgres {
    options: Options,
    filter: TableFilter,
    catalog: Arc<catalog::Options>,
    server: Server,
    control: Option<Control>,
    /// The identity that the lake knows.
    known: Option<String>,
    /// The walsender of the stream opened last, or 0.
    walsender: Arc<AtomicI32>,
}

/// The connection for short statements.
struct Control {
    client: Client,
    version: i32,
}

impl Postgres {
    /// The source that `options` describe. Connects to nothing.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when they can't be right.
    pub fn new(options: Options) -> Result<Self> {
        if !slot::is_name(&options.slot) {
            return Err(Error::config(format!("'{}' can't be the name of a slot", options.slot))
                .remedy("1 to 63 of the characters a-z, 0-9 and _"));
        }
        if options.publication.is_empty() || options.publication.len() > 63 {
            return Err(Error::config("the name of a publication has 1 to 63 bytes")
                .with("publication", &options.publication));
        }
        Ok(Self {
            filter: TableFilter::parse(&options.tables)?,
            server: Server::parse(&options.url, options.ssl_root_cert.clone())?,
            catalog: Arc::new(catalog::Options {
                publication: Some(options.publication.clone()),
                text_columns: options.text_columns.clone(),
            }),
            control: None,
            known: None,
            walsender: Arc::default(),
            options,
        })
    }

    /// The connection for short statements, made anew when it was lost.
    async fn control(&mut self) -> Result<&Control> {
        if self.control.as_ref().is_some_and(|control| control.client.is_closed()) {
            self.control = None;
        }
        if self.control.is_none() {
            self.control = Some(Control::open(&self.server).await?);
        }
        self.control.as_ref().ok_or_else(|| Error::internal("a connection vanished"))
    }

    /// The slot; an error when it is missing, or read by somebody else than our own stream.
    async fn slot(&mut self) -> Result<Slot> {
        let (name, ours) = (self.options.slot.clone(), self.walsender.load(Ordering::Relaxed));
        let client = &self.control().await?.client;
        let slot = slot::look(client, &name).await?.ok_or_else(|| {
            Error::gap(format!("the slot {name} does not exist"))
                .remedy("it is made again, and the tables are read again, each by its policy")
        })?;
        match slot.reader {
            Some(pid) if pid != ours => Err(slot::taken(client, &name, pid).await),
            _ => Ok(slot),
        }
    }

    /// A walsender that has been told to stream, once nobody else holds the slot.
    async fn start(&self, from: Lsn) -> Result<CopyBoth> {
        let (slot, publication) = (&self.options.slot, &self.options.publication);
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, \
             messages 'false')",
            quote(slot),
            literal(&quote(publication)),
        );
        // The walsender of a stream just closed may take a moment to notice.
        for _ in 0..25 {
            let mut connection = self.server.replication().await?;
            reaches(&mut connection, from).await?;
            match connection.start(&sql).await {
                Err(error) if fault::is(&error, "55006") => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                started => return started,
            }
        }
        Err(Error::unavailable(format!("the slot {slot} is still read by another connection")))
    }
}

/// That the server's log reaches as far as what the lake holds: it doesn't after a fail-over to a
/// server that lacked the last changes, or after a restore (IDENTIFY_SYSTEM).
async fn reaches(connection: &mut Replication, from: Lsn) -> Result<()> {
    let rows = connection.query("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
    let text = rows.first().and_then(|row| row.get(2)).cloned().flatten();
    let end: Lsn = text.unwrap_or_default().parse()?;
    match end < from {
        true => Err(Error::gap("the server's log ends before what the lake holds")
            .with("log", end)
            .with("lake", from)
            .remedy("it lost changes in a fail-over or restore: the tables are read again")),
        false => Ok(()),
    }
}

impl Control {
    async fn open(server: &Server) -> Result<Self> {
        const SQL: &str = "SELECT pg_catalog.current_setting('server_version_num')::int4";
        let failed = |error| fault::query("looking at the server's version", error);
        let client = server.client().await?;
        client
            .batch_execute("SET statement_timeout = '60s'; SET lock_timeout = '10s'")
            .await
            .map_err(failed)?;
        let version = client.query_one(SQL, &[]).await.map_err(failed)?.get(0);
        match version < OLDEST {
            true => Err(Error::config("the server is older than Postgres 14")
                .with("server_version_num", version)),
            false => Ok(Self { client, version }),
        }
    }

    /// One value of text.
    async fn text(&self, doing: &str, sql: &str) -> Result<String> {
        let failed = |error| fault::query(doing, error);
        self.client.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)
    }

    /// Where the log ends now.
    async fn high(&self) -> Result<Lsn> {
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
        let end: Lsn = self.text("asking for the end of the log", sql).await?.parse()?;
        Ok(end.without_page_header())
    }

    /// The timeline that the server writes, and up to where its log is durable.
    async fn end(&self) -> Result<(u32, Lsn)> {
        let doing = "asking for the end of the log";
        let sql = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())";
        let file = self.text(doing, sql).await?;
        let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let timeline = timeline.ok_or_else(|| {
            Error::internal("the name of a file of the log can't be read").with("file", file)
        })?;
        let sql = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text";
        Ok((timeline, self.text(doing, sql).await?.parse()?))
    }

    /// That the log holds what is needed.
    async fn logs_enough(&self) -> Result<()> {
        let sql = "SELECT pg_catalog.current_setting('wal_level')";
        let level = self.text("looking at wal_level", sql).await?;
        match level == "logical" {
            true => Ok(()),
            false => Err(Error::config("the server's log does not hold whole changes")
                .with("wal_level", level)
                .remedy(fault::WAL_LEVEL)),
        }
    }
}

impl crate::source::Source for Postgres {
    type Position = Lsn;
    type View = Visible;
    type Stream = stream::Stream;
    type Reader = snapshot::Reader;

    /// `pg_class` can be read by everybody.
    const FINDS_ALL: bool = true;

    fn selects(&self, table: &TableId) -> bool {
        self.filter.matches(table)
    }

    async fn discover(&mut self) -> Result<Catalog<Lsn>> {
        let (filter, options) = (self.filter.clone(), self.catalog.clone());
        let control = self.control().await?;
        let found = catalog::discover(&control.client, &filter, &options).await?;
        let listed =
            |table: catalog::Table| Listed { schema: table.relation.schema, rows: table.rows };
        Ok(Catalog {
            tables: found.tables.into_iter().map(listed).collect(),
            refused: found.refused,
            high: control.high().await?,
        })
    }

    fn expect(&mut self, identity: &str) {
        self.known = Some(identity.to_owned());
    }

    async fn establish(&mut self, tables: &[Arc<TableSchema>]) -> Result<Established<Lsn>> {
        const IDENTITY: &str = "SELECT (SELECT system_identifier FROM \
            pg_catalog.pg_control_system())::text || '/' || (SELECT oid FROM \
            pg_catalog.pg_database WHERE datname = pg_catalog.current_database())::text";
        let Options { publication, slot, .. } = self.options.clone();
        let wanted: BTreeSet<_> = tables.iter().map(|table| table.id.clone()).collect();
        let (server, known) = (self.server.clone(), self.known.clone());
        let control = self.control().await?;
        control.logs_enough().await?;
        let oid = publication::ensure(&control.client, &publication, &wanted).await?;
        let found = match slot::look(&control.client, &slot).await {
            // It is of no use to anybody any more, and holds its name (P9).
            Err(error) if error.kind() == crate::ErrorKind::Gap => {
                tracing::warn!(slot, error = error.full(), "dropping a slot that is lost");
                slot::drop_unused(&control.client, &slot).await?;
                None
            }
            found => found?,
        };
        let database = control.text("identifying the database", IDENTITY).await?;
        let log = format!("{database}/{slot}/{oid}");
        let continues = known.as_ref().is_some_and(|known| timeline::log(known) == log);
        let mut found = found;
        if found.is_some() && known.is_some() && !continues {
            // The server can't decode what was written before the publication was made.
            tracing::warn!(slot, "dropping a slot that is older than its publication");
            slot::drop_unused(&control.client, &slot).await?;
            found = None;
        }
        if found.is_none() {
            slot::create(&server, &control.client, &slot, control.version).await?;
            tracing::info!(slot, "slot made");
        }
        let (now, end) = control.end().await?;
        let newest = match known.as_deref().and_then(timeline::of) {
            Some(known) if continues && known != now => {
                let common = timeline::common(&server, known, now).await?;
                tracing::warn!(slot, known, now, common = %common, "the log is on another timeline");
                common.min(end)
            }
            _ => end,
        };
        let Slot { confirmed: oldest, restart, .. } = self.slot().await?;
        let retained = restart.and_then(|restart| end.bytes_since(&restart));
        let (newest, identity, begins) = (Some(newest), format!("{log}@{now}"), None);
        Ok(Established { oldest, newest, identity, continues, retained, begins })
    }

    async fn stream(&mut self, from: &Lsn, tables: &[Arc<TableSchema>]) -> Result<stream::Stream> {
        // What is unavailable is most likely held by our own last stream's walsender: waited for.
        if let Err(error) = self.slot().await
            && error.kind() != ErrorKind::Unavailable
        {
            return Err(error);
        }
        let connection = self.start(*from).await?;
        self.walsender.store(connection.pid, Ordering::Relaxed);
        // Looked at again now that nobody else can move it.
        let confirmed = self.slot().await?.confirmed;
        if confirmed > *from {
            return Err(Error::gap("the slot has been read further than the lake holds")
                .with("slot", confirmed)
                .with("lake", from));
        }
        let (server, catalog) = (self.server.clone(), self.catalog.clone());
        stream::Stream::new(connection, *from, tables, server, catalog)
    }

    async fn reader(&mut self, chunk_bytes: usize) -> Result<snapshot::Reader> {
        snapshot::Reader::open(self.server.clone(), (*self.catalog).clone(), chunk_bytes).await
    }

    async fn view(&mut self) -> Result<Visible> {
        // Of other users' sessions only the database is shown to everybody, not the transaction:
        // what can't be told counts as at work here.
        const SQL: &str = "SELECT pg_catalog.pg_current_snapshot()::text, \
            ARRAY(SELECT backend_xid::text FROM pg_catalog.pg_stat_activity \
                  WHERE datname <> pg_catalog.current_database() AND backend_xid IS NOT NULL \
                  UNION ALL SELECT transaction::text FROM pg_catalog.pg_prepared_xacts \
                  WHERE database <> pg_catalog.current_database())";
        let client = &self.control().await?.client;
        let row = client.query_one(SQL, &[]).await;
        let row = row.map_err(|error| fault::query("asking what is visible", error))?;
        let mut view: Visible = row.get::<_, &str>(0).parse()?;
        let elsewhere: Vec<String> = row.get(1);
        let elsewhere: Vec<u32> = elsewhere.iter().filter_map(|xid| xid.parse().ok()).collect();
        view.elsewhere(&elsewhere);
        Ok(view)
    }

    async fn check(&mut self) -> Result<Vec<Finding>> {
        check::findings(self).await
    }

    async fn remove(&mut self) -> Result<Vec<String>> {
        let Options { publication, slot, .. } = self.options.clone();
        let client = &self.control().await?.client;
        let mut removed = Vec::new();
        if slot::drop_unused(client, &slot).await? {
            removed.push(format!("dropped the slot {slot}"));
        }
        match publication::drop_ours(client, &publication).await? {
            Some(true) => removed.push(format!("dropped the publication {publication}")),
            Some(false) => {
                removed.push(format!("kept the publication {publication}, which is not ours"));
            }
            None => {}
        }
        Ok(removed)
    }
}
