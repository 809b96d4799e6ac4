//! What calls use of their app's and their tenant's limits: held to them by the commit that records the
//! decision, counted by it and by the one that records the outcome. Not the counters (`store`).

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    domain::{Caller, Measure, Money, Quota, Verdict},
    facts::Organisation,
    ledger::{Attempt, TokenCount},
};

/// What a call that Lexgate is to send is held to. One that the law denies counts as a request, and
/// uses nothing else.
pub(super) fn admission(
    organisation: &Organisation,
    caller: &Caller,
    verdict: Verdict,
    now: Timestamp,
) -> Option<Arc<Quota>> {
    let (mut quota, whose) = (Quota::default(), (caller.app.clone(), caller.tenant.clone()));
    for (held, limits) in organisation.limits_of(&caller.app, &caller.tenant) {
        for limit in limits.at(&held, now) {
            match limit.measure {
                Measure::Requests => quota.adds.push((limit.key(), 1.into())),
                _ if verdict == Verdict::Deny => continue,
                Measure::Concurrent => quota.under_way = Some(whose.clone()),
                Measure::Tokens | Measure::Money(_) => {}
            }
            quota.limits.push(limit);
        }
    }
    (!quota.is_empty()).then(|| Arc::new(quota))
}

/// What a call has used when it ends.
pub(super) fn spending(
    organisation: &Organisation,
    caller: &Caller,
    tokens: TokenCount,
    cost: Option<&Money>,
    now: Timestamp,
) -> Option<Arc<Quota>> {
    let (mut quota, whose) = (Quota::default(), (caller.app.clone(), caller.tenant.clone()));
    let counted = tokens.input.unwrap_or(0).saturating_add(tokens.output.unwrap_or(0));
    for (held, limits) in organisation.limits_of(&caller.app, &caller.tenant) {
        for limit in limits.at(&held, now) {
            let used = match &limit.measure {
                Measure::Tokens => counted.into(),
                Measure::Money(currency) => match cost {
                    Some(cost) if cost.currency == *currency => cost.amount,
                    _ => continue,
                },
                Measure::Concurrent => {
                    quota.under_way = Some(whose.clone());
                    continue;
                }
                Measure::Requests => continue,
            };
            quota.adds.push((limit.key(), used));
        }
    }
    (!quota.is_empty()).then(|| Arc::new(quota))
}

/// What an answer cost: by the price of the deployment that gave it, when it was asked.
pub(super) fn cost(
    organisation: &Organisation,
    attempts: &[Attempt],
    tokens: TokenCount,
) -> Option<Money> {
    let answered = attempts.last()?;
    let price = organisation.price_at(&answered.deployment, answered.started)?;
    price.of(tokens.input, tokens.output)
}
