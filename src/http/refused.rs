//! Refused attempts to read the ledger or to change a register: seen here for every operation, so that no
//! handler has to remember.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use utoipa::openapi::{OpenApi, path::Operation};

use super::{
    Shared,
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
    operations: Arc<Operations>,
}

/// The operations whose refusals are recorded: by path, their methods and names.
type Operations = BTreeMap<String, Vec<(Method, String)>>;

impl Watch {
    /// Watches the operations of `document` that auditors and officers have.
    pub(super) fn new(shared: Arc<Shared>, document: &OpenApi) -> Self {
        let (path, name) = FILES;
        let mut operations =
            Operations::from([(path.to_owned(), vec![(Method::GET, name.to_owned())])]);
        for (path, item) in &document.paths.paths {
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ] {
                if let Some(name) = operation.as_ref().and_then(watched) {
                    operations.entry(path.clone()).or_default().push((method, name));
                }
            }
        }
        Self { shared, operations: Arc::new(operations) }
    }

    /// The name of the operation that `request` asks for, if it is watched.
    fn operation(&self, request: &Request) -> Option<String> {
        let path = request.extensions().get::<MatchedPath>()?;
        let methods = self.operations.get(path.as_str())?;
        let found = methods.iter().find(|(method, _)| method == request.method());
        found.map(|(_, name)| name.clone())
    }
}

/// The operation's name, if its refusals are recorded.
fn watched(operation: &Operation) -> Option<String> {
    let tags = operation.tags.as_ref()?;
    let is_watched = tags.iter().any(|tag| TAGS.contains(&tag.as_str()));
    operation.operation_id.clone().filter(|_| is_watched)
}

/// Answers as ever, and records a refusal of a known key before it is answered.
pub(super) async fn record(State(watch): State<Watch>, request: Request, next: Next) -> Response {
    let Some(operation) = watch.operation(&request) else { return next.run(request).await };
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
