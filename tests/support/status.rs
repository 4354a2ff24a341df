//! What `lakeward status --json` says of each table.

use std::fmt;

use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    pub source: String,
    /// `schema.table`
    pub table: String,
    pub state: String,
    pub reason: String,
}

impl fmt::Display for TableStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.source, self.table, self.state)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Status(pub Vec<TableStatus>);

impl Status {
    /// Tables are the objects with a `state` and no `tables` of their own; a source is what
    /// holds them. Lists with a `name` and maps by name are both understood.
    pub fn parse(value: &Value) -> Status {
        let mut found = Vec::new();
        walk(value, "", "", &mut found);
        Status(found)
    }

    pub fn of(&self, source: &str) -> impl Iterator<Item = &TableStatus> {
        self.0.iter().filter(move |t| t.source == source)
    }

    pub fn table(&self, source: &str, schema: &str, name: &str) -> Option<&TableStatus> {
        let full = format!("{schema}.{name}");
        self.of(source).find(|t| t.table == full || t.table == name)
    }

    /// Whether the source has tables and none is still on its way.
    pub fn settled(&self, source: &str) -> bool {
        let mut tables = self.of(source).peekable();
        tables.peek().is_some()
            && tables.all(|t| {
                matches!(t.state.as_str(), "live" | "stopped" | "paused" | "dropped" | "refused")
            })
    }

    pub fn has_stopped(&self) -> bool {
        self.0.iter().any(|table| table.state == "stopped")
    }

    pub fn lines(&self) -> String {
        self.0.iter().map(|t| format!("  {t}\n")).collect()
    }
}

fn text<'a>(object: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|k| object.get(*k).and_then(Value::as_str))
}

fn walk(value: &Value, source: &str, key: &str, found: &mut Vec<TableStatus>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| walk(v, source, key, found)),
        Value::Object(object) if object.contains_key("tables") => {
            let name = text(object, &["source", "name"]).unwrap_or(key);
            object.iter().for_each(|(k, v)| walk(v, name, k, found));
        }
        Value::Object(object) if text(object, &["state"]).is_some() => {
            let mut table = text(object, &["table", "name"]).unwrap_or(key).to_owned();
            if let Some(schema) = text(object, &["schema"]) {
                table = format!("{schema}.{table}");
            }
            found.push(TableStatus {
                source: text(object, &["source"]).unwrap_or(source).to_owned(),
                table,
                state: text(object, &["state"]).unwrap_or_default().to_lowercase(),
                reason: text(object, &["reason", "error", "message"])
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        Value::Object(object) => object.iter().for_each(|(k, v)| walk(v, source, k, found)),
        _ => {}
    }
}
