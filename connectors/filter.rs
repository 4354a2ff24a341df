//! Which tables of a source are wanted: patterns such as `public.*` and `!public.audit_?`.
//!
//! `*` stands for any characters, `?` for one, `\` takes the next character as it is. The first
//! dot separates schema and table; a dot inside a schema's name is written `\.`. The last pattern
//! that matches decides. What no pattern matches is wanted exactly when the first pattern excludes
//! (or when there is none).

use crate::error::{Error, Result};
use crate::schema::TableId;

/// A parsed list of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFilter {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    include: bool,
    schema: Vec<Glyph>,
    name: Vec<Glyph>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glyph {
    One(char),
    AnyOne,
    Any,
}

impl TableFilter {
    /// The filter that `patterns` spell.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the first pattern that isn't one.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let rules = patterns.iter().map(|pattern| Rule::parse(pattern.as_ref()));
        Ok(Self { rules: rules.collect::<Result<_>>()? })
    }

    /// Whether `table` is wanted.
    pub fn matches(&self, table: &TableId) -> bool {
        let default = self.rules.first().is_none_or(|first| !first.include);
        self.rules
            .iter()
            .rev()
            .find(|rule| rule.matches(table))
            .map_or(default, |rule| rule.include)
    }
}

impl Rule {
    fn parse(pattern: &str) -> Result<Self> {
        let (include, body) = match pattern.strip_prefix('!') {
            Some(body) => (false, body),
            None => (true, pattern),
        };
        let fault = |what: &str| {
            Error::config(format!("'{pattern}' is no table pattern: {what}"))
                .remedy("write schema.table, with * and ? as wildcards, or !schema.table")
        };
        let (mut parts, mut part) = (Vec::new(), Vec::new());
        let mut characters = body.chars();
        while let Some(character) = characters.next() {
            match character {
                '.' if parts.is_empty() => parts.push(std::mem::take(&mut part)),
                '*' => part.push(Glyph::Any),
                '?' => part.push(Glyph::AnyOne),
                '\\' => {
                    let next = characters.next().ok_or_else(|| fault("it ends in a backslash"))?;
                    part.push(Glyph::One(next));
                }
                _ => part.push(Glyph::One(character)),
            }
        }
        let schema = parts.pop().ok_or_else(|| fault("it has no dot"))?;
        if schema.is_empty() || part.is_empty() {
            return Err(fault("a name is missing"));
        }
        Ok(Self { include, schema, name: part })
    }

    fn matches(&self, table: &TableId) -> bool {
        matches(&self.schema, &table.schema) && matches(&self.name, &table.name)
    }
}

/// Goes back to the last `*` on a mismatch, so the time is at most pattern × text.
fn matches(pattern: &[Glyph], text: &str) -> bool {
    let (mut glyphs, mut rest) = (pattern, text);
    let mut star: Option<(&[Glyph], &str)> = None;
    loop {
        let mut tail = rest.chars();
        match (glyphs.split_first(), tail.next()) {
            (None, None) => return true,
            (Some((Glyph::Any, after)), _) => {
                star = Some((after, rest));
                glyphs = after;
                continue;
            }
            (Some((Glyph::AnyOne, after)), Some(_)) => {
                (glyphs, rest) = (after, tail.as_str());
                continue;
            }
            (Some((Glyph::One(wanted), after)), Some(found)) if *wanted == found => {
                (glyphs, rest) = (after, tail.as_str());
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = star else { return false };
        let mut from = from.chars();
        if from.next().is_none() {
            return false;
        }
        star = Some((after, from.as_str()));
        (glyphs, rest) = (after, from.as_str());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(patterns: &[&str], schema: &str, name: &str) -> bool {
        let filter = TableFilter::parse(patterns).unwrap_or_default();
        filter.matches(&TableId::new(schema, name))
    }

    #[test]
    fn the_last_match_wins() {
        assert!(wanted(&[], "public", "t"));
        assert!(wanted(&["public.*"], "public", "t"));
        assert!(!wanted(&["public.*"], "other", "t"));
        assert!(wanted(&["!public.audit_*"], "other", "t"));
        assert!(!wanted(&["public.*", "!public.audit_*"], "public", "audit_log"));
        assert!(wanted(&["public.*", "!public.a*", "public.ab"], "public", "ab"));
        assert!(wanted(&["*.*"], "a", "b.c"));
        assert!(wanted(&["p?.order_*_x"], "pg", "order_1_x_2_x"));
        assert!(!wanted(&["p?.t"], "p", "t"));
        assert!(wanted(&[r"a\.b.t\*"], "a.b", "t*"));
        assert!(!wanted(&[r"a\.b.t\*"], "a.b", "tt"));
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for pattern in ["", "t", "!t", ".t", "s.", r"s.t\"] {
            let error = TableFilter::parse(&[pattern]).map(|_| ()).map_err(|e| e.to_string());
            assert!(error.is_err_and(|text| text.contains(&format!("'{pattern}'"))), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself(schema in ".{1,8}", name in ".{1,8}") {
            let escape = |text: &str| -> String { text.chars().flat_map(|c| ['\\', c]).collect() };
            let pattern = format!("{}.{}", escape(&schema), escape(&name));
            prop_assert!(wanted(&[&pattern], &schema, &name));
        }
    }
}
