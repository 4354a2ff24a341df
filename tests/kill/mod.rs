//! kill -9 of the real binary, at random and at chosen moments, while writers run; then row by
//! row the same, and a ledger in which nothing is lost or doubled.
//!
//! MySQL, MariaDB and MongoDB's stand-in are servers of the test's own here: their binary log is
//! rotated and they are crashed between some of the kills.

mod ledger;
mod load;
mod mongodb;
mod mysql;
mod postgres;
mod steps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::jobs::Job;
use crate::support::scene::check;
use crate::support::{Res, Server, Store, long};
use ledger::{Ledger, write};
use load::Field;
use steps::{Histogram, Step, step};

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
    const fn new(server: Server, store: Store, kind: Kind, kills: usize) -> Plan {
        Plan { server, store, kind, kills }
    }

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
    Plan::new(Server::Pg15, Store::Local, Kind::Stream, 9),
    Plan::new(Server::Pg18, Store::Local, Kind::Snapshot, 6),
    Plan::new(Server::Pg18, Store::S3, Kind::Stream, 6),
    Plan::new(Server::MySql, Store::Local, Kind::Stream, 7),
    Plan::new(Server::MySql, Store::Local, Kind::Snapshot, 4),
    Plan::new(Server::MariaDb, Store::Local, Kind::Stream, 7),
    Plan::new(Server::Mongo, Store::Local, Kind::Stream, 7),
    Plan::new(Server::Mongo, Store::Local, Kind::Snapshot, 4),
];

/// 300 kills and more of Postgres (110 inside snapshots, 100 on S3), and of each other source 200
/// and more, half of them inside snapshots.
const LONG: &[Plan] = &[
    Plan::new(Server::Pg15, Store::Local, Kind::Stream, 60),
    Plan::new(Server::Pg18, Store::Local, Kind::Stream, 70),
    Plan::new(Server::Pg15, Store::Local, Kind::Snapshot, 40),
    Plan::new(Server::Pg18, Store::Local, Kind::Snapshot, 30),
    Plan::new(Server::Pg15, Store::S3, Kind::Snapshot, 40),
    Plan::new(Server::Pg18, Store::S3, Kind::Stream, 60),
    Plan::new(Server::MySql, Store::Local, Kind::Stream, 80),
    Plan::new(Server::MySql, Store::S3, Kind::Stream, 20),
    Plan::new(Server::MySql, Store::Local, Kind::Snapshot, 100),
    Plan::new(Server::MariaDb, Store::Local, Kind::Stream, 100),
    Plan::new(Server::MariaDb, Store::Local, Kind::Snapshot, 100),
    Plan::new(Server::Mongo, Store::Local, Kind::Stream, 80),
    Plan::new(Server::Mongo, Store::S3, Kind::Stream, 20),
    Plan::new(Server::Mongo, Store::Local, Kind::Snapshot, 100),
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
    let (mut rounds, mut compacted) = (0, 0);
    let started = Instant::now();
    let origin = load::origin(plan.server)?;
    while !plan.done(&histogram) {
        // A snapshot that is complete can't be killed any more: a new round begins.
        let label = format!("kill_{:?}_{}_{rounds}", plan.kind, plan.store.name());
        let field = Field::new(&origin, plan.store, &label.to_lowercase())?;
        round(plan, &field, &mut histogram)?;
        if field.load.tables().contains(&"churned") {
            compacted += field.compacted("churned")?;
        }
        rounds += 1;
        check(histogram.total() <= 8 * plan.kills, || {
            format!("too few kills hit what they were to hit:\n{histogram}")
        })?;
    }
    let seconds = started.elapsed().as_secs();
    eprintln!("\n{name}: {rounds} rounds, {seconds} s, kills by step of the flush:\n{histogram}");
    if plan.server.is_postgres() && plan.kind == Kind::Stream {
        eprintln!("    {compacted:5}  large files compacted meanwhile");
        check(compacted > 0, || "no file was compacted".to_owned())?;
    }
    Ok(())
}

