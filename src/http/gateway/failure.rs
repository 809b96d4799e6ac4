//! Why the gateway gave no answer, in the shapes that OpenAI's and Anthropic's SDKs read.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::SignedDuration;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, Ref, RefOr, Response as ApiResponse, ResponseBuilder, example::ExampleBuilder,
    },
};

use super::{
    super::{
        examples, limits,
        observe::Cause,
        problem::{Problem, ProblemKind, name_taken},
    },
    denial_answer::DenialAnswer,
};
use crate::{
    dispatch::Endpoint,
    domain::{FieldFault, LimitState, Measure, passing::RefusedBody},
    gate::{Failed, GateError},
    ledger::OutcomeStatus,
};

/// How many fields that cannot be used are told.
const MOST_FAULTS: usize = 3;
/// When to ask again where nothing says when.
const SOON: Duration = Duration::from_secs(1);

/// An error in the shape that OpenAI's SDKs read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    error: ErrorBody,
}

/// An error in the shape that Anthropic's SDKs read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageErrorAnswer {
    /// Always `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// In words.
    pub(super) message: String,
    /// The family: `policy_denied`, `invalid_request_error`, `upstream_error`, `unavailable`, … For
    /// `/v1/messages` one of Anthropic's: `permission_error`, `overloaded_error`, …
    #[serde(rename = "type")]
    kind: String,
    /// The header or field that is wrong.
    #[schema(required = true)]
    pub(super) param: Option<String>,
    /// The kind; for a denial the first deciding policy.
    code: String,
    /// For a denial: the decision in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DenialAnswer>)]
    pub(super) decision: Option<Box<RawValue>>,
}

/// A failure of the gateway on its way to the client.
#[derive(Debug)]
pub(in crate::http) struct Failure {
    status: StatusCode,
    pub(super) body: Box<ErrorBody>,
    retry_after: Option<Duration>,
    pub(super) may_retry: bool,
    headers: Box<HeaderMap>,
}

