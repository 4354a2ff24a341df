//! Gathering the rows that come: column by column from the run's batches and, where a row carries
//! values that the source left out, from the lake.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave;
use futures::TryStreamExt;
use lakeward_connectors::{Error, Result, patch};
use rustc_hash::{FxHashMap, FxHashSet};

use super::read::FileReader;
use super::rewrite::Plan;
use super::schema::Layout;
use super::table::Table;
use super::view::FileId;
use crate::collapse::{Cell, Collapsed, From, NewRow};

/// So many rows in order are worth a write of their own.
const STRETCH: usize = 256;

/// Values read from the lake: for each column of the layout, if any row needs it, the values, and
/// where in them each row is.
#[derive(Default)]
pub(super) struct Carried {
    columns: FxHashMap<usize, ArrayRef>,
    places: FxHashMap<(FileId, u64), usize>,
    /// Texts that patches have made: for each column of the run the texts, and for each of its rows
    /// which of them is its own.
    texts: FxHashMap<usize, ArrayRef>,
    patched: FxHashMap<(usize, usize), usize>,
}

impl Table {
    /// Reads from the lake the values that the rows of those numbers carry, and applies patches to
    /// them. Says which rows have a patch that does not apply: nobody here knows their values.
    pub(super) async fn read_carried(
        &self,
        run: &Collapsed,
        plan: &Plan,
        numbers: &[usize],
        layout: &Layout,
    ) -> Result<(Carried, FxHashSet<usize>)> {
        let mut carried = self.read_lake(run, plan, numbers, layout).await?;
        let unknown = carried.patch(run, plan, numbers, layout)?;
        Ok((carried, unknown))
    }

    async fn read_lake(
        &self,
        run: &Collapsed,
        plan: &Plan,
        numbers: &[usize],
        layout: &Layout,
    ) -> Result<Carried> {
        let (files, columns) = needed(run, plan, numbers, layout);
        if files.is_empty() {
            return Ok(Carried::default());
        }
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
                .remedy("`lakeward snapshot` reads the table again"));
        }
        carried.columns = columns.into_iter().zip(whole.columns().iter().cloned()).collect();
        Ok(carried)
    }
}

/// The rows of files, ascending, and the columns of the layout, that values are carried from.
fn needed(
    run: &Collapsed,
    plan: &Plan,
    numbers: &[usize],
    layout: &Layout,
) -> (BTreeMap<FileId, Vec<u64>>, Vec<usize>) {
    let mut files: BTreeMap<FileId, Vec<u64>> = BTreeMap::new();
    let mut columns: Vec<usize> = Vec::new();
    for row in numbers.iter().filter_map(|number| run.rows.get(*number)) {
        for (column, from) in &row.carried {
            let From::Lake(key) = from else { continue };
            if let Some((file, row)) = plan.carried.get(key) {
                files.entry(*file).or_default().push(*row);
            }
            columns.extend(place_of(run, layout, *column).filter(|at| !columns.contains(at)));
        }
    }
    for rows in files.values_mut() {
        rows.sort_unstable();
        rows.dedup();
    }
    columns.sort_unstable();
    (files, columns)
}

/// The place in the layout of a column of the run.
fn place_of(run: &Collapsed, layout: &Layout, column: u32) -> Option<usize> {
    let name = run.schema.columns.get(column as usize).map(|column| &column.name);
    name.and_then(|name| layout.position(name))
}

impl Carried {
    /// Applies the patches of rows to the values that they carry; says of which rows that failed.
    fn patch(
        &mut self,
        run: &Collapsed,
        plan: &Plan,
        numbers: &[usize],
        layout: &Layout,
    ) -> Result<FxHashSet<usize>> {
        let mut unknown = FxHashSet::default();
        let mut texts: BTreeMap<u32, StringBuilder> = BTreeMap::new();
        for number in numbers {
            let Some(row) = run.rows.get(*number) else { continue };
            for patches in row.patches.chunk_by(|(one, _), (other, _)| one == other) {
                let Some((column, _)) = patches.first() else { continue };
                let base = self.base(run, plan, row, *column, layout)?;
                let sent = patches.iter().map(|(_, cell)| sent(run, *cell, *column));
                let sent = sent.collect::<Option<Vec<_>>>();
                let made = base.zip(sent).and_then(|(base, sent)| patch::apply(base, sent));
                let Some(made) = made else {
                    unknown.insert(*number);
                    continue;
                };
                let texts = texts.entry(*column).or_default();
                self.patched.insert((*number, *column as usize), texts.len());
                texts.append_value(made);
            }
        }
        for (column, mut texts) in texts {
            self.texts.insert(column as usize, Arc::new(texts.finish()));
        }
        Ok(unknown)
    }

