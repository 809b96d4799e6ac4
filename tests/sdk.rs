//! The official SDKs, unmodified, against the running service: what their users do with a real model,
//! and what they meet when a backend that a test plays misbehaves. The scripts in `tests/sdk` say what
//! the client sees; here stands what backends saw and what the ledger holds.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    backend::{
        Backend, Seen, Step, answer, chunk, completion, event, piece, stream, stream_end,
        stream_head, usage, whole,
    },
    gateway::{eventually, nothing_is_open, on_device, outcomes, seeing, statuses},
    harness::{Service, Setup, Store},
};

const DEVICE: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9/v1";
const JSON: &str = "content-type: application/json\r\n";

/// An SDK with scripts of its own, each of which does the same.
#[derive(Clone, Copy, Debug)]
enum Sdk {
    Python,
    Node,
}

impl Sdk {
    /// Runs the script of a theme to its good end, and returns what it printed.
    async fn run(self, service: &Service, theme: &str) -> Vec<u8> {
        let (folder, ending) = match self {
            Self::Python => ("python", "py"),
            Self::Node => ("node", "mjs"),
        };
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run"));
        command
            .arg(format!("{folder}/{theme}.{ending}"))
            .env("LEXGATE_URL", service.url())
            .env("LEXGATE_KEY", service.site.key("caller"));
        let ran = tokio::task::spawn_blocking(move || command.output());
        let ran = ran.await.unwrap().expect("tests/sdk/run starts");
        let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(ran.status.success(), "{out}\n{err}\n{}", service.stderr());
        ran.stdout
    }
}

/// Makes each test twice, as `python::name` and `node::name`. The test takes the SDK.
macro_rules! both_sdks {
    ($(async fn $name:ident($sdk:ident: Sdk) $body:block)+) => {
        mod python {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Sdk::Python).await;
            })+
        }
        mod node {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Sdk::Node).await;
            })+
        }
        $(async fn $name($sdk: Sdk) $body)+
    };
}

fn with_the_real_model() -> Setup {
    Service::setup(Store::Sqlite).backend(DEVICE, &on_device())
}

/// The example with `backend` behind the on-device deployment, whatever it does.
fn with(backend: &Backend) -> Setup {
    let setup = Service::setup(Store::Sqlite).backend(DEVICE, &backend.url);
    setup.reached(DEVICE, "breaker_failures = 100")
}

/// What Frankfurt does; its key is set.
fn frankfurt(setup: Setup, url: &str) -> Setup {
    setup.backend(FRANKFURT, url).env("FRANKFURT_API_KEY", "k")
}

fn scenario(seen: &Seen) -> String {
    let body = seen.json();
    let told = body["user"].as_str().or(body["metadata"]["user_id"].as_str());
    told.expect("a scenario").to_owned()
}

/// How many calls were decided, and how many of them denied.
async fn decided(service: &Service) -> (usize, usize) {
    let decisions = service.records_of("decision").await;
    let denied = decisions.iter().filter(|row| row["entry"]["body"]["decision"] == "deny");
    (decisions.len(), denied.count())
}

fn every_token_is_counted(outcomes: &[Value]) {
    for outcome in outcomes.iter().filter(|outcome| outcome["status"] == "ok") {
        assert!(outcome["tokens"]["input"].as_u64().unwrap() > 0, "{outcome}");
        assert!(outcome["tokens"]["output"].as_u64().unwrap() > 0, "{outcome}");
    }
}

