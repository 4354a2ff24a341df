//! Reads existing documents, chunk by chunk.
//!
//! A chunk is one `find` along the `_id` index with read concern majority, in this order:
//! 1. The time up to which majority reads see everything (`majorityOpTime`). The `find` is told to
//!    see at least that (`afterClusterTime`), so it is a lower bound of what each document shows,
//!    and what the chunk's view is known to see. Transactions that the stream has delivered are
//!    committed by a majority, so the bound is past them at once, or after a short wait (S4).
//! 2. The documents. A document may also show a later change; the stream delivers that change, too,
//!    with the whole document, so the pipeline drops the chunk's row for the stream's (S2).
//! 3. The time again: the high mark, after everything that was read (S3).
//!
//! Bounds are `$expr` comparisons, which order values of different types as the index does (plain
//! `$gt` and `$lte` keep to the type of the bound) and use the index (MongoDB manual, "$expr"). The
//! server compares, always (S10).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mongodb::bson::{Bson, Document, doc};
use tokio::sync::mpsc::Sender;

use super::catalog;
use super::connection::{Server, read_concern};
use super::element::find;
use super::layout::{Layout, Misfit, Room};
use super::position::{Position, Time, Visible};
use super::shape::Shapes;
use crate::batch::Builder;
use crate::change::Op;
use crate::error::{Error, Result};
use crate::schema::{TableId, TableSchema};
use crate::source::{ChunkReader, KeyText, Part, Range, Rows, View};

/// Rows are handed on in batches of about this many bytes.
const PART_BYTES: usize = 4_000_000;
/// A chunk is read for about this long.
const CHUNK_TIME: Duration = Duration::from_secs(1);
/// A collection of fewer documents is read in one range.
const ROWS_WORTH_SPLITTING: u64 = 20_000;
/// How many sampled keys each range is worth.
const KEYS_A_RANGE: usize = 20;
/// How long the whole collection may be looked through for what its sample did not show.
const LEARNING: Duration = Duration::from_secs(300);
/// About how many bytes a reply of the server holds.
const REPLY_BYTES: f64 = 2_000_000.0;

type Parts = Sender<Part<Position, Visible>>;

/// Reads chunks.
pub struct Reader {
    server: Server,
    shapes: Shapes,
    /// What a chunk's documents take, about, as the server sends them.
    chunk_bytes: usize,
    /// How many bytes a document of a table takes, by what has been read.
    widths: HashMap<TableId, f64>,
    room: Room,
}

/// How the reading of a cursor ended.
struct Read {
    /// The `_id` of the last document, where there are more.
    last: Option<String>,
}

impl Reader {
    /// A reader of `server`, whose chunks take about `chunk_bytes`.
    pub fn new(server: Server, shapes: Shapes, chunk_bytes: usize) -> Self {
        let (widths, room) = (HashMap::new(), Room::default());
        Self { server, shapes, chunk_bytes: chunk_bytes.max(1), widths, room }
    }

