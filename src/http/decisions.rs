//! The decision API: is this call lawful, here, now, with this model?

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Shared,
    auth::AsCaller,
    body::{Json, Params},
    examples, limits,
    problem::{Problem, ProblemKind, problems},
    proofs::ProofAnswer,
};
use crate::{
    domain::{
        CallRequest, Candidate, Confidence, DecisionId, DeploymentId, Duty, Effect, FieldFault,
        Flow, PolicyId, Reached, Reason, Route, Seq, SnapshotDigests, Verdict,
    },
    gate::{Considered, Counterfactual, Explanation, IdempotencyKey, OutcomeReport, Recorded},
    ledger::timestamp_text,
};

/// The most calls of a batch.
const MAX_BATCH: usize = 100;

problems! { DecideProblems: MalformedBody, MalformedQuery, Unauthenticated, Forbidden, BodyTooLarge,
UnsupportedMediaType, InvalidRequest, AnswerOutdated, IdempotencyKeyReused, SlowBody, LimitReached,
QueueFull, LedgerUnavailable, SnapshotUnavailable, Overloaded, StorageLow, Timeout, Internal }
problems! { BatchProblems: MalformedBody, Unauthenticated, Forbidden, BodyTooLarge,
UnsupportedMediaType, InvalidRequest, SlowBody, LimitReached, QueueFull, LedgerUnavailable,
SnapshotUnavailable, Overloaded, StorageLow, Timeout, Internal }
problems! { OutcomeProblems: MalformedBody, Unauthenticated, Forbidden, NotFound, OutcomeConflict,
BodyTooLarge, UnsupportedMediaType, InvalidRequest, SlowBody, QueueFull, LedgerUnavailable,
Overloaded, Timeout, Internal }
problems! { ReadProblems: Unauthenticated, Forbidden, NotFound, LimitReached, QueueFull,
LedgerUnavailable, Overloaded, StorageLow, Timeout, Internal }
problems! { ExplainProblems: MalformedBody, Unauthenticated, Forbidden, BodyTooLarge,
UnsupportedMediaType, InvalidRequest, SlowBody, SnapshotUnavailable, Overloaded, Timeout, Internal }

/// The decision endpoints.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(decide))
        .routes(routes!(decide_batch))
        .routes(routes!(report_outcome))
        .routes(routes!(read_decision))
        .routes(routes!(explain))
}

/// A decision, with its reasons and its place in the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionAnswer<'a> {
    /// The decision's identifier.
    id: DecisionId,
    /// Whether the call may be made.
    decision: Verdict,
    /// When it was recorded: RFC 3339, microseconds, UTC.
    #[schema(format = DateTime)]
    decided_at: String,
    /// Where the call goes; `null` when it is denied.
    #[schema(required = true)]
    route: Option<&'a Route>,
    /// Every deployment considered, in the organisation's order.
    candidates: &'a [Candidate],
    /// Thresholds of people that the call reached, with all that left before it; absent when none.
    #[serde(skip_serializing_if = "<[Reached]>::is_empty")]
    reached: &'a [Reached],
    /// The policies that decided: for an allow those of the route, for a deny all.
    pub(super) reasons: Vec<ReasonAnswer<'a>>,
    /// What the caller must do, when allowed.
    duties: &'a [Duty],
    /// The snapshot that decided.
    snapshot: SnapshotDigests,
    /// Where the decision stands in the ledger.
    record: RecordAnswer<'a>,
}

/// One policy that decided, for one deployment and, where there is one, one flow.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReasonAnswer<'a> {
    /// Its `@id`; `default-deny` where no permit matched.
    pub(crate) policy: &'a PolicyId,
    /// What it does.
    effect: Effect,
    /// The law, licence or rule that it implements.
    pub(crate) citation: &'a str,
    /// How sure the least sure fact is on which the policy rested, for all flows of the call; absent
    /// where it was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<Confidence>,
    /// The facts among them that are general knowledge: nobody read a source for them. Absent where
    /// there are none.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false, example = json!(["GB in jp-appi-28"]))]
    pub(crate) general_facts: &'a [String],
    /// What to do about it.
    #[schema(required = true)]
    pub(crate) advice: Option<&'a str>,
    /// The deployment.
    pub(crate) deployment: &'a DeploymentId,
    /// The flow; `null` when the use itself was judged.
    #[schema(required = true)]
    pub(crate) flow: Option<&'a Flow>,
}

