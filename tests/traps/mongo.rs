//! The MongoDB cases (`tests/traps/mongo`), each in a database and with a daemon of its own.
//!
//! A case passes when the lake equals the source, document by document and column by column; and the
//! source is what was recorded for the case, where anything was. The stand-in of the servers' script
//! does otherwise than MongoDB in the cases of `STAND_IN`: there only lake and source are compared.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Setup, Source};
use crate::support::jobs::Job;
use crate::support::modes::{Mode, State, killing};
use crate::support::mongodb::{self, Script};
use crate::support::{Context, Res, Store, long, tag};

/// A run ends within this, whatever the machine does beside it.
const CURRENT: Duration = Duration::from_secs(120);
/// A live daemon holds a change within this; it looks at the catalog every few seconds.
const FOLLOWS: Duration = Duration::from_secs(40);

/// Cases whose recorded documents the stand-in does not have at their end.
const STAND_IN: [&str; 1] = ["MG-038"];

fn load() -> Res<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traps/mongo");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context("the traps")? {
        let path = entry.context("the traps")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("MG-") && name.ends_with(".py") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// `traps::mongo::local::S::MG-003` and so on.
pub fn jobs(select: &dyn Fn(&str) -> bool) -> Res<Vec<Job>> {
    let mut jobs = Vec::new();
    for path in load()? {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for store in Store::ALL {
            for mode in Mode::FOUR {
                let name = format!("traps::mongo::{}::{}::{id}", store.name(), mode.name());
                if (store == Store::Local || long()) && select(&name) {
                    let case = Case { id: id.clone(), path: path.clone(), store, mode };
                    jobs.push(Job::single(name, move || case.run()));
                }
            }
        }
    }
    Ok(jobs)
}

struct Case {
    id: String,
    path: PathBuf,
    store: Store,
    mode: Mode,
}

impl Case {
    fn run(&self) -> Res<()> {
        let label = format!("{}_{}_{}", self.id, self.store.name(), self.mode.name());
        let label = label.to_lowercase().replace('-', "_");
        let database = format!("{}_{label}", tag());
        let mut script = Script::start(&self.path, &database)?;
        let name = format!("{}_mongo_{label}", tag());
        let source = Source::mongodb(&name, &mongodb::url()?, &database);
        let mut setup = Setup::new(self.store, &name, vec![source])?;
        let verdict = self.drive(&setup, &mut script).and_then(|collections| {
            self.recorded(&collections)?;
            compared(&setup, &name, &database, &collections)
        });
        verdict.map_err(|e| {
            setup.keep();
            let status = setup.status().map(|s| s.lines()).unwrap_or_else(|e| e);
            format!("{e}\nstatus:\n{status}{}", setup.tail())
        })
    }

    /// Everything that happens before the comparison, by mode; the collections there are then.
    fn drive(&self, setup: &Setup, script: &mut Script) -> Res<Value> {
        let collections = match self.mode {
            Mode::Live => {
                let mut daemon = setup.start()?;
                setup.wait_settled(&mut daemon, CURRENT)?;
                let collections = script.finish()?;
                self.followed(setup, &script.database, &collections)?;
                daemon.stop(setup)?;
                collections
            }
            Mode::Down => {
                let mut daemon = setup.start()?;
                setup.wait_settled(&mut daemon, CURRENT)?;
                daemon.kill()?;
                script.finish()?
            }
            Mode::Killed => killing(setup, State::Forgotten, || script.finish())?.0?,
            Mode::Snapshot | Mode::Middle => script.finish()?,
        };
        setup.run_until_current(CURRENT)?;
        Ok(collections)
    }

    /// The daemon follows: the lake has to reach the source's present without a restart.
    fn followed(&self, setup: &Setup, database: &str, collections: &Value) -> Res<()> {
        let end = Instant::now() + FOLLOWS;
        let name = setup.sources.first().map(|source| source.name.clone()).unwrap_or_default();
        while let Err(e) = compared(setup, &name, database, collections) {
            if Instant::now() > end {
                return Err(format!("not followed within {FOLLOWS:?}: {e}"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Whether the source has the documents that were recorded for the case.
    fn recorded(&self, collections: &Value) -> Res<()> {
        let path = self.path.with_extension("json");
        let stand_in = STAND_IN.contains(&self.id.as_str()) && !mongodb::is_real();
        if !path.exists() || stand_in {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path).context(path.display())?;
        let recorded: Value = serde_json::from_str(&text).context(path.display())?;
        match recorded["collections"] == *collections {
            true => Ok(()),
            false => Err(format!("the script did something else here: {collections}")),
        }
    }
}

fn compared(setup: &Setup, source: &str, database: &str, collections: &Value) -> Res<()> {
    let names = collections.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>());
    mongodb::equal(setup, source, database, &names.unwrap_or_default())
}
