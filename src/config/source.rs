//! `[source.NAME.…]`: the databases, whatever kind each is of.
//!
//! A kind of database has a file of its own beside this one, an entry in [`KINDS`] and a variant
//! of [`Database`]; nothing else of the program knows how many kinds there are.

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::filter::TableFilter;
use lakeward_connectors::{mongodb, mysql, postgres};
use toml::de::DeTable;

use super::lake::{duration, size};
use super::reader::Reader;
use super::table::PerTable;
use crate::pipeline::DroppedTables;

/// A configured source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Which database it is, and how to read it.
    pub database: Database,
    /// How many chunks a snapshot reads at a time.
    pub snapshot_connections: usize,
    /// How many bytes a second verifications read.
    pub verify_rate: u64,
    /// How often every table is verified.
    pub verify_every: Option<Duration>,
    /// What becomes of tables that the database has no more.
    pub dropped_tables: DroppedTables,
    /// What is said of single tables.
    pub per_table: PerTable,
}

/// A database of one of the kinds that are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// `[source.NAME.postgres]`.
    Postgres(postgres::Options),
    /// `[source.NAME.mysql]`: MySQL or MariaDB.
    MySql(mysql::Options),
    /// `[source.NAME.mongodb]`.
    Mongodb(mongodb::Options),
}

impl Database {
    /// Its kind, as it is written in the file.
    pub fn kind(&self) -> &'static str {
        let [postgres, mysql, mongodb] = KINDS;
        match self {
            Self::Postgres(_) => postgres,
            Self::MySql(_) => mysql,
            Self::Mongodb(_) => mongodb,
        }
    }

    /// What stays in the database when nobody reads it any more, and what removes that.
    pub fn left_behind(&self) -> Option<(String, String)> {
        match self {
            Self::Postgres(options) => Some((
                format!("the slot {} stays in the database and holds its log", options.slot),
                format!("SELECT pg_drop_replication_slot('{}')", options.slot),
            )),
            // Their logs are kept for as long as they are set to, whoever reads.
            Self::MySql(_) | Self::Mongodb(_) => None,
        }
    }
}

/// Runs an expression on the opened [`Source`](lakeward_connectors::Source) of a [`Database`],
/// whatever its kind: `with_source!(database, source => expression)`, which is a `Result` of that
/// expression's value, or the error of opening it.
#[macro_export]
macro_rules! with_source {
    ($database:expr, $source:ident => $body:expr) => {
        match $database {
            $crate::config::Database::Postgres(options) => {
                match lakeward_connectors::postgres::Postgres::new(options.clone()) {
                    #[allow(unused_mut, reason = "not every expression changes its source")]
                    Ok(mut $source) => Ok($body),
                    Err(error) => Err(error),
                }
            }
            $crate::config::Database::MySql(options) => {
                match lakeward_connectors::mysql::MySql::new(options.clone()) {
                    #[allow(unused_mut, reason = "not every expression changes its source")]
                    Ok(mut $source) => Ok($body),
                    Err(error) => Err(error),
                }
            }
            $crate::config::Database::Mongodb(options) => {
                match lakeward_connectors::mongodb::Mongodb::new(options.clone()) {
                    #[allow(unused_mut, reason = "not every expression changes its source")]
                    Ok(mut $source) => Ok($body),
                    Err(error) => Err(error),
                }
            }
        }
    };
}

/// Evaluates an expression in which a name stands for the type of a [`Database`]'s positions:
/// `with_position!(database, P => expression)`. For what is read from the lake alone.
#[macro_export]
macro_rules! with_position {
    ($database:expr, $position:ident => $body:expr) => {
        match $database {
            $crate::config::Database::Postgres(_) => {
                type $position = lakeward_connectors::postgres::position::Lsn;
                $body
            }
            $crate::config::Database::MySql(_) => {
                type $position = lakeward_connectors::mysql::position::Place;
                $body
            }
            $crate::config::Database::Mongodb(_) => {
                type $position = lakeward_connectors::mongodb::position::Position;
                $body
            }
        }
    };
}

/// Whether a text is a position of that kind of database, or why it isn't.
pub(super) fn is_position(kind: &str, text: &str) -> Result<(), String> {
    let text = text.to_owned();
    match kind {
        "postgres" => postgres::position::Lsn::try_from(text).map(drop).map_err(|e| e.to_string()),
        "mysql" => mysql::position::Place::try_from(text).map(drop),
        _ => mongodb::position::Position::try_from(text).map(drop).map_err(|e| e.to_string()),
    }
}

/// What verifications read a second, unless the configuration says otherwise.
const VERIFY_RATE: u64 = 16 << 20;

/// The kinds of databases as they are written in the file.
const KINDS: [&str; 3] = ["postgres", "mysql", "mongodb"];

/// The section of a source that names its database.
pub(super) struct Section<'a, 'd> {
    /// The source's name.
    pub source: &'a str,
    /// `postgres`, …
    pub kind: &'static str,
    /// Where the source's name stands.
    pub at: usize,
    pub table: &'a DeTable<'d>,
}

impl Section<'_, '_> {
    /// `[source.NAME.kind]`.
    pub(super) fn place(&self) -> String {
        format!("[source.{}.{}]", self.source, self.kind)
    }

    /// `source.NAME.kind.key`.
    pub(super) fn key(&self, key: &str) -> String {
        format!("source.{}.{}.{key}", self.source, self.kind)
    }

    /// The name, as databases let names of objects be.
    pub(super) fn default_name(&self) -> String {
        format!("lakeward_{}", self.source.replace('-', "_"))
    }
}

