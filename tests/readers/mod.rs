//! Any Delta reader reads the tables: six engines that are not ours see the same rows in tables
//! that were snapshotted, changed, restarted and changed again.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::support::jobs::Job;
use crate::support::reader::{python, script};
use crate::support::scene::{DELETION_VECTORS, Scene, check};
use crate::support::{Context, Res, Server, Store, shortened, tail, until};

const READERS: &[(&str, &str)] = &[
    ("duckdb", "duckdb"),
    ("polars", "polars"),
    ("delta_rs", "deltalake"),
    ("pyarrow", "deltalake"),
    ("datafusion", "deltalake"),
    ("kernel", "kernel"),
    ("clickhouse", "chdb"),
    ("daft", "daft"),
];

/// Values that every engine can hold (ClickHouse knows dates from 1900 to 2299 and no NULL in
/// place of an array); what only some can is compared with the source, through
/// one engine, by the other suites.
const SCHEMA: &str = "\
    create table orders(id int8 primary key, customer int4, total numeric(12,2), note text, \
        paid bool, at timestamptz not null, day date); \
    insert into orders select g, g % 97, g * 1.01, case when g % 5 > 0 then 'n' || g end, \
        g % 3 = 0, timestamptz '2024-01-01 00:00+00' + g * interval '1 minute 0.000001 s', \
        date '2024-01-01' + g % 1000 from generate_series(1, 30000) g; \
    create table types(id int4 primary key, i2 int2, i8 int8, f4 float4, f8 float8, b bool, \
        n38 numeric(38,10), nf numeric, x text, c char(5), ba bytea, d date, tz timestamptz, \
        u uuid, j jsonb, xs text[], ns int4[]); \
    insert into types values \
        (1, -32768, -9223372036854775808, -3.4028235e38, -1.7976931348623157e308, false, \
         -9999999999999999999999999999.9999999999, -1e40, '', '', '\\x', '1900-01-01', \
         '1900-01-01 00:00:00+00', '00000000-0000-0000-0000-000000000000', '{}', '{}', '{}'), \
        (2, 32767, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308, true, \
         9999999999999999999999999999.9999999999, 1e-40, 'é😀', 'abcde', '\\x00ff', '2299-12-31', \
         '2200-12-31 23:59:59.999999+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '[1, 2.0]', \
         '{a,NULL,\"b c\"}', '{1,NULL,-2147483648}'), \
        (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, \
         '{}', '{}'); \
    create table naive(id int4 primary key, at timestamp); \
    insert into naive values (1, '2024-02-29 10:30:45.123456'), (2, null); \
    create table keyless(a int4, b text); alter table keyless replica identity full; \
    insert into keyless select g % 7, 'b' from generate_series(1, 200) g; \
    create table emptied(id int4 primary key, v text); insert into emptied values (1, 'a'); \
    create table widened(id int4 primary key, v int4); insert into widened values (1, 1); \
    create table marked(id int4 primary key, v text); \
    insert into marked select g, 'v' || g from generate_series(1, 20000) g";

const TABLES: &[&str] = &["orders", "types", "naive", "keyless", "emptied", "widened", MARKED];

/// The table that is merged by deletion vectors, which some readers don't know: they refuse it, as
/// the protocol asks them to, or can't plan a scan of it (deltalake's table in DataFusion).
const MARKED: &str = "marked";
const REFUSING: &[&str] = &["pyarrow", "daft", "datafusion"];
/// Counts deleted rows when it needs no column.
const MISCOUNTING: &str = "clickhouse";

#[derive(Debug, Deserialize)]
struct Seen {
    #[serde(default)]
    rows: i64,
    count: Option<i64>,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    schema: HashMap<String, String>,
    error: Option<String>,
}

/// `readers::polars` and so on, all over the tables of one run.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let chosen = READERS.iter().filter(|(name, _)| select(&format!("readers::{name}")));
    let chosen: Vec<_> = chosen.copied().collect();
    if chosen.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = chosen.iter().map(|(name, _)| format!("readers::{name}")).collect();
    let count = names.len();
    let run = move || match everything(&chosen) {
        Ok(results) => results,
        Err(e) => (0..count).map(|_| Err(e.clone())).collect(),
    };
    vec![Job { names, run: Box::new(run) }]
}

