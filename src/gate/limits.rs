//! What calls use of their app's and their tenant's limits: held to them by the commit that records the
//! decision, counted by it and by the one that records the outcome. Not the counters (`store`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::outcome::Answered;
use crate::{
    domain::{Caller, CounterKey, Limit, LimitState, Measure, Money, Quota},
    facts::Organisation,
    ledger::{Attempt, OutcomeStatus, TokenCount},
};

/// What a recorded decision is held to. Each counts as a request; only one that the law allows and that
/// Lexgate is to send, `dispatched`, uses more.
pub(super) fn admission(
    organisation: &Organisation,
    caller: &Caller,
    dispatched: bool,
    now: Timestamp,
) -> Option<Arc<Quota>> {
    let (mut quota, whose) = (Quota::default(), (caller.app.clone(), caller.tenant.clone()));
    for (held, limits) in organisation.limits_of(&caller.app, &caller.tenant) {
        for limit in limits.at(&held, now) {
            match limit.measure {
                Measure::Requests => quota.adds.push((limit.key(), 1.into())),
                _ if !dispatched => continue,
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

/// How many requests are given back in a limit's period at least, and how often as many as it allows: each was
/// recorded, and a deployment that is down must not be a way to record without end. Callers that try again while
/// it is down stay far below.
const RETURNS: (u32, u32) = (600, 10);

/// What was given back in periods that are not over, counter by counter.
#[derive(Debug, Default)]
pub(super) struct Returned(Mutex<HashMap<CounterKey, (Decimal, Option<Timestamp>)>>);

impl Returned {
    /// What a call uses that went nowhere: the request that its decision has counted is given back, to the
    /// counters that counted it, while not too many were.
    pub(super) fn give_back(
        &self,
        quota: Option<Arc<Quota>>,
        counted: &[LimitState],
        now: Timestamp,
    ) -> Option<Arc<Quota>> {
        let mut quota = quota.map_or_else(Quota::default, |quota| Quota::clone(&quota));
        let requests = counted.iter().filter(|state| state.limit.measure == Measure::Requests);
        let returned = requests.filter(|state| self.admits(&state.limit, now));
        quota.adds.extend(returned.map(|state| (state.limit.key(), (-1).into())));
        (!quota.is_empty()).then(|| Arc::new(quota))
    }

    fn admits(&self, limit: &Limit, now: Timestamp) -> bool {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = limit.key();
        if !given.contains_key(&key) {
            given.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        }
        let (times, _) = given.entry(key).or_insert((Decimal::ZERO, limit.until));
        *times += Decimal::ONE;
        let (least, often) = RETURNS;
        *times <= (limit.most * Decimal::from(often)).max(Decimal::from(least))
    }
}

/// How many bytes of a request count as a token where the backend has not counted.
const BYTES_A_TOKEN: u64 = 4;

/// What a call counts for: the tokens that the backend counted. Where it counted none, or a client left or
/// a stream broke before it had come to the end, each event that came counts as one at least, and so do
/// each four bytes of a request that was not counted: who hangs up early uses no less.
pub(super) fn used(
    status: OutcomeStatus,
    attempts: &[Attempt],
    answered: &Answered,
    request: usize,
) -> TokenCount {
    let TokenCount { input, output } = answered.tokens;
    let worked = attempts.last().is_some_and(|last| {
        let success = last.http_status.is_none_or(|status| (200..300).contains(&status));
        success && (last.failure.is_none() || answered.events > 0)
    });
    let is_counted = status == OutcomeStatus::Ok && (input.is_some() || output.is_some());
    if !worked || is_counted {
        return answered.tokens;
    }
    let request = u64::try_from(request).unwrap_or(u64::MAX) / BYTES_A_TOKEN;
    TokenCount { input: input.or(Some(request)), output: output.max(Some(answered.events)) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::AttemptFailure;

    #[test]
    fn no_more_is_given_back_than_callers_need_who_try_again() {
        let now: Timestamp = "2026-11-30T12:00:10Z".parse().unwrap();
        let minute = |most: u32, since: &str, until: &str| Limit {
            held: crate::domain::Held::App("works".into()),
            measure: Measure::Requests,
            most: most.into(),
            period: Some(crate::domain::Period::Minute),
            since: since.parse().unwrap(),
            until: Some(until.parse().unwrap()),
        };
        let state = |limit: Limit| [LimitState { limit, used: Decimal::ONE, at: now }];
        let small = state(minute(5, "2026-11-30T12:00:00Z", "2026-11-30T12:01:00Z"));
        let returned = Returned::default();
        let given = (0..1_000).filter(|_| returned.give_back(None, &small, now).is_some()).count();
        assert_eq!(given, 600);
        let next = state(minute(100, "2026-11-30T12:01:00Z", "2026-11-30T12:02:00Z"));
        let later = "2026-11-30T12:01:10Z".parse().unwrap();
        let given = (0..2_000).filter(|_| returned.give_back(None, &next, later).is_some()).count();
        assert_eq!(given, 1_000);
        assert_eq!(returned.0.lock().unwrap().len(), 1, "what is over is forgotten");
    }

    fn attempt(http_status: Option<u16>, failure: Option<AttemptFailure>) -> Attempt {
        let (started, finished) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        Attempt { deployment: "a@b".into(), failure, finished, http_status, started }
    }

    fn count(input: Option<u64>, output: Option<u64>) -> TokenCount {
        TokenCount { input, output }
    }

    #[test]
    fn a_whole_answer_counts_as_its_backend_counted_and_a_cut_one_no_less_than_came() {
        let ok = [attempt(Some(200), None)];
        let used = |status, attempts: &[Attempt], input, output, events| {
            let answered = Answered { tokens: count(input, output), events, ..Answered::default() };
            super::used(status, attempts, &answered, 400)
        };
        let (whole, left) = (OutcomeStatus::Ok, OutcomeStatus::ClientDisconnected);
        // An embedding has no output.
        assert_eq!(used(whole, &ok, Some(9), None, 1), count(Some(9), None));
        assert_eq!(used(whole, &ok, Some(9), Some(2), 50), count(Some(9), Some(2)));
        assert_eq!(used(whole, &ok, None, None, 7), count(Some(100), Some(7)));
        // Anthropic's first event says one token of output, whatever follows.
        assert_eq!(used(left, &ok, Some(9), Some(1), 30), count(Some(9), Some(30)));
        assert_eq!(used(left, &ok, None, None, 3), count(Some(100), Some(3)));
        // Nobody worked for it.
        let refused = [attempt(Some(400), None)];
        assert_eq!(used(OutcomeStatus::UpstreamError, &refused, None, None, 1), count(None, None));
        let unreachable = [attempt(None, Some(AttemptFailure::Unreachable))];
        assert_eq!(used(left, &unreachable, None, None, 0), count(None, None));
        assert_eq!(used(left, &[], None, None, 0), count(None, None));
    }
}
