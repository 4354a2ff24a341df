//! Reads existing rows, chunk by chunk, each chunk under one short view.
//!
//! A chunk is one transaction, REPEATABLE READ and READ ONLY, in this order:
//! 1. the transactions that are visible already ([`view`](super::view)), then START TRANSACTION
//!    WITH CONSISTENT SNAPSHOT: the view sees at least those. They must contain all that the stream
//!    has delivered already (S4); a commit is in the log before it is visible, so there may be a
//!    short wait.
//! 2. A SELECT of no rows: from here on the table's definition stays as it is. A change between 1
//!    and 2 makes every read of the table fail.
//! 3. The catalog: the table must still look as the caller believes.
//! 4. The rows; the database compares and orders keys (S10).
//! 5. The high mark, after the view (S3).
//!
//! Rows come in the character sets of their columns (`character_set_results = NULL`), as in the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::catalog::{Look, Shared, Table};
use super::connection::{Connection, Refusal};
use super::fault;
use super::input::Input;
use super::position::{Gtid, Place, Visible};
use super::server::Server;
use super::view;
use crate::error::{Error, Result};
use crate::pace::Pace;
use crate::schema::{Identity, TableId, TableSchema, Type};
use crate::source::{ChunkReader, KeyText, Part, Position as _, Range, Rows, View};

use self::rows::{Chunk, Keys};
use self::sql::Select;

mod rows;
mod sql;

/// Rows are handed on in batches of about this many bytes.
const PART_BYTES: usize = 4_000_000;
/// How long a moment is waited for in which nothing is committed, which an exact view takes.
const EXACT: Duration = Duration::from_secs(120);
const NEVER_EXACT: &str = "it has no key, and the server committed something at every moment for two \
                           minutes, so that what a read of it sees can't be told; give it a primary key";
/// Keys asked for in one statement.
const KEYS_PER_STATEMENT: usize = 500;
/// The longest walk along an index that looks for a bound, in rows: about a second. Larger tables
/// are read in one range, unless their key is an integer.
const WALK: u64 = 1_000_000;
/// A table of fewer rows is read in one range.
const ROWS_WORTH_SPLITTING: u64 = 20_000;

/// ER_TABLE_DEF_CHANGED.
const CHANGED: u16 = 1412;

type Parts = Sender<Part<Place, Visible>>;

/// Reads chunks over a connection of its own.
pub struct Reader {
    server: Server,
    connection: Connection,
    shared: Arc<Shared>,
    /// What a chunk's rows take at most, about, as the server sends them.
    chunk_bytes: f64,
    paces: HashMap<TableId, Pace>,
}

/// How wide the rows of a table are, as the server says.
fn width(table: &Table) -> f64 {
    table.row_bytes as f64
}

/// How a statement's rows ended.
struct Taken {
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
    pub async fn open(server: Server, shared: Arc<Shared>, chunk_bytes: usize) -> Result<Self> {
        let connection = connect(&server).await?;
        let chunk_bytes = chunk_bytes.max(1) as f64;
        Ok(Self { server, connection, shared, chunk_bytes, paces: HashMap::new() })
    }

