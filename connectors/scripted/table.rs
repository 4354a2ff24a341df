//! Tables as the simulated database holds them, and what its log says happened to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::change::Value;
use crate::error::{Error, Result};
use crate::patch::{Edit, Patch, Style};
use crate::schema::{Column, Compare, Identity, TableId, TableSchema, Type};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// Of a column of [`Kind::Int`].
    Int(i64),
    /// Of a column of [`Kind::Text`], [`Kind::Toasted`] or [`Kind::Document`].
    Text(String),
}

impl Cell {
    /// The value as a decoder hands it over.
    pub fn value(&self) -> Value<'_> {
        match self {
            Cell::Null => Value::Null,
            Cell::Int(value) => Value::Int(*value),
            Cell::Text(text) => Value::Text(text),
        }
    }
}

/// One value a column.
pub type Row = Vec<Cell>;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Int,
    /// Text that is always sent.
    Text,
    /// Text that is not sent by an update that leaves it alone.
    Toasted,
    /// A JSON array of which an update sends what changed, and nothing when it leaves it alone.
    Document,
}

/// A table to be created.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its name.
    pub id: TableId,
    /// Whether its first column, an integer, is its key; otherwise the full row is.
    pub keyed: bool,
    /// Its columns.
    pub columns: Vec<(String, Kind)>,
}

impl Definition {
    /// A table whose first column is its key.
    pub fn keyed(id: &TableId, columns: &[(&str, Kind)]) -> Self {
        Self { keyed: true, ..Self::keyless(id, columns) }
    }

    /// A table without a key.
    pub fn keyless(id: &TableId, columns: &[(&str, Kind)]) -> Self {
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        Self { id: id.clone(), keyed: false, columns }
    }

    /// The schema of the table created as number `storage`.
    pub(super) fn schema(&self, storage: u64) -> TableSchema {
        let columns = self.columns.iter().zip(1..);
        TableSchema {
            id: self.id.clone(),
            columns: columns.map(|((name, kind), id)| column(id, name, *kind)).collect(),
            identity: if self.keyed { Identity::Key(vec![0]) } else { Identity::FullRow },
            storage: format!("oid={storage}"),
            lasting_ids: true,
        }
    }
}

pub(super) fn column(id: u32, name: &str, kind: Kind) -> Column {
    let (lake, source) = match kind {
        Kind::Int => (Type::Int64, "int8"),
        Kind::Text => (Type::Text, "text"),
        Kind::Toasted => (Type::Text, TOASTED),
        Kind::Document => (Type::Text, DOCUMENT),
    };
    let (name, source_type) = (name.to_owned(), source.to_owned());
    Column { id, name, kind: lake, source_type, missing: None, compare: Compare::EXACT }
}

/// The source's own name for [`Kind::Toasted`].
pub(super) const TOASTED: &str = "text, toasted";
/// The source's own name for [`Kind::Document`].
pub(super) const DOCUMENT: &str = "json";

/// What a statement does. A statement that the table doesn't admit (a key twice, a row that is not
/// there) refuses its transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A new row.
    Insert(TableId, Row),
    /// The row whose key is the first value (without a key: the row that equals) gets new values;
    /// `None` leaves one as it is.
    Update(TableId, Row, Vec<Option<Cell>>),
    /// The row whose key is the first value (without a key: one row that equals) goes.
    Delete(TableId, Row),
    /// All rows go.
    Truncate(TableId),
    /// A new table; the name must be free.
    Create(Definition),
    /// The table goes.
    Drop(TableId),
    /// A column comes, null in all rows.
    AddColumn(TableId, String, Kind),
    /// A column goes.
    DropColumn(TableId, String),
}

/// What the log says of one statement.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Insert {
        schema: Arc<TableSchema>,
        row: Row,
    },
    /// `unchanged` names the columns that are not sent, `patches` those of which a patch is.
    Update {
        schema: Arc<TableSchema>,
        old: Row,
        row: Row,
        unchanged: Vec<usize>,
        patches: Vec<(usize, String)>,
    },
    Delete {
        schema: Arc<TableSchema>,
        old: Row,
    },
    Truncate {
        schema: Arc<TableSchema>,
    },
    /// The table is created, or looks otherwise from here on.
    Schema {
        schema: Arc<TableSchema>,
    },
    Drop {
        table: TableId,
    },
}

/// What a transaction touches: rows by their identity, or a table whole.
pub(super) type Footprint = BTreeSet<(TableId, Option<Row>)>;

impl Event {
    pub(super) fn table(&self) -> &TableId {
        match self {
            Event::Insert { schema, .. }
            | Event::Update { schema, .. }
            | Event::Delete { schema, .. }
            | Event::Truncate { schema }
            | Event::Schema { schema } => &schema.id,
            Event::Drop { table } => table,
        }
    }

