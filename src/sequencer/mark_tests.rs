//! What a process has seen signed, held against stores that show something else; and clocks.

use std::{path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    Draft, Mark, MarkSettings, SubmitError,
    contract::kit::{Bed, Desk, Kept, decision},
};
use crate::{
    domain::{Clock as _, SystemClock},
    ledger::{ClockCorrectedBody, Kind, canonical, fixture},
    store::{ClockError, MarkError, RecordQuery, Store, StoreError},
};

/// A folder for the files of a mark.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lexgate-mark-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn settings(&self) -> MarkSettings {
        MarkSettings {
            path: self.0.join("mark"),
            checkpoints: self.0.join("checkpoints"),
            max_clock_skew: SignedDuration::from_secs(5),
            require_witness: None,
        }
    }

    async fn open(&self, store: &dyn Store) -> Result<Mark, StoreError> {
        Mark::open(self.settings(), store, &fixture::signer()).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A log with so many decisions, by clocks that nobody looks at.
async fn log(kept: Kept, decisions: usize) -> (Bed, Desk) {
    let bed = Bed::new(kept).await;
    let desk = Desk::on(bed.migrated().await);
    desk.activate(1).await;
    for _ in 0..decisions {
        desk.insist(decision(false)).await;
    }
    (bed, desk)
}

#[tokio::test]
async fn a_process_that_only_reads_stops_at_what_is_no_continuation() {
    let (_bed, desk) = log(Kept::Sqlite, 3).await;
    let folder = Folder::new("reads");
    for (decisions, is_fork) in [(1, false), (3, true), (300, true)] {
        let mark = folder.open(&*desk.store).await.unwrap();
        let (seen, _) = mark.read(&*desk.store).await.unwrap().unwrap();
        assert_eq!(seen.size, 5);
        // Another log by the same key: its decisions have other identifiers.
        let (_other_bed, other) = log(Kept::Sqlite, decisions).await;
        let error = mark.read(&*other.store).await.unwrap_err();
        let matches = match error {
            StoreError::Mark(MarkError::Forked { mark: 5 }) => is_fork,
            StoreError::Mark(MarkError::RolledBack { size: 3, mark: 5 }) => !is_fork,
            _ => false,
        };
        assert!(matches, "{decisions}: {error}");
        // Also where the right log is back: this process has lost its trust.
        mark.standing().unwrap_err();
        mark.read(&*desk.store).await.unwrap_err();
        mark.read_head(&*other.store).await.unwrap_err();
    }
    // Another process, with the same file, finds the log as it was, and takes what follows.
    let mark = folder.open(&*desk.store).await.unwrap();
    for size in 6..9 {
        desk.insist(decision(false)).await;
        assert_eq!(mark.read(&*desk.store).await.unwrap().unwrap().0.size, size);
    }
    let (_other_bed, other) = log(Kept::Sqlite, 20).await;
    let error = folder.open(&*other.store).await.unwrap_err();
    assert!(matches!(error, StoreError::Mark(MarkError::Forked { mark: 8 })), "{error}");
}

#[tokio::test]
async fn nothing_is_submitted_once_a_reader_has_seen_a_fork() {
    let (_bed, desk) = log(Kept::Sqlite, 3).await;
    let folder = Folder::new("submits");
    let mark = folder.open(&*desk.store).await.unwrap();
    let signing = Desk::marked(desk.store.clone(), mark.clone(), |_| {});
    signing.insist(decision(false)).await;
    signing.sequencer.may_decide().unwrap();
    let (_other_bed, other) = log(Kept::Sqlite, 9).await;
    mark.read(&*other.store).await.unwrap_err();
    let Err(SubmitError::Unavailable(error)) = signing.sequencer.submit(decision(false)).await
    else {
        panic!("it was written")
    };
    assert!(error.refuses_to_sign(), "{error}");
    assert_eq!(desk.store.head().await.unwrap().unwrap().next.get(), 6);
}

/// A writer that holds clocks to five seconds, whose clock is the real one until it is set.
async fn timed(store: Arc<dyn Store>, folder: &Folder) -> Desk {
    let mark = folder.open(&*store).await.unwrap();
    let desk = Desk::marked(store, mark, |_| {});
    desk.clock.advance(SystemClock.now().duration_since(fixture::instant()));
    desk
}

fn clock_error(answer: Result<super::Receipt, SubmitError>) -> ClockError {
    match answer {
        Err(SubmitError::Unavailable(error)) => match &*error {
            StoreError::Clock(error) => *error,
            error => panic!("{error}"),
        },
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn postgres_no_entry_is_dated_by_a_clock_that_is_not_the_servers() {
    let bed = Bed::new(Kept::Postgres).await;
    let folder = Folder::new("apart");
    let desk = timed(bed.migrated().await, &folder).await;
    desk.activate(1).await;
    for hours in [1, -1, 24 * 400] {
        // The head is known: what follows is one statement, in which the server itself looks.
        for _ in 0..3 {
            desk.insist(decision(false)).await;
        }
        let before = desk.store.head().await.unwrap();
        desk.clock.advance(SignedDuration::from_hours(hours));
        let error = clock_error(desk.sequencer.submit(decision(false)).await);
        assert!(matches!(error, ClockError::Apart { .. }), "{error}");
        desk.sequencer.is_ready().await.unwrap_err();
        assert_eq!(desk.store.head().await.unwrap(), before);
        desk.clock.advance(SignedDuration::from_hours(-hours));
        desk.sequencer.is_ready().await.unwrap();
    }
    desk.insist(decision(false)).await;
    desk.verified().await;
}

/// A log whose last entry lies in the future is followed by a correction alone.
async fn correct(kept: Kept, name: &str) {
    let (_bed, wrong) = log(kept, 0).await;
    let ahead = SystemClock.now().duration_since(fixture::instant());
    wrong.clock.advance(ahead);
    let good = wrong.insist(decision(false)).await;
    wrong.clock.advance(SignedDuration::from_hours(24 * 400));
    let last = wrong.insist(decision(false)).await;
    let folder = Folder::new(name);
    let desk = timed(wrong.store.clone(), &folder).await;
    let error = clock_error(desk.sequencer.submit(decision(false)).await);
    assert!(matches!(error, ClockError::LogAhead { log, .. } if log == last.ts), "{error}");
    desk.sequencer.head().await.unwrap_err();

    let correction = |was: Timestamp| {
        let body = ClockCorrectedBody { reason: "a test".to_owned(), was };
        let body = canonical::to_vec(&body).unwrap();
        let draft = Draft::new(uuid::Uuid::from_u128(7), Kind::ClockCorrected, body);
        Draft { corrects: Some(was), ..draft }
    };
    let other = desk.sequencer.submit(correction(last.ts - SignedDuration::from_secs(1))).await;
    assert!(matches!(other, Err(SubmitError::Stale)), "it names another time");
    let corrected = desk.sequencer.submit(correction(last.ts)).await.unwrap();
    assert!(corrected.ts < last.ts);
    let next = desk.sequencer.submit(decision(false)).await.unwrap();
    let report = desk.verified().await;
    assert_eq!(report.corrections, [(corrected.seq, last.ts)]);

    let minute = SignedDuration::from_mins(1);
    let span = RecordQuery {
        from: Some(good.ts - minute),
        to: Some(next.ts + minute),
        limit: 100,
        ..RecordQuery::default()
    };
    let found = desk.store.query(&span).await.unwrap();
    let found: Vec<_> = found.iter().map(|stored| stored.seq).collect();
    assert_eq!(found, [good.seq, corrected.seq, next.seq], "and not the one of the wrong time");
}

#[tokio::test]
async fn sqlite_a_log_that_is_ahead_is_corrected() {
    correct(Kept::Sqlite, "sqlite").await;
}

#[tokio::test]
async fn postgres_a_log_that_is_ahead_is_corrected() {
    correct(Kept::Postgres, "postgres").await;
}
