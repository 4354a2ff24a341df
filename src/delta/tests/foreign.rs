//! What other engines do to a table behind our back.

use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use futures::TryStreamExt;
use serde_json::json;

use super::*;
use crate::delta::actions::{self, Action, Add, DeletionVector, Protocol, Remove};
use crate::delta::checkpoint;
use crate::delta::deletes::VectorFile;
use crate::delta::files::FileWriter;
use crate::delta::log::commit_path;
use crate::delta::partition;
use crate::delta::snapshot::Snapshot;
use crate::delta::store::Created;
use crate::delta::z85;

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
        deletion_vector: add.deletion_vector.clone(),
    })
}

fn layout_of(path: &str, snapshot: &Snapshot) -> Layout {
    let metadata = &snapshot.metadata;
    Layout::parse(path, &metadata.schema_string, &metadata.partition_columns).expect("a schema")
}

/// Moves all rows of a table into one file (of each partition), as OPTIMIZE does.
pub(crate) async fn optimize(lake: &Lake, path: &str) {
    let snapshot = log::load(lake, path).await.expect("a log").expect("a table");
    let layout = Arc::new(layout_of(path, &snapshot));
    let batches = read_batches(lake, path).await.expect("the rows");
    let whole = concat_batches(layout.arrow(), &batches).expect("one schema");
    let mut actions: Vec<_> = snapshot.state.files().map(|add| remove(add, false)).collect();
    let gone = actions.len();
    for part in partition::split(&layout, &whole).expect("parts") {
        let mut writer = FileWriter::new(lake, path, &layout, &part.values);
        writer.write(&part.rows).await.expect("written");
        let written = writer.finish().await.expect("finished");
        actions.extend(written.map(|w| Action::from(Add { data_change: false, ..w.add })));
    }
    if actions.len() > gone {
        commit_foreign(lake, path, actions).await;
    }
}

/// Deletes one row of a table by a deletion vector, as DELETE does with Spark, and gives its key.
pub(super) async fn delete(lake: &Lake, path: &str, pick: usize) -> Option<String> {
    let snapshot = log::load(lake, path).await.expect("a log").expect("a table");
    let files: Vec<_> = snapshot.state.files().collect();
    let add = *files.get(pick % files.len().max(1))?;
    let layout = layout_of(path, &snapshot);
    let file = FileReader::open(lake, path, add).await.expect("a file");
    let mut rows = deleted(lake, path, add).await.expect("its vector");
    let batches = file.batches(layout.arrow(), None).expect("batches");
    let batches: Vec<_> = batches.try_collect().await.expect("rows");
    let whole = concat_batches(layout.arrow(), &batches).expect("one schema");
    let left: Vec<_> = (0..whole.num_rows()).filter(|row| !rows.contains(*row as u64)).collect();
    let row = *left.get(pick % left.len().max(1))?;
    rows.insert(row as u64);
    let vector = store(lake, path, &rows, pick.is_multiple_of(2)).await;
    let add = Add { deletion_vector: Some(vector), data_change: true, ..add.clone() };
    let old = files.into_iter().find(|old| old.path == add.path).expect("it was there");
    let mut actions = vec![add.clone().into(), remove(old, true)];
    actions.rotate_left(pick / 2 % 2);
    commit_foreign(lake, path, actions).await;
    let ids = whole.column_by_name("id")?;
    let kind = match ids.data_type() {
        DataType::Utf8 => Type::Text,
        DataType::Int64 => Type::Int64,
        _ => Type::Int32,
    };
    Some(show(&value_at(&kind, ids.as_ref(), row).expect("a key")))
}

