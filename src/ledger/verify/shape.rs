//! What a decision and an outcome must not say against themselves: the parts of one record, held
//! against each other. Not what an outcome says of its decision ([`super::calls`]).

use std::collections::BTreeSet;

use crate::{
    domain::{Candidate, DeploymentId, Verdict},
    ledger::{Attempt, DecisionBody, OutcomeBody, OutcomeStatus, Skipped},
};

/// How often one deployment is tried for one call: once in each round.
const TRIES: usize = 2;

/// What a decision says against itself.
pub(in crate::ledger) fn of_decision(body: &DecisionBody) -> Result<(), &'static str> {
    let mut names = BTreeSet::new();
    if !body.candidates.iter().all(|candidate| names.insert(&candidate.deployment)) {
        return Err("a deployment appears twice among its candidates");
    }
    let is_allowed = body.decision == Verdict::Allow;
    let is_open = |candidate: &Candidate| candidate.decision == Verdict::Allow;
    if is_allowed != body.candidates.iter().any(is_open) {
        return Err(if is_allowed {
            "it allows a call for which no candidate is allowed"
        } else {
            "it denies a call for which a candidate is allowed"
        });
    }
    if body.candidates.iter().any(|one| !is_open(one) && !one.duties.is_empty()) {
        return Err("a candidate that is denied has duties");
    }
    let Some(route) = &body.route else {
        if is_allowed {
            return Err("it allows a call and has no route");
        }
        if body.dispatch {
            return Err("it denies a call and says that Lexgate sends it");
        }
        if !body.duties.is_empty() {
            return Err("it denies a call and has duties");
        }
        return Ok(());
    };
    if !is_allowed {
        return Err("it denies a call and has a route");
    }
    let is_chosen = |one: &&Candidate| is_open(one) && one.deployment == route.deployment;
    match body.candidates.iter().find(is_chosen) {
        None => Err("its route is not one of its allowed candidates"),
        Some(chosen)
            if chosen.tier != route.tier || chosen.placement.process != route.jurisdictions =>
        {
            Err("its route is placed elsewhere than the candidate that it names")
        }
        Some(_) => Ok(()),
    }
}

/// What an outcome says against itself.
pub(in crate::ledger) fn of_outcome(body: &OutcomeBody) -> Result<(), &'static str> {
    let is_reported = body.status == OutcomeStatus::Reported;
    if is_reported != body.reported.is_some() {
        return Err("`reported` belongs to the status `reported`, and to no other");
    }
    let is_sealed = body.input_commitment.is_some() || body.output_commitment.is_some();
    if is_reported
        && (!body.attempts.is_empty()
            || !body.skipped.is_empty()
            || is_sealed
            || body.cost.is_some())
    {
        return Err("what a caller reports has neither attempts nor commitments nor a cost");
    }
    if body.cost.is_some() && body.attempts.is_empty() {
        return Err("it has a cost, and nothing was tried");
    }
    if body.status == OutcomeStatus::Ok
        && body.attempts.last().is_none_or(|last| last.failure.is_some())
    {
        return Err("its status is `ok`, and its last attempt is not a success");
    }
    of_attempts(&body.attempts, &body.skipped)
}

/// What attempts say against each other, and against what was passed over.
pub(in crate::ledger) fn of_attempts(
    attempts: &[Attempt],
    skipped: &[Skipped],
) -> Result<(), &'static str> {
    if let Some((_, earlier)) = attempts.split_last()
        && earlier.iter().any(|attempt| attempt.failure.is_none())
    {
        return Err("a call was tried again after an attempt that did not fail");
    }
    let tries = |deployment: &DeploymentId| {
        attempts.iter().filter(|one| one.deployment == *deployment).count()
    };
    if attempts.iter().any(|attempt| tries(&attempt.deployment) > TRIES) {
        return Err("one deployment was tried more than twice");
    }
    let mut names = BTreeSet::new();
    if !skipped.iter().all(|one| names.insert(&one.deployment)) {
        return Err("a deployment appears twice among those that were passed over");
    }
    if skipped.iter().any(|one| tries(&one.deployment) > 0) {
        return Err("a deployment was tried, and was passed over");
    }
    Ok(())
}
