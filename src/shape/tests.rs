//! What each kind of change becomes under each shape.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int64Type};
use lakeward_connectors::batch::{Builder, Committed};
use lakeward_connectors::key::value_at;
use lakeward_connectors::schema::{Column, Compare, TableId, Type};
use lakeward_connectors::secret::Secret;
use lakeward_connectors::{Op, Value};

use super::*;

fn source(identity: Identity) -> Arc<TableSchema> {
    let kinds = [
        ("id", Type::Int64),
        ("email", Type::Text),
        ("region", Type::Text),
        ("at", Type::Timestamp),
    ];
    let column = |(id, (name, kind)): (u32, (&str, Type))| Column {
        id,
        name: name.to_owned(),
        source_type: format!("{kind:?}"),
        kind,
        missing: None,
        compare: Compare::EXACT,
    };
    let columns = (1..).zip(kinds).map(column).collect();
    let id = TableId::new("public", "people");
    let storage = String::new();
    Arc::new(TableSchema { id, columns, identity, storage, lasting_ids: true })
}

fn keyed() -> Arc<TableSchema> {
    source(Identity::Key(vec![0]))
}

fn person<'a>(id: i64, email: &'a str, region: &'a str) -> Vec<Value<'a>> {
    // 2024-02-29 13:00:00
    vec![
        Value::Int(id),
        Value::Text(email),
        Value::Text(region),
        Value::Timestamp(1_709_211_600_000_000),
    ]
}

fn trace() -> Trace {
    let committed = Committed { transaction: "tx 7".to_owned(), micros: 1_000_000 };
    Trace { committed: Arc::new(committed), ordinal: 0 }
}

/// The rows of a batch as text, a line each; `-` for null, `=` for a value that was left out.
fn lines(batch: &Batch) -> Vec<String> {
    let line = |row: u32| {
        let columns = batch.schema.columns.iter().zip(batch.columns.columns()).enumerate();
        let texts = columns.map(|(at, (column, array))| {
            match value_at(&column.kind, array.as_ref(), row as usize) {
                _ if batch.is_unchanged(at, row) => "=".to_owned(),
                Some(Value::Null) => "-".to_owned(),
                Some(Value::Text(text)) => text.to_owned(),
                Some(Value::Int(number)) => number.to_string(),
                Some(Value::Bool(value)) => value.to_string(),
                Some(Value::List(items)) => format!("{} items", items.len()),
                Some(Value::Timestamp(micros)) => format!("t{micros}"),
                other => format!("{other:?}"),
            }
        });
        texts.collect::<Vec<_>>().join(" ")
    };
    let change = |change: &lakeward_connectors::batch::Change| {
        let row = change.row.map_or_else(|| "gone".to_owned(), line);
        format!("{:?} {row}", change.op)
    };
    batch.changes.iter().map(change).collect()
}

fn shaped(shape: &Shape, fill: impl FnOnce(&mut Builder)) -> Vec<String> {
    let source = keyed();
    let mut builder = Builder::new(Arc::clone(&source));
    if shape.is_traced() {
        builder.trace(trace());
    }
    fill(&mut builder);
    let shaping = Shaping::new(shape, &source, None).expect("a shape");
    let batch = shaping.apply(builder.finish()).expect("shaped");
    assert_eq!(&batch.schema, shaping.lake());
    lines(&batch)
}

fn filter(text: &str) -> Option<Filter> {
    Some(Filter::parse(text).expect(text))
}