impl Failure {
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        code: &str,
        message: impl Into<String>,
    ) -> Self {
        let body = Box::new(ErrorBody {
            message: message.into(),
            kind: kind.to_owned(),
            param: None,
            code: code.to_owned(),
            decision: None,
        });
        Self { status, body, retry_after: None, may_retry: true, headers: Box::default() }
    }

    /// A field of the body that is missing, or of another type than it must be. The codes are OpenAI's.
    pub(super) fn field(name: &str, code: &str, message: impl Into<String>) -> Self {
        let mut failure =
            Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        failure.body.param = Some(name.to_owned());
        failure
    }

    /// A path, or a method, that the service does not have.
    pub(in crate::http) fn unknown_url(status: StatusCode, message: String) -> Self {
        let mut failure = Self::new(status, "invalid_request_error", "unknown_url", message);
        failure.may_retry = false;
        failure
    }

    /// The app, or its tenant, has used up a limit. The words are OpenAI's.
    fn limited(state: &LimitState) -> Self {
        let (kind, code) = match state.limit.measure {
            Measure::Requests | Measure::Concurrent => ("requests", "rate_limit_exceeded"),
            Measure::Tokens => ("tokens", "rate_limit_exceeded"),
            Measure::Money(_) => ("insufficient_quota", "insufficient_quota"),
        };
        let message = GateError::Limited(Box::new(state.clone())).to_string();
        let mut failure = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, code, message);
        let wait = state.resets_in().map_or(SOON, SignedDuration::unsigned_abs);
        failure.retry_after = Some(wait.max(Duration::from_millis(1)));
        // SDKs wait no longer than a minute, and then ask in vain.
        failure.may_retry = wait <= Duration::from_secs(60);
        failure
    }

    /// A part of the request does not stay within the call, and is not passed on.
    pub(super) fn refused(RefusedBody(fault): RefusedBody) -> Self {
        let mut failure = Self::from(Problem::fields(ProblemKind::InvalidRequest, vec![fault]));
        failure.status = StatusCode::BAD_REQUEST;
        "field_not_passed".clone_into(&mut failure.body.code);
        failure
    }

    /// No allowed deployment answered.
    pub(super) fn upstream(failed: &Failed) -> Self {
        let (status, code, message) = match (failed.status, failed.upstream) {
            (_, Some(429)) => (
                StatusCode::TOO_MANY_REQUESTS,
                "upstream_busy",
                "every allowed backend is busy; the call went nowhere else".to_owned(),
            ),
            _ if failed.lacks_key => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_down",
                "the gateway has no key for any allowed backend: its operator must supply it (the log names it); nothing was sent"
                    .to_owned(),
            ),
            _ if failed.is_down => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_down",
                format!(
                    "every allowed backend is down or out of service; the call went nowhere else (the gateway's log, and the outcome of decision {} in the ledger, say why of each)",
                    failed.recorded.id
                ),
            ),
            (OutcomeStatus::Timeout, _) => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "no allowed backend answered in time; the call went nowhere else".to_owned(),
            ),
            (_, Some(404 | 405 | 501)) => (
                StatusCode::BAD_GATEWAY,
                "upstream_unsupported",
                "no allowed backend offers this API for this model; the call went nowhere else"
                    .to_owned(),
            ),
            (_, Some(status)) => (
                StatusCode::BAD_GATEWAY,
                "upstream_error",
                format!(
                    "no allowed backend gave a usable answer (last status {status}); the call went nowhere else"
                ),
            ),
            (_, None) => (
                StatusCode::BAD_GATEWAY,
                "upstream_error",
                "no allowed backend gave an answer; the call went nowhere else".to_owned(),
            ),
        };
        let mut failure = Self::new(status, "upstream_error", code, message);
        failure.may_retry = code != "upstream_unsupported";
        failure.retry_after = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some(failed.retry_after.unwrap_or(SOON)),
            _ => failed.retry_after,
        };
        failure
    }

    /// The same, with a header.
    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The answer, as the SDKs of `endpoint` read it.
    pub(in crate::http) fn answer(mut self, endpoint: Endpoint) -> Response {
        let cause = Cause(self.body.code.clone());
        let mut response = if endpoint.is_anthropics() {
            // A denial is one whatever its status.
            let status =
                if self.body.decision.is_some() { StatusCode::FORBIDDEN } else { self.status };
            anthropic_kind(status).clone_into(&mut self.body.kind);
            let body = MessageErrorAnswer { kind: "error", error: *self.body };
            (self.status, axum::Json(body)).into_response()
        } else {
            (self.status, axum::Json(ErrorAnswer { error: *self.body })).into_response()
        };
        response.extensions_mut().insert(cause);
        let headers = response.headers_mut();
        headers.extend(*self.headers);
        if !self.may_retry {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(wait) = self.retry_after {
            // A whole second too late is better than one too early.
            let seconds = wait.as_millis().div_ceil(1000);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            if seconds <= 60 {
                let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                headers.insert("retry-after-ms", HeaderValue::from(millis));
            }
        }
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.answer(Endpoint::ChatCompletions)
    }
}

const fn anthropic_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// Where a client of the gateway finds what a pointer into a call means.
fn param(pointer: &str) -> String {
    let claim = match pointer {
        "/data/personal" => "personal",
        "/data/subject_count" => "subject-count",
        "/purpose" => "purpose",
        "/location" => "location",
        "/end_user" => "end-user",
        _ if pointer.starts_with("/data/categories") => "data",
        _ if pointer.starts_with("/data/subjects") => "subjects",
        _ if pointer.starts_with("/audience") => "audience",
        _ => return pointer.trim_start_matches('/').to_owned(),
    };
    format!("x-lexgate-{claim}")
}

/// What is wrong with one field, with its name: most clients show nothing else.
fn told(fault: &FieldFault) -> String {
    let (param, detail) = (param(&fault.pointer), &fault.detail);
    if param.is_empty() || detail.contains(&param) {
        return detail.clone();
    }
    let is_sentence = detail.starts_with('`') || detail.starts_with("unknown");
    format!("`{param}`{} {detail}", if is_sentence { ":" } else { "" })
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
        let param = first.map(|fault| param(&fault.pointer));
        let message = match &*problem.errors {
            [] => problem.detail.clone(),
            faults => faults.iter().take(MOST_FAULTS).map(told).collect::<Vec<_>>().join("; "),
        };
        let mut failure = Self::new(status, kind, code, message);
        failure.may_retry = problem.kind != ProblemKind::NoBackend;
        failure.body.param = param;
        failure.retry_after = problem.retry_after().map(Duration::from_secs);
        match problem.kind {
            ProblemKind::Unauthenticated => {
                failure
                    .headers
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ProblemKind::UnsupportedMediaType => name_taken(&mut failure.headers),
            _ => {}
        }
        failure
    }
}

