//! The gateway: the APIs through which models are called, with each call judged before it leaves and
//! the claims stripped.

mod claim_names;
mod claims;
mod denial;
mod denial_answer;
mod failure;
mod metadata;
mod modalities;
mod models;
mod persons;
mod typed;

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use futures_util::stream;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    RequestId, Shared,
    auth::AsCaller,
    body::{self, MODEL_BODY},
    coding, limits,
    problem::{Problem, ProblemKind},
};
use crate::{
    dispatch::{Endpoint, Fields},
    domain::{
        AppId, CallRequest, FieldFault, JurisdictionCode, PolicyId,
        passing::{self, NeededPass, RefusedBody},
    },
    facts::{self, Organisation},
    gate::{LabelledBy, ModelCall, Recorded, Reply, ReplyBody, Served},
    telemetry::Trace,
};
pub(super) use claim_names::{CLAIMS, FIELD, HEADER};
pub(super) use failure::{Failure, schemas};
use failure::{Failures, MessageFailures};
pub(super) use models::{least, usable};

/// The headers of a request that a backend gets: the betas that stay within a call, and an API's version.
const PASSED_ON: [&str; 3] = ["anthropic-beta", "openai-beta", VERSION];
pub(super) const VERSION: &str = "anthropic-version";
/// Names the fields of the body that no backend got, because the call is declared to be about no one.
const WITHHELD: HeaderName = HeaderName::from_static("x-lexgate-withheld");

/// The gateway's endpoints.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(chat_completions))
        .routes(routes!(completions))
        .routes(routes!(embeddings))
        .routes(routes!(responses))
        .routes(routes!(messages))
        .routes(routes!(count_tokens))
        .routes(routes!(models::models))
        .routes(routes!(models::model))
}

/// What a call is about, where its `metadata` does not say it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes headers, which are read one by one")]
struct Claims {
    /// Whether the data relates to identifiable people; when absent: whether categories or subjects
    /// are given.
    #[param(rename = "x-lexgate-personal")]
    personal: Option<bool>,
    /// Categories, comma-separated; empty: classified, none apply.
    #[param(rename = "x-lexgate-data", example = "dpv-pd:Health")]
    data: Option<String>,
    /// Jurisdictions of the data subjects, comma-separated.
    #[param(rename = "x-lexgate-subjects", example = "DE")]
    subjects: Option<String>,
    /// How many people the data is about; one when absent and the data is personal.
    #[param(rename = "x-lexgate-subject-count", example = 1)]
    subject_count: Option<u64>,
    /// The purpose.
    #[param(rename = "x-lexgate-purpose", example = "dpv:ServiceProvision")]
    purpose: Option<String>,
    /// Jurisdictions in which the answer is used, comma-separated.
    #[param(rename = "x-lexgate-audience", example = "DE")]
    audience: Option<String>,
    /// Where the call is made.
    #[param(rename = "x-lexgate-location", example = "DE")]
    location: Option<String>,
    /// The end user for whom the call is made: decides nothing, and is erased on their request.
    #[param(rename = "x-lexgate-end-user", example = "u-1842")]
    end_user: Option<String>,
}

/// Declares an endpoint that calls a model. Its documentation is the operation's.
macro_rules! model_endpoint {
    (
        $(#[$doc:meta])* $name:ident, $endpoint:ident, $path:literal, $id:literal,
        $request:expr, $answer:expr, $errors:ty
    ) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "gateway", operation_id = $id,
            security(("api_key" = [])), params(Claims),
            request_body(content = Object, description = "As the API's own; `model` is a virtual model, a model or a deployment",
                example = $request),
            responses(
                (status = 200, description = "The backend's answer", body = Object,
                    headers(
                        ("x-lexgate-decision" = String, description = "The decision's identifier"),
                        ("x-lexgate-record" = u64, description = "The decision's position in the ledger"),
                        ("x-lexgate-deployment" = String, description = "The deployment that answered"),
                        ("x-lexgate-jurisdictions" = String, description = "Where inference ran"),
                        ("x-lexgate-duties" = String, description = "The duty policies that the answer brings with it; absent when none"),
                        ("x-lexgate-label" = String, description = "Where a duty asks for a label: `added` if Lexgate added it, `caller` if the caller must"),
                    ),
                    example = $answer),
                $errors,
            ),
        )]
        async fn $name(
            State(shared): State<Arc<Shared>>,
            caller: Result<AsCaller, Problem>,
            request: Request,
        ) -> Response {
            answered(&shared, caller, Endpoint::$endpoint, request).await
        }
    };
}

model_endpoint! {
    /// Call a chat model.
    ///
    /// OpenAI's endpoint, whole and streamed: the body goes to the chosen backend as it is, but for the
    /// model's name and the claims. What does not stay within the call, such as a tool that the provider
    /// runs, is refused unless a deployment of the model passes it on. What the call is about comes in headers, or in `metadata` under the
    /// same names in snake case (`lexgate_subjects`); a contradiction between them is a 400. A call that
    /// declares nothing about its data is denied.
    chat_completions, ChatCompletions, "/v1/chat/completions", "createChatCompletion",
    json!({"model": "assistant", "messages": [{"role": "user", "content": "Good morning"}], "max_tokens": 32}),
    json!({"id": "chatcmpl-1", "object": "chat.completion", "model": "smollm2-135m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Good morning!"}}],
        "usage": {"prompt_tokens": 31, "completion_tokens": 4, "total_tokens": 35}}),
    Failures
}

