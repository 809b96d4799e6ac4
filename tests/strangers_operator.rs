//! What an operator can tell: metrics from the first scrape on, lines of the log that name whose call failed
//! where and why, a store that cannot be reached, one that was replaced under a running service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lexgate::domain::Digest;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    backend::{Backend, answer},
    harness::{Answer, Service, Store, both_stores},
    standby::Pair,
    strangers_pages::metrics_of_the_documentation,
};

const CHAT: &str = "/v1/chat/completions";
const LAPTOP: &str = "smollm2@laptop";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];

fn chat() -> Value {
    json!({ "model": LAPTOP, "messages": [{ "role": "user", "content": "Good morning" }] })
}

fn call() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

async fn metrics(service: &Service) -> String {
    Answer::of(service.anonymous("GET", "/metrics")).await.text()
}

/// Waits, with patience, until the metrics have these lines.
async fn shows(service: &Service, lines: &[&str]) {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let text = metrics(service).await;
        let has = |line: &&&str| text.lines().any(|found| found == **line);
        let missing: Vec<_> = lines.iter().filter(|line| !has(line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "{missing:#?} in\n{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The names of labels of each metric in a scrape.
fn labels_of(scrape: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for line in scrape.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a series has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(*end).filter(|name| !name.ends_with("_total")))
            .unwrap_or(name);
        let names = labels.split("\",").filter_map(|label| label.split_once("=\""));
        let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
        found.entry(name.to_owned()).or_default().extend(names);
    }
    found
}

#[tokio::test]
async fn every_metric_is_there_from_the_start_and_in_the_documentation() {
    let backend = Backend::polite().await;
    let service = Service::setup(Store::Sqlite).backend(LAPTOP, &backend.url).start().await;
    // A first step is seen only where the step before it was.
    shows(
        &service,
        &[
            "lexgate_append_failures_total 0",
            "lexgate_publish_failures_total 0",
            "lexgate_signing_halted 0",
            "lexgate_late_outcomes_total 0",
            "lexgate_outcomes_total{status=\"unknown\"} 0",
            "lexgate_limited_total{measure=\"money\"} 0",
            "lexgate_decisions_total{decision=\"deny\",tier=\"none\"} 0",
            "lexgate_app_decisions_total{app=\"support-copilot\",decision=\"deny\"} 0",
            "lexgate_http_requests_total{operation=\"decide\",status=\"503\"} 0",
            "lexgate_http_requests_total{operation=\"createChatCompletion\",status=\"502\"} 0",
            "lexgate_attempts_total{deployment=\"smollm2@laptop\",failure=\"unreachable\"} 0",
            "lexgate_refused_total{operation=\"eraseSubject\"} 0",
            "lexgate_ready{check=\"write\"} 1",
            "lexgate_revision 1",
        ],
    )
    .await;
    let documented = metrics_of_the_documentation();
    let names = |scrape: &str| labels_of(scrape).into_keys().collect::<BTreeSet<_>>();
    let known: BTreeSet<String> = documented.keys().cloned().collect();
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let found = names(&metrics(&service).await);
        if found == known {
            break;
        }
        let (missing, unknown) = (known.difference(&found), found.difference(&known));
        let said = format!("missing {missing:?}, undocumented {unknown:?}");
        assert!(Instant::now() < patience, "{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    service.decide(&call()).await.expect(200);
    service.openai(CHAT, &HARMLESS, &chat()).await.expect(200);
    service.openai(CHAT, &[], &chat()).await.expect(403);
    let _ = Answer::of(service.anonymous("GET", "/MARKER?MARKER")).await;
    let _ = Answer::of(service.anonymous("DELETE", "/v1/subjects/MARKER?tenant=acme")).await;
    shows(
        &service,
        &[
            "lexgate_app_decisions_total{app=\"support-copilot\",decision=\"allow\"} 2",
            "lexgate_app_decisions_total{app=\"support-copilot\",decision=\"deny\"} 1",
            "lexgate_deciding_policies_total{app=\"support-copilot\",decision=\"deny\",policy=\"base-unclassified\"} 1",
            "lexgate_http_requests_total{operation=\"decide\",status=\"200\"} 1",
            "lexgate_http_requests_total{operation=\"createChatCompletion\",status=\"403\"} 1",
            "lexgate_http_requests_total{operation=\"other\",status=\"404\"} 1",
            "lexgate_http_requests_total{operation=\"eraseSubject\",status=\"401\"} 1",
            "lexgate_outcomes_total{status=\"ok\"} 1",
        ],
    )
    .await;
    let scrape = metrics(&service).await;
    assert!(!scrape.contains("MARKER"), "what somebody typed is no label: {scrape}");
    for (name, labels) in labels_of(&scrape) {
        let known = &documented[&name];
        assert!(labels.is_subset(known), "{name} has the labels {labels:?}, documented {known:?}");
    }
    assert_eq!(names(&scrape), known);
}

/// The lines of the log with this message.
fn lines(service: &Service, message: &str) -> Vec<Value> {
    let stderr = service.stderr();
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Waits, with patience, for a line of the log.
async fn line(service: &Service, message: &str) -> Value {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(line) = lines(service, message).pop() {
            return line;
        }
        assert!(Instant::now() < patience, "no line `{message}`: {}", service.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_line_about_a_failure_says_whose_call_failed_where_and_why() {
    let backend =
        Backend::start(|_| answer("500 Internal Server Error", "", b"out of memory")).await;
    let service = Service::setup(Store::Sqlite).backend(LAPTOP, &backend.url).start().await;
    let failed = service.openai(CHAT, &HARMLESS, &chat()).await;
    assert_eq!(failed.status, 502, "{}", failed.text());
    let decision = failed.header("x-lexgate-decision").expect("it was decided").to_owned();
    let attempt = line(&service, "an attempt failed").await;
    let answered = line(&service, "answered").await;
    for line in [&attempt, &answered] {
        assert_eq!(line["app"], "support-copilot", "{line}");
        assert_eq!(line["key"], "support-copilot", "{line}");
        assert_eq!(line["decision"], decision, "{line}");
    }
    assert_eq!((&attempt["deployment"], &attempt["why"]), (&json!(LAPTOP), &json!("status")));
    assert_eq!(attempt["status"], 500, "{attempt}");
    assert_eq!((&answered["cause"], &answered["status"]), (&json!("upstream_error"), &json!(502)));

    // A denial says which policy, and a refusal whose key.
    service.openai(CHAT, &[], &chat()).await.expect(403);
    service.get("/v1/audit/records", "caller").await.expect(403);
    // A line may come after what it is about.
    let patience = Instant::now() + Duration::from_secs(30);
    let seen = loop {
        let mut seen = lines(&service, "answered");
        seen.retain(|line| line["app"] == "support-copilot");
        if seen.len() >= 3 || Instant::now() > patience {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let cause = |line: &Value| line["cause"].as_str().unwrap_or_default().to_owned();
    let causes: Vec<String> = seen.iter().map(cause).collect();
    assert_eq!(causes, ["upstream_error", "base-unclassified", "forbidden"]);
    assert!(seen.iter().all(|line| line["key"] == "support-copilot"), "{seen:#?}");
    assert!(!service.stderr().contains("Good morning"), "no prompt is logged");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_named_with_the_cause() {
    let site = Service::setup(Store::Sqlite).prepare().await;
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("postgres://lexgate:hush@127.0.0.1:{port}/lexgate");
    let said = format!("the store at `127.0.0.1:{port}` cannot be reached: Connection refused");
    for (command, migrate) in [("migrate", "true"), ("serve", "true"), ("serve", "false")] {
        let mut ran = site.command(&[command]);
        ran.env("LEXGATE_STORE__URL", &url).env("LEXGATE_STORE__MIGRATE", migrate);
        let ran = ran.output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(&said), "{command} {migrate}: {stderr}");
        assert!(!stderr.contains("hush") && !stderr.contains("pool timed out"), "{stderr}");
    }
    let mut ran = site.command(&["migrate"]);
    ran.env("LEXGATE_STORE__URL", "postgres://lexgate:hush@nowhere.invalid/lexgate");
    let stderr = String::from_utf8_lossy(&ran.output().unwrap().stderr).into_owned();
    assert!(stderr.contains("the store at `nowhere.invalid:5432` cannot be reached: "), "{stderr}");
}

/// The address of a database, as a name or a balancer is one: whoever connects anew is led to the server that
/// is the primary then, and who is connected stays where he is.
struct Address {
    port: u16,
    leads_to: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl Address {
    async fn new(server: &str) -> Self {
        let leads_to = Arc::new(Mutex::new(server.to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut tasks, target) = (JoinSet::new(), leads_to.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let server = target.lock().unwrap().clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, leads_to, _tasks: tasks }
    }
}

/// Host and port of a database's address.
fn server(url: &str) -> String {
    url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned()
}

async fn entries(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("SELECT next FROM head").fetch_one(&mut connection).await.unwrap().get(0)
}

/// A planned switch: the old primary lives on and takes no writes, and nobody closes a connection to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_switched_is_left_though_it_lives_on() {
    let pair = Pair::start().await;
    let address = Address::new(&server(pair.primary())).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", address.port);
    let service = Service::setup(Store::Postgres).env("LEXGATE_STORE__URL", &url).start().await;
    for _ in 0..5 {
        service.decide(&call()).await.expect(200);
        // Readers are connected too.
        service.get("/v1/audit/records?limit=1", "auditor").await.expect(200);
    }
    let mut old = PgConnection::connect(pair.primary()).await.unwrap();
    for sql in ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"] {
        sqlx::query(sql).execute(&mut old).await.unwrap();
    }
    // What its administrator has set read-only is written to no more, whatever a session could override.
    let patience = Instant::now() + Duration::from_secs(60);
    while service.decide(&call()).await.status == 200 {
        assert!(Instant::now() < patience, "the server says read-only, and is written to");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left = entries(pair.primary()).await;
    pair.promote();
    address.leads_to.lock().unwrap().clone_from(&server(&pair.standby()));
    let switched = Instant::now();
    loop {
        let ready = service.get("/readyz", "caller").await;
        if ready.status == 200 && service.decide(&call()).await.status == 200 {
            break;
        }
        assert!(switched.elapsed() < Duration::from_secs(30), "{}", ready.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is read is of the new one, by every connection.
    let decided = service.decide(&call()).await.expect(200);
    let seq = decided["record"]["seq"].as_u64().unwrap();
    for _ in 0..20 {
        let found = service.get(&format!("/v1/audit/records/{seq}"), "auditor").await;
        assert_eq!(found.status, 200, "{}", found.text());
        let checkpoint = Answer::of(service.anonymous("GET", "/tlog/checkpoint")).await.text();
        let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
        assert!(size > seq, "an old checkpoint: {size}, and {seq} is written");
    }
    assert_eq!(entries(pair.primary()).await, left, "nothing is written to the old one");
    assert!(entries(&pair.standby()).await > left);
    assert!(metrics(&service).await.contains("lexgate_signing_halted 0"), "{}", service.stderr());
    service.export_and_verify();
}

both_stores! {
    async fn what_decided_can_be_read_over_http(store: Store) {
        let service = Service::setup(store)
            .key("sdaia", &["--role", "auditor", "--jurisdiction", "SA"])
            .start()
            .await;
        let decided = service.decide(&call()).await.expect(200);
        for name in ["bundle", "facts", "organisation", "registers"] {
            let digest = decided["snapshot"][name].as_str().unwrap();
            let path = format!("/v1/audit/contents/{digest}");
            let content = service.get(&path, "auditor").await;
            assert_eq!(content.status, 200, "{name}: {}", content.text());
            let found = Digest::of(&content.body).to_string();
            assert_eq!(found, digest, "{name}");
            service.get(&path, "caller").await.expect(403);
            service.get(&path, "sdaia").await.expect(403);
        }
        let bare = decided["snapshot"]["organisation"].as_str().unwrap().trim_start_matches("sha256:");
        let content = service.get(&format!("/v1/audit/contents/{bare}"), "auditor").await.text();
        assert_eq!(content, service.site.read("config/organisation.toml"));
        let unknown = format!("/v1/audit/contents/{}", Digest::of(b"nothing"));
        service.get(&unknown, "auditor").await.expect(404);
        service.get("/v1/audit/contents/..%2f..%2fconfig", "auditor").await.expect(404);
        let readings = service.records_matching("kind=audit_read").await;
        let of_contents = readings.iter().filter(|one| one["entry"]["body"]["operation"] == "readContent");
        assert_eq!(of_contents.count(), 6, "each reading is recorded, and a wrong path reads nothing");
    }

    async fn a_table_says_of_outcomes_whose_calls_they_end(store: Store) {
        let backend = Backend::polite().await;
        let service = Service::setup(store).backend(LAPTOP, &backend.url).start().await;
        let answered = service.openai(CHAT, &HARMLESS, &chat()).await;
        answered.expect(200);
        let seq = answered.header("x-lexgate-record").unwrap().to_owned();
        let decided = service.decide(&call()).await.expect(200);
        let report = format!("/v1/decisions/{}/outcome", decided["id"].as_str().unwrap());
        service.post(&report, "caller", &json!({ "status": "ok" })).await.expect(200);
        let patience = Instant::now() + Duration::from_secs(30);
        // Also where the decisions themselves are no part of the table.
        for query in ["", "&kind=outcome"] {
            let rows = loop {
                let table = service.get(&format!("/v1/audit/export?format=csv{query}"), "auditor").await;
                let text = table.text();
                let rows: Vec<BTreeMap<String, String>> = {
                    let mut lines = text.split("\r\n").map(|line| line.split(',').map(str::to_owned));
                    let head: Vec<String> = lines.next().unwrap().collect();
                    lines.map(|row| head.iter().cloned().zip(row).collect()).collect()
                };
                let outcomes = rows.into_iter().filter(|row: &BTreeMap<_, _>| row.get("kind").is_some_and(|kind| kind == "outcome"));
                let rows: Vec<_> = outcomes.collect();
                if rows.len() == 2 {
                    break rows;
                }
                assert!(Instant::now() < patience, "{text}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            for row in &rows {
                assert_eq!((&*row["app"], &*row["tenant"], &*row["key"]), ("support-copilot", "acme", "support-copilot"), "{row:?}");
                assert_eq!((&*row["decision"], &*row["action"]), ("allow", "infer"), "{row:?}");
            }
            assert!(rows.iter().any(|row| row["decision_seq"] == seq), "{rows:?}");
        }
    }
}
