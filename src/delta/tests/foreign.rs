//! What other engines do to a table behind our back.

use futures::TryStreamExt;
use serde_json::json;

use super::*;
use crate::delta::actions::{self, Action, Add, Remove};
use crate::delta::files::FileWriter;
use crate::delta::log::commit_path;
use crate::delta::store::Created;

/// Appends `actions` to the log of the table, as another engine would.
pub(super) async fn commit_foreign(lake: &Lake, path: &str, mut actions: Vec<Action>) {
    let version = log::load(lake, path).await.expect("a log").expect("a table").version + 1;
    let info = json!({"operation": "OPTIMIZE", "engineInfo": "other"});
    let commit_info = info.as_object().cloned();
    actions.insert(0, Action { commit_info, ..Action::default() });
    let bytes = actions::serialise(&actions).expect("JSON").into();
    let created = lake.create(&commit_path(path, version), bytes).await.expect("created");
    assert_eq!(created, Created::Yes);
}

fn remove(add: &Add, data_change: bool) -> Action {
    Action::from(Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(1),
        data_change,
        extended_file_metadata: None,
        partition_values: None,
        size: None,
        deletion_vector: None,
    })
}

/// Moves all rows of a table into one file, as OPTIMIZE does.
pub(super) async fn optimize(lake: &Lake, path: &str) {
    let snapshot = log::load(lake, path).await.expect("a log").expect("a table");
    let layout = Layout::parse(path, &snapshot.metadata.schema_string).expect("a schema");
    let layout = Arc::new(layout);
    let mut writer = FileWriter::new(lake, path, &layout);
    let mut actions = Vec::new();
    for add in snapshot.state.files() {
        let file = FileReader::open(lake, path, add).await.expect("a file");
        let mut batches = file.batches(layout.arrow(), None).expect("batches");
        while let Some(batch) = batches.try_next().await.expect("a batch") {
            writer.write(&batch).await.expect("written");
        }
        actions.push(remove(add, false));
    }
    if let Some(written) = writer.finish().await.expect("finished") {
        actions.push(Add { data_change: false, ..written.add }.into());
        commit_foreign(lake, path, actions).await;
    }
}

async fn two_files(lake: &Lake) -> Table {
    let mut table = Table::create(lake, "s/t");
    table.apply(&pairs_run(&[], &[(1, "a"), (2, "b")])).await.expect("applied");
    commit(&mut table, 1).await;
    table.apply(&pairs_run(&[], &[(3, "c"), (4, "d")])).await.expect("applied");
    commit(&mut table, 2).await;
    assert_eq!(table.files(), 2);
    table
}

#[tokio::test]
async fn the_index_follows_moved_rows() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    optimize(&lake, "s/t").await;
    table.refresh().await.expect("refreshed");
    assert_eq!((table.version(), table.files(), table.rows()), (Some(2), 1, 4));
    table.apply(&pairs_run(&[2, 3], &[(3, "C")])).await.expect("applied");
    assert_eq!(commit(&mut table, 3).await, 3);
    let rows = read_pairs(&lake, "s/t").await;
    assert_eq!(rows, [(1, "a".into()), (3, "C".into()), (4, "d".into())]);
}

#[tokio::test]
async fn an_insert_stands_on_top_of_moved_rows() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    table.apply(&pairs_run(&[5], &[(5, "e")])).await.expect("applied");
    optimize(&lake, "s/t").await;
    assert_eq!(commit(&mut table, 3).await, 3);
    table.apply(&pairs_run(&[1, 5], &[])).await.expect("applied");
    assert_eq!(commit(&mut table, 4).await, 4);
    let rows = read_pairs(&lake, "s/t").await;
    assert_eq!(rows, [(2, "b".into()), (3, "c".into()), (4, "d".into())]);
}

#[tokio::test]
async fn an_update_does_not_stand_on_top_of_moved_rows() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    table.apply(&pairs_run(&[1], &[(1, "A")])).await.expect("applied");
    optimize(&lake, "s/t").await;
    let txns = [("app".to_owned(), 3)];
    let outcome = table.commit(&txns, Map::new(), "WRITE").await.expect("an outcome");
    assert!(matches!(outcome, Commit::Conflict(_)), "{outcome:?}");
    table.discard().await.expect("discarded");
    table.apply(&pairs_run(&[1], &[(1, "A")])).await.expect("applied");
    assert_eq!(commit(&mut table, 3).await, 3);
    assert_eq!(read_pairs(&lake, "s/t").await[0], (1, "A".into()));
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 4);
}

#[tokio::test]
async fn a_truncate_stands_on_top_of_moved_rows() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    table.truncate().await.expect("truncated");
    table.apply(&pairs_run(&[], &[(9, "i")])).await.expect("applied");
    optimize(&lake, "s/t").await;
    assert_eq!(commit(&mut table, 3).await, 3);
    assert_eq!(read_pairs(&lake, "s/t").await, [(9, "i".into())]);
    assert_eq!((table.rows(), table.files()), (1, 1));
}

#[tokio::test]
async fn two_writers_of_one_epoch_have_one_winner() {
    let lake = Lake::memory();
    let mut first = two_files(&lake).await;
    let mut second = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    first.apply(&pairs_run(&[], &[(5, "e")])).await.expect("applied");
    second.apply(&pairs_run(&[], &[(5, "e")])).await.expect("applied");
    commit(&mut first, 3).await;
    let txns = [("app".to_owned(), 3)];
    let outcome = second.commit(&txns, Map::new(), "WRITE").await.expect("an outcome");
    // The row is pending here and there; either answer makes the caller look.
    assert!(!matches!(outcome, Commit::Done { .. }), "{outcome:?}");
    second.discard().await.expect("discarded");
    let outcome = second.commit(&txns, Map::new(), "WRITE").await.expect("an outcome");
    assert_eq!(outcome, Commit::Fenced { app_id: "app".to_owned(), found: 3 });
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 5);
}

#[tokio::test]
async fn a_fence_stops_the_late_commit_and_not_the_next() {
    let lake = Lake::memory();
    let mut zombie = two_files(&lake).await;
    zombie.apply(&pairs_run(&[], &[(5, "e")])).await.expect("applied");
    let mut next = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    assert_eq!(next.fence("app/fence", 4).await.expect("fenced"), 4);
    assert_eq!(next.fence("app/fence", 4).await.expect("fenced"), 4);
    let outcome = zombie.commit(&[("app".to_owned(), 3)], Map::new(), "WRITE").await;
    let fenced = Commit::Fenced { app_id: "app/fence".to_owned(), found: 4 };
    assert_eq!(outcome.expect("an outcome"), fenced);
    next.apply(&pairs_run(&[], &[(6, "f")])).await.expect("applied");
    commit(&mut next, 4).await;
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 5);
}

#[tokio::test]
async fn a_foreign_duplicate_is_said() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    let snapshot = log::load(&lake, "s/t").await.expect("a log").expect("a table");
    let copied: Vec<Add> = snapshot.state.files().cloned().collect();
    let bytes = lake.get(&format!("s/t/{}", copied[0].path)).await.expect("read").expect("there");
    lake.put("s/t/copy of it.parquet", bytes).await.expect("put");
    let add = Add { path: "copy%20of%20it.parquet".to_owned(), ..copied[0].clone() };
    commit_foreign(&lake, "s/t", vec![add.into()]).await;
    table.discard().await.expect("discarded");
    let error = table.apply(&pairs_run(&[1], &[])).await.expect_err("a duplicate");
    assert!(error.full().contains("same key"), "{}", error.full());
    assert!(error.remedy_text().is_some());
}
