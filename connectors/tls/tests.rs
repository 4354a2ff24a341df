//! A server that offers TLS and then says no more than that the password is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::ErrorKind;
use crate::postgres::connection::Server;
use crate::secret::Secret;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tls").join(name)
}

/// Serves one connection with the certificate in `name` and returns its port.
async fn serve(name: &'static str) -> u16 {
    let chain = CertificateDer::pem_file_iter(file(name)).unwrap().collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"S").await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
            return;
        };
        let mut startup = [0; 64];
        let _ = stream.read(&mut startup).await;
        let answer = b"E\0\0\0\x1eSFATAL\0C28P01\0Mno entry\0\0";
        let length = (answer.len() as u32 - 1).to_be_bytes();
        let answer = [&answer[..1], &length, &answer[5..]].concat();
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    });
    port
}

/// The kind of the error, and what it says, of a log-in with `parameters` in the url.
async fn log_in(name: &'static str, parameters: &str, roots: Option<&str>) -> (ErrorKind, String) {
    let host = if parameters.contains("verify-full") { "localhost" } else { "127.0.0.1" };
    log_in_at(host, name, parameters, roots).await
}

async fn log_in_at(
    host: &str,
    name: &'static str,
    parameters: &str,
    roots: Option<&str>,
) -> (ErrorKind, String) {
    let url = format!("postgres://u:p@{host}:{}/d{parameters}", serve(name).await);
    let server = Server::parse(&Secret::new(url), roots.map(file)).unwrap();
    let error = server.replication().await.err().unwrap();
    (error.kind(), error.full())
}

#[tokio::test]
async fn trusted_servers_get_as_far_as_the_password() {
    let cases = [
        ("server.pem", "", None),
        ("server.pem", "?sslmode=prefer", None),
        ("server.pem", "?sslmode=require", None),
        ("self.pem", "?sslmode=require", None),
        ("server.pem", "?sslmode=require", Some("ca.pem")),
        ("server.pem", "?sslmode=verify-ca", Some("ca.pem")),
        ("server.pem", "?sslmode=verify-full", Some("ca.pem")),
        ("self.pem", "?sslmode=verify-full", Some("self.pem")),
    ];
    for (name, parameters, roots) in cases {
        let (kind, text) = log_in(name, parameters, roots).await;
        assert!(text.contains("28P01"), "{name} {parameters} {roots:?}: {text}");
        assert_eq!(kind, ErrorKind::Config);
    }
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let cases = [
        ("127.0.0.1", "self.pem", "?sslmode=verify-ca", Some("ca.pem")),
        ("127.0.0.1", "self.pem", "?sslmode=require", Some("ca.pem")),
        ("127.0.0.1", "server.pem", "?sslmode=verify-full", Some("ca.pem")),
        ("127.0.0.1", "self.pem", "?sslmode=verify-full", Some("self.pem")),
        // Authorities without a mode mean a full look.
        ("127.0.0.1", "server.pem", "", Some("ca.pem")),
        ("localhost", "server.pem", "?sslmode=verify-full", None),
    ];
    for (host, name, parameters, roots) in cases {
        let (kind, text) = log_in_at(host, name, parameters, roots).await;
        assert_eq!(kind, ErrorKind::Config, "{host} {name} {parameters} {roots:?}: {text}");
        assert!(text.contains("not trusted"), "{host} {name} {parameters} {roots:?}: {text}");
    }
}

#[test]
fn a_file_of_authorities_must_hold_some() {
    for name in ["server.key", "missing.pem"] {
        let error = client(Verify::Full, Some(&file(name))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    }
}
