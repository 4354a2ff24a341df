//! Against real servers: chunks, and that stream and snapshot say the same of the same rows.

use std::collections::BTreeMap;

use tokio::sync::mpsc::channel;

use super::*;
use crate::batch::{Batch, Builder};
use crate::error::Reason;
use crate::key::value_at;
use crate::postgres::catalog::server_tests::{Server, on_servers};
use crate::postgres::connection;
use crate::postgres::decode::{Decoder, Relation};
use crate::secret::Secret;
use crate::source::{Decoded, Sink};

/// One chunk: its rows as text, its high mark and what is left.
async fn chunk(reader: &mut Reader, table: &Arc<TableSchema>, rows: Rows) -> Result<Chunk> {
    let (send, mut receive) = channel(64);
    reader.read(table, rows, &[], &send).await?;
    drop(send);
    let mut chunk = Chunk::default();
    let mut opened = false;
    while let Some(part) = receive.recv().await {
        match part {
            Part::Opened(_) => opened = true,
            Part::Rows(batch) => chunk.rows.extend(shown(&batch)),
            Part::Closed { high, rest } => (chunk.high, chunk.rest) = (high.0, rest),
        }
    }
    assert!(opened && chunk.high > 0);
    Ok(chunk)
}

#[derive(Debug, Default)]
struct Chunk {
    rows: Vec<String>,
    high: u64,
    rest: Option<Range>,
}

fn shown(batch: &Batch) -> Vec<String> {
    let row = |row: u32| {
        let value = |(at, column): (usize, &crate::Column)| {
            format!("{:?}", value_at(&column.kind, batch.columns.column(at).as_ref(), row as usize))
        };
        batch.schema.columns.iter().enumerate().map(value).collect::<Vec<_>>().join(" ")
    };
    batch.changes.iter().filter_map(|change| change.row).map(row).collect()
}

/// The whole table, chunk by chunk.
async fn whole(reader: &mut Reader, table: &Arc<TableSchema>, from: Range) -> (Vec<String>, usize) {
    let (mut rows, mut chunks, mut rest) = (Vec::new(), 0, Some(from));
    while let Some(range) = rest {
        let read = chunk(reader, table, Rows::Next(range)).await;
        let read = read.unwrap_or_else(|error| panic!("{error:?}"));
        rows.extend(read.rows);
        rest = read.rest;
        chunks += 1;
    }
    (rows, chunks)
}

async fn reader(server: &Server) -> Reader {
    reader_of(server, 16_000_000).await
}

async fn reader_of(server: &Server, chunk_bytes: usize) -> Reader {
    let place = connection::Server::parse(&Secret::new(&server.url), None);
    let place = place.unwrap_or_else(|error| panic!("{error:?}"));
    let reader = Reader::open(place, Options::default(), chunk_bytes).await;
    reader.unwrap_or_else(|error| panic!("{error:?}"))
}

async fn schema(server: &Server, name: &str) -> Arc<TableSchema> {
    server.table(name, &Options::default()).await.relation.schema
}