    /// A time that is past all of `must_see`, up to which majority reads see everything.
    async fn view(&self, must_see: &[Time]) -> Result<Visible> {
        let mut pause = Duration::from_millis(20);
        loop {
            let view = Visible { since: self.server.majority().await? };
            if must_see.iter().all(|time| view.sees(time)) {
                return Ok(view);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn read_chunk(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Time],
        send: &Parts,
    ) -> Result<()> {
        let layout = Layout::new(table.clone(), self.shapes.limits())?;
        let view = self.view(must_see).await?;
        send_part(send, Part::Opened(view)).await?;
        let (filter, most, range) = match rows {
            Rows::Next(range) => (within(&layout, &range)?, self.chunk_bytes, Some(range)),
            Rows::Keys(keys) => (among(&layout, &keys)?, usize::MAX, None),
            Rows::All => (Document::new(), usize::MAX, None),
        };
        let read = self.read_rows(&layout, filter, view, most, send).await?;
        let high = Position::at(self.server.majority().await?);
        let rest = range
            .zip(read.last)
            .map(|(range, last)| Range { after: Some(vec![last]), until: range.until });
        send_part(send, Part::Closed { high, rest }).await
    }

    /// Sends the documents that match, up to about `most` bytes of them.
    async fn read_rows(
        &mut self,
        layout: &Layout,
        filter: Document,
        view: Visible,
        most: usize,
        send: &Parts,
    ) -> Result<Read> {
        let id = &layout.schema().id;
        let batch = self.batch(id);
        let command = doc! {
            "find": &id.name,
            "filter": filter,
            "sort": { "_id": 1 },
            "hint": { "_id": 1 },
            "batchSize": i64::from(batch),
            "readConcern": read_concern(view.since),
            "comment": "lakeward",
        };
        let mut cursor =
            self.server.cursor("reading a collection", &id.schema, command, batch, None).await?;
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        let mut builder = Builder::new(layout.schema().clone());
        let (mut bytes, mut count) = (0, 0_usize);
        while let Some(reply) = cursor.next().await? {
            let documents = reply.documents().len();
            for (at, document) in reply.documents().enumerate() {
                let appended = layout.append(Op::Read, &document, &mut builder, &mut self.room);
                if let Err(misfit) = appended {
                    return Err(self.misfit(layout, &document, misfit).await);
                }
                (bytes, count) = (bytes + document.len(), count + 1);
                if builder.size() >= PART_BYTES {
                    let next = builder.successor();
                    let part = std::mem::replace(&mut builder, next).finish();
                    let began = Instant::now();
                    send_part(send, Part::Rows(part)).await?;
                    waited += began.elapsed();
                }
                let enough =
                    bytes >= most || (at + 1 == documents && began.elapsed() > CHUNK_TIME + waited);
                if enough && most < usize::MAX {
                    self.learn_width(id, bytes, count);
                    send_rest(builder, send).await?;
                    return Ok(Read { last: Some(key_text(layout, &document)?) });
                }
            }
        }
        self.learn_width(id, bytes, count);
        send_rest(builder, send).await?;
        Ok(Read { last: None })
    }

    /// How many documents a reply may hold.
    fn batch(&self, id: &TableId) -> u32 {
        let width = self.widths.get(id).copied().unwrap_or(2_000.0);
        let bytes = REPLY_BYTES.min(self.chunk_bytes as f64);
        (bytes / width.max(1.0)).clamp(1.0, 20_000.0) as u32
    }

    fn learn_width(&mut self, id: &TableId, bytes: usize, count: usize) {
        if count > 0 {
            self.widths.insert(id.clone(), bytes as f64 / count as f64);
        }
    }

    /// The error for a document that is no row: its table is read again by a shape that holds it.
    async fn misfit(&self, layout: &Layout, document: &[u8], misfit: Misfit) -> Error {
        let id = layout.schema().id.clone();
        if let Misfit::Stop(reason) = misfit {
            return Error::table(id, reason);
        }
        if let Err(malformed) = self.shapes.learn(&id, [document]) {
            return Error::table(id, "a document can't be read").caused_by(malformed);
        }
        // Once for all that the sample did not show, or else the next document may be another one.
        if let Err(error) = self.learn_all(&id).await {
            tracing::warn!(table = %id, error = error.full(), "not all documents were looked at");
        }
        Error::table(id, "documents have fields, or values of kinds, that its sample did not show")
    }

    /// Learns from all documents of a collection.
    async fn learn_all(&self, id: &TableId) -> Result<()> {
        let command = doc! {
            "find": &id.name,
            "readConcern": { "level": "majority" },
            "comment": "lakeward",
        };
        let began = Instant::now();
        let batch = self.batch(id);
        let doing = "looking through a collection";
        let mut cursor = self.server.cursor(doing, &id.schema, command, batch, None).await?;
        while let Some(reply) = cursor.next().await? {
            for document in reply.documents() {
                // What can't be read stops its table when it is read.
                let _ = self.shapes.learn(id, [&document[..]]);
            }
            if began.elapsed() > LEARNING {
                return Err(Error::unavailable("it took too long"));
            }
        }
        Ok(())
    }
}

/// The documents above the range's `after` and up to its `until`.
fn within(layout: &Layout, range: &Range) -> Result<Document> {
    let bound = |operator: &str, key: &KeyText| -> Result<Bson> {
        let literal = doc! { "$literal": key_bson(layout, key)? };
        Ok(doc! { operator: ["$_id", literal] }.into())
    };
    let mut all = Vec::new();
    for (operator, key) in [("$gt", &range.after), ("$lte", &range.until)] {
        if let Some(key) = key {
            all.push(bound(operator, key)?);
        }
    }
    Ok(match all.is_empty() {
        true => Document::new(),
        false => doc! { "$expr": { "$and": all } },
    })
}

/// The documents of these keys.
fn among(layout: &Layout, keys: &[KeyText]) -> Result<Document> {
    let keys = keys.iter().map(|key| key_bson(layout, key)).collect::<Result<Vec<_>>>()?;
    Ok(doc! { "_id": { "$in": keys } })
}

fn key_bson(layout: &Layout, key: &KeyText) -> Result<Bson> {
    let text = key.first().ok_or_else(|| Error::internal("a key has no text"))?;
    layout.id().bson(text)
}

fn key_text(layout: &Layout, document: &[u8]) -> Result<String> {
    let id = find(document, "_id").ok().flatten();
    let text = id.and_then(|id| Some(layout.id().text(&id).ok()?.into_owned()));
    text.ok_or_else(|| Error::internal("a document that was a row has no _id"))
}

async fn send_rest(builder: Builder, send: &Parts) -> Result<()> {
    match builder.is_empty() {
        true => Ok(()),
        false => send_part(send, Part::Rows(builder.finish())).await,
    }
}

async fn send_part(send: &Parts, part: Part<Position, Visible>) -> Result<()> {
    send.send(part).await.map_err(|_| Error::unavailable("nobody waits for the chunk any more"))
}

impl ChunkReader for Reader {
    type Position = Position;
    type View = Visible;

    async fn read(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[Time],
        send: &Parts,
    ) -> Result<()> {
        self.read_chunk(table, rows, must_see, send).await
    }

    async fn split(&mut self, table: &Arc<TableSchema>, parts: usize) -> Result<Vec<Range>> {
        let whole = vec![Range::default()];
        if parts < 2 || catalog::count(&self.server, &table.id).await? < ROWS_WORTH_SPLITTING {
            return Ok(whole);
        }
        let layout = Layout::new(table.clone(), self.shapes.limits())?;
        let keys = catalog::keys(&self.server, &table.id, parts * KEYS_A_RANGE).await?;
        let step = (keys.len() / parts).max(1);
        let (mut ranges, mut after) = (Vec::new(), None::<KeyText>);
        for key in keys.iter().skip(step).step_by(step).take(parts - 1) {
            let id = find(key, "_id").ok().flatten();
            // A key of another kind than the table's is met, and learned, when it is read.
            let fits = id.filter(|id| matches!(layout.id().value(id), Ok(Some(_))));
            let Some(text) = fits.and_then(|id| Some(layout.id().text(&id).ok()?.into_owned()))
            else {
                continue;
            };
            let until = Some(vec![text]);
            if until != after {
                ranges.push(Range { after: std::mem::replace(&mut after, until.clone()), until });
            }
        }
        ranges.push(Range { after, until: None });
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Limits, Shape};
    use super::*;

    fn layout() -> Layout {
        let limits = Limits { columns: 1, document: true };
        let schema = Shape::new(limits).schema(&TableId::new("d", "c"));
        Layout::new(Arc::new(schema), limits).unwrap()
    }

    #[test]
    fn a_range_is_compared_by_the_server() {
        let key = |text: &str| Some(vec![text.repeat(12)]);
        let range = Range { after: key("00"), until: key("ff") };
        let filter = within(&layout(), &range).unwrap().to_string();
        assert!(filter.contains("$gt") && filter.contains("$lte"), "{filter}");
        assert!(filter.contains("$literal") && filter.contains("ffffffffffffffffffffffff"));
        assert!(within(&layout(), &Range::default()).unwrap().is_empty());
        let broken = Range { after: Some(vec!["no".to_owned()]), until: None };
        assert!(within(&layout(), &broken).is_err());
    }
}
