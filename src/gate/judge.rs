//! Judging: one snapshot, one call, one evaluation. No clock, no ledger: the same call and the
//! same snapshot always give the same evaluation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cedar_policy::Context;

use super::memo::Memo;
use crate::{
    domain::{
        AppId, Call, CallRequest, Candidate, Data, Duty, Effect, Evaluation, EvaluationFault,
        FieldFault, Flow, FlowAction, InstrumentInForce, Place, Placement, PolicyId, Reason, Route,
        TenantId, Verdict,
    },
    facts::{Deployment, Resolved, Snapshot, resolve},
    policy::{
        DEFAULT_DENY, EVALUATION_ERROR, EntityKind, FlowContext, Judgement, RuleSet,
        UNDECLARED_DATA, UseContext, action_uid, flow_context, flow_uid, uid, use_context,
    },
};

/// A snapshot that answers, and remembers what it answered ([`super::memo`]).
#[derive(Debug)]
pub struct Judge {
    snapshot: Arc<Snapshot>,
    pub(super) memo: Memo,
}

/// A call as it was resolved, and what was found of it.
#[derive(Debug)]
pub struct Judged {
    /// The call.
    pub call: Call,
    /// The app's tenant.
    pub tenant: TenantId,
    /// What was found.
    pub evaluation: Evaluation,
}

impl Judge {
    /// Judges by `snapshot`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, memo: Memo::default() }
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the policies say of `request`, made by `app`, from nothing that is remembered.
    ///
    /// # Errors
    /// Each field that names something unknown.
    pub fn judge_afresh(
        &self,
        app: &AppId,
        request: &CallRequest,
    ) -> Result<Judged, Vec<FieldFault>> {
        let Resolved { call, tenant, candidates } = resolve(&self.snapshot, app, request)?;
        let mut bench = Bench::new(&self.snapshot, &call, app, &tenant);
        let found: Vec<_> =
            candidates.into_iter().map(|candidate| bench.candidate(candidate)).collect();
        let evaluation = bench.conclude(found);
        Ok(Judged { call, tenant, evaluation })
    }
}

/// One request to the policies, and what they said.
pub(super) struct Heard {
    pub(super) flow: Option<Flow>,
    pub(super) judgement: Judgement,
}

/// What was found of one deployment.
struct Found<'a> {
    deployment: &'a Deployment,
    placement: Placement,
    heard: Vec<Heard>,
    duties: BTreeSet<PolicyId>,
}

/// The contexts of the requests to one deployment, or why there are none.
struct Contexts {
    usage: Result<Context, String>,
    flow: Result<Context, String>,
}

impl Found<'_> {
    fn verdict(&self) -> Verdict {
        if self.heard.iter().all(|heard| heard.judgement.allowed) {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }

    /// The policies that decided, each with its effect and the flows for which it did.
    fn deciding(&self) -> Vec<(PolicyId, Effect, Option<Flow>)> {
        let verdict = self.verdict();
        let mut deciding = Vec::new();
        for Heard { flow, judgement } in &self.heard {
            let effect = match verdict {
                Verdict::Allow => Effect::Permit,
                Verdict::Deny if judgement.allowed => continue,
                Verdict::Deny => Effect::Forbid,
            };
            if !judgement.failures.is_empty() {
                deciding.push((EVALUATION_ERROR.into(), effect, flow.clone()));
                continue;
            }
            if judgement.policies.is_empty() {
                deciding.push((DEFAULT_DENY.into(), effect, flow.clone()));
            }
            let policies = judgement.policies.iter();
            deciding.extend(policies.map(|policy| (policy.clone(), effect, flow.clone())));
        }
        deciding
    }
}

/// One call before one snapshot.
struct Bench<'a> {
    snapshot: &'a Snapshot,
    call: &'a Call,
    app: &'a AppId,
    tenant: &'a TenantId,
    instruments: BTreeSet<InstrumentInForce>,
}

impl<'a> Bench<'a> {
    fn new(snapshot: &'a Snapshot, call: &'a Call, app: &'a AppId, tenant: &'a TenantId) -> Self {
        Self { snapshot, call, app, tenant, instruments: BTreeSet::new() }
    }

