//! A case of MongoDB: a script with two phases, run in a database and with a daemon of its own.
//!
//! It passes when the lake equals the source, document by document and column by column; when what
//! the script says is refused is refused, with its reason; and when the source is what was recorded
//! for the case, where anything was.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::Deviation;
use super::daemon::{Setup, Source};
use super::jobs::Job;
use super::modes::{Mode, State, killing};
use super::mongodb::{self, Script};
use super::{Context, Res, Store, long, tag};

/// A run ends within this, whatever the machine does beside it.
const CURRENT: Duration = Duration::from_secs(120);
/// A live daemon holds a change within this; it looks at the catalog every few seconds.
const FOLLOWS: Duration = Duration::from_secs(40);

/// The scripts of a folder under `tests/`, sorted by name.
pub fn scripts(folder: &str) -> Res<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        if path.extension().is_some_and(|e| e == "py") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// `<suite>::mongo::local::S::<script>` and so on, for every script of the folder in all four modes;
/// on S3 with `LAKEWARD_LONG`. `unlike` names scripts whose recorded documents the stand-in doesn't
/// have at their end.
pub fn jobs(
    suite: &str,
    folder: &str,
    unlike: &[&str],
    select: &dyn Fn(&str) -> bool,
) -> Res<Vec<Job>> {
    let mut jobs = Vec::new();
    for path in scripts(folder)? {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for store in Store::ALL {
            for mode in Mode::FOUR {
                let name = format!("{suite}::mongo::{}::{}::{id}", store.name(), mode.name());
                if (store == Store::Local || long()) && select(&name) {
                    let unlike = unlike.contains(&&*id) && !mongodb::is_real();
                    let case = Case { id: id.clone(), path: path.clone(), store, mode, unlike };
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
    unlike: bool,
}

/// What a script says at its end.
struct Ending {
    /// Its collections: documents, or their count.
    collections: Value,
    /// What can't be kept, with the words of the reason.
    refused: Vec<Deviation>,
}

impl Ending {
    fn parse(mut said: Value) -> Ending {
        let mut refused = Vec::new();
        for (name, words) in said["refused"].as_object().into_iter().flatten() {
            let words = words.as_array().into_iter().flatten().filter_map(Value::as_str);
            let reason = words.map(str::to_owned).collect();
            refused.push(Deviation { table: name.clone(), reason });
        }
        Ending { collections: said["collections"].take(), refused }
    }
}

/// One run of a case.
struct Run {
    setup: Setup,
    source: String,
    script: Script,
}

impl Case {
    fn run(&self) -> Res<()> {
        let label = format!("{}_{}_{}", self.id, self.store.name(), self.mode.name());
        let label = label.to_lowercase().replace('-', "_");
        let database = format!("{}_{label}", tag());
        let script = Script::start(&self.path, &database)?;
        let name = format!("{}_mongo_{label}", tag());
        let source = Source::mongodb(&name, &mongodb::url()?, &database);
        let setup = Setup::new(self.store, &name, vec![source])?;
        let mut run = Run { setup, source: name, script };
        let verdict = self.drive(&mut run).and_then(|ending| {
            self.recorded(&ending)?;
            run.compared(&ending)
        });
        verdict.map_err(|e| {
            run.setup.keep();
            let status = run.setup.status().map(|s| s.lines()).unwrap_or_else(|e| e);
            format!("{e}\nstatus:\n{status}{}", run.setup.tail())
        })
    }

    /// Everything that happens before the comparison, by mode; what there is then.
    fn drive(&self, run: &mut Run) -> Res<Ending> {
        let Run { setup, script, .. } = &mut *run;
        let ending = match self.mode {
            Mode::Live => {
                let mut daemon = setup.start()?;
                setup.wait_settled(&mut daemon, CURRENT)?;
                let ending = Ending::parse(script.finish()?);
                run.followed(&ending)?;
                // The stand-in looks at every document for each range of them.
                if long() || self.path.iter().any(|part| part == "behavior") {
                    run.setup.verified(&run.source)?;
                }
                daemon.stop(&run.setup)?;
                ending
            }
            Mode::Down => {
                let mut daemon = setup.start()?;
                setup.wait_settled(&mut daemon, CURRENT)?;
                daemon.kill()?;
                Ending::parse(script.finish()?)
            }
            Mode::Killed => Ending::parse(killing(setup, State::Forgotten, || script.finish())?.0?),
            Mode::Snapshot | Mode::Middle => Ending::parse(script.finish()?),
        };
        run.setup.run_until_current(CURRENT)?;
        Ok(ending)
    }

    /// Whether the source has the documents that were recorded for the case.
    fn recorded(&self, ending: &Ending) -> Res<()> {
        let path = self.path.with_extension("json");
        if !path.exists() || self.unlike {
            return Ok(());
        }
        let text = std::fs::read_to_string(&path).context(path.display())?;
        let recorded: Value = serde_json::from_str(&text).context(path.display())?;
        match recorded["collections"] == ending.collections {
            true => Ok(()),
            false => Err(format!("the script did something else here: {}", ending.collections)),
        }
    }
}

impl Run {
    /// The daemon follows: the lake has to reach the source's present without a restart.
    fn followed(&self, ending: &Ending) -> Res<()> {
        let end = Instant::now() + FOLLOWS;
        while let Err(e) = self.compared(ending) {
            if Instant::now() > end {
                return Err(format!("not followed within {FOLLOWS:?}: {e}"));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    fn compared(&self, ending: &Ending) -> Res<()> {
        let database = &self.script.database;
        for deviation in &ending.refused {
            let status = self.setup.status()?;
            let table = &deviation.table;
            deviation.observed(status.table(&self.source, database, table), table)?;
        }
        let names = ending.collections.as_object().map(|all| all.keys().cloned());
        let names: Vec<String> = names.into_iter().flatten().collect();
        mongodb::equal(&mongodb::url()?, &self.setup, &self.source, database, &names)
    }
}
