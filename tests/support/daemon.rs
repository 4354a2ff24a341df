//! The real binary: its configuration, its processes, its log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::lake::Lake;
use super::status::Status;
use super::{Context, Res, Server, Store, tail, until};

/// The promise: SIGTERM flushes, commits and ends within this.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One `[source.NAME]` of the configuration.
#[derive(Clone)]
pub struct Source {
    pub name: String,
    pub url: String,
    pub tables: Vec<String>,
    /// (`schema.table`, columns)
    pub text_columns: Vec<(String, Vec<String>)>,
    /// (`schema.table`, a line of its section)
    pub settings: Vec<(String, String)>,
    /// Lines of the source's own section.
    pub policy: String,
}

impl Source {
    pub fn new(name: &str, url: &str) -> Source {
        let tables = vec!["public.*".to_owned()];
        let (name, url) = (name.to_owned(), url.to_owned());
        let policy = String::new();
        Source { name, url, tables, text_columns: Vec::new(), settings: Vec::new(), policy }
    }

    /// All collections of `database`.
    pub fn mongodb(name: &str, url: &str, database: &str) -> Source {
        let tables = vec![format!("{database}.*")];
        Source { tables, ..Source::new(name, url) }
    }

    pub fn slot(&self) -> String {
        format!("lakeward_{}", self.name)
    }
}

/// A configuration, a lake, a state directory and a log in one temporary folder.
pub struct Setup {
    dir: Option<TempDir>,
    root: PathBuf,
    pub lake: Lake,
    pub sources: Vec<Source>,
    flush: &'static str,
    /// The key of masks.
    pub mask_key: Option<String>,
    /// Words before the binary, e.g. a namespace to run it in.
    pub wrapper: Vec<String>,
    /// Variables of the binary's environment.
    pub variables: Vec<(&'static str, String)>,
}

impl Setup {
    pub fn new(store: Store, label: &str, sources: Vec<Source>) -> Res<Setup> {
        let dir = tempfile::Builder::new().prefix("lakeward-test-").tempdir();
        let dir = dir.context("a temporary folder")?;
        let root = dir.path().to_owned();
        let lake = Lake::new(store, &root.join("lake"), label)?;
        let setup = Setup {
            dir: Some(dir),
            root,
            lake,
            sources,
            flush: "200ms",
            mask_key: None,
            wrapper: Vec::new(),
            variables: Vec::new(),
        };
        setup.write_config()?;
        Ok(setup)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    fn log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    pub fn write_config(&self) -> Res<()> {
        let mut toml = format!(
            "[lake]\nurl = {:?}\nflush_interval = {:?}\nmemory = \"64MiB\"\nstate_dir = {:?}\n",
            self.lake.url,
            self.flush,
            self.root.join("state")
        );
        if let Some(key) = &self.mask_key {
            toml.push_str(&format!("mask_key = {key:?}\n"));
        }
        if let Some(s3) = self.lake.s3_config()? {
            toml.push_str(&s3);
        }
        toml.push_str("[http]\nlisten = \"127.0.0.1:0\"\n");
        for source in &self.sources {
            write_source(&mut toml, source);
        }
        fs::write(self.config(), toml).context("writing the configuration")
    }

    /// Deletes the caches; nothing may be lost by it.
    pub fn forget_state(&self) -> Res<()> {
        match fs::remove_dir_all(self.root.join("state")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("deleting the state directory: {e}"))
            }
            _ => Ok(()),
        }
    }

    fn spawn(&self, arguments: &[&str]) -> Res<Daemon> {
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.context("the log file")?;
        let error = log.try_clone().context("the log file")?;
        let mut command = self.binary();
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(error);
        let child = command.spawn().context("starting lakeward")?;
        Ok(Daemon { child, ended: None })
    }

