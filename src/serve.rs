//! What the daemon serves on its port: the status page, the JSON behind it, `/metrics`, `/health`.
//!
//! It can only be read: there is no method but GET and HEAD, no body is taken, and a path is only
//! ever looked up among fixed names and on the board, never in a file system.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State as Shared};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lakeward_connectors::{Error, Result, TableId};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::board::Board;
use crate::metrics;

mod door;
mod status;
#[cfg(test)]
mod tests;

use door::Door;

/// How many requests are answered at a time; more are told to come back.
const AT_ONCE: usize = 32;

/// The longest path and query; a table's name has at most a few hundred characters.
const LONGEST: usize = 4096;

/// What the page may do: nothing but read from where it came.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What every answer says beside what it is.
const ALWAYS: [(&str, &str); 4] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves `board` at `listen`, by a task among `tasks`.
///
/// # Errors
/// When the port can't be opened.
pub async fn serve(listen: SocketAddr, board: Board, tasks: &mut JoinSet<()>) -> Result<()> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Error::config("the port for the status page and /metrics can't be opened")
            .with("listen", listen)
            .remedy("set another http.listen in the configuration")
            .caused_by(error)
    })?;
    let at = listener.local_addr().unwrap_or(listen);
    info!("status page at http://{at}/, with /metrics and /health");
    tasks.spawn(async move {
        if let Err(error) = axum::serve(Door::new(listener), routes(board)).await {
            error!(%error, "the status page, /metrics and /health are not served any more");
        }
    });
    Ok(())
}

/// All that can be asked for.
fn routes(board: Board) -> Router {
    let file = |content_type: &'static str, text: &'static str| {
        let tag = format!("\"{:08x}\"", crc32fast::hash(text.as_bytes()));
        get(move |headers: HeaderMap| async move { page(&headers, content_type, text, &tag) })
    };
    Router::new()
        .route("/", file(HTML, include_str!("page/index.html")))
        .route("/page.css", file(CSS, include_str!("page/page.css")))
        .route("/page.js", file(SCRIPT, include_str!("page/page.js")))
        .route("/api/status", get(all))
        .route("/api/tables/{source}/{table}", get(one))
        .route("/metrics", get(numbers))
        .route("/health", get(health))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::new(Semaphore::new(AT_ONCE)), guard))
        .with_state(board)
}

/// A file of the page. A browser asks each time whether it is still the same, so that a new version
/// of the daemon is never shown by an old page.
fn page(
    headers: &HeaderMap,
    content_type: &'static str,
    text: &'static str,
    tag: &str,
) -> Response {
    let caching = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, tag)];
    let asked = headers.get(header::IF_NONE_MATCH).and_then(|asked| asked.to_str().ok());
    let known = asked.is_some_and(|asked| asked.split(',').any(|one| one.trim() == tag));
    match known {
        true => (StatusCode::NOT_MODIFIED, caching).into_response(),
        false => (caching, [(header::CONTENT_TYPE, content_type)], text).into_response(),
    }
}

async fn all(Shared(board): Shared<Board>) -> Response {
    json(StatusCode::OK, &status::all(&board))
}

async fn one(
    Shared(board): Shared<Board>,
    Path((source, table)): Path<(String, String)>,
) -> Response {
    let id = TableId::try_from(table).ok();
    match id.and_then(|id| status::one(&board, &source, &id)) {
        Some(table) => json(StatusCode::OK, &table),
        None => refuse(StatusCode::NOT_FOUND, "there is no such table"),
    }
}

async fn numbers(Shared(board): Shared<Board>) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], metrics::prometheus::text(&board)).into_response()
}

async fn health(Shared(board): Shared<Board>) -> (StatusCode, String) {
    match board.health() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(down) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not following: {}\n", down.join(", ")))
        }
    }
}

async fn nothing() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing here; see /, /metrics, /health and /api/status")
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let headers = [(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, "no-store")];
            (status, headers, text).into_response()
        }
        Err(error) => {
            error!(%error, "the status can't be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// An answer that says why there is none.
fn refuse(status: StatusCode, why: &str) -> Response {
    json(status, &serde_json::json!({ "error": why }))
}

/// Lets nothing through that is not a small question, and says on every answer what a browser may
/// do with it.
async fn guard(Shared(gate): Shared<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let mut response = match gate.try_acquire() {
        Ok(_turn) => match objection(&request) {
            None => next.run(request).await,
            Some((status, why)) => refuse(status, why),
        },
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once"),
    };
    let refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    if refused {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn objection(request: &Request) -> Option<(StatusCode, &'static str)> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "this port can only be read: GET or HEAD"));
    }
    let long = |part: &str| part.len() > LONGEST;
    if request.uri().path_and_query().is_some_and(|asked| long(asked.as_str())) {
        return Some((StatusCode::URI_TOO_LONG, "the path is too long"));
    }
    let headers = request.headers();
    let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    if !empty || headers.contains_key(header::TRANSFER_ENCODING) {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "no body is taken"));
    }
    None
}
