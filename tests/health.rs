//! What the gateway knows of how a deployment is: what it says of itself, how its answers end, and what
//! another snapshot says of it.

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
    backend::{Backend, Step, answer, chunk, completion, piece, stream_end, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store, both_stores},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const LAPTOP: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
const SINGAPORE: &str = "qwen3-32b@dashscope-sg";
const NIM: &str = "nemotron@nim-osaka";
const OFTEN: &str = "probe_interval = \"100ms\"";

fn chat(model: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": "Good morning"}] })
}

fn served_by(answer: &Answer) -> Option<&str> {
    answer.header("x-lexgate-deployment")
}

fn skipped(outcome: &Value) -> BTreeMap<String, String> {
    let skipped = outcome["skipped"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    skipped.iter().map(|one| (text(&one["deployment"]), text(&one["reason"]))).collect()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The example with these backends behind three deployments, which are asked often how they are.
fn with(laptop: &Backend, frankfurt: &Backend, singapore: &Backend, store: Store) -> Setup {
    Service::setup(store)
        .backend(LAPTOP, &laptop.url)
        .reached(LAPTOP, OFTEN)
        .backend(FRANKFURT, &frankfurt.url)
        .reached(FRANKFURT, OFTEN)
        .backend(SINGAPORE, &singapore.url)
        .env("FRANKFURT_API_KEY", "k")
        .env("DASHSCOPE_API_KEY", "k")
}

#[tokio::test]
async fn sqlite_what_a_backend_said_of_itself_only_it_takes_back() {
    let laptop = Backend::polite().await;
    let tags =
        |host: Option<&str>| json!({ "models": [{ "name": "smollm2-135m", "remote_host": host }] });
    laptop.tell("/api/version", &json!({ "version": "0.12.6" }));
    laptop.tell("/api/tags", &tags(Some("https://cloud.example")));
    let service = Service::setup(Store::Sqlite)
        .backend(LAPTOP, &laptop.url)
        .reached(LAPTOP, OFTEN)
        .start()
        .await;
    let call = async || service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.status;
    assert_eq!(call().await, 503);
    // It does not answer that question any more, nor any other: that is no other answer.
    for (path, status) in [
        ("/api/tags", "500 Internal Server Error"),
        ("/api/version", "504 Gateway Timeout"),
        ("/v1/models", "404 Not Found"),
    ] {
        laptop.refuse(path, status);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(call().await, 503, "{path}");
    }
    assert!(laptop.seen().is_empty(), "a cloud model was sent a call");
    laptop.tell("/api/version", &json!({ "version": "0.12.6" }));
    laptop.tell("/api/tags", &tags(None));
    eventually("it says that it runs here", async || call().await == 200).await;
    // Another software has another word.
    laptop.tell("/api/tags", &tags(Some("https://cloud.example")));
    eventually("it is out again", async || call().await == 503).await;
    laptop.refuse("/api/version", "404 Not Found");
    laptop.tell("/health", "");
    let list = json!({ "data": [{ "id": "smollm2-135m", "owned_by": "llamacpp" }] });
    laptop.tell("/v1/models", &list);
    eventually("it is llama.cpp now", async || call().await == 200).await;
}

#[tokio::test]
async fn sqlite_nim_is_asked_for_its_licence_its_health_and_its_queue() {
    let (nim, laptop) = (Backend::polite().await, Backend::polite().await);
    let licence = |text: &str| json!({ "name": "LICENSE", "content": text });
    nim.tell("/v1/models", &json!({ "data": [{ "id": "nemotron", "owned_by": "system" }] }));
    nim.tell(
        "/v1/metadata",
        &json!({ "modelInfo": [{ "shortName": "nemotron:hf-1", "modelUrl": "ngc://nim/nvidia/nemotron:hf-1" }] }),
    );
    nim.tell("/v1/license", &licence("Licensed under the Apache License, Version 2.0"));
    nim.tell("/v1/health/ready", "");
    let pool =
        format!("\n[[virtual_models]]\nid = \"pool\"\ndeployments = [\"{NIM}\", \"{LAPTOP}\"]\n");
    let service = Service::setup(Store::Sqlite)
        .backend(LAPTOP, &laptop.url)
        .backend(NIM, &nim.url)
        .reached(NIM, &format!("{OFTEN}\nmax_waiting = 4"))
        .organisation(&pool)
        .start()
        .await;
    let call = async || service.openai(CHAT, &HARMLESS, &chat("pool")).await;
    let last = async || outcomes(&service).await.pop().unwrap();
    assert_eq!(served_by(&call().await), Some(LAPTOP));
    assert_eq!(skipped(&last().await)[NIM], "out_of_service");
    assert!(
        service.stderr().contains("its licence is `Apache License 2.0`"),
        "{}",
        service.stderr()
    );
    assert!(nim.seen().is_empty());

    nim.tell("/v1/license", &licence("NVIDIA terms apply."));
    eventually("its licence is right", async || served_by(&call().await) == Some(NIM)).await;
    nim.tell("/v1/metrics", "num_requests_waiting{model_name=\"m\"} 9.0\n");
    eventually("its queue is full", async || served_by(&call().await) == Some(LAPTOP)).await;
    assert_eq!(skipped(&last().await)[NIM], "full");
    nim.tell("/v1/metrics", "num_requests_waiting{model_name=\"m\"} 0\n");
    eventually("its queue has room", async || served_by(&call().await) == Some(NIM)).await;
    nim.refuse("/v1/health/ready", "503 Service Unavailable");
    eventually("it is not ready", async || served_by(&call().await) == Some(LAPTOP)).await;
    assert_eq!(skipped(&last().await)[NIM], "unhealthy");
    nim.tell("/v1/health/ready", "");
    let other = json!({ "modelInfo": [{ "shortName": "llama:hf-1", "modelUrl": "ngc://nim/meta/llama:hf-1" }] });
    nim.tell("/v1/metadata", &other);
    eventually("it runs another model", async || {
        service.stderr().contains("it runs `llama:hf-1`, not `nemotron`")
    })
    .await;
}

#[tokio::test]
async fn sqlite_a_backend_that_does_not_answer_for_itself_gets_no_call() {
    let (laptop, frankfurt) = (Backend::polite().await, Backend::polite().await);
    let singapore = Backend::polite().await;
    let pool = format!(
        "\n[[virtual_models]]\nid = \"pool\"\ndeployments = [\"{FRANKFURT}\", \"{SINGAPORE}\"]\n"
    );
    let service =
        with(&laptop, &frankfurt, &singapore, Store::Sqlite).organisation(&pool).start().await;
    let call = async |model| {
        let answer = service.openai(CHAT, &HARMLESS, &chat(model)).await;
        served_by(&answer).map(str::to_owned)
    };
    let routed = async |model: &str| {
        let call = json!({ "action": "infer", "model": model, "data": { "personal": false } });
        service.decide(&call).await.expect(200)["route"]["deployment"].as_str().unwrap().to_owned()
    };
    assert_eq!(call("assistant").await.as_deref(), Some(LAPTOP));
    assert_eq!(routed("pool").await, FRANKFURT);
    // It would still answer calls.
    for backend in [&laptop, &frankfurt] {
        backend.refuse("/v1/models", "500 Internal Server Error");
    }
    // Answers would outweigh what is only a question without one.
    eventually("both are not well", async || {
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        let unfit =
            |id| metrics.contains(&format!("lexgate_deployment_fit{{deployment=\"{id}\"}} 0"));
        unfit(LAPTOP) && unfit(FRANKFURT)
    })
    .await;
    let before = (laptop.seen().len(), frankfurt.seen().len());
    assert_eq!(call("assistant").await.as_deref(), Some(SINGAPORE));
    assert_eq!((laptop.seen().len(), frankfurt.seen().len()), before);
    let outcome = outcomes(&service).await.pop().unwrap();
    let want =
        BTreeMap::from([LAPTOP, FRANKFURT].map(|id| (id.to_owned(), "unhealthy".to_owned())));
    assert_eq!(skipped(&outcome), want);
    // Whoever runs inference himself is sent to one that is well, but for the device beside him, of
    // which nothing is known here.
    assert_eq!(routed("pool").await, SINGAPORE);
    assert_eq!(routed("assistant").await, LAPTOP);
    for backend in [&laptop, &frankfurt] {
        backend.tell("/v1/models", &json!({ "data": [] }));
    }
    eventually("it is well again", async || call("assistant").await.as_deref() == Some(LAPTOP))
        .await;
    eventually("so is the other", async || routed("pool").await == FRANKFURT).await;
    service.export_and_verify();
}

#[tokio::test]
async fn sqlite_streams_that_break_off_open_the_breaker() {
    let whole_from = Arc::new(AtomicUsize::new(usize::MAX));
    let (count, works) = (AtomicUsize::new(0), whole_from.clone());
    let laptop = Backend::start(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < works.load(Ordering::SeqCst) {
            return vec![stream_head(), piece(chunk("half of")), stream_end()];
        }
        crate::backend::stream(&crate::backend::events())
    })
    .await;
    let frankfurt = Backend::polite().await;
    let service = with(&laptop, &frankfurt, &frankfurt, Store::Sqlite)
        .reached(LAPTOP, "breaker_failures = 2\nbreaker_cool_down = \"600ms\"")
        .start()
        .await;
    let call = async || {
        let mut body = chat("assistant");
        body["stream"] = json!(true);
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        (served_by(&answer).unwrap().to_owned(), answer.text().contains("[DONE]"))
    };
    let (laptop_id, frankfurt_id) = (LAPTOP.to_owned(), FRANKFURT.to_owned());
    for _ in 0..2 {
        assert_eq!(call().await, (laptop_id.clone(), false));
    }
    assert_eq!(call().await, (frankfurt_id.clone(), true), "two cut streams open it");
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The trial begins well and breaks off, which opens it again at once, and for longer.
    assert_eq!(call().await, (laptop_id.clone(), false));
    assert_eq!(call().await, (frankfurt_id.clone(), true));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(call().await, (frankfurt_id, true), "twice as long");
    whole_from.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(700)).await;
    for _ in 0..3 {
        assert_eq!(call().await, (laptop_id.clone(), true));
    }
}

