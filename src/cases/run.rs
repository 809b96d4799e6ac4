//! Judging cases: all those of one instant, in the same world, by one snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Own, file::Case};
use crate::{
    domain::{Asked, CallRequest, Caller, Counts, Effect, Exported, Reached, Revision, Verdict},
    facts::Snapshot,
    gate::{GateError, How, Judge},
    ledger::DecisionBody,
    policy::{Bundle, CedarCase, Probe, is_probe, permit_all, probes},
    source::{Fault, Faults, SourceFile},
};

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// What the case shows.
    pub name: String,
    /// The file and the line of it.
    pub place: String,
    /// Where the law says so, where the case names it.
    pub source: Option<String>,
    /// Why it failed; nothing when it passed.
    pub failure: Option<String>,
}

/// What no case shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Policies that decide no case.
    pub policies: Vec<String>,
    /// Exceptions that let no case pass: the policy, and what its `unless` says.
    pub branches: Vec<(String, String)>,
}

/// What came of all cases.
#[derive(Debug)]
pub struct Tested {
    /// Each case, in the order of the files.
    pub outcomes: Vec<Outcome>,
    /// What none of them shows, where that was asked for.
    pub missed: Option<Missed>,
    /// How many policies and exceptions there are.
    pub points: usize,
}

/// Judges the cases by the policies and facts of `policies`, which may use the names of `own`; `coverage`
/// also looks for what no case shows.
///
/// # Errors
/// When policies, facts or cases name what is not there.
pub fn test(
    policies: &[SourceFile],
    own: &Own<'_>,
    cases: Vec<Case>,
    coverage: bool,
) -> Result<Tested, Faults> {
    let decided = judge(policies, own, &cases)?;
    let mut shown: BTreeSet<String> = BTreeSet::new();
    for body in decided.iter().flatten() {
        shown.extend(body.reasons.iter().map(|reason| reason.policy.to_string()));
        shown.extend(body.duties.iter().map(|duty| duty.policy.to_string()));
    }
    let (mut missed, mut points) = (None, 0);
    if coverage {
        let bare = own.read(policies)?;
        let (file, probes) = probes(&bare.bundle)?;
        let mut files = policies.to_vec();
        files.extend([file, permit_all()]);
        let reached: BTreeSet<String> = judge(&files, own, &cases)?
            .iter()
            .flatten()
            .flat_map(|body| body.duties.iter().map(|duty| duty.policy.to_string()))
            .filter(|id| is_probe(id))
            .collect();
        let ids = bare.bundle.rules().map(|rule| rule.id.to_string());
        let branch = |probe: Probe| (probe.policy, probe.text);
        points = bare.bundle.rules().count() + probes.len();
        missed = Some(Missed {
            policies: ids.filter(|id| !shown.contains(id)).collect(),
            branches: probes
                .into_iter()
                .filter(|probe| !reached.contains(&probe.id))
                .map(branch)
                .collect(),
        });
    }
    let outcomes = cases.into_iter().zip(decided).map(|(case, decided)| Outcome {
        failure: match decided {
            Ok(body) => failure(&case, &body),
            Err(error) => Some(error),
        },
        name: case.name,
        place: case.place,
        source: Some(case.source),
    });
    Ok(Tested { outcomes: outcomes.collect(), missed, points })
}

/// Judges tests of Cedar's own form by the rules of `policies`.
///
/// # Errors
/// When the policies cannot be read.
pub fn test_cedar(policies: &[SourceFile], cases: Vec<CedarCase>) -> Result<Vec<Outcome>, Faults> {
    let bundle = Bundle::load(policies)?;
    let outcomes = cases.into_iter().map(|case| Outcome {
        failure: case.failure(&bundle),
        name: case.name,
        place: case.place,
        source: None,
    });
    Ok(outcomes.collect())
}

/// What is decided of each case; or why it cannot be judged.
fn judge(
    policies: &[SourceFile],
    own: &Own<'_>,
    cases: &[Case],
) -> Result<Vec<Result<Arc<DecisionBody>, String>>, Faults> {
    // One organisation for all cases of an instant, but for those that name its parties.
    type Together = (Timestamp, Option<usize>);
    let mut worlds: BTreeMap<String, BTreeMap<Together, Vec<usize>>> = BTreeMap::new();
    for (n, case) in cases.iter().enumerate() {
        let together = (case.at, case.names_a_party().then_some(n));
        worlds.entry(case.facts()).or_default().entry(together).or_default().push(n);
    }
    let mut decided: BTreeMap<usize, Result<Arc<DecisionBody>, String>> = BTreeMap::new();
    for (facts, by_instant) in worlds {
        let mut files = policies.to_vec();
        if !facts.is_empty() {
            files.push(SourceFile::new("facts/case.toml", &facts));
        }
        let world = own.read(&files)?;
        for ((at, _), numbers) in by_instant {
            let these: Vec<_> = numbers.iter().filter_map(|n| Some((*n, cases.get(*n)?))).collect();
            let (text, starts) = organisation(&these);
            let proposal = world.with_organisation(SourceFile::new("organisation.toml", &text));
            let proposal = proposal.map_err(|faults| placed(faults, &these, &starts))?;
            let snapshot = Snapshot::at(&proposal, at, Revision(1)).map_err(|error| {
                Faults::from(SourceFile::new("cases", "").fault(0..0, error.to_string()))
            })?;
            let judge = Judge::new(Arc::new(snapshot));
            decided.extend(these.into_iter().map(|(n, case)| (n, decide(&judge, case, n))));
        }
    }
    Ok(decided.into_values().collect())
}

