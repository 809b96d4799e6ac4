//! What would make a denied call pass, computed: what the denying policies name is changed in thought,
//! and the whole call is judged again. Nothing here is written by hand for a law.
//!
//! The search is small, because each policy is lifted by itself, by at most three changes; what lifts
//! each is put together and judged. It is exact in what it says: every way that it gives was judged.

mod change;
mod effort;
mod suppose;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

pub use change::Change;
pub use effort::Effort;
use suppose::Suppose;

use super::{Judge, judge::Reachable};
use crate::{
    domain::{
        Action, AppId, CallRequest, Candidate, DeploymentId, FlowAction, JurisdictionCode,
        PolicyId, Reached, Verdict,
    },
    facts::{Deployment, Snapshot, TermKind},
    policy::{DEFAULT_DENY, Rule, UNDECLARED_DATA},
};

/// How many changes are tried together for one policy.
const MOST_CHANGES: usize = 3;
/// How often what was hidden behind lifted policies is lifted too.
const MOST_ROUNDS: usize = 3;
/// For how many deployments it is said.
const MOST_DEPLOYMENTS: usize = 8;
/// How many ways are given for a deployment.
const MOST_WAYS: usize = 4;
/// How many ways of lifting single policies are put together.
const MOST_TRIED: usize = 64;

/// How a call could go to a deployment to which it may not go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counterfactual {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What would have to be otherwise: each of these by itself is enough. Empty where nothing was
    /// found.
    pub ways: Vec<Way>,
    /// Where data of an origin may go, for what keeps it from this deployment.
    pub destinations: Vec<Destinations>,
    /// Whether the search was cut short: there may be more ways and destinations than are given. Absent
    /// when it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub cut_short: bool,
}

/// Changes that together make the call pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Way {
    /// What would have to be otherwise.
    pub changes: Vec<Change>,
    /// The same in words, in the same order.
    pub words: Vec<String>,
    /// The policies that it lifts, each with what it implements.
    pub lifts: Vec<Lifted>,
}

/// A policy that would no longer deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Lifted {
    /// Its `@id`.
    pub policy: PolicyId,
    /// The law, licence or rule that it implements.
    pub citation: String,
}

/// Where data of one origin may go, with all else as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Destinations {
    /// The jurisdiction whose law protects the data.
    pub from: JurisdictionCode,
    /// How it gets there.
    pub action: FlowAction,
    /// Zones and adequacy findings, every member of which it may reach.
    pub groups: Vec<String>,
    /// The jurisdictions beside these, unless they are more than half of the world.
    pub jurisdictions: Vec<JurisdictionCode>,
    /// The zones that it may not reach, where it may go almost anywhere.
    pub except: Vec<String>,
}

impl Judge {
    /// What would make `request` pass at each of `candidates` that is denied, in their order; as far as
    /// `effort` goes.
    #[must_use]
    pub fn counterfactuals(
        &self,
        app: &AppId,
        request: &CallRequest,
        reached: &[Reached],
        candidates: &[Candidate],
        effort: &Effort,
    ) -> Vec<Counterfactual> {
        let denied = candidates.iter().filter(|candidate| candidate.decision == Verdict::Deny);
        let of = |candidate: &Candidate| {
            let search = Search::new(self, app, request, reached, &candidate.deployment, effort);
            Counterfactual {
                deployment: candidate.deployment.clone(),
                ways: search.ways(candidate, request),
                destinations: search.destinations(candidate),
                cut_short: search.is_cut(),
            }
        };
        denied.take(MOST_DEPLOYMENTS).map(of).collect()
    }
}

struct Search<'a> {
    snapshot: &'a Snapshot,
    world: Suppose<'a>,
    judge: &'a Judge,
    reachable: Reachable,
    effort: &'a Effort,
}

impl<'a> Search<'a> {
    fn new(
        judge: &'a Judge,
        app: &'a AppId,
        request: &CallRequest,
        reached: &'a [Reached],
        deployment: &DeploymentId,
        effort: &'a Effort,
    ) -> Self {
        let snapshot = judge.snapshot();
        let world = Suppose::new(judge, app, request, reached, deployment, effort);
        let found = snapshot.deployment(deployment);
        let reachable =
            found.map(|found| judge.reachable(app, &world.request, reached, found, effort));
        Self { snapshot, world, judge, reachable: reachable.unwrap_or_default(), effort }
    }

    fn is_cut(&self) -> bool {
        self.world.is_cut() || self.effort.is_cut()
    }

