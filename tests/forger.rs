//! A log whose keeper cannot be trusted: made in memory, changed in any way, and then chained and signed
//! anew, as only somebody who has the key can. What it says is found false by its meaning, or not at all.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use lexgate::{
    config,
    domain::{CallRequest, Caller, Digest, Revision, Seq},
    facts::{Proposal, Snapshot},
    gate::{How, Judge},
    ledger::{
        Edge, Envelope, Kind, Note, Origin, Signer, SigningKey, TILE_WIDTH, TilePath, canonical,
        endorsement, seal, timestamp_text, write_bundle,
    },
    source::SourceFile,
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Ran, TempDir};

/// The deployments of the example that its calls could go to: two lawfully, one not.
pub(crate) const FRANKFURT: &str = "mistral-small@dc-frankfurt";
pub(crate) const SINGAPORE: &str = "qwen3-32b@meridian-sg";
pub(crate) const RIYADH: &str = "mistral-small@dc-riyadh";

/// Where what is in the example's log.
pub(crate) const FIRST_SNAPSHOT: usize = 1;
pub(crate) const SENT: usize = 2;
pub(crate) const SENT_OUTCOME: usize = 3;
pub(crate) const ASKED: usize = 4;
pub(crate) const READING: usize = 5;
pub(crate) const DENIED: usize = 6;
pub(crate) const ACROSS: usize = 7;
pub(crate) const SECOND_SNAPSHOT: usize = 8;
pub(crate) const ACROSS_OUTCOME: usize = 9;
pub(crate) const REPORTED: usize = 10;
pub(crate) const HOLD: usize = 12;
pub(crate) const KEY_CHANGE: usize = 14;
pub(crate) const KEY_RETIRED: usize = 15;

/// An entry that is not sealed yet.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: u128,
    pub(crate) kind: String,
    pub(crate) body: Value,
    pub(crate) ts: Timestamp,
    /// The identifier of the decision that it is about.
    pub(crate) about: Option<u128>,
    /// Whether the export holds its leaf alone.
    pub(crate) is_removed: bool,
}

/// A log that can be changed, and signed whatever it says.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) records: Vec<Record>,
    pub(crate) contents: BTreeMap<Digest, Vec<u8>>,
    /// The keys that sign the checkpoint, of those in `keys`.
    pub(crate) signers: Vec<usize>,
    keys: Vec<Vec<u8>>,
    pub(crate) origin: Origin,
    start: Timestamp,
    next: u128,
}

impl Forged {
    /// An honest log: calls that went to the second of two allowed deployments, one across the activation of
    /// a snapshot that forbids it, a denial, a reading, a report, a hold, a change of keys.
    pub(crate) fn honest() -> Self {
        let key = || SigningKey::generate(&SystemRandom::new()).unwrap();
        let mut log = Self {
            records: Vec::new(),
            contents: BTreeMap::new(),
            signers: vec![1],
            keys: vec![key(), key(), key()],
            origin: "lexgate.example/main".parse().unwrap(),
            // Half a minute before the example's clauses end.
            start: "2026-11-30T23:59:30Z".parse().unwrap(),
            next: 1,
        };
        let first = log.snapshot(1, "2026-12-01", log.start);
        let second = log.snapshot(2, "2026-11-30", log.at(9_000));
        log.push(
            "genesis",
            0,
            json!({
                "origin": log.origin.as_str(), "public_key": log.vkey(0),
                "software": { "name": "lexgate", "version": "0.1.0" },
            }),
        );
        log.push("bundle_activated", 0, activation(&first));
        let sent = log.push("decision", 1_000, decide(&first, true, None));
        let attempts =
            [(FRANKFURT, 1_100, 1_500, Some("timeout")), (SINGAPORE, 2_000, 2_900, None)];
        log.push_outcome(3_000, sent, &attempts);
        log.push("decision", 4_000, decide(&first, false, None));
        log.push(
            "audit_read",
            5_000,
            json!({
                "key": "auditor", "operation": "listRecords", "query": {},
                "retention": { "class": "general", "months": 6 },
            }),
        );
        log.push("decision", 6_000, decide(&first, true, Some(RIYADH)));
        let across = log.push("decision", 7_000, decide(&first, true, None));
        log.push("bundle_activated", 9_000, activation(&second));
        let attempts =
            [(FRANKFURT, 7_200, 8_500, Some("timeout")), (SINGAPORE, 8_600, 11_500, None)];
        log.push_outcome(12_000, across, &attempts);
        let reported = log.push("decision", 13_000, decide(&second, false, None));
        log.push_outcome(14_000, reported, &[]);
        let last = log.records.last_mut().unwrap();
        (last.body["status"], last.body["reported"]) = (json!("reported"), json!("ok"));
        let hold = json!({ "id": "case-1", "key": "officer", "reason": "subpoena", "records": {} });
        log.push("legal_hold", 15_000, hold.clone());
        log.push("legal_hold", 16_000, with(hold, "records", Value::Null));
        log.push_key_change(17_000, 0, 1);
        log.push("key_retired", 18_000, json!({ "retired": log.vkey(0) }));
        log.records.push(Record { id: 999, ts: log.at(19_000), ..log.records[READING].clone() });
        log
    }

