//! What goes wrong, and as what it is reported.

use super::*;
use crate::ErrorKind;
use crate::error::Error;

const TABLE: &str = "create table t (id int primary key, v text)";

async fn failure(stream: &mut super::super::stream::Stream) -> Error {
    let reading = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("the stream goes on")
}

#[test]
fn a_killed_walsender_is_noticed() {
    on_servers("kill", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let mut stream = made.stream(made.established.oldest).await;
        let kill = "select pg_terminate_backend(active_pid) from pg_replication_slots \
                    where slot_name = $1";
        made.admin.execute(kill, &[&bed.name]).await.unwrap();
        let error = failure(&mut stream).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        // And a lost control connection is made anew.
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                    where datname = $1 and pid <> pg_backend_pid()";
        made.admin.execute(kill, &[&bed.name]).await.unwrap();
        until("a view", async || made.source.server.client().await.is_ok()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        made.source.view().await.unwrap();
        made.stream(made.established.oldest).await;
    });
}

#[test]
fn a_url_that_is_wrong_says_what() {
    on_servers("url", |bed| async move {
        let good = bed.url_as(None);
        let host = good.rsplit('@').next().unwrap().to_owned();
        let place = host.split('/').next().unwrap();
        let cases = [
            (bed.url_as(Some(("cdc", "hunter2"))), ErrorKind::Config, "password"),
            (bed.url_as(Some(("nobody_hunter", "hunter2"))), ErrorKind::Config, "nobody_hunter"),
            (good.replace(&bed.name, "no_such_db"), ErrorKind::Config, "no_such_db"),
            (good.replace(place, "127.0.0.1:1"), ErrorKind::Unavailable, "127.0.0.1:1"),
            (good.replace(place, "no-such-host.invalid"), ErrorKind::Unavailable, "no-such-host"),
            (format!("{good}?sslmode=require"), ErrorKind::Config, "TLS"),
        ];
        for (url, kind, says) in cases {
            let mut source =
                Postgres::new(Options { url: Secret::new(&url), ..bed.options() }).unwrap();
            let error = source.view().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.full().contains(says), "{error:?}");
            let error = source.server.replication().await.err().unwrap();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.full().contains(says), "{error:?}");
            let text = format!("{error:?} {error} {}", error.full());
            assert!(!text.contains("hunter2") && !text.contains("cdcpw"), "{text}");
            let found = source.check().await.unwrap();
            assert!(found.len() == 1 && found[0].fatal, "{found:?}");
        }
    });
}

#[test]
fn a_slot_has_one_reader() {
    on_servers("taken", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let stream = made.stream(made.established.oldest).await;
        // Our own stream does not stand in the way of looking again.
        made.source.establish(&made.tables).await.unwrap();
        let mut other = bed.source();
        let error = other.establish(&made.tables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.full().contains("pid"), "{error:?}");
        let error = other.stream(&made.established.oldest, &made.tables).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        drop(stream);
        until("the slot", || {
            let mut other = bed.source();
            let tables = made.tables.clone();
            async move { other.establish(&tables).await.is_ok() }
        })
        .await;
    });
}

#[test]
fn a_slot_that_is_gone_is_a_gap() {
    on_servers("gap", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let from = made.established.oldest;
        let gap = async |source: &mut Postgres, from: Lsn| {
            let tables = made.tables.clone();
            let error = source.stream(&from, &tables).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Gap, "{error:?}");
        };
        // Somebody else read it.
        made.admin.batch_execute("insert into t values (1)").await.unwrap();
        let advance = "select pg_replication_slot_advance($1, pg_current_wal_lsn())";
        made.admin.execute(advance, &[&bed.name]).await.unwrap();
        gap(&mut made.source, from).await;
        // The server lost its newest changes.
        gap(&mut made.source, Lsn(u64::MAX / 2)).await;
        // It was dropped.
        let drop = "select pg_drop_replication_slot($1)";
        made.admin.execute(drop, &[&bed.name]).await.unwrap();
        gap(&mut made.source, from).await;
        // The next look makes a new one, which begins later.
        let again = made.source.establish(&made.tables).await.unwrap();
        assert!(again.oldest > from);
        assert_eq!(again.identity, made.established.identity);
    });
}

#[test]
fn a_publication_that_is_gone_is_a_gap() {
    on_servers("nopub", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let mut stream = made.stream(made.established.oldest).await;
        let name = bed.options().publication;
        made.admin.batch_execute(&format!("drop publication \"{name}\"")).await.unwrap();
        made.admin.batch_execute("insert into t values (1)").await.unwrap();
        let error = failure(&mut stream).await;
        assert_eq!(error.kind(), ErrorKind::Gap, "{error:?}");
        let again = made.source.establish(&made.tables).await.unwrap();
        assert_ne!(again.identity, made.established.identity);
    });
}

/// A way to the server that can be made to swallow everything, and to answer nothing.
struct Proxy {
    port: u16,
    open: tokio::sync::watch::Sender<bool>,
}

impl Proxy {
    async fn to(place: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, gate) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(&place).await.unwrap();
                let ((a, b), (c, d)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(a, d, gate.clone()));
                tokio::spawn(pass(c, b, gate.clone()));
            }
        });
        Self { port, open }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    gate: tokio::sync::watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read) = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await {
        if read == 0 {
            break;
        }
        if *gate.borrow() {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut to, &buffer[..read]).await;
        }
    }
}

#[test]
#[ignore = "takes two minutes"]
fn silence_is_noticed_within_a_minute() {
    on_servers("silence", |bed| async move {
        let mut made = bed.made(TABLE).await;
        let url = bed.url_as(None);
        let place = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let proxy = Proxy::to(place.clone()).await;
        let url = Secret::new(url.replace(&place, &format!("127.0.0.1:{}", proxy.port)));
        made.source = Postgres::new(Options { url, ..bed.options() }).unwrap();
        let mut stream = made.stream(made.established.oldest).await;
        // Nothing happens, yet the connection lives.
        let quiet = timeout(Duration::from_secs(15), async {
            loop {
                stream.next().await.unwrap();
            }
        });
        assert!(quiet.await.is_err());
        proxy.open.send(false).unwrap();
        let start = std::time::Instant::now();
        let error = timeout(Duration::from_secs(70), async {
            loop {
                if let Err(error) = stream.next().await {
                    return error;
                }
            }
        })
        .await
        .unwrap();
        println!("{error:?} after {:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(start.elapsed() < Duration::from_secs(60));
    });
}
