//! The series of metrics that carry names of the active snapshot: its apps, policies and deployments, and
//! nothing that a caller could write. Not what is measured without such names (`telemetry`).

use std::sync::OnceLock;

use metrics::Counter;

use super::Gate;
use crate::{
    ledger::{AttemptFailure, DecisionBody},
    policy::DEFAULT_DENY,
};

/// The failures of attempts that have no HTTP status.
const FAILURES: [AttemptFailure; 4] = [
    AttemptFailure::Unreachable,
    AttemptFailure::Timeout,
    AttemptFailure::BrokeOff,
    AttemptFailure::NoKey,
];

/// What counts one decision. A decision that is remembered keeps it: its names are looked up once.
#[derive(Debug, Default)]
pub(super) struct Counters(OnceLock<Vec<Counter>>);

impl Counters {
    /// Counts that `body` was recorded.
    pub(super) fn count(&self, body: &DecisionBody) {
        for counter in self.0.get_or_init(|| counters(body)) {
            counter.increment(1);
        }
    }
}

fn counters(body: &DecisionBody) -> Vec<Counter> {
    let tier = body.route.as_ref().map_or("none", |route| route.tier.as_str());
    let (app, decision) = (body.caller.app.to_string(), body.decision.as_str());
    let mut counters = vec![
        metrics::counter!("lexgate_decisions_total", "decision" => decision, "tier" => tier),
        of_app(&app, decision),
    ];
    // Each policy appears once among the reasons.
    counters.extend(
        body.reasons.iter().map(|reason| of_policy(&app, decision, reason.policy.as_str())),
    );
    counters
}

fn of_app(app: &str, decision: &'static str) -> Counter {
    metrics::counter!("lexgate_app_decisions_total", "app" => app.to_owned(), "decision" => decision)
}

fn of_policy(app: &str, decision: &'static str, policy: &str) -> Counter {
    metrics::counter!(
        "lexgate_deciding_policies_total",
        "app" => app.to_owned(), "decision" => decision, "policy" => policy.to_owned()
    )
}

impl Gate {
    /// Opens the series of the active snapshot's apps and deployments at zero.
    pub(super) fn open_series(&self) {
        let judge = self.keeper.current();
        let snapshot = judge.snapshot();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lexgate_revision").set(snapshot.digests.revision.0 as f64);
        for app in snapshot.organisation.apps.keys() {
            for decision in ["allow", "deny"] {
                of_app(app.as_str(), decision).increment(0);
            }
            of_policy(app.as_str(), "deny", DEFAULT_DENY).increment(0);
        }
        for row in &snapshot.organisation.deployments {
            if row.approved && row.backend.is_some() {
                open_deployment(row.id.as_str());
            }
        }
    }
}

fn open_deployment(id: &str) {
    let deployment = || ("deployment", id.to_owned());
    metrics::counter!("lexgate_attempts_total", &[deployment(), ("status", "200".to_owned())])
        .increment(0);
    for failure in FAILURES {
        let failure = ("failure", failure.as_str().to_owned());
        metrics::counter!("lexgate_attempts_total", &[deployment(), failure]).increment(0);
    }
    for direction in ["input", "output"] {
        let direction = ("direction", direction.to_owned());
        metrics::counter!("lexgate_tokens_total", &[deployment(), direction]).increment(0);
    }
    drop(metrics::histogram!("lexgate_attempt_seconds", &[deployment()]));
    metrics::gauge!("lexgate_in_flight", &[deployment()]).increment(0.0);
}
