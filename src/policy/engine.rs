//! Evaluation over the policies that can apply, closed by default: Cedar skips a policy that
//! fails, so a forbid that fails would let the call pass; here any failure denies.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use cedar_policy::{Authorizer, Context, Entities, EntityUid, Policy, Request, Schema};

use super::{
    bundle::Bundle,
    reads::Reads,
    rule::Rule,
    scope::Class,
    slice::{Holding, Judgement, Known, Part, Slice, united},
};
use crate::domain::{Effect, PolicyId};

/// Which policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSet {
    /// Those that allow and deny.
    Rules,
    /// Those that name what an allowed caller must do.
    Duties,
}

/// A bundle over the entities of one snapshot.
#[derive(Debug)]
pub struct Engine {
    bundle: Arc<Bundle>,
    entities: Entities,
    authorizer: Authorizer,
    /// The schema's actions.
    actions: Vec<Action>,
    known_actions: HashMap<EntityUid, Known>,
    known: HashMap<EntityUid, Known>,
    classes: Vec<Class>,
    slices: RwLock<Slices>,
    by_id: HashMap<PolicyId, Arc<Rule>>,
}

/// An action, and the groups that it lies in.
#[derive(Debug)]
struct Action {
    uid: EntityUid,
    groups: Vec<EntityUid>,
}

/// The numbers of principal, action and resource, or of their classes.
type Numbers = [u32; 3];

/// What is left of a set of policies for some requests.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rest {
    set: RuleSet,
    /// The policies that hold.
    holding: Vec<usize>,
    /// Those that the context decides; none where every policy is asked, scope and all.
    open: Option<Vec<usize>>,
}

#[derive(Debug, Default)]
struct Slices {
    /// The policies whose scope matches, by the classes of a request's parts.
    chosen: HashMap<(RuleSet, Numbers), Arc<[usize]>>,
    by_parts: HashMap<(RuleSet, Numbers), Arc<Slice>>,
    /// One slice for each distinct rest, however many parts lead to it.
    by_rest: HashMap<Rest, Arc<Slice>>,
}

impl Engine {
    /// Prepares `bundle` for requests over `entities`.
    #[must_use]
    pub fn new(bundle: Arc<Bundle>, entities: Entities) -> Self {
        let named: BTreeSet<EntityUid> =
            bundle.rules().flat_map(|rule| rule.scope.named()).cloned().collect();
        let mut numbers: HashMap<Class, u32> = HashMap::new();
        let mut classes = Vec::new();
        let mut known = HashMap::new();
        for (entity, number) in entities.iter().zip(0..) {
            let uid = entity.uid();
            let ancestors = entities.ancestors(&uid).into_iter().flatten();
            let class = Class::of(&uid, ancestors, &named);
            let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            let class = *numbers.entry(class.clone()).or_insert_with(|| {
                classes.push(class);
                next
            });
            known.insert(uid, Known { number, class });
        }
        let actions = actions(&bundle.schema);
        let uids = actions.iter().map(|action| action.uid.clone());
        Self {
            known_actions: uids
                .zip(0..)
                .map(|(uid, number)| (uid, Known { number, class: number }))
                .collect(),
            actions,
            authorizer: Authorizer::new(),
            slices: RwLock::default(),
            by_id: bundle.rules().map(|rule| (rule.id.clone(), rule.clone())).collect(),
            bundle,
            entities,
            known,
            classes,
        }
    }

    /// The policy with this `@id`.
    #[must_use]
    pub fn rule(&self, id: &PolicyId) -> Option<&Arc<Rule>> {
        self.by_id.get(id)
    }

