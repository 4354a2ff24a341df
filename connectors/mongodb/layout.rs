//! Documents → rows of a table's schema, for the stream and the snapshot alike. Pure.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::element::{Element, Elements, Malformed, find};
use super::identity::IdKind;
use super::json;
use super::names::field_of;
use super::shape::{DOCUMENT_TYPE, ID, Limits, takes};
use super::values::Kind;
use crate::batch::Builder;
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::schema::TableSchema;

/// Why a document is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// A field has no column yet, or a value of another kind: the shape has to grow.
    Shape,
    /// The table can't go on; the reason names field, document and remedy.
    Stop(String),
}

/// What a column of the schema holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Id,
    Document,
    Field(Kind),
}

/// A table's columns as documents fill them.
#[derive(Debug)]
pub struct Layout {
    schema: Arc<TableSchema>,
    id: IdKind,
    columns: Vec<Holds>,
    /// The fields' names by column; empty for the columns that hold no field.
    names: Vec<Box<str>>,
    by_name: FxHashMap<Box<str>, usize>,
    fields: usize,
    limits: Limits,
}

/// What is kept from row to row, so that a row costs few allocations.
#[derive(Debug, Default)]
pub struct Room {
    slots: Vec<Option<Slot>>,
    text: String,
}

/// Where in its document a field's value is.
#[derive(Debug, Clone)]
struct Slot {
    kind: u8,
    value: Range<usize>,
}

