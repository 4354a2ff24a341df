//! Other writers of Lakeward's tables, with delta-rs as the real one: random lives of a table on
//! disk, next to a model of it. Whatever delta-rs compacts, deletes, appends, sets or cleans up, and
//! whenever it does (between a change and its commit, at the same time, while the daemon is
//! down, or late, with the table as it once was), the rows that the log leads to are the
//! model's, as Lakeward finds them at a start and as delta-rs reads them.
//!
//! `LAKEWARD_FOREIGN_SEEDS=N` lives that many lives; `LAKEWARD_FOREIGN_SEED=K` lives one, tells
//! what happens, and leaves the lake where it is.

mod columns;
mod delta_rs;
mod folders;
mod life;
mod meddling;
mod model;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lakeward::planted::{Bug, plant};

use crate::support::jobs::Job;
use crate::support::scene::check;
use crate::support::{Context, Res, long, number, shortened};
use delta_rs::DeltaRs;
use life::Life;

/// How many threads live lives, each with a process of delta-rs.
const THREADS: usize = 2;

/// Lives of a usual run, and of a long one.
const SEEDS: u64 = 200;
const LONG_SEEDS: u64 = 2_000;

/// How often each thing has happened: a test in which something doesn't proves nothing of it.
#[derive(Debug, Default)]
pub struct Seen {
    commits: usize,
    /// Commits that went in behind others that came first.
    behind_others: usize,
    conflicts: usize,
    /// Runs that met files which the other writer had deleted.
    files_gone: usize,
    /// Rows that the lake lacked and that were read from the source.
    read_again: usize,
    crashes: usize,
    /// Files that Lakeward deleted itself.
    own_vacuumed: usize,
    /// Files that the other writer compacted, sorted and deleted.
    optimized: usize,
    z_ordered: usize,
    vacuumed: usize,
    checkpoints: usize,
    cleaned: usize,
    /// Commits that it wrote once more in one file.
    log_compacted: usize,
    properties: usize,
    /// How often it left nothing of the log but a checkpoint.
    forgot: usize,
    /// Rows that it deleted, changed and appended.
    deleted: usize,
    updated: usize,
    appended: usize,
    /// Keys that it doubled.
    doubled: usize,
    /// What it did while Lakeward committed.
    races: usize,
    /// What it didn't do, since a commit of Lakeward's was in its way.
    gave_way: usize,
    /// How often it read all rows.
    read: usize,
}

impl Seen {
    fn counts(&mut self) -> [(&'static str, &mut usize); 22] {
        [
            ("commits", &mut self.commits),
            ("behind_others", &mut self.behind_others),
            ("conflicts", &mut self.conflicts),
            ("files_gone", &mut self.files_gone),
            ("read_again", &mut self.read_again),
            ("crashes", &mut self.crashes),
            ("own_vacuumed", &mut self.own_vacuumed),
            ("optimized", &mut self.optimized),
            ("z_ordered", &mut self.z_ordered),
            ("vacuumed", &mut self.vacuumed),
            ("checkpoints", &mut self.checkpoints),
            ("cleaned", &mut self.cleaned),
            ("log_compacted", &mut self.log_compacted),
            ("properties", &mut self.properties),
            ("forgot", &mut self.forgot),
            ("deleted", &mut self.deleted),
            ("updated", &mut self.updated),
            ("appended", &mut self.appended),
            ("doubled", &mut self.doubled),
            ("races", &mut self.races),
            ("gave_way", &mut self.gave_way),
            ("read", &mut self.read),
        ]
    }

    fn add(&mut self, mut other: Seen) {
        for ((_, sum), (_, more)) in self.counts().into_iter().zip(other.counts()) {
            *sum += *more;
        }
    }

    /// What has not happened once.
    fn never(&mut self) -> Vec<&'static str> {
        let counts = self.counts().into_iter();
        counts.filter(|(_, count)| **count == 0).map(|(name, _)| name).collect()
    }
}

/// `foreign::delta_rs::lives`, and `foreign::delta_rs::planted::<bug>` for each.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let name = "foreign::delta_rs::lives";
    let all = select(name).then(|| Job::single(name.to_owned(), lives));
    let planted = Bug::OF_OTHERS.into_iter().filter_map(|bug| {
        let name = format!("foreign::delta_rs::planted::{bug:?}");
        select(&name).then(|| Job::single(name, move || planted(bug)))
    });
    all.into_iter().chain(planted).collect()
}

/// A bug is found: the lives would find others like it.
fn planted(bug: Bug) -> Res<()> {
    let mut other = DeltaRs::start()?;
    for seed in 0..SEEDS {
        if let Err(error) = one(seed, Some(bug), &mut other) {
            let what = error.lines().next().unwrap_or_default();
            eprintln!("{bug:?} is found: {}", shortened(what, 200));
            return Ok(());
        }
    }
    Err(format!("{bug:?} is not found"))
}

