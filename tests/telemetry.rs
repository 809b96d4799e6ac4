//! Traces and metrics: what a collector receives of a call, what a backend is told of the trace, and
//! that neither the content of a call nor a collector that does not answer gets anywhere.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;
use serde_json::{Value, json};

use crate::{
    backend::{Backend, Step, answer, chunk, completion, piece, stream_head, usage, whole},
    harness::{Answer, Service, Setup, Store, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Stands in every text of a call.
const MARKER: &str = "MARKER";

/// A collector: it takes what it gets.
struct Collector(Backend);

impl Collector {
    async fn start() -> Self {
        let taken = |_: &_| answer("200 OK", "content-type: application/x-protobuf\r\n", b"");
        Self(Backend::start(taken).await)
    }

    /// Its address, as one writes it into a configuration.
    fn address(&self) -> &str {
        self.0.url.trim_end_matches("/v1")
    }

    /// Every request for which there was an export so far.
    fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let exports = self.0.seen().into_iter().map(|seen| {
            assert!(seen.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", seen.head);
            assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
            ExportTraceServiceRequest::decode(seen.body.as_slice()).expect("OTLP")
        });
        exports.collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.exports().into_iter().flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Waits until `count` spans of the trace have come.
    async fn trace(&self, trace: &str, count: usize) -> Traced {
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let spans = self.spans().into_iter().filter(|span| hex(&span.trace_id) == trace);
            let spans: Vec<Span> = spans.collect();
            if spans.len() >= count {
                assert_eq!(spans.len(), count, "{spans:#?}");
                return Traced(spans);
            }
            assert!(Instant::now() < patience, "{count} spans were to come: {spans:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The spans of one trace.
struct Traced(Vec<Span>);

impl Traced {
    /// The one span of this name, which must have this parent.
    fn child(&self, name: &str, parent: &str) -> &Span {
        let mut named = self.0.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no span `{name}`: {:#?}", self.0));
        assert_eq!(hex(&span.parent_span_id), parent, "the parent of `{name}`");
        assert!(named.next().is_none(), "`{name}` stands twice");
        span
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, Value> {
    let value = |attribute: &KeyValue| match attribute.value.clone()?.value? {
        Any::StringValue(text) => Some(json!(text)),
        Any::IntValue(number) => Some(json!(number)),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes.iter().filter_map(|it| Some((it.key.as_str(), value(it)?))).collect()
}

fn of(span: &Span) -> Value {
    json!(attributes(&span.attributes))
}

fn status(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, Status::code)
}

fn parent_of(trace: &str) -> String {
    format!("00-{trace}-{CALLER}-01")
}

/// A service that exports to `collector`, without waiting long, with `backend` on the device.
fn traced(collector: &str, backend: &Backend) -> Setup {
    Service::setup(Store::Sqlite)
        .append("config/lexgate.toml", &format!("[telemetry]\notlp_endpoint = \"{collector}\""))
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .backend("smollm2@laptop", &backend.url)
}

/// A call with a marker in everything that it says, in the trace `trace`.
async fn call(service: &Service, trace: &str, claims: &[(&str, &str)], body: &Value) -> Answer {
    let request = with_json(service.request("POST", &format!("{CHAT}?q={MARKER}"), "caller"), body);
    let request = request.header("traceparent", parent_of(trace)).header("tracestate", "vendor=1");
    let request = request.header("x-request-id", MARKER).header("user-agent", MARKER);
    let request = claims.iter().fold(request, |request, (name, value)| {
        request.header(format!("x-lexgate-{name}"), *value)
    });
    Answer::of(request).await
}

fn chat(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "stream": stream, "user": MARKER,
        "messages": [{"role": "user", "content": format!("a prompt with a {MARKER}")}],
    })
}

/// Answers with markers, slowly where it streams; fails where it is told to.
async fn marked() -> Backend {
    Backend::start(|seen| {
        let asked = seen.json();
        if asked["stop"] == "fail" {
            return answer(
                "503 Service Unavailable",
                "content-type: text/plain\r\n",
                MARKER.as_bytes(),
            );
        }
        if asked["stream"] == true {
            return vec![
                stream_head(),
                piece(chunk(MARKER)),
                Step::Wait(Duration::from_millis(300)),
                piece(usage()),
                piece("data: [DONE]\n\n"),
            ];
        }
        let mut answer = completion();
        answer["choices"][0]["message"]["content"] = json!(MARKER);
        whole(&answer)
    })
    .await
}

const GERMAN: [(&str, &str); 3] =
    [("data", "dpv-pd:Contact"), ("subjects", "DE"), ("purpose", "dpv:ServiceProvision")];

#[tokio::test]
async fn each_call_is_a_trace_of_its_own_kind() {
    let (collector, backend) = (Collector::start().await, marked().await);
    let service = traced(collector.address(), &backend).start().await;
    let number = |n: u8| format!("{n:032x}");

    // In one piece.
    let answer = call(&service, TRACE, &GERMAN, &chat("assistant", false)).await;
    answer.expect(200);
    let spans = collector.trace(TRACE, 3).await;
    let server = spans.child("POST /v1/chat/completions", CALLER);
    assert_eq!(server.kind(), SpanKind::Server);
    assert_eq!(server.trace_state, "vendor=1");
    assert_eq!(
        of(server),
        json!({
            "http.request.method": "POST", "http.route": CHAT, "url.path": CHAT,
            "url.scheme": "http", "http.response.status_code": 200,
        })
    );
    let decide = spans.child("decide", &hex(&server.span_id));
    let record: u64 = answer.header("x-lexgate-record").unwrap().parse().unwrap();
    assert_eq!(
        of(decide),
        json!({
            "lexgate.decision": "allow", "lexgate.record": record,
            "lexgate.decision.id": answer.header("x-lexgate-decision").unwrap(),
        })
    );
    let attempt = spans.child("chat assistant", &hex(&server.span_id));
    assert_eq!((attempt.kind(), status(attempt)), (SpanKind::Client, StatusCode::Unset));
    let port: u16 = backend.url.rsplit([':', '/']).nth(1).unwrap().parse().unwrap();
    let told = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "acme",
        "gen_ai.request.model": "assistant", "gen_ai.response.model": "served-model",
        "gen_ai.usage.input_tokens": 11, "gen_ai.usage.output_tokens": 7,
        "server.address": "127.0.0.1", "server.port": port,
        "lexgate.deployment": "smollm2@laptop", "lexgate.tier": "on_device",
    });
    assert_eq!(of(attempt), told);
    let seen = backend.seen();
    let onward = format!("00-{TRACE}-{}-01", hex(&attempt.span_id));
    assert_eq!(seen[0].header("traceparent"), Some(onward.as_str()));
    assert_eq!(seen[0].header("tracestate"), None, "text of the caller's own");

    // Streamed: request and attempt last as long as the answer does.
    let answer = call(&service, &number(2), &GERMAN, &chat("assistant", true)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = collector.trace(&number(2), 3).await;
    let server = spans.child("POST /v1/chat/completions", CALLER);
    let attempt = spans.child("chat assistant", &hex(&server.span_id));
    assert_eq!(of(attempt), told);
    for span in [server, attempt] {
        let lasted = span.end_time_unix_nano - span.start_time_unix_nano;
        assert!(lasted >= 300_000_000, "{} lasted {lasted} ns", span.name);
    }

    // Denied: nothing went anywhere.
    call(&service, &number(3), &[], &chat("assistant", false)).await.expect(403);
    let spans = collector.trace(&number(3), 2).await;
    let server = spans.child("POST /v1/chat/completions", CALLER);
    assert_eq!(of(server)["http.response.status_code"], 403);
    assert_eq!(status(server), StatusCode::Unset, "a denial is no error of the server");
    let decide = spans.child("decide", &hex(&server.span_id));
    assert_eq!(of(decide)["lexgate.decision"], "deny");

    // Failed, in both rounds.
    let mut failing = chat("smollm2@laptop", false);
    failing["stop"] = json!("fail");
    let failed = call(&service, &number(4), &GERMAN, &failing).await;
    assert!(failed.status >= 500, "{}", failed.text());
    let tried = backend.seen().len() - seen.len() - 1;
    let spans = collector.trace(&number(4), 2 + tried).await;
    let server = spans.child("POST /v1/chat/completions", CALLER);
    assert_eq!(of(server)["error.type"], failed.status.to_string());
    assert_eq!(status(server), StatusCode::Error);
    let attempts = spans.0.iter().filter(|span| span.kind() == SpanKind::Client);
    for attempt in attempts {
        assert_eq!(attempt.name, "chat smollm2@laptop");
        assert_eq!(attempt.parent_span_id, server.span_id);
        assert_eq!(
            (status(attempt), &of(attempt)["error.type"]),
            (StatusCode::Error, &json!("503"))
        );
    }

    // Who it is that exports.
    let exports = collector.exports();
    let resource = exports[0].resource_spans[0].resource.as_ref().expect("a resource");
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "lexgate");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

/// Every other endpoint that calls a model, with its operation in the conventions' words, what a
/// backend answers, and what it is asked.
fn other_endpoints() -> [(&'static str, &'static str, Value, Value); 4] {
    let counted = json!({ "input_tokens": 11, "output_tokens": 7 });
    [
        (
            "/v1/completions",
            "text_completion",
            json!({
                "object": "text_completion", "model": "served-model", "choices": [{ "text": "Good morning" }],
                "usage": { "prompt_tokens": 11, "completion_tokens": 7 },
            }),
            json!({ "prompt": "Good", "max_tokens": 8 }),
        ),
        (
            "/v1/embeddings",
            "embeddings",
            json!({
                "object": "list", "model": "served-model", "data": [{ "embedding": [0.5] }],
                "usage": { "prompt_tokens": 11, "total_tokens": 11 },
            }),
            json!({ "input": "Good" }),
        ),
        (
            "/v1/responses",
            "chat",
            json!({
                "object": "response", "status": "completed", "model": "served-model", "output": [],
                "usage": counted,
            }),
            json!({ "input": "Good", "max_output_tokens": 8 }),
        ),
        (
            "/v1/messages",
            "chat",
            json!({
                "type": "message", "model": "served-model", "content": [], "usage": counted,
            }),
            json!({ "messages": [{ "role": "user", "content": "Good" }], "max_tokens": 8 }),
        ),
    ]
}

#[tokio::test]
async fn each_endpoint_has_the_operation_of_the_conventions() {
    let backend = Backend::start(|seen| {
        let endpoints = other_endpoints().into_iter();
        let mut asked =
            endpoints.filter(|(path, ..)| seen.head.starts_with(&format!("POST {path} ")));
        whole(&asked.next().expect("one of them").2)
    })
    .await;
    let collector = Collector::start().await;
    let service = traced(collector.address(), &backend).start().await;
    for (n, (path, operation, _, mut body)) in other_endpoints().into_iter().enumerate() {
        let trace = format!("{:032x}", n + 1);
        body["model"] = json!("smollm2@laptop");
        let request = with_json(service.request("POST", path, "caller"), &body);
        let request = request.header("traceparent", parent_of(&trace));
        Answer::of(request.header("x-lexgate-personal", "false")).await.expect(200);
        let spans = collector.trace(&trace, 3).await;
        let server = spans.child(&format!("POST {path}"), CALLER);
        let attempt = spans.child(&format!("{operation} smollm2@laptop"), &hex(&server.span_id));
        let told = of(attempt);
        assert_eq!(told["gen_ai.operation.name"], operation, "{path}");
        assert_eq!(told["gen_ai.response.model"], "served-model", "{path}");
        assert_eq!(told["gen_ai.usage.input_tokens"], 11, "{path}");
        let output = (operation != "embeddings").then_some(7);
        assert_eq!(
            told.get("gen_ai.usage.output_tokens"),
            output.map(Value::from).as_ref(),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_call_says_reaches_the_collector() {
    let (collector, backend) = (Collector::start().await, marked().await);
    let service = traced(collector.address(), &backend).start().await;
    let deployment = chat("smollm2@laptop", false);
    call(&service, TRACE, &GERMAN, &deployment).await.expect(200);
    call(&service, TRACE, &GERMAN, &chat("assistant", true)).await;
    call(&service, TRACE, &[], &deployment).await.expect(403);
    call(&service, TRACE, &GERMAN, &chat(MARKER, false)).await.expect(404);
    call(&service, TRACE, &[("purpose", MARKER)], &deployment).await.expect(400);
    let decision = json!({
        "action": "infer", "model": "assistant", "end_user": MARKER, "data": { "personal": false },
    });
    service.decide(&decision).await.expect(200);
    let batch = json!({ "calls": [decision, decision] });
    service.post("/v1/decisions/batch", "caller", &batch).await.expect(200);
    service
        .request("DELETE", &format!("/v1/subjects/{MARKER}?tenant=acme"), "officer")
        .send()
        .await
        .unwrap();
    service.request("GET", &format!("/{MARKER}?{MARKER}"), "caller").send().await.unwrap();
    service.request(MARKER, CHAT, "caller").send().await.unwrap();
    let key = service.site.key("caller").to_owned();
    let stderr = service.stderr();
    assert!(service.terminate().success());
    let seen = collector.0.seen();
    let spans = collector.spans();
    let together = spans.iter().filter(|span| span.name == "decide");
    let mut together = together.map(of).filter(|span| *span == json!({ "lexgate.decisions": 2 }));
    assert!(together.next().is_some(), "{spans:#?}");
    assert!(spans.iter().any(|span| span.name == "DELETE /v1/subjects/{end_user}"), "{spans:#?}");
    assert!(spans.iter().any(|span| span.name == "GET"), "a path that nobody knows: {spans:#?}");
    assert!(spans.iter().any(|span| span.name.starts_with("_OTHER")), "{spans:#?}");
    let categories = ["dpv-pd", "ServiceProvision", "a prompt"];
    for said in [MARKER, &key].into_iter().chain(categories) {
        for export in &seen {
            let body = String::from_utf8_lossy(&export.body);
            assert!(!body.contains(said) && !export.head.contains(said), "`{said}`: {body}");
        }
    }
    assert!(stderr.contains(r#""name":"request""#) && !stderr.contains("gen_ai"), "{stderr}");
}

#[tokio::test]
async fn a_trace_goes_on_through_lexgate_without_a_collector() {
    let backend = Backend::polite().await;
    let setup = Service::setup(Store::Sqlite).backend("smollm2@laptop", &backend.url);
    let service = setup.start().await;
    let body = chat("smollm2@laptop", false);
    call(&service, TRACE, &GERMAN, &body).await.expect(200);
    call(&service, "nonsense", &GERMAN, &body).await.expect(200);
    service.openai(CHAT, &GERMAN, &body).await.expect(200);
    let seen = backend.seen();
    assert_eq!(seen[0].header("traceparent"), Some(parent_of(TRACE).as_str()), "as it came");
    assert_eq!(seen[0].header("tracestate"), None, "text of the caller's own");
    for seen in &seen[1..] {
        assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_slows_and_breaks_nothing() {
    let backend = Backend::polite().await;
    let hung = Backend::start(|_| vec![Step::Hang]).await;
    let refused = {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", port.local_addr().unwrap())
    };
    // Once one of its exports has failed, so long does the next one take to fail.
    let (at_once, late) = (Duration::from_secs(3), Duration::from_secs(6));
    for (collector, next) in [(hung.url.as_str(), late), (refused.as_str(), at_once)] {
        let service = traced(collector, &backend).start().await;
        for _ in 0..50 {
            let started = Instant::now();
            service.openai(CHAT, &GERMAN, &chat("smollm2@laptop", false)).await.expect(200);
            assert!(started.elapsed() < Duration::from_secs(2), "{collector} slowed a call");
        }
        let complaint = "spans cannot be exported";
        let patience = Instant::now() + Duration::from_secs(15);
        while !service.stderr().contains(complaint) {
            assert!(Instant::now() < patience, "nobody hears of it: {}", service.stderr());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        service.openai(CHAT, &GERMAN, &chat("smollm2@laptop", false)).await.expect(200);
        tokio::time::sleep(next).await;
        let said = service.stderr().matches(complaint).count();
        assert_eq!(said, 1, "once, and not for each span: {}", service.stderr());
        let started = Instant::now();
        assert!(service.terminate().success());
        assert!(started.elapsed() < Duration::from_secs(5), "{collector} holds the end up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_at_the_end_is_still_sent() {
    let (collector, backend) = (Collector::start().await, Backend::polite().await);
    let setup = traced(collector.address(), &backend).env("OTEL_BSP_SCHEDULE_DELAY", "60000");
    let service = setup.env("OTEL_SERVICE_NAME", "checkpoint").start().await;
    call(&service, TRACE, &GERMAN, &chat("smollm2@laptop", false)).await.expect(200);
    assert!(collector.spans().is_empty(), "it was to wait");
    assert!(service.terminate().success());
    assert_eq!(collector.spans().len(), 3, "all had come when the service ended");
    let exports = collector.exports();
    let resource = exports[0].resource_spans[0].resource.as_ref().expect("a resource");
    assert_eq!(attributes(&resource.attributes)["service.name"], "checkpoint");
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_keep_is_not_exported() {
    let (collector, backend) = (Collector::start().await, Backend::polite().await);
    let setup = traced(collector.address(), &backend);
    let setup = setup.append("config/lexgate.toml", "sample_ratio = 0.0");
    let service = setup.start().await;
    let body = chat("smollm2@laptop", false);
    service.openai(CHAT, &GERMAN, &body).await.expect(200);
    let unkept = format!("00-{TRACE}-{CALLER}-00");
    let request = with_json(service.request("POST", CHAT, "caller"), &body);
    let request = request.header("traceparent", &unkept).header("x-lexgate-personal", "false");
    Answer::of(request).await.expect(200);
    call(&service, &format!("{:032x}", 7), &GERMAN, &body).await.expect(200);
    collector.trace(&format!("{:032x}", 7), 3).await;
    assert_eq!(collector.spans().len(), 3, "what the caller keeps is kept, and nothing else");
    let seen = backend.seen();
    let told = |index: usize| seen[index].header("traceparent").expect("a parent").to_owned();
    assert!(told(0).ends_with("-00"), "{}", told(0));
    assert!(
        told(1).starts_with(&format!("00-{TRACE}-")) && told(1).ends_with("-00"),
        "{}",
        told(1)
    );
}

#[tokio::test]
async fn metrics_tell_the_deployments_apart() {
    let backend = marked().await;
    let setup = Service::setup(Store::Sqlite).backend("smollm2@laptop", &backend.url);
    let service = setup.start().await;
    service.openai(CHAT, &GERMAN, &chat("smollm2@laptop", false)).await.expect(200);
    service.openai(CHAT, &GERMAN, &chat("smollm2@laptop", true)).await;
    let mut failing = chat("smollm2@laptop", false);
    failing["stop"] = json!("fail");
    service.openai(CHAT, &GERMAN, &failing).await;
    let tried = backend.seen().len() - 2;
    let patience = Instant::now() + Duration::from_secs(5);
    let wanted = [
        r#"lexgate_attempts_total{deployment="smollm2@laptop",status="200"} 2"#.to_owned(),
        format!(
            r#"lexgate_attempts_total{{deployment="smollm2@laptop",status="503",failure="status"}} {tried}"#
        ),
        format!(r#"lexgate_attempt_seconds_count{{deployment="smollm2@laptop"}} {}"#, 2 + tried),
        r#"lexgate_tokens_total{deployment="smollm2@laptop",direction="input"} 22"#.to_owned(),
        r#"lexgate_tokens_total{deployment="smollm2@laptop",direction="output"} 14"#.to_owned(),
        r#"lexgate_in_flight{deployment="smollm2@laptop"} 0"#.to_owned(),
        "# HELP lexgate_attempts_total Attempts at a deployment that ended".to_owned(),
    ];
    loop {
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        let missing: Vec<_> = wanted.iter().filter(|line| !metrics.contains(*line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "{missing:#?} in\n{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_collector_that_cannot_be_one_is_refused() {
    let site = Service::setup(Store::Sqlite).prepare().await;
    let kept = site.read("config/lexgate.toml");
    let address = "the value is not the address of a collector";
    for (line, part) in [
        ("otlp_endpoint = \"127.0.0.1:4318\"", address),
        ("otlp_endpoint = \"http://u:hush@x\"", address),
        ("sample_ratio = 1.5", "the value is not a ratio"),
        ("otlp_endpont = \"http://x\"", "unknown field"),
    ] {
        site.append("config/lexgate.toml", &format!("[telemetry]\n{line}"));
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(1), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(part) && ran.stderr.contains("help: "), "{}", ran.stderr);
        assert!(ran.stderr.contains("config/lexgate.toml:"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
        site.write("config/lexgate.toml", &kept);
    }
    let mut command = site.command(&["serve"]);
    let ran = command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && said.contains("`http://`"), "{said}");
}
