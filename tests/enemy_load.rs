//! Callers who ask for much: explanations, decisions, readings, a full disk. None of them is heavy for the
//! others.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::harness::{Answer, Service, Store, both_stores, with_json};

const LAPTOP: &str = "smollm2@laptop";
const APP: &str = "id = \"support-copilot\"\n";
/// How long a busy machine may take for what is done at once.
const PATIENCE: Duration = Duration::from_secs(60);

fn harmless() -> Value {
    json!({ "action": "infer", "model": LAPTOP, "data": { "personal": false, "categories": [] } })
}

/// A call that many laws forbid, for people of many places.
fn hard(subjects: &[&str]) -> Value {
    json!({
        "action": "fine_tune", "model": "everything", "purpose": "dpv:Marketing", "location": "DE",
        "data": { "personal": true, "categories": ["dpv-pd:Health"], "subjects": subjects },
    })
}

const PLACES: [&str; 64] = [
    "AD", "AE", "AF", "AG", "AL", "AM", "AO", "AR", "AT", "AU", "AZ", "BA", "BB", "BD", "BE", "BF",
    "BG", "BH", "BI", "BJ", "BN", "BO", "BR", "BS", "BT", "BW", "BY", "BZ", "CA", "CD", "CF", "CG",
    "CH", "CI", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO",
    "DZ", "EC", "EE", "EG", "ER", "ES", "ET", "FI", "FJ", "FM", "FR", "GA", "GB", "GD", "GE", "GH",
];

const EVERYTHING: &str = "[[virtual_models]]\nid = \"everything\"\ndeployments = [\n\
    \"qwen3-32b@dashscope-sg\", \"qwen3-32b@dashscope-global\", \"qwen3-32b@dashscope-beijing\",\n\
    \"qwen3-32b@meridian-sg\", \"qwen3-32b@meridian-in\", \"llama-3.3-70b@northwind-us\",\n\
    \"mistral-large@mistral-global\", \"hunyuan@dc-singapore\",\n]\n";

