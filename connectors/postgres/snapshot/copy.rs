//! COPY … TO STDOUT in text format → rows (PostgreSQL docs, COPY, "Text Format").
//!
//! Lines end in a newline, fields are separated by a tab; both, and the backslash, are written with
//! a backslash inside a field, so that splitting needs no state. `\N` alone is null.

use std::sync::Arc;

use crate::batch::{Batch, Builder};
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::postgres::values::{Misfit, parse, stop_reason};
use crate::schema::{TableId, TableSchema};
use crate::source::KeyText;

/// Rows of one table, as they come in.
#[derive(Debug)]
pub(super) struct Rows {
    schema: Arc<TableSchema>,
    builder: Builder,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The last field that had to be unescaped.
    unescaped: Vec<u8>,
    last_key: KeyText,
    count: u64,
    bytes: u64,
}

/// The fields of a line.
struct Fields<'a> {
    line: &'a [u8],
    start: usize,
    marks: memchr::Memchr2<'a>,
    ended: bool,
}

/// A field as it stands in its line.
#[derive(Clone, Copy)]
struct Field<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl Rows {
    pub(super) fn new(schema: &Arc<TableSchema>) -> Self {
        Self {
            builder: Builder::new(schema.clone()),
            schema: schema.clone(),
            partial: Vec::new(),
            unescaped: Vec::new(),
            last_key: vec![String::new(); schema.key().len()],
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

    /// The key of the last row; empty texts before the first.
    pub(super) fn last_key(&self) -> KeyText {
        self.last_key.clone()
    }

    /// Takes the rows read since the last time.
    pub(super) fn take(&mut self) -> Batch {
        let next = self.builder.successor();
        std::mem::replace(&mut self.builder, next).finish()
    }

    /// Reads `data`, which may begin and end within a line, though a server sends whole ones.
    ///
    /// # Errors
    /// When a value doesn't fit its column, or a line has not as many fields as the table columns.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<()> {
        self.bytes += data.len() as u64;
        let mut rest = data;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                self.append(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend(line);
                self.append(&whole)?;
            }
        }
        self.partial.extend(rest);
        Ok(())
    }

    /// Says that no more data comes.
    ///
    /// # Errors
    /// When the last line has no end.
    pub(super) fn end(&self) -> Result<()> {
        match self.partial.is_empty() {
            true => Ok(()),
            false => Err(malformed(&self.schema.id)),
        }
    }

    fn append(&mut self, line: &[u8]) -> Result<()> {
        let Self { schema, builder, unescaped, .. } = self;
        let mut fields = Fields::of(line);
        let mut row = builder.row();
        for (at, column) in schema.columns.iter().enumerate() {
            let Some(field) = fields.next() else { return Err(malformed(&schema.id)) };
            let value = match field.text(unescaped) {
                None => Value::Null,
                Some(text) => parse(&column.kind, text)
                    .map_err(|misfit| misfits(schema, line, at, text, misfit))?,
            };
            row.push(&value);
        }
        if fields.next().is_some() {
            return Err(malformed(&schema.id));
        }
        row.finish(Op::Read, None)?;
        self.count += 1;
        self.note_key(line);
        Ok(())
    }

    /// Keeps the text of a row's key.
    fn note_key(&mut self, line: &[u8]) {
        let Self { schema, unescaped, last_key, .. } = self;
        let (mut fields, mut next) = (Fields::of(line), 0);
        // A key's columns come first as a rule, so this is one step.
        for (text, &at) in last_key.iter_mut().zip(schema.key()) {
            if at < next {
                (fields, next) = (Fields::of(line), 0);
            }
            let field = fields.nth(at - next);
            next = at + 1;
            let part = field.and_then(|field| std::str::from_utf8(field.text(unescaped)?).ok());
            text.clear();
            text.push_str(part.unwrap_or_default());
        }
    }
}

fn malformed(table: &TableId) -> Error {
    Error::internal("COPY sent a line that is none").with("table", table)
}

/// The error for `text` in column `at` of a line.
fn misfits(schema: &TableSchema, line: &[u8], at: usize, text: &[u8], misfit: Misfit) -> Error {
    let mut unescaped = Vec::new();
    let texts = Fields::of(line).map(|field| field.text(&mut unescaped).map(<[u8]>::to_vec));
    let texts: Vec<_> = texts.collect();
    let text_of = |at: usize| texts.get(at)?.as_deref();
    Error::table(schema.id.clone(), stop_reason(schema, at, text, misfit, text_of))
}

impl<'a> Fields<'a> {
    fn of(line: &'a [u8]) -> Self {
        // One search for both: a field is short, and starting a search costs more than its bytes.
        let marks = memchr::memchr2_iter(b'\t', b'\\', line);
        Self { line, start: 0, marks, ended: false }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        if self.ended {
            return None;
        }
        let mut escaped = false;
        let end = loop {
            match self.marks.next() {
                Some(at) if self.line[at] == b'\\' => escaped = true,
                Some(at) => break at,
                None => {
                    self.ended = true;
                    break self.line.len();
                }
            }
        };
        let raw = &self.line[self.start..end];
        self.start = end + 1;
        Some(Field { raw, escaped })
    }
}

impl<'a> Field<'a> {
    /// What it says; `None` when it is null.
    #[inline]
    fn text<'b>(self, unescaped: &'b mut Vec<u8>) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        match self {
            Self { raw, escaped: false } => Some(raw),
            Self { raw: b"\\N", .. } => None,
            Self { raw, .. } => {
                unescaped.clear();
                unescape(raw, unescaped);
                Some(unescaped)
            }
        }
    }
}

fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut rest = field;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escaped) = rest.split_at(at);
        out.extend(plain);
        let Some((&byte, after)) = escaped.get(1..).and_then(<[u8]>::split_first) else { return };
        out.push(match byte {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            byte => byte,
        });
        rest = after;
    }
    out.extend(rest);
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

    const DATA: &[u8] = b"1\ta\\tb\\nc\\\\N\\\x01\t\\\\x00ff\t\\N\n2\t\\\\N\t\\N\t2024-02-29\n";

    #[test]
    fn lines_may_come_in_any_pieces() {
        for cut in 0..DATA.len() {
            let mut rows = Rows::new(&schema());
            let (head, tail) = DATA.split_at(cut);
            assert!(rows.push(head).is_ok() && rows.push(tail).is_ok() && rows.end().is_ok());
            assert_eq!((rows.count(), rows.bytes()), (2, DATA.len() as u64));
            assert_eq!(rows.last_key(), ["2", "\\N"]);
            let batch = rows.take();
            let text = |row| value_at(&Type::Text, batch.columns.column(1).as_ref(), row);
            assert_eq!(text(0), Some(Value::Text("a\tb\nc\\N\x01")));
            assert_eq!(text(1), Some(Value::Text("\\N")));
            let bytes = |row| value_at(&Type::Binary, batch.columns.column(2).as_ref(), row);
            assert_eq!(bytes(0), Some(Value::Binary(vec![0, 255].into())));
            assert_eq!(bytes(1), Some(Value::Null));
        }
    }

    #[test]
    fn a_misfit_names_its_row() {
        let error = Rows::new(&schema()).push(b"7\tx\t\\N\tinfinity\n").map_err(|e| e.to_string());
        assert!(
            error.is_err_and(|text| text.contains("column d of row id=7, v=x holds 'infinity'"))
        );
        assert!(Rows::new(&schema()).push(b"7\tx\n").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut rows = Rows::new(&schema());
            let _ = rows.push(&data);
            let _ = rows.end();
        }
    }
}
