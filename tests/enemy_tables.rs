//! Somebody who writes to the database past the service, with the service's own role or a greater one: what
//! the tables say is believed only as far as the signed log says it.

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use lexgate::{
    domain::{Digest, Revision, Seq, SnapshotDigests},
    ledger::{ActivationBody, Envelope, Kind, canonical, seal},
};

use crate::{
    backend::Backend,
    enemy_stores::{becomes, ready},
    gateway::{CHAT, HARMLESS, chat},
    harness::{Answer, Service, Site, Store, both_stores, with_json},
};

const LAPTOP: &str = "smollm2@laptop";

/// Writes to the store of `site`, past its service.
pub(crate) async fn write(site: &Site, statement: &str) {
    let done = if site.store_url().starts_with("sqlite") {
        let url = format!("sqlite://{}", site.path("data/lexgate.db").display());
        SqliteConnection::connect(&url).await.unwrap().execute(statement).await.map(drop)
    } else {
        PgConnection::connect(site.store_url()).await.unwrap().execute(statement).await.map(drop)
    };
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Where the next entry goes, and the leaf that it follows.
pub(crate) async fn head(site: &Site) -> (Seq, Digest) {
    let (next, leaf): (i64, Vec<u8>) = if site.store_url().starts_with("sqlite") {
        let url = format!("sqlite://{}", site.path("data/lexgate.db").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query_as("SELECT next, leaf FROM head").fetch_one(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(site.store_url()).await.unwrap();
        sqlx::query_as("SELECT next, leaf FROM head").fetch_one(&mut connection).await.unwrap()
    };
    (Seq::new(next.try_into().unwrap()), Digest::from_bytes(leaf.try_into().unwrap()))
}

/// Bytes as SQL has them.
pub(crate) fn blob(store: Store, bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from(b"0123456789abcdef"[usize::from(n)]));
    let hex: String = bytes.iter().flat_map(digits).collect();
    match store {
        Store::Sqlite => format!("x'{hex}'"),
        Store::Postgres => format!("'\\x{hex}'"),
    }
}

fn harmless() -> Value {
    json!({ "action": "infer", "model": "assistant", "data": { "personal": false } })
}

/// The active snapshot with an organisation that sends everything to `backend`, along with whatever
/// variable this machine has.
async fn forged(service: &Service, backend: &Backend) -> (SnapshotDigests, Vec<u8>) {
    let activated = service.records_of("bundle_activated").await;
    let body = activated.last().unwrap()["entry"]["body"].clone();
    let body: ActivationBody = serde_json::from_value(body).unwrap();
    let file = "config/organisation.toml";
    let before = service.site.read(file);
    service.site.reach(LAPTOP, |_| {
        format!(
            "base_url = \"{}\"\nserved_as = [\"served-model\"]\napi_key_env = \"PATH\"",
            backend.url
        )
    });
    let organisation = service.site.read(file).into_bytes();
    service.site.write(file, &before);
    let digests = SnapshotDigests {
        organisation: Digest::of(&organisation),
        revision: Revision(body.snapshot.revision.0 + 1),
        ..body.snapshot
    };
    (digests, organisation)
}

/// The three statements of the service's own role, with the activation at `seq`.
fn statements(store: Store, digests: &SnapshotDigests, content: &[u8], seq: u64) -> String {
    let of = |digest: Digest| blob(store, digest.as_bytes());
    let revision = digests.revision.0;
    format!(
        "INSERT INTO contents (digest, kind, bytes) VALUES ({}, 'organisation', {});
         INSERT INTO activations (revision, seq, bundle, facts, organisation, registers)
         VALUES ({revision}, {seq}, {}, {}, {}, {});
         UPDATE head SET revision = {revision}",
        of(digests.organisation),
        blob(store, content),
        of(digests.bundle),
        of(digests.facts),
        of(digests.organisation),
        of(digests.registers),
    )
}

/// What a superuser does to take the activation away again.
fn taken_back(store: Store, revision: u64) -> String {
    let remove = format!(
        "DELETE FROM activations WHERE revision >= {revision}; UPDATE head SET revision = {}",
        revision - 1
    );
    match store {
        Store::Sqlite => format!("DROP TRIGGER activations_no_delete; {remove}"),
        Store::Postgres => {
            format!(
                "ALTER TABLE activations DISABLE TRIGGER append_only; {remove}; ALTER TABLE activations ENABLE TRIGGER append_only"
            )
        }
    }
}

/// Nothing is decided, nothing is sent, and `/readyz` says why.
async fn nothing_is_decided(service: &Service, theirs: &Backend, why: &str) {
    let decided = service.decide(&harmless()).await;
    assert_eq!(decided.status, 503, "{}", decided.text());
    assert_eq!(decided.json()["type"], "urn:lexgate:problem:snapshot-unavailable");
    let called = service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await;
    assert_eq!(called.status, 503, "{}", called.text());
    let explained = service.post("/v1/explain", "caller", &harmless()).await;
    assert_eq!(explained.status, 503, "{}", explained.text());
    let said = becomes(service, 503).await;
    assert_eq!(said["errors"][0]["pointer"], "/checks/snapshot", "{said}");
    assert!(said["detail"].as_str().unwrap().contains(why), "{said}");
    assert!(theirs.seen().is_empty(), "something was sent: {:?}", theirs.seen());
    assert!(service.stderr().contains("the active snapshot cannot be served"));
}

both_stores! {
    async fn tables_alone_activate_nothing(store: Store) {
        let (ours, theirs) = (Backend::polite().await, Backend::polite().await);
        let service = Service::setup(store).backend(LAPTOP, &ours.url).start().await;
        let answer = service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await;
        let last = answer.header("x-lexgate-record").unwrap().parse::<u64>().unwrap();
        let (digests, organisation) = forged(&service, &theirs).await;
        let revision = digests.revision.0;
        write(&service.site, &statements(store, &digests, &organisation, last)).await;
        nothing_is_decided(&service, &theirs, "is not the activation of this snapshot").await;
        // Another process does not start on it, whether it is to activate its own files or not.
        for activate in ["true", "false"] {
            let ran = service
                .site
                .command(&["serve"])
                .env("LEXGATE_POLICIES__ACTIVATE_ON_START", activate)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(!ran.status.success() && said.contains("not confirmed by the signed log"), "{said}");
        }
        // The same process goes on once it is gone.
        write(&service.site, &taken_back(store, revision)).await;
        becomes(&service, 200).await;
        service.openai(CHAT, &HARMLESS, &chat(LAPTOP)).await.expect(200);
        assert_eq!(ours.seen().len(), 2);
        service.export_and_verify();
    }

    async fn an_activation_that_was_taken_back_is_missed(store: Store) {
        let service = Service::start(store).await;
        let site = service.site.clone();
        drop(service);
        // What was allowed is no more, by a second activation.
        site.replace("config/organisation.toml", "approved = true", "approved = false");
        let again = [("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")];
        let service = Service::on_with(site.clone(), &again).await;
        assert_eq!(service.records_of("bundle_activated").await.len(), 2);
        drop(service);
        write(&site, &taken_back(store, 2)).await;
        let mut serve = site.command(&["serve"]);
        let ran = serve.env("LEXGATE_POLICIES__ACTIVATE_ON_START", "false").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && said.contains("activated another snapshot"), "{said}");
    }

    async fn an_entry_that_nobody_signed_activates_nothing(store: Store) {
        let theirs = Backend::polite().await;
        let service = Service::start(store).await;
        service.decide(&harmless()).await.expect(200);
        let (digests, organisation) = forged(&service, &theirs).await;
        let (seq, leaf) = head(&service.site).await;
        let last = service.records().await.pop().unwrap();
        let body = ActivationBody { cause: "start".into(), snapshot: digests, store: None };
        let (kind, log) = (Kind::BundleActivated, last["entry"]["log"].as_str().unwrap());
        let envelope = Envelope {
            id: "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11".parse().unwrap(),
            kind: &kind,
            log: &log.parse().unwrap(),
            prev: leaf,
            // The reading of these records was recorded too.
            seq: Seq::new(seq.get() + 1),
            ts: last["entry"]["ts"].as_str().unwrap().parse().unwrap(),
        };
        let (bytes, leaf) = seal(&envelope, &canonical::to_vec(&body).unwrap());
        let (columns, more) = match store {
            Store::Sqlite => ("seq, id, ts, kind, leaf, entry", String::new()),
            Store::Postgres => ("seq, id, ts, kind, leaf, entry, terms", ", '{}'".to_owned()),
        };
        let id = match store {
            Store::Sqlite => blob(store, envelope.id.as_bytes()),
            Store::Postgres => format!("'{}'", envelope.id),
        };
        let (seq, ts) = (envelope.seq, envelope.ts.as_microsecond());
        let entry = format!(
            "INSERT INTO entries ({columns}) VALUES ({seq}, {id}, {ts}, 'bundle_activated', {}, {}{more});",
            blob(store, leaf.as_bytes()),
            blob(store, &bytes),
        );
        let three = statements(store, &digests, &organisation, seq.get());
        write(&service.site, &format!("{entry}{three}, next = {}, leaf = {}", seq.get() + 1, blob(store, leaf.as_bytes()))).await;
        let said = becomes(&service, 503).await;
        assert!(said["detail"].as_str().unwrap().contains("its signed checkpoint"), "{said}");
        let since = std::time::Instant::now();
        loop {
            let decided = service.decide(&harmless()).await;
            assert_eq!(decided.status, 503, "{}", decided.text());
            let said = becomes(&service, 503).await;
            if said["detail"].as_str().unwrap().contains("is not in the signed tree") {
                break;
            }
            assert!(since.elapsed() < std::time::Duration::from_secs(40), "{said}");
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        assert!(theirs.seen().is_empty());
    }

    async fn a_head_that_nobody_signed_is_not_gone_on_from(store: Store) {
        let service = Service::start(store).await;
        service.decide(&harmless()).await.expect(200);
        let (columns, more, id) = match store {
            Store::Sqlite => ("seq, id, ts, kind, leaf, entry", "", "randomblob(16)"),
            Store::Postgres => ("seq, id, ts, kind, leaf, entry, terms", ", terms", "gen_random_uuid()"),
        };
        // The revision stays: nothing but the head has moved.
        write(&service.site, &format!(
            "INSERT INTO entries ({columns}) SELECT seq + 1, {id}, ts, kind, leaf, entry{more}
             FROM entries WHERE seq = (SELECT next - 1 FROM head);
             UPDATE head SET next = next + 1"
        )).await;
        for _ in 0..3 {
            let decided = service.decide(&harmless()).await;
            assert_eq!(decided.status, 503, "{}", decided.text());
        }
        let said = becomes(&service, 503).await;
        assert_eq!(said["errors"][0]["pointer"], "/checks/log", "{said}");
        assert!(service.stderr().contains("no key of this process has signed that tree"));
    }

    async fn the_head_alone_says_nothing(store: Store) {
        let service = Service::start(store).await;
        service.decide(&harmless()).await.expect(200);
        write(&service.site, "UPDATE head SET revision = revision + 1").await;
        let decided = service.decide(&harmless()).await;
        assert_eq!(decided.status, 503, "{}", decided.text());
        let said = becomes(&service, 503).await;
        assert!(said["detail"].as_str().unwrap().contains("the table of activations"), "{said}");
        write(&service.site, "UPDATE head SET revision = revision - 1").await;
        becomes(&service, 200).await;
        service.decide(&harmless()).await.expect(200);
    }

    async fn a_content_with_other_bytes_is_not_taken(store: Store) {
        let service = Service::setup(store)
            .env("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")
            .start()
            .await;
        service.decide(&harmless()).await.expect(200);
        let before = service.records_of("bundle_activated").await.len();
        let site = service.site.clone();
        assert!(service.terminate().success());
        let theirs = format!("{}\n# theirs\n", site.read("config/organisation.toml"));
        let swap = format!(
            "UPDATE contents SET bytes = {} WHERE kind = 'organisation'",
            blob(store, theirs.as_bytes())
        );
        let unlock = match store {
            Store::Sqlite => "DROP TRIGGER contents_no_update;",
            Store::Postgres => "ALTER TABLE contents DISABLE TRIGGER append_only;",
        };
        write(&site, &format!("{unlock} {swap}")).await;
        // Other files than the active ones, so that the store is read.
        site.append("config/organisation.toml", "# ours");
        let ran = site
            .command(&["serve"])
            .env("LEXGATE_POLICIES__ACTIVATE_ON_START", "false")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && said.contains("has other bytes than its digest says"), "{said}");
        let export = site.run(&["export", "copy"]);
        assert_ne!(export.code, Some(0), "an export took it: {}", export.stdout);
        // Its own files, which are what its record will say, put it right.
        let service = Service::on_with(site, &[("LEXGATE_POLICIES__ACTIVATE_ON_START", "true")]).await;
        let after = service.records_of("bundle_activated").await;
        assert_eq!(after.len(), before + 1);
        assert_eq!(after.last().unwrap()["entry"]["body"]["cause"], "start");
        assert_eq!(ready(&service).await.status, 200);
    }

    async fn an_idempotency_key_leads_to_its_own_call_only(store: Store) {
        let service = Service::start(store).await;
        let other = json!({ "action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision",
            "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"] } });
        let ask = async |key: &str, call: &Value| {
            let request = service.request("POST", "/v1/decisions", "caller");
            Answer::of(with_json(request.header("idempotency-key", key), call)).await
        };
        let first = ask("first", &harmless()).await.expect(200);
        ask("second", &other).await.expect(200);
        assert_eq!(ask("first", &harmless()).await.expect(200), first);
        let seq = first["record"]["seq"].as_u64().unwrap();
        write(&service.site, &format!("UPDATE idempotency SET seq = {seq} WHERE key = 'second'")).await;
        let misled = ask("second", &other).await;
        assert_eq!(misled.status, 500, "{}", misled.text());
        assert!(service.stderr().contains("leads to the record of another call"));
        assert_eq!(ask("first", &harmless()).await.expect(200), first);
    }

    async fn only_what_this_machine_lists_is_read_for_a_backend(store: Store) {
        for (named, line, want) in [
            ("variable `PATH`", "api_key_env = \"PATH\"", "environment = [\"DASHSCOPE_API_KEY\""),
            ("authority `/dev/zero`", "ca_file = \"/dev/zero\"", "ca_files = [\"/dev/zero\"]"),
        ] {
            let site = Service::setup(store).reached(LAPTOP, line).prepare().await;
            let ran = site.run(&["serve"]);
            assert_eq!(ran.code, Some(1), "{}", ran.stderr);
            assert!(ran.stderr.contains(named) && ran.stderr.contains(want), "{}", ran.stderr);
            assert!(!ran.stderr.contains(&std::env::var("PATH").unwrap()), "{}", ran.stderr);
        }
        let site = Service::setup(store).prepare().await;
        site.reach(LAPTOP, |_| "base_url = \"http://169.254.169.254/v1\"".to_owned());
        let ran = site.run(&["policies", "check"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("tells this machine its credentials"), "{said}");
    }
}
