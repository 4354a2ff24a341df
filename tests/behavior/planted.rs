//! A hundred differences that somebody else has made in the lake, in columns of all types:
//! `lakeward verify` finds each, and repairs it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ::mongodb::Client;
use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::spec::BinarySubtype;
use ::mongodb::bson::{Binary, DateTime, Decimal128, Document, doc};
use serde_json::{Value, json};

use crate::support::daemon::{Setup, Source, source_name};
use crate::support::database::Database;
use crate::support::jobs::{Job, Slots};
use crate::support::postgres::block_on;
use crate::support::reader::python;
use crate::support::scene::{CURRENT, Test, check, trials};
use crate::support::{Context, Res, Server, Store, tag};

const OF_SQL: &[Test] = &[("hundred_of_a_hundred", of_mysql)];
const OF_DOCUMENTS: &[Test] = &[("hundred_of_a_hundred", of_mongodb)];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let servers = [Server::MySql, Server::MariaDb];
    let mut jobs = trials("behavior::planted", OF_SQL, &servers, select);
    jobs.extend(trials("behavior::planted", OF_DOCUMENTS, &[Server::Mongo], select));
    jobs
}

pub const ROWS: i64 = 4_000;

/// A hundred differences, in all columns; where each is.
pub struct Planted {
    pub key: &'static str,
    pub missing: BTreeSet<i64>,
    pub extra: BTreeSet<i64>,
    pub changed: BTreeMap<i64, String>,
}

impl Planted {
    pub fn none(key: &'static str) -> Planted {
        let (missing, extra, changed) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Planted { key, missing, extra, changed }
    }

    /// In a table of [`ROWS`] rows whose keys count from 1.
    pub fn new(key: &'static str, columns: &[&str]) -> Planted {
        let changed = (0..40).map(|n| (7 + 90 * n, columns[n as usize % columns.len()]));
        Planted {
            key,
            missing: (0..30).map(|n| 3 + 130 * n).collect(),
            extra: (0..30).map(|n| ROWS + 1 + 7 * n).collect(),
            changed: changed.map(|(id, column)| (id, column.to_owned())).collect(),
        }
    }

