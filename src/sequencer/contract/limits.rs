//! Limits: held under the head's lock, counted in the commit of the records that use them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::{
    kit::{Bed, Desk, decision, outcome},
    on_both,
};
use crate::{
    domain::{Currency, Held, Limit, Limits, Measure, Period, Quota, Rate},
    ledger::fixture,
    sequencer::{Draft, Receipt, SubmitError},
};

on_both! {
    a_limit_is_exact_however_many_writers_there_are
    amounts_are_summed_as_decimal_numbers
    calls_under_way_are_those_without_an_outcome
    counters_are_kept_as_long_as_somebody_may_look_at_them
}

fn limit(limits: &Limits, now: Timestamp) -> Limit {
    limits.at(&Held::App("desk".into()), now).next().unwrap()
}

fn rate(measure: Measure, most: &str, period: Period) -> Limit {
    let rates = vec![Rate { measure, most: most.parse().unwrap(), period }];
    limit(&Limits { concurrent: None, rates }, fixture::instant())
}

fn using(limit: &Limit, amount: &str) -> Draft {
    let adds = vec![(limit.key(), amount.parse().unwrap())];
    let quota = Quota { limits: vec![limit.clone()], adds, under_way: None };
    Draft { quota: Some(Arc::new(quota)), ..decision(false) }
}

fn used(receipt: &Receipt) -> Decimal {
    receipt.limits[0].used
}

async fn a_limit_is_exact_however_many_writers_there_are(bed: Bed) {
    let store = bed.migrated().await;
    let (one, other) = (Desk::on(store), Desk::on(bed.open().await));
    one.activate(1).await;
    let limit = rate(Measure::Requests, "7", Period::Day);
    // In one commit: what comes too late is refused, what comes before it is not.
    let batch = vec![using(&limit, "1"), using(&limit, "1"), using(&limit, "1")];
    let answers = one.sequencer.submit_all(batch).await.unwrap();
    let seen: Vec<_> = answers.iter().map(|answer| used(answer.as_ref().unwrap())).collect();
    assert_eq!(seen, [1, 2, 3].map(Decimal::from));
    // From two processes at once.
    let (a, b) = tokio::join!(
        one.sequencer.submit_all((0..5).map(|_| using(&limit, "1")).collect()),
        other.sequencer.submit_all((0..5).map(|_| using(&limit, "1")).collect()),
    );
    let (mut passed, mut limited) = (0, 0);
    for answer in a.unwrap().into_iter().chain(b.unwrap()) {
        match answer {
            Ok(_) => passed += 1,
            Err(SubmitError::Limited(state)) => {
                limited += 1;
                assert_eq!((state.used, state.remaining()), (7.into(), 0.into()));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((passed, limited), (4, 6));
    // Somebody else's is another one, and so is the next day's.
    let mut next = limit.clone();
    next.held = Held::Tenant("desk".into());
    assert_eq!(used(&one.insist(using(&next, "1")).await), 1.into());
    next = limit.clone();
    next.since = limit.until.unwrap();
    assert_eq!(used(&one.insist(using(&next, "1")).await), 1.into());
    assert_eq!(one.verified().await.entries, 2 + 7 + 2);
}

async fn amounts_are_summed_as_decimal_numbers(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let money = Measure::Money(Currency::parse("EUR").unwrap());
    let limit = rate(money, "0.3000000000000000001", Period::Month);
    for _ in 0..3 {
        desk.insist(using(&limit, "0.1")).await;
    }
    // 0.1 + 0.1 + 0.1 is 0.3 and no more.
    let last = desk.insist(using(&limit, "0.0000000000000000001")).await;
    assert_eq!(used(&last).to_string(), "0.3000000000000000001");
    let refused = desk.sequencer.submit(using(&limit, "0")).await;
    assert!(matches!(refused, Err(SubmitError::Limited(_))), "{refused:?}");
    desk.verified().await;
}

async fn calls_under_way_are_those_without_an_outcome(bed: Bed) {
    let store = bed.migrated().await;
    let (one, other) = (Desk::on(store), Desk::on(bed.open().await));
    one.activate(1).await;
    let limits = Limits { concurrent: Some(2), rates: Vec::new() };
    let quota = |limits: Vec<Limit>| {
        let under_way = Some(("desk".into(), "acme".into()));
        Some(Arc::new(Quota { limits, adds: Vec::new(), under_way }))
    };
    let call = || {
        let quota = quota(vec![limit(&limits, fixture::instant())]);
        Draft { quota, ..decision(true) }
    };
    let first = one.insist(call()).await;
    other.insist(call()).await;
    for desk in [&one, &other] {
        let refused = desk.sequencer.submit(call()).await;
        assert!(matches!(refused, Err(SubmitError::Limited(_))), "{refused:?}");
    }
    // Room is made in the commit in which a call ends, for what stands behind it there.
    let ending = Draft { quota: quota(Vec::new()), ..outcome(&first) };
    let answers = one.sequencer.submit_all(vec![ending, call(), call()]).await.unwrap();
    let fits: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(fits, [true, true, false]);
    // Whoever closes the calls of a process that died need not know of limits.
    one.store.grant_missing_leases(fixture::instant()).await.unwrap();
    let open = one.store.expired_dispatches(Timestamp::MAX, None, 10).await.unwrap();
    assert_eq!(open.len(), 2);
    for stored in open {
        let receipt =
            Receipt { seq: stored.seq, leaf: stored.leaf, entry: stored.entry, ..first.clone() };
        one.insist(outcome(&receipt)).await;
    }
    assert_eq!(used(&other.insist(call()).await), 1.into());
    one.verified().await;
}

async fn counters_are_kept_as_long_as_somebody_may_look_at_them(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let limit = rate(Measure::Tokens, "10", Period::Month);
    desk.insist(using(&limit, "4")).await;
    desk.store.prune(limit.until.unwrap() - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(used(&desk.insist(using(&limit, "4")).await), 8.into());
    desk.store.prune(limit.until.unwrap() + SignedDuration::from_hours(24 * 40)).await.unwrap();
    assert_eq!(used(&desk.insist(using(&limit, "4")).await), 4.into());
}
