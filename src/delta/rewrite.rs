//! Applying a run of changes: old rows go, by rewriting their files without them or by marking them
//! as deleted ([`Merge`](super::merge::Merge) says which); new rows go into new files, small files
//! go along.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use lakeward_connectors::{Error, Result};
use rustc_hash::{FxHashMap, FxHashSet};

use super::deletes::Rows;
use super::files::{FileWriter, Written};
use super::gather::{Gather, arrow_fault};
use super::index::{Loc, fingerprint};
use super::merge::Choice;
use super::read::FileReader;
use super::schema::Layout;
use super::table::Table;
use super::view::{DataFile, FileId};
use crate::collapse::{Collapsed, From, NewRow};

/// A file is full at this size or this many rows.
const FULL_BYTES: usize = 96 << 20;
const FULL_ROWS: u64 = 1_000_000;
/// How many new rows are gathered at once.
const CHUNK: usize = 8192;

/// What became of [`Table::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The keys of rows that lack a value which neither the run nor the lake holds: they are not
    /// in the lake now, and have to be read from the source (S5).
    pub missing: Vec<Vec<u8>>,
}

/// What a run does, worked out before anything is done.
#[derive(Default)]
pub(super) struct Plan {
    /// The rows that go, by file, ascending.
    pub(super) doomed: BTreeMap<FileId, Vec<u64>>,
    /// Where they are noted, with their keys.
    removed: Vec<(u32, Loc)>,
    /// The rows that come (indices into [`Collapsed::rows`]).
    pub(super) rows: Vec<usize>,
    /// Where the rows are that values are carried from.
    pub(super) carried: FxHashMap<u32, (FileId, u64)>,
    missing: Vec<Vec<u8>>,
}

/// A new file and where its rows are from.
struct Output {
    written: Written,
    /// Files whose remaining rows it begins with, each with their number.
    kept: Vec<(FileId, u64)>,
    /// The rows of the plan that it ends with.
    new: Range<usize>,
}

impl Plan {
    fn doom(&mut self, key: u32, loc: Loc, file: FileId, row: u64) {
        self.doomed.entry(file).or_default().push(row);
        self.removed.push((key, loc));
    }
}

impl Table {
    /// Applies a run of changes to what is not committed yet: rows go, rows come. Nothing is
    /// visible to readers before [`commit`](Self::commit). A new row takes the place of one with
    /// the same key, whether or not the run says that it goes.
    ///
    /// # Errors
    /// [`Table`](lakeward_connectors::ErrorKind::Table) when the lake and the source differ, which
    /// only a new snapshot mends. After any error the table is as it was before.
    pub async fn apply(&mut self, run: &Collapsed) -> Result<Applied> {
        self.settled()?;
        if self.schema.is_none() {
            self.evolve(&run.schema)?;
        }
        let schema = self.known_schema()?;
        if schema != run.schema {
            return Err(Error::internal("changes are of another schema than the table has")
                .with("table", &run.schema.id));
        }
        self.ensure_index().await?;
        let plan = self.plan(run)?;
        if plan.doomed.is_empty() && plan.rows.is_empty() {
            return Ok(Applied { missing: plan.missing });
        }
        let outputs = self.write(run, &plan).await?;
        let superseded = self.install(run, &plan, outputs)?;
        self.lake.forget(superseded).await;
        Ok(Applied { missing: plan.missing })
    }

    /// Finds every row that the run is about.
    fn plan(&self, run: &Collapsed) -> Result<Plan> {
        let mut plan = Plan::default();
        let unique = self.index.as_ref().is_some_and(|index| index.is_unique());
        let mut doomed = vec![false; run.keys.len()];
        let mut chosen = FxHashSet::default();
        for removal in &run.removals {
            match doomed.get_mut(removal.key as usize) {
                Some(doomed) if unique => {
                    if !std::mem::replace(doomed, true) {
                        self.doom(run, removal.key, &mut plan);
                    }
                }
                _ => self.doom_some(run, removal.key, removal.rows, &mut chosen, &mut plan)?,
            }
        }
        for (number, row) in run.rows.iter().enumerate() {
            if unique && !doomed.get(row.key as usize).is_some_and(|doomed| *doomed) {
                self.doom(run, row.key, &mut plan);
            }
            match self.find_carried(run, row, &mut plan.carried) {
                true => plan.rows.push(number),
                false => plan.missing.push(run.keys.get(row.key).to_vec()),
            }
        }
        for rows in plan.doomed.values_mut() {
            rows.sort_unstable();
            // A key may be there twice: that of a row that goes, and of one that comes.
            rows.dedup();
        }
        Ok(plan)
    }

