//! One table and its life.

use std::time::Duration;

use super::*;
use crate::delta::{Merge, Unused, checkpoint};

fn owned(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    rows.iter().map(|(id, v)| (*id, (*v).to_owned())).collect()
}

#[tokio::test]
async fn rows_come_change_and_go() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    table.apply(&pairs_run(&[], &[(1, "a"), (2, "b"), (3, "c")])).await.expect("applied");
    assert_eq!(commit(&mut table, 1).await, 0);
    assert_eq!(read_pairs(&lake, "s/t").await, owned(&[(1, "a"), (2, "b"), (3, "c")]));

    table.apply(&pairs_run(&[1, 2], &[(2, "B"), (4, "d")])).await.expect("applied");
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 3, "nothing is visible before the commit");
    assert_eq!(commit(&mut table, 2).await, 1);
    assert_eq!(read_pairs(&lake, "s/t").await, owned(&[(2, "B"), (3, "c"), (4, "d")]));

    let mut again = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    assert_eq!((again.version(), again.txn("app"), again.rows()), (Some(1), Some(2), 3));
    assert_eq!(again.schema(), Some(&pairs()));
    again.apply(&pairs_run(&[2, 3, 4, 9], &[])).await.expect("applied");
    commit(&mut again, 3).await;
    assert_eq!(read_pairs(&lake, "s/t").await, vec![]);
    assert_eq!((again.rows(), again.files()), (0, 0));
}

