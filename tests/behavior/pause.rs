//! A table is paused and resumed: meanwhile its rows in the lake rest, and nothing is lost.

use std::time::Duration;

use crate::support::compare::{self, Allow};
use crate::support::daemon::{Daemon, Setup, Source, source_name};
use crate::support::database::{Database, Session};
use crate::support::jobs::{Job, Slots};
use crate::support::reader;
use crate::support::scene::{CURRENT, Test, check, has, trials};
use crate::support::{Res, Server, Store, long, until};

const TESTS: &[Test] =
    &[("rests", mirror), ("rests_with_vectors", vectors), ("soft_delete_rests", soft_delete)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers: &[Server] = match long() {
        true => &[Server::Pg15, Server::Pg18, Server::MySql, Server::MariaDb],
        false => &[Server::Pg18, Server::MySql, Server::MariaDb],
    };
    trials("behavior::pause", TESTS, servers, select)
}

const TABLES: &[&str] = &[
    "create table t(id int primary key, v varchar(4000))",
    "insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
    "create table u(id int primary key)",
    "insert into u values (1)",
];

/// What happens to a paused table: before its daemon is killed, and after.
const FIRST: &[&str] = &[
    "insert into t values (4, 'd')",
    "update t set v = 'bb' where id = 2",
    "alter table t add column w int",
    "insert into t values (5, 'e', 55)",
    "update t set id = 50 where id = 5",
    "delete from t where id = 3",
];
const SECOND: &[&str] = &[
    "insert into t values (6, 'f', 6)",
    "update t set w = 1 where id = 1",
    "truncate table t",
    "insert into t values (7, 'g', 7)",
    "update t set v = 'gg' where id = 7",
];
/// Later: Postgres reads a table again that is emptied and changed between two looks at its catalog.
const THIRD: &[&str] =
    &["alter table t add column x varchar(10)", "insert into t values (8, 'h', 8, 'x')"];

struct Paused {
    db: Database,
    session: Session,
    setup: Setup,
    source: String,
    /// The rows that u has.
    marks: u32,
    _slots: Slots,
}

impl Paused {
    fn new(server: Server, label: &str, line: &str) -> Res<Paused> {
        let slots = Slots::take(server, 1);
        let label = format!("pause_{label}");
        let db = Database::create(server, &label, "")?;
        let session = db.session()?;
        TABLES.iter().try_for_each(|sql| session.exec(sql))?;
        let mut source = Source::new(&source_name(server, &label), db.url());
        let schema = db.schema("public");
        source.tables = vec![format!("{schema}.*")];
        source.settings = vec![(format!("{schema}.t"), line.to_owned())];
        let name = source.name.clone();
        let setup = Setup::new(Store::Local, &name, vec![source])?;
        Ok(Paused { db, session, setup, source: name, marks: 1, _slots: slots })
    }

    fn schema(&self) -> &str {
        self.db.schema("public")
    }

    fn equal(&self, table: &str) -> Res<()> {
        let url = self.setup.lake.table_url(&self.source, self.schema(), table);
        let lake = reader::read(&url)?.ok_or("not in the lake")?;
        let source = self.db.source_rows("public", table)?;
        compare::equal_rows(&source, self.db.settled(lake), &Allow::default())
    }

    fn follows(&self, daemon: &mut Daemon, table: &str) -> Res<()> {
        let mut last = String::new();
        until("the table follows", CURRENT, Duration::from_millis(150), || {
            check(daemon.poll()?.is_none(), || "the daemon ended".to_owned())?;
            last = self.equal(table).err().unwrap_or_default();
            Ok(last.is_empty().then_some(()))
        })
        .map_err(|error| format!("{table}: {error}\n{last}\n{}", self.setup.tail()))
    }

    /// Changes both tables, and waits until u has come to the lake.
    fn play(&mut self, daemon: &mut Daemon, statements: &[&str]) -> Res<()> {
        statements.iter().try_for_each(|sql| self.session.exec(sql))?;
        self.marks += 1;
        self.session.exec(&format!("insert into u values ({})", self.marks))?;
        self.follows(daemon, "u")
    }

