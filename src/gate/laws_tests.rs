//! What holds of every call, generated: the same answer with a memory as without, and for a
//! candidate among others as for one alone.

use std::cell::Cell;

use proptest::{
    prelude::*,
    sample::{select, subsequence},
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{How, judge_tests::*};
use crate::{
    domain::{
        Action, AppId, CallRequest, Caller, DataRequest, EndUser, Evaluation, Place, PolicyId,
        Verdict,
    },
    ledger::DecisionBody,
    policy::EVALUATION_ERROR,
};

fn requests() -> impl Strategy<Value = CallRequest> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let places = names(&["DE", "SA", "IN", "BR", "SG", "US", "CA-QC"]);
    let categories =
        names(&["dpv-pd:Contact", "dpv-pd:Health", "x:in-payment-system-data", "x:sa-government"]);
    let targets = prop_oneof![
        select(names(&["assistant", "payments", "mistral-small", "hunyuan"]))
            .prop_map(|model| (Some(model), None)),
        select(names(&["qwen3-32b@meridian-sg", "llama-3.3-70b@northwind-us", "smollm2@laptop"]))
            .prop_map(|deployment| (None, Some(deployment))),
    ];
    let data = (
        any::<bool>(),
        subsequence(categories, 0..=2),
        subsequence(places.clone(), 0..=2),
        prop::option::of(0..3_u64),
        prop::option::of(select(places.clone())),
    );
    let data = data.prop_map(|(personal, categories, subjects, subject_count, location)| {
        DataRequest { personal, categories, subjects, subject_count, location }
    });
    let actions = select(vec![Action::Infer, Action::Infer, Action::Embed, Action::Distil]);
    let purposes = select(names(&["dpv:ServiceProvision", "dpv:Marketing"]));
    let rest = (
        prop::option::of(purposes),
        prop::option::of(subsequence(places.clone(), 0..=2)),
        prop::option::of(select(places)),
        prop::option::of("[a-z]{1,8}".prop_map(|user| EndUser::parse(&user).unwrap())),
    );
    (actions, targets, prop::option::weighted(0.9, data), rest).prop_map(
        |(action, (model, deployment), data, (purpose, audience, location, end_user))| {
            CallRequest {
                action,
                model,
                deployment,
                data,
                passes: Vec::new(),
                modalities: Vec::new(),
                purpose,
                audience,
                location,
                end_user,
            }
        },
    )
}

/// `request`, and each request that differs from it in one respect, as `other` does.
fn neighbours(request: &CallRequest, other: &CallRequest) -> Vec<CallRequest> {
    let base = || request.clone();
    let (model, deployment) = (other.model.clone(), other.deployment.clone());
    let mut all = vec![
        base(),
        CallRequest { end_user: None, ..base() },
        CallRequest { action: other.action, ..base() },
        CallRequest { model, deployment, ..base() },
        CallRequest { data: other.data.clone(), ..base() },
        CallRequest { purpose: other.purpose.clone(), ..base() },
        CallRequest { audience: other.audience.clone(), ..base() },
        CallRequest { location: other.location.clone(), ..base() },
    ];
    if let (Some(data), Some(other)) = (&request.data, &other.data) {
        let with = |data| CallRequest { data: Some(data), ..base() };
        all.extend([
            with(DataRequest { personal: !data.personal, ..data.clone() }),
            with(DataRequest { categories: other.categories.clone(), ..data.clone() }),
            with(DataRequest { subjects: other.subjects.clone(), ..data.clone() }),
            with(DataRequest { subject_count: other.subject_count, ..data.clone() }),
            with(DataRequest { location: other.location.clone(), ..data.clone() }),
        ]);
    }
    all
}

fn caller(app: &AppId) -> Caller {
    Caller {
        app: app.clone(),
        authenticated: "api_key".to_owned(),
        key: "key".into(),
        tenant: "meridian".into(),
    }
}

/// The evaluation that a record tells of.
fn evaluation(body: &DecisionBody) -> Evaluation {
    let body = body.clone();
    Evaluation {
        decision: body.decision,
        route: body.route,
        reasons: body.reasons,
        duties: body.duties,
        instruments: body.instruments,
        errors: body.errors,
        candidates: body.candidates,
        retention: body.retention,
    }
}

