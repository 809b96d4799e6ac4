//! Legal holds, for officers: which records are kept although their time is over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Shared,
    audit::Filters,
    auth::AsOfficer,
    body::{Json, Params},
    examples, names,
    problem::{Problem, ProblemKind, problems},
};
use crate::{
    domain::{FieldFault, Seq},
    gate::{self, GateError, Hold},
    ledger::LegalHoldBody,
    store::RecordQuery,
};

/// The longest reason, in characters.
const MAX_REASON: usize = 1_000;

problems! { ListProblems: Unauthenticated, Forbidden, LedgerUnavailable, Overloaded, Timeout,
SlowQuery, Internal }
problems! { SetProblems: MalformedBody, Unauthenticated, Forbidden, BodyTooLarge,
UnsupportedMediaType, InvalidRequest, SlowBody, LimitReached, QueueFull, LedgerUnavailable,
Overloaded, Timeout, SlowQuery, Internal }
problems! { LiftProblems: MalformedQuery, Unauthenticated, Forbidden, NotFound, LimitReached,
QueueFull, LedgerUnavailable, Timeout, Internal }

/// The endpoints of legal holds.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(set, lift))
}

/// The holds in force.
#[derive(Debug, Serialize, ToSchema)]
struct Holds {
    /// By their names.
    holds: Vec<HoldAnswer>,
}

/// A hold in force.
#[derive(Debug, Serialize, ToSchema)]
struct HoldAnswer {
    /// Its name.
    id: String,
    /// Why.
    reason: String,
    /// The records that it holds: filters of `GET /v1/audit/records`, all of which must match.
    records: BTreeMap<String, String>,
    /// The record that says so.
    record: Seq,
    /// How many records match now, counted up to 1,000: a misspelt name matches none. Absent where counting
    /// them takes too long; the hold is in force all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<usize>,
}

/// How far matches are counted, and for how long in one answer.
const COUNTED: usize = 1_000;
const COUNTING: Duration = Duration::from_secs(4);

impl HoldAnswer {
    /// Its matches are counted until `deadline`.
    async fn new(
        shared: &Shared,
        id: String,
        hold: Hold,
        deadline: Instant,
    ) -> Result<Self, GateError> {
        let query = RecordQuery { limit: COUNTED, ..hold.query() };
        let matches = match timeout_at(deadline, shared.gate.search(&query)).await {
            Ok(Ok(found)) => Some(found.len()),
            Ok(Err(GateError::SlowQuestion { .. } | GateError::Busy(_))) | Err(_) => None,
            Ok(Err(error)) => return Err(error),
        };
        Ok(Self { id, reason: hold.reason, records: hold.records, record: hold.seq, matches })
    }
}

/// A hold that is to be in force.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    /// Why.
    #[schema(max_length = 1_000)]
    reason: String,
    /// The records that it holds: filters of `GET /v1/audit/records`, all of which must match; `{}`
    /// holds all.
    #[schema(value_type = BTreeMap<String, String>)]
    records: Filters,
}

/// List legal holds.
///
/// What they hold is not pruned, whatever its retention class says, and not erased without a word.
#[utoipa::path(
    get, path = "/v1/legal-holds", tag = "registers", operation_id = "listLegalHolds",
    security(("api_key" = [])),
    responses((status = 200, description = "The holds in force", body = Holds,
        example = json!({"holds": [examples::hold()]})), ListProblems),
)]
async fn list(
    State(shared): State<Arc<Shared>>,
    _: AsOfficer,
) -> Result<axum::Json<Holds>, Problem> {
    let holds = gate::holds(&**shared.gate.store()).await?;
    let mut answer = Holds { holds: Vec::new() };
    let deadline = Instant::now() + COUNTING;
    for (id, hold) in holds {
        answer.holds.push(HoldAnswer::new(&shared, id, hold, deadline).await?);
    }
    Ok(axum::Json(answer))
}

