use proptest::prelude::*;

use super::*;

fn field(source_type: &str) -> Field {
    let kind = Kind::parse(source_type).unwrap();
    Field { lake: kind.lake_type(), kind, charset: Arc::new(Charset::Utf8) }
}

fn text_field(source_type: &str) -> Field {
    let field = field(source_type);
    Field { lake: field.kind.text_type().unwrap(), ..field }
}

fn read<'a>(source_type: &str, text: &'a str) -> Result<Value<'a>, Misfit> {
    from_text(&field(source_type), text.as_bytes())
}

#[test]
fn numbers_keep_every_digit() {
    assert_eq!(read("int(5) unsigned zerofill", "00042"), Ok(Value::Int(42)));
    let most = read("bigint unsigned", "18446744073709551615");
    assert_eq!(most, Ok(Value::Decimal(18_446_744_073_709_551_615)));
    assert_eq!(read("decimal(5,2)", "-12.50"), Ok(Value::Decimal(-1250)));
    assert_eq!(read("decimal(5,2)", "12.5"), Err(Misfit::Form));
    assert_eq!(read("decimal(65,30)", "1.50"), Ok(Value::Text("1.50")));
    assert_eq!(read("float", "0.10000000149011612"), Ok(Value::Float32(0.1)));
    assert_eq!(read("float", "0.1"), Err(Misfit::Form));
    assert_eq!(read("year", "0000"), Ok(Value::Int(0)));
    assert_eq!(from_text(&field("bit(1)"), &[1]), Ok(Value::Bool(true)));
}

#[test]
fn dates_exist_or_stop_their_table() {
    assert_eq!(read("date", "1970-01-02"), Ok(Value::Date(1)));
    assert_eq!(read("date", "0000-00-00"), Err(Misfit::Zero));
    assert_eq!(read("date", "2023-00-15"), Err(Misfit::Zero));
    assert_eq!(read("date", "2023-02-30"), Err(Misfit::Impossible));
    let moment = read("datetime(6)", "1970-01-01 00:00:01.000002");
    assert_eq!(moment, Ok(Value::Timestamp(1_000_002)));
    assert_eq!(read("timestamp(3)", "1970-01-01 00:00:01.5"), Ok(Value::Timestamp(1_500_000)));
    assert_eq!(read("datetime", "1970-01-01"), Err(Misfit::Form));
    let kept = from_text(&text_field("date"), b"0000-00-00");
    assert_eq!(kept, Ok(Value::Text("0000-00-00")));
}

#[test]
fn addresses_are_written_as_the_server_writes_them() {
    let text = |bytes: &[u8]| inet6(bytes).map(|value| shown(&value));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 128];
    assert_eq!(text(&mapped).unwrap(), "::ffff:192.0.2.128");
    assert_eq!(text(&[0; 16]).unwrap(), "::");
    assert_eq!(text(&[]).unwrap(), "::");
    assert_eq!(text(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]).unwrap(), "::192.0.2.1");
    assert!(inet6(&[0; 17]).is_err());
    let zeros = uuid(&[0x12, 0x3e]).map(|value| shown(&value));
    assert_eq!(zeros.unwrap(), "123e0000-0000-0000-0000-000000000000");
}

#[test]
fn a_stop_names_column_row_and_remedy() {
    let column = |name: &str, source_type: &str| Column {
        id: 1,
        name: name.to_owned(),
        kind: Kind::parse(source_type).unwrap().lake_type(),
        source_type: source_type.to_owned(),
        missing: None,
        compare: crate::schema::Compare::EXACT,
    };
    let schema = TableSchema {
        id: crate::TableId::new("shop", "t"),
        columns: vec![column("id", "int"), column("d", "date")],
        identity: crate::Identity::Key(vec![0]),
        storage: String::new(),
        lasting_ids: false,
    };
    let reason = stop_reason(&schema, 1, Misfit::Zero, "0000-00-00", |_| Some("7".to_owned()));
    let reason = reason.to_string();
    assert!(reason.contains("column d of row id=7 holds '0000-00-00'"), "{reason}");
    assert!(reason.contains("add \"d\" to text_columns of table.\"shop.t\""), "{reason}");
}

proptest! {
    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let kinds = ["int", "bigint unsigned", "decimal(38,3)", "float", "date", "datetime(6)",
            "time(3)", "varchar(9)", "json", "uuid", "inet4", "inet6", "bit(9)", "year"];
        for kind in kinds {
            let _ = from_text(&field(kind), &text);
        }
    }

    #[test]
    fn days_come_back(day in 0_i64..2_932_896) {
        let (year, month, of_month) = civil(day);
        let date = Date { year: year as u32, month, day: of_month };
        let text = date.to_string();
        prop_assert_eq!(read("date", &text), Ok(Value::Date(day as i32)));
    }
}
