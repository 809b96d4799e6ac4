//! How many people's data has left: counted by the ledger, exact after a crash, over several processes,
//! and whatever becomes of a call.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::{
    backend::Backend,
    harness::{Answer, Service, Setup, Store, both_stores, with_json},
};

/// A company in Shanghai with a device at home, a data centre at home, and a provider abroad.
const ORGANISATION: &str = r#"
[[tenants]]
id = "works"
domicile = "CN"
commercial = true
monthly_active_users = 0
monthly_revenue_usd = 0
annual_revenue_usd = 0
[[apps]]
id = "works"
tenant = "works"
location = "CN"
[[tenants]]
id = "branch"
domicile = "CN"
commercial = true
monthly_active_users = 0
monthly_revenue_usd = 0
annual_revenue_usd = 0
[[apps]]
id = "branch"
tenant = "branch"
location = "CN"
[[deployments]]
id = "home"
model = "mistral-small"
operator = "acme"
tier = "hybrid_gpu"
approved = true
process = ["CN"]
store = ["CN"]
[deployments.backend]
base_url = "http://127.0.0.1:9/v1"
model = "mistral-small"
[[deployments]]
id = "abroad"
model = "mistral-small"
operator = "acme"
tier = "remote"
approved = true
process = ["SG"]
store = ["SG"]
[deployments.backend]
base_url = "http://127.0.0.1:9/v1"
model = "mistral-small"
[[virtual_models]]
id = "either"
deployments = ["home", "abroad"]
"#;

fn setup(store: Store) -> Setup {
    // The apps must be there before their keys.
    let setup = Service::setup(store).organisation(ORGANISATION);
    setup.caller("works").caller("branch")
}

fn abroad(people: u64) -> Value {
    json!({
        "action": "infer", "deployment": "abroad", "purpose": "dpv:ServiceProvision",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["CN"],
                  "subject_count": people },
    })
}

async fn ask(service: &Service, app: &str, call: &Value) -> Value {
    service.post("/v1/decisions", app, call).await.expect(200)
}

async fn is_allowed(service: &Service, people: u64) -> bool {
    ask(service, "works", &abroad(people)).await["decision"] == "allow"
}

both_stores! {
    async fn a_threshold_is_reached_by_the_sum_of_what_left(store: Store) {
        let mut service = setup(store).start().await;
        assert!(is_allowed(&service, 60_000).await);
        let denied = ask(&service, "works", &abroad(40_000)).await;
        assert_eq!(denied["decision"], "deny", "exactly 100,000 with this call: {denied:#}");
        assert_eq!(denied["reached"], json!([{ "from": "CN", "thresholds": ["cn-contract-volume"] }]));
        assert_eq!(denied["reasons"][0]["policy"], "cn-pipl-38");
        // What was denied did not leave: it is not counted.
        assert!(is_allowed(&service, 39_998).await);
        let explained = service.post("/v1/explain", "works", &abroad(2)).await.expect(200);
        assert_eq!(explained["decision"], "deny", "asking changes nothing, and sees the count");
        // After a crash and in another process the count is the same.
        service.crash();
        service.start_again().await;
        assert!(!is_allowed(&service, 2).await);
        let second = service.second().await;
        assert!(is_allowed(&second, 1).await);
        assert!(!is_allowed(&service, 1).await, "99,999 have left");
        // Another tenant, another class, another origin, and what stays at home have their own.
        assert_eq!(ask(&service, "branch", &abroad(99_999)).await["decision"], "allow");
        let mut health = abroad(1);
        health["data"]["categories"] = json!(["dpv-pd:Health"]);
        let health = ask(&service, "works", &health).await;
        assert_eq!(health["decision"], "deny", "sensitive data needs a contract from the first");
        assert!(health.get("reached").is_none(), "{health:#}");
        let mut home = abroad(1_000_000);
        home["deployment"] = json!("home");
        assert_eq!(ask(&service, "works", &home).await["decision"], "allow");
        service.export_and_verify();
        replays(&service);
    }

    async fn racing_calls_do_not_pass_a_threshold_together(store: Store) {
        let service = setup(store).start().await;
        let second = service.second().await;
        let calls = (0..40).map(|n| is_allowed(if n % 2 == 0 { &service } else { &second }, 7_000));
        let allowed = join_all(calls).await.into_iter().filter(|allowed| *allowed).count();
        assert_eq!(allowed, 14, "14 × 7,000 < 100,000 ≤ 15 × 7,000");
        replays(&service);
    }

    async fn calls_of_one_batch_count_on_those_before_them(store: Store) {
        let service = setup(store).start().await;
        let calls = [40_000, 40_000, 40_000, 19_999, 1].map(abroad);
        let answer = service.post("/v1/decisions/batch", "works", &json!({ "calls": calls })).await;
        let answer = answer.expect(200);
        let decisions = answer["decisions"].as_array().unwrap().iter();
        let decisions: Vec<&str> = decisions.map(|one| one["decision"].as_str().unwrap()).collect();
        assert_eq!(decisions, ["allow", "allow", "deny", "allow", "deny"]);
        assert_eq!(service.records_of("decision").await.len(), 5, "each once");
    }

    async fn what_a_call_reserved_is_given_back_when_it_stayed(store: Store) {
        let home = Backend::polite().await;
        let service = setup(store).backend("home", &home.url).start().await;
        // The gateway may fall back to the provider abroad: 60,000 people are reserved, and given back.
        for _ in 0..2 {
            let answer = chat(&service, 60_000).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("x-lexgate-deployment"), Some("home"));
            settled(&service).await;
        }
        assert!(is_allowed(&service, 99_999).await, "nothing had left");
    }
}

