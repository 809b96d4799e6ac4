//! What the ledger holds after power cuts, databases that stop or hang, and orderly ends: every
//! answer that was given, and exactly one outcome for every call that was sent.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::{
    backend::{Backend, Step, chunk, completion, events, piece, stream_end, stream_head, whole},
    gateway::outcomes,
    harness::{Answer, Service, Setup, Store, both_stores, signal, with_json},
};

/// How long a refusal may take: two seconds, and what a busy machine adds.
const PROMPT: Duration = Duration::from_secs(6);
/// How long a call may take that is answered; the backend's own time is in it.
const ANY: Duration = Duration::from_secs(30);

fn harmless() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

/// A client that outlives the service.
struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
}

/// What a call was answered.
#[derive(Clone, Debug)]
struct Told {
    status: u16,
    retry_after: bool,
    took: Duration,
    /// The record's position, and its leaf where the answer names it.
    record: Option<(u64, Option<String>)>,
    text: String,
}

impl Client {
    fn of(service: &Service) -> Self {
        Self::to(service.url(), service.site.key("caller"))
    }

    fn to(url: &str, key: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(ANY).build().unwrap();
        Self { http, url: url.to_owned(), key: key.to_owned() }
    }

    /// `None`: the connection broke.
    async fn post(&self, path: &str, body: &Value) -> Option<Told> {
        let started = Instant::now();
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key);
        let request = request
            .header("content-type", "application/json")
            .header("x-lexgate-personal", "false")
            .body(body.to_string());
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").is_some();
        let named = header("x-lexgate-record").map(|text| (text.parse().unwrap(), None));
        let text = response.text().await.ok()?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let record = match json["record"]["seq"].as_u64() {
            Some(seq) => Some((seq, json["record"]["leaf"].as_str().map(str::to_owned))),
            None => named,
        };
        Some(Told { status, retry_after, took: started.elapsed(), record, text })
    }

    async fn decide(&self) -> Option<Told> {
        self.post("/v1/decisions", &harmless()).await
    }

    async fn chat(&self, stream: bool) -> Option<Told> {
        let body = json!({ "model": "smollm2@laptop", "messages": [], "stream": stream });
        self.post("/v1/chat/completions", &body).await
    }

    /// One of three kinds of call.
    async fn call(&self, kind: usize) -> Option<Told> {
        match kind % 3 {
            0 => self.decide().await,
            1 => self.chat(false).await,
            _ => self.chat(true).await,
        }
    }

    /// `workers` call again and again until `stop`, or until their connection breaks. Counts the
    /// calls that a backend answered.
    async fn load(&self, workers: usize, stop: &AtomicBool, count: &AtomicUsize) -> Vec<Told> {
        let work = async |worker: usize| {
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Some(answer) = self.call(worker).await else { break };
                let is_served = !worker.is_multiple_of(3) && answer.status == 200;
                count.fetch_add(usize::from(is_served), Ordering::Relaxed);
                if answer.status == 503 {
                    // As `Retry-After` asks, but sooner.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                told.push(answer);
            }
            told
        };
        join_all((0..workers).map(work)).await.into_iter().flatten().collect()
    }
}

/// A backend that takes its time.
async fn slow_backend() -> Backend {
    Backend::start(|seen| {
        let wait = Step::Wait(Duration::from_millis(250));
        if seen.json()["stream"] != true {
            return std::iter::once(wait).chain(whole(&completion())).collect();
        }
        let mut steps = vec![stream_head(), piece(chunk("Wait")), wait];
        steps.extend(events().into_iter().map(piece));
        steps.push(stream_end());
        steps
    })
    .await
}

fn with(store: Store, backend: &Backend) -> Setup {
    Service::setup(store).backend("smollm2@laptop", &backend.url)
}

