//! `config.toml` → [`Config`]: every fault in one run, each with its line and its remedy.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::metrics::otlp::Collector;

mod alert;
mod lake;
mod mongodb;
mod mysql;
mod otlp;
mod postgres;
mod reader;
mod source;
mod table;

pub use alert::AlertConfig;
pub use lake::LakeConfig;
use reader::{Reader, line_of};
pub use source::{Database, SourceConfig};
pub use table::PerTable;

/// What a user configured, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where tables go.
    pub lake: LakeConfig,
    /// What the daemon says of itself.
    pub log: LogConfig,
    /// Where the status page, `/metrics` and `/health` are served.
    pub listen: std::net::SocketAddr,
    /// Who is told when something is wrong.
    pub alert: AlertConfig,
    /// Which OpenTelemetry collector gets the metrics.
    pub otlp: Option<Collector>,
    /// The databases, by name.
    pub sources: BTreeMap<String, SourceConfig>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,lakeward=debug`.
    pub level: String,
}

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Every fault of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// In the order of their lines.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index + 1 < self.faults.len() { "\n" } else { "" };
            write!(f, "{}:{}: {}{end}", self.file.display(), fault.line, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads `file`. Variables are taken from the process's environment.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn read(file: &Path) -> Result<Self, Faults> {
        let faults =
            |line, message| Faults { file: file.to_owned(), faults: vec![Fault { line, message }] };
        let text = std::fs::read_to_string(file).map_err(|error| {
            faults(1, format!("can't be read: {error}; give the file's path with --config"))
        })?;
        Self::parse(&text, |name| std::env::var(name).ok())
            .map_err(|found| Faults { file: file.to_owned(), faults: found })
    }

    /// Parses the text of a configuration; `variable` looks up `${NAME}`.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            vec![Fault { line: line_of(text, at), message: error.message().to_owned() }]
        })?;
        let mut reader = Reader { text, variable: &variable, mask_key: None, faults: Vec::new() };
        let config = reader.config(document.get_ref());
        match reader.faults.is_empty() {
            true => Ok(config),
            false => {
                reader.faults.sort_by_key(|fault| fault.line);
                Err(reader.faults)
            }
        }
    }
}

impl Reader<'_> {
    fn config(&mut self, root: &DeTable<'_>) -> Config {
        self.only("the file", root, &["lake", "log", "http", "alert", "otlp", "source"]);
        let empty = DeTable::new();
        let section = |reader: &mut Self, name: &str| match root.get(name) {
            Some(item) => reader.table(name, item).cloned(),
            None => None,
        };
        let lake = section(self, "lake").unwrap_or_else(|| empty.clone());
        self.read_mask_key(&lake);
        let log = section(self, "log").unwrap_or_else(|| empty.clone());
        let http = section(self, "http").unwrap_or_else(|| empty.clone());
        let alert = section(self, "alert").unwrap_or_else(|| empty.clone());
        let otlp = section(self, "otlp");
        let at = root.get("otlp").map_or(0, |item| item.span().start);
        let lake = self.lake(&lake);
        let log = self.log(&log);
        self.only("[http]", &http, &["listen"]);
        let default = std::net::SocketAddr::from(([127, 0, 0, 1], 9464));
        let listen = match http.get("listen") {
            None => default,
            Some(item) => self
                .parsed("http.listen", item, "an address such as \"127.0.0.1:9464\"", |t| {
                    t.parse().ok()
                })
                .unwrap_or(default),
        };
        let alert = self.alert(&alert);
        let otlp = otlp.and_then(|table| self.otlp(&table, at));
        let sources = self.sources(root);
        Config { lake, log, listen, alert, otlp, sources }
    }

    fn log(&mut self, table: &DeTable<'_>) -> LogConfig {
        self.only("[log]", table, &["format", "level"]);
        let mut log = LogConfig { json: false, level: "info".to_owned() };
        if let Some(item) = table.get("format") {
            let parse = |text: &str| match text {
                "text" => Some(false),
                "json" => Some(true),
                _ => None,
            };
            log.json =
                self.parsed("log.format", item, "\"text\" or \"json\"", parse).unwrap_or(false);
        }
        if let Some(level) = table.get("level").and_then(|item| self.text("log.level", item)) {
            log.level = level;
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delta::Merge;
    use crate::start::SnapshotMode;

    fn faults(text: &str) -> Vec<(usize, String)> {
        let variable = |name: &str| (name == "PW").then(|| "p@ss w/rd".to_owned());
        match Config::parse(text, variable) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|f| (f.line, f.message)).collect(),
        }
    }

    const GOOD: &str =
        "[source.shop.postgres]\nurl = \"postgres://u:${PW}@h/db\"\ntables = [\"public.*\"]\n";

    #[test]
    fn a_short_file_gets_every_default() {
        let config = Config::parse(GOOD, |_| Some("p@ss w/rd".to_owned())).unwrap();
        assert_eq!(config.lake.url, "./lake");
        assert_eq!(config.lake.flush_interval, Duration::from_secs(5));
        let Database::Postgres(shop) = &config.sources["shop"].database else {
            panic!("it is Postgres")
        };
        assert_eq!(shop.url.reveal(), "postgres://u:p%40ss%20w%2Frd@h/db");
        assert_eq!(
            (shop.slot.as_str(), shop.publication.as_str()),
            ("lakeward_shop", "lakeward_shop")
        );
        let shown = format!("{config:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "no secret in Debug");
    }

    #[test]
    fn every_fault_is_found_in_one_run_with_its_line() {
        let text = "[lake]\nflush_intervall = \"5s\"\nmemory = \"lots\"\n[source.Shop.postgres]\n\
                    url = \"postgres://u:${NOPE}@h/db\"\ntables = []\n[source.b.postgres]\n";
        let found = faults(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 7]);
        assert!(found[0].1.contains("did you mean `flush_interval`?"), "{found:?}");
        assert!(found[3].1.contains("NOPE is not set"));
    }

    #[test]
    fn a_table_chooses_how_it_is_merged() {
        let of =
            |mode: &str| format!("{GOOD}[source.shop.table.\"public.t\"]\nmerge = \"{mode}\"\n");
        let config = Config::parse(&of("deletion-vectors"), |_| Some(String::new())).unwrap();
        let merge: Vec<_> = config.sources["shop"].per_table.merge.values().collect();
        assert_eq!(merge, [&Merge::DeletionVectors]);
        let interval =
            format!("{GOOD}[source.shop.table.\"public.t\"]\nmerge_interval = \"90s\"\n");
        let config = Config::parse(&interval, |_| Some(String::new())).unwrap();
        let intervals: Vec<_> = config.sources["shop"].per_table.merge_interval.values().collect();
        assert_eq!(intervals, [&Duration::from_secs(90)]);
        assert_eq!(faults(&interval.replace("90s", "often"))[0].0, 5);
        let found = faults(&of("append"));
        assert_eq!(found[0].0, 5);
        assert!(found[0].1.contains("\"deletion-vectors\""), "{found:?}");
    }

    #[test]
    fn what_is_masked_is_not_kept_in_whole_documents() {
        let of = |document: &str, columns: &str| {
            format!(
                "[source.shop.mongodb]\nurl = \"mongodb://h\"\ntables = [\"d.*\"]\n{document}\n\
                 [source.shop.table.\"d.c\"]\ncolumns = {columns}\n"
            )
        };
        let found = faults(&of("", "[\"!ssn\"]"));
        assert!(found[0].1.contains("add \"!_doc\" to its columns"), "{found:?}");
        assert!(!faults(&of("", "[\"*\"]\nmask = { ssn = \"drop\" }")).is_empty());
        for (document, columns) in [
            ("document = false", "[\"!ssn\"]"),
            ("", "[\"!ssn\", \"!_doc\"]"),
            ("", "[\"_id\", \"name\"]\nmask = { name = \"drop\" }"),
            ("", "[\"*\"]"),
            ("", "[\"_id\", \"_doc\"]"),
        ] {
            assert_eq!(faults(&of(document, columns)), [], "{document} {columns}");
        }
    }

    #[test]
    fn a_table_says_what_becomes_of_its_rows() {
        let of = |lines: &str| format!("{GOOD}[source.shop.table.\"public.t\"]\n{lines}\n");
        let modes = |lines: &str| {
            let config = Config::parse(&of(lines), |_| Some(String::new())).unwrap();
            config.sources["shop"].per_table.snapshot_modes.values().cloned().collect::<Vec<_>>()
        };
        assert_eq!(modes("snapshot = \"initial\""), []);
        assert_eq!(modes("snapshot = \"schema\""), [SnapshotMode::Schema]);
        let from = modes("snapshot = \"never\"\nfrom = \"0/16B3748\"");
        assert_eq!(from, [SnapshotMode::Never(Some("0/16B3748".to_owned()))]);
        let found = faults(&of("from = \"yesterday\""));
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 5], "{found:?}");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert_eq!(faults("[lake]\nurl = \"x\n").first().map(|f| f.0), Some(2));
    }
}
