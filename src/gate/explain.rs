//! Explaining without deciding: nothing is recorded, nothing is sent.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Counterfactual, Gate, GateError, Judge, Judged, decide::instant};
use crate::{
    domain::{
        Action, AppId, CallRequest, Caller, Data, DeploymentId, Effect, FlowAction, PolicyId,
        Reached, Verdict,
    },
    policy::{EntityKind, RuleSet, action_uid, flow_uid, uid},
};

/// A judged call, and what else there is to know of it.
#[derive(Debug)]
pub struct Explanation {
    /// What the policies say.
    pub judged: Judged,
    /// The thresholds of people that the call reaches.
    pub reached: Vec<Reached>,
    /// Every policy that could apply, for any candidate.
    pub considered: Vec<Considered>,
    /// What would make a denied call pass, for each deployment that was considered.
    pub counterfactuals: Vec<Counterfactual>,
    /// Deployments of the organisation that may serve this call, in its order.
    pub allowed_deployments: Vec<DeploymentId>,
}

/// A policy whose scope matches the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Considered {
    /// The law, licence or rule that it implements.
    pub citation: String,
    /// What it does when it matches.
    pub effect: Effect,
    /// Where it is written: file and line in the policy folder.
    #[schema(example = "sovereignty/eu-gdpr.cedar:14")]
    pub file: String,
    /// Its `@id`.
    pub policy: PolicyId,
    /// Its text.
    pub text: String,
}

impl Gate {
    /// What the policies of `judge` say of `request`, with all that has left so far, and what would
    /// make it pass.
    ///
    /// # Errors
    /// When it names something unknown, or what has left cannot be read.
    pub async fn explain(
        &self,
        judge: &Arc<Judge>,
        caller: &Caller,
        request: &CallRequest,
    ) -> Result<Explanation, GateError> {
        let now = instant(&*self.clock);
        let tally = self.tally(judge, caller, std::slice::from_ref(request), now).await?;
        let asked = tally.ask(judge, caller, request);
        let (app, request) = (caller.app.clone(), request.clone());
        let (judge, reached) = (judge.clone(), Reached::of(&asked));
        // Hundreds of judgements: requests do not wait behind them.
        let explained = move || judge.explain(&app, &request, &reached);
        tokio::task::spawn_blocking(explained).await.map_err(|_| GateError::Closed)?
    }
}

impl Judge {
    /// As [`Gate::explain`].
    ///
    /// # Errors
    /// When the call names something unknown.
    pub fn explain(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
    ) -> Result<Explanation, GateError> {
        let judged = self.judge_afresh(app, request, reached).map_err(GateError::Invalid)?;
        let denied = judged.evaluation.decision == Verdict::Deny;
        let candidates = &judged.evaluation.candidates;
        let candidates = if denied { &candidates[..] } else { &[] };
        Ok(Explanation {
            counterfactuals: self.counterfactuals(app, request, reached, candidates),
            considered: self.considered(app, request.action, &judged),
            allowed_deployments: self.allowed_deployments(app, request, reached),
            reached: reached.to_vec(),
            judged,
        })
    }

    fn considered(&self, app: &AppId, action: Action, judged: &Judged) -> Vec<Considered> {
        let engine = &self.snapshot().engine;
        let mut ids = BTreeSet::new();
        for candidate in &judged.evaluation.candidates {
            let principal = uid(EntityKind::App, app.as_str());
            let resource = uid(EntityKind::Deployment, candidate.deployment.as_str());
            ids.extend(engine.considered(
                RuleSet::Rules,
                &principal,
                &action_uid(action),
                &resource,
            ));
            for from in judged.call.data.iter().flat_map(Data::origins) {
                let from = uid(EntityKind::Jurisdiction, from.as_str());
                for flow in FlowAction::ALL {
                    for to in candidate.placement.of(flow) {
                        let to = uid(EntityKind::Jurisdiction, to.as_str());
                        ids.extend(engine.considered(RuleSet::Rules, &from, &flow_uid(flow), &to));
                    }
                }
            }
        }
        let rules = ids.iter().filter_map(|id| engine.rule(id));
        rules
            .map(|rule| Considered {
                citation: rule.citation.clone(),
                effect: rule.effect,
                file: format!("{}:{}", rule.file, rule.line),
                policy: rule.id.clone(),
                text: rule.text.clone(),
            })
            .collect()
    }

    /// Asks the same of every deployment: what the organisation could do instead.
    fn allowed_deployments(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
    ) -> Vec<DeploymentId> {
        let deployments = self.snapshot().organisation.deployments.iter();
        let allowed = deployments.filter(|deployment| {
            let pinned = CallRequest {
                model: None,
                deployment: Some(deployment.id.to_string()),
                ..request.clone()
            };
            let judged = self.judge_afresh(app, &pinned, reached);
            judged.is_ok_and(|judged| judged.evaluation.decision == Verdict::Allow)
        });
        allowed.map(|deployment| deployment.id.clone()).collect()
    }
}
