//! Persons against an enemy: one name in many forms, a legal hold, refused attempts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Service, Store, both_stores, with_json};

const COMPOSED: &str = "J\u{fc}rgen";
const APART: &str = "Ju\u{308}rgen";
/// `COMPOSED` and `APART` in a path.
const COMPOSED_PATH: &str = "J%C3%BCrgen";
const APART_PATH: &str = "Ju%CC%88rgen";

fn call(user: &str) -> Value {
    json!({
        "action": "infer", "model": "assistant", "data": { "personal": false }, "end_user": user,
    })
}

async fn decide(service: &Service, user: &str) -> u64 {
    let answer = service.decide(&call(user)).await.expect(200);
    answer["record"]["seq"].as_u64().unwrap()
}

async fn erase(service: &Service, user: &str, rest: &str) -> Answer {
    let path = format!("/v1/subjects/{user}?tenant=acme{rest}");
    Answer::of(service.request("DELETE", &path, "officer")).await
}

async fn values(service: &Service, seq: u64) -> Answer {
    service.get(&format!("/v1/audit/records/{seq}/values"), "dpo").await
}

async fn hold(service: &Service, id: &str, records: &Value) -> Value {
    let body = json!({ "reason": "a court asks", "records": records });
    let path = format!("/v1/legal-holds/{id}");
    Answer::of(with_json(service.request("PUT", &path, "officer"), &body)).await.expect(200)
}

async fn start(store: Store) -> Service {
    Service::setup(store).key("dpo", &["--role", "auditor", "--personal-values"]).start().await
}

