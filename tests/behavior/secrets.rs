//! Secrets are never shown: passwords, keys and values that nobody may see are made up, everything that
//! can go wrong goes wrong at the highest level of the log, and whatever the daemon has said, served or
//! written is searched for them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::alert::hook;
use super::planted::Planted;
use crate::support::jobs::Job;
use crate::support::postgres::{Pg, ident, literal, with_database};
use crate::support::scene::{CURRENT, Scene, Test, check, trials};
use crate::support::search::{Secret, Seen};
use crate::support::{Context, Res, Server, Store, tag, until};

const TESTS: &[Test] = &[
    ("are_never_seen", are_never_seen),
    ("a_log_in_that_fails", a_log_in_that_fails),
    ("a_store_that_refuses", a_store_that_refuses),
    ("a_store_that_is_not_there", a_store_that_is_not_there),
];

pub fn jobs(select: &dyn Fn(&str) -> bool) -> Vec<Job> {
    trials("behavior::secrets", TESTS, &[Server::Pg18], select)
}

/// A role of its own password, dropped at the end.
struct Role {
    admin: Pg,
    name: String,
}

impl Role {
    fn new(server: Server, label: &str, password: &Secret) -> Res<Role> {
        let admin = Pg::connect(&with_database(&server.url()?, "postgres")?)?;
        let name = format!("{}_{label}", tag());
        let role = Role { admin, name };
        role.admin.exec(&format!("drop role if exists {}", ident(&role.name)))?;
        role.admin.exec(&format!(
            "create role {} superuser login password {}",
            ident(&role.name),
            literal(&password.text)
        ))?;
        Ok(role)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Err(e) = self.admin.exec(&format!("drop role if exists {}", ident(&self.name))) {
            eprintln!("the role {} was left behind: {e}", self.name);
        }
    }
}

/// The url of a scene's database for another role, the password as it is given.
fn url(scene: &Scene, role: &str, password: &str) -> Res<String> {
    let url = url::Url::parse(&scene.db.url).context("the server's URL")?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(5432));
    Ok(format!("postgres://{role}:{password}@{host}:{port}{}", url.path()))
}

/// A password as it has to stand in a url.
fn encoded(password: &Secret) -> String {
    let bytes = url::form_urlencoded::byte_serialize(password.text.as_bytes());
    bytes.map(|part| part.replace('+', "%20")).collect()
}

/// A file that holds a secret, and what the configuration says instead.
fn in_file(folder: &TempDir, name: &str, text: &str) -> Res<String> {
    let path = folder.path().join(name);
    fs::write(&path, format!("{text}\n")).context(path.display())?;
    Ok(format!("file:{}", path.display()))
}

/// Writes the configuration with other values of some of its keys, and more lines at its end.
fn configure(scene: &Scene, values: &[(&str, &str)], more: &str) -> Res<()> {
    scene.setup.write_config()?;
    let text = fs::read_to_string(scene.setup.config()).context("the configuration")?;
    let line = |line: &str| {
        let value = values.iter().find(|(key, _)| line.starts_with(&format!("{key} = ")));
        value.map_or_else(|| line.to_owned(), |(key, value)| format!("{key} = {value:?}"))
    };
    let lines: Vec<_> = text.lines().map(line).collect();
    let text = format!("{}\n{more}", lines.join("\n"));
    fs::write(scene.setup.config(), text).context("the configuration")
}

/// Keeps what commands say.
fn say(scene: &Scene, seen: &mut Seen, commands: &[&[&str]]) -> Res<()> {
    for command in commands {
        let answer = scene.setup.command(command)?;
        seen.told(format!("{command:?}"), answer.all());
    }
    Ok(())
}

