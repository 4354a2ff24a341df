//! MySQL and MariaDB: the row-based binary log by GTID, beside ordinary reads.
//!
//! [`server`] logs in and [`connection`] speaks the protocol, `replication` asks for the log, [`stream`] reads it,
//! `event` and `image` know its form and [`decode`] understands it; [`catalog`] and [`snapshot`]
//! read tables by ordinary statements, `statement` follows definitions of tables.
//!
//! The protocol is spoken here because rows of statements and of the log are borrowed from the
//! packets they come in; nothing in between makes a value of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::filter::TableFilter;
use crate::schema::{TableId, TableSchema};
use crate::secret::Secret;
use crate::source::{Catalog, Established, Finding, Listed, Position};

pub mod catalog;
pub mod charset;
mod check;
pub mod connection;
pub mod decode;
pub mod event;
mod fault;
pub mod gtid;
pub mod image;
mod input;
pub mod json;
mod login;
pub mod position;
mod pump;
mod replication;
pub mod server;
#[cfg(all(test, feature = "server-tests"))]
mod server_tests;
pub mod snapshot;
pub mod statement;
pub mod stream;
pub mod types;
pub mod values;
mod view;
mod xa;

use connection::{Connection, Flavor};
use position::{Place, Visible};
use replication::Identity;
use server::Server;

/// What the configuration says about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What the source is called.
    pub source_name: String,
    /// `mysql://user:password@host:port`.
    pub url: Secret,
    /// Patterns of tables, `database.table`.
    pub tables: Vec<String>,
    /// The number by which the server tells its replicas apart; made of the source's name when it
    /// is `None`.
    pub server_id: Option<u32>,
    /// Authorities that vouch for the server, as PEM.
    pub ssl_root_cert: Option<PathBuf>,
    /// Columns to keep as text whatever their type.
    pub text_columns: HashMap<TableId, Vec<String>>,
}

/// A MySQL or MariaDB server.
pub struct MySql {
    options: Options,
    shared: Arc<catalog::Shared>,
    server: Server,
    identity: Identity,
    control: Option<Connection>,
    /// The identity that the lake knows.
    known: Option<String>,
}

impl MySql {
    /// The source that `options` describe. Connects to nothing.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when they can't be right.
    pub fn new(options: Options) -> Result<Self> {
        if options.server_id == Some(0) {
            return Err(Error::config("server_id 0 stands for no replica")
                .remedy("choose a number that no replica has, or leave it out"));
        }
        let filter = TableFilter::parse(&options.tables)?;
        let mut server = Server::parse(&options.url, options.ssl_root_cert.clone())?;
        server.reader_name = format!("lakeward/{}", options.source_name);
        Ok(Self {
            shared: Arc::new(catalog::Shared::new(filter, options.text_columns.clone())),
            identity: Identity::new(&options.source_name, options.server_id),
            server,
            control: None,
            known: None,
            options,
        })
    }

    /// The connection for short statements, made anew when it was lost.
    async fn control(&mut self) -> Result<&mut Connection> {
        // One whose last answer failed is not trusted with another question.
        let control = match self.control.take() {
            Some(mut control) if !control.is_busy() => {
                control.run("looking after the connection", "DO 1").await.ok().map(|()| control)
            }
            _ => None,
        };
        let control = match control {
            Some(control) => control,
            None => self.server.connect().await?,
        };
        Ok(self.control.insert(control))
    }
}

/// What the log has to be like.
#[derive(Debug, Clone, Default)]
struct LogSettings {
    log_bin: bool,
    format: String,
    gtid_mode: String,
}

impl LogSettings {
    async fn read(connection: &mut Connection) -> Result<Self> {
        let gtid_mode = match connection.flavor {
            Flavor::MySql => "@@GLOBAL.gtid_mode",
            Flavor::MariaDb => "'ON'",
        };
        let sql = format!("SELECT @@GLOBAL.log_bin, @@GLOBAL.binlog_format, {gtid_mode}");
        let row = connection.rows("looking at the log's settings", &sql).await?;
        let mut row = row.into_iter().flatten().map(Option::unwrap_or_default);
        let log_bin = row.next().is_some_and(|on| on == "1");
        let format = row.next().unwrap_or_default();
        Ok(Self { log_bin, format, gtid_mode: row.next().unwrap_or_default() })
    }

    /// What keeps changes from being read out of the log.
    fn faults(&self) -> Vec<Error> {
        let mut faults = Vec::new();
        if !self.log_bin {
            faults.push(Error::config("the server writes no binary log").remedy(
                "set log_bin (and server_id) in the server's configuration and restart it \
                 (managed services have a setting for backups or binary logging)",
            ));
            return faults;
        }
        if self.format != "ROW" {
            faults.push(
                Error::config("the server's log does not hold rows")
                    .with("binlog_format", &self.format)
                    .remedy("SET GLOBAL binlog_format = 'ROW', and in the server's configuration"),
            );
        }
        if self.gtid_mode != "ON" {
            faults.push(
                Error::config("the server's transactions have no GTIDs")
                    .with("gtid_mode", &self.gtid_mode)
                    .remedy(
                        "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = \
                         OFF_PERMISSIVE; SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode \
                         = ON; and both in the server's configuration",
                    ),
            );
        }
        faults
    }
}

