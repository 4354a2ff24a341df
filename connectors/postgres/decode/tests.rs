//! Sequences of messages as servers send them (measured with pg_recvlogical on Postgres 15 and 18)
//! against what must come out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::{Batch, Change};
use crate::change::Op;
use crate::key::{key_texts, value_at};
use crate::schema::{Column, Compare, Type};

/// Writes pgoutput messages.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn of(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.put(text.as_bytes()).put(&[0])
    }

    fn tuple(mut self, tag: u8, fields: &[F]) -> Self {
        self.0.push(tag);
        self.0.extend((fields.len() as u16).to_be_bytes());
        for field in fields {
            match field {
                F::N => self.0.push(b'n'),
                F::U => self.0.push(b'u'),
                F::T(text) => {
                    self.0.push(b't');
                    self.0.extend((text.len() as u32).to_be_bytes());
                    self.0.extend(text.as_bytes());
                }
            }
        }
        self
    }
}

#[derive(Clone, Copy)]
enum F {
    N,
    U,
    T(&'static str),
}
use F::{N, T, U};

const OID: u32 = 16_385;

fn begin() -> Vec<u8> {
    Wire::of(b'B').put(&100_u64.to_be_bytes()).put(&0_u64.to_be_bytes()).put(&7_u32.to_be_bytes()).0
}

fn commit() -> Vec<u8> {
    let wire = Wire::of(b'C').put(&[0]).put(&100_u64.to_be_bytes()).put(&120_u64.to_be_bytes());
    wire.put(&1_000_000_u64.to_be_bytes()).0
}

fn announce(oid: u32, name: &str, identity: u8, columns: &[(bool, &str, u32)]) -> Vec<u8> {
    let mut wire = Wire::of(b'R').put(&oid.to_be_bytes()).text("public").text(name);
    wire = wire.put(&[identity]).put(&(columns.len() as u16).to_be_bytes());
    for (key, name, kind) in columns {
        wire = wire.put(&[u8::from(*key)]).text(name).put(&kind.to_be_bytes());
        wire = wire.put(&(-1_i32).to_be_bytes());
    }
    wire.0
}

fn insert(new: &[F]) -> Vec<u8> {
    Wire::of(b'I').put(&OID.to_be_bytes()).tuple(b'N', new).0
}

fn update(old: Option<(u8, &[F])>, new: &[F]) -> Vec<u8> {
    let wire = Wire::of(b'U').put(&OID.to_be_bytes());
    let wire = old.into_iter().fold(wire, |wire, (tag, old)| wire.tuple(tag, old));
    wire.tuple(b'N', new).0
}

fn delete(tag: u8, old: &[F]) -> Vec<u8> {
    Wire::of(b'D').put(&OID.to_be_bytes()).tuple(tag, old).0
}

fn truncate(oids: &[u32]) -> Vec<u8> {
    let wire = Wire::of(b'T').put(&(oids.len() as u32).to_be_bytes()).put(&[3]);
    oids.iter().fold(wire, |wire, oid| wire.put(&oid.to_be_bytes())).0
}

fn table(columns: &[(&str, u32, Type)], identity: Identity) -> Relation {
    let column = |(at, (name, oid, kind)): (usize, &(&str, u32, Type))| Column {
        id: at as u32 + 1,
        name: (*name).to_owned(),
        kind: kind.clone(),
        source_type: format!("{oid}/-1"),
        missing: None,
        compare: Compare::EXACT,
    };
    let schema = TableSchema {
        id: TableId::new("public", "t"),
        columns: columns.iter().enumerate().map(column).collect(),
        identity,
        storage: format!("oid={OID}\nrows=f1"),
        lasting_ids: false,
    };
    Relation { oid: OID, types: columns.iter().map(|c| (c.1, -1)).collect(), schema: schema.into() }
}

/// `t(id int primary key, note text, big text)`.
fn toasted(key: Vec<usize>) -> Relation {
    let columns = [("id", 23, Type::Int32), ("note", 25, Type::Text), ("big", 25, Type::Text)];
    table(&columns, Identity::Key(key))
}

const BY_ID: [(bool, &str, u32); 3] = [(true, "id", 23), (false, "note", 25), (false, "big", 25)];

/// Writes down what a sink is told.
#[derive(Default)]
struct Log {
    builders: BTreeMap<TableId, Builder>,
    lines: Vec<String>,
}

impl Sink<Lsn> for Log {
    fn begin(&mut self, transaction: Commit) {
        self.lines.push(format!("begin {} {}", transaction.lsn, transaction.xid));
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        let builder = || Builder::new(schema.clone());
        Some(self.builders.entry(schema.id.clone()).or_insert_with(builder))
    }

