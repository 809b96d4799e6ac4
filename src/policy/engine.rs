//! Evaluation over the policies that can apply, closed by default: Cedar skips a policy that
//! fails, so a forbid that fails would let the call pass; here any failure denies.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, Policy, PolicySet, Request, Response,
    Schema,
};

use super::{bundle::Bundle, reads::Reads, rule::Rule, scope::Class};
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

/// One part of a request: an entity, and the number of its class. Requests whose parts have the
/// same numbers are asked of the same policies.
#[derive(Clone, Debug)]
pub struct Part {
    uid: EntityUid,
    /// None outside the snapshot.
    class: Option<u32>,
}

/// The policies that can apply to a request.
#[derive(Debug)]
pub struct Slice {
    /// No two slices of an engine have the same.
    pub number: usize,
    /// What these policies look at.
    pub reads: Reads,
    policies: PolicySet,
    /// The answer to every request, where the policies look at nothing.
    always: OnceLock<Arc<Judgement>>,
}

/// A bundle over the entities of one snapshot.
#[derive(Debug)]
pub struct Engine {
    bundle: Arc<Bundle>,
    entities: Entities,
    authorizer: Authorizer,
    /// The schema's actions.
    actions: Vec<Action>,
    action_class: HashMap<EntityUid, u32>,
    class_of: HashMap<EntityUid, u32>,
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

/// The classes of principal, action and resource.
type Classes = [u32; 3];
/// Some policies of a set, without their scopes; or all, with them.
type Choice = (RuleSet, Option<Vec<usize>>);

#[derive(Debug, Default)]
struct Slices {
    by_classes: HashMap<(RuleSet, Classes), Arc<Slice>>,
    /// One slice for each distinct choice of policies, however many classes lead to it.
    by_choice: HashMap<Choice, Arc<Slice>>,
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
        let actions = actions(&bundle.schema);
        let uids = actions.iter().map(|action| action.uid.clone());
        Self {
            action_class: uids.zip(0..).collect(),
            actions,
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

    /// A principal or a resource.
    #[must_use]
    pub fn part(&self, uid: EntityUid) -> Part {
        Part { class: self.class_of.get(&uid).copied(), uid }
    }

    /// An action.
    #[must_use]
    pub fn action(&self, uid: EntityUid) -> Part {
        Part { class: self.action_class.get(&uid).copied(), uid }
    }

    /// The policies that can apply to a request of these: principal, action and resource.
    #[must_use]
    pub fn slice(&self, set: RuleSet, parts: [&Part; 3]) -> Arc<Slice> {
        let [Some(principal), Some(action), Some(resource)] = parts.map(|part| part.class) else {
            // Only an entity outside the snapshot has no class; then every policy is asked.
            return self.slice_of((set, None));
        };
        let classes = [principal, action, resource];
        let slices = self.slices.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slice) = slices.by_classes.get(&(set, classes)) {
            return slice.clone();
        }
        drop(slices);
        let slice = self.slice_of((set, self.choose(set, classes)));
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        slices.by_classes.insert((set, classes), slice.clone());
        slice
    }

    fn slice_of(&self, choice: Choice) -> Arc<Slice> {
        let mut slices = self.slices.write().unwrap_or_else(PoisonError::into_inner);
        let number = slices.by_choice.len();
        let slice = slices.by_choice.entry(choice);
        slice.or_insert_with_key(|choice| Arc::new(self.unite(number, choice))).clone()
    }

    /// What the policies of its slice say of this request, in the context that `context` makes:
    /// no context is made for policies that look at nothing.
    #[must_use]
    pub fn judge(
        &self,
        slice: &Slice,
        parts: [&Part; 3],
        context: impl FnOnce() -> Result<Context, String>,
    ) -> Arc<Judgement> {
        let ask = |context| {
            let [principal, action, resource] = parts.map(|part| part.uid.clone());
            let request = Request::new(principal, action, resource, context, None)
                .map_err(|error| error.to_string())?;
            let response = self.authorizer.is_authorized(&request, &slice.policies, &self.entities);
            Ok(judgement(&response))
        };
        let failed = |error| Judgement {
            allowed: false,
            policies: Vec::new(),
            failures: vec![(super::EVALUATION_ERROR.into(), error)],
        };
        if slice.reads.anything {
            return Arc::new(context().and_then(ask).unwrap_or_else(failed));
        }
        let always = || Arc::new(ask(Context::empty()).unwrap_or_else(failed));
        slice.always.get_or_init(always).clone()
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
        let slice = self.slice(set, [&principal, &self.action(action.clone()), &resource]);
        let mut ids: Vec<PolicyId> = slice
            .policies
            .policies()
            .map(|policy| AsRef::<str>::as_ref(policy.id()).into())
            .collect();
        ids.sort();
        ids
    }

    /// The policies that can apply to these classes; none where every policy has to be asked.
    fn choose(&self, set: RuleSet, [principal, action, resource]: Classes) -> Option<Vec<usize>> {
        let class = |number: u32| self.classes.get(usize::try_from(number).ok()?);
        let (principal, resource) = (class(principal)?, class(resource)?);
        let action = self.actions.get(usize::try_from(action).ok()?)?;
        let matches = |rule: &Rule| {
            rule.scope.matches_action(&action.uid, &action.groups)
                && rule.scope.matches(principal, resource)
        };
        let rules = self.rules(set).iter().enumerate();
        Some(rules.filter(|(_, rule)| matches(rule)).map(|(index, _)| index).collect())
    }

    fn rules(&self, set: RuleSet) -> &[Arc<Rule>] {
        match set {
            RuleSet::Rules => &self.bundle.rules,
            RuleSet::Duties => &self.bundle.duties,
        }
    }

    fn unite(&self, number: usize, (set, choice): &Choice) -> Slice {
        let rules = self.rules(*set);
        let (policies, reads) = match choice {
            // By their conditions alone: their scopes have been matched already.
            Some(choice) => {
                let chosen = || choice.iter().filter_map(|index| rules.get(*index));
                let reads = Reads::of_all(chosen().map(|rule| rule.reads));
                (united(chosen().map(|rule| &rule.conditions)), reads)
            }
            None => (united(rules.iter().map(|rule| &rule.policy)), Reads::EVERYTHING),
        };
        Slice { number, reads, policies, always: OnceLock::new() }
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

/// Every action of the schema.
fn actions(schema: &Schema) -> Vec<Action> {
    let Ok(actions) = schema.action_entities() else { return Vec::new() };
    let groups = |uid: &EntityUid| actions.ancestors(uid).into_iter().flatten().cloned().collect();
    actions
        .iter()
        .map(|action| Action { uid: action.uid(), groups: groups(&action.uid()) })
        .collect()
}
