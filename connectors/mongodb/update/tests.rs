//! Updates by example, and chance updates against documents changed in memory.

use std::sync::Arc;

use ::mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use proptest::prelude::*;

use super::super::layout::Room;
use super::super::shape::{Limits, Shape};
use super::*;
use crate::batch::Batch;
use crate::key::value_at;
use crate::patch;
use crate::schema::TableId;

fn raw(document: &Document) -> Vec<u8> {
    RawDocumentBuf::try_from(document).unwrap().as_bytes().to_vec()
}

/// A layout that holds those documents.
fn layout(documents: &[Document], columns: usize) -> Layout {
    let limits = Limits { columns, document: true };
    let mut shape = Shape::new(limits);
    for document in documents {
        shape.learn(&raw(document)).unwrap();
    }
    Layout::new(Arc::new(shape.schema(&TableId::new("d", "c"))), limits).unwrap()
}

fn appended(layout: &Layout, document: &Document) -> Batch {
    let mut builder = Builder::new(layout.schema().clone());
    layout.append(Op::Insert, &raw(document), &mut builder, &mut Room::default()).unwrap();
    builder.finish()
}

fn updated(layout: &Layout, description: &Document) -> Result<Batch, Misfit> {
    let mut builder = Builder::new(layout.schema().clone());
    layout.update(&raw(&doc! { "_id": 1 }), &raw(description), &mut builder)?;
    Ok(builder.finish())
}

/// The values of a row, as text; `None` for a null.
type Row = Vec<Option<String>>;

fn row(batch: &Batch) -> Row {
    let columns = batch.schema.columns.iter().zip(batch.columns.columns());
    let values =
        columns.map(|(column, array)| match value_at(&column.kind, array.as_ref(), 0).unwrap() {
            Value::Null => None,
            Value::Text(text) => Some(text.to_owned()),
            other => Some(format!("{other:?}")),
        });
    values.collect()
}

/// What `update` makes of a row; `None` when that can't be told.
fn applied(before: &Row, update: &Batch) -> Option<Row> {
    let columns = before.iter().zip(row(update)).enumerate();
    let values = columns.map(|(at, (old, new))| match update.is_patched(at, 0) {
        true => Some(Some(patch::apply(old.as_deref()?, [new?.as_str()])?)),
        false if update.is_unchanged(at, 0) => Some(old.clone()),
        false => Some(new),
    });
    values.collect()
}

fn check(before: &Document, description: &Document, after: &Document) {
    let layout = layout(&[before.clone(), after.clone()], 20);
    let update = updated(&layout, description).unwrap();
    let told = applied(&row(&appended(&layout, before)), &update);
    assert_eq!(told, Some(row(&appended(&layout, after))), "{description}");
}

/// The example of MongoDB's manual ("update Event", disambiguatedPaths), and others of its kind.
#[test]
fn paths_that_are_told_mean_what_they_say() {
    let before = doc! {
        "_id": 1, "home.town": "Ashford", "residences": [{ "0": "Ashford" }], "a": { "b": [1, 2] },
    };
    let after = doc! {
        "_id": 1, "home.town": "Oxford", "residences": [{ "0": "Oxford" }], "a": { "b": [1] },
    };
    let description = doc! {
        "updatedFields": { "home.town": "Oxford", "residences.0.0": "Oxford" },
        "removedFields": [],
        "truncatedArrays": [{ "field": "a.b", "newSize": 1 }],
        "disambiguatedPaths": {
            "home.town": ["home.town"], "residences.0.0": ["residences", 0, "0"],
        },
    };
    check(&before, &description, &after);
}

#[test]
fn what_is_set_and_removed_whole_is_a_value() {
    let before = doc! { "_id": 1, "n": 1, "s": "a", "o": { "x": 1 }, "l": [1, 2, 3] };
    let after = doc! { "_id": 1, "n": 2, "o": { "x": 1, "y": Bson::Null }, "l": [1, 7] };
    let description = doc! {
        "updatedFields": { "n": 2, "o.y": Bson::Null, "l.1": 7 },
        "removedFields": ["s"],
        "truncatedArrays": [{ "field": "l", "newSize": 2 }],
    };
    check(&before, &description, &after);
    let layout = layout(&[before], 20);
    let update = updated(&layout, &description).unwrap();
    let patched: Vec<_> = (0..6).filter(|at| update.is_patched(*at, 0)).collect();
    assert_eq!(patched, [1, 4, 5], "the document, o and l");
}

#[test]
fn a_new_field_and_a_value_of_another_kind_grow_the_shape() {
    let before = doc! { "_id": 1, "n": 1 };
    let layout_of = |columns| layout(std::slice::from_ref(&before), columns);
    for (description, kinds) in [
        (doc! { "updatedFields": { "n": "text" } }, vec!["long", "document", "json"]),
        (doc! { "updatedFields": { "n.x": 1 } }, vec!["long", "document", "json"]),
        (doc! { "updatedFields": { "o.x": 1 } }, vec!["long", "document", "long", "json"]),
        (doc! { "updatedFields": { "b": true } }, vec!["long", "document", "long", "bool"]),
    ] {
        let known = layout_of(20);
        assert!(matches!(updated(&known, &description), Err(Misfit::Shape)), "{description}");
        let sample = Update::sample(&raw(&description), &raw(&doc! { "_id": 1 })).unwrap();
        let mut shape = Shape::new(Limits { columns: 20, document: true });
        shape.adopt(known.schema());
        assert_eq!(shape.learn(&sample), Ok(true));
        let schema = shape.schema(&TableId::new("d", "c"));
        let types: Vec<_> = schema.columns.iter().map(|c| c.source_type.as_str()).collect();
        assert_eq!(types, kinds);
        let grown = Layout::new(Arc::new(schema), Limits { columns: 20, document: true }).unwrap();
        assert!(updated(&grown, &description).is_ok());
    }
    // A null needs no column, and beyond the limit there is none.
    assert!(updated(&layout_of(20), &doc! { "updatedFields": { "b": Bson::Null } }).is_ok());
    assert!(updated(&layout_of(1), &doc! { "updatedFields": { "b": 1, "o.x": 1 } }).is_ok());
}

