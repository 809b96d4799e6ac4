//! Problem documents (RFC 9457): the only place where an error gets an HTTP status.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Content, RefOr, Response as ApiResponse, ResponseBuilder, example::ExampleBuilder},
};

use super::limits;
use crate::{
    domain::{FieldFault, FieldPlace, LimitState},
    gate::GateError,
};

/// What is taken, as an answer's `Accept-Encoding` says it (RFC 9110, section 15.5.16).
pub(super) const TAKEN: &str = "gzip, deflate, br, zstd";

/// The kinds of problem, each with one type URI and one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProblemKind {
    /// The body is not JSON.
    MalformedBody,
    /// The query string cannot be read.
    MalformedQuery,
    /// No credential, or an unknown one.
    Unauthenticated,
    /// The credential lacks the role.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The path exists; the method does not.
    MethodNotAllowed,
    /// The body came too slowly.
    SlowBody,
    /// The outcome cannot be recorded, or not again.
    OutcomeConflict,
    /// A legal hold keeps it.
    LegalHold,
    /// It was there, and was removed or erased.
    Gone,
    /// The body is larger than is taken.
    BodyTooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// Understood, but a field cannot be used.
    InvalidRequest,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// The answer under the idempotency key no longer holds.
    AnswerOutdated,
    /// The app, or its tenant, has used up a limit.
    LimitReached,
    /// Too much waits for the ledger.
    QueueFull,
    /// The ledger cannot be written, and so nothing is decided, or cannot be read.
    LedgerUnavailable,
    /// The store names an active snapshot that cannot be taken: nothing is decided.
    SnapshotUnavailable,
    /// The service cannot work now.
    NotReady,
    /// Too much of the kind is under way.
    Overloaded,
    /// The store's disk is almost full.
    StorageLow,
    /// No allowed deployment can be reached.
    NoBackend,
    /// The request took too long.
    Timeout,
    /// A question to the ledger took too long.
    SlowQuery,
    /// A fault of the service.
    Internal,
}

