//! What verifications found, saved in the lake: `lakeward status` reads it there, and a daemon that
//! starts shows it again.
//!
//! One small file a source, `_lakeward/<source>/verified.json`. Nothing depends on it: it holds
//! neither keys nor values, one that is gone or can't be read is as if nothing had been verified, and
//! the next verification writes it anew.

use std::collections::BTreeMap;
use std::time::Duration;

use lakeward_connectors::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Found;
use crate::board::Board;
use crate::delta::Lake;

/// The version of the file's format; a file of another one counts as none.
const FORMAT: u32 = 1;

/// How often the board is looked at for what is not saved yet.
const LOOK: Duration = Duration::from_secs(1);

/// How long a store that did not answer is left alone.
const REST: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u32,
    tables: Found,
}

fn path(source: &str) -> String {
    format!("_lakeward/{source}/verified.json")
}

/// What the newest verification of each table of `source` found, as far as the lake knows.
///
/// # Errors
/// When the lake can't be read.
pub async fn read(lake: &Lake, source: &str) -> Result<Found> {
    let bytes = lake.get(&path(source)).await?;
    let file = bytes.and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
    Ok(file.filter(|file| file.format == FORMAT).map(|file| file.tables).unwrap_or_default())
}

async fn write(lake: &Lake, source: &str, tables: Found) -> Result<()> {
    let tables = tables.into_iter().map(|(id, found)| (id, found.in_sum())).collect();
    let bytes = serde_json::to_vec(&File { format: FORMAT, tables }).map_err(|error| {
        Error::internal("what verifications found can't be written").caused_by(error)
    })?;
    lake.put(&path(source), bytes.into()).await
}

/// How many verifications of each source are saved; a source that is not in it has not been read.
type Saved = BTreeMap<String, u64>;

/// Saves what verifications of the sources on `board` find, until `end`, and puts up what an earlier
/// process has saved.
pub async fn keep(board: Board, lake: Lake, end: CancellationToken) {
    let mut saved = Saved::new();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = end.cancelled() => {}
        }
        // Once more after it was told to end.
        let ends = end.is_cancelled();
        let looked = look(&board, &lake, &mut saved).await;
        if let Err(error) = &looked {
            warn!(error = error.full(), "what verifications found is not saved in the lake");
        }
        if ends {
            return;
        }
        if looked.is_err() {
            tokio::select! {
                () = tokio::time::sleep(REST) => {}
                () = end.cancelled() => {}
            }
        }
    }
}

async fn look(board: &Board, lake: &Lake, saved: &mut Saved) -> Result<()> {
    let mut sources = Vec::new();
    board.each(|name, facts| {
        if !facts.tables.is_empty() {
            sources.push((name.to_owned(), facts.verifications));
        }
    });
    for (source, count) in sources {
        if !saved.contains_key(&source) {
            board.remember(&source, &read(lake, &source).await?);
            saved.insert(source.clone(), 0);
        }
        if saved.get(&source) != Some(&count) {
            write(lake, &source, board.verified(&source)).await?;
            saved.insert(source, count);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lakeward_connectors::TableId;

    use super::super::{Kind, Outcome, Skip, Verified};
    use super::*;
    use crate::board::{Sight, TableSight};
    use crate::epoch::State;

    fn id(name: &str) -> TableId {
        TableId::new("public", name)
    }

    /// A board on which a source has these tables.
    fn board(names: &[&str]) -> Board {
        let board = Board::default();
        let ids: Vec<_> = names.iter().map(|name| id(name)).collect();
        let seen = ids.iter().map(|id| TableSight {
            id,
            state: State::Live,
            reason: None,
            changes: 0,
            lag_ms: None,
            reading: None,
            rows_read: 0,
        });
        board.source("shop", "postgres").saw(Sight::default(), seen);
        board
    }

    fn outcomes(found: &Found) -> Vec<(String, Outcome)> {
        found.iter().map(|(id, found)| (id.to_string(), found.outcome)).collect()
    }

    #[tokio::test]
    async fn what_was_found_outlives_the_process_and_tells_no_row() {
        let lake = Lake::memory();
        let (first, mut saved) = (board(&["t", "u"]), Saved::new());
        look(&first, &lake, &mut saved).await.unwrap();
        assert!(lake.list("_lakeward").await.unwrap().is_empty(), "nothing was verified yet");
        let mut found = Verified::of(Outcome::Equal, 7, Duration::ZERO);
        found.note(Kind::Changed, vec!["a key".to_owned()], vec!["v".to_owned()]);
        let meter = first.source("shop", "postgres");
        meter.verified(&id("t"), &found);
        let why = Skip { reason: "it is stopped".to_owned(), cause: Some("a value".to_owned()) };
        meter.verified(&id("u"), &Verified::skipped(8, why));
        look(&first, &lake, &mut saved).await.unwrap();
        let bytes = lake.get("_lakeward/shop/verified.json").await.unwrap().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains("it is stopped"), "{text}");
        assert!(!text.contains("a key") && !text.contains("a value"), "{text}");

        // Another process, for which one of the tables is gone.
        let (second, mut saved) = (board(&["t", "w"]), Saved::new());
        look(&second, &lake, &mut saved).await.unwrap();
        let different = ("public.t".to_owned(), Outcome::Different);
        assert_eq!(outcomes(&second.verified("shop")), std::slice::from_ref(&different));
        assert_eq!(read(&lake, "shop").await.unwrap().len(), 2, "nothing new: nothing is written");
        let equal = Verified::of(Outcome::Equal, 9, Duration::ZERO);
        second.source("shop", "postgres").verified(&id("w"), &equal);
        look(&second, &lake, &mut saved).await.unwrap();
        let left = read(&lake, "shop").await.unwrap();
        assert_eq!(outcomes(&left), [different, ("public.w".to_owned(), Outcome::Equal)]);
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_read_is_none() {
        let lake = Lake::memory();
        for text in ["", "{", r#"{"format":2,"tables":{}}"#, r#"{"format":1,"tables":[1]}"#] {
            lake.put("_lakeward/shop/verified.json", text.into()).await.unwrap();
            assert_eq!(read(&lake, "shop").await.unwrap(), Found::new());
        }
    }
}
