//! The log against what is said of it: rows that nobody signed, a database and a mark that were set back
//! together, a clock that let bodies go before their time.

use std::{fs, sync::Arc};

use jiff::SignedDuration;
use lexgate::{
    domain::{Clock as _, Digest, Seq, SystemClock},
    ledger::{Checkpoint, Envelope, Kind, Note, Signer, SigningKey, empty_root, seal},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};

use crate::{
    enemy_signing::{MARK, size_of},
    enemy_tables::{blob, head, write},
    enemy_time::Watch,
    enemy_verifier::HONEST,
    forger::{READING, Record, SENT, SENT_OUTCOME},
    harness::{Service, Site, Store, both_stores},
    ledger::{Backup, Exported, decide, signing_key},
    retention::{Past, months_ago},
};

/// Where the checkpoints lie that the database's administrators do not reach.
const ELSEWHERE: &str = "elsewhere/ledger.checkpoints";
/// Far behind every head.
const BEYOND: u64 = 9_000_000_000;

/// Puts an entry into the table that is in no tree, as the service's own role can.
async fn insert(site: &Site, store: Store, seq: u64, kind: &Kind, body: &Value) {
    let body = serde_json_canonicalizer::to_vec(body).unwrap();
    let origin = "lexgate.example/main".parse().unwrap();
    let envelope = Envelope {
        id: "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11".parse().unwrap(),
        kind,
        log: &origin,
        prev: Digest::from_bytes([7; 32]),
        seq: Seq::new(seq),
        ts: SystemClock.now(),
    };
    let (bytes, leaf) = seal(&envelope, &body);
    let (columns, more, id) = match store {
        Store::Sqlite => {
            ("seq, id, ts, kind, leaf, entry", "", blob(store, envelope.id.as_bytes()))
        }
        Store::Postgres => {
            ("seq, id, ts, kind, leaf, entry, terms", ", '{}'", format!("'{}'", envelope.id))
        }
    };
    let (leaf, bytes) = (blob(store, leaf.as_bytes()), blob(store, &bytes));
    let ts = envelope.ts.as_microsecond();
    write(
        site,
        &format!(
            "INSERT INTO entries ({columns}) VALUES ({seq}, {id}, {ts}, '{kind}', {leaf}, {bytes}{more})"
        ),
    )
    .await;
}

/// What names all records as removed.
fn everything() -> Value {
    json!({
        "before": "2100-01-01T00:00:00.000000Z", "removed": [{ "first": 0, "last": 1_000 }],
    })
}