    fn truncate(&mut self, table: &TableId) {
        self.flush();
        self.lines.push(format!("truncate {table}"));
    }

    fn commit(&mut self, position: Lsn, micros: i64) {
        self.flush();
        self.lines.push(format!("commit {position} {micros}"));
    }

    fn progress(&mut self, _: Lsn) {}

    fn stop(&mut self, table: &TableId, reason: Reason) {
        self.builders.remove(table);
        self.lines.push(format!("stop {table}: {reason}"));
    }
}

impl Log {
    fn flush(&mut self) {
        for (_, builder) in std::mem::take(&mut self.builders) {
            let batch = builder.finish();
            self.lines.extend(batch.changes.iter().map(|change| show(&batch, change)));
        }
    }
}

fn show(batch: &Batch, change: &Change) -> String {
    let key = |key| match key_texts(&batch.schema, batch.keys.get(key)) {
        Some(texts) => texts.join(","),
        None => "row".to_owned(),
    };
    let op = match change.op {
        Op::Read => "read",
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
    };
    let from = change.old_key.map_or(String::new(), |old| format!(" from {}", key(old)));
    let row = change.row.map_or(String::new(), |row| {
        let value = |(at, column): (usize, &Column)| match batch.is_unchanged(at, row) {
            true => "<unchanged>".to_owned(),
            false => {
                let array = batch.columns.column(at);
                match value_at(&column.kind, array.as_ref(), row as usize) {
                    Some(Value::Text(text)) => format!("'{text}'"),
                    Some(Value::Int(value)) => value.to_string(),
                    other => format!("{other:?}"),
                }
            }
        };
        let values: Vec<_> = batch.schema.columns.iter().enumerate().map(value).collect();
        format!(" ({})", values.join(", "))
    });
    format!("{op} {}{from}{row}", key(change.key))
}

/// What comes of `changes` in one transaction after the table was announced.
fn decoded(relation: Relation, announced: Vec<u8>, changes: &[Vec<u8>]) -> Vec<String> {
    let mut decoder = Decoder::new(vec![relation]);
    let mut log = Log::default();
    for message in [begin(), announced].iter().chain(changes).chain([&commit()]) {
        assert!(matches!(decoder.decode(message, &mut log), Ok(Decoded::Done)));
    }
    assert!(!decoder.in_transaction());
    assert_eq!(log.lines.first().map(String::as_str), Some("begin 0/64 7"));
    assert_eq!(log.lines.last().map(String::as_str), Some("commit 0/78 946684801000000"));
    log.lines[1..log.lines.len() - 1].to_vec()
}

fn by_id(changes: &[Vec<u8>]) -> Vec<String> {
    decoded(toasted(vec![0]), announce(OID, "t", b'd', &BY_ID), changes)
}

/// PG-001, PG-004.
#[test]
fn unchanged_is_not_null() {
    let lines = by_id(&[
        insert(&[T("1"), T("a"), N]),
        update(None, &[T("1"), T("b"), U]),
        update(None, &[T("1"), T("after null"), N]),
    ]);
    assert_eq!(
        lines,
        [
            "insert 1 (1, 'a', Null)",
            "update 1 (1, 'b', <unchanged>)",
            "update 1 (1, 'after null', Null)"
        ]
        .map(|line| line.replace("Null", "Some(Null)"))
    );
}

/// PG-003: the old key's tuple has nulls that say nothing.
#[test]
fn a_moved_key_names_its_old_key() {
    let lines = by_id(&[update(Some((b'K', &[T("1"), N, N])), &[T("10"), T("a"), U])]);
    assert_eq!(lines, ["update 10 from 1 (10, 'a', <unchanged>)"]);
    let lines = by_id(&[delete(b'K', &[T("1"), N, N])]);
    assert_eq!(lines, ["delete 1"]);
}

/// PG-007: under FULL the old tuple has the value.
#[test]
fn full_identity_knows_what_did_not_change() {
    let all = BY_ID.map(|(_, name, kind)| (true, name, kind));
    let old: &[F] = &[T("2"), T("a"), T("large")];
    let changes = [
        update(Some((b'O', old)), &[T("2"), T("b"), U]),
        update(Some((b'O', old)), &[T("20"), T("a"), U]),
        delete(b'O', old),
    ];
    let announced = announce(OID, "t", b'f', &all);
    assert_eq!(
        decoded(toasted(vec![0]), announced, &changes),
        ["update 2 (2, 'b', 'large')", "update 20 from 2 (20, 'a', 'large')", "delete 2"]
    );
}

/// PG-012, PG-014.
#[test]
fn without_a_key_the_old_row_goes_and_the_new_comes() {
    let columns = [("id", 23, Type::Int32), ("v", 25, Type::Text)];
    let announced = announce(OID, "t", b'f', &[(true, "id", 23), (true, "v", 25)]);
    let changes = [
        update(Some((b'O', &[T("1"), T("a")])), &[T("2"), U]),
        update(Some((b'O', &[T("2"), N])), &[T("3"), N]),
    ];
    assert_eq!(
        decoded(table(&columns, Identity::FullRow), announced, &changes),
        ["delete row", "insert row (2, 'a')", "delete row", "insert row (3, Some(Null))"]
    );
}

/// PG-016: the key is the identity's, wherever the primary key goes.
#[test]
fn the_identity_index_is_the_key() {
    let announced =
        announce(OID, "t", b'i', &[(false, "id", 23), (true, "note", 25), (false, "big", 25)]);
    let changes = [update(None, &[T("5"), T("a@x"), T("v")]), delete(b'K', &[N, T("b@x"), N])];
    assert_eq!(
        decoded(toasted(vec![1]), announced, &changes),
        ["update a@x (5, 'a@x', 'v')", "delete b@x"]
    );
}

/// A key of kilobytes may be out of line itself; then the old key comes along.
#[test]
fn an_unchanged_key_comes_from_the_old_key() {
    let announced =
        announce(OID, "t", b'd', &[(false, "id", 23), (true, "note", 25), (false, "big", 25)]);
    let changes = [update(Some((b'K', &[N, T("long"), N])), &[T("5"), U, U])];
    assert_eq!(
        decoded(toasted(vec![1]), announced, &changes),
        ["update long (5, 'long', <unchanged>)"]
    );
}

/// PG-033.
#[test]
fn truncate_names_known_tables_only() {
    let lines = by_id(&[insert(&[T("3"), N, N]), truncate(&[99, OID]), insert(&[T("9"), N, N])]);
    assert_eq!(
        lines,
        [
            "insert 3 (3, Some(Null), Some(Null))",
            "truncate public.t",
            "insert 9 (9, Some(Null), Some(Null))"
        ]
    );
}

#[test]
fn other_tables_and_messages_are_skipped() {
    let mut other = insert(&[T("3")]);
    other[1..5].copy_from_slice(&99_u32.to_be_bytes());
    let lines = by_id(&[
        announce(99, "other", b'd', &[(true, "id", 23)]),
        other,
        b"Y\0\0\0\x01public\0mood\0".to_vec(),
        b"O\0\0\0\0\0\0\0\0elsewhere\0".to_vec(),
        b"M\0\0\0\0\0\0\0\0\0x\0\0\0\0\0".to_vec(),
    ]);
    assert_eq!(lines, Vec::<String>::new());
}

#[test]
fn a_misfit_stops_its_table_and_no_other() {
    let columns = [("id", 23, Type::Int32), ("d", 1082, Type::Date)];
    let announced = announce(OID, "t", b'd', &[(true, "id", 23), (false, "d", 1082)]);
    let again = announced.clone();
    let changes =
        [insert(&[T("4"), N]), insert(&[T("5"), T("infinity")]), again, insert(&[T("6"), N])];
    let lines = decoded(table(&columns, Identity::Key(vec![0])), announced, &changes);
    assert_eq!(
        lines,
        ["stop public.t: column d of row id=5 holds 'infinity', which its type can't: it is \
          infinite; add \"d\" to text_columns of table.\"public.t\""]
    );
}

fn verdict(relation: Relation, announced: &[u8]) -> (Decoded, Decoder) {
    let mut decoder = Decoder::new(vec![relation]);
    let decoded = decoder.decode(announced, &mut Log::default());
    (decoded.unwrap_or(Decoded::Done), decoder)
}

/// PG-017, PG-018, PG-046, PG-050, PG-052.
#[test]
fn what_differs_is_not_resolved_here() {
    let is = |relation: &Relation, announced: &[u8], expected| {
        assert_eq!(verdict(relation.clone(), announced).0, expected);
    };
    let keyed = toasted(vec![0]);
    let all = BY_ID.map(|(_, name, kind)| (true, name, kind));
    is(&keyed, &announce(OID, "t", b'd', &BY_ID), Decoded::Done);
    is(&keyed, &announce(OID, "t", b'f', &all), Decoded::Done);
    is(&keyed, &announce(OID, "t", b'n', &BY_ID.map(|c| (false, c.1, c.2))), Decoded::Done);
    // Another key, name, table of that name, order, type, or number of columns.
    let by_note = [(false, "id", 23), (true, "note", 25), (false, "big", 25)];
    is(&keyed, &announce(OID, "t", b'i', &by_note), Decoded::Unresolved);
    is(&keyed, &announce(OID, "t2", b'd', &BY_ID), Decoded::Unresolved);
    is(&keyed, &announce(99, "t", b'd', &BY_ID), Decoded::Unresolved);
    is(&keyed, &announce(99, "other", b'd', &BY_ID), Decoded::Done);
    let [id, note, big] = BY_ID;
    is(&keyed, &announce(OID, "t", b'd', &[id, big, note]), Decoded::Unresolved);
    is(&keyed, &announce(OID, "t", b'd', &[id, note, (false, "big", 17)]), Decoded::Unresolved);
    is(&keyed, &announce(OID, "t", b'd', &[id, note]), Decoded::Unresolved);
    let whole = Relation {
        schema: TableSchema { identity: Identity::FullRow, ..(*keyed.schema).clone() }.into(),
        ..keyed
    };
    is(&whole, &announce(OID, "t", b'f', &all), Decoded::Done);
    is(&whole, &announce(OID, "t", b'd', &BY_ID), Decoded::Unresolved);
}

#[test]
fn an_unresolved_message_is_decoded_again() {
    let [id, note, _] = BY_ID;
    let announced = announce(OID, "t", b'd', &[id, note]);
    let (decoded, mut decoder) = verdict(toasted(vec![0]), &announced);
    assert_eq!(decoded, Decoded::Unresolved);
    let message = decoder.unresolved().cloned();
    assert!(message.as_ref().is_some_and(|m| m.columns.len() == 2 && decoder.known(m).is_some()));
    let columns = [("id", 23, Type::Int32), ("note", 25, Type::Text)];
    decoder.set_relation(table(&columns, Identity::Key(vec![0])));
    let mut log = Log::default();
    for message in [&announced, &insert(&[T("1"), T("a")]), &commit()] {
        assert!(matches!(decoder.decode(message, &mut log), Ok(Decoded::Done)));
    }
    assert_eq!(log.lines.first().map(String::as_str), Some("insert 1 (1, 'a')"));
    // Or the table is lost: skipped until it is set again; the server does not announce it twice.
    decoder.remove_table(&TableId::new("public", "t"));
    assert!(matches!(decoder.decode(&insert(&[N, N]), &mut log), Ok(Decoded::Done)));
    assert_eq!(log.lines.len(), 2);
    decoder.set_relation(table(&columns, Identity::Key(vec![0])));
    for message in [&insert(&[T("2"), N]), &commit()] {
        assert!(matches!(decoder.decode(message, &mut log), Ok(Decoded::Done)));
    }
    assert_eq!(log.lines.get(2).map(String::as_str), Some("insert 2 (2, Some(Null))"));
}

/// A schema of the catalog may be newer than the place in the log. Rows in between were written
/// before the schema changed, so the snapshot that comes with the schema has them.
#[test]
fn rows_of_an_older_schema_are_skipped() {
    let mut decoder = Decoder::default();
    let mut log = Log::default();
    let [id, note, _] = BY_ID;
    let older = announce(OID, "t", b'd', &[id, note]);
    assert!(matches!(decoder.decode(&older, &mut log), Ok(Decoded::Done)));
    decoder.set_relation(toasted(vec![0]));
    let newer = announce(OID, "t", b'd', &BY_ID);
    for message in [&insert(&[T("1"), N]), &newer, &insert(&[T("2"), N, N]), &commit()] {
        assert!(matches!(decoder.decode(message, &mut log), Ok(Decoded::Done)));
    }
    assert_eq!(log.lines.len(), 2);
    assert_eq!(log.lines.first().map(String::as_str), Some("insert 2 (2, Some(Null), Some(Null))"));
}

#[test]
fn a_stored_schema_speaks_for_itself() {
    let relation = toasted(vec![0]);
    assert!(Relation::new(relation.schema.clone()).is_ok_and(|read| read == relation));
    let other = TableSchema { storage: String::new(), ..(*relation.schema).clone() };
    assert!(Relation::new(other.into()).is_err());
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        begin(),
        announce(OID, "t", b'd', &BY_ID),
        insert(&[T("1"), T("a"), N]),
        update(Some((b'K', &[T("1"), N, N])), &[T("2"), T("a"), U]),
        update(Some((b'O', &[T("1"), T("b"), N])), &[T("2"), T("a"), U]),
        delete(b'K', &[T("1"), N, N]),
        truncate(&[1, OID]),
        commit(),
    ]
}

