//! What the simulated source promises to those who test with it.

mod server;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::batch::{Batch, Builder};
use crate::change::Op;
use crate::error::{ErrorKind, Reason};
use crate::key::value_at;
use crate::source::{
    ChunkReader, Decoded, Part, Position, Range, Resolved, Rows, Sink, Stream, View,
};
use Operation::*;

fn t() -> TableId {
    TableId::new("public", "t")
}

fn keyless() -> TableId {
    TableId::new("public", "log")
}

fn create() -> Operation {
    let columns = [("id", Kind::Int), ("note", Kind::Int), ("big", Kind::Toasted)];
    Create(Definition::keyed(&t(), &columns))
}

fn row(id: i64, note: i64) -> Row {
    vec![Cell::Int(id), Cell::Int(note), Cell::Text(format!("big {id}"))]
}

fn key(id: i64) -> Row {
    vec![Cell::Int(id)]
}

fn set(id: i64, to: i64, note: i64) -> Operation {
    Update(t(), key(id), vec![Some(Cell::Int(to)), Some(Cell::Int(note)), None])
}

/// A server with table `t` (transaction a:1) and rows 0 to `rows` (a:2).
fn server(rows: i64) -> Shared {
    let server = Server::new(Settings::default(), 1);
    lock(&server).establish();
    lock(&server).commit('a', vec![create()]).unwrap();
    let rows = (0..rows).map(|id| Insert(t(), row(id, 0))).collect();
    lock(&server).commit('a', rows).unwrap();
    server
}

fn schema(server: &Shared) -> Arc<TableSchema> {
    lock(server).schema(&t()).unwrap()
}

fn gtids(text: &str) -> Gtids {
    Gtids::try_from(text.to_owned()).unwrap()
}

/// Collects what a stream decodes.
#[derive(Default)]
struct Collected {
    begun: Vec<Gtid>,
    committed: Vec<Gtids>,
    builders: HashMap<TableId, Builder>,
    truncated: usize,
    progress: Vec<Gtids>,
}

impl Sink<Gtids> for Collected {
    fn begin(&mut self, gtid: Gtid) {
        self.begun.push(gtid);
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        let new = || Builder::new(schema.clone());
        Some(self.builders.entry(schema.id.clone()).or_insert_with(new))
    }

    fn truncate(&mut self, _: &TableId) {
        self.truncated += 1;
    }

    fn commit(&mut self, position: Gtids, _: i64) {
        self.committed.push(position);
    }

