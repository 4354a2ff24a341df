//! `lakeward snapshot`, `pause` and `resume`.

use std::process::ExitCode;

use lakeward_connectors::{Error, Result};
use serde_json::json;

use super::print;
use crate::config::Config;
use crate::control::{self, Answer, Command};
use crate::pipeline::Act;

/// Tells the running daemon what to do with a table.
///
/// # Errors
/// When there is no such source or daemon, or it can't be done; the error says why.
pub async fn act(
    config: &Config,
    act: Act,
    source: &str,
    table: &str,
    json: bool,
) -> Result<ExitCode> {
    super::source(config, source)?;
    let command = Command::Table { act, source: source.to_owned(), table: table.to_owned() };
    let Some(mut answers) = control::ask(&config.lake.state_dir, &command).await? else {
        return Err(Error::unavailable("no daemon keeps its state in lake.state_dir")
            .with("directory", config.lake.state_dir.display())
            .remedy("start it with lakeward run, as the same user, and ask again"));
    };
    match answers.next().await? {
        Some(Answer::Done) => {}
        Some(Answer::Refused(why)) => {
            return Err(Error::config(why).with("source", source).with("table", table));
        }
        _ => return Err(Error::unavailable("the daemon ended before it had answered")),
    }
    let (state, now) = match act {
        Act::Snapshot => ("snapshot", "is being read again; lakeward status says how far it is"),
        Act::Pause => {
            ("paused", "is paused: its rows in the lake stay as they are until lakeward resume")
        }
        Act::Resume => ("live", "follows the source again"),
    };
    let text = format!("{source}: {table} {now}\n");
    print(json, &json!({ "source": source, "table": table, "state": state }), &text)?;
    Ok(ExitCode::SUCCESS)
}
