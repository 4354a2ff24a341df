//! Applying a run of changes: old rows go by rewriting their files without them, new rows go into
//! new files, small files go along.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave;
use futures::TryStreamExt;
use lakeward_connectors::{Error, Result};
use rustc_hash::{FxHashMap, FxHashSet};

use super::files::{FileWriter, Written};
use super::index::{Loc, fingerprint};
use super::read::FileReader;
use super::schema::Layout;
use super::table::Table;
use super::view::FileId;
use crate::collapse::{Cell, Collapsed, From, NewRow};

/// A file below this size is small: it is worth rewriting together with others.
const SMALL: i64 = 8 << 20;
/// So many small files are one too many.
const FOLD: usize = 8;
/// A file is full at this size or this many rows.
const FULL_BYTES: usize = 96 << 20;
const FULL_ROWS: u64 = 1_000_000;
/// How many new rows are gathered at once.
const CHUNK: usize = 8192;
/// So many rows in order are worth a write of their own.
const STRETCH: usize = 256;

/// What became of [`Table::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The keys of rows that lack a value which neither the run nor the lake holds: they are not
    /// in the lake now, and have to be read from the source (S5).
    pub missing: Vec<Vec<u8>>,
}

/// What a run does, worked out before anything is done.
#[derive(Default)]
struct Plan {
    /// The rows that go, by file, ascending.
    doomed: BTreeMap<FileId, Doomed>,
    /// The same with their keys.
    removed: Vec<(u32, Loc)>,
    /// The rows that come (indices into [`Collapsed::rows`]).
    rows: Vec<usize>,
    /// Where the rows are that values are carried from.
    carried: FxHashMap<u32, (FileId, u64)>,
    missing: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Doomed {
    rows: Vec<u64>,
    locs: Vec<Loc>,
}

/// A new file and where its rows are from.
struct Output {
    written: Written,
    /// Files whose remaining rows it begins with, each with their number.
    kept: Vec<(FileId, u64)>,
    /// The rows of the plan that it ends with.
    new: Range<usize>,
}

/// Values read from the lake: for each column of the layout, if any row needs it, the values, and
/// where in them each row is.
#[derive(Default)]
struct Carried {
    columns: FxHashMap<usize, ArrayRef>,
    places: FxHashMap<(FileId, u64), usize>,
}

impl Plan {
    fn doom(&mut self, key: u32, loc: Loc, file: FileId, row: u64) {
        let doomed = self.doomed.entry(file).or_default();
        doomed.rows.push(row);
        doomed.locs.push(loc);
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
        for doomed in plan.doomed.values_mut() {
            doomed.rows.sort_unstable();
            doomed.locs.sort_unstable();
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
        let (together, alone) = self.choose(plan);
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

    /// The files to rewrite: those that share a new file with the new rows, and those that get one
    /// each.
    fn choose(&self, plan: &Plan) -> (Vec<FileId>, Vec<FileId>) {
        let is_small = |id: &FileId| self.view.file(*id).is_some_and(|f| f.add.size < SMALL);
        let mut small: Vec<FileId> = Vec::new();
        let mut touched: Vec<FileId> = Vec::new();
        for (id, file) in self.view.files() {
            let doomed = plan.doomed.get(&id).map_or(0, |doomed| doomed.rows.len() as u64);
            if doomed == file.rows {
                continue;
            }
            if doomed > 0 {
                touched.push(id);
            }
            if is_small(&id) {
                small.push(id);
            }
        }
        let (mut together, alone): (Vec<_>, Vec<_>) = touched.into_iter().partition(is_small);
        if small.len() >= FOLD {
            together = small;
        }
        (together, alone)
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
        let doomed = plan.doomed.get(&id).map_or(&[][..], |doomed| &doomed.rows);
        let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
        let mut batches = reader.batches(layout.arrow(), None)?;
        let mut next = 0_u64;
        while let Some(batch) = batches.try_next().await? {
            let end = next + batch.num_rows() as u64;
            let from = doomed.partition_point(|row| *row < next);
            let to = doomed.partition_point(|row| *row < end);
            let kept = match from == to {
                true => batch,
                false => without(&batch, &doomed[from..to], next)?,
            };
            draft.keep(id, &kept).await?;
            next = end;
        }
        Ok(())
    }

    /// Reads from the lake the values that rows carry.
    async fn read_carried(&self, run: &Collapsed, plan: &Plan, layout: &Layout) -> Result<Carried> {
        let (files, columns) = needed(run, plan, layout);
        let schema: SchemaRef = Arc::new(Schema::new(
            columns.iter().map(|at| layout.arrow().field(*at).clone()).collect::<Vec<Field>>(),
        ));
        let mut carried = Carried::default();
        let mut parts = Vec::new();
        for (id, rows) in files {
            let Some(file) = self.view.file(id) else {
                continue;
            };
            for &row in &rows {
                let place = carried.places.len();
                carried.places.insert((id, row), place);
            }
            let reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
            let read: Vec<_> = reader.batches(&schema, Some(&rows))?.try_collect().await?;
            parts.extend(read);
        }
        let whole = concat_batches(&schema, &parts).map_err(arrow_fault)?;
        if whole.num_rows() != carried.places.len() {
            return Err(Error::table(run.schema.id.clone(), "a data file has lost rows")
                .remedy("take a new snapshot of the table"));
        }
        carried.columns = columns.into_iter().zip(whole.columns().iter().cloned()).collect();
        Ok(carried)
    }

    /// Makes the new files part of the view, and says which old ones nothing names any more.
    fn install(
        &mut self,
        run: &Collapsed,
        plan: &Plan,
        outputs: Vec<Output>,
    ) -> Result<Vec<String>> {
        let mut sources: Vec<FileId> = plan.doomed.keys().copied().collect();
        let Some(index) = &mut self.index else {
            return Err(Error::internal("the index is missing"));
        };
        for (key, loc) in &plan.removed {
            let key = run.keys.get(*key);
            index.remove(key, *loc);
            self.pending.touched.add(fingerprint(key));
        }
        for Output { written, kept, new } in outputs {
            let id = self.view.insert(written.add, written.rows, false);
            let mut first = 0;
            for (source, rows) in kept {
                let doomed = plan.doomed.get(&source).map_or(&[][..], |doomed| &doomed.locs);
                let slots = self.view.detach(source, doomed);
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
        let gone: Vec<_> = sources.into_iter().filter_map(|id| self.view.remove(id)).collect();
        self.pending.changed = true;
        let own = gone.iter().filter(|file| !file.committed);
        Ok(own.map(|file| self.own_path(&file.add.path)).collect())
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

/// The rows of files, ascending, and the columns of the layout, that values are carried from.
fn needed(
    run: &Collapsed,
    plan: &Plan,
    layout: &Layout,
) -> (BTreeMap<FileId, Vec<u64>>, Vec<usize>) {
    let mut files: BTreeMap<FileId, Vec<u64>> = BTreeMap::new();
    for (file, row) in plan.carried.values() {
        files.entry(*file).or_default().push(*row);
    }
    for rows in files.values_mut() {
        rows.sort_unstable();
        rows.dedup();
    }
    let mut columns: Vec<usize> = Vec::new();
    for row in plan.rows.iter().filter_map(|number| run.rows.get(*number)) {
        for (column, from) in &row.carried {
            let name = run.schema.columns.get(*column as usize).map(|column| &column.name);
            let place = name.and_then(|name| layout.position(name));
            if let (From::Lake(_), Some(place)) = (from, place)
                && !columns.contains(&place)
            {
                columns.push(place);
            }
        }
    }
    columns.sort_unstable();
    (files, columns)
}

/// Gathers new rows, column by column, from where their values are.
struct Gather<'a> {
    run: &'a Collapsed,
    plan: &'a Plan,
    layout: &'a Layout,
    carried: &'a Carried,
    /// For each column of the layout, the column of the run.
    sources: Vec<Option<usize>>,
}

impl<'a> Gather<'a> {
    fn new(run: &'a Collapsed, plan: &'a Plan, layout: &'a Layout, carried: &'a Carried) -> Self {
        let names = layout.arrow().fields().iter().map(|field| run.schema.column(field.name()));
        Self { run, plan, layout, carried, sources: names.collect() }
    }

    /// The first of those rows of the plan, and where they end, when they lie one after the other
    /// in a batch (as a chunk's do): a slice of it, without a copy.
    fn stretch(&self, range: Range<usize>) -> Option<(Result<RecordBatch>, usize)> {
        let rows = self.plan.rows.get(range.clone())?;
        let row = |number: &usize| self.run.rows.get(*number);
        let first = row(rows.first()?)?.from;
        let follows = |(at, number): &(u32, &usize)| {
            row(number).is_some_and(|row| {
                let cell = Cell { batch: first.batch, row: first.row + at };
                row.from == cell && row.carried.is_empty()
            })
        };
        let length = (0..).zip(rows).take_while(follows).count();
        if length < STRETCH {
            return None;
        }
        let batch = self.run.batches.get(first.batch as usize)?;
        let slice = batch.columns.slice(first.row as usize, length);
        let columns = self.sources.iter().enumerate().map(|(place, source)| match source {
            Some(source) => Arc::clone(slice.column(*source)),
            None => new_null_array(self.layout.arrow().field(place).data_type(), length),
        });
        let slice = RecordBatch::try_new(Arc::clone(self.layout.arrow()), columns.collect());
        Some((slice.map_err(arrow_fault), range.start + length))
    }

    /// Those rows of the plan.
    fn rows(&self, range: Range<usize>) -> Result<RecordBatch> {
        let numbers = self.plan.rows.get(range).unwrap_or_default();
        let columns = self.sources.iter().enumerate().map(|(place, source)| match source {
            Some(source) => self.column(place, *source, numbers),
            None => {
                let kind = self.layout.arrow().field(place).data_type();
                Ok(new_null_array(kind, numbers.len()))
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(self.layout.arrow()), columns).map_err(arrow_fault)
    }

    fn column(&self, place: usize, source: usize, numbers: &[usize]) -> Result<ArrayRef> {
        let batches = self.run.batches.iter().map(|batch| batch.columns.column(source).as_ref());
        let mut arrays: Vec<&dyn Array> = batches.collect();
        let lake = arrays.len();
        arrays.extend(self.carried.columns.get(&place).map(|array| array.as_ref()));
        let mut indices = Vec::with_capacity(numbers.len());
        for row in numbers.iter().filter_map(|number| self.run.rows.get(*number)) {
            let carried = row.carried.binary_search_by_key(&(source as u32), |(c, _)| *c);
            let index = match carried.ok().and_then(|at| row.carried.get(at)) {
                None => cell(row.from),
                Some((_, From::Run(from))) => cell(*from),
                Some((_, From::Lake(key))) => {
                    let file = self.plan.carried.get(key);
                    let found = file.and_then(|place| self.carried.places.get(place));
                    (lake, *found.ok_or_else(|| Error::internal("a carried value was not read"))?)
                }
                Some((_, From::Nowhere)) => {
                    return Err(Error::internal("a row without all of its values was kept"));
                }
            };
            indices.push(index);
        }
        interleave(&arrays, &indices).map_err(arrow_fault)
    }
}

fn cell(cell: Cell) -> (usize, usize) {
    (cell.batch as usize, cell.row as usize)
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

fn arrow_fault(error: ArrowError) -> Error {
    Error::internal("rows could not be put together").caused_by(error)
}
