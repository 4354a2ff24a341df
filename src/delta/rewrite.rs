//! Applying a run of changes: old rows go, by rewriting their files without them or by marking them
//! as deleted ([`Merge`](super::merge::Merge) says which); new rows go into new files, small files
//! go along.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use futures::TryStreamExt;
use lakeward_connectors::key::{KeyReader, key_columns};
use lakeward_connectors::{Error, Result, TableSchema};
use parquet::file::metadata::RowGroupMetaData;
use rustc_hash::{FxHashMap, FxHashSet};

use super::actions::Add;
use super::deletes::Rows;
use super::files::{FileWriter, Written};
use super::gather::{Gather, arrow_fault};
use super::index::{Found, Index, Place, Segment, fingerprint};
use super::lookup::{has_key, unusable};
use super::merge::{Choice, Merge};
use super::ordered::Ordered;
use super::partition::{self, Values};
use super::read::{Batches, FileReader, VALUE_BYTES};
use super::schema::Layout;
use super::stats;
use super::store::Lake;
use super::table::Table;
use super::view::{DataFile, FileId};
use crate::collapse::{Collapsed, From, NewRow, Removal};

/// A file is full at this size or this many rows.
pub(super) const FULL_BYTES: usize = 96 << 20;
pub(super) const FULL_ROWS: u64 = 1_000_000;
/// How many new rows are gathered at once, and how many bytes of those that carry values.
const CHUNK: usize = 8192;
const CHUNK_BYTES: usize = 32 << 20;
/// How many times as large a row is taken to be in memory as in its file.
const UNPACKED: u64 = 4;

/// What became of [`Table::apply`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The keys of rows that lack a value which neither the run nor the lake holds: they are not
    /// in the lake now, and have to be read from the source (S5).
    pub missing: Vec<Vec<u8>>,
    /// The bytes of the files that were written again.
    pub copied: u64,
    /// About how many bytes of the new files are new rows.
    pub brought: u64,
    /// How many rows came, those among them that take the place of another.
    pub rows: u64,
}

/// What a run does, worked out before anything is done.
#[derive(Default)]
pub(super) struct Plan {
    /// The rows that go, by file, ascending.
    pub(super) doomed: BTreeMap<FileId, Vec<u64>>,
    /// Their keys.
    removed: Vec<u32>,
    /// The rows that come (indices into [`Collapsed::rows`]).
    pub(super) rows: Vec<usize>,
    /// Where the rows are that values are carried from.
    pub(super) carried: FxHashMap<u32, (FileId, u64)>,
    missing: Vec<Vec<u8>>,
}

/// A new file and the places of its rows.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) written: Written,
    pub(super) segments: Vec<Segment>,
}

impl Plan {
    fn doom(&mut self, key: u32, file: FileId, row: u64) {
        self.doomed.entry(file).or_default().push(row);
        self.removed.push(key);
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
        let found = self.find(&run.keys).await?;
        let plan = self.plan(run, &found)?;
        if plan.doomed.is_empty() && plan.rows.is_empty() {
            return Ok(Applied { missing: plan.missing, ..Applied::default() });
        }
        let choice = self.choose(&plan);
        let mut missing = Vec::new();
        let outputs = self.write(run, &plan, &choice, &mut missing).await?;
        let again = choice.alone.iter().chain(&choice.together);
        let again = again.filter_map(|id| self.view.file(*id)).map(|file| file.add.size);
        let copied = again.map(i64::unsigned_abs).sum();
        let brought = brought(&outputs, plan.rows.len() as u64);
        let superseded = self.install(run, &plan, choice, outputs);
        self.lake.forget(superseded).await;
        let rows = (plan.rows.len() as u64).saturating_sub(missing.len() as u64);
        missing.extend(plan.missing);
        Ok(Applied { missing, copied, brought, rows })
    }

