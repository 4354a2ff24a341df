//! kill -9 of the real binary, at random and at chosen moments, while writers run; then row by
//! row the same, and a ledger in which nothing is lost or doubled.

mod steps;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::jobs::Job;
use crate::support::scene::{DELETION_VECTORS, Scene, check};
use crate::support::{Res, Server, Store, long};
use steps::{Histogram, Step, step};
use writer::{SCHEMA, Sent, TABLES, ledger_exact};

/// What is killed: a daemon that follows, or one that takes a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream,
    Snapshot,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    server: Server,
    store: Store,
    kind: Kind,
    kills: usize,
}

impl Plan {
    /// Of a snapshot's kills only those count that hit one.
    fn done(self, histogram: &Histogram) -> bool {
        let kills = match self.kind {
            Kind::Stream => histogram.total(),
            Kind::Snapshot => histogram.of(Step::InASnapshot),
        };
        kills >= self.kills
    }
}

const QUICK: &[Plan] = &[
    Plan { server: Server::Pg15, store: Store::Local, kind: Kind::Stream, kills: 9 },
    Plan { server: Server::Pg18, store: Store::Local, kind: Kind::Snapshot, kills: 6 },
    Plan { server: Server::Pg18, store: Store::S3, kind: Kind::Stream, kills: 6 },
];

/// 300 kills and more: 110 inside snapshots, 100 on S3.
const LONG: &[Plan] = &[
    Plan { server: Server::Pg15, store: Store::Local, kind: Kind::Stream, kills: 60 },
    Plan { server: Server::Pg18, store: Store::Local, kind: Kind::Stream, kills: 70 },
    Plan { server: Server::Pg15, store: Store::Local, kind: Kind::Snapshot, kills: 40 },
    Plan { server: Server::Pg18, store: Store::Local, kind: Kind::Snapshot, kills: 30 },
    Plan { server: Server::Pg15, store: Store::S3, kind: Kind::Snapshot, kills: 40 },
    Plan { server: Server::Pg18, store: Store::S3, kind: Kind::Stream, kills: 60 },
];

/// `kill::pg15::local::stream` and so on.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let plans = if long() { LONG } else { QUICK };
    let jobs = plans.iter().filter_map(|&plan| {
        let kind = if plan.kind == Kind::Stream { "stream" } else { "snapshot" };
        let name = format!("kill::{}::{}::{kind}", plan.server.name(), plan.store.name());
        select(&name).then(|| Job::single(name.clone(), move || run(plan, &name)))
    });
    jobs.collect()
}

fn run(plan: Plan, name: &str) -> Res<()> {
    let mut histogram = Histogram::default();
    let mut rounds = 0;
    let started = Instant::now();
    while !plan.done(&histogram) {
        // A snapshot that is complete can't be killed any more: a new round begins.
        round(plan, rounds, &mut histogram)?;
        rounds += 1;
        check(histogram.total() <= 8 * plan.kills, || {
            format!("too few kills hit what they were to hit:\n{histogram}")
        })?;
    }
    let seconds = started.elapsed().as_secs();
    eprintln!("\n{name}: {rounds} rounds, {seconds} s, kills by step of the flush:\n{histogram}");
    Ok(())
}

/// Every way of taking up changes: at once or staged, by rewriting or by deletion vectors.
const MERGING: &[(&str, &str)] = &[
    ("upsert", DELETION_VECTORS),
    ("other", "merge_interval = \"700ms\""),
    ("keyless", DELETION_VECTORS),
    ("keyless", "merge_interval = \"300ms\""),
    ("big_text", "merge_interval = \"1s\""),
];

fn round(plan: Plan, number: usize, histogram: &mut Histogram) -> Res<()> {
    let label = format!("kill_{:?}_{number}", plan.kind);
    let scene = Scene::with(plan.server, plan.store, &label, SCHEMA, MERGING)?;
    match plan.kind {
        Kind::Stream => scene.run_until_current()?,
        Kind::Snapshot => grow(&scene)?,
    }
    let sent = Sent::default();
    let stop = AtomicBool::new(false);
    let seed = fastrand::u64(..);
    std::thread::scope(|scope| -> Res<()> {
        let (db, sent, stop) = (&scene.db, &sent, &stop);
        let writers =
            [seed, seed ^ 1].map(|s| scope.spawn(move || writer::write(db, sent, stop, s)));
        let killed = kills(plan, &scene, histogram);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked".to_owned())??;
        }
        killed
    })?;
    scene.run_until_current()?;
    exact(plan, &scene, &sent).map_err(|e| format!("seed {seed}: {e}\n{histogram}"))
}