impl Failure {
    /// The gate's word, with what the SDKs of `endpoint` read of limits.
    pub(super) fn of(error: GateError, endpoint: Endpoint) -> Self {
        let GateError::Limited(state) = error else { return Problem::from(error).into() };
        let mut failure = Self::limited(&state);
        limits::tell_sdk(&mut failure.headers, endpoint, std::slice::from_ref(&*state));
        failure
    }
}

/// What the gateway's OpenAPI document says of failures: one row each, with an example.
type Row = (u16, &'static str, &'static str, &'static str, &'static str);

const ROWS: [Row; 10] = [
    (
        400,
        "The body or the claims cannot be used",
        "invalid_request_error",
        "invalid_claims",
        "`x-lexgate-subjects` and metadata `lexgate_subjects` contradict each other",
    ),
    (
        401,
        "A valid API key is required",
        "authentication_error",
        "invalid_api_key",
        "the API key in the header `Authorization` is not known",
    ),
    (
        404,
        "Unknown model",
        "invalid_request_error",
        "model_not_found",
        "unknown model `gpt-9`: `GET /v1/models` lists the models",
    ),
    (
        413,
        "The body is too large",
        "invalid_request_error",
        "body-too-large",
        "the body is larger than 33554432 bytes",
    ),
    (
        415,
        "The body must be JSON",
        "invalid_request_error",
        "unsupported-media-type",
        "send `Content-Type: application/json`",
    ),
    (
        429,
        "A limit of the app or its tenant has been reached, or every allowed backend is busy",
        "requests",
        "rate_limit_exceeded",
        "app `desk` may use 600 requests a minute, and has: nothing was recorded or sent",
    ),
    (
        500,
        "The service failed",
        "unavailable",
        "internal",
        "the service's log says more under this request's identifier",
    ),
    (
        502,
        "No allowed backend gave a usable answer",
        "upstream_error",
        "upstream_error",
        "no allowed backend gave an answer; the call went nowhere else",
    ),
    (
        503,
        "The ledger cannot be written, every allowed backend is down, or none is configured",
        "upstream_error",
        "upstream_down",
        "every allowed backend is down; the call went nowhere else",
    ),
    (
        504,
        "No allowed backend answered in time",
        "upstream_error",
        "upstream_timeout",
        "no allowed backend answered in time; the call went nowhere else",
    ),
];

fn rows(schema: &str, shape: impl Fn(u16, Value) -> Value) -> BTreeMap<String, RefOr<ApiResponse>> {
    let response = |description: &str, example: Value| {
        let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(schema))));
        let example = ExampleBuilder::new().value(Some(example)).build();
        content.examples.insert("example".to_owned(), RefOr::T(example));
        let response = ResponseBuilder::new().description(description);
        RefOr::T(response.content("application/json", content).build())
    };
    let rows = ROWS.iter().map(|(status, description, kind, code, message)| {
        let error = json!({ "message": message, "type": kind, "param": null, "code": code });
        (status.to_string(), response(description, shape(*status, error)))
    });
    let denied = examples::denied_openai();
    let denied = shape(403, denied.get("error").cloned().unwrap_or_default());
    let denied = response("Denied by a policy, or the key lacks the role", denied);
    rows.chain([("403".to_owned(), denied)]).collect()
}

/// Makes both shapes known to the document, with all that they refer to: responses do by name only.
pub(in crate::http) fn schemas() -> Vec<(String, RefOr<utoipa::openapi::Schema>)> {
    let mut schemas = vec![
        (ErrorAnswer::name().into_owned(), ErrorAnswer::schema()),
        (MessageErrorAnswer::name().into_owned(), MessageErrorAnswer::schema()),
    ];
    ErrorAnswer::schemas(&mut schemas);
    MessageErrorAnswer::schemas(&mut schemas);
    schemas
}

/// The failures of the gateway in OpenAI's shape.
pub(super) struct Failures;

impl utoipa::IntoResponses for Failures {
    fn responses() -> BTreeMap<String, RefOr<ApiResponse>> {
        rows("ErrorAnswer", |_, error| json!({ "error": error }))
    }
}

/// The same in Anthropic's.
pub(super) struct MessageFailures;

impl utoipa::IntoResponses for MessageFailures {
    fn responses() -> BTreeMap<String, RefOr<ApiResponse>> {
        rows("MessageErrorAnswer", |status, mut error| {
            let kind = StatusCode::from_u16(status).map_or("api_error", anthropic_kind);
            if let Some(error) = error.as_object_mut() {
                error.insert("type".to_owned(), kind.into());
            }
            json!({ "type": "error", "error": error })
        })
    }
}