/// A record's place in a log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordAnswer<'a> {
    /// The log's origin.
    #[schema(example = "lexgate.example/main")]
    log: &'a str,
    /// The position.
    seq: Seq,
    /// The leaf hash, 64 hexadecimal digits.
    leaf: String,
    /// That the record is in the log, when `proof=true` asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofAnswer>,
}

impl<'a> From<&'a Recorded> for RecordAnswer<'a> {
    fn from(recorded: &'a Recorded) -> Self {
        Self { log: &recorded.log, seq: recorded.seq, leaf: recorded.leaf.hex(), proof: None }
    }
}

impl<'a> From<&'a Recorded> for DecisionAnswer<'a> {
    fn from(recorded: &'a Recorded) -> Self {
        let body = &recorded.body;
        Self {
            id: recorded.id,
            decision: body.decision,
            decided_at: timestamp_text(recorded.ts),
            route: body.route.as_ref(),
            candidates: &body.candidates,
            reached: &body.reached,
            reasons: reasons(&body.reasons),
            duties: &body.duties,
            snapshot: body.snapshot,
            record: recorded.into(),
        }
    }
}

fn reasons(reasons: &[Reason]) -> Vec<ReasonAnswer<'_>> {
    let places = reasons.iter().flat_map(|reason| reason.places.iter().map(move |at| (reason, at)));
    places
        .map(|(reason, place)| ReasonAnswer {
            policy: &reason.policy,
            effect: reason.effect,
            citation: &reason.citation,
            confidence: reason.confidence,
            general_facts: &reason.general_facts,
            advice: reason.advice.as_deref(),
            deployment: &place.deployment,
            flow: place.flow.as_ref(),
        })
        .collect()
}

/// Ask whether a call may be made.
///
/// Judges the call against every policy that can apply and records the decision before answering.
/// Answers 200 for allow and for deny alike: read `decision`. Tenant and app come from the
/// credential. With an `Idempotency-Key` the first answer to the same request is given again, for
/// 24 hours.
#[utoipa::path(
    post, path = "/v1/decisions", tag = "decisions", operation_id = "decide",
    security(("api_key" = [])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters"),
        Extras,
    ),
    request_body(content = CallRequest, examples(
        ("personal_data" = (summary = "About a person, to one deployment", value = json!(examples::call()))),
        ("no_personal_data" = (summary = "No personal data", value = json!(examples::plain_call()))),
    )),
    responses((status = 200, description = "The decision", body = DecisionAnswer,
        examples(
            ("denied" = (summary = "Denied", value = json!(examples::denied()))),
            ("allowed" = (summary = "Allowed", value = json!(examples::allowed()))),
        )), DecideProblems),
)]
async fn decide(
    State(shared): State<Arc<Shared>>,
    AsCaller(caller): AsCaller,
    headers: HeaderMap,
    Params(extras): Params<Extras>,
    Json(call): Json<CallRequest>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let recorded = shared.gate.decide(&caller, &call, key).await?;
    let mut answer = DecisionAnswer::from(&recorded);
    if extras.proof.unwrap_or_default() {
        let inclusion = shared.gate.inclusion(recorded.seq).await?;
        answer.record.proof = inclusion.as_ref().map(ProofAnswer::from);
    }
    let mut response = axum::Json(answer).into_response();
    limits::tell(response.headers_mut(), &recorded.limits);
    Ok(response)
}

