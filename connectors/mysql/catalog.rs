//! What `information_schema` says about tables: which can be kept, and what they look like now.
//!
//! **Which columns a table has.** All of them, generated and invisible ones too: the log's rows
//! have them all, in this order.
//!
//! **What identifies a row.** The primary key, else a unique index of columns that are not null,
//! as long as keys can be told apart here exactly as the server does; else the whole row.
//!
//! A column is recognised by its place. That is enough because no definition changes without a
//! statement in the log, which says what it did to the columns (`statement`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::charset::{self, Charset, Charsets, compare_of, of_collation};
use super::connection::{Connection, Flavor, quoted};
use super::decode::{Known, Question};
use super::statement::Action;
use super::types::{Kind, collation, source_type};
use crate::error::Result;
use crate::filter::TableFilter;
use crate::schema::{Column, Compare, Identity, TableId, TableSchema};
use crate::source::Resolved;

mod query;

use query::{ColumnRow, IndexRow, TableRow, Which};

/// What looks at the catalog share: the configuration, and what was learned about character sets.
#[derive(Debug, Default)]
pub struct Shared {
    /// Which tables are wanted.
    pub filter: TableFilter,
    /// Columns to keep as text.
    pub text_columns: HashMap<TableId, Vec<String>>,
    charsets: Mutex<Charsets>,
}

/// What [`discover`](Shared::discover) found.
#[derive(Debug, Default)]
pub struct Found {
    /// The tables that can be kept.
    pub tables: Vec<Table>,
    /// The others that the filter wants, each with the reason and the remedy.
    pub refused: Vec<(TableId, String)>,
}

/// A table that can be kept.
#[derive(Debug, Clone)]
pub struct Table {
    /// What it looks like.
    pub schema: Arc<TableSchema>,
    /// Its rows, by the server's estimate.
    pub rows: u64,
    /// The bytes of a row, by the server's estimate.
    pub row_bytes: u64,
    /// The key's index; empty without a key.
    pub index: String,
    /// The key's columns (indices into the key) in the order of its index.
    pub order: Vec<usize>,
}

/// What became of one table.
#[derive(Debug)]
pub enum Look {
    /// It can be kept.
    Kept(Box<Table>),
    /// It can't, and why, and what helps.
    Refused(String),
    /// There is no such table.
    Gone,
}

impl Shared {
    /// For these tables.
    pub fn new(filter: TableFilter, text_columns: HashMap<TableId, Vec<String>>) -> Self {
        Self { filter, text_columns, charsets: Mutex::default() }
    }

    /// Whether the filter wants a table of this name.
    pub fn selects(&self, table: &TableId) -> bool {
        self.filter.matches(table)
    }

