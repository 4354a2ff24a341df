//! Events of the log: bytes → what they say (MySQL source documentation, "Binary log event
//! structure", and MariaDB's "Replication Protocol").

use std::io::{self, Read};

use bytes::{Buf, Bytes};

use super::gtid::Origin;
use super::image::Logged;
use super::input::Input;
use super::position::Gtid;
use super::xa::Xid;
use crate::error::{Error, Result};
use crate::schema::TableId;

/// The numbers of events.
pub mod kind {
    #![allow(missing_docs, reason = "each is the event of its name")]
    pub const QUERY: u8 = 2;
    pub const ROTATE: u8 = 4;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_WRITE_COMPRESSED_V1: u8 = 166;
    pub const MARIA_UPDATE_COMPRESSED_V1: u8 = 167;
    pub const MARIA_DELETE_COMPRESSED_V1: u8 = 168;
    pub const MARIA_WRITE_COMPRESSED: u8 = 169;
    pub const MARIA_UPDATE_COMPRESSED: u8 = 170;
    pub const MARIA_DELETE_COMPRESSED: u8 = 171;
}

/// Events that say nothing about rows: START, STOP, INTVAR, APPEND_BLOCK, DELETE_FILE, RAND,
/// USER_VAR, BEGIN_LOAD_QUERY, IGNORABLE, ROWS_QUERY, PREVIOUS_GTIDS, TRANSACTION_CONTEXT,
/// VIEW_CHANGE; MariaDB's ANNOTATE_ROWS, BINLOG_CHECKPOINT, GTID_LIST, START_ENCRYPTION.
const SILENT: [u8; 17] = [1, 3, 5, 9, 11, 13, 14, 17, 28, 29, 35, 36, 37, 160, 161, 163, 164];

/// The length of an event's header.
const HEADER: usize = 19;
/// LOG_EVENT_IGNORABLE_F: whoever doesn't know the event may pass over it.
const IGNORABLE: u16 = 0x80;

/// One event, without its header and checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which ([`kind`]).
    pub kind: u8,
    /// When it began, seconds of Unix time by the server's clock.
    pub seconds: u32,
    /// Which server it was first written by.
    pub server: u32,
    /// Flags.
    pub flags: u16,
    /// What it says.
    pub body: Bytes,
}

/// Whether events end in a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksums(pub bool);

impl Event {
    /// Reads one event, header and all, and compares its checksum.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it is not what the server wrote.
    pub fn parse(mut bytes: Bytes, checksums: &mut Checksums) -> Result<Self> {
        let broken = |what: &str| Error::unavailable(format!("an event of the log {what}"));
        let header = (|| {
            let mut input = Input(&bytes);
            let (seconds, kind) = (input.u32()?, input.u8()?);
            let server = input.u32()?;
            let length = input.u32()? as usize;
            input.u32()?;
            Some((seconds, kind, server, length, input.u16()?))
        })();
        let (seconds, kind, server, length, flags) =
            header.ok_or_else(|| broken("has no header"))?;
        if length != bytes.len() {
            return Err(broken("is of another length than it says").with("kind", kind));
        }
        // The description of the format always has one, and says whether the others do. Its last
        // byte before says how it is made; every server since 5.6 has it.
        let described = kind == kind::FORMAT_DESCRIPTION;
        if described {
            let how = bytes.len().checked_sub(5).and_then(|at| bytes.get(at));
            checksums.0 = how == Some(&1);
        }
        if checksums.0 || described {
            let end = bytes.len().checked_sub(4).filter(|end| *end >= HEADER);
            let end = end.ok_or_else(|| broken("has no checksum"))?;
            let written = Input(bytes.get(end..).unwrap_or_default()).u32();
            if checksums.0 && written != bytes.get(..end).map(crc32fast::hash) {
                return Err(broken("has another checksum than it says").with("kind", kind));
            }
            bytes.truncate(end);
        }
        bytes.advance(HEADER.min(bytes.len()));
        Ok(Self { kind, seconds, server, flags, body: bytes })
    }