/// No statistics say how wide the rows are that lie behind the first ones.
#[test]
fn server_a_chunk_of_wide_rows_is_cut_short() {
    on_servers("wide", async |server| {
        server
            .run(
                "create table t(id int primary key, v text);
                 insert into t select n, case when n > 1000 then repeat(md5(n::text), 3000) end
                 from generate_series(1, 1300) n; analyze t",
            )
            .await;
        let table = schema(&server, "t").await;
        let mut reader = reader_of(&server, 1_000_000).await;
        let (mut rows, mut rest, mut most) = (Vec::new(), Some(Range::default()), 0);
        while let Some(range) = rest {
            let read = chunk(&mut reader, &table, Rows::Next(range)).await;
            let read = read.unwrap_or_else(|error| panic!("{error:?}"));
            most = most.max(read.rows.iter().map(String::len).sum());
            rows.extend(read.rows);
            rest = read.rest;
        }
        assert_eq!(rows.len(), 1300);
        assert!(rows.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(most < 2_500_000, "a chunk of {most} bytes");
    });
}

#[test]
fn server_every_row_comes_once() {
    on_servers("chunks", async |server| {
        server
            .run(
                "create table t(a int, b text collate \"und-x-icu\", v text, primary key(b, a));\n
                insert into t select g % 1000, (array['a','A','b','é','e','Z',' ','''\\'])[g % 8 + 1] || g / 1000,
                    repeat('x', g % 100) from generate_series(1, 60000) g;\n
                create table child() inherits (t);\ninsert into child values (1, 'child', '');\n
                analyze t",
            )
            .await;
        let table = schema(&server, "t").await;
        let mut reader = reader(&server).await;
        let (mut rows, chunks) = whole(&mut reader, &table, Range::default()).await;
        assert!(chunks > 1, "{chunks}");
        let all = rows.len();
        rows.sort();
        rows.dedup();
        assert_eq!((all, rows.len()), (60_000, 60_000));
        let ranges = reader.split(&table, 7).await.unwrap_or_default();
        assert!((4..=7).contains(&ranges.len()), "{ranges:?}");
        let mut split = Vec::new();
        for range in ranges {
            let (part, _) = whole(&mut reader, &table, range).await;
            assert!((2_000..30_000).contains(&part.len()), "{}", part.len());
            split.extend(part);
        }
        split.sort();
        assert_eq!(rows, split);
        let keys = vec![
            vec!["1".to_owned(), "A0".to_owned()],
            vec!["7".to_owned(), "'\\0".to_owned()],
            vec!["999".to_owned(), "nowhere".to_owned()],
        ];
        let some = chunk(&mut reader, &table, Rows::Keys(keys)).await;
        let some = some.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((some.rows.len(), some.rest), (2, None));
        let all = chunk(&mut reader, &table, Rows::All).await;
        assert!(all.is_ok_and(|all| all.rows.len() == 60_000 && all.rest.is_none()));
    });
}

#[test]
fn server_integer_keys_and_partitions_split() {
    on_servers("split", async |server| {
        server
            .run(
                "create table dense(id bigint primary key);\n
                insert into dense select generate_series(1, 50000);\n
                create table sparse(id bigint primary key);\n
                insert into sparse select g::int8 * g from generate_series(1, 50000) g;\n
                create table parts(id int primary key) partition by range(id);\n
                create table parts_1 partition of parts for values from (0) to (30000);\n
                create table parts_2 partition of parts for values from (30000) to (90000);\n
                insert into parts select generate_series(1, 50000);\n
                create table none(id int primary key);\nanalyze",
            )
            .await;
        let mut reader = reader(&server).await;
        for name in ["dense", "sparse", "parts"] {
            let table = schema(&server, name).await;
            let ranges = reader.split(&table, 4).await.unwrap_or_default();
            assert_eq!(ranges.len(), 4, "{name}: {ranges:?}");
            let mut rows = 0;
            for range in ranges {
                let (part, _) = whole(&mut reader, &table, range).await;
                assert!((2_500..25_000).contains(&part.len()), "{name}: {}", part.len());
                rows += part.len();
            }
            assert_eq!(rows, 50_000, "{name}");
        }
        let none = schema(&server, "none").await;
        assert_eq!(reader.split(&none, 4).await.unwrap_or_default(), [Range::default()]);
        assert_eq!(whole(&mut reader, &none, Range::default()).await.0.len(), 0);
    });
}

#[test]
fn server_a_changed_table_is_not_read() {
    const T: &str = "drop table if exists t;\ncreate table t(id int primary key, v text);\n
        insert into t values (1, 'a')";
    on_servers("changed", async |server| {
        let mut reader = reader(&server).await;
        for ddl in [
            "alter table t add column n int",
            "alter table t drop column v",
            "alter table t alter v type varchar(5)",
            "alter table t alter v type text using v || 'x'",
            "alter table t rename to other;\nalter table other rename v to w",
            "drop table t;\ncreate table t(id int primary key, v text)",
            "drop table t",
        ] {
            server.run("drop table if exists other").await;
            server.run(T).await;
            let table = schema(&server, "t").await;
            server.run(ddl).await;
            let error = chunk(&mut reader, &table, Rows::Next(Range::default())).await;
            let error = error.err().unwrap_or_else(|| panic!("{ddl}"));
            assert_eq!(error.kind(), crate::ErrorKind::Table, "{ddl}");
            assert!(error.to_string().contains("changed while it was read"), "{ddl}: {error}");
        }
        server.run(T).await;
        let table = schema(&server, "t").await;
        server.run("truncate t;\nvacuum full t;\ninsert into t values (2, 'b')").await;
        assert_eq!(whole(&mut reader, &table, Range::default()).await.0.len(), 1);
    });
}

#[test]
fn server_a_lock_is_waited_for_before_the_view() {
    on_servers("lock", async |server| {
        server
            .run("create table t(id int primary key, v text);\ninsert into t values (1, 'a')")
            .await;
        let table = schema(&server, "t").await;
        let mut reader = reader(&server).await;
        let other = server.connect().await;
        let locked = other.batch_execute("begin; truncate t; insert into t values (2, 'b')").await;
        assert!(locked.is_ok());
        let (read, _) =
            tokio::join!(chunk(&mut reader, &table, Rows::Next(Range::default())), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                other.batch_execute("commit").await.is_ok()
            });
        assert_eq!(
            read.map(|chunk| chunk.rows).unwrap_or_default(),
            ["Some(Int(2)) Some(Text(\"b\"))"]
        );
        let locked = other.batch_execute("begin; lock table t in access exclusive mode").await;
        assert!(locked.is_ok());
        let error = chunk(&mut reader, &table, Rows::Next(Range::default())).await.err();
        assert!(error.is_some_and(|error| error.kind() == crate::ErrorKind::Unavailable));
        assert!(other.batch_execute("rollback").await.is_ok());
        assert_eq!(whole(&mut reader, &table, Range::default()).await.0.len(), 1);
    });
}

/// S4: a view that misses a delivered transaction is not used.
#[test]
fn server_a_view_sees_what_it_must() {
    on_servers("must_see", async |server| {
        server.run("create table t(id int primary key);\ninsert into t values (1)").await;
        let table = schema(&server, "t").await;
        let mut reader = reader(&server).await;
        let other = server.connect().await;
        let begun = other.batch_execute("begin; insert into t values (2)").await;
        assert!(begun.is_ok());
        let row = other.query_one("select pg_current_xact_id()::text", &[]).await;
        let xid: String = row.and_then(|row| row.try_get(0)).unwrap_or_default();
        let xid = xid.parse::<u64>().unwrap_or_default() as u32;
        let (send, mut receive) = channel(8);
        let must_see = [Commit { lsn: Lsn(1), xid }];
        let (read, _) = tokio::join!(
            reader.read(&table, Rows::Next(Range::default()), &must_see, &send),
            async {
                tokio::time::sleep(Duration::from_millis(400)).await;
                other.batch_execute("commit").await.is_ok()
            }
        );
        assert!(read.is_ok());
        assert!(matches!(receive.recv().await, Some(Part::Opened(_))));
        assert!(
            matches!(receive.recv().await, Some(Part::Rows(batch)) if batch.changes.len() == 2)
        );
    });
}

/// Gathers what the stream says.
#[derive(Default)]
struct Log(BTreeMap<TableId, Builder>, Vec<String>);

impl Sink<Lsn> for Log {
    fn begin(&mut self, _: Commit) {}

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        Some(self.0.entry(schema.id.clone()).or_insert_with(|| Builder::new(schema.clone())))
    }

    fn truncate(&mut self, _: &TableId) {}
    fn commit(&mut self, _: Lsn, _: i64) {}
    fn progress(&mut self, _: Lsn) {}

    fn stop(&mut self, _: &TableId, reason: Reason) {
        self.1.push(reason.to_string());
    }
}

async fn streamed(server: &Server, relations: Vec<Relation>) -> Log {
    let sql = "select data from pg_logical_slot_get_binary_changes($1, null, null,
        'proto_version', '1', 'publication_names', 'p')";
    let rows = server.client.query(sql, &[&slot()]).await.unwrap_or_else(|e| panic!("{e:?}"));
    let mut decoder = Decoder::new(relations);
    let mut log = Log::default();
    for row in &rows {
        let payload: &[u8] = row.try_get(0).unwrap_or_default();
        assert!(matches!(decoder.decode(payload, &mut log), Ok(Decoded::Done)), "{payload:?}");
    }
    log
}

fn slot() -> String {
    format!("lw_agree_{}", std::process::id())
}

/// PG-080, PG-081, PG-082, PG-084, PG-086, PG-087, PG-089, PG-091 in one table.
#[test]
fn server_stream_and_snapshot_agree() {
    const VALUES: [&str; 5] = [
        "true, -32768, -9223372036854775808, 'NaN', 'NaN', 'NaN', 99999999999999999999999999999999999.99,
         0.00123, 12345, 'abc', 'abc  ', '\\x', '4713-01-01 BC', '4713-01-01 00:00:00+00 BC',
         '0001-12-31 23:59:59.999999 BC', '{}', '{NULL,\"NULL\",\"a,}{\\\\\\\"\"}', '{\\\\x00ff}',
         'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"z\":1, \"a\":2,\"z\":1e400}', '24:00:00',
         '1 year 2 mons -3 days +04:05:06.789', '[1,5]', '-92233720368547758.08', '{sad}'",
        "false, 32767, 9223372036854775807, 'Infinity', '-Infinity', 1e100, -0.01, -0.00999, 49, '',
         E'a\\tb\\nc\\rd\\x01e\\\\f''g\"h\\b\\f\\v', '\\x00ff5c78', '5874897-12-31',
         '294246-12-31 23:59:59.999999+00', '294246-12-31 23:59:59.999999', '{1,-2,NULL}', '{}',
         '{}', null, '\"\\ud800\"', '00:00:00', '-1 mons', 'empty', '0.01', null",
        "null, 0, 0, '-0', '-0', '-Infinity', 0, 0, -9999900, 'é', '\\N', '\\x0a0d09', '2024-02-29',
         '1677-09-20 00:00:00+00', '1582-10-10 12:00:00', '{2147483647}', '{\"\"}', null, null,
         'null', null, null, '(,)', null, '{}'",
        "null, 1, 9007199254740993, 1.17549435e-38, 5e-324, 0.00000000000000006938893903907228,
         null, null, null, 'NULL', 'null', null, '0001-01-01', '2024-06-15 10:30:45.1+02',
         '2024-06-15 10:30:45.123456', null, '{😀,é,\"e\u{301}\"}', null, null, ' [1 , 2.0]', null,
         null, null, null, null",
        "null, 1, 1, 3.4028235e38, 1.7976931348623157e308, 8.000, null, null, null, null, null, null,
         null, null, null, null, null, null, null, null, null, null, null, null, null",
    ];
    on_servers("agree", async |server| {
        server
            .run(
                "create type mood as enum('sad');\ncreate table t(id serial primary key, b bool, s int2,
                  l int8, f4 float4, f8 float8, n numeric, n2 numeric(38,2), n5 numeric(3,5),
                  n_2 numeric(5,-2), c char(8), v text, y bytea, d date, z timestamptz, u timestamp,
                  ia int[], ta text[], ya bytea[], uu uuid, j json, tm time, iv interval, r int4range,
                  mo money, e mood[])",
            )
            .await;
        let insert = async || {
            for values in VALUES {
                let columns = "b, s, l, f4, f8, n, n2, n5, n_2, c, v, y, d, z, u, ia, ta, ya, uu, j, tm, iv, r, mo, e";
                server.run(&format!("insert into t({columns}) values ({values})")).await;
            }
        };
        insert().await;
        let slot = slot();
        server.run("create publication p for all tables").await;
        server
            .run(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
            .await;
        insert().await;
        let table = server.table("t", &Options::default()).await;
        let schema = table.relation.schema.clone();
        let mut log = streamed(&server, vec![table.relation]).await;
        server.run(&format!("select pg_drop_replication_slot('{slot}')")).await;
        assert_eq!(log.1, Vec::<String>::new());
        let batch = log.0.remove(&schema.id).map(Builder::finish);
        let stream = batch.as_ref().map(shown).unwrap_or_default();
        let (snapshot, _) = whole(&mut reader(&server).await, &schema, Range::default()).await;
        assert_eq!((stream.len(), snapshot.len()), (VALUES.len(), 2 * VALUES.len()));
        let values = |row: &String| row.split_once(' ').map(|(_, values)| values.to_owned());
        for (at, row) in stream.iter().enumerate() {
            assert_eq!(values(row), snapshot.get(at).and_then(values), "row {at}");
            assert_eq!(Some(row), snapshot.get(at + VALUES.len()), "row {at}");
        }
    });
}

#[test]
fn server_what_does_not_fit_is_said() {
    on_servers("misfit", async |server| {
        let mut reader = reader(&server).await;
        for (kind, value, why) in [
            ("date", "infinity", "it is infinite"),
            ("timestamptz", "-infinity", "it is infinite"),
            ("numeric(10,2)", "NaN", "it isn't a number"),
            ("int[]", "{{1,2},{3,4}}", "several dimensions"),
            ("timestamp", "294276-12-31 23:59:59", "after the year"),
            ("text[]", "[0:1]={a,b}", "several dimensions"),
        ] {
            let sql = format!(
                "drop table if exists t;\ncreate table t(id int primary key, v {kind});\n
                insert into t values (7, '{value}')"
            );
            server.run(&sql).await;
            let table = schema(&server, "t").await;
            let error = chunk(&mut reader, &table, Rows::Next(Range::default())).await;
            let text = error.err().map(|error| error.to_string()).unwrap_or_default();
            let start = format!("public.t: column v of row id=7 holds '{value}'");
            assert!(text.starts_with(&start) && text.contains(why), "{text}");
        }
    });
}
