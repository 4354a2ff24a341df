//! The configuration changes while the daemon runs; a table is read again because somebody asks.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::compare::{self, Allow};
use crate::support::daemon::{Daemon, Setup, Source, source_name};
use crate::support::jobs::{Job, Slots};
use crate::support::postgres::Database;
use crate::support::scene::{CURRENT, Scene, Test, check, has, trials};
use crate::support::{Context, Res, Server, Store, long, until};

const TESTS: &[Test] =
    &[("sources_come_change_and_go", sources), ("a_table_is_read_again", snapshot)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers: &[Server] = if long() { &Server::POSTGRES } else { &[Server::Pg15] };
    trials("behavior::reload", TESTS, servers, select)
}

const TABLES: &str = "create table t(id int primary key, v int); \
                      insert into t select g, 0 from generate_series(1, 200) g; \
                      create table u(id int primary key); insert into u values (1), (2)";

/// Databases, each of which is a source of its own.
struct Databases {
    all: Vec<Database>,
    sources: Vec<Source>,
    _slots: Slots,
}

impl Databases {
    fn new(server: Server, names: &[&str]) -> Res<Self> {
        let slots = Slots::take(server, names.len());
        let (mut all, mut sources) = (Vec::new(), Vec::new());
        for name in names {
            let database = Database::create(server, &format!("reload_{name}"), "")?;
            database.connect()?.exec(TABLES)?;
            sources
                .push(Source::new(&source_name(server, &format!("reload_{name}")), &database.url));
            all.push(database);
        }
        Ok(Self { all, sources, _slots: slots })
    }
}

/// Changes rows of a database until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    works: JoinHandle<Res<()>>,
}

