//! Runs several cases, each in its own database, against one daemon with many sources.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::Case;
use super::compare::{self, Allow};
use super::daemon::{Setup, Source, source_name};
use super::database::Database;
use super::jobs::Slots;
use super::modes::{Mode, State, killing};
use super::sessions::Sessions;
use super::{Res, Server, Store, reader};

/// A run ends within this, whatever the machine does beside it.
const CURRENT: Duration = Duration::from_secs(120);
/// A live daemon holds a change within this; it polls the catalog every few seconds.
const FOLLOWS: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Group {
    pub server: Server,
    pub store: Store,
    pub mode: Mode,
    pub state: State,
    pub cases: Vec<Arc<Case>>,
}

/// A case in its database, with the first thing that went wrong.
struct Run {
    case: Arc<Case>,
    db: Database,
    sessions: Sessions,
    source: Source,
    wrong: Option<String>,
}

impl Group {
    /// One result per case. When the daemon fails for all, each case is tried alone, so that the
    /// report names the case to blame; if none is, the failure belongs to all of them.
    pub fn run(&self) -> Vec<Res<()>> {
        let together = match self.attempt() {
            Ok(results) => return results,
            Err(e) => e,
        };
        if self.cases.len() == 1 {
            return vec![Err(together)];
        }
        let alone = self.cases.iter().map(|case| {
            let group = Group { cases: vec![case.clone()], ..self.clone() };
            group.attempt().and_then(|mut results| results.remove(0))
        });
        let alone: Vec<Res<()>> = alone.collect();
        if alone.iter().any(Result::is_err) {
            return alone;
        }
        let text = format!("each case passes alone, but one daemon for all of them: {together}");
        self.cases.iter().map(|_| Err(text.clone())).collect()
    }

    fn attempt(&self) -> Res<Vec<Res<()>>> {
        // A case may need a slot of its own beside the daemon's.
        let own = self.cases.iter().filter(|c| c.adjust.own_slot).count();
        let _slots = Slots::take(self.server, self.cases.len() + own);
        let mut runs = self.cases.iter().map(|c| self.prepare(c)).collect::<Res<Vec<_>>>()?;
        for run in &mut runs {
            run.play(Part::Setup, || {});
            if self.mode == Mode::Snapshot {
                run.play(Part::Live, || {});
            }
        }
        let sources = runs.iter().filter(|r| r.wrong.is_none()).map(|r| r.source.clone());
        let sources: Vec<Source> = sources.collect();
        if sources.is_empty() {
            return Ok(runs.into_iter().map(|r| r.wrong.map_or(Ok(()), Err)).collect());
        }
        let mut setup = Setup::new(self.store, &self.label(), sources)?;
        let result = self
            .drive(&setup, &mut runs)
            .map(|()| runs.iter_mut().map(|run| run.verdict(&setup)).collect::<Vec<Res<()>>>());
        if result.as_ref().map_or(true, |all| all.iter().any(Result::is_err)) {
            setup.keep();
        }
        result
    }

    fn label(&self) -> String {
        let first = self.cases.first().map_or("none", |c| &c.id);
        format!("{}-{}-{first}", self.server.name(), self.mode.name())
    }

    fn prepare(&self, case: &Arc<Case>) -> Res<Run> {
        self.prepare_as(case, &format!("{}_{}", self.store.name(), self.mode.name()))
    }

    fn prepare_as(&self, case: &Arc<Case>, label: &str) -> Res<Run> {
        let label = format!("{}_{label}", case.id);
        let options = case.script.option("createdb").unwrap_or_default();
        let db = Database::create(self.server, &label, &options)?;
        if case.script.option("streaming").is_some() {
            let name = super::postgres::ident(db.name());
            db.postgres()?
                .admin()
                .exec(&format!("alter database {name} set logical_decoding_work_mem = '64kB'"))?;
        }
        let mut source = Source::new(&source_name(self.server, &label), db.url());
        source.tables = case.patterns(db.schema("public"));
        source.text_columns = case.text_columns(db.schema("public"));
        let sessions = Sessions::new(case.clone(), source.slot());
        Ok(Run { case: case.clone(), db, sessions, source, wrong: None })
    }

    /// Everything that happens before the comparison, by mode.
    fn drive(&self, setup: &Setup, runs: &mut [Run]) -> Res<()> {
        match self.mode {
            // It was all played before the configuration was written.
            Mode::Snapshot => {}
            Mode::Live => self.follow(setup, runs)?,
            Mode::Down => {
                let mut daemon = setup.start()?;
                setup.wait_settled(&mut daemon, CURRENT)?;
                daemon.kill()?;
                if self.state == State::Forgotten {
                    setup.forget_state()?;
                }
                play_all(runs, || {});
            }
            Mode::Killed => {
                let pause = || std::thread::sleep(Duration::from_millis(fastrand::u64(0..120)));
                killing(setup, self.state, || play_all(runs, pause))?;
            }
            Mode::Middle => {
                let mut daemon = setup.start()?;
                first_chunk(setup)?;
                play_all(runs, || {});
                setup.wait_settled(&mut daemon, CURRENT)?;
                daemon.stop(setup)?;
            }
        }
        setup.run_until_current(CURRENT)
    }