    /// The snapshot of the shipped policies and an organisation whose clauses end on a day.
    fn snapshot(&mut self, revision: u64, end: &str, at: Timestamp) -> Arc<Snapshot> {
        let policies = config::read_policies(Path::new("policies")).unwrap();
        let text = fs::read_to_string("config/organisation.toml").unwrap();
        let text =
            text.replace("valid_until = \"2029-01-01\"", &format!("valid_until = \"{end}\""));
        let organisation = SourceFile::new("organisation.toml", &text);
        let proposal = Proposal::load(&policies, organisation).unwrap();
        let snapshot = Snapshot::at(&proposal, at, Revision(revision)).unwrap();
        for content in snapshot.contents() {
            self.contents.insert(content.digest, content.bytes.clone());
        }
        Arc::new(snapshot)
    }

    /// So many milliseconds after the log's beginning.
    pub(crate) fn at(&self, millis: i64) -> Timestamp {
        self.start + SignedDuration::from_millis(millis)
    }

    /// The same, as the ledger writes it.
    pub(crate) fn text(&self, millis: i64) -> Value {
        timestamp_text(self.at(millis)).into()
    }

    pub(crate) fn vkey(&self, key: usize) -> String {
        self.signer(&[key]).verifiers()[0].to_string()
    }

    fn signer(&self, keys: &[usize]) -> Signer {
        let keys = keys.iter().map(|key| SigningKey::from_pkcs8(&self.keys[*key]).unwrap());
        Signer::new(self.origin.clone(), keys.collect())
    }

    /// Adds a record; gives its identifier.
    pub(crate) fn push(&mut self, kind: &str, millis: i64, body: Value) -> u128 {
        let (id, ts) = (self.next, self.at(millis));
        self.next += 1;
        let kind = kind.to_owned();
        self.records.push(Record { id, kind, body, ts, about: None, is_removed: false });
        id
    }

    /// Adds the outcome of the decision `about`: the deployments that were tried, from when to when, and how
    /// that failed.
    pub(crate) fn push_outcome(
        &mut self,
        millis: i64,
        about: u128,
        attempts: &[(&str, i64, i64, Option<&str>)],
    ) {
        let decision = self.records.iter().find(|record| record.id == about).unwrap();
        let retention = decision.body["retention"].clone();
        let attempts: Vec<_> = attempts
            .iter()
            .map(|(deployment, started, finished, failure)| {
                let mut attempt = json!({
                    "deployment": deployment, "started": self.text(*started),
                    "finished": self.text(*finished), "http_status": 200,
                });
                if let Some(failure) = failure {
                    attempt["failure"] = json!(failure);
                    attempt["http_status"] = Value::Null;
                }
                attempt
            })
            .collect();
        let id = self.push(
            "outcome",
            millis,
            json!({
                "attempts": attempts, "decision": null, "model": null, "reported": null,
                "retention": retention, "status": "ok", "tokens": { "input": 3, "output": 5 },
            }),
        );
        let outcome = self.records.iter_mut().find(|record| record.id == id).unwrap();
        outcome.about = Some(about);
    }

    /// Adds the record by which one key endorses another.
    pub(crate) fn push_key_change(&mut self, millis: i64, former: usize, next: usize) {
        let (was, is) = (self.vkey(former), self.vkey(next));
        let mut note = Note::unsigned(endorsement(&self.origin, &is.parse().unwrap()));
        let key = SigningKey::from_pkcs8(&self.keys[former]).unwrap();
        note.signatures.push(key.sign(&was.parse().unwrap(), note.text()));
        self.push(
            "key_changed",
            millis,
            json!({
                "endorsement": note.to_string(), "former": was, "public_key": is,
            }),
        );
    }

