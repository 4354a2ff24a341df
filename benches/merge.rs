//! What it costs to take up changes of a table that has many rows: the lake's side alone, without
//! a database.
//!
//! ```text
//! ./dev bench --only merge [--rows N] [--ratio] [--json FILE]
//! ```
//!
//! A table of N rows (20,000,000; those of W1) is made as a snapshot makes it, and one of 1,000,000.
//! Then, in both ways to merge: 1,000 random rows into each in turns, 10,000 of the newest, 100,000
//! random. Beside it, in the same run: the whole table decoded and encoded, a MERGE by delta-rs
//! where it is installed (`benches/merging.py`), keys that are looked up, and the start with and
//! without a saved index. What was wanted stands at the end. `--ratio` is only the first of these.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use lakeward::collapse::collapse;
use lakeward::delta::{Cache, Commit, Lake, LakeOptions, Merge, Table};
use lakeward_connectors::batch::{Batch, Builder};
use lakeward_connectors::schema::{Column, Identity, TableId, TableSchema, Type};
use lakeward_connectors::{Op, Value};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Map;

type Res<T = ()> = Result<T, Box<dyn Error>>;

const BIG: &str = "bench/orders";
const SMALL: &str = "bench/few_orders";
const SMALL_ROWS: u64 = 1_000_000;
/// Rows of a chunk, and chunks of a flush, while a table is made.
const CHUNK: u64 = 50_000;
const FLUSH: u64 = 10;
/// How often 1,000 rows go into either table.
const TURNS: usize = 99;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Res {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().skip_while(move |one| *one != name).nth(1);
    let rows: u64 = after("--rows").map_or(Ok(20_000_000), |text| text.parse())?;
    let here = tempfile::Builder::new().prefix("lakeward-merge.").tempdir_in(
        after("--dir").map_or_else(std::env::temp_dir, |dir| Path::new(dir).to_owned()),
    )?;
    println!("{:<46}{:>8}{:>10}{:>12}{:>10}", "", "wall s", "CPU s", "written MB", "RSS MiB");
    let ratio = arguments.iter().any(|one| one == "--ratio");
    let figures = measure(here.path(), rows, ratio).await?;
    figures.print();
    match after("--json") {
        Some(path) => figures.save(rows, Path::new(path)),
        None => Ok(()),
    }
}

/// Makes the tables and changes them; with `ratio`, only as far as that is told.
async fn measure(here: &Path, rows: u64, ratio: bool) -> Res<Figures> {
    let mut figures = Figures::default();
    let lake = open(here)?;
    let mut big = Bench::create(&lake, BIG, rows);
    let mut small = Bench::create(&lake, SMALL, SMALL_ROWS);
    small.fill().await?;
    let start = Measure::start();
    big.fill().await?;
    start.end(&format!("snapshot of {rows} rows"), &big.table);
    let start = Measure::start();
    big.table.save_index();
    start.end("  the index saved", &big.table);
    let index = on_disk(here)? as f64 / rows as f64;
    figures.add("index_bytes_a_row", index, "the index, bytes a row on disk", "at most 12");
    let memory = big.table.index_size() as f64 / f64::from(1 << 20);
    figures.add("index_mib", memory, "the index, MiB in memory", "");

    // The first to look puts in order what the snapshot left: small files, an index in parts.
    big.look_up(1).await?;
    let looked_up = 1e6 / big.look_up(1_000_000).await?;
    figures.add("looked_up", looked_up, "keys looked up a CPU second", "at least 1,000,000");
    big.table.set_merge(Merge::DeletionVectors);
    small.table.set_merge(Merge::DeletionVectors);
    let thousand = in_turns(&mut big, &mut small).await?;
    let what = "vectors: 1,000 of N rows / of 1,000,000";
    figures.add("vectors_thousand", thousand, what, "at most 1.3");
    if !ratio {
        merges(here, &mut big, &mut figures).await?;
        big.table.save_index();
        // They hold the lock on the saved indexes.
        drop((big, small, lake));
        starts(here, rows, &mut figures).await?;
    }
    Ok(figures)
}