    /// The tables that the filter wants, as they are now.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn discover(&self, connection: &mut Connection) -> Result<Found> {
        let mut found = Found::default();
        for (id, look) in self.looks(connection, Which::All).await? {
            match look {
                Look::Kept(table) => found.tables.push(*table),
                Look::Refused(reason) => found.refused.push((id, reason)),
                Look::Gone => {}
            }
        }
        found.tables.sort_by(|a, b| a.schema.id.cmp(&b.schema.id));
        found.refused.sort();
        Ok(found)
    }

    /// What `table` looks like now.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn look(&self, connection: &mut Connection, table: &TableId) -> Result<Look> {
        let looks = self.looks(connection, Which::These(std::slice::from_ref(table))).await?;
        let found = looks.into_iter().find(|(id, _)| id == table);
        Ok(found.map_or(Look::Gone, |(_, look)| look))
    }

    async fn looks(
        &self,
        connection: &mut Connection,
        which: Which<'_>,
    ) -> Result<Vec<(TableId, Look)>> {
        let tables = query::tables(connection, &which).await?;
        let wanted: Vec<_> =
            tables.into_iter().filter(|t| is_table(t) && self.filter.matches(&t.id)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut columns = query::columns(connection, &which).await?;
        let mut indexes = query::indexes(connection, &which).await?;
        let padding = query::padding(connection).await?;
        let mut cascades = query::unlogged_cascades(connection).await?;
        let mut looks = Vec::with_capacity(wanted.len());
        for table in wanted {
            let id = table.id.clone();
            if let Some(rule) = cascades.remove(&id) {
                looks.push((id, Look::Refused(cascade_reason(&rule))));
                continue;
            }
            let columns = columns.remove(&id).unwrap_or_default();
            let names = columns.iter().filter_map(|column| column.collation.as_deref());
            let unknown = self.learn(connection, names).await?;
            let indexes = indexes.remove(&id).unwrap_or_default();
            let builder = Draft { table, columns, indexes, padding: &padding };
            let texts = self.text_columns.get(&id).map_or(&[][..], Vec::as_slice);
            looks.push((id, builder.look(texts, &unknown)));
        }
        Ok(looks)
    }

    /// Asks for the character sets of collations that are not known yet, and returns those that
    /// can't be followed.
    ///
    /// # Errors
    /// When the server does not answer.
    async fn learn(
        &self,
        connection: &mut Connection,
        collations: impl Iterator<Item = &str>,
    ) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for name in collations.map(of_collation) {
            if self.charsets().contains_key(name) || unknown.iter().any(|other| other == name) {
                continue;
            }
            match charset::load(connection, name).await? {
                Some(charset) => self.add(name, charset),
                None => unknown.push(name.to_owned()),
            }
        }
        Ok(unknown)
    }

    fn add(&self, name: &str, charset: Charset) {
        let mut known = self.charsets.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), Arc::new(charset));
    }

    /// The character sets learned so far.
    pub fn charsets(&self) -> Charsets {
        self.charsets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Learns the character sets of tables whose schemas come from the lake.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn learn_all(
        &self,
        connection: &mut Connection,
        tables: &[Arc<TableSchema>],
    ) -> Result<()> {
        let columns = tables.iter().flat_map(|table| &table.columns);
        let names = columns.filter_map(|column| collation(&column.source_type));
        self.learn(connection, names).await.map(|_| ())
    }

    /// Answers what the decoder has to know. What can't be told from the catalog of now is lost.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn resolve(
        &self,
        connection: &mut Connection,
        question: &Question,
        known: impl Fn(&TableId) -> Option<Arc<TableSchema>>,
        all: &[TableId],
    ) -> Result<Vec<Resolved>> {
        let lost = |tables: &[TableId], why: &str| {
            let lost = tables.iter().map(|table| Resolved::Lost(table.clone(), why.to_owned()));
            lost.collect()
        };
        Ok(match question {
            Question::Replaced(tables, why) => lost(tables, why),
            Question::Dropped(tables) => {
                let tables = tables.iter().cloned();
                tables.map(|table| Resolved::Dropped { table, shows_next: false }).collect()
            }
            Question::Everything(why) => lost(all, why),
            Question::Altered(table, actions) => {
                let before = known(table);
                let look = self.look(connection, table).await?;
                vec![altered(table, before.as_deref(), actions, look)]
            }
            Question::Shape { table, columns, names } => {
                match self.look(connection, table).await? {
                    Look::Kept(now)
                        if Known::new(now.schema.clone(), &self.charsets())
                            .is_ok_and(|known| known.fits(columns, names.as_deref())) =>
                    {
                        vec![Resolved::Schema(now.schema)]
                    }
                    Look::Refused(reason) => lost(std::slice::from_ref(table), &reason),
                    _ => lost(
                        std::slice::from_ref(table),
                        "it was altered without a trace in the log",
                    ),
                }
            }
            Question::Statement { kept, names } => {
                const WHY: &str = "it was changed by a statement that the log holds as text \
                                   (binlog_format was not ROW)";
                match kept.is_empty() {
                    false => lost(kept, WHY),
                    true if self.are_plain(connection, names).await? => Vec::new(),
                    // Behind a view, a trigger or a function may be any table.
                    true => lost(all, WHY),
                }
            }
        })
    }

    /// Whether among these names is a table, and none of them is a view or has a trigger.
    async fn are_plain(&self, connection: &mut Connection, names: &[TableId]) -> Result<bool> {
        let tables = query::tables(connection, &Which::These(names)).await?;
        let triggers = "SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE \
                        FROM information_schema.TRIGGERS";
        let triggers = connection.rows("listing triggers", triggers).await?;
        let has_trigger = |table: &TableRow| {
            triggers.iter().any(|row| match row.as_slice() {
                [Some(schema), Some(name)] => *schema == table.id.schema && *name == table.id.name,
                _ => false,
            })
        };
        let plain = |table: &TableRow| table.kind == "BASE TABLE" && !has_trigger(table);
        Ok(!tables.is_empty() && tables.iter().all(plain))
    }
}

