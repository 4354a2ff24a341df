//! BSON → canonical Extended JSON (MongoDB specification "Extended JSON", v2): every type is told
//! from every other, every field is in its place, and nothing is rounded.
//!
//! Two things the format itself can't tell: an embedded document that looks like a type wrapper
//! (`{"$oid": "…"}`), and one of several NaNs or Decimal128s that mean the same number.

use std::fmt::Write;

use ::mongodb::bson::Decimal128;

use super::element::{
    ARRAY, BINARY, BOOL, CODE, CODE_WITH_SCOPE, DATE, DB_POINTER, DECIMAL, DOCUMENT, DOUBLE,
    Element, Elements, INT32, INT64, MAX_KEY, MIN_KEY, Malformed, NULL, OBJECT_ID, REGEX, STRING,
    SYMBOL, TIMESTAMP, UNDEFINED, fixed, regex, string, string_size,
};

/// How deep documents may be nested; the server allows 180.
const DEPTH: usize = 250;

/// Appends `bson` as JSON.
///
/// # Errors
/// When it is malformed; what was appended then means nothing.
pub fn document(bson: &[u8], out: &mut String) -> Result<(), Malformed> {
    nested(bson, false, DEPTH, out)
}

/// Appends the value of `element` as JSON.
///
/// # Errors
/// As [`document`].
pub fn value(element: &Element<'_>, out: &mut String) -> Result<(), Malformed> {
    at_depth(element, DEPTH, out)
}

fn nested(bson: &[u8], array: bool, depth: usize, out: &mut String) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed("documents are nested too deeply"))?;
    out.push(if array { '[' } else { '{' });
    let mut first = true;
    for element in Elements::new(bson)? {
        let element = element?;
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        if !array {
            quoted(element.name, out);
            out.push(':');
        }
        at_depth(&element, depth, out)?;
    }
    out.push(if array { ']' } else { '}' });
    Ok(())
}

fn at_depth(element: &Element<'_>, depth: usize, out: &mut String) -> Result<(), Malformed> {
    let bytes = element.value;
    match element.kind {
        STRING => quoted(element.text()?, out),
        DOCUMENT => nested(bytes, false, depth, out)?,
        ARRAY => nested(bytes, true, depth, out)?,
        NULL => out.push_str("null"),
        BOOL => out.push_str(boolean(bytes)?),
        INT32 => wrapped("$numberInt", i32::from_le_bytes(fixed(bytes)), out),
        INT64 => wrapped("$numberLong", i64::from_le_bytes(fixed(bytes)), out),
        DOUBLE => wrapped("$numberDouble", double(f64::from_le_bytes(fixed(bytes))), out),
        DECIMAL => wrapped("$numberDecimal", decimal(bytes), out),
        DATE => {
            let millis = i64::from_le_bytes(fixed(bytes));
            put(out, format_args!("{{\"$date\":{{\"$numberLong\":\"{millis}\"}}}}"));
        }
        OBJECT_ID => {
            out.push_str("{\"$oid\":\"");
            hex(bytes, out);
            out.push_str("\"}");
        }
        BINARY => {
            let (subtype, bytes) = element.binary().ok_or(Malformed("binData has no subtype"))?;
            out.push_str("{\"$binary\":{\"base64\":\"");
            base64(bytes, out);
            put(out, format_args!("\",\"subType\":\"{subtype:02x}\"}}}}"));
        }
        _ => rare(element, depth, out)?,
    }
    Ok(())
}