    /// Finds every row that the run is about.
    fn plan(&self, run: &Collapsed, found: &Found) -> Result<Plan> {
        let mut plan = Plan::default();
        let unique = has_key(&run.schema);
        let mut doomed = vec![false; run.keys.len()];
        let mut chosen = FxHashSet::default();
        for removal in &run.removals {
            match doomed.get_mut(removal.key as usize) {
                Some(doomed) if unique => {
                    if !std::mem::replace(doomed, true) {
                        self.doom(found, removal.key, &mut plan);
                    }
                }
                _ => {
                    let rows = self.choose_rows(run, found, *removal, &mut chosen)?;
                    rows.into_iter().for_each(|(file, row)| plan.doom(removal.key, file, row));
                }
            }
        }
        for (number, row) in run.rows.iter().enumerate() {
            if unique && !doomed.get(row.key as usize).is_some_and(|doomed| *doomed) {
                self.doom(found, row.key, &mut plan);
            }
            match self.find_carried(found, row, &mut plan.carried) {
                true => plan.rows.push(number),
                false if row.optional => {}
                false => plan.missing.push(run.keys.get(row.key).to_vec()),
            }
        }
        // Files in the order of their keys stay so as they become few, and are soon searched. Rows
        // that take nobody's place come in their source's order, and are written as they are.
        if unique && !plan.doomed.is_empty() {
            let key = |number: &usize| run.rows.get(*number).map(|row| run.keys.get(row.key));
            plan.rows.sort_by(|a, b| key(a).cmp(&key(b)));
        }
        // Rows that carry values come last, in the order in which those lie in the lake.
        if !plan.carried.is_empty() {
            plan.rows.sort_by_key(|number| {
                let row = run.rows.get(*number);
                let mut from = row.into_iter().flat_map(|row| &row.carried);
                from.find_map(|(_, from)| match from {
                    From::Lake(key) => plan.carried.get(key).copied(),
                    From::Run(_) | From::Nowhere => None,
                })
            });
        }
        for rows in plan.doomed.values_mut() {
            rows.sort_unstable();
            // A key may be there twice: that of a row that goes, and of one that comes.
            rows.dedup();
        }
        Ok(plan)
    }

    /// The row of a key goes, if there is one.
    fn doom(&self, found: &Found, key: u32, plan: &mut Plan) {
        for place in found.of(key) {
            if let Some((file, row)) = self.view.locate(*place) {
                plan.doom(key, file, row);
            }
        }
    }

    /// Chooses so many of the rows that equal one another; they are counted, so all must be there.
    fn choose_rows(
        &self,
        run: &Collapsed,
        found: &Found,
        removal: Removal,
        chosen: &mut FxHashSet<Place>,
    ) -> Result<Vec<(FileId, u64)>> {
        let places = found.of(removal.key).iter().rev();
        let places = places.filter_map(|place| Some((place, self.view.locate(*place)?)));
        let fresh = places.filter_map(|(place, row)| chosen.insert(*place).then_some(row));
        let rows: Vec<_> = fresh.take(removal.rows as usize).collect();
        if rows.len() < removal.rows as usize {
            let message = "lake and source differ: a row that was deleted or changed in the \
                           source is not in the lake";
            return Err(Error::table(run.schema.id.clone(), message)
                .remedy("`lakeward snapshot` reads the table again"));
        }
        Ok(rows)
    }

