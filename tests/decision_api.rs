//! The decision API beside its verdicts: what an answer holds, explaining, batches, idempotency,
//! outcomes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Answer, Service, Store, both_stores, with_json};

/// Health data of a German, to a place that the law does not allow.
fn denied() -> Value {
    json!({
        "action": "infer", "model": "assistant", "deployment": "qwen3-32b@dashscope-sg",
        "data": {
            "personal": true, "categories": ["dpv-pd:Health"], "subjects": ["DE"],
            "subject_count": 1,
        },
        "purpose": "dpv:ServiceProvision", "audience": ["DE"], "location": "DE",
        "end_user": "u-1842",
    })
}

fn allowed() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

async fn with_key(service: &Service, key: &str, call: &Value) -> Answer {
    let request = service.request("POST", "/v1/decisions", "caller");
    Answer::of(with_json(request.header("Idempotency-Key", key), call)).await
}

async fn report(service: &Service, key: &str, id: &Value, report: &Value) -> Answer {
    let path = format!("/v1/decisions/{}/outcome", id.as_str().expect("an identifier"));
    service.post(&path, key, report).await
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

both_stores! {
    async fn an_answer_has_the_fields_of_the_contract(store: Store) {
        let service = Service::shared(store).await;
        let answer = service.decide(&denied()).await.expect(200);
        let fields =
            ["candidates", "decided_at", "decision", "duties", "id", "reasons", "record", "route",
             "snapshot"];
        assert_eq!(names(&answer), fields.into());
        assert_eq!(answer["candidates"][0]["deployment"], "qwen3-32b@dashscope-sg");
        assert_eq!(answer["candidates"][0]["tier"], "remote");
        assert_eq!(answer["candidates"][0]["policies"], json!(["eu-gdpr-44"]));
        let reason = &answer["reasons"][0];
        assert_eq!(
            names(reason),
            ["advice", "citation", "confidence", "deployment", "effect", "flow", "policy"].into()
        );
        assert_eq!(reason["confidence"], "secondary");
        assert_eq!(reason["flow"], json!({ "action": "process", "from": "DE", "to": "SG" }));
        assert_eq!(answer["record"]["log"], "lexgate.example/main");
        assert_eq!(answer["record"]["leaf"].as_str().unwrap().len(), 64);
        for part in ["bundle", "facts", "organisation"] {
            assert!(answer["snapshot"][part].as_str().unwrap().starts_with("sha256:"), "{answer}");
        }
        assert!(answer["snapshot"]["revision"].as_u64().unwrap() >= 1);
        let when = answer["decided_at"].as_str().unwrap();
        let with_micros = when.len() == "2026-11-22T13:00:00.000000Z".len() && when.ends_with('Z');
        assert!(with_micros, "{when}");

        let answer = service.decide(&allowed()).await.expect(200);
        assert_eq!(answer["route"], json!({
            "deployment": "smollm2@laptop", "jurisdictions": ["DE"], "model": "smollm2-135m",
            "operator": "acme", "tier": "on_device",
        }));
    }

    async fn a_record_says_what_is_general_knowledge(store: Store) {
        let service = Service::shared(store).await;
        let call = json!({
            "action": "infer", "deployment": "smollm2@laptop", "location": "PH",
            "data": { "personal": true, "categories": [], "subjects": ["PH"] },
        });
        let answer = service.decide(&call).await.expect(200);
        let pack = json!(["pack sovereignty/ph-dpa.cedar"]);
        let flow = answer["reasons"].as_array().unwrap().iter();
        let flow = flow.clone().find(|reason| reason["policy"] == "base-flow").unwrap();
        assert_eq!(flow["confidence"], "general");
        assert_eq!(flow["general_facts"], pack);
        let path = format!("/v1/audit/records/{}", answer["record"]["seq"]);
        let record = service.get(&path, "auditor").await.expect(200);
        assert!(record["entry"]["body"]["reasons"].as_array().unwrap().iter().any(|reason| {
            reason["confidence"] == "general" && reason["general_facts"] == pack
        }), "{record}");
    }

    async fn who_the_end_user_is_stands_in_no_record(store: Store) {
        let service = Service::shared(store).await;
        let answer = service.decide(&denied()).await.expect(200);
        let path = format!("/v1/audit/records/{}", answer["record"]["seq"]);
        let record = service.get(&path, "auditor").await;
        assert_eq!(record.expect(200)["leaf"], answer["record"]["leaf"]);
        assert!(!record.text().contains("u-1842"), "{}", record.text());
    }

    async fn explaining_records_nothing_and_says_more(store: Store) {
        let service = Service::start(store).await;
        let answer = service.post("/v1/explain", "caller", &denied()).await.expect(200);
        assert_eq!(answer["decision"], "deny");
        let considered = answer["considered"].as_array().unwrap();
        let gdpr = considered.iter().find(|rule| rule["policy"] == "eu-gdpr-44").unwrap();
        assert!(gdpr["file"].as_str().unwrap().starts_with("sovereignty/eu-gdpr.cedar:"), "{gdpr}");
        assert!(gdpr["text"].as_str().unwrap().contains("Zone::\"EEA\""), "{gdpr}");
        assert!(!considered.iter().any(|rule| rule["policy"] == "sa-pdpl-29"), "{answer:#}");
        let elsewhere = &answer["allowed_deployments"];
        assert_eq!(elsewhere, &json!([
            "smollm2@laptop", "qwen3-4b@scanner", "mistral-small@dc-frankfurt",
            "nemotron@nim-osaka", "qwen3-32b@meridian-sg", "llama-3.3-70b@northwind-us",
        ]));
        assert!(answer.get("record").is_none() && answer.get("id").is_none());
        assert!(service.records_of("decision").await.is_empty());
        // The same verdict as the decision's.
        let decided = service.decide(&denied()).await.expect(200);
        for part in ["decision", "route", "candidates", "reasons", "duties", "snapshot"] {
            assert_eq!(decided[part], answer[part], "{part}");
        }
    }

    async fn a_batch_is_answered_in_order_and_recorded_in_one_commit(store: Store) {
        let service = Service::start(store).await;
        let calls: Vec<Value> =
            (0..100).map(|n| if n % 3 == 0 { denied() } else { allowed() }).collect();
        let body = json!({ "calls": calls });
        let answer = service.post("/v1/decisions/batch", "caller", &body).await.expect(200);
        let decisions = answer["decisions"].as_array().unwrap();
        assert_eq!(decisions.len(), 100);
        let first = decisions[0]["record"]["seq"].as_u64().unwrap();
        for (n, decision) in (0_u64..).zip(decisions) {
            assert_eq!(decision["decision"], if n % 3 == 0 { "deny" } else { "allow" });
            assert_eq!(decision["record"]["seq"], first + n);
        }
        // One commit: one moment.
        let moments: BTreeSet<&str> =
            decisions.iter().map(|decision| decision["decided_at"].as_str().unwrap()).collect();
        assert_eq!(moments.len(), 1, "{moments:?}");
        assert_eq!(service.export_and_verify()["kinds"]["decision"], 100);
    }

    async fn a_batch_with_one_fault_records_nothing(store: Store) {
        let service = Service::start(store).await;
        let mut unknown = allowed();
        unknown["model"] = json!("gpt-9");
        let mut misplaced = denied();
        misplaced["data"]["subjects"] = json!(["DE", "XX"]);
        let body = json!({ "calls": [allowed(), unknown, misplaced] });
        let problem = service.post("/v1/decisions/batch", "caller", &body).await.expect(422);
        let pointers: Vec<&str> = problem["errors"].as_array().unwrap().iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, ["/calls/1/model", "/calls/2/data/subjects/1"]);
        for count in [0, 101] {
            let body = json!({ "calls": vec![allowed(); count] });
            let problem = service.post("/v1/decisions/batch", "caller", &body).await.expect(422);
            assert_eq!(problem["errors"], json!([
                { "pointer": "/calls", "detail": "want 1 to 100 calls" },
            ]));
        }
        let body = json!({ "calls": [allowed(), { "action": "infer", "modle": "x" }] });
        let problem = service.post("/v1/decisions/batch", "caller", &body).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "/calls/1/modle");
        assert!(service.records_of("decision").await.is_empty());
    }

    async fn an_idempotency_key_gives_the_first_answer_again(store: Store) {
        let mut service = Service::start(store).await;
        let first = with_key(&service, "order-1", &denied()).await.expect(200);
        assert_eq!(with_key(&service, "order-1", &denied()).await.expect(200), first);
        let problem = with_key(&service, "order-1", &allowed()).await.expect(422);
        assert_eq!(problem["type"], "urn:lexgate:problem:idempotency-key-reused");
        assert_eq!(service.records_of("decision").await.len(), 1);
        let other = with_key(&service, "order-2", &denied()).await.expect(200);
        assert_ne!(other["id"], first["id"]);
        // It holds for every process on the store, and beyond a crash.
        let second = service.second().await;
        assert_eq!(with_key(&second, "order-1", &denied()).await.expect(200), first);
        drop(second);
        service.crash();
        service.start_again().await;
        assert_eq!(with_key(&service, "order-1", &denied()).await.expect(200), first);
        assert_eq!(service.records_of("decision").await.len(), 2);
    }

    async fn an_idempotency_key_is_the_apps_own(store: Store) {
        let service = Service::setup(store).caller("ward-notes").start().await;
        let first = with_key(&service, "k", &denied()).await.expect(200);
        let request = service.request("POST", "/v1/decisions", "ward-notes");
        let other = with_json(request.header("Idempotency-Key", "k"), &allowed());
        let other = Answer::of(other).await.expect(200);
        assert_ne!(other["id"], first["id"]);
    }

    async fn concurrent_requests_with_one_key_leave_one_record(store: Store) {
        let service = Service::start(store).await;
        let second = service.second().await;
        let call = denied();
        let requests = (0..32).map(|n| {
            let service = if n % 2 == 0 { &service } else { &second };
            with_key(service, "only-one", &call)
        });
        let answers = futures_util::future::join_all(requests).await;
        let ids: BTreeSet<String> =
            answers.iter().map(|answer| answer.expect(200)["id"].to_string()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(service.records_of("decision").await.len(), 1);
        service.export_and_verify();
    }

    async fn an_idempotency_key_that_cannot_be_one_is_refused(store: Store) {
        let service = Service::shared(store).await;
        let long = "k".repeat(128);
        assert_eq!(with_key(service, &long, &denied()).await.status, 200);
        for bad in ["", "two words", &format!("{long}k")] {
            let problem = with_key(service, bad, &denied()).await.expect(422);
            assert_eq!(problem["errors"], json!([{
                "header": "Idempotency-Key", "detail": "want 1 to 128 visible ASCII characters",
            }]), "{bad:?}");
        }
    }

    async fn an_outcome_is_reported_once_by_the_app_that_asked(store: Store) {
        let service = Service::setup(store).caller("ward-notes").start().await;
        let decision = service.decide(&allowed()).await.expect(200);
        let outcome =
            json!({ "status": "ok", "input_tokens": 312, "output_tokens": 64, "model": "smollm2" });
        // Another app learns not even that there is one.
        let other = report(&service, "ward-notes", &decision["id"], &outcome).await;
        assert_eq!(other.expect(404)["detail"], "there is no such decision of this app");
        // A record holds whole numbers that every JSON reader takes exactly.
        let endless = json!({ "status": "ok", "output_tokens": 1_u64 << 53 });
        let refused = report(&service, "caller", &decision["id"], &endless).await.expect(422);
        assert_eq!(refused["errors"][0]["pointer"], "/output_tokens", "{refused}");
        let answer = report(&service, "caller", &decision["id"], &outcome).await.expect(200);
        assert_eq!(answer["decision"], decision["id"]);
        let again = report(&service, "caller", &decision["id"], &outcome).await;
        assert_eq!(again.expect(409)["type"], "urn:lexgate:problem:outcome-conflict");
        let record = service.get(&format!("/v1/audit/records/{}", answer["seq"]), "auditor").await;
        let body = &record.expect(200)["entry"]["body"];
        assert_eq!(body["reported"], "ok");
        assert_eq!(body["tokens"], json!({ "input": 312, "output": 64 }));
        assert_eq!(body["decision"]["seq"], decision["record"]["seq"]);
        assert_eq!(body["decision"]["leaf"], decision["record"]["leaf"]);
        assert_eq!(service.records_of("outcome").await.len(), 1);
        service.export_and_verify();
    }

    async fn concurrent_reports_leave_one_outcome(store: Store) {
        let service = Service::start(store).await;
        let decision = service.decide(&allowed()).await.expect(200);
        let outcome = json!({ "status": "timeout" });
        let reports = (0..16).map(|_| report(&service, "caller", &decision["id"], &outcome));
        let answers = futures_util::future::join_all(reports).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200);
        assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
        assert_eq!(service.records_of("outcome").await.len(), 1);
        service.export_and_verify();
    }

    async fn an_outcome_that_cannot_be_is_refused(store: Store) {
        let service = Service::shared(store).await;
        let outcome = json!({ "status": "ok" });
        let decision = service.decide(&denied()).await.expect(200);
        let answer = report(service, "caller", &decision["id"], &outcome).await.expect(409);
        assert_eq!(answer["detail"], "the decision was a denial: there is no outcome to report");
        let unknown = json!("0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11");
        let answer = report(service, "caller", &unknown, &outcome).await.expect(404);
        assert_eq!(answer["detail"], "there is no such decision of this app");
        let answer = report(service, "caller", &json!("seven"), &outcome).await.expect(404);
        assert_eq!(answer["detail"], "a decision's identifier is a UUID");
        // A record that is no decision is none of the caller's business either.
        let genesis = service.get("/v1/audit/records/0", "auditor").await.expect(200);
        let answer = report(service, "caller", &genesis["entry"]["id"], &outcome).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        let decision = service.decide(&allowed()).await.expect(200);
        for (body, pointer) in [
            (json!({ "status": "fine" }), "/status"),
            (json!({ "status": "ok", "input_tokens": -1 }), "/input_tokens"),
            (json!({ "status": "ok", "tokens": 1 }), "/tokens"),
        ] {
            let answer = report(service, "caller", &decision["id"], &body).await.expect(422);
            assert_eq!(answer["errors"][0]["pointer"], pointer, "{answer}");
        }
    }
}
