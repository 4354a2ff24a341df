//! Values that nobody may see in the lake.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StringArray, new_null_array};
use lakeward_connectors::key::{value_at, value_text};
use lakeward_connectors::secret::Secret;
use lakeward_connectors::{Error, Result, Type};
use ring::hmac;

/// What a key is told by: its hash of this text.
const WHICH: &str = "lakeward: which key is it?";

/// The key of [`Mask::Hash`].
#[derive(Clone)]
pub struct MaskKey(hmac::Key);

impl MaskKey {
    /// The key that `secret` spells.
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()))
    }

    /// HMAC-SHA-256 (RFC 2104) of a text, as 64 hexadecimal digits.
    fn hash(&self, text: &str) -> String {
        let tag = hmac::sign(&self.0, text.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for MaskKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash(WHICH) == other.hash(WHICH)
    }
}

impl Eq for MaskKey {}

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What stands for the values of a column. A null stays null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// A keyed hash of the value as text: equal values are equal in the lake, in every table.
    Hash(MaskKey),
    /// This text.
    Constant(String),
    /// Nothing: the column is null in all rows.
    Drop,
}

impl Mask {
    /// A text that is another one when values would come out otherwise; it does not tell the key.
    pub(super) fn text(&self) -> String {
        match self {
            Mask::Hash(key) => format!("hash {}", &key.hash(WHICH)[..16]),
            Mask::Constant(text) => format!("constant {text}"),
            Mask::Drop => "drop".to_owned(),
        }
    }

    /// The type of the masked column.
    pub(super) fn kind(&self, kind: &Type) -> Type {
        match self {
            Mask::Hash(_) | Mask::Constant(_) => Type::Text,
            Mask::Drop => kind.clone(),
        }
    }

    /// The values of a column of type `kind`, masked.
    pub(super) fn apply(&self, kind: &Type, values: &ArrayRef) -> Result<ArrayRef> {
        let masked = |row: usize| match self {
            _ if values.is_null(row) => Ok(None),
            Mask::Drop => Ok(None),
            Mask::Constant(text) => Ok(Some(text.clone())),
            Mask::Hash(key) => {
                let value = value_at(kind, values.as_ref(), row);
                let text = value.and_then(|value| value_text(kind, &value));
                let text = text.ok_or_else(|| Error::internal("a value can't be hashed"))?;
                Ok(Some(key.hash(&text)))
            }
        };
        if matches!(self, Mask::Drop) {
            return Ok(new_null_array(values.data_type(), values.len()));
        }
        let texts = (0..values.len()).map(masked).collect::<Result<Vec<Option<String>>>>()?;
        Ok(Arc::new(StringArray::from(texts)))
    }
}
