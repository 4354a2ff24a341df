//! Sets of transactions as MySQL and MariaDB write them.
//!
//! MySQL (documentation, "GTID Format and Storage"): `uuid:1-5:7,uuid:tag:1`; any numbers of a
//! source may be missing, so a set is only partially ordered. MariaDB ("Global Transaction ID"):
//! `domain-server-number`; a set is the last one of every domain, and all before it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Who made transactions: a server's UUID and, from MySQL 8.3, a tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The UUID.
    pub uuid: [u8; 16],
    /// The tag, lower case; mostly empty.
    pub tag: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.uuid.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{byte:02x}")?;
        }
        match self.tag.is_empty() {
            true => Ok(()),
            false => write!(f, ":{}", self.tag),
        }
    }
}

/// The sixteen bytes of a UUID's text, with or without dashes.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits =
        text.bytes().filter(|byte| *byte != b'-').map(|byte| char::from(byte).to_digit(16));
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(uuid)
}

/// First and last of numbers without a hole.
pub type Interval = (u64, u64);

/// A set of MySQL's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gtids {
    /// Ascending, disjoint, never adjacent, never empty.
    origins: BTreeMap<Origin, Vec<Interval>>,
}

impl Gtids {
    /// Reads the server's own form; line breaks are let pass.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let mut origin = Origin { uuid: parse_uuid(pieces.next()?)?, tag: String::new() };
            for piece in pieces {
                if !piece.starts_with(|first: char| first.is_ascii_digit()) {
                    piece.to_ascii_lowercase().clone_into(&mut origin.tag);
                    continue;
                }
                let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                if first == 0 || first > last {
                    return None;
                }
                set.add(&origin, (first, last));
            }
        }
        Some(set)
    }

    /// Adds one transaction.
    pub fn insert(&mut self, origin: &Origin, number: u64) {
        // The usual case: the next one of a source that is known.
        if let Some(last) = self.origins.get_mut(origin).and_then(|known| known.last_mut())
            && last.1.checked_add(1) == Some(number)
        {
            last.1 = number;
            return;
        }
        self.add(origin, (number, number));
    }

    fn add(&mut self, origin: &Origin, (mut first, mut last): Interval) {
        if !self.origins.contains_key(origin) {
            self.origins.insert(origin.clone(), Vec::new());
        }
        let Some(intervals) = self.origins.get_mut(origin) else { return };
        let start = intervals.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = intervals.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        if let Some([(low, _), ..]) = intervals.get(start..end) {
            first = first.min(*low);
        }
        if let Some([.., (_, high)]) = intervals.get(start..end) {
            last = last.max(*high);
        }
        intervals.splice(start..end.max(start), [(first, last)]);
    }

    fn of(&self, origin: &Origin) -> &[Interval] {
        self.origins.get(origin).map_or(&[], Vec::as_slice)
    }

    /// Every origin with its numbers.
    pub fn origins(&self) -> impl Iterator<Item = (&Origin, &[Interval])> {
        self.origins.iter().map(|(origin, intervals)| (origin, intervals.as_slice()))
    }

    fn iter(&self) -> impl Iterator<Item = (&Origin, Interval)> {
        self.origins().flat_map(|(origin, all)| all.iter().map(move |one| (origin, *one)))
    }

    /// Whether it holds one transaction.
    pub fn contains(&self, origin: &Origin, number: u64) -> bool {
        let intervals = self.of(origin);
        let after = intervals.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).and_then(|at| intervals.get(at)).is_some_and(|one| number <= one.1)
    }

    /// Whether it holds all of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(origin, (first, last))| {
            self.of(origin).iter().any(|mine| mine.0 <= first && last <= mine.1)
        })
    }

    /// What both hold.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (origin, (first, last)) in self.iter() {
            for theirs in other.of(origin) {
                let common = (first.max(theirs.0), last.min(theirs.1));
                if common.0 <= common.1 {
                    both.add(origin, common);
                }
            }
        }
        both
    }

    /// What either holds.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut either = self.clone();
        other.iter().for_each(|(origin, interval)| either.add(origin, interval));
        either
    }

    /// The form of COM_BINLOG_DUMP_GTID: the number of origins, and for each its UUID and its
    /// intervals, whose ends are exclusive. With a tag among them the form of MySQL 8.3.
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.origins.keys().any(|origin| !origin.tag.is_empty());
        let count = self.origins.len() as u64;
        let mut out = match tagged {
            false => count.to_le_bytes().to_vec(),
            // Both ends of the word name the form; the number lies between.
            true => (1 | count << 8 | 1 << 56).to_le_bytes().to_vec(),
        };
        for (origin, intervals) in &self.origins {
            out.extend(origin.uuid);
            if tagged {
                // A tag has at most 32 characters: its length fits into the one-byte form.
                out.push((origin.tag.len() as u8) << 1);
                out.extend(origin.tag.as_bytes());
            }
            out.extend((intervals.len() as u64).to_le_bytes());
            for (first, last) in intervals {
                out.extend(first.to_le_bytes());
                out.extend(last.saturating_add(1).to_le_bytes());
            }
        }
        out
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

