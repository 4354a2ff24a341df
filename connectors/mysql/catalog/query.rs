//! The statements that read `information_schema`.

use std::collections::HashMap;

use crate::error::Result;
use crate::mysql::connection::{Connection, Flavor, literal};
use crate::schema::TableId;

/// A row of `information_schema.TABLES`.
#[derive(Debug, Clone)]
pub struct TableRow {
    /// Which table.
    pub id: TableId,
    /// `BASE TABLE`, `SYSTEM VERSIONED`, …
    pub kind: String,
    /// Its storage engine.
    pub engine: String,
    /// Its rows, by the server's estimate.
    pub rows: u64,
    /// The bytes of a row, by the server's estimate.
    pub row_bytes: u64,
}

/// A row of `information_schema.COLUMNS`.
#[derive(Debug, Clone)]
pub struct ColumnRow {
    /// Its name.
    pub name: String,
    /// Its place, from 1.
    pub place: u32,
    /// Its type with all modifiers.
    pub column_type: String,
    /// Its collation, of a text.
    pub collation: Option<String>,
    /// Whether it may be null.
    pub nullable: bool,
    /// Its default, other than null.
    pub default: Option<String>,
    /// `auto_increment`, `STORED GENERATED`, …
    pub extra: String,
    /// The expression of a generated column.
    pub expression: String,
}

/// A column of a unique index; `None`: one that can't identify a row (an expression, a prefix, or
/// a column that may be null).
pub type IndexPart = Option<String>;

/// A unique index: its name, and its columns in its order.
#[derive(Debug, Clone)]
pub struct IndexRow {
    /// Its name; `PRIMARY` for the primary key.
    pub name: String,
    /// Its columns.
    pub parts: Vec<IndexPart>,
}

/// Which tables are asked about.
pub enum Which<'a> {
    /// Those of all databases but the server's own.
    All,
    /// These.
    These(&'a [TableId]),
}

impl Which<'_> {
    fn condition(&self) -> String {
        match self {
            Self::All => "TABLE_SCHEMA NOT IN ('mysql', 'information_schema', \
                          'performance_schema', 'sys')"
                .to_owned(),
            Self::These(tables) => {
                let one = |id: &TableId| {
                    let (schema, name) = (literal(&id.schema), literal(&id.name));
                    format!("(TABLE_SCHEMA = {schema} AND TABLE_NAME = {name})")
                };
                let all: Vec<_> = tables.iter().map(one).collect();
                if all.is_empty() { "FALSE".to_owned() } else { all.join(" OR ") }
            }
        }
    }
}

fn id(schema: Option<String>, name: Option<String>) -> TableId {
    TableId::new(schema.unwrap_or_default(), name.unwrap_or_default())
}

fn number(text: &Option<String>) -> u64 {
    text.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Tables of every kind.
///
/// # Errors
/// When the catalog can't be read; the same below.
pub async fn tables(connection: &mut Connection, which: &Which<'_>) -> Result<Vec<TableRow>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, AVG_ROW_LENGTH \
         FROM information_schema.TABLES WHERE {}",
        which.condition()
    );
    let rows = connection.rows("listing tables", &sql).await?;
    let row = |row: Vec<Option<String>>| {
        let [schema, name, kind, engine, rows, row_bytes] = <[_; 6]>::try_from(row).ok()?;
        Some(TableRow {
            id: id(schema, name),
            kind: kind.unwrap_or_default(),
            engine: engine.unwrap_or_default(),
            rows: number(&rows),
            row_bytes: number(&row_bytes),
        })
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

/// Columns by table, each table's in their order.
pub async fn columns(
    connection: &mut Connection,
    which: &Which<'_>,
) -> Result<HashMap<TableId, Vec<ColumnRow>>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_TYPE, \
         COLLATION_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION \
         FROM information_schema.COLUMNS WHERE {} ORDER BY ORDINAL_POSITION",
        which.condition()
    );
    let maria = connection.flavor == Flavor::MariaDb;
    let mut found: HashMap<TableId, Vec<ColumnRow>> = HashMap::new();
    for row in connection.rows("listing columns", &sql).await? {
        let Ok([schema, table, name, place, kind, collation, nullable, default, extra, expression]) =
            <[_; 10]>::try_from(row)
        else {
            continue;
        };
        // MariaDB writes the default null as that word.
        let default = default.filter(|text| !maria || !text.eq_ignore_ascii_case("null"));
        found.entry(id(schema, table)).or_default().push(ColumnRow {
            name: name.unwrap_or_default(),
            place: number(&place) as u32,
            column_type: kind.unwrap_or_default(),
            collation,
            nullable: nullable.as_deref() == Some("YES"),
            default,
            extra: extra.unwrap_or_default(),
            expression: expression.unwrap_or_default(),
        });
    }
    Ok(found)
}

