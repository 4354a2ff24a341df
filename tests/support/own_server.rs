//! A server of one test's own, which may be crashed without disturbing the others.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tempfile::TempDir;

use super::{Context, Res, Server};

/// The ports of own servers.
const FIRST_PORT: u16 = 27_000;
const PORTS: u16 = 5_000;

/// Run by `tests/servers` on data of its own; stopped and deleted on drop.
pub struct OwnServer {
    server: Server,
    data: TempDir,
    port: u16,
    /// Of its administrator.
    pub url: String,
}

impl OwnServer {
    pub fn start(server: Server) -> Res<OwnServer> {
        let data = tempfile::Builder::new().prefix("lakeward-server-").tempdir();
        let data = data.context("a temporary folder")?;
        let mut own = OwnServer { server, data, port: free_port()?, url: String::new() };
        let mut started = own.call("start");
        // Another program may have taken the port since it was found free.
        if started.as_ref().is_err_and(|e| e.contains("is taken")) {
            own.port = free_port()?;
            started = own.call("start");
        }
        started?;
        let said = own.call("env")?;
        own.url = said.split('\'').nth(1).ok_or("tests/servers env says no URL")?.to_owned();
        Ok(own)
    }

    /// kill -9, and a start that recovers.
    pub fn crash(&self) -> Res<()> {
        self.call("crash")?;
        self.call("start").map(|_| ())
    }

    fn call(&self, command: &str) -> Res<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        let name = self.server.name();
        let port = format!("{}_PORT", name.to_uppercase());
        let mut run = Command::new("timeout");
        run.arg("300").arg(script).args([command, name]);
        run.env("SERVERS_DATA", self.data.path()).env(port, self.port.to_string());
        run.stdin(Stdio::null());
        let output = run.output().context("tests/servers")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("tests/servers {command} {name}: {}: {said}", output.status))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Err(e) = self.call("purge") {
            eprintln!("a server may be left running: {e}");
        }
    }
}

/// Not one that the system gives to whoever asks for any: while the server has crashed, nobody
/// else may take its port (Linux gives those from 32768 on, `ip_local_port_range`). Nor one that a
/// test of this process was given: its server may not listen yet.
fn free_port() -> Res<u16> {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..PORTS)));
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let next = || FIRST_PORT + NEXT.fetch_add(1, Relaxed) % PORTS;
    let found = std::iter::repeat_with(next).take(100).find(free);
    found.ok_or_else(|| format!("no free port from {FIRST_PORT} on, of {PORTS}"))
}