/// A set of MariaDB's: for each domain who made the last transaction, and its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    last: BTreeMap<u32, (u32, u64)>,
}

impl Domains {
    /// Reads the server's own form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut numbers = part.split('-');
            let mut next = || numbers.next()?.parse::<u64>().ok();
            let (domain, server, number) = (next()?, next()?, next()?);
            if numbers.next().is_some() {
                return None;
            }
            set.insert(u32::try_from(domain).ok()?, u32::try_from(server).ok()?, number);
        }
        Some(set)
    }

    /// Adds one transaction, and all before it.
    pub fn insert(&mut self, domain: u32, server: u32, number: u64) {
        let known = self.last.entry(domain).or_insert((server, number));
        if known.1 < number {
            *known = (server, number);
        }
    }

    /// Whether it holds one transaction.
    pub fn contains(&self, domain: u32, number: u64) -> bool {
        self.last.get(&domain).is_some_and(|(_, last)| number <= *last)
    }

    /// Whether it holds all of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.last.iter().all(|(domain, (_, number))| self.contains(*domain, *number))
    }

    /// What both hold.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let lesser = |(domain, mine): (&u32, &(u32, u64))| {
            let theirs = other.last.get(domain)?;
            Some((*domain, if mine.1 <= theirs.1 { *mine } else { *theirs }))
        };
        Self { last: self.last.iter().filter_map(lesser).collect() }
    }

    /// What either holds.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut either = self.clone();
        other.last.iter().for_each(|(domain, last)| either.insert(*domain, last.0, last.1));
        either
    }
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (domain, (server, number))) in self.last.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{domain}-{server}-{number}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn origin(last: u8) -> Origin {
        let mut uuid = [7; 16];
        uuid[15] = last;
        Origin { uuid, tag: if last == 2 { "t".to_owned() } else { String::new() } }
    }

    fn set(numbers: &BTreeSet<(u8, u64)>) -> Gtids {
        let mut set = Gtids::default();
        numbers.iter().for_each(|(from, number)| set.insert(&origin(*from), *number));
        set
    }

    #[test]
    fn sets_read_as_they_are_written() {
        for text in ["", &format!("{A}:1-5:7"), &format!("{A}:1,{A}:blue:2-3")] {
            assert_eq!(Gtids::parse(text).map(|set| set.to_string()).as_deref(), Some(text));
        }
        let untidy = Gtids::parse(&format!("{}:3-5:1-2,\n{A}:6", A.to_uppercase())).unwrap();
        assert_eq!(untidy.to_string(), format!("{A}:1-6"));
        assert!(Gtids::parse("x:1").is_none() && Gtids::parse(&format!("{A}:2-1")).is_none());
        let text = "0-1-100,7-2-3";
        assert_eq!(Domains::parse(text).map(|set| set.to_string()).as_deref(), Some(text));
        assert!(Domains::parse("0-1").is_none() && Domains::parse("0-1-2-3").is_none());
    }

    #[test]
    fn a_set_is_sent_with_exclusive_ends() {
        let set = Gtids::parse(&format!("{A}:1-5")).unwrap().encode();
        assert_eq!(set.len(), 8 + 16 + 8 + 16);
        assert_eq!((set[0], set[24], set[32], set[40]), (1, 1, 1, 6));
        let tagged = Gtids::parse(&format!("{A}:blue:1")).unwrap().encode();
        assert_eq!((tagged[0], tagged[1], tagged[7], tagged[24]), (1, 1, 1, 8));
    }

    #[test]
    fn domains_are_ordered_each_by_itself() {
        let parse = |text| Domains::parse(text).unwrap();
        let (a, b) = (parse("0-1-5,1-1-9"), parse("0-2-7,2-1-1"));
        assert_eq!(a.meet(&b).to_string(), "0-1-5");
        assert_eq!(a.join(&b).to_string(), "0-2-7,1-1-9,2-1-1");
        assert!(!a.covers(&b) && a.join(&b).covers(&a) && a.covers(&a.meet(&b)));
        assert!(a.contains(1, 9) && !a.contains(1, 10) && !a.contains(2, 1));
    }

    proptest! {
        #[test]
        fn sets_are_sets(
            a in proptest::collection::btree_set((0_u8..3, 1_u64..12), 0..20),
            b in proptest::collection::btree_set((0_u8..3, 1_u64..12), 0..20),
        ) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.covers(&y), a.is_superset(&b));
            prop_assert_eq!(x.meet(&y), set(&a.intersection(&b).copied().collect()));
            prop_assert_eq!(x.join(&y), set(&a.union(&b).copied().collect()));
            for number in 0..12 {
                prop_assert_eq!(x.contains(&origin(1), number), a.contains(&(1, number)));
            }
            prop_assert_eq!(Gtids::parse(&x.to_string()), Some(x));
        }
    }
}
