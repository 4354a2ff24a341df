//! What goes wrong around a daemon: each fault is said clearly, nothing is lost, and the
//! other tables go on.

use std::time::Duration;

use crate::support::daemon::Setup;
use crate::support::jobs::Job;
use crate::support::scene::{CURRENT, Scene, Test, check, has, has_not, trials};
use crate::support::{Context, Res, Server, Store, long, until};

const TESTS: &[Test] = &[
    ("wrong_password", wrong_password),
    ("wrong_host", wrong_host),
    ("slot_dropped", slot_dropped),
    ("slot_advanced", slot_advanced),
    ("publication_dropped", publication_dropped),
    ("publication_without_a_table", publication_without_a_table),
    ("slot_waits_for_a_prepared_transaction", slot_waits),
    ("value_that_does_not_fit", value_that_does_not_fit),
    ("store_read_only", store_read_only),
    ("connection_killed", connection_killed),
    ("state_directory_deleted", state_directory_deleted),
    ("two_daemons", two_daemons),
    ("writer_holds_a_lock", writer_holds_a_lock),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers: &[Server] = if long() { &Server::POSTGRES } else { &[Server::Pg15] };
    trials("behavior::faults", TESTS, servers, select)
}

const TABLES: &str = "create table t(id int primary key, v text); \
    insert into t select g, 'v' || g from generate_series(1, 200) g; \
    create table u(id int primary key, v text); insert into u values (1, 'a')";

fn scene(server: Server, label: &str) -> Res<Scene> {
    Scene::new(server, Store::Local, label, TABLES)
}

/// Runs the daemon until its log says `word`; it must not end well before.
fn says(setup: &Setup, word: &str) -> Res<()> {
    let mut daemon = setup.start()?;
    until(&format!("the log saying {word:?}"), Duration::from_secs(30), TICK, || {
        if let Some(status) = daemon.poll()?
            && status.success()
        {
            return Err(format!("ended well in spite of the fault\n{}", setup.tail()));
        }
        let said = setup.log_text()?.to_lowercase().contains(&word.to_lowercase());
        Ok(said.then_some(()))
    })
    .map_err(|e| format!("{e}\n{}", setup.tail()))?;
    daemon.kill()
}

const TICK: Duration = Duration::from_millis(100);

fn wrong_password(server: Server) -> Res<()> {
    let mut scene = scene(server, "wrong_password")?;
    let mut url = url::Url::parse(&scene.db.url).context("the server's URL")?;
    url.set_password(Some("not-the-password")).map_err(|()| "the URL takes no password")?;
    scene.setup.sources[0].url = url.into();
    scene.setup.write_config()?;
    let answer = scene.setup.command(&["check", "--json"])?;
    check(answer.code != Some(0), || "check found nothing wrong".to_owned())?;
    has(&answer.all(), "password authentication failed")?;
    says(&scene.setup, "password authentication failed")?;
    has_not(&answer.all(), "not-the-password")?;
    has_not(&scene.setup.log_text()?, "not-the-password")
}

fn wrong_host(server: Server) -> Res<()> {
    let mut scene = scene(server, "wrong_host")?;
    let mut url = url::Url::parse(&scene.db.url).context("the server's URL")?;
    url.set_port(Some(1)).map_err(|()| "the URL takes no port")?;
    scene.setup.sources[0].url = url.into();
    scene.setup.write_config()?;
    let answer = scene.setup.command(&["check", "--json"])?;
    check(answer.code != Some(0), || "check found nothing wrong".to_owned())?;
    has(&answer.all(), "refused")?;
    says(&scene.setup, "refused")
}

