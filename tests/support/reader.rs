//! Rows of a Delta table through a reader that is not ours (`tests/readers/lake_rows.py`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Deserialize;

use super::postgres::Row;
use super::{Context, Res};

/// Where the readers are installed: one Python environment per reader.
pub fn readers_home() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).to_owned();
    match std::env::var_os("READERS_HOME") {
        Some(path) => PathBuf::from(path),
        None => home().join(".cache/lakeward/readers"),
    }
}

pub fn python(environment: &str) -> Res<PathBuf> {
    let python = readers_home().join("venvs").join(environment).join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    Err(format!("no reader at {}: run `tests/readers/install {environment}`", python.display()))
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers").join(name)
}

/// A table of the lake; every value in the text of PostgreSQL's output functions.
#[derive(Debug, Default, Deserialize)]
pub struct LakeRows {
    pub columns: Vec<String>,
    /// The Arrow types the engine gave them.
    pub types: Vec<String>,
    pub rows: Vec<Row>,
    /// Who read it.
    pub engine: String,
    /// Why the first engine refused, if it did.
    pub note: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reply {
    Rows(LakeRows),
    Missing { missing: bool },
    Error { error: String },
}

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

static IDLE: Mutex<Vec<Process>> = Mutex::new(Vec::new());

/// The rows of the table, or None where no Delta table is.
pub fn read(url: &str) -> Res<Option<LakeRows>> {
    let idle = IDLE.lock().expect("no holder panics").pop();
    let mut process = idle.map_or_else(Process::start, Ok)?;
    let line = process.ask(url)?;
    let reply: Reply = serde_json::from_str(&line).context("the reader's answer")?;
    IDLE.lock().expect("no holder panics").push(process);
    match reply {
        Reply::Rows(rows) => Ok(Some(rows)),
        Reply::Missing { missing: true } => Ok(None),
        Reply::Missing { .. } => Err(format!("reading {url}: no answer")),
        Reply::Error { error } => Err(format!("reading {url}: {error}")),
    }
}

/// What a process says, line by line: a reader of its own, so that one can stop waiting for it.
pub fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Process {
    fn start() -> Res<Process> {
        let mut command = Command::new(python("duckdb")?);
        command.arg(script("lake_rows.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the reader")?;
        let input = child.stdin.take().ok_or("the reader has no input")?;
        let output = child.stdout.take().ok_or("the reader has no output")?;
        Ok(Process { child, input, lines: lines(output) })
    }

    fn ask(&mut self, url: &str) -> Res<String> {
        let question = serde_json::json!({ "path": url });
        writeln!(self.input, "{question}").context("asking the reader")?;
        self.input.flush().context("asking the reader")?;
        let limit = Duration::from_secs(120);
        self.lines.recv_timeout(limit).map_err(|e| format!("the reader gave no answer: {e}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only a reader that failed to answer is dropped; a healthy one waits in `IDLE`.
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a reader may be left running: {e}");
        }
    }
}
