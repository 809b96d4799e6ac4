//! What reasons rest on: how sure the facts behind a policy's answer are, and which of them nobody has
//! read a source for. It changes no answer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::fast::RandomState;

use crate::{
    domain::{Confidence, Effect, Flow, FlowAction, JurisdictionCode, ModelId, PolicyId},
    facts::Snapshot,
    policy::{EntityKind, Rule, RuleSet, flow_uid, uid},
};

/// What some answer rests on. Nothing, at first: then it is as sure as the policies are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ground {
    /// How sure the least sure fact is.
    pub(super) confidence: Confidence,
    /// The facts that are general knowledge, in words.
    pub(super) general: BTreeSet<String>,
}

impl Ground {
    /// Rests on one more fact.
    fn add(&mut self, confidence: Confidence, fact: impl FnOnce() -> String) {
        self.confidence = self.confidence.min(confidence);
        if confidence == Confidence::General {
            self.general.insert(fact());
        }
    }

    /// Rests on what `other` rests on, too.
    pub(super) fn join(&mut self, other: &Self) {
        self.confidence = self.confidence.min(other.confidence);
        if !other.general.is_empty() {
            self.general.extend(other.general.iter().cloned());
        }
    }
}

/// The ground of a forbid for all flows from one place to another; that of a permit for those of one
/// kind.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Question {
    policy: PolicyId,
    permitted: Option<FlowAction>,
    from: JurisdictionCode,
    to: JurisdictionCode,
}

/// The grounds of one snapshot's answers on flows, each found once.
#[derive(Debug, Default)]
pub(super) struct Grounds(RwLock<HashMap<Question, Arc<Ground>, RandomState>>);

impl Grounds {
    /// What the answer of `policy` on `flow` rests on.
    pub(super) fn of_flow(
        &self,
        snapshot: &Snapshot,
        policy: &PolicyId,
        effect: Effect,
        flow: &Flow,
    ) -> Arc<Ground> {
        let question = Question {
            policy: policy.clone(),
            permitted: (effect == Effect::Permit).then_some(flow.action),
            from: flow.from.clone(),
            to: flow.to.clone(),
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(ground) = known.get(&question) {
            return ground.clone();
        }
        drop(known);
        let ground = Arc::new(match effect {
            Effect::Forbid => forbidden(snapshot, policy, flow),
            Effect::Permit => permitted(snapshot, flow),
        });
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(question, ground.clone());
        ground
    }
}

/// A forbid rests on the coverage of its pack, on the classes and thresholds that it asks for, and on where the two places stand in the zones and
/// findings that it names.
fn forbidden(snapshot: &Snapshot, policy: &PolicyId, flow: &Flow) -> Ground {
    let mut ground = Ground::default();
    if let Some(rule) = snapshot.engine.rule(policy) {
        rest_on_pack(snapshot, rule, &mut ground);
        rest_on_counts(snapshot, rule, &mut ground);
        rest_on_groups(snapshot, rule, [&flow.from, &flow.to], &mut ground);
    }
    ground
}

/// A flow is permitted because no policy forbids it. So that rests on what every policy does that was
/// considered, and on the coverage by which the law of its origin counts as implemented.
fn permitted(snapshot: &Snapshot, flow: &Flow) -> Ground {
    let mut ground = Ground::default();
    let [from, to] =
        [&flow.from, &flow.to].map(|place| uid(EntityKind::Jurisdiction, place.as_str()));
    let engine = &snapshot.engine;
    for policy in engine.considered(RuleSet::Rules, &from, &flow_uid(flow.action), &to) {
        ground.join(&forbidden(snapshot, &policy, flow));
    }
    let country = snapshot.facts.country(&flow.from);
    for (pack, covering) in &snapshot.facts.confidence.coverage {
        let mut origins = [Some(&flow.from), country].into_iter().flatten();
        if origins.any(|origin| covering.jurisdictions.contains(origin)) {
            ground.add(covering.confidence, || format!("pack {pack}"));
        }
    }
    ground
}

/// What the answer of `policy` on the use of `model` rests on, for a tenant at `domicile`: the terms of
/// the model's licence, where the policy looks at them. A permit rests on them always.
pub(super) fn of_use(
    snapshot: &Snapshot,
    policy: &PolicyId,
    effect: Effect,
    model: &ModelId,
    domicile: Option<&JurisdictionCode>,
) -> Ground {
    let mut ground = Ground::default();
    let rule = snapshot.engine.rule(policy);
    if let Some(rule) = rule {
        rest_on_pack(snapshot, rule, &mut ground);
        rest_on_groups(snapshot, rule, domicile, &mut ground);
    }
    let looks = effect == Effect::Permit || rule.is_some_and(|rule| rule.mentions.licences);
    let model = snapshot.organisation.models.get(model).filter(|_| looks);
    let licence = model.map(|model| &model.license);
    if let Some(confidence) = licence.and_then(|id| snapshot.facts.confidence.licences.get(id)) {
        ground.add(*confidence, || format!("licence {}", licence.map_or("", |id| id.as_str())));
    }
    ground
}

fn rest_on_pack(snapshot: &Snapshot, rule: &Rule, ground: &mut Ground) {
    if let Some(covering) = snapshot.facts.confidence.coverage.get(&rule.file) {
        ground.add(covering.confidence, || format!("pack {}", rule.file));
    }
}

fn rest_on_counts(snapshot: &Snapshot, rule: &Rule, ground: &mut Ground) {
    let facts = &snapshot.facts.confidence;
    for (kind, facts) in [("class", &facts.classes), ("threshold", &facts.thresholds)] {
        for text in &rule.mentions.texts {
            if let Some(confidence) = facts.get(text) {
                ground.add(*confidence, || format!("{kind} {text}"));
            }
        }
    }
}

fn rest_on_groups<'p>(
    snapshot: &Snapshot,
    rule: &Rule,
    places: impl IntoIterator<Item = &'p JurisdictionCode>,
    ground: &mut Ground,
) {
    let (facts, mentions) = (&snapshot.facts, &rule.mentions);
    for place in places {
        for place in [Some(place), facts.country(place)].into_iter().flatten() {
            for zone in &mentions.zones {
                if facts.zones.get(zone).is_some_and(|members| members.contains(place)) {
                    ground.add(facts.confidence.in_zone(zone, place), || {
                        format!("{place} in {zone}")
                    });
                }
            }
            for set in &mentions.sets {
                if facts.adequacy.get(set).is_some_and(|members| members.contains(place)) {
                    ground.add(facts.confidence.in_set(set, place), || format!("{place} in {set}"));
                }
            }
        }
    }
}
