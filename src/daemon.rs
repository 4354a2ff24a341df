//! The daemon: one task a source, what is served beside, and changes of the configuration while it
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use lakeward_connectors::{Error, Result};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::board::{Board, SAMPLE};
use crate::budget::Budget;
use crate::config::{Config, Database};
use crate::control::{self, Orders};
use crate::delta::{Cache, Lake};
use crate::metrics::otlp;
use crate::pipeline::{Ended, Order, Settings};
use crate::serve::serve;
use crate::verify::{Request, saved};
use crate::writer::{Cadence, Merging};
use crate::{alert, progress};

mod keeper;
mod reload;

use keeper::Keeper;
use reload::Reload;

/// How often the catalog is looked at for what the log doesn't show.
const CATALOG_INTERVAL: Duration = Duration::from_secs(5);

/// How often a source on which nothing happens gets an empty epoch, so that its log is released.
const IDLE_INTERVAL: Duration = Duration::from_secs(20);

/// The part of a source's memory that the indexes of its tables may take.
const INDEX_SHARE: usize = 8;

/// How long the end of the process waits until what verifications found is saved.
const SAVING: Duration = Duration::from_secs(1);

/// So many orders wait for a source.
const ORDERS: usize = 64;

/// How the sources of a process ended, by name.
pub type Outcome = BTreeMap<String, Result<Ended>>;