/// The types that documents seldom hold.
fn rare(element: &Element<'_>, depth: usize, out: &mut String) -> Result<(), Malformed> {
    let bytes = element.value;
    match element.kind {
        REGEX => {
            let (pattern, options) = regex(bytes)?;
            out.push_str("{\"$regularExpression\":{\"pattern\":");
            quoted(pattern, out);
            out.push_str(",\"options\":");
            quoted(options, out);
            out.push_str("}}");
        }
        TIMESTAMP => {
            let (t, i) = element.timestamp().unwrap_or_default();
            put(out, format_args!("{{\"$timestamp\":{{\"t\":{t},\"i\":{i}}}}}"));
        }
        CODE => named("$code", element.text()?, out),
        SYMBOL => named("$symbol", element.text()?, out),
        CODE_WITH_SCOPE => {
            let bytes = bytes.get(4..).unwrap_or_default();
            let size = string_size(bytes).ok_or(Malformed("a code has no end"))?;
            out.push_str("{\"$code\":");
            quoted(string(bytes)?, out);
            out.push_str(",\"$scope\":");
            nested(bytes.get(size..).unwrap_or_default(), false, depth, out)?;
            out.push('}');
        }
        DB_POINTER => {
            let size = string_size(bytes).ok_or(Malformed("a pointer has no end"))?;
            out.push_str("{\"$dbPointer\":{\"$ref\":");
            quoted(string(bytes)?, out);
            out.push_str(",\"$id\":{\"$oid\":\"");
            hex(bytes.get(size..).unwrap_or_default(), out);
            out.push_str("\"}}}");
        }
        UNDEFINED => out.push_str("{\"$undefined\":true}"),
        MIN_KEY => out.push_str("{\"$minKey\":1}"),
        MAX_KEY => out.push_str("{\"$maxKey\":1}"),
        _ => return Err(Malformed("a value has an unknown type")),
    }
    Ok(())
}

fn boolean(bytes: &[u8]) -> Result<&'static str, Malformed> {
    match bytes {
        [0] => Ok("false"),
        [1] => Ok("true"),
        _ => Err(Malformed("a bool is neither true nor false")),
    }
}

/// The text of a double: the shortest that reads back to it.
pub(super) fn double(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => format!("{value:?}"),
    }
}

/// The text of the 16 bytes of a Decimal128, with every digit and the exponent.
pub(super) fn decimal(bytes: &[u8]) -> String {
    Decimal128::from_bytes(fixed(bytes)).to_string()
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = out.write_fmt(text);
}

fn wrapped(name: &str, value: impl std::fmt::Display, out: &mut String) {
    put(out, format_args!("{{\"{name}\":\"{value}\"}}"));
}

fn named(name: &str, text: &str, out: &mut String) {
    put(out, format_args!("{{\"{name}\":"));
    quoted(text, out);
    out.push('}');
}

/// Appends two hex digits a byte.
pub(super) fn hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Appends `bytes` in base 64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= chunk.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63])),
                false => out.push('='),
            }
        }
    }
}

