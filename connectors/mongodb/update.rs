//! What an update changed → values and patches of the columns of its row.
//!
//! An update of a collection without post-images says in its `updateDescription` which fields have
//! which values now, which are gone and which arrays are shorter (MongoDB manual, "update Event"), by
//! paths with dots between their steps. That is applied in order to what the lake holds: a field that
//! was set or removed whole is a value of its column, and what happened below a field is a
//! [patch](crate::patch) of it, as it is of the whole document.
//!
//! A path alone doesn't tell a dot between two steps from one in a name, nor the number of an item
//! from a name of digits. Where it matters the server says so in `disambiguatedPaths` (MongoDB 6.1
//! and later); otherwise the document itself tells, when the patch is applied, or the row is read
//! again.
//!
//! One thing no event tells: an update by a pipeline that changes the order of fields. Fields that
//! are there keep their places.

use super::element::{DOCUMENT, Element, Elements, Malformed, STRING, find};
use super::json;
use super::layout::{Holds, Layout, Misfit};
use super::shape::ID;
use crate::batch::Builder;
use crate::change::{Op, Value};
use crate::patch::{Edit, Patch, Style};

/// An `updateDescription`, taken apart.
#[derive(Debug, Default)]
pub struct Update<'a> {
    changes: Vec<Change<'a>>,
}

/// One of its parts.
#[derive(Debug)]
struct Change<'a> {
    edit: Edit,
    /// The top-level field.
    field: &'a str,
    /// The path below the field, as a patch has it; `None` for the field itself.
    below: Option<String>,
    /// The path in the document, as a patch has it.
    path: String,
    /// The value of a field that was set.
    value: Option<Element<'a>>,
    /// The items that are left of an array.
    left: Option<i64>,
}

/// What becomes of one column.
#[derive(Debug)]
enum Column<'a> {
    Value(Element<'a>),
    Gone,
    Patched(Patch),
}

impl<'a> Update<'a> {
    /// Takes the description apart that belongs to a document of this layout.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn of(description: &'a [u8], layout: &Layout) -> Result<Self, Malformed> {
        let clear = match find(description, "disambiguatedPaths")? {
            Some(paths) => paths.document(),
            None => None,
        };
        let mut update = Self::default();
        // Arrays are cut before items are set, and fields go before others come.
        for part in ["truncatedArrays", "removedFields", "updatedFields"] {
            let Some(found) = find(description, part)? else { continue };
            let Some(found) = found.document() else { continue };
            for element in Elements::new(found)? {
                let change = Change::of(part, element?, clear, layout)?;
                update.changes.push(change);
            }
        }
        Ok(update)
    }

    /// A document of what is known of the fields after the update: what their columns must hold.
    pub fn sample(description: &[u8], key: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut body = Vec::new();
        let mut put = |kind: u8, name: &str, value: &[u8]| {
            body.push(kind);
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value);
        };
        if let Some(id) = find(key, ID.0)? {
            put(id.kind, ID.0, id.value);
        }
        let paths = find(description, "disambiguatedPaths")?.and_then(|paths| paths.document());
        let updated = find(description, "updatedFields")?.and_then(|fields| fields.document());
        for element in updated.map(Elements::new).transpose()?.into_iter().flatten() {
            let element = element?;
            match steps(element.name, paths)? {
                Steps::Clear(steps) => match steps.as_slice() {
                    [Step::Name(only)] => put(element.kind, only, element.value),
                    [Step::Name(first), ..] => put(DOCUMENT, first, EMPTY),
                    _ => {}
                },
                Steps::Plain(first, _) => put(DOCUMENT, first, EMPTY),
            }
        }
        let length = i32::try_from(body.len() + 5);
        let length = length.map_err(|_| Malformed("an update is too large"))?;
        let mut document = length.to_le_bytes().to_vec();
        document.append(&mut body);
        document.push(0);
        Ok(document)
    }

    /// The patch of the whole document.
    fn patch(&self) -> Result<Option<String>, Malformed> {
        let mut patch = Patch::new(Style::Compact);
        for change in &self.changes {
            patch.edit(change.edit, &change.path, change.operand()?.as_deref());
        }
        Ok((!self.changes.is_empty()).then(|| patch.finish()))
    }

    /// What becomes of the column of `field`; `None` where nothing does.
    fn column(&self, field: &str) -> Result<Option<Column<'a>>, Malformed> {
        let mut column = None;
        for change in self.changes.iter().filter(|change| change.field == field) {
            column = Some(match (column, change.edit, &change.below, change.value) {
                (None, Edit::Set, None, Some(value)) => Column::Value(value),
                (None, Edit::Remove, None, _) => Column::Gone,
                (before @ (None | Some(Column::Patched(_))), edit, below, _)
                    if edit == Edit::Truncate || below.is_some() =>
                {
                    let mut patch = match before {
                        Some(Column::Patched(patch)) => patch,
                        _ => Patch::new(Style::Compact),
                    };
                    let path = below.as_deref().unwrap_or("[]");
                    patch.edit(edit, path, change.operand()?.as_deref());
                    Column::Patched(patch)
                }
                // The field both as a whole and in part: no server says that.
                _ => Column::Patched(Patch::unknown()),
            });
        }
        Ok(column)
    }
}

/// A document without a field.
const EMPTY: &[u8] = &[5, 0, 0, 0, 0];

