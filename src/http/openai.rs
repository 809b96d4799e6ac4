//! The gateway: OpenAI's API, with the call judged before it leaves and the claims stripped.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    RequestId, Shared,
    auth::AsCaller,
    body::{self, MODEL_BODY},
    claims,
    decisions::DecisionAnswer,
    examples,
    problem::{Problem, ProblemKind},
};
use crate::{
    dispatch::Fields,
    domain::JurisdictionCode,
    gate::{GateError, ModelCall, Recorded, Reply, ReplyBody, Served},
    ledger::OutcomeStatus,
};

/// The gateway's endpoints.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(chat_completions)).routes(routes!(models))
}

/// An error in the shape that OpenAI's SDKs read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorBody {
    /// In words.
    message: String,
    /// The family: `policy_denied`, `invalid_request_error`, `upstream_error`, `unavailable`, …
    #[serde(rename = "type")]
    kind: String,
    /// The header or field that is wrong.
    param: Option<String>,
    /// The kind; for a denial the first deciding policy.
    code: String,
    /// For a denial: the whole decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DecisionAnswer>)]
    decision: Option<Box<RawValue>>,
}

/// A failure of the gateway on its way to the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<String>,
    may_retry: bool,
}

impl Failure {
    fn new(status: StatusCode, kind: &str, code: &str, message: String) -> Self {
        let body = ErrorBody {
            message,
            kind: kind.to_owned(),
            param: None,
            code: code.to_owned(),
            decision: None,
        };
        Self { status, body, retry_after: None, may_retry: true }
    }

    fn denied(recorded: &Recorded) -> Self {
        let decision = DecisionAnswer::from(recorded);
        let first = decision.reasons.first();
        let (policy, words) = first.map_or(("default-deny".to_owned(), String::new()), |reason| {
            let advice = reason.advice.unwrap_or_default();
            (reason.policy.to_string(), format!("{}. {advice}", reason.citation))
        });
        let message = format!("denied by {policy}: {words}");
        let mut failure = Self::new(StatusCode::FORBIDDEN, "policy_denied", &policy, message);
        failure.body.decision = serde_json::value::to_raw_value(&decision).ok();
        failure.may_retry = false;
        failure
    }

