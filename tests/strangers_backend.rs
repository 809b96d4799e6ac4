//! Backends as strangers run them: each ends its streams, types its answers, compresses, refuses and breaks
//! off in a way of its own. What an official SDK would take directly arrives, and counts against nobody.

use std::time::Duration;

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    backend::{
        Backend, Seen, Step, answer, chunk, completion, event, events, piece, stream, stream_end,
        stream_head, usage, whole,
    },
    gateway::{CHAT, HARMLESS, chat, outcomes, statuses, streamed, with},
    harness::{Answer, Service, Store},
};

const LAPTOP: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
/// One failure is enough, and lasts.
const STRICT: &str = "breaker_failures = 1\nbreaker_cool_down = \"1h\"";

/// What the test wants of the backend.
fn scenario(seen: &Seen) -> String {
    seen.json()["metadata"]["play"].as_str().unwrap_or_default().to_owned()
}

fn asked(mut body: Value, scenario: &str) -> Value {
    body["metadata"] = json!({ "play": scenario });
    body
}

fn stop(index: u64) -> String {
    event(&json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "served-model",
        "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}],
    }))
}

async fn send(service: &Service, path: &str, body: &Value) -> Answer {
    service.openai(path, &HARMLESS, body).await
}

#[tokio::test]
async fn sqlite_a_stream_is_whole_in_every_way_in_which_backends_end_one() {
    // Azure's first event and one at its end: of no model, with no choice.
    let nameless = |field: &str| {
        event(
            &json!({ "id": "", "object": "", "created": 0, "model": "", "choices": [], field: [{"index": 0}] }),
        )
    };
    let done = || "data: [DONE]\n\n".to_owned();
    let scripts = move |name: &str| match name {
        "azure" => {
            vec![nameless("prompt_filter_results"), chunk("Good"), stop(0), nameless("x"), done()]
        }
        "unmarked" => vec![chunk("Good"), stop(0), usage()],
        "no blank line" => vec![chunk("Good"), stop(0), "data: [DONE]".to_owned()],
        "no last line" => vec![chunk("Good"), stop(0).trim_end().to_owned()],
        "two choices" => vec![chunk("Good"), stop(0), stop(1)],
        // One of two has only begun.
        "half" => vec![chunk("Good").replace("\"index\":0", "\"index\":1"), chunk("Good"), stop(0)],
        "text" => vec![chunk("Good"), usage()],
        "half an event" => vec![chunk("Good"), stop(0), "data: {\"choices\":[".to_owned()],
        scenario => panic!("{scenario}"),
    };
    let sent = scripts;
    let backend = Backend::start(move |seen| stream(&sent(&scenario(seen)))).await;
    let service = with(Store::Sqlite, &backend).reached(LAPTOP, STRICT).start().await;
    let mut body = streamed(LAPTOP);
    body["stream_options"] = json!({ "include_usage": true });
    for name in ["azure", "unmarked", "no blank line", "no last line", "two choices"] {
        let answer = send(&service, CHAT, &asked(body.clone(), name)).await;
        let want = scripts(name).concat();
        assert_eq!((answer.status, answer.text().trim_end()), (200, want.trim_end()), "{name}");
        assert!(answer.text().ends_with("\n\n"), "{name}: every reader sees the last event");
    }
    assert_eq!(statuses(&outcomes(&service).await), ["ok"; 5]);
    drop(service);
    let service =
        with(Store::Sqlite, &backend).reached(LAPTOP, "breaker_failures = 100").start().await;
    for name in ["half", "text", "half an event"] {
        let text = send(&service, CHAT, &asked(body.clone(), name)).await.text();
        assert!(text.contains("\"upstream_error\"") && !text.contains("[DONE]"), "{name}: {text}");
    }
    assert_eq!(statuses(&outcomes(&service).await), ["upstream_error"; 3]);
}

