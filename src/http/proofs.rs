//! Proofs for regulators: that a record is in the log, that the log only grew, and whose keys say so.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::{find, is_removed, reading},
    auth::AsAuditor,
    body::Params,
    examples,
    problem::{Problem, ProblemKind, problems},
    tlog::TEXT,
};
use crate::{
    domain::{Digest, FieldFault, Seq},
    gate::{GateError, Inclusion, log_keys},
};

problems! { ProofProblems: Unauthenticated, Forbidden, NotFound, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, Internal }
problems! { TreeProblems: Unauthenticated, Forbidden, LedgerUnavailable, Timeout, Internal }
problems! { ConsistencyProblems: MalformedQuery, Unauthenticated, Forbidden, LedgerUnavailable,
Timeout, Internal }

/// The endpoints of proofs.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(prove))
        .routes(routes!(checkpoint))
        .routes(routes!(consistency))
        .routes(routes!(keys))
}

/// That a record is in the log: with the log's verifier key, enough to verify it offline.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProofAnswer {
    /// The record's position.
    index: u64,
    /// How many entries the tree has.
    size: u64,
    /// The root of the tree, 64 hexadecimal digits.
    root: String,
    /// From the leaf's sibling up (RFC 6962, 2.1.1), 64 hexadecimal digits each.
    hashes: Vec<String>,
    /// The checkpoint that holds size and root, as it was signed (C2SP signed-note).
    checkpoint: String,
}

impl From<&Inclusion> for ProofAnswer {
    fn from(inclusion: &Inclusion) -> Self {
        Self {
            index: inclusion.proof.index,
            size: inclusion.tree.size,
            root: inclusion.tree.root.hex(),
            hashes: inclusion.proof.hashes.iter().map(Digest::hex).collect(),
            checkpoint: inclusion.proof.checkpoint.to_string(),
        }
    }
}

/// A record with the proof that it is in the log.
#[derive(Debug, Serialize, ToSchema)]
struct ProvenRecord {
    /// The record's position.
    seq: Seq,
    /// Its leaf hash: SHA-256 of a zero byte and the entry's bytes, 64 hexadecimal digits.
    leaf: String,
    /// The entry: its bytes are canonical JSON (RFC 8785) as they stand here. Absent when it was
    /// removed, its time being over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    entry: Option<Box<RawValue>>,
    /// The proof.
    proof: ProofAnswer,
}

/// Prove that a record is in the log.
///
/// JSON, to be verified with `/verify.html`; with `Accept: text/plain` a C2SP tlog-proof. The reading
/// is recorded.
#[utoipa::path(
    get, path = "/v1/audit/records/{seq}/proof", tag = "audit", operation_id = "proveRecord",
    security(("api_key" = [])),
    params(("seq" = u64, Path, description = "The record's position", example = 0)),
    responses((status = 200, description = "The record and its proof", content(
        (ProvenRecord = "application/json", example = json!(examples::proven())),
        (String = "text/plain", example = json!(examples::tlog_proof())),
    )), ProofProblems),
)]
async fn prove(
    State(shared): State<Arc<Shared>>,
    auditor: AsAuditor,
    headers: HeaderMap,
    Path(seq): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(ProblemKind::NotFound, format!("there is no record {seq}"));
    let wanted = Seq::new(seq.parse().map_err(|_| missing())?);
    let asked = BTreeMap::from([("seq".to_owned(), wanted.to_string())]);
    shared.gate.record_reading(reading(&auditor, "proveRecord", asked)).await?;
    let stored = match find(&shared, &auditor, wanted).await? {
        Some(stored) => stored,
        None if is_removed(&shared, &auditor, wanted).await? => {
            let row = shared.gate.store().record(wanted).await.map_err(GateError::from)?;
            row.ok_or_else(missing)?
        }
        None => return Err(missing()),
    };
    let inclusion = shared.gate.inclusion(wanted).await?.ok_or_else(missing)?;
    if wants_text(&headers) {
        return Ok(([(header::CONTENT_TYPE, TEXT)], inclusion.proof.to_string()).into_response());
    }
    let proof = ProofAnswer::from(&inclusion);
    let entry = match &*stored.entry {
        [] => None,
        bytes => Some(serde_json::from_slice(bytes).map_err(|_| GateError::Corrupt)?),
    };
    let (seq, leaf) = (stored.seq, stored.leaf.hex());
    Ok(axum::Json(ProvenRecord { seq, leaf, entry, proof }).into_response())
}

/// Whether the client asks for text before JSON.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let first = accept.and_then(|accept| accept.split([',', ';']).next());
    first.is_some_and(|first| first.trim().eq_ignore_ascii_case("text/plain"))
}