impl Layout {
    /// The layout of `schema`.
    ///
    /// # Errors
    /// When the schema isn't one that this connector makes.
    pub fn new(schema: Arc<TableSchema>, limits: Limits) -> Result<Self> {
        let strange = || {
            Error::internal("a stored schema was not written by this connector")
                .with("table", &schema.id)
        };
        let (mut columns, mut names, mut by_name) = (Vec::new(), Vec::new(), FxHashMap::default());
        let mut id = None;
        for (at, column) in schema.columns.iter().enumerate() {
            let (holds, name) = if at == 0 {
                id = IdKind::parse(&column.source_type).filter(|_| column.id == ID.1);
                (Holds::Id, ID.0.to_owned())
            } else if column.source_type == DOCUMENT_TYPE {
                (Holds::Document, String::new())
            } else {
                let kind = Kind::parse(&column.source_type).ok_or_else(strange)?;
                (Holds::Field(kind), field_of(&column.name).ok_or_else(strange)?)
            };
            if holds != Holds::Document {
                by_name.insert(name.clone().into_boxed_str(), at);
            }
            columns.push(holds);
            names.push(name.into_boxed_str());
        }
        let fields = columns.iter().filter(|holds| matches!(holds, Holds::Field(_))).count();
        let id = id.ok_or_else(strange)?;
        Ok(Self { id, columns, names, by_name, fields, limits, schema })
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Of which kind the key's column is.
    pub fn id(&self) -> IdKind {
        self.id
    }

    /// What each column holds, with the field's name.
    pub(super) fn columns(&self) -> impl Iterator<Item = (Holds, &str)> {
        self.columns.iter().copied().zip(self.names.iter().map(|name| &**name))
    }

    /// Whether a field has a column.
    pub(super) fn has(&self, field: &str) -> bool {
        self.by_name.contains_key(field)
    }

    /// Whether a field has a column of JSON texts.
    pub(super) fn is_json(&self, field: &str) -> bool {
        let column = self.by_name.get(field).and_then(|at| self.columns.get(*at));
        column == Some(&Holds::Field(Kind::Json))
    }

    /// Whether a field without a column ought to have one.
    pub(super) fn takes(&self, field: &str) -> bool {
        takes(self.fields, self.limits, field)
    }

    /// Appends `document` as a row that `op` left.
    ///
    /// # Errors
    /// Why it is no row; nothing is appended then.
    pub fn append(
        &self,
        op: Op,
        document: &[u8],
        builder: &mut Builder,
        room: &mut Room,
    ) -> Result<(), Misfit> {
        let malformed = |malformed| self.malformed(document, malformed);
        let Room { slots, text } = room;
        self.place(document, slots)?;
        text.clear();
        let mut row = builder.row();
        for (at, holds) in self.columns.iter().enumerate() {
            let slot = slots.get_mut(at).and_then(Option::take);
            let element = slot.and_then(|slot| {
                let value = document.get(slot.value.clone())?;
                Some(Element { kind: slot.kind, name: "", value, at: slot.value.start })
            });
            let value = match (holds, element) {
                (Holds::Document, _) => {
                    json::document(document, text).map_err(malformed)?;
                    row.push(&Value::Text(text));
                    continue;
                }
                (Holds::Id, None) => {
                    let reason = "a document has no _id; leave the collection out";
                    return Err(Misfit::Stop(reason.to_owned()));
                }
                (Holds::Field(_), None) => Some(Value::Null),
                (Holds::Id, Some(element)) => self.id.value(&element).map_err(malformed)?,
                (Holds::Field(kind), Some(element)) => kind.value(&element).map_err(malformed)?,
            };
            row.push(&value.ok_or(Misfit::Shape)?);
        }
        row.finish(op, None).map_err(|error| Misfit::Stop(error.full()))
    }

    /// Appends that the document whose key is `key` (a document with its `_id`) is gone.
    ///
    /// # Errors
    /// Why it can't be the key of a row.
    pub fn delete(&self, key: &[u8], builder: &mut Builder) -> Result<(), Misfit> {
        let malformed = |malformed| self.malformed(key, malformed);
        let element = find(key, ID.0).map_err(malformed)?;
        let element = element.ok_or(Malformed("an event names no _id")).map_err(malformed)?;
        let id = self.id.value(&element).map_err(malformed)?.ok_or(Misfit::Shape)?;
        // The key is the first column, and no other is looked at.
        let pushed = builder.push(Op::Delete, Some(&[id]), None);
        pushed.map_err(|error| Misfit::Stop(error.full()))
    }

    /// Notes where the value of each column is.
    fn place(&self, document: &[u8], slots: &mut Vec<Option<Slot>>) -> Result<(), Misfit> {
        slots.clear();
        slots.resize(self.columns.len(), None);
        let malformed = |malformed| self.malformed(document, malformed);
        let mut expected = 0;
        for element in Elements::new(document).map_err(malformed)? {
            let element = element.map_err(malformed)?;
            // Most documents have their fields in the order in which they were first seen.
            let known = match self.names.get(expected) {
                Some(name) if **name == *element.name && !element.name.is_empty() => Some(expected),
                _ => self.by_name.get(element.name).copied(),
            };
            let Some(at) = known else {
                if !element.is_null() && self.takes(element.name) {
                    return Err(Misfit::Shape);
                }
                continue;
            };
            expected = at + 1;
            if self.columns.get(expected) == Some(&Holds::Document) {
                expected += 1;
            }
            if let Some(slot) = slots.get_mut(at)
                && slot.is_none()
            {
                let value = element.at..element.at + element.value.len();
                *slot = Some(Slot { kind: element.kind, value });
            }
        }
        Ok(())
    }

    /// A document that can't be kept, however its table looks.
    pub(super) fn malformed(&self, document: &[u8], malformed: Malformed) -> Misfit {
        let id = find(document, ID.0).ok().flatten();
        let id = id.and_then(|id| Some(IdKind::Any.text(&id).ok()?.into_owned()));
        let id = id.as_deref().unwrap_or("that can't be read");
        let field = Elements::new(document).ok().and_then(|elements| {
            let mut out = String::new();
            elements.flatten().find(|element| json::value(element, &mut out).is_err())
        });
        let field = field.map_or("?", |field| field.name);
        Misfit::Stop(format!(
            "field {field} of the document with _id {id} can't be kept: {malformed}; mend the \
             document in the source, or leave the collection out"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document, text};
    use super::super::element::{INT32, NULL, OBJECT_ID, STRING};
    use super::super::shape::Shape;
    use super::*;
    use crate::schema::TableId;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;

    const LIMITS: Limits = Limits { columns: 2, document: true };

    fn int(value: i32) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn layout(sample: &[Vec<u8>]) -> Layout {
        let mut shape = Shape::new(LIMITS);
        sample.iter().for_each(|document| {
            shape.learn(document).unwrap();
        });
        Layout::new(Arc::new(shape.schema(&TableId::new("d", "c"))), LIMITS).unwrap()
    }

    #[test]
    fn a_document_is_a_row_of_its_fields_and_of_itself() {
        let one =
            document(&[(INT32, "_id", int(1)), (INT32, "n", int(5)), (STRING, "s", text("a"))]);
        let layout = layout(std::slice::from_ref(&one));
        let mut builder = Builder::new(layout.schema().clone());
        let mut room = Room::default();
        layout.append(Op::Insert, &one, &mut builder, &mut room).unwrap();
        let two =
            document(&[(STRING, "s", text("b")), (NULL, "n", vec![]), (INT32, "_id", int(2))]);
        layout.append(Op::Update, &two, &mut builder, &mut room).unwrap();
        layout.delete(&document(&[(INT32, "_id", int(1))]), &mut builder).unwrap();
        let batch = builder.finish();
        let ops: Vec<_> = batch.changes.iter().map(|change| change.op).collect();
        assert_eq!(ops, [Op::Insert, Op::Update, Op::Delete]);
        assert_eq!(batch.keys.get(batch.changes[0].key), batch.keys.get(batch.changes[2].key));
        assert_eq!(batch.columns.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
        let documents = batch.columns.column(1).as_string::<i32>();
        assert_eq!(documents.value(1), r#"{"s":"b","n":null,"_id":{"$numberInt":"2"}}"#);
        let numbers = batch.columns.column(2).as_primitive::<Int64Type>();
        assert!(numbers.value(0) == 5 && arrow_array::Array::is_null(numbers, 1));
    }

    #[test]
    fn what_does_not_fit_grows_the_shape_and_leaves_no_row() {
        let one = document(&[(INT32, "_id", int(1)), (INT32, "n", int(5))]);
        let layout = layout(&[one]);
        let mut builder = Builder::new(layout.schema().clone());
        let mut room = Room::default();
        let cases = [
            document(&[(INT32, "_id", int(1)), (STRING, "n", text("a"))]),
            document(&[(INT32, "_id", int(1)), (INT32, "more", int(1))]),
            document(&[(OBJECT_ID, "_id", vec![0; 12])]),
        ];
        for case in cases {
            let appended = layout.append(Op::Insert, &case, &mut builder, &mut room);
            assert_eq!(appended, Err(Misfit::Shape));
        }
        let key = document(&[(STRING, "_id", text("a"))]);
        assert_eq!(layout.delete(&key, &mut builder), Err(Misfit::Shape));
        assert!(builder.is_empty());
        // Nulls never need a column.
        let null = document(&[(INT32, "_id", int(1)), (NULL, "more", vec![])]);
        assert_eq!(layout.append(Op::Insert, &null, &mut builder, &mut room), Ok(()));
    }

    #[test]
    fn beyond_the_limit_fields_stay_in_the_document() {
        let one = document(&[(INT32, "_id", int(1)), (INT32, "a", int(1)), (INT32, "b", int(1))]);
        let layout = layout(&[one]);
        let mut builder = Builder::new(layout.schema().clone());
        let more = document(&[(INT32, "_id", int(1)), (INT32, "c", int(1))]);
        let appended = layout.append(Op::Insert, &more, &mut builder, &mut Room::default());
        assert_eq!(appended, Ok(()));
    }

    #[test]
    fn a_text_that_is_not_utf_8_stops_the_table_and_is_named() {
        let one = document(&[(INT32, "_id", int(7)), (STRING, "s", text("a"))]);
        let layout = layout(std::slice::from_ref(&one));
        let mut bad = one;
        let at = bad.iter().rposition(|byte| *byte == b'a').unwrap();
        bad[at] = 0xff;
        let mut builder = Builder::new(layout.schema().clone());
        let appended = layout.append(Op::Insert, &bad, &mut builder, &mut Room::default());
        let Err(Misfit::Stop(reason)) = appended else { panic!("{appended:?}") };
        assert!(reason.contains("field s") && reason.contains('7'), "{reason}");
    }
}
