//! Against real servers: what each kind of DDL looks like afterwards.

use tokio_postgres::NoTls;

use super::*;
use crate::schema::{Evolution, Identity, Type};

/// A database of its own on one server, dropped by [`on_servers`].
pub(in crate::postgres) struct Server {
    pub client: Client,
    pub(in crate::postgres) url: String,
    pub version: i32,
}

impl Server {
    pub(in crate::postgres) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    pub(in crate::postgres) async fn run(&self, sql: &str) {
        // One by one: VACUUM refuses to run among others.
        for statement in sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            let done = self.client.batch_execute(statement).await;
            assert!(done.is_ok(), "{statement}: {done:?}");
        }
    }

    pub(in crate::postgres) async fn found(&self, options: &Options) -> Found {
        let found = discover(&self.client, &TableFilter::default(), options).await;
        found.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(in crate::postgres) async fn table(&self, name: &str, options: &Options) -> Table {
        let found = self.found(options).await;
        let table = found.tables.iter().find(|table| table.relation.schema.id.name == name);
        table.unwrap_or_else(|| panic!("no table {name}: {:?}", found.refused)).clone()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    tokio::spawn(connection);
    let settings =
        "set datestyle = 'ISO,MDY'; set timezone = 'UTC'; set intervalstyle = 'postgres';
        set extra_float_digits = 3; set bytea_output = 'hex'; set client_encoding = 'UTF8';
        set lc_monetary = 'C'";
    client.batch_execute(settings).await.unwrap_or_else(|error| panic!("{error}"));
    client
}

/// Runs `test` in an empty database of each server.
pub(in crate::postgres) fn on_servers(name: &str, test: impl AsyncFn(Server)) {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    for variable in ["LAKEWARD_TEST_PG15_URL", "LAKEWARD_TEST_PG18_URL"] {
        let Ok(url) = std::env::var(variable) else { panic!("{variable} is not set") };
        let database = format!("lw_{name}_{}", std::process::id());
        runtime.block_on(async {
            let owner = connect(&url).await;
            let create = format!("create database {database}");
            owner.batch_execute(&create).await.unwrap_or_else(|error| panic!("{error:?}"));
            let base = url.rsplit_once('/').map_or(url.as_str(), |(base, _)| base);
            let url = format!("{base}/{database}");
            let client = connect(&url).await;
            let version = client.query_one("show server_version_num", &[]).await;
            let version: String = version.and_then(|row| row.try_get(0)).unwrap_or_default();
            let version = version.parse().unwrap_or_default();
            let server = Server { client, url, version };
            let outcome = std::panic::AssertUnwindSafe(test(server));
            let outcome = futures::FutureExt::catch_unwind(outcome).await;
            let slots = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
                where database = $1";
            let _ = owner.execute(slots, &[&database]).await;
            let drop = format!("drop database {database} with (force)");
            owner.batch_execute(&drop).await.unwrap_or_else(|error| panic!("{error:?}"));
            if let Err(panic) = outcome {
                println!("failed on {variable}");
                std::panic::resume_unwind(panic);
            }
        });
    }
}

/// What becomes of table `t`, made by `before`, when `ddl` has run.
async fn evolution(server: &Server, before: &str, ddl: &str) -> Evolution {
    server.run(&format!("drop schema public cascade;\ncreate schema public;\n{before}")).await;
    let old = server.table("t", &Options::default()).await.relation.schema;
    server.run(ddl).await;
    let new = server.table("t", &Options::default()).await.relation.schema;
    old.evolve(&new)
}

#[test]
fn server_ddl_that_needs_no_snapshot() {
    const T: &str = "create table t(id int primary key, v text);\ninsert into t values (1,'a')";
    const BARE: &str = "create table t(id int primary key, v int);\ninsert into t values (1,1)";
    const FULL: &str = "create table t(a int, v text);\nalter table t replica identity full";
    const PARTS: &str = "create table t(id int primary key, v text) partition by range(id);
        create table t1 partition of t for values from (0) to (10);\n
        insert into t values (1,'a')";
    const SOLID: &str = "create table t(id int primary key, v text not null default 'x')
        partition by range(id);\ncreate table t1 partition of t for values from (0) to (10)";
    const MOOD: &str = "create type mood as enum('sad','happy');\n
        create table t(id int primary key, m mood)";
    on_servers("in_place", async |server| {
        for (before, ddl) in [
            // PG-053
            (T, "vacuum full t"),
            (T, "cluster t using t_pkey"),
            (T, "reindex table t;\nanalyze t;\nvacuum freeze t"),
            (T, "truncate t;\ninsert into t values (2,'b')"),
            (FULL, "truncate t"),
            (FULL, "vacuum full t"),
            (T, "alter table t add column n int"),
            (T, "alter table t add column n int;\nalter table t alter n set default 5"),
            (T, "alter table t drop column v"),
            (T, "alter table t alter v set not null;\nvacuum full t"),
            (T, "alter table t add column n int default 5;\nalter table t drop column n"),
            (T, "alter table t set (fillfactor = 50);\ncreate index on t(v);\ncomment on table t is 'x'"),
            (BARE, "alter table t add column n text"),
            (BARE, "alter table t drop column v"),
            (PARTS, "create table t2 partition of t for values from (10) to (20);\n
                     insert into t values (15,'b')"),
            (PARTS, "create table t2 partition of t for values from (10) to (20);\n
                     insert into t values (15,'b');\nalter table t add column n int not null default 5;\n
                     alter table t drop column n"),
            (SOLID, "create table t2 partition of t for values from (10) to (20);\n
                     insert into t values (15,'b')"),
            (PARTS, "create table t2(id int primary key, v text);\n
                     alter table t attach partition t2 for values from (10) to (20)"),
            (PARTS, "alter table t add column n int"),
            (MOOD, "alter type mood add value 'new' before 'sad'"),
            (MOOD, "alter table t drop column m"),
        ] {
            let verdict = evolution(&server, before, ddl).await;
            let calm = matches!(verdict, Evolution::Same | Evolution::InPlace);
            assert!(calm, "{ddl}: {verdict:?}");
        }
    });
}

#[test]
fn server_ddl_that_is_converted() {
    const T: &str = "create table t(id int primary key, v text, w text, n numeric(8,2));\n
        insert into t values (1,'a','b',1)";
    on_servers("converted_ddl", async |server| {
        for ddl in [
            "alter table t rename v to x",
            "alter table t rename id to key",
            "alter table t rename v to tmp;\nalter table t rename w to v;\nalter table t rename tmp to w",
            "alter table t alter n type numeric(12,2)",
        ] {
            assert_eq!(evolution(&server, T, ddl).await, Evolution::Convert, "{ddl}");
        }
    });
}

#[test]
fn server_ddl_that_needs_a_snapshot() {
    const T: &str = "create table t(id int primary key, v text, w int);\n
        insert into t values (1,'a',1)";
    const BARE: &str = "create table t(id int primary key, v int);\ninsert into t values (1,1)";
    const PARTS: &str = "create table t(id int primary key, v text) partition by range(id);
        create table t1 partition of t for values from (0) to (10);\n
        create table t2 partition of t for values from (10) to (20);\n
        insert into t values (1,'a'),(11,'b')";
    const MOOD: &str = "create type mood as enum('sad','happy');\ncreate domain d as mood;\n
        create table t(id int primary key, m mood[], d d);\ninsert into t values (1,'{happy}')";
    on_servers("snapshot_ddl", async |server| {
        for (before, ddl) in [
            // PG-041, PG-042, PG-044, PG-046, PG-050, PG-054
            (T, "alter table t add column n int not null default 5"),
            (T, "alter table t add column n int not null default 5;\nvacuum full t"),
            (T, "alter table t add column ser serial"),
            (BARE, "alter table t add column ser serial"),
            (T, "alter table t alter w type int using w*100"),
            (BARE, "alter table t alter v type int using v*100"),
            (T, "alter table t alter w type bigint"),
            (T, "drop table t;\ncreate table t(id int primary key, v text, w int)"),
            (T, "alter table t set unlogged;\ninsert into t values (2);\nalter table t set logged"),
            (BARE, "alter table t set unlogged;\nalter table t set logged"),
            (T, "alter table t rename to old;\ncreate table t(id int primary key, v text, w int)"),
            (T, "alter table t drop column w;\nalter table t add column w int"),
            (T, "alter table t replica identity full;\nalter table t drop constraint t_pkey"),
            // PG-034
            (PARTS, "truncate t1"),
            (PARTS, "drop table t1"),
            (PARTS, "alter table t detach partition t1"),
            (
                PARTS,
                "create table t3(id int primary key, v text);\ninsert into t3 values (25,'c');\n
                     alter table t attach partition t3 for values from (20) to (30)",
            ),
            (
                PARTS,
                "create table t3(id int primary key, v text);\n
                     alter table t attach partition t3 for values from (20) to (30);\n
                     insert into t values (25,'c')",
            ),
            (
                PARTS,
                "begin;\ncreate table t3(id int primary key, v text);\n
                     insert into t3 values (25,'c');\n
                     alter table t attach partition t3 for values from (20) to (30);\ncommit",
            ),
            (
                PARTS,
                "begin;\ncreate table t3(id int not null, v text);\n
                     insert into t3 values (25,'c');\n
                     alter table t attach partition t3 for values from (20) to (30);\ncommit",
            ),
            (
                PARTS,
                "create table t3 partition of t for values from (20) to (30);\n
                     alter table t detach partition t3;\ninsert into t3 values (25,'c');\n
                     alter table t attach partition t3 for values from (20) to (30)",
            ),
            (
                PARTS,
                "create table t3(id int primary key, v text) partition by range(id);
                     create table t3a partition of t3 for values from (20) to (25);\n
                     insert into t3 values (21,'c');\n
                     alter table t attach partition t3 for values from (20) to (30)",
            ),
            // PG-055
            (MOOD, "alter type mood rename value 'happy' to 'joyful'"),
        ] {
            let verdict = evolution(&server, before, ddl).await;
            assert!(matches!(verdict, Evolution::Snapshot(_)), "{ddl}: {verdict:?}");
        }
    });
}

#[test]
fn server_tables_are_kept_or_refused() {
    on_servers("refused", async |server| {
        server
            .run(
                "create extension if not exists citext;
                create table kept(a int, b int, v text, primary key(b, a));\n
                create table nokey(v text);\n
                create table nokey_full(v text);\nalter table nokey_full replica identity full;\n
                create table later(id int primary key deferrable);\n
                create table later_full(id int primary key deferrable);\n
                alter table later_full replica identity full;\n
                create table nothing(id int primary key);\nalter table nothing replica identity nothing;\n
                create unlogged table unlogged(id int primary key);\n
                create table folded(k citext primary key);\n
                create table folded_full(k citext primary key, v int);\n
                alter table folded_full replica identity full;\n
                create collation loose (provider = icu, locale = 'und', deterministic = false);\n
                create table loose(k text collate loose primary key);\n
                create table bare();\nalter table bare replica identity full;\n
                create table by_index(id int primary key, e text not null, v int);\n
                create unique index by_index_e on by_index(e) include (v);\n
                alter table by_index replica identity using index by_index_e;\n
                create table made(id int primary key, v int, twice int generated always as (v * 2) stored);\n
                create table parts(id int primary key) partition by range(id);\n
                create table parts_1 partition of parts for values from (0) to (10);\n
                create table parts_full(id int primary key, v int) partition by range(id);\n
                create table parts_full_1 partition of parts_full for values from (0) to (10);\n
                alter table parts_full replica identity full",
            )
            .await;
        let found = server.found(&Options::default()).await;
        let shape = |table: &Table| {
            let schema = &table.relation.schema;
            let columns: Vec<_> = schema.columns.iter().map(|c| c.name.as_str()).collect();
            format!("{} ({}) {:?}", schema.id.name, columns.join(","), schema.identity)
        };
        let kept: Vec<_> = found.tables.iter().map(shape).collect();
        assert_eq!(
            kept,
            [
                "by_index (id,e,v) Key([1])",
                "folded_full (k,v) FullRow",
                "kept (a,b,v) Key([0, 1])",
                "later_full (id) FullRow",
                "made (id,v) Key([0])",
                "nokey_full (v) FullRow",
                "parts (id) Key([0])",
            ]
        );
        assert_eq!(server.table("kept", &Options::default()).await.access.order, [1, 0]);
        let refused: Vec<_> =
            found.refused.iter().map(|(id, why)| format!("{}: {why}", id.name)).collect();
        let expected = [
            ("bare", "no columns"),
            ("folded", "equal to other texts"),
            ("later", "deferrable"),
            ("loose", "equal to other texts"),
            ("nokey", "no primary key"),
            ("nothing", "NOTHING"),
            ("parts_full", "another replica identity"),
            ("unlogged", "unlogged"),
        ];
        assert_eq!(refused.len(), expected.len(), "{refused:#?}");
        for ((name, why), line) in expected.iter().zip(&refused) {
            assert!(line.starts_with(&format!("{name}: ")) && line.contains(why), "{line}");
        }
    });
}

#[test]
fn server_types_are_mapped() {
    on_servers("types", async |server| {
        server
            .run(
                "create domain money2 as numeric(10,2);\ncreate domain price as money2;\n
                create type mood as enum('sad');\n
                create table t(id int primary key, a bool, b int2, c int8, d oid, e float4, f float8,
                  g numeric, h numeric(38,2), i numeric(50,1), j numeric(3,5), k numeric(5,-2),
                  l varchar(3), m char(3), n name, o bytea, p date, q timestamptz, r timestamp(3),
                  s int[], u numeric(9,2)[], v price, w price[], x mood, y mood[], z uuid,
                  aa json, ab interval, ac text[][], ad box[], ae int4range, af int2vector);\n
                alter table t add column ag int default 5, add column ah text default 'it''s {1}'",
            )
            .await;
        let texts = ["b", "g"].map(str::to_owned).to_vec();
        let options = Options {
            text_columns: HashMap::from([(TableId::new("public", "t"), texts)]),
            ..Options::default()
        };
        let table = server.table("t", &options).await;
        let kinds: Vec<_> = table.relation.schema.columns.iter().map(|c| c.kind.clone()).collect();
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        let list = |kind: Type| Type::List(kind.into());
        assert_eq!(
            kinds,
            [
                Type::Int32,
                Type::Bool,
                Type::Text,
                Type::Int64,
                Type::Int64,
                Type::Float32,
                Type::Float64,
                Type::Numeric,
                decimal(38, 2),
                Type::Numeric,
                decimal(5, 5),
                decimal(7, 0),
                Type::Text,
                Type::Text,
                Type::Text,
                Type::Binary,
                Type::Date,
                Type::Timestamp,
                Type::LocalTimestamp,
                list(Type::Int32),
                list(decimal(9, 2)),
                decimal(10, 2),
                Type::Text,
                Type::Text,
                list(Type::Text),
                Type::Text,
                Type::Text,
                Type::Text,
                list(Type::Text),
                Type::Text,
                Type::Text,
                Type::Text,
                Type::Int32,
                Type::Text,
            ]
        );
        let missing: Vec<_> =
            table.relation.schema.columns.iter().filter_map(|c| c.missing.as_deref()).collect();
        assert_eq!(missing, ["5", "it's {1}"]);
    });
}

/// PG-059: the publication's column list and row filter.
#[test]
fn server_the_publication_has_a_say() {
    on_servers("published", async |server| {
        server
            .run(
                "create table t(id int primary key, secret text, v int, twice int generated always as (v * 2) stored);\n
                create publication p for table t(id, v) where (v > 10)",
            )
            .await;
        let options = Options { publication: Some("p".to_owned()), ..Options::default() };
        let table = server.table("t", &options).await;
        assert_eq!(table.access.filter.as_deref(), Some("(v > 10)"));
        let names = |table: &Table| {
            table
                .relation
                .schema
                .columns
                .iter()
                .map(|c| c.name.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(&table), "id v");
        server.run("alter publication p set table t").await;
        let all = server.table("t", &options).await;
        assert_eq!((names(&all).as_str(), all.access.filter.as_deref()), ("id secret v", None));
        let evolved = table.relation.schema.evolve(&all.relation.schema);
        assert!(matches!(evolved, Evolution::Snapshot(_)), "{evolved:?}");
        // What happened while the table was no member is not in the log.
        let unpublished = server.table("t", &Options::default()).await;
        let evolved = unpublished.relation.schema.evolve(&all.relation.schema);
        assert!(matches!(evolved, Evolution::Snapshot(_)), "{evolved:?}");
        if server.version >= 180_000 {
            server.run("alter publication p set (publish_generated_columns = stored)").await;
            assert_eq!(names(&server.table("t", &options).await), "id secret v twice");
        }
    });
}

#[test]
fn server_rights_are_looked_at() {
    on_servers("rights", async |server| {
        let role = format!("lw_rights_{}", std::process::id());
        server
            .run(&format!(
                "create role {role};\ngrant usage on schema public to {role};\n
                create table seen(id int primary key);\ngrant select on seen to {role};\n
                create table half(id int primary key, v int);\ngrant select (id) on half to {role};\n
                create table veiled(id int primary key);\ngrant select on veiled to {role};\n
                alter table veiled enable row level security;\n
                create schema shut;\ncreate table shut.t(id int primary key);\nset role {role}"
            ))
            .await;
        let found = server.found(&Options::default()).await;
        server.run(&format!("reset role;\ndrop owned by {role};\ndrop role {role}")).await;
        assert_eq!(found.tables.len(), 1);
        let refused: Vec<_> =
            found.refused.iter().map(|(id, why)| format!("{id}: {why}")).collect();
        assert_eq!(refused.len(), 3, "{refused:#?}");
        assert!(refused.iter().any(|line| line.contains("column v can't be read")));
        assert!(refused.iter().any(|line| line.contains("row-level security")));
        assert!(refused.iter().any(|line| line.contains("schema can't be used")));
    });
}

#[test]
fn server_resolve_tells_now_from_then() {
    use crate::postgres::decode::RelationColumn;
    on_servers("resolve", async |server| {
        server.run("create table t(id int primary key, v text)").await;
        let known = server.table("t", &Options::default()).await.relation;
        let message = |name: &str, columns: &[&str]| RelationMessage {
            oid: known.oid,
            namespace: "public".to_owned(),
            name: name.to_owned(),
            replica_identity: b'd',
            columns: columns
                .iter()
                .map(|name| RelationColumn {
                    key: *name == "id",
                    name: (*name).to_owned(),
                    type_oid: if *name == "v" { 25 } else { 23 },
                    typmod: -1,
                })
                .collect(),
        };
        let resolved = async |message: &RelationMessage| {
            let options = Options::default();
            match resolve(&server.client, &options, message, &known).await {
                Ok(Resolved::Schema(schema)) => format!("{} columns", schema.columns.len()),
                Ok(Resolved::Lost(_, why)) => why,
                Ok(dropped) => panic!("{dropped:?}"),
                Err(error) => panic!("{error:?}"),
            }
        };
        server.run("alter table t add column n int").await;
        let newer = message("t", &["id", "v", "n"]);
        assert_eq!(resolved(&newer).await, "3 columns");
        assert_eq!(resolved(&message("t2", &["id", "v"])).await, "it was renamed to public.t2");
        server.run("alter table t drop column n").await;
        assert!(resolved(&newer).await.contains("altered more than once"));
        server.run("alter table t rename to t2").await;
        assert!(resolved(&newer).await.contains("renamed to public.t2 since"));
        server.run("drop table t2").await;
        assert_eq!(resolved(&newer).await, "it was dropped since");
        assert!(matches!(known.schema.identity, Identity::Key(_)));
    });
}
