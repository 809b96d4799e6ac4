//! What strangers' clients send: compressed bodies, two credentials, wrong paths and types, names of their
//! own. Each is served, or told what to do in the shape that the client prints.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    backend::{Backend, Seen, answer, completion, whole},
    gateway::{CHAT, HARMLESS, chat, outcomes, with},
    harness::{Answer, Service, Store, both_stores, with_json},
};

const MESSAGES: &str = "/v1/messages";
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];

fn message(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}] })
}

/// The error of an answer in OpenAI's or Anthropic's shape.
fn error(answer: &Answer, status: u16) -> Value {
    let error = answer.expect(status)["error"].clone();
    assert!(error["message"].is_string(), "{error}");
    error
}

fn said(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

/// A call of the gateway with this body, as it is.
async fn sent(service: &Service, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let request = service.request("POST", path, "caller").header("x-lexgate-personal", "false");
    let request = request.header("content-type", "application/json");
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.body(body)).await
}

macro_rules! compressed {
    ($encoder:ident, $text:expr) => {{
        let mut encoder = $encoder::new(Vec::new());
        encoder.write_all($text).await.unwrap();
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    }};
}

#[tokio::test]
async fn a_compressed_body_is_decoded_within_the_bounds_of_any_other() {
    let backend = Backend::polite().await;
    let service = with(Store::Sqlite, &backend).start().await;
    let body = chat("assistant").to_string().into_bytes();
    for (coding, compressed) in [
        ("gzip", compressed!(GzipEncoder, &body)),
        ("zstd", compressed!(ZstdEncoder, &body)),
        ("deflate", compressed!(ZlibEncoder, &body)),
        ("br", compressed!(BrotliEncoder, &body)),
        ("identity", body.clone()),
    ] {
        let answer = sent(&service, CHAT, &[("content-encoding", coding)], compressed).await;
        assert_eq!(
            answer.expect(200)["choices"][0]["message"]["content"],
            "Good morning",
            "{coding}"
        );
    }
    for seen in backend.seen() {
        assert_eq!(seen.json()["messages"], chat("assistant")["messages"]);
        assert_eq!(seen.header("content-encoding"), None);
    }
    let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
    let call = compressed!(GzipEncoder, call.to_string().as_bytes());
    sent(&service, "/v1/decisions", &[("content-encoding", "gzip")], call).await.expect(200);

    // What is not taken is named, with what is.
    for path in [CHAT, MESSAGES, "/v1/decisions"] {
        let refused = sent(&service, path, &[("content-encoding", "compress")], body.clone()).await;
        let text = refused.text();
        assert_eq!(refused.status, 415, "{text}");
        assert_eq!(refused.header("accept-encoding"), Some("gzip, deflate, br, zstd"), "{path}");
        assert!(text.contains("`Content-Encoding: compress`") && text.contains("gzip"), "{text}");
    }
    let bomb = compressed!(GzipEncoder, &vec![b' '; (32 << 20) + 1]);
    let refused = sent(&service, CHAT, &[("content-encoding", "gzip")], bomb).await;
    assert!(said(&error(&refused, 413)).contains("larger than 33554432 bytes"));
    let broken = sent(&service, CHAT, &[("content-encoding", "gzip")], body.clone()).await;
    assert!(said(&error(&broken, 400)).contains("`Content-Encoding: gzip`"), "{}", broken.text());
    let silent = sent(&service, CHAT, &[], compressed!(GzipEncoder, &body)).await;
    assert!(said(&error(&silent, 400)).contains("looks like gzip"), "{}", silent.text());
    assert_eq!(backend.seen().len(), 5, "nothing else was sent");
}

