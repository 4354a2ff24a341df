//! `lakeward status`: what the lake itself says of every table, and what only the daemon that runs can.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use console::{Term, truncate_str};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use lakeward_connectors::source::Position;
use lakeward_connectors::{Error, Result, TableId};
use serde::Serialize;

use super::print;
use crate::config::Config;
use crate::control::{self, Amplification, Answer, Command};
use crate::delta::{Lake, Table, table_path};
use crate::epoch::{EpochFile, Ledger, State};
use crate::pipeline::now_ms;
use crate::verify::{Verified, saved};
use crate::with_position;

mod grid;

/// How often `--watch` looks at the lake.
const WATCH: Duration = Duration::from_secs(2);

/// A daemon that does not answer within this is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many tables are looked at at a time.
const TABLES_AT_ONCE: usize = 16;

#[derive(Serialize)]
struct TableStatus {
    state: State,
    held: String,
    /// Changes that are durable and that readers don't see yet.
    staged_changes: u64,
    /// What readers see meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    visible: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    path: String,
    rows: u64,
    files: usize,
    bytes: u64,
    version: i64,
    /// Bytes written for each byte of rows that came since the daemon started; `None` where none came,
    /// or no daemon answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    amplification: Option<f64>,
    /// What its newest verification found.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verified>,
}

#[derive(Serialize)]
struct SourceStatus {
    epoch: u64,
    to: String,
    written_ms: i64,
    tables: BTreeMap<String, TableStatus>,
}

/// A table and its status.
type Named = (TableId, TableStatus);

type Sources = BTreeMap<String, SourceStatus>;

/// What the lake says of one source; `None` when it has no epoch yet.
async fn of_source<P: Position>(lake: &Lake, name: &str) -> Result<Option<SourceStatus>> {
    let ledger = Ledger::<P>::open(lake.clone(), name, String::new()).await?;
    let Some(file) = ledger.newest() else { return Ok(None) };
    let app_id = ledger.app_id();
    let mut looks: Vec<BoxFuture<'_, Result<Option<Named>>>> = Vec::new();
    for (id, _) in file.roster.iter().flatten() {
        looks.push(of_table(lake, name, file, id, &app_id).boxed());
    }
    let looks = futures::stream::iter(looks).buffer_unordered(TABLES_AT_ONCE);
    let tables: Vec<_> = looks.try_collect().await?;
    let mut found = saved::read(lake, name).await?;
    let tables = tables.into_iter().flatten().map(|(id, status)| {
        let verified = found.remove(&id);
        (id.to_string(), TableStatus { verified, ..status })
    });
    let tables = tables.collect();
    let (epoch, to, written_ms) = (file.epoch, file.to.to_string(), file.written_ms);
    Ok(Some(SourceStatus { epoch, to, written_ms, tables }))
}

async fn of_table<P: Position>(
    lake: &Lake,
    source: &str,
    file: &EpochFile<P>,
    id: &TableId,
    app_id: &str,
) -> Result<Option<Named>> {
    let path = table_path(source, id);
    let table = Table::open(lake, &path).await?;
    let txn = table.as_ref().and_then(|table| table.txn(app_id));
    let Some(member) = file.holds(id, txn) else { return Ok(None) };
    let status = TableStatus {
        state: member.state,
        staged_changes: member.staged.iter().map(|file| file.changes).sum(),
        visible: member.visible.map(|visible| visible.to_string()),
        held: member.held.map(|held| held.to_string()).unwrap_or_default(),
        reason: member.reason,
        path,
        rows: table.as_ref().map_or(0, Table::rows),
        files: table.as_ref().map_or(0, Table::files),
        bytes: table.as_ref().map_or(0, Table::bytes),
        version: table.as_ref().and_then(Table::version).unwrap_or(-1),
        amplification: None,
        verified: None,
    };
    Ok(Some((id.clone(), status)))
}

async fn read(config: &Config, lake: &Lake) -> Result<Sources> {
    let mut sources = BTreeMap::new();
    let costs = amplification(config).await;
    for (name, source) in &config.sources {
        let mut status = with_position!(&source.database, P => of_source::<P>(lake, name).await?);
        for (id, table) in status.iter_mut().flat_map(|status| &mut status.tables) {
            table.state = source.dropped_tables.shown(table.state);
            table.amplification = costs.get(name).and_then(|of| of.get(id)).copied();
        }
        sources.extend(status.map(|status| (name.clone(), status)));
    }
    Ok(sources)
}

/// As the daemon tells that runs; nothing when there is none, or it is of another version.
async fn amplification(config: &Config) -> Amplification {
    let asked = async {
        let answers = control::ask(&config.lake.state_dir, &Command::Amplification).await;
        match answers.ok()??.next().await {
            Ok(Some(Answer::Amplification(all))) => Some(all),
            _ => None,
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default()
}

/// `lakeward status`.
///
/// # Errors
/// When the lake can't be read.
pub async fn status(config: &Config, json: bool) -> Result<ExitCode> {
    let lake = Lake::open(&config.lake.options())?;
    let sources = read(config, &lake).await?;
    print(json, &sources, &grid::text(&sources, now_ms()))?;
    Ok(ExitCode::SUCCESS)
}

/// `lakeward status --watch`: the same every two seconds, in its place on a terminal, until the
/// process is ended. A lake that can't be read for a while is said, and asked again.
///
/// # Errors
/// When the lake can't be opened, or nobody reads the output any more.
pub async fn watch(config: &Config) -> Result<ExitCode> {
    let lake = Lake::open(&config.lake.options())?;
    let term = Term::stdout();
    let gone =
        |error: std::io::Error| Error::unavailable("the output can't be written").caused_by(error);
    if term.is_term() {
        term.clear_screen().map_err(gone)?;
    }
    loop {
        let text = match read(config, &lake).await {
            Ok(sources) => grid::text(&sources, now_ms()),
            Err(error) => format!("{}\n", error.full()),
        };
        match term.is_term() {
            true => redraw(&term, &text).map_err(gone)?,
            false => writeln!(std::io::stdout(), "{text}").map_err(gone)?,
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// Draws `text` over what was drawn before, without a flash; what is longer than the terminal is
/// left out, and that is said.
fn redraw(term: &Term, text: &str) -> std::io::Result<()> {
    let (height, width) = term.size();
    let (height, width) = (usize::from(height.max(2)), usize::from(width.max(20)));
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() < height { lines.len() } else { height - 2 };
    let mut frame = String::from("\x1b[H");
    for line in lines.iter().take(shown) {
        frame.push_str(&truncate_str(line, width, "…"));
        frame.push_str("\x1b[K\r\n");
    }
    if shown < lines.len() {
        let rest = format!("… and {} more lines", lines.len() - shown);
        frame.push_str(&truncate_str(&rest, width, "…"));
        frame.push_str("\x1b[K");
    }
    frame.push_str("\x1b[J");
    let mut out = std::io::stdout().lock();
    out.write_all(frame.as_bytes())?;
    out.flush()
}
