//! What Lexgate needs to reach a backend: its key, its certificates, its time. Keys change while the
//! service runs and are seen by nobody but the backend; whoever cannot be reached safely is not asked.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    backend::{Backend, Step, answer, chunk, completion, piece, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const LAPTOP: &str = "smollm2@laptop";
const CONFIG: &str = "config/lexgate.toml";
const KEY: &str = "data/backend.key";

fn chat() -> Value {
    json!({ "model": LAPTOP, "messages": [{"role": "user", "content": "Good morning"}] })
}

/// The example with `url` behind the on-device deployment, which is asked nothing but the calls.
fn with(url: &str) -> Setup {
    Service::setup(Store::Sqlite)
        .backend(LAPTOP, url)
        .reached(LAPTOP, "probe_interval = \"1h\"\nbreaker_failures = 100")
}

/// The same with a key, which is where `place` says.
fn with_secret(url: &str, place: &str) -> Setup {
    with(url)
        .reached(LAPTOP, "api_key = \"laptop\"")
        .append(CONFIG, &format!("[secrets.laptop]\n{place}"))
        .file(KEY, "first\n")
}

async fn call(service: &Service) -> Answer {
    service.openai(CHAT, &HARMLESS, &chat()).await
}

/// The keys that a backend was sent, in the order of the calls.
fn keys(backend: &Backend) -> Vec<String> {
    let key = |seen: &crate::backend::Seen| seen.header("authorization").unwrap_or("").to_owned();
    backend.seen().iter().map(key).collect()
}

/// How each call's last attempt failed.
async fn failures(service: &Service) -> Vec<Value> {
    let outcomes = outcomes(service).await;
    let failure = |outcome: &Value| {
        let attempts = outcome["attempts"].as_array().unwrap();
        attempts.last().map_or(Value::Null, |attempt| attempt["failure"].clone())
    };
    outcomes.iter().map(failure).collect()
}

/// No connection was made for the calls, whether they were tried or the probes had been there before.
async fn never_reached(service: &Service) {
    for outcome in outcomes(service).await {
        let attempts = outcome["attempts"].as_array().unwrap();
        let all = attempts.iter().all(|attempt| attempt["failure"] == "unreachable");
        let is_passed_over = outcome["skipped"][0]["reason"] == "unhealthy";
        assert!(all && (is_passed_over || !attempts.is_empty()), "{outcome}");
    }
}

#[tokio::test]
async fn a_key_in_a_file_changes_while_the_service_runs() {
    let backend = Backend::polite().await;
    let service = with_secret(&backend.url, &format!("file = \"{KEY}\"")).start().await;
    call(&service).await.expect(200);
    service.site.write(KEY, "second\n");
    call(&service).await.expect(200);
    std::fs::remove_file(service.site.path(KEY)).unwrap();
    let answer = call(&service).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.text().contains("laptop") && !answer.text().contains(KEY), "{}", answer.text());
    service.site.write(KEY, "third\n");
    call(&service).await.expect(200);
    assert_eq!(keys(&backend), ["Bearer first", "Bearer second", "Bearer third"]);
    assert_eq!(failures(&service).await, [json!(null), json!(null), json!("no_key"), json!(null)]);
    assert!(service.stderr().contains("the key `laptop` is not there"), "{}", service.stderr());
}

#[tokio::test]
async fn a_command_is_asked_again_when_its_key_is_refused() {
    let accepted = Arc::new(Mutex::new("Bearer first".to_owned()));
    let wanted = accepted.clone();
    let backend = Backend::start(move |seen| {
        let is_right = seen.header("authorization") == Some(wanted.lock().unwrap().as_str());
        if is_right { whole(&completion()) } else { answer("401 Unauthorized", "", b"") }
    })
    .await;
    let service = with_secret(&backend.url, &format!("command = [\"cat\", \"{KEY}\"]"));
    let service = service.start().await;
    call(&service).await.expect(200);
    // The command would say something else by now, and there is no reason to ask it.
    service.site.write(KEY, "second\nand more\n");
    call(&service).await.expect(200);
    *accepted.lock().unwrap() = "Bearer second".to_owned();
    call(&service).await.expect(502);
    call(&service).await.expect(200);
    let (first, second) = ("Bearer first", "Bearer second");
    assert_eq!(keys(&backend), [first, first, first, second]);
}