    /// The text that the patches of a row's column are for; `None` for a null.
    fn base<'a>(
        &'a self,
        run: &'a Collapsed,
        plan: &Plan,
        row: &NewRow,
        column: u32,
        layout: &Layout,
    ) -> Result<Option<&'a str>> {
        let from = row.carried.binary_search_by_key(&column, |(column, _)| *column);
        match from.ok().and_then(|at| row.carried.get(at)) {
            Some((_, From::Run(cell))) => Ok(sent(run, *cell, column)),
            Some((_, From::Lake(key))) => {
                let at = self.at(plan, *key)?;
                let place = place_of(run, layout, column);
                let array = place.and_then(|place| self.columns.get(&place));
                Ok(array.and_then(|array| text_at(array, at)))
            }
            _ => Err(Error::internal("a patch is of a value that no row carries")),
        }
    }

    /// Where the row is, among those read from the lake, that had this key.
    fn at(&self, plan: &Plan, key: u32) -> Result<usize> {
        let found = plan.carried.get(&key).and_then(|place| self.places.get(place));
        found.copied().ok_or_else(|| Error::internal("a carried value was not read"))
    }
}

/// The text in a row of the run.
fn sent(run: &Collapsed, cell: Cell, column: u32) -> Option<&str> {
    let batch = run.batches.get(cell.batch as usize)?;
    text_at(batch.columns.columns().get(column as usize)?, cell.row as usize)
}

fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    let texts = array.as_string_opt::<i32>()?;
    (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row))
}

/// Gathers new rows, column by column, from where their values are.
pub(super) struct Gather<'a> {
    run: &'a Collapsed,
    plan: &'a Plan,
    layout: &'a Layout,
    carried: &'a Carried,
    /// For each column of the layout, the column of the run.
    sources: Vec<Option<usize>>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        run: &'a Collapsed,
        plan: &'a Plan,
        layout: &'a Layout,
        carried: &'a Carried,
    ) -> Self {
        let names = layout.arrow().fields().iter().map(|field| run.schema.column(field.name()));
        Self { run, plan, layout, carried, sources: names.collect() }
    }

    /// The first of those rows, and how many they are, when they lie one after the other in a batch
    /// (as a chunk's do): a slice of it, without a copy.
    pub(super) fn stretch(&self, rows: &[usize]) -> Option<(Result<RecordBatch>, usize)> {
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
        Some((slice.map_err(arrow_fault), length))
    }

    /// Those rows, without the `unknown` ones.
    pub(super) fn rows(
        &self,
        numbers: &[usize],
        unknown: &FxHashSet<usize>,
    ) -> Result<RecordBatch> {
        let known: Vec<usize>;
        let numbers = match unknown.is_empty() {
            true => numbers,
            false => {
                let kept = numbers.iter().filter(|number| !unknown.contains(number));
                known = kept.copied().collect();
                &known
            }
        };
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
        let texts = arrays.len();
        arrays.extend(self.carried.texts.get(&source).map(|array| array.as_ref()));
        let mut indices = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Some(text) = self.carried.patched.get(&(*number, source)) {
                indices.push((texts, *text));
                continue;
            }
            let Some(row) = self.run.rows.get(*number) else { continue };
            let carried = row.carried.binary_search_by_key(&(source as u32), |(c, _)| *c);
            let index = match carried.ok().and_then(|at| row.carried.get(at)) {
                None => cell(row.from),
                Some((_, From::Run(from))) => cell(*from),
                Some((_, From::Lake(key))) => (lake, self.carried.at(self.plan, *key)?),
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

/// Rows that Arrow can't put together: a bug.
pub(super) fn arrow_fault(error: ArrowError) -> Error {
    Error::internal("rows could not be put together").caused_by(error)
}
