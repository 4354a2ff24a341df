//! `[source.NAME.mysql]`: MySQL or MariaDB.

use std::collections::HashMap;
use std::path::PathBuf;

use lakeward_connectors::mysql::Options;
use lakeward_connectors::schema::TableId;

use super::reader::Reader;
use super::source::Section;

impl Reader<'_> {
    pub(super) fn mysql(
        &mut self,
        section: &Section<'_, '_>,
        text_columns: HashMap<TableId, Vec<String>>,
    ) -> Option<Options> {
        let known = ["url", "tables", "server_id", "snapshot_connections", "ssl_root_cert"];
        self.only(&section.place(), section.table, &known);
        let ssl_root_cert = section.table.get("ssl_root_cert");
        let ssl_root_cert =
            ssl_root_cert.and_then(|item| self.text(&section.key("ssl_root_cert"), item));
        let server_id = section.table.get("server_id").and_then(|item| {
            let number = item.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
            let number = number.filter(|number: &u32| *number > 0);
            if number.is_none() {
                let key = section.key("server_id");
                self.fault(item.span().start, format!("{key} is a number from 1 to 4294967295"));
            }
            number
        });
        let tables = self.filter(section, "shop.*");
        let url = self.url(section, "mysql://user:${PASSWORD}@host:3306");
        Some(Options {
            source_name: section.source.to_owned(),
            url: url?,
            tables: tables?,
            server_id,
            ssl_root_cert: ssl_root_cert.map(PathBuf::from),
            text_columns,
        })
    }
}
