//! Tables that are dropped, and made again, while a daemon follows them and while none does.

use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};

use crate::support::compare::{self, Allow};
use crate::support::daemon::{Daemon, Setup, Source, source_name};
use crate::support::database::{Database, Session};
use crate::support::jobs::{Job, Slots};
use crate::support::postgres::block_on;
use crate::support::reader;
use crate::support::scene::{CURRENT, Test, check, has_not, trials};
use crate::support::{Res, Server, Store, long, tag, until};

const TESTS: &[Test] = &[("keep", keep), ("follow", follow), ("stop", stop)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers: &[Server] = match long() {
        true => &[Server::Pg15, Server::Pg18, Server::MySql, Server::MariaDb],
        false => &[Server::Pg18, Server::MySql, Server::MariaDb],
    };
    let mut jobs = trials("behavior::dropped", TESTS, servers, select);
    jobs.extend(trials("behavior::dropped", &[("keep", collections)], &[Server::Mongo], select));
    jobs
}

/// The last row before each drop tells whether what came just before it is in the lake.
const LIVES: [&[&str]; 3] = [
    &[
        "create table t(id int primary key, v varchar(9))",
        "insert into t values (1, 'a'), (2, 'b')",
    ],
    &["create table t(id int primary key, w int)", "insert into t values (7, 70)"],
    &["create table t(id int primary key, v varchar(9))", "insert into t values (4, 'd')"],
];

struct Dropped {
    db: Database,
    session: Session,
    setup: Setup,
    source: String,
    _slots: Slots,
}

impl Dropped {
    fn new(server: Server, policy: &str) -> Res<Dropped> {
        let slots = Slots::take(server, 1);
        let label = format!("dropped_{policy}");
        let db = Database::create(server, &label, "")?;
        let session = db.session()?;
        let mut source = Source::new(&source_name(server, &label), db.url());
        source.tables = vec![format!("{}.*", db.schema("public"))];
        source.policy = format!("dropped_tables = \"{policy}\"");
        let name = source.name.clone();
        let setup = Setup::new(Store::Local, &name, vec![source])?;
        let scene = Dropped { db, session, setup, source: name, _slots: slots };
        scene.run("create table stays(id int primary key)")?;
        scene.live(0)?;
        Ok(scene)
    }

    fn run(&self, sql: &str) -> Res<()> {
        self.session.exec(sql)
    }

    fn live(&self, number: usize) -> Res<()> {
        LIVES[number].iter().try_for_each(|sql| self.run(sql))
    }

    fn drop_after(&self, last: &str) -> Res<()> {
        self.run(last)?;
        self.run("drop table t")
    }

    fn state(&self) -> Res<(String, String)> {
        let status = self.setup.status()?;
        let table = status.table(&self.source, self.db.schema("public"), "t");
        Ok(table.map(|t| (t.state.clone(), t.reason.clone())).unwrap_or_default())
    }

    fn becomes(&self, daemon: &mut Daemon, state: &str) -> Res<()> {
        let mut last = Default::default();
        until(state, CURRENT, Duration::from_millis(150), || {
            check(daemon.poll()?.is_none(), || "the daemon ended".to_owned())?;
            last = self.state()?;
            Ok((last.0 == state).then_some(()))
        })
        .map_err(|error| format!("{error}: {last:?}\n{}", self.setup.tail()))
    }

    fn is(&self, state: &str) -> Res<()> {
        let now = self.state()?;
        check(now.0 == state, || format!("{state}: {now:?}\n{}", self.setup.tail()))
    }

