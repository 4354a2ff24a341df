//! MySQL and MariaDB as sources, seen from blocking test code.

use md5::{Digest, Md5};
use std::sync::Mutex;
use std::time::Duration;

use lakeward_connectors::mysql::connection::{Connection, literal, quoted};
use lakeward_connectors::mysql::server::Server as Address;
use lakeward_connectors::secret::Secret;
use serde_json::Value;

use super::compare::SourceTable;
use super::postgres::{Row, block_on, with_database};
use super::reader::LakeRows;
use super::{Res, Server, tag};

/// No statement of a test takes longer; a lock that never ends becomes a failure.
const LIMIT: Duration = Duration::from_secs(120);

pub struct My {
    connection: Mutex<Connection>,
}

impl My {
    pub fn connect(url: &str, database: Option<&str>) -> Res<My> {
        let address = Address::parse(&Secret::new(url), None).map_err(|e| e.full())?;
        let connection = block_on(address.connect()).map_err(|e| e.full())?;
        let my = My { connection: Mutex::new(connection) };
        // What ordinary clients have, and the scripts count on.
        my.exec("SET SESSION sql_mode = DEFAULT, lock_wait_timeout = 60")?;
        match database {
            Some(name) => my.exec(&format!("USE {}", quoted(name))).map(|()| my),
            None => Ok(my),
        }
    }

    pub fn exec(&self, sql: &str) -> Res<()> {
        self.ask(sql, |connection, sql| {
            Box::pin(async move { connection.run("a statement", sql).await.map(|()| Vec::new()) })
        })
        .map(|_| ())
    }

    pub fn rows(&self, sql: &str) -> Res<Vec<Row>> {
        self.ask(sql, |connection, sql| Box::pin(connection.rows("a statement", sql)))
    }

    fn ask(
        &self,
        sql: &str,
        asked: impl for<'a> FnOnce(&'a mut Connection, &'a str) -> Answer<'a>,
    ) -> Res<Vec<Row>> {
        let mut connection = self.connection.lock().expect("no holder panics");
        let answer = async { tokio::time::timeout(LIMIT, asked(&mut connection, sql)).await };
        match block_on(answer) {
            Ok(answer) => answer.map_err(|e| e.full()),
            Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
        }
    }
}

type Answer<'a> =
    std::pin::Pin<Box<dyn Future<Output = lakeward_connectors::Result<Vec<Row>>> + Send + 'a>>;

/// A database of one test, dropped at the end.
pub struct Database {
    pub name: String,
    /// The server's: a source is a server, its tables are named with their database.
    pub url: String,
}

impl Database {
    pub fn create(server: Server, label: &str) -> Res<Database> {
        let url = server.url()?;
        clean_up_after_the_dead(server, &with_database(&url, "")?)?;
        Database::at(&url, label)
    }

    /// On the server that `url` names.
    pub fn at(url: &str, label: &str) -> Res<Database> {
        let url = with_database(url, "")?;
        let name = format!("{}_{}", tag(), label.to_lowercase().replace(['-', ':', '.'], "_"));
        let database = Database { name, url };
        database.drop_now()?;
        let create = format!("CREATE DATABASE {} CHARACTER SET utf8mb4", quoted(&database.name));
        My::connect(&database.url, None)?.exec(&create)?;
        Ok(database)
    }

    pub fn connect(&self) -> Res<My> {
        My::connect(&self.url, Some(&self.name))
    }

    /// By a connection of its own: the server may have crashed since the last one was made.
    pub fn drop_now(&self) -> Res<()> {
        let drop = format!("DROP DATABASE IF EXISTS {}", quoted(&self.name));
        My::connect(&self.url, None)?.exec(&drop)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(e) = self.drop_now() {
            eprintln!("the database {} was left behind: {e}", self.name);
        }
    }
}

/// Drops what test processes that are no longer alive left on the server; once per process.
fn clean_up_after_the_dead(server: Server, url: &str) -> Res<()> {
    static DONE: Mutex<Vec<Server>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().expect("no holder panics");
    if done.contains(&server) {
        return Ok(());
    }
    done.push(server);
    let admin = My::connect(url, None)?;
    for name in admin.rows("SHOW DATABASES LIKE 'lw%'")?.into_iter().flatten().flatten() {
        let pid: String = name[2..].chars().take_while(char::is_ascii_digit).collect();
        let ours = name[2..].starts_with(|c: char| c.is_ascii_digit());
        if ours && !std::path::Path::new("/proc").join(pid).exists() {
            admin.exec(&format!("DROP DATABASE {}", quoted(&name)))?;
        }
    }
    Ok(())
}

/// Column names and types.
fn columns_of(my: &My, schema: &str, table: &str) -> Res<Vec<(String, String)>> {
    let sql = format!(
        "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND BINARY TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        literal(schema),
        literal(table)
    );
    let row = |row: Row| {
        let [name, kind] = <[_; 2]>::try_from(row).ok()?;
        Some((name?, kind?))
    };
    Ok(my.rows(&sql)?.into_iter().filter_map(row).collect())
}

