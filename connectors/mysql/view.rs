//! What is visible, and what is in the log: two questions that no statement answers at once.
//!
//! **MySQL.** `gtid_executed` grows after a transaction has become visible, so whatever it holds
//! before a view is taken the view sees. The other way round a transaction may be visible and not
//! yet in it; then its GTID is still owned by its session (`gtid_owned`), which ends with it being
//! executed. The high mark waits for that.
//!
//! **MariaDB.** `gtid_binlog_pos` grows when a transaction is written to the log, before it is
//! visible. But a consistent snapshot tells its place in the log (`binlog_snapshot_position`): when
//! that is not before the place where the log ended after `gtid_binlog_pos` was read, the view
//! sees all that it held.

use std::time::{Duration, Instant};

use super::connection::{Connection, Flavor};
use super::fault;
use super::position::{Place, Visible};
use crate::error::{Error, Result};

const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Begins a transaction and says what it sees. Whatever transaction was open ends.
///
/// # Errors
/// When the server does not answer.
pub async fn open(connection: &mut Connection) -> Result<Visible> {
    match connection.flavor {
        Flavor::MySql => {
            let visible = logged(connection).await?;
            connection.run("taking a view", BEGIN).await?;
            Ok(Visible { logged: visible.clone(), visible })
        }
        Flavor::MariaDb => open_maria(connection).await,
    }
}

async fn open_maria(connection: &mut Connection) -> Result<Visible> {
    let (began, mut said) = (Instant::now(), false);
    loop {
        let visible = logged(connection).await?;
        let end = log_end(connection).await?;
        connection.run("taking a view", BEGIN).await?;
        const STATUS: &str = "SHOW STATUS LIKE 'binlog_snapshot_%'";
        let rows = connection.rows("taking a view", STATUS).await?;
        let value = |name: &str| {
            let row = rows.iter().find(
                |row| matches!(row.first(), Some(Some(found)) if found.eq_ignore_ascii_case(name)),
            );
            row.and_then(|row| row.get(1).cloned().flatten()).unwrap_or_default()
        };
        let seen =
            FilePlace::new(value("binlog_snapshot_file"), &value("binlog_snapshot_position"));
        if seen.ok_or_else(|| fault::malformed("taking a view"))? >= end {
            let logged = logged(connection).await?;
            return Ok(Visible { visible, logged });
        }
        if began.elapsed() > Duration::from_secs(10) && !said {
            said = true;
            tracing::warn!("waiting for a transaction that is in the log but not visible yet");
        }
        connection.run("ending a read", "ROLLBACK").await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What has been executed; of MariaDB what is in the log.
///
/// # Errors
/// When the server does not answer.
pub async fn logged(connection: &mut Connection) -> Result<Place> {
    let sql = match connection.flavor {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
    };
    let text = connection.text("asking for the end of the log", sql).await?;
    Place::parse(connection.flavor, &text)
        .ok_or_else(|| fault::malformed("asking for the end of the log"))
}

/// A position that contains everything that was visible before the call (S3).
///
/// # Errors
/// When the server does not answer.
pub async fn high(connection: &mut Connection) -> Result<Place> {
    if connection.flavor == Flavor::MariaDb {
        return logged(connection).await;
    }
    let began = Instant::now();
    let mut waits = owned(connection).await?;
    loop {
        let place = logged(connection).await?;
        if waits.is_empty() {
            return Ok(place);
        }
        // What is neither owned nor executed came to nothing.
        let now = owned(connection).await?;
        waits.retain(|gtid| now.contains(gtid));
        if waits.is_empty() {
            return logged(connection).await;
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(Error::unavailable("a transaction is being committed for a minute")
                .with("gtid", waits.join(",")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// GTIDs that sessions own at this moment, in the server's own words.
async fn owned(connection: &mut Connection) -> Result<Vec<String>> {
    let sql = "SELECT @@GLOBAL.gtid_owned";
    let text = connection.text("asking for transactions being committed", sql).await?;
    let mut all = Vec::new();
    for of_origin in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mut parts = of_origin.split(':');
        let origin = parts.next().unwrap_or_default();
        all.extend(parts.map(|part| format!("{origin}:{part}")));
    }
    Ok(all)
}

/// A file of the log, and how far it is written. Files are numbered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FilePlace {
    /// First, so that number 1,000,000 comes after 999,999.
    length: usize,
    file: String,
    offset: u64,
}

impl FilePlace {
    fn new(file: String, offset: &str) -> Option<Self> {
        Some(Self { length: file.len(), offset: offset.parse().ok()?, file })
    }
}

async fn log_end(connection: &mut Connection) -> Result<FilePlace> {
    let rows = connection.rows("asking for the end of the log", "SHOW MASTER STATUS").await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let place = match row.as_slice() {
        [Some(file), Some(offset), ..] => FilePlace::new(file.clone(), offset),
        _ => None,
    };
    place.ok_or_else(|| Error::config("the server writes no log").remedy("turn log_bin on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_their_numbers() {
        let place = |file: &str, offset| FilePlace::new(file.to_owned(), offset).unwrap();
        assert!(place("b.000002", "4") > place("b.000001", "900"));
        assert!(place("b.1000000", "4") > place("b.999999", "4"));
        assert!(place("b.000001", "10") > place("b.000001", "9"));
        assert!(FilePlace::new("b".to_owned(), "").is_none());
    }
}