/// The log's place is lost while rows change: the tables go to `gap`, and come back equal, without
/// the rows that vanished meanwhile.
fn slot_dropped(server: Server) -> Res<()> {
    let scene = scene(server, "slot_dropped")?;
    scene.run_until_current()?;
    let before = scene.setup.log_text()?.len();
    scene.pg.exec("delete from t where id > 100; update t set v = 'w' where id < 10")?;
    scene.db.drop_slot(&format!("lakeward_{}", scene.source))?;
    scene.pg.exec("insert into t values (1000, 'later')")?;
    scene.run_until_current()?;
    has(&scene.setup.log_text()?[before..], "gap")?;
    scene.all_equal(&["t", "u"])
}

/// Someone else read from the slot: it exists, and its next position is behind what is missing.
fn slot_advanced(server: Server) -> Res<()> {
    let scene = scene(server, "slot_advanced")?;
    scene.run_until_current()?;
    let before = scene.setup.log_text()?.len();
    scene.pg.exec("delete from t where id > 100; update t set v = 'w' where id < 10")?;
    let advance = format!(
        "select pg_replication_slot_advance('lakeward_{}', pg_current_wal_insert_lsn())",
        scene.source
    );
    // The server notices a moment later that the daemon is gone.
    until("the slot being free", Duration::from_secs(10), TICK, || {
        Ok(scene.pg.exec(&advance).ok())
    })?;
    scene.pg.exec("insert into t values (1000, 'later')")?;
    scene.run_until_current()?;
    has(&scene.setup.log_text()?[before..], "gap")?;
    scene.all_equal(&["t", "u"])
}