/// The tree as it was signed last.
#[derive(Debug, Serialize, ToSchema)]
struct CheckpointAnswer {
    /// The log's name.
    log: String,
    /// How many entries it has.
    size: u64,
    /// The root of their tree, 64 hexadecimal digits.
    root: String,
    /// The signed note that says so.
    checkpoint: String,
    /// The greatest checkpoint that witnesses have cosigned, with their signatures; some seconds older.
    #[serde(skip_serializing_if = "Option::is_none")]
    witnessed: Option<String>,
}

/// The log's checkpoint.
///
/// What `/tlog/checkpoint` says, taken apart; with `Accept: text/plain` the note itself. Keep it: a log
/// that is later shorter, or another one, contradicts it.
#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "readCheckpoint",
    security(("api_key" = [])),
    responses((status = 200, description = "The checkpoint", content(
        (CheckpointAnswer = "application/json", example = json!(examples::checkpoint())),
        (String = "text/plain", example = json!(examples::CHECKPOINT)),
    )), TreeProblems),
)]
async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    _: AsAuditor,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (tree, note) = shared.gate.checkpoint().await?;
    if wants_text(&headers) {
        return Ok(([(header::CONTENT_TYPE, TEXT)], note.to_string()).into_response());
    }
    let (size, root) = (tree.size, tree.root.hex());
    let log = tree.origin.to_string();
    let witnessed = shared.gate.store().witnessed().await.map_err(GateError::from)?;
    let answer = CheckpointAnswer { log, size, root, checkpoint: note.to_string(), witnessed };
    Ok(axum::Json(answer).into_response())
}

/// Two sizes of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Span {
    /// The number of entries of the smaller tree, as an earlier checkpoint gave it.
    #[param(value_type = u64, example = 1)]
    from: Option<String>,
    /// The number of entries of the larger tree; the latest checkpoint's when absent.
    #[param(value_type = Option<u64>)]
    to: Option<String>,
}

/// That the log of one checkpoint goes on from that of another.
#[derive(Debug, Serialize, ToSchema)]
struct ConsistencyAnswer {
    /// The size of the smaller tree.
    from: u64,
    /// The size of the larger tree.
    to: u64,
    /// The proof (RFC 6962, 2.1.2), 64 hexadecimal digits each.
    hashes: Vec<String>,
}

/// Prove that the log only grew.
///
/// That the tree of the smaller size is the beginning of the tree of the larger one (RFC 6962, 2.1.2).
#[utoipa::path(
    get, path = "/v1/audit/consistency", tag = "audit", operation_id = "proveConsistency",
    security(("api_key" = [])),
    params(Span),
    responses((status = 200, description = "The proof", body = ConsistencyAnswer,
        example = json!(examples::consistency())), ConsistencyProblems),
)]
async fn consistency(
    State(shared): State<Arc<Shared>>,
    _: AsAuditor,
    Params(span): Params<Span>,
) -> Result<axum::Json<ConsistencyAnswer>, Problem> {
    let (tree, _) = shared.gate.checkpoint().await?;
    let want = format!("want a number of entries up to {}", tree.size);
    let bad = |field: &str| {
        let fault = FieldFault::new(field, want.clone());
        Problem::fields(ProblemKind::MalformedQuery, vec![fault])
    };
    let number = |text: &str| text.parse().ok().filter(|size| *size <= tree.size);
    let from = span.from.as_deref().and_then(number).ok_or_else(|| bad("from"))?;
    let to = span.to.as_deref().map_or(Some(tree.size), number).ok_or_else(|| bad("to"))?;
    let hashes = shared.gate.consistency(from, to).await?.ok_or_else(|| bad("from"))?;
    let hashes = hashes.iter().map(Digest::hex).collect();
    Ok(axum::Json(ConsistencyAnswer { from, to, hashes }))
}

/// The keys that have signed the log.
#[derive(Debug, Serialize, ToSchema)]
struct KeysAnswer {
    /// The oldest first.
    keys: Vec<KeyAnswer>,
}

/// A key of the log.
#[derive(Debug, Serialize, ToSchema)]
struct KeyAnswer {
    /// The verifier key (C2SP signed-note): `origin+hash+key`.
    vkey: String,
    /// The record that names it.
    from_seq: Seq,
}

/// The log's keys.
///
/// The first stands in record 0; each later one in a `key_changed` record that the one before it has
/// signed. Compare the first with the one that the log's operator gave you by another way.
#[utoipa::path(
    get, path = "/v1/audit/keys", tag = "audit", operation_id = "listKeys",
    security(("api_key" = [])),
    responses((status = 200, description = "The keys", body = KeysAnswer,
        example = json!(examples::keys())), TreeProblems),
)]
async fn keys(
    State(shared): State<Arc<Shared>>,
    _: AsAuditor,
) -> Result<axum::Json<KeysAnswer>, Problem> {
    let keys = log_keys(&**shared.gate.store()).await?;
    let keys = keys.into_iter().map(|key| KeyAnswer { vkey: key.vkey, from_seq: key.from_seq });
    Ok(axum::Json(KeysAnswer { keys: keys.collect() }))
}
