//! Any Delta reader reads the tables: eight engines that are not ours see the same rows in tables of
//! every kind that were snapshotted, changed, restarted and changed again. What they say is the
//! matrix of `docs/readers.md`, which `LAKEWARD_WRITE_DOCS=1` writes anew.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::support::compare::{Allow, equal};
use crate::support::jobs::Job;
use crate::support::reader::{python, script};
use crate::support::scene::{Scene, check, has};
use crate::support::{Context, Res, Server, Store, shortened, tail, until};

/// Readers by name, each with the environment it is installed in.
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
    create table numbers(id int4 primary key, n numeric(38,10)); \
    insert into numbers select g, 9999999999999999999999999999.9999999999 - g * 0.0000000001 \
        from generate_series(1, 500) g; \
    create table naive(id int4 primary key, at timestamp); \
    insert into naive values (1, '2024-02-29 10:30:45.123456'), (2, null); \
    create table keyless(a int4, b text); alter table keyless replica identity full; \
    insert into keyless select g % 7, 'b' from generate_series(1, 200) g; \
    create table emptied(id int4 primary key, v text); insert into emptied values (1, 'a'); \
    create table evolved(id int4 primary key, v varchar(9), n numeric(8,2), gone int4); \
    insert into evolved select g, 'v' || g, g, g from generate_series(1, 300) g; \
    create table marked(id int4 primary key, v text); \
    insert into marked select g, 'v' || g from generate_series(1, 20000) g; \
    create table large(id int4 primary key, v text); \
    insert into large select g, encode(sha256(('a' || g)::bytea), 'base64') || \
        encode(sha256(('b' || g)::bytea), 'base64') || encode(sha256(('c' || g)::bytea), 'base64') \
        from generate_series(1, 150000) g; \
    create table parts(id int4 primary key, at timestamptz, flag bool, v text); \
    insert into parts select g, timestamptz '2024-01-15 00:00+00' + g * interval '2 hours', \
        case g % 3 when 0 then true when 1 then false end, 'v' || g \
        from generate_series(1, 2000) g; \
    create table parts_marked(like parts including all); insert into parts_marked table parts; \
    create table listed(id int4 primary key, v text); \
    insert into listed select g, 'v' || g from generate_series(1, 200) g; \
    create table buried(like listed including all); insert into buried table listed; \
    create table often(id int4 primary key, v text); \
    insert into often select g, 'v' || g from generate_series(1, 5000) g";

/// The tables, what is shown by them, and the lines of their sections.
const TABLES: &[(&str, &str, &str)] = &[
    ("orders", "`rewrite`, changed again and again", ""),
    ("marked", "`deletion-vectors`", VECTORS),
    ("large", "`deletion-vectors`, in a file of two row groups", VECTORS),
    ("listed", "`mode = \"append\"`", "mode = \"append\""),
    ("buried", "`mode = \"soft-delete\"`", "mode = \"soft-delete\""),
    ("parts", "partitioned by a day and a boolean", PARTS),
    ("parts_marked", "partitioned, `deletion-vectors`", PARTS_MARKED),
    ("evolved", "columns added, dropped, renamed and widened", ""),
    ("often", "many commits: checkpointed, small files folded", ""),
    ("types", "all types, with their least and greatest values", ""),
    ("numbers", "38 digits, looked for by an equality", ""),
    ("naive", "a timestamp without a zone", ""),
    ("keyless", "no key", ""),
    ("emptied", "no rows left", ""),
];
const VECTORS: &str = "merge = \"deletion-vectors\"";
const PARTS: &str = "partition_by = [\"day(at)\", \"flag\"]";
const PARTS_MARKED: &str = "partition_by = [\"day(at)\", \"flag\"]\nmerge = \"deletion-vectors\"";

/// Tables that don't equal the source's: what they must show, the suite of shapes says.
const SHAPED: &[&str] = &["listed", "buried", "parts", "parts_marked"];

/// The one row of `numbers` that is looked for.
const NUMBER: &str = "9999999999999999999999999999.9999999899";

