//! A denial in short, as it is beside its message.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::decisions::{RecordAnswer, decision_path};
use crate::{
    domain::{DecisionId, DeploymentId, Effect, Flow, PolicyId, Reason, Verdict},
    gate::Recorded,
    ledger::timestamp_text,
};

/// How many of the policies that denied are named.
const MOST_REASONS: usize = 3;

/// A denial in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DenialAnswer<'a> {
    /// The decision's identifier.
    id: DecisionId,
    /// Always `deny`.
    decision: Verdict,
    /// When it was recorded: RFC 3339, microseconds, UTC.
    #[schema(format = DateTime)]
    decided_at: String,
    /// The first of the policies that denied, at most three.
    reasons: Vec<DenialReason<'a>>,
    /// Where the decision stands in the ledger.
    record: RecordAnswer<'a>,
    /// Where the app that was denied reads the whole decision.
    #[schema(example = "/v1/decisions/0192f0c1-7a3c-7cc1-9b1f-6f0e5a2d9c11")]
    url: String,
}

/// A policy that denied, and the first place at which it did.
#[derive(Debug, Serialize, ToSchema)]
struct DenialReason<'a> {
    /// Its `@id`.
    policy: &'a PolicyId,
    /// What it does.
    effect: Effect,
    /// The law, licence or rule that it implements.
    citation: &'a str,
    /// The deployment.
    #[schema(required = true)]
    deployment: Option<&'a DeploymentId>,
    /// The flow; `null` when the use itself was judged.
    #[schema(required = true)]
    flow: Option<&'a Flow>,
}

impl<'a> From<&'a Reason> for DenialReason<'a> {
    fn from(reason: &'a Reason) -> Self {
        let place = reason.places.first();
        Self {
            policy: &reason.policy,
            effect: reason.effect,
            citation: &reason.citation,
            deployment: place.map(|place| &place.deployment),
            flow: place.and_then(|place| place.flow.as_ref()),
        }
    }
}

impl<'a> From<&'a Recorded> for DenialAnswer<'a> {
    fn from(recorded: &'a Recorded) -> Self {
        let body = &recorded.body;
        Self {
            id: recorded.id,
            decision: body.decision,
            decided_at: timestamp_text(recorded.ts),
            reasons: body.reasons.iter().take(MOST_REASONS).map(Into::into).collect(),
            record: recorded.into(),
            url: decision_path(recorded.id),
        }
    }
}