    pub fn plant(&self, url: &str) -> Res<()> {
        let mut changed: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (id, column) in &self.changed {
            changed.entry(column).or_default().push(*id);
        }
        let plan = json!({
            "url": url, "key": self.key,
            "missing": self.missing, "extra": self.extra, "changed": changed,
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behavior/plant.py");
        let mut command = Command::new(python("deltalake")?);
        let output = command.args([script, &plan.to_string()]).output().context("plant.py")?;
        check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub fn is_found(&self, found: &Value) -> Res<()> {
        let (mut missing, mut extra, mut changed) =
            (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for difference in found["differences"].as_array().into_iter().flatten() {
            let id = difference["key"][0].as_str().and_then(|key| key.parse().ok());
            let id: i64 = id.ok_or(format!("no key: {difference}"))?;
            let column = difference["columns"][0].as_str().unwrap_or_default().to_owned();
            match difference["kind"].as_str() {
                Some("missing") => drop(missing.insert(id)),
                Some("extra") => drop(extra.insert(id)),
                _ => drop(changed.insert(id, column)),
            }
        }
        let all = missing == self.missing && extra == self.extra && changed == self.changed;
        check(all, || format!("100 were planted; found: {found:#}"))
    }
}

/// The table t of a source.
struct Ground {
    setup: Setup,
    schema: String,
}

impl Ground {
    fn verify(&self, arguments: &[&str]) -> Res<(Option<i32>, Value)> {
        let source = &self.setup.sources[0].name;
        let all = [&["verify", source, "--json"], arguments].concat();
        let answer = self.setup.command(&all)?;
        let value: Value = serde_json::from_str(&answer.stdout)
            .map_err(|error| format!("{error}: {}\n{}", answer.all(), self.setup.tail()))?;
        Ok((answer.code, value[format!("{}.t", self.schema)].clone()))
    }

    /// Nothing is found before, each afterwards, and nothing once they are repaired.
    fn hundred(&self, plan: &Planted) -> Res<()> {
        self.setup.run_until_current(CURRENT)?;
        let (code, found) = self.verify(&[])?;
        let equal = found["outcome"] == "equal" && found["rows"] == ROWS;
        check(code == Some(0) && equal, || format!("before: {found:#}"))?;
        plan.plant(&self.setup.lake.table_url(&self.setup.sources[0].name, &self.schema, "t"))?;
        for repair in [&[][..], &["--repair"][..]] {
            let (code, found) = self.verify(repair)?;
            check(code == Some(1), || format!("exit code {code:?}"))?;
            plan.is_found(&found)?;
        }
        let (code, found) = self.verify(&[])?;
        let equal = found["outcome"] == "equal" && found["rows"] == ROWS;
        check(code == Some(0) && equal, || format!("after the repair: {found:#}"))
    }
}

/// Name, type, and value of the row `g`.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("i1", "tinyint", "g % 100"),
    ("i2", "smallint", "g % 30000"),
    ("i3", "mediumint", "g"),
    ("i4", "int", "g"),
    ("i8", "bigint", "g * 1000000007"),
    ("u8", "bigint unsigned", "18446744073709551615 - g"),
    ("f4", "float", "g / 3"),
    ("f8", "double", "g / 7"),
    ("n", "decimal(10,2)", "g / 100"),
    ("n38", "decimal(38,10)", "g / 7"),
    ("n65", "decimal(65,30)", "g / 7"),
    ("b8", "bit(8)", "g % 256"),
    ("y", "year", "2000 + g % 100"),
    ("d", "date", "date_add('2020-01-01', interval g % 1000 day)"),
    ("t", "time(6)", "sec_to_time(g)"),
    ("dt", "datetime(6)", "date_add('2020-01-01 00:00:00', interval g minute)"),
    ("ts", "timestamp(6)", "date_add('2020-01-01 00:00:00', interval g minute)"),
    ("v", "varchar(40)", "left(sha2(g, 256), 32)"),
    ("x", "text", "concat('row ', g)"),
    ("vb", "varbinary(20)", "unhex(left(sha2(g, 256), 32))"),
    ("bl", "blob", "unhex(left(sha2(g, 256), 32))"),
    ("e", "enum('a', 'b', 'c')", "elt(1 + g % 3, 'a', 'b', 'c')"),
    ("s", "set('a', 'b')", "elt(1 + g % 2, 'a', 'a,b')"),
    ("j", "json", "json_object('g', g)"),
];

fn of_mysql(server: Server) -> Res<()> {
    let _slots = Slots::take(server, 1);
    let db = Database::create(server, "planted", "")?;
    let session = db.session()?;
    let of = |part: &dyn Fn(&(&str, &str, &str)) -> String| {
        COLUMNS.iter().map(part).collect::<Vec<_>>().join(", ")
    };
    let columns = of(&|(name, kind, _)| format!("{name} {kind} null"));
    session.exec(&format!("create table t(id int primary key, {columns})"))?;
    session.exec("create table digits(n int primary key)")?;
    session.exec("insert into digits values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)")?;
    let values = of(&|(_, _, value)| (*value).to_owned());
    session.exec(&format!(
        "insert into t select g, {values} from (select 1 + a.n + 10 * b.n + 100 * c.n + 1000 * d.n \
         as g from digits a, digits b, digits c, digits d) numbers where g <= {ROWS}"
    ))?;
    let schema = db.schema("public").to_owned();
    let mut source = Source::new(&source_name(server, "planted"), db.url());
    source.tables = vec![format!("{schema}.t")];
    let setup = Setup::new(Store::Local, &source.name.clone(), vec![source])?;
    let names: Vec<_> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    Ground { setup, schema }.hundred(&Planted::new("id", &names))
}

/// A document with a field of each kind of value.
fn document(id: i32) -> Document {
    let bytes = id.to_be_bytes();
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
    let decimal: Option<Decimal128> = format!("{id}.50").parse().ok();
    let object =
        ObjectId::from_bytes([bytes, bytes, bytes].concat().try_into().unwrap_or_default());
    doc! {
        "_id": id, "i": id, "l": i64::from(id) << 33, "f": f64::from(id) / 3.0, "b": id % 2 == 0,
        "x": format!("row {id}"), "bin": binary, "dec": decimal, "o": object,
        "d": DateTime::from_millis(1_577_836_800_000 + i64::from(id)),
        "sub": { "z": id, "a": [id, null] }, "list": [id, "x"],
    }
}

const FIELDS: &[&str] = &["_doc", "i", "l", "f", "b", "x", "bin", "dec", "o", "d", "sub", "list"];

fn of_mongodb(server: Server) -> Res<()> {
    let (url, schema) = (server.url()?, format!("{}_planted", tag()));
    let db = block_on(async {
        let db = Client::with_uri_str(&url).await?.database(&schema);
        db.drop().await?;
        db.collection("t").insert_many((1..=ROWS as i32).map(document)).await?;
        Ok::<_, ::mongodb::error::Error>(db)
    });
    let db = db.map_err(|e| format!("making the collection: {e}"))?;
    let source = Source::mongodb(&source_name(server, "planted"), &url, &schema);
    let setup = Setup::new(Store::Local, &source.name.clone(), vec![source])?;
    Ground { setup, schema }.hundred(&Planted::new("_id", FIELDS))?;
    block_on(async { db.drop().await }).map_err(|e| format!("dropping the database: {e}"))
}
