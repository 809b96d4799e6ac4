//! What calls use of their app's and their tenant's limits: held to them by the commit that records the
//! decision, counted by it and by the one that records the outcome. Not the counters (`store`).

use std::sync::Arc;

use jiff::Timestamp;

use super::outcome::Answered;
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

/// How many bytes of a request count as a token where the backend has not counted.
const BYTES_A_TOKEN: u64 = 4;

/// What a call counts for: the tokens that the backend counted. Where a client left, or a stream broke,
/// before it said how many, each event that came counts as one, and so do each four bytes of the request:
/// who hangs up early uses no less.
pub(super) fn used(attempts: &[Attempt], answered: &Answered, request: usize) -> TokenCount {
    let worked = attempts.last().is_some_and(|last| {
        let success = last.http_status.is_none_or(|status| (200..300).contains(&status));
        success && (last.failure.is_none() || answered.events > 0)
    });
    if !worked {
        return answered.tokens;
    }
    let request = u64::try_from(request).unwrap_or(u64::MAX) / BYTES_A_TOKEN;
    TokenCount {
        input: answered.tokens.input.or(Some(request)),
        output: answered.tokens.output.or(Some(answered.events)),
    }
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
