//! The ledger as auditors read it: filters, pages, scopes, and that reading is recorded.

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::harness::{Service, Store, both_stores};

/// A ledger with a few records of known content, by name: position and moment.
struct Ledger {
    service: Service,
    records: BTreeMap<&'static str, (u64, String)>,
}

impl Ledger {
    async fn start(store: Store) -> Self {
        let service = Service::setup(store)
            .caller("ward-notes")
            .caller("payments-desk")
            .caller("lab-notebook")
            .key("sdaia", &["--role", "auditor", "--jurisdiction", "SA"])
            .key("cai", &["--role", "auditor", "--jurisdiction", "CA-QC", "--jurisdiction", "IN"])
            .start()
            .await;
        let people = |categories: &[&str], subject: &str| json!({ "personal": true, "categories": categories, "subjects": [subject] });
        let mut ledger = Self { service, records: BTreeMap::new() };
        let health = people(&["dpv-pd:Health"], "DE");
        let call = json!({
            "action": "infer", "deployment": "qwen3-32b@dashscope-sg", "data": health,
        });
        ledger.decide("german", "caller", call).await;
        let call =
            json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
        let device = ledger.decide("device", "caller", call).await;
        let health = people(&["dpv-pd:Health"], "SA");
        let call = json!({ "action": "infer", "model": "ward-notes-model", "data": health });
        ledger.decide("saudi", "ward-notes", call).await;
        let call = json!({
            "action": "infer", "deployment": "command-r@dc-frankfurt", "data": { "personal": false },
        });
        ledger.decide("research", "lab-notebook", call).await;
        let payment = people(&["x:in-payment-system-data"], "IN");
        let call = json!({ "action": "infer", "model": "payments", "data": payment });
        ledger.decide("indian", "payments-desk", call).await;
        let call = json!({
            "action": "infer", "deployment": "mistral-small@dc-frankfurt",
            "data": people(&[], "CA-QC"),
        });
        ledger.decide("quebec", "caller", call).await;
        let path = format!("/v1/decisions/{}/outcome", device["id"].as_str().unwrap());
        let outcome = json!({ "status": "ok" });
        let outcome = ledger.service.post(&path, "caller", &outcome).await.expect(200);
        ledger.records.insert("outcome", (outcome["seq"].as_u64().unwrap(), String::new()));
        ledger
    }

    async fn decide(&mut self, name: &'static str, app: &str, call: Value) -> Value {
        let answer = self.service.post("/v1/decisions", app, &call).await.expect(200);
        let seq = answer["record"]["seq"].as_u64().unwrap();
        let moment = answer["decided_at"].as_str().unwrap().to_owned();
        self.records.insert(name, (seq, moment));
        answer
    }

    fn seq(&self, name: &str) -> u64 {
        self.records[name].0
    }

    /// The names of the records that a query finds, in the order in which they are answered.
    async fn find(&self, query: &str, key: &str) -> Vec<&'static str> {
        let page = self.service.get(&format!("/v1/audit/records?{query}"), key).await.expect(200);
        assert_eq!(page.get("next"), None, "{query}: one page holds all");
        let seqs = page["records"].as_array().unwrap().iter().map(|record| &record["seq"]);
        let name = |seq: &Value| {
            let named = self.records.iter().find(|(_, (known, _))| seq == known);
            named.map_or("another", |(name, _)| *name)
        };
        seqs.map(name).collect()
    }
}

/// A record with the bytes of its entry as they were sent.
#[derive(Deserialize)]
struct Sent<'a> {
    seq: u64,
    leaf: String,
    #[serde(borrow)]
    entry: &'a RawValue,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    records: Vec<Sent<'a>>,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every text");
        text
    })
}

