//! The board as JSON: what the status page asks for every second.

use lakeward_connectors::schema::TableId;
use serde::Serialize;

use crate::board::{Board, Problem, SAMPLE, Sample, SourceFacts, TableCommit, TableFacts};
use crate::delta::table_path;
use crate::pipeline::now_ms;
use crate::verify::Outcome;

/// `/api/status`.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    now_ms: i64,
    started_ms: i64,
    sources: Vec<Source>,
}

#[derive(Serialize)]
struct Source {
    name: String,
    kind: &'static str,
    state: &'static str,
    since_ms: i64,
    problem: Option<Trouble>,
    restarts: u64,
    lag_ms: Option<i64>,
    lag_bytes: Option<u64>,
    log_retained_bytes: Option<u64>,
    log_window_s: Option<u64>,
    epoch: u64,
    flushed_ms: Option<i64>,
    flush_took_ms: u64,
    read: String,
    durable: String,
    changes: u64,
    changes_per_s: f64,
    rows_per_s: f64,
    buffered_bytes: usize,
    spark: Vec<u64>,
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct Trouble {
    what: String,
    remedy: Option<String>,
    at_ms: i64,
    retry_ms: Option<i64>,
}

#[derive(Serialize)]
struct Table {
    name: String,
    state: &'static str,
    since_ms: i64,
    reason: Option<String>,
    lag_ms: Option<i64>,
    rows: Option<u64>,
    files: Option<usize>,
    bytes: Option<u64>,
    staged: u64,
    changes: u64,
    changes_per_s: f64,
    rows_per_s: f64,
    version: Option<i64>,
    commit_ms: Option<i64>,
    amplification: Option<f64>,
    snapshot: Option<Reading>,
    verified: Option<Compared>,
    spark: Vec<u64>,
}

#[derive(Serialize)]
struct Reading {
    rows: u64,
    total: Option<u64>,
    left_s: Option<u64>,
    keys: usize,
}

/// What the newest verification found.
#[derive(Serialize)]
struct Compared {
    outcome: Outcome,
    reason: Option<String>,
    at_ms: i64,
    rows: u64,
    differences: u64,
    /// Whether there may be more.
    more: bool,
    repaired: bool,
}

/// `/api/tables/{source}/{table}`.
#[derive(Serialize)]
pub(super) struct Page {
    now_ms: i64,
    source: String,
    kind: &'static str,
    source_state: &'static str,
    path: String,
    new_bytes: u64,
    copied_bytes: u64,
    /// The newest first.
    commits: Vec<Commit>,
    history: History,
    #[serde(flatten)]
    table: Table,
}

#[derive(Serialize)]
struct Commit {
    epoch: u64,
    version: i64,
    at_ms: i64,
    rows_in: u64,
    rows_out: u64,
    took_ms: u64,
}

/// The oldest first; the last of each is of now.
#[derive(Serialize)]
struct History {
    every_ms: u64,
    changes: Vec<u32>,
    rows: Vec<u32>,
    lag_ms: Vec<u32>,
}

/// All sources and tables.
pub(super) fn all(board: &Board) -> Status {
    let now = now_ms();
    let mut sources = Vec::new();
    board.each(|name, facts| sources.push(source(name, facts, now)));
    let version = env!("CARGO_PKG_VERSION");
    Status { version, now_ms: now, started_ms: board.started_ms(), sources }
}

/// One table; `None` when the board has no such table.
pub(super) fn one(board: &Board, source: &str, id: &TableId) -> Option<Page> {
    let now = now_ms();
    let page = |facts: &SourceFacts| {
        let of = facts.tables.get(id)?;
        let size = of.size.unwrap_or_default();
        Some(Page {
            now_ms: now,
            source: source.to_owned(),
            kind: facts.kind,
            source_state: facts.standing.word(),
            path: table_path(source, id),
            new_bytes: size.brought,
            copied_bytes: size.copied,
            commits: of.commits.iter().rev().map(commit).collect(),
            history: history(of),
            table: table(id, of, now),
        })
    };
    board.one(source, page).flatten()
}

fn source(name: &str, of: &SourceFacts, now: i64) -> Source {
    Source {
        name: name.to_owned(),
        kind: of.kind,
        state: of.standing.word(),
        since_ms: of.since_ms,
        problem: of.problem.as_ref().map(trouble),
        restarts: of.restarts,
        lag_ms: of.lag.map(|lag| lag.at(now)),
        lag_bytes: of.lag_bytes,
        log_retained_bytes: of.log_retained,
        log_window_s: of.log_window_s,
        epoch: of.epoch,
        flushed_ms: of.flushed_ms,
        flush_took_ms: millis(of.flush_took),
        read: of.read.clone(),
        durable: of.durable.clone(),
        changes: of.changes,
        changes_per_s: rounded(of.history.changes_a_second()),
        rows_per_s: rounded(of.history.rows_of_late()),
        buffered_bytes: of.memory.buffered(),
        spark: of.history.spark(),
        tables: of.tables.iter().map(|(id, facts)| table(id, facts, now)).collect(),
    }
}

fn table(id: &TableId, of: &TableFacts, now: i64) -> Table {
    let size = of.size;
    Table {
        name: id.to_string(),
        state: of.word(),
        since_ms: of.since_ms,
        reason: of.reason.clone(),
        lag_ms: of.lag_ms(now),
        rows: size.map(|size| size.rows),
        files: size.map(|size| size.files),
        bytes: size.map(|size| size.bytes),
        staged: size.map_or(0, |size| size.staged),
        changes: of.changes,
        changes_per_s: rounded(of.history.changes_a_second()),
        rows_per_s: rounded(of.history.rows_of_late()),
        version: size.and_then(|size| size.version),
        commit_ms: of.commits.back().map(|commit| commit.at_ms),
        amplification: of.amplification().map(rounded),
        snapshot: of.progress().map(|progress| Reading {
            rows: progress.rows,
            total: progress.total,
            left_s: progress.left_s,
            keys: progress.keys,
        }),
        verified: of.verified.as_ref().map(|verified| Compared {
            outcome: verified.outcome,
            reason: verified.reason.clone(),
            at_ms: verified.at_ms,
            rows: verified.rows,
            differences: verified.differing(),
            more: verified.more,
            repaired: verified.repaired,
        }),
        spark: of.history.spark(),
    }
}

fn trouble(problem: &Problem) -> Trouble {
    let Problem { what, remedy, at_ms, retry_ms } = problem.clone();
    Trouble { what, remedy, at_ms, retry_ms }
}

fn commit(of: &TableCommit) -> Commit {
    Commit {
        epoch: of.epoch,
        version: of.did.version,
        at_ms: of.at_ms,
        rows_in: of.did.came,
        rows_out: of.did.went,
        took_ms: millis(of.did.took),
    }
}

fn history(of: &TableFacts) -> History {
    let each = |read: fn(&Sample) -> u32| of.history.samples().map(read).collect();
    History {
        every_ms: millis(SAMPLE),
        changes: each(|sample| sample.changes),
        rows: each(|sample| sample.rows),
        lag_ms: each(|sample| sample.lag_ms),
    }
}

fn millis(of: std::time::Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// To hundredths: nobody reads more, and answers stay short.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
