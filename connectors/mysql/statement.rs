//! What a statement in the log does to tables, as far as that has to be known.
//!
//! The log holds definitions of tables as the text of the statement that made them. A statement is
//! cut into words here, comments and quotes understood, and its beginning says what it is. Whatever
//! isn't understood counts as a change of every table that it names: the worst that can come of it
//! is that a table is read again.

use crate::schema::TableId;

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A transaction begins.
    Begin,
    /// It ends, committed.
    Commit,
    /// It ends, undone.
    Rollback,
    /// A part of it is undone.
    RollbackTo,
    /// It begins, and whether it is committed is said later.
    BeginPrepared,
    /// A transaction that was prepared is committed.
    CommitPrepared,
    /// A transaction that was prepared is undone.
    RollbackPrepared,
    /// Nothing to tables or their rows.
    Nothing,
    /// All rows of a table are gone.
    Truncate(TableId),
    /// These tables are gone, or called otherwise.
    Drop(Vec<TableId>),
    /// All tables of a database are gone.
    DropDatabase(String),
    /// These tables came, went, or have another content.
    Replace(Vec<TableId>),
    /// A table has another definition.
    Alter(TableId, Vec<Action>),
    /// A table is made, and rows of the same transaction follow.
    CreateWithRows,
    /// Rows of these tables, or of tables behind views and triggers, may change in ways that only
    /// the server can tell.
    Rows(Vec<TableId>),
}

/// One change of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing that rows show.
    Harmless,
    /// A column behind all others, null in all rows.
    AddNull(String),
    /// A column goes.
    Drop(String),
    /// Anything else.
    Other,
}

/// Reads `text`, which was run in `database`.
pub fn read(database: &str, text: &str) -> Effect {
    let words = Words::cut(text);
    let reader = Reader { words: &words.0, database };
    reader.effect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A word without quotes, as it stands there.
    Plain(String),
    /// A name in backticks.
    Name(String),
    /// A text or number.
    Constant,
    /// A character that is no part of a word.
    Sign(char),
}

struct Words(Vec<Word>);

impl Words {
    fn cut(text: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = match first {
                _ if first.is_whitespace() => rest.trim_start(),
                '#' => after_line(rest),
                '-' if is_dash_comment(rest) => after_line(rest),
                // What stands in such a comment is meant for some servers: it counts.
                '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                    let body = rest.split_once('!').map_or("", |(_, body)| body);
                    body.trim_start_matches(|c: char| c.is_ascii_digit())
                }
                '*' if rest.starts_with("*/") => rest.get(2..).unwrap_or_default(),
                '/' if rest.starts_with("/*") => rest
                    .get(2..)
                    .and_then(|body| body.split_once("*/"))
                    .map_or("", |(_, rest)| rest),
                '`' => {
                    let (name, after) = quoted(rest, '`', false);
                    words.push(Word::Name(name));
                    after
                }
                '\'' | '"' => {
                    words.push(Word::Constant);
                    quoted(rest, first, true).1
                }
                _ if is_word(first) => {
                    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                    let (word, after) = rest.split_at(end);
                    words.push(Word::Plain(word.to_owned()));
                    after
                }
                _ => {
                    words.push(Word::Sign(first));
                    rest.get(first.len_utf8()..).unwrap_or_default()
                }
            };
        }
        Self(words)
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '@') || character > '\u{7f}'
}

fn is_dash_comment(rest: &str) -> bool {
    let after = rest.strip_prefix("--");
    after.is_some_and(|after| {
        after.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
    })
}

fn after_line(rest: &str) -> &str {
    rest.split_once('\n').map_or("", |(_, rest)| rest)
}

/// What stands in quotes, and what follows them.
fn quoted(text: &str, quote: char, escapes: bool) -> (String, &str) {
    let mut inner = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return (inner, text.get(at + quote.len_utf8()..).unwrap_or_default()),
            }
        } else if escapes && character == '\\' {
            characters.next();
        }
        inner.push(character);
    }
    (inner, "")
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    words: &'a [Word],
    database: &'a str,
}

