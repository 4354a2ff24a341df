//! Where a MongoDB log is read, and what a read sees.
//!
//! The log of a replica set is one list in the order of cluster times; each entry has its own, and
//! all events of a transaction are events of one entry (MongoDB manual, "Change Streams": events of
//! a transaction share their `clusterTime`). So a cluster time is what the log calls one
//! transaction, and the greatest one read through is the position; this connector hands on a
//! cluster time only with all its events. Resume tokens say where reading goes on, and are never
//! compared: their bytes mean nothing to anybody but the server that made them.

use std::fmt;
use std::str::FromStr;

use ::mongodb::bson::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source;

/// A cluster time: seconds of Unix time and an ordinal within the second. Written `1700000000.3`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Time {
    /// Seconds of Unix time by the server's clock, or a little ahead of it.
    pub seconds: u32,
    /// Counts entries within the second, from 1.
    pub ordinal: u32,
}

impl Time {
    /// The least time after this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.ordinal.checked_add(1) {
            Some(ordinal) => Self { ordinal, ..self },
            None => Self { seconds: self.seconds.saturating_add(1), ordinal: 0 },
        }
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self { seconds: timestamp.time, ordinal: timestamp.increment }
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Self { time: time.seconds, increment: time.ordinal }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seconds, self.ordinal)
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('.');
        let time = parts.and_then(|(seconds, ordinal)| {
            Some(Self { seconds: seconds.parse().ok()?, ordinal: ordinal.parse().ok()? })
        });
        time.ok_or_else(|| Error::internal(format!("'{text}' is not a cluster time")))
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Time {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// A place in the log: everything up to a cluster time has been read, and nothing after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The greatest cluster time read through.
    pub time: Time,
    /// The resume token from which reading goes on without missing anything after `time`, as
    /// canonical Extended JSON; `None` where there is none yet, and the time itself has to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Position {
    /// The place just after `time`, where no token is known.
    pub fn at(time: Time) -> Self {
        Self { time, token: None }
    }
}

impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse().map(Self::at)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time.fmt(f)
    }
}

/// Positions of one log are ordered by their times. Of two of the same time the one with a token is
/// preferred, and it doesn't matter whose: nothing that is asked for lies between them.
impl source::Position for Position {
    type Transaction = Time;

    fn contains(&self, transaction: &Time) -> bool {
        *transaction <= self.time
    }

    fn covers(&self, other: &Self) -> bool {
        other.time <= self.time
    }

    fn meet(&self, other: &Self) -> Self {
        match self.time.cmp(&other.time) {
            std::cmp::Ordering::Less => self.clone(),
            std::cmp::Ordering::Greater => other.clone(),
            std::cmp::Ordering::Equal if self.token.is_some() => self.clone(),
            std::cmp::Ordering::Equal => other.clone(),
        }
    }

    fn join(&self, other: &Self) -> Self {
        match self.time.cmp(&other.time) {
            std::cmp::Ordering::Less => other.clone(),
            std::cmp::Ordering::Greater => self.clone(),
            std::cmp::Ordering::Equal => self.meet(other),
        }
    }

    fn seconds_since(&self, earlier: &Self) -> Option<u64> {
        Some(self.time.seconds.saturating_sub(earlier.time.seconds).into())
    }
}

/// What a read sees: at least everything that was committed by a majority at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible {
    /// The time; a lower bound, so what came later is perhaps seen, too.
    pub since: Time,
}

impl source::View<Time> for Visible {
    fn sees(&self, transaction: &Time) -> bool {
        *transaction <= self.since
    }

    /// A transaction is in the log at its commit and nowhere else, with all it changed: one that was
    /// under way when a collection joined is in the log whole.
    fn is_past(&self, earlier: &Self) -> bool {
        earlier.since <= self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Position as _, View};

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn position(text: &str, token: Option<&str>) -> Position {
        Position { time: time(text), token: token.map(str::to_owned) }
    }

    #[test]
    fn a_time_reads_as_it_is_written() {
        for text in ["0.0", "1700000000.3", "4294967295.4294967295"] {
            assert_eq!(time(text).to_string(), text);
        }
        for text in ["", "1", ".", "1.", "-1.2", "1.2.3", "4294967296.0"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!(time("2.1") > time("1.9") && time("1.10") > time("1.9"));
        assert_eq!(time("1.2").next(), time("1.3"));
        assert_eq!(time("1.4294967295").next(), time("2.0"));
    }

    #[test]
    fn positions_follow_their_times() {
        let (early, late) = (position("5.1", Some("a")), position("5.2", Some("b")));
        assert!(late.contains(&time("5.2")) && !early.contains(&time("5.2")));
        assert!(late.covers(&early) && !early.covers(&late));
        assert_eq!((early.meet(&late), late.join(&early)), (early.clone(), late));
        let bare = position("5.1", None);
        assert_eq!((bare.meet(&early), early.meet(&bare)), (early.clone(), early.clone()));
        assert_eq!((bare.join(&early), early.join(&bare)), (early.clone(), early));
        let between = |a: &str, b: &str| position(a, None).seconds_since(&position(b, None));
        assert_eq!((between("9.1", "5.7"), between("5.7", "9.1")), (Some(4), Some(0)));
    }

    #[test]
    fn a_position_is_stored_with_its_token() {
        let json = serde_json::to_string(&position("7.1", Some("{}"))).unwrap();
        assert_eq!(json, r#"{"time":"7.1","token":"{}"}"#);
        assert_eq!(serde_json::to_string(&position("7.1", None)).unwrap(), r#"{"time":"7.1"}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position("7.1", Some("{}")));
    }

    #[test]
    fn a_view_sees_what_a_majority_had() {
        let view = Visible { since: time("9.5") };
        assert!(view.sees(&time("9.5")) && !view.sees(&time("9.6")));
        assert!(view.is_past(&Visible { since: time("9.4") }));
        assert!(!view.is_past(&Visible { since: time("9.6") }));
    }
}
