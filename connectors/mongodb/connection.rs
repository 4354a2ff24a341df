//! Connections, by the official driver: what the server is, commands, and cursors as bytes.

use std::ops::Range;
use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::bson::{Bson, Document, Timestamp, doc};
use ::mongodb::options::{ClientOptions, CursorType};
use ::mongodb::raw_batch_cursor::RawBatchCursor;
use bytes::Bytes;
use futures::StreamExt;

use super::element::{Elements, Malformed, find};
use super::fault::fault;
use super::position::Time;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// The oldest server that is understood: MongoDB 6.0 (wire version 17).
const OLDEST: i32 = 17;
/// The wire version of MongoDB 6.1, from which on an update's paths are told without doubt.
const CLEAR_PATHS: i32 = 18;
/// The wire version of MongoDB 7.0, from which on large events can be split.
const SPLITS: i32 = 21;
/// How long the server may take to be found or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a cursor may be silent, beyond what it was told to wait.
const SILENCE: Duration = Duration::from_secs(30);

/// A deployment that answers.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    /// The name of the replica set.
    pub set: String,
    wire: i32,
}

impl Server {
    /// Connects to what `url` names, and makes sure that it can be kept.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a server that can't be kept,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) for one that doesn't answer.
    pub async fn open(url: &Secret) -> Result<Self> {
        let client = client(url).await?;
        let hello = client.database("admin").run_command(doc! { "hello": 1 }).await;
        let hello = hello.map_err(|error| fault("asking what the server is", error))?;
        if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            return Err(Error::config("a sharded cluster can't be kept yet")
                .remedy("name a replica set in the source's url"));
        }
        let set = hello.get_str("setName").map(str::to_owned).map_err(|_| {
            Error::config("the server is no member of a replica set, so it has no log")
                .remedy("start it with --replSet and run rs.initiate(); one member is enough")
        })?;
        let wire = hello.get_i32("maxWireVersion").unwrap_or_default();
        match wire < OLDEST {
            true => {
                Err(Error::config("the server is older than MongoDB 6.0")
                    .with("maxWireVersion", wire))
            }
            false => Ok(Self { client, set, wire }),
        }
    }

    /// Whether the server tells the paths of an update without doubt (`disambiguatedPaths`).
    pub fn has_clear_paths(&self) -> bool {
        self.wire >= CLEAR_PATHS
    }

    /// Whether the server can split events that are larger than a document may be.
    pub fn splits_events(&self) -> bool {
        self.wire >= SPLITS
    }

    /// Runs a command; `doing` says what for.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub async fn run(&self, doing: &str, database: &str, command: Document) -> Result<Document> {
        let database = self.client.database(database);
        let answer = database.run_command(command);
        match tokio::time::timeout(SILENCE, answer).await {
            Ok(answer) => answer.map_err(|error| fault(doing, error)),
            Err(_) => Err(Error::unavailable(format!("MongoDB did not answer {doing}"))),
        }
    }

    /// The greatest cluster time that majority reads are known to see.
    ///
    /// # Errors
    /// As [`primary`](Self::primary).
    pub async fn majority(&self) -> Result<Time> {
        Ok(self.primary().await?.majority)
    }

    /// What the primary says of itself.
    ///
    /// # Errors
    /// When it doesn't answer, or is no member of a replica set any more.
    pub async fn primary(&self) -> Result<Primary> {
        let doing = "asking for the time of the last write";
        let hello = self.run(doing, "admin", doc! { "hello": 1 }).await?;
        let last = hello.get_document("lastWrite");
        let optime = last.and_then(|last| last.get_document("majorityOpTime"));
        match optime.and_then(|optime| optime.get_timestamp("ts")) {
            Ok(time) => Ok(Primary {
                majority: time.into(),
                election: hello.get("electionId").map(Bson::to_string).unwrap_or_default(),
            }),
            Err(_) => Err(Error::unavailable("the server did not say when its last write was")),
        }
    }

    /// Opens a cursor by `command`. Replies hold about `batch` documents, and one that waits for
    /// more ends after `wait`.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub async fn cursor(
        &self,
        doing: &'static str,
        database: &str,
        command: Document,
        batch: u32,
        wait: Option<Duration>,
    ) -> Result<Cursor> {
        let database = self.client.database(database);
        let mut open = database.run_cursor_command(command).batch_size(batch);
        if let Some(wait) = wait {
            open = open.max_time(wait).cursor_type(CursorType::TailableAwait);
        }
        match tokio::time::timeout(SILENCE, open.batch()).await {
            Ok(cursor) => {
                let inner = cursor.map_err(|error| fault(doing, error))?;
                Ok(Cursor { inner, doing })
            }
            Err(_) => Err(Error::unavailable(format!("MongoDB did not answer {doing}"))),
        }
    }
}

/// What a primary says of itself (`hello`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// The greatest cluster time that majority reads see (`lastWrite.majorityOpTime`).
    pub majority: Time,
    /// Which election made it the primary: as long as it is the same, so is the member.
    pub election: String,
}

