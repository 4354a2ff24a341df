//! What the system catalog says about tables: which can be kept, and what they look like now.
//!
//! **Which columns a table has.** Those that the log carries, so that snapshot and stream agree:
//! the publication's column list, or else all columns but generated ones. A stored generated
//! column is included where the publication carries it (`publish_generated_columns = stored`,
//! from Postgres 18), a virtual one never: it is an expression that any reader can write.
//!
//! **Which rows.** All of an ordinary or partitioned table (a partitioned table stands for its
//! partitions, which are not listed themselves; tables that inherit from it are tables of their
//! own), less what the publication's row filter leaves out.
//!
//! Each look is one statement, so that all it says is of one moment.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::Result;
use crate::filter::TableFilter;
use crate::postgres::binary::Form;
use crate::postgres::decode::{Relation, RelationMessage};
use crate::postgres::types::{Types, lake_type, text_type};
use crate::schema::{Column, Compare, TableId, TableSchema, Type};
use crate::source::Resolved;

mod identity;
mod query;
#[cfg(all(test, feature = "server-tests"))]
pub(super) mod server_tests;

pub(super) use query::fault;
use query::{ColumnRow, TableRow};

/// What the configuration says that changes what a table looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The publication whose column lists and row filters apply, where the server has it.
    pub publication: Option<String>,
    /// Columns to keep as text.
    pub text_columns: HashMap<TableId, Vec<String>>,
}

/// What [`discover`] found.
#[derive(Debug, Clone, Default)]
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
    pub relation: Relation,
    /// Its rows, by the server's estimate.
    pub rows: u64,
    pub(super) access: Access,
}

/// What reading the rows takes besides the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// `only "s"."t"`, or without `only` for a partitioned table.
    pub from: String,
    /// The publication's row filter.
    pub filter: Option<String>,
    /// The key's columns (indices into the key) in the order of its index.
    pub order: Vec<usize>,
    /// The SQL type of each key column.
    pub casts: Vec<String>,
    /// How the values of each column come.
    pub forms: Vec<Form>,
    /// Its pages, by the server's estimate.
    pub pages: u64,
}

/// What became of one table.
#[derive(Debug, Clone)]
pub enum Look {
    /// It can be kept.
    Kept(Box<Table>),
    /// It can't, and why, and what helps.
    Refused(TableId, String),
    /// There is no such table.
    Gone,
}

/// The tables that `filter` wants, as they are now.
///
/// # Errors
/// When the catalog can't be read.
pub async fn discover(client: &Client, filter: &TableFilter, options: &Options) -> Result<Found> {
    let names = query::names(client).await?;
    let wanted: Vec<_> =
        names.into_iter().filter(|(_, id)| filter.matches(id)).map(|(oid, _)| oid).collect();
    let mut found = Found::default();
    for look in looks(client, options, &wanted).await? {
        match look {
            Look::Kept(table) => found.tables.push(*table),
            Look::Refused(id, reason) => found.refused.push((id, reason)),
            Look::Gone => {}
        }
    }
    found.tables.sort_by(|a, b| a.relation.schema.id.cmp(&b.relation.schema.id));
    found.refused.sort();
    Ok(found)
}

/// What the table of object id `oid` looks like now.
///
/// # Errors
/// When the catalog can't be read.
pub async fn relation(client: &Client, options: &Options, oid: u32) -> Result<Look> {
    Ok(looks(client, options, &[oid]).await?.pop().unwrap_or(Look::Gone))
}

/// What `message`, which differs from `known`, says about the table: its schema of now, where that
/// is what the message describes.
///
/// # Errors
/// When the catalog can't be read.
pub async fn resolve(
    client: &Client,
    options: &Options,
    message: &RelationMessage,
    known: &Relation,
) -> Result<Resolved> {
    let id = &known.schema.id;
    let lost = |why: String| Ok(Resolved::Lost(id.clone(), why));
    let said = TableId::new(&message.namespace, &message.name);
    if said != *id {
        return lost(format!("it was renamed to {said}"));
    }
    match relation(client, options, message.oid).await? {
        Look::Gone => lost("it was dropped since".to_owned()),
        Look::Refused(_, reason) => lost(reason),
        Look::Kept(table) if table.relation.fits(message) => {
            Ok(Resolved::Schema(table.relation.schema))
        }
        Look::Kept(table) if table.relation.schema.id != *id => {
            lost(format!("it was renamed to {} since", table.relation.schema.id))
        }
        Look::Kept(_) => lost("it was altered more than once since it was last read".to_owned()),
    }
}