impl Reader<'_> {
    fn effect(mut self) -> Effect {
        if self.takes(&["BEGIN"]) {
            return Effect::Begin;
        }
        if self.takes(&["XA"]) {
            return match () {
                () if self.takes(&["START"]) || self.takes(&["BEGIN"]) => Effect::BeginPrepared,
                () if self.takes(&["COMMIT"]) => Effect::CommitPrepared,
                () if self.takes(&["ROLLBACK"]) => Effect::RollbackPrepared,
                () => Effect::Nothing,
            };
        }
        if self.takes(&["COMMIT"]) {
            return Effect::Commit;
        }
        if self.takes(&["ROLLBACK"]) {
            let whole = self.words.is_empty() || self.takes(&["WORK"]);
            return if whole { Effect::Rollback } else { Effect::RollbackTo };
        }
        let first = match self.words.first() {
            Some(Word::Plain(word)) => word.to_ascii_uppercase(),
            _ => return Effect::Nothing,
        };
        match first.as_str() {
            "TRUNCATE" => self.truncate(),
            "DROP" => self.drop(),
            "RENAME" if self.takes(&["RENAME", "TABLE"]) || self.takes(&["RENAME", "TABLES"]) => {
                Effect::Drop(self.all_names())
            }
            "ALTER" => self.alter(),
            "CREATE" => self.create(),
            "SAVEPOINT" | "RELEASE" | "GRANT" | "REVOKE" | "SET" | "FLUSH" | "ANALYZE"
            | "OPTIMIZE" | "REPAIR" | "CHECK" | "COMMENT" | "INSTALL" | "UNINSTALL" | "USE"
            | "RENAME" | "RESET" => Effect::Nothing,
            _ => Effect::Rows(self.all_names()),
        }
    }

    fn truncate(mut self) -> Effect {
        self.takes(&["TRUNCATE"]);
        self.takes(&["TABLE"]);
        match self.name() {
            Some(table) => Effect::Truncate(table),
            None => Effect::Rows(self.all_names()),
        }
    }

    fn drop(mut self) -> Effect {
        self.takes(&["DROP"]);
        if self.takes(&["TEMPORARY"]) {
            return Effect::Nothing;
        }
        if self.takes(&["DATABASE"]) || self.takes(&["SCHEMA"]) {
            self.takes(&["IF", "EXISTS"]);
            return match self.words.first() {
                Some(Word::Plain(name) | Word::Name(name)) => Effect::DropDatabase(name.clone()),
                _ => Effect::Rows(self.all_names()),
            };
        }
        if self.takes(&["INDEX"]) {
            return self.on();
        }
        if !self.takes(&["TABLE"]) && !self.takes(&["TABLES"]) {
            return Effect::Nothing;
        }
        self.takes(&["IF", "EXISTS"]);
        let mut tables = Vec::new();
        while let Some(table) = self.name() {
            tables.push(table);
            if !self.takes_sign(',') {
                break;
            }
        }
        Effect::Drop(tables)
    }

    /// `… INDEX name ON table`.
    fn on(mut self) -> Effect {
        while !self.words.is_empty() {
            if self.takes(&["ON"]) {
                return match self.name() {
                    Some(table) => Effect::Alter(table, vec![Action::Harmless]),
                    None => Effect::Rows(self.all_names()),
                };
            }
            self.skip();
        }
        Effect::Nothing
    }

    fn create(mut self) -> Effect {
        self.takes(&["CREATE"]);
        self.takes(&["OR", "REPLACE"]);
        if self.takes(&["TEMPORARY"]) {
            return Effect::Nothing;
        }
        let indexes = ["UNIQUE", "FULLTEXT", "SPATIAL", "INDEX", "ONLINE", "OFFLINE"];
        if indexes.iter().any(|word| self.takes(&[word])) {
            return self.on();
        }
        if !self.takes(&["TABLE"]) {
            return Effect::Nothing;
        }
        self.takes(&["IF", "NOT", "EXISTS"]);
        let table = self.name();
        // The server writes it so when rows follow in the same transaction.
        let ends = |word: &Word, wanted: &str| matches!(word, Word::Plain(word) if word.eq_ignore_ascii_case(wanted));
        if let [.., start, transaction] = self.words
            && ends(start, "START")
            && ends(transaction, "TRANSACTION")
        {
            return Effect::CreateWithRows;
        }
        table.map_or(Effect::Nothing, |table| Effect::Replace(vec![table]))
    }

    fn alter(mut self) -> Effect {
        self.takes(&["ALTER"]);
        self.takes(&["ONLINE"]);
        self.takes(&["IGNORE"]);
        if !self.takes(&["TABLE"]) {
            return Effect::Nothing;
        }
        self.takes(&["IF", "EXISTS"]);
        let Some(table) = self.name() else { return Effect::Rows(self.all_names()) };
        if self.takes(&["WAIT"]) {
            self.skip();
        }
        self.takes(&["NOWAIT"]);
        let actions: Vec<_> = self.parts().into_iter().map(Reader::action).collect();
        if actions.contains(&Action::Other) {
            // Another table takes part in EXCHANGE PARTITION and RENAME TO.
            let mut names = self.all_names();
            names.push(table);
            return Effect::Replace(names);
        }
        Effect::Alter(table, actions)
    }

    /// What stands between the commas that are in no parentheses.
    fn parts(self) -> Vec<Self> {
        let mut depth = 0;
        let parts = self.words.split(|word| {
            match word {
                Word::Sign('(') => depth += 1,
                Word::Sign(')') => depth -= 1,
                _ => {}
            }
            depth == 0 && *word == Word::Sign(',')
        });
        parts.map(|words| Reader { words, ..self }).collect()
    }

    fn action(mut self) -> Action {
        const HARMLESS: [&str; 24] = [
            "COMMENT",
            "AUTO_INCREMENT",
            "ALGORITHM",
            "LOCK",
            "ENABLE",
            "DISABLE",
            "FORCE",
            "ROW_FORMAT",
            "KEY_BLOCK_SIZE",
            "STATS_PERSISTENT",
            "STATS_AUTO_RECALC",
            "STATS_SAMPLE_PAGES",
            "COMPRESSION",
            "ENCRYPTION",
            "ENGINE",
            "TABLESPACE",
            "ANALYZE",
            "OPTIMIZE",
            "CHECK",
            "REBUILD",
            "REORGANIZE",
            "COALESCE",
            "WITH",
            "WITHOUT",
        ];
        const KEYS: [&str; 9] = [
            "INDEX",
            "KEY",
            "UNIQUE",
            "FULLTEXT",
            "SPATIAL",
            "CONSTRAINT",
            "FOREIGN",
            "CHECK",
            "PARTITION",
        ];
        if HARMLESS.iter().any(|word| self.takes(&[word])) {
            return Action::Harmless;
        }
        if self.takes(&["RENAME", "INDEX"]) || self.takes(&["RENAME", "KEY"]) {
            return Action::Harmless;
        }
        if self.takes(&["ALTER"]) {
            // SET DEFAULT, DROP DEFAULT, SET VISIBLE: what rows are given from now on.
            return Action::Harmless;
        }
        if self.takes(&["ADD"]) {
            if KEYS.iter().any(|word| self.takes(&[word])) {
                return Action::Harmless;
            }
            return self.add();
        }
        if self.takes(&["DROP"]) {
            if self.takes(&["PARTITION"]) || self.takes(&["PRIMARY"]) {
                return Action::Other;
            }
            if KEYS.iter().any(|word| self.takes(&[word])) {
                return Action::Harmless;
            }
            self.takes(&["COLUMN"]);
            self.takes(&["IF", "EXISTS"]);
            return self.identifier().map_or(Action::Other, Action::Drop);
        }
        Action::Other
    }

    /// `ADD [COLUMN] name type …`, null in all rows when nothing says otherwise.
    fn add(mut self) -> Action {
        const FILLED: [&str; 11] = [
            "DEFAULT",
            "NOT",
            "AUTO_INCREMENT",
            "GENERATED",
            "AS",
            "FIRST",
            "AFTER",
            "PRIMARY",
            "SERIAL",
            "TIMESTAMP",
            "PERIOD",
        ];
        self.takes(&["COLUMN"]);
        self.takes(&["IF", "NOT", "EXISTS"]);
        let Some(name) = self.identifier() else { return Action::Other };
        while !self.words.is_empty() {
            if self.takes(&["DEFAULT", "NULL"]) {
                continue;
            }
            if FILLED.iter().any(|word| self.takes(&[word])) {
                return Action::Other;
            }
            self.skip();
        }
        Action::AddNull(name)
    }

    fn identifier(&mut self) -> Option<String> {
        let name = match self.words.first()? {
            Word::Plain(name) | Word::Name(name) => name.clone(),
            _ => return None,
        };
        self.skip();
        Some(name)
    }

    /// A table's name, with or without its database.
    fn name(&mut self) -> Option<TableId> {
        let first = self.identifier()?;
        if !self.takes_sign('.') {
            return Some(TableId::new(self.database, first));
        }
        Some(TableId::new(first, self.identifier()?))
    }

    /// Every pair of words that could name a table: by itself in this database, or behind a dot.
    fn all_names(mut self) -> Vec<TableId> {
        let mut names = Vec::new();
        while !self.words.is_empty() {
            match self.name() {
                Some(name) => names.push(name),
                None => self.skip(),
            }
        }
        names
    }

    fn skip(&mut self) {
        self.words = self.words.get(1..).unwrap_or_default();
    }

    /// Whether these words come next; then they are taken.
    fn takes(&mut self, wanted: &[&str]) -> bool {
        let found = wanted.iter().enumerate().all(|(at, wanted)| {
            matches!(self.words.get(at), Some(Word::Plain(word)) if word.eq_ignore_ascii_case(wanted))
        });
        if found {
            self.words = self.words.get(wanted.len()..).unwrap_or_default();
        }
        found
    }

    fn takes_sign(&mut self, wanted: char) -> bool {
        let found = self.words.first() == Some(&Word::Sign(wanted));
        if found {
            self.skip();
        }
        found
    }
}

#[cfg(test)]
mod tests;
