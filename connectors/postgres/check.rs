//! What `lakeward check` says about a Postgres source. Changes nothing.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use super::replication::literal;
use super::{Control, Options, Postgres, catalog, fault, publication, slot};
use crate::error::{ErrorKind, Result};
use crate::schema::TableId;
use crate::source::Finding;

/// All findings at once; one for the connection alone when it can't be made.
pub async fn findings(source: &mut Postgres) -> Result<Vec<Finding>> {
    let (options, filter) = (source.options.clone(), source.filter.clone());
    let (catalog, server) = (source.catalog.clone(), source.server.clone());
    let control = match source.control().await {
        Ok(control) => control,
        Err(error) => return Ok(vec![Finding::of(&error)]),
    };
    let mut found = Findings::default();
    found.settings(control, &options).await?;
    let tables = catalog::discover(&control.client, &filter, &catalog).await?;
    for (table, reason) in &tables.refused {
        found.fatal(format!("table {table} can't be kept"), reason);
    }
    if tables.tables.is_empty() {
        let patterns = options.tables.join(", ");
        found.fatal(format!("no table can be kept of those that match {patterns}"), "");
    }
    let wanted: BTreeSet<_> =
        tables.tables.iter().map(|table| table.relation.schema.id.clone()).collect();
    found.publication(control, &options, &wanted).await?;
    found.slot(control, &options).await?;
    // Logging in as a walsender shows what pg_hba.conf and the role allow better than any catalog.
    if let Err(error) = server.replication().await {
        found.0.push(Finding::of(&error));
    }
    Ok(found.0)
}

/// What the server is set to.
#[derive(Debug, Default)]
struct Facts {
    wal_level: String,
    slots_free: i64,
    senders_free: i64,
    slot_keep: String,
    encoding: String,
}

impl From<&Row> for Facts {
    fn from(row: &Row) -> Self {
        Self {
            wal_level: row.get(0),
            slots_free: row.get(1),
            senders_free: row.get(2),
            slot_keep: row.get(3),
            encoding: row.get(4),
        }
    }
}

const FACTS: &str = "SELECT current_setting('wal_level'), \
    current_setting('max_replication_slots')::int8 - (SELECT count(*) FROM pg_replication_slots), \
    current_setting('max_wal_senders')::int8 - (SELECT count(*) FROM pg_stat_replication), \
    current_setting('max_slot_wal_keep_size'), \
    current_setting('server_encoding')";

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fatal(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: true, problem: problem.into(), remedy: remedy.into() });
    }

    fn note(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: false, problem: problem.into(), remedy: remedy.into() });
    }

    async fn settings(&mut self, control: &Control, options: &Options) -> Result<()> {
        let row = control.client.query_one(FACTS, &[]).await;
        let facts = Facts::from(&row.map_err(|error| fault::query("reading settings", error))?);
        let made = slot_of(control, options).await.is_ok_and(|slot| slot.is_some());
        self.judge(&facts, made);
        Ok(())
    }

    fn judge(&mut self, facts: &Facts, slot_made: bool) {
        if facts.wal_level != "logical" {
            self.fatal(format!("wal_level is {}", facts.wal_level), fault::WAL_LEVEL);
        }
        if facts.slots_free < 1 && !slot_made {
            self.fatal("all replication slots are in use", "raise max_replication_slots (restart)");
        }
        if facts.senders_free < 1 {
            self.fatal("all walsenders are in use", "raise max_wal_senders (restart)");
        }
        if facts.encoding == "SQL_ASCII" {
            self.fatal(
                "the database's encoding is SQL_ASCII: texts have no known meaning",
                "move it to a database of encoding UTF8",
            );
        }
        if facts.slot_keep == "-1" {
            self.note(
                "the server keeps the log for a slot without limit: if nothing reads it for long, \
                 the disk fills up",
                "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (as much as the disk can spare); \
                 SELECT pg_reload_conf()",
            );
        }
    }

    async fn publication(
        &mut self,
        control: &Control,
        options: &Options,
        wanted: &BTreeSet<TableId>,
    ) -> Result<()> {
        const MAY: &str = "SELECT has_database_privilege(current_database(), 'CREATE') \
            AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                JOIN unnest($1::text[], $2::text[]) AS t(s, n) ON t.s = n.nspname \
                    AND t.n = c.relname WHERE NOT pg_has_role(c.relowner, 'USAGE')) \
            AND NOT EXISTS (SELECT FROM pg_publication \
                WHERE pubname = $3 AND NOT pg_has_role(pubowner, 'USAGE'))";
        let name = &options.publication;
        let made = publication::look(&control.client, name).await?;
        let statements = publication::plan(name, made.as_ref(), wanted);
        if statements.is_empty() {
            return Ok(());
        }
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            wanted.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
        let row = control.client.query_one(MAY, &[&schemas, &names, name]).await;
        let failed = |error| fault::query("looking at rights", error);
        let may: bool = row.and_then(|row| row.try_get(0)).map_err(failed)?;
        let problem = match made {
            None => format!("the publication {name} does not exist"),
            Some(_) => format!("the publication {name} does not hand out what is wanted"),
        };
        let statements = statements.join("; ");
        match may {
            true => self.note(problem, format!("the daemon will run: {statements};")),
            false => self.fatal(
                format!("{problem}, and this role may not change it"),
                format!("let the owner of the tables, or a superuser, run: {statements};"),
            ),
        }
        Ok(())
    }

    async fn slot(&mut self, control: &Control, options: &Options) -> Result<()> {
        const HELD: &str = "SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), \
            restart_lsn)) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active \
            AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 1073741824";
        let name = &options.slot;
        match slot_of(control, options).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.note(format!("the slot {name} does not exist"), "the daemon will make it");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => self.0.push(Finding::of(&error)),
        }
        let held = control.client.query_opt(HELD, &[name]).await;
        if let Some(row) = held.map_err(|error| fault::query("looking at the slot", error))? {
            let held: String = row.get(0);
            self.note(
                format!("nobody reads the slot {name}, for which the server keeps {held} of log"),
                format!("start the daemon, or SELECT pg_drop_replication_slot({})", literal(name)),
            );
        }
        Ok(())
    }
}

async fn slot_of(control: &Control, options: &Options) -> Result<Option<slot::Slot>> {
    slot::look(&control.client, &options.slot).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn good() -> Facts {
        Facts {
            wal_level: "logical".to_owned(),
            slots_free: 1,
            senders_free: 1,
            slot_keep: "1GB".to_owned(),
            encoding: "UTF8".to_owned(),
        }
    }

    fn judge(facts: &Facts) -> Vec<(bool, String)> {
        let mut found = Findings::default();
        found.judge(facts, false);
        found.0.into_iter().map(|finding| (finding.fatal, finding.problem)).collect()
    }

    #[test]
    fn a_good_server_has_no_finding() {
        assert_eq!(judge(&good()), []);
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let bad = Facts {
            wal_level: "replica".to_owned(),
            slot_keep: "-1".to_owned(),
            encoding: "SQL_ASCII".to_owned(),
            ..Facts::default()
        };
        let fatal: Vec<_> = judge(&bad).into_iter().map(|(fatal, _)| fatal).collect();
        assert_eq!(fatal, [true, true, true, true, false]);
    }

    #[test]
    fn an_error_is_a_finding_with_its_remedy_once() {
        let error = Error::config("it is wrong").with("a", 1).remedy("mend it").caused_by("why");
        let finding = Finding::of(&error);
        assert_eq!(finding.problem, "it is wrong (a 1): why");
        assert_eq!(finding.remedy, "mend it");
    }
}
