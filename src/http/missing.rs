//! What is not there: paths and methods that the service does not have, told in the shape that the asking
//! client prints, with what to do instead.

use axum::{
    Json,
    extract::OriginalUri,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    gateway::{Failure, VERSION},
    problem::{Problem, ProblemKind},
};
use crate::{
    dispatch::Endpoint,
    source::{did_you_mean, nearest},
};

/// The gateway's endpoints.
const OFFERED: [(&str, &str); 8] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("GET", "/v1/models"),
    ("GET", "/v1/vocabulary"),
];
/// What below `/v1` is Lexgate's own, and told as a problem.
const OWN: [&str; 6] = ["audit", "decisions", "explain", "legal-holds", "subjects", "vocabulary"];
/// What the APIs have beside what the gateway offers, and what to do without it.
const ELSEWHERE: [(&[&str], &str); 6] = [
    (
        &["files", "uploads", "vector_stores", "containers", "skills"],
        "what a provider keeps outlives the call that is judged: send the content in the call itself",
    ),
    (
        &["batches", "fine_tuning", "fine-tunes", "evals"],
        "what runs at a provider later is not the call that was judged: send the calls one by one",
    ),
    (
        &["audio", "images", "videos", "moderations", "realtime", "rerank", "edits"],
        "it is not among the APIs whose bodies Lexgate can judge",
    ),
    (
        &["conversations", "assistants", "threads", "sessions", "memories"],
        "what a provider keeps of a conversation is not the caller's alone: send the conversation in the call itself",
    ),
    (
        &["responses"],
        "what a provider keeps of a response is not read through Lexgate: send `store: false` and keep the answer",
    ),
    (&["organization", "usage", "billing", "dashboard"], "ask the provider itself"),
];

/// The form in which a client reads an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    OpenAi,
    Anthropic,
    Ollama,
    Problem,
}

impl Shape {
    fn of(path: &str, headers: &HeaderMap) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != "v1");
        let first = parts.next().unwrap_or_default();
        if headers.contains_key(VERSION) || ["messages", "anthropic"].contains(&first) {
            return Self::Anthropic;
        }
        if first == "api" && !path.contains("/v1/") {
            return Self::Ollama;
        }
        let is_below = path.starts_with("/v1/") || path == "/v1";
        let has_name = |names: &[&str]| names.contains(&first);
        let is_an_api = OFFERED.iter().any(|(_, offered)| {
            offered.split('/').nth(2).is_some_and(|name| name == first && !OWN.contains(&name))
        });
        let is_others = ["api", "openai", "engines", "deployments", "mcp", "sse", "v1beta", "v2"];
        let is_elsewhere = ELSEWHERE.iter().any(|(names, _)| has_name(names));
        let is_slip = !is_an_api && !is_elsewhere && nearest(first, OWN.into_iter()).is_some();
        let is_own = has_name(&OWN) || is_slip;
        if is_own || !(is_below || is_an_api || is_elsewhere || has_name(&is_others)) {
            return Self::Problem;
        }
        Self::OpenAi
    }

    fn answer(self, status: StatusCode, message: String) -> Response {
        match self {
            Self::OpenAi => Failure::unknown_url(status, message).answer(Endpoint::ChatCompletions),
            Self::Anthropic => Failure::unknown_url(status, message).answer(Endpoint::Messages),
            Self::Ollama => (status, Json(json!({ "error": message }))).into_response(),
            Self::Problem if status == StatusCode::METHOD_NOT_ALLOWED => {
                Problem::new(ProblemKind::MethodNotAllowed, message).into_response()
            }
            Self::Problem => Problem::new(ProblemKind::NotFound, message).into_response(),
        }
    }
}

/// No such path.
pub(super) async fn missing(
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let shape = Shape::of(uri.path(), &headers);
    let message = match shape {
        Shape::Problem => {
            let own = OWN.map(|name| format!("/v1/{name}"));
            let hint = did_you_mean(uri.path(), own.iter().map(String::as_str));
            format!("see `/docs` for what there is{hint}")
        }
        _ => told(&method, uri.path()),
    };
    shape.answer(StatusCode::NOT_FOUND, message)
}

