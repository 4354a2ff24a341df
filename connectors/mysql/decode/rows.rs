//! Row images → calls of a [`Builder`].

use super::Known;
use crate::batch::Builder;
use crate::change::{Op, Value};
use crate::error::{Error, Reason};
use crate::mysql::event::{Deed, Rows, bit};
use crate::mysql::image::{self, Logged, code};
use crate::mysql::input::Input;
use crate::mysql::json;
use crate::mysql::values::{self, Field};
use crate::patch;
use crate::schema::{Identity, TableSchema};

/// Why rows can't be appended.
pub(super) enum Fault {
    /// They are not in their form.
    Malformed,
    /// Why the table can't go on.
    Stop(Reason),
}

/// One value of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    /// The image leaves it out.
    Absent,
    Null,
    Bytes(&'a [u8]),
    /// What changed in a JSON value, and the value before where that is known.
    Changed(&'a [u8], Option<&'a [u8]>),
}

/// Appends all rows of an event.
pub(super) fn append(
    known: &Known,
    columns: &[Logged],
    rows: &Rows<'_>,
    builder: &mut Builder,
) -> Result<(), Fault> {
    let mut input = Input(rows.images);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let table = Table { known, columns };
    while !input.0.is_empty() {
        match rows.deed {
            Deed::Write => {
                image(&mut input, columns, rows.present, &mut after).ok_or(Fault::Malformed)?;
                table.write(Op::Insert, &after, None, builder)?;
            }
            Deed::Delete => {
                image(&mut input, columns, rows.present, &mut before).ok_or(Fault::Malformed)?;
                table.delete(&before, builder)?;
            }
            Deed::Update | Deed::PartialUpdate => {
                image(&mut input, columns, rows.present, &mut before).ok_or(Fault::Malformed)?;
                let partial = match rows.deed {
                    Deed::PartialUpdate => partial(&mut input, columns).ok_or(Fault::Malformed)?,
                    _ => &[],
                };
                image_of(&mut input, columns, rows.present_after, partial, &mut after)
                    .ok_or(Fault::Malformed)?;
                table.update(&before, &mut after, builder)?;
            }
        }
    }
    Ok(())
}

/// What precedes the image after a partial update: options, of which the first says that a bit for
/// each JSON column of the table follows, set where the image has what changed ("Rows_event",
/// value_options and partial_bits).
fn partial<'a>(input: &mut Input<'a>, columns: &[Logged]) -> Option<&'a [u8]> {
    const PARTIAL_JSON: u64 = 1;
    if input.length()? & PARTIAL_JSON == 0 {
        return Some(&[]);
    }
    let documents = columns.iter().filter(|column| column.code == code::JSON).count();
    input.bytes(documents.div_ceil(8))
}

/// Reads an image that holds whole values.
fn image<'a>(
    input: &mut Input<'a>,
    columns: &[Logged],
    present: &[u8],
    cells: &mut Vec<Cell<'a>>,
) -> Option<()> {
    image_of(input, columns, present, &[], cells)
}

/// Reads an image: one bit for each column it holds, set when that is null, then the others.
fn image_of<'a>(
    input: &mut Input<'a>,
    columns: &[Logged],
    present: &[u8],
    partial: &[u8],
    cells: &mut Vec<Cell<'a>>,
) -> Option<()> {
    let held = (0..columns.len()).filter(|at| bit(present, *at)).count();
    let nulls = input.bytes(held.div_ceil(8))?;
    cells.clear();
    let (mut place, mut documents) = (0, 0);
    for (at, logged) in columns.iter().enumerate() {
        let document = logged.code == code::JSON;
        documents += usize::from(document);
        let changed = document && bit(partial, documents - 1);
        cells.push(if !bit(present, at) {
            Cell::Absent
        } else {
            place += 1;
            match bit(nulls, place - 1) {
                true => Cell::Null,
                // Counted as a whole value is.
                false if changed => Cell::Changed(logged.take(input)?, None),
                false => Cell::Bytes(logged.take(input)?),
            }
        });
    }
    Some(())
}

/// A table whose rows are being appended.
struct Table<'t> {
    known: &'t Known,
    columns: &'t [Logged],
}

