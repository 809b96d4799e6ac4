//! Around every request: an identifier, a span, one line in the log, and the body of its problem.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use ring::rand::{SecureRandom, SystemRandom};
use tracing::Instrument;

use super::{operations::Answers, problem::Problem};
use crate::{
    domain::{AppId, Clock, DecisionId, KeyName, SystemClock},
    telemetry::{Trace, TraceContext},
};

/// The header that carries a request's identifier.
const HEADER: &str = "x-request-id";

/// A request's identifier: the client's own, or a new one.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Who asks, once that is known: the line in the log says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Whom(Arc<OnceLock<(KeyName, Option<AppId>)>>);

impl Whom {
    /// Takes the API key, and the app that calls with it.
    pub(super) fn is(&self, key: &KeyName, app: Option<&AppId>) {
        let _ = self.0.set((key.clone(), app.cloned()));
    }
}

/// Why a request failed: the word for it that its answer has too.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) String);

pub(super) async fn observe(
    State(answers): State<Answers>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = RequestId(identifier(request.headers()));
    let route = request.extensions().get::<MatchedPath>().cloned();
    // The pattern, not the path: a path can hold what somebody typed.
    let route = route.as_ref().map(MatchedPath::as_str);
    let trace = Trace::begin(request.method().as_str(), route, caller(request.headers()));
    let route = route.unwrap_or("other");
    let span = tracing::info_span!("request", id = &*id.0, method = %request.method(), route);
    let (operation, whom) = (answers.operation(&request), Whom::default());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(whom.clone());
    request.extensions_mut().insert(trace.clone());
    let answering = next.run(request).instrument(trace.span().clone());
    let mut response = answering.instrument(span.clone()).await;
    let mut cause = response.extensions_mut().remove::<Cause>();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        cause = Some(Cause(problem.kind.name().to_owned()));
        write(&mut response, problem, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    trace.answered(status);
    metrics::histogram!("lexgate_request_seconds").record(elapsed.as_secs_f64());
    Answers::count(operation, status);
    let ms = elapsed.as_secs_f64() * 1e3;
    let cause = cause.as_ref().map(|cause| cause.0.as_str());
    let (key, app) = whom
        .0
        .get()
        .map_or((None, None), |(key, app)| (Some(key.as_str()), app.as_ref().map(AppId::as_str)));
    let told = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let (decision, deployment) = (told("x-lexgate-decision"), told("x-lexgate-deployment"));
    // What went well stands in the ledger and the metrics.
    span.in_scope(|| match status {
        500.. => {
            tracing::warn!(status, ms, cause, app, key, decision, deployment, "answered");
        }
        400.. => {
            tracing::info!(status, ms, cause, app, key, decision, deployment, "answered");
        }
        _ => tracing::debug!(status, ms, app, key, decision, deployment, "answered"),
    });
    response
}

/// Where the caller stands in a trace.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let values =
        |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    TraceContext::read(values("traceparent"), values("tracestate"))
}

/// The client's identifier where it can be trusted to stand in a log and a header.
fn identifier(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let harmless = |text: &&str| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    given.filter(harmless).map_or_else(|| fresh().into(), Into::into)
}

fn fresh() -> String {
    let mut random = [0; 10];
    // Without randomness identifiers may repeat; requests are served all the same.
    let _ = SystemRandom::new().fill(&mut random);
    DecisionId::at(SystemClock.now(), random).to_string()
}

fn write(response: &mut Response, problem: Problem, id: &RequestId) {
    let document = problem.document(&id.0);
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(serde_json::to_vec(&document).unwrap_or_default());
}
