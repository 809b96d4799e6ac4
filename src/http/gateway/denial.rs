//! A denial as the developer of the app reads it: in one sentence who denied and what to set or to do, and
//! in short what was decided. All of it is behind `GET /v1/decisions/{id}`.

use axum::http::StatusCode;

use super::{
    super::decisions::decision_path,
    claim_names::{PERSONAL, both_names},
    denial_answer::DenialAnswer,
    failure::Failure,
};
use crate::{
    domain::Reason,
    gate::{Judge, Recorded},
};

impl Failure {
    /// The denial `recorded`, for an app that is denied with `status`.
    pub(super) fn denied(recorded: &Recorded, judge: &Judge, status: u16) -> Self {
        let body = &recorded.body;
        let policy = body.reasons.first().map_or("default-deny", |reason| reason.policy.as_str());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        let message = sentence(recorded, judge);
        let mut failure = Self::new(status, "policy_denied", policy, message);
        failure.body.decision = serde_json::value::to_raw_value(&DenialAnswer::from(recorded)).ok();
        failure.may_retry = false;
        failure
    }
}

/// What to do about it, and where more is said.
fn sentence(recorded: &Recorded, judge: &Judge) -> String {
    let body = &recorded.body;
    let first = body.reasons.first();
    let policy = first.map_or("default-deny", |reason| reason.policy.as_str());
    let remedy = match &body.call.data {
        None => format!(
            "the call does not say what its data is: set {} to `false` if it is about no one, or else {} and {}",
            both_names(PERSONAL),
            both_names("data"),
            both_names("subjects")
        ),
        Some(data) if !data.is_classified() => {
            let what = if data.personal { "is personal" } else { "has categories" };
            format!(
                "the data {what}, and nothing says whose law protects it: set {} to the jurisdictions of the people, such as `DE`",
                both_names("subjects")
            )
        }
        Some(_) => {
            let law = first.map(law).unwrap_or_default();
            if lacks_purpose(recorded, judge) {
                format!("{law} The call names no purpose: set {}", both_names("purpose"))
            } else {
                law
            }
        }
    };
    let path = decision_path(recorded.id);
    let remedy = remedy.trim_end_matches('.');
    format!("denied by `{policy}`: {remedy} (decision {}, all of it by `GET {path}`)", recorded.id)
}

/// What a law or a licence forbids, and its advice.
fn law(reason: &Reason) -> String {
    let flow = reason.places.iter().find_map(|place| place.flow.as_ref());
    let flow = flow.map(|flow| format!(", {} to {}", flow.from, flow.to)).unwrap_or_default();
    let place = reason.places.first().map(|place| format!(" (at `{}`{flow})", place.deployment));
    let advice = reason.advice.as_deref().unwrap_or_default();
    format!("{}{}. {advice}", reason.citation, place.unwrap_or_default()).trim_end().to_owned()
}

/// Whether the call names no purpose, and one of the policies that denied asks for it.
fn lacks_purpose(recorded: &Recorded, judge: &Judge) -> bool {
    let engine = &judge.snapshot().engine;
    let asks = |reason: &Reason| {
        let rule = engine.rule(&reason.policy);
        rule.is_some_and(|rule| rule.text.contains("context.purpose"))
    };
    recorded.body.call.purpose.is_none() && recorded.body.reasons.iter().any(asks)
}
