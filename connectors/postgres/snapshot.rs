//! Reads existing rows, chunk by chunk, each chunk under one short view.
//!
//! A chunk is one transaction, REPEATABLE READ and READ ONLY, in this order:
//! 1. `LOCK TABLE … IN ACCESS SHARE MODE`, which every SELECT takes anyway. It comes before the view
//!    because ALTER TABLE and TRUNCATE are not bound by older views: whoever had the table alone
//!    is done when the view is taken, and nobody has it alone while the chunk is read.
//! 2. `pg_current_snapshot()`: this takes the view. It must see all transactions that the stream
//!    has delivered already (S4); a commit is in the log before it is visible, so there may be a
//!    short wait.
//! 3. The catalog: the table must still look as the caller believes.
//! 4. COPY of the rows; the database compares and orders keys (S10).
//! 5. `pg_current_wal_insert_lsn()`, the high mark, after the view (S3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc::Sender;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::pace::Pace;
use crate::postgres::catalog::{self, Look, Options, Table, fault, quoted_table};
use crate::postgres::connection::Server;
use crate::postgres::position::{Commit, Lsn, Visible};
use crate::postgres::snapshot::copy::Rows as CopiedRows;
use crate::postgres::snapshot::sql::Select;
use crate::postgres::storage::{is_partitioned, oid_of};
use crate::schema::{Identity, TableId, TableSchema, Type, rewritten};
use crate::source::{ChunkReader, KeyText, Part, Range, Rows, View};

mod copy;
#[cfg(all(test, feature = "server-tests"))]
mod server_tests;
mod sql;

/// Rows are handed on in batches of about this many bytes.
const PART_BYTES: usize = 4_000_000;
/// Keys asked for in one statement.
const KEYS_PER_STATEMENT: usize = 500;
/// A table of fewer rows is read in one range.
const ROWS_WORTH_SPLITTING: u64 = 20_000;

/// Whatever the statistics say, a chunk must not cost a look at the whole table.
const ALONG_THE_INDEX: &str = "set local enable_sort = off; set local enable_seqscan = off";

type Parts = Sender<Part<Lsn, Visible>>;

/// Reads chunks over a connection of its own, whose session settings are those of
/// [`values`](crate::postgres): the caller pins them.
#[derive(Debug)]
pub struct Reader {
    server: Server,
    client: Client,
    options: Options,
    /// What a chunk's rows take at most, about, as the server sends them.
    chunk_bytes: f64,
    paces: HashMap<TableId, Pace>,
    /// A transaction may be open, for a read ended early (its future was dropped, or it failed).
    open: bool,
}

/// How wide the rows of a table are, as its pages say.
fn width(table: &Table) -> f64 {
    table.access.pages as f64 * 8192.0 / (table.rows.max(1) as f64)
}

/// How a COPY ended.
struct Copied {
    /// How long the receiver of the rows kept it waiting.
    waited: Duration,
    /// Whether it came to its end.
    whole: bool,
}