fn round(plan: Plan, field: &Field, histogram: &mut Histogram) -> Res<()> {
    match plan.kind {
        Kind::Stream => field.run_until_current()?,
        Kind::Snapshot => field.load.grow()?,
    }
    let ledger = Ledger::default();
    let stop = AtomicBool::new(false);
    let seed = fastrand::u64(..);
    std::thread::scope(|scope| -> Res<()> {
        let (load, ledger, stop) = (&*field.load, &ledger, &stop);
        let writers = [seed, seed ^ 1].map(|s| scope.spawn(move || write(load, ledger, stop, s)));
        let killed = kills(plan, field, ledger, histogram);
        stop.store(true, Ordering::Relaxed);
        let joined = writers.map(|w| w.join().map_err(|_| "a writer panicked".to_owned()));
        // A writer that finds no server may only have met what has ended the kills.
        killed?;
        joined.into_iter().try_for_each(|wrote| wrote?)
    })?;
    field.run_until_current()?;
    exact(plan, field, &ledger)
        .map_err(|e| format!("seed {seed}: {e}\n{histogram}\n{}", field.setup.tail()))
}

fn exact(plan: Plan, field: &Field, ledger: &Ledger) -> Res<()> {
    field.all_equal(field.load.tables())?;
    if plan.kind == Kind::Snapshot {
        field.all_equal(field.load.big_tables())?;
    }
    ledger.exact(&field.url("ledger"))
}

/// The kills of one round; a round of snapshots ends early when nothing is left to read.
fn kills(plan: Plan, field: &Field, ledger: &Ledger, histogram: &mut Histogram) -> Res<()> {
    for n in 0.. {
        if plan.done(histogram) {
            return Ok(());
        }
        let mut daemon = field.setup.start()?;
        disturb(field, ledger, histogram.total())?;
        match plan.kind {
            Kind::Stream => {
                field.load.churn(fastrand::u32(..))?;
                moment(field, &mut daemon, n)?;
            }
            Kind::Snapshot => {
                field.load.change_big()?;
                snapshot_moment(field, &mut daemon, n)?;
            }
        }
        daemon.kill()?;
        let step = step(field)?;
        histogram.add(step);
        if n % 4 == 3 {
            field.setup.forget_state()?;
        }
        let snapshot_over = !matches!(step, Step::InASnapshot | Step::BeforeTheFirstEpoch);
        if plan.kind == Kind::Snapshot && snapshot_over {
            return Ok(());
        }
    }
    Ok(())
}

/// Before some of the kills: the server begins another file of its log, or crashes and recovers.
fn disturb(field: &Field, ledger: &Ledger, n: usize) -> Res<()> {
    match n % 6 {
        1 | 4 => field.load.rotate(),
        5 => ledger.through_a_crash(|| field.load.crash()),
        _ => Ok(()),
    }
}

fn life(field: &Field, daemon: &mut Daemon, length: Duration) -> Res<()> {
    match daemon.wait(length)? {
        None => Ok(()),
        Some(status) => {
            Err(format!("the daemon ended by itself with {status}\n{}", field.setup.tail()))
        }
    }
}

/// Lets the daemon live until a chosen moment: in turns a random one, the next epoch file, the
/// next table commit, and just after all commits of a flush.
fn moment(field: &Field, daemon: &mut Daemon, n: usize) -> Res<()> {
    let limit = Instant::now() + FLUSHED;
    match n % 4 {
        0 => life(field, daemon, Duration::from_millis(fastrand::u64(100..1500))),
        1 => next(daemon, limit, || field.epoch(), 1),
        2 => next(daemon, limit, || field.commits(), 1),
        _ => {
            next(daemon, limit, || field.commits(), field.load.tables().len() as u64)?;
            life(field, daemon, Duration::from_millis(fastrand::u64(0..30)))
        }
    }
    .map_err(|e| format!("{e}\n{}", field.setup.tail()))
}

/// In turns a random moment after the start, and one after the next epoch file.
fn snapshot_moment(field: &Field, daemon: &mut Daemon, n: usize) -> Res<()> {
    if n.is_multiple_of(2) {
        return life(field, daemon, Duration::from_millis(fastrand::u64(200..2500)));
    }
    let limit = Instant::now() + FLUSHED;
    next(daemon, limit, || field.epoch(), 1).map_err(|e| format!("{e}\n{}", field.setup.tail()))?;
    life(field, daemon, Duration::from_millis(fastrand::u64(0..300)))
}

/// Rows are written all the time, so there is a flush within this, also after a crash of the server.
const FLUSHED: Duration = Duration::from_secs(60);

/// Waits until the count has grown by `by`.
fn next(daemon: &mut Daemon, limit: Instant, count: impl Fn() -> Res<u64>, by: u64) -> Res<()> {
    let before = count()?;
    while count()? < before + by {
        if let Some(status) = daemon.poll()? {
            return Err(format!("the daemon ended by itself with {status}"));
        }
        if Instant::now() > limit {
            let seconds = FLUSHED.as_secs();
            return Err(format!("no flush in {seconds} s, though rows are written all the time"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
