use proptest::prelude::*;

use super::*;
use crate::schema::{Column, Compare, Identity, TableId};

fn micros(text: &str) -> Result<i64, Misfit> {
    timestamp(text.as_bytes())
}

#[test]
fn integers_reach_their_ends() {
    for value in [0, 7, -7, i64::MAX, i64::MIN, 999_999_999_999_999_999, 1_000_000_000_000_000_000]
    {
        assert_eq!(integer(value.to_string().as_bytes()), Ok(value));
    }
    for text in ["", "-", "+1", "1 ", "9223372036854775808", "1.0"] {
        assert_eq!(integer(text.as_bytes()), Err(Misfit::Form), "{text}");
    }
}

#[test]
fn floats_keep_every_bit() {
    let f8 = |text: &str| float::<f64>(text.as_bytes());
    assert_eq!(f8("5e-324"), Ok(5e-324));
    assert_eq!(f8("1.7976931348623157e+308"), Ok(f64::MAX));
    assert_eq!(f8("-0").map(f64::to_bits), Ok((-0.0_f64).to_bits()));
    assert_eq!(f8("Infinity"), Ok(f64::INFINITY));
    assert_eq!(f8("-Infinity"), Ok(f64::NEG_INFINITY));
    assert!(f8("NaN").is_ok_and(f64::is_nan));
    assert_eq!(float::<f32>(b"1.1754944e-38"), Ok(f32::MIN_POSITIVE));
}

#[test]
fn decimals_are_exact_or_refused() {
    let of = |text: &str, precision, scale| decimal(text.as_bytes(), precision, scale);
    assert_eq!(of("1.10", 38, 2), Ok(110));
    assert_eq!(of("-0.00999", 5, 5), Ok(-999));
    assert_eq!(of("-9999900", 7, 0), Ok(-9_999_900));
    assert_eq!(
        of("123456789012345678901234567890123456.78", 38, 2),
        Ok(12_345_678_901_234_567_890_123_456_789_012_345_678)
    );
    assert_eq!(of("99999999999999999999999999999999999999", 38, 0), Ok(10_i128.pow(38) - 1));
    assert_eq!(of("5", 10, 4), Ok(50_000));
    assert_eq!(of("0", 2, 2), Ok(0));
    assert_eq!(of("1.001", 10, 2), Err(Misfit::Digits));
    assert_eq!(of("100", 4, 2), Err(Misfit::Digits));
    assert_eq!(of("NaN", 10, 2), Err(Misfit::NotANumber));
    assert_eq!(of("-Infinity", 10, 2), Err(Misfit::Infinite));
    for text in ["", "-", ".", "1e3", "1.2.3", "--1", "1.x"] {
        assert!(of(text, 10, 2).is_err(), "{text}");
    }
}

#[test]
fn dates_of_all_ages() {
    assert_eq!(date(b"1970-01-01"), Ok(0));
    assert_eq!(date(b"2024-02-29"), Ok(19_782));
    assert_eq!(date(b"0001-01-01"), Ok(-719_162));
    assert_eq!(date(b"0044-03-15 BC"), Ok(days(-43, 3, 15) as i32));
    assert_eq!(date(b"5874897-12-31"), Ok(days(5_874_897, 12, 31) as i32));
    assert_eq!(date(b"infinity"), Err(Misfit::Infinite));
    assert_eq!(date(b"2024-13-01"), Err(Misfit::Form));
    assert_eq!(date(b"2024-01-01 00:00:00"), Err(Misfit::Form));
}

#[test]
fn timestamps_of_all_ages_and_zones() {
    assert_eq!(micros("1970-01-01 00:00:00"), Ok(0));
    assert_eq!(micros("1970-01-01 00:00:00.5+00"), Ok(500_000));
    assert_eq!(micros("2024-06-15 10:30:45.123456"), Ok(1_718_447_445_123_456));
    assert_eq!(micros("1970-01-01 05:30:00+05:30"), Ok(0));
    assert_eq!(micros("1969-12-31 22:47:48-01:12:12"), Ok(0));
    assert_eq!(micros("294247-01-10 04:00:54.775807+00"), Ok(i64::MAX));
    assert_eq!(micros("294276-12-31 23:59:59.999999+00"), Err(Misfit::Late));
    assert_eq!(micros("4713-01-01 00:00:00+00 BC"), Ok(days(-4_712, 1, 1) * 86_400_000_000));
    assert_eq!(micros("-infinity"), Err(Misfit::Infinite));
    for text in ["", "1970-01-01", "1970-01-01 0:00:00", "1970-01-01 00:00:00Z"] {
        assert_eq!(micros(text), Err(Misfit::Form), "{text}");
    }
}

