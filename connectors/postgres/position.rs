//! Where a Postgres log is read, and what a statement sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source::{Position, View};

/// A place in the write-ahead log: the end of a commit record, or any place between transactions
/// that the server has reported as read. Written as Postgres writes it, `0/16B3748`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

/// A transaction: where its commit record begins (`final_lsn` of a Begin message) and its xid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "(Lsn, u32)", from = "(Lsn, u32)")]
pub struct Commit {
    /// Where the commit record begins; a position beyond it contains the transaction.
    pub lsn: Lsn,
    /// The 32-bit transaction id that the stream names.
    pub xid: u32,
}

/// What a statement sees: the value of `pg_current_snapshot()`, whose ids have 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// All transactions below have ended.
    pub xmin: u64,
    /// This and all above had not begun.
    pub xmax: u64,
    /// Those between that had not ended, ascending.
    pub xip: Vec<u64>,
    /// Those of `xip` that may have written to this database: all that are not known to be at work
    /// in another one.
    pub open: Vec<u64>,
}

impl Lsn {
    /// The same place, with the header of a page that nothing follows yet left out.
    ///
    /// `pg_current_wal_insert_lsn()` names where the next record will begin: at the start of a
    /// page, behind its header of 24 or 40 bytes. The stream reports where the last record ended,
    /// before the header, and on a resting server would never be seen to reach the former.
    #[must_use]
    pub fn without_page_header(self) -> Self {
        const PAGE: u64 = 8192;
        match self.0 % PAGE {
            24 | 40 => Self(self.0 - self.0 % PAGE),
            _ => self,
        }
    }
}

impl Position for Lsn {
    type Transaction = Commit;

    fn contains(&self, transaction: &Commit) -> bool {
        transaction.lsn < *self
    }

    fn covers(&self, other: &Self) -> bool {
        other <= self
    }

    fn meet(&self, other: &Self) -> Self {
        *self.min(other)
    }

    fn join(&self, other: &Self) -> Self {
        *self.max(other)
    }

