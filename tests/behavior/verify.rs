//! `lakeward verify`: finds what differs, and nothing else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::planted::{Planted, ROWS};
use crate::support::daemon::Answer;
use crate::support::jobs::Job;
use crate::support::scene::{CURRENT, DELETION_VECTORS, Scene, Test, check, has, trials};
use crate::support::{Context, Res, Server, Store, until};

const TESTS: &[Test] = &[
    ("planted", planted),
    ("busy", busy),
    ("not_comparable", not_comparable),
    ("marked_rows_stay", marked),
    ("more_than_are_looked_for", more),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::verify", TESTS, &[Server::Pg15, Server::Pg18], select)
}

/// One column of each type that the lake tells apart, and more.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("i2", "int2", "g % 30000"),
    ("i4", "int4", "g"),
    ("i8", "int8", "g * 1000000007::int8"),
    ("f4", "float4", "g / 3.0"),
    ("f8", "float8", "g / 7.0"),
    ("b", "bool", "g % 2 = 0"),
    ("n", "numeric(10,2)", "g / 100.0"),
    ("n38", "numeric(38,10)", "g * 1e20"),
    ("nfree", "numeric", "g / 3.0"),
    ("x", "text", "'row ' || g"),
    ("v", "varchar(40)", "md5(g::text)"),
    ("ba", "bytea", "decode(md5(g::text), 'hex')"),
    ("u", "uuid", "md5(g::text)::uuid"),
    ("j", "jsonb", "jsonb_build_object('g', g)"),
    ("d", "date", "date '2020-01-01' + g % 1000"),
    ("t", "time", "time '10:00' + g * interval '1 second'"),
    ("ts", "timestamp", "timestamp '2020-01-01' + g * interval '1 minute'"),
    ("tz", "timestamptz", "timestamptz '2020-01-01 00:00+00' + g * interval '1 minute'"),
    ("iv", "interval", "g * interval '1 hour'"),
    ("ia", "int[]", "array[g, null, g + 1]"),
    ("xa", "text[]", "array['a', g::text]"),
];

