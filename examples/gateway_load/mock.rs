//! A backend that speaks OpenAI's chats and thinks nothing: whole answers at once, streams without a
//! pause or, where the question says so, with one between two pieces.

use std::{convert::Infallible, sync::LazyLock, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The model that it serves.
const MODEL: &str = "mistral-small";
/// The pieces of a streamed answer.
pub(crate) const PIECES: usize = 50;
/// The word in a question that asks for a slow stream.
pub(crate) const SLOWLY: &str = "slowly";
/// How long a slow stream waits between two pieces: it takes 50 seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// What it answers, about a kilobyte.
pub(crate) fn text() -> String {
    (0..PIECES).map(piece).collect()
}

fn piece(number: usize) -> String {
    format!("word {number:02} of the answer ")
}

static WHOLE: LazyLock<Bytes> = LazyLock::new(|| {
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL,
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
                     "message": {"role": "assistant", "content": text()}}],
        "usage": usage(),
    });
    Bytes::from(answer.to_string())
});

static EVENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    (0..PIECES)
        .map(|number| {
            let is_last = number + 1 == PIECES;
            let mut delta = json!({ "content": piece(number) });
            if number == 0 {
                delta["role"] = json!("assistant");
            }
            let finish = if is_last { json!("stop") } else { Value::Null };
            chunk(&json!([{"index": 0, "delta": delta, "finish_reason": finish}]), &Value::Null)
        })
        .collect()
});

fn usage() -> Value {
    json!({ "prompt_tokens": 31, "completion_tokens": 200, "total_tokens": 231 })
}

fn chunk(choices: &Value, usage: &Value) -> Bytes {
    let mut chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
        "model": MODEL, "choices": choices,
    });
    if !usage.is_null() {
        chunk["usage"] = usage.clone();
    }
    Bytes::from(format!("data: {chunk}\n\n"))
}

/// Serves until it is killed.
pub(crate) async fn serve(address: &str) {
    let app =
        Router::new().route("/v1/models", get(models)).route("/v1/chat/completions", post(chat));
    let listener = TcpListener::bind(address).await.unwrap();
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await.unwrap();
}

async fn models() -> Response {
    let models = json!({ "object": "list", "data": [{"id": MODEL, "object": "model"}] });
    ([(CONTENT_TYPE, "application/json")], models.to_string()).into_response()
}

async fn chat(body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked["stream"] != true {
        return ([(CONTENT_TYPE, "application/json")], WHOLE.clone()).into_response();
    }
    let wants_usage = asked["stream_options"]["include_usage"] == true;
    let is_slow = memchr::memmem::find(&body, SLOWLY.as_bytes()).is_some();
    let events = EVENTS.iter().cloned();
    let events = events.chain(wants_usage.then(|| chunk(&json!([]), &usage())));
    let events = events.chain([Bytes::from_static(b"data: [DONE]\n\n")]);
    let body = Body::from_stream(stream::unfold(
        (events, true),
        move |(mut events, is_first)| async move {
            let event = events.next()?;
            if is_slow && !is_first {
                tokio::time::sleep(PAUSE).await;
            } else {
                // Each event is written by itself, as those of a model are.
                tokio::task::yield_now().await;
            }
            Some((Ok::<_, Infallible>(event), (events, false)))
        },
    ));
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}
