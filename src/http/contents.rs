//! The contents that a snapshot pins: the policies, facts, organisation and instruments that decided.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{reading, whole_log},
    auth::AsAuditor,
    problem::{Problem, ProblemKind, problems},
    tlog::TEXT,
};
use crate::{domain::Digest, gate::GateError};

problems! { ContentProblems: Unauthenticated, Forbidden, NotFound, LimitReached, QueueFull,
LedgerUnavailable, StorageLow, Timeout, Internal }

/// The endpoint of contents.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(content))
}

/// Read what a snapshot pins.
///
/// A decision's `snapshot` and a `bundle_activated` record name four contents by their SHA-256: `bundle` (the
/// policies, their schema and the dated facts), `facts` (those valid at the instant), `organisation` and
/// `registers` (the instruments in force). These are their bytes, which have that digest. The reading is recorded. Not for credentials
/// limited to jurisdictions: a content names all there is.
#[utoipa::path(
    get, path = "/v1/audit/contents/{digest}", tag = "audit", operation_id = "readContent",
    security(("api_key" = [])),
    params(("digest" = String, Path, description = "The SHA-256 in hexadecimal digits, with `sha256:` in front of it or without",
        pattern = "^(sha256:)?[0-9a-f]{64}$",
        example = "sha256:dbfcb5e2a1b7ab01fd3ce4c8e1a59b0f9e2ea1e0bb6f4ee2e92a9f62f0a2a1c4")),
    responses((status = 200, description = "Its bytes: JSON, or the organisation file's TOML", body = String,
        content_type = "text/plain", example = json!("{\"policies/base/base.cedar\": \"…\"}")), ContentProblems),
)]
async fn content(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    Path(digest): Path<String>,
) -> Result<Response, Problem> {
    whole_log(&auditor)?;
    let missing = || {
        let detail = "no snapshot of this log pins a content with this SHA-256; a record's `snapshot` names those that decided";
        Problem::new(ProblemKind::NotFound, detail)
    };
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    let wanted = Digest::from_hex(hex).ok_or_else(missing)?;
    let asked = BTreeMap::from([("digest".to_owned(), wanted.to_string())]);
    shared.gate.record_reading(reading(&auditor, "readContent", asked)).await?;
    let found = shared.gate.store().content(wanted).await.map_err(GateError::from)?;
    let headers = [
        (header::CONTENT_TYPE, TEXT),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, found.ok_or_else(missing)?).into_response())
}
