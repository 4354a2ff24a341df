//! Stand-in.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source::{Position, View};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Commit { pub lsn: Lsn, pub xid: u32 }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible { pub xmin: u64, pub xmax: u64, pub xip: Vec<u64> }

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}
impl FromStr for Lsn {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let part = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
            Some(Self(part(high)? << 32 | part(low)?))
        };
        parse().ok_or_else(|| Error::internal(format!("'{text}' is no LSN")))
    }
}
impl From<Lsn> for String { fn from(l: Lsn) -> String { l.to_string() } }
impl TryFrom<String> for Lsn { type Error = Error; fn try_from(t: String) -> Result<Self, Error> { t.parse() } }
impl Position for Lsn {
    type Transaction = Commit;
    fn contains(&self, t: &Commit) -> bool { t.lsn.0 < self.0 }
    fn covers(&self, other: &Self) -> bool { other.0 <= self.0 }
    fn meet(&self, other: &Self) -> Self { *self.min(other) }
    fn join(&self, other: &Self) -> Self { *self.max(other) }
}
impl View<Commit> for Visible {
    fn sees(&self, t: &Commit) -> bool {
        let epoch = self.xmax & !0xffff_ffff;
        let mut xid = epoch | u64::from(t.xid);
        if xid > self.xmax + 0x8000_0000 { xid = xid.saturating_sub(1 << 32); }
        xid < self.xmin || (xid < self.xmax && !self.xip.contains(&xid))
    }
}
impl FromStr for Visible {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.split(':');
            let xmin = parts.next()?.parse().ok()?;
            let xmax = parts.next()?.parse().ok()?;
            let xip = parts.next()?.split(',').filter(|t| !t.is_empty()).map(|t| t.parse().ok()).collect::<Option<_>>()?;
            Some(Self { xmin, xmax, xip })
        };
        parse().ok_or_else(|| Error::internal(format!("'{text}' is no snapshot")))
    }
}