#[tokio::test]
async fn a_count_that_was_changed_behind_the_ledger_s_back_is_found() {
    let service = setup(Store::Sqlite).start().await;
    assert!(is_allowed(&service, 99_999).await);
    let url = format!("sqlite://{}", service.site.path("data/lexgate.db").display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE volumes SET subjects = 0").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let wrong = ask(&service, "works", &abroad(1)).await;
    assert_eq!(wrong["decision"], "allow", "the service believes its index");
    let dir = crate::harness::TempDir::new();
    let dir = dir.path().to_str().unwrap();
    service.site.run_json(&["export", dir, "--json"]);
    let ran = service.site.run(&["verify", dir, "--key", &service.site.vkey, "--replay"]);
    let seq = &wrong["record"]["seq"];
    let finding = format!(
        "entry {seq}: says that it reached none; counted again, it reached CN cn-contract-volume"
    );
    assert!(ran.code == Some(1) && ran.stderr.contains(&finding), "{}", ran.stderr);
}

async fn chat(service: &Service, people: u64) -> Answer {
    let body = json!({
        "model": "either", "messages": [{ "role": "user", "content": "hello" }],
        "metadata": { "lexgate_subject_count": people.to_string() },
    });
    let request = with_json(service.request("POST", "/v1/chat/completions", "works"), &body);
    let claims = BTreeMap::from([
        ("personal", "true"),
        ("data", "dpv-pd:Contact"),
        ("subjects", "CN"),
        ("purpose", "dpv:ServiceProvision"),
    ]);
    let request = claims.iter().fold(request, |request, (name, value)| {
        request.header(format!("x-lexgate-{name}"), *value)
    });
    Answer::of(request).await
}

/// Waits until every call that was sent has its outcome.
async fn settled(service: &Service) {
    for _ in 0..100 {
        let sent = service.records_of("decision").await.len();
        if service.records_of("outcome").await.len() == sent {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a call has no outcome");
}

/// Every decision is judged again from the export, with the counts that it had.
pub(crate) fn replays(service: &Service) {
    let dir = crate::harness::TempDir::new();
    let dir = dir.path().to_str().unwrap();
    service.site.run_json(&["export", dir, "--json"]);
    let verify = ["verify", dir, "--key", &service.site.vkey, "--replay", "--json"];
    let report = service.site.run_json(&verify);
    assert_eq!(report["holds"], true, "{report}");
}
