//! What `lakeward check` says about a MySQL or MariaDB source. Changes nothing.

use super::catalog::{Found, log_status, quoted_table};
use super::connection::{Connection, Flavor};
use super::replication::{Identity, list_of_replicas};
use super::{LogSettings, MySql, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Identity as RowIdentity;
use crate::source::Finding;

/// All findings at once; one for the connection alone when it can't be made.
pub async fn findings(source: &mut MySql) -> Result<Vec<Finding>> {
    let (shared, identity) = (source.shared.clone(), source.identity.clone());
    let (patterns, name) = (source.options.tables.join(", "), source.server.reader_name.clone());
    let connection = match source.control().await {
        Ok(connection) => connection,
        Err(error) => return Ok(vec![Finding::of(&error)]),
    };
    let mut found = Findings::default();
    let settings = LogSettings::read(connection).await?;
    found.0.extend(settings.faults().iter().map(Finding::of));
    found.settings(connection).await?;
    found.rights(connection).await?;
    if settings.log_bin {
        found.log(connection).await?;
        found.replicas(connection, &identity, &name).await?;
    }
    let tables = shared.discover(connection).await?;
    found.tables(&tables, &patterns);
    Ok(found.0)
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fatal(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: true, problem: problem.into(), remedy: remedy.into() });
    }

    fn note(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: false, problem: problem.into(), remedy: remedy.into() });
    }

    async fn settings(&mut self, connection: &mut Connection) -> Result<()> {
        const NAMES: &str = "'binlog_row_image', 'binlog_row_metadata', \
            'binlog_expire_logs_seconds', 'expire_logs_days', 'log_slave_updates', \
            'log_replica_updates', 'server_id', 'gtid_strict_mode'";
        let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({NAMES})");
        let rows = connection.rows("reading settings", &sql).await?;
        let values = rows.into_iter().filter_map(|row| {
            let [name, value] = <[_; 2]>::try_from(row).ok()?;
            Some((name?.to_ascii_lowercase(), value.unwrap_or_default()))
        });
        let facts = Facts { flavor: Some(connection.flavor), values: values.collect() };
        self.judge(&facts);
        Ok(())
    }

    fn judge(&mut self, facts: &Facts) {
        let is = |name: &str, value: &str| {
            facts.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value))
        };
        if facts.get("server_id") == Some("0") {
            self.fatal("server_id is 0: the server refuses replicas", "SET GLOBAL server_id = 1");
        }
        if facts.get("binlog_row_image").is_some_and(|_| !is("binlog_row_image", "FULL")) {
            let image = facts.get("binlog_row_image").unwrap_or_default();
            self.note(
                format!(
                    "binlog_row_image is {image}: what the log leaves out is completed from the \
                     lake, and a table without a key can't be kept"
                ),
                "SET GLOBAL binlog_row_image = 'FULL'",
            );
        }
        if facts.get("binlog_row_metadata").is_some_and(|_| !is("binlog_row_metadata", "FULL")) {
            self.note(
                "binlog_row_metadata is not FULL: columns are told by their place and type only",
                "SET GLOBAL binlog_row_metadata = 'FULL'",
            );
        }
        let updates = ["log_replica_updates", "log_slave_updates"];
        if updates.iter().any(|name| is(name, "OFF")) {
            self.note(
                "what the server replicates from another one is not in its own log",
                "if it is a replica, set log_replica_updates (log_slave_updates) in its \
                 configuration and restart it",
            );
        }
        if facts.flavor == Some(Flavor::MariaDb) && is("gtid_strict_mode", "OFF") {
            self.note(
                "gtid_strict_mode is OFF: the numbers of a domain's transactions need not ascend, \
                 and one that comes late with a lower number would be passed over",
                "SET GLOBAL gtid_strict_mode = ON",
            );
        }
        let seconds = facts.get("binlog_expire_logs_seconds").and_then(|text| text.parse().ok());
        let day = 86_400_u64;
        if seconds.is_some_and(|seconds: u64| seconds > 0 && seconds < day) {
            self.note(
                "the log is kept for less than a day: a longer stop reads the tables again",
                "SET GLOBAL binlog_expire_logs_seconds = 604800",
            );
        }
    }

    /// Rights, as far as a statement shows them without changing anything.
    async fn rights(&mut self, connection: &mut Connection) -> Result<()> {
        let status = log_status(connection.flavor, connection.version);
        let may_follow = connection.rows("looking at the log", status).await;
        let refused = |error: &Error| error.kind() == ErrorKind::Config;
        if may_follow.is_err_and(|error| refused(&error)) {
            self.fatal("the user may not look at the log", fault::RIGHTS);
        }
        let grants = connection.rows("looking at rights", "SHOW GRANTS").await?;
        let grants: Vec<String> = grants.into_iter().flatten().flatten().collect();
        let has = |right: &str| {
            grants.iter().any(|grant| grant.contains(right) || grant.contains("ALL PRIVILEGES"))
        };
        if !has("REPLICATION SLAVE") && !has("REPLICATION REPLICA") {
            self.fatal("the user may not read the log", fault::RIGHTS);
        }
        Ok(())
    }

    async fn log(&mut self, connection: &mut Connection) -> Result<()> {
        let status = log_status(connection.flavor, connection.version);
        // File, position, databases that are logged, and databases that are not.
        let Ok(rows) = connection.rows("looking at the log", status).await else { return Ok(()) };
        let row = rows.into_iter().next().unwrap_or_default();
        let filters: Vec<String> =
            row.into_iter().skip(2).take(2).flatten().filter(|text| !text.is_empty()).collect();
        if !filters.is_empty() {
            self.note(
                format!("the server logs some databases only ({})", filters.join("; ")),
                "take binlog_do_db and binlog_ignore_db out of its configuration, or keep only \
                 tables that are logged",
            );
        }
        Ok(())
    }

    async fn replicas(
        &mut self,
        connection: &mut Connection,
        identity: &Identity,
        name: &str,
    ) -> Result<()> {
        let sql = list_of_replicas(connection);
        let Ok(rows) = connection.rows("listing replicas", sql).await else { return Ok(()) };
        let ours = identity.server_id.to_string();
        let other = rows.iter().find(|row| {
            let same = row.first().is_some_and(|id| id.as_deref() == Some(&ours));
            same && row.get(1).is_none_or(|host| host.as_deref() != Some(name))
        });
        if other.is_some() {
            self.fatal(
                format!("another replica of the server has the server_id {ours}"),
                "set server_id of the source to a number that no replica has",
            );
        }
        Ok(())
    }

    fn tables(&mut self, found: &Found, patterns: &str) {
        for (table, reason) in &found.refused {
            self.fatal(format!("table {table} can't be kept"), reason);
        }
        if found.tables.is_empty() {
            self.fatal(format!("no table can be kept of those that match {patterns}"), "");
        }
        for table in &found.tables {
            if table.schema.identity == RowIdentity::FullRow {
                let name = quoted_table(&table.schema.id);
                self.note(
                    format!(
                        "table {} has no key that can be followed: its rows are told apart by all \
                         their columns, and are read in one transaction",
                        table.schema.id
                    ),
                    format!("ALTER TABLE {name} ADD PRIMARY KEY (…)"),
                );
            }
        }
    }
}

