//! `[source.NAME.mongodb]`.

use lakeward_connectors::mongodb::Options;
use lakeward_connectors::mongodb::shape::DOCUMENT;

use super::reader::Reader;
use super::source::Section;
use super::table::PerTable;

/// How many fields of a collection get a column, unless the file says otherwise.
const COLUMNS: usize = 250;

impl Reader<'_> {
    pub(super) fn mongodb(
        &mut self,
        section: &Section<'_, '_>,
        per_table: &PerTable,
    ) -> Option<Options> {
        let known = ["url", "tables", "columns", "document", "snapshot_connections"];
        self.only(&section.place(), section.table, &known);
        if !per_table.text_columns.is_empty() {
            let source = section.source;
            let message = format!(
                "[source.{source}.table] text_columns: fields have columns that hold all their \
                 values; leave it out"
            );
            self.fault(section.at, message);
        }
        let columns = section.table.get("columns").map_or(COLUMNS, |item| {
            let number = item.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
            number.filter(|number| *number <= 2_000).unwrap_or_else(|| {
                let key = section.key("columns");
                self.fault(item.span().start, format!("{key} is a number from 0 to 2000"));
                COLUMNS
            })
        });
        let document = section.table.get("document").is_none_or(|item| {
            item.get_ref().as_bool().unwrap_or_else(|| {
                let key = section.key("document");
                self.fault(item.span().start, format!("{key} is true or false"));
                true
            })
        });
        for (table, shape) in &per_table.shapes {
            if document && shape.hides_by_name() && !shape.hides(DOCUMENT.0) {
                let message = format!(
                    "[source.{}.table.\"{table}\"]: {} has whole documents, also what is masked or \
                     left out of them; add \"!{}\" to its columns, or set document = false",
                    section.source, DOCUMENT.0, DOCUMENT.0
                );
                self.fault(section.at, message);
            }
        }
        let tables = self.filter(section, "shop.*");
        let url = self.url(section, "mongodb://user:${PASSWORD}@host:27017/?replicaSet=rs0");
        Some(Options { url: url?, tables: tables?, columns, document })
    }
}
