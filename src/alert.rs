//! Who is told when something is wrong: a webhook gets a message when a table stops or has lost its
//! place, a source can't be followed, lag passes a limit or a verification finds a difference, and
//! another when that is over.
//!
//! What is posted leaves the house: it names sources and tables, never a reason, which may hold a
//! row's value. The body is `{"text": "…"}`, which Slack and those that are like it take.

use std::collections::BTreeSet;
use std::time::Duration;

use lakeward_connectors::secret::Secret;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::board::{Board, SourceFacts, Standing};
use crate::epoch::State;
use crate::pipeline::now_ms;
use crate::verify::Outcome;

/// How often the board is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Messages are so far apart; what changes meanwhile goes into the next one.
const APART: Duration = Duration::from_secs(10);
/// How long the webhook may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A source that could not be followed for so long is told.
const DOWN_MS: i64 = 60_000;
/// A message has so many lines; the others are counted.
const LINES: usize = 20;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Down,
    Lag,
    Stopped,
    Gap,
    Differs,
}

impl Wrong {
    /// What is said when it begins, and when it is over.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Down => ("is not being followed", "is being followed again"),
            Self::Lag => ("lags behind", "has caught up"),
            Self::Stopped => ("is stopped", "is not stopped any more"),
            Self::Gap => ("has lost its place and is read again", "has its place again"),
            Self::Differs => ("differs from the source", "was compared again, and is equal"),
        }
    }
}

/// Something that is wrong: with a source, or with one of its tables.
type Alarm = (String, Option<String>, Wrong);

/// Tells `webhook` of whatever is wrong on the board.
pub async fn watch(board: Board, webhook: Secret, lag: Duration) {
    let client = match reqwest::Client::builder().timeout(PATIENCE).build() {
        Ok(client) => client,
        Err(error) => {
            warn!(%error, "nobody is told what is wrong: the webhook can't be used");
            return;
        }
    };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What the webhook has been told: a message that didn't arrive is tried again.
    let (mut told, mut last) = (BTreeSet::new(), None::<Instant>);
    loop {
        tick.tick().await;
        let now = alarms(&board, lag);
        if now == told || last.is_some_and(|last| last.elapsed() < APART) {
            continue;
        }
        last = Some(Instant::now());
        let body = serde_json::json!({ "text": message(&told, &now) }).to_string();
        let json = "application/json";
        let post = client.post(webhook.reveal()).header("content-type", json).body(body);
        // The address may be a secret.
        match post.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => {
                info!(wrong = now.len(), "the webhook was told");
                told = now;
            }
            Err(error) => {
                let error = error.without_url();
                warn!(%error, "the webhook did not take a message; it is tried again");
            }
        }
    }
}

/// All that is wrong now.
fn alarms(board: &Board, lag: Duration) -> BTreeSet<Alarm> {
    let mut found = BTreeSet::new();
    board.each(|source, facts| of_source(source, facts, lag, &mut found));
    found
}

fn of_source(source: &str, facts: &SourceFacts, limit: Duration, found: &mut BTreeSet<Alarm>) {
    let now = now_ms();
    let mut wrong = |table: Option<String>, what| found.insert((source.to_owned(), table, what));
    let down = match facts.standing {
        Standing::Failed => true,
        Standing::Starting | Standing::Retrying => now - facts.since_ms >= DOWN_MS,
        Standing::Following | Standing::Ended | Standing::Removed => false,
    };
    if down {
        wrong(None, Wrong::Down);
    }
    let behind = facts.lag.map_or(0, |lag| lag.at(now));
    if u128::try_from(behind).is_ok_and(|behind| behind > limit.as_millis()) {
        wrong(None, Wrong::Lag);
    }
    for (id, table) in &facts.tables {
        match table.state {
            State::Stopped => wrong(Some(id.to_string()), Wrong::Stopped),
            State::Gap => wrong(Some(id.to_string()), Wrong::Gap),
            State::Live | State::Paused | State::Snapshot | State::Dropped => false,
        };
        let verified = table.verified.as_ref();
        if verified.is_some_and(|verified| verified.outcome == Outcome::Different) {
            wrong(Some(id.to_string()), Wrong::Differs);
        }
    }
}

/// What has begun and what is over since `before`.
fn message(before: &BTreeSet<Alarm>, now: &BTreeSet<Alarm>) -> String {
    let line = |(source, table, wrong): &Alarm, over: bool| {
        let (begins, ends) = wrong.words();
        let what = if over { ends } else { begins };
        match table {
            Some(table) => format!("Lakeward: {source} {table} {what}"),
            None => format!("Lakeward: {source} {what}"),
        }
    };
    let begun = now.difference(before).map(|alarm| line(alarm, false));
    let over = before.difference(now).map(|alarm| line(alarm, true));
    let mut lines: Vec<_> = begun.chain(over).collect();
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("and {more} more"));
    }
    if !now.is_empty() {
        lines.push("Why, and what helps: the status page, or lakeward status".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_what_begins_and_what_is_over() {
        let alarm = |table: &str, wrong| ("shop".to_owned(), Some(table.to_owned()), wrong);
        let before = BTreeSet::from([alarm("a.b", Wrong::Gap)]);
        let now = BTreeSet::from([alarm("a.c", Wrong::Stopped)]);
        let text = message(&before, &now);
        assert_eq!(
            text.lines().take(2).collect::<Vec<_>>(),
            ["Lakeward: shop a.c is stopped", "Lakeward: shop a.b has its place again"]
        );
        let many = (0..30).map(|n| alarm(&format!("a.t{n:02}"), Wrong::Stopped)).collect();
        let text = message(&BTreeSet::new(), &many);
        assert!(text.contains("and 10 more"), "{text}");
    }
}
