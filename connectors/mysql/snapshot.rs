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
use super::connection::{Connection, Refusal, Server};
use super::fault;
use super::input::Input;
use super::position::{Gtid, Place, Visible};
use super::values::{self, Field};
use super::view;
use crate::batch::{Batch, Builder};
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::key::key_texts;
use crate::schema::{Identity, TableId, TableSchema, Type};
use crate::source::{ChunkReader, KeyText, Part, Range, Rows, View};

use self::sql::Select;

mod sql;

/// Rows are handed on in batches of about this many bytes.
const PART_BYTES: usize = 4_000_000;
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

/// What earlier chunks of a table taught about its rows.
#[derive(Debug, Clone, Copy)]
struct Pace {
    bytes_per_row: f64,
    rows_per_second: f64,
}

impl Pace {
    /// The first chunk of a table: rows as wide as the server says, and a modest speed.
    fn first(table: &Table) -> Self {
        Self { bytes_per_row: (table.row_bytes as f64).max(32.0), rows_per_second: 20_000.0 }
    }

    /// How many rows the next chunk may have: about a second, and not too many bytes.
    fn rows(self, bytes: f64) -> u64 {
        self.rows_per_second.min(bytes / self.bytes_per_row).clamp(100.0, 1_000_000.0) as u64
    }

    /// Half of what was known and half of what was seen; never more than four times as fast.
    fn learn(&mut self, rows: u64, bytes: u64, took: Duration) {
        if rows == 0 {
            return;
        }
        let seen = rows as f64 / took.as_secs_f64().max(0.001);
        self.rows_per_second = (self.rows_per_second + seen.min(self.rows_per_second * 7.0)) / 2.0;
        self.bytes_per_row = (self.bytes_per_row + bytes as f64 / rows as f64) / 2.0;
    }
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
            let Some(missing) = must_see.iter().find(|gtid| !view.sees(gtid)) else {
                let found = self.look(table).await?;
                return Ok((view, found));
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
        let mut pace = self.paces.get(&id).copied().unwrap_or_else(|| Pace::first(found));
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

/// Rows on their way from the text protocol to a batch.
struct Chunk {
    schema: Arc<TableSchema>,
    fields: Vec<Field>,
    builder: Builder,
    /// The last key of the rows that were sent on.
    last: Vec<u8>,
    count: u64,
    bytes: u64,
}

impl Chunk {
    fn new(schema: &Arc<TableSchema>, shared: &Shared) -> Result<Self> {
        Ok(Self {
            fields: Field::all(schema, &shared.charsets())?,
            builder: Builder::new(schema.clone()),
            schema: schema.clone(),
            last: Vec::new(),
            count: 0,
            bytes: 0,
        })
    }

    /// Appends one row.
    fn push(&mut self, packet: &[u8]) -> Result<()> {
        self.bytes += packet.len() as u64;
        self.count += 1;
        let Self { schema, fields, builder, .. } = self;
        let mut input = Input(packet);
        let mut row = builder.row();
        for (at, field) in fields.iter().enumerate() {
            let text = input.field().ok_or_else(|| fault::malformed("reading a table"))?;
            let value = match text {
                None => Value::Null,
                Some(text) => values::from_text(field, text).map_err(|misfit| {
                    let shown = shown(fields, at, text);
                    let key =
                        |at: usize| key_field(packet, at).map(|text| shown_key(fields, at, text));
                    let reason = values::stop_reason(schema, at, misfit, &shown, key);
                    Error::table(schema.id.clone(), reason)
                })?,
            };
            if schema.key().contains(&at) {
                values::comparable(schema, at, &value)
                    .map_err(|reason| Error::table(schema.id.clone(), reason))?;
            }
            row.push(&value);
        }
        row.finish(Op::Read, None)
    }

    /// The key of the last row, as text.
    fn last_key(&self) -> Result<KeyText> {
        let keys = self.builder.keys();
        let last = match keys.len().checked_sub(1) {
            Some(at) => keys.get(at as u32),
            None => &self.last,
        };
        let text = key_texts(&self.schema, last);
        text.ok_or_else(|| Error::internal("a key has no text").with("table", &self.schema.id))
    }

    /// Hands on the rows read since the last time.
    async fn send(&mut self, send: &Parts) -> Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let keys = self.builder.keys();
        if let Some(at) = keys.len().checked_sub(1) {
            self.last = keys.get(at as u32).to_vec();
        }
        let next = self.builder.successor();
        let batch: Batch = std::mem::replace(&mut self.builder, next).finish();
        send_part(send, Part::Rows(batch)).await
    }
}

fn shown(fields: &[Field], at: usize, text: &[u8]) -> String {
    match fields.get(at).and_then(|field| field.charset.decode(text)) {
        Some(text) => values::shortened(&text),
        None => text.escape_ascii().to_string(),
    }
}

fn shown_key(fields: &[Field], at: usize, text: &[u8]) -> String {
    let value = fields.get(at).map(|field| values::from_text(field, text));
    match value {
        Some(Ok(value)) => values::shown(&value),
        _ => text.escape_ascii().to_string(),
    }
}

/// The text of column number `at` of a row.
fn key_field(packet: &[u8], at: usize) -> Option<&[u8]> {
    let mut input = Input(packet);
    for _ in 0..at {
        input.field()?;
    }
    input.field()?
}

/// Keys by themselves, in the schema's order of the key's columns.
struct Keys {
    schema: Arc<TableSchema>,
    fields: Vec<Field>,
}

impl Keys {
    fn new(schema: &Arc<TableSchema>, shared: &Shared) -> Result<Self> {
        Ok(Self { fields: Field::all(schema, &shared.charsets())?, schema: schema.clone() })
    }

    /// The key that a row of its columns is, as text.
    fn text(&mut self, packet: &[u8]) -> Result<KeyText> {
        let malformed = || fault::malformed("reading a key");
        let mut input = Input(packet);
        let mut row = vec![Value::Null; self.schema.columns.len()];
        for &at in self.schema.key() {
            let (field, text) =
                self.fields.get(at).zip(input.field().flatten()).ok_or_else(malformed)?;
            let value = values::from_text(field, text).map_err(|_| malformed())?;
            values::comparable(&self.schema, at, &value)
                .map_err(|reason| Error::table(self.schema.id.clone(), reason))?;
            *row.get_mut(at).ok_or_else(malformed)? = value;
        }
        let mut keys = crate::key::Keys::default();
        let number = keys.push(&self.schema, &row)?;
        key_texts(&self.schema, keys.get(number)).ok_or_else(malformed)
    }
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
