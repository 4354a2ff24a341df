//! Merging by deletion vectors: which files a table has, and what its log says of them.

use serde_json::json;

use super::*;
use crate::delta::actions::{self, Action, DeletionVector, Protocol, Remove};
use crate::delta::log::commit_path;
use crate::delta::snapshot::{Snapshot, State};
use crate::delta::{Cache, checkpoint};

/// So many rows that a file of them is worth keeping.
const MANY: i64 = 20_000;

async fn many(lake: &Lake, merge: Merge) -> Table {
    let mut table = Table::create(lake, "s/t");
    table.set_merge(merge);
    let rows: Vec<_> = (0..MANY).map(|id| (id, "a")).collect();
    table.apply(&pairs_run(&[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;
    table
}

async fn snapshot(lake: &Lake) -> Snapshot {
    log::load(lake, "s/t").await.expect("a log").expect("a table")
}

async fn actions_of(lake: &Lake, version: i64) -> Vec<Action> {
    let bytes = lake.get(&commit_path("s/t", version)).await.expect("read").expect("there");
    actions::parse(&bytes).expect("actions")
}

async fn vector_files(lake: &Lake) -> usize {
    let listed = lake.list("s/t").await.expect("listed");
    listed.iter().filter(|file| file.path.ends_with(".bin")).count()
}

#[tokio::test]
async fn a_file_stays_while_few_of_its_rows_go() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::DeletionVectors).await;
    let protocol = snapshot(&lake).await.protocol;
    assert_eq!((protocol.min_reader_version, protocol.min_writer_version), (3, 7));
    assert_eq!(protocol.reader_features, Some(vec!["deletionVectors".to_owned()]));
    for (epoch, ids) in [(2, [5, 6]), (3, [6, 7])] {
        table.apply(&pairs_run(&ids, &[(ids[0], "b")])).await.expect("applied");
        commit(&mut table, epoch).await;
    }
    let actions = actions_of(&lake, 2).await;
    let add = actions.iter().filter_map(|a| a.add.as_ref()).find(|a| a.deletion_vector.is_some());
    let add = add.expect("a file with a vector");
    let remove = actions.iter().filter_map(|a| a.remove.as_ref()).find(|r| r.path == add.path);
    let old = remove.expect("it replaces itself").deletion_vector.as_ref().expect("with the old");
    assert_eq!((old.cardinality, old.storage_type.as_str()), (2, "u"));
    assert_eq!(add.deletion_vector.as_ref().map(|vector| vector.cardinality), Some(3));
    let stats: serde_json::Value =
        serde_json::from_str(add.stats.as_deref().expect("statistics")).expect("JSON");
    assert_eq!((&stats["numRecords"], &stats["tightBounds"]), (&json!(MANY), &json!(false)));
    assert_eq!((table.rows(), vector_files(&lake).await), (MANY as u64 - 1, 2));
    let again = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    assert_eq!((again.rows(), again.files()), (table.rows(), table.files()));
    assert_eq!(read_pairs(&lake, "s/t").await[5..7], [(5, "b".to_owned()), (6, "b".to_owned())]);
}

#[tokio::test]
async fn a_file_with_many_deleted_rows_is_rewritten() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::DeletionVectors).await;
    for (epoch, ids) in [(2, 0..5_000), (3, 5_000..7_000)] {
        table.apply(&pairs_run(&ids.collect::<Vec<_>>(), &[])).await.expect("applied");
        commit(&mut table, epoch).await;
        let vectors = snapshot(&lake).await.state.files().any(|add| add.deletion_vector.is_some());
        assert_eq!(vectors, epoch == 2);
    }
    assert_eq!(table.files(), 1);
    table.apply(&pairs_run(&[7_000, 0], &[])).await.expect("applied");
    commit(&mut table, 4).await;
    let rows = read_pairs(&lake, "s/t").await;
    assert_eq!((rows.len() as i64, rows[0].0), (MANY - 7_001, 7_001));
}

#[tokio::test]
async fn a_file_without_a_row_left_is_removed() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    table.set_merge(Merge::DeletionVectors);
    for (epoch, ids) in [(1, [1, 2]), (2, [3, 4])] {
        table.apply(&pairs_run(&[], &ids.map(|id| (id, "a")))).await.expect("applied");
        commit(&mut table, epoch).await;
    }
    table.apply(&pairs_run(&[1], &[])).await.expect("applied");
    commit(&mut table, 3).await;
    assert_eq!((table.files(), table.rows()), (2, 3));
    table.apply(&pairs_run(&[2], &[])).await.expect("applied");
    commit(&mut table, 4).await;
    assert_eq!((table.files(), table.rows()), (1, 2));
    assert_eq!(read_pairs(&lake, "s/t").await, [(3, "a".to_owned()), (4, "a".to_owned())]);
}

