//! The command line: exit codes, `check`, `status`, `tables`, `remove`, faults of the
//! configuration.

use std::fs;
use std::time::Duration;

use crate::support::jobs::Job;
use crate::support::scene::{CURRENT, Scene, Test, check, has, trials};
use crate::support::{Context, Res, Server, Store, long, until};

const TESTS: &[Test] = &[
    ("unknown_keys_are_refused", unknown_keys_are_refused),
    ("every_fault_of_the_configuration_is_named", every_fault_is_named),
    ("missing_configuration", missing_configuration),
    ("check_changes_nothing", check_changes_nothing),
    ("status_and_tables_as_json", status_and_tables),
    ("status_tells_what_writing_costs", status_tells_what_writing_costs),
    ("maintain_deletes_replaced_files", maintain_deletes_replaced_files),
    ("remove_drops_the_slot", remove_drops_the_slot),
    ("a_second_run_adds_nothing", a_second_run_adds_nothing),
    ("the_environment_names_the_store", the_environment_names_the_store),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers: &[Server] = if long() { &Server::POSTGRES } else { &[Server::Pg15] };
    trials("behavior::cli", TESTS, servers, select)
}

const TABLE: &str = "create table t(id int primary key, v text); insert into t values (1, 'a')";

/// A scene whose configuration has `from` replaced by `to`.
fn edited(server: Server, label: &str, from: &str, to: &str) -> Res<Scene> {
    let scene = Scene::new(server, Store::Local, label, TABLE)?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    check(text.contains(from), || format!("{from:?} is not in the configuration"))?;
    fs::write(scene.setup.config(), text.replace(from, to)).context("the configuration")?;
    Ok(scene)
}

fn refused(scene: &Scene, words: &[&str]) -> Res<()> {
    for command in [&["check"][..], &["run", "--until-current"][..]] {
        let answer = scene.setup.command(command)?;
        check(answer.code == Some(2), || format!("{command:?}: exit {:?}, not 2", answer.code))?;
        words.iter().try_for_each(|word| has(&answer.all(), word))?;
    }
    check(scene.db.slots()?.is_empty(), || "a slot was made with a bad configuration".to_owned())?;
    let files = scene.setup.lake.files()?;
    check(files.is_empty(), || format!("the lake was touched: {files:?}"))
}

fn unknown_keys_are_refused(server: Server) -> Res<()> {
    let scene = edited(server, "unknown_key", "flush_interval", "flush_intervall")?;
    refused(&scene, &["flush_intervall", "config.toml:3:"])
}

fn every_fault_is_named(server: Server) -> Res<()> {
    let scene =
        edited(server, "many_faults", "memory = \"64MiB\"", "memory = \"much\"\nspeed = 1")?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    let text = text.replace("flush_interval = \"200ms\"", "flush_interval = \"soon\"");
    fs::write(scene.setup.config(), text).context("the configuration")?;
    refused(&scene, &["memory", "speed", "flush_interval"])
}

fn missing_configuration(server: Server) -> Res<()> {
    let scene = Scene::new(server, Store::Local, "no_config", TABLE)?;
    fs::remove_file(scene.setup.config()).context("the configuration")?;
    refused(&scene, &["config.toml"])
}

fn check_changes_nothing(server: Server) -> Res<()> {
    let sql = format!("{TABLE}; create table silent(v text)");
    let scene = Scene::new(server, Store::Local, "check", &sql)?;
    let answer = scene.setup.command(&["check", "--json"])?;
    serde_json::from_str::<serde_json::Value>(&answer.stdout).context(&answer.stdout)?;
    has(&answer.stdout, "silent")?;
    has(&answer.stdout, "replica identity")?;
    check(scene.db.slots()?.is_empty(), || "check made a slot".to_owned())?;
    let publications = scene.pg.text("select count(*) from pg_publication")?;
    check(publications.as_deref() == Some("0"), || "check made a publication".to_owned())?;
    let files = scene.setup.lake.files()?;
    check(files.is_empty(), || format!("check wrote to the lake: {files:?}"))
}

fn status_and_tables(server: Server) -> Res<()> {
    let sql = format!("{TABLE}; create table silent(v text)");
    let scene = Scene::new(server, Store::Local, "status", &sql)?;
    scene.run_until_current()?;
    let (state, _) = scene.state("t")?;
    check(state == "live", || format!("t is {state}"))?;
    let (state, reason) = scene.state("silent")?;
    check(state == "stopped" || state == "refused", || format!("silent is {state}"))?;
    has(&reason, "replica identity")?;
    for command in [&["tables"][..], &["tables", "--json"][..], &["status"][..]] {
        let answer = scene.setup.command(command)?;
        check(answer.code == Some(0), || format!("{command:?}: exit {:?}", answer.code))?;
        has(&answer.stdout, "public.t")?;
    }
    scene.equal("t")
}