    pub(super) fn touches(&self, footprint: &mut Footprint) {
        let mut touch = |row| footprint.insert((self.table().clone(), row));
        match self {
            Event::Insert { schema, row } | Event::Delete { schema, old: row } => {
                touch(Some(identity(schema, row)));
            }
            Event::Update { schema, old, row, .. } => {
                touch(Some(identity(schema, old)));
                touch(Some(identity(schema, row)));
            }
            Event::Truncate { .. } | Event::Schema { .. } | Event::Drop { .. } => {
                touch(None);
            }
        }
    }
}

/// Whether the order of two transactions matters.
pub(super) fn conflict(one: &Footprint, other: &Footprint) -> bool {
    one.iter().any(|touched @ (table, row)| {
        let whole = (table.clone(), None);
        match row {
            Some(_) => other.contains(touched) || other.contains(&whole),
            // None comes before every row of its table.
            None => other.range(whole..).next().is_some_and(|(first, _)| first == table),
        }
    })
}

/// What tells `row` from the others: its key, or all of it.
pub(super) fn identity(schema: &TableSchema, row: &[Cell]) -> Row {
    match schema.identity {
        Identity::Key(_) => row.first().cloned().into_iter().collect(),
        Identity::FullRow | Identity::None => row.to_vec(),
    }
}

/// A table and its rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) schema: Arc<TableSchema>,
    /// By identity; equal rows of a table without a key are counted.
    rows: BTreeMap<Row, (Row, usize)>,
    /// The highest number of a column ever given.
    columns: u32,
}

impl Table {
    fn new(schema: &Arc<TableSchema>) -> Self {
        let mut table = Self { schema: schema.clone(), rows: BTreeMap::new(), columns: 0 };
        table.become_like(schema);
        table
    }

    /// All rows in no order that means anything; equal ones as often as they are there.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().flat_map(|(row, count)| std::iter::repeat_n(row, *count))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.values().map(|(_, count)| count).sum()
    }

    fn get(&self, row: &[Cell]) -> Option<&Row> {
        self.rows.get(&identity(&self.schema, row)).map(|(row, _)| row)
    }

    fn add(&mut self, row: Row) {
        let identity = identity(&self.schema, &row);
        self.rows.entry(identity).or_insert((row, 0)).1 += 1;
    }

    fn remove(&mut self, row: &[Cell]) {
        let identity = identity(&self.schema, row);
        if let Some((_, count)) = self.rows.get_mut(&identity) {
            *count -= 1;
            if *count == 0 {
                self.rows.remove(&identity);
            }
        }
    }

    /// Gives the table another schema; columns are told by their number.
    fn become_like(&mut self, schema: &Arc<TableSchema>) {
        let highest = schema.columns.iter().map(|column| column.id).max();
        self.columns = self.columns.max(highest.unwrap_or(0));
        let old = std::mem::replace(&mut self.schema, schema.clone());
        let from: Vec<Option<usize>> = schema
            .columns
            .iter()
            .map(|column| old.columns.iter().position(|old| old.id == column.id))
            .collect();
        let rows = std::mem::take(&mut self.rows);
        for (row, count) in rows.into_values() {
            let cell = |from: &Option<usize>| from.map_or(Cell::Null, |at| row[at].clone());
            let row: Row = from.iter().map(cell).collect();
            (0..count).for_each(|_| self.add(row.clone()));
        }
    }
}

/// All tables at some moment.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<TableId, Table>,
}

impl State {
    pub(super) fn apply(&mut self, event: &Event) {
        if let Event::Drop { table } = event {
            self.tables.remove(table);
            return;
        }
        let Some(table) = self.tables.get_mut(event.table()) else {
            if let Event::Schema { schema } = event {
                self.tables.insert(schema.id.clone(), Table::new(schema));
            }
            return;
        };
        match event {
            Event::Insert { row, .. } => table.add(row.clone()),
            Event::Update { old, row, .. } => {
                table.remove(old);
                table.add(row.clone());
            }
            Event::Delete { old, .. } => table.remove(old),
            Event::Truncate { .. } => table.rows.clear(),
            Event::Schema { schema } => table.become_like(schema),
            Event::Drop { .. } => {}
        }
    }

