//! Judging: one snapshot, one call, one evaluation. No clock, no ledger: the same call and the
//! same snapshot always give the same evaluation.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use cedar_policy::Context;

use super::{Effort, grounds::Grounds, memo::Memo};
use crate::{
    domain::{
        AppId, Call, CallRequest, Data, DeploymentId, Effect, Evaluation, FieldFault, Flow,
        FlowAction, InstrumentInForce, JurisdictionCode, Placement, PolicyId, Reached, TenantId,
        Verdict,
    },
    facts::{Deployment, Resolved, Snapshot, resolve},
    policy::{
        DEFAULT_DENY, EVALUATION_ERROR, EntityKind, FlowContext, Judgement, Part, RuleSet,
        UNDECLARED_DATA, UseContext, action_uid, flow_context, flow_uid, uid, use_context,
    },
};

/// A snapshot that answers, and remembers what it decided ([`Judge::decide`]).
#[derive(Debug)]
pub struct Judge {
    snapshot: Arc<Snapshot>,
    grounds: Grounds,
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
        Self { snapshot, grounds: Grounds::default(), memo: Memo::default() }
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the policies say of `request`, made by `app`, which reaches these thresholds, from
    /// nothing that is remembered.
    ///
    /// # Errors
    /// Each field that names something unknown.
    pub fn judge_afresh(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
    ) -> Result<Judged, Vec<FieldFault>> {
        self.judge_supposing(app, request, reached, &[])
    }

    /// The same, with the route to `preferred` where the call may go there.
    ///
    /// # Errors
    /// Each field that names something unknown.
    pub(super) fn judge_preferring(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        preferred: Option<&DeploymentId>,
    ) -> Result<Judged, Vec<FieldFault>> {
        self.judge_with(app, request, reached, &[], preferred)
    }

    /// The same, if instruments of these kinds were in force too.
    ///
    /// # Errors
    /// Each field that names something unknown.
    pub(super) fn judge_supposing(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        instruments: &[String],
    ) -> Result<Judged, Vec<FieldFault>> {
        self.judge_with(app, request, reached, instruments, None)
    }

    fn judge_with(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        supposed: &[String],
        preferred: Option<&DeploymentId>,
    ) -> Result<Judged, Vec<FieldFault>> {
        let Resolved { call, tenant, candidates } = resolve(&self.snapshot, app, request)?;
        let mut bench = Bench::new(self, &call, app, &tenant, reached);
        bench.supposed = supposed;
        bench.preferred = preferred;
        let found: Vec<_> =
            candidates.into_iter().map(|candidate| bench.candidate(candidate)).collect();
        let evaluation = bench.conclude(found);
        Ok(Judged { call, tenant, evaluation })
    }
}

/// For how many origins of a call it is found where their data may go.
const MOST_ORIGINS: usize = 8;

/// Where data of an origin may go, by how it gets there.
pub(super) type Reachable = BTreeMap<(JurisdictionCode, FlowAction), BTreeSet<JurisdictionCode>>;

impl Judge {
    /// Every jurisdiction that a flow of `request` to `deployment` could reach lawfully, if it were
    /// placed there; for each origin, and each way in which the deployment reaches some place. An origin and
    /// way for which `effort` does not suffice is left out.
    pub(super) fn reachable(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        deployment: &Deployment,
        effort: &Effort,
    ) -> Reachable {
        let Ok(Resolved { call, tenant, .. }) = resolve(&self.snapshot, app, request) else {
            return Reachable::new();
        };
        let mut bench = Bench::new(self, &call, app, &tenant, reached);
        let export = bench.export(deployment);
        let organisation = &self.snapshot.organisation;
        let placement = organisation.placement(deployment, &call.location, &call.passes);
        let mut reachable = Reachable::new();
        for (action, part) in &bench.flow_actions {
            if placement.of(*action).is_empty() {
                continue;
            }
            for (from, principal) in bench.origins.iter().take(MOST_ORIGINS) {
                // All places of the world are about as many questions as one judgement has.
                if !effort.spend(1) {
                    return reachable;
                }
                let may = |to: &&JurisdictionCode| {
                    let resource = place(&self.snapshot, to);
                    let flow = Flow { action: *action, from: (*from).clone(), to: (*to).clone() };
                    let parts = [principal, part, &resource];
                    bench.ask_flow(RuleSet::Rules, &export, &flow, parts).allowed
                };
                let places = self.snapshot.facts.jurisdictions.keys().filter(may).cloned();
                reachable.insert(((*from).clone(), *action), places.collect());
            }
        }
        reachable
    }
}

