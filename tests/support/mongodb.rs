//! A MongoDB source seen from blocking test code: scripts that write (`case.py`), and the
//! comparison with the lake (`mongo_compare.py`), both in the driver of another language.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::daemon::Setup;
use super::own_server::OwnServer;
use super::{Context, Res, Server, reader, tail, variable};

thread_local! {
    /// The stand-in that this thread's tests use, and how many have used it.
    static OWN: RefCell<Option<(OwnServer, usize)>> = const { RefCell::new(None) };
}

/// So many jobs use one stand-in: it looks through all it has ever done when a change stream starts.
const JOBS: usize = 5;

/// Sees to it that this thread has a stand-in that has not done much yet.
pub fn refresh() -> Res<()> {
    if is_real() {
        return Ok(());
    }
    OWN.with_borrow_mut(|own| {
        match own.take_if(|(_, jobs)| *jobs < JOBS) {
            Some((server, jobs)) => *own = Some((server, jobs + 1)),
            None => {
                // The one before is gone first.
                *own = None;
                *own = Some((OwnServer::start(Server::Mongo)?, 1));
            }
        }
        Ok(())
    })
}

/// The server: a replica set of the user's, or else this thread's stand-in, or that of the servers'
/// script.
pub fn url() -> Res<String> {
    let own = OWN.with_borrow(|own| own.as_ref().map(|(server, _)| server.url.clone()));
    match own {
        Some(url) => Ok(url),
        None => {
            variable("LAKEWARD_TEST_MONGODB_URL").or_else(|_| variable("LAKEWARD_TEST_MONGO_URL"))
        }
    }
}

/// Whether the server is MongoDB itself.
pub fn is_real() -> bool {
    std::env::var_os("LAKEWARD_TEST_MONGODB_URL").is_some()
}

/// A Python that has pymongo.
fn python() -> Res<PathBuf> {
    variable("LAKEWARD_TEST_PYMONGO").map(PathBuf::from)
}

/// A script at work, which waits at the end of its first phase.
pub struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub database: String,
}

impl Script {
    /// Starts the script at `path` in a database of its own, and waits until its first phase is done.
    pub fn start(path: &Path, database: &str) -> Res<Script> {
        let mut command = Command::new(python()?);
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        // By its path, so that a script called as a module of Python's (`types`) doesn't hide it.
        let program = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')";
        command
            .args(["-c", program])
            .arg(path)
            .env("PYTHONPATH", shared)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("MONGO_URL", url()?).env("MONGO_DATABASE", database);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context(path.display())?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("the script has no output")?);
        let mut script = Script { child, input, output, database: database.to_owned() };
        match script.line()?.as_str() {
            "phase live" => Ok(script),
            other => Err(format!("the script said {other:?} where its live phase begins")),
        }
    }

    /// The next line that is not a remark of the script's own.
    fn line(&mut self) -> Res<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).context("the script's output")? == 0 {
                return Err("the script ended early".to_owned());
            }
            let line = line.trim_end();
            if line.starts_with("phase ") || line.starts_with('{') {
                return Ok(line.to_owned());
            }
        }
    }

    /// Runs the second phase; returns what the script says at its end.
    pub fn finish(&mut self) -> Res<Value> {
        let mut input = self.input.take().ok_or("the script has ended")?;
        writeln!(input, "go on").context("the script's input")?;
        let line = self.line()?;
        let status = self.child.wait().context("the script")?;
        if !status.success() {
            return Err(format!("the script ended with {status}"));
        }
        serde_json::from_str(&line).context("the script's end")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Ended long ago, unless its test has failed.
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a script may be left running: {e}");
        }
        if let Err(e) = drop_database(&self.database) {
            eprintln!("the database {} was left behind: {e}", self.database);
        }
    }
}

fn drop_database(name: &str) -> Res<()> {
    let program = "import os, pymongo; \
                   pymongo.MongoClient(os.environ['MONGO_URL']).drop_database(os.environ['NAME'])";
    let mut command = Command::new(python()?);
    command.args(["-c", program]).env("MONGO_URL", url()?).env("NAME", name);
    let status = command.status().context("dropping a database")?;
    if status.success() { Ok(()) } else { Err(format!("python ended with {status}")) }
}

/// Whether the tables of `source` equal these collections of `database` of the server at `url`.
pub fn equal(
    url: &str,
    setup: &Setup,
    source: &str,
    database: &str,
    collections: &[String],
) -> Res<()> {
    let mut tables = serde_json::Map::new();
    for name in collections {
        let rows = reader::read(&setup.lake.table_url(source, database, name))?;
        let rows = rows
            .map(|lake| json!({ "columns": lake.columns, "types": lake.types, "rows": lake.rows }));
        tables.insert(name.clone(), rows.unwrap_or(Value::Null));
    }
    let asked = json!({ "url": url, "database": database, "tables": tables });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/mongo_compare.py");
    let mut command = Command::new(python()?);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting the comparison")?;
    let mut input = child.stdin.take().ok_or("the comparison has no input")?;
    input.write_all(asked.to_string().as_bytes()).context("the comparison's input")?;
    drop(input);
    let output = child.wait_with_output().context("the comparison")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            tail(&String::from_utf8_lossy(&output.stderr), 10)
        )),
    }
}