#[tokio::test]
async fn the_mode_comes_and_goes_with_a_commit() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::Rewrite).await;
    assert_eq!(snapshot(&lake).await.protocol.min_reader_version, 1);
    table.set_merge(Merge::DeletionVectors);
    table.apply(&pairs_run(&[1], &[])).await.expect("applied");
    commit(&mut table, 2).await;
    let on = snapshot(&lake).await;
    let writer = ["appendOnly", "invariants", "deletionVectors"].map(str::to_owned).to_vec();
    assert_eq!(on.protocol.writer_features, Some(writer));
    assert_eq!(on.metadata.property("delta.enableDeletionVectors"), Some("true"));
    assert_eq!(vector_files(&lake).await, 1);
    let unchanged = on.metadata.clone();
    table.apply(&pairs_run(&[2], &[])).await.expect("applied");
    commit(&mut table, 3).await;
    assert!(actions_of(&lake, 2).await.iter().all(|action| action.meta_data.is_none()));
    assert_eq!(snapshot(&lake).await.metadata, unchanged);

    table.set_merge(Merge::Rewrite);
    table.apply(&pairs_run(&[3], &[])).await.expect("applied");
    commit(&mut table, 4).await;
    let off = snapshot(&lake).await;
    assert_eq!(off.protocol, on.protocol);
    assert_eq!(off.metadata.property("delta.enableDeletionVectors"), Some("false"));
    assert!(off.state.files().all(|add| add.deletion_vector.is_none()));
    assert_eq!(read_pairs(&lake, "s/t").await.len() as i64, MANY - 3);
}

#[tokio::test]
async fn a_commit_that_came_to_nothing_leaves_no_vectors() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::DeletionVectors).await;
    let mut other = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    other.set_merge(Merge::DeletionVectors);
    for table in [&mut table, &mut other] {
        table.apply(&pairs_run(&[1], &[(1, "b")])).await.expect("applied");
    }
    commit(&mut other, 2).await;
    let outcome = table.commit(&[("else".to_owned(), 2)], Map::new(), "WRITE").await;
    assert!(matches!(outcome, Ok(Commit::Conflict(_))), "{outcome:?}");
    assert_eq!(vector_files(&lake).await, 2);
    table.discard().await.expect("discarded");
    assert_eq!(vector_files(&lake).await, 1);
    assert_eq!(read_pairs(&lake, "s/t").await.len() as i64, MANY);
}

fn add(vector: Option<&DeletionVector>) -> Add {
    let text = json!({"path": "f", "size": 1, "dataChange": true, "deletionVector": vector});
    serde_json::from_value(text).expect("an add")
}

fn remove(vector: Option<&DeletionVector>) -> Remove {
    let text = json!({"path": "f", "deletionTimestamp": i64::MAX, "deletionVector": vector});
    serde_json::from_value(text).expect("a remove")
}

fn vector(offset: i32) -> DeletionVector {
    let text = json!({"storageType": "u", "pathOrInlineDv": "^-aqEH.-t@S}K{vb[*k^",
        "offset": offset, "sizeInBytes": 40, "cardinality": 6});
    serde_json::from_value(text).expect("a vector")
}

#[test]
fn a_file_and_itself_with_another_vector_are_two() {
    let (old, new) = (vector(1), vector(49));
    let come: Vec<Action> = vec![add(Some(&new)).into(), remove(Some(&old)).into()];
    let mut turned = come.clone();
    turned.reverse();
    let apart: Vec<Vec<Action>> = come.iter().map(|action| vec![action.clone()]).collect();
    for commits in [vec![come], vec![turned], apart] {
        let mut state = State::default();
        state.apply(vec![add(Some(&old)).into()]);
        commits.into_iter().for_each(|actions| state.apply(actions));
        assert_eq!(state.files().collect::<Vec<_>>(), [&add(Some(&new))]);
        assert_eq!(state.tombstones.values().collect::<Vec<_>>(), [&remove(Some(&old))]);
    }
}

#[tokio::test]
async fn a_checkpoint_carries_vectors() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::DeletionVectors).await;
    for id in 0..3 {
        table.apply(&pairs_run(&[id], &[])).await.expect("applied");
        commit(&mut table, id + 2).await;
    }
    let mut before = snapshot(&lake).await;
    checkpoint::write(&lake, "s/t", &mut before).await.expect("written");
    for version in 0..before.version {
        lake.delete(&commit_path("s/t", version)).await.expect("deleted");
    }
    let after = snapshot(&lake).await;
    let vectors = |snapshot: &Snapshot| {
        let files = snapshot.state.files().map(|add| add.deletion_vector.clone());
        let removed = snapshot.state.tombstones.values().map(|r| r.deletion_vector.clone());
        files.chain(removed).collect::<Vec<_>>()
    };
    assert_eq!(vectors(&after), vectors(&before));
    assert_eq!(vectors(&after).len(), 4);
    let Protocol { reader_features, .. } = after.protocol;
    assert_eq!(reader_features, before.protocol.reader_features);
    assert_eq!(read_pairs(&lake, "s/t").await.len() as i64, MANY - 3);
}

/// A start with the saved index looks into no data file: here there is none. Without the index it has to.
#[tokio::test]
async fn a_start_with_the_saved_index_reads_no_data_file() {
    let lake = Lake::memory();
    let mut table = many(&lake, Merge::DeletionVectors).await;
    table.save_index();
    drop(table);
    for file in lake.list("s/t").await.expect("listed") {
        if file.path.ends_with(".parquet") {
            lake.delete(&file.path).await.expect("deleted");
        }
    }
    let forgetful = lake.clone().with_cache(Cache::memory());
    for (lake, is_known) in [(&forgetful, false), (&lake, true)] {
        let mut table = Table::open(lake, "s/t").await.expect("opened").expect("there");
        table.set_merge(Merge::DeletionVectors);
        let applied = table.apply(&pairs_run(&[5, 6], &[(5, "b")])).await;
        assert_eq!(applied.is_ok(), is_known, "{applied:?}");
        if is_known {
            commit(&mut table, 2).await;
            assert_eq!(table.rows(), MANY as u64 - 1);
        }
    }
}