    /// The row of a key goes, if there is one.
    fn doom(&self, run: &Collapsed, key: u32, plan: &mut Plan) {
        let places = self.index.as_ref().map_or(&[][..], |index| index.get(run.keys.get(key)));
        for loc in places {
            if let Some((file, row)) = self.view.locate(*loc) {
                plan.doom(key, *loc, file, row);
            }
        }
    }

    /// Chooses `left` of the rows that equal one another; they are counted, so all must be there.
    fn doom_some(
        &self,
        run: &Collapsed,
        key: u32,
        mut left: u32,
        chosen: &mut FxHashSet<Loc>,
        plan: &mut Plan,
    ) -> Result<()> {
        let places = self.index.as_ref().map_or(&[][..], |index| index.get(run.keys.get(key)));
        let found = places.iter().rev().filter_map(|loc| Some((*loc, self.view.locate(*loc)?)));
        for (loc, (file, row)) in found {
            if left == 0 {
                break;
            }
            if chosen.insert(loc) {
                left -= 1;
                plan.doom(key, loc, file, row);
            }
        }
        if left > 0 {
            let message = "lake and source differ: a row that was deleted or changed in the \
                           source is not in the lake";
            return Err(Error::table(run.schema.id.clone(), message)
                .remedy("take a new snapshot of the table"));
        }
        Ok(())
    }

    /// Notes where the values are that a row carries; `false` when one of them is nowhere.
    fn find_carried(
        &self,
        run: &Collapsed,
        row: &NewRow,
        carried: &mut FxHashMap<u32, (FileId, u64)>,
    ) -> bool {
        row.carried.iter().all(|(_, from)| match from {
            From::Run(_) => true,
            From::Nowhere => false,
            From::Lake(key) => {
                if carried.contains_key(key) {
                    return true;
                }
                let index = self.index.as_ref();
                let place = index.and_then(|index| index.get(run.keys.get(*key)).first());
                let place = place.and_then(|loc| self.view.locate(*loc));
                place.is_some_and(|place| carried.insert(*key, place).is_none())
            }
        })
    }

    async fn write(&self, run: &Collapsed, plan: &Plan) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        let result = self.write_all(run, plan, &mut outputs).await;
        if let Err(error) = result {
            let names = outputs.iter().map(|output| self.own_path(&output.written.add.path));
            self.lake.forget(names.collect()).await;
            return Err(error);
        }
        Ok(outputs)
    }

    async fn write_all(
        &self,
        run: &Collapsed,
        plan: &Plan,
        outputs: &mut Vec<Output>,
    ) -> Result<()> {
        let layout = self.known_layout()?;
        let carried = self.read_carried(run, plan, &layout).await?;
        let Choice { together, alone } = self.choose(plan);
        for id in alone {
            let mut draft = Draft::new(self, &layout);
            self.copy(id, plan, &layout, &mut draft).await?;
            outputs.extend(draft.finish().await?);
        }
        let mut draft = Draft::new(self, &layout);
        for id in together {
            draft = draft.roll(self, &layout, outputs).await?;
            self.copy(id, plan, &layout, &mut draft).await?;
        }
        let gather = Gather::new(run, plan, &layout, &carried);
        let mut start = 0;
        while start < plan.rows.len() {
            draft = draft.roll(self, &layout, outputs).await?;
            let end = plan.rows.len().min(start + CHUNK);
            let (rows, end) = match gather.stretch(start..end) {
                Some((rows, end)) => (rows?, end),
                None => (gather.rows(start..end)?, end),
            };
            draft.add(&rows, start..end).await?;
            start = end;
        }
        outputs.extend(draft.finish().await?);
        Ok(())
    }

    /// Copies the rows of a file that stay.
    async fn copy(
        &self,
        id: FileId,
        plan: &Plan,
        layout: &Layout,
        draft: &mut Draft,
    ) -> Result<()> {
        let Some(file) = self.view.file(id) else {
            return Ok(());
        };
        let gone = self.gone(id, plan);
        let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
        let mut batches = reader.batches(layout.arrow(), None)?;
        let mut next = 0_u64;
        while let Some(batch) = batches.try_next().await? {
            let end = next + batch.num_rows() as u64;
            let from = gone.partition_point(|row| *row < next);
            let to = gone.partition_point(|row| *row < end);
            let kept = match from == to {
                true => batch,
                false => without(&batch, &gone[from..to], next)?,
            };
            if kept.num_rows() == 0 {
                next = end;
                continue;
            }
            draft.keep(id, &kept).await?;
            next = end;
        }
        Ok(())
    }

    /// The rows of a file that it is rewritten without, ascending: those that go, and those that
    /// its deletion vector says have gone before.
    fn gone(&self, id: FileId, plan: &Plan) -> Vec<u64> {
        let doomed = plan.doomed.get(&id).map_or(&[][..], Vec::as_slice);
        match self.view.file(id).map(DataFile::deleted).filter(|deleted| !deleted.is_empty()) {
            Some(deleted) => {
                let doomed: Rows = doomed.iter().copied().collect();
                (deleted | doomed).into_iter().collect()
            }
            None => doomed.to_vec(),
        }
    }

    /// Makes the new files part of the view, and says which old ones nothing names any more.
    fn install(
        &mut self,
        run: &Collapsed,
        plan: &Plan,
        outputs: Vec<Output>,
    ) -> Result<Vec<String>> {
        let mut sources: Vec<FileId> = Vec::new();
        let kept = outputs.iter().flat_map(|output| &output.kept);
        let gone: FxHashMap<FileId, Vec<u64>> =
            kept.map(|(source, _)| (*source, self.gone(*source, plan))).collect();
        let Some(index) = &mut self.index else {
            return Err(Error::internal("the index is missing"));
        };
        for (key, loc) in &plan.removed {
            let key = run.keys.get(*key);
            index.remove(key, *loc);
            self.pending.touched.add(fingerprint(key));
        }
        for Output { written, kept, new } in outputs {
            let id = self.view.insert(written.add, written.rows, Rows::new(), false);
            let mut first = 0;
            for (source, rows) in kept {
                let slots = self.view.detach(source, gone.get(&source).map_or(&[], Vec::as_slice));
                self.view.attach(id, first, slots);
                first += rows;
                sources.push(source);
            }
            if !new.is_empty() {
                let slot = self.view.open_slot(id, new.len() as u64)?;
                for (row, number) in (0_u32..).zip(&plan.rows[new]) {
                    let key = run.rows.get(*number).map_or(0, |row| row.key);
                    index.put(run.keys.get(key), Loc { slot, row });
                }
            }
        }
        self.mark(plan, &mut sources);
        let gone: Vec<_> = sources.into_iter().filter_map(|id| self.view.remove(id)).collect();
        self.pending.changed = true;
        let own = gone.iter().filter(|file| !file.committed);
        Ok(own.map(|file| self.own_path(&file.add.path)).collect())
    }

    /// Deletes the doomed rows of files that were not among the `sources` of new ones. A file
    /// without a row left joins them.
    fn mark(&mut self, plan: &Plan, sources: &mut Vec<FileId>) {
        let rewritten: FxHashSet<FileId> = sources.iter().copied().collect();
        for (id, rows) in plan.doomed.iter().filter(|(id, _)| !rewritten.contains(id)) {
            match self.view.file(*id).is_some_and(|file| file.left() > rows.len() as u64) {
                true => self.view.mark(*id, rows),
                false => sources.push(*id),
            }
        }
    }

    pub(super) fn known_layout(&self) -> Result<Arc<Layout>> {
        self.layout.clone().ok_or_else(|| {
            Error::internal("the table has no schema yet").with("Delta table", &self.path)
        })
    }
}

