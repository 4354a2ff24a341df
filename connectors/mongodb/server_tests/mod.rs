//! Tests against the replica set of LAKEWARD_TEST_MONGODB_URL, or else the stand-in of
//! LAKEWARD_TEST_MONGO_URL (tests/servers). Each has a database of its own and leaves nothing behind.
//!
//! Not seen on the stand-in, which speaks MongoDB's protocol over another engine: post-images of the
//! moment of the change (it sends the present document), the loss of the log by its age, events that
//! are split, rights that are missing, TLS, elections.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::{Client, Collection, Database};
use arrow_array::cast::AsArray;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::position::{Position, Time, Visible};
use super::{Mongodb, Options};
use crate::batch::{Batch, Builder};
use crate::change::Op;
use crate::error::Reason;
use crate::schema::{TableId, TableSchema};
use crate::secret::Secret;
use crate::source::{
    ChunkReader, Decoded, Established, Part, Position as _, Range, Resolved, Rows, Sink, Source,
    Stream,
};

mod log;
mod rows;

/// A database for one test.
#[derive(Clone)]
struct Bed {
    name: String,
    url: String,
    client: Client,
}

impl Bed {
    fn database(&self) -> Database {
        self.client.database(&self.name)
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.database().collection(name)
    }

    fn id(&self, collection: &str) -> TableId {
        TableId::new(&self.name, collection)
    }

    fn options(&self) -> Options {
        Options {
            url: Secret::new(&self.url),
            tables: vec![format!("{}.*", self.name)],
            columns: 100,
            document: true,
        }
    }

    /// A source that has been discovered and established.
    async fn made(&self) -> Made {
        let mut source = Mongodb::new(self.options()).unwrap();
        let tables = tables(&mut source).await;
        let established = source.establish(&tables).await.unwrap();
        source.expect(&established.identity);
        Made { source, tables, established }
    }
}

async fn tables(source: &mut Mongodb) -> Vec<Arc<TableSchema>> {
    let found = source.discover().await.unwrap();
    found.tables.into_iter().map(|listed| listed.schema).collect()
}

/// What [`Bed::made`] makes.
struct Made {
    source: Mongodb,
    tables: Vec<Arc<TableSchema>>,
    established: Established<Position>,
}

impl Made {
    async fn stream(&mut self, from: &Position) -> super::stream::Stream {
        self.source.stream(from, &self.tables).await.unwrap()
    }
}

/// Runs `body` and cleans up whatever became of it.
fn on_server<F: Future<Output = ()> + Send + 'static>(name: &str, body: impl Fn(Bed) -> F) {
    let url = std::env::var("LAKEWARD_TEST_MONGODB_URL")
        .or_else(|_| std::env::var("LAKEWARD_TEST_MONGO_URL"))
        .expect("LAKEWARD_TEST_MONGODB_URL is not set");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::with_uri_str(&url).await.unwrap();
        let name = format!("lw_{name}_{}", std::process::id());
        let bed = Bed { name, url, client };
        let done = tokio::spawn(body(bed.clone())).await;
        bed.database().drop().await.unwrap();
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    });
}

/// What a stream said.
#[derive(Default)]
struct Said {
    begun: Vec<Time>,
    commits: Vec<Position>,
    progress: Option<Position>,
    dropped: Vec<TableId>,
    /// Those of them that go on.
    tables: Vec<Arc<TableSchema>>,
    rows: HashMap<TableId, Builder>,
    /// Batches of schemas that were left behind.
    done: Vec<Batch>,
    resolved: Vec<Resolved>,
    open: bool,
}

impl Sink<Position> for Said {
    fn begin(&mut self, time: Time) {
        assert!(!self.open, "a transaction begins within another");
        self.open = true;
        self.begun.push(time);
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        assert!(self.open, "a change outside of a transaction");
        let new = || Builder::new(schema.clone());
        let builder = self.rows.entry(schema.id.clone()).or_insert_with(new);
        if builder.schema() != schema {
            let left = std::mem::replace(builder, Builder::new(schema.clone()));
            self.done.push(left.finish());
        }
        Some(builder)
    }

