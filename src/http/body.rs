//! Request bodies: JSON of a known size and type, or a problem that names the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::problem::{Problem, ProblemKind};
use crate::domain::{FieldFault, Object};

/// The largest body of the decision API, in bytes.
pub(super) const DECISION_BODY: usize = 256 << 10;
/// The largest body of a call to a model, in bytes: pictures travel in it.
pub(super) const MODEL_BODY: usize = 32 << 20;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await;
        parse(&bytes.map_err(|rejection| unreadable(&rejection, DECISION_BODY))?).map(Self)
    }
}

/// Refuses a body that is not declared as JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    if media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let detail = "send `Content-Type: application/json`";
    Err(Problem::new(ProblemKind::UnsupportedMediaType, detail))
}

/// Why a body could not be read to its end.
pub(super) fn unreadable(rejection: &BytesRejection, limit: usize) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = format!("the body is larger than {limit} bytes");
        Problem::new(ProblemKind::BodyTooLarge, detail)
    } else {
        Problem::new(ProblemKind::MalformedBody, "the body could not be read to its end")
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() || is_json(bytes) {
            let fault = FieldFault::new(pointer, sentence(&error));
            Problem::fields(ProblemKind::InvalidRequest, vec![fault])
        } else {
            Problem::new(ProblemKind::MalformedBody, error.to_string())
        }
    })?;
    json.end().map_err(|error| Problem::new(ProblemKind::MalformedBody, error.to_string()))?;
    Ok(value)
}

/// Whether the text is JSON, whatever it says: `serde_json` takes a number where an enum's name
/// belongs for broken syntax.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// The error without its place in the text, which the pointer tells better.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(sentence, _)| sentence.to_owned())
}

/// A path as a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let text = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&text);
    }
    pointer
}

/// A query string, whose unknown parameters are refused.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::new(ProblemKind::MalformedQuery, rejection.body_text())),
        }
    }
}