#[test]
fn a_message_cut_short_is_an_error() {
    for message in samples() {
        for length in 0..message.len() {
            let mut decoder = Decoder::new(vec![toasted(vec![0])]);
            let mut log = Log::default();
            let announced = decoder.decode(&announce(OID, "t", b'd', &BY_ID), &mut log);
            assert!(announced.is_ok());
            assert!(decoder.decode(&message[..length], &mut log).is_err());
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut decoder = Decoder::new(vec![toasted(vec![0])]);
        let _ = decoder.decode(&bytes, &mut Log::default());
    }

    #[test]
    fn no_changed_byte_panics(at in 0..8_usize, place in 0..60_usize, byte in any::<u8>()) {
        let mut messages = samples();
        if let Some(target) = messages.get_mut(at).and_then(|message| message.get_mut(place)) {
            *target = byte;
        }
        let mut decoder = Decoder::new(vec![toasted(vec![0])]);
        let mut log = Log::default();
        for message in &messages {
            let _ = decoder.decode(message, &mut log);
        }
    }
}

/// The time this thread has been on a core (Linux), which other load doesn't change.
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|text| text.parse::<f64>().ok());
    nanos.unwrap_or_default() / 1e9
}

/// Rows a second of one core; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn speed() {
    let columns = [
        ("id", 20, Type::Int64),
        ("account", 23, Type::Int32),
        ("amount", 1700, Type::Decimal { precision: 12, scale: 2 }),
        ("status", 25, Type::Text),
        ("note", 25, Type::Text),
        ("ok", 16, Type::Bool),
        ("day", 1082, Type::Date),
        ("at", 1184, Type::Timestamp),
    ];
    let announced: Vec<_> = columns.iter().map(|c| (c.0 == "id", c.0, c.1)).collect();
    let mut decoder = Decoder::new(vec![table(&columns, Identity::Key(vec![0]))]);
    let mut log = Log::default();
    assert!(decoder.decode(&announce(OID, "t", b'd', &announced), &mut log).is_ok());
    let row = insert(&[
        T("1234567"),
        T("42"),
        T("12345.67"),
        T("shipped"),
        T("a note of some length, as notes are"),
        T("t"),
        T("2024-06-15"),
        T("2024-06-15 10:30:45.123456+00"),
    ]);
    for _ in 0..5 {
        let began = thread_seconds();
        for _ in 0..500_000 {
            assert!(decoder.decode(&row, &mut log).is_ok());
        }
        let rows = 500_000.0 / (thread_seconds() - began);
        log.builders.clear();
        println!("{:.2} M rows/s", rows / 1e6);
    }
}
