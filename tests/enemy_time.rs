//! Time: a clock that is wrong dates no record, and where one has, there is a recorded way back.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use lexgate::{
    domain::{Clock, SystemClock},
    ledger::timestamp_text,
};
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Service, Site, Store, both_stores},
    ledger::decide,
    retention::Past,
};

/// The days by which an enemy's clock is ahead.
const DAYS: i64 = 120;

fn call() -> Value {
    json!({
        "action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision",
        "location": "DE",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"] },
    })
}

/// A clock that is set while a service runs by it.
pub(crate) struct Watch(PathBuf);

impl Watch {
    pub(crate) fn of(site: &Site) -> Self {
        let watch = Self(site.path("clock"));
        watch.set("+0");
        watch
    }

    pub(crate) fn set(&self, offset: &str) {
        // At once: a service looks at it whenever it asks for the time.
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{offset}\n")).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    /// What makes a service go by it. Waiting goes by another clock, which nobody can set.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
            .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"));
        let library = found.into_iter().find(|path| fs::exists(path).unwrap());
        let library = library.expect("no libfaketime: `scripts/test` installs Debian's faketime");
        vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    async fn service(&self, site: &Arc<Site>) -> Service {
        let env = self.env();
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Service::on_with(site.clone(), &env).await
    }
}

fn detail(answer: &Answer) -> String {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

/// No record is dated after the time that it is, by more than the bound.
async fn all_in_the_past(service: &Service) {
    let latest = SystemClock.now() + SignedDuration::from_secs(5);
    for record in service.records().await {
        let ts: Timestamp = record["entry"]["ts"].as_str().unwrap().parse().unwrap();
        assert!(ts <= latest, "{record}");
    }
}

/// Waits until the service is not ready, and gives why: what it has found is said for a second.
async fn unready(service: &Service) -> String {
    for _ in 0..300 {
        let answer = service.get("/readyz", "caller").await;
        if answer.status != 200 {
            return detail(&answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it stays ready: {}", service.stderr());
}

/// Waits until the service answers a decision so, and is so ready.
async fn until(service: &Service, status: u16) {
    for _ in 0..300 {
        let answer = service.decide(&call()).await.status;
        if answer == status && service.get("/readyz", "caller").await.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no {status} came: {}", service.stderr());
}

both_stores! {
    async fn a_clock_that_jumps_is_refused_and_todays_facts_decide_afterwards(store: Store) {
        let site = Arc::new(Service::setup(store).prepare().await);
        let watch = Watch::of(&site);
        let service = watch.service(&site).await;
        decide(&service, 2).await;
        let before = service.get("/readyz", "caller").await.expect(200);
        for offset in [format!("+{DAYS}d"), "+30s".to_owned(), "-30s".to_owned(), format!("-{DAYS}d")] {
            watch.set(&offset);
            let refused = detail(&service.decide(&call()).await);
            assert!(refused.contains("this machine's clock"), "{offset}: {refused}");
            let fault = unready(&service).await;
            assert!(fault.contains("`[ledger] max_clock_skew`"), "{offset}: {fault}");
            watch.set("+0");
            until(&service, 200).await;
        }
        all_in_the_past(&service).await;
        assert_eq!(service.get("/readyz", "caller").await.expect(200)["revision"], before["revision"]);
        // A few seconds are nobody's fault.
        watch.set("+2s");
        decide(&service, 2).await;
        service.export_and_verify();
    }

    async fn a_log_that_is_ahead_is_a_fault_with_a_recorded_way_back(store: Store) {
        let site = Arc::new(Service::setup(store).prepare().await);
        let wrong = SystemClock.now() + SignedDuration::from_hours(24 * 400);
        let past = Past::at(&site, wrong).await;
        past.decide("DE", false).await;
        past.end().await;

        let ran = site.run(&["serve"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains("`lexgate ledger correct-time`"), "{}", ran.stderr);
        let ran = site.run(&["ledger", "correct-time"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("run this with `--reason TEXT`"), "{}", ran.stderr);
        let done = site.run_json(&["ledger", "correct-time", "--reason", "the RTC's battery", "--json"]);
        let seq = done["record"].as_u64().unwrap();
        let ran = site.run(&["ledger", "correct-time", "--reason", "again"]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);

        let mut service = Service::on(site.clone()).await;
        let answer = service.decide(&call()).await.expect(200);
        let records = service.records_of("clock_corrected").await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0]["entry"]["body"]["reason"], "the RTC's battery");
        let found = async |from: i64, to: i64| {
            let at = |minutes| {
                timestamp_text(SystemClock.now() + SignedDuration::from_mins(minutes))
            };
            let query = format!("kind=decision&from={}&to={}", at(from), at(to));
            let found = service.records_matching(&query).await;
            found.iter().map(|record| record["entry"]["seq"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let now = answer["record"]["seq"].as_u64().unwrap();
        assert_eq!(found(-60, 60).await, [now], "a span of time holds what was written in it");
        assert_eq!(found(24 * 60 * 399, 24 * 60 * 401).await, [2]);
        let report = service.export_and_verify();
        assert_eq!(report["corrections"], json!([seq]));
        service.restart().await;
        decide(&service, 2).await;
    }
}

#[tokio::test]
async fn postgres_a_replica_with_a_wrong_clock_joins_nobody() {
    let first = Service::start(Store::Postgres).await;
    decide(&first, 2).await;
    let site = first.site.clone();
    let watch = Watch::of(&site);
    for (offset, side) in [("+400d", "ahead of the store's"), ("-400d", "behind the store's")] {
        watch.set(offset);
        let ran = site.command(&["serve"]).envs(watch.env()).output().unwrap();
        assert_eq!(ran.status.code(), Some(3));
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.contains(side) && said.contains("NTP"), "{said}");
    }
    // One that was right when it joined: it leaves, and the others go on.
    watch.set("+0");
    let second = watch.service(&site).await;
    decide(&second, 2).await;
    watch.set("+1h");
    let refused = detail(&second.decide(&call()).await);
    assert!(refused.contains("this machine's clock"), "{refused}");
    let fault = unready(&second).await;
    assert!(fault.contains("this machine's clock"), "{fault}");
    decide(&first, 2).await;
    assert_eq!(first.get("/readyz", "caller").await.status, 200);
    all_in_the_past(&first).await;
    watch.set("+0");
    until(&second, 200).await;
}
