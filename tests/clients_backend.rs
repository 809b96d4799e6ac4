//! What clients meet on the answer's side: labels that spoil nothing, and keys where each API reads them.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    backend::{Backend, Seen, completion, event, stream, whole},
    gateway::{CHAT, data, eventually, outcomes, streamed, with},
    harness::{Answer, Service, Store},
};

const LAPTOP: &str = "smollm2@laptop";
/// Of people in the Union, whom a duty lets know that a machine speaks.
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];
const APP: &str = "id = \"support-copilot\"\n";

/// The texts of a streamed answer, however its API says them.
fn texts(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let events = text.split("\n\n").filter_map(|event| event.split_once("data: "));
    let events = events.filter(|(_, data)| *data != "[DONE]");
    events.map(|(_, data)| serde_json::from_str(data).unwrap()).collect()
}

fn chat_chunk(index: u64, delta: &Value) -> String {
    event(&json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "served-model",
        "choices": [{"index": index, "delta": delta, "finish_reason": null}],
    }))
}

/// Chats, messages and responses, each in two pieces.
fn two_pieces(seen: &Seen) -> Vec<String> {
    let named =
        |data: Value| format!("event: {}\n{}", data["type"].as_str().unwrap(), event(&data));
    let done = || "data: [DONE]\n\n".to_owned();
    match seen.head.split(' ').nth(1).unwrap() {
        "/v1/messages" => {
            let delta = |text: &str| {
                named(
                    json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
                )
            };
            vec![delta("Good "), delta("morning"), named(json!({ "type": "message_stop" }))]
        }
        "/v1/responses" => {
            let delta = |text: &str| {
                named(
                    json!({ "type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text }),
                )
            };
            let output =
                json!([{ "content": [{ "type": "output_text", "text": "Good morning" }] }]);
            let end = json!({ "type": "response.completed", "response": { "model": "served-model", "output": output } });
            vec![delta("Good "), delta("morning"), named(end)]
        }
        "/v1/completions" => {
            let text = |text: &str| {
                event(
                    &json!({ "model": "served-model", "choices": [{ "index": 0, "text": text }] }),
                )
            };
            vec![text("Good "), text("morning"), done()]
        }
        _ => match seen.json()["user"].as_str() {
            Some("json") => vec![chat_chunk(0, &json!({ "content": "{\"answer\":42}" })), done()],
            Some("tools") => {
                let call = json!({ "tool_calls": [{ "index": 0, "id": "t", "function": { "name": "f", "arguments": "{}" } }] });
                vec![
                    chat_chunk(0, &json!({ "role": "assistant", "content": null })),
                    chat_chunk(0, &call),
                    done(),
                ]
            }
            _ => vec![
                chat_chunk(0, &json!({ "role": "assistant", "content": "" })),
                chat_chunk(0, &json!({ "content": "Good " })),
                chat_chunk(1, &json!({ "content": "Bon" })),
                chat_chunk(0, &json!({ "content": "morning" })),
                done(),
            ],
        },
    }
}

#[tokio::test]
async fn sqlite_a_label_is_in_front_of_each_text_and_of_nothing_else() {
    let backend = Backend::start(|seen| {
        let is_stream = seen.json()["stream"] == true;
        if is_stream { stream(&two_pieces(seen)) } else { whole(&completion()) }
    })
    .await;
    let service = with(Store::Sqlite, &backend)
        .organisation_with(APP, &format!("{APP}stream_label = \"[AI] \"\n"))
        .start()
        .await;
    let call = async |path: &str, body: &Value| service.openai(path, &GERMAN, body).await;
    let mut body = streamed(LAPTOP);
    body["n"] = json!(2);
    let answer = call(CHAT, &body).await;
    assert_eq!(answer.header("x-lexgate-label"), Some("added"));
    let mut read = ["", ""].map(str::to_owned);
    for chunk in texts(&answer) {
        let choice = &chunk["choices"][0];
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        read[index].push_str(choice["delta"]["content"].as_str().unwrap());
    }
    assert_eq!(read, ["[AI] Good morning", "[AI] Bon"]);

    // What a program reads stays what it is, to the byte.
    let mut body = streamed(LAPTOP);
    body["user"] = json!("json");
    body["response_format"] =
        json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": {} } });
    let answer = call(CHAT, &body).await;
    assert_eq!(answer.header("x-lexgate-label"), Some("caller"));
    let want = chat_chunk(0, &json!({ "content": "{\"answer\":42}" }));
    assert_eq!(answer.text(), format!("{want}data: [DONE]\n\n"));
    let mut body = streamed(LAPTOP);
    body["user"] = json!("tools");
    let answer = call(CHAT, &body).await;
    assert_eq!(data(&answer.text()).len(), 3, "a tool call got text: {}", answer.text());

    let mut body = streamed(LAPTOP);
    body["max_tokens"] = json!(8);
    let answer = call("/v1/messages", &body).await;
    assert_eq!(answer.header("x-lexgate-label"), Some("added"));
    let said: String =
        texts(&answer).iter().filter_map(|one| one["delta"]["text"].as_str()).collect();
    assert_eq!(said, "[AI] Good morning");
    let prompt = json!({ "model": LAPTOP, "stream": true, "prompt": "Hello" });
    let found = texts(&call("/v1/completions", &prompt).await);
    let said: String = found.iter().filter_map(|one| one["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, "[AI] Good morning");
    let input = json!({ "model": LAPTOP, "stream": true, "store": false, "input": "Hello" });
    let found = texts(&call("/v1/responses", &input).await);
    let said: String = found.iter().filter_map(|one| one["delta"].as_str()).collect();
    let end = &found.last().unwrap()["response"]["output"][0]["content"][0]["text"];
    assert_eq!((&*said, end), ("[AI] Good morning", &json!("[AI] Good morning")));

    // In one piece it is the caller's, who is told so; where no duty asks, nothing is said.
    let mut body = streamed(LAPTOP);
    body["stream"] = json!(false);
    let answer = call(CHAT, &body).await;
    assert_eq!(answer.expect(200), completion());
    assert_eq!(answer.header("x-lexgate-label"), Some("caller"));
    let away =
        [("data", "dpv-pd:Contact"), ("subjects", "SG"), ("audience", "SG"), ("location", "SG")];
    let answer = service.openai(CHAT, &away, &body).await;
    assert_eq!(answer.header("x-lexgate-label"), None);
}

/// What a server was asked: the key in each of its places, and the version.
type Asked = Arc<Mutex<Vec<[Option<String>; 3]>>>;

/// Anthropic's list of models, for who asks as Anthropic's API is asked.
async fn models(State(asked): State<Asked>, headers: HeaderMap) -> axum::response::Response {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let [bearer, key, version] = ["authorization", "x-api-key", "anthropic-version"].map(header);
    asked.lock().unwrap().push([bearer.clone(), key.clone(), version.clone()]);
    if bearer.is_some() || key.as_deref() != Some("k") || version.is_none() {
        let error = json!({ "type": "error", "error": { "type": "authentication_error", "message": "invalid" } });
        return (StatusCode::UNAUTHORIZED, error.to_string()).into_response();
    }
    json!({ "data": [{ "type": "model", "id": "another-model" }], "has_more": false })
        .to_string()
        .into_response()
}

#[tokio::test]
async fn sqlite_a_probe_asks_as_anthropic_s_api_is_asked() {
    let asked = Asked::default();
    let app = Router::new().route("/v1/models", get(models)).with_state(asked.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await });
    for api in ["api = \"anthropic\"\n", ""] {
        let service = Service::setup(Store::Sqlite)
            .backend(LAPTOP, &url)
            .reached(
                LAPTOP,
                &format!("{api}api_key_env = \"LAPTOP_KEY\"\nprobe_interval = \"200ms\""),
            )
            .replace("config/lexgate.toml", "environment = [", "environment = [\"LAPTOP_KEY\", ")
            .env("LAPTOP_KEY", "k")
            .start()
            .await;
        // It has heard what the server says of itself.
        eventually("the list of models was read", || {
            service.stderr().contains("it serves `another-model`")
        })
        .await;
        let answer = service.openai(CHAT, &GERMAN, &streamed(LAPTOP)).await;
        assert_eq!(answer.expect(503)["error"]["code"], "upstream_down");
        assert_eq!(outcomes(&service).await[0]["skipped"][0]["reason"], "out_of_service");
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert!(
            asked.iter().all(|[bearer, key, _]| bearer.is_some() != key.is_some()),
            "{asked:?}"
        );
        if !api.is_empty() {
            assert!(asked.iter().all(|[bearer, ..]| bearer.is_none()), "{asked:?}");
        }
    }
}
