//! The four ways to run a case, and one more for the snapshot.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::Res;
use super::daemon::Setup;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything happens before the first start.
    Snapshot,
    /// The daemon follows while it happens.
    Live,
    /// It happens while the daemon, killed once it was current, is down.
    Down,
    /// It happens while the daemon is killed again and again.
    Killed,
    /// It happens while the snapshot is taken.
    Middle,
}

impl Mode {
    pub const FOUR: [Mode; 4] = [Mode::Snapshot, Mode::Live, Mode::Down, Mode::Killed];

    pub fn name(self) -> &'static str {
        match self {
            Mode::Snapshot => "S",
            Mode::Live => "L",
            Mode::Down => "D",
            Mode::Killed => "K",
            Mode::Middle => "M",
        }
    }
}

/// How the kill loop treats the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Kept,
    /// Deleted before some of the starts.
    Forgotten,
}

/// Starts the daemon and kills it after 100–800 ms, over and over, while `work` runs and until
/// it was killed at least four times. Every third life is longer, so that progress is made, and later
/// lives are: where a start is much work for the server, it would do nothing else.
pub fn killing<T: Send>(
    setup: &Setup,
    state: State,
    work: impl FnOnce() -> T + Send,
) -> Res<(T, usize)> {
    let done = AtomicBool::new(false);
    let kills = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| -> Res<()> {
            while !done.load(Ordering::Relaxed) || kills.load(Ordering::Relaxed) < 4 {
                let n = kills.load(Ordering::Relaxed);
                one_life(setup, n)?;
                kills.fetch_add(1, Ordering::Relaxed);
                if state == State::Forgotten && n % 3 == 1 {
                    setup.forget_state()?;
                }
            }
            Ok(())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        killer.join().map_err(|_| "the kill loop panicked".to_owned())??;
        Ok((result, kills.load(Ordering::Relaxed)))
    })
}

fn one_life(setup: &Setup, n: usize) -> Res<()> {
    let longest = (1 + n as u64 / 8) * if n % 3 == 2 { 2500 } else { 800 };
    let mut daemon = setup.start()?;
    if let Some(status) = daemon.wait(Duration::from_millis(fastrand::u64(100..longest)))? {
        return Err(format!("the daemon ended by itself with {status}\n{}", setup.tail()));
    }
    daemon.kill()
}
