//! The sequencer on a store that does what a test tells it.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio::time::timeout;

use super::{
    contract::{
        faulty::{Fault, Faulty},
        kit::{Bed, Desk, Kept, decision, outcome},
    },
    *,
};
use crate::ledger::fixture;

/// A log with an active snapshot, on a store that fails when told to.
async fn desk(change: impl FnOnce(&mut SequencerSettings)) -> (Bed, Arc<Faulty>, Desk) {
    let bed = Bed::new(Kept::Sqlite).await;
    let faulty = Faulty::before(bed.migrated().await);
    let desk = Desk::with(faulty.clone(), change);
    desk.activate(1).await;
    (bed, faulty, desk)
}

/// Starts a submission and waits until the store has it.
macro_rules! under_way {
    ($desk:expr, $faulty:expr, $submission:expr) => {{
        let sequencer = $desk.sequencer.clone();
        let task = $desk.tracker.spawn(async move { $submission(sequencer).await });
        $faulty.reached().await;
        task
    }};
}

#[tokio::test]
async fn what_no_longer_holds_is_stale() {
    let (_bed, _, desk) = desk(|_| {}).await;
    let at = |instant| Draft { valid_until: Some(instant), ..decision(false) };
    let soon = fixture::instant() + SignedDuration::from_micros(1);
    assert!(matches!(desk.sequencer.submit(at(fixture::instant())).await, Err(SubmitError::Stale)));
    desk.sequencer.submit(at(soon)).await.unwrap();
    let other = Draft { revision: Some(Revision(2)), ..decision(false) };
    let answers = desk.sequencer.submit_all(vec![other, decision(false)]).await.unwrap();
    assert!(matches!(answers[..], [Err(SubmitError::Stale), Ok(_)]), "only the stale one");
    desk.verified().await;
}

#[tokio::test]
async fn time_never_runs_backwards() {
    let (_bed, _, desk) = desk(|_| {}).await;
    desk.clock.advance(SignedDuration::from_secs(-60));
    let receipt = desk.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(receipt.ts, fixture::instant());
    desk.verified().await;
}

/// How many of twelve drafts that wait for a commit are in each of the next ones.
async fn shared_commits(dispatch: bool, expected: &[usize]) {
    let (_bed, faulty, desk) = desk(|settings| settings.max_batch = 8).await;
    faulty.will([Fault::Wait]);
    let first = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(false)).await);
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let sequencer = desk.sequencer.clone();
            desk.tracker.spawn(async move { sequencer.submit(decision(dispatch)).await })
        })
        .collect();
    while desk.sequencer.depth() < 12 {
        tokio::task::yield_now().await;
    }
    desk.clock.advance(SignedDuration::from_secs(1));
    // Each batch waits, so that its time can be told from the next one's.
    faulty.will(expected.iter().map(|_| Fault::Wait));
    faulty.gate.add_permits(1);
    first.await.unwrap().unwrap();
    for _ in expected {
        faulty.reached().await;
        desk.clock.advance(SignedDuration::from_secs(1));
        faulty.gate.add_permits(1);
    }
    let mut times = std::collections::BTreeMap::<_, usize>::new();
    for task in waiting {
        *times.entry(task.await.unwrap().unwrap().ts).or_default() += 1;
    }
    assert_eq!(times.into_values().collect::<Vec<_>>(), expected);
    assert_eq!(desk.verified().await.entries, 15);
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    shared_commits(false, &[8, 4]).await;
}

#[tokio::test]
async fn of_calls_that_are_to_be_sent_a_share_is_committed() {
    shared_commits(true, &[6, 4, 2]).await;
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let (_bed, faulty, desk) = desk(|settings| settings.queue = 2).await;
    faulty.will([Fault::Wait]);
    let first = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(false)).await);
    let two = vec![decision(false), decision(false)];
    let sequencer = desk.sequencer.clone();
    let waiting = desk.tracker.spawn(async move { sequencer.submit_all(two).await });
    while desk.sequencer.depth() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = timeout(Duration::from_millis(50), desk.sequencer.submit(decision(false))).await;
    assert!(matches!(refused, Ok(Err(SubmitError::QueueFull))));
    faulty.gate.add_permits(1);
    first.await.unwrap().unwrap();
    assert!(waiting.await.unwrap().unwrap().iter().all(Result::is_ok));
    desk.sequencer.submit(decision(false)).await.unwrap();
}

#[tokio::test]
async fn a_hanging_store_is_an_error_within_two_seconds_and_what_nobody_awaits_is_not_written() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    faulty.will([Fault::Wait]);
    let hanging = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(true)).await);
    let started = Instant::now();
    let behind = desk.sequencer.submit(decision(true)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(matches!(behind, Err(SubmitError::Unavailable(_))));
    assert!(matches!(hanging.await.unwrap(), Err(SubmitError::Unavailable(_))));
    faulty.gate.add_permits(1);
    let receipt = desk.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(receipt.seq.get(), 2, "neither of the two was written");
}

#[tokio::test]
async fn a_dispatch_whose_caller_has_gone_is_given_up() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    let (store, now) = (desk.store.clone(), fixture::instant());
    store.renew_lease(desk.process, now + SignedDuration::from_secs(9)).await.unwrap();
    faulty.will([Fault::WaitAfter]);
    let gone = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(true)).await);
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(store.expired_dispatches(now, None, 9).await.unwrap(), []);
    faulty.gate.add_permits(1);
    desk.sequencer.submit(decision(false)).await.unwrap();
    let given_up = store.expired_dispatches(now, None, 9).await.unwrap();
    assert_eq!(given_up.iter().map(|stored| stored.seq.get()).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn after_a_lost_answer_nothing_is_written_twice() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    faulty.will([Fault::LoseAnswer]);
    faulty.will_not_settle(2);
    let receipt = desk.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(receipt.seq.get(), 2);
    let stored = desk.store.record(receipt.seq).await.unwrap().unwrap();
    assert_eq!((stored.leaf, stored.entry), (receipt.leaf, receipt.entry));
    assert_eq!(desk.verified().await.entries, 3);
}

