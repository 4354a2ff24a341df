//! Where the server is, and how connections to it are made: TLS, logging in, the settings that every
//! one of them has (MySQL documentation, "Connection Phase").

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::connection::{Connection, Flavor};
use super::fault::{self, Reply};
use super::input::Input;
use super::login;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::socket::{Socket, Tcp, tune};
use crate::tls::{self, Verify};

const CONNECT: Duration = Duration::from_secs(10);
const LOGIN: Duration = Duration::from_secs(20);

/// What this client understands ("Capabilities Flags"): long passwords and flags, protocol 4.1,
/// transactions, authentication by plugins, connection attributes.
const CAPABILITIES: u32 = 0x1 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x8_0000 | 0x10_0000 | 0x20_0000;
const CAN_ENCRYPT: u32 = 0x800;
const HAS_PLUGINS: u32 = 0x8_0000;
/// `utf8mb4_general_ci`.
const UTF8MB4: u8 = 45;

/// Settings that decide what statements mean and how values are written: the same on every
/// connection, whatever the server or the user has.
const PINNED: &str = "SET NAMES utf8mb4, SESSION time_zone = '+00:00', SESSION sql_mode = '', \
    SESSION autocommit = 1, SESSION sql_select_limit = 18446744073709551615, \
    SESSION sql_big_selects = 1, SESSION sql_auto_is_null = 0, SESSION lock_wait_timeout = 10, \
    SESSION net_write_timeout = 600, SESSION wait_timeout = 86400";

/// A server as the configuration names it.
#[derive(Clone)]
pub struct Server {
    host: String,
    port: u16,
    user: String,
    password: Secret,
    database: Option<String>,
    tls: Tls,
    /// What the server's list of replicas calls us.
    pub(super) reader_name: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.place())
    }
}

/// Whether and how connections are encrypted.
#[derive(Clone)]
enum Tls {
    Never,
    IfOffered(Arc<ClientConfig>),
    Always(Arc<ClientConfig>),
}

