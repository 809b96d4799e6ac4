//! A log is signed once: whatever becomes of the database, of the mark and of the file of checkpoints, no
//! replica tells a position anew, and none that has seen too much goes on.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lexgate::ledger::{Checkpoint, Note, Signer};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row, SqliteConnection};
use tokio::task::JoinSet;

use crate::{
    harness::{Answer, Service, Site, Store, TempDir, both_stores, with_json},
    ledger::{Backup, decide, signing_key},
    standby::Pair,
    witness::Witness,
};

pub(crate) const MARK: &str = "data/ledger.mark";
const CHECKPOINTS: &str = "data/ledger.checkpoints";
/// Where a replica on another machine keeps its own.
const ELSEWHERE: [(&str, &str); 2] = [
    ("LEXGATE_LEDGER__MARK_FILE", "elsewhere/ledger.mark"),
    ("LEXGATE_LEDGER__CHECKPOINTS_FILE", "elsewhere/ledger.checkpoints"),
];

fn call() -> Value {
    json!({
        "action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision",
        "location": "DE",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"] },
    })
}

/// Waits until `holds`, with patience.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not in time: {what}");
}

/// Waits until the service is not ready, and says these words of it: what it has found is said for a second.
async fn unready(service: &Service, words: &str) {
    until(&format!("it is not ready, and says {words:?}"), async || {
        let answer = service.get("/readyz", "caller").await;
        answer.status == 503 && answer.text().contains(words)
    })
    .await;
}

/// Waits until the service is ready.
async fn ready(service: &Service) {
    until("it is ready", async || service.get("/readyz", "caller").await.status == 200).await;
}

