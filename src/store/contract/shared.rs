//! Two processes on one store.

use uuid::Uuid;

use super::kit::{Bed, Desk, decision, outcome};

super::on_both! {
    two_processes_write_one_chain
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
                desk.sequencer.submit_patiently(outcome(&receipt)).await.unwrap();
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

async fn two_processes_open_one_log(bed: Bed) {
    let (left, right) = (Desk::on(bed.migrated().await), Desk::on(bed.open().await));
    let draft = || crate::sequencer::Draft { revision: None, ..decision(false) };
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
