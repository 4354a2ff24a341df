//! BSON as bytes: the elements of a document, borrowed (bsonspec.org, version 1.1).
//!
//! Everything between the wire and the Arrow builders walks documents with [`Elements`], so that
//! nothing is copied or converted on the way and a name that comes twice stays twice. The bytes come
//! from a server, and may still be malformed: then they are an error, never a guess.

use std::fmt;

/// `double`.
pub const DOUBLE: u8 = 0x01;
/// `string`.
pub const STRING: u8 = 0x02;
/// `object`.
pub const DOCUMENT: u8 = 0x03;
/// `array`.
pub const ARRAY: u8 = 0x04;
/// `binData`.
pub const BINARY: u8 = 0x05;
/// `undefined`, deprecated.
pub const UNDEFINED: u8 = 0x06;
/// `objectId`.
pub const OBJECT_ID: u8 = 0x07;
/// `bool`.
pub const BOOL: u8 = 0x08;
/// `date`: milliseconds of Unix time.
pub const DATE: u8 = 0x09;
/// `null`.
pub const NULL: u8 = 0x0a;
/// `regex`.
pub const REGEX: u8 = 0x0b;
/// `dbPointer`, deprecated.
pub const DB_POINTER: u8 = 0x0c;
/// `javascript`.
pub const CODE: u8 = 0x0d;
/// `symbol`, deprecated.
pub const SYMBOL: u8 = 0x0e;
/// `javascriptWithScope`, deprecated.
pub const CODE_WITH_SCOPE: u8 = 0x0f;
/// `int`.
pub const INT32: u8 = 0x10;
/// `timestamp`: of the log, not of the calendar.
pub const TIMESTAMP: u8 = 0x11;
/// `long`.
pub const INT64: u8 = 0x12;
/// `decimal`.
pub const DECIMAL: u8 = 0x13;
/// `maxKey`.
pub const MAX_KEY: u8 = 0x7f;
/// `minKey`.
pub const MIN_KEY: u8 = 0xff;

/// What is wrong with some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// One element of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its type, one of this module's constants.
    pub kind: u8,
    /// Its name; in an array, the decimal index.
    pub name: &'a str,
    /// Its value, as it stands in the document.
    pub value: &'a [u8],
    /// Where in the document the value begins.
    pub at: usize,
}

/// The elements of one document, in order.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    document: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    /// The elements of `document`, which is one document and nothing else.
    ///
    /// # Errors
    /// When its length isn't what it says, or its end isn't marked.
    pub fn new(document: &'a [u8]) -> Result<Self, Malformed> {
        let said = length(document).ok_or(Malformed("a document ends before its length"))?;
        if said != document.len() || document.last() != Some(&0) {
            return Err(Malformed("a document has another length than it says"));
        }
        Ok(Self { document, at: 4 })
    }

    fn read(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let rest = self.document.get(self.at..).unwrap_or_default();
        let (&kind, rest) = rest.split_first().ok_or(Malformed("a document has no end"))?;
        if kind == 0 {
            return match rest.is_empty() {
                true => Ok(None),
                false => Err(Malformed("a document ends before its length")),
            };
        }
        let name = cstring(rest).ok_or(Malformed("a field's name has no end"))?;
        let value = rest.get(name.len() + 1..).unwrap_or_default();
        let size = size(kind, value)?;
        // The last byte is the document's own end.
        let value = value.get(..size).filter(|_| value.len() > size);
        let value = value.ok_or(Malformed("a value is longer than its document"))?;
        let name =
            std::str::from_utf8(name).map_err(|_| Malformed("a field's name isn't UTF-8"))?;
        let at = self.at + 1 + name.len() + 1;
        self.at = at + size;
        Ok(Some(Element { kind, name, value, at }))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            // What follows a fault means nothing; an empty rest ends the walk.
            self.document = &[0];
            self.at = 0;
        }
        read.transpose()
    }
}

/// The first element of `document` called `name`.
///
/// # Errors
/// When the document is malformed before it.
pub fn find<'a>(document: &'a [u8], name: &str) -> Result<Option<Element<'a>>, Malformed> {
    for element in Elements::new(document)? {
        let element = element?;
        if element.name == name {
            return Ok(Some(element));
        }
    }
    Ok(None)
}

impl<'a> Element<'a> {
    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        self.kind == NULL
    }

    /// The text of a `string`, `javascript` or `symbol`.
    ///
    /// # Errors
    /// When it isn't UTF-8.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        string(self.value)
    }

    /// The document or array that the value is.
    pub fn document(&self) -> Option<&'a [u8]> {
        matches!(self.kind, DOCUMENT | ARRAY).then_some(self.value)
    }

    /// The value of an `int`.
    pub fn int32(&self) -> Option<i32> {
        (self.kind == INT32).then(|| i32::from_le_bytes(fixed(self.value)))
    }

    /// The value of an `int` or a `long`.
    pub fn integer(&self) -> Option<i64> {
        match self.kind {
            INT32 => Some(i32::from_le_bytes(fixed(self.value)).into()),
            INT64 => Some(i64::from_le_bytes(fixed(self.value))),
            _ => None,
        }
    }

    /// The value of a `double`.
    pub fn double(&self) -> Option<f64> {
        (self.kind == DOUBLE).then(|| f64::from_le_bytes(fixed(self.value)))
    }

    /// Milliseconds of Unix time of a `date`.
    pub fn date(&self) -> Option<i64> {
        (self.kind == DATE).then(|| i64::from_le_bytes(fixed(self.value)))
    }

    /// Seconds and ordinal of a `timestamp`.
    pub fn timestamp(&self) -> Option<(u32, u32)> {
        if self.kind != TIMESTAMP {
            return None;
        }
        let both = u64::from_le_bytes(fixed(self.value));
        Some(((both >> 32) as u32, both as u32))
    }

    /// Subtype and bytes of a `binData`. In the old form (subtype 2) the bytes carry their length
    /// once more (bsonspec.org, note on subtype 2), which is left out.
    pub fn binary(&self) -> Option<(u8, &'a [u8])> {
        if self.kind != BINARY {
            return None;
        }
        let (&subtype, bytes) = self.value.get(4..)?.split_first()?;
        let bytes = match subtype {
            2 if length(bytes) == bytes.len().checked_sub(4) => bytes.get(4..)?,
            _ => bytes,
        };
        Some((subtype, bytes))
    }
}