    /// Whether any policy could name a duty.
    #[must_use]
    pub fn has_duties(&self) -> bool {
        !self.bundle.duties.is_empty()
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// A principal or a resource.
    #[must_use]
    pub fn part(&self, uid: EntityUid) -> Part {
        Part { known: self.known.get(&uid).copied(), uid }
    }

    /// An action.
    #[must_use]
    pub fn action(&self, uid: EntityUid) -> Part {
        Part { known: self.known_actions.get(&uid).copied(), uid }
    }

    /// What is left to ask of a request of these: principal, action and resource.
    #[must_use]
    pub fn slice(&self, set: RuleSet, parts: [&Part; 3]) -> Arc<Slice> {
        let Some(known) = all_known(parts) else {
            // Of an entity outside the snapshot nothing is known; then every policy is asked.
            return self.slice_of(Rest { set, holding: Vec::new(), open: None });
        };
        let key = (set, known.map(|part| part.number));
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = slices.by_parts.get(&key) {
            return slice.clone();
        }
        drop(slices);
        let chosen = self.choose(set, known.map(|part| part.class));
        let slice = self.slice_of(self.settle(set, &chosen, parts));
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        slices.by_parts.insert(key, slice.clone());
        slice
    }

    /// What the policies of its slice say of this request, in the context that `context` makes:
    /// it is made only where a policy needs it.
    #[must_use]
    pub fn judge(
        &self,
        slice: &Slice,
        parts: [&Part; 3],
        context: impl FnOnce() -> Result<Context, String>,
    ) -> Arc<Judgement> {
        if let Some(settled) = slice.settled() {
            return settled.clone();
        }
        let judged = context().and_then(|context| {
            let request = request(parts, context)?;
            let open = self.authorizer.is_authorized(&request, slice.open(), &self.entities);
            Ok(slice.judgement(&open))
        });
        Arc::new(judged.unwrap_or_else(|error| Judgement {
            allowed: false,
            policies: Vec::new(),
            failures: vec![(super::EVALUATION_ERROR.into(), error)],
        }))
    }

    /// The policies whose scope matches the request: the ones considered.
    #[must_use]
    pub fn considered(
        &self,
        set: RuleSet,
        principal: &EntityUid,
        action: &EntityUid,
        resource: &EntityUid,
    ) -> Vec<PolicyId> {
        let [principal, resource] = [principal, resource].map(|uid| self.part(uid.clone()));
        let rules = self.rules(set);
        let mut ids: Vec<PolicyId> =
            match all_known([&principal, &self.action(action.clone()), &resource]) {
                Some(known) => {
                    let chosen = self.choose(set, known.map(|part| part.class));
                    let chosen = chosen.iter().filter_map(|index| rules.get(*index));
                    chosen.map(|rule| rule.id.clone()).collect()
                }
                None => rules.iter().map(|rule| rule.id.clone()).collect(),
            };
        ids.sort();
        ids
    }

    /// The policies whose scope matches these classes.
    fn choose(&self, set: RuleSet, classes: Numbers) -> Arc<[usize]> {
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = slices.chosen.get(&(set, classes)) {
            return chosen.clone();
        }
        drop(slices);
        let [principal, action, resource] =
            classes.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let matches = |rule: &Rule| {
            let action = self.actions.get(action);
            let sides = self.classes.get(principal).zip(self.classes.get(resource));
            action.is_some_and(|action| rule.scope.matches_action(&action.uid, &action.groups))
                && sides
                    .is_some_and(|(principal, resource)| rule.scope.matches(principal, resource))
        };
        let rules = self.rules(set).iter().enumerate();
        let chosen: Arc<[usize]> =
            rules.filter(|(_, rule)| matches(rule)).map(|(index, _)| index).collect();
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        slices.chosen.insert((set, classes), chosen.clone());
        chosen
    }

    /// Asks what looks at no context, once for all requests of these parts: policies, and gates
    /// of others. A policy that fails stays open, to fail in each request.
    fn settle(&self, set: RuleSet, chosen: &[usize], parts: [&Part; 3]) -> Rest {
        let (mut holding, mut open) = (Vec::new(), Vec::new());
        for &index in chosen {
            let Some(rule) = self.rules(set).get(index) else { continue };
            let holds = if rule.reads.context {
                let mut gates = rule.gates.iter().map(|gate| self.holds(gate, parts));
                gates.find(|holds| *holds != Some(true)).flatten()
            } else {
                self.holds(&rule.conditions, parts)
            };
            match holds {
                Some(true) => holding.push(index),
                Some(false) => {}
                None => open.push(index),
            }
        }
        Rest { set, holding, open: Some(open) }
    }

    /// Whether a policy that looks at no context holds; none where it fails.
    fn holds(&self, policy: &Policy, parts: [&Part; 3]) -> Option<bool> {
        let request = request(parts, Context::empty()).ok()?;
        let alone = united(std::iter::once(policy));
        let response = self.authorizer.is_authorized(&request, &alone, &self.entities);
        let failed = response.diagnostics().errors().next().is_some();
        (!failed).then(|| response.diagnostics().reason().next().is_some())
    }

    fn slice_of(&self, rest: Rest) -> Arc<Slice> {
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        let number = slices.by_rest.len();
        let slice = slices.by_rest.entry(rest);
        slice.or_insert_with_key(|rest| Arc::new(self.build(number, rest))).clone()
    }

    fn build(&self, number: usize, Rest { set, holding, open }: &Rest) -> Slice {
        let rules = self.rules(*set);
        let chosen = |chosen: &[usize]| -> Vec<&Arc<Rule>> {
            chosen.iter().filter_map(|index| rules.get(*index)).collect()
        };
        let mut held = Holding::default();
        for rule in chosen(holding) {
            let same_effect = match rule.effect {
                Effect::Permit => &mut held.permits,
                Effect::Forbid => &mut held.forbids,
            };
            same_effect.push(rule.id.clone());
        }
        let Some(open) = open else {
            let open = united(rules.iter().map(|rule| &rule.policy));
            return Slice::new(number, held, open, Reads::EVERYTHING);
        };
        // By their conditions alone: their scopes have been matched already.
        let open = chosen(open);
        let reads = Reads::of_all(open.iter().map(|rule| rule.reads));
        Slice::new(number, held, united(open.into_iter().map(|rule| &rule.conditions)), reads)
    }

    fn rules(&self, set: RuleSet) -> &[Arc<Rule>] {
        match set {
            RuleSet::Rules => &self.bundle.rules,
            RuleSet::Duties => &self.bundle.duties,
        }
    }
}

fn all_known(parts: [&Part; 3]) -> Option<[Known; 3]> {
    let [principal, action, resource] = parts.map(|part| part.known);
    Some([principal?, action?, resource?])
}

fn request(parts: [&Part; 3], context: Context) -> Result<Request, String> {
    let [principal, action, resource] = parts.map(|part| part.uid.clone());
    Request::new(principal, action, resource, context, None).map_err(|error| error.to_string())
}

/// Every action of the schema.
fn actions(schema: &Schema) -> Vec<Action> {
    let Ok(actions) = schema.action_entities() else { return Vec::new() };
    let groups = |uid: &EntityUid| actions.ancestors(uid).into_iter().flatten().cloned().collect();
    actions
        .iter()
        .map(|action| Action { uid: action.uid(), groups: groups(&action.uid()) })
        .collect()
}
