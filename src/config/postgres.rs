//! `[source.NAME.postgres]`.

use std::collections::HashMap;
use std::path::PathBuf;

use lakeward_connectors::postgres::Options;
use lakeward_connectors::schema::TableId;

use super::reader::Reader;
use super::source::Section;

impl Reader<'_> {
    pub(super) fn postgres(
        &mut self,
        section: &Section<'_, '_>,
        text_columns: HashMap<TableId, Vec<String>>,
    ) -> Option<Options> {
        let known =
            ["url", "tables", "publication", "slot", "snapshot_connections", "ssl_root_cert"];
        self.only(&section.place(), section.table, &known);
        let text = |reader: &mut Self, of: &str| {
            section.table.get(of).and_then(|item| reader.text(&section.key(of), item))
        };
        let default = section.default_name();
        let publication = text(self, "publication").unwrap_or_else(|| default.clone());
        let slot = text(self, "slot").unwrap_or(default);
        let ssl_root_cert = text(self, "ssl_root_cert").map(PathBuf::from);
        if let Some(item) = section.table.get("slot")
            && !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            let key = section.key("slot");
            let message = format!("{key}: '{slot}': Postgres allows a-z, 0-9 and _");
            self.fault(item.span().start, message);
        }
        let tables = self.filter(section, "public.*");
        let url = self.url(section, "postgres://user:${PASSWORD}@host:5432/db");
        Some(Options {
            source_name: section.source.to_owned(),
            url: url?,
            tables: tables?,
            publication,
            slot,
            ssl_root_cert,
            text_columns,
        })
    }
}
