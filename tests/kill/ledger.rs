//! A ledger that the writers count themselves: what they know they have committed is what the
//! lake must hold at the end, not a row less and none twice.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::Load;
use crate::support::scene::check;
use crate::support::{Res, reader};

#[derive(Default)]
pub struct Ledger {
    next: AtomicI64,
    committed: Mutex<BTreeSet<i64>>,
    /// How often the server began to crash.
    crashes: AtomicUsize,
}

/// A server that has been started again takes connections within this.
const RECOVERED: Duration = Duration::from_secs(60);

impl Ledger {
    /// Crashes the server; a writer that fails meanwhile is not to blame.
    pub fn through_a_crash(&self, crash: impl FnOnce() -> Res<()>) -> Res<()> {
        self.crashes.fetch_add(1, Ordering::SeqCst);
        let crashed = crash();
        // A transaction that began before and fails now belongs to the crash, too.
        self.crashes.fetch_add(1, Ordering::SeqCst);
        crashed
    }

    /// Whether the server is crashing or starting again: the count is odd.
    fn crashing(&self) -> bool {
        self.crashes.load(Ordering::SeqCst) % 2 == 1
    }

    fn numbers(&self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.next.fetch_add(1, Ordering::Relaxed) + 1).collect()
    }

    fn add(&self, seqs: &[i64]) {
        self.committed.lock().expect("no holder panics").extend(seqs);
    }

    /// The lake's ledger at `url` holds exactly what was committed.
    pub fn exact(&self, url: &str) -> Res<()> {
        let lake = reader::read(url)?.ok_or("the ledger is not in the lake")?;
        let place = lake.columns.iter().position(|c| c == "seq").ok_or("the ledger has no seq")?;
        let mut have = BTreeSet::new();
        for row in &lake.rows {
            let text = row[place].as_deref().ok_or("a seq is NULL")?;
            let seq: i64 = text.parse().map_err(|e| format!("seq {text}: {e}"))?;
            check(have.insert(seq), || format!("ledger: {seq} is there twice"))?;
        }
        let sent = self.committed.lock().expect("no holder panics");
        let some = |all: Vec<&i64>| format!("{} ({:?})", all.len(), &all[..all.len().min(5)]);
        check(have == *sent, || {
            let lost = some(sent.difference(&have).collect());
            let extra = some(have.difference(&sent).collect());
            format!("ledger: {} rows sent, {lost} lost, {extra} never sent", sent.len())
        })
    }
}

/// Writes at random until `stop`; a transaction commits, gives way, breaks because the server
/// crashed, or fails the test.
pub fn write(load: &dyn Load, ledger: &Ledger, stop: &AtomicBool, seed: u64) -> Res<()> {
    let mut writer = recovered(ledger, || load.writer())?;
    let mut random = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let seqs = ledger.numbers(random.usize(1..4));
        let crashes = ledger.crashes.load(Ordering::SeqCst);
        match writer.transact(&mut random, &seqs) {
            Ok(true) => ledger.add(&seqs),
            Ok(false) if !crashed_since(ledger, crashes) => {}
            Err(e) if !crashed_since(ledger, crashes) => {
                return Err(format!("writer, seed {seed}: {e}"));
            }
            // Nobody said whether it was committed: the ledger does. That a transaction gave way
            // says nothing here: a driver asks again for a commit that got no answer, and
            // MongoDB's stand-in has forgotten that it had committed.
            Ok(false) | Err(_) => {
                // A new connection, and which of the numbers are there.
                let (again, present) = recovered(ledger, || {
                    let mut writer = load.writer()?;
                    let present = writer.present(&seqs)?;
                    Ok((writer, present))
                })?;
                writer = again;
                ledger.add(&present);
            }
        }
        std::thread::sleep(Duration::from_millis(random.u64(1..15)));
    }
    Ok(())
}

/// Whether a crash began after the count was `before`, or was under way then.
fn crashed_since(ledger: &Ledger, before: usize) -> bool {
    before % 2 == 1 || ledger.crashes.load(Ordering::SeqCst) != before
}

/// What `ask` says once the server answers again; at once, unless it has crashed or is about to.
fn recovered<T>(ledger: &Ledger, ask: impl Fn() -> Res<T>) -> Res<T> {
    let mut end = Instant::now() + RECOVERED;
    loop {
        let found = ask();
        // The start may wait for others: the servers' script does one thing at a time.
        if ledger.crashing() {
            end = Instant::now() + RECOVERED;
        }
        match found {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            found => return found,
        }
    }
}
