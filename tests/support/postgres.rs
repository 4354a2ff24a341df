//! Connections to the source, seen from blocking test code.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Context, Res, Server, tag, until};

pub type Row = Vec<Option<String>>;

/// No statement of a test takes longer; a lock that never ends becomes a failure.
const LIMIT: Duration = Duration::from_secs(120);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a tokio runtime")
    })
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// The server's own words, without the wrapper that hides them.
pub fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

pub struct Pg {
    client: Arc<Client>,
}

/// A statement that was sent and may be waiting for a lock.
pub struct Pending(JoinHandle<Res<()>>);

impl Pg {
    pub fn connect(url: &str) -> Res<Pg> {
        block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls)
                .await
                .map_err(|e| format!("connecting to the test server: {}", said(&e)))?;
            runtime().spawn(async move {
                // A lost connection shows in the statement that uses it, and a database is
                // dropped by force at the end of its test; anything else is worth a line.
                if let Err(e) = connection.await
                    && e.code() != Some(&tokio_postgres::error::SqlState::ADMIN_SHUTDOWN)
                {
                    eprintln!("test connection ended: {}", said(&e));
                }
            });
            Ok(Pg { client: Arc::new(client) })
        })
    }

    /// A connection on which every value prints in one form, the one the comparison uses.
    pub fn pinned(url: &str) -> Res<Pg> {
        let pg = Pg::connect(url)?;
        pg.exec(
            "set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; \
             set bytea_output = 'hex'; set extra_float_digits = 1",
        )?;
        Ok(pg)
    }

    pub fn exec(&self, sql: &str) -> Res<()> {
        self.query(sql).map(|_| ())
    }

    /// Every row of the answer, each value in the text of its type's output function.
    pub fn rows(&self, sql: &str) -> Res<Vec<Row>> {
        let rows = self.query(sql)?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    pub fn text(&self, sql: &str) -> Res<Option<String>> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    fn query(&self, sql: &str) -> Res<Vec<SimpleQueryMessage>> {
        let answer = async { tokio::time::timeout(LIMIT, self.client.simple_query(sql)).await };
        match block_on(answer) {
            Ok(answer) => answer.map_err(|e| said(&e)),
            Err(_) => Err(format!("no answer in {} s", LIMIT.as_secs())),
        }
    }

    pub fn send(&self, sql: String) -> Pending {
        let client = self.client.clone();
        Pending(runtime().spawn(async move {
            client.simple_query(&sql).await.map(|_| ()).map_err(|e| said(&e))
        }))
    }
}

impl Pending {
    pub fn wait(self, limit: Duration) -> Res<()> {
        match block_on(async { tokio::time::timeout(limit, self.0).await }) {
            Ok(joined) => joined.context("the sending task")?,
            Err(_) => Err("an asynchronous statement is still blocked".to_owned()),
        }
    }
}

pub fn with_database(server_url: &str, database: &str) -> Res<String> {
    let mut url = url::Url::parse(server_url).context("the server's URL")?;
    url.set_path(&format!("/{database}"));
    Ok(url.into())
}

pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A database of one test, dropped with its slots at the end.
pub struct Database {
    pub server: Server,
    pub name: String,
    pub url: String,
    admin: Pg,
}

impl Database {
    pub fn create(server: Server, label: &str, options: &str) -> Res<Database> {
        let server_url = server.url()?;
        clean_up_after_the_dead(server)?;
        let name = format!("{}_{}", tag(), label.to_lowercase().replace(['-', ':', '.'], "_"));
        let admin = Pg::connect(&with_database(&server_url, "postgres")?)?;
        let url = with_database(&server_url, &name)?;
        let database = Database { server, name, url, admin };
        database.drop_now()?;
        database.admin.exec(&format!("create database {} {options}", ident(&database.name)))?;
        Ok(database)
    }

    pub fn connect(&self) -> Res<Pg> {
        Pg::pinned(&self.url)
    }

    /// Ends whoever uses the slot and drops it; a slot that isn't there is fine.
    pub fn drop_slot(&self, slot: &str) -> Res<()> {
        drop_slot(&self.admin, slot)
    }

    pub fn slots(&self) -> Res<Vec<String>> {
        slots_of(&self.admin, &self.name)
    }

    pub fn drop_now(&self) -> Res<()> {
        drop_database(&self.admin, self.server, &self.name)
    }

    pub fn admin(&self) -> &Pg {
        &self.admin
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(e) = self.drop_now() {
            eprintln!("the database {} was left behind: {e}", self.name);
        }
    }
}

fn slots_of(admin: &Pg, database: &str) -> Res<Vec<String>> {
    let sql = format!(
        "select slot_name from pg_replication_slots where database = {}",
        literal(database)
    );
    Ok(admin.rows(&sql)?.into_iter().flatten().flatten().collect())
}

fn drop_slot(admin: &Pg, slot: &str) -> Res<()> {
    let name = literal(slot);
    let limit = Duration::from_secs(20);
    until(&format!("dropping the slot {slot}"), limit, Duration::from_millis(20), || {
        admin.exec(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots \
             where slot_name = {name} and active_pid is not null"
        ))?;
        match admin.exec(&format!("select pg_drop_replication_slot({name})")) {
            Ok(()) => Ok(Some(())),
            Err(e) if e.contains("does not exist") => Ok(Some(())),
            Err(e) if e.contains("is active") => Ok(None),
            Err(e) => Err(e),
        }
    })
}

fn drop_database(admin: &Pg, server: Server, name: &str) -> Res<()> {
    for slot in slots_of(admin, name)? {
        drop_slot(admin, &slot)?;
    }
    roll_back_prepared(admin, server, name)?;
    admin.exec(&format!("drop database if exists {} with (force)", ident(name)))
}

/// A prepared transaction can be ended only from its own database, and keeps it from being dropped.
fn roll_back_prepared(admin: &Pg, server: Server, database: &str) -> Res<()> {
    let sql = format!("select gid from pg_prepared_xacts where database = {}", literal(database));
    let gids: Vec<String> = admin.rows(&sql)?.into_iter().flatten().flatten().collect();
    if gids.is_empty() {
        return Ok(());
    }
    let own = Pg::connect(&with_database(&server.url()?, database)?)?;
    gids.iter().try_for_each(|gid| own.exec(&format!("rollback prepared {}", literal(gid))))
}

/// Drops what test processes that are no longer alive left on the server; once per process.
fn clean_up_after_the_dead(server: Server) -> Res<()> {
    static DONE: Mutex<Vec<Server>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().expect("no holder panics");
    if done.contains(&server) {
        return Ok(());
    }
    done.push(server);
    let admin = Pg::connect(&with_database(&server.url()?, "postgres")?)?;
    // A test may have died between setting and resetting this; then every commit would hang.
    admin.exec("set synchronous_commit = local")?;
    let names = admin.rows("select datname from pg_database where datname ~ '^lw[0-9]+_'")?;
    for name in names.into_iter().flatten().flatten() {
        let pid = name[2..].split('_').next().unwrap_or_default();
        if !std::path::Path::new("/proc").join(pid).exists() {
            admin.exec("alter system reset synchronous_standby_names")?;
            admin.exec("select pg_reload_conf()")?;
            drop_database(&admin, server, &name)?;
        }
    }
    Ok(())
}
