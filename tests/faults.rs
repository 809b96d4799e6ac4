//! What the HTTP interface refuses, each with its exact problem document (RFC 9457).

use std::fmt::Write;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{Answer, Service, Store, both_stores, with_json};

/// A good call with some fields replaced.
fn call(fields: Value) -> Value {
    let mut call =
        json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    for (name, value) in fields {
        call[name] = value;
    }
    call
}

fn data(data: &Value) -> Value {
    call(json!({ "data": data }))
}

/// Bodies that are JSON, and no calls that can be judged.
fn calls() -> Vec<(&'static str, Value)> {
    let many = |code: &'static str| vec![code; 65];
    let personal = |fields: Value| {
        let mut data = json!({ "personal": true });
        for (name, value) in fields.as_object().unwrap() {
            data[name] = value.clone();
        }
        self::data(&data)
    };
    vec![
        ("an array", json!([])),
        ("null", json!(null)),
        ("nothing in it", json!({})),
        ("no action", json!({ "model": "assistant" })),
        ("unknown action", call(json!({ "action": "guess" }))),
        ("action of the wrong type", call(json!({ "action": 7 }))),
        ("unknown field", call(json!({ "modle": "assistant" }))),
        ("unknown field of the data", personal(json!({ "subject": ["DE"] }))),
        ("tenant is not the caller's to say", call(json!({ "tenant": "acme" }))),
        ("personal of the wrong type", data(&json!({ "personal": "yes" }))),
        ("personal missing", data(&json!({ "categories": [] }))),
        ("subjects of the wrong type", personal(json!({ "subjects": "DE" }))),
        ("a subject of the wrong type", personal(json!({ "subjects": ["DE", 49] }))),
        ("negative subject count", personal(json!({ "subject_count": -1 }))),
        (
            "subject count that JSON readers round",
            personal(json!({ "subjects": ["DE"], "subject_count": 9_007_199_254_740_992_u64 })),
        ),
        ("unknown country", personal(json!({ "subjects": ["DE", "XX"] }))),
        ("country by name", personal(json!({ "subjects": ["Germany"] }))),
        ("country in small letters", call(json!({ "location": "de" }))),
        ("unknown place of the data", personal(json!({ "location": "ZZ" }))),
        ("unknown audience", call(json!({ "audience": ["DE", "EU"] }))),
        (
            "neither model nor deployment",
            json!({ "action": "infer", "data": { "personal": false } }),
        ),
        ("unknown model", call(json!({ "model": "gpt-9" }))),
        ("unknown deployment", call(json!({ "model": null, "deployment": "gpt-9@moon" }))),
        (
            "a deployment that does not serve the model",
            call(json!({ "model": "hunyuan", "deployment": "smollm2@laptop" })),
        ),
        ("unknown category", personal(json!({ "categories": ["dpv-pd:Helth"] }))),
        ("unknown purpose", call(json!({ "purpose": "profit" }))),
        ("a category is no purpose", call(json!({ "purpose": "dpv-pd:Health" }))),
        ("too many subjects", personal(json!({ "subjects": many("DE") }))),
        ("too many categories", personal(json!({ "categories": many("dpv-pd:Health") }))),
        ("too large an audience", call(json!({ "audience": many("DE") }))),
        ("too long an end user", call(json!({ "end_user": "u".repeat(257) }))),
        (
            "several at once",
            call(json!({
                "model": "gpt-9", "purpose": "profit", "location": "XX",
                "data": { "personal": true, "categories": ["a"], "subjects": ["YY"] },
            })),
        ),
    ]
}

/// Requests that are refused before anything is judged.
fn requests(service: &Service) -> Vec<(&'static str, RequestBuilder)> {
    let decide = || service.request("POST", "/v1/decisions", "caller");
    let json = |body: &'static str| decide().header("content-type", "application/json").body(body);
    let unsigned = || with_json(service.anonymous("POST", "/v1/decisions"), &call(json!({})));
    let large = format!("{{\"action\": \"{}\"}}", "a".repeat(256 << 10));
    vec![
        ("no body", json("")),
        ("half a body", json("{\"action\": \"infer\",")),
        ("two bodies", json("{\"action\": \"infer\"} {}")),
        ("no JSON", json("action=infer")),
        ("no Unicode", decide().header("content-type", "application/json").body(&b"\"\xff\""[..])),
        (
            "a field twice",
            json("{\"action\": \"infer\", \"action\": \"embed\", \"model\": \"assistant\"}"),
        ),
        (
            "a body that is too large",
            decide().header("content-type", "application/json").body(large),
        ),
        ("another content type", decide().header("content-type", "text/plain").body("{}")),
        ("no content type", decide().body("{}")),
        ("no key", unsigned()),
        ("an unknown key", unsigned().bearer_auth("lexgate_caller_guessed")),
        ("another scheme", unsigned().basic_auth("caller", Some(service.site.key("caller")))),
        ("a scheme without a key", unsigned().header("authorization", "Bearer")),
        ("a key that is no text", unsigned().header("authorization", &b"Bearer \xff"[..])),
        (
            "an auditor's key",
            with_json(service.request("POST", "/v1/decisions", "auditor"), &json!({})),
        ),
        ("a caller's key", service.request("GET", "/v1/audit/records", "caller")),
        ("no such path", service.request("GET", "/v1/decision", "caller")),
        ("no such method", service.request("DELETE", "/v1/decisions", "caller")),
        ("no such record", service.request("GET", "/v1/audit/records/999999", "auditor")),
        (
            "a record that is no number",
            service.request("GET", "/v1/audit/records/first", "auditor"),
        ),
    ]
}