#[tokio::test]
async fn a_command_s_key_is_asked_for_again_in_time() {
    let backend = Backend::polite().await;
    let place = format!("command = [\"cat\", \"{KEY}\"]\nrefresh = \"1s\"");
    let service = with_secret(&backend.url, &place).start().await;
    call(&service).await.expect(200);
    service.site.write(KEY, "second\n");
    let patience = Instant::now() + Duration::from_secs(15);
    while keys(&backend).last().map(String::as_str) != Some("Bearer second") {
        assert!(Instant::now() < patience, "the command is not asked again");
        call(&service).await.expect(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn anthropic_s_api_gets_the_key_where_it_looks_for_it() {
    let backend = Backend::start(|_| {
        whole(&json!({ "type": "message", "model": "served-model", "content": [],
            "usage": { "input_tokens": 1, "output_tokens": 1 } }))
    })
    .await;
    let service = with_secret(&backend.url, &format!("file = \"{KEY}\"")).start().await;
    let mut body = chat();
    body["max_tokens"] = json!(8);
    service.openai("/v1/messages", &HARMLESS, &body).await.expect(200);
    let seen = backend.seen();
    assert_eq!(seen[0].header("authorization"), None, "a key in two places is refused by some");
    assert_eq!(seen[0].header("x-api-key"), Some("first"));
    assert_eq!(seen[0].header("anthropic-version"), Some("2023-06-01"));
    service.openai(CHAT, &HARMLESS, &chat()).await;
    assert_eq!(backend.seen()[1].header("authorization"), Some("Bearer first"));
    assert_eq!(backend.seen()[1].header("x-api-key"), None);

    // Another server that offers the same API may read keys as OpenAI does.
    let service =
        with_secret(&backend.url, &format!("file = \"{KEY}\"")).reached(LAPTOP, "api = \"openai\"");
    let service = service.start().await;
    service.openai("/v1/messages", &HARMLESS, &body).await.expect(200);
    assert_eq!(backend.seen()[2].header("authorization"), Some("Bearer first"));
    assert_eq!(backend.seen()[2].header("x-api-key"), None);
}

#[tokio::test]
async fn a_key_is_seen_by_nobody_but_the_backend() {
    let places = [
        ("env = \"LAPTOP_KEY\"", 200),
        (r#"file = "data/backend.key""#, 200),
        (r#"command = ["cat", "data/backend.key"]"#, 200),
        (
            r#"command = ["sh", "-c", "cat data/backend.key; cat data/backend.key >&2; exit 1"]"#,
            503,
        ),
        (r#"command = ["sh", "-c", "printf 'SECRET\\033MARKER'"]"#, 503),
        (r#"command = ["true"]"#, 503),
    ];
    let backend = Backend::polite().await;
    for (place, status) in places {
        let service = with_secret(&backend.url, place)
            .file(KEY, "SECRET-MARKER")
            .env("LAPTOP_KEY", "SECRET-MARKER")
            .env("LEXGATE_LOG", "trace")
            .start()
            .await;
        let before = backend.seen().len();
        let answer = call(&service).await;
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
        if status == 200 {
            assert_eq!(keys(&backend)[before..], ["Bearer SECRET-MARKER"], "{place}");
        } else {
            assert_eq!(failures(&service).await, ["no_key"], "{place}");
        }
        let openapi = Answer::of(service.anonymous("GET", "/openapi.json")).await.text();
        let records = json!(service.records().await).to_string();
        for shown in [service.stderr(), answer.text(), records, openapi] {
            assert!(!shown.is_empty() && !shown.contains("MARKER"), "{place}: {shown}");
        }
    }
}

/// A certificate authority, and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A server of TLS before `backend`, with a certificate for `name`, and its URL.
    async fn before(&self, backend: &Backend, name: &str) -> (String, JoinSet<()>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/v1", listener.local_addr().unwrap());
        let behind = backend.url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                connections.spawn(async move {
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        (url, tasks)
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_no_other() {
    const CA: &str = "data/ca.pem";
    let (ours, theirs) = (Authority::new(), Authority::new());
    let backend = Backend::polite().await;
    let (url, _tasks) = ours.before(&backend, "127.0.0.1").await;
    let service = with_secret(&url, &format!("file = \"{KEY}\""))
        .reached(LAPTOP, &format!("ca_file = \"{CA}\""))
        .append(CONFIG, &format!("[backends]\nca_files = [\"{CA}\"]"))
        .file(CA, &ours.pem)
        .start()
        .await;
    call(&service).await.expect(200);
    assert_eq!(keys(&backend), ["Bearer first"]);
    // Another authority, none at all, none that could be read: nobody is asked.
    let refuse = async |why: &str| {
        let answer = call(&service).await;
        let text = answer.text();
        assert_eq!(answer.status, 503, "{why}: {text}");
        assert!(["ertificate", CA, "127.0.0.1"].iter().all(|word| !text.contains(word)), "{text}");
    };
    service.site.write(CA, &theirs.pem);
    refuse("another authority").await;
    service.site.write(CA, "none");
    refuse("no certificate").await;
    std::fs::remove_file(service.site.path(CA)).unwrap();
    refuse("no file").await;
    assert_eq!(backend.seen().len(), 1, "a backend that nobody vouches for was sent a call");
    service.site.write(CA, &format!("{}{}", theirs.pem, ours.pem));
    call(&service).await.expect(200);
    let failed = vec![json!("unreachable"); 3];
    assert_eq!(failures(&service).await[1..4], failed);
    let log = service.stderr();
    for said in ["invalid peer certificate", "holds no certificate", "cannot be read"] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[tokio::test]
async fn a_certificate_must_be_the_host_s_and_of_a_known_authority() {
    let authority = Authority::new();
    let backend = Backend::polite().await;
    let (other, _tasks) = authority.before(&backend, "other.example").await;
    let (unknown, _more) = authority.before(&backend, "127.0.0.1").await;
    for (url, ca) in [(other, Some("data/ca.pem")), (unknown, None)] {
        let setup = with(&url).file("data/ca.pem", &authority.pem);
        let setup = match ca {
            Some(ca) => setup
                .reached(LAPTOP, &format!("ca_file = \"{ca}\""))
                .append(CONFIG, &format!("[backends]\nca_files = [\"{ca}\"]")),
            None => setup,
        };
        let service = setup.start().await;
        call(&service).await.expect(503);
        never_reached(&service).await;
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn without_an_authority_of_its_own_a_backend_is_held_to_the_system_s() {
    const ROOTS: &str = "data/roots.pem";
    let authority = Authority::new();
    let backend = Backend::polite().await;
    let (url, _tasks) = authority.before(&backend, "127.0.0.1").await;
    let service = with_secret(&url, &format!("file = \"{KEY}\""))
        .file(ROOTS, &authority.pem)
        .env("SSL_CERT_FILE", ROOTS)
        .start()
        .await;
    call(&service).await.expect(200);
    assert_eq!(keys(&backend), ["Bearer first"]);
}

#[tokio::test]
async fn no_proxy_of_the_environment_comes_between() {
    let (backend, proxy) = (Backend::polite().await, Backend::polite().await);
    let mut setup = with(&backend.url);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        setup = setup.env(name, proxy.url.trim_end_matches("/v1"));
    }
    for name in ["no_proxy", "NO_PROXY"] {
        setup = setup.env(name, "");
    }
    let service = setup.start().await;
    call(&service).await.expect(200);
    assert_eq!(backend.seen().len(), 1);
    assert!(proxy.seen().is_empty(), "{:?}", proxy.seen());
}

#[tokio::test]
async fn each_phase_of_a_call_has_its_own_limit() {
    type Script = Box<dyn Fn() -> Vec<Step> + Send + Sync>;
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let half = move || vec![Step::Send(head.to_vec()), Step::Hang];
    let pause = || Step::Wait(Duration::from_millis(150));
    let drip = move || {
        let pieces = (0..100).flat_map(move |_| [piece(chunk("drip ")), pause()]);
        std::iter::once(stream_head()).chain(pieces).collect::<Vec<Step>>()
    };
    let hangs = || vec![Step::Hang];
    let says_little = || vec![stream_head(), Step::Hang];
    let stalls = || vec![stream_head(), piece(chunk("one")), Step::Hang];
    // What the backend does, the limit that ends it, whether a stream is asked for, the answer's status.
    let cases: [(Script, &str, bool, u16); 7] = [
        (Box::new(hangs), "answer_timeout", false, 504),
        (Box::new(hangs), "first_byte_timeout", true, 504),
        (Box::new(says_little), "first_byte_timeout", true, 504),
        (Box::new(half), "chunk_timeout", false, 504),
        (Box::new(stalls), "chunk_timeout", true, 200),
        (Box::new(hangs), "total_timeout", false, 504),
        (Box::new(drip), "total_timeout", true, 200),
    ];
    for (index, (script, limit, stream, status)) in cases.into_iter().enumerate() {
        let backend = Backend::start(move |_| script()).await;
        let service = with(&backend.url).reached(LAPTOP, &format!("{limit} = \"700ms\""));
        let service = service.start().await;
        let mut body = chat();
        body["stream"] = json!(stream);
        let started = Instant::now();
        let answer = service.openai(CHAT, &HARMLESS, &body).await;
        let took = started.elapsed();
        assert_eq!(answer.status, status, "{index} {limit}: {}", answer.text());
        assert!(took > Duration::from_millis(600), "{index} {limit}: {took:?}");
        assert!(took < Duration::from_secs(10), "{index} {limit}: {took:?}");
        if status == 200 {
            let text = answer.text();
            assert!(text.contains("upstream_error") && !text.contains("[DONE]"), "{text}");
        }
        let outcome = &outcomes(&service).await[0];
        assert_eq!(outcome["status"], "timeout", "{index} {limit}: {outcome}");
        assert_eq!(failures(&service).await, ["timeout"], "{index} {limit}");
    }
}

#[tokio::test]
async fn a_backend_that_is_no_place_to_connect_to_is_down() {
    // It takes connections and never says a word of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", silent.local_addr().unwrap());
    let service = with(&url).reached(LAPTOP, "connect_timeout = \"300ms\"").start().await;
    let answer = call(&service).await.expect(503);
    assert_eq!(answer["error"]["code"], "upstream_down");
    never_reached(&service).await;
}
