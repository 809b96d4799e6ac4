//! What both stores promise. Every test here runs on both.

pub(crate) mod faulty;
mod index;
pub(crate) mod kit;
mod limits;
mod search;
mod shared;
mod standing;
mod volumes;
mod wire;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    domain::{Digest, Revision, Seq},
    ledger::{Entry, Kind, SeqRange, fixture},
    sequencer::{Claim, Draft, SubmitError},
    store::{
        DestroyedKey, Destruction, KeptValue, RecordQuery, SealedValue, StoreError, Stored,
        SubjectKey,
    },
};
use kit::{Bed, Desk, Kept, activation, decision, outcome};

/// Makes of each function a test on either store.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod sqlite { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let bed = crate::sequencer::contract::kit::Bed::new(crate::sequencer::contract::kit::Kept::Sqlite).await;
                super::$test(bed).await;
            }
        )* }
        mod postgres { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let bed = crate::sequencer::contract::kit::Bed::new(crate::sequencer::contract::kit::Kept::Postgres).await;
                super::$test(bed).await;
            }
        )* }
    };
}
pub(crate) use on_both;

on_both! {
    a_fresh_store_is_empty_and_migrates_once
    what_is_appended_is_found
    an_outcome_is_written_once
    a_late_outcome_is_written_once
    an_idempotency_key_is_used_once
    open_dispatches_follow_leases
    a_snapshot_follows_the_one_before_it
    the_ledger_is_append_only
    a_body_goes_and_its_place_stays
    values_of_persons_are_kept_until_their_key_goes
    a_batch_that_cannot_be_sealed_changes_nothing
    a_store_holds_one_log
}

async fn a_fresh_store_is_empty_and_migrates_once(bed: Bed) {
    let store = bed.open().await;
    assert!(!store.is_migrated().await.unwrap());
    let others = [bed.open().await, bed.open().await, bed.open().await];
    let [a, b, c] = &others;
    let (r0, r1, r2, r3) = tokio::join!(store.migrate(), a.migrate(), b.migrate(), c.migrate());
    for result in [r0, r1, r2, r3] {
        result.unwrap();
    }
    assert!(store.is_migrated().await.unwrap());
    store.writable().await.unwrap();
    assert_eq!(store.head().await.unwrap(), None);
    assert_eq!(store.active().await.unwrap(), None);
    assert_eq!(store.record(Seq::new(0)).await.unwrap(), None);
    assert_eq!(store.range(Seq::new(0), 9).await.unwrap(), []);
    assert_eq!(store.open_dispatches().await.unwrap(), 0);
}

async fn what_is_appended_is_found(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let draft = decision(true);
    let receipt = desk.sequencer.submit(draft.clone()).await.unwrap();
    let reported = desk.sequencer.submit(outcome(&receipt)).await.unwrap();

    assert_eq!((receipt.seq.get(), reported.seq.get()), (2, 3), "genesis, snapshot, decision");
    let entry = Entry::parse(&receipt.entry).unwrap();
    assert_eq!((entry.id, entry.kind, entry.ts), (draft.id, Kind::Decision, receipt.ts));
    assert_eq!(entry.body.get().as_bytes(), draft.body);

    let store = &desk.store;
    let stored = Stored { seq: receipt.seq, leaf: receipt.leaf, entry: receipt.entry };
    assert_eq!(store.record(receipt.seq).await.unwrap().as_ref(), Some(&stored));
    assert_eq!(store.record_by_id(draft.id).await.unwrap().as_ref(), Some(&stored));
    assert_eq!(store.settle(draft.id).await.unwrap().as_ref(), Some(&stored));
    assert_eq!(store.settle(Uuid::nil()).await.unwrap(), None);
    assert_eq!(store.range(receipt.seq, 1).await.unwrap(), [stored]);
    assert_eq!(store.outcome_of(receipt.seq).await.unwrap().unwrap().seq, reported.seq);
    assert_eq!(store.outcome_of(reported.seq).await.unwrap(), None);
    let head = store.head().await.unwrap().unwrap();
    assert_eq!((head.next.get(), head.leaf, head.ts), (4, reported.leaf, reported.ts));
    let report = desk.verified().await;
    assert_eq!((report.entries, report.open.len()), (4, 0));
}