#[test]
fn a_remembered_answer_is_the_answer() {
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let (remembering, forgetful) = (judge_of(&shipped_policies()), judge_of(&shipped_policies()));
    let counts = Cell::new((0, 0));
    let law = |(request, other, apps): (CallRequest, CallRequest, Vec<&str>)| {
        for request in neighbours(&request, &other) {
            for app in &apps {
                let app: AppId = (*app).into();
                let afresh = forgetful.judge_afresh(&app, &request, &[]).expect("known names");
                for _ in 0..2 {
                    let decided = remembering.decide(&caller(&app), &request, &How::default());
                    let body = &decided.expect("known names").body;
                    prop_assert_eq!(&body.call, &afresh.call);
                    prop_assert_eq!(&body.caller.tenant, &afresh.tenant);
                    prop_assert_eq!(&evaluation(body), &afresh.evaluation);
                }
                let (allowed, denied) = counts.get();
                let is_allowed = holds_of_every_evaluation(&afresh.evaluation)?;
                counts.set(if is_allowed { (allowed + 1, denied) } else { (allowed, denied + 1) });
            }
        }
        Ok(())
    };
    let apps = subsequence(vec!["support-copilot", "lab-notebook", "ward-notes"], 1..=2);
    TestRunner::new(config).run(&(requests(), requests(), apps), law).unwrap();
    let (allowed, denied) = counts.get();
    assert!(allowed > 10 && denied > 10, "{allowed} allowed, {denied} denied");
}

/// It looks at what two deployments of one call, and two flows to one of them, differ in.
const DIFFERENT: &str = r#"
    @id("kept") @citation("c") @advice("a")
    forbid (principal, action in Action::"transfer", resource)
    when { action == Action::"store" && context.deployment.retentionHours > 0 };
    @id("assessed") @citation("c") @advice("a")
    forbid (principal, action in [Action::"process", Action::"own"], resource)
    when { context.instruments.contains("eu-scc") && context.data.personal };
    @id("failing") @citation("c") @advice("a")
    forbid (principal, action == Action::"operate", resource)
    when { context.deployment.retentionHours + 9223372036854775800 > 0 };
"#;

#[test]
fn a_candidate_among_others_is_judged_as_it_is_alone() {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let judges = [judge_of(&shipped_policies()), judge_with(DIFFERENT)];
    let app: AppId = "support-copilot".into();
    let seen = Cell::new([0; 3]);
    let law = |request: CallRequest| {
        for judge in &judges {
            let together = judge.judge_afresh(&app, &request, &[]).expect("known names").evaluation;
            for candidate in &together.candidates {
                let deployment = Some(candidate.deployment.to_string());
                let pinned = CallRequest { model: None, deployment, ..request.clone() };
                let alone = judge.judge_afresh(&app, &pinned, &[]).expect("known names").evaluation;
                prop_assert_eq!(std::slice::from_ref(candidate), &alone.candidates[..]);
                let here = |at: &Place| at.deployment == candidate.deployment;
                let errors = together.errors.iter().filter(|error| here(&error.at));
                prop_assert!(errors.eq(&alone.errors));
                if together.decision == Verdict::Deny {
                    let decided = |evaluation: &Evaluation| -> Vec<(PolicyId, Place)> {
                        let all = evaluation.reasons.iter();
                        all.flat_map(|reason| reason.places.iter().map(move |at| (reason, at)))
                            .filter(|(_, at)| here(at))
                            .map(|(reason, at)| (reason.policy.clone(), at.clone()))
                            .collect()
                    };
                    prop_assert_eq!(decided(&together), decided(&alone));
                }
                let decided = |policy: &str| candidate.policies.contains(&policy.into());
                let [kept, assessed, failing] = seen.get();
                seen.set([
                    kept + u32::from(decided("kept")),
                    assessed + u32::from(decided("assessed")),
                    failing + u32::from(decided(EVALUATION_ERROR)),
                ]);
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&requests(), law).unwrap();
    assert!(seen.get().iter().all(|seen| *seen > 0), "{seen:?}");
}

/// Whether it allows, once it is known to make sense.
fn holds_of_every_evaluation(evaluation: &Evaluation) -> Result<bool, TestCaseError> {
    let route = evaluation.route.as_ref().map(|route| &route.deployment);
    let mut candidates = evaluation.candidates.iter();
    let first = candidates.find(|candidate| candidate.decision == Verdict::Allow);
    prop_assert_eq!(route, first.map(|candidate| &candidate.deployment));
    prop_assert_eq!(evaluation.decision == Verdict::Allow, route.is_some());
    prop_assert!(!evaluation.reasons.is_empty());
    prop_assert!(route.is_some() || evaluation.duties.is_empty());
    Ok(route.is_some())
}
