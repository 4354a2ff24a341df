//! `config.toml` → [`Config`]: every fault in one run, each with its line and its remedy.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lakeward_connectors::filter::TableFilter;
use lakeward_connectors::postgres;
use lakeward_connectors::schema::TableId;
use lakeward_connectors::secret::Secret;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::delta::store::RETENTION;
use crate::delta::{Compression, LakeOptions, Merge, S3Options};

/// What a user configured, with every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where tables go.
    pub lake: LakeConfig,
    /// What the daemon says of itself.
    pub log: LogConfig,
    /// Where `/metrics` and `/health` are served.
    pub listen: std::net::SocketAddr,
    /// The databases, by name.
    pub sources: BTreeMap<String, SourceConfig>,
}

/// `[lake]`.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// A path, `file://` or `s3://`.
    pub url: String,
    /// Credentials and endpoint for `s3://`; what is absent comes from the `AWS_*` environment.
    pub s3: BTreeMap<String, Secret>,
    /// The longest a change waits before it is committed.
    pub flush_interval: Duration,
    /// The budget for buffers, in bytes.
    pub memory: usize,
    /// Where caches are.
    pub state_dir: PathBuf,
    /// How data files are compressed.
    pub compression: Compression,
    /// For how long replaced files are kept.
    pub retention: Duration,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,lakeward=debug`.
    pub level: String,
}

/// `[source.NAME.postgres]` and `[source.NAME.table."…"]`.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// How to reach it.
    pub url: Secret,
    /// Which tables: patterns.
    pub tables: Vec<String>,
    /// The publication's name.
    pub publication: String,
    /// The slot's name.
    pub slot: String,
    /// How many chunks a snapshot reads at a time.
    pub snapshot_connections: usize,
    /// A file of certificates to trust instead of the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// Per table: columns kept as the source's own text.
    pub text_columns: HashMap<TableId, Vec<String>>,
    /// Per table: how changed rows are merged, where it is not the default.
    pub merge: BTreeMap<TableId, Merge>,
}

/// What `[source.NAME.table."…"]` says of a source's tables.
#[derive(Default)]
struct PerTable {
    text_columns: HashMap<TableId, Vec<String>>,
    merge: BTreeMap<TableId, Merge>,
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

impl LakeConfig {
    /// What the store is opened with.
    pub fn options(&self) -> LakeOptions {
        let text = |key: &str| self.s3.get(key).map(|value| value.reveal().to_owned());
        LakeOptions {
            url: self.url.clone(),
            s3: S3Options {
                endpoint: text("endpoint"),
                region: text("region"),
                access_key_id: text("access_key_id"),
                secret_access_key: text("secret_access_key"),
                allow_http: text("allow_http").is_some_and(|value| value == "true"),
                ..S3Options::default()
            },
            compression: self.compression,
            retention: Some(self.retention),
        }
    }
}

impl SourceConfig {
    /// What the connector is opened with, for the source called `name`.
    pub fn options(&self, name: &str) -> postgres::Options {
        postgres::Options {
            source_name: name.to_owned(),
            url: self.url.clone(),
            tables: self.tables.clone(),
            publication: self.publication.clone(),
            slot: self.slot.clone(),
            ssl_root_cert: self.ssl_root_cert.clone(),
            text_columns: self.text_columns.clone(),
        }
    }
}

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
        let mut reader = Reader { text, variable: &variable, faults: Vec::new() };
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

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

type Item<'a, 'd> = &'a Spanned<DeValue<'d>>;

struct Reader<'t> {
    text: &'t str,
    variable: &'t dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault { line: line_of(self.text, at), message: message.into() });
    }

    /// Faults every key of `table` that is not in `known`.
    fn only(&mut self, place: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let near = known.iter().find(|known| is_near(name, known));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.fault(key.span().start, format!("unknown key `{name}` in {place}; {hint}"));
            }
        }
    }

    fn table<'a, 'd>(&mut self, place: &str, item: Item<'a, 'd>) -> Option<&'a DeTable<'d>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            self.fault(item.span().start, format!("{place} is a table: write it as [{place}]"));
        }
        table
    }

    fn text(&mut self, place: &str, item: Item<'_, '_>) -> Option<String> {
        let text = item.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.fault(item.span().start, format!("{place} is text: write it in quotes"));
        }
        text
    }

    fn texts(&mut self, place: &str, item: Item<'_, '_>) -> Vec<(usize, String)> {
        let Some(items) = item.get_ref().as_array() else {
            self.fault(item.span().start, format!("{place} is a list: write it as [\"…\", \"…\"]"));
            return Vec::new();
        };
        items.iter().filter_map(|item| Some((item.span().start, self.text(place, item)?))).collect()
    }

    /// Text in which `${NAME}` stands for a variable, and which may be `file:PATH` as a whole.
    /// Inside a URL a variable is percent-encoded, so that a password may hold any character.
    fn secret(&mut self, place: &str, item: Item<'_, '_>) -> Option<Secret> {
        let at = item.span().start;
        let text = self.text(place, item)?;
        if let Some(path) = text.strip_prefix("file:") {
            return match std::fs::read_to_string(path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(error) => {
                    self.fault(at, format!("{place}: the file {path} can't be read: {error}"));
                    None
                }
            };
        }
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            let Some(end) = rest[start..].find('}').map(|end| start + end) else {
                self.fault(at, format!("{place}: a `${{` without its `}}`"));
                return None;
            };
            let name = &rest[start + 2..end];
            let Some(value) = (self.variable)(name) else {
                let message =
                    format!("{place}: the variable {name} is not set; set it, or write file:PATH");
                self.fault(at, message);
                return None;
            };
            out.push_str(&rest[..start]);
            let whole = text.len() == end + 1 - start;
            match text.contains("://") && !whole {
                true => out.extend(
                    url::form_urlencoded::byte_serialize(value.as_bytes())
                        .map(|part| part.replace('+', "%20")),
                ),
                false => out.push_str(&value),
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Some(Secret::new(out))
    }

    fn config(&mut self, root: &DeTable<'_>) -> Config {
        self.only("the file", root, &["lake", "log", "http", "source"]);
        let empty = DeTable::new();
        let section = |reader: &mut Self, name: &str| match root.get(name) {
            Some(item) => reader.table(name, item).cloned(),
            None => None,
        };
        let lake = section(self, "lake").unwrap_or_else(|| empty.clone());
        let log = section(self, "log").unwrap_or_else(|| empty.clone());
        let http = section(self, "http").unwrap_or_else(|| empty.clone());
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
        let sources = self.sources(root);
        Config { lake, log, listen, sources }
    }

    fn parsed<T>(
        &mut self,
        place: &str,
        item: Item<'_, '_>,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(place, item)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.fault(item.span().start, format!("{place}: '{text}' is not {wanted}"));
        }
        parsed
    }

    fn lake(&mut self, table: &DeTable<'_>) -> LakeConfig {
        let known =
            ["url", "flush_interval", "memory", "state_dir", "compression", "retention", "s3"];
        self.only("[lake]", table, &known);
        let mut lake = LakeConfig {
            url: "./lake".to_owned(),
            s3: BTreeMap::new(),
            flush_interval: Duration::from_secs(5),
            memory: 256 << 20,
            state_dir: PathBuf::from("./state"),
            compression: Compression::default(),
            retention: RETENTION,
        };
        if let Some(url) = table.get("url").and_then(|item| self.text("lake.url", item)) {
            lake.url = url;
        }
        if let Some(item) = table.get("flush_interval") {
            let wanted = "a time such as \"500ms\", \"5s\" or \"1m\"";
            lake.flush_interval =
                self.parsed("lake.flush_interval", item, wanted, duration).unwrap_or_default();
        }
        if let Some(item) = table.get("memory") {
            let wanted = "a size of at least 64MiB such as \"256MiB\"";
            let parse = |text: &str| size(text).filter(|size| *size >= 64 << 20);
            lake.memory = self.parsed("lake.memory", item, wanted, parse).unwrap_or_default();
        }
        if let Some(dir) = table.get("state_dir").and_then(|i| self.text("lake.state_dir", i)) {
            lake.state_dir = dir.into();
        }
        if let Some(item) = table.get("retention") {
            let wanted = "a time such as \"7d\" or \"12h\"";
            lake.retention =
                self.parsed("lake.retention", item, wanted, duration).unwrap_or(RETENTION);
        }
        if let Some(item) = table.get("compression") {
            let parse = |text: &str| match text {
                "snappy" => Some(Compression::Snappy),
                "zstd" => Some(Compression::Zstd),
                _ => None,
            };
            let wanted = "\"snappy\" or \"zstd\"";
            lake.compression =
                self.parsed("lake.compression", item, wanted, parse).unwrap_or_default();
        }
        if let Some(s3) = table.get("s3").and_then(|item| self.table("lake.s3", item)) {
            let known = ["endpoint", "region", "access_key_id", "secret_access_key", "allow_http"];
            self.only("[lake.s3]", s3, &known);
            for (key, item) in s3 {
                let name = key.get_ref().to_string();
                let value = match item.get_ref().as_bool() {
                    Some(value) => Some(Secret::new(value.to_string())),
                    None => self.secret(&format!("lake.s3.{name}"), item),
                };
                lake.s3.extend(value.map(|value| (name, value)));
            }
        }
        lake
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

    fn sources(&mut self, root: &DeTable<'_>) -> BTreeMap<String, SourceConfig> {
        let mut sources = BTreeMap::new();
        let Some(item) = root.get("source") else {
            self.fault(0, "there is no source; add [source.NAME.postgres] with url and tables");
            return sources;
        };
        let Some(table) = self.table("source.NAME.postgres", item) else { return sources };
        for (name, item) in table {
            let at = name.span().start;
            let name = name.get_ref().to_string();
            if !is_source_name(&name) {
                let message = format!(
                    "source name '{name}': use a-z, 0-9, _ and -, starting with a letter, at most 40"
                );
                self.fault(at, message);
            }
            let Some(of) = self.table(&format!("source.{name}"), item) else { continue };
            self.only(&format!("[source.{name}]"), of, &["postgres", "table"]);
            let Some(postgres) = of.get("postgres") else {
                self.fault(
                    at,
                    format!("source {name} has no database; add [source.{name}.postgres]"),
                );
                continue;
            };
            let place = format!("source.{name}.postgres");
            let Some(postgres) = self.table(&place, postgres) else { continue };
            let per_table = self.tables(&name, of);
            if let Some(source) = self.postgres(&name, at, postgres, per_table) {
                sources.insert(name, source);
            }
        }
        sources
    }

    fn postgres(
        &mut self,
        name: &str,
        at: usize,
        table: &DeTable<'_>,
        per_table: PerTable,
    ) -> Option<SourceConfig> {
        let place = format!("[source.{name}.postgres]");
        let known =
            ["url", "tables", "publication", "slot", "snapshot_connections", "ssl_root_cert"];
        self.only(&place, table, &known);
        let key = |key: &str| format!("source.{name}.postgres.{key}");
        let default = format!("lakeward_{}", name.replace('-', "_"));
        let text = |reader: &mut Self, of: &str| {
            table.get(of).and_then(|item| reader.text(&key(of), item))
        };
        let publication = text(self, "publication").unwrap_or_else(|| default.clone());
        let slot = text(self, "slot").unwrap_or(default);
        let ssl_root_cert = text(self, "ssl_root_cert").map(PathBuf::from);
        let chosen = table.contains_key("slot");
        if chosen
            && !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            let message = format!("{}: '{slot}': Postgres allows a-z, 0-9 and _", key("slot"));
            self.fault(table.get("slot").map_or(at, |item| item.span().start), message);
        }
        let mut snapshot_connections = 2;
        if let Some(item) = table.get("snapshot_connections") {
            let number = item.get_ref().as_integer().and_then(|n| n.as_str().parse().ok());
            match number.filter(|n| (1..=32).contains(n)) {
                Some(number) => snapshot_connections = number,
                None => {
                    let message =
                        format!("{} is a number from 1 to 32", key("snapshot_connections"));
                    self.fault(item.span().start, message);
                }
            }
        }
        let tables = self.filter(&place, &key("tables"), at, table);
        let url = match table.get("url") {
            Some(item) => self.secret(&key("url"), item),
            None => {
                let message = format!(
                    "{place} has no url; write url = \"postgres://user:${{PASSWORD}}@host:5432/db\""
                );
                self.fault(at, message);
                None
            }
        };
        Some(SourceConfig {
            url: url?,
            tables: tables?,
            publication,
            slot,
            snapshot_connections,
            ssl_root_cert,
            text_columns: per_table.text_columns,
            merge: per_table.merge,
        })
    }

    fn filter(
        &mut self,
        place: &str,
        key: &str,
        at: usize,
        table: &DeTable<'_>,
    ) -> Option<Vec<String>> {
        let Some(item) = table.get("tables") else {
            self.fault(at, format!("{place} has no tables; write tables = [\"public.*\"]"));
            return None;
        };
        let patterns = self.texts(key, item);
        let mut sound = !patterns.is_empty();
        if !sound {
            self.fault(item.span().start, format!("{key} is empty; write tables = [\"public.*\"]"));
        }
        for (at, pattern) in &patterns {
            if let Err(error) = TableFilter::parse(&[pattern]) {
                self.fault(*at, format!("{key}: {error}"));
                sound = false;
            }
        }
        sound.then(|| patterns.into_iter().map(|(_, pattern)| pattern).collect())
    }

    fn tables(&mut self, name: &str, of: &DeTable<'_>) -> PerTable {
        let mut found = PerTable::default();
        let Some(item) = of.get("table") else { return found };
        let Some(tables) = self.table(&format!("source.{name}.table"), item) else {
            return found;
        };
        for (key, item) in tables {
            let place = format!("[source.{name}.table.\"{}\"]", key.get_ref());
            let Ok(id) = TableId::try_from(key.get_ref().to_string()) else {
                self.fault(
                    key.span().start,
                    format!("{place}: name the table as \"schema.table\""),
                );
                continue;
            };
            let Some(table) = self.table(&place, item) else { continue };
            self.only(&place, table, &["merge", "text_columns"]);
            if let Some(item) = table.get("merge") {
                let wanted = "\"rewrite\" or \"deletion-vectors\"";
                let merge = self.parsed(&format!("{place} merge"), item, wanted, Merge::parse);
                found.merge.extend(merge.map(|merge| (id.clone(), merge)));
            }
            if let Some(item) = table.get("text_columns") {
                let columns = self.texts(&format!("{place} text_columns"), item);
                let columns = columns.into_iter().map(|(_, column)| column).collect();
                found.text_columns.insert(id, columns);
            }
        }
        found
    }
}

fn is_source_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 40
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// Whether two names differ by one slip: a letter more, less or other, or two swapped.
fn is_near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([x, y, a @ ..], [v, w, b @ ..]) if x == w && y == v && a == b => true,
        ([_, a @ ..], b) if a == b => true,
        (a, [_, b @ ..]) if a == b => true,
        _ => false,
    }
}

/// `500ms`, `5s`, `2m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(factor)?)).filter(|d| !d.is_zero())
}

/// `256MiB`, `1GiB`, `500MB`; bytes.
fn size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: usize = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let shop = &config.sources["shop"];
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
        let merge: Vec<_> = config.sources["shop"].merge.values().collect();
        assert_eq!(merge, [&Merge::DeletionVectors]);
        let found = faults(&of("append"));
        assert_eq!(found[0].0, 5);
        assert!(found[0].1.contains("\"deletion-vectors\""), "{found:?}");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert_eq!(faults("[lake]\nurl = \"x\n").first().map(|f| f.0), Some(2));
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("256MiB"), Some(256 << 20));
        assert_eq!(
            (size("12"), size("MiB"), duration("0s"), duration("5")),
            (None, None, None, None)
        );
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    }
}
