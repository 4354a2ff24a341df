//! What is written during the kills, on whatever server: tables of every kind, big ones whose
//! snapshot takes long enough to be killed in, and a ledger.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::daemon::{Setup, Source};
use crate::support::jobs::Slots;
use crate::support::own_server::OwnServer;
use crate::support::scene::{CURRENT, DELETION_VECTORS};
use crate::support::{Res, Server, Store, mongodb, tag};

use super::{mongodb::MongoDbLoad, mysql::MySqlLoad, postgres::PostgresLoad};

/// The tables of one round and what is done to them; what differs from source to source.
pub trait Load: Sync {
    /// What the tables are called in the lake before their name.
    fn schema(&self) -> &str;
    /// The configuration of the source.
    fn source(&self, name: &str) -> Source;
    /// Those that the writers write to all the time.
    fn tables(&self) -> &'static [&'static str];
    /// Those of [`grow`](Self::grow).
    fn big_tables(&self) -> &'static [&'static str];
    /// Makes the big tables.
    fn grow(&self) -> Res<()>;
    /// Changes rows all over the big tables.
    fn change_big(&self) -> Res<()>;
    /// Changes so many rows of large files that those are compacted.
    fn churn(&self, _random: u32) -> Res<()> {
        Ok(())
    }
    /// A connection that writes.
    fn writer(&self) -> Res<Box<dyn Writer>>;
    /// Whether the table of the lake at `url` equals this one.
    fn equal(&self, setup: &Setup, source: &str, table: &str) -> Res<()>;
    /// Whether the source knows that everything up to the position `to` is durable. None where a source isn't
    /// told: its log is kept by its own settings, and what was acknowledged can't be seen.
    fn acknowledged(&self, source: &str, to: &Value) -> Res<Option<bool>>;
    /// Begins another file of the log, where there are files.
    fn rotate(&self) -> Res<()> {
        Ok(())
    }
    /// kill -9 of the server and its recovery, where it is the test's own.
    fn crash(&self) -> Res<()> {
        Ok(())
    }
}

/// A connection that writes.
pub trait Writer {
    /// One transaction of changes at random that also adds the numbers to the ledger. Whether it
    /// was committed: false when it had to give way to the other writer, and has written nothing.
    fn transact(&mut self, random: &mut fastrand::Rng, seqs: &[i64]) -> Res<bool>;
    /// Which of the numbers the ledger has: asked when a connection broke before the answer.
    fn present(&mut self, seqs: &[i64]) -> Res<Vec<i64>>;
}

/// The server of a job.
pub enum Origin {
    /// One that the suite shares, or a user's.
    Shared(Server),
    /// One of the job's own.
    Own(Server, OwnServer),
}

/// Postgres is the suite's, as is a replica set of the user's; the others are the job's own.
pub fn origin(server: Server) -> Res<Origin> {
    let shared = server.is_postgres() || server == Server::Mongo && mongodb::is_real();
    match shared {
        true => Ok(Origin::Shared(server)),
        false => Ok(Origin::Own(server, OwnServer::start(server)?)),
    }
}

impl Origin {
    pub fn server(&self) -> Server {
        match self {
            Origin::Shared(server) | Origin::Own(server, _) => *server,
        }
    }

    pub fn url(&self) -> Res<String> {
        match self {
            Origin::Shared(server) => server.url(),
            Origin::Own(_, own) => Ok(own.url.clone()),
        }
    }

    pub fn crash(&self) -> Res<()> {
        match self {
            Origin::Shared(_) => Ok(()),
            Origin::Own(_, own) => own.crash(),
        }
    }
}

/// Every way of taking up changes: at once or staged, by rewriting or by deletion vectors.
const MERGING: &[(&str, &str)] = &[
    ("upsert", DELETION_VECTORS),
    ("churned", DELETION_VECTORS),
    ("other", "merge_interval = \"700ms\""),
    ("keyless", DELETION_VECTORS),
    ("keyless", "merge_interval = \"300ms\""),
    ("big_text", "merge_interval = \"1s\""),
];

/// Files of so many bytes are not replaced within a merge by deletion vectors.
const LARGE: u64 = 2 << 20;

/// One load, one source, one daemon.
pub struct Field<'a> {
    pub load: Box<dyn Load + 'a>,
    pub setup: Setup,
    pub source: String,
    // Given back last, when the slots of the database are gone.
    _slots: Slots,
}

impl<'a> Field<'a> {
    pub fn new(origin: &'a Origin, store: Store, label: &str) -> Res<Field<'a>> {
        let server = origin.server();
        let slots = Slots::take(server, 1);
        let load: Box<dyn Load + 'a> = match server {
            Server::Pg15 | Server::Pg18 => Box::new(PostgresLoad::new(server, label)?),
            Server::MySql | Server::MariaDb => Box::new(MySqlLoad::new(origin, label)?),
            Server::Mongo => Box::new(MongoDbLoad::new(origin, label)?),
        };
        let name = format!("{}_{}_{label}", tag(), server.name());
        let mut source = load.source(&name);
        for (table, line) in MERGING {
            let known = load.tables().contains(table) || load.big_tables().contains(table);
            if known {
                let table = format!("{}.{table}", load.schema());
                source.settings.push((table, (*line).to_owned()));
            }
        }
        let setup = Setup::new(store, &name, vec![source])?;
        Ok(Field { load, setup, source: name, _slots: slots })
    }

    pub fn url(&self, table: &str) -> String {
        self.setup.lake.table_url(&self.source, self.load.schema(), table)
    }

    pub fn run_until_current(&self) -> Res<()> {
        self.setup.run_until_current(CURRENT)
    }

    pub fn all_equal(&self, tables: &[&str]) -> Res<()> {
        tables.iter().try_for_each(|table| self.load.equal(&self.setup, &self.source, table))
    }

    pub fn epoch(&self) -> Res<u64> {
        self.setup.lake.newest(&["_lakeward", &self.source, "epochs"])
    }

    /// How many large files of a table have been replaced by others: a merge by deletion vectors does
    /// not, compaction does.
    pub fn compacted(&self, table: &str) -> Res<usize> {
        let (mut sizes, mut replaced) = (BTreeMap::new(), 0);
        for (_, actions) in self.setup.lake.log(&self.source, self.load.schema(), table)? {
            let of = |kind: &'static str| actions.iter().filter_map(move |action| action.get(kind));
            let added: BTreeMap<_, _> =
                of("add").map(|add| (add["path"].to_string(), add["size"].as_u64())).collect();
            let gone = of("remove").map(|remove| remove["path"].to_string());
            let gone: Vec<_> = gone.filter(|path| !added.contains_key(path)).collect();
            let size = |path: &String| sizes.get(path).copied().flatten();
            replaced += gone.iter().filter(|path| size(path) >= Some(LARGE)).count();
            sizes.extend(added);
        }
        Ok(replaced)
    }

    /// The versions of all tables, summed: it grows with every commit.
    pub fn commits(&self) -> Res<u64> {
        let schema = self.load.schema();
        let version = |table| self.setup.lake.newest(&[&self.source, schema, table, "_delta_log"]);
        self.load.tables().iter().map(|table| version(table)).sum()
    }
}
