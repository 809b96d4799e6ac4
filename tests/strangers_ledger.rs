//! Questions to the ledger as strangers ask them: names that are misspelt, the newest first, all about one
//! call, and words that no version before this one kept beside a record.

use serde_json::{Value, json};

use crate::harness::{Service, Store, both_stores, with_json};

/// A German patient's data, asked about at a deployment in Singapore: a denial.
fn german() -> Value {
    json!({
        "action": "infer", "deployment": "qwen3-32b@dashscope-sg", "purpose": "dpv:CustomerCare",
        "data": { "personal": true, "categories": ["dpv-pd:Health"], "subjects": ["DE"] },
    })
}

fn harmless() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

async fn list(service: &Service, query: &str, key: &str) -> Value {
    service.get(&format!("/v1/audit/records?{query}"), key).await.expect(200)
}

fn seqs(page: &Value) -> Vec<u64> {
    let records = page["records"].as_array().unwrap().iter();
    records.map(|record| record["seq"].as_u64().unwrap()).collect()
}

/// Each misspelt name, and what its refusal says.
const SLIPS: &[(&str, &str, &str)] = &[
    ("category", "Health", "did you mean `dpv-pd:Health`?"),
    ("category", "dpv-pd:Helth", "did you mean `dpv-pd:Health`?"),
    ("jurisdiction", "EU", "is a zone: name one of its jurisdictions, such as `AT`"),
    ("jurisdiction", "Germany", "did you mean `DE` (Germany)?"),
    ("jurisdiction", "de", "did you mean `DE`?"),
    ("origin", "Singapur", "did you mean `SG` (Singapore)?"),
    ("destination", "EEA", "is a zone"),
    ("origin", "US-CA", "records name only its country: write `US`"),
    ("jurisdiction", "US-CA", "write `US`"),
    ("destination", "XX", "want an ISO 3166 code"),
    ("policy", "eu-gdpr-45", "did you mean `eu-gdpr-44`?"),
    ("app", "suport-copilot", "did you mean `support-copilot`?"),
    ("tenant", "acme-gmbhh", "did you mean `acme-gmbh`?"),
    ("model", "assistent", "did you mean `assistant`?"),
    ("deployment", "qwen3-32b@dashscope_sg", "did you mean `qwen3-32b@dashscope-sg`?"),
    ("purpose", "customer care", "did you mean `dpv:CustomerCare`?"),
    ("instrument", "eu_scc", "did you mean `eu-scc`?"),
    ("key", "auditer", "did you mean `auditor`?"),
    ("kind", "decisions", "did you mean `decision`?"),
    ("kind", "nope", "want one of `genesis`, `decision`, `outcome`"),
    ("app", "%00", "neither the active snapshot nor any record has the app"),
];