both_stores! {
    async fn one_person_is_one_person_whichever_way_the_name_arrives(store: Store) {
        let service = start(store).await;
        let mut mine = Vec::new();
        for user in [COMPOSED, APART, " J\u{fc}rgen", "Ju\u{308}rgen\u{3000}", "\tJ\u{fc}rgen\r\n"] {
            mine.push(decide(&service, user).await);
        }
        let batch = json!({ "calls": [call(APART), call("u-9 ")] });
        let batch = service.post("/v1/decisions/batch", "caller", &batch).await.expect(200);
        mine.push(batch["decisions"][0]["record"]["seq"].as_u64().unwrap());
        let other = batch["decisions"][1]["record"]["seq"].as_u64().unwrap();
        for seq in &mine {
            assert_eq!(values(&service, *seq).await.expect(200)["end_user"], COMPOSED);
        }
        assert_eq!(values(&service, other).await.expect(200)["end_user"], "u-9");
        // The same request under the same key is the same in either form.
        let again = |user| {
            let request = service.request("POST", "/v1/decisions", "caller");
            Answer::of(with_json(request.header("idempotency-key", "k"), &call(user)))
        };
        let (first, second) = (again(COMPOSED).await.expect(200), again(APART).await.expect(200));
        assert_eq!(first["id"], second["id"]);
        mine.push(first["record"]["seq"].as_u64().unwrap());

        let erased = erase(&service, APART_PATH, "").await.expect(200);
        assert_eq!(erased["values"], mine.len());
        for seq in &mine {
            assert_eq!(values(&service, *seq).await.status, 410);
        }
        assert_eq!(values(&service, other).await.status, 200);
        let nobody = erase(&service, COMPOSED_PATH, "").await.expect(404);
        assert!(nobody["detail"].as_str().unwrap().contains("nothing was erased"), "{nobody}");
        assert_eq!(erase(&service, "%20u-9%09", "").await.expect(200)["values"], 1);
        assert_eq!(service.records_of("erasure").await.len(), 2, "an erasure of nobody is none");
        service.export_and_verify();
    }

    async fn a_name_that_names_nobody_is_refused_by_its_field(store: Store) {
        let service = Service::shared(store).await;
        for name in ["", "  ", "\t\n", "\u{3000}", "u\n9", "u\u{0}9", "u-9\u{200b}", "\u{feff}u", "\u{202e}9-u"] {
            for path in ["/v1/decisions", "/v1/explain"] {
                let refused = service.post(path, "caller", &call(name)).await.expect(422);
                assert_eq!(refused["errors"][0]["pointer"], "/end_user", "{name:?}: {refused}");
            }
            let batch = json!({ "calls": [call("u"), call(name)] });
            let refused = service.post("/v1/decisions/batch", "caller", &batch).await.expect(422);
            assert_eq!(refused["errors"][0]["pointer"], "/calls/1/end_user", "{name:?}: {refused}");
            let body = json!({
                "model": "assistant", "messages": [], "metadata": { "lexgate_end_user": name },
            });
            let refused = service.openai("/v1/chat/completions", &[], &body).await.expect(400);
            let said = refused["error"]["message"].as_str().unwrap();
            assert!(said.contains("end user's name"), "{name:?}: {refused}");
        }
        let long = service.decide(&call(&"u".repeat(257))).await.expect(422);
        assert!(long["errors"][0]["detail"].as_str().unwrap().contains("256 bytes"), "{long}");
        for path in ["%20", "u%00", "%E2%80%8B"] {
            let refused = erase(service, path, "").await.expect(422);
            assert_eq!(refused["errors"][0]["parameter"], "end_user", "{path}: {refused}");
        }
    }

    async fn who_was_sealed_under_an_older_form_is_erased_too(store: Store) {
        let service = start(store).await;
        let seqs = [decide(&service, "old-1").await, decide(&service, "old-2").await, decide(&service, "old-3").await];
        // As a version before this one knew them: under the name as it was sent.
        let key = service.site.read("data/master.key");
        let root = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes(key.trim()));
        let naming = ring::hmac::sign(&root, b"lexgate/subject/v1");
        let naming = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, naming.as_ref());
        let subject = |name: &str| {
            let mut context = ring::hmac::Context::with_key(&naming);
            for part in ["subject", "acme", name] {
                context.update(part.as_bytes());
                context.update(&[0]);
            }
            hex(context.sign().as_ref())
        };
        let url = match store {
            Store::Sqlite => format!("sqlite://{}", service.site.path("data/lexgate.db").display()),
            Store::Postgres => service.site.store_url().to_owned(),
        };
        for (now, then) in [("old-1", "u-77 "), ("old-2", APART), ("old-3", "")] {
            let (from, to) = (subject(now), subject(then));
            let statement = if store == Store::Sqlite {
                format!("UPDATE subject_keys SET subject = x'{to}' WHERE subject = x'{from}'")
            } else {
                format!("UPDATE subject_keys SET subject = '\\x{to}' WHERE subject = '\\x{from}'")
            };
            execute(store, &url, &statement).await;
        }
        for (path, seq) in [("u-77", seqs[0]), (COMPOSED_PATH, seqs[1]), ("%20", seqs[2])] {
            assert_eq!(erase(&service, path, "").await.expect(200)["values"], 1, "{path}");
            assert_eq!(values(&service, seq).await.status, 410);
        }
    }

    async fn a_hold_holds_against_erasure(store: Store) {
        let service = start(store).await;
        let mine = [decide(&service, "u-1").await, decide(&service, "u-1").await];
        let free = decide(&service, "u-2").await;
        hold(&service, "case-1", &json!({ "app": "lease-desk" })).await;
        hold(&service, "case-2", &json!({ "kind": "decision", "decision": "allow" })).await;
        hold(&service, "case-3", &json!({})).await;
        let refused = erase(&service, "u-1", "").await.expect(409);
        assert_eq!(refused["type"], "urn:lexgate:problem:legal-hold");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("`case-2`, `case-3`") && !detail.contains("case-1"), "{detail}");
        for seq in mine {
            assert_eq!(values(&service, seq).await.status, 200, "all is there");
        }
        for reason in ["", "%20"] {
            assert_eq!(erase(&service, "u-1", &format!("&despite_hold={reason}")).await.status, 400);
        }
        let erased = erase(&service, "u-1", "&despite_hold=the%20court%20agrees").await.expect(200);
        assert_eq!(erased["values"], 2);
        let records = service.records_of("erasure").await;
        let body = &records[0]["entry"]["body"];
        let despite = json!({ "holds": ["case-2", "case-3"], "reason": "the court agrees" });
        assert_eq!(body["despite_hold"], despite);
        assert!(body["as_of"].as_u64().unwrap() > mine[1]);

        for case in ["case-2", "case-3"] {
            let path = format!("/v1/legal-holds/{case}?reason=over");
            Answer::of(service.request("DELETE", &path, "officer")).await.expect(200);
        }
        erase(&service, "u-2", "").await.expect(200);
        assert_eq!(values(&service, free).await.status, 410);
        let last = service.records_of("erasure").await.pop().unwrap();
        assert_eq!(last["entry"]["body"].get("despite_hold"), None);
        service.export_and_verify();
    }

    /// Holds are set while persons are erased: whatever comes first, no value of a record goes that a hold
    /// kept which the ledger holds before the place at which the erasure looked.
    async fn a_hold_set_meanwhile_comes_before_or_after(store: Store) {
        let service = start(store).await;
        let mut seqs = Vec::new();
        for n in 0..4 {
            seqs.push(decide(&service, &format!("u-{n}")).await);
        }
        let erasing = async {
            let mut answers = Vec::new();
            for n in 0..4 {
                answers.push(erase(&service, &format!("u-{n}"), "").await.status);
            }
            answers
        };
        let holding = async {
            tokio::time::sleep(Duration::from_millis(3_500)).await;
            hold(&service, "case", &json!({})).await["record"].as_u64().unwrap()
        };
        let (answers, record) = tokio::join!(erasing, holding);
        let erasures = service.records_of("erasure").await;
        for erasure in &erasures {
            let body = &erasure["entry"]["body"];
            assert!(body["as_of"].as_u64().unwrap() <= record, "{body}");
        }
        let erased = answers.iter().filter(|status| **status == 200).count();
        assert_eq!(erased, erasures.len());
        assert!(answers.iter().all(|status| [200, 409].contains(status)), "{answers:?}");
        assert_eq!(answers.last(), Some(&409), "a hold on all is in force by then");
    }

    async fn refused_attempts_of_known_keys_are_recorded_and_bounded(store: Store) {
        let mut service = Service::setup(store)
            .key("limited", &["--role", "auditor", "--jurisdiction", "SA"])
            .start()
            .await;
        let seq = decide(&service, "u-1").await;
        let path = format!("/v1/audit/records/{seq}/values");
        assert_eq!(service.get(&path, "auditor").await.status, 403);
        assert_eq!(service.get("/v1/audit/records", "caller").await.status, 403);
        assert_eq!(service.get("/v1/audit/checkpoint", "officer").await.status, 403);
        let erasure = service.request("DELETE", "/v1/subjects/u-1?tenant=acme", "auditor");
        assert_eq!(Answer::of(erasure).await.status, 403);
        assert_eq!(service.get("/tlog/tile/entries/000.p/1", "limited").await.status, 403);
        let refused = service.records_of("refused").await;
        let told: Vec<_> = refused
            .iter()
            .map(|record| {
                let body = &record["entry"]["body"];
                assert_eq!(body["times"], 1);
                assert!(body["why"].as_str().is_some_and(|why| !why.is_empty()));
                assert!(body["retention"]["class"].is_string());
                (body["key"].as_str().unwrap(), body["operation"].as_str().unwrap())
            })
            .collect();
        let expected = [
            ("auditor", "readValues"),
            ("support-copilot", "listRecords"),
            ("officer", "readCheckpoint"),
            ("auditor", "eraseSubject"),
            ("limited", "tlogEntries"),
        ];
        assert_eq!(told, expected);

        // Who is not known is not recorded, and who tries often does not fill the log.
        let unknown = service.anonymous("GET", &path).bearer_auth("nobody");
        assert_eq!(Answer::of(unknown).await.status, 401);
        for _ in 0..60 {
            assert_eq!(service.get("/v1/audit/keys", "officer").await.status, 403);
        }
        assert_eq!(service.records_of("refused").await.len(), 5 + 9);
        let metrics = Answer::of(service.anonymous("GET", "/metrics")).await.text();
        assert!(metrics.contains("lexgate_unauthenticated_total 1"), "{metrics}");
        assert!(metrics.contains("lexgate_refused_total{operation=\"listKeys\"} 60"), "{metrics}");

        // What was counted is recorded when the process ends.
        service.restart().await;
        let refused = service.records_of("refused").await;
        let last = &refused.last().unwrap()["entry"]["body"];
        assert_eq!((refused.len(), &last["times"]), (15, &json!(51)), "{last}");
        assert_eq!((&last["key"], &last["operation"]), (&json!("officer"), &json!("listKeys")));
        service.export_and_verify();
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)]));
    bytes.iter().flat_map(digits).collect()
}

async fn execute(store: Store, url: &str, statement: &str) {
    use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
    if store == Store::Sqlite {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        assert_eq!(connection.execute(statement).await.unwrap().rows_affected(), 1);
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        assert_eq!(connection.execute(statement).await.unwrap().rows_affected(), 1);
    }
}