/// For how long sources are kept.
#[derive(Debug, Clone, Copy)]
pub enum Until<'a> {
    /// Until the process is told to stop; meanwhile a change of this file changes what is kept.
    Stopped(&'a Path),
    /// Until all are current, and verified if that is asked for.
    Current(Option<&'a Request>),
}

/// Keeps every source.
///
/// # Errors
/// When the lake can't be opened or the port is taken; a source's own errors are in the outcome.
pub async fn keep(config: &Config, until: Until<'_>, stop: CancellationToken) -> Result<Outcome> {
    let (memory, indexes) = (Budget::from(0), Budget::from(0));
    let cache = Cache::directory(&config.lake.state_dir)?.limited(indexes.clone());
    let daemon = Daemon {
        config: config.clone(),
        lake: Lake::open(&config.lake.options())?.with_cache(cache),
        memory,
        indexes,
        board: Board::default(),
        orders: Orders::default(),
        nonce: uuid::Uuid::new_v4().to_string(),
        until_current: matches!(until, Until::Current(_)),
        stop,
        kept: BTreeMap::new(),
        running: JoinSet::new(),
        outcome: Outcome::new(),
    };
    let mut beside = JoinSet::new();
    serve(config.listen, daemon.board.clone(), &mut beside).await?;
    beside.spawn(progress::show(daemon.board.clone()));
    beside.spawn(sample(daemon.board.clone()));
    let (orders, board) = (daemon.orders.clone(), daemon.board.clone());
    control::serve(&config.lake.state_dir, orders, board, &mut beside);
    let (send, changes) = mpsc::channel(1);
    if let Until::Stopped(file) = until {
        beside.spawn(reload::watch(file.to_owned(), send));
        if let Some(webhook) = config.alert.webhook.clone() {
            beside.spawn(alert::watch(daemon.board.clone(), webhook, config.alert.lag));
        }
        if let Some(collector) = config.otlp.clone() {
            beside.spawn(otlp::push(daemon.board.clone(), collector));
        }
    }
    let verify = if let Until::Current(verify) = until { verify } else { None };
    let end = CancellationToken::new();
    let saving = tokio::spawn(saved::keep(daemon.board.clone(), daemon.lake.clone(), end.clone()));
    let outcome = daemon.run(verify, changes).await;
    end.cancel();
    // Nothing depends on it.
    let _ = tokio::time::timeout(SAVING, saving).await;
    outcome
}

/// The sources of a process.
struct Daemon {
    /// What is kept now. All but the sources stays as it was at the start.
    config: Config,
    lake: Lake,
    /// The share of each source, and of its indexes (P7).
    memory: Budget,
    indexes: Budget,
    board: Board,
    orders: Orders,
    nonce: String,
    until_current: bool,
    stop: CancellationToken,
    kept: BTreeMap<String, Kept>,
    running: JoinSet<(String, Result<Ended>)>,
    /// How sources ended that are not kept any more.
    outcome: Outcome,
}

/// A source whose task runs.
struct Kept {
    stop: CancellationToken,
    database: Database,
}

impl Daemon {
    async fn run(
        mut self,
        verify: Option<&Request>,
        mut changes: mpsc::Receiver<Reload>,
    ) -> Result<Outcome> {
        self.share();
        let names: Vec<_> = self.config.sources.keys().cloned().collect();
        for name in &names {
            self.start(name);
            if let Some(request) = verify {
                // Nothing waits there yet.
                let _ = self.orders.give(name, Order::Verify(request.clone(), None));
            }
        }
        while !self.running.is_empty() {
            tokio::select! {
                Some(ended) = self.running.join_next() => self.ended(ended)?,
                Some(change) = changes.recv() => self.change(change),
            }
        }
        Ok(self.outcome)
    }

    /// One budget for the process, in equal shares.
    fn share(&self) {
        let share = self.config.lake.memory / self.config.sources.len().max(1);
        self.memory.set(share);
        self.indexes.set(share / INDEX_SHARE);
    }

    /// Starts to keep a source of the configuration.
    fn start(&mut self, name: &str) {
        let Some(source) = self.config.sources.get(name) else { return };
        let settings = Settings {
            source: name.to_owned(),
            flush_interval: self.config.lake.flush_interval,
            memory: self.memory.clone(),
            snapshot_connections: source.snapshot_connections,
            snapshot_modes: source.per_table.snapshot_modes.clone(),
            dropped_tables: source.dropped_tables,
            merging: Merging {
                modes: source.per_table.merge.clone(),
                shapes: source.per_table.shapes.clone(),
                shape: source.per_table.shape.clone(),
                intervals: source.per_table.merge_interval.clone(),
                cadence: Cadence { bytes: self.memory.bytes() / 4, ..Cadence::default() },
            },
            catalog_interval: CATALOG_INTERVAL,
            idle_interval: IDLE_INTERVAL,
            until_current: self.until_current,
            verify_rate: source.verify_rate,
            verify_every: source.verify_every,
            nonce: self.nonce.clone(),
        };
        let (send, orders) = mpsc::channel(ORDERS);
        self.orders.add(name, send);
        let (stop, database) = (self.stop.child_token(), source.database.clone());
        let meter = self.board.source(name, database.kind());
        let mut keeper =
            Keeper { lake: self.lake.clone(), settings, meter, orders, stop: stop.clone() };
        self.kept.insert(name.to_owned(), Kept { stop, database: database.clone() });
        self.outcome.remove(name);
        self.running
            .spawn(async move { (keeper.settings.source.clone(), keeper.keep(&database).await) });
    }

    /// A source's task has ended. One that was told to, because its section changed, starts again.
    fn ended(&mut self, ended: Result<(String, Result<Ended>), JoinError>) -> Result<()> {
        let (name, result) =
            ended.map_err(|panic| Error::internal("a source's task ended").caused_by(panic))?;
        self.orders.remove(&name);
        let Some(was) = self.kept.remove(&name) else { return Ok(()) };
        if !was.stop.is_cancelled() || self.stop.is_cancelled() {
            self.outcome.insert(name, result);
            return Ok(());
        }
        if let Err(error) = result {
            warn!(source = name, error = error.full(), "the source did not end as it should");
        }
        let now = self.config.sources.get(&name).map(|source| &source.database);
        let left = was.database.left_behind();
        if let Some((what, remedy)) = &left
            && now.is_none_or(|now| now.left_behind() != left)
        {
            warn!(source = name, remedy, "{what}");
        }
        match now {
            Some(_) => self.start(&name),
            None => self.board.removed(&name, left),
        }
        Ok(())
    }

    /// Changes to another configuration: only sources whose section is another one are touched.
    fn change(&mut self, Reload { config, asked }: Reload) {
        if self.stop.is_cancelled() {
            return;
        }
        let fixed =
            |of: &Config| (of.lake.clone(), of.log.clone(), of.alert.clone(), of.otlp.clone());
        if fixed(&config) != fixed(&self.config) {
            warn!(
                "[lake], [log], [alert] and [otlp] stay as they were: they take effect with a restart"
            );
        }
        let before = std::mem::replace(&mut self.config.sources, config.sources);
        self.share();
        let names: BTreeSet<_> = before.keys().chain(self.config.sources.keys()).cloned().collect();
        for name in names {
            let (was, is) = (before.get(&name), self.config.sources.get(&name));
            if was == is && !(asked && self.outcome.contains_key(&name)) {
                continue;
            }
            let what = match (was, is) {
                (None, _) => "source added",
                (_, None) => "source removed: its tables stay as they are",
                _ if was == is => "source tried again",
                _ => "source changed",
            };
            info!(source = name, "{what}");
            match self.kept.get(&name) {
                // It starts again when it has flushed and ended.
                Some(kept) => kept.stop.cancel(),
                None if is.is_some() => self.start(&name),
                None => {
                    self.outcome.remove(&name);
                    self.board.removed(&name, None);
                }
            }
        }
    }
}

/// Takes samples of all sources and tables for the charts.
async fn sample(board: Board) {
    let mut tick = tokio::time::interval(SAMPLE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        board.sample();
    }
}
