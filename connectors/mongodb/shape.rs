//! What the documents of a collection look like: which fields become columns, and of what type.
//!
//! A collection has no schema, so its shape is learned: from a sample when the collection is first
//! seen, and from every document that doesn't fit the shape known so far. It only ever grows. A new
//! field is a new column; a field whose values are of two kinds gets the kind that holds both
//! ([`Kind::widened`]), for which the pipeline reads the collection again, so that all rows are of
//! one kind. Fields beyond the limit of columns, with names too long for one, and those that are
//! always null are kept in the column of whole documents only.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::element::{Elements, Malformed};
use super::identity::IdKind;
use super::names::{LONGEST, column_of, field_of};
use super::values::{Kind, is_exact};
use crate::schema::{Column, Compare, Identity, TableId, TableSchema, Type};

/// The column of the key, and what [`Column::id`] it has.
pub const ID: (&str, u32) = ("_id", 1);
/// The column of whole documents, and its [`Column::id`].
pub const DOCUMENT: (&str, u32) = ("_doc", 2);
/// The [`Column::source_type`] of the column of whole documents.
pub const DOCUMENT_TYPE: &str = "document";
/// The least [`Column::id`] of a field.
const FIELDS: u32 = 16;
/// [`TableSchema::storage`]: how values are written. Another number makes every table be read again.
const STORAGE: &str = "format=1";

/// What the configuration says about shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most fields that get a column.
    pub columns: usize,
    /// Whether whole documents are kept in a column of their own.
    pub document: bool,
}

/// One field that has a column.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    column: String,
    id: u32,
    kind: Kind,
    /// Whether it has had an integer that is no double.
    wide: bool,
}

/// What is known of one collection.
#[derive(Debug, Clone)]
pub struct Shape {
    limits: Limits,
    id: Option<IdKind>,
    fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// The columns' names in lower case.
    taken: HashSet<String>,
    ids: HashSet<u32>,
}

impl Shape {
    /// The shape of an empty collection.
    pub fn new(limits: Limits) -> Self {
        let own = [ID.0, DOCUMENT.0].map(str::to_owned);
        Self {
            limits,
            id: None,
            fields: Vec::new(),
            by_name: HashMap::new(),
            taken: own.into(),
            ids: HashSet::new(),
        }
    }