    /// Changes that suffice, the fewest first. Places are changed only where nothing else helps, and
    /// the call is split only where no place does.
    fn ways(&self, candidate: &Candidate, request: &CallRequest) -> Vec<Way> {
        let mut found = self.lifted(candidate, &BTreeSet::new(), MOST_ROUNDS);
        if found.is_empty() {
            let moves: BTreeSet<Change> = self.moves(candidate).into_iter().collect();
            found = match self.world.candidate(&moves).filter(|_| !moves.is_empty()) {
                Some(there) => self.lifted(&there, &moves, MOST_ROUNDS),
                None => Vec::new(),
            };
        }
        let mut least: Vec<BTreeSet<Change>> =
            found.into_iter().map(|changes| self.least(changes)).collect();
        least.sort_by_key(BTreeSet::len);
        least.dedup();
        if least.is_empty() {
            least.extend(self.split(request).map(|split| BTreeSet::from([split])));
        }
        least.into_iter().take(MOST_WAYS).map(|changes| self.way(candidate, changes)).collect()
    }

    fn way(&self, candidate: &Candidate, changes: BTreeSet<Change>) -> Way {
        let rule = |policy: &PolicyId| self.snapshot.engine.rule(policy);
        let lifts = candidate.policies.iter().map(|policy| Lifted {
            policy: policy.clone(),
            citation: rule(policy).map_or_else(String::new, |rule| rule.citation.clone()),
        });
        Way {
            words: changes.iter().map(ToString::to_string).collect(),
            lifts: lifts.collect(),
            changes: changes.into_iter().collect(),
        }
    }

    /// What makes `candidate` pass, which is as `given` made it: every policy that denies it is lifted,
    /// and then those that only show themselves once these are.
    fn lifted(
        &self,
        candidate: &Candidate,
        given: &BTreeSet<Change>,
        rounds: usize,
    ) -> Vec<BTreeSet<Change>> {
        if candidate.decision == Verdict::Allow {
            return vec![given.clone()];
        }
        if rounds == 0 {
            return Vec::new();
        }
        let mut combined: Vec<BTreeSet<Change>> = vec![given.clone()];
        for policy in &candidate.policies {
            let lifting = self.lifting(policy, given);
            let with = |so_far: &BTreeSet<Change>| -> Vec<BTreeSet<Change>> {
                lifting.iter().map(|changes| so_far | changes).collect()
            };
            combined = combined.iter().flat_map(with).take(MOST_TRIED).collect();
        }
        combined.sort_by_key(BTreeSet::len);
        combined.dedup();
        let mut enough: Vec<BTreeSet<Change>> = Vec::new();
        for changes in combined {
            let known = enough.iter().any(|enough| enough.is_subset(&changes));
            if !known && let Some(after) = self.world.candidate(&changes) {
                enough.extend(self.lifted(&after, &changes, rounds - 1));
            }
            if enough.len() >= MOST_WAYS {
                break;
            }
        }
        enough
    }

    /// `changes` without those that are not needed.
    fn least(&self, mut changes: BTreeSet<Change>) -> BTreeSet<Change> {
        for change in changes.clone() {
            changes.remove(&change);
            let passes = self.world.candidate(&changes);
            if passes.is_none_or(|after| after.decision == Verdict::Deny) {
                changes.insert(change);
            }
        }
        changes
    }

    /// The smallest sets of changes after which `policy` does not deny.
    fn lifting(&self, policy: &PolicyId, given: &BTreeSet<Change>) -> Vec<BTreeSet<Change>> {
        let changes = self.changes(policy);
        let mut found: Vec<BTreeSet<Change>> = Vec::new();
        for size in 1..=MOST_CHANGES {
            for set in subsets(&changes, size) {
                let set: BTreeSet<Change> = set.into_iter().collect();
                let known = found.iter().any(|found| found.is_subset(&set));
                let lifts = |after: Candidate| {
                    after.decision == Verdict::Allow || !after.policies.contains(policy)
                };
                if !known && self.world.candidate(&(given | &set)).is_some_and(lifts) {
                    found.push(set);
                }
            }
        }
        found
    }

    /// Every change of something that `policy` names.
    fn changes(&self, policy: &PolicyId) -> Vec<Change> {
        let Some(deployment) = self.deployment() else { return Vec::new() };
        let action = self.world.request.action;
        let approval = Change::Approval { deployment: deployment.id.clone() };
        match policy.as_str() {
            UNDECLARED_DATA => return vec![Change::Declaration],
            DEFAULT_DENY => {
                let other =
                    (action != Action::Infer).then_some(Change::Action { action: Action::Infer });
                let unapproved = (!deployment.approved).then_some(approval);
                return unapproved.into_iter().chain(other).collect();
            }
            _ => {}
        }
        let Some(rule) = self.snapshot.engine.rule(policy) else { return Vec::new() };
        self.changes_of(rule, deployment)
    }