both_stores! {
    async fn every_fault_has_its_problem_document(store: Store) {
        let service = Service::shared(store).await;
        let mut requests = requests(service);
        for (name, body) in calls() {
            requests.push((name, with_json(service.request("POST", "/v1/decisions", "caller"), &body)));
        }
        let mut shown = String::new();
        for (name, request) in requests {
            let answer = Answer::of(request.header("x-request-id", "test-1")).await;
            let problem = answer.json();
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
            assert_eq!(problem["status"], answer.status, "{name}");
            assert_eq!(problem["instance"], "urn:lexgate:request:test-1", "{name}");
            assert_eq!(answer.header("x-request-id"), Some("test-1"), "{name}");
            let challenge = answer.header("www-authenticate").is_some();
            assert_eq!(challenge, answer.status == 401, "{name}");
            writeln!(shown, "# {name}\n{problem:#}\n").unwrap();
        }
        insta::assert_snapshot!("problems", shown);
    }

    async fn explain_and_batch_refuse_what_decide_refuses(store: Store) {
        let service = Service::shared(store).await;
        for (name, body) in calls() {
            let decided = service.decide(&body).await;
            let explained = service.post("/v1/explain", "caller", &body).await;
            assert_eq!(explained.status, decided.status, "{name}");
            assert_eq!(explained.json()["errors"], decided.json()["errors"], "{name}");
            let batch = json!({ "calls": [body] });
            let batch = service.post("/v1/decisions/batch", "caller", &batch).await;
            assert_eq!(batch.status, decided.status, "{name}");
            let mut expected = decided.json()["errors"].clone();
            for error in expected.as_array_mut().unwrap() {
                let pointer = format!("/calls/0{}", error["pointer"].as_str().unwrap());
                error["pointer"] = json!(pointer);
            }
            assert_eq!(batch.json()["errors"], expected, "{name}");
        }
    }

    async fn a_fault_is_recorded_nowhere(store: Store) {
        let service = Service::start(store).await;
        for (_, body) in calls() {
            assert!(service.decide(&body).await.status >= 400);
        }
        let kinds: Vec<Value> =
            service.records().await.iter().map(|record| record["entry"]["kind"].clone()).collect();
        assert_eq!(kinds, ["genesis", "bundle_activated", "audit_read"]);
    }

    async fn a_request_has_an_identifier(store: Store) {
        let service = Service::shared(store).await;
        let with = async |id: &str| {
            let request = service.anonymous("GET", "/nothing").header("x-request-id", id);
            let answer = Answer::of(request).await;
            let (problem, header) = (answer.expect(404), answer.header("x-request-id").unwrap());
            assert_eq!(problem["instance"], format!("urn:lexgate:request:{header}"));
            header.to_owned()
        };
        assert_eq!(with("01-A_b.c:d").await, "01-A_b.c:d");
        let long = "x".repeat(129);
        for bad in ["two words", "<script>", long.as_str()] {
            let given = with(bad).await;
            assert_eq!(given.len(), 36, "{given}");
        }
        let answer = Answer::of(service.anonymous("GET", "/healthz")).await;
        assert_eq!(answer.header("x-request-id").unwrap().len(), 36);
        assert_eq!(answer.expect(200), json!({ "status": "ok" }));
    }

    async fn a_wrong_method_names_the_right_ones(store: Store) {
        let service = Service::shared(store).await;
        for (path, allow) in [("/v1/decisions", "POST"), ("/v1/models", "GET"), ("/healthz", "GET")] {
            let answer = Answer::of(service.request("DELETE", path, "caller")).await;
            assert_eq!(answer.status, 405, "{path}");
            // RFC 9110, section 15.5.6: a 405 must say what is allowed.
            assert!(answer.header("allow").is_some_and(|text| text.contains(allow)), "{path}");
        }
    }
}
