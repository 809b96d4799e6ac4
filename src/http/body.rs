//! Request bodies: JSON of a known size and type, for which there is room, or a problem that says why not.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::BytesMut;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::{
    Shared,
    auth::Whose,
    coding::{self, Coding, STEP, no_room, too_large},
    problem::{Problem, ProblemKind},
    reading::{is_slow, next_frame},
};
use crate::{
    domain::{FieldFault, Object},
    gate::{Budget, Room},
    source::did_you_mean,
};

/// The largest body of the decision API, in bytes.
pub(super) const DECISION_BODY: usize = 256 << 10;
/// The largest body of a call to a model, in bytes: pictures travel in it.
pub(super) const MODEL_BODY: usize = 32 << 20;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let whose = request.extensions().get::<Whose>().cloned();
        let whose = whose.as_ref().map_or("", |whose| &whose.0);
        parse(&read(&shared.bodies.room, whose, request, DECISION_BODY).await?).map(Self)
    }
}

/// The whole of a request's body, decoded where it came compressed: of at most `limit` bytes either way,
/// for which `holder` holds the room.
pub(super) async fn read(
    room: &Arc<Budget>,
    holder: &str,
    request: Request,
    limit: usize,
) -> Result<Bytes, Problem> {
    let coding = Coding::of(request.headers())?;
    let body = whole(request.into_body(), limit, room.holder(holder)).await?;
    match coding {
        None => Ok(body),
        Some(coding) => coding.decode(body, limit, room.holder(holder)).await,
    }
}

/// The whole of a body of at most `limit` bytes, with the room that it takes for as long as it is kept.
async fn whole(mut body: Body, limit: usize, mut held: Room) -> Result<Bytes, Problem> {
    let told = body.size_hint().exact().map(|told| usize::try_from(told).unwrap_or(usize::MAX));
    let mut room = told.unwrap_or(0);
    if room > limit {
        return Err(too_large(limit));
    }
    if !held.grow(room) {
        return Err(no_room());
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = next_frame(&mut body).await {
        let frame = frame.map_err(|error| unreadable(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let read = first.len().max(rest.len()) + data.len();
        if read > limit {
            return Err(too_large(limit));
        }
        if read > room {
            room = read.next_multiple_of(STEP);
            if !held.grow(room) {
                return Err(no_room());
            }
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(room.max(read));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(held.keep(if rest.is_empty() { first } else { rest.freeze() }))
}

/// Why a body could not be read to its end.
fn unreadable(error: &axum::Error) -> Problem {
    if is_slow(error) {
        let detail = "the body came too slowly: it may not stand still, nor come at less than 64 KiB a second for long";
        return Problem::new(ProblemKind::SlowBody, detail);
    }
    Problem::new(ProblemKind::MalformedBody, "the body could not be read to its end")
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

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() || is_json(bytes) {
            let fault = FieldFault::new(pointer, sentence(&error));
            Problem::fields(ProblemKind::InvalidRequest, vec![fault])
        } else {
            not_json(bytes, &error)
        }
    })?;
    json.end().map_err(|error| Problem::new(ProblemKind::MalformedBody, error.to_string()))?;
    Ok(value)
}

/// What does not begin as JSON, or does not end as it.
fn not_json(bytes: &[u8], error: &serde_json::Error) -> Problem {
    Problem::new(ProblemKind::MalformedBody, format!("{error}{}", coding::hint(bytes)))
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
    let sentence = text.rsplit_once(" at line ").map_or(&*text, |(sentence, _)| sentence);
    // Between backticks: the name that is not known, then those that are.
    let mut names = sentence.split('`').skip(1).step_by(2);
    let hint = match names.next() {
        Some(name) if sentence.starts_with("unknown ") => did_you_mean(name, names),
        _ => String::new(),
    };
    format!("{sentence}{hint}")
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
            Err(rejection) => {
                let query = parts.uri.query().unwrap_or_default();
                Err(query_problem(query, &rejection.body_text()))
            }
        }
    }
}

/// Why a query cannot be read, under the name of the parameter that `text` speaks of.
fn query_problem(query: &str, text: &str) -> Problem {
    let said = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    let meant = names.find(|name| {
        said.starts_with(&format!("{name}: ")) || said.contains(&format!("field `{name}`"))
    });
    let Some(name) = meant else { return Problem::new(ProblemKind::MalformedQuery, text) };
    let said = said.strip_prefix(&format!("{name}: ")).unwrap_or(said);
    let detail = if said.starts_with("duplicate field") {
        format!("`{name}` must appear only once")
    } else {
        said.replacen("unknown field", "unknown parameter", 1)
    };
    let fault = FieldFault::parameter(name, detail);
    Problem::fields(ProblemKind::MalformedQuery, vec![fault])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_cannot_be_read_names_its_parameter() {
        for (query, text, name, detail) in [
            (
                "limit=1&limit=2",
                "Failed to deserialize query string: duplicate field `limit`",
                "limit",
                "`limit` must appear only once",
            ),
            (
                "from=x&fro=y",
                "Failed to deserialize query string: fro: unknown field `fro`, expected `from`",
                "fro",
                "unknown parameter `fro`, expected `from`",
            ),
            (
                "proof=maybe",
                "Failed to deserialize query string: proof: provided string was not `true` or `false`",
                "proof",
                "provided string was not `true` or `false`",
            ),
        ] {
            let problem = query_problem(query, text);
            let faults = vec![FieldFault::parameter(name, detail)];
            assert_eq!((problem.kind, problem.errors), (ProblemKind::MalformedQuery, faults));
        }
        assert!(query_problem("", "no").errors.is_empty());
    }
}
