//! One seed: a database, its users, a store, daemons that come and go, and what goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lakeward::delta::{Cache, Merge, Worth};
use lakeward::pipeline::{DroppedTables, Settings};
use lakeward::writer::{Cadence, Merging};
use lakeward_connectors::TableId;
use lakeward_connectors::scripted::{self, Chance, Faults, Retention, Server, Shared, Views, lock};
use tokio::time::{Instant, sleep, timeout};

use super::checks::{self, SOURCE};
use super::lake::{LakeTable, newest_epoch};
use super::process::{Counters, Process};
use super::script;
use super::store::{Disk, StoreFaults};
use crate::support::Res;

/// What one seed saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub flushes: u64,
    pub crashes: u64,
    pub zombies: u64,
    pub superseded: u64,
    /// Tables that verifications found equal to the source, beside all that goes on.
    pub verified: u64,
    /// Tables that were paused.
    pub paused: u64,
    /// Tables that were dropped, and stayed so.
    pub dropped: u64,
    pub restarts: u64,
    pub gaps: u64,
    pub transactions: u64,
    /// Simulated time.
    pub seconds: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.flushes += other.flushes;
        self.crashes += other.crashes;
        self.zombies += other.zombies;
        self.superseded += other.superseded;
        self.verified += other.verified;
        self.paused += other.paused;
        self.dropped += other.dropped;
        self.restarts += other.restarts;
        self.gaps += other.gaps;
        self.transactions += other.transactions;
        self.seconds += other.seconds;
    }
}

/// The longest the last daemon may take, simulated.
const PATIENCE: Duration = Duration::from_secs(600);

struct World {
    chance: Chance,
    server: Shared,
    disk: Arc<Disk>,
    counters: Arc<Counters>,
    /// The daemon that runs, if any.
    now: Option<Process>,
    /// Daemons that others have taken over from, or that run beside.
    others: Vec<Process>,
    /// State directories that processes have left behind.
    caches: Vec<Cache>,
    started: u64,
    shape: Shape,
    seen: Seen,
    /// How the store is when it is not at its worst.
    usual: StoreFaults,
    /// How tables are merged, by seed.
    merge: BTreeMap<TableId, Merge>,
    /// Whether tables are paused, by seed.
    pauses: bool,
    /// What becomes of tables that are dropped, by seed.
    dropped: DroppedTables,
    began: Instant,
}

/// What this seed does at all: most do a few things, so that a failure is easy to read.
#[derive(Debug, Clone, Copy)]
struct Shape {
    crashes: bool,
    zombies: bool,
    beside: bool,
    foreign: bool,
    redefine: bool,
    outages: bool,
    losses: bool,
    storms: bool,
    flush: u64,
    memory: usize,
    /// What indexes may have of memory.
    index: usize,
    cadence: Cadence,
}

impl Shape {
    fn new(chance: &mut Chance) -> Self {
        Self {
            crashes: chance.happens(0.7),
            zombies: chance.happens(0.3),
            beside: chance.happens(0.15),
            foreign: chance.happens(0.3),
            redefine: chance.happens(0.25),
            outages: chance.happens(0.4),
            losses: chance.happens(0.15),
            storms: chance.happens(0.3),
            flush: [20, 50, 100, 300][chance.below(4) as usize],
            memory: if chance.happens(0.2) { 16 << 10 } else { 16 << 20 },
            index: if chance.happens(0.3) { 300 } else { 1 << 20 },
            cadence: match chance.happens(0.4) {
                true => Cadence::every_change(1 + chance.below(4000) as usize),
                false => Cadence { worth: Worth::ANYTHING, ..Cadence::default() },
            },
        }
    }
}

/// Runs the seed `number`.
///
/// # Errors
/// What went wrong that must not.
pub async fn run(number: u64) -> Res<Seen> {
    let mut world = World::new(number);
    script::populate(&mut lock(&world.server), &mut world.chance);
    let steps = 15 + world.chance.below(25);
    for _ in 0..steps {
        world.step().await?;
    }
    world.finish().await?;
    Ok(world.seen)
}

fn store_faults(chance: &mut Chance) -> StoreFaults {
    let bad = [0.0, 0.0, 0.01, 0.05][chance.below(4) as usize];
    StoreFaults {
        before: bad,
        after: bad,
        late: bad,
        late_up_to: 1_500,
        slow: [0.3, 0.8][chance.below(2) as usize],
        slow_up_to: [5, 40][chance.below(2) as usize],
    }
}

fn source_faults(chance: &mut Chance) -> Faults {
    let bad = [0.0, 0.0, 0.002, 0.01][chance.below(4) as usize];
    Faults {
        lose: bad,
        hang: bad / 5.0,
        delay: [0.05, 0.3][chance.below(2) as usize],
        delay_up_to: Duration::from_millis([3, 30][chance.below(2) as usize]),
        tear: bad,
        forget: bad * 10.0,
    }
}