    /// What the log will say of `operation`; `storage` numbers the tables ever created.
    pub(super) fn plan(&self, operation: Operation, storage: &mut u64) -> Result<Event> {
        match operation {
            Operation::Insert(id, row) => self.plan_insert(&id, row),
            Operation::Update(id, old, new) => self.plan_update(&id, &old, new),
            Operation::Delete(id, old) => {
                let (table, old) = self.find(&id, &old)?;
                Ok(Event::Delete { schema: table.schema.clone(), old: old.clone() })
            }
            Operation::Truncate(id) => {
                Ok(Event::Truncate { schema: self.table(&id)?.schema.clone() })
            }
            Operation::Create(definition) if self.tables.contains_key(&definition.id) => {
                Err(refused(&definition.id, "the table is there already"))
            }
            Operation::Create(definition) => {
                *storage += 1;
                Ok(Event::Schema { schema: Arc::new(definition.schema(*storage)) })
            }
            Operation::Drop(id) => {
                self.table(&id)?;
                Ok(Event::Drop { table: id })
            }
            Operation::AddColumn(id, name, kind) => self.plan_column(&id, |schema, next| {
                let free = schema.column(&name).is_none();
                schema.columns.push(column(next, &name, kind));
                free
            }),
            Operation::DropColumn(id, name) => self.plan_column(&id, |schema, _| {
                let at = schema.column(&name).filter(|at| !schema.key().contains(at));
                at.map(|at| schema.columns.remove(at)).is_some()
            }),
        }
    }

    fn plan_insert(&self, id: &TableId, row: Row) -> Result<Event> {
        let table = self.table(id)?;
        if row.len() != table.schema.columns.len() {
            return Err(refused(id, "a row has another number of values than columns"));
        }
        if table.schema.identity != Identity::FullRow && table.get(&row).is_some() {
            return Err(refused(id, "the key is there already"));
        }
        Ok(Event::Insert { schema: table.schema.clone(), row })
    }

    fn plan_update(&self, id: &TableId, old: &[Cell], new: Vec<Option<Cell>>) -> Result<Event> {
        let (table, old) = self.find(id, old)?;
        let schema = table.schema.clone();
        if new.len() != schema.columns.len() {
            return Err(refused(id, "a row has another number of values than columns"));
        }
        let is_kept = |at: usize| [TOASTED, DOCUMENT].contains(&&*schema.columns[at].source_type);
        let unchanged = (0..new.len()).filter(|&at| new[at].is_none() && is_kept(at)).collect();
        let documents = (0..new.len()).filter(|&at| schema.columns[at].source_type == DOCUMENT);
        let patch = |at: usize| Some((at, difference(&old[at], new[at].as_ref()?)?));
        let patches = documents.filter_map(patch).collect();
        let row: Row =
            new.into_iter().zip(old).map(|(new, old)| new.unwrap_or_else(|| old.clone())).collect();
        let keyed = schema.identity != Identity::FullRow;
        if keyed && identity(&schema, &row) != identity(&schema, old) && table.get(&row).is_some() {
            return Err(refused(id, "the key is there already"));
        }
        Ok(Event::Update { schema, old: old.clone(), row, unchanged, patches })
    }

    fn plan_column(
        &self,
        id: &TableId,
        change: impl FnOnce(&mut TableSchema, u32) -> bool,
    ) -> Result<Event> {
        let table = self.table(id)?;
        let mut schema = (*table.schema).clone();
        if !change(&mut schema, table.columns + 1) {
            return Err(refused(id, "the column can't be added or dropped"));
        }
        Ok(Event::Schema { schema: Arc::new(schema) })
    }

    fn table(&self, id: &TableId) -> Result<&Table> {
        self.tables.get(id).ok_or_else(|| refused(id, "there is no such table"))
    }

    fn find(&self, id: &TableId, row: &[Cell]) -> Result<(&Table, &Row)> {
        let table = self.table(id)?;
        let row = table.get(row).ok_or_else(|| refused(id, "there is no such row"))?;
        Ok((table, row))
    }
}

/// The patch that makes `new` of `old`; `None` where one of them is no array.
fn difference(old: &Cell, new: &Cell) -> Option<String> {
    let items = |cell: &Cell| match cell {
        Cell::Text(text) => serde_json::from_str::<Vec<i64>>(text).ok(),
        _ => None,
    };
    let (old, new) = (items(old)?, items(new)?);
    let mut patch = Patch::new(Style::Compact);
    match new.split_first() {
        // Done twice, this would show.
        Some((first, rest)) if rest == old => {
            patch.edit(Edit::Insert, "[0]", Some(&first.to_string()));
        }
        _ => {
            let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
            patch.edit(Edit::Truncate, "[]", Some(&same.to_string()));
            for (at, item) in new.iter().enumerate().skip(same) {
                patch.edit(Edit::Set, &format!("[{at}]"), Some(&item.to_string()));
            }
        }
    }
    Some(patch.finish())
}

fn refused(id: &TableId, why: &str) -> Error {
    Error::internal(format!("the script's statement is refused: {why}")).with("table", id)
}
