//! The frontend's side of the protocol that `tokio_postgres` lacks: logging in as a walsender's
//! client, its commands, and the switch to a stream of CopyData (PostgreSQL documentation,
//! "Frontend/Backend Protocol" and "Streaming Replication Protocol").

use std::collections::HashMap;
use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{
    AuthenticationSaslBody, DataRowBody, ErrorFields, ErrorResponseBody, Message,
    NoticeResponseBody,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Config;
use tokio_postgres::fallible_iterator::FallibleIterator;

use super::connection::PINNED;
use super::fault::{self, Reply};
use crate::error::{Error, Result};
use crate::socket::Socket;

/// One row of text.
pub type Row = Vec<Option<String>>;

/// A connection to a walsender that has a database.
pub struct Replication {
    socket: Socket,
    input: BytesMut,
    output: BytesMut,
    parameters: HashMap<String, String>,
    pid: i32,
}

/// A connection that has been switched to CopyBoth.
pub struct CopyBoth {
    /// The socket; what it sends are CopyData messages.
    pub socket: Socket,
    /// What has been read of them already.
    pub input: BytesMut,
    /// The walsender's process id.
    pub pid: i32,
}

enum Incoming {
    Message(Message),
    CopyBoth,
}

/// No message outside of a stream is as long; an answer that says so is no Postgres' answer.
const LONGEST: usize = 64 << 20;

impl Replication {
    /// Logs in over an open socket ("Start-up"), as `replication=database`, with the settings that
    /// decide how values are written.
    pub async fn login(config: &Config, socket: Socket) -> Result<Self> {
        let (input, output) = (BytesMut::with_capacity(8 << 10), BytesMut::new());
        let mut this = Self { socket, input, output, parameters: HashMap::new(), pid: 0 };
        let mut parameters = vec![
            ("user", config.get_user().unwrap_or_default()),
            ("database", config.get_dbname().unwrap_or_default()),
            ("application_name", config.get_application_name().unwrap_or("lakeward")),
            ("replication", "database"),
            // The server then reports its place at least twice in this time, even in the midst of
            // a transaction of which it has nothing to send.
            ("wal_sender_timeout", "60s"),
        ];
        parameters.extend(PINNED);
        parameters.extend(config.get_options().map(|options| ("options", options)));
        frontend::startup_message(parameters, &mut this.output).map_err(login)?;
        this.send().await.map_err(login)?;
        this.authenticate(config).await?;
        this.await_ready(config).await?;
        Ok(this)
    }

    /// A setting that the server reported at log-in.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The walsender's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    async fn authenticate(&mut self, config: &Config) -> Result<()> {
        let user = config.get_user().unwrap_or_default();
        let password = || {
            config.get_password().ok_or_else(|| {
                Error::config("the server asks for a password and the source's url has none")
            })
        };
        loop {
            match self.message("logging in").await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut self.output).map_err(login)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.output).map_err(login)?;
                }
                Message::AuthenticationSasl(body) => self.scram(&body, password()?).await?,
                Message::ErrorResponse(body) => return Err(refused(config, &body)),
                Message::NoticeResponse(_) => {}
                _ => {
                    return Err(Error::config("the server asks for a log-in of another kind")
                        .remedy("allow scram-sha-256 for the role in pg_hba.conf"));
                }
            }
            self.send().await.map_err(login)?;
        }
    }

    /// "SCRAM-SHA-256 Authentication". The server proves that it knows the password, too.
    async fn scram(&mut self, offer: &AuthenticationSaslBody, password: &[u8]) -> Result<()> {
        let mut offered = false;
        let mut mechanisms = offer.mechanisms();
        while let Some(name) = mechanisms.next().map_err(login)? {
            offered |= name == SCRAM_SHA_256;
        }
        if !offered {
            return Err(Error::config("the server does not offer SCRAM-SHA-256"));
        }
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.output)
            .map_err(login)?;
        self.send().await.map_err(login)?;
        match self.message("logging in").await? {
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(login)?;
            }
            other => return Err(unexpected("logging in", &other)),
        }
        frontend::sasl_response(scram.message(), &mut self.output).map_err(login)?;
        self.send().await.map_err(login)?;
        match self.message("logging in").await? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(login),
            other => Err(unexpected("logging in", &other)),
        }
    }

    async fn await_ready(&mut self, config: &Config) -> Result<()> {
        loop {
            match self.message("logging in").await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(body) => self.pid = body.process_id(),
                Message::ParameterStatus(body) => {
                    let text = |part: io::Result<&str>| part.map(str::to_owned).map_err(login);
                    self.parameters.insert(text(body.name())?, text(body.value())?);
                }
                Message::NoticeResponse(_) => {}
                Message::ErrorResponse(body) => return Err(refused(config, &body)),
                other => return Err(unexpected("logging in", &other)),
            }
        }
    }

    /// Runs one command or statement ("Simple Query") and returns its rows; `doing` goes into the
    /// error when the server refuses it.
    pub async fn query(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        let lost = |error| fault::io(doing, error);
        frontend::query(sql, &mut self.output).map_err(lost)?;
        self.send().await.map_err(lost)?;
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            match self.message(doing).await? {
                Message::DataRow(body) => rows.push(row(&body).map_err(lost)?),
                Message::ErrorResponse(body) if fatal(&body) => {
                    return Err(fault::server(doing, reply(&body)));
                }
                Message::ErrorResponse(body) => refused = Some(reply(&body)),
                Message::ReadyForQuery(_) => break,
                Message::RowDescription(_)
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::NoticeResponse(_)
                | Message::ParameterStatus(_) => {}
                other => return Err(unexpected(doing, &other)),
            }
        }
        refused.map_or(Ok(rows), |reply| Err(fault::server(doing, reply)))
    }

    /// Runs START_REPLICATION and gives the connection over to the stream.
    pub async fn start(mut self, sql: &str) -> Result<CopyBoth> {
        const DOING: &str = "START_REPLICATION";
        frontend::query(sql, &mut self.output).map_err(|error| fault::io(DOING, error))?;
        self.send().await.map_err(|error| fault::io(DOING, error))?;
        loop {
            match self.receive().await.map_err(|error| fault::io(DOING, error))? {
                Incoming::CopyBoth => break,
                Incoming::Message(Message::ErrorResponse(body)) => {
                    return Err(fault::log(DOING, reply(&body)));
                }
                Incoming::Message(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Incoming::Message(other) => return Err(unexpected(DOING, &other)),
            }
        }
        Ok(CopyBoth { socket: self.socket, input: self.input, pid: self.pid })
    }

    async fn send(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.output).await?;
        self.output.clear();
        self.socket.flush().await
    }

    async fn message(&mut self, doing: &str) -> Result<Message> {
        match self.receive().await.map_err(|error| fault::io(doing, error))? {
            Incoming::Message(message) => Ok(message),
            Incoming::CopyBoth => Err(confused(doing)),
        }
    }

    async fn receive(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(incoming) = take(&mut self.input)? {
                return Ok(incoming);
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The first whole message of `input`, if there is one.
fn take(input: &mut BytesMut) -> io::Result<Option<Incoming>> {
    let sane = |length| (4..=LONGEST).contains(&length);
    if header(input).is_some_and(|(_, length)| !sane(length)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message has no sane length"));
    }
    match header(input) {
        // CopyBothResponse, which the crate's parser doesn't know.
        Some((b'W', length)) if input.len() > length => {
            input.advance(length + 1);
            Ok(Some(Incoming::CopyBoth))
        }
        _ => Ok(Message::parse(input)?.map(Incoming::Message)),
    }
}

/// The type of the message at the start of `input` and its length without the type's byte.
pub fn header(input: &[u8]) -> Option<(u8, usize)> {
    let (&tag, rest) = input.split_first()?;
    let length = rest.first_chunk::<4>()?;
    Some((tag, u32::from_be_bytes(*length) as usize))
}

/// The server's error in the body of an ErrorResponse.
pub fn reply(body: &ErrorResponseBody) -> Reply {
    read_fields(body.fields())
}

/// The server's message in the body of a NoticeResponse.
pub fn notice_reply(body: &NoticeResponseBody) -> Reply {
    read_fields(body.fields())
}

fn read_fields(mut fields: ErrorFields<'_>) -> Reply {
    let mut reply = Reply::default();
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => reply.code = text,
            b'M' => reply.message = text,
            b'D' => reply.detail = Some(text),
            b'H' => reply.hint = Some(text),
            _ => {}
        }
    }
    reply
}