/// The bytes of a value of known size; [`Elements`] has checked it.
pub(super) fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
    value.first_chunk().copied().unwrap_or([0; N])
}

/// Pattern and options of a `regex`.
///
/// # Errors
/// When one isn't UTF-8.
pub(super) fn regex(value: &[u8]) -> Result<(&str, &str), Malformed> {
    let pattern = cstring(value).unwrap_or_default();
    let options = cstring(value.get(pattern.len() + 1..).unwrap_or_default()).unwrap_or_default();
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("a regex isn't UTF-8"));
    Ok((utf8(pattern)?, utf8(options)?))
}

/// The text of a `string`, whose bytes begin with its length and end in a zero.
///
/// # Errors
/// When it isn't UTF-8.
pub(super) fn string(value: &[u8]) -> Result<&str, Malformed> {
    let end = length(value).and_then(|length| (4 + length).checked_sub(1));
    let bytes = end.and_then(|end| value.get(4..end)).ok_or(Malformed("a string has no end"))?;
    std::str::from_utf8(bytes).map_err(|_| Malformed("a string isn't UTF-8"))
}

/// How long a `string` at the beginning of `value` is, with its length and its zero.
pub(super) fn string_size(value: &[u8]) -> Option<usize> {
    4_usize.checked_add(length(value).filter(|length| *length > 0)?)
}

fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

fn cstring(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..memchr::memchr(0, bytes)?)
}

/// How many bytes the value at the beginning of `rest` takes.
fn size(kind: u8, rest: &[u8]) -> Result<usize, Malformed> {
    let size = match kind {
        DOUBLE | DATE | TIMESTAMP | INT64 => Some(8),
        STRING | CODE | SYMBOL => string_size(rest),
        DOCUMENT | ARRAY => length(rest).filter(|length| *length >= 5),
        CODE_WITH_SCOPE => length(rest).filter(|length| *length >= 14),
        BINARY => length(rest).and_then(|length| length.checked_add(5)),
        UNDEFINED | NULL | MAX_KEY | MIN_KEY => Some(0),
        OBJECT_ID => Some(12),
        BOOL => Some(1),
        INT32 => Some(4),
        DECIMAL => Some(16),
        DB_POINTER => string_size(rest).and_then(|size| size.checked_add(12)),
        REGEX => cstring(rest).and_then(|pattern| {
            let options = cstring(rest.get(pattern.len() + 1..)?)?;
            Some(pattern.len() + options.len() + 2)
        }),
        _ => return Err(Malformed("a value has an unknown type")),
    };
    size.ok_or(Malformed("a value has no sound length"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A document of these elements: type, name and bytes of the value.
    pub(in crate::mongodb) fn document(elements: &[(u8, &str, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, name, value) in elements {
            body.push(*kind);
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(value);
        }
        let mut out = (body.len() as i32 + 5).to_le_bytes().to_vec();
        out.extend(body);
        out.push(0);
        out
    }

    /// The bytes of a `string`.
    pub(in crate::mongodb) fn text(text: &str) -> Vec<u8> {
        let mut out = (text.len() as i32 + 1).to_le_bytes().to_vec();
        out.extend(text.as_bytes());
        out.push(0);
        out
    }

    #[test]
    fn elements_come_in_order_and_as_often_as_they_are_there() {
        let bytes = document(&[
            (INT32, "b", 1_i32.to_le_bytes().to_vec()),
            (STRING, "a", text("x")),
            (INT32, "b", 2_i32.to_le_bytes().to_vec()),
        ]);
        let all: Vec<_> = Elements::new(&bytes).unwrap().map(Result::unwrap).collect();
        let names: Vec<_> = all.iter().map(|element| element.name).collect();
        assert_eq!(names, ["b", "a", "b"]);
        assert_eq!((all[0].integer(), all[2].integer()), (Some(1), Some(2)));
        assert_eq!(all[1].text(), Ok("x"));
        assert!(all.iter().all(|e| bytes[e.at..].starts_with(e.value)));
        assert_eq!(find(&bytes, "b").unwrap().and_then(|e| e.integer()), Some(1));
    }

    #[test]
    fn what_lies_about_its_length_is_refused() {
        let good = document(&[(STRING, "a", text("xyz"))]);
        assert!(Elements::new(&good[..good.len() - 1]).is_err());
        let mut long = good.clone();
        long[7] = 200;
        assert!(Elements::new(&long).unwrap().any(|element| element.is_err()));
        let mut unknown = good;
        unknown[4] = 0x55;
        assert!(Elements::new(&unknown).unwrap().any(|element| element.is_err()));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_bad_to_be_walked(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(elements) = Elements::new(&bytes) {
                prop_assert!(elements.count() <= bytes.len());
            }
            let mut framed = (bytes.len() as i32 + 5).to_le_bytes().to_vec();
            framed.extend(&bytes);
            framed.push(0);
            let mut out = String::new();
            let _ = crate::mongodb::json::document(&framed, &mut out);
            prop_assert!(Elements::new(&framed).unwrap().count() <= framed.len());
        }
    }
}
