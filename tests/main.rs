//! The end-to-end suite: the real binary between real Postgres servers and real stores, read
//! back by readers that are not ours.
//!
//! `cargo test --test suite -- [FILTER] [--list] [--test-threads N]`; trials are named
//! `traps::pg15::local::S::PG-001`, `behavior::pg18::s3::K::upserts`, `kill::…`, `readers::…`, `foreign::…`.
//! `LAKEWARD_LONG=1` runs all of it.

mod behavior;
mod docs;
mod foreign;
mod kill;
mod manual;
mod package;
mod readers;
mod simulation;
mod support;
mod traps;

use libtest_mimic::Arguments;

use support::Res;
use support::jobs::{self, Job};

/// Jobs at one time; each is mostly waiting for a daemon.
const WORKERS: usize = 6;

fn main() {
    let mut args = Arguments::from_args();
    let workers = args.test_threads.replace(1).unwrap_or(WORKERS);
    let jobs = match all(&args) {
        Ok(jobs) => jobs,
        Err(e) => {
            eprintln!("the suite's own files: {e}");
            std::process::exit(2);
        }
    };
    let (trials, workers) = jobs::trials(jobs, workers, args.list);
    let conclusion = libtest_mimic::run(&args, trials);
    workers.end();
    conclusion.exit();
}

fn all(args: &Arguments) -> Res<Vec<Job>> {
    let select = |name: &str| jobs::selected(args, name);
    let mut all = traps::jobs(&select)?;
    all.extend(behavior::jobs(&select)?);
    all.extend(docs::jobs(&select));
    all.extend(foreign::jobs(&select));
    all.extend(kill::jobs(&select));
    all.extend(manual::jobs(&select));
    all.extend(package::jobs(&select));
    all.extend(readers::jobs(&select));
    all.extend(simulation::jobs(&select));
    Ok(all)
}