/// Whether the server closes the connection after this error (severity in English, "V").
fn fatal(body: &ErrorResponseBody) -> bool {
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'V' {
            return matches!(field.value_bytes(), b"FATAL" | b"PANIC");
        }
    }
    false
}

fn row(body: &DataRowBody) -> io::Result<Row> {
    let bytes = body.buffer();
    let text = |range: Option<std::ops::Range<usize>>| {
        Ok(range
            .and_then(|range| bytes.get(range))
            .map(|value| String::from_utf8_lossy(value).into_owned()))
    };
    body.ranges().map(text).collect()
}

/// The error for a log-in that the server refuses.
fn refused(config: &Config, body: &ErrorResponseBody) -> Error {
    let error = fault::server("a log-in for replication", reply(body));
    let role = quote(config.get_user().unwrap_or_default());
    match fault::is(&error, "42501") {
        true => error.remedy(format!(
            "let a superuser run ALTER ROLE {role} REPLICATION (managed services have their own \
             way, such as GRANT rds_replication TO {role})"
        )),
        false => error,
    }
}

fn login(error: io::Error) -> Error {
    fault::io("logging in", error)
}

fn confused(doing: &str) -> Error {
    Error::unavailable(format!("the server answered something unknown while {doing}"))
}

fn unexpected(doing: &str, message: &Message) -> Error {
    match message {
        Message::ErrorResponse(body) => fault::server(doing, reply(body)),
        _ => confused(doing),
    }
}

/// `name` as an identifier in SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal in SQL and in replication commands.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_whole() {
        let mut input = BytesMut::from(&b"W\0\0\0\x07\0\0"[..]);
        assert!(take(&mut input).unwrap().is_none());
        input.extend_from_slice(b"\0Z\0\0\0\x05I");
        assert!(matches!(take(&mut input).unwrap(), Some(Incoming::CopyBoth)));
        let next = take(&mut input).unwrap();
        assert!(matches!(next, Some(Incoming::Message(Message::ReadyForQuery(_)))));
        assert!(input.is_empty() && take(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_length_beyond_reason_is_refused() {
        for length in [0u32, 3, 1 << 30, u32::MAX] {
            let mut input = BytesMut::from(&b"D"[..]);
            input.extend_from_slice(&length.to_be_bytes());
            assert!(take(&mut input).is_err(), "{length}");
        }
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b\\"), "'a''b\\'");
    }
}