    /// Adds the record that says that these positions were removed, and removes them. Like all that comes
    /// later, it was written so many days after the log's beginning.
    pub(crate) fn prune(&mut self, days: i64, ranges: &[(usize, usize)]) {
        let millis = days * 86_400_000;
        let removed: Vec<_> =
            ranges.iter().map(|(first, last)| json!({ "first": first, "last": last })).collect();
        self.push(
            "segment_pruned",
            millis,
            json!({ "before": self.text(millis), "removed": removed }),
        );
        for (first, last) in ranges {
            self.records[*first..=*last].iter_mut().for_each(|record| record.is_removed = true);
        }
    }

    /// Every entry, sealed, and every leaf.
    fn sealed(&self) -> (Vec<Vec<u8>>, Vec<Digest>) {
        let (mut entries, mut leaves) = (Vec::new(), Vec::<Digest>::new());
        let zeros = Digest::from_bytes([0; 32]);
        for (seq, record) in self.records.iter().enumerate() {
            let mut body = record.body.clone();
            if let Some(about) = record.about {
                let at = self.records.iter().position(|other| other.id == about).unwrap();
                // What comes later has no leaf yet.
                let leaf = leaves.get(at).copied().unwrap_or(zeros);
                body["decision"] = json!({ "leaf": leaf.hex(), "seq": at });
            }
            let body = serde_json_canonicalizer::to_vec(&body).unwrap();
            let kind = Kind::parse(&record.kind).unwrap();
            let envelope = Envelope {
                id: Uuid::from_u128(record.id),
                kind: &kind,
                log: &self.origin,
                prev: leaves.last().copied().unwrap_or(zeros),
                seq: Seq::new(seq as u64),
                ts: record.ts,
            };
            let (entry, leaf) = seal(&envelope, &body);
            entries.push(if record.is_removed { Vec::new() } else { entry });
            leaves.push(leaf);
        }
        (entries, leaves)
    }

    /// Writes the export of the log, signed.
    pub(crate) fn export(&self, dir: &Path) {
        let (entries, leaves) = self.sealed();
        let mut edge = Edge::default();
        let tiles = edge.extend(leaves.iter().copied());
        for tile in tiles.into_iter().chain(edge.partial()) {
            let path = TilePath::Hashes { id: tile.id, width: tile.hashes.len() };
            write(&dir.join(path.to_string()), &tile.bytes());
        }
        for (n, part) in entries.chunks(TILE_WIDTH).enumerate() {
            let path = TilePath::Entries { n: n as u64, width: part.len() };
            write(&dir.join(path.to_string()), &write_bundle(part).unwrap());
        }
        for (digest, bytes) in &self.contents {
            write(&dir.join("contents").join(digest.hex()), bytes);
        }
        let note = self.signer(&self.signers).checkpoint(edge.size(), edge.root());
        write(&dir.join("checkpoint"), note.to_string().as_bytes());
    }

    /// What the verifier says of the log's export.
    pub(crate) fn verify(&self, more: &[&str]) -> Ran {
        let dir = TempDir::new();
        self.export(&dir.path().join("export"));
        let key = self.vkey(0);
        let mut arguments = vec!["verify", "export", "--key", &key, "--json"];
        arguments.extend(more);
        Ran::in_dir(dir.path(), &arguments)
    }
}

fn activation(snapshot: &Snapshot) -> Value {
    json!({ "cause": "start", "snapshot": snapshot.digests })
}

/// What a snapshot says of a call with a German person's data.
fn decide(snapshot: &Arc<Snapshot>, dispatch: bool, deployment: Option<&str>) -> Value {
    let caller = Caller {
        app: "device-service".into(),
        authenticated: "api_key".to_owned(),
        key: "device-service".into(),
        tenant: "acme-gmbh".into(),
    };
    let mut call = json!({
        "action": "infer", "purpose": "dpv:ServiceProvision",
        "data": { "personal": true, "categories": ["dpv-pd:Contact"], "subjects": ["DE"] },
    });
    match deployment {
        Some(deployment) => call["deployment"] = json!(deployment),
        None => call["model"] = json!("device-service-model"),
    }
    let call: CallRequest = serde_json::from_value(call).unwrap();
    let how = How { dispatch, ..How::default() };
    let decided = Judge::new(snapshot.clone()).decide(&caller, &call, &how).unwrap();
    serde_json::from_slice(&canonical::to_vec(&decided.body).unwrap()).unwrap()
}

/// An object with one field otherwise.
pub(crate) fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
