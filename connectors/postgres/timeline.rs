//! Timelines: which server's log is read. A server that is promoted goes on on a timeline of its own
//! (documentation, "Timelines"), and what the one before wrote beyond that point it doesn't have.

use super::connection::Server;
use super::position::Lsn;
use crate::error::{Error, Result};

/// The part of a log's identity that changes when another server goes on with it.
pub fn of(identity: &str) -> Option<u32> {
    identity.rsplit_once('@').and_then(|(_, timeline)| timeline.parse().ok())
}

/// The rest of it.
pub fn log(identity: &str) -> &str {
    identity.rsplit_once('@').map_or(identity, |(log, _)| log)
}

/// Up to where the timelines `known` and `now`, the server's own, have the same log.
///
/// # Errors
/// When the server doesn't tell (TIMELINE_HISTORY).
pub async fn common(server: &Server, known: u32, now: u32) -> Result<Lsn> {
    let doing = "asking for the history of the log";
    let mut connection = server.replication().await?;
    let rows = connection.query(doing, &format!("TIMELINE_HISTORY {now}")).await?;
    let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
    let text = text.ok_or_else(|| Error::unavailable("the server has no history of its log"))?;
    parse(&unescaped(&text), known)
}

/// The end of the newest timeline of `history` that is no newer than `known`.
fn parse(history: &str, known: u32) -> Result<Lsn> {
    let mut common = Lsn(0);
    let lines = history.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let mut parts = line.split_whitespace();
        let timeline = parts.next().and_then(|part| part.parse::<u32>().ok());
        match (timeline, parts.next()) {
            (Some(timeline), Some(end)) if timeline <= known => common = end.parse()?,
            (Some(_), Some(_)) => {}
            _ => return Err(Error::unavailable("the history of the log can't be read")),
        }
    }
    Ok(common)
}

/// The text of a `bytea`, which newer servers write in hex.
fn unescaped(text: &str) -> String {
    let Some(digits) = text.strip_prefix("\\x") else { return text.to_owned() };
    let bytes = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8_lossy(&bytes.filter_map(byte).collect::<Vec<_>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_one_up_to_where_they_part() {
        let history = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000060\treason # x\n\
                       4\t1/0\treason\n";
        let common = |known| parse(history, known).unwrap();
        assert_eq!((common(1), common(2)), (Lsn(0x300_0000), Lsn(0x500_0060)));
        // A timeline of which this one knows nothing began, at the earliest, where the one before ends.
        assert_eq!((common(3), common(4), common(0)), (Lsn(0x500_0060), Lsn(1 << 32), Lsn(0)));
        assert!(parse("nonsense", 1).is_err());
    }

    #[test]
    fn an_identity_names_its_timeline() {
        assert_eq!((of("7/5/slot/9@3"), log("7/5/slot/9@3")), (Some(3), "7/5/slot/9"));
        assert_eq!((of("7/5/slot/9"), log("7/5/slot/9")), (None, "7/5/slot/9"));
    }

    #[test]
    fn bytes_are_read_in_both_forms() {
        assert_eq!(unescaped("\\x310a"), "1\n");
        assert_eq!(unescaped("1\t0/0"), "1\t0/0");
    }
}
