//! Every denied case, and what the gate says would make it pass: each way is followed, by changing what
//! the case says of its organisation and its call, and must lead to an allow.

use std::{path::Path, sync::Arc};

use super::{
    super::run::{decide, reached},
    Case, Given, Instrument,
};
use crate::{
    domain::{CallRequest, Caller, DataRequest, FlowAction, JurisdictionCode, Revision, Verdict},
    facts::{Proposal, Snapshot},
    gate::{Change, Counterfactual, Effort, Judge, Way},
    ledger::DecisionBody,
    source::SourceFile,
};

fn read(folder: &Path, below: &Path, found: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(folder, &path, found);
        } else if path.extension().is_some_and(|kind| {
            ["cedar", "toml", "cedarschema"].map(Into::into).contains(&kind.to_os_string())
        }) {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
            found.push(SourceFile::new(name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The shipped policies, and the cases of them.
fn shipped() -> (Vec<SourceFile>, Vec<Case>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files = Vec::new();
    read(&folder, &folder, &mut files);
    let (cases, policies): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.path.starts_with("cases/"));
    (policies, Case::load(&cases).unwrap())
}

/// A world in which one case can be judged.
struct World<'a> {
    policies: &'a [SourceFile],
    plain: Proposal,
}

impl World<'_> {
    fn judge(&self, case: &Case) -> Judge {
        let organisation = SourceFile::new("organisation.toml", &case.organisation(0));
        let facts = case.facts();
        let proposal = if facts.is_empty() {
            self.plain.with_organisation(organisation)
        } else {
            let mut files = self.policies.to_vec();
            files.push(SourceFile::new("facts/case.toml", &facts));
            Proposal::load(&files, organisation)
        };
        let snapshot = Snapshot::at(&proposal.unwrap(), case.at, Revision(1)).unwrap();
        Judge::new(Arc::new(snapshot))
    }

    fn decide(&self, case: &Case) -> Arc<DecisionBody> {
        decide(&self.judge(case), case, 0).unwrap()
    }
}

fn counterfactual(judge: &Judge, case: &Case, denied: &DecisionBody) -> Counterfactual {
    let caller = Caller {
        app: "app-0".into(),
        authenticated: String::new(),
        key: "".into(),
        tenant: "tenant-0".into(),
    };
    let call = CallRequest { deployment: Some("candidate-0".to_owned()), ..case.call.clone() };
    let reached = reached(judge, case, &caller, &call);
    let mut found = judge.counterfactuals(
        &caller.app,
        &call,
        &reached,
        &denied.candidates,
        &Effort::unbounded(),
    );
    assert_eq!(found.len(), 1, "{}", case.name);
    found.remove(0)
}

/// The case after `way`: several where the call is split.
fn follow(case: &Case, way: &Way) -> Vec<Case> {
    let mut after = case.clone();
    let mut given: Given = (*case.given).clone();
    for change in &way.changes {
        let candidate = &mut given.candidate;
        match change {
            Change::Instrument { kind, .. } => {
                given.instruments.push(Instrument::Kind(kind.clone()));
            }
            Change::Certification { certification, .. } => {
                candidate.operator.certifications.push(certification.clone());
            }
            Change::SideLicence { licence, .. } => {
                given.tenant.side_licences.push(licence.to_string());
            }
            Change::Safeguard { safeguard, .. } => candidate.safeguards.push(safeguard.clone()),
            Change::Retention { hours, .. } => candidate.retention_hours = *hours,
            Change::Approval { .. } => candidate.approved = true,
            Change::Purpose { purpose } => after.call.purpose = Some(purpose.clone()),
            Change::Action { action } => after.call.action = *action,
            Change::Declaration => {
                let nobody = || DataRequest {
                    personal: false,
                    categories: Vec::new(),
                    subjects: Vec::new(),
                    subject_count: None,
                    location: None,
                };
                let data = after.call.data.get_or_insert_with(nobody);
                if data.personal || !data.categories.is_empty() {
                    data.subjects = vec![given.location.clone().unwrap_or_else(|| "SG".to_owned())];
                }
            }
            Change::FewerPeople { .. } => {
                after.exported.clear();
                after.call.data.as_mut().unwrap().subject_count = Some(1);
            }
            Change::Place { action, from, to, .. } => {
                let moved = |places: &mut Vec<String>| {
                    for place in places {
                        if place == from.as_str() || place == "@location" {
                            *place = to.to_string();
                        }
                    }
                };
                match action {
                    FlowAction::Process => moved(&mut candidate.process),
                    FlowAction::Store => moved(&mut candidate.store),
                    FlowAction::Access => moved(&mut candidate.access),
                    FlowAction::Operate => candidate.operator.seat = to.to_string(),
                    FlowAction::Own => moved(&mut candidate.operator.owners),
                }
            }
            Change::Split { subjects } => return split(case, subjects),
        }
    }
    after.given = Arc::new(given);
    vec![after]
}

fn split(case: &Case, subjects: &[JurisdictionCode]) -> Vec<Case> {
    let alone = |subject: &JurisdictionCode| {
        let mut alone = case.clone();
        alone.call.data.as_mut().unwrap().subjects = vec![subject.to_string()];
        alone
    };
    subjects.iter().map(alone).collect()
}

/// Follows every way of a denied case until it is allowed.
fn passes(world: &World<'_>, case: &Case, depth: u32) -> Result<usize, String> {
    let judge = world.judge(case);
    let denied = decide(&judge, case, 0)?;
    if denied.decision == Verdict::Allow {
        return Ok(0);
    }
    let found = counterfactual(&judge, case, &denied);
    if found.ways.is_empty() || depth > 1 {
        return Err(format!("{}: {}: no way: {:?}", case.place, case.name, denied.reasons));
    }
    for way in &found.ways {
        for after in follow(case, way) {
            if after.call.data.as_ref().map(|data| data.subjects.len())
                != case.call.data.as_ref().map(|data| data.subjects.len())
                && way.changes.iter().any(|change| matches!(change, Change::Split { .. }))
            {
                passes(world, &after, depth + 1)?;
                continue;
            }
            let body = world.decide(&after);
            if body.decision != Verdict::Allow {
                let reasons: Vec<_> = body.reasons.iter().map(|reason| &reason.policy).collect();
                return Err(format!(
                    "{}: {}: {:?} leads to {reasons:?}",
                    case.place, case.name, way.words
                ));
            }
        }
    }
    Ok(found.ways.len())
}

#[test]
fn what_is_said_to_make_a_denied_case_pass_does() {
    let (policies, cases) = shipped();
    let plain = Proposal::load(&policies, SourceFile::new("organisation.toml", "")).unwrap();
    let world = World { policies: &policies, plain };
    let denied: Vec<&Case> = cases.iter().filter(|case| case.expect == Verdict::Deny).collect();
    assert!(denied.len() > 400, "{}", denied.len());
    // On both cores: each case is by itself.
    let (one, other) = denied.split_at(denied.len() / 2);
    let follow_all = |cases: &[&Case]| -> Vec<Result<usize, String>> {
        cases.iter().map(|case| passes(&world, case, 0)).collect()
    };
    let followed = std::thread::scope(|scope| {
        let other = scope.spawn(|| follow_all(other));
        let mut followed = follow_all(one);
        followed.extend(other.join().unwrap());
        followed
    });
    let failed: Vec<_> = followed.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        denied.len(),
        failed.iter().map(|text| text.as_str()).collect::<Vec<_>>().join("\n")
    );
    let ways: usize = followed.into_iter().map(Result::unwrap).sum();
    assert!(ways > denied.len(), "{ways}");
}
