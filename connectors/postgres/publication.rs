//! The publication: which tables' changes the log hands out.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::fault;
use super::replication::{literal, quote};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::TableId;

/// A publication as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publication {
    /// Its object id: another one after it was dropped and made again.
    pub oid: u32,
    /// It was made by [`ensure`], which may then also take tables out of it.
    pub ours: bool,
    /// FOR ALL TABLES.
    pub everything: bool,
    /// It publishes every kind of change.
    pub whole: bool,
    /// Changes of partitions come under the name of their partitioned table.
    pub via_root: bool,
    /// Tables named in it.
    pub members: BTreeSet<TableId>,
    /// All tables whose changes it hands out, by the names under which they come.
    pub covered: BTreeSet<TableId>,
}

/// What marks a publication as ours.
const MARK: &str = "made by Lakeward";
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// The publication called `name`, if there is one.
pub async fn look(client: &Client, name: &str) -> Result<Option<Publication>> {
    const PUBLICATION: &str = "SELECT oid, puballtables, \
        pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, \
        coalesce(pg_catalog.obj_description(oid, 'pg_publication') = $2, false) \
        FROM pg_catalog.pg_publication WHERE pubname = $1";
    const MEMBERS: &str = "SELECT n.nspname::text, c.relname::text \
        FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = $1";
    const COVERED: &str = "SELECT schemaname::text, tablename::text \
        FROM pg_catalog.pg_publication_tables WHERE pubname = $1";
    let failed = |error| fault::query("looking at the publication", error);
    let Some(row) = client.query_opt(PUBLICATION, &[&name, &MARK]).await.map_err(failed)? else {
        return Ok(None);
    };
    let mut found = Publication {
        oid: row.get(0),
        everything: row.get(1),
        whole: row.get(2),
        via_root: row.get(3),
        ours: row.get(4),
        ..Publication::default()
    };
    let id = |row: &tokio_postgres::Row| TableId::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
    let members = client.query(MEMBERS, &[&found.oid]).await.map_err(failed)?;
    found.members = members.iter().map(id).collect();
    let covered = client.query(COVERED, &[&name]).await.map_err(failed)?;
    found.covered = covered.iter().map(id).collect();
    Ok(Some(found))
}

/// The statements that make the publication `name` hand out the changes of `tables`; none when it
/// does. A column list or row filter that somebody gave it stays: the catalog's schemas heed them.
pub fn plan(name: &str, found: Option<&Publication>, tables: &BTreeSet<TableId>) -> Vec<String> {
    let quoted = quote(name);
    let Some(found) = found else {
        let list = match tables.is_empty() {
            true => String::new(),
            false => format!("FOR TABLE {} ", list(tables.iter())),
        };
        return vec![
            format!("CREATE PUBLICATION {quoted} {list}WITH ({OPTIONS})"),
            format!("COMMENT ON PUBLICATION {quoted} IS {}", literal(MARK)),
        ];
    };
    let mut statements = Vec::new();
    let missing: Vec<_> = tables.difference(&found.covered).collect();
    // A partitioned table that is named, but not handed out by its own name.
    let by_partition =
        missing.iter().any(|table| found.everything || found.members.contains(*table));
    if !found.whole || (by_partition && !found.via_root) {
        statements.push(format!("ALTER PUBLICATION {quoted} SET ({OPTIONS})"));
    }
    let unnamed: Vec<_> =
        missing.into_iter().filter(|table| !found.members.contains(*table)).collect();
    if !unnamed.is_empty() && !found.everything {
        statements.push(format!("ALTER PUBLICATION {quoted} ADD TABLE {}", list(unnamed)));
    }
    let extra: Vec<_> = found.members.difference(tables).collect();
    if found.ours && !extra.is_empty() {
        statements.push(format!("ALTER PUBLICATION {quoted} DROP TABLE {}", list(extra)));
    }
    statements
}

/// Makes the publication hand out the changes of `tables` and returns its object id. Takes one
/// short SHARE UPDATE EXCLUSIVE on tables that are added or taken out.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) with the statements for the owner, when the role may not.
pub async fn ensure(client: &Client, name: &str, tables: &BTreeSet<TableId>) -> Result<u32> {
    let found = look(client, name).await?;
    let statements = plan(name, found.as_ref(), tables);
    if let (true, Some(found)) = (statements.is_empty(), &found) {
        return Ok(found.oid);
    }
    // One message is one transaction; it leaves nothing behind when a statement fails.
    let batch = format!("SET LOCAL lock_timeout = '3s'; {}", statements.join("; "));
    if let Err(error) = client.batch_execute(&batch).await {
        let error = fault::query("setting up the publication", error);
        return Err(match error.kind() {
            ErrorKind::Config => error.with("publication", name).remedy(format!(
                "let the owner of the tables, or a superuser, run: {};",
                statements.join("; ")
            )),
            _ => error.with("publication", name),
        });
    }
    tracing::info!(publication = name, statements = statements.join("; "), "publication set up");
    match look(client, name).await? {
        Some(made) => covers(name, &made, tables).map(|()| made.oid),
        None => Err(Error::unavailable(format!("the publication {name} vanished"))),
    }
}

