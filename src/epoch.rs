//! Epochs: what a source has made durable, and where it goes on (P1–P3, E2–E6, E10).
//!
//! A flush has a number, its epoch. Its file `<lake>/_lakeward/<source>/epochs/<epoch>.json` is
//! created with put-if-absent *before* the tables are committed, and each table's commit carries
//! `txn {appId: "lakeward/<source>", version: epoch}`. So the newest file and the tables' `txn`s
//! together say, at any instant of any crash, what every table holds:
//!
//! - a table in the file's commit list holds *after* if its `txn` is this epoch, else *before* (E5);
//! - any other table holds what the roster states.

use std::collections::BTreeMap;

use bytes::Bytes;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{KeyText, Position, Range};
use lakeward_connectors::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::delta::{Created, Lake};
use crate::pipeline::now_ms;
use crate::planted::{self, Bug};
use crate::staged::Staged;

/// The version of the file's format; a daemon refuses files of a newer one.
const FORMAT: u32 = 2;

/// How many epoch files are kept for people and for consistent cuts (E10).
const KEPT: u64 = 300;

/// How many times an epoch file's creation is tried before the source starts over.
const ATTEMPTS: u32 = 6;

/// What a table is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Existing rows are being read beside the stream.
    Snapshot,
    /// The table equals the source at its position and follows the stream.
    Live,
    /// The same, but its rows in the lake stay as they are: its changes are staged until it is
    /// resumed.
    Paused,
    /// The table can't go on; the reason says why, and what brings it back. It has lost its place.
    Stopped,
    /// The log no longer holds what the table needs next; it is read again.
    Gap,
    /// The source has no such table any more. Its rows are those that it had at the end, or none, as
    /// the configuration says.
    Dropped,
}

impl State {
    /// Whether the table has its place: the stream goes on from what it holds, if it goes on.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Snapshot | Self::Live | Self::Paused | Self::Dropped)
    }

    /// Whether all of it equals the source at the position that it holds.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Live | Self::Paused)
    }
}

/// A member of the roster: what one table holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Member<P: Position> {
    /// What it is doing.
    pub state: State,
    /// The position it holds; `None`: the epoch's own `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<P>,
    /// What its snapshot still has to read.
    #[serde(default, skip_serializing_if = "Progress::is_done")]
    pub progress: Progress,
    /// Why it is stopped, or read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Changes that are durable and not in the table yet, the oldest first: it holds its position by
    /// its rows and these together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Staged>,
    /// The position that the table's rows alone prove, while anything is staged; `None` when they
    /// prove none, since the table was not live there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<P>,
}

impl<P: Position> Member<P> {
    /// The position that the table's rows alone prove: what readers see.
    pub fn seen(&self) -> Option<&P> {
        match (self.staged.is_empty(), self.state) {
            (false, _) => self.visible.as_ref(),
            (true, state) if state.is_whole() => self.held.as_ref(),
            (true, _) => None,
        }
    }
}

/// What a snapshot still has to read. Durable with the rows: it counts as *after* exactly when the
/// table's `txn` equals the epoch (S7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Ranges of keys not read yet; `None` before the table was split into ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Keys that must be read again (S5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyText>,
    /// Whether the rows read so far are not in the table yet but in a new generation beside it,
    /// which a crash loses (S9, S11).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
}

impl Progress {
    /// Whether nothing is left to read.
    pub fn is_done(&self) -> bool {
        self.ranges.is_empty() && self.keys.is_empty() && !self.staged
    }
}

/// What one epoch does to a table it commits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Step<P: Position> {
    /// What the table holds when its `txn` is not this epoch.
    pub before: Member<P>,
    /// What it holds when its `txn` is.
    pub after: Member<P>,
    /// The schema of a table that this epoch creates: whoever takes over may have to create it in
    /// order to fence it (E6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creates: Option<TableSchema>,
}

/// What a table that an epoch commits held before, and its schema when the epoch creates it.
pub type Before<P> = (Member<P>, Option<TableSchema>);

/// Every table of a source and what it holds.
pub type Roster<P> = BTreeMap<TableId, Member<P>>;

/// One epoch file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct EpochFile<P: Position> {
    format: u32,
    /// Its number.
    pub epoch: u64,
    /// Which start of which process wrote it.
    pub nonce: String,
    /// Which database and slot the positions belong to.
    pub identity: String,
    /// The position at which the flush closed.
    pub to: P,
    /// When it was written, milliseconds of Unix time by this machine's clock; advisory (E9).
    pub written_ms: i64,
    /// Every table; absent when it is the one of epoch [`roster_of`](Self::roster_of).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<Roster<P>>,
    /// The epoch whose file holds the roster: this one or an earlier one.
    pub roster_of: u64,
    /// The tables that this epoch commits.
    #[serde(default)]
    pub commits: BTreeMap<TableId, Step<P>>,
    /// Transactions delivered up to `to` that no view was known to see yet (S4).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<P::Transaction>,
}