impl Reader<'_> {
    pub(super) fn sources(&mut self, root: &DeTable<'_>) -> BTreeMap<String, SourceConfig> {
        let mut sources = BTreeMap::new();
        let Some(item) = root.get("source") else {
            let message = "there is no source; add [source.NAME.postgres], [source.NAME.mysql] or \
                           [source.NAME.mongodb] with url and tables";
            self.fault(0, message);
            return sources;
        };
        let Some(table) = self.table("source.NAME.postgres", item) else { return sources };
        for (name, item) in table {
            let at = name.span().start;
            let name = name.get_ref().to_string();
            if !is_source_name(&name) {
                let message = format!(
                    "source name '{name}': use a-z, 0-9, _ and -, starting with a letter, at most 40"
                );
                self.fault(at, message);
            }
            let Some(of) = self.table(&format!("source.{name}"), item) else { continue };
            if let Some(source) = self.source(&name, at, of) {
                sources.insert(name, source);
            }
        }
        sources
    }

    fn source(&mut self, name: &str, at: usize, of: &DeTable<'_>) -> Option<SourceConfig> {
        let own = [
            "table",
            "schema_changes",
            "dropped_columns",
            "dropped_tables",
            "verify_every",
            "verify_rate",
        ];
        let known: Vec<&str> = KINDS.iter().copied().chain(own).collect();
        self.only(&format!("[source.{name}]"), of, &known);
        let named: Vec<_> = KINDS.into_iter().filter(|kind| of.contains_key(*kind)).collect();
        let kind = match *named {
            [kind] => kind,
            [] => {
                let message = format!(
                    "source {name} has no database; add [source.{name}.postgres], \
                     [source.{name}.mysql] or [source.{name}.mongodb]"
                );
                self.fault(at, message);
                return None;
            }
            _ => {
                let both = named.join(" and ");
                self.fault(at, format!("source {name} is {both}: give each a source of its own"));
                return None;
            }
        };
        let table = self.table(&format!("source.{name}.{kind}"), of.get(kind)?)?;
        let per_table = self.tables(name, kind, of);
        let section = Section { source: name, kind, at, table };
        let snapshot_connections = self.snapshot_connections(&section);
        let database = match kind {
            "postgres" => {
                let text_columns = per_table.text_columns.clone();
                self.postgres(&section, text_columns).map(Database::Postgres)
            }
            "mysql" => self.mysql(&section, per_table.text_columns.clone()).map(Database::MySql),
            _ => self.mongodb(&section, &per_table).map(Database::Mongodb),
        };
        let (verify_rate, verify_every) = self.verification(name, of);
        let dropped_tables = self.dropped_tables(name, of);
        Some(SourceConfig {
            database: database?,
            snapshot_connections,
            verify_rate,
            verify_every,
            dropped_tables,
            per_table,
        })
    }

    fn dropped_tables(&mut self, name: &str, of: &DeTable<'_>) -> DroppedTables {
        let Some(item) = of.get("dropped_tables") else { return DroppedTables::default() };
        let key = format!("source.{name}.dropped_tables");
        let wanted = "\"keep\", \"follow\" or \"stop\"";
        self.parsed(&key, item, wanted, DroppedTables::parse).unwrap_or_default()
    }

    /// How fast, and how often, lake and source are compared.
    fn verification(&mut self, name: &str, of: &DeTable<'_>) -> (u64, Option<Duration>) {
        let every = of.get("verify_every").and_then(|item| {
            let key = format!("source.{name}.verify_every");
            self.parsed(&key, item, "a time like \"24h\"", duration)
        });
        let rate = of.get("verify_rate").and_then(|item| {
            let key = format!("source.{name}.verify_rate");
            let positive = |text: &str| size(text).filter(|bytes| *bytes > 0);
            self.parsed(&key, item, "the bytes of a second, like \"16MiB\"", positive)
        });
        (rate.map_or(VERIFY_RATE, |rate| rate as u64), every)
    }

    fn snapshot_connections(&mut self, section: &Section<'_, '_>) -> usize {
        let Some(item) = section.table.get("snapshot_connections") else { return 2 };
        let number = item.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
        number.filter(|n| (1..=32).contains(n)).unwrap_or_else(|| {
            let key = section.key("snapshot_connections");
            self.fault(item.span().start, format!("{key} is a number from 1 to 32"));
            2
        })
    }

    /// The url, which may hold a secret.
    pub(super) fn url(
        &mut self,
        section: &Section<'_, '_>,
        example: &str,
    ) -> Option<lakeward_connectors::secret::Secret> {
        match section.table.get("url") {
            Some(item) => self.secret(&section.key("url"), item),
            None => {
                let message = format!("{} has no url; write url = \"{example}\"", section.place());
                self.fault(section.at, message);
                None
            }
        }
    }

    /// Patterns of tables.
    pub(super) fn filter(
        &mut self,
        section: &Section<'_, '_>,
        example: &str,
    ) -> Option<Vec<String>> {
        let (place, key) = (section.place(), section.key("tables"));
        let Some(item) = section.table.get("tables") else {
            let message = format!("{place} has no tables; write tables = [\"{example}\"]");
            self.fault(section.at, message);
            return None;
        };
        let patterns = self.texts(&key, item);
        let mut sound = !patterns.is_empty();
        if !sound {
            let message = format!("{key} is empty; write tables = [\"{example}\"]");
            self.fault(item.span().start, message);
        }
        for (at, pattern) in &patterns {
            if let Err(error) = TableFilter::parse(&[pattern]) {
                self.fault(*at, format!("{key}: {error}"));
                sound = false;
            }
        }
        sound.then(|| patterns.into_iter().map(|(_, pattern)| pattern).collect())
    }
}

fn is_source_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 40
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}
