//! Denials as a developer meets them: what to set, what is missing, and the whole decision by its id. And
//! the words that a call may use.

use serde_json::{Value, json};

use crate::{
    backend::Backend,
    gateway::{CHAT, HARMLESS, chat, with},
    harness::{Service, Store, both_stores},
};

const SINGAPORE: &str = "qwen3-32b@dashscope-sg";

async fn denied(service: &Service, claims: &[(&str, &str)], model: &str) -> (Value, String) {
    let answer = service.openai(CHAT, claims, &chat(model)).await;
    let error = answer.expect(403)["error"].clone();
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("x-lexgate-decision"), error["decision"]["id"].as_str());
    let message = error["message"].as_str().unwrap().to_owned();
    (error, message)
}

both_stores! {
    async fn a_denial_says_what_is_missing_and_its_decision_is_read_by_its_id(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).caller("payments-desk").start().await;
        let both = ["`x-lexgate-personal`", "`metadata.lexgate_personal`", "`x-lexgate-subjects`"];
        let (_, message) = denied(&service, &[], "assistant").await;
        assert!(both.iter().all(|name| message.contains(name)), "{message}");
        // Personal data of which nothing says whose it is: only that is missing.
        for claims in [("personal", "true"), ("data", "dpv-pd:Contact")] {
            let (_, message) = denied(&service, &[claims], "assistant").await;
            assert!(message.contains("set `x-lexgate-subjects` (or `metadata.lexgate_subjects`)"), "{message}");
            assert!(!message.contains("x-lexgate-personal"), "{message}");
        }
        let german = [("data", "dpv-pd:Contact"), ("subjects", "DE")];
        let (error, message) = denied(&service, &german, SINGAPORE).await;
        assert!(message.contains("denied by `eu-gdpr-44`") && message.contains("DE to SG"), "{message}");
        let decision = &error["decision"];
        let id = decision["id"].as_str().unwrap();
        assert!(message.contains(id), "{message}");
        assert!(decision.to_string().len() < 1_100, "{decision}");
        assert_eq!((&decision["decision"], &error["code"]), (&json!("deny"), &json!("eu-gdpr-44")));

        let path = decision["url"].as_str().unwrap();
        assert_eq!(path, format!("/v1/decisions/{id}"));
        let whole = service.get(path, "caller").await.expect(200);
        assert_eq!((&whole["id"], &whole["record"]), (&decision["id"], &decision["record"]));
        assert!(whole["candidates"][0]["placement"].is_object() && whole["snapshot"].is_object());
        assert_eq!(whole["reasons"][0]["flow"]["to"], "SG", "{whole}");
        // No other app's, no other role's; and each reading is in the ledger.
        assert_eq!(service.get(path, "payments-desk").await.status, 404);
        assert_eq!(service.get(path, "auditor").await.status, 403);
        assert_eq!(service.get("/v1/decisions/nonsense", "caller").await.status, 404);
        let unknown = "/v1/decisions/0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11";
        assert_eq!(service.get(unknown, "caller").await.status, 404);
        let readings = service.records_of("audit_read").await;
        let readings = readings.iter().filter(|row| row["entry"]["body"]["operation"] == "readDecision");
        let keys: Vec<_> = readings.map(|row| row["entry"]["body"]["key"].clone()).collect();
        assert_eq!(keys, ["support-copilot", "payments-desk", "support-copilot"], "{keys:?}");
        assert!(backend.seen().is_empty());
        service.export_and_verify();
    }
}