#[test]
fn columns_are_left_out_renamed_and_masked() {
    let key = MaskKey::new(&Secret::new("a key that is long enough"));
    let shape = Shape {
        columns: ColumnFilter::new(&["!at"]),
        rename: [("region".to_owned(), "area".to_owned())].into(),
        masks: [("email".to_owned(), Mask::Hash(key))].into(),
        ..Shape::default()
    };
    let shaping = Shaping::new(&shape, &keyed(), None).expect("a shape");
    let names: Vec<_> = shaping.lake().columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "email", "area"]);
    let mut lines = shaped(&shape, |builder| {
        builder.push(Op::Insert, None, Some(&person(1, "a@b", "eu"))).expect("a row");
        builder.push(Op::Insert, None, Some(&person(2, "a@b", "eu"))).expect("a row");
        builder.push(Op::Insert, None, Some(&person(3, "A@b", "eu"))).expect("a row");
    });
    lines.iter_mut().for_each(|line| *line = line.split(' ').nth(2).unwrap_or("").to_owned());
    assert!(lines.iter().all(|hash| hash.len() == 64), "{lines:?}");
    assert!(lines[0] == lines[1] && lines[0] != lines[2], "equal values, equal hashes");
    assert!(!shape.text().contains("long enough"), "{}", shape.text());
    let constant = Shape {
        masks: [
            ("email".to_owned(), Mask::Constant("x".to_owned())),
            ("at".to_owned(), Mask::Drop),
        ]
        .into(),
        ..Shape::default()
    };
    let lines = shaped(&constant, |builder| {
        let row = [Value::Int(1), Value::Null, Value::Text("eu"), Value::Timestamp(5)];
        builder.push(Op::Insert, None, Some(&row)).expect("a row");
        builder.push(Op::Update, None, Some(&person(2, "a@b", "us"))).expect("a row");
    });
    assert_eq!(lines, ["Insert 1 - eu -", "Update 2 x us -"]);
}

#[test]
fn what_a_shape_names_must_be_there() {
    let fails = |shape: &Shape, source: &Arc<TableSchema>, said: &str| {
        let error = Shaping::new(shape, source, None).expect_err(said).full();
        assert!(error.contains(said), "{error}");
    };
    let renamed = Shape { rename: [("mail".into(), "m".into())].into(), ..Shape::default() };
    fails(&renamed, &keyed(), "a column mail, which it doesn't have");
    let left_out = Shape { columns: ColumnFilter::new(&["!id"]), ..Shape::default() };
    fails(&left_out, &keyed(), "column id is part of the key");
    let masked = Shape { masks: [("id".into(), Mask::Drop)].into(), ..Shape::default() };
    fails(&masked, &keyed(), "column id is part of the key");
    let clash = Shape { rename: [("email".into(), "region".into())].into(), ..Shape::default() };
    fails(&clash, &keyed(), "would be called region");
    let wrong = Shape { rows: filter("id = 'one'"), ..Shape::default() };
    fails(&wrong, &keyed(), "'one' can't be compared with column id");
    let absent = Shape { rows: filter("country = 'x'"), ..Shape::default() };
    fails(&absent, &keyed(), "no column country");
    let keyless = source(Identity::FullRow);
    fails(&Shape { rows: filter("id = 1"), ..Shape::default() }, &keyless, "the table has no key");
    fails(&Shape { mode: Mode::SoftDelete, ..Shape::default() }, &keyless, "soft-delete");
    let append =
        Shape { mode: Mode::Append, columns: ColumnFilter::new(&["!id"]), ..Shape::default() };
    assert!(Shaping::new(&append, &keyless, None).is_ok());
    let by = |text: &str| vec![PartitionBy::parse(text).expect(text)];
    fails(&Shape { partition: by("day(email)"), ..Shape::default() }, &keyed(), "which is no time");
    fails(&Shape { partition: by("day(x)"), ..Shape::default() }, &keyed(), "doesn't have");
}

