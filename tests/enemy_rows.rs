//! Somebody who may write rows with the service's own role, and a caller who makes much of little: what is
//! not in the signed log is not believed, and nothing ends the process or fills the log.

use crate::{
    backend::Backend,
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
        crate::enemy_sending::eventually("each call has its outcome", async || {
            outcomes(&service).await.len() == sent
        })
        .await;
        assert!(outcomes(&service).await.iter().all(|outcome| outcome["status"] == "ok"));
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
