//! Limits: what an app and its tenant may use, counted in the store that replicas share, and told in the
//! headers that SDKs read.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Step, chunk, completion, piece, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store, both_stores, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const LAPTOP: &str = "smollm2@laptop";

fn chat() -> Value {
    json!({ "model": LAPTOP, "messages": [{"role": "user", "content": "Good morning"}] })
}

/// The example, whose first app and first tenant have these limits.
fn limited(store: Store, backend: &Backend, app: &str, tenant: &str) -> Setup {
    let (app_row, tenant_row) = ("id = \"support-copilot\"\n", "id = \"acme\"\n");
    let setup = Service::setup(store).backend(LAPTOP, &backend.url);
    let with = |row: &str, limits: &str| format!("{row}{limits}\n");
    setup
        .organisation_with(app_row, &with(app_row, app))
        .organisation_with(tenant_row, &with(tenant_row, tenant))
}

async fn call(service: &Service) -> Answer {
    service.openai(CHAT, &HARMLESS, &chat()).await
}

fn refused(answer: &Answer, kind: &str, words: &str) {
    let error = answer.expect(429)["error"].clone();
    assert_eq!(error["type"], kind, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with(words), "{message}");
    assert!(answer.header("retry-after").is_some());
}

both_stores! {
    async fn requests_are_counted_by_all_replicas_together(store: Store) {
        let backend = Backend::polite().await;
        let service = limited(store, &backend, "limits.requests.month = 4", "").start().await;
        let other = service.second().await;
        for (round, service) in [&service, &other, &service].into_iter().enumerate() {
            let answer = call(service).await;
            answer.expect(200);
            assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("4"));
            let left = (3 - round).to_string();
            assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left.as_str()));
            assert!(answer.header("x-ratelimit-reset-requests").is_some());
        }
        // One that the law denies is a request like any other.
        let german = [("data", "dpv-pd:Contact"), ("subjects", "DE")];
        let denied = json!({ "model": "qwen3-32b@dashscope-sg", "messages": [] });
        other.openai(CHAT, &german, &denied).await.expect(403);
        for service in [&service, &other] {
            let answer = call(service).await;
            refused(&answer, "requests", "app `support-copilot` may use 4 requests a month");
            assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
            assert_eq!(answer.header("x-should-retry"), Some("false"), "a month is not waited for");
        }
        assert_eq!(backend.seen().len(), 3);
        assert_eq!(service.records_of("decision").await.len(), 4, "what was not judged is not recorded");
        // Decisions for callers that run inference themselves are requests too.
        let decision = service.decide(&json!({ "action": "infer", "model": LAPTOP })).await;
        assert_eq!(decision.expect(429)["type"], "urn:lexgate:problem:limit-reached");
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        assert!(metrics.contains("lexgate_limited_total{measure=\"requests\"} 2"), "{metrics}");
        // What was counted is not forgotten with the process.
        drop(other);
        let mut service = service;
        service.crash();
        service.start_again().await;
        refused(&call(&service).await, "requests", "app `support-copilot`");
        service.export_and_verify();
    }

    async fn tokens_are_counted_for_the_tenant_and_told(store: Store) {
        let backend = Backend::polite().await;
        let service = limited(store, &backend, "limits.tokens.day = 1000", "limits.tokens.day = 36").start().await;
        let answer = call(&service).await;
        answer.expect(200);
        // The tighter of the two.
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("36"));
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("36"));
        let mut body = chat();
        body["stream"] = json!(true);
        service.openai(CHAT, &HARMLESS, &body).await;
        assert_eq!(outcomes(&service).await.len(), 2);
        refused(&call(&service).await, "tokens", "tenant `acme` may use 36 tokens a day");
        // Anthropic's names for its own API.
        let message = json!({ "model": LAPTOP, "max_tokens": 4, "messages": [] });
        let answer = service.openai("/v1/messages", &HARMLESS, &message).await;
        assert_eq!(answer.expect(429)["error"]["type"], "rate_limit_error");
        assert_eq!(answer.header("anthropic-ratelimit-tokens-remaining"), Some("0"));
        assert!(answer.header("anthropic-ratelimit-tokens-reset").unwrap().ends_with("T00:00:00Z"));
    }

    async fn who_hangs_up_before_the_tokens_are_counted_has_used_them(store: Store) {
        let backend = Backend::start(|_| {
            let chunks = (0..40).map(|_| piece(chunk("more")));
            std::iter::once(stream_head()).chain(chunks).chain([Step::Hang]).collect()
        })
        .await;
        let service = limited(store, &backend, "limits.tokens.day = 40", "").start().await;
        let mut body = chat();
        body["stream"] = json!(true);
        let request = with_json(service.request("POST", CHAT, "caller"), &body);
        let mut answer = request.header("x-lexgate-personal", "false").send().await.unwrap();
        let mut read = 0;
        while read < 30 * chunk("more").len() {
            read += answer.chunk().await.unwrap().unwrap().len();
        }
        drop(answer);
        let found = outcomes(&service).await;
        assert_eq!(found[0]["status"], "client_disconnected");
        assert_eq!(found[0]["tokens"], json!({ "input": null, "output": null }), "the record does not guess");
        refused(&call(&service).await, "tokens", "app `support-copilot` may use 40 tokens a day");
    }

    async fn money_is_counted_exactly(store: Store) {
        let backend = Backend::polite().await;
        let prices = "\n[[prices]]\ndeployment = \"smollm2@laptop\"\ncurrency = \"USD\"\n\
            input_per_million = \"0.15\"\noutput_per_million = \"0.6\"\n\
            valid_from = \"2026-01-01\"\nreference = \"price list of January\"\n";
        // Three calls cost 0.00001755; two would not reach it.
        let limit = "limits.money = { currency = \"USD\", month = \"0.0000175500\" }";
        let service = limited(store, &backend, limit, "").organisation(prices).start().await;
        for _ in 0..3 {
            call(&service).await.expect(200);
            outcomes(&service).await;
        }
        let found = outcomes(&service).await;
        assert_eq!(found[0]["cost"], json!({ "amount": "0.00000585", "currency": "USD" }));
        let answer = call(&service).await;
        refused(&answer, "insufficient_quota", "app `support-copilot` may use 0.00001755 USD a month");
        assert_eq!(answer.json()["error"]["code"], "insufficient_quota");
        service.export_and_verify();
    }

    async fn calls_under_way_are_limited_and_make_room_when_they_end(store: Store) {
        let slow = |_: &crate::backend::Seen| {
            let mut steps = vec![Step::Wait(Duration::from_millis(1_500))];
            steps.extend(whole(&completion()));
            steps
        };
        let backend = Backend::start(slow).await;
        let service = limited(store, &backend, "limits.concurrent = 2", "").start().await;
        let other = service.second().await;
        let late = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            call(&other).await
        };
        let (one, two, three) = tokio::join!(call(&service), call(&other), late);
        one.expect(200);
        two.expect(200);
        refused(&three, "requests", "app `support-copilot` may have 2 calls at once");
        assert_eq!(three.header("retry-after"), Some("1"));
        // One after the other is one at a time, however fast.
        for _ in 0..3 {
            call(&service).await.expect(200);
        }
        // What a process left open when it died is closed, and counts no more.
        drop(other);
        let mut service = service;
        let request = with_json(service.request("POST", CHAT, "caller"), &chat());
        let request = request.header("x-lexgate-personal", "false").timeout(Duration::from_millis(500));
        assert!(request.send().await.is_err());
        service.crash();
        service.start_again().await;
        for _ in 0..3 {
            call(&service).await.expect(200);
        }
        outcomes(&service).await;
    }
}

