//! The stream and the snapshot say the same of the same rows, for every type.

use super::*;

/// Columns that both servers have, with values that try them.
const COMMON: &[(&str, &[&str])] = &[
    ("tinyint", &["-128", "127"]),
    ("tinyint unsigned", &["0", "255"]),
    ("tinyint(1)", &["2", "-1"]),
    ("smallint", &["-32768", "32767"]),
    ("smallint unsigned", &["65535", "1"]),
    ("mediumint", &["-8388608", "8388607"]),
    ("mediumint unsigned", &["16777215", "1"]),
    ("int(5) zerofill", &["42", "4294967295"]),
    ("int", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("bigint unsigned", &["18446744073709551615", "9223372036854775808"]),
    ("decimal(10,2)", &["-12345678.90", "0.05"]),
    ("decimal(38,30)", &["12345678.000000000000000000000000000001", "-0.1"]),
    (
        "decimal(65,30)",
        &["-99999999999999999999999999999999999.999999999999999999999999999999", "0"],
    ),
    ("decimal(9,9)", &["0.123456789", "-0.000000001"]),
    ("float", &["0.1", "-3.4028235e38", "1.17549435e-38", "16777217"]),
    ("double", &["0.30000000000000004", "-1.7976931348623157e308", "5e-324", "-0e0"]),
    ("double(10,2)", &["1234567.89", "-0.05"]),
    ("bit(1)", &["b'1'", "b'0'"]),
    ("bit(9)", &["b'100000001'", "b'0'"]),
    ("bit(64)", &["b'1111111111111111111111111111111111111111111111111111111111111111'", "b'1'"]),
    ("year", &["0", "1901", "2155"]),
    ("date", &["'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'1969-12-31'"]),
    ("time", &["'-838:59:59'", "'838:59:59'", "'00:00:00'"]),
    ("time(1)", &["'-00:00:00.1'", "'23:59:59.9'"]),
    ("time(6)", &["'-12:34:56.000001'", "'01:02:03.999999'"]),
    ("datetime", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'"]),
    ("datetime(3)", &["'2024-02-29 23:59:59.123'", "'0001-01-01 00:00:00.001'"]),
    ("datetime(6)", &["'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.000001'"]),
    ("timestamp null", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"]),
    ("timestamp(2) null", &["'2001-09-09 01:46:40.25'", "'1970-01-01 00:00:01.01'"]),
    ("timestamp(6) null", &["'2038-01-19 03:14:07.999999'", "'2000-01-01 00:00:00.000001'"]),
    ("char(5)", &["'a  '", "''"]),
    ("varchar(300)", &["'Grüße 😀'", "repeat('x', 300)", "''"]),
    ("varchar(20) character set latin1", &["'café €'", "''"]),
    ("varchar(20) character set cp1251", &["'Привет'", "'~\\\\'"]),
    ("varchar(20) character set gbk", &["'你好'", "'a\\\\b'"]),
    ("varchar(20) character set sjis", &["'日本'", "'ｶﾅ'"]),
    ("varchar(20) character set big5", &["'中文'", "''"]),
    ("varchar(20) character set euckr", &["'한글'", "''"]),
    ("varchar(20) character set utf16", &["'né😀'", "''"]),
    ("varchar(20) character set utf32", &["'né😀'", "''"]),
    ("varchar(20) character set ucs2", &["'né'", "''"]),
    ("text character set latin1", &["'ÿþ'", "''"]),
    ("longtext", &["repeat('é', 70000)", "''"]),
    ("binary(4)", &["x'00ff0000'", "x'00000000'", "''"]),
    ("varbinary(8)", &["x'00ff8000'", "''"]),
    ("blob", &["x'0001'", "''"]),
    ("enum('active','in,active','it''s','')", &["'it''s'", "''", "'in,active'"]),
    ("enum('café','plain') character set latin1", &["'café'", "'plain'"]),
    ("set('a','b','c d')", &["'a,c d'", "''", "'c d,b,a'"]),
    ("geometry", &["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')"]),
    ("int as (1 + 1) stored", &["default"]),
    ("int as (2 + 2) virtual", &["default"]),
];

const MYSQL: &[(&str, &[&str])] = &[
    (
        "json",
        &[
            r#"'{"a": 1, "bc": [true, null, "x\\u0001\\n\\"é😀"], "d": {"e": {}}, "f": []}'"#,
            "'[1.0, -0.5, 1e20, 1e15, 1e14, 123456789012345680, 1.5e-10, 1e-15, 1e-16, 5e-324, 1.7976931348623157e308]'",
            "'[18446744073709551615, -9223372036854775808, 65535, 65536, -32768, -32769, 2147483648]'",
            "json_array(cast('2024-02-29 10:00:00.5' as datetime(6)), cast('10:00:00' as time), \
         cast('-10:00:00.25' as time(2)), cast('2024-02-29' as date), cast(1.50 as decimal(10,2)), \
         cast(-0.05 as decimal(40,20)))",
            "json_array(repeat('x', 70000), 1, 2147483647, 4294967295)",
            "json_object('key', repeat('y', 70000), 'n', 70000, 'b', true)",
            "'\"text\"'",
            "'7'",
            "'null'",
        ],
    ),
    ("vector(3)", &["string_to_vector('[1,2,3]')"]),
];

const MARIADB: &[(&str, &[&str])] = &[
    ("uuid", &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"]),
    (
        "inet6",
        &["'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.128'", "'::'", "'::1'", "'::1.2.3.4'"],
    ),
    ("inet4", &["'192.0.2.128'", "'0.0.0.0'"]),
    ("json", &["'{\"b\": 1,  \"a\":2}'"]),
];

#[test]
fn stream_and_snapshot_say_the_same() {
    on_servers("types", |bed| async move {
        let more = if bed.flavor == Flavor::MySql { MYSQL } else { MARIADB };
        let columns: Vec<_> = COMMON.iter().chain(more).collect();
        let mut admin = bed.admin().await;
        let defined: Vec<_> =
            columns.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind}")).collect();
        run(&mut admin, &[&format!("CREATE TABLE t (id int primary key, {})", defined.join(", "))])
            .await;
        let longest = columns.iter().map(|(_, values)| values.len()).max().unwrap();
        let insert = |from: usize, row: usize| {
            let value = |(kind, values): &&(&str, &[&str])| match values.get(row) {
                _ if kind.contains(" as (") => "default".to_owned(),
                Some(value) => (*value).to_owned(),
                None => "null".to_owned(),
            };
            let values: Vec<_> = columns.iter().map(value).collect();
            format!("INSERT INTO t VALUES ({}, {})", from + row, values.join(", "))
        };
        for row in 0..=longest {
            run(&mut admin, &[&insert(0, row)]).await;
        }
        let mut source = MySql::new(bed.options()).unwrap();
        let mut stream = follow(&mut source).await;
        for row in 0..=longest {
            run(&mut admin, &[&insert(0, row).replacen("INSERT", "REPLACE", 1)]).await;
        }
        let mut said = Said::default();
        let commits = |said: &Said| said.lines.iter().filter(|line| *line == "commit").count();
        said.read(&mut stream, |said| commits(said) > longest).await;
        let table = tables(&mut source).await["t"].clone();
        let mut reader = source.reader(1 << 20).await.unwrap();
        let read = chunk(&mut reader, &table, Rows::Next(Range::default())).await.unwrap();
        assert!(said.position.as_ref().unwrap().covers(&read.high));
        assert_eq!(read.rows.len(), longest + 1);
        let mut live: Vec<_> = said.lines.iter().filter(|line| *line != "commit").collect();
        live.retain(|line| line.starts_with("insert") || line.starts_with("update"));
        assert_eq!(live.len(), longest + 1, "{:#?}", said.lines);
        for (live, read) in live.iter().zip(&read.rows) {
            let (live, read) = (live.split_once(' ').unwrap().1, read.split_once(' ').unwrap().1);
            if live != read {
                panic!(
                    "{:?}\nlive {}\nread {}",
                    bed.flavor,
                    first_difference(live, read),
                    first_difference(read, live)
                );
            }
        }
    });
}

fn first_difference<'a>(a: &'a str, b: &str) -> &'a str {
    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let from =
        (0..=at.saturating_sub(60)).rev().find(|from| a.is_char_boundary(*from)).unwrap_or(0);
    let to = (at + 60..=a.len().max(at + 60)).find(|to| a.is_char_boundary(*to)).unwrap_or(a.len());
    a.get(from..to.min(a.len())).unwrap_or(a)
}
