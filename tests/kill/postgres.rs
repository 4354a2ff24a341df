//! The load on Postgres.

use serde_json::Value;

use super::load::{Load, Writer};
use crate::support::compare::{self, Allow};
use crate::support::daemon::{Setup, Source};
use crate::support::postgres::{Database, Pg, literal};
use crate::support::{Res, Server};

const SCHEMA: &str = "\
    create table upsert(id int primary key, n int not null, note text, big text); \
    alter table upsert alter big set storage external; \
    insert into upsert select g, 0, 'start', repeat(md5(g::text), 100) \
        from generate_series(1, 300) g; \
    create table other(a int, b int, v text, primary key (b, a)); \
    insert into other select g % 10, g, 'o' from generate_series(1, 200) g; \
    create table keyless(a int, b text); \
    alter table keyless replica identity full; \
    insert into keyless select g % 4, 'k' from generate_series(1, 60) g; \
    create table churned(id int primary key, v text); \
    insert into churned select g, (select string_agg(md5(random()::text || g || i), '') \
        from generate_series(1, 8) i) from generate_series(1, 20000) g; \
    create table ledger(seq bigint not null, payload text not null); \
    alter table ledger replica identity full";

const BIG: &str = "\
    create table big_int(id int primary key, v text); \
    insert into big_int select g, md5(g::text) from generate_series(1, 150000) g; \
    create table big_text(k text primary key, v text); \
    insert into big_text select md5(g::text), repeat(g::text, 10) \
        from generate_series(1, 60000) g; \
    create table big_keyless(a int, b text); \
    alter table big_keyless replica identity full; \
    insert into big_keyless select g % 1000, 'b' from generate_series(1, 30000) g; \
    analyze";

/// Deadlock, and a key that is taken meanwhile.
const GIVES_WAY: [&str; 2] = ["40P01", "23505"];

pub struct PostgresLoad {
    pg: Pg,
    // Dropped last, when nothing is connected any more.
    db: Database,
}

impl PostgresLoad {
    pub fn new(server: Server, label: &str) -> Res<PostgresLoad> {
        let db = Database::create(server, label, "")?;
        let pg = db.connect()?;
        pg.exec(SCHEMA)?;
        Ok(PostgresLoad { pg, db })
    }
}

impl Load for PostgresLoad {
    fn schema(&self) -> &str {
        "public"
    }

    fn source(&self, name: &str) -> Source {
        Source::new(name, &self.db.url)
    }

    fn tables(&self) -> &'static [&'static str] {
        &["upsert", "other", "keyless", "churned", "ledger"]
    }

    fn big_tables(&self) -> &'static [&'static str] {
        &["big_int", "big_text", "big_keyless"]
    }

    fn grow(&self) -> Res<()> {
        self.pg.exec(BIG)
    }

    fn change_big(&self) -> Res<()> {
        self.pg.exec("update big_int set v = 'w' || v where id % 977 = 3")?;
        self.pg.exec("delete from big_text where k like 'ab%' and v < '3'")
    }

    fn churn(&self, random: u32) -> Res<()> {
        self.pg.exec(&format!(
            "update churned set v = (select string_agg(md5(random()::text || id || i), '') \
             from generate_series(1, 8) i) where id % 4 = {}",
            random % 4
        ))
    }

    fn writer(&self) -> Res<Box<dyn Writer>> {
        Ok(Box::new(Pg::connect(&self.db.url)?))
    }

    fn equal(&self, setup: &Setup, source: &str, table: &str) -> Res<()> {
        let url = setup.lake.table_url(source, "public", table);
        compare::equal(&self.pg, "public", table, &url, &Allow::default())
    }

    fn acknowledged(&self, source: &str, to: &Value) -> Res<Option<bool>> {
        let to = to.as_str().ok_or("the epoch file has no position")?;
        let sql = format!(
            "select confirmed_flush_lsn >= {}::pg_lsn from pg_replication_slots \
             where slot_name = 'lakeward_{source}'",
            literal(to)
        );
        Ok(Some(self.pg.text(&sql)?.as_deref() == Some("t")))
    }

    fn rotate(&self) -> Res<()> {
        self.pg.exec("select pg_switch_wal()")
    }
}

impl Writer for Pg {
    fn transact(&mut self, random: &mut fastrand::Rng, seqs: &[i64]) -> Res<bool> {
        let key = random.u32(1..400);
        let changes: Vec<String> = (0..random.usize(1..5))
            .map(|_| change(random, key))
            .chain(seqs.iter().map(entry))
            .collect();
        let sql = format!("begin; {}; commit", changes.join("; "));
        match self.exec(&sql) {
            Ok(()) => Ok(true),
            // The writers meet on the same rows; the one that gives way has written nothing.
            Err(e) if GIVES_WAY.iter().any(|code| e.contains(code)) => {
                self.exec("rollback").map(|()| false)
            }
            Err(e) => Err(format!("{e}\n  in: {sql}")),
        }
    }

    fn present(&mut self, seqs: &[i64]) -> Res<Vec<i64>> {
        let list: Vec<String> = seqs.iter().map(i64::to_string).collect();
        let sql = format!("select seq from ledger where seq in ({})", list.join(", "));
        let rows = self.rows(&sql)?;
        Ok(rows.into_iter().flatten().flatten().filter_map(|seq| seq.parse().ok()).collect())
    }
}

fn entry(seq: &i64) -> String {
    format!("insert into ledger values ({seq}, md5('{seq}'))")
}

fn change(random: &mut fastrand::Rng, key: u32) -> String {
    match random.u32(0..9) {
        0 => format!(
            "insert into upsert values ({key}, 1, 'new', repeat('{key}', 2000)) \
             on conflict (id) do update set n = upsert.n + 1"
        ),
        1 => format!("delete from upsert where id = {key}"),
        2 => format!("update upsert set id = -id where id in ({key}, -{key})"),
        3 => format!("update other set v = v || 'x' where b % 20 = {}", key % 20),
        4 => format!("update other set a = a + 1 where b = {}", key % 200),
        5 => format!("insert into keyless select {}, 'k' from generate_series(1, 3)", key % 4),
        6 => format!(
            "delete from keyless where ctid in (select ctid from keyless where a = {} limit 2)",
            key % 4
        ),
        7 => format!(
            "update keyless set b = 'u{}' where ctid in \
             (select ctid from keyless where a = {} limit 1)",
            key % 3,
            key % 4
        ),
        _ => format!("update upsert set n = n + 1 where id between {key} and {}", key + 20),
    }
}
