//! What identifies a row: the replica identity as far as it can serve as a key.

use crate::postgres::catalog::query::{ColumnRow, IndexRow, TableRow};
use crate::postgres::catalog::quoted_table;
use crate::postgres::types::{Types, is_exact_key, text_type};
use crate::schema::{Identity, TableId, Type};

/// The identity, and the key's columns (indices into the key) in the order of its index.
///
/// With REPLICA IDENTITY FULL the primary key is the key, where it can be; else the whole row is.
///
/// # Errors
/// The reason why updates and deletes can't be matched with rows, and the remedy.
pub(super) fn of(
    row: &TableRow,
    columns: &[&ColumnRow],
    types: &Types,
    texts: &[String],
) -> Result<(Identity, Vec<usize>), String> {
    partitions_agree(row)?;
    let table = quoted_table(&TableId::new(&row.schema, &row.name));
    let full = format!("alter table {table} replica identity full");
    let primary = row.indexes.iter().find(|index| index.primary);
    let index = match row.replica_identity {
        'f' => match primary.filter(|index| index.immediate) {
            Some(index) => {
                let key = key_of(index, columns, types, texts);
                return Ok(key.unwrap_or((Identity::FullRow, Vec::new())));
            }
            None => return Ok((Identity::FullRow, Vec::new())),
        },
        'i' => row.indexes.iter().find(|index| index.identity).ok_or_else(|| {
            format!("the index of its replica identity is gone; create it again, or {full}")
        })?,
        'n' => {
            return Err(format!(
                "REPLICA IDENTITY NOTHING keeps the old key out of the log; \
                 alter table {table} replica identity default"
            ));
        }
        _ => match primary {
            Some(index) if index.immediate => index,
            Some(_) => {
                return Err(format!(
                    "its primary key is deferrable, which identifies no row; {full}"
                ));
            }
            None => return Err(format!("it has no primary key; add one, or {full}")),
        },
    };
    key_of(index, columns, types, texts).map_err(|reason| format!("{reason}; {full}"))
}

fn key_of(
    index: &IndexRow,
    columns: &[&ColumnRow],
    types: &Types,
    texts: &[String],
) -> Result<(Identity, Vec<usize>), String> {
    let mut key = Vec::new();
    for id in &index.columns {
        let Some(at) = columns.iter().position(|column| column.id == *id) else {
            return Err("the publication's column list leaves out a column of its key".to_owned());
        };
        let Some(column) = columns.get(at) else { continue };
        let name = &column.name;
        let (oid, typmod) = (column.type_oid, column.typmod);
        if !is_exact_key(types, oid, typmod) || !column.deterministic {
            return Err(format!("key column {name} can be equal to other texts than its own"));
        }
        let float = matches!(
            crate::postgres::types::lake_type(types, oid, typmod),
            Type::Float32 | Type::Float64
        );
        if float && texts.contains(name) && text_type(types, oid, typmod) == Type::Text {
            return Err(format!("key column {name} is a float, which text_columns can't hold"));
        }
        key.push(at);
    }
    if key.is_empty() {
        return Err("its key has no columns".to_owned());
    }
    let mut sorted = key.clone();
    sorted.sort_unstable();
    let order = key.iter().filter_map(|at| sorted.iter().position(|column| column == at)).collect();
    Ok((Identity::Key(sorted), order))
}

/// The old row of a change comes as its partition's replica identity says, but is announced as
/// that of the partitioned table: where they differ, columns of it would pass for null.
fn partitions_agree(row: &TableRow) -> Result<(), String> {
    let names = |index: &IndexRow| index.names.clone();
    let expected = row.indexes.iter().find(|index| index.identity).map(names);
    let agrees = |leaf: &&crate::postgres::catalog::query::LeafRow| {
        leaf.replica_identity == row.replica_identity
            && (row.replica_identity != 'i' || leaf.identity == expected)
    };
    match row.leaves.iter().find(|leaf| !agrees(leaf)) {
        None => Ok(()),
        Some(leaf) => Err(format!(
            "partition {} has another replica identity than the table; \
             alter table … replica identity, on the partition, as on the table",
            leaf.name
        )),
    }
}
