//! Where the server is, and how connections to it are made: one way for the stream's own protocol
//! and for ordinary statements.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_rustls::TlsConnector;

use super::fault;
use super::replication::Replication;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::socket::{Socket, Tcp, tune};
use crate::tls::{self, Verify};

/// Settings that decide how values are written: the same on every connection, whatever the
/// server, database or role has (a text must mean one value).
pub const PINNED: [(&str, &str); 10] = [
    ("standard_conforming_strings", "on"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    // A row that a policy hides must be an error, never a row that isn't there.
    ("row_security", "off"),
    // Names in answers are written in full, and no user's function stands before Postgres' own.
    ("search_path", "pg_catalog"),
];

/// What the role or database may have limited, and must not end a long read.
const UNLIMITED: &str = "SELECT pg_catalog.set_config(name, '0', false) \
    FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout', \
    'idle_session_timeout', 'idle_in_transaction_session_timeout')";

const CONNECT: Duration = Duration::from_secs(10);
const LOGIN: Duration = Duration::from_secs(20);

/// A server as the configuration names it.
#[derive(Clone)]
pub struct Server {
    /// What `tokio_postgres` knows of the url. Its `Debug` hides the password.
    pub(super) config: Config,
    places: Vec<Place>,
    tls: Tls,
}

/// One of the hosts of a url.
#[derive(Debug, Clone)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Whether and how connections are encrypted.
#[derive(Clone)]
enum Tls {
    Never,
    IfOffered(Arc<ClientConfig>),
    Always(Arc<ClientConfig>),
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("places", &self.places).finish_non_exhaustive()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(host, port) => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Server {
    /// Reads a `postgres://` url. `ssl_root_cert` names the authorities to trust; with it, and
    /// without an `sslmode`, the server is verified in full.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], which never repeats any part of the url that may be a secret.
    pub fn parse(url: &Secret, ssl_root_cert: Option<PathBuf>) -> Result<Self> {
        let (plain, mut ssl) = split_ssl(url.reveal())?;
        // The cause may hold pieces of a password that wasn't percent-encoded: left out.
        let mut config: Config = plain.parse().map_err(|_| bad_url("can't be read"))?;
        let user = config.get_user().ok_or_else(|| bad_url("names no user"))?.to_owned();
        if config.get_dbname().is_none() {
            config.dbname(&user);
        }
        if config.get_application_name().is_none() {
            config.application_name("lakeward");
        }
        ssl.roots = ssl_root_cert.or(ssl.roots);
        let tls = ssl.tls()?;
        config.ssl_mode(SslMode::Disable);
        Ok(Self { places: places(&config)?, config, tls })
    }

    /// An ordinary connection with the pinned settings. Statements that fail are mapped by
    /// [`fault::query`].
    pub async fn client(&self) -> Result<Client> {
        let mut last = bad_url("names no host");
        for place in &self.places {
            match within(LOGIN, place, self.client_at(place)).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    /// A connection that speaks the Streaming Replication Protocol.
    pub async fn replication(&self) -> Result<Replication> {
        let mut last = bad_url("names no host");
        for place in &self.places {
            match within(LOGIN, place, self.replication_at(place)).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    async fn client_at(&self, place: &Place) -> Result<Client> {
        let socket = self.open(place).await?;
        let (client, connection) = self
            .config
            .connect_raw(socket, NoTls)
            .await
            .map_err(|error| fault::query("logging in", error).with("server", place))?;
        if connection.parameter("in_hot_standby") == Some("on") {
            return Err(standby(place));
        }
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        let mut settings: Vec<_> =
            PINNED.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
        settings.push(UNLIMITED.to_owned());
        client
            .batch_execute(&settings.join("; "))
            .await
            .map_err(|error| fault::query("pinning settings", error))?;
        Ok(client)
    }

    async fn replication_at(&self, place: &Place) -> Result<Replication> {
        let socket = self.open(place).await?;
        let connection =
            Replication::login(&self.config, socket).await.map_err(|e| e.with("server", place))?;
        match connection.parameter("in_hot_standby") {
            Some("on") => Err(standby(place)),
            _ => Ok(connection),
        }
    }

    /// Opens a socket and encrypts it as configured ("SSL Session Encryption").
    async fn open(&self, place: &Place) -> Result<Socket> {
        let limit = self.config.get_connect_timeout().copied().unwrap_or(CONNECT);
        let (host, stream) = match place {
            Place::Unix(path) => {
                let stream = within(limit, place, async {
                    UnixStream::connect(path).await.map_err(|error| unreached(place, error))
                });
                return Ok(Socket::Unix(stream.await?));
            }
            Place::Tcp(host, port) => {
                let stream = within(limit, place, async {
                    let stream = TcpStream::connect((host.as_str(), *port)).await;
                    stream.map_err(|error| unreached(place, error))
                });
                (host, stream.await?)
            }
        };
        tune(&stream).map_err(|error| unreached(place, error))?;
        self.encrypt(place, host, stream).await
    }

    async fn encrypt(&self, place: &Place, host: &str, mut stream: TcpStream) -> Result<Socket> {
        let (config, needed) = match &self.tls {
            Tls::Never => return Ok(Socket::Tcp(Tcp::new(stream))),
            Tls::IfOffered(config) => (config, false),
            Tls::Always(config) => (config, true),
        };
        let offered = offers_tls(&mut stream).await.map_err(|error| unreached(place, error))?;
        match (offered, needed) {
            (false, false) => return Ok(Socket::Tcp(Tcp::new(stream))),
            (false, true) => {
                return Err(Error::config("the server does not offer TLS")
                    .with("server", place)
                    .remedy("turn ssl on in the server, or set sslmode=disable in the url"));
            }
            (true, _) => {}
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| bad_url("names a host that TLS can't").caused_by(error))?;
        let connector = TlsConnector::from(config.clone());
        let stream = connector
            .connect(name, Tcp::new(stream))
            .await
            .map_err(|error| untrusted(place, error));
        Ok(Socket::Tls(Box::new(stream?)))
    }
}

/// Whether the server answers SSLRequest with `S`.
async fn offers_tls(stream: &mut TcpStream) -> io::Result<bool> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no Postgres server")),
    }
}

async fn within<T>(
    limit: Duration,
    place: &Place,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::unavailable("the server did not answer in time")
            .with("server", place)
            .with("seconds", limit.as_secs())),
    }
}

fn unreached(place: &Place, error: io::Error) -> Error {
    Error::unavailable("the server can't be reached")
        .with("server", place)
        .remedy("check host and port in the source's url, and that the server runs")
        .caused_by(error)
}

fn untrusted(place: &Place, error: io::Error) -> Error {
    let rejected = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
    match rejected {
        true => Error::config("the server's certificate is not trusted")
            .with("server", place)
            .remedy(
                "set ssl_root_cert to the authority that signed it; sslmode=verify-ca ignores \
                 the name in it, sslmode=require everything",
            )
            .caused_by(error),
        false => unreached(place, error),
    }
}

fn standby(place: &Place) -> Error {
    Error::unavailable("the server is a standby").with("server", place).remedy(fault::STANDBY)
}

fn bad_url(what: &str) -> Error {
    Error::config(format!("the source's url {what}")).remedy(
        "it looks like postgres://user:password@host:5432/database?sslmode=require; write special \
         characters of the password percent-encoded (@ as %40, / as %2F)",
    )
}

/// What the url says about TLS beyond what `tokio_postgres` understands.
#[derive(Default)]
struct Ssl {
    mode: Option<String>,
    roots: Option<PathBuf>,
}

impl Ssl {
    fn tls(&self) -> Result<Tls> {
        let make = |verify| tls::client(verify, self.roots.as_deref());
        Ok(match (self.mode.as_deref(), &self.roots) {
            (Some("disable"), _) => Tls::Never,
            (None, None) | (Some("prefer" | "allow"), _) => Tls::IfOffered(make(Verify::Nothing)?),
            (Some("require"), None) => Tls::Always(make(Verify::Nothing)?),
            // With authorities named, libpq's `require` verifies them too.
            (Some("require"), Some(_)) | (Some("verify-ca"), _) => {
                Tls::Always(make(Verify::Chain)?)
            }
            (Some("verify-full"), _) | (None, Some(_)) => Tls::Always(make(Verify::Full)?),
            (Some(_), _) => {
                return Err(bad_url("has an unknown sslmode")
                    .remedy("it is one of disable, prefer, require, verify-ca and verify-full"));
            }
        })
    }
}

/// Takes what `tokio_postgres` doesn't know out of a url.
fn split_ssl(url: &str) -> Result<(String, Ssl)> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(bad_url("is none of Postgres"));
    }
    // A question mark before the @ belongs to the password.
    let after = url.find('@').unwrap_or(0);
    let Some(mark) = url.get(after..).and_then(|rest| rest.find('?')).map(|at| after + at) else {
        return Ok((url.to_owned(), Ssl::default()));
    };
    let (base, query) = url.split_at(mark);
    let mut ssl = Ssl::default();
    let mut kept = Vec::new();
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => ssl.mode = Some(mode.to_owned()),
            Some(("sslrootcert", "system")) => ssl.mode = Some("verify-full".to_owned()),
            Some(("sslrootcert", path)) if !path.contains('%') => ssl.roots = Some(path.into()),
            Some((key @ ("sslrootcert" | "sslcert" | "sslkey" | "sslcrl" | "hostaddr"), _)) => {
                return Err(bad_url(&format!("has {key}, which is not supported"))
                    .remedy("leave it out; authorities are named by ssl_root_cert"));
            }
            _ => kept.push(pair),
        }
    }
    match kept.is_empty() {
        true => Ok((base.to_owned(), ssl)),
        false => Ok((format!("{base}?{}", kept.join("&")), ssl)),
    }
}

