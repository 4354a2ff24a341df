//! The load on MySQL and MariaDB.

use serde_json::Value;

use super::load::{Load, Origin, Writer};
use crate::support::Res;
use crate::support::compare::{self, Allow};
use crate::support::daemon::{Setup, Source};
use crate::support::mysql::{self, My};
use crate::support::reader;

/// A deadlock, a lock that was waited for too long, and a key that is taken.
const GIVES_WAY: [&str; 3] = ["(1213)", "(1205)", "(1062)"];

/// The numbers from 1 to `count`, a derived table of one column `g`.
fn numbers(count: u32) -> String {
    let digits = "(select 0 n union all select 1 union all select 2 union all select 3 \
                  union all select 4 union all select 5 union all select 6 union all select 7 \
                  union all select 8 union all select 9)";
    let places = count.to_string().len();
    let from: Vec<String> = (0..places).map(|at| format!("{digits} d{at}")).collect();
    let sum: Vec<String> =
        (0..places).map(|at| format!("d{at}.n * {}", 10_u32.pow(at as u32))).collect();
    let (from, sum) = (from.join(", "), sum.join(" + "));
    format!("(select 1 + {sum} as g from {from} where 1 + {sum} <= {count}) numbers")
}

fn small_tables() -> [String; 7] {
    [
        "create table upsert(id int primary key, n int not null, note text, big longtext)".into(),
        format!(
            "insert into upsert select g, 0, 'start', repeat(left(sha2(g, 256), 32), 100) from {}",
            numbers(300)
        ),
        "create table other(a int, b int, v longtext, primary key (b, a))".into(),
        format!("insert into other select g % 10, g, 'o' from {}", numbers(200)),
        "create table keyless(a int, b varchar(20))".into(),
        format!("insert into keyless select g % 4, 'k' from {}", numbers(60)),
        "create table ledger(seq bigint not null, payload varchar(40) not null)".into(),
    ]
}

fn big_tables() -> [String; 6] {
    [
        "create table big_int(id int primary key, v varchar(400))".into(),
        format!("insert into big_int select g, left(sha2(g, 256), 32) from {}", numbers(150_000)),
        "create table big_text(k varchar(32) collate utf8mb4_bin primary key, v varchar(100))"
            .into(),
        format!(
            "insert into big_text select left(sha2(g, 256), 32), repeat(g, 10) from {}",
            numbers(60_000)
        ),
        "create table big_keyless(a int, b varchar(9))".into(),
        format!("insert into big_keyless select g % 1000, 'b' from {}", numbers(30_000)),
    ]
}

pub struct MySqlLoad<'a> {
    origin: &'a Origin,
    db: mysql::Database,
}

impl<'a> MySqlLoad<'a> {
    pub fn new(origin: &'a Origin, label: &str) -> Res<MySqlLoad<'a>> {
        let db = mysql::Database::at(&origin.url()?, label)?;
        let my = db.connect()?;
        small_tables().iter().try_for_each(|sql| my.exec(sql))?;
        Ok(MySqlLoad { origin, db })
    }

    fn each(&self, statements: &[impl AsRef<str>]) -> Res<()> {
        let my = self.db.connect()?;
        statements.iter().try_for_each(|sql| my.exec(sql.as_ref()))
    }
}

impl Load for MySqlLoad<'_> {
    fn schema(&self) -> &str {
        &self.db.name
    }

    fn source(&self, name: &str) -> Source {
        let tables = vec![format!("{}.*", self.db.name)];
        Source { tables, ..Source::new(name, &self.db.url) }
    }

    fn tables(&self) -> &'static [&'static str] {
        &["upsert", "other", "keyless", "ledger"]
    }

    fn big_tables(&self) -> &'static [&'static str] {
        &["big_int", "big_text", "big_keyless"]
    }

    fn grow(&self) -> Res<()> {
        self.each(&big_tables())
    }

    fn change_big(&self) -> Res<()> {
        self.each(&[
            "update big_int set v = concat('w', v) where id % 977 = 3",
            "delete from big_text where k like 'ab%' and v < '3'",
        ])
    }

    fn writer(&self) -> Res<Box<dyn Writer>> {
        let my = self.db.connect()?;
        my.exec("SET SESSION innodb_lock_wait_timeout = 5")?;
        Ok(Box::new(my))
    }

    fn equal(&self, setup: &Setup, source: &str, table: &str) -> Res<()> {
        let at = || format!("{}.{table}", self.db.name);
        let rows = mysql::source_rows(&self.db.connect()?, &self.db.name, table)?;
        let lake = reader::read(&setup.lake.table_url(source, &self.db.name, table))?;
        let lake = lake.ok_or_else(|| format!("{}: not in the lake", at()))?;
        compare::equal_rows(&rows, mysql::settled_rows(lake), &Allow::default())
            .map_err(|e| format!("{}: {e}", at()))
    }

    fn acknowledged(&self, _: &str, _: &Value) -> Res<Option<bool>> {
        Ok(None)
    }

    fn rotate(&self) -> Res<()> {
        self.each(&["flush binary logs"])
    }

    fn crash(&self) -> Res<()> {
        self.origin.crash()
    }
}

impl Writer for My {
    fn transact(&mut self, random: &mut fastrand::Rng, seqs: &[i64]) -> Res<bool> {
        let key = random.u32(1..400);
        let changes = (0..random.usize(1..5)).map(|_| change(random, key));
        let entries = seqs
            .iter()
            .map(|seq| format!("insert into ledger values ({seq}, left(sha2({seq}, 256), 32))"));
        let changes: Vec<String> = changes.chain(entries).collect();
        let begin = ["begin".to_owned()];
        let commit = ["commit".to_owned()];
        for sql in begin.iter().chain(&changes).chain(&commit) {
            match self.exec(sql) {
                Ok(()) => {}
                Err(e) if GIVES_WAY.iter().any(|code| e.contains(code)) => {
                    return self.exec("rollback").map(|()| false);
                }
                Err(e) => return Err(format!("{e}\n  in: {sql}")),
            }
        }
        Ok(true)
    }

    fn present(&mut self, seqs: &[i64]) -> Res<Vec<i64>> {
        let list: Vec<String> = seqs.iter().map(i64::to_string).collect();
        let sql = format!("select seq from ledger where seq in ({})", list.join(", "));
        let rows = self.rows(&sql)?;
        Ok(rows.into_iter().flatten().flatten().filter_map(|seq| seq.parse().ok()).collect())
    }
}

fn change(random: &mut fastrand::Rng, key: u32) -> String {
    match random.u32(0..9) {
        0 => format!(
            "insert into upsert values ({key}, 1, 'new', repeat('{key}', 2000)) \
             on duplicate key update n = n + 1"
        ),
        1 => format!("delete from upsert where id = {key}"),
        2 => format!("update upsert set id = -id where id in ({key}, -{key})"),
        3 => format!("update other set v = concat(v, 'x') where b % 20 = {}", key % 20),
        4 => format!("update other set a = a + 1 where b = {}", key % 200),
        5 => format!("insert into keyless values ({0}, 'k'), ({0}, 'k'), ({0}, 'k')", key % 4),
        6 => format!("delete from keyless where a = {} limit 2", key % 4),
        7 => format!("update keyless set b = 'u{}' where a = {} limit 1", key % 3, key % 4),
        _ => format!("update upsert set n = n + 1 where id between {key} and {}", key + 20),
    }
}