/// What a daemon knows of a source's epochs: enough to write the next one.
#[derive(Debug)]
pub struct Ledger<P: Position> {
    lake: Lake,
    source: String,
    nonce: String,
    /// When this ledger was opened, milliseconds of Unix time.
    opened_ms: i64,
    /// The newest file, its roster filled in.
    newest: Option<EpochFile<P>>,
    /// The epoch whose file physically holds the current roster.
    roster_of: u64,
}

/// What a flush wants to write down.
#[derive(Debug, Clone)]
pub struct Entry<P: Position> {
    /// The source's identity.
    pub identity: String,
    /// Where the flush closes.
    pub to: P,
    /// Every table after this epoch's commits.
    pub roster: Roster<P>,
    /// The tables among them that this epoch commits.
    pub commits: BTreeMap<TableId, Before<P>>,
    /// The list of S4.
    pub unseen: Vec<P::Transaction>,
    /// When, milliseconds of Unix time.
    pub written_ms: i64,
}

impl<P: Position> Ledger<P> {
    /// Reads the newest epoch file of `source`.
    ///
    /// # Errors
    /// When the lake can't be read, or a file is of a newer format or damaged.
    pub async fn open(lake: Lake, source: &str, nonce: String) -> Result<Self> {
        let (source, opened_ms) = (source.to_owned(), now_ms());
        let mut ledger = Self { lake, source, nonce, opened_ms, newest: None, roster_of: 0 };
        let newest = ledger.numbers().await?.into_iter().max();
        if let Some(number) = newest {
            let file = ledger.read_whole(number).await?;
            ledger.roster_of = file.roster_of;
            ledger.newest = Some(file);
        }
        Ok(ledger)
    }

    /// The newest file, its roster filled in.
    pub fn newest(&self) -> Option<&EpochFile<P>> {
        self.newest.as_ref()
    }

    /// The number the next epoch will have. The first is 1.
    pub fn next(&self) -> u64 {
        self.newest.as_ref().map_or(1, |file| file.epoch + 1)
    }

    /// The `appId` of the tables' `txn`s.
    pub fn app_id(&self) -> String {
        format!("lakeward/{}", self.source)
    }

    /// The `appId` of fences (E6).
    pub fn fence_id(&self) -> String {
        format!("lakeward/{}/fence", self.source)
    }

    /// Whether a file newer than the newest known one exists (E6, E9).
    ///
    /// # Errors
    /// When the lake can't be listed, or the newer file was under way when this ledger was opened.
    pub async fn is_superseded(&self) -> Result<bool> {
        let known = self.newest.as_ref().map_or(0, |file| file.epoch);
        let ahead = self.numbers().await?.into_iter().filter(|number| *number > known).max();
        let Some(ahead) = ahead else { return Ok(false) };
        match self.lake.get(&self.path(ahead)).await? {
            Some(found) if self.was_under_way(&found) => Err(self.overtaken(ahead)),
            _ => Ok(true),
        }
    }

    /// Creates the next epoch file (E4): on any error the same bytes under the same number again,
    /// then a read: the file is mine if its bytes are. The nonce alone tells a process, and an earlier
    /// run of this one, or a process that was killed, may have had a request under way that says
    /// something else.
    ///
    /// # Errors
    /// [`Unavailable`](lakeward_connectors::ErrorKind::Unavailable) when the store does not answer;
    /// [`Config`](lakeward_connectors::ErrorKind::Config) when another daemon took the number.
    pub async fn write(&mut self, entry: Entry<P>) -> Result<u64> {
        let epoch = self.next();
        let file = self.compose(epoch, entry);
        let stored = EpochFile {
            roster: file.roster.clone().filter(|_| file.roster_of == epoch),
            ..file.clone()
        };
        let bytes = serde_json::to_vec(&stored).map_err(|error| {
            Error::internal("an epoch file could not be serialised").caused_by(error)
        })?;
        self.create(epoch, Bytes::from(bytes)).await?;
        self.roster_of = file.roster_of;
        self.newest = Some(file);
        Ok(epoch)
    }

    fn compose(&self, epoch: u64, entry: Entry<P>) -> EpochFile<P> {
        let mut commits = BTreeMap::new();
        let mut roster = entry.roster;
        for (table, (before, creates)) in entry.commits {
            if let Some(after) = roster.get(&table) {
                commits.insert(table, Step { before, after: after.clone(), creates });
            }
        }
        for member in roster.values_mut() {
            if member.held.as_ref() == Some(&entry.to) {
                member.held = None;
            }
        }
        let unchanged =
            self.newest.as_ref().is_some_and(|last| last.roster.as_ref() == Some(&roster));
        EpochFile {
            format: FORMAT,
            epoch,
            nonce: self.nonce.clone(),
            identity: entry.identity,
            to: entry.to,
            written_ms: entry.written_ms,
            roster: Some(roster),
            roster_of: if unchanged { self.roster_of } else { epoch },
            commits,
            unseen: entry.unseen,
        }
    }

