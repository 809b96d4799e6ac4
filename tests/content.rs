//! Content: outcomes commit to what a call said and what it was answered; it is kept only where the
//! organisation says so, and forgotten with the person.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    backend::{
        Backend, Seen, Step, answer, chunk, completion, events, piece, stream, stream_end,
        stream_head, whole,
    },
    harness::{Answer, Service, Setup, Store, both_stores},
    ledger::Exported,
};

const CHAT: &str = "/v1/chat/completions";
const LAPTOP: &str = "smollm2@laptop";
const USER: &str = "patient-1842@example.org";
const USER_PATH: &str = "/v1/subjects/patient-1842%40example.org?tenant=acme";
const MIB: usize = 1 << 20;

/// The example with `backend` behind the on-device deployment, and an auditor who may read values.
fn with(store: Store, backend: &Backend) -> Setup {
    let setup = Service::setup(store).backend(LAPTOP, &backend.url);
    setup.key("dpo", &["--role", "auditor", "--personal-values"])
}

/// The same, with what the caller's app says of its content.
fn with_content(store: Store, backend: &Backend, content: &str) -> Setup {
    let app = "id = \"support-copilot\"\n";
    with(store, backend).organisation_with(app, &format!("{app}content = \"{content}\"\n"))
}

/// A body as a client writes it, and nobody who reads JSON and writes it again.
fn body(prompt: &str, stream: bool) -> String {
    format!(
        "{{ \"model\" : \"{LAPTOP}\",\n \"stream\":{stream}, \"metadata\": {{ \"lexgate_personal\":\"false\" }},\n\
         \"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}] }}\n"
    )
}

/// Sends these very bytes, for `user` where there is one.
async fn send(service: &Service, body: &str, user: Option<&str>) -> Answer {
    let request =
        service.request("POST", CHAT, "caller").header("content-type", "application/json");
    let request = match user {
        Some(user) => request.header("x-lexgate-end-user", user),
        None => request,
    };
    Answer::of(request.body(body.to_owned())).await
}

fn decision_of(answer: &Answer) -> u64 {
    answer.header("x-lexgate-record").expect("the answer names its record").parse().unwrap()
}

