//! Publication, slot, and what `check` says about them.

use std::time::Instant;

use super::*;
use crate::ErrorKind;

#[test]
fn a_role_without_rights_is_told_the_statements() {
    on_servers("rights", |bed| async move {
        let admin = bed.admin().await;
        let role = &bed.name;
        let sql = format!(
            "create table t (id int primary key); create role {role} login replication password \
             'secret'; grant select on t to {role}"
        );
        admin.batch_execute(&sql).await.unwrap();
        let url = Secret::new(bed.url_as(Some((role, "secret"))));
        let mut source = Postgres::new(Options { url, ..bed.options() }).unwrap();
        let found = source.discover().await.unwrap();
        let tables: Vec<_> = found.tables.into_iter().map(|listed| listed.schema).collect();
        let error = source.establish(&tables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let remedy = error.remedy_text().unwrap().to_owned();
        let (_, statements) = remedy.split_once("run: ").unwrap();
        let findings = source.check().await.unwrap();
        assert!(findings.iter().any(|f| f.fatal && f.remedy.contains(statements)), "{findings:?}");
        // Nothing was left behind by the attempt.
        let slots = "select from pg_replication_slots where slot_name = $1";
        assert!(admin.query(slots, &[&bed.name]).await.unwrap().is_empty());

        admin.batch_execute(statements).await.unwrap();
        let established = source.establish(&tables).await.unwrap();
        assert_eq!(source.check().await.unwrap().iter().filter(|f| f.fatal).count(), 0);
        let mut stream = source.stream(&established.oldest, &tables).await.unwrap();
        admin.batch_execute("insert into t values (1)").await.unwrap();
        let mut said = Said::default();
        said.read(&mut stream, |said| said.changes() == 1).await;
        drop((stream, source));

        admin.batch_execute(&format!("alter role {role} noreplication")).await.unwrap();
        let url = Secret::new(bed.url_as(Some((role, "secret"))));
        let mut source = Postgres::new(Options { url, ..bed.options() }).unwrap();
        let findings = source.check().await.unwrap();
        assert!(findings.iter().any(|f| f.remedy.contains("REPLICATION")), "{findings:?}");
        admin.batch_execute(&format!("revoke all on t from {role}")).await.unwrap();
    });
}

#[test]
fn what_the_server_keeps_of_its_log_is_told() {
    on_servers("kept", |bed| async move {
        let mut made = bed.made("create table t (id int primary key, v text)").await;
        let before = made.established.retained.unwrap();
        let sql =
            "insert into t select g, repeat(md5(g::text), 30) from generate_series(1, 5000) g";
        made.admin.batch_execute(sql).await.unwrap();
        let retained = made.source.establish(&made.tables).await.unwrap().retained.unwrap();
        assert!(retained > before + (4 << 20), "{before}, then {retained}");
        let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 \
                   from pg_replication_slots where slot_name = $1";
        let said: i64 = made.admin.query_one(sql, &[&bed.name]).await.unwrap().get(0);
        // Others write to the server, too.
        assert!((retained as i64) <= said, "{retained}, and the server says {said}");
    });
}

#[test]
fn a_publication_follows_what_is_wanted() {
    on_servers("pub", |bed| async move {
        let mut made = bed
            .made(
                "create table a (id int primary key); create table \"B \"\"c\" (id int primary \
                 key); create table p (id int primary key) partition by range (id); create table \
                 p1 partition of p for values from (0) to (10); create table heir () inherits (a)",
            )
            .await;
        let listed = async |admin: &Client| {
            let sql = "select string_agg(tablename, ',' order by tablename) from \
                       pg_publication_tables where pubname = $1";
            let name = bed.options().publication;
            let row = admin.query_one(sql, &[&name]).await.unwrap();
            row.get::<_, Option<String>>(0).unwrap_or_default()
        };
        assert_eq!(listed(&made.admin).await, "B \"c,a,p");
        // An update of the heir, which has no identity, must not fail.
        made.admin
            .batch_execute("insert into heir values (1); update heir set id = 2")
            .await
            .unwrap();
        // A table made again is not in the publication any more (PG-050).
        made.admin
            .batch_execute("drop table a cascade; create table a (id int primary key)")
            .await
            .unwrap();
        assert_eq!(listed(&made.admin).await, "B \"c,p");
        let again = made.source.establish(&made.tables).await.unwrap();
        assert_eq!(listed(&made.admin).await, "B \"c,a,p");
        assert_eq!(again.identity, made.established.identity);
        let (p, _): (Vec<_>, Vec<_>) =
            made.tables.iter().cloned().partition(|table| table.id.name == "p");
        made.source.establish(&p).await.unwrap();
        assert_eq!(listed(&made.admin).await, "p");

        let removed = made.source.remove().await.unwrap();
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert_eq!(made.source.remove().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_publication_of_somebody_else_will_do() {
    on_servers("alltab", |bed| async move {
        let name = bed.options().publication;
        let mut made = bed
            .made(&format!(
                "create table a (id int primary key); create table b (id int primary key); create \
                 publication \"{name}\" for all tables"
            ))
            .await;
        made.source.establish(&made.tables[..1]).await.unwrap();
        let removed = made.source.remove().await.unwrap();
        assert!(removed.iter().any(|line| line.contains("kept")), "{removed:?}");

        let partitioned = "create table p (id int primary key) partition by range (id); create \
                           table p1 partition of p for values from (0) to (10)";
        made.admin.batch_execute(partitioned).await.unwrap();
        let found = made.source.discover().await.unwrap();
        let tables: Vec<_> = found.tables.into_iter().map(|listed| listed.schema).collect();
        made.source.establish(&tables).await.unwrap();
        let sql = "select pubviaroot from pg_publication where pubname = $1";
        assert!(made.admin.query_one(sql, &[&name]).await.unwrap().get::<_, bool>(0));
    });
}

#[test]
fn a_locked_table_is_not_waited_for() {
    on_servers("lock", |bed| async move {
        let admin = bed.admin().await;
        admin.batch_execute("create table t (id int primary key)").await.unwrap();
        let mut source = bed.source();
        let found = source.discover().await.unwrap();
        let tables: Vec<_> = found.tables.into_iter().map(|listed| listed.schema).collect();
        admin.batch_execute("begin; lock table t in share row exclusive mode").await.unwrap();
        let start = Instant::now();
        let error = source.establish(&tables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(6));
        admin.batch_execute("commit").await.unwrap();
        source.establish(&tables).await.unwrap();
    });
}

#[test]
fn a_slot_waits_for_open_transactions_and_says_for_which() {
    on_servers("wait", |bed| async move {
        let admin = bed.admin().await;
        let prepared = bed.name.clone();
        let sql = format!(
            "create table t (id int primary key); begin; insert into t values (1); prepare \
             transaction '{prepared}'"
        );
        admin.batch_execute(&sql).await.unwrap();
        let mut source = bed.source();
        let found = source.discover().await.unwrap();
        let tables: Vec<_> = found.tables.into_iter().map(|listed| listed.schema).collect();
        let making = tokio::spawn(async move { source.establish(&tables).await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!making.is_finished());
        admin.batch_execute(&format!("commit prepared '{prepared}'")).await.unwrap();
        timeout(Duration::from_secs(10), making).await.unwrap().unwrap().unwrap();
    });
}
