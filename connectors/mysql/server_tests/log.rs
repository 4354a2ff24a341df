//! The log: transactions, images, definitions, compression, restarts.

use super::*;

async fn scene(bed: &Bed, statements: &[&str]) -> (Connection, MySql, stream::Stream) {
    let mut admin = bed.admin().await;
    run(&mut admin, statements).await;
    let mut source = MySql::new(bed.options()).unwrap();
    let stream = follow(&mut source).await;
    (admin, source, stream)
}

fn commits(said: &Said) -> usize {
    said.lines.iter().filter(|line| *line == "commit").count()
}

#[test]
fn transactions_come_whole_and_in_order() {
    on_servers("order", |bed| async move {
        let table = "CREATE TABLE t (id int primary key, v varchar(20))";
        let (mut admin, mut source, mut stream) = scene(&bed, &[table]).await;
        run(
            &mut admin,
            &[
                "BEGIN",
                "INSERT INTO t VALUES (1,'a'),(2,NULL)",
                "UPDATE t SET v='b' WHERE id=1",
                "SAVEPOINT s",
                "DELETE FROM t",
                "ROLLBACK TO s",
                "UPDATE t SET id=3 WHERE id=1",
                "COMMIT",
                "DELETE FROM t WHERE id=2",
                "TRUNCATE t",
            ],
        )
        .await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 3).await;
        assert_eq!(
            said.lines,
            [
                "insert Int(1) Text(\"a\")",
                "insert Int(2) Null",
                "update Int(1) Text(\"b\")",
                "update moved Int(3) Text(\"b\")",
                "commit",
                "delete 2",
                "commit",
                "truncate t",
                "commit",
            ]
        );
        // Another connection goes on from any position between transactions.
        let position = said.position.clone().unwrap();
        run(&mut admin, &["INSERT INTO t VALUES (9,'z')"]).await;
        let schemas: Vec<_> = tables(&mut source).await.into_values().collect();
        drop(stream);
        let mut again = source.stream(&position, &schemas).await.unwrap();
        let mut said = Said::default();
        said.read(&mut again, |said| commits(said) == 1).await;
        assert_eq!(said.lines, ["insert Int(9) Text(\"z\")", "commit"]);
    });
}

#[test]
fn images_may_leave_columns_out() {
    on_servers("image", |bed| async move {
        let table =
            "CREATE TABLE t (id int primary key, a varchar(10), b text, c varchar(10) default 'd')";
        let (mut admin, _source, mut stream) = scene(&bed, &[table]).await;
        run(
            &mut admin,
            &[
                "INSERT INTO t VALUES (1,'a','b','c'),(2,'a','b','c')",
                "SET SESSION binlog_row_image='MINIMAL'",
                "UPDATE t SET a='x' WHERE id=1",
                "UPDATE t SET id=5 WHERE id=1",
                "DELETE FROM t WHERE id=2",
                "INSERT INTO t (id, a) VALUES (7, 'n')",
                "SET SESSION binlog_row_image='NOBLOB'",
                "UPDATE t SET a='y' WHERE id=5",
            ],
        )
        .await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 6).await;
        let text = |text: &str| format!("Text({text:?})");
        assert_eq!(said.lines[3], format!("update Int(1) {} Unchanged Unchanged", text("x")));
        assert_eq!(said.lines[5], "update moved Int(5) Unchanged Unchanged Unchanged");
        assert_eq!(said.lines[7], "delete 2");
        assert!(said.lines[9].starts_with("insert Int(7) Text(\"n\")"), "{:#?}", said.lines);
        let noblob = format!("update Int(5) {} Unchanged {}", text("y"), text("c"));
        assert_eq!(said.lines[11], noblob);
    });
}

#[test]
fn compressed_logs_are_expanded() {
    on_servers("packed", |bed| async move {
        let table = "CREATE TABLE t (id int primary key, v text)";
        let (mut admin, _source, mut stream) = scene(&bed, &[table]).await;
        let (on, off) = match bed.flavor {
            Flavor::MySql => ("SET SESSION binlog_transaction_compression = ON", "DO 1"),
            Flavor::MariaDb => {
                ("SET GLOBAL log_bin_compress = ON", "SET GLOBAL log_bin_compress = OFF")
            }
        };
        run(&mut admin, &[on, "BEGIN"]).await;
        for id in 0..300 {
            run(&mut admin, &[&format!("INSERT INTO t VALUES ({id}, repeat('x', 1000))")]).await;
        }
        run(
            &mut admin,
            &[
                "UPDATE t SET v = repeat('y', 2000) WHERE id < 200",
                "DELETE FROM t WHERE id > 250",
                "COMMIT",
                off,
            ],
        )
        .await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 1).await;
        assert_eq!(said.lines.len(), 300 + 200 + 49 + 1);
    });
}

