//! The examples of the OpenAPI document, each written once.

use serde_json::{Value, json};

use super::openapi::Names;

const ID: &str = "0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11";
const LEAF: &str = "5f2b7c0d9e1a4b3c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c";

/// A checkpoint; its signature is an example's too.
pub(super) const CHECKPOINT: &str = "lexgate.example/main\n57\nXyt8DZ4aSzyNfm9aSzwtHg+ani98bV5POisdDJ6Pels=\n\n\u{2014} lexgate.example/main 4rRW1g==\n";

/// German health data, pinned to Singapore.
pub(super) fn call() -> Value {
    json!(Names::example().pinned)
}

/// A call about nobody.
pub(super) fn plain_call() -> Value {
    json!(Names::example().plain)
}

fn snapshot() -> Value {
    let digest = format!("sha256:{LEAF}");
    json!({
        "bundle": digest, "facts": digest, "organisation": digest, "registers": digest,
        "revision": 7
    })
}

fn denied_candidate() -> Value {
    json!({
        "decision": "deny", "deployment": "qwen3-32b@dashscope-sg", "duties": [],
        "placement": {
            "access": [], "operate": ["SG"], "own": ["CN"], "process": ["SG"], "store": ["SG"]
        },
        "policies": ["eu-gdpr-44"], "tier": "remote"
    })
}

fn denied_reason() -> Value {
    json!({
        "policy": "eu-gdpr-44", "effect": "forbid",
        "citation": "Regulation (EU) 2016/679 (GDPR), Arts. 44-47", "confidence": "secondary",
        "advice": "Choose a deployment in the EEA or in a country with an adequacy decision, or register standard contractual clauses or binding corporate rules together with a transfer impact assessment.",
        "deployment": "qwen3-32b@dashscope-sg",
        "flow": { "action": "process", "from": "DE", "to": "SG" }
    })
}

/// The decision on [`call`].
pub(super) fn denied() -> Value {
    json!({
        "id": ID, "decision": "deny", "decided_at": "2026-11-22T13:00:00.000000Z",
        "route": null, "candidates": [denied_candidate()], "reasons": [denied_reason()],
        "duties": [], "snapshot": snapshot(),
        "record": { "log": "lexgate.example/main", "seq": 41, "leaf": LEAF }
    })
}

fn route() -> Value {
    json!({
        "deployment": "smollm2@laptop", "jurisdictions": ["DE"], "model": "smollm2-135m",
        "operator": "acme", "tier": "on_device"
    })
}

/// The decision on [`plain_call`].
pub(super) fn allowed() -> Value {
    json!({
        "id": "0192f0c1-8b4d-7dd2-8c2a-7a1f6b3e0d22", "decision": "allow",
        "decided_at": "2026-11-22T13:00:01.000000Z", "route": route(),
        "candidates": [{
            "decision": "allow", "deployment": "smollm2@laptop", "duties": [],
            "placement": {
                "access": [], "operate": ["SG"], "own": ["SG"], "process": ["DE"], "store": ["DE"]
            },
            "policies": ["base-use"], "tier": "on_device"
        }],
        "reasons": [{
            "policy": "base-use", "effect": "permit",
            "citation": "Lexgate base rule: inference and embedding on deployments that the organisation has approved",
            "confidence": "secondary", "advice": null, "deployment": "smollm2@laptop", "flow": null
        }],
        "duties": [], "snapshot": snapshot(),
        "record": { "log": "lexgate.example/main", "seq": 42, "leaf": LEAF }
    })
}

/// The explanation of [`call`].
pub(super) fn explained() -> Value {
    json!({
        "decision": "deny", "route": null, "candidates": [denied_candidate()],
        "reasons": [denied_reason()], "duties": [],
        "considered": [{
            "citation": "Regulation (EU) 2016/679 (GDPR), Arts. 44-47", "effect": "forbid",
            "file": "sovereignty/eu-gdpr.cedar:14", "policy": "eu-gdpr-44",
            "text": "forbid (principal in Zone::\"EEA\", action in Action::\"transfer\", resource) …"
        }],
        "would_pass": [would_pass()],
        "allowed_deployments": ["smollm2@laptop", "mistral-small@dc-frankfurt"],
        "snapshot": snapshot()
    })
}

fn would_pass() -> Value {
    let instrument = |kind| json!({ "change": "instrument", "kind": kind, "exporter": "acme", "recipient": "alibaba-cloud" });
    json!({
        "deployment": "qwen3-32b@dashscope-sg",
        "ways": [{
            "changes": [instrument("eu-bcr"), instrument("eu-tia")],
            "words": [
                "register the instrument `eu-bcr` between `acme` and `alibaba-cloud`",
                "register the instrument `eu-tia` between `acme` and `alibaba-cloud`"
            ],
            "lifts": [{
                "policy": "eu-gdpr-44", "citation": "Regulation (EU) 2016/679 (GDPR), Arts. 44-47"
            }]
        }],
        "destinations": [{
            "from": "DE", "action": "process", "groups": ["EEA", "eu-gdpr-art45"],
            "jurisdictions": [], "except": []
        }]
    })
}

