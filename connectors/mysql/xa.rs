//! Distributed (XA) transactions: the log has their rows where they are prepared, and says in another
//! place whether they were committed (MySQL documentation, "XA Transactions"; MariaDB's the same).
//!
//! Rows of a prepared transaction are held as the events they came in, and read when its commit
//! comes, as rows of that. Until then a position says from where on the log has to be read again
//! ([`Place::since`](super::position::Place)), for what is held dies with the process.

use super::event::{Event, Said};
use super::input::Input;
use super::position::Set;
use crate::schema::TableId;

/// So many bytes of prepared transactions are held. The tables of one that is beyond stop at its
/// commit.
const MOST: usize = 64 << 20;

/// The name of a distributed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xid {
    format: u32,
    global: Vec<u8>,
    branch: Vec<u8>,
}

impl Xid {
    /// Reads the event that prepares a transaction: whether it is committed with that, and its name
    /// ("XA_prepare_event").
    pub fn of_event(body: &[u8]) -> Option<(bool, Self)> {
        let mut input = Input(body);
        let (one_phase, format) = (input.u8()? != 0, input.u32()?);
        let (global, branch) = (input.u32()? as usize, input.u32()? as usize);
        let global = input.bytes(global)?.to_vec();
        Some((one_phase, Self { format, global, branch: input.bytes(branch)?.to_vec() }))
    }

    /// Reads `XA COMMIT X'6162',X'',1`, or any other statement about one, as the server writes it.
    pub fn of_statement(text: &str) -> Option<Self> {
        let (_, name) = text.split_once(" X'")?;
        let (global, rest) = name.split_once('\'')?;
        let (branch, rest) = rest.strip_prefix(",X'")?.split_once('\'')?;
        let format = rest.strip_prefix(',')?.split_whitespace().next()?;
        // A negative number may be written as the large one of the same bits.
        let format = match format.parse::<i64>() {
            Ok(number) => number as u32,
            Err(_) => format.parse::<u64>().ok()? as u32,
        };
        Some(Self { format, global: hex(global)?, branch: hex(branch)? })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().map(|byte| char::from(byte).to_digit(16));
    let digits = digits.collect::<Option<Vec<_>>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    });
    pairs.collect()
}

/// A transaction whose outcome is not known.
#[derive(Debug)]
pub struct Held {
    /// What had been read before it.
    pub before: Set,
    /// Its table maps and rows; empty once they were too many.
    pub events: Vec<Event>,
    /// Why they can't be read at its commit.
    pub spoilt: Option<&'static str>,
    /// The tables it changes.
    pub tables: Vec<TableId>,
    size: usize,
}

impl Held {
    /// One that begins after `before`.
    pub fn new(before: Set) -> Self {
        Self { before, events: Vec::new(), spoilt: None, tables: Vec::new(), size: 0 }
    }

    fn add(&mut self, event: &Event, said: &Said<'_>, room: usize) {
        if let Said::TableMap(map) = said
            && !self.tables.contains(&map.table)
        {
            self.tables.push(map.table.clone());
        }
        self.size += event.body.len() + size_of::<Event>();
        match self.size <= room && self.spoilt.is_none() {
            true => self.events.push(event.clone()),
            false => {
                let why = "it was changed by a distributed (XA) transaction larger than is held \
                           until its outcome is known";
                self.spoil(why);
            }
        }
    }

    /// Its rows can't be read.
    pub fn spoil(&mut self, why: &'static str) {
        self.spoilt.get_or_insert(why);
        self.events = Vec::new();
        self.size = 0;
    }
}

/// All transactions whose outcome is not known.
#[derive(Debug, Default)]
pub struct Prepared(Vec<(Xid, Held)>);

impl Prepared {
    /// Keeps an event of a transaction that is being prepared.
    pub fn keep(&self, held: &mut Held, event: &Event, said: &Said<'_>) {
        let others: usize = self.0.iter().map(|(_, held)| held.size).sum();
        held.add(event, said, MOST.saturating_sub(others));
    }

    /// The transaction has been prepared.
    pub fn add(&mut self, xid: Xid, held: Held) {
        self.0.retain(|(known, _)| *known != xid);
        self.0.push((xid, held));
    }

    /// Its outcome is known.
    pub fn take(&mut self, xid: &Xid) -> Option<Held> {
        let at = self.0.iter().position(|(known, _)| known == xid)?;
        Some(self.0.remove(at).1)
    }

    /// From where on the log has to be read again to hold all of them.
    pub fn since(&self) -> Option<Set> {
        let mut all = self.0.iter().map(|(_, held)| &held.before);
        let first = all.next()?.clone();
        Some(all.fold(first, |since, before| since.meet(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_events_and_statements() {
        let body = [&[0, 7, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0][..], b"ab", b"c"].concat();
        let (one_phase, xid) = Xid::of_event(&body).unwrap();
        assert!(!one_phase);
        for text in ["XA COMMIT X'6162',X'63',7", "XA ROLLBACK X'6162',X'63',7"] {
            assert_eq!(Xid::of_statement(text).as_ref(), Some(&xid), "{text}");
        }
        assert_ne!(Xid::of_statement("XA COMMIT X'6162',X'63',1"), Some(xid));
        let negative = Xid::of_statement("XA COMMIT X'61',X'',18446744073709551615").unwrap();
        assert_eq!(negative.format, u32::MAX);
        for text in ["XA COMMIT", "XA COMMIT X'6',X'',1", "XA COMMIT X'zz',X'',1", "XA END 'a'"] {
            assert_eq!(Xid::of_statement(text), None, "{text}");
        }
        assert_eq!(Xid::of_event(&body[..14]), None);
    }
}
