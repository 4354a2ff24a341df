//! A daemon's process: it runs, is killed, is frozen while another one takes over, and wakes up.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use lakeward::board::Board;
use lakeward::delta::{Cache, Lake};
use lakeward::pipeline::{Act, Order, Settings, run};
use lakeward::verify::{Outcome, Request};
use lakeward_connectors::scripted::{Chance, Scripted, Shared};
use lakeward_connectors::{Error, ErrorKind};
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::script;
use super::store::{Disk, SimStore};

/// Whether a process goes on.
#[derive(Debug, Default)]
pub struct Gate(Mutex<(bool, Vec<Waker>)>);

impl Gate {
    /// Freezes the process, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = frozen;
        if !frozen {
            state.1.drain(..).for_each(Waker::wake);
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.0 {
            return Poll::Ready(());
        }
        state.1.push(waker.clone());
        Poll::Pending
    }

    /// Waits while the process is frozen.
    pub async fn pass(&self) {
        std::future::poll_fn(|context| self.poll(context.waker())).await;
    }
}

/// What processes count.
#[derive(Debug, Default)]
pub struct Counters {
    pub restarts: AtomicU64,
    pub gaps: AtomicU64,
    pub superseded: AtomicU64,
    /// Tables that verifications found equal to the source.
    pub verified: AtomicU64,
    /// Tables that were paused.
    pub paused: AtomicU64,
}

/// How a process ended by itself.
pub type Exit = Result<(), String>;

/// One process, from its start to its end.
#[derive(Debug)]
pub struct Process {
    pub gate: Arc<Gate>,
    pub nonce: String,
    /// Its state directory.
    pub cache: Cache,
    task: JoinHandle<Exit>,
}

impl Process {
    /// Starts a daemon.
    pub fn start(
        server: &Shared,
        disk: &Arc<Disk>,
        settings: Settings,
        cache: Cache,
        counters: &Arc<Counters>,
        pauses: Option<Chance>,
    ) -> Self {
        let gate = Arc::new(Gate::default());
        let lake = Lake::with_store(Arc::new(SimStore::new(disk, &gate)));
        let lake = lake.with_cache(cache.clone());
        let nonce = settings.nonce.clone();
        let (server, counters, held) = (server.clone(), counters.clone(), gate.clone());
        let task = tokio::spawn(async move {
            let mut keeping = pin!(keep(&server, lake, settings, &counters, pauses));
            std::future::poll_fn(|context| match held.poll(context.waker()) {
                Poll::Ready(()) => keeping.as_mut().poll(context),
                Poll::Pending => Poll::Pending,
            })
            .await
        });
        Self { gate, nonce, cache, task }
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for its end.
    pub async fn end(self) -> Exit {
        self.task.await.unwrap_or_else(|error| Err(format!("a process panicked: {error}")))
    }

    /// kill -9; what it had sent is under way. An end of its own before is judged all the same.
    pub async fn kill(self) -> Exit {
        self.task.abort();
        match self.task.await {
            Ok(exit) => exit,
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(format!("a process panicked: {error}")),
        }
    }
}

/// Starts over from the lake as the daemon does, until the source is lost to another process.
async fn keep(
    server: &Shared,
    lake: Lake,
    settings: Settings,
    counters: &Counters,
    mut pauses: Option<Chance>,
) -> Exit {
    let mut wait = Duration::from_millis(100);
    loop {
        let meter = Board::default().source(&settings.source, "scripted");
        let stop = CancellationToken::new();
        let (source, settings) = (Scripted::new(server), settings.clone());
        let (send, mut orders) = tokio::sync::mpsc::channel(64);
        let (answers, mut verified) = tokio::sync::mpsc::unbounded_channel();
        let request = Request { table: None, repair: false };
        if send.try_send(Order::Verify(request, Some(answers))).is_err() {
            return Err("an order can't be given".to_owned());
        }
        let nonce = settings.nonce.clone();
        if settings.until_current {
            // It is done when no table is paused any more.
            for table in script::tables() {
                let (answer, _) = oneshot::channel();
                let _ = send.try_send(Order::Table(Act::Resume, table, answer));
            }
        }
        let running = run(source, lake.clone(), settings, meter, &mut orders, stop);
        let result = match &mut pauses {
            Some(chance) => tokio::select! {
                result = running => result,
                never = act(send, chance, counters) => match never {},
            },
            None => running.await,
        };
        // V1: whatever happens meanwhile, lake and source are equal at one position.
        while let Ok((table, found)) = verified.try_recv() {
            match found.outcome {
                Outcome::Different => {
                    return Err(format!("{table}: verification has a false alarm: {found:?}"));
                }
                Outcome::Equal => counters.verified.fetch_add(1, Ordering::Relaxed),
                Outcome::Skipped => 0,
            };
        }
        let Err(error) = result else { return Ok(()) };
        tracing::info!(nonce, error = error.full(), "run ended");
        if let Some(exit) = judge(&error, counters) {
            return exit;
        }
        counters.restarts.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}

/// Pauses tables, resumes them and has them read again, now and then, for as long as it runs.
async fn act(orders: Sender<Order>, chance: &mut Chance, counters: &Counters) -> Infallible {
    let tables = script::tables();
    loop {
        tokio::time::sleep(Duration::from_millis(chance.below(1_500))).await;
        let table = tables[chance.below(tables.len() as u64) as usize].clone();
        let act = [Act::Pause, Act::Pause, Act::Pause, Act::Resume, Act::Snapshot];
        let act = act[chance.below(act.len() as u64) as usize];
        let (answer, answered) = oneshot::channel();
        let sent = orders.send(Order::Table(act, table, answer)).await;
        if sent.is_ok() && answered.await == Ok(Ok(())) && act == Act::Pause {
            counters.paused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a process ends with `error`, and whether that is as it should be.
fn judge(error: &Error, counters: &Counters) -> Option<Exit> {
    match error.kind() {
        ErrorKind::Unavailable => None,
        ErrorKind::Gap => {
            counters.gaps.fetch_add(1, Ordering::Relaxed);
            None
        }
        ErrorKind::Config if error.to_string().contains("another lakeward") => {
            counters.superseded.fetch_add(1, Ordering::Relaxed);
            Some(Ok(()))
        }
        _ => Some(Err(format!("a process ended with an error it must not have: {}", error.full()))),
    }
}