impl Load {
    fn start(database: &Database) -> Res<Self> {
        let (pg, stop) = (database.connect()?, Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let works = std::thread::spawn(move || -> Res<()> {
            while !told.load(Ordering::Relaxed) {
                pg.exec("update t set v = v + 1 where id % 7 = 0")?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        Ok(Self { stop, works })
    }

    fn end(self) -> Res<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.works.join().map_err(|_| "the load panicked")?
    }
}

/// Waits until the daemon has said something so many times.
fn says(setup: &Setup, daemon: &mut Daemon, what: &str, times: usize) -> Res<()> {
    until(what, CURRENT, Duration::from_millis(50), || {
        check(daemon.poll()?.is_none(), || format!("the daemon ended\n{}", setup.tail()))?;
        let said = setup.log_text()?.matches(what).count();
        Ok((said >= times).then_some(()))
    })
    .map_err(|error| format!("{error}\n{}", setup.tail()))
}

/// The longest time between two flushes of a source, in milliseconds.
fn longest_gap(setup: &Setup, source: &str) -> Res<i64> {
    let folder = ["_lakeward", source, "epochs"];
    let mut written = Vec::new();
    for name in setup.lake.names(&folder)? {
        let bytes = setup.lake.read(&["_lakeward", source, "epochs", &name])?;
        let epoch: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        written.extend(epoch["written_ms"].as_i64());
    }
    written.sort_unstable();
    Ok(written.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
}

/// A third source comes, changes and goes, and a faulty file comes between: the two others are
/// followed without a pause.
fn sources(server: Server) -> Res<()> {
    let databases = Databases::new(server, &["a", "b", "c"])?;
    let [a, b, c] = &databases.sources[..] else { return Err("three sources".to_owned()) };
    let mut setup = Setup::new(Store::Local, &a.name, vec![a.clone(), b.clone()])?;
    let mut daemon = setup.start()?;
    setup.wait_settled(&mut daemon, CURRENT)?;
    let loads = [Load::start(&databases.all[0])?, Load::start(&databases.all[1])?];

    let good = fs::read_to_string(setup.config()).context("the configuration")?;
    fs::write(setup.config(), good.replace("tables =", "tabels =")).context("a faulty file")?;
    says(&setup, &mut daemon, "everything goes on as it was", 1)?;
    has(&setup.log_text()?, "did you mean `tables`?")?;

    setup.sources.push(c.clone());
    setup.write_config()?;
    says(&setup, &mut daemon, "source added", 1)?;
    setup.wait_settled(&mut daemon, CURRENT)?;
    let table = |setup: &Setup, name: &str| -> Res<Option<String>> {
        let found = setup.status()?;
        Ok(found.table(&c.name, "public", name).map(|table| table.state.clone()))
    };
    check(table(&setup, "u")?.as_deref() == Some("live"), || setup.tail())?;

    setup.sources[2].tables.push("!public.u".to_owned());
    setup.write_config()?;
    says(&setup, &mut daemon, "source changed", 1)?;
    until("u is stopped", CURRENT, Duration::from_millis(100), || {
        Ok((table(&setup, "u")?.as_deref() == Some("stopped")).then_some(()))
    })
    .map_err(|error| format!("{error}\n{}", setup.tail()))?;
    check(table(&setup, "t")?.as_deref() == Some("live"), || setup.tail())?;

    setup.sources.pop();
    setup.write_config()?;
    says(&setup, &mut daemon, "source removed", 1)?;
    says(&setup, &mut daemon, "stays in the database and holds its log", 1)?;
    has(&setup.log_text()?, &format!("pg_drop_replication_slot('{}')", c.slot()))?;

    loads.into_iter().try_for_each(Load::end)?;
    for source in [a, b] {
        let gap = longest_gap(&setup, &source.name)?;
        eprintln!("{}: flushed every 200 ms, {gap} ms apart at most", source.name);
        let log = setup.log_text()?;
        let begun = log
            .lines()
            .filter(|line| line.contains("following"))
            .filter(|line| line.contains(&format!("source=\"{}\"", source.name)));
        check(begun.count() == 1, || format!("{} was disturbed\n{log}", source.name))?;
    }
    daemon.stop(&setup)?;
    setup.run_until_current(CURRENT)?;
    for (database, source) in databases.all.iter().zip([a, b]) {
        let url = setup.lake.table_url(&source.name, "public", "t");
        compare::equal(&database.connect()?, "public", "t", &url, &Allow::default())?;
    }
    // What is left is as it was.
    let url = setup.lake.table_url(&c.name, "public", "t");
    compare::equal(&databases.all[2].connect()?, "public", "t", &url, &Allow::default())
}

/// A table that stopped comes back without a restart; one that is read already is not begun again.
fn snapshot(server: Server) -> Res<()> {
    let sql = "create table t(id int primary key, v timestamp); \
               insert into t select g, '2020-01-01' from generate_series(1, 100) g";
    let scene = Scene::new(server, Store::Local, "read_again", sql)?;
    let answer = scene.setup.command(&["snapshot", &scene.source, "public.t"])?;
    check(answer.code == Some(1), || answer.all())?;
    has(&answer.stderr, "start it with lakeward run")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;

    scene.pg.exec("insert into t values (200, '294276-12-31')")?;
    let stopped = || Ok((scene.state("t")?.0 == "stopped").then_some(()));
    until("it stops", CURRENT, Duration::from_millis(100), stopped)?;
    scene.pg.exec("delete from t where id = 200")?;
    for _ in 0..2 {
        let answer = scene.setup.command(&["snapshot", &scene.source, "public.t", "--json"])?;
        check(answer.code == Some(0), || answer.all())?;
    }
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    until("it is live", CURRENT, Duration::from_millis(100), || {
        Ok((scene.state("t")?.0 == "live").then_some(()))
    })?;
    scene.pg.exec("insert into t values (300, '2021-01-01')")?;
    for (table, why) in [("public.none", "no such table"), ("none", "schema.name")] {
        let answer = scene.setup.command(&["snapshot", &scene.source, table])?;
        check(answer.code == Some(2), || answer.all())?;
        has(&answer.stderr, why)?;
    }
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.equal("t")
}
