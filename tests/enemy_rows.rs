//! Somebody who may write rows with the service's own role, and a caller who makes much of little: what is
//! not in the signed log is not believed, and nothing ends the process or fills the log.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::json;

use crate::{
    backend::{Backend, Step, completion, whole},
    enemy_sending::eventually,
    enemy_stores::becomes,
    enemy_tables::write,
    gateway::{CHAT, HARMLESS, chat, outcomes},
    harness::{Answer, Service, Store, both_stores},
};

const LAPTOP: &str = "smollm2@laptop";

/// Outcomes behind the head, of the next calls.
fn foreign_outcomes(store: Store) -> String {
    let (columns, id, more) = match store {
        Store::Sqlite => ("seq, id, ts, kind, about, leaf, entry", "randomblob(16)", ""),
        Store::Postgres => {
            ("seq, id, ts, kind, about, leaf, entry, terms", "gen_random_uuid()", ", e.terms")
        }
    };
    let rows = (0..40).map(|n| {
        format!(
            "INSERT INTO entries ({columns}) SELECT 9000000000 + {n}, {id}, e.ts, 'outcome',
                 (SELECT next FROM head) + {n}, e.leaf, e.entry{more}
             FROM entries e WHERE e.seq = (SELECT max(seq) FROM entries WHERE kind = 'outcome'
                 AND seq < (SELECT next FROM head))"
        )
    });
    rows.collect::<Vec<_>>().join("; ")
}

/// What a superuser does to delete them again.
fn deleted(store: Store) -> String {
    let remove = "DELETE FROM entries WHERE seq >= (SELECT next FROM head)";
    match store {
        Store::Sqlite => format!("DROP TRIGGER entries_no_delete; {remove}"),
        Store::Postgres => format!(
            "ALTER TABLE entries DISABLE TRIGGER append_only; {remove}; ALTER TABLE entries ENABLE TRIGGER append_only"
        ),
    }
}

/// A row where the next entry goes.
fn in_the_next_place(store: Store) -> String {
    let (columns, id, more) = match store {
        Store::Sqlite => ("seq, id, ts, kind, leaf, entry", "randomblob(16)", ""),
        Store::Postgres => {
            ("seq, id, ts, kind, leaf, entry, terms", "gen_random_uuid()", ", e.terms")
        }
    };
    format!(
        "INSERT INTO entries ({columns}) SELECT (SELECT next FROM head), {id}, e.ts, e.kind, e.leaf, e.entry{more}
         FROM entries e WHERE e.seq = (SELECT max(seq) FROM entries)"
    )
}

/// No outcome is taken for a reason of its own, and no open dispatch may change hands.
const fn refused(store: Store) -> &'static str {
    match store {
        Store::Sqlite => {
            "CREATE TRIGGER no_outcome BEFORE INSERT ON entries WHEN NEW.kind = 'outcome'
             BEGIN SELECT RAISE(ABORT, 'no outcome'); END;
             CREATE TRIGGER no_change BEFORE UPDATE ON open_dispatches
             BEGIN SELECT RAISE(ABORT, 'no change'); END"
        }
        Store::Postgres => {
            "ALTER TABLE entries ADD CONSTRAINT no_outcome CHECK (kind <> 'outcome') NOT VALID;
             ALTER TABLE open_dispatches ADD CONSTRAINT no_change
             CHECK (process <> '00000000-0000-0000-0000-000000000000')"
        }
    }
}

const fn taken_again(store: Store) -> &'static str {
    match store {
        Store::Sqlite => "DROP TRIGGER no_outcome; DROP TRIGGER no_change",
        Store::Postgres => {
            "ALTER TABLE entries DROP CONSTRAINT no_outcome;
             ALTER TABLE open_dispatches DROP CONSTRAINT no_change"
        }
    }
}

both_stores! {
    async fn rows_behind_the_head_take_no_outcome_s_place(store: Store) {
        let backend = Backend::polite().await;
        let service = Service::setup(store).backend(LAPTOP, &backend.url).start().await;
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        outcomes(&service).await;
        write(&service.site, &foreign_outcomes(store)).await;
        // Until it is seen, calls are as they were; then nothing is recorded and so nothing sent.
        let said = becomes(&service, 503).await;
        assert!(said["detail"].as_str().unwrap().contains("behind the head"), "{said}");
        let before = backend.seen().len();
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(503);
        assert_eq!(backend.seen().len(), before, "a call was sent");
        write(&service.site, &deleted(store)).await;
        becomes(&service, 200).await;
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        let sent = service.records_of("decision").await.len();
        eventually("each call has its outcome", async || {
            outcomes(&service).await.len() == sent
        })
        .await;
        assert!(outcomes(&service).await.iter().all(|outcome| outcome["status"] == "ok"));
        service.export_and_verify();
    }

    async fn an_outcome_waits_until_its_place_is_free(store: Store) {
        let told = Arc::<AtomicBool>::default();
        let waits = told.clone();
        let backend = Backend::start(move |_| {
            let waits = Step::Until(waits.clone());
            std::iter::once(waits).chain(whole(&completion())).collect()
        })
        .await;
        let service = Service::setup(store).backend(LAPTOP, &backend.url).start().await;
        let disturb = async {
            eventually("the call is under way", async || backend.seen().len() == 1).await;
            write(&service.site, &in_the_next_place(store)).await;
            told.store(true, Ordering::SeqCst);
        };
        let call = chat(LAPTOP);
        let (answer, ()) = tokio::join!(service.openai(CHAT, &HARMLESS, &call), disturb);
        answer.expect(200);
        becomes(&service, 503).await;
        write(&service.site, &deleted(store)).await;
        becomes(&service, 200).await;
        eventually("the outcome is recorded", async || outcomes(&service).await.len() == 1).await;
        let outcome = outcomes(&service).await.remove(0);
        let (status, read) = (&outcome["status"], &outcome["tokens"]["output"]);
        assert_eq!((status, read), (&json!("ok"), &json!(7)), "{}", service.stderr());
        service.export_and_verify();
    }

    async fn what_cannot_be_given_up_is_given_up_later(store: Store) {
        let backend = Backend::polite().await;
        let service = Service::setup(store).backend(LAPTOP, &backend.url).start().await;
        write(&service.site, refused(store)).await;
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        eventually("it cannot be given up", async || {
            service.stderr().contains("dispatches without outcome cannot be given up")
        })
        .await;
        write(&service.site, taken_again(store)).await;
        // The process lives on, and closes it.
        eventually("the call has an outcome", async || {
            service.records_of("outcome").await.len() == 1
        })
        .await;
        assert_eq!(outcomes(&service).await[0]["status"], "unknown");
        service.export_and_verify();
    }

    async fn a_value_that_is_deep_ends_no_process(store: Store) {
        let backend = Backend::polite().await;
        let service = Service::setup(store).backend(LAPTOP, &backend.url).start().await;
        for depth in [100, 3_000, 100_000] {
            let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            for field in ["stop", "user", "temperature", "seed"] {
                let body = format!(
                    r#"{{"model":"{LAPTOP}","messages":[{{"role":"user","content":"x"}}],"{field}":{deep}}}"#
                );
                let answer = Answer::of(
                    service
                        .request("POST", CHAT, "caller")
                        .header("content-type", "application/json")
                        .header("x-lexgate-personal", "false")
                        .body(body),
                )
                .await;
                assert_eq!(answer.status, 400, "{field} {depth}: {}", answer.text());
            }
        }
        assert!(backend.seen().is_empty());
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
    }
}