impl Server {
    /// Reads a `mysql://` or `mariadb://` url. `ssl_root_cert` names the authorities to trust; with
    /// it, and without an `ssl-mode`, the server is verified in full.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), which never repeats any part of the url.
    pub fn parse(url: &Secret, ssl_root_cert: Option<PathBuf>) -> Result<Self> {
        // The cause may hold pieces of a password that wasn't percent-encoded: left out.
        let url = Url::parse(url.reveal()).map_err(|_| bad_url("can't be read"))?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(bad_url("is none of MySQL or MariaDB"));
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(|text| text.into_owned()).map_err(|_| bad_url("holds what is no text"))
        };
        let host = decoded(url.host_str().filter(|host| !host.is_empty()).unwrap_or("127.0.0.1"))?;
        if url.username().is_empty() {
            return Err(bad_url("names no user"));
        }
        let mut mode = None;
        for (key, value) in url.query_pairs() {
            match &*key {
                "ssl-mode" | "ssl_mode" | "sslmode" => mode = Some(value.to_ascii_lowercase()),
                _ => return Err(bad_url("has a parameter other than ssl-mode")),
            }
        }
        let database = decoded(url.path().trim_start_matches('/'))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(3306),
            user: decoded(url.username())?,
            password: Secret::new(decoded(url.password().unwrap_or_default())?),
            database: Some(database).filter(|name| !name.is_empty()),
            tls: tls_of(mode.as_deref(), ssl_root_cert)?,
            reader_name: "lakeward".to_owned(),
        })
    }

    /// The database that the url names.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection with the pinned settings.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Config`](crate::ErrorKind::Config).
    pub async fn connect(&self) -> Result<Connection> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(CONNECT, connect).await {
            Ok(stream) => stream.map_err(|error| self.unreached(error))?,
            Err(_) => return Err(self.silent(CONNECT)),
        };
        tune(&stream).map_err(|error| self.unreached(error))?;
        let mut connection = match timeout(LOGIN, self.log_in(stream)).await {
            Ok(connection) => connection.map_err(|error| error.with("server", self.place()))?,
            Err(_) => return Err(self.silent(LOGIN)),
        };
        connection.run("pinning settings", PINNED).await?;
        const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        connection.run("pinning settings", ISOLATION).await?;
        // What the server may have limited, and must not end a long read.
        let unlimited = match connection.flavor {
            Flavor::MySql => "SET SESSION max_execution_time = 0",
            Flavor::MariaDb => "SET SESSION max_statement_time = 0",
        };
        connection.run("pinning settings", unlimited).await?;
        Ok(connection)
    }

    fn unreached(&self, error: std::io::Error) -> Error {
        Error::unavailable("the server can't be reached")
            .with("server", self.place())
            .remedy("check host and port in the source's url, and that the server runs")
            .caused_by(error)
    }

    fn silent(&self, limit: Duration) -> Error {
        Error::unavailable("the server did not answer in time")
            .with("server", self.place())
            .with("seconds", limit.as_secs())
    }

    /// "Connection Phase".
    async fn log_in(&self, stream: TcpStream) -> Result<Connection> {
        let mut connection = Connection::over(Socket::Tcp(Tcp::new(stream)));
        let greeting = connection.packet("logging in").await?;
        if greeting.first() == Some(&0xff) {
            return Err(fault::server("the connection", Reply::parse(&greeting)));
        }
        let hello = Hello::parse(&greeting).ok_or_else(|| fault::malformed("logging in"))?;
        (connection.flavor, connection.version) = hello.version();
        let offered = hello.capabilities & CAN_ENCRYPT != 0;
        let config = match (&self.tls, offered) {
            (Tls::Never, _) | (Tls::IfOffered(_), false) => None,
            (Tls::IfOffered(config) | Tls::Always(config), true) => Some(config),
            (Tls::Always(_), false) => {
                return Err(Error::config("the server does not offer TLS")
                    .remedy("turn TLS on in the server, or set ssl-mode=disabled in the url"));
            }
        };
        let mut capabilities = CAPABILITIES;
        if let Some(config) = config {
            capabilities |= CAN_ENCRYPT;
            connection.send(&head(capabilities)).await?;
            connection =
                connection.wrapped(async |socket| self.encrypt(socket, config).await).await?;
        }
        let encrypted = config.is_some();
        let known = hello.capabilities & HAS_PLUGINS != 0;
        let plugin = if known { &hello.plugin[..] } else { b"mysql_native_password" };
        // A server proposes its default, which needn't be what this user has: it says so then.
        let spoken = matches!(plugin, b"mysql_native_password" | b"caching_sha2_password");
        let plugin = if spoken { plugin } else { b"mysql_native_password" };
        let answer = login::answer(plugin, &hello.nonce, self.password.reveal(), encrypted)?;
        let response = self.response(capabilities, plugin, &answer);
        connection.send(&response).await?;
        self.prove(&mut connection, encrypted).await?;
        Ok(connection)
    }

    /// HandshakeResponse41.
    fn response(&self, capabilities: u32, plugin: &[u8], answer: &[u8]) -> Vec<u8> {
        let mut out = head(capabilities).to_vec();
        out.extend(self.user.as_bytes());
        out.push(0);
        put_counted(answer, &mut out);
        out.extend(plugin);
        out.push(0);
        let mut attributes = Vec::new();
        for text in ["program_name", "lakeward", "_client_version", env!("CARGO_PKG_VERSION")] {
            put_counted(text.as_bytes(), &mut attributes);
        }
        put_counted(&attributes, &mut out);
        out
    }

    /// What follows until the server is satisfied.
    async fn prove(&self, connection: &mut Connection, encrypted: bool) -> Result<()> {
        let password = self.password.reveal();
        loop {
            let packet = connection.packet("logging in").await?;
            match packet.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xff, _)) => {
                    let error = fault::server("the log-in", Reply::parse(&packet));
                    return Err(error.with("user", &self.user));
                }
                Some((0xfe, rest)) => {
                    let mut rest = Input(rest);
                    let plugin = rest.terminated().ok_or_else(|| fault::malformed("logging in"))?;
                    let answer = login::answer(plugin, rest.rest(), password, encrypted)?;
                    connection.send(&answer).await?;
                }
                Some((1, [login::FAST_ENOUGH])) => {}
                Some((1, [login::WHOLE_PASSWORD])) => {
                    connection.send(&login::in_full(password, encrypted)?).await?;
                }
                _ => return Err(fault::malformed("logging in")),
            }
        }
    }

    async fn encrypt(&self, socket: Socket, config: &Arc<ClientConfig>) -> Result<Socket> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| bad_url("names a host that TLS can't").caused_by(error))?;
        let Socket::Tcp(tcp) = socket else {
            return Err(Error::internal("a connection is encrypted twice"));
        };
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect(name, tcp).await.map_err(|error| self.untrusted(error))?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    fn untrusted(&self, error: std::io::Error) -> Error {
        let rejected = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
        match rejected {
            true => Error::config("the server's certificate is not trusted")
                .remedy(
                    "set ssl_root_cert to the authority that signed it; ssl-mode=verify_ca ignores \
                     the name in it, ssl-mode=required everything",
                )
                .caused_by(error),
            false => self.unreached(error),
        }
    }
}