/// Two tool calls in pieces, written as no serialiser of ours would write them.
fn tool_deltas() -> Vec<String> {
    let chunk = |delta: &str, reason: &str| {
        format!(
            "data: {{\"id\":\"c\", \"object\":\"chat.completion.chunk\",\"created\":1,\
             \"model\":\"served-model\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
             \"finish_reason\":{reason}}}],\"x_vendor\":{{ \"b\":1.10 , \"a\":[ ]}}}}\n\n"
        )
    };
    let call = |index: usize, rest: &str| {
        chunk(&format!("{{\"tool_calls\":[{{\"index\":{index},{rest}}}]}}"), "null")
    };
    let begin = |index: usize| {
        let name = "\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":\"\"}";
        call(index, &format!("\"id\":\"call_{index}\",{name}"))
    };
    let more =
        |index, text: &str| call(index, &format!("\"function\":{{\"arguments\":\"{text}\"}}"));
    vec![
        chunk("{\"role\":\"assistant\",\"content\":null}", "null"),
        begin(0),
        more(0, r#"{\"city\": \"M\u00fc"#),
        ": a comment of the backend\n\n".to_owned(),
        more(0, r#"nchen\"}"#),
        begin(1),
        more(1, r#"{\"city\":\"الر"#),
        more(1, r#"ياض\"}"#),
        chunk("{}", "\"tool_calls\""),
        usage(),
        "data: [DONE]\n\n".to_owned(),
    ]
}

fn tool_calls() -> Value {
    let call = |id: &str, arguments: &str| {
        json!({ "id": id, "type": "function",
                "function": { "name": "weather", "arguments": arguments } })
    };
    let mut answer = completion();
    answer["choices"][0] = json!({
        "index": 0, "finish_reason": "tool_calls",
        "message": { "role": "assistant", "content": null, "tool_calls": [
            call("call_0", r#"{"city": "München"}"#), call("call_1", r#"{"city":"الرياض"}"#),
        ]},
    });
    answer
}

/// The two first texts of a streamed answer, in the way of the API that was asked.
fn first_texts(seen: &Seen) -> Vec<Step> {
    let line = seen.head.lines().next().unwrap_or_default();
    let texts = ["one ", "two"].into_iter();
    let events: Vec<String> = if line.contains("/v1/completions") {
        texts
            .map(|text| {
                event(&json!({
                    "id": "c", "object": "text_completion", "created": 1, "model": "served-model",
                    "choices": [{"index": 0, "text": text, "finish_reason": null}],
                }))
            })
            .collect()
    } else if line.contains("/v1/responses") {
        texts
            .map(|text| {
                event(&json!({
                    "type": "response.output_text.delta", "item_id": "m", "output_index": 0,
                    "content_index": 0, "sequence_number": 1, "delta": text, "logprobs": [],
                }))
            })
            .collect()
    } else if line.contains("/v1/messages") {
        let texts = texts.map(|text| {
            named_event(&json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": text } }))
        });
        message_start(&json!({ "type": "text", "text": "" })).into_iter().chain(texts).collect()
    } else {
        texts.map(chunk).collect()
    };
    std::iter::once(stream_head()).chain(events.iter().map(piece)).collect()
}

pub(crate) fn named_event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

pub(crate) fn message_start(block: &Value) -> Vec<String> {
    let message = json!({
        "id": "m", "type": "message", "role": "assistant", "content": [], "model": "served-model",
        "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": 11, "output_tokens": 0 },
    });
    vec![
        named_event(&json!({ "type": "message_start", "message": message })),
        named_event(&json!({
            "type": "content_block_start", "index": 0, "content_block": block,
        })),
    ]
}

/// A tool call in Anthropic's way, its input in pieces.
fn tool_message() -> Vec<String> {
    let mut events =
        message_start(&json!({ "type": "tool_use", "id": "t", "name": "weather", "input": {} }));
    for part in [r#"{"city": "Mün"#, r#"chen", "days": [1, 2."#, "5]}"] {
        events.push(named_event(&json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "input_json_delta", "partial_json": part } })));
    }
    events.push(named_event(&json!({ "type": "content_block_stop", "index": 0 })));
    events.push(named_event(&json!({
        "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null },
        "usage": { "output_tokens": 7 },
    })));
    events.push(named_event(&json!({ "type": "message_stop" })));
    events
}

/// Breaks the answer off after two texts.
fn breaking(seen: &Seen) -> Vec<Step> {
    if seen.json()["stream"] != true {
        // Half of an answer in one piece.
        let mut steps = whole(&completion());
        if let Some(Step::Send(bytes)) = steps.first_mut() {
            bytes.truncate(bytes.len() - 20);
        }
        return steps;
    }
    let mut steps = first_texts(seen);
    match scenario(seen).as_str() {
        "cut" => {}
        "ends" => steps.push(stream_end()),
        "error" => {
            let error = json!({ "message": "no memory", "type": "server_error" });
            let is_message = seen.head.contains("/v1/messages");
            steps.push(piece(if is_message {
                named_event(&json!({ "type": "error", "error": error }))
            } else {
                event(&json!({ "error": error }))
            }));
            steps.push(stream_end());
        }
        scenario => panic!("{scenario}"),
    }
    steps
}

both_sdks! {
    async fn chats_and_completions_come_from_an_on_device_model(sdk: Sdk) {
        let service = with_the_real_model().start().await;
        sdk.run(&service, "chat").await;
        let outcomes = outcomes(&service).await;
        let mut want = vec!["ok"; 9];
        // llama.cpp's own word on a tool choice that there is not.
        want[6] = "upstream_error";
        assert_eq!(statuses(&outcomes), want);
        every_token_is_counted(&outcomes);
        assert_eq!(decided(&service).await, (9, 0));
    }

    async fn responses_come_from_an_on_device_model(sdk: Sdk) {
        let service = with_the_real_model().start().await;
        sdk.run(&service, "responses").await;
        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["ok", "ok", "ok"]);
        every_token_is_counted(&outcomes);
        // What asks for the background is not even decided on.
        assert_eq!(decided(&service).await, (4, 1));
    }

    async fn embeddings_come_from_an_on_device_model(sdk: Sdk) {
        // What llama.cpp says without `--embeddings`.
        let without = Backend::start(|_| {
            let message = "This server does not support embeddings. Start it with `--embeddings`";
            let error = json!({ "code": 501, "message": message, "type": "not_supported_error" });
            answer("501 Not Implemented", JSON, json!({ "error": error }).to_string().as_bytes())
        })
        .await;
        let service = frankfurt(with_the_real_model(), &without.url).start().await;
        sdk.run(&service, "embeddings").await;
        assert_eq!(without.seen().len(), 1, "what is not offered was asked for again");
        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["ok", "ok", "ok", "upstream_error"]);
        assert!(outcomes[0]["tokens"]["input"].as_u64().unwrap() > 0, "{}", outcomes[0]);
        let decisions = service.records_of("decision").await;
        assert_eq!(decisions.len(), 4);
        assert!(decisions.iter().all(|row| row["entry"]["body"]["call"]["action"] == "embed"));
    }

    async fn models_are_listed_and_looked_up(sdk: Sdk) {
        let service = with_the_real_model().start().await;
        sdk.run(&service, "models").await;
        assert_eq!(decided(&service).await, (0, 0));
    }

    async fn tool_calls_and_images_pass_unharmed(sdk: Sdk) {
        let backend = Backend::start(|seen| {
            let body = seen.json();
            let is_told = body["messages"].as_array().unwrap().len() > 1;
            match (body["stream"] == true, is_told) {
                (true, _) => stream(&tool_deltas()),
                (false, false) => whole(&tool_calls()),
                (false, true) => whole(&completion()),
            }
        })
        .await;
        let service = seeing(with(&backend)).start().await;
        let streamed = sdk.run(&service, "tools").await;
        assert_eq!(String::from_utf8(streamed).unwrap(), tool_deltas().concat());
        let seen = backend.seen();
        assert_eq!(seen.len(), 4);
        let parameters = json!({ "type": "object", "required": ["city"],
            "properties": { "city": { "type": "string", "description": "auch „Köln“" } } });
        for call in &seen {
            let body = call.json();
            assert_eq!(body["tools"], json!([{ "type": "function",
                "function": { "name": "weather", "strict": true, "parameters": parameters } }]));
            assert_eq!(body["tool_choice"]["function"]["name"], "weather");
            assert_eq!(body["parallel_tool_calls"], true);
        }
        let last = seen[3].json();
        let messages = last["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 5);
        let spoken = &messages[1]["tool_calls"][1]["function"]["arguments"];
        assert_eq!(spoken, r#"{"city":"الرياض"}"#);
        assert_eq!(messages[3]["tool_call_id"], "call_1");
        assert_eq!(messages[3]["content"], r#"{"°C": 21.50}"#);
        let image = format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(30_000));
        assert_eq!(messages[4]["content"][1]["image_url"], json!({ "url": image, "detail": "low" }));
        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["ok"; 4]);
        every_token_is_counted(&outcomes);
    }

    async fn errors_are_the_sdk_s_own_and_retried_as_they_say(sdk: Sdk) {
        let backend = Backend::start(|seen| match scenario(seen).as_str() {
            "busy" => answer("429 Too Many Requests", &format!("retry-after: 0\r\n{JSON}"), b"{}"),
            "fails" => answer("500 Internal Server Error", JSON, b"{}"),
            "too_long" => answer("400 Bad Request", JSON, br#"{"error":{"message":"too long"}}"#),
            scenario => panic!("{scenario}"),
        })
        .await;
        let setup = frankfurt(with(&backend), NOWHERE);
        let service = setup.reached(FRANKFURT, "breaker_failures = 100").start().await;
        sdk.run(&service, "errors").await;
        // A denial once; down: the call and two retries; busy and failing: one each; too long: none.
        assert_eq!(decided(&service).await, (1 + 3 + 2 + 2 + 1, 1));
        assert_eq!(statuses(&outcomes(&service).await), ["upstream_error"; 8]);
        nothing_is_open(&service).await;
    }

    async fn clients_that_leave_free_the_backend(sdk: Sdk) {
        let backend = Backend::start(|seen| {
            if seen.json()["stream"] == true {
                vec![stream_head(), piece(chunk("one")), Step::Hang]
            } else {
                vec![Step::Hang]
            }
        })
        .await;
        let service = with(&backend).start().await;
        sdk.run(&service, "leaving").await;
        // A timeout and its retry, a stream closed, a call and a stream cancelled.
        eventually("every connection is freed", || backend.freed() == 5).await;
        assert_eq!(statuses(&outcomes(&service).await), ["client_disconnected"; 5]);
        assert_eq!(backend.seen().len(), 5);
        nothing_is_open(&service).await;
    }

    async fn broken_streams_raise_and_never_look_complete(sdk: Sdk) {
        let backend = Backend::start(breaking).await;
        let service = with(&backend).start().await;
        sdk.run(&service, "broken_streams").await;
        assert_eq!(statuses(&outcomes(&service).await), ["upstream_error"; 10]);
        nothing_is_open(&service).await;
    }
}

#[tokio::test]
async fn the_asynchronous_python_client_chats_concurrently_with_an_on_device_model() {
    let service = with_the_real_model().start().await;
    Sdk::Python.run(&service, "concurrent_chats").await;
    let outcomes = outcomes(&service).await;
    assert_eq!(statuses(&outcomes), ["ok"; 4]);
    every_token_is_counted(&outcomes);
    assert_eq!(decided(&service).await, (5, 1));
}

#[tokio::test]
async fn the_anthropic_sdk_works_unchanged_with_an_on_device_model() {
    let service = with_the_real_model().start().await;
    Sdk::Python.run(&service, "messages").await;
    let outcomes = outcomes(&service).await;
    assert_eq!(statuses(&outcomes), ["ok"; 6]);
    every_token_is_counted(&outcomes);
}

#[tokio::test]
async fn the_anthropic_sdk_reads_tool_calls_errors_and_broken_streams() {
    let backend = Backend::start(|seen| match scenario(seen).as_str() {
        "tool" => stream(&tool_message()),
        "hangs" if seen.json()["stream"] == true => {
            first_texts(seen).into_iter().chain([Step::Hang]).collect()
        }
        "hangs" => vec![Step::Hang],
        _ => breaking(seen),
    })
    .await;
    let setup = frankfurt(with(&backend), NOWHERE);
    let service = setup.reached(FRANKFURT, "breaker_failures = 100").start().await;
    Sdk::Python.run(&service, "messages_failing").await;
    let seen = &backend.seen()[0];
    assert!(seen.header("anthropic-version").is_some(), "{}", seen.head);
    assert_eq!(seen.header("x-api-key"), None);
    // The tool call; one denial; down with two retries; three broken streams; two that hung.
    assert_eq!(decided(&service).await, (1 + 1 + 3 + 3 + 2, 1));
    let mut want = vec!["ok"];
    want.extend(["upstream_error"; 6]);
    want.extend(["client_disconnected"; 2]);
    assert_eq!(statuses(&outcomes(&service).await), want);
    eventually("both connections are freed", || backend.freed() == 2).await;
}