fn places(config: &Config) -> Result<Vec<Place>> {
    let ports = config.get_ports();
    let mut places = Vec::new();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        places.push(match host {
            // What stands before an unencoded @ of a password would become a host: never print it.
            Host::Tcp(host) if host.contains(['@', '/', ' ']) => {
                return Err(bad_url("holds a character that must be encoded"));
            }
            Host::Tcp(host) => Place::Tcp(host.clone(), port),
            #[cfg(unix)]
            Host::Unix(directory) => Place::Unix(directory.join(format!(".s.PGSQL.{port}"))),
        });
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Server> {
        Server::parse(&Secret::new(url), None)
    }

    #[test]
    fn a_url_names_hosts_and_tls() {
        let server = parse("postgres://u:p%40ss@a:1,b:2/d?sslmode=verify-full").unwrap();
        let places: Vec<_> = server.places.iter().map(Place::to_string).collect();
        assert_eq!(places, ["a:1", "b:2"]);
        assert!(matches!(server.tls, Tls::Always(_)));
        assert_eq!(server.config.get_password(), Some(&b"p@ss"[..]));
        let server = parse("postgresql://u@%2Fvar%2Frun?sslmode=disable&keepalives=1").unwrap();
        assert_eq!(server.places[0].to_string(), "/var/run/.s.PGSQL.5432");
        assert!(matches!(server.tls, Tls::Never));
        assert_eq!(server.config.get_dbname(), Some("u"));
        assert!(matches!(parse("postgres://u@h").unwrap().tls, Tls::IfOffered(_)));
    }

    #[test]
    fn a_broken_url_keeps_its_password() {
        for url in [
            "postgres://u:hunter2@x@host/d",
            "postgres://u:hunter2@host:hunter2/d",
            "postgres://u:a/hunter2@host:x/d",
            "postgres://u:p@host/d?sslmode=hunter2",
            "postgres://u:p@host/d?hunter2=1",
            "postgres://:hunter2",
            "hunter2",
            "postgres://u:p@host/d?sslcert=hunter2",
            "postgres://u:p%ffhunter2@/",
        ] {
            let text = match parse(url) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Config);
                    error.full()
                }
                Ok(server) => format!("{server:?} {:?}", server.config),
            };
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
