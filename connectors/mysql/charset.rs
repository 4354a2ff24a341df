//! Character sets → UTF-8, exactly or not at all.
//!
//! The log holds texts in the character set of their column, and so do rows that are asked for
//! with `character_set_results = NULL`: one decoder serves both. What a byte or a pair of bytes
//! stands for is asked of the server itself, once a connection, so that a text is what the server
//! would have made of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::connection::{Connection, hex};
use crate::error::Result;
use crate::schema::Compare;

/// One character set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8, or a part of it.
    Utf8,
    /// UTF-16, or a part of it, by two bytes, greatest first or least first.
    Utf16 {
        /// Whether the least byte comes first.
        little: bool,
    },
    /// Four bytes a character, greatest first.
    Utf32,
    /// One byte a character, and where `pairs` is not empty two bytes for what `lead` says.
    Table(Box<Table>),
}

/// What bytes stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    single: [Option<char>; 256],
    pairs: HashMap<[u8; 2], char>,
}

/// The character sets of a source, by name.
pub type Charsets = HashMap<String, Arc<Charset>>;

impl Charset {
    /// The text that `bytes` are; `None` when they are none.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        match self {
            Self::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            // What all tables agree on.
            Self::Table(table) if bytes.is_ascii() && table.keeps_ascii() => {
                std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
            }
            Self::Table(table) => table.decode(bytes).map(Cow::Owned),
            Self::Utf16 { little } => {
                let (units, rest) = bytes.as_chunks::<2>();
                let unit = |pair: &[u8; 2]| match little {
                    true => u16::from_le_bytes(*pair),
                    false => u16::from_be_bytes(*pair),
                };
                let units: Vec<_> = units.iter().map(unit).collect();
                rest.is_empty().then(|| String::from_utf16(&units).ok())?.map(Cow::Owned)
            }
            Self::Utf32 => {
                let (units, rest) = bytes.as_chunks::<4>();
                let text = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
                rest.is_empty().then(|| text.collect::<Option<String>>())?.map(Cow::Owned)
            }
        }
    }
}

impl Table {
    fn keeps_ascii(&self) -> bool {
        self.single.get(usize::from(b'\\')) == Some(&Some('\\'))
            && self.single.get(usize::from(b'~')) == Some(&Some('~'))
    }

    fn decode(&self, bytes: &[u8]) -> Option<String> {
        let mut text = String::with_capacity(bytes.len() * 2);
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first() {
            let pair = after.first().and_then(|second| self.pairs.get(&[first, *second]));
            match (pair, self.single.get(usize::from(first)).copied().flatten()) {
                (Some(character), None) => {
                    text.push(*character);
                    rest = after.get(1..)?;
                }
                (_, Some(character)) => {
                    text.push(character);
                    rest = after;
                }
                (None, None) => return None,
            }
        }
        Some(text)
    }
}

/// The character set of a collation, which every collation's name begins with.
pub fn of_collation(collation: &str) -> &str {
    collation.split('_').next().unwrap_or(collation)
}

/// Asks the server for the character set called `name`; `None` when it can't be followed exactly.
///
/// # Errors
/// When the server does not answer.
pub async fn load(connection: &mut Connection, name: &str) -> Result<Option<Charset>> {
    Ok(Some(match name {
        "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Charset::Utf8,
        "utf16" | "ucs2" => Charset::Utf16 { little: false },
        "utf16le" => Charset::Utf16 { little: true },
        "utf32" => Charset::Utf32,
        // Characters of three and four bytes.
        "ujis" | "eucjpms" | "gb18030" | "binary" => return Ok(None),
        _ => {
            let singles: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
            let characters = ask(connection, name, &singles).await?;
            let mut single = [None; 256];
            for (place, character) in single.iter_mut().zip(characters) {
                *place = character;
            }
            let mut pairs = HashMap::new();
            if is_double(name) {
                // The server takes a lead byte by itself for no character, and so do we.
                let leads = (0x80..=0xff_u8).filter(|lead| single[usize::from(*lead)].is_none());
                let codes: Vec<Vec<u8>> = leads
                    .flat_map(|lead| (0x40..=0xfe).map(move |next| vec![lead, next]))
                    .collect();
                for some in codes.chunks(4_000) {
                    let characters = ask(connection, name, some).await?;
                    let known = some.iter().zip(characters);
                    pairs.extend(known.filter_map(|(code, character)| match code[..] {
                        [first, second] => Some(([first, second], character?)),
                        _ => None,
                    }));
                }
            }
            Charset::Table(Box::new(Table { single, pairs }))
        }
    }))
}

fn is_double(name: &str) -> bool {
    matches!(name, "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr")
}

