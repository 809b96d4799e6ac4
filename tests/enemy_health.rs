//! Against callers who take a deployment from others, and backends that answer under the wrong type, name
//! or status: what one caller's calls do stays with that caller, and a client hears what a backend says of
//! its request.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Seen, answer, chunk, completion, event, stream, usage, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store, both_stores, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const LAPTOP: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
/// Apps of the example: one of Acme's, one of the institute's, one of Acme's in India.
const GOOD: &str = "lab-notebook";
const THIRD: &str = "payments-desk";
/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9/v1";

fn chat(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": text}] })
}

fn text(seen: &Seen) -> String {
    seen.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned()
}

/// The example with three apps' keys, whose first deployment is `laptop`.
fn with(store: Store, laptop: &Backend) -> Setup {
    Service::setup(store)
        .backend(LAPTOP, &laptop.url)
        .caller(GOOD)
        .caller(THIRD)
        .env("FRANKFURT_API_KEY", "k")
}

async fn call_as(service: &Service, app: &str, path: &str, body: &Value) -> Answer {
    let request = with_json(service.request("POST", path, app), body);
    Answer::of(request.header("x-lexgate-personal", "false")).await
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn skipped(outcome: &Value) -> BTreeMap<String, String> {
    let skipped = outcome["skipped"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    skipped.iter().map(|one| (text(&one["deployment"]), text(&one["reason"]))).collect()
}

fn another_model() -> Value {
    let mut body = completion();
    body["model"] = json!("another-model");
    body
}

both_stores! {
    /// Whatever one app makes the backend answer, the others are served.
    async fn one_caller_takes_a_deployment_from_nobody(store: Store) {
        let laptop = Backend::start(|seen| match text(seen).as_str() {
            "fails" => answer("500 Oops", "", b""),
            "lies" => whole(&another_model()),
            _ => whole(&completion()),
        })
        .await;
        let service = with(store, &laptop)
            .reached(LAPTOP, "breaker_failures = 3\nbreaker_cool_down = \"60s\"")
            .start()
            .await;
        let call = async |app: &str, text: &str| call_as(&service, app, CHAT, &chat(LAPTOP, text)).await;
        for _ in 0..3 {
            call("caller", "fails").await;
        }
        call("caller", "good").await.expect(503);
        let own = outcomes(&service).await.pop().unwrap();
        assert_eq!(skipped(&own)[LAPTOP], "breaker_open", "{own}");
        for _ in 0..5 {
            call(GOOD, "good").await.expect(200);
        }
        // Another model's name is a failure like others, for the app whose call it answers.
        for _ in 0..3 {
            call(THIRD, "lies").await;
        }
        call(THIRD, "good").await.expect(503);
        call(GOOD, "good").await.expect(200);
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        let fit = format!("lexgate_deployment_fit{{deployment=\"{LAPTOP}\"}} 1");
        assert!(metrics.contains(&fit) && !service.stderr().contains("taken out of service"), "{metrics}");
        let away = format!("lexgate_breakers_open{{deployment=\"{LAPTOP}\"}} 2");
        eventually("an operator sees whom it keeps away", async || {
            Answer::of(service.anonymous("GET", "/metrics")).await.text().contains(&away)
        })
        .await;
        service.export_and_verify();
    }

    /// One app's 429 is told to that app as what it is, and not to others at all.
    async fn too_many_requests_stay_too_many_requests(store: Store) {
        let laptop = Backend::start(|seen| match text(seen).as_str() {
            "busy" => answer("429 Too Many Requests", "retry-after: 120\r\n", b""),
            "down" => answer("503 Service Unavailable", "retry-after: 120\r\n", b""),
            _ => whole(&completion()),
        })
        .await;
        let service = with(store, &laptop).start().await;
        let call = async |app: &str, text: &str| call_as(&service, app, CHAT, &chat(LAPTOP, text)).await;
        for _ in 0..2 {
            let refused = call("caller", "busy").await;
            assert_eq!(refused.expect(429)["error"]["code"], "upstream_busy");
            let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((60..=120).contains(&wait), "{wait}");
        }
        assert_eq!(laptop.seen().len(), 1, "it asked to be left alone");
        call(GOOD, "good").await.expect(200);
        // One that says that it is down is down.
        for _ in 0..2 {
            let refused = call(THIRD, "down").await;
            assert_eq!(refused.expect(503)["error"]["code"], "upstream_down");
            assert!(refused.header("retry-after").is_some());
        }
        call(GOOD, "good").await.expect(200);
        assert_eq!(skipped(&outcomes(&service).await[1])[LAPTOP], "busy");
    }

    /// What goes to no backend uses nothing of a limit; what the law denies does.
    async fn what_went_to_no_backend_uses_no_limit(store: Store) {
        let laptop = Backend::start(|seen| match text(seen).as_str() {
            "fails" => answer("500 Oops", "", b""),
            _ => whole(&completion()),
        })
        .await;
        let row = "id = \"support-copilot\"\n";
        let service = with(store, &laptop)
            .organisation_with(row, &format!("{row}limits.requests.month = 4\n"))
            .reached(LAPTOP, "breaker_failures = 1\nbreaker_cool_down = \"10s\"")
            .start()
            .await;
        let call = async |text: &str| call_as(&service, "caller", CHAT, &chat(LAPTOP, text)).await;
        call("fails").await.expect(502);
        for _ in 0..6 {
            call("good").await.expect(503);
        }
        assert_eq!(outcomes(&service).await.len(), 7);
        eventually("the breaker lets a call through", async || call("good").await.status == 200).await;
        // Two were sent. A denial is a request like any other.
        let denied = json!({ "model": "qwen3-32b@dashscope-sg", "messages": [] });
        let german = with_json(service.request("POST", CHAT, "caller"), &denied);
        let german = german.header("x-lexgate-data", "dpv-pd:Contact").header("x-lexgate-subjects", "DE");
        Answer::of(german).await.expect(403);
        call("good").await.expect(200);
        assert_eq!(call("good").await.expect(429)["error"]["type"], "requests");
        service.export_and_verify();
    }
}

/// Three apps saw another model: the backend is asked, and its own word takes it out of service, and back.
#[tokio::test]
async fn sqlite_only_a_backend_s_own_word_takes_it_from_everybody() {
    let laptop = Backend::start(|seen| match text(seen).as_str() {
        "lies" => whole(&another_model()),
        _ => whole(&completion()),
    })
    .await;
    let list = |id: &str| json!({ "data": [{ "id": id, "owned_by": "vllm" }] });
    laptop.tell("/v1/models", &list("smollm2-135m"));
    laptop.tell("/health", "");
    let service = with(Store::Sqlite, &laptop)
        .reached(LAPTOP, "probe_interval = \"1h\"\nbreaker_failures = 1000")
        .start()
        .await;
    let call =
        async |app: &str, text: &str| call_as(&service, app, CHAT, &chat(LAPTOP, text)).await;
    // It has been asked at the start, and once more behind it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    laptop.tell("/v1/models", &list("another-model"));
    for _ in 0..9 {
        call("caller", "lies").await.expect(502);
        call(GOOD, "lies").await.expect(502);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    call(THIRD, "good").await.expect(200);
    // The third that sees it is reason enough to ask, an hour before the next probe.
    call(THIRD, "lies").await.expect(502);
    eventually("it says itself what it serves", async || {
        call(THIRD, "good").await.status == 503
            && service.stderr().contains("it serves `another-model`, not `smollm2-135m`")
    })
    .await;
}

/// A refusal in HTML, in plain text, without a type, as a problem document: the caller hears it, and it
/// counts for nothing.
#[tokio::test]
async fn sqlite_a_backend_s_refusal_reaches_the_caller_whatever_its_type() {
    let problem = r#"{"title":"no","status":422}"#;
    let laptop = Backend::start(move |seen| match text(seen).as_str() {
        "html" => answer("413 Payload Too Large", "content-type: text/html\r\n", b"<h1>413</h1>"),
        "plain" => {
            answer("400 Bad Request", "content-type: text/plain\r\n", b"max_tokens is too\nlarge")
        }
        "problem" => {
            answer("422 Oops", "content-type: application/problem+json\r\n", problem.as_bytes())
        }
        "none" => answer("409 Conflict", "", br#"{"error":{"message":"twice"}}"#),
        "empty" => answer("400 Bad Request", "", b""),
        "unknown" => answer(
            "404 Not Found",
            "content-type: application/json\r\n",
            br#"{"error":{"message":"no response resp_1"}}"#,
        ),
        "nowhere" => answer("404 Not Found", "content-type: text/html\r\n", b"<h1>nginx</h1>"),
        "typeless" => answer("200 OK", "", completion().to_string().as_bytes()),
        _ => answer("200 OK", "content-type: text/plain\r\n", completion().to_string().as_bytes()),
    })
    .await;
    let service = with(Store::Sqlite, &laptop)
        .reached(LAPTOP, "breaker_failures = 1\nbreaker_cool_down = \"1h\"")
        .start()
        .await;
    let call = async |text: &str| call_as(&service, "caller", CHAT, &chat(LAPTOP, text)).await;
    let error = call("html").await.expect(413)["error"].clone();
    assert_eq!(error["message"], "the backend refused the request: 413 Payload Too Large: 413");
    assert_eq!(error["type"], "invalid_request_error");
    let error = call("plain").await.expect(400)["error"].clone();
    let words = "the backend refused the request: 400 Bad Request: max_tokens is too large";
    assert_eq!(error["message"], words);
    let handed = call("problem").await;
    let said = handed.expect(422);
    assert_eq!((&said["title"], &said["status"]), (&json!("no"), &json!(422)));
    let words = "the backend refused the request: 422 Unprocessable Entity: no";
    assert_eq!(said["error"]["message"], words);
    assert_eq!(handed.header("content-type"), Some("application/problem+json"));
    let handed = call("none").await;
    assert_eq!(handed.expect(409)["error"]["message"], "twice");
    assert_eq!(handed.header("content-type"), Some("application/json"));
    assert_eq!(call("empty").await.expect(400)["error"]["code"], "upstream_refused");
    assert_eq!(call("unknown").await.expect(404)["error"]["message"], "no response resp_1");
    assert_eq!(call("nowhere").await.expect(502)["error"]["code"], "upstream_unsupported");
    // None of it has opened the breaker, which one failure would.
    for text in ["typeless", "good"] {
        let answer = call(text).await;
        assert_eq!(answer.expect(200), completion(), "{text}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let message = json!({ "model": LAPTOP, "max_tokens": 4, "messages": [{"role": "user", "content": "html"}] });
    let error = call_as(&service, "caller", "/v1/messages", &message).await.expect(413);
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&json!("error"), &json!("request_too_large"))
    );
    service.export_and_verify();
}

/// An account that is empty is no word about the request: the next allowed deployment may have one.
#[tokio::test]
async fn sqlite_an_empty_account_is_no_answer() {
    let broke = |_: &Seen| {
        answer(
            "402 Payment Required",
            "content-type: application/json\r\n",
            br#"{"error":{"message":"no credit"}}"#,
        )
    };
    let (laptop, frankfurt) = (Backend::start(broke).await, Backend::polite().await);
    let service = with(Store::Sqlite, &laptop).backend(FRANKFURT, &frankfurt.url).start().await;
    let answer = call_as(&service, "caller", CHAT, &chat("assistant", "hello")).await;
    answer.expect(200);
    assert_eq!(answer.header("x-lexgate-deployment"), Some(FRANKFURT));
    let found = outcomes(&service).await;
    assert_eq!(found[0]["attempts"][0]["http_status"], 402);
    let answer = call_as(&service, "caller", CHAT, &chat(LAPTOP, "hello")).await;
    assert_eq!(answer.expect(502)["error"]["code"], "upstream_error");
}

/// Azure's first and last event name no model; a version is another model, unless the organisation says so.
#[tokio::test]
async fn sqlite_a_version_is_another_model_and_an_empty_name_is_none() {
    let named = |name: &str| {
        let mut body = completion();
        body["model"] = json!(name);
        whole(&body)
    };
    let laptop = Backend::start(move |seen| {
        if seen.json()["stream"] == true {
            let filter = event(
                &json!({ "id": "", "model": "", "choices": [], "prompt_filter_results": [] }),
            );
            let done = "data: [DONE]\n\n".to_owned();
            return stream(&[filter.clone(), chunk("Good"), usage(), filter, done]);
        }
        named(&text(seen))
    })
    .await;
    let service = Service::setup(Store::Sqlite)
        .backend(LAPTOP, &laptop.url)
        .reached(LAPTOP, "breaker_failures = 1000")
        .organisation_with(
            "served_as = [\"served-model\"]",
            "served_as = [\"served-model\", \"smollm2-135m-2024-*\"]",
        )
        .start()
        .await;
    let mut body = chat(LAPTOP, "hello");
    body["stream"] = json!(true);
    let streamed = call_as(&service, "caller", CHAT, &body).await;
    assert!(
        streamed.status == 200 && streamed.text().ends_with("data: [DONE]\n\n"),
        "{}",
        streamed.text()
    );
    assert!(streamed.text().contains("prompt_filter_results"));
    for (name, status) in [
        ("smollm2-135m", 200),
        ("SmolLM2-135M", 200),
        ("smollm2-135m-2024-08-06", 200),
        ("smollm2-135m-2409", 502),
        ("smollm2-135m-2025-01-01", 502),
        ("smollm2-135m-instruct", 502),
        ("", 200),
    ] {
        let answer = call_as(&service, "caller", CHAT, &chat(LAPTOP, name)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert_eq!(outcomes(&service).await[4]["attempts"][0]["failure"], "wrong_model");
    // A pattern that is every model's name is none.
    let site = &service.site;
    site.replace("config/organisation.toml", "\"smollm2-135m-2024-*\"", "\"*\"");
    let checked = site.run(&["policies", "check"]);
    assert_ne!(checked.code, Some(0));
    assert!(
        checked.stderr.contains("`*` in `served_as` is not the name of a model"),
        "{}",
        checked.stderr
    );
}

/// A backend that fails for everybody is still found out by each app, and left alone by each.
#[tokio::test]
async fn sqlite_a_backend_that_fails_for_all_is_tried_once_by_each() {
    let laptop = Backend::start(|_| answer("500 Oops", "", b"")).await;
    let service = with(Store::Sqlite, &laptop)
        .backend(FRANKFURT, NOWHERE)
        .reached(LAPTOP, "breaker_failures = 4\nbreaker_cool_down = \"60s\"")
        .start()
        .await;
    let call = async |app: &str| call_as(&service, app, CHAT, &chat(LAPTOP, "hello")).await.status;
    // Each call is tried twice.
    for app in ["caller", GOOD] {
        assert_eq!((call(app).await, call(app).await, call(app).await), (502, 502, 503), "{app}");
    }
    let seen = laptop.seen().len();
    assert_eq!(seen, 8);
    assert_eq!(call(THIRD).await, 502, "it sees for itself");
    assert_eq!(call(THIRD).await, 503);
    assert_eq!(laptop.seen().len(), seen + 1, "and once is enough");
    let unfit = format!("lexgate_deployment_fit{{deployment=\"{LAPTOP}\"}} 0");
    eventually("an operator sees it", async || {
        Answer::of(service.anonymous("GET", "/metrics")).await.text().contains(&unfit)
    })
    .await;
}
