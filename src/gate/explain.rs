//! Explaining without deciding: nothing is recorded, nothing is sent.

use std::{
    collections::BTreeSet,
    io, panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Counterfactual, Effort, Gate, GateError, Judge, Judged, decide::instant};
use crate::{
    domain::{
        Action, AppId, CallRequest, Caller, Data, DeploymentId, Effect, FlowAction, PolicyId,
        Reached, Verdict,
    },
    policy::{EntityKind, RuleSet, action_uid, flow_uid, uid},
};

/// How many judgements one explanation may take, and how long; the rest of it says that it was cut short.
const JUDGEMENTS: u32 = 4_000;
const TIME: Duration = Duration::from_secs(5);
/// How much more readily the system gives a processor to everything else.
const NICE: i32 = 10;
/// The stack of its thread.
const STACK: usize = 16 << 20;

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
    /// Whether the search was cut short: there may be more ways and deployments than are given.
    pub cut_short: bool,
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
    /// Computed on a thread of its own, two of them at a time, one for each app, and for as long as this is
    /// waited for.
    ///
    /// # Errors
    /// When it names something unknown, what has left cannot be read, or others are explained to.
    pub async fn explain(
        &self,
        judge: &Arc<Judge>,
        caller: &Caller,
        request: &CallRequest,
    ) -> Result<Explanation, GateError> {
        let turn = self.turn_to_explain(&caller.app).await?;
        let now = instant(&*self.clock);
        let tally = self.tally(judge, caller, std::slice::from_ref(request), now).await?;
        let asked = tally.ask(judge, caller, request);
        let (app, request) = (caller.app.clone(), request.clone());
        let (judge, reached) = (judge.clone(), Reached::of(&asked));
        let waiting = Waiting::default();
        let gone = waiting.0.clone();
        let explained = move || {
            let effort = Effort::new(JUDGEMENTS, TIME, gone);
            let explained = judge.explain_within(&app, &request, &reached, &effort);
            drop(turn);
            explained
        };
        let explained = beside(explained).map_err(GateError::NoThread)?.await;
        drop(waiting);
        explained.unwrap_or(Err(GateError::Closed))
    }
}

/// Somebody waits as long as this lives.
#[derive(Debug, Default)]
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Computes on a thread of its own, behind everything else: requests, name lookups and files of keys do not
/// wait behind it.
fn beside<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("explain".to_owned()).stack_size(STACK).spawn(move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "an explanation could not be put behind");
        }
        // What it holds is given back also when a judgement panics.
        if let Ok(computed) = panic::catch_unwind(panic::AssertUnwindSafe(compute)) {
            let _ = tell.send(computed);
        }
    })?;
    Ok(told)
}

impl Judge {
    /// As [`Gate::explain`], however long it takes.
    ///
    /// # Errors
    /// When the call names something unknown.
    pub fn explain(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
    ) -> Result<Explanation, GateError> {
        self.explain_within(app, request, reached, &Effort::unbounded())
    }

    /// The same, as far as `effort` goes.
    ///
    /// # Errors
    /// When the call names something unknown.
    pub fn explain_within(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        effort: &Effort,
    ) -> Result<Explanation, GateError> {
        let judged = self.judge_afresh(app, request, reached).map_err(GateError::Invalid)?;
        let denied = judged.evaluation.decision == Verdict::Deny;
        let candidates = &judged.evaluation.candidates;
        let candidates = if denied { &candidates[..] } else { &[] };
        let considered = self.considered(app, request.action, &judged);
        let allowed_deployments = self.allowed_deployments(app, request, reached, effort);
        let counterfactuals = self.counterfactuals(app, request, reached, candidates, effort);
        let cut_short = effort.is_cut() || counterfactuals.iter().any(|one| one.cut_short);
        let reached = reached.to_vec();
        Ok(Explanation {
            judged,
            reached,
            considered,
            counterfactuals,
            allowed_deployments,
            cut_short,
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
        effort: &Effort,
    ) -> Vec<DeploymentId> {
        let deployments = self.snapshot().organisation.deployments.iter();
        let allowed = deployments.filter(|deployment| {
            let pinned = CallRequest {
                model: None,
                deployment: Some(deployment.id.to_string()),
                ..request.clone()
            };
            if !effort.spend(1) {
                return false;
            }
            let judged = self.judge_afresh(app, &pinned, reached);
            judged.is_ok_and(|judged| judged.evaluation.decision == Verdict::Allow)
        });
        allowed.map(|deployment| deployment.id.clone()).collect()
    }
}