    fn changes_of(&self, rule: &Rule, deployment: &Deployment) -> Vec<Change> {
        let mentions = &rule.mentions;
        let organisation = &self.snapshot.organisation;
        let Some(app) = organisation.apps.get(self.world.app) else { return Vec::new() };
        let texts = mentions.texts.iter().filter_map(|text| {
            let is = |kind| self.snapshot.facts.knows_term(kind, text);
            let operator = deployment.operator.clone();
            if is(TermKind::Instrument) {
                let exporter = app.tenant.clone();
                Some(Change::Instrument { kind: text.clone(), exporter, recipient: operator })
            } else if is(TermKind::Certification) {
                Some(Change::Certification { certification: text.clone(), operator })
            } else if is(TermKind::Safeguard) {
                let deployment = deployment.id.clone();
                Some(Change::Safeguard { safeguard: text.clone(), deployment })
            } else if is(TermKind::Purpose) {
                Some(Change::Purpose { purpose: text.clone() })
            } else {
                self.fewer(text)
            }
        });
        let looks_at = |name: &str| mentions.attributes.contains(name);
        let mut changes: Vec<Change> = texts.collect();
        if looks_at("sideLicences")
            && let Some(model) = organisation.models.get(&deployment.model)
        {
            let (licence, tenant) = (model.license.clone(), app.tenant.clone());
            changes.push(Change::SideLicence { licence, tenant });
        }
        if looks_at("retentionHours") {
            let hours =
                mentions.numbers.iter().filter(|hours| **hours < deployment.retention_hours);
            let deployment = deployment.id.clone();
            changes.extend(
                hours.map(|hours| Change::Retention {
                    hours: *hours,
                    deployment: deployment.clone(),
                }),
            );
        }
        if looks_at("classified") {
            changes.push(Change::Declaration);
        }
        changes
    }

    /// To stay below a threshold that the call reaches.
    fn fewer(&self, id: &str) -> Option<Change> {
        let is_reached =
            self.world.reached.iter().any(|row| row.thresholds.iter().any(|one| one == id));
        let threshold = self.snapshot.facts.thresholds.iter().find(|one| one.id == id)?;
        let threshold = Some(threshold).filter(|_| is_reached)?;
        Some(Change::FewerPeople { threshold: id.to_owned(), below: threshold.at_least })
    }

    fn deployment(&self) -> Option<&Deployment> {
        let id = self.world.request.deployment.as_deref()?;
        self.snapshot.deployment(&id.into())
    }

    /// Every place of `candidate` that a law forbids, moved to where all laws of the call allow it: to
    /// where the organisation is already, before anywhere else.
    fn moves(&self, candidate: &Candidate) -> Vec<Change> {
        let mut moves = Vec::new();
        for action in FlowAction::ALL {
            let Some(allowed) = self.allowed_for(candidate, action) else { continue };
            let to = self.familiar().find(|place| allowed.contains(place));
            let Some(to) = to.or_else(|| allowed.first().cloned()) else { continue };
            let forbidden = candidate.placement.of(action).iter();
            moves.extend(forbidden.filter(|place| !allowed.contains(*place)).map(|place| {
                let deployment = candidate.deployment.clone();
                Change::Place { deployment, action, from: place.clone(), to: to.clone() }
            }));
        }
        moves
    }

    /// Where `action` may reach for every origin of the call, or, where there is no such place, for those
    /// whose law forbids where it is now. None where it reaches nothing, or nothing that is forbidden.
    fn allowed_for(
        &self,
        candidate: &Candidate,
        action: FlowAction,
    ) -> Option<BTreeSet<JurisdictionCode>> {
        let here = |allowed: &BTreeSet<JurisdictionCode>| {
            candidate.placement.of(action).iter().all(|place| allowed.contains(place))
        };
        let of_action = || self.reachable.iter().filter(|((_, one), _)| *one == action);
        let common = |sets: Vec<&BTreeSet<JurisdictionCode>>| {
            sets.into_iter().cloned().reduce(|all, allowed| &all & &allowed)
        };
        let forbidding: Vec<_> =
            of_action().map(|(_, allowed)| allowed).filter(|allowed| !here(allowed)).collect();
        if forbidding.is_empty() {
            return None;
        }
        let all = common(of_action().map(|(_, allowed)| allowed).collect());
        all.filter(|places| !places.is_empty()).or_else(|| common(forbidding))
    }

    /// The places that the call or the organisation touches already: first those of the people.
    fn familiar(&self) -> impl Iterator<Item = JurisdictionCode> {
        let location = self.world.request.location.iter().filter_map(|code| code.parse().ok());
        let organisation = &self.snapshot.organisation;
        let here = organisation.apps.get(self.world.app).map(|app| &app.location);
        let places = organisation.deployments.iter().filter_map(move |deployment| {
            here.map(|here| organisation.placement(deployment, here, &[]).process)
        });
        self.origins().into_iter().chain(location).chain(places.flatten())
    }

