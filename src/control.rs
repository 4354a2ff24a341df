//! How commands reach the running daemon: by the socket `<lake.state_dir>/lakeward.sock`, which only
//! its owner may open. One JSON value a line each way; HTTP stays read-only.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakeward_connectors::{Error, Result, TableId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::board::{Board, TableFacts};
use crate::pipeline::{Act, Order};
use crate::verify::{Request, Verified};

/// The longest command, in bytes.
const LONGEST: u64 = 64 << 10;
/// So many commands are carried out at a time.
const AT_ONCE: usize = 16;
/// How long somebody who connects may take to say what he wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the daemon is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Command {
    /// `lakeward verify`.
    Verify {
        /// The source.
        source: String,
        /// What of it.
        #[serde(flatten)]
        request: Request,
    },
    /// `lakeward snapshot`, `pause` and `resume`.
    Table {
        /// Which of them.
        act: Act,
        /// The source.
        source: String,
        /// The table, as `schema.name`.
        table: String,
    },
    /// What `lakeward status` can't see in the lake.
    Amplification,
}

/// By source and table: bytes written for each byte of rows that came, since the source started. A
/// table of which none came is left out.
pub type Amplification = BTreeMap<String, BTreeMap<String, f64>>;

/// What the daemon answers, one for each line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A table has been compared.
    Verified(String, Verified),
    /// What keeping the tables costs.
    Amplification(Amplification),
    /// All is done that was asked for, as far as the answers before say.
    Done,
    /// It can't be done.
    Refused(String),
}

/// Where the orders of each source go. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<Mutex<BTreeMap<String, mpsc::Sender<Order>>>>);

impl Orders {
    /// A source takes orders from now on.
    pub fn add(&self, source: &str, orders: mpsc::Sender<Order>) {
        self.all().insert(source.to_owned(), orders);
    }

    /// A source takes none any more.
    pub fn remove(&self, source: &str) {
        self.all().remove(source);
    }

    /// Gives a source an order.
    ///
    /// # Errors
    /// Why it doesn't take it.
    pub fn give(&self, source: &str, order: Order) -> Result<(), String> {
        let orders = self.all().get(source).cloned();
        let orders = orders.ok_or_else(|| format!("the daemon has no source {source}"))?;
        let busy = "the source is not being followed now; see its log";
        orders.try_send(order).map_err(|_| busy.to_owned())
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, mpsc::Sender<Order>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("lakeward.sock")
}

/// Listens for commands. A socket that can't be made is no reason not to run.
pub fn serve(state_dir: &Path, orders: Orders, board: Board, tasks: &mut JoinSet<()>) {
    let path = socket(state_dir);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(path = %path.display(), %error, "commands can't reach this daemon");
            return;
        }
    };
    info!(path = %path.display(), "listening for commands");
    tasks.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (orders, board) = (orders.clone(), board.clone());
            while serving.len() >= AT_ONCE {
                serving.join_next().await;
            }
            serving.spawn(async move {
                // Whoever asked may be gone before the answer.
                let _ = carry_out(stream, &orders, &board).await;
            });
        }
    });
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    // What an earlier process left is in the way; what answers is another daemon's.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn carry_out(stream: UnixStream, orders: &Orders, board: &Board) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    match tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(()),
    };
    match serde_json::from_str(&line) {
        Ok(Command::Verify { source, request }) => {
            verify(&source, request, orders, &mut write).await
        }
        Ok(Command::Table { act, source, table }) => {
            let answer = tell(&source, table, act, orders).await;
            say(&mut write, &answer.err().map_or(Answer::Done, Answer::Refused)).await
        }
        Ok(Command::Amplification) => {
            say(&mut write, &Answer::Amplification(amplification(board))).await
        }
        Err(error) => say(&mut write, &Answer::Refused(error.to_string())).await,
    }
}

fn amplification(board: &Board) -> Amplification {
    let mut all = Amplification::new();
    board.each(|source, facts| {
        let of =
            |(id, table): (&TableId, &TableFacts)| Some((id.to_string(), table.amplification()?));
        all.insert(source.to_owned(), facts.tables.iter().filter_map(of).collect());
    });
    all
}

/// Asks something of one table, and waits for the answer.
async fn tell(source: &str, table: String, act: Act, orders: &Orders) -> Result<(), String> {
    let table = TableId::try_from(table).map_err(|_| "name the table as \"schema.name\"")?;
    let (answer, answered) = oneshot::channel();
    orders.give(source, Order::Table(act, table, answer))?;
    let gone = |_| "the source ended before it had answered; see its log".to_owned();
    answered.await.map_err(gone)?
}

async fn verify(
    source: &str,
    request: Request,
    orders: &Orders,
    write: &mut OwnedWriteHalf,
) -> std::io::Result<()> {
    let (answers, mut found) = mpsc::unbounded_channel();
    if let Err(why) = orders.give(source, Order::Verify(request, Some(answers))) {
        return say(write, &Answer::Refused(why)).await;
    }
    while let Some((table, verified)) = found.recv().await {
        say(write, &Answer::Verified(table.to_string(), verified)).await?;
    }
    say(write, &Answer::Done).await
}

async fn say(write: &mut OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// The answers to a command.
pub struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// The daemon ends what nobody waits for.
    _write: OwnedWriteHalf,
}

impl Answers {
    /// The next one; `None` when the daemon has ended.
    ///
    /// # Errors
    /// When what comes is no answer: the daemon is of another version.
    pub async fn next(&mut self) -> Result<Option<Answer>> {
        let broken = || Error::unavailable("the daemon ended before it had answered");
        let line = self.lines.next_line().await.map_err(|error| broken().caused_by(error))?;
        line.map(|line| serde_json::from_str(&line)).transpose().map_err(|error| {
            Error::internal("the daemon's answer can't be read; is it of another version?")
                .caused_by(error)
        })
    }
}

/// Asks the daemon that keeps its state in `state_dir`; `None` when there is none.
///
/// # Errors
/// When it does not listen.
pub async fn ask(state_dir: &Path, command: &Command) -> Result<Option<Answers>> {
    let Ok(stream) = UnixStream::connect(socket(state_dir)).await else { return Ok(None) };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(command)
        .map_err(|error| Error::internal("a command can't be written").caused_by(error))?;
    line.push(b'\n');
    write.write_all(&line).await.map_err(|error| {
        Error::unavailable("the daemon does not take commands").caused_by(error)
    })?;
    Ok(Some(Answers { lines: BufReader::new(read).lines(), _write: write }))
}
