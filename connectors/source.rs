//! The whole contract between a connector and the daemon.
//!
//! A [`Source`] is the configured database. It finds tables ([`Source::discover`]), makes sure that
//! its log is kept from some position on ([`Source::establish`]), opens the log as a [`Stream`] and
//! hands out [`ChunkReader`]s, which read existing rows in chunks.
//!
//! Positions are only partially ordered (a GTID set is a position, and so is a set of two of
//! them): the contract asks what a position *contains*, and never which of two is smaller.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use crate::batch::Batch;
use crate::error::{Error, Reason, Result};
use crate::schema::{TableId, TableSchema};

/// A place in a source's log. `Display` is what people see, and a text is what they write; serde is
/// what the epoch file holds.
pub trait Position:
    Clone
    + PartialEq
    + Debug
    + Display
    + TryFrom<String, Error: Display>
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What the log calls one transaction.
    type Transaction: Clone
        + PartialEq
        + Debug
        + Display
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;

    /// Whether `transaction` lies at or below this position.
    fn contains(&self, transaction: &Self::Transaction) -> bool;

    /// Whether everything that `other` contains lies at or below this position.
    fn covers(&self, other: &Self) -> bool;

    /// The greatest position that both cover: where reading starts so that neither misses anything.
    fn meet(&self, other: &Self) -> Self;

    /// The least position that covers both.
    fn join(&self, other: &Self) -> Self;

    /// How many bytes of the log lie between `earlier` and this position, where positions tell: for
    /// people only.
    fn bytes_since(&self, earlier: &Self) -> Option<u64> {
        let _ = earlier;
        None
    }

    /// How many seconds lie between `earlier` and this position, where positions tell: for people
    /// only.
    fn seconds_since(&self, earlier: &Self) -> Option<u64> {
        let _ = earlier;
        None
    }
}

/// What one read view of the source sees (S2): decided by a transaction's identity, never by
/// comparing log positions, because a commit is in the log before it is visible.
pub trait View<T>: Clone + Debug + Send + Sync + 'static {
    /// Whether the view is known to see `transaction`. Where only a lower bound is known, `false`
    /// means "perhaps not": the daemon stays right, it only reads a few rows again.
    fn sees(&self, transaction: &T) -> bool;

    /// Whether this view sees every transaction that had begun when `earlier` was taken (or knows
    /// that it never will): what a table needs that joined the log while transactions were under
    /// way, whose changes the log then shows in part or not at all.
    fn is_past(&self, earlier: &Self) -> bool;
}

/// A configured database.
pub trait Source: Send + 'static {
    /// A place in its log.
    type Position: Position;
    /// What one of its read views sees.
    type View: View<Transaction<Self>>;
    /// Its log.
    type Stream: Stream<Position = Self::Position>;
    /// What reads existing rows.
    type Reader: ChunkReader<Position = Self::Position, View = Self::View>;

    /// Whether [`discover`](Self::discover) finds every table there is, whatever this user may
    /// read: then one that it doesn't find is gone. Elsewhere only the log says so
    /// ([`Resolved::Dropped`]).
    const FINDS_ALL: bool;

    /// Whether the configuration asks for a table of this name.
    fn selects(&self, table: &TableId) -> bool;

    /// The tables that the configuration asks for, as they are now; and whatever the source holds
    /// that matches but can't be kept, with the reason.
    fn discover(&mut self) -> impl Future<Output = Result<Catalog<Self::Position>>> + Send;

    /// Says which [`Established::identity`] the lake knows. When [`establish`](Self::establish)
    /// finds another one, what is left of the log is of no use, and it begins anew.
    fn expect(&mut self, _identity: &str) {}

    /// Makes sure that the log is kept, and that changes of `tables` are in it: creates what is
    /// missing (publication, then slot) where permitted.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with the statement for the owner to run when
    /// something is missing and may not be created.
    fn establish(
        &mut self,
        tables: &[Arc<TableSchema>],
    ) -> impl Future<Output = Result<Established<Self::Position>>> + Send;

    /// Opens the log just after `from`. Changes of tables other than `tables` are skipped.
    fn stream(
        &mut self,
        from: &Self::Position,
        tables: &[Arc<TableSchema>],
    ) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// A reader of chunks with a connection of its own. A chunk of a range holds about
    /// `chunk_bytes`, as the source sends them, and never more than twice that and one row.
    fn reader(&mut self, chunk_bytes: usize) -> impl Future<Output = Result<Self::Reader>> + Send;

    /// What a statement that starts now would see (prunes the list of S4).
    fn view(&mut self) -> impl Future<Output = Result<Self::View>> + Send;

    /// Everything that would keep this source from being kept well, each with its remedy. Changes
    /// nothing.
    fn check(&mut self) -> impl Future<Output = Result<Vec<Finding>>> + Send;

    /// Removes what [`establish`](Self::establish) created in the source (slot, publication), and
    /// says what it removed.
    fn remove(&mut self) -> impl Future<Output = Result<Vec<String>>> + Send;
}