/// Every file below a folder.
fn files(folder: &Path, seen: &mut Seen) -> Res<()> {
    for entry in fs::read_dir(folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        if path.is_dir() {
            files(&path, seen)?;
        } else if path.is_file() {
            let bytes = fs::read(&path).context(path.display())?;
            seen.told(path.display().to_string(), String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}

const LOG: &str = "[log]\nlevel = \"trace\"\nformat = ";

// ---- everything, while it works and while tables stop -------------------------------------------

/// Values of a source, each in a column or row that the lake does without or hides.
struct Values {
    left_out: Secret,
    hashed: Secret,
    dropped: Secret,
    constant: Secret,
    filtered: Secret,
    early: Secret,
    late: Secret,
    ordinary: Secret,
}

impl Values {
    fn new() -> Values {
        Values {
            left_out: Secret::new("a column that is left out"),
            hashed: Secret::new("a column that is hashed"),
            dropped: Secret::new("a column that is dropped"),
            constant: Secret::new("a column behind a constant"),
            filtered: Secret::new("a row that is left out"),
            early: Secret::new("a value left out that doesn't fit, in a snapshot"),
            late: Secret::new("a value left out that doesn't fit, in the log"),
            ordinary: Secret::of_rows("an ordinary value"),
        }
    }

    fn all(&self) -> [&Secret; 8] {
        let Values { left_out, hashed, dropped, constant, .. } = self;
        let Values { filtered, early, late, ordinary, .. } = self;
        [left_out, hashed, dropped, constant, filtered, early, late, ordinary]
    }

    fn sql(&self) -> String {
        let columns = "id int primary key, left_out text, hashed text, dropped text, constant text, \
                       ordinary text";
        let text = |secret: &Secret| literal(&secret.text);
        let values = [
            text(&self.left_out),
            text(&self.hashed),
            text(&self.dropped),
            text(&self.constant),
            text(&self.ordinary),
        ]
        .join(" || g, ");
        let people = |name: &str| {
            format!(
                "create table {name}({columns}); alter table {name} replica identity full; \
                 insert into {name} select g, {values} from generate_series(1, 40) g; "
            )
        };
        // Two dimensions are what the type of an array can't hold.
        let array =
            |secret: &Secret| format!("array[array[{}, 'x'], array['y', 'z']]", text(secret));
        format!(
            "{}{}{} create table filtered(id int primary key, region text, v text); \
             insert into filtered select g, case when g % 2 = 0 then 'eu' else 'us' end, \
                 {} || g from generate_series(1, 40) g; \
             create table differs(id int primary key, ordinary text); \
             insert into differs select g, {} || g from generate_series(1, 40) g; \
             create table early(id int primary key, tags text[]); \
             insert into early values (1, {}); \
             create table late(id int primary key, tags text[]); insert into late values (1, '{{}}')",
            people("people"),
            people("listed"),
            people("waits"),
            text(&self.filtered),
            text(&self.ordinary),
            array(&self.early),
        )
    }

    /// Rows that are changed while the daemon runs, and one that stops its table.
    fn changes(&self) -> String {
        let change = |name: &str| {
            format!(
                "update {name} set left_out = left_out || 'n', hashed = hashed || 'n', \
                     dropped = dropped || 'n', constant = constant || 'n' where id % 3 = 0; \
                 update {name} set id = id + 1000 where id = 4; delete from {name} where id % 5 = 0; "
            )
        };
        let late = literal(&self.late.text);
        format!(
            "{}{}{}insert into late values (7, array[array[{late}, 'x'], array['y', 'z']])",
            change("people"),
            change("listed"),
            change("waits"),
        )
    }
}

const HIDE: &str = "columns = [\"!left_out\"]\n\
    mask = { hashed = \"hash\", dropped = \"drop\", constant = { constant = \"***\" } }";

fn settings() -> [(&'static str, String); 6] {
    [
        ("people", HIDE.to_owned()),
        ("listed", format!("mode = \"append\"\n{HIDE}")),
        ("waits", format!("merge_interval = \"1h\"\n{HIDE}")),
        ("filtered", "rows = \"region = 'none'\"".to_owned()),
        ("early", "columns = [\"!tags\"]".to_owned()),
        ("late", "columns = [\"!tags\"]".to_owned()),
    ]
}

/// Another writer changes, adds and takes away rows.
fn meddle(scene: &Scene) -> Res<()> {
    let mut plan = Planted::none("id");
    plan.missing.extend([2, 3]);
    plan.extra.extend([101, 102]);
    plan.changed.extend([5, 6].map(|id| (id, "ordinary".to_owned())));
    plan.plant(&scene.url("differs"))
}

/// What the daemon's socket answers to one command.
fn control(scene: &Scene, command: &serde_json::Value) -> Res<String> {
    let socket = scene.setup.root().join("state/lakeward.sock");
    let mut stream = UnixStream::connect(&socket).context("the daemon's socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).context("the daemon's socket")?;
    writeln!(stream, "{command}").context("the daemon's socket")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the daemon's socket")?;
    Ok(answer)
}

fn are_never_seen(server: Server) -> Res<()> {
    let [by_variable, by_file] =
        ["a password, by a variable", "a password, by a file"].map(Secret::new);
    let [key_id, token] = ["the name of the S3 key", "the token of the webhook"].map(Secret::plain);
    let [key, mask_key] = ["the S3 key", "the key of hashes"].map(Secret::new);
    let values = Values::new();
    let roles =
        [Role::new(server, "variable", &by_variable)?, Role::new(server, "file", &by_file)?];
    let settings = settings();
    let settings: Vec<_> = settings.iter().map(|(table, lines)| (*table, lines.as_str())).collect();
    let mut scene = Scene::with(server, Store::S3, "secrets", &values.sql(), &settings)?;
    let folder = tempfile::tempdir().context("a folder")?;
    let path = format!("/{}", token.text);
    // reqwest follows the first answer, and says where to.
    let moved = format!("302 Found\r\nlocation: {path}/again");
    let (webhook, bodies) = hook(&path, &[&moved, "503 Later", "503 Later"])?;
    scene.setup.variables = vec![
        ("LAKEWARD_PASSWORD", by_variable.text.clone()),
        ("LAKEWARD_KEY_ID", key_id.text.clone()),
        ("LAKEWARD_HOOK", webhook),
    ];
    scene.setup.mask_key = Some(in_file(&folder, "mask", &mask_key.text)?);
    let key_file = in_file(&folder, "key", &key.text)?;
    let keys = [("access_key_id", "${LAKEWARD_KEY_ID}"), ("secret_access_key", key_file.as_str())];
    let alert = "[alert]\nwebhook = \"${LAKEWARD_HOOK}\"\n";
    scene.setup.sources[0].url = url(&scene, &roles[0].name, "${LAKEWARD_PASSWORD}")?;
    configure(&scene, &keys, &format!("{alert}{LOG}\"text\"\n"))?;

    let mut seen = Seen::default();
    let source = scene.source.clone();
    say(
        &scene,
        &mut seen,
        &[
            &["check"],
            &["check", "--json"],
            &["tables", "--json"],
            &["run", "--until-current", "--json"],
            &["status"],
            &["status", "--json"],
        ],
    )?;
    meddle(&scene)?;
    say(&scene, &mut seen, &[&["verify", &source], &["maintain"]])?;

    let url = url(&scene, &roles[1].name, &encoded(&by_file))?;
    scene.setup.sources[0].url = in_file(&folder, "url", &url)?;
    configure(&scene, &keys, &format!("{alert}{LOG}\"json\"\n"))?;
    let mut daemon = scene.setup.start()?;
    scene.setup.wait_settled(&mut daemon, CURRENT)?;
    scene.pg.exec(&values.changes())?;
    until("late stops", CURRENT, Duration::from_millis(200), || {
        Ok((scene.state("late")?.0 == "stopped").then_some(()))
    })?;
    say(
        &scene,
        &mut seen,
        &[
            &["snapshot", &source, "public.people"],
            &["snapshot", &source, "public.early"],
            &["verify", &source, "--json", "--repair"],
            &["verify", &source, "public.late"],
            &["status", "--json"],
        ],
    )?;
    for command in [
        json!({ "do": "verify", "source": source, "table": "public.late" }),
        json!({ "do": "snapshot", "source": source, "table": "public.nobody" }),
        json!({ "do": "nothing" }),
    ] {
        seen.told(format!("the socket, asked {command}"), control(&scene, &command)?);
    }
    for page in ["/", "/page.js", "/api/status", "/metrics", "/health", "/nothing"] {
        seen.told(page, scene.setup.ask(page)?);
    }
    for table in ["people", "late", "early"] {
        let page = format!("/api/tables/{source}/public.{table}");
        seen.told(page.clone(), scene.setup.ask(&page)?);
    }
    let wait = Duration::from_secs(60);
    while !seen.says("public.late is stopped") {
        seen.told("the webhook", bodies.recv_timeout(wait).context("no message")?);
    }
    daemon.stop(&scene.setup)?;

    seen.told("the log", scene.setup.log_text()?);
    files(&scene.setup.root().join("state"), &mut seen)?;
    for (path, bytes) in scene.setup.lake.everything()? {
        seen.file(&path, &bytes)?;
    }
    let secrets = [&by_variable, &by_file, &key_id, &key, &token, &mask_key];
    seen.search(&[&secrets[..], &values.all()].concat())?;
    only_our_details(&scene.setup.log_text()?)?;
    // It finds what is there, and there was much to find.
    check(seen.rows_hold(&values.ordinary), || "no row of the lake was seen".to_owned())?;
    for part in [
        "column tags of row id=1 holds a value that is not shown",
        "column tags of row id=7 holds a value that is not shown",
        "2 missing, 2 only in the lake, 2 with other values",
        "\"roster\"",
        "\"tables\":{\"public.differs",
        "lakeward_rows{",
    ] {
        check(seen.says(part), || format!("nothing says {part}"))?;
    }
    Ok(())
}

/// Below `info` libraries say nothing: their statements have keys in them, their headers tokens.
fn only_our_details(log: &str) -> Res<()> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let details = lines.filter(|line| line["level"] == "DEBUG" || line["level"] == "TRACE");
    let mut ours = 0;
    for line in details {
        let target = line["target"].as_str().unwrap_or_default();
        check(target.starts_with("lakeward"), || format!("a library says {line}"))?;
        ours += 1;
    }
    check(ours > 0, || "the log tells no details".to_owned())
}

// ---- what others refuse -------------------------------------------------------------------------

const TABLE: &str = "create table t(id int primary key, v text); insert into t values (1, 'a')";

/// Keeps what a daemon says that is started, has some seconds, and is killed.
fn run_a_while(scene: &Scene, seen: &mut Seen) -> Res<()> {
    let mut daemon = scene.setup.start()?;
    daemon.wait(Duration::from_secs(4))?;
    for page in ["/api/status", "/metrics", "/health"] {
        // One whose only source has failed is gone.
        seen.told(page, scene.setup.ask(page).unwrap_or_default());
    }
    daemon.kill()?;
    seen.told("the log", scene.setup.log_text()?);
    Ok(())
}

fn a_log_in_that_fails(server: Server) -> Res<()> {
    let [right, wrong, by_file] =
        ["the right password", "a wrong one", "a wrong one in a file"].map(Secret::new);
    let role = Role::new(server, "refused", &right)?;
    let mut scene = Scene::new(server, Store::Local, "log_in", TABLE)?;
    let folder = tempfile::tempdir().context("a folder")?;
    scene.setup.variables = vec![("LAKEWARD_PASSWORD", wrong.text.clone())];
    let mut seen = Seen::default();
    let in_url = url(&scene, &role.name, &encoded(&by_file))?;
    // One that can't be read, for its port.
    let broken = format!("postgres://{}:{}@host:port/db", role.name, encoded(&by_file));
    for url in [
        url(&scene, &role.name, "${LAKEWARD_PASSWORD}")?,
        in_file(&folder, "url", &in_url)?,
        in_file(&folder, "broken", &broken)?,
    ] {
        scene.setup.sources[0].url = url;
        configure(&scene, &[], &format!("{LOG}\"text\"\n"))?;
        say(
            &scene,
            &mut seen,
            &[
                &["check"],
                &["check", "--json"],
                &["tables"],
                &["run", "--until-current", "--json"],
                &["verify", &scene.source],
                &["remove", &scene.source, "--drop-slot"],
            ],
        )?;
        run_a_while(&scene, &mut seen)?;
    }
    seen.search(&[&right, &wrong, &by_file])?;
    check(seen.says("check user and password"), || "no log-in failed".to_owned())?;
    check(seen.says("the source's url can't be read"), || "no url was broken".to_owned())
}

/// A store that answers every request with a refusal that repeats all of the request.
fn mirror() -> Res<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
    let address = listener.local_addr().context("a port")?;
    std::thread::spawn(move || -> std::io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut part)? {
                    0 => break,
                    read => request.extend_from_slice(&part[..read]),
                }
            }
            let request = String::from_utf8_lossy(&request);
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The \
                 request is refused</Message><CanonicalRequest>{request}</CanonicalRequest></Error>"
            );
            write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )?;
            stream.shutdown(Shutdown::Both)?;
        }
    });
    Ok(format!("http://{address}"))
}

