//! Which columns a table of the lake has, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use lakeward_connectors::schema::{Column, Compare, TableSchema, Type};
use lakeward_connectors::{Error, Identity, Result};

use super::mask::Mask;
use super::partition::Part;
use super::{
    COMMITTED_AT, DELETED, DELETED_AT, Mode, OLD_KEY, OP, ORDINAL, POSITION, Shape, UNCHANGED,
};

/// No mode has so many columns of its own.
const OWN_COLUMNS: u32 = 16;

/// Names of columns that are wanted, or with `!` not wanted; the last one that matches decides, and
/// `*` matches all. What none matches is wanted exactly when the first one excludes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnFilter {
    rules: Vec<(bool, String)>,
}

impl ColumnFilter {
    /// The filter that `patterns` spell: each `*`, a name, or a name after `!`.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Self {
        let rule = |pattern: &S| match pattern.as_ref().strip_prefix('!') {
            Some(name) => (false, name.to_owned()),
            None => (true, pattern.as_ref().to_owned()),
        };
        Self { rules: patterns.iter().map(rule).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn patterns(&self) -> Vec<String> {
        let mark = |include: bool| if include { "" } else { "!" };
        self.rules.iter().map(|(include, name)| format!("{}{name}", mark(*include))).collect()
    }

    /// Whether a name is not wanted.
    pub(super) fn excludes(&self) -> bool {
        self.rules.iter().any(|(include, _)| !include)
    }

    pub(super) fn wants(&self, column: &str) -> bool {
        let default = self.rules.first().is_none_or(|(include, _)| !include);
        let matching = self.rules.iter().rev().find(|(_, name)| name == "*" || name == column);
        matching.map_or(default, |(include, _)| *include)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(_, name)| name.as_str()).filter(|name| *name != "*")
    }
}

/// A column of the lake that comes from one of the source.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    /// Its place in the source's rows.
    pub(super) from: usize,
    pub(super) name: String,
    pub(super) mask: Option<Mask>,
}

/// A column of the lake that holds a part of one of the source's.
#[derive(Debug, Clone)]
pub(super) struct Derived {
    /// The place of the whole in the source's rows.
    pub(super) from: usize,
    pub(super) part: Part,
    name: String,
    kind: Type,
}

/// The columns that the table is partitioned by and the source doesn't have.
pub(super) fn derive(shape: &Shape, source: &TableSchema) -> Result<Vec<Derived>> {
    let mut derived = Vec::new();
    for by in &shape.partition {
        let fault = |why: &str| {
            Error::table(source.id.clone(), format!("it is partitioned by {}, {why}", by.text()))
                .remedy(format!("see to partition_by of [source.….table.\"{}\"]", source.id))
        };
        let from =
            source.column(&by.column).ok_or_else(|| fault("a column that it doesn't have"))?;
        if shape.masks.contains_key(&by.column) {
            return Err(fault("a column that is masked"));
        }
        let kind = source.columns.get(from).and_then(|column| by.part.kind(&column.kind));
        let kind = kind.ok_or_else(|| fault("which is no time"))?;
        if by.part != Part::Whole {
            derived.push(Derived { from, part: by.part, name: shape.partition_column(by), kind });
        } else if !shape.columns.wants(&by.column) {
            return Err(fault("a column that is left out"));
        }
    }
    Ok(derived)
}