/// That nothing is missing, whatever the statements were meant to do.
fn covers(name: &str, made: &Publication, tables: &BTreeSet<TableId>) -> Result<()> {
    match tables.difference(&made.covered).next() {
        Some(table) => Err(Error::config(format!(
            "the publication {name} does not hand out {table} though it names it"
        ))
        .remedy("drop the publication, so that it is made anew")),
        None => Ok(()),
    }
}

/// Drops the publication if it is ours; `None` when there is none, else whether it was dropped.
pub async fn drop_ours(client: &Client, name: &str) -> Result<Option<bool>> {
    let Some(found) = look(client, name).await? else {
        return Ok(None);
    };
    if !found.ours {
        return Ok(Some(false));
    }
    client
        .batch_execute(&format!("DROP PUBLICATION {}", quote(name)))
        .await
        .map_err(|error| fault::query("dropping the publication", error))?;
    Ok(Some(true))
}

/// Tables as CREATE and ALTER PUBLICATION list them: without those that inherit from them, whose
/// updates might fail once published. The partitions of a partitioned table always count.
fn list<'a>(tables: impl IntoIterator<Item = &'a TableId>) -> String {
    let named: Vec<_> = tables.into_iter().map(|table| format!("ONLY {}", path(table))).collect();
    named.join(", ")
}

fn path(table: &TableId) -> String {
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<TableId> {
        names.iter().map(|name| TableId::new("s", *name)).collect()
    }

    fn publication(members: &[&str], covered: &[&str]) -> Publication {
        Publication {
            whole: true,
            via_root: true,
            members: set(members),
            covered: set(covered),
            ..Publication::default()
        }
    }

    #[test]
    fn a_missing_publication_is_made() {
        let made = plan("P", None, &set(&["a", "b"]));
        assert_eq!(
            made[0],
            "CREATE PUBLICATION \"P\" FOR TABLE ONLY \"s\".\"a\", ONLY \"s\".\"b\" WITH (publish \
             = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        );
        assert_eq!(made[1], "COMMENT ON PUBLICATION \"P\" IS 'made by Lakeward'");
        assert!(plan("P", None, &set(&[]))[0].starts_with("CREATE PUBLICATION \"P\" WITH"));
    }

    #[test]
    fn only_our_own_loses_tables() {
        let mut found = publication(&["a", "old"], &["a", "old"]);
        let added = "ALTER PUBLICATION \"p\" ADD TABLE ONLY \"s\".\"b\"";
        assert_eq!(plan("p", Some(&found), &set(&["a", "b"])), [added]);
        found.ours = true;
        let dropped = "ALTER PUBLICATION \"p\" DROP TABLE ONLY \"s\".\"old\"";
        assert_eq!(plan("p", Some(&found), &set(&["a", "b"])), [added, dropped]);
        assert!(plan("p", Some(&found), &set(&["a", "old"])).is_empty());
    }

    #[test]
    fn a_publication_of_everything_is_left_alone() {
        let found = Publication { everything: true, ..publication(&[], &["a", "b"]) };
        assert!(plan("p", Some(&found), &set(&["a"])).is_empty());
        let schema = publication(&[], &["a", "b"]);
        assert!(plan("p", Some(&schema), &set(&["a"])).is_empty());
    }

    #[test]
    fn what_is_left_out_is_put_right_or_refused() {
        let found = Publication { whole: false, ..publication(&["a"], &["a"]) };
        let fixed = plan("p", Some(&found), &set(&["a"]));
        assert!(fixed[0].starts_with("ALTER PUBLICATION \"p\" SET (publish = "));
        // A partitioned table of which only partitions are handed out.
        let found = Publication { via_root: false, ..publication(&["a"], &["a_1", "a_2"]) };
        let fixed = plan("p", Some(&found), &set(&["a"]));
        assert!(fixed.len() == 1 && fixed[0].contains("publish_via_partition_root = true"));
    }
}