/// What a change of definition, told by its statement, makes of what is known; the catalog of now
/// must say the same.
fn altered(
    table: &TableId,
    before: Option<&TableSchema>,
    actions: &[Action],
    look: Look,
) -> Resolved {
    let lost = |why: &str| Resolved::Lost(table.clone(), why.to_owned());
    let now = match look {
        Look::Kept(now) => now.schema,
        Look::Refused(reason) => return lost(&reason),
        Look::Gone => return lost("it was dropped since"),
    };
    let Some(before) = before else { return lost("its definition was changed") };
    let mut expected: Vec<(&str, Option<&Column>)> =
        before.columns.iter().map(|column| (column.name.as_str(), Some(column))).collect();
    for action in actions {
        match action {
            Action::Harmless => {}
            Action::AddNull(name) => expected.push((name, None)),
            Action::Drop(name) => expected.retain(|(known, _)| known != name),
            Action::Other => return lost("its definition was changed"),
        }
    }
    let names_once = expected.iter().all(|(name, _)| {
        expected.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count() == 1
    });
    let was_there = |name: &str| before.column(name).is_some();
    let readded = expected.iter().any(|(name, known)| known.is_none() && was_there(name));
    let agrees = expected.len() == now.columns.len()
        && expected.iter().zip(&now.columns).all(|((name, known), is)| match known {
            Some(known) => {
                is.name == known.name
                    && is.kind == known.kind
                    && is.source_type == known.source_type
            }
            None => is.name == *name && is.missing.is_none(),
        });
    let key = |schema: &TableSchema| -> Vec<String> {
        let columns = schema.key().iter().filter_map(|&at| schema.columns.get(at));
        columns.map(|column| column.name.clone()).collect()
    };
    match agrees && names_once && !readded && key(before) == key(&now) {
        true => Resolved::Schema(now),
        false => lost("its definition was changed"),
    }
}

fn cascade_reason(rule: &str) -> String {
    format!(
        "a foreign key changes its rows without a trace in the log ({rule}); take that action from \
         the foreign key, or leave the table out"
    )
}

/// Views, sequences and temporary tables have no rows of their own in the log.
fn is_table(table: &TableRow) -> bool {
    matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED")
}

/// A table's rows in the catalog on their way to a schema.
struct Draft<'a> {
    table: TableRow,
    columns: Vec<ColumnRow>,
    indexes: Vec<IndexRow>,
    padding: &'a HashMap<String, bool>,
}

