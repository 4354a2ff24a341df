//! A connection: packets, statements and their rows (MySQL documentation, "Client/Server Protocol").
//!
//! Rows are handed out as the bytes they came in, so that a decoder may borrow its values from
//! them; and the same connection, told so, hands out the events of the log.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::fault::{self, Reply};
use super::input::Input;
use crate::error::{Error, Result};
use crate::socket::Socket;

/// The longest payload of one packet; what is longer comes in several.
const FULL: usize = 0xff_ffff;
/// How much is read at one go.
const READ: usize = 128 << 10;
/// How long the server may take to say anything to a statement that reads no rows.
const ANSWER: Duration = Duration::from_secs(120);

/// The two kinds of server, which share a protocol and part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL and what is built from it.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        })
    }
}

/// One row of text.
pub type Row = Vec<Option<String>>;

/// A connection.
pub struct Connection {
    pub(super) socket: Socket,
    input: BytesMut,
    sequence: u8,
    /// The first parts of a packet that comes in several.
    partial: BytesMut,
    /// Rows of an answer have not all been read.
    unread: bool,
    /// What kind of server it is.
    pub flavor: Flavor,
    /// Its version.
    pub version: [u32; 3],
}

impl Connection {
    pub(super) fn over(socket: Socket) -> Self {
        Self {
            socket,
            input: BytesMut::with_capacity(READ),
            sequence: 0,
            partial: BytesMut::new(),
            unread: false,
            flavor: Flavor::MySql,
            version: [0; 3],
        }
    }

    /// The same connection, over what `wrap` makes of its socket.
    pub(super) async fn wrapped(
        self,
        wrap: impl AsyncFnOnce(Socket) -> Result<Socket>,
    ) -> Result<Self> {
        Ok(Self { socket: wrap(self.socket).await?, ..self })
    }

    /// Whether rows of an answer have not all been read: the connection is of no more use.
    pub fn is_busy(&self) -> bool {
        self.unread
    }

    /// A packet out of what has been read; `None` when there is no whole one.
    pub(super) fn take_packet(&mut self) -> Option<Bytes> {
        loop {
            let length = usize::try_from(Input(&self.input).unsigned(3)?).ok()?;
            let payload = self.input.get(4..4 + length);
            if payload.is_none() {
                self.input.reserve((4 + length).saturating_sub(self.input.len()));
                return None;
            }
            self.sequence = self.input[3].wrapping_add(1);
            self.input.advance(4);
            let payload = self.input.split_to(length);
            if length == FULL {
                self.partial.extend_from_slice(&payload);
            } else if self.partial.is_empty() {
                return Some(payload.freeze());
            } else {
                self.partial.extend_from_slice(&payload);
                return Some(std::mem::take(&mut self.partial).freeze());
            }
        }
    }