impl Reader {
    /// A reader with a connection to `server`, whose chunks take about `chunk_bytes`.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn open(server: Server, options: Options, chunk_bytes: usize) -> Result<Self> {
        let client = server.client().await?;
        let chunk_bytes = chunk_bytes.max(1) as f64;
        Ok(Self { server, client, options, chunk_bytes, paces: HashMap::new(), open: false })
    }

    async fn execute(&self, sql: &str, table: &TableSchema) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| read_fault(error, &table.id))
    }

    /// The text that `sql` selects.
    async fn text(&self, sql: &str, table: &TableSchema) -> Result<String> {
        let row = self.client.query_one(sql, &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| read_fault(error, &table.id))
    }

    /// Begins a transaction whose view sees `must_see`, in which `table` is as it was.
    async fn begin(
        &mut self,
        table: &TableSchema,
        must_see: &[Commit],
    ) -> Result<(Visible, Table)> {
        let (began, mut pause, mut said) = (Instant::now(), Duration::from_millis(20), false);
        let only = if is_partitioned(&table.storage) { "" } else { "only " };
        let begin = format!(
            "begin isolation level repeatable read read only; set local lock_timeout = '5s';
             set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
             set local max_parallel_workers_per_gather = 0; set local jit = off;
             lock table {only}{} in access share mode",
            quoted_table(&table.id)
        );
        loop {
            self.rollback(table).await?;
            self.open = true;
            self.execute(&begin, table).await?;
            let view: Visible =
                self.text("select pg_current_snapshot()::text", table).await?.parse()?;
            let Some(missing) = must_see.iter().find(|commit| !view.sees(commit)) else {
                let found = self.look(table).await?;
                return Ok((view, found));
            };
            if began.elapsed() > Duration::from_secs(10) && !said {
                said = true;
                tracing::warn!(table = %table.id, xid = missing.xid,
                    "waiting for a transaction that is in the log but not visible yet \
                     (a synchronous standby that does not answer?)");
            }
            self.rollback(table).await?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn rollback(&mut self, table: &TableSchema) -> Result<()> {
        if self.open {
            self.execute("rollback", table).await?;
            self.open = false;
        }
        Ok(())
    }

    /// The table, when it still looks like `table`.
    async fn look(&self, table: &TableSchema) -> Result<Table> {
        let oid = oid_of(&table.storage)
            .ok_or_else(|| Error::internal("a stored schema was not written by this connector"))?;
        let changed = |how: &str| {
            Err(Error::table(table.id.clone(), format!("it changed while it was read: {how}")))
        };
        match catalog::relation(&self.client, &self.options, oid).await? {
            Look::Gone => changed("it was dropped"),
            Look::Refused(_, reason) => changed(&reason),
            Look::Kept(found) => {
                let now = &found.relation.schema;
                let same_columns = now.columns.len() == table.columns.len()
                    && now.columns.iter().zip(&table.columns).all(|(is, was)| {
                        (is.id, &is.name, &is.kind, &is.source_type)
                            == (was.id, &was.name, &was.kind, &was.source_type)
                    });
                if !same_columns || now.id != table.id || now.identity != table.identity {
                    return changed("its columns, name or key are others now");
                }
                if rewritten(&table.storage, &now.storage) {
                    return changed("its rows were rewritten");
                }
                Ok(*found)
            }
        }
    }

    /// Reads one range, and returns what is left of it.
    async fn next(
        &mut self,
        table: &Arc<TableSchema>,
        found: &Table,
        range: Range,
        send: &Parts,
    ) -> Result<Option<Range>> {
        let mut pace =
            self.paces.get(&table.id).copied().unwrap_or_else(|| Pace::first(width(found)));
        let limit = pace.rows(self.chunk_bytes);
        let select = Select { schema: table, access: &found.access };
        let mut rows = CopiedRows::new(table, &found.access.forms);
        self.execute(ALONG_THE_INDEX, table).await?;
        let began = Instant::now();
        let most = (2.0 * self.chunk_bytes) as u64;
        let copied = self.copy(&select.next(&range, limit), &mut rows, most, send).await?;
        pace.learn(rows.count(), rows.bytes(), began.elapsed().saturating_sub(copied.waited));
        self.paces.insert(table.id.clone(), pace);
        let more = rows.count() >= limit || !copied.whole;
        let rest = match more {
            true => Some(Range { after: Some(rows.last_key()?), ..range }),
            false => None,
        };
        if !copied.whole {
            // The server still sends; only the end of the connection stops it.
            self.client = self.server.client().await?;
            self.open = false;
        }
        finish(rows, send).await?;
        Ok(rest)
    }

    async fn keys(
        &self,
        table: &Arc<TableSchema>,
        found: &Table,
        keys: &[KeyText],
        send: &Parts,
    ) -> Result<()> {
        let select = Select { schema: table, access: &found.access };
        let mut rows = CopiedRows::new(table, &found.access.forms);
        self.execute(ALONG_THE_INDEX, table).await?;
        for some in keys.chunks(KEYS_PER_STATEMENT) {
            self.copy(&select.keys(some), &mut rows, u64::MAX, send).await?;
        }
        finish(rows, send).await
    }

    async fn all(&self, table: &Arc<TableSchema>, found: &Table, send: &Parts) -> Result<()> {
        let mut rows = CopiedRows::new(table, &found.access.forms);
        let select = Select { schema: table, access: &found.access };
        self.copy(&select.all(), &mut rows, u64::MAX, send).await?;
        finish(rows, send).await
    }

    /// Copies what `sql` selects into `rows`, sending them on when there are enough, until all are
    /// there or more than `most` bytes came.
    async fn copy(
        &self,
        sql: &str,
        rows: &mut CopiedRows,
        most: u64,
        send: &Parts,
    ) -> Result<Copied> {
        let table = rows.table().clone();
        let failed = |error| read_fault(error, &table);
        let stream = self.client.copy_out(sql).await.map_err(failed)?;
        let mut stream = std::pin::pin!(stream);
        let mut copied = Copied { waited: Duration::ZERO, whole: true };
        while let Some(bytes) = stream.next().await {
            rows.push(&bytes.map_err(failed)?)?;
            if rows.size() >= PART_BYTES {
                let began = Instant::now();
                send_part(send, Part::Rows(rows.take())).await?;
                copied.waited += began.elapsed();
            }
            if rows.bytes() > most {
                copied.whole = false;
                return Ok(copied);
            }
        }
        rows.end()?;
        Ok(copied)
    }

    async fn read_chunk(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Commit],
        send: &Parts,
    ) -> Result<()> {
        let (view, found) = self.begin(table, must_see).await?;
        send_part(send, Part::Opened(view)).await?;
        let rest = match rows {
            Rows::Next(range) => self.next(table, &found, range, send).await?,
            Rows::Keys(keys) => {
                self.keys(table, &found, &keys, send).await?;
                None
            }
            Rows::All => {
                self.all(table, &found, send).await?;
                None
            }
        };
        let high: Lsn =
            self.text("select pg_current_wal_insert_lsn()::text", table).await?.parse()?;
        let high = high.without_page_header();
        if self.open {
            self.execute("commit", table).await?;
            self.open = false;
        }
        send_part(send, Part::Closed { high, rest }).await
    }

    /// The keys that part `table` into about equal ranges, as the database orders them: taken from
    /// a sample of its pages, or evenly between the ends of a single integer key.
    async fn bounds(&self, found: &Table, parts: usize) -> Result<Vec<KeyText>> {
        let table = &found.relation.schema;
        let select = Select { schema: table, access: &found.access };
        if let [Type::Int16 | Type::Int32 | Type::Int64] = *key_types(table)
            && let Some((low, high)) = self.ends(&select, table).await?
            && (high - low) as f64 <= 2.0 * found.rows as f64
        {
            let step = ((high - low) / parts as i128).max(1);
            let bounds = (1..parts as i128).map(|part| low + part * step);
            return Ok(bounds.filter(|b| *b < high).map(|b| vec![b.to_string()]).collect());
        }
        let pages = found.access.pages.max(1) as f64;
        let percent = (parts as f64 * 3_000.0 / pages).clamp(0.01, 100.0);
        let sql = select.sample(parts, percent);
        let rows = self.client.query(&sql, &[]).await;
        let rows = rows.map_err(|error| read_fault(error, &table.id))?;
        let key = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.try_get(at)).collect();
        rows.iter().map(key).collect::<Result<_, _>>().map_err(|error| read_fault(error, &table.id))
    }

    /// The least and the greatest key.
    async fn ends(&self, select: &Select<'_>, table: &TableSchema) -> Result<Option<(i128, i128)>> {
        let row = self.client.query_one(&select.ends(), &[]).await;
        let ends = row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let ends: (Option<String>, Option<String>) =
            ends.map_err(|error| read_fault(error, &table.id))?;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        Ok(number(ends.0).zip(number(ends.1)))
    }
}