    fn bytes_since(&self, earlier: &Self) -> Option<u64> {
        Some(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// Its place in the log with leading zeros, so that texts sort as the log does.
impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lsn(lsn) = self.lsn;
        write!(f, "{:08X}/{:08X}", lsn >> 32, lsn & u64::from(u32::MAX))
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::internal(format!("'{text}' is not a position in a Postgres log"));
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let half = |digits: &str| {
            let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u64::from)
        };
        let high = half(high).ok_or_else(wrong)?;
        Ok(Self(high << 32 | half(low).ok_or_else(wrong)?))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Commit> for (Lsn, u32) {
    fn from(commit: Commit) -> Self {
        (commit.lsn, commit.xid)
    }
}

impl From<(Lsn, u32)> for Commit {
    fn from((lsn, xid): (Lsn, u32)) -> Self {
        Self { lsn, xid }
    }
}

impl Visible {
    /// The 64-bit id of the transaction that the stream calls `xid`: the one nearest to this
    /// snapshot, because ids in use are never further apart than half of all 32-bit ids.
    fn widen(&self, xid: u32) -> Option<u64> {
        const ROUND: u64 = 1 << 32;
        let near = (self.xmax & !(ROUND - 1)) | u64::from(xid);
        if near > self.xmax.saturating_add(ROUND / 2) {
            near.checked_sub(ROUND)
        } else if near.saturating_add(ROUND / 2) < self.xmax {
            near.checked_add(ROUND)
        } else {
            Some(near)
        }
    }
}

impl Visible {
    /// Takes note of transactions (32-bit ids) that are at work in another database.
    pub fn elsewhere(&mut self, xids: &[u32]) {
        let elsewhere: Vec<u64> = xids.iter().filter_map(|xid| self.widen(*xid)).collect();
        self.open.retain(|xid| !elsewhere.contains(xid));
    }
}

impl View<Commit> for Visible {
    fn sees(&self, commit: &Commit) -> bool {
        let Some(xid) = self.widen(commit.xid) else {
            return false;
        };
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    fn is_past(&self, earlier: &Self) -> bool {
        earlier.open.iter().all(|xid| {
            *xid < self.xmin || (*xid < self.xmax && self.xip.binary_search(xid).is_err())
        })
    }
}

/// `xmin:xmax:xip,xip…`, the text of a `pg_snapshot`.
impl FromStr for Visible {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::internal(format!("'{text}' is not a snapshot"));
        let mut parts = text.splitn(3, ':');
        let mut id = || parts.next()?.parse::<u64>().ok();
        let xmin = id().ok_or_else(wrong)?;
        let xmax = id().ok_or_else(wrong)?;
        let list = parts.next().ok_or_else(wrong)?;
        let mut xip = Vec::new();
        for id in list.split(',').filter(|id| !id.is_empty()) {
            xip.push(id.parse().map_err(|_| wrong())?);
        }
        xip.sort_unstable();
        let open = xip.clone();
        Ok(Self { xmin, xmax, xip, open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &str) -> Visible {
        text.parse().unwrap()
    }

    fn commit(xid: u32) -> Commit {
        Commit { lsn: Lsn(7), xid }
    }

    #[test]
    fn an_lsn_reads_and_writes_as_postgres_does() {
        for text in ["0/0", "0/16B3748", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "0", "/", "1/", "/1", "0/123456789", "+1/1", "0/-1", "0/1/2", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&Lsn(0x1_0000_0002)).unwrap(), "\"1/2\"");
        let json = serde_json::to_string(&commit(9)).unwrap();
        assert_eq!(json, "[\"0/7\",9]");
        assert_eq!(serde_json::from_str::<Commit>(&json).unwrap(), commit(9));
    }

    #[test]
    fn a_position_contains_commits_that_begin_before_it() {
        assert!(!Lsn(7).contains(&commit(1)));
        assert!(Lsn(8).contains(&commit(1)));
        assert!(Lsn(8).covers(&Lsn(8)) && !Lsn(8).covers(&Lsn(9)));
        assert_eq!((Lsn(3).meet(&Lsn(4)), Lsn(3).join(&Lsn(4))), (Lsn(3), Lsn(4)));
    }

    #[test]
    fn a_page_header_is_not_waited_for() {
        assert_eq!(Lsn(0x0200_0028).without_page_header(), Lsn(0x0200_0000));
        assert_eq!(Lsn(0x0200_2018).without_page_header(), Lsn(0x0200_2000));
        assert_eq!(Lsn(0x0200_2019).without_page_header(), Lsn(0x0200_2019));
        assert_eq!(Lsn(0x0200_2000).without_page_header(), Lsn(0x0200_2000));
    }

    #[test]
    fn a_view_sees_what_had_ended() {
        let view = view("100:105:101,103");
        let seen: Vec<u32> = (98..108).filter(|xid| view.sees(&commit(*xid))).collect();
        assert_eq!(seen, [98, 99, 100, 102, 104]);
    }

    #[test]
    fn a_view_follows_ids_around_their_end() {
        // Just after the first wrap: ids near 2^32 are older, small ones recent.
        let after = view("4294967290:4294967300:4294967295,4294967298");
        assert!(after.sees(&commit(4_294_967_289)));
        assert!(!after.sees(&commit(u32::MAX)));
        assert!(after.sees(&commit(1)) && !after.sees(&commit(2)));
        assert!(!after.sees(&commit(4)) && !after.sees(&commit(500)));
        // Just before it: small ids are yet to come.
        let before = view("4294967290:4294967294:");
        assert!(before.sees(&commit(4_294_967_293)));
        assert!(!before.sees(&commit(4_294_967_294)) && !before.sees(&commit(3)));
        // Far into the third round.
        let third = view("8589934600:8589934610:8589934605");
        assert!(third.sees(&commit(8)) && third.sees(&commit(4_294_967_000)));
        assert!(!third.sees(&commit(13)) && third.sees(&commit(12)) && !third.sees(&commit(18)));
    }

    #[test]
    fn a_broken_snapshot_is_refused() {
        for text in ["", "1", "1:2", "1:x:", "1:2:3,x", "-1:2:"] {
            assert!(text.parse::<Visible>().is_err(), "{text}");
        }
    }
}