/// The columns of the source's that the lake has; none that `known` lacks, if it is given.
pub(super) fn select(
    shape: &Shape,
    source: &TableSchema,
    known: Option<&TableSchema>,
) -> Result<Vec<Selected>> {
    let fault = |message: String| Error::table(source.id.clone(), message);
    let named = shape.columns.names().chain(shape.rename.keys().map(String::as_str));
    let named: BTreeSet<&str> = named.chain(shape.masks.keys().map(String::as_str)).collect();
    // A column that was renamed in the source would no longer be left out, or masked.
    if let Some(name) = named.into_iter().find(|name| source.column(name).is_none()) {
        return Err(fault(format!(
            "its configuration names a column {name}, which it doesn't have"
        ))
        .remedy(format!("see to columns, rename and mask of [source.….table.\"{}\"]", source.id)));
    }
    let key = match shape.mode {
        // Nothing has to be found again.
        Mode::Append => &[],
        _ => source.key(),
    };
    let mut columns = Vec::new();
    for (from, column) in source.columns.iter().enumerate() {
        let mask = shape.masks.get(&column.name).cloned();
        let wanted = shape.columns.wants(&column.name);
        if key.contains(&from) && (!wanted || mask.is_some()) {
            let name = &column.name;
            let message = format!("column {name} is part of the key, by which rows are found");
            return Err(fault(message).remedy("leave it in and unmasked, or set mode = \"append\""));
        }
        if let (Some(Mask::Hash(_)), Type::List(_)) = (&mask, &column.kind) {
            let message = format!("column {} is an array, which can't be hashed", column.name);
            return Err(fault(message).remedy("mask it by \"drop\" or a constant, or leave it out"));
        }
        let name = shape.rename.get(&column.name).unwrap_or(&column.name).clone();
        // An id that doesn't last is that of whatever column stands in the place.
        let is_same = |has: &Column| match source.lasting_ids {
            true => has.id == column.id,
            false => has.name == name,
        };
        let is_known = known.is_none_or(|known| known.columns.iter().any(is_same));
        if wanted && (is_known || key.contains(&from)) {
            columns.push(Selected { from, name, mask });
        }
    }
    Ok(columns)
}

/// The lake's schema.
pub(super) fn schema(
    mode: Mode,
    source: &TableSchema,
    selected: &[Selected],
    derived: &[Derived],
) -> Result<TableSchema> {
    let mut columns: Vec<Column> = Vec::with_capacity(selected.len() + 6);
    let mut places = BTreeMap::new();
    for Selected { from, name, mask } in selected {
        let Some(column) = source.columns.get(*from) else { continue };
        let mut column = Column { name: name.clone(), ..column.clone() };
        if let Some(mask) = mask {
            column.kind = mask.kind(&column.kind);
            column.source_type = format!("masked {}", column.source_type);
            column.missing = None;
            column.compare = Compare::EXACT;
        }
        places.insert(*from, columns.len());
        columns.push(column);
    }
    for (at, Derived { from, name, kind, .. }) in (0..).zip(derived) {
        let of = source.columns.get(*from).map_or(0, |column| column.id);
        columns.push(own_column(OWN_COLUMNS + at, name, kind.clone(), format!("part of {of}")));
    }
    columns.extend(own_columns(mode));
    let mut seen = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(column.name.as_str())) {
        return Err(Error::table(
            source.id.clone(),
            format!("two columns of the Delta table would be called {}", twice.name),
        )
        .remedy("give one of them another name: rename = { … }"));
    }
    let identity = match (&source.identity, mode) {
        (_, Mode::Append) => Identity::None,
        (Identity::Key(key), _) => {
            Identity::Key(key.iter().filter_map(|at| places.get(at).copied()).collect())
        }
        (identity, _) => identity.clone(),
    };
    let (id, storage) = (source.id.clone(), source.storage.clone());
    Ok(TableSchema { id, columns, identity, storage, lasting_ids: source.lasting_ids })
}

/// The columns that a mode adds, in the order in which rows are made.
fn own_columns(mode: Mode) -> Vec<Column> {
    let texts = || Type::List(Box::new(Type::Text));
    let own = match mode {
        Mode::Mirror => Vec::new(),
        Mode::SoftDelete => vec![(DELETED, Type::Bool), (DELETED_AT, Type::Timestamp)],
        Mode::Append => vec![
            (OP, Type::Text),
            (POSITION, Type::Text),
            (ORDINAL, Type::Int64),
            (COMMITTED_AT, Type::Timestamp),
            (UNCHANGED, texts()),
            (OLD_KEY, texts()),
        ],
    };
    let column = |(at, (name, kind))| own_column(at, name, kind, "lakeward".to_owned());
    (0..).zip(own).map(column).collect()
}

/// A column that the source doesn't have.
fn own_column(at: u32, name: &str, kind: Type, source_type: String) -> Column {
    Column {
        // Counted from the end: no column of a source is called so.
        id: u32::MAX - at,
        name: name.to_owned(),
        kind,
        source_type,
        missing: None,
        compare: Compare::EXACT,
    }
}