pub(super) fn decide(judge: &Judge, case: &Case, n: usize) -> Result<Arc<DecisionBody>, String> {
    let ids = case.ids(n);
    let caller = Caller {
        app: ids.app.as_str().into(),
        authenticated: "case".to_owned(),
        key: "case".into(),
        tenant: ids.tenant.as_str().into(),
    };
    let call = CallRequest { deployment: Some(ids.deployment), ..case.call.clone() };
    let reached = reached(judge, case, &caller, &call);
    match judge.decide(&caller, &call, &How { reached, ..How::default() }) {
        Ok(decided) => Ok(decided.body.clone()),
        Err(GateError::Invalid(faults)) => {
            let faults = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            Err(faults.collect::<Vec<_>>().join("; "))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The thresholds that the call reaches, with what its case says left before.
pub(super) fn reached(
    judge: &Judge,
    case: &Case,
    caller: &Caller,
    call: &CallRequest,
) -> Vec<Reached> {
    let asked = judge.snapshot().asked(&caller.app, call, case.at);
    let keys = asked.iter().flat_map(Asked::keys);
    let mut counts = Counts(keys.map(|key| (key, Vec::new())).collect());
    for (at, origin, export, subjects) in &case.exported {
        counts.add(&Exported {
            tenant: caller.tenant.clone(),
            origin: origin.clone(),
            day: judge.snapshot().day_of(origin, *at),
            export: export.clone(),
            subjects: *subjects,
        });
    }
    Reached::of(&counts.answer(asked))
}

/// The organisations of these cases as one, and the line at which each begins.
fn organisation(cases: &[(usize, &Case)]) -> (String, Vec<usize>) {
    let (mut text, mut starts, mut line) = (String::new(), Vec::new(), 1);
    for (n, case) in cases {
        starts.push(line);
        let own = case.organisation(*n);
        line += own.matches('\n').count();
        text.push_str(&own);
    }
    (text, starts)
}

/// Faults of the organisation at the cases that brought it.
fn placed(faults: Faults, cases: &[(usize, &Case)], starts: &[usize]) -> Faults {
    let place = |fault: Fault| {
        let at = starts.partition_point(|start| *start <= fault.line).saturating_sub(1);
        let Some((_, case)) = cases.get(at) else { return fault };
        let (file, line) = case.place.rsplit_once(':').unwrap_or((&case.place, "1"));
        let message = format!("case “{}”: {}", case.name, fault.message);
        let line = line.parse().unwrap_or(1);
        let (file, source) = (file.into(), String::new());
        Fault { file, line, column: 1, length: 0, source, message, help: fault.help }
    };
    Faults(faults.0.into_iter().map(place).collect())
}

/// What is otherwise than the case expects.
fn failure(case: &Case, body: &DecisionBody) -> Option<String> {
    let deciding: BTreeSet<&str> = body.reasons.iter().map(|row| row.policy.as_str()).collect();
    let duties: BTreeSet<&str> = body.duties.iter().map(|duty| duty.policy.as_str()).collect();
    let decided = case.policies.iter().all(|id| deciding.contains(id.as_str()));
    let wanted = case.duties.as_ref().map(|ids| ids.iter().map(String::as_str).collect());
    let is_told = wanted.is_none_or(|wanted: BTreeSet<&str>| wanted == duties);
    if body.decision == case.expect && decided && is_told {
        return None;
    }
    let mut said = format!("expected {}", case.expect.as_str());
    if !case.policies.is_empty() {
        said = format!("{said} by {}", case.policies.join(", "));
    }
    if let Some(wanted) = case.duties.as_ref().filter(|_| !is_told) {
        let wanted = if wanted.is_empty() { "none".to_owned() } else { wanted.join(", ") };
        said = format!("{said} with these duties: {wanted}");
    }
    said = format!("{said}\n      got {}", body.decision.as_str());
    for reason in &body.reasons {
        let flows: Vec<String> = reason
            .places
            .iter()
            .filter_map(|place| place.flow.as_ref())
            .map(|flow| format!("{} {} → {}", flow.action.as_str(), flow.from, flow.to))
            .collect();
        let effect = match reason.effect {
            Effect::Forbid => "forbids",
            Effect::Permit => "permits",
        };
        said = format!("{said}\n          {} {effect} {}", reason.policy, flows.join(", "));
    }
    for fault in &body.errors {
        said = format!("{said}\n          {} failed: {}", fault.policy, fault.message);
    }
    if body.decision == Verdict::Allow && !duties.is_empty() {
        let duties: Vec<_> = duties.into_iter().collect();
        said = format!("{said}\n          duties: {}", duties.join(", "));
    }
    Some(said)
}