/// What readers do otherwise than read the right rows, and why that is no fault of the tables.
const EXPECTED: &[(&str, &str, Cell, &str)] = &[
    ("pyarrow", "marked", Cell::Refuses, NO_VECTORS),
    ("pyarrow", "large", Cell::Refuses, NO_VECTORS),
    ("pyarrow", "parts_marked", Cell::Refuses, NO_VECTORS),
    ("daft", "marked", Cell::Refuses, NO_VECTORS),
    ("daft", "large", Cell::Refuses, NO_VECTORS),
    ("daft", "parts_marked", Cell::Refuses, NO_VECTORS),
    ("datafusion", "marked", Cell::Refuses, NO_VECTORS),
    ("datafusion", "large", Cell::Refuses, NO_VECTORS),
    ("datafusion", "parts_marked", Cell::Refuses, NO_VECTORS),
    ("clickhouse", "marked", Cell::Miscounts, COUNTS),
    ("clickhouse", "large", Cell::Miscounts, COUNTS),
    ("clickhouse", "parts_marked", Cell::Miscounts, COUNTS),
];
const NO_VECTORS: &str = "does not know the feature `deletionVectors` and says so";
const COUNTS: &str = "reads the right rows; `count()` without a column counts deleted ones, but for \
    `SETTINGS optimize_trivial_count_query = 0` \
    ([issue 114933](https://github.com/ClickHouse/ClickHouse/issues/114933))";

/// What older versions did, tried by hand.
const OLDER: &str = "- deltalake's query builder before 1.6.6 reads a large file in parts and marks the wrong \
    rows of it as deleted: 1.5.1, 1.6.0, 1.6.2 and 1.6.3 gave other sums from one query to the next \
    ([pull request 4692](https://github.com/delta-io/delta-rs/pull/4692)).\n";

/// What a reader makes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Right,
    Refuses,
    Miscounts,
    Wrong,
}

impl Cell {
    fn text(self) -> &'static str {
        match self {
            Cell::Right => "right",
            Cell::Refuses => "refuses",
            Cell::Miscounts => "right, but for `count()`",
            Cell::Wrong => "**wrong**",
        }
    }
}

#[derive(Debug, Deserialize)]
struct Seen {
    #[serde(default)]
    rows: i64,
    count: Option<i64>,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    schema: HashMap<String, String>,
    #[serde(default)]
    version: String,
    error: Option<String>,
}

/// `readers::polars` and so on, all over the tables of one run.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let chosen = READERS.iter().filter(|(name, _)| select(&format!("readers::{name}")));
    let chosen: Vec<_> = chosen.copied().collect();
    if chosen.is_empty() {
        return Vec::new();
    }
    let mut names: Vec<String> =
        chosen.iter().map(|(name, _)| format!("readers::{name}")).collect();
    let whole = chosen.len() == READERS.len();
    if whole {
        names.push("readers::matrix".to_owned());
    }
    let count = names.len();
    let run = move || match everything(&chosen, whole) {
        Ok(results) => results,
        Err(e) => (0..count).map(|_| Err(e.clone())).collect(),
    };
    vec![Job { names, run: Box::new(run) }]
}