/// Writes a vector into a file, or into the log itself.
async fn store(lake: &Lake, path: &str, rows: &Rows, inline: bool) -> DeletionVector {
    let mut file = VectorFile::new();
    let vector = file.push(rows).expect("a vector");
    let (name, bytes) = (file.name(), file.into_bytes());
    if inline {
        let path_or_inline_dv = z85::encode(&bytes[5..bytes.len() - 4]);
        return DeletionVector {
            storage_type: "i".to_owned(),
            path_or_inline_dv,
            offset: None,
            ..vector
        };
    }
    lake.put(&format!("{path}/{name}"), bytes).await.expect("put");
    vector
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

/// Writes a checkpoint, and deletes all commits before `version`.
async fn clean_up(lake: &Lake, before: i64) {
    let mut snapshot = log::load(lake, "s/t").await.expect("a log").expect("a table");
    checkpoint::write(lake, "s/t", &mut snapshot).await.expect("a checkpoint");
    for version in 0..before {
        lake.delete(&commit_path("s/t", version)).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_version_that_was_cleaned_up_is_not_free() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    table.apply(&pairs_run(&[5], &[(5, "e")])).await.expect("applied");
    optimize(&lake, "s/t").await;
    commit_foreign(&lake, "s/t", Vec::new()).await;
    clean_up(&lake, 3).await;
    let outcome = table.commit(&[("app".to_owned(), 3)], Map::new(), "WRITE").await;
    assert!(matches!(outcome, Ok(Commit::Conflict(_))), "{outcome:?}");
    assert_eq!(lake.get(&commit_path("s/t", 2)).await.expect("read"), None);
    table.discard().await.expect("discarded");
    table.apply(&pairs_run(&[5], &[(5, "e")])).await.expect("applied");
    assert_eq!(commit(&mut table, 3).await, 4);
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 5);
}

#[tokio::test]
async fn nor_is_it_while_somebody_else_goes_on() {
    let lake = Lake::memory();
    let mut zombie = two_files(&lake).await;
    let mut next = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    zombie.apply(&pairs_run(&[], &[(5, "e")])).await.expect("applied");
    next.apply(&pairs_run(&[], &[(6, "f")])).await.expect("applied");
    commit(&mut next, 4).await;
    commit_foreign(&lake, "s/t", Vec::new()).await;
    clean_up(&lake, 3).await;
    let outcome = zombie.commit(&[("app".to_owned(), 3)], Map::new(), "WRITE").await;
    assert!(matches!(outcome, Ok(Commit::Conflict(_))), "{outcome:?}");
    zombie.discard().await.expect("discarded");
    let outcome = zombie.commit(&[("app".to_owned(), 3)], Map::new(), "WRITE").await;
    assert!(matches!(outcome, Ok(Commit::Fenced { found: 4, .. })), "{outcome:?}");
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 5);
}

#[tokio::test]
async fn a_log_may_begin_with_a_checkpoint() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    clean_up(&lake, 2).await;
    table.apply(&pairs_run(&[1], &[(5, "e")])).await.expect("applied");
    assert_eq!(commit(&mut table, 3).await, 2);
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 4);
}

/// delta-rs does so when it sets any property of a table of reader version 3.
#[tokio::test]
async fn a_feature_that_no_column_needs_is_no_fault() {
    let lake = Lake::memory();
    let mut table = two_files(&lake).await;
    let names = || Some(vec!["variantType".to_owned()]);
    let (min_reader_version, min_writer_version) = (3, 7);
    let (reader_features, writer_features) = (names(), names());
    let protocol =
        Protocol { min_reader_version, min_writer_version, reader_features, writer_features };
    commit_foreign(&lake, "s/t", vec![protocol.into()]).await;
    table.refresh().await.expect("refreshed");
    let snapshot = log::load(&lake, "s/t").await.expect("a log").expect("a table");
    let mut metadata = snapshot.metadata;
    metadata.schema_string = metadata.schema_string.replace("\"string\"", "\"variant\"");
    commit_foreign(&lake, "s/t", vec![metadata.into()]).await;
    let error = table.refresh().await.expect_err("a column of the feature");
    assert!(error.full().contains("not supported"), "{}", error.full());
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

#[tokio::test]
async fn rows_that_others_deleted_are_gone() {
    for merge in [Merge::Rewrite, Merge::DeletionVectors] {
        let lake = Lake::memory();
        let mut table = two_files(&lake).await;
        table.set_merge(merge);
        let key: i64 = delete(&lake, "s/t", 0).await.expect("a row").parse().expect("a key");
        table.refresh().await.expect("refreshed");
        assert_eq!((table.rows(), table.files()), (3, 2));
        let applied = table.apply(&pairs_run(&[key], &[(key, "again")])).await.expect("applied");
        assert!(applied.missing.is_empty());
        commit(&mut table, 3).await;
        let mut rows = read_pairs(&lake, "s/t").await;
        assert_eq!(rows.len(), 4);
        rows.retain(|(id, v)| *id == key && v == "again");
        assert_eq!(rows.len(), 1);
        let again = Table::open(&lake, "s/t").await.expect("opened").expect("there");
        assert_eq!(again.rows(), 4);
    }
}

#[tokio::test]
async fn a_change_does_not_stand_on_top_of_rows_deleted_from_its_files() {
    for merge in [Merge::Rewrite, Merge::DeletionVectors] {
        let lake = Lake::memory();
        let mut table = two_files(&lake).await;
        table.set_merge(merge);
        table.apply(&pairs_run(&[1], &[(1, "A")])).await.expect("applied");
        // The first file's.
        delete(&lake, "s/t", 0).await.expect("a row");
        let outcome = table.commit(&[("app".to_owned(), 3)], Map::new(), "WRITE").await;
        assert!(matches!(outcome, Ok(Commit::Conflict(_))), "{outcome:?}");
        table.discard().await.expect("discarded");
        table.apply(&pairs_run(&[1], &[(1, "A")])).await.expect("applied");
        // The second's.
        delete(&lake, "s/t", 1).await.expect("a row");
        commit(&mut table, 3).await;
        assert_eq!(read_pairs(&lake, "s/t").await.len(), table.rows() as usize);
    }
}
