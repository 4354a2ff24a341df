use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::board::{Flushed, Memory, Reading, Sight, TableSight};
use crate::epoch::State;
use crate::writer::{Committed, Size};

/// An answer: its status, its head in lower case, its body.
type Answer = (u16, String, String);

/// Serves a board of a few tables, and says where.
async fn start() -> (SocketAddr, JoinSet<()>) {
    let board = Board::default();
    let meter = board.source("shop", "postgres");
    let ids = ["orders", "../../etc/passwd", "a/b%2Fc", "<script>", "läger 1?x=#y"]
        .map(|name| TableId::new("public", name));
    let sight = |id| TableSight {
        id,
        state: State::Live,
        reason: None,
        changes: 12,
        lag_ms: Some(250),
        reading: None,
        rows_read: 0,
    };
    let stopped = TableId::new("pub.lic", "stopped");
    let mut seen: Vec<_> = ids.iter().map(sight).collect();
    let state = State::Stopped;
    let reason = Some("the column \"x\" holds <b>");
    seen.push(TableSight { state, reason, lag_ms: None, ..sight(&stopped) });
    let fresh = TableId::new("public", "fresh");
    let reading = Some(Reading { rows: 40, ranges: true, keys: 2, anew: false });
    seen.push(TableSight { state: State::Snapshot, reading, lag_ms: None, ..sight(&fresh) });
    let read = "0/16B3748".to_owned();
    let whole = Sight {
        read,
        changes: 84,
        memory: Memory { changes: 5, writing: 4, ..Memory::default() },
        lag_ms: 250,
        lag_bytes: Some(77),
        log_retained: Some(88),
        log_window_s: Some(99),
    };
    meter.saw(whole, seen.into_iter());
    let size = Size { rows: 5, files: 2, bytes: 900, copied: 300, brought: 100, ..Size::default() };
    let did = Committed { version: 4, came: 3, went: 1, took: Duration::from_millis(15) };
    let flushed = Flushed {
        epoch: 9,
        durable: "0/16B3000".to_owned(),
        took: Duration::from_millis(31),
        committed: ids.first().map(|id| (id.clone(), did)).into_iter().collect(),
    };
    meter.flushed(flushed, ids.first().map(|id| (id, size)).into_iter());
    board.sample();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = axum::serve(Door::new(listener), routes(board)).await;
    });
    (at, tasks)
}