/// One request to the policies, and what they said.
pub(super) struct Heard {
    pub(super) flow: Option<Flow>,
    pub(super) judgement: Arc<Judgement>,
}

/// What was found of one deployment.
pub(super) struct Found<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) placement: Placement,
    pub(super) heard: Vec<Heard>,
    pub(super) duties: BTreeSet<PolicyId>,
}

impl Found<'_> {
    pub(super) fn verdict(&self) -> Verdict {
        if self.heard.iter().all(|heard| heard.judgement.allowed) {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }

    /// The policies that decided, each with its effect and the flows for which it did.
    pub(super) fn deciding(&self) -> Vec<(PolicyId, Effect, Option<Flow>)> {
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

/// The context of flows from origins that reach these thresholds.
type ContextOf<'a> = (Option<&'a Reached>, Result<Context, String>);

/// What all flows to one deployment have in common.
struct Export<'a> {
    deployment: &'a Deployment,
    /// The kinds of instrument in force for it.
    instruments: Vec<String>,
    /// Its place among the exports of the call.
    number: usize,
    /// The first export of the call with the same instruments.
    like: usize,
    /// One for each origin that reaches a threshold, and one for all others.
    contexts: RefCell<Vec<ContextOf<'a>>>,
}

/// All that the policies of a slice look at in a flow request of one call: they answer equal
/// questions equally.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    slice: usize,
    from: JurisdictionCode,
    action: Option<FlowAction>,
    to: JurisdictionCode,
    export: usize,
}

/// One call before one snapshot.
pub(super) struct Bench<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) grounds: &'a Grounds,
    pub(super) call: &'a Call,
    pub(super) tenant: &'a TenantId,
    app: Part,
    action: Part,
    classes: Vec<&'a str>,
    /// Kinds of instrument that are in force in thought only.
    supposed: &'a [String],
    /// Where the call goes, if it may.
    pub(super) preferred: Option<&'a DeploymentId>,
    reached: &'a [Reached],
    origins: Vec<(&'a JurisdictionCode, Part)>,
    flow_actions: [(FlowAction, Part); 5],
    use_context: OnceCell<Result<Context, String>>,
    /// The kinds of instrument in force for each export so far.
    exports: Vec<Vec<String>>,
    answers: RefCell<HashMap<Question, Arc<Judgement>>>,
    pub(super) instruments: BTreeSet<InstrumentInForce>,
}

impl<'a> Bench<'a> {
    fn new(
        judge: &'a Judge,
        call: &'a Call,
        app: &'a AppId,
        tenant: &'a TenantId,
        reached: &'a [Reached],
    ) -> Self {
        let snapshot = &*judge.snapshot;
        let engine = &snapshot.engine;
        let origins = call.data.iter().flat_map(Data::origins);
        Self {
            snapshot,
            grounds: &judge.grounds,
            call,
            tenant,
            app: engine.part(uid(EntityKind::App, app.as_str())),
            action: engine.action(action_uid(call.action)),
            classes: snapshot.classes(call.data.as_ref()),
            supposed: &[],
            preferred: None,
            reached,
            origins: origins.map(|code| (code, place(snapshot, code))).collect(),
            flow_actions: FlowAction::ALL.map(|action| (action, engine.action(flow_uid(action)))),
            use_context: OnceCell::new(),
            exports: Vec::new(),
            answers: RefCell::default(),
            instruments: BTreeSet::new(),
        }
    }