/// Many rows into the large table, in both ways to merge, and the yardsticks beside them.
async fn merges(here: &Path, big: &mut Bench, figures: &mut Figures) -> Res {
    big.merge("DeletionVectors: 10,000 newest", 10_000, true).await?;
    let random = big.merge("DeletionVectors: 100,000 random", 100_000, false).await?;
    figures.add("vectors_random", random, "vectors: 100,000 random, CPU s", "at most 0.6");
    big.table.set_merge(Merge::Rewrite);
    let newest = big.merge("Rewrite: 10,000 newest", 10_000, true).await?;
    figures.add("rewrite_newest", newest, "rewrite: 10,000 newest, CPU s", "at most 0.5");
    let random = big.merge("Rewrite: 100,000 random", 100_000, false).await?;
    let table = here.join("lake").join(BIG);
    let start = Measure::start();
    recode(&table)?;
    let whole = start.end("the whole table decoded and encoded", &big.table);
    let what = "rewrite: 100,000 random / all recoded";
    figures.add("rewrite_random", random / whole, what, "at most 1.25");
    if let Some(cpu) = yardstick(&table, &here.join("copy"))? {
        figures.add("delta_rs_random", cpu, "delta-rs: MERGE of 100,000 random, CPU s", "");
    }
    Ok(())
}

/// The first change after a start, with and without a saved index.
async fn starts(here: &Path, rows: u64, figures: &mut Figures) -> Res {
    for what in ["start with the saved index", "start without"] {
        let lake = open(here)?;
        let start = Measure::start();
        let mut bench = Bench::create(&lake, BIG, rows);
        bench.table = Table::open(&lake, BIG).await?.ok_or("no table")?;
        bench.table.set_merge(Merge::DeletionVectors);
        let batch = bench.updates(1, false)?;
        bench.table.apply(&collapse(vec![batch])?).await?;
        let cpu = start.end(what, &bench.table);
        if what == "start without" {
            let built = rows as f64 / cpu;
            figures.add("built", built, "keys read and indexed a CPU second", "at least 5,000,000");
        }
        drop((bench, lake));
        std::fs::remove_dir_all(here.join("state"))?;
    }
    Ok(())
}

/// What is told at the end.
#[derive(Default)]
struct Figures(Vec<(&'static str, f64, &'static str, &'static str)>);

impl Figures {
    /// A figure by its name in the file, with what it is and what was wanted.
    fn add(&mut self, name: &'static str, figure: f64, what: &'static str, wanted: &'static str) {
        self.0.push((name, figure, what, wanted));
    }

    fn print(&self) {
        println!();
        for (_, figure, what, wanted) in &self.0 {
            let wanted =
                if wanted.is_empty() { String::new() } else { format!("   wanted: {wanted}") };
            println!("{what:<46}{figure:>14.2}{wanted}");
        }
    }

    fn save(&self, rows: u64, path: &Path) -> Res {
        let mut members = Map::new();
        members.insert("rows".to_owned(), rows.into());
        members.extend(self.0.iter().map(|&(name, figure, ..)| (name.to_owned(), figure.into())));
        Ok(std::fs::write(path, serde_json::to_string(&members)?)?)
    }
}

/// The CPU seconds of a MERGE by delta-rs into a copy of the table; nothing where delta-rs isn't
/// installed.
fn yardstick(table: &Path, copy: &Path) -> Res<Option<f64>> {
    let home = std::env::var("READERS_HOME").unwrap_or_default();
    let python = Path::new(&home).join("venvs/deltalake/bin/python");
    if !python.exists() {
        println!("delta-rs is not installed here (tests/readers/install deltalake)");
        return Ok(None);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/merging.py");
    let output = Command::new(python)
        .arg(script)
        .args([table, copy])
        .arg("100000")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the MERGE by delta-rs failed".into());
    }
    std::fs::remove_dir_all(copy)?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| told[name].as_f64().ok_or_else(|| format!("no {name}: {told}"));
    let (cpu, written, most) = (number("cpu_s")?, number("written")?, number("max_rss")?);
    println!(
        "{:<46}{:>8}{cpu:>10.3}{:>12.1}{:>10.0}   in a process of its own",
        "delta-rs: MERGE of 100,000 random",
        "",
        written / 1e6,
        most / f64::from(1 << 20),
    );
    Ok(Some(cpu))
}

/// 1,000 random rows into either table, in turns: how many times the CPU the large one takes, by the
/// medians, which are printed.
async fn in_turns(big: &mut Bench, small: &mut Bench) -> Res<f64> {
    let (mut of_big, mut of_small) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        of_small.push(small.change(1_000, false).await?.took());
        of_big.push(big.change(1_000, false).await?.took());
    }
    let median = |rows: u64, mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        let (median, most) = (of[TURNS / 2], of[TURNS - 1]);
        println!("DeletionVectors: 1,000 random of {rows}: CPU s {median:.4}, at most {most:.4}");
        median
    };
    let of_small = median(small.rows, of_small);
    Ok(median(big.rows, of_big) / of_small)
}

