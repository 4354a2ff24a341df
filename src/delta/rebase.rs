//! Other writers' commits: what they mean for the view, the index and the changes that wait to be
//! committed, which either still stand on top of them or don't.

use lakeward_connectors::{Error, Result};
use tokio::time::Instant;

use super::actions::{Action, Add, Txn};
use super::deletes::Rows;
use super::index::{Damaged, Segment, fingerprint};
use super::log::{CLEANED_UP, since};
use super::lookup::{FileKeys, FoundKeys, has_key, unusable};
use super::table::Table;
use super::view::FileId;
use crate::planted::{self, Bug};

impl Table {
    /// Takes up what others have committed since.
    ///
    /// # Errors
    /// When there are pending changes; [`Table`](lakeward_connectors::ErrorKind::Table) when the
    /// table has become one that can't be written to.
    pub async fn refresh(&mut self) -> Result<()> {
        if self.has_pending() {
            return Err(Error::internal("a table with pending changes can't be refreshed")
                .with("Delta table", &self.path));
        }
        match self.catch_up().await? {
            None => self.settle_index(),
            Some(_) => self.reload().await?,
        }
        Ok(())
    }

    /// Folds in everything that is in the log beyond the base, or says what stands against it.
    pub(super) async fn catch_up(&mut self) -> Result<Option<String>> {
        let Some(version) = self.version() else {
            return match self.pending.changed {
                true => Ok(None),
                false => self.reload().await.map(|()| None),
            };
        };
        match since(&self.lake, &self.path, version).await? {
            Some(commits) => {
                for (version, actions) in commits {
                    if let Some(conflict) = self.fold(version, actions, &[]).await? {
                        return Ok(Some(conflict));
                    }
                }
            }
            None if self.pending.changed => {
                return Ok(Some(CLEANED_UP.to_owned()));
            }
            None => self.reload().await?,
        }
        self.seen = Instant::now();
        Ok(None)
    }

    /// Takes up the commit of somebody else, or says why the pending changes can't stand on it.
    pub(super) async fn fold(
        &mut self,
        version: i64,
        actions: Vec<Action>,
        txns: &[(String, i64)],
    ) -> Result<Option<String>> {
        let own =
            |txn: &Txn| txns.iter().any(|(id, mine)| *id == txn.app_id && *mine > txn.version);
        if let Some(txn) = actions.iter().filter_map(|a| a.txn.as_ref()).find(|txn| own(txn)) {
            let Txn { app_id, version: found, .. } = txn;
            return Ok(Some(format!("another writer committed {found} under {app_id}")));
        }
        let redefines = actions.iter().any(|a| a.meta_data.is_some() || a.protocol.is_some());
        if redefines || self.base.is_none() {
            if self.pending.changed {
                return Ok(Some("another writer changed schema or properties".to_owned()));
            }
            self.reload().await?;
            return Ok(None);
        }
        if let Some(path) = self.lost_source(&actions) {
            return Ok(Some(format!("another writer removed {path}")));
        }
        let mut came = Vec::new();
        for add in actions.iter().filter_map(|action| action.add.as_ref()) {
            match self.inspect(add, &actions).await? {
                Ok(file) => came.push(file),
                Err(conflict) => return Ok(Some(conflict)),
            }
        }
        self.take(version, actions, came);
        Ok(None)
    }

    /// A file that `actions` remove, or give another deletion vector, and that the pending changes
    /// were made from.
    fn lost_source<'a>(&self, actions: &'a [Action]) -> Option<&'a str> {
        let base = self.base.as_ref()?;
        let used = |path: &str| {
            base.state.file(path).is_some_and(|add| match self.view.at(path) {
                Some(file) => file.marked || file.add.deletion_vector != add.deletion_vector,
                None => true,
            })
        };
        let lost = actions.iter().flat_map(paths).find(|path| used(path))?;
        (!self.pending.replaced && !planted::is(Bug::StandOnLost)).then_some(lost)
    }

    /// Looks at a file that somebody else added: how many rows it has and, where there is an index,
    /// their keys; or why it and the pending changes don't go together.
    async fn inspect(&mut self, add: &Add, actions: &[Action]) -> Result<Result<Came, String>> {
        let (rows, deleted) = self.rows_of(add).await?;
        let mut came = Came { add: add.clone(), rows, deleted, keys: Vec::new() };
        let (Some(index), Some(schema)) = (&mut self.index, &self.schema) else {
            return Ok(Ok(came));
        };
        if self.pending.replaced || !has_key(schema) {
            return Ok(Ok(came));
        }
        let superseded = |path: &str| actions.iter().flat_map(paths).any(|other| other == path);
        let mut keys = FileKeys::open(&self.lake, &self.path, add, schema, rows).await?;
        while let Some(found) = keys.next().await? {
            let (keys, _) = found.distinct(&came.deleted);
            let places = index.find(&keys, |place| {
                let held = self.view.locate(place).and_then(|(id, _)| self.view.file(id));
                held.is_some_and(|file| !superseded(&file.add.path))
            });
            let places = places.map_err(unusable)?;
            for number in 0..keys.len() as u32 {
                if self.pending.changed && !places.of(number).is_empty() {
                    return Ok(Err("another writer added a row that is pending".to_owned()));
                }
                if add.data_change && self.pending.touched.has(fingerprint(keys.get(number))) {
                    return Ok(Err("another writer wrote a row that is pending".to_owned()));
                }
            }
            came.keys.push(found);
        }
        Ok(Ok(came))
    }

    /// Makes a commit of somebody else part of base, view and index.
    fn take(&mut self, version: i64, actions: Vec<Action>, came: Vec<Came>) {
        let keyed = self.schema.as_deref().is_some_and(has_key);
        let moved = actions.iter().any(|action| action.add.is_some() || action.remove.is_some());
        if !self.pending.replaced {
            for path in actions.iter().flat_map(paths) {
                self.view.remove_path(path);
            }
            for Came { add, rows, deleted, keys } in came {
                let id = self.view.insert(add, rows, deleted.clone(), true);
                if keyed && let Err(damaged) = self.number(id, rows, &deleted, &keys) {
                    self.lose_index(&damaged);
                }
            }
            // Rows that are counted are cheaper to look up anew than to tell apart.
            if moved && !keyed {
                self.index = None;
            }
        }
        if let Some(base) = &mut self.base {
            base.advance(version, actions);
        }
    }

    /// Gives places to the rows of a file that came.
    fn number(
        &mut self,
        id: FileId,
        rows: u64,
        deleted: &Rows,
        keys: &[FoundKeys],
    ) -> Result<(), Damaged> {
        let Some(index) = self.index.as_mut().filter(|_| !planted::is(Bug::LoseMoved)) else {
            return Ok(());
        };
        self.view.number(id, Segment { first: 0, place: index.next(), rows });
        let mut next = 0;
        for (row, key) in keys.iter().flat_map(|found| found.without(deleted)) {
            index.skip(row - next);
            index.push(key)?;
            next = row + 1;
        }
        index.skip(rows - next);
        Ok(())
    }
}

/// A file that somebody else added.
struct Came {
    add: Add,
    rows: u64,
    deleted: Rows,
    keys: Vec<FoundKeys>,
}

/// The paths of the files that an action is about.
fn paths(action: &Action) -> impl Iterator<Item = &str> {
    let remove = action.remove.as_ref().map(|remove| remove.path.as_str());
    remove.into_iter().chain(action.add.as_ref().map(|add| add.path.as_str()))
}
