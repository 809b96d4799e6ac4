//! Bodies and headers by which an enemy would have a backend do more than the call that is judged:
//! closed by default, opened by name, judged and recorded.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Seen, Step, answer, completion, whole},
    gateway::{CHAT, HARMLESS, chat, outcomes, seeing, with},
    harness::{Answer, Setup, Store, both_stores, with_json},
    volumes::replays,
};

const LAPTOP: &str = "smollm2@laptop";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];

/// A body for each API, without more than it needs.
fn plain(path: &str, model: &str) -> Value {
    match path {
        COMPLETIONS => json!({ "model": model, "prompt": "Good" }),
        EMBEDDINGS => json!({ "model": model, "input": ["Good"] }),
        RESPONSES => json!({ "model": model, "input": "Good", "store": false }),
        MESSAGES => {
            json!({ "model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Good"}] })
        }
        _ => chat(model),
    }
}

/// The same with this field beside it.
fn with_field(path: &str, name: &str, value: &Value) -> Value {
    let mut body = plain(path, LAPTOP);
    body[name] = value.clone();
    body
}

/// Answers in the way of the API that it is asked through.
async fn any_api() -> Backend {
    Backend::start(|seen| {
        whole(&if seen.head.starts_with("POST /v1/messages ") {
            json!({ "type": "message", "model": "served-model", "content": [] })
        } else if seen.head.starts_with("POST /v1/responses ") {
            json!({ "object": "response", "status": "completed", "model": "served-model", "output": [] })
        } else {
            completion()
        })
    })
    .await
}

/// Passes of the deployment on the device, as they are written in one line.
fn passing(setup: Setup, passes: &str) -> Setup {
    let from = format!("id = \"{LAPTOP}\"\nmodel");
    setup.organisation_with(&from, &format!("id = \"{LAPTOP}\"\npasses = [{passes}]\nmodel"))
}

/// What a refused call is told: the field's place, and why.
fn refused(answer: &Answer) -> (String, String) {
    let error = answer.expect(400)["error"].clone();
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (text("param"), text("message"))
}

/// The fields that some backend reads as more than the call, each with where it is found.
#[expect(clippy::too_many_lines, reason = "one line for each field")]
fn reaching_further() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let image = |url: &str| json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": url } }] }]);
    let mut all = vec![
        (
            CHAT,
            "messages",
            image("http://169.254.169.254/latest"),
            "messages/0/content/0/image_url/url",
        ),
        (CHAT, "messages", image("file:///etc/passwd"), "messages/0/content/0/image_url/url"),
        (CHAT, "tools", json!([{ "type": "web_search" }]), "tools/0"),
        (
            CHAT,
            "tools",
            json!([{ "type": "function", "function": { "name": "f" }, "model": "m" }]),
            "tools/0/model",
        ),
        (CHAT, "service_tier", json!("priority"), "service_tier"),
        (COMPLETIONS, "prompt_embeds", json!("AA=="), "prompt_embeds"),
        (COMPLETIONS, "lora", json!([{ "id": 1, "scale": 1.0 }]), "lora"),
        (EMBEDDINGS, "input", json!([{ "image": "https://x.example/a.png" }]), "input"),
        (
            RESPONSES,
            "tools",
            json!([{ "type": "mcp", "server_url": "https://x.example" }]),
            "tools/0",
        ),
        (RESPONSES, "tools", json!([{ "type": "code_interpreter", "container": "c" }]), "tools/0"),
        (RESPONSES, "tools", json!([{ "type": "image_generation", "model": "m" }]), "tools/0"),
        (RESPONSES, "tool_choice", json!({ "type": "web_search_preview" }), "tool_choice"),
        (RESPONSES, "previous_response_id", json!("resp_1"), "previous_response_id"),
        (RESPONSES, "conversation", json!({ "id": "conv_1" }), "conversation"),
        (RESPONSES, "prompt", json!({ "id": "pmpt_1" }), "prompt"),
        (RESPONSES, "input", json!([{ "type": "item_reference", "id": "msg_1" }]), "input/0"),
        (RESPONSES, "input", json!([{ "id": "msg_1" }]), "input/0"),
        (
            RESPONSES,
            "input",
            json!([{ "role": "user", "content": [{ "type": "input_file", "file_id": "f" }] }]),
            "input/0/content/0/file_id",
        ),
        (
            RESPONSES,
            "input",
            json!([{ "role": "user", "content": [{ "type": "input_image", "image_url": "https://x.example/a.png" }] }]),
            "input/0/content/0/image_url",
        ),
        (
            MESSAGES,
            "mcp_servers",
            json!([{ "type": "url", "url": "https://x.example" }]),
            "mcp_servers",
        ),
        (MESSAGES, "container", json!("container_1"), "container"),
        (MESSAGES, "speed", json!("fast"), "speed"),
        (
            MESSAGES,
            "tools",
            json!([{ "name": "f", "input_schema": {}, "model": "m" }]),
            "tools/0/model",
        ),
        (
            MESSAGES,
            "tools",
            json!([{ "type": "web_fetch_20250910", "name": "web_fetch" }]),
            "tools/0",
        ),
        (
            MESSAGES,
            "messages",
            json!([{ "role": "user", "content": [{ "type": "document", "source": { "type": "url", "url": "https://x.example/a.pdf" } }] }]),
            "messages/0/content/0/source/url",
        ),
    ];
    for name in [
        "user_config",
        "context_window_fallbacks",
        "deployment_id",
        "vertex_location",
        "api_key",
        "aws_bedrock_runtime_endpoint",
        "plugins",
        "preset",
        "providerOptions",
        "data_sources",
        "search_parameters",
        "enable_search",
        "connectors",
        "kv_transfer_params",
        "bootstrap_host",
        "disaggregated_params",
        "lora_path",
        "adapter_id",
        "custom_logit_processor",
        "extra_body",
        "web_search_options",
        "cache_salt",
        "deferred",
        "what_comes_tomorrow",
    ] {
        all.push((CHAT, name, json!("x"), name));
    }
    all
}

