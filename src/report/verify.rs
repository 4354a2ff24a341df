//! `lakeward verify`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use lakeward_connectors::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::print;
use crate::config::Config;
use crate::control::{self, Answer, Command};
use crate::daemon::{self, Until};
use crate::verify::{INTERRUPTED, Kind, Outcome, Request, Told, UNSEEN, Verified};

/// Compares `source` with the lake: asks the running daemon to, or does it here.
///
/// # Errors
/// When there is no such source, or it could not be compared to the end.
pub async fn verify(
    config: &Config,
    source: &str,
    request: Request,
    json: bool,
    stop: CancellationToken,
) -> Result<ExitCode> {
    let known = super::source(config, source)?;
    let command = Command::Verify { source: source.to_owned(), request: request.clone() };
    let verified = match control::ask(&config.lake.state_dir, &command).await? {
        Some(mut answers) => asked(&mut answers, json, &stop).await?,
        None => {
            let mut alone = config.clone();
            alone.sources = BTreeMap::from([(source.to_owned(), known.clone())]);
            let outcome =
                daemon::keep(&alone, Until::Current(Some(&request)), stop.clone()).await?;
            let ended = outcome.into_values().next().unwrap_or_else(|| Ok(Default::default()))?;
            let found = ended.verified.into_iter();
            let found: Verifieds = found.map(|(id, found)| (id.to_string(), found)).collect();
            if !json {
                found.iter().for_each(|(table, found)| print!("{}", text(table, found)));
            }
            found
        }
    };
    if stop.is_cancelled() {
        return Err(Error::unavailable("it was told to end before it was done"));
    }
    if verified.is_empty() {
        return Err(match request.table {
            Some(table) => Error::config("nothing was compared").with("table", table).remedy(
                "lakeward tables lists the tables of the source; name one as \"schema.table\"",
            ),
            None => Error::unavailable(
                "nothing was compared: the source is not followed, or has no table",
            )
            .remedy("lakeward status says what each table is doing"),
        });
    }
    if json {
        print(true, &verified, "")?;
    }
    let told = |outcome| verified.values().any(|found| found.outcome == outcome);
    let unanswered = request.table.is_some() && told(Outcome::Skipped);
    let interrupted = verified.values().any(|found| found.reason.as_deref() == Some(INTERRUPTED));
    match told(Outcome::Different) || unanswered || interrupted {
        true => Ok(ExitCode::FAILURE),
        false => Ok(ExitCode::SUCCESS),
    }
}

type Verifieds = BTreeMap<String, Verified>;

/// What the daemon answers, told as it comes.
async fn asked(
    answers: &mut control::Answers,
    json: bool,
    stop: &CancellationToken,
) -> Result<Verifieds> {
    let mut verified = Verifieds::new();
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer?,
            () = stop.cancelled() => return Ok(verified),
        };
        match answer {
            Some(Answer::Verified(table, found)) => {
                if !json {
                    print!("{}", text(&table, &found));
                }
                verified.insert(table, found);
            }
            Some(Answer::Refused(why)) => return Err(Error::config(why)),
            Some(Answer::Done) => return Ok(verified),
            _ => return Err(Error::unavailable("the daemon ended before it had answered")),
        }
    }
}

/// One table's line, and its differences.
fn text(table: &str, found: &Verified) -> String {
    let (rows, seconds) = (found.rows, found.took_ms as f64 / 1e3);
    let megabytes = found.bytes as f64 / 1e6;
    let cost = format!("{rows} rows in {seconds:.1} s, {megabytes:.1} MB read");
    let mut text = match found.outcome {
        Outcome::Equal => format!("{table:<40} equal      {cost}\n"),
        Outcome::Skipped => {
            let both = [&found.reason, &found.cause].into_iter().flatten();
            let why: Vec<_> = both.map(String::as_str).collect();
            format!("{table:<40} skipped    {}\n", why.join(": "))
        }
        Outcome::Different => {
            let Verified { missing, extra, changed, .. } = found;
            let repaired = if found.repaired { ", repaired" } else { "" };
            format!(
                "{table:<40} different  {missing} missing, {extra} only in the lake, {changed} \
                 with other values{repaired}; {cost}\n"
            )
        }
    };
    if found.more {
        text.push_str(&format!(
            "    no more than {UNSEEN} rows that only the lake seems to have are looked for at a \
             time, and there may be more: verify it again, once these are repaired\n"
        ));
    }
    for Told { kind, key, columns } in &found.differences {
        let key = key.join(", ");
        text.push_str(&match kind {
            Kind::Missing => format!("    {key}: not in the lake\n"),
            Kind::Extra => format!("    {key}: only in the lake\n"),
            Kind::Changed => format!("    {key}: {} differ\n", columns.join(", ")),
        });
    }
    text
}
