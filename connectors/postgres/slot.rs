//! The replication slot: what keeps the log until it has been read.

use std::time::Duration;

use serde_json::Value as Json;
use tokio_postgres::Client;

use super::connection::Server;
use super::fault;
use super::position::Lsn;
use super::replication::quote;
use crate::error::{Error, Result};

/// A slot as `pg_replication_slots` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Where acknowledged reading ends; everything after it can still be read.
    pub confirmed: Lsn,
    /// From where on the server keeps its log: the beginning of the oldest transaction still open
    /// at `confirmed`.
    pub restart: Option<Lsn>,
    /// The walsender that reads it.
    pub reader: Option<i32>,
}

/// The slot called `name`, if there is one.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) when it is a slot of another kind,
/// [`Gap`](crate::ErrorKind::Gap) when the server has given up keeping its log.
pub async fn look(client: &Client, name: &str) -> Result<Option<Slot>> {
    // As JSON because its columns differ from version to version.
    const SQL: &str = "SELECT pg_catalog.to_jsonb(s), pg_catalog.current_database()::text \
                       FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1";
    let rows = client
        .query(SQL, &[&name])
        .await
        .map_err(|error| fault::query("looking at the slot", error))?;
    match rows.first() {
        Some(row) => examine(name, &row.get(0), row.get(1)).map(Some),
        None => Ok(None),
    }
}

fn examine(name: &str, slot: &Json, database: &str) -> Result<Slot> {
    let text = |key: &str| slot.get(key).and_then(Json::as_str);
    let lsn = |key: &str| text(key).map(str::parse::<Lsn>).transpose();
    let other = |what: String| {
        Error::config(format!("the slot {name} {what}"))
            .remedy("give the source another slot, or drop this one if nothing else reads it")
    };
    if text("slot_type") != Some("logical") {
        return Err(other("is a physical one".to_owned()));
    }
    if text("plugin") != Some("pgoutput") {
        let plugin = text("plugin").unwrap_or_default();
        return Err(other(format!("has the plugin {plugin}, not pgoutput")));
    }
    if text("database") != Some(database) {
        let database = text("database").unwrap_or_default();
        return Err(other(format!("belongs to the database {database}")));
    }
    if slot.get("two_phase").and_then(Json::as_bool) == Some(true) {
        return Err(other("was created with two_phase".to_owned()));
    }
    let lost = match (text("wal_status"), text("invalidation_reason")) {
        (_, Some(reason)) => Some(reason),
        (Some("lost"), _) => Some("wal_removed"),
        _ => None,
    };
    if let Some(reason) = lost {
        return Err(Error::gap(format!("the server gave up the slot {name}"))
            .with("reason", reason)
            .remedy(format!(
                "drop it (SELECT pg_drop_replication_slot('{name}')): a new one is made and the \
                 tables are read again; to keep it from happening again raise \
                 max_slot_wal_keep_size or idle_replication_slot_timeout"
            )));
    }
    let confirmed = lsn("confirmed_flush_lsn")?.ok_or_else(|| {
        Error::unavailable(format!("the slot {name} is still being made")).with("slot", name)
    })?;
    let reader = slot.get("active_pid").and_then(Json::as_i64);
    let reader = reader.and_then(|pid| i32::try_from(pid).ok());
    Ok(Slot { confirmed, restart: lsn("restart_lsn")?, reader })
}

/// The error for a slot that `pid` reads.
pub async fn taken(client: &Client, name: &str, pid: i32) -> Error {
    const SQL: &str = "SELECT pg_catalog.concat_ws(' ', nullif(application_name, ''), \
                       'from ' || pg_catalog.host(client_addr), 'since ' || backend_start::text) \
                       FROM pg_catalog.pg_stat_activity WHERE pid = $1";
    let row = client.query_opt(SQL, &[&pid]).await.ok().flatten();
    let who: Option<String> = row.and_then(|row| row.try_get(0).ok());
    Error::unavailable(format!("the slot {name} is read by another connection"))
        .with("pid", pid)
        .with("reader", who.unwrap_or_default())
        .remedy(format!(
            "end that reader (SELECT pg_terminate_backend({pid})) if it is a dead one's; two \
             daemons can't share a slot"
        ))
}