    fn upstream(status: OutcomeStatus, upstream: Option<u16>, retry_after: Option<String>) -> Self {
        let (status, message) = match (status, upstream) {
            (_, Some(429)) => (
                StatusCode::TOO_MANY_REQUESTS,
                "every allowed backend is busy; the call went nowhere else".to_owned(),
            ),
            (OutcomeStatus::Timeout, _) => (
                StatusCode::GATEWAY_TIMEOUT,
                "no allowed backend answered in time; the call went nowhere else".to_owned(),
            ),
            (_, Some(status)) => (
                StatusCode::BAD_GATEWAY,
                format!(
                    "no allowed backend gave a usable answer (last status {status}); the call went nowhere else"
                ),
            ),
            (_, None) => (
                StatusCode::BAD_GATEWAY,
                "no allowed backend could be reached; the call went nowhere else".to_owned(),
            ),
        };
        let mut failure = Self::new(status, "upstream_error", "upstream_error", message);
        failure.retry_after = retry_after;
        failure
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let first = problem.errors.first();
        let unknown_model =
            first.is_some_and(|fault| fault.pointer == "/model" || fault.pointer == "/deployment");
        let (status, kind, code) = match problem.kind {
            ProblemKind::InvalidRequest if unknown_model => {
                (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found")
            }
            ProblemKind::InvalidRequest => {
                (StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_claims")
            }
            kind if kind.status() == StatusCode::UNAUTHORIZED => {
                (kind.status(), "authentication_error", "invalid_api_key")
            }
            kind if kind.status() == StatusCode::FORBIDDEN => {
                (kind.status(), "permission_error", "insufficient_permissions")
            }
            kind if kind.status().is_client_error() => {
                (kind.status(), "invalid_request_error", kind.name())
            }
            kind => (kind.status(), "unavailable", kind.name()),
        };
        let message = first.map_or(problem.detail.clone(), |fault| fault.detail.clone());
        let mut failure = Self::new(status, kind, code, message);
        failure.may_retry = problem.kind != ProblemKind::NoBackend;
        failure.body.param = first.map(|fault| fault.pointer.trim_start_matches('/').to_owned());
        failure.retry_after = problem.retry_after().map(str::to_owned);
        failure
    }
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, axum::Json(ErrorAnswer { error: self.body })).into_response();
        let headers = response.headers_mut();
        if !self.may_retry {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(value) = self.retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// Call a chat model.
///
/// OpenAI's endpoint, whole and streamed: the body goes to the chosen backend as it is, but for the
/// model's name and the claims. What the call is about comes in headers, or in `metadata` under the
/// same names in snake case (`lexgate_subjects`); a contradiction between them is a 400. A call that
/// declares nothing about its data is denied.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "gateway", operation_id = "createChatCompletion",
    security(("api_key" = [])),
    params(
        ("x-lexgate-personal" = Option<bool>, Header, description = "Whether the data relates to identifiable people; when absent: whether categories or subjects are given"),
        ("x-lexgate-data" = Option<String>, Header, description = "Categories, comma-separated; empty: classified, none apply", example = "dpv-pd:Health"),
        ("x-lexgate-subjects" = Option<String>, Header, description = "Jurisdictions of the data subjects, comma-separated", example = "DE"),
        ("x-lexgate-purpose" = Option<String>, Header, description = "The purpose", example = "dpv:ServiceProvision"),
        ("x-lexgate-audience" = Option<String>, Header, description = "Jurisdictions in which the answer is used, comma-separated"),
        ("x-lexgate-location" = Option<String>, Header, description = "Where the call is made", example = "DE"),
    ),
    request_body(content = Object, description = "As OpenAI's; `model` is a virtual model, a model or a deployment",
        example = json!({"model": "assistant", "messages": [{"role": "user", "content": "Good morning"}], "max_tokens": 32})),
    responses(
        (status = 200, description = "The backend's answer", body = Object,
            headers(
                ("x-lexgate-decision" = String, description = "The decision's identifier"),
                ("x-lexgate-record" = u64, description = "The decision's position in the ledger"),
                ("x-lexgate-deployment" = String, description = "The deployment that answered"),
                ("x-lexgate-jurisdictions" = String, description = "Where inference ran"),
            ),
            example = json!({"id": "chatcmpl-1", "object": "chat.completion", "model": "smollm2-135m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Good morning!"}}],
                "usage": {"prompt_tokens": 31, "completion_tokens": 4, "total_tokens": 35}})),
        (status = 400, description = "The body or the claims cannot be used", body = ErrorAnswer,
            example = json!({"error": {"message": "`x-lexgate-subjects` and metadata `lexgate_subjects` contradict each other", "type": "invalid_request_error", "param": "x-lexgate-subjects", "code": "invalid_claims"}})),
        (status = 401, description = "A valid API key is required", body = ErrorAnswer,
            example = json!({"error": {"message": "the API key is not known", "type": "authentication_error", "param": null, "code": "invalid_api_key"}})),
        (status = 403, description = "Denied by a policy, or the key lacks the role", body = ErrorAnswer,
            example = json!(examples::denied_openai())),
        (status = 404, description = "Unknown model", body = ErrorAnswer,
            example = json!({"error": {"message": "unknown model `gpt-9`: `GET /v1/models` lists the models", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})),
        (status = 413, description = "The body is too large", body = ErrorAnswer,
            example = json!({"error": {"message": "the body is larger than 33554432 bytes", "type": "invalid_request_error", "param": null, "code": "body-too-large"}})),
        (status = 415, description = "The body must be JSON", body = ErrorAnswer,
            example = json!({"error": {"message": "send `Content-Type: application/json`", "type": "invalid_request_error", "param": null, "code": "unsupported-media-type"}})),
        (status = 429, description = "Every allowed backend is busy", body = ErrorAnswer,
            example = json!({"error": {"message": "every allowed backend is busy; the call went nowhere else", "type": "upstream_error", "param": null, "code": "upstream_error"}})),
        (status = 500, description = "The service failed", body = ErrorAnswer,
            example = json!({"error": {"message": "the service's log says more under this request's identifier", "type": "unavailable", "param": null, "code": "internal"}})),
        (status = 502, description = "No allowed backend gave a usable answer", body = ErrorAnswer,
            example = json!({"error": {"message": "no allowed backend could be reached; the call went nowhere else", "type": "upstream_error", "param": null, "code": "upstream_error"}})),
        (status = 503, description = "The ledger cannot be written, or no allowed deployment has a backend", body = ErrorAnswer,
            example = json!({"error": {"message": "the ledger cannot be written: no record, no call", "type": "unavailable", "param": null, "code": "ledger-unavailable"}})),
        (status = 504, description = "No allowed backend answered in time", body = ErrorAnswer,
            example = json!({"error": {"message": "no allowed backend answered in time; the call went nowhere else", "type": "upstream_error", "param": null, "code": "upstream_error"}})),
    ),
)]
async fn chat_completions(
    State(shared): State<Arc<Shared>>,
    caller: Result<AsCaller, Problem>,
    request: Request,
) -> Result<Response, Failure> {
    let AsCaller(caller) = caller?;
    let call = model_call(&shared, "/chat/completions", request).await?;
    Ok(match shared.gate.call(caller, call).await? {
        Reply::Denied(recorded) => {
            let mut response = Failure::denied(&recorded).into_response();
            name_decision(response.headers_mut(), &recorded);
            response
        }
        Reply::Answered(served, body) => answer(&served, body),
        Reply::Failed { recorded, status, upstream, retry_after } => {
            let mut response = Failure::upstream(status, upstream, retry_after).into_response();
            name_decision(response.headers_mut(), &recorded);
            response
        }
    })
}