/// Appends `text` in quotes (RFC 8259, section 7).
pub(super) fn quoted(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        // Each of them is one byte.
        match special.as_bytes().first().copied().unwrap_or_default() {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte => put(out, format_args!("\\u{byte:04x}")),
        }
        rest = special.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document as bson, text};
    use super::*;

    fn json(kind: u8, value: Vec<u8>) -> String {
        let mut out = String::new();
        document(&bson(&[(kind, "x", value)]), &mut out).unwrap();
        out
    }

    #[test]
    fn every_type_is_told_from_every_other() {
        let cases: Vec<(u8, Vec<u8>, &str)> = vec![
            (INT32, 1_i32.to_le_bytes().to_vec(), r#"{"$numberInt":"1"}"#),
            (INT64, i64::MIN.to_le_bytes().to_vec(), r#"{"$numberLong":"-9223372036854775808"}"#),
            (DOUBLE, 1_f64.to_le_bytes().to_vec(), r#"{"$numberDouble":"1.0"}"#),
            (DOUBLE, (-0_f64).to_le_bytes().to_vec(), r#"{"$numberDouble":"-0.0"}"#),
            (DOUBLE, f64::NAN.to_le_bytes().to_vec(), r#"{"$numberDouble":"NaN"}"#),
            (DOUBLE, f64::NEG_INFINITY.to_le_bytes().to_vec(), r#"{"$numberDouble":"-Infinity"}"#),
            (DATE, (-1_i64).to_le_bytes().to_vec(), r#"{"$date":{"$numberLong":"-1"}}"#),
            (OBJECT_ID, vec![0xab; 12], r#"{"$oid":"abababababababababababab"}"#),
            (NULL, vec![], "null"),
            (BOOL, vec![1], "true"),
            (STRING, text("a\"\\\u{1}\n"), r#""a\"\\\u0001\n""#),
            (
                REGEX,
                b"^a/b\0ix\0".to_vec(),
                r#"{"$regularExpression":{"pattern":"^a/b","options":"ix"}}"#,
            ),
            (TIMESTAMP, vec![255; 8], r#"{"$timestamp":{"t":4294967295,"i":4294967295}}"#),
            (MIN_KEY, vec![], r#"{"$minKey":1}"#),
            (MAX_KEY, vec![], r#"{"$maxKey":1}"#),
            (UNDEFINED, vec![], r#"{"$undefined":true}"#),
            (SYMBOL, text("s"), r#"{"$symbol":"s"}"#),
            (CODE, text("f()"), r#"{"$code":"f()"}"#),
        ];
        for (kind, value, wanted) in cases {
            assert_eq!(json(kind, value), format!("{{\"x\":{wanted}}}"), "type {kind:#04x}");
        }
    }

    #[test]
    fn binary_keeps_its_subtype() {
        let binary = |subtype: u8, bytes: &[u8]| {
            let mut value = (bytes.len() as i32).to_le_bytes().to_vec();
            value.push(subtype);
            value.extend(bytes);
            json(BINARY, value)
        };
        assert_eq!(binary(0, &[0, 255]), r#"{"x":{"$binary":{"base64":"AP8=","subType":"00"}}}"#);
        assert_eq!(binary(128, b""), r#"{"x":{"$binary":{"base64":"","subType":"80"}}}"#);
        assert_eq!(binary(4, &[2; 3]), r#"{"x":{"$binary":{"base64":"AgIC","subType":"04"}}}"#);
        assert_eq!(
            binary(2, &[1, 0, 0, 0, 7]),
            r#"{"x":{"$binary":{"base64":"Bw==","subType":"02"}}}"#
        );
    }

    #[test]
    fn a_decimal_keeps_every_digit() {
        for text in [
            "1.10",
            "-0",
            "NaN",
            "Infinity",
            "1E-6176",
            "0E+3",
            "9.999999999999999999999999999999999E+6144",
            "1234567890123456789012345678901234",
        ] {
            let bytes = text.parse::<Decimal128>().unwrap().bytes();
            assert_eq!(decimal(&bytes), text);
        }
    }

    #[test]
    fn order_and_repetition_of_names_are_kept() {
        let one = 1_i32.to_le_bytes().to_vec();
        let inner = bson(&[(INT32, "b", one.clone()), (INT32, "a", one.clone())]);
        let bytes = bson(&[(INT32, "k", one.clone()), (DOCUMENT, "d", inner), (INT32, "k", one)]);
        let mut out = String::new();
        document(&bytes, &mut out).unwrap();
        let number = r#"{"$numberInt":"1"}"#;
        let wanted = format!(r#"{{"k":{number},"d":{{"b":{number},"a":{number}}},"k":{number}}}"#);
        assert_eq!(out, wanted);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut bytes = bson(&[(NULL, "leaf", vec![])]);
        for _ in 0..180 {
            bytes = bson(&[(DOCUMENT, "n", bytes)]);
        }
        assert!(document(&bytes, &mut String::new()).is_ok());
        for _ in 0..100 {
            bytes = bson(&[(DOCUMENT, "n", bytes)]);
        }
        assert!(document(&bytes, &mut String::new()).is_err());
    }
}