#[tokio::test]
async fn a_known_key_counts_beside_a_strangers_and_the_header_is_named() {
    let backend = Backend::polite().await;
    let service = with(Store::Sqlite, &backend).start().await;
    let ask = async |authorization: &str, plain: &str| {
        let request = service.anonymous("POST", CHAT).header("x-lexgate-personal", "false");
        let headers = [("authorization", authorization), ("x-api-key", plain)];
        let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        Answer::of(with_json(request, &chat("assistant"))).await
    };
    let key = service.site.key("caller");
    ask("Bearer sk-of-somebody-else", key).await.expect(200);
    ask(&format!("Bearer {key}"), "sk-ant-of-somebody-else").await.expect(200);
    ask("Basic dTpw", key).await.expect(200);
    ask(&format!("Bearer {key}"), key).await.expect(200);

    let both = ask(&format!("Bearer {key}"), service.site.key("auditor")).await;
    let told = error(&both, 401);
    assert!(said(&told).contains("`Authorization` and `x-api-key`"), "{told}");
    assert!(said(&told).contains("two different"), "{told}");
    for (authorization, plain, header) in [
        ("Bearer wrong", "", "`Authorization`"),
        ("", "wrong", "`x-api-key`"),
        ("Basic dTpw", "", "`Authorization`"),
    ] {
        let refused = ask(authorization, plain).await;
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let told = error(&refused, 401);
        assert!(said(&told).contains(header), "{told}");
    }
    let azure = service.anonymous("POST", CHAT).header("api-key", key);
    let told = error(&Answer::of(with_json(azure, &chat("assistant"))).await, 401);
    assert!(said(&told).contains("`api-key` is not read"), "{told}");
}

/// As node's fetch does: it writes all of its body before it reads, and a write that fails ends the call.
#[tokio::test]
async fn a_wrong_key_with_a_large_body_is_answered_and_not_cut_off() {
    let service = Service::shared(Store::Sqlite).await;
    let address = service.url().trim_start_matches("http://").to_owned();
    let body = vec![b'x'; 4 << 20];
    for _ in 0..6 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer wrong\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body.chunks(64 << 10) {
            stream.write_all(piece).await.expect("the body is taken to its end");
        }
        let mut read = [0; 12];
        stream.read_exact(&mut read).await.expect("an answer");
        assert_eq!(&read, b"HTTP/1.1 401");
    }
}

#[tokio::test]
async fn a_field_of_a_wrong_type_or_a_missing_one_is_named() {
    let backend = Backend::polite().await;
    let service = with(Store::Sqlite, &backend).start().await;
    for path in [CHAT, MESSAGES, "/v1/responses", "/v1/embeddings", "/v1/completions"] {
        for (field, value, param, code) in [
            ("model", Value::Null, "model", "missing_required_parameter"),
            ("model", json!(""), "model", "missing_required_parameter"),
            ("model", json!(7), "model", "invalid_type"),
            ("stream", json!("true"), "stream", "invalid_type"),
            ("stream", json!(1), "stream", "invalid_type"),
            (
                "metadata",
                json!({ "lexgate_personal": 7 }),
                "metadata.lexgate_personal",
                "invalid_claims",
            ),
        ] {
            let mut body = json!({ "model": "assistant" });
            body[field] = value.clone();
            let told = error(&service.openai(path, &HARMLESS, &body).await, 400);
            let case = format!("{path} {field} {value}: {told}");
            assert_eq!((&told["param"], &told["code"]), (&json!(param), &json!(code)), "{case}");
            assert!(said(&told).contains(&format!("`{param}`")), "{case}");
        }
        let nameless = service.openai(path, &HARMLESS, &json!({ "input": "x" })).await;
        assert_eq!(error(&nameless, 400)["param"], "model", "{path}");
    }
    let mut body = chat("assistant");
    body["stream_options"] = json!({ "include_usage": "yes" });
    let told = error(&service.openai(CHAT, &HARMLESS, &body).await, 400);
    assert_eq!(told["param"], "stream_options.include_usage", "{told}");
    assert!(backend.seen().is_empty());

    // Types that JSON and Python have for what a header writes as words.
    body = chat("assistant");
    body["metadata"] = json!({ "lexgate_personal": true, "lexgate_subjects": ["DE", "FR"],
        "lexgate_data": ["dpv-pd:Contact"], "lexgate_subject_count": 3 });
    service.openai(CHAT, &[("personal", "True"), ("subjects", "DE,FR")], &body).await.expect(200);
    let decision = &service.records_of("decision").await[0]["entry"]["body"]["call"]["data"];
    assert_eq!(decision["subjects"], json!(["DE", "FR"]), "{decision}");
    assert_eq!((&decision["personal"], &decision["subject_count"]), (&json!(true), &json!(3)));
}