#[tokio::test]
async fn sqlite_what_may_pass_is_tried_again_after_a_pause() {
    let times = Arc::new(AtomicUsize::new(0));
    let count = times.clone();
    let laptop = Backend::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("500 Internal Server Error", "", b""),
        _ => whole(&completion()),
    })
    .await;
    let service = Service::setup(Store::Sqlite).backend(LAPTOP, &laptop.url).start().await;
    let started = Instant::now();
    service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    let outcome = &outcomes(&service).await[0];
    assert_eq!(outcome["attempts"][0]["failure"], "status");
    assert_eq!(outcome["attempts"][1]["deployment"], LAPTOP);
}

both_stores! {
    /// While the first deployment does not answer, another snapshot becomes active: the second has moved
    /// there, and the third is not approved any more.
    async fn an_attempt_needs_the_allow_of_the_snapshot_that_is_active(store: Store) {
        let laptop = Backend::start(|_| vec![Step::Wait(Duration::from_secs(9))]).await;
        let (frankfurt, singapore) = (Backend::polite().await, Backend::polite().await);
        let moved = Backend::polite().await;
        let service = with(&laptop, &frankfurt, &singapore, store)
            .reached(LAPTOP, "breaker_failures = 100")
            .start()
            .await;
        let activated = async {
            eventually("the call is under way", async || !laptop.seen().is_empty()).await;
            let site = service.site.clone();
            let name = "config/organisation.toml";
            site.replace(name, &format!("base_url = \"{}\"", frankfurt.url), &format!("base_url = \"{}\"", moved.url));
            let approved = |approved: bool| {
                let row = "model = \"qwen3-32b\"\noperator = \"alibaba-cloud\"\ntier = \"remote\"";
                format!("id = \"{SINGAPORE}\"\n{row}\napproved = {approved}")
            };
            site.replace(name, &approved(true), &approved(false));
            Service::on_with(site, &[("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")]).await
        };
        let body = chat("assistant");
        let (answer, _second) = tokio::join!(service.openai(CHAT, &HARMLESS, &body), activated);
        answer.expect(502);
        let outcome = &outcomes(&service).await[0];
        assert_eq!(outcome["attempts"][0]["failure"], "broke_off", "{outcome}");
        let gone = "no_longer_allowed".to_owned();
        let want = BTreeMap::from([FRANKFURT, SINGAPORE].map(|id| (id.to_owned(), gone.clone())));
        assert_eq!(skipped(outcome), want);
        for backend in [&frankfurt, &singapore, &moved] {
            assert!(backend.seen().is_empty(), "a call went where no snapshot says that it may");
        }
        // The next one is decided anew.
        let answer = service.openai(CHAT, &HARMLESS, &chat(FRANKFURT)).await;
        answer.expect(200);
        assert_eq!(moved.seen().len(), 1);
        service.export_and_verify();
    }
}
