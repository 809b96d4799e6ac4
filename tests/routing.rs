//! Where an allowed call goes: the organisation's order and strategies, what the gateway knows of each
//! deployment, and what it says of those that it passed over. Never outside the allowed set.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    backend::{Backend, Step, answer, chunk, completion, event, piece, stream, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store, both_stores},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];
const LAPTOP: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
const SINGAPORE: &str = "qwen3-32b@dashscope-sg";
/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9/v1";

fn chat(model: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": "Good morning"}] })
}

/// The example with these backends behind the deployments of `assistant`.
fn with(store: Store, laptop: &str, frankfurt: &str, singapore: &str) -> Setup {
    Service::setup(store)
        .backend(LAPTOP, laptop)
        .backend(FRANKFURT, frankfurt)
        .backend(SINGAPORE, singapore)
        .env("FRANKFURT_API_KEY", "k")
        .env("DASHSCOPE_API_KEY", "k")
}

fn served_by(answer: &Answer) -> String {
    answer.expect(200);
    answer.header("x-lexgate-deployment").expect("the answer names a deployment").to_owned()
}

fn reasons(outcome: &Value) -> BTreeMap<String, String> {
    let skipped = outcome["skipped"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    skipped.iter().map(|one| (text(&one["deployment"]), text(&one["reason"]))).collect()
}

fn attempts(outcome: &Value) -> Vec<String> {
    let attempts = outcome["attempts"].as_array().unwrap();
    attempts.iter().map(|one| one["deployment"].as_str().unwrap().to_owned()).collect()
}

fn busy(after: &str) -> Vec<Step> {
    answer("429 Too Many Requests", &format!("retry-after: {after}\r\n"), b"")
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The assessment without which the clauses of the example do not let personal data go from the EEA to
/// Singapore.
const ASSESSMENT: &str = r#"
[[instruments]]
id = "assessment"
kind = "eu-tia"
exporter = "acme"
recipient = "alibaba-cloud"
valid_from = "2026-01-01"
reference = "TIA of January"
"#;

both_stores! {
    /// The laptop and the pool in Frankfurt are down, Singapore is up and cheaper.
    async fn availability_buys_no_border_crossing_and_clauses_do(store: Store) {
        let singapore = Backend::polite().await;
        // The example's prices: Singapore takes half of what the hall in Frankfurt costs.
        let cheap = "\n[[virtual_models]]\nid = \"cheap\"\nstrategy = \"cheapest\"\n\
                     deployments = [\"mistral-small@dc-frankfurt\", \"qwen3-32b@dashscope-sg\"]\n";
        let setup = || with(store, NOWHERE, NOWHERE, &singapore.url).organisation(cheap);
        let service = setup().start().await;
        for model in ["assistant", "cheap"] {
            let answer = service.openai(CHAT, &GERMAN, &chat(model)).await;
            let error = answer.expect(503)["error"].clone();
            assert_eq!(error["code"], "upstream_down", "{error}");
            assert!(answer.header("retry-after").is_some());
        }
        assert!(singapore.seen().is_empty(), "a border was crossed");
        for outcome in outcomes(&service).await {
            let tried = [attempts(&outcome), reasons(&outcome).into_keys().collect()].concat();
            assert!(!tried.contains(&SINGAPORE.to_owned()), "{outcome}");
            assert!(tried.contains(&FRANKFURT.to_owned()), "{outcome}");
        }
        service.export_and_verify();

        // That it is cheaper decides where the law leaves a choice.
        let service = with(store, NOWHERE, &singapore.url, &singapore.url).organisation(cheap).start().await;
        assert_eq!(served_by(&service.openai(CHAT, &HARMLESS, &chat("cheap")).await), SINGAPORE);
        assert_eq!(served_by(&service.openai(CHAT, &GERMAN, &chat("cheap")).await), FRANKFURT);

        let service = setup().organisation(ASSESSMENT).start().await;
        let answer = service.openai(CHAT, &GERMAN, &chat("assistant")).await;
        assert_eq!(served_by(&answer), SINGAPORE);
        assert_eq!(served_by(&service.openai(CHAT, &GERMAN, &chat("cheap")).await), SINGAPORE);
        assert_eq!(answer.header("x-lexgate-jurisdictions"), Some("SG"));
        let record = &service.records_of("decision").await[0]["entry"]["body"];
        let kinds: Vec<_> =
            record["instruments"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        assert_eq!(kinds, ["assessment", "scc-acme-alibaba"], "{record}");
        let outcome = &outcomes(&service).await[0];
        assert_eq!(outcome["status"], "ok");
        let why = reasons(outcome);
        let mut tried = outcome["attempts"].as_array().unwrap().iter();
        let failed = tried.any(|one| one["deployment"] == FRANKFURT && one["failure"] == "unreachable");
        assert!(failed || why[FRANKFURT] == "unhealthy", "{outcome}");
    }

    async fn a_backend_that_is_another_than_the_catalogue_says_gets_no_call(store: Store) {
        let (laptop, frankfurt) = (Backend::polite().await, Backend::polite().await);
        let list = json!({ "object": "list", "data": [{ "id": "another-model", "object": "model", "owned_by": "vllm" }] });
        frankfurt.tell("/v1/models", &list);
        laptop.tell("/api/version", &json!({ "version": "0.12.6" }));
        laptop.tell("/api/tags", &json!({ "models": [{ "name": "smollm2-135m", "remote_host": "https://cloud.example", "remote_model": "big" }] }));
        let singapore = Backend::polite().await;
        let service = with(store, &laptop.url, &frankfurt.url, &singapore.url)
            .reached(FRANKFURT, "probe_interval = \"200ms\"")
            .start()
            .await;
        let answer = service.openai(CHAT, &HARMLESS, &chat("assistant")).await;
        assert_eq!(served_by(&answer), SINGAPORE);
        let answer = service.openai(CHAT, &HARMLESS, &chat(FRANKFURT)).await;
        assert_eq!(answer.expect(503)["error"]["code"], "upstream_down");
        let found = outcomes(&service).await;
        let want = BTreeMap::from([
            (LAPTOP.to_owned(), "out_of_service".to_owned()),
            (FRANKFURT.to_owned(), "out_of_service".to_owned()),
        ]);
        assert_eq!(reasons(&found[0]), want);
        assert!(laptop.seen().is_empty() && frankfurt.seen().is_empty());
        let log = service.stderr();
        assert!(log.contains("it serves `another-model`, not `mistral-small`"), "{log}");
        assert!(log.contains("runs at `https://cloud.example`, not here"), "{log}");
        let gauge = format!("lexgate_deployment_fit{{deployment=\"{FRANKFURT}\"}} 0");
        eventually("an operator sees it", async || {
            Answer::of(service.anonymous("GET", "/metrics")).await.text().contains(&gauge)
        })
        .await;

        // What it says of itself brings it back.
        frankfurt.tell("/v1/models", &json!({ "data": [{ "id": "mistral-small", "owned_by": "vllm" }] }));
        frankfurt.tell("/health", "");
        eventually("it is back in service", async || {
            service.openai(CHAT, &HARMLESS, &chat(FRANKFURT)).await.status == 200
        })
        .await;
    }

    async fn an_answer_of_another_model_is_no_answer(store: Store) {
        let another = || {
            let mut body = completion();
            body["model"] = json!("another-model");
            body
        };
        let laptop = Backend::start(move |_| whole(&another())).await;
        let frankfurt = Backend::start(move |seen| {
            assert_eq!(seen.json()["stream"], true);
            let first = json!({ "model": "another-model", "choices": [{ "index": 0, "delta": { "content": "x" } }] });
            stream(&[event(&first)])
        })
        .await;
        let singapore = Backend::start(|seen| match seen.json()["metadata"]["play"] == "turns" {
            true => {
                let turn = json!({ "model": "another-model", "choices": [{ "index": 0, "delta": { "content": "x" } }] });
                stream(&[chunk("one"), event(&turn), chunk("two"), "data: [DONE]\n\n".to_owned()])
            }
            false if seen.json()["stream"] == true => stream(&crate::backend::events()),
            false => whole(&completion()),
        })
        .await;
        let service = with(store, &laptop.url, &frankfurt.url, &singapore.url).start().await;
        let answer = service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await;
        assert_eq!(answer.expect(502)["error"]["type"], "upstream_error");
        let mut body = chat("assistant");
        body["stream"] = json!(true);
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-lexgate-deployment"), Some(SINGAPORE));
        assert!(!answer.text().contains("another-model"));
        body["metadata"] = json!({ "play": "turns" });
        let text = service.openai(CHAT, &HARMLESS, &body).await.text();
        assert!(!text.contains("another-model") && !text.contains("[DONE]"), "{text}");
        assert!(text.contains("upstream_error"), "{text}");
        let found = outcomes(&service).await;
        assert_eq!(found[0]["attempts"][0]["failure"], "wrong_model");
        assert_eq!(attempts(&found[1]), [LAPTOP, FRANKFURT, SINGAPORE]);
        assert_eq!(found[1]["attempts"][1]["failure"], "wrong_model");
        assert_eq!(found[2]["attempts"][2]["failure"], "wrong_model");
        // One caller's answers are a word to that caller only.
        assert!(!service.stderr().contains("taken out of service"), "{}", service.stderr());
    }

    async fn a_breaker_leaves_a_failing_backend_alone_and_lets_one_call_try(store: Store) {
        let works = Arc::new(AtomicUsize::new(0));
        let state = works.clone();
        let laptop = Backend::start(move |_| match state.load(Ordering::SeqCst) {
            0 => answer("404 Not Found", "", b""),
            1 => answer("500 Oops", "", b""),
            _ => whole(&completion()),
        })
        .await;
        let frankfurt = Backend::polite().await;
        let service = with(store, &laptop.url, &frankfurt.url, NOWHERE)
            .reached(LAPTOP, "breaker_failures = 2\nbreaker_cool_down = \"700ms\"")
            .start()
            .await;
        let call = async || served_by(&service.openai(CHAT, &HARMLESS, &chat("assistant")).await);
        // That it does not offer an API says nothing of how it is.
        for _ in 0..4 {
            assert_eq!(call().await, FRANKFURT);
        }
        works.store(1, Ordering::SeqCst);
        for _ in 0..5 {
            assert_eq!(call().await, FRANKFURT);
        }
        assert_eq!(laptop.seen().len(), 6, "two failures open it");
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(call().await, FRANKFURT);
        assert_eq!(call().await, FRANKFURT);
        assert_eq!(laptop.seen().len(), 7, "one call tries");
        works.store(2, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(call().await, LAPTOP);
        assert_eq!(call().await, LAPTOP);
        let found = outcomes(&service).await;
        assert_eq!(reasons(&found[7])[LAPTOP], "breaker_open");
        let decision = &service.records_of("decision").await[7]["entry"]["body"];
        assert_eq!(decision["route"]["deployment"], FRANKFURT, "the route is the first that is fit");
        assert_eq!(decision["candidates"][0]["deployment"], LAPTOP);
        service.export_and_verify();
    }

    async fn a_busy_backend_is_waited_for_only_briefly(store: Store) {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let laptop = Backend::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => busy("1"),
            1 | 3 => whole(&completion()),
            2 => answer("503 Service Unavailable", "retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", b""),
            _ => busy("60"),
        })
        .await;
        let service = with(store, &laptop.url, NOWHERE, NOWHERE).start().await;
        let started = Instant::now();
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not honoured");
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        let started = Instant::now();
        let answer = service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await;
        assert_eq!(answer.expect(429)["error"]["code"], "upstream_busy");
        assert_eq!(answer.header("retry-after"), Some("60"));
        assert!(started.elapsed() < Duration::from_secs(5), "a minute is the client's to wait");
        let answer = service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await;
        assert_eq!(answer.expect(429)["error"]["code"], "upstream_busy");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(laptop.seen().len(), 5, "it asked to be left alone");
        assert_eq!(reasons(&outcomes(&service).await[3])[LAPTOP], "busy");
    }

    async fn a_full_pool_spills_over_within_the_allowed_set(store: Store) {
        let (laptop, frankfurt, singapore) =
            (Backend::polite().await, Backend::polite().await, Backend::polite().await);
        frankfurt.tell("/metrics", "vllm:num_requests_waiting{model_name=\"m\"} 9.0\n");
        let pool = "\n[[virtual_models]]\nid = \"pool\"\ndeployments = [\"mistral-small@dc-frankfurt\", \"qwen3-32b@dashscope-sg\", \"smollm2@laptop\"]\n";
        let service = with(store, &laptop.url, &frankfurt.url, &singapore.url)
            .organisation(pool)
            .reached(FRANKFURT, "max_waiting = 4\nprobe_interval = \"100ms\"")
            .start()
            .await;
        let call = async |claims| served_by(&service.openai(CHAT, claims, &chat("pool")).await);
        assert_eq!(call(&HARMLESS[..]).await, SINGAPORE);
        assert_eq!(call(&GERMAN[..]).await, LAPTOP);
        assert_eq!(served_by(&service.openai(CHAT, &GERMAN, &chat(FRANKFURT)).await), FRANKFURT, "a full queue is better than none");
        frankfurt.tell("/metrics", "vllm:num_requests_waiting{model_name=\"m\"} 1.0\n");
        eventually("the pool has room", async || call(&HARMLESS[..]).await == FRANKFURT).await;
        let found = outcomes(&service).await;
        assert_eq!(reasons(&found[0]), BTreeMap::from([(FRANKFURT.to_owned(), "full".to_owned())]));
        assert_eq!(reasons(&found[1]), BTreeMap::from([(FRANKFURT.to_owned(), "full".to_owned())]));
    }

    async fn strategies_and_weights_choose_within_the_allowed_set(store: Store) {
        let slow = |time| move |_: &crate::backend::Seen| {
            let mut steps = vec![Step::Wait(Duration::from_millis(time))];
            steps.extend(whole(&completion()));
            steps
        };
        let (laptop, frankfurt) = (Backend::start(slow(3_000)).await, Backend::start(slow(400)).await);
        let singapore = Backend::polite().await;
        let all = "deployments = [\"smollm2@laptop\", \"mistral-small@dc-frankfurt\", \"qwen3-32b@dashscope-sg\"]";
        let models = format!(
            "\n[[virtual_models]]\nid = \"loaded\"\nstrategy = \"least_loaded\"\n{all}\n\
             [[virtual_models]]\nid = \"fast\"\nstrategy = \"fastest\"\n{all}\n\
             [[virtual_models]]\nid = \"moving\"\nweights = {{ \"mistral-small@dc-frankfurt\" = 1, \"qwen3-32b@dashscope-sg\" = 3 }}\n{all}\n"
        );
        let service = with(store, &laptop.url, &frankfurt.url, &singapore.url).organisation(&models).start().await;
        let call = async |claims, model| served_by(&service.openai(CHAT, claims, &chat(model)).await);
        let three = tokio::join!(
            call(&GERMAN[..], "loaded"),
            async {
                eventually("the laptop is asked", async || !laptop.seen().is_empty()).await;
                call(&GERMAN[..], "loaded").await
            },
        );
        assert_eq!(three, (LAPTOP.to_owned(), FRANKFURT.to_owned()));

        // Each that is allowed is measured once, then the fastest has it.
        for _ in 0..3 {
            call(&HARMLESS[..], "fast").await;
        }
        assert_eq!(call(&HARMLESS[..], "fast").await, SINGAPORE);
        assert_eq!(call(&GERMAN[..], "fast").await, FRANKFURT, "not the fastest, but allowed");

        let mut counts = BTreeMap::<String, usize>::new();
        for _ in 0..60 {
            *counts.entry(call(&HARMLESS[..], "moving").await).or_default() += 1;
        }
        assert!(!counts.contains_key(LAPTOP), "{counts:?}");
        assert!(counts[SINGAPORE] > counts[FRANKFURT], "{counts:?}");
        assert!(counts[FRANKFURT] >= 2, "{counts:?}");
        assert_eq!(call(&GERMAN[..], "moving").await, FRANKFURT);
    }

    async fn a_stored_response_is_not_asked_for_twice(store: Store) {
        let laptop = Backend::start(|_| vec![]).await;
        let frankfurt = Backend::polite().await;
        let service = with(store, &laptop.url, &frankfurt.url, NOWHERE)
            .reached(LAPTOP, "breaker_failures = 100")
            .start()
            .await;
        let mut body = json!({ "model": "assistant", "input": "Good morning" });
        service.openai("/v1/responses", &GERMAN, &body).await.expect(502);
        assert!(frankfurt.seen().is_empty(), "what may have begun was begun again");
        body["store"] = json!(false);
        let answer = service.openai("/v1/responses", &GERMAN, &body).await;
        assert_eq!(served_by(&answer), FRANKFURT);
        body["background"] = json!(true);
        let answer = service.openai("/v1/responses", &GERMAN, &body).await;
        assert_eq!(answer.expect(400)["error"]["param"], "background");
    }

    /// One that has done nothing with it is not asked again either, once another may have begun it.
    async fn what_another_may_have_begun_is_not_asked_for_again(store: Store) {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let laptop = Backend::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => answer("503 Service Unavailable", "", b""),
            _ => whole(&completion()),
        })
        .await;
        let frankfurt = Backend::start(|_| vec![]).await;
        let service = with(store, &laptop.url, &frankfurt.url, NOWHERE).start().await;
        let body = json!({ "model": "assistant", "input": "Good morning" });
        service.openai("/v1/responses", &GERMAN, &body).await.expect(502);
        assert_eq!((laptop.seen().len(), frankfurt.seen().len()), (1, 1));
    }

    async fn what_the_organisation_says_of_an_app_can_only_be_tightened(store: Store) {
        let laptop = Backend::polite().await;
        let claims = "location = \"DE\"\nhosted_for_end_users = false\n\
            [apps.claims]\nrequired = [\"purpose\"]\n\
            [apps.claims.defaults]\npersonal = true\ndata = [\"dpv-pd:Contact\"]\nsubjects = [\"DE\"]\nsubject_count = 2\n";
        let app = "id = \"support-copilot\"\ntenant = \"acme\"\n";
        let service = Service::setup(store)
            .backend(LAPTOP, &laptop.url)
            .organisation_with(
                &format!("{app}location = \"DE\"\nhosted_for_end_users = false\n"),
                &format!("{app}{claims}"),
            )
            .start()
            .await;
        let purpose = ("purpose", "dpv:ServiceProvision");
        service.openai(CHAT, &[purpose], &chat(LAPTOP)).await.expect(200);
        let more = [purpose, ("subjects", "FR,DE"), ("data", "dpv-pd:Contact,dpv-pd:Health"), ("subject-count", "5")];
        service.openai(CHAT, &more, &chat(LAPTOP)).await.expect(200);
        // How many alone is said of those whom the organisation names.
        let many = [purpose, ("subject-count", "500")];
        service.openai(CHAT, &many, &chat(LAPTOP)).await.expect(200);
        let decisions = service.records_of("decision").await;
        let data = |n: usize| decisions[n]["entry"]["body"]["call"]["data"].clone();
        assert_eq!(data(0), json!({ "categories": ["dpv-pd:Contact"], "location": null, "personal": true, "subject_count": 2, "subjects": ["DE"] }));
        assert_eq!(data(1)["subjects"], json!(["DE", "FR"]));
        assert_eq!(data(1)["subject_count"], 5);
        assert_eq!((&data(2)["subject_count"], &data(2)["subjects"]), (&json!(500), &json!(["DE"])));
        let less: [(&[(&str, &str)], &str); 6] = [
            (&[purpose, ("subject-count", "1")], "x-lexgate-subject-count"),
            (&[], "x-lexgate-purpose"),
            (&[purpose, ("personal", "false")], "x-lexgate-personal"),
            (&[purpose, ("subjects", "FR")], "x-lexgate-subjects"),
            (&[purpose, ("data", "dpv-pd:Health"), ("personal", "true")], "x-lexgate-data"),
            (&[purpose, ("subject-count", "1"), ("personal", "true")], "x-lexgate-subject-count"),
        ];
        for (claims, param) in less {
            let error = service.openai(CHAT, claims, &chat(LAPTOP)).await.expect(400)["error"].clone();
            assert_eq!(error["param"], param, "{error}");
            assert!(error["message"].as_str().unwrap().contains("[apps.claims]"), "{error}");
        }
        let call = json!({ "action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision",
            "data": { "personal": true, "subjects": ["FR"] } });
        let problem = service.decide(&call).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "/data/subjects", "{problem}");
        assert_eq!(laptop.seen().len(), 3);
        service.export_and_verify();
        let models = service.get("/v1/models", "caller").await.expect(200).to_string();
        assert!(models.contains("smollm2-135m") && !models.contains("payments"), "{models}");
    }

    async fn duties_come_with_the_answer_and_a_label_where_the_app_has_one(store: Store) {
        let laptop = Backend::polite().await;
        let service = Service::setup(store)
            .backend(LAPTOP, &laptop.url)
            .organisation_with("id = \"support-copilot\"\n", "id = \"support-copilot\"\nstream_label = \"[AI] \"\n")
            .start()
            .await;
        let answer = service.openai(CHAT, &GERMAN, &chat(LAPTOP)).await;
        let duties = answer.header("x-lexgate-duties").unwrap_or_default().to_owned();
        assert!(duties.split(',').any(|duty| duty == "eu-ai-act-50-notice"), "{duties}");
        assert_eq!(answer.expect(200), completion(), "an answer in one piece is left alone");
        let mut body = chat(LAPTOP);
        body["stream"] = json!(true);
        let text = service.openai(CHAT, &GERMAN, &body).await.text();
        let first: Value = serde_json::from_str(text.split("\n\n").next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "[AI] " }));
        assert_eq!(first["id"], "c");
        // Nobody in the Union meets this answer.
        let claims = [("data", "dpv-pd:Contact"), ("subjects", "SG"), ("audience", "SG"), ("location", "SG")];
        let answer = service.openai(CHAT, &claims, &body).await;
        assert!(!answer.text().contains("[AI]"));
    }

    async fn only_usable_models_are_listed(store: Store) {
        let service = Service::shared(store).await;
        let listed = service.get("/v1/models", "caller").await.expect(200);
        for row in listed["data"].as_array().unwrap() {
            let id = row["id"].as_str().unwrap();
            let found = service.get(&format!("/v1/models/{id}"), "caller").await.expect(200);
            assert_eq!(found, *row);
        }
        let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert!(ids.contains(&"assistant"), "{ids:?}");
        // Its licence is for research; the caller trades.
        assert!(!ids.contains(&"command-r"), "{ids:?}");
        service.get("/v1/models/smollm2@laptop", "caller").await.expect(200);
        let missing = service.get("/v1/models/gpt-9", "caller").await.expect(404);
        assert_eq!(missing["error"]["code"], "model_not_found");
    }

    async fn a_stream_whose_first_event_is_an_error_is_answered_by_another(store: Store) {
        let laptop = Backend::start(|seen| match seen.json()["metadata"]["play"].as_str() {
            Some("error") => stream(&[event(&json!({ "error": { "message": "no memory" } }))]),
            Some("garbage") => stream(&["data: \u{fffd}garbage\n\n".to_owned()]),
            Some("comments") => vec![stream_head(), piece(": one\n\n: two\n\n"), Step::Hang],
            _ => whole(&json!({ "error": { "message": "no memory" }, "object": "error" })),
        })
        .await;
        let frankfurt = Backend::polite().await;
        let service = with(store, &laptop.url, &frankfurt.url, NOWHERE)
            .reached(LAPTOP, "breaker_failures = 100\nfirst_byte_timeout = \"300ms\"")
            .start()
            .await;
        let want = [("error", "error_in_answer"), ("garbage", "bad_answer"), ("comments", "timeout"), ("whole", "error_in_answer")];
        for (scenario, _) in want {
            let mut body = chat("assistant");
            body["metadata"] = json!({ "play": scenario });
            body["stream"] = json!(scenario != "whole");
            let answer = service.openai(CHAT, &GERMAN, &body).await;
            assert_eq!(answer.header("x-lexgate-deployment"), Some(FRANKFURT), "{scenario}");
        }
        for (outcome, (scenario, failure)) in outcomes(&service).await.iter().zip(want) {
            assert_eq!(outcome["status"], "ok");
            assert_eq!(outcome["attempts"][0]["failure"], failure, "{scenario}");
            assert_eq!(attempts(outcome), [LAPTOP, FRANKFURT]);
        }
    }
}