#[tokio::test]
async fn a_wrong_path_is_told_the_right_one_in_the_client_s_own_shape() {
    let service = Service::shared(Store::Sqlite).await;
    let key = service.site.key("caller");
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request = service.anonymous(method, path).bearer_auth(key);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::of(request).await
    };
    for (method, path, says) in [
        ("POST", "/chat/completions", "`http://HOST/v1`"),
        ("POST", "/v1/v1/chat/completions", "appears twice"),
        ("POST", "/v1/chat/completions/", "leave out the last or doubled slash"),
        ("POST", "/openai/deployments/m/chat/completions?api-version=2024-10-21", "AzureOpenAI"),
        ("POST", "/mcp", "not an MCP server"),
        ("GET", "/v1/files", "`POST /v1/chat/completions`"),
        ("POST", "/v1/batches", "one by one"),
        ("POST", "/v1/audio/speech", "`POST /v1/responses`"),
        ("POST", "/v1/images/generations", "`GET /v1/models`"),
        ("POST", "/v1/moderations", "is not offered"),
        ("GET", "/v1/realtime", "is not offered"),
        ("POST", "/v1/conversations", "in the call itself"),
        ("GET", "/v1/responses/resp_1", "store: false"),
    ] {
        let refused = ask(method, path, &[]).await;
        let told = error(&refused, 404);
        assert!(said(&told).contains(says), "{path}: {told}");
        assert_eq!(
            (&told["type"], &told["code"]),
            (&json!("invalid_request_error"), &json!("unknown_url"))
        );
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    for path in ["/v1/v1/messages", "/messages", "/v1/messages/batches"] {
        let told = ask("POST", path, &[]).await.expect(404);
        assert_eq!(
            (&told["type"], &told["error"]["type"]),
            (&json!("error"), &json!("not_found_error"))
        );
    }
    let told = ask("GET", "/v1/files", &[("anthropic-version", "2023-06-01")]).await.expect(404);
    assert_eq!(told["type"], "error");
    let told = ask("POST", "/api/chat", &[]).await.expect(404);
    assert!(told["error"].as_str().is_some_and(|told| told.contains("Ollama's API")), "{told}");
    let told = ask("GET", "/v1/audit/nothing", &[]).await.expect(404);
    assert_eq!(told["type"], "urn:lexgate:problem:not-found");

    let wrong = ask("GET", CHAT, &[]).await;
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert!(said(&error(&wrong, 405)).contains("send `POST /v1/chat/completions`"));
    let options = ask("OPTIONS", CHAT, &[]).await;
    assert_eq!((options.status, options.header("allow")), (204, Some("POST")));
    let asks = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    let preflight = ask("OPTIONS", CHAT, &asks).await;
    assert_eq!(preflight.header("access-control-allow-origin"), None);
    assert!(said(&error(&preflight, 405)).contains("`[server] cors_origins`"));
}

