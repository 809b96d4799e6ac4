//! Records for tests.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    ActivationBody, DecisionBody, DecisionRef, Engine, Envelope, GenesisBody, Kind, Origin,
    OutcomeBody, OutcomeStatus, Signer, SigningKey, TokenCount, canonical, seal,
};
use crate::domain::{
    Action, Call, Caller, Candidate, Data, Digest, Placement, Retention, Revision, Route, Seq,
    SnapshotDigests, Tier, Verdict,
};

pub(crate) const ORIGIN: &str = "lexgate.example/main";

pub(crate) fn origin() -> Origin {
    ORIGIN.parse().unwrap()
}

pub(crate) fn instant() -> Timestamp {
    "2026-11-22T13:00:00.000001Z".parse().unwrap()
}

pub(crate) fn genesis() -> GenesisBody {
    GenesisBody {
        origin: ORIGIN.into(),
        public_key: signer().verifiers()[0].to_string(),
        software: engine(),
    }
}

/// A key of its own for each process that tests.
pub(crate) fn signer() -> Arc<Signer> {
    static SIGNER: LazyLock<Arc<Signer>> = LazyLock::new(|| {
        let key = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        Arc::new(Signer::new(origin(), vec![SigningKey::from_pkcs8(&key).unwrap()]))
    });
    SIGNER.clone()
}

fn engine() -> Engine {
    Engine { name: "lexgate".into(), version: "0.1.0".into() }
}

pub(crate) fn snapshot(revision: u64) -> SnapshotDigests {
    let digest = |part: &str| Digest::of(format!("{part} {revision}").as_bytes());
    SnapshotDigests {
        bundle: digest("bundle"),
        facts: digest("facts"),
        organisation: digest("organisation"),
        registers: digest("registers"),
        revision: Revision(revision),
    }
}

pub(crate) fn activation(revision: u64) -> ActivationBody {
    ActivationBody { cause: "start".into(), snapshot: snapshot(revision), store: None }
}

/// A decision like a real one; `note` tells it from others.
pub(crate) fn decision(revision: u64, dispatch: bool, note: &str) -> DecisionBody {
    let place = |code: &str| code.parse().unwrap();
    let candidate = |id: &str, tier, decision| Candidate {
        decision,
        deployment: id.into(),
        duties: Vec::new(),
        placement: Placement {
            operate: vec![place("DE")],
            process: vec![place("DE")],
            ..Placement::default()
        },
        policies: vec!["base-infer".into()],
        tier,
    };
    DecisionBody {
        call: Call {
            passes: Vec::new(),
            modalities: Vec::new(),
            asked_model: None,
            action: Action::Infer,
            audience: vec![place("DE")],
            data: Some(Data {
                categories: vec!["dpv-pd:Health".into()],
                location: None,
                personal: true,
                subject_count: 1,
                subjects: vec![place("DE")],
            }),
            deployment: None,
            location: place("DE"),
            model: Some("assistant".into()),
            purpose: Some(format!("x:{note}")),
        },
        caller: Caller {
            app: "support-copilot".into(),
            authenticated: "api_key".into(),
            key: "support-copilot".into(),
            tenant: "acme".into(),
        },
        candidates: vec![
            candidate("smollm2@laptop", Tier::OnDevice, Verdict::Allow),
            candidate("qwen3-32b@dashscope-sg", Tier::Remote, Verdict::Deny),
        ],
        decision: Verdict::Allow,
        dispatch,
        duties: Vec::new(),
        engine: engine(),
        errors: Vec::new(),
        evaluation_us: 140,
        instruments: Vec::new(),
        reached: Vec::new(),
        reasons: Vec::new(),
        retention: retention(),
        route: Some(Route {
            deployment: "smollm2@laptop".into(),
            jurisdictions: vec![place("DE")],
            model: "smollm2".into(),
            operator: "acme".into(),
            tier: Tier::OnDevice,
        }),
        snapshot: snapshot(revision),
        user_commitment: None,
    }
}

fn retention() -> Retention {
    Retention { class: "eu-ai-act-26-6".into(), months: Some(6) }
}

pub(crate) fn outcome(seq: Seq, leaf: Digest) -> OutcomeBody {
    let sent = instant();
    OutcomeBody {
        attempts: vec![super::Attempt {
            deployment: "smollm2@laptop".into(),
            failure: None,
            finished: sent,
            http_status: Some(200),
            started: sent,
        }],
        cost: None,
        decision: DecisionRef { leaf, seq },
        input_commitment: None,
        model: Some("smollm2".into()),
        output_commitment: None,
        reported: None,
        retention: retention(),
        skipped: Vec::new(),
        status: OutcomeStatus::Ok,
        tokens: TokenCount { input: Some(12), output: None },
    }
}

/// What a caller reports of a decision that Lexgate does not send.
pub(crate) fn reported(seq: Seq, leaf: Digest) -> OutcomeBody {
    OutcomeBody {
        attempts: Vec::new(),
        reported: Some(super::ReportedStatus::Ok),
        status: OutcomeStatus::Reported,
        ..outcome(seq, leaf)
    }
}

/// Whether Lexgate sends the call of the decision in `entry`.
pub(crate) fn is_dispatched(entry: &[u8]) -> bool {
    String::from_utf8_lossy(entry).contains(r#""dispatch":true"#)
}

/// A log that grows in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) leaves: Vec<Digest>,
}

impl Chain {
    /// Genesis, a snapshot, decisions with and without outcomes, a second snapshot, another kind.
    pub(crate) fn example() -> Self {
        let mut chain = Self::default();
        chain.push(&Kind::Genesis, &genesis());
        chain.push(&Kind::BundleActivated, &activation(1));
        chain.push(&Kind::Decision, &decision(1, true, "a"));
        chain.push(&Kind::Decision, &decision(1, false, "b"));
        chain.push(&Kind::Decision, &decision(1, true, "c"));
        chain.push_outcome(2);
        chain.push(&Kind::BundleActivated, &activation(2));
        chain.push(&Kind::parse("later_kind").unwrap(), &serde_json::json!({}));
        chain
    }

    pub(crate) fn push(&mut self, kind: &Kind, body: &impl serde::Serialize) {
        let body = canonical::to_vec(body).unwrap();
        let micros = i64::try_from(self.entries.len() / 2).unwrap();
        self.push_at(kind, &body, instant() + jiff::SignedDuration::from_micros(micros));
    }

    pub(crate) fn push_outcome(&mut self, decision: usize) {
        let seq = Seq::new(decision as u64);
        let of = if is_dispatched(&self.entries[decision]) { outcome } else { reported };
        self.push(&Kind::Outcome, &of(seq, self.leaves[decision]));
    }

    pub(crate) fn push_at(&mut self, kind: &Kind, body: &[u8], ts: Timestamp) {
        let n = self.entries.len() as u64;
        let envelope = Envelope {
            id: Uuid::from_u128(u128::from(n)),
            kind,
            log: &origin(),
            prev: self.leaves.last().copied().unwrap_or(Digest::from_bytes([0; 32])),
            seq: Seq::new(n),
            ts,
        };
        let (entry, leaf) = seal(&envelope, body);
        self.entries.push(entry);
        self.leaves.push(leaf);
    }
}
