//! Every type, written and read back; and the statistics the log states of it.

use std::borrow::Cow;

use super::*;

pub(super) fn everything() -> Arc<TableSchema> {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let kinds = vec![
        ("id", Type::Int64),
        ("flag", Type::Bool),
        ("short", Type::Int16),
        ("int", Type::Int32),
        ("float", Type::Float32),
        ("double", Type::Float64),
        ("money", decimal(12, 2)),
        ("small_money", decimal(9, 2)),
        ("huge", decimal(38, 10)),
        ("numeric", Type::Numeric),
        ("text", Type::Text),
        ("bytes", Type::Binary),
        ("day", Type::Date),
        ("at", Type::Timestamp),
        ("local", Type::LocalTimestamp),
        ("tags", Type::List(Box::new(Type::Text))),
        ("grid", Type::List(Box::new(Type::List(Box::new(Type::Int32))))),
        ("space and, odd;{}()=", Type::Text),
        ("Größe.x", Type::Int32),
    ];
    let columns = (1..).zip(kinds).map(|(id, (name, kind))| column(id, name, kind)).collect();
    table_schema(columns, Identity::Key(vec![0]))
}

pub(super) fn row(n: i64) -> Vec<Value<'static>> {
    if n % 5 == 4 {
        let mut row = vec![Value::Int(n)];
        row.resize(everything().columns.len(), Value::Null);
        return row;
    }
    vec![
        Value::Int(n),
        Value::Bool(n % 2 == 0),
        Value::Int(n % 30_000),
        Value::Int(-n),
        Value::Float32(n as f32 / 10.0),
        Value::Float64(n as f64 / 3.0),
        Value::Decimal(i128::from(n) * 101),
        Value::Decimal(i128::from(n) * 7),
        Value::Decimal(i128::from(n) * 1_234_567_890_123_456_789_012_345),
        Value::OwnedText(format!("{n}.000{n}")),
        Value::OwnedText(format!("text {n} ü")),
        Value::Binary(Cow::Owned(n.to_be_bytes().to_vec())),
        Value::Date(n as i32 * 10 - 1000),
        Value::Timestamp(n * 86_400_000_123),
        Value::Timestamp(n * 3_600_000_007 - 9_000_000_000_000),
        Value::List(vec![Value::OwnedText(format!("tag{n}")), Value::Null]),
        Value::List(vec![Value::List(vec![Value::Int(n), Value::Null]), Value::Null]),
        Value::Text("odd"),
        Value::Int(n),
    ]
}

#[tokio::test]
async fn every_type_comes_back() {
    let lake = Lake::memory();
    let schema = everything();
    let mut table = Table::create(&lake, "s/all");
    let rows: Vec<_> = (0..40).map(row).collect();
    for (epoch, some) in (1..).zip(rows.chunks(20)) {
        table.apply(&run(&schema, &[], some)).await.expect("applied");
        commit(&mut table, epoch).await;
    }
    let mut wanted: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(show).collect()).collect();
    wanted.sort();
    assert_eq!(read_rows(&lake, "s/all", &schema).await.expect("rows"), wanted);
}

/// Readers skip files by them: a decimal that went through a float would hide rows.
#[tokio::test]
async fn statistics_of_decimals_are_exact_or_absent() {
    let lake = Lake::memory();
    let schema = everything();
    let mut table = Table::create(&lake, "s/all");
    let rows: Vec<_> = (0..5).map(row).collect();
    table.apply(&run(&schema, &[], &rows)).await.expect("applied");
    commit(&mut table, 1).await;
    let snapshot = log::load(&lake, "s/all").await.expect("loaded").expect("there");
    let stats = snapshot.state.files().next().and_then(|add| add.stats.clone()).expect("stats");
    let (_, most) = stats.split_once("maxValues").expect("the greatest values");
    let (most, _) = most.split_once("nullCount").expect("the numbers of nulls");
    // More digits than a 64-bit float has, all of them there.
    let (_, huge) = most.split_once(r#""huge":"#).expect("a number of 38 digits");
    let digits = huge.bytes().take_while(|b| b.is_ascii_digit() || b"-.".contains(b)).count();
    assert!(digits > 20, "{stats}");
    assert!(most.contains(r#""money":3.03"#), "{stats}");
    assert!(stats.contains(r#""numRecords":5"#), "{stats}");
}
