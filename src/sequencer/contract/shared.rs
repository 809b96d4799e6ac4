//! Two processes on one store.

use std::sync::Arc;

use uuid::Uuid;

use super::kit::{Bed, Desk, decision, outcome};
use crate::{
    domain::{Digest, Revision},
    sequencer::{Claim, Draft, SubmitError},
};

super::on_both! {
    two_processes_write_one_chain
    a_process_follows_what_another_activated
    a_process_that_fell_behind_goes_on
    two_processes_open_one_log
    nothing_is_settled_while_a_commit_may_be_under_way
}

async fn two_processes_write_one_chain(bed: Bed) {
    let (left, right) = (Desk::on(bed.migrated().await), Desk::on(bed.open().await));
    left.activate(1).await;
    let write = async |desk: &Desk| {
        for n in 0..40 {
            let receipt = desk.insist(decision(n % 2 == 0)).await;
            if n % 2 == 0 {
                desk.sequencer
                    .submit_reserved(desk.sequencer.reserve().unwrap(), outcome(&receipt))
                    .await
                    .unwrap();
            }
            // Leaves the other one room: SQLite's lock is not fair.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::join!(write(&left), write(&right));
    let report = left.verified().await;
    assert_eq!((report.entries, report.open.len()), (2 + 2 * (40 + 20), 0));
    assert_eq!(left.entries().await, right.entries().await);
}

/// Who finds that others have gone on, and twice has nothing to add, still knows its own log.
async fn a_process_that_fell_behind_goes_on(bed: Bed) {
    let (left, right) = (Desk::on(bed.migrated().await), Desk::on(bed.open().await));
    left.activate(1).await;
    right.insist(decision(false)).await;
    let claim = Claim { scope: "app".into(), key: "k".into(), request: Digest::of(b"request") };
    let claimed = || Draft { claim: Some(Arc::new(claim.clone())), ..decision(false) };
    let taken = left.insist(claimed()).await.seq;
    left.insist(decision(false)).await;
    for _ in 0..3 {
        let again = right.sequencer.submit(claimed()).await;
        assert!(matches!(again, Err(SubmitError::Claimed(seq)) if seq == taken), "{again:?}");
    }
    right.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(left.verified().await.entries, 6);
}

async fn two_processes_open_one_log(bed: Bed) {
    let (left, right) = (Desk::on(bed.migrated().await), Desk::on(bed.open().await));
    let draft = || Draft { revision: None, ..decision(false) };
    // Not decisions that would verify: only who writes entry 0 matters here.
    let (a, b) = tokio::join!(left.insist(draft()), right.insist(draft()));
    let mut places = [a.seq.get(), b.seq.get()];
    places.sort_unstable();
    assert_eq!(places, [1, 2], "one genesis");
}

async fn nothing_is_settled_while_a_commit_may_be_under_way(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let settled = bed.locking(async || desk.store.settle(Uuid::max()).await).await;
    assert!(settled.is_err(), "another transaction holds the lock: {settled:?}");
    assert_eq!(desk.store.settle(Uuid::max()).await.unwrap(), None);
}

/// One that only read since its last write knows the snapshot, and not yet the head behind it.
async fn a_process_follows_what_another_activated(bed: Bed) {
    let (one, other) = (Desk::on(bed.migrated().await), Desk::on(bed.open().await));
    one.activate(1).await;
    // It has seen that nobody else writes.
    for _ in 0..3 {
        one.insist(decision(false)).await;
    }
    other.activate(2).await;
    let revision = Some(Revision(2));
    let current = one.sequencer.submit(Draft { revision, ..decision(false) }).await;
    assert_eq!(current.unwrap().seq.get(), 6);
}