impl ChunkReader for Reader {
    type Position = Lsn;
    type View = Visible;

    async fn read(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Commit],
        send: &Parts,
    ) -> Result<()> {
        if !matches!(rows, Rows::All) && table.identity == Identity::FullRow {
            return Err(Error::internal("a table without a key can only be read whole"));
        }
        let result = self.read_chunk(table, rows, must_see, send).await;
        if result.is_err() {
            // Leaves no view behind that holds back the source's vacuum. Should it fail too, the
            // next read does it.
            let _ = self.rollback(table).await;
        }
        result
    }

    async fn split(&mut self, table: &Arc<TableSchema>, parts: usize) -> Result<Vec<Range>> {
        let whole = vec![Range::default()];
        if table.identity == Identity::FullRow || parts < 2 {
            return Ok(whole);
        }
        self.rollback(table).await?;
        let found = self.look(table).await?;
        if found.rows < ROWS_WORTH_SPLITTING {
            return Ok(whole);
        }
        let mut after = None;
        let mut ranges = Vec::new();
        for bound in self.bounds(&found, parts).await? {
            ranges.push(Range { after: after.replace(bound.clone()), until: Some(bound) });
        }
        ranges.push(Range { after, until: None });
        Ok(ranges)
    }
}

fn key_types(table: &TableSchema) -> Vec<&Type> {
    table.key().iter().filter_map(|&at| table.columns.get(at)).map(|column| &column.kind).collect()
}

async fn finish(mut rows: CopiedRows, send: &Parts) -> Result<()> {
    match rows.is_empty() {
        true => Ok(()),
        false => send_part(send, Part::Rows(rows.take())).await,
    }
}

async fn send_part(send: &Parts, part: Part<Lsn, Visible>) -> Result<()> {
    send.send(part).await.map_err(|_| Error::unavailable("nobody waits for the chunk any more"))
}

/// An error while a table was read: of the table, unless trying again may help.
fn read_fault(error: tokio_postgres::Error, table: &TableId) -> Error {
    let Some(code) = error.code() else {
        return fault(error, "read a table").with("table", table);
    };
    if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code) {
        let changed = Error::table(table.clone(), "it changed while it was read");
        return changed.caused_by(error);
    }
    // Connection, resources, operator intervention, conflicts, locks: 08, 53, 55, 57, 58, 40.
    let passing = ["08", "53", "55", "57", "58", "40"].iter().any(|c| code.code().starts_with(c));
    if passing {
        return fault(error, "read a table").with("table", table);
    }
    Error::table(table.clone(), "it can't be read").caused_by(error)
}