/// The rows of a table, each value in the text of the reader of the lake.
pub fn source_rows(my: &My, schema: &str, table: &str) -> Res<SourceTable> {
    let columns = columns_of(my, schema, table)?;
    my.exec("SET time_zone = '+00:00'")?;
    let texts: Vec<_> = columns.iter().map(|(name, kind)| as_text(&quoted(name), kind)).collect();
    let from = format!("{}.{}", quoted(schema), quoted(table));
    let mut rows = my.rows(&format!("SELECT {} FROM {from}", texts.join(", ")))?;
    for row in &mut rows {
        for (value, (_, kind)) in row.iter_mut().zip(&columns) {
            let float = matches!(word(kind), "float" | "double");
            *value = value.take().map(|text| settled(text, float.then_some(word(kind))));
        }
    }
    Ok(SourceTable { columns: columns.into_iter().map(|(name, _)| name).collect(), rows })
}

fn word(kind: &str) -> &str {
    kind.split(['(', ' ']).next().unwrap_or_default()
}

fn as_text(name: &str, kind: &str) -> String {
    match word(kind) {
        _ if kind == "bit(1)" => format!("IF({name} IS NULL, NULL, IF({name}, 't', 'f'))"),
        // The number's digits, without zeros before them.
        "bit" => {
            let bits = kind.trim_start_matches("bit(").trim_end_matches(')').parse().unwrap_or(1);
            let digits = 2 * usize::div_ceil(bits, 8);
            format!("CONCAT('\\\\x', LPAD(LOWER(HEX({name})), {digits}, '0'))")
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "vector"
        | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geomcollection" | "geometrycollection" => {
            format!("CONCAT('\\\\x', LOWER(HEX({name})))")
        }
        "float" | "double" => format!("CONCAT({name} * 1e0)"),
        "year" | "int" | "bigint" | "smallint" | "mediumint" | "tinyint" => format!("{name} + 0"),
        "decimal" => format!("CONCAT({name})"),
        _ => format!("CONVERT({name} USING utf8mb4)"),
    }
}

/// The text of a value in a form that source and lake share: a float (told by its type) by its
/// value, a moment without zeros at the end of its fraction and without its zone.
fn settled(text: String, float: Option<&str>) -> String {
    if let Some(kind) = float {
        let value = match kind {
            "float" => text.parse::<f32>().ok().map(f64::from),
            _ => text.parse::<f64>().ok(),
        };
        return value.map_or(text, |value| format!("{value:?}"));
    }
    let bytes = text.as_bytes();
    let is_moment = bytes.len() >= 19
        && (bytes[4], bytes[7], bytes[10], bytes[13], bytes[16]) == (b'-', b'-', b' ', b':', b':');
    let plain = text.strip_suffix("+00").unwrap_or(&text);
    match is_moment && plain.contains('.') {
        true => plain.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false if is_moment => plain.to_owned(),
        false => text,
    }
}

/// Rows of the lake with values in the form of [`source_rows`].
pub fn settled_rows(mut lake: LakeRows) -> LakeRows {
    for row in &mut lake.rows {
        for (value, kind) in row.iter_mut().zip(&lake.types) {
            let float = matches!(kind.as_str(), "float" | "double");
            let float = float.then_some(kind.as_str());
            *value = value.take().map(|text| settled(text, float));
        }
    }
    lake
}

/// Whether the source has the rows that were recorded for the case.
pub fn recorded(db: &Database, schema: &str, table: &str, expected: &Value) -> Res<()> {
    let my = db.connect()?;
    my.exec("SET time_zone = '+00:00'")?;
    let from = format!("{}.{}", quoted(schema), quoted(table));
    if let Some(count) = expected["row_count"].as_u64() {
        let have = my.rows(&format!("SELECT COUNT(*) FROM {from}"))?;
        let have = have.into_iter().flatten().flatten().next().unwrap_or_default();
        return same(&count.to_string(), &have, table);
    }
    let columns = columns_of(&my, schema, table)?;
    // As the recorder wrote them: bytes in hex, long values by length and MD5.
    let text = |(name, kind): &(String, String)| {
        let name = quoted(name);
        let hex = [
            "binary",
            "varbinary",
            "tinyblob",
            "blob",
            "mediumblob",
            "longblob",
            "bit",
            "geometry",
            "point",
            "geomcollection",
            "polygon",
        ];
        match hex.contains(&word(kind)) {
            true => format!("CONCAT('0x', HEX({name}))"),
            false => format!("CAST({name} AS CHAR)"),
        }
    };
    let texts: Vec<_> = columns.iter().map(text).collect();
    let have = my.rows(&format!("SELECT {} FROM {from}", texts.join(", ")))?;
    let have = have.into_iter().map(|row| row.into_iter().map(|t| t.map(shortened)).collect());
    let rows = expected["rows"].as_array().ok_or(format!("{table}: no rows recorded"))?;
    let value = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let want =
        rows.iter().map(|row| row.as_array().into_iter().flatten().map(value).collect::<Row>());
    let shown = |row: Row| format!("{row:?}");
    let (mut want, mut have): (Vec<_>, Vec<_>) =
        (want.map(shown).collect(), have.map(shown).collect());
    want.sort();
    have.sort();
    same(&want.join("\n"), &have.join("\n"), table)
}

/// A long value by its length and MD5, which not every server knows.
fn shortened(text: String) -> String {
    match text.chars().count() {
        length if length > 300 => {
            let sum: String =
                Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{\"$len\":{length},\"$md5\":\"{sum}\"}}")
        }
        _ => text,
    }
}

fn same(want: &str, have: &str, table: &str) -> Res<()> {
    if want == have {
        return Ok(());
    }
    Err(format!("{table}: the source differs from the recorded rows:\n{have}\nrecorded:\n{want}"))
}