model_endpoint! {
    /// Complete a text.
    ///
    /// OpenAI's older endpoint, whole and streamed. See `createChatCompletion` for what is the same.
    completions, Completions, "/v1/completions", "createCompletion",
    json!({"model": "assistant", "prompt": "Good", "max_tokens": 4}),
    json!({"id": "cmpl-1", "object": "text_completion", "model": "smollm2-135m",
        "choices": [{"index": 0, "finish_reason": "length", "text": " morning, everybody"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}}),
    Failures
}

model_endpoint! {
    /// Embed texts.
    ///
    /// OpenAI's endpoint. The policies are asked for the action `embed`. See `createChatCompletion` for
    /// what is the same.
    embeddings, Embeddings, "/v1/embeddings", "createEmbedding",
    json!({"model": "assistant", "input": ["Good morning"]}),
    json!({"object": "list", "model": "smollm2-135m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.013, -0.021]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3}}),
    Failures
}

model_endpoint! {
    /// Ask for a response.
    ///
    /// OpenAI's newer endpoint, whole and streamed, where the backend speaks it. A response in the
    /// background is refused: its outcome could not be recorded. One that the backend stores (`store` is
    /// not `false`) is not sent again once a backend may have begun it. See `createChatCompletion` for
    /// what is the same.
    responses, Responses, "/v1/responses", "createResponse",
    json!({"model": "assistant", "input": "Good morning", "store": false}),
    json!({"id": "resp_1", "object": "response", "status": "completed", "model": "smollm2-135m",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Good morning!", "annotations": []}]}],
        "usage": {"input_tokens": 31, "output_tokens": 4, "total_tokens": 35}}),
    Failures
}

model_endpoint! {
    /// Send a message.
    ///
    /// Anthropic's endpoint, whole and streamed, where the backend speaks it; failures come in
    /// Anthropic's shape. See `createChatCompletion` for what is the same.
    messages, Messages, "/v1/messages", "createMessage",
    json!({"model": "assistant", "max_tokens": 32, "messages": [{"role": "user", "content": "Good morning"}]}),
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "smollm2-135m",
        "content": [{"type": "text", "text": "Good morning!"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 31, "output_tokens": 4}}),
    MessageFailures
}

model_endpoint! {
    /// Count the tokens of a message.
    ///
    /// Anthropic's endpoint, where the backend speaks it. What is counted is sent: it is judged and recorded
    /// as the message itself would be, and counts as a request of the app, and as no tokens. See
    /// `createChatCompletion` for what is the same.
    count_tokens, CountTokens, "/v1/messages/count_tokens", "countMessageTokens",
    json!({"model": "assistant", "messages": [{"role": "user", "content": "Good morning"}]}),
    json!({"input_tokens": 14}),
    MessageFailures
}

async fn answered(
    shared: &Shared,
    caller: Result<AsCaller, Problem>,
    endpoint: Endpoint,
    request: Request,
) -> Response {
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let mut response = match call(shared, caller, endpoint, request).await {
        Ok(response) => response,
        Err(failure) => failure.answer(endpoint),
    };
    name_request(response.headers_mut(), endpoint, &id);
    response
}

/// Anthropic's SDKs read the request's identifier under another name than `x-request-id`.
fn name_request(headers: &mut HeaderMap, endpoint: Endpoint, id: &RequestId) {
    if endpoint.is_anthropics()
        && let Ok(id) = HeaderValue::from_str(&id.0)
    {
        headers.insert("request-id", id);
    }
}

async fn call(
    shared: &Shared,
    caller: Result<AsCaller, Problem>,
    endpoint: Endpoint,
    request: Request,
) -> Result<Response, Failure> {
    let AsCaller(caller) = caller?;
    // A body that would wait for nothing is not read.
    shared.gate.admits(&caller).map_err(|error| Failure::of(error, endpoint))?;
    let app = caller.app.clone();
    let (call, withheld) = model_call(shared, &app, endpoint, request).await?;
    let reply = shared.gate.call(caller, call).await;
    match reply.map_err(|error| Failure::of(error, endpoint))? {
        Reply::Answered(served, body) => {
            let mut response = answer(&served, body);
            limits::tell_sdk(response.headers_mut(), endpoint, &served.recorded.limits);
            if !withheld.is_empty() {
                let names = HeaderValue::from_str(&withheld.join(","));
                response.headers_mut().extend(names.ok().map(|names| (WITHHELD, names)));
            }
            Ok(response)
        }
        Reply::Denied(recorded) => {
            let judge = shared.gate.keeper().current();
            let row = judge.snapshot().organisation.apps.get(&app);
            let mut failure =
                Failure::denied(&recorded, &judge, row.map_or(403, |app| app.denial_status));
            name_decision(failure.headers_mut(), &recorded);
            Err(failure)
        }
        Reply::Failed(failed) => {
            let mut failure = Failure::upstream(&failed);
            name_decision(failure.headers_mut(), &failed.recorded);
            limits::tell_sdk(failure.headers_mut(), endpoint, &failed.recorded.limits);
            Err(failure)
        }
    }
}

async fn model_call(
    shared: &Shared,
    app: &AppId,
    endpoint: Endpoint,
    request: Request,
) -> Result<(ModelCall, Vec<&'static str>), Failure> {
    body::require_json(request.headers())?;
    let headers = request.headers().clone();
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let trace = request.extensions().get::<Trace>().cloned().unwrap_or_default();
    let room = &shared.bodies.room;
    let bytes = body::read(room, &format!("app:{app}"), request, MODEL_BODY).await?;
    let mut body = Fields::parse(&bytes).map_err(|error| {
        let hint = coding::hint(&bytes);
        let detail = format!("the body is not a JSON object that can be read: {error}{hint}");
        Problem::new(ProblemKind::MalformedBody, detail)
    })?;
    let mut needed = passing::needed(endpoint.root(), body.members()).map_err(Failure::refused)?;
    let headers_on = passed_on(&headers, &mut needed).map_err(Failure::refused)?;
    let judge = shared.gate.keeper().current();
    let organisation = &judge.snapshot().organisation;
    let model = typed::model(&body)?;
    let claims::Claimed { mut request, withheld } =
        claims::take(&headers, &mut body, organisation, app, endpoint, model)?;
    request.passes = needed.iter().map(|one| one.field.clone()).collect();
    check_passes(organisation, app, &request, &needed).map_err(Failure::refused)?;
    request.modalities = modalities::needed(organisation, endpoint, &body, &request)?;
    let stream = typed::stream(&body)? && endpoint != Endpoint::CountTokens;
    let wants_usage = typed::wants_usage(endpoint, &body)?;
    let call = ModelCall {
        request,
        endpoint,
        body,
        received: bytes,
        headers: headers_on,
        stream,
        wants_usage,
        request_id: request_id.0.to_string(),
        trace,
    };
    Ok((call, withheld))
}

/// The headers that a backend gets beside Lexgate's own; what needs a pass is added to `needed`.
fn passed_on(
    headers: &HeaderMap,
    needed: &mut Vec<NeededPass>,
) -> Result<Vec<(&'static str, String)>, RefusedBody> {
    let mut passed = Vec::new();
    for name in PASSED_ON {
        let values = headers.get_all(name).iter().map(HeaderValue::to_str);
        let values: Result<Vec<&str>, _> = values.collect();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let values = values.ok().filter(|values| {
            let is_version = |value: &&str| value.len() <= 32 && value.bytes().all(plain);
            name != VERSION || (values.len() <= 1 && values.iter().all(is_version))
        });
        let Some(values) = values else {
            let detail =
                format!("`{name}` must contain only visible ASCII characters, and one version");
            return Err(RefusedBody(FieldFault::new(name, detail)));
        };
        if name != VERSION {
            let betas = passing::needed_by_header(name, values.iter().copied());
            needed.extend(betas?);
        }
        if !values.is_empty() {
            passed.push((name, values.join(",")));
        }
    }
    Ok(passed)
}

/// Refuses a call of which no deployment of its model passes on what it needs passed on.
fn check_passes(
    organisation: &Organisation,
    app: &AppId,
    request: &CallRequest,
    needed: &[NeededPass],
) -> Result<(), RefusedBody> {
    let name = request.deployment.as_ref().or(request.model.as_ref());
    let candidates = name.map(|name| organisation.deployments_of(name)).unwrap_or_default();
    let Some(app) = organisation.apps.get(app).filter(|_| !candidates.is_empty()) else {
        return Ok(());
    };
    let names_one = request.deployment.is_some();
    let Err(missing) = facts::passing(candidates, &request.passes, &app.tenant, names_one) else {
        return Ok(());
    };
    let Some(needed) = needed.iter().find(|one| one.field == missing.field) else { return Ok(()) };
    let detail = format!("`{}` is not passed on: {}; {missing}", needed.pointer, needed.why);
    Err(RefusedBody(FieldFault::new(needed.pointer.clone(), detail)))
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
    let duties: Vec<&str> = served.duties.iter().map(PolicyId::as_str).collect();
    for (name, text) in [
        ("content-type", served.content_type.clone()),
        ("x-lexgate-deployment", served.deployment.to_string()),
        ("x-lexgate-jurisdictions", jurisdictions.join(",")),
        ("x-lexgate-duties", duties.join(",")),
        ("x-lexgate-label", served.label.map_or("", LabelledBy::as_str).to_owned()),
    ] {
        let value = HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty());
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_request_as_anthropic_does() {
        let named = |endpoint| {
            let mut headers = HeaderMap::new();
            name_request(&mut headers, endpoint, &RequestId("r-1".into()));
            headers.get("request-id").cloned()
        };
        assert_eq!(named(Endpoint::Messages), Some(HeaderValue::from_static("r-1")));
        assert_eq!(named(Endpoint::ChatCompletions), None);
    }
}
