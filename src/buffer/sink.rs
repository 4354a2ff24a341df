//! The decoder's side: changes come in the order of the log.

use std::sync::Arc;

use lakeward_connectors::batch::{Builder, Committed, Trace};
use lakeward_connectors::error::Reason;
use lakeward_connectors::schema::{TableId, TableSchema};
use lakeward_connectors::source::{Position, Sink};

use super::{BATCH_BYTES, Changes, Step, find};
use crate::planted::{self, Bug};
use crate::window::Delivered;

impl<P: Position> Sink<P> for Changes<P> {
    fn begin(&mut self, transaction: P::Transaction) {
        self.open = Some((transaction, self.serial));
        self.committed = None;
        self.relevant = self.track_all;
        self.serial += 1;
    }

    fn committed_at(&mut self, micros: i64) {
        self.open_micros = micros;
    }

    fn rows(&mut self, schema: &Arc<TableSchema>) -> Option<&mut Builder> {
        self.relevant = true;
        let (transaction, serial) = self.open.as_ref()?;
        let at = match &self.last {
            Some((last, at)) if Arc::ptr_eq(last, schema) => *at,
            _ => {
                let at = *self.by_id.get(&schema.id)?;
                self.last = Some((schema.clone(), at));
                at
            }
        };
        let (_, table) = self.tables.get_mut(at)?;
        if table.skips(transaction) {
            return None;
        }
        if planted::is(Bug::SkipChange) && serial % 8 == 0 {
            return None;
        }
        let is_done = |builder: &Builder| {
            builder.size() >= BATCH_BYTES || !Arc::ptr_eq(builder.schema(), schema)
        };
        if table.builder.as_ref().is_some_and(is_done) {
            let next = table.builder.as_ref().map(Builder::successor);
            table.close();
            table.builder = next.filter(|next| Arc::ptr_eq(next.schema(), schema));
        }
        self.count += 1;
        let builder = table.builder.get_or_insert_with(|| {
            table.waits_since.get_or_insert(self.open_micros);
            Builder::new(schema.clone())
        });
        builder.transaction(*serial);
        if !self.traced.is_empty() && self.traced.contains(&schema.id) {
            let committed = named(&mut self.committed, transaction, self.open_micros);
            let next = following(builder.next_trace().or(table.trace.as_ref()), committed);
            builder.trace(next);
        }
        Some(builder)
    }

    fn truncate(&mut self, id: &TableId) {
        self.relevant = true;
        let Some((transaction, serial)) = self.open.as_ref() else { return };
        let Some(table) = find(&self.by_id, &mut self.tables, id) else { return };
        if table.skips(transaction) {
            return;
        }
        self.count += 1;
        table.close();
        table.count += 1;
        table.waits_since.get_or_insert(self.open_micros);
        if let Some(touched) = &mut table.touched
            && !planted::is(Bug::TruncateKeepsWindows)
        {
            touched.truncate(*serial);
        }
        let trace = self.traced.contains(id).then(|| {
            let committed = named(&mut self.committed, transaction, self.open_micros);
            let trace = following(table.trace.as_ref(), committed);
            table.trace = Some(Trace { ordinal: trace.ordinal + 1, ..trace.clone() });
            trace
        });
        table.steps.push(Step::Truncate { serial: *serial, trace });
    }

    fn commit(&mut self, position: P, micros: i64) {
        if let Some((transaction, serial)) = self.open.take()
            && self.relevant
        {
            self.delivered.push(Delivered { serial, transaction, seen: false });
        }
        self.committed_micros = micros;
        self.advance(position);
    }

    fn progress(&mut self, position: P) {
        self.advance(position);
    }

    fn stop(&mut self, table: &TableId, reason: Reason) {
        let known = self.get(table).is_some_and(|table| !table.stopped);
        if known {
            Changes::stop(self, table);
            self.stopped.push((table.clone(), reason));
        }
    }
}

/// What tables are told of the open transaction.
fn named<'a>(
    committed: &'a mut Option<Arc<Committed>>,
    transaction: &impl ToString,
    micros: i64,
) -> &'a Arc<Committed> {
    committed
        .get_or_insert_with(|| Arc::new(Committed { transaction: transaction.to_string(), micros }))
}

/// Where the next change of a transaction stands, after the one that would have stood at `before`.
fn following(before: Option<&Trace>, committed: &Arc<Committed>) -> Trace {
    match before.filter(|before| Arc::ptr_eq(&before.committed, committed)) {
        Some(before) => before.clone(),
        None => Trace { committed: Arc::clone(committed), ordinal: 0 },
    }
}
