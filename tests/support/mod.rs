//! What every suite needs: the servers, the daemon under test, the lake, a reader that is not ours.

pub mod cases;
pub mod compare;
pub mod daemon;
pub mod database;
pub mod group;
pub mod jobs;
pub mod lake;
pub mod modes;
pub mod mongodb;
pub mod mongodb_case;
pub mod mysql;
pub mod own_server;
pub mod postgres;
pub mod reader;
pub mod scene;
pub mod script;
pub mod search;
pub mod sessions;
pub mod status;

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Tests report in sentences; nothing here is handled by kind.
pub type Res<T> = Result<T, String>;

pub trait Context<T> {
    fn context(self, what: impl Display) -> Res<T>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Res<T> {
        self.map_err(|e| format!("{what}: {e}"))
    }
}

/// The servers of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    Pg15,
    Pg18,
    MySql,
    MariaDb,
    /// A replica set of the user's, or else the stand-in.
    Mongo,
}

impl Server {
    pub const POSTGRES: [Server; 2] = [Server::Pg15, Server::Pg18];
    pub const MYSQL: [Server; 2] = [Server::MySql, Server::MariaDb];

    pub fn is_postgres(self) -> bool {
        Self::POSTGRES.contains(&self)
    }

    pub fn name(self) -> &'static str {
        match self {
            Server::Pg15 => "pg15",
            Server::Pg18 => "pg18",
            Server::MySql => "mysql",
            Server::MariaDb => "mariadb",
            Server::Mongo => "mongo",
        }
    }

    /// The URL of its administrator.
    pub fn url(self) -> Res<String> {
        match self {
            Server::Pg15 => variable("LAKEWARD_TEST_PG15_URL"),
            Server::Pg18 => variable("LAKEWARD_TEST_PG18_URL"),
            Server::MySql => variable("LAKEWARD_TEST_MYSQL_URL"),
            Server::MariaDb => variable("LAKEWARD_TEST_MARIADB_URL"),
            Server::Mongo => mongodb::url(),
        }
    }
}

/// Where the lake of a test lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    Local,
    S3,
}

impl Store {
    pub const ALL: [Store; 2] = [Store::Local, Store::S3];

    pub fn name(self) -> &'static str {
        match self {
            Store::Local => "local",
            Store::S3 => "s3",
        }
    }
}

/// The number in an environment variable, where there is one.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A setting the servers' script prints; without it a test fails, it is never skipped.
pub fn variable(name: &str) -> Res<String> {
    std::env::var(name).map_err(|_| {
        format!(
            "{name} is not set: run `./dev servers start`, then `eval \"$(./dev servers env)\"`"
        )
    })
}

/// Whether the long suites are asked for.
pub fn long() -> bool {
    std::env::var("LAKEWARD_LONG").is_ok_and(|v| v == "1")
}

/// Names this process's databases, slots and prefixes, so that two runs never meet.
pub fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| format!("lw{}", std::process::id()))
}

/// Polls until `done` gives a value, at most for `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut done: impl FnMut() -> Res<Option<T>>,
) -> Res<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(format!("{what}: not within {} s", limit.as_secs_f32()));
        }
        std::thread::sleep(every);
    }
}

/// The last `lines` of a text, each cut to a readable length.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].iter().map(|l| shortened(l, 400)).collect::<Vec<_>>().join("\n")
}

pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