/// Sends bytes as they are: no client in between puts a path in order.
async fn ask(at: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A refused body may end in a reset, after the answer.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn get_of(at: SocketAddr, path: &str) -> Answer {
    ask(at, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

async fn json_of(at: SocketAddr, path: &str) -> serde_json::Value {
    let (status, head, body) = get_of(at, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_status_says_what_stands_on_the_board() {
    let (at, _tasks) = start().await;
    let status = json_of(at, "/api/status").await;
    let shop = &status["sources"][0];
    assert_eq!((&shop["name"], &shop["kind"]), (&"shop".into(), &"postgres".into()));
    assert_eq!((&shop["state"], &shop["epoch"]), (&"following".into(), &9.into()));
    assert_eq!((&shop["lag_ms"], &shop["lag_bytes"]), (&250.into(), &77.into()));
    assert_eq!((&shop["log_retained_bytes"], &shop["log_window_s"]), (&88.into(), &99.into()));
    assert_eq!((&shop["read"], &shop["durable"]), (&"0/16B3748".into(), &"0/16B3000".into()));
    let tables = shop["tables"].as_array().unwrap();
    let of = |name: &str| tables.iter().find(|table| table["name"] == name).unwrap();
    assert_eq!(tables.len(), 7);
    assert_eq!(of("public.orders")["rows"], 5);
    assert_eq!(of("public.orders")["amplification"], 4.0);
    assert_eq!(of("public.orders")["changes_per_s"], 1.2);
    assert_eq!(of("pub\\.lic.stopped")["reason"], "the column \"x\" holds <b>");
    assert_eq!(of("pub\\.lic.stopped")["lag_ms"], serde_json::Value::Null);
    let snapshot = serde_json::json!({ "rows": 40, "total": null, "left_s": null, "keys": 2 });
    assert_eq!(of("public.fresh")["snapshot"], snapshot);
}

#[tokio::test]
async fn a_table_is_found_by_any_name_it_may_have() {
    let (at, _tasks) = start().await;
    let orders = json_of(at, "/api/tables/shop/public.orders").await;
    let commit = serde_json::json!({
        "epoch": 9, "version": 4, "at_ms": orders["commits"][0]["at_ms"],
        "rows_in": 3, "rows_out": 1, "took_ms": 15,
    });
    assert_eq!(orders["commits"], serde_json::json!([commit]));
    assert_eq!(orders["history"]["changes"], serde_json::json!([12]));
    assert_eq!((&orders["state"], &orders["path"]), (&"live".into(), &"shop/public/orders".into()));
    for (path, name) in [
        ("public.%2E%2E%2F..%2Fetc%2Fpasswd", "public.../../etc/passwd"),
        ("public.a%2Fb%252Fc", "public.a/b%2Fc"),
        ("public.%3Cscript%3E", "public.<script>"),
        ("public.l%C3%A4ger%201%3Fx%3D%23y", "public.läger 1?x=#y"),
        ("pub%5C.lic.stopped", "pub\\.lic.stopped"),
    ] {
        let table = json_of(at, &format!("/api/tables/shop/{path}")).await;
        assert_eq!(table["name"], name);
    }
}

#[tokio::test]
async fn no_path_leads_anywhere() {
    let (at, _tasks) = start().await;
    for path in [
        "/api/tables/shop/public.nothing",
        "/api/tables/web/public.orders",
        "/api/tables/shop/orders",
        "/api/tables/shop/",
        "/api/tables/shop",
        "/api/tables/shop/public/../../etc/passwd",
        "/api/tables/shop/..%2f..%2f..%2fetc%2fpasswd",
        "/api/tables/%2e%2e/%2e%2e",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page.js/../../src/serve.rs",
        "/index.html",
        "/page.css/",
        "//",
        "/api",
        "/api/status/x",
        "/favicon.ico",
    ] {
        let (status, head, body) = get_of(at, path).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(head.contains("content-security-policy"), "{path}: {head}");
        assert!(!body.contains("root:"), "{path}");
    }
    // Neither UTF-8 nor anybody's table.
    assert_eq!(get_of(at, "/api/tables/shop/%ff%fe").await.0 / 100, 4);
}

#[tokio::test]
async fn it_can_only_be_read() {
    let (at, _tasks) = start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/", "/api/status", "/metrics", "/nothing"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let (status, head, _) = ask(at, &request).await;
            assert_eq!(status, 405, "{method} {path}");
            assert!(head.contains("allow: get, head"), "{head}");
        }
    }
    let (status, head, body) =
        ask(at, "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-type: text/html"), "{head}");
    let body = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(ask(at, body).await.0, 413);
    let chunked = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(ask(at, chunked).await.0, 413);
    assert_eq!(get_of(at, &format!("/{}", "x".repeat(LONGEST))).await.0, 414);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    assert_eq!(ask(at, &many).await.0, 431);
}

#[tokio::test]
async fn the_page_is_whole_and_kept_by_its_tag() {
    let (at, _tasks) = start().await;
    for (path, content_type) in [("/", HTML), ("/page.css", CSS), ("/page.js", SCRIPT)] {
        let (status, head, body) = get_of(at, path).await;
        assert_eq!(status, 200);
        assert!(head.contains(&format!("content-type: {content_type}")), "{head}");
        assert!(head.contains("cache-control: no-cache"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        let loads =
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "@import"];
        loads.iter().for_each(|word| assert!(!body.contains(word), "{path} has {word}"));
        // Nothing is loaded from elsewhere: the only addresses are names of namespaces.
        let elsewhere = body.match_indices("://").map(|(at, _)| &body[at..]);
        let named = |rest: &str| rest.starts_with("://www.w3.org/");
        assert!(elsewhere.into_iter().all(named), "{path} names another place");
        let tag = head.split("etag: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let again = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nif-none-match: {tag}\r\n\r\n"
        );
        let (status, _, body) = ask(at, &again).await;
        assert_eq!((status, body.as_str()), (304, ""));
    }
}

#[tokio::test]
async fn metrics_and_health_say_the_same() {
    let (at, _tasks) = start().await;
    assert_eq!(get_of(at, "/health").await.2, "ok\n");
    let (_, head, metrics) = get_of(at, "/metrics").await;
    assert!(head.contains("content-type: text/plain"), "{head}");
    for line in [
        "lakeward_source_up{source=\"shop\"} 1",
        "lakeward_lag_bytes{source=\"shop\"} 77",
        "lakeward_log_retained_bytes{source=\"shop\"} 88",
        "lakeward_log_window_seconds{source=\"shop\"} 99",
        "lakeward_stopped_tables{source=\"shop\"} 1",
        "lakeward_changes_total{source=\"shop\"} 84",
        "lakeward_rows{source=\"shop\",table=\"public.orders\"} 5",
        "lakeward_snapshot_rows{source=\"shop\",table=\"public.fresh\"} 40",
        "lakeward_position{source=\"shop\",kind=\"durable\",position=\"0/16B3000\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let (at, _tasks) = {
        let board = Board::default();
        let _meter = board.source("web", "mysql");
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let _ = axum::serve(Door::new(listener), routes(board)).await;
        });
        (at, tasks)
    };
    let (status, _, body) = get_of(at, "/health").await;
    assert_eq!((status, body.as_str()), (503, "not following: web\n"));
}