/// Whether one life is looked at.
fn alone() -> bool {
    number("LAKEWARD_FOREIGN_SEED").is_some()
}

fn lives() -> Res<()> {
    if let Some(seed) = number("LAKEWARD_FOREIGN_SEED") {
        return one(seed, None, &mut DeltaRs::start()?).map(|seen| eprintln!("{seen:?}"));
    }
    let count = number("LAKEWARD_FOREIGN_SEEDS").unwrap_or(if long() { LONG_SEEDS } else { SEEDS });
    let began = Instant::now();
    let (next, seen) = (AtomicU64::new(0), Mutex::new(Seen::default()));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let fails = |error| {
                    if let Ok(mut failures) = failures.lock() {
                        failures.push(error);
                    }
                };
                let mut other = match DeltaRs::start() {
                    Ok(other) => other,
                    Err(error) => return fails(error),
                };
                while failures.lock().is_ok_and(|failures| failures.len() < 3) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    match (one(seed, None, &mut other), seen.lock()) {
                        (Ok(one), Ok(mut seen)) => seen.add(one),
                        // What it was asked last may be unanswered.
                        (Err(error), _) => {
                            fails(error);
                            match DeltaRs::start() {
                                Ok(fresh) => other = fresh,
                                Err(error) => return fails(error),
                            }
                        }
                        _ => return,
                    }
                }
            });
        }
    });
    let mut seen = seen.into_inner().map_err(|_| "a thread panicked")?;
    let ran = next.into_inner().min(count);
    eprintln!("\nforeign: {ran} seeds in {:.1} s, {seen:?}", began.elapsed().as_secs_f32());
    let failures = failures.into_inner().map_err(|_| "a thread panicked")?;
    check(failures.is_empty(), || failures.join("\n\n"))?;
    let never = seen.never();
    check(never.is_empty() || count < SEEDS, || format!("never happened: {never:?}"))
}

/// Lives one life on a runtime of its own, whose time is simulated.
fn one(seed: u64, bug: Option<Bug>, other: &mut DeltaRs) -> Res<Seen> {
    let (mut seen, mut story) = (Seen::default(), Vec::new());
    let run = || -> Res<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .context("a runtime")?;
        plant(bug);
        runtime.block_on(live(seed, other, &mut seen, &mut story))
    };
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("panicked".to_owned()));
    plant(None);
    if alone() {
        eprintln!("{}", story.join("\n"));
    }
    let last = story.len().saturating_sub(12);
    result.map(|()| seen).map_err(|error| {
        format!(
            "seed {seed}: {error}\n  after\n    {}\n  again: LAKEWARD_FOREIGN_SEED={seed} \
             cargo test --test suite -- foreign::delta_rs::lives",
            story[last..].join("\n    ")
        )
    })
}

async fn live(seed: u64, other: &mut DeltaRs, seen: &mut Seen, story: &mut Vec<String>) -> Res<()> {
    let mut life = Life::begin(seed, other, seen).await?;
    if alone() {
        life.folders.stay();
    }
    let steps = life.rng.usize(10..40);
    let mut result = Ok(());
    for _ in 0..steps {
        result = step(&mut life).await;
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = end(&mut life).await;
    }
    story.append(&mut life.story);
    result
}

async fn step(life: &mut Life<'_>) -> Res<()> {
    let keyed = life.columns.is_keyed();
    match life.rng.u8(..100) {
        0..=29 => life.run().await?,
        30..=49 => life.commit().await?,
        50..=51 => life.act(model::Act::Truncate).await?,
        52..=53 => life.generation().await?,
        54..=59 => life.crash().await?,
        60..=63 => life.keep_state()?,
        64..=65 => life.merge_by(life.other_merge()),
        66..=67 if !life.table.has_pending() => life.maintain().await?,
        68..=69 if !life.table.has_pending() => life.refresh().await?,
        70..=79 => life.maintains()?,
        80..=82 => life.maintains_late()?,
        83..=85 => life.races().await?,
        86..=87 => life.sets()?,
        88 => life.forgets()?,
        89 => life.sweeps()?,
        90..=94 if keyed => life.changes()?,
        95..=97 if keyed => life.appends()?,
        98 if keyed => life.doubles().await?,
        _ => life.other_reads()?,
    }
    life.check().await
}

/// Everything is committed, and there for whoever comes.
async fn end(life: &mut Life<'_>) -> Res<()> {
    life.commit().await?;
    life.other_reads()?;
    life.crash().await?;
    life.run().await?;
    life.commit().await?;
    life.check().await?;
    life.other_reads()
}