    /// Notes where the values are that a row carries; `false` when one of them is nowhere.
    fn find_carried(
        &self,
        found: &Found,
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
                let place = found.of(*key).first().and_then(|place| self.view.locate(*place));
                place.is_some_and(|place| carried.insert(*key, place).is_none())
            }
        })
    }

    /// Writes the new files, whose rows the index then knows. It is lost on an error.
    async fn write(
        &mut self,
        run: &Collapsed,
        plan: &Plan,
        choice: &Choice,
        missing: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<Output>> {
        let Some(mut index) = self.index.take() else {
            return Err(Error::internal("the index is missing"));
        };
        let mut outputs = Vec::new();
        match self.write_all(run, plan, choice, &mut index, &mut outputs, missing).await {
            Ok(()) => {
                self.index = Some(index);
                Ok(outputs)
            }
            Err(error) => {
                let names = outputs.iter().map(|output| self.own_path(&output.written.add.path));
                self.lake.forget(names.collect()).await;
                Err(error)
            }
        }
    }

    async fn write_all(
        &self,
        run: &Collapsed,
        plan: &Plan,
        choice: &Choice,
        index: &mut Index,
        outputs: &mut Vec<Output>,
        missing: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let layout = self.known_layout()?;
        for id in &choice.alone {
            let mut draft = Draft::new(&self.lake, &self.path, &layout, &self.values_of(*id));
            self.copy(*id, plan, &layout, index, &mut draft).await?;
            outputs.extend(draft.finish().await?);
        }
        let together = match self.merge {
            // Those keep their order: new rows get a file of their own.
            Merge::DeletionVectors => {
                self.join_files(&choice.together, plan, &layout, index, outputs).await?;
                &[][..]
            }
            Merge::Rewrite => &choice.together,
        };
        let mut drafts = Drafts { table: self, layout: &layout, open: BTreeMap::new() };
        for id in together {
            let draft = drafts.of(&self.values_of(*id), outputs).await?;
            self.copy(*id, plan, &layout, index, draft).await?;
        }
        let (mut rest, most) = (&plan.rows[..], self.chunk(run, plan));
        while !rest.is_empty() {
            let (chunk, _) = rest.split_at(rest.len().min(most));
            let (carried, unknown) = self.read_carried(run, plan, chunk, &layout).await?;
            let gather = Gather::new(run, plan, &layout, &carried);
            let (taken, rows) = match gather.stretch(chunk) {
                Some((rows, length)) => (&chunk[..length], rows?),
                None => (chunk, gather.rows(chunk, &unknown)?),
            };
            rest = &rest[taken.len()..];
            let key = |number: &usize| run.keys.get(run.rows.get(*number).map_or(0, |row| row.key));
            let (lost, kept): (Vec<usize>, Vec<usize>) =
                taken.iter().partition(|number| unknown.contains(*number));
            missing.extend(lost.iter().map(|number| key(number).to_vec()));
            for part in partition::split(&layout, &rows)? {
                let count = part.rows.num_rows();
                if count == 0 {
                    continue;
                }
                let draft = drafts.of(&part.values, outputs).await?;
                draft.write(&part.rows, index.next()).await?;
                for at in 0..count {
                    let at = part.picked.as_ref().map_or(Some(at), |p| Some(*p.get(at)? as usize));
                    let number = at.and_then(|at| kept.get(at));
                    let number = number.ok_or_else(|| Error::internal("a row has no key"))?;
                    index.push(key(number)).map_err(unusable)?;
                }
            }
        }
        drafts.finish(outputs).await
    }

    /// Writes small files as one, a partition at a time, in the order of their keys.
    async fn join_files(
        &self,
        files: &[FileId],
        plan: &Plan,
        layout: &Arc<Layout>,
        index: &mut Index,
        outputs: &mut Vec<Output>,
    ) -> Result<()> {
        let schema = self.known_schema()?;
        let mut partitions: BTreeMap<Values, Vec<(&Add, Vec<u64>)>> = BTreeMap::new();
        for (id, file) in files.iter().filter_map(|id| Some((*id, self.view.file(*id)?))) {
            let files = partitions.entry(file.add.partition_values.clone()).or_default();
            files.push((&file.add, self.gone(id, plan)));
        }
        for (values, files) in partitions {
            let mut rows = Ordered::open(&self.lake, &self.path, &schema, layout, files).await?;
            let mut draft = Draft::new(&self.lake, &self.path, layout, &values);
            while let Some(part) = rows.next().await? {
                if draft.is_full() {
                    let next = Draft::new(&self.lake, &self.path, layout, &values);
                    outputs.extend(std::mem::replace(&mut draft, next).finish().await?);
                }
                draft.write(&part.rows, index.next()).await?;
                for number in 0..part.keys.len() as u32 {
                    index.push(part.keys.get(number)).map_err(unusable)?;
                }
            }
            outputs.extend(draft.finish().await?);
        }
        Ok(())
    }

    /// The partition of a file.
    fn values_of(&self, id: FileId) -> Values {
        self.view.file(id).map(|file| file.add.partition_values.clone()).unwrap_or_default()
    }

    /// How many new rows are gathered at once: fewer where the values that they carry are large.
    fn chunk(&self, run: &Collapsed, plan: &Plan) -> usize {
        if plan.carried.is_empty() && run.rows.iter().all(|row| row.patches.is_empty()) {
            return rows_of(run.schema.columns.len() * VALUE_BYTES);
        }
        self.rows_at_once()
    }

    /// How many rows of this table are read at once.
    pub(super) fn rows_at_once(&self) -> usize {
        let width = self.view.bytes() / self.view.rows().max(1) * UNPACKED;
        rows_of(usize::try_from(width).unwrap_or(usize::MAX))
    }

    /// Copies the rows of a file that stay. A row group from which none goes is copied as bytes,
    /// and its rows keep their places.
    async fn copy(
        &self,
        id: FileId,
        plan: &Plan,
        layout: &Layout,
        index: &mut Index,
        draft: &mut Draft,
    ) -> Result<()> {
        let Some(file) = self.view.file(id) else {
            return Ok(());
        };
        let gone = self.gone(id, plan);
        let mut reader = FileReader::open(&self.lake, &self.path, &file.add).await?;
        let groups = reader.groups().to_vec();
        let mut next = 0_u64;
        for (number, group) in groups.iter().enumerate() {
            let rows = next..next + u64::try_from(group.num_rows()).unwrap_or(0);
            next = rows.end;
            let gone = &gone[gone.partition_point(|row| *row < rows.start)..];
            let gone = &gone[..gone.partition_point(|row| *row < rows.end)];
            if gone.is_empty() && reader.is_own() && draft.writer.takes(group)? {
                let (start, bytes) = reader.group_bytes(group).await?;
                draft.copy(group, start, bytes, file, rows).await?;
            } else {
                let batches = reader.group_batches(layout.arrow(), number)?;
                self.copy_rows(batches, rows.start, gone, layout, index, draft).await?;
            }
        }
        Ok(())
    }

    /// Copies rows, the first of which is number `next` of its file, without those that are `gone`.
    async fn copy_rows(
        &self,
        mut batches: Batches,
        mut next: u64,
        gone: &[u64],
        layout: &Layout,
        index: &mut Index,
        draft: &mut Draft,
    ) -> Result<()> {
        let schema = self.known_schema()?;
        let mut key = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            let end = next + batch.num_rows() as u64;
            let kept = without(batch, gone, next)?;
            next = end;
            draft.write(&kept, index.next()).await?;
            let keys = KeyReader::new(&schema, key_arrays(&schema, layout, &kept));
            for row in 0..kept.num_rows() {
                key.clear();
                keys.encode(row, &mut key)?;
                index.push(&key).map_err(unusable)?;
            }
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
        choice: Choice,
        outputs: Vec<Output>,
    ) -> Vec<String> {
        for key in &plan.removed {
            self.pending.touched.add(fingerprint(run.keys.get(*key)));
        }
        for Output { written, segments } in outputs {
            let id = self.view.insert(written.add, written.rows, Rows::new(), false);
            segments.into_iter().for_each(|segment| self.view.number(id, segment));
        }
        let Choice { together, mut alone } = choice;
        alone.extend(together);
        self.mark(plan, &mut alone);
        let gone: Vec<_> = alone.into_iter().filter_map(|id| self.view.remove(id)).collect();
        self.pending.changed = true;
        let own = gone.iter().filter(|file| !file.committed);
        own.map(|file| self.own_path(&file.add.path)).collect()
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

/// The files in the making, one for each partition.
struct Drafts<'t> {
    table: &'t Table,
    layout: &'t Arc<Layout>,
    open: BTreeMap<Values, Draft>,
}

impl Drafts<'_> {
    /// The file for rows of a partition: a new one when the last one is full.
    async fn of(&mut self, values: &Values, outputs: &mut Vec<Output>) -> Result<&mut Draft> {
        if self.open.get(values).is_some_and(Draft::is_full)
            && let Some(full) = self.open.remove(values)
        {
            outputs.extend(full.finish().await?);
        }
        let Table { lake, path, .. } = self.table;
        let new = || Draft::new(lake, path, self.layout, values);
        Ok(self.open.entry(values.clone()).or_insert_with(new))
    }

    async fn finish(self, outputs: &mut Vec<Output>) -> Result<()> {
        for draft in self.open.into_values() {
            outputs.extend(draft.finish().await?);
        }
        Ok(())
    }
}