    fn candidate(&mut self, deployment: &'a Deployment) -> Found<'a> {
        let placement = self.snapshot.organisation.placement(deployment, &self.call.location);
        let contexts = Contexts { usage: self.use_context(), flow: self.flow_context(deployment) };
        let mut heard = self.ask(RuleSet::Rules, deployment, &placement, &contexts);
        self.refuse_undeclared(&mut heard);
        let mut found = Found { deployment, placement, heard, duties: BTreeSet::new() };
        if found.verdict() == Verdict::Allow && self.snapshot.engine.has_duties() {
            let duties = self.ask(RuleSet::Duties, deployment, &found.placement, &contexts);
            // A duty that cannot be told is a policy that failed: the candidate is denied.
            let (failed, told): (Vec<_>, Vec<_>) =
                duties.into_iter().partition(|heard| !heard.judgement.failures.is_empty());
            found.duties = told.into_iter().flat_map(|heard| heard.judgement.policies).collect();
            found.heard.extend(failed);
        }
        found
    }

    /// Too little said of the data is a denial, whatever the bundle says.
    fn refuse_undeclared(&self, heard: &mut [Heard]) {
        let declared = self.call.data.as_ref().is_some_and(Data::is_classified);
        if let Some(usage) = heard.first_mut().filter(|usage| !declared && usage.judgement.allowed)
        {
            usage.judgement.allowed = false;
            usage.judgement.policies = vec![UNDECLARED_DATA.into()];
        }
    }

    /// One use request, and one flow request for each distinct origin, action and destination.
    fn ask(
        &self,
        set: RuleSet,
        deployment: &Deployment,
        placement: &Placement,
        contexts: &Contexts,
    ) -> Vec<Heard> {
        let engine = &self.snapshot.engine;
        let judgement = judge_with(&contexts.usage, |context| {
            let resource = uid(EntityKind::Deployment, deployment.id.as_str());
            let principal = uid(EntityKind::App, self.app.as_str());
            engine.judge(set, principal, action_uid(self.call.action), resource, context)
        });
        let mut heard = vec![Heard { flow: None, judgement }];
        for from in self.call.data.iter().flat_map(Data::origins) {
            let principal = uid(EntityKind::Jurisdiction, from.as_str());
            for action in FlowAction::ALL {
                for to in placement.of(action) {
                    let judgement = judge_with(&contexts.flow, |context| {
                        let resource = uid(EntityKind::Jurisdiction, to.as_str());
                        engine.judge(set, principal.clone(), flow_uid(action), resource, context)
                    });
                    let flow = Flow { action, from: from.clone(), to: to.clone() };
                    heard.push(Heard { flow: Some(flow), judgement });
                }
            }
        }
        heard
    }

    fn use_context(&self) -> Result<Context, String> {
        use_context(&UseContext {
            data: self.call.data.as_ref(),
            purpose: self.call.purpose.as_deref(),
            audience: &self.call.audience,
            audience_zones: &self.snapshot.facts.zones_of(&self.call.audience),
        })
        .map_err(|error| error.to_string())
    }

    /// The context that all flows to one deployment share.
    fn flow_context(&mut self, deployment: &Deployment) -> Result<Context, String> {
        let in_force: Vec<_> = self
            .snapshot
            .instruments(self.tenant, deployment)
            .map(|row| InstrumentInForce { id: row.id.clone(), kind: row.kind.clone() })
            .collect();
        let kinds: Vec<String> = in_force.iter().map(|row| row.kind.clone()).collect();
        self.instruments.extend(in_force);
        flow_context(&FlowContext {
            data: self.call.data.as_ref(),
            purpose: self.call.purpose.as_deref(),
            instruments: &kinds,
            tenant: self.tenant,
            deployment: &deployment.id,
        })
        .map_err(|error| error.to_string())
    }

    fn conclude(&mut self, found: Vec<Found<'a>>) -> Evaluation {
        let chosen = found.iter().find(|found| found.verdict() == Verdict::Allow);
        let duties = chosen.map(|found| self.duties(found)).unwrap_or_default();
        let route = chosen.map(|found| Route {
            deployment: found.deployment.id.clone(),
            jurisdictions: found.placement.process.clone(),
            model: found.deployment.model.clone(),
            operator: found.deployment.operator.clone(),
            tier: found.deployment.tier,
        });
        let reasons = match chosen {
            Some(chosen) => self.reasons(std::slice::from_ref(chosen)),
            None => self.reasons(&found),
        };
        Evaluation {
            decision: if route.is_some() { Verdict::Allow } else { Verdict::Deny },
            route,
            reasons,
            duties,
            instruments: std::mem::take(&mut self.instruments).into_iter().collect(),
            errors: found.iter().flat_map(failures).collect(),
            candidates: found.into_iter().map(candidate).collect(),
        }
    }

    fn duties(&self, chosen: &Found<'a>) -> Vec<Duty> {
        let rules = chosen.duties.iter().filter_map(|policy| self.snapshot.engine.rule(policy));
        rules
            .map(|rule| Duty {
                citation: rule.citation.clone(),
                duty: rule.duty.clone().unwrap_or_default(),
                policy: rule.id.clone(),
            })
            .collect()
    }

    /// Each deciding policy once, with everywhere that it decided. An allow needs no list of the
    /// flows that passed: its candidate names them.
    fn reasons(&self, found: &[Found<'_>]) -> Vec<Reason> {
        let mut places: BTreeMap<(PolicyId, Effect), BTreeSet<Place>> = BTreeMap::new();
        for found in found {
            for (policy, effect, flow) in found.deciding() {
                let flow = flow.filter(|_| effect == Effect::Forbid);
                let place = Place { deployment: found.deployment.id.clone(), flow };
                places.entry((policy, effect)).or_default().insert(place);
            }
        }
        let reason = |((policy, effect), places): ((PolicyId, Effect), BTreeSet<Place>)| {
            let (citation, advice) = self.words(&policy);
            Reason { advice, citation, effect, policy, places: places.into_iter().collect() }
        };
        places.into_iter().map(reason).collect()
    }

    fn words(&self, policy: &PolicyId) -> (String, Option<String>) {
        if let Some(rule) = self.snapshot.engine.rule(policy) {
            return (rule.citation.clone(), rule.advice.clone());
        }
        let (citation, advice) = match policy.as_str() {
            DEFAULT_DENY => (
                "Lexgate base rule: closed by default, what no policy permits is denied",
                "Choose an approved deployment and an action that some policy permits.",
            ),
            UNDECLARED_DATA => (
                "Lexgate base rule: closed by default, undeclared data goes nowhere",
                "Declare what the data is, and whose law protects it: name the subjects' jurisdictions.",
            ),
            _ => (
                "Lexgate base rule: closed by default, a policy that fails denies",
                "Tell the compliance officer: the record's `errors` name the policy and its failure.",
            ),
        };
        (citation.to_owned(), Some(advice.to_owned()))
    }
}

fn judge_with(
    context: &Result<Context, String>,
    judge: impl FnOnce(Context) -> Judgement,
) -> Judgement {
    match context {
        Ok(context) => judge(context.clone()),
        Err(error) => Judgement {
            allowed: false,
            policies: Vec::new(),
            failures: vec![(EVALUATION_ERROR.into(), error.clone())],
        },
    }
}

fn failures<'f>(found: &'f Found<'_>) -> impl Iterator<Item = EvaluationFault> + 'f {
    found.heard.iter().flat_map(|heard| {
        heard.judgement.failures.iter().map(|(policy, message)| EvaluationFault {
            at: Place { deployment: found.deployment.id.clone(), flow: heard.flow.clone() },
            message: message.clone(),
            policy: policy.clone(),
        })
    })
}

fn candidate(found: Found<'_>) -> Candidate {
    let policies: BTreeSet<PolicyId> =
        found.deciding().into_iter().map(|(policy, _, _)| policy).collect();
    Candidate {
        decision: found.verdict(),
        deployment: found.deployment.id.clone(),
        duties: match found.verdict() {
            Verdict::Allow => found.duties.iter().cloned().collect(),
            Verdict::Deny => Vec::new(),
        },
        policies: policies.into_iter().collect(),
        tier: found.deployment.tier,
        placement: found.placement,
    }
}
