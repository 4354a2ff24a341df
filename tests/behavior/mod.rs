//! What a user sees: scripts of ordinary life (`cases/*.sql` for Postgres, `mysql/*.sql` for MySQL
//! and MariaDB, `mongo/*.py` for MongoDB) in every mode on every server and store, the command line,
//! and what goes wrong around a daemon.

mod alert;
mod cli;
mod dropped;
mod faults;
mod first;
mod merge;
mod otlp;
mod pause;
mod planted;
mod reload;
mod secrets;
mod shapes;
mod verify;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::support::cases::{Adjust, Case};
use crate::support::group::{Group, without_daemon};
use crate::support::jobs::Job;
use crate::support::modes::{Mode, State};
use crate::support::mongodb_case;
use crate::support::scene::check;
use crate::support::script::Dialect;
use crate::support::{Context, Res, Server, Store, long};

/// Databases that share a daemon.
const TOGETHER: usize = 5;

/// What a server doesn't have, so that there is no script of it: which behavior, and where the
/// server's documentation says so.
const WITHOUT: &[(Server, &str, &str)] = &[
    (
        Server::Mongo,
        "keyless",
        "mongodb.com/docs/manual/core/document: each document stored in a standard collection \
         requires a unique _id field that acts as a primary key",
    ),
    (
        Server::Mongo,
        "generated",
        "mongodb.com/docs/manual/core/schema-validation: a schema validates documents; nothing \
         in it computes a field",
    ),
    (
        Server::Mongo,
        "partitions",
        "mongodb.com/docs/manual/sharding: MongoDB parts a collection by sharding only, and a \
         sharded cluster is refused (docs/types.md, MongoDB)",
    ),
];

/// `behavior::coverage`: every behavior has a script for every server, but for those of `WITHOUT`,
/// which are a tenth at most.
fn coverage() -> Res<()> {
    let ids = |cases: Vec<Arc<Case>>| cases.iter().map(|c| c.id.clone()).collect::<BTreeSet<_>>();
    let postgres = ids(load("cases", Dialect::Postgres)?);
    let mysql = ids(load("mysql", Dialect::MySql)?);
    let name = |path: &std::path::PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    let mongo: BTreeSet<String> =
        mongodb_case::scripts("behavior/mongo")?.iter().filter_map(name).collect();
    let all: BTreeSet<&String> = postgres.iter().chain(&mysql).chain(&mongo).collect();
    let servers = [&Server::POSTGRES[..], &Server::MYSQL, &[Server::Mongo]].concat();
    let mut wrong = Vec::new();
    for &server in &servers {
        let scripts = match server {
            Server::Pg15 | Server::Pg18 => &postgres,
            Server::MySql | Server::MariaDb => &mysql,
            Server::Mongo => &mongo,
        };
        for id in &all {
            let without = WITHOUT.iter().any(|(at, behavior, _)| *at == server && behavior == id);
            if scripts.contains(*id) == without {
                wrong.push(format!(
                    "{}: {id} has a script and is listed as lacking, or neither",
                    server.name()
                ));
            }
        }
    }
    let (lacking, cells) = (WITHOUT.len(), all.len() * servers.len());
    eprintln!(
        "\nbehaviors: {} on {} servers, {lacking} of {cells} lacking:",
        all.len(),
        servers.len()
    );
    for (server, behavior, page) in WITHOUT {
        eprintln!("    {} {behavior}: {page}", server.name());
    }
    check(wrong.is_empty(), || wrong.join("\n"))?;
    check(10 * lacking <= cells, || format!("{lacking} of {cells} are lacking"))
}

fn load(folder: &str, dialect: Dialect) -> Res<Vec<Arc<Case>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behavior").join(folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context("the cases")? {
        paths.push(entry.context("the cases")?.path());
    }
    paths.sort();
    let case = |path: &Path| {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let sql = std::fs::read_to_string(path).context(path.display())?;
        Ok(Arc::new(Case::of(dialect, &id, &sql, None, Adjust::default())?))
    };
    paths.iter().map(|p| case(p)).collect()
}

