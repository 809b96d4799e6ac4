//! Which operation of the OpenAPI document a request asks for. Its name is the label of a metric and the word
//! of a record: never what somebody typed.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
};
use utoipa::openapi::{OpenApi, path::Operation};

/// What a request is called that asks for no operation of the document.
const OTHER: &str = "other";
/// The files of the log have one route, which the document describes part by part.
const FILES: (&str, &str) = ("/tlog/tile/{*path}", "tlogTile");

/// Operations, by path and method.
#[derive(Clone, Debug)]
pub(super) struct Operations(Arc<BTreeMap<String, Vec<Named>>>);

/// An operation of a path, and its name.
type Named = (Method, Arc<str>);

impl Operations {
    /// The operations of `document` that are `wanted`.
    pub(super) fn new(document: &OpenApi, wanted: impl Fn(&Operation) -> bool) -> Self {
        let mut found = BTreeMap::<String, Vec<Named>>::new();
        for (path, method, operation) in each(document) {
            if let Some(name) = operation.operation_id.as_deref().filter(|_| wanted(operation)) {
                found.entry(path.clone()).or_default().push((method, name.into()));
            }
        }
        Self(Arc::new(found))
    }

    /// The same with one more, at GET.
    pub(super) fn with(self, path: &str, name: &str) -> Self {
        let mut operations = Arc::unwrap_or_clone(self.0);
        operations.entry(path.to_owned()).or_default().push((Method::GET, name.into()));
        Self(Arc::new(operations))
    }

    /// The names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(|(_, name)| &**name)
    }

    /// The name of the operation that `request` asks for, if it is among these.
    pub(super) fn of(&self, request: &Request) -> Option<Arc<str>> {
        let path = request.extensions().get::<MatchedPath>()?;
        let methods = self.0.get(path.as_str())?;
        let found = methods.iter().find(|(method, _)| method == request.method());
        found.map(|(_, name)| name.clone())
    }
}

fn each(document: &OpenApi) -> impl Iterator<Item = (&String, Method, &Operation)> {
    document.paths.paths.iter().flat_map(|(path, item)| {
        let methods = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let found = methods.into_iter();
        found.filter_map(move |(method, operation)| Some((path, method, operation.as_ref()?)))
    })
}

/// Counts answers by operation and status.
#[derive(Clone, Debug)]
pub(super) struct Answers(Operations);

impl Answers {
    /// Counts those of every operation of `document`, each of whose statuses begins at zero.
    pub(super) fn new(document: &OpenApi) -> Self {
        for (_, _, operation) in each(document) {
            let Some(name) = &operation.operation_id else { continue };
            for status in operation.responses.responses.keys() {
                count(name.as_str().into(), status.clone(), 0);
            }
        }
        for status in ["404", "405"] {
            count(OTHER.into(), status.to_owned(), 0);
        }
        Self(Operations::new(document, |_| true).with(FILES.0, FILES.1))
    }

    /// What `request` is counted under.
    pub(super) fn operation(&self, request: &Request) -> Arc<str> {
        self.0.of(request).unwrap_or_else(|| OTHER.into())
    }

    /// Counts an answer.
    pub(super) fn count(operation: Arc<str>, status: u16) {
        count(operation, status.to_string(), 1);
    }
}

fn count(operation: Arc<str>, status: String, by: u64) {
    metrics::counter!("lexgate_http_requests_total", "operation" => operation, "status" => status)
        .increment(by);
}