/// How many entries have no body, asked behind the service's back.
async fn emptied(site: &Site) -> i64 {
    const EMPTY: &str = "SELECT count(*) FROM entries WHERE length(entry) = 0";
    if site.store_url().starts_with("sqlite") {
        let url = format!("sqlite://{}", site.path("data/lexgate.db").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(EMPTY).fetch_one(&mut connection).await.unwrap().get(0)
    } else {
        let mut connection = PgConnection::connect(site.store_url()).await.unwrap();
        sqlx::query(EMPTY).fetch_one(&mut connection).await.unwrap().get(0)
    }
}

/// The greatest tree in a file of checkpoints.
fn last_note(site: &Site, path: &str) -> (Checkpoint, Note) {
    let notes = Note::parse_all(&site.read(path)).unwrap().into_iter();
    let notes = notes.map(|note| (Checkpoint::read(&note).unwrap(), note));
    notes.max_by_key(|(checkpoint, _)| checkpoint.size).unwrap()
}

fn refused(site: &Site, words: &str) {
    let ran = site.run(&["serve"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

fn recovered(site: &Site) -> Value {
    let ran = site.run(&["ledger", "recover"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    site.run_json(&["ledger", "recover", "--accept-loss", "--reason", "drill", "--json"])
}

both_stores! {
    async fn a_row_that_nobody_signed_removes_nothing(store: Store) {
        let site = Service::setup(store).prepare().await;
        let past = Past::at(&site, months_ago(14)).await;
        past.decide("DE", false).await;
        past.end().await;
        let service = Service::on(Arc::new(site)).await;
        decide(&service, 3).await;
        let site = service.site.clone();
        let archive = Exported::of(&site);
        assert!(service.terminate().success());
        let prune = || {
            site.run(&["ledger", "prune", "--clock-is-right", "--archive", archive.path()])
        };
        // At the head's own place, with the head moved along.
        let (next, _) = head(&site).await;
        insert(&site, store, next.get(), &Kind::SegmentPruned, &everything()).await;
        write(&site, "UPDATE head SET next = next + 1").await;
        let ran = prune();
        assert_ne!(ran.code, Some(0), "{}", ran.stdout);
        assert!(ran.stderr.contains("no key of this process has signed that tree"), "{}", ran.stderr);
        assert_eq!(emptied(&site).await, 0);
        // Behind the head.
        write(&site, "UPDATE head SET next = next - 1").await;
        let ran = prune();
        assert_ne!(ran.code, Some(0), "{}", ran.stdout);
        assert!(ran.stderr.contains("lies behind the head of the log"), "{}", ran.stderr);
        assert_eq!(emptied(&site).await, 0);
    }

    async fn a_clock_that_may_be_ahead_lets_nothing_go(store: Store) {
        let site = Service::setup(store).prepare().await;
        let past = Past::at(&site, months_ago(14)).await;
        let old = past.decide("DE", false).await;
        past.end().await;
        let service = Service::on(Arc::new(site)).await;
        decide(&service, 3).await;
        let archive = Exported::of(&service.site);
        let prune = ["ledger", "prune", "--json", "--archive", archive.path()];
        let ran = service.site.run(&prune);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        for part in ["nothing was recorded between", "`--clock-is-right`", "`--before "] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        let since = ran.stderr.split("`--before ").nth(1).unwrap().split('`').next().unwrap();
        let done = service.site.run_json(&[&prune[..], &["--before", since]].concat());
        assert_eq!(done["removed"], 0, "its retention had not ended then");
        assert_eq!(emptied(&service.site).await, 0);
        let done = service.site.run_json(&[&prune[..], &["--clock-is-right"]].concat());
        assert_eq!(done["kinds"], json!({ "decision": 1 }));
        let gone = service.get(&format!("/v1/audit/records/{old}"), "auditor").await;
        assert_eq!((gone.status, emptied(&service.site).await), (410, 1));
        service.export_and_verify();
    }

    async fn a_row_that_nobody_signed_excuses_no_checkpoint(store: Store) {
        let mut service = Service::setup(store)
            .env("LEXGATE_LEDGER__CHECKPOINTS_FILE", ELSEWHERE)
            .start()
            .await;
        decide(&service, 3).await;
        let site = service.site.clone();
        assert!(service.terminate().success());
        let backup = Backup::of(&site, store).await;
        service = Service::on(site.clone()).await;
        decide(&service, 4).await;
        assert!(service.terminate().success());
        let (lost, note) = last_note(&site, ELSEWHERE);
        assert_eq!(lost.size, 9);
        backup.restore(&site).await;
        fs::remove_file(site.path(MARK)).unwrap();
        let body = json!({
            "found": { "root": empty_root().hex(), "size": 5 },
            "lost": note.to_string(), "reason": "none",
        });
        insert(&site, store, BEYOND, &Kind::LedgerRecovered, &body).await;
        let ran = site.run(&["ledger", "recover"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("the store holds 5 entries, but 9 have been signed"), "{}", ran.stderr);
        refused(&site, "");
    }

    async fn a_mark_that_was_set_back_with_the_database_does_not_hide_it(store: Store) {
        let mut service = Service::setup(store)
            .env("LEXGATE_LEDGER__CHECKPOINTS_FILE", ELSEWHERE)
            .start()
            .await;
        decide(&service, 3).await;
        let site = service.site.clone();
        assert!(service.terminate().success());
        let (backup, mark) = (Backup::of(&site, store).await, site.read(MARK));
        service = Service::on(site.clone()).await;
        decide(&service, 20).await;
        assert!(service.terminate().success());
        assert_eq!(size_of(&site, ELSEWHERE), 25, "the last one is published at the end");
        backup.restore(&site).await;
        site.write(MARK, &mark);
        for _ in 0..2 {
            refused(&site, "the store holds 5 entries, but 25 have been signed");
        }
        let done = recovered(&site);
        assert_eq!((&done["found"], &done["lost"]), (&json!(5), &json!(25)));
        for _ in 0..2 {
            service = Service::on(site.clone()).await;
            decide(&service, 2).await;
            assert!(service.terminate().success());
        }
    }

    async fn a_file_of_checkpoints_counts_beside_the_mark(store: Store) {
        let mut service = Service::setup(store)
            .env("LEXGATE_LEDGER__CHECKPOINTS_FILE", ELSEWHERE)
            .start()
            .await;
        decide(&service, 3).await;
        let site = service.site.clone();
        assert!(service.terminate().success());
        // Empty, gone, and behind the mark, with a torn line, another log's checkpoint and another key's.
        let published = site.read(ELSEWHERE);
        let (last, note) = last_note(&site, ELSEWHERE);
        let key = || SigningKey::from_pkcs8(
            &SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()
        ).unwrap();
        let other = Signer::new("other.example/log".parse().unwrap(), vec![key()]);
        let stranger = Signer::new(last.origin.clone(), vec![key()]);
        let strange = [other.checkpoint(99, empty_root()), stranger.checkpoint(98, empty_root())];
        let [strange, stranger] = strange.map(|note| note.to_string());
        let torn = &note.to_string()[..60];
        let behind = format!("{published}\n{strange}\n{stranger}\n{torn}");
        for text in [String::new(), behind] {
            site.write(ELSEWHERE, &text);
            service = Service::on(site.clone()).await;
            decide(&service, 1).await;
            assert_eq!(service.get("/readyz", "caller").await.status, 200);
            // As a power cut ends it: the mark is ahead of what was published.
            service.crash();
        }
        fs::remove_file(site.path(ELSEWHERE)).unwrap();
        service = Service::on(site.clone()).await;
        decide(&service, 1).await;
        assert!(service.terminate().success());

        // A file that cannot be read may show anything.
        fs::remove_file(site.path(ELSEWHERE)).unwrap();
        fs::create_dir(site.path(ELSEWHERE)).unwrap();
        refused(&site, "cannot be read");
        fs::remove_dir(site.path(ELSEWHERE)).unwrap();

        // Another tree than the log's, smaller than the mark: somebody signed on a copy.
        let fork = Signer::new(last.origin.clone(), vec![signing_key(&site)]);
        let fork = fork.checkpoint(last.size + 1, empty_root());
        site.write(ELSEWHERE, &fork.to_string());
        refused(&site, "history was rewritten");
        assert_eq!(recovered(&site)["lost"], last.size + 1, "and not what the mark says");
        for _ in 0..2 {
            service = Service::on(site.clone()).await;
            decide(&service, 1).await;
            service.export_and_verify();
            assert!(service.terminate().success());
        }
    }
}

#[test]
fn no_correction_follows_a_pruning_that_was_ahead_of_it() {
    let day = 86_400_000;
    let correct = |was: i64, to: i64| {
        let mut log = HONEST.clone();
        log.prune(200, &[(SENT, SENT_OUTCOME)]);
        if was > 200 {
            let reading = log.records[READING].clone();
            log.records.push(Record { id: 998, ts: log.at(was * day), ..reading });
        }
        let body = json!({ "reason": "the RTC's battery", "was": log.text(was * day) });
        log.push("clock_corrected", to * day, body);
        log.verify(&[])
    };
    let ran = correct(200, 1);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    let fault = answer["fault"].as_str().unwrap();
    let [to, before] = [1, 200].map(|days| HONEST.text(days * day));
    let expected = format!(
        "entry 18: set the log's time back to {}, before the instant {} until which entry 17 had pruned",
        to.as_str().unwrap(),
        before.as_str().unwrap(),
    );
    assert!(fault.contains(&expected), "{fault}");
    assert_eq!(correct(200, 199).code, Some(1));
    // What went had been over by the right time too.
    assert_eq!(correct(300, 250).json()["holds"], true);
    assert_eq!(correct(200, 200).json()["holds"], true);
}

/// A clock that is ahead lets nothing go without a word, and with one the verifier shows it for ever.
#[tokio::test]
async fn sqlite_what_a_clock_let_go_before_its_time_is_shown() {
    let service = Service::start(Store::Sqlite).await;
    decide(&service, 2).await;
    let site = service.site.clone();
    assert!(service.terminate().success());
    let ahead = SignedDuration::from_hours(24 * 4_014);
    let past = Past::at(&site, SystemClock.now() + ahead).await;
    past.decide("DE", false).await;
    past.end().await;
    let (watch, archive) = (Watch::of(&site), Exported::of(&site));
    watch.set("+4015d");
    let prune = |more: &[&str]| {
        let arguments =
            [&["ledger", "prune", "--json", "--archive", archive.path()][..], more].concat();
        site.command(&arguments).envs(watch.env()).output().unwrap()
    };
    let ran = prune(&[]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(1) && said.contains("`--clock-is-right`"), "{said}");
    let ran = prune(&["--clock-is-right"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let done: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(done["kinds"], json!({ "decision": 2 }));
    Exported::of(&site).verify(&site.vkey, &[]).json();
    site.run_json(&["ledger", "correct-time", "--reason", "the RTC's battery", "--json"]);
    let fault = Exported::of(&site).fault(&site.vkey, &[]);
    let record = &done["records"][0];
    assert!(fault.contains(&format!("until which entry {record} had pruned")), "{fault}");
}
