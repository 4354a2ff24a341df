//! JSON as the log holds it → the text that the server itself writes for it (MySQL source
//! documentation, `json_binary.h` for the form, `json_dom.cc` for the text).

use std::fmt::Write;

use super::image::{code, decimal_text_of, unpacked, unpacked_time};
use super::input::Input;
use super::values::Misfit;
use crate::patch::{Edit, Patch, Style};

/// The server refuses documents that are nested deeper.
const DEEPEST: usize = 100;

/// The text of a document.
///
/// # Errors
/// [`Misfit::Opaque`] for a value of a type that JSON has not, other than numbers and times;
/// [`Misfit::Form`] for what is no document.
pub fn text(document: &[u8]) -> Result<String, Misfit> {
    let mut out = String::with_capacity(document.len());
    match document.split_first() {
        // An empty value, which IGNORE can store in a column that is not null.
        None => out.push_str("null"),
        Some((kind, body)) => put(*kind, body, 0, &mut out)?,
    }
    Ok(out)
}

/// What changed in a document, as a patch of its text (MySQL source documentation, `json_diff.h`): for
/// each change an operation, a path after its length, and but for a removal a value after its length.
///
/// # Errors
/// As [`text`].
pub fn patch(changes: &[u8]) -> Result<String, Misfit> {
    let mut patch = Patch::new(Style::Spaced);
    let mut input = Input(changes);
    while let Some(operation) = input.u8() {
        let edit = match operation {
            0 => Edit::Replace,
            1 => Edit::Insert,
            2 => Edit::Remove,
            _ => return Err(Misfit::Form),
        };
        let path = input.counted().and_then(|path| std::str::from_utf8(path).ok());
        let path = path.and_then(steps).ok_or(Misfit::Form)?;
        let value = match edit {
            Edit::Remove => None,
            _ => Some(text(input.counted().ok_or(Misfit::Form)?)?),
        };
        patch.edit(edit, &path, value.as_deref());
    }
    Ok(patch.finish())
}

/// A path as a patch has it: `.a."b c"[2]`, with or without its `$`.
fn steps(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut out = String::from("[");
    while let Some(first) = rest.chars().next() {
        out.push_str(if out.len() == 1 { "" } else { "," });
        rest = rest.get(1..)?;
        if first == '[' {
            let (item, after) = rest.split_once(']')?;
            out.push_str(&item.parse::<u32>().ok()?.to_string());
            rest = after;
            continue;
        }
        if first != '.' {
            return None;
        }
        let name = match rest.starts_with('"') {
            true => {
                let mut names = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let name = names.next()?.ok()?;
                rest = rest.get(names.byte_offset()..)?;
                name
            }
            false => {
                let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
                rest = after;
                name.to_owned()
            }
        };
        put_string(&name, &mut out);
    }
    out.push(']');
    Some(out)
}

fn put(kind: u8, body: &[u8], depth: usize, out: &mut String) -> Result<(), Misfit> {
    if depth > DEEPEST + 1 {
        return Err(Misfit::Form);
    }
    let mut input = Input(body);
    let signed = |bytes: usize| {
        let number = Input(body).unsigned(bytes)?;
        let unused = 64 - 8 * bytes as u32;
        Some((number << unused) as i64 >> unused)
    };
    match kind {
        0..=3 => return container(kind, body, depth, out),
        4 => out.push_str(match input.u8().ok_or(Misfit::Form)? {
            0 => "null",
            1 => "true",
            2 => "false",
            _ => return Err(Misfit::Form),
        }),
        5 | 7 | 9 => {
            let bytes = match kind {
                5 => 2,
                7 => 4,
                _ => 8,
            };
            write!(out, "{}", signed(bytes).ok_or(Misfit::Form)?).map_err(|_| Misfit::Form)?;
        }
        6 | 8 | 10 => {
            let bytes = match kind {
                6 => 2,
                8 => 4,
                _ => 8,
            };
            let number = input.unsigned(bytes).ok_or(Misfit::Form)?;
            write!(out, "{number}").map_err(|_| Misfit::Form)?;
        }
        11 => {
            let bits = input.u64().ok_or(Misfit::Form)?;
            put_double(f64::from_bits(bits), out).ok_or(Misfit::Form)?;
        }
        12 => {
            let text = counted(&mut input).ok_or(Misfit::Form)?;
            put_string(std::str::from_utf8(text).map_err(|_| Misfit::Encoding)?, out);
        }
        15 => {
            let kind = input.u8().ok_or(Misfit::Form)?;
            let value = counted(&mut input).ok_or(Misfit::Form)?;
            put_opaque(kind, value, out)?;
        }
        _ => return Err(Misfit::Form),
    }
    Ok(())
}

/// An object or array, small (offsets of two bytes) or large (of four).
fn container(kind: u8, body: &[u8], depth: usize, out: &mut String) -> Result<(), Misfit> {
    let (large, object) = (kind & 1 == 1, kind < 2);
    let width = if large { 4 } else { 2 };
    let mut input = Input(body);
    let mut number = || Some(input.unsigned(width)? as usize);
    let (count, size) = number().zip(number()).ok_or(Misfit::Form)?;
    let body = body.get(..size).ok_or(Misfit::Form)?;
    let keys = 2 * width;
    let values = keys + if object { count.saturating_mul(width + 2) } else { 0 };
    out.push(if object { '{' } else { '[' });
    for at in 0..count {
        if at > 0 {
            out.push_str(", ");
        }
        if object {
            let key = key(body, keys + at * (width + 2), width).ok_or(Misfit::Form)?;
            put_string(std::str::from_utf8(key).map_err(|_| Misfit::Encoding)?, out);
            out.push_str(": ");
        }
        let entry = body.get(values + at * (width + 1)..).ok_or(Misfit::Form)?;
        let (kind, place) = entry.split_first().ok_or(Misfit::Form)?;
        let inlined = matches!(kind, 4..=6) || (large && matches!(kind, 7 | 8));
        match inlined {
            true => put(*kind, place, depth + 1, out)?,
            false => {
                let offset = Input(place).unsigned(width).ok_or(Misfit::Form)? as usize;
                // A value lies behind the entries, so that none can hold itself.
                let value = body.get(offset..).filter(|_| offset > values).ok_or(Misfit::Form)?;
                put(*kind, value, depth + 1, out)?;
            }
        }
    }
    out.push(if object { '}' } else { ']' });
    Ok(())
}

