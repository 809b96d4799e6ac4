//! Counts of people whose data left: kept with the records, asked under the head's lock.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    kit::{Bed, Desk, decision},
    on_both,
};
use crate::{
    domain::{Asked, CountKey, Export, Exported, Threshold, Volume, Window},
    ledger::fixture,
    sequencer::{Draft, SubmitError},
};

on_both! {
    what_left_is_summed_by_day_and_kind
    a_record_that_rests_on_another_count_is_refused
}

fn exported(day: i32, categories: &[&str], subjects: i64) -> Exported {
    let place = |code: &str| code.parse().unwrap();
    Exported {
        tenant: "acme".into(),
        origin: place("CN"),
        day,
        export: Export {
            categories: categories.iter().map(|&text| text.to_owned()).collect(),
            exposed_to: vec![place("SG")],
            personal: true,
            to: vec![place("SG")],
        },
        subjects,
    }
}

fn adding(adds: Vec<Exported>) -> Draft {
    let volume = Volume { asked: Vec::new(), adds };
    Draft { volume: Some(Arc::new(volume)), ..decision(false) }
}

async fn what_left_is_summed_by_day_and_kind(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let key = |since| CountKey { tenant: "acme".into(), origin: "CN".parse().unwrap(), since };
    let keys = BTreeSet::from([key(10), key(11), key(12)]);
    let before = desk.store.exported(&keys).await.unwrap();
    assert!(before.0.len() == 3 && before.0.values().all(Vec::is_empty), "{before:?}");
    // In one batch and over several; a quote is a letter like any other.
    let batch =
        vec![adding(vec![exported(10, &["a'\"b"], 5)]), adding(vec![exported(10, &["a'\"b"], 7)])];
    assert!(desk.sequencer.submit_all(batch).await.unwrap().iter().all(Result::is_ok));
    desk.insist(adding(vec![exported(11, &[], 1), exported(11, &["a'\"b"], -3)])).await;
    let found = desk.store.exported(&keys).await.unwrap();
    let sum = |since, categories: &[&str]| {
        let wanted = exported(0, categories, 0).export;
        let rows = found.0[&key(since)].iter().filter(|(export, _)| *export == wanted);
        rows.map(|(_, people)| people).sum::<i64>()
    };
    assert_eq!([sum(10, &["a'\"b"]), sum(11, &["a'\"b"]), sum(12, &["a'\"b"])], [9, -3, 0]);
    assert_eq!([sum(10, &[]), sum(11, &[]), sum(12, &[])], [1, 1, 0]);
    desk.verified().await;
}

async fn a_record_that_rests_on_another_count_is_refused(bed: Bed) {
    let store = bed.migrated().await;
    let (desk, other) = (Desk::on(store), Desk::on(bed.open().await));
    desk.activate(1).await;
    let threshold = Threshold {
        at_least: 10,
        categories: None,
        id: "ten".to_owned(),
        origins: Some(["CN".parse().unwrap()].into()),
        ownership: false,
        personal: true,
        to: None,
        utc_offset: 0,
        window: Window::CalendarYear,
        without: BTreeSet::new(),
    };
    let day = crate::domain::day_of(fixture::instant(), 0);
    let resting = |own: u64, reached: bool| {
        let (threshold, tenant) = (Arc::new(threshold.clone()), "acme".into());
        let origin = "CN".parse().unwrap();
        let asked = Asked::new(&threshold, &tenant, &origin, Some(own), fixture::instant());
        let adds = vec![exported(day, &[], i64::try_from(own).unwrap())];
        let volume = Volume { asked: vec![(asked, reached)], adds };
        Draft { volume: Some(Arc::new(volume)), ..decision(false) }
    };
    desk.insist(resting(4, false)).await;
    let wrong = other.sequencer.submit(resting(5, true)).await;
    assert!(matches!(wrong, Err(SubmitError::Stale)), "4 and 5 are not 10: {wrong:?}");
    other.insist(resting(5, false)).await;
    // Of a batch whose second record would pass the threshold, nothing is written.
    let answers = desk.sequencer.submit_all(vec![resting(0, false), resting(1, false)]).await;
    let stale = |answer: &Result<_, _>| matches!(answer, Err(SubmitError::Stale));
    assert!(answers.unwrap().iter().all(stale), "9 and 1 are 10");
    desk.insist(resting(1, true)).await;
    assert_eq!(desk.verified().await.entries, 5);
}