/// One line of `lakeward check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the source can't be kept, or a table can't, until this is mended.
    pub fatal: bool,
    /// What is wrong, or worth knowing.
    pub problem: String,
    /// The statement or setting that mends it.
    pub remedy: String,
}

impl Finding {
    /// What `error` says, as something that has to be mended.
    pub(crate) fn of(error: &Error) -> Self {
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        Self { fatal: true, problem: error.what(), remedy }
    }
}

/// What a source's log calls one transaction.
pub type Transaction<S> = <<S as Source>::Position as Position>::Transaction;

/// The tables of a source at one moment.
#[derive(Debug, Clone)]
pub struct Catalog<P> {
    /// Tables to keep.
    pub tables: Vec<Listed>,
    /// Tables that match the configuration and can't be kept, each with the reason and remedy.
    pub refused: Vec<(TableId, String)>,
    /// A position taken after the look: whoever has read up to it has seen every schema change
    /// that the look has seen and the log shows.
    pub high: P,
}

/// A table of a [`Catalog`].
#[derive(Debug, Clone)]
pub struct Listed {
    /// What it looks like now.
    pub schema: Arc<TableSchema>,
    /// Its rows by the source's own estimate, for progress bars only.
    pub rows: u64,
}

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct Established<P> {
    /// Everything after this position can still be read; for a new slot, where it starts.
    pub oldest: P,
    /// A position that contains everything in the log, where the source can say so: what the lake
    /// holds beyond it the source has lost, in a fail-over or a restore (P9).
    pub newest: Option<P>,
    /// Which database and which retention object this is (system identifier, slot, publication).
    /// When it differs from what the lake remembers, positions mean nothing any more (P9).
    pub identity: String,
    /// Whether it is the log that was [expected](Source::expect), though its identity is another one
    /// now: another server goes on with it. What both have in common ends at `newest`.
    pub continues: bool,
    /// How many bytes of its log the server keeps because this source has not acknowledged them,
    /// where it keeps any for that: for people only, as is the next.
    pub retained: Option<u64>,
    /// Where the log begins, where the server cuts it off whether or not it has been read, and says
    /// so at little cost.
    pub begins: Option<P>,
}

/// A source's log being read.
pub trait Stream: Send + 'static {
    /// A place in the log.
    type Position: Position;
    /// What the log consists of; owned bytes.
    type Message: Send;

    /// Waits for the next message. Cancel safe, and the only wait for the network: connections are
    /// kept alive and acknowledgements are sent whether or not anybody waits here.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the connection is lost or silent for
    /// longer than its limit; [`Gap`](crate::ErrorKind::Gap) when the log no longer holds what was
    /// asked for.
    fn next(&mut self) -> impl Future<Output = Result<Self::Message>> + Send;

    /// Decodes a message into `sink`. No I/O: a pure function of bytes and known schemas. An error
    /// of [`ErrorKind::Table`](crate::ErrorKind::Table) stops its table only; the message has then
    /// been handled for all others.
    fn decode<S: Sink<Self::Position>>(
        &mut self,
        message: &Self::Message,
        sink: &mut S,
    ) -> Result<Decoded>;

    /// Finds out, by asking the source, what the tables that [`Decoded::Unresolved`] named look
    /// like; then the same message is decoded again.
    fn resolve(&mut self) -> impl Future<Output = Result<Vec<Resolved>>> + Send;

    /// Adds a table, or gives a known one another schema. Changes before this call are not asked
    /// for; a change after it whose place in the log has another schema is
    /// [`Decoded::Unresolved`], also when the log showed that schema before the call.
    fn set_table(&mut self, schema: Arc<TableSchema>);

    /// Skips changes of a table from here on.
    fn remove_table(&mut self, table: &TableId);

    /// Tells the source that everything `position` covers is durable (P3). Returns at once; the
    /// connection's own task sends it.
    fn acknowledge(&mut self, position: &Self::Position);

    /// Asks the source to report its present position soon, though nothing happens.
    fn nudge(&mut self);
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// It is in the sink.
    Done,
    /// It needs [`Stream::resolve`] first; nothing of it is in the sink.
    Unresolved,
}

