//! Persons: the ledger commits to who they are, and forgets them when they ask.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::{
    harness::{Answer, Service, Store, both_stores},
    ledger::Exported,
};

const USER: &str = "patient-1842@example.org";
/// `USER` in a path.
const USER_PATH: &str = "/v1/subjects/patient-1842%40example.org?tenant=acme";

fn call(user: Option<&str>) -> Value {
    json!({
        "action": "infer", "model": "assistant", "data": { "personal": false }, "end_user": user,
    })
}

/// Decides on a call of `user`; gives the record.
async fn decide(service: &Service, user: Option<&str>) -> u64 {
    let answer = service.decide(&call(user)).await.expect(200);
    answer["record"]["seq"].as_u64().unwrap()
}

async fn values(service: &Service, seq: u64) -> Answer {
    service.get(&format!("/v1/audit/records/{seq}/values"), "dpo").await
}

async fn commitment(service: &Service, seq: u64) -> Value {
    let record = service.get(&format!("/v1/audit/records/{seq}"), "auditor").await.expect(200);
    record["entry"]["body"]["user_commitment"].clone()
}

async fn erase(service: &Service, path: &str) -> Answer {
    Answer::of(service.request("DELETE", path, "officer")).await
}

async fn start(store: Store) -> Service {
    Service::setup(store)
        .key("dpo", &["--role", "auditor", "--personal-values"])
        .key("sdaia", &["--role", "auditor", "--personal-values", "--jurisdiction", "SA"])
        .start()
        .await
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

both_stores! {
    async fn the_log_commits_to_a_person_and_an_auditor_may_learn_whom(store: Store) {
        let service = start(store).await;
        let (first, second) = (decide(&service, Some(USER)).await, decide(&service, Some(USER)).await);
        let (other, nobody) = (decide(&service, Some("u-7")).await, decide(&service, None).await);
        let batch = json!({ "calls": [call(Some(USER)), call(None)] });
        let batch = service.post("/v1/decisions/batch", "caller", &batch).await.expect(200);
        let in_batch = batch["decisions"][0]["record"]["seq"].as_u64().unwrap();

        // Nothing links two records of one person, and a record without a person says nothing.
        let commitments = [commitment(&service, first).await, commitment(&service, second).await];
        assert_ne!(commitments[0], commitments[1]);
        assert_eq!(commitment(&service, nobody).await, Value::Null);

        let told = values(&service, first).await.expect(200);
        assert_eq!(told["end_user"], USER);
        assert_eq!(told["user_commitment"], commitments[0]);
        let made = Sha256::new()
            .chain_update(b"lexgate/commit/v1\0")
            .chain_update(bytes(&told["salt"]))
            .chain_update(USER)
            .finalize();
        assert_eq!(made.to_vec(), bytes(&told["user_commitment"]));
        assert_eq!(values(&service, other).await.expect(200)["end_user"], "u-7");
        assert_eq!(values(&service, in_batch).await.expect(200)["end_user"], USER);
        assert_eq!(values(&service, nobody).await.status, 404);
        assert_eq!(values(&service, 99_999).await.status, 404);

        // Only for a credential that says so, only what it may see, and each reading is recorded.
        let path = format!("/v1/audit/records/{first}/values");
        for key in ["auditor", "officer", "caller"] {
            assert_eq!(service.get(&path, key).await.status, 403, "{key}");
        }
        assert_eq!(service.get(&path, "sdaia").await.status, 404, "a record of another place");
        let readings = service.records_of("audit_read").await;
        let by = |key: &str| {
            let of = |read: &&Value| {
                let body = &read["entry"]["body"];
                body["operation"] == "readValues" && body["key"] == key
            };
            readings.iter().filter(of).count()
        };
        assert_eq!((by("dpo"), by("sdaia"), by("auditor")), (5, 1, 0));

        // The name stands in no entry, no log line, and not in the store's file.
        let exported = Exported::of(&service.site);
        let report = exported.verify(&service.site.vkey, &["--replay"]).json();
        assert_eq!((&report["committed"], &report["erased"]), (&json!(4), &json!([])));
        let holds_name = |bytes: &[u8]| bytes.windows(USER.len()).any(|part| part == USER.as_bytes());
        for (name, content) in exported.files() {
            assert!(!holds_name(&content), "{name}");
        }
        assert!(!service.stderr().contains("patient-1842"), "{}", service.stderr());
        if store == Store::Sqlite {
            for file in ["data/lexgate.db", "data/lexgate.db-wal"] {
                assert!(!holds_name(&fs::read(service.site.path(file)).unwrap()), "{file}");
            }
        }
    }

    async fn who_is_erased_is_forgotten_and_the_log_holds(store: Store) {
        let service = start(store).await;
        let mine = [decide(&service, Some(USER)).await, decide(&service, Some(USER)).await];
        let other = decide(&service, Some("u-7")).await;
        let before = Exported::of(&service.site);

        for (path, key, status) in [
            (USER_PATH, "auditor", 403),
            (USER_PATH, "caller", 403),
            ("/v1/subjects/u-7", "officer", 400),
            ("/v1/subjects/u-7?tenant=nobody", "officer", 400),
        ] {
            let answer = Answer::of(service.request("DELETE", path, key)).await;
            assert_eq!(answer.status, status, "{path} {key}: {}", answer.text());
        }
        let erased = erase(&service, USER_PATH).await.expect(200);
        assert_eq!(erased["values"], 2);
        let record = erased["records"][0].as_u64().unwrap();
        for seq in mine {
            let gone = values(&service, seq).await.expect(410);
            assert_eq!(gone["detail"], format!("the value was erased, as record {record} says"));
        }
        assert_eq!(values(&service, other).await.expect(200)["end_user"], "u-7");
        // Another tenant's person of the same name is another person.
        assert_eq!(erase(&service, "/v1/subjects/u-7?tenant=acme-research").await.status, 404);
        assert_eq!(erase(&service, USER_PATH).await.status, 404, "asked again");

        // The record names nobody; the log holds, and says what was erased.
        let said = service.get(&format!("/v1/audit/records/{record}"), "auditor").await.expect(200);
        assert_eq!(said["entry"]["kind"], "erasure");
        let as_of = &said["entry"]["body"]["as_of"];
        assert!(as_of.as_u64().is_some_and(|as_of| as_of > other && as_of <= record));
        let body = json!({ "as_of": as_of, "erased": mine, "key": "officer" });
        assert_eq!(said["entry"]["body"], body);
        let after = Exported::of(&service.site);
        let since = before.file("checkpoint");
        let report = after.verify(&service.site.vkey, &["--since", since.to_str().unwrap()]).json();
        assert_eq!(report["committed"], 3);
        assert_eq!(report["erased"], json!([{ "record": record, "count": 2 }]));

        // Who comes back is somebody new.
        let back = decide(&service, Some(USER)).await;
        assert_eq!(values(&service, back).await.expect(200)["end_user"], USER);
        assert_eq!(values(&service, mine[0]).await.status, 410);
        assert!(!service.stderr().contains("patient-1842"), "{}", service.stderr());
    }

    async fn an_erasure_that_was_cut_off_is_finished(store: Store) {
        let mut service = start(store).await;
        let mine = decide(&service, Some(USER)).await;
        service.crash();
        // The key is destroyed; the process ended before anything else was done.
        let destroy = "UPDATE subject_keys SET wrapped = NULL, destroyed_at = 0, destroyed_by = 'officer'";
        let url = service.site.store_url();
        if store == Store::Sqlite {
            let url = format!("sqlite://{}", service.site.path("data/lexgate.db").display());
            SqliteConnection::connect(&url).await.unwrap().execute(destroy).await.unwrap();
        } else {
            PgConnection::connect(url).await.unwrap().execute(destroy).await.unwrap();
        }
        service.start_again().await;
        let mut detail = Value::Null;
        for _ in 0..100 {
            detail = values(&service, mine).await.expect(410)["detail"].clone();
            if detail.as_str().unwrap().starts_with("the value was erased, as record") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        let erasures = service.records_of("erasure").await;
        assert_eq!(erasures.len(), 1, "{detail}");
        let record = &erasures[0]["seq"];
        assert_eq!(detail, format!("the value was erased, as record {record} says"));
        assert_eq!(service.export_and_verify()["erased"], json!([{ "record": record, "count": 1 }]));
    }

    async fn without_a_master_key_nobody_is_kept(store: Store) {
        let service = Service::setup(store)
            .replace("config/lexgate.toml", "master_key_file = \"data/master.key\"\n", "")
            .key("dpo", &["--role", "auditor", "--personal-values"])
            .start()
            .await;
        let seq = decide(&service, Some(USER)).await;
        assert_eq!(commitment(&service, seq).await, Value::Null);
        assert_eq!(values(&service, seq).await.status, 404);
        assert_eq!(erase(&service, USER_PATH).await.status, 404);
    }
}

#[tokio::test]
async fn sqlite_another_master_key_than_the_store_s_is_refused() {
    let mut service = start(Store::Sqlite).await;
    let seq = decide(&service, Some(USER)).await;
    service.crash();
    let path = service.site.path("data/master.key");
    let own = fs::read_to_string(&path).unwrap();
    let turned: String = own.chars().map(|c| if c == 'a' { 'b' } else { c }).collect();
    fs::write(&path, turned).unwrap();
    let refused = service.site.run(&["serve"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let why = "`[ledger] master_key_file` is not the key under which the store's values";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let line = "master_key_file = \"data/master.key\"\n";
    service.site.replace("config/lexgate.toml", line, "");
    let refused = service.site.run(&["serve"]);
    assert!(refused.code == Some(1) && refused.stderr.contains(why), "{}", refused.stderr);
    // With its own key again, all is there.
    service.site.replace("config/lexgate.toml", "[policies]\n", &format!("{line}\n[policies]\n"));
    fs::write(&path, own).unwrap();
    service.start_again().await;
    assert_eq!(values(&service, seq).await.expect(200)["end_user"], USER);
}