#[tokio::test]
async fn pages_of_the_named_origins_may_call_and_no_others() {
    let backend = Backend::polite().await;
    let setup = with(Store::Sqlite, &backend);
    let setup = setup.env("LEXGATE_SERVER__CORS_ORIGINS", "[\"https://app.example\"]");
    let service = setup.start().await;
    for (origin, allowed) in
        [("https://app.example", Some("https://app.example")), ("https://evil.example", None)]
    {
        let preflight = service.anonymous("OPTIONS", CHAT).header("origin", origin);
        let preflight = preflight.header("access-control-request-method", "POST");
        let asked = "authorization,content-type,x-lexgate-personal";
        let preflight = Answer::of(preflight.header("access-control-request-headers", asked)).await;
        assert_eq!(preflight.header("access-control-allow-origin"), allowed, "{origin}");
        if allowed.is_some() {
            assert_eq!(preflight.header("access-control-allow-headers"), Some(asked));
        }
        let request = service.request("POST", CHAT, "caller").header("origin", origin);
        let request = request.header("x-lexgate-personal", "false");
        let called = Answer::of(with_json(request, &chat("assistant"))).await;
        assert_eq!(called.header("access-control-allow-origin"), allowed, "{origin}");
        let readable = called.header("access-control-expose-headers").unwrap_or_default();
        assert!(allowed.is_none() || readable.contains("x-lexgate-decision"), "{readable}");
        // A page reads why it was refused, too.
        let refused = service.anonymous("POST", CHAT).header("origin", origin);
        let refused = Answer::of(with_json(refused, &chat("assistant"))).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, allowed));
    }
}

#[tokio::test]
async fn a_model_is_asked_for_by_the_names_that_clients_know() {
    let backend = Backend::polite().await;
    let service = with(Store::Sqlite, &backend)
        .organisation_with(
            "id = \"assistant\"\n",
            "id = \"assistant\"\naliases = [\"gpt-5*\", \"openai/gpt-5\", \"claude-haiku-4-5-20251001\"]\n",
        )
        .start()
        .await;
    let names =
        ["gpt-5", "gpt-5-2025-08-07", "openai/gpt-5", "claude-haiku-4-5-20251001", "assistant"];
    for name in names {
        service.openai(CHAT, &HARMLESS, &chat(name)).await.expect(200);
        let found =
            service.get(&format!("/v1/models/{}", name.replace('/', "%2F")), "caller").await;
        assert_eq!(found.expect(200)["id"], name);
    }
    for (record, name) in service.records_of("decision").await.iter().zip(names) {
        let call = &record["entry"]["body"]["call"];
        assert_eq!(call["model"], "assistant", "{call}");
        let asked = if name == "assistant" { Value::Null } else { json!(name) };
        assert_eq!(call["asked_model"], asked, "{call}");
    }
    assert_eq!(outcomes(&service).await.len(), names.len());
    let call = json!({ "action": "infer", "model": "gpt-5-mini", "data": { "personal": false } });
    assert_eq!(service.decide(&call).await.expect(200)["decision"], "allow");
    // What was decided by an alias is replayed by it.
    let dir = service.site.path("export");
    let dir = dir.to_str().unwrap();
    service.site.run_json(&["export", dir, "--json"]);
    let report =
        service.site.run_json(&["verify", dir, "--key", &service.site.vkey, "--replay", "--json"]);
    assert_eq!(report["holds"], true, "{report}");
    let unknown = service.openai(CHAT, &HARMLESS, &chat("assistent")).await;
    let told = error(&unknown, 404);
    assert!(said(&told).contains("did you mean `assistant`?"), "{told}");
}