#[test]
fn binary_is_hexadecimal() {
    assert_eq!(bytea(b"\\x"), Ok(vec![]));
    assert_eq!(bytea(b"\\x00ffDE"), Ok(vec![0, 255, 0xde]));
    for text in ["", "00", "\\x0", "\\x0g"] {
        assert_eq!(bytea(text.as_bytes()), Err(Misfit::Form));
    }
}

#[test]
fn arrays_of_one_dimension() {
    let texts = |text: &'static str| parse(&Type::List(Type::Text.into()), text.as_bytes());
    assert_eq!(texts("{}"), Ok(Value::List(vec![])));
    assert_eq!(
        texts(r#"{a,NULL,"NULL","b,}{","c\"\\d",""}"#),
        Ok(Value::List(vec![
            Value::Text("a"),
            Value::Null,
            Value::Text("NULL"),
            Value::Text("b,}{"),
            Value::OwnedText(r#"c"\d"#.to_owned()),
            Value::Text(""),
        ]))
    );
    assert_eq!(
        parse(&Type::List(Type::Binary.into()), br#"{"\\x00ff"}"#),
        Ok(Value::List(vec![Value::Binary(vec![0, 255].into())]))
    );
    assert_eq!(texts("{{1,2},{3,4}}"), Err(Misfit::Dimensions));
    assert_eq!(texts("[0:1]={1,2}"), Err(Misfit::Dimensions));
    for text in ["", "{", "{a", "{a,", r#"{"a}"#, "{a}b", r#"{"a"b}"#, r#"{"\"#] {
        assert_eq!(texts(text), Err(Misfit::Form), "{text}");
    }
}

#[test]
fn a_stop_names_column_key_value_and_remedy() {
    let column = |id, name: &str, kind| Column {
        id,
        name: name.to_owned(),
        kind,
        source_type: String::new(),
        missing: None,
        compare: Compare::EXACT,
    };
    let schema = TableSchema {
        id: TableId::new("public", "t"),
        columns: vec![column(1, "id", Type::Int32), column(2, "d", Type::Date)],
        identity: Identity::Key(vec![0]),
        storage: String::new(),
        lasting_ids: false,
    };
    let row: [&[u8]; 2] = [b"5", b"infinity"];
    let reason = stop_reason(&schema, 1, row[1], Misfit::Infinite, |at| row.get(at).copied());
    assert_eq!(
        reason.to_string(),
        "column d of row id=5 holds 'infinity', which its type can't: it is infinite; \
         add \"d\" to text_columns of table.\"public.t\""
    );
    assert_eq!(shortened(&[b'x'; 90]).chars().count(), 81);
}

fn any_type() -> impl Strategy<Value = Type> {
    let scalar = prop_oneof![
        Just(Type::Bool),
        Just(Type::Int64),
        Just(Type::Float32),
        Just(Type::Float64),
        (1..=38_u8).prop_flat_map(|precision| (0..=precision as i8)
            .prop_map(move |scale| Type::Decimal { precision, scale })),
        Just(Type::Text),
        Just(Type::Binary),
        Just(Type::Date),
        Just(Type::Timestamp),
    ];
    (scalar, any::<bool>())
        .prop_map(|(kind, list)| if list { Type::List(kind.into()) } else { kind })
}

proptest! {
    #[test]
    fn no_bytes_panic(kind in any_type(), text in r#"[-+0-9:. BCtNa\\x{}",\[\]]{0,30}"#) {
        let _ = parse(&kind, text.as_bytes());
        let _ = parse_owned(&kind, text.into_bytes());
    }

    #[test]
    fn no_raw_bytes_panic(kind in any_type(), text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse(&kind, &text);
        let _ = shortened(&text);
    }

    #[test]
    fn decimals_survive(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0..=38_i8) {
        let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
        let point = if scale > 0 { "." } else { "" };
        let text = format!("{}{whole}{point}{fraction}", if value < 0 { "-" } else { "" });
        prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Ok(value));
    }

    #[test]
    fn timestamps_survive(value in -200_000_000_000_000_000_i64..9_000_000_000_000_000_000) {
        let (day, rest) = (value.div_euclid(86_400_000_000), value.rem_euclid(86_400_000_000));
        let (year, month, of_month) = crate::key::civil(day);
        let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
        let text = format!(
            "{shown:04}-{month:02}-{of_month:02} {:02}:{:02}:{:02}.{fraction:06}+00{era}",
            seconds / 3600, seconds / 60 % 60, seconds % 60
        );
        prop_assert_eq!(micros(&text), Ok(value));
    }
}