/// Everything that was answered is in the ledger, where the answer said; the ledger holds; every
/// call that was sent has one outcome. Returns how often each outcome is there.
async fn all_is_recorded(service: &Service, told: &[Told]) -> BTreeMap<String, usize> {
    let mut statuses = BTreeMap::new();
    for outcome in outcomes(service).await {
        *statuses.entry(outcome["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let mut leaves = BTreeMap::new();
    for record in service.records_of("decision").await {
        let leaf = record["leaf"].as_str().unwrap().to_owned();
        leaves.insert(record["seq"].as_u64().unwrap(), leaf);
    }
    let mut answered: Vec<u64> = Vec::new();
    for (seq, leaf) in told.iter().filter_map(|told| told.record.as_ref()) {
        let recorded = leaves.get(seq).unwrap_or_else(|| panic!("record {seq} is lost"));
        assert!(leaf.as_ref().is_none_or(|leaf| leaf == recorded), "record {seq} is another");
        answered.push(*seq);
    }
    answered.sort_unstable();
    assert!(answered.windows(2).all(|pair| pair[0] < pair[1]), "two answers share a record");
    for told in told.iter().filter(|told| told.status == 200) {
        assert!(told.record.is_some(), "an answer without a record: {}", told.text);
    }
    let report = service.export_and_verify();
    assert_eq!(report["kinds"]["decision"], json!(leaves.len()), "{report}");
    statuses
}

/// No answer but success and prompt refusals that say when to come back.
fn refused_promptly(told: &[Told]) -> usize {
    let refused: Vec<_> = told.iter().filter(|told| told.status != 200).collect();
    for told in &refused {
        assert_eq!(told.status, 503, "{}", told.text);
        assert!(told.retry_after, "{}", told.text);
        assert!(told.took < PROMPT, "{:?} {}", told.took, told.text);
    }
    refused.len()
}

async fn sleep(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Waits until `count` has grown by `more`.
async fn progress(count: &AtomicUsize, more: usize) {
    let (patience, want) = (Instant::now() + ANY, count.load(Ordering::Relaxed) + more);
    while count.load(Ordering::Relaxed) < want {
        assert!(Instant::now() < patience, "the service does not answer any more");
        sleep(20).await;
    }
}

both_stores! {
    async fn a_power_cut_under_load_loses_no_answer(store: Store) {
        let backend = slow_backend().await;
        let mut service = with(store, &backend).start().await;
        let client = Client::of(&service);
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let cut = async {
            // Outcomes of the first calls, and the next calls, are on their way by then.
            progress(&count, 300).await;
            service.crash();
        };
        let (told, ()) = join(client.load(300, &stop, &count), cut).await;
        assert!(told.len() >= 300);
        service.start_again().await;
        let statuses = all_is_recorded(&service, &told).await;
        let unknown = statuses["unknown"];
        assert!(unknown > 0, "no call was cut: {statuses:?}");
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        let counted = format!("lexgate_outcomes_total{{status=\"unknown\"}} {unknown}\n");
        assert!(metrics.contains(&counted), "who writes them counts them: {unknown}, {metrics}");
        // It works as before.
        let client = Client::of(&service);
        assert_eq!(client.chat(true).await.unwrap().status, 200);
        all_is_recorded(&service, &told).await;
    }

    async fn a_first_answer_survives_a_power_cut(store: Store) {
        let mut service = Service::start(store).await;
        let ask = async |service: &Service| {
            let request = service.request("POST", "/v1/decisions", "caller");
            let request = request.header("idempotency-key", "order-1");
            Answer::of(with_json(request, &harmless())).await.expect(200)
        };
        let first = ask(&service).await;
        service.crash();
        service.start_again().await;
        assert_eq!(ask(&service).await, first);
        assert_eq!(service.records_of("decision").await.len(), 1);
    }

    async fn a_signal_ends_the_service_after_what_it_accepted(store: Store) {
        let backend = Backend::start(|seen| {
            let wait = Step::Wait(Duration::from_millis(1_500));
            if seen.json()["stream"] != true {
                return std::iter::once(wait).chain(whole(&completion())).collect();
            }
            let mut steps = vec![stream_head(), piece(chunk("Wait")), wait];
            steps.extend(events().into_iter().map(piece));
            steps.push(stream_end());
            steps
        })
        .await;
        let service = with(store, &backend).start().await;
        let (client, site) = (Client::of(&service), service.site.clone());
        let calls = join_all((0..10).map(|n| client.chat(n % 2 == 0)));
        let end = async {
            let patience = Instant::now() + ANY;
            while backend.seen().len() < 10 {
                assert!(Instant::now() < patience, "the calls do not reach the backend");
                sleep(10).await;
            }
            let end = tokio::task::spawn_blocking(move || service.terminate());
            sleep(200).await;
            // A connection of its own: those that are open are finished.
            let late = Client::to(&client.url, &client.key);
            let refused = late.decide().await.is_none_or(|told| told.status == 503);
            assert!(refused, "a call was accepted after the signal");
            end.await.unwrap()
        };
        let started = Instant::now();
        let (told, status) = join(calls, end).await;
        assert_eq!(status.code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(15));
        for told in told {
            let told = told.expect("an accepted call is finished");
            assert_eq!(told.status, 200, "{}", told.text);
            let is_whole = told.text.ends_with("data: [DONE]\n\n");
            let is_one = is_whole || serde_json::from_str::<Value>(&told.text).ok() == Some(completion());
            assert!(is_one, "{}", told.text);
        }
        let service = Service::on(site).await;
        let statuses = all_is_recorded(&service, &[]).await;
        assert_eq!(statuses, BTreeMap::from([("ok".to_owned(), 10)]));
    }
}

/// A Postgres cluster of a test's own, which it may stop.
pub(crate) struct Cluster {
    child: Child,
    pub(crate) url: String,
    pub(crate) ctl: String,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let print =
            r#"echo "$LEXGATE_TEST_POSTGRES"; echo "$LEXGATE_TEST_POSTGRES_CTL"; read -r _"#;
        let mut command = Command::new(root.join("scripts/with-postgres"));
        command.args(["bash", "-c", print]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("scripts/with-postgres");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("a cluster starts").unwrap();
        let (url, ctl) = (line(), line());
        Self { child, url, ctl }
    }

    async fn setup(backend: &Backend) -> (Self, Setup) {
        let cluster = tokio::task::spawn_blocking(Self::start).await.unwrap();
        let setup = with(Store::Postgres, backend).env("LEXGATE_STORE__URL", &cluster.url);
        (cluster, setup.patience_as_shipped())
    }

    pub(crate) async fn ctl(&self, command: &'static str) {
        let ctl = self.ctl.clone();
        let run = move || Command::new(ctl).arg(command).status().unwrap().success();
        assert!(tokio::task::spawn_blocking(run).await.unwrap(), "the cluster does not {command}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Load, in the middle of which Postgres is away for four seconds.
async fn outage(away: &'static str, back: &'static str) {
    let backend = slow_backend().await;
    let (cluster, setup) = Cluster::setup(&backend).await;
    let service = setup.start().await;
    let client = Client::of(&service);
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reported = service.decide(&harmless()).await.expect(200)["id"].as_str().unwrap().to_owned();
    let disturb = async {
        progress(&count, 100).await;
        cluster.ctl(away).await;
        sleep(3_500).await;
        let while_away = Client::of(&service).decide().await.expect("no hang");
        assert_eq!(while_away.status, 503, "{}", while_away.text);
        for request in [
            with_json(service.request("POST", "/v1/decisions", "caller"), &harmless())
                .header("idempotency-key", "k"),
            with_json(
                service.request("POST", &format!("/v1/decisions/{reported}/outcome"), "caller"),
                &json!({ "status": "ok" }),
            ),
        ] {
            let started = Instant::now();
            Answer::of(request).await.expect(503);
            assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
        }
        let ready = service.anonymous("GET", "/readyz").send().await.unwrap();
        assert_eq!(ready.status(), 503);
        let alive = service.anonymous("GET", "/healthz").send().await.unwrap();
        assert_eq!(alive.status(), 200);
        let returned = Instant::now();
        cluster.ctl(back).await;
        progress(&count, 200).await;
        assert!(returned.elapsed() < Duration::from_secs(20), "{:?}", returned.elapsed());
        stop.store(true, Ordering::Relaxed);
    };
    let (told, ()) = join(client.load(60, &stop, &count), disturb).await;
    assert!(refused_promptly(&told) >= 60, "everybody was refused at least once");
    all_is_recorded(&service, &told).await;
    assert!(service.terminate().success());
}

#[tokio::test]
async fn postgres_that_stops_is_an_outage_and_no_loss() {
    outage("stop", "start").await;
}

#[tokio::test]
async fn postgres_that_hangs_is_an_outage_and_no_loss() {
    outage("pause", "continue").await;
}

/// All leases run out while the store is away. Neither who is back first nor who has just started takes
/// the others for dead.
#[tokio::test]
async fn postgres_calls_of_living_processes_outlive_an_outage() {
    let backend = Backend::start(|_| {
        let wait = Step::Wait(Duration::from_secs(20));
        std::iter::once(wait).chain(whole(&completion())).collect()
    })
    .await;
    let (cluster, setup) = Cluster::setup(&backend).await;
    // How long the store is waited for is not what this is about.
    let setup = setup.env("LEXGATE_STORE__PATIENCE", "5s");
    let first = setup.start().await;
    let second = first.second().await;
    let (one, other) = (Client::of(&first), Client::of(&second));
    let outage = async {
        while backend.seen().len() < 2 {
            sleep(50).await;
        }
        cluster.ctl("pause").await;
        sleep(13_000).await;
        let old = [first.id(), second.id()];
        for process in old {
            signal("STOP", process);
        }
        cluster.ctl("continue").await;
        let new = first.second().await;
        // It looks for the dead every three seconds, and is patient for ten from its start.
        sleep(3_500).await;
        for process in old {
            signal("CONT", process);
        }
        new
    };
    let (a, b, _new) = tokio::join!(one.chat(false), other.chat(false), outage);
    let told: Vec<Told> = [a, b].into_iter().flatten().collect();
    assert!(told.len() == 2 && told.iter().all(|told| told.status == 200), "{told:?}");
    let statuses = all_is_recorded(&first, &told).await;
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["ok"]);
}

#[tokio::test]
async fn two_processes_on_one_postgres_write_one_ledger() {
    let backend = slow_backend().await;
    let first = with(Store::Postgres, &backend).start().await;
    let second = first.second().await;
    let (clients, stop) = ([Client::of(&first), Client::of(&second)], AtomicBool::new(false));
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let enough = async {
        join(progress(&counts[0], 200), progress(&counts[1], 200)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let loads =
        join(clients[0].load(40, &stop, &counts[0]), clients[1].load(40, &stop, &counts[1]));
    let ((mut told, more), ()) = join(loads, enough).await;
    told.extend(more);
    let refused = told.iter().find(|told| told.status != 200);
    assert!(refused.is_none(), "two writers, one queue each: {refused:?}");
    let statuses = all_is_recorded(&first, &told).await;
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["ok"]);
    let (read, again) = (first.records().await, second.records().await);
    assert_eq!(again.get(..read.len()), Some(&*read), "both read the same ledger");
    // What one leaves, the other closes.
    let client = Client::of(&second);
    let cut = async {
        let seen = backend.seen().len();
        while backend.seen().len() < seen + 20 {
            sleep(5).await;
        }
        second.kill9();
    };
    join(join_all((0..20).map(|_| client.chat(true))), cut).await;
    let statuses = all_is_recorded(&first, &told).await;
    assert!(statuses["unknown"] > 0, "{statuses:?}");
}

/// Sends far more than may wait while the store writes nothing. Nothing hangs.
async fn overfill(client: &Client) {
    let batch = json!({ "calls": vec![harmless(); 100] });
    let told = join_all((0..60).map(|_| client.post("/v1/decisions/batch", &batch))).await;
    let told: Vec<Told> = told.into_iter().map(|told| told.expect("no hang")).collect();
    let full = told.iter().filter(|told| told.text.contains("urn:lexgate:problem:queue-full"));
    assert!(full.count() > 0, "there was room for everything");
    for told in &told {
        assert_eq!(told.status, 503, "{}", told.text);
        assert!(told.retry_after);
    }
}

#[tokio::test]
async fn a_full_queue_is_refused_on_postgres() {
    let backend = slow_backend().await;
    let (cluster, setup) = Cluster::setup(&backend).await;
    let service = setup.start().await;
    cluster.ctl("pause").await;
    overfill(&Client::of(&service)).await;
    cluster.ctl("continue").await;
    let told = recovered(&service).await;
    all_is_recorded(&service, &[told]).await;
}

#[tokio::test]
async fn a_locked_sqlite_file_is_an_outage_and_no_loss() {
    let backend = slow_backend().await;
    let service = with(Store::Sqlite, &backend).patience_as_shipped().start().await;
    let client = Client::of(&service);
    let path = service.site.path("data/lexgate.db");
    let mut other =
        SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let disturb = async {
        progress(&count, 60).await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        sleep(3_500).await;
        let while_locked = Client::of(&service).decide().await.expect("no hang");
        assert_eq!(while_locked.status, 503, "{}", while_locked.text);
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        progress(&count, 100).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (told, ()) = join(client.load(30, &stop, &count), disturb).await;
    assert!(refused_promptly(&told) >= 10);
    all_is_recorded(&service, &told).await;
}

/// The first decision that is taken again.
async fn recovered(service: &Service) -> Told {
    let (client, patience) = (Client::of(service), Instant::now() + Duration::from_secs(15));
    loop {
        let told = client.decide().await.expect("no hang");
        if told.status == 200 {
            return told;
        }
        assert!(Instant::now() < patience, "{}", told.text);
        sleep(100).await;
    }
}
