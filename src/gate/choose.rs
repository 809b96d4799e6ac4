//! Choosing among the deployments that the law allows: the organisation's order or its strategy, and
//! what is known of how they are. Never one that is not allowed.

use std::{sync::Arc, time::Instant};

use ring::rand::SecureRandom;

use super::Gate;
use crate::{
    dispatch::Standing,
    domain::{CallRequest, DeploymentId, Tier, Verdict},
    facts::{Organisation, Price, Strategy, VirtualModel},
    ledger::{DecisionBody, SkipReason, Skipped},
};

/// A deployment that the law allows and that can be reached.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) deployment: DeploymentId,
    pub(super) standing: Arc<Standing>,
}

/// The allowed deployments of a decision, the best first.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    pub(super) fit: Vec<Choice>,
    pub(super) skipped: Vec<Skipped>,
    /// When the first of those that were skipped may be fit again.
    pub(super) again: Option<Instant>,
    /// Whether one of them was skipped because it said that this app sends too many requests.
    pub(super) is_limited: bool,
}

impl Gate {
    /// The allowed deployments of `decision` in the order in which they are tried.
    pub(super) fn choices(&self, request: &CallRequest, decision: &DecisionBody) -> Choices {
        let judge = self.keeper.current();
        let organisation = &judge.snapshot().organisation;
        let (now, app) = (Instant::now(), &decision.caller.app);
        let mut choices = Choices::default();
        let allowed = decision.candidates.iter().filter(|one| one.decision == Verdict::Allow);
        for candidate in allowed {
            let deployment = candidate.deployment.clone();
            let row = organisation.deployment(deployment.as_str());
            let Some(address) = row.and_then(|row| row.backend.as_ref()) else {
                let reason = SkipReason::NoBackend;
                choices.skipped.push(Skipped { deployment, reason });
                continue;
            };
            let standing = self.fleet.standing(&deployment, address);
            match standing.unfit(app, now) {
                None => choices.fit.push(Choice { deployment, standing }),
                Some(reason) => {
                    let opens = standing.opens_at(app);
                    choices.is_limited |= standing.is_limited(app, now);
                    choices.again = choices
                        .again
                        .map_or(opens, |soonest| opens.map(|at| at.min(soonest)).or(Some(soonest)));
                    choices.skipped.push(Skipped { deployment, reason });
                }
            }
        }
        let name = request.model.as_deref().filter(|_| request.deployment.is_none());
        let virtual_model = name.and_then(|name| organisation.virtual_model(name));
        if let Some((_, virtual_model)) = virtual_model {
            self.sort(&mut choices.fit, virtual_model, organisation);
        }
        // A full queue is better than none: it comes last, not never.
        choices.fit.sort_by_cached_key(|choice| choice.standing.is_full());
        choices
    }

    /// The first allowed deployment of `decision`, in the organisation's order, that is not known to be
    /// down. Of one on a device, or without an address, only its callers know.
    pub(super) fn first_well(&self, decision: &DecisionBody) -> Option<DeploymentId> {
        let judge = self.keeper.current();
        let organisation = &judge.snapshot().organisation;
        let (now, app) = (Instant::now(), &decision.caller.app);
        let is_well = |id: &DeploymentId| {
            let row = organisation.deployment(id.as_str());
            let address = row.filter(|row| row.tier != Tier::OnDevice);
            let address = address.and_then(|row| row.backend.as_ref());
            let unfit = |address| self.fleet.standing(id, address).unfit(app, now);
            address.and_then(unfit).is_none()
        };
        let allowed = decision.candidates.iter().filter(|one| one.decision == Verdict::Allow);
        allowed.map(|one| &one.deployment).find(|id| is_well(id)).cloned()
    }

    /// Each is asked once how it is: answers that change while they are compared are in no order.
    fn sort(&self, fit: &mut [Choice], by: &VirtualModel, organisation: &Organisation) {
        match by.strategy {
            Strategy::Preference => {}
            Strategy::LeastLoaded => fit.sort_by_cached_key(|choice| choice.standing.load()),
            // Whoever was never measured is measured now.
            Strategy::Fastest => fit.sort_by_cached_key(|choice| choice.standing.first_byte()),
            // Whoever has no price, or one that cannot be compared, comes last.
            Strategy::Cheapest => {
                let now = self.clock.now();
                let price = |choice: &Choice| organisation.price_at(&choice.deployment, now);
                let currency = fit.iter().find_map(price).map(|price| &price.currency);
                fit.sort_by_cached_key(|choice| {
                    let price = price(choice).filter(|price| Some(&price.currency) == currency);
                    (price.is_none(), price.map(Price::sum))
                });
            }
        }
        let weight = |choice: &Choice| by.weights.get(&choice.deployment).copied().unwrap_or(0);
        let total: u64 = fit.iter().map(|choice| u64::from(weight(choice))).sum();
        if total == 0 {
            return;
        }
        let mut at = self.roll(total);
        let drawn = fit.iter().position(|choice| {
            let weight = u64::from(weight(choice));
            let hit = at < weight;
            at = at.saturating_sub(weight);
            hit
        });
        // The others keep their order behind it.
        if let Some(before) = drawn.and_then(|drawn| fit.get_mut(..=drawn)) {
            before.rotate_right(1);
        }
    }

    /// A number below `sides`. Without randomness it is always 0: weights are no matter of law.
    pub(super) fn roll(&self, sides: u64) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides.max(1)
    }
}