/// A file in the making.
struct Draft {
    writer: FileWriter,
    kept: Vec<(FileId, u64)>,
    new: Range<usize>,
}

impl Draft {
    fn new(table: &Table, layout: &Arc<Layout>) -> Self {
        let writer = FileWriter::new(&table.lake, &table.path, layout);
        Self { writer, kept: Vec::new(), new: 0..0 }
    }

    /// Itself, or another one when it is full.
    async fn roll(
        self,
        table: &Table,
        layout: &Arc<Layout>,
        outputs: &mut Vec<Output>,
    ) -> Result<Self> {
        if self.writer.bytes() < FULL_BYTES && self.writer.rows() < FULL_ROWS {
            return Ok(self);
        }
        outputs.extend(self.finish().await?);
        Ok(Self::new(table, layout))
    }

    async fn keep(&mut self, source: FileId, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).await?;
        let rows = batch.num_rows() as u64;
        match self.kept.last_mut() {
            Some((last, kept)) if *last == source => *kept += rows,
            _ => self.kept.push((source, rows)),
        }
        Ok(())
    }

    async fn add(&mut self, batch: &RecordBatch, rows: Range<usize>) -> Result<()> {
        self.writer.write(batch).await?;
        self.new = if self.new.is_empty() { rows } else { self.new.start..rows.end };
        Ok(())
    }

    async fn finish(self) -> Result<Option<Output>> {
        let Self { writer, kept, new } = self;
        Ok(writer.finish().await?.map(|written| Output { written, kept, new }))
    }
}

/// The rows of a batch, which starts at row `first` of its file, that are not doomed.
fn without(batch: &RecordBatch, doomed: &[u64], first: u64) -> Result<RecordBatch> {
    let mut kept = vec![true; batch.num_rows()];
    for row in doomed {
        if let Some(kept) = kept.get_mut((row - first) as usize) {
            *kept = false;
        }
    }
    filter_record_batch(batch, &BooleanArray::from(kept)).map_err(arrow_fault)
}
