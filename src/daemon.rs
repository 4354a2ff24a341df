//! The daemon: one task a source, started over after errors that pass, and what is served beside.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use lakeward_connectors::source::Source;
use lakeward_connectors::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::board::{Board, Meter, SAMPLE};
use crate::config::{Config, Database};
use crate::control::{self, Orders};
use crate::delta::{Cache, Lake};
use crate::pipeline::{Ended, Order, Settings, run};
use crate::serve::serve;
use crate::verify::Request;
use crate::writer::{Cadence, Merging};
use crate::{progress, with_source};

/// How often the catalog is looked at for what the log doesn't show.
const CATALOG_INTERVAL: Duration = Duration::from_secs(5);

/// How often a source on which nothing happens gets an empty epoch, so that its log is released.
const IDLE_INTERVAL: Duration = Duration::from_secs(20);

/// A source that ran this long starts over without waiting.
const SOUND_RUN: Duration = Duration::from_secs(60);

/// How long `run --until-current` puts up with a source that can't be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// The part of a source's memory that the indexes of its tables may take.
const INDEX_SHARE: usize = 8;

/// How long the end of the process waits for sources to flush and commit.
const GRACE: Duration = Duration::from_secs(9);

/// So many orders wait for a source.
const ORDERS: usize = 64;

/// How the sources of a process ended, by name.
pub type Outcome = BTreeMap<String, Result<Ended>>;

/// Keeps every source until `stop`, or, with `until_current`, until all are current, and verified as
/// `verify` asks.
///
/// # Errors
/// When the lake can't be opened or the port is taken; a source's own errors are in the outcome.
pub async fn keep(
    config: &Config,
    until_current: bool,
    verify: Option<&Request>,
    stop: CancellationToken,
) -> Result<Outcome> {
    // One budget for the process (P7), in equal shares.
    let memory = config.lake.memory / config.sources.len().max(1);
    let cache = Cache::directory(&config.lake.state_dir)?.limited(memory / INDEX_SHARE);
    let lake = Lake::open(&config.lake.options())?.with_cache(cache);
    let board = Board::default();
    let mut beside = JoinSet::new();
    serve(config.listen, board.clone(), &mut beside).await?;
    beside.spawn(progress::show(board.clone()));
    beside.spawn(sample(board.clone()));
    let nonce = uuid::Uuid::new_v4().to_string();
    let mut sources = JoinSet::new();
    let mut orders = Orders::new();
    for (name, source) in &config.sources {
        let settings = Settings {
            source: name.clone(),
            flush_interval: config.lake.flush_interval,
            memory,
            snapshot_connections: source.snapshot_connections,
            merging: Merging {
                modes: source.per_table.merge.clone(),
                shapes: source.per_table.shapes.clone(),
                shape: source.per_table.shape.clone(),
                intervals: source.per_table.merge_interval.clone(),
                cadence: Cadence { bytes: memory / 4, ..Cadence::default() },
            },
            catalog_interval: CATALOG_INTERVAL,
            idle_interval: IDLE_INTERVAL,
            until_current,
            verify_rate: source.verify_rate,
            verify_every: source.verify_every,
            nonce: nonce.clone(),
        };
        let (send, receive) = mpsc::channel(ORDERS);
        if let Some(request) = verify {
            // It is empty yet.
            let _ = send.try_send(Order::Verify(request.clone(), None));
        }
        orders.insert(name.clone(), send);
        let database = source.database.clone();
        let mut keeper = Keeper {
            lake: lake.clone(),
            settings,
            meter: board.source(name, source.database.kind()),
            orders: receive,
            stop: stop.clone(),
        };
        sources
            .spawn(async move { (keeper.settings.source.clone(), keeper.keep(&database).await) });
    }
    control::serve(&config.lake.state_dir, orders, &mut beside);
    let mut outcome = Outcome::new();
    while let Some(ended) = sources.join_next().await {
        match ended {
            Ok((name, result)) => {
                outcome.insert(name, result);
            }
            Err(panic) => return Err(Error::internal("a source's task ended").caused_by(panic)),
        }
    }
    Ok(outcome)
}

struct Keeper {
    lake: Lake,
    settings: Settings,
    meter: Meter,
    orders: mpsc::Receiver<Order>,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(&mut self, database: &Database) -> Result<Ended> {
        let name = self.settings.source.clone();
        let mut waits = backoff();
        let mut failing_since = None;
        loop {
            let began = Instant::now();
            let problem = match self.once(database).await {
                Ok(ended) => {
                    self.meter.ended();
                    return Ok(ended);
                }
                Err(problem) => problem,
            };
            if self.stop.is_cancelled() {
                self.meter.failed(&problem, None);
                return Err(problem);
            }
            if began.elapsed() >= SOUND_RUN {
                (waits, failing_since) = (backoff(), None);
            }
            let since = *failing_since.get_or_insert(began);
            let given_up = self.settings.until_current && since.elapsed() >= PATIENCE;
            let passes = matches!(
                problem.kind(),
                ErrorKind::Unavailable | ErrorKind::Gap | ErrorKind::Internal | ErrorKind::Table
            );
            if !passes || given_up {
                error!(source = name, error = problem.full(), "source ended");
                self.meter.failed(&problem, None);
                return Err(problem);
            }
            let wait = waits.next().unwrap_or(Duration::from_secs(30));
            warn!(source = name, error = problem.full(), ?wait, "starting over from the lake");
            self.meter.failed(&problem, Some(wait));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Err(problem),
            }
        }
    }

    async fn once(&mut self, database: &Database) -> Result<Ended> {
        with_source!(database, source => self.follow(source).await)?
    }

    /// Runs the pipeline; once told to stop it has a bounded time to end.
    async fn follow<S: Source>(&mut self, source: S) -> Result<Ended> {
        let (lake, settings) = (self.lake.clone(), self.settings.clone());
        let (meter, stop) = (self.meter.clone(), self.stop.clone());
        let running = run(source, lake, settings, meter, &mut self.orders, stop.clone());
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = running => result,
            () = overdue => Err(Error::unavailable(
                "the last flush did not end in time; the next start goes on from the one before",
            )),
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

/// Waits of 0.1 s to 30 s, with jitter.
fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}
