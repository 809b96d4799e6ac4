//! Callers who hold connections, bodies and answers: none of them is heavy for the others.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    backend::{Backend, Step, chunk, completion, piece, stream_end, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Ran, Service, Setup, Store, TempDir, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const LAPTOP: &str = "smollm2@laptop";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
/// How long a busy machine may take for what is done at once.
const PATIENCE: Duration = Duration::from_secs(40);

fn chat() -> Value {
    json!({ "model": LAPTOP, "messages": [{"role": "user", "content": "Good morning"}] })
}

fn setup() -> Setup {
    Service::setup(Store::Sqlite)
}

async fn connect(service: &Service) -> TcpStream {
    let address = service.url().trim_start_matches("http://");
    TcpStream::connect(address).await.expect("the service listens")
}

/// A connection from another address of this machine.
async fn connect_from(service: &Service, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let address = service.url().trim_start_matches("http://");
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// What comes until the other side closes, in time.
async fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it is closed in time");
    String::from_utf8_lossy(&read).into_owned()
}

/// The head of a request with a body of `length` bytes.
fn head(service: &Service, path: &str, key: &str, length: usize) -> String {
    let host = service.url().trim_start_matches("http://");
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// The most memory that the process has had, in MiB.
fn peak(service: &Service) -> u64 {
    let path = format!("/proc/{}/status", service.id());
    let text = std::fs::read_to_string(path).expect("the process lives");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says it");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn half_open_requests_shut_nobody_out() {
    let backend = Backend::polite().await;
    let site = Arc::new(setup().backend(LAPTOP, &backend.url).prepare().await);
    let service = Service::on_by(site, &["prlimit", "--nofile=256"]).await;
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut stream = connect(&service).await;
        // What was closed to make room cannot be written to.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await;
        held.push(stream);
    }
    for _ in 0..5 {
        let asked = Answer::of(service.anonymous("GET", "/healthz"));
        timeout(PATIENCE, asked).await.expect("a new client is answered").expect(200);
        // Store and backends have files of their own.
        service.openai(CHAT, &HARMLESS, &chat()).await.expect(200);
        held.push(connect(&service).await);
    }
    assert_eq!(outcomes(&service).await.len(), 5);
    assert_eq!(backend.seen().len(), 5);
    drop(held);
}