async fn client(url: &Secret) -> Result<Client> {
    // What the driver says about a url may quote parts of it.
    let wrong = |_| {
        Error::config("the source's url can't be used")
            .remedy("write mongodb://user:password@host:27017/?replicaSet=NAME, or mongodb+srv://…")
    };
    let mut options = ClientOptions::parse(url.reveal()).await.map_err(wrong)?;
    options.app_name.get_or_insert_with(|| "lakeward".to_owned());
    options.server_selection_timeout.get_or_insert(PATIENCE);
    options.connect_timeout.get_or_insert(PATIENCE);
    Client::with_options(options).map_err(wrong)
}

/// What reads take to see everything that was committed by a majority up to `since`.
pub fn read_concern(since: Time) -> Document {
    doc! { "level": "majority", "afterClusterTime": Timestamp::from(since) }
}

/// A cursor; the server forgets it when it is dropped.
pub struct Cursor {
    inner: RawBatchCursor,
    doing: &'static str,
}

impl Cursor {
    /// The next reply; `None` when the server has closed the cursor.
    ///
    /// # Errors
    /// What the server or the driver says; [`Unavailable`](crate::ErrorKind::Unavailable) after a
    /// long silence.
    pub async fn next(&mut self) -> Result<Option<Reply>> {
        let doing = self.doing;
        match tokio::time::timeout(SILENCE, self.inner.next()).await {
            Err(_) => Err(Error::unavailable(format!("MongoDB has been silent while {doing}"))),
            Ok(None) => Ok(None),
            Ok(Some(batch)) => {
                let batch = batch.map_err(|error| fault(doing, error))?;
                let bytes = Bytes::copy_from_slice(batch.as_raw_document().as_bytes());
                let reply = Reply::parse(bytes).map_err(|malformed| {
                    Error::internal("a reply of the server is malformed").caused_by(malformed)
                })?;
                Ok(Some(reply))
            }
        }
    }
}

/// One reply of a cursor: the documents of a batch, as bytes.
#[derive(Debug, Clone)]
pub struct Reply {
    bytes: Bytes,
    documents: Vec<Range<usize>>,
    token: Option<Range<usize>>,
}

impl Reply {
    fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let (mut documents, mut token) = (Vec::new(), None);
        let cursor = find(&bytes, "cursor")?.ok_or(Malformed("a reply has no cursor"))?;
        for part in Elements::new(cursor.value)? {
            let part = part?;
            let at = cursor.at + part.at;
            match part.name {
                "firstBatch" | "nextBatch" => {
                    for document in Elements::new(part.value)? {
                        let document = document?;
                        let at = at + document.at;
                        documents.push(at..at + document.value.len());
                    }
                }
                "postBatchResumeToken" => token = Some(at..at + part.value.len()),
                _ => {}
            }
        }
        Ok(Self { bytes, documents, token })
    }

    /// The documents.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = Bytes> + '_ {
        self.documents.iter().map(|range| self.bytes.slice(range.clone()))
    }

    /// Of a change stream: the token from which reading goes on after this reply.
    pub fn token(&self) -> Option<&[u8]> {
        self.bytes.get(self.token.clone()?)
    }

    /// What the documents take, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// A document as a value of the driver's.
///
/// # Errors
/// When the driver can't read it.
pub fn owned(document: &[u8]) -> Result<Document> {
    let raw = ::mongodb::bson::RawDocument::from_bytes(document);
    raw.and_then(Document::try_from)
        .map_err(|error| Error::internal("a document can't be read").caused_by(error))
}

/// The number that `value` is, of whatever type.
pub fn number(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        Bson::Double(value) => Some(*value as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::document;
    use super::super::element::{ARRAY, DOCUMENT, INT32};
    use super::*;

    #[test]
    fn a_reply_is_cut_into_its_documents() {
        let one = document(&[(INT32, "a", vec![1, 0, 0, 0])]);
        let two = document(&[(INT32, "b", vec![2, 0, 0, 0])]);
        let batch = document(&[(DOCUMENT, "0", one.clone()), (DOCUMENT, "1", two.clone())]);
        let token = document(&[(INT32, "_data", vec![3, 0, 0, 0])]);
        let cursor = document(&[
            (DOCUMENT, "postBatchResumeToken", token.clone()),
            (ARRAY, "nextBatch", batch),
        ]);
        let bytes = document(&[(INT32, "ok", vec![1, 0, 0, 0]), (DOCUMENT, "cursor", cursor)]);
        let reply = Reply::parse(Bytes::from(bytes)).unwrap();
        assert_eq!(reply.documents().collect::<Vec<_>>(), [one, two]);
        assert_eq!(reply.token(), Some(token.as_slice()));
        assert!(Reply::parse(Bytes::from(document(&[]))).is_err());
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_not_quoted() {
        let error = Server::open(&Secret::new("mongodb://u:hunter2@:bad:/")).await.map(|_| ());
        let text = error.map_err(|error| error.full()).err().unwrap_or_default();
        assert!(text.contains("url") && !text.contains("hunter2"), "{text}");
    }
}
