//! Which rows a table of the lake has: comparisons of columns with constants, all of which hold.
//!
//! ```text
//! filter     = comparison { "and" comparison }
//! comparison = column ( "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) constant
//!            | column [ "not" ] "in" "(" constant { "," constant } ")"
//!            | column "is" [ "not" ] "null"
//! column     = a name, or "a name in double quotes"
//! constant   = 'text' | number | true | false
//! ```
//!
//! As in SQL, a comparison with null does not hold. Texts compare byte by byte. Dates and times are
//! written as texts, `'2024-02-29'`, `'2024-02-29 13:00:00'` (UTC for a timestamp with a zone).

use std::cmp::Ordering;

use lakeward_connectors::batch::Batch;
use lakeward_connectors::key::{days, value_at};
use lakeward_connectors::schema::{TableSchema, Type};
use lakeward_connectors::{Error, Result, Value};

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    text: String,
    comparisons: Vec<Comparison>,
}

#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    column: String,
    test: Test<String>,
}

/// What a value must be, where `C` is a constant.
#[derive(Debug, Clone, PartialEq)]
enum Test<C> {
    Is(Relation, C),
    In(Vec<C>),
    NotIn(Vec<C>),
    Null,
    NotNull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Relation {
    fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" => Self::Equal,
            "!=" | "<>" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

impl Filter {
    /// The filter that `text` spells.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = Words { words: split(text)?, at: 0 };
        let mut comparisons = vec![words.comparison()?];
        while let Some(word) = words.next() {
            match word.is("and") {
                true => comparisons.push(words.comparison()?),
                false => return Err(format!("'and' belongs before {}", word.said())),
            }
        }
        Ok(Self { text: text.to_owned(), comparisons })
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The filter for rows of `schema`.
    pub(super) fn compile(&self, schema: &TableSchema) -> Result<Compiled> {
        let fault = |why: String| {
            Error::table(schema.id.clone(), format!("rows = \"{}\" does not fit: {why}", self.text))
                .remedy(format!("see to rows of [source.….table.\"{}\"]", schema.id))
        };
        let mut tests = Vec::with_capacity(self.comparisons.len());
        for Comparison { column, test } in &self.comparisons {
            let at = schema.column(column);
            let at = at.ok_or_else(|| fault(format!("the table has no column {column}")))?;
            let kind = schema.columns.get(at).map_or(&Type::Text, |column| &column.kind);
            let constant = |text: &String| {
                constant(kind, text).ok_or_else(|| {
                    fault(format!("{text} can't be compared with column {column}, a {kind:?}"))
                })
            };
            let all = |texts: &[String]| texts.iter().map(constant).collect::<Result<Vec<_>>>();
            let test = match test {
                Test::Is(relation, text) => Test::Is(*relation, constant(text)?),
                Test::In(texts) => Test::In(all(texts)?),
                Test::NotIn(texts) => Test::NotIn(all(texts)?),
                Test::Null => Test::Null,
                Test::NotNull => Test::NotNull,
            };
            tests.push((at, kind.clone(), test));
        }
        Ok(Compiled { tests })
    }
}

/// A filter for rows of one schema.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    tests: Vec<(usize, Type, Test<Value<'static>>)>,
}

impl Compiled {
    /// Whether it looks at a column.
    pub(super) fn reads(&self, column: usize) -> bool {
        self.tests.iter().any(|(of, _, _)| *of == column)
    }

    /// Whether a row belongs to the table, as far as its values were sent: one that was not is what
    /// it was, and the lake has the row exactly when it passed before.
    pub(super) fn keeps(&self, batch: &Batch, row: u32) -> bool {
        self.tests.iter().all(|(column, kind, test)| {
            if batch.is_unchanged(*column, row) {
                return true;
            }
            let array = batch.columns.columns().get(*column);
            let value = array.and_then(|array| value_at(kind, array.as_ref(), row as usize));
            value.is_some_and(|value| test.holds(&value))
        })
    }
}

impl Test<Value<'static>> {
    fn holds(&self, value: &Value<'_>) -> bool {
        if let Value::Null = value {
            return matches!(self, Test::Null);
        }
        let equals = |constant: &Value<'_>| order(value, constant) == Some(Ordering::Equal);
        match self {
            Test::Is(relation, constant) => relation.holds(order(value, constant)),
            Test::In(constants) => constants.iter().any(equals),
            Test::NotIn(constants) => !constants.iter().any(equals),
            Test::Null => false,
            Test::NotNull => true,
        }
    }
}

/// How two values of one type compare; `None` where one is not a number.
fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => {
            Some(a.cmp(b))
        }
        (Value::Float32(a), Value::Float32(b)) => a.partial_cmp(b),
        (Value::Float64(a), Value::Float64(b)) => a.partial_cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => Some(a.cmp(b)),
        (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::OwnedText(b)) => Some((*a).cmp(b.as_str())),
        _ => None,
    }
}