    fn ids(&self) -> Res<Vec<i64>> {
        let url = self.setup.lake.table_url(&self.source, self.db.schema("public"), "t");
        let lake = reader::read(&url)?.ok_or("not in the lake")?;
        let at = lake.columns.iter().position(|column| column == "id").ok_or("no id")?;
        let mut ids: Vec<i64> =
            lake.rows.iter().filter_map(|row| row[at].as_deref()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn has(&self, ids: &[i64]) -> Res<()> {
        let found = self.ids()?;
        check(found == ids, || format!("{found:?} for {ids:?}\n{}", self.setup.tail()))
    }

    fn equal(&self) -> Res<()> {
        let url = self.setup.lake.table_url(&self.source, self.db.schema("public"), "t");
        let lake = reader::read(&url)?.ok_or("not in the lake")?;
        let source = self.db.source_rows("public", "t")?;
        compare::equal_rows(&source, self.db.settled(lake), &Allow::default())
    }

    fn follows(&self, daemon: &mut Daemon) -> Res<()> {
        let mut last = String::new();
        until("the table follows", CURRENT, Duration::from_millis(150), || {
            check(daemon.poll()?.is_none(), || "the daemon ended".to_owned())?;
            last = self.equal().err().unwrap_or_default();
            Ok(last.is_empty().then_some(()))
        })
        .map_err(|error| format!("{error}\n{last}\n{}", self.setup.tail()))
    }
}

/// Three lives of a table: dropped while it is followed, with the daemon killed soon after, and while
/// none runs. `rests`: the rows that stay of the first and of the second.
fn lives(server: Server, policy: &str, rests: [&[i64]; 2]) -> Res<()> {
    let scene = Dropped::new(server, policy)?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.has(&[1, 2])?;
    scene.drop_after("insert into t values (3, 'c')")?;
    scene.becomes(&mut daemon, "dropped")?;
    scene.has(rests[0])?;
    daemon.kill()?;
    scene.setup.forget_state()?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.is("dropped")?;
    scene.has(rests[0])?;

    scene.live(1)?;
    scene.follows(&mut daemon)?;
    daemon.stop(&scene.setup)?;
    scene.drop_after("insert into t values (8, 80)")?;
    scene.setup.run_until_current(CURRENT)?;
    scene.is("dropped")?;
    scene.has(rests[1])?;

    scene.live(2)?;
    scene.setup.run_until_current(CURRENT)?;
    scene.equal()
}

fn keep(server: Server) -> Res<()> {
    lives(server, "keep", [&[1, 2, 3], &[7, 8]])
}

fn follow(server: Server) -> Res<()> {
    lives(server, "follow", [&[], &[]])
}

/// Neither a restart nor another table of its name changes the rows of a table that was dropped.
fn stop(server: Server) -> Res<()> {
    let scene = Dropped::new(server, "stop")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    // Made again before anybody looks.
    scene.drop_after("insert into t values (3, 'c')")?;
    scene.live(1)?;
    scene.becomes(&mut daemon, "stopped")?;
    daemon.kill()?;
    scene.setup.forget_state()?;
    let mut daemon = scene.setup.start()?;
    scene.run("insert into t values (9, 90)")?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.is("stopped")?;
    let left = scene.ids()?;
    check(left.starts_with(&[1, 2]) && !left.contains(&7), || format!("{left:?}"))?;

    let table = format!("{}.t", scene.db.schema("public"));
    let answer = scene.setup.command(&["snapshot", &scene.source, &table])?;
    check(answer.code == Some(0), || answer.all())?;
    scene.follows(&mut daemon)?;
    daemon.stop(&scene.setup)
}

/// MongoDB: a collection that is dropped keeps its documents in the lake; one that is made again at
/// once begins without them, and is not read again.
fn collections(server: Server) -> Res<()> {
    let (url, name) = (server.url()?, format!("{}_dropped", tag()));
    let db = block_on(async {
        let db = Client::with_uri_str(&url).await?.database(&name);
        db.drop().await?;
        for id in 1..=2 {
            db.collection("t").insert_one(doc! { "_id": id }).await?;
            db.collection("again").insert_one(doc! { "_id": id }).await?;
        }
        Ok::<_, ::mongodb::error::Error>(db)
    });
    let db = db.map_err(|e| format!("making the collections: {e}"))?;
    let source = Source::mongodb(&source_name(server, "dropped"), &url, &name);
    let setup = Setup::new(Store::Local, &source.name.clone(), vec![source])?;
    let source = &setup.sources[0].name;
    let mut daemon = setup.start()?;
    setup.wait_settled(&mut daemon, CURRENT)?;
    let changed = block_on(async {
        db.collection("t").insert_one(doc! { "_id": 3 }).await?;
        db.collection::<Document>("t").drop().await
    });
    changed.map_err(|e| format!("dropping: {e}"))?;
    until("dropped", CURRENT, Duration::from_millis(150), || {
        check(daemon.poll()?.is_none(), || "the daemon ended".to_owned())?;
        let status = setup.status()?;
        let table = status.table(source, &name, "t");
        Ok(table.is_some_and(|t| t.state == "dropped").then_some(()))
    })
    .map_err(|e| format!("{e}\n{}", setup.tail()))?;
    daemon.stop(&setup)?;
    // Both are in the log when it is read: a daemon that is faster reads the new collection's documents.
    let changed = block_on(async {
        db.collection::<Document>("again").drop().await?;
        db.collection("again").insert_one(doc! { "_id": 7 }).await
    });
    changed.map_err(|e| format!("making it again: {e}"))?;
    setup.run_until_current(CURRENT)?;
    let ids = |table: &str| {
        let url = setup.lake.table_url(source, &name, table);
        let lake = reader::read(&url)?.ok_or("not in the lake")?;
        let at = lake.columns.iter().position(|column| column == "_id").ok_or("no _id")?;
        let mut ids: Vec<_> = lake.rows.iter().map(|row| row[at].clone()).collect();
        ids.sort();
        Ok::<_, String>(ids.into_iter().flatten().collect::<Vec<_>>().join(" "))
    };
    let found = [ids("t")?, ids("again")?];
    check(found == ["1 2 3", "7"], || format!("{found:?}\n{}", setup.tail()))?;
    has_not(&setup.log_text()?, "reading the table again")?;
    block_on(async { db.drop().await }).map_err(|e| format!("dropping the database: {e}"))
}
