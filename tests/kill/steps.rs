//! Where in a flush a kill hit: the newest epoch file against what the tables' logs say.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::load::Field;
use crate::support::lake::escaped;
use crate::support::{Context, Res};

/// The steps of a flush, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// No epoch was ever written.
    BeforeTheFirstEpoch,
    /// A snapshot was under way.
    InASnapshot,
    /// The newest epoch names commits, and none is there yet.
    BeforeTheFirstCommit,
    /// Some of the named commits are there, some not.
    BetweenCommits,
    /// All commits are there; the source has not been told. Not seen where a source isn't told.
    BeforeTheAcknowledgement,
    /// The newest epoch is complete and acknowledged: buffering, or before the epoch file.
    BeforeTheEpochFile,
}

impl Step {
    pub const ALL: [Step; 6] = [
        Step::BeforeTheFirstEpoch,
        Step::InASnapshot,
        Step::BeforeTheFirstCommit,
        Step::BetweenCommits,
        Step::BeforeTheAcknowledgement,
        Step::BeforeTheEpochFile,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::BeforeTheFirstEpoch => "before the first epoch",
            Step::InASnapshot => "inside a snapshot",
            Step::BeforeTheFirstCommit => "epoch file there, no commit yet",
            Step::BetweenCommits => "between table commits",
            Step::BeforeTheAcknowledgement => "all committed, not acknowledged",
            Step::BeforeTheEpochFile => "flush complete, before the next epoch file",
        })
    }
}

/// Kills per step.
#[derive(Clone, Debug, Default)]
pub struct Histogram(BTreeMap<Step, usize>);

impl Histogram {
    pub fn add(&mut self, step: Step) {
        *self.0.entry(step).or_default() += 1;
    }

    pub fn of(&self, step: Step) -> usize {
        self.0.get(&step).copied().unwrap_or_default()
    }

    pub fn total(&self) -> usize {
        self.0.values().sum()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in Step::ALL {
            writeln!(f, "    {:5}  {step}", self.of(step))?;
        }
        write!(f, "    {:5}  kills", self.total())
    }
}

/// Where the daemon was when it died; read while no daemon runs.
pub fn step(field: &Field) -> Res<Step> {
    let Some((epoch, file)) = field.setup.lake.newest_epoch(&field.source)? else {
        return Ok(Step::BeforeTheFirstEpoch);
    };
    let (done, named) = commits(field, epoch, &file)?;
    Ok(if snapshot_under_way(field, &file)? {
        Step::InASnapshot
    } else if named > 0 && done == 0 {
        Step::BeforeTheFirstCommit
    } else if done < named {
        Step::BetweenCommits
    } else if named > 0 && !acknowledged(field, &file)? {
        Step::BeforeTheAcknowledgement
    } else {
        Step::BeforeTheEpochFile
    })
}

/// How many of the commits that the epoch names are in the tables' logs.
fn commits(field: &Field, epoch: u64, file: &Value) -> Res<(usize, usize)> {
    let named = file["commits"].as_object().ok_or("the epoch file has no commits")?;
    let app = format!("lakeward/{}", field.source);
    let mut done = 0;
    for table in named.keys() {
        let (schema, name) = table.split_once('.').ok_or(format!("no table is called {table}"))?;
        let txns = field.setup.lake.txns(&field.source, &escaped(schema), &escaped(name))?;
        done += usize::from(txns.get(&app) == Some(&epoch));
    }
    Ok((done, named.len()))
}

fn snapshot_under_way(field: &Field, file: &Value) -> Res<bool> {
    let reading = |member: &Value| matches!(member["state"].as_str(), Some("snapshot" | "gap"));
    let named = file["commits"].as_object();
    let after = named.into_iter().flat_map(|n| n.values()).any(|step| reading(&step["after"]));
    let own = file["roster"].as_object().cloned();
    let roster = match (own, file["roster_of"].as_u64()) {
        (Some(roster), _) => roster,
        (None, Some(of)) => roster_of(field, of)?,
        (None, None) => return Err("the epoch file has no roster".to_owned()),
    };
    Ok(after || roster.values().any(reading))
}

fn roster_of(field: &Field, epoch: u64) -> Res<serde_json::Map<String, Value>> {
    let folder = ["_lakeward", &field.source, "epochs"];
    let number = |name: &str| name.strip_suffix(".json").and_then(|n| n.parse::<u64>().ok());
    let names = field.setup.lake.names(&folder)?;
    let name = names.into_iter().find(|n| number(n) == Some(epoch));
    let name = name.ok_or(format!("the file of epoch {epoch}, which holds the roster, is gone"))?;
    let bytes = field.setup.lake.read(&[folder[0], folder[1], folder[2], &name])?;
    let file: Value = serde_json::from_slice(&bytes).context(&name)?;
    file["roster"].as_object().cloned().ok_or(format!("epoch {epoch} holds no roster"))
}

/// Whether the source knows that everything up to the epoch's end is durable, or isn't told at all.
/// That it never knows more is what every comparison after a kill shows.
fn acknowledged(field: &Field, file: &Value) -> Res<bool> {
    Ok(field.load.acknowledged(&field.source, &file["to"])?.unwrap_or(true))
}
