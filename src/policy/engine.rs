//! Evaluation over the policies that can apply, closed by default: Cedar skips a policy that
//! fails, so a forbid that fails would let the call pass; here any failure denies.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, Policy, PolicySet, Request, Response,
    Schema,
};

use super::{bundle::Bundle, rule::Rule, scope::Class};
use crate::domain::PolicyId;

/// Which policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSet {
    /// Those that allow and deny.
    Rules,
    /// Those that name what an allowed caller must do.
    Duties,
}

/// What the policies say of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether a permit matched, no forbid did, and nothing failed.
    pub allowed: bool,
    /// The permits of an allow, the forbids of a deny; sorted; empty when no permit matched.
    pub policies: Vec<PolicyId>,
    /// Policies that failed, with what Cedar said.
    pub failures: Vec<(PolicyId, String)>,
}

type SliceKey = (RuleSet, EntityUid, u32, u32);

/// A bundle over the entities of one snapshot.
#[derive(Debug)]
pub struct Engine {
    bundle: Arc<Bundle>,
    entities: Entities,
    authorizer: Authorizer,
    /// The groups that each action lies in.
    action_groups: HashMap<EntityUid, Vec<EntityUid>>,
    class_of: HashMap<EntityUid, u32>,
    classes: Vec<Class>,
    slices: RwLock<Slices>,
    by_id: HashMap<PolicyId, Arc<Rule>>,
}

#[derive(Debug, Default)]
struct Slices {
    by_key: HashMap<SliceKey, Arc<PolicySet>>,
    /// One set for each distinct choice of policies, however many keys lead to it.
    by_choice: HashMap<(RuleSet, Vec<usize>), Arc<PolicySet>>,
}

impl Engine {
    /// Prepares `bundle` for requests over `entities`.
    #[must_use]
    pub fn new(bundle: Arc<Bundle>, entities: Entities) -> Self {
        let named: BTreeSet<EntityUid> =
            bundle.rules().flat_map(|rule| rule.scope.named()).cloned().collect();
        let mut numbers: HashMap<Class, u32> = HashMap::new();
        let mut classes = Vec::new();
        let mut class_of = HashMap::new();
        for entity in entities.iter() {
            let uid = entity.uid();
            let ancestors = entities.ancestors(&uid).into_iter().flatten();
            let class = Class::of(&uid, ancestors, &named);
            let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(class.clone()).or_insert_with(|| {
                classes.push(class);
                next
            });
            class_of.insert(uid, number);
        }
        Self {
            action_groups: action_groups(&bundle.schema),
            authorizer: Authorizer::new(),
            slices: RwLock::default(),
            by_id: bundle.rules().map(|rule| (rule.id.clone(), rule.clone())).collect(),
            bundle,
            entities,
            class_of,
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

    /// What the policies that can apply say of this request.
    #[must_use]
    pub fn judge(
        &self,
        set: RuleSet,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: Context,
    ) -> Judgement {
        let slice = self.slice(set, &principal, &action, &resource);
        match Request::new(principal, action, resource, context, None) {
            Ok(request) => {
                judgement(&self.authorizer.is_authorized(&request, &slice, &self.entities))
            }
            Err(error) => Judgement {
                allowed: false,
                policies: Vec::new(),
                failures: vec![(super::EVALUATION_ERROR.into(), error.to_string())],
            },
        }
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
        let slice = self.slice(set, principal, action, resource);
        let mut ids: Vec<PolicyId> =
            slice.policies().map(|policy| AsRef::<str>::as_ref(policy.id()).into()).collect();
        ids.sort();
        ids
    }

    fn slice(
        &self,
        set: RuleSet,
        principal: &EntityUid,
        action: &EntityUid,
        resource: &EntityUid,
    ) -> Arc<PolicySet> {
        let (Some(&principal), Some(&resource)) =
            (self.class_of.get(principal), self.class_of.get(resource))
        else {
            // Only an entity outside the snapshot has no class; then every policy is asked.
            return Arc::new(united(self.rules(set).iter().map(|rule| &rule.policy)));
        };
        let key = (set, action.clone(), principal, resource);
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = slices.by_key.get(&key) {
            return slice.clone();
        }
        drop(slices);
        let choice = self.choose(set, action, principal, resource);
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        let slice = slices
            .by_choice
            .entry((set, choice))
            .or_insert_with_key(|(_, choice)| Arc::new(self.policy_set(set, choice)))
            .clone();
        slices.by_key.insert(key, slice.clone());
        slice
    }

    fn choose(
        &self,
        set: RuleSet,
        action: &EntityUid,
        principal: u32,
        resource: u32,
    ) -> Vec<usize> {
        let groups = self.action_groups.get(action).map_or(&[][..], Vec::as_slice);
        let class = |number: u32| usize::try_from(number).ok().and_then(|n| self.classes.get(n));
        let (Some(principal), Some(resource)) = (class(principal), class(resource)) else {
            return (0..self.rules(set).len()).collect();
        };
        let matches = |rule: &Rule| {
            rule.scope.matches_action(action, groups) && rule.scope.matches(principal, resource)
        };
        let rules = self.rules(set).iter().enumerate();
        rules.filter(|(_, rule)| matches(rule)).map(|(index, _)| index).collect()
    }

    fn rules(&self, set: RuleSet) -> &[Arc<Rule>] {
        match set {
            RuleSet::Rules => &self.bundle.rules,
            RuleSet::Duties => &self.bundle.duties,
        }
    }

    /// The policies of a slice, by their conditions alone: their scopes have been matched already.
    fn policy_set(&self, set: RuleSet, choice: &[usize]) -> PolicySet {
        let rules = choice.iter().filter_map(|index| self.rules(set).get(*index));
        united(rules.map(|rule| &rule.conditions))
    }
}

fn united<'p>(policies: impl Iterator<Item = &'p Policy>) -> PolicySet {
    let mut set = PolicySet::new();
    for policy in policies {
        // Ids are unique in a bundle: the set takes each.
        let _ = set.add(policy.clone());
    }
    set
}

fn judgement(response: &Response) -> Judgement {
    let diagnostics = response.diagnostics();
    let failures: Vec<_> = diagnostics
        .errors()
        .map(|error| {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(failure) = error;
            (AsRef::<str>::as_ref(failure.policy_id()).into(), failure.inner().to_string())
        })
        .collect();
    let mut policies: Vec<PolicyId> =
        diagnostics.reason().map(|id| AsRef::<str>::as_ref(id).into()).collect();
    policies.sort();
    Judgement {
        allowed: response.decision() == Decision::Allow && failures.is_empty(),
        policies,
        failures,
    }
}

/// Every action of the schema with the groups that it lies in.
fn action_groups(schema: &Schema) -> HashMap<EntityUid, Vec<EntityUid>> {
    let Ok(actions) = schema.action_entities() else { return HashMap::new() };
    let groups = |uid: &EntityUid| actions.ancestors(uid).into_iter().flatten().cloned().collect();
    actions.iter().map(|action| (action.uid(), groups(&action.uid()))).collect()
}
