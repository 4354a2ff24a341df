//! The lake's side of a [verification](crate::verify): one table's tasks, in the order of its steps.

use std::collections::BTreeSet;

use lakeward_connectors::Result;
use lakeward_connectors::batch::Batch;
use lakeward_connectors::source::KeyText;

use super::applying::texts;
use crate::collapse::collapse;
use crate::delta::{Seen, Table};
use crate::verify::{Findings, Task, UNSEEN};

/// A verification of a table that is under way.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    number: u64,
    seen: Option<Seen>,
    /// The keys that were looked for in the source: no other row counts as extra (V2).
    asked: BTreeSet<Vec<u8>>,
    findings: Findings,
}

impl Comparison {
    /// Does what the next task asks for.
    ///
    /// # Errors
    /// When the lake can't be read.
    pub(super) async fn perform(&mut self, table: &mut Table, task: Task) -> Result<()> {
        let done = match task {
            Task::Begin { number } => {
                self.number = number;
                self.findings = Findings::default();
                self.seen = Some(table.begin_comparison().await?);
                Some(())
            }
            Task::Compare(batch) => self.compare(table, *batch).await?,
            Task::Unseen => {
                let keys = self.unseen(table).await?;
                keys.map(|(keys, texts)| {
                    self.asked = keys.into_iter().collect();
                    self.findings.unseen = Some(texts);
                })
            }
            Task::End { repair } => match self.unseen(table).await? {
                Some((keys, texts)) => {
                    let both = keys.into_iter().zip(texts);
                    let (keys, texts): Unseen =
                        both.filter(|(key, _)| self.asked.contains(key)).unzip();
                    if repair && !keys.is_empty() {
                        table.remove_keys(&keys).await?;
                    }
                    self.seen = None;
                    self.findings.extra = Some(texts);
                    Some(())
                }
                None => None,
            },
        };
        if done.is_none() {
            self.void();
        }
        Ok(())
    }

    /// Whatever has been compared is of no use.
    pub(super) fn void(&mut self) {
        self.seen = None;
        self.findings.void = true;
    }

    /// What was found since the last time, if anything was.
    pub(super) fn take(&mut self) -> Option<Findings> {
        let findings = std::mem::take(&mut self.findings);
        let any = findings != Findings::default();
        any.then_some(Findings { number: self.number, ..findings })
    }

    async fn compare(&mut self, table: &mut Table, batch: Batch) -> Result<Option<()>> {
        let Some(seen) = &mut self.seen else { return Ok(None) };
        let schema = batch.schema.clone();
        let run = collapse(vec![batch])?;
        let Some(differences) = table.compare(&run, seen).await? else { return Ok(None) };
        self.findings.rows += run.rows.len() as u64;
        for difference in differences {
            let key = texts(&schema, &difference.key)?;
            self.findings.different.push((key, difference.columns));
        }
        Ok(Some(()))
    }

    async fn unseen(&mut self, table: &mut Table) -> Result<Option<Unseen>> {
        let Some(seen) = &self.seen else { return Ok(None) };
        let Some(keys) = table.unseen(seen, UNSEEN).await? else { return Ok(None) };
        let Some(schema) = table.schema().cloned() else { return Ok(None) };
        let texts = keys.iter().map(|key| texts(&schema, key)).collect::<Result<Vec<_>>>()?;
        Ok(Some((keys, texts)))
    }
}

/// Keys, and the same as texts.
type Unseen = (Vec<Vec<u8>>, Vec<KeyText>);
