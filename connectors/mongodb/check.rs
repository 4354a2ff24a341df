//! What `lakeward check` says about a MongoDB source. Changes nothing.

use ::mongodb::bson::doc;

use super::catalog::{self, Found};
use super::connection::{Server, owned};
use super::position::{Position, Time};
use super::{Mongodb, Options};
use crate::error::{Error, Result};
use crate::schema::TableId;
use crate::source::Finding;

/// An oplog that holds less is worth a remark: a daemon that is down for longer reads all again.
const WINDOW: u32 = 24 * 3600;

/// All findings at once; one for the connection alone when it can't be made.
pub async fn findings(source: &mut Mongodb) -> Result<Vec<Finding>> {
    let server = match source.server().await {
        Ok(server) => server,
        Err(error) => return Ok(vec![Finding::of(&error)]),
    };
    let mut found = Findings::default();
    let (namespaces, filter) = (source.namespaces.clone(), source.filter.clone());
    match catalog::discover(&server, &namespaces, &filter, &source.shapes).await {
        Ok(catalog) => found.tables(&catalog, &source.options, server.has_clear_paths()),
        Err(error) => found.0.push(Finding::of(&error)),
    }
    if let Err(error) = opens(source, &server).await {
        found.0.push(Finding::of(&error));
    }
    match window(&server).await {
        Ok(seconds) => found.window(seconds),
        Err(error) => found.note(
            format!("how far back the oplog reaches can't be seen: {}", error.full()),
            "grant the user read on the database local, if you want to be told",
        ),
    }
    Ok(found.0)
}

/// Opens the change stream once, which shows what the user may better than any list of rights.
async fn opens(source: &Mongodb, server: &Server) -> Result<()> {
    let now = Position::at(server.majority().await?);
    source.opening(false).open(server, &now).await.map(|_| ())
}

/// How many seconds of changes the oplog holds.
async fn window(server: &Server) -> Result<u32> {
    let (first, last) = (oplog(server, 1).await?, oplog(server, -1).await?);
    Ok(last.seconds.saturating_sub(first.seconds))
}

/// The time of the oplog's first entry, or of its last one.
pub async fn oplog(server: &Server, order: i32) -> Result<Time> {
    let command = doc! {
        "find": "oplog.rs", "sort": { "$natural": order }, "limit": 1,
        "projection": { "ts": 1 }, "comment": "lakeward",
    };
    let mut cursor = server.cursor("looking at the oplog", "local", command, 1, None).await?;
    let reply = cursor.next().await?;
    let entry = reply.and_then(|reply| reply.documents().next());
    let time = entry.map(|entry| owned(&entry)).transpose()?;
    let time = time.and_then(|entry| entry.get_timestamp("ts").ok());
    time.map(Time::from).ok_or_else(|| Error::unavailable("the oplog has no entry"))
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fatal(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: true, problem: problem.into(), remedy: remedy.into() });
    }

    fn note(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { fatal: false, problem: problem.into(), remedy: remedy.into() });
    }

    fn tables(&mut self, catalog: &Found, options: &Options, clear_paths: bool) {
        for (table, reason) in &catalog.refused {
            self.note(format!("collection {table} can't be kept"), reason);
        }
        if catalog.tables.is_empty() {
            let patterns = options.tables.join(", ");
            self.fatal(format!("no collection can be kept of those that match {patterns}"), "");
        }
        for listed in &catalog.tables {
            let id = &listed.schema.id;
            if !clear_paths && !catalog.post_images.contains(id) {
                self.note(no_post_images(id), enable_post_images(id));
            }
        }
    }

    fn window(&mut self, seconds: u32) {
        if seconds < WINDOW {
            self.note(
                format!(
                    "the oplog holds {:.1} hours of changes: after a longer pause all is read again",
                    f64::from(seconds) / 3600.0
                ),
                "db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 24})",
            );
        }
    }
}

fn no_post_images(id: &TableId) -> String {
    format!(
        "updates of {id} don't bring the document, and before MongoDB 6.1 their paths are in doubt: \
         it is looked up, and may be newer than the update, so that the table shows the \
         collection's own state only once it has caught up"
    )
}

fn enable_post_images(id: &TableId) -> String {
    let (database, collection) = (js(&id.schema), js(&id.name));
    format!(
        "db.getSiblingDB({database}).runCommand({{collMod: {collection}, \
         changeStreamPreAndPostImages: {{enabled: true}}}}), which takes space for each change"
    )
}

fn js(text: &str) -> String {
    let mut out = String::new();
    super::json::quoted(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_oplog_is_a_remark() {
        let mut found = Findings::default();
        found.window(WINDOW);
        assert!(found.0.is_empty());
        found.window(1800);
        assert!(!found.0[0].fatal && found.0[0].problem.contains("0.5 hours"));
    }

    #[test]
    fn the_statement_names_the_collection_safely() {
        let remedy = enable_post_images(&TableId::new("d", "a\"b"));
        assert!(remedy.contains(r#"collMod: "a\"b""#), "{remedy}");
    }
}