async fn an_outcome_is_written_once(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let receipt = desk.sequencer.submit(decision(true)).await.unwrap();
    let (first, second) = (outcome(&receipt), Draft { id: Uuid::max(), ..outcome(&receipt) });
    let answers = desk.sequencer.submit_all(vec![first, second.clone()]).await.unwrap();
    assert!(matches!(answers[..], [Ok(_), Err(SubmitError::AlreadyReported)]), "in one batch");
    let again = desk.sequencer.submit(second).await;
    assert!(matches!(again, Err(SubmitError::AlreadyReported)), "in a later one");
    assert_eq!(desk.verified().await.entries, 4);
}

async fn a_late_outcome_is_written_once(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let decision = desk.sequencer.submit(decision(true)).await.unwrap();
    let written = desk.sequencer.submit(kit::unknown(&decision)).await.unwrap();
    let late = |id: u128| kit::late(&decision, &written, id);
    let answers = desk.sequencer.submit_all(vec![late(1), late(2)]).await.unwrap();
    let [Ok(first), Err(SubmitError::AlreadyReported)] = &answers[..] else {
        panic!("in one batch: {answers:?}")
    };
    let again = desk.sequencer.submit(late(3)).await;
    assert!(matches!(again, Err(SubmitError::AlreadyReported)), "in a later one: {again:?}");
    let found = desk.store.outcome_of(written.seq).await.unwrap().unwrap();
    assert_eq!((found.seq, &found.entry), (first.seq, &first.entry));
    assert_eq!(desk.store.outcome_of(decision.seq).await.unwrap().unwrap().seq, written.seq);
    assert_eq!(desk.verified().await.entries, 5);
}

