//! Which collections there are, which can be kept, and what a new one looks like.
//!
//! A collection that is seen for the first time is sampled: all of it when it is small, else
//! documents taken at random and those at both ends of its `_id`s. What the sample doesn't show is
//! found while the documents are read, or when they change.

use std::collections::HashSet;
use std::sync::Arc;

use ::mongodb::bson::{Bson, Document, doc};

use super::connection::{Server, number};
use super::element::find;
use super::namespaces::{Namespaces, SYSTEM};
use super::shape::Shapes;
use crate::error::{Error, Result};
use crate::filter::TableFilter;
use crate::schema::TableId;
use crate::source::Listed;

/// Up to so many documents, a collection is its own sample.
const WHOLE: u64 = 2_000;
/// How many documents are taken at random.
const RANDOM: i64 = 1_000;
/// How many documents are taken at each end.
const ENDS: i64 = 200;
/// How long the server may take to draw a sample, in milliseconds.
const SAMPLING: i64 = 30_000;

/// What a look at the deployment found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The collections that can be kept.
    pub tables: Vec<Listed>,
    /// The others that the filter wants, each with the reason and the remedy.
    pub refused: Vec<(TableId, String)>,
    /// Those of the kept ones whose updates carry their post-images.
    pub post_images: HashSet<TableId>,
}

/// One entry of `listCollections`.
struct Entry {
    id: TableId,
    kind: String,
    post_images: bool,
}

/// The collections that `filter` wants, as they are now.
///
/// # Errors
/// When they can't be listed or sampled.
pub async fn discover(
    server: &Server,
    namespaces: &Namespaces,
    filter: &TableFilter,
    shapes: &Shapes,
) -> Result<Found> {
    let mut found = Found::default();
    for database in databases(server, namespaces).await? {
        for entry in entries(server, &database).await? {
            if !filter.matches(&entry.id) {
                continue;
            }
            if let Some(reason) = refusal(&entry.kind) {
                found.refused.push((entry.id, reason));
                continue;
            }
            let rows = match shapes.knows(&entry.id) {
                true => 0,
                false => sample(server, &entry.id, shapes).await?,
            };
            if entry.post_images {
                found.post_images.insert(entry.id.clone());
            }
            let schema = Arc::new(shapes.schema(&entry.id));
            found.tables.push(Listed { schema, rows });
        }
    }
    let there: HashSet<_> = found.tables.iter().map(|listed| listed.schema.id.clone()).collect();
    shapes.retain(|id| there.contains(id));
    found.tables.sort_by(|a, b| a.schema.id.cmp(&b.schema.id));
    found.refused.sort();
    Ok(found)
}

async fn databases(server: &Server, namespaces: &Namespaces) -> Result<Vec<String>> {
    if let Some(database) = &namespaces.database {
        return Ok(vec![database.clone()]);
    }
    let command = doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": true };
    let answer = server.run("listing databases", "admin", command).await?;
    let databases = answer.get_array("databases").map(Vec::as_slice).unwrap_or_default();
    let name = |database: &Bson| database.as_document()?.get_str("name").ok().map(str::to_owned);
    let names = databases.iter().filter_map(name);
    Ok(names.filter(|name| !SYSTEM.contains(&name.as_str())).collect())
}

async fn entries(server: &Server, database: &str) -> Result<Vec<Entry>> {
    let command = doc! { "listCollections": 1, "cursor": {} };
    let mut cursor = server.cursor("listing collections", database, command, 1_000, None).await?;
    let mut entries = Vec::new();
    while let Some(reply) = cursor.next().await? {
        for bytes in reply.documents() {
            let entry = super::connection::owned(&bytes)?;
            let name = entry.get_str("name").unwrap_or_default();
            // The server's own, among them the buckets of time series.
            if name.is_empty() || name.starts_with("system.") {
                continue;
            }
            let options = entry.get_document("options");
            let series = options.as_ref().is_ok_and(|options| options.contains_key("timeseries"));
            let kind = match series {
                true => "timeseries",
                false => entry.get_str("type").unwrap_or("collection"),
            };
            let images = options
                .and_then(|options| options.get_document("changeStreamPreAndPostImages"))
                .and_then(|images| images.get_bool("enabled"));
            entries.push(Entry {
                id: TableId::new(database, name),
                kind: kind.to_owned(),
                post_images: images.unwrap_or(false),
            });
        }
    }
    Ok(entries)
}