    fn truncate(&mut self, table: &TableId) {
        panic!("the log of MongoDB shows no truncation, as of {table}");
    }

    fn commit(&mut self, position: Position, _micros: i64) {
        assert!(std::mem::take(&mut self.open), "a commit of nothing");
        assert!(position.token.is_some());
        self.commits.push(position);
    }

    fn progress(&mut self, position: Position) {
        assert!(!self.open, "progress within a transaction");
        self.progress = Some(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        panic!("{table} stopped: {reason}");
    }
}

impl Said {
    fn changes(&self) -> usize {
        self.rows.values().map(Builder::len).sum::<usize>()
            + self.done.iter().map(|batch| batch.changes.len()).sum::<usize>()
    }

    /// Reads on until `enough`; fails after 30 s.
    async fn read(&mut self, stream: &mut super::stream::Stream, enough: impl Fn(&Said) -> bool) {
        let reading = async {
            while !enough(self) {
                let message = stream.next().await.unwrap();
                while stream.decode(&message, self).unwrap() == Decoded::Unresolved {
                    let resolved = stream.resolve().await.unwrap();
                    for resolved in &resolved {
                        let Resolved::Dropped { table, shows_next: true } = resolved else {
                            continue;
                        };
                        self.dropped.push(table.clone());
                        if let Some(next) = self.tables.iter().find(|next| next.id == *table) {
                            stream.set_table(next.clone());
                        }
                    }
                    self.resolved.extend(resolved);
                }
            }
        };
        timeout(Duration::from_secs(30), reading).await.expect("the stream said too little");
    }

    /// Reads until everything up to `time` has been read.
    async fn read_to(&mut self, stream: &mut super::stream::Stream, time: Time) {
        let reached = |position: &Position| position.covers(&Position::at(time));
        self.read(stream, |said| said.progress.as_ref().is_some_and(reached)).await;
    }
}

/// What a chunk said.
struct Chunk {
    view: Visible,
    batches: Vec<Batch>,
    high: Position,
    rest: Option<Range>,
}

/// Reads one chunk.
async fn chunk(
    reader: &mut super::snapshot::Reader,
    table: &Arc<TableSchema>,
    rows: Rows,
) -> crate::Result<Chunk> {
    let (send, mut parts) = mpsc::channel(1_000);
    reader.read(table, rows, &[], &send).await?;
    drop(send);
    let (mut view, mut batches, mut closed) = (None, Vec::new(), None);
    while let Some(part) = parts.recv().await {
        match part {
            Part::Opened(opened) => view = Some(opened),
            Part::Rows(batch) => batches.push(batch),
            Part::Closed { high, rest } => closed = Some((high, rest)),
        }
    }
    let (high, rest) = closed.unwrap();
    Ok(Chunk { view: view.unwrap(), batches, high, rest })
}

/// The texts of column `name` of all rows of `batches`.
fn column(batches: &[Batch], name: &str) -> Vec<String> {
    let of = |batch: &Batch| {
        let at = batch.schema.column(name).unwrap();
        let values = batch.columns.column(at).as_string::<i32>().clone();
        let rows: Vec<_> = batch.changes.iter().filter_map(|change| change.row).collect();
        rows.into_iter().map(move |row| values.value(row as usize).to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

/// The documents of all rows of `batches`, in canonical Extended JSON.
fn documents(batches: &[Batch]) -> Vec<String> {
    column(batches, "_doc")
}

/// What [`documents`] says of `document`.
fn canonical(document: &Document) -> String {
    let raw = ::mongodb::bson::RawDocumentBuf::try_from(document).unwrap();
    let mut out = String::new();
    super::json::document(raw.as_bytes(), &mut out).unwrap();
    out
}