async fn an_idempotency_key_is_used_once(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let claim = |scope: &str, key: &str| {
        Some(Claim { scope: scope.into(), key: key.into(), request: Digest::of(b"request") })
    };
    let with = |claim: Option<Claim>| Draft { claim: claim.map(Arc::new), ..decision(false) };
    let drafts = vec![with(claim("app", "1")), with(claim("app", "1")), with(claim("app", "\"2"))];
    let answers = desk.sequencer.submit_all(drafts).await.unwrap();
    let [Ok(first), Err(SubmitError::Claimed(seq)), Ok(_)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(first.seq, *seq);
    for key in ["1", "\"2"] {
        let again = desk.sequencer.submit(with(claim("app", key))).await;
        assert!(matches!(again, Err(SubmitError::Claimed(_))), "{key}: {again:?}");
    }
    desk.sequencer.submit(with(claim("another app", "1"))).await.unwrap();

    let claimed = desk.store.idempotent("app", "1").await.unwrap().unwrap();
    assert_eq!((claimed.request, claimed.seq), (Digest::of(b"request"), first.seq));
    assert_eq!(desk.store.idempotent("app", "3").await.unwrap(), None);
    desk.store.prune(fixture::instant()).await.unwrap();
    assert!(desk.store.idempotent("app", "1").await.unwrap().is_some(), "used at that instant");
    let later = fixture::instant() + SignedDuration::from_micros(1);
    desk.store.prune(later).await.unwrap();
    assert_eq!(desk.store.idempotent("app", "1").await.unwrap(), None);
    desk.sequencer.submit(with(claim("app", "1"))).await.unwrap();
}

async fn open_dispatches_follow_leases(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let (store, now) = (&desk.store, fixture::instant());
    let in_secs = |n| now + SignedDuration::from_secs(n);
    let expired = async |at| {
        let found = store.expired_dispatches(at, None, 10).await.unwrap();
        found.iter().map(|stored| stored.seq.get()).collect::<Vec<_>>()
    };
    store.renew_lease(desk.process, in_secs(5)).await.unwrap();
    let first = desk.sequencer.submit(decision(true)).await.unwrap();
    desk.sequencer.submit(decision(false)).await.unwrap();
    let second = desk.sequencer.submit(decision(true)).await.unwrap();
    assert_eq!(store.open_dispatches().await.unwrap(), 2);
    assert_eq!(expired(now).await, [0_u64; 0]);
    assert_eq!(expired(in_secs(5)).await, [2, 4]);
    assert_eq!(store.expired_dispatches(in_secs(5), None, 1).await.unwrap().len(), 1);
    let behind = store.expired_dispatches(in_secs(5), Some(first.seq), 9).await.unwrap();
    assert_eq!(behind.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [second.seq]);
    store.renew_lease(desk.process, in_secs(10)).await.unwrap();
    assert_eq!(expired(in_secs(5)).await, [0_u64; 0]);

    store.abandon(&[second.seq]).await.unwrap();
    assert_eq!(expired(now).await, [4], "nobody owns it");
    store.release_lease(desk.process).await.unwrap();
    assert_eq!(expired(now).await, [2, 4]);
    // A lease that somebody has deleted says nothing, until another one has run out.
    bed.execute("DELETE FROM leases").await.unwrap();
    assert_eq!(expired(in_secs(60)).await, [4]);
    assert_eq!(store.grant_missing_leases(in_secs(5)).await.unwrap(), 1);
    assert_eq!(store.grant_missing_leases(in_secs(9)).await.unwrap(), 0);
    assert_eq!(expired(in_secs(4)).await, [4]);
    assert_eq!(expired(in_secs(5)).await, [2, 4]);
    desk.sequencer.submit(outcome(&first)).await.unwrap();
    assert_eq!(expired(now).await, [4]);
    assert_eq!(store.open_dispatches().await.unwrap(), 1);
    assert_eq!(desk.verified().await.open, [second.seq]);
}

async fn a_snapshot_follows_the_one_before_it(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    let stale = desk.sequencer.submit(decision(false)).await;
    assert!(matches!(stale, Err(SubmitError::Stale)), "nothing is active yet");
    let first = desk.activate(1).await;
    let active = desk.store.active().await.unwrap().unwrap();
    assert_eq!((active.snapshot, active.seq), (fixture::snapshot(1), first.seq));
    let content = desk.store.content(Digest::of(b"bundle 1")).await.unwrap();
    assert_eq!(content.as_deref(), Some(b"bundle 1".as_slice()));
    assert_eq!(desk.store.content(Digest::of(b"")).await.unwrap(), None);

    let again = Draft { id: Uuid::max(), ..activation(1) };
    assert!(matches!(desk.sequencer.submit(again).await, Err(SubmitError::Stale)));
    // In one batch: what is decided before the activation stands, what comes after it is stale.
    let mut second = activation(2);
    let known = (Digest::of(b"bundle 1"), "bundle", b"bundle 1".to_vec());
    Arc::make_mut(second.activation.as_mut().unwrap()).contents.push(known);
    let batch = vec![decision(false), second, decision(false)];
    let answers = desk.sequencer.submit_all(batch).await.unwrap();
    assert!(matches!(answers[..], [Ok(_), Ok(_), Err(SubmitError::Stale)]), "{answers:?}");
    assert_eq!(desk.store.head().await.unwrap().unwrap().revision, Revision(2));
    assert_eq!(desk.store.active().await.unwrap().unwrap().snapshot, fixture::snapshot(2));
    desk.verified().await;
}

async fn the_ledger_is_append_only(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let sent = desk.sequencer.submit(decision(true)).await.unwrap();
    desk.sequencer.submit(outcome(&sent)).await.unwrap();
    let before = desk.entries().await;
    let mut attempts = vec![
        "UPDATE entries SET ts = ts",
        "UPDATE contents SET kind = kind",
        "UPDATE activations SET seq = seq",
        "DELETE FROM entries WHERE seq = 3",
        "DELETE FROM contents",
        "DELETE FROM activations",
    ];
    attempts.extend(if bed.url.starts_with("sqlite") {
        // REPLACE removes whatever has the same position, identifier or decision.
        [
            "REPLACE INTO entries (seq, id, ts, kind, about, leaf, entry) SELECT 3, x'00', 0, kind, 9, leaf, x'' FROM entries WHERE seq = 0",
            "REPLACE INTO entries (seq, id, ts, kind, about, leaf, entry) SELECT 9, id, 0, kind, 9, leaf, x'' FROM entries WHERE seq = 3",
            "REPLACE INTO entries (seq, id, ts, kind, about, leaf, entry) SELECT 9, x'00', 0, kind, about, leaf, x'' FROM entries WHERE seq = 3",
        ]
    } else {
        ["TRUNCATE entries", "TRUNCATE contents", "TRUNCATE activations"]
    });
    for sql in attempts {
        let error = bed.execute(sql).await.unwrap_err().to_string();
        assert!(error.contains("the ledger is append-only"), "{sql}: {error}");
    }
    assert_eq!(desk.entries().await, before);
}

async fn a_body_goes_and_its_place_stays(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let draft = decision(false);
    let sent = desk.sequencer.submit(draft.clone()).await.unwrap();
    let kept = desk.sequencer.submit(decision(false)).await.unwrap();
    let range = SeqRange { first: sent.seq, last: sent.seq };
    let hold = Draft::new(Uuid::from_u128(77), Kind::LegalHold, b"{}".to_vec());
    let hold = desk.sequencer.submit(hold).await.unwrap().seq;
    let late = Seq::new(hold.get() + 1);
    assert_eq!(desk.store.remove_bodies(range, hold).await.unwrap(), None, "a hold was set since");
    assert_eq!(desk.store.remove_bodies(range, late).await.unwrap(), Some(1));
    assert_eq!(desk.store.remove_bodies(range, late).await.unwrap(), Some(0), "it has gone");

    let row = desk.store.record(sent.seq).await.unwrap().unwrap();
    assert_eq!((row.seq, row.leaf, row.entry.len()), (sent.seq, sent.leaf, 0));
    assert_eq!(desk.store.range(sent.seq, 2).await.unwrap()[1].entry, kept.entry);
    assert_eq!(desk.store.record_by_id(draft.id).await.unwrap(), None);
    for terms in [Vec::new(), draft.terms[..1].to_vec()] {
        let query = RecordQuery { terms, limit: 9, ..RecordQuery::default() };
        let found = desk.store.query(&query).await.unwrap();
        assert!(found.iter().all(|stored| stored.seq != sent.seq), "{query:?}");
        assert!(found.iter().any(|stored| stored.seq == kept.seq), "{query:?}");
    }

    // Nothing else can be changed that way.
    let permit = if bed.url.starts_with("sqlite") {
        "BEGIN; INSERT INTO pruning VALUES (1)"
    } else {
        "BEGIN; SET LOCAL lexgate.prune = 'on'"
    };
    for change in [
        "UPDATE entries SET ts = 0, entry = '' WHERE seq = 3",
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE seq = 0), entry = '' WHERE seq = 3",
        "UPDATE entries SET about = 1, entry = '' WHERE seq = 3",
        "UPDATE entries SET kind = 'outcome' WHERE seq = 3",
        "DELETE FROM entries WHERE seq = 3",
    ] {
        let error = bed.execute(&format!("{permit}; {change}; COMMIT")).await.unwrap_err();
        assert!(error.to_string().contains("the ledger is append-only"), "{change}: {error}");
    }
    assert_eq!(desk.store.record(kept.seq).await.unwrap().unwrap().entry, kept.entry);
}