    /// Begins a transaction whose view sees `must_see`, in which `table` is as it was.
    async fn begin(
        &mut self,
        table: &Arc<TableSchema>,
        must_see: &[Gtid],
    ) -> Result<(Visible, Table)> {
        let (began, mut pause, mut said) = (Instant::now(), Duration::from_millis(5), false);
        loop {
            let view = view::open(&mut self.connection).await?;
            let missing = must_see.iter().find(|gtid| !view.sees(gtid));
            let exact = table.identity != Identity::FullRow || self.is_exact(&view).await?;
            let Some(missing) = missing else {
                if exact {
                    let found = self.look(table).await?;
                    return Ok((view, found));
                }
                if began.elapsed() > EXACT {
                    return Err(Error::table(table.id.clone(), NEVER_EXACT));
                }
                self.rollback().await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            if began.elapsed() > Duration::from_secs(10) && !said {
                said = true;
                tracing::warn!(table = %table.id, gtid = %missing,
                    "waiting for a transaction that is in the log but not visible yet \
                     (a semi-synchronous replica that does not answer?)");
            }
            self.rollback().await?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Whether the view sees nothing but what it is known to see. Rows without a key can't be told
    /// apart, so that what the log brings again would be doubled: their view has to be exact (S11).
    async fn is_exact(&mut self, view: &Visible) -> Result<bool> {
        Ok(view.visible.covers(&view::high(&mut self.connection).await?))
    }

    async fn rollback(&mut self) -> Result<()> {
        self.connection.run("ending a read", "ROLLBACK").await
    }

    /// The table, when it still looks like `table`.
    async fn look(&mut self, table: &Arc<TableSchema>) -> Result<Table> {
        let probe = Table {
            schema: table.clone(),
            rows: 0,
            row_bytes: 0,
            index: String::new(),
            order: Vec::new(),
        };
        self.all_rows(&Select(&probe).nothing(), &table.id).await?;
        let changed = |how: &str| {
            Err(Error::table(table.id.clone(), format!("it changed while it was read: {how}")))
        };
        match self.shared.look(&mut self.connection, &table.id).await? {
            Look::Gone => changed("it was dropped"),
            Look::Refused(reason) => changed(&reason),
            Look::Kept(found) if looks_alike(&found.schema, table) => {
                Ok(Table { schema: table.clone(), ..*found })
            }
            Look::Kept(_) => changed("its columns or key are others now"),
        }
    }

    /// All rows of a short answer, as they came.
    async fn all_rows(&mut self, sql: &str, table: &TableId) -> Result<Vec<bytes::Bytes>> {
        let failed = |refusal| read_fault(table, refusal);
        self.connection.select(sql).await.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(row) = self.connection.next_row().await.map_err(failed)? {
            rows.push(row);
        }
        Ok(rows)
    }

    /// Reads one range, and returns what is left of it.
    async fn next(&mut self, found: &Table, range: Range, send: &Parts) -> Result<Option<Range>> {
        let id = found.schema.id.clone();
        let mut pace = self.paces.get(&id).copied().unwrap_or_else(|| Pace::first(width(found)));
        let limit = pace.rows(self.chunk_bytes);
        let mut rows = Chunk::new(&found.schema, &self.shared)?;
        let began = Instant::now();
        let most = (2.0 * self.chunk_bytes) as u64;
        let sql = Select(found).next(&range, limit);
        let taken = self.take(&sql, &mut rows, most, send).await?;
        pace.learn(rows.count, rows.bytes, began.elapsed().saturating_sub(taken.waited));
        self.paces.insert(id, pace);
        let more = rows.count >= limit || !taken.whole;
        let rest = match more {
            true => Some(Range { after: Some(rows.last_key()?), ..range }),
            false => None,
        };
        rows.send(send).await?;
        Ok(rest)
    }

    async fn keys(&mut self, found: &Table, keys: &[KeyText], send: &Parts) -> Result<()> {
        let mut rows = Chunk::new(&found.schema, &self.shared)?;
        for some in keys.chunks(KEYS_PER_STATEMENT) {
            self.take(&Select(found).keys(some), &mut rows, u64::MAX, send).await?;
        }
        rows.send(send).await
    }

    async fn all(&mut self, found: &Table, send: &Parts) -> Result<()> {
        let mut rows = Chunk::new(&found.schema, &self.shared)?;
        self.take(&Select(found).all(), &mut rows, u64::MAX, send).await?;
        rows.send(send).await
    }

    /// Takes what `sql` selects into `rows`, sending them on when there are enough, until all are
    /// there or more than `most` bytes came.
    async fn take(
        &mut self,
        sql: &str,
        rows: &mut Chunk,
        most: u64,
        send: &Parts,
    ) -> Result<Taken> {
        let table = rows.schema.id.clone();
        self.connection.select(sql).await.map_err(|refusal| read_fault(&table, refusal))?;
        let mut taken = Taken { waited: Duration::ZERO, whole: true };
        loop {
            let row = self.connection.next_row().await;
            let Some(row) = row.map_err(|refusal| read_fault(&table, refusal))? else {
                return Ok(taken);
            };
            rows.push(&row)?;
            if rows.builder.size() >= PART_BYTES {
                let began = Instant::now();
                rows.send(send).await?;
                taken.waited += began.elapsed();
            }
            if rows.bytes > most {
                taken.whole = false;
                return Ok(taken);
            }
        }
    }

    async fn read_chunk(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Gtid],
        send: &Parts,
    ) -> Result<()> {
        if self.connection.is_busy() {
            // A read that was ended early: only the end of the connection stops the server.
            self.connection = connect(&self.server).await?;
        }
        let (view, found) = self.begin(table, must_see).await?;
        send_part(send, Part::Opened(view)).await?;
        let rest = match rows {
            Rows::Next(range) => self.next(&found, range, send).await?,
            Rows::Keys(keys) => {
                self.keys(&found, &keys, send).await?;
                None
            }
            Rows::All => {
                self.all(&found, send).await?;
                None
            }
        };
        match self.connection.is_busy() {
            true => self.connection = connect(&self.server).await?,
            false => self.rollback().await?,
        }
        let high = view::high(&mut self.connection).await?;
        send_part(send, Part::Closed { high, rest }).await
    }

    /// The keys that part the table into about equal ranges, as the database orders them: evenly
    /// between the ends of a single integer key, or by a walk along the index.
    async fn bounds(&mut self, found: &Table, parts: usize) -> Result<Vec<KeyText>> {
        let table = &found.schema;
        if let [Type::Int16 | Type::Int32 | Type::Int64] = *key_types(table)
            && let Some((low, high)) = self.ends(found).await?
            && (high - low) as f64 <= 2.0 * found.rows as f64
        {
            let step = ((high - low) / parts as i128).max(1);
            let bounds = (1..parts as i128).map(|part| low + part * step);
            return Ok(bounds.filter(|b| *b < high).map(|b| vec![b.to_string()]).collect());
        }
        let distance = found.rows / parts as u64;
        if distance > WALK {
            return Ok(Vec::new());
        }
        let mut bounds: Vec<KeyText> = Vec::new();
        let mut keys = Keys::new(table, &self.shared)?;
        while bounds.len() + 1 < parts {
            let sql = Select(found).step(bounds.last(), distance);
            let rows = self.all_rows(&sql, &table.id).await?;
            match rows.first() {
                Some(row) => bounds.push(keys.text(row)?),
                None => break,
            }
        }
        Ok(bounds)
    }

    /// The least and the greatest key.
    async fn ends(&mut self, found: &Table) -> Result<Option<(i128, i128)>> {
        let rows = self.all_rows(&Select(found).ends(), &found.schema.id).await?;
        let mut row = Input(rows.first().map_or(&[][..], |row| row));
        let mut number = || std::str::from_utf8(row.field()??).ok()?.parse().ok();
        Ok(number().zip(number()))
    }
}

/// A connection whose rows come in the character sets of their columns.
async fn connect(server: &Server) -> Result<Connection> {
    let mut connection = server.connect().await?;
    const RAW: &str = "SET SESSION character_set_results = NULL";
    connection.run("pinning settings", RAW).await?;
    Ok(connection)
}

/// Whether rows of one can be read as rows of the other: all but defaults.
fn looks_alike(now: &TableSchema, then: &TableSchema) -> bool {
    now.columns.len() == then.columns.len()
        && now.identity == then.identity
        && now.columns.iter().zip(&then.columns).all(|(is, was)| {
            (&is.name, &is.kind, &is.source_type, is.compare)
                == (&was.name, &was.kind, &was.source_type, was.compare)
        })
}

impl ChunkReader for Reader {
    type Position = Place;
    type View = Visible;

    async fn read(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Gtid],
        send: &Parts,
    ) -> Result<()> {
        if !matches!(rows, Rows::All) && table.identity == Identity::FullRow {
            return Err(Error::internal("a table without a key can only be read whole"));
        }
        let mut tries = 0;
        let result = loop {
            let result = self.read_chunk(table, rows.clone(), must_see, send).await;
            // The table was altered or emptied after the view was taken, and nothing has been read:
            // another view does. The next look says whether the table is still the same.
            match &result {
                Err(error) if fault::is(error, CHANGED) && tries < 100 => tries += 1,
                _ => break result,
            }
            self.rollback().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if result.is_err() && !self.connection.is_busy() {
            // Leaves no view behind that holds back the source's purge. Should it fail too, the
            // next read begins with it.
            let _ = self.rollback().await;
        }
        result
    }

    async fn split(&mut self, table: &Arc<TableSchema>, parts: usize) -> Result<Vec<Range>> {
        let whole = vec![Range::default()];
        if table.identity == Identity::FullRow || parts < 2 {
            return Ok(whole);
        }
        if self.connection.is_busy() {
            self.connection = connect(&self.server).await?;
        }
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

async fn send_part(send: &Parts, part: Part<Place, Visible>) -> Result<()> {
    send.send(part).await.map_err(|_| Error::unavailable("nobody waits for the chunk any more"))
}

fn read_fault(table: &TableId, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Server(reply) => fault::read(table, reply),
        Refusal::Connection(error) => error.with("table", table),
    }
}