impl ProblemKind {
    const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedBody => (400, "malformed-body", "The body is not valid JSON"),
            Self::MalformedQuery => (400, "malformed-query", "The query cannot be read"),
            Self::Unauthenticated => (401, "unauthenticated", "A valid API key is required"),
            Self::Forbidden => (403, "forbidden", "The API key lacks the role"),
            Self::NotFound => (404, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (405, "method-not-allowed", "The path does not take this method")
            }
            Self::SlowBody => (408, "slow-body", "The body came too slowly"),
            Self::OutcomeConflict => (409, "outcome-conflict", "The outcome cannot be recorded"),
            Self::LegalHold => (409, "legal-hold", "A legal hold keeps it"),
            Self::AnswerOutdated => {
                (409, "answer-outdated", "The answer under the idempotency key no longer holds")
            }
            Self::Gone => (410, "gone", "It is no longer there"),
            Self::BodyTooLarge => (413, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (415, "unsupported-media-type", "The body's type or coding is not taken")
            }
            Self::InvalidRequest => {
                (422, "invalid-request", "The request is understood but invalid")
            }
            Self::IdempotencyKeyReused => {
                (422, "idempotency-key-reused", "The idempotency key belongs to another request")
            }
            Self::LimitReached => (429, "limit-reached", "A limit has been reached"),
            Self::QueueFull => (503, "queue-full", "The ledger's queue is full"),
            Self::LedgerUnavailable => (503, "ledger-unavailable", "The ledger is not available"),
            Self::SnapshotUnavailable => (503, "snapshot-unavailable", "No snapshot may decide"),
            Self::NotReady => (503, "not-ready", "The service cannot work now"),
            Self::Overloaded => (503, "overloaded", "Too much is under way"),
            Self::StorageLow => (503, "storage-low", "The store's disk is almost full"),
            Self::NoBackend => (503, "no-backend", "No allowed deployment has a backend"),
            Self::Timeout => (503, "timeout", "The request took too long"),
            Self::SlowQuery => (504, "slow-query", "The question took too long"),
            Self::Internal => (500, "internal", "The service failed"),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub(super) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The last part of the type URI.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        self.parts().1
    }

    /// What a reader learns from an example.
    const fn example(self) -> (&'static str, &'static [(&'static str, &'static str)]) {
        match self {
            Self::MalformedBody => ("expected `,` or `}` at line 1 column 12", &[]),
            Self::MalformedQuery => {
                ("the query cannot be used", &[("limit", "want a number from 1 to 1000")])
            }
            Self::Unauthenticated => ("send `Authorization: Bearer <API key>`", &[]),
            Self::Forbidden => {
                ("this needs the role `auditor`: the API key `caller` has `caller`", &[])
            }
            Self::NotFound => ("there is no record 4711", &[]),
            Self::MethodNotAllowed => ("see `/docs` for what the path takes", &[]),
            Self::SlowBody => (
                "the body came too slowly: it may not stand still, nor come at less than 64 KiB a second for long",
                &[],
            ),
            Self::OutcomeConflict => ("the outcome of this decision is already recorded", &[]),
            Self::LegalHold => (
                "records of this end user are under legal hold (`case-2026-17`): lift the hold, or repeat with `despite_hold=` and the reason, which is recorded",
                &[],
            ),
            Self::Gone => ("the value was erased, as record 57 says", &[]),
            Self::BodyTooLarge => ("the body is larger than 262144 bytes", &[]),
            Self::UnsupportedMediaType => ("send `Content-Type: application/json`", &[]),
            Self::InvalidRequest => (
                "1 field cannot be used",
                &[(
                    "/data/subjects/0",
                    "unknown jurisdiction `XX`: want an ISO 3166 code such as `DE` or `CA-QC`",
                )],
            ),
            Self::IdempotencyKeyReused => ("the idempotency key was used for another request", &[]),
            Self::AnswerOutdated => (
                "the answer under this `Idempotency-Key` (decision 0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11, record 57) was given by policies or facts that are no longer active; send the request with a new key to have it decided again",
                &[],
            ),
            Self::LimitReached => (
                "app `desk` may use 600 requests a minute, and has: nothing was recorded or sent",
                &[],
            ),
            Self::QueueFull => ("the ledger's queue is full", &[]),
            Self::LedgerUnavailable => ("the ledger cannot be written: no record, no call", &[]),
            Self::SnapshotUnavailable => {
                ("no snapshot may decide: `/readyz` and the service's log say why", &[])
            }
            Self::NotReady => {
                ("write: the store is read-only", &[("/checks/write", "the store is read-only")])
            }
            Self::Overloaded => (
                "the bodies of requests under way leave no room for this one: send it again later",
                &[],
            ),
            Self::StorageLow => (
                "the store has less room than `[store] min_free`: only what closes calls is written",
                &[],
            ),
            Self::NoBackend => (
                "no allowed deployment has a `backend`: ask `POST /v1/decisions` and run inference yourself",
                &[],
            ),
            Self::Timeout => ("no answer within 10 seconds", &[]),
            Self::SlowQuery => (
                "the question took longer than 5 s: narrow it by `from` and `to`, or by another filter",
                &[],
            ),
            Self::Internal => ("the service's log says more under this request's identifier", &[]),
        }
    }
}

/// What a request is told that the ledger's store did not serve, be it to read or to write.
const UNANSWERED: &str = "the ledger's store did not answer: ask again in a moment";

/// A problem on its way to the client.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// What happened this time.
    pub detail: String,
    /// Fields that cannot be used.
    pub errors: Vec<FieldFault>,
    /// The limit that was reached.
    pub limit: Option<Box<LimitState>>,
}

/// A problem document (RFC 9457), `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument {
    /// The kind of problem: a stable URI.
    #[serde(rename = "type")]
    #[schema(example = "urn:lexgate:problem:invalid-request")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened this time.
    detail: String,
    /// This occurrence: the request's identifier, as in `x-request-id`.
    #[schema(example = "urn:lexgate:request:0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11")]
    instance: String,
    /// Each field that cannot be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FaultDocument>,
}

