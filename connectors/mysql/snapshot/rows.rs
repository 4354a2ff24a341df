//! Rows of the text protocol → calls of a [`Builder`].

use std::sync::Arc;

use super::{Parts, send_part};
use crate::batch::{Batch, Builder};
use crate::change::{Op, Value};
use crate::error::{Error, Result};
use crate::key::key_texts;
use crate::mysql::catalog::Shared;
use crate::mysql::fault;
use crate::mysql::input::Input;
use crate::mysql::values::{self, Field};
use crate::schema::TableSchema;
use crate::source::{KeyText, Part};

/// Rows on their way from the text protocol to a batch.
pub(super) struct Chunk {
    pub schema: Arc<TableSchema>,
    fields: Vec<Field>,
    pub builder: Builder,
    /// The last key of the rows that were sent on.
    last: Vec<u8>,
    pub count: u64,
    pub bytes: u64,
}

impl Chunk {
    pub(super) fn new(schema: &Arc<TableSchema>, shared: &Shared) -> Result<Self> {
        Ok(Self {
            fields: Field::all(schema, &shared.charsets())?,
            builder: Builder::new(schema.clone()),
            schema: schema.clone(),
            last: Vec::new(),
            count: 0,
            bytes: 0,
        })
    }

    /// Appends one row.
    pub(super) fn push(&mut self, packet: &[u8]) -> Result<()> {
        self.bytes += packet.len() as u64;
        self.count += 1;
        let Self { schema, fields, builder, .. } = self;
        let mut input = Input(packet);
        let mut row = builder.row();
        for (at, field) in fields.iter().enumerate() {
            let text = input.field().ok_or_else(|| fault::malformed("reading a table"))?;
            let value = match text {
                None => Value::Null,
                Some(text) => values::from_text(field, text).map_err(|misfit| {
                    let shown = shown(fields, at, text);
                    let key =
                        |at: usize| key_field(packet, at).map(|text| shown_key(fields, at, text));
                    let reason = values::stop_reason(schema, at, misfit, &shown, key);
                    Error::table(schema.id.clone(), reason)
                })?,
            };
            if schema.key().contains(&at) {
                values::comparable(schema, at, &value)
                    .map_err(|reason| Error::table(schema.id.clone(), reason))?;
            }
            row.push(&value);
        }
        row.finish(Op::Read, None)
    }

    /// The key of the last row, as text.
    pub(super) fn last_key(&self) -> Result<KeyText> {
        let keys = self.builder.keys();
        let last = match keys.len().checked_sub(1) {
            Some(at) => keys.get(at as u32),
            None => &self.last,
        };
        let text = key_texts(&self.schema, last);
        text.ok_or_else(|| Error::internal("a key has no text").with("table", &self.schema.id))
    }

    /// Hands on the rows read since the last time.
    pub(super) async fn send(&mut self, send: &Parts) -> Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let keys = self.builder.keys();
        if let Some(at) = keys.len().checked_sub(1) {
            self.last = keys.get(at as u32).to_vec();
        }
        let next = self.builder.successor();
        let batch: Batch = std::mem::replace(&mut self.builder, next).finish();
        send_part(send, Part::Rows(batch)).await
    }
}

fn shown(fields: &[Field], at: usize, text: &[u8]) -> String {
    match fields.get(at).and_then(|field| field.charset.decode(text)) {
        Some(text) => values::shortened(&text),
        None => text.escape_ascii().to_string(),
    }
}

fn shown_key(fields: &[Field], at: usize, text: &[u8]) -> String {
    let value = fields.get(at).map(|field| values::from_text(field, text));
    match value {
        Some(Ok(value)) => values::shown(&value),
        _ => text.escape_ascii().to_string(),
    }
}

/// The text of column number `at` of a row.
fn key_field(packet: &[u8], at: usize) -> Option<&[u8]> {
    let mut input = Input(packet);
    for _ in 0..at {
        input.field()?;
    }
    input.field()?
}

/// Keys by themselves, in the schema's order of the key's columns.
pub(super) struct Keys {
    schema: Arc<TableSchema>,
    fields: Vec<Field>,
}

impl Keys {
    pub(super) fn new(schema: &Arc<TableSchema>, shared: &Shared) -> Result<Self> {
        Ok(Self { fields: Field::all(schema, &shared.charsets())?, schema: schema.clone() })
    }

    /// The key that a row of its columns is, as text.
    pub(super) fn text(&mut self, packet: &[u8]) -> Result<KeyText> {
        let malformed = || fault::malformed("reading a key");
        let mut input = Input(packet);
        let mut row = vec![Value::Null; self.schema.columns.len()];
        for &at in self.schema.key() {
            let (field, text) =
                self.fields.get(at).zip(input.field().flatten()).ok_or_else(malformed)?;
            let value = values::from_text(field, text).map_err(|_| malformed())?;
            values::comparable(&self.schema, at, &value)
                .map_err(|reason| Error::table(self.schema.id.clone(), reason))?;
            *row.get_mut(at).ok_or_else(malformed)? = value;
        }
        let mut keys = crate::key::Keys::default();
        let number = keys.push(&self.schema, &row)?;
        key_texts(&self.schema, keys.get(number)).ok_or_else(malformed)
    }
}