#[test]
fn filters_are_read_or_refused() {
    for (text, said) in [
        ("", "a column is missing"),
        ("a", "a comparison such as ="),
        ("a = b", "a constant"),
        ("a = 'x", "not closed"),
        ("a = 1 or b = 2", "'and' belongs before or"),
        ("a is 1", "'null' or 'not null'"),
        ("a in 1", "a list"),
        ("a = null", "is null"),
        ("= 1", "a column belongs where = stands"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
    for text in ["\"a b\" = 'it''s'", "a>=1.5 AND b IS NOT NULL and c not in (1,2)", "a<>true"] {
        assert!(Filter::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn a_filter_compares_as_sql_does() {
    let kept = |text: &str| {
        let shape = Shape { rows: filter(text), ..Shape::default() };
        let lines = shaped(&shape, |builder| {
            builder.push(Op::Insert, None, Some(&person(1, "a", "eu"))).expect("a row");
            builder.push(Op::Insert, None, Some(&person(2, "it's", "us"))).expect("a row");
            let row = [Value::Int(3), Value::Text("c"), Value::Null, Value::Null];
            builder.push(Op::Insert, None, Some(&row)).expect("a row");
        });
        lines.iter().map(|line| u8::from(line.starts_with("Insert"))).collect::<Vec<_>>()
    };
    assert_eq!(kept("region = 'eu'"), [1, 0, 0]);
    assert_eq!(kept("region != 'eu'"), [0, 1, 0]);
    assert_eq!(kept("region is null"), [0, 0, 1]);
    assert_eq!(kept("region is not null and id >= 2"), [0, 1, 0]);
    assert_eq!(kept("id in (1, 3)"), [1, 0, 1]);
    assert_eq!(kept("region not in ('eu')"), [0, 1, 0]);
    assert_eq!(kept("email = 'it''s'"), [0, 1, 0]);
    assert_eq!(kept("at < '2024-02-29 13:00:00.000001'"), [1, 1, 0]);
    assert_eq!(kept("at < '2024-02-29 13:00:00'"), [0, 0, 0]);
    assert_eq!(kept("at >= '2024-02-29'"), [1, 1, 0]);
}

#[test]
fn a_row_that_leaves_the_filter_is_gone() {
    let shape = Shape { rows: filter("region = 'eu'"), ..Shape::default() };
    let lines = shaped(&shape, |builder| {
        builder.push(Op::Update, None, Some(&person(1, "a", "us"))).expect("a row");
        builder
            .push(Op::Update, Some(&person(2, "", "")), Some(&person(3, "a", "us")))
            .expect("row");
        builder
            .push(Op::Update, Some(&person(4, "", "")), Some(&person(5, "a", "eu")))
            .expect("row");
        // What was not sent can't tell: if the lake has the row, it passes.
        let row = [Value::Int(6), Value::Text("b"), Value::Unchanged, Value::Null];
        builder.push(Op::Update, None, Some(&row)).expect("a row");
    });
    let time = "t1709211600000000";
    let five = format!("Update 5 a eu {time}");
    assert_eq!(
        lines,
        ["Delete gone", "Delete gone", "Delete gone", five.as_str(), "Update 6 b = -"]
    );
}

#[test]
fn a_deleted_row_is_marked_and_keeps_its_values() {
    let shape = Shape { mode: Mode::SoftDelete, ..Shape::default() };
    let lines = shaped(&shape, |builder| {
        builder.push(Op::Insert, None, Some(&person(1, "a", "eu"))).expect("a row");
        builder.push(Op::Delete, Some(&person(1, "", "")), None).expect("a row");
        let row = [Value::Int(3), Value::Unchanged, Value::Text("eu"), Value::Null];
        builder.push(Op::Update, Some(&person(2, "", "")), Some(&row)).expect("a row");
    });
    assert_eq!(
        lines,
        [
            "Insert 1 a eu t1709211600000000 false -",
            "Delete = = = = true t1000000",
            // The row of the old key is looked at first, and marked then.
            "Insert 3 = eu - false -",
            "Delete = = = = true t1000000",
        ]
    );
}

#[test]
fn every_change_is_a_row() {
    let shape = Shape { mode: Mode::Append, rows: filter("region = 'eu'"), ..Shape::default() };
    let lines = shaped(&shape, |builder| {
        builder.push(Op::Insert, None, Some(&person(1, "a", "eu"))).expect("a row");
        builder.push(Op::Insert, None, Some(&person(2, "a", "us"))).expect("a row");
        let row = [Value::Int(3), Value::Unchanged, Value::Text("eu"), Value::Null];
        builder.push(Op::Update, Some(&person(1, "", "")), Some(&row)).expect("a row");
        builder.push(Op::Update, None, Some(&person(3, "secret", "us"))).expect("a row");
        builder.push(Op::Delete, Some(&person(3, "", "")), None).expect("a row");
    });
    assert_eq!(
        lines,
        [
            "Insert 1 a eu t1709211600000000 insert tx 7 0 t1000000 0 items 0 items",
            "Insert 3 - eu - update tx 7 2 t1000000 1 items 1 items",
            "Insert 3 - - - delete tx 7 3 t1000000 0 items 0 items",
            "Insert 3 - - - delete tx 7 4 t1000000 0 items 0 items",
        ]
    );
    let shaping = Shaping::new(&shape, &keyed(), None).expect("a shape");
    let truncated = shaping.truncated(Some(trace())).expect("a row");
    assert_eq!(lines_of(&truncated), ["Insert - - - - truncate tx 7 0 t1000000 0 items 0 items"]);
}

fn lines_of(batch: &Batch) -> Vec<String> {
    lines(batch)
}

#[test]
fn all_rows_can_be_marked() {
    let shape = Shape { mode: Mode::SoftDelete, ..Shape::default() };
    let source = keyed();
    let mut builder = Builder::new(Arc::clone(&source));
    builder.trace(trace());
    builder.push(Op::Insert, None, Some(&person(1, "a", "eu"))).expect("a row");
    let shaping = Shaping::new(&shape, &source, None).expect("a shape");
    let batch = shaping.apply(builder.finish()).expect("shaped");
    let marked = mark_deleted(&batch.columns, Some(9)).expect("marked");
    let again = mark_deleted(&marked, Some(10)).expect("marked");
    let at = |rows: &RecordBatch| {
        rows.column(5).as_primitive::<arrow_array::types::TimestampMicrosecondType>().value(0)
    };
    assert!(marked.column(4).as_boolean().value(0));
    assert_eq!((at(&marked), at(&again)), (9, 9));
}

#[test]
fn a_time_has_parts() {
    let by = |text: &str| PartitionBy::parse(text).expect(text);
    let shape = Shape {
        partition: vec![by("day(at)"), by("month(at)"), by("year(at)")],
        ..Shape::default()
    };
    assert_eq!(shape.partition_columns(), ["at_day", "at_month", "at_year"]);
    let source = keyed();
    let mut builder = Builder::new(Arc::clone(&source));
    builder.push(Op::Insert, None, Some(&person(1, "a", "eu"))).expect("a row");
    let mut early = person(2, "a", "eu");
    early[3] = Value::Timestamp(-1);
    builder.push(Op::Insert, None, Some(&early)).expect("a row");
    let shaping = Shaping::new(&shape, &source, None).expect("a shape");
    let rows = shaping.apply(builder.finish()).expect("shaped").columns;
    let dates = |at: usize| rows.column(at).as_primitive::<Date32Type>().values().to_vec();
    assert_eq!((dates(4), dates(5)), (vec![19_782, -1], vec![19_754, -31]));
    let years = rows.column(6).as_primitive::<arrow_array::types::Int32Type>();
    assert_eq!(years.values().to_vec(), [2024, 1969]);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 2]);
    assert!(PartitionBy::parse("hour(at)").is_none());
}

#[test]
fn new_columns_are_ignored_if_that_was_asked_for() {
    let shape = Shape { changes: Changes::IgnoreNew, ..Shape::default() };
    assert!(!shape.is_plain() && shape.text().is_empty());
    let mut known = TableSchema::clone(&keyed());
    known.columns.remove(2);
    let names = |known: Option<&TableSchema>| {
        let shaping = Shaping::new(&shape, &keyed(), known).expect("a shape");
        shaping.lake().columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["id", "email", "region", "at"]);
    assert_eq!(names(Some(&known)), ["id", "email", "at"]);
    // MySQL numbers columns by place: what was there is known by its name.
    let mut places = TableSchema::clone(&keyed());
    places.lasting_ids = false;
    (1..).zip(&mut known.columns).for_each(|(place, column)| column.id = place);
    let shaping = Shaping::new(&shape, &Arc::new(places), Some(&known)).expect("a shape");
    let names: Vec<_> = shaping.lake().columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "email", "at"]);
}
