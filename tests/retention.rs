//! Retention: bodies go when their time is over, and nothing else does.

use std::{fs, sync::Arc};

use jiff::Timestamp;
use lexgate::{
    config::Config,
    dispatch::{Grants, OpenAiClient},
    domain::{CallRequest, Caller, Clock, SystemClock},
    gate::{Activate, Gate, GateParts, Keeper, OutcomeReport},
    ledger::{Engine, GenesisBody, Signer, TilePath, read_bundle, write_bundle},
    sequencer::{Mark, Sequencer, SequencerSettings},
    store,
};
use serde_json::{Value, json};
use tlog_tiles::check_record;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    harness::{Answer, Service, Site, Store, both_stores, with_json},
    ledger::{Exported, hash, hashes, signed, signing_key},
};

/// A clock that stands still.
#[derive(Debug)]
struct Then(Timestamp);

impl Clock for Then {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// An instant before `now`; months have thirty days here.
pub(crate) fn months_ago(months: i64) -> Timestamp {
    SystemClock.now() - jiff::SignedDuration::from_hours(24 * 30 * months)
}

/// Writes the records of calls that were made long ago, as the service of that day would have.
pub(crate) struct Past {
    gate: Gate,
    tracker: TaskTracker,
}

impl Past {
    pub(crate) async fn at(site: &Site, then: Timestamp) -> Self {
        let url = match site.store_url() {
            url if url.starts_with("sqlite") => {
                format!("sqlite://{}", site.path("data/lexgate.db").display())
            }
            url => url.to_owned(),
        };
        let store = store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        let config = Config::load(&site.path("config/lexgate.toml")).unwrap();
        let organisation =
            lexgate::config::read_file(&site.path("config/organisation.toml")).unwrap();
        let proposal = lexgate::app::propose(&site.path("policies"), organisation).unwrap();
        let origin = config.ledger.origin.clone();
        let signer = Arc::new(Signer::new(origin.clone(), vec![signing_key(site)]));
        let genesis = GenesisBody {
            origin: origin.to_string(),
            public_key: site.vkey.clone(),
            software: Engine { name: "past".into(), version: "0".into() },
        };
        let settings = SequencerSettings {
            origin,
            process: uuid::Uuid::from_u128(1),
            queue: 64,
            reserved: 4096,
            max_batch: 64,
            signer,
            genesis,
        };
        let (clock, tracker): (Arc<dyn Clock>, _) = (Arc::new(Then(then)), TaskTracker::new());
        let sequencer =
            Sequencer::start(store.clone(), settings, Mark::unkept(), clock.clone(), &tracker)
                .unwrap();
        let keeper = Keeper::start(
            proposal,
            Activate::Always,
            store.clone(),
            sequencer.clone(),
            clock.clone(),
        );
        let gate = Gate::new(GateParts {
            keeper: Arc::new(keeper.await.unwrap()),
            sequencer,
            store,
            vault: None,
            backends: Arc::new(OpenAiClient::new(Grants::default())),
            fleet: Arc::default(),
            clock,
            tasks: tracker.clone(),
            halt: CancellationToken::new(),
        });
        Self { gate, tracker }
    }

    /// The record of a decision on data of a person in `subject`; with an outcome, or without.
    pub(crate) async fn decide(&self, subject: &str, reported: bool) -> u64 {
        let caller = Caller {
            app: "support-copilot".into(),
            authenticated: "api_key".to_owned(),
            key: "support-copilot".into(),
            tenant: "acme".into(),
        };
        let call = json!({
            "action": "infer", "model": "assistant", "purpose": "dpv:ServiceProvision",
            "location": subject,
            "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": [subject] },
        });
        let call: CallRequest = serde_json::from_value(call).unwrap();
        let recorded = self.gate.decide(&caller, &call, None).await.unwrap();
        if reported {
            let report = json!({ "status": "ok", "input_tokens": 1 });
            let report: OutcomeReport = serde_json::from_value(report).unwrap();
            self.gate.report(&caller, recorded.id.uuid(), report).await.unwrap();
        }
        recorded.seq.get()
    }

