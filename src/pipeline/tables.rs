//! Which tables a source has: how they join, change, are read again, stop and come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use lakeward_connectors::schema::{Evolution, Identity, TableId, TableSchema};
use lakeward_connectors::source::{Catalog, Position, Range, Resolved, Source, Stream};
use lakeward_connectors::{Error, Result};
use tracing::{info, warn};

use super::{DroppedTables, Look, Pipeline, Tracked, look};
use crate::buffer::Step;
use crate::epoch::Progress;
use crate::planted::{self, Bug};
use crate::start::{SnapshotMode, Start};

impl<S: Source> Pipeline<S> {
    /// Starts keeping one table as the lake and the catalog say.
    pub(super) async fn take_in(
        &mut self,
        start: Start<S::Position>,
        catalog: &Catalog<S::Position>,
        look: &Look<S>,
    ) -> Result<()> {
        match start {
            Start::Keep { schema, held, progress, paused } => {
                let id = schema.id.clone();
                let held = Some(held).filter(|held| !self.changes.position().covers(held));
                self.changes.add(id.clone(), held.clone());
                if !progress.is_done() {
                    // The run before may have ended before its own horizon was passed.
                    let horizon = Some(look.horizon.clone());
                    self.snapshots.begin(schema.clone(), look.high.clone(), horizon, progress);
                }
                let now = catalog.tables.iter().find(|listed| listed.schema.id == id);
                let drift = now
                    .filter(|listed| schema.evolve(&listed.schema) != Evolution::Same)
                    .map(|listed| (listed.schema.clone(), look.clone()));
                let gone = now.is_none() && !self.refused.contains_key(&id);
                let leaves = gone.then(|| look.high.clone());
                let tracked = Tracked { paused, held, drift, leaves, ..Tracked::new(schema) };
                self.tables.insert(id, tracked);
            }
            Start::Read { id, reason } => {
                let listed = catalog.tables.iter().find(|listed| listed.schema.id == id);
                let Some(listed) = listed else { return Ok(()) };
                self.join(listed.schema.clone(), look, reason).await?;
            }
            Start::Adopt { schema, held } => {
                self.open(&schema.id).await?;
                self.track(schema.clone());
                self.adopt(schema, held);
            }
            Start::Stay { schema, reason } => {
                self.open(&schema.id).await?;
                self.track(schema.clone());
                self.stop_table(&schema.id, reason);
            }
            Start::Dropped { id, schema, reason, absent } => {
                let schema = schema.unwrap_or_else(|| Arc::new(unknown_schema(&id)));
                let tracked = Tracked { dropped: Some(reason), absent, ..Tracked::new(schema) };
                self.tables.insert(id, tracked);
            }
            Start::Gone { id, schema, expected } => {
                let reason = "it is not in the source any more, or not selected; \
                              its rows stay as they are"
                    .to_owned();
                let proved = expected && S::FINDS_ALL && schema.is_some();
                let schema = schema.unwrap_or_else(|| Arc::new(unknown_schema(&id)));
                let tracked =
                    Tracked { stopped: Some(reason), absent: true, ..Tracked::new(schema) };
                self.tables.insert(id.clone(), tracked);
                if proved {
                    self.end_stopped(&id);
                }
            }
        }
        Ok(())
    }