/// What the server is set to.
#[derive(Debug, Default)]
struct Facts {
    flavor: Option<Flavor>,
    values: std::collections::HashMap<String, String>,
}

impl Facts {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(values: &[(&str, &str)]) -> Vec<(bool, String)> {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut found = Findings::default();
        found.judge(&Facts { flavor: Some(Flavor::MariaDb), values });
        found.0.into_iter().map(|finding| (finding.fatal, finding.problem)).collect()
    }

    #[test]
    fn a_good_server_has_no_finding() {
        let good = [
            ("server_id", "7"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "FULL"),
            ("binlog_expire_logs_seconds", "2592000"),
            ("gtid_strict_mode", "ON"),
            ("log_slave_updates", "ON"),
        ];
        assert_eq!(judge(&good), []);
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let bad = [
            ("server_id", "0"),
            ("binlog_row_image", "MINIMAL"),
            ("binlog_row_metadata", "NO_LOG"),
            ("binlog_expire_logs_seconds", "60"),
            ("gtid_strict_mode", "OFF"),
            ("log_slave_updates", "OFF"),
        ];
        let fatal: Vec<_> = judge(&bad).into_iter().map(|(fatal, _)| fatal).collect();
        assert_eq!(fatal, [true, false, false, false, false, false]);
    }

    #[test]
    fn an_error_is_a_finding_with_its_remedy_once() {
        let error = Error::config("it is wrong").with("a", 1).remedy("mend it").caused_by("why");
        let finding = Finding::of(&error);
        assert_eq!(finding.problem, "it is wrong (a 1): why");
        assert_eq!(finding.remedy, "mend it");
    }
}