    async fn create(&self, epoch: u64, bytes: Bytes) -> Result<()> {
        let path = self.path(epoch);
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(50 << attempt)).await;
            }
            match self.lake.create(&path, bytes.clone()).await {
                Ok(Created::Yes) => return Ok(()),
                Ok(Created::Exists) => match self.lake.get(&path).await {
                    Ok(Some(found)) if found == bytes || planted::is(Bug::AnyEpochIsMine) => {
                        return Ok(());
                    }
                    Ok(Some(found)) if self.was_under_way(&found) => {
                        return Err(self.overtaken(epoch));
                    }
                    Ok(Some(_)) => return Err(self.superseded(epoch)),
                    Ok(None) => last = Some(Error::unavailable("an epoch file came and went")),
                    Err(error) => last = Some(error),
                },
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::unavailable("an epoch file could not be created")))
    }

    /// Whether an epoch file that this ledger did not find when it was opened had been sent off by
    /// then: by an earlier run of this process, or by one that this one takes over from. Somebody
    /// who goes on writing sends off more of them, later (E9); clocks that differ decide only
    /// whether this daemon starts over or ends.
    fn was_under_way(&self, bytes: &[u8]) -> bool {
        serde_json::from_slice::<EpochFile<P>>(bytes)
            .is_ok_and(|file| file.nonce == self.nonce || file.written_ms < self.opened_ms)
    }

    /// The error of a run that finds an epoch whose file was under way when the run began: it says
    /// something else, and it counts.
    fn overtaken(&self, epoch: u64) -> Error {
        Error::unavailable("an epoch file of an earlier run arrived late; starting over from it")
            .with("source", &self.source)
            .with("epoch", epoch)
    }

    /// The error of a daemon that lost its source to another one (E9).
    pub fn superseded(&self, epoch: u64) -> Error {
        Error::config("another lakeward writes this source; this one stops here")
            .with("source", &self.source)
            .with("epoch", epoch)
            .remedy("run one daemon a source and lake, or give this one another source name")
    }

    /// Deletes files that nobody needs (E10): all but the newest few hundred and the one that holds
    /// the roster. The owner of the newest number looks at the listing first and stops when it
    /// shows a greater one.
    ///
    /// # Errors
    /// When the lake can't be listed, or another daemon is ahead.
    pub async fn prune(&self) -> Result<()> {
        let Some(newest) = &self.newest else { return Ok(()) };
        let numbers = self.numbers().await?;
        if let Some(&ahead) = numbers.iter().find(|&&number| number > newest.epoch) {
            return Err(self.superseded(ahead));
        }
        let oldest_kept = newest.epoch.saturating_sub(KEPT);
        for number in numbers.into_iter().filter(|&n| n < oldest_kept && n != self.roster_of) {
            self.lake.delete(&self.path(number)).await?;
        }
        Ok(())
    }

    fn folder(&self) -> String {
        format!("_lakeward/{}/epochs", self.source)
    }

    fn path(&self, epoch: u64) -> String {
        format!("{}/{epoch}.json", self.folder())
    }

    async fn numbers(&self) -> Result<Vec<u64>> {
        let listed = self.lake.list(&self.folder()).await?;
        let number = |path: &str| path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        Ok(listed.iter().filter_map(|object| number(&object.path)).collect())
    }

    async fn read_whole(&self, epoch: u64) -> Result<EpochFile<P>> {
        let mut file = self.read(epoch).await?;
        if file.roster.is_none() && file.roster_of != epoch {
            file.roster = self.read(file.roster_of).await?.roster;
        }
        if file.roster.is_none() {
            return Err(self.damaged(epoch, "the file that holds its roster has none"));
        }
        Ok(file)
    }

    async fn read(&self, epoch: u64) -> Result<EpochFile<P>> {
        let bytes = self.lake.get(&self.path(epoch)).await?;
        let bytes = bytes.ok_or_else(|| self.damaged(epoch, "it is gone"))?;
        let file: EpochFile<P> = serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(epoch, "it can't be read").caused_by(error))?;
        if file.format > FORMAT {
            return Err(Error::config("the lake was written by a newer lakeward")
                .with("format", file.format)
                .remedy("run the newer version"));
        }
        Ok(file)
    }

    fn damaged(&self, epoch: u64, what: &str) -> Error {
        Error::config(format!("an epoch file is damaged: {what}"))
            .with("file", self.path(epoch))
            .remedy(format!(
                "restore it, or run `lakeward remove {}` to read every table again",
                self.source
            ))
    }
}

impl<P: Position> EpochFile<P> {
    /// What `table` holds, given the `txn` its Delta log shows (E5): its member with `held` filled.
    pub fn holds(&self, table: &TableId, txn: Option<i64>) -> Option<Member<P>> {
        let mut member = match self.commits.get(table) {
            Some(step) if txn == Some(self.epoch as i64) || planted::is(Bug::AlwaysAfter) => {
                step.after.clone()
            }
            Some(step) => step.before.clone(),
            None => self.roster.as_ref()?.get(table)?.clone(),
        };
        member.held.get_or_insert_with(|| self.to.clone());
        Some(member)
    }
}