    /// Takes in a table that no epoch vouches for: a new one, or one that has lost its place.
    pub(super) async fn join(
        &mut self,
        schema: Arc<TableSchema>,
        look: &Look<S>,
        reason: Option<String>,
    ) -> Result<()> {
        let id = schema.id.clone();
        let was_dropped = self.tables.get(&id).is_some_and(|tracked| tracked.dropped.is_some());
        if was_dropped && self.settings.dropped_tables == DroppedTables::Stop {
            self.stay_dropped(&id);
            return Ok(());
        }
        let has_rows = self.open(&id).await? && !planted::is(Bug::ForgetMember);
        let known = self.tables.contains_key(&id);
        self.track(schema.clone());
        // With a reason it was being read because somebody asked for it.
        let mode = self.settings.snapshot_modes.get(&id).filter(|_| reason.is_none()).cloned();
        if let Some(mode) = mode {
            match known {
                true => self.stop_table(&id, "it was made again".to_owned()),
                false => self.begin_without_rows(schema, look, &mode, has_rows),
            }
            return Ok(());
        }
        let again = was_dropped && has_rows;
        let reason = reason.or_else(|| again.then(|| "it was dropped and made again".to_owned()));
        let reason = reason.or_else(|| {
            has_rows.then(|| "the lake has rows of it whose position nobody knows".to_owned())
        });
        if has_rows || reason.is_some() {
            self.read_anew(schema, look, reason.unwrap_or_default());
            return Ok(());
        }
        info!(table = %id, "new table: reading its rows");
        let staged = schema.identity == Identity::FullRow;
        let step = match staged {
            true => Step::Generation(schema.clone()),
            false => Step::Evolve(schema.clone()),
        };
        self.begin(schema, look, staged, step);
        Ok(())
    }

    /// Opens the lake's table; says whether it has rows.
    async fn open(&mut self, id: &TableId) -> Result<bool> {
        match &mut self.writer {
            Some(writer) => writer.add(id).await,
            None => Err(Error::internal("a table joins while the writer works")),
        }
    }

    /// Notes a table of which nothing is known yet.
    fn track(&mut self, schema: Arc<TableSchema>) {
        self.tables.insert(schema.id.clone(), Tracked::new(schema));
    }

    /// Follows a table from what the lake's rows of it hold, which may be ahead of the stream.
    fn adopt(&mut self, schema: Arc<TableSchema>, held: S::Position) {
        let id = schema.id.clone();
        info!(table = %id, position = %held, "following the table from what the lake has of it");
        let ahead = Some(held).filter(|held| !self.changes.position().covers(held));
        self.changes.add(id.clone(), ahead.clone());
        self.changes.push(&id, Step::Adopt(schema.clone()));
        if let Some(tracked) = self.tables.get_mut(&id) {
            tracked.held = ahead;
        }
        self.stream.set_table(schema);
        self.dirty = true;
    }

    /// Follows a table from now on, and reads none of its rows.
    fn begin_without_rows(
        &mut self,
        schema: Arc<TableSchema>,
        look: &Look<S>,
        mode: &SnapshotMode,
        has_rows: bool,
    ) {
        let reason = match mode {
            SnapshotMode::Schema if has_rows => {
                "the lake has rows of it, and snapshot = \"schema\" begins with none; move them \
                 away, or say \"never\""
            }
            SnapshotMode::Never(Some(_)) => {
                "it came while the source was being followed, and `from` is a position of before; \
                 restart Lakeward"
            }
            // A transaction that the log is in the midst of lies below.
            _ => return self.adopt(schema, look.high.clone()),
        };
        self.stop_table(&schema.id, reason.to_owned());
    }

    /// Reads a table again from the start, into a new generation beside the visible rows (S9).
    /// One whose rows are not to be read stops.
    pub(super) fn read_again(&mut self, schema: Arc<TableSchema>, look: &Look<S>, reason: String) {
        if self.settings.snapshot_modes.contains_key(&schema.id) {
            self.stop_table(&schema.id, reason);
            return;
        }
        self.read_anew(schema, look, reason);
    }

    /// The same, because somebody asks for it.
    pub(super) fn read_anew(&mut self, schema: Arc<TableSchema>, look: &Look<S>, reason: String) {
        warn!(table = %schema.id, reason, "reading the table again");
        self.stream.remove_table(&schema.id);
        if let Some(tracked) = self.tables.get_mut(&schema.id) {
            tracked.reason = Some(reason);
        }
        let step = Step::Generation(schema.clone());
        self.begin(schema, look, true, step);
    }