async fn model_call(
    shared: &Shared,
    path: &'static str,
    request: Request,
) -> Result<ModelCall, Failure> {
    body::require_json(request.headers())?;
    let headers = request.headers().clone();
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let bytes = Bytes::from_request(request, &()).await;
    let bytes = bytes.map_err(|rejection| body::unreadable(&rejection, MODEL_BODY))?;
    let malformed =
        |error: &dyn std::fmt::Display| Problem::new(ProblemKind::MalformedBody, error.to_string());
    let mut body = Fields::parse(&bytes).map_err(|error| malformed(&error))?;
    let judge = shared.gate.keeper().current();
    let request = claims::take(&headers, &mut body, &judge.snapshot().organisation)?;
    let stream = body.read::<bool>("stream").map_err(|error| malformed(&error))?;
    let options: Fields =
        body.read("stream_options").map_err(|error| malformed(&error))?.unwrap_or_default();
    let wants_usage = options.read::<bool>("include_usage").map_err(|error| malformed(&error))?;
    Ok(ModelCall {
        request,
        path,
        body,
        stream: stream.unwrap_or(false),
        wants_usage: wants_usage.unwrap_or(false),
        request_id: request_id.0.to_string(),
    })
}

fn answer(served: &Served, body: ReplyBody) -> Response {
    let body = match body {
        ReplyBody::Whole(whole) => Body::from(whole),
        ReplyBody::Stream(pieces) => {
            Body::from_stream(stream::unfold(pieces, |mut pieces| async {
                let piece = pieces.recv().await?;
                Some((Ok::<_, Infallible>(piece), pieces))
            }))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(served.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    name_decision(headers, &served.recorded);
    let jurisdictions: Vec<&str> =
        served.jurisdictions.iter().map(JurisdictionCode::as_str).collect();
    for (name, text) in [
        ("content-type", served.content_type.clone()),
        ("x-lexgate-deployment", served.deployment.to_string()),
        ("x-lexgate-jurisdictions", jurisdictions.join(",")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    response
}

fn name_decision(headers: &mut HeaderMap, recorded: &Recorded) {
    headers.insert("x-lexgate-record", HeaderValue::from(recorded.seq.get()));
    if let Ok(id) = HeaderValue::from_str(&recorded.id.to_string()) {
        headers.insert("x-lexgate-decision", id);
    }
}

/// The models, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// Virtual models first, then models.
    data: Vec<ModelRow>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelRow {
    /// What to send as `model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Always 0: when a model was made decides nothing here.
    created: u64,
    /// Who made it; `lexgate` for a virtual model.
    owned_by: String,
}

/// List the models.
///
/// The organisation's virtual models, then every model with an approved deployment.
#[utoipa::path(
    get, path = "/v1/models", tag = "gateway", operation_id = "listModels",
    security(("api_key" = [])),
    responses(
        (status = 200, description = "The models", body = ModelList,
            example = json!({"object": "list", "data": [{"id": "assistant", "object": "model", "created": 0, "owned_by": "lexgate"}]})),
        (status = 401, description = "A valid API key is required", body = ErrorAnswer,
            example = json!({"error": {"message": "the API key is not known", "type": "authentication_error", "param": null, "code": "invalid_api_key"}})),
        (status = 403, description = "The key lacks the role", body = ErrorAnswer,
            example = json!({"error": {"message": "this needs the role `caller`", "type": "permission_error", "param": null, "code": "insufficient_permissions"}})),
    ),
)]
async fn models(
    State(shared): State<Arc<Shared>>,
    caller: Result<AsCaller, Problem>,
) -> Result<axum::Json<ModelList>, Failure> {
    caller?;
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let row = |id: &str, owned_by: &str| ModelRow {
        id: id.to_owned(),
        object: "model",
        created: 0,
        owned_by: owned_by.to_owned(),
    };
    let is_served = |id: &str| {
        organisation.deployments.iter().any(|row| row.approved && row.model.as_str() == id)
    };
    let virtual_models = organisation.virtual_models.keys().map(|id| row(id.as_str(), "lexgate"));
    let models = organisation.models.iter().filter(|(id, _)| is_served(id.as_str()));
    let models = models.map(|(id, model)| row(id.as_str(), &model.provider));
    Ok(axum::Json(ModelList { object: "list", data: virtual_models.chain(models).collect() }))
}
