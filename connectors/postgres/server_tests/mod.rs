//! Tests against the servers of LAKEWARD_TEST_PG15_URL and LAKEWARD_TEST_PG18_URL, whose role must
//! be a superuser. Each has a database of its own and leaves nothing behind.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::position::{Commit, Lsn};
use super::{Options, Postgres};
use crate::batch::Builder;
use crate::error::Reason;
use crate::schema::{TableId, TableSchema};
use crate::secret::Secret;
use crate::source::{Decoded, Established, Sink, Source, Stream};

mod faults;
mod log;
mod setup;

/// A database for one test on one server.
#[derive(Clone)]
struct Bed {
    /// Names the database, and the slot and publication in it.
    name: String,
    url: String,
}

impl Bed {
    /// `url` with this database, and user and password if given.
    fn url_as(&self, user: Option<(&str, &str)>) -> String {
        let config: Config = self.url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!() };
        let own = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        let (user, password) = user.unwrap_or((config.get_user().unwrap(), &own));
        format!("postgres://{user}:{password}@{host}:{}/{}", config.get_ports()[0], self.name)
    }

    fn options(&self) -> Options {
        Options {
            source_name: "test".to_owned(),
            url: Secret::new(self.url_as(None)),
            tables: vec!["public.*".to_owned()],
            publication: format!("{} Pub", self.name),
            slot: self.name.clone(),
            ssl_root_cert: None,
            text_columns: HashMap::new(),
        }
    }

    fn source(&self) -> Postgres {
        Postgres::new(self.options()).unwrap()
    }

    async fn admin(&self) -> Client {
        connect(&self.url_as(None)).await
    }

    /// A source with `sql` run in its database, discovered and established.
    async fn made(&self, sql: &str) -> Made {
        let admin = self.admin().await;
        admin.batch_execute(sql).await.unwrap();
        let mut source = self.source();
        let found = source.discover().await.unwrap();
        let tables: Vec<_> = found.tables.into_iter().map(|listed| listed.schema).collect();
        let established = source.establish(&tables).await.unwrap();
        Made { admin, source, tables, established }
    }

    async fn confirmed(&self, admin: &Client) -> Lsn {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
        let text: String = admin.query_one(sql, &[&self.name]).await.unwrap().get(0);
        text.parse().unwrap()
    }
}

/// What [`Bed::made`] makes.
struct Made {
    admin: Client,
    source: Postgres,
    tables: Vec<Arc<TableSchema>>,
    established: Established<Lsn>,
}

impl Made {
    async fn stream(&mut self, from: Lsn) -> super::stream::Stream {
        self.source.stream(&from, &self.tables).await.unwrap()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Runs `body` on each server and cleans up whatever became of it.
fn on_servers<F: Future<Output = ()> + Send + 'static>(name: &str, body: impl Fn(Bed) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (version, variable) in [(15, "LAKEWARD_TEST_PG15_URL"), (18, "LAKEWARD_TEST_PG18_URL")] {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
        let name = format!("lw_{name}_{version}_{}", std::process::id());
        let bed = Bed { name, url };
        runtime.block_on(async {
            let admin = connect(&bed.url).await;
            admin.batch_execute(&format!("create database {}", bed.name)).await.unwrap();
            let done = tokio::spawn(body(bed.clone())).await;
            clean_up(&admin, &bed).await;
            if let Err(error) = done {
                std::panic::resume_unwind(error.into_panic());
            }
        });
    }
}

async fn clean_up(admin: &Client, bed: &Bed) {
    let name = &bed.name;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
    let slots = "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                 where database = $1 and not active";
    for _ in 0..100 {
        admin.execute(end, &[name]).await.unwrap();
        let _ = admin.execute(slots, &[name]).await;
        let drop = format!("drop database if exists {name} with (force)");
        if admin.batch_execute(&drop).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = admin.batch_execute(&format!("drop role if exists {name}")).await;
}

/// What a stream said.
#[derive(Default)]
struct Said {
    begun: Vec<Commit>,
    commits: Vec<Lsn>,
    progress: Vec<Lsn>,
    rows: HashMap<TableId, Builder>,
}

impl Sink<Lsn> for Said {
    fn begin(&mut self, transaction: Commit) {
        self.begun.push(transaction);
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        let new = || Builder::new(schema.clone());
        Some(self.rows.entry(schema.id.clone()).or_insert_with(new))
    }

    fn truncate(&mut self, _table: &TableId) {}

    fn commit(&mut self, position: Lsn, _micros: i64) {
        self.commits.push(position);
    }

    fn progress(&mut self, position: Lsn) {
        self.progress.push(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        panic!("{table} stopped: {reason}");
    }
}

impl Said {
    fn changes(&self) -> usize {
        self.rows.values().map(Builder::len).sum()
    }

    /// Reads on until `enough`; fails after 30 s.
    async fn read(&mut self, stream: &mut super::stream::Stream, enough: impl Fn(&Said) -> bool) {
        let reading = async {
            while !enough(self) {
                let message = stream.next().await.unwrap();
                while stream.decode(&message, self).unwrap() == Decoded::Unresolved {
                    stream.resolve().await.unwrap();
                }
            }
        };
        timeout(Duration::from_secs(30), reading).await.expect("the stream said too little");
    }
}

/// Waits until `done` returns true; fails after 20 s.
async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came: {what}");
}
