//! `lakeward snapshot`.

use std::process::ExitCode;

use lakeward_connectors::{Error, Result};
use serde_json::json;

use super::print;
use crate::config::Config;
use crate::control::{self, Answer, Command};

/// Tells the running daemon to read a table again.
///
/// # Errors
/// When there is no such source or daemon, or the table can't be read; the error says why.
pub async fn snapshot(config: &Config, source: &str, table: &str, json: bool) -> Result<ExitCode> {
    super::source(config, source)?;
    let command = Command::Snapshot { source: source.to_owned(), table: table.to_owned() };
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
    let text =
        format!("{source}: {table} is being read again; lakeward status says how far it is\n");
    print(json, &json!({ "source": source, "table": table, "state": "snapshot" }), &text)?;
    Ok(ExitCode::SUCCESS)
}
