//! The load during the kills: two writers over tables of every kind, and a ledger that the
//! writers count themselves.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::support::postgres::{Database, Pg};
use crate::support::scene::{Scene, check};
use crate::support::{Res, reader};

pub const TABLES: &[&str] = &["upsert", "other", "keyless", "ledger"];

pub const SCHEMA: &str = "\
    create table upsert(id int primary key, n int not null, note text, big text); \
    alter table upsert alter big set storage external; \
    insert into upsert select g, 0, 'start', repeat(md5(g::text), 100) \
        from generate_series(1, 300) g; \
    create table other(a int, b int, v text, primary key (b, a)); \
    insert into other select g % 10, g, 'o' from generate_series(1, 200) g; \
    create table keyless(a int, b text); \
    alter table keyless replica identity full; \
    insert into keyless select g % 4, 'k' from generate_series(1, 60) g; \
    create table ledger(seq bigint not null, payload text not null); \
    alter table ledger replica identity full";

/// What the writers know they have committed to the ledger.
#[derive(Default)]
pub struct Sent {
    rows: AtomicI64,
    sum: AtomicI64,
    next: AtomicI64,
}

/// Deadlock, and a key that is taken meanwhile.
const GIVES_WAY: [&str; 2] = ["40P01", "23505"];

/// Writes at random until `stop`; a transaction commits, gives way, or fails the test.
pub fn write(db: &Database, sent: &Sent, stop: &AtomicBool, seed: u64) -> Res<()> {
    let pg = Pg::connect(&db.url)?;
    let mut random = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let (sql, rows, sum) = transaction(&mut random, sent);
        if let Err(e) = pg.exec(&sql) {
            // The writers meet on the same rows; the one that gives way has written nothing.
            if !GIVES_WAY.iter().any(|code| e.contains(code)) {
                return Err(format!("writer, seed {seed}: {e}\n  in: {sql}"));
            }
            pg.exec("rollback")?;
            continue;
        }
        sent.rows.fetch_add(rows, Ordering::Relaxed);
        sent.sum.fetch_add(sum, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(random.u64(1..15)));
    }
    Ok(())
}

/// One transaction, and what it adds to the ledger.
fn transaction(random: &mut fastrand::Rng, sent: &Sent) -> (String, i64, i64) {
    let key = random.u32(1..400);
    let mut statements = Vec::new();
    let (mut rows, mut sum) = (0, 0);
    for _ in 0..random.usize(1..5) {
        statements.push(match random.u32(0..9) {
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
                "delete from keyless where ctid in \
                 (select ctid from keyless where a = {} limit 2)",
                key % 4
            ),
            7 => format!(
                "update keyless set b = 'u{}' where ctid in \
                 (select ctid from keyless where a = {} limit 1)",
                key % 3,
                key % 4
            ),
            _ => format!("update upsert set n = n + 1 where id between {key} and {}", key + 20),
        });
    }
    for _ in 0..random.usize(1..4) {
        let seq = sent.next.fetch_add(1, Ordering::Relaxed) + 1;
        statements.push(format!("insert into ledger values ({seq}, md5('{seq}'))"));
        rows += 1;
        sum += seq;
    }
    let body = statements.join("; ");
    (format!("begin; {body}; commit"), rows, sum)
}

/// The lake's ledger holds exactly what was sent: not a row less, none twice.
pub fn ledger_exact(scene: &Scene, sent: &Sent) -> Res<()> {
    let lake = reader::read(&scene.url("ledger"))?.ok_or("the ledger is not in the lake")?;
    let place = lake.columns.iter().position(|c| c == "seq").ok_or("the ledger has no seq")?;
    let mut seqs = Vec::with_capacity(lake.rows.len());
    for row in &lake.rows {
        let text = row[place].as_deref().ok_or("a seq is NULL")?;
        seqs.push(text.parse::<i64>().map_err(|e| format!("seq {text}: {e}"))?);
    }
    let (rows, sum) = (sent.rows.load(Ordering::Relaxed), sent.sum.load(Ordering::Relaxed));
    let have = (seqs.len() as i64, seqs.iter().sum::<i64>());
    seqs.sort_unstable();
    seqs.dedup();
    let distinct = seqs.len() as i64;
    check(have == (rows, sum) && distinct == rows, || {
        format!("ledger: {rows} rows sent, sum {sum}; lake has {have:?}, {distinct} distinct")
    })
}