impl Draft<'_> {
    fn look(self, texts: &[String], unknown: &[String]) -> Look {
        if let Some(reason) = self.refusal() {
            return Look::Refused(reason);
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for row in &self.columns {
            match self.column(row, texts, unknown) {
                Ok(column) => columns.push(column),
                Err(reason) => return Look::Refused(reason),
            }
        }
        if let Some(reason) = twice(&columns) {
            return Look::Refused(reason);
        }
        let (identity, index, order) = self.identity(&mut columns);
        let schema = TableSchema {
            id: self.table.id.clone(),
            columns,
            identity,
            storage: format!("engine={}", self.table.engine.to_ascii_lowercase()),
            lasting_ids: false,
        };
        Look::Kept(Box::new(Table {
            schema: Arc::new(schema),
            rows: self.table.rows,
            row_bytes: self.table.row_bytes,
            index,
            order,
        }))
    }

    /// Why the table can't be kept, whatever its columns.
    fn refusal(&self) -> Option<String> {
        let name = quoted_table(&self.table.id);
        if self.table.kind == "SYSTEM VERSIONED" {
            return Some(format!(
                "it keeps its own history (WITH SYSTEM VERSIONING), which the log mixes with its \
                 rows; ALTER TABLE {name} DROP SYSTEM VERSIONING"
            ));
        }
        if self.columns.is_empty() {
            return Some(format!("its columns can't be read; GRANT SELECT ON {name} to this user"));
        }
        // Only there a read has a view, and a change is in the log exactly when it is committed.
        let known = ["InnoDB", "ROCKSDB"].iter().any(|e| self.table.engine.eq_ignore_ascii_case(e));
        (!known).then(|| {
            format!(
                "its storage engine {} has no transactions; ALTER TABLE {name} ENGINE = InnoDB",
                self.table.engine
            )
        })
    }

    fn column(
        &self,
        row: &ColumnRow,
        texts: &[String],
        unknown: &[String],
    ) -> Result<Column, String> {
        let name = &row.name;
        let kind = Kind::parse(&row.column_type).ok_or_else(|| {
            format!("column {name} is of type {}, which is not understood", row.column_type)
        })?;
        let collation = row.collation.as_deref().filter(|_| kind.has_charset());
        if let Some(set) =
            collation.map(of_collation).filter(|set| unknown.iter().any(|u| u == set))
        {
            return Err(format!(
                "column {name} is of character set {set}, whose texts can't be followed exactly; \
                 convert it to utf8mb4, or leave the table out"
            ));
        }
        let lake = match texts.contains(name) {
            false => kind.lake_type(),
            true => kind.text_type().ok_or_else(|| {
                format!(
                    "column {name} is of type {}, of which there is no text to keep; take it out of \
                     text_columns",
                    row.column_type
                )
            })?,
        };
        // What rows that were there before the column have in it, unless that is null.
        let filled = !row.nullable
            || row.default.is_some()
            || !row.expression.is_empty()
            || row.extra.contains("auto_increment");
        Ok(Column {
            id: row.place,
            name: name.clone(),
            kind: lake,
            source_type: source_type(&row.column_type, collation, &row.expression),
            missing: filled.then(|| row.default.clone().unwrap_or_default()),
            compare: Compare::EXACT,
        })
    }

    /// What identifies a row, its index, and the order of the key's columns there.
    fn identity(&self, columns: &mut [Column]) -> (Identity, String, Vec<usize>) {
        for index in &self.indexes {
            let Some(parts) = self.key_of(index, columns) else { continue };
            let mut key: Vec<usize> = parts.iter().map(|(at, _)| *at).collect();
            key.sort_unstable();
            let place = |at: usize| key.iter().position(|of_key| *of_key == at);
            let order = parts.iter().filter_map(|(at, _)| place(*at)).collect();
            for (at, compare) in parts {
                if let Some(column) = columns.get_mut(at) {
                    column.compare = compare;
                }
            }
            return (Identity::Key(key), index.name.clone(), order);
        }
        (Identity::FullRow, String::new(), Vec::new())
    }

    /// The columns of a unique index and how they compare; `None` when keys can't be told apart as
    /// the server does.
    fn key_of(&self, index: &IndexRow, columns: &[Column]) -> Option<Vec<(usize, Compare)>> {
        let part = |part: &Option<String>| {
            let name = part.as_ref()?;
            let at = columns.iter().position(|column| column.name == *name)?;
            let column = columns.get(at)?;
            let kind = Kind::parse(&column.source_type)?;
            // Images that leave columns out may leave a virtual one out of a row's key.
            let computed = self.columns.get(at)?.extra.contains("VIRTUAL");
            if !kind.is_key() || computed {
                return None;
            }
            let compare = match collation(&column.source_type) {
                Some(collation) if kind == Kind::Text => {
                    compare_of(collation, self.pads(collation))?
                }
                _ => Compare::EXACT,
            };
            Some((at, compare))
        };
        index.parts.iter().map(part).collect()
    }

    fn pads(&self, collation: &str) -> bool {
        self.padding.get(collation).copied().unwrap_or_else(|| !collation.contains("nopad"))
    }
}

/// Two names that differ only in case can't be in one Delta table. MySQL has no such columns; but
/// its way of folding is not ours.
fn twice(columns: &[Column]) -> Option<String> {
    let mut names = HashMap::new();
    columns.iter().find_map(|column| {
        let other = names.insert(column.name.to_lowercase(), &column.name)?;
        Some(format!("columns {other} and {} differ only in case", column.name))
    })
}

/// `` `schema`.`name` ``.
pub fn quoted_table(id: &TableId) -> String {
    format!("{}.{}", quoted(&id.schema), quoted(&id.name))
}

/// What a server of `flavor` calls the statement about its log, from `version` on.
pub fn log_status(flavor: Flavor, version: [u32; 3]) -> &'static str {
    match flavor == Flavor::MySql && version >= [8, 2, 0] {
        true => "SHOW BINARY LOG STATUS",
        false => "SHOW MASTER STATUS",
    }
}

#[cfg(test)]
mod tests;