/// One field of a request that cannot be used: `pointer`, `parameter` or `header` says which.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = FieldFault)]
struct FaultDocument {
    /// A JSON Pointer (RFC 6901) into the request's body; empty for the whole of it. Of `/readyz`: into
    /// its answer when the service is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/data/subjects/0", pattern = "^(/[\\s\\S]*)?$")]
    pointer: Option<String>,
    /// The name of a parameter of the query or the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// The name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// What is wrong and what to do.
    detail: String,
}

impl From<FieldFault> for FaultDocument {
    fn from(fault: FieldFault) -> Self {
        // A name is never told as a pointer, wherever it was said to be.
        let is_pointer = fault.pointer.is_empty() || fault.pointer.starts_with('/');
        let named = Some(fault.pointer);
        let document = Self { detail: fault.detail, ..Self::default() };
        match fault.place {
            FieldPlace::Body if is_pointer => Self { pointer: named, ..document },
            FieldPlace::Header => Self { header: named, ..document },
            FieldPlace::Body | FieldPlace::Parameter => Self { parameter: named, ..document },
        }
    }
}

impl Problem {
    /// A problem of `kind`.
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), limit: None }
    }

    /// A problem of fields. What a query cannot hold is named by its parameter.
    #[must_use]
    pub(super) fn fields(kind: ProblemKind, mut errors: Vec<FieldFault>) -> Self {
        if kind == ProblemKind::MalformedQuery {
            for fault in &mut errors {
                fault.place = FieldPlace::Parameter;
            }
        }
        let detail = match errors.len() {
            1 => "1 field cannot be used".to_owned(),
            n => format!("{n} fields cannot be used"),
        };
        Self { kind, detail, errors, limit: None }
    }

    /// How many seconds to wait before asking again, where that helps.
    #[must_use]
    pub(super) fn retry_after(&self) -> Option<u64> {
        if let Some(limit) = &self.limit {
            // A whole second too late is better than one too early.
            let millis = limit.resets_in().map_or(1_000, |wait| wait.unsigned_abs().as_millis());
            return u64::try_from(millis.div_ceil(1_000)).ok().map(|seconds| seconds.max(1));
        }
        let passes = self.kind != ProblemKind::NoBackend;
        (passes && self.kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1)
    }

    pub(super) fn document(self, request_id: &str) -> ProblemDocument {
        let (status, name, title) = self.kind.parts();
        ProblemDocument {
            kind: format!("urn:lexgate:problem:{name}"),
            title,
            status,
            detail: self.detail,
            instance: format!("urn:lexgate:request:{request_id}"),
            errors: self.errors.into_iter().map(FaultDocument::from).collect(),
        }
    }
}

