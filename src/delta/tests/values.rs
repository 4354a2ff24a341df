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
async fn scratch() {
    let Ok(dir) = std::env::var("SCRATCH_LAKE") else {
        return;
    };
    let lake = Lake::open(&super::super::LakeOptions { url: dir, ..Default::default() }).unwrap();
    let schema = everything();
    let mut table = Table::create(&lake, "s/all");
    for epoch in 0..205_i64 {
        let rows: Vec<_> = (0..20).map(|n| row(epoch * 20 + n)).collect();
        let old: Vec<_> = (0..5).map(|n| row(epoch * 20 - 30 + n)).collect();
        table.apply(&run(&schema, &old, &rows)).await.unwrap();
        commit(&mut table, epoch).await;
    }
    let mut table = Table::create(&lake, "s/pairs");
    for n in 0..105 {
        table.apply(&pairs_run(&[n - 3], &[(n, "x"), (n + 1000, "ünï")])).await.unwrap();
        commit(&mut table, n).await;
    }
    eprintln!("{} {} {}", table.rows(), table.files(), table.bytes());
}