/// An answer with nothing in it, of whatever kind, is a failed attempt like any other: another deployment is
/// tried, and the record says so.
#[tokio::test]
async fn sqlite_an_answer_without_anything_is_a_failed_attempt() {
    let backend = Backend::start(|seen| {
        let events = "content-type: text/event-stream\r\n";
        match scenario(seen).as_str() {
            "no events" => answer("200 OK", events, b""),
            "no json" => answer("200 OK", "content-type: application/json\r\n", b""),
            "no type" => answer("200 OK", "", b""),
            "one line" => answer("200 OK", events, stop(0).trim_end().as_bytes()),
            coding => answer("200 OK", &format!("{events}content-encoding: {coding}\r\n"), b""),
        }
    })
    .await;
    let other = Backend::polite().await;
    let service = with(Store::Sqlite, &backend)
        .backend(FRANKFURT, &other.url)
        .env("FRANKFURT_API_KEY", "k")
        .reached(LAPTOP, "breaker_failures = 100")
        .start()
        .await;
    let mut failed = 0;
    for name in ["no events", "no json", "no type", "deflate", "gzip", "br", "zstd"] {
        for body in [streamed("assistant"), chat("assistant")] {
            let answer = send(&service, CHAT, &asked(body, name)).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert_eq!(answer.header("x-lexgate-deployment"), Some(FRANKFURT), "{name}");
            failed += 1;
        }
    }
    let found = outcomes(&service).await;
    assert_eq!(found.len(), failed);
    for outcome in found {
        let attempts = outcome["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{outcome}");
        assert!(attempts[0]["failure"].is_string() && attempts[1].get("failure").is_none());
    }
    // A whole stream of one event is one, also without its empty line.
    let answer = send(&service, CHAT, &asked(streamed(LAPTOP), "one line")).await;
    assert_eq!((answer.status, answer.text().trim_end()), (200, stop(0).trim_end()));
    assert_eq!(outcomes(&service).await.last().unwrap()["status"], "ok");
}

/// What it says is known by how it begins, not by its type.
#[tokio::test]
async fn sqlite_an_answer_is_what_it_is_whatever_its_type() {
    let text = || events().concat().into_bytes();
    let backend = Backend::start(move |seen| match scenario(seen).as_str() {
        "plain stream" => answer("200 OK", "content-type: text/plain\r\n", &text()),
        "typeless stream" => answer("200 OK", "", &text()),
        "json" => answer(
            "200 OK",
            "content-type: text/event-stream\r\n",
            completion().to_string().as_bytes(),
        ),
        "an error" => answer(
            "200 OK",
            "content-type: text/event-stream\r\n",
            br#"{"error":{"message":"no memory"}}"#,
        ),
        _ => answer("200 OK", "content-type: text/html\r\n", b"<html>data: x</html>"),
    })
    .await;
    let service =
        with(Store::Sqlite, &backend).reached(LAPTOP, "breaker_failures = 100").start().await;
    let mut body = streamed(LAPTOP);
    body["stream_options"] = json!({ "include_usage": true });
    for name in ["plain stream", "typeless stream"] {
        let answer = send(&service, CHAT, &asked(body.clone(), name)).await;
        assert_eq!((answer.status, answer.text()), (200, events().concat()), "{name}");
        assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{name}");
    }
    let answer = send(&service, CHAT, &asked(body.clone(), "json")).await;
    assert_eq!(answer.expect(200), completion());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for name in ["an error", "a page"] {
        send(&service, CHAT, &asked(body.clone(), name)).await.expect(502);
    }
    let found = outcomes(&service).await;
    let failures: Vec<_> = found.iter().map(|one| &one["attempts"][0]["failure"]).collect();
    assert_eq!(failures[3..], ["error_in_answer", "bad_answer"]);
}

macro_rules! compressed {
    ($encoder:ident, $pieces:expr) => {{
        let mut encoder = $encoder::new(Vec::new());
        for piece in $pieces {
            encoder.write_all(piece.as_bytes()).await.unwrap();
            encoder.flush().await.unwrap();
        }
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    }};
}