    /// What it says.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it isn't in its form;
    /// [`Internal`](crate::ErrorKind::Internal) when it is of a kind that is not understood and may
    /// not be passed over.
    pub fn read(&self) -> Result<Said<'_>> {
        let malformed = || {
            let error = Error::unavailable("an event of the log is not in its form");
            error.with("kind", self.kind)
        };
        let body = &self.body[..];
        Ok(match self.kind {
            kind::QUERY => Said::Query(Query::read(body).ok_or_else(malformed)?),
            kind::EXECUTE_LOAD_QUERY => Said::Query(Query::read_load(body).ok_or_else(malformed)?),
            kind::XID => Said::Commit,
            kind::TABLE_MAP => Said::TableMap(TableMap::read(body).ok_or_else(malformed)?),
            kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
            | kind::PARTIAL_UPDATE_ROWS => {
                Said::Rows(Rows::read(self.kind, body).ok_or_else(malformed)?)
            }
            kind::GTID => Said::Begin(gtid(body).ok_or_else(malformed)?, Unit::Unknown),
            kind::GTID_TAGGED => Said::Begin(tagged(body).ok_or_else(malformed)?, Unit::Unknown),
            kind::MARIA_GTID => maria_gtid(self.server, body).ok_or_else(malformed)?,
            kind::ANONYMOUS_GTID => Said::Anonymous,
            kind::XA_PREPARE => {
                let (one_phase, xid) = Xid::of_event(body).ok_or_else(malformed)?;
                Said::Prepare { xid, one_phase }
            }
            kind::INCIDENT => Said::Incident,
            kind::FORMAT_DESCRIPTION => Said::Format,
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => Said::Alive,
            kind::ROTATE => Said::Nothing,
            known if SILENT.contains(&known) => Said::Nothing,
            _ if self.flags & IGNORABLE != 0 => Said::Nothing,
            unknown => {
                return Err(Error::internal("the log holds an event that is not understood")
                    .with("kind", unknown)
                    .remedy("turn off the feature of the server that writes it"));
            }
        })
    }
}

/// What an event says.
#[derive(Debug, PartialEq)]
pub enum Said<'a> {
    /// A transaction begins.
    Begin(Gtid, Unit),
    /// One without an identity begins.
    Anonymous,
    /// A statement.
    Query(Query<'a>),
    /// What a table looks like whose rows follow.
    TableMap(TableMap<'a>),
    /// Rows came, changed or went.
    Rows(Rows<'a>),
    /// The transaction ends, committed.
    Commit,
    /// The transaction ends, and whether it is committed is said later (XA).
    Prepare {
        /// Its name.
        xid: Xid,
        /// Whether it is committed with that.
        one_phase: bool,
    },
    /// The server lost a part of its log.
    Incident,
    /// The server begins to send another file: table numbers mean nothing any more.
    Format,
    /// The server is there.
    Alive,
    /// Nothing about rows.
    Nothing,
}

/// What a transaction's first event tells about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The next event tells.
    Unknown,
    /// It is one statement, without an end of its own (MariaDB's FL_STANDALONE).
    Statement,
    /// It is open until its end comes (MariaDB has no BEGIN).
    Open,
    /// It is open, and whether it is committed is said later (XA).
    Prepared,
}

/// Flags, UUID, number ("Gtid_event").
fn gtid(body: &[u8]) -> Option<Gtid> {
    let mut input = Input(body);
    input.u8()?;
    let uuid = input.array()?;
    Some(Gtid::MySql(Origin { uuid, tag: String::new() }, input.u64()?))
}

/// A GTID with a tag, in the server's own serialization of numbered fields (MySQL source
/// documentation, "mysql::serialization"): version, size, number of the last field that must be
/// understood, then fields, each after its number.
fn tagged(body: &[u8]) -> Option<Gtid> {
    let mut input = Input(body);
    for _ in 0..3 {
        packed(&mut input)?;
    }
    let (mut uuid, mut number, mut tag) = (None, None, None);
    while number.is_none() || tag.is_none() || uuid.is_none() {
        match packed(&mut input)? {
            0 => {
                packed(&mut input)?;
            }
            1 => {
                let mut bytes = [0; 16];
                for byte in &mut bytes {
                    *byte = u8::try_from(packed(&mut input)?).ok()?;
                }
                uuid = Some(bytes);
            }
            2 => number = Some(zigzag(packed(&mut input)?)),
            3 => {
                let length = usize::try_from(packed(&mut input)?).ok()?;
                tag = Some(std::str::from_utf8(input.bytes(length)?).ok()?.to_owned());
            }
            _ => return None,
        }
    }
    Some(Gtid::MySql(Origin { uuid: uuid?, tag: tag? }, u64::try_from(number?).ok()?))
}

/// A number whose first byte's trailing ones say how many bytes follow.
fn packed(input: &mut Input<'_>) -> Option<u64> {
    let first = *input.0.first()?;
    let more = first.trailing_ones() as usize;
    if more == 8 {
        input.u8()?;
        return input.u64();
    }
    Some(input.unsigned(more + 1)? >> (more + 1))
}

/// A signed number: its sign is the last bit.
fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Number, domain, flags; who made it is in the event's header.
fn maria_gtid(server: u32, body: &[u8]) -> Option<Said<'static>> {
    const STANDALONE: u8 = 1;
    const PREPARED_XA: u8 = 64;
    let mut input = Input(body);
    let (number, domain, flags) = (input.u64()?, input.u32()?, input.u8()?);
    let unit = match flags {
        flags if flags & PREPARED_XA != 0 => Unit::Prepared,
        flags if flags & STANDALONE != 0 => Unit::Statement,
        _ => Unit::Open,
    };
    Some(Said::Begin(Gtid::MariaDb { domain, server, number }, unit))
}