#[tokio::test]
async fn readings_of_decisions_are_held_to_the_limit_of_readings() {
    let setup = Service::setup(Store::Sqlite);
    let service = setup.env("LEXGATE_LEDGER__READINGS_PER_MINUTE", "2").start().await;
    let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
    let id = service.decide(&call).await.expect(200)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/decisions/{id}");
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(service.get(&path, "caller").await.status);
    }
    // The minute may turn once on the way.
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses[2..].contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn an_app_whose_agents_repeat_a_403_is_denied_with_a_400() {
    let app = "id = \"support-copilot\"\n";
    let setup = Service::setup(Store::Sqlite);
    let service =
        setup.organisation_with(app, &format!("{app}denial_status = 400\n")).start().await;
    let denied = service.openai(CHAT, &[], &chat("assistant")).await;
    let error = &denied.expect(400)["error"];
    assert_eq!(
        (&error["type"], &error["decision"]["decision"]),
        (&json!("policy_denied"), &json!("deny"))
    );
    assert_eq!(denied.header("x-should-retry"), Some("false"));
    let body = json!({ "model": "assistant", "max_tokens": 8, "messages": [] });
    let denied = service.openai("/v1/messages", &[], &body).await.expect(400);
    assert_eq!(denied["error"]["type"], "permission_error", "{denied}");

    let setup = Service::setup(Store::Sqlite);
    let site = setup.organisation_with(app, &format!("{app}denial_status = 503\n")).prepare().await;
    let ran = site.run(&["serve"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("`denial_status` cannot be 503"), "{}", ran.stderr);
}

#[tokio::test]
async fn the_words_of_calls_are_listed_and_a_slip_is_told_what_was_meant() {
    let service = Service::shared(Store::Sqlite).await;
    let words = service.get("/v1/vocabulary", "caller").await.expect(200);
    let has = |list: &str, what: &Value| words[list].as_array().unwrap().contains(what);
    assert!(
        has("categories", &json!("dpv-pd:Contact"))
            && has("purposes", &json!("dpv:ServiceProvision"))
    );
    assert!(has("actions", &json!("fine_tune")));
    assert!(has("jurisdictions", &json!({ "code": "DE", "name": "Germany" })));
    let claim = json!({ "header": "x-lexgate-subject-count", "metadata": "lexgate_subject_count" });
    assert!(has("claims", &claim), "{}", words["claims"]);
    let models: Vec<&str> =
        words["models"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(models.contains(&"assistant") && models.contains(&"smollm2@laptop"), "{models:?}");
    assert!(!models.contains(&"command-r"), "its licence is for research: {models:?}");
    for role in ["auditor", "officer"] {
        assert_eq!(service.get("/v1/vocabulary", role).await.status, 403);
    }

    for (claim, given, meant) in [
        ("data", "Contact", "did you mean `dpv-pd:Contact`?"),
        ("data", "dpv-pd:Helth", "did you mean `dpv-pd:Health`?"),
        ("purpose", "ServiceProvision", "did you mean `dpv:ServiceProvision`?"),
        ("purpose", "dpv-pd:Health", "it is a category"),
        ("subjects", "UK", "did you mean `GB`?"),
        ("subjects", "de", "did you mean `DE`?"),
        ("subjects", "Germany", "did you mean `DE`?"),
        ("subjects", "EU", "name the country"),
        ("audience", "EEA", "name the country"),
        ("location", "USA", "did you mean `US`?"),
    ] {
        let mut claims = vec![("personal", "true"), (claim, given)];
        if claim != "subjects" {
            claims.push(("subjects", "DE"));
        }
        let answer = service.openai(CHAT, &claims, &chat("assistant")).await;
        let error = &answer.expect(400)["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(meant), "{given}: {message}");
        assert!(message.contains(&format!("x-lexgate-{claim}")), "{given}: {message}");
    }
    let misspelt = service.openai(CHAT, &[("subject", "DE")], &chat("assistant")).await.expect(400);
    let message = misspelt["error"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `x-lexgate-subjects`?"), "{message}");
    let call = json!({ "action": "infer", "model": "asistant", "data": { "personal": true,
        "categories": ["Contact"], "subjects": ["UK"] } });
    let problem = service.decide(&call).await.expect(422);
    for meant in ["`assistant`", "`dpv-pd:Contact`", "`GB`"] {
        let told = problem["errors"].to_string();
        assert!(told.contains(&format!("did you mean {meant}?")), "{told}");
    }
    let pinned =
        json!({ "action": "infer", "deployment": "smollm2@labtop", "data": { "personal": false } });
    let told = service.decide(&pinned).await.expect(422)["errors"].to_string();
    assert!(told.contains("did you mean `smollm2@laptop`?"), "{told}");
}

#[tokio::test]
async fn a_purpose_that_a_licence_asks_for_is_named_as_missing() {
    let service = Service::shared(Store::Sqlite).await;
    let (error, message) = denied(service, &HARMLESS, "llama-3.3-70b@northwind-us").await;
    assert!(error["decision"]["reasons"].to_string().contains("licence-purpose"), "{error}");
    assert!(
        message.contains("set `x-lexgate-purpose` (or `metadata.lexgate_purpose`)"),
        "{message}"
    );
}