fn tls_of(mode: Option<&str>, roots: Option<PathBuf>) -> Result<Tls> {
    let make = |verify| tls::client(verify, roots.as_deref());
    Ok(match (mode, &roots) {
        (Some("disabled"), _) => Tls::Never,
        (None, None) | (Some("preferred"), _) => Tls::IfOffered(make(Verify::Nothing)?),
        (Some("required"), _) => Tls::Always(make(Verify::Nothing)?),
        (Some("verify_ca"), _) => Tls::Always(make(Verify::Chain)?),
        (Some("verify_identity"), _) | (None, Some(_)) => Tls::Always(make(Verify::Full)?),
        (Some(_), _) => {
            return Err(bad_url("has an unknown ssl-mode").remedy(
                "it is one of disabled, preferred, required, verify_ca and verify_identity",
            ));
        }
    })
}

fn bad_url(what: &str) -> Error {
    Error::config(format!("the source's url {what}")).remedy(
        "it looks like mysql://user:password@host:3306?ssl-mode=required; write special characters \
         of the password percent-encoded (@ as %40, / as %2F)",
    )
}

/// Capabilities, longest packet, character set, and 23 bytes of nothing.
fn head(capabilities: u32) -> [u8; 32] {
    let mut head = [0; 32];
    head[..4].copy_from_slice(&capabilities.to_le_bytes());
    head[4..8].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    head[8] = UTF8MB4;
    head
}

fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() {
        short @ 0..=0xfa => out.push(short as u8),
        long => {
            out.push(0xfc);
            out.extend((long as u16).to_le_bytes());
        }
    }
    out.extend(bytes);
}

/// HandshakeV10.
struct Hello {
    version: String,
    capabilities: u32,
    nonce: Vec<u8>,
    plugin: Vec<u8>,
}

impl Hello {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mut input = Input(packet);
        if input.u8()? != 10 {
            return None;
        }
        let version = String::from_utf8_lossy(input.terminated()?).into_owned();
        input.u32()?;
        let mut nonce = input.bytes(8)?.to_vec();
        input.u8()?;
        let low = input.u16()?;
        input.bytes(3)?;
        let high = input.u16()?;
        let length = usize::from(input.u8()?);
        input.bytes(10)?;
        nonce.extend(input.bytes(length.saturating_sub(8).max(13).min(input.0.len()))?);
        let plugin = input.terminated().unwrap_or(input.0).to_vec();
        Some(Self { version, capabilities: u32::from(high) << 16 | u32::from(low), nonce, plugin })
    }

    /// MariaDB before 11 puts `5.5.5-` before its version, for old replicas.
    fn version(&self) -> (Flavor, [u32; 3]) {
        let text = self.version.strip_prefix("5.5.5-").unwrap_or(&self.version);
        let mut version = [0; 3];
        let numbers = text.split(|c: char| !c.is_ascii_digit());
        for (part, number) in version.iter_mut().zip(numbers) {
            *part = number.parse().unwrap_or(0);
        }
        let maria = self.version.to_ascii_lowercase().contains("mariadb");
        (if maria { Flavor::MariaDb } else { Flavor::MySql }, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn parse(url: &str) -> Result<Server> {
        Server::parse(&Secret::new(url), None)
    }

    #[test]
    fn a_url_names_host_and_tls() {
        let server = parse("mysql://u%40x:p%40ss@h:1/d?ssl-mode=REQUIRED").unwrap();
        assert_eq!((server.place().as_str(), server.user.as_str()), ("h:1", "u@x"));
        assert_eq!((server.password.reveal(), server.database()), ("p@ss", Some("d")));
        assert!(matches!(server.tls, Tls::Always(_)));
        assert!(matches!(parse("mariadb://u@h").unwrap().tls, Tls::IfOffered(_)));
        assert!(matches!(parse("mysql://u@h?ssl-mode=disabled").unwrap().tls, Tls::Never));
        assert_eq!(parse("mysql://u@[::1]").unwrap().place(), "::1:3306");
    }

    #[test]
    fn a_broken_url_keeps_its_password() {
        for url in [
            "mysql://u:hunter2@h:hunter2/d",
            "mysql://u:p@h/d?ssl-mode=hunter2",
            "mysql://u:p@h/d?hunter2=1",
            "mysql://:hunter2@h",
            "hunter2",
            "postgres://u:hunter2@h",
            "mysql://u:p%ffhunter2@h",
        ] {
            let error = parse(url).map(|server| format!("{server:?}"));
            let Err(error) = error else { panic!("{url} was taken") };
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.full().contains("hunter2"), "{}", error.full());
        }
    }

    #[test]
    fn a_greeting_tells_flavor_and_version() {
        let hello = |version: &str| Hello {
            version: version.to_owned(),
            capabilities: 0,
            nonce: Vec::new(),
            plugin: Vec::new(),
        };
        assert_eq!(hello("9.7.4").version(), (Flavor::MySql, [9, 7, 4]));
        let maria = hello("5.5.5-10.11.19-MariaDB-log").version();
        assert_eq!(maria, (Flavor::MariaDb, [10, 11, 19]));
    }
}
