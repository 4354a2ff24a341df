//! Existing rows, read in chunks.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::connection::Connection;
use super::position::{Gtid, Gtids, Seen};
use super::server::lock;
use super::stream::values;
use super::table::{Cell, Row, Table};
use crate::batch::{Batch, Builder};
use crate::change::Op;
use crate::error::{Error, Result};
use crate::schema::{Identity, TableSchema};
use crate::source::{ChunkReader, KeyText, Part, Range, Rows, View};

/// Reads rows under views.
#[derive(Debug)]
pub struct ScriptedReader {
    connection: Connection,
}

/// Looks again a little later.
pub(super) async fn poll() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

impl ScriptedReader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Takes a view that is known to see all of `must_see`, and what it sees of `table`.
    async fn open(&self, table: &Arc<TableSchema>, must_see: &[Gtid]) -> Result<(Seen, Table)> {
        loop {
            self.connection.wait().await?;
            {
                let mut server = lock(&self.connection.server);
                let seen = server.seen();
                if must_see.iter().all(|gtid| seen.sees(gtid)) {
                    let mut state = server.view(|id| *id == table.id);
                    let rows = state.tables.remove(&table.id);
                    let rows = rows.filter(|rows| rows.schema == *table);
                    let rows = rows.ok_or_else(|| changed(table))?;
                    return Ok((seen, rows));
                }
            }
            poll().await;
        }
    }
}

fn changed(table: &TableSchema) -> Error {
    Error::table(table.id.clone(), "the table is gone or looks otherwise now")
}

/// How the database orders keys, which is not how Rust does (S10): by their bits, last one first,
/// and backwards.
fn order(key: i64) -> Reverse<u64> {
    Reverse((key as u64).reverse_bits())
}

fn key(row: &[Cell]) -> i64 {
    match row.first() {
        Some(Cell::Int(key)) => *key,
        _ => 0,
    }
}

fn text(key: i64) -> KeyText {
    vec![key.to_string()]
}

fn parse(text: &KeyText) -> Result<i64> {
    let key = text.first().and_then(|text| text.parse().ok());
    key.ok_or_else(|| Error::internal("a key's text is not an integer"))
}

fn bound(text: Option<&KeyText>) -> Result<Option<Reverse<u64>>> {
    Ok(text.map(parse).transpose()?.map(order))
}

fn by_key(rows: &Table) -> Result<Vec<&Row>> {
    if rows.schema.identity == Identity::FullRow {
        return Err(Error::internal("a table without a key has no ranges"));
    }
    let mut sorted: Vec<&Row> = rows.rows().collect();
    sorted.sort_by_key(|row| order(key(row)));
    Ok(sorted)
}

/// The rows asked for, and what is left of their range.
fn select(table: &Table, rows: &Rows, most: usize) -> Result<(Vec<Row>, Option<Range>)> {
    match rows {
        Rows::All => Ok((table.rows().cloned().collect(), None)),
        Rows::Keys(keys) => {
            let keys = keys.iter().map(parse).collect::<Result<Vec<_>>>()?;
            let all = by_key(table)?.into_iter();
            Ok((all.filter(|row| keys.contains(&key(row))).cloned().collect(), None))
        }
        Rows::Next(range) => {
            let (after, until) = (bound(range.after.as_ref())?, bound(range.until.as_ref())?);
            let mut all = by_key(table)?;
            all.retain(|row| {
                let at = order(key(row));
                after.is_none_or(|after| at > after) && until.is_none_or(|until| at <= until)
            });
            let more = all.len() > most;
            all.truncate(most);
            let last = all.last().filter(|_| more).map(|row| text(key(row)));
            let rest = last.map(|last| Range { after: Some(last), until: range.until.clone() });
            Ok((all.into_iter().cloned().collect(), rest))
        }
    }
}

fn batch(schema: &Arc<TableSchema>, rows: &[Row]) -> Result<Batch> {
    let mut builder = Builder::new(schema.clone());
    rows.iter().try_for_each(|row| builder.push(Op::Read, None, Some(&values(row))))?;
    Ok(builder.finish())
}

impl ChunkReader for ScriptedReader {
    type Position = Gtids;
    type View = Seen;

    async fn read(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Gtid],
        send: &Sender<Part<Gtids, Seen>>,
    ) -> Result<()> {
        let (seen, visible) = self.open(table, must_see).await?;
        let (chunk_rows, part_rows) = {
            let settings = &lock(&self.connection.server).settings;
            (settings.chunk_rows.max(1), settings.part_rows.max(1))
        };
        let (rows, rest) = select(&visible, &rows, chunk_rows)?;
        // Whoever hung up doesn't want to know; the same below.
        let _ = send.send(Part::Opened(seen)).await;
        for part in rows.chunks(part_rows) {
            self.connection.wait().await?;
            if lock(&self.connection.server).tears() {
                return Err(Error::unavailable("the connection was lost in a chunk"));
            }
            let _ = send.send(Part::Rows(batch(table, part)?)).await;
        }
        self.connection.wait().await?;
        let high = lock(&self.connection.server).end();
        let _ = send.send(Part::Closed { high, rest }).await;
        Ok(())
    }

    async fn split(&mut self, table: &Arc<TableSchema>, parts: usize) -> Result<Vec<Range>> {
        let (_, visible) = self.open(table, &[]).await?;
        let keys: Vec<i64> = by_key(&visible)?.into_iter().map(|row| key(row)).collect();
        let size = keys.len().div_ceil(parts.max(1)).max(1);
        let mut ranges = Vec::new();
        let mut after = None;
        for last in keys.chunks(size).filter_map(<[i64]>::last) {
            let until = Some(text(*last));
            ranges.push(Range { after: std::mem::replace(&mut after, until.clone()), until });
        }
        // The last range has no end: keys may come behind the last one.
        match ranges.last_mut() {
            Some(last) => last.until = None,
            None => ranges.push(Range::default()),
        }
        Ok(ranges)
    }
}