/// A scene whose store is at `endpoint`, and its secrets.
fn elsewhere(server: Server, label: &str, endpoint: &str) -> Res<(Scene, [Secret; 3])> {
    let [id, session] = ["the name of the S3 key", "the token of the session"].map(Secret::plain);
    let key = Secret::new("the S3 key");
    let mut scene = Scene::new(server, Store::S3, label, TABLE)?;
    scene.setup.variables = vec![
        ("LAKEWARD_KEY_ID", id.text.clone()),
        ("LAKEWARD_KEY", key.text.clone()),
        ("AWS_SESSION_TOKEN", session.text.clone()),
    ];
    let values = [
        ("endpoint", endpoint),
        ("access_key_id", "${LAKEWARD_KEY_ID}"),
        ("secret_access_key", "${LAKEWARD_KEY}"),
    ];
    configure(&scene, &values, &format!("{LOG}\"text\"\n"))?;
    Ok((scene, [id, key, session]))
}

fn a_store_that_refuses(server: Server) -> Res<()> {
    let (scene, secrets) = elsewhere(server, "refusing", &mirror()?)?;
    let mut seen = Seen::default();
    say(
        &scene,
        &mut seen,
        &[&["check"], &["check", "--json"], &["status"], &["maintain"], &["remove", &scene.source]],
    )?;
    run_a_while(&scene, &mut seen)?;
    seen.search(&secrets.each_ref())?;
    for part in ["SignatureDoesNotMatch: The request is refused", "lakeward_source_up{"] {
        check(seen.says(part), || format!("nothing says {part}"))?;
    }
    Ok(())
}

fn a_store_that_is_not_there(server: Server) -> Res<()> {
    let (scene, secrets) = elsewhere(server, "unreachable", "http://127.0.0.1:1")?;
    let mut seen = Seen::default();
    say(&scene, &mut seen, &[&["check"], &["status", "--json"]])?;
    run_a_while(&scene, &mut seen)?;
    seen.search(&secrets.each_ref())?;
    check(seen.says("the lake's store failed to list"), || "the store was there".to_owned())
}