/// Why what isn't an ordinary collection can't be kept.
fn refusal(kind: &str) -> Option<String> {
    match kind {
        "collection" => None,
        "view" => Some("it is a view: keep the collection it is made of".to_owned()),
        "timeseries" => Some(
            "it is a time series, whose changes no change stream shows; leave it out".to_owned(),
        ),
        other => Some(format!("it is a {other}, whose changes are not known; leave it out")),
    }
}

/// Learns what a collection looks like; says how many documents it has, by the server's count.
async fn sample(server: &Server, id: &TableId, shapes: &Shapes) -> Result<u64> {
    let rows = count(server, id).await?;
    // An empty collection has been seen, too.
    shapes.schema(id);
    let find = |sort: i32, limit: i64| {
        let sort = doc! { "_id": sort };
        doc! { "find": &id.name, "sort": sort.clone(), "hint": { "_id": 1 }, "limit": limit }
    };
    let random = doc! {
        "aggregate": &id.name,
        "pipeline": [{ "$sample": { "size": RANDOM } }],
        "cursor": {},
    };
    let commands = match rows <= WHOLE {
        true => vec![find(1, WHOLE as i64)],
        false => vec![find(1, ENDS), random, find(-1, ENDS)],
    };
    for mut command in commands {
        command.insert("readConcern", doc! { "level": "majority" });
        command.insert("maxTimeMS", SAMPLING);
        command.insert("comment", "lakeward");
        learn(server, id, command, shapes).await?;
    }
    Ok(rows)
}

/// Learns from every document that `command` reads.
async fn learn(server: &Server, id: &TableId, command: Document, shapes: &Shapes) -> Result<()> {
    let mut cursor = server.cursor("sampling a collection", &id.schema, command, 500, None).await?;
    while let Some(reply) = cursor.next().await? {
        for bytes in reply.documents() {
            // What can't be read stops its table when it is read, with the document named.
            let _ = shapes.learn(id, [&bytes[..]]);
        }
    }
    Ok(())
}

/// How many documents a collection has, by its own metadata.
///
/// # Errors
/// When it can't be asked.
pub async fn count(server: &Server, id: &TableId) -> Result<u64> {
    let command = doc! { "count": &id.name, "maxTimeMS": SAMPLING };
    let answer = server.run("counting documents", &id.schema, command).await?;
    Ok(number(answer.get("n")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// The `_id`s of documents taken at random, as many as `size`, in the server's order; as documents.
///
/// # Errors
/// When they can't be had.
pub async fn keys(server: &Server, id: &TableId, size: usize) -> Result<Vec<Vec<u8>>> {
    let pipeline: Vec<Bson> = vec![
        doc! { "$sample": { "size": size as i64 } }.into(),
        doc! { "$project": { "_id": 1 } }.into(),
        doc! { "$sort": { "_id": 1 } }.into(),
    ];
    let command = doc! {
        "aggregate": &id.name,
        "pipeline": pipeline,
        "cursor": {},
        "readConcern": { "level": "majority" },
        "maxTimeMS": SAMPLING,
        "comment": "lakeward",
    };
    let mut cursor =
        server.cursor("splitting a collection", &id.schema, command, 1_000, None).await?;
    let mut keys = Vec::new();
    while let Some(reply) = cursor.next().await? {
        for bytes in reply.documents() {
            let sound = find(&bytes, "_id").map_err(|malformed| {
                Error::internal("a document of the server is malformed").caused_by(malformed)
            })?;
            if sound.is_some() {
                keys.push(bytes.to_vec());
            }
        }
    }
    Ok(keys)
}