/// The constant `text` as a value of `kind`; `None` when it isn't one.
fn constant(kind: &Type, text: &str) -> Option<Value<'static>> {
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    Some(match (kind, quoted) {
        (Type::Text, Some(inner)) => Value::OwnedText(inner.replace("''", "'")),
        (Type::Date, Some(inner)) => Value::Date(i32::try_from(date(inner)?).ok()?),
        (Type::Timestamp | Type::LocalTimestamp, Some(inner)) => {
            Value::Timestamp(timestamp(inner)?)
        }
        (Type::Bool, None) => Value::Bool(text.to_ascii_lowercase().parse().ok()?),
        (Type::Int16 | Type::Int32 | Type::Int64, None) => Value::Int(text.parse().ok()?),
        (Type::Float32, None) => Value::Float32(text.parse().ok()?),
        (Type::Float64, None) => Value::Float64(text.parse().ok()?),
        (Type::Decimal { scale, .. }, None) => Value::Decimal(decimal(text, *scale)?),
        _ => return None,
    })
}

/// The unscaled number; `None` when it has more digits after the point than `scale`.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(missing)).parse().ok()
}

fn date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day);
    let found = sound.then(|| days(i64::from(year), month, day))?;
    (lakeward_connectors::key::civil(found) == (i64::from(year), month, day)).then_some(found)
}

fn timestamp(text: &str) -> Option<i64> {
    let Some((day, time)) = text.split_once([' ', 'T']) else {
        return Some(date(text)? * 86_400_000_000);
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let sound = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    let missing = 6_usize.checked_sub(fraction.len()).filter(|_| sound)?;
    let micros: i64 = format!("0{fraction}{}", "0".repeat(missing)).parse().ok()?;
    Some((date(day)? * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

/// A word of a filter.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// A name or keyword as it stands, or a sign.
    Bare(String),
    /// A name in double quotes.
    Name(String),
    /// A text with its quotes, or a number.
    Constant(String),
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn said(&self) -> &str {
        match self {
            Word::Bare(word) | Word::Name(word) | Word::Constant(word) => word,
        }
    }
}

fn split(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => quoted(rest, first).ok_or("a quote is not closed")?,
            '(' | ')' | ',' => 1,
            '=' | '<' | '>' | '!' => rest.find(|c| !"=<>!".contains(c)).unwrap_or(rest.len()),
            _ => rest.find(|c: char| " \t\r\n'\"(),=<>!".contains(c)).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        words.push(match first {
            '"' => Word::Name(word[1..length - 1].replace("\"\"", "\"")),
            '\'' => Word::Constant(word.to_owned()),
            '0'..='9' | '-' | '+' | '.' => Word::Constant(word.to_owned()),
            _ => Word::Bare(word.to_owned()),
        });
        rest = after.trim_start();
    }
    Ok(words)
}

/// The length of the quoted text that `rest` begins with; a doubled quote is one of the text.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut from = 1;
    loop {
        let end = from + rest.get(from..)?.find(quote)?;
        match rest.get(end + 1..)?.starts_with(quote) {
            true => from = end + 2,
            false => return Some(end + 1),
        }
    }
}

struct Words {
    words: Vec<Word>,
    at: usize,
}

impl Words {
    fn next(&mut self) -> Option<Word> {
        self.at += 1;
        self.words.get(self.at - 1).cloned()
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|word| word.is(keyword));
        self.at += usize::from(found);
        found
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        let column = match self.next() {
            Some(Word::Name(name) | Word::Bare(name)) if Relation::of(&name).is_none() => name,
            Some(other) => return Err(format!("a column belongs where {} stands", other.said())),
            None => return Err("a column is missing at the end".to_owned()),
        };
        let test = if self.take("is") {
            let not = self.take("not");
            match (self.take("null"), not) {
                (true, false) => Test::Null,
                (true, true) => Test::NotNull,
                _ => return Err("'is' goes with 'null' or 'not null'".to_owned()),
            }
        } else if self.take("in") {
            Test::In(self.constants()?)
        } else if self.take("not") {
            match self.take("in") {
                true => Test::NotIn(self.constants()?),
                false => return Err("'not' goes with 'in'".to_owned()),
            }
        } else {
            let sign = self.next().map(|word| word.said().to_owned()).unwrap_or_default();
            let relation = Relation::of(&sign)
                .ok_or_else(|| format!("a comparison such as = belongs after {column}"))?;
            Test::Is(relation, self.constant()?)
        };
        Ok(Comparison { column, test })
    }

    fn constant(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Word::Constant(text)) => Ok(text),
            Some(word) if word.is("true") || word.is("false") => Ok(word.said().to_owned()),
            Some(word) if word.is("null") => Err("write 'is null' or 'is not null'".to_owned()),
            Some(word) => Err(format!(
                "a constant ('text' in single quotes, a number, true or false) belongs where {} \
                 stands",
                word.said()
            )),
            None => Err("a constant is missing at the end".to_owned()),
        }
    }

    fn constants(&mut self) -> Result<Vec<String>, String> {
        let listed = "'in' goes with a list such as (1, 2)";
        if !self.take("(") {
            return Err(listed.to_owned());
        }
        let mut constants = vec![self.constant()?];
        while self.take(",") {
            constants.push(self.constant()?);
        }
        match self.take(")") {
            true => Ok(constants),
            false => Err(listed.to_owned()),
        }
    }
}
