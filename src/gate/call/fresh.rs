//! How long it is ago that the store was heard: that this process lives, and which snapshot is active.
//!
//! Two clocks must agree that it is not long. The monotonic one cannot be set, but stands still while a
//! machine sleeps; the other one goes on meanwhile, but can be set. A process that was stopped, or a machine
//! that slept, has heard nothing for as long as that took.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::domain::{Clock, Revision};

/// For how long a lease holds.
pub(in crate::gate) const LEASE: Duration = Duration::from_secs(10);
/// How much earlier a process believes its own lease to end than others do: what it has begun to write
/// until then is written while it holds.
const MARGIN: Duration = Duration::from_secs(1);
/// For how long a process believes in a lease of its own.
const OWN_LEASE: Duration = LEASE.saturating_sub(MARGIN);
/// For how long the store's word for the active revision is believed.
const CONFIRMED: Duration = Duration::from_millis(500);

/// An instant on both clocks.
#[derive(Clone, Copy, Debug)]
pub(in crate::gate) struct Moment {
    monotonic: Instant,
    wall: Timestamp,
}

impl Moment {
    /// Now.
    pub(in crate::gate) fn now(clock: &dyn Clock) -> Self {
        Self { monotonic: Instant::now(), wall: clock.now() }
    }

    /// Whether `self` is less than `span` before `now`, on both clocks.
    fn is_within(self, span: Duration, now: Self) -> bool {
        let apart = now.wall.duration_since(self.wall).abs();
        let wall = SignedDuration::try_from(span).is_ok_and(|span| apart < span);
        wall && now.monotonic.duration_since(self.monotonic) < span
    }
}

/// When this process renewed its lease last, and how often it had run out before.
#[derive(Debug, Default)]
pub(in crate::gate) struct Lease(Mutex<Term>);

#[derive(Clone, Copy, Debug, Default)]
struct Term {
    renewed: Option<Moment>,
    /// The number of the row of renewals without a gap.
    number: u64,
}

impl Lease {
    /// It was renewed. `asked` is the moment before the store was asked, so that it ends here no later than
    /// there; `done` the one at which the store had answered.
    pub(in crate::gate) fn renewed(&self, asked: Moment, done: Moment) {
        let mut term = lock(&self.0);
        let is_unbroken = term.renewed.is_some_and(|renewed| renewed.is_within(OWN_LEASE, done));
        term.number += u64::from(!is_unbroken);
        term.renewed = Some(asked);
    }

    /// The number of the term in which it is surely held at `now`: nobody has taken this process for dead
    /// since that began. `None` when it may have run out.
    pub(in crate::gate) fn held_since(&self, now: Moment) -> Option<u64> {
        let term = *lock(&self.0);
        let renewed = term.renewed?;
        renewed.is_within(OWN_LEASE, now).then_some(term.number)
    }
}

/// What the store said last of the active snapshot and of the ledger's time.
#[derive(Debug, Default)]
pub(in crate::gate) struct Confirmed {
    last: Mutex<Heard>,
    /// Held by the one that asks the store for all.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    active: Option<(Revision, Moment)>,
    /// The time of the last entry that is known.
    ts: Option<Timestamp>,
}

impl Confirmed {
    /// At `asked` or later `revision` was the active one, and an entry of the time `ts` was the last one.
    pub(in crate::gate) fn note(&self, revision: Revision, asked: Moment, ts: Timestamp) {
        let mut heard = lock(&self.last);
        if heard.active.is_none_or(|(_, last)| asked.monotonic >= last.monotonic) {
            heard.active = Some((revision, asked));
            // It goes back where the log's time was corrected, and nowhere else.
            heard.ts = Some(ts);
        }
    }

    /// Whether `revision` was the active one a moment ago, as the store said; `None` where it said nothing
    /// of it, or of an earlier one.
    pub(in crate::gate) fn heard(&self, revision: Revision, now: Moment) -> Option<bool> {
        let (known, at) = lock(&self.last).active?;
        (known >= revision && at.is_within(CONFIRMED, now)).then_some(known == revision)
    }

    /// Whether it surely was.
    pub(in crate::gate) fn is_active(&self, revision: Revision, now: Moment) -> bool {
        self.heard(revision, now) == Some(true)
    }

    /// Waits until no other call asks the store, which may then have been heard.
    pub(in crate::gate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.asking.lock().await
    }

    /// The time: of the clock or of the last entry that is known, whichever is later.
    pub(in crate::gate) fn time(&self, now: Moment) -> Timestamp {
        lock(&self.last).ts.map_or(now.wall, |ts| ts.max(now.wall))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many milliseconds later on either clock.
    fn later(moment: Moment, monotonic: u64, wall: i64) -> Moment {
        Moment {
            monotonic: moment.monotonic + Duration::from_millis(monotonic),
            wall: moment.wall + SignedDuration::from_millis(wall),
        }
    }

    fn start() -> Moment {
        Moment { monotonic: Instant::now(), wall: "2026-11-30T12:00:00Z".parse().unwrap() }
    }

    #[test]
    fn a_lease_holds_while_both_clocks_say_so() {
        let (lease, start) = (Lease::default(), start());
        assert_eq!(lease.held_since(start), None, "none was taken");
        lease.renewed(start, start);
        assert_eq!(lease.held_since(later(start, 8_999, 8_999)), Some(1));
        // Stopped; asleep; set forward; set back.
        for (monotonic, wall) in [(9_000, 9_000), (5, 60_000), (5, 9_000), (5, -9_000)] {
            assert_eq!(lease.held_since(later(start, monotonic, wall)), None, "{monotonic} {wall}");
        }
        let on =
            |seconds: u64| later(start, 1_000 * seconds, 1_000 * i64::try_from(seconds).unwrap());
        lease.renewed(on(3), on(4));
        assert_eq!(lease.held_since(on(10)), Some(1));
        // The store answered when the one before may have run out.
        lease.renewed(on(6), on(12));
        assert_eq!(lease.held_since(on(12)), Some(2), "it is held again, and was not all the time");
    }

    #[test]
    fn the_latest_word_for_a_revision_holds_for_half_a_second() {
        let (confirmed, start) = (Confirmed::default(), start());
        let early = start.wall - SignedDuration::from_secs(9);
        assert!(!confirmed.is_active(Revision(1), start));
        confirmed.note(Revision(1), start, early);
        assert!(confirmed.is_active(Revision(1), later(start, 499, 499)));
        assert!(!confirmed.is_active(Revision(2), start));
        assert!(!confirmed.is_active(Revision(1), later(start, 500, 500)));
        assert!(!confirmed.is_active(Revision(1), later(start, 1, 500)));
        let heard = later(start, 100, 100);
        let ahead = start.wall + SignedDuration::from_hours(1);
        confirmed.note(Revision(2), heard, ahead);
        // What was asked before and is heard later says nothing new of the revision.
        confirmed.note(Revision(1), start, early);
        assert!(
            confirmed.is_active(Revision(2), heard) && !confirmed.is_active(Revision(1), heard)
        );
        let said = |revision| confirmed.heard(Revision(revision), heard);
        assert_eq!([said(1), said(2), said(3)], [Some(false), Some(true), None]);
        assert_eq!(
            confirmed.time(heard),
            ahead,
            "what was asked before says nothing new of the time"
        );
        assert_eq!(Confirmed::default().time(start), start.wall);
    }
}