/// Makes the slot, over a connection of its own (CREATE_REPLICATION_SLOT).
///
/// The server waits until every transaction that is writing has ended, however long that takes;
/// meanwhile it is said which it is (a forgotten prepared one waits for ever).
pub async fn create(server: &Server, control: &Client, name: &str, version: i32) -> Result<()> {
    let mut connection = server.replication().await?;
    let option = if version >= 150_000 { "(SNAPSHOT 'nothing')" } else { "NOEXPORT_SNAPSHOT" };
    let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {option}", quote(name));
    let pid = connection.pid();
    tokio::select! {
        made = connection.query("creating the slot", &sql) => made.map(drop),
        failed = report_wait(control, name, pid) => Err(failed),
    }
}

/// Says every few seconds which transaction `pid` waits for. Ends only with an error.
async fn report_wait(control: &Client, name: &str, pid: i32) -> Error {
    const SQL: &str = "SELECT w.transactionid::text, h.pid, a.usename::text, \
        a.application_name, a.xact_start::text, p.gid \
        FROM pg_catalog.pg_locks w \
        LEFT JOIN pg_catalog.pg_locks h ON h.locktype = 'transactionid' AND h.granted \
            AND h.transactionid = w.transactionid \
        LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = h.pid \
        LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = w.transactionid \
        WHERE w.pid = $1 AND w.locktype = 'transactionid' AND NOT w.granted";
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let rows = match control.query(SQL, &[&pid]).await {
            Ok(rows) => rows,
            Err(error) => return fault::query("watching the slot being made", error),
        };
        for row in rows {
            let text = |at: usize| row.try_get::<_, Option<String>>(at).ok().flatten();
            tracing::warn!(
                slot = name,
                xid = text(0),
                pid = row.try_get::<_, Option<i32>>(1).ok().flatten(),
                role = text(2),
                application = text(3),
                since = text(4),
                prepared = text(5),
                "making the slot waits for this transaction to end"
            );
        }
    }
}

/// Drops the slot if nobody reads it; whether there was one.
pub async fn drop_unused(client: &Client, name: &str) -> Result<bool> {
    const LOOK: &str =
        "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    const DROP: &str = "SELECT pg_catalog.pg_drop_replication_slot($1)";
    let failed = |error| fault::query("dropping the slot", error);
    match client.query_opt(LOOK, &[&name]).await.map_err(failed)? {
        None => Ok(false),
        Some(row) => match row.get::<_, Option<i32>>(0) {
            Some(pid) => Err(taken(client, name, pid).await),
            None => client.execute(DROP, &[&name]).await.map_err(failed).map(|_| true),
        },
    }
}

/// Whether Postgres takes `name` for a slot.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ErrorKind;

    fn slot() -> Json {
        json!({
            "slot_type": "logical", "plugin": "pgoutput", "database": "d", "two_phase": false,
            "wal_status": "reserved", "active_pid": null, "restart_lsn": "0/10",
            "confirmed_flush_lsn": "0/20",
        })
    }

    fn kind(key: &str, value: Json) -> ErrorKind {
        let mut slot = slot();
        slot[key] = value;
        examine("s", &slot, "d").unwrap_err().kind()
    }

    #[test]
    fn a_good_slot_says_where_it_is() {
        let found = examine("s", &slot(), "d").unwrap();
        let wanted = Slot { confirmed: Lsn(0x20), restart: Some(Lsn(0x10)), reader: None };
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_slot_of_another_kind_is_a_matter_of_configuration() {
        assert_eq!(kind("slot_type", json!("physical")), ErrorKind::Config);
        assert_eq!(kind("plugin", json!("wal2json")), ErrorKind::Config);
        assert_eq!(kind("database", json!("other")), ErrorKind::Config);
        assert_eq!(kind("two_phase", json!(true)), ErrorKind::Config);
    }

    #[test]
    fn a_lost_slot_is_a_gap() {
        assert_eq!(kind("wal_status", json!("lost")), ErrorKind::Gap);
        assert_eq!(kind("invalidation_reason", json!("idle_timeout")), ErrorKind::Gap);
        assert_eq!(kind("confirmed_flush_lsn", Json::Null), ErrorKind::Unavailable);
    }

    #[test]
    fn names_of_slots_are_few() {
        assert!(is_name("lakeward_1"));
        for name in ["", "Upper", "a-b", "a b", &"x".repeat(64), "ä"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