#[tokio::test]
async fn aliases_that_could_mean_two_models_stop_the_start() {
    for (aliases, others, says) in [
        ("\"gpt-5*\"", "\"gpt-*\"", "can mean the same name"),
        ("\"gpt-5\"", "\"gpt-5\"", "can mean the same name"),
        ("\"payments\"", "", "is the name of a model already"),
        ("\"qwen3-32b\"", "", "is the name of a model already"),
        ("\"*\"", "", "`*` is not an alias"),
        ("\"gpt*5\"", "", "`gpt*5` is not an alias"),
    ] {
        let with = |id: &str, aliases: &str| {
            (
                format!("id = \"{id}\"\ndeployments"),
                format!("id = \"{id}\"\naliases = [{aliases}]\ndeployments"),
            )
        };
        let (assistant, payments) = (with("assistant", aliases), with("payments", others));
        let site = Service::setup(Store::Sqlite)
            .organisation_with(&assistant.0, &assistant.1)
            .organisation_with(&payments.0, &payments.1)
            .prepare()
            .await;
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(1), "{aliases} {others}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{aliases} {others}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn modalities_of_the_catalogue_decide_what_a_model_is_sent() {
    let backend = Backend::polite().await;
    let embedder = "[[models]]\nid = \"embedder\"\nlicense = \"Apache-2.0\"\nprovider = \"Acme\"\n\
        modalities = [\"embedding\"]\n\
        [[deployments]]\nid = \"embedder@laptop\"\nmodel = \"embedder\"\noperator = \"acme\"\n\
        tier = \"on_device\"\napproved = true\nprocess = [\"@location\"]\nstore = [\"@location\"]\n\
        [deployments.backend]\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"embedder\"\n\
        [[models]]\nid = \"seer\"\nlicense = \"Apache-2.0\"\nprovider = \"Acme\"\n\
        modalities = [\"text\", \"image\"]\n\
        [[deployments]]\nid = \"seer@laptop\"\nmodel = \"seer\"\noperator = \"acme\"\n\
        tier = \"on_device\"\napproved = true\nprocess = [\"@location\"]\nstore = [\"@location\"]\n\
        [deployments.backend]\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"seer\"\n\
        [[virtual_models]]\nid = \"any\"\ndeployments = [\"embedder@laptop\", \"smollm2@laptop\", \"seer@laptop\"]\n";
    let setup = with(Store::Sqlite, &backend).organisation(embedder);
    let service = setup.backend("seer@laptop", &backend.url).start().await;
    let chatting = error(&service.openai(CHAT, &HARMLESS, &chat("embedder")).await, 400);
    assert!(said(&chatting).contains("`POST /v1/embeddings`"), "{chatting}");
    let mut picture = chat("assistant");
    picture["messages"][0]["content"] = json!([{"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
    let refused = error(&service.openai(CHAT, &HARMLESS, &picture).await, 400);
    assert!(said(&refused).contains("does not take image content"), "{refused}");
    assert_eq!(refused["code"], "modality_not_taken");
    assert!(backend.seen().is_empty() && service.records_of("decision").await.is_empty());

    // Of several models, only those are considered that take it.
    picture["model"] = json!("any");
    let answered = service.openai(CHAT, &HARMLESS, &picture).await;
    answered.expect(200);
    assert_eq!(answered.header("x-lexgate-deployment"), Some("seer@laptop"));
    let answered = service.openai(CHAT, &HARMLESS, &chat("any")).await;
    answered.expect(200);
    assert_eq!(answered.header("x-lexgate-deployment"), Some("smollm2@laptop"));
    let records = service.records_of("decision").await;
    let call = |at: usize| &records[at]["entry"]["body"]["call"];
    assert_eq!(call(0)["modalities"], json!(["image", "text"]), "{}", call(0));
    let call = json!({ "action": "infer", "model": "any", "data": { "personal": false }, "modalities": ["video"] });
    let refused = service.decide(&call).await.expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/modalities", "{refused}");
}

#[tokio::test]
async fn tokens_are_counted_through_the_same_gate() {
    let backend = Backend::start(|seen| {
        if seen.head.starts_with("POST /v1/messages/count_tokens ") {
            whole(&json!({ "input_tokens": 14 }))
        } else {
            answer("404 Not Found", "", b"")
        }
    })
    .await;
    let service = with(Store::Sqlite, &backend).start().await;
    let count = format!("{MESSAGES}/count_tokens");
    let body =
        json!({ "model": "smollm2@laptop", "messages": [{"role": "user", "content": "Hello"}] });
    let counted = service.openai(&count, &HARMLESS, &body).await;
    assert_eq!(counted.expect(200), json!({ "input_tokens": 14 }));
    assert!(
        counted.header("request-id").is_some() && counted.header("x-lexgate-decision").is_some()
    );
    let outcome = &outcomes(&service).await[0];
    assert_eq!(outcome["tokens"], json!({ "input": 0, "output": 0 }), "counting uses none");
    // What is counted would leave: it is judged as the message would be.
    let denied = service.openai(&count, &[], &body).await.expect(403);
    assert_eq!(denied["type"], "error");
    assert_eq!(backend.seen().len(), 1);
    let unsupported = service.openai(MESSAGES, &HARMLESS, &message("smollm2@laptop")).await;
    assert_eq!(unsupported.expect(502)["error"]["code"], "upstream_unsupported");
}

#[tokio::test]
async fn models_are_listed_in_anthropic_s_shape_for_its_clients() {
    let service = Service::shared(Store::Sqlite).await;
    let ask = async |path: &str, key: &str| {
        let request = service.request("GET", path, key).header("anthropic-version", "2023-06-01");
        Answer::of(request).await
    };
    let listed = ask("/v1/models?limit=20", "caller").await.expect(200);
    let data = listed["data"].as_array().unwrap();
    assert_eq!(
        (&listed["has_more"], &listed["first_id"]),
        (&json!(false), &data[0]["id"]),
        "{listed}"
    );
    for row in data {
        assert_eq!((&row["type"], &row["display_name"]), (&json!("model"), &row["id"]));
        assert!(row["created_at"].as_str().unwrap().ends_with('Z'));
    }
    let one = ask("/v1/models/assistant", "caller").await.expect(200);
    assert_eq!((&one["type"], &one["id"]), (&json!("model"), &json!("assistant")));
    let unknown = ask("/v1/models/assistent", "caller").await.expect(404);
    assert_eq!(
        (&unknown["type"], &unknown["error"]["type"]),
        (&json!("error"), &json!("not_found_error"))
    );
    assert_eq!(ask("/v1/models", "auditor").await.expect(403)["type"], "error");
}

both_stores! {
    async fn a_person_named_in_an_api_s_own_field_is_the_call_s_end_user(store: Store) {
        let backend = Backend::start(|_| whole(&completion())).await;
        let service = with(store, &backend).start().await;
        let erase = async |user: &str| {
            let path = format!("/v1/subjects/{user}?tenant=acme");
            Answer::of(service.request("DELETE", &path, "officer")).await
        };
        let call = async |claims: &[(&str, &str)], field: &str, user: &str| {
            let mut body = chat("assistant");
            body[field] = json!(user);
            let answer = service.openai(CHAT, claims, &body).await;
            answer.expect(200);
            answer.header("x-lexgate-withheld").map(str::to_owned)
        };
        // About nobody: the provider does not learn who asks. Lexgate can forget them either way.
        assert_eq!(call(&HARMLESS, "user", "u-1").await.as_deref(), Some("user"));
        assert_eq!(call(&HARMLESS, "safety_identifier", "u-2").await.as_deref(), Some("safety_identifier"));
        assert_eq!(call(&GERMAN, "user", "u-3").await, None);
        let mut body = message("smollm2@laptop");
        body["metadata"] = json!({ "user_id": "u-4", "team": "x" });
        let answer = service.openai(MESSAGES, &HARMLESS, &body).await;
        answer.expect(200);
        assert_eq!(answer.header("x-lexgate-withheld"), Some("metadata.user_id"));
        let seen: Vec<Value> = backend.seen().iter().map(Seen::json).collect();
        assert!(seen[0]["user"].is_null() && seen[1]["safety_identifier"].is_null(), "{seen:?}");
        assert_eq!((&seen[2]["user"], &seen[3]["metadata"]), (&json!("u-3"), &json!({ "team": "x" })));
        for record in service.records_of("decision").await {
            assert!(record["entry"]["body"]["user_commitment"].is_string(), "{record}");
        }
        for user in ["u-1", "u-2", "u-3", "u-4"] {
            assert!(erase(user).await.expect(200)["values"].as_u64().unwrap() > 0, "{user}");
        }
        assert_eq!(erase("u-5").await.status, 404);
        // Who is named as the claim goes before the provider's name.
        let mut body = chat("assistant");
        body["user"] = json!("u-6");
        service.openai(CHAT, &[("personal", "false"), ("end-user", "u-7")], &body).await.expect(200);
        assert_eq!(erase("u-6").await.status, 404);
        erase("u-7").await.expect(200);
    }
}
