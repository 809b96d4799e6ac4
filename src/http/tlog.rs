//! The log as a transparency log (C2SP tlog-tiles): files that strangers' tools can read. Checkpoint
//! and tiles are for everybody; they say how much there is, and nothing of what.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State},
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{reading, whole_log},
    auth::AsAuditor,
    examples,
    problem::{Problem, ProblemKind, problems},
};
use crate::ledger::TilePath;

/// The page that verifies a record in a browser; it sends nothing.
const PAGE: &str = include_str!("../../docs/verify.html");
/// The checkpoint changes with every commit.
const FRESH: &str = "no-cache";
/// A tile never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Entries are not for everybody, and a body goes when its time is over.
const FRESH_PRIVATE: &str = "private, no-cache";
/// The type of a note.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

problems! { CheckpointProblems: LedgerUnavailable, Timeout, Internal }
problems! { TileProblems: NotFound, LedgerUnavailable, Timeout, Internal }
problems! { EntriesProblems: Unauthenticated, Forbidden, NotFound, LimitReached, QueueFull,
LedgerUnavailable, StorageLow, Timeout, Internal }

/// The log's files.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    // A number has as many parts as it needs: one route takes them all.
    OpenApiRouter::new()
        .routes(routes!(checkpoint))
        .route("/tlog/tile/{*path}", get(files))
        .route("/verify.html", get(|| async { Html(PAGE) }))
}

async fn files(
    State(shared): State<Arc<Shared>>,
    auditor: Result<AsAuditor, Problem>,
    Path(path): Path<String>,
) -> Result<Response, Problem> {
    if path.starts_with("entries/") {
        entries(&shared, &auditor?, &path).await
    } else {
        tile(&shared, &path).await
    }
}

/// The log's checkpoint.
///
/// A signed note (C2SP tlog-checkpoint): origin, number of entries, root in base64, signatures.
#[utoipa::path(
    get, path = "/tlog/checkpoint", tag = "tlog", operation_id = "tlogCheckpoint",
    responses((status = 200, description = "The checkpoint", body = String,
        content_type = "text/plain", example = json!(examples::CHECKPOINT)), CheckpointProblems),
)]
async fn checkpoint(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let (_, note) = shared.gate.checkpoint().await?;
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, FRESH)];
    Ok((headers, note.to_string()).into_response())
}

/// A tile of the Merkle tree.
///
/// Up to 256 hashes of 32 bytes. The number is written in groups of three digits, all but the last
/// behind an `x`: `x001/234`; a tile that is not full has its width behind it: `x001/234.p/17`.
#[utoipa::path(
    get, path = "/tlog/tile/{level}/{number}", tag = "tlog", operation_id = "tlogTile",
    params(
        ("level" = u32, Path, description = "0 for leaves", example = 0),
        ("number" = String, Path, description = "`000`, `x001/234`, `x001/234.p/17`", example = "000.p/1"),
    ),
    responses((status = 200, description = "The hashes", body = String,
        content_type = "application/octet-stream", example = json!("32 bytes for each hash")), TileProblems),
)]
async fn tile(shared: &Shared, path: &str) -> Result<Response, Problem> {
    let Ok(TilePath::Hashes { id, width }) = path.parse() else { return Err(no_path(path)) };
    let bytes = shared.gate.tile(id, width).await?;
    Ok(file(bytes.ok_or_else(|| not_there(path))?, FOR_EVER))
}

/// A bundle of entries.
///
/// Up to 256 entries, each behind its length as a big-endian 16-bit number. The reading is recorded.
/// Not for credentials limited to jurisdictions: a bundle is whole, or does not verify.
#[utoipa::path(
    get, path = "/tlog/tile/entries/{number}", tag = "tlog", operation_id = "tlogEntries",
    security(("api_key" = [])),
    params(("number" = String, Path, description = "`000`, `x001/234`, `x001/234.p/17`", example = "000.p/1")),
    responses((status = 200, description = "The entries", body = String,
        content_type = "application/octet-stream", example = json!("entries, each behind its length")), EntriesProblems),
)]
async fn entries(shared: &Shared, auditor: &AsAuditor, path: &str) -> Result<Response, Problem> {
    whole_log(auditor)?;
    let Ok(TilePath::Entries { n, width }) = path.parse() else { return Err(no_path(path)) };
    let asked = BTreeMap::from([("path".to_owned(), path.to_owned())]);
    shared.gate.record_reading(reading(auditor, "tlogEntries", asked)).await?;
    let bytes = shared.gate.entries(n, width).await?;
    Ok(file(bytes.ok_or_else(|| not_there(path))?, FRESH_PRIVATE))
}

fn file(bytes: Vec<u8>, cached: &'static str) -> Response {
    let kind = "application/octet-stream";
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cached)];
    (headers, bytes).into_response()
}

fn no_path(path: &str) -> Problem {
    let detail = match path.parse::<TilePath>() {
        Err(error) => format!("`{path}` names no tile: {error}"),
        Ok(_) => format!("`{path}` names no tile of the tree"),
    };
    Problem::new(ProblemKind::NotFound, detail)
}

fn not_there(path: &str) -> Problem {
    let detail = format!("the log has no tile `{path}`, or not so wide: see `/tlog/checkpoint`");
    Problem::new(ProblemKind::NotFound, detail)
}
