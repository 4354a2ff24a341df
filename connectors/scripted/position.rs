//! Positions as GTID sets are: for each origin the numbers of its transactions, in any order.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::source::{Position, View};

/// One transaction: where it was made, and its number there (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gtid {
    /// Where it was made.
    pub origin: char,
    /// Its number there.
    pub number: u64,
}

/// `a:5`.
impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

/// First and last of numbers without a hole.
type Interval = (u64, u64);

/// A set of transactions, written `a:1-5:7,b:1-3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Gtids {
    /// By origin: ascending, disjoint, never adjacent, never empty.
    origins: BTreeMap<char, Vec<Interval>>,
}

impl Gtids {
    /// The set of nothing: before the first transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one transaction.
    pub fn insert(&mut self, gtid: Gtid) {
        self.add(gtid.origin, (gtid.number, gtid.number));
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The number after the highest of `origin`.
    pub(super) fn next(&self, origin: char) -> u64 {
        1 + self.intervals(origin).last().map_or(0, |(_, last)| *last)
    }

    fn add(&mut self, origin: char, (mut first, mut last): Interval) {
        let intervals = self.origins.entry(origin).or_default();
        let start = intervals.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = intervals.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        if let Some(touched) = intervals.get(start..end).filter(|touched| !touched.is_empty()) {
            first = first.min(touched[0].0);
            last = last.max(touched[touched.len() - 1].1);
        }
        intervals.splice(start..end, [(first, last)]);
    }

    fn intervals(&self, origin: char) -> &[Interval] {
        self.origins.get(&origin).map_or(&[], Vec::as_slice)
    }

    fn iter(&self) -> impl Iterator<Item = (char, Interval)> + '_ {
        let all = self.origins.iter();
        all.flat_map(|(origin, intervals)| intervals.iter().map(|interval| (*origin, *interval)))
    }
}

impl FromIterator<Gtid> for Gtids {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut set = Self::new();
        gtids.into_iter().for_each(|gtid| set.insert(gtid));
        set
    }
}

impl Position for Gtids {
    type Transaction = Gtid;

    fn contains(&self, gtid: &Gtid) -> bool {
        let intervals = self.intervals(gtid.origin);
        let after = intervals.partition_point(|(first, _)| *first <= gtid.number);
        after > 0 && gtid.number <= intervals[after - 1].1
    }

    fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(origin, (first, last))| {
            self.intervals(origin).iter().any(|mine| mine.0 <= first && last <= mine.1)
        })
    }

    fn meet(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for (origin, (first, last)) in self.iter() {
            for theirs in other.intervals(origin) {
                let common = (first.max(theirs.0), last.min(theirs.1));
                if common.0 <= common.1 {
                    both.add(origin, common);
                }
            }
        }
        both
    }

    fn join(&self, other: &Self) -> Self {
        let mut either = self.clone();
        other.iter().for_each(|(origin, interval)| either.add(origin, interval));
        either
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (origin, intervals)) in self.origins.iter().enumerate() {
            write!(f, "{}{origin}", if index == 0 { "" } else { "," })?;
            for (first, last) in intervals {
                match first == last {
                    true => write!(f, ":{first}")?,
                    false => write!(f, ":{first}-{last}")?,
                }
            }
        }
        Ok(())
    }
}

impl From<Gtids> for String {
    fn from(gtids: Gtids) -> Self {
        gtids.to_string()
    }
}

impl TryFrom<String> for Gtids {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text).ok_or_else(|| format!("'{text}' is not of the form a:1-5:7,b:1-3"))
    }
}

fn parse(text: &str) -> Option<Gtids> {
    let mut set = Gtids::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (origin, intervals) = part.split_once(':')?;
        let mut characters = origin.chars();
        let (Some(origin), None) = (characters.next(), characters.next()) else {
            return None;
        };
        for interval in intervals.split(':') {
            let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            set.add(origin, (first, last));
        }
    }
    Some(set)
}

/// What a read view sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Exactly these transactions, or at least these.
    pub visible: Gtids,
    /// The transactions in the log when the view was taken, visible or not.
    pub logged: Gtids,
}

impl View<Gtid> for Seen {
    fn sees(&self, gtid: &Gtid) -> bool {
        self.visible.contains(gtid)
    }

    fn is_past(&self, earlier: &Self) -> bool {
        self.visible.covers(&earlier.logged)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn gtids(text: &str) -> Gtids {
        Gtids::try_from(text.to_owned()).unwrap()
    }

    fn set_of(members: &BTreeSet<(char, u64)>) -> Gtids {
        members.iter().map(|&(origin, number)| Gtid { origin, number }).collect()
    }

    fn members() -> impl Strategy<Value = BTreeSet<(char, u64)>> {
        proptest::collection::btree_set((prop_oneof![Just('a'), Just('b')], 1..9_u64), 0..12)
    }

    proptest! {
        #[test]
        fn positions_are_sets(one in members(), other in members()) {
            let (a, b) = (set_of(&one), set_of(&other));
            prop_assert_eq!(a.meet(&b), set_of(&(&one & &other)));
            prop_assert_eq!(a.join(&b), set_of(&(&one | &other)));
            prop_assert_eq!(a.covers(&b), one.is_superset(&other));
            for origin in ['a', 'b', 'c'] {
                for number in 0..10 {
                    let held = one.contains(&(origin, number));
                    prop_assert_eq!(a.contains(&Gtid { origin, number }), held);
                }
            }
            let json = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(serde_json::from_str::<Gtids>(&json).unwrap(), a);
        }
    }

    #[test]
    fn positions_read_as_they_are_written() {
        let written = "a:1-5:7,b:3";
        assert_eq!(gtids(written).to_string(), written);
        assert_eq!(gtids("a:1-2:3:5").to_string(), "a:1-3:5");
        assert!(
            ["a", "a:x", "ab:1", "a:3-1"].iter().all(|t| Gtids::try_from((*t).to_owned()).is_err())
        );
    }
}