#[tokio::test]
async fn sqlite_what_a_backend_compresses_unasked_is_read() {
    let (answered, parts) = ([completion().to_string()], events());
    let coded = [
        ("gzip", compressed!(GzipEncoder, &answered), compressed!(GzipEncoder, &parts)),
        ("br", compressed!(BrotliEncoder, &answered), compressed!(BrotliEncoder, &parts)),
        ("zstd", compressed!(ZstdEncoder, &answered), compressed!(ZstdEncoder, &parts)),
        ("deflate", compressed!(ZlibEncoder, &answered), compressed!(ZlibEncoder, &parts)),
    ];
    let refusal = [r#"{"error":{"message":"too long"}}"#];
    let refused = compressed!(GzipEncoder, &refusal);
    // More than a whole answer may have, in a few kilobytes.
    let filling = vec![" ".repeat(1 << 20); 40];
    let bomb = compressed!(ZstdEncoder, &filling);
    let known = coded.clone();
    let backend = Backend::start(move |seen| {
        let name = scenario(seen);
        let found = known.iter().find(|(coding, ..)| *coding == name);
        let json = |coding: &str| {
            format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n")
        };
        match (found, name.as_str()) {
            (Some((coding, _, parts)), _) if seen.json()["stream"] == true => {
                let head =
                    format!("content-type: text/event-stream\r\ncontent-encoding: {coding}\r\n");
                answer("200 OK", &head, parts)
            }
            (Some((coding, body, _)), _) => answer("200 OK", &json(coding), body),
            (None, "refused") => answer("400 Bad Request", &json("gzip"), &refused),
            (None, "bomb") => answer("200 OK", &json("zstd"), &bomb),
            (None, "cut") => answer("200 OK", &json("gzip"), &known[0].1[..20]),
            (None, coding) => answer("200 OK", &json(coding), b"{}"),
        }
    })
    .await;
    let service =
        with(Store::Sqlite, &backend).reached(LAPTOP, "breaker_failures = 100").start().await;
    let mut body = streamed(LAPTOP);
    body["stream_options"] = json!({ "include_usage": true });
    for (coding, ..) in &coded {
        let answer = send(&service, CHAT, &asked(chat(LAPTOP), coding)).await;
        assert_eq!(answer.expect(200), completion(), "{coding}");
        assert_eq!(answer.header("content-encoding"), None, "{coding}");
        let answer = send(&service, CHAT, &asked(body.clone(), coding)).await;
        assert_eq!((answer.status, answer.text()), (200, events().concat()), "{coding}");
    }
    assert_eq!(backend.seen().len(), 2 * coded.len(), "each prompt is sent once");
    assert!(backend.seen().iter().all(|seen| seen.header("accept-encoding") == Some("identity")));
    let answer = send(&service, CHAT, &asked(chat(LAPTOP), "refused")).await;
    assert_eq!(answer.expect(400)["error"]["message"], "too long");
    for name in ["bomb", "cut", "compress"] {
        send(&service, CHAT, &asked(chat(LAPTOP), name)).await.expect(502);
        let found = outcomes(&service).await;
        let last = found.last().unwrap();
        assert_eq!(last["attempts"][0]["failure"], "bad_answer", "{name}: {last}");
    }
    service.export_and_verify();
}

#[tokio::test]
async fn sqlite_one_event_may_be_megabytes() {
    let large = chunk(&"x".repeat(3 << 20));
    let sent = large.clone();
    let backend = Backend::start(move |_| {
        let pieces = sent.as_bytes().chunks(100_000).map(piece);
        let end = [piece(stop(0)), piece("data: [DONE]\n\n"), stream_end()];
        std::iter::once(stream_head()).chain(pieces).chain(end).collect()
    })
    .await;
    let service = with(Store::Sqlite, &backend).start().await;
    let answer = send(&service, CHAT, &streamed(LAPTOP)).await;
    assert_eq!(answer.text(), [&*large, &stop(0), "data: [DONE]\n\n"].concat());
    assert_eq!(statuses(&outcomes(&service).await), ["ok"]);
}

/// The field that a client never sent is no reason for which its call may fail.
#[tokio::test]
async fn sqlite_a_backend_that_refuses_our_own_option_is_asked_without() {
    let backend = Backend::start(|seen| {
        let body = seen.json();
        let json = "content-type: application/json\r\n";
        let strict = br#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#;
        match (scenario(seen).as_str(), body.get("stream_options")) {
            // What the client says is echoed, whatever is wrong with it.
            ("echo", _) => answer("400 Bad Request", json, br#"{"error":{"message":"no tool `stream_options`"}}"#),
            ("easy", _) | (_, None) => stream(&events()),
            _ => answer("422 Unprocessable Entity", json, strict),
        }
    })
    .await;
    let service = with(Store::Sqlite, &backend).reached(LAPTOP, STRICT).start().await;
    let asks = |n: usize| backend.seen()[n].json().get("stream_options").is_some();
    let words = send(&service, CHAT, &asked(streamed(LAPTOP), "echo")).await;
    assert_eq!(words.expect(400)["error"]["message"], "no tool `stream_options`");
    assert_eq!((backend.seen().len(), asks(0), asks(1)), (2, true, false));
    // That proved nothing: the next call is asked for usage again.
    send(&service, CHAT, &asked(streamed(LAPTOP), "easy")).await;
    assert!(asks(2));
    let answer = send(&service, CHAT, &streamed(LAPTOP)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!((asks(3), asks(4)), (true, false));
    let found = outcomes(&service).await;
    let attempts = found[2]["attempts"].as_array().unwrap();
    let told: Vec<_> =
        attempts.iter().map(|one| (&one["http_status"], one.get("failure"))).collect();
    assert_eq!(told, [(&json!(422), Some(&json!("status"))), (&json!(200), None)]);
    assert!(attempts.iter().all(|one| one["deployment"] == LAPTOP));
    // It is remembered.
    assert_eq!(send(&service, CHAT, &streamed(LAPTOP)).await.status, 200);
    assert_eq!((backend.seen().len(), asks(5)), (6, false));
    // What the client sends is the client's to hear of.
    let mut own = streamed(LAPTOP);
    own["stream_options"] = json!({ "include_usage": true });
    let words = send(&service, CHAT, &own).await.expect(422);
    assert!(words["error"]["message"].as_str().unwrap().contains("Extra inputs are not permitted"));
    assert_eq!(words["detail"][0]["type"], "extra_forbidden");
    service.export_and_verify();
    drop(service);

    let service = with(Store::Sqlite, &backend).reached(LAPTOP, "usage_in_streams = false");
    let service = service.start().await;
    assert_eq!(send(&service, CHAT, &streamed(LAPTOP)).await.status, 200);
    assert_eq!((backend.seen().len(), asks(7)), (8, false));
}

#[tokio::test]
async fn sqlite_a_404_passes_its_words_when_no_other_may_answer() {
    let backend = Backend::start(|seen| {
        let words: &[u8] = match scenario(seen).as_str() {
            "message" => {
                br#"{"object":"error","message":"The model `x` does not exist.","code":404}"#
            }
            "text" => br#"{"error":"model 'x' not found"}"#,
            _ => br#"{"detail":"Not Found"}"#,
        };
        answer("404 Not Found", "content-type: application/json\r\n", words)
    })
    .await;
    let other = Backend::polite().await;
    let service = with(Store::Sqlite, &backend)
        .backend(FRANKFURT, &other.url)
        .env("FRANKFURT_API_KEY", "k")
        .reached(LAPTOP, STRICT)
        .start()
        .await;
    let call = async |scenario: &str| send(&service, CHAT, &asked(chat(LAPTOP), scenario)).await;
    assert_eq!(call("message").await.expect(404)["message"], "The model `x` does not exist.");
    let words = call("text").await.expect(404);
    assert!(words["error"]["message"].as_str().unwrap().ends_with(": model 'x' not found"));
    assert_eq!(call("nowhere").await.expect(502)["error"]["code"], "upstream_unsupported");
    let answer = send(&service, CHAT, &asked(chat("assistant"), "message")).await;
    answer.expect(200);
    assert_eq!(answer.header("x-lexgate-deployment"), Some(FRANKFURT));
}

/// Whoever writes for three minutes before the first byte is not down.
#[tokio::test]
async fn sqlite_a_whole_answer_has_a_time_of_its_own() {
    let late = || Step::Wait(Duration::from_millis(900));
    let backend = Backend::start(move |seen| {
        let is_stream = seen.json()["stream"] == true;
        let steps = if is_stream { stream(&events()) } else { whole(&completion()) };
        std::iter::once(late()).chain(steps).collect()
    })
    .await;
    let limit = "first_byte_timeout = \"300ms\"\nbreaker_failures = 100";
    let service = with(Store::Sqlite, &backend).reached(LAPTOP, limit).start().await;
    assert_eq!(send(&service, CHAT, &chat(LAPTOP)).await.expect(200), completion());
    assert_eq!(backend.seen().len(), 1, "it is not sent, and paid for, twice");
    send(&service, CHAT, &streamed(LAPTOP)).await.expect(504);
}

#[tokio::test]
async fn sqlite_a_key_that_we_lack_is_no_fault_of_the_backend() {
    let backend = Backend::polite().await;
    let service = with(Store::Sqlite, &backend)
        .reached(LAPTOP, &format!("api_key = \"laptop\"\n{STRICT}"))
        .append("config/lexgate.toml", "[secrets.laptop]\nfile = \"data/late.key\"")
        .start()
        .await;
    let answer = send(&service, CHAT, &chat(LAPTOP)).await;
    let error = answer.expect(503)["error"].clone();
    assert_eq!(error["code"], "upstream_down");
    assert!(error["message"].as_str().unwrap().contains("no key"), "{error}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(outcomes(&service).await[0]["attempts"][0]["failure"], "no_key");
    // Nor has anything been held against it.
    service.site.write("data/late.key", "k\n");
    send(&service, CHAT, &chat(LAPTOP)).await.expect(200);
}

#[tokio::test]
async fn sqlite_a_stream_that_breaks_ends_as_its_api_s_clients_read_it() {
    let numbered = |kind: &str, sequence: u64| {
        let response = json!({ "id": "resp_7", "object": "response", "model": "served-model", "status": "in_progress" });
        format!(
            "event: {kind}\n{}",
            event(&json!({ "type": kind, "sequence_number": sequence, "response": response }))
        )
    };
    let backend = Backend::start(move |seen| {
        let begun = match seen.head.split(' ').nth(1).unwrap() {
            RESPONSES if scenario(seen) == "fails" => {
                return stream(&[numbered("response.created", 0), numbered("response.failed", 1)]);
            }
            RESPONSES => vec![numbered("response.created", 0), numbered("response.in_progress", 6)],
            MESSAGES => vec!["event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned()],
            _ => vec![chunk("one")],
        };
        stream(&begun)
    })
    .await;
    let service =
        with(Store::Sqlite, &backend).reached(LAPTOP, "breaker_failures = 100").start().await;
    let last = async |path: &str, body: Value| {
        let text = send(&service, path, &body).await.text();
        let event = text.trim_end().rsplit("\n\n").next().unwrap().to_owned();
        let (name, data) = event.split_once("data: ").unwrap();
        (name.to_owned(), serde_json::from_str::<Value>(data).unwrap())
    };
    let response = json!({ "model": LAPTOP, "stream": true, "store": false, "input": "Hello" });
    let (name, failed) = last(RESPONSES, response.clone()).await;
    assert_eq!((&*name, &failed["type"]), ("event: response.failed\n", &json!("response.failed")));
    assert_eq!(failed["sequence_number"], 7);
    let response_of = &failed["response"];
    assert_eq!((&response_of["id"], &response_of["status"]), (&json!("resp_7"), &json!("failed")));
    let reason = "the backend broke off its answer";
    assert_eq!(response_of["error"]["message"], reason);
    // What says so itself is not contradicted.
    let (_, failed) = last(RESPONSES, asked(response, "fails")).await;
    assert_eq!((&failed["sequence_number"], failed["response"].get("error")), (&json!(1), None));
    let mut message = streamed(LAPTOP);
    message["max_tokens"] = json!(8);
    let (name, error) = last(MESSAGES, message).await;
    assert_eq!((&*name, &error["error"]["message"]), ("event: error\n", &json!(reason)));
    let (_, error) = last(CHAT, streamed(LAPTOP)).await;
    assert_eq!(error["error"]["message"], reason);
    assert_eq!(statuses(&outcomes(&service).await), ["upstream_error"; 4]);
}
