//! The traps of change data capture with recorded answers (`tests/traps/pg`): each case in its
//! own database, in every mode, many databases to one daemon.

mod deviations;
mod mongo;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::cases::Case;
use crate::support::group::Group;
use crate::support::jobs::Job;
use crate::support::modes::{Mode, State};
use crate::support::{Context, Res, Server, Store, long};

/// Databases that share a daemon.
const TOGETHER: usize = 6;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traps/pg")
}

fn load() -> Res<Vec<Arc<Case>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder()).context("the traps")? {
        let path = entry.context("the traps")?.path();
        if path.extension().is_some_and(|e| e == "sql") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = |p: &Path| std::fs::read_to_string(p).context(p.display());
        let (sql, rows) = (read(&path)?, read(&path.with_extension("json"))?);
        cases.push(Arc::new(Case::new(&id, &sql, Some(&rows), deviations::adjust(&id))?));
        if let Some((_, columns)) = deviations::AS_TEXT.iter().find(|(name, _)| *name == id) {
            let adjust = deviations::adjust_as_text(columns);
            cases.push(Arc::new(Case::new(&format!("{id}t"), &sql, Some(&rows), adjust)?));
        }
    }
    Ok(cases)
}

/// Which modes run where: all four on 15, the two ends on 18; with `LAKEWARD_LONG` everything.
fn matrix() -> Vec<(Server, Store, Mode)> {
    let mut matrix = Vec::new();
    for server in Server::POSTGRES {
        for mode in [Mode::Snapshot, Mode::Live, Mode::Down, Mode::Killed, Mode::Middle] {
            if long() || server == Server::Pg15 || matches!(mode, Mode::Snapshot | Mode::Killed) {
                matrix.push((server, Store::Local, mode));
            }
            if long() && matches!(mode, Mode::Live | Mode::Killed) {
                matrix.push((server, Store::S3, mode));
            }
        }
    }
    matrix
}

/// `traps::pg15::local::S::PG-001` and so on.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Res<Vec<Job>> {
    let cases = load()?;
    let mut jobs = Vec::new();
    for (server, store, mode) in matrix() {
        let name = |case: &Case| {
            format!("traps::{}::{}::{}::{}", server.name(), store.name(), mode.name(), case.id)
        };
        let middle = |case: &Case| deviations::IN_SNAPSHOT.contains(&case.id.as_str());
        let chosen = cases.iter().filter(|c| mode != Mode::Middle || middle(c));
        let chosen: Vec<_> = chosen.filter(|c| select(&name(c))).cloned().collect();
        let together = if mode == Mode::Middle { 1 } else { TOGETHER };
        for cases in chosen.chunks(together) {
            let names = cases.iter().map(|c| name(c)).collect();
            let group = Group { server, store, mode, state: State::Kept, cases: cases.to_vec() };
            jobs.push(Job { names, run: Box::new(move || group.run()) });
        }
    }
    jobs.extend(scripts_themselves(&cases, select));
    jobs.extend(mongo::jobs(select)?);
    Ok(jobs)
}

/// `traps::pg15::recorded`: without any daemon, every script does to this server what it did to
/// the server it was recorded on. A failure here is one of the harness.
fn scripts_themselves(cases: &[Arc<Case>], select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let jobs = Server::POSTGRES.into_iter().filter_map(|server| {
        let name = format!("traps::{}::recorded", server.name());
        let cases = cases.to_vec();
        select(&name).then(|| Job::single(name, move || recorded(server, &cases)))
    });
    jobs.collect()
}

fn recorded(server: Server, cases: &[Arc<Case>]) -> Res<()> {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let result = crate::support::group::without_daemon(server, case);
            result.err().map(|e| format!("{}: {e}", case.id))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