/// Every mode is run on each store, and each server in the modes that differ most; with
/// `LAKEWARD_LONG` everything.
fn matrix() -> Vec<(Server, Store, Mode)> {
    let mut matrix = Vec::new();
    for server in Server::POSTGRES {
        for store in Store::ALL {
            for mode in Mode::FOUR {
                let quick = match (server, store) {
                    (Server::MySql | Server::MariaDb | Server::Mongo, _) => false,
                    (Server::Pg15, Store::Local) => true,
                    (Server::Pg18, Store::Local) => matches!(mode, Mode::Snapshot | Mode::Killed),
                    (Server::Pg15, Store::S3) => matches!(mode, Mode::Live),
                    (Server::Pg18, Store::S3) => matches!(mode, Mode::Killed),
                };
                if quick || long() {
                    matrix.push((server, store, mode));
                }
            }
        }
    }
    matrix
}

/// `behavior::pg18::s3::K::upserts` and so on. The state directory is deleted between the runs.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Res<Vec<Job>> {
    let cases = load("cases", Dialect::Postgres)?;
    let mut jobs = scripts_themselves(&cases, &Server::POSTGRES, select);
    let mut runs: Vec<_> = matrix().into_iter().map(|at| (at, cases.clone())).collect();
    for (server, dialect) in [(Server::MySql, Dialect::MySql), (Server::MariaDb, Dialect::MariaDb)]
    {
        let cases = load("mysql", dialect)?;
        jobs.extend(scripts_themselves(&cases, &[server], select));
        let modes = Mode::FOUR.into_iter().map(|mode| (server, Store::Local, mode));
        let stores = [(server, Store::S3, Mode::Killed)].into_iter().filter(|_| long());
        runs.extend(modes.chain(stores).map(|at| (at, cases.clone())));
    }
    for ((server, store, mode), cases) in runs {
        let name = |case: &Case| {
            format!("behavior::{}::{}::{}::{}", server.name(), store.name(), mode.name(), case.id)
        };
        let chosen: Vec<_> = cases.iter().filter(|c| select(&name(c))).cloned().collect();
        for cases in chosen.chunks(TOGETHER) {
            let names = cases.iter().map(|c| name(c)).collect();
            let state = State::Forgotten;
            let group = Group { server, store, mode, state, cases: cases.to_vec() };
            jobs.push(Job { names, run: Box::new(move || group.run()) });
        }
    }
    jobs.extend(mongodb_case::jobs("behavior", "behavior/mongo", &[], select)?);
    if select("behavior::coverage") {
        jobs.push(Job::single("behavior::coverage".to_owned(), coverage));
    }
    jobs.extend(cli::jobs(select));
    jobs.extend(faults::jobs(select));
    jobs.extend(dropped::jobs(select));
    jobs.extend(alert::jobs(select));
    jobs.extend(merge::jobs(select));
    jobs.extend(otlp::jobs(select));
    jobs.extend(first::jobs(select));
    jobs.extend(pause::jobs(select));
    jobs.extend(planted::jobs(select));
    jobs.extend(reload::jobs(select));
    jobs.extend(secrets::jobs(select));
    jobs.extend(shapes::jobs(select));
    jobs.extend(verify::jobs(select));
    Ok(jobs)
}

/// `behavior::pg15::scripts`: the scripts run on the server as they are, without any daemon.
fn scripts_themselves(
    cases: &[Arc<Case>],
    servers: &[Server],
    select: &dyn Fn(&str) -> bool,
) -> Vec<Job> {
    let jobs = servers.iter().filter_map(|&server| {
        let name = format!("behavior::{}::scripts", server.name());
        let cases = cases.to_vec();
        let run = move || -> Res<()> {
            cases.iter().try_for_each(|case| without_daemon(server, case).context(&case.id))
        };
        select(&name).then(|| Job::single(name, run))
    });
    jobs.collect()
}
