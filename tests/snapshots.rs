//! Which snapshot decides: it changes by itself when a dated fact ends, and at a start when files
//! have changed.

use std::time::Duration;

use jiff::SignedDuration;
use lexgate::domain::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::harness::{Service, Setup, Store, both_stores};

const ORGANISATION: &str = "config/organisation.toml";

/// How long a fact still holds when a service is started on it: longer than the start takes.
const REST: SignedDuration = SignedDuration::from_secs(8);
/// How long after the end it is asked on.
const AFTERWARDS: SignedDuration = SignedDuration::from_secs(2);

fn german(deployment: &str) -> Value {
    json!({
        "action": "infer", "deployment": deployment, "purpose": "dpv:ServiceProvision",
        "data": { "personal": true, "subjects": ["DE"] },
    })
}

fn revision(answer: &Value) -> u64 {
    answer["snapshot"]["revision"].as_u64().expect("an answer names its snapshot")
}

/// Starts two processes on files of which one fact ends soon (at `{end}`); asks both until it has.
async fn watch_the_end(setup: Setup, path: &str, from: &str, to: &str, call: Value) -> Service {
    let site = setup.prepare().await;
    let end = SystemClock.now() + REST;
    site.replace(path, from, &to.replace("{end}", &end.to_string()));
    let service = Service::on(site.into()).await;
    let second = service.second().await;
    let before = service.decide(&call).await.expect(200);
    assert_eq!(before["decision"], "allow", "the fact still holds: {before:#}");
    let mut last = before.clone();
    while SystemClock.now() < end + AFTERWARDS {
        for process in [&service, &second] {
            let answer = process.decide(&call).await.expect(200);
            let decided = answer["decided_at"].as_str().unwrap().parse::<jiff::Timestamp>();
            // To the microsecond, whichever process answers.
            let expected = if decided.unwrap() < end { "allow" } else { "deny" };
            assert_eq!(answer["decision"], expected, "{end}: {answer:#}");
            last = answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last["decision"], "deny");
    assert_eq!(revision(&last), revision(&before) + 1);
    assert_eq!(last["snapshot"]["bundle"], before["snapshot"]["bundle"], "the files are the same");
    let activations = service.records_of("bundle_activated").await;
    let causes: Vec<&Value> =
        activations.iter().map(|record| &record["entry"]["body"]["cause"]).collect();
    assert_eq!(causes, ["start", "facts_changed"], "one process activates it, once");
    assert_eq!(activations[1]["entry"]["body"]["snapshot"], last["snapshot"]);
    let ready = service.get("/readyz", "caller").await.expect(200);
    assert_eq!(ready["revision"], last["snapshot"]["revision"]);
    service.export_and_verify();
    service
}

both_stores! {
    async fn a_finding_that_ends_closes_the_border(store: Store) {
        let japan = "[[deployments]]\nid = \"jp\"\nmodel = \"mistral-small\"\noperator = \"acme\"\n\
            tier = \"remote\"\napproved = true\nprocess = [\"JP\"]\nstore = [\"JP\"]\n";
        let setup = Service::setup(store).organisation(japan);
        let from = "members = [\"JP\"]\n";
        let to = "members = [\"JP\"]\nvalid_until = \"{end}\"\n";
        let file = "policies/facts/adequacy.toml";
        let service = watch_the_end(setup, file, from, to, german("jp")).await;
        let denial = service.decide(&german("jp")).await.expect(200);
        assert_eq!(denial["reasons"][0]["policy"], "eu-gdpr-44");
    }

    async fn an_instrument_that_ends_closes_the_border(store: Store) {
        let from = "recipient = \"meridian-cloud\"\nvalid_from = \"2026-01-01\"\n\
            valid_until = \"2029-01-01\"";
        let to = "recipient = \"meridian-cloud\"\nvalid_from = \"2026-01-01\"\n\
            valid_until = \"{end}\"";
        let setup = Service::setup(store);
        watch_the_end(setup, ORGANISATION, from, to, german("qwen3-32b@meridian-sg")).await;
    }

    async fn unchanged_files_activate_nothing(store: Store) {
        let mut service = Service::start(store).await;
        let before = service.decide(&german("mistral-small@dc-frankfurt")).await.expect(200);
        service.restart().await;
        let after = service.decide(&german("mistral-small@dc-frankfurt")).await.expect(200);
        assert_eq!(after["snapshot"], before["snapshot"]);
        assert_eq!(service.records_of("bundle_activated").await.len(), 1);
    }

    async fn changed_files_are_activated_at_the_start_on_sqlite_and_on_postgres_when_told(
        store: Store
    ) {
        let call = german("mistral-small@dc-frankfurt");
        let mut service = Service::start(store).await;
        let before = service.decide(&call).await.expect(200);
        assert_eq!(before["decision"], "allow");
        // The hall in Frankfurt loses its approval.
        let approved = "operator = \"acme\"\ntier = \"hybrid_gpu\"\napproved = true";
        let closed = "operator = \"acme\"\ntier = \"hybrid_gpu\"\napproved = false";
        service.site.replace(ORGANISATION, approved, closed);
        service.restart().await;
        let answer = service.decide(&call).await.expect(200);
        let told = |value: bool| {
            format!("dir = \"policies\"\nactivate_on_start = {value}")
        };
        match store {
            Store::Sqlite => assert_eq!(answer["decision"], "deny", "{answer:#}"),
            Store::Postgres => {
                assert_eq!(answer["snapshot"], before["snapshot"], "the active one is served");
                assert_eq!(answer["decision"], "allow");
                let said = service.stderr();
                assert!(said.contains("the files differ from the active snapshot"), "{said}");
                service.site.replace("config/lexgate.toml", "dir = \"policies\"", &told(true));
                service.restart().await;
            }
        }
        let answer = service.decide(&call).await.expect(200);
        assert_eq!(answer["decision"], "deny", "{answer:#}");
        assert_eq!(revision(&answer), revision(&before) + 1);
        assert_ne!(answer["snapshot"]["organisation"], before["snapshot"]["organisation"]);
        assert_eq!(answer["snapshot"]["bundle"], before["snapshot"]["bundle"]);
        // The other way round: files that may not take the place of what decides.
        let config = service.site.read("config/lexgate.toml");
        let config = config.replace("\nactivate_on_start = true", "");
        let config = config.replace("dir = \"policies\"", &told(false));
        service.site.write("config/lexgate.toml", &config);
        service.site.replace(ORGANISATION, closed, approved);
        service.restart().await;
        let answer = service.decide(&call).await.expect(200);
        assert_eq!((answer["decision"].as_str(), revision(&answer)), (Some("deny"), 2));
        assert_eq!(service.records_of("bundle_activated").await.len(), 2);
        service.export_and_verify();
    }

    async fn a_changed_policy_is_another_bundle(store: Store) {
        let setup = Service::setup(store).env("LEXGATE_POLICIES__ACTIVATE_ON_START", "true");
        let mut service = setup.start().await;
        let call = german("mistral-small@dc-frankfurt");
        let before = service.decide(&call).await.expect(200);
        let own = "@id(\"own\")\n@citation(\"House rule 7\")\n@advice(\"Ask somebody else.\")\n\
            forbid (principal, action in Action::\"use\", resource);\n";
        service.site.write("policies/base/own.cedar", own);
        service.restart().await;
        let after = service.decide(&call).await.expect(200);
        assert_eq!(after["reasons"][0]["citation"], "House rule 7");
        assert_eq!(after["reasons"][0]["advice"], "Ask somebody else.");
        assert_ne!(after["snapshot"]["bundle"], before["snapshot"]["bundle"]);
        assert_eq!(after["snapshot"]["organisation"], before["snapshot"]["organisation"]);
        service.export_and_verify();
    }

    async fn nothing_active_and_nothing_to_activate_is_refused(store: Store) {
        let setup = Service::setup(store).env("LEXGATE_POLICIES__ACTIVATE_ON_START", "false");
        let ran = setup.prepare().await.run(&["serve"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("the store has no active snapshot"), "{}", ran.stderr);
    }
}
