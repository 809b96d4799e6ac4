//! What the entry of a late outcome says: what became known of a call after its outcome was written as
//! `unknown`, by another process than the one that sent it.
//!
//! Fields stand in alphabetical order: their JSON is then canonical (RFC 8785) as it is written.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Attempt, Commitment, DecisionRef, OutcomeBody, OutcomeStatus, Skipped, TokenCount,
    outcome::present,
};
use crate::domain::{Money, Retention};

/// What became known of a call too late for its outcome. The fields are an outcome's, and one more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LateOutcomeBody {
    /// Each attempt, in order.
    pub attempts: Vec<Attempt>,
    /// What the answer cost, where the deployment has a price and the backend counted. Absent when not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub cost: Option<Money>,
    /// The decision it belongs to.
    pub decision: DecisionRef,
    /// Commitment to the body of the request. Absent where there is to be none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub input_commitment: Option<Commitment>,
    /// The model that the backend says was served.
    pub model: Option<String>,
    /// The outcome `unknown` to which it adds.
    pub outcome: DecisionRef,
    /// Commitment to the body of the answer. Absent where no backend's answer was handed on.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub output_commitment: Option<Commitment>,
    /// How long the record is kept: as long as its decision's.
    pub retention: Retention,
    /// The deployments that the law allows and that were passed over, with the reason. Absent when none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// How the call ended, as the process knows that sent it.
    pub status: OutcomeStatus,
    /// What was consumed, where it is known.
    pub tokens: TokenCount,
}

impl LateOutcomeBody {
    /// What `body` says, beside the outcome at `outcome`.
    #[must_use]
    pub fn new(body: OutcomeBody, outcome: DecisionRef) -> Self {
        Self {
            attempts: body.attempts,
            cost: body.cost,
            decision: body.decision,
            input_commitment: body.input_commitment,
            model: body.model,
            outcome,
            output_commitment: body.output_commitment,
            retention: body.retention,
            skipped: body.skipped,
            status: body.status,
            tokens: body.tokens,
        }
    }
}

impl From<LateOutcomeBody> for OutcomeBody {
    /// The outcome that would have been written in time.
    fn from(late: LateOutcomeBody) -> Self {
        Self {
            attempts: late.attempts,
            cost: late.cost,
            decision: late.decision,
            input_commitment: late.input_commitment,
            model: late.model,
            output_commitment: late.output_commitment,
            reported: None,
            retention: late.retention,
            skipped: late.skipped,
            status: late.status,
            tokens: late.tokens,
        }
    }
}