/// What [`Stream::resolve`] found.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// From this message on the table has this schema.
    Schema(Arc<TableSchema>),
    /// The table's schema at this place can't be told (it changed again since): read it again.
    /// Says why. The stream skips the table until [`Stream::set_table`].
    Lost(TableId, String),
    /// The table was dropped at this place, or is called otherwise from here on; there may be
    /// another of its name by now. The stream skips it until [`Stream::set_table`].
    Dropped {
        /// Its name.
        table: TableId,
        /// Whether the log shows another one of its name from its beginning on, however it looks.
        shows_next: bool,
    },
}

/// Where decoded changes go. Calls come in the order of the log: `begin`, changes, `commit`, and
/// `progress` between transactions.
pub trait Sink<P: Position> {
    /// A transaction begins.
    fn begin(&mut self, transaction: P::Transaction);

    /// When the transaction that has just begun was committed, by the source's clock: microseconds
    /// of Unix time. Called after [`begin`](Self::begin), before any change.
    fn committed_at(&mut self, micros: i64) {
        let _ = micros;
    }

    /// The builder for changes of `table`; `None` when the table skips this transaction.
    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut crate::batch::Builder>;

    /// All rows of `table` are gone.
    fn truncate(&mut self, table: &TableId);

    /// The transaction ends at `position`, committed at `micros` (Unix time) by the source's clock.
    fn commit(&mut self, position: P, micros: i64);

    /// The log has been read up to `position`, between transactions.
    fn progress(&mut self, position: P);

    /// `table` can't go on from here; changes of it that are already in the sink for the open
    /// transaction are dropped. The reason names column, key, value and remedy.
    fn stop(&mut self, table: &TableId, reason: Reason);
}

/// A key as text that the source reads back: one text per key column.
pub type KeyText = Vec<String>;

/// The keys above `after` and up to `until` (`None`: no bound), as the source orders them (S10).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, Serialize)]
pub struct Range {
    /// The greatest key below the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<KeyText>,
    /// The greatest key of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<KeyText>,
}

/// What a chunk reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// The first rows of a range: as many as a short read allows.
    Next(Range),
    /// These keys.
    Keys(Vec<KeyText>),
    /// The whole table in one view (S11).
    All,
}

/// What a [`ChunkReader`] sends while it reads.
#[derive(Debug)]
pub enum Part<P, V> {
    /// The view was taken; it sees all transactions it had to see (S4).
    Opened(V),
    /// Some rows, all with [`Op::Read`](crate::Op::Read).
    Rows(Batch),
    /// Everything asked for has been read.
    Closed {
        /// A position taken after the view (S3): once the stream has reached it, everything the
        /// view saw has been streamed.
        high: P,
        /// What is left of the range; `None` when nothing is.
        rest: Option<Range>,
    },
}

/// Reads existing rows, each chunk under one short read view.
pub trait ChunkReader: Send + 'static {
    /// A place in the source's log.
    type Position: Position;
    /// What a read view sees.
    type View: View<<Self::Position as Position>::Transaction>;

    /// Reads `rows` of `table` and hands each part to `send`, in the order [`Part::Opened`],
    /// [`Part::Rows`]…, [`Part::Closed`]. Waits until its view sees all of `must_see` (S4).
    ///
    /// # Errors
    /// [`ErrorKind::Table`](crate::ErrorKind::Table) when the table is not as `table` says any
    /// more, or holds a value that its type can't.
    fn read(
        &mut self,
        table: &Arc<TableSchema>,
        rows: Rows,
        must_see: &[<Self::Position as Position>::Transaction],
        send: &Sender<Part<Self::Position, Self::View>>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Splits the whole of `table` into at most `parts` ranges of about the same size, in any
    /// order, which together hold every key exactly once.
    fn split(
        &mut self,
        table: &Arc<TableSchema>,
        parts: usize,
    ) -> impl Future<Output = Result<Vec<Range>>> + Send;
}