fn tables() -> String {
    let columns = COLUMNS.iter().map(|(name, kind, _)| format!("{name} {kind}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let values = COLUMNS.iter().map(|(_, _, value)| *value).collect::<Vec<_>>().join(", ");
    let table = |name: &str| {
        format!(
            "create table {name}(id int primary key, {columns}); \
             insert into {name} select g, {values} from generate_series(1, {ROWS}) g; "
        )
    };
    table("t") + &table("v")
}

fn verify(scene: &Scene, arguments: &[&str]) -> Res<(Answer, Value)> {
    let all = [&["verify", &scene.source, "--json"], arguments].concat();
    let answer = scene.setup.command(&all)?;
    let value = serde_json::from_str(&answer.stdout)
        .map_err(|error| format!("{error}: {}\n{}", answer.all(), scene.setup.tail()))?;
    Ok((answer, value))
}

/// What `status` says of a table's last verification.
fn told(scene: &Scene, table: &str) -> Res<Value> {
    let answer = scene.setup.command(&["status", "--json"])?;
    let value: Value = serde_json::from_str(&answer.stdout).context(answer.all())?;
    Ok(value[&scene.source]["tables"][table]["verified"].clone())
}

/// Waits until `status` says this of a table's last verification; the daemon takes a second to save it.
fn wait_told(scene: &Scene, table: &str, outcome: &str, repaired: bool) -> Res<()> {
    let mut last = Value::Null;
    let said = until("status", Duration::from_secs(20), Duration::from_millis(200), || {
        last = told(scene, table)?;
        Ok((last["outcome"] == outcome && last["repaired"] == repaired).then_some(()))
    });
    said.map_err(|e| format!("{e}: {outcome}, repaired {repaired}, is not what it says: {last}"))
}

/// A hundred of a hundred, in both merge modes; repaired, there is none; with and without a daemon.
/// What was found last is told by `status` all the while.
fn planted(server: Server) -> Res<()> {
    let scene =
        Scene::with(server, Store::Local, "planted", &tables(), &[("v", DELETION_VECTORS)])?;
    scene.run_until_current()?;
    check(told(&scene, "public.t")?.is_null(), || "told before it was verified".to_owned())?;
    has(&scene.setup.command(&["status"])?.stdout, "never")?;
    let (answer, found) = verify(&scene, &[])?;
    for table in ["public.t", "public.v"] {
        let equal = found[table]["outcome"] == "equal" && found[table]["rows"] == ROWS;
        check(answer.code == Some(0) && equal, || format!("before: {found:#}"))?;
    }
    let names: Vec<_> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let plan = Planted::new("id", &names);
    plan.plant(&scene.url("t"))?;
    let (answer, found) = verify(&scene, &[])?;
    check(answer.code == Some(1), || format!("exit code {:?}", answer.code))?;
    check(found["public.v"]["outcome"] == "equal", || format!("{found:#}"))?;
    plan.is_found(&found["public.t"])?;
    let status = told(&scene, "public.t")?;
    let counts = json!([status["rows"], status["missing"], status["extra"], status["changed"]]);
    check(counts == json!([ROWS, 30, 30, 40]), || format!("{status:#}"))?;
    check(status["differences"].is_null(), || format!("rows are named: {status:#}"))?;
    has(&scene.setup.command(&["status"])?.stdout, "100 differ, ")?;

    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    // What another process has found.
    let known = format!(
        "lakeward_verified_differences{{source=\"{}\",table=\"public.t\"}} 100",
        scene.source
    );
    until("the metrics", Duration::from_secs(20), Duration::from_millis(200), || {
        // Its port may not be open yet.
        Ok(scene.setup.ask("/metrics").is_ok_and(|said| said.contains(&known)).then_some(()))
    })?;
    let (answer, found) = verify(&scene, &["public.t", "--repair"])?;
    check(answer.code == Some(1), || format!("exit code {:?}", answer.code))?;
    plan.is_found(&found["public.t"])?;
    check(found["public.t"]["repaired"] == true, || format!("{found:#}"))?;
    wait_told(&scene, "public.t", "different", true)?;
    let (answer, found) = verify(&scene, &["public.t"])?;
    let equal = found["public.t"]["outcome"] == "equal";
    check(answer.code == Some(0) && equal, || format!("after the repair: {found:#}"))?;
    daemon.stop(&scene.setup)?;
    wait_told(&scene, "public.t", "equal", false)?;
    scene.all_equal(&["t", "v"])
}

/// More rows that only the lake has than are looked for: it says so, and a repair and another look find
/// the rest.
fn more(server: Server) -> Res<()> {
    let sql = "create table t(id int primary key); insert into t values (1), (2)";
    let scene = Scene::new(server, Store::Local, "more", sql)?;
    scene.run_until_current()?;
    let plan =
        Planted { missing: [2].into(), extra: (10..10_060).collect(), ..Planted::none("id") };
    plan.plant(&scene.url("t"))?;
    let (answer, found) = verify(&scene, &[])?;
    let of = &found["public.t"];
    let said = of["extra"] == 10_000 && of["more"] == true;
    check(answer.code == Some(1) && said, || format!("{found:#}"))?;
    has(&scene.setup.command(&["status"])?.stdout, "10,001 or more differ")?;
    let answer = scene.setup.command(&["verify", &scene.source, "--repair"])?;
    has(&answer.stdout, "there may be more")?;
    let (_, found) = verify(&scene, &["--repair"])?;
    let of = &found["public.t"];
    check(of["extra"] == 50 && of["more"].is_null(), || format!("{found:#}"))?;
    let (answer, found) = verify(&scene, &[])?;
    check(answer.code == Some(0), || format!("{found:#}"))?;
    scene.equal("t")
}

/// No false alarm while rows, keys and columns change.
fn busy(server: Server) -> Res<()> {
    let scene = Scene::with(server, Store::Local, "busy", &tables(), &[("v", DELETION_VECTORS)])?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    let pg = scene.db.connect()?;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let load = std::thread::spawn(move || -> Res<u32> {
        let mut turns = 0;
        while stopped.try_recv().is_err() {
            turns += 1;
            for table in ["t", "v"] {
                pg.exec(&format!(
                    "update {table} set x = x || '.', n = n + 1 where id % 13 = {turns} % 13; \
                     delete from {table} where id % 211 = {turns} % 211; \
                     insert into {table}(id, x) select {turns} * 100000 + g, 'new' \
                       from generate_series(1, 20) g; \
                     update {table} set id = -id where id % 307 = {turns} % 307 and id > 0"
                ))?;
            }
            if turns == 20 {
                pg.exec("alter table t add column later int default 5")?;
            }
        }
        Ok(turns)
    });
    let (began, mut compared) = (Instant::now(), 0);
    // On a slow machine it takes longer until enough have been compared.
    let goes_on = |compared: usize| {
        let elapsed = began.elapsed();
        elapsed < Duration::from_secs(12) || (compared < 4 && elapsed < CURRENT)
    };
    while goes_on(compared) {
        let (answer, found) = verify(&scene, &[])?;
        check(answer.code == Some(0), || format!("a false alarm: {found:#}"))?;
        let equal = ["public.t", "public.v"].iter().filter(|t| found[**t]["outcome"] == "equal");
        compared += equal.count();
    }
    let _ = stop.send(());
    let turns = load.join().map_err(|_| "the load panicked")??;
    check(compared >= 4, || format!("only {compared} tables compared in {turns} turns"))?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.all_equal(&["t", "v"])
}

/// P2: what a soft-delete table keeps of rows that the source has no more is no difference, and a
/// repair doesn't take it away.
fn marked(server: Server) -> Res<()> {
    let sql = "create table s(id int primary key, v text); \
               insert into s select g, 'v' from generate_series(1, 50) g";
    let settings = [("s", "mode = \"soft-delete\"")];
    let scene = Scene::with(server, Store::Local, "marked", sql, &settings)?;
    scene.run_until_current()?;
    scene.pg.exec("delete from s where id <= 20")?;
    scene.run_until_current()?;
    let (answer, found) = verify(&scene, &["public.s", "--repair"])?;
    let equal = found["public.s"]["outcome"] == "equal" && found["public.s"]["rows"] == 30;
    check(answer.code == Some(0) && equal, || format!("{found:#}"))?;
    let rows = crate::support::reader::read(&scene.url("s"))?.map_or(0, |rows| rows.rows.len());
    check(rows == 50, || format!("{rows} rows are left of 30 and 20 that are marked"))
}

/// A table that can't be compared says why.
fn not_comparable(server: Server) -> Res<()> {
    let sql = "create table k(a int, b text); alter table k replica identity full; \
               insert into k select g, 'b' from generate_series(1, 10) g; \
               create table a(id int primary key)";
    let scene =
        Scene::with(server, Store::Local, "not_comparable", sql, &[("a", "mode = \"append\"")])?;
    scene.run_until_current()?;
    let (answer, found) = verify(&scene, &[])?;
    check(answer.code == Some(0), || format!("{found:#}"))?;
    for (table, why) in [("public.k", "no key"), ("public.a", "append")] {
        let reason = found[table]["reason"].as_str().unwrap_or_default();
        let skipped = found[table]["outcome"] == "skipped";
        check(skipped && reason.contains(why), || format!("{table}: {found:#}"))?;
    }
    has(&scene.setup.command(&["status"])?.stdout, "not compared: it has no key")?;
    let (answer, _) = verify(&scene, &["public.k"])?;
    check(answer.code == Some(1), || "asked for one, it must not end well".to_owned())?;
    let answer = scene.setup.command(&["verify", &scene.source, "public.none", "--json"])?;
    check(answer.code == Some(1), || answer.all())?;
    let answer = scene.setup.command(&["verify", "nobody"])?;
    check(answer.code == Some(2), || answer.all())
}