    /// The daemon follows; the lake has to reach the source's present without a restart.
    fn follow(&self, setup: &Setup, runs: &mut [Run]) -> Res<()> {
        let mut daemon = setup.start()?;
        setup.wait_settled(&mut daemon, CURRENT)?;
        play_all(runs, || {});
        let end = Instant::now() + FOLLOWS;
        for run in runs.iter_mut().filter(|r| r.wrong.is_none()) {
            while let Err(e) = run.compared(setup) {
                if Instant::now() > end {
                    run.wrong = Some(format!("not followed within {FOLLOWS:?}: {e}"));
                    break;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        for run in runs.iter_mut().filter(|r| r.wrong.is_none()) {
            run.wrong = setup.verified(&run.source.name).err();
        }
        daemon.stop(setup)
    }
}

/// The script of a case and its recorded rows, with no daemon in between.
pub fn without_daemon(server: Server, case: &Arc<Case>) -> Res<()> {
    let (store, mode, state) = (Store::Local, Mode::Snapshot, State::Kept);
    let group = Group { server, store, mode, state, cases: vec![case.clone()] };
    let _slots = Slots::take(server, 1);
    // Beside the same case with a daemon.
    let mut run = group.prepare_as(case, "alone")?;
    run.play(Part::Setup, || {});
    run.play(Part::Live, || {});
    run.wrong.take().map_or(Ok(()), Err)?;
    run.recorded()
}

/// Waits until the first table has rows in the lake, or a moment longer than a chunk takes.
fn first_chunk(setup: &Setup) -> Res<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        for source in &setup.sources {
            if setup.lake.newest(&["_lakeward", &source.name, "epochs"])? > 0 {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("no epoch within 20 s\n{}", setup.tail()))
}

fn play_all(runs: &mut [Run], pause: impl Fn()) {
    for run in runs {
        run.play(Part::Live, &pause);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Setup,
    Live,
}

impl Run {
    fn play(&mut self, part: Part, pause: impl FnMut()) {
        if self.wrong.is_some() {
            return;
        }
        let case = self.case.clone();
        let played = match part {
            Part::Setup => self.sessions.run(&self.db, &case.script.setup, pause),
            Part::Live => self.live(&case, pause),
        };
        self.wrong = played.err();
    }

    fn live(&mut self, case: &Case, pause: impl FnMut()) -> Res<()> {
        if !case.adjust.own_slot {
            return self.sessions.run(&self.db, &case.script.live, pause);
        }
        // These cases change a setting of the whole server: one at a time, and always undone.
        static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _alone = ALONE.lock().map_err(|e| e.to_string())?;
        let db = self.db.postgres()?;
        let pg = db.connect()?;
        pg.exec("create publication trap_pub for all tables")?;
        pg.exec(&format!(
            "select pg_create_logical_replication_slot('s_{}', 'pgoutput')",
            db.name
        ))?;
        let result = self.sessions.run(&self.db, &case.script.live, pause);
        let db = self.db.postgres()?;
        db.admin().exec("alter system reset synchronous_standby_names")?;
        db.admin().exec("select pg_reload_conf()")?;
        result
    }

    fn verdict(&mut self, setup: &Setup) -> Res<()> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        self.recorded()?;
        self.compared(setup).map_err(|e| {
            let status = setup.status();
            let tables =
                status.map(|s| s.of(&self.source.name).map(|t| format!("\n  {t}")).collect());
            let tables: String = tables.unwrap_or_else(|e| e);
            format!("{e}\nstatus:{tables}\n{}", setup.tail())
        })
    }

    fn recorded(&self) -> Res<()> {
        for (schema, table) in self.case.tables() {
            let name = if schema == "public" { table.clone() } else { format!("{schema}.{table}") };
            let Some(expected) = self.case.recorded.get(&name) else {
                continue;
            };
            if !self.case.adjust.live_only.contains(&name.as_str()) {
                self.db.recorded(&schema, &table, expected)?;
            }
        }
        Ok(())
    }

    fn compared(&self, setup: &Setup) -> Res<()> {
        let allow = Allow {
            extra_columns: self.case.loses_columns(),
            missing_columns: self.case.optional_columns(),
        };
        for (schema, table) in self.case.tables() {
            let (as_named, name) = (self.db.schema(&schema).to_owned(), &self.source.name);
            let url = setup.lake.table_url(name, &as_named, &table);
            match self.case.deviation(&table) {
                None => {
                    let source = self.db.source_rows(&schema, &table)?;
                    let lake = reader::read(&url)?;
                    let lake = lake.ok_or(format!("{schema}.{table}: not in the lake"))?;
                    compare::equal_rows(&source, self.db.settled(lake), &allow)
                        .map_err(|e| format!("{schema}.{table}: {e}"))?;
                }
                Some(deviation) => {
                    let status = setup.status()?;
                    let table_status = status.table(name, &as_named, &table);
                    deviation.observed(table_status, &table)?;
                    if let Some(lake) = reader::read(&url)? {
                        let source = self.db.source_rows(&schema, &table)?;
                        compare::within(&source, self.db.settled(lake), &allow)?;
                    }
                }
            }
        }
        Ok(())
    }
}
