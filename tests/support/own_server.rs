//! A server of one test's own, which may be crashed without disturbing the others.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Context, Res, Server};

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
        own.call("start")?;
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
/// else may take its port (Linux gives those from 32768 on, `ip_local_port_range`).
fn free_port() -> Res<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut tried = std::iter::repeat_with(|| fastrand::u16(27_000..32_000)).take(100);
    tried.find(free).ok_or_else(|| "no free port from 27000 to 32000".to_owned())
}