#[tokio::test]
async fn headers_and_rests_have_an_end() {
    let service = setup()
        .env("LEXGATE_SERVER__HEADER_TIMEOUT", "1s")
        .env("LEXGATE_SERVER__IDLE_TIMEOUT", "2s")
        .start()
        .await;
    let mut half_open = connect(&service).await;
    half_open.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(rest(&mut half_open).await, "");
    let mut silent = connect(&service).await;
    assert_eq!(rest(&mut silent).await, "");
    let mut dripping = connect(&service).await;
    let dripped = async {
        let mut n = 0;
        while dripping.write_all(b"GET /healthz HTTP/1.1\r\nx-1: y\r\n").await.is_ok() {
            n += 1;
            sleep(Duration::from_millis(100)).await;
        }
        n
    };
    assert!(timeout(PATIENCE, dripped).await.expect("it is cut off") < 300);
    let mut idle = connect(&service).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_address_leaves_places_to_others() {
    let service = setup()
        .env("LEXGATE_SERVER__MAX_CONNECTIONS", "20")
        .env("LEXGATE_SERVER__MAX_CONNECTIONS_PER_ADDRESS", "4")
        .env("LEXGATE_SERVER__BODY_TIMEOUT", "10m")
        .start()
        .await;
    let key = service.site.key("caller").to_owned();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect_from(&service, "127.0.0.7").await;
        stream.write_all(head(&service, "/v1/decisions", &key, 100).as_bytes()).await.unwrap();
        held.push(stream);
    }
    // Whether they are served already shows in whether a fifth one gets a place.
    let full = async {
        loop {
            let mut fifth = connect_from(&service, "127.0.0.7").await;
            let mut read = [0; 12];
            let told = timeout(Duration::from_millis(500), fifth.read_exact(&mut read)).await;
            if matches!(told, Ok(Ok(_))) {
                return String::from_utf8_lossy(&read).into_owned();
            }
            // It took the place of one whose headers had not been read.
            let mut again = connect_from(&service, "127.0.0.7").await;
            let half = head(&service, "/v1/decisions", &key, 100);
            let _ = again.write_all(half.as_bytes()).await;
            held.push(again);
        }
    };
    assert_eq!(timeout(PATIENCE, full).await.expect("there is no room"), "HTTP/1.1 503");
    Answer::of(service.anonymous("GET", "/healthz")).await.expect(200);
    let mut other = connect_from(&service, "127.0.0.8").await;
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut other).await.starts_with("HTTP/1.1 200"));
    drop(held);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let service = setup().env("LEXGATE_SERVER__BODY_TIMEOUT", "1s").start().await;
    let key = service.site.key("caller").to_owned();
    // As long as each of them takes.
    for (path, length, words) in [
        (CHAT, 1_000_000, "slow-body"),
        ("/v1/decisions", 200_000, "urn:lexgate:problem:slow-body"),
    ] {
        for drips in [false, true] {
            let mut stream = connect(&service).await;
            stream.write_all(head(&service, path, &key, length).as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let drip = async {
                while writer.write_all(b" ").await.is_ok() && drips {
                    sleep(Duration::from_millis(50)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut read = Vec::new();
            tokio::select! {
                () = drip => {}
                _ = timeout(PATIENCE, reader.read_to_end(&mut read)) => {}
            }
            let text = String::from_utf8_lossy(&read);
            assert!(text.starts_with("HTTP/1.1 408") && text.contains(words), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn who_sends_a_large_body_for_nothing_hears_why() {
    let service = Service::start(Store::Sqlite).await;
    let body = vec![b' '; 4 << 20];
    for path in [CHAT, "/v1/decisions", "/v1/nowhere"] {
        let mut stream = connect(&service).await;
        let head = head(&service, path, "wrong", body.len());
        stream
            .write_all(head.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1).as_bytes())
            .await
            .unwrap();
        stream.write_all(&body).await.expect("all of it is taken");
        let answer = rest(&mut stream).await;
        let status = if path == "/v1/nowhere" { "HTTP/1.1 404" } else { "HTTP/1.1 401" };
        assert!(answer.starts_with(status), "{path}: {answer}");
    }
    // Who asks first whether it is wanted is told at once, and sends nothing.
    let mut stream = connect(&service).await;
    let head = head(&service, CHAT, "wrong", body.len());
    let head = head.replacen("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n", 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn large_bodies_take_no_more_than_there_is() {
    let backend = Backend::start(|_| {
        [vec![Step::Wait(Duration::from_secs(2))], whole(&completion())].concat()
    })
    .await;
    let service = setup()
        .backend(LAPTOP, &backend.url)
        .env("LEXGATE_SERVER__BODY_BUDGET", "64MiB")
        .start()
        .await;
    let mut body = chat();
    body["messages"][0]["content"] = "x".repeat(10 << 20).into();
    let text = body.to_string();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let request = service.request("POST", CHAT, "caller").body(text.clone());
        let request = request.header("content-type", "application/json");
        calls.spawn(Answer::of(request.header("x-lexgate-personal", "false")));
    }
    let answers = calls.join_all().await;
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 200);
    assert!(!good.is_empty() && !refused.is_empty(), "{} of 20", good.len());
    for answer in refused {
        assert_eq!(answer.expect(503)["error"]["code"], "overloaded");
        assert!(answer.header("retry-after").is_some());
    }
    let found = outcomes(&service).await;
    assert_eq!(found.iter().filter(|one| one["status"] == "ok").count(), good.len());
    assert_eq!(backend.seen().len(), good.len());
    let peak = peak(&service);
    assert!(peak < 550, "{peak} MiB for bodies of which an app may have 32 MiB");
    // What was used is given back.
    service.openai(CHAT, &HARMLESS, &body).await.expect(200);
    // One without a length is counted as it comes.
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let endless = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = service.request("POST", CHAT, "caller").body(endless);
    let request = request.header("content-type", "application/json");
    let answer = Answer::of(request).await;
    assert!([413, 503].contains(&answer.status), "{}", answer.text());
}

#[tokio::test]
async fn a_full_app_is_refused_before_its_body_is_read() {
    let backend = Backend::start(|_| vec![Step::Hang]).await;
    let service = setup()
        .backend(LAPTOP, &backend.url)
        .organisation_with(
            "id = \"support-copilot\"\n",
            "id = \"support-copilot\"\nlimits.concurrent = 1\n",
        )
        .env("LEXGATE_SERVER__BODY_TIMEOUT", "10m")
        .start()
        .await;
    let request = with_json(service.request("POST", CHAT, "caller"), &chat());
    let mut first = JoinSet::new();
    first.spawn(request.header("x-lexgate-personal", "false").send());
    let until = Instant::now() + PATIENCE;
    while backend.seen().is_empty() {
        assert!(Instant::now() < until, "the first call is sent");
        sleep(Duration::from_millis(50)).await;
    }
    // The rest of this body never comes.
    let mut stream = connect(&service).await;
    let key = service.site.key("caller");
    let head = head(&service, CHAT, key, 1_000_000);
    let head = head.replacen("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n", 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    drop(first);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_little() {
    let large = "y".repeat(512 << 10);
    let events: Vec<Step> = (0..400).map(|_| piece(chunk(&large))).collect();
    let backend = Backend::start(move |_| {
        let end = [piece("data: [DONE]\n\n"), stream_end()];
        std::iter::once(stream_head()).chain(events.clone()).chain(end).collect()
    })
    .await;
    let service = setup()
        .backend(LAPTOP, &backend.url)
        .env("LEXGATE_SERVER__IDLE_TIMEOUT", "3s")
        .start()
        .await;
    let before = peak(&service);
    let mut body = chat();
    body["stream"] = json!(true);
    let text = body.to_string();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&service).await;
        let head = head(&service, CHAT, service.site.key("caller"), text.len());
        let head = head.replacen("\r\n\r\n", "\r\nx-lexgate-personal: false\r\n\r\n", 1);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    // Each is cut off in the end, and its call recorded as one whose client has gone.
    let until = Instant::now() + PATIENCE;
    let found = loop {
        let found = service.records_of("outcome").await;
        if found.len() == 4 {
            break found;
        }
        assert!(Instant::now() < until, "{} outcomes", found.len());
        sleep(Duration::from_millis(200)).await;
    };
    for outcome in &found {
        assert_eq!(outcome["entry"]["body"]["status"], "client_disconnected", "{outcome}");
    }
    // 200 MB were there for each; sockets hold some of it.
    assert!(backend.written() < 4 * (40 << 20), "{} bytes", backend.written());
    let grown = peak(&service) - before;
    assert!(grown < 90, "{grown} MiB for four clients");
    drop(clients);
}

#[tokio::test]
async fn a_witness_that_talks_without_end_is_not_listened_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = TempDir::new();
    let init = ["witness", "init", "--json", "--name", "w.example", "--key-file", "witness.key"];
    let vkey = Ran::in_dir(dir.path(), &init).json()["vkey"].as_str().unwrap().to_owned();
    let site = setup().prepare().await;
    let witness = format!("[[ledger.witnesses]]\nurl = \"{url}\"\nkey = \"{vkey}\"\n");
    site.append("config/lexgate.toml", &witness);
    let service = Service::on(Arc::new(site)).await;
    let before = peak(&service);
    let bomb = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 629145600\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (piece, mut written) = (vec![b'x'; 1 << 20], 0);
        while written < 600 && stream.write_all(&piece).await.is_ok() {
            written += 1;
        }
        written
    };
    let written = timeout(PATIENCE, bomb).await.expect("a witness is asked");
    assert!(written < 100, "{written} MiB were taken");
    let grown = peak(&service) - before;
    assert!(grown < 60, "{grown} MiB for the word of a witness");
}
