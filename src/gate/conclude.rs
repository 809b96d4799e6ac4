//! What the answers of the policies amount to: a route, reasons in the law's words, duties, and how long
//! the record is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    grounds::{Ground, of_use},
    judge::{Bench, Found},
};
use crate::{
    domain::{
        Candidate, Data, Duty, Effect, Evaluation, EvaluationFault, Flow, FlowAction, Place,
        PolicyId, Reason, Route, Verdict,
    },
    facts::Deployment,
    policy::{DEFAULT_DENY, UNDECLARED_DATA},
};

impl<'a> Bench<'a> {
    pub(super) fn conclude(&mut self, found: Vec<Found<'a>>) -> Evaluation {
        let mut allowed = found.iter().filter(|found| found.verdict() == Verdict::Allow);
        let preferred = self.preferred;
        let chosen = allowed
            .clone()
            .find(|found| preferred.is_some_and(|id| *id == found.deployment.id))
            .or_else(|| allowed.next());
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
        // Where the call may go: a gateway tries every allowed deployment.
        let verdict = if route.is_some() { Verdict::Allow } else { Verdict::Deny };
        let open = found.iter().filter(|found| found.verdict() == verdict);
        let touch = [FlowAction::Process, FlowAction::Store, FlowAction::Access];
        let destinations = open.flat_map(|found| touch.map(|action| found.placement.of(action)));
        let origins = self.call.data.iter().flat_map(Data::origins);
        let retention = self.snapshot.facts.retention(origins.chain(destinations.flatten()));
        Evaluation {
            retention,
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
        let mut decided: BTreeMap<(PolicyId, Effect), (BTreeSet<Place>, Ground)> = BTreeMap::new();
        for found in found {
            for (policy, effect, flow) in found.deciding() {
                let ground = self.ground(found.deployment, &policy, effect, flow.as_ref());
                let flow = flow.filter(|_| effect == Effect::Forbid);
                let place = Place { deployment: found.deployment.id.clone(), flow };
                let (places, grounds) = decided.entry((policy, effect)).or_default();
                places.insert(place);
                grounds.join(&ground);
            }
        }
        let decided = decided.into_iter().map(|((policy, effect), (places, ground))| {
            let (citation, advice) = self.words(&policy);
            Reason {
                advice,
                citation,
                confidence: Some(ground.confidence),
                effect,
                general_facts: ground.general.into_iter().collect(),
                places: places.into_iter().collect(),
                policy,
            }
        });
        decided.collect()
    }

    /// What one answer rests on.
    fn ground(
        &self,
        deployment: &Deployment,
        policy: &PolicyId,
        effect: Effect,
        flow: Option<&Flow>,
    ) -> Arc<Ground> {
        let Some(flow) = flow else {
            let tenant = self.snapshot.organisation.tenants.get(self.tenant);
            let domicile = tenant.map(|tenant| &tenant.domicile);
            return Arc::new(of_use(self.snapshot, policy, effect, &deployment.model, domicile));
        };
        self.grounds.of_flow(self.snapshot, policy, effect, flow)
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