/// The detail of a refusal: with 503.
fn refused(answer: &Answer) -> String {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

/// How many entries the store holds, asked behind the service's back.
async fn entries(site: &Site) -> i64 {
    const SIZE: &str = "SELECT next FROM head";
    if site.store_url().starts_with("sqlite") {
        let url = format!("sqlite://{}", site.path("data/lexgate.db").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(SIZE).fetch_one(&mut connection).await.unwrap().get(0)
    } else {
        let mut connection = PgConnection::connect(site.store_url()).await.unwrap();
        sqlx::query(SIZE).fetch_one(&mut connection).await.unwrap().get(0)
    }
}

/// What a replica has published, size by size: never two trees of one size.
fn published(site: &Site, path: &str) -> BTreeMap<u64, String> {
    let text = fs::read_to_string(site.path(path)).unwrap_or_default();
    let mut roots = BTreeMap::new();
    for note in Note::parse_all(&text).unwrap() {
        let checkpoint = Checkpoint::read(&note).unwrap();
        let root = checkpoint.root.hex();
        let known = roots.entry(checkpoint.size).or_insert_with(|| root.clone());
        assert_eq!(*known, root, "two trees of {} entries were signed", checkpoint.size);
    }
    roots
}

/// The greatest tree that a mark, or the end of a file of checkpoints, names.
pub(crate) fn size_of(site: &Site, path: &str) -> u64 {
    let text = fs::read_to_string(site.path(path)).unwrap_or_default();
    let notes = Note::parse_all(&format!("{}\n", text.trim_end_matches('\n'))).unwrap_or_default();
    notes.iter().map(|note| Checkpoint::read(note).unwrap().size).max().unwrap_or(0)
}

/// A log of two replicas, one of which writes 40 records that the database then loses. Neither goes on.
async fn set_back_under(env: &[(&str, &str)], mark: &str) {
    let mut first = Service::start(Store::Postgres).await;
    decide(&first, 5).await;
    let site = first.site.clone();
    assert!(first.terminate().success());
    let backup = Backup::of(&site, Store::Postgres).await;
    let kept = entries(&site).await;
    first = Service::on(site.clone()).await;
    let second = Service::on_with(site.clone(), env).await;
    decide(&second, 1).await;
    let again = async |service: &Service| {
        let request = service.request("POST", "/v1/decisions", "caller");
        let request = request.header("idempotency-key", "told-before");
        Answer::of(with_json(request, &call())).await
    };
    again(&second).await.expect(200);
    decide(&first, 40).await;
    let told = u64::try_from(entries(&site).await).unwrap();
    if !env.is_empty() {
        // It writes nothing, and knows all the same how far the log has gone.
        until("the second replica has read the log", async || size_of(&site, mark) >= told).await;
    }
    backup.restore(&site).await;
    for round in 0..6 {
        for service in [&first, &second] {
            let answer = service.decide(&call()).await;
            assert_eq!(answer.status, 503, "round {round}: {}", answer.text());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for service in [&first, &second] {
        until("it has seen that the log was set back", async || {
            refused(&service.decide(&call()).await).contains("an old backup was restored")
        })
        .await;
        let repeated = refused(&again(service).await);
        assert!(repeated.contains("an old backup was restored"), "{repeated}");
        unready(service, "an old backup was restored").await;
        refused(&Answer::of(service.anonymous("GET", "/tlog/checkpoint")).await);
        assert!(service.stderr().contains("nothing is signed any more"), "{}", service.stderr());
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        assert!(metrics.contains("lexgate_signing_halted 1"), "{metrics}");
    }
    assert_eq!(entries(&site).await, kept, "nothing was written behind the old backup");
    for path in [CHECKPOINTS, "elsewhere/ledger.checkpoints"] {
        published(&site, path);
    }
    assert!(first.terminate().success());
    assert!(second.terminate().success());
    for env in [&[][..], env] {
        let mut serve = site.command(&["serve"]);
        let ran = serve.envs(env.iter().copied()).output().unwrap();
        assert_eq!(ran.status.code(), Some(3), "a start does not forget it");
    }
    let done =
        site.run_json(&["ledger", "recover", "--accept-loss", "--reason", "drill", "--json"]);
    assert_eq!(done["found"], kept);
    let service = Service::on(site.clone()).await;
    decide(&service, 1).await;
    service.export_and_verify();
}

#[tokio::test]
async fn postgres_a_log_that_was_set_back_is_continued_by_no_replica() {
    set_back_under(&ELSEWHERE, "elsewhere/ledger.mark").await;
}

#[tokio::test]
async fn postgres_nor_by_replicas_that_share_a_mark() {
    set_back_under(&[], MARK).await;
}

/// The failover that loses nothing: every record that was answered is on the standby.
#[tokio::test]
async fn postgres_a_synchronous_standby_has_every_answered_record() {
    let pair = Pair::start().await;
    let setup = Service::setup(Store::Postgres).env("LEXGATE_STORE__URL", pair.primary());
    let service = Arc::new(setup.start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (service, stop) = (service.clone(), stop.clone());
        load.spawn(async move {
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let request = service.request("POST", "/v1/decisions", "caller");
                if let Ok(answer) = with_json(request, &call()).send().await
                    && answer.status() == 200
                {
                    let answer = answer.bytes().await.unwrap();
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    told.push((answer["record"]["seq"].as_u64(), answer["id"].clone()));
                }
            }
            told
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    pair.kill_primary();
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.promote();
    stop.store(true, Ordering::Relaxed);
    let told: Vec<_> = load.join_all().await.into_iter().flatten().collect();
    assert!(told.len() > 20, "{} were answered", told.len());
    let site = service.site.clone();
    drop(service);
    let service = Service::on_with(site, &[("LEXGATE_STORE__URL", &pair.standby())]).await;
    let records = service.records_of("decision").await;
    let there: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record["entry"]["seq"].as_u64(), record["entry"]["id"].clone()))
        .collect();
    for (seq, id) in &told {
        assert_eq!(there.get(seq), Some(id), "record {seq:?} was answered, and is lost");
    }
    decide(&service, 3).await;
    ready(&service).await;
}

both_stores! {
    async fn a_mark_that_is_taken_away_is_written_anew(store: Store) {
        let service = Service::start(store).await;
        decide(&service, 2).await;
        let site = service.site.clone();
        let old = site.read(MARK);
        fs::remove_file(site.path(MARK)).unwrap();
        decide(&service, 2).await;
        until("the mark is there again", async || size_of(&site, MARK) >= 5).await;
        assert!(service.stderr().contains("the high-water mark was removed or replaced"), "{}", service.stderr());
        // Set back in place, by another file, or to nonsense: what the process knows counts.
        for text in [old.as_str(), "nonsense\n", ""] {
            let known = size_of(&site, MARK);
            site.write(MARK, text);
            decide(&service, 1).await;
            until("the mark says how far the log has gone", async || size_of(&site, MARK) > known).await;
        }
        fs::write(site.path("data/other"), &old).unwrap();
        fs::rename(site.path("data/other"), site.path(MARK)).unwrap();
        decide(&service, 1).await;
        until("the mark is not the one put in its place", async || size_of(&site, MARK) >= 9).await;
    }

    async fn without_a_mark_the_checkpoints_file_counts(store: Store) {
        let mut service = Service::start(store).await;
        decide(&service, 3).await;
        let site = service.site.clone();
        assert!(service.terminate().success());
        let backup = Backup::of(&site, store).await;
        service = Service::on(site.clone()).await;
        decide(&service, 4).await;
        assert!(service.terminate().success());
        assert_eq!(size_of(&site, CHECKPOINTS), 9, "the last one is published at the end");
        // A torn line, and another process's, which is older.
        let earlier = site.read(CHECKPOINTS);
        let first = format!("{}\n\n", earlier.split("\n\n").take(2).collect::<Vec<_>>().join("\n\n"));
        site.write(CHECKPOINTS, &format!("{earlier}{first}{}", &earlier[..60]));
        backup.restore(&site).await;
        fs::remove_file(site.path(MARK)).unwrap();
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("the store holds 5 entries, but 9 have been signed"), "{}", ran.stderr);
        fs::remove_file(site.path(MARK)).unwrap();
        let ran = site.run(&["ledger", "recover"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let done = site.run_json(&["ledger", "recover", "--accept-loss", "--reason", "x", "--json"]);
        assert_eq!((&done["found"], &done["lost"]), (&json!(5), &json!(9)));
        // What was lost is no reproach any more, also where the mark is lost once more.
        fs::remove_file(site.path(MARK)).unwrap();
        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        assert!(service.terminate().success());
        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        assert_eq!(service.get("/readyz", "caller").await.status, 200);
    }

    async fn a_tree_that_was_published_and_is_not_the_logs_stops_everything(store: Store) {
        let service = Service::start(store).await;
        decide(&service, 3).await;
        let site = service.site.clone();
        until("a checkpoint is published", async || size_of(&site, CHECKPOINTS) >= 5).await;
        let note = Note::parse_all(&site.read(CHECKPOINTS)).unwrap().pop().unwrap();
        let real = Checkpoint::read(&note).unwrap();
        // As another process with the same key would have signed it, on a copy of the database.
        let signer = Signer::new(real.origin.clone(), vec![signing_key(&site)]);
        let other = signer.checkpoint(real.size, lexgate::ledger::empty_root());
        site.append(CHECKPOINTS, &other.to_string());
        decide(&service, 1).await;
        until("the fork is seen", async || service.get("/readyz", "caller").await.status == 503).await;
        let detail = refused(&service.decide(&call()).await);
        assert!(detail.contains("history was rewritten"), "{detail}");
        let there = site.read(CHECKPOINTS);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(site.read(CHECKPOINTS), there, "nothing is published behind it");
    }

    async fn where_a_witness_is_required_nothing_is_decided_without_one(store: Store) {
        let site = Service::setup(store).prepare().await;
        let dir = TempDir::new();
        let witness = Witness::listening(dir.path(), &site.vkey, "127.0.0.1:0");
        site.replace("config/lexgate.toml", "[ledger]\n", "[ledger]\nrequire_witness = \"4s\"\n");
        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("`require_witness` is set, and no witness is named"), "{}", ran.stderr);
        site.append("config/lexgate.toml", &format!(
            "[[ledger.witnesses]]\nurl = \"{}\"\nkey = \"{}\"\n", witness.url, witness.vkey
        ));
        let service = Service::on(Arc::new(site)).await;
        let allowed = async || service.decide(&call()).await.status == 200;
        until("the witness has seen the log", &allowed).await;
        let address = witness.url.trim_start_matches("http://").to_owned();
        drop(witness);
        until("nothing is decided without a witness", async || !allowed().await).await;
        let detail = refused(&service.decide(&call()).await);
        assert!(detail.contains("no witness has cosigned the log for"), "{detail}");
        unready(&service, "`[ledger] require_witness`").await;
        assert_eq!(service.get("/v1/audit/checkpoint", "auditor").await.status, 200, "all else goes on");
        let _witness = Witness::listening(dir.path(), &service.site.vkey, &address);
        until("the witness is back", &allowed).await;
        ready(&service).await;
    }
}