impl IntoResponse for Problem {
    /// The body is written by the outermost layer, which knows the request's identifier.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(limit) = &self.limit {
            limits::tell(response.headers_mut(), std::slice::from_ref(&**limit));
        }
        if self.kind == ProblemKind::Unauthenticated {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.kind == ProblemKind::UnsupportedMediaType {
            name_taken(response.headers_mut());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Says which types and codings of bodies are taken.
pub(super) fn name_taken(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(TAKEN));
}

impl From<GateError> for Problem {
    fn from(error: GateError) -> Self {
        if matches!(error, GateError::Store(_)) {
            tracing::warn!(error = %error, "the ledger's store did not answer");
            return Self::new(ProblemKind::LedgerUnavailable, UNANSWERED);
        }
        if matches!(error, GateError::Halted(_)) {
            tracing::warn!(error = %error, "a request was refused");
            return Self::new(ProblemKind::LedgerUnavailable, error.to_string());
        }
        let kind = match error {
            GateError::Invalid(faults) => return Self::fields(ProblemKind::InvalidRequest, faults),
            GateError::Limited(limit) => {
                let detail = GateError::Limited(limit.clone()).to_string();
                return Self { limit: Some(limit), ..Self::new(ProblemKind::LimitReached, detail) };
            }
            GateError::RecordTooLarge { .. } => ProblemKind::InvalidRequest,
            GateError::KeyReused => ProblemKind::IdempotencyKeyReused,
            GateError::AnswerOutdated { .. } => ProblemKind::AnswerOutdated,
            GateError::NoSuchDecision | GateError::NoSuchPerson => ProblemKind::NotFound,
            GateError::Held(_) => ProblemKind::LegalHold,
            GateError::Denied | GateError::Dispatched | GateError::AlreadyReported => {
                ProblemKind::OutcomeConflict
            }
            GateError::Busy(_) => ProblemKind::Overloaded,
            GateError::SlowQuestion { .. } => ProblemKind::SlowQuery,
            GateError::StorageLow { .. } => ProblemKind::StorageLow,
            GateError::QueueFull => ProblemKind::QueueFull,
            GateError::LedgerUnavailable
            | GateError::Unsettled
            | GateError::Halted(_)
            | GateError::Closed
            | GateError::Store(_) => ProblemKind::LedgerUnavailable,
            GateError::NoSnapshot(_) => ProblemKind::SnapshotUnavailable,
            GateError::NoBackend => ProblemKind::NoBackend,
            GateError::NoRandomness
            | GateError::NoThread(_)
            | GateError::Canonical(_)
            | GateError::Snapshot(_)
            | GateError::MasterKey
            | GateError::Corrupt => ProblemKind::Internal,
        };
        match kind {
            ProblemKind::Internal => {
                tracing::error!(error = %error, "a request could not be served");
                Self::new(kind, "the service's log says more under this request's identifier")
            }
            ProblemKind::LedgerUnavailable => {
                tracing::warn!(error = %error, "a request was refused");
                let says = match error {
                    GateError::Closed => error.to_string(),
                    _ => GateError::LedgerUnavailable.to_string(),
                };
                Self::new(kind, says)
            }
            // Why is for the operator: the error may quote a policy.
            ProblemKind::SnapshotUnavailable => {
                Self::new(kind, "no snapshot may decide: `/readyz` and the service's log say why")
            }
            _ => Self::new(kind, error.to_string()),
        }
    }
}

/// The OpenAPI responses for `kinds`, each with an example.
pub(super) fn responses(kinds: &[ProblemKind]) -> BTreeMap<String, RefOr<ApiResponse>> {
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.parts().0).or_default().push(*kind);
    }
    let response = |kinds: Vec<ProblemKind>| {
        let titles: Vec<&str> = kinds.iter().map(|kind| kind.parts().2).collect();
        let mut content = Content::new(Some(RefOr::Ref(utoipa::openapi::Ref::from_schema_name(
            ProblemDocument::name(),
        ))));
        for kind in kinds {
            let (detail, errors) = kind.example();
            let errors = errors.iter().map(|(at, detail)| FieldFault::new(*at, *detail)).collect();
            let problem = Problem::fields(kind, errors);
            let problem = Problem { detail: detail.to_owned(), ..problem };
            let document = problem.document("0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11");
            let example = ExampleBuilder::new().value(serde_json::to_value(document).ok()).build();
            content.examples.insert(kind.name().to_owned(), RefOr::T(example));
        }
        let response = ResponseBuilder::new()
            .description(titles.join("; "))
            .content("application/problem+json", content);
        RefOr::T(response.build())
    };
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(kinds))).collect()
}

/// Declares the problems of an operation for its OpenAPI description.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident: $($kind:ident),+ $(,)?) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::http::problem::responses(&[
                    $($crate::http::problem::ProblemKind::$kind),+
                ])
            }
        }
    };
}
pub(super) use problems;

/// Makes the schema known to the document, with all that it refers to: responses do by name only.
pub(super) fn schemas() -> Vec<(String, RefOr<utoipa::openapi::Schema>)> {
    let mut schemas = vec![(ProblemDocument::name().into_owned(), ProblemDocument::schema())];
    ProblemDocument::schemas(&mut schemas);
    schemas
}