both_stores! {
    async fn a_name_that_nothing_knows_is_refused_with_what_was_meant(store: Store) {
        let service = Service::shared(store).await;
        for (of, name, says) in SLIPS {
            for path in ["/v1/audit/records", "/v1/audit/export"] {
                let query = format!("{path}?{of}={}", name.replace(' ', "%20"));
                let problem = service.get(&query, "auditor").await.expect(400);
                let fault = &problem["errors"][0];
                assert_eq!(fault["parameter"], *of, "{problem}");
                assert!(fault["detail"].as_str().unwrap().contains(says), "{query}: {problem}");
            }
        }
        // Two slips are two faults.
        let two = service.get("/v1/audit/records?app=x&policy=y&kind=decision", "auditor").await;
        assert_eq!(two.expect(400)["errors"].as_array().unwrap().len(), 2);
        // A hold on nothing would let everything go.
        let hold = json!({ "reason": "a case", "records": { "category": "Health" } });
        let request = with_json(service.request("PUT", "/v1/legal-holds/case-17", "officer"), &hold);
        let problem = crate::harness::Answer::of(request).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "/records/category", "{problem}");
        // What is known and was never asked for is an empty page, not a slip.
        for query in ["category=dpv-pd:Contact", "policy=us-doj-202", "jurisdiction=NZ", "kind=erasure"] {
            list(service, query, "auditor").await;
        }
    }

    async fn a_name_that_only_the_log_knows_is_known(store: Store) {
        let mut service = Service::start(store).await;
        let decided = service.decide(&harmless()).await.expect(200);
        let seq = decided["record"]["seq"].as_u64().unwrap();
        service.site.replace("config/organisation.toml", "id = \"assistant\"", "id = \"helper\"");
        service.restart().await;
        assert_eq!(seqs(&list(&service, "model=assistant", "auditor").await), [seq]);
        let problem = service.get("/v1/audit/records?model=asistant", "auditor").await.expect(400);
        let said = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(said.contains("has the model `asistant`"), "{said}");
    }

    async fn the_newest_come_first_and_pages_hold_while_others_write(store: Store) {
        let service = Service::start(store).await;
        for _ in 0..7 {
            service.decide(&harmless()).await.expect(200);
        }
        let all = seqs(&list(&service, "kind=decision", "auditor").await);
        assert!(all.is_sorted() && all.len() == 7);
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let query = format!("kind=decision&order=desc&limit=3{after}");
            let page = list(&service, &query, "auditor").await;
            found.extend(seqs(&page));
            // What is written meanwhile is newer than every page that is still to come.
            service.decide(&harmless()).await.expect(200);
            let Some(next) = page.get("next") else { break };
            after = format!("&after={}", next.as_str().unwrap());
        }
        assert_eq!(found, all.iter().rev().copied().collect::<Vec<_>>());
        let ascending = format!("/v1/audit/records?kind=decision{after}");
        let problem = service.get(&ascending, "auditor").await.expect(400);
        assert_eq!(problem["errors"][0]["parameter"], "after", "a cursor belongs to its order");
        service.get("/v1/audit/records?order=newest", "auditor").await.expect(400);
        let path = "/v1/audit/export?kind=decision&order=desc";
        let text = service.get(path, "auditor").await.text();
        let exported: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect();
        assert!(exported.is_sorted_by(|a, b| a > b) && exported.len() == 10, "{exported:?}");
    }

    async fn a_record_is_found_by_what_it_was_about(store: Store) {
        let service = Service::start(store).await;
        let denied = service.decide(&german()).await.expect(200);
        let allowed = service.decide(&harmless()).await.expect(200);
        let id = allowed["id"].as_str().unwrap();
        let path = format!("/v1/decisions/{id}/outcome");
        let outcome = service.post(&path, "caller", &json!({ "status": "ok" })).await.expect(200);
        let seq = |answer: &Value| answer["record"]["seq"].as_u64().unwrap();
        let (denied, allowed) = (seq(&denied), seq(&allowed));
        let outcome = outcome["seq"].as_u64().unwrap();
        for (query, expected) in [
            (format!("id={id}"), vec![allowed, outcome]),
            (format!("id={id}&kind=outcome"), vec![outcome]),
            (format!("id={id}&decision=deny"), vec![]),
            ("id=0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11".to_owned(), vec![]),
            ("origin=DE".to_owned(), vec![denied]),
            ("origin=SG".to_owned(), vec![]),
            ("destination=SG&decision=deny".to_owned(), vec![denied]),
            ("purpose=dpv:CustomerCare".to_owned(), vec![denied]),
            ("purpose=dpv:CustomerCare&origin=DE&destination=CN".to_owned(), vec![denied]),
            ("key=support-copilot&kind=decision".to_owned(), vec![denied, allowed]),
            ("key=support-copilot&kind=outcome".to_owned(), vec![outcome]),
        ] {
            assert_eq!(seqs(&list(&service, &query, "auditor").await), expected, "{query}");
        }
        service.get("/v1/audit/records?id=42", "auditor").await.expect(400);
        // Readings are found by who read.
        let readings = list(&service, "key=auditor&kind=audit_read&limit=1000", "auditor").await;
        assert!(seqs(&readings).len() >= 11);
        service.export_and_verify();
    }

    async fn a_limited_auditor_learns_no_names(store: Store) {
        let service = Service::setup(store)
            .caller("ward-notes")
            .key("sdaia", &["--role", "auditor", "--jurisdiction", "SA"])
            .start()
            .await;
        service.decide(&harmless()).await.expect(200);
        let people = json!({ "personal": true, "categories": ["dpv-pd:Health"], "subjects": ["SA"] });
        let call = json!({ "action": "infer", "model": "ward-notes-model", "data": people });
        let saudi = service.post("/v1/decisions", "ward-notes", &call).await.expect(200);
        let seq = saudi["record"]["seq"].as_u64().unwrap();
        assert_eq!(seqs(&list(&service, "app=ward-notes", "sdaia").await), [seq]);
        // An app that is there, one that is not, and one that is nearly there read alike.
        for name in ["support-copilot", "no-such-app", "suport-copilot"] {
            let path = format!("/v1/audit/records?app={name}");
            let problem = service.get(&path, "sdaia").await.expect(400);
            let says = "nothing that this API key may read has the app";
            assert_eq!(problem["errors"][0]["detail"], format!("{says} `{name}`"));
        }
        let path = "/v1/audit/records?category=Health";
        let problem = service.get(path, "sdaia").await.expect(400);
        let said = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(said.ends_with("did you mean `dpv-pd:Health`?"), "{said}");
    }
}
