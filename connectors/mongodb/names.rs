//! A field's name → the name of its column, and back.
//!
//! A column keeps its field's name, but for characters that tables or readers have trouble with:
//! every byte of ASCII other than `A-Z a-z 0-9 _ -` becomes `~XX`, two hex digits. The empty name
//! becomes `~`. A name that equals a column's but for case, or that this connector uses itself,
//! becomes `~XX` in every byte: `A` beside `a` is `~41`, and a field `_doc` is `~5F~64~6F~63`. Either
//! way [`field_of`] gives the field's own name back.

/// The longest field name that gets a column, in bytes.
pub const LONGEST: usize = 255;

/// The name of the column for the field called `field`, when `is_taken` says of a name in lower
/// case whether another column has it.
pub fn column_of(field: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut plain = String::with_capacity(field.len());
    for character in field.chars() {
        match character.is_ascii_alphanumeric() || matches!(character, '_' | '-') {
            true => plain.push(character),
            false if character.is_ascii() => escape(character as u8, &mut plain),
            false => plain.push(character),
        }
    }
    if field.is_empty() {
        plain.push('~');
    }
    match is_taken(&plain.to_lowercase()) {
        false => plain,
        true => {
            let mut whole = String::with_capacity(field.len() * 3);
            field.bytes().for_each(|byte| escape(byte, &mut whole));
            whole
        }
    }
}

/// The name of the field whose column is called `column`.
pub fn field_of(column: &str) -> Option<String> {
    if column == "~" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(column.len());
    let mut rest = column.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'~' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn escape(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('~');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay() {
        for name in ["a", "orderId", "é", "snake_case", "with-dash", "Größe"] {
            assert_eq!(column_of(name, |_| false), name);
        }
        assert_eq!(column_of("a.b", |_| false), "a~2Eb");
        assert_eq!(column_of("$x", |_| false), "~24x");
        assert_eq!(column_of("x y;{}", |_| false), "x~20y~3B~7B~7D");
        assert_eq!(column_of("", |_| false), "~");
        assert_eq!(column_of("~41", |_| false), "~7E41");
        assert_eq!(column_of("A", |name| name == "a"), "~41");
    }

    proptest! {
        #[test]
        fn every_name_comes_back_and_no_two_are_one(
            names in proptest::collection::hash_set("[aAbBzZ~.$ é_É4]{0,5}", 1..40)
        ) {
            let mut taken = HashSet::new();
            for name in &names {
                let column = column_of(name, |lower| taken.contains(lower));
                prop_assert_eq!(field_of(&column), Some(name.clone()));
                prop_assert!(taken.insert(column.to_lowercase()), "{} is there twice", column);
            }
        }
    }
}