/// Unique indexes by table, the primary key first.
pub async fn indexes(
    connection: &mut Connection,
    which: &Which<'_>,
) -> Result<HashMap<TableId, Vec<IndexRow>>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE \
         FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND ({}) \
         ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
        which.condition()
    );
    let mut found: HashMap<TableId, Vec<IndexRow>> = HashMap::new();
    for row in connection.rows("listing indexes", &sql).await? {
        let Ok([schema, table, index, column, prefix, nullable]) = <[_; 6]>::try_from(row) else {
            continue;
        };
        let usable = prefix.is_none() && nullable.as_deref() != Some("YES");
        let part = column.filter(|_| usable);
        let (indexes, name) =
            (found.entry(id(schema, table)).or_default(), index.unwrap_or_default());
        match indexes.last_mut().filter(|last| last.name == name) {
            Some(last) => last.parts.push(part),
            None => indexes.push(IndexRow { name, parts: vec![part] }),
        }
    }
    Ok(found)
}

/// The collations whose texts are compared as if blanks stood behind them.
pub async fn padding(connection: &mut Connection) -> Result<HashMap<String, bool>> {
    let sql = match connection.flavor {
        Flavor::MySql => {
            "SELECT COLLATION_NAME, PAD_ATTRIBUTE = 'PAD SPACE' FROM information_schema.COLLATIONS"
        }
        // There the names tell.
        Flavor::MariaDb => return Ok(HashMap::new()),
    };
    let rows = connection.rows("listing collations", sql).await?;
    let row = |row: Vec<Option<String>>| {
        let [name, pads] = <[_; 2]>::try_from(row).ok()?;
        Some((name?, pads.as_deref() == Some("1")))
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

/// Tables whose rows change by actions of foreign keys that the server does not log, each with the
/// action. InnoDB carries them out below the log; MySQL does it above since 9.6, unless
/// `innodb_native_foreign_keys` says otherwise.
///
/// # Errors
/// When the catalog can't be read.
pub async fn unlogged_cascades(connection: &mut Connection) -> Result<HashMap<TableId, String>> {
    if connection.flavor == Flavor::MySql && connection.version >= [9, 6, 0] {
        let sql = "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'";
        let row = connection.rows("reading settings", sql).await?;
        if row.first().and_then(|row| row.get(1)).is_some_and(|v| v.as_deref() == Some("OFF")) {
            return Ok(HashMap::new());
        }
    }
    const SQL: &str = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UPDATE_RULE, DELETE_RULE \
        FROM information_schema.REFERENTIAL_CONSTRAINTS \
        WHERE UPDATE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT') \
        OR DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT')";
    let rows = connection.rows("listing foreign keys", SQL).await?;
    let row = |row: Vec<Option<String>>| {
        let [schema, table, update, delete] = <[_; 4]>::try_from(row).ok()?;
        let rule = format!(
            "ON UPDATE {} ON DELETE {}",
            update.unwrap_or_default(),
            delete.unwrap_or_default()
        );
        Some((TableId::new(schema?, table?), rule))
    };
    Ok(rows.into_iter().filter_map(row).collect())
}
