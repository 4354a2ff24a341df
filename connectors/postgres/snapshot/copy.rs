//! COPY … TO STDOUT in binary format → rows (PostgreSQL docs, COPY, "Binary Format"): a header;
//! tuples, each a number of fields and the fields, each a length and so many bytes; and a tuple of
//! −1 fields at the end.

use std::sync::Arc;

use crate::batch::{Batch, Builder};
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::key::{key_texts, value_text};
use crate::postgres::binary::Form;
use crate::postgres::values::{Misfit, stop_reason};
use crate::schema::{TableId, TableSchema};
use crate::source::KeyText;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The signature, flags, and the length of an extension.
const HEADER: usize = SIGNATURE.len() + 8;

/// Rows of one table, as they come in.
#[derive(Debug)]
pub(super) struct Rows {
    schema: Arc<TableSchema>,
    /// By column.
    forms: Vec<Form>,
    builder: Builder,
    at: Place,
    /// The beginning of a tuple whose end has not come yet.
    partial: Vec<u8>,
    /// The key of the last row that was taken.
    last_key: Vec<u8>,
    count: u64,
    bytes: u64,
}

/// How far a COPY has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Tuples,
    End,
}

impl Rows {
    /// Of a table whose columns come in `forms`.
    pub(super) fn new(schema: &Arc<TableSchema>, forms: &[Form]) -> Self {
        Self {
            builder: Builder::new(schema.clone()),
            schema: schema.clone(),
            forms: forms.to_vec(),
            at: Place::Header,
            partial: Vec::new(),
            last_key: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    pub(super) fn table(&self) -> &TableId {
        &self.schema.id
    }

    /// The rows read so far, those already taken among them.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of the rows not taken yet.
    pub(super) fn size(&self) -> usize {
        self.builder.size()
    }

    /// Whether all rows have been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The key of the last row, of which there must be one.
    ///
    /// # Errors
    /// When a key of this type can't be written as text: such a table is read whole.
    pub(super) fn last_key(&self) -> Result<KeyText> {
        let last = self.builder.changes().last();
        let key = last.map_or(&*self.last_key, |change| self.builder.keys().get(change.key));
        key_texts(&self.schema, key).ok_or_else(|| {
            Error::internal("a key can't be written as text").with("table", &self.schema.id)
        })
    }

    /// Takes the rows read since the last time.
    pub(super) fn take(&mut self) -> Batch {
        if let Some(change) = self.builder.changes().last() {
            self.last_key.clear();
            self.last_key.extend_from_slice(self.builder.keys().get(change.key));
        }
        let next = self.builder.successor();
        std::mem::replace(&mut self.builder, next).finish()
    }

    /// Reads `data`, which may begin and end anywhere, though a server sends whole tuples.
    ///
    /// # Errors
    /// When a value doesn't fit its column, or a tuple has not as many fields as the table columns.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<()> {
        self.bytes += data.len() as u64;
        if self.partial.is_empty() {
            let read = self.read(data)?;
            self.partial.extend_from_slice(data.get(read..).unwrap_or_default());
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(data);
            let read = self.read(&whole)?;
            whole.drain(..read);
            self.partial = whole;
        }
        Ok(())
    }

    /// Says that no more data comes of this COPY; another may follow.
    ///
    /// # Errors
    /// When it has not come to its end.
    pub(super) fn end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.at, Place::Header) {
            Place::End if self.partial.is_empty() => Ok(()),
            _ => Err(malformed(&self.schema.id)),
        }
    }

    /// Reads what is whole in `data`, and says how many bytes that were.
    fn read(&mut self, data: &[u8]) -> Result<usize> {
        let mut rest = data;
        loop {
            match self.at {
                Place::Header => {
                    let Some((head, after)) = rest.split_first_chunk::<HEADER>() else { break };
                    // Neither flags (such as OIDs, long gone) nor an extension are known.
                    if !head.starts_with(SIGNATURE) || !head.ends_with(&[0; 8]) {
                        return Err(malformed(&self.schema.id));
                    }
                    (self.at, rest) = (Place::Tuples, after);
                }
                Place::Tuples => {
                    let Some((fields, after)) = int16(rest) else { break };
                    if fields == -1 {
                        (self.at, rest) = (Place::End, after);
                    } else {
                        if usize::try_from(fields) != Ok(self.forms.len()) {
                            return Err(malformed(&self.schema.id));
                        }
                        let Some(length) = whole(after, self.forms.len()) else { break };
                        let (tuple, after) = after.split_at(length);
                        self.append(tuple)?;
                        rest = after;
                    }
                }
                Place::End if rest.is_empty() => break,
                Place::End => return Err(malformed(&self.schema.id)),
            }
        }
        Ok(data.len() - rest.len())
    }

    fn append(&mut self, tuple: &[u8]) -> Result<()> {
        let Self { schema, forms, builder, .. } = self;
        let mut fields = Fields(tuple);
        let mut row = builder.row();
        for (at, (column, form)) in schema.columns.iter().zip(forms.iter()).enumerate() {
            let Some(field) = fields.next() else { return Err(malformed(&schema.id)) };
            let value = match field {
                None => Value::Null,
                Some(bytes) => form
                    .parse(&column.kind, bytes)
                    .map_err(|misfit| misfits(schema, forms, tuple, at, misfit))?,
            };
            row.push(&value);
        }
        row.finish(Op::Read, None)?;
        self.count += 1;
        Ok(())
    }
}

/// The length of the `fields` that `data` begins with; `None` when they are not all there.
fn whole(data: &[u8], fields: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..fields {
        let length = i32::from_be_bytes(*data.get(at..)?.first_chunk()?);
        // Below −1 there is none; a field that is then missing says so.
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= data.len()).then_some(at)
}