#[tokio::test]
async fn sqlite_limits_and_prices_that_cannot_be_meant_are_refused() {
    let backend = Backend::polite().await;
    let cases = [
        ("limits.requests.minute = 0", "", "a limit of 0 lets no call through"),
        ("limits.money = { currency = \"euro\", day = \"1\" }", "", "`euro` is not a currency"),
        ("limits.money = { currency = \"USD\", day = \"1e3\" }", "", "`1e3` is not an amount"),
        ("limits.requests.week = 1", "", "unknown field `week`"),
        (
            "limits.money = { currency = \"EUR\", day = \"1\" }",
            "",
            "the limit is in EUR, but `qwen3-32b@dashscope-sg` has a price in USD",
        ),
        ("", &[PRICE, PRICE].concat(), "`smollm2@laptop` has two prices at one time"),
    ];
    for (limits, prices, words) in cases {
        let site =
            limited(Store::Sqlite, &backend, limits, "").organisation(prices).prepare().await;
        let ran = site.run(&["policies", "check"]);
        assert_ne!(ran.code, Some(0), "{limits}{prices}");
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

const PRICE: &str = "\n[[prices]]\ndeployment = \"smollm2@laptop\"\ncurrency = \"USD\"\n\
    input_per_million = \"0.15\"\noutput_per_million = \"0.6\"\n\
    valid_from = \"2026-01-01\"\nreference = \"price list\"\n";
