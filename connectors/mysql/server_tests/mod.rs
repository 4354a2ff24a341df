//! Against real servers, MySQL and MariaDB alike: LAKEWARD_TEST_MYSQL_URL and
//! LAKEWARD_TEST_MARIADB_URL name them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::channel;

use super::*;
use crate::batch::{Batch, Builder};
use crate::error::Reason;
use crate::key::value_at;
use crate::source::{
    ChunkReader, Decoded, Part, Range, Resolved, Rows, Sink, Source, Stream as _, View,
};

mod log;
mod types;

/// A database of one test on one server.
pub struct Bed {
    pub flavor: Flavor,
    pub name: String,
    url: String,
}

impl Bed {
    pub fn options(&self) -> Options {
        Options {
            source_name: self.name.clone(),
            url: Secret::new(&self.url),
            tables: vec![format!("{}.*", self.name)],
            server_id: None,
            ssl_root_cert: None,
            text_columns: HashMap::new(),
        }
    }

    pub async fn admin(&self) -> Connection {
        let server = Server::parse(&Secret::new(&self.url), None).unwrap();
        let mut admin = server.connect().await.unwrap();
        admin.run("a test", &format!("USE {}", self.name)).await.unwrap();
        admin
    }
}

pub async fn run(connection: &mut Connection, statements: &[&str]) {
    for statement in statements {
        let done = connection.run("a test", statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// Runs a test on every server that the environment names; it must name both.
pub fn on_servers<F: Future<Output = ()>>(label: &str, test: impl Fn(Arc<Bed>) -> F) {
    // Settings and the log are the whole server's.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (variable, flavor) in
        [("LAKEWARD_TEST_MYSQL_URL", Flavor::MySql), ("LAKEWARD_TEST_MARIADB_URL", Flavor::MariaDb)]
    {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
        let name = format!("lwt{}_{label}", std::process::id());
        let bed = Arc::new(Bed { flavor, name, url });
        runtime.block_on(async {
            let server = Server::parse(&Secret::new(&bed.url), None).unwrap();
            let mut admin = server.connect().await.unwrap();
            let drop = format!("DROP DATABASE IF EXISTS {}", bed.name);
            let create = format!("CREATE DATABASE {} CHARACTER SET utf8mb4", bed.name);
            run(&mut admin, &[&drop, &create]).await;
            let limit = Duration::from_secs(60);
            let ended = tokio::time::timeout(limit, test(bed.clone())).await;
            assert!(ended.is_ok(), "not within {limit:?}");
            run(&mut admin, &[&drop]).await;
        });
    }
}

/// What a stream said, in order.
#[derive(Default)]
pub struct Said {
    pub lines: Vec<String>,
    pub position: Option<Place>,
    /// How many lines there were when the last transaction ended.
    ended: usize,
    builders: BTreeMap<TableId, Builder>,
}

impl Said {
    /// Decodes until `done`, asking and taking answers as the pipeline does.
    pub async fn read(&mut self, stream: &mut stream::Stream, done: impl Fn(&Said) -> bool) {
        let reading = async {
            while !done(self) {
                let message = stream.next().await.unwrap();
                while stream.decode(&message, self).unwrap() == Decoded::Unresolved {
                    for resolved in stream.resolve().await.unwrap() {
                        match resolved {
                            Resolved::Schema(schema) => {
                                self.lines.push(format!("schema {}", schema.columns.len()));
                                stream.set_table(schema);
                            }
                            Resolved::Lost(table, why) => {
                                self.lines.push(format!("lost {}: {why}", table.name));
                            }
                            Resolved::Dropped { table, .. } => {
                                self.lines.push(format!("dropped {}", table.name));
                            }
                        }
                    }
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), reading).await.is_err() {
            panic!("the stream said only {:#?}", self.lines);
        }
    }

    fn flush(&mut self) {
        for (_, builder) in std::mem::take(&mut self.builders) {
            self.lines.extend(shown(&builder.finish()));
        }
    }

    pub fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|known| known.contains(line))
    }
}

impl Sink<Place> for Said {
    fn begin(&mut self, _transaction: position::Gtid) {}

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        let builder = self.builders.entry(schema.id.clone());
        Some(builder.or_insert_with(|| Builder::new(schema.clone())))
    }

    fn truncate(&mut self, table: &TableId) {
        self.flush();
        self.lines.push(format!("truncate {}", table.name));
    }

    fn commit(&mut self, position: Place, _micros: i64) {
        self.flush();
        // Transactions of other databases say nothing.
        if self.lines.len() > self.ended {
            self.lines.push("commit".to_owned());
        }
        self.ended = self.lines.len();
        self.position = Some(position);
    }

    fn progress(&mut self, position: Place) {
        self.position = Some(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        self.builders.remove(table);
        self.lines.push(format!("stop {}: {reason}", table.name));
    }
}

/// The changes of a batch, one line each.
pub fn shown(batch: &Batch) -> Vec<String> {
    let row = |row: u32| {
        let value = |(at, column): (usize, &crate::Column)| {
            if batch.is_unchanged(at, row) {
                return "Unchanged".to_owned();
            }
            let value = value_at(&column.kind, batch.columns.column(at).as_ref(), row as usize);
            match batch.is_patched(at, row) {
                true => format!("patch of {:?}", value.unwrap()),
                false => format!("{:?}", value.unwrap()),
            }
        };
        batch.schema.columns.iter().enumerate().map(value).collect::<Vec<_>>().join(" ")
    };
    let change = |change: &crate::batch::Change| {
        let op = format!("{:?}", change.op).to_lowercase();
        let moved = if change.old_key.is_some() { " moved" } else { "" };
        let key = || {
            let key = crate::key::key_texts(&batch.schema, batch.keys.get(change.key));
            key.unwrap_or_default().join(",")
        };
        match change.row {
            Some(at) => format!("{op}{moved} {}", row(at)),
            None => format!("{op} {}", key()),
        }
    };
    batch.changes.iter().map(change).collect()
}

/// The tables of a source, by name.
pub async fn tables(source: &mut MySql) -> BTreeMap<String, Arc<TableSchema>> {
    let found = source.discover().await.unwrap();
    assert_eq!(found.refused, []);
    found.tables.into_iter().map(|listed| (listed.schema.id.name.clone(), listed.schema)).collect()
}

/// One chunk: its rows as lines, its view and its high mark.
pub struct Chunk {
    pub rows: Vec<String>,
    pub view: Visible,
    pub high: Place,
    /// What of the range is left: a slow server is asked for fewer rows at a time.
    pub rest: Option<Range>,
}

pub async fn chunk(
    reader: &mut snapshot::Reader,
    table: &Arc<TableSchema>,
    rows: Rows,
) -> Result<Chunk> {
    let (send, mut receive) = channel(64);
    reader.read(table, rows, &[], &send).await?;
    drop(send);
    let (mut lines, mut view, mut closed) = (Vec::new(), None, None);
    while let Some(part) = receive.recv().await {
        match part {
            Part::Opened(seen) => view = Some(seen),
            Part::Rows(batch) => lines.extend(shown(&batch)),
            Part::Closed { high, rest } => closed = Some((high, rest)),
        }
    }
    let (high, rest) = closed.unwrap();
    Ok(Chunk { rows: lines, view: view.unwrap(), high, rest })
}

/// A stream that starts now, of all tables of the source.
pub async fn follow(source: &mut MySql) -> stream::Stream {
    let schemas: Vec<_> = tables(source).await.into_values().collect();
    let established = source.establish(&schemas).await.unwrap();
    source.stream(&established.oldest, &schemas).await.unwrap()
}