    pub(super) fn begin(
        &mut self,
        schema: Arc<TableSchema>,
        look: &Look<S>,
        staged: bool,
        step: Step,
    ) {
        let id = schema.id.clone();
        self.interrupt_verification(&id, "it was read again while it was compared");
        if let Some(tracked) = self.tables.get_mut(&id) {
            tracked.schema = schema.clone();
            (tracked.stopped, tracked.dropped, tracked.absent) = (None, None, false);
            tracked.leaves = None;
            tracked.paused = false;
            tracked.held = None;
            tracked.drift = None;
            tracked.joins = Some(look.high.clone());
        }
        self.changes.restart(&id);
        self.changes.track_all(true);
        self.changes.push_ahead(&id, step);
        let progress = Progress { ranges: vec![Range::default()], keys: Vec::new(), staged };
        let horizon = Some(look.horizon.clone());
        self.snapshots.begin(schema, look.high.clone(), horizon, progress);
        self.dirty = true;
    }

    pub(super) async fn resolved(&mut self, resolved: Resolved) -> Result<()> {
        match resolved {
            Resolved::Schema(schema) => {
                let Some(tracked) = self.tables.get(&schema.id) else { return Ok(()) };
                match tracked.schema.evolve(&schema) {
                    Evolution::Same => self.stream.set_table(schema),
                    Evolution::InPlace | Evolution::Convert => self.evolve(schema),
                    Evolution::Snapshot(reason) => self.look_again(&schema.id, reason).await?,
                }
            }
            Resolved::Lost(table, reason) => self.look_again(&table, reason).await?,
            Resolved::Dropped { table, shows_next } => self.dropped(&table, shows_next).await?,
        }
        Ok(())
    }

    /// Columns came, went or are called otherwise, and rows stay.
    pub(super) fn evolve(&mut self, schema: Arc<TableSchema>) {
        self.interrupt_verification(&schema.id, "its columns changed while it was compared");
        let Some(tracked) = self.tables.get_mut(&schema.id) else { return };
        info!(table = %schema.id, "columns changed");
        tracked.schema = schema.clone();
        self.stream.set_table(schema.clone());
        self.changes.push(&schema.id, Step::Evolve(schema.clone()));
        self.snapshots.evolve(schema, self.changes.position().clone());
        self.dirty = true;
    }

    /// Reads `table` again, as the catalog says it is now; stops it when it is gone.
    pub(super) async fn look_again(&mut self, table: &TableId, reason: String) -> Result<()> {
        self.stream.remove_table(table);
        let (catalog, look) = look(&mut self.source).await?;
        match catalog.tables.iter().find(|listed| listed.schema.id == *table) {
            Some(listed) if self.is_replaced(&listed.schema) => self.stop_replaced(table),
            Some(listed) => self.read_again(listed.schema.clone(), &look, reason),
            None if catalog.refused.iter().any(|(refused, _)| refused == table) => {
                self.stop_absent(table, format!("{reason}; and now it is refused"));
            }
            None => self.stop_gone(table, S::FINDS_ALL),
        }
        Ok(())
    }

    /// Whether the values of a column are nobody's business: then no reason may quote one.
    pub(super) fn hides(&self, table: &TableId, column: &str) -> bool {
        self.settings.merging.shape_of(table).hides(column)
    }

    /// The table can't go on and loses its place (I4): it comes back by a snapshot.
    pub(super) fn stop_table(&mut self, table: &TableId, reason: String) {
        let Some(tracked) = self.tables.get_mut(table) else { return };
        if tracked.stopped.is_some() {
            return;
        }
        self.interrupt_verification(table, "it stopped while it was compared");
        let Some(tracked) = self.tables.get_mut(table) else { return };
        warn!(%table, reason, "table stopped");
        tracked.stopped = Some(reason);
        tracked.paused = false;
        (tracked.reason, tracked.dropped) = (None, None);
        tracked.joins = None;
        tracked.drift = None;
        self.stream.remove_table(table);
        self.snapshots.cancel(table);
        self.changes.stop(table);
        self.changes.push_ahead(table, Step::Discard);
        self.dirty = true;
    }