/// A server that tells no path (the stand-in, of names with dots): the document decides, or nobody.
#[test]
fn a_path_in_doubt_is_read_from_the_document_or_not_at_all() {
    let description = doc! { "updatedFields": { "a.b": 2 } };
    let known = layout(&[doc! { "_id": 1, "a.b": 1, "c": 1 }], 20);
    let update = updated(&known, &description).unwrap();
    let before = row(&appended(&known, &doc! { "_id": 1, "a.b": 1, "c": 1 }));
    let after = row(&appended(&known, &doc! { "_id": 1, "a.b": 2, "c": 1 }));
    assert_eq!(applied(&before, &update), Some(after));
    // Both are there.
    let both = doc! { "_id": 1, "a.b": 1, "a": { "b": 1 } };
    let known = layout(std::slice::from_ref(&both), 20);
    let update = updated(&known, &description).unwrap();
    assert_eq!(applied(&row(&appended(&known, &both)), &update), None);
}

#[test]
fn what_is_malformed_stops_the_table() {
    let known = layout(&[doc! { "_id": 1, "a": [1] }], 20);
    for description in [
        doc! { "removedFields": [1] },
        doc! { "truncatedArrays": [{ "field": "a" }] },
        doc! { "updatedFields": { "a.0": 1 }, "disambiguatedPaths": { "a.0": [0, "a"] } },
    ] {
        assert!(matches!(updated(&known, &description), Err(Misfit::Stop(_))), "{description}");
    }
}

/// Changes a document as an update would, and describes that as the server does.
fn change(document: &mut Document, what: u8, value: &Bson) -> Option<Document> {
    let set = |path: &str| Some(doc! { "updatedFields": { path: value.clone() } });
    let clear = |path: &str, steps: Vec<Bson>| {
        Some(doc! {
            "updatedFields": { path: value.clone() },
            "disambiguatedPaths": { path: steps },
        })
    };
    match what {
        0 => {
            document.insert("n", value.clone());
            set("n")
        }
        1 => {
            document.remove("n")?;
            Some(doc! { "removedFields": ["n"] })
        }
        2 => {
            document.get_document_mut("d").ok()?.insert("x", value.clone());
            set("d.x")
        }
        3 => {
            let inner = document.get_document_mut("d").ok()?.get_document_mut("y").ok()?;
            inner.remove("z")?;
            Some(doc! { "removedFields": ["d.y.z"] })
        }
        4 => {
            let items = document.get_array_mut("a").ok()?;
            items.push(value.clone());
            set(&format!("a.{}", items.len() - 1))
        }
        5 => {
            let items = document.get_array_mut("a").ok()?;
            items.truncate(items.len() / 2);
            let left = items.len() as i32;
            Some(doc! { "truncatedArrays": [{ "field": "a", "newSize": left }] })
        }
        6 => {
            let items = document.get_array_mut("a").ok()?;
            let at = items.iter().position(|item| matches!(item, Bson::Document(_)))?;
            items[at].as_document_mut()?.insert("q", value.clone());
            set(&format!("a.{at}.q"))
        }
        7 => {
            let whole = doc! { "x": 0, "y": { "z": value.clone() } };
            document.insert("d", whole.clone());
            Some(doc! { "updatedFields": { "d": whole } })
        }
        8 => {
            document.insert("p.q", value.clone());
            clear("p.q", vec!["p.q".into()])
        }
        _ => {
            document.get_document_mut("d").ok()?.insert("0", value.clone());
            clear("d.0", vec!["d".into(), "0".into()])
        }
    }
}

fn bson() -> impl Strategy<Value = Bson> {
    prop_oneof![
        any::<i32>().prop_map(Bson::from),
        "[a.\"\\\\]{0,3}".prop_map(Bson::from),
        Just(Bson::Null),
        any::<bool>().prop_map(|deep| Bson::from(doc! { "q": deep, "r": [1, "x"] })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn updates_in_order_leave_the_document_as_it_is(
        deep: bool,
        steps in proptest::collection::vec((0..10_u8, bson()), 1..12),
        columns in 0..6_usize,
    ) {
        let mut document = doc! { "_id": 1, "a": [1, { "q": 1 }, 3] };
        if deep {
            document.insert("d", doc! { "x": 1, "y": { "z": 2 } });
        }
        let mut documents = vec![document.clone()];
        let mut descriptions = Vec::new();
        for (what, value) in &steps {
            if let Some(description) = change(&mut document, *what, value) {
                descriptions.push(description);
                documents.push(document.clone());
            }
        }
        let layout = layout(&documents, columns);
        let mut told = row(&appended(&layout, &documents[0]));
        for (description, after) in descriptions.iter().zip(&documents[1..]) {
            let update = updated(&layout, description);
            prop_assert!(update.is_ok(), "{:?} of {description}", update.err());
            let next = applied(&told, &update.unwrap());
            prop_assert_eq!(next.as_ref(), Some(&row(&appended(&layout, after))));
            told = next.unwrap();
        }
    }
}