    pub(crate) async fn end(self) {
        self.gate.sequencer().close();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn prune(site: &Site, archive: &str, more: &[&str]) -> Value {
    let mut arguments = vec!["ledger", "prune", "--archive", archive, "--json", "--clock-is-right"];
    arguments.extend(more);
    site.run_json(&arguments)
}

async fn hold(service: &Service, id: &str, body: &Value) -> Answer {
    let request = service.request("PUT", &format!("/v1/legal-holds/{id}"), "officer");
    Answer::of(with_json(request, body)).await
}

async fn status(service: &Service, seq: u64) -> u16 {
    service.get(&format!("/v1/audit/records/{seq}"), "auditor").await.status
}

both_stores! {
    async fn bodies_go_when_their_time_is_over_and_every_proof_still_holds(store: Store) {
        let site = Service::setup(store).prepare().await;
        let past = Past::at(&site, months_ago(14)).await;
        let german = past.decide("DE", true).await;
        let saudi = past.decide("SA", true).await;
        for _ in 0..260 {
            past.decide("DE", false).await;
        }
        let held = past.decide("FR", true).await;
        past.end().await;
        let service = Service::on(Arc::new(site)).await;
        let site = &service.site;
        let young = service.decide(&json!({
            "action": "infer", "model": "assistant", "data": { "personal": false },
        })).await.expect(200)["record"]["seq"].as_u64().unwrap();
        let class = |record: &Value| record["entry"]["body"]["retention"].clone();
        let read = service.get(&format!("/v1/audit/records/{saudi}"), "auditor").await.expect(200);
        assert_eq!(class(&read), json!({ "class": "sa-pdpl-31", "months": 60 }));
        let read = service.get(&format!("/v1/audit/records/{german}"), "auditor").await.expect(200);
        assert_eq!(class(&read), json!({ "class": "eu-ai-act-26-6", "months": 6 }));
        let set = hold(&service, "case-1", &json!({
            "reason": "subpoena", "records": { "jurisdiction": "FR" },
        })).await.expect(200);
        assert_eq!((&set["records"], &set["matches"]), (&json!({ "jurisdiction": "FR" }), &json!(2)));

        // First only said, then done.
        let archive = Exported::of(site);
        let dry = prune(site, archive.path(), &["--dry-run"]);
        let kinds = json!({ "decision": 261, "outcome": 1 });
        assert_eq!((&dry["kinds"], &dry["held"], &dry["records"]), (&kinds, &json!(2), &json!([])));
        assert_eq!(status(&service, german).await, 200);
        let done = prune(site, archive.path(), &[]);
        assert_eq!((&done["removed"], &done["kinds"]), (&json!(262), &kinds));
        let record = done["records"][0].as_u64().unwrap();

        let gone = service.get(&format!("/v1/audit/records/{german}"), "auditor").await.expect(410);
        assert_eq!(gone["type"], "urn:lexgate:problem:gone");
        for kept in [0, 1, saudi, saudi + 1, held, held + 1, young, record] {
            assert_eq!(status(&service, kept).await, 200, "{kept}");
        }
        let listed = service.records_matching("jurisdiction=DE").await;
        let listed: Vec<_> = listed.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
        assert_eq!(listed[..2], [saudi, saudi + 1], "what went is not found");
        assert!(listed[2..].iter().all(|seq| *seq >= held), "{listed:?}");

        // Proofs of what has gone, and of what stays.
        for seq in [german, german + 1, saudi, held, record] {
            let path = format!("/v1/audit/records/{seq}/proof");
            let proven = service.get(&path, "auditor").await.expect(200);
            assert_eq!(proven.get("entry").is_none(), seq <= german + 1, "{seq}");
            let proof = &proven["proof"];
            let (entries, root) = signed(proof["checkpoint"].as_str().unwrap(), &site.vkey);
            let path = hashes(&proof["hashes"]);
            check_record(&path, entries, root, seq, hash(&proven["leaf"])).unwrap();
        }

        // A fresh export says what was removed; the archive has it all.
        let fresh = Exported::of(site);
        let report = fresh.verify(&site.vkey, &["--replay"]).json();
        assert_eq!(report["pruned"], json!([{ "record": record, "count": 262 }]));
        archive.again(site);
        let report = archive.verify(&site.vkey, &["--replay"]).json();
        assert_eq!(report["pruned"], json!([{ "record": record, "count": 0 }]));
        assert_eq!(report["kinds"]["decision"], 264);

        // What is missing without a record is found.
        let path = TilePath::Entries { n: 0, width: 256 }.to_string();
        let bundle = fs::read(fresh.file(&path)).unwrap();
        let mut entries: Vec<Vec<u8>> =
            read_bundle(&bundle).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        entries[usize::try_from(saudi).unwrap()].clear();
        fs::write(fresh.file(&path), write_bundle(&entries).unwrap()).unwrap();
        let fault = fresh.fault(&site.vkey, &[]);
        assert!(fault.starts_with(&format!("entry {saudi}: is missing")), "{fault}");

        // Nothing more goes, until the hold is lifted.
        assert_eq!(prune(site, archive.path(), &[])["removed"], 0);
        let path = "/v1/legal-holds/case-1?reason=closed";
        Answer::of(service.request("DELETE", path, "officer")).await.expect(200);
        let done = prune(site, archive.path(), &[]);
        assert_eq!(done["kinds"], json!({ "decision": 1, "outcome": 1 }));
        assert_eq!((status(&service, held).await, status(&service, saudi).await), (410, 200));
        assert_eq!(service.export_and_verify()["holds"], true);
    }

    async fn a_pruning_that_was_cut_off_is_finished(store: Store) {
        let site = Service::setup(store).prepare().await;
        let past = Past::at(&site, months_ago(14)).await;
        let old = past.decide("DE", false).await;
        past.end().await;
        let service = Service::on(Arc::new(site)).await;
        let archive = Exported::of(&service.site);
        let cut = service
            .site
            .command(&["ledger", "prune", "--clock-is-right", "--archive", archive.path()])
            .env("LEXGATE_CRASH_AT", "pruned")
            .output()
            .unwrap();
        assert!(!cut.status.success());
        assert_eq!(status(&service, old).await, 200, "recorded, not yet removed");
        assert_eq!(service.export_and_verify()["pruned"][0]["count"], 0);
        let done = prune(&service.site, archive.path(), &[]);
        assert_eq!((&done["removed"], &done["records"]), (&json!(0), &json!([])));
        assert_eq!(status(&service, old).await, 410);
        assert_eq!(service.records_of("segment_pruned").await.len(), 1);
        assert_eq!(service.export_and_verify()["pruned"][0]["count"], 1);
    }

    async fn holds_are_set_listed_and_lifted(store: Store) {
        let service = Service::start(store).await;
        let body = json!({ "reason": "subpoena", "records": { "tenant": "acme", "from": "2026-01-01T00:00:00Z" } });
        let set = hold(&service, "case-1", &body).await.expect(200);
        let holds = async |key: &str| service.get("/v1/legal-holds", key).await;
        assert_eq!(holds("officer").await.expect(200)["holds"], json!([set]));
        assert_eq!((holds("auditor").await.status, holds("caller").await.status), (403, 403));
        for (id, bad, pointer) in [
            ("case-1", json!({ "reason": " ", "records": {} }), "/reason"),
            ("case-1", json!({ "reason": "r", "records": { "from": "x" } }), "/records/from"),
            ("case-1", json!({ "reason": "r", "records": { "limit": "5" } }), "/records/limit"),
            ("case-1", json!({ "reason": "r", "records": { "tenent": "acme" } }), "/records"),
            ("case%201", body.clone(), "id"),
        ] {
            let problem = hold(&service, id, &bad).await.expect(422);
            let fault = &problem["errors"][0];
            let named = fault["pointer"].as_str().or(fault["parameter"].as_str()).unwrap();
            assert!(named.starts_with(pointer), "{bad}: {problem}");
        }
        let lift = async |path: &str| Answer::of(service.request("DELETE", path, "officer")).await;
        assert_eq!(lift("/v1/legal-holds/case-1").await.status, 400);
        assert_eq!(lift("/v1/legal-holds/case-2?reason=closed").await.status, 404);
        let record = lift("/v1/legal-holds/case-1?reason=closed").await.expect(200)["record"].clone();
        assert_eq!(holds("officer").await.expect(200)["holds"], json!([]));
        let records = service.records_of("legal_hold").await;
        assert_eq!((records.len(), &records[1]["seq"]), (2, &record));
        assert_eq!(records[1]["entry"]["body"], json!({
            "id": "case-1", "key": "officer", "reason": "closed", "records": null,
        }));
        assert_eq!(service.export_and_verify()["holds"], true);
    }
}
