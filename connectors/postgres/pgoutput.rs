//! The messages of Postgres' `pgoutput` plugin, borrowed from the bytes they came in.
//!
//! PostgreSQL docs §55.9, "Logical Replication Message Formats", protocol versions 1 and 2 without
//! streaming of transactions in progress and without two-phase commit: those messages come only
//! when asked for, so here they are errors.

use crate::change::Op;
use crate::error::{Error, Result};

/// One message.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    Begin {
        final_lsn: u64,
        micros: i64,
        xid: u32,
    },
    Commit {
        end_lsn: u64,
        micros: i64,
    },
    Relation(RelationMessage),
    Row(Row<'a>),
    Truncate(Vec<u32>),
    /// Type, Origin, and Message: nothing that changes rows.
    Other,
}

/// What a table looks like from here on in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationMessage {
    /// The table's object id.
    pub oid: u32,
    /// Its schema.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relreplident`: `d`, `f`, `i` or `n`.
    pub replica_identity: u8,
    /// Its columns, in the order of their values in a tuple.
    pub columns: Vec<RelationColumn>,
}

/// One column of a [`RelationMessage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub typmod: i32,
}

/// An insert, update or delete.
#[derive(Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub oid: u32,
    pub op: Op,
    pub old: Option<Old<'a>>,
    pub new: Option<Tuple<'a>>,
}

/// The row before the change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Old<'a> {
    /// All columns were sent (`O`), not only those of the identity (`K`), whose others are null.
    pub whole: bool,
    pub tuple: Tuple<'a>,
}

/// The values of a row, not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tuple<'a> {
    pub count: u16,
    fields: Reader<'a>,
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Null,
    /// An out-of-line (TOAST) value that the update left as it was.
    Unchanged,
    Text(&'a [u8]),
}

impl<'a> Message<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self> {
        parse(payload).ok_or_else(|| malformed(payload))
    }
}

/// The error for a message whose bytes are not what its type says.
pub(super) fn malformed(payload: &[u8]) -> Error {
    let kind = payload.first().copied().unwrap_or(b'?').escape_ascii();
    Error::internal(format!("pgoutput message '{kind}' of {} bytes is malformed", payload.len()))
}

fn parse(payload: &[u8]) -> Option<Message<'_>> {
    let mut bytes = Reader(payload);
    let message = match bytes.u8()? {
        b'I' => {
            let oid = bytes.u32()?;
            bytes.expect(b'N')?;
            Message::Row(Row { oid, op: Op::Insert, old: None, new: Some(bytes.tuple()?) })
        }
        b'U' => update(&mut bytes)?,
        b'D' => {
            let oid = bytes.u32()?;
            let whole = is_whole(bytes.u8()?)?;
            let old = Old { whole, tuple: bytes.tuple()? };
            Message::Row(Row { oid, op: Op::Delete, old: Some(old), new: None })
        }
        b'B' => {
            let final_lsn = bytes.u64()?;
            let micros = unix_micros(bytes.u64()? as i64);
            Message::Begin { final_lsn, micros, xid: bytes.u32()? }
        }
        b'C' => {
            let _flags = bytes.u8()?;
            let _commit_lsn = bytes.u64()?;
            let end_lsn = bytes.u64()?;
            Message::Commit { end_lsn, micros: unix_micros(bytes.u64()? as i64) }
        }
        b'R' => Message::Relation(relation(&mut bytes)?),
        b'T' => {
            let count = bytes.u32()?;
            let _options = bytes.u8()?;
            Message::Truncate((0..count).map(|_| bytes.u32()).collect::<Option<_>>()?)
        }
        b'Y' | b'O' | b'M' => Message::Other,
        _ => return None,
    };
    Some(message)
}

fn update<'a>(bytes: &mut Reader<'a>) -> Option<Message<'a>> {
    let oid = bytes.u32()?;
    let old = match bytes.u8()? {
        b'N' => None,
        tag => {
            let old = Old { whole: is_whole(tag)?, tuple: bytes.tuple()? };
            bytes.skip(old.tuple.count)?;
            bytes.expect(b'N')?;
            Some(old)
        }
    };
    Some(Message::Row(Row { oid, op: Op::Update, old, new: Some(bytes.tuple()?) }))
}

fn is_whole(tag: u8) -> Option<bool> {
    match tag {
        b'O' => Some(true),
        b'K' => Some(false),
        _ => None,
    }
}

fn relation(bytes: &mut Reader<'_>) -> Option<RelationMessage> {
    let oid = bytes.u32()?;
    let namespace = match bytes.text()? {
        namespace if namespace.is_empty() => "pg_catalog".to_owned(),
        namespace => namespace,
    };
    let name = bytes.text()?;
    let replica_identity = bytes.u8()?;
    let column = |bytes: &mut Reader<'_>| {
        let key = bytes.u8()? & 1 == 1;
        let name = bytes.text()?;
        Some(RelationColumn { key, name, type_oid: bytes.u32()?, typmod: bytes.u32()? as i32 })
    };
    let count = bytes.u16()?;
    let columns = (0..count).map(|_| column(bytes)).collect::<Option<_>>()?;
    Some(RelationMessage { oid, namespace, name, replica_identity, columns })
}

/// Postgres counts microseconds from 2000-01-01.
fn unix_micros(micros: i64) -> i64 {
    micros.saturating_add(946_684_800_000_000)
}

impl<'a> Tuple<'a> {
    /// The next value; `None` when the bytes are malformed (or there are no more).
    pub(super) fn next_field(&mut self) -> Option<Field<'a>> {
        self.fields.field()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    #[inline]
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn expect(&mut self, tag: u8) -> Option<()> {
        (self.u8()? == tag).then_some(())
    }

    /// A text that ends in a zero byte.
    fn text(&mut self) -> Option<String> {
        let end = memchr::memchr(0, self.0)?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        String::from_utf8(text.to_vec()).ok()
    }

    fn tuple(&mut self) -> Option<Tuple<'a>> {
        Some(Tuple { count: self.u16()?, fields: *self })
    }

    /// Skips the fields of a tuple of which only the head was read.
    fn skip(&mut self, fields: u16) -> Option<()> {
        (0..fields).try_for_each(|_| self.field().map(|_| ()))
    }

    #[inline]
    fn field(&mut self) -> Option<Field<'a>> {
        match self.u8()? {
            b't' => {
                let length = self.u32()? as usize;
                let (text, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Some(Field::Text(text))
            }
            b'n' => Some(Field::Null),
            b'u' => Some(Field::Unchanged),
            // 'b', binary, comes only when asked for.
            _ => None,
        }
    }
}