/// A statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The database it was run in.
    pub schema: &'a [u8],
    /// The statement.
    pub text: &'a [u8],
}

impl<'a> Query<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        Self::after(body, 0)
    }

    /// A LOAD DATA: thirteen bytes more before the status variables.
    fn read_load(body: &'a [u8]) -> Option<Self> {
        Self::after(body, 13)
    }

    fn after(body: &'a [u8], more: usize) -> Option<Self> {
        let mut input = Input(body);
        input.bytes(8)?;
        let schema = usize::from(input.u8()?);
        input.u16()?;
        let status = usize::from(input.u16()?);
        input.bytes(more)?;
        input.bytes(status)?;
        let schema = input.bytes(schema)?;
        input.u8()?;
        Some(Self { schema, text: input.rest() })
    }
}

/// What a table looks like whose rows follow.
#[derive(Debug, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// The table's number in this file.
    pub number: u64,
    /// Which table.
    pub table: TableId,
    /// Its columns' types.
    pub columns: Vec<Logged>,
    /// Optional metadata (binlog_row_metadata).
    metadata: &'a [u8],
}

impl<'a> TableMap<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let mut input = Input(body);
        let number = input.unsigned(6)?;
        input.u16()?;
        let schema = usize::from(input.u8()?);
        let schema = String::from_utf8_lossy(input.bytes(schema)?).into_owned();
        input.u8()?;
        let name = usize::from(input.u8()?);
        let name = String::from_utf8_lossy(input.bytes(name)?).into_owned();
        input.u8()?;
        let count = usize::try_from(input.length()?).ok()?;
        let codes = input.bytes(count)?;
        let mut meta = Input(input.counted()?);
        let columns = codes.iter().map(|code| Logged::read(*code, &mut meta));
        let columns = columns.collect::<Option<_>>()?;
        // Which columns may be null.
        input.bytes(count.div_ceil(8))?;
        Some(Self { number, table: TableId::new(schema, name), columns, metadata: input.rest() })
    }

    /// The names of the columns, where the log has them (`binlog_row_metadata = FULL`).
    pub fn names(&self) -> Option<Vec<String>> {
        const COLUMN_NAME: u8 = 4;
        let mut input = Input(self.metadata);
        while let Some(kind) = input.u8() {
            let mut field = Input(input.counted()?);
            if kind == COLUMN_NAME {
                let mut names = Vec::with_capacity(self.columns.len());
                while !field.0.is_empty() {
                    names.push(String::from_utf8_lossy(field.counted()?).into_owned());
                }
                return Some(names);
            }
        }
        None
    }
}

/// What happened to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// They came.
    Write,
    /// They changed.
    Update,
    /// They went.
    Delete,
    /// They changed, and of JSON values only the changes are said.
    PartialUpdate,
}

/// Rows of one table. Compressed ones have been expanded before.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// The table's number.
    pub number: u64,
    /// What happened.
    pub deed: Deed,
    /// How many columns the table has.
    pub columns: usize,
    /// Which columns the images before hold, one bit a column; of a write those after.
    pub present: &'a [u8],
    /// Which columns the images after an update hold.
    pub present_after: &'a [u8],
    /// The images.
    pub images: &'a [u8],
}

impl<'a> Rows<'a> {
    fn read(kind: u8, body: &'a [u8]) -> Option<Self> {
        let deed = match kind {
            kind::WRITE_ROWS | kind::WRITE_ROWS_V1 => Deed::Write,
            kind::UPDATE_ROWS | kind::UPDATE_ROWS_V1 => Deed::Update,
            kind::PARTIAL_UPDATE_ROWS => Deed::PartialUpdate,
            _ => Deed::Delete,
        };
        let mut input = Input(body);
        let number = input.unsigned(6)?;
        input.u16()?;
        if kind >= kind::WRITE_ROWS {
            // Extra data, whose length counts itself.
            let extra = usize::from(input.u16()?);
            input.bytes(extra.checked_sub(2)?)?;
        }
        let columns = usize::try_from(input.length()?).ok()?;
        let bitmap = columns.div_ceil(8);
        let present = input.bytes(bitmap)?;
        let present_after = match deed {
            Deed::Update | Deed::PartialUpdate => input.bytes(bitmap)?,
            _ => present,
        };
        Some(Self { number, deed, columns, present, present_after, images: input.rest() })
    }
}

