//! Where a log is read, and what a statement sees.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::connection::Flavor;
use super::gtid::{Domains, Gtids, Origin, parse_uuid};
use crate::source::{Position, View};

/// Transactions: a place in the log of any server that has the same ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Set {
    /// MySQL's.
    MySql(Gtids),
    /// MariaDB's.
    MariaDb(Domains),
}

/// The transactions that have been read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Place {
    /// Which.
    pub read: Set,
    /// From where on the log has to be read again, while it holds rows of distributed (XA)
    /// transactions whose outcome follows ([`xa`](super::xa)).
    pub since: Option<Set>,
}

/// What the log calls one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Gtid {
    /// `uuid:number`, `uuid:tag:number`.
    MySql(Origin, u64),
    /// `domain-server-number`.
    MariaDb {
        /// The replication domain.
        domain: u32,
        /// Who made it.
        server: u32,
        /// Its number in the domain.
        number: u64,
    },
}

impl Set {
    /// Reads what a server of `flavor` says.
    pub fn parse(flavor: Flavor, text: &str) -> Option<Self> {
        match flavor {
            Flavor::MySql => Gtids::parse(text).map(Set::MySql),
            Flavor::MariaDb => Domains::parse(text).map(Set::MariaDb),
        }
    }

    fn empty(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MySql => Set::MySql(Gtids::default()),
            Flavor::MariaDb => Set::MariaDb(Domains::default()),
        }
    }

    /// Which kind of server's it is.
    pub fn flavor(&self) -> Flavor {
        match self {
            Set::MySql(_) => Flavor::MySql,
            Set::MariaDb(_) => Flavor::MariaDb,
        }
    }

    fn insert(&mut self, gtid: &Gtid) {
        match (self, gtid) {
            (Set::MySql(set), Gtid::MySql(origin, number)) => set.insert(origin, *number),
            (Set::MariaDb(set), Gtid::MariaDb { domain, server, number }) => {
                set.insert(*domain, *server, *number);
            }
            _ => {}
        }
    }

    fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Set::MySql(set), Gtid::MySql(origin, number)) => set.contains(origin, *number),
            (Set::MariaDb(set), Gtid::MariaDb { domain, number, .. }) => {
                set.contains(*domain, *number)
            }
            _ => false,
        }
    }

    /// Whether everything that `other` contains is in it. Sets of two kinds of servers have nothing
    /// in common: none covers the other.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Set::MySql(mine), Set::MySql(theirs)) => mine.covers(theirs),
            (Set::MariaDb(mine), Set::MariaDb(theirs)) => mine.covers(theirs),
            _ => false,
        }
    }

    /// What both contain.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Set::MySql(mine), Set::MySql(theirs)) => Set::MySql(mine.meet(theirs)),
            (Set::MariaDb(mine), Set::MariaDb(theirs)) => Set::MariaDb(mine.meet(theirs)),
            _ => Set::empty(self.flavor()),
        }
    }

    fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Set::MySql(mine), Set::MySql(theirs)) => Set::MySql(mine.join(theirs)),
            (Set::MariaDb(mine), Set::MariaDb(theirs)) => Set::MariaDb(mine.join(theirs)),
            _ => self.clone(),
        }
    }
}

impl Place {
    /// Reads what a server of `flavor` says.
    pub fn parse(flavor: Flavor, text: &str) -> Option<Self> {
        Set::parse(flavor, text).map(Self::from)
    }

    /// Which kind of server's it is.
    pub fn flavor(&self) -> Flavor {
        self.read.flavor()
    }

    /// Adds one transaction.
    pub fn insert(&mut self, gtid: &Gtid) {
        self.read.insert(gtid);
    }

    /// What the log is asked for: everything that this does not contain.
    pub fn resume(&self) -> &Set {
        self.since.as_ref().unwrap_or(&self.read)
    }

    /// From where on both have to be read again.
    fn since_both(&self, other: &Self) -> Option<Set> {
        let any = self.since.is_some() || other.since.is_some();
        any.then(|| self.resume().meet(other.resume()))
    }
}

impl From<Set> for Place {
    fn from(read: Set) -> Self {
        Self { read, since: None }
    }
}

impl Position for Place {
    type Transaction = Gtid;

    fn contains(&self, gtid: &Gtid) -> bool {
        self.read.contains(gtid)
    }

    fn covers(&self, other: &Self) -> bool {
        self.read.covers(&other.read)
    }

    fn meet(&self, other: &Self) -> Self {
        Self { read: self.read.meet(&other.read), since: self.since_both(other) }
    }

    fn join(&self, other: &Self) -> Self {
        Self { read: self.read.join(&other.read), since: self.since_both(other) }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Set::MySql(set) => write!(f, "mysql:{set}"),
            Set::MariaDb(set) => write!(f, "mariadb:{set}"),
        }
    }
}