fn int16(data: &[u8]) -> Option<(i16, &[u8])> {
    let (number, rest) = data.split_first_chunk()?;
    Some((i16::from_be_bytes(*number), rest))
}

/// The fields of a tuple; `None` for a null.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        match i32::from_be_bytes(*length) {
            -1 => {
                self.0 = rest;
                Some(None)
            }
            length => {
                let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                self.0 = rest;
                Some(Some(field))
            }
        }
    }
}

fn malformed(table: &TableId) -> Error {
    Error::internal("COPY sent a row that is none").with("table", table)
}

/// The error for the value in column `at` of a tuple.
fn misfits(schema: &TableSchema, forms: &[Form], tuple: &[u8], at: usize, misfit: Misfit) -> Error {
    let fields: Vec<_> = Fields(tuple).collect();
    let field = |at: usize| Some((schema.columns.get(at)?, *forms.get(at)?, (*fields.get(at)?)?));
    let shown = field(at).map(|(column, form, bytes)| form.show(&column.kind, bytes));
    let texts = (0..fields.len()).map(|at| {
        let (column, form, bytes) = field(at)?;
        value_text(&column.kind, &form.parse(&column.kind, bytes).ok()?)
    });
    let texts: Vec<_> = texts.collect();
    let text_of = |at: usize| Some(texts.get(at)?.as_deref()?.as_bytes());
    let value = shown.unwrap_or_default();
    Error::table(schema.id.clone(), stop_reason(schema, at, &value, misfit, text_of))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::value_at;
    use crate::schema::{Column, Compare, Identity, Type};

    fn schema() -> Arc<TableSchema> {
        let column = |id, name: &str, kind| Column {
            id,
            name: name.to_owned(),
            kind,
            source_type: String::new(),
            missing: None,
            compare: Compare::EXACT,
        };
        Arc::new(TableSchema {
            id: TableId::new("public", "t"),
            columns: vec![
                column(1, "id", Type::Int32),
                column(2, "v", Type::Text),
                column(3, "b", Type::Binary),
                column(4, "d", Type::Date),
            ],
            identity: Identity::Key(vec![0, 1]),
            storage: String::new(),
            lasting_ids: false,
        })
    }

    const FORMS: [Form; 4] = [Form::Native, Form::Text, Form::Native, Form::Native];

    fn rows() -> Rows {
        Rows::new(&schema(), &FORMS)
    }

    fn copied(tuples: &[[Option<&[u8]>; 4]]) -> Vec<u8> {
        let mut data = [&SIGNATURE[..], &[0; 8]].concat();
        for tuple in tuples {
            data.extend(4_i16.to_be_bytes());
            for field in tuple {
                data.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
                data.extend(field.unwrap_or_default());
            }
        }
        data.extend((-1_i16).to_be_bytes());
        data
    }

    #[test]
    fn tuples_may_come_in_any_pieces() {
        let data = copied(&[
            [Some(&[0, 0, 0, 1]), Some(b"a\tb\nc"), Some(&[0, 255]), None],
            [Some(&[0, 0, 0, 2]), Some(b"\\N"), None, Some(&8825_i32.to_be_bytes())],
        ]);
        for cut in 0..data.len() {
            let mut rows = rows();
            let (head, tail) = data.split_at(cut);
            assert!(rows.push(head).is_ok() && rows.push(tail).is_ok() && rows.end().is_ok());
            assert_eq!((rows.count(), rows.bytes()), (2, data.len() as u64));
            assert_eq!(rows.last_key().unwrap(), ["2", "\\N"]);
            let batch = rows.take();
            assert_eq!(rows.last_key().unwrap(), ["2", "\\N"]);
            let value = |at: usize, row| {
                let array = batch.columns.column(at);
                value_at(&batch.schema.columns[at].kind, array.as_ref(), row).unwrap()
            };
            assert_eq!(value(1, 0), Value::Text("a\tb\nc"));
            assert_eq!(value(1, 1), Value::Text("\\N"));
            assert_eq!(value(2, 0), Value::Binary(vec![0, 255].into()));
            assert_eq!(value(2, 1), Value::Null);
            assert_eq!((value(3, 0), value(3, 1)), (Value::Null, Value::Date(19_782)));
            // A COPY may follow on another, and one that breaks off is no whole one.
            assert!(rows.push(&data).is_ok() && rows.end().is_ok());
            assert!(rows.push(head).is_ok() && rows.end().is_err());
        }
    }

    #[test]
    fn a_misfit_names_its_row() {
        let infinity = i32::MAX.to_be_bytes();
        let data = copied(&[[Some(&[0, 0, 0, 7]), Some(b"x"), None, Some(&infinity)]]);
        let error = rows().push(&data).map_err(|error| error.to_string());
        let expected = "column d of row id=7, v=x holds 'infinity'";
        assert!(error.as_ref().is_err_and(|text| text.contains(expected)), "{error:?}");
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        let data = copied(&[]);
        assert!(rows().push(&[&data[..], b"x"].concat()).is_err());
        assert!(rows().push(&data[1..]).is_err());
        let head = &data[..HEADER];
        assert!(rows().push(&[head, &3_i16.to_be_bytes()].concat()).is_err());
        let short = [head, &4_i16.to_be_bytes(), &[0xff, 0xff, 0xff, 0xfe].repeat(4)].concat();
        assert!(rows().push(&short).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            for head in [Vec::new(), copied(&[])[..HEADER].to_vec()] {
                let mut rows = rows();
                let _ = rows.push(&[head, data.clone()].concat());
                let _ = rows.end();
            }
        }
    }
}