/// Which tables of a seed are merged by deletion vectors.
fn merge(number: u64) -> BTreeMap<TableId, Merge> {
    let chosen = (0..).zip(script::tables()).filter(|(at, _)| number >> at & 1 == 1);
    chosen.map(|(_, id)| (id, Merge::DeletionVectors)).collect()
}

impl World {
    fn new(number: u64) -> Self {
        let mut chance = Chance::new(number ^ 0x5eed);
        let shape = Shape::new(&mut chance);
        let lag = Duration::from_millis(100);
        let retentions = [Retention::Refuse, Retention::SkipAhead, Retention::Keep];
        let settings = scripted::Settings {
            chunk_rows: 1 + chance.below(5) as usize,
            part_rows: 1 + chance.below(3) as usize,
            views: if chance.happens(0.6) { Views::Exact } else { Views::AtLeast(lag) },
            retention: retentions[chance.below(3) as usize],
            faults: source_faults(&mut chance),
        };
        tracing::info!(?shape, ?settings, "seed {number}");
        let usual = store_faults(&mut chance);
        let disk = Disk::new(usual, chance.number());
        Self {
            server: Server::new(settings, chance.number()),
            chance,
            disk,
            counters: Arc::default(),
            now: None,
            others: Vec::new(),
            caches: Vec::new(),
            started: 0,
            shape,
            seen: Seen::default(),
            usual,
            merge: merge(number),
            pauses: number % 5 == 3,
            dropped: [DroppedTables::Keep, DroppedTables::Follow, DroppedTables::Stop]
                [(number / 4 % 3) as usize],
            began: Instant::now(),
        }
    }

    fn settings(&mut self, until_current: bool) -> Settings {
        self.started += 1;
        Settings {
            source: SOURCE.to_owned(),
            flush_interval: Duration::from_millis(self.shape.flush),
            memory: self.shape.memory.into(),
            snapshot_connections: 1 + self.chance.below(3) as usize,
            snapshot_modes: BTreeMap::new(),
            dropped_tables: self.dropped,
            merging: Merging {
                modes: self.merge.clone(),
                shapes: BTreeMap::new(),
                shape: lakeward::shape::Shape::default(),
                intervals: BTreeMap::new(),
                cadence: self.shape.cadence,
            },
            catalog_interval: Duration::from_millis([150, 1_000][self.chance.below(2) as usize]),
            idle_interval: Duration::from_millis(500),
            until_current,
            verify_rate: u64::MAX,
            verify_every: None,
            nonce: format!("process {}", self.started),
        }
    }

    fn start(&mut self, until_current: bool) -> Process {
        let settings = self.settings(until_current);
        tracing::info!(nonce = settings.nonce, "starts");
        // It finds what an earlier process has left, or nothing.
        let left = self.caches.len() as u64;
        let cache = match self.chance.below(left + 1) {
            found if found < left => self.caches.swap_remove(found as usize),
            _ => Cache::memory(),
        };
        let cache = cache.limited(self.shape.index).saving(1 + self.chance.below(30));
        let pauses = (self.pauses && !until_current).then(|| Chance::new(self.started));
        Process::start(&self.server, &self.disk, settings, cache, &self.counters, pauses)
    }

    async fn kill(&mut self, process: Process) -> Res<()> {
        self.caches.push(process.cache.clone());
        process.kill().await
    }

    async fn step(&mut self) -> Res<()> {
        let shape = self.shape;
        match self.chance.below(40) {
            0..22 => self.transact(),
            22..26 => self.change_processes(shape).await?,
            26 if shape.beside && self.others.len() < 2 => {
                let beside = self.start(false);
                self.others.push(beside);
            }
            27 | 28 if shape.foreign => self.meddle().await?,
            29 | 30 if shape.redefine => {
                script::redefine(&mut lock(&self.server), &mut self.chance);
            }
            31 | 32 if shape.outages => self.outage().await,
            33 if shape.losses => self.lose(),
            34 => self.reveal(),
            37 | 38 if shape.storms => self.storm().await,
            35..37 => checks::moment(&self.disk.objects, &self.server).await?,
            _ => {}
        }
        if self.now.as_ref().is_none_or(Process::is_over) {
            self.replace().await?;
        }
        let longest = [5, 60, 60, 400][self.chance.below(4) as usize];
        sleep(Duration::from_millis(self.chance.below(longest))).await;
        Ok(())
    }

    fn transact(&mut self) {
        for _ in 0..1 + self.chance.below(3) {
            self.seen.transactions += 1;
            script::transact(&mut lock(&self.server), &mut self.chance);
        }
    }

    async fn replace(&mut self) -> Res<()> {
        if let Some(over) = self.now.take() {
            self.caches.push(over.cache.clone());
            over.end().await?;
        }
        self.now = Some(self.start(false));
        Ok(())
    }