fn key(body: &[u8], entry: usize, width: usize) -> Option<&[u8]> {
    let mut input = Input(body.get(entry..)?);
    let offset = input.unsigned(width)? as usize;
    let length = usize::from(input.u16()?);
    body.get(offset..)?.get(..length)
}

/// Bytes after their number, seven bits of which are in each byte.
fn counted<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    let mut length = 0_u64;
    for at in 0..5 {
        let byte = input.u8()?;
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return input.bytes(usize::try_from(length).ok()?);
        }
    }
    None
}

fn put_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control @ '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The shortest digits that read back as the same number. Numbers of more than 15 digits before
/// the point, or 14 zeros behind it, have an exponent; the others always have a point.
fn put_double(value: f64, out: &mut String) -> Option<()> {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if value != 0.0 && !(-15..15).contains(&exponent) {
        out.push_str(mantissa);
        write!(out, "e{exponent}").ok()?;
        return Some(());
    }
    write!(out, "{value}").ok()?;
    if value.fract() == 0.0 {
        out.push_str(".0");
    }
    Some(())
}

/// A value of one of the server's own types, by its number.
fn put_opaque(kind: u8, value: &[u8], out: &mut String) -> Result<(), Misfit> {
    let mut input = Input(value);
    let text = match kind {
        code::NEWDECIMAL => {
            let number = (|| {
                let (precision, scale) = (input.u8()?, input.u8()?);
                decimal_text_of(input.rest(), precision, scale)
            })();
            out.push_str(&number.ok_or(Misfit::Form)?);
            return Ok(());
        }
        code::DATE => unpacked(input.u64().ok_or(Misfit::Form)?).0.to_string(),
        code::DATETIME | code::TIMESTAMP => {
            let (date, time) = unpacked(input.u64().ok_or(Misfit::Form)?);
            format!("{date} {}", time.text(6))
        }
        code::TIME => {
            let packed = input.u64().ok_or(Misfit::Form)? as i64;
            let sign = if packed < 0 { "-" } else { "" };
            format!("{sign}{}", unpacked_time(packed.unsigned_abs()).text(6))
        }
        _ => return Err(Misfit::Opaque),
    };
    put_string(&text, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn double(value: f64) -> String {
        let mut out = String::new();
        put_double(value, &mut out).unwrap();
        out
    }

    #[test]
    fn numbers_are_written_as_the_server_writes_them() {
        let written = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1.5e300, "1.5e300"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (123_456.789, "123456.789"),
        ];
        for (value, text) in written {
            assert_eq!(double(value), text);
        }
    }

    /// `{"a": 1, "bc": "x"}` in the small form.
    const SMALL: &[u8] =
        b"\x00\x02\x00\x18\x00\x12\x00\x01\x00\x13\x00\x02\x00\x05\x01\x00\x0c\x15\x00abc\x01x\x00";

    #[test]
    fn objects_and_arrays_are_read() {
        assert_eq!(text(&SMALL[..SMALL.len()]).as_deref(), Ok("{\"a\": 1, \"bc\": \"x\"}"));
        assert_eq!(text(b"\x02\x00\x00\x04\x00").as_deref(), Ok("[]"));
        assert_eq!(
            text(b"\x02\x02\x00\x0a\x00\x04\x00\x00\x04\x01\x00").as_deref(),
            Ok("[null, true]")
        );
        assert_eq!(text(b"").as_deref(), Ok("null"));
        assert_eq!(text(b"\x0c\x03a\"\n").as_deref(), Ok("\"a\\\"\\n\""));
    }

    #[test]
    fn changes_become_a_patch() {
        let changes = [
            &[0, 2][..],
            b".a",
            &[3, 5, 7, 0],
            &[1, 10],
            b".\"b c\"[12]",
            &[3, 12, 1, b'x'],
            &[2, 6],
            b"$[0].d",
        ];
        let wanted =
            r#"["spaced",["replace",["a"],7],["insert",["b c",12],"x"],["remove",[0,"d"]]]"#;
        assert_eq!(patch(&changes.concat()).as_deref(), Ok(wanted));
        for broken in [&b"\x03\x01$"[..], b"\x02\x09$", b"\x02\x02$x", b"\x00\x01$", b"\x02\x02.\""]
        {
            assert_eq!(patch(broken), Err(Misfit::Form), "{broken:?}");
        }
    }

    #[test]
    fn an_array_that_holds_itself_is_refused() {
        assert_eq!(text(b"\x02\x01\x00\x07\x00\x02\x00\x00"), Err(Misfit::Form));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0_u8..16, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut document = vec![kind];
            document.extend(bytes);
            let _ = text(&document);
            let _ = patch(document.get(1..).unwrap_or_default());
        }
    }
}