/// The path is there, and takes another method. Which ones it takes is told in `Allow`.
pub(super) async fn wrong_method(
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    if method == Method::OPTIONS {
        if !headers.contains_key("access-control-request-method") {
            return StatusCode::NO_CONTENT.into_response();
        }
        let shape = Shape::of(uri.path(), &headers);
        let message = "pages of other origins may not call this service: `[server] cors_origins` names those that may";
        return shape.answer(StatusCode::METHOD_NOT_ALLOWED, message.to_owned());
    }
    let shape = Shape::of(uri.path(), &headers);
    let offered = OFFERED.iter().find(|(_, offered)| *offered == uri.path());
    let message = match (shape, offered) {
        (Shape::Problem, _) => "see `/docs` for what the path takes".to_owned(),
        (_, Some((wanted, path))) => {
            format!("`{method} {path}` is not offered: send `{wanted} {path}`")
        }
        (_, None) => told(&method, uri.path()),
    };
    shape.answer(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// Says what to do instead of asking for `path`.
fn told(method: &Method, path: &str) -> String {
    let shown: String = path.chars().take(128).collect();
    let asked = format!("`{method} {shown}` is not offered");
    let advice = advice(path);
    let offered: Vec<String> =
        OFFERED.iter().map(|(method, path)| format!("`{method} {path}`")).collect();
    format!("{asked}: {advice}. Lexgate offers {}", offered.join(", "))
}

fn advice(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let clean = format!("/{}", parts.join("/"));
    let below: Vec<&str> = parts.iter().copied().filter(|part| *part != "v1").collect();
    let wanted = format!("/v1/{}", below.join("/"));
    let is_offered = |path: &str| {
        OFFERED.iter().any(|(_, offered)| *offered == path) || path.starts_with("/v1/models/")
    };
    if clean != path && is_offered(&clean) {
        return format!("leave out the last or doubled slash, and ask `{clean}`");
    }
    if parts.len() > below.len() + 1 {
        return format!(
            "`/v1` appears twice, so take it out of the base URL or out of the path, and ask `{wanted}`"
        );
    }
    if is_offered(&wanted) && clean != wanted {
        return format!(
            "the base URL lacks `/v1`: write `http://HOST/v1`, and the client asks `{wanted}`"
        );
    }
    let behind = (1..below.len()).filter_map(|at| below.get(at..));
    let behind = behind.map(|rest| format!("/v1/{}", rest.join("/"))).find(|path| is_offered(path));
    match below.as_slice() {
        ["openai" | "deployments" | "engines", ..] => {
            "this is a path of Azure's: use the client for OpenAI itself (`OpenAI`, not `AzureOpenAI`) with the base URL `http://HOST/v1`, the API key as `Authorization: Bearer`, and the deployment as `model`".to_owned()
        }
        ["v1beta" | "v2" | "v1alpha", ..] => {
            "this is another provider's API: have the client speak OpenAI's, with the base URL `http://HOST/v1`".to_owned()
        }
        ["anthropic", ..] => "the base URL for Anthropic's clients is `http://HOST`".to_owned(),
        [_, ..] if behind.is_some() => {
            format!("the base URL is `http://HOST/v1`, and the client asks `{}`", behind.unwrap_or_default())
        }
        ["api", ..] => {
            "this is Ollama's API: have the client speak OpenAI's, with the base URL `http://HOST/v1`".to_owned()
        }
        ["mcp" | "sse", ..] => "Lexgate is not an MCP server: it is in front of models, with the base URL `http://HOST/v1`".to_owned(),
        [first, ..] => {
            let known = ELSEWHERE.iter().find(|(names, _)| names.contains(first));
            known.map_or("there is no such endpoint", |(_, why)| *why).to_owned()
        }
        [] => "name an endpoint below it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str) -> Shape {
        Shape::of(path, &HeaderMap::new())
    }

    #[test]
    fn a_client_is_answered_in_its_own_shape() {
        for path in [
            "/v1/files",
            "/v1/audio/speech",
            "/v1/chat/completions/",
            "/v1/v1/chat/completions",
            "/chat/completions",
            "/models",
            "/openai/deployments/gpt/chat/completions",
            "/mcp",
            "/v1/responses/resp_1",
            "/v1",
            "/v1/whatever",
        ] {
            assert_eq!(shape(path), Shape::OpenAi, "{path}");
        }
        for path in
            ["/messages", "/v1/v1/messages", "/v1/messages/batches", "/anthropic/v1/messages"]
        {
            assert_eq!(shape(path), Shape::Anthropic, "{path}");
        }
        for path in ["/api/chat", "/api/tags", "/api/generate"] {
            assert_eq!(shape(path), Shape::Ollama, "{path}");
        }
        for path in [
            "/",
            "/favicon.ico",
            "/v1/audit/nothing",
            "/v1/decisions/1/2",
            "/tlog/x",
            "/v1/decision",
            "/v1/explian",
        ] {
            assert_eq!(shape(path), Shape::Problem, "{path}");
        }
        let headers = HeaderMap::from_iter([(
            axum::http::HeaderName::from_static(VERSION),
            axum::http::HeaderValue::from_static("2023-06-01"),
        )]);
        assert_eq!(Shape::of("/v1/files", &headers), Shape::Anthropic);
    }

    #[test]
    fn each_wrong_path_is_told_what_to_do() {
        for (path, says) in [
            ("/chat/completions", "the base URL lacks `/v1`"),
            ("/messages", "asks `/v1/messages`"),
            ("/models/gpt-5", "the base URL lacks `/v1`"),
            ("/v1/v1/chat/completions", "`/v1` appears twice"),
            ("/v1/v1/messages", "ask `/v1/messages`"),
            ("/v1/chat/completions/", "ask `/v1/chat/completions`"),
            ("/v1//chat/completions", "ask `/v1/chat/completions`"),
            ("//v1/models", "ask `/v1/models`"),
            ("/openai/deployments/gpt-5/chat/completions", "`OpenAI`, not `AzureOpenAI`"),
            ("/openai/v1/chat/completions", "`OpenAI`, not `AzureOpenAI`"),
            ("/api/chat", "Ollama's API"),
            ("/api/v1/chat/completions", "asks `/v1/chat/completions`"),
            ("/proxy/v1/embeddings", "asks `/v1/embeddings`"),
            ("/anthropic/v1/messages", "is `http://HOST`"),
            ("/mcp", "not an MCP server"),
            ("/v1beta/models/gemini:generateContent", "another provider's API"),
            ("/v1/files", "send the content in the call itself"),
            ("/v1/batches", "one by one"),
            ("/v1/audio/transcriptions", "can judge"),
            ("/v1/images/generations", "can judge"),
            ("/v1/moderations", "can judge"),
            ("/v1/realtime", "can judge"),
            ("/v1/conversations", "the conversation in the call itself"),
            ("/v1/responses/resp_1", "`store: false`"),
            ("/v1", "name an endpoint"),
            ("/v1/nonsense", "there is no such endpoint"),
        ] {
            let message = told(&Method::POST, path);
            assert!(message.contains(says), "{path}: {message}");
            assert!(message.contains("`POST /v1/chat/completions`"), "{message}");
        }
    }
}