    async fn change_processes(&mut self, shape: Shape) -> Res<()> {
        match self.chance.below(3) {
            0 if shape.zombies => match self.others.pop() {
                Some(zombie) => {
                    tracing::info!(nonce = zombie.nonce, "wakes up");
                    zombie.gate.freeze(false);
                    // It goes on beside the other one.
                    sleep(Duration::from_millis(self.chance.below(300))).await;
                    self.kill(zombie).await?;
                }
                None => {
                    if let Some(process) = self.now.take() {
                        tracing::info!(nonce = process.nonce, "freezes");
                        process.gate.freeze(true);
                        self.seen.zombies += 1;
                        self.others.push(process);
                    }
                }
            },
            1 | 2 if shape.crashes => {
                if let Some(process) = self.now.take() {
                    tracing::info!(nonce = process.nonce, "is killed");
                    self.seen.crashes += 1;
                    self.kill(process).await?;
                    checks::moment(&self.disk.objects, &self.server).await?;
                    if self.chance.happens(0.5) {
                        self.transact();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn meddle(&mut self) -> Res<()> {
        let tables = script::tables();
        let id = &tables[self.chance.below(3) as usize];
        let (optimize, tag) = (self.chance.happens(0.5), self.chance.number());
        tracing::info!(table = %id, optimize, "another engine commits");
        let table = LakeTable::load(&self.disk.objects, SOURCE, id).await?;
        table.meddle(&self.disk.objects, optimize, tag).await
    }

    async fn outage(&mut self) {
        match self.chance.below(4) {
            0 => lock(&self.server).disconnect(),
            1 => lock(&self.server).fail_over(),
            _ => {
                lock(&self.server).set_down(true);
                sleep(Duration::from_millis(self.chance.below(500))).await;
                lock(&self.server).set_down(false);
            }
        }
    }

    /// For a while the store hardly answers, and much of what it is sent arrives later.
    async fn storm(&mut self) {
        let worst =
            StoreFaults { before: 0.3, after: 0.2, late: 0.3, late_up_to: 4_000, ..self.usual };
        self.disk.set(worst);
        sleep(Duration::from_millis(self.chance.below(5_000))).await;
        self.disk.set(self.usual);
    }

    /// The source loses what a daemon may need.
    fn lose(&mut self) {
        let mut server = lock(&self.server);
        let what = self.chance.below(4);
        tracing::info!(what, "the source loses its log");
        match what {
            0 => {
                let visible = server.visible();
                server.purge(&visible);
            }
            1 => server.drop_slot(),
            2 => server.lose(1 + self.chance.below(3) as usize),
            _ => server.change_identity(),
        }
    }

    fn reveal(&mut self) {
        let mut server = lock(&self.server);
        let all: Vec<_> = server.history().collect();
        all.iter().for_each(|gtid| server.reveal(gtid));
    }

    /// Everything becomes well, one last daemon brings the lake up to date, and they are compared.
    async fn finish(&mut self) -> Res<()> {
        let alone = !(self.shape.crashes || self.shape.zombies || self.shape.beside);
        if alone && self.superseded() > 0 {
            return Err("E9: a daemon that was alone took itself for another one".to_owned());
        }
        let running: Vec<_> = self.now.take().into_iter().chain(self.others.drain(..)).collect();
        for process in running {
            self.kill(process).await?;
        }
        checks::moment(&self.disk.objects, &self.server).await?;
        self.disk.set(StoreFaults::default());
        lock(&self.server).settings.faults = Faults::default();
        self.reveal();
        let (last, before) = (self.start(true), self.superseded());
        match timeout(PATIENCE, last.end()).await {
            Ok(exit) => exit?,
            Err(_) => return Err("the last daemon never became current".to_owned()),
        }
        if self.superseded() > before {
            return Err(
                "E9: a daemon took one that was killed before it for a living one".to_owned()
            );
        }
        checks::moment(&self.disk.objects, &self.server).await?;
        let (objects, lossy) = (&self.disk.objects, self.shape.losses);
        self.seen.dropped = checks::end(objects, &self.server, self.dropped, lossy).await?;
        self.count().await
    }

    fn superseded(&self) -> u64 {
        self.counters.superseded.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn count(&mut self) -> Res<()> {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        self.seen.seconds = self.began.elapsed().as_secs();
        self.seen.flushes = newest_epoch(&self.disk.objects).await?;
        self.seen.superseded = self.superseded();
        self.seen.verified = self.counters.verified.load(relaxed);
        self.seen.paused = self.counters.paused.load(relaxed);
        self.seen.restarts = self.counters.restarts.load(relaxed);
        self.seen.gaps = self.counters.gaps.load(relaxed);
        Ok(())
    }
}