/// Only the daemon knows, as long as it runs.
fn status_tells_what_writing_costs(server: Server) -> Res<()> {
    let sql = "create table t(id int primary key, v text); \
        insert into t select g, 'a' from generate_series(1, 1000) g";
    let scene = Scene::new(server, Store::Local, "status_costs", sql)?;
    let times = || -> Res<Option<f64>> {
        let said = scene.setup.command(&["status", "--json"])?.stdout;
        let said: serde_json::Value = serde_json::from_str(&said).context(&said)?;
        Ok(said[&scene.source]["tables"]["public.t"]["amplification"].as_f64())
    };
    let mut daemon = scene.setup.start()?;
    let first = until("a figure", CURRENT, Duration::from_millis(100), times)?;
    check(first >= 1.0, || format!("less than came: {first}"))?;
    // The rows beside it are written again with it.
    let more = || -> Res<Option<f64>> {
        scene.pg.exec("update t set v = v || 'c' where id = 1")?;
        Ok(times()?.filter(|times| *times > first))
    };
    until("more than came", CURRENT, Duration::from_millis(100), more)?;
    has(&scene.setup.command(&["status"])?.stdout, "WRITE ×")?;
    daemon.stop(&scene.setup)?;
    let after = times()?;
    check(after.is_none(), || format!("nobody runs, and still {after:?}"))
}

fn maintain_deletes_replaced_files(server: Server) -> Res<()> {
    let memory = "memory = \"64MiB\"";
    let scene = edited(server, "maintain", memory, &format!("retention = \"2s\"\n{memory}"))?;
    scene.run_until_current()?;
    scene.pg.exec("update t set v = 'b'")?;
    scene.run_until_current()?;
    let data = || -> Res<usize> {
        let names = scene.setup.lake.names(&[&scene.source, "public", "t"])?;
        Ok(names.iter().filter(|name| name.ends_with(".parquet")).count())
    };
    check(data()? == 2, || "the replaced file is gone too early".to_owned())?;
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let answer = scene.setup.command(&["maintain"])?;
    check(answer.code == Some(0), || format!("maintain: {}", answer.all()))?;
    has(&answer.stdout, "1 files")?;
    check(data()? == 1, || "the replaced file is still there".to_owned())?;
    scene.equal("t")
}

fn remove_drops_the_slot(server: Server) -> Res<()> {
    let scene = Scene::new(server, Store::Local, "remove", TABLE)?;
    scene.run_until_current()?;
    check(scene.db.slots()?.len() == 1, || "the daemon made no slot".to_owned())?;
    let source = scene.source.clone();
    let answer = scene.setup.command(&["remove", &source, "--drop-slot"])?;
    check(answer.code == Some(0), || format!("remove: {}", answer.all()))?;
    let slots = scene.db.slots()?;
    check(slots.is_empty(), || format!("the slot is still there: {slots:?}"))
}

/// A run with nothing to do commits nothing to any table.
fn a_second_run_adds_nothing(server: Server) -> Res<()> {
    let scene = Scene::new(server, Store::Local, "second_run", TABLE)?;
    scene.run_until_current()?;
    let before = scene.setup.lake.log(&scene.source, "public", "t")?.len();
    scene.run_until_current()?;
    scene.run_until_current()?;
    let after = scene.setup.lake.log(&scene.source, "public", "t")?.len();
    check(before == after, || format!("{before} versions became {after} without a change"))?;
    scene.pg.exec("insert into t values (2, 'b'), (3, 'c'); delete from t where id = 1")?;
    let answer = scene.setup.command(&["run", "--until-current", "--json"])?;
    let value: serde_json::Value = serde_json::from_str(&answer.stdout).context("its summary")?;
    let summary = serde_json::json!({ "rows": 2, "read": 0, "changes": 3 });
    check(value[&scene.source]["tables"]["public.t"] == summary, || format!("{value:#}"))?;
    scene.equal("t")
}

/// As docker-compose.yml does it: the store's address, its key and that it is plain HTTP.
fn the_environment_names_the_store(server: Server) -> Res<()> {
    let scene = Scene::new(server, Store::S3, "environment", TABLE)?;
    let section = scene.setup.lake.s3_config()?.ok_or("the store is configured nowhere")?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    check(text.contains(&section), || format!("{section} is not in {text}"))?;
    fs::write(scene.setup.config(), text.replace(&section, "[lake.s3]\n\n"))
        .context("the configuration")?;
    scene.run_until_current()?;
    scene.equal("t")
}