    /// Takes in one document; says whether the shape is another one now.
    ///
    /// # Errors
    /// When the document is malformed.
    pub fn learn(&mut self, document: &[u8]) -> Result<bool, Malformed> {
        let mut changed = false;
        let mut before: HashSet<&str> = HashSet::new();
        for element in Elements::new(document)? {
            let element = element?;
            // Of a name that comes twice the first counts, as it does for MongoDB's own look-ups.
            if !before.insert(element.name) {
                continue;
            }
            if element.name == ID.0 {
                let seen = IdKind::of(&element);
                let joined = self.id.map_or(seen, |known| known.join(seen));
                changed |= self.id.replace(joined) != Some(joined);
                continue;
            }
            if element.is_null() {
                continue;
            }
            let known = self.by_name.get(element.name).copied();
            if let Some(field) = known.and_then(|at| self.fields.get_mut(at)) {
                let wide = field.wide || !is_exact(&element);
                let kind = match field.kind.widened(&element) {
                    Kind::Double if wide => Kind::Json,
                    kind => kind,
                };
                changed |= kind != field.kind;
                (field.kind, field.wide) = (kind, wide);
            } else if self.takes(element.name) {
                self.add(element.name, Kind::of(&element), !is_exact(&element));
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Whether a field of this name, which isn't known, gets a column.
    fn takes(&self, name: &str) -> bool {
        takes(self.fields.len(), self.limits, name)
    }

    fn add(&mut self, name: &str, kind: Kind, wide: bool) {
        let column = column_of(name, |lower| self.taken.contains(lower));
        let mut id = number_of(name);
        while !self.ids.insert(id) {
            id = id.wrapping_add(1).max(FIELDS);
        }
        self.insert(Field { name: name.to_owned(), column, id, kind, wide });
    }

    fn insert(&mut self, field: Field) {
        self.taken.insert(field.column.to_lowercase());
        self.ids.insert(field.id);
        self.by_name.insert(field.name.clone(), self.fields.len());
        self.fields.push(field);
    }

    /// Takes in what the lake knows of the collection: its columns come first, and keep their names
    /// and types or wider ones.
    pub fn adopt(&mut self, schema: &TableSchema) {
        let sampled = std::mem::replace(self, Self::new(self.limits));
        for column in &schema.columns {
            if column.id == ID.1 {
                self.id = IdKind::parse(&column.source_type);
            } else if let (Some(name), Some(kind)) =
                (field_of(&column.name), Kind::parse(&column.source_type))
            {
                let (column, id) = (column.name.clone(), column.id);
                self.insert(Field { name, column, id, kind, wide: false });
            }
        }
        self.id = match (self.id, sampled.id) {
            (Some(lake), Some(sample)) => Some(lake.join(sample)),
            (lake, sample) => lake.or(sample),
        };
        for field in sampled.fields {
            let known = self.by_name.get(&field.name).copied();
            if let Some(known) = known.and_then(|at| self.fields.get_mut(at)) {
                known.wide |= field.wide;
                known.kind = joined(known.kind, field.kind, known.wide);
            } else if self.takes(&field.name) {
                self.add(&field.name, field.kind, field.wide);
            }
        }
    }

    /// The schema of the collection's table.
    pub fn schema(&self, id: &TableId) -> TableSchema {
        // Most collections that will ever have a document have ObjectIds.
        let key = self.id.unwrap_or(IdKind::ObjectId);
        let mut columns = vec![column(ID, key.lake_type(), key.source_type())];
        if self.limits.document {
            columns.push(column(DOCUMENT, Type::Text, DOCUMENT_TYPE));
        }
        columns.extend(self.fields.iter().map(|field| {
            column((&field.column, field.id), field.kind.lake_type(), field.kind.source_type())
        }));
        TableSchema {
            id: id.clone(),
            columns,
            identity: Identity::Key(vec![0]),
            storage: STORAGE.to_owned(),
            lasting_ids: false,
        }
    }
}

/// Whether a field of this name gets a column where `fields` have one already.
pub(super) fn takes(fields: usize, limits: Limits, name: &str) -> bool {
    fields < limits.columns && name.len() <= LONGEST
}

fn joined(one: Kind, other: Kind, wide: bool) -> Kind {
    match (one, other) {
        _ if one == other => one,
        (Kind::Long, Kind::Double) | (Kind::Double, Kind::Long) if !wide => Kind::Double,
        _ => Kind::Json,
    }
}

fn column((name, id): (&str, u32), kind: Type, source_type: &str) -> Column {
    let (name, source_type) = (name.to_owned(), source_type.to_owned());
    Column { id, name, kind, source_type, missing: None, compare: Compare::EXACT }
}

/// The number of a field for as long as the collection exists: a hash of its name (FNV-1a).
fn number_of(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.max(FIELDS)
}

/// The shapes of a source's collections, shared by all that learn or need them.
#[derive(Debug, Clone)]
pub struct Shapes {
    limits: Limits,
    known: Arc<Mutex<HashMap<TableId, Shape>>>,
}

impl Shapes {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, known: Arc::default() }
    }

    /// What the configuration says.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableId, Shape>> {
        // A shape is right after every single step of learning.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the collection has been seen.
    pub fn knows(&self, id: &TableId) -> bool {
        self.lock().contains_key(id)
    }

    /// The schema of a collection as far as it is known.
    pub fn schema(&self, id: &TableId) -> TableSchema {
        self.lock().entry(id.clone()).or_insert_with(|| Shape::new(self.limits)).schema(id)
    }

    /// Takes in documents of a collection; says whether its shape is another one now.
    ///
    /// # Errors
    /// When a document is malformed.
    pub fn learn<'a>(
        &self,
        id: &TableId,
        documents: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<bool, Malformed> {
        let mut known = self.lock();
        let shape = known.entry(id.clone()).or_insert_with(|| Shape::new(self.limits));
        let mut changed = false;
        for document in documents {
            changed |= shape.learn(document)?;
        }
        Ok(changed)
    }

    /// Takes in what the lake knows of a collection.
    pub fn adopt(&self, schema: &TableSchema) {
        let mut known = self.lock();
        let shape = known.entry(schema.id.clone()).or_insert_with(|| Shape::new(self.limits));
        shape.adopt(schema);
    }

    /// Forgets collections for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&TableId) -> bool) {
        self.lock().retain(|id, _| keep(id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::tests::{document, text};
    use super::super::element::{DOUBLE, INT32, INT64, NULL, OBJECT_ID, STRING};
    use super::*;
    use crate::schema::Evolution;

    const LIMITS: Limits = Limits { columns: 3, document: true };

    fn int(value: i32) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn columns(shape: &Shape) -> Vec<(String, String)> {
        let schema = shape.schema(&TableId::new("d", "c"));
        schema.columns.into_iter().map(|column| (column.name, column.source_type)).collect()
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn fields_are_columns_in_the_order_in_which_they_came() {
        let mut shape = Shape::new(LIMITS);
        let one =
            document(&[(OBJECT_ID, "_id", vec![1; 12]), (INT32, "b", int(1)), (NULL, "n", vec![])]);
        assert_eq!(shape.learn(&one), Ok(true));
        assert_eq!(shape.learn(&one), Ok(false));
        let two = document(&[
            (OBJECT_ID, "_id", vec![2; 12]),
            (STRING, "B", text("x")),
            (INT32, "_doc", int(1)),
        ]);
        assert_eq!(shape.learn(&two), Ok(true));
        let wanted = [
            ("_id", "objectId"),
            ("_doc", "document"),
            ("b", "long"),
            ("~42", "string"),
            ("~5F~64~6F~63", "long"),
        ];
        assert_eq!(columns(&shape), pairs(&wanted));
        // The limit is reached.
        let three = document(&[(OBJECT_ID, "_id", vec![3; 12]), (INT32, "more", int(1))]);
        assert_eq!(shape.learn(&three), Ok(false));
    }

    #[test]
    fn a_clash_is_json_and_a_widening_needs_another_read() {
        let mut shape = Shape::new(LIMITS);
        shape.learn(&document(&[(INT32, "_id", int(1)), (INT32, "x", int(1))])).unwrap();
        let before = shape.schema(&TableId::new("d", "c"));
        let half = 0.5_f64.to_le_bytes().to_vec();
        shape.learn(&document(&[(INT32, "_id", int(2)), (DOUBLE, "x", half)])).unwrap();
        assert_eq!(columns(&shape)[2].1, "double");
        let wide = (i64::MAX).to_le_bytes().to_vec();
        shape.learn(&document(&[(INT32, "_id", int(2)), (INT64, "x", wide)])).unwrap();
        assert_eq!(columns(&shape)[2].1, "json");
        let after = shape.schema(&TableId::new("d", "c"));
        assert!(matches!(before.evolve(&after), Evolution::Snapshot(_)));
        shape.learn(&document(&[(INT32, "_id", int(2)), (INT32, "y", int(1))])).unwrap();
        let more = shape.schema(&TableId::new("d", "c"));
        assert_eq!(after.evolve(&more), Evolution::InPlace);
    }

    #[test]
    fn an_integer_that_is_no_double_is_remembered() {
        let mut shape = Shape::new(LIMITS);
        let wide = i64::MAX.to_le_bytes().to_vec();
        shape.learn(&document(&[(INT32, "_id", int(1)), (INT64, "x", wide)])).unwrap();
        let half = 0.5_f64.to_le_bytes().to_vec();
        shape.learn(&document(&[(INT32, "_id", int(2)), (DOUBLE, "x", half)])).unwrap();
        assert_eq!(columns(&shape)[2].1, "json");
    }

    #[test]
    fn what_the_lake_knows_stays() {
        let mut lake = Shape::new(LIMITS);
        lake.learn(&document(&[
            (INT32, "_id", int(1)),
            (STRING, "b", text("x")),
            (INT32, "a", int(1)),
        ]))
        .unwrap();
        let schema = lake.schema(&TableId::new("d", "c"));
        let mut shape = Shape::new(LIMITS);
        shape
            .learn(&document(&[
                (STRING, "_id", text("k")),
                (INT32, "z", int(1)),
                (INT32, "b", int(1)),
            ]))
            .unwrap();
        shape.adopt(&schema);
        let wanted =
            [("_id", "any"), ("_doc", "document"), ("b", "json"), ("a", "long"), ("z", "long")];
        assert_eq!(columns(&shape), pairs(&wanted));
        let again = shape.schema(&TableId::new("d", "c"));
        let ids: Vec<_> = schema.columns.iter().map(|column| column.id).collect();
        assert!(again.columns.iter().take(4).map(|column| column.id).eq(ids));
    }
}
