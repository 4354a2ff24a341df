//! One source being kept: started over after errors that pass.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use lakeward_connectors::source::Source;
use lakeward_connectors::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::board::Meter;
use crate::config::Database;
use crate::delta::Lake;
use crate::pipeline::{Ended, Order, Settings, run};
use crate::with_source;

/// A source that ran this long starts over without waiting.
const SOUND_RUN: Duration = Duration::from_secs(60);

/// How long `run --until-current` puts up with a source that can't be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end of a source waits for it to flush and commit.
const GRACE: Duration = Duration::from_secs(9);

/// Keeps one source.
pub(super) struct Keeper {
    pub(super) lake: Lake,
    pub(super) settings: Settings,
    pub(super) meter: Meter,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) stop: CancellationToken,
}

impl Keeper {
    /// Keeps it until it is told to stop, or nothing is left to do.
    ///
    /// # Errors
    /// What doesn't pass by itself; with `until_current` also what doesn't pass soon.
    pub(super) async fn keep(&mut self, database: &Database) -> Result<Ended> {
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

/// Waits of 0.1 s to 30 s, with jitter.
fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times()
        .build()
}