both_stores! {
    async fn every_filter_finds_what_it_says(store: Store) {
        let ledger = Ledger::start(store).await;
        let (indian, saudi) = (&ledger.records["indian"].1, &ledger.records["saudi"].1);
        for (query, expected) in [
            ("kind=decision", vec!["german", "device", "saudi", "research", "indian", "quebec"]),
            ("kind=outcome", vec!["outcome"]),
            ("kind=genesis", vec!["another"]),
            ("kind=bundle_activated", vec!["another"]),
            ("kind=legal_hold", vec![]),
            ("decision=allow", vec!["device", "saudi", "research", "indian"]),
            ("decision=deny", vec!["german", "quebec"]),
            ("tenant=acme", vec!["german", "device", "saudi", "indian", "quebec", "outcome"]),
            ("tenant=acme-research", vec!["research"]),
            ("app=ward-notes", vec!["saudi"]),
            ("app=support-copilot", vec!["german", "device", "quebec", "outcome"]),
            ("model=assistant", vec!["device", "outcome"]),
            ("model=smollm2-135m", vec!["device", "outcome"]),
            ("model=mistral-small", vec!["saudi"]),
            ("deployment=qwen3-32b@dashscope-sg", vec!["german"]),
            ("deployment=qwen3-32b%40dc-mumbai", vec!["indian"]),
            ("deployment=mistral-small@dc-frankfurt", vec!["quebec"]),
            ("tier=on_device", vec!["device"]),
            ("tier=hybrid_gpu", vec!["saudi", "research", "indian", "quebec"]),
            ("tier=remote", vec!["german"]),
            ("jurisdiction=SA", vec!["saudi"]),
            ("jurisdiction=IN", vec!["indian"]),
            // An owner of an operator that was considered, too.
            ("jurisdiction=CN", vec!["german", "device", "indian", "outcome"]),
            ("jurisdiction=CA", vec!["quebec"]),
            ("jurisdiction=CA-QC", vec!["quebec"]),
            ("jurisdiction=US", vec![]),
            ("policy=eu-gdpr-44", vec!["german"]),
            ("policy=ca-qc-s17", vec!["quebec"]),
            ("policy=base-use", vec!["device", "saudi", "research", "indian", "outcome"]),
            ("category=dpv-pd:Health", vec!["german", "saudi"]),
            ("category=x:in-payment-system-data", vec!["indian"]),
            ("tenant=acme&decision=deny&tier=remote", vec!["german"]),
            ("app=ward-notes&decision=deny", vec![]),
            ("policy=base-use&kind=decision&jurisdiction=CN", vec!["device", "indian"]),
        ] {
            assert_eq!(ledger.find(query, "auditor").await, expected, "{query}");
        }
        // From is inclusive, to is exclusive.
        let from = format!("kind=decision&from={indian}");
        assert_eq!(ledger.find(&from, "auditor").await, ["indian", "quebec"]);
        let to = format!("kind=decision&to={saudi}");
        assert_eq!(ledger.find(&to, "auditor").await, ["german", "device"]);
        let between = format!("kind=decision&from={saudi}&to={indian}");
        assert_eq!(ledger.find(&between, "auditor").await, ["saudi", "research"]);
        let long_ago = "from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00%2B01:00";
        assert_eq!(ledger.find(long_ago, "auditor").await, [""; 0]);
    }

    async fn pages_lead_to_the_end(store: Store) {
        let ledger = Ledger::start(store).await;
        let whole = ledger.find("tenant=acme", "auditor").await;
        for limit in 1..=7 {
            let (mut seqs, mut after, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let path = format!("/v1/audit/records?tenant=acme&limit={limit}{after}");
                let page = ledger.service.get(&path, "auditor").await.expect(200);
                let records = page["records"].as_array().unwrap();
                assert!(records.len() <= limit);
                seqs.extend(records.iter().map(|record| record["seq"].as_u64().unwrap()));
                pages += 1;
                match page.get("next") {
                    Some(next) => after = format!("&after={}", next.as_str().unwrap()),
                    None => break,
                }
            }
            assert!(seqs.is_sorted(), "newest last: {seqs:?}");
            assert_eq!(seqs.len(), whole.len(), "limit {limit}");
            assert_eq!(pages, whole.len().div_ceil(limit), "limit {limit}: no empty last page");
        }
    }

    async fn a_page_holds_100_records_unless_it_is_told(store: Store) {
        let service = Service::start(store).await;
        let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
        for _ in 0..2 {
            let body = json!({ "calls": vec![call.clone(); 60] });
            service.post("/v1/decisions/batch", "caller", &body).await.expect(200);
        }
        let page = service.get("/v1/audit/records?kind=decision", "auditor").await.expect(200);
        assert_eq!(page["records"].as_array().unwrap().len(), 100);
        let next = page["next"].as_str().unwrap();
        let path = format!("/v1/audit/records?kind=decision&after={next}");
        let rest = service.get(&path, "auditor").await.expect(200);
        assert_eq!(rest["records"].as_array().unwrap().len(), 20);
        assert_eq!(rest.get("next"), None);
        let all = service.get("/v1/audit/records?kind=decision&limit=1000", "auditor").await;
        assert_eq!(all.expect(200)["records"].as_array().unwrap().len(), 120);
    }

    async fn an_auditor_of_a_jurisdiction_sees_what_touches_it(store: Store) {
        let ledger = Ledger::start(store).await;
        assert_eq!(ledger.find("", "sdaia").await, ["saudi"]);
        assert_eq!(ledger.find("decision=deny", "sdaia").await, [""; 0]);
        assert_eq!(ledger.find("jurisdiction=DE", "sdaia").await, ["saudi"]);
        assert_eq!(ledger.find("jurisdiction=IN", "sdaia").await, [""; 0]);
        assert_eq!(ledger.find("kind=genesis", "sdaia").await, [""; 0]);
        assert_eq!(ledger.find("", "cai").await, ["indian", "quebec"]);
        assert_eq!(ledger.find("policy=ca-qc-s17", "cai").await, ["quebec"]);
        for (name, seq) in ledger.records.iter().map(|(name, (seq, _))| (*name, *seq)) {
            let path = format!("/v1/audit/records/{seq}");
            let answer = ledger.service.get(&path, "sdaia").await;
            if name == "saudi" {
                assert_eq!(answer.expect(200)["seq"], seq);
            } else {
                // Not a word more than of a record that does not exist.
                let problem = answer.expect(404);
                assert_eq!(problem["detail"], format!("there is no record {seq}"), "{name}");
            }
            assert_eq!(ledger.service.get(&path, "auditor").await.expect(200)["seq"], seq);
        }
        assert_eq!(ledger.service.get("/v1/audit/records/0", "sdaia").await.status, 404);
    }

    async fn reading_is_itself_recorded(store: Store) {
        let service = Service::setup(store)
            .key("sdaia", &["--role", "auditor", "--jurisdiction", "SA"])
            .start()
            .await;
        service.get("/v1/audit/records?tenant=acme&limit=5", "auditor").await.expect(200);
        service.get("/v1/audit/records/0", "auditor").await.expect(200);
        service.get("/v1/audit/records/77", "sdaia").await.expect(404);
        // Refused: nothing was read.
        service.get("/v1/audit/records?limit=0", "auditor").await.expect(400);
        service.get("/v1/audit/records", "caller").await.expect(403);
        let readings = service.records_of("audit_read").await;
        let bodies: Vec<&Value> = readings.iter().map(|record| &record["entry"]["body"]).collect();
        let retention = json!({ "class": "general", "months": 6 });
        let reading = |key: &str, operation: &str, query: Value| json!({
            "key": key, "operation": operation, "query": query, "retention": retention,
        });
        let list = |query: Value| reading("auditor", "listRecords", query);
        assert_eq!(bodies, [
            &list(json!({ "limit": "5", "tenant": "acme" })),
            &reading("auditor", "readRecord", json!({ "seq": "0" })),
            &reading("sdaia", "readRecord", json!({ "seq": "77" })),
            // The reading that found them.
            &list(json!({ "kind": "audit_read", "limit": "1000" })),
        ]);
        service.export_and_verify();
    }

    async fn a_query_that_cannot_be_read_says_why(store: Store) {
        let service = Service::shared(store).await;
        let mut shown = String::new();
        for query in [
            "limit=0", "limit=1001", "limit=ten", "limit=-1", "from=yesterday", "to=2026-11-22",
            "kind=Decision", "after=42", "after=c2VxOi0x", "jurisdictions=SA", "limit=1&limit=2",
            "from=x&limit=y&kind=%20&after=z",
        ] {
            let path = format!("/v1/audit/records?{query}");
            let request = service.request("GET", &path, "auditor").header("x-request-id", "test-1");
            let problem = crate::harness::Answer::of(request).await.expect(400);
            writeln!(shown, "# {query}\n{problem:#}\n").unwrap();
        }
        insta::assert_snapshot!("queries", shown);
    }

    async fn an_entry_s_bytes_hash_to_its_leaf_and_to_the_next_entry_s_prev(store: Store) {
        let ledger = Ledger::start(store).await;
        let answer = ledger.service.get("/v1/audit/records?limit=1000", "auditor").await;
        answer.expect(200);
        let page: Page<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert!(page.records.len() >= 10);
        let mut previous = "0".repeat(64);
        for (n, Sent { seq, leaf, entry }) in (0..).zip(&page.records) {
            let bytes = [&[0], entry.get().as_bytes()].concat();
            let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
            assert_eq!(&hex(hash.as_ref()), leaf, "entry {seq}");
            let entry: Value = serde_json::from_str(entry.get()).unwrap();
            assert_eq!((*seq, &entry["seq"], &entry["prev"]), (n, &json!(n), &json!(previous)));
            previous.clone_from(leaf);
        }
        // One record alone is the same record.
        let path = format!("/v1/audit/records/{}", ledger.seq("saudi"));
        let alone = ledger.service.get(&path, "auditor").await;
        let sent: Sent<'_> = serde_json::from_slice(&alone.body).unwrap();
        let same = &page.records[usize::try_from(sent.seq).unwrap()];
        assert_eq!((same.entry.get(), &same.leaf), (sent.entry.get(), &sent.leaf));
    }

    async fn two_processes_read_one_ledger(store: Store) {
        let service = Service::start(store).await;
        let second = service.second().await;
        let call = json!({ "action": "infer", "model": "assistant", "data": { "personal": false } });
        for n in 0..10 {
            let at = if n % 2 == 0 { &service } else { &second };
            let answer = at.decide(&call).await.expect(200);
            let path = format!("/v1/audit/records/{}", answer["record"]["seq"]);
            let other = if n % 2 == 0 { &second } else { &service };
            assert_eq!(other.get(&path, "auditor").await.expect(200)["leaf"], answer["record"]["leaf"]);
        }
        service.export_and_verify();
    }
}