both_stores! {
    async fn decisions_are_held_to_the_limit_of_requests(store: Store) {
        let limits = "id = \"support-copilot\"\nlimits.requests.month = 6\n";
        let service = Service::setup(store).organisation_with(APP, limits).start().await;
        let answer = service.decide(&harmless()).await;
        answer.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("6"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("5"));
        // The same answer given again is no other request.
        let keyed = || {
            let request = with_json(service.request("POST", "/v1/decisions", "caller"), &harmless());
            Answer::of(request.header("idempotency-key", "once"))
        };
        let first = keyed().await.expect(200);
        assert_eq!(keyed().await.expect(200)["record"], first["record"]);
        // Each call of a batch counts: all of them, or none.
        let batch = |calls: usize| {
            let calls: Vec<_> = (0..calls).map(|_| harmless()).collect();
            json!({ "calls": calls })
        };
        let refused = |answer: &Answer| {
            let problem = answer.expect(429);
            assert_eq!(problem["type"], "urn:lexgate:problem:limit-reached");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with("app `support-copilot` may use 6 requests a month"), "{detail}");
            assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("6"));
            assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        };
        let path = "/v1/decisions/batch";
        refused(&service.post(path, "caller", &batch(5)).await);
        assert_eq!(service.records_of("decision").await.len(), 2, "nothing of it is recorded");
        service.post(path, "caller", &batch(3)).await.expect(200);
        let other = service.second().await;
        other.decide(&harmless()).await.expect(200);
        refused(&other.decide(&harmless()).await);
        refused(&service.post(path, "caller", &batch(1)).await);
        assert_eq!(keyed().await.expect(200)["record"], first["record"]);
        assert_eq!(service.records_of("decision").await.len(), 6);
        service.export_and_verify();
    }

    async fn an_auditor_reads_so_often_in_a_minute_and_no_more(store: Store) {
        let service = Service::setup(store)
            .env("LEXGATE_LEDGER__READINGS_PER_MINUTE", "3")
            .start()
            .await;
        let mut allowed = 0;
        // Another minute may begin meanwhile.
        let refused = loop {
            let answer = service.get("/v1/audit/records?limit=1", "auditor").await;
            if answer.status == 429 {
                break answer;
            }
            answer.expect(200);
            allowed += 1;
            assert!(allowed <= 30, "nothing limits it");
        };
        assert!(allowed >= 3);
        let problem = refused.expect(429);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("may use 3 requests a minute"), "{detail}");
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
        // Callers have limits of their own.
        service.decide(&harmless()).await.expect(200);
    }

    async fn who_wants_much_explained_holds_up_nobody_else(store: Store) {
        let service = Service::setup(store).organisation(EVERYTHING).start().await;
        service.decide(&harmless()).await.expect(200);
        let mut floods = JoinSet::new();
        for _ in 0..12 {
            let call = hard(&PLACES[..8]);
            let request = with_json(service.request("POST", "/v1/explain", "caller"), &call);
            floods.spawn(Answer::of(request));
        }
        let started = Instant::now();
        for _ in 0..5 {
            timeout(PATIENCE, service.decide(&harmless())).await.expect("in time").expect(200);
        }
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(20), "five decisions took {elapsed:?}");
        let answers = floods.join_all().await;
        let explained: Vec<_> = answers.iter().filter(|one| one.status == 200).collect();
        assert!(!explained.is_empty());
        for answer in &explained {
            // What was not looked for is not said to be impossible.
            let body = answer.json();
            let cut = body["cut_short"] == true;
            let parts = body["would_pass"].as_array().unwrap();
            assert!(cut || parts.iter().all(|part| part["cut_short"].is_null()), "{body}");
        }
        for answer in answers.iter().filter(|one| one.status != 200) {
            assert_eq!(answer.expect(503)["type"], "urn:lexgate:problem:overloaded");
            assert!(answer.header("retry-after").is_some());
        }
    }

    async fn nothing_is_explained_to_who_has_left(store: Store) {
        let service = Service::setup(store).organisation(EVERYTHING).start().await;
        for _ in 0..6 {
            let call = hard(&PLACES[..8]);
            let request = with_json(service.request("POST", "/v1/explain", "caller"), &call);
            let _ = timeout(Duration::from_millis(200), request.send()).await;
        }
        let simple = json!({ "action": "infer", "model": LAPTOP });
        let until = Instant::now() + PATIENCE;
        // The places of those who left are free again, long before their time would have been over.
        while service.post("/v1/explain", "caller", &simple).await.status != 200 {
            assert!(Instant::now() < until, "somebody who left is still explained to");
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_almost_full_is_kept_for_what_closes_calls() {
    let service = Service::start(Store::Sqlite).await;
    let decided = service.decide(&harmless()).await.expect(200);
    let id = decided["id"].as_str().unwrap();
    let floor = [("LEXGATE_STORE__MIN_FREE", "4000TiB")];
    let low = Service::on_with(service.site.clone(), &floor).await;
    let answer = low.decide(&harmless()).await;
    assert_eq!(answer.expect(503)["type"], "urn:lexgate:problem:storage-low");
    let chat = json!({ "model": LAPTOP, "messages": [] });
    let refused = low.openai("/v1/chat/completions", &[("personal", "false")], &chat).await;
    assert_eq!(refused.expect(503)["error"]["code"], "storage-low");
    low.get("/v1/audit/records", "auditor").await.expect(503);
    let ready = Answer::of(low.anonymous("GET", "/readyz")).await;
    assert!(ready.expect(503)["detail"].as_str().unwrap().contains("min_free"), "{}", ready.text());
    // A call that was allowed comes to its end.
    let report = json!({ "status": "ok" });
    low.post(&format!("/v1/decisions/{id}/outcome"), "caller", &report).await.expect(200);
    drop(low);
    assert_eq!(service.records_of("decision").await.len(), 1);
    assert_eq!(service.records_of("outcome").await.len(), 1);
}

#[tokio::test]
async fn a_call_whose_record_is_too_long_is_told_which_field_makes_it_so() {
    let service = Service::setup(Store::Sqlite).organisation(EVERYTHING).start().await;
    let problem = service.decide(&hard(&PLACES)).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/data/subjects", "{problem}");
    let detail = problem["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("names 64 subjects: split the call"), "{detail}");
    assert!(detail.contains("name one `deployment`"), "{detail}");
    let batch = json!({ "calls": [harmless(), hard(&PLACES)] });
    let problem = service.post("/v1/decisions/batch", "caller", &batch).await.expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/calls/1/data/subjects", "{problem}");
    // What it says to do helps.
    for part in PLACES.chunks(8) {
        let mut call = hard(part);
        call.as_object_mut().unwrap().remove("model");
        call["deployment"] = json!("qwen3-32b@dashscope-sg");
        service.decide(&call).await.expect(200);
    }
}
