//! Merging by deletion vectors: which files a table has, and what its log says of them.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::delta::actions::{self, Action, DeletionVector, Metadata, Protocol, Remove};
use crate::delta::log::commit_path;
use crate::delta::snapshot::{Snapshot, State};
use crate::delta::{Cache, ENGINE, checkpoint};

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

/// A commit of this writer that gives the file a new vector in the place of an old one.
fn marking(old: Option<&DeletionVector>, new: &DeletionVector, time: i64) -> Vec<Action> {
    let info = json!({"engineInfo": ENGINE, "timestamp": time});
    let serde_json::Value::Object(info) = info else { panic!("an object") };
    let info = Action { commit_info: Some(info), ..Action::default() };
    let gone = Remove { deletion_timestamp: Some(time), ..remove(old) };
    vec![info, gone.into(), add(Some(new)).into()]
}

#[test]
fn what_was_there_only_briefly_leaves_no_tombstone() {
    let metadata = || -> Metadata {
        let text = json!({"id": "", "format": {"provider": "parquet"}, "schemaString": "",
            "partitionColumns": [], "configuration": {}});
        serde_json::from_value(text).expect("metadata")
    };
    let mut state = State::new(Duration::from_secs(100));
    state.apply(vec![metadata().into(), add(None).into()]);
    // Each vector is there for 999 ms, of which a hundredth of the retention is more.
    let time = |n: i32| 999 * i64::from(n);
    state.apply(marking(None, &vector(0), time(0)));
    for n in 1..1_000 {
        state.apply(marking(Some(&vector(n - 1)), &vector(n), time(n)));
    }
    assert_eq!(state.tombstones.len(), 0);
    let mut other = state.clone();
    // Another engine may have written a vector long before it committed that.
    let mut foreign = marking(Some(&vector(999)), &vector(1_000), time(1_000));
    foreign.remove(0);
    other.apply(foreign);
    assert_eq!(other.tombstones.len(), 0);
    other.apply(marking(Some(&vector(1_000)), &vector(1_001), time(1_001)));
    assert_eq!(other.tombstones.len(), 1);
    // Longer than that, and the data itself, which is from 1970.
    state.apply(marking(Some(&vector(999)), &vector(1_000), time(999) + 1_000));
    assert_eq!(state.tombstones.len(), 1);
    let gone = Remove { deletion_timestamp: Some(time(1_001)), ..remove(Some(&vector(1_000))) };
    state.apply(vec![gone.into()]);
    assert_eq!(state.tombstones.len(), 2);
}

#[tokio::test]
async fn a_table_that_changes_all_the_time_keeps_no_tombstones() {
    let lake = Lake::memory();
    for merge in [Merge::DeletionVectors, Merge::Rewrite] {
        let mut table = Table::create(&lake, &format!("s/{merge:?}"));
        table.set_merge(merge);
        for epoch in 1..=250 {
            let id = epoch % 7;
            table.apply(&pairs_run(&[id], &[(id, "b"), (epoch, "c")])).await.expect("applied");
            commit(&mut table, epoch).await;
        }
        let checkpoint =
            |version| format!("{}/_delta_log/{version:020}.checkpoint.parquet", table.path());
        assert!(lake.has(&checkpoint(220)).await.expect("looked"), "every 20 versions");
        assert!(!lake.has(&checkpoint(210)).await.expect("looked"), "every 20 versions");
        let tombstones = |base: &Snapshot| base.state.tombstones.len();
        assert_eq!(table.base.as_ref().map(tombstones), Some(0), "{merge:?}");
        // A start doesn't know how long a file of the checkpoint has had its vector.
        let again = log::load(&lake, table.path()).await.expect("a log").expect("a table");
        assert!(tombstones(&again) <= table.files(), "{merge:?}");
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
    // Somebody else's, of whose age nothing is known.
    before.state.apply(vec![remove(Some(&vector(1))).into()]);
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
    assert_eq!(vectors(&after).len(), 2);
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