    fn origins(&self) -> Vec<JurisdictionCode> {
        let data = self.world.request.data.iter();
        let codes = data.flat_map(|data| data.subjects.iter().chain(&data.location));
        codes.filter_map(|code| code.parse().ok()).collect()
    }

    /// For each origin and way of reaching a place that is denied here: where it may go instead.
    fn destinations(&self, candidate: &Candidate) -> Vec<Destinations> {
        let facts = &self.snapshot.facts;
        let is_denied = |action: FlowAction, allowed: &BTreeSet<JurisdictionCode>| {
            candidate.placement.of(action).iter().any(|place| !allowed.contains(place))
        };
        let denied = self.reachable.iter().filter(|((_, action), to)| is_denied(*action, to));
        let of = |((from, action), allowed): (&(JurisdictionCode, FlowAction), &BTreeSet<_>)| {
            let many = allowed.len() * 2 > facts.jurisdictions.len();
            let groups = if many { BTreeMap::new() } else { self.groups(candidate, allowed) };
            let is_grouped = |place: &JurisdictionCode| {
                let country = facts.jurisdictions.get(place).and_then(|row| row.within.as_ref());
                let mut places = [Some(place), country].into_iter().flatten();
                places.any(|place| groups.values().any(|members| members.contains(place)))
            };
            let single = allowed.iter().filter(|place| !many && !is_grouped(place)).cloned();
            let except = facts
                .zones
                .iter()
                .filter(|(_, members)| many && !members.is_empty() && members.is_disjoint(allowed));
            Destinations {
                from: from.clone(),
                action: *action,
                jurisdictions: single.collect(),
                except: except.map(|(id, _)| id.clone()).collect(),
                groups: groups.keys().map(|id| (*id).clone()).collect(),
            }
        };
        denied.map(of).collect()
    }

    /// The groups of the denying policies that lie in `allowed`; one that lies in another is not named.
    fn groups(
        &self,
        candidate: &Candidate,
        allowed: &BTreeSet<JurisdictionCode>,
    ) -> BTreeMap<&String, &BTreeSet<JurisdictionCode>> {
        let facts = &self.snapshot.facts;
        let lies = |members: &BTreeSet<JurisdictionCode>| {
            !members.is_empty() && members.is_subset(allowed)
        };
        let rules = candidate.policies.iter().filter_map(|id| self.snapshot.engine.rule(id));
        let named: BTreeSet<String> = rules
            .flat_map(|rule| rule.mentions.zones.iter().chain(&rule.mentions.sets).cloned())
            .collect();
        let all = facts.zones.iter().chain(&facts.adequacy);
        let all = all.filter(|(id, members)| named.contains(*id) && lies(members));
        let all: Vec<_> = all.collect();
        let smaller = |members: &BTreeSet<JurisdictionCode>| {
            all.iter().any(|(_, other)| members.len() < other.len() && members.is_subset(other))
        };
        all.iter().filter(|(_, members)| !smaller(members)).copied().collect()
    }

    /// A call of its own for the people of each origin, where each of them has a way.
    fn split(&self, request: &CallRequest) -> Option<Change> {
        let data = request.data.as_ref()?;
        let mut subjects: Vec<JurisdictionCode> =
            data.subjects.iter().filter_map(|code| code.parse().ok()).collect();
        subjects.sort();
        subjects.dedup();
        if subjects.len() < 2 {
            return None;
        }
        let has_way = |subject: &JurisdictionCode| {
            let mut data = data.clone();
            data.subjects = vec![subject.to_string()];
            let alone = CallRequest { data: Some(data), ..self.world.request.clone() };
            let (app, reached) = (self.world.app, self.world.reached);
            if !self.effort.spend(1) {
                return None;
            }
            let judged = self.judge.judge_afresh(app, &alone, reached).ok()?;
            let candidate = judged.evaluation.candidates.first()?;
            let search =
                Search::new(self.judge, app, &alone, reached, &candidate.deployment, self.effort);
            let allowed = candidate.decision == Verdict::Allow;
            Some(allowed || !search.ways(candidate, &alone).is_empty())
        };
        let all = subjects.iter().all(|subject| has_way(subject).unwrap_or_default());
        all.then_some(Change::Split { subjects })
    }
}

/// Every subset of `size` elements, in order.
fn subsets<T: Clone>(all: &[T], size: usize) -> Vec<Vec<T>> {
    let Some((first, rest)) = all.split_first() else {
        return if size == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    if size == 0 {
        return vec![Vec::new()];
    }
    let with = subsets(rest, size - 1).into_iter().map(|mut set| {
        set.insert(0, first.clone());
        set
    });
    with.chain(subsets(rest, size)).collect()
}