/// Set a legal hold, or change it.
///
/// The ledger records it. It holds what is there and what is to come.
#[utoipa::path(
    put, path = "/v1/legal-holds/{id}", tag = "registers", operation_id = "setLegalHold",
    security(("api_key" = [])),
    params(("id" = String, Path, description = "Its name: 1 to 64 of `A`-`Z`, `a`-`z`, `0`-`9`, `.`, `_`, `-`",
        example = "case-2026-17")),
    request_body(content = HoldRequest, example = json!(examples::hold_request())),
    responses((status = 200, description = "The hold", body = HoldAnswer,
        example = json!(examples::hold())), SetProblems),
)]
async fn set(
    State(shared): State<Arc<Shared>>,
    officer: AsOfficer,
    Path(id): Path<String>,
    Json(request): Json<HoldRequest>,
) -> Result<axum::Json<HoldAnswer>, Problem> {
    let mut faults = request.records.faults("/records/");
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&id.len()) || !id.bytes().all(fits) {
        faults.push(FieldFault::parameter("id", "want 1 to 64 letters, digits, `.`, `_` or `-`"));
    }
    faults.extend(check_reason(&request.reason, "/reason"));
    let looking = names::Looking { scope: &[], is_sure: true };
    faults.extend(names::unknown(&shared, &request.records, &looking, "/records/").await?);
    for name in ["after", "limit", "order"] {
        if request.records.given().contains_key(name) {
            let pointer = format!("/records/{name}");
            faults.push(FieldFault::new(pointer, "a hold has no pages and no order: leave it out"));
        }
    }
    if !faults.is_empty() {
        return Err(Problem::fields(ProblemKind::InvalidRequest, faults));
    }
    let records = request.records.given();
    let body = LegalHoldBody {
        id: id.clone(),
        key: officer.key,
        reason: request.reason.clone(),
        records: Some(records.clone()),
    };
    let seq = shared.gate.record_hold(&body).await?;
    let hold = Hold { reason: request.reason, records, seq };
    let deadline = Instant::now() + COUNTING;
    Ok(axum::Json(HoldAnswer::new(&shared, id, hold, deadline).await?))
}

/// Why a hold is lifted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Lifting {
    /// Why it is lifted.
    #[param(value_type = String, example = "the case is closed")]
    reason: Option<String>,
}

/// The record of a change.
#[derive(Debug, Serialize, ToSchema)]
struct Changed {
    /// The record that says so.
    record: Seq,
}

/// Lift a legal hold.
///
/// The ledger records it. What it held is pruned again when its time is over.
#[utoipa::path(
    delete, path = "/v1/legal-holds/{id}", tag = "registers", operation_id = "liftLegalHold",
    security(("api_key" = [])),
    params(("id" = String, Path, description = "Its name: 1 to 64 of `A`-`Z`, `a`-`z`, `0`-`9`, `.`, `_`, `-`", example = "case-2026-17"), Lifting),
    responses((status = 200, description = "It is lifted", body = Changed,
        example = json!({"record": 58})), LiftProblems),
)]
async fn lift(
    State(shared): State<Arc<Shared>>,
    officer: AsOfficer,
    Path(id): Path<String>,
    Params(lifting): Params<Lifting>,
) -> Result<axum::Json<Changed>, Problem> {
    let reason = lifting.reason.unwrap_or_default();
    if let Some(fault) = check_reason(&reason, "reason") {
        return Err(Problem::fields(ProblemKind::MalformedQuery, vec![fault]));
    }
    if !gate::holds(&**shared.gate.store()).await?.contains_key(&id) {
        return Err(Problem::new(ProblemKind::NotFound, "there is no such hold in force"));
    }
    let body = LegalHoldBody { id, key: officer.key, reason, records: None };
    Ok(axum::Json(Changed { record: shared.gate.record_hold(&body).await? }))
}

pub(super) fn check_reason(reason: &str, pointer: &str) -> Option<FieldFault> {
    let fits = !reason.trim().is_empty() && reason.chars().count() <= MAX_REASON;
    (!fits).then(|| FieldFault::new(pointer, format!("want 1 to {MAX_REASON} characters")))
}
