//! Events as servers write them against what must come out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::connection::Flavor;
use super::super::event::kind;
use super::super::gtid::Origin;
use super::*;
use crate::batch::{Builder, Change};
use crate::key::{key_texts, value_at};
use crate::mysql::values;
use crate::schema::{Column, Compare, Identity};

/// What came out, one line each.
#[derive(Default)]
struct Out {
    lines: Vec<String>,
    builders: BTreeMap<TableId, Builder>,
}

impl Out {
    fn flush(&mut self) {
        for (_, builder) in std::mem::take(&mut self.builders) {
            let batch = builder.finish();
            let line = |change: &Change| {
                let key = key_texts(&batch.schema, batch.keys.get(change.key)).unwrap().join(",");
                let value = |at: usize, row: u32| {
                    let kind = &batch.schema.columns[at].kind;
                    let array = batch.columns.column(at);
                    match batch.is_unchanged(at, row) {
                        true => "~".to_owned(),
                        false => {
                            values::shown(&value_at(kind, array.as_ref(), row as usize).unwrap())
                        }
                    }
                };
                let row = change.row.map(|row| {
                    let columns = 0..batch.schema.columns.len();
                    columns.map(|at| value(at, row)).collect::<Vec<_>>().join(" ")
                });
                let old = change.old_key.map(|old| {
                    format!(
                        " from {}",
                        key_texts(&batch.schema, batch.keys.get(old)).unwrap().join(",")
                    )
                });
                format!(
                    "{:?} {key}{}: {}",
                    change.op,
                    old.unwrap_or_default(),
                    row.unwrap_or_default()
                )
            };
            self.lines.extend(batch.changes.iter().map(line));
        }
    }
}

impl Sink<Place> for Out {
    fn begin(&mut self, transaction: Gtid) {
        self.lines.push(format!("begin {transaction}"));
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        let builder = self.builders.entry(schema.id.clone());
        Some(builder.or_insert_with(|| Builder::new(schema.clone())))
    }

    fn truncate(&mut self, table: &TableId) {
        self.lines.push(format!("truncate {table}"));
    }

    fn commit(&mut self, position: Place, micros: i64) {
        self.flush();
        self.lines.push(format!("commit {position} {micros}"));
    }

    fn progress(&mut self, position: Place) {
        self.lines.push(format!("progress {position}"));
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        self.builders.remove(table);
        self.lines.push(format!("stop {table}: {reason}"));
    }
}

fn event(kind: u8, body: &[u8]) -> Event {
    Event { kind, seconds: 7, server: 1, flags: 0, body: body.to_vec().into() }
}

fn begin(number: u64) -> Event {
    event(kind::GTID, &[&[0][..], &[7; 16], &number.to_le_bytes()].concat())
}

fn query(text: &str) -> Event {
    event(kind::QUERY, &[&[0; 8][..], &[1, 0, 0, 0, 0], b"s\0", text.as_bytes()].concat())
}

/// `id int, v varchar(9), d date`, number 5.
fn map() -> Event {
    let body =
        [&[5, 0, 0, 0, 0, 0, 1, 0, 1][..], b"s\0", &[1], b"t\0", &[3, 3, 15, 10, 2, 9, 0, 6]];
    event(kind::TABLE_MAP, &body.concat())
}

fn rows(kind: u8, present: &[u8], images: &[&[u8]]) -> Event {
    let head = [5, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3];
    event(kind, &[&head[..], present, &images.concat()].concat())
}

/// A whole row: the null bits, then the values.
fn row(id: u8, v: &str) -> Vec<u8> {
    [&[4, id, 0, 0, 0, v.len() as u8], v.as_bytes()].concat()
}

fn schema() -> Arc<TableSchema> {
    let column = |(id, name, source_type): (u32, &str, &str)| Column {
        id,
        name: name.to_owned(),
        kind: super::super::types::Kind::parse(source_type).unwrap().lake_type(),
        source_type: source_type.to_owned(),
        missing: None,
        compare: Compare::EXACT,
    };
    let columns = [(1, "id", "int"), (2, "v", "varchar(9)"), (3, "d", "date")];
    Arc::new(TableSchema {
        id: TableId::new("s", "t"),
        columns: columns.into_iter().map(column).collect(),
        identity: Identity::Key(vec![0]),
        storage: String::new(),
        lasting_ids: false,
    })
}

fn decoder() -> Decoder {
    let known = Known::new(schema(), &Charsets::new()).unwrap();
    Decoder::new(Place::parse(Flavor::MySql, "").unwrap(), vec![known])
}

fn decode(decoder: &mut Decoder, events: &[Event]) -> Vec<String> {
    let mut out = Out::default();
    for event in events {
        assert_eq!(decoder.decode(event, &mut out).unwrap(), Decoded::Done);
        for event in decoder.take_replay() {
            assert_eq!(decoder.decode(&event, &mut out).unwrap(), Decoded::Done);
        }
    }
    out.lines
}