    /// Reads what is there, waiting for something; the number of bytes.
    pub(super) async fn fill(&mut self) -> std::io::Result<usize> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match self.socket.read_buf(&mut self.input).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        }
    }

    pub(super) async fn packet(&mut self, doing: &str) -> Result<Bytes> {
        loop {
            if let Some(packet) = self.take_packet() {
                return Ok(packet);
            }
            self.fill().await.map_err(|error| fault::io(doing, error))?;
        }
    }

    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut framed = Vec::with_capacity(payload.len() + 4);
        let mut parts = payload.chunks(FULL).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            framed.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            framed.push(self.sequence);
            framed.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            if part.len() < FULL {
                break;
            }
        }
        let sent = async {
            self.socket.write_all(&framed).await?;
            self.socket.flush().await
        };
        sent.await.map_err(|error| fault::io("sending a command", error))
    }

    /// Sends a command, whose first byte says which.
    pub(super) async fn command(&mut self, payload: &[u8]) -> Result<()> {
        if self.unread {
            return Err(Error::unavailable("an answer before was not read to its end"));
        }
        self.sequence = 0;
        self.send(payload).await
    }

    /// Waits for the OK packet that answers a command.
    pub(super) async fn acknowledged(&mut self, doing: &str) -> Result<()> {
        let packet = self.answer(doing).await?;
        match packet.first() {
            Some(0 | 0xfe) => Ok(()),
            Some(0xff) => Err(fault::server(doing, Reply::parse(&packet))),
            _ => Err(fault::malformed(doing)),
        }
    }

    async fn answer(&mut self, doing: &str) -> Result<Bytes> {
        match timeout(ANSWER, self.packet(doing)).await {
            Ok(packet) => packet,
            Err(_) => Err(Error::unavailable(format!("the server did not answer while {doing}"))),
        }
    }

    /// Runs a statement that gives no rows.
    ///
    /// # Errors
    /// What the server says; `doing` says what was being done.
    pub async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.ask(sql).await?;
        self.acknowledged(doing).await
    }

    async fn ask(&mut self, sql: &str) -> Result<()> {
        let mut payload = Vec::with_capacity(sql.len() + 1);
        payload.push(3);
        payload.extend_from_slice(sql.as_bytes());
        self.command(&payload).await
    }

    /// Asks for rows, which [`next_row`](Self::next_row) then hands out.
    ///
    /// # Errors
    /// [`Reply`] as the server sent it, or that the connection broke.
    pub async fn select(&mut self, sql: &str) -> Result<(), Refusal> {
        self.ask(sql).await?;
        let head = self.packet("reading rows").await?;
        if head.first() == Some(&0xff) {
            return Err(Refusal::Server(Reply::parse(&head)));
        }
        let columns = Input(&head).length().filter(|columns| *columns > 0);
        let columns = columns.ok_or_else(|| fault::malformed("reading rows"))?;
        // Their definitions, and the EOF packet after them.
        for _ in 0..=columns {
            self.packet("reading rows").await?;
        }
        self.unread = true;
        Ok(())
    }

    /// The next row as it came (fields of the text protocol); `None` after the last.
    pub async fn next_row(&mut self) -> Result<Option<Bytes>, Refusal> {
        let packet = self.packet("reading rows").await?;
        match packet.first() {
            Some(0xfe) if packet.len() < 9 => {
                self.unread = false;
                Ok(None)
            }
            Some(0xff) => {
                self.unread = false;
                Err(Refusal::Server(Reply::parse(&packet)))
            }
            _ => Ok(Some(packet)),
        }
    }

    /// The rows of a statement, as text.
    ///
    /// # Errors
    /// What the server says; `doing` says what was being done.
    pub async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        match timeout(ANSWER, self.all_rows(sql)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(refusal)) => Err(refusal.into_error(doing)),
            Err(_) => Err(Error::unavailable(format!("the server did not answer while {doing}"))),
        }
    }

    async fn all_rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        self.select(sql).await?;
        let mut rows = Vec::new();
        while let Some(row) = self.next_row().await? {
            let mut fields = Input(&row);
            let mut texts = Vec::new();
            while !fields.0.is_empty() {
                let field = fields.field().ok_or_else(|| fault::malformed("reading rows"))?;
                texts.push(field.map(|text| String::from_utf8_lossy(text).into_owned()));
            }
            rows.push(texts);
        }
        Ok(rows)
    }

    /// The first value of the first row; empty text when it is null or there is none.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn text(&mut self, doing: &str, sql: &str) -> Result<String> {
        let rows = self.rows(doing, sql).await?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
    }
}

/// Why rows did not come.
#[derive(Debug)]
pub enum Refusal {
    /// The server said no.
    Server(Reply),
    /// The connection broke.
    Connection(Error),
}

impl Refusal {
    /// The error of something that is not one table's business.
    pub fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Server(reply) => fault::server(doing, reply),
            Self::Connection(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

/// `` `name` ``, whatever the name.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text constant that reads the same whatever `sql_mode` says.
pub fn literal(text: &str) -> String {
    format!("_utf8mb4 x'{}'", hex(text.as_bytes()))
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
        assert_eq!(literal("a'"), "_utf8mb4 x'6127'");
    }
}