async fn values_of_persons_are_kept_until_their_key_goes(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let store = &desk.store;
    let (subject, at) = (Digest::of(b"a person"), fixture::instant());
    assert_eq!(store.subject_key(subject).await.unwrap(), None);
    let key = |n: u128| SubjectKey { id: Uuid::from_u128(n), wrapped: vec![7; 60] };
    store.keep_subject_key(subject, &key(1)).await.unwrap();
    store.keep_subject_key(subject, &key(2)).await.unwrap();
    assert_eq!(store.subject_key(subject).await.unwrap(), Some(key(1)), "the first stays");

    let value = SealedValue { key: key(1).id, sealed: vec![1, 2, 3] };
    let draft = || Draft { personal: Some(Arc::new(value.clone())), ..decision(false) };
    let first = desk.sequencer.submit(draft()).await.unwrap();
    let plain = desk.sequencer.submit(decision(false)).await.unwrap();
    let second = desk.sequencer.submit(draft()).await.unwrap();
    let sealed = Some(KeptValue::Sealed(value.clone(), Some(key(1).wrapped)));
    assert_eq!(store.kept_value(first.seq).await.unwrap(), sealed);
    assert_eq!(store.kept_value(plain.seq).await.unwrap(), None);
    assert_eq!(store.values_under(key(1).id, None, 9).await.unwrap(), [first.seq, second.seq]);
    assert_eq!(store.values_under(key(1).id, Some(first.seq), 9).await.unwrap(), [second.seq]);

    let others = Digest::of(b"other");
    assert_eq!(store.keys_of(&[others, subject]).await.unwrap(), [key(1).id]);
    let hold = Draft::new(Uuid::from_u128(77), Kind::LegalHold, b"{}".to_vec());
    let hold = desk.sequencer.submit(hold).await.unwrap().seq;
    let mut destruction = Destruction {
        subjects: vec![others, subject],
        at,
        by: "officer".to_owned(),
        as_of: hold,
        despite: Some("{}".to_owned()),
    };
    assert!(!store.destroy_keys(&destruction).await.unwrap(), "a hold was set since");
    assert_eq!(store.subject_key(subject).await.unwrap(), Some(key(1)));
    destruction.as_of = Seq::new(hold.get() + 1);
    assert!(store.destroy_keys(&destruction).await.unwrap());
    assert_eq!(store.keys_of(&[subject]).await.unwrap(), [key(1).id], "its values are there");
    assert_eq!(store.subject_key(subject).await.unwrap(), None);
    let unreadable = Some(KeptValue::Sealed(value, None));
    assert_eq!(store.kept_value(first.seq).await.unwrap(), unreadable);
    let destroyed = [DestroyedKey {
        id: key(1).id,
        by: "officer".to_owned(),
        as_of: Some(destruction.as_of),
        despite: destruction.despite,
    }];
    let of = |subject: &'static [u8]| [Digest::of(subject)];
    assert_eq!(
        store.destroyed_keys(Some(&of(b"a person")), Timestamp::MAX).await.unwrap(),
        destroyed
    );
    assert_eq!(store.destroyed_keys(None, Timestamp::MAX).await.unwrap(), destroyed);
    assert_eq!(store.destroyed_keys(None, at).await.unwrap(), []);
    assert_eq!(store.destroyed_keys(Some(&of(b"other")), Timestamp::MAX).await.unwrap(), []);

    store.forget_values(key(1).id, &[first.seq], Seq::new(9)).await.unwrap();
    assert_eq!(store.kept_value(first.seq).await.unwrap(), Some(KeptValue::Erased(Seq::new(9))));
    assert_eq!(store.values_under(key(1).id, None, 9).await.unwrap(), [second.seq]);
    store.forget_values(key(1).id, &[second.seq], Seq::new(9)).await.unwrap();
    store.forget_key(key(1).id).await.unwrap();
    assert_eq!(store.destroyed_keys(None, Timestamp::MAX).await.unwrap(), []);
    store.keep_subject_key(subject, &key(3)).await.unwrap();
    store.forget_key(key(3).id).await.unwrap();
    assert_eq!(store.subject_key(subject).await.unwrap(), Some(key(3)), "a living key stays");
}

