//! What an entry says, by kind. Not the envelope around it.
//!
//! Fields stand in alphabetical order: their JSON is then canonical (RFC 8785) as it is written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Attempt, Commitment, outcome::present};
use crate::domain::{
    Call, Caller, Candidate, Data, Digest, Duty, EvaluationFault, FlowAction, InstrumentInForce,
    JurisdictionCode, KeyName, Reached, Reason, Retention, Route, Seq, SnapshotDigests, Verdict,
};

/// Entry 0: who keeps the log, and with which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GenesisBody {
    /// The log's origin, as in its checkpoints.
    pub origin: String,
    /// The verifier key of the log's first signing key (C2SP signed-note).
    pub public_key: String,
    /// The software that opened the log.
    pub software: Engine,
}

/// A piece of software.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A snapshot became the one that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivationBody {
    /// Why: `start`, when a starting process's files say so, or `facts_changed`, when a dated fact began
    /// or ended.
    pub cause: String,
    /// The snapshot.
    pub snapshot: SnapshotDigests,
    /// What the store said of itself. Absent in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub store: Option<StoreSettings>,
}

/// What a database says of itself: how sure it is that what was committed stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// The settings that decide about it, in the database's own words.
    pub settings: BTreeMap<String, String>,
    /// The database's version.
    pub version: String,
}

/// All that a regulator needs to know of a decision, and a replay to repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// The call as it was resolved.
    pub call: Call,
    /// Who asked.
    pub caller: Caller,
    /// Every deployment considered.
    pub candidates: Vec<Candidate>,
    /// The decision.
    pub decision: Verdict,
    /// Whether Lexgate itself sends the call; an outcome then follows.
    pub dispatch: bool,
    /// What the caller must do.
    pub duties: Vec<Duty>,
    /// The policy engine.
    pub engine: Engine,
    /// Policies that failed.
    pub errors: Vec<EvaluationFault>,
    /// How long the evaluation took, in microseconds. A call that comes again before the same
    /// snapshot has the same evaluation, made once.
    pub evaluation_us: u64,
    /// The instruments that were in force.
    pub instruments: Vec<InstrumentInForce>,
    /// The thresholds that the call reached, with all that left before it. Absent when none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<Reached>,
    /// The policies that decided.
    pub reasons: Vec<Reason>,
    /// How long the record is kept.
    pub retention: Retention,
    /// Where the call goes, when it is allowed.
    pub route: Option<Route>,
    /// The snapshot that decided.
    pub snapshot: SnapshotDigests,
    /// The commitment to the end user's identifier, where the caller gave one and the organisation
    /// keeps them. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub user_commitment: Option<Commitment>,
}

impl DecisionBody {
    /// The words by which the record is found: `tenant:acme`, `jurisdiction:DE`, `policy:…`.
    #[must_use]
    pub fn terms(&self) -> Vec<String> {
        let mut terms = self.shared_terms();
        terms.push(term("decision", self.decision.as_str()));
        for candidate in self.considered() {
            terms.push(term("deployment", candidate.deployment.as_str()));
            terms.push(term("tier", candidate.tier.as_str()));
            terms.extend(destinations(candidate));
        }
        each_once(terms)
    }

    /// The words by which an outcome of this decision is found, after `attempts`.
    #[must_use]
    pub fn outcome_terms(&self, attempts: &[Attempt]) -> Vec<String> {
        let mut terms = self.shared_terms();
        for attempt in attempts {
            terms.push(term("deployment", attempt.deployment.as_str()));
            let tried = self.candidates.iter().find(|c| c.deployment == attempt.deployment);
            terms.extend(tried.map(|candidate| term("tier", candidate.tier.as_str())));
            terms.extend(tried.into_iter().flat_map(destinations));
        }
        each_once(terms)
    }

    /// Where the call went; where it went nowhere, everywhere it might have gone.
    fn considered(&self) -> impl Iterator<Item = &Candidate> {
        let route = self.route.as_ref().map(|route| &route.deployment);
        self.candidates
            .iter()
            .filter(move |candidate| route.is_none_or(|route| candidate.deployment == *route))
    }

    fn shared_terms(&self) -> Vec<String> {
        let mut terms = vec![
            term("tenant", self.caller.tenant.as_str()),
            term("app", self.caller.app.as_str()),
            term("key", self.caller.key.as_str()),
        ];
        terms.extend(self.call.purpose.as_ref().map(|purpose| term("purpose", purpose)));
        let origins = self.call.data.iter().flat_map(Data::origins);
        terms.extend(places("origin", origins));
        for instrument in &self.instruments {
            terms.push(term("instrument", &instrument.kind));
            terms.push(term("instrument", instrument.id.as_str()));
        }
        terms.extend(self.call.model.as_ref().map(|model| term("model", model.as_str())));
        terms.extend(self.route.as_ref().map(|route| term("model", route.model.as_str())));
        let data = self.call.data.iter();
        let categories = data.flat_map(|data| &data.categories);
        terms.extend(categories.map(|name| term("category", name.as_str())));
        terms.extend(self.touched().into_iter().map(|place| term("jurisdiction", place)));
        terms.extend(self.reasons.iter().map(|reason| term("policy", reason.policy.as_str())));
        terms
    }