/// What stands between the two parts of a position.
const SINCE: &str = " since ";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.read)?;
        match &self.since {
            Some(since) => write!(f, "{SINCE}{since}"),
            None => Ok(()),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

fn set(text: &str) -> Result<Set, String> {
    let parsed = match text.split_once(':') {
        Some(("mysql", set)) => Set::parse(Flavor::MySql, set),
        Some(("mariadb", set)) => Set::parse(Flavor::MariaDb, set),
        _ => None,
    };
    parsed.ok_or_else(|| format!("'{text}' is no set of GTIDs"))
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(SINCE) {
            Some((read, since)) => Ok(Self { read: set(read)?, since: Some(set(since)?) }),
            None => Ok(set(&text)?.into()),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql(origin, number) => write!(f, "{origin}:{number}"),
            Gtid::MariaDb { domain, server, number } => write!(f, "{domain}-{server}-{number}"),
        }
    }
}

impl From<Gtid> for String {
    fn from(gtid: Gtid) -> Self {
        gtid.to_string()
    }
}

impl TryFrom<String> for Gtid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mysql = || {
            let (origin, number) = text.rsplit_once(':')?;
            let (uuid, tag) = origin.split_once(':').unwrap_or((origin, ""));
            let origin = Origin { uuid: parse_uuid(uuid)?, tag: tag.to_owned() };
            Some(Gtid::MySql(origin, number.parse().ok()?))
        };
        let mariadb = || {
            let mut numbers = text.split('-');
            let domain = numbers.next()?.parse().ok()?;
            let server = numbers.next()?.parse().ok()?;
            Some(Gtid::MariaDb { domain, server, number: numbers.next()?.parse().ok()? })
        };
        mysql().or_else(mariadb).ok_or_else(|| format!("'{text}' is no GTID"))
    }
}

/// What one read view sees: at least `visible`. A transaction is in the log before it is visible,
/// so what else it sees can't be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Visible {
    /// Transactions that had become visible before the view was taken.
    pub visible: Place,
    /// Transactions that were in the log when it was taken, visible or not.
    pub logged: Place,
}

impl View<Gtid> for Visible {
    fn sees(&self, gtid: &Gtid) -> bool {
        self.visible.contains(gtid)
    }

    /// The log shows transactions whole, whenever they began: what had reached it when `earlier`
    /// was taken is all that a table which joined it then may have missed.
    fn is_past(&self, earlier: &Self) -> bool {
        self.visible.covers(&earlier.logged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn place(text: &str) -> Place {
        Place::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn places_and_transactions_read_as_they_are_written() {
        for text in [
            format!("mysql:{A}:1-5"),
            "mysql:".to_owned(),
            "mariadb:0-1-7".to_owned(),
            "mariadb:0-1-7 since mariadb:0-1-5".to_owned(),
        ] {
            assert_eq!(place(&text).to_string(), text);
            let json = serde_json::to_string(&place(&text)).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&json).unwrap(), place(&text));
        }
        for text in [format!("{A}:5"), format!("{A}:tag:5"), "0-1-7".to_owned()] {
            assert_eq!(Gtid::try_from(text.clone()).unwrap().to_string(), text);
        }
        assert!(Gtid::try_from("x".to_owned()).is_err());
        assert!(Place::try_from("oracle:1".to_owned()).is_err());
    }

    #[test]
    fn the_kinds_have_nothing_in_common() {
        let (mysql, mariadb) = (place(&format!("mysql:{A}:1")), place("mariadb:0-1-1"));
        assert!(!mysql.covers(&mariadb) && !mariadb.covers(&mysql));
        assert_eq!(mysql.meet(&mariadb), place("mysql:"));
    }

    #[test]
    fn what_is_prepared_is_read_again_by_whoever_resumes() {
        let (held, done) = (place("mariadb:0-1-7 since mariadb:0-1-5"), place("mariadb:0-1-6"));
        assert!(held.covers(&done) && !done.covers(&held));
        assert_eq!(held.meet(&done), place("mariadb:0-1-6 since mariadb:0-1-5"));
        assert_eq!(held.join(&done), held);
        assert_eq!(held.resume().to_string(), "mariadb:0-1-5");
        assert_eq!(done.resume(), &done.read);
    }

    #[test]
    fn a_view_sees_what_had_become_visible() {
        let logged = place(&format!("mysql:{A}:1-6"));
        let view = |visible: &str| Visible {
            visible: place(&format!("mysql:{A}:{visible}")),
            logged: logged.clone(),
        };
        let gtid = |number: u64| Gtid::try_from(format!("{A}:{number}")).unwrap();
        assert!(view("1-5").sees(&gtid(5)) && !view("1-5").sees(&gtid(6)));
        assert!(!view("1-5").is_past(&view("1-5")) && view("1-6").is_past(&view("1-5")));
    }
}