impl<'a> Change<'a> {
    fn of(
        part: &str,
        element: Element<'a>,
        clear: Option<&'a [u8]>,
        layout: &Layout,
    ) -> Result<Self, Malformed> {
        let (edit, path, value, left) = match part {
            "updatedFields" => (Edit::Set, element.name, Some(element), None),
            "removedFields" => (Edit::Remove, name(&element)?, None, None),
            _ => {
                let array = element.document().ok_or(Malformed("a shorter array has no name"))?;
                let field =
                    find(array, "field")?.ok_or(Malformed("a shorter array has no name"))?;
                let left = find(array, "newSize")?.and_then(|size| size.integer());
                let left = left.ok_or(Malformed("a shorter array has no size"))?;
                (Edit::Truncate, name(&field)?, None, Some(left))
            }
        };
        let (field, below, path) = match steps(path, clear)? {
            Steps::Clear(steps) => {
                let [Step::Name(field), below @ ..] = steps.as_slice() else {
                    return Err(Malformed("a path does not begin with a field"));
                };
                (*field, (!below.is_empty()).then(|| exact(below)), exact(&steps))
            }
            // A field known by the whole path, where the first step can lead nowhere.
            Steps::Plain(first, _) if layout.has(path) && !layout.is_json(first) => {
                (path, None, format!("[{}]", quoted(path)))
            }
            Steps::Plain(first, rest) => (first, Some(quoted(rest)), quoted(path)),
        };
        Ok(Self { edit, field, below, path, value, left })
    }

    /// What the edit needs, as JSON.
    fn operand(&self) -> Result<Option<String>, Malformed> {
        if let Some(left) = self.left {
            return Ok(Some(left.to_string()));
        }
        let Some(value) = &self.value else { return Ok(None) };
        let mut text = String::new();
        json::value(value, &mut text)?;
        Ok(Some(text))
    }
}

/// The text that `element` is.
fn name<'a>(element: &Element<'a>) -> Result<&'a str, Malformed> {
    match element.kind {
        STRING => element.text(),
        _ => Err(Malformed("the name of a field is no text")),
    }
}

/// One step of a path.
enum Step<'a> {
    Name(&'a str),
    Item(i64),
}

/// The steps of a path.
enum Steps<'a> {
    /// One by one.
    Clear(Vec<Step<'a>>),
    /// The first, and the others as they were written, with dots between them.
    Plain(&'a str, &'a str),
}

fn steps<'a>(path: &'a str, clear: Option<&'a [u8]>) -> Result<Steps<'a>, Malformed> {
    let told = match clear {
        Some(paths) => find(paths, path)?.and_then(|steps| steps.document()),
        None => None,
    };
    let Some(told) = told else {
        return Ok(match path.split_once('.') {
            Some((first, rest)) => Steps::Plain(first, rest),
            None => Steps::Clear(vec![Step::Name(path)]),
        });
    };
    let mut steps = Vec::new();
    for step in Elements::new(told)? {
        let step = step?;
        steps.push(match step.integer() {
            Some(item) => Step::Item(item),
            None => Step::Name(name(&step)?),
        });
    }
    Ok(Steps::Clear(steps))
}

/// Steps as a patch has them, where nothing about them is in doubt.
fn exact(steps: &[Step<'_>]) -> String {
    let mut out = "[".to_owned();
    for (at, step) in steps.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        match step {
            Step::Item(item) => out.push_str(&item.to_string()),
            Step::Name(name) => json::quoted(name, &mut out),
        }
    }
    out.push(']');
    out
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    json::quoted(text, &mut out);
    out
}

impl Layout {
    /// Appends what an update left of the document whose key is `key`, of which it says what changed.
    ///
    /// # Errors
    /// Why it is no row; nothing is appended then.
    pub fn update(
        &self,
        key: &[u8],
        description: &[u8],
        builder: &mut Builder,
    ) -> Result<(), Misfit> {
        let malformed = |malformed| self.malformed(key, malformed);
        let update = Update::of(description, self).map_err(malformed)?;
        let id = find(key, ID.0).map_err(malformed)?;
        let id = id.ok_or(Malformed("an event names no _id")).map_err(malformed)?;
        let mut row = builder.row();
        for (holds, name) in self.columns() {
            let value = match holds {
                Holds::Id => self.id().value(&id).map_err(malformed)?,
                Holds::Document => {
                    let patch = update.patch().map_err(malformed)?;
                    Some(patch.map_or(Value::Unchanged, |patch| Value::Patch(patch.into())))
                }
                Holds::Field(kind) => match update.column(name).map_err(malformed)? {
                    None => Some(Value::Unchanged),
                    Some(Column::Gone) => Some(Value::Null),
                    Some(Column::Value(element)) => kind.value(&element).map_err(malformed)?,
                    // What has something below it is a document or an array.
                    Some(Column::Patched(patch)) => (kind == super::values::Kind::Json)
                        .then(|| Value::Patch(patch.finish().into())),
                },
            };
            row.push(&value.ok_or(Misfit::Shape)?);
        }
        if let Some(change) = update.changes.iter().find(|change| self.lacks(change)) {
            tracing::debug!(field = change.field, "an update brings a new field");
            return Err(Misfit::Shape);
        }
        row.finish(Op::Update, None).map_err(|error| Misfit::Stop(error.full()))
    }

    /// Whether the change brings a field that ought to have a column and has none.
    fn lacks(&self, change: &Change<'_>) -> bool {
        let null = change.value.is_some_and(|value| change.below.is_none() && value.is_null());
        change.edit == Edit::Set && !null && !self.has(change.field) && self.takes(change.field)
    }
}

#[cfg(test)]
mod tests;