    fn command(&self, command: &str) -> Res<(Option<i32>, String)> {
        let table = format!("{}.t", self.schema());
        let answer = self.setup.command(&[command, &self.source, &table])?;
        Ok((answer.code, answer.all()))
    }

    fn told(&self, command: &str) -> Res<()> {
        let (code, said) = self.command(command)?;
        check(code == Some(0), || format!("{command}: {code:?} {said}\n{}", self.setup.tail()))
    }

    /// The paused table is at `version`, and says that it is paused.
    fn rests_at(&self, version: u64) -> Res<()> {
        let now = self.version()?;
        check(now == version, || format!("paused at version {version}, and now it is {now}"))?;
        let status = self.setup.status()?;
        let state = status.table(&self.source, self.schema(), "t").map(|t| t.state.clone());
        check(state.as_deref() == Some("paused"), || status.lines())
    }

    fn version(&self) -> Res<u64> {
        self.setup.lake.newest(&[&self.source, self.schema(), "t", "_delta_log"])
    }
}

fn rests(server: Server, label: &str, line: &str, is_mirror: bool) -> Res<()> {
    let mut scene = Paused::new(server, label, line)?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.play(&mut daemon, &["update t set v = 'aa' where id = 1"])?;
    scene.told("pause")?;
    let version = scene.version()?;
    scene.play(&mut daemon, FIRST)?;
    scene.told("pause")?;
    scene.rests_at(version)?;

    daemon.kill()?;
    scene.setup.forget_state()?;
    let mut daemon = scene.setup.start()?;
    scene.play(&mut daemon, SECOND)?;
    scene.rests_at(version)?;
    daemon.stop(&scene.setup)?;
    scene.setup.run_until_current(CURRENT)?;
    scene.rests_at(version)?;

    let mut daemon = scene.setup.start()?;
    scene.play(&mut daemon, THIRD)?;
    scene.rests_at(version)?;
    scene.told("resume")?;
    scene.told("resume")?;
    match is_mirror {
        true => scene.follows(&mut daemon, "t")?,
        false => kept(&scene, &mut daemon)?,
    }
    scene.play(&mut daemon, &["insert into t values (9, 'i', 9, 'y')"])?;
    let state = scene.setup.status()?;
    let live = state.table(&scene.source, scene.schema(), "t").is_some_and(|t| t.state == "live");
    check(live, || state.lines())?;
    let answer = scene.setup.command(&["pause", &scene.source, "public.nowhere"])?;
    check(answer.code == Some(2), || answer.all())?;
    has(&answer.stderr, "no such table")?;
    daemon.stop(&scene.setup)
}

/// The rows that were deleted, or emptied with the table, are there, and marked.
fn kept(scene: &Paused, daemon: &mut Daemon) -> Res<()> {
    let url = scene.setup.lake.table_url(&scene.source, scene.schema(), "t");
    let mut last = String::new();
    until("marked rows", CURRENT, Duration::from_millis(150), || {
        check(daemon.poll()?.is_none(), || "the daemon ended".to_owned())?;
        let lake = reader::read(&url)?.ok_or("not in the lake")?;
        let at = |name: &str| lake.columns.iter().position(|column| column == name);
        let (id, mark) = at("id").zip(at("_deleted")).ok_or("no such column")?;
        let rows = lake.rows.iter().map(|row| (row[id].clone(), row[mark].clone()));
        let mut rows: Vec<_> = rows
            .map(|(id, mark)| format!("{}{}", id.unwrap_or_default(), mark.unwrap_or_default()))
            .collect();
        rows.sort();
        last = rows.join(" ");
        Ok((last == "1t 2t 3t 4t 50t 5t 6t 7f 8f").then_some(()))
    })
    .map_err(|error| format!("{error}: {last}\n{}", scene.setup.tail()))
}

fn mirror(server: Server) -> Res<()> {
    rests(server, "mirror", "merge = \"rewrite\"", true)
}

fn vectors(server: Server) -> Res<()> {
    rests(server, "vectors", "merge = \"deletion-vectors\"", true)
}

fn soft_delete(server: Server) -> Res<()> {
    rests(server, "soft", "mode = \"soft-delete\"", false)
}