fn publication_dropped(server: Server) -> Res<()> {
    let scene = scene(server, "publication_dropped")?;
    scene.run_until_current()?;
    let names = scene.pg.rows("select pubname from pg_publication")?;
    for name in names.into_iter().flatten().flatten() {
        scene.pg.exec(&format!("drop publication \"{name}\""))?;
    }
    scene.pg.exec("delete from t where id > 100; update t set v = 'w' where id < 10")?;
    scene.run_until_current()?;
    scene.pg.exec("insert into t values (1000, 'later')")?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

/// A table taken out of the publication has a gap, whatever is done to repair it.
fn publication_without_a_table(server: Server) -> Res<()> {
    let scene = scene(server, "publication_without")?;
    scene.run_until_current()?;
    let name = scene.pg.text("select pubname from pg_publication")?.ok_or("no publication")?;
    scene.pg.exec(&format!("alter publication \"{name}\" drop table t"))?;
    scene.pg.exec("delete from t where id > 100; update t set v = 'w' where id < 10")?;
    scene.pg.exec("update u set v = 'b'")?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

/// A forgotten prepared transaction keeps a slot from being made: the daemon waits and says so.
fn slot_waits(server: Server) -> Res<()> {
    let scene = scene(server, "slot_waits")?;
    let gid = format!("held_{}", scene.db.name);
    scene.pg.exec("begin")?;
    scene.pg.exec("insert into t values (5000, 'prepared')")?;
    scene.pg.exec(&format!("prepare transaction '{gid}'"))?;
    let mut daemon = scene.setup.start()?;
    std::thread::sleep(Duration::from_secs(3));
    if let Some(status) = daemon.poll()? {
        return Err(format!("did not wait, ended with {status}\n{}", scene.setup.tail()));
    }
    scene.pg.exec(&format!("commit prepared '{gid}'"))?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

/// The reason names the column, the key and the value; the other table goes on.
fn value_that_does_not_fit(server: Server) -> Res<()> {
    let sql = format!(
        "{TABLES}; create table bad(id int primary key, at date, price numeric(10,2)); \
         insert into bad values (1, '2024-01-01', 1.50)"
    );
    let scene = Scene::new(server, Store::Local, "does_not_fit", &sql)?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.pg.exec("insert into bad values (4711, 'infinity', 2)")?;
    scene.pg.exec("insert into u values (2, 'goes on')")?;
    let (_, reason) = until("bad being stopped", Duration::from_secs(30), TICK, || {
        let (state, reason) = scene.state("bad")?;
        Ok((state == "stopped").then_some((state, reason)))
    })?;
    ["at", "4711", "infinity"].iter().try_for_each(|word| has(&reason, word))?;
    scene.pg.exec("insert into u values (3, 'still')")?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

/// The store refuses writes: the source stays unacknowledged, and nothing is lost.
fn store_read_only(server: Server) -> Res<()> {
    let mut scene = scene(server, "read_only")?;
    scene.run_until_current()?;
    scene.pg.exec("update t set v = 'w' where id < 50; delete from t where id > 150")?;
    let before = confirmed(&scene)?;
    let lake = scene.setup.root().join("lake").to_string_lossy().into_owned();
    let mount = format!(
        "mount --bind '{lake}' '{lake}' && mount -o remount,bind,ro '{lake}' && exec \"$@\""
    );
    let namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    scene.setup.wrapper = namespace.map(str::to_owned).to_vec();
    says(&scene.setup, "read-only")?;
    let after = confirmed(&scene)?;
    check(before == after, || format!("acknowledged {after:?} while nothing was durable"))?;
    scene.setup.wrapper.clear();
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

fn confirmed(scene: &Scene) -> Res<Option<String>> {
    scene.pg.text(&format!(
        "select confirmed_flush_lsn from pg_replication_slots where slot_name = 'lakeward_{}'",
        scene.source
    ))
}

/// The server ends our connections again and again: the daemon connects anew by itself.
fn connection_killed(server: Server) -> Res<()> {
    let scene = scene(server, "connection_killed")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    for n in 0..5 {
        scene.pg.exec(&format!("update t set v = 'w{n}' where id % 5 = {n}"))?;
        scene.pg.exec(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
        )?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(50..600)));
    }
    until("the lake following again", Duration::from_secs(45), TICK, || {
        Ok(scene.all_equal(&["t", "u"]).is_ok().then_some(()))
    })
    .map_err(|e| format!("{e}\n{}", scene.setup.tail()))?;
    daemon.stop(&scene.setup)
}

/// Local disk holds caches only.
fn state_directory_deleted(server: Server) -> Res<()> {
    let scene = scene(server, "state_deleted")?;
    for n in 0..4 {
        scene.setup.forget_state()?;
        scene.run_until_current()?;
        scene.pg.exec(&format!("update t set v = v || {n} where id % 3 = 0"))?;
        scene.pg.exec(&format!("delete from t where id % 50 = {n}"))?;
        scene.pg.exec("update u set id = id + 1")?;
    }
    scene.setup.forget_state()?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}

/// Two daemons with one configuration: whatever becomes of them, no row is lost or doubled.
fn two_daemons(server: Server) -> Res<()> {
    let sql = format!("{TABLES}; create table l(v int); alter table l replica identity full");
    let scene = Scene::new(server, Store::Local, "two_daemons", &sql)?;
    let mut first = scene.setup.start()?;
    scene.setup.wait_settled(&mut first, CURRENT)?;
    let mut second = scene.setup.start()?;
    for n in 0..40 {
        scene.pg.exec(&format!("insert into l values ({n}), ({n})"))?;
        scene.pg.exec(&format!("update t set v = 'w{n}' where id % 40 = {n}"))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let alive = [first.poll()?, second.poll()?].iter().filter(|s| s.is_none()).count();
    check(alive > 0, || format!("neither daemon is left\n{}", scene.setup.tail()))?;
    first.kill()?;
    second.kill()?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u", "l"])
}

/// The owner's long ALTER holds its lock: the daemon waits without standing in its way, and the
/// other table goes on.
fn writer_holds_a_lock(server: Server) -> Res<()> {
    let scene = scene(server, "lock")?;
    let other = scene.db.connect()?;
    other.exec("begin; alter table t add column w int")?;
    let mut daemon = scene.setup.start()?;
    std::thread::sleep(Duration::from_secs(3));
    scene.pg.exec("update u set v = 'not blocked'")?;
    other.exec("update t set w = id; commit")?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "u"])
}