/// The outcome's record of the decision at `decision`.
async fn outcome(service: &Service, decision: u64) -> Value {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let outcomes = service.records_of("outcome").await;
        let of = |record: &Value| record["entry"]["body"]["decision"]["seq"] == decision;
        if let Some(found) = outcomes.into_iter().find(of) {
            return found;
        }
        assert!(Instant::now() < patience, "decision {decision} has no outcome");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn values(service: &Service, seq: &Value) -> Answer {
    service.get(&format!("/v1/audit/records/{seq}/values"), "dpo").await
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// What anybody makes who has a salt and the content.
fn commitment(salt: &Value, content: &[u8]) -> Vec<u8> {
    let hash = Sha256::new().chain_update(b"lexgate/commit/v1\0").chain_update(bytes(salt));
    hash.chain_update(content).finalize().to_vec()
}

/// The outcome commits to what the client sent and to what it was sent; gives the opened values.
async fn check(service: &Service, answered: &Answer, sent: &[u8], received: &[u8]) -> Value {
    let record = outcome(service, decision_of(answered)).await;
    let opened = values(service, &record["seq"]).await.expect(200);
    assert_eq!(opened["seq"], record["seq"]);
    for (name, content) in [("input", sent), ("output", received)] {
        let said = &record["entry"]["body"][format!("{name}_commitment")];
        assert_eq!(*said, opened[name]["commitment"], "{name} {record}");
        assert_eq!(commitment(&opened[name]["salt"], content), bytes(said), "{name} {opened}");
    }
    opened
}

async fn erase(service: &Service) -> Value {
    Answer::of(service.request("DELETE", USER_PATH, "officer")).await.expect(200)
}

both_stores! {
    async fn an_outcome_commits_to_the_very_bytes_of_the_client(store: Store) {
        let backend = Backend::polite().await;
        let service = with(store, &backend).start().await;
        let sent = body("Good morning", false);
        let answered = send(&service, &sent, None).await;
        assert_eq!(answered.expect(200), completion());
        let opened = check(&service, &answered, sent.as_bytes(), &answered.body).await;
        // Unless the organisation says otherwise, nothing but the salts is kept.
        for name in ["input", "output"] {
            assert_eq!(opened[name]["kept"], false, "{opened}");
            assert_eq!(opened[name].as_object().unwrap().len(), 3, "{opened}");
        }
        assert_ne!(opened["input"]["salt"], opened["output"]["salt"]);

        let sent = body("Good morning", true);
        let streamed = send(&service, &sent, None).await;
        assert!(streamed.text().ends_with("data: [DONE]\n\n"), "{}", streamed.text());
        let again = check(&service, &streamed, sent.as_bytes(), &streamed.body).await;
        assert_ne!(again["input"]["salt"], opened["input"]["salt"], "a salt is used once");

        let report = service.export_and_verify();
        assert_eq!((&report["committed"], &report["kinds"]["outcome"]), (&json!(2), &json!(2)));
    }

    async fn a_stream_is_committed_to_as_the_client_got_it(store: Store) {
        // A label in front, a backend's comments, bytes that are no text, usage that nobody asked for.
        let backend = Backend::start(|seen: &Seen| {
            let comments = [piece(": keepalive\n\n"), piece(b": \xff\xfe\n\n")];
            let broken = seen.text().contains("BREAK");
            let rest = events().into_iter().skip(1).map(piece).filter(|_| !broken);
            let steps = [stream_head(), piece(chunk("Good "))].into_iter().chain(comments).chain(rest);
            steps.chain([stream_end()]).collect()
        })
        .await;
        let app = "id = \"support-copilot\"\n";
        let service = with(store, &backend)
            .organisation_with(app, &format!("{app}content = \"sealed\"\nstream_label = \"[AI] \"\n"))
            .start()
            .await;
        for (prompt, end) in [("Hello", "data: [DONE]\n\n"), ("BREAK", "\"code\":\"upstream_error\"}}\n\n")] {
            let sent = body(prompt, true).replace("\"lexgate_personal\":\"false\"",
                "\"lexgate_data\":\"dpv-pd:Contact\",\"lexgate_subjects\":\"DE\"");
            let streamed = send(&service, &sent, None).await;
            let text = streamed.text();
            assert!(text.contains("[AI] ") && text.ends_with(end), "{text}");
            let comment = b": keepalive\n\n";
            let at = streamed.body.windows(comment.len()).position(|part| part == comment).unwrap();
            let heard = [&streamed.body[..at], &streamed.body[at + comment.len()..]].concat();
            let opened = check(&service, &streamed, sent.as_bytes(), &heard).await;
            assert_eq!(opened["input"]["content"], sent);
            assert_eq!(opened["input"]["encoding"], "utf-8");
            assert_eq!((&opened["output"]["kept"], &opened["output"]["encoding"]), (&json!(true), &json!("base64")));
            let content = opened["output"]["content"].as_str().unwrap();
            assert_eq!(base64(content), heard);
        }
    }

    async fn what_was_not_answered_has_no_output(store: Store) {
        let failing = Backend::start(|_| answer("500 Oops", "", b"")).await;
        let service = with_content(store, &failing, "sealed").start().await;
        let sent = body("Good morning", false);
        let failed = send(&service, &sent, None).await;
        failed.expect(502);
        let record = outcome(&service, decision_of(&failed)).await;
        assert_eq!(record["entry"]["body"].get("output_commitment"), None, "{record}");
        let opened = values(&service, &record["seq"]).await.expect(200);
        assert_eq!((&opened["input"]["content"], &opened["output"]), (&json!(sent), &Value::Null));

        // What the backend says of a wrong request is an answer.
        let refusing = Backend::start(|_| {
            answer("400 Bad Request", "content-type: application/json\r\n", b"{\"error\":{\"message\":\"no\"}}")
        });
        let refusing = refusing.await;
        let service = with(store, &refusing).start().await;
        let refused = send(&service, &sent, None).await;
        refused.expect(400);
        check(&service, &refused, sent.as_bytes(), &refused.body).await;

        // A denial sends nothing: it has no outcome, and nothing of it is kept.
        let undeclared = sent.replace("\"lexgate_personal\":\"false\"", "");
        let denied = send(&service, &undeclared, Some(USER)).await;
        denied.expect(403);
        assert_eq!(service.records_of("outcome").await.len(), 1);
        let whom = values(&service, &json!(decision_of(&denied))).await.expect(200);
        assert_eq!(whom["end_user"], USER);
        // Whoever ran inference itself has told Lexgate nothing of what was said.
        let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
        let decided = service.decide(&call).await.expect(200);
        let path = format!("/v1/decisions/{}/outcome", decided["id"].as_str().unwrap());
        let reported = service.post(&path, "caller", &json!({ "status": "ok" })).await;
        assert!(reported.status < 300, "{}", reported.text());
        let record = outcome(&service, decided["record"]["seq"].as_u64().unwrap()).await;
        assert_eq!(record["entry"]["body"].get("input_commitment"), None);
        assert_eq!(values(&service, &record["seq"]).await.status, 404);
    }

    async fn content_is_kept_where_the_organisation_says_so_and_read_by_whom_it_says(store: Store) {
        let backend = Backend::start(|_| {
            let mut said = completion();
            said["choices"][0]["message"]["content"] = json!("ANSWER-MARKER");
            whole(&said)
        })
        .await;
        let service = with_content(store, &backend, "sealed").env("LEXGATE_LOG", "trace").start().await;
        let sent = body("PROMPT-MARKER", false);
        let answered = send(&service, &sent, None).await;
        let opened = check(&service, &answered, sent.as_bytes(), &answered.body).await;
        assert_eq!((&opened["input"]["content"], &opened["input"]["kept"]), (&json!(sent), &json!(true)));
        assert_eq!((&opened["output"]["content"], &opened["output"]["encoding"]), (&json!(answered.text()), &json!("utf-8")));
        let seq = &opened["seq"];
        for key in ["auditor", "officer", "caller"] {
            let answer = service.get(&format!("/v1/audit/records/{seq}/values"), key).await;
            assert_eq!(answer.status, 403, "{key}");
        }
        let readings = service.records_of("audit_read").await;
        let seq = seq.to_string();
        let reads = readings.iter().filter(|read| {
            let body = &read["entry"]["body"];
            body["operation"] == "readValues" && body["query"]["seq"] == *seq
        });
        assert_eq!(reads.count(), 1, "the reading is recorded");

        // It stands in no entry, no log line, and not in the store's file.
        let exported = Exported::of(&service.site);
        let holds = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"MARKER");
        for (name, content) in exported.files() {
            assert!(!holds(&content), "{name}");
        }
        let log = service.stderr();
        assert!(log.contains("chat/completions"), "the log was written");
        assert!(!log.contains("MARKER"), "{log}");
        if store == Store::Sqlite {
            for file in ["data/lexgate.db", "data/lexgate.db-wal"] {
                assert!(!holds(&fs::read(service.site.path(file)).unwrap()), "{file}");
            }
        }
    }

    async fn an_app_without_content_commits_to_nothing(store: Store) {
        let backend = Backend::polite().await;
        let service = with_content(store, &backend, "none").start().await;
        let answered = send(&service, &body("Good morning", false), Some(USER)).await;
        let record = outcome(&service, decision_of(&answered)).await;
        for name in ["input_commitment", "output_commitment"] {
            assert_eq!(record["entry"]["body"].get(name), None, "{record}");
        }
        assert_eq!(values(&service, &record["seq"]).await.status, 404);
        let whom = values(&service, &json!(decision_of(&answered))).await.expect(200);
        assert_eq!(whom["end_user"], USER, "who the end user is, is another thing");
        assert_eq!(erase(&service).await["values"], 1);
    }

    async fn who_is_erased_takes_the_content_along(store: Store) {
        let backend = Backend::polite().await;
        let service = with_content(store, &backend, "sealed").start().await;
        let sent = body("Good morning", false);
        let mine = send(&service, &sent, Some(USER)).await;
        let nobodys = send(&service, &sent, None).await;
        check(&service, &mine, sent.as_bytes(), &mine.body).await;
        let decision = decision_of(&mine);
        let outcome = outcome(&service, decision).await["seq"].as_u64().unwrap();
        assert!(backend.seen().iter().all(|seen| !seen.text().contains("lexgate") && seen.header("x-lexgate-end-user").is_none()));

        let erased = erase(&service).await;
        assert_eq!(erased["values"], 2);
        let record = erased["records"][0].as_u64().unwrap();
        for seq in [decision, outcome] {
            let gone = values(&service, &json!(seq)).await.expect(410);
            assert_eq!(gone["detail"], format!("the value was erased, as record {record} says"));
        }
        let said = service.get(&format!("/v1/audit/records/{record}"), "auditor").await.expect(200);
        assert_eq!(said["entry"]["body"]["erased"], json!([decision, outcome]));
        // What belongs to nobody stays.
        let kept = check(&service, &nobodys, sent.as_bytes(), &nobodys.body).await;
        assert_eq!(kept["input"]["content"], sent);
        let report = service.export_and_verify();
        assert_eq!(report["committed"], 3);
        assert_eq!(report["erased"], json!([{ "record": record, "count": 2 }]));
    }

    async fn who_is_erased_during_a_call_loses_its_value_and_no_outcome(store: Store) {
        let backend = Backend::start(|_| {
            let steps = stream(&events());
            let mut steps = steps.into_iter();
            let begun: Vec<Step> = steps.by_ref().take(2).collect();
            begun.into_iter().chain([Step::Wait(Duration::from_secs(6))]).chain(steps).collect()
        })
        .await;
        let service = with_content(store, &backend, "sealed").start().await;
        let sent = body("Good morning", true);
        let calling = send(&service, &sent, Some(USER));
        let erasing = async {
            while service.records_of("decision").await.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            erase(&service).await
        };
        let (answered, erased) = tokio::join!(calling, erasing);
        assert!(answered.text().ends_with("data: [DONE]\n\n"), "{}", answered.text());
        assert_eq!(erased["values"], 1, "the decision's");
        let record = outcome(&service, decision_of(&answered)).await;
        assert_eq!(record["entry"]["body"]["status"], "ok");
        assert!(record["entry"]["body"]["output_commitment"].is_string());
        let gone = values(&service, &record["seq"]).await.expect(410);
        let detail = "the value was never kept: its person was erased while the call was under way";
        assert_eq!(gone["detail"], detail);
        assert_eq!(service.export_and_verify()["open"], json!([]));
    }

    async fn what_is_long_is_committed_to_and_not_kept(store: Store) {
        let backend = Backend::start(|seen: &Seen| {
            let text = "y".repeat(if seen.text().contains("LONG") { MIB } else { 10 });
            if seen.json()["stream"] == true {
                let mut events = events();
                events.insert(1, chunk(&text));
                return stream(&events);
            }
            let mut said = completion();
            said["choices"][0]["message"]["content"] = json!(text);
            whole(&said)
        })
        .await;
        let service = with_content(store, &backend, "sealed").start().await;
        for streamed in [false, true] {
            let sent = body("LONG", streamed);
            let answered = send(&service, &sent, None).await;
            let opened = check(&service, &answered, sent.as_bytes(), &answered.body).await;
            assert_eq!((&opened["input"]["kept"], &opened["output"]["kept"]), (&json!(true), &json!(false)));
            assert_eq!(opened["output"].get("content"), None);
        }
        let sent = body(&"x".repeat(MIB), false);
        let answered = send(&service, &sent, None).await;
        let opened = check(&service, &answered, sent.as_bytes(), &answered.body).await;
        assert_eq!((&opened["input"]["kept"], &opened["output"]["kept"]), (&json!(false), &json!(true)));
        // The longest that is kept.
        let shell = body("", false).len();
        let sent = body(&"x".repeat(MIB - shell), false);
        let answered = send(&service, &sent, None).await;
        let opened = check(&service, &answered, sent.as_bytes(), &answered.body).await;
        assert_eq!((sent.len(), &opened["input"]["content"]), (MIB, &json!(sent)));
    }

    async fn many_calls_at_once_are_each_committed_to(store: Store) {
        let backend = Backend::polite().await;
        let service = with_content(store, &backend, "sealed").start().await;
        let sent: Vec<String> = (0..24).map(|n| body(&format!("call {n}"), n % 2 == 0)).collect();
        let user = |n: usize| [None, Some("u-1"), Some("u-2")][n % 3];
        let calls = sent.iter().enumerate().map(|(n, sent)| send(&service, sent, user(n)));
        let answers = futures_util::future::join_all(calls).await;
        for (sent, answered) in sent.iter().zip(&answers) {
            let opened = check(&service, answered, sent.as_bytes(), &answered.body).await;
            assert_eq!(opened["input"]["content"], *sent);
        }
    }

    async fn without_a_master_key_nothing_is_committed_to(store: Store) {
        let key = "master_key_file = \"data/master.key\"\n";
        let backend = Backend::polite().await;
        let service = with(store, &backend).replace("config/lexgate.toml", key, "").start().await;
        let answered = send(&service, &body("Good morning", false), Some(USER)).await;
        let record = outcome(&service, decision_of(&answered)).await;
        assert_eq!(record["entry"]["body"].get("input_commitment"), None, "{record}");
        assert_eq!(values(&service, &record["seq"]).await.status, 404);

        // What is to be kept sealed needs a key.
        let setup = with_content(store, &backend, "sealed");
        let site = setup.replace("config/lexgate.toml", key, "").prepare().await;
        let refused = site.run(&["serve"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        for part in ["app `support-copilot` has `content = \"sealed\"`", "config/lexgate.toml", "help: set `[ledger] master_key_file`"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
}

/// The bytes behind base64.
fn base64(text: &str) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    BASE64_STANDARD.decode(text).unwrap()
}

#[tokio::test]
async fn sqlite_an_unknown_word_for_content_is_a_fault_with_its_place() {
    let backend = Backend::polite().await;
    let site = with_content(Store::Sqlite, &backend, "everything").prepare().await;
    let refused = site.run(&["policies", "check"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let text = format!("{}{}", refused.stdout, refused.stderr);
    for part in ["config/organisation.toml", "everything", "`none`, `commitment`, `sealed`"] {
        assert!(text.contains(part), "{text}");
    }
}