#[tokio::test]
async fn a_partition_of_null_survives_a_checkpoint() {
    let lake = Lake::memory();
    let columns = vec![column(1, "id", Type::Int64), column(2, "part", Type::Int32)];
    let schema = table_schema(columns, Identity::Key(vec![0]));
    let mut table = Table::create(&lake, "s/t");
    table.partition_by(vec!["part".to_owned()]);
    let rows = [vec![Value::Int(1), Value::Null]];
    table.apply(&run(&schema, &[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;
    let mut snapshot = log::load(&lake, "s/t").await.expect("a log").expect("a table");
    checkpoint::write(&lake, "s/t", &mut snapshot).await.expect("a checkpoint");
    let again = log::load(&lake, "s/t").await.expect("a log").expect("a table");
    let values: Vec<_> = again.state.files().map(|add| add.partition_values.clone()).collect();
    assert_eq!(values, [BTreeMap::from([("part".to_owned(), None)])]);
}

/// Patches, staged and read again, of values in the lake and in the run. A row whose patch doesn't
/// apply is gone, and named.
#[tokio::test]
async fn patches_are_applied_to_what_the_lake_holds() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    let rows = [(1, r#"{"a":1}"#), (2, r#"{"a":2}"#), (3, "[]"), (4, r#"{"a":4}"#)];
    table.apply(&pairs_run(&[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;

    let set = |name: &str| format!(r#"["compact",["set",["{name}"],0]]"#);
    let mut builder = Builder::new(pairs());
    for (id, name) in [(1, "b"), (2, "a"), (1, "c"), (3, "x"), (5, "x")] {
        let row = [Value::Int(id), Value::Patch(set(name).into())];
        builder.push(Op::Update, None, Some(&row)).expect("a row");
    }
    let bytes = crate::staged::encode(&[builder.finish()]).expect("staged");
    let reader = crate::staged::Reader::open(bytes, 2).expect("read");
    let batches = reader.collect::<Result<Vec<_>>>().expect("batches");
    let applied = table.apply(&crate::collapse::collapse(batches).expect("collapsed")).await;
    assert_eq!(applied.expect("applied").missing.len(), 2);
    commit(&mut table, 2).await;
    let left = [(1, r#"{"a":1,"b":0,"c":0}"#), (2, r#"{"a":0}"#), (4, r#"{"a":4}"#)];
    assert_eq!(read_pairs(&lake, "s/t").await, owned(&left));
    // The index knows which rows are there.
    table.apply(&pairs_run(&[1, 2, 3], &[(3, "x")])).await.expect("applied");
    commit(&mut table, 3).await;
    assert_eq!(read_pairs(&lake, "s/t").await, owned(&[(3, "x"), (4, r#"{"a":4}"#)]));
}

#[tokio::test]
async fn several_runs_are_one_commit() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    for n in 0..20 {
        let text = n.to_string();
        table.apply(&pairs_run(&[n], &[(n, &text), (100, &text)])).await.expect("applied");
    }
    assert!(table.has_pending());
    commit(&mut table, 1).await;
    let rows = read_pairs(&lake, "s/t").await;
    assert_eq!(rows.len(), 21);
    assert_eq!(rows[20], (100, "19".to_owned()));
    let files = lake.list("s/t").await.expect("listed");
    let data = files.iter().filter(|file| file.path.ends_with(".parquet")).count();
    assert_eq!(data, table.files(), "superseded files are gone");
}

#[tokio::test]
async fn small_files_are_folded() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    for n in 0..100 {
        table.apply(&pairs_run(&[], &[(n, "x")])).await.expect("applied");
        commit(&mut table, n).await;
        assert!(table.files() <= 8, "{} files", table.files());
    }
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 100);
}

/// P1: what is saved may be worth nothing. Its damage shows only when rows are looked for that
/// came after it was saved.
#[tokio::test]
async fn a_damaged_index_costs_time_only() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    let rows: Vec<_> = (0..2000).map(|n| (n, "x")).collect();
    table.apply(&pairs_run(&[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;
    table.save_index();
    table.apply(&pairs_run(&[], &[(5000, "x")])).await.expect("applied");
    commit(&mut table, 2).await;
    drop(table);
    lake.cache().table("s/t").damage(".run");
    let mut table = Table::open(&lake, "s/t").await.expect("opened").expect("a table");
    table.apply(&pairs_run(&[7], &[(1000, "y")])).await.expect("applied");
    commit(&mut table, 3).await;
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 2000);
}

#[tokio::test]
async fn files_that_nobody_needs_are_found() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    table.apply(&pairs_run(&[], &[(1, "a"), (2, "b")])).await.expect("applied");
    commit(&mut table, 1).await;
    table.apply(&pairs_run(&[1], &[(1, "A")])).await.expect("applied");
    commit(&mut table, 2).await;
    lake.put("s/t/orphan.parquet", "of a daemon that was killed".into()).await.expect("put");
    lake.put("s/t/_hidden.parquet", "of somebody else".into()).await.expect("put");
    lake.put("s/t2/other.parquet", "of another table".into()).await.expect("put");
    let kept = table.unused(Duration::from_secs(3600)).await.expect("looked");
    assert_eq!(kept, Unused::default(), "all of it is young");

    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut unused = table.unused(Duration::ZERO).await.expect("looked").paths;
    unused.retain(|path| path != "s/t/orphan.parquet");
    assert_eq!(unused.len(), 1, "the file that the second commit removed: {unused:?}");
    table.apply(&pairs_run(&[2], &[])).await.expect("applied");
    let pending = table.unused(Duration::ZERO).await.expect("looked");
    assert_eq!(pending, Unused::default(), "what is not committed yet might need it");
    commit(&mut table, 3).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let unused = table.unused(Duration::ZERO).await.expect("looked");
    assert_eq!(unused.paths.len(), 3);
    assert_eq!(lake.delete_all(unused.paths).await, 3);
    assert_eq!(read_pairs(&lake, "s/t").await, owned(&[(1, "A")]));
    let left = lake.list("s").await.expect("listed");
    assert!(
        ["s/t/_hidden.parquet", "s/t2/other.parquet"]
            .iter()
            .all(|path| left.iter().any(|file| file.path == *path))
    );
}

/// What replays from a checkpoint needs nothing before it; without one, everything.
#[tokio::test]
async fn a_log_behind_a_checkpoint_is_not_needed_after_its_retention() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    for epoch in 1..=3 {
        table.apply(&pairs_run(&[], &[(epoch, "a")])).await.expect("applied");
        commit(&mut table, epoch).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let of_the_log = |unused: Unused| {
        let log = unused.paths.into_iter().filter(|path| path.contains("/_delta_log/"));
        log.collect::<Vec<_>>()
    };
    let unused = table.unused(Duration::ZERO).await.expect("looked");
    assert_eq!(of_the_log(unused), Vec::<String>::new());

    let mut snapshot = log::load(&lake, "s/t").await.expect("a log").expect("a table");
    checkpoint::write(&lake, "s/t", &mut snapshot).await.expect("a checkpoint");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let young = table.unused(Duration::from_secs(3600)).await.expect("looked");
    assert_eq!(young, Unused::default());
    let unused = of_the_log(table.unused(Duration::ZERO).await.expect("looked"));
    let names = [0, 1].map(|version| format!("s/t/_delta_log/{version:020}.json"));
    assert_eq!(unused, names, "the commit of the checkpoint's own version stays");
    lake.delete_all(unused).await;
    let again = Table::open(&lake, "s/t").await.expect("opened").expect("there");
    assert_eq!((again.version(), again.rows()), (Some(2), 3));
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 3);
}

#[tokio::test]
async fn vectors_that_nobody_needs_are_found() {
    let lake = Lake::memory();
    let mut table = Table::create(&lake, "s/t");
    table.set_merge(Merge::DeletionVectors);
    let rows: Vec<_> = (0..100).map(|id| (id, "a")).collect();
    table.apply(&pairs_run(&[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;
    for (epoch, id) in [(2, 7), (3, 8)] {
        table.apply(&pairs_run(&[id], &[])).await.expect("applied");
        commit(&mut table, epoch).await;
    }
    let vectors = async || {
        let files = lake.list("s/t").await.expect("listed");
        files.into_iter().filter(|file| file.path.ends_with(".bin")).count()
    };
    assert_eq!((vectors().await, table.files()), (2, 1));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let unused = table.unused(Duration::ZERO).await.expect("looked");
    assert_eq!(unused.paths.len(), 1, "the first commit's vector: {:?}", unused.paths);
    lake.delete_all(unused.paths).await;
    assert_eq!(vectors().await, 1);
    assert_eq!(read_pairs(&lake, "s/t").await.len(), 98);
}
