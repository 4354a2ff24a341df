//! Runs the steps of a script on its sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Res;
use super::cases::{Case, Rule};
use super::database::{Database, Sent, Session};
use super::script::Step;

pub struct Sessions {
    case: Arc<Case>,
    open: HashMap<String, Session>,
    waiting: HashMap<String, Sent>,
    current: String,
    asynchronous: bool,
    expected: Option<String>,
    /// The slot of the daemon for this source, which a script may drop.
    daemon_slot: String,
}

impl Sessions {
    pub fn new(case: Arc<Case>, daemon_slot: String) -> Sessions {
        Sessions {
            case,
            open: HashMap::new(),
            waiting: HashMap::new(),
            current: "main".to_owned(),
            asynchronous: false,
            expected: None,
            daemon_slot,
        }
    }

    /// Runs the steps; `between` is called before each statement (the kill modes pause there).
    pub fn run(&mut self, db: &Database, steps: &[Step], mut between: impl FnMut()) -> Res<()> {
        for step in steps {
            match step {
                Step::Session(name) => self.current.clone_from(name),
                Step::Async => self.asynchronous = true,
                Step::Sleep(seconds) => std::thread::sleep(Duration::from_secs_f64(*seconds)),
                Step::ExpectError(text) => self.expected = Some(text.clone()),
                Step::Wait(name) => {
                    let pending = self.waiting.remove(name).ok_or("nothing to wait for")?;
                    pending.wait(Duration::from_secs(30))?;
                }
                Step::Sql(sql) => {
                    between();
                    self.statement(db, sql)?;
                }
            }
        }
        Ok(())
    }

    fn statement(&mut self, db: &Database, sql: &str) -> Res<()> {
        let rule = self.case.rule(sql);
        let sql = self.case.localised(sql, db.name());
        if rule == Some(Rule::DropDaemonSlot) {
            return db.drop_slot(&self.daemon_slot);
        }
        if !self.open.contains_key(&self.current) {
            self.open.insert(self.current.clone(), db.session()?);
        }
        let session = &self.open[&self.current];
        if std::mem::take(&mut self.asynchronous) {
            self.waiting.insert(self.current.clone(), session.send(sql)?);
            std::thread::sleep(Duration::from_millis(400));
            return Ok(());
        }
        judge(session.exec(&sql), rule, self.expected.take(), &sql)
    }
}

/// Holds the outcome of a statement against what the script, or our rule for it, expects.
fn judge(outcome: Res<()>, rule: Option<Rule>, expected: Option<String>, sql: &str) -> Res<()> {
    let has = |e: &str, text: &str| e.to_lowercase().contains(&text.to_lowercase());
    match (outcome, rule, expected) {
        (Ok(()), Some(_), _) | (Ok(()), None, None) => Ok(()),
        (Ok(()), None, Some(text)) => Err(format!("the error {text:?} did not occur in: {sql}")),
        (Err(e), Some(Rule::MayFail(text)), _) if has(&e, text) => Ok(()),
        (Err(e), None, Some(text)) if has(&e, &text) => Ok(()),
        (Err(e), ..) => Err(format!("a statement of the service failed: {e}\n  in: {sql}")),
    }
}
