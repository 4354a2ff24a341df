//! What the users of the simulated database do: random transactions, now and then a change of a
//! table.

use std::time::Duration;

use lakeward_connectors::scripted::{
    Cell, Chance, Definition, Gtid, Kind, Operation, Row, Server, Views, Visibility,
};
use lakeward_connectors::{Column, Identity, TableId, Type};

/// The keys in use.
const KEYS: u64 = 10;

/// The tables of every simulated database.
pub fn tables() -> [TableId; 3] {
    ["k", "m", "l"].map(|name| TableId::new("public", name))
}

/// The table `id` as it is created.
pub fn definition(id: &TableId) -> Definition {
    match id.name.as_str() {
        "l" => Definition::keyless(id, &[("a", Kind::Int), ("b", Kind::Int)]),
        "m" => Definition::keyed(id, &[("id", Kind::Int), ("note", Kind::Int)]),
        _ => {
            let columns = [
                ("id", Kind::Int),
                ("note", Kind::Int),
                ("big", Kind::Toasted),
                ("doc", Kind::Document),
            ];
            Definition::keyed(id, &columns)
        }
    }
}

/// Rows that are there before the daemon is.
pub fn populate(server: &mut Server, chance: &mut Chance) {
    // Equal rows can only be counted under a view that knows exactly what it sees (S11).
    let exact = server.settings.views == Views::Exact;
    for id in tables().into_iter().filter(|id| exact || id.name != "l") {
        let _ = server.commit('a', vec![Operation::Create(definition(&id))]);
    }
    for _ in 0..chance.below(4) {
        transact(server, chance);
    }
}

fn is_toasted(column: &Column) -> bool {
    column.source_type.contains("toasted")
}

fn is_document(column: &Column) -> bool {
    column.source_type == "json"
}

/// What becomes of an array: an item comes before the others, or some go and another comes.
fn edited(old: &Cell, chance: &mut Chance) -> Option<Cell> {
    let Cell::Text(text) = old else { return None };
    let mut items: Vec<i64> = serde_json::from_str(text).ok()?;
    let item = chance.below(10) as i64;
    match chance.below(3) {
        0 => {
            items.truncate(chance.below(items.len() as u64 + 1) as usize);
            items.push(item);
        }
        _ => items.insert(0, item),
    }
    serde_json::to_string(&items).ok().map(Cell::Text)
}

fn cell(column: &Column, chance: &mut Chance) -> Cell {
    let number = chance.below(1_000_000) as i64;
    match &column.kind {
        _ if chance.happens(0.05) => Cell::Null,
        Type::Int64 => Cell::Int(number),
        _ if is_document(column) => Cell::Text(format!("[{number}]")),
        _ => Cell::Text(format!("t{number}")),
    }
}

/// One random transaction, visible now or later.
pub fn transact(server: &mut Server, chance: &mut Chance) -> Option<Gtid> {
    let tables = tables();
    let count = if chance.happens(0.05) { 12 } else { 1 + chance.below(4) };
    let mut operations = Vec::new();
    for _ in 0..count {
        let id = &tables[[0, 0, 0, 1, 1, 2][chance.below(6) as usize]];
        operations.extend(statement(server, id, chance));
    }
    let visibility = match chance.below(10) {
        0 => Visibility::Held,
        1..4 => Visibility::After(Duration::from_millis(chance.below(400))),
        _ => Visibility::Now,
    };
    let origin = if chance.happens(0.7) { 'a' } else { 'b' };
    tracing::info!(?visibility, ?operations, "commits");
    // A statement may have been refused because an earlier one of the transaction took its row.
    server.commit_with(origin, operations, visibility).ok()
}

fn statement(server: &Server, id: &TableId, chance: &mut Chance) -> Option<Operation> {
    let (schema, rows) = (server.schema(id)?, server.contents(id)?);
    if chance.happens(0.02) {
        return Some(Operation::Truncate(id.clone()));
    }
    let keyed = schema.identity != Identity::FullRow;
    let fresh = |chance: &mut Chance| -> Row {
        let mut row: Row = schema.columns.iter().map(|column| cell(column, chance)).collect();
        match keyed {
            true => row[0] = Cell::Int(chance.below(KEYS) as i64),
            // Few different rows, so that some are equal.
            false => row.iter_mut().for_each(|cell| *cell = Cell::Int(chance.below(2) as i64)),
        }
        row
    };
    let old = rows.get(chance.below(rows.len().max(1) as u64) as usize);
    let new = fresh(chance);
    let taken = keyed && rows.iter().any(|row| row[0] == new[0]);
    match (old, chance.below(10)) {
        (Some(old), 0..2) => Some(Operation::Delete(id.clone(), old.clone())),
        (Some(old), 2..7) => {
            let moves = keyed && !taken && chance.happens(0.2);
            let change = |(index, column): (usize, &Column)| match index {
                0 if keyed => moves.then(|| new[0].clone()),
                _ if is_toasted(column) && chance.happens(0.7) => None,
                index if is_document(column) && chance.happens(0.9) => match chance.below(3) {
                    0 => None,
                    _ => edited(&old[index], chance).or(Some(new[index].clone())),
                },
                index => Some(new[index].clone()),
            };
            let row = schema.columns.iter().enumerate().map(change).collect();
            Some(Operation::Update(id.clone(), old.clone(), row))
        }
        _ if taken => None,
        _ => Some(Operation::Insert(id.clone(), new)),
    }
}

/// A change of what a table looks like.
pub fn redefine(server: &mut Server, chance: &mut Chance) {
    let id = tables()[chance.below(3) as usize].clone();
    let name = format!("c{}", chance.below(2));
    // As when the database was populated.
    if id.name == "l" && server.settings.views != Views::Exact {
        return;
    }
    let operations = match (server.schema(&id).is_some(), chance.below(7)) {
        (false, _) => vec![Operation::Create(definition(&id))],
        (true, 0..3) => vec![Operation::AddColumn(id, name, Kind::Int)],
        (true, 3 | 4) => vec![Operation::DropColumn(id, name)],
        (true, 5) => vec![Operation::Drop(id)],
        (true, _) => vec![Operation::Drop(id.clone()), Operation::Create(definition(&id))],
    };
    // Refused when the column is there, or isn't.
    let _ = server.commit('a', operations);
}