fn commit_line(last: u64) -> String {
    let origin = Origin { uuid: [7; 16], tag: String::new() };
    let numbers = if last == 1 { "1".to_owned() } else { format!("1-{last}") };
    format!("commit mysql:{origin}:{numbers} 7000000")
}

#[test]
fn a_transaction_comes_whole() {
    let update = [row(1, "a"), row(2, "b")].concat();
    let events = [
        begin(1),
        query("BEGIN"),
        map(),
        rows(kind::WRITE_ROWS, &[7], &[&row(1, "a"), &row(9, "z")]),
        rows(kind::UPDATE_ROWS, &[7, 7], &[&update]),
        rows(kind::DELETE_ROWS, &[7], &[&row(9, "z")]),
        event(kind::XID, &[0; 8]),
        begin(2),
        query("truncate t"),
    ];
    let lines = decode(&mut decoder(), &events);
    let changes = &lines[1..5];
    assert_eq!(
        changes,
        ["Insert 1: 1 a NULL", "Insert 9: 9 z NULL", "Update 2 from 1: 2 b NULL", "Delete 9: ",]
    );
    assert_eq!(lines[5], commit_line(1));
    assert_eq!(&lines[7..], ["truncate s.t".to_owned(), commit_line(2)]);
}

#[test]
fn an_image_may_leave_columns_out() {
    // Before: the key. After: what changed.
    let minimal = [&[0, 1, 0, 0, 0][..], &[0, 1], b"b"].concat();
    let insert = [0, 3, 0, 0, 0];
    let events = [
        begin(1),
        query("BEGIN"),
        map(),
        rows(kind::UPDATE_ROWS, &[1, 2], &[&minimal]),
        rows(kind::WRITE_ROWS, &[1], &[&insert]),
        rows(kind::WRITE_ROWS, &[2], &[&[0, 1, b'x']]),
    ];
    let mut out = Out::default();
    let mut decoder = decoder();
    for event in &events {
        decoder.decode(event, &mut out).unwrap();
    }
    // The last one has no key.
    assert!(out.lines[1].contains("stop s.t: the log leaves out values"), "{:?}", out.lines);
    let lines = decode(&mut self::decoder(), &[&events[..5], &[event(kind::XID, &[])]].concat());
    assert_eq!(lines[1..3], ["Update 1: 1 b ~", "Insert 3: 3 ~ ~"]);
}

#[test]
fn a_value_that_does_not_fit_stops_its_table_and_no_other() {
    let zero = [&[0, 1, 0, 0, 0][..], &[1], b"a", &[0, 0, 0]].concat();
    let events = [
        begin(1),
        query("BEGIN"),
        map(),
        rows(kind::WRITE_ROWS, &[7], &[&zero]),
        rows(kind::WRITE_ROWS, &[7], &[&row(2, "b")]),
        event(kind::XID, &[0; 8]),
    ];
    let lines = decode(&mut decoder(), &events);
    let reason = "column d of row id=1 holds '0000-00-00', which its type can't";
    assert!(lines[1].contains(reason), "{lines:?}");
    assert_eq!(lines[2..], [commit_line(1)]);
}

#[test]
fn definitions_and_statements_are_asked_about() {
    let asked = |text: &str| {
        let (mut decoder, mut out) = (decoder(), Out::default());
        decoder.decode(&begin(1), &mut out).unwrap();
        let decoded = decoder.decode(&query(text), &mut out).unwrap();
        let question = decoder.question().cloned();
        assert_eq!(decoded == Decoded::Unresolved, question.is_some());
        if question.is_some() {
            decoder.settle();
            assert_eq!(decoder.decode(&query(text), &mut out).unwrap(), Decoded::Done);
        }
        assert_eq!(out.lines.last(), Some(&commit_line(1)), "{text}");
        question
    };
    assert!(matches!(asked("alter table t add n int"), Some(Question::Altered(..))));
    assert!(matches!(asked("rename table t to u"), Some(Question::Dropped(_))));
    assert!(matches!(asked("drop database s"), Some(Question::Dropped(_))));
    assert!(matches!(asked("update x set a = 1"), Some(Question::Statement { .. })));
    // Names that differ in case only may be one.
    assert!(matches!(asked("truncate T"), Some(Question::Replaced(..))));
    assert!(matches!(asked("alter table S.t add n int"), Some(Question::Altered(..))));
    assert_eq!(asked("alter table other add n int"), None);
    assert_eq!(asked("create user x"), None);
}

