use std::time::Duration;

use lakeward_connectors::Error;
use lakeward_connectors::schema::{Identity, TableSchema};
use lakeward_connectors::source::Listed;

use super::*;

fn id(name: &str) -> TableId {
    TableId::new("public", name)
}

fn sight(changes: u64) -> Sight {
    let read = "0/2".to_owned();
    Sight {
        read,
        changes,
        memory: Memory { changes: 7, ..Memory::default() },
        lag_ms: 40,
        lag_bytes: Some(16),
        ..Sight::default()
    }
}

fn seen(id: &TableId, state: State, changes: u64, rows: Option<u64>) -> TableSight<'_> {
    let reading = rows.map(|rows| Reading { rows, ranges: true, keys: 0, anew: false });
    let rows_read = rows.unwrap_or_default();
    TableSight { id, state, reason: None, changes, lag_ms: Some(0), reading, rows_read }
}

fn table<T>(board: &Board, name: &str, read: impl FnOnce(&TableFacts) -> T) -> Option<T> {
    board.one("shop", |facts| facts.tables.get(&id(name)).map(read)).flatten()
}

#[test]
fn counters_go_on_when_a_pipeline_starts_over() {
    let board = Board::default();
    let meter = board.source("shop", "postgres");
    let t = id("t");
    meter.starts();
    meter.saw(sight(10), [seen(&t, State::Live, 10, None)].into_iter());
    meter.failed(&Error::unavailable("the server is gone"), Some(Duration::from_secs(1)));
    assert_eq!(board.health(), Err(vec!["shop".to_owned()]));
    meter.starts();
    meter.saw(sight(4), [seen(&t, State::Live, 4, None)].into_iter());
    assert_eq!(board.health(), Ok(()));
    assert_eq!(board.one("shop", |facts| (facts.changes, facts.restarts)), Some((14, 1)));
    assert_eq!(table(&board, "t", |facts| facts.changes), Some(14));
    assert!(board.one("shop", |facts| facts.problem.is_none()).unwrap_or_default());
    assert_eq!(board.one("web", |_| ()), None);
}

#[test]
fn a_problem_tells_its_remedy_apart() {
    let board = Board::default();
    let meter = board.source("shop", "postgres");
    let error = Error::config("no right to read").with("table", "t").remedy("GRANT SELECT");
    meter.failed(&error, None);
    let problem = board.one("shop", |facts| facts.problem.clone()).flatten().unwrap();
    assert_eq!(problem.what, "no right to read (table t)");
    assert_eq!(problem.remedy.as_deref(), Some("GRANT SELECT"));
    assert_eq!(problem.retry_ms, None);
    assert_eq!(board.one("shop", |facts| facts.standing), Some(Standing::Failed));
}

#[test]
fn a_snapshot_goes_on_from_the_rows_that_are_there_and_says_how_long() {
    let board = Board::default();
    let meter = board.source("shop", "postgres");
    let t = id("t");
    meter.sizes([(&t, Size { rows: 1_000, ..Size::default() })].into_iter());
    board.sample();
    meter.saw(sight(0), [seen(&t, State::Snapshot, 0, Some(0))].into_iter());
    for read in [500, 1_000] {
        meter.saw(sight(0), [seen(&t, State::Snapshot, 0, Some(read))].into_iter());
        board.sample();
        let progress = table(&board, "t", TableFacts::progress).flatten().unwrap();
        assert_eq!((progress.rows, progress.total), (1_000 + read, None));
    }
    board.each(|_, facts| assert_eq!(facts.tables[&t].history.rows_a_second(2), 250.0));
    let schema = TableSchema {
        id: t.clone(),
        columns: Vec::new(),
        identity: Identity::FullRow,
        storage: String::new(),
        lasting_ids: false,
    };
    meter.listed(&[Listed { schema: Arc::new(schema), rows: 4_500 }]);
    let progress = table(&board, "t", TableFacts::progress).flatten().unwrap();
    assert_eq!((progress.total, progress.left_s), (Some(4_500), Some(10)));
    // Complete.
    meter.saw(sight(0), [seen(&t, State::Live, 0, None)].into_iter());
    assert_eq!(table(&board, "t", TableFacts::progress), Some(None));
    assert_eq!(table(&board, "t", TableFacts::word), Some("live"));
}

#[test]
fn lag_grows_while_nobody_looks() {
    let lag = Lag { ms: 30, seen_ms: 1_000 };
    assert_eq!([1_000, 6_000, 6_001, 61_000].map(|now| lag.at(now)), [30, 30, 5_031, 60_030]);
    let staged = Size { staged: 3, staged_ms: Some(500), ..Size::default() };
    let table =
        TableFacts { lag: Some(lag), size: Some(staged), state: State::Live, ..Default::default() };
    assert_eq!(table.lag_ms(2_500), Some(2_000));
    assert_eq!(table.word(), "staged");
    assert_eq!(TableFacts::default().lag_ms(2_500), None);
}

#[test]
fn the_last_commits_are_kept_and_tables_that_went_are_not() {
    let board = Board::default();
    let meter = board.source("shop", "postgres");
    let (t, gone) = (id("t"), id("gone"));
    let both = [seen(&gone, State::Live, 0, None), seen(&t, State::Live, 0, None)];
    meter.saw(sight(0), both.into_iter());
    for epoch in 1..=40 {
        let did = Committed { version: epoch - 1, came: 2, went: 1, took: Duration::ZERO };
        let flushed = Flushed {
            epoch: epoch.unsigned_abs(),
            durable: "0/2".to_owned(),
            took: Duration::from_millis(5),
            committed: vec![(t.clone(), did)],
        };
        meter.flushed(flushed, std::iter::empty());
    }
    meter.saw(sight(0), [seen(&t, State::Live, 0, None)].into_iter());
    let kept = table(&board, "t", |facts| {
        (facts.commits.len(), facts.commits.front().map(|commit| commit.epoch))
    });
    assert_eq!(kept, Some((30, Some(11))));
    assert_eq!(table(&board, "gone", |_| ()), None);
    assert_eq!(board.one("shop", |facts| (facts.flushes, facts.commits)), Some((40, 40)));
}

#[test]
fn a_table_that_rests_has_no_history() {
    let mut history = History::default();
    (0..10).for_each(|_| history.push(0, 0, 0));
    assert_eq!(history.samples().count(), 0);
    history.push(20, 0, 100);
    history.push(30, 5, 0);
    history.push(2, 5, -7);
    let samples: Vec<_> = history.samples().map(|s| (s.changes, s.rows, s.lag_ms)).collect();
    assert_eq!(samples, [(20, 0, 100), (10, 5, 0), (2, 0, 0)]);
    assert_eq!(history.spark(), [20, 17]);
    assert_eq!(history.changes_a_second(), 3.2);
    (0..149).for_each(|_| history.push(2, 5, 0));
    assert_eq!(history.samples().count(), 150);
    (0..2).for_each(|_| history.push(2, 5, 0));
    assert_eq!(history.samples().count(), 0, "all that happened is long ago");
}