impl Table<'_> {
    fn schema(&self) -> &TableSchema {
        &self.known.schema
    }

    fn is_keyed(&self) -> bool {
        self.schema().identity != Identity::FullRow
    }

    /// The value of a cell; `row` is what else is known of the row, for errors.
    #[inline]
    fn value<'a>(&self, at: usize, cell: Cell<'a>, row: &[Cell<'a>]) -> Result<Value<'a>, Fault> {
        let bytes = match cell {
            Cell::Absent => return Ok(Value::Unchanged),
            Cell::Null => return Ok(Value::Null),
            Cell::Bytes(bytes) => bytes,
            Cell::Changed(changes, before) => return self.changed(at, changes, before, row),
        };
        let (field, logged) =
            self.known.fields.get(at).zip(self.columns.get(at)).ok_or(Fault::Malformed)?;
        let value = image::value(field, *logged, bytes).map_err(|misfit| {
            let shown = self.as_text(at, bytes);
            let key = |at: usize| match row.get(at) {
                Some(Cell::Bytes(bytes)) => Some(self.as_text(at, bytes)),
                _ => None,
            };
            Fault::Stop(values::stop_reason(self.schema(), at, misfit, &shown, key))
        })?;
        if self.schema().key().contains(&at) {
            let comparable = values::comparable(self.schema(), at, &value);
            comparable.map_err(|reason| Fault::Stop(reason.into()))?;
        }
        Ok(value)
    }

    /// A JSON value of which the image has what changed: whole where the value before is known.
    fn changed<'a>(
        &self,
        at: usize,
        changes: &'a [u8],
        before: Option<&'a [u8]>,
        row: &[Cell<'a>],
    ) -> Result<Value<'a>, Fault> {
        let patch = json::patch(changes).map_err(|misfit| {
            let key = |at: usize| match row.get(at) {
                Some(Cell::Bytes(bytes)) => Some(self.as_text(at, bytes)),
                _ => None,
            };
            let shown = changes.escape_ascii().to_string();
            Fault::Stop(values::stop_reason(self.schema(), at, misfit, &shown, key))
        })?;
        let Some(before) = before else { return Ok(Value::Patch(patch.into())) };
        let whole = match self.value(at, Cell::Bytes(before), row)? {
            Value::OwnedText(text) => patch::apply(&text, [patch.as_str()]),
            _ => None,
        };
        whole.map(Value::OwnedText).ok_or(Fault::Malformed)
    }

    /// A value as people read it, whether or not it fits.
    fn as_text(&self, at: usize, bytes: &[u8]) -> String {
        let (Some(field), Some(logged)) = (self.known.fields.get(at), self.columns.get(at)) else {
            return String::new();
        };
        let text = field.kind.text_type().map(|lake| Field { lake, ..field.clone() });
        let value = image::value(text.as_ref().unwrap_or(field), *logged, bytes);
        value.map_or_else(|_| bytes.escape_ascii().to_string(), |value| values::shown(&value))
    }

    /// The values of an old row as far as they identify it.
    fn old<'a>(&self, row: &[Cell<'a>]) -> Result<Vec<Value<'a>>, Fault> {
        let (keyed, key) = (self.is_keyed(), self.schema().key());
        let values = row.iter().enumerate().map(|(at, cell)| match (keyed, cell) {
            (true, _) if !key.contains(&at) => Ok(Value::Unchanged),
            (_, Cell::Absent) => {
                let name = self.schema().columns.get(at).map_or("?", |c| c.name.as_str());
                let reason = format!(
                    "the log leaves column {name} out of old rows, which identifies them; \
                     SET GLOBAL binlog_row_image = 'FULL', and start again"
                );
                Err(Fault::Stop(reason.into()))
            }
            _ => self.value(at, *cell, row),
        });
        values.collect()
    }

    fn delete(&self, before: &[Cell<'_>], builder: &mut Builder) -> Result<(), Fault> {
        let old = self.old(before)?;
        builder.push(Op::Delete, Some(&old), None).map_err(internal)
    }

    fn update<'a>(
        &self,
        before: &[Cell<'a>],
        after: &mut [Cell<'a>],
        builder: &mut Builder,
    ) -> Result<(), Fault> {
        // What the update left as it was is in the row before, as far as that has it.
        for (new, old) in after.iter_mut().zip(before) {
            *new = match (*new, *old) {
                (Cell::Absent, old) | (Cell::Changed([], _), old) => old,
                (Cell::Changed(changes, _), Cell::Bytes(old)) => Cell::Changed(changes, Some(old)),
                (Cell::Changed(..), Cell::Null) => return Err(Fault::Malformed),
                (new, _) => new,
            };
        }
        if !self.is_keyed() {
            self.delete(before, builder)?;
            return self.write(Op::Insert, after, None, builder);
        }
        let moved = self.schema().key().iter().any(|&at| before.get(at) != after.get(at));
        let old_key = match moved {
            true => Some(builder.key(&self.old(before)?).map_err(internal)?),
            false => None,
        };
        self.write(Op::Update, after, old_key, builder)
    }

    fn write(
        &self,
        op: Op,
        after: &[Cell<'_>],
        old_key: Option<u32>,
        builder: &mut Builder,
    ) -> Result<(), Fault> {
        let keyed = self.is_keyed();
        if after.iter().enumerate().any(|(at, cell)| {
            matches!(cell, Cell::Absent | Cell::Changed(_, None))
                && (!keyed || self.schema().key().contains(&at))
        }) {
            return Err(Fault::Stop(
                "the log leaves out values that identify a row; \
                 SET GLOBAL binlog_row_image = 'FULL', and start again"
                    .into(),
            ));
        }
        let mut row = builder.row();
        for (at, cell) in after.iter().enumerate() {
            row.push(&self.value(at, *cell, after)?);
        }
        row.finish(op, old_key).map_err(internal)
    }
}

fn internal(error: Error) -> Fault {
    Fault::Stop(error.full().into())
}