    /// Every jurisdiction that the call is about or might have touched. A subdivision is found under its
    /// country too.
    fn touched(&self) -> Vec<&str> {
        let origins = self.call.data.iter().flat_map(Data::origins);
        let placements = self.candidates.iter().map(|candidate| &candidate.placement);
        let flows = FlowAction::ALL;
        let places = placements.flat_map(|placement| flows.map(|action| placement.of(action)));
        let places = origins.chain(places.flatten()).map(JurisdictionCode::as_str);
        each_once(
            places.flat_map(|place| [place, place.split('-').next().unwrap_or(place)]).collect(),
        )
    }
}

/// Everything that a call to `candidate` reaches.
fn destinations(candidate: &Candidate) -> impl Iterator<Item = String> {
    let reached = FlowAction::ALL.into_iter().flat_map(|action| candidate.placement.of(action));
    places("destination", reached)
}

/// A subdivision is found under its country too.
fn places<'a>(
    kind: &str,
    codes: impl Iterator<Item = &'a JurisdictionCode>,
) -> impl Iterator<Item = String> {
    codes.flat_map(move |code| {
        let country = code.as_str().split('-').next().unwrap_or_default();
        [term(kind, code.as_str()), term(kind, country)]
    })
}

pub(super) fn term(kind: &str, of: &str) -> String {
    [kind, ":", of].concat()
}

/// In order, without repetition.
pub(super) fn each_once<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

/// Somebody read the ledger. What they found is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditReadBody {
    /// The API key that read.
    pub key: KeyName,
    /// What was asked for, by its name in the OpenAPI document.
    pub operation: String,
    /// The question: each parameter with its value.
    pub query: BTreeMap<String, String>,
    /// How long the record is kept.
    pub retention: Retention,
}

/// What some records had committed to was destroyed: a person asked for it. Who is not said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasureBody {
    /// Legal holds recorded before this position were looked at; those from it on came too late. Absent in
    /// records of versions before this one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub as_of: Option<Seq>,
    /// The legal holds that it went past, and why. Absent where none held.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub despite_hold: Option<DespiteHold>,
    /// The decisions and outcomes whose committed values nobody can read any more.
    pub erased: Vec<Seq>,
    /// The API key that asked for it.
    pub key: KeyName,
}

/// Legal holds past which an officer went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DespiteHold {
    /// Their names, sorted.
    pub holds: Vec<String>,
    /// The officer's reason.
    pub reason: String,
}

/// An attempt to read the ledger, to open a value, or to change a register, with a known API key that
/// may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusedBody {
    /// The API key that tried.
    pub key: KeyName,
    /// What was tried, by its name in the OpenAPI document.
    pub operation: String,
    /// How long the record is kept.
    pub retention: Retention,
    /// How many attempts it stands for: those of a key that tries often are counted in one record.
    pub times: u64,
    /// Why it was refused; of several attempts, the last.
    pub why: String,
}

/// The bodies of some records were removed, because the time for which they are kept was over. Their
/// leaves stay in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrunedBody {
    /// The instant at which their time was over.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub before: Timestamp,
    /// Which, in order.
    pub removed: Vec<SeqRange>,
}

/// Positions next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

/// Records must be kept beyond their time, or need no longer be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LegalHoldBody {
    /// The hold's name.
    pub id: String,
    /// The API key that said so.
    pub key: KeyName,
    /// Why.
    pub reason: String,
    /// The records that it holds, as filters of `GET /v1/audit/records`; `null` when it is lifted.
    pub records: Option<BTreeMap<String, String>>,
}

/// Another key signs the log from here on, beside the one before it for as long as its operator likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChangeBody {
    /// The note in which the former key names the new one (C2SP signed-note).
    pub endorsement: String,
    /// The verifier key of the key that signed until now.
    pub former: String,
    /// The verifier key of the new one.
    pub public_key: String,
}

/// A key that was superseded signs no more: a checkpoint that it alone has signed is not the log's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRetiredBody {
    /// Its verifier key.
    pub retired: String,
}

/// The log went on although it was not what had been signed: an operator said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryBody {
    /// The tree that was found, without this record.
    pub found: TreeHead,
    /// The signed checkpoint of the tree that was lost.
    pub lost: String,
    /// The operator's reason.
    pub reason: String,
}

/// A clock had been wrong, and entries were dated after the time that it was. Here the log's time goes
/// back: an operator said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockCorrectedBody {
    /// The operator's reason.
    pub reason: String,
    /// The wrong time: that of the entry in front of this one.
    #[serde(with = "super::time")]
    #[schema(value_type = String, format = DateTime)]
    pub was: Timestamp,
}

/// A tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Its root, 64 hexadecimal digits.
    #[serde(with = "super::leaf_hex")]
    #[schema(value_type = String)]
    pub root: Digest,
    /// How many entries it has.
    pub size: u64,
}
