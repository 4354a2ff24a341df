//! delta-rs as another writer of a table (`delta_rs.py`): a process that is asked one thing at a time.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::support::reader::{lines, python};
use crate::support::{Context, Res, until};

/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// What it answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Why it did nothing, in its own words.
    pub refused: Option<String>,
    /// The exception's name.
    pub kind: String,
    /// The table's version afterwards.
    pub version: i64,
    /// How many files or rows went.
    pub count: u64,
    /// The table's columns: name and Delta type.
    pub columns: Vec<(String, Value)>,
    /// Its rows, as [`cell`](super::columns::cell) writes values.
    pub rows: Vec<Vec<Option<String>>>,
}

/// The process.
pub struct DeltaRs {
    child: Child,
    /// `None` once it has been told to end.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl DeltaRs {
    pub fn start() -> Res<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/delta_rs.py");
        let mut command = Command::new(python("deltalake")?);
        // One of its threads a table of a few rows is enough.
        command.arg(script).env("TOKIO_WORKER_THREADS", "1").env("RAYON_NUM_THREADS", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting delta-rs")?;
        let input = Some(child.stdin.take().ok_or("delta-rs has no input")?);
        let output = child.stdout.take().ok_or("delta-rs has no output")?;
        Ok(Self { child, input, lines: lines(output) })
    }

    /// Tells it what to do, and does not wait.
    pub fn tell(&mut self, what: &Value) -> Res<()> {
        let input = self.input.as_mut().ok_or("delta-rs has ended")?;
        writeln!(input, "{what}").and_then(|()| input.flush()).context("asking delta-rs")
    }

    /// What came of what it was told first.
    pub fn answer(&mut self) -> Res<Answer> {
        let line = self.lines.recv_timeout(LIMIT).context("delta-rs gave no answer")?;
        serde_json::from_str(&line).context(format!("delta-rs' answer {line}"))
    }

    pub fn ask(&mut self, what: &Value) -> Res<Answer> {
        self.tell(what)?;
        self.answer()
    }
}

impl Drop for DeltaRs {
    fn drop(&mut self) {
        self.input = None;
        let ended =
            until("delta-rs' end", Duration::from_secs(5), Duration::from_millis(5), || {
                self.child.try_wait().context("delta-rs")
            });
        if ended.is_err()
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("delta-rs may be left running: {error}");
        }
    }
}
