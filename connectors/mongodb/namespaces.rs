//! Which part of the log is asked for: one database's or the whole deployment's, and of it what the
//! configured patterns may match.
//!
//! The server leaves out what no pattern can match; what is left is matched exactly by the
//! [`TableFilter`](crate::filter::TableFilter). New collections that match are in the log at once.

use ::mongodb::bson::{Bson, Document, Regex, doc};

/// The databases that hold the server's own state.
pub const SYSTEM: [&str; 3] = ["admin", "local", "config"];

/// Where a change stream is opened, and which stage narrows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespaces {
    /// The only database that the patterns can match; `None`: the stream is the whole deployment's.
    pub database: Option<String>,
    /// A `$match` stage; `None` where nothing has to be left out.
    pub stage: Option<Document>,
}

/// One pattern that includes: the texts of database and collection, parsed into their characters.
struct Include {
    database: Vec<Glyph>,
    collection: Vec<Glyph>,
}

#[derive(Clone, Copy, PartialEq)]
enum Glyph {
    One(char),
    AnyOne,
    Any,
}

impl Namespaces {
    /// What `patterns`, which [`TableFilter`](crate::filter::TableFilter) has accepted, may match.
    pub fn of<S: AsRef<str>>(patterns: &[S]) -> Self {
        let open = patterns.first().is_none_or(|first| first.as_ref().starts_with('!'));
        let includes: Vec<Include> =
            patterns.iter().filter_map(|pattern| Include::parse(pattern.as_ref())).collect();
        if open || includes.is_empty() {
            let not_own = doc! { "ns.db": { "$nin": SYSTEM.as_slice() } };
            return Self { database: None, stage: Some(doc! { "$match": not_own }) };
        }
        let database = includes.first().and_then(|include| literal(&include.database));
        let database = database
            .filter(|name| includes.iter().all(|i| literal(&i.database).as_ref() == Some(name)));
        let all = database.is_some() && includes.iter().any(|i| i.collection == [Glyph::Any]);
        if all {
            return Self { database, stage: None };
        }
        let mut any = Vec::new();
        for include in &includes {
            let (db, coll) = (condition(&include.database), condition(&include.collection));
            any.push(doc! { "ns.db": db.clone(), "ns.coll": coll.clone() });
            any.push(doc! { "to.db": db, "to.coll": coll });
        }
        any.push(doc! { "operationType": "invalidate" });
        Self { database, stage: Some(doc! { "$match": { "$or": any } }) }
    }
}

impl Include {
    fn parse(pattern: &str) -> Option<Self> {
        if pattern.starts_with('!') {
            return None;
        }
        let (mut database, mut part) = (None, Vec::new());
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            match character {
                '.' if database.is_none() => database = Some(std::mem::take(&mut part)),
                '*' => part.push(Glyph::Any),
                '?' => part.push(Glyph::AnyOne),
                '\\' => part.extend(characters.next().map(Glyph::One)),
                _ => part.push(Glyph::One(character)),
            }
        }
        Some(Self { database: database?, collection: part })
    }
}

fn literal(glyphs: &[Glyph]) -> Option<String> {
    let one = |glyph: &Glyph| match glyph {
        Glyph::One(character) => Some(*character),
        _ => None,
    };
    glyphs.iter().map(one).collect()
}

/// A text, or a regular expression of those it may be.
fn condition(glyphs: &[Glyph]) -> Bson {
    if let Some(text) = literal(glyphs) {
        return Bson::String(text);
    }
    let mut pattern = "^".to_owned();
    for glyph in glyphs {
        match glyph {
            Glyph::Any => pattern.push_str(".*"),
            Glyph::AnyOne => pattern.push('.'),
            Glyph::One(character) => {
                if character.is_ascii_punctuation() {
                    pattern.push('\\');
                }
                pattern.push(*character);
            }
        }
    }
    pattern.push('$');
    match (pattern.as_str().try_into(), "s".try_into()) {
        (Ok(pattern), Ok(options)) => Bson::RegularExpression(Regex { pattern, options }),
        // A name with a zero byte: no collection has one.
        _ => Bson::String(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_database_is_watched_alone() {
        let shop = Some("shop".to_owned());
        let whole = Namespaces::of(&["shop.*", "!shop.audit_*"]);
        assert_eq!(whole, Namespaces { database: shop.clone(), stage: None });
        let some = Namespaces::of(&["shop.orders", "shop.item?"]);
        assert_eq!(some.database, shop);
        let stage = some.stage.unwrap().to_string();
        assert!(stage.contains("orders") && stage.contains("^item.$"), "{stage}");
        assert!(stage.contains("invalidate") && stage.contains("to.coll"));
    }

    #[test]
    fn several_databases_are_the_deployment() {
        let two = Namespaces::of(&["a.*", "b.*"]);
        assert_eq!(two.database, None);
        assert!(two.stage.is_some());
        let wild = Namespaces::of(&["sh*p.*"]);
        assert!(wild.database.is_none() && wild.stage.unwrap().to_string().contains("^sh.*p$"));
        let open = Namespaces::of(&["!a.b"]);
        assert!(open.stage.unwrap().to_string().contains("$nin"));
        let dotted = Namespaces::of(&[r"a\.b.c\*"]);
        assert_eq!(dotted.database.as_deref(), Some("a.b"));
    }
}
