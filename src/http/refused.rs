//! Refused attempts to read the ledger or to change a register: seen here for every operation, so that no
//! handler has to remember.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use utoipa::openapi::{OpenApi, path::Operation};

use super::{
    Shared,
    operations::Operations,
    problem::{Problem, ProblemKind},
};
use crate::gate::Refusal;

/// Whose refusals are recorded, by their tags in the OpenAPI document.
const TAGS: [&str; 2] = ["audit", "registers"];
/// The route of the log's files, which the document describes part by part. Of those only the entries are
/// ever refused.
const FILES: (&str, &str) = ("/tlog/tile/{*path}", "tlogEntries");

/// What the layer works with.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    /// The operations whose refusals are recorded.
    operations: Operations,
}

impl Watch {
    /// Watches the operations of `document` that auditors and officers have, and opens what counts them.
    pub(super) fn new(shared: Arc<Shared>, document: &OpenApi) -> Self {
        let operations = Operations::new(document, is_watched).with(FILES.0, FILES.1);
        for name in operations.names() {
            metrics::counter!("lexgate_refused_total", "operation" => name.to_owned()).increment(0);
        }
        Self { shared, operations }
    }
}

/// Whether the operation's refusals are recorded.
fn is_watched(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| TAGS.contains(&tag.as_str()))
}

/// Answers as ever, and records a refusal of a known key before it is answered.
pub(super) async fn record(State(watch): State<Watch>, request: Request, next: Next) -> Response {
    let Some(operation) = watch.operations.of(&request) else { return next.run(request).await };
    let operation = operation.to_string();
    let headers = request.headers().clone();
    let response = next.run(request).await;
    let problem = response.extensions().get::<Problem>();
    let Some(problem) = problem.filter(|problem| problem.kind == ProblemKind::Forbidden) else {
        return response;
    };
    if let Some(key) = watch.shared.keys.known(&headers) {
        let why = problem.detail.clone();
        watch.shared.gate.record_refusal(Refusal { key, operation, why }).await;
    }
    response
}
