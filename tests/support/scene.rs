//! One database, one source, one daemon: what a test with its own plot needs.

use std::time::Duration;

use super::compare::{self, Allow};
use super::daemon::{Setup, Source, source_name};
use super::jobs::{Job, Slots};
use super::postgres::{Database, Pg};
use super::{Res, Server, Store};

/// A line of a table's section.
pub const DELETION_VECTORS: &str = "merge = \"deletion-vectors\"";

pub const CURRENT: Duration = Duration::from_secs(90);

pub struct Scene {
    pub db: Database,
    pub pg: Pg,
    pub setup: Setup,
    pub source: String,
    // Given back last, when the slots of the database are gone.
    _slots: Slots,
}

impl Scene {
    /// A database made by `sql`, captured whole.
    pub fn new(server: Server, store: Store, label: &str, sql: &str) -> Res<Scene> {
        Scene::with(server, store, label, sql, &[])
    }

    /// The same, with lines of the sections of some of the tables.
    pub fn with(
        server: Server,
        store: Store,
        label: &str,
        sql: &str,
        settings: &[(&str, &str)],
    ) -> Res<Scene> {
        let slots = Slots::take(server, 1);
        let label = format!("{label}_{}", store.name());
        let db = Database::create(server, &label, "")?;
        let pg = db.connect()?;
        pg.exec(sql)?;
        let source = source_name(server, &label);
        let settings =
            settings.iter().map(|(table, line)| (format!("public.{table}"), (*line).to_owned()));
        let settings = settings.collect();
        let configured = Source { settings, ..Source::new(&source, &db.url) };
        let setup = Setup::new(store, &source, vec![configured])?;
        Ok(Scene { db, pg, setup, source, _slots: slots })
    }

    pub fn url(&self, table: &str) -> String {
        self.setup.lake.table_url(&self.source, "public", table)
    }

    pub fn equal(&self, table: &str) -> Res<()> {
        compare::equal(&self.pg, "public", table, &self.url(table), &Allow::default())
            .map_err(|e| format!("{e}\n{}", self.setup.tail()))
    }

    pub fn all_equal(&self, tables: &[&str]) -> Res<()> {
        tables.iter().try_for_each(|table| self.equal(table))
    }

    pub fn run_until_current(&self) -> Res<()> {
        self.setup.run_until_current(CURRENT)
    }

    /// The state and reason of a table as `status` shows them.
    pub fn state(&self, table: &str) -> Res<(String, String)> {
        let status = self.setup.status()?;
        let found = status.table(&self.source, "public", table);
        let found = found.ok_or(format!("status doesn't name {table}:\n{}", status.lines()))?;
        Ok((found.state.clone(), found.reason.clone()))
    }
}

pub fn has(text: &str, part: &str) -> Res<()> {
    if text.to_lowercase().contains(&part.to_lowercase()) {
        return Ok(());
    }
    Err(format!("should say {part:?}, but says:\n{}", super::tail(text, 40)))
}

pub fn has_not(text: &str, part: &str) -> Res<()> {
    match text.find(part) {
        None => Ok(()),
        Some(_) => Err(format!("must not say {part:?}, but says:\n{}", super::tail(text, 40))),
    }
}

pub fn check(what: bool, otherwise: impl FnOnce() -> String) -> Res<()> {
    if what { Ok(()) } else { Err(otherwise()) }
}

/// A test by name that runs on a server.
pub type Test = (&'static str, fn(Server) -> Res<()>);

/// Trials of one kind: `prefix::name` for each function that is selected.
pub fn trials(
    prefix: &str,
    tests: &[Test],
    servers: &[Server],
    select: &dyn Fn(&str) -> bool,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &server in servers {
        for &(name, test) in tests {
            let name = format!("{prefix}::{}::{name}", server.name());
            if select(&name) {
                jobs.push(Job::single(name, move || test(server)));
            }
        }
    }
    jobs
}