both_stores! {
    async fn a_second_model_in_other_letters_goes_nowhere(store: Store) {
        let backend = any_api().await;
        let service = with(store, &backend).start().await;
        for path in [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES] {
            for (name, known) in [
                ("MODEL", "model"), ("Model", "model"), ("\u{17f}tream", "stream"),
                ("Metadata", "metadata"), ("bac\u{212a}ground", "background"), ("MODELS", "models"),
                ("Fallback\u{17f}", "fallbacks"),
            ] {
                let body = with_field(path, name, &json!("gpt-oss:120b-cloud"));
                let (_, message) = refused(&service.openai(path, &GERMAN, &body).await);
                let shown = name.escape_debug().to_string();
                assert!(message.contains(&format!("`{shown}`")) && message.contains(&format!("`{known}`")), "{message}");
            }
            for name in ["models", "provider", "route", "fallbacks", "api_base", "base_url", "custom_llm_provider", "inference_geo", "background"] {
                let answer = service.openai(path, &GERMAN, &with_field(path, name, &json!("x"))).await;
                assert_eq!(refused(&answer).0, name);
            }
        }
        let nested = [
            ("stream_options", json!({ "INCLUDE_USAGE": false })),
            ("metadata", json!({ "LEXGATE_subjects": "SA" })),
            ("metadata", json!({ "team": "a", "TEAM": "b" })),
            ("messages", json!([{ "role": "user", "content": "x", "Content": "y" }])),
            ("response_format", json!({ "type": "text", "TYPE": "json_object" })),
        ];
        for (name, value) in nested {
            refused(&service.openai(CHAT, &HARMLESS, &with_field(CHAT, name, &value)).await);
        }
        assert!(backend.seen().is_empty(), "a refused call went out");
        assert!(service.records_of("decision").await.is_empty(), "it was decided on");
    }

    async fn what_reaches_further_is_refused_with_its_place_and_the_remedy(store: Store) {
        let backend = any_api().await;
        let service = with(store, &backend).start().await;
        for (path, name, value, place) in reaching_further() {
            let answer = service.openai(path, &HARMLESS, &with_field(path, name, &value)).await;
            let (param, message) = refused(&answer);
            assert_eq!(param, place, "{path} {name}: {message}");
            assert!(message.contains("leave it out"), "{path} {name}: {message}");
            assert_eq!(answer.json()["error"]["code"], "field_not_passed");
        }
        let (_, message) = refused(&service.openai(CHAT, &HARMLESS, &with_field(CHAT, "plugins", &json!([]))).await);
        assert!(message.contains("[[deployments.passes]]\nfield = \"plugins\"\nreaches = ["), "{message}");
        assert!(backend.seen().is_empty(), "a refused call went out");
        assert!(service.records_of("decision").await.is_empty(), "it was decided on");
        // Each API takes what it needs.
        for path in [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES] {
            service.openai(path, &HARMLESS, &plain(path, LAPTOP)).await.expect(200);
        }
        assert_eq!(backend.seen().len(), 5);
    }

    async fn what_a_pass_reaches_is_judged_recorded_and_judged_again(store: Store) {
        let backend = any_api().await;
        let frankfurt = Backend::polite().await;
        let setup = with(store, &backend).backend("mistral-small@dc-frankfurt", &frankfurt.url);
        let setup = setup.env("FRANKFURT_API_KEY", "k");
        let setup = setup.env("LEXGATE_POLICIES__ACTIVATE_ON_START", "true");
        let setup = passing(setup, r#"{ field = "tools.web_search", reaches = ["US"] }"#);
        let mut service = setup.start().await;
        let search = json!([{ "type": "web_search", "search_context_size": "low" }]);
        let mut body = plain(RESPONSES, "assistant");
        body["tools"] = search.clone();
        // Nothing of a person: it may go, with the tool as it was sent, and nowhere but there.
        let answered = service.openai(RESPONSES, &HARMLESS, &body).await;
        answered.expect(200);
        assert_eq!(answered.header("x-lexgate-jurisdictions"), Some("DE,US"));
        assert_eq!(backend.seen()[0].json()["tools"], search);
        // German data may not go where the search goes, although it may go to the device.
        let denied = service.openai(RESPONSES, &GERMAN, &body).await.expect(403);
        assert_eq!(denied["error"]["code"], "eu-gdpr-44", "{denied}");
        let decision = service.records_of("decision").await.pop().unwrap()["entry"]["body"].clone();
        assert_eq!(decision["call"]["passes"], json!(["tools.web_search"]));
        let candidates = decision["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 1, "only what passes it on is considered: {decision}");
        assert_eq!(candidates[0]["placement"]["process"], json!(["DE", "US"]));
        let flow = json!({ "action": "process", "from": "DE", "to": "US" });
        assert!(decision["reasons"][0]["places"].as_array().unwrap().iter().any(|at| at["flow"] == flow), "{decision}");
        // Without the tool it may, and the record is as it always was.
        service.openai(RESPONSES, &GERMAN, &plain(RESPONSES, "assistant")).await.expect(200);
        let last = service.records_of("decision").await.pop().unwrap();
        assert!(last["entry"]["body"]["call"].get("passes").is_none(), "{last}");
        // The same question without the call.
        let mut question = json!({ "action": "infer", "model": "assistant", "passes": ["tools.web_search"],
            "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"] } });
        let decided = service.decide(&question).await.expect(200);
        assert_eq!(decided["decision"], "deny");
        let explained = service.post("/v1/explain", "caller", &question).await.expect(200);
        assert_eq!(explained["decision"], "deny");
        question["passes"] = json!(["plugins"]);
        let unknown = service.decide(&question).await.expect(422);
        assert_eq!(unknown["errors"][0]["pointer"], "/passes/0");
        // With the clauses for it, it may go there.
        service.site.append("config/organisation.toml", &clauses());
        service.restart().await;
        service.openai(RESPONSES, &GERMAN, &body).await.expect(200);
        replays(&service);
    }

    async fn a_call_that_needs_a_pass_falls_back_only_where_it_is_passed_on(store: Store) {
        let backend = Backend::start(|_| answer("503 Service Unavailable", "", b"")).await;
        let frankfurt = Backend::polite().await;
        let setup = with(store, &backend).backend("mistral-small@dc-frankfurt", &frankfurt.url);
        let setup = passing(setup.env("FRANKFURT_API_KEY", "k"), r#"{ field = "plugins", reaches = [] }"#);
        let service = setup.start().await;
        let mut body = chat("assistant");
        body["plugins"] = json!([]);
        assert_eq!(service.openai(CHAT, &HARMLESS, &body).await.status, 503);
        assert!(frankfurt.seen().is_empty(), "it went where it is not passed on");
        service.openai(CHAT, &HARMLESS, &chat("assistant")).await.expect(200);
        assert_eq!(frankfurt.seen().len(), 1);
    }

    async fn references_go_to_the_one_provider_whose_key_is_the_tenant_s_own(store: Store) {
        let backend = any_api().await;
        let owned = |owner: &str| {
            let setup = with(store, &backend).reached(LAPTOP, &format!("tenant = \"{owner}\""));
            passing(setup, r#"{ field = "previous_response_id", reaches = [] }"#)
        };
        let mut body = with_field(RESPONSES, "previous_response_id", &json!("resp_1"));
        let service = owned("acme-gmbh").start().await;
        let (param, _) = refused(&service.openai(RESPONSES, &HARMLESS, &body).await);
        assert_eq!(param, "previous_response_id", "another tenant's responses were opened");
        assert!(backend.seen().is_empty());
        drop(service);

        let service = owned("acme").start().await;
        service.openai(RESPONSES, &HARMLESS, &body).await.expect(200);
        assert_eq!(backend.seen()[0].json()["previous_response_id"], "resp_1");
        body["model"] = json!("assistant");
        let (_, message) = refused(&service.openai(RESPONSES, &HARMLESS, &body).await);
        assert!(message.contains("name the deployment that gave it"), "{message}");
        body["model"] = json!("mistral-small@dc-frankfurt");
        refused(&service.openai(RESPONSES, &HARMLESS, &body).await);
        assert_eq!(backend.seen().len(), 1);
        // A tool that is passed on does not open what lies there either.
        assert_eq!(outcomes(&service).await.len(), 1);
    }

    async fn a_url_for_the_backend_to_fetch_needs_a_pass(store: Store) {
        let backend = any_api().await;
        let service = passing(seeing(with(store, &backend)), r#"{ field = "image_url", reaches = ["US"] }"#).start().await;
        let part = |url: &str| {
            let content = json!([{ "type": "image_url", "image_url": { "url": url } }]);
            with_field(CHAT, "messages", &json!([{ "role": "user", "content": content }]))
        };
        let data = service.openai(CHAT, &GERMAN, &part("data:image/png;base64,AA==")).await;
        data.expect(200);
        service.openai(CHAT, &HARMLESS, &part("https://x.example/a.png")).await.expect(200);
        service.openai(CHAT, &GERMAN, &part("https://x.example/patient-4711")).await.expect(403);
        assert_eq!(backend.seen().len(), 2);
    }

    async fn a_backend_gets_betas_that_are_known_and_no_other_header(store: Store) {
        let backend = any_api().await;
        let setup = passing(with(store, &backend), r#"{ field = "anthropic-beta.mcp-client-2025-11-20", reaches = [] }"#);
        let service = setup.start().await;
        let call = |headers: &'static [(&str, &str)]| {
            let body = plain(MESSAGES, LAPTOP);
            let request = with_json(service.request("POST", MESSAGES, "caller"), &body);
            let request = request.header("x-lexgate-personal", "false");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            Answer::of(request)
        };
        let harmless = call(&[
            ("anthropic-beta", "pdfs-2024-09-25"), ("anthropic-beta", "context-1m-2025-08-07, mcp-client-2025-11-20"),
            ("anthropic-version", "2023-06-01"), ("tracestate", "patient=4711"), ("baggage", "patient=4711"),
            ("traceparent", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-patient4711"),
            ("x-forwarded-for", "4711"), ("openai-organization", "org-4711"), ("http-referer", "https://4711.example"),
            ("helicone-target-url", "https://4711.example"), ("x-stainless-lang", "lang-4711"),
        ]).await;
        harmless.expect(200);
        let seen: Seen = backend.seen().remove(0);
        assert_eq!(seen.header("anthropic-beta"), Some("pdfs-2024-09-25,context-1m-2025-08-07, mcp-client-2025-11-20"));
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(seen.header("traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!seen.head.contains("4711"), "{}", seen.head);
        for headers in [
            &[("anthropic-beta", "code-execution-2025-05-22")][..],
            &[("anthropic-beta", "pdfs-2024-09-25,files-api-2025-04-14")],
            &[("anthropic-beta", "what-comes-tomorrow")],
            &[("openai-beta", "assistants=v2")],
            &[("anthropic-version", "2023-06-01 x")],
        ] {
            let refused = call(headers).await.expect(400);
            assert_eq!(refused["error"]["param"], headers[0].0, "{refused}");
        }
        assert_eq!(backend.seen().len(), 1);
    }
}

/// The memory of a process that is in use, in MB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") >> 10
}

#[tokio::test]
async fn a_large_body_lies_in_memory_once() {
    let backend = Backend::start(|_| {
        let mut steps = whole(&completion());
        steps.insert(0, Step::Wait(Duration::from_secs(4)));
        steps
    })
    .await;
    let service = seeing(with(Store::Sqlite, &backend)).start().await;
    service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
    let before = resident(service.id());
    let picture = format!("data:image/png;base64,{}", "iVBORw0KGgo/".repeat(2_780_000));
    let content = json!([{ "type": "image_url", "image_url": { "url": picture } }]);
    let body = with_field(CHAT, "messages", &json!([{ "role": "user", "content": content }]));
    let calling = service.openai(CHAT, &HARMLESS, &body);
    let watching = async {
        // From when the backend has all of it until it answers: what was needed to read it is given back.
        while backend.seen().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut least = u64::MAX;
        for _ in 0..30 {
            least = least.min(resident(service.id()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        least
    };
    let (answered, least) = tokio::join!(calling, watching);
    answered.expect(200);
    assert!(
        least <= before + 45,
        "{before} MB before, {least} MB while a call of 32 MiB is under way"
    );
}

/// What the law wants for data that goes from the European Union to what Acme itself operates.
fn clauses() -> String {
    ["eu-scc", "eu-tia"]
        .map(|kind| {
            format!(
                "[[instruments]]\nid = \"own-{kind}\"\nkind = \"{kind}\"\nexporter = \"acme\"\n\
                 recipient = \"acme\"\nvalid_from = \"2026-01-01\"\nreference = \"a test's\"\n"
            )
        })
        .concat()
}
