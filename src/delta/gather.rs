//! Gathering the rows that come: column by column from the run's batches and, where a row carries
//! values that the source left out, from the lake.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave;
use futures::TryStreamExt;
use lakeward_connectors::{Error, Result};
use rustc_hash::FxHashMap;

use super::read::FileReader;
use super::rewrite::Plan;
use super::schema::Layout;
use super::table::Table;
use super::view::FileId;
use crate::collapse::{Cell, Collapsed, From};

/// So many rows in order are worth a write of their own.
const STRETCH: usize = 256;

/// Values read from the lake: for each column of the layout, if any row needs it, the values, and
/// where in them each row is.
#[derive(Default)]
pub(super) struct Carried {
    columns: FxHashMap<usize, ArrayRef>,
    places: FxHashMap<(FileId, u64), usize>,
}

impl Table {
    /// Reads from the lake the values that rows carry.
    pub(super) async fn read_carried(
        &self,
        run: &Collapsed,
        plan: &Plan,
        layout: &Layout,
    ) -> Result<Carried> {
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

    /// The first of those rows of the plan, and where they end, when they lie one after the other
    /// in a batch (as a chunk's do): a slice of it, without a copy.
    pub(super) fn stretch(&self, range: Range<usize>) -> Option<(Result<RecordBatch>, usize)> {
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
    pub(super) fn rows(&self, range: Range<usize>) -> Result<RecordBatch> {
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

/// Rows that Arrow can't put together: a bug.
pub(super) fn arrow_fault(error: ArrowError) -> Error {
    Error::internal("rows could not be put together").caused_by(error)
}