    fn progress(&mut self, position: Gtids) {
        self.progress.push(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        panic!("{table}: {reason}");
    }
}

/// Reads a stream until it has nothing more to say.
async fn drain(stream: &mut ScriptedStream) -> (Collected, Vec<Resolved>) {
    let (mut sink, mut resolved) = (Collected::default(), Vec::new());
    while let Ok(message) = timeout(Duration::from_secs(300), stream.next()).await {
        let message = message.unwrap();
        while stream.decode(&message, &mut sink).unwrap() == Decoded::Unresolved {
            resolved.extend(stream.resolve().await.unwrap());
        }
    }
    (sink, resolved)
}

async fn stream(server: &Shared, from: &Gtids) -> ScriptedStream {
    let schemas: Vec<_> = {
        let server = lock(server);
        server.tables().iter().filter_map(|table| server.schema(table)).collect()
    };
    Scripted::new(server).stream(from, &schemas).await.unwrap()
}

fn cells(batch: &Batch, row: u32) -> Row {
    let columns = batch.schema.columns.iter().zip(batch.columns.columns());
    let cell = |(column, array): (&crate::Column, &arrow_array::ArrayRef)| match value_at(
        &column.kind,
        array,
        row as usize,
    ) {
        Some(crate::Value::Int(value)) => Cell::Int(value),
        Some(crate::Value::Text(text)) => Cell::Text(text.to_owned()),
        _ => Cell::Null,
    };
    columns.map(cell).collect()
}

/// Reads a chunk: its view, its rows, its high mark and what is left.
async fn chunk(
    server: &Shared,
    rows: Rows,
    must: &[Gtid],
) -> (Seen, Vec<Row>, Gtids, Option<Range>) {
    let mut reader = Scripted::new(server).reader(0).await.unwrap();
    let (send, mut receive) = mpsc::channel(1000);
    reader.read(&schema(server), rows, must, &send).await.unwrap();
    let Some(Part::Opened(seen)) = receive.recv().await else { panic!("no view") };
    let mut read = Vec::new();
    loop {
        match receive.recv().await {
            Some(Part::Rows(batch)) => {
                assert!(batch.changes.iter().all(|change| change.op == Op::Read));
                read.extend(batch.changes.iter().map(|change| cells(&batch, change.row.unwrap())));
            }
            Some(Part::Closed { high, rest }) => return (seen, read, high, rest),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_brings_what_its_position_lacks_in_the_order_of_the_log() {
    let server = server(8);
    for id in 0..8 {
        lock(&server).commit(if id % 3 == 0 { 'b' } else { 'a' }, vec![set(id, id, 1)]).unwrap();
    }
    lock(&server).fail_over();
    let history: Vec<Gtid> = lock(&server).history().collect();
    for mask in 0..1_u32 << history.len() {
        let held = |at: usize| mask >> at & 1 == 1;
        let from = (0..history.len()).filter(|&at| held(at)).map(|at| history[at]).collect();
        let missing: Vec<Gtid> =
            (0..history.len()).filter(|&at| !held(at)).map(|at| history[at]).collect();
        let (sink, _) = drain(&mut stream(&server, &from).await).await;
        assert_eq!(sink.begun, missing);
        let mut position = from;
        for (gtid, committed) in missing.into_iter().zip(sink.committed) {
            position.insert(gtid);
            assert_eq!(committed, position);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_brings_makes_the_contents() {
    let server = server(4);
    let swap = vec![set(1, -1, 1), set(2, 1, 2), set(-1, 2, 3)];
    lock(&server).commit('b', swap).unwrap();
    lock(&server).commit('a', vec![Delete(t(), key(3)), Insert(t(), row(9, 9))]).unwrap();
    let (mut sink, _) = drain(&mut stream(&server, &Gtids::new()).await).await;
    let batch = sink.builders.remove(&t()).unwrap().finish();
    let mut rows = BTreeMap::new();
    for change in &batch.changes {
        let gone = change.old_key.unwrap_or(change.key);
        let before: Option<Row> = rows.remove(batch.keys.get(gone));
        let Some(at) = change.row else { continue };
        let mut row = cells(&batch, at);
        if batch.is_unchanged(2, at) {
            row[2] = before.unwrap()[2].clone();
        }
        rows.insert(batch.keys.get(change.key).to_vec(), row);
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_unstable();
    assert_eq!(rows, lock(&server).contents(&t()).unwrap());
    assert_eq!(rows[1][2], Cell::Text("big 2".to_owned()));
    assert_eq!(batch.unchanged[2].len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_streamed_before_it_is_seen() {
    let server = server(2);
    let after = Visibility::After(Duration::from_secs(60));
    let late = lock(&server).commit_with('b', vec![set(1, 1, 5)], after).unwrap();
    let (sink, _) = drain_now(&server).await;
    assert!(sink.begun.contains(&late));
    let (seen, rows, high, _) = chunk(&server, Rows::Next(Range::default()), &[]).await;
    assert!(!seen.sees(&late) && high.contains(&late));
    assert_eq!(rows.iter().find(|row| row[0] == Cell::Int(1)), Some(&row(1, 0)));
    // A chunk that must see it waits.
    let (seen, rows, ..) = chunk(&server, Rows::Keys(vec![vec!["1".to_owned()]]), &[late]).await;
    assert!(seen.sees(&late));
    assert_eq!(rows, [vec![Cell::Int(1), Cell::Int(5), Cell::Text("big 1".to_owned())]]);
}

/// Reads a fresh stream while no time passes.
async fn drain_now(server: &Shared) -> (Collected, ()) {
    let mut stream = stream(server, &Gtids::new()).await;
    let mut sink = Collected::default();
    while let Ok(message) = timeout(Duration::ZERO, stream.next()).await {
        assert_eq!(stream.decode(&message.unwrap(), &mut sink).unwrap(), Decoded::Done);
    }
    (sink, ())
}

#[tokio::test(start_paused = true)]
async fn a_view_may_be_known_only_from_below() {
    let server = server(1);
    lock(&server).settings.views = Views::AtLeast(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fresh = lock(&server).commit('b', vec![set(0, 0, 3)]).unwrap();
    let (seen, rows, ..) = chunk(&server, Rows::Next(Range::default()), &[]).await;
    assert!(!seen.sees(&fresh));
    assert_eq!(rows[0][1], Cell::Int(3));
    let (seen, ..) = chunk(&server, Rows::Next(Range::default()), &[fresh]).await;
    assert!(seen.sees(&fresh));
}

#[tokio::test(start_paused = true)]
async fn chunks_hold_every_key_once_in_no_order_of_ours() {
    for (rows, parts) in [(0, 1), (1, 3), (10, 1), (37, 4), (100, 7)] {
        let server = server(rows);
        let mut reader = Scripted::new(&server).reader(0).await.unwrap();
        let ranges = reader.split(&schema(&server), parts).await.unwrap();
        assert!(ranges.len() <= parts);
        let mut read = Vec::new();
        for range in ranges {
            let mut rest = Some(range);
            while let Some(range) = rest {
                let part;
                (_, part, _, rest) = chunk(&server, Rows::Next(range), &[]).await;
                assert!(part.len() <= 10);
                read.extend(part);
            }
        }
        assert!(rows < 10 || !read.is_sorted() && !read.iter().rev().is_sorted());
        read.sort_unstable();
        assert_eq!(Some(read), lock(&server).contents(&t()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_asked_for_at_the_first_change_under_it() {
    let server = server(2);
    let old = schema(&server);
    let add = AddColumn(t(), "more".to_owned(), Kind::Int);
    lock(&server).commit('a', vec![set(1, 1, 1), add]).unwrap();
    lock(&server).commit('a', vec![Delete(t(), key(1))]).unwrap();
    let from = gtids("a:1-2");
    let mut stream =
        Scripted::new(&server).stream(&from, std::slice::from_ref(&old)).await.unwrap();
    let mut again = Scripted::new(&server).stream(&from, &[old]).await.unwrap();
    let (sink, resolved) = drain(&mut stream).await;
    let Some(Resolved::Schema(new)) = resolved.first() else { panic!("{resolved:?}") };
    assert_eq!((new, sink.begun.len()), (&schema(&server), 2));
    // Once the table has changed again, nobody can tell.
    lock(&server).commit('b', vec![DropColumn(t(), "more".to_owned())]).unwrap();
    let (_, resolved) = drain(&mut again).await;
    assert!(matches!(resolved.as_slice(), [Resolved::Lost(table, _)] if *table == t()));
    // A dropped column's number is not given again.
    lock(&server).commit('b', vec![AddColumn(t(), "more".to_owned(), Kind::Int)]).unwrap();
    assert_eq!(schema(&server).columns[3].id, 5);
}

#[tokio::test(start_paused = true)]
async fn a_table_created_again_is_another() {
    let server = server(2);
    let old = schema(&server);
    lock(&server).commit('b', vec![Drop(t()), create(), Insert(t(), row(5, 5))]).unwrap();
    assert_ne!(old.storage, schema(&server).storage);
    let mut reader = Scripted::new(&server).reader(0).await.unwrap();
    let (send, _receive) = mpsc::channel(10);
    let error = reader.read(&old, Rows::All, &[], &send).await.unwrap_err();
    assert_eq!((error.kind(), error.stopped_table()), (ErrorKind::Table, Some(&t())));
    assert_eq!(lock(&server).contents(&t()).unwrap(), [row(5, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_stream_wakes_and_reports_when_asked() {
    let server = server(1);
    let mut stream = stream(&server, &gtids("a:1-2")).await;
    stream.nudge();
    let (sink, _) = drain(&mut stream).await;
    assert_eq!(sink.progress, [gtids("a:1-2")]);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        lock(&server).commit('b', vec![set(0, 0, 1)]).unwrap()
    };
    let (message, gtid) = tokio::join!(stream.next(), later);
    let mut sink = Collected::default();
    stream.decode(&message.unwrap(), &mut sink).unwrap();
    assert_eq!(sink.begun, [gtid]);
}

/// What went wrong, and when, while rows were read under faults.
async fn trace(seed: u64) -> Vec<String> {
    let server = server(30);
    let faults = Faults {
        lose: 0.05,
        hang: 0.02,
        delay: 0.3,
        delay_up_to: Duration::from_secs(2),
        tear: 0.1,
        forget: 0.1,
    };
    lock(&server).settings.faults = faults;
    lock(&server).chance = Chance::new(seed);
    let started = tokio::time::Instant::now();
    let mut trace = Vec::new();
    for _ in 0..50 {
        let read = async {
            let mut reader = Scripted::new(&server).reader(0).await?;
            let (send, _receive) = mpsc::channel(100);
            reader.read(&schema(&server), Rows::All, &[], &send).await
        };
        let outcome = read.await.map_err(|error| error.full());
        trace.push(format!("{:?} {outcome:?}", started.elapsed()));
    }
    trace
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_faults() {
    let one = trace(1).await;
    assert_eq!(one, trace(1).await);
    assert_ne!(one, trace(2).await);
    for what in ["lost\"", "silent", "in a chunk", "Ok"] {
        assert!(one.iter().any(|line| line.contains(what)), "{what}");
    }
}