    fn binary(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_lakeward");
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.env("RUST_BACKTRACE", "1").env("NO_COLOR", "1").current_dir(&self.root);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `lakeward run`
    pub fn start(&self) -> Res<Daemon> {
        let config = self.config();
        self.spawn(&["run", "--config", &config.to_string_lossy()])
    }

    /// `lakeward run --until-current`, which has to end well.
    pub fn run_until_current(&self, limit: Duration) -> Res<()> {
        let config = self.config();
        let mut run =
            self.spawn(&["run", "--config", &config.to_string_lossy(), "--until-current"])?;
        match run.wait(limit)? {
            Some(status) if status.success() => Ok(()),
            // A table that stopped is told by the exit status too; which one may, the trial says.
            Some(status) if status.code() == Some(1) && self.status()?.has_stopped() => Ok(()),
            Some(status) => {
                Err(format!("run --until-current ended with {status}\n{}", self.tail()))
            }
            None => {
                run.kill()?;
                let status = self.status().map(|s| s.lines()).unwrap_or_else(|e| e);
                let limit = limit.as_secs();
                Err(format!("run --until-current took over {limit} s\n{status}{}", self.tail()))
            }
        }
    }

    /// `lakeward verify SOURCE`, by the running daemon: it may find no difference.
    pub fn verified(&self, source: &str) -> Res<()> {
        let answer = self.command(&["verify", source, "--json"])?;
        match answer.code {
            Some(0) => Ok(()),
            // All tables are gone or refused.
            _ if answer.stderr.contains("nothing was compared") => Ok(()),
            _ => Err(format!("verify {source}: {}\n{}", answer.all(), self.tail())),
        }
    }

    /// What the running daemon answers on its port: head and body.
    pub fn ask(&self, path: &str) -> Res<String> {
        let log = self.log_text()?;
        let at = log.rsplit("status page at http://").next().unwrap_or_default();
        let at = at.split('/').next().unwrap_or_default();
        let mut stream = TcpStream::connect(at).context(format!("the daemon's port {at:?}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).context("the daemon's port")?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")
            .context(path)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context(path)?;
        Ok(answer)
    }

    /// Another command of the binary, with its output; it has to end within a minute.
    pub fn command(&self, arguments: &[&str]) -> Res<Answer> {
        let out = self.root.join("command.out");
        let err = self.root.join("command.err");
        let create = |path: &Path| File::create(path).context("a command's output");
        let mut command = self.binary();
        command.args(arguments).args(["--config", &self.config().to_string_lossy()]);
        command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
        let mut child =
            Daemon { child: command.spawn().context("starting lakeward")?, ended: None };
        let Some(status) = child.wait(Duration::from_secs(60))? else {
            child.kill()?;
            return Err(format!("lakeward {arguments:?} did not end within a minute"));
        };
        let read = |path: &Path| fs::read_to_string(path).context("a command's output");
        Ok(Answer { code: status.code(), stdout: read(&out)?, stderr: read(&err)? })
    }

    pub fn status(&self) -> Res<Status> {
        let answer = self.command(&["status", "--json"])?;
        let value = serde_json::from_str(&answer.stdout).map_err(|e| {
            format!("status --json: {e}; exit {:?}; {}", answer.code, tail(&answer.stderr, 5))
        })?;
        Ok(Status::parse(&value))
    }

    /// Waits until no table of the running daemon is on its way any more.
    pub fn wait_settled(&self, daemon: &mut Daemon, limit: Duration) -> Res<()> {
        let mut last = String::new();
        let settled = until("every table live", limit, Duration::from_millis(150), || {
            if let Some(status) = daemon.poll()? {
                return Err(format!("the daemon ended by itself with {status}"));
            }
            // Before the first epoch there may be no status yet.
            match self.status() {
                Ok(s) if self.sources.iter().all(|source| s.settled(&source.name)) => Ok(Some(())),
                Ok(s) => {
                    last = s.lines();
                    Ok(None)
                }
                Err(e) => {
                    last = e;
                    Ok(None)
                }
            }
        });
        settled.map_err(|e| format!("{e}\n{last}\n{}", self.tail()))
    }

    pub fn log_text(&self) -> Res<String> {
        fs::read_to_string(self.log()).context("the daemon's log")
    }

    pub fn tail(&self) -> String {
        let text = self.log_text().map(|t| tail(&t, 40)).unwrap_or_else(|e| e);
        format!("--- log of the daemon, {}\n{text}\n---", self.log().display())
    }

    /// Leaves the folder on disk for whoever looks into a failure.
    pub fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            let _kept: PathBuf = dir.keep();
        }
    }
}

fn write_source(toml: &mut String, source: &Source) {
    let Source { name, url, tables, .. } = source;
    let kinds = ["mysql", "mongodb"];
    let kind = kinds.into_iter().find(|kind| url.starts_with(kind)).unwrap_or("postgres");
    write!(toml, "\n[source.{name}.{kind}]\nurl = {url:?}\ntables = {tables:?}\n")
        .expect("a String takes all");
    let mut settings: BTreeMap<&str, String> = BTreeMap::new();
    for (table, columns) in &source.text_columns {
        *settings.entry(table).or_default() += &format!("text_columns = {columns:?}\n");
    }
    for (table, line) in &source.settings {
        *settings.entry(table).or_default() += &format!("{line}\n");
    }
    if !source.policy.is_empty() {
        write!(toml, "[source.{name}]\n{}\n", source.policy).expect("a String takes all");
    }
    for (table, lines) in settings {
        write!(toml, "[source.{name}.table.{table:?}]\n{lines}").expect("a String takes all");
    }
}

/// What a command of the binary answered.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// A running daemon; killed by its pid if a test forgets it.
pub struct Daemon {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Daemon {
    pub fn poll(&mut self) -> Res<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("waiting for lakeward")?;
        }
        Ok(self.ended)
    }

    pub fn wait(&mut self, limit: Duration) -> Res<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        while self.poll()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.poll()
    }

    /// kill -9
    pub fn kill(&mut self) -> Res<()> {
        if self.poll()?.is_none() {
            self.child.kill().context("kill -9")?;
            self.ended = Some(self.child.wait().context("waiting for lakeward")?);
        }
        Ok(())
    }

    /// SIGTERM; it must flush and end well within the promised time.
    pub fn stop(&mut self, setup: &Setup) -> Res<()> {
        if let Some(status) = self.poll()? {
            return Err(format!("the daemon ended by itself with {status}\n{}", setup.tail()));
        }
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().context("kill -TERM")?;
        if !sent.success() {
            return Err(format!("kill -TERM {pid}: {sent}"));
        }
        match self.wait(STOP_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("after SIGTERM: {status}\n{}", setup.tail())),
            None => {
                self.kill()?;
                let limit = STOP_LIMIT.as_secs();
                Err(format!("SIGTERM did not end the daemon in {limit} s\n{}", setup.tail()))
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(e) = self.kill() {
            eprintln!("a daemon may be left running: {e}");
        }
    }
}

/// How long the name of a source may be.
const LONGEST_NAME: usize = 40;

/// The name of a source for a case, unique on its server: slots live in one namespace.
pub fn source_name(server: Server, label: &str) -> String {
    let label = label.to_lowercase().replace(['-', ':', '.'], "_");
    let name = format!("{}_{}_{label}", super::tag(), server.name());
    if name.len() <= LONGEST_NAME {
        return name;
    }
    // What is cut off must not make two names one.
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&name, &mut hasher);
    let hash = std::hash::Hasher::finish(&hasher) as u32;
    format!("{}_{hash:08x}", &name[..LONGEST_NAME - 9])
}