fn open(here: &Path) -> Res<Lake> {
    let url = here.join("lake").display().to_string();
    let cache = Cache::directory(&here.join("state"))?.limited(32 << 20);
    Ok(Lake::open(&LakeOptions { url, ..LakeOptions::default() })?.with_cache(cache))
}

/// The bytes that an index has in the state directory.
fn on_disk(here: &Path) -> Res<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(here.join("state/index-0").join(BIG))? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

/// A table whose keys are the even numbers.
struct Bench {
    table: Table,
    rows: u64,
    epoch: i64,
    seed: u64,
}

impl Bench {
    fn create(lake: &Lake, path: &str, rows: u64) -> Self {
        Self { table: Table::create(lake, path), rows, epoch: 0, seed: 7 }
    }

    /// Makes the table.
    async fn fill(&mut self) -> Res {
        let schema = schema();
        for (number, first) in (0..self.rows).step_by(CHUNK as usize).enumerate() {
            let mut builder = Builder::new(schema.clone());
            for row in first..(first + CHUNK).min(self.rows) {
                push(&mut builder, Op::Read, 2 * row, 0)?;
            }
            self.table.apply(&collapse(vec![builder.finish()])?).await?;
            if number as u64 % FLUSH == FLUSH - 1 {
                self.commit().await?;
            }
        }
        if self.table.has_pending() {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Res {
        self.epoch += 1;
        let txns = [("bench".to_owned(), self.epoch)];
        match self.table.commit(&txns, Map::new(), "BENCH").await? {
            Commit::Done { .. } => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Changes so many rows, and commits that; the CPU seconds it took.
    async fn merge(&mut self, what: &str, count: u64, newest: bool) -> Res<f64> {
        let start = self.change(count, newest).await?;
        Ok(start.end(what, &self.table))
    }

    /// Changes so many rows, and commits that; measured from where the changes are there.
    async fn change(&mut self, count: u64, newest: bool) -> Res<Measure> {
        let batch = self.updates(count, newest)?;
        let start = Measure::start();
        self.table.apply(&collapse(vec![batch])?).await?;
        self.commit().await?;
        Ok(start)
    }

    /// Deletes rows that are not there, which takes looking for them only; the CPU seconds it took.
    async fn look_up(&mut self, count: u64) -> Res<f64> {
        let mut builder = Builder::new(schema());
        for _ in 0..count {
            self.seed = mix(self.seed);
            let id = 2 * (self.seed % self.rows) + 1;
            let mut row = vec![Value::Null; 8];
            row[0] = Value::Int(id as i64);
            builder.push(Op::Delete, Some(&row), None)?;
        }
        let collapsed = collapse(vec![builder.finish()])?;
        let start = Measure::start();
        self.table.apply(&collapsed).await?;
        Ok(start.end(&format!("{count} keys looked up"), &self.table))
    }

    /// Updates of rows, each once.
    fn updates(&mut self, count: u64, newest: bool) -> Res<Batch> {
        let mut builder = Builder::new(schema());
        for number in 0..count {
            self.seed = mix(self.seed);
            let row = match newest {
                true => self.rows - count + number,
                false => self.seed % self.rows,
            };
            push(&mut builder, Op::Update, 2 * row, self.seed)?;
        }
        Ok(builder.finish())
    }
}

fn schema() -> Arc<TableSchema> {
    let column = |(id, (name, kind)): (u32, (&str, Type))| Column {
        id,
        name: name.to_owned(),
        kind,
        source_type: String::new(),
        compare: Default::default(),
        missing: None,
    };
    let columns = [
        ("id", Type::Int64),
        ("customer_id", Type::Int32),
        ("status", Type::Text),
        ("amount", Type::Decimal { precision: 12, scale: 2 }),
        ("note", Type::Text),
        ("created_at", Type::Timestamp),
        ("updated_at", Type::Timestamp),
        ("attrs", Type::Text),
    ];
    Arc::new(TableSchema {
        id: TableId::new("public", "orders"),
        columns: (1..).zip(columns).map(column).collect(),
        identity: Identity::Key(vec![0]),
        storage: String::new(),
        lasting_ids: false,
    })
}

/// A row like those of W1.
fn push(builder: &mut Builder, op: Op, id: u64, version: u64) -> Res {
    const STATES: [&str; 6] = ["new", "paid", "packed", "shipped", "delivered", "returned"];
    let (a, b) = (mix(id ^ version), mix(id.wrapping_add(version) ^ 0x5555));
    let note = format!("order {id} {:016x}{:010x}", a, b >> 24);
    let attrs = format!(
        r#"{{"w": {}, "gift": {}, "items": {}, "coupon": "{:010x}", "channel": "web"}}"#,
        (b >> 40) % 65_536,
        b.is_multiple_of(2),
        b % 16,
        a >> 24
    );
    let mut row = builder.row();
    for value in [
        Value::Int(id as i64),
        Value::Int((a % 262_144) as i64),
        Value::Text(STATES[(a >> 20) as usize % STATES.len()]),
        Value::Decimal(i128::from(b % 100_000_000)),
        if id.is_multiple_of(50) { Value::Null } else { Value::Text(&note) },
        Value::Timestamp(1_700_000_000_000_000 + (a % (1 << 45)) as i64),
        Value::Timestamp(1_750_000_000_000_000 + (b % (1 << 43)) as i64),
        Value::Text(&attrs),
    ] {
        row.push(&value);
    }
    Ok(row.finish(op, None)?)
}

/// The finalizer of MurmurHash3, for numbers that look random.
fn mix(mut number: u64) -> u64 {
    number =
        (number ^ (number >> 33)).wrapping_add(0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

/// Decodes every data file and writes its rows to nowhere, a row group at a time.
fn recode(table: &Path) -> Res {
    for file in std::fs::read_dir(table)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path)?)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(128 * 1024))
            .build();
        let mut writer =
            ArrowWriter::try_new(std::io::sink(), reader.schema().clone(), Some(properties))?;
        for batch in reader.with_batch_size(8192).build()? {
            writer.write(&batch?)?;
        }
        writer.close()?;
    }
    Ok(())
}

/// What something took of this process.
struct Measure {
    wall: Instant,
    cpu: f64,
    written: f64,
}

impl Measure {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu(), written: written() }
    }

    /// The CPU seconds until now.
    fn took(&self) -> f64 {
        cpu() - self.cpu
    }

    /// Prints it; the CPU seconds.
    fn end(self, what: &str, table: &Table) -> f64 {
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), self.took());
        let written = (written() - self.written) / 1e6;
        println!(
            "{what:<46}{wall:>8.3}{cpu:>10.3}{written:>12.1}{:>10.0}   {} files",
            resident(),
            table.files()
        );
        cpu
    }
}

fn field(file: &str, name: &str) -> f64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes that this process has written.
fn written() -> f64 {
    field("/proc/self/io", "wchar:")
}

/// What this process has of memory at most, in MiB.
fn resident() -> f64 {
    field("/proc/self/status", "VmHWM:") / 1024.0
}