/// What an answer is to hold beside the decision.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Extras {
    /// Whether to add the proof that the decision's record is in the log.
    proof: Option<bool>,
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = IdempotencyKey::parse(value.to_str().unwrap_or_default());
    key.map(Some).map_err(|fault| Problem::fields(ProblemKind::InvalidRequest, vec![fault]))
}

/// Several calls at once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchRequest {
    /// The calls, at most 100.
    #[serde(deserialize_with = "crate::domain::object::list")]
    #[schema(min_items = 1, max_items = 100)]
    calls: Vec<CallRequest>,
}

/// Their decisions, in the same order.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer<'a> {
    /// One decision for each call.
    decisions: Vec<DecisionAnswer<'a>>,
}

/// Ask for up to 100 decisions at once.
///
/// Answered in order and recorded in one commit: all of them, or none.
#[utoipa::path(
    post, path = "/v1/decisions/batch", tag = "decisions", operation_id = "decideBatch",
    security(("api_key" = [])),
    request_body(content = BatchRequest, example = json!({"calls": [examples::call(), examples::plain_call()]})),
    responses((status = 200, description = "The decisions", body = BatchAnswer,
        example = json!({"decisions": [examples::denied(), examples::allowed()]})), BatchProblems),
)]
async fn decide_batch(
    State(shared): State<Arc<Shared>>,
    AsCaller(caller): AsCaller,
    Json(batch): Json<BatchRequest>,
) -> Result<Response, Problem> {
    if !(1..=MAX_BATCH).contains(&batch.calls.len()) {
        let fault = FieldFault::new("/calls", format!("want 1 to {MAX_BATCH} calls"));
        return Err(Problem::fields(ProblemKind::InvalidRequest, vec![fault]));
    }
    let recorded = shared.gate.decide_all(&caller, &batch.calls).await?;
    let decisions = recorded.iter().map(Into::into).collect();
    let mut response = axum::Json(BatchAnswer { decisions }).into_response();
    if let Some(last) = recorded.last() {
        limits::tell(response.headers_mut(), &last.limits);
    }
    Ok(response)
}

/// Where an outcome stands in the ledger.
#[derive(Debug, Serialize, ToSchema)]
struct OutcomeAnswer {
    /// The decision.
    decision: Uuid,
    /// The outcome record's position.
    seq: Seq,
}

/// Report what became of an allowed call.
///
/// For callers that run inference themselves; the gateway records the outcomes of its own calls.
/// Once for each decision: a second report is 409.
#[utoipa::path(
    post, path = "/v1/decisions/{id}/outcome", tag = "decisions", operation_id = "reportOutcome",
    security(("api_key" = [])),
    params(("id" = Uuid, Path, description = "The decision's `id`", example = "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11")),
    request_body(content = OutcomeReport, example = json!(
        {"status": "ok", "input_tokens": 312, "output_tokens": 64, "model": "qwen3-32b"})),
    responses((status = 200, description = "The outcome is recorded", body = OutcomeAnswer,
        example = json!({"decision": "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11", "seq": 42})), OutcomeProblems),
)]
async fn report_outcome(
    State(shared): State<Arc<Shared>>,
    AsCaller(caller): AsCaller,
    Path(id): Path<String>,
    Json(report): Json<OutcomeReport>,
) -> Result<axum::Json<OutcomeAnswer>, Problem> {
    let Ok(id) = id.parse::<Uuid>() else {
        return Err(Problem::new(ProblemKind::NotFound, "a decision's identifier is a UUID"));
    };
    let seq = shared.gate.report(&caller, id, report).await?;
    Ok(axum::Json(OutcomeAnswer { decision: id, seq }))
}

/// Where an app reads a decision of its own.
pub(super) fn decision_path(id: DecisionId) -> String {
    format!("/v1/decisions/{id}")
}

