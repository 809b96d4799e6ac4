//! A hostile backend: it refuses, hangs, lies, sends garbage or never ends. Each call has a defined
//! answer and one outcome, each connection is freed, and a thousand of them leave nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::iter};
use serde_json::{Value, json};

use crate::{
    backend::{
        Backend, Seen, Step, answer, chunk, completion, event, piece, stream, stream_end,
        stream_head, whole,
    },
    gateway::outcomes,
    harness::{Answer, Service, Store, both_stores, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const HOSTILE: &str = "smollm2@laptop";
const NOBODY: &str = "mistral-small@dc-frankfurt";
const LIAR: &str = "qwen3-32b@dashscope-sg";
/// How many calls are made at a time.
const AT_ONCE: usize = 50;

/// One way to misbehave, and what becomes of it.
struct Case {
    name: &'static str,
    stream: bool,
    /// The client's HTTP status.
    status: u16,
    /// The outcome's status.
    outcome: &'static str,
    /// Why the last attempt failed.
    failure: &'static str,
}

const fn case(
    name: &'static str,
    stream: bool,
    status: u16,
    outcome: &'static str,
    failure: &'static str,
) -> Case {
    Case { name, stream, status, outcome, failure }
}

/// All of them. A stream that has begun has answered 200 already: it ends in an error event.
const CASES: [Case; 21] = [
    case("closes", false, 502, "upstream_error", "broke_off"),
    case("hangs", false, 504, "timeout", "timeout"),
    case("hangs", true, 504, "timeout", "timeout"),
    case("hangs after headers", false, 504, "timeout", "timeout"),
    case("hangs after headers", true, 504, "timeout", "timeout"),
    case("hangs in the middle", false, 504, "timeout", "timeout"),
    case("hangs in the middle", true, 200, "timeout", "timeout"),
    case("garbage", false, 502, "upstream_error", "broke_off"),
    case("garbage", true, 502, "upstream_error", "bad_answer"),
    case("half a character", false, 502, "upstream_error", "bad_answer"),
    case("half a character", true, 200, "upstream_error", "broke_off"),
    case("huge line", true, 504, "timeout", "timeout"),
    case("wrong type", false, 502, "upstream_error", "bad_answer"),
    case("wrong type", true, 502, "upstream_error", "bad_answer"),
    case("endless", true, 200, "timeout", "timeout"),
    case("endless", false, 504, "timeout", "timeout"),
    case("error", false, 502, "upstream_error", "error_in_answer"),
    case("error", true, 502, "upstream_error", "error_in_answer"),
    case("redirect", false, 502, "upstream_error", "redirected"),
    case("a hidden end", true, 200, "upstream_error", "bad_answer"),
    case("half the length", false, 502, "upstream_error", "broke_off"),
];

fn misbehave(seen: &Seen, elsewhere: &str) -> Vec<Step> {
    let body = seen.json();
    let is_stream = body["stream"] == true;
    let json = "content-type: application/json\r\n";
    let whole_head = |length: usize| {
        Step::Send(
            format!("HTTP/1.1 200 OK\r\n{json}content-length: {length}\r\n\r\n").into_bytes(),
        )
    };
    match (body["metadata"]["play"].as_str().unwrap(), is_stream) {
        ("closes", _) => vec![],
        ("hangs", _) => vec![Step::Hang],
        ("hangs after headers", false) => vec![whole_head(100), Step::Hang],
        ("hangs after headers", true) => vec![stream_head(), Step::Hang],
        ("hangs in the middle", false) => {
            vec![whole_head(100), Step::Send(b"{\"a\":".to_vec()), Step::Hang]
        }
        ("hangs in the middle", true) => vec![stream_head(), piece(chunk("one")), Step::Hang],
        ("garbage", false) => vec![Step::Send(b"\0\x01not http\r\n\r\n".to_vec())],
        ("garbage", true) => vec![stream_head(), piece("data: }{\n\n"), stream_end()],
        ("half a character", false) => answer("200 OK", json, b"{\"a\":\"\xc3"),
        ("half a character", true) => {
            vec![stream_head(), piece(chunk("one")), piece(b"data: \xc3"), stream_end()]
        }
        // A client would see an end where a reader of lines sees a comment.
        ("a hidden end", _) => {
            let hidden = piece(": x\r\rdata: [DONE]\r\r\n\n");
            vec![stream_head(), piece(chunk("one")), hidden, stream_end()]
        }
        ("huge line", _) => {
            let line = (0..40).map(|_| piece(vec![b'x'; 64 << 10]));
            std::iter::once(stream_head()).chain(line).chain([Step::Hang]).collect()
        }
        ("wrong type", _) => answer("200 OK", "content-type: text/html\r\n", b"<html>"),
        ("endless", true) => {
            let chunks =
                (0..60).flat_map(|_| [piece(chunk("more")), Step::Wait(Duration::from_millis(50))]);
            std::iter::once(stream_head()).chain(chunks).chain([Step::Hang]).collect()
        }
        ("endless", false) => {
            let spaces = (0..60)
                .flat_map(|_| [Step::Send(vec![b' '; 16]), Step::Wait(Duration::from_millis(50))]);
            std::iter::once(whole_head(1 << 20)).chain(spaces).chain([Step::Hang]).collect()
        }
        ("error", false) => whole(&json!({ "error": { "message": "no memory" } })),
        ("error", true) => stream(&[event(&json!({ "error": { "message": "no memory" } }))]),
        ("redirect", _) => answer(
            "308 Permanent Redirect",
            &format!("location: {elsewhere}/chat/completions\r\n{json}"),
            b"{}",
        ),
        ("half the length", _) => {
            let mut steps = answer("200 OK", json, completion().to_string().as_bytes());
            if let Some(Step::Send(bytes)) = steps.first_mut() {
                bytes.truncate(bytes.len() - 20);
            }
            steps
        }
        (scenario, _) => panic!("{scenario}"),
    }
}

fn body(case: &Case) -> Value {
    json!({ "model": HOSTILE, "stream": case.stream, "metadata": { "play": case.name },
        "messages": [{"role": "user", "content": "Good morning"}] })
}

async fn call(service: &Service, case: &Case) -> Answer {
    let answer = service.openai(CHAT, &HARMLESS, &body(case)).await;
    let name = case.name;
    assert_eq!(answer.status, case.status, "{name}: {}", answer.text());
    let text = answer.text();
    assert!(!text.contains("[DONE]") && !text.contains("127.0.0.1"), "{name}: {text}");
    if case.status == 200 {
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.contains("upstream_error"), "{name}: {text}");
    } else {
        assert_eq!(answer.json()["error"]["type"], "upstream_error", "{name}: {text}");
    }
    answer
}

/// The open files of a process, and its memory in kB.
fn held(process: u32) -> (usize, u64) {
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("a process has files").count();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (files, memory.trim().trim_end_matches(" kB").parse().unwrap())
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn besieged(store: Store, hostile: &Backend, liar: &Backend) -> Service {
    let limits = "first_byte_timeout = \"2s\"\nchunk_timeout = \"2s\"\ntotal_timeout = \"2500ms\"\n\
        breaker_failures = 1_000_000";
    Service::setup(store)
        .backend(HOSTILE, &hostile.url)
        .reached(HOSTILE, limits)
        .backend(NOBODY, "http://127.0.0.1:9/v1")
        .backend(LIAR, &liar.url)
        .env("FRANKFURT_API_KEY", "k")
        .env("DASHSCOPE_API_KEY", "k")
        .start()
        .await
}

async fn start() -> (Backend, Backend) {
    let elsewhere = Backend::polite().await;
    let target = elsewhere.url.clone();
    (Backend::start(move |seen| misbehave(seen, &target)).await, elsewhere)
}

both_stores! {
    async fn every_way_to_misbehave_has_an_answer_and_an_outcome(store: Store) {
        let (hostile, elsewhere) = start().await;
        let liar = Backend::start(|_| whole(&json!({ "model": "another", "choices": [] }))).await;
        let service = besieged(store, &hostile, &liar).await;
        for case in &CASES {
            call(&service, case).await;
        }
        let refused = json!({ "model": NOBODY, "messages": [] });
        assert_eq!(service.openai(CHAT, &HARMLESS, &refused).await.status, 503);
        let lied = json!({ "model": LIAR, "messages": [] });
        let answer = service.openai(CHAT, &HARMLESS, &lied).await;
        assert!(!answer.text().contains("another"), "{}", answer.text());
        assert_eq!(answer.status, 502);
        assert!(elsewhere.seen().is_empty(), "a redirect was followed");
        let found = outcomes(&service).await;
        for (case, outcome) in CASES.iter().zip(&found) {
            let (name, stream) = (case.name, case.stream);
            assert_eq!(outcome["status"], case.outcome, "{name} {stream}: {outcome}");
            let last = outcome["attempts"].as_array().unwrap().last().unwrap();
            assert_eq!(last["failure"], case.failure, "{name} {stream}: {outcome}");
        }
        let (refused, lied) = (&found[CASES.len()], &found[CASES.len() + 1]);
        // A probe may have found it first.
        let failed = refused["attempts"][0]["failure"] == "unreachable";
        assert!(failed || refused["skipped"][0]["reason"] == "unhealthy", "{refused}");
        assert_eq!(lied["attempts"][0]["failure"], "wrong_model", "{lied}");
        eventually("connections stay open", || hostile.open() == 0).await;
        service.export_and_verify();
    }
}

#[tokio::test]
async fn a_thousand_hostile_answers_leave_nothing_behind() {
    let (hostile, _elsewhere) = start().await;
    let liar = Backend::polite().await;
    let service = besieged(Store::Sqlite, &hostile, &liar).await;
    // One that refuses is among them.
    let one = async |n: usize| {
        if let Some(case) = CASES.get(n % (CASES.len() + 1)) {
            call(&service, case).await;
        } else {
            let refused = json!({ "model": NOBODY, "messages": [] });
            service.openai(CHAT, &HARMLESS, &refused).await.expect(503);
        }
    };
    let siege = async |calls: usize| {
        iter((0..calls).map(one)).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        eventually("connections stay open", || hostile.open() == 0).await;
        held(service.id())
    };
    // What is made once, caches and pools, is there after the first of them.
    let before = siege(200).await;
    let after = siege(1_000).await;
    eventually("files stay open", || held(service.id()).0 <= before.0 + 3).await;
    let grown = after.1.saturating_sub(before.1);
    assert!(grown < 15_000, "{grown} kB more than before");
    let mut statuses = BTreeMap::<String, usize>::new();
    for outcome in outcomes(&service).await {
        *statuses.entry(outcome["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(statuses.values().sum::<usize>(), 1_200, "{statuses:?}");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["timeout", "upstream_error"]);
    // Nothing is under way any more, nowhere.
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        if metrics.contains("lexgate_open_dispatches 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(metrics.contains("lexgate_open_dispatches 0"), "{metrics}");
    let in_flight = format!("lexgate_in_flight{{deployment=\"{HOSTILE}\"}} 0");
    assert!(metrics.contains(&in_flight), "{metrics}");
}

/// A backend that sends far more than a client reads is held back, and the call ends in time.
#[tokio::test]
async fn sqlite_a_client_that_does_not_read_holds_the_backend_back() {
    const OFFERED: usize = 200 << 20;
    let text = "x".repeat(64 << 10);
    let backend = Backend::start(move |_| {
        let piece = piece(chunk(&text));
        std::iter::once(stream_head()).chain(vec![piece; OFFERED / (64 << 10)]).collect()
    })
    .await;
    let service = Service::setup(Store::Sqlite)
        .backend(HOSTILE, &backend.url)
        .reached(HOSTILE, "total_timeout = \"4s\"")
        .start()
        .await;
    let mut request = with_json(
        service.request("POST", CHAT, "caller"),
        &json!({ "model": HOSTILE, "stream": true, "messages": [] }),
    );
    for (claim, value) in HARMLESS {
        request = request.header(format!("x-lexgate-{claim}"), value);
    }
    let unread = request.send().await.unwrap();
    assert_eq!(unread.status(), 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let early = backend.written();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let late = backend.written();
    assert!(early > 0 && late < early + (1 << 20), "{early} bytes, then {late}");
    // What the system keeps for two connections, and the pieces in between.
    assert!(late < 40 << 20, "{late} bytes were taken that nobody reads");
    eventually("the backend is still held", || backend.open() == 0).await;
    let outcome = &outcomes(&service).await[0];
    assert_eq!(
        (&outcome["status"], &outcome["attempts"][0]["failure"]),
        (&json!("timeout"), &json!("timeout"))
    );
    drop(unread);
}
