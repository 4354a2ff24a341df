//! What must hold: at every moment, and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use lakeward::epoch::{EpochFile, Ledger, Member, State};
use lakeward::pipeline::{DroppedTables, was_followed};
use lakeward_connectors::schema::Evolution;
use lakeward_connectors::scripted::{Gtids, Row, Shared, lock};
use lakeward_connectors::source::Position;
use lakeward_connectors::{TableId, TableSchema};
use object_store::memory::InMemory;

use super::lake::{LakeTable, plain};
use crate::support::{Context, Res};

/// The one source's name.
pub const SOURCE: &str = "s";

/// P2 and P3 at this moment. Nothing else runs meanwhile: the objects in memory answer at once.
pub async fn moment(objects: &Arc<InMemory>, server: &Shared) -> Res<()> {
    let ledger = Ledger::<Gtids>::open(plain(objects), SOURCE, String::new()).await;
    let ledger = ledger.map_err(|error| error.full())?;
    let acknowledged = lock(server).acknowledged();
    let Some(file) = ledger.newest() else {
        return match acknowledged.is_empty() {
            true => Ok(()),
            false => Err(format!("P3: {acknowledged} is acknowledged, and there is no epoch")),
        };
    };
    for id in file.roster.iter().flatten().map(|(id, _)| id) {
        let table = LakeTable::load(objects, SOURCE, id).await?;
        let txn = table.txns.get(&format!("lakeward/{SOURCE}")).copied();
        let Some(member) = file.holds(id, txn) else { continue };
        let held = member.held.clone().unwrap_or_default();
        if member.state.is_kept() && !member.progress.staged && !held.covers(&acknowledged) {
            return Err(format!(
                "P3: {acknowledged} is acknowledged, {id} holds {held} in epoch {}",
                file.epoch
            ));
        }
        let same = exact(objects, server, id, &member, &table).await;
        same.map_err(|error| format!("P2: {error}\n{}", about(file, &member)))?;
    }
    Ok(())
}

fn about(file: &EpochFile<Gtids>, member: &Member<Gtids>) -> String {
    format!("epoch {} to {}: {member:?}", file.epoch, file.to)
}

/// A live table equals the source at the position that its rows prove.
async fn exact(
    objects: &InMemory,
    server: &Shared,
    id: &TableId,
    member: &Member<Gtids>,
    table: &LakeTable,
) -> Res<()> {
    let (Some(held), Some(schema)) = (member.seen(), &table.schema) else {
        return Ok(());
    };
    let there = {
        let server = lock(server);
        // What the source has lost the lake holds until its tables have been read again.
        if !server.end().covers(held) {
            return Ok(());
        }
        server.schema_at(held, id).zip(server.contents_at(held, id))
    };
    // A change of the table that the log does not show is found in the catalog, later.
    let Some((now, rows)) = there else { return Ok(()) };
    if matches!(schema.evolve(&now), Evolution::Snapshot(_)) {
        return Ok(());
    }
    compare(objects, id, table, schema, &now, &rows).await
}

async fn compare(
    objects: &InMemory,
    id: &TableId,
    table: &LakeTable,
    schema: &TableSchema,
    now: &TableSchema,
    rows: &[Row],
) -> Res<()> {
    let name = |id: u32| schema.columns.iter().find(|column| column.id == id);
    let names: Vec<Option<&str>> = now
        .columns
        .iter()
        .map(|column| name(column.id).map(|column| column.name.as_str()))
        .collect();
    let found = table.rows(objects, &names).await?;
    match found == rows {
        true => Ok(()),
        false => {
            let version = table.version;
            Err(format!("{id} at version {version:?}\n  lake   {found:?}\n  source {rows:?}"))
        }
    }
}

/// P2 at the end: every table of the source equals it. Says how many were dropped; `policy` says what
/// became of their rows.
pub async fn end(
    objects: &Arc<InMemory>,
    server: &Shared,
    policy: DroppedTables,
    lossy: bool,
) -> Res<u64> {
    // The lock is free again before the first table is looked at.
    let mut tables = lock(server).tables();
    let dropped = dropped(objects).await?;
    for (id, whole) in &dropped {
        if *whole && !lossy {
            at_its_drop(objects, server, id, policy).await?;
        }
    }
    // Another one of its name waits until somebody asks for it.
    tables.retain(|id| policy != DroppedTables::Stop || !dropped.contains_key(id));
    for id in tables {
        let (rows, now) = {
            let server = lock(server);
            (server.contents(&id).unwrap_or_default(), server.schema(&id))
        };
        let now = now.ok_or("a table without a schema")?;
        let table = LakeTable::load(objects, SOURCE, &id).await?;
        let schema = table.schema.clone();
        let schema = match (schema, rows.is_empty()) {
            (Some(schema), _) => schema,
            // A table without rows need not be in the lake.
            (None, true) => continue,
            (None, false) => return Err(format!("{id} is not in the lake")),
        };
        let same = compare(objects, &id, &table, &schema, &now, &rows).await;
        same.context("at the end")?;
    }
    Ok(dropped.len() as u64)
}

/// The tables that the newest epoch calls dropped, and whether they were followed to their end.
async fn dropped(objects: &Arc<InMemory>) -> Res<BTreeMap<TableId, bool>> {
    let ledger = Ledger::<Gtids>::open(plain(objects), SOURCE, String::new()).await;
    let ledger = ledger.map_err(|error| error.full())?;
    let roster = ledger.newest().and_then(|file| file.roster.as_ref());
    let gone = roster.into_iter().flatten().filter(|(_, member)| member.state == State::Dropped);
    let whole = |member: &Member<Gtids>| member.reason.as_deref().is_some_and(was_followed);
    Ok(gone.map(|(id, member)| (id.clone(), whole(member))).collect())
}

/// A table that was dropped has the rows that it had then, or none.
async fn at_its_drop(
    objects: &InMemory,
    server: &Shared,
    id: &TableId,
    policy: DroppedTables,
) -> Res<()> {
    let table = LakeTable::load(objects, SOURCE, id).await?;
    let Some(schema) = table.schema.clone() else { return Ok(()) };
    let drops = lock(server).drops(id);
    let mut last = Err(format!("{id} was never dropped"));
    for (then, rows) in drops {
        let rows = if policy == DroppedTables::Follow { &[][..] } else { &rows };
        last = compare(objects, id, &table, &schema, &then, rows).await;
        if last.is_ok() {
            return Ok(());
        }
    }
    last.context("P2: at the drop")
}