/// A file in the making.
pub(super) struct Draft {
    writer: FileWriter,
    /// The places of its rows.
    segments: Vec<Segment>,
}

impl Draft {
    pub(super) fn new(lake: &Lake, table: &str, layout: &Arc<Layout>, values: &Values) -> Self {
        Self { writer: FileWriter::new(lake, table, layout, values), segments: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.writer.bytes() >= FULL_BYTES || self.writer.rows() >= FULL_ROWS
    }

    /// Appends rows with consecutive places, from `place` on.
    pub(super) async fn write(&mut self, batch: &RecordBatch, place: Place) -> Result<()> {
        let (first, rows) = (self.writer.rows(), batch.num_rows() as u64);
        self.writer.write(batch).await?;
        self.note(Segment { first, place, rows });
        Ok(())
    }

    /// Appends a row group of `file`: the rows of those numbers, which keep their places.
    async fn copy(
        &mut self,
        group: &RowGroupMetaData,
        start: u64,
        bytes: Bytes,
        file: &DataFile,
        rows: Range<u64>,
    ) -> Result<()> {
        let new = self.writer.rows();
        let without_nan = stats::tells_no_nan(file.add.stats.as_deref());
        self.writer.copy(group, start, bytes, &without_nan).await?;
        self.note_places(file, rows, new);
        Ok(())
    }

    /// Appends what became of the rows of `file` of those numbers, of which the deleted ones are
    /// left out; they keep their places.
    pub(super) async fn keep(
        &mut self,
        batch: &RecordBatch,
        file: &DataFile,
        rows: Range<u64>,
    ) -> Result<()> {
        let mut new = self.writer.rows();
        self.writer.write(batch).await?;
        let mut next = rows.start;
        let gone = file.deleted().iter().skip_while(|row| *row < rows.start);
        for gone in gone.take_while(|row| *row < rows.end).chain([rows.end]) {
            self.note_places(file, next..gone, new);
            new += gone - next;
            next = gone + 1;
        }
        Ok(())
    }

    /// Notes the places of the rows of `file` of those numbers, the first of which is row `new` here.
    fn note_places(&mut self, file: &DataFile, rows: Range<u64>, new: u64) {
        for segment in file.segments() {
            let from = segment.first.max(rows.start);
            let to = (segment.first + segment.rows).min(rows.end);
            if from < to {
                let place = segment.place + (from - segment.first);
                self.note(Segment { first: new + (from - rows.start), place, rows: to - from });
            }
        }
    }

    fn note(&mut self, segment: Segment) {
        let follows = |last: &&mut Segment| {
            last.first + last.rows == segment.first && last.place + last.rows == segment.place
        };
        match self.segments.last_mut().filter(follows) {
            Some(last) => last.rows += segment.rows,
            None => self.segments.push(segment),
        }
    }

    pub(super) async fn finish(self) -> Result<Option<Output>> {
        let Self { writer, segments } = self;
        Ok(writer.finish().await?.map(|written| Output { written, segments }))
    }
}

/// How many rows of so many bytes each are gathered at once.
fn rows_of(width: usize) -> usize {
    (CHUNK_BYTES / width.max(1)).clamp(16, CHUNK)
}

/// About how many bytes of new files are those of their `rows` new rows.
fn brought(outputs: &[Output], rows: u64) -> u64 {
    let written = outputs.iter().map(|output| &output.written);
    let (bytes, all) = written.fold((0, 0), |(bytes, all), written| {
        (bytes + written.add.size.unsigned_abs(), all + written.rows)
    });
    u64::try_from(u128::from(bytes) * u128::from(rows) / u128::from(all.max(1))).unwrap_or(bytes)
}

/// The columns of a batch that keys are made of.
pub(super) fn key_arrays<'a>(
    schema: &TableSchema,
    layout: &Layout,
    batch: &'a RecordBatch,
) -> Vec<&'a ArrayRef> {
    let columns = key_columns(schema).into_iter().filter_map(|at| schema.columns.get(at));
    let places = columns.filter_map(|column| layout.position(&column.name));
    places.map(|place| batch.column(place)).collect()
}

/// The rows of a batch, which starts at row `first` of its file, without those that are `gone`
/// (ascending numbers of rows of the file).
pub(super) fn without(batch: RecordBatch, gone: &[u64], first: u64) -> Result<RecordBatch> {
    let end = first + batch.num_rows() as u64;
    let from = gone.partition_point(|row| *row < first);
    let to = gone.partition_point(|row| *row < end);
    if from == to {
        return Ok(batch);
    }
    let mut kept = vec![true; batch.num_rows()];
    for row in &gone[from..to] {
        if let Some(kept) = kept.get_mut((row - first) as usize) {
            *kept = false;
        }
    }
    filter_record_batch(&batch, &BooleanArray::from(kept)).map_err(arrow_fault)
}