#[test]
fn rows_of_another_shape_are_asked_about() {
    let (mut decoder, mut out) = (decoder(), Out::default());
    decoder.decode(&begin(1), &mut out).unwrap();
    decoder.decode(&query("BEGIN"), &mut out).unwrap();
    let body = [&[5, 0, 0, 0, 0, 0, 1, 0, 1][..], b"s\0", &[1], b"t\0", &[2, 3, 10, 0, 2]].concat();
    let other = event(kind::TABLE_MAP, &body);
    assert_eq!(decoder.decode(&other, &mut out).unwrap(), Decoded::Unresolved);
    assert!(
        matches!(decoder.question(), Some(Question::Shape { columns, .. }) if columns.len() == 2)
    );
    decoder.remove(&TableId::new("s", "t"));
    decoder.settle();
    assert_eq!(decoder.decode(&other, &mut out).unwrap(), Decoded::Done);
}

#[test]
fn what_may_be_undone_is_never_taken_for_done() {
    let changed = |end: Event| {
        let insert = rows(kind::WRITE_ROWS, &[7], &[&row(1, "a")]);
        decode(&mut decoder(), &[begin(1), query("BEGIN"), map(), insert, end])
    };
    let lines = changed(query("ROLLBACK"));
    assert!(lines[1].contains("rolled back"), "{lines:?}");
    assert_eq!(lines[2..], [commit_line(1)]);
}

/// A transaction that inserts row `id` and is prepared as `name`.
fn prepared(number: u64, id: u8, name: u8, one_phase: u8) -> Vec<Event> {
    let xid = [&[one_phase, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[name]].concat();
    vec![
        begin(number),
        query(&format!("XA START X'{name:02x}',X'',1")),
        map(),
        rows(kind::WRITE_ROWS, &[7], &[&row(id, "a")]),
        query(&format!("XA END X'{name:02x}',X'',1")),
        event(kind::XA_PREPARE, &xid),
    ]
}

fn outcome(number: u64, what: &str, name: u8) -> Vec<Event> {
    vec![begin(number), query(&format!("XA {what} X'{name:02x}',X'',1"))]
}

#[test]
fn rows_of_a_distributed_transaction_come_with_its_commit() {
    let parts = [
        prepared(1, 1, b'a', 0),
        prepared(2, 2, b'b', 0),
        prepared(3, 3, b'c', 1),
        outcome(4, "ROLLBACK", b'a'),
        outcome(5, "COMMIT", b'b'),
    ];
    let lines = decode(&mut decoder(), &parts.concat());
    let rows: Vec<_> = lines.iter().filter(|line| line.starts_with("Insert")).collect();
    assert_eq!(rows, ["Insert 3: 3 a NULL", "Insert 2: 2 a NULL"]);
    let commits: Vec<_> = lines.iter().filter(|line| line.starts_with("commit")).collect();
    assert_eq!(commits.len(), 5);
    // While one is open the position says from where on it has to be read again.
    assert!(commits[0].contains(":1 since mysql: "), "{commits:?}");
    assert!(commits[2].contains(":1-3 since mysql: "), "{commits:?}");
    assert!(commits[3].contains(":1-4 since mysql:") && commits[3].contains(":1 7"), "{commits:?}");
    assert_eq!(*commits[4], commit_line(5));

    // Whoever goes on from there reads the log again from the first one, and skips what it has.
    let before = decode(&mut decoder(), &parts[..3].concat());
    let last = before.last().unwrap().split(' ').collect::<Vec<_>>()[1..4].join(" ");
    let known = Known::new(schema(), &Charsets::new()).unwrap();
    let mut again = Decoder::new(Place::try_from(last).unwrap(), vec![known]);
    let lines = decode(&mut again, &parts.concat());
    let origin = Origin { uuid: [7; 16], tag: String::new() };
    assert_eq!(lines[0], format!("begin {origin}:4"));
    assert_eq!(lines[3..], ["Insert 2: 2 a NULL".to_owned(), commit_line(5)]);
}

#[test]
fn a_distributed_transaction_that_nobody_saw_begin_is_asked_about() {
    let (mut decoder, mut out) = (decoder(), Out::default());
    let events = outcome(1, "COMMIT", b'a');
    decoder.decode(&events[0], &mut out).unwrap();
    assert_eq!(decoder.decode(&events[1], &mut out).unwrap(), Decoded::Unresolved);
    assert!(matches!(decoder.question(), Some(Question::Everything(why)) if why.contains("XA")));
    decoder.settle();
    assert_eq!(decoder.decode(&events[1], &mut out).unwrap(), Decoded::Done);
    assert_eq!(out.lines.last(), Some(&commit_line(1)));
}

proptest! {
    #[test]
    fn no_rows_panic(
        kind in 23_u8..40,
        present in any::<[u8; 2]>(),
        images in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let (mut decoder, mut out) = (decoder(), Out::default());
        for event in [begin(1), query("BEGIN"), map(), rows(kind, &present, &[&images])] {
            let _ = decoder.decode(&event, &mut out);
        }
    }
}