#[tokio::test]
async fn after_a_lost_commit_what_is_wanted_is_written() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    faulty.will([Fault::LoseCommit, Fault::LoseCommit]);
    let receipt = desk.sequencer.submit(decision(false)).await.unwrap();
    assert_eq!(receipt.seq.get(), 2);
    assert_eq!(desk.verified().await.entries, 3);
}

#[tokio::test]
async fn a_failure_is_told_to_decisions_at_once_and_kept_from_outcomes() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    let sent = desk.sequencer.submit(decision(true)).await.unwrap();
    faulty.will([Fault::Refuse]);
    let refused = timeout(Duration::from_millis(500), desk.sequencer.submit(decision(false))).await;
    assert!(matches!(refused, Ok(Err(SubmitError::Unavailable(_)))));
    faulty.will([Fault::Refuse, Fault::Refuse, Fault::LoseCommit, Fault::LoseAnswer]);
    let outcome = desk
        .sequencer
        .submit_reserved(desk.sequencer.reserve().unwrap(), outcome(&sent))
        .await
        .unwrap();
    assert_eq!(outcome.seq.get(), 3);
    assert_eq!(desk.verified().await.open, []);
}

#[tokio::test]
async fn an_outcome_is_written_though_its_caller_has_gone() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    let sent = desk.sequencer.submit(decision(true)).await.unwrap();
    faulty.will([Fault::Wait, Fault::Refuse]);
    let first = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(false)).await);
    let (sequencer, draft) = (desk.sequencer.clone(), outcome(&sent));
    let gone = desk
        .tracker
        .spawn(async move { sequencer.submit_reserved(sequencer.reserve().unwrap(), draft).await });
    while in_queue(&desk) < 1 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    faulty.gate.add_permits(1);
    first.await.unwrap().unwrap();
    while desk.store.outcome_of(sent.seq).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    desk.verified().await;
}

#[tokio::test]
async fn one_record_that_cannot_be_written_does_not_stop_the_others() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    let sent = desk.sequencer.submit(decision(true)).await.unwrap();
    faulty.will([Fault::Wait]);
    let first = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(false)).await);
    // The identifier of another record: the store refuses the whole batch.
    let poison = Draft { id: decision_id(&sent.entry), ..outcome(&sent) };
    let (a, b) = (desk.sequencer.clone(), desk.sequencer.clone());
    let poison =
        desk.tracker.spawn(async move { a.submit_reserved(a.reserve().unwrap(), poison).await });
    let good = desk.tracker.spawn(async move { b.submit(decision(false)).await });
    while in_queue(&desk) < 2 {
        tokio::task::yield_now().await;
    }
    faulty.gate.add_permits(1);
    first.await.unwrap().unwrap();
    good.await.unwrap().unwrap();
    let Err(SubmitError::Unavailable(error)) = poison.await.unwrap() else { panic!("written") };
    assert!(error.is_refusal());
    desk.sequencer
        .submit_reserved(desk.sequencer.reserve().unwrap(), outcome(&sent))
        .await
        .unwrap();
    assert_eq!(desk.verified().await.entries, 6);
}

/// How many records the writer has not taken up yet.
fn in_queue(desk: &Desk) -> usize {
    desk.sequencer.queue.max_capacity() - desk.sequencer.queue.capacity()
}

fn decision_id(entry: &[u8]) -> Uuid {
    crate::ledger::Entry::parse(entry).unwrap().id
}

#[tokio::test]
async fn closing_finishes_what_was_accepted() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    faulty.will([Fault::Wait]);
    let first = under_way!(desk, faulty, async |s: Sequencer| s.submit(decision(false)).await);
    let sequencer = desk.sequencer.clone();
    let second = desk.tracker.spawn(async move { sequencer.submit(decision(false)).await });
    while desk.sequencer.depth() < 1 {
        tokio::task::yield_now().await;
    }
    desk.sequencer.close();
    assert!(matches!(desk.sequencer.submit(decision(false)).await, Err(SubmitError::Closed)));
    assert!(matches!(desk.sequencer.reserve(), Err(SubmitError::Closed)));
    faulty.gate.add_permits(1);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    desk.tracker.close();
    timeout(Duration::from_secs(1), desk.tracker.wait()).await.unwrap();
    assert_eq!(desk.verified().await.entries, 4);
}

#[tokio::test]
async fn closing_does_not_wait_for_a_store_that_is_gone() {
    let (_bed, faulty, desk) = desk(|_| {}).await;
    let sent = desk.sequencer.submit(decision(true)).await.unwrap();
    faulty.will([Fault::Refuse; 1000]);
    let (sequencer, draft) = (desk.sequencer.clone(), outcome(&sent));
    let kept = desk
        .tracker
        .spawn(async move { sequencer.submit_reserved(sequencer.reserve().unwrap(), draft).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    desk.sequencer.close();
    assert!(matches!(kept.await.unwrap(), Err(SubmitError::Unavailable(_))));
    desk.tracker.close();
    timeout(Duration::from_secs(1), desk.tracker.wait()).await.unwrap();
}

#[tokio::test]
async fn the_task_ends_with_its_last_handle() {
    let (_bed, _, desk) = desk(|_| {}).await;
    let Desk { sequencer, tracker, .. } = desk;
    drop(sequencer);
    tracker.close();
    timeout(Duration::from_secs(1), tracker.wait()).await.unwrap();
}
