//! The script language of the cases: SQL with phases, sessions and expectations in comments.
//!
//! ```text
//! -- @opt: key=value …       tables=a,b order=1,2 streaming=on createdb=…   (~ stands for a blank)
//! -- @phase:setup|live       before the daemon's first start, while it follows
//! -- @session:A              what follows runs on connection A (the first is `main`)
//! -- @async, @wait:A         the next statement is sent without waiting; wait for A's
//! -- @sleep:0.5
//! -- @expect-error: text     the next statement fails with this text
//! -- @sql-raw:STATEMENT      a statement in which {db} stands for the database's name
//! -- @sql-mysql:STATEMENT    one that only MySQL runs, not MariaDB
//! ```

use std::collections::HashMap;

use super::Res;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Setup,
    Live,
}

/// Whose SQL a script is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    MySql,
    MariaDb,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Sql(String),
    Session(String),
    Async,
    Wait(String),
    Sleep(f64),
    ExpectError(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    pub setup: Vec<Step>,
    pub live: Vec<Step>,
    pub options: HashMap<String, String>,
}

impl Script {
    pub fn parse(text: &str, dialect: Dialect) -> Res<Script> {
        let mut script = Script::default();
        let mut phase = Phase::Setup;
        for token in tokens(text, dialect)? {
            let step = match token {
                Token::Sql(sql) => Step::Sql(sql),
                Token::Mark(mark) => match marker(&mark, dialect, &mut script.options)? {
                    Marker::Phase(next) => {
                        phase = next;
                        continue;
                    }
                    Marker::Nothing => continue,
                    Marker::Step(step) => step,
                },
            };
            match phase {
                Phase::Setup => script.setup.push(step),
                Phase::Live => script.live.push(step),
            }
        }
        Ok(script)
    }

    /// A header option; `~` stands for a blank in it.
    pub fn option(&self, name: &str) -> Option<String> {
        self.options.get(name).map(|v| v.replace('~', " "))
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        let list = self.options.get(name).map(String::as_str).unwrap_or_default();
        list.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect()
    }
}

enum Marker {
    Phase(Phase),
    Nothing,
    Step(Step),
}

fn marker(mark: &str, dialect: Dialect, options: &mut HashMap<String, String>) -> Res<Marker> {
    let (word, rest) = mark.split_once(':').unwrap_or((mark, ""));
    let rest = rest.trim();
    Ok(match word {
        "phase" => Marker::Phase(match rest {
            "setup" => Phase::Setup,
            "live" => Phase::Live,
            _ => return Err(format!("no phase is called {rest}")),
        }),
        "opt" => {
            for pair in rest.split_whitespace() {
                let (key, value) =
                    pair.split_once('=').ok_or(format!("the option {pair} has no value"))?;
                options.insert(key.to_owned(), value.to_owned());
            }
            Marker::Nothing
        }
        "sql-raw" => Marker::Step(Step::Sql(rest.to_owned())),
        "sql-mysql" if dialect == Dialect::MySql => Marker::Step(Step::Sql(rest.to_owned())),
        "sql-mysql" => Marker::Nothing,
        "session" => Marker::Step(Step::Session(rest.to_owned())),
        "async" => Marker::Step(Step::Async),
        "wait" => Marker::Step(Step::Wait(rest.to_owned())),
        "sleep" => Marker::Step(Step::Sleep(rest.parse().map_err(|_| format!("sleep {rest}?"))?)),
        "expect-error" => Marker::Step(Step::ExpectError(rest.to_owned())),
        _ => return Err(format!("no marker is called {word}")),
    })
}

#[derive(Debug, PartialEq)]
enum Token {
    Sql(String),
    Mark(String),
}

/// Splits at semicolons outside quotes, dollar quotes and comments; `-- @…` lines are marks.
fn tokens(text: &str, dialect: Dialect) -> Res<Vec<Token>> {
    let mut out = Vec::new();
    let mut statement = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' | '"' if dialect != Dialect::Postgres => escaped(rest, c)?,
            '`' if dialect != Dialect::Postgres => quoted(rest, c)?,
            '/' if dialect != Dialect::Postgres && rest.starts_with("/*") => {
                rest.find("*/").ok_or("a comment is not closed")? + 2
            }
            '\'' | '"' => quoted(rest, c)?,
            '$' if dialect == Dialect::Postgres => dollar_quoted(rest)?,
            '-' if rest.starts_with("--") => {
                let line = rest.lines().next().unwrap_or_default();
                if let Some(mark) = line.strip_prefix("-- @") {
                    finish(&mut statement, &mut out);
                    out.push(Token::Mark(mark.trim().to_owned()));
                }
                statement.push('\n');
                rest = rest[line.len()..].strip_prefix('\n').unwrap_or(&rest[line.len()..]);
                continue;
            }
            ';' => {
                finish(&mut statement, &mut out);
                rest = &rest[1..];
                continue;
            }
            c => c.len_utf8(),
        };
        statement.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    finish(&mut statement, &mut out);
    Ok(out)
}

fn finish(statement: &mut String, out: &mut Vec<Token>) {
    let sql = std::mem::take(statement);
    if !sql.trim().is_empty() {
        out.push(Token::Sql(sql.trim().to_owned()));
    }
}

/// The length of a quoted text; a doubled quote belongs to it.
fn quoted(text: &str, quote: char) -> Res<usize> {
    let mut at = 1;
    loop {
        let end = text[at..].find(quote).ok_or("a quote is not closed")? + at + 1;
        if !text[end..].starts_with(quote) {
            return Ok(end);
        }
        at = end + 1;
    }
}

/// The length of a quoted text of MySQL, in which a backslash takes the next character as it is.
fn escaped(text: &str, quote: char) -> Res<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => {
                characters.next();
            }
            c if c == quote && characters.peek().is_some_and(|(_, next)| *next == quote) => {
                characters.next();
            }
            c if c == quote => return Ok(at + c.len_utf8()),
            _ => {}
        }
    }
    Err("a quote is not closed".to_owned())
}

/// The length of `$tag$ … $tag$`, or of the lone `$`.
fn dollar_quoted(text: &str) -> Res<usize> {
    let word = |c: char| c.is_ascii_alphabetic() || c == '_';
    let tag = text[1..].find(|c| !word(c)).map_or(text.len(), |n| n + 1);
    if !text[tag..].starts_with('$') {
        return Ok(1);
    }
    let tag = &text[..tag + 1];
    let end = text[tag.len()..].find(tag).ok_or("a dollar quote is not closed")?;
    Ok(end + 2 * tag.len())
}