#[test]
fn definitions_are_followed_or_the_table_is_read_again() {
    on_servers("ddl", |bed| async move {
        let table = "CREATE TABLE t (id int primary key, a int)";
        let (mut admin, _source, mut stream) = scene(&bed, &[table, "CREATE TABLE u LIKE t"]).await;
        run(&mut admin, &["ALTER TABLE t ADD COLUMN n varchar(9) NULL, ADD INDEX i (a)"]).await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 1).await;
        run(&mut admin, &["INSERT INTO t VALUES (1, 2, 'x')"]).await;
        said.read(&mut stream, |said| commits(said) == 2).await;
        assert_eq!(
            said.lines,
            ["schema 3", "commit", "insert Int(1) Int(2) Text(\"x\")", "commit"]
        );
        run(&mut admin, &["ALTER TABLE t ADD COLUMN m int NOT NULL DEFAULT 7"]).await;
        said.read(&mut stream, |said| commits(said) == 3).await;
        assert!(said.has("lost t: its definition was changed"), "{:#?}", said.lines);
        run(&mut admin, &["DROP TABLE u"]).await;
        said.read(&mut stream, |said| commits(said) == 4).await;
        assert!(said.has("dropped u"), "{:#?}", said.lines);
    });
}

#[test]
fn a_statement_in_the_log_is_no_change_that_is_passed_over() {
    on_servers("statement", |bed| async move {
        let tables = ["CREATE TABLE t (id int primary key, a int)", "CREATE TABLE u LIKE t"];
        let (mut admin, _source, mut stream) = scene(&bed, &tables).await;
        run(
            &mut admin,
            &["SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1, 1)"],
        )
        .await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 1).await;
        assert!(said.has("lost t: it was changed by a statement"), "{:#?}", said.lines);
        assert!(!said.has("lost u"));
    });
}

#[test]
fn what_a_view_sees_is_never_more_than_it_says() {
    on_servers("view", |bed| async move {
        let table = "CREATE TABLE t (id int primary key auto_increment, v int)";
        let (_admin, mut source, mut stream) = scene(&bed, &[table]).await;
        let schema = tables(&mut source).await["t"].clone();
        let mut reader = source.reader(1 << 20).await.unwrap();
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let bed = bed.clone();
                tokio::spawn(async move {
                    let mut writer = bed.admin().await;
                    for _ in 0..150 {
                        run(&mut writer, &["INSERT INTO t (v) VALUES (1)"]).await;
                    }
                })
            })
            .collect();
        let mut chunks = Vec::new();
        while writers.iter().any(|writer| !writer.is_finished()) {
            let read = chunk(&mut reader, &schema, Rows::Next(Range::default())).await.unwrap();
            chunks.push(read);
        }
        // Every transaction inserts one row: what a view is known to see is among its rows, and
        // what its rows are is in the log up to its high mark.
        let mut inserted: Vec<(position::Gtid, String)> = Vec::new();
        let mut sink = Ordered::default();
        let end = source.discover().await.unwrap().high;
        while !sink.position.as_ref().is_some_and(|position| position.covers(&end)) {
            let message = stream.next().await.unwrap();
            assert_eq!(stream.decode(&message, &mut sink).unwrap(), Decoded::Done);
        }
        inserted.append(&mut sink.inserted);
        assert_eq!(inserted.len(), 600);
        chunks.retain(|chunk| chunk.rest.is_none());
        assert!(!chunks.is_empty(), "no chunk holds all rows");
        for chunk in chunks {
            for (gtid, row) in &inserted {
                let seen = chunk.rows.contains(row);
                assert!(seen || !chunk.view.sees(gtid), "{gtid} is said to be seen and is not");
                assert!(
                    !seen || chunk.high.contains(gtid),
                    "{gtid} is seen, and above the high mark"
                );
            }
        }
    });
}

