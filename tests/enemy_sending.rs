//! Against whoever gains from a call that leaves although it may not any more: facts that end, policies
//! that change elsewhere and processes that stand still, each in the moment before a fallback is sent; and
//! what the ledger then says of the call.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::{
    backend::{Backend, Seen, Step, answer, completion, whole},
    durability::Cluster,
    gateway::outcomes,
    harness::{Answer, Service, Setup, Site, Store, TempDir, both_stores, signal, with_json},
};

const CHAT: &str = "/v1/chat/completions";
const HARMLESS: [(&str, &str); 1] = [("personal", "false")];
const GERMAN: [(&str, &str); 2] = [("data", "dpv-pd:Contact"), ("subjects", "DE")];
const LAPTOP: &str = "smollm2@laptop";
const FRANKFURT: &str = "mistral-small@dc-frankfurt";
const SINGAPORE: &str = "qwen3-32b@dashscope-sg";

fn chat(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{"role": "user", "content": text}] })
}

fn says(seen: &Seen, text: &str) -> bool {
    seen.json()["messages"][0]["content"] == text
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

fn skipped(outcome: &Value) -> BTreeMap<String, String> {
    let skipped = outcome["skipped"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    skipped.iter().map(|one| (text(&one["deployment"]), text(&one["reason"]))).collect()
}

/// The example with these backends, and a breaker that stays out of the way.
fn with(setup: Setup, laptop: &Backend, frankfurt: &Backend, singapore: &Backend) -> Setup {
    setup
        .backend(LAPTOP, &laptop.url)
        .reached(LAPTOP, "breaker_failures = 1000")
        .backend(FRANKFURT, &frankfurt.url)
        .backend(SINGAPORE, &singapore.url)
        .env("FRANKFURT_API_KEY", "k")
        .env("DASHSCOPE_API_KEY", "k")
}

/// A backend that fails once it is told to.
async fn failing() -> (Backend, Arc<AtomicBool>) {
    let fails = Arc::<AtomicBool>::default();
    let told = fails.clone();
    let backend = Backend::start(move |_| {
        let told = told.clone();
        vec![
            Step::Until(told),
            Step::Send(
                b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
            ),
        ]
    })
    .await;
    (backend, fails)
}

fn replays(service: &Service) {
    let dir = TempDir::new();
    let dir = dir.path().to_str().unwrap();
    service.site.run_json(&["export", dir, "--json"]);
    let verify = ["verify", dir, "--key", &service.site.vkey, "--replay", "--json"];
    assert_eq!(service.site.run_json(&verify)["holds"], true);
}

/// Runs a statement behind the service's back.
async fn execute(site: &Site, sql: &str) {
    if let Some(path) = site.store_url().strip_prefix("sqlite://") {
        let url = format!("sqlite://{}", site.path(path).display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = PgConnection::connect(site.store_url()).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
}

/// The time, as the services that are tested have it.
#[expect(clippy::disallowed_methods, reason = "a test has no clock of its own")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// An assessment that ends so many seconds from now: until then data may go from Germany to Singapore.
fn assessment(seconds: u64) -> (String, SystemTime) {
    let ends = now() + Duration::from_secs(seconds);
    let since = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let until = jiff::Timestamp::from_millisecond(since.as_millis().try_into().unwrap()).unwrap();
    let text = format!(
        "\n[[virtual_models]]\nid = \"pool\"\ndeployments = [\"{FRANKFURT}\", \"{SINGAPORE}\"]\n\
         [[instruments]]\nid = \"assessment\"\nkind = \"eu-tia\"\nexporter = \"acme\"\n\
         recipient = \"alibaba-cloud\"\nvalid_from = \"2026-01-01\"\nvalid_until = \"{until}\"\n\
         reference = \"TIA\"\n"
    );
    (text, ends)
}

/// The clauses end while the store stands still, so that this process hears nothing of it: its own clock
/// says so all the same.
#[tokio::test]
async fn postgres_a_fallback_needs_clauses_that_hold_when_it_is_sent() {
    let (frankfurt, fails) = failing().await;
    let (laptop, singapore) = (Backend::polite().await, Backend::polite().await);
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    // Time for a debug program to start in, on a busy machine.
    let (text, ends) = assessment(30);
    let service = with(Service::setup(Store::Postgres), &laptop, &frankfurt, &singapore)
        .env("LEXGATE_STORE__URL", &cluster.url)
        .organisation(&text)
        .start()
        .await;
    let until = |end: SystemTime| end.duration_since(now()).unwrap_or_default();
    let disturb = async {
        eventually("the call is under way", async || !frankfurt.seen().is_empty()).await;
        assert!(until(ends) > Duration::ZERO, "the machine was too slow for this test");
        sleep(until(ends).saturating_sub(Duration::from_secs(2))).await;
        cluster.ctl("pause").await;
        sleep(until(ends) + Duration::from_secs(1)).await;
        fails.store(true, Ordering::SeqCst);
    };
    let body = chat("pool", "Good morning");
    let (answer, ()) = tokio::join!(service.openai(CHAT, &GERMAN, &body), disturb);
    assert!(singapore.seen().is_empty(), "data left for Singapore after the clauses had ended");
    assert!(answer.status >= 500, "{}", answer.text());
    cluster.ctl("continue").await;
    let outcome = outcomes(&service).await.pop().unwrap();
    assert_eq!(skipped(&outcome)[SINGAPORE], "no_longer_allowed", "{outcome}");
    assert_eq!(outcome["attempts"].as_array().unwrap().len(), 1, "{outcome}");
    replays(&service);
}

/// Nothing has ended, but nobody can say so: the store stands still.
#[tokio::test]
async fn postgres_a_fallback_needs_the_store_s_word() {
    let (frankfurt, fails) = failing().await;
    let (laptop, singapore) = (Backend::polite().await, Backend::polite().await);
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let (text, _) = assessment(3_600);
    let service = with(Service::setup(Store::Postgres), &laptop, &frankfurt, &singapore)
        .patience_as_shipped()
        .env("LEXGATE_STORE__URL", &cluster.url)
        .organisation(&text)
        .start()
        .await;
    let body = chat("pool", "Good morning");
    let disturb = async {
        eventually("the call is under way", async || !frankfurt.seen().is_empty()).await;
        cluster.ctl("pause").await;
        sleep(Duration::from_secs(1)).await;
        fails.store(true, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(service.openai(CHAT, &GERMAN, &body), disturb);
    assert!(singapore.seen().is_empty(), "a call was sent that nobody confirmed");
    assert!(answer.status >= 500, "{}", answer.text());
    cluster.ctl("continue").await;
    // With the store there, the same goes where it may.
    eventually("it is decided again", async || {
        let answer = service.openai(CHAT, &GERMAN, &body).await;
        answer.status == 200 && answer.header("x-lexgate-deployment") == Some(SINGAPORE)
    })
    .await;
    replays(&service);
}

/// Withdraws the approval of Frankfurt and of Singapore in the file.
fn withdraw(site: &Site) {
    let file = "config/organisation.toml";
    for (id, row) in [
        (FRANKFURT, "model = \"mistral-small\"\noperator = \"acme\"\ntier = \"hybrid_gpu\""),
        (SINGAPORE, "model = \"qwen3-32b\"\noperator = \"alibaba-cloud\"\ntier = \"remote\""),
    ] {
        let approved = |approved: bool| format!("id = \"{id}\"\n{row}\napproved = {approved}");
        site.replace(file, &approved(true), &approved(false));
    }
}

const ACTIVATE: [(&str, &str); 1] = [("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")];

both_stores! {
    /// Another replica activates policies that forbid it, a moment before the fallback. This one has not
    /// heard of it by itself.
    async fn a_fallback_needs_the_snapshot_that_is_active_everywhere(store: Store) {
        let (laptop, fails) = failing().await;
        let (frankfurt, singapore) = (Backend::polite().await, Backend::polite().await);
        let service = with(Service::setup(store), &laptop, &frankfurt, &singapore).start().await;
        let activated = async {
            eventually("the call is under way", async || !laptop.seen().is_empty()).await;
            withdraw(&service.site);
            let known = async {
                eventually("it is active", async || {
                    service.records_of("bundle_activated").await.len() == 2
                })
                .await;
                fails.store(true, Ordering::SeqCst);
            };
            tokio::join!(activate_elsewhere(service.site.clone()), known).0
        };
        let body = chat("assistant", "Good morning");
        let (answer, _second) = tokio::join!(service.openai(CHAT, &HARMLESS, &body), activated);
        answer.expect(502);
        assert!(frankfurt.seen().is_empty() && singapore.seen().is_empty(), "it was sent all the same");
        let outcome = &outcomes(&service).await[0];
        let gone = "no_longer_allowed".to_owned();
        let want = BTreeMap::from([FRANKFURT, SINGAPORE].map(|id| (id.to_owned(), gone.clone())));
        assert_eq!(skipped(outcome), want, "{outcome}");
        replays(&service);
    }

    /// A process is stopped for longer than its lease. Another one writes the outcome `unknown`; what was
    /// answered meanwhile is recorded beside it, once, and what was not sent yet is not sent.
    async fn a_process_that_stood_still_sends_nothing_and_tells_what_it_knows(store: Store) {
        let stopped = Arc::<AtomicBool>::default();
        let told = stopped.clone();
        let laptop = Backend::start(move |seen| {
            let mut steps = vec![Step::Until(told.clone())];
            if says(seen, "fails") {
                steps.extend(answer("500 Oops", "", b""));
            } else {
                steps.extend(whole(&completion()));
            }
            steps
        })
        .await;
        let (frankfurt, singapore) = (Backend::polite().await, Backend::polite().await);
        let limits = "id = \"support-copilot\"\n";
        let service = with(Service::setup(store), &laptop, &frankfurt, &singapore)
            .organisation_with(limits, &format!("{limits}limits.tokens.month = 36\n"))
            .start()
            .await;
        let second = service.second().await;
        let disturb = async {
            eventually("both calls are under way", async || laptop.seen().len() == 2).await;
            signal("STOP", service.id());
            stopped.store(true, Ordering::SeqCst);
            eventually("another process closes them", async || {
                second.records_of("outcome").await.len() == 2
            })
            .await;
            signal("CONT", service.id());
        };
        let (answered, failed) = (chat("assistant", "is answered"), chat("assistant", "fails"));
        let (answered, failed, ()) = tokio::join!(
            service.openai(CHAT, &HARMLESS, &answered),
            service.openai(CHAT, &HARMLESS, &failed),
            disturb,
        );
        answered.expect(200);
        assert!(failed.status >= 500, "{}", failed.text());
        assert!(frankfurt.seen().is_empty() && singapore.seen().is_empty(), "sent after its outcome");
        for outcome in outcomes(&second).await {
            assert_eq!((&outcome["status"], &outcome["attempts"]), (&json!("unknown"), &json!([])));
        }
        let mut late = Vec::new();
        eventually("what is known is recorded", async || {
            late = second.records_of("late_outcome").await;
            late.len() == 2
        })
        .await;
        let bodies: BTreeMap<String, Value> = late
            .iter()
            .map(|record| record["entry"]["body"].clone())
            .map(|body| (body["status"].as_str().unwrap().to_owned(), body))
            .collect();
        let (ok, error) = (&bodies["ok"], &bodies["upstream_error"]);
        assert_eq!(ok["tokens"], json!({ "input": 11, "output": 7 }), "{ok}");
        assert_eq!(ok["attempts"][0]["deployment"], LAPTOP);
        let seq: u64 = answered.header("x-lexgate-record").unwrap().parse().unwrap();
        assert_eq!(ok["decision"]["seq"], seq);
        let written = second.get(&format!("/v1/audit/records/{}", ok["outcome"]["seq"]), "auditor").await.expect(200);
        assert_eq!(written["entry"]["body"]["decision"]["seq"], seq, "{written}");
        assert_eq!(written["leaf"], ok["outcome"]["leaf"]);
        assert_eq!(error["attempts"].as_array().unwrap().len(), 1, "{error}");
        assert_eq!(skipped(error)[FRANKFURT], "no_longer_allowed", "{error}");
        // The process is as good as before, and what was used counts: 18 tokens, and these.
        let more = async |service: &Service| {
            service.openai(CHAT, &HARMLESS, &chat(LAPTOP, "once more")).await
        };
        eventually("its lease is back", async || more(&service).await.status == 200).await;
        // An outcome is recorded after its answer.
        eventually("its outcome is recorded", async || {
            outcomes(&second).await.iter().any(|outcome| outcome["status"] == "ok")
        })
        .await;
        assert_eq!(more(&second).await.expect(429)["error"]["type"], "tokens");
        assert_eq!(second.records_of("late_outcome").await.len(), 2, "once for each");
        replays(&second);
    }

    /// One row that is no call's stops neither the closing of others nor anything behind it.
    async fn a_row_that_cannot_be_closed_stops_nothing(store: Store) {
        let hangs = Backend::start(|_| vec![Step::Hang]).await;
        let (frankfurt, singapore) = (Backend::polite().await, Backend::polite().await);
        let mut service = with(Service::setup(store), &hangs, &frankfurt, &singapore).start().await;
        service.decide(&json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })).await.expect(200);
        let nobody = match store {
            Store::Sqlite => "zeroblob(16)".to_owned(),
            Store::Postgres => format!("'{}'", uuid::Uuid::nil()),
        };
        // Genesis, the activation, and a decision that Lexgate did not send.
        for seq in 0..3 {
            let row = format!("INSERT INTO open_dispatches (seq, process) VALUES ({seq}, {nobody})");
            execute(&service.site, &row).await;
        }
        let body = chat(LAPTOP, "Good morning");
        let request = with_json(service.request("POST", CHAT, "caller"), &body);
        let cut = async {
            eventually("the call is under way", async || !hangs.seen().is_empty()).await;
            service.crash();
        };
        let (cut_off, ()) = tokio::join!(request.header("x-lexgate-personal", "false").send(), cut);
        assert!(cut_off.is_err());
        service.start_again().await;
        let found = outcomes(&service).await;
        assert_eq!(found.iter().map(|one| one["status"].clone()).collect::<Vec<_>>(), ["unknown"]);
        let log = service.stderr();
        for seq in 0..3 {
            let words = "an open dispatch cannot be closed";
            let line = log.lines().filter(|line| line.contains(words) && line.contains(&format!("\"seq\":\"{seq}\"")));
            assert_eq!(line.count(), 1, "row {seq} is named once: {log}");
        }
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        assert!(metrics.contains("lexgate_unclosable_dispatches_total 3"), "{metrics}");
        replays(&service);
    }

    /// An allow is given again under its idempotency key only while it would be given today.
    async fn a_revoked_allow_is_not_given_again(store: Store) {
        let laptop = Backend::polite().await;
        let service = with(Service::setup(store), &laptop, &laptop, &laptop).start().await;
        let ask = async |service: &Service, key: &str| {
            let call = json!({ "action": "infer", "deployment": FRANKFURT, "data": { "personal": false } });
            let request = service.request("POST", "/v1/decisions", "caller");
            Answer::of(with_json(request.header("idempotency-key", key), &call)).await
        };
        let first = ask(&service, "order-1").await.expect(200);
        assert_eq!(first["decision"], "allow");
        assert_eq!(ask(&service, "order-1").await.expect(200), first);
        withdraw(&service.site);
        let second = activate_elsewhere(service.site.clone()).await;
        // The first replica asks the store before it repeats anything.
        for replica in [&service, &second] {
            let problem = ask(replica, "order-1").await.expect(409);
            assert_eq!(problem["type"], "urn:lexgate:problem:answer-outdated", "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            let seq = first["record"]["seq"].to_string();
            for named in [first["id"].as_str().unwrap(), &format!("record {seq})"), "a new key"] {
                assert!(detail.contains(named), "{named}: {detail}");
            }
        }
        assert_eq!(service.records_of("decision").await.len(), 1, "nothing was recorded");
        assert_eq!(ask(&service, "order-2").await.expect(200)["decision"], "deny");
    }
}

/// Another replica, which activates the files as they are now.
async fn activate_elsewhere(site: Arc<Site>) -> Service {
    Service::on_with(site, &ACTIVATE).await
}