/// Read a decision again.
///
/// One that this app asked for, through whichever endpoint: the whole of what a denial of the gateway says
/// in short. The reading is recorded, as every reading of the ledger is, and held to the same limit.
#[utoipa::path(
    get, path = "/v1/decisions/{id}", tag = "decisions", operation_id = "readDecision",
    security(("api_key" = [])),
    params(("id" = Uuid, Path, description = "The decision's `id`", example = "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11")),
    responses((status = 200, description = "The decision", body = DecisionAnswer,
        example = json!(examples::denied())), ReadProblems),
)]
async fn read_decision(
    State(shared): State<Arc<Shared>>,
    AsCaller(caller): AsCaller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let Ok(id) = id.parse::<Uuid>() else {
        return Err(Problem::new(ProblemKind::NotFound, "a decision's identifier is a UUID"));
    };
    let recorded = shared.gate.read_decision(&caller, id).await?;
    Ok(axum::Json(DecisionAnswer::from(&recorded)).into_response())
}

/// What the policies say of a call, and what else there is to know.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainAnswer<'a> {
    /// Whether the call would be allowed.
    pub(crate) decision: Verdict,
    /// Where it would go; `null` when the call would be denied.
    #[schema(required = true)]
    pub(crate) route: Option<&'a Route>,
    /// Every deployment considered.
    pub(crate) candidates: &'a [Candidate],
    /// Thresholds of people that the call reaches, with all that left before it; absent when none.
    #[serde(skip_serializing_if = "<[Reached]>::is_empty")]
    #[schema(required = false)]
    pub(crate) reached: &'a [Reached],
    /// The policies that would decide.
    pub(crate) reasons: Vec<ReasonAnswer<'a>>,
    /// What the caller would have to do.
    duties: &'a [Duty],
    /// Every policy whose scope matches the call.
    considered: &'a [Considered],
    /// What would make a denied call pass at each deployment considered: computed from the policies,
    /// and judged.
    pub(crate) would_pass: &'a [Counterfactual],
    /// Deployments of the organisation that may serve this very call, in its order.
    pub(crate) allowed_deployments: &'a [DeploymentId],
    /// Whether the search was cut short, because it took too long: `would_pass` and
    /// `allowed_deployments` may lack something then. What they say holds. Absent when it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub(crate) cut_short: bool,
    /// The snapshot that judged.
    snapshot: SnapshotDigests,
}

impl<'a> ExplainAnswer<'a> {
    /// The answer to one call before one snapshot.
    pub(crate) fn new(explanation: &'a Explanation, snapshot: SnapshotDigests) -> Self {
        let evaluation = &explanation.judged.evaluation;
        Self {
            decision: evaluation.decision,
            route: evaluation.route.as_ref(),
            candidates: &evaluation.candidates,
            reached: &explanation.reached,
            reasons: reasons(&evaluation.reasons),
            duties: &evaluation.duties,
            considered: &explanation.considered,
            would_pass: &explanation.counterfactuals,
            allowed_deployments: &explanation.allowed_deployments,
            cut_short: explanation.cut_short,
            snapshot,
        }
    }
}

/// Ask why, without deciding.
///
/// Nothing is recorded and nothing is sent. Adds every policy considered, the deployments of the
/// organisation that may serve this very call, and, for a denial, what would make it pass:
/// instruments, certifications, side licences and the like that would lift each policy, and where the
/// data may go.
#[utoipa::path(
    post, path = "/v1/explain", tag = "decisions", operation_id = "explain",
    security(("api_key" = [])),
    request_body(content = CallRequest, example = json!(examples::call())),
    responses((status = 200, description = "The explanation", body = ExplainAnswer,
        example = json!(examples::explained())), ExplainProblems),
)]
async fn explain(
    State(shared): State<Arc<Shared>>,
    AsCaller(caller): AsCaller,
    Json(call): Json<CallRequest>,
) -> Result<Response, Problem> {
    let judge = shared.gate.keeper().deciding()?;
    let explanation = shared.gate.explain(&judge, &caller, &call).await?;
    let answer = ExplainAnswer::new(&explanation, judge.snapshot().digests);
    Ok(axum::Json(answer).into_response())
}
