//! Seeded simulation: daemons that crash, freeze and meet, between a source and a store that fail,
//! on one thread whose time is simulated. The same seed gives the same run.
//!
//! `LAKEWARD_SIM_SEEDS=N` runs that many seeds; `LAKEWARD_SIM_SEED=K` runs one and tells
//! what happens (`RUST_LOG` picks how much).

mod checks;
mod lake;
mod process;
mod script;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lakeward::planted::{Bug, plant, simulate_clock};

use crate::support::jobs::Job;
use crate::support::{Context, Res, long, number};
use world::Seen;

/// How many threads run seeds.
const THREADS: usize = 2;

/// Seeds of a usual run, and of a long one.
const SEEDS: u64 = 20_000;
const LONG_SEEDS: u64 = 1_000_000;

/// Within so many seeds a planted bug has to show.
const PLANTED_SEEDS: u64 = 20_000;

/// `simulation::seeds`, and `simulation::planted::<bug>` for each.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let name = "simulation::seeds";
    let all = select(name).then(|| Job::single(name.to_owned(), seeds));
    let planted = Bug::ALL.into_iter().filter_map(|bug| {
        let name = format!("simulation::planted::{bug:?}");
        select(&name).then(|| Job::single(name, move || planted(bug)))
    });
    all.into_iter().chain(planted).collect()
}

/// A bug is found: the simulation would find others like it.
fn planted(bug: Bug) -> Res<()> {
    let all = 0..number("LAKEWARD_SIM_SEEDS").unwrap_or(PLANTED_SEEDS);
    for seed in found_last(bug).into_iter().chain(all) {
        if let Err(error) = one(seed, Some(bug)) {
            let what = error.lines().next().unwrap_or_default();
            eprintln!("{bug:?} is found: {what}");
            return Ok(());
        }
    }
    Err(format!("{bug:?} is not found"))
}

/// The seed that found a rare bug last is tried first. Whatever changes what happens makes it one like
/// any other; then all are tried.
fn found_last(bug: Bug) -> Option<u64> {
    match bug {
        Bug::NoFence => Some(2405),
        Bug::ReadTwice => Some(10295),
        Bug::ForgetTruncate => Some(333),
        Bug::AnyEpochIsMine => Some(1074),
        _ => None,
    }
}

fn seeds() -> Res<()> {
    if let Some(seed) = number("LAKEWARD_SIM_SEED") {
        tell();
        return one(seed, None).map(|seen| eprintln!("{seen:?}"));
    }
    let count = number("LAKEWARD_SIM_SEEDS").unwrap_or(if long() { LONG_SEEDS } else { SEEDS });
    let began = Instant::now();
    let (next, seen) = (AtomicU64::new(0), Mutex::new(Seen::default()));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while failures.lock().is_ok_and(|failures| failures.len() < 5) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let result = one(seed, None);
                    match (result, seen.lock(), failures.lock()) {
                        (Ok(one), Ok(mut seen), _) => seen.add(one),
                        (Err(error), _, Ok(mut failures)) => failures.push(error),
                        _ => return,
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().map_err(|_| "a thread panicked")?;
    let ran = next.into_inner().min(count);
    eprintln!("\nsimulation: {ran} seeds in {:.1} s, {seen:?}", began.elapsed().as_secs_f32());
    let failures = failures.into_inner().map_err(|_| "a thread panicked")?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n\n")) }
}

/// Runs one seed on a runtime of its own.
fn one(seed: u64, bug: Option<Bug>) -> Res<Seen> {
    let run = || -> Res<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .context("a runtime")?;
        runtime.block_on(async {
            simulate_clock();
            plant(bug);
            world::run(seed).await
        })
    };
    let result = catch_unwind(AssertUnwindSafe(run));
    result
        .unwrap_or_else(|_| Err("panicked".to_owned()))
        .map_err(|error| format!("LAKEWARD_SIM_SEED={seed}: {error}"))
}

/// Shows what a seed does.
fn tell() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,lakeward=debug"));
    let shown = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time();
    // There may be one already, which is as good.
    let _ = shown.with_writer(std::io::stderr).try_init();
}