/// The rows that each transaction inserted.
#[derive(Default)]
struct Ordered {
    open: Option<position::Gtid>,
    builder: Option<Builder>,
    inserted: Vec<(position::Gtid, String)>,
    position: Option<Place>,
}

impl Sink<Place> for Ordered {
    fn begin(&mut self, transaction: position::Gtid) {
        self.open = Some(transaction);
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        Some(self.builder.get_or_insert_with(|| Builder::new(schema.clone())))
    }

    fn truncate(&mut self, _table: &TableId) {}

    fn commit(&mut self, position: Place, _micros: i64) {
        if let (Some(gtid), Some(builder)) = (self.open.take(), self.builder.take()) {
            let rows = shown(&builder.finish());
            let rows = rows.into_iter().map(|row| (gtid.clone(), row.replace("insert", "read")));
            self.inserted.extend(rows);
        }
        self.position = Some(position);
    }

    fn progress(&mut self, position: Place) {
        self.position = Some(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        panic!("{table} stopped: {reason}");
    }
}

#[test]
fn a_purged_log_is_a_gap() {
    on_servers("purge", |bed| async move {
        let table = "CREATE TABLE t (id int primary key)";
        let (mut admin, mut source, stream) = scene(&bed, &[table]).await;
        let schemas: Vec<_> = tables(&mut source).await.into_values().collect();
        let before = source.establish(&schemas).await.unwrap();
        drop(stream);
        run(&mut admin, &["INSERT INTO t VALUES (1)", "FLUSH BINARY LOGS"]).await;
        let logs = admin.rows("a test", "SHOW BINARY LOGS").await.unwrap();
        let last = logs.last().unwrap()[0].clone().unwrap();
        // The server keeps a file that a reader still has open; ours is closed soon.
        for _ in 0..50 {
            run(
                &mut admin,
                &[
                    "INSERT INTO t SELECT MAX(id) + 1 FROM t",
                    &format!("PURGE BINARY LOGS TO '{last}'"),
                ],
            )
            .await;
            let logs = admin.rows("a test", "SHOW BINARY LOGS").await.unwrap();
            if logs[0][0].as_ref() == Some(&last) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut known = MySql::new(bed.options()).unwrap();
        known.expect(&before.identity);
        let now = known.establish(&schemas).await.unwrap();
        assert_eq!(now.identity, before.identity);
        assert!(!before.oldest.covers(&now.oldest), "{} covers {}", before.oldest, now.oldest);
        let mut stream = source.stream(&before.oldest, &schemas).await.unwrap();
        let error = stream.next().await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Gap, "{error:?}");
    });
}

#[test]
fn distributed_transactions_come_with_their_outcome() {
    on_servers("xa", |bed| async move {
        let table = "CREATE TABLE t (id int primary key, v varchar(9))";
        let (mut admin, mut source, mut stream) = scene(&bed, &[table]).await;
        let schemas: Vec<_> = tables(&mut source).await.into_values().collect();
        let name = |what: &str| format!("'{}-{what}','b',3", bed.name);
        let (done, undone) = (name("done"), name("undone"));
        // A session belongs to the transaction that it has prepared.
        let (mut one, mut other) = (bed.admin().await, bed.admin().await);
        for (session, xid, id) in [(&mut one, &done, 1), (&mut other, &undone, 2)] {
            run(
                session,
                &[
                    &format!("XA START {xid}"),
                    &format!("INSERT INTO t VALUES ({id}, 'xa')"),
                    &format!("XA END {xid}"),
                    &format!("XA PREPARE {xid}"),
                ],
            )
            .await;
        }
        run(&mut admin, &["INSERT INTO t VALUES (3, 'plain')"]).await;
        let mut said = Said::default();
        said.read(&mut stream, |said| commits(said) == 1).await;
        assert_eq!(said.lines[0], "insert Int(3) Text(\"plain\")");
        let between = said.position.clone().unwrap();
        assert!(between.since.is_some(), "{between}");
        run(&mut other, &[&format!("XA ROLLBACK {undone}")]).await;
        run(&mut one, &[&format!("XA COMMIT {done}")]).await;
        run(
            &mut one,
            &[
                "XA START 'one'",
                "INSERT INTO t VALUES (4, 'one')",
                "XA END 'one'",
                "XA COMMIT 'one' ONE PHASE",
            ],
        )
        .await;
        let wanted =
            ["insert Int(1) Text(\"xa\")", "commit", "insert Int(4) Text(\"one\")", "commit"];
        said.read(&mut stream, |said| commits(said) == 3).await;
        assert_eq!(said.lines[2..], wanted);
        assert_eq!(said.position.as_ref().unwrap().since, None);
        drop(stream);
        // Whoever resumes between the two still knows what was prepared.
        let mut again = source.stream(&between, &schemas).await.unwrap();
        let mut said = Said::default();
        said.read(&mut again, |said| commits(said) == 2).await;
        assert_eq!(said.lines, wanted);
    });
}

/// What the server itself says of every document.
async fn documents(admin: &mut Connection) -> Vec<String> {
    let rows = admin.rows("a test", "SELECT CAST(j AS CHAR) FROM t ORDER BY id").await.unwrap();
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

#[test]
fn changes_inside_of_json_are_applied() {
    on_servers("partial", |bed| async move {
        if bed.flavor == Flavor::MariaDb {
            // It has no such option: its JSON is text.
            return;
        }
        let table = "CREATE TABLE t (id int primary key, n int, j json, k json)";
        let (mut admin, _source, mut stream) = scene(&bed, &[table]).await;
        let document = "JSON_OBJECT('a', JSON_ARRAY(1, 'x', JSON_OBJECT('q', 1.5)), 'bb', 'text', \
            'c d', NULL, 'z', REPEAT('z', 200))";
        run(
            &mut admin,
            &[
                "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
                &format!(
                    "INSERT INTO t VALUES (1, 0, {document}, '{{}}'), (2, 0, {document}, NULL)"
                ),
            ],
        )
        .await;
        let updates = [
            "j = JSON_SET(j, '$.a[2].q', 7, '$.\"c d\"', JSON_ARRAY(1, 2))",
            "j = JSON_REMOVE(j, '$.a[0]', '$.bb'), n = n + 1",
            "j = JSON_SET(j, '$.aa', 'new', '$.a[1]', CAST('2020-02-03' AS DATE))",
            "j = JSON_ARRAY_INSERT(j, '$.a[0]', 'first', '$.a[9]', 'last')",
            "j = JSON_REPLACE(j, '$.z', '\"quoted\" \\\\ é'), k = JSON_ARRAY()",
            "n = n + 1",
        ];
        let mut whole = Vec::new();
        for (at, image) in ["FULL", "MINIMAL", "NOBLOB"].into_iter().enumerate() {
            run(&mut admin, &[&format!("SET SESSION binlog_row_image = '{image}'")]).await;
            if at > 0 {
                run(&mut admin, &[&format!("UPDATE t SET j = {document}, k = '{{}}'")]).await;
            }
            for update in updates {
                run(&mut admin, &[&format!("UPDATE t SET {update}")]).await;
                whole.push(documents(&mut admin).await);
            }
        }
        let wanted = 1 + updates.len() * 3 + 2;
        let mut sink = Patched::default();
        while sink.commits < wanted {
            let message = stream.next().await.unwrap();
            assert_eq!(stream.decode(&message, &mut sink).unwrap(), Decoded::Done);
        }
        assert!(sink.patches > 4, "{} patches", sink.patches);
        // The first states are those of the inserts and of setting the documents anew.
        let states: Vec<_> =
            sink.states.into_iter().filter(|state| whole.contains(state)).collect();
        assert!(whole.iter().all(|state| states.contains(state)), "{whole:#?}\n{states:#?}");
        assert_eq!(states.last(), whole.last());
    });
}

/// The documents of a table as its log leaves them, by key.
#[derive(Default)]
struct Patched {
    builder: Option<Builder>,
    rows: BTreeMap<String, String>,
    states: Vec<Vec<String>>,
    commits: usize,
    patches: usize,
}

impl Sink<Place> for Patched {
    fn begin(&mut self, _transaction: position::Gtid) {}

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        Some(self.builder.get_or_insert_with(|| Builder::new(schema.clone())))
    }

    fn truncate(&mut self, _table: &TableId) {}

    fn commit(&mut self, _position: Place, _micros: i64) {
        let Some(builder) = self.builder.take() else { return };
        let batch = builder.finish();
        for change in &batch.changes {
            let row = change.row.unwrap();
            let key = crate::key::key_texts(&batch.schema, batch.keys.get(change.key)).unwrap();
            let array = batch.columns.column(2);
            let value = value_at(&crate::Type::Text, array.as_ref(), row as usize).unwrap();
            let crate::Value::Text(text) = value else { continue };
            let text = match batch.is_patched(2, row) {
                true => {
                    self.patches += 1;
                    let base = &self.rows[&key.join(",")];
                    crate::patch::apply(base, [text]).unwrap_or_else(|| panic!("{text} of {base}"))
                }
                false => text.to_owned(),
            };
            self.rows.insert(key.join(","), text);
        }
        self.states.push(self.rows.values().cloned().collect());
        self.commits += 1;
    }

    fn progress(&mut self, _position: Place) {}

    fn stop(&mut self, table: &TableId, reason: Reason) {
        panic!("{table} stopped: {reason}");
    }
}

/// The log has a transaction before reads see it: the server waits between the two for as long as it
/// is told to (`binlog_group_commit_sync_delay`, where it does not wait for its disk).
#[test]
fn what_is_in_the_log_and_not_visible_is_not_said_to_be_seen() {
    on_servers("race", |bed| async move {
        if bed.flavor == Flavor::MariaDb {
            // It waits before it writes to the log; chance has to do (above).
            return;
        }
        let table = "CREATE TABLE t (id int primary key)";
        let (mut admin, mut source, mut stream) = scene(&bed, &[table]).await;
        let schema = tables(&mut source).await["t"].clone();
        let mut reader = source.reader(1 << 20).await.unwrap();
        let before = admin.text("a test", "SELECT @@GLOBAL.sync_binlog").await.unwrap();
        let set = "SET GLOBAL sync_binlog = 0, GLOBAL binlog_group_commit_sync_delay = 1000000";
        run(&mut admin, &[set]).await;
        let mut writer = bed.admin().await;
        let inserting = tokio::spawn(async move {
            run(&mut writer, &["INSERT INTO t VALUES (1)"]).await;
        });
        let mut sink = Ordered::default();
        while sink.inserted.is_empty() {
            let message = stream.next().await.unwrap();
            assert_eq!(stream.decode(&message, &mut sink).unwrap(), Decoded::Done);
        }
        let (gtid, _) = sink.inserted[0].clone();
        let early = chunk(&mut reader, &schema, Rows::Next(Range::default())).await;
        inserting.await.unwrap();
        let late = chunk(&mut reader, &schema, Rows::Next(Range::default())).await;
        let reset =
            format!("SET GLOBAL sync_binlog = {before}, GLOBAL binlog_group_commit_sync_delay = 0");
        run(&mut admin, &[&reset]).await;
        let (early, late) = (early.unwrap(), late.unwrap());
        assert!(early.rows.is_empty() && !early.view.sees(&gtid), "the race was not forced");
        assert!(early.high.contains(&gtid), "what is being committed is waited for");
        assert!(late.view.sees(&gtid) && late.rows == ["read Int(1)"]);
    });
}

#[test]
fn what_a_server_has_lost_is_told_from_what_it_has() {
    on_servers("lost", |bed| async move {
        let table = "CREATE TABLE t (id int primary key)";
        let (mut admin, mut source, _stream) = scene(&bed, &[table]).await;
        let schemas: Vec<_> = tables(&mut source).await.into_values().collect();
        run(&mut admin, &["INSERT INTO t VALUES (1)"]).await;
        let newest = source.establish(&schemas).await.unwrap().newest.unwrap();
        // What another server would have made after it, of which this one knows nothing.
        let mut held = newest.clone();
        held.insert(
            &match bed.flavor {
                Flavor::MySql => {
                    position::Gtid::try_from("3e11fa47-71ca-11e1-9e33-c80aa9429562:1".to_owned())
                }
                Flavor::MariaDb => position::Gtid::try_from("0-999-4000000000".to_owned()),
            }
            .unwrap(),
        );
        assert!(held.covers(&newest) && !newest.covers(&held));
        let error = source.stream(&held, &schemas).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Gap);
    });
}