    fn candidate(&mut self, deployment: &'a Deployment) -> Found<'a> {
        let (organisation, call) = (&self.snapshot.organisation, self.call);
        let placement = organisation.placement(deployment, &call.location, &call.passes);
        let export = self.export(deployment);
        let mut heard = self.ask(RuleSet::Rules, &export, &placement);
        self.refuse_undeclared(&mut heard);
        let mut found = Found { deployment, placement, heard, duties: BTreeSet::new() };
        if found.verdict() == Verdict::Allow && self.snapshot.engine.has_duties() {
            let duties = self.ask(RuleSet::Duties, &export, &found.placement);
            // A duty that cannot be told is a policy that failed: the candidate is denied.
            let (failed, told): (Vec<_>, Vec<_>) =
                duties.into_iter().partition(|heard| !heard.judgement.failures.is_empty());
            let told = told.iter().flat_map(|heard| &heard.judgement.policies);
            found.duties = told.cloned().collect();
            found.heard.extend(failed);
        }
        found
    }

    /// Too little said of the data is a denial, whatever the bundle says.
    fn refuse_undeclared(&self, heard: &mut [Heard]) {
        let declared = self.call.data.as_ref().is_some_and(Data::is_classified);
        if let Some(usage) = heard.first_mut().filter(|usage| !declared && usage.judgement.allowed)
        {
            let policies = vec![UNDECLARED_DATA.into()];
            usage.judgement =
                Arc::new(Judgement { allowed: false, policies, failures: Vec::new() });
        }
    }

    /// One use request, and one flow request for each distinct origin, action and destination.
    fn ask(&self, set: RuleSet, export: &Export<'a>, placement: &Placement) -> Vec<Heard> {
        let mut destinations = Vec::new();
        for (action, part) in &self.flow_actions {
            let places = placement.of(*action).iter();
            destinations.extend(places.map(|to| (*action, part, to, place(self.snapshot, to))));
        }
        let judgement = self.ask_use(set, export.deployment);
        let mut heard = vec![Heard { flow: None, judgement }];
        for (from, principal) in &self.origins {
            for (action, part, to, resource) in &destinations {
                let flow = Flow { action: *action, from: (*from).clone(), to: (*to).clone() };
                let judgement = self.ask_flow(set, export, &flow, [principal, part, resource]);
                heard.push(Heard { flow: Some(flow), judgement });
            }
        }
        heard
    }

    fn ask_use(&self, set: RuleSet, deployment: &Deployment) -> Arc<Judgement> {
        let engine = &self.snapshot.engine;
        let resource = engine.part(uid(EntityKind::Deployment, deployment.id.as_str()));
        let parts = [&self.app, &self.action, &resource];
        let context = || self.use_context.get_or_init(|| self.use_context()).clone();
        engine.judge(&engine.slice(set, parts), parts, context)
    }

    /// Asks what was not asked already.
    fn ask_flow(
        &self,
        set: RuleSet,
        export: &Export<'a>,
        flow: &Flow,
        parts: [&Part; 3],
    ) -> Arc<Judgement> {
        let engine = &self.snapshot.engine;
        let slice = engine.slice(set, parts);
        let judge = || {
            let context = || self.flow_context(export, &flow.from);
            engine.judge(&slice, parts, context)
        };
        if slice.settled().is_some() {
            return judge();
        }
        let reads = slice.reads();
        let question = Question {
            slice: slice.number(),
            from: flow.from.clone(),
            action: reads.action.then_some(flow.action),
            to: flow.to.clone(),
            export: if reads.deployment { export.number } else { export.like },
        };
        self.answers.borrow_mut().entry(question).or_insert_with(judge).clone()
    }

    fn use_context(&self) -> Result<Context, String> {
        use_context(&UseContext {
            data: self.call.data.as_ref(),
            classes: &self.classes,
            purpose: self.call.purpose.as_deref(),
            audience: &self.call.audience,
            audience_zones: &self.snapshot.facts.zones_of(&self.call.audience),
        })
        .map_err(|error| error.to_string())
    }

    fn flow_context(
        &self,
        export: &Export<'a>,
        from: &JurisdictionCode,
    ) -> Result<Context, String> {
        let reached = self.reached.iter().find(|reached| reached.from == *from);
        let mut contexts = export.contexts.borrow_mut();
        if let Some((_, context)) = contexts.iter().find(|(known, _)| *known == reached) {
            return context.clone();
        }
        let thresholds = reached.map(|reached| &reached.thresholds[..]).unwrap_or_default();
        let context = flow_context(&FlowContext {
            data: self.call.data.as_ref(),
            classes: &self.classes,
            purpose: self.call.purpose.as_deref(),
            instruments: &export.instruments,
            reached: thresholds,
            volume: &self.snapshot.volume(thresholds),
            tenant: self.tenant,
            deployment: &export.deployment.id,
        })
        .map_err(|error| error.to_string());
        contexts.push((reached, context.clone()));
        context
    }

    fn export(&mut self, deployment: &'a Deployment) -> Export<'a> {
        let mut instruments = self.supposed.to_vec();
        for row in self.snapshot.instruments(self.tenant, deployment) {
            let (id, kind) = (row.id.clone(), row.kind.clone());
            instruments.push(kind.clone());
            self.instruments.insert(InstrumentInForce { id, kind });
        }
        let number = self.exports.len();
        self.exports.push(instruments.clone());
        let like = self.exports.iter().position(|known| *known == instruments);
        let like = like.unwrap_or(number);
        Export { deployment, instruments, number, like, contexts: RefCell::default() }
    }
}

/// A jurisdiction, as a part of a request.
fn place(snapshot: &Snapshot, code: &JurisdictionCode) -> Part {
    snapshot.engine.part(uid(EntityKind::Jurisdiction, code.as_str()))
}
