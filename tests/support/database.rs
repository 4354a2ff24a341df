//! A database of one test, whatever server it is on.

use std::time::Duration;

use serde_json::Value;

use super::compare::{self, SourceTable};
use super::mysql::{self, My};
use super::postgres::{self, Pending, Pg};
use super::reader::LakeRows;
use super::{Res, Server};

pub enum Database {
    Postgres(postgres::Database),
    MySql(mysql::Database),
}

impl Database {
    pub fn create(server: Server, label: &str, options: &str) -> Res<Database> {
        match server {
            Server::Pg15 | Server::Pg18 => {
                postgres::Database::create(server, label, options).map(Database::Postgres)
            }
            Server::MySql | Server::MariaDb => {
                mysql::Database::create(server, label).map(Database::MySql)
            }
            Server::Mongo => Err("scripts of SQL don't run on MongoDB".to_owned()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Database::Postgres(database) => &database.name,
            Database::MySql(database) => &database.name,
        }
    }

    /// The URL of the source.
    pub fn url(&self) -> &str {
        match self {
            Database::Postgres(database) => &database.url,
            Database::MySql(database) => &database.url,
        }
    }

    /// What a script calls the schema `public`: in MySQL the database itself.
    pub fn schema<'a>(&'a self, schema: &'a str) -> &'a str {
        match self {
            Database::MySql(database) if schema == "public" => &database.name,
            _ => schema,
        }
    }

    pub fn session(&self) -> Res<Session> {
        Ok(match self {
            Database::Postgres(database) => Session::Postgres(Pg::connect(&database.url)?),
            Database::MySql(database) => Session::MySql(database.connect()?),
        })
    }

    pub fn drop_slot(&self, slot: &str) -> Res<()> {
        match self {
            Database::Postgres(database) => database.drop_slot(slot),
            Database::MySql(_) => Ok(()),
        }
    }

    pub fn source_rows(&self, schema: &str, table: &str) -> Res<SourceTable> {
        let schema = self.schema(schema);
        match self {
            Database::Postgres(database) => {
                compare::source_rows(&database.connect()?, schema, table)
            }
            Database::MySql(database) => mysql::source_rows(&database.connect()?, schema, table),
        }
    }

    /// Rows of the lake with values in the form of [`source_rows`](Self::source_rows).
    pub fn settled(&self, lake: LakeRows) -> LakeRows {
        match self {
            Database::Postgres(_) => lake,
            Database::MySql(_) => mysql::settled_rows(lake),
        }
    }

    pub fn recorded(&self, schema: &str, table: &str, expected: &Value) -> Res<()> {
        let schema = self.schema(schema);
        match self {
            Database::Postgres(database) => compare::recorded(database, schema, table, expected),
            Database::MySql(database) => mysql::recorded(database, schema, table, expected),
        }
    }

    /// The database of a case that only Postgres has.
    pub fn postgres(&self) -> Res<&postgres::Database> {
        match self {
            Database::Postgres(database) => Ok(database),
            Database::MySql(_) => Err("this is done to Postgres only".to_owned()),
        }
    }
}

/// A connection of a script.
pub enum Session {
    Postgres(Pg),
    MySql(My),
}

/// A statement that was sent and may be waiting for a lock.
pub enum Sent {
    Postgres(Pending),
}

impl Session {
    pub fn exec(&self, sql: &str) -> Res<()> {
        match self {
            Session::Postgres(pg) => pg.exec(sql),
            Session::MySql(my) => my.exec(sql),
        }
    }

    pub fn send(&self, sql: String) -> Res<Sent> {
        match self {
            Session::Postgres(pg) => Ok(Sent::Postgres(pg.send(sql))),
            Session::MySql(_) => Err("no script for MySQL sends without waiting".to_owned()),
        }
    }
}

impl Sent {
    pub fn wait(self, limit: Duration) -> Res<()> {
        match self {
            Sent::Postgres(pending) => pending.wait(limit),
        }
    }
}