async fn looks(client: &Client, options: &Options, oids: &[u32]) -> Result<Vec<Look>> {
    let rows = query::tables(client, oids, options.publication.as_deref()).await?;
    let mut oids: Vec<u32> = rows.iter().flat_map(|row| &row.columns).map(|c| c.type_oid).collect();
    oids.sort_unstable();
    oids.dedup();
    let types = query::types(client, &oids).await?;
    rows.into_iter().map(|row| look(row, &types, options)).collect()
}

fn look(row: TableRow, types: &Types, options: &Options) -> Result<Look> {
    let id = TableId::new(&row.schema, &row.name);
    let texts = options.text_columns.get(&id).map_or(&[][..], Vec::as_slice);
    let columns: Vec<&ColumnRow> = row.columns.iter().filter(|c| row.publishes(c)).collect();
    let identity = match refusal(&row, &columns) {
        Some(reason) => Err(reason),
        None => identity::of(&row, &columns, types, texts),
    };
    let (identity, order) = match identity {
        Ok(identity) => identity,
        Err(reason) => return Ok(Look::Refused(id, reason)),
    };
    let casts = match &identity {
        crate::Identity::Key(key) => {
            key.iter().filter_map(|&at| columns.get(at)).map(|c| c.cast.clone()).collect()
        }
        crate::Identity::FullRow | crate::Identity::None => Vec::new(),
    };
    let only = if row.kind == 'p' { "" } else { "only " };
    let access = Access {
        from: format!("{only}{}", quoted_table(&id)),
        filter: row.filter.clone(),
        order,
        casts,
        forms: columns.iter().map(|column| form(column, types, texts)).collect(),
        pages: row.pages,
    };
    let rows = row.rows.max(0.0) as u64;
    let storage = row.storage(&columns).marks();
    let columns = columns.into_iter().map(|column| lake_column(column, types, texts)).collect();
    let schema = TableSchema { id, columns, identity, storage, lasting_ids: true };
    let relation = Relation::new(Arc::new(schema))?;
    Ok(Look::Kept(Box::new(Table { relation, rows, access })))
}

fn kind(column: &ColumnRow, types: &Types, texts: &[String]) -> Type {
    let as_text = texts.contains(&column.name);
    let map = if as_text { text_type } else { lake_type };
    map(types, column.type_oid, column.typmod)
}

fn form(column: &ColumnRow, types: &Types, texts: &[String]) -> Form {
    Form::of(types, column.type_oid, column.typmod, &kind(column, types, texts))
}

fn lake_column(column: &ColumnRow, types: &Types, texts: &[String]) -> Column {
    Column {
        id: column.id,
        name: column.name.clone(),
        kind: kind(column, types, texts),
        source_type: format!("{}/{}", column.type_oid, column.typmod),
        missing: column.missing.clone(),
        compare: Compare::EXACT,
    }
}

/// Why the table can't be kept, whatever identifies its rows.
fn refusal(row: &TableRow, columns: &[&ColumnRow]) -> Option<String> {
    let table = quoted_table(&TableId::new(&row.schema, &row.name));
    if row.partition {
        return Some("it is a partition: its rows belong to the table that it is a part of".into());
    }
    if row.persistence == 'u' {
        return Some(format!(
            "it is unlogged, so its changes are not in the log; alter table {table} set logged"
        ));
    }
    if columns.is_empty() {
        return Some("it has no columns that the log carries; leave it out".into());
    }
    if !row.usable {
        let schema = quoted(&row.schema);
        return Some(format!(
            "its schema can't be used; grant usage on schema {schema} to current_user"
        ));
    }
    if let Some(column) = columns.iter().find(|column| !column.readable) {
        let name = &column.name;
        return Some(format!("column {name} can't be read; grant select on {table} to this role"));
    }
    if row.row_security {
        return Some("row-level security hides rows from this role; alter role … bypassrls".into());
    }
    row.leaves.iter().find_map(|leaf| {
        let name = &leaf.name;
        let what = match (leaf.kind, leaf.persistence) {
            ('f', _) => format!("partition {name} is a foreign table, which the log doesn't cover"),
            (_, 'u') => format!("partition {name} is unlogged; alter table {name} set logged"),
            _ => return None,
        };
        Some(what)
    })
}

/// `"name"`, whatever the name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
pub(super) fn quoted_table(id: &TableId) -> String {
    format!("{}.{}", quoted(&id.schema), quoted(&id.name))
}
