//! The traps of change data capture with recorded answers (`tests/traps/{pg,my}`): each case in its
//! own database, in every mode, many databases to one daemon.

mod deviations;
mod mongo;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::cases::Case;
use crate::support::group::Group;
use crate::support::jobs::Job;
use crate::support::modes::{Mode, State};
use crate::support::script::Dialect;
use crate::support::{Context, Res, Server, Store, long};

/// Databases that share a daemon.
const TOGETHER: usize = 6;

fn scripts(folder: &str) -> Res<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traps").join(folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context("the traps")? {
        let path = entry.context("the traps")?.path();
        if path.extension().is_some_and(|e| e == "sql") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Those of a MySQL or MariaDB server.
fn load_mysql(server: Server) -> Res<Vec<Arc<Case>>> {
    let (dialect, rows) = match server {
        Server::MariaDb => (Dialect::MariaDb, "mariadb.json"),
        _ => (Dialect::MySql, "json"),
    };
    let mut cases = Vec::new();
    for path in scripts("my")? {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = |p: &Path| std::fs::read_to_string(p).context(p.display());
        let rows = path.with_extension(rows);
        // What only the other server has wasn't recorded for this one.
        if !rows.exists() {
            continue;
        }
        let (sql, rows) = (read(&path)?, read(&rows)?);
        let adjust = deviations::adjust_mysql(&id, server);
        cases.push(Arc::new(Case::of(dialect, &id, &sql, Some(&rows), adjust)?));
        if let Some((_, columns)) = deviations::MYSQL_AS_TEXT.iter().find(|(name, _)| *name == id) {
            let adjust = deviations::adjust_as_text(columns);
            let id = format!("{id}t");
            cases.push(Arc::new(Case::of(dialect, &id, &sql, Some(&rows), adjust)?));
        }
    }
    Ok(cases)
}

fn load() -> Res<Vec<Arc<Case>>> {
    let mut cases = Vec::new();
    for path in scripts("pg")? {
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
    jobs.extend(scripts_themselves(&cases, &Server::POSTGRES, select));
    for server in Server::MYSQL {
        let cases = load_mysql(server)?;
        for mode in Mode::FOUR {
            let name = |case: &Case| {
                format!("traps::{}::local::{}::{}", server.name(), mode.name(), case.id)
            };
            let runs = |case: &Case| !(case.adjust.unlogged && mode != Mode::Snapshot);
            let chosen = cases.iter().filter(|c| runs(c) && select(&name(c)));
            let chosen: Vec<_> = chosen.cloned().collect();
            for cases in chosen.chunks(TOGETHER) {
                let names = cases.iter().map(|c| name(c)).collect();
                let (store, state) = (Store::Local, State::Kept);
                let group = Group { server, store, mode, state, cases: cases.to_vec() };
                jobs.push(Job { names, run: Box::new(move || group.run()) });
            }
        }
        jobs.extend(scripts_themselves(&cases, &[server], select));
    }
    jobs.extend(mongo::jobs(select)?);
    if select("traps::count") {
        jobs.push(Job::single("traps::count".to_owned(), count));
    }
    Ok(jobs)
}

/// `traps::count`: how many scripts pass as they are, on each server they apply to; the trials of
/// these scripts show it in every mode. The others are listed with what happens instead.
fn count() -> Res<()> {
    let (mut all, mut listed) = (BTreeSet::new(), BTreeSet::new());
    for server in Server::MYSQL {
        // A second run of a script, with columns as text, is no script of its own.
        let cases: Vec<_> = load_mysql(server)?;
        let scripts: Vec<_> = cases.iter().filter(|c| !c.id.ends_with('t')).collect();
        let here: Vec<String> =
            scripts.iter().filter(|c| c.adjust.deviates()).map(|c| c.id.clone()).collect();
        told(server, scripts.len(), &here);
        all.extend(scripts.iter().map(|c| c.id.clone()));
        listed.extend(here);
    }
    let mysql = all.len() - listed.len();
    eprintln!("    on every server of the two they apply to: {mysql} of {}", all.len());
    let (recorded, unlike) = mongo::recorded()?;
    told(Server::Mongo, recorded, &unlike);
    let mongo = recorded - unlike.len();
    let few =
        || format!("{mysql} scripts of MySQL, should be 27; {mongo} of MongoDB, should be 17");
    if mysql >= 27 && mongo >= 17 { Ok(()) } else { Err(few()) }
}

fn told(server: Server, all: usize, listed: &[String]) {
    let plain = all - listed.len();
    let names = listed.join(", ");
    eprintln!("traps of {}: {plain} of {all} scripts pass as they are; {names}", server.name());
}

/// `traps::pg15::recorded`: without any daemon, every script does to this server what it did to
/// the server it was recorded on. A failure here is one of the harness.
fn scripts_themselves(
    cases: &[Arc<Case>],
    servers: &[Server],
    select: &dyn Fn(&str) -> bool,
) -> Vec<Job> {
    let jobs = servers.iter().filter_map(|&server| {
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