/// Everything that has been purged from the log, and so can't be read any more.
async fn purged(connection: &mut Connection) -> Result<Place> {
    let doing = "asking where the log begins";
    let text = match connection.flavor {
        Flavor::MySql => connection.text(doing, "SELECT @@GLOBAL.gtid_purged").await?,
        Flavor::MariaDb => {
            let first = connection.text(doing, "SHOW BINARY LOGS").await?;
            let file = connection::literal(&first);
            // What the file says at its beginning that came before it.
            connection.text(doing, &format!("SELECT BINLOG_GTID_POS({file}, 4)")).await?
        }
    };
    Place::parse(connection.flavor, &text).ok_or_else(|| fault::malformed(doing))
}

/// Which history of transactions a position belongs to: the kind of GTIDs, and what had been
/// executed when the lake first saw the server. A server that lacks any of that (another one, or
/// one whose log was reset) has another history, and numbers of old may stand for new transactions.
fn history(known: Option<&str>, now: &Place) -> String {
    let before = known.and_then(|known| Place::try_from(known.to_owned()).ok());
    match before {
        Some(before) if now.covers(&before) => before.to_string(),
        _ => now.to_string(),
    }
}

impl crate::source::Source for MySql {
    type Position = Place;
    type View = Visible;
    type Stream = stream::Stream;
    type Reader = snapshot::Reader;

    /// `information_schema` shows the tables on which the user has a privilege (MySQL manual,
    /// "INFORMATION_SCHEMA Tables", Privileges).
    const FINDS_ALL: bool = false;

    fn selects(&self, table: &TableId) -> bool {
        self.shared.selects(table)
    }

    async fn discover(&mut self) -> Result<Catalog<Place>> {
        let shared = self.shared.clone();
        let control = self.control().await?;
        let found = shared.discover(control).await?;
        let listed = |table: catalog::Table| Listed { schema: table.schema, rows: table.rows };
        Ok(Catalog {
            tables: found.tables.into_iter().map(listed).collect(),
            refused: found.refused,
            high: view::high(control).await?,
        })
    }

    fn expect(&mut self, identity: &str) {
        self.known = Some(identity.to_owned());
    }

    async fn establish(&mut self, _tables: &[Arc<TableSchema>]) -> Result<Established<Place>> {
        let known = self.known.clone();
        let control = self.control().await?;
        if let Some(fault) = LogSettings::read(control).await?.faults().into_iter().next() {
            return Err(fault);
        }
        let now = view::high(control).await?;
        let identity = history(known.as_deref(), &now);
        // What the lake doesn't know it doesn't need from before.
        let oldest = match known.as_deref() == Some(identity.as_str()) {
            true => purged(control).await?,
            false => now.clone(),
        };
        // The log is kept for as long as it is set to, whoever reads.
        let (retained, begins) = (None, None);
        let newest = Some(now);
        Ok(Established { oldest, newest, identity, continues: false, retained, begins })
    }

    async fn stream(
        &mut self,
        from: &Place,
        tables: &[Arc<TableSchema>],
    ) -> Result<stream::Stream> {
        let shared = self.shared.clone();
        let control = self.control().await?;
        let now = view::high(control).await?;
        // Where no table needs what is past, reading begins at the present.
        let from = if tables.is_empty() { &now } else { from };
        if !now.covers(from) {
            return Err(Error::gap("the server's log ends before what the lake holds")
                .with("log", &now)
                .with("lake", from)
                .remedy("it lost changes in a fail-over or restore: the tables are read again"));
        }
        shared.learn_all(control, tables).await?;
        let mut from = from.clone();
        let mut lost = None;
        if from.since.is_some() && !from.resume().covers(&purged(control).await?.read) {
            lost = Some(
                "gap: the log no longer holds the rows of a distributed (XA) transaction whose \
                 outcome is open"
                    .to_owned(),
            );
            from.since = None;
        }
        let dump = replication::dump(&self.server, &self.identity, &from).await?;
        stream::Stream::new(dump, from, tables, self.server.clone(), shared, lost)
    }

    async fn reader(&mut self, chunk_bytes: usize) -> Result<snapshot::Reader> {
        snapshot::Reader::open(self.server.clone(), self.shared.clone(), chunk_bytes).await
    }

    async fn view(&mut self) -> Result<Visible> {
        let control = self.control().await?;
        let view = view::open(control).await?;
        control.run("ending a read", "ROLLBACK").await?;
        Ok(view)
    }

    async fn check(&mut self) -> Result<Vec<Finding>> {
        check::findings(self).await
    }

    /// Nothing was made in the server: it keeps its log for as long as it is set to.
    async fn remove(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_history_goes_on_or_is_another() {
        let first = history(None, &place("mariadb:0-1-5"));
        assert_eq!(first, "mariadb:0-1-5");
        assert_eq!(history(Some(&first), &place("mariadb:0-2-9,1-1-1")), first);
        // The log was reset, or it is another server.
        assert_eq!(history(Some(&first), &place("mariadb:0-1-2")), "mariadb:0-1-2");
        assert_eq!(history(Some(&first), &place("mysql:")), "mysql:");
    }

    #[test]
    fn all_faults_of_the_log_are_told() {
        let settings = |log_bin, format: &str, gtid_mode: &str| LogSettings {
            log_bin,
            format: format.to_owned(),
            gtid_mode: gtid_mode.to_owned(),
        };
        assert!(settings(true, "ROW", "ON").faults().is_empty());
        assert_eq!(settings(true, "MIXED", "OFF").faults().len(), 2);
        assert_eq!(settings(false, "MIXED", "OFF").faults().len(), 1);
    }
}