    /// Tables whose catalog entry the stream has now reached are shown by it from here on.
    pub(super) fn let_tables_join(&mut self) {
        if !self.changes.at_boundary() {
            return;
        }
        let position = self.changes.position().clone();
        let mut waiting = false;
        for tracked in self.tables.values_mut() {
            match tracked.joins.take_if(|joins| position.covers(joins)) {
                Some(_) => self.stream.set_table(tracked.schema.clone()),
                None => waiting |= tracked.joins.is_some(),
            }
        }
        self.changes.track_all(waiting);
    }

    /// Acts on what the catalog showed and the log, now read that far, did not.
    pub(super) fn settle_drift(&mut self) {
        if !self.changes.at_boundary() {
            return;
        }
        let position = self.changes.position().clone();
        let due: Vec<_> = self
            .tables
            .values_mut()
            .filter_map(|t| {
                t.drift
                    .take_if(|(_, look)| position.covers(&look.high))
                    .map(|d| (t.schema.clone(), d))
            })
            .collect();
        for (schema, (now, look)) in due {
            match schema.evolve(&now) {
                Evolution::Same => {}
                Evolution::InPlace | Evolution::Convert => self.evolve(now),
                Evolution::Snapshot(_) if self.is_replaced(&now) => {
                    self.leave(&now.id);
                    self.stay_dropped(&now.id);
                }
                Evolution::Snapshot(reason) => self.read_again(now, &look, reason),
            }
        }
    }

    /// Compares the catalog with what is kept: tables that came, went or changed without a trace.
    pub(super) async fn look_at_catalog(&mut self) -> Result<()> {
        if let Some(writer) = &self.writer {
            writer.look_for_others().await?;
        }
        let catalog = self.source.discover().await?;
        self.refused = catalog.refused.iter().cloned().collect();
        self.meter.listed(&catalog.tables);
        self.newest.looked(&catalog.high);
        let names: BTreeSet<_> = catalog.tables.iter().map(|listed| &listed.schema.id).collect();
        let following = self.tables.iter().filter(|(_, tracked)| tracked.is_followed());
        let gone: Vec<_> = following.map(|(id, _)| id).filter(|id| !names.contains(id)).collect();
        for id in gone.into_iter().cloned().collect::<Vec<_>>() {
            match self.refused.get(&id).cloned() {
                Some(reason) => self.stop_absent(&id, reason),
                None => self.miss(&id, &catalog.high),
            }
        }
        let schemas: Vec<_> = catalog.tables.iter().map(|listed| listed.schema.clone()).collect();
        let established = self.source.establish(&schemas).await?;
        self.newest.kept(&established);
        if established.identity != self.identity {
            return Err(Error::gap("the publication or slot was replaced")
                .with("was", &self.identity)
                .with("is", established.identity));
        }
        if schemas.iter().all(|schema| !self.differs(schema)) {
            return Ok(());
        }
        // After the publication was brought up to date.
        let (catalog, look) = look(&mut self.source).await?;
        for listed in &catalog.tables {
            match self.tables.get(&listed.schema.id).is_some_and(|tracked| !tracked.absent) {
                true => self.note_drift(&listed.schema, &look),
                false => self.join(listed.schema.clone(), &look, None).await?,
            }
        }
        Ok(())
    }

    /// Whether the catalog says of a table what the stream does not show yet.
    pub(super) fn differs(&self, now: &TableSchema) -> bool {
        self.tables.get(&now.id).is_none_or(|tracked| {
            let drifted = tracked.schema.evolve(now) != Evolution::Same;
            tracked.absent || (tracked.is_followed() && drifted)
        })
    }

    pub(super) fn note_drift(&mut self, now: &Arc<TableSchema>, look: &Look<S>) {
        let differs = self.differs(now);
        if let Some(tracked) = self.tables.get_mut(&now.id).filter(|_| differs) {
            tracked.drift = Some((now.clone(), look.clone()));
        }
    }
}

fn unknown_schema(id: &TableId) -> TableSchema {
    TableSchema {
        id: id.clone(),
        columns: Vec::new(),
        identity: Identity::FullRow,
        storage: String::new(),
        lasting_ids: false,
    }
}
