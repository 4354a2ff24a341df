//! Work that yields the results of one or several trials.
//!
//! Many cases share one daemon, so the unit of work is a job, not a trial: workers run the jobs
//! in order, and a trial waits for its own result. Trials are printed in order whatever the
//! workers do meanwhile.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use super::{Res, Server, mongodb};

pub struct Job {
    /// The trials, in the order of the results that `run` returns.
    pub names: Vec<String>,
    pub run: Box<dyn FnOnce() -> Vec<Res<()>> + Send>,
}

impl Job {
    pub fn single(name: String, run: impl FnOnce() -> Res<()> + Send + 'static) -> Self {
        Job { names: vec![name], run: Box::new(move || vec![run()]) }
    }
}

/// Whether the command line selects the trial of this name.
pub fn selected(args: &Arguments, name: &str) -> bool {
    let hit = |pattern: &String| {
        if args.exact { name == pattern } else { name.contains(pattern.as_str()) }
    };
    args.filter.as_ref().is_none_or(hit) && !args.skip.iter().any(hit)
}

#[derive(Default)]
struct Board {
    results: Mutex<HashMap<String, Res<()>>>,
    changed: Condvar,
}

impl Board {
    fn wait(&self, name: &str) -> Res<()> {
        let mut results = self.results.lock().expect("a worker panicked with the board locked");
        loop {
            if let Some(result) = results.remove(name) {
                return result;
            }
            results = self.changed.wait(results).expect("a worker panicked with the board locked");
        }
    }

    fn post(&self, names: &[String], mut outcome: Vec<Res<()>>) {
        let missing = || Err("its job gave no result for this trial".to_owned());
        outcome.resize_with(names.len(), missing);
        let mut results = self.results.lock().expect("a worker panicked with the board locked");
        results.extend(names.iter().cloned().zip(outcome));
        self.changed.notify_all();
    }
}

/// Jobs of MongoDB at one time. A stand-in does one thing after the other, and long transactions of
/// many at once take it minutes: each of these workers has one of its own.
const OF_MONGO: usize = 3;

/// What a worker does before each job.
type Prepare = fn() -> Res<()>;

/// Turns jobs into trials and starts `workers` threads on them (none when only listing).
pub fn trials(jobs: Vec<Job>, workers: usize, list: bool) -> (Vec<Trial>, Workers) {
    let board = Arc::new(Board::default());
    let trials = jobs.iter().flat_map(|j| &j.names).map(|name| {
        let (board, key) = (board.clone(), name.clone());
        Trial::test(name.clone(), move || board.wait(&key).map_err(Failed::from))
    });
    let (trials, mut threads) = (trials.collect(), Vec::new());
    if !list {
        let of_mongo = |job: &Job| job.names.iter().any(|name| name.contains("::mongo::"));
        let (mongo, others): (VecDeque<Job>, VecDeque<Job>) = jobs.into_iter().partition(of_mongo);
        let (refresh, nothing): (Prepare, Prepare) = (mongodb::refresh, || Ok(()));
        let queues = [(mongo, workers.min(OF_MONGO), refresh), (others, workers, nothing)];
        for (queue, workers, prepare) in queues {
            let queue = Arc::new(Mutex::new(queue));
            for _ in 0..workers {
                let (queue, board) = (queue.clone(), board.clone());
                threads.push(std::thread::spawn(move || work(&queue, &board, prepare)));
            }
        }
    }
    (trials, Workers(threads))
}

/// The threads that do the jobs.
pub struct Workers(Vec<JoinHandle<()>>);

impl Workers {
    /// Waits until all have put away what they used.
    pub fn end(self) {
        for thread in self.0 {
            // A panic of a job is its result.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<VecDeque<Job>>, board: &Board, prepare: Prepare) {
    loop {
        let next = queue.lock().expect("a worker panicked with the queue locked").pop_front();
        let Some(job) = next else { return };
        let started = Instant::now();
        let run = || match prepare() {
            Ok(()) => (job.run)(),
            Err(error) => job.names.iter().map(|_| Err(error.clone())).collect(),
        };
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = format!("panicked: {}", text.unwrap_or("without a text"));
            job.names.iter().map(|_| Err(text.clone())).collect()
        });
        if std::env::var_os("LAKEWARD_TEST_TIMES").is_some() {
            let (first, count) = (job.names.first(), job.names.len());
            eprintln!("{:6.1} s  {count:2} × {first:?}", started.elapsed().as_secs_f32());
        }
        board.post(&job.names, result);
    }
}

/// Replication slots (of MySQL: readers of the log) a server has for the suite at one time; `max_replication_slots` is 32.
const SLOTS: usize = 20;

static FREE: [(Mutex<usize>, Condvar); 5] = [const { (Mutex::new(SLOTS), Condvar::new()) }; 5];

/// Replication slots of a server, given back on drop.
pub struct Slots(Server, usize);

impl Slots {
    /// Waits until `count` slots are free. A job takes its slots once, so none waits in a circle.
    pub fn take(server: Server, count: usize) -> Slots {
        let count = count.min(SLOTS);
        let (free, changed) = &FREE[server as usize];
        let mut free = free.lock().expect("no holder panics");
        while *free < count {
            free = changed.wait(free).expect("no holder panics");
        }
        *free -= count;
        Slots(server, count)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let (free, changed) = &FREE[self.0 as usize];
        *free.lock().expect("no holder panics") += self.1;
        changed.notify_all();
    }
}