/// What each of `codes` stands for; `None` for what stands for nothing.
async fn ask(
    connection: &mut Connection,
    name: &str,
    codes: &[Vec<u8>],
) -> Result<Vec<Option<char>>> {
    let convert = |code: &Vec<u8>| {
        format!("HEX(CONVERT(CAST(x'{}' AS CHAR CHARACTER SET {name}) USING utf8mb4))", hex(code))
    };
    let sql = format!("SELECT {}", codes.iter().map(convert).collect::<Vec<_>>().join(","));
    let row = connection.rows("asking for a character set", &sql).await?;
    let fields = row.into_iter().flatten().zip(codes);
    Ok(fields.map(|(field, code)| character(&field?, code)).collect())
}

/// The one character that `text` (UTF-8 in hex) is, unless it stands for "none".
fn character(text: &str, code: &[u8]) -> Option<char> {
    let digits = text
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let text = String::from_utf8(digits.collect::<Option<Vec<_>>>()?).ok()?;
    let mut characters = text.chars();
    let character = characters.next()?;
    let unknown = character == '?' && code != b"?";
    (characters.next().is_none() && !unknown).then_some(character)
}

/// How texts of `collation` compare as keys; `None` when that is not known here. Collations that
/// take several letters for one, or letters for one another, are not among those that are.
pub fn compare_of(collation: &str, pads: bool) -> Option<Compare> {
    let compare = |ascii_only, ignores_case| {
        Some(Compare { ascii_only, ignores_case, ignores_trailing_blanks: pads })
    };
    let rest = collation.strip_prefix(of_collation(collation))?.trim_start_matches('_');
    // MariaDB's names say in which cases they don't pad.
    let rest = rest.replace("_nopad", "").replace("nopad_", "");
    match rest.as_str() {
        "bin" | "0900_bin" => compare(false, false),
        "general_ci"
        | "unicode_ci"
        | "unicode_520_ci"
        | "0900_ai_ci"
        | "0900_as_ci"
        | "uca1400_ai_ci"
        | "uca1400_as_ci"
        | "general_mysql500_ci" => compare(true, true),
        "swedish_ci" | "german1_ci" if collation.starts_with("latin1_") => compare(true, true),
        "0900_as_cs" | "uca1400_as_cs" | "general_cs" => compare(true, false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_are_read() {
        let big = Charset::Utf16 { little: false };
        assert_eq!(big.decode(&[0, 0x6e, 0xd8, 0x3d, 0xde, 0]).as_deref(), Some("n😀"));
        assert_eq!(big.decode(&[0, 0x6e, 0xd8]), None);
        assert_eq!(big.decode(&[0xd8, 0x3d]), None);
        let little = Charset::Utf16 { little: true };
        assert_eq!(little.decode(&[0xe9, 0]).as_deref(), Some("é"));
        assert_eq!(Charset::Utf32.decode(&[0, 1, 0xf6, 0]).as_deref(), Some("😀"));
        assert_eq!(Charset::Utf8.decode(b"\xff"), None);
    }

    #[test]
    fn a_table_reads_pairs_where_a_byte_alone_is_none() {
        let mut single = [None; 256];
        for (byte, place) in (0_u8..0x80).zip(&mut single) {
            *place = Some(char::from(byte));
        }
        let pairs = HashMap::from([([0xc4, 0xe3], '你')]);
        let table = Charset::Table(Box::new(Table { single, pairs }));
        assert_eq!(table.decode(b"a\xc4\xe3b").as_deref(), Some("a你b"));
        assert_eq!(table.decode(b"a\xc4"), None);
        assert_eq!(table.decode(b"a\xc4b"), None);
    }

    #[test]
    fn what_is_no_character_is_told_from_a_question_mark() {
        assert_eq!(character("3F", b"?"), Some('?'));
        assert_eq!(character("3F", b"\x81"), None);
        assert_eq!(character("E4BDA0", b"\xc4\xe3"), Some('你'));
        assert_eq!(character("6161", b"a"), None);
    }

    #[test]
    fn only_collations_that_are_known_make_keys() {
        let compare = compare_of("utf8mb4_general_ci", true).unwrap();
        assert!(compare.ignores_case && compare.ascii_only && compare.ignores_trailing_blanks);
        assert_eq!(compare_of("utf8mb4_0900_bin", false), Some(Compare::EXACT));
        assert!(compare_of("latin1_bin", true).unwrap().ignores_trailing_blanks);
        assert!(compare_of("utf8mb4_czech_ci", true).is_none());
        assert!(!compare_of("utf8mb4_0900_as_cs", false).unwrap().ignores_case);
        assert!(compare_of("utf8mb4_general_nopad_ci", false).is_some());
    }
}