fn everything(readers: &[(&'static str, &str)], whole: bool) -> Res<Vec<Res<()>>> {
    let settings: Vec<_> = TABLES.iter().map(|(table, _, lines)| (*table, *lines)).collect();
    let scene = Scene::with(Server::Pg15, Store::Local, "readers", SCHEMA, &settings)?;
    let marked = TABLES.iter().filter(|(_, _, lines)| lines.contains(VECTORS));
    let answer = scene.setup.command(&["check"])?;
    marked
        .into_iter()
        .try_for_each(|(table, _, _)| has(&answer.stdout, &format!("public.{table}")))?;
    has(&answer.stdout, "not every reader reads tables with deletion vectors")?;
    change(&scene)?;
    in_several_groups(Path::new(&scene.url("large")))?;
    // The rows are the source's, as DuckDB sees them; then everyone has to see the same.
    let mirrors = TABLES.iter().map(|(table, _, _)| *table);
    for table in mirrors.filter(|table| !SHAPED.contains(table)) {
        // A column that was dropped stays in the lake.
        let allow = Allow { extra_columns: table == "evolved", ..Allow::default() };
        equal(&scene.pg, "public", table, &scene.url(table), &allow)?;
    }
    let paths: Vec<String> = TABLES
        .iter()
        .map(|(table, _, _)| match *table {
            "numbers" => format!("{}#n={NUMBER}", scene.url(table)),
            _ => scene.url(table),
        })
        .collect();
    let truth = read("duckdb", "duckdb", &paths)?;
    for ((table, _, _), seen) in TABLES.iter().zip(&truth) {
        check(seen.error.is_none(), || format!("duckdb, {table}: {seen:?}"))?;
        let sql = match *table {
            "numbers" => format!("select count(*) from numbers where n = {NUMBER}"),
            // Each statement above was a transaction of one table.
            "listed" => "select 200 + 3 * 4 + 3 * 2".to_owned(),
            "buried" => "select count(*) + 6 from buried".to_owned(),
            _ => format!("select count(*) from {table}"),
        };
        let rows = scene.pg.text(&sql)?;
        check(rows.as_deref() == Some(&seen.rows.to_string()), || {
            format!("{table}: duckdb sees {} rows, the source has {rows:?}", seen.rows)
        })?;
    }
    let mut matrix: BTreeMap<&str, (String, Vec<Cell>)> = BTreeMap::new();
    let mut results = Vec::new();
    for (name, home) in readers {
        let judged = judge(name, home, &paths, &truth);
        results.push(
            judged
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|(_, _, faults)| check(faults.is_empty(), || faults.join("\n"))),
        );
        if let Ok((version, cells, _)) = judged {
            matrix.insert(name, (version, cells));
        }
    }
    if whole {
        results.push(documented(readers, &matrix));
    }
    Ok(results)
}

fn change(scene: &Scene) -> Res<()> {
    in_one_flush(scene)?;
    scene.pg.exec("delete from large where id % 50 = 0")?;
    scene.pg.exec("update large set v = v || 'u' where id % 50 = 5")?;
    for n in 0..3 {
        scene.pg.exec(&format!("update orders set paid = not paid where id % 7 = {n}"))?;
        scene.pg.exec(&format!("delete from orders where id % 100 = {n}"))?;
        for table in ["marked", "parts", "parts_marked"] {
            scene.pg.exec(&format!("delete from {table} where id % 50 = {n}"))?;
            scene.pg.exec(&format!("update {table} set v = v || 'u' where id % 50 = {}", n + 5))?;
        }
        scene.pg.exec(&format!("insert into keyless values ({n}, 'new'), ({n}, 'new')"))?;
        for table in ["listed", "buried"] {
            scene.pg.exec(&format!("delete from {table} where id in ({0}, {0} + 10)", n + 1))?;
            scene.pg.exec(&format!("update {table} set v = 'u' where id % 50 = {}", n + 20))?;
        }
        scene.run_until_current()?;
    }
    for sql in [
        "alter table evolved rename v to w; update evolved set w = 'renamed' where id < 50",
        "alter table evolved alter n type numeric(12,2); \
         update evolved set n = 9999999999.99 where id = 7",
        "alter table evolved drop gone; update evolved set w = 'dropped' where id < 10",
        "alter table evolved add late date; update evolved set late = '2024-02-29' where id < 5",
    ] {
        scene.pg.exec(sql)?;
        scene.run_until_current()?;
    }
    for n in 0..14 {
        scene.pg.exec(&format!("update often set v = v || {n} where id % 20 = {n}"))?;
        scene.pg.exec(&format!("insert into often values ({}, 'new')", 10_000 + n))?;
        scene.run_until_current()?;
    }
    scene.pg.exec("update types set b = not b; delete from emptied")?;
    scene.pg.exec("delete from keyless where a = 3; insert into naive values (3, '0001-01-01')")?;
    scene.run_until_current()
}

/// A file of the table is so large, and has so many row groups, that engines read it in parts: only
/// there can they mark the wrong rows (DataFusion's `repartition_file_min_size` is 10 MiB).
fn in_several_groups(table: &Path) -> Res<()> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(table).context("the files of a table")? {
        let path = entry.context("a file of a table")?.path();
        if path.extension().is_none_or(|kind| kind != "parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).context("a file of a table")?;
        let bytes = file.metadata().context("a file of a table")?.len();
        let read = ParquetRecordBatchReaderBuilder::try_new(file).context("a file of a table")?;
        seen.push((bytes, read.metadata().num_row_groups()));
    }
    check(seen.iter().any(|(bytes, groups)| *bytes > 10 << 20 && *groups > 1), || {
        format!("{} has no large file of several row groups: {seen:?}", table.display())
    })
}

/// The rows that are there, each table's in one file.
fn in_one_flush(scene: &Scene) -> Res<()> {
    let usual = std::fs::read_to_string(scene.setup.config()).context("the configuration")?;
    let large = usual.replace("\"200ms\"", "\"5s\"").replace("\"64MiB\"", "\"256MiB\"");
    check(large != usual, || format!("other settings than thought: {usual}"))?;
    std::fs::write(scene.setup.config(), large).context("the configuration")?;
    scene.run_until_current()?;
    scene.setup.write_config()
}

/// What a reader makes of each table, its version, and what is not as expected.
fn judge(
    name: &str,
    home: &str,
    paths: &[String],
    truth: &[Seen],
) -> Res<(String, Vec<Cell>, Vec<String>)> {
    let seen = read(name, home, paths)?;
    let (mut cells, mut faults) = (Vec::new(), Vec::new());
    for (((table, _, _), seen), truth) in TABLES.iter().zip(&seen).zip(truth) {
        let (cell, said) = match &seen.error {
            Some(error) => (Cell::Refuses, shortened(error, 300)),
            None if seen.rows != truth.rows || seen.hash != truth.hash => (
                Cell::Wrong,
                format!(
                    "{} rows, hash {}, {:?}; duckdb: {}, {}, {:?}",
                    seen.rows, seen.hash, seen.schema, truth.rows, truth.hash, truth.schema
                ),
            ),
            None if seen.count.is_some_and(|n| n != truth.rows) => {
                (Cell::Miscounts, format!("count(*) {:?}, not {}", seen.count, truth.rows))
            }
            None => (Cell::Right, String::new()),
        };
        let expected = EXPECTED.iter().find(|(r, t, _, _)| *r == name && t == table);
        let expected = expected.map_or(Cell::Right, |(_, _, cell, _)| *cell);
        // One that miscounts may come to count well.
        if cell != expected && !(expected == Cell::Miscounts && cell == Cell::Right) {
            faults.push(format!("{table}: {cell:?}, not {expected:?}: {said}"));
        }
        cells.push(cell);
    }
    let version = seen.iter().map(|seen| seen.version.clone()).find(|v| !v.is_empty());
    Ok((version.unwrap_or_default(), cells, faults))
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/readers.md")
}

/// The page of the documentation says what was seen.
fn documented(readers: &[(&str, &str)], matrix: &BTreeMap<&str, (String, Vec<Cell>)>) -> Res<()> {
    let mut text = String::from(
        "# Who reads the tables\n\n\
         Each reader read each table, which had been snapshotted, changed and changed again while \
         the daemon was down, and its rows were compared with what the others saw and with the \
         source. This page is written by `LAKEWARD_WRITE_DOCS=1 cargo test --test suite readers::` \
         (with the test servers running) and checked by every test run.\n\n",
    );
    let names: Vec<_> = readers.iter().map(|(name, _)| *name).collect();
    writeln!(text, "| table | {} |", names.join(" | ")).expect("a String takes all");
    writeln!(text, "| --- |{}", " --- |".repeat(names.len())).expect("a String takes all");
    for (at, (_, what, _)) in TABLES.iter().enumerate() {
        let cell = |name: &&str| matrix.get(*name).and_then(|(_, cells)| cells.get(at));
        let cells = names.iter().map(|name| cell(name).map_or("not seen", |cell| cell.text()));
        let cells: Vec<_> = cells.collect();
        writeln!(text, "| {what} | {} |", cells.join(" | ")).expect("a String takes all");
    }
    text.push_str("\nWhere a reader does not read the right rows:\n\n");
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (reader, table, _, why) in EXPECTED {
        reasons.entry((reader, why)).or_default().push(table);
    }
    for ((reader, why), _) in reasons {
        writeln!(text, "- {reader} {why}.").expect("a String takes all");
    }
    text.push_str(OLDER);
    text.push_str("\nThe versions tried:\n\n");
    for (name, (version, _)) in matrix {
        writeln!(text, "- {name}: {version}").expect("a String takes all");
    }
    if std::env::var_os("LAKEWARD_WRITE_DOCS").is_some() {
        return std::fs::write(page(), text).context("docs/readers.md");
    }
    let kept = std::fs::read_to_string(page()).context("docs/readers.md")?;
    // Versions go on; what readers make of the tables must be as it is said.
    let matrix = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with('|'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    check(matrix(&kept) == matrix(&text), || {
        format!("docs/readers.md says otherwise; what was seen now:\n{text}")
    })
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