/// Whether bit number `at` of a bitmap is set.
#[inline]
pub fn bit(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

/// An event of MariaDB whose statement or rows are compressed, as it would be without.
///
/// # Errors
/// [`Unavailable`](crate::ErrorKind::Unavailable) when it isn't in its form.
pub fn expand(event: Event) -> Result<Event> {
    let malformed = || Error::unavailable("a compressed event of the log can't be expanded");
    let (kind, head) = match event.kind {
        kind::MARIA_QUERY_COMPRESSED => {
            let query = Query::read(&event.body).ok_or_else(malformed)?;
            (kind::QUERY, event.body.len() - query.text.len())
        }
        compressed @ kind::MARIA_WRITE_COMPRESSED_V1..=kind::MARIA_DELETE_COMPRESSED => {
            let kind = match compressed {
                ..=kind::MARIA_DELETE_COMPRESSED_V1 => {
                    compressed - kind::MARIA_WRITE_COMPRESSED_V1 + kind::WRITE_ROWS_V1
                }
                _ => compressed - kind::MARIA_WRITE_COMPRESSED + kind::WRITE_ROWS,
            };
            let rows = Rows::read(kind, &event.body).ok_or_else(malformed)?;
            (kind, event.body.len() - rows.images.len())
        }
        _ => return Ok(event),
    };
    let (head, compressed) = event.body.split_at_checked(head).ok_or_else(malformed)?;
    let mut body = head.to_vec();
    inflate(compressed, &mut body).ok_or_else(malformed)?;
    Ok(Event { kind, body: body.into(), ..event })
}

/// MariaDB's form: a byte that says how (zlib) and how long the length is, the length, the data.
fn inflate(compressed: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut input = Input(compressed);
    let head = input.u8()?;
    if head & 0x80 == 0 || (head & 0x70) >> 4 != 0 {
        return None;
    }
    let length = input.unsigned_big(usize::from(head & 7))?;
    let before = out.len() as u64;
    flate2::read::ZlibDecoder::new(input.rest()).take(length + 1).read_to_end(out).ok()?;
    (out.len() as u64 - before == length).then_some(())
}

/// The events inside a TRANSACTION_PAYLOAD, one after the other, so that no more of it than one
/// event is in memory unpacked.
pub struct Payload {
    reader: Box<dyn Read + Send>,
}

impl Payload {
    /// Opens the payload that is `body`: fields of number, length and value until one of number 0,
    /// then the payload ("Transaction_payload_event").
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it isn't in its form.
    pub fn open(body: &Bytes) -> Result<Self> {
        let malformed =
            || Error::unavailable("a compressed transaction of the log is not in its form");
        const END: u64 = 0;
        const SIZE: u64 = 1;
        const COMPRESSION: u64 = 2;
        let (mut compression, mut size) = (None, None);
        let mut input = Input(body);
        loop {
            let field = input.length().ok_or_else(malformed)?;
            if field == END {
                break;
            }
            let mut value = Input(input.counted().ok_or_else(malformed)?);
            match field {
                SIZE => size = value.length(),
                COMPRESSION => compression = value.length(),
                _ => {}
            }
        }
        let start = body.len() - input.0.len();
        let length = size.and_then(|size| usize::try_from(size).ok()).ok_or_else(malformed)?;
        let end = start.checked_add(length).filter(|end| *end <= body.len());
        let packed = body.slice(start..end.ok_or_else(malformed)?).reader();
        let reader: Box<dyn Read + Send> = match compression {
            Some(0) => Box::new(
                zstd::stream::read::Decoder::with_buffer(packed)
                    .map_err(|error| malformed().caused_by(error))?,
            ),
            Some(255) => Box::new(packed),
            _ => return Err(malformed()),
        };
        Ok(Self { reader })
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let failed = |error: io::Error| {
            Error::unavailable("a compressed transaction of the log can't be expanded")
                .caused_by(error)
        };
        let mut head = [0; HEADER];
        // Nothing left is the end; a part of a header is not.
        if self.reader.read(&mut head[..1]).map_err(failed)? == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut head[1..]).map_err(failed)?;
        let length = Input(head.get(9..).unwrap_or_default()).u32().unwrap_or_default() as usize;
        let rest = length.saturating_sub(HEADER);
        let mut bytes = head.to_vec();
        let read =
            self.reader.by_ref().take(rest as u64).read_to_end(&mut bytes).map_err(failed)?;
        if read != rest {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Event::parse(bytes.into(), &mut Checksums(false)).map(Some)
    }
}

#[cfg(test)]
mod tests;
