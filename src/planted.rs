//! Bugs that tests plant, to show that they would find them. Without the feature `planted`, which only
//! tests have, none of them exists.

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A change is lost now and then.
    SkipChange,
    /// A transaction that a table holds is applied again (E6).
    IgnoreHeld,
    /// The source is acknowledged when a flush begins (P3).
    AcknowledgeEarly,
    /// The stream resumes at the newest epoch's end instead of the least held position (E6).
    ResumeAtEnd,
    /// A start fences nobody (E6).
    NoFence,
    /// A chunk's view may miss delivered transactions (S4).
    MustSeeNothing,
    /// A chunk enters before the stream has reached its high mark (S3).
    NoHighMark,
    /// A chunk's row wins over a touched key (S2).
    ChunkWins,
    /// What a table holds counts as after, whatever its `txn` says (S7).
    AlwaysAfter,
    /// Another process's epoch file is taken for one's own (E4).
    AnyEpochIsMine,
    /// The roster forgets a table, which then starts from nothing (E3).
    ForgetMember,
    /// A commit without an answer is taken for done (E7).
    ErrorIsSuccess,
    /// A commit that another writer stands against is taken for done (E7).
    ConflictIsSuccess,
    /// Keys to read again are forgotten (S5).
    ForgetKeys,
    /// A TRUNCATE leaves open windows alone (S6).
    TruncateKeepsWindows,
    /// A flush closes inside a transaction (E2).
    FlushInside,
    /// The roster forgets changes that are staged (E3).
    ForgetStaged,
    /// Changes that are merged stay in the roster as staged.
    MergeTwice,
    /// What the source has lost stays in the lake (P9).
    KeepLost,
    /// Of several patches of a value only the first is applied.
    OnePatch,
    /// A saved index is taken for that of the table's files, whichever they are.
    StaleIndex,
    /// A table's rows are read again while it is verified (V3).
    ReadTwice,
    /// A staged TRUNCATE is passed over.
    ForgetTruncate,
    /// A table that was dropped ends before the stream has shown its last changes.
    LeaveAtOnce,
    /// Changes stand on files that another writer has taken away (E7).
    StandOnLost,
    /// Rows that another writer has moved are not found again.
    LoseMoved,
    /// A version of a log that another writer has cleaned up is taken for free.
    TakeCleanedUp,
    /// What is deleted while its file is compacted comes back.
    Undelete,
}

impl Bug {
    /// Those that the simulation finds.
    pub const ALL: [Bug; 25] = [
        Bug::SkipChange,
        Bug::IgnoreHeld,
        Bug::AcknowledgeEarly,
        Bug::ResumeAtEnd,
        Bug::NoFence,
        Bug::MustSeeNothing,
        Bug::NoHighMark,
        Bug::ChunkWins,
        Bug::AlwaysAfter,
        Bug::AnyEpochIsMine,
        Bug::ForgetMember,
        Bug::ErrorIsSuccess,
        Bug::ConflictIsSuccess,
        Bug::ForgetKeys,
        Bug::TruncateKeepsWindows,
        Bug::FlushInside,
        Bug::ForgetStaged,
        Bug::MergeTwice,
        Bug::KeepLost,
        Bug::OnePatch,
        Bug::StaleIndex,
        Bug::ReadTwice,
        Bug::ForgetTruncate,
        Bug::LeaveAtOnce,
        Bug::Undelete,
    ];

    /// Those that lives beside another writer find.
    pub const OF_OTHERS: [Bug; 4] =
        [Bug::StaleIndex, Bug::StandOnLost, Bug::LoseMoved, Bug::TakeCleanedUp];
}

/// Whether `bug` is planted.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub(crate) use planting::is;
#[cfg(feature = "planted")]
pub use planting::{plant, simulate_clock};

#[cfg(feature = "planted")]
mod planting {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// Plants a bug, or none, in everything that runs on this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is planted.
    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// The wall clock of this thread follows the time of its runtime from here on.
    pub fn simulate_clock() {
        STARTED.set(Some(Instant::now()));
    }

    /// What the simulated wall clock says, in milliseconds of Unix time.
    pub(crate) fn clock() -> Option<i64> {
        let elapsed = STARTED.get()?.elapsed().as_millis();
        Some(1_704_067_200_000 + i64::try_from(elapsed).unwrap_or(0))
    }
}

/// What the simulated wall clock says, where there is one.
#[cfg(feature = "planted")]
pub(crate) use planting::clock;

/// What the simulated wall clock says, where there is one.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn clock() -> Option<i64> {
    None
}