fn everything(readers: &[(&str, &str)]) -> Res<Vec<Res<()>>> {
    let scene =
        Scene::with(Server::Pg15, Store::Local, "readers", SCHEMA, &[(MARKED, DELETION_VECTORS)])?;
    change(&scene)?;
    // The rows are the source's, as DuckDB sees them; then everyone has to see the same.
    scene.all_equal(TABLES)?;
    let paths: Vec<String> = TABLES.iter().map(|t| scene.url(t)).collect();
    let truth = read("duckdb", "duckdb", &paths)?;
    for ((table, seen), path) in TABLES.iter().zip(&truth).zip(&paths) {
        check(seen.error.is_none(), || format!("duckdb, {table} at {path}: {seen:?}"))?;
        let rows = scene.pg.text(&format!("select count(*) from {table}"))?;
        check(rows.as_deref() == Some(&seen.rows.to_string()), || format!("{table}: {rows:?}"))?;
    }
    Ok(readers.iter().map(|(name, home)| agrees(name, home, &paths, &truth)).collect())
}

fn change(scene: &Scene) -> Res<()> {
    scene.run_until_current()?;
    for n in 0..3 {
        scene.pg.exec(&format!("update orders set paid = not paid where id % 7 = {n}"))?;
        scene.pg.exec(&format!("delete from orders where id % 100 = {n}"))?;
        scene.pg.exec(&format!("delete from marked where id % 50 = {n}"))?;
        scene.pg.exec(&format!("update marked set v = v || 'u' where id % 50 = {}", n + 5))?;
        scene.pg.exec(&format!("insert into keyless values ({n}, 'new'), ({n}, 'new')"))?;
        scene.run_until_current()?;
    }
    scene.pg.exec("update types set b = not b; delete from emptied")?;
    scene.pg.exec("alter table widened alter v type int8")?;
    scene.pg.exec("insert into widened values (2, 9223372036854775807)")?;
    scene.pg.exec("delete from keyless where a = 3; insert into naive values (3, '0001-01-01')")?;
    scene.run_until_current()
}

fn agrees(name: &str, home: &str, paths: &[String], truth: &[Seen]) -> Res<()> {
    let seen = read(name, home, paths)?;
    let mut wrong = Vec::new();
    for ((table, seen), truth) in TABLES.iter().zip(&seen).zip(truth) {
        let marked = *table == MARKED;
        let fault = match &seen.error {
            Some(_) if marked && REFUSING.contains(&name) => None,
            None if marked && REFUSING.contains(&name) => {
                Some("reads deletion vectors now: it need not be named as a reader lost".to_owned())
            }
            Some(error) => Some(format!("refuses: {}", shortened(error, 300))),
            None if seen.rows != truth.rows || seen.hash != truth.hash => Some(format!(
                "{} rows, hash {}, {:?}; duckdb: {}, {}, {:?}",
                seen.rows, seen.hash, seen.schema, truth.rows, truth.hash, truth.schema
            )),
            None if marked && name == MISCOUNTING => None,
            None if seen.count.is_some_and(|n| n != truth.rows) => {
                Some(format!("count(*) {:?}, not {}", seen.count, truth.rows))
            }
            None => None,
        };
        wrong.extend(fault.map(|f| format!("{table}: {f}")));
    }
    check(wrong.is_empty(), || wrong.join("\n"))
}

/// What the reader sees in each of the tables.
fn read(name: &str, home: &str, paths: &[String]) -> Res<Vec<Seen>> {
    let mut command = Command::new(python(home)?);
    command.arg(script("read_table.py")).arg(name).args(paths);
    // ClickHouse reads only below its working directory.
    command
        .current_dir("/")
        .env("TZ", "UTC")
        .env("DAFT_PROGRESS_BAR", "0")
        .env("DO_NOT_TRACK", "1");
    let dir = tempfile::tempdir().context("a temporary folder")?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let create = |path| std::fs::File::create(path).context("the reader's output");
    command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
    let mut child = command.spawn().context(name)?;
    let limit = Duration::from_secs(180);
    let ended = until(&format!("{name} reading"), limit, Duration::from_millis(50), || {
        child.try_wait().context(name)
    });
    if let Err(e) = ended {
        child.kill().and_then(|()| child.wait()).context(name)?;
        return Err(e);
    }
    let text = |path| std::fs::read_to_string(path).context("the reader's output");
    let seen: Result<Vec<Seen>, _> = text(&out)?.lines().map(serde_json::from_str).collect();
    let seen = seen.context(name)?;
    let complaint = text(&err)?;
    check(seen.len() == paths.len(), || format!("{name} ended: {}", tail(&complaint, 10)))?;
    Ok(seen)
}