fn exact(plan: Plan, scene: &Scene, sent: &Sent) -> Res<()> {
    scene.all_equal(TABLES)?;
    if plan.kind == Kind::Snapshot {
        scene.all_equal(BIG)?;
    }
    ledger_exact(scene, sent)
}

/// The tables whose snapshot takes long enough to be killed in.
const BIG: &[&str] = &["big_int", "big_text", "big_keyless"];

fn grow(scene: &Scene) -> Res<()> {
    scene.pg.exec(
        "create table big_int(id int primary key, v text); \
         insert into big_int select g, md5(g::text) from generate_series(1, 150000) g; \
         create table big_text(k text primary key, v text); \
         insert into big_text select md5(g::text), repeat(g::text, 10) \
             from generate_series(1, 60000) g; \
         create table big_keyless(a int, b text); \
         alter table big_keyless replica identity full; \
         insert into big_keyless select g % 1000, 'b' from generate_series(1, 30000) g; \
         analyze",
    )
}

/// The kills of one round; a round of snapshots ends early when nothing is left to read.
fn kills(plan: Plan, scene: &Scene, histogram: &mut Histogram) -> Res<()> {
    for n in 0.. {
        if plan.done(histogram) {
            return Ok(());
        }
        let mut daemon = scene.setup.start()?;
        match plan.kind {
            Kind::Stream => moment(scene, &mut daemon, n)?,
            Kind::Snapshot => {
                scene.pg.exec("update big_int set v = 'w' || v where id % 977 = 3")?;
                scene.pg.exec("delete from big_text where k like 'ab%' and v < '3'")?;
                snapshot_moment(scene, &mut daemon, n)?;
            }
        }
        daemon.kill()?;
        let step = step(scene)?;
        histogram.add(step);
        if n % 4 == 3 {
            scene.setup.forget_state()?;
        }
        let snapshot_over = !matches!(step, Step::InASnapshot | Step::BeforeTheFirstEpoch);
        if plan.kind == Kind::Snapshot && snapshot_over {
            return Ok(());
        }
    }
    Ok(())
}

fn life(scene: &Scene, daemon: &mut Daemon, length: Duration) -> Res<()> {
    match daemon.wait(length)? {
        None => Ok(()),
        Some(status) => {
            Err(format!("the daemon ended by itself with {status}\n{}", scene.setup.tail()))
        }
    }
}

/// Lets the daemon live until a chosen moment: in turns a random one, the next epoch file, the
/// next table commit, and just after all commits of a flush.
fn moment(scene: &Scene, daemon: &mut Daemon, n: usize) -> Res<()> {
    let limit = Instant::now() + Duration::from_secs(20);
    match n % 4 {
        0 => life(scene, daemon, Duration::from_millis(fastrand::u64(100..1500))),
        1 => next(daemon, limit, || epoch(scene), 1),
        2 => next(daemon, limit, || commits(scene), 1),
        _ => {
            next(daemon, limit, || commits(scene), TABLES.len() as u64)?;
            life(scene, daemon, Duration::from_millis(fastrand::u64(0..30)))
        }
    }
    .map_err(|e| format!("{e}\n{}", scene.setup.tail()))
}

/// In turns a random moment after the start, and one after the next epoch file.
fn snapshot_moment(scene: &Scene, daemon: &mut Daemon, n: usize) -> Res<()> {
    if n.is_multiple_of(2) {
        return life(scene, daemon, Duration::from_millis(fastrand::u64(200..2500)));
    }
    let limit = Instant::now() + Duration::from_secs(20);
    next(daemon, limit, || epoch(scene), 1).map_err(|e| format!("{e}\n{}", scene.setup.tail()))?;
    life(scene, daemon, Duration::from_millis(fastrand::u64(0..300)))
}

/// Waits until the count has grown by `by`.
fn next(daemon: &mut Daemon, limit: Instant, count: impl Fn() -> Res<u64>, by: u64) -> Res<()> {
    let before = count()?;
    while count()? < before + by {
        if let Some(status) = daemon.poll()? {
            return Err(format!("the daemon ended by itself with {status}"));
        }
        if Instant::now() > limit {
            return Err("no flush in 20 s, though rows are written all the time".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn epoch(scene: &Scene) -> Res<u64> {
    scene.setup.lake.newest(&["_lakeward", &scene.source, "epochs"])
}

/// The versions of all tables, summed: it grows with every commit.
fn commits(scene: &Scene) -> Res<u64> {
    let version = |table| scene.setup.lake.newest(&[&scene.source, "public", table, "_delta_log"]);
    TABLES.iter().map(|table| version(table)).sum()
}