/// A record as an auditor sees it.
pub(super) fn record() -> Value {
    json!({
        "seq": 42, "leaf": LEAF,
        "entry": {
            "body": {
                "attempts": [{
                    "deployment": "smollm2@laptop", "finished": "2026-11-22T13:00:02.500000Z",
                    "http_status": 200, "started": "2026-11-22T13:00:01.100000Z"
                }],
                "decision": { "leaf": LEAF, "seq": 41 }, "input_commitment": LEAF,
                "model": "smollm2-135m", "output_commitment": LEAF,
                "reported": null, "retention": { "class": "general", "months": 6 },
                "status": "ok", "tokens": { "input": 31, "output": 18 }
            },
            "id": ID, "kind": "outcome", "log": "lexgate.example/main", "prev": LEAF,
            "seq": 42, "ts": "2026-11-22T13:00:02.600000Z", "v": 1
        }
    })
}

/// The same as the gateway tells it.
fn denied_in_short() -> Value {
    json!({
        "id": ID, "decision": "deny", "decided_at": "2026-11-22T13:00:00.000000Z",
        "reasons": [{
            "policy": "eu-gdpr-44", "effect": "forbid",
            "citation": "Regulation (EU) 2016/679 (GDPR), Arts. 44-47",
            "deployment": "qwen3-32b@dashscope-sg",
            "flow": { "action": "process", "from": "DE", "to": "SG" }
        }],
        "record": { "log": "lexgate.example/main", "seq": 41, "leaf": LEAF },
        "url": format!("/v1/decisions/{ID}")
    })
}

/// A denial in the shape of the OpenAI API.
pub(super) fn denied_openai() -> Value {
    json!({ "error": {
        "message": format!("denied by `eu-gdpr-44`: Regulation (EU) 2016/679 (GDPR), Arts. 44-47 (at `qwen3-32b@dashscope-sg`, DE to SG). Choose a deployment in the EEA or in a country with an adequacy decision (decision {ID}, all of it by `GET /v1/decisions/{ID}`)"),
        "type": "policy_denied", "param": null, "code": "eu-gdpr-44", "decision": denied_in_short()
    } })
}

fn proof() -> Value {
    json!({"index": 42, "size": 57, "root": LEAF, "hashes": [LEAF, LEAF], "checkpoint": CHECKPOINT})
}

/// A record with its proof.
pub(super) fn proven() -> Value {
    let mut proven = record();
    if let Some(fields) = proven.as_object_mut() {
        fields.insert("proof".to_owned(), proof());
    }
    proven
}

/// The same as text.
pub(super) fn tlog_proof() -> String {
    format!(
        "c2sp.org/tlog-proof@v1\nindex 42\nXyt8DZ4aSzyNfm9aSzwtHg+ani98bV5POisdDJ6Pels=\n\n{CHECKPOINT}"
    )
}

/// A checkpoint taken apart.
pub(super) fn checkpoint() -> Value {
    json!({"log": "lexgate.example/main", "size": 57, "root": LEAF, "checkpoint": CHECKPOINT})
}

/// That a log grew.
pub(super) fn consistency() -> Value {
    json!({"from": 1, "to": 57, "hashes": [LEAF, LEAF]})
}

/// The keys of a log.
pub(super) fn keys() -> Value {
    let vkey = "lexgate.example/main+e2b456d6+AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";
    json!({"keys": [{"vkey": vkey, "from_seq": 0}]})
}

/// A legal hold that is to be set.
pub(super) fn hold_request() -> Value {
    json!({
        "reason": "subpoena 2026-17",
        "records": {"tenant": "acme", "from": "2026-01-01T00:00:00Z"}
    })
}

/// A legal hold in force.
pub(super) fn hold() -> Value {
    let mut hold = hold_request();
    if let Some(fields) = hold.as_object_mut() {
        fields.insert("id".to_owned(), json!("case-2026-17"));
        fields.insert("record".to_owned(), json!(56));
        fields.insert("matches".to_owned(), json!(211));
    }
    hold
}

/// What a decision commits to.
pub(super) fn values() -> Value {
    json!({"seq": 41, "end_user": "u-1842", "salt": LEAF, "user_commitment": LEAF})
}

/// What an outcome commits to.
pub(super) fn content() -> Value {
    let asked =
        "{\"model\":\"assistant\",\"messages\":[{\"role\":\"user\",\"content\":\"Good morning\"}]}";
    json!({
        "seq": 42,
        "input": {
            "salt": LEAF, "commitment": LEAF, "kept": true, "content": asked, "encoding": "utf-8"
        },
        "output": {"salt": LEAF, "commitment": LEAF, "kept": false}
    })
}
