//! The gateway: what a client sends, what a backend gets, what comes back, and what the ledger
//! says of it, whoever misbehaves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Step, answer, completion, events, stream, usage, whole},
    harness::{Answer, Service, Setup, Store, both_stores, with_json},
};

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];

pub(crate) fn chat(model: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": "Good morning"}] })
}

pub(crate) fn streamed(model: &str) -> Value {
    json!({ "model": model, "stream": true, "messages": [{"role": "user", "content": "Hello"}] })
}

/// The example with `backend` behind the on-device deployment.
pub(crate) fn with(store: Store, backend: &Backend) -> Setup {
    Service::setup(store).backend("smollm2@laptop", &backend.url)
}

/// The same with an on-device model that takes pictures.
pub(crate) fn seeing(setup: Setup) -> Setup {
    let model = "provider = \"Hugging Face\"\nmodalities = [\"text\"";
    setup.organisation_with(model, &format!("{model}, \"image\""))
}

pub(crate) fn on_device() -> String {
    std::env::var("LEXGATE_TEST_ON_DEVICE").expect(
        "LEXGATE_TEST_ON_DEVICE names no on-device model: run the tests with `scripts/test`",
    )
}

fn error(answer: &Answer, status: u16, kind: &str) -> Value {
    let error = answer.expect(status)["error"].clone();
    assert_eq!(error["type"], kind, "{error}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    error
}

/// The events of a streamed answer.
pub(crate) fn data(text: &str) -> Vec<&str> {
    text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
}

fn decision_seq(answer: &Answer) -> u64 {
    answer.header("x-lexgate-record").expect("the answer names its record").parse().unwrap()
}

/// Waits until every call that was sent has exactly one outcome, and returns the outcomes' bodies
/// in the order of their decisions.
pub(crate) async fn outcomes(service: &Service) -> Vec<Value> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let bodies = |records: Vec<Value>| -> Vec<(u64, Value)> {
            let body =
                |record: Value| (record["seq"].as_u64().unwrap(), record["entry"]["body"].clone());
            records.into_iter().map(body).collect()
        };
        let decisions = bodies(service.records_of("decision").await);
        let found = bodies(service.records_of("outcome").await);
        let sent = decisions.iter().filter(|(_, body)| body["dispatch"] == true);
        let sent: Vec<u64> = sent.map(|(seq, _)| *seq).collect();
        let mut about: Vec<(u64, Value)> = found
            .into_iter()
            .map(|(_, body)| (body["decision"]["seq"].as_u64().unwrap(), body))
            .collect();
        about.sort_by_key(|(seq, _)| *seq);
        let seqs: Vec<u64> = about.iter().map(|(seq, _)| *seq).collect();
        let mut once = seqs.clone();
        once.dedup();
        assert_eq!(seqs, once, "a call has two outcomes");
        if seqs == sent {
            return about.into_iter().map(|(_, body)| body).collect();
        }
        assert!(Instant::now() < patience, "calls {sent:?} have outcomes {seqs:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn statuses(outcomes: &[Value]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome["status"].as_str().unwrap()).collect()
}

/// Waits until the service says that no call is open.
pub(crate) async fn nothing_is_open(service: &Service) {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        if metrics.lines().any(|line| line == "lexgate_open_dispatches 0") {
            return;
        }
        assert!(Instant::now() < patience, "calls stay open: {metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

both_stores! {
    async fn an_on_device_model_answers_whole_and_streamed(store: Store) {
        let setup = Service::setup(store).backend("smollm2@laptop", &on_device());
        let service = setup.start().await;
        let mut body = chat("assistant");
        body["max_tokens"] = json!(8);
        let answer = service.openai(CHAT, &GERMAN, &body).await;
        let completion = answer.expect(200);
        assert!(completion["choices"][0]["message"]["content"].is_string(), "{completion}");
        assert_eq!(answer.header("x-lexgate-deployment"), Some("smollm2@laptop"));
        assert_eq!(answer.header("x-lexgate-jurisdictions"), Some("DE"));
        assert!(answer.header("x-request-id").is_some());
        let seq = decision_seq(&answer);
        let record = &service.get(&format!("/v1/audit/records/{seq}"), "auditor").await.expect(200);
        assert_eq!(record["entry"]["id"], answer.header("x-lexgate-decision").unwrap());

        body["stream"] = json!(true);
        let answer = service.openai(CHAT, &GERMAN, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let text = answer.text();
        let events = data(&text);
        assert_eq!(events.last(), Some(&"[DONE]"));
        assert!(events.len() > 2, "{text}");
        assert!(!text.contains("prompt_tokens"), "usage that nobody asked for: {text}");
        body["stream_options"] = json!({ "include_usage": true });
        let asked = service.openai(CHAT, &GERMAN, &body).await.text();
        assert!(asked.contains("prompt_tokens"), "{asked}");

        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["ok", "ok", "ok"]);
        for outcome in &outcomes {
            assert!(outcome["tokens"]["input"].as_u64().unwrap() > 0, "{outcome}");
            assert!(outcome["tokens"]["output"].as_u64().unwrap() > 0, "{outcome}");
            assert_eq!(outcome["attempts"][0]["http_status"], 200);
        }
        let report = service.export_and_verify();
        assert_eq!(report["kinds"]["outcome"], 3);
    }

    async fn claims_come_by_header_or_metadata_and_are_checked(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).start().await;
        let with_metadata = |metadata: Value| {
            let mut body = chat("smollm2@laptop");
            body["metadata"] = metadata;
            body
        };
        service.openai(CHAT, &HARMLESS, &chat("smollm2@laptop")).await.expect(200);
        let body = with_metadata(json!({ "lexgate_data": "dpv-pd:Contact", "lexgate_subjects": "DE" }));
        service.openai(CHAT, &[], &body).await.expect(200);
        service.openai(CHAT, &GERMAN, &body).await.expect(200);
        let subjects = &service.records_of("decision").await[1]["entry"]["body"]["call"]["data"]["subjects"];
        assert_eq!(*subjects, json!(["DE"]));

        let answered = backend.seen().len();
        let bad: [(&[(&str, &str)], Value); 7] = [
            (&[("subjects", "FR")], body.clone()),
            (&[("subject", "DE")], chat("smollm2@laptop")),
            (&[("personal", "maybe")], chat("smollm2@laptop")),
            (&[("subjects", "XX")], chat("smollm2@laptop")),
            (&[("purpose", "dpv:Nothing"), ("personal", "false")], chat("smollm2@laptop")),
            (&HARMLESS, with_metadata(json!({ "lexgate_subject": "DE" }))),
            (&HARMLESS, with_metadata(json!({ "lexgate_subjects": { "first": "DE" } }))),
        ];
        for (claims, body) in bad {
            let answer = service.openai(CHAT, claims, &body).await;
            let error = error(&answer, 400, "invalid_request_error");
            assert!(error["param"].is_string(), "{claims:?} {error}");
        }
        // Two readers could each take another one of two claims of one name.
        let twice = r#"{"model":"smollm2@laptop","messages":[],
            "metadata":{"lexgate_subjects":"SA","lexgate_subjects":"SA"}}"#;
        let request = service.request("POST", CHAT, "caller").header("x-lexgate-personal", "false");
        let request = request.header("content-type", "application/json").body(twice);
        error(&Answer::of(request).await, 400, "invalid_request_error");
        assert_eq!(backend.seen().len(), answered, "a refused call went out");
        assert_eq!(service.records_of("decision").await.len(), 3);
    }

    async fn what_is_not_declared_is_denied(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).start().await;
        let undeclared: [&[(&str, &str)]; 4] = [
            &[],
            &[("purpose", "dpv:ServiceProvision"), ("location", "DE")],
            &[("personal", "true")],
            // A template that nobody filled in declares nothing.
            &[("subjects", "")],
        ];
        for claims in undeclared {
            let answer = service.openai(CHAT, claims, &chat("assistant")).await;
            let error = error(&answer, 403, "policy_denied");
            assert_eq!(error["code"], "base-unclassified", "{claims:?}");
        }
        service.openai(CHAT, &[("data", "")], &chat("assistant")).await.expect(200);
        assert_eq!(backend.seen().len(), 1);
    }

    async fn a_denial_says_why_and_is_not_to_be_retried(store: Store) {
        let backend = Backend::polite().await;
        let setup = Service::setup(store).backend("qwen3-32b@dashscope-sg", &backend.url);
        let service = setup.env("DASHSCOPE_API_KEY", "k").start().await;
        let answer = service.openai(CHAT, &GERMAN, &chat("qwen3-32b@dashscope-sg")).await;
        let error = error(&answer, 403, "policy_denied");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(error["code"], "eu-gdpr-44");
        assert_eq!(error["param"], Value::Null);
        let decision = &error["decision"];
        assert_eq!(decision["decision"], "deny");
        assert_eq!(decision["route"], Value::Null);
        assert_eq!(decision["reasons"][0]["flow"]["to"], "SG", "{decision}");
        assert_eq!(answer.header("x-lexgate-decision"), decision["id"].as_str());
        assert_eq!(decision_seq(&answer), decision["record"]["seq"].as_u64().unwrap());
        let record = &service.records_of("decision").await[0];
        assert_eq!(record["leaf"], decision["record"]["leaf"]);
        assert_eq!(record["entry"]["body"]["dispatch"], false);
        assert!(backend.seen().is_empty());
        assert!(outcomes(&service).await.is_empty());
    }

    async fn what_cannot_be_used_is_refused_in_openai_s_shape(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).start().await;
        let body = chat("gpt-9");
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        assert_eq!(error(&answer, 404, "invalid_request_error")["code"], "model_not_found");
        let nameless = json!({ "messages": [] });
        let answer = service.openai(CHAT, &HARMLESS, &nameless).await;
        let missing = error(&answer, 400, "invalid_request_error");
        assert_eq!(missing["code"], "missing_required_parameter");
        let wrong = json!({ "model": "assistant", "stream": "yes" });
        error(&service.openai(CHAT, &HARMLESS, &wrong).await, 400, "invalid_request_error");
        let raw = |body: &'static str, kind: &'static str| {
            let request = service.request("POST", CHAT, "caller").header("content-type", kind);
            Answer::of(request.body(body))
        };
        for body in ["", "{", "[]", r#"{"model":"a","model":"b"}"#] {
            error(&raw(body, "application/json").await, 400, "invalid_request_error");
        }
        error(&raw("{}", "text/plain").await, 415, "invalid_request_error");
        let anonymous = with_json(service.anonymous("POST", CHAT), &body);
        error(&Answer::of(anonymous).await, 401, "authentication_error");
        let auditor = service.post(CHAT, "auditor", &body).await;
        error(&auditor, 403, "permission_error");
        let huge = chat(&"x".repeat((32 << 20) + 1));
        error(&service.openai(CHAT, &HARMLESS, &huge).await, 413, "invalid_request_error");
        assert!(backend.seen().is_empty());
        assert!(service.records_of("decision").await.is_empty());

        let models = service.get("/v1/models", "caller").await.expect(200);
        let ids: Vec<&str> =
            models["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(models["object"], "list");
        for id in ["assistant", "payments", "mistral-small", "smollm2-135m"] {
            assert!(ids.contains(&id), "{ids:?}");
        }
        let listed = Answer::of(service.anonymous("GET", "/v1/models")).await;
        error(&listed, 401, "authentication_error");
    }

    async fn a_backend_gets_the_call_and_nothing_else(store: Store) {
        let (device, frankfurt) = (Backend::polite().await, Backend::polite().await);
        let service = with(store, &device)
            .backend("mistral-small@dc-frankfurt", &frankfurt.url)
            .env("FRANKFURT_API_KEY", "frankfurts-own-key")
            .start()
            .await;
        let send = |body: &'static str| {
            let request = service.request("POST", CHAT, "caller");
            let request = request
                .header("content-type", "application/json; charset=utf-8")
                .header("x-lexgate-subjects", "DE")
                .header("x-api-key", "another-of-ours")
                .header("cookie", "session=1")
                .header("x-request-id", "request-1")
                .body(body);
            Answer::of(request)
        };
        let body = r#" {"seed": 12345678901234567890123, "model" :"smollm2@laptop",
 "messages":[{"role":"user","content":"\u00e9 é \/"}],"logit_bias":{"b":1.10,"a":[ ], "b ":1E5},
 "metadata":{"team":"x","lexgate_subjects":"DE","lexgate_purpose":"dpv:Marketing"},"temperature":0.70}"#;
        send(body).await.expect(200);
        let want = concat!(
            r#"{"seed":12345678901234567890123,"model":"smollm2-135m","#,
            r#""messages":[{"role":"user","content":"\u00e9 é \/"}],"#,
            r#""logit_bias":{"b":1.10,"a":[ ], "b ":1E5},"metadata":{"team":"x"},"temperature":0.70}"#,
        );
        let seen = &device.seen()[0];
        assert_eq!(seen.text(), want);
        assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-request-id"), Some("request-1"));
        let ours = service.site.key("caller").to_owned();
        let strange =
            ["x-lexgate", "lexgate_", &ours, "another-of-ours", "cookie", "support-copilot"];
        for text in strange {
            let (head, body) = (seen.head.to_lowercase(), seen.text());
            assert!(!head.contains(text) && !body.contains(text), "{text} in {head}{body}");
        }

        let all_claims = r#"{"model":"mistral-small@dc-frankfurt","stream":true,
            "metadata":{"lexgate_data":""},"stream_options":{"include_obfuscation":true,"include_usage":false}}"#;
        assert_eq!(send(all_claims).await.status, 200);
        let seen = &frankfurt.seen()[0];
        assert_eq!(seen.header("authorization"), Some("Bearer frankfurts-own-key"));
        assert_eq!(
            seen.text(),
            concat!(
                r#"{"model":"mistral-small","stream":true,"#,
                r#""stream_options":{"include_obfuscation":true,"include_usage":true}}"#
            )
        );
        assert_eq!(device.seen().len(), 1);
    }

    async fn pictures_pass_through_every_endpoint_that_takes_them(store: Store) {
        let backend = Backend::start(|seen| {
            whole(&if seen.head.starts_with("POST /v1/messages ") {
                json!({ "type": "message", "model": "served-model", "content": [] })
            } else {
                json!({ "object": "response", "status": "completed", "model": "served-model", "output": [] })
            })
        })
        .await;
        let service = seeing(with(store, &backend)).start().await;
        let picture = "iVBORw0KGgo+/=".repeat(30_000);
        let response = format!(
            r#""input":[{{"role":"user","content":[{{"type":"input_image", "detail":"low","image_url":"data:image/png;base64,{picture}"}}]}}]"#
        );
        let message = format!(
            r#""max_tokens":8,"messages":[{{"role":"user","content":[{{"type":"image", "source":{{"type":"base64","media_type":"image\/png","data":"{picture}"}}}}]}}]"#
        );
        for (path, rest) in [("/v1/responses", response), ("/v1/messages", message)] {
            let request = service.request("POST", path, "caller");
            let request = request.header("content-type", "application/json");
            let request = request.header("x-lexgate-personal", "false");
            let body = format!(r#"{{"model":"smollm2@laptop",{rest}}}"#);
            Answer::of(request.body(body)).await.expect(200);
            let seen = backend.seen().pop().expect("it was sent");
            assert!(seen.head.starts_with(&format!("POST {path} ")), "{}", seen.head);
            let want = format!(r#"{{"model":"smollm2-135m",{rest}}}"#);
            assert!(seen.text() == want, "{path}: the body was changed");
        }
        assert_eq!(statuses(&outcomes(&service).await), ["ok", "ok"]);
    }

    async fn usage_is_counted_whoever_asked(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).start().await;
        let answer = service.openai(CHAT, &HARMLESS, &chat("assistant")).await;
        assert_eq!(answer.expect(200), completion());
        let answer = service.openai(CHAT, &HARMLESS, &streamed("assistant")).await;
        let without: Vec<String> = events().into_iter().filter(|event| *event != usage()).collect();
        assert_eq!(answer.text(), without.concat());
        let mut asking = streamed("assistant");
        asking["stream_options"] = json!({ "include_usage": true });
        let answer = service.openai(CHAT, &HARMLESS, &asking).await;
        assert_eq!(answer.text(), events().concat());
        for outcome in outcomes(&service).await {
            assert_eq!(outcome["tokens"], json!({ "input": 11, "output": 7 }));
            assert_eq!(outcome["model"], "served-model");
            assert_eq!(outcome["status"], "ok");
        }
        nothing_is_open(&service).await;
    }

    async fn a_backend_that_fails_is_an_upstream_error(store: Store) {
        let elsewhere = Backend::polite().await;
        let target = elsewhere.url.clone();
        let json = "content-type: application/json\r\n";
        let backend = Backend::start(move |seen| match seen.json()["metadata"]["play"].as_str().unwrap() {
            "500" => answer("500 Internal Server Error", json, b"{}"),
            "401" => answer("401 Unauthorized", json, b"{}"),
            "garbage" => vec![Step::Send(b"\0\x01not http\r\n\r\n".to_vec())],
            "nothing" => vec![],
            "html" => answer("200 OK", "content-type: text/html\r\n", b"<html>"),
            "untyped" => answer("200 OK", "", b"it works"),
            "redirect" => {
                let location = format!("location: {target}/chat/completions\r\n{json}");
                answer("307 Temporary Redirect", &location, b"{}")
            }
            "not_json" => answer("200 OK", json, br#"{"choices": ["#),
            "half" => {
                let mut steps = answer("200 OK", json, completion().to_string().as_bytes());
                if let Some(Step::Send(bytes)) = steps.first_mut() {
                    bytes.truncate(bytes.len() - 20);
                }
                steps
            }
            "huge" => answer("200 OK", json, &vec![b' '; (32 << 20) + 1]),
            "unasked_stream" => stream(&events()),
            scenario => panic!("{scenario}"),
        })
        .await;
        let service = with(store, &backend)
            .reached("smollm2@laptop", "breaker_failures = 100")
            .backend("mistral-small@dc-frankfurt", "http://127.0.0.1:9/v1")
            .env("FRANKFURT_API_KEY", "k")
            .start()
            .await;
        // What may pass is tried once more.
        let scenarios: [(&str, Option<u16>, &str, usize); 11] = [
            ("500", Some(500), "status", 2), ("401", Some(401), "status", 1),
            ("garbage", None, "broke_off", 2), ("nothing", None, "broke_off", 2),
            ("html", Some(200), "bad_answer", 1), ("untyped", Some(200), "bad_answer", 1),
            ("redirect", Some(307), "redirected", 1), ("not_json", Some(200), "bad_answer", 1),
            ("half", None, "broke_off", 2), ("huge", None, "bad_answer", 1),
            ("unasked_stream", Some(200), "bad_answer", 1),
        ];
        for (scenario, ..) in scenarios {
            let mut body = chat("smollm2@laptop");
            body["metadata"] = json!({ "play": scenario });
            let answer = service.openai(CHAT, &HARMLESS, &body).await;
            let error = error(&answer, 502, "upstream_error");
            assert!(!error.to_string().contains("127.0.0.1"), "{error}");
            assert!(answer.header("x-lexgate-decision").is_some());
            let seqs = decision_seq(&answer);
            assert!(seqs > 0);
        }
        // Nobody listens there.
        let answer = service.openai(CHAT, &HARMLESS, &chat("mistral-small@dc-frankfurt")).await;
        assert_eq!(error(&answer, 503, "upstream_error")["code"], "upstream_down");
        assert!(answer.header("retry-after").is_some());
        assert!(elsewhere.seen().is_empty(), "a redirect was followed");
        let outcomes = outcomes(&service).await;
        assert!(statuses(&outcomes).iter().all(|status| *status == "upstream_error"));
        for ((scenario, status, failure, attempts), outcome) in scenarios.iter().zip(&outcomes) {
            assert_eq!(outcome["attempts"].as_array().unwrap().len(), *attempts, "{scenario} {outcome}");
            assert_eq!(outcome["attempts"][0]["http_status"], json!(status), "{scenario}");
            assert_eq!(outcome["attempts"][0]["failure"], *failure, "{scenario}");
        }
        nothing_is_open(&service).await;
    }

    async fn a_backend_s_own_word_reaches_the_client(store: Store) {
        let json = "content-type: application/json\r\n";
        let backend = Backend::start(move |seen| {
            if seen.json()["metadata"]["play"] == "busy" {
                let headers = format!("retry-after: 7\r\n{json}");
                answer("429 Too Many Requests", &headers, b"{}")
            } else {
                answer("400 Bad Request", json, br#"{"error":{"message":"too long"}}"#)
            }
        })
        .await;
        let service = with(store, &backend).start().await;
        let mut body = chat("smollm2@laptop");
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        assert_eq!(answer.expect(400), json!({ "error": { "message": "too long" } }));
        body["metadata"] = json!({ "play": "busy" });
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        error(&answer, 429, "upstream_error");
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(statuses(&outcomes(&service).await), ["upstream_error", "upstream_error"]);
    }

    async fn a_fallback_goes_to_the_next_allowed_deployment_and_to_no_other(store: Store) {
        let broken = || answer("503 Service Unavailable", "", b"");
        let device = Backend::start(move |_| broken()).await;
        let frankfurt = Backend::start(move |seen| {
            if seen.json()["metadata"]["play"] == "all_fail" { broken() } else { whole(&completion()) }
        })
        .await;
        let singapore = Backend::polite().await;
        let service = with(store, &device)
            .backend("mistral-small@dc-frankfurt", &frankfurt.url)
            .backend("qwen3-32b@dashscope-sg", &singapore.url)
            .env("FRANKFURT_API_KEY", "k")
            .env("DASHSCOPE_API_KEY", "k")
            .start()
            .await;
        let answer = service.openai(CHAT, &GERMAN, &chat("assistant")).await;
        answer.expect(200);
        assert_eq!(answer.header("x-lexgate-deployment"), Some("mistral-small@dc-frankfurt"));
        let mut body = chat("assistant");
        body["metadata"] = json!({ "play": "all_fail" });
        error(&service.openai(CHAT, &GERMAN, &body).await, 503, "upstream_error");
        assert!(singapore.seen().is_empty(), "availability bought a border crossing");
        // Data about nobody may go there.
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        answer.expect(200);
        assert_eq!(answer.header("x-lexgate-deployment"), Some("qwen3-32b@dashscope-sg"));
        let outcomes = outcomes(&service).await;
        assert_eq!(statuses(&outcomes), ["ok", "upstream_error", "ok"]);
        let tried: Vec<Vec<&str>> = outcomes
            .iter()
            .map(|outcome| {
                let attempts = outcome["attempts"].as_array().unwrap();
                attempts.iter().map(|attempt| attempt["deployment"].as_str().unwrap()).collect()
            })
            .collect();
        let (laptop, gpus) = ("smollm2@laptop", "mistral-small@dc-frankfurt");
        let remote = "qwen3-32b@dashscope-sg";
        let twice = vec![laptop, gpus, laptop, gpus];
        assert_eq!(tried, [vec![laptop, gpus], twice, vec![laptop, gpus, remote]]);
    }

    async fn without_a_backend_the_caller_is_told_to_run_inference_itself(store: Store) {
        let text = "[deployments.backend]\nbase_url = \"http://127.0.0.1:8091/v1\"\nmodel = \"smollm2-135m\"\n";
        let service = Service::setup(store).organisation_with(text, "").start().await;
        let answer = service.openai(CHAT, &HARMLESS, &chat("smollm2@laptop")).await;
        assert_eq!(error(&answer, 503, "unavailable")["code"], "no-backend");
        outcomes(&service).await;
        nothing_is_open(&service).await;
    }

    async fn logs_hold_no_prompt_no_secret_and_no_person(store: Store) {
        let failing = Backend::start(|_| answer("500 Oops", "", b"ANSWER-MARKER")).await;
        let service = with(store, &failing)
            .backend("mistral-small@dc-frankfurt", "http://127.0.0.1:9/v1")
            .env("FRANKFURT_API_KEY", "BACKEND-KEY-MARKER")
            .env("LEXGATE_LOG", "trace")
            .start()
            .await;
        let mut body = chat("assistant");
        body["messages"][0]["content"] = json!("PROMPT-MARKER");
        body["user"] = json!("USER-MARKER");
        body["metadata"] = json!({ "team": "METADATA-MARKER" });
        service.openai(CHAT, &GERMAN, &body).await.expect(502);
        body["lexgate"] = json!("PROMPT-MARKER");
        service.openai(CHAT, &[("subject", "CLAIM-MARKER")], &body).await.expect(400);
        let call = json!({ "action": "infer", "model": "assistant", "end_user": "USER-MARKER",
            "data": { "personal": true, "subjects": ["DE"] } });
        service.decide(&call).await.expect(200);
        let wrong = service.anonymous("POST", "/v1/decisions").bearer_auth("KEY-MARKER");
        Answer::of(with_json(wrong, &call)).await.expect(401);
        outcomes(&service).await;
        let secrets = [service.site.key("caller"), service.site.key("auditor"), "MARKER"];
        let log = service.stderr();
        assert!(log.contains("chat/completions"), "the log was written");
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None);
        }
        let ledger = serde_json::to_string(&service.records().await).unwrap();
        assert!(!ledger.contains("MARKER"));
    }
}
