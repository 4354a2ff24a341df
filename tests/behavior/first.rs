//! Tables whose rows are not read when they are first kept: `snapshot = "schema"` and `"never"`.

use std::process::Command;

use serde_json::json;

use crate::support::jobs::Job;
use crate::support::reader::{self, python};
use crate::support::scene::{CURRENT, Scene, Test, check, has, trials};
use crate::support::{Context, Res, Server, Store};

const TESTS: &[Test] = &[
    ("schema", schema),
    ("never_from_now", from_now),
    ("never_from_a_position", from_position),
    ("lost_position", lost_position),
    ("other_columns", other_columns),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::first", TESTS, &[Server::Pg15, Server::Pg18], select)
}

/// Old rows of several pages, with a value that updates leave out of the log.
const TABLE: &str = "create table t(id int primary key, v text, big text); \
                     alter table t alter big set storage external; \
                     insert into t select g, 'v' || g, repeat('x', 3000) || g \
                     from generate_series(1, 20) g";

const NEW: &str = "insert into t values (100, 'new', 'small'); \
                   update t set v = 'changed' where id = 7; \
                   update t set id = 200 where id = 8; \
                   delete from t where id = 9";

fn scene(server: Server, label: &str, line: &str) -> Res<Scene> {
    Scene::with(server, Store::Local, label, TABLE, &[("t", line)])
}

/// Writes the table's rows to the lake, as they are now, by another program.
fn load(scene: &Scene, kinds: &[(&str, &str)]) -> Res<()> {
    let columns: Vec<_> = kinds.iter().map(|(name, _)| format!("'{name}', {name}")).collect();
    let rows =
        scene.pg.rows(&format!("select json_build_object({})::text from t", columns.join(", ")))?;
    let mut all = Vec::new();
    for row in rows.into_iter().flatten().flatten() {
        let row: serde_json::Value = serde_json::from_str(&row).context("a row")?;
        all.push(kinds.iter().map(|(name, _)| row[*name].clone()).collect::<Vec<_>>());
    }
    let plan = json!({ "url": scene.url("t"), "columns": kinds, "rows": all });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behavior/load.py");
    let mut command = Command::new(python("deltalake")?);
    let output = command.args([script, &plan.to_string()]).output().context("load.py")?;
    check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())
}

const KINDS: &[(&str, &str)] = &[("id", "int32"), ("v", "string"), ("big", "string")];

fn ids(scene: &Scene) -> Res<Vec<i64>> {
    let rows = reader::read(&scene.url("t"))?.ok_or("the table is not in the lake")?;
    let at = rows.columns.iter().position(|column| column == "id").ok_or("no id")?;
    let ids = rows.rows.iter().filter_map(|row| row[at].as_deref()?.parse().ok());
    let mut ids: Vec<i64> = ids.collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The lake has what changed since, each row whole.
fn schema(server: Server) -> Res<()> {
    let scene = scene(server, "schema", "snapshot = \"schema\"")?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    check(ids(&scene)?.is_empty(), || "rows were read".to_owned())?;
    scene.pg.exec(NEW)?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    let found = ids(&scene)?;
    check(found == [7, 100, 200], || format!("{found:?}\n{}", scene.setup.tail()))?;
    let lake = reader::read(&scene.url("t"))?.ok_or("the table is not in the lake")?;
    let whole = |row: &&Vec<Option<String>>| {
        row.iter().flatten().any(|value| value.ends_with("x7") || value.ends_with("x8"))
    };
    let count = lake.rows.iter().filter(whole).count();
    check(count == 2, || format!("values that the log left out are in {count} of 2 rows"))?;

    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    let answer = scene.setup.command(&["snapshot", &scene.source, "public.t"])?;
    check(answer.code == Some(0), || answer.all())?;
    daemon.stop(&scene.setup)?;
    scene.run_until_current()?;
    scene.equal("t")
}

/// Rows that another program has written stay, and are followed.
fn from_now(server: Server) -> Res<()> {
    let scene = scene(server, "now", "snapshot = \"never\"")?;
    load(&scene, KINDS)?;
    scene.run_until_current()?;
    scene.equal("t")?;
    scene.pg.exec(NEW)?;
    scene.run_until_current()?;
    scene.equal("t")
}

/// The log is held from a position on, the rows are written later, and changed all the while.
fn from_position(server: Server) -> Res<()> {
    let mut scene = scene(server, "position", "snapshot = \"never\"")?;
    let slot = scene.setup.sources[0].slot();
    scene.pg.exec(&format!(
        "create publication {slot} for table t \
         with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
    ))?;
    let made = format!("select lsn from pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let position = scene.pg.text(&made)?.ok_or("no position")?;
    scene
        .pg
        .exec("insert into t values (50, 'before the load', 'b'); delete from t where id = 3")?;
    load(&scene, KINDS)?;
    scene.pg.exec(NEW)?;
    let line = format!("snapshot = \"never\"\nfrom = \"{position}\"");
    scene.setup.sources[0].settings = vec![("public.t".to_owned(), line)];
    scene.setup.write_config()?;
    scene.run_until_current()?;
    scene.equal("t")?;
    scene.pg.exec("update t set v = v || '!' where id % 2 = 0")?;
    scene.run_until_current()?;
    scene.equal("t")
}

/// A position that the log doesn't reach back to stops the table, and its rows stay: it is not read
/// by itself, not by a restart either. With another one it is tried again.
fn lost_position(server: Server) -> Res<()> {
    let mut scene = scene(server, "lost", "snapshot = \"never\"\nfrom = \"0/1000\"")?;
    load(&scene, KINDS)?;
    for _ in 0..2 {
        scene.run_until_current()?;
        let (state, reason) = scene.state("t")?;
        check(state == "stopped", || format!("{state}: {reason}"))?;
        let says = reason.starts_with("gap: the log no longer holds what follows 0/1000");
        check(says, || reason.clone())?;
        check(ids(&scene)?.len() == 20, || "its rows were touched".to_owned())?;
    }
    scene.setup.sources[0].settings =
        vec![("public.t".to_owned(), "snapshot = \"never\"".to_owned())];
    scene.setup.write_config()?;
    scene.run_until_current()?;
    scene.pg.exec(NEW)?;
    scene.run_until_current()?;
    scene.equal("t")
}

/// A table of other columns is not written to.
fn other_columns(server: Server) -> Res<()> {
    for (label, kinds, says) in [
        ("type", &[("id", "int64"), ("v", "string"), ("big", "string")][..], "another type"),
        ("lacks", &[("id", "int32"), ("v", "string")][..], "lacks a column"),
    ] {
        let scene = scene(server, label, "snapshot = \"never\"")?;
        load(&scene, kinds)?;
        scene.run_until_current()?;
        let (state, reason) = scene.state("t")?;
        check(state == "stopped", || format!("{label}: {state}: {reason}"))?;
        has(&reason, says)?;
        check(ids(&scene)?.len() == 20, || "its rows were touched".to_owned())?;
    }
    Ok(())
}