async fn a_batch_that_cannot_be_sealed_changes_nothing(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let before = desk.store.head().await.unwrap();
    let twice = decision(false);
    let answers = desk.sequencer.submit_all(vec![twice.clone(), twice]).await.unwrap();
    let [Err(SubmitError::Unavailable(a)), Err(SubmitError::Unavailable(_))] = &answers[..] else {
        panic!("one identifier for two records: {answers:?}")
    };
    assert!(a.is_refusal(), "{a}");
    assert_eq!(desk.store.head().await.unwrap(), before);
    let body = vec![b'1'; 70_000];
    let answer = desk.sequencer.submit(Draft { body: body.into(), ..decision(false) }).await;
    assert!(matches!(answer, Err(SubmitError::TooLarge { bytes: 70_000.., limit: 65_535 })));
    assert_eq!(desk.store.head().await.unwrap(), before);
    desk.sequencer.submit(decision(false)).await.unwrap();
    desk.verified().await;
}

async fn a_store_holds_one_log(bed: Bed) {
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    let other = Desk::with(bed.open().await, |settings| {
        settings.origin = "lexgate.example/other".parse().unwrap();
    });
    let Err(SubmitError::Unavailable(error)) = other.sequencer.submit(decision(false)).await else {
        panic!("another log's record was written")
    };
    assert!(matches!(*error, StoreError::OtherLog { .. }));
    assert_eq!(
        error.to_string(),
        "the store holds the log `lexgate.example/main`, not `lexgate.example/other`"
    );
    assert_eq!(desk.verified().await.entries, 2);
}

#[tokio::test]
async fn an_address_that_names_no_store_is_refused() {
    for bad in ["", "data/lexgate.db", "mysql://a/b", "sqlite::memory:", "sqlite://?mode=memory"] {
        let error = crate::store::open(bad).await.unwrap_err();
        assert!(matches!(error, StoreError::Address(_)), "{bad}: {error}");
    }
    let secret = crate::store::open("postgres://user:hunter2@localhost/db").await.unwrap();
    assert!(!format!("{secret:?}").contains("hunter2"));
}

/// The same records through both stores: the same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_keep_the_same_ledger() {
    let mut ledgers = Vec::new();
    for kept in [Kept::Sqlite, Kept::Postgres] {
        let bed = Bed::new(kept).await;
        let desk = Desk::on(bed.migrated().await);
        desk.activate(1).await;
        for n in 0..20 {
            desk.clock.advance(SignedDuration::from_nanos(700));
            let drafts = (0..3).map(|m| kit::numbered(m == 0, 100 * n + m)).collect();
            let answers = desk.sequencer.submit_all(drafts).await.unwrap();
            let sent = answers[0].as_ref().unwrap();
            desk.sequencer.submit(outcome(sent)).await.unwrap();
        }
        assert_eq!(desk.verified().await.entries, 82);
        ledgers.push(desk.entries().await);
    }
    assert_eq!(ledgers[0], ledgers[1]);
}
